"""Simulation time: what "now" means for reads that are told no time of their own."""

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
"""The last time that JavaScript's Date knows, in ms; the first one is as far before 1970. A double holds every ms between them."""

NOW: Final[ContextVar[int | None]] = ContextVar("backtest_kit_mongo_simulation_time", default=None)
"""The simulation time in ms; None: there is none. A context variable, so that two runs in two threads or tasks have each their own."""


def milliseconds(name: str, value: Any) -> int:
    """A point in time as ms since the epoch, from an aware datetime or an int; InvalidTypeError or InvalidValueError if neither."""
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
            raise InvalidValueError(f"{name} {number} is no time in ms", hint="milliseconds since 1970, not micro- or nanoseconds")
    raise InvalidTypeError(f"{name} must be an aware datetime or an int (ms since the epoch), got {type(value).__name__}")


@contextmanager
def simulated_time(when: datetime | int | None) -> Iterator[None]:
    """Let reads inside the block take ``when`` (an aware datetime or ms) as the time it is; None: they know no time.

    What it was before comes back at the end of the block. Blocks nest; each thread and each task has its own. With ``look_ahead`` at
    "hide" or "raise" a read then never gives what was written at a later time, with ``history`` it gives what was there at that time.
    """
    token = NOW.set(None if when is None else milliseconds("when", when))
    try:
        yield
    finally:
        with suppress(ValueError):  # an async generator that another task closes: its time ended with its own task
            NOW.reset(token)
