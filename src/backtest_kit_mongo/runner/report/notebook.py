"""Results as a notebook shows them: tables in HTML, and plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from ...observability.charts import load_matplotlib
from ...observability.html_tables import html_tables
from ...observability.text_tables import Table
from ..engine.result import BacktestResult, Totals
from .charts import profit_sums
from .text import ignored_text, incomplete_text, length_text, percent_text, price_digits, reason_text, time_text

if TYPE_CHECKING:
    from ...observability.figure import NotebookFigure
    from ..backtest.sweep_result import SweepResult, SweepRun

__all__ = ["draw_result", "draw_sweep", "result_html", "sweep_html"]

_SHOWN: Final = 20
"""Trades or runs in a table; a DataFrame has all."""
_BARS: Final = 40
_SUM, _FALL = "#0072b2", "#d55e00"


def result_html(result: BacktestResult) -> str:
    """Return the totals, the last trades and the open position of a run as HTML."""
    totals, trades = result.totals, result.trades[-_SHOWN:]
    rows = [
        (
            trade.position,
            time_text(trade.open_timestamp),
            time_text(trade.close_timestamp),
            _price(trade.price_open),
            _price(trade.price_close),
            reason_text(trade.close_reason),
            percent_text(trade.stake_percentage),
        )
        for trade in trades
    ]
    notes = [incomplete_text(result)]
    if result.signals_ignored or result.errors_skipped:
        notes.append(f"signals ignored: {ignored_text([result])}")
    if len(result.trades) > len(trades):
        notes.append(f"the last {len(trades)} of {len(result.trades):,} trades; to_dataframe() has all")
    if (held := result.open_trade) is not None:
        notes.append(
            f"still open: {held.position} since {time_text(held.open_timestamp)} at {_price(held.price_open)}, "
            f"now at {_price(held.current_price)}: {percent_text(held.stake_percentage)}"
        )
    return html_tables(
        _title(result),
        [
            _totals([((), totals)], ()),
            Table(("position", "opened (UTC)", "closed (UTC)", "open", "close", "by", "profit"), rows, left=("position", "by")),
        ],
        *notes,
    )


def draw_result(result: BacktestResult) -> NotebookFigure:
    """Draw the running sum of the profits of a run, and the drawdown, in percent of one stake."""
    times, sums = profit_sums(result.trades, result.start_ms, result.end_ms)
    falls = sums - np.maximum.accumulate(sums)
    figure = load_matplotlib()(figsize=(11, 6), dpi=110, layout="constrained")
    figure.suptitle(_title(result), parse_math=False)
    profit, drawdown = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    profit.step(times, sums, where="post", color=_SUM)
    profit.axhline(0, color="#bbbbbb", linewidth=1, zorder=0)
    profit.set_ylabel("profit, % of one stake")
    drawdown.fill_between(times, falls, step="post", color=_FALL, alpha=0.3)
    drawdown.step(times, falls, where="post", color=_FALL, linewidth=1)
    drawdown.set_ylabel("drawdown, %")
    drawdown.set_xlabel("time (UTC)")
    return figure


def sweep_html(sweep: SweepResult) -> str:
    """Return the best runs of a sweep as HTML, the best first."""
    runs = sweep.sorted_by()
    shown, failed = runs[:_SHOWN], [run for run in runs if run.totals is None]
    names = list(dict.fromkeys(name for run in runs for name in run.parameters))
    rows = [((run.symbol, *(str(run.parameters.get(name, "")) for name in names)), run.totals) for run in shown]
    notes = [f"the best {len(shown)} of {len(runs):,} runs; to_dataframe() has all" if len(runs) > len(shown) else ""]
    if failed:
        notes.append(f"{len(failed):,} failed, the first with: {failed[0].error}")
    return html_tables(_sweep_title(sweep), [_totals(rows, ("symbol", *names))], *notes)


def draw_sweep(sweep: SweepResult, metric: str) -> NotebookFigure:
    """Draw one of ``METRICS`` of the best runs as bars, the best on top."""
    runs = [(run, run.totals) for run in sweep.sorted_by(metric) if run.totals is not None]
    shown = [(run, getattr(totals, _FIELDS[metric])) for run, totals in runs[:_BARS]]
    figure = load_matplotlib()(figsize=(10, max(2.5, 1.2 + 0.28 * len(shown))), dpi=110, layout="constrained")
    cut = f", the best {len(shown)} of {len(runs):,} runs" if len(runs) > len(shown) else ""
    figure.suptitle(f"{_sweep_title(sweep)}{cut}", parse_math=False)
    axes = figure.subplots()
    axes.barh(range(len(shown)), [value for _, value in shown], color=_SUM)
    axes.set_yticks(range(len(shown)), [_label(run) for run, _ in shown], parse_math=False)
    axes.set_xlabel(metric)
    axes.axvline(0, color="#bbbbbb", linewidth=1)
    axes.invert_yaxis()
    return figure


_FIELDS: Final = {field: name for name, field in zip(Totals.__struct_fields__, Totals.__struct_encode_fields__, strict=True)}


def _totals(rows: Sequence[tuple[tuple[str, ...], Totals | None]], names: tuple[str, ...]) -> Table:
    """Return a table with a row for each ``Totals``, after cells under ``names``."""
    columns = (*names, "trades", "won", "profit", "average", "best", "worst", "drawdown")
    cells = []
    for before, totals in rows:
        if totals is None:
            cells.append((*before, "failed", *[""] * 6))
            continue
        percents = (
            totals.pnl_percentage, totals.average_pnl_percentage, totals.best_pnl_percentage, totals.worst_pnl_percentage,
            -totals.max_drawdown_percentage + 0.0,
        )  # fmt: skip
        cells.append((*before, f"{totals.trades:,}", f"{totals.win_rate:.1f} %", *map(percent_text, percents)))
    return Table(columns, cells, left=names)


def _title(result: BacktestResult) -> str:
    window = f"{time_text(result.start_ms)} to {time_text(result.end_ms)} UTC ({length_text(result.end_ms - result.start_ms)})"
    return f"{result.strategy_name} on {result.symbol}, {result.exchange_name}: {window}"


def _sweep_title(sweep: SweepResult) -> str:
    return f"{sweep.strategy_name} on {sweep.exchange_name}: {len(sweep.runs):,} run{'' if len(sweep.runs) == 1 else 's'}"


def _label(run: SweepRun) -> str:
    return " ".join([run.symbol, *(f"{name}={value}" for name, value in run.parameters.items())])


def _price(price: float) -> str:
    return f"{price:,.{price_digits(price)}f}"
