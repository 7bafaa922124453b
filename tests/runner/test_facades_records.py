"""State, Session, Recent, Storage, Notification and Log: what a strategy keeps and reports, on real stores."""

from __future__ import annotations

import contextvars
import dataclasses
import math
import subprocess
import sys
import threading

import msgspec
import pytest
from facade_runs import HOUR, KINDS, MINUTE, T0, a_run, again, at, in_threads, set_up

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError, LookAheadError
from backtest_kit_mongo.runner import OutsideRunError
from backtest_kit_mongo.runner.facades import (
    Interval,
    Log,
    Measure,
    Memory,
    NestedCallError,
    NoSignalError,
    Notification,
    Recent,
    Session,
    State,
    Storage,
)

pytestmark = pytest.mark.once


@pytest.fixture(params=KINDS)
def kind(request, settings, tmp_path):
    set_up(request.param, settings, tmp_path)
    return request.param


class Grid(msgspec.Struct):
    levels: list[float]
    filled: int = 0


@dataclasses.dataclass
class Point:
    price: float


def public_row(signal_id="sig-1", when=T0, **more):
    pnl = {"pnlPercentage": 1.0, "priceOpen": 100.0, "priceClose": 101.0, "pnlCost": 1.0, "pnlEntries": 100.0}
    return {
        "id": signal_id, "symbol": "BTCUSDT", "strategyName": "sma", "exchangeName": "binance", "frameName": "march", "position": "long",
        "priceOpen": 100.0, "priceTakeProfit": 110.0, "priceStopLoss": 90.0, "minuteEstimatedTime": 60, "cost": 100.0, "timestamp": when,
        "scheduledAt": when, "pendingAt": when, "_isScheduled": False, "originalPriceOpen": 100.0, "originalPriceTakeProfit": 110.0,
        "originalPriceStopLoss": 90.0, "partialExecuted": 0, "totalEntries": 1, "totalPartials": 0,
        "pnl": pnl, "peakProfit": pnl, "maxDrawdown": pnl, **more,
    }  # fmt: skip


def write_recent(run, row):
    kit.PersistRecentAdapter.write_recent_data(
        row, run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest, row["timestamp"]
    )


# --- outside of a run ---

CALLS = {
    "State.get": lambda: State("a", 0).get(),
    "State.set": lambda: State("a", 0).set(1),
    "State.update": lambda: State("a", 0).update(lambda value: value),
    "Session.get": lambda: Session.get(),
    "Session.set": lambda: Session.set({}),
    "Session.update": lambda: Session.update(lambda value: value),
    "Memory.write": lambda: Memory("a").write("m", {}, ""),
    "Memory.read": lambda: Memory("a").read("m"),
    "Memory.list": lambda: Memory("a").list(),
    "Memory.remove": lambda: Memory("a").remove("m"),
    "Recent.latest": lambda: Recent.latest(),
    "Recent.minutes_since": lambda: Recent.minutes_since(),
    "Storage.list": lambda: Storage.list(),
    "Storage.find": lambda: Storage.find("x"),
    "Notification.add": lambda: Notification.add("x"),
    "Notification.list": lambda: Notification.list(),
    "Log.info": lambda: Log.info("x"),
    "CALLS.<locals>.ask": lambda: Measure.cached(bucket="b")(named("CALLS.<locals>.ask"))(),
    "CALLS.<locals>.once": lambda: Interval.once("1h", bucket="b")(named("CALLS.<locals>.once"))(),
}


def named(name):
    def function():
        raise AssertionError("it must not be called")

    function.__qualname__ = name
    return function


@pytest.mark.parametrize("name", CALLS)
def test_outside_of_a_run(name):
    with pytest.raises(OutsideRunError, match=r"(?s)outside a run.*hint: call it from a function that is registered") as caught:
        CALLS[name]()
    assert str(caught.value).startswith(name)


def test_a_new_thread_is_outside_until_it_gets_the_context(mongo):
    collected = []

    def work():
        try:
            collected.append(Session.get())
        except OutsideRunError:
            collected.append("outside")

    with at(a_run()):
        context = contextvars.copy_context()
        for target, args in ((work, ()), (context.run, (work,))):
            thread = threading.Thread(target=target, args=args)
            thread.start()
            thread.join()
    assert collected == ["outside", None]


# --- State ---


