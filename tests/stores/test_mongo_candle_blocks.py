"""Candles in process memory: the blocks compared with a plain model, and the store with and without them."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from connection_strings import with_options
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest_kit_mongo as kit
from backtest_kit_mongo._core.blocks import CandleBlocks
from backtest_kit_mongo._core.counters import Counters
from backtest_kit_mongo.candles import CANDLE_DTYPE, align
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.stores.fork_safety import renew_after_fork
from backtest_kit_mongo.stores.mongo import candles as mongo_candles
from backtest_kit_mongo.stores.mongo.store import MongoStore

MINUTE = 60_000
START = 1_677_628_800_000
SERIES = ("binance", "BTCUSDT", "1m")
OTHER = ("binance", "ETHUSDT", "1m")
OVERHEAD = 1024
SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20231114"))


def columns(first, count, shift=0.0):
    """Return candles from minute ``first`` on, with values derived from their time."""
    made = np.zeros(count, CANDLE_DTYPE)
    made["timestamp"] = START + np.arange(first, first + count) * MINUTE
    for index, name in enumerate(CANDLE_DTYPE.names[1:]):
        made[name] = np.arange(first, first + count) + index / 8 + shift
    return made


def blocks(budget=1 << 20):
    counters = Counters()
    return CandleBlocks(budget, counters, (0, 1, 2)), counters


def minute(number):
    return START + number * MINUTE


def rows(columns):
    return [dict(zip(CANDLE_DTYPE.names, row, strict=True)) for row in columns.tolist()]


# --- the memory itself -----------------------------------------------------------------------------------------------


def test_a_window_is_a_view_of_what_was_kept():
    memory, counters = blocks()
    kept = columns(0, 100)
    memory.keep(SERIES, MINUTE, kept)
    window = memory.array(SERIES, 30, minute(10))
    assert np.shares_memory(window, kept)
    assert (window == columns(10, 30)).all()
    assert memory.rows(SERIES, 30, minute(10), minute(40)) == memory.rows(SERIES, 30, minute(10), None) == rows(columns(10, 30))
    assert (counters.count(0), counters.count(1), counters.observed(2)) == (3, 3, 3)


def test_nobody_can_write_into_the_memory():
    memory, _ = blocks()
    memory.keep(SERIES, MINUTE, columns(0, 10))
    for window in (memory.array(SERIES, 5, minute(0)), memory.array(SERIES, 10, minute(0)), memory.head(SERIES, 20, minute(0))):
        with pytest.raises(ValueError, match="read-only"):
            window["close"] = 0.0
        with pytest.raises(ValueError, match="WRITEABLE"):
            window.flags.writeable = True


def test_memory_of_others_is_copied():
    memory, _ = blocks()
    given = columns(0, 20)
    memory.keep(SERIES, MINUTE, given[:10])
    given["close"] = -1.0
    assert (memory.array(SERIES, 10, minute(0)) == columns(0, 10)).all()


def test_dicts_are_the_callers_own():
    memory, _ = blocks()
    memory.keep(SERIES, MINUTE, columns(0, 3))
    memory.rows(SERIES, 3, minute(0), None)[0]["close"] = -1.0
    assert memory.rows(SERIES, 3, minute(0), None) == rows(columns(0, 3))


@pytest.mark.parametrize(
    ("limit", "since"),
    [
        (4, minute(7)), (11, minute(0)), (1, minute(10)), (1, minute(-1)), (2, minute(-1)), (0, minute(0)), (-1, minute(0)),
        (2**62, minute(0)), (2**63, minute(0)), (10**30, minute(0)), (1, minute(0) + 1), (1, minute(1) - 1), (1, 2**63), (1, -(2**63) - 1),
        (1, 2**63 - 1), (1, -(2**63)), (1.0, minute(0)), (True, minute(0)), (np.int64(1), minute(0)), (1, float(minute(0))),
        ("1", minute(0)), (None, minute(0)), (1, None),
    ],
)  # fmt: skip
def test_what_is_not_there_as_a_whole_or_in_doubt_is_not_answered(limit, since):
    memory, counters = blocks()
    memory.keep(SERIES, MINUTE, columns(0, 10))
    assert memory.array(SERIES, limit, since) is None
    assert memory.rows(SERIES, limit, since, 0) is None
    assert counters.count(0) == counters.count(1) == 0


@pytest.mark.parametrize(
    "series", [(), ("binance",), (*SERIES, 1), ("okx", *SERIES[1:]), (None, None, None), ([], "BTCUSDT", "1m"), (1, 2, 3)]
)
def test_other_series_are_not_answered(series):
    memory, _ = blocks()
    memory.keep(SERIES, MINUTE, columns(0, 10))
    assert memory.array(series, 1, minute(0)) is None
    assert memory.rows(series, 1, minute(0), 0) is None


def test_until_must_be_an_int_or_nothing():
    memory, _ = blocks()
    memory.keep(SERIES, MINUTE, columns(0, 10))
    assert memory.rows(SERIES, 1, minute(0), 10**30) is not None
    for wrong in ("x", 1.0, True, []):
        assert memory.rows(SERIES, 1, minute(0), wrong) is None


def test_neighbours_grow_together():
    memory, _ = blocks()
    for first in (0, 20, 10, 40, 30):
        memory.keep(SERIES, MINUTE, columns(first, 10))
    assert (memory.array(SERIES, 50, minute(0)) == columns(0, 50)).all()
    assert memory.nbytes == 50 * 48 + OVERHEAD


def test_what_overlaps_is_kept_once():
    memory, _ = blocks()
    for first, count in ((0, 10), (5, 10), (0, 15), (3, 4), (30, 5), (10, 30)):
        memory.keep(SERIES, MINUTE, columns(first, count))
    assert (memory.array(SERIES, 40, minute(0)) == columns(0, 40)).all()
    assert memory.nbytes == 40 * 48 + OVERHEAD


def test_long_runs_stay_apart_and_are_read_as_one():
    """Runs longer than the limit are not merged."""
    memory, _ = blocks(1 << 26)
    long = 1 << 18
    memory.keep(SERIES, MINUTE, columns(0, long))
    memory.keep(SERIES, MINUTE, columns(long, 100))
    assert memory.array(SERIES, 200, minute(long - 100)) is None
    head = memory.head(SERIES, 200, minute(long - 100))
    assert (head == columns(long - 100, 200)).all()
    assert not head.flags.writeable
    assert len(memory.head(SERIES, 1000, minute(long - 100))) == 200
    memory.keep(SERIES, MINUTE, columns(long - 50, 1000))  # overlaps both: it stays whole, and they lose the overlap
    assert (memory.array(SERIES, 1000, minute(long - 50)) == columns(long - 50, 1000)).all()
    assert (memory.head(SERIES, long + 950, minute(0)) == columns(0, long + 950)).all()
    assert memory.nbytes == (long + 950) * 48 + 2 * OVERHEAD


def test_the_least_recently_used_goes_first():
    memory, _ = blocks(3 * (10 * 48 + OVERHEAD))
    for first in (0, 100, 200):
        memory.keep(SERIES, MINUTE, columns(first, 10))
    memory.rows(SERIES, 1, minute(0), None)
    memory.array(SERIES, 1, minute(200))
    memory.keep(OTHER, MINUTE, columns(0, 10))
    assert memory.array(SERIES, 1, minute(100)) is None
    assert all(memory.array(*window) is not None for window in ((SERIES, 1, minute(0)), (SERIES, 1, minute(200)), (OTHER, 1, minute(0))))


def test_a_run_beyond_the_budget_is_not_kept_and_drives_nobody_out():
    memory, _ = blocks(100 * 48)
    memory.keep(SERIES, MINUTE, columns(0, 10))
    before = memory.nbytes
    memory.keep(OTHER, MINUTE, columns(0, 100))
    assert memory.nbytes == before
    assert memory.array(SERIES, 10, minute(0)) is not None
    nothing, _ = blocks(0)
    nothing.keep(SERIES, MINUTE, columns(0, 1))
    nothing.keep(SERIES, MINUTE, columns(0, 0))
    assert nothing.nbytes == 0


def test_a_view_outlives_what_it_is_a_view_of():
    memory, _ = blocks(20 * 48 + OVERHEAD)
    memory.keep(SERIES, MINUTE, columns(0, 20))
    window = memory.array(SERIES, 10, minute(5))
    memory.keep(OTHER, MINUTE, columns(0, 20, shift=7.0))
    assert memory.array(SERIES, 1, minute(0)) is None
    memory.clear()
    assert memory.nbytes == 0
    assert memory.array(OTHER, 1, minute(0)) is None
    assert (window == columns(5, 10)).all()


ranges = st.tuples(st.sampled_from([SERIES, OTHER]), st.integers(-5, 40), st.integers(1, 15))


@pytest.mark.once
@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.booleans(), ranges), max_size=40), st.sampled_from([0, 1200, 2000, 3500, 1_000_000]))
def test_like_a_plain_model(steps, budget):
    """Every result is right and was kept before; memory stays within the budget; a large budget answers everything."""
    memory, _ = blocks(budget)
    model: dict = {SERIES: set(), OTHER: set()}
    for keep, (series, first, count) in steps:
        shift = 0.0 if series is SERIES else 0.5
        if keep:
            memory.keep(series, MINUTE, columns(first, count, shift))
            model[series] |= set(range(first, first + count))
        window = memory.array(series, count, minute(first))
        candles_read = memory.rows(series, count, minute(first), 0)
        head = memory.head(series, count, minute(first))
        whole = set(range(first, first + count)) <= model[series]
        assert (window is None) == (candles_read is None)
        if window is not None:
            assert whole
            assert (window == columns(first, count, shift)).all()
            assert candles_read == rows(window)
        elif budget == 1_000_000:
            assert not whole
        if head is not None:
            assert (head == columns(first, len(head), shift)).all()
            assert set(range(first, first + len(head))) <= model[series]
        assert memory.nbytes <= budget


@pytest.mark.once
def test_threads():
    """With concurrent readers and writers and a small budget, every result is right."""
    memory, _ = blocks(3000)
    wrong = []

    def work(number):
        rng = random.Random(SEED + number)
        for _ in range(3000):
            series, first, count = rng.choice([SERIES, OTHER]), rng.randrange(40), rng.randrange(1, 12)
            action = rng.randrange(5)
            if action == 0:
                memory.keep(series, MINUTE, columns(first, count))
            elif action == 1 and rng.random() < 0.02:
                memory.clear()
            else:
                window = memory.array(series, count, minute(first))
                if window is not None and not (window == columns(first, count)).all():
                    wrong.append((series, first, count))
                candles_read = memory.rows(series, count, minute(first), None)
                if candles_read is not None and candles_read != rows(columns(first, count)):
                    wrong.append((series, first, count))
            if memory.nbytes > memory.budget:
                wrong.append(memory.nbytes)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, SEED


@pytest.mark.once
@pytest.mark.slow
def test_a_fork_while_another_thread_keeps_candles():
    """The child continues with the parent's candles or none, and never waits for a lock held by a thread it does not have."""
    memory, _ = blocks(1 << 22)
    renew_after_fork(memory)
    over = threading.Event()

    def work():
        number = 0
        while not over.is_set():
            number += 1
            memory.keep(SERIES, MINUTE, columns(number % 500 * 20, 15))

    def child():
        signal.alarm(10)
        memory.keep(OTHER, MINUTE, columns(0, 10))
        window = memory.array(SERIES, 3, minute(20))
        sound = window is None or bool((window == columns(20, 3)).all())
        return sound and bool((memory.array(OTHER, 10, minute(0)) == columns(0, 10)).all())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(30):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forks in a process with threads
                pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if child() else 2
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        over.set()
        thread.join()


