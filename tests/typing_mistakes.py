"""Mistakes of users. Never run: mypy and pyright must report every line that ends in ``# wrong``, and no other line.

``tests/project/test_types.py`` runs both.
"""

from __future__ import annotations

from datetime import datetime

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistCandleAdapter, Registry, Settings, aio
from backtest_kit_mongo.runner import (
    Interval,
    Measure,
    RunOptions,
    SignalDict,
    add_exchange,
    add_strategy,
    create_signal,
    get_candles,
    import_candles,
    list_candles,
    read_candles,
    run_backtest,
)


def misspelt_settings() -> None:
    kit.setup(mode="bakctest")  # wrong
    kit.setup(look_ahead="hid")  # wrong
    kit.setup(stores={"candel": "mongo"})  # wrong
    kit.setup(stores={"candle": "mogno"})  # wrong
    kit.setup(history=["sesion"])  # wrong
    kit.setup(embeded=True)  # wrong
    kit.setup(CC_MONGO_CONECTION_STRING="mongodb://localhost")  # wrong
    kit.setup({"CC_MONGO_CONECTION_STRING": "mongodb://localhost"})  # wrong
    kit.setup(CC_STORES={"candel": "mongo"})  # wrong
    kit.setup({"CC_STORES": {"candel": "mongo"}})  # wrong
    kit.setup(CC_MODE="bakctest")  # wrong
    kit.setup(CC_DURABILITY="jurnal")  # wrong
    kit.setup(CC_REDIS_PORT=[6379])  # wrong
    kit.setup(CC_EMBEDDED=2)  # wrong
    kit.set_config(CC_REDIS_HSOT="redis")  # wrong
    kit.set_config({"CC_REDIS_HSOT": "redis"})  # wrong
    Registry().setup(mode="bakctest")  # wrong
    Registry().set_config(CC_REDIS_HSOT="redis")  # wrong
    given: Settings = {"CC_REDIS_HSOT": "redis"}  # wrong
    kit.setup(given)


async def misspelt_settings_awaited() -> None:
    await aio.setup(mode="bakctest")  # wrong
    await aio.setup(CC_MONGO_CONECTION_STRING="mongodb://localhost")  # wrong
    await aio.records("candel")  # wrong
    await aio.AsyncRegistry(Registry()).setup(mode="bakctest")  # wrong
    await aio.PersistSignalAdapter.read_signl_data("BTCUSDT", "sma", "binance")  # wrong


def misspelt_domains(since: datetime) -> None:
    kit.records("candel")  # wrong
    kit.stats()["candel"]  # wrong
    kit.stats()["candle"]["hitratio"]  # wrong
    kit.discard_versions("sate", since)  # wrong
    Registry().adapter("candel")  # wrong
    kit.profile().to_dataframe("domain")  # wrong
    kit.setup_all()  # wrong


def misspelt_choices() -> None:
    read_candles("BTCUSDT", "1hour", "2024-01-01", "2024-02-01")  # wrong
    read_candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01", to="panda")  # wrong
    read_candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01", holes="fil")  # wrong
    get_candles("BTCUSDT", "1hour", 10)  # wrong
    get_candles("BTCUSDT", "1h", 10)[0]["clsoe"]  # wrong
    list_candles(interval="1hour")  # wrong
    import_candles([], "BTCUSDT", off_grid="skipp")  # wrong
    PersistCandleAdapter.read_candles_data("BTCUSDT", "1hour", "binance", 5, 0, 0)  # wrong
    Interval.once("1hour")  # wrong
    Measure.cached("1hour")  # wrong
    RunOptions(on_error="skipp")  # wrong
    run_backtest("BTCUSDT", on_error="skipp")  # wrong
    run_backtest("BTCUSDT", fee=0.1)  # wrong


@add_strategy("wrong interval", interval="1w")  # wrong
def unasked(symbol: str, when: datetime) -> SignalDict | None:
    return None


@add_strategy("misspelt")
def misspelt(symbol: str, when: datetime) -> SignalDict | None:
    if when.minute:
        return {"positon": "long", "priceTakeProfit": 1.0, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}  # wrong
    if when.hour:
        return {"position": "lnog", "priceTakeProfit": 1.0, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}  # wrong
    return {"position": "long", "priceTakeProfit": 1.0}  # wrong


@add_strategy("not a signal")  # wrong
def number(symbol: str, when: datetime) -> int:
    return 1


@add_strategy("too few arguments")  # wrong
def few(symbol: str) -> SignalDict | None:
    return None


@add_exchange("too few arguments")  # wrong
def fetch(symbol: str, interval: str) -> list[list[float]]:
    return []


def actions() -> None:
    add_strategy("x", get_signal=misspelt, on_opne=print)  # wrong
    create_signal({"positon": "long", "priceTakeProfit": 1.0, "priceStopLoss": 1.0, "minuteEstimatedTime": 60})  # wrong
