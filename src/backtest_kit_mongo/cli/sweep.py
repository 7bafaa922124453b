"""``sweep``: backtest a strategy file with many parameters, on all cores or on a cluster."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Annotated

import typer

from .. import wait_for_init
from ..contracts.default_registry import default_registry
from ..output_files import check_target
from ..runner import SweepResult, SweepRun, Totals, load_strategy_file, sweep
from ..runner.backtest.cluster import cluster_executor
from ..runner.loading.config_files import load_config_files
from ..runner.report.statistics import write_file
from .command import ServerOptions, pairs
from .market import Costs, Market, prepare_candles, read_market
from .output import counted, errors, facts, heading, progress, say, server_addresses, table

__all__ = ["sweep_parameters"]

_RUNS, _OUTPUT = "Runs", "Output"


def sweep_parameters(
    server_options: ServerOptions,
    strategy_file: Annotated[
        str, typer.Argument(metavar="STRATEGY.py", help="Python file that registers strategies with add_strategy.", show_default=False)
    ],
    market: Market,
    costs: Costs,
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
            help="Strategy to run; required if the file registers more than one.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, show_default=False, help="Number of processes. Default: one per core.", rich_help_panel=_RUNS),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Scheduler of a Dask cluster (tcp://host:8786) to execute the runs. Its machines need the strategy file under the "
            "same path, and must reach both servers.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Reuse the runs that an earlier sweep finished in this database.", rich_help_panel=_RUNS),
    ] = False,
    sort: Annotated[
        str,
        typer.Option(metavar="METRIC", help="Metric that sorts the table and the CSV, best first.", rich_help_panel=_OUTPUT),
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

    The file declares its parameters: FAST = parameter("FAST", 12). The candles are imported once, before the first run. Each run
    keeps its records under its own frame name (shown in --json), so runs do not affect each other. A run that fails is shown with
    its error. The results do not depend on the number of processes.

    Example with made-up candles and no servers of your own:

        $ backtest-kit-mongo sweep my_strategy.py \
            --grid FAST=6,12,24 --grid SLOW=48,96 --embedded --synthetic-days 7
    """
    market.check()
    SweepResult("", "", ()).sorted_by(sort)  # reports an unknown metric now, not after hours
    for file in (json, csv_out):
        if file is not None:
            check_target(file)
    parameters = {name: values.split(",") for name, values in pairs(grid, "--grid", "NAME=A,B,...").items()}
    files = load_config_files()
    load_strategy_file(strategy_file)  # for its exchange and its frames; each run loads it again
    exchange = market.exchange_name()
    candles = read_market(market)
    if files.setup is None:
        server_options.connect(**({} if os.environ.get("CC_DURABILITY") else {"CC_DURABILITY": "memory"}))
    with errors.status("Waiting for MongoDB and Redis"):
        wait_for_init(server_options.timeout)
    facts({"strategy": strategy_file, "candles": market.text(exchange, live=False), **server_addresses(default_registry.config)})
    window, lines = prepare_candles(market, exchange, candles)
    for line in lines:
        say(line)
    with nullcontext() if cluster is None else cluster_executor(cluster) as executor, progress("Sweeping", "runs") as moved:
        result = sweep(
            strategy_file,
            parameters,
            symbols=market.symbols,
            strategy_name=strategy,
            options=window.options(exchange, costs, market.holes),
            workers=workers,
            executor=executor,
            resume=resume,
            progress=moved,
        )
    if json is not None:
        write_file(json, result.to_json())
    if csv_out is not None:
        write_file(csv_out, result.to_csv(sort).encode())
    _show(result, sort, top)
    if all(run.error is not None for run in result.runs):
        raise typer.Exit(1)


def _show(result: SweepResult, sort: str, top: int) -> None:
    runs = result.sorted_by(sort)
    failed = [run for run in runs if run.error is not None]
    shown = [(run, run.totals) for run in runs if run.totals is not None][:top]
    if shown:
        heading(f"The best {len(shown):,} of {counted(len(runs), 'run')} by {sort}" if len(shown) < len(runs) else f"Runs by {sort}")
        columns = ["symbol", *shown[0][0].parameters, "trades", "won", "profit", "per trade", "best", "worst", "drawdown"]
        table(columns, [_cells(run, totals) for run, totals in shown], left=("symbol",))
    ignored = sum(run.signals_ignored for run in runs)
    if ignored:
        affected = sum(run.signals_ignored > 0 for run in runs)
        say(f"{counted(ignored, 'signal')} of {counted(affected, 'run')} ignored, as they did not fit the price (--csv-out shows each run)")
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
