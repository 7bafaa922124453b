"""get_candles: closed candles only, without gaps, of any interval, however the store is read."""

import numpy as np
import pytest
from hand_market import MINUTE, START, memory, use_memory  # noqa: F401 - memory is a fixture
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, PersistCandleAdapter
from backtest_kit_mongo.candles import CANDLE_DTYPE, INTERVAL_MS, to_dicts
from backtest_kit_mongo.runner import (
    OutsideRunError,
    StrategyError,
    add_strategy,
    clear_strategies,
    get_candles,
    run_backtest,
    synthetic_market,
)
from backtest_kit_mongo.runner.market.candle_history import CandleHistory

pytestmark = pytest.mark.once


def store(market, symbol="BTCUSDT", interval="1m", exchange="binance"):
    PersistCandleAdapter.write_candles_data(market, symbol, interval, exchange)


def seen_at(minute, ask, *, until=None):
    """Return what ``ask()`` returns to a strategy at ``minute``."""
    answers = []
    when_ms = START + minute * MINUTE

    def get_signal(symbol, when):
        if when.timestamp() * 1000 == when_ms:
            answers.append(ask())

    clear_strategies()
    add_strategy("ask", interval="1m", get_signal=get_signal)
    run_backtest("BTCUSDT", start_ms=START, end_ms=START + (until or minute + 1) * MINUTE)
    (answer,) = answers
    return answer


def oracle(market, interval, limit, now):
    """Return the same answer in the plainest way: of all complete, closed windows without a gap, the last ``limit``."""
    step = INTERVAL_MS[interval]
    by_stamp = {row["timestamp"]: row for row in market}
    result = []
    start = now // step * step - step
    while start >= 0 and len(result) < limit:
        stamps = range(start, start + step, MINUTE)
        if any(stamp not in by_stamp for stamp in stamps):
            break
        rows = [by_stamp[stamp] for stamp in stamps]
        result.insert(
            0,
            {
                "timestamp": start,
                "open": rows[0]["open"],
                "high": max(row["high"] for row in rows),
                "low": min(row["low"] for row in rows),
                "close": rows[-1]["close"],
                "volume": sum(float(row["volume"]) for row in rows),
            },
        )
        start -= step
    return result


MARKET = synthetic_market(5, 4000, START)


@pytest.mark.slow
@given(
    now=st.lists(st.integers(1, 4000), min_size=1, max_size=8).map(sorted),
    interval=st.sampled_from(list(INTERVAL_MS)),
    limits=st.lists(st.integers(1, 2500), min_size=8, max_size=8),
    hole=st.none() | st.integers(0, 3999),
)
@settings(max_examples=75, deadline=None)
def test_any_sequence_of_questions_is_answered_as_by_the_oracle(now, interval, limits, hole):
    market = MARKET if hole is None else np.delete(MARKET, hole)
    use_memory()
    store(market)
    history = CandleHistory("binance", START + 4000 * MINUTE)
    for minute, limit in zip(now, limits, strict=False):
        when = START + minute * MINUTE
        if minute - 1 == hole:
            if interval == "1m":
                for closed in (history.closed, history.closed_array):
                    with pytest.raises(InvalidValueError, match="is not stored"):
                        closed("BTCUSDT", interval, limit, when)
            continue
        expected = oracle(market, interval, limit, when)
        assert history.closed("BTCUSDT", interval, limit, when) == expected
        assert to_dicts(history.closed_array("BTCUSDT", interval, limit, when)) == expected


@pytest.mark.parametrize("stored", ["5m", "1h"])
def test_a_stored_interval_is_read_as_it_is(stored):
    """Its values are the exchange's own: here they are marked, so that aggregated ones would differ."""
    step = INTERVAL_MS[stored]
    own = np.zeros(100, CANDLE_DTYPE)
    own["timestamp"] = START + step * np.arange(100)
    for column in ("open", "high", "low", "close", "volume"):
        own[column] = 7.0
    store(MARKET)
    store(own, interval=stored)
    answer = seen_at(6 * 60 + 3, lambda: get_candles("BTCUSDT", stored, 3))
    assert [candle["close"] for candle in answer] == [7.0, 7.0, 7.0]
    newest = (START + (6 * 60 + 3) * MINUTE) // step * step - step
    assert [candle["timestamp"] for candle in answer] == [newest - 2 * step, newest - step, newest]


