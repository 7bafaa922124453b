"""Several backtests on one clock: each runs as if it were alone, except for the risk limits that they share."""

import threading
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture
from paths import EXAMPLE

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, payloads
from backtest_kit_mongo.runner import (
    Session,
    StrategyError,
    add_risk,
    add_strategy,
    get_candles,
    import_candles,
    load_strategy_file,
    run_backtest,
    run_backtests,
    synthetic_market,
)
from backtest_kit_mongo.runner.clock import current_time_ms
from backtest_kit_mongo.runner.current_run import current_run
from backtest_kit_mongo.simulation import current_time

pytestmark = pytest.mark.once

SYMBOLS = ["AAA", "BBB", "CCC"]
LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60}


def at(minute):
    return datetime.fromtimestamp((START + minute * MINUTE) / 1000, UTC)


def markets(minutes=3000):
    for seed, symbol in enumerate(SYMBOLS):
        import_candles(synthetic_market(seed, minutes, START), symbol)


def flat_markets(*symbols, minutes=200):
    for symbol in symbols:
        import_candles(flat(minutes), symbol)


@pytest.mark.parametrize("block", [None, 7])
def test_each_run_is_the_same_as_alone(block, monkeypatch):
    """Two strategies on three symbols with different windows match each run alone."""
    if block is not None:
        monkeypatch.setattr("backtest_kit_mongo.runner.backtest.replay.BLOCK", block)
        monkeypatch.setattr("backtest_kit_mongo.runner.market.candle_history.BLOCK", block)
    load_strategy_file(EXAMPLE)

    @add_strategy("counting", interval="15m")
    def counting(symbol, when):
        """Counts its calls, and reads the candles of another symbol."""
        count = Session.update(lambda count: (count or 0) + 1)
        last = get_candles("AAA", "1m", 3)[-1]
        price = get_candles(symbol, "1m", 1)[0]["close"]
        assert last["timestamp"] + MINUTE == current_time_ms("test")
        return {**LONG, "priceTakeProfit": price * 1.004, "priceStopLoss": price * 0.996} if count % 5 == 0 else None

    for seed, (symbol, minutes) in enumerate(zip(SYMBOLS, (3000, 2100, 2999), strict=True)):
        import_candles(synthetic_market(seed, minutes, START), symbol)
    names = ["sma_cross", "counting"]
    alone = [run_backtest(symbol, name) for symbol in SYMBOLS for name in names]
    together, failed = run_backtests(SYMBOLS, names)
    assert failed == []
    assert all(result.trades for result in alone)
    for one, other in zip(alone, together, strict=True):
        same = ("symbol", "strategy_name", "start_ms", "end_ms", "minutes", "signals_asked", "open_trade", "totals")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        assert msgspec.json.encode(one.trades) == msgspec.json.encode(other.trades)


def test_minutes_happen_in_all_runs_before_the_next_one():
    seen = []
    for name in ("one", "two"):
        add_strategy(name, interval="5m", get_signal=lambda symbol, when, name=name: seen.append((when, symbol, name)))
    flat_markets("AAA", "BBB", minutes=2005)
    run_backtests(["BBB", "AAA"], ["two", "one"])
    assert seen == [(at(minute), symbol, name) for minute in range(5, 2005, 5) for symbol in ("BBB", "AAA") for name in ("two", "one")]


def test_a_risk_limit_counts_the_positions_of_all_runs():
    add_risk("all", max_positions=2)
    opened = []
    add_strategy(
        "hand", interval="5m", risk_name="all",
        get_signal=lambda symbol, when: LONG if when in (at(10), at(75)) else None,
        on_open=lambda event: opened.append((event.symbol, event.when)),
    )  # fmt: skip
    flat_markets(*SYMBOLS)
    results, _ = run_backtests(SYMBOLS)
    # The third run finds the first two open; all three have ended by minute 75, and the order decides again.
    assert [len(result.trades) for result in results] == [2, 2, 0]
    assert opened == [("AAA", at(10)), ("BBB", at(10)), ("AAA", at(75)), ("BBB", at(75))]
    told = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    refused = [(note.symbol, note.active_position_count) for note in told if note.type == "risk.rejection"]
    assert refused == [("CCC", 2), ("CCC", 2)]
    assert kit.PersistRiskAdapter.read_position_data("all", "binance", START) == []
    assert len(run_backtest("CCC").trades) == 2  # alone, nothing else is open


def test_the_risk_record_holds_what_all_runs_have_open():
    add_risk("all", max_positions=5)
    seen = []

    def look(event):
        seen.append([key for key, _ in kit.PersistRiskAdapter.read_position_data("all", "binance", START)])

    add_strategy(
        "hand", interval="5m", risk_name="all", get_signal=lambda symbol, when: LONG if when == at(10) else None,
        on_open=look, on_close=look,
    )  # fmt: skip
    flat_markets("AAA", "BBB")
    run_backtests(["AAA", "BBB"])
    assert [len(keys) for keys in seen] == [1, 2, 1, 0]


