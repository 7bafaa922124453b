"""The same names, awaitable: ``await PersistSignalAdapter.read_signal_data(...)``, ``async for key in PersistMeasureAdapter.list_...``.

Nothing is implemented again: each method runs its synchronous twin in a pool of threads, in a copy of the caller's context, so that
``simulated_time`` and ``pymongo.timeout`` hold there. Threads, and not the asynchronous drivers, since those know neither the wire lane
nor the id caches. What lies in this process (the memory and dummy stores, candles in blocks) is answered at once, without a thread.

Everything that may wait is awaitable, or an async iterator (``list_*``, ``id_cache.keys``), which checks its arguments at its first step.
What only looks at this process is the same object as at the top (``stats``, ``get_config``, ``simulated_time``, errors, ``to_pandas``).

Cancellation: a call that no thread has begun is dropped. One that runs is not interrupted: its thread ends the exchange, so that no
connection is left in between, and its answer is thrown away. A cancelled write may therefore have been done or not; read to know.

What it costs, servers near (``bench/test_aio.py``): an awaited read takes 1.6 to 2 times the synchronous one (about 100 us more), 1,000
gathered reads 0.85 to 1.3 times a loop of synchronous ones (1.5 on one core), and ``read_many`` a 25th of either. With 1 ms to MongoDB
the gathered ones take an eighth of the loop, with 5 ms a 20th. Candles in blocks are awaited within 2 us. Of 4 to 48 threads, 32 are
as good as any near and the best far away.
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
_PAGE: Final = 500  # items that an async iterator takes from its synchronous twin at once

# Functions that look at this process alone.
PLAIN: Final = frozenset(
    {"get_config", "profile", "reset_stats", "set_logger", "simulated_time", "stats", "to_arrow", "to_pandas", "to_polars"}
)

_OPERATIONS: Final = {call.name: call.operation for domain in DOMAINS.values() for call in domain.calls}
_KEYED: Final = frozenset({"read_many", "write_many", "update"})


def _answer(loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], call: Callable[..., T], *arguments: Any, **options: Any) -> None:
    """In a thread: make the call, and hand its outcome to the loop of who awaits it."""
    try:
        result = call(*arguments, **options)
    except StopIteration as error:  # which no future takes
        made = RuntimeError("coroutine raised StopIteration")
        made.__cause__ = error
        loop.call_soon_threadsafe(_settle, answer, answer.set_exception, made)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is for who awaits
        loop.call_soon_threadsafe(_settle, answer, answer.set_exception, error)
    else:
        loop.call_soon_threadsafe(_settle, answer, answer.set_result, result)


def _settle(answer: asyncio.Future[T], settle: Callable[[Any], None], outcome: Any) -> None:
    if not answer.done():  # cancelled
        settle(outcome)


class _Pool:
    """The threads of this process: made at the first use, ended by ``close``, and otherwise with the interpreter."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without threads, which a fork does not bring along; see ``stores.forks``."""
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def submit(self, call: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
        """Begin a call in the caller's context."""
        with self._lock:  # so that ``end`` does not come between
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, "backtest-kit-mongo-aio")
            return self._threads.submit(copy_context().run, call, *arguments, **options)

    async def run(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Begin a call, and wait for its answer. Without asyncio.wrap_future, whose two futures take as long as half of a read."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        begun = self.submit(_answer, loop, answer, call, *arguments, **options)
        try:
            return await answer
        except asyncio.CancelledError:
            begun.cancel()  # which drops it, if no thread is at it yet
            raise

    def end(self) -> None:
        """Let the threads end once what was submitted is done; a later call makes new ones."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)


_pool = _Pool()


class _Pages:
    """An iterator that threads advance, each time another one; it may be closed while one of them is at it."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._lock = threading.Lock()
        self._start = start
        self._items: Iterator[Any] | None = None
        self._closed = False

    def next(self) -> list[Any]:
        """The next items; none: it has ended."""
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
    """Make it once for each class and keep it there, so that it goes when the class does: every registry has classes of its own."""
    name = f"_aio{make.__name__}"

    def made(cls: type[Any]) -> type[Any]:
        found: type[Any] | None = vars(cls).get(name)
        if found is None:
            found = make(cls)
            setattr(cls, name, found)
        return found

    return made


class _Cold(Exception):
    """The candles are not in blocks."""


class _Warm:
    """Before an adapter or instance: it answers from blocks, or not at all."""

    def _window(self, *_: Any) -> Any:
        raise _Cold

    def _custom(self, *_: Any, **__: Any) -> Any:
        raise _Cold


@_once
def _warm_class(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (_Warm, cls), {})


def _warm(sync: Any) -> Any:
    """``sync`` itself, its attributes shared, but for what would need a store."""
    twin = object.__new__(_warm_class(type(sync)))
    twin.__dict__ = sync.__dict__
    return twin


def _in_memory(sync: Any) -> bool:
    """Whether a call cannot wait: its records are objects of this process, and no class of the user's stands before them."""
    binding = sync._binding
    return binding.custom is None and binding.store.__class__ in (MemoryStore, DummyStore)


def _method(method: Any) -> Any:
    """A method that may wait."""

    @wraps(method)
    async def call(self: Face, *arguments: Any, **options: Any) -> Any:
        return await _pool.run(method, self.sync, *arguments, **options)

    return call


def _data_method(method: Any) -> Any:
    """A method that reads or writes records."""

    @wraps(method)
    async def call(self: Face, *arguments: Any, **options: Any) -> Any:
        if _in_memory(self.sync):
            return method(self.sync, *arguments, **options)
        return await _pool.run(method, self.sync, *arguments, **options)

    return call


def _candle_method(method: Any) -> Any:
    """A method that reads candles: a warm block answers sooner than a thread could begin."""

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
    """A method that iterates."""

    async def items(pages: _Pages) -> AsyncGenerator[Any, None]:
        try:
            more = True
            while more:
                page = await _pool.run(pages.next)
                more = len(page) == _PAGE
                for item in page:
                    yield item
        finally:
            # Not awaited: the consumer may be cancelled, or gone, and a page may still be on its way.
            _pool.submit(pages.close)

    @wraps(method)
    def start(self: Face, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        return items(_Pages(partial(copy_context().run, method, self.sync, *arguments, **options)))  # as of the time it is now

    return start


class Face:
    """The async face of an adapter, an instance or an id cache, which is ``sync``."""

    __slots__ = ("sync",)

    sync: Any
    _class: type[Any]

    def __init__(self, *context: Any, **named: Any) -> None:
        self.sync = self._class(*context, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "sync":  # the latter: not made yet, as in copy()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.sync, name)  # the context of an instance

    def __repr__(self) -> str:
        return f"<async {self.sync!r}>"


class _RegistryFace(Face):
    """The async face of a registry: its adapters and functions under their names."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return _face_of(name, Face.__getattr__(self, name))

    def adapter(self, name: str) -> Any:
        """The adapter of a domain (``signal``)."""
        return face(self.sync.adapter(name))


def _bound(cls: type[Any], name: str) -> Any:
    """The awaitable twin of a class's method."""
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
        members["id_cache"] = property(lambda self: face(self.sync.id_cache), doc="The ids of this domain, as at the top, awaitable.")
    return type(cls.__name__, (Face,), members)


def face(sync: Any) -> Any:
    """The async face of a registry, or of one adapter, instance or id cache: the same names, awaitable."""
    made = object.__new__(_RegistryFace if isinstance(sync, Registry) else _face_class(type(sync)))
    made.sync = sync
    return made


def _function(name: str, function: Callable[..., T]) -> Any:
    @wraps(function)
    async def call(*arguments: Any, **options: Any) -> T:
        answer = await _pool.run(function, *arguments, **options)
        if name == "close":
            _pool.end()
        return answer

    return call


def _face_of(name: str, value: Any) -> Any:
    """What stands for a public name."""
    if isinstance(value, type):
        return _face_class(value) if issubclass(value, InstanceBase) else value
    if isinstance(value, (AdapterBase, InstanceBase)):
        return face(value)
    return _function(name, value) if isroutine(value) and name not in PLAIN else value


globals().update({name: _face_of(name, getattr(_kit, name)) for name in _kit.__all__})
__all__ = [*_kit.__all__, "face"]
