"""What is stored in MongoDB and Redis must match a table of what the TypeScript package stores.

The table is typed by hand and independent of the one the library works from: a field, an index or a Redis key that changes there must
fail here. Documents of the TypeScript package are typed by hand too, with the BSON types that a JavaScript driver chooses: an integer
that fits 32 bits is an int32, every other number a double.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import bson
import msgspec
import pytest
from bson import Int64, ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.domains import DOMAINS

T0 = 1_700_000_000_000
JS_NOW = float(T0)  # JavaScript's Date.now() in BSON
OLD = datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def on(name):
    return getattr(kit, f"Persist{name.capitalize()}Adapter")


class Stored(NamedTuple):
    """What one contract stores, according to the TypeScript package's documents and Redis keys."""

    collection: str
    unique: str  # the unique index, its fields in order
    fields: str  # the fields of a document, in order
    redis: str
    write: tuple[Any, ...]  # the method of our contract, and its arguments after the body
    read: tuple[Any, ...]
    key: dict[str, Any]  # the key fields for these arguments
    body: Any
    body_field: str = "payload"
    when: bool = False

    @property
    def name(self):
        return self.collection.removesuffix("-items")

    def put(self, body):
        method, *arguments = self.write
        getattr(on(self.name), method)([body] if self.name in LISTS else body, *arguments)

    def get(self):
        method, *arguments = self.read
        stored = getattr(on(self.name), method)(*arguments)
        return stored[0] if self.name in LISTS else stored


ENVELOPE = "__v createDate payload updatedDate"
TIMED = f"{ENVELOPE} when"
SOFT = "__v createDate payload removed updatedDate"
ROW = {
    "id": "row-1",
    "priceOpen": 95_000,
    "priceTakeProfit": 95_000.5,
    "timestamp": T0,
    "minuteEstimatedTime": math.inf,
    "note": None,
    "e": {},
}


def slot(name):
    arguments = ("BTC/USDT", "sma:cross", "binance")
    return Stored(
        f"{name}-items", "symbol strategyName exchangeName", f"_id exchangeName strategyName symbol {ENVELOPE}",
        f"{name}_cache:binance:sma:cross:BTC/USDT", (f"write_{name}_data", *arguments), (f"read_{name}_data", *arguments),
        {"exchangeName": "binance", "strategyName": "sma:cross", "symbol": "BTC/USDT"}, ROW,
    )  # fmt: skip


def levels(name, body):
    arguments = ("BTCUSDT", "sma", "sig-1", "binance", T0)
    return Stored(
        f"{name}-items", "symbol strategyName exchangeName signalId", f"_id exchangeName signalId strategyName symbol {TIMED}",
        f"{name}_cache:binance:sma:BTCUSDT:sig-1", (f"write_{name}_data", *arguments), (f"read_{name}_data", *arguments),
        {"exchangeName": "binance", "signalId": "sig-1", "strategyName": "sma", "symbol": "BTCUSDT"}, body, when=True,
    )  # fmt: skip


