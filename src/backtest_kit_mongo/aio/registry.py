# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The awaitable registry, and ``face``: the awaitable version of any registry, adapter, instance or id cache."""

from __future__ import annotations

from inspect import isroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from ..contract_names import PLAIN
from ..contracts.adapter_base import AdapterBase, InstanceBase
from ..contracts.generated import breakeven as _breakeven
from ..contracts.generated import candle as _candle
from ..contracts.generated import dictionary as _dictionary
from ..contracts.generated import interval as _interval
from ..contracts.generated import log as _log
from ..contracts.generated import measure as _measure
from ..contracts.generated import memory as _memory
from ..contracts.generated import notification as _notification
from ..contracts.generated import partial as _partial
from ..contracts.generated import recent as _recent
from ..contracts.generated import risk as _risk
from ..contracts.generated import schedule as _schedule
from ..contracts.generated import session as _session
from ..contracts.generated import signal as _signal
from ..contracts.generated import state as _state
from ..contracts.generated import storage as _storage
from ..contracts.generated import strategy as _strategy
from ..contracts.registry import Registry
from ..domains import DOMAINS, DomainName
from ..errors import InvalidTypeError
from ..stores.mongo.redis_ids import DomainIds
from .base import AsyncAdapter, AsyncFace, AsyncIds, AsyncInstance, in_threads
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

__all__ = ["AsyncRegistry", "face"]

Instance = TypeVar("Instance", bound=AsyncInstance)

_ADAPTERS: dict[str, Any] = {
    "candle": candle.PersistCandleUtils,
    "signal": signal.PersistSignalUtils,
    "schedule": schedule.PersistScheduleUtils,
    "strategy": strategy.PersistStrategyUtils,
    "risk": risk.PersistRiskUtils,
    "partial": partial.PersistPartialUtils,
    "breakeven": breakeven.PersistBreakevenUtils,
    "storage": storage.PersistStorageUtils,
    "notification": notification.PersistNotificationUtils,
    "log": log.PersistLogUtils,
    "measure": measure.PersistMeasureUtils,
    "interval": interval.PersistIntervalUtils,
    "memory": memory.PersistMemoryUtils,
    "recent": recent.PersistRecentUtils,
    "state": state.PersistStateUtils,
    "session": session.PersistSessionUtils,
    "dictionary": dictionary.PersistDictionaryUtils,
}
_INSTANCES: dict[str, type[AsyncInstance]] = {
    "candle": candle.PersistCandleInstance,
    "signal": signal.PersistSignalInstance,
    "schedule": schedule.PersistScheduleInstance,
    "strategy": strategy.PersistStrategyInstance,
    "risk": risk.PersistRiskInstance,
    "partial": partial.PersistPartialInstance,
    "breakeven": breakeven.PersistBreakevenInstance,
    "storage": storage.PersistStorageInstance,
    "notification": notification.PersistNotificationInstance,
    "log": log.PersistLogInstance,
    "measure": measure.PersistMeasureInstance,
    "interval": interval.PersistIntervalInstance,
    "memory": memory.PersistMemoryInstance,
    "recent": recent.PersistRecentInstance,
    "state": state.PersistStateInstance,
    "session": session.PersistSessionInstance,
    "dictionary": dictionary.PersistDictionaryInstance,
}


