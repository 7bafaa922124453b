"""Strategies: register user functions under names, and the errors raised when one of them fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final, TypedDict, TypeVar, Unpack, overload

import msgspec

from ..candles import interval_ms
from ..errors import BacktestKitError, InvalidTypeError
from .registrations import Registered, Registrations, call_site, check_function, check_name

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

_Answer = Mapping[str, Any] | None

GetSignal = Callable[[str, datetime], _Answer] | Callable[[str, datetime], Awaitable[_Answer]]
"""``get_signal(symbol, when)`` (or ``async def``) returns None or a signal as a dict. ``when`` is the simulation time, aware, in UTC."""

F = TypeVar("F", bound=Callable[..., Any])


class Event(msgspec.Struct, frozen=True):
    """What a callback receives. ``when`` is an aware datetime, ``signal`` the row of the position (as in the Recent contract).

    ``reason`` says why a position was closed or a scheduled signal cancelled (timeout, price_reject, risk_reject, order_reject, user).
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
    """Optional functions of a strategy (``def`` or ``async def``). Each is called with an Event."""

    on_schedule: Callback
    """A signal waits for its price. Called again after a restart."""
    on_cancel: Callback
    """A scheduled signal will not open."""
    on_open: Callback
    """A position was opened."""
    on_active: Callback
    """A live position is watched again after a restart."""
    on_active_ping: Callback
    """A minute has passed with an open position. The callback may call ``close_pending()``."""
    on_close: Callback
    """A position was closed. Its open record is removed after this call."""
    on_tick: Callback
    """A minute has passed."""


CALLBACKS: Final = tuple(Callbacks.__annotations__)


class StrategyError(BacktestKitError, RuntimeError):
    """User code failed: a strategy raised an exception, or its file could not be loaded. ``__cause__`` is the exception."""


class BadSignalError(StrategyError, ValueError):
    """A strategy returned an invalid signal."""


class Strategy(Registered, frozen=True, kw_only=True):
    """A registered strategy; ``interval_ms`` (ms) is how often it is asked."""

    interval: str
    interval_ms: int
    risk_name: str
    get_signal: GetSignal
    callbacks: Callbacks


_strategies: Registrations[Strategy] = Registrations("strategy", "add_strategy")


@overload
def add_strategy(name: str, interval: str = "5m", *, risk_name: str | None = None, **callbacks: Unpack[Callbacks]) -> Callable[[F], F]: ...
@overload
def add_strategy(name: str, interval: str = "5m", *, get_signal: F, risk_name: str | None = None, **callbacks: Unpack[Callbacks]) -> F: ...
def add_strategy(name: str, interval: str = "5m", *, get_signal: Any = None, risk_name: str | None = None, **callbacks: Any) -> Any:
    """Register a strategy: call ``add_strategy("x", interval="5m", get_signal=f)``, or decorate ``f`` with ``@add_strategy("x")``.

    The run calls ``f(symbol, when)`` at every multiple of ``interval`` (1m to 1d; UTC, counted from 1970) while no position is open. ``f``
    returns None, or a dict: ``position`` ("long" or "short"), ``priceTakeProfit``, ``priceStopLoss`` (prices), ``minuteEstimatedTime``
    (minutes until the position is closed at any price, ``math.inf`` for never), and optionally ``note`` (text) and ``priceOpen``, a
    limit price to wait for. Both forms return ``f``.

    ``f`` and the callbacks may be ``async def``. The run awaits each call before it goes on, in an event loop of its own, also where a loop
    is running already (a notebook). All functions of a run, and of runs side by side, share this loop; it is closed when the run ends.

    ``risk_name`` is the record of the Risk contract that holds the positions, and the ``add_risk`` that limits them; it defaults to
    the strategy's name. ``callbacks`` (``on_open`` and so on, see ``Callbacks``) are functions that are called with an ``Event``.
    Raises InvalidTypeError or InvalidValueError for bad arguments or a name that is already registered.
    """
    name = check_name("the name of a strategy", name)
    step = interval_ms(interval)
    if risk_name is not None:
        risk_name = check_name("risk_name", risk_name)
    for callback, function in callbacks.items():
        if callback not in CALLBACKS:
            near = get_close_matches(callback, CALLBACKS, n=1, cutoff=0.0)[0]
            raise InvalidTypeError(
                f"add_strategy has no argument {callback!r}", hint=f"did you mean {near!r}? Callbacks: {', '.join(CALLBACKS)}"
            )
        check_function(f"{callback} of strategy {name!r}", function, ("event",), may_be_async=True)
    site = call_site()

    def register(function: F) -> F:
        check_function(f"get_signal of strategy {name!r}", function, ("symbol", "when"), may_be_async=True)
        strategy = Strategy(
            name=name,
            interval=interval,
            interval_ms=step,
            risk_name=name if risk_name is None else risk_name,
            get_signal=function,
            **site._asdict(),
            callbacks=Callbacks(**callbacks),  # type: ignore[typeddict-item]
        )
        _strategies.add(strategy)
        return function

    return register if get_signal is None else register(get_signal)


def list_strategies() -> tuple[Strategy, ...]:
    """Return all registered strategies, in registration order."""
    return _strategies.list()


def find_strategy(name: str | None) -> Strategy:
    """Return the strategy with that name, or the only one if None. Raises InvalidValueError, listing the names, otherwise."""
    return _strategies.find(name)


def clear_strategies() -> None:
    """Remove all registered strategies."""
    restore_strategies(())


def restore_strategies(strategies: tuple[Strategy, ...]) -> None:
    """Replace the registered strategies with ``strategies``."""
    _strategies.restore(strategies)
