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
    """Report what the domains of a registry do during the ``with`` block, in all threads.

    Blocks can be nested and can overlap; they do not affect each other, nor ``stats()``, and ``reset_stats()`` does not affect them.
    The figures are final when the block ends, also if it ends with an exception.

    Args:
        registry: the registry to watch; None is the default one

    Yields:
        the report, which shows the figures so far inside the block

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> with kit.profile() as report:
        ...     kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
        >>> report.domains["signal"]["reads"]
        1
    """
    metrics = (default_registry if registry is None else registry).metrics
    before, begin = metrics.mark(), time.perf_counter()
    report = Report(lambda: figures(time.perf_counter() - begin, metrics.snapshot(before)))
    try:
        yield report
    finally:
        report.finish()