FORMAT: dict[str, Stored] = {
    "signal": slot("signal"),
    "schedule": slot("schedule"),
    "strategy": slot("strategy"),
    "risk": Stored(
        "risk-items", "riskName exchangeName", "_id exchangeName riskName __v createDate positions updatedDate when",
        "risk_cache:binance:main", ("write_position_data", "main", "binance", T0), ("read_position_data", "main", "binance", T0),
        {"exchangeName": "binance", "riskName": "main"}, [["sma_binance_BTCUSDT", {"symbol": "BTCUSDT", "minuteEstimatedTime": 60}]],
        body_field="positions", when=True,
    ),
    "partial": levels("partial", {"sig-1": {"profitLevels": [10, 20], "lossLevels": []}}),
    "breakeven": levels("breakeven", {"sig-1": {"reached": True}}),
    "measure": Stored(
        "measure-items", "bucket entryKey", f"_id bucket entryKey {SOFT}", "measure_cache:fn_1h_0:BTCUSDT_1700000000000",
        ("write_measure_data", "fn_1h_0", "BTCUSDT_1700000000000", T0), ("read_measure_data", "fn_1h_0", "BTCUSDT_1700000000000"),
        {"bucket": "fn_1h_0", "entryKey": "BTCUSDT_1700000000000"}, {"id": "k", "data": {"a": 1.5}, "removed": False},
    ),
    "interval": Stored(
        "interval-items", "bucket entryKey", f"_id bucket entryKey {SOFT} when", "interval_cache:fn_1h_0:BTCUSDT",
        ("write_interval_data", "fn_1h_0", "BTCUSDT", T0), ("read_interval_data", "fn_1h_0", "BTCUSDT"),
        {"bucket": "fn_1h_0", "entryKey": "BTCUSDT"}, {"id": "k", "data": {}, "removed": False, "when": OLD}, when=True,
    ),
    "memory": Stored(
        "memory-items", "signalId bucketName memoryId", f"_id bucketName memoryId signalId {SOFT} when", "memory_cache:sig-1:notes:m1",
        ("write_memory_data", "sig-1", "notes", "m1", T0), ("read_memory_data", "sig-1", "notes", "m1"),
        {"bucketName": "notes", "memoryId": "m1", "signalId": "sig-1"},
        {"priority": T0, "data": {"a": 1}, "removed": False, "index": "text", "when": T0}, when=True,
    ),
    "recent": Stored(
        "recent-items", "symbol strategyName exchangeName frameName backtest",
        f"_id backtest exchangeName frameName strategyName symbol {TIMED}", "recent_cache:live:binance:s1::BTCUSDT",
        ("write_recent_data", "BTCUSDT", "s1", "binance", "", False, T0), ("read_recent_data", "BTCUSDT", "s1", "binance", "", False),
        {"backtest": False, "exchangeName": "binance", "frameName": "", "strategyName": "s1", "symbol": "BTCUSDT"}, ROW, when=True,
    ),
    "state": Stored(
        "state-items", "signalId bucketName", f"_id bucketName signalId {TIMED}", "state_cache:sig-1:notes",
        ("write_state_data", "sig-1", "notes", T0), ("read_state_data", "sig-1", "notes"),
        {"bucketName": "notes", "signalId": "sig-1"}, {"id": "sig-1_notes", "data": {}, "when": T0}, when=True,
    ),
    "session": Stored(
        "session-items", "strategyName exchangeName frameName symbol backtest",
        f"_id backtest exchangeName frameName strategyName symbol {TIMED}", "session_cache:binance:sma:jan:BTCUSDT:backtest",
        ("write_session_data", "sma", "binance", "jan", T0, "BTCUSDT", True),
        ("read_session_data", "sma", "binance", "jan", "BTCUSDT", True),
        {"backtest": True, "exchangeName": "binance", "frameName": "jan", "strategyName": "sma", "symbol": "BTCUSDT"},
        {"id": "BTCUSDT:sma:binance:jan:backtest", "data": None, "when": T0}, when=True,
    ),
    "dictionary": Stored(
        "dictionary-items", "signalId dictionaryName", f"_id dictionaryName signalId {TIMED}", "dictionary_cache:sig-1:prices",
        ("write_dictionary_data", "sig-1", "prices", T0), ("read_dictionary_data", "sig-1", "prices"),
        {"dictionaryName": "prices", "signalId": "sig-1"}, {"id": "d", "data": {"a": 1}, "when": T0}, when=True,
    ),
    "storage": Stored(
        "storage-items", "backtest signalId", f"_id backtest signalId {ENVELOPE}", "storage_cache:live:row-1",
        ("write_storage_data", False), ("read_storage_data", False), {"backtest": False, "signalId": "row-1"}, ROW,
    ),
    "notification": Stored(
        "notification-items", "backtest notificationId", f"_id backtest notificationId {ENVELOPE}", "notification_cache:backtest:row-1",
        ("write_notification_data", True), ("read_notification_data", True), {"backtest": True, "notificationId": "row-1"}, ROW,
    ),
    "log": Stored(
        "log-items", "entryId", f"_id entryId {ENVELOPE}", "log_cache:row-1", ("write_log_data",), ("read_log_data",),
        {"entryId": "row-1"},
        {"id": "row-1", "type": "info", "args": [], "executionContext": {"symbol": "B", "when": OLD, "backtest": True}},
    ),
}  # fmt: skip
LISTS = ("storage", "notification", "log")
CANDLE = {"timestamp": 1_699_920_000_000, "open": 100.5, "high": 101, "low": 99.25, "close": 100, "volume": 0}
CANDLE_KEY = "candle_cache:binance:BTCUSDT:1m:1699920000000"

every = pytest.mark.parametrize("name", FORMAT)
keyed = pytest.mark.parametrize("name", [name for name in FORMAT if name not in LISTS])


