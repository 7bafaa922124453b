"""``runs``: the results of earlier backtests."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from ..output_files import check_target
from ..runner.backtest.kept_runs import KeptRun, list_runs, load_run
from ..runner.engine.result import add_up
from ..runner.report.html import check_html, write_html
from ..runner.report.statistics import result_json, statistics_of, trades_of, write_file
from ..runner.report.text import ratio_text
from .command import ServerOptions
from .market import Costs
from .output import errors, facts, say, say_error, table
from .results import percent, show_results

__all__ = ["show_run", "show_runs"]


def show_runs(
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many of the newest runs to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the kept backtests, newest first.

    Each backtest of `backtest-kit-mongo run` is kept in the folder backtest-kit-mongo/runs of the user's data folder.

    Example:

        $ backtest-kit-mongo runs list --limit 5
    """
    runs = [run for run, _ in zip(list_runs(), range(limit), strict=False)]
    if as_json:
        rows = [{name: value for name, value in msgspec.to_builtins(run).items() if name not in ("results", "profile")} for run in runs]
        typer.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    if not runs:
        say("no backtest has been kept yet; `backtest-kit-mongo run` keeps every backtest")
        return
    left = ("id", "strategy", "symbols", "parameters")
    table((*left, "trades", "profit", "profit factor", "complete"), [_row(run) for run in runs], left=left)
    say("`backtest-kit-mongo runs show ID` shows one of them, `runs show last` the newest")


def _row(run: KeptRun) -> tuple[str, ...]:
    totals = add_up(trades_of(run.results))
    return (
        run.id,
        ", ".join(dict.fromkeys(result.strategy_name for result in run.results)),
        ", ".join(dict.fromkeys(result.symbol for result in run.results)),
        " ".join(f"{name}={value}" for name, value in run.parameters.items()),
        f"{totals.trades:,}",
        percent(totals.pnl_percentage),
        ratio_text(statistics_of(run.results).profit_factor),
        "yes" if not run.failed and all(result.complete for result in run.results) else "no",
    )


def show_run(
    server_options: ServerOptions,
    run_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the run, the start of its id, or last.", show_default=False)],
    trades: Annotated[int, typer.Option(metavar="N", min=0, help="How many of the last trades to print.")] = 20,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", show_default=False, help="Write trades and totals as JSON, as `run --json` does."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            show_default=False,
            help="Write the HTML page of the run. It reads the candles from the database again (extra: report).",
        ),
    ] = None,
) -> None:
    """Show a kept backtest: its trades, totals, settings and parameters.

    Example:

        $ backtest-kit-mongo runs show last --report last.html --embedded
    """
    run = load_run(run_id)
    if json is not None:
        check_target(json)
    if report is not None:
        check_html(report)
    parameters = ", ".join(f"{name}={value}" for name, value in run.parameters.items())
    settings = ", ".join(f"{name} {value}" for name, value in run.settings.items())
    facts({"run": f"{run.id}, saved {run.saved}", "strategy": run.strategy_file, "parameters": parameters or "none", "settings": settings})
    for failure in run.failed:
        say_error(failure)
    if run.results:
        costs = Costs(**{name: float(run.settings[name]) for name in ("fee", "slippage", "stake") if name in run.settings})
        show_results(run.results, run.report, shown=trades, costs=costs, live=False)
    if json is not None:
        write_file(json, result_json(run.results, run.failed))
        say(f"written: {json}")
    if report is not None:
        server_options.connect()
        with errors.status("Drawing the report"):
            write_html(report, run.results, profile=run.report, failed=run.failed)
        say(f"written: {report}")
