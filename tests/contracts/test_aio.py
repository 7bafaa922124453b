"""The async API: the whole contract suite through it, and its own concerns: many tasks, cancellation, loops, threads, forks.

The contracts are those of ``test_contracts``, with ``kit`` replaced by the async API and each call in its own loop.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from contextlib import aclosing, suppress
from types import SimpleNamespace

import numpy as np
import pymongo
import pytest
import test_contracts as contracts
from served_stores import serving

import backtest_kit_mongo as kit
from backtest_kit_mongo import aio
from backtest_kit_mongo.aio import base
from backtest_kit_mongo.contract_names import PLAIN
from backtest_kit_mongo.contracts.adapter_base import AdapterBase, InstanceBase
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.contracts.contract import Contract
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.simulation import current_time
from backtest_kit_mongo.stores.mongo import index_checks

pytestmark = pytest.mark.once  # independent of the wire protocol

CONTEXTS = [(f"S{number}", "sma", "binance") for number in range(1000)]
SIGNAL = aio.PersistSignalAdapter
START, MINUTE = 1_700_000_040_000, 60_000


# --- the contract suite ---


class Waited:
    """A part of the async API with methods that block until they are done."""

    def __init__(self, face):
        self.face = face

    def __repr__(self):
        return repr(self.face.sync)

    def __getattr__(self, name):
        value = getattr(self.face, name)
        return waited(value) if inspect.isroutine(value) else value


def waited(function):
    """Return a plain function for a coroutine or async generator function."""

    def call(*arguments, **options):
        async def main():
            answer = function(*arguments, **options)
            return [item async for item in answer] if inspect.isasyncgen(answer) else await answer

        answer = function(*arguments, **options) if not is_async(function) else asyncio.run(main())
        return iter(answer) if iterates(function) else answer

    return call


def is_async(function):
    return inspect.iscoroutinefunction(function) or iterates(function)


def iterates(function):
    """Return whether it returns an async iterator. (Not a generator function: it reads the context at its call, not at the first step.)"""
    return function.__name__.startswith("list_") or function.__name__ == "keys"


def instance_class(sync):
    """Return a class that makes async instances, and from which custom synchronous classes derive."""

    class Made(sync):
        def __new__(cls, *context):
            return Waited(getattr(aio, sync.__name__)(*context)) if cls is Made else object.__new__(cls)

    return Made


def public(name):
    value = getattr(aio, name)
    if name.endswith("Adapter"):
        return Waited(value)
    if name.endswith("Instance"):
        return instance_class(getattr(kit, name))
    return waited(value) if inspect.isroutine(value) else value


@pytest.fixture
def through_aio(monkeypatch):
    monkeypatch.setattr(contracts, "kit", SimpleNamespace(**{name: public(name) for name in kit.__all__}))


@pytest.fixture(params=["mongo", "memory"])
def store(request):
    """As in conftest.py, without files: they use a thread like MongoDB, so they would show nothing more."""
    with serving(request.param, request) as name:
        yield name


for _name, _test in vars(contracts).items():
    if _name.startswith("test_"):
        globals()[_name] = pytest.mark.usefixtures("through_aio")(_test)


# --- names ---


def test_every_name_of_the_package_is_there():
    assert set(kit.__all__) < set(aio.__all__)
    for name in kit.__all__:
        mine, theirs = getattr(aio, name), getattr(kit, name)
        if isinstance(theirs, AdapterBase):
            assert mine.sync is theirs
        elif isinstance(theirs, type) and issubclass(theirs, InstanceBase):
            assert mine is not theirs
        elif name in PLAIN or isinstance(theirs, type):
            assert mine is theirs
        else:
            assert inspect.iscoroutinefunction(mine), name


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_every_method_is_the_synchronous_one_awaitable(domain):
    title = domain.name.capitalize()
    for mine, theirs in (
        (type(getattr(aio, f"Persist{title}Adapter")), type(adapter_of(domain))),
        (getattr(aio, f"Persist{title}Instance"), getattr(kit, f"Persist{title}Instance")),
    ):
        names = [name for name in dir(theirs) if not name.startswith("_") and inspect.isroutine(getattr(theirs, name))]
        assert len(names) > len(domain.calls)
        for name in names:
            method = getattr(mine, name)
            assert is_async(method), name
            parameters = [inspect.signature(function).parameters.values() for function in (method, getattr(theirs, name))]
            assert [(each.name, each.kind, each.default) for each in parameters[0]] == [
                (each.name, each.kind, each.default) for each in parameters[1]
            ]
            assert method.__doc__


def test_a_face_of_anything_else_is_refused():
    with pytest.raises(kit.InvalidTypeError, match="expected a registry, an adapter, an instance or an id cache, got int"):
        aio.face(5)


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="read_nothing"):
        SIGNAL.read_nothing  # noqa: B018
    with pytest.raises(AttributeError, match="_slot"):
        SIGNAL._slot  # noqa: B018


def test_a_face_says_what_it_is_of(mongo):
    assert repr(SIGNAL) == "<async <PersistSignalAdapter over MongoStore>>"
    bound = aio.PersistSignalInstance("BTCUSDT", strategy_name="sma", exchange_name="binance")
    assert bound.symbol == "BTCUSDT"
    assert repr(bound) == "<async PersistSignalInstance(symbol='BTCUSDT', strategy_name='sma', exchange_name='binance')>"


# --- many at once ---


@pytest.fixture
def stored(mongo):
    """Store a thousand signals."""
    kit.PersistSignalAdapter.write_many([({"number": number}, *context) for number, context in enumerate(CONTEXTS)])
    return mongo


async def read_all():
    return await asyncio.gather(*(SIGNAL.read_signal_data(*context) for context in CONTEXTS))


ALL = [{"number": number} for number in range(len(CONTEXTS))]


def test_a_thousand_reads_at_once(stored):
    assert asyncio.run(read_all()) == ALL
    assert asyncio.run(SIGNAL.read_many(CONTEXTS)) == ALL  # in a second loop


def test_a_thousand_tasks_that_write_and_read(store):
    """Each task reads what it wrote before, whatever the others do."""

    async def task(number):
        for turn in range(2):
            await SIGNAL.write_signal_data({"number": number, "turn": turn}, *CONTEXTS[number])
            assert await SIGNAL.read_signal_data(*CONTEXTS[number]) == {"number": number, "turn": turn}
        return number

    async def main():
        return await asyncio.gather(*map(task, range(1000)))

    assert asyncio.run(main()) == list(range(1000))
    assert kit.PersistSignalAdapter.read_many(CONTEXTS) == [{"number": number, "turn": 1} for number in range(1000)]


def test_the_loop_goes_on_while_a_call_waits(mongo, monkeypatch):
    """While a read waits, the loop continues."""
    gate = threading.Event()
    monkeypatch.setattr(kit.PersistSignalAdapter, "_read", lambda *_: gate.wait(30), raising=False)

    async def main():
        read = asyncio.ensure_future(SIGNAL.read_signal_data(*CONTEXTS[0]))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not read.done()
        gate.set()
        return await read

    assert asyncio.run(main()) is True


def test_loops_in_two_threads(stored):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(asyncio.run(read_all()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [ALL, ALL]


def test_close_in_one_loop_while_another_submits(stored):
    """Ending the threads never collides with a call that is about to use them."""
    done = threading.Event()

    async def closing():
        while not done.is_set():
            base._pool.end()
            await asyncio.sleep(0)

    closer = threading.Thread(target=lambda: asyncio.run(closing()))
    closer.start()
    try:
        assert asyncio.run(read_all()) == ALL
    finally:
        done.set()
        closer.join()


# --- lists ---


def keys(bucket):
    return aio.PersistMeasureAdapter.list_measure_data(bucket)


@pytest.fixture
def bucket(store):
    kit.PersistMeasureAdapter.write_many([({"n": number}, "bucket", f"k{number}", START) for number in range(1234)])
    return store


def test_a_list_in_pages(bucket):
    async def main():
        return [key async for key in keys("bucket")], [key async for key in keys("empty")]

    listed, empty = asyncio.run(main())
    assert listed == list(kit.PersistMeasureAdapter.list_measure_data("bucket"))
    assert (len(listed), empty) == (1234, [])


def open_cursors():
    with pymongo.MongoClient(kit.get_config().CC_MONGO_CONNECTION_STRING) as client:
        return client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"]


def until(condition, seconds=60.0):
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def long_list(mongo):
    """Store a list of several pages with large records; return the number of open cursors."""
    filler = "x" * 20_000
    kit.PersistMemoryAdapter.write_many([({"filler": filler}, "sig", "bucket", f"m{number}", START) for number in range(1500)])
    return open_cursors()


@pytest.mark.parametrize("ending", ["aclosing", "break", "task cancelled"])
def test_a_list_that_is_left_early_closes_its_cursor(long_list, ending):
    def memories():
        return aio.PersistMemoryAdapter.list_memory_data("sig", "bucket")

    async def closed():
        async with aclosing(memories()) as rows:
            first = await anext(rows)
            assert open_cursors() == long_list + 1
        return first["memoryId"]

    async def broken():
        async for row in memories():  # noqa: B007
            break
        return row["memoryId"]

    async def cancelled():
        seen = []

        async def consume():
            async for row in memories():
                seen.append(row["memoryId"])
                await asyncio.sleep(0 if len(seen) < 500 else 0.001)

        task = asyncio.ensure_future(consume())
        while not seen:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen[0]

    assert asyncio.run({"aclosing": closed, "break": broken, "task cancelled": cancelled}[ending]()) == "m1499"
    until(lambda: open_cursors() == long_list)


def test_a_list_that_is_cancelled_while_a_page_is_on_its_way(mongo, monkeypatch):
    """The thread finishes its page, then the iterator is closed, and no result is lost by anyone."""
    started, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def slow(*_):
        try:
            started.set()
            yield "first"
            gate.wait(30)
            yield "second"
        finally:
            closed.set()

    monkeypatch.setattr(kit.PersistMeasureAdapter, "_keys", slow, raising=False)

    async def main():
        task = asyncio.ensure_future(anext(keys("bucket")))
        assert await asyncio.to_thread(started.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not closed.is_set()
        gate.set()

    asyncio.run(main())
    assert closed.wait(60)


def test_a_list_is_closed_by_a_thread(mongo, monkeypatch):
    """Closing a cursor waits for the server, so the loop must not do it."""
    names = []

    def many(*_):
        try:
            yield from map(str, range(2 * base._PAGE))
        finally:
            names.append(threading.current_thread().name)

    monkeypatch.setattr(kit.PersistMeasureAdapter, "_keys", many, raising=False)

    async def main():
        async with aclosing(keys("bucket")) as listed:
            return await anext(listed)

    assert asyncio.run(main()) == "0"
    until(lambda: names)
    assert names[0].startswith("backtest-kit-mongo-aio")


def test_a_list_checks_its_arguments_at_the_first_step(store):
    listed = keys(1)

    async def main():
        with pytest.raises(kit.InvalidTypeError, match="bucket"):
            await anext(listed)

    asyncio.run(main())


# --- cancellation ---


def sockets():
    """Return the number of open sockets of this process."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own descriptor
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def pool_threads():
    return sum(thread.name.startswith("backtest-kit-mongo-aio") for thread in threading.enumerate())


