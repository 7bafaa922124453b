"""The same names, awaitable: ``await PersistSignalAdapter.read_signal_data(...)``, ``async for key in PersistMeasureAdapter.list_...``.

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
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from inspect import isroutine
from itertools import islice
from typing import Any, Final, TypeVar

import backtest_kit_mongo as _kit

from .contracts.adapters import AdapterBase, InstanceBase, Registry
from .domains import DOMAINS
from .stores.fork_safety import renew_after_fork
from .stores.memory import DummyStore, MemoryStore
from .stores.mongo.redis_ids import DomainIds

T = TypeVar("T")

_THREADS: Final = 32
_PAGE: Final = 500  # items that an async iterator reads per call to a thread

# Functions that only look at this process, and so stay synchronous.
PLAIN: Final = frozenset(
    {"get_config", "profile", "reset_stats", "set_logger", "simulated_time", "stats", "to_arrow", "to_pandas", "to_polars"}
)

_OPERATIONS: Final = {call.name: call.operation for domain in DOMAINS.values() for call in domain.calls}
_KEYED: Final = frozenset({"read_many", "write_many", "update"})


def _answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], call: Callable[..., T], *arguments: Any, **options: Any) -> None:
    """Run ``call`` in a thread and pass its outcome to ``answer``, in the event loop that awaits it."""
    try:
        result = call(*arguments, **options)
    except StopIteration as error:  # a future rejects it
        replacement = RuntimeError("coroutine raised StopIteration")
        replacement.__cause__ = error
        loop.call_soon_threadsafe(_settle, answer, answer.set_exception, replacement)
    except BaseException as error:  # noqa: BLE001 - the awaiting caller gets all of them
        loop.call_soon_threadsafe(_settle, answer, answer.set_exception, error)
    else:
        loop.call_soon_threadsafe(_settle, answer, answer.set_result, result)


def _settle(answer: asyncio.Future[T], settle: Callable[[Any], None], outcome: Any) -> None:
    if not answer.done():  # it is done if it was cancelled
        settle(outcome)


class _Pool:
    """The threads of this process. They start at the first use and end with ``close`` or with the interpreter."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without threads, since a fork does not copy them; see ``stores.fork_safety``."""
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

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


def _once(make: Callable[[type[Any]], type[Any]]) -> Callable[[type[Any]], type[Any]]:
    """Call ``make`` once per class and store the result on the class, to free both together: every registry has its own classes."""
    name = f"_aio{make.__name__}"

    def made(cls: type[Any]) -> type[Any]:
        derived: type[Any] | None = vars(cls).get(name)
        if derived is None:
            derived = make(cls)
            setattr(cls, name, derived)
        return derived

    return made


class _Cold(Exception):
    """The candles are not in blocks."""


class _Warm:
    """A mixin for an adapter or instance: it answers from blocks or raises _Cold."""

    def _window(self, *_: Any) -> Any:
        raise _Cold

    def _custom(self, *_: Any, **__: Any) -> Any:
        raise _Cold


@_once
def _warm_class(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (_Warm, cls), {})


def _warm(sync: Any) -> Any:
    """Return an object that shares the attributes of ``sync``, but raises _Cold instead of using a store."""
    twin = object.__new__(_warm_class(type(sync)))
    twin.__dict__ = sync.__dict__
    return twin


def _in_memory(sync: Any) -> bool:
    """Return whether a call never waits: its records are objects of this process, and no class of the user serves the domain."""
    binding = sync._binding
    return binding.custom is None and binding.store.__class__ in (MemoryStore, DummyStore)


def _method(method: Any) -> Any:
    """Return the awaitable version of a method that may wait."""

    @wraps(method)
    async def call(self: Face, *arguments: Any, **options: Any) -> Any:
        return await _pool.run(method, self.sync, *arguments, **options)

    return call


def _data_method(method: Any) -> Any:
    """Return the awaitable version of a method that reads or writes records."""

    @wraps(method)
    async def call(self: Face, *arguments: Any, **options: Any) -> Any:
        if _in_memory(self.sync):
            return method(self.sync, *arguments, **options)
        return await _pool.run(method, self.sync, *arguments, **options)

    return call


def _candle_method(method: Any) -> Any:
    """Return the awaitable version of a method that reads candles: blocks first, since they answer before a thread could start."""

    @wraps(method)
    async def call(self: Face, *arguments: Any, **options: Any) -> Any:
        if _in_memory(self.sync):
            return method(self.sync, *arguments, **options)
        try:
            return method(_warm(self.sync), *arguments, **options)
        except _Cold:
            return await _pool.run(method, self.sync, *arguments, **options)

    return call


def _list_method(method: Any) -> Any:
    """Return the version of a method that iterates as an async iterator."""

    async def items(pages: _Pages) -> AsyncGenerator[Any, None]:
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

    @wraps(method)
    def start(self: Face, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        return items(_Pages(partial(copy_context().run, method, self.sync, *arguments, **options)))  # with this call's simulation time

    return start


class Face:
    """The async face of an adapter, an instance or an id cache. ``sync`` is the synchronous object."""

    __slots__ = ("sync",)

    sync: Any
    _class: type[Any]

    def __init__(self, *context: Any, **named: Any) -> None:
        self.sync = self._class(*context, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "sync":  # copy() looks names up before ``sync`` is set
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.sync, name)  # the context of an instance

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"


class _RegistryFace(Face):
    """The async face of a registry: its adapters and functions, by the same names."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _face_of(name, Face.__getattr__(self, name))

    def adapter(self, name: str) -> Any:
        """Return the adapter of a domain, such as ``signal``."""
        return face(self.sync.adapter(name))


def _bound(cls: type[Any], name: str) -> Any:
    """Return the awaitable version of the method ``name`` of a class."""
    method = getattr(cls, name)
    operation = _OPERATIONS.get(name)
    if operation in ("keys", "records") or (cls is DomainIds and name == "keys"):
        return _list_method(method)
    if operation in ("candles", "array"):
        return _candle_method(method)
    return _data_method(method) if operation is not None or name in _KEYED else _method(method)


@_once
def _face_class(cls: type[Any]) -> type[Any]:
    members: dict[str, Any] = {name: _bound(cls, name) for name in dir(cls) if not name.startswith("_") and isroutine(getattr(cls, name))}
    members |= {"__slots__": (), "__doc__": cls.__doc__, "__module__": __name__, "_class": cls}
    if issubclass(cls, AdapterBase):
        members["id_cache"] = property(lambda self: face(self.sync.id_cache), doc="The id cache of this domain, awaitable.")
    return type(cls.__name__, (Face,), members)


def face(sync: Any) -> Any:
    """Return the async face of a registry, an adapter, an instance or an id cache: the same names, awaitable."""
    async_face = object.__new__(_RegistryFace if isinstance(sync, Registry) else _face_class(type(sync)))
    async_face.sync = sync
    return async_face


def _function(name: str, function: Callable[..., T]) -> Any:
    @wraps(function)
    async def call(*arguments: Any, **options: Any) -> T:
        result = await _pool.run(function, *arguments, **options)
        if name == "close":
            _pool.end()
        return result

    return call


def _face_of(name: str, value: Any) -> Any:
    """Return what this module offers under a public name: ``value``, or its async version."""
    if isinstance(value, type):
        return _face_class(value) if issubclass(value, InstanceBase) else value
    if isinstance(value, (AdapterBase, InstanceBase)):
        return face(value)
    return _function(name, value) if isroutine(value) and name not in PLAIN else value


globals().update({name: _face_of(name, getattr(_kit, name)) for name in _kit.__all__})
__all__ = [*_kit.__all__, "face"]
