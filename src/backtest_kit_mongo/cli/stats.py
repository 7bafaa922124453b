"""``stats``: what is stored, and what the last run on this machine did."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pymongo
import typer
from pymongo.errors import OperationFailure, PyMongoError

from .. import get_mongo
from ..domains import DOMAINS
from ..errors import BacktestKitError
from ..registry import default_registry
from ..stores.connection import translated
from .command import Link
from .output import counted, domain_table, errors, heading, places, say, size, table

__all__ = ["last_run_file", "save_last_run", "show_stats"]

_NAMESPACE_NOT_FOUND = 26


def show_stats(link: Link, as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False) -> None:
    """Show what is stored for each domain, and the counters of the last run on this machine.

    Stored: documents in MongoDB, size of their data and indexes, ids in Redis. Last run: reads, how many of them found the id in
    this process or in Redis (hits) or not (misses) or found a wrong one (stale), writes, and how long a call took in microseconds:
    half of the calls stayed below p50, 99 % below p99. The file is backtest-kit-mongo/last-run.json in the user's state folder.

    Example:

        $ backtest-kit-mongo stats --embedded
    """
    last = load_last_run()
    stored: dict[str, Any] | None = None
    failure: BacktestKitError | None = None
    try:
        link.connect()
        stored = _stored(link.timeout)
    except BacktestKitError as error:
        failure = error  # the last run can be shown without servers
    if as_json:
        typer.echo(json.dumps({"stored": stored, "lastRun": last}, indent=2))
    else:
        if stored is not None:
            _show_stored(stored)
        _show_last_run(last)
    if failure is not None:
        raise failure


def _stored(timeout: float) -> dict[str, Any]:
    """By domain what is in MongoDB and in Redis."""
    database, ids = get_mongo(), default_registry.mongo.redis_ids
    domains: dict[str, Any] = {}
    try:
        with pymongo.timeout(timeout):
            for domain in DOMAINS.values():
                found = _collection_size(domain.collection)
                domains[domain.name] = {
                    "documents": int(found.get("count", 0)),
                    "dataBytes": int(found.get("size", 0)),
                    "storageBytes": int(found.get("storageSize", 0)),
                    "indexBytes": int(found.get("totalIndexSize", 0)),
                }
    except PyMongoError as error:
        raise translated(error) from error
    ids.ping(time.monotonic() + timeout)
    names = {domain.prefix.encode(): domain.name for domain in DOMAINS.values()}
    # SCAN may give a key twice.
    counts = Counter(names[key.partition(b":")[0]] for key in set(ids.scan([domain.prefix for domain in DOMAINS.values()])))
    for name, row in domains.items():
        row["redisIds"] = counts[name]
    return {**places(default_registry.mongo.config), "database": database.name, "domains": domains}


def _collection_size(name: str) -> dict[str, Any]:
    try:
        return get_mongo().command("collStats", name)
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:  # newer servers say so where older ones give zeros
            return {}
        raise


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
    say(f"MongoDB {stored['MongoDB']}, Redis {stored['Redis']}")


def _show_last_run(last: dict[str, Any] | None) -> None:
    heading("Last run on this machine")
    if last is None:
        say("none is recorded; `backtest-kit-mongo run` does that")
        return
    run = last["run"]
    what = f"{run['strategy']} on {run['symbol']} {run['exchange']}"
    say(f"{last['saved']}: {what}, {counted(run['minutes'], 'minute')}, {counted(run['trades'], 'trade')}")
    domain_table(last["stats"])


def last_run_file() -> Path:
    """Where the counters of the last run are kept."""
    home = os.environ.get("XDG_STATE_HOME", "")  # to be ignored if relative, says its specification
    return (Path(home) if os.path.isabs(home) else Path("~/.local/state").expanduser()) / "backtest-kit-mongo" / "last-run.json"


def save_last_run(run: dict[str, Any], stats: dict[str, Any]) -> None:
    """Keep what a run did for ``stats``. A folder that cannot be written to is said on stderr, and is no failure of the run."""
    record = {"saved": datetime.now(UTC).isoformat(timespec="seconds"), "run": run, "stats": stats}
    try:
        path = last_run_file()
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix="last-run-", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        errors.print(f"the counters of this run are not kept for `stats`: {error}", soft_wrap=True, markup=False)


def load_last_run() -> dict[str, Any] | None:
    """What ``save_last_run`` kept, or None if there is nothing readable."""
    try:
        record = json.loads(last_run_file().read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and {"saved", "run", "stats"} <= record.keys() else None
    except (OSError, RuntimeError, ValueError):
        return None
