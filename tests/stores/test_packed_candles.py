"""Packed blocks beside the candle documents: cold reads use them, and never return anything but what the documents hold."""

from __future__ import annotations

import os
import random
import threading
import time
from itertools import pairwise
from urllib.parse import quote

import numpy as np
import pymongo
import pytest
from argument_mongo import ArgumentMongo
from bson import Binary
from bson.datetime_ms import DatetimeMS
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, OperationFailure

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE, INTERVAL_MS
from backtest_kit_mongo.candles.packing import BLOCK
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import pack_candles, remove_candles, verify_candles
from backtest_kit_mongo.stores.mongo import block_collection, packed_candles
from backtest_kit_mongo.stores.mongo.block_collection import Span

MINUTE = 60_000
LENGTH = BLOCK * MINUTE
FIRST = 1_677_628_800_000 // LENGTH  # a block of March 2023
SERIES = ("binance", "BTCUSDT", "1m")
SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20261129"))

pytestmark = pytest.mark.usefixtures("mongo")


def candles(start, end, shift=0.0):
    """Return the candles of the positions [start, end), counted from the beginning of block FIRST."""
    positions = np.arange(start, end)
    rows = np.empty(len(positions), CANDLE_DTYPE)
    rows["timestamp"] = (FIRST * BLOCK + positions) * MINUTE
    price = np.round(20_000 + 50 * np.sin(positions / 700) + positions % 17 / 4 + shift, 2)
    for name, move in (("open", 0.0), ("high", 3.25), ("low", -2.5), ("close", 1.75)):
        rows[name] = price + move
    rows["volume"] = positions % 101 / 8
    return rows


def write(start, end, **more):
    kit.PersistCandleAdapter.write_candles_data(candles(start, end, **more), "BTCUSDT", "1m", "binance")


def read(start, end):
    """Return candles as a new process would, without those in memory; None if one is missing."""
    kit.PersistCandleAdapter.clear()
    return kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", end - start, (FIRST * BLOCK + start) * MINUTE)


def assert_stored(start, end, **more):
    stored = read(start, end)
    assert stored is not None
    assert stored.tobytes() == candles(start, end, **more).tobytes()


def items():
    return kit.get_mongo()["candle-items"]


def documents():
    return kit.get_mongo()["candle-blocks"]


def packed():
    """Return the stored blocks: number, counted from FIRST -> (first position, number of candles)."""
    return {row["block"] - FIRST: tuple(row["runs"][0]) for row in documents().find({"codec": "decimal"})}


def at(position):
    return {"timestamp": (FIRST * BLOCK + position) * MINUTE}


# --- when blocks are packed ---


def test_an_import_packs_the_blocks_that_it_completes():
    """The blocks at the edges are packed too if most of them is there."""
    write(1000, 3 * BLOCK + 500)
    assert packed() == {0: (1000, BLOCK - 1000), 1: (0, BLOCK), 2: (0, BLOCK)}
    assert_stored(1000, 3 * BLOCK + 500)


def test_a_cold_read_packs_what_others_stored():
    """The documents may come from the TypeScript package, which stores whole numbers as integers."""
    rows = candles(0, BLOCK + 10)
    for row in rows:
        row["open"] = round(float(row["open"]))
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    items().insert_many([{**fields, **dict(zip(CANDLE_DTYPE.names, row, strict=True)), "open": int(row[1])} for row in rows.tolist()])
    for _ in range(2):
        assert read(0, BLOCK + 10).tobytes() == rows.tobytes()
        assert packed() == {0: (0, BLOCK)}


def test_a_cold_read_comes_from_the_blocks():
    """Only the rest is read from documents, as their absence shows."""
    write(0, 3 * BLOCK)
    items().delete_many({})
    assert_stored(0, 3 * BLOCK)
    assert_stored(BLOCK - 5, BLOCK + 5)
    assert_stored(7, 8)
    assert read(0, 3 * BLOCK + 1) is None
    assert read(-1, 5) is None


def test_short_windows_pack_nothing():
    write(0, 1000)
    assert_stored(0, 1000)
    assert packed() == {}


def test_a_block_that_grows_is_packed_again():
    for end in (2500, 2600, 3000, BLOCK):
        write(0, end)
        assert_stored(0, end)
    assert packed() == {0: (0, BLOCK)}
    assert documents().count_documents({}) == 1