# --- the store with and without memory -------------------------------------------------------------------------------


def write(found, series=SERIES):
    kit.PersistCandleAdapter.write_candles_data(found, series[1], series[2], series[0])


def array(limit, first, series=SERIES):
    return kit.PersistCandleAdapter.read_candles_array(series[1], series[2], series[0], limit, minute(first))


def dicts(limit, first, series=SERIES):
    return kit.PersistCandleAdapter.read_candles_data(series[1], series[2], series[0], limit, minute(first), minute(first + limit))


def count(name):
    return kit.stats()["candle"][name]


@pytest.fixture
def questions(mongo, monkeypatch):
    """The queries for candle documents that go to MongoDB."""
    asked = []
    connection = default_registry.mongo.connection
    fetch = connection.fetch

    def counting(domain, queries):
        asked.extend(queries if domain.collection == "candle-items" else ())
        return fetch(domain, queries)

    monkeypatch.setattr(connection, "fetch", counting)
    return asked


def test_memory_answers_what_was_read(questions):
    write(columns(0, 100))
    assert (array(50, 0) == columns(0, 50)).all()
    del questions[:]
    kit.reset_stats()
    assert dicts(10, 20) == rows(columns(20, 10))
    assert (array(50, 50) == columns(50, 50)).all()  # read ahead
    assert questions == []
    assert (count("reads"), count("hits_block"), count("misses")) == (2, 2, 0)
    assert kit.stats()["candle"]["operations"]["read"]["count"] == 2


