"""Replies that are cut, delayed, duplicated, replayed or garbled on the way from real servers: an error or the right result.

Every test runs with and without the wire protocol. Payloads differ by key and by step, so a mixed-up reply shows.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import struct
import threading
import time
from urllib.parse import quote

import pymongo
import pytest
from bson.errors import BSONError
from proxy import DRIP, LOST, REPLAY, STALL, TWICE, Fault, Proxy, cut, garbled, late
from pymongo import common
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError, DatabaseError, ServerTimeoutError, ServerUnavailableError

pytestmark = pytest.mark.once

WHEN = 1_700_000_000_000
MINUTE = 60_000
_numbers = itertools.count()


@pytest.fixture(params=["1", "0"], ids=["wire-on", "wire-off"], autouse=True)
def wire(request, monkeypatch):
    """Whether the wire protocol is used, or only the public methods of pymongo and redis-py."""
    monkeypatch.setenv("CC_WIRE_LANE", request.param)
    monkeypatch.setenv("CC_CANDLE_MEMORY_MB", "0")  # each read of candles must go to the server
    # After an error pymongo waits half a second before it checks the server again. These tests cause hundreds of errors.
    monkeypatch.setattr(common, "MIN_HEARTBEAT_INTERVAL", 0.01)
    return request.param == "1"


@pytest.fixture
def mongod(tmp_path, servers):
    with Proxy(servers.mongo.socket, str(tmp_path / "m.sock"), "mongo") as proxy:
        yield proxy


@pytest.fixture
def cache(tmp_path, servers):
    with Proxy(servers.redis.socket, str(tmp_path / "r.sock"), "redis") as proxy:
        yield proxy


@pytest.fixture
def begin(settings, mongod, cache):
    """``begin(milliseconds=..., ...)``: set the library up behind both proxies, with that socket time-out."""
    # The streaming monitor would add another half second: these URIs make it poll.

    def setup(milliseconds=10_000, options="", **others):
        if milliseconds < 10_000:  # creating collections and indexes may take longer
            setup()
            fill()
        name = settings["CC_MONGO_CONNECTION_STRING"].rpartition("/")[2].partition("?")[0]
        uri = f"mongodb://{quote(mongod.place, safe='')}/{name}?directConnection=true&serverMonitoringMode=poll"
        uri += f"&socketTimeoutMS={milliseconds}{options}"
        kit.close()
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri, "CC_REDIS_HOST": cache.place, **others})

    yield setup
    mongod.calm()
    cache.calm()
    kit.close()


def again(call, times=5):
    """Call up to five times, since the connection may be dead; earlier attempts may only fail with errors of the library."""
    for _ in range(times - 1):
        with contextlib.suppress(BacktestKitError):
            return call()
    return call()


class WrongAnswerError(AssertionError):
    """A wrong result, which must never occur. (An error type of its own, since pymongo raises assertions too.)"""


def same(answer, wanted):
    if answer != wanted:
        raise WrongAnswerError(f"{answer!r} instead of {wanted!r}")


# --- one step of each kind of call: make it and compare the result with what must be stored ---


def signal_step(step):
    return {"of": f"S{step % 5}", "text": f"{step % 5}" * 40}


def read_one(step):
    key = step % 5
    same(kit.PersistSignalAdapter.read_signal_data(f"S{key}", "s", "e"), signal_step(key))


def read_by_key(step):
    default_registry.mongo.process_ids.clear()
    default_registry.mongo.redis_ids.client.flushall()
    read_one(step)


def write_one(step):
    kit.PersistStateAdapter.write_state_data({"n": step}, "W", "b", WHEN + step)
    same(kit.PersistStateAdapter.read_state_data("W", "b"), {"n": step})


def insert_one(step):
    kit.PersistStateAdapter.write_state_data({"n": step}, f"I{step}", "b", WHEN + step)
    same(kit.PersistStateAdapter.read_state_data(f"I{step}", "b"), {"n": step})


def read_many(step):
    keys = [f"S{(step + index) % 5}" for index in range(5)]
    rows = kit.PersistSignalAdapter.read_many([(key, "s", "e") for key in keys])
    same(rows, [signal_step(int(key[1:])) for key in keys])


def write_many(step):
    items = [({"n": step, "i": index}, f"M{(step + index) % 7}", "b", WHEN) for index in range(4)]
    kit.PersistStateAdapter.write_many(items)
    same(kit.PersistStateAdapter.read_many([item[1:3] for item in items]), [item[0] for item in items])


def read_storage(step):
    same([row["id"] for row in kit.PersistStorageAdapter.read_storage_data(True)], [f"row{index}" for index in (4, 3, 2, 1, 0)])


def write_storage(step):
    rows = [{"id": f"{index}", "n": step} for index in range(3)]
    kit.PersistStorageAdapter.write_storage_data(rows, False)
    same(sorted(row["n"] for row in kit.PersistStorageAdapter.read_storage_data(False)), [step] * 3)


def read_log(step):
    same([row["id"] for row in kit.PersistLogAdapter.read_log_data(limit=2)], ["log3", "log4"])


def read_candles(step):
    default_registry.mongo.candles.archive._readable = False  # one find for each step
    first = step % 10
    rows = kit.PersistCandleAdapter.read_candles_data("S", "1m", "e", 20, first * MINUTE, 0)
    same([row["volume"] for row in rows], [float(number) for number in range(first, first + 20)])


def write_candles(step):
    kit.PersistCandleAdapter.write_candles_data(candles(3, first=3 * step), "W", "1m", "e")
    rows = kit.PersistCandleAdapter.read_candles_data("W", "1m", "e", 3, 3 * step * MINUTE, 0)
    same([row["volume"] for row in rows], [float(number) for number in range(3 * step, 3 * step + 3)])


def candles(count, first=0):
    return [
        {"timestamp": index * MINUTE, "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": float(index)}
        for index in range(first, first + count)
    ]


CALLS = {
    "read one": ("find", read_one),
    "read by key": ("find", read_by_key),
    "write one": ("findandmodify", write_one),
    "insert one": ("findandmodify", insert_one),
    "read many": ("find", read_many),
    "write many": ("update", write_many),
    "read storage": ("find", read_storage),
    "write storage": ("update", write_storage),
    "read log": ("find", read_log),
    "read candles": ("find", read_candles),
    "write candles": ("insert", write_candles),
}
# Without the wire protocol, one call per kind of message: the driver does all reads and writes.
OF_THE_DRIVER = ("read one", "write one", "read many", "write many", "write candles")
PATHS = {f"wire-on-{which}": ("1", which) for which in CALLS} | {f"wire-off-{which}": ("0", which) for which in OF_THE_DRIVER}
calls = pytest.mark.parametrize(("wire", "which"), PATHS.values(), ids=PATHS, indirect=["wire"])


def fill():
    """Store what the reading steps expect."""
    kit.PersistSignalAdapter.write_many([(signal_step(key), f"S{key}", "s", "e") for key in range(5)])
    kit.PersistStorageAdapter.write_storage_data([{"id": f"row{index}"} for index in range(5)], True)
    kit.PersistLogAdapter.write_log_data([{"id": f"log{index}", "text": "x" * 50} for index in range(5)])
    kit.PersistCandleAdapter.write_candles_data(candles(30), "S", "1m", "e")


@pytest.fixture
def every(long):
    """Of the bytes that can be hit one after the other, one in this many is, beginning with another one in each run."""
    return 1 if long else 3


def places(reply, every):
    """Return where to cut: bytes of the header and of the first fields, and positions spread over the rest up to the end."""
    first = range(random.randrange(every), min(64, len(reply) + 1), every)
    return sorted({*first, *range(64, len(reply), max(1, len(reply) // 12)), len(reply) - 1, len(reply)})


# --- MongoDB: cuts ---


@calls
def test_one_cut_reply(begin, mongod, which, every):
    """After one reply that is cut at any byte, the call is retried by itself and succeeds, and so does the next one."""
    command, step = CALLS[which]
    begin()
    fill()
    numbers = itertools.count()
    step(next(numbers))
    for position in places(mongod.good[command], every):
        before = mongod.met[command]
        mongod.arm(command, cut(position))
        step(next(numbers))
        step(next(numbers))
        assert mongod.met[command] == before + 1


@calls
def test_each_try_is_cut(begin, mongod, which):
    """If every attempt meets the same fault, the call raises ServerUnavailableError; afterwards it succeeds again."""
    command, step = CALLS[which]
    begin(options="&serverSelectionTimeoutMS=1000")
    fill()
    numbers = itertools.count()
    step(next(numbers))
    for fault in (LOST, cut(0), cut(10), cut(40)):
        before = mongod.met[command]
        mongod.arm(command, fault, times=10_000)
        with pytest.raises(ServerUnavailableError):
            step(next(numbers))
        assert mongod.met[command] - before > 2
        mongod.calm()
        step(next(numbers))
        mongod.arm(command, fault)
        step(next(numbers))


def test_cut_in_a_later_batch(begin, mongod):
    """If the second batch of a list is cut, the read raises and never returns a shorter list."""
    begin()
    rows = [{"id": f"{index:02}", "text": chr(65 + index) * 1_500_000} for index in range(13)]
    kit.PersistStorageAdapter.write_storage_data(rows, True)
    for count, position in enumerate((0, 7, 30, 1000, 3_000_000), 1):
        mongod.arm("getmore", cut(position))
        with pytest.raises(BacktestKitError):
            kit.PersistStorageAdapter.read_storage_data(True)
        assert mongod.met["getmore"] == count
    assert kit.PersistStorageAdapter.read_storage_data(True) == rows[::-1]


def test_an_applied_write_is_not_doubled(begin, mongod, servers, settings):
    """A write that the server applied without a reply is sent again and leaves one document with the right value."""
    begin()
    for step in range(10):
        mongod.arm("findandmodify", cut(step))
        kit.PersistStateAdapter.write_state_data({"n": step}, f"K{step % 3}", "b", WHEN)
        mongod.arm("update", cut(step))
        kit.PersistMemoryAdapter.write_many([({"n": step}, "s", "b", f"m{index}", WHEN) for index in range(4)])
        mongod.arm("insert", cut(step))
        kit.PersistCandleAdapter.write_candles_data(candles(2, first=step), "S", "1m", "e")
    assert (mongod.met["findandmodify"], mongod.met["update"], mongod.met["insert"]) == (10, 10, 10)
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        database = client.get_default_database()
        stored = sorted((row["bucketName"], row["payload"]["n"]) for row in database["state-items"].find())
        assert sorted(row["payload"]["n"] for row in database["state-items"].find()) == [7, 8, 9], stored
        assert [row["payload"]["n"] for row in database["memory-items"].find()] == [9] * 4
        assert sorted(row["timestamp"] for row in database["candle-items"].find()) == [index * MINUTE for index in range(11)]


# --- MongoDB: replies out of step ---


@calls
def test_replies_out_of_step(begin, mongod, which):
    """A duplicated reply, or one to an earlier request, leads to an error or the right result; later results are right."""
    command, step = CALLS[which]
    begin(1500)
    numbers = itertools.count()
    for fault in (TWICE, REPLAY, TWICE, REPLAY):
        step(next(numbers))
        mongod.arm(command, fault)
        for _ in range(4):
            with contextlib.suppress(BacktestKitError):
                step(next(numbers))
        again(lambda: step(next(numbers)))
        step(next(numbers))
    assert mongod.met[command] == 4


@calls
def test_bytes_one_by_one(begin, mongod, which):
    """A reply that arrives in single bytes is read normally."""
    command, step = CALLS[which]
    begin()
    fill()
    mongod.arm(command, DRIP, times=3)
    for number in range(3):
        step(number)
    assert mongod.met[command] > 0


def test_a_refused_batch_leaves_nothing_under_way(begin, mongod, wire):
    """All messages sent after a rejected one are finished before anything is sent again: otherwise one could undo a later write."""
    begin()
    signals = kit.PersistSignalAdapter
    batch = [({"n": index}, f"k{index}", "s", "e") for index in range(500)]
    signals.write_many(batch)
    kit.get_mongo().command("collMod", "signal-items", validator={"payload.bad": {"$exists": False}})
    sent = []

    def choose(command):
        if command == "update":
            sent.append(time.monotonic())
            return late(0.5) if len(sent) == 2 else None
        return None

    refused = [({"bad": 1}, "k0", "s", "e"), *(({"n": -index}, f"k{index}", "s", "e") for index in range(1, 500))]
    for _ in range(5):  # on a busy machine a call may get no connection and go through pymongo
        sent.clear()
        mongod.choose = choose
        with pytest.raises(DatabaseError):
            signals.write_many(refused)
        mongod.calm()
        if len(sent) > 1 or not wire:
            break
    if wire:
        assert len(sent) >= 3
        assert sent[2] - sent[1] > 0.5
    assert signals.read_signal_data("k499", "s", "e") == {"n": -499}


@calls
def test_time_out(begin, mongod, which):
    """Without a reply in time the call soon raises ServerTimeoutError; the delayed reply reaches no later call."""
    command, step = CALLS[which]
    begin(1200)
    numbers = itertools.count()
    again(lambda: step(next(numbers)))
    for fault in (STALL, late(1.6)):
        mongod.arm(command, fault)
        started = time.monotonic()
        with pytest.raises(ServerTimeoutError):
            step(next(numbers))
        assert time.monotonic() - started < 15
        until = time.monotonic() + 0.6  # the delayed reply arrives during these
        while time.monotonic() < until:
            again(lambda: step(next(numbers)))
    assert mongod.met[command] == 2


# --- MongoDB: garbled replies ---


def within(reply, name):
    """Return the offset of the value of the first field ``name``."""
    return reply.index(name + b"\0") + len(name) + 1


def frame(reply):
    """Return every offset of a find reply outside its documents: header, flags, and the lengths, types and names of the envelope."""
    first = within(reply, b"firstBatch")
    size = struct.unpack_from("<i", reply, first)[0]
    inside, place = set(), first + 4
    while place < first + size - 1:
        place = reply.index(b"\0", place) + 1
        length = struct.unpack_from("<i", reply, place)[0]
        inside |= set(range(place + 4, place + length - 1))
        place += length
    return [index for index in range(len(reply)) if index not in inside]


LEAKS = (BSONError, LookupError, ValueError)
"""What pymongo's own code raises, beside its errors, for a reply that lacks a field or is no BSON."""


