"""Nothing from the future: what a read at a simulation time may see, on every store, against a model of everything ever written."""

from __future__ import annotations

import itertools
import random
import threading
from datetime import UTC, datetime

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError, LookAheadError

pytestmark = pytest.mark.once  # independent of the wire protocol

T0 = 1_700_000_040_000  # on the minute
MINUTE = 60_000
SIGNAL = ("BTCUSDT", "sma", "binance")

# For each domain, how to write a value at a time and how to read it. The contract's read may take no time; then the clock decides.
CALLS = {
    "risk": (
        lambda key, body, when: kit.PersistRiskAdapter.write_position_data([[key, body]], key, "binance", when),
        lambda key, when: kit.PersistRiskAdapter.read_position_data(key, "binance", when),
    ),
    "partial": (
        lambda key, body, when: kit.PersistPartialAdapter.write_partial_data({key: body}, "S", "s", key, "e", when),
        lambda key, when: kit.PersistPartialAdapter.read_partial_data("S", "s", key, "e", when),
    ),
    "breakeven": (
        lambda key, body, when: kit.PersistBreakevenAdapter.write_breakeven_data({key: body}, "S", "s", key, "e", when),
        lambda key, when: kit.PersistBreakevenAdapter.read_breakeven_data("S", "s", key, "e", when),
    ),
    "interval": (
        lambda key, body, when: kit.PersistIntervalAdapter.write_interval_data(body, "bucket", key, when),
        lambda key, when: kit.PersistIntervalAdapter.read_interval_data("bucket", key),
    ),
    "memory": (
        lambda key, body, when: kit.PersistMemoryAdapter.write_memory_data(body, "sig", "notes", key, when),
        lambda key, when: kit.PersistMemoryAdapter.read_memory_data("sig", "notes", key),
    ),
    "recent": (
        lambda key, body, when: kit.PersistRecentAdapter.write_recent_data(body, key, "s", "e", "f", True, when),
        lambda key, when: kit.PersistRecentAdapter.read_recent_data(key, "s", "e", "f", True),
    ),
    "state": (
        lambda key, body, when: kit.PersistStateAdapter.write_state_data(body, "sig", key, when),
        lambda key, when: kit.PersistStateAdapter.read_state_data("sig", key),
    ),
    "session": (
        lambda key, body, when: kit.PersistSessionAdapter.write_session_data(body, "s", "e", "f", when, key, True),
        lambda key, when: kit.PersistSessionAdapter.read_session_data("s", "e", "f", key, True),
    ),
    "dictionary": (
        lambda key, body, when: kit.PersistDictionaryAdapter.write_dictionary_data(body, "sig", key, when),
        lambda key, when: kit.PersistDictionaryAdapter.read_dictionary_data("sig", key),
    ),
}
TAKES_WHEN = ("risk", "partial", "breakeven")
timed = pytest.mark.parametrize("name", CALLS)


def write(name, key, number, when):
    CALLS[name][0](key, {"n": number, "removed": False}, when)


def read(name, key, when):
    """Return the number that a read at ``when`` sees; None for the empty value of the contract."""
    with kit.simulated_time(None if name in TAKES_WHEN else when):
        value = CALLS[name][1](key, when)
    if value == DOMAINS[name].empty():
        return None
    if name == "risk":
        value = value[0][1]
    elif name in TAKES_WHEN:
        value = value[key]
    return value["n"]


@pytest.fixture(params=["mongo", "mongo-without-wire", "memory", "file"])
def begin(request, settings, tmp_path):
    """``begin(**settings)``: everything on one store, with the guard or the history that the test asks for."""
    kind = request.param.partition("-")[0]

    def started(**options):
        more = {"CC_WIRE_LANE": request.param != "mongo-without-wire", "CC_DUMP_DIR": str(tmp_path / "dump")}
        kit.close()
        kit.setup({**settings, **more}, stores=dict.fromkeys((name for name in DOMAINS if name != "candle"), kind), **options)

    return started


def test_every_domain_that_carries_time_is_here():
    assert set(CALLS) == {name for name, domain in DOMAINS.items() if domain.when}