def test_state(kind):
    run, state = a_run(), State("count", 0)
    with at(run):
        assert state.get() == 0
        state.set(5)
        assert state.get() == 5
        assert state.update(lambda value: value + 1) == 6
    with at(run, T0 + MINUTE):
        assert State("count", 0).get() == 6
    row = kit.PersistStateAdapter.read_state_data("sig-1", "count", type=payloads.StateData[int])
    assert (row.id, row.data, row.when) == ("sig-1_count", 6, T0)


def test_state_belongs_to_its_signal(kind):
    state = State("count", 0)
    for number, run in enumerate([a_run(signal="sig"), a_run(signal="sig_2"), a_run(signal="sig:2")]):
        with at(run):
            assert state.get() == 0
            state.set(number + 1)
    with at(a_run(signal=None)):
        assert [State("count", 0, signal_id=name).get() for name in ("sig", "sig_2", "sig:2")] == [1, 2, 3]
        for call in (state.get, lambda: state.set(1), lambda: state.update(lambda value: value)):
            with pytest.raises(NoSignalError, match=r"(?s)no open position and no scheduled signal in BTCUSDT.*hint: Session keeps"):
                call()


def test_the_initial_value_is_nobodys(kind):
    state = State("levels", [])
    with at(a_run()):
        state.get().append(1)
        assert state.get() == []


@pytest.mark.parametrize(("initial", "value"), [(Grid([]), Grid([1.5], 2)), (Point(0.0), Point(1.5))])
def test_a_state_of_a_type(kind, initial, value):
    state = State("typed", initial)
    with at(a_run()):
        assert state.get() == initial
        state.set(value)
        assert state.get() == value


@pytest.mark.parametrize("minute", [-60, 0, 60])
def test_a_backtest_knows_nothing_of_an_earlier_one(kind, minute):
    """It does not see what an earlier run over the same names left at an earlier, the same or a later minute."""
    state, memory = State("n", 0), Memory("m")
    with at(again(), T0 + minute * MINUTE):
        state.set(9)
        Session.set({"n": 9})
        memory.write("a", {"n": 9}, "the end of the story")
    run = a_run()
    with at(run):
        assert (state.get(), Session.get()) == (0, None)
        assert (memory.read("a"), memory.has("a"), memory.list(), memory.search("story", min_score=0)) == (None, False, [], [])
        assert state.update(lambda value: value + 1) == 1
        assert Session.update(lambda data: {"n": 1 if data is None else 2}) == {"n": 1}
        memory.write("a", {"n": 1}, "text")
    with at(run, T0 + HOUR):
        assert (state.get(), Session.get(), memory.read("a")) == (1, {"n": 1}, {"n": 1})


def test_what_is_of_a_later_time_is_not_there(kind):
    """This also holds for a live run and without a guard: a clock may be set back."""
    for run in (a_run(), a_run(backtest=False)):
        with at(run, T0 + HOUR):
            State("n", 0).set(9)
            Session.set({"n": 9})
            Memory("m").write("a", {"n": 9}, "the end of the story")
        with at(run):
            assert (State("n", 0).get(), Session.get(), Memory("m").list(), Memory("m").has("a")) == (0, None, [], False)


def test_what_somebody_else_stored_is_known_from_its_time_on(kind):
    """For example, a session that is prepared for a backtest belongs to no run."""
    kit.PersistSessionAdapter.write_session_data({"id": "x", "data": {"n": 1}, "when": T0}, "sma", "binance", "march", T0, "BTCUSDT", True)
    for when, expected in ((T0 - MINUTE, None), (T0 + MINUTE, {"n": 1})):
        with at(a_run(), when):
            assert Session.get() == expected


def test_raise_instead_of_hide(settings):
    kit.setup(settings, look_ahead="raise")
    with at(a_run(), T0 + HOUR):
        State("n", 0).set(1)
    with at(a_run()), pytest.raises(LookAheadError, match="sig-1"):
        State("n", 0).get()


def test_updates_of_threads_are_not_lost(kind):
    state = State("n", 0)
    with at(a_run()):
        in_threads(8, lambda number: [state.update(lambda value: value + 1) for _ in range(5)])
        in_threads(8, lambda number: [Session.update(lambda data: {"n": (data or {"n": 0})["n"] + 1}) for _ in range(5)])
        assert (state.get(), Session.get()) == (40, {"n": 40})


def test_an_update_inside_of_the_same_update_is_an_error_and_no_deadlock(kind):
    state = State("n", 0)
    with at(a_run()):
        with pytest.raises(NestedCallError):
            state.update(lambda value: state.update(lambda inner: inner + 1))
        assert state.update(lambda value: value + 1) == 1