def run_and_listen(main):
    """Return the result of ``main`` and the loop's complaints about forgotten tasks and futures."""
    complaints = []

    async def listening():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        answer = await main()
        gc.collect()  # futures complain when collected
        return answer

    return asyncio.run(listening()), complaints


def test_a_storm_of_cancelled_calls(stored, monkeypatch):
    """After 1,000 calls are cancelled at all stages, the next results are right, and there are no more connections or threads."""
    for name in ("SEEN", "CHECKED"):  # on a busy machine several threads would check the indexes again, each over one more connection
        monkeypatch.setattr(index_checks, name, 600.0)

    async def storm(seed):
        pause = [0, 0, 0.001, 0.005, 0.02][seed % 5]
        calls = [
            SIGNAL.write_signal_data({"number": number}, *CONTEXTS[number])  # stored already
            if number % 3 == 0
            else SIGNAL.read_signal_data(*CONTEXTS[number])
            for number in range(1000)
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(pause)
        for task in tasks[seed % 2 :: 1 + seed % 3]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = 0
        for number, answer in enumerate(ended):
            if isinstance(answer, asyncio.CancelledError):
                cancelled += 1
            else:
                assert answer == (None if number % 3 == 0 else {"number": number})
        assert await read_all() == ALL
        return cancelled

    async def main():
        return sum([await storm(seed) for seed in range(5)])

    before = sockets()
    for _ in range(2):
        cancelled, complaints = run_and_listen(main)
        assert cancelled > 1000
        assert complaints == []
        assert pool_threads() <= base._THREADS
        assert sockets() <= before + 2 * base._THREADS + 2  # each thread's to MongoDB and Redis, and the two of pymongo's monitor
    connection = default_registry.mongo.connection
    if connection._wire is not None:
        until(lambda: len(connection._wire.idle) == connection._wire._out)  # none is in use


def test_what_is_cancelled_before_it_begins_is_dropped(mongo, monkeypatch):
    """If all threads are busy, a write that is cancelled while it waits for one is never done."""
    gate, begun = threading.Event(), threading.Semaphore(0)

    def busy(*_):
        begun.release()
        gate.wait(30)

    monkeypatch.setattr(kit.PersistSignalAdapter, "_read", busy, raising=False)

    async def main():
        reads = [asyncio.ensure_future(SIGNAL.read_signal_data(*context)) for context in CONTEXTS[: base._THREADS]]
        write = asyncio.ensure_future(SIGNAL.write_signal_data({"never": True}, *CONTEXTS[0]))
        await asyncio.sleep(0)
        for _ in reads:
            await asyncio.to_thread(begun.acquire)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        gate.set()
        await asyncio.gather(*reads)

    asyncio.run(main())
    monkeypatch.undo()
    threads = base._pool._threads
    base._pool.end()
    threads.shutdown()  # returns when the queue is done
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXTS[0]) is None


