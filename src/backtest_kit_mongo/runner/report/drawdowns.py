"""The deepest drawdowns of the running sum of profits: when each began, its bottom, and when it was made good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..engine.result import Trade

__all__ = ["MOST_DRAWDOWNS", "Drawdown", "deepest_drawdowns"]

MOST_DRAWDOWNS: Final = 10
_ROUNDING: Final = 1e-9  # percent: a sum that returns to its peak may differ from it in the last bits


class Drawdown(msgspec.Struct, frozen=True, rename="camel"):
    """A fall of the running sum of profits, trade by trade, below its highest point so far.

    It starts at the last close at the peak (for the first one, at the start of the window), has its bottom at the close with the
    lowest sum, and ends at the first close at which the sum is back at the peak; None if that has not happened. Times are in ms.
    ``depth_percentage`` is in percent of one stake, as ``max_drawdown_percentage`` of ``Totals``; ``equity_percentage`` is the same
    fall in percent of the equity at the peak (the stakes and the profit so far). ``duration_ms`` lasts from the start to the
    recovery, or to the end of the window.
    """

    start_timestamp: int
    bottom_timestamp: int
    recovery_timestamp: int | None
    depth_percentage: float
    equity_percentage: float
    duration_ms: int


def deepest_drawdowns(
    trades: Sequence[Trade], start_ms: int, end_ms: int, stakes: float = 1, most: int = MOST_DRAWDOWNS
) -> tuple[Drawdown, ...]:
    """Return at most ``most`` drawdowns of ``trades`` (in order of closing), deepest first, then oldest first."""
    falls: list[Drawdown] = []
    running = peak = deepest = 0.0
    start, bottom = start_ms, start_ms

    def note(recovery: int | None) -> None:
        if deepest > _ROUNDING:
            duration = (max(end_ms, bottom) if recovery is None else recovery) - start
            falls.append(Drawdown(start, bottom, recovery, deepest, deepest / (100 * stakes + peak) * 100, duration))

    for trade in trades:
        running += trade.stake_percentage
        if running >= peak - _ROUNDING:
            note(trade.close_timestamp)
            start, deepest, peak = trade.close_timestamp, 0.0, max(peak, running)
        elif peak - running > deepest:
            deepest, bottom = peak - running, trade.close_timestamp
    note(None)
    falls.sort(key=lambda fall: -fall.depth_percentage)
    return tuple(falls[:most])
