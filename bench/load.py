"""Read-after-write under load: processes with threads read and write a few hot records and many cold ones, and all results are checked.

Each call is recorded with its start and end, and each written value is unique. Afterwards ``linearizability`` can decide for every record
whether its history could come from a register that runs one operation at a time: no read is stale, and no value comes back after
another one. The same load also runs over pymongo alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import fail_over
import numpy as np
import numpy.typing as npt
import pymongo
import redis
from linearizability import NEVER, NOTHING, OPERATION, violations
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistStateAdapter
from backtest_kit_mongo.errors import BacktestKitError
from backtest_kit_mongo.servers import MongoServer, RedisServer
from backtest_kit_mongo.servers.replica_set import ReplicaSet

WHEN = 1_700_000_000_000
KINDS = ("read", "write", "read batch", "write batch")
Row = dict[str, Any]


class Workload(NamedTuple):
    """What one run does. ``reads`` and ``batches`` are shares; each of the ``batch_size`` records of a batch counts as an operation."""

    processes: int
    threads: int
    contexts: int
    operations: int
    reads: float
    batches: float = 0.02
    batch_size: int = 20


# --- the two sides ---


class Client(Protocol):
    """The access of one process to the records; the value NOTHING means that there is no record."""

    def read(self, key: int) -> int:
        """Return the value of a record."""

    def write(self, key: int, value: int) -> None:
        """Store a value; it is acknowledged on return."""

    def read_many(self, keys: Sequence[int]) -> list[int]:
        """Return the values of some records."""

    def write_many(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Store some values."""


class Ours:
    """State records of this library."""

    def __init__(self, settings: Row) -> None:
        kit.setup(settings)
        kit.wait_for_init(60)
        kit.reset_stats()

    def read(self, key: int) -> int:
        row = PersistStateAdapter.read_state_data("load", f"k{key}")
        return NOTHING if row is None else int(row["v"])

    def write(self, key: int, value: int) -> None:
        PersistStateAdapter.write_state_data({"v": value}, "load", f"k{key}", WHEN)

    def read_many(self, keys: Sequence[int]) -> list[int]:
        rows = PersistStateAdapter.read_many([("load", f"k{key}") for key in keys])
        return [NOTHING if row is None else int(row["v"]) for row in rows]

    def write_many(self, pairs: Sequence[tuple[int, int]]) -> None:
        PersistStateAdapter.write_many([({"v": value}, "load", f"k{key}", WHEN) for key, value in pairs])

    def counts(self) -> Row:
        """Return the counters of the caches."""
        state = kit.stats()["state"]
        return {name: state[name] for name in ("reads", "hits_process", "hits_redis", "misses", "stale", "redis_errors")}


class Plain:
    """The same with pymongo alone: one command per call, on the same unique index."""

    def __init__(self, settings: Row) -> None:
        uri = settings["CC_MONGO_CONNECTION_STRING"]
        self._items = pymongo.MongoClient[Row](f"{uri}{'&' if '?' in uri else '?'}w=majority&journal=true").get_default_database()["plain"]
        self._items.create_index([("signalId", 1), ("bucketName", 1)], unique=True)

    @staticmethod
    def _filter(key: int) -> Row:
        return {"signalId": "load", "bucketName": f"k{key}"}

    def read(self, key: int) -> int:
        row = self._items.find_one(self._filter(key))
        return NOTHING if row is None else int(row["v"])

    def write(self, key: int, value: int) -> None:
        self._items.update_one(self._filter(key), {"$set": {"v": value}}, upsert=True)

    def read_many(self, keys: Sequence[int]) -> list[int]:
        names = {f"k{key}": key for key in keys}
        values = {names[row["bucketName"]]: row["v"] for row in self._items.find({"signalId": "load", "bucketName": {"$in": list(names)}})}
        return [values.get(key, NOTHING) for key in keys]

    def write_many(self, pairs: Sequence[tuple[int, int]]) -> None:
        self._items.bulk_write(
            [pymongo.UpdateOne(self._filter(key), {"$set": {"v": value}}, upsert=True) for key, value in pairs], ordered=False
        )

    def counts(self) -> Row:
        """Return nothing: there are no caches."""
        return {}


SIDES: dict[str, Callable[[Row], Any]] = {"ours": Ours, "pymongo": Plain}


# --- one process ---


