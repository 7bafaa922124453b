"""Which values a payload and a key may hold, how they come back, and what is rejected before anything is written."""

from __future__ import annotations

import enum
import math
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, ObjectId

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.simulation import LATEST

T0 = 1_700_000_000_000
INF = math.inf


def write(value, name="k"):
    """Store one value as a member of a State payload."""
    kit.PersistStateAdapter.write_state_data({"value": value}, "values", name, T0)


def read(name="k"):
    return kit.PersistStateAdapter.read_state_data("values", name)["value"]


def round_trip(value):
    write(value)
    return read()


def assert_nothing_written(store):
    """Assert that no collection has a document; without collections, that the lists and the record in question are empty."""
    if store == "mongo":
        database = kit.get_mongo()
        assert sum(database[name].count_documents({}) for name in database.list_collection_names()) == 0
    assert kit.PersistStateAdapter.read_state_data("values", "k") is None
    assert kit.PersistStorageAdapter.read_storage_data(True, limit=None) == []
    assert kit.PersistNotificationAdapter.read_notification_data(True, limit=None) == []
    assert kit.PersistLogAdapter.read_log_data(limit=None) == []
    assert list(kit.PersistMemoryAdapter.list_memory_data("values", "k")) == []


# --- values that survive ---------------------------------------------------------------------------------------------

SAME: list[Any] = [
    None, True, False, 0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63),
    0.0, 1.5, -1e308, 5e-324, 0.1 + 0.2, INF, -INF,
    "", "text", "a:b/c_d.e$f", "日本 🚀 é e\u0301 \u2028", "NUL \0 inside", "x" * 100_000, b"", b"\0\xff" * 10,
    [], {}, [[]], [{}], {"": {}}, {"a.b": 1, "$set": {"$inc": 1}, " ": 2, "é": 3, "0": 4}, [1, [2, [3, []]], {"a": [None]}],
    Decimal("1.10"), Decimal("-0.000000000000000000000001"), ObjectId("65f000000000000000000001"),
    datetime(2024, 2, 29, 12, 30, 15, 123_000, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC),
]  # fmt: skip


@pytest.mark.parametrize("value", SAME, ids=lambda value: f"{value!a:.40}")
def test_value_comes_back_as_it_went_in(store, value):
    stored = round_trip(value)
    assert stored == value
    assert isinstance(stored, type(value))
    assert isinstance(stored, bool) is isinstance(value, bool)


def test_integers_come_back_as_plain_ints(store):
    """Also beyond 32 bits, like every time in ms: encoders such as msgspec's reject a subclass of int."""
    stored = round_trip({"big": T0, "list": [2**63 - 1], "small": 1})
    assert [type(number) for number in (stored["big"], stored["list"][0], stored["small"])] == [int, int, int]
    assert msgspec.json.decode(msgspec.json.encode(stored)) == stored


def test_decimals_come_back_as_decimals_from_every_kind_of_read(store):
    expected = value = Decimal("1.10")
    write(value)
    kit.PersistMemoryAdapter.write_memory_data({"data": [value], "removed": False}, "values", "k", "m", T0)
    for stored in (
        read(),
        kit.PersistStateAdapter.read_many([("values", "k"), ("values", "k2")])[0]["value"],
        next(kit.PersistMemoryAdapter.list_memory_data("values", "k"))["data"]["data"][0],
        kit.PersistMemoryAdapter.read_memory_data("values", "k", "m")["data"][0],
    ):
        assert type(stored) is type(expected)
        assert stored == expected


def test_nan_and_the_sign_of_zero_survive(store):
    assert math.copysign(1, round_trip(-0.0)) == -1
    assert math.isnan(round_trip(math.nan))
    assert round_trip(Decimal("NaN")).is_nan()
    assert round_trip(Decimal("Infinity")) == Decimal("Infinity")


