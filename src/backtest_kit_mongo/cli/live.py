"""``run --paper`` and ``run --live``: runs that continue until they are stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ..errors import BacktestKitError
from ..runner import BacktestResult, ExchangeUnavailableError, Live, RunHandle, StrategyError, add_broker, fetch_missing, list_brokers
from ..runner.clock import MINUTE_MS
from ..runner.error_text import USER_ERRORS, describe
from ..runner.market.pauses import ended_by
from .market import Costs
from .output import errors, say, say_error, time_text

__all__ = ["prepare_broker", "run_live"]

_LOOK_SECONDS = 0.5


def prepare_broker(name: str | None, exchange: str, url: str | None) -> None:
    """Register the broker ``ccxt`` for ``exchange`` (at ``url``) if ``name`` asks for it and the strategy file has none of that name."""
    if name != "ccxt" or name in (broker.name for broker in list_brokers()):
        return
    from ..runner.live.ccxt_broker import CcxtBroker

    add_broker(name, CcxtBroker(exchange, url=url))


def run_live(
    symbols: Sequence[str], strategies: Sequence[str], exchange: str, broker: str | None, costs: Costs, stop: threading.Event
) -> tuple[list[BacktestResult], list[BacktestKitError]]:
    """Run every strategy on every symbol until ``stop`` is set or all have ended. Return their results, and the errors that ended some."""
    with ended_by(stop):
        for symbol in symbols:
            _check_listed(symbol, exchange)
    handles: dict[str, RunHandle] = {}
    for symbol in symbols:
        for name in strategies:
            handles[f"{name} on {symbol}"] = Live.background(
                symbol,
                strategy_name=name,
                exchange_name=exchange,
                broker_name=broker,
                **costs.keywords,
            )
    say(f"running {', '.join(handles)}; Ctrl-C stops after the current minute, a second Ctrl-C at once")
    reported: set[str] = set()
    with errors.status("Running"):
        while not stop.wait(_LOOK_SECONDS) and not all(handle.done for handle in handles.values()):
            for name, handle in handles.items():
                if handle.done and name not in reported:
                    reported.add(name)
                    _say_end(name, handle)
        for handle in handles.values():
            handle.stop()
        results, failed = [], []
        for name, handle in handles.items():
            try:
                results.append(handle.result())
            except BacktestKitError as error:
                failed.append(error)
            except USER_ERRORS as error:  # user code, which must not end the other runs
                failed.append(StrategyError(f"{name} has ended: {describe(error)}"))
    return results, failed


def _check_listed(symbol: str, exchange: str) -> None:
    """Fetch once what the first tick needs. An exchange that is away is only reported; a symbol that it does not know is an error."""
    now = time.time_ns() // 60_000_000_000 * MINUTE_MS
    try:
        fetch_missing(symbol, "1m", exchange, now - 5 * MINUTE_MS, now)
    except ExchangeUnavailableError as error:
        say_error(f"{error}; the run asks again every minute")


def _say_end(name: str, handle: RunHandle) -> None:
    try:
        say(f"{name} has ended at {time_text(handle.result().end_ms)}")
    except USER_ERRORS as error:
        say_error(f"{name} has ended: {error}")