def test_a_strategy_that_raises_ends_its_own_runs_only():
    @add_strategy("faulty", interval="5m")
    def faulty(symbol, when):
        if symbol == "BBB" and when == at(80):
            raise KeyError("price")
        return LONG if when == at(10) else None

    flat_markets(*SYMBOLS)
    results, failed = run_backtests(SYMBOLS)
    assert [result.symbol for result in results] == ["AAA", "CCC"]
    assert [result.minutes for result in results] == [200, 200]
    (error,) = failed
    assert isinstance(error, StrategyError)
    assert "faulty" in str(error)
    assert "BBB" in str(error)
    told = kit.PersistNotificationAdapter.read_notification_data(True)
    assert ["BBB" in note["message"] for note in told if note["type"] == "error.critical"] == [True]
    assert kit.PersistSessionAdapter.read_session_data("faulty", "binance", "backtest", "BBB", True)["data"]["status"] == "failed"
    assert kit.PersistSessionAdapter.read_session_data("faulty", "binance", "backtest", "CCC", True)["data"]["status"] == "finished"


def test_a_failed_run_holds_no_slot():
    add_risk("all", max_positions=1)

    def ping(event):
        if event.symbol == "AAA" and event.when == at(30):
            raise ValueError("no")

    add_strategy(
        "faulty", interval="5m", risk_name="all", on_active_ping=ping,
        get_signal=lambda symbol, when: LONG if when == at({"AAA": 10, "BBB": 40}[symbol]) else None,
    )  # fmt: skip
    flat_markets("AAA", "BBB")
    results, failed = run_backtests(["AAA", "BBB"])
    assert len(failed) == 1
    assert len(results[0].trades) == 1


def test_a_hole_in_one_symbol_ends_its_own_run_only():
    add_strategy("quiet", interval="5m", get_signal=lambda symbol, when: None)
    import_candles(flat(200), "AAA")
    market = flat(200)
    import_candles(market[[index for index in range(200) if index != 100]], "BBB")
    results, failed = run_backtests(["AAA", "BBB", "ZZZ"], start_ms=START, end_ms=START + 200 * MINUTE)
    assert [result.symbol for result in results] == ["AAA"]
    assert ["BBB" in str(failed[0]), "ZZZ" in str(failed[1])] == [True, True]
    assert all(isinstance(error, InvalidValueError) for error in failed)


def test_all_runs_stop_in_the_same_minute():
    stop = threading.Event()

    @add_strategy("stopping", interval="5m")
    def stopping(symbol, when):
        if symbol == "AAA" and when == at(1500):
            stop.set()

    flat_markets("AAA", "BBB", minutes=3000)
    results, failed = run_backtests(["AAA", "BBB"], stop=stop)
    assert failed == []
    assert [result.minutes for result in results] == [1500, 1500]
    assert kit.PersistSessionAdapter.read_session_data("stopping", "binance", "backtest", "BBB", True)["data"]["status"] == "stopped"


def test_progress_counts_the_minutes_of_all_runs():
    @add_strategy("faulty", interval="5m")
    def faulty(symbol, when):
        if symbol == "BBB":
            raise KeyError("price")

    import_candles(flat(2500), "AAA")
    import_candles(flat(1200), "BBB")
    moved = []
    run_backtests(["AAA", "BBB"], progress=lambda done, total: moved.append((done, total)))
    assert moved == [(1004, 3700), (2004, 3700), (2504, 3700)]  # the failing run gets as far as minute 4


@pytest.mark.parametrize(("symbols", "names"), [([], [None]), (["AAA"], [])])
def test_nothing_to_run_is_said(symbols, names):
    add_strategy("quiet", interval="5m", get_signal=lambda symbol, when: None)
    with pytest.raises(InvalidValueError, match="nothing to run"):
        run_backtests(symbols, names)


def test_a_pair_that_is_named_twice_runs_once():
    add_strategy("quiet", interval="5m", get_signal=lambda symbol, when: None)
    flat_markets("AAA")
    assert len(run_backtests(["AAA", "AAA"], ["quiet", None])[0]) == 1


def test_candles_that_several_strategies_look_at_are_read_once():
    for name in ("one", "two", "three"):
        add_strategy(name, interval="5m", get_signal=lambda symbol, when: get_candles("AAA", "1m", 20) and None)
    flat_markets("AAA", minutes=3000)
    kit.reset_stats()
    run_backtests(["AAA"], ["one"])
    alone = kit.stats()["candle"]["operations"]["read"]["count"]
    kit.reset_stats()
    run_backtests(["AAA"], ["one", "two", "three"])
    assert kit.stats()["candle"]["operations"]["read"]["count"] == alone


def unset():
    """Return whether nothing of a run is left in this context."""
    return current_time() is None and current_run() is None