def test_a_hole_that_is_filled_later():
    """The part before a hole is packed; the part behind it is read from documents until the hole is filled."""
    rows = candles(0, BLOCK)
    kit.PersistCandleAdapter.write_candles_data(rows[np.arange(BLOCK) != 3000], "BTCUSDT", "1m", "binance")
    assert packed() == {0: (0, 3000)}
    assert read(0, BLOCK) is None
    assert_stored(3001, BLOCK)
    write(3000, 3001)
    assert_stored(0, BLOCK)
    assert packed() == {0: (0, BLOCK)}


def test_a_block_that_has_not_closed_is_not_packed():
    """Its last candle is missing anyway, but a store may be asked to copy candles that have not closed."""
    step, now = MINUTE, time.time_ns() // 1_000_000
    start = (now // LENGTH) * LENGTH
    rows = candles(0, (now - start) // step)
    rows["timestamp"] = start + np.arange(len(rows)) * step
    kit.PersistCandleAdapter.write_candles_data(rows, "BTCUSDT", "1m", "binance")
    kit.PersistCandleAdapter.clear()
    if len(rows):
        assert kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", len(rows), start).tobytes() == rows.tobytes()
    assert documents().count_documents({}) == 0


def test_blocks_of_a_span():
    step = MINUTE
    assert Span(0, 1, step).blocks(10 * LENGTH) == range(1)
    assert Span(LENGTH - step, LENGTH + step, step).blocks(10 * LENGTH) == range(2)
    assert Span(LENGTH - step, LENGTH + step, step).blocks(2 * LENGTH - 1) == range(1)
    assert Span(-step, LENGTH, step).blocks(LENGTH) == range(-1, 1)


def test_every_interval_and_times_before_1970():
    """A block of days is eleven years long."""
    for interval, step in INTERVAL_MS.items():
        start = -BLOCK * step
        rows = candles(0, BLOCK)
        rows["timestamp"] = start + np.arange(BLOCK) * step
        kit.PersistCandleAdapter.write_candles_data(rows, "OLD", interval, "e")
        kit.PersistCandleAdapter.clear()
        assert kit.PersistCandleAdapter.read_candles_array("OLD", interval, "e", BLOCK, start).tobytes() == rows.tobytes()
    assert documents().count_documents({"block": -1, "symbol": "OLD"}) == len(INTERVAL_MS)


# --- the first write wins ---


def test_values_of_a_second_import_are_ignored():
    write(0, 2 * BLOCK)
    write(BLOCK, 3 * BLOCK, shift=7.0)
    assert_stored(0, 2 * BLOCK)
    assert_stored(2 * BLOCK, 3 * BLOCK, shift=7.0)


def test_a_repeated_import_in_a_new_process_inserts_nothing(settings):
    """It counts what the blocks hold, and looks at the rest."""
    write(1000, 3 * BLOCK + 500)
    before = items().count_documents({})
    other = kit.Registry()
    other.setup(settings)
    try:
        other.PersistCandleAdapter.write_candles_data(candles(1000, 3 * BLOCK + 501), "BTCUSDT", "1m", "binance")
        assert other.stats()["candle"]["writes"] == 1
    finally:
        other.close()
    assert items().count_documents({}) == before + 1


@pytest.mark.parametrize("more", [{}, {"CC_CANDLE_MEMORY_MB": 0}, {"CC_REDIS_IDS": "all"}], ids=str)
def test_a_model_of_writers_and_readers(settings, more):
    """Two processes write overlapping windows with different values, read, forget, drop blocks, pack and verify: first write wins."""
    rng = random.Random(SEED)
    kit.setup({**settings, **more})
    other = kit.Registry()
    other.setup(settings)
    size = 4 * BLOCK
    stored = np.full(size, np.nan)
    try:
        for turn in range(100):
            registry = rng.choice((default_registry, other))
            adapter = registry.PersistCandleAdapter
            start = rng.randrange(size)
            end = min(size, start + rng.choice((1, 50, 1500, 3000, BLOCK, 9000)))
            action = rng.random()
            if action < 0.5:
                chosen = candles(start, end, shift=float(turn))
                if rng.random() < 0.4:
                    chosen = chosen[np.random.default_rng(turn).random(len(chosen)) < 0.999]
                adapter.write_candles_data(chosen, "BTCUSDT", "1m", "binance")
                positions = chosen["timestamp"] // MINUTE - FIRST * BLOCK
                stored[positions] = np.where(np.isnan(stored[positions]), turn, stored[positions])
            elif action < 0.6:
                adapter.clear()
            elif action < 0.65:
                registry.mongo.candles.drop_packed()
            elif action < 0.7:
                list(pack_candles(registry=registry))
            elif action < 0.75:
                assert [outcome.problems for outcome in verify_candles(registry=registry)] in ([], [{}])
            for reader in (default_registry, other):
                if rng.random() < 0.5:
                    reader.PersistCandleAdapter.clear()
                candles_read = reader.PersistCandleAdapter.read_candles_array(
                    "BTCUSDT", "1m", "binance", end - start, (FIRST * BLOCK + start) * MINUTE
                )
                expected = stored[start:end]
                if np.isnan(expected).any():
                    assert candles_read is None
                else:
                    whole = candles(start, end)
                    for value in set(expected.tolist()):
                        same = expected == value
                        whole[same] = candles(start, end, shift=value)[same]
                    assert candles_read.tobytes() == whole.tobytes()
        assert (~np.isnan(stored)).sum() == items().count_documents({})
        list(pack_candles())
        assert packed()
        assert [outcome.problems for outcome in verify_candles()] == [{}]
    finally:
        other.close()


def test_many_processes_import_the_same(settings):
    """Threads with registries of their own import different values at once; each reader sees what the documents hold."""
    registries = [kit.Registry() for _ in range(4)]
    for registry in registries:
        registry.setup(settings)
    try:
        start = threading.Barrier(4)

        def work(shift, registry):
            start.wait()
            registry.PersistCandleAdapter.write_candles_data(candles(0, 2 * BLOCK, shift=float(shift)), "BTCUSDT", "1m", "binance")

        threads = [threading.Thread(target=work, args=work_of) for work_of in enumerate(registries)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stored = read(0, 2 * BLOCK)
        assert items().count_documents({}) == 2 * BLOCK == len(stored)
        closes = {row["timestamp"]: row["close"] for row in items().find()}
        assert stored["close"].tolist() == [closes[stamp] for stamp in stored["timestamp"].tolist()]
        assert [outcome.problems for outcome in verify_candles()] == [{}]
    finally:
        for registry in registries:
            registry.close()


# --- damaged blocks ---

DAMAGE = {
    "truncated": lambda row: {"data": row["data"][:-9]},
    "one bit": lambda row: {"data": bytes([row["data"][0], row["data"][1], *row["data"][2:100], row["data"][100] ^ 4, *row["data"][101:]])},
    "empty": lambda row: {"data": b""},
    "no bytes": lambda row: {"data": "text"},
    "checksum": lambda row: {"checksum": row["checksum"] ^ 1},
    "checksum of text": lambda row: {"checksum": "text"},
    "codec": lambda row: {"codec": "pco"},
    "format": lambda row: {"format": 2},
    "fewer candles": lambda row: {"runs": [[0, BLOCK - 1]]},
    "more candles": lambda row: {"runs": [[0, BLOCK + 1]]},
    "huge": lambda row: {"runs": [[0, 2**62]]},
    "negative": lambda row: {"runs": [[-1, BLOCK]]},
    "overlapping": lambda row: {"runs": [[0, 100], [50, 100]]},
    "runs of text": lambda row: {"runs": "ab"},
    "runs of doubles": lambda row: {"runs": [[0.0, 4096.0]]},
    "a Binary of another subtype": lambda row: {"data": Binary(row["data"], 128)},
    "another block's": lambda row: {"data": documents().find_one({"block": FIRST})["data"]},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_block_is_reported_and_read_from_its_documents(name, caplog):
    """It is put out of use with one warning, and the next cold read packs it again."""
    write(0, 3 * BLOCK)
    row = documents().find_one({"block": FIRST + 1})
    documents().update_one({"_id": row["_id"]}, {"$set": DAMAGE[name](row)})
    assert_stored(0, 3 * BLOCK)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert str(row["_id"]) in record.getMessage()
    assert f"packed block {FIRST + 1} of binance BTCUSDT 1m" in record.getMessage()
    caplog.clear()
    for _ in range(2):
        assert_stored(0, 3 * BLOCK)
    assert packed() == dict.fromkeys(range(3), (0, BLOCK))
    assert not caplog.records


def test_a_document_that_is_not_ours_is_ignored():
    write(0, BLOCK)
    for number, strange in enumerate(({"block": "text"}, {"block": FIRST}, {"block": 1.5, "version": 1}, {"block": FIRST, "version": "x"})):
        documents().drop_indexes()
        documents().insert_one({**dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True)), **strange, "n": number})
    assert_stored(0, BLOCK)


# --- candles that are removed or changed ---


def test_removed_candles_are_gone():
    write(0, 3 * BLOCK)
    assert remove_candles("BTCUSDT", "1m", "binance", at(100)["timestamp"], at(BLOCK + 200)["timestamp"]) == BLOCK + 100
    assert read(0, BLOCK) is None
    assert read(BLOCK + 199, BLOCK + 300) is None
    assert_stored(0, 100)
    assert_stored(BLOCK + 200, 3 * BLOCK)
    write(0, 3 * BLOCK, shift=5.0)
    assert_stored(100, BLOCK + 200, shift=5.0)
    assert_stored(BLOCK + 200, 3 * BLOCK)
    assert [outcome.problems for outcome in verify_candles()] == [{}]


def test_all_removed():
    write(0, 2 * BLOCK)
    assert remove_candles("BTCUSDT", "1m", "binance") == 2 * BLOCK
    assert read(0, 1) is None
    assert packed() == {}
    assert remove_candles("BTCUSDT", "1m", "binance") == 0
    write(0, 2 * BLOCK, shift=1.0)
    assert_stored(0, 2 * BLOCK, shift=1.0)
    assert len(packed()) == 2


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_reader_does_not_bring_removed_candles_back(moment, settings, monkeypatch):
    """A reader has read the candles, and is about to pack them, when another process begins or ends their removal."""
    write(0, BLOCK)
    default_registry.mongo.candles.drop_packed()
    other = kit.Registry()
    other.setup(settings)
    remover = other.mongo.candles
    begin, end = remover.packed.begin_removal, remover.packed.end_removal
    if moment == "during":  # the reader begins when the removal has begun, and reads candles that are about to be deleted
        monkeypatch.setattr(
            remover.packed, "begin_removal", lambda series, numbers, token: (begin(series, numbers, token), read(0, BLOCK))[0]
        )
    elif moment == "after":
        monkeypatch.setattr(remover.packed, "end_removal", lambda series, numbers, token: (put_late(), end(series, numbers, token)))
    put = packed_candles.PackedCandles.put
    late = []

    def put_later(self, series, blocks, basis):
        late.append((self, series, list(blocks), basis))
        return 0

    def put_late():
        for arguments in late:
            put(*arguments)

    try:
        if moment != "during":
            with monkeypatch.context() as patch:
                patch.setattr(packed_candles.PackedCandles, "put", put_later)
                read(0, BLOCK)
            assert late
        remove_candles("BTCUSDT", "1m", "binance", registry=other)
        if moment == "before":
            put_late()
        assert packed() == {}
        assert read(0, BLOCK) is None
    finally:
        other.close()


def test_a_removal_that_died_is_forgotten_by_pack(monkeypatch):
    """Until then its blocks are not packed; reads are right all the time."""
    write(0, BLOCK)
    store = default_registry.mongo.candles
    store.packed.begin_removal(SERIES, [FIRST], store.packed.new_token())
    assert_stored(0, BLOCK)
    list(pack_candles())
    assert packed() == {}
    monkeypatch.setattr(block_collection, "LONG_AGO", -10)
    assert [outcome.blocks for outcome in pack_candles()] == [1]
    assert_stored(0, BLOCK)


def test_verify_finds_what_was_changed_by_hand():
    """It drops the wrong blocks, and the next read packs what is stored now."""
    write(0, 3 * BLOCK)
    items().update_one(at(5), {"$set": {"close": 1.0}})
    items().delete_one(at(BLOCK + 7))
    (outcome,) = verify_candles()
    assert outcome.blocks == 3
    assert outcome.problems == {
        FIRST: "0 of its candles are no longer stored, 1 have other values; dropped",
        FIRST + 1: "1 of its candles are no longer stored, 0 have other values; dropped",
    }
    assert read(5, 6)["close"] == 1.0
    assert read(BLOCK, 2 * BLOCK) is None
    assert [outcome.problems for outcome in verify_candles()] == [{}]
    assert [outcome.blocks for outcome in verify_candles(symbol="ETHUSDT")] == []


def test_a_repeated_import_restores_candles_that_were_deleted_by_hand(settings, caplog):
    """The count shows that some are missing. The stale blocks are dropped, with a warning."""
    write(0, 3 * BLOCK)
    items().delete_many({"timestamp": {"$gte": at(100)["timestamp"], "$lt": at(110)["timestamp"]}})
    other = kit.Registry()
    other.setup(settings)
    try:
        other.PersistCandleAdapter.write_candles_data(candles(0, 3 * BLOCK, shift=3.0), "BTCUSDT", "1m", "binance")
    finally:
        other.close()
    assert "10 candles of binance BTCUSDT 1m were deleted" in caplog.text
    assert items().count_documents({}) == 3 * BLOCK
    assert_stored(0, 100)
    assert_stored(100, 110, shift=3.0)
    assert_stored(110, 3 * BLOCK)


def test_pack_is_repeatable_and_leaves_gaps():
    write(0, BLOCK)
    write(BLOCK + 1000, 5 * BLOCK)
    default_registry.mongo.candles.drop_packed()
    seen = []
    (outcome,) = pack_candles(progress=lambda done, total: seen.append((done, total)))
    assert (outcome.symbol, outcome.blocks) == ("BTCUSDT", 5)
    assert seen[-1] == (5 * BLOCK, 5 * BLOCK)
    assert packed() == {0: (0, BLOCK), 1: (1000, BLOCK - 1000), **dict.fromkeys((2, 3, 4), (0, BLOCK))}
    assert [outcome.blocks for outcome in pack_candles()] == [0]
    assert [outcome.blocks for outcome in pack_candles(interval="5m")] == []


def test_only_candles_in_mongodb_are_packed(settings):
    kit.setup(settings, stores={"candle": "memory"})
    for work in (pack_candles, verify_candles):
        with pytest.raises(kit.InvalidValueError, match="only in MongoDB"):
            list(work())


# --- rights, and other programs ---


@pytest.mark.parametrize(("rights", "said"), [([], "may not read the collection candle-blocks"), (["find"], "candles are not packed")])
def test_a_user_without_rights_to_the_collection(rights, said, tmp_path, settings, caplog):
    """Reads and writes go on without packed blocks, and say so once."""
    fields = ["find", "insert", "update", "remove", "createIndex", "createCollection", "listIndexes"]
    with ArgumentMongo(tmp_path / "mongo", "--auth") as server:
        with pymongo.MongoClient(server.uri()) as client:
            client.admin.command("createUser", "root", pwd="pw", roles=["root"])
        with pymongo.MongoClient(f"mongodb://root:pw@{quote(server.socket, safe='')}/admin") as client:
            privileges = [{"resource": {"db": "some", "collection": "candle-items"}, "actions": fields}]
            privileges += [{"resource": {"db": "some", "collection": "candle-blocks"}, "actions": rights}] if rights else []
            client["some"].command("createRole", "candles", privileges=privileges, roles=[])
            client["some"].command("createUser", "trader", pwd="pw", roles=["candles"])
            kit.setup(
                {**settings, "CC_MONGO_CONNECTION_STRING": f"mongodb://trader:pw@{quote(server.socket, safe='')}/some?authSource=some"}
            )
            with caplog.at_level("INFO"):
                write(0, 2 * BLOCK)
                for _ in range(2):
                    assert_stored(0, 2 * BLOCK)
            assert caplog.text.count(said) == 1
            assert caplog.text.count("may not read the collection candle-archive") == 1
            kit.close()


def test_a_write_of_blocks_that_fails_changes_nothing_else(monkeypatch, caplog):
    """The candles are stored, and the block is left out."""

    def fail(*arguments):
        raise pymongo.errors.AutoReconnect("gone")

    monkeypatch.setattr(packed_candles, "ensure_indexes", fail)
    with caplog.at_level("DEBUG"):
        write(0, BLOCK)
    assert "packed candles were not stored: gone" in caplog.text
    assert packed() == {}
    assert_stored(0, BLOCK)


def test_candles_of_a_former_primary_are_not_packed(monkeypatch):
    """Blocks go only to the primary that the candles were read from, since another one may not have them."""
    write(0, BLOCK)
    default_registry.mongo.candles.drop_packed()
    answers = iter([("a", 1), ("b", 2)])
    with monkeypatch.context() as patch:
        patch.setattr(packed_candles, "primary", lambda client: next(answers))
        assert_stored(0, BLOCK)
    assert packed() == {}


def test_forgotten_after_a_while(monkeypatch, settings):
    """A process that found no block asks again, so that it uses the blocks that another one packs later."""
    write(0, 1000)
    assert_stored(0, 10)
    other = kit.Registry()
    other.setup(settings)
    try:
        other.PersistCandleAdapter.write_candles_data(candles(0, BLOCK), "BTCUSDT", "1m", "binance")
        list(pack_candles(registry=other))
    finally:
        other.close()
    assert packed() == {0: (0, BLOCK)}
    monkeypatch.setattr(packed_candles, "ASK_AGAIN", 0.0)
    default_registry.mongo.blocks.clear()
    items().delete_many({})
    found = kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", BLOCK, FIRST * LENGTH)
    assert found.tobytes() == candles(0, BLOCK).tobytes()


def test_a_file_import_packs_every_block():
    """It writes in chunks that end between two blocks, also where candles are missing."""
    rows = candles(700, 6 * BLOCK)
    rows = np.delete(rows, range(9000, 9010))
    sizes = []
    kit.runner.import_candles(rows, "BTCUSDT", progress=lambda done, total: sizes.append(done))
    assert sizes[-1] == len(rows)
    hole = 700 + 9000 - 2 * BLOCK
    assert packed() == {0: (700, BLOCK - 700), 1: (0, BLOCK), **dict.fromkeys((3, 4, 5), (0, BLOCK)), 2: (hole + 10, BLOCK - hole - 10)}
    assert_stored(700, 9700)
    assert_stored(9710, 6 * BLOCK)
    assert read(9699, 9711) is None


# --- removals beside others ---


@pytest.fixture
def other(settings):
    """A second process: a registry of its own."""
    registry = kit.Registry()
    registry.setup(settings)
    yield registry
    registry.close()


def during_removal(registry, monkeypatch, work):
    """Let ``work`` happen when a removal by ``registry`` has begun, and before it deletes anything."""
    packed_blocks = registry.mongo.candles.packed
    begin = packed_blocks.begin_removal

    def begin_and_work(*arguments):
        monkeypatch.setattr(packed_blocks, "begin_removal", begin)
        begin(*arguments)
        work()

    monkeypatch.setattr(packed_blocks, "begin_removal", begin_and_work)


def test_two_removals_at_once(other, monkeypatch):
    """One that ends does not end the other: a reader cannot pack what the other is about to delete."""
    write(0, BLOCK)
    default_registry.mongo.candles.drop_packed()

    def work():
        remove_candles("BTCUSDT", "1m", "binance", at(0)["timestamp"], at(10)["timestamp"])
        assert_stored(10, BLOCK)

    during_removal(other, monkeypatch, work)
    assert remove_candles("BTCUSDT", "1m", "binance", at(100)["timestamp"], at(4000)["timestamp"], registry=other) == 3900
    assert read(100, 4000) is None
    assert_stored(10, 100)
    assert_stored(4000, BLOCK)


def test_a_removal_that_was_forgotten_too_early(other, monkeypatch):
    """Its end drops what was packed meanwhile."""
    write(0, BLOCK)
    monkeypatch.setattr(block_collection, "LONG_AGO", -10)
    during_removal(other, monkeypatch, lambda: list(pack_candles()))
    remove_candles("BTCUSDT", "1m", "binance", at(0)["timestamp"], at(100)["timestamp"], registry=other)
    assert read(0, 100) is None
    assert_stored(100, BLOCK)


def test_candles_that_are_added_during_a_removal(other, monkeypatch):
    """Those of blocks that had none before stay."""
    write(0, BLOCK)
    during_removal(other, monkeypatch, lambda: write(BLOCK, 2 * BLOCK))
    assert remove_candles("BTCUSDT", "1m", "binance", registry=other) == BLOCK
    assert read(0, 1) is None
    assert_stored(BLOCK, 2 * BLOCK)
    assert items().count_documents({}) == BLOCK
    assert [outcome.problems for outcome in verify_candles()] == [{}]


def test_a_wrong_candle_far_away_is_removed_quickly():
    """There is one document for each block with candles, not for those in between."""
    write(0, 10)
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    far = 1_700_000_000_000_000 // MINUTE * MINUTE
    items().insert_one({**fields, **dict(zip(CANDLE_DTYPE.names, candles(0, 1)[0].item(), strict=True)), "timestamp": far})
    assert remove_candles("BTCUSDT", "1m", "binance") == 11
    assert documents().count_documents({}) == 2


def test_verify_beside_a_removal(other, monkeypatch):
    """Candles that are being removed are not reported as deleted by somebody else."""
    write(0, 2 * BLOCK)
    read_blocks = packed_candles.PackedCandles.read

    def read_and_remove(self, *arguments, **more):
        basis = read_blocks(self, *arguments, **more)
        monkeypatch.undo()
        remove_candles("BTCUSDT", "1m", "binance", at(0)["timestamp"], at(10)["timestamp"], registry=other)
        return basis

    monkeypatch.setattr(packed_candles.PackedCandles, "read", read_and_remove)
    assert [outcome.problems for outcome in verify_candles()] == [{}]


def test_verify_finds_a_series_whose_candles_were_all_deleted():
    write(0, BLOCK)
    items().delete_many({})
    (outcome,) = verify_candles()
    assert outcome.problems == {FIRST: f"{BLOCK:,} of its candles are no longer stored, 0 have other values; dropped"}
    assert read(0, 1) is None


# --- strange documents, values and servers ---


def test_documents_that_cannot_be_decoded():
    write(0, 2 * BLOCK)
    documents().update_one({"block": FIRST}, {"$set": {"version": DatetimeMS(2**62)}})
    assert_stored(0, 2 * BLOCK)
    assert [outcome.problems for outcome in verify_candles()] == [{}]


STRANGE = [
    {},
    {"block": "text"},
    {"block": 1.5},
    {"block": 2**40, "version": 1},
    {"block": FIRST + 7, "version": "x"},
    {"block": -(2**60), "version": 1},
]


@pytest.mark.parametrize("strange", STRANGE, ids=str)
def test_tools_beside_a_foreign_document(strange):
    write(0, BLOCK)
    documents().insert_one({**dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True)), **strange})
    assert_stored(0, BLOCK)
    assert [outcome.problems for outcome in verify_candles()] == [{}]
    assert [outcome.blocks for outcome in pack_candles()] == [0]
    assert default_registry.mongo.candles.drop_packed() >= 1
    assert remove_candles("BTCUSDT", "1m", "binance") == BLOCK
    assert read(0, 1) is None


