"""The contract suite: what every contract promises, written once and run on every store.

The methods and their argument orders are typed by hand, as the issue and the TypeScript package have them, and not taken from the table
that the library generates them from.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.domains import DOMAINS

T0 = 1_700_000_000_000
WHEN = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


class Keyed(NamedTuple):
    """A contract with one record per key: its methods, and the constructor arguments of its instance."""

    read: str
    write: str
    context: str
    empty: Any = None
    others: tuple[str, ...] = ()


def slot(name):
    context = "symbol strategy_name exchange_name"
    return Keyed(f"read_{name}_data {context}", f"write_{name}_data row {context}", context)


def levels(name):
    key = "symbol strategy_name signal_id exchange_name when"
    return Keyed(f"read_{name}_data {key}", f"write_{name}_data data {key}", "symbol strategy_name exchange_name", {})


def bucket(name):
    others = (f"remove_{name}_data bucket key", f"list_{name}_data bucket")
    return Keyed(f"read_{name}_data bucket key", f"write_{name}_data data bucket key when", "bucket", others=others)


KEYED = {
    "signal": slot("signal"),
    "schedule": slot("schedule"),
    "strategy": slot("strategy"),
    "risk": Keyed(
        "read_position_data risk_name exchange_name when",
        "write_position_data positions risk_name exchange_name when",
        "risk_name exchange_name",
        [],
    ),
    "partial": levels("partial"),
    "breakeven": levels("breakeven"),
    "measure": bucket("measure"),
    "interval": bucket("interval"),
    "memory": Keyed(
        "read_memory_data signal_id bucket_name memory_id",
        "write_memory_data data signal_id bucket_name memory_id when",
        "signal_id bucket_name",
        others=(
            "has_memory_data signal_id bucket_name memory_id",
            "remove_memory_data signal_id bucket_name memory_id",
            "list_memory_data signal_id bucket_name",
        ),
    ),
    "recent": Keyed(
        "read_recent_data symbol strategy_name exchange_name frame_name backtest",
        "write_recent_data row symbol strategy_name exchange_name frame_name backtest when",
        "symbol strategy_name exchange_name frame_name backtest",
    ),
    "state": Keyed(
        "read_state_data signal_id bucket_name", "write_state_data data signal_id bucket_name when", "signal_id bucket_name"
    ),
    "session": Keyed(
        "read_session_data strategy_name exchange_name frame_name symbol backtest",
        "write_session_data data strategy_name exchange_name frame_name when symbol backtest",
        "strategy_name exchange_name frame_name symbol backtest",
    ),
    "dictionary": Keyed(
        "read_dictionary_data signal_id dictionary_name",
        "write_dictionary_data data signal_id dictionary_name when",
        "signal_id dictionary_name",
    ),
}  # fmt: skip
LISTS = ("storage", "notification", "log")
NULLABLE = ("signal", "schedule", "strategy", "risk", "partial", "breakeven", "recent", "state", "session", "dictionary")
REMOVABLE = ("measure", "interval", "memory")

ARGUMENTS = {
    "symbol": "BTCUSDT", "strategy_name": "sma", "exchange_name": "binance", "risk_name": "risk", "signal_id": "sig", "bucket": "bucket",
    "key": "key", "bucket_name": "notes", "memory_id": "mem", "frame_name": "frame", "dictionary_name": "dict", "backtest": True,
    "when": T0,
}  # fmt: skip

# Values of one key field that must never be confused: separators of Redis keys and file names, wildcards, both forms of one accented
# letter, other scripts, and the empty string.
NAMES = (
    "", "a", "A", "b", "a:b", "a_b", "a/b", "a b", " a", "a ", "a.b", "$a", "*", "a*", "[a]", "0", "None", "é", "e\u0301", "日本", "🚀",
    "\n",
)  # fmt: skip

keyed = pytest.mark.parametrize("name", KEYED)
lists = pytest.mark.parametrize("name", LISTS)
removable = pytest.mark.parametrize("name", REMOVABLE)


def adapter(name):
    return getattr(kit, f"Persist{name.capitalize()}Adapter")


def call(name, spec, first=(), *, kwargs=None, **values):
    """Call a method of an adapter with the arguments that ``spec`` names, in its order."""
    method, *arguments = spec.split()
    known = ARGUMENTS | values
    rest = arguments[len(first) :]
    return getattr(adapter(name), method)(*first, *(known[argument] for argument in rest), **(kwargs or {}))


def read(name, *, type=None, **values):
    return call(name, KEYED[name].read, kwargs={"type": type}, **values)


def write(name, body, **values):
    call(name, KEYED[name].write, (body,), **values)


def remove(name, **values):
    call(name, next(spec for spec in KEYED[name].others if spec.startswith("remove")), **values)


def listed(name, **values):
    return call(name, next(spec for spec in KEYED[name].others if spec.startswith("list")), **values)


def keys_of(name, **values):
    """Return the keys that a list of a bucket yields, in order."""
    return [entry["memoryId"] if isinstance(entry, dict) else entry for entry in listed(name, **values)]


def key_arguments(name):
    return [argument for argument in KEYED[name].read.split()[1:] if argument != "when"]


def last_key(name):
    return "memory_id" if name == "memory" else "key"


def body(name, marker, **more):
    """Return a body of the domain's shape that contains ``marker``."""
    if name == "risk":
        return [[f"sma_binance_{marker}", {"symbol": marker, **more}]]
    if name in ("partial", "breakeven"):
        return {marker: {"profitLevels": [10], "lossLevels": [], **more}}
    return {"id": marker, "data": {"n": 1}, "removed": False, **more}


def rows_of(name, *, type=None, backtest=True, **kwargs):
    context = () if name == "log" else (backtest,)
    return getattr(adapter(name), f"read_{name}_data")(*context, type=type, **kwargs)


def put(name, rows, *, backtest=True):
    context = () if name == "log" else (backtest,)
    getattr(adapter(name), f"write_{name}_data")(rows, *context)


def ids(rows):
    return [row["id"] for row in rows]


def tick():
    """Let the clock of ``createDate`` and ``updatedDate`` (milliseconds) advance."""
    time.sleep(0.003)