def test_update_wants_a_value(kind):
    state = State("list", [1])
    with at(a_run()):
        with pytest.raises(InvalidValueError, match=r"(?s)State\.update: the function returned None; nothing was written.*return the new"):
            state.update(lambda value: value.append(2))
        with pytest.raises(InvalidTypeError, match=r"Session\.update takes a function"):
            Session.update({"n": 1})
        assert (state.get(), Session.get()) == ([1], None)


HOSTILE = [object(), {1, 2}, {"a": object()}, {"\ud800": 1}, "\ud800", {"a": 10**30}, lambda: 0, "x" * 17_000_000]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_what_cannot_be_stored_changes_nothing(kind, value):
    with at(a_run()):
        State("n", 0).set(1)
        Session.set({"n": 1})
        for call in (State("n", 0).set, Session.set):
            with pytest.raises((InvalidTypeError, InvalidValueError)):
                call(value)
        with pytest.raises((InvalidTypeError, InvalidValueError)):
            Memory("m").write("a", {"value": value}, "")
        assert (State("n", 0).get(), Session.get(), Memory("m").list()) == (1, {"n": 1}, [])


@pytest.mark.parametrize("bucket", ["", "a\0b", " a", "line\n", 5, None])
def test_bad_buckets_are_refused_where_they_are_written_down(bucket):
    for make in (lambda: State(bucket, 0), lambda: Memory(bucket), lambda: Interval.once("1h", bucket=bucket or "")(print)):
        with pytest.raises((InvalidTypeError, InvalidValueError), match="bucket"):
            make()


def test_the_bucket_of_the_run_itself_is_taken():
    with pytest.raises(InvalidValueError, match="the bucket 'position' is reserved for the run itself"):
        State("position", 0)


@pytest.mark.parametrize("name", ["a/b", "../x", "a:b", "a_b", ".hidden", "ключ", "x" * 300, "%2F", "con.json"])
def test_odd_names(kind, name):
    with at(a_run(signal=name, symbol=name)):
        State(name, 0).set(1)
        Session.set({"n": name})
        Memory(name).write(name, {"n": 1}, name)
        assert (State(name, 0).get(), Session.get(), Memory(name).read(name)) == (1, {"n": name}, {"n": 1})
        Memory(name).remove(name)
        assert not Memory(name).has(name)


def test_a_memory_id_with_nul_is_refused(kind):
    with at(a_run()), pytest.raises(InvalidValueError, match="memoryId"):
        Memory("m").write("a\0b", {}, "")


def test_not_a_number_comes_back(settings):
    kit.setup(settings)
    with at(a_run()):
        State("n", 0.0).set(math.nan)
        assert math.isnan(State("n", 0.0).get())


# --- Session ---


def test_session(kind):
    with at(a_run()):
        assert Session.get() is None
        Session.set(Grid([1.0]))
        assert Session.get() == {"levels": [1.0], "filled": 0}
        assert Session.get(Grid) == Grid([1.0])
        Session.set(None)
        assert Session.get() is None
        assert Session.get(Grid) is None
        Session.set({"levels": 5})
        with pytest.raises(InvalidValueError, match="the stored record is not a valid Grid"):
            Session.get(Grid)


def test_sessions_side_by_side(kind):
    runs = [
        a_run(), a_run(symbol="ETHUSDT"), a_run(strategy="rsi"), a_run(exchange="kraken"), a_run(frame="april"), a_run(backtest=False),
        a_run(symbol="a:b", strategy="c"), a_run(symbol="a", strategy="b:c"),
    ]  # fmt: skip
    for number, run in enumerate(runs):
        with at(run):
            assert Session.get() is None
            Session.set({"n": number})
    for number, run in enumerate(runs):
        with at(run):
            assert Session.get() == {"n": number}


def test_the_id_of_a_session_is_the_frameworks(kind):
    for run, name in ((a_run(), "BTCUSDT:sma:binance:march:backtest"), (a_run(backtest=False), "BTCUSDT:sma:binance:live")):
        with at(run):
            Session.set({})
            row = kit.PersistSessionAdapter.read_session_data("sma", "binance", run.frame_name, "BTCUSDT", run.backtest)
        assert row == {"id": name, "data": {}, "when": T0, **({"runId": "first"} if run.backtest else {})}