def test_a_walk_forward_asks_seldom(questions):
    """A walk through 40,000 minutes takes about six fetches, each larger than the one before."""
    write(columns(0, 40_000))
    for first in range(0, 39_995, 3):
        assert len(dicts(5, first)) == 5
    asked = [query["filter"] for query in questions]
    blocks = [query["block"]["$gte"] for query in asked if "block" in query]
    assert blocks == sorted(blocks)
    assert len(asked) < 25
    assert count("hits_block") > 13_000


def test_sliding_long_windows_ask_for_what_is_new(questions):
    write(columns(0, 6000))
    for first in range(2000):
        assert len(array(2000, first)) == 2000
    assert len(questions) <= 4


def test_new_candles_are_seen_at_once(questions):
    """For a trader at the end of the data, a miss is never remembered."""
    write(columns(0, 10))
    for last in range(10, 40):
        assert len(dicts(5, last - 5)) == 5
        assert dicts(5, last - 4) is None
        write(columns(last, 1))
        assert dicts(5, last - 4) == rows(columns(last - 4, 5))


def test_after_a_miss_nothing_is_read_ahead(questions):
    write(columns(0, 2000)[np.arange(2000) != 3])
    assert dicts(5, 0) is None
    del questions[:]
    assert dicts(5, 0) is None
    assert [query["filter"]["timestamp"] for query in questions] == [{"$gte": minute(0), "$lt": minute(5)}]


