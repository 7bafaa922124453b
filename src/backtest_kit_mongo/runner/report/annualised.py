"""Figures for a year: CAGR, Sharpe ratio and Sortino ratio of the equity of one run, or of several together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ...candles import INTERVAL_MS, align
from ..engine.result import BacktestResult, Trade

__all__ = [
    "LEAST_DAYS",
    "YEAR_DAYS",
    "Annualised",
    "annualised",
    "capital_of",
    "daily_equity",
    "runs_at_once",
    "windows_touch",
    "yearly_growth",
]

LEAST_DAYS: Final = 30
"""Nothing is annualised from fewer days: a figure for a year would be twelve times and more what was observed."""
YEAR_DAYS: Final = 365
"""Days of a year of a market that never closes."""

_DAY_MS: Final = INTERVAL_MS["1d"]


class Annualised(msgspec.Struct, frozen=True, rename="camel"):
    """Figures for a year, from the equity at the end of each UTC day.

    The equity starts at 100 (percent) for one stake; each closed trade adds its profit when it closes. Nothing is reinvested, and an
    open position counts only once it is closed. Several runs together have one stake for each run of those whose windows overlap the
    most: ``stakes``. ``days`` counts the UTC days of the window; a part of a day counts as a day.

    ``cagr_percentage`` is ((equity at the end / equity at the start) ** (365 days / length of the window) - 1) * 100, as in freqtrade
    (``calculate_cagr`` of freqtrade/data/metrics.py) and backtesting.py (``compute_stats`` of _stats.py, for markets open all week).
    With r the daily returns of the equity (equity of a day / equity of the day before - 1) and a risk-free rate of 0,
    ``sharpe_ratio`` is mean(r) / s * sqrt(365) with s the sample standard deviation (n - 1) of r, and ``sortino_ratio`` is
    mean(r) / d * sqrt(365) with d = sqrt(sum(min(r, 0) ** 2) / n) over all n days, as in quantstats (``sharpe`` and ``sortino`` of
    quantstats/stats.py) and empyrical (``sharpe_ratio`` and ``sortino_ratio`` of empyrical/stats.py) with 365 periods a year.

    A figure that does not exist is None, and ``missing`` says why, by the JSON name of the figure.
    """

    days: int
    stakes: float
    cagr_percentage: float | None
    sharpe_ratio: float | None
    sortino_ratio: float | None
    missing: dict[str, str]


def annualised(runs: Sequence[BacktestResult], trades: Sequence[Trade]) -> Annualised:
    """Return the figures for a year of ``runs``, with all their ``trades`` in order of closing."""
    if not runs:
        return _none(0, 0, "there are no runs")
    start, end = min(run.start_ms for run in runs), max(run.end_ms for run in runs)
    stakes = capital_of(runs)
    equity = daily_equity(trades, start, end, stakes)
    days = len(equity) - 1
    if not windows_touch(runs):
        return _none(days, stakes, "there is a gap between the windows of the runs, in which nothing could trade")
    if days < LEAST_DAYS:
        return _none(days, stakes, f"the window has {days} day{'' if days == 1 else 's'}; at least {LEAST_DAYS} are needed")
    if not trades:
        return _none(days, stakes, "no trade was closed")
    missing = {}
    cagr = yearly_growth(float(equity[-1] / equity[0]), end - start)
    if cagr is None:
        missing["cagrPercentage"] = "more than the stake was lost" if equity[-1] < 0 else "the figure is too large to mean anything"
    sharpe = sortino = None
    if min(equity) <= 0:
        missing |= dict.fromkeys(("sharpeRatio", "sortinoRatio"), "the stake was lost, so there are no returns after that")
    else:
        returns = equity[1:] / equity[:-1] - 1
        mean, year = float(np.mean(returns)), math.sqrt(YEAR_DAYS)
        if np.ptp(returns) > 0:
            sharpe = mean / float(np.std(returns, ddof=1)) * year
        else:
            missing["sharpeRatio"] = "all days have the same return"
        if min(returns) < 0:
            sortino = mean / math.sqrt(float(np.mean(np.minimum(returns, 0) ** 2))) * year
        else:
            missing["sortinoRatio"] = "no day ended with a loss"
    return Annualised(days, stakes, cagr, sharpe, sortino, missing)


def daily_equity(trades: Sequence[Trade], start_ms: int, end_ms: int, stakes: float = 1) -> npt.NDArray[np.float64]:
    """Return the equity (percent of one stake) at ``start_ms`` and then at the end of each UTC day of the window.

    A trade that closes at 00:00 closed with the last candle of the day that ends then. A window without a minute has no day.
    """
    ends = np.arange(align(start_ms, _DAY_MS), end_ms, _DAY_MS) + _DAY_MS
    sums = np.cumsum([0.0, *(trade.stake_percentage for trade in trades)])
    closed = np.searchsorted([trade.close_timestamp for trade in trades], ends, side="right")
    if len(closed):
        closed[-1] = len(trades)  # a part of a day at the end counts as a day
    return 100.0 * stakes + np.concatenate(([0.0], sums[closed]))


def capital_of(runs: Sequence[BacktestResult]) -> float:
    """Return the capital (stakes) that ``runs`` need: what their largest positions cost, for all runs whose windows overlap.

    A run has at most one position at a time. It costs one stake, and more with further entries.
    """
    return _most_at_once(runs, [max((trade.stakes for trade in run.trades), default=1.0) for run in runs])


def runs_at_once(runs: Sequence[BacktestResult]) -> int:
    """Return the largest number of runs whose windows overlap."""
    return int(_most_at_once(runs, [1.0] * len(runs)))


def windows_touch(runs: Sequence[BacktestResult]) -> bool:
    """Return whether the windows of ``runs`` cover one span of time without a gap."""
    windows = sorted((run.start_ms, run.end_ms) for run in runs)
    reached = windows[0][0] if windows else 0
    for start, end in windows:
        if start > reached:
            return False
        reached = max(reached, end)
    return True


def _most_at_once(runs: Sequence[BacktestResult], weights: Sequence[float]) -> float:
    edges = []
    for run, weight in zip(runs, weights, strict=True):
        edges += [(run.start_ms, max(weight, 1.0)), (max(run.end_ms, run.start_ms + 1), -max(weight, 1.0))]
    edges.sort()
    return float(round(max(np.cumsum([change for _, change in edges]), default=0.0), 9))


def yearly_growth(growth: float, window_ms: int) -> float | None:
    """Return the growth factor of a window as percent a year; None if more than everything was lost, or beyond the largest float."""
    try:
        return float((growth ** (YEAR_DAYS * _DAY_MS / window_ms) - 1) * 100) if growth >= 0 else None
    except OverflowError:
        return None


def _none(days: int, stakes: float, reason: str) -> Annualised:
    return Annualised(days, stakes, None, None, None, dict.fromkeys(("cagrPercentage", "sharpeRatio", "sortinoRatio"), reason))
