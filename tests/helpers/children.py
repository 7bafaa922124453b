"""Tasks of the child processes in the concurrency tests, one task per process.

Protocol: the child reads one line of JSON with settings, task and arguments, and prints ``ready``. On ``go`` it does its task and
prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import struct
import sys
import threading
import time
import warnings

import pymongo

import backtest_kit_mongo as kit
from backtest_kit_mongo._core.keys import redis_command
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import add_risk
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.engine.position import open_position, read_signal
from backtest_kit_mongo.runner.engine.risk import RiskBook
from backtest_kit_mongo.runner.engine.rows import RunContext

WHEN = 1_700_000_000_000
MINUTE = 60_000


def in_threads(count, work):
    """Run ``work(number)`` in threads that start at the same moment; return the errors as text."""
    barrier, errors = threading.Barrier(count), []

    def run(number):
        barrier.wait()
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - the test wants to see every kind of error
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def first_upserts(number, threads, keys):
    """Upsert new keys one after the other, each from many threads at once."""
    errors = []
    for key in range(keys):
        errors += in_threads(
            threads, lambda thread, key=key: kit.PersistSignalAdapter.write_signal_data({"by": [number, thread]}, f"S{key}", "s", "e")
        )
        answer = kit.PersistSignalAdapter.read_signal_data(f"S{key}", "s", "e")
        if answer is None:
            errors.append(f"S{key} is not there after the write")
    return {"errors": errors}


def first_write(number, domains):
    """Do the first write of this process in each domain, and check that the unique index exists right after it."""
    missing = []
    with pymongo.MongoClient(kit.get_config().CC_MONGO_CONNECTION_STRING) as client:
        database = client.get_default_database()
        writes = {
            "signal": lambda: kit.PersistSignalAdapter.write_signal_data({}, "S", "s", "e"),
            "memory": lambda: kit.PersistMemoryAdapter.write_memory_data({}, "s", "b", f"m{number}", WHEN),
            "state": lambda: kit.PersistStateAdapter.write_many([({}, f"{number}", f"{index}", WHEN) for index in range(5)]),
            "log": lambda: kit.PersistLogAdapter.write_log_data([{"id": "one"}, {"id": f"of {number}"}]),
            "storage": lambda: kit.PersistStorageAdapter.write_storage_data([{"id": "one"}], True),
            "measure": lambda: kit.PersistMeasureAdapter.remove_measure_data("bucket", "never written"),
            "candle": lambda: kit.PersistCandleAdapter.write_candles_data(
                [{"timestamp": 0, "open": 1, "high": 1, "low": 1, "close": 1, "volume": number}], "S", "1m", "e"
            ),
        }
        for name in domains:
            writes[name]()
            indexes = database[f"{name}-items"].list_indexes()
            if not any(index.get("unique") for index in indexes):
                missing.append(name)
    return {"missing": missing}


def overlapping_candles(number, rounds, total, width):
    """Write windows of candles at random positions, all at this process's own price."""
    draw = random.Random(number)
    price = 100.0 + number
    for _ in range(rounds):
        first = draw.randrange(total - width)
        kit.PersistCandleAdapter.write_candles_data(
            [
                {"timestamp": stamp * MINUTE, "open": price, "high": price, "low": price, "close": price, "volume": float(stamp)}
                for stamp in range(first, first + width)
            ],
            "BTCUSDT",
            "1m",
            "binance",
        )
        window = kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", width, first * MINUTE, 0)
        if window is None or [row["volume"] for row in window] != list(range(first, first + width)):
            return {"errors": [f"the window from {first} is not there after the write"]}
    return {"errors": []}


