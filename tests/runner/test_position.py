"""Opening, touching, closing and profit, by hand-computed cases."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit_mongo import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner.engine.cost_basis import Costs, pnl_percentage
from backtest_kit_mongo.runner.engine.position import (
    Progress,
    find_exit,
    note_price,
    observe,
    open_position,
    read_signal,
)
from backtest_kit_mongo.runner.market.average_price import vwap

pytestmark = pytest.mark.once

MINUTE = 60_000
OPENED = 1677628800000
FREE = Costs(fee_percent=0, slippage_percent=0)

LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 10}
SHORT = {"position": "short", "priceTakeProfit": 90.0, "priceStopLoss": 105.0, "minuteEstimatedTime": 10}


def candle(minute=0, *, high=100.0, low=100.0, close=100.0, volume=1.0):
    return {"timestamp": OPENED + minute * MINUTE, "open": close, "high": high, "low": low, "close": close, "volume": volume}


def held(raw, price=100.0):
    return open_position("id", read_signal(raw, price), price, OPENED, 100.0)


# ---------------------------------------------------------------- price


def test_vwap_weighs_typical_prices_by_volume():
    candles = [candle(high=12, low=6, close=9, volume=1), candle(high=30, low=15, close=15, volume=3)]
    assert vwap(candles) == (9 * 1 + 20 * 3) / 4 == 17.25


def test_vwap_ignores_candles_without_volume_and_falls_back_to_closes_without_any():
    quiet = candle(high=1000, low=900, close=950, volume=0)
    assert vwap([quiet, candle(high=12, low=6, close=9, volume=2)]) == 9
    assert vwap([quiet, candle(close=50, volume=0)]) == 500


# ---------------------------------------------------------------- profit


@pytest.mark.parametrize(
    ("side", "close", "expected"),
    [
        # entry 100.1, leave 109.89: 9.79 / 100.1 = 9.780219780... % less 0.1 * (1 + 1.097802197...) %
        ("long", 110.0, 9.57043956043956),
        # entry 100.1, leave 94.905: -5.195 / 100.1 = -5.18981018... % less 0.1 * (1 + 0.948101898...) %
        ("long", 95.0, -5.384620379620379),
        # entry 99.9, leave 90.09: 9.81 / 99.9 = 9.819819819... % less 0.1 * (1 + 0.901801801...) %
        ("short", 90.0, 9.62963963963964),
        # entry 99.9, leave 105.105: -5.205 / 99.9 = -5.21021021... % less 0.1 * (1 + 1.052102102...) %
        ("short", 105.0, -5.415420420420420),
        # unmoved price: both slippages and both fees are lost
        ("long", 100.0, -0.3996003996003996),
    ],
)
def test_profit_after_fee_and_slippage_of_both_sides(side, close, expected):
    assert pnl_percentage(side, 100.0, close, Costs()) == pytest.approx(expected, rel=1e-12)


def test_profit_with_each_cost_alone():
    assert pnl_percentage("long", 100.0, 110.0, FREE) == pytest.approx(10)
    assert pnl_percentage("short", 100.0, 110.0, FREE) == pytest.approx(-10)
    # the fee applies to the value traded: 1 % of 100 in, 1 % of 110 out
    assert pnl_percentage("long", 100.0, 110.0, Costs(fee_percent=1, slippage_percent=0)) == pytest.approx(10 - 2.1)
    # 1 % slippage: buy at 101, sell at 108.9
    assert pnl_percentage("long", 100.0, 110.0, Costs(fee_percent=0, slippage_percent=1)) == pytest.approx(7.9 / 101 * 100)


prices = st.fractions(min_value=Fraction(1, 100), max_value=100_000, max_denominator=1000)


@given(prices, prices, st.sampled_from(["long", "short"]))
def test_profit_equals_the_cash_that_is_left(price_open, price_close, side):
    """The same result another way: exact cash flows of a position of one unit."""
    slip = fee = Fraction(1, 1000)
    entry = price_open * (1 + slip if side == "long" else 1 - slip)
    leave = price_close * (1 - slip if side == "long" else 1 + slip)
    cash = (leave - entry if side == "long" else entry - leave) - fee * entry - fee * leave
    assert pnl_percentage(side, float(price_open), float(price_close), Costs()) == pytest.approx(
        float(cash / entry * 100), rel=1e-9, abs=1e-9
    )


# ---------------------------------------------------------------- exits


@pytest.mark.parametrize(
    ("raw", "shape", "expected"),
    [
        (LONG, {"high": 109.99, "low": 95.01}, None),
        (LONG, {"high": 110.0}, ("take_profit", 110.0)),  # a touch is enough
        (LONG, {"high": 250.0}, ("take_profit", 110.0)),  # going beyond does not improve the price
        (LONG, {"low": 95.0}, ("stop_loss", 95.0)),
        (LONG, {"low": 1.0}, ("stop_loss", 95.0)),
        (LONG, {"high": 110.0, "low": 95.0}, ("stop_loss", 95.0)),  # both: the stop comes first
        (SHORT, {"high": 104.99, "low": 90.01}, None),
        (SHORT, {"low": 90.0}, ("take_profit", 90.0)),
        (SHORT, {"high": 105.0}, ("stop_loss", 105.0)),
        (SHORT, {"high": 105.0, "low": 90.0}, ("stop_loss", 105.0)),
    ],
)
def test_touches(raw, shape, expected):
    assert find_exit(held(raw), candle(**shape)) == expected


def test_time_exit_is_the_close_of_the_candle_in_which_the_time_ends():
    position = held(LONG)  # ten minutes
    assert find_exit(position, candle(8, close=101)) is None
    assert find_exit(position, candle(9, close=101)) == ("time_expired", 101.0)
    half = held({**LONG, "minuteEstimatedTime": 2.5})
    assert find_exit(half, candle(1, close=101)) is None
    assert find_exit(half, candle(2, close=101)) == ("time_expired", 101.0)


def test_a_touch_in_the_last_candle_wins_over_the_time():
    position = held(LONG)
    assert find_exit(position, candle(9, high=110, close=101)) == ("take_profit", 110.0)
    assert find_exit(position, candle(9, low=95, close=101)) == ("stop_loss", 95.0)


def test_without_end_there_is_no_time_exit():
    assert find_exit(held({**LONG, "minuteEstimatedTime": math.inf}), candle(10**7)) is None


# ---------------------------------------------------------------- progress


def test_levels_are_shares_of_the_way_to_target_and_stop():
    position = held(LONG)  # distance up 10, down 5
    assert observe(position, 100.99, OPENED + MINUTE, FREE) == Progress((), (), True)
    assert observe(position, 101.0, OPENED + 2 * MINUTE, FREE) == Progress((10,), (), False)
    assert observe(position, 100.5, OPENED + 3 * MINUTE, FREE) is None
    assert observe(position, 103.99, OPENED + 4 * MINUTE, FREE) == Progress((20, 30), (), False)
    assert observe(position, 103.99, OPENED + 5 * MINUTE, FREE) is None
    assert observe(position, 99.0, OPENED + 6 * MINUTE, FREE) == Progress((), (10, 20), False)
    assert observe(position, 200.0, OPENED + 7 * MINUTE, FREE) == Progress((40, 50, 60, 70, 80, 90, 100), (), False)
    assert position.profit_levels == list(range(10, 101, 10))
    assert position.loss_levels == [10, 20]
    assert (position.peak.price, position.peak.when_ms) == (200.0, OPENED + 7 * MINUTE)
    assert (position.fall.price, position.fall.when_ms) == (99.0, OPENED + 6 * MINUTE)


def test_levels_of_a_short_go_the_other_way():
    position = held(SHORT)  # distance down 10, up 5
    assert observe(position, 97.0, OPENED + MINUTE, FREE) == Progress((10, 20, 30), (), True)
    assert observe(position, 104.0, OPENED + 2 * MINUTE, FREE) == Progress((), (10, 20, 30, 40, 50, 60, 70, 80), False)
    assert (position.peak.price, position.fall.price) == (97.0, 104.0)


def test_a_level_that_is_met_exactly_counts_whatever_binary_fractions_make_of_it():
    position = open_position("id", read_signal({**LONG, "priceTakeProfit": 101.0, "priceStopLoss": 99.0}, 100.0), 100.0, OPENED, 100.0)
    assert abs(100.3 - 100.0) < 0.3  # so 29.99999... percent of the way, in doubles
    assert observe(position, 100.3, OPENED, Costs()) == Progress((10, 20, 30), (), False)


def test_breakeven_is_where_closing_would_lose_nothing():
    position = held(LONG)
    # Costs of about 0.4 percent: 100.40 does not cover them, 100.41 does.
    assert pnl_percentage("long", 100.0, 100.40, Costs()) < 0 < pnl_percentage("long", 100.0, 100.41, Costs())
    assert observe(position, 100.40, OPENED, Costs()) is None
    assert observe(position, 100.41, OPENED, Costs()) == Progress((), (), True)
    assert observe(position, 100.42, OPENED, Costs()) is None


def test_note_price_keeps_extremes_only():
    position = held(LONG)
    assert note_price(position, 100.0, OPENED + 1) is False
    assert note_price(position, 101.0, OPENED + 2) is True
    assert note_price(position, 99.5, OPENED + 3) is True
    assert note_price(position, 100.5, OPENED + 4) is False
    assert (position.peak.when_ms, position.fall.when_ms) == (OPENED + 2, OPENED + 3)


# ---------------------------------------------------------------- signals


def test_a_signal_may_hold_numbers_of_numpy_and_whole_numbers():
    signal = read_signal({**LONG, "priceTakeProfit": np.float32(110), "priceStopLoss": np.int64(95), "note": "why"}, 100.0)
    assert (signal.price_take_profit, signal.price_stop_loss, signal.note) == (110.0, 95.0, "why")
    assert type(signal.price_take_profit) is type(signal.price_stop_loss) is float


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        ("long", InvalidTypeError, "None or a dict, got str"),
        ([], InvalidTypeError, "None or a dict, got list"),
        ({}, InvalidValueError, "position is missing"),
        ({**LONG, "position": None}, InvalidValueError, "position is missing"),
        ({**LONG, "position": "buy"}, InvalidValueError, "position is 'buy'; it must be 'long' or 'short'"),
        ({**LONG, "position": ["long"]}, InvalidValueError, "it must be 'long' or 'short'"),
        (
            {key: LONG[key] for key in LONG if key != "minuteEstimatedTime"},
            InvalidValueError,
            "minuteEstimatedTime is missing(.|\n)*math.inf",
        ),
        ({**LONG, "minuteEstimatedTime": 0}, InvalidValueError, "minuteEstimatedTime is 0.0; it must be above 0"),
        ({**LONG, "minuteEstimatedTime": -5}, InvalidValueError, "must be above 0"),
        ({**LONG, "minuteEstimatedTime": math.nan}, InvalidValueError, "minuteEstimatedTime is nan"),
        ({**LONG, "minuteEstimatedTime": "60"}, InvalidTypeError, "minuteEstimatedTime must be a number, got str"),
        ({**LONG, "minuteEstimatedTime": True}, InvalidTypeError, "minuteEstimatedTime must be a number, got bool"),
        ({**LONG, "priceTakeProfit": math.inf}, InvalidValueError, "priceTakeProfit is inf; it must be a finite number above 0"),
        ({**LONG, "priceStopLoss": math.nan}, InvalidValueError, "priceStopLoss is nan"),
        ({**LONG, "priceStopLoss": 0}, InvalidValueError, "priceStopLoss is 0"),
        ({**LONG, "priceStopLoss": -95}, InvalidValueError, "priceStopLoss is -95"),
        (
            {**LONG, "priceTakeProfit": 100.0},
            InvalidValueError,
            "a long signal needs priceStopLoss < price < priceTakeProfit, got .* price 100.0",
        ),
        ({**LONG, "priceStopLoss": 100.0}, InvalidValueError, "a long signal needs"),
        ({**LONG, "priceTakeProfit": 95.0, "priceStopLoss": 110.0}, InvalidValueError, "a long signal needs"),
        ({**SHORT, "priceTakeProfit": 105.0, "priceStopLoss": 90.0}, InvalidValueError, "a short signal needs priceTakeProfit < price"),
        ({**SHORT, "priceStopLoss": 100.0}, InvalidValueError, "a short signal needs"),
        ({**LONG, "note": 5}, InvalidTypeError, "note must be a str, got int"),
        ({**LONG, "priceTakeProift": 1}, InvalidValueError, "no field 'priceTakeProift'(.|\n)*did you mean 'priceTakeProfit'"),
        ({**LONG, "price_stop_loss": 1}, InvalidValueError, "no field 'price_stop_loss'(.|\n)*did you mean 'priceStopLoss'"),
        ({**LONG, "leverage": 20}, InvalidValueError, "no field 'leverage'(.|\n)*its fields are position, "),
        ({**LONG, 5: 20}, InvalidValueError, "no field 5"),
    ],
)
def test_bad_signals_say_what_is_wrong(raw, error, message):
    with pytest.raises(error, match=message):
        read_signal(raw, 100.0)


@pytest.mark.parametrize(("raw", "limit"), [(LONG, 100.0), (LONG, 104.0), (SHORT, 100.0), (SHORT, 96.0)])
def test_a_limit_that_the_market_fulfils_is_a_market_entry(raw, limit):
    assert read_signal({**raw, "priceOpen": limit}, 100.0) == read_signal(raw, 100.0)


@pytest.mark.parametrize(("raw", "limit"), [(LONG, 99.99), (SHORT, 100.01)])
def test_a_limit_that_has_to_wait_is_kept(raw, limit):
    assert read_signal({**raw, "priceOpen": limit}, 100.0).price_open == limit
    # The limit is checked then, not the price: the market may be beyond the target while the signal waits.
    assert read_signal({**LONG, "priceOpen": 100.0}, 120.0).price_open == 100.0
    with pytest.raises(InvalidValueError, match=r"a short signal needs priceTakeProfit < priceOpen < priceStopLoss, got .*105.5"):
        read_signal({**SHORT, "priceOpen": 105.5}, 100.0)


def test_a_limit_of_none_is_no_limit_and_a_broken_one_is_an_error():
    assert read_signal({**LONG, "priceOpen": None, "note": None}, 100.0) == read_signal(LONG, 100.0)
    with pytest.raises(InvalidTypeError, match="priceOpen must be a number"):
        read_signal({**LONG, "priceOpen": "100"}, 100.0)