@pytest.mark.parametrize("code", [8000, 96])
def test_a_server_that_rejects_reads_of_the_collection(code, monkeypatch, caplog):
    write(0, BLOCK)
    fetch = default_registry.mongo.connection.fetch

    def refuse(domain, queries):
        if domain.collection == "candle-blocks":
            raise OperationFailure("no", code)
        return fetch(domain, queries)

    monkeypatch.setattr(default_registry.mongo.connection, "fetch", refuse)
    with caplog.at_level("INFO"):
        assert_stored(0, BLOCK)
        write(0, BLOCK + 10)
    assert "packed candles" in caplog.text
    assert items().count_documents({}) == BLOCK + 10


def test_values_that_are_not_finite_are_not_packed(caplog):
    """Another program may have stored them; the window is read from documents each time."""
    write(0, BLOCK)
    default_registry.mongo.candles.drop_packed()
    items().update_one(at(77), {"$set": {"low": float("nan")}})
    for _ in range(2):
        assert np.isnan(read(0, BLOCK)["low"][77])
    assert packed() == {}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_names_of_other_text_types():
    rows = candles(0, BLOCK)
    kit.PersistCandleAdapter.write_candles_data(rows, np.str_("BTCUSDT"), "1m", np.str_("binance"))
    assert len(packed()) == 1
    items().delete_many({})
    assert_stored(0, BLOCK)


