"""``records()``: stored records as rows, the same from MongoDB and from a store that filters and sorts in this process."""

from __future__ import annotations

import math
import random
import sys
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.data.query import records
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import synthetic_market
from backtest_kit_mongo.stores.base import Record

pytestmark = pytest.mark.once  # independent of the wire protocol

START = 1_677_628_800_000
NOON = datetime(2023, 3, 1, 12, tzinfo=UTC)
MINUTE = 60_000


@pytest.fixture
def memory():
    """A registry in memory."""
    registry = kit.Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    yield registry
    registry.close()


@pytest.fixture(params=["mongo", "memory"])
def registry(request):
    if request.param == "memory":
        return request.getfixturevalue("memory")
    request.getfixturevalue("mongo")
    return default_registry


def put(registry, name, *rows):
    registry.store(DOMAINS[name]).write(DOMAINS[name], [Record(*row) for row in rows])


def put_candles(registry, symbol, interval="1m", count=5, exchange="binance"):
    candles = synthetic_market(3, count, START)
    if interval == "5m":
        candles["timestamp"] = START + np.arange(count) * 5 * MINUTE
    registry.store(DOMAINS["candle"]).write_candles(symbol, interval, exchange, candles)
    return candles


# --- rows ---


def test_a_row_has_key_when_removed_and_payload(registry):
    put(registry, "memory", (("s", "b", "m"), {"data": {"x": 1}, "index": "text"}, START, False))
    put(registry, "signal", (("BTC", "sma", "binance"), {"id": "1", "minuteEstimatedTime": None}))
    put(registry, "risk", (("r", "binance"), [["k", {"symbol": "BTC", "minuteEstimatedTime": None}]], START))
    assert records("memory", registry=registry) == [
        {
            "signalId": "s",
            "bucketName": "b",
            "memoryId": "m",
            "when": START,
            "removed": False,
            "payload": {"data": {"x": 1}, "index": "text"},
        }
    ]
    assert records("signal", registry=registry) == [
        {"symbol": "BTC", "strategyName": "sma", "exchangeName": "binance", "payload": {"id": "1", "minuteEstimatedTime": math.inf}}
    ]
    assert records("risk", registry=registry) == [
        {"riskName": "r", "exchangeName": "binance", "when": START, "payload": [["k", {"symbol": "BTC", "minuteEstimatedTime": math.inf}]]}
    ]


def test_what_is_written_through_a_contract_is_there(mongo):
    kit.PersistStateAdapter.write_state_data({"id": "a", "data": {"x": 1}, "when": START}, "s", "b", START)
    kit.PersistSignalAdapter.write_signal_data(None, "BTC", "sma", "binance")
    assert records("state") == [
        {"signalId": "s", "bucketName": "b", "when": START, "payload": {"id": "a", "data": {"x": 1}, "when": START}}
    ]
    assert [row["payload"] for row in records("signal")] == [None]


def test_removed_records_are_left_out_unless_asked_for(registry):
    put(registry, "measure", (("b", "1"), {"data": 1}), (("b", "2"), {"data": 2, "removed": True}, None, True))
    assert [row["entryKey"] for row in records("measure", registry=registry)] == ["1"]
    assert [row["removed"] for row in records("measure", removed=True, registry=registry)] == [False, True]
    assert [row["entryKey"] for row in records("measure", {"removed": True}, removed=True, registry=registry)] == ["2"]
    assert records("measure", {"removed": True}, registry=registry) == []


def test_rows_come_in_order_of_keys_and_in_pages(registry):
    put(registry, "state", *(((name, "b"), {"n": name}, START) for name in ("b", "a", "é", "Z", "c")))
    names = [row["signalId"] for row in records("state", registry=registry)]
    assert names == ["Z", "a", "b", "c", "é"]
    pages = [records("state", limit=2, offset=offset, registry=registry) for offset in (0, 2, 4, 6)]
    assert [[row["signalId"] for row in page] for page in pages] == [["Z", "a"], ["b", "c"], ["é"], []]
    assert records("state", limit=0, registry=registry) == []
    assert [row["signalId"] for row in records("state", sort={"signalId": -1}, limit=1, registry=registry)] == ["é"]


