"""The archive of candles while several processes write, move and remove at once: each test forces one order of events."""

from __future__ import annotations

import time
from contextlib import suppress

import pymongo
import pytest
from bson import Decimal128
from killed_candles import BLOCK, SERIES, at, candles
from pymongo import monitoring

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import list_candles, pack_candles, remove_candles, unpack_candles, verify_candles
from backtest_kit_mongo.servers import MongoServer
from backtest_kit_mongo.stores.mongo import candle_moves, candle_writes


@pytest.fixture
def join(mongo):
    """A function that opens a registry of a format, as another process would have one."""
    opened = []

    def join(format="items", **more):
        registry = kit.Registry()
        registry.setup({**mongo, "CC_CANDLE_FORMAT": format, **more})
        opened.append(registry)
        return registry

    yield join
    for registry in opened:
        registry.close()


def write(registry, start, end, **more):
    registry.PersistCandleAdapter.write_candles_data(candles(start, end, **more), *SERIES)


def read(registry, start, end):
    """Return by how much the stored candles are shifted, None if one is missing."""
    registry.PersistCandleAdapter.clear()
    candles_read = registry.PersistCandleAdapter.read_candles_array(*SERIES, end - start, at(start))
    return None if candles_read is None else sorted(set((candles_read["close"] - candles(start, end)["close"]).tolist()))


def items():
    return kit.get_mongo()["candle-items"]


def archive():
    return kit.get_mongo()["candle-archive"]


def once(monkeypatch, owner, name, *, before=None, after=None):
    """Let something happen before or after the next call of a method."""
    original = getattr(owner, name)

    def call(*arguments, **more):
        monkeypatch.setattr(owner, name, original)
        if before is not None:
            before()
        result = original(*arguments, **more)
        if after is not None:
            after()
        return result

    monkeypatch.setattr(owner, name, call)


def test_two_that_unpack_at_once_and_one_dies(join, monkeypatch):
    """The slower one deletes nothing that the other has inserted."""
    writer, slow, fast = join("packed"), join(), join()
    write(writer, 0, BLOCK)
    once(monkeypatch, slow.mongo.candles.archive, "begin_unpacking", after=lambda: list(unpack_candles(registry=fast)))

    def die(candles, *arguments):
        assert candles is slow.mongo.candles
        delete(candles, *arguments)
        raise KeyboardInterrupt

    delete = candle_moves._delete
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(candle_moves, "_delete", die)
        list(unpack_candles(registry=slow))
    assert read(join(), 0, BLOCK) == read(join("packed"), 0, BLOCK) == [0.0]
    list(unpack_candles(registry=slow))
    assert read(join(), 0, BLOCK) == [0.0]
    assert items().count_documents({}) == BLOCK


def test_a_removal_is_refused_while_a_process_unpacks(join, monkeypatch):
    """Also if another process packs the block meanwhile."""
    packer, unpacker, remover = join("packed"), join(), join()
    write(packer, 0, BLOCK - 1)

    def meanwhile():
        write(packer, BLOCK - 1, BLOCK)
        list(pack_candles(registry=packer))
        with pytest.raises(kit.DatabaseError, match="are being unpacked by another process"):
            remove_candles(*SERIES, registry=remover)

    once(monkeypatch, unpacker.mongo.candles.archive, "begin_unpacking", after=meanwhile)
    list(unpack_candles(registry=unpacker))
    assert read(packer, 0, BLOCK) == read(remover, 0, BLOCK) == [0.0]
    assert archive().count_documents({"unpacking.0": {"$exists": True}}) == 0
    assert archive().count_documents({"removing.0": {"$exists": True}}) == 0
    assert remove_candles(*SERIES, registry=remover) == BLOCK
    assert read(packer, 0, 1) is None