def test_the_index_on_a_machine_that_has_just_started(monkeypatch):
    """The clock that counts from the start of the machine may still be small."""
    monkeypatch.setattr(packed_candles.time, "monotonic", lambda: 2.0)
    write(0, BLOCK)
    assert "exchangeName_1_symbol_1_interval_1_block_1" in documents().index_information()


def test_spreads_of_both_signs():
    rows = candles(0, BLOCK)
    for name in ("open", "close", "low"):
        rows[name] = -1.234567890123457
    rows["high"] = 1.234567890123456
    kit.PersistCandleAdapter.write_candles_data(rows, "BTCUSDT", "1m", "binance")
    assert len(packed()) == 1
    assert read(0, BLOCK).tobytes() == rows.tobytes()


def versions():
    return {row["block"]: row["version"] for row in documents().find()}


def test_each_change_has_a_version_of_its_own(monkeypatch):
    """Also the repetition of a change whose reply was lost: otherwise an old basis would fit again."""
    write(0, BLOCK)
    seen = [versions()[FIRST]]
    update_many = Collection.update_many

    def lose_every_other_reply(self, *arguments, **more):
        result = update_many(self, *arguments, **more)
        if self.name != "candle-blocks":
            return result
        seen.append(versions()[FIRST])
        if len(seen) % 2 == 0:
            raise AutoReconnect("lost")
        return result

    monkeypatch.setattr(Collection, "update_many", lose_every_other_reply)
    default_registry.mongo.candles.drop_packed()
    remove_candles("BTCUSDT", "1m", "binance", at(0)["timestamp"], at(10)["timestamp"])
    assert seen[-1] != seen[-2]  # the end of the removal, and its repetition
    changes = [version for before, version in pairwise(seen) if version != before]
    assert len(set(changes)) == len(changes) >= 3


