"""A report as one HTML page that needs no network: charts, totals, trades, and the cost of reads and writes."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, library
from ...contracts.registry import Registry
from ...errors import BacktestKitError
from ...observability.profile import Report
from ...observability.text_tables import LEGEND, Table, domain_tables, headline
from ...output_files import check_target
from ..clock import MINUTE_MS
from ..engine.result import BacktestResult, OpenTrade, Trade, add_up
from ..engine.user_code import PERSISTENCE_ERRORS
from .candles import chart_candles, chart_step
from .charts import compare_chart, run_chart
from .statistics import Results, error_text, ordered, statistics_of, trades_of, write_file
from .text import holes_text, ignored_text, incomplete_text, length_text, percent_text, price_digits, ratio_text, reason_text, time_text

__all__ = ["check_html", "html_report", "write_html"]

MOST_ROWS: Final = 2_000
"""How many trades of one run are listed at most."""
MOST_RUNS: Final = 50
"""How many runs get charts and a list of trades at most; each takes about 200 kB."""


class Cell(NamedTuple):
    """A cell of a table: its text, the number it is sorted by (None: by the text), and a CSS class."""

    text: str
    key: float | None = None
    tone: str = ""


def check_html(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if ``write_html`` can write there.

    Raises InvalidValueError or StorageError if it cannot, and MissingDependencyError if the extra ``report`` is not installed.
    """
    _libraries()
    return check_target(path)


def write_html(
    path: str | os.PathLike[str],
    results: Results,
    *,
    profile: Report | None = None,
    registry: Registry | None = None,
    failed: Iterable[BacktestKitError | str] = (),
) -> None:
    """Write ``html_report`` to ``path``; an existing file is replaced. Raises what ``check_html`` raises, StorageError if writing fails."""
    check_html(path)
    write_file(path, html_report(results, profile=profile, registry=registry, failed=failed).encode())


