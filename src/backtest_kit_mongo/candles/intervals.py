"""The intervals of candles, and the time grid that their open times lie on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InvalidTypeError, InvalidValueError

__all__ = [
    "GRIDS",
    "INTERVAL_MS",
    "OFF_GRID",
    "CandleInterval",
    "Grid",
    "OffGrid",
    "PlainInterval",
    "align",
    "check_off_grid",
    "grid_of",
    "interval_ms",
]

Stamps = npt.NDArray[np.int64]

CandleInterval = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
"""Names of the intervals in ``GRIDS``, for type checkers."""

PlainInterval = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"]
"""Names of the intervals in ``INTERVAL_MS``, for type checkers."""

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000


class Grid:
    """The open times of an interval's candles: one every ``step`` ms from ``offset`` on, and as many before that.

    The candles are numbered by their position: candle 0 opens at ``offset``, candle -1 right before it. ``GRIDS`` has the grid of every
    interval; months, which differ in length, have a class of their own.

    Args:
        interval: the name of the interval
        step: the length of a candle in ms
        offset: the open time of candle 0 in ms since 1970 (UTC)
        rule: which times are on the grid, for messages; None is "a multiple of ... since 1970"

    Examples:
        >>> from backtest_kit_mongo.candles import GRIDS
        >>> GRIDS["1w"].align(1704067200000), GRIDS["1w"].is_on(1704067200000)
        (1704067200000, True)
    """

    def __init__(self, interval: CandleInterval, step: int, offset: int = 0, rule: str | None = None) -> None:
        self.interval: CandleInterval = interval
        self.step: int | None = step
        """Length of each candle in ms; None if they differ."""
        self.longest: int = step
        """Length in ms that no candle exceeds."""
        self.is_plain: bool = offset == 0
        """Whether candles open at the multiples of ``step`` since 1970. Only such candles are packed into blocks."""
        self.rule: str = f"a multiple of {step} ms since 1970" if rule is None else rule
        """Which times are on the grid, for messages."""
        self._length, self._offset = step, offset

    def position(self, stamp: int) -> int:
        """Return the position of the candle that contains the time ``stamp`` (ms)."""
        return (stamp - self._offset) // self._length

    def opens(self, position: int) -> int:
        """Return the open time (ms) of the candle at ``position``."""
        return position * self._length + self._offset

    def positions(self, stamps: Stamps) -> Stamps:
        """Return the positions of the candles that contain the times ``stamps`` (ms), both arrays (n,) of int64."""
        return (stamps - self._offset) // self._length

    def past(self, stamps: Stamps) -> Stamps:
        """Return by how many ms each of the times ``stamps`` is past the open time of its candle; 0 means that it is on the grid."""
        return (stamps - self._offset) % self._length

    def window(self, since: int, count: int) -> Iterable[int]:
        """Return the open times (ms) of ``count`` candles from the one that contains ``since`` (ms) on."""
        first = since - (since - self._offset) % self._length
        return range(first, first + count * self._length, self._length)

    def stamps(self, since: int, until: int) -> Stamps:
        """Return the open times (ms, int64) from the candle that contains ``since`` up to, without it, the one of ``until`` (ms)."""
        return np.arange(self.align(since), self.align(until), self._length, dtype=np.int64)

    def stamps_of(self, positions: Stamps) -> Stamps:
        """Return the open times (ms) of the candles at ``positions``, both arrays (n,) of int64."""
        return positions * self._length + self._offset

    def divides(self, longer: Grid) -> bool:
        """Return whether every candle of ``longer`` consists of whole candles of this grid."""
        if self.step is None:
            return self is longer
        if longer.step is None:  # months begin at 00:00 UTC
            return _DAY_MS % self.step == 0 and self._offset % self.step == 0
        return longer.step % self.step == 0 and (longer._offset - self._offset) % self.step == 0

    def align(self, stamp: int) -> int:
        """Return the open time (ms) of the candle that contains the time ``stamp`` (ms)."""
        return stamp - (stamp - self._offset) % self._length

    def ceil(self, stamp: int) -> int:
        """Return the first open time (ms) at or after the time ``stamp`` (ms)."""
        return self.opens(self.position(stamp - 1) + 1)

    def after(self, stamp: int, count: int = 1) -> int:
        """Return the open time (ms) of the candle ``count`` positions after the one that contains ``stamp`` (ms); before it if negative."""
        return self.opens(self.position(stamp) + count)

    def count(self, since: int, until: int) -> int:
        """Return how many candles open from the one that contains ``since`` up to, without it, the one that contains ``until`` (ms)."""
        return self.position(until) - self.position(since)

    def closes(self, stamp: int, count: int = 1) -> int:
        """Return when the last of ``count`` candles from ``stamp`` (ms) on closes; other programs store candles off the grid too."""
        return stamp + count * self._length

    def closed_until(self, moment: int) -> int:
        """Return the latest open time (ms), also off the grid, of a candle that has closed by ``moment`` (ms)."""
        return moment - self._length

    def is_on(self, stamp: int) -> bool:
        """Return whether the time ``stamp`` (ms) is on the grid."""
        return (stamp - self._offset) % self._length == 0


class _Months(Grid):
    """The grid of calendar months (UTC). Position 0 is January 1970."""

    def __init__(self, interval: CandleInterval) -> None:
        super().__init__(interval, 31 * _DAY_MS, rule="the first of a month, 00:00 UTC")
        self.step, self.is_plain = None, False

    # With plain ints, as some times are beyond what NumPy and datetime can hold. A year of this calendar begins in March, so that the day
    # of the leap year is its last one; an era is 400 such years.

    def position(self, stamp: int) -> int:
        era, day = divmod(stamp // _DAY_MS + 719_468, 146_097)
        year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
        month = (5 * (day - (365 * year + year // 4 - year // 100)) + 2) // 153  # from March
        return (400 * era + year - 1970) * 12 + month + 2

    def opens(self, position: int) -> int:
        years, month = divmod(position - 2, 12)
        era, year = divmod(years + 1970, 400)
        return (era * 146_097 + year * 365 + year // 4 - year // 100 + (153 * month + 2) // 5 - 719_468) * _DAY_MS

    def align(self, stamp: int) -> int:
        return self.opens(self.position(stamp))

    def positions(self, stamps: Stamps) -> Stamps:
        return stamps.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)

    def past(self, stamps: Stamps) -> Stamps:
        return stamps - self.stamps_of(self.positions(stamps))

    def window(self, since: int, count: int) -> Iterable[int]:
        first = self.position(since)
        return map(self.opens, range(first, first + count))

    def stamps(self, since: int, until: int) -> Stamps:
        return self.stamps_of(np.arange(self.position(since), self.position(until), dtype=np.int64))

    def stamps_of(self, positions: Stamps) -> Stamps:
        return positions.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)

    def closes(self, stamp: int, count: int = 1) -> int:
        return self.after(stamp, count)

    def closed_until(self, moment: int) -> int:
        return self.align(moment) - 1

    def is_on(self, stamp: int) -> bool:
        return self.align(stamp) == stamp


def _grids() -> dict[str, Grid]:
    minutes: dict[PlainInterval, int] = {
        "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480, "12h": 720, "1d": 1440,
    }  # fmt: skip
    grids: dict[str, Grid] = {name: Grid(name, count * _MINUTE_MS) for name, count in minutes.items()}
    # As on Binance, whose candles of three days open on 2017-08-17, 2024-01-01 and 2025-01-01. Those of Bitget open a day earlier.
    grids["3d"] = Grid("3d", 3 * _DAY_MS, _DAY_MS, "00:00 UTC of 1970-01-02 or a multiple of 3 days later")
    grids["1w"] = Grid("1w", 7 * _DAY_MS, 4 * _DAY_MS, "a Monday, 00:00 UTC")
    grids["1M"] = _Months("1M")
    return grids


GRIDS: Final[Mapping[str, Grid]] = MappingProxyType(_grids())
"""The grid of each candle interval, from the shortest to the longest."""

INTERVAL_MS: Final[Mapping[str, int]] = MappingProxyType({name: grid.longest for name, grid in GRIDS.items() if grid.is_plain})
"""Length in ms of the intervals that open at the multiples of their length since 1970: all up to 1d."""

OffGrid = Literal["refuse", "skip", "snap"]
OFF_GRID: Final = ("refuse", "skip", "snap")
"""What to do with candles that do not open on the grid: refuse them all, leave those out, or move them back to the grid."""


def check_off_grid(off_grid: Any) -> None:
    """Check an answer to what happens to candles off the grid.

    Args:
        off_grid: "refuse" (all of them), "skip" (leave those out) or "snap" (move them back to the grid)

    Raises:
        InvalidValueError: it is something else

    Examples:
        >>> from backtest_kit_mongo.candles import check_off_grid
        >>> check_off_grid("skip")
    """
    if off_grid not in OFF_GRID:
        raise InvalidValueError(f"off_grid is {off_grid!r}", hint=f"use one of {', '.join(OFF_GRID)}")


def grid_of(interval: Any) -> Grid:
    """Return the grid of an interval.

    Args:
        interval: its name: "1m" to "1d", "3d", "1w" or "1M"

    Raises:
        InvalidTypeError: it is not a str
        InvalidValueError: there is no such interval

    Examples:
        >>> from backtest_kit_mongo.candles import grid_of
        >>> grid_of("1h").step
        3600000
    """
    if not isinstance(interval, str):
        raise InvalidTypeError(f"interval must be a str, got {type(interval).__name__}")
    try:
        return GRIDS[interval]
    except KeyError:
        raise InvalidValueError(f"unknown interval {interval!r}", hint=f"use one of {', '.join(GRIDS)}") from None


def interval_ms(interval: Any) -> int:
    """Return the length in ms of an interval that opens at the multiples of it since 1970.

    Args:
        interval: its name: "1m" to "1d"; 3d, 1w and 1M have a grid of their own, see ``grid_of``

    Raises:
        InvalidTypeError: it is not a str
        InvalidValueError: there is no such interval, or it has a grid of its own

    Examples:
        >>> from backtest_kit_mongo.candles import interval_ms
        >>> interval_ms("4h")
        14400000
    """
    grid = grid_of(interval)
    if not grid.is_plain:
        raise InvalidValueError(
            f"interval {interval!r} cannot be used here: its candles do not open at multiples of one length since 1970",
            hint=f"use one of {', '.join(INTERVAL_MS)}",
        )
    return grid.longest


def align(timestamp: int, step: int) -> int:
    """Return the open time (ms) of the candle of ``step`` ms that contains ``timestamp`` (ms), counted from the epoch in UTC.

    Examples:
        >>> from backtest_kit_mongo.candles import align
        >>> align(1704067261500, 60_000)
        1704067260000
    """
    return timestamp // step * step