def listed_as(store, names):
    """Return the order in which ``store`` lists names that the others list as given: files come in natural order."""
    return sorted(names) if store == "file" else names


def test_suite_covers_every_domain():
    assert {*KEYED, *LISTS, "candle"} == set(DOMAINS)


# --- one record per key ----------------------------------------------------------------------------------------------


@keyed
def test_missing_record_reads_as_the_empty_value_of_its_contract(store, name):
    value = read(name)
    assert value == KEYED[name].empty
    assert type(value) is type(KEYED[name].empty)
    if value is not None:  # the caller may modify it
        value.append(1) if isinstance(value, list) else value.update(a=1)
        assert read(name) == KEYED[name].empty


@keyed
def test_read_after_write_and_last_write_wins(store, name):
    write(name, body(name, "first", note="only here"))
    assert read(name) == body(name, "first", note="only here")
    assert call(name, KEYED[name].write, (body(name, "second"),)) is None
    assert read(name) == body(name, "second")
    assert read(name) == body(name, "second")


@pytest.mark.parametrize("name", NULLABLE)
def test_null_is_stored_and_reads_as_nothing(store, name):
    write(name, body(name, "a"))
    write(name, None)
    assert read(name) == KEYED[name].empty
    write(name, body(name, "b"))
    assert read(name) == body(name, "b")


@removable
def test_null_is_refused_where_a_removal_exists(store, name):
    with pytest.raises(kit.InvalidTypeError, match=name):
        write(name, None)
    assert read(name) is None


@keyed
def test_empty_payload_and_empty_members_survive(store, name):
    """Partial and Breakeven hold an empty map after a clear: it must not be lost."""
    empty: Any = [] if name == "risk" else {}
    write(name, body(name, "a"))
    write(name, empty)
    assert read(name) == empty
    hollow = body(name, "b", empty={}, nothing=[], null=None, deep={"a": {}, "b": [[], {}, None]}, text="")
    write(name, hollow)
    assert read(name) == hollow


@keyed
def test_member_order_survives(store, name):
    write(name, body(name, "a", z=1, a=2, m={"z": 1, "a": 2}))
    value = read(name)
    inner = value[0][1] if name == "risk" else value["a"] if name in ("partial", "breakeven") else value
    assert list(inner)[-3:] == ["z", "a", "m"]
    assert list(inner["m"]) == ["z", "a"]


@keyed
def test_write_with_an_earlier_time_wins(store, name):
    """A restarted backtest overwrites what a later simulation time wrote."""
    write(name, body(name, "late"), when=T0 + 60_000)
    write(name, body(name, "early"), when=T0)
    assert read(name, when=T0 + 120_000) == body(name, "early")
    assert read(name, when=0) == body(name, "early")


@keyed
def test_when_is_an_aware_datetime_or_ms(store, name):
    write(name, body(name, "a"), when=WHEN)
    assert read(name, when=WHEN) == body(name, "a")
    write(name, body(name, "b"), when=T0)
    assert read(name, when=T0) == body(name, "b")


@keyed
def test_each_key_field_isolates(store, name):
    """Two different values of a key field are two records, whatever the text."""
    for argument in key_arguments(name):
        values = (True, False) if argument == "backtest" else NAMES
        for number, value in enumerate(values):
            write(name, body(name, f"m{number}"), **{argument: value})
        for number, value in enumerate(values):
            assert read(name, **{argument: value}) == body(name, f"m{number}"), (argument, value)


@keyed
def test_contexts_that_join_to_one_text_stay_apart(store, name):
    """("a:b", "c") and ("a", "b:c") share a Redis key in the TypeScript package; also with ids that only Redis has."""
    texts = [argument for argument in key_arguments(name) if argument != "backtest"]
    pairs = [("a:b", "c"), ("a", "b:c"), ("a_b", "c"), ("a", "b_c"), ("", "a:"), (":a", ""), ("", ":a"), ("a:", "")]
    for first, second in itertools.permutations(texts, 2):
        for number, (one, other) in enumerate(pairs):
            write(name, body(name, f"m{number}"), **{first: one, second: other})
        for number, (one, other) in enumerate(pairs):
            assert read(name, **{first: one, second: other}) == body(name, f"m{number}"), (first, one, second, other)
        if store == "mongo":  # again as a new process, which only has the ids in Redis
            start_again()
            for number, (one, other) in enumerate(pairs):
                assert read(name, **{first: one, second: other}) == body(name, f"m{number}"), (first, one, second, other)


def start_again():
    """Use the same settings in a library without any cached state."""
    settings = msgspec.structs.asdict(kit.get_config())
    kit.close()
    kit.setup(settings)


@keyed
def test_stored_and_returned_values_never_alias(store, name):
    given = body(name, "a", inner={"list": [1]})
    write(name, given)
    kept = copy.deepcopy(given)
    spoil(given)
    first = read(name)
    assert first == kept
    spoil(first)
    assert read(name) == kept


def spoil(value):
    """Change a body at every depth."""
    for member in list(value.values() if isinstance(value, dict) else value):
        if isinstance(member, (dict, list)):
            spoil(member)
    value.update(spoilt=True) if isinstance(value, dict) else value.append("spoilt")


# --- risk, session ---------------------------------------------------------------------------------------------------


def position(symbol, minutes=60):
    return {
        "strategyName": "sma", "exchangeName": "binance", "frameName": "", "symbol": symbol, "position": "long", "priceOpen": 100.5,
        "priceStopLoss": 90.25, "priceTakeProfit": 120, "minuteEstimatedTime": minutes, "openTimestamp": T0,
    }  # fmt: skip


PAIRS = [[f"sma_binance_{symbol}", position(symbol)] for symbol in ("ETHUSDT", "BTCUSDT", "ADAUSDT")]


def test_r1_nothing_stored_is_an_empty_list(store):
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == []


def test_r2_pairs_come_back_in_their_order(store):
    kit.PersistRiskAdapter.write_position_data(PAIRS, "main", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == PAIRS


def test_r3_second_write_replaces_the_first_completely(store):
    kit.PersistRiskAdapter.write_position_data(PAIRS, "main", "binance", WHEN)
    kit.PersistRiskAdapter.write_position_data(PAIRS[1:2], "main", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == PAIRS[1:2]
    kit.PersistRiskAdapter.write_position_data([], "main", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == []


def test_r4_risk_names_are_isolated(store):
    kit.PersistRiskAdapter.write_position_data(PAIRS[:1], "main", "binance", WHEN)
    kit.PersistRiskAdapter.write_position_data(PAIRS[1:], "other", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == PAIRS[:1]
    assert kit.PersistRiskAdapter.read_position_data("other", "binance", WHEN) == PAIRS[1:]


@pytest.mark.parametrize("form", [dict, list, tuple, iter, lambda pairs: [tuple(pair) for pair in pairs]])
def test_r5_map_keeps_size_and_keys(store, form):
    """A map can be passed as it is or as any iterable of pairs; the caller rebuilds it from the pairs."""
    kit.PersistRiskAdapter.write_position_data(form(PAIRS), "main", "binance", WHEN)
    back = dict(kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN))
    assert back == dict(PAIRS)
    assert list(back) == [key for key, _ in PAIRS]


def test_r6_custom_class_receives_reads_and_writes(store):
    calls = []

    class Custom:
        def __init__(self, risk_name, exchange_name):
            self.context = (risk_name, exchange_name)

        def read_position_data(self, when):
            calls.append(("read", self.context, when))
            return [["k", {}]]

        def write_position_data(self, positions, when):
            calls.append(("write", self.context, positions, when))

    kit.PersistRiskAdapter.use_persist_risk_adapter(Custom)
    kit.PersistRiskAdapter.write_position_data(PAIRS, "main", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", T0) == [["k", {}]]
    assert calls == [("write", ("main", "binance"), PAIRS, WHEN), ("read", ("main", "binance"), T0)]


def test_positions_that_are_no_pairs_are_refused(store):
    for wrong in (5, "pairs", [1], [["k"]], [["k", {}, {}]], ["kv"], [[1, {}]], [[None, {}]], [{"k": {}}]):
        with pytest.raises(kit.InvalidTypeError, match="position"):
            kit.PersistRiskAdapter.write_position_data(wrong, "main", "binance", WHEN)
    assert kit.PersistRiskAdapter.read_position_data("main", "binance", WHEN) == []


def test_s1_two_symbols_of_a_strategy_keep_their_own_session_after_a_clear(store):
    one, other = ({"id": f"{symbol}:sma:binance:live", "data": {"n": n}, "when": T0} for n, symbol in enumerate(("BTCUSDT", "ETHUSDT")))
    kit.PersistSessionAdapter.write_session_data(one, "sma", "binance", "", WHEN, "BTCUSDT", False)
    kit.PersistSessionAdapter.write_session_data(other, "sma", "binance", "", WHEN, "ETHUSDT", False)
    kit.PersistSessionAdapter.clear()
    assert kit.PersistSessionAdapter.read_session_data("sma", "binance", "", "BTCUSDT", False) == one
    assert kit.PersistSessionAdapter.read_session_data("sma", "binance", "", "ETHUSDT", False) == other
    assert kit.PersistSessionAdapter.read_session_data("sma", "binance", "", "BTCUSDT", True) is None


# --- soft delete -----------------------------------------------------------------------------------------------------


@removable
def test_removed_record_is_gone_from_read_and_list(store, name):
    for key in ("a", "b", "c"):
        write(name, body(name, key), **{last_key(name): key})
        tick()
    assert keys_of(name) == listed_as(store, ["c", "b", "a"])
    remove(name, **{last_key(name): "b"})
    assert read(name, **{last_key(name): "b"}) is None
    assert read(name, **{last_key(name): "a"}) == body(name, "a")
    assert keys_of(name) == listed_as(store, ["c", "a"])
    remove(name, **{last_key(name): "b"})  # again
    assert keys_of(name) == listed_as(store, ["c", "a"])


@removable
def test_removing_what_is_not_there_is_silent_and_stores_nothing(store, name):
    remove(name)
    assert read(name) is None
    assert keys_of(name) == []
    write(name, body(name, "a"), **{last_key(name): "other"})
    remove(name)
    assert keys_of(name) == ["other"]


@removable
def test_write_after_remove_revives(store, name):
    write(name, body(name, "a"))
    remove(name)
    write(name, body(name, "b"))
    assert read(name) == body(name, "b")
    assert keys_of(name) == [ARGUMENTS[last_key(name)]]


@removable
def test_write_of_a_row_that_says_removed_removes(store, name):
    """The record's flag follows ``removed`` of the payload, as in the TypeScript package."""
    write(name, {**body(name, "a"), "removed": True})
    assert read(name) is None
    assert keys_of(name) == []


@removable
def test_removed_record_reads_as_empty_in_a_batch(store, name):
    write(name, body(name, "a"), **{last_key(name): "a"})
    write(name, body(name, "b"), **{last_key(name): "b"})
    remove(name, **{last_key(name): "a"})
    prefix = [ARGUMENTS[argument] for argument in key_arguments(name)[:-1]]
    assert adapter(name).read_many([(*prefix, "a"), (*prefix, "b")]) == [None, body(name, "b")]


def test_has_memory_is_false_before_a_write_and_after_a_remove(store):
    has = kit.PersistMemoryAdapter.has_memory_data
    assert has("sig", "notes", "mem") is False
    write("memory", body("memory", "a"))
    assert has("sig", "notes", "mem") is True
    assert has("sig", "notes", "other") is False
    remove("memory")
    assert has("sig", "notes", "mem") is False
    write("memory", body("memory", "b"))
    assert has("sig", "notes", "mem") is True


@removable
def test_lists_show_one_bucket_only(store, name):
    where = "bucket_name" if name == "memory" else "bucket"
    for value in ("a", "a:b", "a_b", "", "A", "é"):
        write(name, body(name, "x"), **{where: value, last_key(name): f"in {value}"})
    for value in ("a", "a:b", "a_b", "", "A", "é"):
        assert keys_of(name, **{where: value}) == [f"in {value}"]
    assert keys_of(name, **{where: "nobody"}) == []


@removable
def test_list_is_an_iterator_with_the_newest_update_first(store, name):
    for key in ("a", "b", "c"):
        write(name, body(name, key), **{last_key(name): key})
        tick()
    write(name, body(name, "a2"), **{last_key(name): "a"})
    stored = listed(name)
    assert iter(stored) is stored
    assert keys_of(name) == listed_as(store, ["a", "c", "b"])


def test_memory_list_gives_ids_and_data(store):
    write("memory", body("memory", "a"), memory_id="x")
    assert list(listed("memory")) == [{"memoryId": "x", "data": body("memory", "a")}]


@removable
def test_nothing_is_cut_from_a_list_of_keys(store, name):
    """The TypeScript package shows 1,000 of them and hides the rest."""
    prefix = [ARGUMENTS[argument] for argument in key_arguments(name)[:-1]]
    expected = [f"k{number:04}" for number in range(1700)]
    adapter(name).write_many([(body(name, key), *prefix, key, T0) for key in expected])
    assert sorted(keys_of(name)) == expected
    for key in keys_of(name)[:200]:
        remove(name, **{last_key(name): key})
    assert len(keys_of(name)) == 1500


@removable
def test_bucket_can_be_emptied_while_it_is_listed(store, name):
    prefix = [ARGUMENTS[argument] for argument in key_arguments(name)[:-1]]
    adapter(name).write_many([(body(name, "x"), *prefix, f"k{number}", T0) for number in range(50)])
    for entry in listed(name):
        remove(name, **{last_key(name): entry["memoryId"] if isinstance(entry, dict) else entry})
    assert keys_of(name) == []


# --- lists of rows ---------------------------------------------------------------------------------------------------


def row(identity, **more):
    return {"id": identity, **more}


@lists
def test_no_rows_read_as_an_empty_list(store, name):
    assert rows_of(name) == []
    put(name, [])
    assert rows_of(name) == []


@lists
def test_rows_are_stored_by_id_and_those_not_given_stay(store, name):
    put(name, [row("a", n=1), row("b", n=1)])
    tick()
    put(name, [row("c", n=1)])
    assert sorted(ids(rows_of(name))) == ["a", "b", "c"]
    assert {stored["n"] for stored in rows_of(name)} == {1}


@pytest.mark.parametrize("name", ["storage", "notification"])
def test_last_write_of_a_row_wins(store, name):
    put(name, [row("a", n=1), row("b", n=1)])
    put(name, [row("a", n=2)])
    assert {stored["id"]: stored["n"] for stored in rows_of(name)} == {"a": 2, "b": 1}


def test_first_write_of_a_log_line_wins(store):
    put("log", [row("a", n=1)])
    put("log", [row("a", n=2), row("b", n=1)])
    assert [(stored["id"], stored["n"]) for stored in rows_of("log")] == [("a", 1), ("b", 1)]


@lists
def test_id_that_stands_twice_in_one_list(store, name):
    """The last write wins, as if the rows were written one by one; in the log the first one wins."""
    put(name, [row("a", n=1), row("b", n=1), row("a", n=2)])
    assert {stored["id"]: stored["n"] for stored in rows_of(name)} == {"a": 1 if name == "log" else 2, "b": 1}


@pytest.mark.parametrize("name", ["storage", "notification"])
def test_backtest_and_live_are_two_sets(store, name):
    put(name, [row("a", n=1)], backtest=True)
    put(name, [row("a", n=2), row("b", n=2)], backtest=False)
    assert rows_of(name, backtest=True) == [row("a", n=1)]
    assert sorted(rows_of(name, backtest=False), key=lambda found: found["id"]) == [row("a", n=2), row("b", n=2)]


@lists
def test_ids_of_rows_isolate(store, name):
    put(name, [row(identity) for identity in NAMES])
    assert sorted(ids(rows_of(name))) == sorted(NAMES)


@pytest.mark.parametrize("name", ["notification", "log"])
def test_history_is_read_oldest_first(store, name):
    """In order of the first write, also inside one list (which is one millisecond); a rewrite moves nothing."""
    put(name, [row(f"a{number}") for number in range(20)])
    tick()
    put(name, [row(f"b{number}") for number in range(20)])
    tick()
    put(name, [row("a3"), row("c")])
    expected = [*(f"a{number}" for number in range(20)), *(f"b{number}" for number in range(20)), "c"]
    assert ids(rows_of(name)) == expected
    assert ids(rows_of(name, limit=3)) == ["b18", "b19", "c"]
    assert ids(rows_of(name, limit=1)) == ["c"]


def test_storage_is_read_newest_update_first(store):
    for identity in ("a", "b", "c"):
        put("storage", [row(identity)])
        tick()
    put("storage", [row("a")])
    assert ids(rows_of("storage")) == listed_as(store, ["a", "c", "b"])
    assert ids(rows_of("storage", limit=2)) == (["b", "c"] if store == "file" else ["a", "c"])


@pytest.mark.parametrize(("name", "default"), [("storage", 1000), ("log", 1000), ("notification", 5000)])
def test_limits_of_lists(store, name, default):
    """The limit is 1,000 rows, or 5,000 notifications, unless the caller sets another; the oldest are left out."""
    total = default + 7
    put(name, [row(f"r{number:05}") for number in range(7)])
    tick()
    put(name, [row(f"r{number:05}") for number in range(7, total)])
    expected = [f"r{number:05}" for number in range(total)]
    assert sorted(ids(rows_of(name))) == expected[7:]
    assert sorted(ids(rows_of(name, limit=None))) == expected
    assert sorted(ids(rows_of(name, limit=total + 1))) == expected
    assert rows_of(name, limit=0) == []
    if name != "storage":
        assert ids(rows_of(name, limit=None)) == expected


@lists
@pytest.mark.parametrize("limit", [-1, -7, True, 1.5, "10"])
def test_limit_that_is_no_count_is_refused(name, limit):
    kit.close()
    with pytest.raises(kit.BacktestKitError, match="limit") as caught:  # before any I/O: there is no connection here
        rows_of(name, limit=limit)
    assert isinstance(caught.value, (TypeError, ValueError))


@lists
def test_rows_come_from_any_iterable_but_a_single_row(store, name):
    put(name, (row(identity) for identity in "ab"))
    put(name, (row("c"),))
    assert sorted(ids(rows_of(name))) == ["a", "b", "c"]
    for wrong in (row("d"), "rows", b"rows", None, 5):
        with pytest.raises(kit.InvalidTypeError):
            put(name, wrong)
    assert len(rows_of(name)) == 3


@lists
@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"n": 1}, ValueError), ({"id": None}, ValueError), ({"id": 7}, TypeError), ({"id": b"x"}, TypeError), ("text", TypeError),
        (None, TypeError), ({"id": "x", "s": {1}}, TypeError), ({"id": "x", "n": 2**64}, ValueError), ({"id": "a\0b"}, ValueError),
    ],
    ids=["no id", "null id", "int id", "bytes id", "text", "null", "set", "too big", "NUL"],
)  # fmt: skip
def test_bad_row_is_named_and_the_whole_list_refused(store, name, bad, kind):
    """The error names its position, or its id if it has one."""
    with pytest.raises(kind, match=r"row 2\b|'x'|a\\x00b") as caught:
        put(name, [row("a"), row("b"), bad, row("c")])
    assert isinstance(caught.value, kit.BacktestKitError)
    assert rows_of(name) == []


