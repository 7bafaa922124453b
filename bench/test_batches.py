"""A thousand contexts in one call, compared with a loop of single calls, and the memory that a million cached ids take."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import floor
import memory
from hits import fill
from interleaved import Side
from sample_data import MANY, ROW, filter_of, numbered, redis_key

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistSignalAdapter

ITEMS = [(ROW, *context) for context in MANY]


def raw_batch(plain, wires):
    """Return a function that reads all signals over raw sockets: one MGET for the ids, one find for the documents."""
    get = floor.redis_command("MGET", *map(redis_key, MANY))
    length = len(b"*1000\r\n") + len(MANY) * (len(b"$24\r\n") + 24 + len(b"\r\n"))
    ids = [row["_id"] for row in plain.signals.find({}, {"_id": True})]
    find = floor.find(wires.database, "signal-items", {"_id": {"$in": ids}}, limit=len(ids))
    assert wires.redis.ask(get, length).startswith(b"*1000\r\n$24\r\n")
    assert len(wires.mongo.ask(find)["cursor"]["firstBatch"]) == len(MANY)

    def raw():
        wires.redis.exchange(get, length)
        wires.mongo.exchange(find)

    return raw


def test_read_many(interleaved, library, plain, engine, wires):
    library()
    PersistSignalAdapter.write_many(ITEMS)

    def theirs():
        return [plain.read_signal(*context) for context in MANY]

    assert PersistSignalAdapter.read_many(MANY) == theirs() == [ROW] * len(MANY)
    sides = {
        "ours": Side(lambda: PersistSignalAdapter.read_many(MANY), 5),
        "plain": Side(theirs, 1),
        "floor": Side(raw_batch(plain, wires), 5),
    }
    interleaved("read_many of 1,000, L1 warm", sides, share=0.25)


def test_read_many_cold(interleaved, library, plain, wires):
    """A process without cached ids asks Redis for all of them in one MGET."""
    library(CC_PROCESS_IDS=0)
    PersistSignalAdapter.write_many(ITEMS)
    assert PersistSignalAdapter.read_many(MANY) == [ROW] * len(MANY)
    sides = {"ours": Side(lambda: PersistSignalAdapter.read_many(MANY), 5), "floor": Side(raw_batch(plain, wires), 5)}
    interleaved("read_many of 1,000, L1 cold", sides, share=0.25)


def test_write_many(interleaved, library, plain, wires):
    library()
    messages = []

    def prebuild():
        now = datetime.now(UTC)  # the date changes, since otherwise the server would have nothing to update
        update = {"$set": {"payload": ROW, "updatedDate": now}, "$setOnInsert": {"createDate": now, "__v": 0}}
        updates = [{"q": filter_of(context), "u": update, "upsert": True} for context in MANY]
        messages[:] = [floor.command({"update": "signal-items", "ordered": False, "$db": wires.database}, ("updates", updates))]

    def theirs():
        for context in MANY:
            plain.write_signal(ROW, *context)

    PersistSignalAdapter.write_many(ITEMS)
    assert [row["payload"] for row in plain.signals.find()] == [ROW] * len(MANY)
    prebuild()
    reply = wires.mongo.ask(messages.pop())
    assert (reply["n"], reply["nModified"]) == (len(MANY), len(MANY))
    sides = {
        "ours": Side(lambda: PersistSignalAdapter.write_many(ITEMS), 1),
        "plain": Side(theirs, 1),
        "floor": Side(lambda: wires.mongo.exchange(messages.pop()), 1, prebuild),
    }
    interleaved("write_many of 1,000", sides, share=0.25)


def test_memory(benchmark, settings, plain, request):
    """Measure cached ids in separate processes: those of all contexts, as many as a bound allows, and a dict of tuples."""
    count = 1_000_000 if request.config.getoption("--bursts") > 1 else 10_000
    bound = count // 10
    kit.setup(settings)
    kit.wait_for_init()
    for start in range(0, count, 10_000):
        fill(plain, numbered(start, start + 10_000), dict)

    def growth(reads, *options):
        command = [sys.executable, memory.__file__, str(reads), *options]
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        return int(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)

    def measure():
        idle = growth(bound)  # what reading alone leaves allocated
        values = {"ours": (growth(count, f"--keep={count}") - idle) / count, "dict of tuples": growth(count, "--dict") / count}
        ratios = {"all kept": values["ours"], "bound of 100,000": (growth(count, f"--keep={bound}") - idle) / bound}
        ratios["dict of tuples"] = values["dict of tuples"] / values["ours"]
        return values, ratios

    values, ratios = benchmark.pedantic(measure, rounds=1)
    work = "L1 entry, bytes each of 10^6 contexts"
    benchmark.extra_info.update(work=work, placement="same", where="any core", unit="bytes", rounds=1, values=values, ratios=ratios)