class AsyncRegistry(AsyncFace):
    """The awaitable version of a registry: its adapters and functions, by the same names. ``face`` creates it.

    Args:
        sync: the registry that does the work; it stays usable

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.aio import face
        >>> registry = face(kit.Registry())
        >>> await registry.setup(stores={"signal": "memory"})
        >>> await registry.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance") is None
        True
        >>> await registry.close()
    """

    sync: Registry
    """The synchronous object that does the work."""

    def __init__(self, sync: Registry) -> None:
        self.sync = sync
        self.PersistCandleAdapter: candle.PersistCandleUtils = candle.PersistCandleUtils(sync.PersistCandleAdapter)
        self.PersistCandleInstance: type[candle.PersistCandleInstance] = _of(candle.PersistCandleInstance, sync.PersistCandleInstance)
        self.PersistSignalAdapter: signal.PersistSignalUtils = signal.PersistSignalUtils(sync.PersistSignalAdapter)
        self.PersistSignalInstance: type[signal.PersistSignalInstance] = _of(signal.PersistSignalInstance, sync.PersistSignalInstance)
        self.PersistScheduleAdapter: schedule.PersistScheduleUtils = schedule.PersistScheduleUtils(sync.PersistScheduleAdapter)
        self.PersistScheduleInstance: type[schedule.PersistScheduleInstance] = _of(
            schedule.PersistScheduleInstance, sync.PersistScheduleInstance
        )
        self.PersistStrategyAdapter: strategy.PersistStrategyUtils = strategy.PersistStrategyUtils(sync.PersistStrategyAdapter)
        self.PersistStrategyInstance: type[strategy.PersistStrategyInstance] = _of(
            strategy.PersistStrategyInstance, sync.PersistStrategyInstance
        )
        self.PersistRiskAdapter: risk.PersistRiskUtils = risk.PersistRiskUtils(sync.PersistRiskAdapter)
        self.PersistRiskInstance: type[risk.PersistRiskInstance] = _of(risk.PersistRiskInstance, sync.PersistRiskInstance)
        self.PersistPartialAdapter: partial.PersistPartialUtils = partial.PersistPartialUtils(sync.PersistPartialAdapter)
        self.PersistPartialInstance: type[partial.PersistPartialInstance] = _of(partial.PersistPartialInstance, sync.PersistPartialInstance)
        self.PersistBreakevenAdapter: breakeven.PersistBreakevenUtils = breakeven.PersistBreakevenUtils(sync.PersistBreakevenAdapter)
        self.PersistBreakevenInstance: type[breakeven.PersistBreakevenInstance] = _of(
            breakeven.PersistBreakevenInstance, sync.PersistBreakevenInstance
        )
        self.PersistStorageAdapter: storage.PersistStorageUtils = storage.PersistStorageUtils(sync.PersistStorageAdapter)
        self.PersistStorageInstance: type[storage.PersistStorageInstance] = _of(storage.PersistStorageInstance, sync.PersistStorageInstance)
        self.PersistNotificationAdapter: notification.PersistNotificationUtils = notification.PersistNotificationUtils(
            sync.PersistNotificationAdapter
        )
        self.PersistNotificationInstance: type[notification.PersistNotificationInstance] = _of(
            notification.PersistNotificationInstance, sync.PersistNotificationInstance
        )
        self.PersistLogAdapter: log.PersistLogUtils = log.PersistLogUtils(sync.PersistLogAdapter)
        self.PersistLogInstance: type[log.PersistLogInstance] = _of(log.PersistLogInstance, sync.PersistLogInstance)
        self.PersistMeasureAdapter: measure.PersistMeasureUtils = measure.PersistMeasureUtils(sync.PersistMeasureAdapter)
        self.PersistMeasureInstance: type[measure.PersistMeasureInstance] = _of(measure.PersistMeasureInstance, sync.PersistMeasureInstance)
        self.PersistIntervalAdapter: interval.PersistIntervalUtils = interval.PersistIntervalUtils(sync.PersistIntervalAdapter)
        self.PersistIntervalInstance: type[interval.PersistIntervalInstance] = _of(
            interval.PersistIntervalInstance, sync.PersistIntervalInstance
        )
        self.PersistMemoryAdapter: memory.PersistMemoryUtils = memory.PersistMemoryUtils(sync.PersistMemoryAdapter)
        self.PersistMemoryInstance: type[memory.PersistMemoryInstance] = _of(memory.PersistMemoryInstance, sync.PersistMemoryInstance)
        self.PersistRecentAdapter: recent.PersistRecentUtils = recent.PersistRecentUtils(sync.PersistRecentAdapter)
        self.PersistRecentInstance: type[recent.PersistRecentInstance] = _of(recent.PersistRecentInstance, sync.PersistRecentInstance)
        self.PersistStateAdapter: state.PersistStateUtils = state.PersistStateUtils(sync.PersistStateAdapter)
        self.PersistStateInstance: type[state.PersistStateInstance] = _of(state.PersistStateInstance, sync.PersistStateInstance)
        self.PersistSessionAdapter: session.PersistSessionUtils = session.PersistSessionUtils(sync.PersistSessionAdapter)
        self.PersistSessionInstance: type[session.PersistSessionInstance] = _of(session.PersistSessionInstance, sync.PersistSessionInstance)
        self.PersistDictionaryAdapter: dictionary.PersistDictionaryUtils = dictionary.PersistDictionaryUtils(sync.PersistDictionaryAdapter)
        self.PersistDictionaryInstance: type[dictionary.PersistDictionaryInstance] = _of(
            dictionary.PersistDictionaryInstance, sync.PersistDictionaryInstance
        )
        self.close: Final = in_threads(sync.close)
        self.discard_versions: Final = in_threads(sync.discard_versions)
        self.get_config: Final = sync.get_config
        self.get_mongo: Final = in_threads(sync.get_mongo)
        self.get_redis: Final = in_threads(sync.get_redis)
        self.install: Final = in_threads(sync.install)
        self.reset_stats: Final = sync.reset_stats
        self.set_config: Final = in_threads(sync.set_config)
        self.setup: Final = in_threads(sync.setup)
        self.stats: Final = sync.stats
        self.wait_for_init: Final = in_threads(sync.wait_for_init)

    if not TYPE_CHECKING:  # as in AsyncFace

        def __getattr__(self, name: str) -> Any:
            value = super().__getattr__(name)
            return in_threads(value) if isroutine(value) and name not in PLAIN else value

    def adapter(self, name: DomainName) -> AsyncAdapter:
        """Return the adapter of a domain.

        Args:
            name: the name of the domain, such as "signal"

        Returns:
            ``PersistSignalAdapter`` for "signal", and so on

        Raises:
            KeyError: there is no such domain

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> from backtest_kit_mongo.aio import face
            >>> face(kit.Registry()).adapter('signal')
            <async <PersistSignalAdapter over MongoStore>>
        """
        adapter: AsyncAdapter = getattr(self, f"Persist{DOMAINS[name].name.capitalize()}Adapter")
        return adapter


