"""Holes between stored candles, filled for a run: flat candles at the last close, with volume 0. They are never stored."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray
from ...contracts.registry import Registry
from ..clock import MINUTE_MS
from .stored_candles import StoredCandles

__all__ = ["FilledHoles", "Holes"]

_LOOK: Final = 50_000  # candles per read when looking for holes
_FIRST_LOOK: Final = 1_440  # candles of the first look back; each further one is twice as long


class Holes(NamedTuple):
    """The holes in a window: how many there are, and how many candles are missing in them."""

    holes: int = 0
    candles: int = 0


class FilledHoles:
    """The candles of one exchange, with the holes between the first and the last one filled."""

    def __init__(self, exchange_name: str, registry: Registry | None = None) -> None:
        self._exchange_name, self._registry = exchange_name, registry
        self._last: dict[tuple[str, str], int | None] = {}

    def window(self, symbol: str, interval: str, since: int, count: int) -> CandleArray | None:
        """Return ``count`` candles from ``since`` (ms) on; None if some are before the first stored candle or after the last one."""
        stored = StoredCandles(symbol, interval, self._exchange_name, self._registry)
        until = stored.grid.after(since, count)
        last = self._last_of(stored)
        if last is None or stored.grid.after(until, -1) > last:
            return None
        present = _joined(list(stored.batches(since, until)))
        if len(present) == count:
            return present
        if not len(present) or present["timestamp"][0] > since:
            before = _last_before(stored, since)
            if before is None:
                return None
            present = np.concatenate([before, present])
        stamps = stored.grid.stamps(since, until)
        source = np.searchsorted(present["timestamp"], stamps, side="right") - 1
        candles = present[source]
        flat = candles["timestamp"] != stamps
        for name in ("open", "high", "low"):
            candles[name][flat] = candles["close"][flat]
        candles["volume"][flat] = 0.0
        candles["timestamp"] = stamps
        return candles

    def count(self, symbol: str, since: int, until: int) -> Holes:
        """Return the holes between the 1m candles of ``[since, until)`` (ms)."""
        stored = StoredCandles(symbol, "1m", self._exchange_name, self._registry)
        look = _LOOK * MINUTE_MS
        missing = np.concatenate([stored.missing(start, min(start + look, until)) for start in range(since, until, look)])
        stretches = int(np.count_nonzero(np.diff(missing) != MINUTE_MS)) + 1 if len(missing) else 0
        return Holes(stretches, len(missing))

    def _last_of(self, stored: StoredCandles) -> int | None:
        """Return the open time of the last stored candle; a run may end within a hole."""
        series = stored.context[0], stored.context[1]
        if series not in self._last:
            last = _last_before(stored, stored.grid.after(time.time_ns() // 1_000_000))
            self._last[series] = None if last is None else int(last["timestamp"][0])
        return self._last[series]


def _last_before(stored: StoredCandles, until: int) -> CandleArray | None:
    """Return the last stored candle that opens before ``until`` (ms), in an array; None if there is none."""
    length = _FIRST_LOOK * stored.grid.longest
    since = stored.grid.align(max(until - length, 0))
    while not _holds_candles(stored, since, until):
        if since <= 0:
            return None
        length *= 2
        since, until = stored.grid.align(max(since - length, 0)), since
    while until - since > _FIRST_LOOK * stored.grid.longest:  # the later half with candles, without reading the earlier ones
        middle = stored.grid.align((since + until) // 2)
        since, until = (middle, until) if _holds_candles(stored, middle, until) else (since, middle)
    return _joined(list(stored.batches(since, until)))[-1:]


def _holds_candles(stored: StoredCandles, since: int, until: int) -> bool:
    return any(len(batch) for batch in stored.batches(since, until))


def _joined(batches: list[CandleArray]) -> CandleArray:
    return np.concatenate(batches) if batches else np.empty(0, CANDLE_DTYPE)
