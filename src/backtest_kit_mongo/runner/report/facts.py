"""The figures of a report as name, value and explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..clock import MINUTE_MS
from ..engine.result import BacktestResult, OpenTrade, add_up
from .analysis import Analysis
from .statistics import statistics_of, trades_of
from .text import (
    costs_text,
    fall_text,
    holes_text,
    ignored_text,
    length_text,
    parameters_text,
    percent_text,
    ratio_text,
    reason_text,
    time_text,
)

__all__ = ["Fact", "figures", "held_text", "setting_facts", "year_facts", "year_text"]


class Fact(NamedTuple):
    """A figure: its name, its value as text (``-``: there is none), and what it means, or why there is none."""

    name: str
    value: str
    about: str


def figures(runs: Sequence[BacktestResult], analysis: Analysis) -> list[Fact]:
    """Return the totals of ``runs``; without trades most of them would be empty and are left out."""
    trades = trades_of(runs)
    totals, statistics = add_up(trades), statistics_of(runs)
    reasons = Counter(trade.close_reason for trade in trades)
    facts = [
        Fact("Profit", percent_text(totals.pnl_percentage), "sum over the closed trades, percent of one stake, after all costs"),
        _held(runs, analysis),
        Fact("Trades", f"{totals.trades:,}", f"{totals.wins:,} won, {totals.losses:,} lost"),
    ]
    if trades:
        best, worst = percent_text(totals.best_pnl_percentage), percent_text(totals.worst_pnl_percentage)
        facts += [
            Fact("Win rate", f"{totals.win_rate:.1f} %", "of the closed trades, those with a profit above 0"),
            Fact(
                "Max drawdown",
                fall_text(totals.max_drawdown_percentage),
                "deepest fall of the running sum below its peak, percent of one stake",
            ),
            Fact("Profit factor", ratio_text(statistics.profit_factor), "profits of winning trades divided by losses of losing ones"),
            Fact("Sharpe per trade", ratio_text(statistics.sharpe_ratio), "mean profit of a trade / standard deviation, not annualised"),
            Fact("Average trade", percent_text(totals.average_pnl_percentage), "percent of the stake"),
            Fact("Best and worst", f"{best}, {worst}", "percent of the stake"),
            Fact("Longest losing streak", f"{statistics.longest_losing_streak:,}", "trades in a row"),
            Fact("Average time held", length_text(statistics.average_minutes_held * MINUTE_MS), "from open to close"),
            Fact("Closed by", "; ".join(f"{reason_text(reason)} {count:,}" for reason, count in sorted(reasons.items())), ""),
        ]
    facts.append(Fact("Exposure", f"{statistics.exposure_percentage:.1f} %", "share of the time with an open position"))
    if (ignored := ignored_text(runs)) != "none":
        facts.append(Fact("Signals ignored", ignored, "their stop or target did not fit the price"))
    if holes := holes_text(runs):
        facts.append(Fact("Holes", holes, "at the last close, with volume 0; they are not stored"))
    open_trades = [run.open_trade for run in runs if run.open_trade is not None]
    return [*facts, Fact("Still open", _still_open(open_trades), "valued at the last price; not part of the profit")]


def year_facts(analysis: Analysis) -> list[Fact]:
    """Return the figures for a year: of the trades, and of buy and hold."""
    year, held = analysis.annualised, analysis.buy_and_hold
    values = [
        ("cagrPercentage", "CAGR", percent_text, year.cagr_percentage, "growth of the equity a year; nothing is reinvested"),
        ("sharpeRatio", "Sharpe ratio, annual", ratio_text, year.sharpe_ratio, "mean of the daily returns / their standard deviation"),
        ("sortinoRatio", "Sortino ratio, annual", ratio_text, year.sortino_ratio, "mean of the daily returns / their downside deviation"),
    ]
    facts = [
        Fact(name, "-", f"none: {year.missing[key]}") if value is None else Fact(name, text(value), about)
        for key, name, text, value, about in values
    ]
    if held is not None and held.cagr_percentage is not None:
        facts.append(Fact("CAGR of buy and hold", percent_text(held.cagr_percentage), "of the same stake over the same time"))
    return facts


def year_text(analysis: Analysis) -> str:
    """Return the figures for a year as one line, or why there are none."""
    year = analysis.annualised
    if len(year.missing) == 3 and len(set(year.missing.values())) == 1:
        return f"none: {next(iter(year.missing.values()))}"
    figures = [(fact.name.removesuffix(", annual"), fact.value, fact.about) for fact in year_facts(analysis)[:3]]
    return ", ".join(f"{name} {value}" + (f" ({about})" if value == "-" else "") for name, value, about in figures)


def held_text(analysis: Analysis) -> str:
    """Return the profit of buy and hold with its drawdown and its growth a year; ``-`` if it is not known."""
    held = analysis.buy_and_hold
    if held is None:
        return "-"
    fall = "" if held.max_drawdown_percentage is None else f", max drawdown {fall_text(held.max_drawdown_percentage)}"
    growth = "" if held.cagr_percentage is None else f", CAGR {percent_text(held.cagr_percentage)}"
    return f"{percent_text(held.pnl_percentage)} of the stake, after the same costs{fall}{growth}"


def setting_facts(runs: Sequence[BacktestResult]) -> list[Fact]:
    """Return fee, slippage, stake and parameters, if all runs have the same."""
    costs = {costs_text(run.costs) for run in runs}
    parameters = {parameters_text(run.parameters) for run in runs}
    return [
        Fact(
            "Fee and slippage", costs.pop() if len(costs) == 1 else "differ from run to run", "percent per side; they are in every profit"
        ),
        Fact("Parameters", parameters.pop() if len(parameters) == 1 else "differ from run to run", "values of parameter(...)"),
    ]


def _held(runs: Sequence[BacktestResult], analysis: Analysis) -> Fact:
    held = analysis.buy_and_hold
    if held is None:
        return Fact("Buy and hold", "-", "none: known only for backtests that replayed at least one candle")
    fall = "" if held.max_drawdown_percentage is None else f", max drawdown {fall_text(held.max_drawdown_percentage)}"
    about = f"from the first to the last candle, after the same costs{fall}"
    return Fact("Buy and hold", percent_text(held.pnl_percentage), about + (", one stake for each run" if len(runs) > 1 else ""))


def _still_open(trades: Sequence[OpenTrade]) -> str:
    if len(trades) > 1:
        return f"{len(trades):,} positions, {percent_text(sum(trade.stake_percentage for trade in trades))}"
    return next(
        (f"{trade.position} since {time_text(trade.open_timestamp)}, {percent_text(trade.stake_percentage)}" for trade in trades), "nothing"
    )