def test_the_random_numbers_of_a_strategy_are_its_own():
    """Reads and writes draw no numbers from the generator that it may have seeded, and their versions do not depend on it."""
    seen = []
    for _ in range(2):
        random.seed(1)
        state = random.getstate()
        write(0, BLOCK)
        assert_stored(0, BLOCK)
        assert random.getstate() == state
        seen.append(versions()[FIRST])
        remove_candles("BTCUSDT", "1m", "binance")
    assert seen[0] != seen[1]


@pytest.mark.parametrize("step", ["begin_removal", "end_removal"])
def test_a_removal_that_fails(step, monkeypatch):
    """This process forgets the candles in memory, however far the removal came. A repetition packs again."""
    write(0, BLOCK)
    assert read(0, BLOCK) is not None

    def fail(*arguments):
        raise AutoReconnect("gone")

    with monkeypatch.context() as patch:
        patch.setattr(packed_candles.PackedCandles, step, fail)
        with pytest.raises(kit.ServerUnavailableError):
            remove_candles("BTCUSDT", "1m", "binance")
    candles_read = kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", BLOCK, FIRST * LENGTH)
    assert (candles_read is None) is (step == "end_removal")


def test_memory_that_is_cleared_during_a_read(monkeypatch):
    """What was read before is not kept in memory."""
    write(0, BLOCK)
    default_registry.mongo.candles.drop_packed()
    put = packed_candles.PackedCandles.put

    def put_and_remove(self, *arguments):
        monkeypatch.setattr(packed_candles.PackedCandles, "put", put)
        stored = put(self, *arguments)
        remove_candles("BTCUSDT", "1m", "binance")
        return stored

    monkeypatch.setattr(packed_candles.PackedCandles, "put", put_and_remove)
    assert read(0, BLOCK) is not None  # it began before the removal
    assert kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", BLOCK, FIRST * LENGTH) is None


