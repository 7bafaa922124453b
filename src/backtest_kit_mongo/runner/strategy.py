"""Strategies: the registration of user functions under names, and what is said when one of them fails."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, overload

import msgspec

from ..candles import interval_ms
from ..errors import BacktestKitError, InvalidTypeError, InvalidValueError

__all__ = [
    "BadSignalError",
    "GetSignal",
    "Strategy",
    "StrategyError",
    "add_strategy",
    "clear_strategies",
    "find_strategy",
    "list_strategies",
]

GetSignal = Callable[[str, datetime], Mapping[str, Any] | None]
"""``get_signal(symbol, when)``: None, or the signal as a dict; ``when`` is the simulation time, an aware datetime in UTC."""

F = TypeVar("F", bound=Callable[..., Any])


class StrategyError(BacktestKitError, RuntimeError):
    """User code failed: a strategy raised, or its file could not be loaded. ``__cause__`` is what it raised."""


class BadSignalError(StrategyError, ValueError):
    """A strategy returned something that is no valid signal."""


class Strategy(msgspec.Struct, frozen=True):
    """A registered strategy; ``interval_ms`` (ms) is how often it is asked, ``place`` is ``file:line`` of its registration."""

    name: str
    interval: str
    interval_ms: int
    risk_name: str
    get_signal: GetSignal
    file: str
    place: str


_strategies: dict[str, Strategy] = {}
_lock = threading.Lock()


@overload
def add_strategy(name: str, interval: str = "5m", *, risk_name: str | None = None) -> Callable[[F], F]: ...
@overload
def add_strategy(name: str, interval: str = "5m", *, get_signal: F, risk_name: str | None = None) -> F: ...
def add_strategy(name: str, interval: str = "5m", *, get_signal: Any = None, risk_name: str | None = None) -> Any:
    """Register a strategy, as ``add_strategy("x", interval="5m", get_signal=f)`` or as decorator ``@add_strategy("x")`` over ``f``.

    ``f(symbol, when)`` is asked at every multiple of ``interval`` (UTC, counted from 1970) while no position is open. It returns
    None, or a dict: ``position`` ("long" or "short"), ``priceTakeProfit``, ``priceStopLoss`` (prices), ``minuteEstimatedTime``
    (minutes until the position is closed at any price, ``math.inf`` for never), and if it likes ``note`` (text) and
    ``priceOpen``. Both forms give ``f`` back. ``risk_name`` is the record of the Risk contract that its positions are kept in,
    by default one of its own name.
    """
    check_name("the name of a strategy", name)
    step = interval_ms(interval)
    if risk_name is not None:
        check_name("risk_name", risk_name)
    caller = sys._getframe(1)
    file, line = caller.f_code.co_filename, caller.f_lineno

    def register(function: F) -> F:
        _check_function(name, function)
        strategy = Strategy(
            name=name,
            interval=interval,
            interval_ms=step,
            risk_name=name if risk_name is None else risk_name,
            get_signal=function,
            file=file,
            place=f"{file}:{line}",
        )
        with _lock:
            other = _strategies.setdefault(name, strategy)
        if other is not strategy:
            raise InvalidValueError(
                f"strategy {name!r} of {strategy.place} is already registered by {other.place}", hint="names must differ"
            )
        return function

    return register if get_signal is None else register(get_signal)


def list_strategies() -> tuple[Strategy, ...]:
    """All registered strategies, in the order of their registration."""
    with _lock:
        return tuple(_strategies.values())


def find_strategy(name: str | None) -> Strategy:
    """The strategy of that name, or the only one for None; InvalidValueError, with the names that there are, otherwise."""
    known = list_strategies()
    listed = ", ".join(repr(strategy.name) for strategy in known)
    if name is None:
        if len(known) == 1:
            return known[0]
        if not known:
            raise InvalidValueError(
                "no strategy is registered", hint="add_strategy registers one, load_strategy_file loads a file that does"
            )
        raise InvalidValueError(f"{len(known)} strategies are registered, so one must be named: {listed}")
    for strategy in known:
        if strategy.name == name:
            return strategy
    raise InvalidValueError(f"no strategy {name!r} is registered", hint=f"registered: {listed or 'none'}")


def clear_strategies() -> None:
    """Forget all registered strategies."""
    restore_strategies(())


def restore_strategies(strategies: tuple[Strategy, ...]) -> None:
    """Make ``strategies`` the registered ones."""
    with _lock:
        _strategies.clear()
        _strategies.update((strategy.name, strategy) for strategy in strategies)


def check_name(what: str, name: object) -> None:
    """InvalidTypeError or InvalidValueError unless ``name`` can be part of a key and be read by a person."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what} must be a str, got {type(name).__name__}")
    if not name or name != name.strip() or not name.isprintable():
        raise InvalidValueError(f"{what} is {name!r}; it must be printable text without spaces at its ends")


def _check_function(name: str, function: object) -> None:
    if not callable(function):
        raise InvalidTypeError(f"get_signal of strategy {name!r} must be a function, got {type(function).__name__}")
    called = function if inspect.isroutine(function) else type(function).__call__
    if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise InvalidTypeError(
            f"get_signal of strategy {name!r} must be a plain function, not an async one or a generator", hint="def, and return the signal"
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C have none to check
        return
    try:
        signature.bind("", None)
    except TypeError:
        raise InvalidTypeError(f"get_signal of strategy {name!r} must take (symbol, when), but takes {signature}") from None
