"""Candles in columns: their dtype, and the checks that they must pass before they are stored."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._core import candles as core
from ..errors import InvalidValueError
from .intervals import Grid, grid_of

__all__ = [
    "CANDLE_DTYPE", "PRICES", "TIME_LIMIT", "CandleArray", "check_columns", "closed_candles", "impossible_candles", "matches", "memory",
    "refuse", "to_dicts",
]  # fmt: skip

CandleArray = npt.NDArray[np.void]
"""An array (n,) of CANDLE_DTYPE."""

PRICES: Final = ("open", "high", "low", "close", "volume")
"""The fields of a candle after ``timestamp``."""
CANDLE_DTYPE: Final = np.dtype([("timestamp", "<i8"), *((name, "<f8") for name in PRICES)])
"""One candle: open time in ms, prices, and volume in the base asset. Packed into 48 bytes, as the compiled reader writes it."""

# The TypeScript package stores times as doubles, which are exact only within this many ms of 1970 (about the years -283,000 to 287,000).
TIME_LIMIT: Final = 2**53


def memory(columns: CandleArray) -> npt.NDArray[np.int8]:
    """View the rows as the packed bytes that the compiled core takes."""
    return np.ascontiguousarray(columns).view(np.int8)


def check_columns(columns: CandleArray, interval: str) -> None:
    """Check candles for what must not be stored.

    Args:
        columns: an array (n,) of CANDLE_DTYPE
        interval: the length of the candles, such as "1m"

    Raises:
        InvalidTypeError: ``interval`` is not a str
        InvalidValueError: a value is not finite, or a time is off the grid; the message names the candle. Or the interval is unknown

    Examples:
        >>> from backtest_kit_mongo.candles import check_columns
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> check_columns(synthetic_market(7, 60, 1704067200000), "1m")
    """
    grid = grid_of(interval)
    plain = grid.is_plain
    if not core.are_sound(memory(columns), grid.longest if plain else 1) or (not plain and grid.past(columns["timestamp"]).any()):
        refuse(columns, grid)


def refuse(columns: CandleArray, grid: Grid) -> None:
    """Raise InvalidValueError naming a candle that must not be stored."""
    for name in PRICES:
        bad = np.flatnonzero(~np.isfinite(columns[name]))
        if bad.size:
            row = int(bad[0])
            raise InvalidValueError(
                f"candle {row} (timestamp {columns['timestamp'][row]}): {name} is {columns[name][row]}, not a finite number"
            )
    far = np.flatnonzero((columns["timestamp"] > TIME_LIMIT) | (columns["timestamp"] < -TIME_LIMIT))
    if far.size:
        raise InvalidValueError(f"candle {far[0]}: timestamp {columns['timestamp'][far[0]]} is not a timestamp in milliseconds")
    off = np.flatnonzero(grid.past(columns["timestamp"]))
    if off.size:
        row = int(off[0])
        stamp = int(columns["timestamp"][row])
        raise InvalidValueError(
            f"candle {row}: timestamp {stamp} is off the {grid.interval} grid", hint=f"use the candle's open time in ms, {grid.rule}"
        )


def impossible_candles(columns: CandleArray) -> npt.NDArray[np.intp]:
    """Return the positions of candles that cannot be: a price that is not above 0, outside of low and high, or a volume below 0.

    Nothing is said of a price that is far from the others: a coin may fall to nothing within a minute.

    Args:
        columns: an array (n,) of CANDLE_DTYPE

    Returns:
        their positions in ``columns``, ascending

    Examples:
        >>> from backtest_kit_mongo.candles import impossible_candles
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> candles = synthetic_market(7, 60, 1704067200000)
        >>> candles["high"][5] = 0
        >>> impossible_candles(candles).tolist()
        [5]
    """
    opened, high, low, close, volume = (columns[name] for name in PRICES)
    return np.flatnonzero(~((low > 0) & (low <= opened) & (opened <= high) & (low <= close) & (close <= high) & (volume >= 0)))


def closed_candles(columns: CandleArray, interval: str, now: int | None = None) -> CandleArray:
    """Return the candles that have closed. A candle that closes exactly at ``now`` has closed.

    Args:
        columns: an array (n,) of CANDLE_DTYPE
        interval: the length of the candles, such as "1m"
        now: the time in ms since 1970 (UTC); None is the wall clock

    Returns:
        ``columns`` itself if all have closed, otherwise a copy without the others

    Raises:
        InvalidTypeError: ``interval`` is not a str
        InvalidValueError: the interval is unknown

    Examples:
        >>> from backtest_kit_mongo.candles import closed_candles
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> closed_candles(synthetic_market(7, 60, 1704067200000), "1m", now=1704067200000 + 150_000).shape
        (2,)
    """
    now = time.time_ns() // 1_000_000 if now is None else now
    latest = grid_of(interval).closed_until(now)
    return columns if (columns["timestamp"] <= latest).all() else columns[columns["timestamp"] <= latest]


def matches(candles: CandleArray, stored: Iterable[CandleArray]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Compare candles with stored ones of the same series.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, ascending
        stored: batches of stored candles, each such an array

    Returns:
        two masks (n,) of bool over ``candles``: which open times are stored, and which are stored with the same values

    Examples:
        >>> from backtest_kit_mongo.candles import matches
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> candles = synthetic_market(7, 3, 1704067200000)
        >>> present, equal = matches(candles, [candles[:2]])
        >>> present.tolist(), equal.tolist()
        ([True, True, False], [True, True, False])
    """
    stamps = candles["timestamp"]
    present, equal = np.zeros(len(stamps), bool), np.zeros(len(stamps), bool)
    for batch in stored:
        rows = np.minimum(np.searchsorted(stamps, batch["timestamp"]), len(stamps) - 1)
        matching = stamps[rows] == batch["timestamp"]
        present[rows[matching]] = True
        equal[rows[matching]] = candles[rows[matching]] == batch[matching]
    return present, equal


def to_dicts(columns: CandleArray) -> list[dict[str, Any]]:
    """Return one plain dict per candle, in order.

    Args:
        columns: an array (n,) of CANDLE_DTYPE

    Returns:
        n dicts {timestamp (ms), open, high, low, close, volume}

    Examples:
        >>> from backtest_kit_mongo.candles import to_dicts
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> list(to_dicts(synthetic_market(7, 60, 1704067200000))[0])
        ['timestamp', 'open', 'high', 'low', 'close', 'volume']
    """
    return core.to_dicts(memory(columns))
