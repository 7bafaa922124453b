"""Code as users write it. Never run: mypy and pyright (strict) must accept it and infer the asserted types.

``tests/project/test_types.py`` runs both. Their mistakes are in ``typing_mistakes.py``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type, get_args

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import redis
from msgspec.structs import asdict
from pymongo.database import Database

import backtest_kit_mongo as kit
from backtest_kit_mongo import (
    BacktestKitError,
    PersistBreakevenAdapter,
    PersistCandleAdapter,
    PersistCandleInstance,
    PersistDictionaryAdapter,
    PersistIntervalAdapter,
    PersistLogAdapter,
    PersistMeasureAdapter,
    PersistMemoryAdapter,
    PersistMemoryInstance,
    PersistNotificationAdapter,
    PersistPartialAdapter,
    PersistRecentAdapter,
    PersistRiskAdapter,
    PersistRiskInstance,
    PersistScheduleAdapter,
    PersistSessionAdapter,
    PersistSessionInstance,
    PersistSignalAdapter,
    PersistSignalInstance,
    PersistStateAdapter,
    PersistStorageAdapter,
    PersistStrategyAdapter,
    ServerTimeoutError,
    Settings,
    aio,
    setup,
    wait_for_init,
)
from backtest_kit_mongo.candles import CANDLE_DTYPE, CandleArray, CandleInterval
from backtest_kit_mongo.domains import DomainName
from backtest_kit_mongo.mode_defaults import Kind
from backtest_kit_mongo.payloads import (
    Candle,
    LogEntry,
    MeasureData,
    MemoryData,
    NotificationModel,
    PublicSignalRow,
    RiskData,
    RiskPosition,
    SignalRow,
    StateData,
    StorageSignalRow,
)
from backtest_kit_mongo.runner import (
    BacktestResult,
    CandleDict,
    SignalDict,
    SweepResult,
    add_exchange,
    add_strategy,
    create_signal,
    fetch_missing,
    get_candles,
    get_raw_candles,
    list_candles,
    read_candles,
    run_backtest,
    trades_frame,
)

WHEN = datetime(2024, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


@dataclass
class Note:
    """A user-defined row."""

    id: str
    text: str


def settings() -> None:
    """Configure before the first call."""
    setup()
    setup({"CC_REDIS_HOST": "redis", "CC_REDIS_PORT": 6380})
    setup(CC_REDIS_HOST="redis", CC_DURABILITY="memory")
    setup(embedded=True)
    setup(mode="backtest", stores={"session": "mongo", "log": "memory"}, look_ahead="hide", history=["state"])
    setup(CC_DUMP_DIR=Path("dump"), CC_REDIS_PORT="6380", CC_EMBEDDED=1, CC_TICK_SECONDS=5, CC_MODE="", CC_REDIS_URL=None)
    setup(CC_STORES={"log": "jsonl"}, CC_HISTORY=("state", "session"))
    setup({"CC_STORES": "log=jsonl,memory=file", "CC_HISTORY": "state,session"})
    loaded: Row = json.loads("{}")
    setup(loaded)
    setup(loaded, CC_REDIS_HOST="redis")
    setup(**loaded)
    setup(asdict(kit.get_config()))
    shared: Settings = {"CC_REDIS_HOST": "redis"}
    setup(shared)
    setup({**shared, "CC_REDIS_PORT": 6380})
    setup(**shared)
    stores: dict[DomainName, Kind] = dict.fromkeys(get_args(DomainName), "memory")
    setup(stores=stores)
    kit.Registry().setup(mode="paper", CC_REDIS_HOST="redis")
    kit.set_config({"CC_REDIS_HOST": "redis"})
    kit.set_config(CC_REDIS_HOST="redis")
    kit.install()
    wait_for_init()
    wait_for_init(timeout=15)
    config = kit.get_config()
    assert_type(config.CC_REDIS_HOST, str)
    assert_type(config.CC_REDIS_PORT, int)
    assert_type(config.CC_EMBEDDED, bool)
    assert_type(config.CC_HISTORY, tuple[DomainName, ...])
    kit.discard_versions("state", WHEN)
    assert_type(kit.get_mongo(), Database[Row])
    assert_type(kit.get_redis(), redis.Redis)
    counts: dict[str, Row] = kit.stats()
    print(counts)
    assert_type(kit.stats()["signal"]["hit_ratio"], float | None)
    assert_type(kit.stats()["signal"]["operations"]["read"]["p99"], float | None)
    kit.reset_stats()
    kit.close()


class Print:
    """A logger needs no base class."""

    def debug(self, message: str, *args: Any) -> None:
        """Discard the message."""

    def info(self, message: str, *args: Any) -> None:
        """Print the message."""
        print(message % args)

    warning = error = info


def loggers() -> None:
    """Pass each kind of logger that ``set_logger`` accepts."""
    kit.set_logger(logging.getLogger("strategy"))
    kit.set_logger(Print())
    kit.set_logger(None)


def slots(row: SignalRow) -> None:
    """Signal, Schedule, Strategy."""
    assert_type(PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance"), Row | None)
    assert_type(PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance", type=SignalRow), SignalRow | None)
    PersistSignalAdapter.write_signal_data({"id": "a"}, "BTCUSDT", "sma", "binance")
    PersistSignalAdapter.write_signal_data(row, "BTCUSDT", "sma", "binance")
    PersistSignalAdapter.write_signal_data(None, "BTCUSDT", "sma", "binance")
    stored = PersistSignalAdapter.read_signal_data("BTCUSDT", strategy_name="sma", exchange_name="binance", type=SignalRow)
    if stored is not None:
        assert_type(stored.price_open, float)
        assert_type(stored.timestamp, int)
    PersistScheduleAdapter.write_schedule_data(row, "BTCUSDT", "sma", "binance")
    assert_type(PersistStrategyAdapter.read_strategy_data("BTCUSDT", "sma", "binance"), Row | None)


def positions(position: RiskPosition) -> None:
    """Risk, Partial, Breakeven."""
    PersistRiskAdapter.write_position_data([["sma_binance_BTCUSDT", {"symbol": "BTCUSDT"}]], "main", "binance", WHEN)
    PersistRiskAdapter.write_position_data([("sma_binance_BTCUSDT", position)], "main", "binance", 1_700_000_000_000)
    PersistRiskAdapter.write_position_data({"sma_binance_BTCUSDT": position}, "main", "binance", WHEN)
    for key, value in PersistRiskAdapter.read_position_data("main", "binance", WHEN):
        print(key, value["symbol"])
    typed: RiskData = PersistRiskAdapter.read_position_data("main", "binance", WHEN, type=list[tuple[str, RiskPosition]])
    for name, active in typed:
        assert_type(name, str)
        assert_type(active.open_timestamp, int)
    assert_type(PersistPartialAdapter.read_partial_data("BTCUSDT", "sma", "id", "binance", WHEN), Row)
    PersistPartialAdapter.write_partial_data({"id": {"profitLevels": [10]}}, "BTCUSDT", "sma", "id", "binance", WHEN)
    assert_type(PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "id", "binance", 0), Row)


def candles() -> None:
    """Windows of candles, from dicts, Structs and arrays."""
    window = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 5, 0, 300_000)
    assert_type(window, list[Row] | None)
    if window is not None:
        print(window[0]["close"])
    typed = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 5, 0, 300_000, type=Candle)
    assert_type(typed, list[Candle] | None)
    PersistCandleAdapter.write_candles_data([{"timestamp": 0}], "BTCUSDT", "1m", "binance")
    PersistCandleAdapter.write_candles_data(np.zeros(5, CANDLE_DTYPE), "BTCUSDT", "1m", "binance")
    PersistCandleAdapter.write_candles_data((candle for candle in typed or ()), "BTCUSDT", "1m", "binance")
    bound = PersistCandleInstance("BTCUSDT", "1m", "binance")
    assert_type(bound.interval, CandleInterval)
    assert_type(bound.read_candles_data(5, 0, 300_000), list[Row] | None)


def rows(signal: StorageSignalRow, notification: NotificationModel) -> None:
    """Storage, Notification, Log."""
    assert_type(PersistStorageAdapter.read_storage_data(True), list[Row])
    assert_type(PersistStorageAdapter.read_storage_data(True, limit=None, type=StorageSignalRow), list[StorageSignalRow])
    PersistStorageAdapter.write_storage_data([signal, {"id": "b"}], True)
    PersistNotificationAdapter.write_notification_data([notification], backtest=False)
    assert_type(PersistNotificationAdapter.read_notification_data(False, limit=10), list[Row])
    assert_type(PersistLogAdapter.read_log_data(limit=None), list[Row])
    entries = PersistLogAdapter.read_log_data(type=LogEntry)
    assert_type(entries, list[LogEntry])
    PersistLogAdapter.write_log_data(entries)
    PersistLogAdapter.write_log_data([Note("a", "text")])


def buckets() -> None:
    """Measure, Interval, Memory."""
    assert_type(PersistMeasureAdapter.read_measure_data("bucket", "key"), Row | None)
    measure = PersistMeasureAdapter.read_measure_data("bucket", "key", type=MeasureData[float])
    if measure is not None:
        assert_type(measure.data, float)
    PersistMeasureAdapter.write_measure_data({"id": "key", "data": 1, "removed": False}, "bucket", "key", WHEN)
    PersistMeasureAdapter.remove_measure_data("bucket", "key")
    assert_type(PersistMeasureAdapter.list_measure_data("bucket"), Iterator[str])
    names: list[str] = sorted(PersistIntervalAdapter.list_interval_data("bucket"))
    print(names)
    assert_type(PersistMemoryAdapter.has_memory_data("id", "notes", "m"), bool)
    PersistMemoryAdapter.write_memory_data(Note("m", "text"), "id", "notes", "m", WHEN)
    assert_type(PersistMemoryAdapter.read_memory_data("id", "notes", "m", type=MemoryData[Row]), MemoryData[Row] | None)
    for memory in PersistMemoryAdapter.list_memory_data("id", "notes"):
        print(memory["memoryId"], memory["data"])


def memories_of_a_strategy() -> None:
    """Recent, State, Session, Dictionary."""
    assert_type(PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "", False, type=PublicSignalRow), PublicSignalRow | None)
    PersistRecentAdapter.write_recent_data({"id": "a"}, "BTCUSDT", "sma", "binance", "", False, WHEN)
    state = PersistStateAdapter.read_state_data("id", "bucket", type=StateData[dict[str, int]])
    if state is not None:
        assert_type(state.data["n"], int)
    PersistStateAdapter.write_state_data(StateData(id="id_bucket", data={"n": 1}, when=0), "id", "bucket", WHEN)
    PersistSessionAdapter.write_session_data({"id": "s"}, "sma", "binance", "", WHEN, "BTCUSDT", False)
    assert_type(PersistSessionAdapter.read_session_data("sma", "binance", "", "BTCUSDT", False), Row | None)
    PersistDictionaryAdapter.write_dictionary_data({"id": "d"}, "id", "prices", WHEN)
    assert_type(PersistDictionaryAdapter.read_dictionary_data("id", "prices"), Row | None)


def batches() -> None:
    """Read and write many records at once."""
    assert_type(PersistSignalAdapter.read_many([("BTCUSDT", "sma", "binance")], type=SignalRow), list[SignalRow | None])
    for row in PersistStateAdapter.read_many([("id", "a"), ("id", "b")]):
        print(row)
    PersistStateAdapter.write_many([({"id": "a"}, "id", "a", WHEN), ({"id": "b"}, "id", "b", 0)])
    PersistSignalAdapter.write_many((None, symbol, "sma", "binance") for symbol in ("BTCUSDT", "ETHUSDT"))


class Counting(PersistRiskInstance):
    """A user's class on top of the bound store."""

    def __init__(self, risk_name: str, exchange_name: str) -> None:
        super().__init__(risk_name, exchange_name)
        self.writes = 0

    def write_position_data(self, positions: Any, when: datetime | int) -> None:
        """Count the write and pass it on."""
        self.writes += 1
        super().write_position_data(positions, when)