def test_two_registries(settings, tmp_path):
    """The same names in two registries are two runs."""
    other = kit.Registry()
    kit.setup(settings)
    other.setup(stores=dict.fromkeys(other.slots, "memory"))
    try:
        for registry, value in ((default_registry, 1), (other, 2)):
            with at(a_run(registry)):
                assert State("n", 0).get() == 0
                State("n", 0).set(value)
        for registry, value in ((default_registry, 1), (other, 2)):
            with at(a_run(registry)):
                assert State("n", 0).get() == value
    finally:
        other.close()


def test_another_registry_over_the_same_database_sees_it(settings):
    """Like a process after a restart; nothing is cached in this one."""
    other = kit.Registry()
    kit.setup(settings)
    other.setup(settings)
    try:
        with at(again(backtest=False)):
            State("n", 0).set(1)
            Session.set({"n": 1})
            Memory("m").write("a", {"n": 1}, "text")
        with at(again(other, backtest=False)):
            assert (State("n", 0).get(), Session.get(), Memory("m").read("a")) == (1, {"n": 1}, {"n": 1})
            State("n", 0).set(2)
        with at(again(backtest=False)):
            assert State("n", 0).get() == 2
    finally:
        other.close()


# --- Recent and Storage ---


def test_recent(kind):
    run = a_run()
    with at(run):
        assert (Recent.latest(), Recent.minutes_since()) == (None, None)
    write_recent(run, public_row())
    with at(run, T0 + 90_000):
        assert Recent.latest()["id"] == "sig-1"
        assert Recent.minutes_since() == 1.5
    for row, when, expected in (
        ({}, T0 - MINUTE, None),
        ({}, T0, None),  # in this very minute it may be an earlier run's last one
        ({}, T0 + MINUTE, "sig-1"),
        ({"runId": "first"}, T0 - MINUTE, None),
        ({"runId": "first"}, T0, "sig-1"),
        ({"runId": "second"}, T0 + MINUTE, None),
    ):
        write_recent(run, public_row(**row))
        with at(run, when):
            assert expected == (Recent.latest() or {}).get("id")
    for other in (a_run(symbol="ETHUSDT"), a_run(frame="april"), a_run(backtest=False)):
        with at(other, T0 + HOUR):
            assert Recent.latest() is None


def test_storage_gives_the_runs_own_signals_of_the_past(kind):
    def stored(signal_id, created, updated, **more):
        return {**public_row(signal_id, created), "createdAt": created, "updatedAt": updated, "status": "closed", **more}

    rows = [
        stored("c", T0 + 2 * MINUTE, T0 + 9 * MINUTE),
        stored("b", T0 + MINUTE, T0 + 2 * MINUTE),
        stored("a", T0, T0 + MINUTE),
        stored("other-symbol", T0, T0, symbol="ETHUSDT"),
        stored("other-strategy", T0, T0, strategyName="rsi"),
        stored("other-exchange", T0, T0, exchangeName="kraken"),
        stored("other-frame", T0, T0, frameName="april"),
    ]
    kit.PersistStorageAdapter.write_storage_data(rows, True)
    with at(a_run(), T0 + 5 * MINUTE):
        assert [row["id"] for row in Storage.list()] == ["b", "a"]  # P19: newest first, whatever order the store returns
        assert Storage.find("a")["status"] == "closed"
        assert Storage.find("c") is None
        assert Storage.find("other-symbol") is None
    with at(a_run(), T0 + 10 * MINUTE):
        assert [row["id"] for row in Storage.list()] == ["c", "b", "a"]
    kit.PersistStorageAdapter.write_storage_data([stored("new", T0 + 20 * MINUTE, T0 + 20 * MINUTE, runId="first")], True)
    for run, when, expected in ((a_run(), T0 + 20 * MINUTE, True), (a_run(), T0 + 19 * MINUTE, False), (again(), T0 + HOUR, False)):
        with at(run, when):
            assert (Storage.find("new") is not None) == expected
    with at(a_run(backtest=False), T0 + HOUR):
        assert Storage.list() == []


# --- Notification and Log ---


