"""Candles: windows to NumPy and to dicts, with and without blocks in memory; imports; and the minute of an idle strategy."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any, NamedTuple

import floor
import numpy as np
import pytest
import rivals
from bson import ObjectId
from interleaved import Side
from pymongo.errors import BulkWriteError
from sample_data import CANDLES, MINUTE

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistCandleAdapter
from backtest_kit_mongo.candles import to_dicts
from backtest_kit_mongo.domains import DOMAINS

forget = PersistCandleAdapter.clear


def read(series, first=0, count=CANDLES):
    """Return the library's and the rivals' arguments for ``count`` candles starting at number ``first``."""
    since = series.since + first * MINUTE
    names = (series.symbol, series.interval, series.exchange)
    return (*names, count, since, since + count * MINUTE), (*names, since, since + count * MINUTE)


@pytest.mark.parametrize("source", ["items", "packed", "memory"])
def test_to_numpy(interleaved, stored, plain, arrow, wires, source):
    _, theirs = read(stored)

    def ours():
        return PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", CANDLES, stored.since)

    assert np.array_equal(ours(), stored.columns)
    for name, column in arrow.read_columns(*theirs).items():
        assert np.array_equal(column, stored.columns[name])
    rival = Side(lambda: arrow.read_columns(*theirs), 1)
    if source == "memory":
        interleaved("30,240 candles to NumPy, blocks warm", {"ours": Side(ours), "pymongoarrow": rival}, share=0.5)
        return
    if source == "packed":
        interleaved("30,240 candles to NumPy, cold, packed", {"ours": Side(ours, 1, forget), "pymongoarrow": rival}, share=0.5)
        return
    message = floor.find(wires.database, "candle-items", rivals.window(*theirs), limit=CANDLES, sort={"timestamp": 1})
    assert len(wires.mongo.ask(message)["cursor"]["firstBatch"]) == CANDLES
    items = Side(rivals.WithoutBlocks(ours), 1, forget)
    sides = {"ours": items, "pymongoarrow": rival, "floor": Side(lambda: wires.mongo.exchange(message), 1)}
    interleaved("30,240 candles to NumPy, cold", sides, share=0.5)


@pytest.mark.parametrize("warm", [False, True])
def test_to_dicts(interleaved, stored, plain, direct, engine, warm):
    arguments, theirs = read(stored, 10_000, 1000)

    def ours():
        return PersistCandleAdapter.read_candles_data(*arguments)

    assert ours() == direct.read_window(*theirs) == engine.read_window(*theirs) == to_dicts(stored.columns[10_000:11_000])
    sides = {
        "ours": Side(ours, 25) if warm else Side(ours, 1, forget),
        "pymongo": Side(lambda: direct.read_documents(*theirs), 5),
        "pymongo, projected": Side(lambda: direct.read_window(*theirs), 5),
        "mongoengine": Side(lambda: engine.read_window(*theirs), 1),
    }
    interleaved(f"1,000 candles to dicts, {'blocks warm' if warm else 'cold'}", sides)


@pytest.mark.parametrize("warm", [False, True])
def test_idle_minute(interleaved, stored, plain, warm):
    """Read the last five 1m candles three times per minute, minute by minute; a cold walk takes a day and starts with empty memory."""
    day = 1440
    for timestamp in range(stored.since, stored.since + (day + 5) * MINUTE, MINUTE):
        assert plain.read_candle("BTCUSDT", "1m", "binance", timestamp)  # puts its id into Redis

    def ours(minute):
        candles = None
        since = stored.since + minute * MINUTE
        for _ in range(3):
            candles = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 5, since, since + 5 * MINUTE)
        return candles

    def theirs(minute):
        candles = None
        since = stored.since + minute * MINUTE
        for _ in range(3):
            candles = [plain.read_candle("BTCUSDT", "1m", "binance", since + step * MINUTE) for step in range(5)]
        return candles

    def walk(one_minute, minutes, begin=None):
        clock = itertools.cycle(range(minutes))
        return Side(lambda: one_minute(next(clock)), minutes, begin)

    assert ours(77) == theirs(77) == to_dicts(stored.columns[77:82])
    sides = {"ours": walk(ours, day, None if warm else forget), "plain": walk(theirs, 25)}
    interleaved(f"idle simulated minute, {'blocks warm' if warm else 'cold'}", sides, share=0.25)


class Imports(NamedTuple):
    """The documents to import, and a collection with the same indexes for each side."""

    documents: list[dict[str, Any]]
    ours: Any
    theirs: Any
    raw: Any

    def empty(self, collection):
        collection.drop()
        collection.create_index(list(DOMAINS["candle"].unique_index), unique=True)


@pytest.fixture
def imports(library, plain, series):
    library()
    now = datetime.now(UTC)
    names = {"exchangeName": series.exchange, "interval": series.interval, "symbol": series.symbol}
    documents = [{**names, **candle, "__v": 0, "createDate": now, "updatedDate": now} for candle in to_dicts(series.columns)]
    return Imports(documents, plain.candles, plain.database["theirs"], plain.database["raw"])


def importing(candles, calls, before=None):
    return Side(lambda: PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance"), calls, before)


def test_import(interleaved, imports, series, wires):
    ready = []

    def empty_ours():
        imports.ours.drop()
        forget()
        kit.wait_for_init()  # creates the indexes

    def prepare():
        imports.empty(imports.theirs)
        ready[:] = map(dict, imports.documents)  # insert_many adds an _id to each

    message = floor.command(
        {"insert": "raw", "ordered": True, "$db": wires.database}, ("documents", [{"_id": ObjectId(), **row} for row in imports.documents])
    )
    imports.empty(imports.raw)
    assert wires.mongo.ask(message)["n"] == CANDLES
    sides = {
        "ours": importing(series.columns, 1, empty_ours),
        "ours, from dicts": importing(to_dicts(series.columns), 1, empty_ours),
        "pymongo": Side(lambda: imports.theirs.insert_many(ready), 1, prepare),
        "floor": Side(lambda: wires.mongo.exchange(message), 1, lambda: imports.empty(imports.raw)),
    }
    interleaved("import of 30,240 fresh candles", sides, share=0.15)
    assert [collection.count_documents({}) for collection in (imports.ours, imports.theirs, imports.raw)] == [CANDLES] * 3
    assert len({frozenset(collection.index_information()) for collection in (imports.ours, imports.theirs, imports.raw)}) == 1


def test_reimport(interleaved, imports, series):
    candles = to_dicts(series.columns)
    ready = []

    def theirs():
        with pytest.raises(BulkWriteError):
            imports.theirs.insert_many(ready, ordered=False)

    imports.empty(imports.theirs)
    imports.theirs.insert_many(map(dict, imports.documents))
    importing(candles, 1).call()
    sides = {
        "ours": importing(series.columns, 3),
        "ours, from dicts": importing(candles, 1),
        "pymongo": Side(theirs, 1, lambda: ready.__setitem__(slice(None), map(dict, imports.documents))),
    }
    interleaved("re-import of the same", sides, share=0.08)
    assert [collection.count_documents({}) for collection in (imports.ours, imports.theirs)] == [CANDLES] * 2
