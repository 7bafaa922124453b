"""``doctor``: check both servers and the indexes without changing anything."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import pymongo
import typer
from pymongo.errors import OperationFailure, PyMongoError

from .. import get_mongo
from ..config import Config, unknown_settings
from ..contracts.default_registry import default_registry
from ..domains import CANDLE_ARCHIVE, DOMAINS, PACKED_CANDLES
from ..errors import BacktestKitError
from ..mode_defaults import KINDS
from ..servers.embedded import default_data_dir
from ..stores.mongo.errors import translated
from ..stores.mongo.indexes import find_conflicts, missing_indexes
from .command import ServerOptions
from .output import counted, facts, heading, output, say, server_addresses

__all__ = ["doctor"]

Report = dict[str, Any]


def doctor(
    server_options: ServerOptions,
    samples: Annotated[int, typer.Option(metavar="N", min=1, help="How many round trips to measure; the median is shown.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the servers and the database without changing anything.

    Shows whether MongoDB and Redis answer, their versions and how long a round trip takes; when a write counts as done; which
    store serves which domain in the mode of CC_MODE, and whether the folder for files is writable; misspelt CC_* variables, which
    have no effect; which indexes are missing (the first run creates them); and what conflicts with the library's unique keys:
    indexes of older versions and duplicate documents, each with the mongosh command that repairs it. The exit code is 1 if
    something is wrong, else 0.

    With --embedded both servers are started for the check and stopped after it.

    Example:

        $ backtest-kit-mongo doctor --mongo mongodb://localhost/backtest-kit
    """
    with _looked_at(server_options) as (config, note):
        server_options.connect(**config)
        report = _examine(server_options.timeout, samples)
    if note:
        report["note"] = note
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    if not report["ok"]:
        raise typer.Exit(1)


