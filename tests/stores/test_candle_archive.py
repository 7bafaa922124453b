"""CC_CANDLE_FORMAT=packed: whole blocks of candles are stored packed only, beside documents, in any mixture."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from urllib.parse import quote

import numpy as np
import pymongo
import pytest
from argument_mongo import ArgumentMongo
from connection_strings import with_options
from killed_candles import BLOCK, FIRST, MINUTE, SERIES, at, candles, read

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import list_candles, pack_candles, remove_candles, unpack_candles, verify_candles
from backtest_kit_mongo.runner.market.candle_series import count_candles
from backtest_kit_mongo.stores.mongo import block_collection

SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20261129"))
KEY = ("binance", "BTCUSDT", "1m")


@pytest.fixture
def packing(settings):
    """Set up the library with CC_CANDLE_FORMAT=packed; return the settings."""
    packed_settings = {**settings, "CC_CANDLE_FORMAT": "packed"}
    kit.setup(packed_settings)
    return packed_settings


@pytest.fixture
def join():
    """A function that opens another registry, as another process would have one."""
    with ExitStack() as opened:

        def join(settings, **more):
            registry = kit.Registry()
            registry.setup({**settings, **more})
            opened.callback(registry.close)
            return registry

        yield join


def write(start, end, registry=kit, **more):
    registry.PersistCandleAdapter.write_candles_data(candles(start, end, **more), *SERIES)


def read_by(registry, start, end):
    registry.PersistCandleAdapter.clear()
    return registry.PersistCandleAdapter.read_candles_array(*SERIES, end - start, at(start))


def assert_stored(start, end, **more):
    stored = read(start, end)
    assert stored is not None
    assert stored.tobytes() == candles(start, end, **more).tobytes()


def items():
    return kit.get_mongo()["candle-items"]


def documents():
    return kit.get_mongo()["candle-archive"]


def archived():
    """Return the archived blocks: number, counted from FIRST -> runs."""
    return {row["block"] - FIRST: [tuple(run) for run in row["runs"]] for row in documents().find({"codec": "decimal"})}


WHOLE = [(0, BLOCK)]


# --- what is stored where ---


def test_whole_blocks_are_packed_only(packing):
    write(500, 3 * BLOCK + 200)
    assert archived() == {0: [(500, BLOCK - 500)], 1: WHOLE, 2: WHOLE}
    assert items().count_documents({}) == 200
    assert_stored(500, 3 * BLOCK + 200)
    assert read(499, 600) is None
    assert read(3 * BLOCK, 3 * BLOCK + 201) is None


def test_a_part_of_a_block_grows(packing):
    """The first candles are packed, those of later writes are documents, until the block is complete."""
    write(0, 1000)
    assert archived() == {0: [(0, 1000)]}
    write(500, 3000, shift=1)
    assert archived() == {0: [(0, 1000)]}
    assert items().count_documents({}) == 2000
    write(0, BLOCK, shift=2)
    assert archived() == {0: WHOLE}
    assert items().count_documents({}) == 0
    assert_stored(0, 1000)
    assert_stored(1000, 3000, shift=1)
    assert_stored(3000, BLOCK, shift=2)


def test_a_growing_block_is_packed_when_it_is_complete(packing):
    for start in range(0, BLOCK, 128):
        assert archived() == {}
        write(start, start + 128)
    assert archived() == {0: WHOLE}
    assert items().count_documents({}) == 0
    assert_stored(0, BLOCK)


def test_an_import_with_holes(packing):
    rows = candles(0, 2 * BLOCK)
    rows = np.delete(rows, [10, 11, 12, 3000, BLOCK])
    kit.PersistCandleAdapter.write_candles_data(rows, *SERIES)
    assert archived() == {0: [(0, 10), (13, 2987), (3001, BLOCK - 3001)], 1: [(1, BLOCK - 1)]}
    assert read(0, 11) is None
    assert_stored(13, 3000)
    assert_stored(3001, BLOCK)
    write(0, 2 * BLOCK, shift=1)  # the holes get other values
    assert archived() == {0: WHOLE, 1: WHOLE}
    assert_stored(10, 13, shift=1)
    assert_stored(0, 10)
    assert_stored(BLOCK, BLOCK + 1, shift=1)


def test_first_write_wins_in_both_places(packing):
    write(0, 100)
    write(0, 2 * BLOCK, shift=1)  # a block that has begun: the others follow as documents, and it is complete
    assert archived() == {0: WHOLE, 1: WHOLE}
    write(0, 3 * BLOCK, shift=2)
    assert_stored(0, 100)
    assert_stored(100, 2 * BLOCK, shift=1)
    assert_stored(2 * BLOCK, 3 * BLOCK, shift=2)
    assert kit.stats()["candle"]["writes"] == 3 * BLOCK


def test_everything_that_reads_candles_reads_the_archive(packing, tmp_path):
    write(500, 2 * BLOCK + 300)
    write(2 * BLOCK + 310, 2 * BLOCK + 320)
    (series,) = list_candles()
    assert (series.candles, series.since_ms, series.until_ms, len(series.gaps)) == (2 * BLOCK - 190, at(500), at(2 * BLOCK + 320), 1)
    assert count_candles(*SERIES, at(BLOCK - 10), at(BLOCK + 10)) == 20
    rows = kit.records("candle", {"symbol": "BTCUSDT"}, sort={"timestamp": -1}, limit=3)
    assert [row["timestamp"] for row in rows] == [at(2 * BLOCK + 319 - index) for index in range(3)]
    assert kit.records("candle", {"timestamp": at(600)})[0]["close"] == candles(600, 601)["close"][0]
    window = {"symbol": {"$in": ["BTCUSDT"]}, "timestamp": {"$gt": at(BLOCK - 2), "$lte": at(BLOCK + 1)}}
    assert [row["timestamp"] for row in kit.records("candle", window)] == [at(BLOCK - 1), at(BLOCK), at(BLOCK + 1)]
    assert kit.records("candle", {"symbol": {"$ne": "BTCUSDT"}}) == []
    with pytest.raises(kit.InvalidValueError, match="archive"):
        kit.records("candle", {"symbol": {"$regex": "^BTC"}})
    stored = np.concatenate(list(default_registry.mongo.stored_candles(KEY)))
    assert stored.tobytes() == np.concatenate([candles(500, 2 * BLOCK + 300), candles(2 * BLOCK + 310, 2 * BLOCK + 320)]).tobytes()
    part = np.concatenate(list(default_registry.mongo.stored_candles(KEY, at(BLOCK - 7), at(BLOCK + 3))))
    assert part.tobytes() == candles(BLOCK - 7, BLOCK + 3).tobytes()


def test_another_format_reads_and_keeps_what_is_there(packing, settings, join):
    """Documents that a process with the other format writes are found, and it writes nothing that is in the archive."""
    other = join(settings)
    write(0, 2 * BLOCK)
    write(0, 3 * BLOCK, other, shift=1)
    assert items().count_documents({}) == BLOCK
    assert (
        read_by(other, 0, 3 * BLOCK).tobytes() == np.concatenate([candles(0, 2 * BLOCK), candles(2 * BLOCK, 3 * BLOCK, shift=1)]).tobytes()
    )
    assert_stored(2 * BLOCK, 3 * BLOCK, shift=1)
    assert kit.get_mongo()["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 1
    write(0, 3 * BLOCK, shift=2)
    assert_stored(2 * BLOCK, 3 * BLOCK, shift=1)


def test_candles_that_have_not_closed_stay_documents(packing):
    """A block that is still open is neither inserted as a whole nor moved."""
    now = time.time_ns() // 1_000_000 // MINUTE
    first = now // BLOCK * BLOCK
    rows = np.concatenate([candles(0, BLOCK)] * 2)
    rows["timestamp"] = (first - BLOCK + np.arange(2 * BLOCK)) * MINUTE
    rows = rows[rows["timestamp"] < (now - 1) * MINUTE]
    kit.PersistCandleAdapter.write_candles_data(rows, *SERIES)
    list(pack_candles())
    assert [row["block"] for row in documents().find({"codec": "decimal"})] == [first // BLOCK - 1]
    assert items().count_documents({}) == len(rows) - BLOCK
    kit.PersistCandleAdapter.clear()
    assert len(kit.PersistCandleAdapter.read_candles_array(*SERIES, len(rows), int(rows["timestamp"][0]))) == len(rows)


# --- pack and unpack ---


def test_pack_and_unpack(settings):
    kit.setup(settings)
    write(100, 2 * BLOCK + 200)
    before = {row["timestamp"]: row["close"] for row in items().find()}
    kit.setup({**settings, "CC_CANDLE_FORMAT": "packed"})
    assert [outcome.blocks for outcome in pack_candles(dry_run=True)] == [2]
    assert archived() == {}
    assert [outcome.blocks for outcome in pack_candles()] == [2]
    assert archived() == {0: [(100, BLOCK - 100)], 1: WHOLE}
    assert items().count_documents({}) == 200
    assert kit.get_mongo()["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 0
    assert_stored(100, 2 * BLOCK + 200)
    assert [outcome.blocks for outcome in pack_candles()] == [0]
    assert [(outcome.blocks, outcome.problems) for outcome in verify_candles()] == [(2, {})]
    kit.setup(settings)
    assert_stored(100, 2 * BLOCK + 200)
    assert [outcome.blocks for outcome in unpack_candles(dry_run=True)] == [2]
    assert [outcome.blocks for outcome in unpack_candles()] == [2]
    assert archived() == {}
    assert {row["timestamp"]: row["close"] for row in items().find()} == before
    assert_stored(100, 2 * BLOCK + 200)
    assert list(unpack_candles()) == []


def test_pack_deletes_what_an_interrupted_move_left(packing):
    """The documents of candles that are in the archive too; those of its holes stay until they are moved."""
    write(0, BLOCK)
    kit.PersistCandleAdapter.clear()
    fields = dict(zip(("exchangeName", "symbol", "interval"), KEY, strict=True))
    names = candles(0, 1).dtype.names
    items().insert_many([{**fields, **dict(zip(names, row, strict=True))} for row in candles(10, 20, shift=9).tolist()])
    items().insert_one({**fields, **dict(zip(names, candles(30, 31, shift=9).tolist()[0], strict=True)), "timestamp": at(30) + 1})
    assert_stored(0, BLOCK)
    assert count_candles(*SERIES) == BLOCK
    assert next(iter(verify_candles())).problems[FIRST].startswith("10 documents of its times have other values")
    assert [outcome.blocks for outcome in pack_candles()] == [0]
    assert [row["timestamp"] for row in items().find()] == [at(30) + 1]  # another program's, off the grid
    assert [outcome.problems for outcome in verify_candles()] == [{}]


def test_unpack_prefers_the_archive(packing, settings):
    """A document of the same time that nobody has read is replaced."""
    write(0, BLOCK)
    fields = dict(zip(("exchangeName", "symbol", "interval"), KEY, strict=True))
    items().insert_many([{**fields, **dict(zip(candles(0, 1).dtype.names, row, strict=True))} for row in candles(10, 20, shift=9).tolist()])
    kit.setup(settings)
    assert [outcome.blocks for outcome in unpack_candles()] == [1]
    assert_stored(0, BLOCK)
    assert items().count_documents({}) == BLOCK


# --- removal ---


def test_removed_candles_are_gone(packing):
    write(0, 3 * BLOCK + 100)
    assert remove_candles(*SERIES, at(1000), at(2 * BLOCK + 1000)) == 2 * BLOCK
    assert archived() == {0: [(0, 1000)], 2: [(1000, BLOCK - 1000)]}
    assert_stored(0, 1000)
    assert_stored(2 * BLOCK + 1000, 3 * BLOCK + 100)
    assert read(999, 1001) is None
    assert read(BLOCK, BLOCK + 1) is None
    assert count_candles(*SERIES) == BLOCK + 100
    write(0, 3 * BLOCK, shift=1)
    assert_stored(1000, 2 * BLOCK + 1000, shift=1)
    assert archived() == {0: WHOLE, 1: WHOLE, 2: WHOLE}
    assert remove_candles(*SERIES) == 3 * BLOCK + 100
    assert list(list_candles()) == []
    assert archived() == {}


def test_nothing_is_removed_while_another_process_unpacks(packing, monkeypatch):
    write(0, BLOCK)
    archive = default_registry.mongo.candles.archive
    version = archive.version(KEY, FIRST)
    assert archive.begin_unpacking(KEY, FIRST, version, archive.new_token()) is not None
    with pytest.raises(kit.DatabaseError, match="are being unpacked by another process"):
        remove_candles(*SERIES)
    assert_stored(0, BLOCK)
    archive._asked, ahead = time.monotonic(), archive._ahead
    archive._ahead = ahead + block_collection.LONG_AGO + 2  # an hour later
    default_registry.mongo.candles.packed._ahead, default_registry.mongo.candles.packed._asked = archive._ahead, archive._asked
    assert remove_candles(*SERIES) == BLOCK


def test_nothing_is_unpacked_during_a_removal(packing):
    write(0, BLOCK)
    archive = default_registry.mongo.candles.archive
    token = archive.new_token()
    archive.begin_removal(KEY, [FIRST], token)
    with pytest.raises(kit.DatabaseError, match="being removed by another process"):
        list(unpack_candles())
    archive.end_removal(KEY, [FIRST], token)
    assert [outcome.blocks for outcome in unpack_candles()] == [1]


# --- damage ---

DAMAGE = {
    "truncated": lambda row: {"data": row["data"][:-9]},
    "one bit": lambda row: {"data": row["data"][:100] + bytes([row["data"][100] ^ 4]) + row["data"][101:]},
    "no bytes": lambda row: {"data": "text"},
    "checksum": lambda row: {"checksum": row["checksum"] ^ 1},
    "codec": lambda row: {"codec": "pco"},
    "format": lambda row: {"format": 2},
    "fewer candles": lambda row: {"runs": [[0, BLOCK - 1]]},
    "huge": lambda row: {"runs": [[0, 2**62]]},
    "runs of text": lambda row: {"runs": "ab"},
    "another block's": lambda row: {"data": documents().find_one({"block": FIRST})["data"]},
    "version": lambda row: {"version": "text"},
    "a double": lambda row: {"block": float(row["block"])},
    "no codec": lambda row: {"codec": None},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_block_is_an_error(name, packing, settings, join):
    """Its candles are stored nowhere else: it is named, nothing is dropped, and everything else is read."""
    other = join(settings)
    write(0, 3 * BLOCK)
    row = documents().find_one({"block": FIRST + 1})
    documents().update_one({"_id": row["_id"]}, {"$set": DAMAGE[name](row)})
    for registry in (kit, other):
        for start, end in ((0, 3 * BLOCK), (BLOCK, BLOCK + 10), (BLOCK - 1, BLOCK + 1)):
            with pytest.raises(
                kit.DatabaseError, match=f"archived block {FIRST + 1} of BTCUSDT 1m(.|\n)*restore the document from a backup"
            ):
                read_by(registry, start, end)
        assert read_by(registry, 0, BLOCK).tobytes() == candles(0, BLOCK).tobytes()
        assert read_by(registry, BLOCK - 3, BLOCK).tobytes() == candles(BLOCK - 3, BLOCK).tobytes()
        assert read_by(registry, 2 * BLOCK, 3 * BLOCK).tobytes() == candles(2 * BLOCK, 3 * BLOCK).tobytes()
        assert read_by(registry, 3 * BLOCK - 1, 3 * BLOCK + 1) is None
    for work in (lambda: list(list_candles()), lambda: list(unpack_candles())):
        with pytest.raises(kit.DatabaseError, match=f"archived block {FIRST + 1}"):
            work()
    if name != "version":  # which a removal renews
        with pytest.raises(kit.DatabaseError, match=f"archived block {FIRST + 1}"):
            remove_candles(*SERIES, at(BLOCK), at(BLOCK + 5))
    assert any("stored nowhere else" in problem for outcome in verify_candles() for problem in outcome.problems.values())
    assert documents().count_documents({"codec": {"$exists": True}}) >= 2
    remove_candles(*SERIES, at(BLOCK), at(2 * BLOCK))
    write(BLOCK, 2 * BLOCK)
    assert_stored(0, 3 * BLOCK)


def test_a_user_without_rights_is_told(tmp_path, settings):
    with ArgumentMongo(tmp_path / "mongo", "--auth") as server:
        with pymongo.MongoClient(server.uri()) as client:
            client.admin.command("createUser", "root", pwd="pw", roles=["root"])
        where = quote(server.socket, safe="")
        with pymongo.MongoClient(f"mongodb://root:pw@{where}/admin") as client:
            actions = ["find", "insert", "update", "remove", "createIndex", "createCollection", "listIndexes"]
            privileges = [{"resource": {"db": "some", "collection": "candle-items"}, "actions": actions}]
            client["some"].command("createRole", "candles", privileges=privileges, roles=[])
            client["some"].command("createUser", "trader", pwd="pw", roles=["candles"])
        string = f"mongodb://trader:pw@{where}/some?authSource=some"
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": string, "CC_CANDLE_FORMAT": "packed"})
        for work in (lambda: write(0, BLOCK), lambda: read(0, BLOCK)):
            with pytest.raises(kit.DatabaseError, match=r"not authorized(.|\n)*candle-archive"):
                work()
        kit.close()


# --- mixtures ---


@pytest.mark.parametrize("more", [{}, {"CC_CANDLE_MEMORY_MB": 0}, {"CC_REDIS_IDS": "all"}], ids=str)
def test_a_model_of_mixtures(settings, join, more, long):
    """Three processes with both formats write overlapping windows, remove, pack, unpack, verify and read: first write wins."""
    rng = random.Random(SEED)
    kit.setup({**settings, **more})
    registries = [default_registry, join(settings, CC_CANDLE_FORMAT="packed", **more), join(settings, CC_CANDLE_FORMAT="packed")]
    size = 4 * BLOCK
    stored = np.full(size, np.nan)
    moved = 0
    turns = 150 if long else 50
    for turn in range(turns):
        registry = rng.choice(registries)
        start = rng.randrange(size)
        end = min(size, start + rng.choice((1, 50, 1500, 3000, BLOCK, 9000)))
        action = rng.random()
        if action < 0.45:
            chosen = candles(start, end, shift=float(turn))
            if rng.random() < 0.4:
                chosen = chosen[np.random.default_rng(turn).random(len(chosen)) < 0.999]
            registry.PersistCandleAdapter.write_candles_data(chosen, *SERIES)
            positions = chosen["timestamp"] // MINUTE - FIRST * BLOCK
            stored[positions] = np.where(np.isnan(stored[positions]), turn, stored[positions])
        elif action < 0.55:
            end = min(size, start + rng.choice((1, 2000, 5000)))
            assert remove_candles(*SERIES, at(start), at(end), registry=registry) == (~np.isnan(stored[start:end])).sum()
            stored[start:end] = np.nan
            for other in registries:
                other.PersistCandleAdapter.clear()
        elif action < 0.65:
            moved += sum(outcome.blocks for outcome in pack_candles(registry=registry))
        elif action < 0.75:
            moved += sum(outcome.blocks for outcome in unpack_candles(registry=registry))
        elif action < 0.8:
            assert all(outcome.problems == {} for outcome in verify_candles(registry=registry))
        for reader in registries:
            if rng.random() < 0.5:
                reader.PersistCandleAdapter.clear()
            candles_read = reader.PersistCandleAdapter.read_candles_array(*SERIES, end - start, at(start))
            expected = stored[start:end]
            if np.isnan(expected).any():
                assert candles_read is None
            else:
                assert candles_read["close"].tolist() == (candles(start, end)["close"] + expected).tolist()
        if turn % 10 == 0:
            assert count_candles(*SERIES, registry=registry) == (~np.isnan(stored)).sum()
    assert moved > turns // 15
    list(unpack_candles())
    assert archived() == {}
    assert {row["timestamp"] for row in items().find()} == {at(position) for position in np.flatnonzero(~np.isnan(stored)).tolist()}


def test_writers_of_both_formats_at_once(settings, join, long):
    """While two processes move candles to and fro, writers race for the same candles; nobody ever reads two values of one candle.

    A mongod that gets the same keys from several writers retries its inserts one by one: up to 99 conflicts were counted in one command,
    and on a busy machine a command has taken over a minute. A mover that begins again too often refuses, with everything in its place.
    """
    settings = {**settings, "CC_MONGO_CONNECTION_STRING": with_options(settings, "socketTimeoutMS=600000")}
    size = 3 * BLOCK
    registries = [join(settings, CC_CANDLE_FORMAT=("items", "packed")[number % 2], CC_CANDLE_MEMORY_MB=0) for number in range(7)]
    seen = np.full(size, np.nan)
    written = np.zeros(size, bool)
    lock, done = threading.Lock(), threading.Event()
    reads, moves = [0] * 7, [0] * 7  # by each worker

    def writer(number, registry):
        rng = random.Random(SEED + number)
        while not done.is_set():
            start = rng.randrange(size)
            end = min(size, start + rng.choice((1, 30, 700, BLOCK, 2 * BLOCK)))
            write(start, end, registry, shift=number)
            with lock:
                written[start:end] = True

    def mover(number, registry):
        while not done.is_set():
            with suppress(kit.ServerUnavailableError):
                for outcome in (pack_candles if number % 2 else unpack_candles)(registry=registry):
                    moves[number] += outcome.blocks

    def reader(number, registry):
        rng = random.Random(SEED + number)
        while not done.is_set():
            start = rng.randrange(size)
            end = min(size, start + rng.choice((1, 100, 2500, BLOCK)))
            with lock:
                must = written[start:end].all()
                before = seen[start:end].copy()
            candles_read = registry.PersistCandleAdapter.read_candles_array(*SERIES, end - start, at(start))
            if candles_read is None:
                assert not must, f"[{start}, {end}) is lost"
                continue
            reads[number] += 1
            values = candles_read["close"] - candles(start, end)["close"]
            known = ~np.isnan(before)
            assert (values[known] == before[known]).all(), f"[{start}, {end}) changed"
            assert np.isin(values, range(8)).all()
            with lock:
                seen[start:end] = values

    def until_done(work, number, registry):
        try:
            work(number, registry)
        finally:
            done.set()

    work = [writer, writer, writer, reader, reader, mover, mover]
    with ThreadPoolExecutor(len(work)) as executor:
        futures = [executor.submit(until_done, job, number, registries[number]) for number, job in enumerate(work)]
        began, least = time.monotonic(), 10 if long else 4
        while not done.wait(1) and (time.monotonic() < began + least or sum(reads) < 20 or sum(moves) < 5):
            if time.monotonic() > began + 300:
                break
        done.set()
    for future in futures:
        future.result()
    assert sum(reads) >= 20
    assert sum(moves) >= 5
    kit.setup({**settings, "CC_CANDLE_FORMAT": "packed"})
    list(pack_candles())
    for start in range(0, size, 512):
        if written[start : start + 512].all():
            candles_read = read(start, start + 512)
            values = candles_read["close"] - candles(start, start + 512)["close"]
            known = ~np.isnan(seen[start : start + 512])
            assert (values[known] == seen[start : start + 512][known]).all()
    assert [outcome.problems for outcome in verify_candles()] == [{}]
    list(pack_candles())
    assert items().count_documents({}) < BLOCK