@lists
def test_returned_rows_never_alias_stored_ones(store, name):
    given = [row("a", inner={"list": [1]})]
    put(name, given)
    spoil(given[0])
    spoil(rows_of(name)[0])
    assert rows_of(name) == [row("a", inner={"list": [1]})]


# --- batches ---------------------------------------------------------------------------------------------------------


def contexts_of(name, values):
    """Return read contexts that differ in their first text field, and the arguments of writes to them."""
    first = next(argument for argument in key_arguments(name) if argument != "backtest")
    reads = [tuple((ARGUMENTS | {first: value})[argument] for argument in key_arguments(name)) for value in values]
    writes = [
        (body(name, f"m{value}"), *((ARGUMENTS | {first: value})[argument] for argument in KEYED[name].write.split()[2:]))
        for value in values
    ]
    return reads, writes


@keyed
def test_batches_answer_in_the_order_of_the_question(store, name):
    values = [f"v{number}" for number in range(40)]
    reads, writes = contexts_of(name, values)
    missing, _ = contexts_of(name, ["nobody"])
    adapter(name).write_many(writes)
    expected = {context: body(name, f"m{value}") for context, value in zip(reads, values, strict=True)}
    question = [*reversed(reads), *missing, *reads[:3], *reads[:3]]
    answer = adapter(name).read_many(question)
    assert answer == [expected.get(context, KEYED[name].empty) for context in question]
    # A key that is requested twice is returned twice, as by two reads.
    spoil(answer[-1])
    assert answer[-4] == expected[question[-4]]


