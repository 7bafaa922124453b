"""Runs for the facade tests: only what the engine does around a call of a strategy."""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager
from contextvars import copy_context

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner.current_run import CurrentRun, RunScope
from backtest_kit_mongo.simulation import entered

T0 = 1_700_002_800_000  # 2023-11-14T23:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE
KINDS = ("mongo", "profile", "plain")


def set_up(kind, settings, folder, **more):
    """Set up MongoDB with the look-ahead guard, the backtest profile, or every domain in files without a guard."""
    match kind:
        case "mongo":
            kit.setup(settings, look_ahead="hide", **more)
        case "profile":
            kit.setup(settings, mode="backtest", CC_DUMP_DIR=folder / "dump", **more)
        case "plain":
            kit.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=folder / "dump", **more)


def a_run(registry=default_registry, *, symbol="BTCUSDT", strategy="sma", exchange="binance", frame="march", backtest=True, signal="sig-1"):
    """Return the same run for the same arguments; ``again`` returns a new run over the same names."""
    return CurrentRun(registry, symbol, strategy, exchange, frame if backtest else "", backtest, signal, "first")


def again(registry=default_registry, **names):
    """Return a later run over the same names."""
    run = a_run(registry, **names)
    run.run_id = uuid.uuid4().hex
    return run


@contextmanager
def at(run, when=T0):
    """Enter ``run`` at the simulation time ``when`` (ms)."""
    with entered(RunScope(run, now=when)):
        yield


def in_threads(count, call):
    """Call ``call(number)`` in many threads at once, each inside the caller's run; return the results in order."""
    results, barrier = [None] * count, threading.Barrier(count)

    def work(number):
        barrier.wait()
        try:
            results[number] = call(number)
        except Exception as error:  # noqa: BLE001 - a test wants to see every kind of error
            results[number] = error

    threads = [threading.Thread(target=copy_context().run, args=(work, number)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