def collection(name):
    return kit.get_mongo().get_collection(
        FORMAT[name].collection if name in FORMAT else f"{name}-items", codec_options=bson.CodecOptions(tz_aware=True)
    )


def only(name):
    documents = list(collection(name).find())
    assert len(documents) == 1
    return documents[0]


def put_candle(**more):
    kit.PersistCandleAdapter.write_candles_data([CANDLE | more], "BTCUSDT", "1m", "binance")


def start_again(settings, **more):
    """Start a new process, as far as the library can tell."""
    kit.close()
    kit.setup({**settings, **more})


def test_table_holds_every_domain():
    assert {*FORMAT, "candle"} == set(DOMAINS)


# --- documents -------------------------------------------------------------------------------------------------------


@every
def test_document_of_a_first_write(mongo, name):
    """Collection, fields, their order and the envelope match; ``_id`` is an ObjectId, dates are BSON dates near now."""
    stored = FORMAT[name]
    before = datetime.now(UTC)
    stored.put(stored.body)
    after = datetime.now(UTC)
    assert kit.get_mongo().list_collection_names() == [stored.collection]
    document = only(name)
    assert list(document) == stored.fields.split()
    assert isinstance(document["_id"], ObjectId)
    assert {field: document[field] for field in stored.key} == stored.key
    assert document[stored.body_field] == stored.body
    assert document["__v"] == 0
    assert type(document["__v"]) is int
    assert document["createDate"] == document["updatedDate"]
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= document["createDate"] <= after
    if stored.when:
        assert document["when"] == T0
        assert not isinstance(document["when"], datetime)
    if "removed" in document:
        assert document["removed"] is False
    body = document[stored.body_field]
    if isinstance(body, dict):
        assert list(body) == list(stored.body)


@keyed
def test_document_of_a_batch_is_the_same(mongo, name):
    """A bulk upsert stores the same document as a single one."""
    stored = FORMAT[name]
    stored.put(stored.body)
    single = only(name)
    collection(name).delete_many({})
    on(name).write_many([(stored.body, *stored.write[1:])])
    batch = only(name)
    assert list(batch) == list(single)
    for field in set(single) - {"_id", "createDate", "updatedDate"}:
        assert batch[field] == single[field]
        assert type(batch[field]) is type(single[field])


def test_document_of_a_candle(mongo):
    put_candle()
    document = only("candle")
    expected = "_id exchangeName interval symbol timestamp __v close createDate high low open updatedDate volume"
    assert list(document) == expected.split()
    assert isinstance(document["_id"], ObjectId)
    assert {field: document[field] for field in ("exchangeName", "interval", "symbol")} == {
        "exchangeName": "binance", "interval": "1m", "symbol": "BTCUSDT",
    }  # fmt: skip
    assert {field: document[field] for field in CANDLE} == CANDLE
    assert isinstance(document["timestamp"], (int, float))
    assert document["__v"] == 0
    assert document["createDate"] == document["updatedDate"]


@every
def test_rewrite_updates_in_place(mongo, name):
    """The document, its ``_id`` and createDate stay; updatedDate changes. A log entry does not change at all."""
    stored = FORMAT[name]
    stored.put(stored.body)
    first = only(name)
    time.sleep(0.005)
    other = [["k", {}]] if name == "risk" else {**stored.body, "new": 1}
    stored.put(other)
    second = only(name)
    if name == "log":
        assert second == first
        return
    assert list(second) == list(first)
    assert second["updatedDate"] > first["updatedDate"]
    assert second[stored.body_field] == other
    for field in ("_id", "createDate", "__v", *stored.key):
        assert second[field] == first[field]


@pytest.mark.parametrize("name", ["measure", "interval", "memory"])
def test_removal_marks_document_and_payload(mongo, name):
    """As in the TypeScript package, both flags are set and the payload stays."""
    stored = FORMAT[name]
    stored.put(stored.body)
    first = only(name)
    time.sleep(0.005)
    getattr(on(name), f"remove_{name}_data")(*[stored.key[field] for field in stored.unique.split()])
    second = only(name)
    assert second["removed"] is True
    assert second["payload"] == {**stored.body, "removed": True}
    assert second["updatedDate"] > first["updatedDate"]
    assert list(second) == list(first)
    stored.put(stored.body)
    third = only(name)
    assert third["removed"] is False
    assert third["payload"] == stored.body
    assert third["_id"] == first["_id"]


