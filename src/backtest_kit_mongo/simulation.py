"""Simulation time: what "now" means for reads that pass no time of their own."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

import numpy as np

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["NOW", "milliseconds", "simulated_time"]

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

LATEST: Final = 8_640_000_000_000_000
"""The last time a JavaScript Date can hold, in ms; the first is as far before 1970. A double holds every ms in between exactly."""

NOW: Final[ContextVar[int | None]] = ContextVar("backtest_kit_mongo_simulation_time", default=None)
"""The simulation time in ms, None if there is none. A context variable, so that runs in different threads or tasks each have their own."""


def milliseconds(name: str, value: Any) -> int:
    """Return an aware datetime or an int as ms since the epoch. Raises InvalidTypeError or InvalidValueError for anything else."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidValueError(f"{name} is a naive datetime", hint="give it a time zone, as in datetime.now(timezone.utc)")
        delta = value - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if -LATEST <= number <= LATEST:
                return number
            raise InvalidValueError(
                f"{name} {number} is not a timestamp in milliseconds", hint="pass milliseconds since 1970, not micro- or nanoseconds"
            )
    raise InvalidTypeError(f"{name} must be an aware datetime or an int (ms since the epoch), got {type(value).__name__}")


@contextmanager
def simulated_time(when: datetime | int | None) -> Iterator[None]:
    """Make reads inside the block use ``when`` (an aware datetime or ms) as the current time; None: they have no simulation time.

    The end of the block restores the previous time. Blocks nest; each thread and each task has its own time. With ``look_ahead`` set
    to "hide" or "raise", a read never returns what was written at a later time; with ``history``, it returns what was stored at ``when``.
    """
    token = NOW.set(None if when is None else milliseconds("when", when))
    try:
        yield
    finally:
        with suppress(ValueError):  # another task closed an async generator; the time ended with the task that set it
            NOW.reset(token)
