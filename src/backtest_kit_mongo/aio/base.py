"""What the awaitable contracts share: the thread pool, async iterators, and the base classes of the generated ones.

Each method runs its synchronous counterpart in a thread pool, in a copy of the caller's context, so that ``simulated_time`` and
``pymongo.timeout`` apply. It does not use the asynchronous drivers, because those know neither the wire protocol nor the id caches.
Data in this process (the memory and dummy stores, candles in blocks) is returned at once, without a thread.

A call that may wait is awaitable, or it returns an async iterator (``list_*``, ``id_cache.keys``), which checks its arguments at its
first step. What only looks at this process is the same object as in the package (``stats``, ``get_config``, ``simulated_time``,
errors, ``to_pandas``).

Cancellation: a call that no thread has started is dropped. A running call is not interrupted: its thread finishes the exchange, so that
no connection is left in the middle of one, and the result is discarded. A cancelled write may or may not be stored; read to find out.

Cost with nearby servers (``bench/test_aio.py``): an awaited read takes 1.6 to 2 times as long as a synchronous one (about 100 us more).
1,000 gathered reads take 0.85 to 1.3 times as long as a synchronous loop (1.5 on one core), and ``read_many`` a 25th of either. With
1 ms to MongoDB, gathered reads take an eighth of the time of the loop, with 5 ms a 20th. Awaiting candles in blocks takes at most 2 us.
A pool of 32 threads, out of 4 to 48, is as fast as any with nearby servers, and the fastest with servers far away.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeVar, overload

from ..contracts.adapter_base import When
from ..stores.fork_safety import renew_after_fork
from ..stores.memory import DummyStore, MemoryStore
from ..stores.mongo.redis_ids import DomainIds

__all__ = ["AsyncAdapter", "AsyncFace", "AsyncIds", "AsyncInstance", "AsyncKeyedAdapter", "in_threads"]

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 32
_PAGE: Final = 500  # items that an async iterator reads per call to a thread


def _answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], call: Callable[..., T], *arguments: Any, **options: Any) -> None:
    """Run ``call`` in a thread and pass its outcome to ``answer``, in the event loop that awaits it."""
    try:
        result = call(*arguments, **options)
    except StopIteration as error:  # a future rejects it
        replacement = RuntimeError("coroutine raised StopIteration")
        replacement.__cause__ = error
        loop.call_soon_threadsafe(_resolve, answer, answer.set_exception, replacement)
    except BaseException as error:  # noqa: BLE001 - the awaiting caller gets all of them
        loop.call_soon_threadsafe(_resolve, answer, answer.set_exception, error)
    else:
        loop.call_soon_threadsafe(_resolve, answer, answer.set_result, result)


def _resolve(answer: asyncio.Future[T], set_outcome: Callable[[Any], None], outcome: Any) -> None:
    if not answer.done():  # it is done if it was cancelled
        set_outcome(outcome)


class _Pool:
    """The threads of this process. They start at the first use and end with ``close`` or with the interpreter."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without threads, since a fork does not copy them; see ``stores.fork_safety``."""
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def __reduce__(self) -> str:
        return "_pool"  # an awaitable function may be pickled with what it uses

    def submit(self, call: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
        """Start a call in a copy of the caller's context."""
        with self._lock:  # so that ``end`` cannot shut the pool down in between
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, "backtest-kit-mongo-aio")
            return self._threads.submit(copy_context().run, call, *arguments, **options)

    async def run(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Start a call and wait for its result. Not with asyncio.wrap_future: its two futures take as long as half a read."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        submitted = self.submit(_answer, loop, answer, call, *arguments, **options)
        try:
            return await answer
        except asyncio.CancelledError:
            submitted.cancel()  # drops the call if no thread has started it
            raise

    def end(self) -> None:
        """Let the threads end once all submitted calls are done. A later call starts new ones."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


_pool = _Pool()


class _Pages:
    """An iterator that another thread may advance each time. It may be closed while a thread advances it."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._items: Iterator[Any] | None = None
        self._closed = False

    def next(self) -> list[Any]:
        """Return the next items; an empty list at the end."""
        with self._lock:
            if self._closed:
                return []
            if self._items is None:
                self._items = self._start()
            return list(islice(self._items, _PAGE))

    def close(self) -> None:
        """End the iterator, and with it its cursor."""
        with self._lock:
            self._closed = True
            close = getattr(self._items, "close", None)
            if close is not None:
                close()


class _Cold(Exception):
    """The candles are not in blocks."""


class _Warm:
    """A mixin for an adapter or instance: it answers from blocks or raises _Cold."""

    def _window(self, *_: Any) -> Any:
        raise _Cold

    def _custom(self, *_: Any, **__: Any) -> Any:
        raise _Cold


def _warm_class(cls: type[Any]) -> type[Any]:
    warm_class: type[Any] | None = vars(cls).get("_warm_class")  # on the class, so that both are freed together
    if warm_class is None:
        warm_class = type(cls.__name__, (_Warm, cls), {})
        cls._warm_class = warm_class
    return warm_class


def _warm(sync: Any) -> Any:
    """Return an object that shares the attributes of ``sync``, but raises _Cold instead of using a store."""
    twin = object.__new__(_warm_class(type(sync)))
    twin.__dict__ = sync.__dict__
    return twin


def _in_memory(sync: Any) -> bool:
    """Return whether a call never waits: its records are objects of this process, and no class of the user serves the domain."""
    binding = sync._slot.binding
    return binding.custom is None and binding.store.__class__ in (MemoryStore, DummyStore)


def in_threads(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return the awaitable version of a function that may wait."""

    @wraps(function)
    async def call(*arguments: P.args, **options: P.kwargs) -> T:
        result = await _pool.run(function, *arguments, **options)
        if function.__name__ == "close":
            _pool.end()
        return result

    return call


async def _items(pages: _Pages) -> AsyncGenerator[Any, None]:
    try:
        more = True
        while more:
            page = await _pool.run(pages.next)
            more = len(page) == _PAGE
            for item in page:
                yield item
    finally:
        # Do not await it: the consumer may be cancelled or gone, and a thread may still be reading a page.
        _pool.submit(pages.close)


class AsyncFace:
    """The async face of an adapter, an instance or an id cache. ``sync`` is the synchronous object."""

    __slots__ = ("sync",)

    sync: Any

    if not TYPE_CHECKING:  # a type checker that sees __getattr__ would accept any name

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name == "sync":  # copy() looks names up before ``sync`` is set
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.sync, name)  # the context of an instance

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        from .registry import face  # it imports this module

        return face, (self.sync,)

    async def _wait(self, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a method that may wait."""
        return await _pool.run(method, *arguments, **options)

    async def _data(self, method: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Call a method that reads or writes records: at once if they are objects of this process."""
        if _in_memory(self.sync):
            return method(*arguments, **options)
        return await _pool.run(method, *arguments, **options)

    async def _candles(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method that reads candles: blocks first, since they answer before a thread could start."""
        method = getattr(self.sync, name)
        if _in_memory(self.sync):
            return method(*arguments, **options)
        try:
            return getattr(_warm(self.sync), name)(*arguments, **options)
        except _Cold:
            return await _pool.run(method, *arguments, **options)

    def _pages(self, method: Callable[..., Iterator[T]], *arguments: Any, **options: Any) -> AsyncGenerator[T, None]:
        """Iterate over the items of a method with this call's simulation time."""
        return _items(_Pages(partial(copy_context().run, method, *arguments, **options)))


class AsyncIds(AsyncFace):
    """The id cache of a domain, awaitable."""

    __slots__ = ()

    sync: DomainIds

    def __init__(self, sync: DomainIds) -> None:
        self.sync = sync

    async def get(self, *context: Any) -> str | None:
        """Return the id of the record named by ``context`` as Redis holds it (24 hexadecimal digits), or None."""
        return await self._wait(self.sync.get, *context)

    async def has(self, *context: Any) -> bool:
        """Return whether Redis holds an id for the record named by ``context``."""
        return await self._wait(self.sync.has, *context)

    async def delete(self, *context: Any) -> bool:
        """Drop the id of the record named by ``context``, in this process and in Redis; return whether Redis held one."""
        return await self._wait(self.sync.delete, *context)

    def keys(self) -> AsyncGenerator[str, None]:
        """Iterate over the Redis keys of the domain. It uses SCAN, so a key may come twice."""
        return self._pages(self.sync.keys)

    async def size(self) -> int:
        """Return how many ids Redis holds for the domain."""
        return await self._wait(self.sync.size)

    async def clear(self) -> int:
        """Drop all ids of the domain, in this process and in Redis; return how many Redis held. No data is touched."""
        return await self._wait(self.sync.clear)


class AsyncInstance(AsyncFace):
    """A contract with its context given once, awaitable."""

    __slots__ = ()

    _sync_class: ClassVar[type[Any]]

    async def wait_for_init(self, initial: bool = True) -> None:
        """Wait until the store is ready; return at once if not ``initial``. Raises ServerTimeoutError after 15 s."""
        await self._wait(self.sync.wait_for_init, initial)


class AsyncAdapter(AsyncFace):
    """A contract with its context in every call, awaitable."""

    __slots__ = ()

    @property
    def id_cache(self) -> AsyncIds:
        """The id cache of this domain, awaitable."""
        return AsyncIds(self.sync.id_cache)

    async def use_mongo(self) -> None:
        """Serve the domain from MongoDB and Redis."""
        await self._wait(self.sync.use_mongo)

    async def use_json(self) -> None:
        """Serve the domain from JSON files below ``CC_DUMP_DIR``, in the layout of the TypeScript package."""
        await self._wait(self.sync.use_json)

    async def use_memory(self) -> None:
        """Serve the domain from a new, empty store in this process."""
        await self._wait(self.sync.use_memory)

    async def use_dummy(self) -> None:
        """Serve the domain from a store that keeps nothing."""
        await self._wait(self.sync.use_dummy)

    async def clear(self) -> None:
        """Drop the instances of a class of yours, and the ids (or candles) cached in this process. No stored data is touched."""
        await self._wait(self.sync.clear)


class AsyncKeyedAdapter(AsyncAdapter):
    """An awaitable adapter of a domain with one record per key: adds batches and compare-and-set."""

    __slots__ = ()

    @overload
    async def read_many(self, contexts: Iterable[Sequence[Any]], *, type: None = None) -> list[Any]: ...
    @overload
    async def read_many(self, contexts: Iterable[Sequence[Any]], *, type: type[T]) -> list[T | None]: ...
    async def read_many(self, contexts: Iterable[Sequence[Any]], *, type: Any = None) -> Any:
        """Read many records, as ``KeyedAdapterBase.read_many`` does.

        Args:
            contexts: one tuple per record: the arguments of the single read without ``when``
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the bodies in the order of ``contexts``

        Examples:
            >>> from backtest_kit_mongo.aio import PersistSignalAdapter
            >>> await PersistSignalAdapter.read_many([("BTCUSDT", "sma", "binance")])
            [None]
        """
        return await self._data(self.sync.read_many, contexts, type=type)

    async def write_many(self, items: Iterable[Sequence[Any]]) -> None:
        """Write many records, as ``KeyedAdapterBase.write_many`` does.

        Args:
            items: one tuple per record: the arguments of the single write

        Examples:
            >>> from backtest_kit_mongo.aio import PersistSignalAdapter
            >>> await PersistSignalAdapter.write_many([({"id": "s1"}, "BTCUSDT", "sma", "binance")])
        """
        await self._data(self.sync.write_many, items)

    async def update(self, context: Sequence[Any], change: Callable[[Any], Any], when: When | None = None) -> None:
        """Change a record by compare-and-set, as ``KeyedAdapterBase.update`` does.

        Args:
            context: which record: a tuple of the single read's arguments without ``when``
            change: a synchronous function from the value to the new one. It is called in a thread, perhaps more than once
            when: the simulation time of the write, for a domain that has one: an aware datetime, or ms since 1970 (UTC)

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStateAdapter
            >>> await PersistStateAdapter.update(("s1", "levels"), lambda row: {"data": 1}, 1704067200000)
        """
        await self._data(self.sync.update, context, change, when)
