"""Candles in columns: intervals, the time grid, and the checks that candles must pass before they are stored."""

from __future__ import annotations

import importlib
import numbers
import time
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ._core import candles as core
from .errors import InvalidTypeError, InvalidValueError, MissingDependencyError

__all__ = [
    "CANDLE_DTYPE", "INTERVAL_MS", "CandleArray", "align", "closed_candles", "interval_ms", "matches", "to_arrow", "to_columns", "to_dicts",
    "to_pandas", "to_polars",
]  # fmt: skip

CandleArray = npt.NDArray[np.void]

INTERVAL_MS: Final = MappingProxyType(
    {
        name: minutes * 60_000
        for name, minutes in (
            ("1m", 1), ("3m", 3), ("5m", 5), ("15m", 15), ("30m", 30), ("1h", 60), ("2h", 120), ("4h", 240), ("6h", 360),
            ("8h", 480), ("1d", 1440),
        )
    }
)  # fmt: skip
"""Length of each candle interval in ms."""

PRICES: Final = ("open", "high", "low", "close", "volume")
CANDLE_DTYPE: Final = np.dtype([("timestamp", "<i8"), *((name, "<f8") for name in PRICES)])
"""One candle: open time in ms, prices, and volume in the base asset. Packed into 48 bytes, as the compiled reader writes it."""

# The TypeScript package stores times as doubles, which are exact only within this many ms of 1970 (about the years -283,000 to 287,000).
_TIME_LIMIT: Final = 2**53


def interval_ms(interval: Any) -> int:
    """Return the length of an interval in ms. Raises InvalidTypeError or InvalidValueError if it is not an interval."""
    if not isinstance(interval, str):
        raise InvalidTypeError(f"interval must be a str, got {type(interval).__name__}")
    try:
        return INTERVAL_MS[interval]
    except KeyError:
        raise InvalidValueError(f"unknown interval {interval!r}", hint=f"use one of {', '.join(INTERVAL_MS)}") from None


def align(timestamp: int, step: int) -> int:
    """Return the open time (ms) of the candle of ``step`` ms that contains ``timestamp`` (ms), counted from the epoch in UTC."""
    return timestamp // step * step


def to_columns(candles: Iterable[Any], interval: str) -> CandleArray:
    """Check candles and return them as an array of CANDLE_DTYPE, in their order.

    ``candles`` are dicts, dataclasses or Structs, or already an array of CANDLE_DTYPE. Raises InvalidTypeError or InvalidValueError
    naming the row if a field is missing, a value is not a finite number, or a timestamp is off the grid of ``interval``.
    """
    step = interval_ms(interval)
    if isinstance(candles, np.ndarray):
        if candles.dtype != CANDLE_DTYPE or candles.ndim != 1:
            raise InvalidTypeError(f"an array of candles must be one-dimensional and have dtype {CANDLE_DTYPE}, got {candles.dtype}")
        columns = candles
    else:
        if isinstance(candles, (str, bytes, Mapping)) or not isinstance(candles, Iterable):
            raise InvalidTypeError(f"candles must be a list of candles, got {type(candles).__name__}")
        rows = tuple(candles)
        columns = np.empty(len(rows), CANDLE_DTYPE)
        core.pack_rows(rows, columns.view(np.int8), _row)
    if not core.are_sound(_memory(columns), step):
        _refuse(columns, interval, step)
    return columns


def _memory(columns: CandleArray) -> npt.NDArray[np.int8]:
    """View the rows as the packed bytes that the compiled core takes."""
    return np.ascontiguousarray(columns).view(np.int8)


def _refuse(columns: CandleArray, interval: str, step: int) -> None:
    """Raise InvalidValueError naming a candle that must not be stored."""
    for name in PRICES:
        bad = np.flatnonzero(~np.isfinite(columns[name]))
        if bad.size:
            row = int(bad[0])
            raise InvalidValueError(
                f"candle {row} (timestamp {columns['timestamp'][row]}): {name} is {columns[name][row]}, not a finite number"
            )
    far = np.flatnonzero((columns["timestamp"] > _TIME_LIMIT) | (columns["timestamp"] < -_TIME_LIMIT))
    if far.size:
        raise InvalidValueError(f"candle {far[0]}: timestamp {columns['timestamp'][far[0]]} is not a timestamp in milliseconds")
    off = np.flatnonzero(columns["timestamp"] % step)
    if off.size:
        row = int(off[0])
        stamp = int(columns["timestamp"][row])
        raise InvalidValueError(
            f"candle {row}: timestamp {stamp} is off the {interval} grid", hint=f"use the candle's open time in ms, a multiple of {step}"
        )