def test_null_signal_keeps_its_document(mongo):
    FORMAT["signal"].put(ROW)
    first = only("signal")
    FORMAT["signal"].put(None)
    second = only("signal")
    assert second["payload"] is None
    assert "payload" in second
    assert second["_id"] == first["_id"]


@every
def test_what_the_original_cannot_read_is_never_written(mongo, name):
    """Never a date as ``when`` or key, an ``_id`` other than an ObjectId, or a BSON type that a JavaScript driver has no value for."""
    stored = FORMAT[name]
    stored.put(stored.body)
    raw = collection(name).find_one()
    assert raw is not None
    assert isinstance(raw["_id"], ObjectId)
    for field in stored.key:
        assert isinstance(raw[field], (str, bool))
    if "when" in raw:
        assert isinstance(raw["when"], (int, float))


# --- indexes ---------------------------------------------------------------------------------------------------------


def indexes(name):
    return {index["name"]: (list(index["key"].items()), bool(index.get("unique"))) for index in collection(name).list_indexes()}


def test_unique_indexes_have_the_names_and_orders_of_the_original(mongo):
    kit.wait_for_init(15)
    for name in (*FORMAT, "candle"):
        fields = "exchangeName symbol interval timestamp" if name == "candle" else FORMAT[name].unique
        existing = indexes(name)
        expected = "_".join(f"{field}_1" for field in fields.split())
        assert existing[expected] == ([(field, 1) for field in fields.split()], True)
        assert [index for index, (_, unique) in existing.items() if unique] == [expected]


@every
def test_unique_index_stands_after_a_first_write_without_the_gate(mongo, name):
    stored = FORMAT[name]
    stored.put(stored.body)
    assert indexes(name)["_".join(f"{field}_1" for field in stored.unique.split())][1] is True
    with pytest.raises(DuplicateKeyError):
        collection(name).insert_one(dict(stored.key))


# Indexes of the TypeScript package besides the unique ones: one per field, and some on two.
SINGLE = {name: [*stored.unique.split(), *(["when"] if stored.when else [])] for name, stored in FORMAT.items()}
SINGLE["candle"] = ["exchangeName", "symbol", "interval", "timestamp"]
MORE: dict[str, list[Any]] = {
    "measure": ["removed", [("bucket", 1), ("removed", 1)]],
    "interval": ["removed", [("bucket", 1), ("removed", 1)]],
    "memory": ["removed", [("signalId", 1), ("bucketName", 1), ("removed", 1)]],
    "notification": [[("backtest", ASCENDING), ("createDate", DESCENDING)]],
    "log": [[("createDate", DESCENDING)]],
}


def test_indexes_of_the_original_are_no_hindrance_and_stay(mongo):
    """A database created by the TypeScript package is used as it is."""
    names: dict[str, set[str]] = {}
    for name, singles in SINGLE.items():
        unique = singles if name == "candle" else FORMAT[name].unique.split()
        collection(name).create_index([(field, 1) for field in unique], unique=True, background=True)
        for index in (*singles, *MORE.get(name, ())):
            if name != "log" or index != "entryId":
                collection(name).create_index(index, background=True)
        names[name] = set(indexes(name))
    kit.wait_for_init(15)
    for name, before in names.items():
        assert before <= set(indexes(name))
    for name, stored in FORMAT.items():
        stored.put(stored.body)
        assert stored.get() == stored.body, name


# --- Redis -----------------------------------------------------------------------------------------------------------


@keyed
def test_redis_key_and_value(mongo, name):
    """The value is a plain string, the id in hexadecimal, without expiry; never a payload."""
    stored = FORMAT[name]
    stored.put(stored.body)
    client = kit.get_redis()
    key = stored.redis.encode()
    assert client.keys("*") == [key]
    assert client.type(key) == b"string"
    assert client.get(key) == str(only(name)["_id"]).encode()
    assert client.ttl(key) == -1


@keyed
def test_redis_key_of_a_batch(mongo, name):
    stored = FORMAT[name]
    on(name).write_many([(stored.body, *stored.write[1:])])
    client = kit.get_redis()
    assert client.keys("*") == [stored.redis.encode()]
    assert client.get(stored.redis) == str(only(name)["_id"]).encode()
    assert client.ttl(stored.redis) == -1