@keyed
def test_batches_see_single_writes_and_the_other_way_round(store, name):
    reads, writes = contexts_of(name, ["a", "b"])
    adapter(name).write_many(writes[:1])
    write_method = KEYED[name].write.split()[0]
    getattr(adapter(name), write_method)(*writes[1])
    assert adapter(name).read_many(reads) == [body(name, "ma"), body(name, "mb")]
    first = next(argument for argument in key_arguments(name) if argument != "backtest")
    assert read(name, **{first: "a"}) == body(name, "ma")


@keyed
def test_empty_batches(store, name):
    assert adapter(name).read_many([]) == []
    assert adapter(name).write_many([]) is None
    assert adapter(name).read_many(iter(())) == []


@keyed
def test_last_item_of_a_key_wins_in_a_batch(store, name):
    reads, writes = contexts_of(name, ["a"])
    adapter(name).write_many([(body(name, "first"), *writes[0][1:]), (body(name, "second"), *writes[0][1:])])
    assert adapter(name).read_many(reads) == [body(name, "second")]


@pytest.mark.parametrize("name", ["signal", "risk", "memory"])
def test_batch_beyond_a_thousand(store, name):
    reads, writes = contexts_of(name, [f"v{number}" for number in range(2001)])
    adapter(name).write_many(writes)
    assert adapter(name).read_many(reads) == [item[0] for item in writes]
    adapter(name).write_many([(body(name, "new"), *item[1:]) for item in writes])
    assert adapter(name).read_many(reads) == [body(name, "new")] * 2001


@keyed
def test_item_of_a_batch_with_the_wrong_number_of_arguments_is_named_and_nothing_written(store, name):
    reads, writes = contexts_of(name, ["a", "b", "c"])
    for wrong in (writes[1][:-1], (*writes[1], 1), "text", None, 5, {}):
        with pytest.raises(kit.InvalidTypeError, match=r"item 1\b"):
            adapter(name).write_many([writes[0], wrong, writes[2]])
    assert adapter(name).read_many(reads) == [KEYED[name].empty] * 3
    for wrong in (reads[1][:-1], (*reads[1], 1), "text", None, 5, {}):
        with pytest.raises(kit.InvalidTypeError, match=r"item 1\b"):
            adapter(name).read_many([reads[0], wrong])


@keyed
def test_item_of_a_batch_with_a_bad_argument_is_named_and_nothing_written(store, name):
    """The error names its position or its key, and comes before anything is sent."""
    reads, writes = contexts_of(name, ["a", "b", "c"])
    _, *arguments = writes[1]
    bad_key = (writes[1][0], None, *arguments[1:])
    bad_body = (5, *arguments)
    bad_value = (body(name, "b", bad={1}), *arguments)
    for wrong in (bad_value, bad_body, bad_key):
        with pytest.raises(kit.InvalidTypeError, match=r"item 1\b|'b'"):
            adapter(name).write_many([writes[0], wrong, writes[2]])
        assert adapter(name).read_many(reads) == [KEYED[name].empty] * 3
    with pytest.raises(kit.InvalidTypeError, match=r"item 1\b"):
        adapter(name).read_many([reads[0], (None, *reads[1][1:])])