class Recorder:
    """The history of one thread."""

    def __init__(self, number: int, client: Client, load: Workload, progress: Any, size: int) -> None:
        self._client, self._load, self._progress = client, load, progress
        self._draw = np.random.default_rng(number)
        self._value = (number + 1) << 40
        self._size = size
        self.number = number
        self.rows: list[tuple[int, bool, int, int, int]] = []
        self.took: tuple[list[int], ...] = ([], [], [], [])
        self.errors: list[str] = []

    def run(self, order: npt.NDArray[np.int64]) -> None:
        """Make ``size`` operations; ``order`` holds keys as often as they are to be used."""
        load, at = self._load, 0
        while len(self.rows) < self._size:
            many = self._draw.random() < load.batches
            count = load.batch_size if many else 1
            if at + count > len(order):
                at = 0
            keys = list(dict.fromkeys(order[at : at + count].tolist()))
            at += count
            (self._read if self._draw.random() < load.reads else self._write)(keys, many)
            self._progress[self.number] = len(self.rows)

    def _read(self, keys: list[int], many: bool) -> None:
        start = time.monotonic_ns()
        try:
            values = self._client.read_many(keys) if many else [self._client.read(keys[0])]
        except (BacktestKitError, PyMongoError) as error:
            self.errors.append(str(error))
            return
        end = time.monotonic_ns()
        self.rows += [(key, False, value, start, end) for key, value in zip(keys, values, strict=True)]
        self.took[2 if many else 0].append(end - start)

    def _write(self, keys: list[int], many: bool) -> None:
        pairs = [(key, self._value + number) for number, key in enumerate(keys, 1)]
        self._value += len(keys)
        start = time.monotonic_ns()
        end = NEVER  # if it fails
        try:
            if many:
                self._client.write_many(pairs)
            else:
                self._client.write(*pairs[0])
            end = time.monotonic_ns()
            self.took[3 if many else 1].append(end - start)
        except (BacktestKitError, PyMongoError) as error:
            self.errors.append(str(error))
        self.rows += [(key, True, value, start, end) for key, value in pairs]