def test_a_whole_double_stays_a_double(store):
    assert type(round_trip(1.0)) is float
    assert type(round_trip(float(T0))) is float


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-12))], ids=str)
def test_aware_datetime_comes_back_in_utc_to_the_millisecond(store, zone):
    given = datetime(2024, 3, 31, 1, 59, 59, 123_999, tzinfo=zone)
    stored = round_trip([given])[0]
    assert stored.tzinfo is UTC
    assert stored == given.replace(microsecond=123_000)


def test_date_before_the_epoch_is_cut_towards_the_past(store):
    """1 us before the epoch belongs to the millisecond before it, as everywhere on the time line."""
    expected = datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert round_trip(datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)) == expected


class Colour(enum.Enum):
    RED = "red"
    NUMBER = 7


class Side(enum.StrEnum):
    LONG = "long"


class Level(enum.IntEnum):
    TEN = 10


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    first: int
    second: str


@dataclass
class Inner:
    n: Any


@dataclass
class Outer:
    inner: Inner
    many: list[Inner]


class Point(msgspec.Struct):
    x: Any
    inner: Any = None


class Renamed(msgspec.Struct, rename="camel", tag="renamed", tag_field="kind", omit_defaults=True):
    price_open: float
    left_out: int = 0
    absent: int | msgspec.UnsetType = msgspec.UNSET


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
CONVERTED: list[tuple[str, Any, Any]] = [
    ("enum", Colour.RED, "red"),
    ("int enum value", Colour.NUMBER, 7),
    ("str enum", Side.LONG, "long"),
    ("int enum", Level.TEN, 10),
    ("uuid", UUID, str(UUID)),
    ("tuple", (1, (2, 3)), [1, [2, 3]]),
    ("named tuple", Pair(1, "b"), [1, "b"]),
    ("text subclass", Text("text"), "text"),
    ("bytearray", bytearray(b"ab"), b"ab"),
    ("ordered dict", OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    ("mapping", MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
    ("date", date(2024, 2, 29), "2024-02-29"),
    ("float64", np.float64(1.5), 1.5),
    ("float32", np.float32(0.25), 0.25),
    ("int64", np.int64(-(2**63)), -(2**63)),
    ("uint8", np.uint8(255), 255),
    ("bool", np.bool_(True), True),
    ("str", np.str_("text"), "text"),
    ("array", np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    ("float array", np.array([1.5, INF]), [1.5, INF]),
    ("empty array", np.array([]), []),
    ("scalar array", np.array(7), 7),
    ("object array", np.array([Point(1), None], dtype=object), [{"x": 1, "inner": None}, None]),
    ("structured array", np.array([(1, 2.5)], dtype=[("a", "i8"), ("b", "f8")]), [[1, 2.5]]),
    ("bson", [Int64(5), Decimal128("1.5")], [5, Decimal("1.5")]),
    ("dataclass", Outer(Inner(1), [Inner({"a": Inner(2)})]), {"inner": {"n": 1}, "many": [{"n": {"a": {"n": 2}}}]}),
    ("struct", Point(1, [Point(2), {"p": Point(3)}]), {"x": 1, "inner": [{"x": 2, "inner": None}, {"p": {"x": 3, "inner": None}}]}),
    ("struct names", Renamed(1.5), {"kind": "renamed", "priceOpen": 1.5}),
    ("dataclass in struct", Point(Inner(np.float32(0.5))), {"x": {"n": 0.5}, "inner": None}),
    ("struct in dataclass", Inner(Point(np.arange(2))), {"n": {"x": [0, 1], "inner": None}}),
    ("enum in struct", Point(Colour.RED, (Level.TEN,)), {"x": "red", "inner": [10]}),
    ("uuid in struct", Point(UUID), {"x": str(UUID), "inner": None}),
    ("date in struct", Point(datetime(2024, 1, 1, tzinfo=UTC)), {"x": datetime(2024, 1, 1, tzinfo=UTC), "inner": None}),
    ("bytes in struct", Point(b"\0\xff", Decimal("1.10")), {"x": b"\0\xff", "inner": Decimal("1.10")}),
    ("infinity in struct", Point(INF, -INF), {"x": INF, "inner": -INF}),
    ("text subclass in struct", Point(Text("text")), {"x": "text", "inner": None}),
    ("object id in struct", Point(ObjectId("65f000000000000000000001")), {"x": ObjectId("65f000000000000000000001"), "inner": None}),
    ("mapping in struct", Point(MappingProxyType({"a": 1})), {"x": {"a": 1}, "inner": None}),
]


@pytest.mark.parametrize(("value", "wanted"), [case[1:] for case in CONVERTED], ids=[case[0] for case in CONVERTED])
def test_value_of_a_type_outside_bson_comes_back_as_its_nearest(store, value, wanted):
    stored = round_trip(value)
    assert stored == wanted
    assert isinstance(stored, type(wanted))
    assert not isinstance(stored, (enum.Enum, Text, np.generic))


def test_values_survive_in_every_form_of_writing(store):
    """A batch and a list encode like a single write."""
    value = {"inf": INF, "date": datetime(2024, 1, 1, tzinfo=UTC), "big": 2**63 - 1, "empty": {}, "none": None, "array": np.arange(2)}
    expected = {**value, "array": [0, 1]}
    kit.PersistStateAdapter.write_many([(value, "values", "a", T0), (value, "values", "b", T0)])
    assert kit.PersistStateAdapter.read_many([("values", "a"), ("values", "b")]) == [expected, expected]
    kit.PersistLogAdapter.write_log_data([{"id": "l", "args": [value]}])
    assert kit.PersistLogAdapter.read_log_data() == [{"id": "l", "args": [expected]}]
    kit.PersistRiskAdapter.write_position_data([["k", value]], "r", "e", T0)
    assert kit.PersistRiskAdapter.read_position_data("r", "e", T0) == [["k", expected]]


def test_empty_frame_name_is_a_legal_key(store):
    """Live mode uses it."""
    kit.PersistRecentAdapter.write_recent_data({"id": "live"}, "BTCUSDT", "sma", "binance", "", False, T0)
    kit.PersistRecentAdapter.write_recent_data({"id": "frame"}, "BTCUSDT", "sma", "binance", "f", False, T0)
    assert kit.PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "", False) == {"id": "live"}
    assert kit.PersistRecentAdapter.read_many([("BTCUSDT", "sma", "binance", "", False)]) == [{"id": "live"}]


@pytest.mark.parametrize(
    "when", [0, -1, T0, -LATEST, LATEST, np.int64(T0), datetime(1969, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
)
def test_times_of_a_write(store, when):
    kit.PersistStateAdapter.write_state_data({"value": 1}, "values", "k", when)
    assert read() == 1


@pytest.mark.parametrize("when", [-(2**63), 2**63 - 1, LATEST + 1, -LATEST - 1])
def test_times_that_a_date_cannot_hold(store, when):
    with pytest.raises(kit.InvalidValueError, match="not a timestamp in milliseconds"):
        kit.PersistStateAdapter.write_state_data({"value": 1}, "values", "k", when)


def test_nesting_up_to_ninety_levels(store):
    """MongoDB allows a hundred levels, and the command needs some of them."""
    value: Any = "bottom"
    for _ in range(90):
        value = {"d": value}
    assert round_trip(value) == value


# --- null lifetimes --------------------------------------------------------------------------------------------------

ROW = {"id": "a", "minuteEstimatedTime": None, "note": None}
MENDED = {"id": "a", "minuteEstimatedTime": INF, "note": None}
TRIPLE = ("BTCUSDT", "sma", "binance")


@pytest.mark.parametrize("lifetime", [INF, None])
def test_lifetime_without_end_of_signal_schedule_recent(store, lifetime):
    """JSON turns Infinity into null; BSON keeps it. Both read as +Infinity."""
    row = {**ROW, "minuteEstimatedTime": lifetime}
    kit.PersistSignalAdapter.write_signal_data(row, *TRIPLE)
    assert kit.PersistSignalAdapter.read_signal_data(*TRIPLE) == MENDED
    assert kit.PersistSignalAdapter.read_many([TRIPLE]) == [MENDED]
    kit.PersistScheduleAdapter.write_schedule_data(row, *TRIPLE)
    assert kit.PersistScheduleAdapter.read_schedule_data(*TRIPLE) == MENDED
    kit.PersistRecentAdapter.write_recent_data(row, *TRIPLE, "", False, T0)
    assert kit.PersistRecentAdapter.read_recent_data(*TRIPLE, "", False) == MENDED


DEFERRED = ("closedSignal", "cancelledSignal", "activatedSignal", "takeProfitSignal", "stopLossSignal", "retryOpenSignal")


@pytest.mark.parametrize("lifetime", [INF, None])
def test_lifetime_without_end_of_deferred_rows(store, lifetime):
    snapshot = {"pendingSignalId": None, **{name: {**ROW, "minuteEstimatedTime": lifetime} for name in DEFERRED}}
    kit.PersistStrategyAdapter.write_strategy_data(snapshot, *TRIPLE)
    assert kit.PersistStrategyAdapter.read_strategy_data(*TRIPLE) == {"pendingSignalId": None, **dict.fromkeys(DEFERRED, MENDED)}


def test_null_lifetime_of_a_created_signal_stays_null(store):
    """It is an optional wish of the strategy there, and null means none; the TypeScript package does not repair it either."""
    snapshot = {"createdSignal": {**ROW}, "closedSignal": None}
    kit.PersistStrategyAdapter.write_strategy_data(snapshot, *TRIPLE)
    assert kit.PersistStrategyAdapter.read_strategy_data(*TRIPLE) == snapshot


@pytest.mark.parametrize("lifetime", [INF, None])
def test_lifetime_without_end_of_risk_positions(store, lifetime):
    pairs = [["a", {**ROW, "minuteEstimatedTime": lifetime}], ["b", {"id": "b", "minuteEstimatedTime": 60}]]
    kit.PersistRiskAdapter.write_position_data(pairs, "r", "e", T0)
    assert kit.PersistRiskAdapter.read_position_data("r", "e", T0) == [["a", MENDED], pairs[1]]


@pytest.mark.parametrize("lifetime", [INF, None])
def test_lifetime_without_end_of_storage_and_notification_rows(store, lifetime):
    rows = [{**ROW, "minuteEstimatedTime": lifetime}, {"id": "b", "note": None}]
    kit.PersistStorageAdapter.write_storage_data(rows, True)
    stored = kit.PersistStorageAdapter.read_storage_data(True)
    assert sorted(stored, key=lambda row: row["id"]) == [MENDED, rows[1]]
    kit.PersistNotificationAdapter.write_notification_data(rows, True)
    assert kit.PersistNotificationAdapter.read_notification_data(True) == [MENDED, rows[1]]


def test_a_row_without_the_field_gets_none(store):
    for row in ({"id": "a"}, {"id": "a", "minuteEstimatedTime": 0}, {"id": "a", "minuteEstimatedTime": 60.5}):
        kit.PersistSignalAdapter.write_signal_data(row, *TRIPLE)
        assert kit.PersistSignalAdapter.read_signal_data(*TRIPLE) == row


def test_null_lifetime_elsewhere_is_data(store):
    """State, Session, Memory and the like hold what a user stored in them."""
    data = {"id": "a", "minuteEstimatedTime": None, "data": {"minuteEstimatedTime": None}, "removed": False}
    kit.PersistStateAdapter.write_state_data(data, "s", "b", T0)
    assert kit.PersistStateAdapter.read_state_data("s", "b") == data
    kit.PersistMeasureAdapter.write_measure_data(data, "b", "k", T0)
    assert kit.PersistMeasureAdapter.read_measure_data("b", "k") == data
    kit.PersistMemoryAdapter.write_memory_data(data, "s", "b", "m", T0)
    assert kit.PersistMemoryAdapter.read_memory_data("s", "b", "m") == data
    kit.PersistLogAdapter.write_log_data([data])
    assert kit.PersistLogAdapter.read_log_data() == [data]


def test_mended_lifetime_can_be_decoded(store):
    pairs = [["a", {
        "strategyName": "s", "exchangeName": "e", "frameName": "", "symbol": "B", "position": "long", "priceOpen": 1, "priceStopLoss": 1,
        "priceTakeProfit": 1, "minuteEstimatedTime": None, "openTimestamp": T0,
    }]]  # fmt: skip
    kit.PersistRiskAdapter.write_position_data(pairs, "r", "e", T0)
    assert kit.PersistRiskAdapter.read_position_data("r", "e", T0, type=payloads.RiskData)[0][1].minute_estimated_time == INF


# --- payloads that are rejected --------------------------------------------------------------------------------------


def loop_dict():
    value: dict[str, Any] = {}
    value["again"] = {"deep": [value]}
    return value


def loop_list():
    value: list[Any] = [1]
    value.append(value)
    return value


def loop_dataclass():
    value = Inner(None)
    value.n = [value]
    return value


def loop_struct():
    value = Point(None)
    value.x = {"again": value}
    return value


def deep(levels):
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


NAIVE = datetime(2024, 1, 1)
REFUSED: list[tuple[str, Any, type[Exception]]] = [
    ("2**63", 2**63, ValueError),
    ("-2**63-1", -(2**63) - 1, ValueError),
    ("10**400", 10**400, ValueError),
    ("uint64", np.uint64(2**64 - 1), ValueError),
    ("uint64 array", np.array([1, 2**64 - 1], dtype=np.uint64), ValueError),
    ("integer in struct", Point(2**63), ValueError),
    ("integer in list", [1, {"a": (2**64,)}], ValueError),
    ("decimal of 35 digits", Decimal("1." + "1" * 34), ValueError),
    ("date beyond the year 9999", DatetimeMS(2**60), ValueError),
    ("date before the year 1 in code", [Code("f", {"t": DatetimeMS(-(2**60))})], ValueError),
    ("naive", NAIVE, ValueError),
    ("naive in list", [[{"a": NAIVE}]], ValueError),
    ("naive in dataclass", Inner(Inner(NAIVE)), ValueError),
    ("naive in struct", Point([NAIVE]), ValueError),
    ("datetime64", np.datetime64("2024-01-01T00:00:00"), ValueError),
    ("NUL in a name", {"a\0b": 1}, ValueError),
    ("NUL in a deep name", [{"x": {"\0": 1}}], ValueError),
    ("NUL in a name in struct", Point({"a\0b": 1}), ValueError),
    ("surrogate", "\ud800", ValueError),
    ("surrogate in a name", {"\udfff": 1}, ValueError),
    ("surrogate in struct", Point("a\ud800"), ValueError),
    ("int name", {1: "a"}, TypeError),
    ("null name", {"x": [{None: 1}]}, TypeError),
    ("tuple name", {("a", "b"): 1}, TypeError),
    ("enum name", {Colour.RED: 1}, TypeError),
    ("int name in struct", Point({1: "a"}), TypeError),
    ("set", {1, 2}, TypeError),
    ("frozenset", [frozenset("a")], TypeError),
    ("set in struct", Point({1, 2}), TypeError),
    ("set in dataclass", Inner({1, 2}), TypeError),
    ("object", object(), TypeError),
    ("object in list", [{"a": object()}], TypeError),
    ("object in struct", Point(object()), TypeError),
    ("object in dataclass", Inner(object()), TypeError),
    ("object array", np.array([object()]), TypeError),
    ("function", len, TypeError),
    ("class", Inner, TypeError),
    ("generator", (number for number in range(3)), TypeError),
    ("complex", 1j, TypeError),
    ("complex array", np.array([1j]), TypeError),
    ("exception", ValueError("x"), TypeError),
    ("self in dict", loop_dict(), ValueError),
    ("self in list", loop_list(), ValueError),
    ("self in dataclass", loop_dataclass(), ValueError),
    ("self in struct", loop_struct(), ValueError),
    ("a thousand levels", deep(1000), ValueError),
    ("struct of a thousand levels", Point(deep(1000)), ValueError),
]


@pytest.mark.parametrize(("value", "kind"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_payload_that_cannot_be_stored_is_refused_before_anything_is_written(store, value, kind):
    """The error is ours and a builtin, and names the domain: for a single write, in a batch, and in lists."""
    good = {"value": 1}
    for attempt in (
        lambda: write(value),
        lambda: kit.PersistStateAdapter.write_many([(good, "values", "k", T0), ({"value": value}, "values", "other", T0)]),
        lambda: kit.PersistMemoryAdapter.write_memory_data({"data": value, "removed": False}, "values", "k", "m", T0),
        lambda: kit.PersistRiskAdapter.write_position_data([["a", {}], ["b", {"value": value}]], "r", "e", T0),
        lambda: kit.PersistStorageAdapter.write_storage_data([{"id": "a"}, {"id": "b", "value": value}], True),
        lambda: kit.PersistNotificationAdapter.write_notification_data([{"id": "a"}, {"id": "b", "value": value}], True),
        lambda: kit.PersistLogAdapter.write_log_data([{"id": "a"}, {"id": "b", "value": value}]),
    ):
        with pytest.raises(kit.BacktestKitError, match=r"^(state|memory|risk|storage|notification|log)\b") as caught:
            attempt()
        assert isinstance(caught.value, kind)
    assert_nothing_written(store)


def test_error_names_the_place(store):
    with pytest.raises(kit.InvalidTypeError, match=r"state 'values', 'k': .*value\.a\.1\.b.*object"):
        write({"a": [1, {"b": object()}]})
    with pytest.raises(kit.InvalidValueError, match=r"value\.a\.0.*64 bits"):
        write({"a": [2**70]})
    with pytest.raises(kit.InvalidValueError, match=r"value\.when.*naive"):
        write({"when": NAIVE})


class MeasureLike(msgspec.Struct):
    id: str
    data: Any
    removed: bool = False


@pytest.mark.parametrize(("data", "kind"), [(object(), TypeError), ({1}, TypeError), (2**64, ValueError), (NAIVE, ValueError)])
def test_struct_payload_of_a_removable_record_is_refused_with_our_error(store, data, kind):
    for attempt in (
        lambda: kit.PersistMeasureAdapter.write_measure_data(MeasureLike("k", data), "b", "k", T0),
        lambda: kit.PersistMemoryAdapter.write_memory_data(MeasureLike("k", data), "values", "k", "m", T0),
    ):
        with pytest.raises(kit.BacktestKitError, match=r"^(measure|memory)\b") as caught:
            attempt()
        assert isinstance(caught.value, kind)
    assert kit.PersistMeasureAdapter.read_measure_data("b", "k") is None
    assert_nothing_written(store)


def test_refused_rewrite_leaves_the_old_record(store):
    write(1)
    with pytest.raises(kit.InvalidTypeError):
        write(object())
    assert read() == 1


# --- size ------------------------------------------------------------------------------------------------------------

LIMIT = 16 * 1024 * 1024


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, LIMIT - 100, 3 * LIMIT])
def test_document_over_the_limit_is_refused(store, size):
    with pytest.raises(kit.InvalidValueError, match=r"^state 'values', 'k'.*bytes"):
        write(b"x" * size)
    assert_nothing_written(store)


def test_row_over_the_limit_refuses_its_list(store):
    with pytest.raises(kit.InvalidValueError, match=r"'b'.*bytes"):
        kit.PersistLogAdapter.write_log_data([{"id": "a"}, {"id": "b", "x": "x" * LIMIT}, {"id": "c"}])
    assert_nothing_written(store)


def test_document_just_under_the_limit_is_stored(store):
    value = b"x" * (LIMIT - 5000)
    assert round_trip(value) == value
    kit.PersistLogAdapter.write_log_data([{"id": "a", "x": value}])
    assert kit.PersistLogAdapter.read_log_data()[0]["x"] == value


# --- times and keys that are rejected --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "when", [None, True, 1.5, float(T0), str(T0), "2024-01-01", b"1", [T0], np.float64(T0), np.bool_(True), date(2024, 1, 1)]
)
def test_time_of_the_wrong_type_is_refused(store, when):
    for attempt in (
        lambda: kit.PersistStateAdapter.write_state_data({"value": 1}, "values", "k", when),
        lambda: kit.PersistStateAdapter.write_many([({"value": 1}, "values", "k", T0), ({"value": 1}, "values", "l", when)]),
        lambda: kit.PersistRiskAdapter.write_position_data([], "r", "e", when),
        lambda: kit.PersistMeasureAdapter.write_measure_data({"id": "k"}, "b", "k", when),
    ):
        with pytest.raises(kit.InvalidTypeError, match="when"):
            attempt()
    assert_nothing_written(store)


@pytest.mark.parametrize("when", [NAIVE, 2**63, -(2**63) - 1, 10**30], ids=str)
def test_time_with_an_impossible_value_is_refused(store, when):
    with pytest.raises(kit.InvalidValueError, match="when"):
        kit.PersistStateAdapter.write_state_data({"value": 1}, "values", "k", when)
    with pytest.raises(kit.InvalidValueError, match="when"):
        kit.PersistSessionAdapter.write_session_data({"value": 1}, "s", "e", "", when, "B", True)
    assert_nothing_written(store)


@pytest.mark.parametrize("when", [True, 1.5, "now"])
def test_time_of_a_read_is_checked_too(store, when):
    """A strategy that passes rubbish learns so at the first read, not at the first write."""
    with pytest.raises(kit.InvalidTypeError, match="when"):
        kit.PersistRiskAdapter.read_position_data("r", "e", when)
    with pytest.raises(kit.InvalidTypeError, match="when"):
        kit.PersistPartialAdapter.read_partial_data("B", "s", "i", "e", when)
    with pytest.raises(kit.InvalidValueError, match="when"):
        kit.PersistBreakevenAdapter.read_breakeven_data("B", "s", "i", "e", NAIVE)


@pytest.mark.parametrize(("bad", "kind"), [
    (None, TypeError), (5, TypeError), (1.5, TypeError), (True, TypeError), (b"a", TypeError), (["a"], TypeError), (Colour.RED, TypeError),
    (UUID, TypeError), (ObjectId("65f000000000000000000001"), TypeError), ("a\0b", ValueError), ("\0", ValueError), ("\ud800", ValueError),
    ("é\0", ValueError),
], ids=lambda value: f"{value!a:.30}")  # fmt: skip
def test_key_field_that_is_no_text_is_refused_by_name(store, bad, kind):
    state, session = kit.PersistStateAdapter, kit.PersistSessionAdapter
    row = {"value": 1}
    attempts: list[tuple[str, Any]] = [
        ("signalId", lambda: state.write_state_data(row, bad, "k", T0)),
        ("bucketName", lambda: state.write_state_data(row, "values", bad, T0)),
        ("signalId", lambda: state.read_state_data(bad, "k")),
        ("bucketName", lambda: state.read_many([("values", "k"), ("values", bad)])),
        ("signalId", lambda: state.write_many([(row, "values", "k", T0), (row, bad, "k", T0)])),
        ("frameName", lambda: session.write_session_data(row, "s", "e", bad, T0, "B", True)),
        ("symbol", lambda: session.read_session_data("s", "e", "", bad, True)),
        ("entryKey", lambda: kit.PersistMeasureAdapter.write_measure_data(row, "b", bad, T0)),
        ("bucket", lambda: kit.PersistMeasureAdapter.list_measure_data(bad)),
        ("entryKey", lambda: kit.PersistIntervalAdapter.remove_interval_data("b", bad)),
        ("memoryId", lambda: kit.PersistMemoryAdapter.has_memory_data("values", "k", bad)),
        ("signalId", lambda: kit.PersistMemoryAdapter.list_memory_data(bad, "k")),
        ("riskName", lambda: kit.PersistRiskAdapter.write_position_data([], bad, "e", T0)),
        ("strategyName", lambda: kit.PersistSignalAdapter.write_signal_data(row, "B", bad, "e")),
        ("dictionaryName", lambda: kit.PersistDictionaryAdapter.write_dictionary_data(row, "s", bad, T0)),
    ]
    for field, attempt in attempts:
        with pytest.raises(kit.BacktestKitError, match=field) as caught:
            attempt()
        assert isinstance(caught.value, kind)
    assert_nothing_written(store)


@pytest.mark.parametrize("bad", [None, 0, 1, "backtest", "true", "", np.int8(1), []], ids=repr)
def test_mode_that_is_no_bool_is_refused(store, bad):
    row = {"id": "a"}
    attempts: list[Any] = [
        lambda: kit.PersistStorageAdapter.write_storage_data([row], bad),
        lambda: kit.PersistStorageAdapter.write_storage_data([], bad),
        lambda: kit.PersistStorageAdapter.read_storage_data(bad),
        lambda: kit.PersistNotificationAdapter.write_notification_data([row], bad),
        lambda: kit.PersistNotificationAdapter.read_notification_data(bad),
        lambda: kit.PersistRecentAdapter.write_recent_data(row, "B", "s", "e", "", bad, T0),
        lambda: kit.PersistRecentAdapter.read_recent_data("B", "s", "e", "", bad),
        lambda: kit.PersistSessionAdapter.write_session_data(row, "s", "e", "", T0, "B", bad),
    ]
    for attempt in attempts:
        with pytest.raises(kit.InvalidTypeError, match="backtest must be a bool"):
            attempt()
    assert_nothing_written(store)


def test_arguments_are_checked_without_a_connection():
    """Arguments are checked before any I/O: a mistake is reported even if the library is not set up."""
    kit.close()
    with pytest.raises(kit.InvalidTypeError, match="symbol"):
        kit.PersistSignalAdapter.read_signal_data(None, "s", "e")
    with pytest.raises(kit.InvalidTypeError, match="symbol"):
        kit.PersistSignalAdapter.write_signal_data({}, 5, "s", "e")
    with pytest.raises(kit.InvalidValueError, match="when"):
        kit.PersistStateAdapter.write_state_data({}, "s", "b", NAIVE)
    with pytest.raises(kit.InvalidValueError, match="row 0"):
        kit.PersistLogAdapter.write_log_data([{}])
    with pytest.raises(kit.InvalidTypeError, match="backtest"):
        kit.PersistStorageAdapter.read_storage_data("live")


@pytest.mark.parametrize(
    "year", [datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-1)))]
)
def test_date_that_could_not_be_read_back_is_refused(store, year):
    """One such row would make its whole list unreadable."""
    with pytest.raises(kit.InvalidValueError, match="outside the years"):
        kit.PersistNotificationAdapter.write_notification_data([{"id": "ok"}, {"id": "bad", "t": year}], False)
    assert kit.PersistNotificationAdapter.read_notification_data(False) == []


def test_order_and_bytes_survive(store):
    """A dict subclass is stored in its own order, and a memoryview as bytes."""
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    kit.PersistStateAdapter.write_state_data({"ordered": ordered, "view": memoryview(b"abc")}, "s", "b", 0)
    state = kit.PersistStateAdapter.read_state_data("s", "b")
    assert list(state["ordered"]) == ["b", "a"]
    assert state["view"] == b"abc"


def test_row_that_changes_while_it_is_written_is_our_error(store):
    class Shifting(Mapping):
        def __getitem__(self, key):
            raise RuntimeError("dictionary changed size during iteration")

        def __iter__(self):
            return iter("ab")

        def __len__(self):
            return 2

    with pytest.raises(kit.InvalidValueError, match="changed size"):
        kit.PersistStateAdapter.write_state_data({"inner": Shifting()}, "s", "b", 0)
