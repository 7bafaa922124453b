"""What a strategy, or any thread of the process, can ask of a run that is going on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...errors import InvalidValueError
from ..clock import OutsideRunError
from ..current_run import current_run

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["activate_scheduled", "cancel_scheduled", "close_pending", "create_signal", "pause", "resume", "stop"]

_engines: list[Engine] = []
_lock = threading.Lock()


def close_pending(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Close the open position of a run at the price of the market; False if it has none.

    Inside a callback the names may be left out: it is the run that called it. From elsewhere they choose a run that is going on in
    this process. What is asked for here is persisted before this returns, and is done in this minute or the next, also if the
    process dies in between (but see ``Journal`` for backtests). This holds for all functions of this module.
    """
    return _find("close_pending", symbol, strategy_name, exchange_name).user_close()


def cancel_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Cancel the signal that waits for its price; False if there is none."""
    return _find("cancel_scheduled", symbol, strategy_name, exchange_name).user_cancel()


def activate_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open the signal that waits for its price now, at that price; False if there is none."""
    return _find("activate_scheduled", symbol, strategy_name, exchange_name).user_activate()


def create_signal(
    signal: Mapping[str, Any], symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None
) -> bool:
    """Give a signal, as ``get_signal`` would return it, for the next minute; False if there is a position or signal already."""
    return _find("create_signal", symbol, strategy_name, exchange_name).user_create(signal)


def stop(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open nothing more: an open position goes on to its exit, a scheduled signal is cancelled; then a live run ends.

    A run that is started again is not stopped.
    """
    return _find("stop", symbol, strategy_name, exchange_name).user_stop()


def pause(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take no new signals until ``resume``, also after a restart; False if it is paused already."""
    return _find("pause", symbol, strategy_name, exchange_name).user_pause(True)


def resume(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take signals again; False if it was not paused."""
    return _find("resume", symbol, strategy_name, exchange_name).user_pause(False)


@contextmanager
def enlisted(engine: Engine) -> Iterator[None]:
    """Let the functions above find ``engine`` inside the block. InvalidValueError if the same live run is going on already."""
    with _lock:
        if not engine.context.backtest and any(_same(other, engine) for other in _engines):
            context = engine.context
            raise InvalidValueError(
                f"a live run of {context.strategy_name!r} on {context.symbol} of {context.exchange_name} goes on in this process already"
            )
        _engines.append(engine)
    try:
        yield
    finally:
        with _lock:
            _engines.remove(engine)


def _same(one: Engine, other: Engine) -> bool:
    names = [(e.context.symbol, e.context.strategy_name, e.context.exchange_name, e.context.frame_name) for e in (one, other)]
    return names[0] == names[1] and one.running.registry is other.running.registry


def _find(caller: str, symbol: str | None, strategy_name: str | None, exchange_name: str | None) -> Engine:
    here = current_run.get(None)
    wanted = {"symbol": symbol, "strategy_name": strategy_name, "exchange_name": exchange_name}
    given = {name: value for name, value in wanted.items() if value is not None}
    with _lock:
        found = [
            engine for engine in _engines if engine.ready and all(getattr(engine.context, name) == value for name, value in given.items())
        ]
    own = [engine for engine in found if engine.running is here]
    if own or len(found) == 1:
        return (own or found)[0]
    text = ", ".join(f"{name}={value!r}" for name, value in given.items())
    if not found:
        raise OutsideRunError(f"{caller}({text}): no such run is going on in this process")
    raise InvalidValueError(f"{caller}({text}): {len(found)} runs are going on", hint="name symbol, strategy_name and exchange_name")
