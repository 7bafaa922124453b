"""Records that a strategy keeps between calls, stored through the contracts and bound to the run that calls it.

Every facade uses the registry and the simulation time of its run and keeps nothing in this process, so another process, or a run
after a restart, sees what is stored. Strategies import facades from ``backtest_kit_mongo.runner``.
"""

from .interval import Interval
from .measure import CachedFunction, Measure
from .memory import Memory, Remembered
from .messages import Log, Notification
from .run_scope import NoSignalError
from .session import Session
from .signals import Recent, Storage
from .single_flight import NestedCallError
from .state import State

__all__ = [
    "CachedFunction",
    "Interval",
    "Log",
    "Measure",
    "Memory",
    "NestedCallError",
    "NoSignalError",
    "Notification",
    "Recent",
    "Remembered",
    "Session",
    "State",
    "Storage",
]