def html_report(
    results: Results,
    *,
    profile: Report | None = None,
    registry: Registry | None = None,
    failed: Iterable[BacktestKitError | str] = (),
) -> str:
    """Return one page about one result or several, about 5 MB, as it includes plotly.js.

    Each run (of very many, the most profitable ones) has a chart of its trades on the candles of its window, of the running sum of its
    profits and of the drawdown, then its totals and last trades. Candles are read through the Candle contract of ``registry``
    (default: the default registry). ``profile`` adds what the domains did; without it, equal runs produce equal pages. ``failed`` has
    the errors of runs that ended early or never began; they are shown at the top. Raises MissingDependencyError if the extra
    ``report`` is not installed.
    """
    jinja, plotly_js = _libraries()
    runs = ordered(results)
    errors = list(dict.fromkeys(map(error_text, failed)))
    best = sorted(range(len(runs)), key=lambda number: -runs[number].totals.pnl_percentage)[:MOST_RUNS]
    shown = sorted(best)
    lost: list[str] = []

    @cache  # strategies often share a window
    def candles(*window: Any) -> CandleArray:
        if not lost:
            try:
                return chart_candles(*window, registry=registry)
            except PERSISTENCE_ERRORS as error:  # show what a run reached before its server went away all the same
                lost.append(f"The candles cannot be drawn: {error}")
        return np.empty(0, CANDLE_DTYPE)

    drawn = [(number, _run(runs[number], candles)) for number in shown]
    environment = jinja.Environment(
        loader=jinja.PackageLoader("backtest_kit_mongo", "runner/report"),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template("report.jinja").render(
        title=(_title(runs[0]) if len(runs) == 1 else f"{len(runs):,} runs") + (f", {len(errors):,} failed" if errors else ""),
        errors=[*errors, *lost],
        plotly_js=plotly_js(),
        together=_together(runs, shown) if len(runs) > 1 else None,
        runs=drawn,
        profile=None if profile is None else _profile(profile.to_dict()),
    )
    return page


def _libraries() -> tuple[Any, Any]:
    """Return Jinja, and the function that returns the source of plotly.js."""
    library("plotly", "report")
    return library("jinja2", "report"), importlib.import_module("plotly.offline").get_plotlyjs


def _title(run: BacktestResult) -> str:
    return f"{run.strategy_name} on {run.symbol}"


def _together(runs: Sequence[BacktestResult], shown: Sequence[int]) -> Mapping[str, Any]:
    columns = ("run", "exchange", "frame", "from (UTC)", "to (UTC)", "trades", "won", "profit", "max drawdown", "profit factor")
    rows = []
    for run in runs:
        totals, factor = run.totals, statistics_of(run).profit_factor
        rows.append(
            [
                Cell(_title(run)),
                Cell(run.exchange_name),
                Cell(run.frame_name),
                Cell(time_text(run.start_ms), run.start_ms),
                Cell(time_text(run.end_ms), run.end_ms),
                Cell(f"{totals.trades:,}", totals.trades),
                Cell(f"{totals.win_rate:.1f} %", totals.win_rate),
                _profit(totals.pnl_percentage),
                Cell(f"{totals.max_drawdown_percentage:.3f} %", totals.max_drawdown_percentage),
                Cell(ratio_text(factor), -1 if factor is None else factor),
            ]
        )
    return {
        "facts": _facts(runs),
        "chart": compare_chart(runs, [_title(run) for run in runs]),
        "table": _table(columns, rows, left=columns[:5], links=[f"run-{number}" if number in shown else "" for number in range(len(runs))]),
        "cut": f"The {len(shown):,} runs with the highest profit follow." if len(shown) < len(runs) else "",
    }


def _run(run: BacktestResult, candles: Any) -> Mapping[str, Any]:
    step = chart_step(run.start_ms, run.end_ms)
    drawn = candles(run.symbol, run.exchange_name, run.start_ms, run.end_ms, step)
    frame = f", frame {run.frame_name}" if run.frame_name else ""
    return {
        "title": _title(run),
        "incomplete": incomplete_text(run),
        "about": f"{run.exchange_name}{frame}, {time_text(run.start_ms)} to {time_text(run.end_ms)} UTC, {run.minutes:,} minutes",
        "summary": f"{run.totals.trades:,} trades, {percent_text(run.totals.pnl_percentage)}",
        "facts": _facts([run]),
        "candles": f"{length_text(step)} candles" if len(drawn) else "No candles are stored for this window",
        "chart": run_chart(run, drawn, step),
        "trades": _trade_table(run.trades),
        "cut": f"The last {MOST_ROWS:,} of {len(run.trades):,} trades." if len(run.trades) > MOST_ROWS else "",
    }


def _facts(runs: Sequence[BacktestResult]) -> list[tuple[str, str, str]]:
    """Return name, value and explanation of each total; without trades most of them would be empty and are left out."""
    trades = trades_of(runs)
    totals, statistics = add_up(trades), statistics_of(runs)
    open_trades = [run.open_trade for run in runs if run.open_trade is not None]
    reasons = Counter(trade.close_reason for trade in trades)
    facts = [
        ("Profit", percent_text(totals.pnl_percentage), "sum over the closed trades, percent of one stake, after all costs"),
        ("Trades", f"{totals.trades:,}", f"{totals.wins:,} won, {totals.losses:,} lost"),
    ]
    if trades:
        facts += [
            ("Win rate", f"{totals.win_rate:.1f} %", "of the closed trades, those with a profit above 0"),
            (
                "Max drawdown",
                f"{totals.max_drawdown_percentage:.3f} %",
                "deepest fall of the running sum below its peak, percent of one stake",
            ),
            ("Profit factor", ratio_text(statistics.profit_factor), "profits of winning trades divided by losses of losing ones"),
            ("Sharpe ratio", ratio_text(statistics.sharpe_ratio), "mean profit per trade divided by standard deviation, not annualised"),
            ("Average trade", percent_text(totals.average_pnl_percentage), "percent of the stake"),
            (
                "Best and worst",
                f"{percent_text(totals.best_pnl_percentage)}, {percent_text(totals.worst_pnl_percentage)}",
                "percent of the stake",
            ),
            ("Longest losing streak", f"{statistics.longest_losing_streak:,}", "trades in a row"),
            ("Average time held", length_text(statistics.average_minutes_held * MINUTE_MS), "from open to close"),
            ("Closed by", "; ".join(f"{reason_text(reason)} {count:,}" for reason, count in sorted(reasons.items())), ""),
        ]
    exposure = ("Exposure", f"{statistics.exposure_percentage:.1f} %", "share of the time with an open position")
    ignored = ("Signals ignored", ignored_text(runs), "their stop or target did not fit the price")
    return [
        *facts,
        exposure,
        *([ignored] if ignored[1] != "none" else []),
        *([("Holes", holes_text(runs), "at the last close, with volume 0; they are not stored")] if holes_text(runs) else []),
        ("Still open", _still_open(open_trades), "valued at the last price"),
    ]


def _still_open(trades: Sequence[OpenTrade]) -> str:
    if len(trades) > 1:
        return f"{len(trades):,} positions, {percent_text(sum(trade.pnl_percentage for trade in trades))}"
    return next(
        (f"{trade.position} since {time_text(trade.open_timestamp)}, {percent_text(trade.pnl_percentage)}" for trade in trades), "nothing"
    )


def _trade_table(trades: Sequence[Trade]) -> Mapping[str, Any]:
    columns = ("#", "opened (UTC)", "closed (UTC)", "held", "side", "opened at", "closed at", "closed by", "profit", "sum", "id")
    digits = price_digits(max((trade.price_open for trade in trades), default=1.0))
    rows, total = [], 0.0
    for number, trade in enumerate(trades, start=1):
        total += trade.pnl_percentage
        duration = trade.close_timestamp - trade.open_timestamp
        rows.append(
            [
                Cell(f"{number:,}", number),
                Cell(time_text(trade.open_timestamp), trade.open_timestamp),
                Cell(time_text(trade.close_timestamp), trade.close_timestamp),
                Cell(length_text(duration), duration),
                Cell(trade.position),
                Cell(f"{trade.price_open:,.{digits}f}", trade.price_open),
                Cell(f"{trade.price_close:,.{digits}f}", trade.price_close),
                Cell(reason_text(trade.close_reason)),
                _profit(trade.pnl_percentage),
                Cell(percent_text(total), total),
                Cell(trade.id, tone="id"),
            ]
        )
    return _table(columns, rows[-MOST_ROWS:], left=("opened (UTC)", "closed (UTC)", "side", "closed by", "id"))


def _profile(taken: Mapping[str, Any]) -> Mapping[str, Any]:
    ratios = [(name, row["hit_ratio"]) for name, row in taken["domains"].items() if row["hit_ratio"] is not None]
    return {
        "headline": headline(taken),
        "legend": LEGEND if taken["domains"] else "",
        "ratios": [(name, f"{ratio * 100:.1f}") for name, ratio in ratios],
        "tables": [_plain(table) for table in domain_tables(taken["domains"])] if taken["domains"] else [],
    }


def _plain(table: Table) -> Mapping[str, Any]:
    return _table(table.columns, [[Cell(text) for text in row] for row in table.rows], left=table.left)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, left: Sequence[str], links: Sequence[str] = ()) -> Mapping[str, Any]:
    return {
        "columns": [(name, "left" if name in left else "right") for name in columns],
        "rows": [list(zip(row, ("left" if name in left else "right" for name in columns), strict=True)) for row in rows],
        "links": links,
    }


def _profit(percent: float) -> Cell:
    return Cell(percent_text(percent), percent, "won" if percent > 0 else "lost" if percent < 0 else "")