@keyed
def test_redis_key_of_a_read(mongo, name):
    """A miss stores the id of what it found."""
    stored = FORMAT[name]
    stored.put(stored.body)
    kit.get_redis().flushall()
    start_again(mongo)
    assert kit.get_redis().keys("*") == []
    assert stored.get() == stored.body
    assert kit.get_redis().keys("*") == [stored.redis.encode()]
    assert kit.get_redis().get(stored.redis) == str(only(name)["_id"]).encode()


@pytest.mark.parametrize("name", LISTS)
def test_list_ids_go_to_redis_on_request_only(settings, name):
    stored = FORMAT[name]
    kit.setup(settings)
    stored.put(stored.body)
    assert stored.get() == stored.body
    assert kit.get_redis().keys("*") == []
    collection(name).delete_many({})
    start_again(settings, CC_REDIS_IDS="all")
    other = {**stored.body, "id": "row-2"}
    stored.put(stored.body)
    stored.put(other)
    ids = {document["payload"]["id"]: str(document["_id"]).encode() for document in collection(name).find()}
    client = kit.get_redis()
    assert set(client.keys("*")) == {stored.redis.encode(), stored.redis.replace("row-1", "row-2").encode()}
    assert client.get(stored.redis) == ids["row-1"]
    assert client.get(stored.redis.replace("row-1", "row-2")) == ids["row-2"]
    assert client.ttl(stored.redis) == -1
    # Rows that exist already get their ids as well.
    client.flushall()
    stored.put(stored.body)
    assert client.get(stored.redis) == ids["row-1"]


def test_candle_ids_go_to_redis_on_request_only(settings):
    kit.setup(settings)
    put_candle()
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 1, CANDLE["timestamp"], 0) is not None
    assert kit.get_redis().keys("*") == []
    collection("candle").delete_many({})
    start_again(settings, CC_REDIS_IDS="all")
    put_candle()
    put_candle(timestamp=CANDLE["timestamp"] + 60_000)
    client = kit.get_redis()
    ids = {int(document["timestamp"]): str(document["_id"]).encode() for document in collection("candle").find()}
    assert {key: client.get(key) for key in client.keys("*")} == {
        CANDLE_KEY.encode(): ids[1_699_920_000_000], b"candle_cache:binance:BTCUSDT:1m:1699920060000": ids[1_699_920_060_000],
    }  # fmt: skip
    assert client.ttl(CANDLE_KEY) == -1
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 2, CANDLE["timestamp"], 0)[0] == CANDLE


@pytest.mark.parametrize(("backtest", "mode"), [(True, "backtest"), (False, "live")])
def test_mode_in_redis_keys(mongo, backtest, mode):
    kit.PersistRecentAdapter.write_recent_data(ROW, "B", "s", "e", "f", backtest, T0)
    kit.PersistSessionAdapter.write_session_data(ROW, "s", "e", "f", T0, "B", backtest)
    assert set(kit.get_redis().keys("*")) == {f"recent_cache:{mode}:e:s:f:B".encode(), f"session_cache:e:s:f:B:{mode}".encode()}


@keyed
def test_warm_id_of_another_writer_is_used(mongo, name):
    """An id that the TypeScript package or another process left in Redis is a hit."""
    stored = FORMAT[name]
    stored.put(stored.body)
    start_again(mongo)
    kit.reset_stats()
    assert stored.get() == stored.body
    counts = kit.stats()[name]
    assert (counts["hits_redis"], counts["misses"]) == (1, 0)


# --- documents of the TypeScript package -----------------------------------------------------------------------------

