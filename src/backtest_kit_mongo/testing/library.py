"""The library between tests: nothing of a test is left for the next one, however it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..contracts.adapters import adapter_of
from ..contracts.bindings import alive_registries
from ..contracts.default_registry import close, default_registry, reset_stats
from ..domains import DOMAINS
from ..errors import BacktestKitError
from ..logs import current_logger, set_logger
from ..runner.backtest.background import stop_background_runs
from ..runner.loading.strategy_file import registrations_restored

__all__ = ["left_as_it_was", "reset"]


def reset() -> None:
    """Close the default registry, and make it as a new process has it: every contract on MongoDB, counters at zero."""
    close()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    reset_stats()


@contextmanager
def left_as_it_was(patience: float = 10) -> Iterator[None]:
    """Begin with the default registry closed. After the block, end and undo what it has left behind.

    Runs in the background are stopped, registries of the block closed, and the default registry reset. What was registered before
    (strategies, exchanges, frames, risks, brokers) and the logger are restored. Raises BacktestKitError if a run has not ended
    ``patience`` seconds after it was told to.
    """
    logger, before = current_logger(), {id(registry) for registry in alive_registries()}
    reset()
    try:
        with registrations_restored():
            yield
    finally:
        running = stop_background_runs(patience)
        for registry in alive_registries():
            if registry is not default_registry and id(registry) not in before:
                registry.close()
        reset()
        set_logger(logger)
    if running:
        raise BacktestKitError(f"{running} background runs of the test are still running", hint="stop() each and wait for its result()")
