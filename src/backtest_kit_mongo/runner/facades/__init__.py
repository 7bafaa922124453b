"""What a strategy keeps between two calls: its own records through the contracts, found by the run in which it is called.

Every facade works in the registry of the run, at its simulation time, and keeps nothing in this process: two processes, or a run
after a restart, see what is stored. A strategy imports them from ``backtest_kit_mongo.runner``.
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
