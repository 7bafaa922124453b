"""The replay: entries and exits on handmade markets, no look-ahead, the same trades every time."""

import math
import os
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hand_market import MINUTE, START, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import EXAMPLE

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.candles import CANDLE_DTYPE, INTERVAL_MS
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    BadSignalError,
    OutsideRunError,
    StrategyError,
    add_strategy,
    clear_strategies,
    get_average_price,
    get_candles,
    import_candles,
    load_strategy_file,
    result_json,
    run_backtest,
    synthetic_market,
)
from backtest_kit_mongo.runner.current_run import current_run

pytestmark = pytest.mark.once


def once_at(minute, signal, asked=None):
    """Register a strategy that returns ``signal`` at one minute after START and None otherwise."""

    def get_signal(symbol, when):
        if asked is not None:
            asked.append((int(when.timestamp() * 1000) - START) // MINUTE)
        return signal if when == at(minute) else None

    return add_strategy("hand", interval="5m", get_signal=get_signal)


def at(minute):
    return datetime.fromtimestamp((START + minute * MINUTE) / 1000, UTC)


def replay(market, **options):
    import_candles(market, "BTCUSDT")
    return run_backtest("BTCUSDT", **options)


LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60}
SHORT = {"position": "short", "priceTakeProfit": 90.0, "priceStopLoss": 105.0, "minuteEstimatedTime": 60}


# ---------------------------------------------------------------- exits


@pytest.mark.parametrize(
    ("signal", "shape", "reason", "price", "pnl"),
    [
        (LONG, {"high": 110.0}, "take_profit", 110.0, 9.57043956043956),
        (LONG, {"low": 95.0}, "stop_loss", 95.0, -5.384620379620379),
        (LONG, {"high": 111.0, "low": 94.0}, "stop_loss", 95.0, -5.384620379620379),
        (SHORT, {"low": 90.0}, "take_profit", 90.0, 9.62963963963964),
        (SHORT, {"high": 105.0}, "stop_loss", 105.0, -5.415420420420420),
        (SHORT, {"high": 106.0, "low": 89.0}, "stop_loss", 105.0, -5.415420420420420),
    ],
)
@pytest.mark.parametrize("touched", [10, 11, 37])  # the first candle after the entry at minute 10, the second, a later one
def test_a_touch_closes_at_its_price(signal, shape, reason, price, pnl, touched):
    market = flat(100)
    for column, value in shape.items():
        market[column][touched] = value
    once_at(10, signal)
    (trade,) = replay(market).trades
    assert (trade.close_reason, trade.price_open, trade.price_close) == (reason, 100.0, price)
    assert trade.open_timestamp == START + 10 * MINUTE
    assert trade.close_timestamp == START + (touched + 1) * MINUTE
    assert trade.pnl_percentage == pytest.approx(pnl, rel=1e-12)
    assert (trade.symbol, trade.strategy_name, trade.position) == ("BTCUSDT", "hand", signal["position"])


@pytest.mark.parametrize("signal", [LONG, SHORT])
def test_candles_before_the_entry_touch_nothing(signal):
    market = flat(100)
    market["high"][9], market["low"][9] = 1000.0, 1.0  # the candle that closes at the entry itself
    market["volume"][9] = 0.0  # so that it does not move the price either
    once_at(10, signal)
    (trade,) = replay(market).trades
    assert (trade.price_open, trade.close_reason) == (100.0, "time_expired")


@pytest.mark.parametrize(("minutes", "candle"), [(1, 10), (20, 29), (20.5, 30), (0.25, 10)])
@pytest.mark.parametrize(("signal", "pnl"), [(LONG, 1.598202), (SHORT, -2.404602)])
def test_time_exit_at_the_close_of_the_candle_in_which_the_time_ends(signal, pnl, minutes, candle):
    market = flat(100)
    market["close"][candle] = market["high"][candle] = 102.0
    once_at(10, {**signal, "minuteEstimatedTime": minutes})
    (trade,) = replay(market).trades
    assert (trade.close_reason, trade.price_close) == ("time_expired", 102.0)
    assert trade.close_timestamp == START + (candle + 1) * MINUTE
    # long: 102 * 0.999 / 100.1 = 1.0179620..., less 1 and 0.1 * 2.0179620 %; short: 1 - 102 * 1.001 / 99.9 and its fees
    ratio = 102 * 0.999 / 100.1 if signal is LONG else 102 * 1.001 / 99.9
    move = ratio - 1 if signal is LONG else 1 - ratio
    assert trade.pnl_percentage == pytest.approx(move * 100 - 0.1 * (1 + ratio), rel=1e-9)
    assert trade.pnl_percentage == pytest.approx(pnl, abs=5e-3)


