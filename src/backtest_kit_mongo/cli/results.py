"""The results of runs on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..observability.profile import Report
from ..runner import BacktestResult, OpenTrade, Totals, Trade
from ..runner.engine.result import add_up
from ..runner.report.analysis import analysis_of
from ..runner.report.facts import held_text, year_text
from ..runner.report.statistics import statistics_of, trades_of
from ..runner.report.text import holes_text, ignored_text, incomplete_text, ratio_text
from .market import Costs
from .output import counted, facts, heading, output, say, table, time_text

__all__ = ["percent", "show_results", "traffic_text"]

_MINUTES_PER_DAY = 1440


def show_results(
    results: Sequence[BacktestResult], report: Report | None, *, shown: int, costs: Costs, live: bool, tables: bool = False
) -> None:
    """Print the last ``shown`` trades, the totals of each run and of all, and reads and writes; with ``tables`` also of each domain."""
    trades = sorted(chain.from_iterable(result.trades for result in results), key=lambda trade: (trade.close_timestamp, trade.id))
    many = len(results) > 1
    if trades and shown:
        count = len(trades)
        heading("Trades" if shown >= count else f"Trades (the last {shown:,} of {count:,}; --trades {count} shows all)")
        _show_trades(trades[-shown:], named=many)
    if many:
        heading("Runs")
        _show_runs(results, live=live)
    heading("Totals")
    facts(_totals(results, add_up(trades), costs, live=live) | ({} if report is None else {"reads, writes": traffic_text(report)}))
    if report is not None and tables:
        heading("Domains")
        say(report.table(output.width))


def traffic_text(report: Report) -> str:
    """Return one line about reads and writes."""
    rows = report.domains.values()
    reads, writes = (sum(row[name] for row in rows) for name in ("reads", "writes"))
    hits = {name: sum(row[f"hits_{name}"] for row in rows) for name in ("process", "redis", "block")}
    sources = f"{hits['process']:,} by ids in this process, {hits['redis']:,} by ids in Redis, {hits['block']:,} from candles in memory"
    return f"{reads:,} reads ({sources}), {writes:,} writes"


def _show_trades(trades: Sequence[Trade], *, named: bool) -> None:
    columns = ("opened (UTC)", "held", "side", "opened at", "closed at", "by", "profit")
    names = ("symbol", "strategy") if named else ()
    rows = [
        (
            *((trade.symbol, trade.strategy_name) if named else ()),
            time_text(trade.open_timestamp),
            _duration((trade.close_timestamp - trade.open_timestamp) // 60_000),
            trade.position,
            f"{trade.price_open:.8g}",
            f"{trade.price_close:.8g}",
            trade.close_reason.replace("_", " "),
            percent(trade.stake_percentage),
        )
        for trade in trades
    ]
    table((*names, *columns), rows, left=(*names, "opened (UTC)", "side", "by"))


def _show_runs(results: Sequence[BacktestResult], *, live: bool) -> None:
    rows = [
        (
            result.symbol,
            result.strategy_name,
            f"{result.totals.trades:,}",
            f"{result.totals.win_rate:.1f} %" if result.totals.trades else "",
            percent(result.totals.pnl_percentage),
            f"{result.totals.max_drawdown_percentage:.3f} %",
            "yes" if result.open_trade is not None else "",
            "" if result.complete or live else "no",
        )
        for result in results
    ]
    columns = ("symbol", "strategy", "trades", "won", "profit", "drawdown", "still open", "complete")
    incomplete = not live and any(not result.complete for result in results)
    keep = len(columns) if incomplete else len(columns) - 1
    table(columns[:keep], [row[:keep] for row in rows], left=("symbol", "strategy"))


def _totals(results: Sequence[BacktestResult], totals: Totals, costs: Costs, *, live: bool) -> dict[str, str]:
    closed = [("take profit", totals.take_profits), ("stop loss", totals.stop_losses), ("time", totals.time_exits)]
    if totals.user_closes:
        closed.append(("strategy or user", totals.user_closes))
    minutes, seconds = sum(result.minutes for result in results), sum(result.wall_seconds for result in results)
    statistics, analysis = statistics_of(results), analysis_of(results, trades_of(results))
    start, end = min(result.start_ms for result in results), max(result.end_ms for result in results)
    rows: dict[str, Any] = {
        "trades": f"{totals.trades:,}: {totals.wins:,} won, {totals.losses:,} lost ({totals.win_rate:.1f} % won)",
        "closed by": ", ".join(f"{count:,} {name}" for name, count in closed),
        "profit": f"{percent(totals.pnl_percentage)} of the stake, after {costs.fee:g} % fee and {costs.slippage:g} % slippage per side",
        "per trade": f"{percent(totals.average_pnl_percentage)} on average, {percent(totals.best_pnl_percentage)} at best, "
        f"{percent(totals.worst_pnl_percentage)} at worst",
        "profit factor": f"{ratio_text(statistics.profit_factor)}, Sharpe ratio {ratio_text(statistics.sharpe_ratio)} (per trade)",
        "max drawdown": f"{totals.max_drawdown_percentage:.3f} % of the stake",
        "buy and hold": held_text(analysis),
        "for a year": year_text(analysis),
        "still open": "; ".join(_open_text(result.open_trade) for result in results if result.open_trade is not None) or "nothing",
        "signals ignored": ignored_text(results),
        "holes": holes_text(results),
        "incomplete": "\n".join(f"{run.strategy_name} on {run.symbol} {incomplete_text(run)}" for run in results if not run.complete),
        "window": f"{time_text(start)} to {time_text(end)} UTC, {counted(minutes, 'minute')}",
        "took": f"{seconds:.2f} s, {minutes / max(seconds, 1e-9):,.0f} minutes per second; "
        f"strategies were asked for a signal {sum(result.signals_asked for result in results):,} times",
    }
    first = [result.seconds_to_first_trade for result in results if result.seconds_to_first_trade is not None]
    if first:
        rows["took"] += f"; the first trade was closed after {min(first):.2f} s"
    if live:
        del rows["took"], rows["buy and hold"]  # in a live run only the clock decides how long it took
    if not any(not result.complete for result in results) or live:
        del rows["incomplete"]
    if not totals.trades:
        kept = ("buy and hold", "still open", "signals ignored", "incomplete", "window", "took")
        rows = {"trades": "none", **{name: rows[name] for name in kept if name in rows}}
    return rows


def _open_text(trade: OpenTrade) -> str:
    return f"{trade.position} from {trade.price_open:.8g}, now {trade.current_price:.8g}: {percent(trade.stake_percentage)}"


def percent(value: float) -> str:
    """Return a gain or loss in percent with its sign."""
    return f"{value:+.3f} %"


def _duration(minutes: int) -> str:
    days, rest = divmod(minutes, _MINUTES_PER_DAY)
    return (f"{days}d" if days else "") + f"{rest // 60}h{rest % 60:02d}"