def turned(wire, mongod, command, step, chosen, seed):
    """Flip bits at each ``chosen`` byte of a reply, one reply at a time: each time an error or the right result.

    Return how often it was noticed, by an error or a retry. The cluster time at the end of a replica set's replies is left out: a driver
    that has received a wrong time sends it with each later command, which the server rejects.
    """
    draw = random.Random(seed)
    numbers = itertools.count(1)
    again(lambda: step(next(numbers)))
    before = mongod.seen[command]
    step(next(numbers))
    usual = mongod.seen[command] - before
    noticed = 0
    for position in chosen:
        if 0 <= mongod.good[command].find(b"\x03$clusterTime") <= position:
            continue
        flip = draw.choice([1 << draw.randrange(8), draw.randrange(1, 256)])
        met, seen, failed = mongod.met[command], mongod.seen[command], False
        mongod.arm(command, garbled(position, flip))
        try:
            step(next(numbers))
        except (ServerUnavailableError, DatabaseError):
            failed = True
        except Exception as error:
            if wire or not isinstance(error, LEAKS):
                raise AssertionError(f"byte {position} turned by {flip:#x}: {error!r}") from error
            failed = True
        assert mongod.met[command] == met + 1
        noticed += failed or mongod.seen[command] - seen > usual
        again(lambda: step(next(numbers)))
    return noticed