def test_fields_inside_of_the_payload(registry):
    rows = [((f"s{n}", "b"), {"n": n, "deep": {"x": [n, n + 1]}, "day": NOON if n else None}, START + n) for n in range(4)]
    put(registry, "state", *rows)

    def found(condition):
        return [row["payload"]["n"] for row in records("state", condition, registry=registry)]

    assert found({"payload.n": 2.0}) == [2]
    assert found({"payload.deep.x": 2}) == [1, 2]
    assert found({"payload.deep.x.0": 2}) == [2]
    assert found({"payload.day": NOON}) == [1, 2, 3]
    assert found({"payload.day": None}) == [0]
    assert found({"payload.none": None, "when": START + 1}) == [1]
    assert found({"signalId": "s3"}) == [3]
    assert found({"signalId": 3}) == []


def test_candles_are_rows(registry):
    btc = put_candles(registry, "BTC")
    put_candles(registry, "BTC", "5m")
    put_candles(registry, "ETH")
    rows = records("candle", {"symbol": "BTC", "interval": "1m"}, limit=2, offset=1, registry=registry)
    assert records("candle", {"symbol": "BTC", "interval": "1m", "timestamp": START + MINUTE}, registry=registry) == rows[:1]
    assert rows == [
        {"exchangeName": "binance", "symbol": "BTC", "interval": "1m", **dict(zip(CANDLE_DTYPE.names, candle.item(), strict=True))}
        for candle in btc[1:3]
    ]
    assert len(records("candle", registry=registry)) == 15
    highest = records("candle", {"interval": "5m"}, {"high": -1}, 1, registry=registry)
    assert highest[0]["high"] == btc["high"].max()


# --- as a DataFrame ---


def test_a_frame_has_columns_for_the_members_of_the_payload(registry):
    put(registry, "state", (("a", "b"), {"n": 1, "deep": {"x": 1}}, START), (("b", "b"), {"n": 2.5}, None))
    frame = records("state", as_frame=True, registry=registry)
    assert list(frame.columns) == ["signalId", "bucketName", "when", "payload.n", "payload.deep.x"] or list(frame.columns) == [
        "signalId",
        "bucketName",
        "when",
        "payload.n",
        "payload.deep",
    ]
    assert frame["payload.n"].tolist() == [1, 2.5]
    assert frame["when"].iloc[0] == pd.Timestamp(START, unit="ms", tz="UTC")
    assert frame["when"].isna().tolist() == [False, True]


def test_a_frame_of_candles(registry):
    candles = put_candles(registry, "BTC")
    frame = records("candle", as_frame=True, registry=registry)
    assert frame["timestamp"].iloc[0] == pd.Timestamp(START, unit="ms", tz="UTC")
    assert (frame["close"].to_numpy() == candles["close"]).all()


def test_an_empty_frame_has_its_columns(registry):
    assert list(records("memory", as_frame=True, registry=registry).columns) == [
        "signalId", "bucketName", "memoryId", "when", "removed", "payload"
    ]  # fmt: skip


def test_without_pandas_the_error_says_what_to_install(monkeypatch, memory):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(kit.MissingDependencyError, match=r"backtest-kit-mongo\[pandas\]"):
        records("state", as_frame=True, registry=memory)


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("state", {"symbol": 1}), kit.InvalidValueError, "has no field 'symbol'"),
        (("state", {"removed": True}), kit.InvalidValueError, "has no field 'removed'"),
        (("signal", {"when": 1}), kit.InvalidValueError, "has no field 'when'"),
        (("state", {"when.x": 1}), kit.InvalidValueError, "has no field"),
        (("state", {1: 1}), kit.InvalidValueError, "has no field 1"),
        (("candle", {"payload.x": 1}), kit.InvalidValueError, "has no field"),
        (("states",), kit.InvalidValueError, "no domain 'states'"),
        ((1,), kit.InvalidValueError, "no domain 1"),
        (("state", [("a", 1)]), kit.InvalidTypeError, "filter must be a dict"),
        (("state", {}, "when"), kit.InvalidTypeError, "sort must be a dict"),
        (("state", {}, {"when": 2}), kit.InvalidValueError, "must be 1 or -1"),
        (("state", {}, {"when": True}), kit.InvalidValueError, "must be 1 or -1"),
        (("state", {}, {"x": 1}), kit.InvalidValueError, "has no field 'x'"),
        (("state", {}, {}, -1), kit.InvalidValueError, "limit must be"),
        (("state", {}, {}, True), kit.InvalidTypeError, "limit must be"),
        (("state", {}, {}, 1, None), kit.InvalidTypeError, "offset must be"),
        (("state", {}, {}, 1, 2**40), kit.InvalidValueError, "offset must be"),
    ],
)
def test_wrong_arguments(registry, arguments, error, text):
    with pytest.raises(error, match=text):
        records(*arguments, registry=registry)


