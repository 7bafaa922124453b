"""What user code registers under a name: strategies, risks, exchanges, brokers, frames."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from ..arguments import text
from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["Registered", "Registrations", "call_site", "check_function", "check_name"]


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What all registered items have: a name, the file that registered it, and ``registered_at``, the ``file:line``."""

    name: str
    file: str
    registered_at: str

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
        self._items: dict[str, T] = {}
        self._lock = threading.Lock()

    def add(self, item: T) -> None:
        """Register ``item``. Raises InvalidValueError, naming both registrations, if the name is taken."""
        with self._lock:
            other = self._items.setdefault(item.name, item)
        if other is not item:
            raise InvalidValueError(
                f"{self._noun} {item.name!r} at {item.registered_at} is already registered at {other.registered_at}",
                hint="choose another name",
            )

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
            plural = f"{self._noun[:-1]}ies" if self._noun.endswith("y") else f"{self._noun}s"
            raise InvalidValueError(f"{len(items)} {plural} are registered; name one of them: {listed}")
        return next(iter(items.values()))

    def restore(self, items: Iterable[T]) -> None:
        """Replace the registered items with ``items``."""
        by_name = {item.name: item for item in items}
        with self._lock:
            self._items = by_name


def call_site(depth: int = 2) -> tuple[str, str]:
    """Return the file, and ``file:line``, of the code that called this function's caller (``depth`` frames up)."""
    caller = sys._getframe(depth)
    return caller.f_code.co_filename, f"{caller.f_code.co_filename}:{caller.f_lineno}"


def check_function(what: str, function: object, arguments: tuple[str, ...]) -> Callable[..., Any]:
    """Return ``function`` if it is a plain function that takes ``arguments`` by position. Raises InvalidTypeError, naming ``what``."""
    if not callable(function):
        raise InvalidTypeError(f"{what} must be a function, got {type(function).__name__}")
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise InvalidTypeError(f"{what} must be a plain function, not an async function or a generator")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have no signature to check
        return function
    try:
        signature.bind(*arguments)
    except TypeError:
        raise InvalidTypeError(f"{what} must take ({', '.join(arguments)}), but takes {signature}") from None
    return function


def check_name(what: str, name: object) -> str:
    """Return ``name`` if it can be part of a key and is readable text. Raises InvalidTypeError or InvalidValueError."""
    name = text(what, name)
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidValueError(f"{what} is {name!r}; it must be printable text without leading or trailing spaces")
    return name
