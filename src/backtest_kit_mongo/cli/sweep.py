"""``sweep``: a strategy file with many parameters, on all cores or on a cluster."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .. import wait_for_init
from ..errors import InvalidValueError
from ..registry import default_registry
from ..runner import SweepResult, SweepRun, Totals, sweep, synthetic_market
from ..runner.cluster import cluster_executor
from .candles import read_file, report_text, store_candles
from .command import Link
from .output import counted, errors, facts, heading, places, progress, say, table

__all__ = ["sweep_parameters"]

_RUNS, _MARKET, _COSTS, _OUTPUT = "Runs", "Candles", "Execution", "Results"
_SYNTHETIC_START_MS = 1_677_628_800_000  # 2023-03-01T00:00Z
_MINUTES_PER_DAY = 1440


def sweep_parameters(
    link: Link,
    strategy_file: Annotated[
        str, typer.Argument(metavar="STRATEGY.py", help="Python file that registers strategies with add_strategy.", show_default=False)
    ],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=A,B,...",
            show_default=False,
            help="A parameter and its values. May be repeated.",
            rich_help_panel=_RUNS,
        ),
    ],
    strategy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Which strategy of the file; needed if it registers more than one.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="How many processes. Default: one per core.", rich_help_panel=_RUNS),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Scheduler of a Dask cluster (tcp://host:8786) that shall do the runs. Its machines need the strategy file under the "
            "same path, and must reach both servers.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Take runs that an earlier sweep has finished in this database from there.", rich_help_panel=_RUNS),
    ] = False,
    symbol: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="BTCUSDT", help="What is traded. May be repeated.", rich_help_panel=_MARKET),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Binance kline file of 1m candles (CSV, plain or .gz) to import first and to replay. Default: replay what was "
            "imported before.",
            rich_help_panel=_MARKET,
        ),
    ] = None,
    exchange: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Exchange name of the candles. Default: binance.", rich_help_panel=_MARKET),
    ] = None,
    synthetic_days: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS",
            show_default=False,
            min=1,
            max=3650,
            help="Replay this many days of made-up 1m candles instead, stored under an exchange name of their own.",
            rich_help_panel=_MARKET,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of the made-up candles.", rich_help_panel=_MARKET)
    ] = 42,
    fee: Annotated[float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Fee, percent per side.", rich_help_panel=_COSTS)] = 0.1,
    slippage: Annotated[
        float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Slippage, percent per side.", rich_help_panel=_COSTS)
    ] = 0.1,
    sort: Annotated[
        str,
        typer.Option(metavar="METRIC", help="What table and CSV are sorted by, best first.", rich_help_panel=_OUTPUT),
    ] = "pnlPercentage",
    top: Annotated[int, typer.Option(metavar="N", min=0, help="How many rows of the table to print.", rich_help_panel=_OUTPUT)] = 20,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", show_default=False, help="Write all runs as JSON to FILE.", rich_help_panel=_OUTPUT),
    ] = None,
    csv_out: Annotated[
        str | None, typer.Option(metavar="FILE", show_default=False, help="Write the table as CSV to FILE.", rich_help_panel=_OUTPUT)
    ] = None,
) -> None:
    r"""Backtest a strategy file with every combination of parameters, on all cores, and compare the results.

    The file says which parameters it has: FAST = parameter("FAST", 12). The candles are imported once, before the first run. Each
    run keeps its records under a frame name of its own (shown in --json), so that runs do not meet. A run that fails is a row
    with its error. The results do not depend on the number of processes.

    Example, on made-up candles and without any server of your own:

        $ backtest-kit-mongo sweep examples/sma_cross.py \
            --grid FAST=6,12,24 --grid SLOW=48,96 --embedded --synthetic-days 7
    """
    if synthetic_days is not None and (csv is not None or exchange is not None):
        raise typer.BadParameter("made-up candles need neither --csv nor --exchange", param_hint="--synthetic-days")
    symbols = symbol or ["BTCUSDT"]
    if csv is not None and len(symbols) > 1:
        raise typer.BadParameter("a file holds the candles of one symbol; `candles import` imports more files", param_hint="--csv")
    SweepResult("", "", ()).sorted_by(sort)  # an unknown metric is said now, not after hours
    for file in (json, csv_out):
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise InvalidValueError(f"{file} cannot be written: its folder does not exist")
    parameters = _parameters(grid)
    exchange = exchange or ("binance" if synthetic_days is None else f"synthetic-{seed}-{synthetic_days}d")
    candles = None if csv is None else read_file(csv, "1m")
    if synthetic_days is not None:
        candles = synthetic_market(seed, synthetic_days * _MINUTES_PER_DAY, _SYNTHETIC_START_MS)

    link.connect(**({} if os.environ.get("CC_DURABILITY") else {"CC_DURABILITY": "memory"}))
    with errors.status("Waiting for MongoDB and Redis"):
        wait_for_init(link.timeout)
    imported: list[str] = []
    start = end = None
    if candles is not None:
        for name in symbols:
            stored, new = store_candles(candles, name, "1m", exchange)
            imported += report_text(stored, new)
            start, end = stored.since_ms, stored.until_ms
    market = "\n".join(imported or [f"{', '.join(symbols)} 1m on {exchange}, as imported before"])
    facts({"strategy": strategy_file, "candles": market, **places(default_registry.mongo.config)})
    with nullcontext() if cluster is None else cluster_executor(cluster) as executor, progress("Sweeping", "runs") as moved:
        result = sweep(
            strategy_file,
            parameters,
            symbols=symbols,
            strategy_name=strategy,
            exchange_name=exchange,
            start_ms=start,
            end_ms=end,
            fee_percent=fee,
            slippage_percent=slippage,
            workers=workers,
            executor=executor,
            resume=resume,
            progress=moved,
        )
    if json is not None:
        _write(json, result.to_json())
    if csv_out is not None:
        _write(csv_out, result.to_csv(sort).encode())
    _show(result, sort, top)
    if all(run.error is not None for run in result.runs):
        raise typer.Exit(1)


def _parameters(grid: list[str]) -> dict[str, list[str]]:
    """``NAME=A,B`` as name and values; sweep() reads the values in the type of the parameter."""
    parameters: dict[str, list[str]] = {}
    for text in grid:
        name, equals, values = text.partition("=")
        if not name.strip() or not equals or name.strip() in parameters:
            problem = "is given twice" if name.strip() in parameters else "is not NAME=A,B,..."
            raise typer.BadParameter(f"{text!r} {problem}", param_hint="--grid")
        parameters[name.strip()] = [value.strip() for value in values.split(",")]
    return parameters


def _write(file: str, content: bytes) -> None:
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise InvalidValueError(f"{file} cannot be written: {error.strerror}") from error


def _show(result: SweepResult, sort: str, top: int) -> None:
    runs = result.sorted_by(sort)
    failed = [run for run in runs if run.error is not None]
    shown = [(run, run.totals) for run in runs if run.totals is not None][:top]
    if shown:
        heading(f"The best {len(shown):,} of {counted(len(runs), 'run')} by {sort}" if len(shown) < len(runs) else f"Runs by {sort}")
        columns = ["symbol", *shown[0][0].parameters, "trades", "won", "profit", "per trade", "best", "worst", "drawdown"]
        table(columns, [_cells(run, totals) for run, totals in shown], left=("symbol",))
    if failed:
        heading(f"{counted(len(failed), 'run')} failed")
        for run in failed[: max(top, 1)]:
            set_to = " ".join(f"{name}={value}" for name, value in run.parameters.items())
            say(f"  {run.symbol} {set_to}: {run.error}")


def _cells(run: SweepRun, totals: Totals) -> list[str]:
    percent = (totals.pnl_percentage, totals.average_pnl_percentage, totals.best_pnl_percentage, totals.worst_pnl_percentage)
    return [
        run.symbol,
        *map(str, run.parameters.values()),
        f"{totals.trades:,}",
        f"{totals.win_rate:.1f} %",
        *(f"{value:+.3f} %" for value in percent),
        f"{totals.max_drawdown_percentage:.3f} %",
    ]
