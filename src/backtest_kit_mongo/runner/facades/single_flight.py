"""One caller at a time per key, across threads and the tasks of any event loop; the others wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Hashable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final

from ...errors import BacktestKitError
from ...stores.fork_safety import renew_after_fork

__all__ = ["SINGLE_FLIGHT", "NestedCallError", "SingleFlight"]


class NestedCallError(BacktestKitError, RecursionError):
    """A function asked for the very value that it was being called to compute."""


_mine: Final[ContextVar[frozenset[Hashable]]] = ContextVar("backtest_kit_mongo_flights", default=frozenset())


class SingleFlight:
    """The keys that callers hold. A lock per key would do for threads, but a task that waits for a lock blocks its whole event loop."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with no key held, as a forked child must; see ``stores.fork_safety``."""
        self._lock = threading.Lock()
        self._going: dict[Hashable, Future[None]] = {}

    def __reduce__(self) -> str:
        return "SINGLE_FLIGHT"  # a decorated function may be pickled with what it uses

    @contextmanager
    def one(self, key: Hashable) -> Iterator[None]:
        """Wait until ``key`` is free and hold it during the block. Raises NestedCallError if the caller already holds it."""
        while (other := self._enter(key)) is not None:
            other.result()
        with self._flying(key):
            yield

    @asynccontextmanager
    async def one_async(self, key: Hashable) -> AsyncIterator[None]:
        """Do the same as ``one`` in a task."""
        while (other := self._enter(key)) is not None:
            await asyncio.wrap_future(other)
        with self._flying(key):
            yield

    def _enter(self, key: Hashable) -> Future[None] | None:
        """Take ``key`` and return None, or return the future of the caller that holds it."""
        if key in _mine.get():
            raise NestedCallError(f"recursive call for {key!r}", hint="the function must not call itself with the same arguments")
        with self._lock:
            other = self._going.get(key)
            if other is None:
                flight: Future[None] = Future()
                flight.set_running_or_notify_cancel()  # so that a cancelled waiting task does not cancel it
                self._going[key] = flight
            return other

    @contextmanager
    def _flying(self, key: Hashable) -> Iterator[None]:
        token = _mine.set(_mine.get() | {key})
        try:
            yield
        finally:
            _mine.reset(token)
            with self._lock:
                flight = self._going.pop(key)
            flight.set_result(None)


SINGLE_FLIGHT: Final = SingleFlight()
"""The keys held in this process."""