def test_candles_are_copies():
    store(MARKET)

    def ask():
        spoiled = get_candles("BTCUSDT", "1m", 5)
        for candle in spoiled:
            candle["close"] = -1
        spoiled.clear()
        return get_candles("BTCUSDT", "1m", 5)

    assert seen_at(50, ask) == oracle(MARKET, "1m", 5, START + 50 * MINUTE)


@pytest.mark.parametrize("interval", ["1m", "15m"])
def test_an_array_is_a_copy_of_the_same_candles(interval):
    """Whatever a strategy does to it, the next question and what is stored stay as they were."""
    store(MARKET)

    def ask():
        spoiled = get_candles("BTCUSDT", interval, 5, as_array=True)
        assert spoiled.dtype == CANDLE_DTYPE
        spoiled["close"] = -1
        return to_dicts(get_candles("BTCUSDT", interval, 5, as_array=True)), get_candles("BTCUSDT", interval, 5)

    array, dicts = seen_at(90, ask)
    assert array == dicts == oracle(MARKET, interval, 5, START + 90 * MINUTE)
    stored = PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 4000, START)
    assert (stored == MARKET).all()


def test_both_forms_choose_the_same_source_of_an_interval():
    """Once a run has aggregated an interval, candles of it that are stored later are not mixed in, in either form."""
    store(MARKET)
    own = np.zeros(20, CANDLE_DTYPE)
    own["timestamp"] = START + INTERVAL_MS["1h"] * np.arange(20)
    history = CandleHistory("binance", START + 4000 * MINUTE)
    when = START + 300 * MINUTE
    before = history.closed("BTCUSDT", "1h", 3, when)
    store(own, interval="1h")
    assert to_dicts(history.closed_array("BTCUSDT", "1h", 3, when)) == before
    assert to_dicts(history.beside().closed_array("BTCUSDT", "1h", 3, when)) == to_dicts(own[2:5])


def test_an_array_of_no_candles_and_errors_are_those_of_a_list():
    store(MARKET)
    empty = seen_at(12, lambda: get_candles("BTCUSDT", "15m", 50, as_array=True))
    assert (len(empty), empty.dtype) == (0, CANDLE_DTYPE)
    messages = []
    for as_array in (False, True):
        with pytest.raises(StrategyError, match="is not stored") as caught:
            seen_at(50, lambda as_array=as_array: get_candles("XRPUSDT", "5m", 10, as_array=as_array))
        messages.append(str(caught.value.__cause__))
    assert messages[0] == messages[1]


def test_arrays_of_a_class_of_your_own_that_returns_dicts():
    class Own(kit.PersistCandleInstance):
        def read_candles_data(self, limit, since_timestamp, until_timestamp):
            return super().read_candles_data(limit, since_timestamp, until_timestamp)

    store(MARKET)
    PersistCandleAdapter.use_persist_candle_adapter(Own)
    answer = seen_at(400, lambda: get_candles("BTCUSDT", "1h", 5, as_array=True))
    assert to_dicts(answer) == oracle(MARKET, "1h", 5, START + 400 * MINUTE)


def test_the_beginning_of_history_gives_fewer():
    store(MARKET)
    assert len(seen_at(12, lambda: get_candles("BTCUSDT", "1m", 50))) == 12
    assert len(seen_at(12, lambda: get_candles("BTCUSDT", "5m", 50))) == 2
    assert seen_at(12, lambda: get_candles("BTCUSDT", "15m", 50)) == []


def test_history_before_the_window_is_used():
    store(synthetic_market(5, 3000, START - 3000 * MINUTE))
    store(MARKET)
    assert len(seen_at(12, lambda: get_candles("BTCUSDT", "1m", 2900))) == 2900
    assert len(seen_at(12, lambda: get_candles("BTCUSDT", "1h", 49))) == 49


def test_other_symbols_and_their_holes():
    store(MARKET)
    store(np.delete(MARKET, slice(100, 200)), "ETHUSDT")
    assert len(seen_at(90, lambda: get_candles("ETHUSDT", "1m", 10))) == 10
    assert len(seen_at(205, lambda: get_candles("ETHUSDT", "1m", 10))) == 5
    with pytest.raises(
        StrategyError, match=r"the 1m candle of ETHUSDT on binance that closes at 2023-03-01T02:30:00Z is not stored(.|\n)*import"
    ):
        seen_at(150, lambda: get_candles("ETHUSDT", "1m", 10))
    with pytest.raises(StrategyError, match=r"5m candle of XRPUSDT .* is not stored"):
        seen_at(150, lambda: get_candles("XRPUSDT", "5m", 10))