@pytest.mark.parametrize("which", ["read one", "read by key", "read many", "read storage", "read log", "read candles"])
def test_garbled_frames_of_reads(begin, mongod, wire, which, every):
    """This holds for bits flipped anywhere outside the stored documents. (Inside them no checksum could detect it.)"""
    command, step = CALLS[which]
    begin(1000)
    again(lambda: step(0))
    chosen = frame(mongod.good[command])
    draw = random.Random(which)
    if len(chosen) > 150:
        chosen = chosen[:60] + draw.sample(chosen[60:], 90)
    chosen = chosen[random.randrange(every) :: every]
    assert turned(wire, mongod, command, step, chosen, which) > len(chosen) / 4


@pytest.mark.parametrize("which", ["write one", "insert one", "write many", "write storage", "write candles"])
def test_garbled_replies_to_writes(begin, mongod, wire, which):
    """With bits flipped anywhere in the reply, a write that counts as done is stored."""
    command, step = CALLS[which]
    begin(1000)
    again(lambda: step(0))
    assert turned(wire, mongod, command, step, range(len(mongod.good[command])), which) > 20


def test_garbled_keys_and_ids(begin, mongod, wire):
    """Flipped bits in the key fields and the ``_id`` of a single read by id are detected by the check of each hit."""
    begin(1000)
    again(lambda: read_one(0))
    reply = mongod.good["find"]
    chosen = []
    for name, size in ((b"_id", 12), (b"symbol", 4 + 3), (b"strategyName", 4 + 2), (b"exchangeName", 4 + 2)):
        value = within(reply, name)
        chosen += range(value - len(name) - 1, value + size)
    turned(wire, mongod, "find", read_one, chosen, 1)