PNL = {"pnlPercentage": 0.1, "priceOpen": 95_000, "priceClose": 95_100, "pnlCost": 0.1, "pnlEntries": 100}
JS_ROW = {
    "position": "long", "priceOpen": 95_000, "priceTakeProfit": 96_000.5, "priceStopLoss": 94_000, "minuteEstimatedTime": math.inf,
    "cost": 100, "id": "row-1", "symbol": "BTC/USDT", "strategyName": "sma:cross", "exchangeName": "binance", "frameName": "",
    "scheduledAt": JS_NOW, "pendingAt": JS_NOW, "timestamp": JS_NOW, "note": None, "_isScheduled": False,
    "_peak": {"price": 95_100, "timestamp": JS_NOW, **PNL}, "_fall": {"price": 95_000, "timestamp": JS_NOW, **PNL},
}  # fmt: skip
JS_PUBLIC = {
    **JS_ROW, "originalPriceOpen": 95_000, "originalPriceTakeProfit": 96_000.5, "originalPriceStopLoss": 94_000, "partialExecuted": 0,
    "totalEntries": 1, "totalPartials": 0, "pnl": PNL, "peakProfit": PNL, "maxDrawdown": PNL,
}  # fmt: skip
GOLDEN: dict[str, tuple[dict[str, Any], Any]] = {
    "signal": ({"payload": JS_ROW}, payloads.SignalRow),
    "schedule": ({"payload": JS_ROW}, payloads.ScheduledSignalRow),
    "strategy": (
        {
            "payload": {
                "pendingSignalId": "row-1", "lastPendingId": None, "createdSignal": None,
                "commitQueue": [{"action": "partial-profit", "symbol": "B", "backtest": False, "percentToClose": 25, "currentPrice": 1.5}],
                "closedSignal": {**JS_ROW, "closeId": None}, "takeProfitSignal": None, "stopLossSignal": None, "cancelledSignal": None,
                "activatedSignal": None, "retryOpenSignal": None, "retryOpenCount": 0, "retryCloseCount": 0, "isPaused": False,
            }
        },
        payloads.StrategyData,
    ),
    "risk": (
        {
            "positions": [["sma_binance_BTCUSDT", {
                "strategyName": "sma", "exchangeName": "binance", "frameName": "", "symbol": "BTCUSDT", "position": "short",
                "priceOpen": 95_000, "priceStopLoss": 96_000, "priceTakeProfit": 90_000.5, "minuteEstimatedTime": math.inf,
                "openTimestamp": JS_NOW,
            }]],
            "when": JS_NOW,
        },
        payloads.RiskData,
    ),
    "partial": ({"payload": {"sig-1": {"profitLevels": [10, 20], "lossLevels": []}}, "when": JS_NOW}, payloads.PartialData),
    "breakeven": ({"payload": {"sig-1": {"reached": False}}, "when": JS_NOW}, payloads.BreakevenData),
    "measure": ({"payload": {"id": "k", "data": {"sma": 1.5, "at": JS_NOW}, "removed": False}, "removed": False}, payloads.MeasureData),
    "interval": (
        {"payload": {"id": "k", "data": {}, "removed": False, "when": OLD}, "removed": False, "when": JS_NOW}, payloads.IntervalData,
    ),
    "memory": (
        {
            "payload": {"priority": JS_NOW, "data": {"a": [1, None]}, "removed": False, "index": "é", "when": JS_NOW}, "removed": False,
            "when": JS_NOW,
        },
        payloads.MemoryData,
    ),
    "recent": ({"payload": JS_PUBLIC, "when": JS_NOW}, payloads.PublicSignalRow),
    "state": ({"payload": {"id": "sig-1_notes", "data": {}, "when": JS_NOW}, "when": JS_NOW}, payloads.StateData),
    "session": (
        {"payload": {"id": "BTCUSDT:sma:binance:jan:backtest", "data": None, "when": JS_NOW}, "when": JS_NOW}, payloads.SessionData,
    ),
    "dictionary": ({"payload": {"id": "d", "data": {"a": 1}, "when": JS_NOW}, "when": JS_NOW}, payloads.DictionaryData),
    "storage": (
        {
            "payload": {
                **JS_PUBLIC, "createdAt": JS_NOW, "updatedAt": JS_NOW, "priority": JS_NOW, "status": "opened", "currentPrice": 95_000,
            }
        },
        payloads.StorageSignalRow,
    ),
    "notification": (
        {
            "payload": {
                "type": "strategy.pause", "id": "row-1", "timestamp": JS_NOW, "backtest": True, "symbol": "B", "strategyName": "s",
                "exchangeName": "e", "frameName": "", "paused": True, "createdAt": JS_NOW,
            }
        },
        payloads.NotificationModel,
    ),
    "log": (
        {
            "payload": {
                "id": "row-1", "type": "warn", "priority": JS_NOW, "createdAt": "2023-11-14T22:13:20.123Z", "timestamp": JS_NOW,
                "methodContext": None, "executionContext": {"symbol": "B", "when": OLD, "backtest": True}, "topic": "t",
                "args": [1, 1.5, "x", None, {}],
            }
        },
        payloads.LogEntry,
    ),
}  # fmt: skip


def golden(name, **more):
    """Return a document as mongoose stores it: ``_id``, key fields by name, the rest by name."""
    rest = {**GOLDEN[name][0], "__v": 0, "createDate": OLD, "updatedDate": OLD, **more}
    return {"_id": ObjectId(), **dict(sorted(FORMAT[name].key.items())), **dict(sorted(rest.items()))}


