"""The analysis of finished runs that JSON, page and terminal share: buy and hold, a year, months, drawdowns, sides, sizes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..engine.result import BacktestResult, Trade
from .annualised import LEAST_DAYS, Annualised, annualised, runs_at_once, windows_touch, yearly_growth
from .breakdowns import Month, SideTotals, SizeClass, by_month, by_side, by_size
from .drawdowns import Drawdown, deepest_drawdowns

__all__ = ["Analysis", "HeldTotals", "analysis_of"]


class HeldTotals(msgspec.Struct, frozen=True, rename="camel"):
    """Buy and hold of the same symbols over the same windows, with one stake for each run (see ``BuyAndHold``).

    ``pnl_percentage`` is the sum over the runs, as the profit of the trades is. ``cagr_percentage`` is computed as that of
    ``Annualised``; None where the window is too short. ``max_drawdown_percentage`` is None for several runs.
    """

    pnl_percentage: float
    max_drawdown_percentage: float | None
    cagr_percentage: float | None


class Analysis(msgspec.Struct, frozen=True, rename="camel"):
    """What the trades of one run, or of several together, amount to. ``buy_and_hold`` is None if a run has none, as a live run."""

    buy_and_hold: HeldTotals | None
    annualised: Annualised
    months: tuple[Month, ...]
    drawdowns: tuple[Drawdown, ...]
    sides: tuple[SideTotals, ...]
    distribution: tuple[SizeClass, ...]


def analysis_of(runs: Sequence[BacktestResult], trades: Sequence[Trade]) -> Analysis:
    """Return the analysis of ``runs``, with all their ``trades`` in order of closing."""
    start, end = min((run.start_ms for run in runs), default=0), max((run.end_ms for run in runs), default=0)
    year = annualised(runs, trades)
    return Analysis(
        buy_and_hold=_held(runs, year, end - start),
        annualised=year,
        months=by_month(trades, start, end) if runs else (),
        drawdowns=deepest_drawdowns(trades, start, end, year.stakes),
        sides=by_side(trades),
        distribution=by_size(trades),
    )


def _held(runs: Sequence[BacktestResult], year: Annualised, window_ms: int) -> HeldTotals | None:
    held = [run.buy_and_hold for run in runs if run.buy_and_hold is not None]
    if not runs or len(held) < len(runs):
        return None
    total = sum(one.pnl_percentage for one in held)
    return HeldTotals(
        pnl_percentage=total,
        max_drawdown_percentage=held[0].max_drawdown_percentage if len(held) == 1 else None,
        # Buying and holding takes one stake for each run, whatever the positions of the strategy cost.
        cagr_percentage=yearly_growth(1 + total / (100 * runs_at_once(runs)), window_ms)
        if year.days >= LEAST_DAYS and windows_touch(runs)
        else None,
    )