@timed
def test_hidden_until_its_time_comes(begin, name):
    begin(look_ahead="hide")
    write(name, "k", 1, T0)
    assert [read(name, "k", T0 + step) for step in (-1, 0, 1)] == [None, 1, 1]
    write(name, "k", 2, T0 + MINUTE)  # the later write is stored
    assert [read(name, "k", T0 + step) for step in (0, MINUTE - 1, MINUTE)] == [None, None, 2]
    write(name, "k", 3, T0)  # a write with an earlier time still replaces it
    assert [read(name, "k", T0 + step) for step in (-1, 0, MINUTE)] == [None, 3, 3]
    assert kit.stats()[name]["future_reads"] == 4


@timed
def test_raised(begin, name):
    begin(look_ahead="raise")
    write(name, "k", 1, T0)
    with pytest.raises(LookAheadError, match=f"^{name} .*written at {T0} ms, but the simulation time is {T0 - 1} ms\n  hint: ") as caught:
        read(name, "k", T0 - 1)
    assert isinstance(caught.value, ValueError)
    assert read(name, "k", T0) == 1
    assert kit.stats()[name]["future_reads"] == 1


@timed
def test_off_gives_what_is_stored(begin, name):
    begin()
    write(name, "k", 1, T0)
    assert read(name, "k", T0 - 1) == 1
    assert kit.stats()[name]["future_reads"] == 0


def test_without_a_clock_nothing_is_hidden(begin):
    begin(look_ahead="hide")
    write("state", "k", 1, T0)
    assert kit.PersistStateAdapter.read_state_data("sig", "k")["n"] == 1


def test_lists_and_has(begin):
    begin(look_ahead="hide")
    for index in range(5):
        write("memory", f"m{index}", index, T0 + index)
        write("interval", f"i{index}", index, T0 + index)
    with kit.simulated_time(T0 + 2):
        assert {row["memoryId"] for row in kit.PersistMemoryAdapter.list_memory_data("sig", "notes")} == {"m0", "m1", "m2"}
        assert set(kit.PersistIntervalAdapter.list_interval_data("bucket")) == {"i0", "i1", "i2"}
        assert kit.PersistMemoryAdapter.has_memory_data("sig", "notes", "m2")
        assert not kit.PersistMemoryAdapter.has_memory_data("sig", "notes", "m3")
        assert [row and row["n"] for row in kit.PersistMemoryAdapter.read_many([("sig", "notes", f"m{index}") for index in range(5)])] == [
            0, 1, 2, None, None,
        ]  # fmt: skip
    assert len(list(kit.PersistMemoryAdapter.list_memory_data("sig", "notes"))) == 5


def test_removed_before_it_was_written(begin):
    """A removal applies to what existed at its time, and discards the later versions of that record."""
    begin(history=["memory"])
    write("memory", "a", 1, T0)
    write("memory", "a", 2, T0 + 10)
    write("memory", "b", 3, T0 + 10)
    with kit.simulated_time(T0 + 5):
        kit.PersistMemoryAdapter.remove_memory_data("sig", "notes", "a")
        kit.PersistMemoryAdapter.remove_memory_data("sig", "notes", "b")  # does not exist yet
    removed = kit.records("memory", {"memoryId": "a"}, removed=True)
    assert [(row["when"], row["payload"]["n"], row["removed"]) for row in removed] == [(T0 + 5, 1, True)]
    assert [read("memory", "a", T0 + step) for step in (0, 5, 10)] == [1, None, None]
    assert [read("memory", "b", T0 + step) for step in (5, 10)] == [None, 3]


def test_read_many_through_a_class_of_ones_own(begin):
    """A user's class is read one by one, at the simulation time of the run."""
    begin(look_ahead="hide")

    class Mine(kit.PersistPartialInstance):
        pass

    kit.PersistPartialAdapter.use_persist_partial_adapter(Mine)
    write("partial", "k", 1, T0)
    context = [("S", "s", "k", "e")]
    assert kit.PersistPartialAdapter.read_many(context) == [{"k": {"n": 1, "removed": False}}]
    with kit.simulated_time(T0):
        assert kit.PersistPartialAdapter.read_many(context) == [{"k": {"n": 1, "removed": False}}]
    with kit.simulated_time(T0 - 1):
        assert kit.PersistPartialAdapter.read_many(context) == [{}]


