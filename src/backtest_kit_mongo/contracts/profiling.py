"""``profile()``: what the contracts do during a block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..observability.profile import Report, figures
from .default_registry import default_registry
from .registry import Registry

__all__ = ["profile"]


@contextmanager
def profile(registry: Registry | None = None) -> Iterator[Report]:
    """Report what the domains of a registry (the default one if None) do during the ``with`` block, in all threads.

        with profile() as report:
            run_backtest("BTCUSDT")
        print(report)

    Blocks can be nested and can overlap; they do not affect each other, nor ``stats()``, and ``reset_stats()`` does not affect them.
    The figures are final when the block ends, also if it ends with an exception.
    """
    metrics = (default_registry if registry is None else registry).metrics
    before, begin = metrics.mark(), time.perf_counter()
    report = Report(lambda: figures(time.perf_counter() - begin, metrics.snapshot(before)))
    try:
        yield report
    finally:
        report.finish()
