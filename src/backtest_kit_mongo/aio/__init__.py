# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The same names, awaitable: ``await PersistSignalAdapter.read_signal_data(...)``, ``async for key in ...``.

Each method runs its synchronous counterpart in a thread pool, in a copy of the caller's context, so that ``simulated_time`` and
``pymongo.timeout`` apply. It does not use the asynchronous drivers, because those know neither the wire protocol nor the id caches.
Data in this process (the memory and dummy stores, candles in blocks) is returned at once, without a thread.

A call that may wait is awaitable, or it returns an async iterator (``list_*``, ``id_cache.keys``), which checks its arguments at its
first step. What only looks at this process is the same object as in the package (``stats``, ``get_config``, ``simulated_time``,
errors, ``to_pandas``).

Cancellation: a call that no thread has started is dropped. A running call is not interrupted: its thread finishes the exchange, so that
no connection is left in the middle of one, and the result is discarded. A cancelled write may or may not be stored; read to find out.

Cost with nearby servers (``bench/test_aio.py``): an awaited read takes 1.6 to 2 times as long as a synchronous one (about 100 us more).
1,000 gathered reads take 0.85 to 1.3 times as long as a synchronous loop (1.5 on one core), and ``read_many`` a 25th of either. With
1 ms to MongoDB, gathered reads take an eighth of the time of the loop, with 5 ms a 20th. Awaiting candles in blocks takes at most 2 us.
A pool of 32 threads, out of 4 to 48, is as fast as any with nearby servers, and the fastest with servers far away.
"""

from __future__ import annotations

from typing import Final

import backtest_kit_mongo as _kit
from backtest_kit_mongo import (
    BacktestKitError,
    ConfigError,
    DamagedCandlesError,
    DatabaseError,
    IndexConflictError,
    InvalidTypeError,
    InvalidValueError,
    LookAheadError,
    MissingDependencyError,
    NotConfiguredError,
    Registry,
    Report,
    ServerStartError,
    ServerTimeoutError,
    ServerUnavailableError,
    Settings,
    StorageError,
    get_config,
    profile,
    reset_stats,
    set_logger,
    simulated_time,
    stats,
    to_arrow,
    to_pandas,
    to_polars,
)

from .base import in_threads
from .generated import (
    breakeven,
    candle,
    dictionary,
    interval,
    log,
    measure,
    memory,
    notification,
    partial,
    recent,
    risk,
    schedule,
    session,
    signal,
    state,
    storage,
    strategy,
)
from .registry import AsyncRegistry, face

__all__ = [
    "AsyncRegistry",
    "BacktestKitError",
    "ConfigError",
    "DamagedCandlesError",
    "DatabaseError",
    "IndexConflictError",
    "InvalidTypeError",
    "InvalidValueError",
    "LookAheadError",
    "MissingDependencyError",
    "NotConfiguredError",
    "PersistBreakevenAdapter",
    "PersistBreakevenInstance",
    "PersistCandleAdapter",
    "PersistCandleInstance",
    "PersistDictionaryAdapter",
    "PersistDictionaryInstance",
    "PersistIntervalAdapter",
    "PersistIntervalInstance",
    "PersistLogAdapter",
    "PersistLogInstance",
    "PersistMeasureAdapter",
    "PersistMeasureInstance",
    "PersistMemoryAdapter",
    "PersistMemoryInstance",
    "PersistNotificationAdapter",
    "PersistNotificationInstance",
    "PersistPartialAdapter",
    "PersistPartialInstance",
    "PersistRecentAdapter",
    "PersistRecentInstance",
    "PersistRiskAdapter",
    "PersistRiskInstance",
    "PersistScheduleAdapter",
    "PersistScheduleInstance",
    "PersistSessionAdapter",
    "PersistSessionInstance",
    "PersistSignalAdapter",
    "PersistSignalInstance",
    "PersistStateAdapter",
    "PersistStateInstance",
    "PersistStorageAdapter",
    "PersistStorageInstance",
    "PersistStrategyAdapter",
    "PersistStrategyInstance",
    "Registry",
    "Report",
    "ServerStartError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "Settings",
    "StorageError",
    "close",
    "discard_versions",
    "face",
    "get_config",
    "get_mongo",
    "get_redis",
    "install",
    "profile",
    "read_trades",
    "records",
    "reset_stats",
    "set_config",
    "set_logger",
    "setup",
    "simulated_time",
    "stats",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "wait_for_init",
    "write_trades",
]

PersistCandleAdapter: Final = candle.PersistCandleUtils(_kit.PersistCandleAdapter)
PersistCandleInstance = candle.PersistCandleInstance
PersistSignalAdapter: Final = signal.PersistSignalUtils(_kit.PersistSignalAdapter)
PersistSignalInstance = signal.PersistSignalInstance
PersistScheduleAdapter: Final = schedule.PersistScheduleUtils(_kit.PersistScheduleAdapter)
PersistScheduleInstance = schedule.PersistScheduleInstance
PersistStrategyAdapter: Final = strategy.PersistStrategyUtils(_kit.PersistStrategyAdapter)
PersistStrategyInstance = strategy.PersistStrategyInstance
PersistRiskAdapter: Final = risk.PersistRiskUtils(_kit.PersistRiskAdapter)
PersistRiskInstance = risk.PersistRiskInstance
PersistPartialAdapter: Final = partial.PersistPartialUtils(_kit.PersistPartialAdapter)
PersistPartialInstance = partial.PersistPartialInstance
PersistBreakevenAdapter: Final = breakeven.PersistBreakevenUtils(_kit.PersistBreakevenAdapter)
PersistBreakevenInstance = breakeven.PersistBreakevenInstance
PersistStorageAdapter: Final = storage.PersistStorageUtils(_kit.PersistStorageAdapter)
PersistStorageInstance = storage.PersistStorageInstance
PersistNotificationAdapter: Final = notification.PersistNotificationUtils(_kit.PersistNotificationAdapter)
PersistNotificationInstance = notification.PersistNotificationInstance
PersistLogAdapter: Final = log.PersistLogUtils(_kit.PersistLogAdapter)
PersistLogInstance = log.PersistLogInstance
PersistMeasureAdapter: Final = measure.PersistMeasureUtils(_kit.PersistMeasureAdapter)
PersistMeasureInstance = measure.PersistMeasureInstance
PersistIntervalAdapter: Final = interval.PersistIntervalUtils(_kit.PersistIntervalAdapter)
PersistIntervalInstance = interval.PersistIntervalInstance
PersistMemoryAdapter: Final = memory.PersistMemoryUtils(_kit.PersistMemoryAdapter)
PersistMemoryInstance = memory.PersistMemoryInstance
PersistRecentAdapter: Final = recent.PersistRecentUtils(_kit.PersistRecentAdapter)
PersistRecentInstance = recent.PersistRecentInstance
PersistStateAdapter: Final = state.PersistStateUtils(_kit.PersistStateAdapter)
PersistStateInstance = state.PersistStateInstance
PersistSessionAdapter: Final = session.PersistSessionUtils(_kit.PersistSessionAdapter)
PersistSessionInstance = session.PersistSessionInstance
PersistDictionaryAdapter: Final = dictionary.PersistDictionaryUtils(_kit.PersistDictionaryAdapter)
PersistDictionaryInstance = dictionary.PersistDictionaryInstance
close: Final = in_threads(_kit.close)
discard_versions: Final = in_threads(_kit.discard_versions)
get_mongo: Final = in_threads(_kit.get_mongo)
get_redis: Final = in_threads(_kit.get_redis)
install: Final = in_threads(_kit.install)
read_trades: Final = in_threads(_kit.read_trades)
records: Final = in_threads(_kit.records)
set_config: Final = in_threads(_kit.set_config)
setup: Final = in_threads(_kit.setup)
wait_for_init: Final = in_threads(_kit.wait_for_init)
write_trades: Final = in_threads(_kit.write_trades)
