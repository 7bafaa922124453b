"""What a run came to, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from ..profiling import Report
from ..runner import BacktestResult, OpenTrade, Totals, Trade
from ..runner.result import add_up
from .market import Costs
from .output import counted, facts, heading, output, say, table, time_text

__all__ = ["show_results"]

_MINUTES_PER_DAY = 1440


def show_results(results: Sequence[BacktestResult], report: Report, *, shown: int, costs: Costs, live: bool) -> None:
    """The last ``shown`` trades, the totals of each run and of all, and what was read and written of each domain."""
    trades = sorted(chain.from_iterable(result.trades for result in results), key=lambda trade: (trade.close_timestamp, trade.id))
    many = len(results) > 1
    if trades and shown:
        count = len(trades)
        heading("Trades" if shown >= count else f"Trades (the last {shown:,} of {count:,}; --trades {count} shows all)")
        _show_trades(trades[-shown:], named=many)
    if many:
        heading("Runs")
        _show_runs(results)
    heading("Totals")
    facts(_totals(results, add_up(trades), costs, live=live))
    heading("Domains")
    say(report.table(output.width))


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
            _percent(trade.pnl_percentage),
        )
        for trade in trades
    ]
    table((*names, *columns), rows, left=(*names, "opened (UTC)", "side", "by"))


def _show_runs(results: Sequence[BacktestResult]) -> None:
    rows = [
        (
            result.symbol,
            result.strategy_name,
            f"{result.totals.trades:,}",
            f"{result.totals.win_rate:.1f} %" if result.totals.trades else "",
            _percent(result.totals.pnl_percentage),
            f"{result.totals.max_drawdown_percentage:.3f} %",
            "yes" if result.open_trade is not None else "",
        )
        for result in results
    ]
    table(("symbol", "strategy", "trades", "won", "profit", "drawdown", "still open"), rows, left=("symbol", "strategy"))


def _totals(results: Sequence[BacktestResult], totals: Totals, costs: Costs, *, live: bool) -> dict[str, str]:
    closed = [("take profit", totals.take_profits), ("stop loss", totals.stop_losses), ("time", totals.time_exits)]
    if totals.user_closes:
        closed.append(("strategy or user", totals.user_closes))
    minutes, seconds = sum(result.minutes for result in results), sum(result.wall_seconds for result in results)
    start, end = min(result.start_ms for result in results), max(result.end_ms for result in results)
    rows: dict[str, Any] = {
        "trades": f"{totals.trades:,}: {totals.wins:,} won, {totals.losses:,} lost ({totals.win_rate:.1f} % won)",
        "closed by": ", ".join(f"{count:,} {name}" for name, count in closed),
        "profit": f"{_percent(totals.pnl_percentage)} of the stake, after {costs.fee:g} % fee and {costs.slippage:g} % slippage per side",
        "per trade": f"{_percent(totals.average_pnl_percentage)} on average, {_percent(totals.best_pnl_percentage)} at best, "
        f"{_percent(totals.worst_pnl_percentage)} at worst",
        "max drawdown": f"{totals.max_drawdown_percentage:.3f} % of the stake",
        "still open": "; ".join(_open_text(result.open_trade) for result in results if result.open_trade is not None) or "nothing",
        "window": f"{time_text(start)} to {time_text(end)} UTC, {counted(minutes, 'minute')}",
        "took": f"{seconds:.2f} s, {minutes / max(seconds, 1e-9):,.0f} minutes a second; "
        f"strategies were asked {sum(result.signals_asked for result in results):,} times",
    }
    if live:
        del rows["took"]  # the clock decides about that
    if not totals.trades:
        rows = {"trades": "none", **{name: rows[name] for name in ("still open", "window", "took") if name in rows}}
    return rows


def _open_text(trade: OpenTrade) -> str:
    return f"{trade.position} from {trade.price_open:.8g}, now {trade.current_price:.8g}: {_percent(trade.pnl_percentage)}"


def _percent(percent: float) -> str:
    return f"{percent:+.3f} %"


def _duration(minutes: int) -> str:
    days, rest = divmod(minutes, _MINUTES_PER_DAY)
    return (f"{days}d" if days else "") + f"{rest // 60}h{rest % 60:02d}"
