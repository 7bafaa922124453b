"""Runs for the tests of the facades: what the engine does around a call of a strategy, and nothing else of it."""

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
    """Everything on MongoDB with the guard, the backtest profile, or every domain in files without a guard."""
    match kind:
        case "mongo":
            kit.setup(settings, look_ahead="hide", **more)
        case "profile":
            kit.setup(settings, mode="backtest", CC_DUMP_DIR=folder / "dump", **more)
        case "plain":
            kit.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=folder / "dump", **more)


def a_run(registry=default_registry, *, symbol="BTCUSDT", strategy="sma", exchange="binance", frame="march", backtest=True, signal="sig-1"):
    """One and the same run, for the same arguments; ``again`` gives another one over the same names."""
    return CurrentRun(registry, symbol, strategy, exchange, frame if backtest else "", backtest, signal, "first")


def again(registry=default_registry, **names):
    """A run after another one over the same names."""
    run = a_run(registry, **names)
    run.run_id = uuid.uuid4().hex
    return run


@contextmanager
def at(run, when=T0):
    """Inside ``run`` at the simulation time ``when`` (ms)."""
    with entered(RunScope(run, now=when)):
        yield


def in_threads(count, call):
    """``call(number)`` in many threads at once, each inside the caller's run; their results in order."""
    results, barrier = [None] * count, threading.Barrier(count)

    def work(number):
        barrier.wait()
        try:
            results[number] = call(number)
        except Exception as error:  # noqa: BLE001 - every kind of error is what a test wants to see
            results[number] = error

    threads = [threading.Thread(target=copy_context().run, args=(work, number)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