def test_without_time_limit_a_position_may_outlive_the_window():
    once_at(10, {**LONG, "minuteEstimatedTime": math.inf})
    market = flat(3000)
    market["close"][-1] = market["high"][-1] = market["low"][-1] = 101.0
    result = replay(market)
    assert result.trades == ()
    assert result.totals.trades == 0
    left = result.open_trade
    assert (left.price_open, left.open_timestamp, left.position) == (100.0, START + 10 * MINUTE, "long")
    assert left.current_price == pytest.approx(100.2)  # four candles of 100 and one of 101
    assert left.pnl_percentage == pytest.approx(-0.2 + 0.0002, abs=1e-3)
    assert kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "hand", "binance")["id"] == left.id


def test_the_entry_price_is_the_volume_weighted_price_of_the_last_five_closed_candles():
    market = flat(100)
    # At minute 10 those are the candles 5 to 9; candle 4 and candle 10 must not count.
    for minute, (high, low, close, volume) in enumerate(
        [
            (500, 500, 500, 50),
            (101, 99, 100, 1),
            (102, 100, 101, 2),
            (103, 101, 102, 3),
            (104, 102, 103, 4),
            (105, 103, 104, 5),
            (101, 99, 100, 99),
        ],
        start=4,
    ):
        market["high"][minute], market["low"][minute], market["close"][minute], market["volume"][minute] = high, low, close, volume
    once_at(10, LONG)
    (trade,) = replay(market).trades
    assert trade.price_open == pytest.approx((100 * 1 + 101 * 2 + 102 * 3 + 103 * 4 + 104 * 5) / 15, rel=1e-15)


def test_fee_and_slippage_are_settings():
    once_at(10, LONG)
    market = flat(100)
    market["high"][20] = 110.0
    assert replay(market, fee_percent=0, slippage_percent=0).trades[0].pnl_percentage == pytest.approx(10)
    assert replay(market, fee_percent=0.5, slippage_percent=0).trades[0].pnl_percentage == pytest.approx(10 - 0.5 * 2.1)
    assert replay(market, fee_percent=0, slippage_percent=1).trades[0].pnl_percentage == pytest.approx(7.9 / 101 * 100)


# ---------------------------------------------------------------- when a strategy is asked


@pytest.mark.parametrize("interval", list(INTERVAL_MS))
def test_an_idle_strategy_is_asked_at_every_multiple_of_its_interval(interval):
    asked = []
    step = INTERVAL_MS[interval]
    minutes = 3 * step // MINUTE + 7
    add_strategy("idle", interval=interval, get_signal=lambda symbol, when: asked.append((symbol, when)))
    result = replay(flat(minutes))
    # From the fifth closed candle on, as the price needs five, and not at the very end of the window.
    expected = [when for when in range(START + MINUTE, START + minutes * MINUTE, MINUTE) if when % step == 0 and when >= START + 5 * MINUTE]
    assert asked == [("BTCUSDT", datetime.fromtimestamp(when / 1000, UTC)) for when in expected]
    assert result.signals_asked == len(asked) >= 3
    assert (result.minutes, result.trades) == (minutes, ())


def test_intervals_lie_on_the_clock_not_on_the_start_of_the_window():
    asked = []
    once_at(-1, None, asked)
    replay(flat(60), start_ms=START + 13 * MINUTE, end_ms=START + 31 * MINUTE)
    assert asked == [15, 20, 25, 30]  # candles before the window determine the price of minute 15


