"""The library against a plain client (redis-py and pymongo as anyone would write it), in one run: ``make bench``."""

from __future__ import annotations

import itertools

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistCandleAdapter, PersistSignalAdapter

ROW = {
    "id": "7f0c2a4e-6f0e-4d1e-9c58-0d8f3a1b2c3d",
    "position": "long",
    "priceOpen": 23144.78,
    "priceTakeProfit": 23500.0,
    "priceStopLoss": 22900.0,
    "minuteEstimatedTime": 240,
    "cost": 100,
    "exchangeName": "binance",
    "strategyName": "sma_cross",
    "frameName": "",
    "scheduledAt": 1677628800000,
    "pendingAt": 1677628800000,
    "symbol": "BTCUSDT",
    "timestamp": 1677628800000,
    "_isScheduled": False,
    "_peak": {"price": 23152.49, "timestamp": 1677628860000},
    "_fall": {"price": 23115.12, "timestamp": 1677628920000},
    "note": "sma 9 above sma 21",
}
CONTEXT = ("BTCUSDT", "sma_cross", "binance")
MANY = [("BTCUSDT", f"sma_cross_{number}", "binance") for number in range(1000)]
MINUTE = 60_000
START = 1_677_628_800_000


def test_single_hit(duel, plain):
    PersistSignalAdapter.write_signal_data(ROW, *CONTEXT)
    assert plain.read_signal(*CONTEXT) == PersistSignalAdapter.read_signal_data(*CONTEXT) == ROW
    duel(
        "single hit, id known to the process", lambda: PersistSignalAdapter.read_signal_data(*CONTEXT), lambda: plain.read_signal(*CONTEXT)
    )


def test_single_hit_through_redis(duel, plain):
    PersistSignalAdapter.write_signal_data(ROW, *CONTEXT)

    def ours():
        PersistSignalAdapter.clear()  # the ids of this process, so that the read asks Redis
        PersistSignalAdapter.read_signal_data(*CONTEXT)

    duel("single hit, id from Redis", ours, lambda: plain.read_signal(*CONTEXT))


def test_single_update(duel, plain):
    ours = lambda: PersistSignalAdapter.write_signal_data(ROW, *CONTEXT)  # noqa: E731
    ours()
    duel("single write, update", ours, lambda: plain.write_signal(ROW, *CONTEXT))


def test_single_insert(duel, plain):
    kit.wait_for_init()
    numbers = itertools.count()
    duel(
        "single write, insert",
        lambda: PersistSignalAdapter.write_signal_data(ROW, "BTCUSDT", f"ours-{next(numbers)}", "binance"),
        lambda: plain.write_signal(ROW, "BTCUSDT", f"plain-{next(numbers)}", "binance"),
    )


def test_read_many(duel, plain):
    PersistSignalAdapter.write_many([(ROW, *context) for context in MANY])
    assert PersistSignalAdapter.read_many(MANY) == [ROW] * len(MANY)
    duel(
        "read_many of 1,000",
        lambda: PersistSignalAdapter.read_many(MANY),
        lambda: [plain.read_signal(*context) for context in MANY],
        calls=1,
    )


def test_write_many(duel, plain):
    items = [(ROW, *context) for context in MANY]
    duel(
        "write_many of 1,000",
        lambda: PersistSignalAdapter.write_many(items),
        lambda: [plain.write_signal(ROW, *context) for context in MANY],
        calls=1,
    )


def test_candle_window(duel, plain):
    candles = [
        {"timestamp": START + i * MINUTE, "open": 1.5 + i, "high": 2.5 + i, "low": 0.5 + i, "close": 2.0 + i, "volume": 3.25}
        for i in range(1000)
    ]
    PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance")
    window = ("BTCUSDT", "1m", "binance", 1000, START, START + 1000 * MINUTE)
    assert PersistCandleAdapter.read_candles_data(*window) == candles
    assert plain.read_window("BTCUSDT", "1m", "binance", START, 1000, MINUTE) == candles
    duel(
        "window of 1,000 candles",
        lambda: PersistCandleAdapter.read_candles_data(*window),
        lambda: plain.read_window("BTCUSDT", "1m", "binance", START, 1000, MINUTE),
        calls=5,
    )