def choices() -> None:
    """Choose what serves a domain."""
    PersistRiskAdapter.use_persist_risk_adapter(Counting)
    PersistRiskAdapter.clear()
    PersistSignalAdapter.use_memory()
    PersistSignalAdapter.use_dummy()
    PersistSignalAdapter.use_mongo()
    cache = PersistSignalAdapter.id_cache
    assert_type(cache.get("BTCUSDT", "sma", "binance"), str | None)
    assert_type(cache.has("BTCUSDT", "sma", "binance"), bool)
    assert_type(cache.delete("BTCUSDT", "sma", "binance"), bool)
    assert_type(list(cache.keys()), list[str])
    assert_type(cache.size(), int)
    assert_type(cache.clear(), int)


def instances() -> None:
    """Give the context once."""
    signal = PersistSignalInstance("BTCUSDT", "sma", "binance")
    signal.wait_for_init(True)
    assert_type(signal.read_signal_data(), Row | None)
    assert_type(signal.read_signal_data(type=SignalRow), SignalRow | None)
    signal.write_signal_data(None)
    assert_type(signal.exchange_name, str)
    session = PersistSessionInstance("sma", "binance", "", "BTCUSDT", False)
    session.write_session_data({"id": "s"}, WHEN)
    assert_type(session.backtest, bool)
    memory = PersistMemoryInstance("id", "notes")
    assert_type(memory.has_memory_data("m"), bool)


