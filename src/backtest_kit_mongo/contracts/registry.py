# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The registry: settings, stores and counters of a program or run, and the contracts over them."""

from __future__ import annotations

from typing import TypeVar

from ..domains import DOMAINS, DomainName
from .adapter_base import AdapterBase, InstanceBase
from .bindings import Bindings
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

__all__ = ["Registry"]

Instance = TypeVar("Instance", bound=InstanceBase)

_PUBLIC_NAMES = f"{__package__}.adapters"


class Registry(Bindings):
    """Settings, stores, counters and contracts of one run, independent of other registries in the same process.

    It has the functions and the ``Persist*`` names of the package as attributes: ``registry.setup(mode="live")``,
    ``registry.PersistSignalAdapter``, ``registry.PersistSignalInstance``. The package's own names belong to a default registry.

    A registry pickles by its settings, so that functions that use it, its adapters or instances can run in other processes.
    Passwords are not in the pickle: the other process takes each setting that contains one (of ``CC_MONGO_CONNECTION_STRING``,
    ``CC_REDIS_URL``, ``CC_REDIS_PASSWORD`` and ``CC_REDIS_SENTINEL``) from its own environment, where it must be the same apart
    from the password. Otherwise the first call raises NotConfiguredError. All pickles with the same settings become one registry
    there, with one set of connections. Stores in memory start empty; files are in the same absolute folder, and embedded servers
    are those of the first process. The default registry pickles by name: each process calls ``setup`` for its own. A copy of a
    registry is the registry itself.

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> paper = kit.Registry()
        >>> paper.setup(mode="paper", stores={"signal": "memory"})
        >>> paper.PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
        >>> paper.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
        {'id': 's1', 'priceOpen': 42000.0}
        >>> paper.close()
    """

    def __init__(self) -> None:
        super().__init__()
        self.PersistCandleAdapter: candle.PersistCandleUtils = candle.PersistCandleUtils(self)
        self.PersistCandleInstance: type[candle.PersistCandleInstance] = self._own(candle.PersistCandleInstance)
        self.PersistSignalAdapter: signal.PersistSignalUtils = signal.PersistSignalUtils(self)
        self.PersistSignalInstance: type[signal.PersistSignalInstance] = self._own(signal.PersistSignalInstance)
        self.PersistScheduleAdapter: schedule.PersistScheduleUtils = schedule.PersistScheduleUtils(self)
        self.PersistScheduleInstance: type[schedule.PersistScheduleInstance] = self._own(schedule.PersistScheduleInstance)
        self.PersistStrategyAdapter: strategy.PersistStrategyUtils = strategy.PersistStrategyUtils(self)
        self.PersistStrategyInstance: type[strategy.PersistStrategyInstance] = self._own(strategy.PersistStrategyInstance)
        self.PersistRiskAdapter: risk.PersistRiskUtils = risk.PersistRiskUtils(self)
        self.PersistRiskInstance: type[risk.PersistRiskInstance] = self._own(risk.PersistRiskInstance)
        self.PersistPartialAdapter: partial.PersistPartialUtils = partial.PersistPartialUtils(self)
        self.PersistPartialInstance: type[partial.PersistPartialInstance] = self._own(partial.PersistPartialInstance)
        self.PersistBreakevenAdapter: breakeven.PersistBreakevenUtils = breakeven.PersistBreakevenUtils(self)
        self.PersistBreakevenInstance: type[breakeven.PersistBreakevenInstance] = self._own(breakeven.PersistBreakevenInstance)
        self.PersistStorageAdapter: storage.PersistStorageUtils = storage.PersistStorageUtils(self)
        self.PersistStorageInstance: type[storage.PersistStorageInstance] = self._own(storage.PersistStorageInstance)
        self.PersistNotificationAdapter: notification.PersistNotificationUtils = notification.PersistNotificationUtils(self)
        self.PersistNotificationInstance: type[notification.PersistNotificationInstance] = self._own(
            notification.PersistNotificationInstance
        )
        self.PersistLogAdapter: log.PersistLogUtils = log.PersistLogUtils(self)
        self.PersistLogInstance: type[log.PersistLogInstance] = self._own(log.PersistLogInstance)
        self.PersistMeasureAdapter: measure.PersistMeasureUtils = measure.PersistMeasureUtils(self)
        self.PersistMeasureInstance: type[measure.PersistMeasureInstance] = self._own(measure.PersistMeasureInstance)
        self.PersistIntervalAdapter: interval.PersistIntervalUtils = interval.PersistIntervalUtils(self)
        self.PersistIntervalInstance: type[interval.PersistIntervalInstance] = self._own(interval.PersistIntervalInstance)
        self.PersistMemoryAdapter: memory.PersistMemoryUtils = memory.PersistMemoryUtils(self)
        self.PersistMemoryInstance: type[memory.PersistMemoryInstance] = self._own(memory.PersistMemoryInstance)
        self.PersistRecentAdapter: recent.PersistRecentUtils = recent.PersistRecentUtils(self)
        self.PersistRecentInstance: type[recent.PersistRecentInstance] = self._own(recent.PersistRecentInstance)
        self.PersistStateAdapter: state.PersistStateUtils = state.PersistStateUtils(self)
        self.PersistStateInstance: type[state.PersistStateInstance] = self._own(state.PersistStateInstance)
        self.PersistSessionAdapter: session.PersistSessionUtils = session.PersistSessionUtils(self)
        self.PersistSessionInstance: type[session.PersistSessionInstance] = self._own(session.PersistSessionInstance)
        self.PersistDictionaryAdapter: dictionary.PersistDictionaryUtils = dictionary.PersistDictionaryUtils(self)
        self.PersistDictionaryInstance: type[dictionary.PersistDictionaryInstance] = self._own(dictionary.PersistDictionaryInstance)

    def _own(self, cls: type[Instance]) -> type[Instance]:
        """Return the class of an instance for this registry."""
        # In this module pickle finds the classes of the default registry.
        members = {"_registry": self, "__module__": _PUBLIC_NAMES, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls,), members)

    def adapter(self, name: DomainName) -> AdapterBase:
        """Return the adapter of a domain.

        Args:
            name: the name of the domain, such as "signal"

        Returns:
            ``PersistSignalAdapter`` for "signal", and so on

        Raises:
            KeyError: there is no such domain

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.Registry().adapter('signal')
            <PersistSignalAdapter over MongoStore>
        """
        adapter: AdapterBase = getattr(self, f"Persist{DOMAINS[name].name.capitalize()}Adapter")
        return adapter