@pytest.mark.parametrize("removing", ["text", {"a": 1}, None, 7], ids=str)
def test_a_removal_beside_a_strange_mark(removing):
    write(0, BLOCK)
    documents().update_one({}, {"$set": {"removing": removing}})
    assert remove_candles("BTCUSDT", "1m", "binance") == BLOCK
    assert read(0, 1) is None


def test_an_import_beside_a_removal(other, monkeypatch, caplog):
    """Candles that another process removes between two questions are not reported as deleted by other tools."""
    write(0, 3 * BLOCK)
    look_up = packed_candles.PackedCandles.look_up

    def look_up_and_remove(self, *arguments):
        basis = look_up(self, *arguments)
        monkeypatch.setattr(packed_candles.PackedCandles, "look_up", look_up)
        remove_candles("BTCUSDT", "1m", "binance", at(0)["timestamp"], at(10)["timestamp"])
        return basis

    monkeypatch.setattr(packed_candles.PackedCandles, "look_up", look_up_and_remove)
    other.PersistCandleAdapter.write_candles_data(candles(0, 3 * BLOCK), "BTCUSDT", "1m", "binance")
    assert "deleted outside" not in caplog.text
    assert packed().keys() >= {1, 2}
    assert_stored(0, 3 * BLOCK)


def test_a_document_with_several_timestamps():
    """It hides nothing that comes after it."""
    write(0, 10)
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    items().insert_one({**fields, "timestamp": [at(-5)["timestamp"]]})
    assert remove_candles("BTCUSDT", "1m", "binance") >= 10
    assert read(0, 1) is None
