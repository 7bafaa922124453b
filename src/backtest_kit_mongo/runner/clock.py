"""Simulation time: what "now" means inside a run."""

from __future__ import annotations

from typing import Final

from ..arguments import kind_of, whole_number
from ..errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ..simulation import as_datetime, current_time, iso_time

__all__ = ["MINUTE_MS", "OutsideRunError", "as_datetime", "check_ms", "current_time_ms", "iso_time"]

MINUTE_MS: Final = 60_000
"""The step of the simulation in ms."""


class OutsideRunError(BacktestKitError, RuntimeError):
    """A function that needs a run was called outside one, or no matching run is active.

    Call it in a strategy or callback, or name the run.
    """


def current_time_ms(caller: str) -> int:
    """Return the simulation time in ms. Raises OutsideRunError, naming ``caller``, outside a run."""
    now = current_time()
    if now is None:
        raise OutsideRunError(
            f"{caller} was called outside a run, where there is no simulation time",
            hint="call it from the function that you passed to add_strategy, in the thread on which the run calls that function",
        )
    return now


def check_ms(name: str, value: object, *, step_ms: int = MINUTE_MS) -> int:
    """Return ``value`` if it is an int (ms) on the grid of ``step_ms``. Raises InvalidTypeError or InvalidValueError, naming ``name``."""
    try:
        stamp = whole_number(name, value)
    except InvalidTypeError:
        raise InvalidTypeError(f"{name} must be an int (milliseconds since 1970, UTC), got {kind_of(value)}") from None
    if stamp < 0 or stamp % step_ms:
        raise InvalidValueError(f"{name} is {stamp} ({iso_time(stamp)}), which is not a multiple of {step_ms} ms since 1970")
    return stamp
