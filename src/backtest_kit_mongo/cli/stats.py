"""``stats``: what is stored, and what the last run on this machine did."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import get_mongo
from ..contracts.default_registry import default_registry
from ..errors import BacktestKitError, InvalidValueError
from ..observability.charts import load_matplotlib
from ..observability.text_tables import size
from .command import ServerOptions
from .output import heading, output, say, server_addresses, table
from .records import Record, load_last_run, plain, run_text
from .stored import candle_series, documents, redis_ids
from .watch import watch

__all__ = ["show_stats"]


def show_stats(
    server_options: ServerOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON; with --watch one line per update.")] = False,
    png: Annotated[
        str | None,
        typer.Option(metavar="FILE", show_default=False, help="Draw the report of the last run as a PNG file (needs matplotlib)."),
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Update until Ctrl-C: show what changes, and what runs on this machine do.")
    ] = False,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="Time between two updates of --watch.")] = 2.0,
) -> None:
    """Show what is stored for each domain, and what the last run on this machine did.

    Stored: documents in MongoDB, size of their data and indexes, ids in Redis; for each series of candles its documents, its packed
    copies, and what is in the archive alone (sizes are estimates). Last run: reads, how many of them were answered by ids in the process
    (L1), ids in Redis or candles in memory (block) and how many were not (misses), cached ids that were wrong (stale), writes, bytes, and
    how long calls took in microseconds: half of them at most p50, 99 % at most p99. The file is backtest-kit-mongo/last-run.json in the
    user's state folder.

    With --watch: documents and ids and how fast they grow, what the servers do, and each active `backtest-kit-mongo run` of this
    user on this machine, with the counters that it writes once a second. A server that is away is reported and tried again. With
    --embedded start the run first: the servers stop with the command that started them.

    Examples:

        $ backtest-kit-mongo stats --embedded

        $ backtest-kit-mongo stats --watch --interval 5
    """
    if watching:
        if png is not None:
            raise typer.BadParameter("draws the last run and cannot be combined with --watch", param_hint="--png")
        watch(server_options, interval, as_json)
        return
    if png is not None:
        _check_picture(png)
    last = load_last_run()
    if png is not None and last is None:
        raise InvalidValueError("there is no last run to draw", hint="`backtest-kit-mongo run` records one")
    stored: dict[str, Any] | None = None
    failure: BacktestKitError | None = None
    try:
        server_options.connect()
        stored = _stored(server_options.timeout)
    except BacktestKitError as error:
        failure = error  # the last run can be shown without servers
    if as_json:
        typer.echo(json.dumps({"stored": stored, "lastRun": None if last is None else plain(last)}, indent=2))
    else:
        if stored is not None:
            _show_stored(stored)
        _show_last_run(last)
    if png is not None and last is not None:
        last["report"].save_png(png)
    if failure is not None:
        raise failure


def _check_picture(path: str) -> None:
    """Check that matplotlib is installed and the file can be written. Called before any server is contacted."""
    load_matplotlib()
    target = Path(path)
    if target.is_dir():
        raise InvalidValueError(f"cannot write a picture to {path}: it is a folder")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise InvalidValueError(f"cannot write a picture to {path}: no such folder, or it is not writable")


def _stored(timeout: float) -> dict[str, Any]:
    """Return what is in MongoDB and in Redis, by domain."""
    domains, ids, candles = documents(timeout), redis_ids(timeout), candle_series(timeout)
    domains["candle archive"]["documents"] = sum(row["archivedBlocks"] for row in candles)  # not those that only register a block
    return {
        **server_addresses(default_registry.mongo.config),
        "database": get_mongo().name,
        "domains": {name: {**row, "redisIds": ids.get(name, 0)} for name, row in domains.items()},
        "candles": candles,
    }


def _show_stored(stored: dict[str, Any]) -> None:
    heading(f"Stored in database {stored['database']}")
    rows = stored["domains"]
    total = {key: sum(row[key] for row in rows.values()) for key in ("documents", "dataBytes", "storageBytes", "indexBytes", "redisIds")}
    table(
        ("domain", "documents", "data", "on disk", "indexes", "ids in Redis"),
        [
            (
                name,
                f"{row['documents']:,}",
                *(size(row[key]) for key in ("dataBytes", "storageBytes", "indexBytes")),
                f"{row['redisIds']:,}",
            )
            for name, row in {**rows, "all": total}.items()
        ],
        left=("domain",),
    )
    if stored["candles"]:
        heading("Candles")
        table(
            ("exchange", "symbol", "interval", "documents", "data", "copied", "blocks", "data", "archived", "blocks", "data"),
            [
                (
                    row["exchangeName"],
                    row["symbol"],
                    row["interval"],
                    f"{row['documents']:,}",
                    size(row["documentBytes"]),
                    f"{row['packedCandles']:,}",
                    f"{row['packedBlocks']:,}",
                    size(row["packedBytes"]),
                    f"{row['archivedCandles']:,}",
                    f"{row['archivedBlocks']:,}",
                    size(row["archivedBytes"]),
                )
                for row in stored["candles"]
            ],
            left=("exchange", "symbol", "interval"),
        )
    say(f"MongoDB {stored['MongoDB']}, Redis {stored['Redis']}")


def _show_last_run(last: Record | None) -> None:
    heading("Last run on this machine")
    if last is None:
        say("none is recorded; `backtest-kit-mongo run` records one")
        return
    say(f"{last['saved']}: {run_text(last)}")
    say(last["report"].table(output.width))
