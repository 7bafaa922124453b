"""The contents of MongoDB, by domain and series, as copy and export read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pymongo
import pytest

from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import BacktestKitError, DatabaseError
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.mongo import candles as mongo_candles
from backtest_kit_mongo.stores.mongo.store import MongoStore

MINUTE = 60_000
SERIES = ("binance", "BTCUSDT", "1m")


@pytest.fixture(params=[True, False], ids=["wire", "pymongo"])
def store(settings, request):
    config = load_config({**settings, "CC_WIRE_LANE": request.param})
    found = MongoStore(config, Metrics())
    yield found
    found.close()


@pytest.fixture
def database(settings):
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        yield client.get_default_database()


def candles(*stamps):
    rows = np.zeros(len(stamps), CANDLE_DTYPE)
    rows["timestamp"] = stamps
    rows["open"] = rows["high"] = rows["low"] = rows["close"] = np.arange(len(stamps)) + 1
    return rows


def put(store, series, rows):
    exchange_name, symbol, interval = series
    return store.write_candles(symbol, interval, exchange_name, rows)


def test_series_are_found_by_steps_through_the_index(store, database):
    assert store.candle_series() == []
    expected = sorted((e, s, i) for e in ("", "binance", "é") for s in ("", "B", "BTC", "btc") for i in ("1m", "1h"))
    for series in expected:
        put(store, series, candles(*range(0, 30 * 3_600_000, 3_600_000)))
    foreign = [{"exchangeName": None}, {"exchangeName": "z", "symbol": 3, "interval": "1m"}, {"exchangeName": "z", "symbol": "a"}]
    database["candle-items"].insert_many([{**one, "timestamp": index} for index, one in enumerate(foreign)])
    assert store.candle_series() == expected
    database.command({"profile": 2})
    store.candle_series()
    database.command({"profile": 0})
    asked = list(database["system.profile"].find({"command.find": "candle-items"}))
    assert len(asked) == len(expected) + 1
    assert all(one["docsExamined"] == 0 and one["keysExamined"] < 20 and not one.get("hasSortStage") for one in asked)


def test_stored_candles_come_in_pages_with_holes_and_without_what_is_off_the_grid(store, database, monkeypatch):
    monkeypatch.setattr(mongo_candles, "PAGE", 7)
    stamps = [index * MINUTE for index in (-5, -4, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 20, 22, 24, 25, 26, 27, 28, 29, 30, 1000)]
    rows = candles(*stamps)
    put(store, SERIES, rows)
    put(store, ("binance", "BTCUSDT", "5m"), candles(0, 300_000))
    fields = dict(zip(("exchangeName", "symbol", "interval"), SERIES, strict=True))
    foreign = [
        MINUTE + 1,
        2 * MINUTE + 0.5,
        float("nan"),
        float("inf"),
        "0",
        [3 * MINUTE],
        None,
        *(5 * MINUTE + step for step in range(1, 20)),
    ]
    database["candle-items"].insert_many([{**fields, "timestamp": stamp} for stamp in foreign])

    pages = list(store.stored_candles(SERIES))
    assert np.array_equal(np.concatenate(pages), rows)
    assert len(pages) > 2
    assert all(page.dtype == CANDLE_DTYPE and not page.flags.writeable for page in pages)
    for since in (None, -4 * MINUTE, 1, 5 * MINUTE, 2000 * MINUTE):
        for until in (None, -5 * MINUTE, 8 * MINUTE, 8 * MINUTE + 1):
            found = [row for page in store.stored_candles(SERIES, since, until) for row in page.tolist()]
            low = -(2**60) if since is None else since
            high = 2**60 if until is None else until
            assert found == [row for row in rows.tolist() if low <= row[0] < high]
    assert list(store.stored_candles(("nowhere", "BTCUSDT", "1m"))) == []


def test_a_candle_without_a_price_is_named(store, database):
    put(store, SERIES, candles(0, MINUTE))
    database["candle-items"].update_one({"timestamp": MINUTE}, {"$unset": {"low": True}})
    with pytest.raises(DatabaseError, match=r"binance BTCUSDT 1m.*candle at 60000 has no low"):
        list(store.stored_candles(SERIES))


def test_records_give_all_the_removed_ones_too(store, database):
    memory = DOMAINS["memory"]
    written = [Record(("signal", "bucket", f"m{index}"), {"n": index}, 1000 + index) for index in range(30)]
    store.write(memory, written)
    store.remove(memory, [written[3].key])
    database["memory-items"].update_one({"memoryId": "m4"}, {"$set": {"payload": None}})
    expected = list(written)
    expected[3] = Record(written[3].key, {"n": 3, "removed": True}, 1003, True)
    expected[4] = Record(written[4].key, None, 1004)
    assert list(store.records(memory)) == expected
    assert list(store.records(DOMAINS["state"])) == []

    listed = list(store.scan(memory, ("signal", "bucket"), bodies=False))
    assert {record.key for record in listed} == {record.key for record in expected if not record.removed}
    everything = list(store.scan(memory, ("signal", "bucket"), bodies=False, removed=True))
    assert sorted(everything) == sorted(record._replace(body=None) for record in expected)
    assert sorted(record.key for record in store.scan(memory, ("signal", "bucket"), limit=100, removed=True)) == sorted(
        r.key for r in expected
    )


@pytest.mark.parametrize("name", ["log", "notification", "storage"])
def test_lists_come_in_the_order_of_their_first_writing(store, database, name):
    domain = DOMAINS[name]
    keys = [("one",), ("two",), ("three",)] if name == "log" else [(True, "one"), (False, "two"), (True, "three")]
    store.write(domain, [Record(key, {"id": key[-1]}) for key in keys])
    store.write(domain, [Record(keys[0], {"id": "one", "again": True})])
    assert [record.key for record in store.records(domain)] == keys
    early = datetime.now(UTC) - timedelta(days=1)
    database[domain.collection].update_one({domain.row_id: "three"}, {"$set": {"createDate": early}})
    assert [record.key for record in store.records(domain)] == [keys[2], keys[0], keys[1]]


def test_errors_of_streams_are_ours(settings):
    store = MongoStore(load_config(settings), Metrics())
    put(store, SERIES, candles(0))
    store.close()
    for stream in (store.stored_candles(SERIES), store.records(DOMAINS["log"])):
        with pytest.raises(BacktestKitError, match="close"):
            list(stream)