@pytest.mark.parametrize(
    "condition",
    [
        {"payload.x": {"$regex": "a"}},
        {"$or": [{"when": 1}]},
        {"payload.x": {"$exists": True}},
        {"payload.x": {"$gt": 1, "$exists": True}},
        {"payload.x": {"$gt": None}},
        {"payload.x": {"$gt": True}},
        {"payload.x": {"$eq": [1]}},
        {"payload.x": {}},
        {"payload.x": {"y": 1}},
        {"payload.x": [1]},
        {"payload.x": {"$in": [{"a": 1}]}},
        {"payload.x": math.nan},
        {"payload.x": datetime(2023, 3, 1)},
    ],
    ids=str,
)
def test_what_only_mongodb_knows_is_an_error_elsewhere(memory, condition):
    with pytest.raises(kit.InvalidValueError, match="only MongoDB supports"):
        records("state", condition, registry=memory)


def test_mongodb_takes_its_whole_language(mongo):
    put(default_registry, "state", *(((f"s{n}", "b"), {"n": n, "t": f"t{n}"}, START) for n in range(4)))
    put(default_registry, "risk", (("r", "x"), [["k", {"symbol": "BTC"}]], START))
    assert len(records("state", {"$or": [{"payload.n": 1}, {"payload.t": {"$regex": "3$"}}]})) == 2
    assert len(records("risk", {"$and": [{"payload.0.1.symbol": "BTC"}]})) == 1
    with pytest.raises(kit.InvalidValueError, match="no field 'x'"):
        records("state", {"$or": [{"x": 1}]})
    with pytest.raises(kit.DatabaseError, match=r"\$nonsense"):
        records("state", {"payload.n": {"$nonsense": 1}})
    for value in (2**70, object()):
        with pytest.raises(kit.InvalidValueError, match="cannot be encoded"):
            records("state", {"payload.n": value})


def test_a_candle_of_another_writer_is_read_as_numbers_or_named(mongo):
    document = {
        "exchangeName": "x",
        "symbol": "BTC",
        "interval": "1m",
        "timestamp": float(START),
        "open": 1,
        "high": 2,
        "low": 1,
        "close": 1,
    }
    kit.get_mongo()["candle-items"].insert_one({**document, "volume": 7})
    (row,) = records("candle")
    assert [type(row[name]) for name in CANDLE_DTYPE.names] == [int, *[float] * 5]
    kit.get_mongo()["candle-items"].insert_one({**document, "timestamp": START + MINUTE, "volume": None})
    with pytest.raises(kit.DatabaseError, match="volume is not a number"):
        records("candle")


def test_before_setup_it_says_so():
    kit.close()
    with pytest.raises(kit.NotConfiguredError):
        records("state")


# --- MongoDB and this process agree ---


def _value(choice, depth=0):
    kinds = ["null", "bool", "int", "float", "str", "date"] + ["list", "dict"] * (depth < 2)
    match choice.choice(kinds):
        case "null":
            return None
        case "bool":
            return choice.random() < 0.5
        case "int":
            return choice.randint(-2, 3)
        case "float":
            return choice.choice([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan])
        case "str":
            return choice.choice(["", "a", "b", "ab", "é", "😀", "1"])
        case "date":
            return datetime(2023, 3, choice.randint(1, 3), tzinfo=UTC)
        case "list":
            return [_value(choice, depth + 1) for _ in range(choice.randint(0, 3))]
        case _:
            return {name: _value(choice, depth + 1) for name in ("a", "b", "0") if choice.random() < 0.6}


def _plain(choice):
    while isinstance(value := _value(choice, 9), float) and math.isnan(value):
        pass
    return value


def _condition(choice):
    if choice.random() < 0.4:
        return _plain(choice)
    condition = {}
    for name in choice.sample(["$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte"], choice.randint(1, 2)):
        if name in ("$in", "$nin"):
            condition[name] = [_plain(choice) for _ in range(choice.randint(0, 3))]
            continue
        value = _plain(choice)
        while name not in ("$eq", "$ne") and (value is None or isinstance(value, bool)):
            value = _plain(choice)
        condition[name] = value
    return condition


PATHS = [f"payload.{path}" for path in ("a", "b", "a.a", "a.b", "a.0", "a.0.a", "b.a.b", "a.1.0")]