# --- instances -------------------------------------------------------------------------------------------------------


def instance(name, **values):
    context = KEYED[name].context.split()
    return getattr(kit, f"Persist{name.capitalize()}Instance")(*((ARGUMENTS | values)[argument] for argument in context))


def on_instance(name, spec, bound, first=(), **values):
    method, *arguments = spec.split()
    context = KEYED[name].context.split()
    known = ARGUMENTS | values
    rest = [argument for argument in arguments[len(first) :] if argument not in context]
    return getattr(bound, method)(*first, *(known[argument] for argument in rest))


@keyed
def test_instance_has_the_same_methods_without_its_context(store, name):
    one, other = instance(name), instance(name, **{KEYED[name].context.split()[0]: "other"})
    assert on_instance(name, KEYED[name].read, one) == KEYED[name].empty
    on_instance(name, KEYED[name].write, one, (body(name, "a"),))
    assert on_instance(name, KEYED[name].read, one) == body(name, "a")
    assert on_instance(name, KEYED[name].read, other) == KEYED[name].empty
    assert read(name) == body(name, "a")


@removable
def test_instance_removes_and_lists(store, name):
    bound = instance(name)
    specs = {spec.split("_")[0]: spec for spec in KEYED[name].others}
    on_instance(name, KEYED[name].write, bound, (body(name, "a"),))
    listed_ids = list(on_instance(name, specs["list"], bound))
    assert listed_ids == ([{"memoryId": "mem", "data": body(name, "a")}] if name == "memory" else ["key"])
    if name == "memory":
        assert bound.has_memory_data("mem") is True
    on_instance(name, specs["remove"], bound)
    assert on_instance(name, KEYED[name].read, bound) is None
    assert list(on_instance(name, specs["list"], bound)) == []
    assert read(name) is None


@lists
def test_list_instance(store, name):
    cls = getattr(kit, f"Persist{name.capitalize()}Instance")
    bound = cls() if name == "log" else cls(True)
    getattr(bound, f"write_{name}_data")([row("a"), row("b")])
    assert sorted(ids(getattr(bound, f"read_{name}_data")())) == ["a", "b"]
    assert len(getattr(bound, f"read_{name}_data")(limit=1)) == 1
    assert sorted(ids(rows_of(name))) == ["a", "b"]


def test_instance_makes_no_call_before_its_first_use():
    """A constructor does no I/O: it works before ``setup()``; its methods then do not."""
    kit.close()
    bound = kit.PersistSignalInstance("BTCUSDT", "sma", "binance")
    assert "BTCUSDT" in repr(bound)
    with pytest.raises(kit.NotConfiguredError):
        bound.read_signal_data()


def test_gate_of_an_instance(store):
    bound = kit.PersistStateInstance("sig", "notes")
    assert bound.wait_for_init() is None
    assert bound.wait_for_init(False) is None


# --- user-defined classes --------------------------------------------------------------------------------------------


def subclass_of(name, log):
    """Return a subclass of the instance that logs its calls and passes them on."""
    base = getattr(kit, f"Persist{name.capitalize()}Instance")
    read_name, write_name = KEYED[name].read.split()[0], KEYED[name].write.split()[0]

    def noting(method):
        def noted(self, *arguments):
            log.append((id(self), method))
            return getattr(base, method)(self, *arguments)

        return noted

    return type("Mine", (base,), {read_name: noting(read_name), write_name: noting(write_name)})


@keyed
def test_subclass_that_calls_super_is_served_by_the_same_store(store, name):
    log: list[Any] = []
    getattr(adapter(name), f"use_persist_{name}_adapter")(subclass_of(name, log))
    write(name, body(name, "a"))
    assert read(name) == body(name, "a")
    assert [method for _, method in log] == [KEYED[name].write.split()[0], KEYED[name].read.split()[0]]
    assert instance_read(name) == body(name, "a")
    del log[:]
    reads, writes = contexts_of(name, ["a", "b"])
    adapter(name).write_many(writes)
    assert adapter(name).read_many(reads[::-1]) == [body(name, "mb"), body(name, "ma")]
    assert len(log) == 4  # batches go through it as well


def instance_read(name):
    return on_instance(name, KEYED[name].read, instance(name))


@keyed
def test_plain_class_replaces_the_store(store, name):
    """A class without our base is created once per context, with the instance's arguments, and its gate is called first."""
    kept: dict[Any, Any] = {}
    made, gates = [], []
    read_name, *read_arguments = KEYED[name].read.split()
    write_name, *write_arguments = KEYED[name].write.split()
    context = KEYED[name].context.split()

    class Plain:
        def __init__(self, *arguments):
            self.arguments = arguments
            made.append(arguments)

        def wait_for_init(self, initial):
            gates.append(initial)

    def read_it(self, *arguments):
        assert len(arguments) == len(read_arguments) - len(context)
        return kept.get(self.arguments)

    def write_it(self, value, *arguments):
        assert len(arguments) == len(write_arguments) - 1 - len(context)
        kept[self.arguments] = value

    setattr(Plain, read_name, read_it)
    setattr(Plain, write_name, write_it)
    for spec in KEYED[name].others:
        setattr(Plain, spec.split()[0], lambda self, *arguments: iter(("custom",)))
    getattr(adapter(name), f"use_persist_{name}_adapter")(Plain)
    assert made == []
    write(name, body(name, "a"))
    assert read(name) == body(name, "a")
    assert read(name) == body(name, "a")
    expected = tuple(ARGUMENTS[argument] for argument in context)
    assert made == [expected]
    assert gates == [True, False, False]
    other = {context[0]: "other"}
    assert read(name, **other) is None
    assert len(made) == 2
    for spec in KEYED[name].others:
        assert list(call(name, spec)) == ["custom"]
    adapter(name).clear()
    assert read(name) == body(name, "a")
    assert made[2:] == [expected]
    assert gates[-1] is True
    # Nothing of this reached the store underneath.
    assert instance_read(name) == KEYED[name].empty