def test_a_deadline(mongo, monkeypatch):
    """asyncio.timeout ends the wait at once; the later error of the thread reaches nobody."""
    gate = threading.Event()

    def failing(*_):
        gate.wait(30)
        raise kit.ServerUnavailableError("late")

    monkeypatch.setattr(kit.PersistSignalAdapter, "_read", failing, raising=False)

    async def main():
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await SIGNAL.read_signal_data(*CONTEXTS[0])
        assert time.monotonic() - started < 15
        gate.set()
        await asyncio.to_thread(until, lambda: base._pool._threads._work_queue.empty())
        await asyncio.sleep(0.05)

    assert run_and_listen(main) == (None, [])


# --- context, errors ---


def test_context_variables_reach_the_thread(mongo, monkeypatch):
    monkeypatch.setattr(kit.PersistSignalAdapter, "_read", lambda *_: (current_time(), threading.current_thread().name), raising=False)

    async def at(when):
        with kit.simulated_time(when):
            await asyncio.sleep(0)
            return await SIGNAL.read_signal_data(*CONTEXTS[0])

    async def main():
        return await asyncio.gather(*map(at, range(100)), SIGNAL.read_signal_data(*CONTEXTS[0]))

    times, names = zip(*asyncio.run(main()), strict=True)
    assert times == (*range(100), None)
    assert all(name.startswith("backtest-kit-mongo-aio") for name in names)