@pytest.mark.parametrize("history", [[], ["memory", "interval"]], ids=["hide", "history"])
def test_a_list_is_of_the_time_of_its_call(begin, history):
    """The time of iteration does not matter: outside of the block, or inside another one."""
    begin(look_ahead="hide", history=history)
    for index in range(3):
        write("memory", f"m{index}", index, T0 + index)
        write("interval", f"i{index}", index, T0 + index)
    with kit.simulated_time(T0):
        memories = kit.PersistMemoryAdapter.list_memory_data("sig", "notes")
        intervals = kit.PersistIntervalAdapter.list_interval_data("bucket")
    everything = kit.PersistIntervalAdapter.list_interval_data("bucket")
    with kit.simulated_time(T0 + 1):
        assert [row["memoryId"] for row in memories] == ["m0"]
        assert list(intervals) == ["i0"]
        assert len(list(everything)) == 3


@pytest.mark.parametrize("when", [8_640_000_000_000_001, -8_640_000_000_000_001, 1_700_000_000_000_000_000, 2**63])
def test_times_beyond_those_of_javascript(begin, when):
    """Mostly nanoseconds by mistake. MongoDB's doubles cannot hold all of them, so one could pass for an earlier time."""
    begin(look_ahead="hide")
    with pytest.raises(InvalidValueError, match="is not a timestamp in milliseconds\n  hint: pass milliseconds since 1970"):
        write("state", "k", 1, when)
    with pytest.raises(InvalidValueError), kit.simulated_time(when):
        pass
    for last in (8_640_000_000_000_000, -8_640_000_000_000_000):
        write("state", "k", 1, last)
        assert [read("state", "k", last + step) for step in ((-1, 0) if last > 0 else (0, 1))] == ([None, 1] if last > 0 else [1, 1])


def test_lists_raise(begin):
    begin(look_ahead="raise")
    write("memory", "m", 1, T0)
    with kit.simulated_time(T0 - 1):
        with pytest.raises(LookAheadError):
            list(kit.PersistMemoryAdapter.list_memory_data("sig", "notes"))
        with pytest.raises(LookAheadError):
            kit.PersistMemoryAdapter.read_many([("sig", "notes", "m")])


@timed
def test_random_interleavings_of_time(begin, name):
    """With writes at rising and falling times, a read never sees a value of a later time, and always the stored value otherwise."""
    begin(look_ahead="hide")
    chance = random.Random(name)
    stored: dict[str, tuple[int, int]] = {}
    for number in range(200):
        key, when = f"k{chance.randrange(3)}", T0 + chance.randrange(20)
        if chance.random() < 0.4:
            write(name, key, number, when)
            stored[key] = (number, when)
        else:
            value, since = stored.get(key, (None, 0))
            assert read(name, key, when) == (value if since <= when else None)


# --- candles ---


def candles(count, since=T0):
    return [
        {"timestamp": since + index * MINUTE, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 1.0} for index in range(count)
    ]


def window(limit, since=T0):
    return kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", limit, since, since + limit * MINUTE)


@pytest.mark.parametrize("memory", [0, 16])
def test_candles_never_close_after_the_time(settings, memory):
    kit.setup(settings, look_ahead="hide", CC_CANDLE_MEMORY_MB=memory)
    kit.PersistCandleAdapter.write_candles_data(candles(10), "BTCUSDT", "1m", "binance")
    for _ in range(2):  # from the server, then from memory
        with kit.simulated_time(T0 + 5 * MINUTE):
            assert window(5) == candles(5)
            assert window(6) is None
            assert window(1, T0 + 5 * MINUTE) is None
            assert window(0, T0 + 9 * MINUTE) == []
            assert kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 6, T0) is None
            assert len(kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 5, T0)) == 5
        with kit.simulated_time(T0 + 5 * MINUTE - 1):
            assert window(5) is None
        assert window(10) == candles(10)
    assert kit.stats()["candle"]["future_reads"] == 8