@pytest.mark.parametrize("seed", range(4))
def test_both_give_the_same_rows(mongo, memory, seed, long):
    choice = random.Random(seed)
    rows = [((f"s{n % 60}", f"b{n}"), {name: _value(choice) for name in ("a", "b")}, START + n % 7) for n in range(300)]
    for one in (default_registry, memory):
        put(one, "state", *rows)
    hits, questions = 0, 400 if long else 150
    for _ in range(questions):
        expected = {path: _condition(choice) for path in choice.sample(PATHS, choice.randint(1, 2))}
        answers = [
            [row["bucketName"] for row in records("state", expected, {"when": -1}, registry=one)] for one in (default_registry, memory)
        ]
        assert answers[0] == answers[1], expected
        hits += len(answers[0])
    assert hits > 2.5 * questions


@pytest.mark.parametrize("seed", range(4))
def test_both_sort_alike(mongo, memory, seed):
    choice = random.Random(seed)
    sortable = [value for value in (_value(choice) for _ in range(2000)) if not _has_dict(value)]
    rows = [((f"s{n}", "b"), {"a": choice.choice(sortable), "b": {"a": choice.choice(sortable)}}, None) for n in range(200)]
    for one in (default_registry, memory):
        put(one, "state", *rows)
    for order in (
        {"payload.a": 1},
        {"payload.a": -1},
        {"payload.b.a": -1, "when": 1},
        {"payload.b.a": 1},
        {"payload.none": 1, "signalId": -1},
    ):
        answers = [
            [row["signalId"] for row in records("state", sort=order, limit=150, offset=20, registry=one)]
            for one in (default_registry, memory)
        ]
        assert answers[0] == answers[1], order


def _has_dict(value):
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(member, (dict, list)) for member in value))


def test_to_sort_by_objects_is_left_to_mongodb(mongo, memory):
    for one in (default_registry, memory):
        put(one, "state", (("s", "b"), {"a": {"x": 1}}, None), (("t", "b"), {"a": {"x": 0}}, None))
    assert [row["signalId"] for row in records("state", sort={"payload.a": 1})] == ["t", "s"]
    with pytest.raises(kit.InvalidValueError, match="sorting by"):
        records("state", sort={"payload.a": 1}, registry=memory)


# --- simulation time ---


@pytest.fixture(params=["mongo", "memory"])
def guarded(request):
    """A function that returns a registry with a given setting of look_ahead."""
    if request.param == "mongo":
        settings = request.getfixturevalue("settings")
        yield lambda look_ahead, **others: (kit.setup(settings, look_ahead=look_ahead, **others), default_registry)[1]
        return
    registry = kit.Registry()

    def make(look_ahead, **others):
        registry.setup(stores=dict.fromkeys(DOMAINS, "memory"), look_ahead=look_ahead, **others)
        return registry

    yield make
    registry.close()


def test_hide_leaves_out_what_is_of_a_later_time(guarded):
    registry = guarded("hide")
    put(
        registry,
        "state",
        *(((name, "b"), {}, when) for name, when in (("past", START - 1), ("now", START), ("later", START + 1), ("none", None))),
    )
    put(registry, "measure", (("b", "k"), {"data": 1}))
    put_candles(registry, "BTC")
    put_candles(registry, "BTC", "5m")
    with kit.simulated_time(START):
        assert [row["signalId"] for row in records("state", registry=registry)] == ["none", "now", "past"]
        assert len(records("measure", registry=registry)) == 1
        assert records("candle", registry=registry) == []
    with kit.simulated_time(START + 5 * MINUTE):
        visible = [(row["interval"], row["timestamp"]) for row in records("candle", registry=registry)]
        assert visible == [*(("1m", START + n * MINUTE) for n in range(5)), ("5m", START)]
    assert len(records("state", registry=registry)) == 4


def test_raise_says_so_and_off_shows_all(guarded):
    registry = guarded("raise")
    put(registry, "state", (("past", "b"), {}, START), (("later", "b"), {"x": 1}, START + 1))
    put_candles(registry, "BTC", count=1)
    with kit.simulated_time(START):
        with pytest.raises(kit.LookAheadError, match="'later', 'b' is later than"):
            records("state", registry=registry)
        with pytest.raises(kit.LookAheadError, match="candle"):
            records("candle", registry=registry)
        assert len(records("state", {"payload.x": None}, registry=registry)) == 1
    assert len(records("state", registry=registry)) == 2


def test_off_shows_all_but_for_domains_with_history(guarded):
    registry = guarded("off", history=["session"])
    put(registry, "state", (("later", "b"), {}, START + 1))
    key = ("sma", "binance", "", "BTC", True)
    put(registry, "session", (key, {"id": "1"}, START), (key, {"id": "2"}, START + 1))
    with kit.simulated_time(START):
        assert len(records("state", registry=registry)) == 1
        assert records("session", registry=registry) == []
