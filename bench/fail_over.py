"""Measure the cost of a fail-over: a load on a real replica set while its primary is killed, steps down, is paused or is cut off.

Counts what must not happen (lost acknowledged writes, reads older than an acknowledged write, failed calls), and measures the longest
wait of a single-record write, next to a thread that does the same with pymongo alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pymongo
from rich.console import Console
from rich.progress import track
from rich.table import Table

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistCandleAdapter, PersistLogAdapter, PersistMemoryAdapter, PersistStateAdapter
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError
from backtest_kit_mongo.servers import RedisServer
from backtest_kit_mongo.servers.replica_set import ReplicaSet

WHEN = 1_700_000_000_000
MINUTE = 60_000
ROWS = 30
"""Records of one batch."""
MORE = 10
"""How often each way must have written before the load counts as going on."""


def candles(first: int, count: int) -> list[dict[str, float]]:
    """Return candles that open at consecutive minutes from ``first`` on."""
    prices = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 1.0}
    return [{"timestamp": (first + number) * MINUTE, **prices} for number in range(count)]


class Load:
    """Threads that write increasing numbers, each in its own way, and threads that read them while the block runs.

    ``kept[way]`` is the last acknowledged number. A read that begins after that must return it or a later one.
    """

    WAYS = ("one", "many", "candles", "log", "removed")

    def __init__(self, plain: pymongo.MongoClient[dict[str, Any]] | None = None, pause: float = 0.0) -> None:
        """``plain``: a client for one more writing thread without this library. ``pause``: seconds between the calls of a thread."""
        self.kept = dict.fromkeys(self.WAYS, 0)
        self.reads = 0
        self.failed: list[tuple[str, str]] = []
        self.wrong: list[tuple[str, int]] = []
        self.plain_failed: list[str] = []
        self.longest = self.plain_longest = 0.0
        self._plain = plain
        self._pause = pause
        self._stop = threading.Event()
        work: list[Callable[[], None]] = [lambda way=way: self._write(way) for way in self.WAYS]  # type: ignore[misc]
        work += [self._read] * 2
        if plain is not None:
            work.append(self._write_plainly)
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]

    @staticmethod
    def write(way: str, number: int) -> None:
        """Write ``number`` in one way."""
        if way == "one":
            PersistStateAdapter.write_state_data({"n": number}, "one", "b", WHEN)
        elif way == "many":
            PersistStateAdapter.write_many([({"n": number}, "many", f"{row}", WHEN) for row in range(ROWS)])
        elif way == "candles":
            PersistCandleAdapter.write_candles_data(candles(number * 5, 5), "S", "1m", "e")
        elif way == "log":
            PersistLogAdapter.write_log_data([{"id": f"{number}", "type": "info", "message": "m", "timestamp": number}])
        else:
            PersistMemoryAdapter.write_memory_data({"n": number}, "s", "b", f"m{number}", WHEN)
            PersistMemoryAdapter.remove_memory_data("s", "b", f"m{number}")

    @staticmethod
    def seen(way: str, number: int) -> bool:
        """Return whether ``number``, or a later one, can be read in this way."""
        if way == "one":
            return bool(PersistStateAdapter.read_state_data("one", "b")["n"] >= number)
        if way == "many":
            return all(row["n"] >= number for row in PersistStateAdapter.read_many([("many", f"{row}") for row in range(ROWS)]))
        if way == "candles":
            return PersistCandleAdapter.read_candles_array("S", "1m", "e", 5, number * 5 * MINUTE) is not None
        if way == "log":
            return f"{number}" in {row["id"] for row in PersistLogAdapter.read_log_data(limit=20)}
        return PersistMemoryAdapter.read_memory_data("s", "b", f"m{number}") is None

    def lost(self) -> list[tuple[str, int]]:
        """Return acknowledged numbers that cannot be read (only the last one of a way that overwrites), from MongoDB, not caches."""
        default_registry.mongo.drop_cache()
        numbers = {way: range(self.kept[way], 0, -1) if way in ("candles", "removed") else [self.kept[way]] for way in self.WAYS}
        log = {row["id"] for row in PersistLogAdapter.read_log_data(limit=None)}
        missing = [("log", number) for number in range(1, self.kept["log"] + 1) if f"{number}" not in log]
        return missing + [(way, number) for way, chosen in numbers.items() for number in chosen if number and not self.seen(way, number)]

    def _timed(self, call: Callable[[], Any], way: str) -> bool:
        began = time.monotonic()
        try:
            call()
        except BacktestKitError as error:
            self.failed.append((way, str(error)))
            return False
        finally:
            if way == "one":  # as for pymongo
                self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(self._pause)
        return True

    def _write(self, way: str) -> None:
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            if self._timed(lambda number=number: self.write(way, number), way):  # type: ignore[misc]
                self.kept[way] = number

    def _read(self) -> None:
        while not self._stop.is_set():
            way = random.choice(self.WAYS)
            number = self.kept[way]

            def look(way: str = way, number: int = number) -> None:
                if number and not self.seen(way, number):
                    self.wrong.append((way, number))

            self.reads += self._timed(look, f"read {way}")

    def _write_plainly(self) -> None:
        assert self._plain is not None
        items = self._plain.get_default_database()["plain"]
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            began = time.monotonic()
            try:
                items.find_one_and_update({"key": "one"}, {"$set": {"n": number}}, upsert=True)
            except pymongo.errors.PyMongoError as error:
                self.plain_failed.append(str(error))
            self.plain_longest = max(self.plain_longest, time.monotonic() - began)

    def goes_on(self, seconds: float = 120) -> None:
        """Return once each way has written ten more numbers and has been read."""
        before, reads = dict(self.kept), self.reads
        until = time.monotonic() + seconds
        while any(self.kept[way] < before[way] + MORE for way in before) or self.reads < reads + 2 * MORE:
            if time.monotonic() > until:
                raise TimeoutError(f"the load does not go on: {before} before, {self.kept} after {seconds} s; {self.failed[-3:]}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        if any(thread.is_alive() for thread in self._threads):
            raise TimeoutError("a thread of the load hangs")


# --- faults of the primary ---


def kill(replicas: ReplicaSet, load: Load) -> None:
    """Kill the primary, and start it again once another member has taken over."""
    former = replicas.kill_primary()
    replicas.await_primary()
    load.goes_on()
    former.start(120)


def step_down(replicas: ReplicaSet, load: Load) -> None:
    """Make the primary step down."""
    replicas.step_down()
    load.goes_on()


def pause(replicas: ReplicaSet, load: Load) -> None:
    """Pause the primary until another is elected; it does not know that when it resumes."""
    former = replicas.primary
    former.pause()
    try:
        replicas.await_primary(other_than=former)
    finally:
        former.resume()
    load.goes_on()


def partition(replicas: ReplicaSet, load: Load) -> None:
    """Run two primaries for some seconds: the former one is cut off from the others and still answers."""
    with replicas.partition():
        load.goes_on()


FAULTS: dict[str, Callable[[ReplicaSet, Load], None]] = {"kill": kill, "step-down": step_down, "pause": pause, "partition": partition}


def measured(fault: str, rounds: int, folder: Path, console: Console) -> dict[str, Any]:
    """Measure a fault over so many rounds."""
    waits: list[tuple[float, float]] = []
    with (
        ReplicaSet(folder / "replicas", election_timeout=3 if fault == "partition" else 1) as replicas,
        RedisServer(folder / "redis") as cache,
    ):
        kit.setup(
            CC_MONGO_CONNECTION_STRING=replicas.uri("load", serverSelectionTimeoutMS=60_000, socketTimeoutMS=60_000, wtimeoutMS=40_000),
            CC_REDIS_HOST=cache.socket,
            CC_DURABILITY="journal",
        )
        kit.wait_for_init()
        with (
            pymongo.MongoClient(replicas.uri("load", w="majority", journal="true", serverSelectionTimeoutMS=60_000)) as plain,
            Load(plain) as load,
        ):
            load.goes_on()
            for _ in track(range(rounds), fault, console=console):
                load.longest = load.plain_longest = 0.0
                FAULTS[fault](replicas, load)
                replicas.await_settled()
                waits.append((load.longest, load.plain_longest))
            load.goes_on()
        lost = load.lost()
        kit.close()
    ours, others = zip(*waits, strict=True)
    return {
        "fault": fault,
        "rounds": rounds,
        "acknowledged": sum(load.kept.values()),
        "reads": load.reads,
        "lost": len(lost),
        "old reads": len(load.wrong),
        "failed": len(load.failed),
        "failed, pymongo": len(load.plain_failed),
        "longest wait, s": round(statistics.median(ours), 2),
        "pymongo, s": round(statistics.median(others), 2),
        "ratio": round(statistics.median(one / other for one, other in waits), 2),
        "examples": {"lost": lost[:3], "old": load.wrong[:3], "failed": load.failed[:3], "pymongo": load.plain_failed[:3]},
    }


def main() -> None:
    """Print the table; exit with 1 if anything was lost or old, or failed more often than with pymongo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="of each fault (default: %(default)s)")
    parser.add_argument("--fault", choices=list(FAULTS), action="append", help="only this one; can be given several times")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    rows = []
    for fault in arguments.fault or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measured(fault, arguments.rounds, Path(folder), console))
    names = [name for name in rows[0] if name != "examples"]
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(*(f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for name in names))
    Console(width=150).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    bad = [row for row in rows if row["lost"] or row["old reads"] or row["failed"] > row["failed, pymongo"]]
    for row in bad:
        console.print(row["examples"])
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
