"""Closed trades by month, by side, and by size of their profit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ..clock import MINUTE_MS, as_datetime
from ..engine.cost_basis import Side
from ..engine.result import Trade, add_up

__all__ = ["Month", "SideTotals", "SizeClass", "average_minutes_held", "by_month", "by_side", "by_size", "profit_factor"]

_MOST_CLASSES: Final = 20
_LEAST_WIDTH: Final = 0.001  # percent, which is what a report shows of a profit


class Month(msgspec.Struct, frozen=True, rename="camel"):
    """The trades that closed in a UTC month (``2023-03``): how many, and the sum of their profits in percent of one stake."""

    month: str
    trades: int
    pnl_percentage: float


class SideTotals(msgspec.Struct, frozen=True, rename="camel"):
    """The long or the short trades. Profits in percent of the stake; a figure that needs a trade is None without one.

    ``profit_factor`` is None without a loss.
    """

    side: Side
    trades: int
    wins: int
    win_rate: float | None
    pnl_percentage: float
    average_pnl_percentage: float | None
    profit_factor: float | None
    best_pnl_percentage: float | None
    worst_pnl_percentage: float | None
    average_minutes_held: float | None


class SizeClass(msgspec.Struct, frozen=True, rename="camel"):
    """How many trades had a profit (percent) above ``above_percentage`` and up to ``up_to_percentage``; None: without a limit."""

    above_percentage: float | None
    up_to_percentage: float | None
    trades: int


def profit_factor(profits: Sequence[float]) -> float | None:
    """Return the sum of the profits divided by the absolute sum of the losses; None without a loss."""
    won, lost = sum(profit for profit in profits if profit > 0), -sum(profit for profit in profits if profit <= 0)
    return won / lost if lost else None


def average_minutes_held(trades: Sequence[Trade]) -> float | None:
    """Return the mean time from open to close in minutes; None without trades."""
    return fmean((trade.close_timestamp - trade.open_timestamp) / MINUTE_MS for trade in trades) if trades else None


def by_month(trades: Sequence[Trade], start_ms: int, end_ms: int) -> tuple[Month, ...]:
    """Return every month from the start to the end of the window. A trade belongs to the UTC month of its closing time."""
    grouped: dict[str, list[float]] = {}
    for trade in trades:
        grouped.setdefault(f"{as_datetime(trade.close_timestamp):%Y-%m}", []).append(trade.stake_percentage)
    first, last = (f"{as_datetime(ms):%Y-%m}" for ms in (start_ms, max(end_ms - 1, start_ms)))
    # An exit with the last candle of a month has the first moment of the next one, even at the end of the window.
    names = _months(min(first, *grouped), max(last, *grouped)) if grouped else _months(first, last)
    return tuple(Month(name, len(grouped.get(name, ())), sum(grouped.get(name, ()), 0.0)) for name in names)


def by_side(trades: Sequence[Trade]) -> tuple[SideTotals, SideTotals]:
    """Return the totals of the long and of the short trades."""
    return _side("long", trades), _side("short", trades)


def by_size(trades: Sequence[Trade]) -> tuple[SizeClass, ...]:
    """Return the distribution of the profits over at most about twenty classes of equal width (fewer for few trades), in order.

    The width is 1, 2 or 5 times a power of ten, and 0 is always a limit, so that no class holds both wins and losses. A few extreme
    trades (beyond the first and the 99th percentile) are counted in a first and a last class without a limit, rather than widen all.
    """
    if not trades:
        return ()
    profits = np.array([trade.stake_percentage for trade in trades])
    classes = min(_MOST_CLASSES, max(4, math.ceil(2 * math.sqrt(len(trades)))))
    low, high = (float(limit) for limit in np.percentile(profits, [1, 99]))
    width = _round_width(max((high - low) / classes or max(abs(low), 1.0) / classes, _LEAST_WIDTH))
    # Rounded, because 1.1 / 0.1 is 11.000000000000002.
    places = np.ceil(np.round(profits / width, 9))  # place n holds the profits in ((n - 1) * width, n * width]
    first, last = (math.ceil(round(limit / width, 9)) for limit in (low, high))
    # One more class on either side costs nothing and often holds all that is left.
    first, last = max(first - 1, int(places.min())), min(last + 1, int(places.max()))
    inside = np.clip(places, first - 1, last + 1).astype(np.int64)
    counts = np.bincount(inside - (first - 1), minlength=last - first + 3).tolist()

    def limit(place: int) -> float:
        return round(place * width, 12) + 0.0  # not -0.0

    rows = [SizeClass(limit(place - 1), limit(place), counts[place - first + 1]) for place in range(first, last + 1)]
    below, above = profits[inside < first], profits[inside > last]
    least, most = limit(first - 1), limit(last)
    rows = [*_tail(below, None, least, split=least > 0), *rows, *_tail(above, most, None, split=most < 0)]
    return tuple(rows)


def _tail(profits: npt.NDArray[np.float64], above: float | None, up_to: float | None, *, split: bool) -> list[SizeClass]:
    """Return the class of extreme trades, or two if 0 is inside (``split``); without those that have no trade."""
    won = int(np.count_nonzero(profits > 0))
    if not split:
        return [SizeClass(above, up_to, len(profits))] if len(profits) else []
    halves = (SizeClass(above, 0.0, len(profits) - won), SizeClass(0.0, up_to, won))
    return [half for half in halves if half.trades]


def _months(first: str, last: str) -> Iterator[str]:
    begin, end = (int(name[:-3]) * 12 + int(name[-2:]) - 1 for name in (first, last))
    for number in range(begin, end + 1):
        yield f"{number // 12:04}-{number % 12 + 1:02}"


def _side(side: Side, trades: Sequence[Trade]) -> SideTotals:
    chosen = [trade for trade in trades if trade.position == side]
    totals = add_up(chosen)
    return SideTotals(
        side=side,
        trades=totals.trades,
        wins=totals.wins,
        win_rate=totals.win_rate if chosen else None,
        pnl_percentage=totals.pnl_percentage,
        average_pnl_percentage=totals.average_pnl_percentage if chosen else None,
        profit_factor=profit_factor([trade.stake_percentage for trade in chosen]),
        best_pnl_percentage=totals.best_pnl_percentage if chosen else None,
        worst_pnl_percentage=totals.worst_pnl_percentage if chosen else None,
        average_minutes_held=average_minutes_held(chosen),
    )


def _round_width(width: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten that is at least ``width``."""
    power = 10.0 ** math.floor(math.log10(width))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9)))