def errors() -> None:
    """All errors share one base class, and some are builtin errors as well."""
    try:
        wait_for_init(1)
    except ServerTimeoutError as error:
        assert_type(error.hint, str | None)
        caught: TimeoutError = error
        also: ConnectionError = error
        print(caught, also)
    except BacktestKitError as error:
        print(error.hint)


def tables(candles: CandleArray, result: BacktestResult, sweep: SweepResult) -> None:
    """Return candles, records, trades and counters as tables. Without the stubs of a library its tables are Any to mypy."""
    assert_type(kit.to_pandas(candles), pd.DataFrame)
    assert_type(kit.to_polars(candles), pl.DataFrame)
    assert_type(kit.to_arrow(candles), pa.Table)
    assert_type(kit.records("signal"), list[Row])
    assert_type(kit.records("signal", {"symbol": "BTCUSDT"}, {"when": -1}, 10, as_frame=True), pd.DataFrame)
    assert_type(kit.stats().to_dataframe("operations"), pd.DataFrame)
    with kit.profile() as report:
        print(report)
    assert_type(report.to_dataframe(), pd.DataFrame)
    assert_type(result.to_dataframe(), pd.DataFrame)
    assert_type(sweep.to_dataframe("pnlPercentage"), pd.DataFrame)
    assert_type(trades_frame([result]), pd.DataFrame)
    assert_type(read_candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01"), pd.DataFrame)
    assert_type(read_candles("BTCUSDT", "1h", WHEN, WHEN, to="pandas", holes="fill"), pd.DataFrame)
    assert_type(read_candles("BTCUSDT", "1h", WHEN, WHEN, to="polars"), pl.DataFrame)
    assert_type(read_candles("BTCUSDT", "1h", WHEN, WHEN, to="arrow"), pa.Table)
    assert_type(read_candles("BTCUSDT", "1h", WHEN, WHEN, to="numpy"), CandleArray)
    kit.write_trades(kit.records("storage", as_frame=True), engine="loop")
    kit.write_trades([{"symbol": "BTCUSDT"}], engine="loop")


@add_strategy("typed", interval="5m", on_open=lambda event: print(event.price))
def get_signal(symbol: str, when: datetime) -> SignalDict | None:
    """Return a signal with its type."""
    window = get_candles(symbol, "1h", 24)
    assert_type(window, list[CandleDict])
    assert_type(window[-1]["close"], float)
    assert_type(get_candles(symbol, "1h", 24, as_array=True), CandleArray)
    assert_type(get_raw_candles(symbol, "1h", 24)[0]["timestamp"], int)
    if when.minute:
        return None
    return {"position": "long", "priceTakeProfit": 2, "priceStopLoss": np.float64(1), "minuteEstimatedTime": 60, "note": None}


@add_strategy("a dict")
def get_signal_as_dict(symbol: str, when: datetime) -> Row | None:
    """Return a signal as a plain dict."""
    return {"position": "long"}


@add_strategy("awaited")
async def get_signal_later(symbol: str, when: datetime) -> SignalDict | None:
    """Return a signal from a coroutine."""
    return get_signal(symbol, when)


@add_exchange("mine")
def fetch_candles(symbol: str, interval: str, since: int, limit: int) -> list[list[float]]:
    """Return candles of an exchange."""
    return []


def runs(signal: Mapping[str, Any]) -> None:
    """Run, and act inside the run."""
    assert_type(run_backtest("BTCUSDT", fee_percent=0.05, on_error="skip"), BacktestResult)
    create_signal({"position": "short", "priceTakeProfit": 1.0, "priceStopLoss": 2.0, "minuteEstimatedTime": 60})
    create_signal(signal)
    for series in list_candles(interval="1d"):
        assert_type(series.interval, CandleInterval)
        fetch_missing(series.symbol, series.interval, series.exchange_name, series.since_ms, series.until_ms)


async def awaited() -> None:
    """The same names, awaitable."""
    await aio.setup(mode="backtest", CC_REDIS_HOST="redis")
    assert_type(await aio.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance"), Row | None)
    assert_type(aio.PersistMeasureAdapter.list_measure_data("bucket"), AsyncGenerator[str, None])
    assert_type(await aio.get_mongo(), Database[Row])
    registry = aio.face(kit.Registry())
    await registry.setup(mode="paper")
    assert_type(await registry.PersistStateAdapter.read_state_data("id", "bucket"), Row | None)
