"""Results of finished runs as JSON (byte for byte the same for equal runs), their profile as JSON, and their trades as a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ...candles import library
from ...errors import BacktestKitError, InvalidTypeError, with_notes
from ...observability.profile import Report
from ...output_files import check_target, replacing
from ..engine.result import BacktestResult, Trade, add_up
from .analysis import analysis_of
from .breakdowns import average_minutes_held, profit_factor

if TYPE_CHECKING:
    from ...table_types import PandasFrame

__all__ = [
    "Results",
    "Statistics",
    "error_text",
    "ordered",
    "profile_json",
    "result_json",
    "statistics_of",
    "trades_frame",
    "trades_of",
    "write_file",
]

Results = BacktestResult | Iterable[BacktestResult]


class Statistics(msgspec.Struct, frozen=True, rename="camel"):
    """Statistics beyond ``Totals``, of one run or of several together. Profits are those of ``Trade``, in order of closing.

    ``profit_factor`` is the sum of the profits above 0 divided by the absolute sum of the losses; None without a loss.
    ``sharpe_ratio`` is the mean profit per trade divided by the sample standard deviation of the profits, not annualised; None with
    fewer than two trades, or if all profits are equal. ``longest_losing_streak`` counts trades in a row without a profit above 0.
    ``average_minutes_held`` is 0 without trades. ``exposure_percentage`` is the share of the window, in percent, with an open position
    (a position that is still open counts); for several runs, the time in positions divided by the length of all windows.
    """

    profit_factor: float | None
    sharpe_ratio: float | None
    longest_losing_streak: int
    average_minutes_held: float
    exposure_percentage: float


def statistics_of(results: Results) -> Statistics:
    """Return the statistics over all trades of ``results``."""
    runs = ordered(results)
    trades = trades_of(runs)
    profits = [trade.stake_percentage for trade in trades]
    spread = stdev(profits) if len(profits) > 1 else 0.0
    window = sum(run.end_ms - run.start_ms for run in runs)
    return Statistics(
        profit_factor=profit_factor(profits),
        sharpe_ratio=fmean(profits) / spread if spread else None,
        longest_losing_streak=max(
            (len(list(streak)) for losing, streak in groupby(profits, lambda profit: profit <= 0) if losing), default=0
        ),
        average_minutes_held=average_minutes_held(trades) or 0.0,
        exposure_percentage=sum(map(_exposed_ms, runs)) / window * 100 if window else 0.0,
    )


def result_json(results: Results, failed: Iterable[BacktestKitError | str] = ()) -> bytes:
    """Return trades, totals, analysis and runs of one result, or of several together, as indented JSON.

    ``trades`` has every closed trade as ``Trade`` encodes it, in order of closing. ``totals`` has the fields of ``Totals`` and of
    ``Statistics`` over all trades, ``analysis`` those of ``Analysis``. ``runs`` has the window (ms), ``costs``, ``parameters``, the
    totals, the analysis, ``buyAndHold`` and ``openTrade`` of each result. ``signalsIgnored`` counts signals that did not fit the price:
    in ``totals`` as a sum, in a run by kind. A run that did not reach the end of its window is not ``complete`` and has the text of its
    ``error`` (null if it was interrupted). Neither the wall clock nor the order of ``results`` matters: equal runs produce equal bytes.

    Args:
        results: one result, or several
        failed: the errors of runs that ended early, or their texts; they are listed under ``failed``

    Raises:
        InvalidTypeError: ``results`` has something else in it

    Examples:
        >>> import json
        >>> from backtest_kit_mongo.runner import result_json
        >>> json.loads(result_json([]))["totals"]["trades"]
        0
    """
    runs = ordered(results)
    content = {
        "trades": trades_of(runs),
        "totals": _totals(runs),
        "analysis": analysis_of(runs, trades_of(runs)),
        "runs": [
            {
                "symbol": run.symbol,
                "strategyName": run.strategy_name,
                "exchangeName": run.exchange_name,
                "frameName": run.frame_name,
                "startTimestamp": run.start_ms,
                "endTimestamp": run.end_ms,
                "windowEndTimestamp": run.window_end_ms,
                "costs": run.costs,
                "parameters": dict(sorted(run.parameters.items())),
                "minutes": run.minutes,
                "signalsAsked": run.signals_asked,
                "signalsIgnored": dict(sorted(run.signals_ignored.items())),
                "holes": run.holes,
                "filledCandles": run.filled_candles,
                "complete": run.complete,
                "error": run.error,
                "totals": _totals([run]),
                "analysis": analysis_of([run], trades_of([run])),
                "buyAndHold": run.buy_and_hold,
                "openTrade": run.open_trade,
            }
            for run in runs
        ],
        "failed": sorted(dict.fromkeys(map(error_text, failed))),
    }
    return _indented(content)


def profile_json(profile: Report, results: Results = ()) -> bytes:
    """Return the cost of reads and writes as indented JSON: ``seconds``, ``domains`` as in ``Report.to_dict``, and ``runs``.

    Each domain also has ``calls`` (of all operations) and ``hits`` (of all layers). ``runs`` has the wall-clock time that each result
    took. ``Report.from_dict`` accepts the decoded JSON.

    Args:
        profile: a report of ``backtest_kit_mongo.profile``
        results: one result, or several

    Raises:
        InvalidTypeError: ``results`` has something else in it

    Examples:
        >>> import json
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.runner import profile_json
        >>> with kit.profile() as report:
        ...     kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
        >>> json.loads(profile_json(report))["domains"]["signal"]["calls"]
        1
    """
    report = profile.to_dict()
    domains = {
        name: {
            "calls": sum(operation["count"] for operation in row["operations"].values()),
            "hits": row["hits_process"] + row["hits_redis"] + row["hits_block"],
            **row,
        }
        for name, row in report["domains"].items()
    }
    runs = [
        {
            "symbol": run.symbol,
            "strategy_name": run.strategy_name,
            "exchange_name": run.exchange_name,
            "frame_name": run.frame_name,
            "minutes": run.minutes,
            "wall_seconds": round(run.wall_seconds, 6),
            "minutes_per_second": round(run.minutes / max(run.wall_seconds, 1e-9), 3),
            "seconds_to_first_trade": None if run.seconds_to_first_trade is None else round(run.seconds_to_first_trade, 6),
        }
        for run in ordered(results)
    ]
    return _indented({**report, "domains": domains, "runs": runs})


def trades_frame(results: Results) -> PandasFrame:
    """Return a pandas DataFrame of the closed trades in order of closing, with the names of the JSON as columns.

    Times are datetime64[ms, UTC]. ``exchangeName`` and ``frameName`` say which run a trade belongs to.

    Args:
        results: one result, or several

    Raises:
        InvalidTypeError: ``results`` has something else in it
        MissingDependencyError: pandas is not installed

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> runner.trades_frame(runner.run_backtest("BTCUSDT")).loc[0, "closeReason"]
        'time_expired'
    """
    pandas = library("pandas", "pandas")
    rows = [(run, trade) for run in ordered(results) for trade in run.trades]
    rows.sort(key=lambda row: _place(row[1]))
    columns: dict[str, Any] = {}
    for field in msgspec.structs.fields(Trade):
        values = [getattr(trade, field.name) for _, trade in rows]
        if field.encode_name.endswith("Timestamp"):
            times = np.array(values, np.int64).view("datetime64[ms]")
            columns[field.encode_name] = pandas.DatetimeIndex(times).tz_localize("UTC")
        else:
            columns[field.encode_name] = pandas.Series(values, dtype={float: "float64", int: "int64"}.get(field.type, "str"))
    columns["exchangeName"] = pandas.Series([run.exchange_name for run, _ in rows], dtype="str")
    columns["frameName"] = pandas.Series([run.frame_name for run, _ in rows], dtype="str")
    frame: PandasFrame = pandas.DataFrame(columns)
    return frame


def error_text(error: BacktestKitError | str) -> str:
    """Return the text of an error with its notes; return text unchanged."""
    return error if isinstance(error, str) else with_notes(error)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path``; an existing file is replaced. Raises InvalidValueError or StorageError if that is not possible."""
    with replacing(check_target(path)) as file:
        file.write(content)