def hot_and_cold(contexts: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw keys by Zipf's law with exponent 1: the second is half as frequent as the first, and so on."""
    weights = np.cumsum(1 / np.arange(1, contexts + 1))
    return np.searchsorted(weights, np.random.default_rng(seed).random(count) * weights[-1])


def work(side: str, process: int, load: Workload, settings: Row, path: str, progress: Any, begin: Any) -> None:
    """Run the threads of a child process and save their history to a file."""
    client = SIDES[side](settings)
    size = load.operations // (load.processes * load.threads)
    numbers = range(process * load.threads, (process + 1) * load.threads)
    recorders = [Recorder(number, client, load, progress, size) for number in numbers]
    orders = [hot_and_cold(load.contexts, max(size, load.batch_size), 1000 + number) for number in numbers]
    threads = [threading.Thread(target=recorder.run, args=(order,)) for recorder, order in zip(recorders, orders, strict=True)]
    begin.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [row for recorder in recorders for row in recorder.rows]
    took = {kind: np.array([ns for recorder in recorders for ns in recorder.took[index]], "i8") for index, kind in enumerate(KINDS)}
    np.savez(path, history=np.array(rows, OPERATION), **took)
    errors = [error for recorder in recorders for error in recorder.errors]
    Path(f"{path}.json").write_text(json.dumps({"counts": client.counts(), "errors": errors}))
    kit.close()


# --- faults ---


class Servers:
    """The servers of a run: one mongod or a replica set, and a Redis."""

    def __init__(self, stack: ExitStack, folder: Path, *, replicated: bool) -> None:
        self.replicas = stack.enter_context(ReplicaSet(folder / "replicas")) if replicated else None
        self.mongo = None if replicated else stack.enter_context(_TestMongo(folder / "mongo"))
        self.cache = stack.enter_context(RedisServer(folder / "redis"))

    def settings(self, database: str, read_concern: str) -> Row:
        """Return the settings for ``setup``."""
        options = {"serverSelectionTimeoutMS": 60_000, "socketTimeoutMS": 60_000, "wtimeoutMS": 40_000, "readConcernLevel": read_concern}
        if self.replicas is not None:
            uri = self.replicas.uri(database, **options)
        else:
            assert self.mongo is not None
            del options["readConcernLevel"]  # a single server has a single value
            uri = f"{self.mongo.uri(database)}?{'&'.join(f'{name}={value}' for name, value in options.items())}"
        return {"CC_MONGO_CONNECTION_STRING": uri, "CC_REDIS_HOST": self.cache.socket, "CC_DURABILITY": "journal"}

    def primary_client(self) -> pymongo.MongoClient[Row]:
        """Return a client of the server that takes writes."""
        server: Any = self.mongo if self.replicas is None else self.replicas.primary
        return pymongo.MongoClient(f"mongodb://{server.socket.replace('/', '%2F')}", directConnection=True, serverSelectionTimeoutMS=10_000)


class _TestMongo(MongoServer):
    """A mongod with fail points."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--setParameter", "enableTestCommands=1"]


class Progressing:
    """The progress of the load, for the faults."""

    def __init__(self, done: Callable[[], int], alive: Callable[[], bool], step: int) -> None:
        self._done, self.alive, self._step = done, alive, step

    def goes_on(self, seconds: float = 120) -> None:
        """Return once more operations are done, or all."""
        goal, until = self._done() + self._step, time.monotonic() + seconds
        while self.alive() and self._done() < goal:
            if time.monotonic() > until:
                raise TimeoutError("the load does not go on")
            time.sleep(0.01)


def flush_redis(servers: Servers, load: Progressing) -> None:
    """Delete all ids in Redis."""
    with redis.Redis(unix_socket_path=servers.cache.socket) as client:
        client.flushall()


def kill_redis(servers: Servers, load: Progressing) -> None:
    """Kill Redis, and start it again empty."""
    servers.cache.kill()
    load.goes_on()
    servers.cache.start()


def poison_redis(servers: Servers, load: Progressing) -> None:
    """Point keys to other records' ids, and to values that are not ids of any record."""
    with redis.Redis(unix_socket_path=servers.cache.socket) as client:
        keys = client.keys("state_cache:*")
        values = client.mget(keys) if keys else []
        random.shuffle(values)
        wrong = {key: random.choice([value or b"none", b"f" * 24, b"garbage"]) for key, value in zip(keys, values, strict=True)}
        if wrong:
            client.mset(wrong)


def cut_connections(servers: Servers, load: Progressing) -> None:
    """Make the server close connections instead of answering, before it runs the command."""
    names = ["find", "findAndModify", "update", "insert"]
    with servers.primary_client() as client:
        client.admin.command("configureFailPoint", "failCommand", mode={"times": 10}, data={"closeConnection": True, "failCommands": names})
        load.goes_on()
        client.admin.command("configureFailPoint", "failCommand", mode="off")


Fault = Callable[[Servers, Progressing], None]
FAULTS: dict[str, Fault] = {
    "redis flushed": flush_redis, "redis killed": kill_redis, "redis poisoned": poison_redis, "connections cut": cut_connections,
}  # fmt: skip


def _of_primaries(fault: Callable[[ReplicaSet, Any], None]) -> Fault:
    def run(servers: Servers, load: Progressing) -> None:
        assert servers.replicas is not None
        fault(servers.replicas, load)
        servers.replicas.await_settled()

    return run


REPLICA_FAULTS: dict[str, Fault] = {**FAULTS, **{f"primary: {name}": _of_primaries(fault) for name, fault in fail_over.FAULTS.items()}}


# --- a run ---


def measured(side: str, load: Workload, servers: Servers, settings: Row, *, faults: bool, console: Console, folder: Path) -> Row:
    """Run one side once; return rates, waits, cache counters, and violations in the history."""
    processes = multiprocessing.get_context("spawn")
    progress = processes.RawArray("q", load.processes * load.threads)
    begin = processes.Barrier(load.processes + 1)
    paths = [str(folder / f"{side}-{number}.npz") for number in range(load.processes)]
    children = [
        processes.Process(target=work, args=(side, number, load, settings, path, progress, begin)) for number, path in enumerate(paths)
    ]
    for child in children:
        child.start()
    begin.wait(120)
    started = time.monotonic()
    met: dict[str, int] = {}
    going = Progressing(lambda: sum(progress), lambda: any(child.is_alive() for child in children), max(200, load.operations // 200))
    chosen = list((REPLICA_FAULTS if servers.replicas is not None else FAULTS).items())
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(f"{side}, {load.reads:.0%} reads", total=load.operations)
        shown = threading.Thread(target=_show, args=(bar, task, going, progress), daemon=True)
        shown.start()
        for name, fault in itertools.cycle(chosen) if faults else ():
            going.goes_on()
            if not going.alive() or sum(progress) > 0.97 * load.operations:
                break
            fault(servers, going)
            met[name] = met.get(name, 0) + 1
        for child in children:
            child.join()
    seconds = time.monotonic() - started
    if any(child.exitcode for child in children):
        raise RuntimeError(f"a process of the load ended with {[child.exitcode for child in children]}")
    return _summary(side, load, paths, seconds, met)


def _show(bar: Progress, task: Any, going: Progressing, progress: Any) -> None:
    while going.alive():
        bar.update(task, completed=sum(progress))
        time.sleep(0.2)


def _summary(side: str, load: Workload, paths: Sequence[str], seconds: float, met: dict[str, int]) -> Row:
    files = [np.load(path) for path in paths]
    history = np.concatenate([file["history"] for file in files])
    reports = [json.loads(Path(f"{path}.json").read_text()) for path in paths]
    errors = [error for report in reports for error in report["errors"]]
    counts: dict[str, int] = {}
    for report in reports:
        for name, value in report["counts"].items():
            counts[name] = counts.get(name, 0) + value
    bad = list(itertools.islice(violations(history), 1000))
    latency = {kind: _percentiles(np.concatenate([file[kind] for file in files])) for kind in KINDS}
    return {
        "side": side, "reads": load.reads, "operations": len(history), "perSecond": round(len(history) / seconds), "latencyUs": latency,
        "counts": counts, "failed": len(errors), "faults": met, "violations": len(bad),
        "worst": str(min(bad, key=lambda one: len(one.operations))) if bad else None, "errors": sorted(set(errors))[:3],
    }  # fmt: skip


def _percentiles(ns: npt.NDArray[np.int64]) -> dict[str, float] | None:
    if not len(ns):
        return None
    return {f"p{share:g}": round(float(np.percentile(ns, share)) / 1000, 1) for share in (50, 99, 99.9)}


def _rows(row: Row) -> Iterator[str]:
    counts, latency = row["counts"], row["latencyUs"]
    asked = counts.get("reads") or 1
    yield from (row["side"], f"{row['reads']:.0%}", f"{row['operations']:,}", f"{row['perSecond']:,}")
    for kind in KINDS:
        percentiles = latency[kind]
        yield "" if percentiles is None else " / ".join(f"{value / 1000:,.2f}" for value in percentiles.values())
    hits = [counts.get(name, 0) / asked for name in ("hits_process", "hits_redis", "misses")]
    yield " / ".join(f"{share:.1%}" for share in hits) if counts else ""
    yield f"{sum(row['faults'].values())}"
    yield f"{row['failed']:,}"
    yield f"{row['violations']:,}"


def main() -> None:
    """Print the table; exit with 1 if a history of this library is not linearizable, or a call failed without a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", choices=["standalone", "replica-set"], default="standalone")
    parser.add_argument("--read-concern", choices=["local", "majority", "linearizable"], default="linearizable", help="on a replica set")
    parser.add_argument("--faults", action="store_true", help="let things go wrong all the time")
    parser.add_argument("--operations", type=int, default=200_000, help="of each run (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="of each process")
    parser.add_argument("--contexts", type=int, default=10_000, help="records (default: %(default)s)")
    parser.add_argument("--reads", type=float, action="append", help="share of reads; can be given several times (default: 0.95, 0.8, 0.5)")
    parser.add_argument("--side", choices=list(SIDES), action="append", help="only this one")
    parser.add_argument("--smoke", action="store_true", help="a few thousand operations, to show that it runs")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.operations, arguments.processes, arguments.contexts, arguments.reads = 6000, 2, 500, [0.8]
    console = Console(stderr=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = Servers(stack, Path(folder), replicated=arguments.servers == "replica-set")
        for number, (reads, side) in enumerate(itertools.product(arguments.reads or [0.95, 0.8, 0.5], arguments.side or SIDES)):
            load = Workload(arguments.processes, arguments.threads, arguments.contexts, arguments.operations, reads)
            settings = servers.settings(f"load{number}", arguments.read_concern)
            with suppress(RedisError), redis.Redis(unix_socket_path=servers.cache.socket) as client:
                client.flushall()
            rows.append(measured(side, load, servers, settings, faults=arguments.faults, console=console, folder=Path(folder)))
    names = [
        "",
        "reads",
        "operations",
        "per s",
        *(f"{kind}, ms" for kind in KINDS),
        "process / Redis / miss",
        "faults",
        "failed",
        "violations",
    ]
    table = Table(*names, box=None, caption="waits: p50 / p99 / p99.9")
    for row in rows:
        table.add_row(*_rows(row))
    Console(width=220).print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"arguments": {**vars(arguments), "json": None}, "cores": os.cpu_count(), "runs": rows}, indent=2)
        )
    for row in rows:
        if row["worst"]:
            console.print(f"{row['side']}: {row['worst']}")
        for error in row["errors"]:
            console.print(f"{row['side']}: {error}")
    own_rows = [row for row in rows if row["side"] == "ours"]
    sys.exit(any(row["violations"] or (row["failed"] and not arguments.faults) for row in own_rows))


if __name__ == "__main__":
    main()