# --- Redis ---


def read_shared(step):
    """Read a record with an id from Redis, or by key."""
    default_registry.mongo.process_ids.clear()
    read_one(step)


def read_many_shared(step):
    default_registry.mongo.process_ids.clear()
    read_many(step)


def insert_many(step):
    """Write new records, with one Redis command for their ids, and read them back."""
    items = [({"n": step, "i": index}, f"N{step}.{index}", "b", WHEN) for index in range(4)]
    kit.PersistStateAdapter.write_many(items)
    default_registry.mongo.process_ids.clear()
    same(kit.PersistStateAdapter.read_many([item[1:3] for item in items]), [item[0] for item in items])


SHARED = {
    "read one": ("get", read_shared),
    "read many": ("mget", read_many_shared),
    "write one": ("set", write_one),
    "write many": ("mset", insert_many),
}
shared = pytest.mark.parametrize("which", SHARED)


def redis_errors():
    return sum(counters["redis_errors"] for counters in kit.stats().values())


def met_once(cache, command, before):
    """Assert that exactly one reply to a command met a fault. Nobody waits for the reply to a SET: it may still be on its way."""
    assert wait_for(lambda: cache.met[command] > before)
    assert cache.met[command] == before + 1


def used_again(cache, command, step, numbers, seconds=60):
    """Return whether a command goes to Redis and gets its reply within that time."""
    cache.calm()
    cache.good.pop(command, None)
    until = time.monotonic() + seconds
    while command not in cache.good and time.monotonic() < until:
        step(next(numbers))
        time.sleep(0.02)
    return command in cache.good