def ordered(results: Results) -> list[BacktestResult]:
    """Return one result or several as a list, in an order that does not depend on the order of ``results``."""
    runs = [results] if isinstance(results, BacktestResult) else list(results)
    for run in runs:
        if not isinstance(run, BacktestResult):
            raise InvalidTypeError(f"a report needs BacktestResults, got {type(run).__name__}")
    return sorted(runs, key=_order)


def trades_of(runs: Sequence[BacktestResult]) -> list[Trade]:
    """Return the closed trades of all runs in order of closing."""
    return sorted((trade for run in runs for trade in run.trades), key=_place)


def _order(run: BacktestResult) -> tuple[Any, ...]:
    # The parameters and trades come last: runs of a sweep may differ in nothing else.
    parameters = sorted((name, repr(value)) for name, value in run.parameters.items())
    trade_keys = [_place(trade) for trade in run.trades]
    return (run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.start_ms, run.end_ms, parameters, trade_keys)


def _place(trade: Trade) -> tuple[Any, ...]:
    return (trade.close_timestamp, trade.open_timestamp, *msgspec.structs.astuple(trade))


def _totals(runs: Sequence[BacktestResult]) -> dict[str, Any]:
    counts = {
        "signalsIgnored": sum(sum(run.signals_ignored.values()) for run in runs),
        "errorsSkipped": sum(run.errors_skipped for run in runs),
    }
    return {**msgspec.to_builtins(add_up(trades_of(runs))), **msgspec.to_builtins(statistics_of(runs)), **counts}


def _exposed_ms(run: BacktestResult) -> int:
    spans = [(trade.open_timestamp, trade.close_timestamp) for trade in run.trades]
    if run.open_trade is not None:
        spans.append((run.open_trade.open_timestamp, run.end_ms))
    return sum(max(0, min(until, run.end_ms) - max(since, run.start_ms)) for since, until in spans)


def _indented(content: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