def test_pymongo_timeout_reaches_the_thread(stored):
    async def main():
        with pymongo.timeout(0.000_001), pytest.raises(kit.ServerTimeoutError):
            await SIGNAL.write_signal_data({"late": True}, *CONTEXTS[0])
        return await SIGNAL.read_signal_data(*CONTEXTS[0])

    assert asyncio.run(main()) == ALL[0]


def test_before_setup(settings):
    async def main():
        for call in (SIGNAL.read_signal_data(*CONTEXTS[0]), SIGNAL.write_signal_data({}, *CONTEXTS[0]), anext(keys("bucket"))):
            with pytest.raises(kit.NotConfiguredError, match=r"setup\(\)"):
                await call
        await aio.setup(settings)
        await aio.wait_for_init(timeout=60)
        await SIGNAL.write_signal_data({"a": 1}, *CONTEXTS[0])
        return await SIGNAL.read_signal_data(*CONTEXTS[0])

    assert asyncio.run(main()) == {"a": 1}


def test_an_error_shows_where_it_was_awaited_and_where_it_arose(mongo):
    async def awaiting_here():
        await SIGNAL.write_signal_data("no row", *CONTEXTS[0])

    with pytest.raises(kit.InvalidTypeError, match="expected a dict, dataclass or Struct") as caught:
        asyncio.run(awaiting_here())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names.index("awaiting_here") < names.index("write_signal_data") < names.index("_record")
    with pytest.raises(TypeError, match="exchange_name"):
        asyncio.run(SIGNAL.read_signal_data("BTCUSDT", "sma"))


