"""Strategies: the registration of user functions under names, and what is said when one of them fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

import msgspec

from ..candles import interval_ms
from ..errors import BacktestKitError, InvalidTypeError
from .registrations import Registrations, calling_place, check_function, check_name

__all__ = [
    "BadSignalError",
    "Callback",
    "Callbacks",
    "Event",
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


class Event(msgspec.Struct, frozen=True):
    """What a callback is told. ``when`` is an aware datetime, ``signal`` the row of the position (as in the Recent contract).

    ``reason`` is why a position was closed, or a scheduled signal cancelled (timeout, price_reject, risk_reject, order_reject, user).
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    when: datetime
    price: float
    signal: dict[str, Any] | None = None
    reason: str | None = None


Callback = Callable[[Event], object]


class Callbacks(TypedDict, total=False):
    """Functions that a strategy may bring, each called with an Event."""

    on_schedule: Callback
    """A signal waits for its price; also after a restart."""
    on_cancel: Callback
    """A scheduled signal will not open."""
    on_open: Callback
    """A position was opened."""
    on_active: Callback
    """A live position is watched again after a restart."""
    on_active_ping: Callback
    """A minute has passed with an open position; may call ``close_pending()``."""
    on_close: Callback
    """A position is closed; its record goes after this."""
    on_tick: Callback
    """A minute has passed."""


CALLBACKS: Final = tuple(Callbacks.__annotations__)


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
    callbacks: Callbacks


_strategies: Registrations[Strategy] = Registrations("strategy", "add_strategy")


@overload
def add_strategy(name: str, interval: str = "5m", *, risk_name: str | None = None, **callbacks: Unpack[Callbacks]) -> Callable[[F], F]: ...
@overload
def add_strategy(name: str, interval: str = "5m", *, get_signal: F, risk_name: str | None = None, **callbacks: Unpack[Callbacks]) -> F: ...
def add_strategy(name: str, interval: str = "5m", *, get_signal: Any = None, risk_name: str | None = None, **callbacks: Any) -> Any:
    """Register a strategy, as ``add_strategy("x", interval="5m", get_signal=f)`` or as decorator ``@add_strategy("x")`` over ``f``.

    ``f(symbol, when)`` is asked at every multiple of ``interval`` (UTC, counted from 1970) while no position is open. It returns
    None, or a dict: ``position`` ("long" or "short"), ``priceTakeProfit``, ``priceStopLoss`` (prices), ``minuteEstimatedTime``
    (minutes until the position is closed at any price, ``math.inf`` for never), and if it likes ``note`` (text) and
    ``priceOpen``, a limit that it waits for. Both forms give ``f`` back. ``risk_name`` is the record of the Risk contract that its
    positions are kept in, by default one of its own name, and the ``add_risk`` whose limits they keep to. ``callbacks`` (``on_open``
    and so on, see ``Callbacks``) are functions that are called with an ``Event``.
    """
    check_name("the name of a strategy", name)
    step = interval_ms(interval)
    if risk_name is not None:
        check_name("risk_name", risk_name)
    for callback, function in callbacks.items():
        if callback not in CALLBACKS:
            near = get_close_matches(callback, CALLBACKS, n=1, cutoff=0.0)[0]
            raise InvalidTypeError(f"add_strategy has no {callback!r}", hint=f"did you mean {near!r}? Callbacks: {', '.join(CALLBACKS)}")
        check_function(f"{callback} of strategy {name!r}", function, ("event",))
    file, place = calling_place()

    def register(function: F) -> F:
        check_function(f"get_signal of strategy {name!r}", function, ("symbol", "when"))
        strategy = Strategy(
            name=name,
            interval=interval,
            interval_ms=step,
            risk_name=name if risk_name is None else risk_name,
            get_signal=function,
            file=file,
            place=place,
            callbacks=Callbacks(**callbacks),  # type: ignore[typeddict-item]
        )
        _strategies.add(strategy)
        return function

    return register if get_signal is None else register(get_signal)


def list_strategies() -> tuple[Strategy, ...]:
    """All registered strategies, in the order of their registration."""
    return _strategies.list()


def find_strategy(name: str | None) -> Strategy:
    """The strategy of that name, or the only one for None; InvalidValueError, with the names that there are, otherwise."""
    return _strategies.find(name)


def clear_strategies() -> None:
    """Forget all registered strategies."""
    restore_strategies(())


def restore_strategies(strategies: tuple[Strategy, ...]) -> None:
    """Make ``strategies`` the registered ones."""
    _strategies.restore(strategies)
