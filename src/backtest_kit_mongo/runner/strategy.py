"""Strategies: register user functions under names, and the errors raised when one of them fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack, overload

import msgspec

from ..candles import PlainInterval, interval_ms
from ..errors import BacktestKitError, InvalidTypeError
from .registrations import Registered, Registrations, call_site, check_function, check_name

__all__ = [
    "BadSignalError",
    "Callback",
    "Callbacks",
    "Event",
    "GetSignal",
    "SignalDict",
    "Strategy",
    "StrategyError",
    "add_strategy",
    "clear_strategies",
    "find_strategy",
    "list_strategies",
]


class _RequiredOfSignal(TypedDict):
    position: Literal["long", "short"]
    """A long profits from rising prices, a short from falling ones."""
    priceTakeProfit: float
    """Price at which the position closes in profit: above the entry for a long, below it for a short."""
    priceStopLoss: float
    """Price at which the position closes at a loss: on the other side of the entry."""
    minuteEstimatedTime: float
    """Minutes after which the position closes at the market price, above 0; ``math.inf`` for never."""


class SignalDict(_RequiredOfSignal, total=False):
    """A signal, as ``get_signal`` returns it; see ``add_strategy``. With ``-> SignalDict | None`` a type checker finds a misspelt name."""

    priceOpen: float | None
    """Price to wait for; without it, the position opens at the market price."""
    note: str | None
    """Text that is kept with the position, and shown in its notifications."""


_Answer = SignalDict | Mapping[str, Any] | None

GetSignal = Callable[[str, datetime], _Answer | Awaitable[_Answer]]
"""``get_signal(symbol, when)`` (or ``async def``) returns None or a signal as a dict. ``when`` is the simulation time, aware, in UTC."""

F = TypeVar("F", bound=GetSignal)


class Event(msgspec.Struct, frozen=True):
    """What a callback of a strategy receives."""

    symbol: str
    """The traded pair."""
    strategy_name: str
    """The strategy of the run."""
    exchange_name: str
    """The exchange of the run."""
    when: datetime
    """The simulation time: an aware datetime in UTC."""
    price: float
    """The market price, in the quote currency."""
    signal: dict[str, Any] | None = None
    """The row of the position, as in the Recent contract (``payloads.PublicSignalRow`` as a dict); None if there is none."""
    reason: str | None = None
    """Why a position was closed, or a scheduled signal cancelled (timeout, price_reject, risk_reject, order_reject, user); or None."""


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
    """A strategy returned an invalid signal. The message names the field."""


class Strategy(Registered, frozen=True, kw_only=True):
    """A registered strategy; see ``add_strategy``."""

    interval: PlainInterval
    """How often it is asked, such as "5m"."""
    interval_ms: int
    """The same in ms."""
    risk_name: str
    """The record of the Risk contract that holds its positions, and the ``add_risk`` that limits them."""
    get_signal: GetSignal
    """The function that is asked for a signal."""
    callbacks: Callbacks
    """Its callbacks."""


_strategies: Registrations[Strategy] = Registrations("strategy", "add_strategy")


@overload
def add_strategy(
    name: str, interval: PlainInterval = "5m", *, risk_name: str | None = None, **callbacks: Unpack[Callbacks]
) -> Callable[[F], F]: ...
@overload
def add_strategy(
    name: str, interval: PlainInterval = "5m", *, get_signal: F, risk_name: str | None = None, **callbacks: Unpack[Callbacks]
) -> F: ...
def add_strategy(
    name: str, interval: PlainInterval = "5m", *, get_signal: Any = None, risk_name: str | None = None, **callbacks: Any
) -> Any:
    """Register a strategy: call ``add_strategy("x", interval="5m", get_signal=f)``, or decorate ``f`` with ``@add_strategy("x")``.

    The run calls ``f(symbol, when)`` at every multiple of ``interval`` (UTC, counted from 1970) while no position is open. ``f``
    returns None, or a dict: ``position`` ("long" or "short"), ``priceTakeProfit``, ``priceStopLoss`` (prices), ``minuteEstimatedTime``
    (minutes until the position is closed at any price, ``math.inf`` for never), and optionally ``note`` (text) and ``priceOpen``, a
    limit price to wait for.

    ``f`` and the callbacks may be ``async def``. The run awaits each call before it goes on, in an event loop of its own, also where a loop
    is running already (a notebook). All functions of a run, and of runs side by side, share this loop; it is closed when the run ends.

    Args:
        name: the name of the strategy
        interval: how often to ask it: "1m" to "1d"
        get_signal: the function ``f``
        risk_name: the record of the Risk contract that holds the positions, and the ``add_risk`` that limits them; None is ``name``
        **callbacks: functions that are called with an ``Event``: ``on_open`` and so on, see ``Callbacks``

    Returns:
        ``f``, or without ``get_signal`` a decorator that returns it

    Raises:
        InvalidTypeError: an argument has the wrong type, or a function does not take these arguments
        InvalidValueError: an argument is not valid, or the name is registered already

    Examples:
        >>> from backtest_kit_mongo.runner import add_strategy, get_candles
        >>> @add_strategy("dip", interval="15m", on_close=lambda event: print(event.reason))
        ... def dip(symbol, when):
        ...     last = get_candles(symbol, "15m", 2)
        ...     if len(last) == 2 and (price := last[1]["close"]) < 0.99 * last[0]["close"]:
        ...         return {"position": "long", "priceTakeProfit": price * 1.02, "priceStopLoss": price * 0.98, "minuteEstimatedTime": 240}
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
    """Return all registered strategies, in order of registration.

    Examples:
        >>> from backtest_kit_mongo.runner import list_strategies
        >>> list_strategies()
        ()
    """
    return _strategies.list()


def find_strategy(name: str | None) -> Strategy:
    """Return a registered strategy.

    Args:
        name: its name; None is the only one

    Raises:
        InvalidValueError: there is no such strategy, or not exactly one; the message lists the names

    Examples:
        >>> from backtest_kit_mongo.runner import add_strategy, find_strategy
        >>> asked = add_strategy("idle", "1h", get_signal=lambda symbol, when: None)
        >>> find_strategy("idle").interval_ms
        3600000
    """
    return _strategies.find(name)


def clear_strategies() -> None:
    """Remove all registered strategies.

    Examples:
        >>> from backtest_kit_mongo.runner import clear_strategies
        >>> clear_strategies()
    """
    restore_strategies(())


def restore_strategies(strategies: tuple[Strategy, ...]) -> None:
    """Replace the registered strategies with ``strategies``."""
    _strategies.restore(strategies)