def test_a_stop_iteration_of_a_custom_class_does_not_hang(store):
    class Mine(kit.PersistSignalInstance):
        def read_signal_data(self):
            return next(iter(()))

    kit.PersistSignalAdapter.use_persist_signal_adapter(Mine)
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        asyncio.run(SIGNAL.read_signal_data(*CONTEXTS[0]))
    assert isinstance(caught.value.__cause__, StopIteration)


# --- without a thread ---


def threads_of(monkeypatch, operation):
    """Return the names of the threads in which an operation of the contracts runs."""
    names = []
    original = getattr(Contract, operation)

    def noting(*arguments, **options):
        names.append(threading.current_thread().name)
        return original(*arguments, **options)

    monkeypatch.setattr(Contract, operation, noting)
    return names


def test_memory_needs_no_thread(settings, monkeypatch):
    base._pool.end()
    kit.PersistSignalAdapter.use_memory()
    names = threads_of(monkeypatch, "_write")

    async def main():
        await SIGNAL.write_signal_data({"a": 1}, *CONTEXTS[0])
        return await SIGNAL.read_signal_data(*CONTEXTS[0]), await SIGNAL.read_many(CONTEXTS[:2])

    assert asyncio.run(main()) == ({"a": 1}, [{"a": 1}, None])
    assert names == ["MainThread"]
    assert base._pool._threads is None


def test_a_custom_class_over_memory_has_a_thread(store):
    """It may do anything, so it must not run in the loop."""

    class Mine(kit.PersistSignalInstance):
        def read_signal_data(self):
            return {"thread": threading.current_thread().name}

    kit.PersistSignalAdapter.use_persist_signal_adapter(Mine)
    assert asyncio.run(SIGNAL.read_signal_data(*CONTEXTS[0]))["thread"].startswith("backtest-kit-mongo-aio")


def candles(count):
    rows = np.zeros(count, kit.candles.CANDLE_DTYPE)
    rows["timestamp"] = START + MINUTE * np.arange(count)
    rows["open"] = rows["high"] = rows["low"] = rows["close"] = np.arange(count) + 1
    return rows


SERIES = ("BTCUSDT", "1m", "binance")


def test_warm_candles_need_no_thread_and_cold_ones_do(mongo, monkeypatch):
    adapter, bound = aio.PersistCandleAdapter, aio.PersistCandleInstance(*SERIES)
    given = candles(500)
    names = threads_of(monkeypatch, "_window")

    async def main():
        await adapter.write_candles_data(given, *SERIES)
        await adapter.clear()
        kit.reset_stats()
        for _ in range(3):
            assert np.array_equal(await adapter.read_candles_array(*SERIES, 500, START), given)
        assert np.array_equal(await bound.read_candles_array(500, START), given)
        rows = await adapter.read_candles_data(*SERIES, 3, START, START + 3 * MINUTE)
        assert rows == await bound.read_candles_data(3, START, START + 3 * MINUTE)
        assert await adapter.read_candles_data(*SERIES, 3, START + 499 * MINUTE, START) is None
        with pytest.raises(kit.InvalidTypeError, match="limit"):
            await adapter.read_candles_array(*SERIES, "3", START)
        return [row["close"] for row in rows]

    assert asyncio.run(main()) == [1.0, 2.0, 3.0]
    assert [name.startswith("backtest-kit-mongo-aio") for name in names] == [True, True, True]  # the first, the miss, the error
    counted = kit.stats()["candle"]
    assert (counted["reads"], counted["misses"]) == (7, 1)  # each call is counted once


# --- other registries, the id cache ---


def test_the_face_of_any_adapter_and_instance(mongo):
    async def main():
        await aio.face(kit.PersistSignalAdapter).write_signal_data({"a": 1}, *CONTEXTS[0])
        return await aio.face(kit.PersistSignalInstance(*CONTEXTS[0])).read_signal_data()

    assert asyncio.run(main()) == {"a": 1}


def test_the_face_of_a_registry(mongo):
    """A registry beside the default one has its own records, settings and counters."""

    async def main(own):
        await own.setup(mongo, mode="backtest", stores=dict.fromkeys(DOMAINS, "memory"))
        await own.wait_for_init()
        await own.PersistSignalAdapter.write_signal_data({"a": 1}, *CONTEXTS[0])
        assert await own.adapter("signal").read_signal_data(*CONTEXTS[0]) == {"a": 1}
        assert await own.PersistSignalInstance(*CONTEXTS[0]).read_signal_data() == {"a": 1}
        assert await SIGNAL.read_signal_data(*CONTEXTS[0]) is None
        assert own.stats()["signal"]["writes"] == 1
        await own.close()
        return weakref.ref(own.sync)

    kept = asyncio.run(main(aio.face(kit.Registry())))
    until(lambda: gc.collect() >= 0 and kept() is None)  # once the last thread has dropped its call


