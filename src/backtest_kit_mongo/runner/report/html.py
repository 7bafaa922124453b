"""A report as one HTML page that needs no network: figures, charts, tables, trades, and the cost of reads and writes."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, library
from ...contracts.registry import Registry
from ...errors import BacktestKitError
from ...observability.profile import Report
from ...observability.text_tables import LEGEND, domain_tables, headline
from ...output_files import check_target
from ..engine.result import BacktestResult
from ..engine.user_code import PERSISTENCE_ERRORS
from .analysis import analysis_of
from .annualised import LEAST_DAYS
from .candles import chart_candles, chart_step
from .charts import compare_chart, run_chart
from .facts import figures, setting_facts, year_facts
from .statistics import Results, error_text, ordered, trades_of, write_file
from .tables import analysis_tables, plain_table, run_table, trade_table
from .text import incomplete_text, length_text, percent_text, time_text

__all__ = ["check_html", "html_report", "write_html"]

MOST_RUNS: Final = 50
"""How many runs get charts and a list of trades at most; each takes about 200 kB."""


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
    """Write a page about one result or several; an existing file is replaced. The page is one file of about 5 MB that needs no network.

    Args:
        path: the file
        results: one result, or several
        profile: a report of ``backtest_kit_mongo.profile``, which adds what the domains did
        registry: the registry to read the candles of the charts from; None is the default one
        failed: the errors of runs that ended early, or their texts; they are shown at the top

    Raises:
        InvalidTypeError: ``results`` has something else in it
        InvalidValueError: the path cannot be written to
        StorageError: the file cannot be written
        MissingDependencyError: the extra ``report`` is not installed

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> runner.write_html("report.html", runner.run_backtest("BTCUSDT"))
    """
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

    Each run (of very many, the most profitable ones) has its totals beside buy and hold, its costs and parameters, and the figures for
    a year; a chart of its trades on the candles of its window, of the running sum of its profits and of the drawdown; then tables of
    months, drawdowns, long and short trades, the distribution of the profits, and all trades, to sort and filter. Candles are read
    through the Candle contract of ``registry`` (default: the default registry). ``profile`` adds what the domains did; without it,
    equal runs produce equal pages. ``failed`` has the errors of runs that ended early or never began; they are shown at the top.
    Raises MissingDependencyError if the extra ``report`` is not installed.
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
        least_days=LEAST_DAYS,
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
    titles = [_title(run) for run in runs]
    return {
        **_figures(runs),
        "chart": compare_chart(runs, titles),
        "table": run_table(runs, titles, shown),
        "cut": f"The {len(shown):,} runs with the highest profit follow." if len(shown) < len(runs) else "",
    }


def _run(run: BacktestResult, candles: Any) -> Mapping[str, Any]:
    step = chart_step(run.start_ms, run.end_ms)
    drawn = candles(run.symbol, run.exchange_name, run.start_ms, run.end_ms, step)
    frame = f", frame {run.frame_name}" if run.frame_name else ""
    return {
        **_figures([run]),
        "title": _title(run),
        "incomplete": incomplete_text(run),
        "about": f"{run.exchange_name}{frame}, {time_text(run.start_ms)} to {time_text(run.end_ms)} UTC, {run.minutes:,} minutes",
        "summary": f"{run.totals.trades:,} trades, {percent_text(run.totals.pnl_percentage)}",
        "candles": f"{length_text(step)} candles" if len(drawn) else "No candles are stored for this window",
        "chart": run_chart(run, drawn, step),
        "trades": trade_table(run.trades) if run.trades else "",
    }


def _figures(runs: Sequence[BacktestResult]) -> Mapping[str, Any]:
    analysis = analysis_of(runs, trades_of(runs))
    return {
        "facts": figures(runs, analysis),
        "year": year_facts(analysis),
        "settings": setting_facts(runs),
        "tables": analysis_tables(analysis),
    }


def _profile(taken: Mapping[str, Any]) -> Mapping[str, Any]:
    ratios = [(name, row["hit_ratio"]) for name, row in taken["domains"].items() if row["hit_ratio"] is not None]
    return {
        "headline": headline(taken),
        "legend": LEGEND if taken["domains"] else "",
        "ratios": [(name, f"{ratio * 100:.1f}") for name, ratio in ratios],
        "tables": [plain_table(content) for content in domain_tables(taken["domains"])] if taken["domains"] else [],
    }
