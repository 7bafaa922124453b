"""Candles in MongoDB that are replaced: as documents, in the archive and in copies, beside readers and other writers."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from killed_candles import BLOCK, SERIES, at, candles
from prepared import Prepared, forked
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import (
    import_candles,
    imported_spans,
    list_candles,
    pack_candles,
    remove_candles,
    unpack_candles,
    verify_candles,
)
from backtest_kit_mongo.stores.mongo import candle_moves
from backtest_kit_mongo.stores.mongo.candles import KEPT

COUNT = 2 * BLOCK + 300


@pytest.fixture(params=["items", "packed"])
def join(request, settings):
    """A function that opens a registry, as another process would have one."""
    settings = {**settings, "CC_CANDLE_FORMAT": request.param}
    kit.setup(settings)
    opened = []

    def join(**more):
        registry = kit.Registry()
        registry.setup({**settings, **more})
        opened.append(registry)
        return registry

    yield join
    for registry in opened:
        registry.close()


def store(rows, registry=None, **more):
    return import_candles(rows, *SERIES, registry=registry, **more)


def shifts(start, end, registry=kit, *, cold=True):
    """Return by how much the stored candles are shifted; None if one is missing."""
    if cold:
        registry.PersistCandleAdapter.clear()
    candles_read = registry.PersistCandleAdapter.read_candles_array(*SERIES, end - start, at(start))
    if candles_read is None:
        return None
    shift = np.unique(candles_read["close"] - candles(start, end)["close"]).tolist()
    assert all(value in shift for value in np.unique(candles_read["high"] - candles(start, end)["high"]))
    return shift


def problems():
    return [outcome.problems for outcome in verify_candles() if outcome.problems]


def once(monkeypatch, owner, name, before):
    """Let something happen before the next call of a method."""
    original = getattr(owner, name)

    def call(*arguments, **more):
        monkeypatch.setattr(owner, name, original)
        before()
        return original(*arguments, **more)

    monkeypatch.setattr(owner, name, call)


def test_a_replacement_reaches_documents_archive_and_copies(join):
    store(candles(0, COUNT))
    assert shifts(0, COUNT) == [0.0]
    documents = kit.get_mongo()["candle-items"]
    before = {row["timestamp"]: row for row in documents.find({})}
    part = candles(BLOCK - 10, BLOCK + 20, shift=1)
    report = store(np.concatenate([candles(0, BLOCK - 10), part, candles(BLOCK + 20, COUNT + 5)]), replace=True)
    assert (report.candles, report.replaced, report.new) == (COUNT + 5, 30, 5)
    for cold in (False, True):
        assert shifts(0, BLOCK - 10, cold=cold) == shifts(BLOCK + 20, COUNT + 5, cold=cold) == [0.0]
        assert shifts(BLOCK - 10, BLOCK + 20, cold=cold) == [1.0]
    assert problems() == []
    assert imported_spans(*SERIES) == ((at(0), at(COUNT + 5)),)
    # A cold read packs again, and what is packed is new.
    assert shifts(0, COUNT, join()) == [0.0, 1.0]
    documents.update_many({}, {"$set": {"close": 0.0}})
    packed = join()
    if kit.get_config().CC_CANDLE_FORMAT == "items":
        assert shifts(BLOCK - 10, BLOCK, packed) == shifts(BLOCK, BLOCK + 20, packed) == [1.0]
        changed = list(documents.find({"timestamp": {"$in": list(before)}}))
        touched = {row["timestamp"] for row in changed if row["updatedDate"] != before[row["timestamp"]]["updatedDate"]}
        assert touched == set(part["timestamp"].tolist())
        assert all(row["_id"] == before[row["timestamp"]]["_id"] for row in changed)
        assert all(row["createDate"] == before[row["timestamp"]]["createDate"] for row in changed)
    else:
        assert shifts(BLOCK - 10, BLOCK + 20, packed) == [1.0]


def test_the_first_write_still_wins(join):
    store(candles(0, COUNT))
    kit.PersistCandleAdapter.write_candles_data(candles(0, COUNT, shift=1), *SERIES)
    assert shifts(0, COUNT) == [0.0]
    with pytest.raises(kit.InvalidValueError, match="candles import --replace"):
        store(candles(0, COUNT, shift=1))
    assert shifts(0, COUNT) == [0.0]


def test_only_stored_candles_are_replaced_in_the_store(join):
    """Nothing of a hole is filled, and a candle of another series or interval stays."""
    store(np.concatenate([candles(0, 300), candles(400, BLOCK)]))
    import_candles(candles(0, BLOCK), "ETHUSDT", "1m", "binance")
    assert default_registry.mongo.replace_candles(("binance", "BTCUSDT", "1m"), candles(250, 450, shift=2)) == 100
    assert shifts(0, 250) == shifts(450, BLOCK) == [0.0]
    assert shifts(250, 300) == shifts(400, 450) == [2.0]
    assert shifts(300, 301) is None
    assert next(list_candles(symbol="BTCUSDT")).missing == 100
    kit.PersistCandleAdapter.clear()
    other = kit.PersistCandleAdapter.read_candles_array("ETHUSDT", "1m", "binance", BLOCK, at(0))
    assert other.tobytes() == candles(0, BLOCK).tobytes()


def test_left_over_documents_of_archived_candles_go(join):
    """As a move leaves them that died: they would differ from the archive."""
    archived = join(CC_CANDLE_FORMAT="packed")
    store(candles(0, BLOCK), archived)
    fields = {"symbol": "BTCUSDT", "interval": "1m", "exchangeName": "binance"}
    names = candles(0, 1).dtype.names
    rows = [{**fields, **dict(zip(names, row, strict=True))} for row in candles(5, 8).tolist()]
    kit.get_mongo()["candle-items"].insert_many(rows)
    assert store(candles(6, 10, shift=1), replace=True).replaced == 4
    assert shifts(6, 10) == [1.0]
    assert [row["timestamp"] for row in kit.get_mongo()["candle-items"].find({})] == [at(5)]
    list(unpack_candles())
    assert shifts(6, 10) == [1.0]
    assert shifts(0, 6) == shifts(10, BLOCK) == [0.0]


# --- beside others ---


def test_readers_see_the_old_or_the_new_values(join, long):
    """While one replaces, others read cold and warm, and one packs: no candle is missing or has a third value, and none goes back."""
    store(candles(0, COUNT))
    rounds = 6 if long else 3
    writer, packer = join(), join()
    over, failures, reads = threading.Event(), [], []

    def guarded(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failures.append(error)
            over.set()

    def read(registry, cold):
        reached = np.zeros(COUNT)
        while not over.is_set():
            if cold:
                registry.PersistCandleAdapter.clear()
            candles_read = registry.PersistCandleAdapter.read_candles_array(*SERIES, COUNT, at(0))
            shift = candles_read["close"] - candles(0, COUNT)["close"]
            assert set(np.unique(shift).tolist()) <= set(map(float, range(rounds + 1)))
            assert (candles_read["open"] - candles(0, COUNT)["open"] == shift).all()  # never a mixture within a candle
            assert (shift >= reached).all()
            reached = shift
            reads.append(shift.max())

    def pack():
        while not over.is_set():
            list(pack_candles(registry=packer))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (
        lambda: read(join(), True), lambda: read(join(), False), pack)]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        for number in range(1, rounds + 1):
            assert store(candles(0, COUNT, shift=number), writer, replace=True).replaced == COUNT
            assert shifts(0, COUNT, writer, cold=False) == [float(number)]
            seen = len(reads)
            assert wait_for(lambda seen=seen: len(reads) >= seen + 2 or failures)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert shifts(0, COUNT) == [float(rounds)]
    assert problems() == []


def test_a_cold_read_that_began_before_packs_nothing_old(mongo, monkeypatch):
    store(candles(0, BLOCK))
    reader, writer = kit.Registry(), kit.Registry()
    for registry in (reader, writer):
        registry.setup(mongo)
    kit.get_mongo()["candle-blocks"].update_many({}, {"$unset": {"codec": "", "runs": ""}})
    once(monkeypatch, reader.mongo.candles.packed, "pack", lambda: store(candles(0, BLOCK, shift=1), writer, replace=True))
    assert shifts(0, BLOCK, reader) == [0.0]  # what it had read before
    assert kit.get_mongo()["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 0
    assert shifts(0, BLOCK, reader) == [1.0]
    assert kit.get_mongo()["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 1
    assert problems() == []
    for registry in (reader, writer):
        registry.close()


def test_a_move_to_the_archive_that_began_before_moves_nothing_old(mongo, monkeypatch):
    store(candles(0, BLOCK))
    mover = kit.Registry()
    mover.setup({**mongo, "CC_CANDLE_FORMAT": "packed"})
    once(monkeypatch, mover.mongo.candles.archive, "replace", lambda: store(candles(0, BLOCK, shift=1), replace=True))
    list(pack_candles(registry=mover))
    assert shifts(0, BLOCK, mover) == shifts(0, BLOCK) == [1.0]
    list(pack_candles(registry=mover))
    assert kit.get_mongo()["candle-items"].count_documents({}) == 0
    assert shifts(0, BLOCK, mover) == shifts(0, BLOCK) == [1.0]
    mover.close()


def test_a_replacement_is_refused_while_a_process_unpacks(mongo, monkeypatch):
    packer = kit.Registry()
    packer.setup({**mongo, "CC_CANDLE_FORMAT": "packed"})
    store(candles(0, BLOCK), packer)

    def meanwhile():
        with pytest.raises(kit.DatabaseError, match="are being unpacked by another process"):
            store(candles(0, BLOCK, shift=1), packer, replace=True)

    once(monkeypatch, candle_moves, "_insert", meanwhile)
    list(unpack_candles())
    assert shifts(0, BLOCK) == [0.0]
    assert store(candles(0, BLOCK, shift=1), packer, replace=True).replaced == BLOCK
    assert shifts(0, BLOCK) == [1.0]
    packer.close()


def test_a_damaged_block_of_the_archive_is_named_and_stays(mongo):
    kit.setup({**mongo, "CC_CANDLE_FORMAT": "packed"})
    store(candles(0, 2 * BLOCK))
    kit.get_mongo()["candle-archive"].update_one({"block": at(0) // (BLOCK * 60_000)}, {"$set": {"checksum": 0}})
    document = kit.get_mongo()["candle-archive"].find_one({"checksum": 0})
    with pytest.raises(kit.DamagedCandlesError, match=f"archived block {document['block']}"):
        store(candles(0, 2 * BLOCK, shift=1), replace=True)
    assert kit.get_mongo()["candle-archive"].find_one({"checksum": 0}) == document
    assert shifts(BLOCK, 2 * BLOCK) == [0.0]


# --- other processes ---


def environment(settings):
    return {**os.environ, **{name: str(value) for name, value in settings.items()}}


def test_candles_in_memory_are_used_for_a_minute():
    """The manual says so."""
    assert KEPT == 60


@pytest.mark.parametrize("change", ["replace", "remove"])
def test_another_process_uses_its_memory_for_so_long_and_no_longer(mongo, change):
    store(candles(0, COUNT))
    kept = 2.0
    with Prepared("reading_candles:main", [kept], environment(mongo)) as child:
        try:
            assert child.stdout.readline() == "old\n"
            if change == "replace":
                store(candles(0, COUNT, shift=1), replace=True)
            else:  # one step each, and the reader may find nothing in between
                remove_candles(*SERIES, at(500))
                assert shifts(0, 500) == [0.0]
            changed = time.monotonic()
            out, err = child.communicate(timeout=200)
        finally:
            child.kill()
    if change == "replace":
        assert child.returncode == 0, err
        last_old, hits = map(float, out.split())
        assert last_old <= changed + kept
        assert hits > 500
    else:
        assert "NoneType" in err  # it found out that candles are missing


def run_killed(settings, moment):
    return forked("killed_replacement:main", [moment], environment(settings), Path.cwd(), seconds=600)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("form", ["items", "packed"])
def test_killed_in_the_middle_of_a_replacement(settings, form, long):
    """Each candle has its old or its new values, and no copy disagrees; the same command again completes it."""
    settings = {**settings, "CC_CANDLE_FORMAT": form}
    kit.setup(settings)
    store(candles(0, COUNT))
    every = 8 if long else 12
    moment, mixed = random.randrange(every), 0
    while (ended := run_killed(settings, moment)).returncode == -signal.SIGKILL:
        candles_read = shifts(0, COUNT)
        assert candles_read in ([0.0], [1.0], [0.0, 1.0])
        mixed += candles_read == [0.0, 1.0]
        assert problems() == []
        assert imported_spans(*SERIES) == ((at(0), at(COUNT)),)
        assert store(candles(0, COUNT, shift=1), replace=True).replaced <= COUNT  # beside the marks of the dead one
        assert shifts(0, COUNT) == [1.0]
        store(candles(0, COUNT), replace=True)
        assert shifts(0, COUNT) == [0.0]
        assert problems() == []
        moment += every + moment // 10
    assert ended.returncode == 0, ended.err
    assert moment >= 40
    assert mixed >= 2
    assert shifts(0, COUNT) == [1.0]
