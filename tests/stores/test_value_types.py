"""What goes in comes out: the same values of the same types from every store, and after a copy through files."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import bson
import hypothesis
import msgspec
import numpy as np
import pandas
import pymongo
import pytest
from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, json_util
from bson.raw_bson import RawBSONDocument
from hypothesis import strategies as st

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.data.store_addresses import open_store
from backtest_kit_mongo.data.transfer import check_domain, copy_domain, same_records
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record, encode
from backtest_kit_mongo.stores.durations import iso_duration
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once

T0 = 1_700_000_000_000
NOON = datetime(2023, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
OID = ObjectId("65f000000000000000000001")

# Values that come out as they went in.
SAME = {
    "null": None, "true": True, "false": False, "zero": 0, "one": 1, "int32": 2**31 - 1, "beyond int32": 2**31, "below int32": -(2**31) - 1,
    "beyond doubles": 2**53 + 1, "largest int64": 2**63 - 1, "smallest int64": -(2**63), "whole double": 1.0, "zero double": 0.0,
    "minus zero": -0.0, "half": 0.5, "ms as a double": float(T0), "17 digits": 0.1 + 0.2, "1e16": 1e16, "1e21": 1e21, "1e22": 1e22,
    "largest double": 1.7976931348623157e308, "smallest double": 5e-324, "beyond int64": 2.0**64, "NaN": math.nan, "infinity": math.inf,
    "minus infinity": -math.inf, "empty text": "", "text": "日本 🚀 é e\u0301 \u2028", "NUL": "a\0b",
    "text like a date": "2023-03-01T12:00:00.123Z",
    "text like a number": "1.10", "date": NOON, "whole second": NOON.replace(microsecond=0), "19 ms": NOON.replace(microsecond=19_000),
    "date before 1970": datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), "first date": datetime(1, 1, 1, tzinfo=UTC),
    "last date": datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), "decimal": Decimal("1.10"), "whole decimal": Decimal(1),
    "small decimal": Decimal("-1E-6176"), "large decimal": Decimal("9.999999999999999999999999999999999E+6144"), "zeros": Decimal("-0.00"),
    "decimal NaN": Decimal("NaN"), "minus NaN": Decimal("-NaN"), "signalling NaN": Decimal("sNaN"),
    "decimal infinity": Decimal("-Infinity"),
    "empty bytes": b"", "bytes": bytes(range(256)), "function": Binary(b"a", 1), "old bytes": Binary(b"a", 2),
    "old uuid": Binary(b"a" * 16, 3),
    "uuid": Binary(bytes(range(16)), 4), "md5": Binary(b"a" * 16, 5), "own bytes": Binary(b"a", 128), "ObjectId": OID,
    "regex": Regex("^a.*$", "ims"),
    "regex without flags": Regex("x"), "timestamp": Timestamp(2**32 - 1, 1), "MinKey": MinKey(), "MaxKey": MaxKey(), "code": Code("f()"),
    "code with a scope": Code("f()", {"d": NOON, "s": {"$date": 1}}), "code with an empty scope": Code("f()", {}), "empty list": [],
    "empty dict": {},
    "nested": [[], [{}], {"": [{"a.b": [None]}]}], "operators": {"$set": {"$inc": 1}, "a.b": 2, " ": 3, "é": 4, "0": 5},
    "order": {"b": 1, "a": {"d": 2, "c": 3}},
}  # fmt: skip

# Dicts that look like Extended JSON.
ALIKE = [
    {"$date": "2023-03-01T12:00:00Z"}, {"$date": {"$numberLong": "5"}}, {"$date": "x"}, {"$oid": "x"}, {"$oid": str(OID)},
    {"$numberLong": "5"},
    {"$numberInt": "5"}, {"$numberDouble": "NaN"}, {"$numberDecimal": "1"}, {"$binary": {"base64": "", "subType": "00"}}, {"$uuid": "x"},
    {"$regularExpression": {"pattern": "a", "options": ""}}, {"$timestamp": {"t": 1, "i": 2}}, {"$minKey": 1}, {"$maxKey": 1},
    {"$code": "f"},
    {"$code": "f", "$scope": {}}, {"$scope": {}, "$code": "f"}, {"$symbol": "a"}, {"$undefined": True}, {"$$date": 1},
    {"$$$oid": {"$$oid": 1}},
    {"$$code": 1, "$$scope": 2}, {"$code": 1, "$$scope": 2}, {"$code": 1, "scope": 2}, {"$date": 1, "more": 2}, {"$regex": "a"},
    {"$ref": "a", "$id": 1},
    {"$": 1}, {"$dates": 1}, {"date": 1}, {"$date\n": 1},
]  # fmt: skip

# Values that come out as others.
NEAREST = {
    "microseconds": (NOON.replace(microsecond=123_999), NOON),
    "another zone": (NOON.astimezone(timezone(timedelta(hours=5, minutes=45))), NOON),
    "date of pymongo": (DatetimeMS(5), datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)),
    "Int64": (Int64(5), 5),
    "Decimal128": (Decimal128("1.50"), Decimal("1.50")),
    "tuple": ((1, (2.0,)), [1, [2.0]]),
    "bytearray": (bytearray(b"a"), b"a"),
    "plain Binary": (Binary(b"a", 0), b"a"),
    "duration": (timedelta(days=1, milliseconds=2500), "P1DT2.5S"),
    "no duration": (timedelta(0), "P0D"),
    "negative duration": (pandas.Timedelta("-1us"), "-PT0.000001S"),
    "duration of pandas": (pandas.Timedelta(1_683_750_000_001, "ns"), "PT1683.750000001S"),
    "duration of NumPy": (np.timedelta64(2, "W"), "P14D"),
    "durations of NumPy": (np.array([[0, 90]], "timedelta64[m]"), [["P0D", "PT5400S"]]),
    "time of pandas": (pandas.Timestamp(NOON), NOON),
    "Series": (
        pandas.Series(
            {"# Trades": 0, "Max. [%]": math.nan, "Start": NOON, "Longest": pandas.Timedelta("1D"), "Last": pandas.NaT, "No": None}
        ),
        {"# Trades": 0, "Max. [%]": math.nan, "Start": NOON, "Longest": "P1D", "Last": None, "No": None},
    ),
    "Series of one type": (pandas.Series([1, None], ["a", "b"], dtype="Int64"), {"a": 1, "b": None}),
    "DBRef": (DBRef("c", OID, "d"), {"$ref": "c", "$id": OID, "$db": "d"}),
}

REFUSED = [
    2**63, -(2**63) - 1, datetime(2023, 3, 1), DatetimeMS(2**60), Decimal("1" * 35), "\ud800", {"a\0b": 1}, {1: 2}, {1}, object(),
    pandas.NaT, pandas.NA, np.timedelta64("NaT", "s"), np.timedelta64(1, "M"), np.timedelta64(1, "ps"), np.timedelta64(1),
    np.datetime64("2023-03-01"), pandas.Timestamp("2023-03-01"), pandas.DataFrame({"a": [1]}), pandas.Series([1.0]),
    pandas.Series([1, 2], ["a", "a"]), pandas.Series({"a": pandas.Timestamp("2023-03-01")}),
]  # fmt: skip

CASES = {**{name: (value, value) for name, value in SAME.items()}, **{repr(value): (value, value) for value in ALIKE}, **NEAREST}


def form(value):
    """Return a text that is the same for the same values of the same types only; dicts in their order."""
    match value:
        case dict():
            return f"{type(value)} {[(name, form(member)) for name, member in value.items()]}"
        case list():
            return f"{type(value)} {[form(member) for member in value]}"
        case Code():
            return f"{type(value)} {str(value)!r} {None if value.scope is None else form(dict(value.scope))}"
        case Binary():
            return f"{type(value)} {bytes(value)!r} {value.subtype}"
    return f"{type(value)} {value!r}"


def test_there_are_enough_kinds():
    assert len(SAME) > 60
    assert len({form(value) for value, _ in CASES.values()}) == len(CASES)


@pytest.fixture(params=["memory", "file", "mongo-wire", "mongo-driver"])
def store(request, settings, tmp_path):
    """Run the test with all domains on each store, MongoDB with the wire protocol on and off."""
    kind, _, how = request.param.partition("-")
    if kind == "mongo":
        kit.setup(settings, CC_WIRE_LANE=how == "wire")
    else:
        kit.setup(stores=dict.fromkeys(DOMAINS, kind), CC_DUMP_DIR=tmp_path / "dump")
    return request.param


# --- through the contracts ---


def outputs(value, tag):
    """Write a value through State, Session and Memory, and return what each kind of read gives."""
    state, session, memory = kit.PersistStateAdapter, kit.PersistSessionAdapter, kit.PersistMemoryAdapter
    state.write_state_data({"id": tag, "data": value, "when": T0}, tag, "b", T0)
    yield state.read_state_data(tag, "b")["data"]
    default_registry.mongo.process_ids.clear()
    yield state.read_state_data(tag, "b")["data"]
    state.write_many([({"list": [value, {"deep": value}]}, tag, "many", T0), ({"data": value}, tag, "b", T0)])
    many, one = state.read_many([(tag, "many"), (tag, "b")])
    yield from (many["list"][0], many["list"][1]["deep"], one["data"])
    session.write_session_data({"data": {"a": value}}, "s", "e", "f", T0, tag, True)
    yield session.read_session_data("s", "e", "f", tag, True)["data"]["a"]
    memory.write_memory_data({"data": [value], "removed": False}, tag, "b", "m", T0)
    yield memory.read_memory_data(tag, "b", "m")["data"][0]
    yield next(memory.list_memory_data(tag, "b"))["data"]["data"][0]


def test_every_kind_of_value_comes_out_as_mongodb_gives_it(store):
    wrong = []
    for number, (name, (value, expected)) in enumerate(CASES.items()):
        wrong += [
            (name, index, value_read) for index, value_read in enumerate(outputs(value, f"t{number}")) if form(value_read) != form(expected)
        ]
    assert wrong == []


def test_a_dict_as_the_whole_body(store):
    for value in [*ALIKE, {"$date": Decimal(1)}, {"$code": NOON, "$scope": NOON}, {"when": NOON}, {"when": math.inf}, {"when": Decimal(5)}]:
        kit.PersistStateAdapter.write_state_data(value, "s", "b", T0)
        assert form(kit.PersistStateAdapter.read_state_data("s", "b")) == form(value)
        assert kit.records("state")[0]["when"] == T0


NAMES = st.sampled_from(
    ["a", "data", "when", "$date", "$oid", "$$oid", "$numberLong", "$code", "$scope", "$$code", "$$scope", "$literal", "x.y"]
)
VALUES = st.recursive(
    st.sampled_from(list(SAME.values()))
    | st.floats()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.binary(max_size=5)
    | st.decimals(places=2, min_value=-(10**20), max_value=10**20)
    | st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, fold=0)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
SETTINGS = hypothesis.settings(max_examples=150, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def test_any_nesting_comes_out_as_it_went_in(store):
    @SETTINGS
    @hypothesis.given(st.dictionaries(NAMES, VALUES, max_size=3))
    def check(body):
        kit.PersistStateAdapter.write_state_data(body, "s", "b", T0)
        assert form(kit.PersistStateAdapter.read_state_data("s", "b")) == form(body)
        kit.PersistSignalAdapter.write_signal_data({"mine": body}, "S", "s", "e")
        assert form(kit.PersistSignalAdapter.read_signal_data("S", "s", "e")) == form({"mine": body})

    check()


def test_what_one_store_refuses_all_refuse(store):
    write = kit.PersistStateAdapter.write_state_data
    for value in REFUSED:
        write({"data": "before"}, "s", "b", T0)
        for body in ({"data": value}, {"data": [NOON, {"a": value}]}):
            with pytest.raises((kit.InvalidTypeError, kit.InvalidValueError), match="data"):
                write(body, "s", "b", T0)
        assert kit.PersistStateAdapter.read_state_data("s", "b") == {"data": "before"}, value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pandas.NaT, "NaT is not a time; use None where there is none"),
        (np.timedelta64("NaT", "s"), "NaT is not a duration; use None where there is none"),
        (pandas.NA, "<NA> is not a value; use None where there is none"),
        (pandas.Timestamp("2023-03-01"), "Timestamp('2023-03-01 00:00:00') is naive; give it a time zone, as in "),
        (
            np.datetime64("2023-03-01"),
            "NumPy times are naive; say which zone they are in, as in pandas.Timestamp(time, tz='UTC'), or use int ms",
        ),
        (np.timedelta64(1, "M"), "a numpy.timedelta64 of unit 'M' is not exact in ns; convert it, as in value.astype('timedelta64[ns]')"),
        (pandas.Series([1]), "a Series is stored by its labels, and 0 is not text; store series.tolist() instead"),
        (pandas.Series([1, 2], ["a", "a"]), "a Series is stored by its labels, and has 'a' twice"),
        (pandas.DataFrame(), "a DataFrame cannot be stored in a record; store its rows, as in frame.to_dict('records')"),
        (pandas.Series({"_strategy": Exception}), "_strategy: a builtins.type cannot be stored"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_says_what_to_do_in_one_sentence(value, said):
    with pytest.raises((kit.InvalidTypeError, kit.InvalidValueError)) as caught:
        encode(DOMAINS["state"], ("s", "b"), {"payload": {"stats": value}})
    path = "payload.stats." if said.startswith("_strategy") else "payload.stats: "
    assert str(caught.value).startswith(f"state 's', 'b': {path}{said}")


class Stats(msgspec.Struct):
    longest: timedelta
    name: str = ""


def test_durations_are_read_as_durations(store):
    """With a type, to the microsecond; pandas reads the text exactly."""
    state, longest = kit.PersistStateAdapter, timedelta(days=-3, seconds=5, microseconds=7)
    for body in (Stats(longest), {"longest": pandas.Timedelta(longest)}, pandas.Series({"longest": longest}).to_dict()):
        state.write_state_data(body, "s", "b", T0)
        assert state.read_state_data("s", "b", type=Stats).longest == longest
    exact = pandas.Timedelta(-1_683_750_000_001, "ns")
    state.write_state_data({"longest": exact}, "s", "b", T0)
    assert pandas.Timedelta(state.read_state_data("s", "b")["longest"]) == exact
    assert state.read_state_data("s", "b", type=Stats).longest == exact.round("us").to_pytimedelta()


@hypothesis.given(st.timedeltas() | st.integers(-(2**63) + 1, 2**63 - 1).map(lambda count: np.timedelta64(count, "ns")))
def test_the_text_of_a_duration_is_that_of_msgspec(duration):
    text = iso_duration(duration)
    if isinstance(duration, timedelta):
        assert text == msgspec.to_builtins(duration)
        assert msgspec.convert(text, timedelta) == duration
    else:
        assert pandas.Timedelta(text).value == duration.astype(int)


def test_a_record_with_types_can_be_updated(store):
    """An update compares what is stored with what was read."""
    state = kit.PersistStateAdapter
    body = {"price": Decimal("1.10"), "nan": math.nan, "at": NOON, "alike": {"$oid": "x"}, "n": 0}
    state.write_state_data(body, "s", "b", T0)
    for _ in range(3):
        state.update(("s", "b"), lambda old: {**old, "price": old["price"] * 2, "n": old["n"] + 1}, T0)
    assert form(state.read_state_data("s", "b")) == form({**body, "price": Decimal("8.80"), "n": 3})


def test_dates_and_lifetimes_of_the_framework(store):
    """They have a plain form in files and come back all the same."""
    row = {"id": "k", "data": NOON, "removed": False, "when": NOON}
    kit.PersistIntervalAdapter.write_interval_data(row, "b", "k", T0)
    assert kit.PersistIntervalAdapter.read_interval_data("b", "k") == row
    lines = [
        {"id": "l", "args": [NOON], "executionContext": {"symbol": "B", "when": NOON}},
        {"id": "m", "args": [], "executionContext": None},
    ]
    kit.PersistLogAdapter.write_log_data(lines)
    assert kit.PersistLogAdapter.read_log_data() == lines
    for lifetime in (math.inf, 60, -math.inf, math.nan, Decimal("Infinity"), Decimal("sNaN")):
        row = {"minuteEstimatedTime": lifetime, "far": [math.inf, -math.inf], "note": None}
        kit.PersistStrategyAdapter.write_strategy_data({"createdSignal": row, "closedSignal": row}, "S", "s", "e")
        assert form(kit.PersistStrategyAdapter.read_strategy_data("S", "s", "e")) == form({"createdSignal": row, "closedSignal": row})
        kit.PersistRiskAdapter.write_position_data([["k", row]], "r", "e", T0)
        assert form(kit.PersistRiskAdapter.read_position_data("r", "e", T0)) == form([["k", row]])


# --- through files and back ---

USERS = ("state", "session", "memory", "dictionary", "measure", "interval", "log")


def key_of(domain, number):
    texts = iter(f"{number}" if domain.name == "log" else f"{name}{number}" for name in "abcde")
    return tuple(True if kind is bool else next(texts) for kind in domain.kinds)


@pytest.fixture
def places(settings, tmp_path):
    """Open stores: a MongoDB, a folder of files, a log of JSON lines, and another MongoDB."""
    uri = settings["CC_MONGO_CONNECTION_STRING"]
    start, question, options = uri.partition("?")
    other = f"{start}-back{question}{options}"
    addresses = [uri, f"file:{tmp_path}/files", f"jsonl:{tmp_path}/lines", other]
    opened = [open_store(address, load_config(), existing=False) for address in addresses]
    yield [one.__enter__() for one in opened]
    for one in opened:
        one.__exit__(None, None, None)
    with pymongo.MongoClient(other) as client:
        client.drop_database(client.get_default_database().name)


def move(domain, source, target):
    same = same_records(as_json=source.as_json or target.as_json)
    outcome = copy_domain(domain, source.store, target.store, same)
    check_domain(domain, source.store, target.store, same, outcome)
    assert outcome.good, outcome.examples
    assert (outcome.new, outcome.extra) == (outcome.records, 0)
    again = copy_domain(domain, source.store, target.store, same)
    assert (again.equal, again.new) == (outcome.records, 0)
    return outcome.records


def payloads(place, domain):
    """Return the raw BSON of the bodies in a MongoDB, by key."""
    collection = place.store.connection.database[domain.collection].with_options(pymongo.collection.CodecOptions(RawBSONDocument))
    return {tuple(document[name] for name in domain.key): bson.encode({"": document[domain.body]}) for document in collection.find()}


def body_of(domain, number, value):
    body = {"id": f"{number}", "data": value, "deep": [{"a": value}]}
    if domain.dates == (("when",),):
        body["when"] = NOON
    return {**body, "executionContext": {"when": NOON}, "args": [value]} if domain.name == "log" else body


@pytest.mark.parametrize("name", USERS)
def test_a_copy_through_files_changes_no_byte(places, name):
    source, files, lines, back = places
    domain = DOMAINS[name]
    values = [value for value, _ in CASES.values()]
    records = [Record(key_of(domain, n), body_of(domain, n, value), T0 + n if domain.when else None) for n, value in enumerate(values)]
    source.store.write(domain, [record for record in records if not isinstance(record.body["data"], Int64)])  # its width is not kept
    assert move(domain, source, files) == len(CASES) - 1
    if name == "log":
        move(domain, files, lines)
        move(domain, lines, back)
    else:
        move(domain, files, back)
    assert payloads(back, domain) == payloads(source, domain)


@pytest.mark.parametrize("name", [name for name, domain in DOMAINS.items() if domain.infinite])
def test_a_copy_of_rows_changes_no_byte(places, name):
    """Also not their lifetimes without end, which are null in between."""
    source, files, _, back = places
    domain = DOMAINS[name]
    row = {"id": "1", "minuteEstimatedTime": math.inf, "far": math.inf, "note": None, "timestamp": float(T0)}
    body = (
        [["k", row], ["l", {**row, "minuteEstimatedTime": 60}]]
        if domain.empty is list
        else {**row, "closedSignal": row, "createdSignal": row}
    )
    source.store.write(domain, [Record(key_of(domain, 1), body, T0 if domain.when else None)])
    assert move(domain, source, files) == 1
    move(domain, files, back)
    assert payloads(back, domain) == payloads(source, domain)


def test_the_check_finds_what_an_older_version_left_in_files(places, tmp_path):
    """It wrote dates and decimals as text, and null for infinities."""
    source, files, _, _ = places
    state = DOMAINS["state"]
    bodies = [{"data": value} for value in (NOON, Decimal("1.5"), math.inf, b"a", OID, 1.0, "plain")]
    old = ['"2023-03-01T12:00:00.123Z"', '"1.5"', "null", '"YQ=="', f'"{OID}"', "1", '"plain"']
    source.store.write(state, [Record((f"s{n}", "b"), body, None) for n, body in enumerate(bodies)])
    for n, text in enumerate(old):
        folder = tmp_path / f"files/state/s{n}/b"
        folder.mkdir(parents=True)
        (folder / "b.json").write_text(f'{{"data":{text}}}')
    same = same_records(as_json=True)
    outcome = copy_domain(state, source.store, files.store, same, dry_run=True)
    check_domain(state, source.store, files.store, same, outcome)
    assert (outcome.different, outcome.equal, outcome.good) == (6, 1, False)
    assert copy_domain(state, source.store, files.store, same).changed == 6
    assert [record.body for record in files.store.records(state)] == bodies


# --- the files ---


def content(folder):
    (path,) = folder.rglob("*.json")
    return path.read_bytes()


def put(folder, name, body):
    domain = DOMAINS[name]
    FileStore(folder).write(domain, [Record(key_of(domain, 1), body, None)])
    return content(folder)


def test_a_user_s_value_is_extended_json(tmp_path):
    text = put(
        tmp_path, "state", {"data": [NOON, Decimal("1.10"), math.nan, -math.inf, b"a", OID, Regex("x", "i"), 1, 1.5, None, "a"], "when": T0}
    )
    assert text.startswith(b"\t{")
    assert json.loads(text) == {
        "data": [
            {"$date": "2023-03-01T12:00:00.123Z"}, {"$numberDecimal": "1.10"}, {"$numberDouble": "NaN"}, {"$numberDouble": "-Infinity"},
            {"$binary": {"base64": "YQ==", "subType": "00"}}, {"$oid": str(OID)},
            {"$regularExpression": {"pattern": "x", "options": "i"}}, 1, 1.5, None, "a",
        ],
        "when": T0,
    }  # fmt: skip
    parsed = json_util.loads(text, json_options=json_util.JSONOptions(tz_aware=True))["data"]
    assert math.isnan(parsed.pop(2))
    assert parsed == [NOON, Decimal128("1.10"), -math.inf, b"a", OID, Regex("x", "i"), 1, 1.5, None, "a"]


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("state", {"data": {"n": 1, "x": 1.0, "t": "a"}, "when": T0}, '{"data":{"n":1,"x":1.0,"t":"a"},"when":1700000000000}'),
        ("state", {"data": {"$date": "x"}}, '{"data":{"$date":"x"}}'),
        ("interval", {"data": 1, "when": NOON}, '{"data":1,"when":"2023-03-01T12:00:00.123Z"}'),
        ("log", {"id": "1", "executionContext": {"when": NOON}}, '{"id":"1","executionContext":{"when":"2023-03-01T12:00:00.123Z"}}'),
        ("interval", {"when": "2023-03-01T12:00:00.123Z"}, '\t\t{"when":"2023-03-01T12:00:00.123Z"}'),
        ("interval", {"when": "2023-02-30T12:00:00.123Z"}, '{"when":"2023-02-30T12:00:00.123Z"}'),
        ("signal", {"minuteEstimatedTime": math.inf}, '{"minuteEstimatedTime":null}'),
        ("risk", [["k", {"minuteEstimatedTime": math.inf}]], '[["k",{"minuteEstimatedTime":null}]]'),
        ("strategy", {"closedSignal": {"minuteEstimatedTime": math.inf}}, '{"closedSignal":{"minuteEstimatedTime":null}}'),
        # Null would mean the default there. Python and JavaScript parse this as Infinity.
        ("strategy", {"createdSignal": {"minuteEstimatedTime": math.inf}}, '{"createdSignal":{"minuteEstimatedTime":1e999}}'),
        ("storage", {"id": "a1", "pnl": -math.inf}, '{"id":"a1","pnl":-1e999}'),
    ],
)
def test_the_framework_s_own_fields_are_plain(tmp_path, name, body, text):
    """There is no Extended JSON, and older versions and the TypeScript package read what they did."""
    assert put(tmp_path, name, body).decode() == text
    domain = DOMAINS[name]
    assert FileStore(tmp_path).read(domain, [key_of(domain, 1)])[0].body == body


def test_dates_of_the_original_s_files_are_dates(tmp_path):
    path = tmp_path / "data/interval/a1/b1.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"id":"b1","data":{"when":"2023-03-01T12:00:00.123Z"},"removed":false,"when":"2023-03-01T12:00:00.123Z"}')
    (record,) = FileStore(tmp_path).read(DOMAINS["interval"], [("a1", "b1")])
    assert record.body == {"id": "b1", "data": {"when": "2023-03-01T12:00:00.123Z"}, "removed": False, "when": NOON}
    assert record.when == int(NOON.timestamp() * 1000)


def test_an_object_like_extended_json_is_what_somebody_stored(tmp_path):
    """An earlier version, the TypeScript package or a user: only a text that begins with a tab holds other types."""
    folder = tmp_path / "state/a1/b1"
    folder.mkdir(parents=True)
    for body in [*ALIKE, {"data": ALIKE}, {"$date": {"$numberDecimal": "x"}}]:
        for text in (json.dumps(body), json.dumps(body, indent=2), " " + json.dumps(body)):
            (folder / "b1.json").write_text(text)
            (record,) = FileStore(tmp_path).read(DOMAINS["state"], [("a1", "b1")])
            assert form(record.body) == form(body)
        FileStore(tmp_path).write(DOMAINS["state"], [record])
        assert json.loads(content(tmp_path)) == body


def test_beside_other_types_such_an_object_has_one_more_dollar(tmp_path):
    text = put(tmp_path, "state", {"data": [NOON, {"$oid": "x"}, {"$$oid": "x"}, {"$code": 1, "$scope": 2}, {"$set": 1}]})
    assert json.loads(text)["data"][1:] == [{"$$oid": "x"}, {"$$$oid": "x"}, {"$$code": 1, "$$scope": 2}, {"$set": 1}]


@pytest.mark.parametrize(
    "value",
    [
        '{"$date":"yesterday"}', '{"$date":"2023-03-01T12:00:00"}', '{"$date":{"$numberLong":"1e3"}}', '{"$date":null}',
        f'{{"$date":{10**18}}}', '{"$date":[]}', '{"$oid":"x"}', '{"$oid":5}', '{"$numberDecimal":5}', '{"$numberDecimal":"x"}',
        '{"$numberDouble":1}', '{"$numberDouble":"x"}', '{"$binary":5}', '{"$binary":{"base64":"YQ==","subType":"zz"}}',
        '{"$binary":{"base64":"a","subType":"00"}}', '{"$regularExpression":"a"}', '{"$regularExpression":{"pattern":1,"options":"i"}}',
        '{"$timestamp":{"t":-1,"i":1}}', '{"$timestamp":1}', '{"$minKey":2}', '{"$code":5}', '{"$code":"x","$scope":5}',
        "[" * 100_000 + "]" * 100_000,
    ],
)  # fmt: skip
def test_malformed_extended_json_is_a_corrupt_file(tmp_path, value):
    folder = tmp_path / "state/a1/b1"
    folder.mkdir(parents=True)
    text = f'\t{{"data":{value}}}'
    (folder / "b1.json").write_text(text)
    assert FileStore(tmp_path).read(DOMAINS["state"], [("a1", "b1")]) == [None]
    assert (folder / "b1.json.corrupt-1").read_text() == text
