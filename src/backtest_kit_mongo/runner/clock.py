"""Simulation time: what "now" means inside a run."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from typing import Final

from ..errors import BacktestKitError, ConfigError, InvalidTypeError, InvalidValueError
from ..simulation import NOW

__all__ = [
    "MINUTE_MS", "OutsideRunError", "advance_to", "as_datetime", "check_ms", "current_time_ms", "iso_time", "schedule_minutes",
    "tick_seconds",
]  # fmt: skip

MINUTE_MS: Final = 60_000
"""The step of the simulation in ms."""


class OutsideRunError(BacktestKitError, RuntimeError):
    """A function that needs a run was called outside one, or no matching run is active."""


def advance_to(when_ms: int) -> None:
    """Set the simulation time (ms) of the run on this thread."""
    NOW.set(when_ms)


def current_time_ms(caller: str) -> int:
    """Return the simulation time in ms. Raises OutsideRunError, naming ``caller``, outside a run."""
    now = NOW.get()
    if now is None:
        raise OutsideRunError(
            f"{caller} was called outside a run, where there is no simulation time",
            hint="call it from the function that you passed to add_strategy, in the thread on which the run calls that function",
        )
    return now


def as_datetime(ms: int) -> datetime:
    """Convert a time in ms to an aware datetime in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def iso_time(ms: int) -> str:
    """Format a time in ms for messages: ``2023-03-01T00:05:00Z``, or the plain number of ms beyond the year 9999."""
    try:
        moment = as_datetime(ms)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


def check_ms(name: str, value: object, *, step_ms: int = MINUTE_MS) -> int:
    """Return ``value`` if it is an int (ms) on the grid of ``step_ms``. Raises InvalidTypeError or InvalidValueError, naming ``name``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} must be an int (milliseconds since 1970, UTC), got {type(value).__name__}")
    if value < 0 or value % step_ms:
        raise InvalidValueError(f"{name} is {value} ({iso_time(value)}), which is not a multiple of {step_ms} ms since 1970")
    return value


def tick_seconds() -> float:
    """Return how often a live run polls the market, in seconds: ``CC_TICK_SECONDS`` from the environment, 60 by default."""
    return _positive("CC_TICK_SECONDS", 60.0, most=60.0)


def schedule_minutes() -> float:
    """Return how many minutes a signal waits for its price: ``CC_SCHEDULE_AWAIT_MINUTES`` from the environment, 120 by default."""
    return _positive("CC_SCHEDULE_AWAIT_MINUTES", 120.0, most=math.inf)


def _positive(name: str, default: float, *, most: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise ConfigError(f"{name} is {text!r}; it must be a number above 0{'' if most == math.inf else f', up to {most:g}'}")
    return value
