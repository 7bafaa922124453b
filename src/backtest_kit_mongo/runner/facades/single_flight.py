"""One caller at a time for a key, in threads and in tasks of any event loop alike; the others wait."""

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
    """A function asked, while it was being called, for the very value that it was called for."""


_mine: Final[ContextVar[frozenset[Hashable]]] = ContextVar("backtest_kit_mongo_flights", default=frozenset())


class SingleFlight:
    """Keys that somebody is busy with. A lock for each would do for threads, but a task that waits for one stops its whole loop."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with nobody busy; see ``stores.forks``."""
        self._lock = threading.Lock()
        self._going: dict[Hashable, Future[None]] = {}

    @contextmanager
    def one(self, key: Hashable) -> Iterator[None]:
        """Wait until nobody is busy with ``key``, and be the one who is; NestedCallError for who is already."""
        while (other := self._enter(key)) is not None:
            other.result()
        with self._flying(key):
            yield

    @asynccontextmanager
    async def one_async(self, key: Hashable) -> AsyncIterator[None]:
        """The same for a task."""
        while (other := self._enter(key)) is not None:
            await asyncio.wrap_future(other)
        with self._flying(key):
            yield

    def _enter(self, key: Hashable) -> Future[None] | None:
        """Who is busy with ``key``; None: now the caller is."""
        if key in _mine.get():
            raise NestedCallError(f"a call for {key!r} asks for itself", hint="the function must not call itself with the same arguments")
        with self._lock:
            other = self._going.get(key)
            if other is None:
                mine: Future[None] = Future()
                mine.set_running_or_notify_cancel()  # so that a waiting task that is cancelled does not cancel it
                self._going[key] = mine
            return other

    @contextmanager
    def _flying(self, key: Hashable) -> Iterator[None]:
        token = _mine.set(_mine.get() | {key})
        try:
            yield
        finally:
            _mine.reset(token)
            with self._lock:
                mine = self._going.pop(key)
            mine.set_result(None)


SINGLE_FLIGHT: Final = SingleFlight()
"""Those of this process."""
