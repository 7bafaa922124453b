"""Scalars of NumPy and pandas as arguments: taken as the Python values that they stand for, everywhere alike."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas
import pytest
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo import arguments
from backtest_kit_mongo.errors import BacktestKitError, InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import (
    BadSignalError,
    RunOptions,
    add_frame,
    add_risk,
    add_strategy,
    clear_frames,
    clear_risks,
    clear_strategies,
    find_frame,
    find_gaps,
    get_average_price,
    get_candles,
    get_raw_candles,
    import_candles,
    imported_spans,
    list_candles,
    remove_candles,
    run_backtest,
    run_backtests,
    synthetic_market,
)

pytestmark = pytest.mark.once

MARKET = synthetic_market(1, 600, START)
CLOSE = pandas.Series(MARKET["close"])
TEXT = np.str_("BTCUSDT")


@pytest.fixture(autouse=True)
def nothing_registered():
    yield
    for clear in (clear_strategies, clear_frames, clear_risks):
        clear()


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("call", "value", "plain"),
    [
        (arguments.text, np.str_("a"), "a"),
        (arguments.whole_number, np.int64(5), 5),
        (arguments.whole_number, np.uint8(5), 5),
        (arguments.number, np.float32(0.5), 0.5),
        (arguments.number, np.int16(3), 3.0),
        (arguments.number, Decimal("1.5"), 1.5),
        (arguments.number, Fraction(3, 2), 1.5),
        (arguments.number, CLOSE.iloc[-1], float(MARKET["close"][-1])),
    ],
)
def test_a_scalar_is_the_value_that_it_stands_for(call, value, plain):
    taken = call("x", value)
    assert taken == plain
    assert type(taken) is type(plain)


@pytest.mark.parametrize(
    ("call", "value", "words"),
    [
        (arguments.text, np.int64(1), "x must be a str, got numpy.int64"),
        (arguments.text, pandas.NaT, "x must be a str, got NaT"),
        (arguments.whole_number, np.float64(5), "x must be an int, got numpy.float64"),
        (arguments.whole_number, np.bool_(True), "x must be an int, got numpy.bool"),
        (arguments.whole_number, True, "x must be an int, got bool"),
        (arguments.whole_number, pandas.NA, "x must be an int, got <NA>"),
        (arguments.whole_number, float("nan"), "x must be an int, got nan"),
        (arguments.number, pandas.NaT, "x must be a number, got NaT"),
        (arguments.number, "5", "x must be a number, got str"),
        (arguments.number, CLOSE, "x must be a number, got Series\n.*series.iloc"),
        (arguments.number, np.array([1.0]), "x must be a number, got ndarray"),
        (arguments.number, None, "x must be a number, got NoneType"),
        (arguments.number, 10**400, "x is 1000.*too large for a double"),
    ],
)
def test_what_is_no_such_scalar_is_refused_by_name(call, value, words):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=words):
        call("x", value)


# ---------------------------------------------------------------- the runner


def test_a_run_with_scalars_is_that_with_plain_values(mongo):
    import_candles(MARKET, TEXT, np.str_("1m"), np.str_("x"))
    assert imported_spans(TEXT, np.str_("1m"), np.str_("x")) == ((START, START + 600 * MINUTE),)
    seen = []

    def signal(symbol, when):
        seen.append((symbol, type(symbol)))
        assert get_candles(TEXT, np.str_("1m"), np.int64(5)) == get_candles("BTCUSDT", "1m", 5)
        assert get_raw_candles(TEXT, "1m", np.int32(3), np.int64(START)) == get_raw_candles("BTCUSDT", "1m", 3, START)
        assert get_average_price(TEXT) == get_average_price("BTCUSDT")
        return {
            "position": np.str_("long"),
            "priceTakeProfit": np.float32(CLOSE.max() * 1.1),
            "priceStopLoss": CLOSE.min() * 0.9,
            "minuteEstimatedTime": np.int64(30),
            "note": TEXT,
        }

    add_risk(np.str_("r"), max_positions=np.int64(1))
    add_strategy(np.str_("s"), np.str_("1m"), get_signal=signal, risk_name=np.str_("r"))
    bounds = {"start_ms": np.int64(START + 300 * MINUTE), "end_ms": np.int64(START + 500 * MINUTE)}
    costs = {"fee_percent": np.float32(0.5), "slippage_percent": np.float64(0.25), "stake_usd": np.int64(100)}
    options = RunOptions(exchange_name=np.str_("x"), frame_name=np.str_("f"), **bounds, **costs)
    assert options == RunOptions(
        exchange_name="x",
        frame_name="f",
        start_ms=START + 300 * MINUTE,
        end_ms=START + 500 * MINUTE,
        fee_percent=0.5,
        slippage_percent=0.25,
        stake_usd=100.0,
    )
    assert [type(getattr(options, name)) for name in options.__struct_fields__] == [str, str, int, int, float, float, float, str, str]
    result = run_backtest(TEXT, np.str_("s"), options=options)
    assert result.totals.trades > 0
    assert set(seen) == {("BTCUSDT", str)}
    (results, failed) = run_backtests(np.array(["BTCUSDT"]), np.array(["s"]), options=options)
    assert not failed
    assert results[0].totals == result.totals
    assert [(series.symbol, series.candles) for series in list_candles(symbol=TEXT)] == [("BTCUSDT", 600)]
    assert remove_candles(TEXT, np.str_("1m"), np.str_("x"), np.int64(START), np.int64(START + MINUTE)) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"priceTakeProfit": CLOSE}, "priceTakeProfit must be a number, got Series"),
        ({"position": CLOSE}, "position is"),
        ({"priceStopLoss": pandas.NA}, "priceStopLoss must be a number, got <NA>"),
        ({"minuteEstimatedTime": pandas.NaT}, "minuteEstimatedTime must be a number, got NaT"),
        ({"note": np.float64(1)}, "note must be a str, got numpy.float64"),
    ],
)
def test_a_signal_of_a_whole_series_says_so(mongo, change, words):
    import_candles(MARKET, "BTCUSDT")
    price = float(MARKET["close"][-1])
    row = {"position": "long", "priceTakeProfit": price * 2, "priceStopLoss": price / 2, "minuteEstimatedTime": 5, **change}
    add_strategy("s", "1m", get_signal=lambda symbol, when: row)
    with pytest.raises(BadSignalError, match=words):
        run_backtest("BTCUSDT", "s")


def test_frames_of_pandas_and_numpy():
    for number, (start, end) in enumerate(
        [
            (pandas.Timestamp("2023-03-01", tz="UTC"), pandas.Timestamp("2023-03-02")),
            (np.datetime64("2023-03-01"), np.datetime64("2023-03-02T00:00:00.000")),
            (np.int64(START), np.int64(START + 1440 * MINUTE)),
            (np.str_("2023-03-01"), "2023-03-02"),
        ]
    ):
        add_frame(f"f{number}", start, end)
        assert (find_frame(f"f{number}").start_ms, find_frame(f"f{number}").end_ms) == (START, START + 1440 * MINUTE)
    for bad in (pandas.NaT, np.datetime64("NaT"), float("nan")):
        with pytest.raises(InvalidTypeError, match=r"start must be a datetime, ISO text or ms since 1970, got (NaT|nan)"):
            add_frame("bad", bad, np.int64(START))
    with pytest.raises(InvalidTypeError, match=r"start_ms must be an int .*, got NaT"):
        RunOptions(start_ms=pandas.NaT)
    assert len(synthetic_market(np.int64(1), np.int64(10), np.int64(START), np.float32(5))) == 10
    assert find_gaps(MARKET, np.str_("1m")) == ()


# ---------------------------------------------------------------- the contracts


@pytest.mark.parametrize("store", ["mongo", "file", "memory"])
def test_keys_and_times_of_the_contracts(store, mongo, tmp_path):
    kit.setup(mongo, CC_DUMP_DIR=str(tmp_path), stores=dict.fromkeys(("state", "storage", "recent", "memory"), store))
    kit.PersistStateAdapter.write_state_data({"id": "x", "data": {"n": np.int64(3)}}, TEXT, np.str_("b"), np.int64(START))
    assert kit.PersistStateAdapter.read_state_data("BTCUSDT", "b") == {"id": "x", "data": {"n": 3}}
    assert kit.PersistStateAdapter.read_state_data(TEXT, np.str_("b")) == {"id": "x", "data": {"n": 3}}
    many = kit.PersistStateAdapter.read_many([("BTCUSDT", "b"), (TEXT, np.str_("b")), ("none", "b")])
    assert [row and row["data"] for row in many] == [{"n": 3}, {"n": 3}, None]
    kit.PersistStorageAdapter.write_storage_data([{"id": TEXT}], np.bool_(True))
    assert kit.PersistStorageAdapter.read_storage_data(np.bool_(True)) == kit.PersistStorageAdapter.read_storage_data(True) != []
    assert len(kit.records("state", {"signalId": TEXT}, limit=np.int64(3))) == 1
    for when, words in ((pandas.NaT, "when is NaT, not a time"), (np.datetime64("2023-03-01"), "NumPy times have no zone")):
        with pytest.raises(BacktestKitError, match=words):
            kit.PersistStateAdapter.write_state_data({"id": "x", "data": {}}, "s", "b", when)
    with pytest.raises(InvalidValueError, match="NaT is not a time"):
        kit.PersistStateAdapter.write_state_data({"id": "x", "data": {"at": pandas.NaT}}, "s", "b", START)
    with pytest.raises(InvalidTypeError, match="backtest must be a bool, got int"):
        kit.PersistStorageAdapter.read_storage_data(1)
    kit.PersistCandleAdapter.write_candles_data(MARKET[:5], TEXT, np.str_("1m"), np.str_("y"))
    assert len(kit.PersistCandleAdapter.read_candles_array(TEXT, np.str_("1m"), np.str_("y"), np.int64(5), np.int64(START))) == 5
    with pytest.raises(InvalidTypeError, match=r"candle: limit must be an int, got numpy.float64"):
        kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "y", np.float64(5), START)


def test_settings(mongo):
    kit.setup(mongo, CC_CANDLE_MEMORY_MB=np.int64(3), CC_REDIS_HOST=np.str_("localhost"), CC_REDIS_PORT=np.int32(6379))
    config = kit.get_config()
    assert (config.CC_CANDLE_MEMORY_MB, config.CC_REDIS_PORT) == (3, 6379)
