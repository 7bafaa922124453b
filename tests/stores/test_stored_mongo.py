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
    opened = MongoStore(config, Metrics())
    yield opened
    opened.close()


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
            rows_read = [row for page in store.stored_candles(SERIES, since, until) for row in page.tolist()]
            low = -(2**60) if since is None else since
            high = 2**60 if until is None else until
            assert rows_read == [row for row in rows.tolist() if low <= row[0] < high]
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


# --- dates of lists ---


LISTS = {"storage": (True,), "notification": (False,), "log": ()}


def put_list(store, name, numbers, **body):
    store.write(DOMAINS[name], [Record((*LISTS[name], f"r{number}"), {"id": f"r{number}", **body}) for number in numbers])


def as_the_typescript_package_lists(database, name, limit):
    """Newest first, by one date alone."""
    rows = database[f"{name}-items"].find().sort(DOMAINS[name].listing.order, -1).limit(limit)
    return [int(row[DOMAINS[name].row_id].removeprefix("r")) for row in rows]


@pytest.mark.parametrize("name", LISTS)
def test_rows_of_a_list_are_dated_in_the_order_of_the_list(store, database, name):
    """The limit of a list, 1,000 rows, leaves out the oldest of 1,200, in both packages."""
    before = datetime.now(UTC)
    numbers = [(7 * number) % 1200 for number in range(1200)]
    put_list(store, name, numbers)
    assert as_the_typescript_package_lists(database, name, 1000) == numbers[:199:-1]
    assert [record.key[-1] for record in store.scan(DOMAINS[name], LISTS[name], limit=1000)] == [f"r{n}" for n in numbers[:199:-1]]
    rows = list(database[f"{name}-items"].find().sort("updatedDate", 1))
    assert len({row["updatedDate"] for row in rows}) == 1200
    assert all(row["createDate"] == row["updatedDate"] for row in rows)
    assert before - timedelta(seconds=1.3) <= rows[0]["updatedDate"] < rows[-1]["updatedDate"] <= datetime.now(UTC)


def test_a_list_that_is_written_again_has_its_new_order(store, database):
    put_list(store, "storage", range(300))
    for _ in range(20):  # faster than a row per millisecond
        put_list(store, "storage", range(300), again=True)
    assert as_the_typescript_package_lists(database, "storage", 1000) == list(range(300))[::-1]
    put_list(store, "storage", range(299, 99, -1))
    assert as_the_typescript_package_lists(database, "storage", 200) == list(range(100, 300))
    rows = database["storage-items"]
    assert rows.find_one({"signalId": "r99"})["updatedDate"] < rows.find_one({"signalId": "r299"})["updatedDate"]
    assert rows.find_one({"signalId": "r100"})["updatedDate"] <= datetime.now(UTC)
    put_list(store, "storage", range(400, 450))
    assert as_the_typescript_package_lists(database, "storage", 250) == [*range(449, 399, -1), *range(100, 300)]


def test_dates_of_many_short_lists_never_go_back_or_far_ahead(store, database):
    for start in range(0, 6_000, 500):
        put_list(store, "log", range(start, start + 500))
    dates = [row["createDate"] for row in database["log-items"].find().sort("_id", 1)]
    assert dates == sorted(dates)
    assert dates[-1] <= datetime.now(UTC) + timedelta(seconds=1)
    assert as_the_typescript_package_lists(database, "log", 1) == [5_999]


def test_records_that_are_no_list_share_the_date_of_their_write(store, database):
    store.write(DOMAINS["state"], [Record((f"s{number}", "b"), {}, 0) for number in range(100)])
    assert len(database["state-items"].distinct("updatedDate")) == 1