def test_candles_raise(settings):
    kit.setup(settings, look_ahead="raise")
    kit.PersistCandleAdapter.write_candles_data(candles(3), "BTCUSDT", "1m", "binance")
    with kit.simulated_time(datetime.fromtimestamp((T0 + 2 * MINUTE) / 1000, UTC)):
        assert window(2) == candles(2)
        with pytest.raises(LookAheadError, match=f"the window closes at {T0 + 3 * MINUTE} ms.*\n.*opens at {T0 + MINUTE} ms$"):
            window(3)
        with pytest.raises(InvalidTypeError, match="limit must be an int"):
            kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", "3", T0, T0)


# --- the clock ---


def test_the_clock_nests_and_is_of_its_thread(begin):
    begin(look_ahead="hide")
    write("state", "k", 1, T0)
    seen = []
    with kit.simulated_time(T0 - 1):
        with kit.simulated_time(T0):
            assert read_state() == {"n": 1, "removed": False}
        assert read_state() is None
        thread = threading.Thread(target=lambda: seen.append(read_state()))
        thread.start()
        thread.join()
    assert seen == [{"n": 1, "removed": False}]


def read_state():
    return kit.PersistStateAdapter.read_state_data("sig", "k")


@pytest.mark.parametrize(
    ("when", "error"),
    [("now", InvalidTypeError), (1.5, InvalidTypeError), (True, InvalidTypeError), (datetime(2024, 1, 1), InvalidValueError)],
)
def test_a_time_that_is_none(when, error):
    with pytest.raises(error, match=r"^when"), kit.simulated_time(when):
        pass


# --- history ---


@timed
def test_as_of(begin, name):
    begin(history=[name])
    for number, step in enumerate((0, 2, 4)):
        write(name, "k", number, T0 + step)
    assert [read(name, "k", T0 + step) for step in (-1, 0, 1, 2, 3, 4, 9)] == [None, 0, 0, 1, 1, 2, 2]
    write(name, "k", 7, T0 + 2)  # discards the version of T0 + 4, replaces its own
    assert [read(name, "k", T0 + step) for step in (-1, 0, 1, 2, 3, 4, 9)] == [None, 0, 0, 7, 7, 7, 7]


@timed
def test_random_interleavings_with_history(begin, name):
    """Reads match a model that keeps every version."""
    begin(look_ahead="raise", history=[name])  # with history there is nothing to raise about
    chance = random.Random(name)
    versions: dict[str, dict[int, int]] = {}
    for number in range(150):
        key, when = f"k{chance.randrange(3)}", T0 + chance.randrange(30)
        moments = versions.setdefault(key, {})
        if chance.random() < 0.4:
            write(name, key, number, when)
            versions[key] = {**{moment: value for moment, value in moments.items() if moment < when}, when: number}
        else:
            past = [moment for moment in moments if moment <= when]
            assert read(name, key, when) == (moments[max(past)] if past else None)


def test_what_was_removed_is_there_before(begin):
    begin(look_ahead="hide", history=["memory"])
    write("memory", "a", 1, T0)
    write("memory", "b", 2, T0)
    with kit.simulated_time(T0 + 5):
        kit.PersistMemoryAdapter.remove_memory_data("sig", "notes", "a")
    listed = {}
    for step in (-1, 0, 4, 5):
        with kit.simulated_time(T0 + step):
            listed[step] = sorted(row["memoryId"] for row in kit.PersistMemoryAdapter.list_memory_data("sig", "notes"))
            assert kit.PersistMemoryAdapter.has_memory_data("sig", "notes", "a") == (0 <= step < 5)
    assert listed == {-1: [], 0: ["a", "b"], 4: ["a", "b"], 5: ["b"]}


@pytest.mark.parametrize(("options", "kept"), [({"CC_HISTORY_LIMIT": 3}, 3), ({"CC_HISTORY_DAYS": 2}, 3), ({"CC_HISTORY_LIMIT": 0}, 10)])
def test_history_is_bounded(begin, options, kept):
    """The limit is a count or an age. Expired versions may stay for a while, since they are swept now and then; the rest must exist."""
    begin(history=["state"], **options)
    day = 86_400_000
    for number in range(10):
        write("state", "k", number, T0 + number * day)
    seen = [read("state", "k", T0 + number * day) for number in range(10)]
    assert seen[10 - kept :] == list(range(10 - kept, 10))