@every
def test_document_of_the_original_is_read(mongo, name):
    stored, (fields, kind) = FORMAT[name], GOLDEN[name]
    collection(name).insert_one(golden(name))
    assert stored.get() == fields[stored.body_field]
    assert read_typed(name, kind) == msgspec.convert(fields[stored.body_field], kind)


def read_typed(name, kind):
    method, *arguments = FORMAT[name].read
    stored = getattr(on(name), method)(*arguments, type=kind)
    return stored[0] if name in LISTS else stored


@every
def test_document_of_the_original_is_updated_in_place(mongo, name):
    """This includes documents without ``__v`` and dates; unknown fields stay."""
    stored = FORMAT[name]
    document = golden(name, tenant="other writer", legacy={"a": [1]})
    del document["__v"], document["createDate"]
    collection(name).insert_one(document)
    new = [] if name == "risk" else {**stored.body, "new": True}
    stored.put(new)
    after = only(name)
    assert after["_id"] == document["_id"]
    assert after["tenant"] == "other writer"
    assert after["legacy"] == {"a": [1]}
    if name == "log":  # the first write of an id wins
        assert after == document
        return
    assert after[stored.body_field] == new
    assert after["updatedDate"] > OLD
    assert stored.get() == new
    if stored.when:
        assert after["when"] == T0


@every
def test_createdate_of_the_original_stays(mongo, name):
    stored = FORMAT[name]
    document = golden(name)
    collection(name).insert_one(document)
    stored.put(stored.body)
    assert only(name)["createDate"] == OLD
    assert only(name)["__v"] == 0


@pytest.mark.parametrize("name", ["measure", "interval", "memory"])
def test_removal_by_the_original_is_a_removal(mongo, name):
    stored = FORMAT[name]
    document = golden(name, removed=True)
    document["payload"] = {**document["payload"], "removed": True}
    collection(name).insert_one(document)
    context = [stored.key[field] for field in stored.unique.split()]
    assert stored.get() is None
    assert list(getattr(on(name), f"list_{name}_data")(*context[:-1])) == []
    stored.put(stored.body)
    assert stored.get() == stored.body
    assert only(name)["_id"] == document["_id"]


@pytest.mark.parametrize("name", ["measure", "interval", "memory"])
def test_document_of_an_older_version_without_the_flag_is_there(mongo, name):
    stored = FORMAT[name]
    document = golden(name)
    del document["removed"]
    collection(name).insert_one(document)
    context = [stored.key[field] for field in stored.unique.split()]
    assert stored.get() == document["payload"]
    assert len(list(getattr(on(name), f"list_{name}_data")(*context[:-1]))) == 1
    getattr(on(name), f"remove_{name}_data")(*context)
    assert stored.get() is None


@keyed
def test_document_without_a_payload_reads_as_nothing(mongo, name):
    """The TypeScript package leaves such a document when it is passed undefined."""
    document = golden(name)
    del document[FORMAT[name].body_field]
    collection(name).insert_one(document)
    assert FORMAT[name].get() == {"risk": [], "partial": {}, "breakeven": {}}.get(name)
    FORMAT[name].put(FORMAT[name].body)
    assert FORMAT[name].get() == FORMAT[name].body
    assert only(name)["_id"] == document["_id"]


@pytest.mark.parametrize("name", ["measure", "interval", "memory"])
def test_record_with_a_null_payload_can_be_removed(mongo, name):
    """No validator stops the TypeScript package from storing one."""
    stored = FORMAT[name]
    document = golden(name)
    document["payload"] = None
    collection(name).insert_one(document)
    assert stored.get() is None
    context = [stored.key[field] for field in stored.unique.split()]
    getattr(on(name), f"remove_{name}_data")(*context)
    assert list(getattr(on(name), f"list_{name}_data")(*context[:-1])) == []


@keyed
def test_document_with_a_string_id_is_read_and_updated(mongo, name):
    """The TypeScript package fails on it from the second read on."""
    stored = FORMAT[name]
    collection(name).insert_one({**golden(name), "_id": "a string"})
    for _ in range(3):
        assert stored.get() == GOLDEN[name][0][stored.body_field]
    stored.put(stored.body)
    assert stored.get() == stored.body
    assert only(name)["_id"] == "a string"
    assert kit.get_redis().keys("*") == []