@pytest.mark.parametrize("kind", ["mongo", "memory", "file"])
def test_nothing_from_the_future(mongo, tmp_path, kind):
    """Tasks at different times each see what their own time allows."""
    adapter = aio.PersistStateAdapter
    kit.setup(mongo, CC_DUMP_DIR=str(tmp_path), look_ahead="hide", stores={"state": kind})

    async def at(when):
        with kit.simulated_time(when):
            await asyncio.sleep(0)
            return await adapter.read_state_data("sig", "notes")

    async def main():
        await adapter.write_state_data({"a": 1}, "sig", "notes", START)
        return await asyncio.gather(at(START - 1), at(START), at(START + 1), adapter.read_state_data("sig", "notes"))

    assert asyncio.run(main()) == [None, {"a": 1}, {"a": 1}, {"a": 1}]


def test_warm_candles_close_before_the_simulation_time(mongo):
    kit.setup(mongo, look_ahead="hide")
    kit.PersistCandleAdapter.write_candles_data(candles(10), *SERIES)
    kit.PersistCandleAdapter.read_candles_array(*SERIES, 10, START)
    kit.reset_stats()

    async def main():
        with kit.simulated_time(START + 5 * MINUTE):
            seen = await aio.PersistCandleAdapter.read_candles_array(*SERIES, 5, START)
            return len(seen), await aio.PersistCandleAdapter.read_candles_array(*SERIES, 6, START)

    assert asyncio.run(main()) == (5, None)
    assert kit.stats()["candle"]["future_reads"] == 1


def test_the_id_cache(stored):
    ids = SIGNAL.id_cache

    async def main():
        assert await ids.size() == len([key async for key in ids.keys()]) == 1000  # noqa: SIM118 - not a mapping
        assert await ids.get(*CONTEXTS[0]) == kit.PersistSignalAdapter.id_cache.get(*CONTEXTS[0])
        assert await ids.delete(*CONTEXTS[0])
        assert not await ids.has(*CONTEXTS[0])
        return await ids.clear()

    assert asyncio.run(main()) == 999


# --- the threads ---


def test_close_ends_the_threads_and_setup_begins_anew(stored):
    async def main():
        await read_all()
        assert 1 <= pool_threads() <= base._THREADS
        await aio.close()
        with pytest.raises(kit.NotConfiguredError):
            await SIGNAL.read_signal_data(*CONTEXTS[0])
        await aio.close()
        await aio.setup(stored)
        return await SIGNAL.read_signal_data(*CONTEXTS[0])

    assert asyncio.run(main()) == ALL[0]
    base._pool.end()
    until(lambda: pool_threads() == 0)


def test_a_forked_child_has_threads_of_its_own(stored):
    assert asyncio.run(read_all()) == ALL
    child = os.fork()
    if child == 0:  # pytest must not run beyond this line
        status = 1
        try:
            status = 0 if asyncio.run(read_all()) == ALL else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(read_all()) == ALL


PROGRAM = """
import asyncio, json, sys
from backtest_kit_mongo import aio

async def main():
    await aio.setup(json.loads(sys.argv[1]))
    read = aio.PersistSignalAdapter.read_signal_data
    found = await asyncio.gather(*(read(f"S{number}", "sma", "binance") for number in range(1000)))
    print(sum(row["number"] for row in found))
    tasks = [asyncio.ensure_future(read("S1", "sma", "binance")) for _ in range(1000)]
    await asyncio.sleep(0.005)
    async for _ in aio.PersistMeasureAdapter.list_measure_data("bucket"):
        break

asyncio.run(main())
"""


def test_a_program_that_closes_nothing_ends(stored):
    """With calls in progress, which asyncio.run cancels, nothing hangs and nothing complains."""
    kit.PersistMeasureAdapter.write_many([({}, "bucket", str(number), START) for number in range(2000)])
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", PROGRAM, json.dumps(stored)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{sum(range(1000))}\n", "")