@contextmanager
def _looked_at(server_options: ServerOptions) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield extra settings for the check, and a note. Embedded servers without a data folder are tried in a temporary one."""
    config = server_options.config()
    folder = Path(config.CC_EMBEDDED_DIR).expanduser() if config.CC_EMBEDDED_DIR else default_data_dir()
    if not config.CC_EMBEDDED or folder.exists():
        yield {}, ""
        return
    with tempfile.TemporaryDirectory(prefix="backtest-kit-doctor-") as temporary:
        try:
            yield {"CC_EMBEDDED_DIR": temporary}, f"the data folder {folder} does not exist yet; the servers were tried in a temporary one"
        finally:
            default_registry.close()


def _examine(timeout: float, samples: int) -> Report:
    config = default_registry.mongo.config
    where = server_addresses(config)
    mongo, cache = _mongo(timeout, samples), _redis(timeout, samples)
    problems: list[Report] = []
    missing: dict[str, list[str]] = {}
    blocks = {PACKED_CANDLES: 0, CANDLE_ARCHIVE: 0}
    if mongo["ok"]:
        try:
            missing, problems = _indexes()
            with suppress(OperationFailure):  # the library works without rights to these collections
                blocks = {domain: get_mongo()[domain.collection].count_documents({"codec": {"$exists": True}}) for domain in blocks}
        except PyMongoError as error:
            mongo |= {"ok": False, "error": str(translated(error))}
    folder = _folder(config)
    unknown = [{"name": name, "didYouMean": near} for name, near in unknown_settings().items()]
    source = "CC_DURABILITY" if os.environ.get("CC_DURABILITY") else f"mode {config.CC_MODE}" if config.CC_MODE else "default"
    return {
        "ok": mongo["ok"] and cache["ok"] and folder["ok"] and not problems and not unknown,
        "mongodb": {"address": where["MongoDB"], **mongo},
        "redis": {"address": where["Redis"], **cache},
        "embedded": config.CC_EMBEDDED,
        "mode": config.CC_MODE,
        "stores": config.CC_STORES,
        "folder": folder,
        "lookAhead": config.CC_LOOK_AHEAD,
        "history": list(config.CC_HISTORY),
        "durability": {"setting": config.CC_DURABILITY, "source": source},
        "unknownSettings": unknown,
        "missingIndexes": missing,
        "candleFormat": config.CC_CANDLE_FORMAT,
        "packedBlocks": blocks[PACKED_CANDLES],
        "archivedBlocks": blocks[CANDLE_ARCHIVE],
        "problems": problems,
    }


def _folder(config: Config) -> Report:
    """Return the folder for files, whether a domain uses it, and whether it (or the part of its path that exists) is writable."""
    folder = Path(config.CC_DUMP_DIR).expanduser().absolute()
    result: Report = {"path": str(folder), "used": not {"file", "jsonl"}.isdisjoint(config.CC_STORES.values()), "ok": True}
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if result["used"] and not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        result |= {"ok": False, "error": f"{existing} is {'not writable' if existing.is_dir() else 'not a folder'}"}
    return result


def _mongo(timeout: float, samples: int) -> Report:
    try:
        database = get_mongo()
        with pymongo.timeout(timeout):
            admin = database.client.admin
            version = admin.command("buildInfo")["version"]
            median = _median_us(lambda: admin.command("ping"), samples)
    except PyMongoError as error:
        return {"ok": False, "error": str(translated(error))}
    except BacktestKitError as error:
        return {"ok": False, "error": str(error)}
    config = default_registry.get_config()
    return {
        "ok": True,
        "version": version,
        "topology": config.topology,
        "database": database.name,
        "roundTripUs": median,
        "writeConcern": config.write_concern,
        "readConcern": config.read_concern,
    }


def _redis(timeout: float, samples: int) -> Report:
    ids = default_registry.mongo.redis_ids
    try:
        ids.ping(time.monotonic() + timeout)
        median = _median_us(lambda: ids.ping(time.monotonic() + timeout), samples)
    except BacktestKitError as error:
        return {"ok": False, "error": str(error)}
    try:
        info = ids.server_info("server")[0]
        # For compatibility, Valkey reports the Redis version that it was forked from.
        server = "Valkey" if info.get("server_name") == "valkey" else "Redis"
        version = str(info["valkey_version" if server == "Valkey" else "redis_version"])
    except BacktestKitError:  # the user may lack the permission
        server, version = "Redis", "unknown"
    return {"ok": True, "server": server, "version": version, "roundTripUs": median}


def _median_us(call: Callable[[], object], samples: int) -> float:
    times = []
    for _ in range(samples):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return round(statistics.median(times) / 1000, 1)


def _indexes() -> tuple[dict[str, list[str]], list[Report]]:
    """Return the missing indexes by domain, and what conflicts with the unique keys."""
    missing: dict[str, list[str]] = {}
    problems: list[Report] = []
    for domain in DOMAINS.values():
        collection = get_mongo()[domain.collection]
        if names := missing_indexes(collection, domain):
            missing[domain.name] = names
        problems += [
            {"domain": domain.name, "collection": domain.collection, "problem": conflict.text, "command": conflict.cure}
            for conflict in find_conflicts(collection, domain)
        ]
    return missing, problems


def _show(report: Report) -> None:
    mongo, cache, durability = report["mongodb"], report["redis"], report["durability"]
    meaning = {
        "journal": "a write counts as done when it is in the journal on disk (on a replica set, of a majority)",
        "memory": "a write counts as done when it is in the memory of the primary; a crash may lose the last 100 ms, a fail-over more",
    }[durability["setting"]]
    where = {kind: [name for name, chosen in report["stores"].items() if chosen == kind] for kind in KINDS}
    folder = report["folder"]
    unset = "; CC_DURABILITY is not set, so `run --backtest` uses memory" if durability["source"] == "default" else ""
    rows = {
        "MongoDB": f"{_server(mongo)}\n{mongo['address']}",
        "Redis": f"{_server(cache)}\n{cache['address']}",
        "durability": f"{durability['setting']}: {meaning}{unset}",
        **({"concerns": _concerns(mongo)} if mongo["ok"] else {}),
        "stores": "\n".join(
            f"{kind}: {', '.join(names) if len(names) < len(DOMAINS) else 'all'}" for kind, names in where.items() if names
        ),
    }
    if report["mode"]:
        rows = {"mode": report["mode"], **rows}
    if folder["used"]:
        rows["folder"] = folder["path"] if folder["ok"] else f"FAILED: {folder['error']}"
    if report["lookAhead"] != "off":
        rows["look-ahead"] = f"{report['lookAhead']}: records of a later simulation time are not read"
    if report["history"]:
        rows["history"] = ", ".join(report["history"])
    if report["unknownSettings"]:
        rows["settings"] = "\n".join(
            f"FAILED: {unknown['name']} is unknown; did you mean {unknown['didYouMean']}?" for unknown in report["unknownSettings"]
        )
    if mongo["ok"]:
        missing = report["missingIndexes"]
        rows["indexes"] = f"complete in {len(DOMAINS) - len(missing)} of {len(DOMAINS)} collections"
        if missing:
            rows["indexes"] += "; the next run creates the missing ones, of " + ", ".join(missing)
    if report["packedBlocks"]:
        rows["packed candles"] = f"{counted(report['packedBlocks'], 'block')}; if other tools changed candles, run `candles verify`"
    if report["candleFormat"] == "packed" or report["archivedBlocks"]:
        rows["candle archive"] = (
            f"{counted(report['archivedBlocks'], 'block')} with the only copies of candles, which `candles verify` checks; "
            f"CC_CANDLE_FORMAT is {report['candleFormat']}"
        )
    if "note" in report:
        rows["note"] = report["note"]
    facts(rows)
    if report["problems"]:
        heading(f"Repair these in mongosh, after a backup (use {mongo['database']})")
        for problem in report["problems"]:
            say(f"  {problem['collection']}: {problem['problem']}")
            say(f"    {problem['command']}")
    output.print()
    say("Everything is in order." if report["ok"] else "Something is wrong; see above.")


def _concerns(mongo: Report) -> str:
    """Return the concerns in force, in MongoDB's own words."""
    write = ", ".join(f"{name}: {json.dumps(value)}" for name, value in mongo["writeConcern"].items())
    return f"writes wait for {{{write}}}, reads are {mongo['readConcern'].get('level', 'local, from the primary')}"


def _server(check: Report) -> str:
    if not check["ok"]:
        return f"FAILED: {check['error']}"
    kind = f" ({check['topology']}), database {check['database']}" if "topology" in check else ""
    server = "Valkey " if check.get("server") == "Valkey" else ""
    return f"ok: {server}version {check['version']}{kind}, round trip {check['roundTripUs'] / 1000:.3f} ms"
