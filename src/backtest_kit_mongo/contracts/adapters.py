# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The public names of the contracts: ``Persist*Adapter`` and ``Persist*Instance`` of the default registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..domains import Domain
from .adapter_base import AdapterBase
from .default_registry import default_registry

__all__ = [
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
]

if TYPE_CHECKING:
    from .generated.breakeven import PersistBreakevenInstance
    from .generated.candle import PersistCandleInstance
    from .generated.dictionary import PersistDictionaryInstance
    from .generated.interval import PersistIntervalInstance
    from .generated.log import PersistLogInstance
    from .generated.measure import PersistMeasureInstance
    from .generated.memory import PersistMemoryInstance
    from .generated.notification import PersistNotificationInstance
    from .generated.partial import PersistPartialInstance
    from .generated.recent import PersistRecentInstance
    from .generated.risk import PersistRiskInstance
    from .generated.schedule import PersistScheduleInstance
    from .generated.session import PersistSessionInstance
    from .generated.signal import PersistSignalInstance
    from .generated.state import PersistStateInstance
    from .generated.storage import PersistStorageInstance
    from .generated.strategy import PersistStrategyInstance
else:
    PersistCandleInstance = default_registry.PersistCandleInstance
    PersistSignalInstance = default_registry.PersistSignalInstance
    PersistScheduleInstance = default_registry.PersistScheduleInstance
    PersistStrategyInstance = default_registry.PersistStrategyInstance
    PersistRiskInstance = default_registry.PersistRiskInstance
    PersistPartialInstance = default_registry.PersistPartialInstance
    PersistBreakevenInstance = default_registry.PersistBreakevenInstance
    PersistStorageInstance = default_registry.PersistStorageInstance
    PersistNotificationInstance = default_registry.PersistNotificationInstance
    PersistLogInstance = default_registry.PersistLogInstance
    PersistMeasureInstance = default_registry.PersistMeasureInstance
    PersistIntervalInstance = default_registry.PersistIntervalInstance
    PersistMemoryInstance = default_registry.PersistMemoryInstance
    PersistRecentInstance = default_registry.PersistRecentInstance
    PersistStateInstance = default_registry.PersistStateInstance
    PersistSessionInstance = default_registry.PersistSessionInstance
    PersistDictionaryInstance = default_registry.PersistDictionaryInstance

PersistCandleAdapter: Final = default_registry.PersistCandleAdapter
PersistSignalAdapter: Final = default_registry.PersistSignalAdapter
PersistScheduleAdapter: Final = default_registry.PersistScheduleAdapter
PersistStrategyAdapter: Final = default_registry.PersistStrategyAdapter
PersistRiskAdapter: Final = default_registry.PersistRiskAdapter
PersistPartialAdapter: Final = default_registry.PersistPartialAdapter
PersistBreakevenAdapter: Final = default_registry.PersistBreakevenAdapter
PersistStorageAdapter: Final = default_registry.PersistStorageAdapter
PersistNotificationAdapter: Final = default_registry.PersistNotificationAdapter
PersistLogAdapter: Final = default_registry.PersistLogAdapter
PersistMeasureAdapter: Final = default_registry.PersistMeasureAdapter
PersistIntervalAdapter: Final = default_registry.PersistIntervalAdapter
PersistMemoryAdapter: Final = default_registry.PersistMemoryAdapter
PersistRecentAdapter: Final = default_registry.PersistRecentAdapter
PersistStateAdapter: Final = default_registry.PersistStateAdapter
PersistSessionAdapter: Final = default_registry.PersistSessionAdapter
PersistDictionaryAdapter: Final = default_registry.PersistDictionaryAdapter


def adapter_of(domain: Domain) -> AdapterBase:
    """Return the adapter of a domain in the default registry."""
    return default_registry.adapter(domain.name)
