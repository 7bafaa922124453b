"""Functions that control an active run, from its strategy or from any thread of the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...arguments import positive_number
from ...errors import InvalidValueError
from ...untyped import Untyped
from ..clock import OutsideRunError
from ..current_run import current_run
from ..strategy import SignalDict

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
    """Close the open position of a run at the market price.

    Inside a callback you can omit the names: they default to the run that called it. Elsewhere they select a run that is active in
    this process. The request is stored before this function returns and carried out in this minute or the next, even if the process
    dies in between (but see ``Journal`` for backtests).

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if there is no open position, or if it is closing already

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.close_pending()
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].close_reason
        'closed'
    """
    return _find("close_pending", symbol, strategy_name, exchange_name).user_close()


def close_partial(percent: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Close a part of the open position of a run, at the market price.

    If a broker fills less, only that part is closed. Leave more than the minimum of the exchange, or it will refuse to close the rest.

    Args:
        percent: how much of what is left to close, above 0 and up to 100
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False without an open position, while it is closing, and while an earlier order that changes it is unanswered

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.close_partial(50)
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].partials > 0
        True
    """
    percent = positive_number("percent", percent)
    if percent > 100:
        raise InvalidValueError(f"percent is {percent}; it must be above 0, up to 100")
    engine = _find("close_partial", symbol, strategy_name, exchange_name)
    return engine.user_close() if percent == 100 else engine.user_change("partial", percent)


def average_buy(
    cost: float | None = None, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None
) -> bool:
    """Add an entry to the open position of a run, at the market price, on its side.

    Stop, target and time limit stay as they are; the profit is measured from the average price.

    Args:
        cost: the cost of the entry in USD; None is the stake of the run
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False without an open position, while it is closing, and while an earlier order that changes it is unanswered

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.average_buy()
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].entries > 1
        True
    """
    cost = None if cost is None else positive_number("cost", cost)
    engine = _find("average_buy", symbol, strategy_name, exchange_name)
    return engine.user_change("average-buy", engine.context.costs.stake_usd if cost is None else cost)


def trailing_stop(price: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Move the stop of the open position of a run towards the market: up for a long, down for a short.

    You can call it every minute with the stop for the current price.

    Args:
        price: the new stop, in the quote currency
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False, with the stop unchanged, if it would move away from the market or past its price or last close, and also without an open
            position or while it is closing

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.trailing_stop(event.price * 0.999)
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].close_reason
        'stop_loss'
    """
    price = positive_number("price", price)
    return _find("trailing_stop", symbol, strategy_name, exchange_name).user_change("trailing-stop", price)


def trailing_take(price: float, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Move the target of the open position of a run, closer or farther.

    Args:
        price: the new target, in the quote currency
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if the market's price or last close is already past it, and also without an open position or while it is closing

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.trailing_take(event.price * 1.0001)
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].close_reason
        'take_profit'
    """
    price = positive_number("price", price)
    return _find("trailing_take", symbol, strategy_name, exchange_name).user_change("trailing-take", price)


def cancel_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Cancel the scheduled signal of a run.

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if there is no scheduled signal

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceOpen": 20000.0, "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_schedule=lambda event: runner.cancel_scheduled()
        ... )
        >>> runner.run_backtest("BTCUSDT").totals.trades
        0
    """
    return _find("cancel_scheduled", symbol, strategy_name, exchange_name).user_cancel()


def activate_scheduled(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open the scheduled signal of a run now, at the price that it waits for.

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if there is no scheduled signal

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceOpen": 20000.0, "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_schedule=lambda event: runner.activate_scheduled()
        ... )
        >>> runner.run_backtest("BTCUSDT").trades[0].price_open
        20000.0
    """
    return _find("activate_scheduled", symbol, strategy_name, exchange_name).user_activate()


def create_signal(
    signal: SignalDict | Untyped, symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None
) -> bool:
    """Submit a signal, as ``get_signal`` would return it, for the next minute.

    Args:
        signal: ``position`` ("long" or "short"), ``priceTakeProfit``, ``priceStopLoss`` (quote currency), ``minuteEstimatedTime``
            (minutes), and optionally ``note`` and ``priceOpen``
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if there is a position or a signal already, and after ``stop``

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or a field of ``signal`` is missing, unknown or not valid
        InvalidTypeError: an argument or a field of ``signal`` has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", get_signal=lambda *_: None, on_tick=lambda event: runner.create_signal(signal))
        >>> runner.run_backtest("BTCUSDT").trades[0].close_reason
        'time_expired'
    """
    return _find("create_signal", symbol, strategy_name, exchange_name).user_create(signal)


def stop(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Open no more positions: an open position runs to its exit, a scheduled signal is cancelled; then a live run ends.

    The stop does not outlast the run: started again, it opens positions as before.

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        True

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.stop()
        ... )
        >>> runner.run_backtest("BTCUSDT").totals.trades
        1
    """
    return _find("stop", symbol, strategy_name, exchange_name).user_stop()


def pause(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take no new signals until ``resume``, even after a restart.

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if the run is paused already

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.pause()
        ... )
        >>> runner.run_backtest("BTCUSDT").totals.trades
        1
    """
    return _find("pause", symbol, strategy_name, exchange_name).user_pause(True)


def resume(symbol: str | None = None, strategy_name: str | None = None, exchange_name: str | None = None) -> bool:
    """Take signals again after ``pause``.

    Args:
        symbol: the symbol of the run; None inside a callback or if one run is active
        strategy_name: the strategy of the run, likewise
        exchange_name: the exchange of the run, likewise

    Returns:
        False if the run was not paused

    Raises:
        OutsideRunError: no active run matches
        InvalidValueError: several runs match, or the request is not valid
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 300, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: runner.pause() and runner.resume()
        ... )
        >>> runner.run_backtest("BTCUSDT").totals.trades > 1
        True
    """
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