def _of(cls: type[Instance], sync_class: type[InstanceBase]) -> type[Instance]:
    """Return the class whose instances are those of ``sync_class``, awaitable."""
    members = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__, "_sync_class": sync_class}
    return type(cls.__name__, (cls,), members)


@overload
def face(sync: _candle.PersistCandleUtils) -> candle.PersistCandleUtils: ...
@overload
def face(sync: _candle.PersistCandleInstance) -> candle.PersistCandleInstance: ...
@overload
def face(sync: _signal.PersistSignalUtils) -> signal.PersistSignalUtils: ...
@overload
def face(sync: _signal.PersistSignalInstance) -> signal.PersistSignalInstance: ...
@overload
def face(sync: _schedule.PersistScheduleUtils) -> schedule.PersistScheduleUtils: ...
@overload
def face(sync: _schedule.PersistScheduleInstance) -> schedule.PersistScheduleInstance: ...
@overload
def face(sync: _strategy.PersistStrategyUtils) -> strategy.PersistStrategyUtils: ...
@overload
def face(sync: _strategy.PersistStrategyInstance) -> strategy.PersistStrategyInstance: ...
@overload
def face(sync: _risk.PersistRiskUtils) -> risk.PersistRiskUtils: ...
@overload
def face(sync: _risk.PersistRiskInstance) -> risk.PersistRiskInstance: ...
@overload
def face(sync: _partial.PersistPartialUtils) -> partial.PersistPartialUtils: ...
@overload
def face(sync: _partial.PersistPartialInstance) -> partial.PersistPartialInstance: ...
@overload
def face(sync: _breakeven.PersistBreakevenUtils) -> breakeven.PersistBreakevenUtils: ...
@overload
def face(sync: _breakeven.PersistBreakevenInstance) -> breakeven.PersistBreakevenInstance: ...
@overload
def face(sync: _storage.PersistStorageUtils) -> storage.PersistStorageUtils: ...
@overload
def face(sync: _storage.PersistStorageInstance) -> storage.PersistStorageInstance: ...
@overload
def face(sync: _notification.PersistNotificationUtils) -> notification.PersistNotificationUtils: ...
@overload
def face(sync: _notification.PersistNotificationInstance) -> notification.PersistNotificationInstance: ...
@overload
def face(sync: _log.PersistLogUtils) -> log.PersistLogUtils: ...
@overload
def face(sync: _log.PersistLogInstance) -> log.PersistLogInstance: ...
@overload
def face(sync: _measure.PersistMeasureUtils) -> measure.PersistMeasureUtils: ...
@overload
def face(sync: _measure.PersistMeasureInstance) -> measure.PersistMeasureInstance: ...
@overload
def face(sync: _interval.PersistIntervalUtils) -> interval.PersistIntervalUtils: ...
@overload
def face(sync: _interval.PersistIntervalInstance) -> interval.PersistIntervalInstance: ...
@overload
def face(sync: _memory.PersistMemoryUtils) -> memory.PersistMemoryUtils: ...
@overload
def face(sync: _memory.PersistMemoryInstance) -> memory.PersistMemoryInstance: ...
@overload
def face(sync: _recent.PersistRecentUtils) -> recent.PersistRecentUtils: ...
@overload
def face(sync: _recent.PersistRecentInstance) -> recent.PersistRecentInstance: ...
@overload
def face(sync: _state.PersistStateUtils) -> state.PersistStateUtils: ...
@overload
def face(sync: _state.PersistStateInstance) -> state.PersistStateInstance: ...
@overload
def face(sync: _session.PersistSessionUtils) -> session.PersistSessionUtils: ...
@overload
def face(sync: _session.PersistSessionInstance) -> session.PersistSessionInstance: ...
@overload
def face(sync: _dictionary.PersistDictionaryUtils) -> dictionary.PersistDictionaryUtils: ...
@overload
def face(sync: _dictionary.PersistDictionaryInstance) -> dictionary.PersistDictionaryInstance: ...
@overload
def face(sync: DomainIds) -> AsyncIds: ...
@overload
def face(sync: Registry) -> AsyncRegistry: ...
def face(sync: Any) -> Any:
    """Return the awaitable version of an object of this library: the same names, awaitable.

    Args:
        sync: a registry, an adapter, an instance or an id cache

    Returns:
        an object of this module (``AsyncRegistry``, ``PersistSignalAdapter``, ...) over ``sync``

    Raises:
        InvalidTypeError: ``sync`` is something else

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.aio import face
        >>> await face(kit.PersistSignalAdapter).read_signal_data("BTCUSDT", "sma", "binance") is None
        True
    """
    if isinstance(sync, Registry):
        return AsyncRegistry(sync)
    if isinstance(sync, AdapterBase):
        return _ADAPTERS[sync._domain.name](sync)
    if isinstance(sync, InstanceBase):
        instance = object.__new__(_INSTANCES[sync._domain.name])
        instance.sync = sync
        return instance
    if isinstance(sync, DomainIds):
        return AsyncIds(sync)
    raise InvalidTypeError(f"expected a registry, an adapter, an instance or an id cache, got {type(sync).__name__}")