@pytest.mark.parametrize("when", [JS_NOW, Int64(T0), 5, None, OLD, math.nan, "text"], ids=str)
def test_whatever_stands_in_when_the_payload_is_read(mongo, when):
    """``when`` is stored and never compared; an older version stored a date there."""
    for name, stored in FORMAT.items():
        if stored.when:
            collection(name).insert_one({**golden(name), "when": when})
            assert stored.get() == GOLDEN[name][0][stored.body_field]


def test_log_line_that_the_original_stored_without_an_id_is_read(mongo):
    """The TypeScript package stores such a line with a null id, and then throws."""
    collection("log").insert_one({**golden("log"), "entryId": None, "payload": {"topic": "lost"}})
    kit.PersistLogAdapter.write_log_data([{"id": "a"}])
    assert kit.PersistLogAdapter.read_log_data() == [{"topic": "lost"}, {"id": "a"}]


def test_documents_without_dates_are_listed(mongo):
    """They come last in newest-first order."""
    for number in range(3):
        document = golden("storage", payload={"id": f"old {number}"})
        document["signalId"] = f"old {number}"
        del document["createDate"], document["updatedDate"]
        collection("storage").insert_one(document)
    kit.PersistStorageAdapter.write_storage_data([{"id": "new"}], False)
    stored = [row["id"] for row in kit.PersistStorageAdapter.read_storage_data(False)]
    assert stored[0] == "new"
    assert sorted(stored[1:]) == ["old 0", "old 1", "old 2"]


def test_order_of_the_log_of_the_original_is_kept(mongo):
    """The order is by createDate, ties by ``_id``; the TypeScript package leaves ties to chance."""
    documents = []
    for number in range(50):
        document = golden("log", payload={"id": f"l{number:02}"})
        document["entryId"] = f"l{number:02}"
        documents.append(document)
    collection("log").insert_many(documents[::-1])
    assert [row["id"] for row in kit.PersistLogAdapter.read_log_data()] == [f"l{number:02}" for number in range(50)]
    assert [row["id"] for row in kit.PersistLogAdapter.read_log_data(limit=2)] == ["l48", "l49"]


def test_date_beyond_python_is_a_clear_error(mongo):
    """JavaScript dates reach the year 275760, Python's 9999."""
    far = bson.DatetimeMS(8_640_000_000_000_000)
    collection("interval").insert_one(golden("interval", payload={"id": "k", "when": far, "removed": False}))
    with pytest.raises(kit.DatabaseError, match="cannot be read"):
        FORMAT["interval"].get()
    collection("log").insert_one(golden("log", payload={"id": "l", "executionContext": {"when": far}}))
    with pytest.raises(kit.DatabaseError, match="cannot be read"):
        kit.PersistLogAdapter.read_log_data()


def test_candle_with_a_date_is_not_ours(mongo):
    """A Date in ``timestamp`` is not a key of the TypeScript package either; our write creates the candle it can read."""
    collection("candle").insert_one(
        {
            "exchangeName": "binance",
            "symbol": "BTCUSDT",
            "interval": "1m",
            **CANDLE,
            "timestamp": datetime.fromtimestamp(1_699_920_000, UTC),
        }
    )
    put_candle()
    assert collection("candle").count_documents({"timestamp": CANDLE["timestamp"]}) == 1
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 1, CANDLE["timestamp"], 0) == [CANDLE]


@pytest.mark.parametrize("number", [float(CANDLE["timestamp"]), Int64(CANDLE["timestamp"])], ids=["double", "int64"])
def test_candle_of_the_original_keeps_its_document(mongo, number):
    put_candle(timestamp=CANDLE["timestamp"] + 60_000)  # creates the indexes
    _id = ObjectId()
    collection("candle").insert_one({
        "_id": _id, "exchangeName": "binance", "interval": "1m", "symbol": "BTCUSDT", "timestamp": number, "__v": 0, "close": 1,
        "createDate": OLD, "high": 1.5, "low": 1, "open": 1, "updatedDate": OLD, "volume": 0,
    })  # fmt: skip
    put_candle()
    document = collection("candle").find_one({"timestamp": CANDLE["timestamp"]})
    assert document is not None
    assert (document["_id"], document["close"], document["updatedDate"]) == (_id, 1, OLD)
    candles_read = kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 1, CANDLE["timestamp"], 0)
    assert candles_read == [{"timestamp": CANDLE["timestamp"], "open": 1.0, "high": 1.5, "low": 1.0, "close": 1.0, "volume": 0.0}]
