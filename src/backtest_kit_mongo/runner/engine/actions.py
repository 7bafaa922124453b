"""Functions that control an active run, from its strategy or from any thread of the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...arguments import positive_number
from ...errors import InvalidValueError
from ..clock import OutsideRunError
from ..current_run import current_run

if TYPE_CHECKING:
    from .engine import Engine

__all__ = [
    "activate_scheduled",
    "average_buy",
    "cancel_scheduled",
    "close_partial",
    "close_pending",
    "create_signal",
    "pause",
    "resume",
    "stop",
    "trailing_stop",
    "trailing_take",
]

_engines: list[Engine] = []
_lock = threading.Lock()


def close_pending(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Close the open position of a run at the market price. Return False if there is none, or if it is closing already.

    Inside a callback you can omit the names: they default to the run that called it. Elsewhere they select a run that is active in
    this process. The request is stored before this function returns and carried out in this minute or the next, even if the process
    dies in between (but see ``Journal`` for backtests).

    Raises OutsideRunError if no active run matches, InvalidValueError if several do. All this applies to every function of this
    module.
    """
    return _find("close_pending", symbol, strategy_name, exchange_name).user_close()


def close_partial(percent: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Close ``percent`` (above 0, up to 100) of what is left of the open position, at the market price.

    Return False without an open position, while it is closing, and while an earlier order that changes it is unanswered. If a broker
    fills less, only that part is closed. Leave more than the minimum of the exchange, or it will refuse to close the rest.
    """
    percent = positive_number("percent", percent)
    if percent > 100:
        raise InvalidValueError(f"percent is {percent}; it must be above 0, up to 100")
    engine = _find("close_partial", symbol, strategy_name, exchange_name)
    return engine.user_close() if percent == 100 else engine.user_change("partial", percent)


def average_buy(
    cost: float | None = None, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None
) -> bool:
    """Add an entry of ``cost`` USD (by default the stake of the run) to the open position, at the market price, on its side.

    Stop, target and time limit stay as they are; the profit is measured from the average price. Return False without an open position,
    while it is closing, and while an earlier order that changes it is unanswered.
    """
    cost = None if cost is None else positive_number("cost", cost)
    engine = _find("average_buy", symbol, strategy_name, exchange_name)
    return engine.user_change("average-buy", engine.context.costs.stake_usd if cost is None else cost)


def trailing_stop(price: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Move the stop of the open position to ``price``, towards the market: up for a long, down for a short.

    Return False and leave the stop unchanged if it would move away from the market or past its price or last close, and also without
    an open position or while it is closing. You can therefore call it every minute with the stop for the current price.
    """
    price = positive_number("price", price)
    return _find("trailing_stop", symbol, strategy_name, exchange_name).user_change("trailing-stop", price)


def trailing_take(price: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Move the target of the open position to ``price``, closer or farther.

    Return False if the market's price or last close is already past it, and also without an open position or while it is closing.
    """
    price = positive_number("price", price)
    return _find("trailing_take", symbol, strategy_name, exchange_name).user_change("trailing-take", price)


def cancel_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Cancel the scheduled signal. Return False if there is none."""
    return _find("cancel_scheduled", symbol, strategy_name, exchange_name).user_cancel()


def activate_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open the scheduled signal now, at the price that it waits for. Return False if there is none."""
    return _find("activate_scheduled", symbol, strategy_name, exchange_name).user_activate()


def create_signal(
    signal: Mapping[str, Any], symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None
) -> bool:
    """Submit a signal, as ``get_signal`` would return it, for the next minute. Return False if there is a position or signal already."""
    return _find("create_signal", symbol, strategy_name, exchange_name).user_create(signal)


def stop(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open no more positions: an open position runs to its exit, a scheduled signal is cancelled; then a live run ends.

    The stop does not outlast the run: started again, it opens positions as before.
    """
    return _find("stop", symbol, strategy_name, exchange_name).user_stop()


def pause(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take no new signals until ``resume``, even after a restart. Return False if the run is paused already."""
    return _find("pause", symbol, strategy_name, exchange_name).user_pause(True)


def resume(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take signals again. Return False if the run was not paused."""
    return _find("resume", symbol, strategy_name, exchange_name).user_pause(False)


@contextmanager
def enlisted(engine: Engine) -> Iterator[None]:
    """Let the functions above find ``engine`` inside the block. Raises InvalidValueError if the same live run is active already."""
    with _lock:
        if not engine.context.backtest and any(_same(other, engine) for other in _engines):
            context = engine.context
            raise InvalidValueError(
                f"a live run of {context.strategy_name!r} on {context.symbol} of {context.exchange_name} is already running in this process"
            )
        _engines.append(engine)
    try:
        yield
    finally:
        with _lock:
            _engines.remove(engine)


def _same(one: Engine, other: Engine) -> bool:
    names = [(e.context.symbol, e.context.strategy_name, e.context.exchange_name, e.context.frame_name) for e in (one, other)]
    return names[0] == names[1] and one.run.registry is other.run.registry


def _find(caller: str, symbol: str | None, strategy_name: str | None, exchange_name: str | None) -> Engine:
    calling_run = current_run()
    names = {"symbol": symbol, "strategy_name": strategy_name, "exchange_name": exchange_name}
    given = {name: value for name, value in names.items() if value is not None}
    with _lock:
        matches = [
            engine for engine in _engines if engine.ready and all(getattr(engine.context, name) == value for name, value in given.items())
        ]
    own = [engine for engine in matches if engine.run is calling_run]
    if own or len(matches) == 1:
        return (own or matches)[0]
    text = ", ".join(f"{name}={value!r}" for name, value in given.items())
    if not matches:
        raise OutsideRunError(f"{caller}({text}): no matching run is active in this process")
    raise InvalidValueError(f"{caller}({text}): {len(matches)} runs match", hint="pass symbol, strategy_name and exchange_name")