def published(number, path, of, seconds):
    """Write a record, publish its number, and require of all others at least what they have published before."""
    errors, reads, writes = [], 0, 0
    least = [0] * of
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8 * of) as board:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline + (60 if writes <= 20 else 0):  # a busy machine has time for some writes
            writes += 1
            kit.PersistStateAdapter.write_state_data({"n": writes}, "shared", f"p{number}", WHEN)
            struct.pack_into("<q", board, 8 * number, writes)
            order = [struct.unpack_from("<q", board, 8 * other)[0] for other in range(of)]
            single = [kit.PersistStateAdapter.read_state_data("shared", f"p{other}") for other in range(of)]
            batch = kit.PersistStateAdapter.read_many([("shared", f"p{other}") for other in range(of)])
            reads += 2 * of
            for answer in (single, batch):
                for other, row in enumerate(answer):
                    seen = 0 if row is None else row["n"]
                    if seen < max(order[other], least[other]):
                        errors.append(f"p{number} read {seen} of p{other} after {max(order[other], least[other])}")
                    least[other] = max(least[other], seen)
    return {"errors": errors, "reads": reads, "writes": writes, "stats": kit.stats()["state"]}


def ring(number, rounds):
    """Pass a token around: read what the predecessor wrote, write the next number, pass it on (through the parent)."""
    errors = []
    for _ in range(rounds):
        token = int(sys.stdin.readline())
        row = kit.PersistSignalAdapter.read_signal_data("token", "s", "e")
        if (0 if row is None else row["n"]) != token:
            errors.append(f"{row} instead of {token}")
        kit.PersistSignalAdapter.write_signal_data({"n": token + 1, "by": number}, "token", "s", "e")
        print(token + 1, flush=True)
    return {"errors": errors}


def count_up(number, rounds):
    """Add one, ``rounds`` times, to a number that other processes increment as well."""

    def more(state):
        return {"n": (state or {"n": 0})["n"] + 1}

    for _ in range(rounds):
        kit.PersistStateAdapter.update(("count", "b"), more, WHEN)
    return {}


