"""``run --paper`` and ``run --live``: runs that go on until they are stopped."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ..errors import BacktestKitError
from ..runner import BacktestResult, Live, RunHandle, add_broker, list_brokers
from .market import Costs
from .output import errors, say, say_error, time_text

__all__ = ["prepare_broker", "run_live"]

_LOOK_SECONDS = 0.5


def prepare_broker(name: str | None, exchange: str, url: str | None) -> None:
    """Register the broker ``ccxt`` for ``exchange`` (at ``url``) if it was asked for, and the strategy file has none of that name."""
    if name != "ccxt" or name in (known.name for known in list_brokers()):
        return
    from ..runner.ccxt_broker import CcxtBroker

    add_broker(name, CcxtBroker(exchange, url=url))


def run_live(
    symbols: Sequence[str], strategies: Sequence[str], exchange: str, broker: str | None, costs: Costs, stop: threading.Event
) -> tuple[list[BacktestResult], list[BacktestKitError]]:
    """Every strategy on every symbol until ``stop`` is set, or all have ended; their results, and the errors that ended some."""
    handles: dict[str, RunHandle] = {}
    for symbol in symbols:
        for name in strategies:
            handles[f"{name} on {symbol}"] = Live.background(
                symbol,
                strategy_name=name,
                exchange_name=exchange,
                broker_name=broker,
                fee_percent=costs.fee,
                slippage_percent=costs.slippage,
                stake_usd=costs.stake,
            )
    say(f"running {', '.join(handles)}; Ctrl-C ends it after the minute, and a second one at once")
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
        for handle in handles.values():
            try:
                results.append(handle.result())
            except BacktestKitError as error:
                failed.append(error)
    return results, failed


def _say_end(name: str, handle: RunHandle) -> None:
    try:
        say(f"{name} has ended at {time_text(handle.result().end_ms)}")
    except BacktestKitError as error:
        say_error(f"{name} has ended: {error}")