@shared
def test_redis_cut(begin, cache, wire, which, every):
    """A reply cut once, at any byte, is retried and not counted; cut twice, it is counted and the call does without Redis."""
    command, step = SHARED[which]
    counted = {0, 1} if wire and which == "write one" else {1}  # the wire protocol does not wait for the reply to a SET
    begin()
    fill()
    numbers = itertools.count()
    assert used_again(cache, command, step, numbers)
    kit.reset_stats()
    for position in places(cache.good[command], every):
        before = cache.met[command]
        cache.arm(command, cut(position))
        step(next(numbers))
        step(next(numbers))
        met_once(cache, command, before)
    assert redis_errors() == 0
    for fault in (LOST, cut(0), cut(3)):
        cache.arm(command, fault, times=2)
        before = redis_errors()
        step(next(numbers))
        assert redis_errors() - before in counted
        assert used_again(cache, command, step, numbers)


@shared
def test_redis_stalls(begin, cache, wire, which):
    """A missing or delayed reply costs one time-out, is counted, and suspends Redis for a while; no reply reaches another call."""
    command, step = SHARED[which]
    counted = {0, 1} if wire and which == "write one" else {1}
    begin(CC_REDIS_TIMEOUT_MS=1000)
    fill()
    numbers = itertools.count()
    for fault in (STALL, late(1.6)):
        assert used_again(cache, command, step, numbers)
        before = redis_errors()
        cache.arm(command, fault)
        started = time.monotonic()
        step(next(numbers))
        assert time.monotonic() - started < 15
        until = time.monotonic() + 0.7  # the delayed reply arrives during these
        while time.monotonic() < until:
            step(next(numbers))
            time.sleep(0.02)
        assert redis_errors() - before in counted
    assert used_again(cache, command, step, numbers)


@shared
def test_redis_bytes_one_by_one(begin, cache, which):
    command, step = SHARED[which]
    begin()
    fill()
    cache.arm(command, DRIP, times=3)
    for number in range(5):
        step(number)
    assert wait_for(lambda: cache.met[command] > 0)
    assert redis_errors() == 0