def one_holder(number, rounds, marker):
    """Take the only slot of a risk limit, check whether somebody else holds it, and release it; try again while it is taken."""
    add_risk("one", max_positions=1)
    context = RunContext(f"S{number}", "rival", "e", "", "one", WHEN, WHEN, Costs(), backtest=False)
    book = RiskBook(context, default_registry)
    signal = read_signal({"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 90.0, "minuteEstimatedTime": 60}, 100.0)
    position = open_position("id", signal, 100.0, WHEN, 100.0)
    held = refused = together = lost = 0
    while held < rounds:
        if book.reserve(position, 100.0, WHEN) is not None:
            refused += 1
            continue
        held += 1
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            together += 1
        book.store(position, WHEN)  # as on opening
        pairs = kit.PersistRiskAdapter.read_position_data("one", "e", WHEN)
        lost += [key for key, _ in pairs] != [context.risk_key]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(marker)
        book.store(None, WHEN)
    return {"held": held, "refused": refused, "together": together, "lost": lost}


def _sockets():
    collected = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                collected.add(target)
    return collected


def _identity():
    """Return the servers' connection ids of this thread: that of MongoDB and that of the id cache."""
    store = default_registry.mongo
    return [kit.get_mongo().client.admin.command("hello")["connectionId"], store.redis_ids._send(redis_command(b"CLIENT", b"ID"), False)]


def _in_child(work, seconds=60.0):
    """Fork and run ``work``; return its answer, or an error if the child raised, hung or died."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - the parent must see it
            answer = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write_end, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(write_end)
    os.set_blocking(read_end, False)
    text, deadline = b"", time.monotonic() + seconds
    while True:
        with contextlib.suppress(BlockingIOError):
            part = os.read(read_end, 65536)
            if not part:
                break
            text += part
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            text = b'{"error": "hangs"}'
            break
        time.sleep(0.005)
    os.close(read_end)
    os.waitpid(pid, 0)
    return json.loads(text or b'{"error": "died"}')


def fork_after_use(number):
    """Parent and child continue after a fork, at the same time, on connections of their own."""
    adapter = kit.PersistSignalAdapter
    adapter.write_signal_data({"of": "parent"}, "before", "s", "e")
    adapter.write_many([({"n": index}, f"S{index}", "s", "e") for index in range(100)])
    parent, inherited = _identity(), _sockets()
    stop, errors = threading.Event(), []

    def go_on():
        step = 0
        while not stop.is_set():
            step += 1
            adapter.write_signal_data({"n": step}, "parent", "s", "e")
            default_registry.mongo.process_ids.clear()
            if adapter.read_signal_data("parent", "s", "e") != {"n": step}:
                errors.append(f"the parent lost step {step}")

    def child():
        wrong = []
        for step in range(100):
            adapter.write_signal_data({"n": step}, "child", "s", "e")
            default_registry.mongo.process_ids.clear()
            if adapter.read_signal_data("child", "s", "e") != {"n": step}:
                wrong.append(step)
        many = adapter.read_many([(f"S{index}", "s", "e") for index in range(100)])
        return {
            "wrong": wrong,
            "before": adapter.read_signal_data("before", "s", "e"),
            "many": many == [{"n": index} for index in range(100)],
            "identity": _identity(),
            "new sockets": len(_sockets() - inherited),
        }

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        answer = _in_child(child)
    finally:
        stop.set()
        thread.join()
    after = adapter.read_signal_data("child", "s", "e")
    return {"child": answer, "errors": errors, "parent": [parent, _identity()], "after": after}


def fork_and_close(number):
    """A child that closes the library, or exits at once, leaves the parent's connections alone."""
    adapter = kit.PersistSignalAdapter
    adapter.write_signal_data({"n": 0}, "S", "s", "e")
    parent = _identity()

    def closing():
        adapter.read_signal_data("S", "s", "e")
        kit.close()
        return {}

    answers = [_in_child(closing), _in_child(lambda: kit.close() or {}), _in_child(dict)]
    adapter.write_signal_data({"n": 1}, "S", "s", "e")
    return {"answers": answers, "read": adapter.read_signal_data("S", "s", "e"), "parent": [parent, _identity()]}


def fork_while_in_use(number, forks, threads):
    """Fork while other threads are in the middle of calls: no child inherits a lock that is never released."""
    stop, errors = threading.Event(), []

    def busy(thread):
        step = 0
        while not stop.is_set():
            step += 1
            kit.PersistStateAdapter.write_state_data({"n": step}, "busy", f"t{thread}", WHEN)
            if step % 10 == 0:
                default_registry.mongo.drop_cache()
            row = kit.PersistStateAdapter.read_state_data("busy", f"t{thread}")
            if row != {"n": step}:
                errors.append(f"thread {thread} read {row} at {step}")

    def child():
        kit.PersistStateAdapter.write_state_data({"pid": os.getpid()}, "child", "c", WHEN)
        kit.PersistRiskAdapter.write_position_data([["p", {}]], "first write of this domain", "e", WHEN)
        return kit.PersistStateAdapter.read_state_data("child", "c") == {"pid": os.getpid()}

    workers = [threading.Thread(target=busy, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    try:
        answers = [_in_child(child) for _ in range(forks)]
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    return {"answers": answers, "errors": errors}


def fork_during_the_index_build(number, marker):
    """Fork while another thread waits for its first write: the parent prints ``frozen?`` and continues when told that MongoDB is frozen."""
    kit.PersistSignalAdapter.read_signal_data("S", "s", "e")
    print("frozen?", flush=True)
    sys.stdin.readline()
    writer = threading.Thread(target=kit.PersistSignalAdapter.write_signal_data, args=({}, "S", "s", "e"))
    writer.start()
    time.sleep(0.5)  # the writer is now creating the indexes

    def child():
        with open(marker, "w"):  # tells the test to let MongoDB continue
            pass
        kit.PersistRiskAdapter.write_position_data([["p", {}]], "r", "e", WHEN)
        return kit.PersistRiskAdapter.read_position_data("r", "e", WHEN)

    answer = _in_child(child)
    writer.join()
    return {"answer": answer}


def main():
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads
    order = json.loads(sys.stdin.readline())
    kit.setup(order["settings"])
    print("ready", flush=True)
    sys.stdin.readline()
    answer = globals()[order["task"]](order["number"], **order["arguments"])
    print(json.dumps(answer), flush=True)
    kit.close()
