"""Candles for a chart: stored 1m candles, joined into longer ones until there are few enough to draw."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ...candles import CANDLE_DTYPE, INTERVAL_MS, CandleArray, align, join_candles
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...errors import InvalidValueError
from ...simulation import simulated_time
from ..clock import MINUTE_MS

__all__ = ["MOST_CANDLES", "chart_candles", "chart_step"]

MOST_CANDLES: Final = 1_500
_BLOCK_MS: Final = 5_000 * MINUTE_MS


def chart_step(start_ms: int, end_ms: int, most: int = MOST_CANDLES) -> int:
    """Return the shortest candle length (ms) that covers ``[start_ms, end_ms)`` with at most ``most`` candles.

    The length is that of an interval, or a number of whole days. Raises InvalidValueError if ``most`` is less than 2.
    """
    if most < 2:  # however long the candles are, a window can straddle two of them
        raise InvalidValueError(f"most is {most}; it must be at least 2")
    day = INTERVAL_MS["1d"]
    days = 1
    for step in INTERVAL_MS.values():
        if _touching(start_ms, end_ms, step) <= most:
            return step
    while _touching(start_ms, end_ms, days * day) > most:
        days += 1
    return days * day


def chart_candles(
    symbol: str, exchange_name: str, start_ms: int, end_ms: int, step_ms: int, *, registry: Registry | None = None
) -> CandleArray:
    """Read the stored 1m candles of ``[start_ms, end_ms)`` and return them joined into candles of ``step_ms``, ordered by time.

    Both ends are rounded down to the minute. The first and the last candle cover only those of their minutes that are in the window.
    A candle with a minute that is not stored is left out.
    """
    contract = (default_registry if registry is None else registry).adapter("candle")
    start, end = align(start_ms, MINUTE_MS), align(end_ms, MINUTE_MS)  # a live run can start and end within a minute
    block = max(_BLOCK_MS // step_ms, 1) * step_ms
    joined = [np.empty(0, CANDLE_DTYPE)]
    with simulated_time(None):  # the run is over, so there is no look-ahead to guard against
        for first in range(align(start, step_ms), end, block):
            since, until = max(first, start), min(first + block, end)
            if stored := _stored(contract, symbol, exchange_name, since, until, step_ms):
                minutes = np.concatenate(stored)
                joined.append(join_candles(minutes, minutes["timestamp"] // step_ms * step_ms))
    return np.concatenate(joined)


def _touching(start_ms: int, end_ms: int, step: int) -> int:
    return (align(end_ms - 1, step) - align(start_ms, step)) // step + 1


def _stored(contract: Any, symbol: str, exchange_name: str, since: int, until: int, step: int) -> list[CandleArray]:
    """Return the stored 1m candles of a window, in pieces that begin and end where candles of the chart do."""
    minutes = contract.read_candles_array(symbol, "1m", exchange_name, (until - since) // MINUTE_MS, since)
    if minutes is not None:
        return [minutes]
    candles = _touching(since, until, step)
    if candles == 1:
        return []
    middle = align(since, step) + candles // 2 * step
    halves = ((since, middle), (middle, until))
    return [piece for half in halves for piece in _stored(contract, symbol, exchange_name, *half, step)]
