"""What user code registers under a name: strategies, risks, exchanges, brokers, frames."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ..arguments import text
from ..errors import InvalidTypeError, InvalidValueError
from ..logs import log

__all__ = ["CallSite", "Registered", "Registrations", "call_site", "check_awaited", "check_function", "check_name", "is_async"]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What all registered items have: a name, and where they were registered."""

    name: str
    """The name."""
    file: str
    """The file that registered it."""
    registered_at: str
    """The ``file:line`` that registered it."""
    in_main: bool = False
    """Whether code of ``__main__`` registered it: a notebook, the interactive prompt, or the script that was started."""

    @property
    def place(self) -> str:
        """The old name of ``registered_at``."""
        warnings.warn("use registered_at instead of place", DeprecationWarning, stacklevel=2)
        return self.registered_at


T = TypeVar("T", bound=Registered)


class Registrations(Generic[T]):
    """Items by name, in registration order. Errors call an item ``noun``, and name ``adding`` as the function that adds one."""

    def __init__(self, noun: str, adding: str) -> None:
        self._noun, self._adding = noun, adding
        self._plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
        self._items: dict[str, T] = {}
        self._replaced: set[str] = set()
        self._lock = threading.Lock()

    def add(self, item: T) -> None:
        """Register ``item``.

        If its name is taken, and ``__main__`` made both registrations, ``item`` replaces the former one: a notebook runs a cell again. A
        UserWarning says so, once for each name, and a log message each time. A run that has begun keeps its strategy, risk and broker,
        and asks the new exchange. Otherwise raises InvalidValueError, naming both registrations.
        """
        with self._lock:
            former = self._items.get(item.name)
            if former is None or (former.in_main and item.in_main):
                self._items[item.name] = item
                first = item.name not in self._replaced
                if former is not None:
                    self._replaced.add(item.name)
            else:
                raise InvalidValueError(
                    f"{self._noun} {item.name!r} at {item.registered_at} is already registered at {former.registered_at}",
                    hint=f"choose another name, or call clear_{self._plural}() first, which forgets all {self._plural}",
                )
        if former is not None:
            note = f"{self._noun} {item.name!r} at {item.registered_at} replaces the one registered at {former.registered_at}"
            log("info", note)
            if first:  # a notebook shows warnings, but not what the library logs
                line = int(item.registered_at.rpartition(":")[2])
                warnings.warn_explicit(f"{note}; this is said once for each name", UserWarning, item.file, line)

    def list(self) -> tuple[T, ...]:
        """Return all items."""
        with self._lock:
            return tuple(self._items.values())

    def find(self, name: str | None) -> T:
        """Return the item with that name, or the only item if None. Raises InvalidValueError, listing the names, otherwise."""
        items = {item.name: item for item in self.list()}
        listed = ", ".join(map(repr, items))
        if name in items:
            return items[name]
        if name is not None:
            raise InvalidValueError(
                f"no {self._noun} {name!r} is registered", hint=f"register it with {self._adding}; registered so far: {listed or 'none'}"
            )
        if not items:
            raise InvalidValueError(f"no {self._noun} is registered", hint=f"register one with {self._adding}")
        if len(items) > 1:
            raise InvalidValueError(f"{len(items)} {self._plural} are registered; name one of them: {listed}")
        return next(iter(items.values()))

    def restore(self, items: Iterable[T]) -> None:
        """Replace the registered items with ``items``."""
        by_name = {item.name: item for item in items}
        with self._lock:
            self._items = by_name
            self._replaced &= by_name.keys()


class CallSite(NamedTuple):
    """Where an item was registered; see ``Registered``."""

    file: str
    registered_at: str
    in_main: bool


def call_site(depth: int = 2) -> CallSite:
    """Return the place of the code that called this function's caller (``depth`` frames up)."""
    caller = sys._getframe(depth)
    # Each run of a notebook cell has another file name, but all cells are code of __main__.
    return CallSite(
        file=caller.f_code.co_filename,
        registered_at=f"{caller.f_code.co_filename}:{caller.f_lineno}",
        in_main=caller.f_globals.get("__name__") == "__main__",
    )


def is_async(function: object) -> bool:
    """Return whether ``function`` is an ``async def``, a partial of one, or an object with an async ``__call__``."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


def check_function(what: str, function: object, arguments: tuple[str, ...], *, may_be_async: bool = False) -> Callable[..., Any]:
    """Return ``function`` if it takes ``arguments`` by position and is not a generator.

    Raises InvalidTypeError, naming ``what``; also for an async function, unless it ``may_be_async``.
    """
    if not callable(function):
        raise InvalidTypeError(f"{what} must be a function, got {type(function).__name__}")
    for called in (function, type(function).__call__):  # the first sees through a partial
        if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
            raise InvalidTypeError(f"{what} must be a function that returns, not a generator")
    if is_async(function) and not may_be_async:
        raise InvalidTypeError(f"{what} must be a plain function, not an async function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature to check
        return function
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InvalidTypeError(f"{what} must take ({', '.join(arguments)}), but takes {signature}") from None
    return function


def check_awaited(what: str, answer: object) -> None:
    """Raise InvalidTypeError, naming ``what``, if a plain function returned an awaitable, which nobody would await."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()  # otherwise Python warns that it was never awaited, somewhere else
        raise InvalidTypeError(
            f"{what} returned an awaitable ({type(answer).__name__}), but is a plain function",
            hint="define it with async def and await inside it; the run awaits async functions",
        )


def check_name(what: str, name: object) -> str:
    """Return ``name`` if it can be part of a key and is readable text. Raises InvalidTypeError or InvalidValueError."""
    name = text(what, name)
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidValueError(f"{what} is {name!r}; it must be printable text without leading or trailing spaces")
    return name