def _row(index: int, candle: Any) -> tuple[Any, ...]:
    if not isinstance(candle, Mapping):
        if not isinstance(candle, msgspec.Struct) and (not is_dataclass(candle) or isinstance(candle, type)):
            raise InvalidTypeError(f"candle {index} must be a dict, dataclass or Struct, got {type(candle).__name__}")
        candle = msgspec.to_builtins(candle)
    values = []
    for name in CANDLE_DTYPE.names or ():
        value = candle.get(name)
        if value is None:
            raise InvalidValueError(f"candle {index} (timestamp {candle.get('timestamp')}): {name} is missing")
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, Decimal)):
            raise InvalidTypeError(f"candle {index} (timestamp {candle.get('timestamp')}): {name} must be a number, got {value!r:.40}")
        values.append(value)
    stamp: Any = values[0]
    if stamp != stamp or stamp in (float("inf"), float("-inf")) or int(stamp) != stamp or abs(int(stamp)) > _TIME_LIMIT:
        raise InvalidValueError(f"candle {index}: timestamp {stamp!r} is not a whole number of ms")
    try:
        return (int(stamp), *map(float, values[1:]))
    except OverflowError:
        raise InvalidValueError(f"candle {index} (timestamp {stamp}): a price is too large for a double") from None


def closed_candles(columns: CandleArray, interval: str, now: int | None = None) -> CandleArray:
    """Return the candles that have closed at ``now`` (ms, default: the wall clock). A candle that closes exactly at ``now`` has closed."""
    now = time.time_ns() // 1_000_000 if now is None else now
    open_until = now - interval_ms(interval)
    return columns if (columns["timestamp"] <= open_until).all() else columns[columns["timestamp"] <= open_until]


def matches(candles: CandleArray, stored: Iterable[CandleArray]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Compare ``candles`` (ascending) with ``stored`` (batches of the same series).

    Returns two masks over ``candles``: which open times are stored, and which are stored with the same values.
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
    """Return one plain dict per candle, in order."""
    return core.to_dicts(_memory(columns))


# --- for other libraries: float64 columns, each copied once out of the packed rows ---


def to_pandas(candles: CandleArray) -> Any:
    """Return a pandas DataFrame of prices and volume, indexed by open time: ``timestamp`` (datetime64[ms, UTC])."""
    pandas = library("pandas", "pandas")
    times = pandas.DatetimeIndex(_times(candles), name="timestamp").tz_localize("UTC")
    return pandas.DataFrame({name: _column(candles, name) for name in PRICES}, index=times, copy=False)


def to_polars(candles: CandleArray) -> Any:
    """Return a polars DataFrame of ``timestamp`` (Datetime in ms, UTC), prices and volume."""
    polars = library("polars", "polars")
    # Cast from integers, which works for any timestamp: polars panics if it attaches a time zone to a date in the far future.
    times = polars.Series("timestamp", _column(candles, "timestamp")).cast(polars.Datetime("ms", "UTC"))
    return polars.DataFrame([times, *(polars.Series(name, _column(candles, name)) for name in PRICES)])


def to_arrow(candles: CandleArray) -> Any:
    """Return a pyarrow Table of ``timestamp`` (timestamp[ms, tz=UTC]), prices and volume."""
    arrow = library("pyarrow", "arrow")
    times = arrow.array(_times(candles), type=arrow.timestamp("ms", tz="UTC"))
    return arrow.table({"timestamp": times, **{name: arrow.array(_column(candles, name)) for name in PRICES}})


def library(name: str, extra: str) -> Any:
    """Import an optional library. Raises MissingDependencyError, which names the extra that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = f'pip install "backtest-kit-mongo[{extra}]"'
        raise MissingDependencyError(f"{name} is not installed", hint=hint) from None


def _column(candles: CandleArray, name: str) -> npt.NDArray[np.float64]:
    if not isinstance(candles, np.ndarray) or candles.dtype != CANDLE_DTYPE or candles.ndim != 1:
        raise InvalidTypeError(f"expected a one-dimensional array of {CANDLE_DTYPE}, as read_candles_array returns it")
    return candles[name].copy()


def _times(candles: CandleArray) -> npt.NDArray[np.datetime64]:
    return _column(candles, "timestamp").view("datetime64[ms]")