@pytest.mark.parametrize("known", [False, True], ids=["first registration", "registered before"])
def test_documents_that_came_too_late_are_not_copied(known, join, monkeypatch):
    """Another process has archived candles of the same times in the meantime."""
    late, first = join(), join("packed")
    if known:
        write(late, 0, 10)
        remove_candles(*SERIES, registry=late)
    writer = late.mongo._candle_writer
    once(monkeypatch, writer, "_write_documents", before=lambda: write(first, 0, BLOCK, shift=1))
    write(late, 0, BLOCK, shift=2)
    assert late.stats()["candle"]["writes"] == 10 * known
    assert read(late, 0, BLOCK) == read(join(), 0, BLOCK) == read(first, 0, BLOCK) == [1.0]
    assert kit.get_mongo()["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 0
    list(pack_candles(registry=first))
    assert items().count_documents({}) == 0


def test_copies_are_not_made_of_what_is_moved(join, monkeypatch):
    """``candles pack`` in one format beside one in the other."""
    copier, mover = join(), join("packed")
    write(copier, 0, BLOCK)
    copier.mongo.candles.drop_packed()
    once(monkeypatch, copier.mongo.candles.packed, "look_up", after=lambda: list(pack_candles(registry=mover)))
    assert [outcome.blocks for outcome in pack_candles(registry=copier)] == [0]
    assert read(copier, 0, BLOCK) == read(mover, 0, BLOCK) == [0.0]


def test_a_removal_beside_pack(join, monkeypatch):
    """Of a series that an older version, or the TypeScript package, has stored."""
    writer, packer, remover = join(), join("packed"), join()
    write(writer, 0, 2 * BLOCK)
    archive().drop()
    kit.get_mongo()["candle-blocks"].drop()
    once(monkeypatch, remover.mongo.candles.packed, "numbers", before=lambda: list(pack_candles(registry=packer)))
    assert remove_candles(*SERIES, registry=remover) == 2 * BLOCK
    assert read(packer, 0, 1) is None


def test_a_series_that_is_moved_while_it_is_listed(join, monkeypatch):
    writer, unpacker, reader = join("packed"), join(), join()
    write(writer, 0, BLOCK)
    for moving in (unpack_candles, lambda registry: pack_candles(registry=writer)):
        once(monkeypatch, reader.mongo.candles.archive, "series", after=lambda moving=moving: list(moving(registry=unpacker)))
        (series,) = list_candles(registry=reader)
        assert series.candles == BLOCK


def test_values_that_are_not_finite_stay_documents(join, caplog):
    """Another program has stored one; the import succeeds, and the block is not moved."""
    other, packer = join(), join("packed")
    write(other, 0, 100)
    items().update_one({"timestamp": at(50)}, {"$set": {"volume": float("nan")}})
    write(packer, 0, BLOCK)
    assert [outcome.blocks for outcome in pack_candles(registry=packer)] == [0]
    assert "stays as documents: a value is not finite" in caplog.text
    assert items().count_documents({}) == BLOCK


def test_copies_of_documents_that_were_deleted_by_hand(join):
    """An import in the other format drops them."""
    copier, packer = join(), join("packed")
    write(copier, 0, BLOCK)
    items().delete_many({})
    archive().drop()
    write(packer, 0, BLOCK, shift=1)
    assert read(copier, 0, BLOCK) == read(packer, 0, BLOCK) == [1.0]


def test_an_incomplete_window_while_others_import(join, monkeypatch):
    """Blocks behind the gap may change as they like."""
    reader, writer = join("packed"), join("packed")
    write(writer, 0, BLOCK)
    its_archive = reader.mongo.candles.archive
    original, next_block = its_archive.read, iter(range(2, 200))

    def read_and_import(*arguments):
        basis = original(*arguments)
        number = next(next_block)
        write(writer, number * BLOCK, (number + 1) * BLOCK)
        return basis

    monkeypatch.setattr(its_archive, "read", read_and_import)
    assert read(reader, 0, 150 * BLOCK) is None
    assert next(next_block) == 3


def test_an_interrupted_removal_leaves_no_mark(join, monkeypatch):
    writer, remover = join("packed"), join()
    write(writer, 0, BLOCK)

    def interrupt():
        raise KeyboardInterrupt

    once(monkeypatch, remover.mongo.candles.archive, "begin_removal", after=interrupt)
    with pytest.raises(KeyboardInterrupt):
        remove_candles(*SERIES, registry=remover)
    assert [outcome.blocks for outcome in unpack_candles(registry=remover)] == [1]


def test_a_reader_whose_clock_is_ahead(join, monkeypatch):
    """What was moved while it read is found all the same: the time of the server decides what is recent."""
    writer, unpacker, reader = join("packed"), join(), join()
    write(writer, 0, BLOCK)
    for registry in (unpacker, reader):
        for source in (registry.mongo.candles.archive, registry.mongo.candles.packed):
            source._now()
    reader.mongo.candles.archive._asked = float("-inf")
    real = time.time
    monkeypatch.setattr("backtest_kit_mongo.stores.mongo.block_collection.time.time", lambda: real() + 7200)
    once(monkeypatch, reader.mongo.candles.archive, "look_up", before=lambda: list(unpack_candles(registry=unpacker)))
    assert read(reader, 0, BLOCK) == [0.0]


def test_an_insert_in_another_thread_begins_a_block(join, monkeypatch):
    """The block that somebody else has begun is not inserted as a whole; its other candles follow as documents."""
    first, second = join(), join("packed")
    once(monkeypatch, second.mongo.candles.archive, "insert", before=lambda: write(first, 0, 10, shift=1))
    write(second, 0, BLOCK, shift=2)
    assert read(first, 0, 10) == read(second, 0, 10) == [1.0]
    assert read(first, 10, BLOCK) == read(second, 10, BLOCK) == [2.0]
    assert [outcome.problems for outcome in verify_candles(registry=second)] == [{}]


def test_a_removal_that_is_interrupted_at_its_end(join, monkeypatch):
    """Either mark is taken away all the same."""
    writer, remover = join("packed"), join()
    for source in (remover.mongo.candles.packed, remover.mongo.candles.archive):
        write(writer, 0, BLOCK)

        def interrupt():
            raise KeyboardInterrupt

        once(monkeypatch, source, "end_removal", before=interrupt)
        with pytest.raises(KeyboardInterrupt):
            remove_candles(*SERIES, registry=remover)
        for name in ("candle-archive", "candle-blocks"):
            assert kit.get_mongo()[name].count_documents({"removing.0": {"$exists": True}}) == 0


def test_a_removal_and_an_unpack_at_once(join, monkeypatch):
    """One of them succeeds."""
    writer, unpacker, remover = join("packed"), join(), join()
    write(writer, 0, BLOCK)

    def meanwhile():
        with pytest.raises(kit.DatabaseError, match="are being unpacked"):
            remove_candles(*SERIES, registry=remover)

    once(monkeypatch, unpacker.mongo.candles.archive, "begin_unpacking", after=meanwhile)
    assert [outcome.blocks for outcome in unpack_candles(registry=unpacker)] == [1]
    assert read(remover, 0, BLOCK) == [0.0]


def test_a_foreign_document_that_prevents_another(join):
    """``unpack`` names it and ends; the candles stay in the archive."""
    writer, unpacker = join("packed"), join()
    write(writer, 0, BLOCK)
    items().insert_one({"exchangeName": "binance", "symbol": "BTCUSDT", "interval": "1m", "timestamp": [at(5)]})
    with pytest.raises(kit.DatabaseError, match=f"a document of another program prevents that of the candle .* at {at(5)} ms"):
        list(unpack_candles(registry=unpacker))
    assert read(writer, 0, BLOCK) == [0.0]
    assert archive().count_documents({"unpacking.0": {"$exists": True}}) == 0
    items().delete_one({"timestamp": [at(5)]})
    assert [outcome.blocks for outcome in unpack_candles(registry=unpacker)] == [1]
    assert items().count_documents({}) == BLOCK


def test_a_decimal_time_beside_the_archive(join):
    """Another program's document of the same time, which nobody reads, gives way."""
    writer, unpacker = join("packed"), join()
    write(writer, 0, BLOCK)
    foreign = {"exchangeName": "binance", "symbol": "BTCUSDT", "interval": "1m", "timestamp": Decimal128(str(at(5)))}
    items().insert_one(foreign | dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0))
    assert read(writer, 0, BLOCK) == [0.0]
    assert [outcome.blocks for outcome in unpack_candles(registry=unpacker)] == [1]
    assert read(unpacker, 0, BLOCK) == [0.0]
    assert items().count_documents({}) == BLOCK