@shared
def test_redis_out_of_step(begin, cache, which):
    """RESP has no request ids: an extra reply shifts all later ones to other records. The check of each hit detects it."""
    command, step = SHARED[which]
    begin(CC_REDIS_TIMEOUT_MS=5000)
    fill()
    numbers = itertools.count()
    assert used_again(cache, command, step, numbers)
    for fault in (TWICE, REPLAY, TWICE):
        before = cache.met[command]
        cache.arm(command, fault)
        for _ in range(5):
            for _, other in SHARED.values():
                step(next(numbers))
                other(next(numbers))
        met_once(cache, command, before)
    assert used_again(cache, command, step, numbers)


@shared
def test_redis_garbled(begin, cache, which):
    """With bits flipped anywhere in a reply (framing, lengths, types, ids), no call fails and no result is wrong."""
    command, step = SHARED[which]
    draw = random.Random(which)
    numbers = itertools.count()
    begin(CC_REDIS_TIMEOUT_MS=100)
    fill()
    assert used_again(cache, command, step, numbers)
    size = len(cache.good[command])
    noticed = 0
    kit.reset_stats()
    for position in [*range(min(size, 40)), *(draw.randrange(size) for _ in range(30))]:
        flip = draw.choice([1 << draw.randrange(8), draw.randrange(1, 256)])
        before, connections = cache.met[command], cache.connections
        cache.arm(command, garbled(position, flip))
        for _ in range(20):  # on a busy machine 100 ms can pass without a fault, and then Redis is not used for a while
            try:
                step(next(numbers))
                step(next(numbers))
            except Exception as error:
                raise AssertionError(f"byte {position} of {size} turned by {flip:#x}: {error!r}") from error
            if cache.met[command] > before:
                break
            begin(CC_REDIS_TIMEOUT_MS=100)
        met_once(cache, command, before)
        noticed += redis_errors() > 0 or cache.connections > connections
        if redis_errors():
            begin(CC_REDIS_TIMEOUT_MS=100)  # instead of waiting until the outage is over
            kit.reset_stats()
    assert noticed > 0


OTHERS = [b":5\r\n", b"+OK\r\n", b"*0\r\n", b"*-1\r\n", b"*1\r\n:1\r\n", b"*4\r\n" + b":1\r\n" * 4, b",1.5\r\n", b"%0\r\n"]


@shared
def test_redis_other_replies(begin, cache, which):
    """With a complete reply of another kind or length, as for another command, no call fails and no result is wrong."""
    command, step = SHARED[which]
    begin(CC_REDIS_TIMEOUT_MS=5000)
    fill()
    numbers = itertools.count()
    for reply in OTHERS:
        assert used_again(cache, command, step, numbers), reply
        before = cache.met[command]
        cache.arm(command, Fault(lambda right, earlier, reply=reply: (reply,)))
        for _ in range(5):
            step(next(numbers))
        met_once(cache, command, before)
    assert used_again(cache, command, step, numbers)


# --- both, many threads, signals ---