def test_discarded_versions(begin):
    begin(history=["state"])
    store = default_registry.store(DOMAINS["state"])
    for number in range(5):
        write("state", "k", number, T0 + number)
        write("state", "other", number, T0 + number)
    write("state", "late", 1, T0 + 4)
    store.discard_versions(DOMAINS["state"], [("sig", "k"), ("sig", "late"), ("sig", "nothing")], T0 + 2)
    assert [read("state", "k", T0 + step) for step in range(6)] == [0, 1, 1, 1, 1, 1]
    assert read("state", "late", T0 + 9) is None
    assert [read("state", "other", T0 + step) for step in range(5)] == [0, 1, 2, 3, 4]


def test_a_rerun_sees_what_the_first_run_saw(begin):
    begin(look_ahead="hide", history=["state", "session"])
    store = default_registry.store(DOMAINS["state"])

    def run():
        seen = []
        for step, key in itertools.product(range(6), ("a", "b")):
            seen.append(read("state", key, T0 + step))
            if step % 2 == (key == "a"):
                write("state", key, len(seen), T0 + step)
            seen.append(read("state", key, T0 + step))
        return seen

    write("state", "a", 99, T0 - 5)
    first = run()
    assert first[0] == 99
    store.discard_versions(DOMAINS["state"], [("sig", "a"), ("sig", "b")], T0)
    assert run() == first


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("session", {}, "'session' keeps no versions\n  hint: setup(history=[...]) names the domains that do; now: state"),
        ("nothing", {}, "'nothing' keeps no versions"),
        (["state"], {}, "['state'] keeps no versions"),
        ("state", {"signalId": 5}, "state: signalId must be a str, or a collection of them, got int"),
        ("state", {"signalId": b"sig"}, "state: signalId must be a str, or a collection of them, got bytes"),
        ("state", {"bucketName": ["a", None]}, "state: bucketName must be a str, or a collection of them, got NoneType"),
        ("state", {"symbol": "S"}, "state has no key field symbol\n  hint: its key fields: signalId, bucketName"),
    ],
)
def test_versions_that_cannot_be_discarded(begin, name, fields, text):
    begin(history=["state"])
    with pytest.raises((InvalidValueError, InvalidTypeError)) as caught:
        kit.discard_versions(name, T0, **fields)
    assert text in str(caught.value)


def test_versions_of_some_keys_are_discarded(begin):
    begin(history=["state"])
    for key in ("a", "b", "c"):
        for number in range(3):
            write("state", key, number, T0 + number)
    assert kit.discard_versions("state", T0 + 1, signalId="sig", bucketName=["a", "c", "none"]) == 2
    assert [read("state", key, T0 + 9) for key in ("a", "b", "c")] == [0, 2, 0]
    assert kit.discard_versions("state", datetime.fromtimestamp(T0 / 1000, UTC)) == 3
    assert [read("state", key, T0 + 9) for key in ("a", "b", "c")] == [None] * 3


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("when", [None, "yesterday", float("nan"), datetime(2024, 1, 1, tzinfo=UTC)], ids=["none", "text", "nan", "date"])
def test_a_record_of_no_time_is_before_all_others(settings, wire, when):
    """Another program wrote it before history was on: a version is made of it, and it comes back as it was."""
    kit.setup(settings, history=["state"], CC_WIRE_LANE=wire)
    items = kit.get_mongo()["state-items"]
    legacy = {"signalId": "sig", "bucketName": "k", "payload": {"n": 7}, **({} if when is None else {"when": when})}
    items.insert_one(dict(legacy))
    assert [read("state", "k", T0 + step) for step in (0, 5, 9)] == [7, 7, 7]
    write("state", "k", 8, T0 + 9)
    assert [read("state", "k", T0 + step) for step in (0, 8, 9)] == [7, 7, 8]
    write("state", "k", 9, T0 + 12)
    assert [read("state", "k", T0 + step) for step in (0, 8, 9, 12)] == [7, 7, 8, 9]
    assert kit.discard_versions("state", T0 + 9) == 1
    assert [read("state", "k", T0 + step) for step in (0, 9, 12)] == [7, 7, 7]
    left = items.find_one({}, {"_id": False, "createDate": False, "updatedDate": False, "__v": False, "versions": False, "removed": False})
    assert set(left) == set(legacy)
    assert type(left.get("when")) is type(when)