class Concerns(monitoring.CommandListener):
    """The concerns of commands: (command, collection) -> read or write concerns."""

    def __init__(self):
        self.seen = {}

    def started(self, event):
        if event.command_name in ("find", "insert", "update"):
            key = event.command_name, event.command[event.command_name]
            concern = event.command.get("writeConcern") or event.command.get("readConcern") or {}
            self.seen.setdefault(key, set()).add(concern.get("w") or concern.get("level"))

    def succeeded(self, event):
        pass

    failed = succeeded


@pytest.mark.once
def test_no_election_undoes_a_move(tmp_path, settings):
    """On a replica set, moves read and write by majority even if CC_DURABILITY is memory."""
    with MongoServer(tmp_path / "mongo", replica_set="moves") as server:
        listener = Concerns()
        pymongo.monitoring.register(listener)
        try:
            given = {**settings, "CC_MONGO_CONNECTION_STRING": server.uri("moves"), "CC_DURABILITY": "memory"}
            kit.setup(given)
            write(kit, 0, BLOCK)
            kit.setup({**given, "CC_CANDLE_FORMAT": "packed"})
            listener.seen.clear()
            assert [outcome.blocks for outcome in pack_candles()] == [1]
            assert "majority" in listener.seen["find", "candle-items"]
            assert listener.seen["update", "candle-archive"] - {1} == {"majority"}
            for number in range(1, 5):  # completed blocks are moved, although their last candles were confirmed by one member only
                write(kit, number * BLOCK, number * BLOCK + 10)
                write(kit, number * BLOCK, (number + 1) * BLOCK)
            assert items().count_documents({}) == 0
            listener.seen.clear()
            assert [outcome.blocks for outcome in unpack_candles()] == [5]
            assert listener.seen["insert", "candle-items"] == {"majority"}
            assert listener.seen["update", "candle-archive"] == {"majority"}
            assert read(kit, 0, BLOCK) == [0.0]
        finally:
            kit.close()
            for kind in pymongo.monitoring._LISTENERS:
                if listener in kind:
                    kind.remove(listener)


def test_the_threshold_of_whole_blocks(join):
    """Fewer candles than that are documents, which the next ones join."""
    packer = join("packed")
    write(packer, 0, candle_writes.SMALLEST_ARCHIVED - 1)
    assert archive().count_documents({"codec": {"$exists": True}}) == 0
    write(packer, BLOCK, BLOCK + candle_writes.SMALLEST_ARCHIVED)
    assert archive().count_documents({"codec": {"$exists": True}}) == 1