@pytest.mark.parametrize("faulty", SYMBOLS)
def test_a_failed_run_leaves_nothing_to_the_others(faulty):
    """Whichever run fails, the others still read candles and the time, and the caller's context is clean afterwards."""

    @add_strategy("reading", interval="5m")
    def reading(symbol, when):
        last = get_candles(symbol, "1m", 1)[0]
        assert last["timestamp"] + MINUTE == current_time_ms("test") == when.timestamp() * 1000
        if symbol == faulty and when == at(40):
            raise KeyError("price")

    flat_markets(*SYMBOLS, minutes=2500)
    results, failed = run_backtests(SYMBOLS)
    assert [result.symbol for result in results] == [symbol for symbol in SYMBOLS if symbol != faulty]
    assert ["KeyError" in str(error) for error in failed] == [True]
    assert unset()


def test_a_run_that_has_failed_is_over():
    """It ends long before the end of its window."""
    asked = []

    @add_strategy("faulty", interval="5m")
    def faulty(symbol, when):
        asked.append(when)
        if when == at(40):
            raise KeyError("price")

    flat_markets("AAA", minutes=5000)
    with pytest.raises(StrategyError, match="KeyError"):
        run_backtest("AAA")
    assert asked == [at(minute) for minute in range(5, 45, 5)]
    assert unset()
    asked.clear()
    flat_markets("BBB", minutes=5000)
    assert [len(trades) for trades in run_backtests(["AAA", "BBB"])] == [0, 2]
    assert len(asked) == 16


def test_a_run_whose_window_has_ended_holds_no_slot():
    add_risk("all", max_positions=1)
    add_strategy(
        "hand", interval="5m", risk_name="all",
        get_signal=lambda symbol, when: {**LONG, "minuteEstimatedTime": 6000} if when >= at(10) else None,
    )  # fmt: skip
    import_candles(flat(61), "AAA")
    import_candles(flat(2000), "BBB")
    results, _ = run_backtests(["AAA", "BBB"])
    assert [result.open_trade.open_timestamp for result in results] == [START + 10 * MINUTE, START + 65 * MINUTE]
    assert kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "AAA", True)["data"]["status"] == "finished"


def test_windows_that_do_not_meet():
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when.minute == 10 else None)
    import_candles(flat(200), "AAA")
    later = flat(200)
    later["timestamp"] += 5003 * MINUTE
    import_candles(later, "BBB")
    together, _ = run_backtests(["AAA", "BBB"])
    assert [result.trades for result in together] == [run_backtest(symbol).trades for symbol in ("AAA", "BBB")]
    assert [result.minutes for result in together] == [200, 200]


def test_each_run_finds_for_itself_whether_an_interval_is_stored():
    """Hours are stored from the third on, and differ from aggregated minutes: a run that asks earlier aggregates minutes."""
    seen = {}
    for name, first in (("early", 60), ("late", 240)):
        add_strategy(
            name, interval="1h",
            get_signal=lambda symbol, when, name=name, first=first: (when >= at(first)
            and seen.setdefault(name, []).append(get_candles("AAA", "1h", 1)[0]["close"]))
            or None,
        )  # fmt: skip
    flat_markets("AAA", minutes=600)
    hours = flat(8, 123.0)
    hours["timestamp"] = START + np.arange(2, 10) * 60 * MINUTE
    import_candles(hours, "AAA", "1h")
    alone = {}
    for name in ("early", "late"):
        run_backtest("AAA", name)
        alone[name] = seen.pop(name)
    run_backtests(["AAA"], ["early", "late"])
    assert seen == alone
    assert set(alone["late"]) == {123.0}


@pytest.mark.parametrize("arguments", [("AAA",), (["AAA"], "hand")])
def test_a_name_is_no_list_of_names(arguments):
    with pytest.raises(InvalidTypeError, match="must be a list of names"):
        run_backtests(*arguments)


def test_a_class_of_the_users_gives_candles_as_they_are():
    """This includes fields that only the class knows, over more than one block."""
    seen = []

    class Candles:
        """Candles with one more field."""

        def __init__(self, *context):
            pass

        def read_candles_data(self, limit, since_timestamp, until_timestamp):
            if since_timestamp < START or since_timestamp + limit * MINUTE > START + 3000 * MINUTE:
                return None
            assert limit <= 1000
            row = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0, "trades": 7}
            return [{"timestamp": since_timestamp + index * MINUTE, **row} for index in range(limit)]

        def write_candles_data(self, candles):
            raise AssertionError

    kit.PersistCandleAdapter.use_persist_candle_adapter(Candles)
    add_strategy("looking", interval="5m", get_signal=lambda symbol, when: seen.append(get_candles(symbol, "1m", 1)[0].get("trades")))
    run_backtest("AAA", start_ms=START, end_ms=START + 3000 * MINUTE)
    assert set(seen) == {7}