@keyed
def test_context_of_the_wrong_type_never_reaches_a_class_of_ones_own(store, name):
    log: list[Any] = []
    getattr(adapter(name), f"use_persist_{name}_adapter")(subclass_of(name, log))
    with pytest.raises(kit.InvalidTypeError):
        read(name, **{KEYED[name].context.split()[0]: None})
    assert log == []


@pytest.mark.parametrize("name", DOMAINS)
def test_class_that_cannot_serve_is_refused_by_name(store, name):
    use = getattr(adapter(name), f"use_persist_{name}_adapter")

    class Lacking:
        pass

    with pytest.raises(kit.InvalidTypeError, match=f"Lacking lacks read_.*write_{'position' if name == 'risk' else name}"):
        use(Lacking)
    with pytest.raises(kit.InvalidTypeError, match="class"):
        use(object())


def test_using_another_class_forgets_the_instances_of_the_first(store):
    made = []

    class First(kit.PersistStateInstance):
        def __init__(self, *context):
            made.append("first")
            super().__init__(*context)

    class Second(kit.PersistStateInstance):
        def __init__(self, *context):
            made.append("second")
            super().__init__(*context)

    kit.PersistStateAdapter.use_persist_state_adapter(First)
    write("state", body("state", "a"))
    kit.PersistStateAdapter.use_persist_state_adapter(Second)
    assert read("state") == body("state", "a")
    kit.PersistStateAdapter.use_persist_state_adapter(First)
    assert read("state") == body("state", "a")
    assert made == ["first", "second", "first"]


@lists
def test_list_class_of_ones_own(store, name):
    base = getattr(kit, f"Persist{name.capitalize()}Instance")
    log = []

    def writing(self, rows):
        log.append(len(rows))
        getattr(base, f"write_{name}_data")(self, rows)

    getattr(adapter(name), f"use_persist_{name}_adapter")(type("Mine", (base,), {f"write_{name}_data": writing}))
    put(name, [row(f"r{number:04}") for number in range(1200)])
    assert log == [1200]
    assert len(rows_of(name)) == (1200 if name == "notification" else 1000)


@lists
def test_limit_reaches_a_class_of_ones_own(store, name):
    """A list leaves out rows only as its caller asked, also with a subclass."""
    base = getattr(kit, f"Persist{name.capitalize()}Instance")
    getattr(adapter(name), f"use_persist_{name}_adapter")(type("Mine", (base,), {}))
    put(name, [row(f"r{number:04}") for number in range(1200)])
    assert len(rows_of(name, limit=None)) == 1200
    assert len(rows_of(name, limit=3)) == 3


@lists
def test_rows_of_a_class_of_ones_own_are_decoded_one_by_one(store, name):
    base = getattr(kit, f"Persist{name.capitalize()}Instance")
    getattr(adapter(name), f"use_persist_{name}_adapter")(type("Mine", (base,), {}))
    put(name, [WIRE[name]])
    assert rows_of(name, type=TYPES[name]) == [msgspec.convert(WIRE[name], TYPES[name])]


# --- clear, dummy, memory --------------------------------------------------------------------------------------------


@keyed
def test_clear_drops_instances_and_never_data(store, name):
    write(name, body(name, "a"))
    adapter(name).clear()
    assert read(name) == body(name, "a")


@keyed
def test_dummy_keeps_nothing(store, name):
    write(name, body(name, "kept"))
    adapter(name).use_dummy()
    write(name, body(name, "lost"))
    assert read(name) == KEYED[name].empty
    adapter(name).write_many(contexts_of(name, ["a"])[1])
    assert adapter(name).read_many(contexts_of(name, ["a"])[0]) == [KEYED[name].empty]
    if name in REMOVABLE:
        remove(name)
        assert list(listed(name)) == []
    if name == "memory":
        assert kit.PersistMemoryAdapter.has_memory_data("sig", "notes", "mem") is False
    if store == "mongo":
        adapter(name).use_mongo()
        assert read(name) == body(name, "kept")


@lists
def test_dummy_keeps_no_rows(store, name):
    adapter(name).use_dummy()
    put(name, [row("a")])
    assert rows_of(name) == []


@pytest.mark.parametrize("name", KEYED)
def test_dummy_still_refuses_what_a_store_would(store, name):
    """A test on the dummy finds the same mistakes as a real store."""
    adapter(name).use_dummy()
    with pytest.raises(kit.InvalidTypeError):
        read(name, **{key_arguments(name)[0]: None})
    with pytest.raises(kit.InvalidTypeError):
        write(name, 5)


def test_memory_store_is_new_each_time_and_serves_one_domain(store):
    kit.PersistSignalAdapter.use_memory()
    write("signal", body("signal", "a"))
    assert read("schedule") is None
    kit.PersistSignalAdapter.use_memory()
    assert read("signal") is None


# --- typed rows ------------------------------------------------------------------------------------------------------

