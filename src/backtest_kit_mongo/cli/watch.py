"""``stats --watch``: show what is stored, what the servers do and what runs on this machine do, repeatedly until Ctrl-C."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.text import Text

from ..contracts.default_registry import default_registry
from ..domains import DOMAINS
from ..errors import BacktestKitError
from ..observability.text_tables import size
from .command import ServerOptions
from .output import counted, heading, output, say, server_addresses, table
from .records import Record, load_last_run, load_running, plain, run_text
from .stored import documents, mongodb_work, redis_ids, redis_work

__all__ = ["watch"]

# Counting ids by domain scans every key in Redis. If there are more keys than this, only their number is shown.
_KEYS_LOOKED_AT = 100_000

Look = dict[str, Any]
Rate = Callable[..., float | None]


def watch(server_options: ServerOptions, interval: float, as_json: bool) -> None:
    """Show an update every ``interval`` seconds until KeyboardInterrupt, which is the normal end and not an error."""
    try:
        server_options.connect()
        # A server that does not answer must not keep the others from being shown.
        timeout = min(server_options.timeout, max(1.0, interval))
        before: Look | None = None
        while True:
            look = _look(timeout)
            text = json.dumps(_plain(look)) + "\n" if as_json else _rendered(look, before, interval)
            output.file.write(text)
            output.file.flush()
            before = look
            time.sleep(interval)
    except KeyboardInterrupt:
        return


def _look(timeout: float) -> Look:
    return {
        "time": time.time(),
        "mongodb": _asked(lambda: {"domains": documents(timeout), "work": mongodb_work(timeout)}),
        "redis": _asked(lambda: _redis(timeout)),
        "running": load_running(),
        "lastRun": load_last_run(),
    }


def _asked(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the answer of a server, or its error."""
    try:
        return ask()
    except BacktestKitError as error:
        return {"error": str(error).splitlines()[0]}


def _redis(timeout: float) -> dict[str, Any]:
    work = redis_work(timeout)
    few = work is not None and work["keys"] <= _KEYS_LOOKED_AT
    return {"ids": redis_ids(timeout) if few else None, "work": work}


def _plain(look: Look) -> Look:
    """Return an update for JSON."""
    last = look["lastRun"]
    return {**look, "running": [plain(record) for record in look["running"]], "lastRun": None if last is None else plain(last)}


def _rendered(look: Look, before: Look | None, interval: float) -> str:
    """Return an update as text, with rates since the one before; on a terminal it clears the screen first."""
    with output.capture() as shown:
        if output.is_terminal:
            output.clear()
        stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(look["time"]))
        say(f"{stamp}, every {interval:g} s until Ctrl-C")
        _show_stored(look, before)
        _show_work(look, before)
        for record in look["running"]:
            heading(f"Running: {run_text(record)}")
            _show_speed(record, before)
            say(record["report"].table(output.width))
        if not look["running"]:
            last = look["lastRun"]
            heading("No run is active on this machine")
            say("the last run: none is recorded" if last is None else f"the last run, {last['saved']}: {run_text(last)}")
        say("")
    return shown.get()


def _rate(look: Look, before: Look | None, *path: str) -> float | None:
    """Return how much a number of an update grew per second; None if one of the two updates does not have it."""
    now, then = _at(look, path), _at(before, path)
    if before is None or now is None or then is None:
        return None
    return float((now - then) / max(look["time"] - before["time"], 1e-3))


def _at(look: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        look = look.get(name) if isinstance(look, Mapping) else None
    return look


def _per_second(rate: float | None, *, of_bytes: bool = False) -> str:
    if rate is None or (of_bytes and rate < 0):
        return "-"
    return size(rate) if of_bytes else f"{rate:+,.1f}" if rate else "0"


def _show_stored(look: Look, before: Look | None) -> None:
    addresses = server_addresses(default_registry.mongo.config)
    heading("Stored")
    for title, name in (("MongoDB", "mongodb"), ("Redis", "redis")):
        error = look[name].get("error")
        if error is None:
            say(f"{title} {addresses[title]}")
        else:
            output.print(Text.assemble((f"{title} {addresses[title]}: ", "bold red"), error), soft_wrap=True)
    rows = []
    for name in DOMAINS:
        stored, ids = ("mongodb", "domains", name), ("redis", "ids", name)
        count, cached, data = _at(look, (*stored, "documents")), _at(look, ids), _at(look, (*stored, "dataBytes"))
        if count or cached:
            rows.append(
                (
                    name,
                    "-" if count is None else f"{count:,}",
                    _per_second(_rate(look, before, *stored, "documents")),
                    "-" if data is None else size(data),
                    "-" if cached is None else f"{cached:,}",
                    _per_second(_rate(look, before, *ids)),
                )
            )
    if rows:
        table(("domain", "documents", "per s", "data", "ids in Redis", "per s"), rows, left=("domain",))


def _show_work(look: Look, before: Look | None) -> None:
    """Show what the servers did for all their clients between two updates."""
    heading("Servers, per second, all clients")
    for title, name, counts, weights in (
        ("MongoDB", "mongodb", ("query", "getmore", "insert", "update", "delete", "command"), ("bytesReceived", "bytesSent")),
        ("Redis", "redis", ("hits", "misses", "commands"), ()),
    ):
        if "error" in look[name]:
            say(f"{title}: away")
        elif look[name]["work"] is None:
            say(f"{title}: this user lacks the permission to ask")
        else:
            rates = [f"{count} {_number(_rate(look, before, name, 'work', count))}" for count in counts]
            rates += [f"{weight} {_per_second(_rate(look, before, name, 'work', weight), of_bytes=True)}" for weight in weights]
            say(f"{title}: {', '.join(rates)}")
    work = _at(look, ("redis", "work"))
    if work is not None:
        say(f"Redis holds {counted(work['keys'], 'key')}, {size(work['memoryBytes'])}")


def _number(rate: float | None) -> str:
    return "-" if rate is None or rate < 0 else f"{rate:,.1f}"


def _show_speed(record: Record, before: Look | None) -> None:
    """Show how fast a run is now: between its latest counters and those of the update before."""
    run, report = record["run"], record["report"]
    earlier = next((other for other in (before or {}).get("running", ()) if other["run"]["pid"] == run["pid"]), None)
    seconds = report.seconds - earlier["report"].seconds if earlier is not None else 0.0
    if earlier is None or seconds <= 0:
        return
    minutes = (run.get("minutes", 0) - earlier["run"].get("minutes", 0)) / seconds
    reads, writes = (
        (sum(row[count] for row in report.domains.values()) - sum(row[count] for row in earlier["report"].domains.values())) / seconds
        for count in ("reads", "writes")
    )
    say(f"now: {minutes:,.0f} minutes, {reads:,.0f} reads, {writes:,.0f} writes per second")