@pytest.mark.parametrize(("touched", "next_asked"), [(10, 15), (13, 15), (14, 20), (15, 20)])
def test_after_a_close_the_strategy_is_asked_at_the_next_interval(touched, next_asked):
    """Candle 14 closes at minute 15: an exit there has the time 15, and the next interval after it is 20."""
    asked = []
    market = flat(40)
    market["high"][touched] = 110.0
    once_at(10, LONG, asked)
    (trade,) = replay(market).trades
    assert trade.close_timestamp == START + (touched + 1) * MINUTE
    assert asked == [5, 10, *range(next_asked, 40, 5)]


def test_one_position_at_a_time_and_the_next_signal_opens_the_next_trade():
    add_strategy("eager", interval="1m", get_signal=lambda symbol, when: {**LONG, "minuteEstimatedTime": 3})
    trades = replay(flat(30)).trades
    opened = [(trade.open_timestamp - START) // MINUTE for trade in trades]
    closed = [(trade.close_timestamp - START) // MINUTE for trade in trades]
    assert opened == [5, 9, 13, 17, 21, 25]
    assert closed == [8, 12, 16, 20, 24, 28]
    assert len({trade.id for trade in trades}) == 6


# ---------------------------------------------------------------- no look-ahead


def poisoned(market, minute):
    """Return the same market up to ``minute``, and an absurd one from there on."""
    market = market.copy()
    for column in ("open", "high", "low", "close"):
        market[column][minute:] = 1e9
    market["volume"][minute:] = 1e9
    return market


def watch(market, seen, *, stored=()):
    """Run a strategy that records all that it can see; candles of the ``stored`` intervals are in the store as well."""
    use_memory()
    clear_strategies()

    @add_strategy("watch", interval="1m")
    def get_signal(symbol, when):
        view = {interval: get_candles(symbol, interval, 7) for interval in ("1m", "3m", "5m", "15m")}
        for interval, candles in view.items():
            assert all(candle["timestamp"] + INTERVAL_MS[interval] <= when.timestamp() * 1000 for candle in candles)
        seen.append((when, view))
        return (
            {"position": "long", "priceTakeProfit": 1e12, "priceStopLoss": 1e-9, "minuteEstimatedTime": 4}
            if when.minute % 11 == 0
            else None
        )

    for interval in stored:
        width = INTERVAL_MS[interval] // MINUTE
        groups = market[: len(market) // width * width].reshape(-1, width)
        bars = np.empty(len(groups), CANDLE_DTYPE)
        bars["timestamp"], bars["open"], bars["close"] = groups["timestamp"][:, 0], groups["open"][:, 0], groups["close"][:, -1]
        bars["high"], bars["low"], bars["volume"] = groups["high"].max(axis=1), groups["low"].min(axis=1), groups["volume"].sum(axis=1)
        import_candles(bars, "BTCUSDT", interval)
    return replay(market)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [(), ("5m",), ("3m", "15m")])
@given(minute=st.integers(min_value=6, max_value=129))
@settings(max_examples=15, deadline=None)
def test_a_strategy_never_sees_the_future(stored, minute):
    market = synthetic_market(11, 130, START)
    plain, shifted = [], []
    one, other = watch(market, plain, stored=stored), watch(poisoned(market, minute), shifted, stored=stored)
    limit = at(minute)
    assert [entry for entry in plain if entry[0] <= limit] == [entry for entry in shifted if entry[0] <= limit]
    before = START + minute * MINUTE
    assert [trade for trade in one.trades if trade.close_timestamp <= before] == [
        trade for trade in other.trades if trade.close_timestamp <= before
    ]
    assert plain
    # The absurd prices are visible once their time has come.
    assert any(candle["close"] == 1e9 for when, view in shifted if when > limit for candle in view["1m"]) == (minute < 129)


def test_the_entry_price_does_not_know_the_next_candle():
    market = flat(100)
    once_at(10, LONG)
    clean = replay(market)
    use_memory()
    wild = market.copy()
    wild["high"][10:], wild["low"][10:], wild["volume"][10:] = 109.0, 96.0, 1e6
    (trade,) = replay(wild).trades
    assert trade.price_open == clean.trades[0].price_open == 100.0


# ---------------------------------------------------------------- against a plain reference


def reference(market, step, signals):
    """Do the documented execution as plainly as possible; return (open ms, entry, close ms, exit, reason) of each trade."""
    trades = []
    index, last = 0, len(market) - 1
    while index < last:
        when = int(market["timestamp"][index]) + MINUTE
        signal = signals.get(when) if when % step == 0 and index >= 4 else None
        if signal is None:
            index += 1
            continue
        five = market[index - 4 : index + 1]
        typical = (five["high"] + five["low"] + five["close"]) / 3
        entry = float((typical * five["volume"]).sum() / five["volume"].sum())
        long = signal["position"] == "long"
        end = when + signal["minuteEstimatedTime"] * MINUTE
        index += 1
        while index <= last:
            candle = market[index]
            closed = int(candle["timestamp"]) + MINUTE
            stop, target = signal["priceStopLoss"], signal["priceTakeProfit"]
            if candle["low"] <= stop <= candle["high"] or (candle["high"] < stop if long else candle["low"] > stop):
                trades.append((when, entry, closed, stop, "stop_loss"))
            elif candle["low"] <= target <= candle["high"] or (candle["low"] > target if long else candle["high"] < target):
                trades.append((when, entry, closed, target, "take_profit"))
            elif closed >= end:
                trades.append((when, entry, closed, float(candle["close"]), "time_expired"))
            else:
                index += 1
                continue
            break
        index += 1
    return trades


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    interval=st.sampled_from(["1m", "3m", "5m", "15m"]),
    far=st.floats(0.05, 1.5),
    near=st.floats(0.05, 1.5),
    minutes=st.one_of(st.integers(1, 200), st.floats(0.5, 200), st.just(math.inf)),
    every=st.integers(1, 7),
)
@settings(max_examples=30, deadline=None)
def test_execution_is_that_of_the_reference(seed, interval, far, near, minutes, every):
    market = synthetic_market(seed, 1500, START)
    step = INTERVAL_MS[interval]
    signals = {}
    for number, when in enumerate(range(START + step, START + 1500 * MINUTE, step)):
        if number % every == 0 and when >= START + 5 * MINUTE:
            side = 1 if (number // every) % 2 else -1
            # Around the price of the coming entry, so that the signal is valid.
            five = market[(when - START) // MINUTE - 5 : (when - START) // MINUTE]
            price = float(np.average((five["high"] + five["low"] + five["close"]) / 3, weights=five["volume"]))
            signals[when] = {
                "position": "long" if side == 1 else "short",
                "priceTakeProfit": price * (1 + side * far / 100),
                "priceStopLoss": price * (1 - side * near / 100),
                "minuteEstimatedTime": minutes,
            }
    use_memory()
    clear_strategies()
    add_strategy("hand", interval=interval, get_signal=lambda symbol, when: signals.get(round(when.timestamp() * 1000)))
    trades = replay(market).trades
    expected = reference(market, step, signals)
    assert [(t.open_timestamp, t.close_timestamp, t.price_close, t.close_reason) for t in trades] == [
        (e[0], e[2], e[3], e[4]) for e in expected
    ]
    assert [t.price_open for t in trades] == pytest.approx([e[1] for e in expected], rel=1e-12)


# ---------------------------------------------------------------- the same trades every time


def trades_json(result):
    return msgspec.json.encode([result.trades, result.totals, result.open_trade])


def test_two_runs_over_the_same_data_give_the_same_trades_byte_for_byte():
    load_strategy_file(EXAMPLE)
    market = synthetic_market(7, 6000, START)
    first = replay(market)
    again = run_backtest("BTCUSDT")  # in the database that holds the records of the first run
    use_memory()
    fresh = replay(market)
    assert first.totals.trades > 5
    assert trades_json(first) == trades_json(again) == trades_json(fresh)


def test_processes_with_other_hash_seeds_and_time_zones_give_the_same_trades():
    script = f"""
import msgspec, sys
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import *
for domain in DOMAINS.values():
    adapter_of(domain).use_memory()
load_strategy_file({str(EXAMPLE)!r})
import_candles(synthetic_market(7, 6000, {START}), "BTCUSDT")
sys.stdout.buffer.write(msgspec.json.encode(run_backtest("BTCUSDT").trades))
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "America/New_York"))
    ]
    assert outputs[0] == outputs[1]
    assert len(msgspec.json.decode(outputs[0])) > 5


def test_signal_ids_follow_from_strategy_symbol_and_time():
    market = flat(100)
    once_at(10, LONG)
    (trade,) = replay(market).trades
    clear_strategies()
    add_strategy("other", interval="5m", get_signal=lambda symbol, when: LONG if when == at(10) else None)
    other_strategy = run_backtest("BTCUSDT").trades[0].id
    import_candles(market, "ETHUSDT")
    other_symbol = run_backtest("ETHUSDT").trades[0].id
    other_frame = run_backtest("ETHUSDT", frame_name="march").trades[0].id
    import_candles(market, "ETHUSDT", exchange_name="kraken")
    other_exchange = run_backtest("ETHUSDT", exchange_name="kraken").trades[0].id
    assert len({trade.id, other_strategy, other_symbol, other_frame, other_exchange}) == 5


def test_a_run_cut_into_blocks_is_the_same_as_a_run_in_one(monkeypatch):
    load_strategy_file(EXAMPLE)
    market = synthetic_market(9, 5000, START)
    whole = replay(market)
    for block in (1, 7, 333):
        use_memory()
        monkeypatch.setattr("backtest_kit_mongo.runner.backtest.replay.BLOCK", block)
        monkeypatch.setattr("backtest_kit_mongo.runner.market.candle_history.BLOCK", block)
        assert trades_json(replay(market)) == trades_json(whole)


def test_reading_is_done_in_blocks():
    once_at(10, LONG)
    import_candles(flat(5000), "BTCUSDT")
    kit.reset_stats()
    result = run_backtest("BTCUSDT")
    # Five blocks, the search for candles before the window, and a read of what follows the import.
    assert result.stats["candle"]["operations"]["read"]["count"] <= 9
    assert result.stats["signal"]["writes"] == 2


# ---------------------------------------------------------------- totals


def test_totals_add_up():
    """+10, -5, -5, +10 percent without costs, then a time exit at 0."""
    market = flat(80)
    market["high"][10] = market["high"][40] = 110.0
    market["low"][20] = market["low"][30] = 95.0
    add_strategy(
        "hand", interval="5m", get_signal=lambda symbol, when: {**LONG, "minuteEstimatedTime": 30} if when.minute % 10 == 0 else None
    )
    totals = replay(market, fee_percent=0, slippage_percent=0).totals
    assert (totals.trades, totals.wins, totals.losses, totals.win_rate) == (5, 2, 3, 40.0)
    assert (totals.take_profits, totals.stop_losses, totals.time_exits) == (2, 2, 1)
    assert totals.pnl_percentage == pytest.approx(10)
    assert totals.average_pnl_percentage == pytest.approx(2)
    assert totals.best_pnl_percentage == pytest.approx(10)
    assert totals.worst_pnl_percentage == pytest.approx(-5)
    assert totals.max_drawdown_percentage == pytest.approx(10)


def test_drawdown_counts_from_zero_and_nothing_traded_is_all_zero():
    market = flat(40)
    market["low"][20] = 95.0
    once_at(10, LONG)
    assert replay(market, fee_percent=0, slippage_percent=0).totals.max_drawdown_percentage == pytest.approx(5)
    clear_strategies()
    once_at(-1, None)
    totals = run_backtest("BTCUSDT").totals
    assert set(msgspec.structs.asdict(totals).values()) == {0}


def test_progress_and_result_say_what_was_replayed():
    once_at(10, LONG)
    seen = []
    result = replay(flat(2500), progress=lambda *call: seen.append(call))
    assert seen == [(1000, 2500), (2000, 2500), (2500, 2500)]
    assert (result.minutes, result.start_ms, result.end_ms) == (2500, START, START + 2500 * MINUTE)
    assert (result.symbol, result.strategy_name, result.exchange_name, result.frame_name) == ("BTCUSDT", "hand", "binance", "backtest")
    assert result.wall_seconds > 0
    assert set(result.stats) == set(DOMAINS)


def test_trades_encode_with_the_documented_names():
    once_at(10, LONG)
    (trade,) = msgspec.to_builtins(replay(flat(100)).trades)
    assert list(trade) == [
        "id", "symbol", "strategyName", "position", "priceOpen", "priceClose", "openTimestamp", "closeTimestamp", "closeReason",
        "pnlPercentage", "entries", "partials", "stakes",
    ]  # fmt: skip


def test_the_example_trades_and_importing_it_only_registers():
    kit.reset_stats()
    (strategy,) = load_strategy_file(EXAMPLE)
    assert (strategy.name, strategy.interval) == ("sma_cross", "5m")
    assert not any(row["reads"] or row["writes"] for row in kit.stats().values())
    totals = replay(synthetic_market(7, 20_000, START)).totals
    assert totals.take_profits > 3
    assert totals.stop_losses > 3
    assert totals.trades > 20


# ---------------------------------------------------------------- what is rejected


def test_a_strategy_that_raises_is_named_with_symbol_time_and_line():
    def get_signal(symbol, when):
        if when < at(15):
            return None
        return 1 // 0

    add_strategy("broken", interval="5m", get_signal=get_signal)
    with pytest.raises(StrategyError) as caught:
        replay(flat(60))
    line = get_signal.__code__.co_firstlineno + 3
    assert str(caught.value) == (
        f"strategy 'broken' on BTCUSDT at 2023-03-01T00:15:00Z "
        f"raised ZeroDivisionError: integer division or modulo by zero ({__file__}:{line})"
    )
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert not isinstance(caught.value, BadSignalError)


def test_a_bad_signal_is_named_with_strategy_symbol_and_time():
    once_at(10, {**LONG, "priceTakeProfit": "90"})
    with pytest.raises(
        BadSignalError, match=r"strategy 'hand' on BTCUSDT at 2023-03-01T00:10:00Z returned an invalid signal: the signal's priceTakeProfit"
    ):
        replay(flat(60))
    assert issubclass(BadSignalError, ValueError)


@pytest.mark.parametrize(
    ("signal", "kind"),
    [
        ({**LONG, "priceTakeProfit": 90}, "long, priceTakeProfit below price"),
        ({**LONG, "priceTakeProfit": 100}, "long, priceTakeProfit below price"),
        ({**LONG, "priceStopLoss": 101}, "long, priceStopLoss above price"),
        ({**LONG, "priceStopLoss": 120, "priceTakeProfit": 90}, "long, priceStopLoss above price and priceTakeProfit below price"),
        ({**SHORT, "priceTakeProfit": 101}, "short, priceTakeProfit above price"),
        ({**SHORT, "priceStopLoss": 99}, "short, priceStopLoss below price"),
        ({**LONG, "priceOpen": 94}, "long, priceStopLoss above priceOpen"),
    ],
)
def test_a_signal_that_does_not_fit_the_price_is_ignored_and_counted(signal, kind, caplog):
    """As in the TypeScript framework, it is logged once, and the run continues."""
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: signal if when < at(20) else LONG)
    result = replay(flat(60))
    assert result.signals_ignored == {kind: 3}  # at minutes 5, 10 and 15
    assert result.complete
    assert result.open_trade.open_timestamp == START + 20 * MINUTE
    told = [row for row in kit.PersistNotificationAdapter.read_notification_data(True) if row["type"] == "error.validation"]
    assert len(told) == 3
    logged = [row for row in kit.PersistLogAdapter.read_log_data() if row["topic"] == "signal.ignored"]
    assert [row["timestamp"] for row in logged] == [START + 5 * MINUTE]
    assert len([record for record in caplog.records if "signal ignored" in record.getMessage()]) == 1


def test_the_average_price_is_the_one_at_which_a_signal_opens():
    seen = []

    def get_signal(symbol, when):
        seen.append(get_average_price(symbol))
        return {**LONG, "priceTakeProfit": seen[-1] * 1.5, "priceStopLoss": seen[-1] * 0.5}

    add_strategy("hand", interval="5m", get_signal=get_signal)
    result = replay(synthetic_market(3, 60, START))
    assert result.open_trade.price_open == seen[0]
    with pytest.raises(OutsideRunError):
        get_average_price("BTCUSDT")


def test_an_average_price_needs_five_candles():
    def get_signal(symbol, when):
        get_average_price("OTHER")

    add_strategy("hand", interval="5m", get_signal=get_signal)
    import_candles(flat(60)[7:], "OTHER")
    with pytest.raises(StrategyError, match=r"get_average_price\('OTHER'\) needs 5 closed 1m candles, but only 3 are stored"):
        replay(flat(60), start_ms=START + 5 * MINUTE)


def raises_from(minute):
    def get_signal(symbol, when):
        if when >= at(minute):
            raise KeyError("price")
        return {**LONG, "minuteEstimatedTime": 3}

    add_strategy("hand", interval="5m", get_signal=get_signal)


def test_errors_of_the_strategy_can_be_skipped(caplog):
    raises_from(20)
    result = replay(flat(60), on_error="skip")
    assert (result.complete, result.error, result.errors_skipped) == (True, None, 8)  # at 20, 25, ..., 55
    assert len(result.trades) == 3
    assert len([record for record in caplog.records if "KeyError" in record.getMessage()]) == 1  # all of them are in Notification
    assert len([row for row in kit.PersistNotificationAdapter.read_notification_data(True) if row["type"] == "error.info"]) == 8
    with pytest.raises(InvalidValueError, match="'stop' or 'skip'"):
        run_backtest("BTCUSDT", on_error="never")


def test_an_error_that_ends_a_run_holds_what_the_run_had_reached():
    raises_from(20)
    with pytest.raises(StrategyError) as caught:
        replay(flat(60))
    (result,) = caught.value.results
    assert not result.complete
    assert result.error == str(caught.value)
    assert (result.end_ms, result.minutes) == (START + 19 * MINUTE, 19)
    assert len(result.trades) == 3
    assert result.totals.trades == 3
    content = msgspec.json.decode(result_json(result, [caught.value]))
    assert content["runs"][0]["complete"] is False
    assert content["failed"] == [str(caught.value)]


def test_a_run_whose_server_goes_away_holds_what_it_had_reached():
    def get_signal(symbol, when):
        if when >= at(20):
            raise kit.ServerUnavailableError("gone")
        return {**LONG, "minuteEstimatedTime": 3}

    add_strategy("hand", interval="5m", get_signal=get_signal)
    with pytest.raises(kit.ServerUnavailableError) as caught:
        replay(flat(60))
    (result,) = caught.value.results
    assert (result.complete, result.minutes, len(result.trades), result.error) == (False, 19, 3, "gone")


def test_a_dead_server_is_not_the_fault_of_the_strategy():
    def get_signal(symbol, when):
        raise kit.ServerUnavailableError("gone")

    add_strategy("hand", interval="5m", get_signal=get_signal)
    with pytest.raises(kit.ServerUnavailableError, match=r"^gone$"):
        replay(flat(60))


def test_after_an_error_there_is_no_simulation_time_left():
    add_strategy("broken", interval="5m", get_signal=lambda symbol, when: 1 // 0)
    with pytest.raises(StrategyError):
        replay(flat(60))
    with pytest.raises(OutsideRunError, match="outside a run"):
        get_candles("BTCUSDT", "1m", 1)
    assert current_run() is None


def test_a_window_over_a_hole_is_refused_before_anything_is_written():
    market = np.delete(flat(3000), slice(2100, 2110))
    once_at(10, LONG)
    import_candles(market, "BTCUSDT")
    with pytest.raises(
        InvalidValueError, match=r"have gaps .2023-03-02T11:00:00Z to 2023-03-02T11:10:00Z.*(.|\n)*choose start_ms and end_ms inside"
    ):
        run_backtest("BTCUSDT")
    with pytest.raises(InvalidValueError, match="1m candle of BTCUSDT on binance at 2023-03-02T11:00:00Z is not stored"):
        run_backtest("BTCUSDT", start_ms=START, end_ms=START + 3000 * MINUTE)
    assert kit.PersistLogAdapter.read_log_data() == []
    assert kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True) is None
    # It runs next to the gap, and half a window is completed from the import.
    assert run_backtest("BTCUSDT", end_ms=START + 2100 * MINUTE).minutes == 2100
    assert run_backtest("BTCUSDT", start_ms=START).minutes == 2100
    assert run_backtest("BTCUSDT", start_ms=START + 2110 * MINUTE).minutes == 890


def test_a_window_beyond_the_candles_names_the_first_that_is_missing():
    once_at(10, LONG)
    import_candles(flat(1500), "BTCUSDT")
    with pytest.raises(InvalidValueError, match="at 2023-03-02T01:00:00Z is not stored"):
        run_backtest("BTCUSDT", start_ms=START, end_ms=START + 9000 * MINUTE)
    with pytest.raises(InvalidValueError, match="at 2023-02-28T23:50:00Z is not stored"):
        run_backtest("BTCUSDT", start_ms=START - 10 * MINUTE, end_ms=START + 100 * MINUTE)
    with pytest.raises(InvalidValueError, match=r"outside the imported candles(.|\n)*2023-03-01T00:00:00Z to 2023-03-02T01:00:00Z"):
        run_backtest("BTCUSDT", start_ms=START - MINUTE)


def test_candles_of_another_writer_need_no_import_but_a_window():
    kit.PersistCandleAdapter.write_candles_data(flat(100), "BTCUSDT", "1m", "binance")
    once_at(10, LONG)
    with pytest.raises(InvalidValueError, match=r"no candles of BTCUSDT 1m on binance have been imported(.|\n)*start_ms and end_ms"):
        run_backtest("BTCUSDT")
    assert run_backtest("BTCUSDT", start_ms=START, end_ms=START + 100 * MINUTE).totals.trades == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start_ms": START + 1}, InvalidValueError, "start_ms is 1677628800001"),
        ({"end_ms": START + 0.5}, InvalidTypeError, "end_ms must be an int"),
        ({"start_ms": datetime(2023, 3, 1, tzinfo=UTC)}, InvalidTypeError, "start_ms must be an int"),
        ({"start_ms": START + MINUTE, "end_ms": START + MINUTE}, InvalidValueError, "window is empty"),
        ({"fee_percent": -1}, InvalidValueError, "fee_percent is -1"),
        ({"fee_percent": math.nan}, InvalidValueError, "fee_percent is nan"),
        ({"slippage_percent": 100}, InvalidValueError, "slippage_percent is 100"),
        ({"slippage_percent": "0.1"}, InvalidTypeError, "slippage_percent must be a number"),
        ({"stake_usd": math.inf}, InvalidValueError, "stake_usd is inf"),
        ({"frame_name": ""}, InvalidValueError, "frame_name is ''"),
        ({"exchange_name": 5}, InvalidTypeError, "exchange_name must be a str"),
        ({"strategy_name": "none"}, InvalidValueError, "no strategy 'none' is registered(.|\n)*'hand'"),
    ],
)
def test_bad_arguments_are_named(options, error, message):
    once_at(10, LONG)
    import_candles(flat(60), "BTCUSDT")
    with pytest.raises(error, match=message):
        run_backtest("BTCUSDT", **options)
    assert kit.PersistLogAdapter.read_log_data() == []


def test_which_strategy_must_be_clear():
    import_candles(flat(60), "BTCUSDT")
    with pytest.raises(InvalidValueError, match="no strategy is registered"):
        run_backtest("BTCUSDT")
    for name in ("one", "two"):
        add_strategy(name, get_signal=lambda symbol, when: None)
    with pytest.raises(InvalidValueError, match="2 strategies are registered; name one of them: 'one', 'two'"):
        run_backtest("BTCUSDT")
    assert run_backtest("BTCUSDT", "two").strategy_name == "two"