def test_threads_through_a_bad_network(begin, settings, mongod, cache):
    """Eight threads, with replies of both servers cut and delayed at random: reads match writes, and no finished write is lost.

    The server may apply a timed-out write at any later time, if its request was held up on a busy machine. A read that returns such a
    value must match what MongoDB holds, queried without the library and the proxy: then no reply was mixed up.
    """
    begin(100, CC_REDIS_TIMEOUT_MS=50)
    draw = random.Random(7)
    direct = pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"])
    stored = direct.get_default_database()["state-items"]

    def choose(command):
        if command not in {"find", "findandmodify", "update", "get", "set", "mget", "mset"} or draw.random() > 0.08:
            return None
        return draw.choice([LOST, TWICE, cut(draw.randrange(200)), cut(0), late(draw.random() * 0.02), late(0.15), DRIP])

    began, problems, done = time.monotonic(), [], [0] * 8

    def enough():
        return min(done) > 10 and mongod.met["find"] > 10 and mongod.met["findandmodify"] > 10

    def going_on():
        took = time.monotonic() - began
        return took < 2 or (took < 60 and not enough())

    def work(number):
        possible = {key: [None] for key in range(4)}  # what each key may hold: the last finished write, or a failed one after it
        failed = {key: [] for key in range(4)}  # the server may apply one of those later, after a read
        abandoned = {key: set() for key in range(4)}  # all that ever failed

        def is_belated(asked, value):
            row = stored.find_one({"signalId": "bad", "bucketName": f"{number}.{asked}"})
            return value in abandoned[asked] and row["payload"]["n"] in abandoned[asked]

        step = 0
        while going_on():
            step += 1
            key, many = step % 4, step % 8 > 5
            names = [("bad", f"{number}.{key}"), ("bad", f"{number}.{key}+")]
            try:
                if many:
                    kit.PersistStateAdapter.write_many([({"n": step}, *name, WHEN) for name in names])
                else:
                    kit.PersistStateAdapter.write_state_data({"n": step}, *names[0], WHEN)
                possible[key], failed[key] = [step], []
            except BacktestKitError:
                possible[key].append(step)
                failed[key].append(step)
                abandoned[key].add(step)
            default_registry.mongo.process_ids.clear()
            for asked in (key, (key + 1) % 4):
                name = ("bad", f"{number}.{asked}")
                try:
                    row = kit.PersistStateAdapter.read_many([name, names[1]])[0] if many else kit.PersistStateAdapter.read_state_data(*name)
                except BacktestKitError:
                    continue
                number_read = None if row is None else row["n"]
                if number_read not in possible[asked] and not is_belated(asked, number_read):
                    problems.append((number, asked, number_read, possible[asked]))
                possible[asked] = [number_read, *failed[asked]]
                done[number] += 1
        mongod.calm()
        cache.calm()
        for key, values in possible.items():
            row = again(lambda key=key: kit.PersistStateAdapter.read_state_data("bad", f"{number}.{key}"))
            value = None if row is None else row["n"]
            if value not in values and not is_belated(key, value):
                problems.append(("at the end", number, key, row, values))

    def guarded(number):
        try:
            work(number)
        except Exception as error:  # noqa: BLE001 - the test reports every kind of error
            problems.append(repr(error))

    mongod.choose = cache.choose = choose
    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    direct.close()
    assert problems == []
    assert enough(), (done, mongod.met)


@pytest.mark.parametrize("which", ["read one", "read by key", "write one", "read many", "write many", "read candles", "get", "mget"])
def test_interrupt(begin, mongod, cache, which):
    """Ctrl+C while a call waits for a reply interrupts it at once, and that reply reaches no later call."""
    begin(60_000, CC_REDIS_TIMEOUT_MS=60_000)
    fill()
    shared = {"get": "read one", "mget": "read many"}.get(which)
    command, step = CALLS[which] if shared is None else SHARED[shared]
    for number in range(5):
        step(number)
    proxy = mongod if shared is None else cache
    main = threading.get_ident()
    for number in range(5, 8):
        before = proxy.met[command]
        proxy.arm(command, late(30.0 if number == 5 else 5.0))

        def interrupt(before=before):
            if wait_for(lambda: proxy.met[command] > before):
                signal.pthread_kill(main, signal.SIGINT)

        interrupter = threading.Thread(target=interrupt)
        started = time.monotonic()
        interrupter.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                step(number)
            took = time.monotonic() - started
        finally:
            interrupter.join()
        assert proxy.met[command] == before + 1
        assert took < 15
        for other in range(5):
            again(lambda other=other, number=number: step(number + 1 + other))


@pytest.mark.parametrize("command", ["get", "find"])
def test_handler_that_reads_inside_of_a_read(begin, mongod, cache, command):
    """A signal handler that reads while its thread waits for a reply gets the right result, and so do the thread and all later calls."""
    begin(CC_PROCESS_IDS=0 if command == "get" else 100)
    contexts = [("S", str(number), "E") for number in range(4)]
    for context in contexts:
        kit.PersistSignalAdapter.write_signal_data({"n": context[1]}, *context)
        kit.PersistSignalAdapter.read_signal_data(*context)
    answers = []

    def handler(*_):
        answers.append([kit.PersistSignalAdapter.read_signal_data(*context)["n"] for context in contexts[1:]])

    before = signal.signal(signal.SIGALRM, handler)
    try:
        (cache if command == "get" else mongod).arm(command, late(0.3))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert kit.PersistSignalAdapter.read_signal_data(*contexts[0]) == {"n": "0"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert answers == [["1", "2", "3"]]
    for context in contexts * 3:
        assert kit.PersistSignalAdapter.read_signal_data(*context) == {"n": context[1]}
    assert kit.stats()["signal"]["redis_errors"] == 0