def test_notifications(kind):
    run = a_run()
    with at(run):
        first = Notification.add("without a position")
    write_recent(run, public_row())
    with at(run, T0 + MINUTE):
        second = Notification.add("with one")
        assert [row["id"] for row in Notification.list()] == [first, second]
    with at(run):
        assert [row["id"] for row in Notification.list()] == [first]
    names = {"symbol": "BTCUSDT", "strategyName": "sma", "exchangeName": "binance"}
    by_the_run = {"id": "x", "type": "error.info", "timestamp": T0 + MINUTE, "error": {}, "message": "", **names}
    kit.PersistNotificationAdapter.write_notification_data([by_the_run], True)
    for when, expected in ((T0 + MINUTE, []), (T0 + 2 * MINUTE, ["x"])):  # in this very minute it may be an earlier run's
        with at(again(), when):
            assert [row["id"] for row in Notification.list()] == expected
    for other in (a_run(symbol="ETHUSDT"), a_run(strategy="rsi"), a_run(exchange="kraken"), a_run(backtest=False)):
        with at(other, T0 + HOUR):
            assert Notification.list() == []
    plain, about, _ = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    assert isinstance(plain, payloads.InfoErrorNotification)
    assert plain.message == "without a position"
    assert isinstance(about, payloads.SignalInfoNotification)
    assert (about.note, about.signal_id, about.pnl_percentage, about.current_price) == ("with one", "sig-1", 1.0, 101.0)


def test_the_shape_of_a_log_line(kind):
    with at(a_run()):
        Log.info("topic", 1, {"a": [1.5]}, "text")
    [line] = kit.PersistLogAdapter.read_log_data(type=payloads.LogEntry)
    assert (line.type, line.topic, line.args, line.timestamp) == ("info", "topic", [1, {"a": [1.5]}, "text"], T0)
    assert line.created_at == "2023-11-14T23:00:00Z"
    assert (line.method_context.strategy_name, line.execution_context.symbol, line.execution_context.backtest) == ("sma", "BTCUSDT", True)


def lines():
    return kit.PersistLogAdapter.read_log_data(limit=None)


def test_every_line_is_there_once_and_again_in_a_second_run(kind):
    """Equal lines in one minute stay separate; a backtest that runs again writes the same lines."""

    def story():
        run = again()
        for minute in range(3):
            with at(run, T0 + minute * MINUTE):
                for write in (Log.log, Log.debug, Log.info, Log.warn, Log.info):
                    write("topic", 1)
                in_threads(4, lambda number: [Log.warn("equal"), Log.warn("own", number)])

    story()
    first = sorted(line["id"] for line in lines())
    assert len(set(first)) == len(first) == 3 * (5 + 8)
    story()
    assert sorted(line["id"] for line in lines()) == first


def test_runs_do_not_share_lines(kind):
    for run in (a_run(), a_run(symbol="ETHUSDT"), a_run(strategy="rsi"), a_run(exchange="kraken"), a_run(frame="april")):
        with at(run):
            Log.info("equal")
            Notification.add("equal")
    assert len(lines()) == 5
    assert len(kit.PersistNotificationAdapter.read_notification_data(True)) == 5


def test_a_live_run_that_begins_again_within_a_minute_says_it_again(kind):
    for _ in range(2):
        with at(again(backtest=False)):
            Log.info("started")
            Notification.add("started")
    assert len(lines()) == 2
    assert len(kit.PersistNotificationAdapter.read_notification_data(False)) == 2


class Odd:
    def __repr__(self):
        return f"<Odd at {hex(id(self))}>"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Odd(), "<Odd>"),
        (ValueError("bad"), "ValueError: bad"),
        ({"b", "a"}, ["a", "b"]),
        ("\ud800", "'\\ud800'"),
        (10**30, "1" + "0" * 30),
        ("x" * 17_000_000, "'" + "x" * 9_999),
    ],
    ids=["object", "error", "set", "surrogate", "long", "huge"],
)
def test_a_log_line_takes_everything(kind, value, kept):
    with at(a_run()):
        Log.info("topic", "before", value)
    [line] = lines()
    assert line["args"] == ["before", kept]


def test_a_topic_is_text(kind):
    with at(a_run()):
        with pytest.raises(InvalidTypeError, match=r"Log\.warn: topic must be a str"):
            Log.warn(5)
        with pytest.raises(InvalidTypeError, match="message must be a str"):
            Notification.add({"a": 1})
    assert lines() == []


@pytest.mark.parametrize("first", ["runner", "runner.facades", "runner.facades.state", "runner.current_run"])
def test_the_order_of_imports_does_not_matter(first):
    code = f"import backtest_kit_mongo.{first}; from backtest_kit_mongo.runner.facades import State; import backtest_kit_mongo.runner"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
