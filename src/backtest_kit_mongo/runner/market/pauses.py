"""Pauses before the next request to an exchange. A run that is stopped does not sit out a long one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from .exchange import ExchangeUnavailableError

__all__ = ["LONG_PAUSE", "WaitStoppedError", "ended_by", "pause"]

LONG_PAUSE: Final = 5.0
"""Seconds. A shorter pause belongs to the minute that a stopped run still finishes."""
_SLICE: Final = 0.5
"""Seconds. Python handles Ctrl-C between two sleeps even if the system delivers the signal to another thread than the one that sleeps."""

_stop: Final[ContextVar[threading.Event | None]] = ContextVar("backtest_kit_mongo_stop", default=None)


class WaitStoppedError(ExchangeUnavailableError):
    """A run was stopped while it waited for an exchange that accepts no requests for a while."""


@contextmanager
def ended_by(stop: threading.Event) -> Iterator[None]:
    """Inside the block, let ``stop`` end long pauses of this thread."""
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def pause(seconds: float) -> None:
    """Wait. Raises WaitStoppedError if this is a long pause and the run is stopped."""
    stop = _stop.get() if seconds >= LONG_PAUSE else None
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        slice_seconds = min(left, _SLICE)
        if stop is None:
            time.sleep(slice_seconds)
        elif stop.wait(slice_seconds):
            raise WaitStoppedError("the run was stopped while it waited for the exchange to accept requests again")
