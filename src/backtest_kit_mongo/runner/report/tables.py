"""The tables of a page: plain ones, the heat map of months, and long ones that can be sorted and filtered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from ...observability.text_tables import Table
from ..clock import MINUTE_MS
from ..engine.result import BacktestResult, Trade
from .analysis import Analysis
from .breakdowns import Month, SideTotals, SizeClass
from .drawdowns import Drawdown
from .statistics import statistics_of
from .text import costs_text, fall_text, length_text, parameters_text, percent_text, price_digits, ratio_text, reason_text, time_text

__all__ = ["Cell", "analysis_tables", "plain_table", "run_table", "table", "trade_table"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Cell(NamedTuple):
    """A cell of a table: its text, a CSS class, and a CSS style."""

    text: str
    tone: str = ""
    style: str = ""


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, left: Sequence[str]) -> Mapping[str, Any]:
    """Return a table as the template takes it; ``left`` names the columns that are aligned to the left."""
    sides = ["left" if name in left else "right" for name in columns]
    return {"columns": list(zip(columns, sides, strict=True)), "rows": [list(zip(row, sides, strict=True)) for row in rows]}


def plain_table(content: Table) -> Mapping[str, Any]:
    """Return a table of ``text_tables`` as the template takes it."""
    return table(content.columns, [[Cell(text) for text in row] for row in content.rows], left=content.left)


def analysis_tables(analysis: Analysis) -> Mapping[str, Any]:
    """Return the tables of an analysis: months, drawdowns, long and short, sizes."""
    return {
        "months": _months(analysis.months),
        "drawdowns": _drawdowns(analysis.drawdowns),
        "sides": _sides(analysis.sides),
        "sizes": _sizes(analysis.distribution),
    }


def trade_table(trades: Sequence[Trade]) -> str:
    """Return the closed trades as JSON for the script of the page, which shows a page of them at a time."""
    digits = price_digits(max((trade.price_open for trade in trades), default=1.0))
    rows, total = [], 0.0
    for number, trade in enumerate(trades, start=1):
        total += trade.stake_percentage
        duration = trade.close_timestamp - trade.open_timestamp
        # A cell is its text, which it is sorted by, or its text and the number that it is sorted by (None: always last).
        rows.append(
            [
                (f"{number:,}", number),
                time_text(trade.open_timestamp),
                time_text(trade.close_timestamp),
                (length_text(duration), duration),
                trade.position,
                (f"{trade.price_open:,.{digits}f}", trade.price_open),
                (f"{trade.price_close:,.{digits}f}", trade.price_close),
                reason_text(trade.close_reason),
                (percent_text(trade.stake_percentage), trade.stake_percentage),
                (percent_text(total), total),
                trade.id,
            ]
        )
    columns = [
        _column("#"),
        _column("opened (UTC)", "left"),
        _column("closed (UTC)", "left"),
        _column("held"),
        _column("side", "left", "choice"),
        _column("opened at"),
        _column("closed at"),
        _column("closed by", "left", "choice"),
        _column("profit", "right", "signed", "summed"),
        _column("sum"),
        _column("id", "left", "id"),
    ]
    return _encoded({"noun": "trades", "columns": columns, "rows": rows})


def run_table(runs: Sequence[BacktestResult], titles: Sequence[str], shown: Sequence[int]) -> str:
    """Return a row for each run as JSON for the script of the page; those of ``shown`` link to their section."""
    rows = []
    for run, title in zip(runs, titles, strict=True):
        totals, factor, held = run.totals, statistics_of(run).profit_factor, run.buy_and_hold
        rows.append(
            [
                title,
                run.exchange_name,
                run.frame_name,
                time_text(run.start_ms),
                time_text(run.end_ms),
                parameters_text(run.parameters),
                costs_text(run.costs),
                (f"{totals.trades:,}", totals.trades),
                (f"{totals.win_rate:.1f} %", totals.win_rate) if totals.trades else ("-", None),
                (percent_text(totals.pnl_percentage), totals.pnl_percentage),
                ("-", None) if held is None else (percent_text(held.pnl_percentage), held.pnl_percentage),
                (fall_text(totals.max_drawdown_percentage), totals.max_drawdown_percentage),
                (ratio_text(factor), factor),
                "" if run.complete else "incomplete",
            ]
        )
    columns = [
        *(_column(name, "left") for name in ("run", "exchange", "frame", "from (UTC)", "to (UTC)", "parameters", "costs")),
        _column("trades"),
        _column("won"),
        _column("profit", "right", "signed", "summed"),
        _column("buy and hold"),
        _column("max drawdown"),
        _column("profit factor"),
        _column("state", "left", "choice"),
    ]
    return _encoded({"noun": "runs", "columns": columns, "rows": rows, "links": {number: f"run-{number}" for number in shown}})


def _months(months: Sequence[Month]) -> Mapping[str, Any]:
    columns = ("year", *_MONTHS, "total", "trades")
    strongest = max((abs(month.pnl_percentage) for month in months), default=0.0)
    rows = []
    for year, group in groupby(months, lambda month: month.month[:-3]):
        of_year = list(group)
        cells = {int(month.month[-2:]): _heat(month, strongest) for month in of_year}
        total = sum(month.pnl_percentage for month in of_year)
        rows.append(
            [
                Cell(year),
                *(cells.get(number, Cell("")) for number in range(1, 13)),
                Cell(_short(total), _tone(total)),
                Cell(f"{sum(month.trades for month in of_year):,}"),
            ]
        )
    return table(columns, rows, left=("year",))


def _heat(month: Month, strongest: float) -> Cell:
    if not month.trades:
        return Cell("-", "empty")
    percent = month.pnl_percentage
    if not percent:
        return Cell(_short(percent))
    # The colour is at most 45 % opaque, so that dark text on it has a contrast above 7 to 1.
    share = 0.08 + 0.37 * abs(percent) / strongest
    return Cell(_short(percent), style=f"background: rgba({'0, 158, 115' if percent > 0 else '213, 94, 0'}, {share:.2f})")


def _drawdowns(falls: Sequence[Drawdown]) -> Mapping[str, Any]:
    columns = ("depth", "of the equity", "began (UTC)", "bottom (UTC)", "recovered (UTC)", "lasted")
    rows = [
        [
            Cell(fall_text(fall.depth_percentage)),
            Cell(fall_text(fall.equity_percentage)),
            Cell(time_text(fall.start_timestamp)),
            Cell(time_text(fall.bottom_timestamp)),
            Cell("not recovered" if fall.recovery_timestamp is None else time_text(fall.recovery_timestamp)),
            Cell(length_text(fall.duration_ms)),
        ]
        for fall in falls
    ]
    return table(columns, rows, left=columns[2:5])


def _sides(sides: Sequence[SideTotals]) -> Mapping[str, Any]:
    columns = ("side", "trades", "won", "profit", "average", "profit factor", "best", "worst", "average time held")
    rows = [
        [
            Cell(side.side),
            Cell(f"{side.trades:,}"),
            Cell("-" if side.win_rate is None else f"{side.win_rate:.1f} %"),
            Cell(percent_text(side.pnl_percentage), _tone(side.pnl_percentage)),
            _optional(side.average_pnl_percentage),
            Cell(ratio_text(side.profit_factor)),
            _optional(side.best_pnl_percentage),
            _optional(side.worst_pnl_percentage),
            Cell("-" if side.average_minutes_held is None else length_text(side.average_minutes_held * MINUTE_MS)),
        ]
        for side in sides
    ]
    return table(columns, rows, left=("side",))


def _sizes(classes: Sequence[SizeClass]) -> list[tuple[str, str, str, str]]:
    """Return range, count, width of the bar and its colour for each class."""
    most = max((one.trades for one in classes), default=0)
    rows = []
    for one in classes:
        won = one.above_percentage >= 0 if one.above_percentage is not None else (one.up_to_percentage or 0.0) > 0
        width = max(one.trades / most * 100, 0.5) if one.trades else 0.0  # a single trade of thousands is visible too
        rows.append((_range(one), f"{one.trades:,}", f"{width:.1f}", "won" if won else "lost"))
    return rows


def _range(one: SizeClass) -> str:
    above, up_to = one.above_percentage, one.up_to_percentage
    low, high = ("" if limit is None else f"{limit:+,.10g}" if limit else "0" for limit in (above, up_to))
    return f"{low} to {high} %" if low and high else f"up to {high} %" if high else f"above {low} %"


def _optional(percent: float | None) -> Cell:
    return Cell("-" if percent is None else percent_text(percent))


def _short(percent: float) -> str:
    return f"{percent:+,.2f}"


def _tone(percent: float) -> str:
    return "won" if percent > 0 else "lost" if percent < 0 else ""


def _column(name: str, side: str = "right", *kinds: str) -> Mapping[str, Any]:
    return {"name": name, "side": side, **dict.fromkeys(kinds, True)}


def _encoded(content: Mapping[str, Any]) -> str:
    return msgspec.json.encode(content).decode().replace("<", "\\u003c")  # so that no text in it can close the script element around it