def test_a_candle_that_is_still_open_is_not_kept(mongo):
    """Another writer may still update such a candle."""
    now = align(time.time_ns() // 1_000_000, MINUTE)
    while time.time_ns() // 1_000_000 > now + 45_000:  # far enough from the minute that it does not close during the test
        time.sleep(1)
        now = align(time.time_ns() // 1_000_000, MINUTE)
    first = (now - START) // MINUTE - 2
    documents = kit.get_mongo()["candle-items"]
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    documents.insert_many([{**fields, **row} for row in rows(columns(first, 3))])
    assert dicts(3, first) == rows(columns(first, 3))
    documents.update_one({"timestamp": now}, {"$set": {"close": -1.0}})
    assert dicts(3, first)[2]["close"] == -1.0
    kit.reset_stats()
    assert dicts(2, first) == rows(columns(first, 2))
    assert count("hits_block") == 1


def test_a_broken_candle_ahead_spoils_no_window(mongo):
    write(columns(0, 20))
    documents = kit.get_mongo()["candle-items"]
    documents.update_one({"timestamp": minute(7)}, {"$set": {"close": "broken"}})
    assert dicts(5, 0) == rows(columns(0, 5))
    assert dicts(7, 0) == rows(columns(0, 7))
    with pytest.raises(kit.DatabaseError, match="close"):
        dicts(8, 0)
    assert dicts(5, 8) == rows(columns(8, 5))


def test_what_is_deleted_by_hand_is_forgotten_by_clear(mongo):
    write(columns(0, 20))
    assert dicts(20, 0) is not None
    documents = kit.get_mongo()["candle-items"]
    for forget in (kit.PersistCandleAdapter.clear, default_registry.mongo.drop_cache):
        documents.delete_one({"timestamp": minute(5)})
        assert dicts(20, 0) is not None
        forget()
        assert dicts(20, 0) is None
        assert dicts(5, 0) == rows(columns(0, 5))
        write(columns(0, 20))
        assert dicts(20, 0) == rows(columns(0, 20))


def test_after_close_memory_answers_nothing(mongo):
    write(columns(0, 20))
    assert dicts(20, 0) is not None
    kit.close()
    with pytest.raises(kit.NotConfiguredError):
        dicts(20, 0)
    with pytest.raises(kit.NotConfiguredError):
        array(20, 0)


def test_another_database_has_other_candles(mongo, servers):
    write(columns(0, 20))
    assert dicts(20, 0) is not None
    kit.setup({**mongo, "CC_MONGO_CONNECTION_STRING": servers.mongo.uri("other")})
    assert dicts(20, 0) is None


@pytest.mark.parametrize("ranges", [mongo_candles.RANGE, 7])
def test_no_budget_changes_an_answer(settings, monkeypatch, ranges):
    """Random windows over candles with gaps, strays and additions do not depend on the budget: none, too small, small or ample."""
    monkeypatch.setattr(mongo_candles, "RANGE", ranges)
    monkeypatch.setattr(mongo_candles, "AHEAD", 40)
    monkeypatch.setattr(mongo_candles, "SHARED", 2 * ranges)
    rng = random.Random(SEED + ranges)
    stored = {number for number in range(600) if rng.random() > 0.01}
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    stores = []
    for budget in (0, 3 * 1024, 12 * 1024, 1 << 24):
        store = MongoStore(load_config(settings), Metrics())
        candles = store.candles
        candles.blocks = CandleBlocks(budget, Counters(), (0, 1, 2))
        stores.append(store)
    try:
        stores[0].write_candles("BTCUSDT", "1m", "binance", columns(0, 600)[sorted(stored)])
        stray = {**fields, **rows(columns(0, 1))[0], "close": "stray"}
        stores[0].connection.database["candle-items"].insert_many([{**stray, "timestamp": minute(n) + 1} for n in range(0, 600, 50)])
        first = 0
        for step in range(400):
            first = first + rng.choice([0, 1, 1, 1, 5]) if rng.random() < 0.8 else rng.randrange(600)
            limit = rng.choice([1, 2, 5, 5, 30, 100])
            if step % 20 == 0:
                new = rng.randrange(600)
                stored.add(new)
                rng.choice(stores).write_candles("BTCUSDT", "1m", "binance", columns(new, 1))
            whole = set(range(first, first + limit)) <= stored
            for store in stores:
                candles_read = store.candles.blocks.array(SERIES, limit, minute(first))
                if candles_read is None:
                    candles_read = store.read_candles("BTCUSDT", "1m", "binance", minute(first), limit)
                assert (candles_read is not None) == whole, (SEED, step)
                if candles_read is not None:
                    assert (candles_read == columns(first, limit)).all()
                    assert not candles_read.flags.writeable
                assert store.candles.blocks.nbytes <= store.candles.blocks.budget
    finally:
        for store in stores:
            store.close()


def test_a_long_window_with_a_broken_candle_in_either_half(mongo):
    """Over two connections, a gap in the first half is a miss whatever the second holds; a broken candle is a clear error."""
    write(columns(0, 10_000))
    assert (array(10_000, 0) == columns(0, 10_000)).all()
    documents = kit.get_mongo()["candle-items"]
    for position in (100, 9_900):
        default_registry.mongo.candles.drop_packed()
        kept = documents.find_one_and_update({"timestamp": minute(position)}, {"$set": {"low": None}})
        with pytest.raises(kit.DatabaseError, match="low"):
            array(10_000, 0)
        documents.delete_one({"timestamp": minute(position)})
        assert array(10_000, 0) is None
        assert array(9_000, 0 if position > 9_000 else 1_000) is not None
        documents.insert_one(kept)
    assert (array(10_000, 0) == columns(0, 10_000)).all()


def test_a_long_window_over_one_connection(settings):
    """This works where no second connection may be opened."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": with_options(settings, "maxPoolSize=1")})
    write(columns(0, 10_000))
    assert (array(10_000, 0) == columns(0, 10_000)).all()
