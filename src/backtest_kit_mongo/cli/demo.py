"""``demo``: run one backtest in two processes on one database, and show the work that the second one was spared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import pymongo
import typer

from ..config import load_config
from ..contracts.registry import Registry
from ..domains import DOMAINS
from ..errors import BacktestKitError, MissingDependencyError, StorageError
from ..runner import BacktestResult
from ..runner.backtest.kept_runs import KeptRun, load_run
from ..runner.report.html import check_html, write_html
from ..servers.embedded import EmbeddedServers, default_data_dir
from .output import errors, facts, heading, program, say, say_note, table
from .results import percent

__all__ = ["show_demo"]

_DATABASE: Final = "demo"
_STRATEGY: Final = Path(__file__).parents[1] / "examples" / "cached_trend.py"
_DAYS: Final = 14


class DemoError(BacktestKitError, RuntimeError):
    """A process of the demo failed; the message includes its output."""


class _Process(NamedTuple):
    """The run of one process, and the seconds from the start of the process to its end."""

    run: KeptRun
    seconds: float

    @property
    def result(self) -> BacktestResult:
        """Return the only result of the run."""
        return self.run.results[0]

    def domain(self, name: str) -> dict[str, Any]:
        """Return the counters of a domain."""
        counters: dict[str, Any] = (self.run.profile or {})["domains"][name]
        return counters

    def sum(self, counter: str) -> int:
        """Return the sum of a counter over all domains that are read by key."""
        domains: dict[str, dict[str, Any]] = (self.run.profile or {})["domains"]
        return sum(int(row[counter]) for name, row in domains.items() if name != "candle")


def show_demo(
    csv: Annotated[
        str | None, typer.Option(metavar="FILE", show_default=False, help="Real 1m candles instead of made-up ones, as for `run --csv`.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Symbol of the candles in the file.")] = None,
    embedded_dir: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Data folder of the demo's servers. Default: backtest-kit-mongo/demo in the user's data folder.",
        ),
    ] = None,
) -> None:
    """Show what persistence is for: run a backtest twice, in two processes, with every contract in MongoDB.

    The first process imports the candles and computes what the strategy needs. The second one reads the candles and these answers
    from MongoDB, by ids that it gets from Redis, and makes the same trades. The demo starts embedded servers on a folder of its own
    and first drops its database there. It writes nothing into the working directory.

    Example:

        $ backtest-kit-mongo demo
    """
    folder = Path(embedded_dir).expanduser().absolute() if embedded_dir else default_data_dir() / "demo"
    page: Path | None = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_html(folder / "report.html")
    except OSError as error:
        raise StorageError(f"the folder of the demo cannot be created: {error}") from error
    except MissingDependencyError as error:
        say_note(f"the demo will write no report: {error}")
        page = None
    market = ["--csv", str(Path(csv).absolute())] if csv is not None else ["--synthetic-days", str(_DAYS)]
    market += ["--symbol", symbol] if symbol is not None else []
    with errors.status("Starting MongoDB and Redis") as status, EmbeddedServers(folder) as servers:
        if not servers.owned:
            raise DemoError(f"another process uses the servers in {folder}, perhaps a demo", hint="wait for it, or pass --embedded-dir")
        uri = servers.mongo_uri.replace("/backtest-kit", f"/{_DATABASE}")
        with pymongo.MongoClient[dict[str, Any]](uri) as client:
            client.drop_database(_DATABASE)
        market += ["--mongo", uri, "--redis-host", servers.redis_socket]
        processes = []
        for name in ("first", "second"):
            status.update(f"Running the {name} process")
            processes.append(_run(name, folder, market))
        if page is not None:
            status.update("Drawing the report")
            last = processes[-1].run
            registry = Registry()  # on these servers, whatever the environment says
            with closing(registry):
                registry.configure(load_config({"CC_MONGO_CONNECTION_STRING": uri, "CC_REDIS_HOST": servers.redis_socket}, {}))
                write_html(page, last.results, profile=last.report, registry=registry)
    _show(processes, "made-up" if csv is None else "real", page)


def _run(name: str, folder: Path, arguments: list[str]) -> _Process:
    """Run the backtest in a process of its own and load the results that it kept."""
    command = [sys.executable, "-m", "backtest_kit_mongo", "run", str(_STRATEGY), "--backtest", "--entry", "--stores", "mongo", *arguments]
    environment = {variable: value for variable, value in os.environ.items() if not variable.startswith("CC_")}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    kept = re.search(r"kept as run (\S+):", done.stdout)
    if done.returncode or kept is None:
        printed = f"{done.stdout[-2000:]}{done.stderr[-2000:]}".strip()
        raise DemoError(f"the {name} process of the demo ended with exit code {done.returncode}:\n{printed}")
    return _Process(load_run(kept[1]), seconds)


def _show(processes: list[_Process], kind: str, page: Path | None) -> None:
    first, second = processes
    run = first.result
    say(f"{run.minutes:,} {kind} minutes of {run.symbol}, strategy {run.strategy_name}, all {len(DOMAINS)} contracts in MongoDB:\n")

    def row(name: str, text: Callable[[_Process], str]) -> tuple[str, ...]:
        return (name, text(first), text(second))

    table(
        ("", "first process", "second process"),
        [
            row("candles imported", lambda process: f"{process.domain('candle')['writes']:,}"),
            row("trends computed", lambda process: f"{_count(process.domain('measure'), 'write'):,}"),
            row("ids from Redis", _ids_text),
            row("first trade after", lambda process: _seconds(process.result.seconds_to_first_trade)),
            row("whole process", lambda process: _seconds(process.seconds)),
            row("trades", lambda process: f"{len(process.result.trades):,}"),
            row("profit", lambda process: percent(process.result.totals.pnl_percentage)),
        ],
        left=("",),
    )
    same = (first.result.trades, first.result.open_trade) == (second.result.trades, second.result.open_trade)
    say("The same trades in both." if same else "The trades differ. This is a bug; please report it.")
    if page is not None:
        say(f"Report: {page}")
    heading("What to try next")
    command = program()
    facts(
        {
            "your candles": f"{command} demo --csv BTCUSDT-1m.csv.gz",
            "your strategy": f"{command} new-strategy mine.py\n{command} run mine.py --backtest --entry --embedded --synthetic-days 7",
            "earlier runs": f"{command} runs list",
        }
    )


def _count(row: dict[str, Any], operation: str) -> int:
    """Return how often an operation was called."""
    return int(row["operations"].get(operation, {}).get("count", 0))


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.2f} s"


def _ids_text(process: _Process) -> str:
    """Return how many ids came from Redis, of those that the process needed for stored records and did not have."""
    from_redis, from_mongodb = process.sum("hits_redis"), process.sum("backfills")
    return f"{from_redis:,} of {from_redis + from_mongodb:,}" + (
        f" ({from_redis / (from_redis + from_mongodb):.0%})" if from_redis + from_mongodb else ""
    )