def test_a_hole_that_opens_during_the_run_is_not_papered_over():
    """The strategy asks all the time, so the series is in memory when the gap comes."""
    store(MARKET)
    store(np.delete(MARKET, slice(100, 200)), "ETHUSDT")
    lengths = {}

    def get_signal(symbol, when):
        minute = int(when.timestamp() * 1000 - START) // MINUTE
        if 100 < minute <= 200:
            with pytest.raises(InvalidValueError, match="ETHUSDT"):
                get_candles("ETHUSDT", "1m", 10)
        else:
            lengths[minute] = len(get_candles("ETHUSDT", "1m", 10))

    add_strategy("ask", interval="1m", get_signal=get_signal)
    run_backtest("BTCUSDT", start_ms=START, end_ms=START + 230 * MINUTE)
    assert [lengths[minute] for minute in (50, 100, 201, 205, 210, 229)] == [10, 10, 1, 5, 10, 10]


def test_candles_that_end_before_the_run_does_are_read_to_their_end():
    store(MARKET)
    store(MARKET[:1500], "ETHUSDT")
    assert len(seen_at(1500, lambda: get_candles("ETHUSDT", "1m", 700), until=4000)) == 700
    history = CandleHistory("binance", START + 4000 * MINUTE)
    kit.reset_stats()
    for minute in range(1, 1501):
        assert len(history.closed("ETHUSDT", "1m", 3, START + minute * MINUTE)) == min(minute, 3)
    # One block ahead, then one candle at a time, without trying for a block each time.
    assert kit.stats()["candle"]["operations"]["read"]["count"] < 520


def test_exchanges_do_not_mix():
    store(MARKET)
    other = MARKET.copy()
    other["close"] = other["high"]
    store(other, exchange="kraken")
    assert seen_at(50, lambda: get_candles("BTCUSDT", "1m", 5)) == oracle(MARKET, "1m", 5, START + 50 * MINUTE)


def test_memory_stays_bounded():
    history = CandleHistory("binance", START + 4000 * MINUTE)
    store(MARKET)
    for minute in range(5, 4001):
        history.closed("BTCUSDT", "1m", 5, START + minute * MINUTE)
        history.closed_array("BTCUSDT", "1m", 5, START + minute * MINUTE)
    for held in (history._dicts, history._arrays):
        assert sum(len(series._rows) for series in held.stored.values()) <= 2000 + 5 + 1000


def test_questions_during_a_run_are_answered_from_memory():
    store(MARKET)
    add_strategy(
        "ask",
        interval="1m",
        get_signal=lambda symbol, when: get_candles(symbol, "1m", 100)[:0] or get_candles(symbol, "5m", 20)[:0] or None,
    )
    kit.reset_stats()
    result = run_backtest("BTCUSDT", start_ms=START, end_ms=START + 4000 * MINUTE)
    assert result.signals_asked == 3995
    # Four blocks to check the window, four for the run, and the searches for the beginning of history.
    assert result.stats["candle"]["operations"]["read"]["count"] < 40


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, "1m", 1), InvalidTypeError, "get_candles: symbol must be a str"),
        (("BTCUSDT", "7m", 1), InvalidValueError, "unknown interval '7m'"),
        (("BTCUSDT", 5, 1), InvalidTypeError, "interval must be a str"),
        (("BTCUSDT", "1m", 0), InvalidValueError, "limit is 0"),
        (("BTCUSDT", "1m", 2.0), InvalidTypeError, "limit must be an int, got float"),
        (("BTCUSDT", "1m", True), InvalidTypeError, "limit must be an int, got bool"),
    ],
)
def test_bad_questions_are_named(arguments, error, message):
    store(MARKET)
    with pytest.raises(StrategyError, match=message) as caught:
        seen_at(50, lambda: get_candles(*arguments))
    assert isinstance(caught.value.__cause__, error)


def test_outside_a_run_there_is_no_time_to_answer_for():
    with pytest.raises(OutsideRunError, match=r"get_candles was called outside a run(.|\n)*add_strategy"):
        get_candles("BTCUSDT", "1m", 1)
