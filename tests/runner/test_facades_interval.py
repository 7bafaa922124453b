"""Interval.once: once per interval, also after a restart, and the same in every run of a backtest."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest
from facade_runs import HOUR, KINDS, MINUTE, T0, again, at, in_threads, set_up

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError, ServerUnavailableError
from backtest_kit_mongo.runner import add_strategy, clear_strategies, get_candles, import_candles, run_backtest, synthetic_market
from backtest_kit_mongo.runner.current_run import RunScope, run_scope
from backtest_kit_mongo.runner.facades import Interval, Log, Measure, NestedCallError, Session
from backtest_kit_mongo.simulation import current_time, entered

pytestmark = pytest.mark.once


@pytest.fixture(params=KINDS)
def kind(request, settings, tmp_path):
    set_up(request.param, settings, tmp_path)
    return request.param


def fired_at(run, minutes, once=None, **options):
    """Call a function at ``minutes`` after T0; return the minutes at which it fires."""
    calls = []

    def fire():
        calls.append((current_time() - T0) // MINUTE)
        return {"minute": calls[-1]}

    once = Interval.once(options.pop("interval", "1h"), **{"bucket": "test", **options})(fire)
    for minute in minutes:
        with at(run, T0 + minute * MINUTE):
            value = once()
        assert value == ({"minute": minute} if calls and calls[-1] == minute else None)
    return calls


def test_once_in_an_interval(kind):
    assert fired_at(again(), [5, 6, 59, 60, 61, 119, 180, 181]) == [5, 60, 180]
    assert fired_at(again(backtest=False), [5, 6, 59, 60, 61, 119, 180, 181]) == [5, 60, 180]


def test_the_marker(kind):
    run = again()
    fired_at(run, [5, 6])
    [key] = kit.PersistIntervalAdapter.list_interval_data("test")
    assert key.startswith(f"BTCUSDT_{T0}_")
    marker = kit.PersistIntervalAdapter.read_interval_data("test", key, type=payloads.IntervalData[dict])
    assert (marker.id, marker.data, marker.removed) == (key, {"minute": 5}, False)
    assert marker.when.timestamp() * 1000 == T0 + 5 * MINUTE


def test_a_backtest_does_the_same_again(kind):
    """Markers of an earlier run at an earlier, the same or a later minute of the interval do not count."""
    assert fired_at(again(), [5, 6]) == [5]
    assert fired_at(again(), [5, 6]) == [5]
    assert fired_at(again(), [3, 4, 5, 6]) == [3]
    assert fired_at(again(), [50, 51]) == [50]


@pytest.mark.parametrize("options", [{"look_ahead": "raise"}, {"look_ahead": "hide", "history": ["interval"]}], ids=["raise", "history"])
def test_a_backtest_does_the_same_again_under_any_guard(settings, options):
    kit.setup(settings, **options)
    for _ in range(2):
        assert fired_at(again(), [5, 6, 60, 61]) == [5, 60]
    assert fired_at(again(), [1, 2]) == [1]


def test_a_live_run_heeds_the_marker_of_the_one_before(settings):
    """As after a restart: a new process has a new run and a new registry over the same database."""
    other = kit.Registry()
    kit.setup(settings)
    other.setup(settings)
    try:
        assert fired_at(again(backtest=False), [5]) == [5]
        assert fired_at(again(other, backtest=False), [6, 59, 60]) == [60]
    finally:
        other.close()


def test_runs_do_not_suppress_each_other(kind):
    runs = [
        again(), again(symbol="ETHUSDT"), again(strategy="rsi"), again(exchange="kraken"), again(frame="april"), again(backtest=False),
        again(symbol="a", strategy="b_c"), again(symbol="a_b", strategy="c"),
    ]  # fmt: skip
    for run in runs:
        assert fired_at(run, [5, 6]) == [5]
    for run in runs:
        assert fired_at(run, [7, 8]) == []


def test_intervals_and_buckets_have_their_own(kind):
    assert fired_at(again(), [60]) == [60]
    run = again(backtest=False)
    assert fired_at(run, [60]) == [60]
    assert fired_at(run, [60], interval="5m") == [60]
    assert fired_at(run, [60], bucket="other") == [60]
    assert fired_at(run, [61]) == []


def test_arguments_are_no_difference_unless_key_says_so(kind):
    once = Interval.once("1h", bucket="one")(lambda *args: args[0])
    each = Interval.once("1h", bucket="each", key=lambda level, client: level)(lambda level, client: level)
    with at(again()):
        assert [once(1), once(2)] == [1, None]
        assert [each(level, object()) for level in (10, 20, 10)] == [10, 20, None]


def test_a_function_that_returns_nothing_has_run(kind):
    calls = []
    once = Interval.once("1h", bucket="nothing")(lambda: calls.append(1))
    with at(again()):
        assert (once(), once(), calls) == (None, None, [1])


def test_a_function_that_raises_is_called_again(kind):
    calls = []

    @Interval.once("1h")
    def once():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return "done"

    with at(again(backtest=False)):
        with pytest.raises(ValueError, match="not yet"):
            once()
        assert [once(), once(), len(calls)] == ["done", None, 2]


def test_a_process_that_dies_in_the_function_does_not_do_it_twice(kind):
    """The marker is stored before the function is called: it may have done its work."""

    class Killed(BaseException):
        pass

    @Interval.once("1h")
    def once():
        raise Killed

    with at(again(backtest=False)):
        with pytest.raises(Killed):
            once()
        assert once() is None


def test_a_marker_that_cannot_be_written_stops_the_call(servers, settings):
    kit.setup(settings | {"CC_MONGO_CONNECTION_STRING": "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=200"})
    calls = []
    once = Interval.once("1h", bucket="b")(lambda: calls.append(1))
    with at(again()), pytest.raises(ServerUnavailableError):
        once()
    assert calls == []


def test_what_cannot_be_stored_is_given_all_the_same(kind):
    value = object()
    once = Interval.once("1h", bucket="odd")(lambda: value)
    with at(again()):
        assert [once() is value, once()] == [True, None]


def test_threads_fire_once(kind):
    gate = threading.Event()

    @Interval.once("1h")
    def once():
        gate.wait(60)
        return "fired"

    with at(again()):
        threading.Timer(0.1, gate.set).start()
        assert sorted(map(str, in_threads(6, lambda number: once()))) == ["None"] * 5 + ["fired"]


def test_tasks_fire_once(kind):
    @Interval.once("1h")
    async def once():
        await asyncio.sleep(0.02)
        return "fired"

    async def story():
        return await asyncio.gather(*(once() for _ in range(5)))

    with at(again()):
        assert sorted(map(str, asyncio.run(story()))) == ["None"] * 4 + ["fired"]


def test_a_function_that_calls_itself(mongo):
    @Interval.once("1h")
    def once():
        return once()

    with at(again()), pytest.raises(NestedCallError):
        once()


def test_bad_arguments():
    for interval, error in (("7m", InvalidValueError), (None, InvalidTypeError), (print, InvalidTypeError)):
        with pytest.raises(error, match="interval"):
            Interval.once(interval)
    with pytest.raises(InvalidValueError, match="no name of its own"):
        Interval.once("1h")(lambda: 1)
    with pytest.raises(InvalidTypeError, match="key must be a function"):
        Interval.once("1h", key="x")(test_bad_arguments)


# --- in a whole backtest ---

START = 1_677_628_800_000


@contextmanager
def inside(run):
    outer = run_scope()
    with entered(RunScope(run, None if outer is None else outer.history, current_time())):
        yield


@pytest.mark.parametrize("stores", [{}, dict.fromkeys(["session", "log", "state"], "mongo")], ids=["profile", "mongo"])
def test_a_backtest_run_again_trades_the_same(settings, tmp_path, stores):
    """The records of the first run, and of one that began later, are in the database."""
    kit.setup(settings, mode="backtest", stores=stores, CC_DUMP_DIR=tmp_path / "dump")
    clear_strategies()
    asked, runs = [], {}

    @Measure.cached("4h")
    def trend(symbol):
        asked.append(current_time())
        candles = get_candles(symbol, "1m", 60)
        return {"up": candles[-1]["close"] >= candles[0]["close"]}

    @Interval.once("1h")
    def hourly(symbol):
        Log.info("hourly", symbol)
        return trend(symbol)

    @add_strategy("keeper", interval="15m")
    def keeper(symbol, when):
        with inside(runs[symbol]):
            seen = hourly(symbol)
            if seen is None:
                return None
            price = get_candles(symbol, "1m", 1)[-1]["close"]
            sign = 1 if seen["up"] else -1
            return {
                "position": "long" if seen["up"] else "short",
                "priceTakeProfit": price * (1 + sign * 0.002),
                "priceStopLoss": price * (1 - sign * 0.002),
                "minuteEstimatedTime": 60,
            }

    candles = synthetic_market(7, 2 * 1440, START)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        import_candles(candles, symbol, exchange_name="synthetic")

    def backtest(symbol, start_ms):
        runs[symbol] = again(symbol=symbol, strategy="keeper", exchange="synthetic", frame="backtest", signal=None)
        return run_backtest(symbol, "keeper", exchange_name="synthetic", start_ms=start_ms).trades

    try:
        start = START + 4 * HOUR
        first = backtest("BTCUSDT", start)
        answers = len(asked)
        said = len(kit.PersistLogAdapter.read_log_data(limit=None))
        assert len(first) > 5
        assert answers > 3
        assert backtest("BTCUSDT", start) == first
        assert len(asked) == answers  # nothing was asked again
        assert len(kit.PersistLogAdapter.read_log_data(limit=None)) == said
        assert backtest("BTCUSDT", start + 37 * HOUR) != first
        assert backtest("BTCUSDT", start) == first
        other = backtest("ETHUSDT", start)
        assert [trade.price_open for trade in other] == [trade.price_open for trade in first]
        assert len(asked) == 2 * answers  # the other symbol has its own answers
    finally:
        clear_strategies()


def test_two_runs_at_once(settings, tmp_path):
    """Each runs in its own thread and registry, with the same names."""
    kit.setup(settings, mode="backtest", CC_DUMP_DIR=tmp_path / "one")
    other = kit.Registry()
    other.setup(stores=dict.fromkeys(other.slots, "memory"))
    fired, barrier = {}, threading.Barrier(2)

    @Interval.once("1h")
    def hourly(name):
        fired[name].append((current_time() - T0) // MINUTE)
        Session.update(lambda data: {"names": [*(data or {"names": []})["names"], name]})

    def story(registry, name):
        run, fired[name] = again(registry), []
        for minute in range(0, 300, 10):
            barrier.wait(60)
            with at(run, T0 + minute * MINUTE):
                hourly(name)
        with at(run, T0 + 5 * HOUR):
            fired[name].append(Session.get()["names"])

    try:
        threads = [threading.Thread(target=story, args=pair) for pair in ((default_registry, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        other.close()
    assert fired == {name: [0, 60, 120, 180, 240, [name] * 5] for name in "ab"}