PNL = {"pnlPercentage": -1.5, "priceOpen": 100.2, "priceClose": 99.0, "pnlCost": -1.5, "pnlEntries": 100.0}
PEAK = {**PNL, "price": 101.5, "timestamp": T0}
SIGNAL = {
    "id": "6f0f", "symbol": "BTCUSDT", "strategyName": "sma", "exchangeName": "binance", "frameName": "", "position": "long",
    "priceOpen": 100.0, "priceTakeProfit": 110.0, "priceStopLoss": 90.0, "minuteEstimatedTime": math.inf, "cost": 100.0,
    "scheduledAt": T0, "pendingAt": T0 + 1, "timestamp": T0, "_isScheduled": False, "_peak": PEAK, "_fall": PEAK,
}  # fmt: skip
PUBLIC = {
    **SIGNAL, "originalPriceOpen": 100.0, "originalPriceTakeProfit": 110.0, "originalPriceStopLoss": 90.0, "partialExecuted": 0.0,
    "totalEntries": 1, "totalPartials": 0, "pnl": PNL, "peakProfit": PNL, "maxDrawdown": PNL,
}  # fmt: skip
WIRE: dict[str, Any] = {
    "signal": SIGNAL,
    "schedule": {**SIGNAL, "_isScheduled": True},
    "strategy": {
        "pendingSignalId": None, "lastPendingId": "6f0f", "createdSignal": None, "commitQueue": [], "closedSignal": SIGNAL,
        "takeProfitSignal": None, "stopLossSignal": None, "cancelledSignal": None, "activatedSignal": None, "retryOpenSignal": None,
        "retryOpenCount": 0, "retryCloseCount": 0, "isPaused": False,
    },
    "risk": PAIRS,
    "partial": {"sig": {"profitLevels": [10, 20], "lossLevels": []}},
    "breakeven": {"sig": {"reached": True}},
    "storage": {**PUBLIC, "createdAt": T0, "updatedAt": T0, "priority": T0, "status": "opened", "currentPrice": 101.0},
    "notification": {
        "type": "strategy.pause", "id": "n1", "timestamp": T0, "backtest": True, "symbol": "BTCUSDT", "strategyName": "sma",
        "exchangeName": "binance", "frameName": "", "paused": True, "createdAt": T0,
    },
    "log": {
        "id": "l1", "type": "info", "priority": T0, "createdAt": "2023-11-14T22:13:20.000Z", "timestamp": T0,
        "methodContext": {"exchangeName": "binance", "strategyName": "sma", "frameName": ""},
        "executionContext": {"symbol": "BTCUSDT", "when": WHEN, "backtest": True}, "topic": "t", "args": [1, "two", None],
    },
    "measure": {"id": "key", "data": {"a": 1}, "removed": False},
    "interval": {"id": "key", "data": {"a": 1}, "removed": False, "when": WHEN},
    "memory": {"priority": T0, "data": {"a": 1}, "removed": False, "index": "text", "when": T0},
    "recent": PUBLIC,
    "state": {"id": "sig_notes", "data": {"a": 1}, "when": T0},
    "session": {"id": "BTCUSDT:sma:binance:live", "data": None, "when": T0},
    "dictionary": {"id": "sig_dict", "data": {"a": 1}, "when": T0},
}  # fmt: skip
TYPES: dict[str, Any] = {
    "signal": payloads.SignalRow, "schedule": payloads.ScheduledSignalRow, "strategy": payloads.StrategyData, "risk": payloads.RiskData,
    "partial": payloads.PartialData, "breakeven": payloads.BreakevenData, "storage": payloads.StorageSignalRow,
    "notification": payloads.NotificationModel, "log": payloads.LogEntry, "measure": payloads.MeasureData,
    "interval": payloads.IntervalData, "memory": payloads.MemoryData, "recent": payloads.PublicSignalRow, "state": payloads.StateData,
    "session": payloads.SessionData, "dictionary": payloads.DictionaryData,
}  # fmt: skip


@keyed
def test_row_is_decoded_on_request(store, name):
    struct = msgspec.convert(WIRE[name], TYPES[name])
    write(name, WIRE[name])
    assert read(name, type=TYPES[name]) == struct
    assert read(name) == WIRE[name]
    context = [ARGUMENTS[argument] for argument in key_arguments(name)]
    assert adapter(name).read_many([context], type=TYPES[name]) == [struct]


@keyed
def test_struct_goes_in_as_its_wire_form(store, name):
    """Absent fields stay absent, names are the stored ones, and a read returns a dict."""
    struct = msgspec.convert(WIRE[name], TYPES[name])
    write(name, struct)
    assert read(name) == WIRE[name]
    assert read(name, type=TYPES[name]) == struct


@keyed
def test_type_of_a_missing_record_is_the_empty_value(store, name):
    assert read(name, type=TYPES[name]) == KEYED[name].empty


@pytest.mark.parametrize("name", [name for name in KEYED if name not in ("partial", "breakeven", "risk")])
def test_record_that_is_not_of_the_type_is_a_clear_error(store, name):
    write(name, {"unexpected": 1})
    with pytest.raises(kit.InvalidValueError, match=rf"{name}: .*{TYPES[name].__name__}"):
        read(name, type=TYPES[name])
    assert read(name) == {"unexpected": 1}


@lists
def test_rows_are_decoded_on_request(store, name):
    struct = msgspec.convert(WIRE[name], TYPES[name])
    put(name, [struct])
    assert rows_of(name) == [WIRE[name]]
    assert rows_of(name, type=TYPES[name]) == [struct]


def test_memories_are_decoded_on_request(store):
    write("memory", WIRE["memory"])
    expected = msgspec.convert(WIRE["memory"], payloads.MemoryData)
    stored = list(kit.PersistMemoryAdapter.list_memory_data("sig", "notes", type=payloads.MemoryData))
    assert stored == [{"memoryId": "mem", "data": expected}]
    kit.PersistMemoryAdapter.use_persist_memory_adapter(type("Mine", (kit.PersistMemoryInstance,), {}))
    assert list(kit.PersistMemoryAdapter.list_memory_data("sig", "notes", type=payloads.MemoryData)) == stored


@dataclass
class Inner:
    n: int


@dataclass
class Row:
    id: str
    data: Any
    removed: bool = False


@pytest.mark.parametrize("name", [name for name in KEYED if name != "risk"])
def test_dataclass_goes_in_and_comes_out_as_a_dict(store, name):
    write(name, Row("a", {"inner": Inner(1), "list": [Inner(2)]}))
    assert read(name) == {"id": "a", "data": {"inner": {"n": 1}, "list": [{"n": 2}]}, "removed": False}


def test_dataclass_as_risk_position(store):
    write("risk", {"k": Row("a", Inner(1))})
    assert read("risk") == [["k", {"id": "a", "data": {"n": 1}, "removed": False}]]


@lists
def test_dataclass_rows(store, name):
    put(name, [Row("a", 1), Row("b", Inner(2))])
    stored = sorted(rows_of(name), key=lambda each: each["id"])
    assert stored == [{"id": "a", "data": 1, "removed": False}, {"id": "b", "data": {"n": 2}, "removed": False}]


@keyed
def test_payload_that_is_no_row_is_refused(store, name):
    for wrong in (5, "text", True, b"x", 1.5, Row):
        with pytest.raises(kit.InvalidTypeError, match=name):
            write(name, wrong)
    assert read(name) == KEYED[name].empty
