"""A series of candles as a run reads it: contiguous, in blocks, as dicts or as arrays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, Grid, grid_of, join_candles, to_dicts
from ...candles.columns import memory

__all__ = ["ARRAYS", "BLOCK", "DICTS", "Candle", "ContiguousSeries", "Form", "Load", "Rows"]

Candle = dict[str, Any]
Rows = TypeVar("Rows", list[Candle], CandleArray)

Load = Callable[[int, int], Rows | None]

BLOCK: Final = 1_000
"""Candles per read."""

STRETCH: Final = 32_000
"""Candles per read while a run moves forward: one long read takes half the time of many short ones."""


class Form(NamedTuple, Generic[Rows]):
    """What a run holds candles in."""

    none: Rows
    """No candles. Nothing may change it."""
    read: Callable[[Any, tuple[str, str, str], int, int], Rows | None]
    """Reads from a Candle contract: ``count`` candles of (symbol, interval, exchange) from ``since`` (ms) on, or None."""
    of_columns: Callable[[CandleArray], Rows]
    joined: Callable[[Rows, Rows], Rows]
    """Returns new rows: the candles of both."""
    merged: Callable[[Rows, list[int]], Rows]
    """Merges the candles between each two neighbouring positions of a list into a longer one."""


def _read_dicts(contract: Any, series: tuple[str, str, str], since: int, count: int) -> list[Candle] | None:
    candles: list[Candle] | None = contract.read_candles_data(*series, count, since, grid_of(series[1]).after(since, count))
    return candles


def _merged_dicts(candles: list[Candle], edges: list[int]) -> list[Candle]:
    return [_merge(candles[since:until]) for since, until in pairwise(edges)]


def _merge(parts: list[Candle]) -> Candle:
    return {
        "timestamp": parts[0]["timestamp"],
        "open": parts[0]["open"],
        "high": max(part["high"] for part in parts),
        "low": min(part["low"] for part in parts),
        "close": parts[-1]["close"],
        "volume": sum(part["volume"] for part in parts),
    }


DICTS: Final[Form[list[Candle]]] = Form([], _read_dicts, lambda columns: to_dicts(columns), list.__add__, _merged_dicts)


def _read_array(contract: Any, series: tuple[str, str, str], since: int, count: int) -> CandleArray | None:
    candles: CandleArray | None = contract.read_candles_array(*series, count, since)
    return candles


def _merged_array(candles: CandleArray, edges: list[int]) -> CandleArray:
    return join_candles(candles, np.repeat(candles["timestamp"][edges[:-1]], np.diff(edges)))


def _joined_arrays(before: CandleArray, after: CandleArray) -> CandleArray:
    return np.concatenate((memory(before), memory(after))).view(CANDLE_DTYPE)  # as bytes: ten times faster than field by field


ARRAYS: Final[Form[CandleArray]] = Form(np.empty(0, CANDLE_DTYPE), _read_array, lambda columns: columns, _joined_arrays, _merged_array)


class ContiguousSeries(Generic[Rows]):
    """A contiguous stretch of one series, which grows in blocks in both directions on demand.

    It holds the positions ``[lo, hi)`` of the grid. ``load(since, count)`` returns all ``count`` candles or None, as the Candle contract
    does. ``ahead`` is the time (ms) up to which the series may be read in advance; None: never read ahead. ``load_stretch`` is for reading
    far ahead.
    """

    def __init__(
        self, form: Form[Rows], load: Load[Rows], grid: Grid, ahead: int | None, load_stretch: Load[CandleArray] | None = None
    ) -> None:
        self._form: Form[Rows] = form
        self._load: Load[Rows] = load
        self._load_stretch = load_stretch
        self._stretch: CandleArray | None = None
        self._stretch_from = 0
        self._grid = grid
        self._ahead = None if ahead is None else grid.position(ahead)
        self._rows: Rows = form.none
        self._lo = self._hi = 0
        self._begins = False  # no candle is stored right before lo
        self._keep = 0  # the longest window requested so far, in candles

    def window(self, since_ms: int, until_ms: int) -> Rows:
        """Return the candles of ``[since_ms, until_ms)``, or only those after the last gap in it."""
        since, until = max(self._grid.position(since_ms), 0), self._grid.position(until_ms)
        self._keep = max(self._keep, until - since)
        if until < self._lo or not len(self._rows) or (until > self._hi and not self._grow_to(until)):
            self._rows, self._lo, self._hi, self._begins = self._form.none, until, until, False
        while since < self._lo and not self._begins:
            self._grow_back(since)
        return self._rows[max(since, self._lo) - self._lo : until - self._lo]

    def _grow_to(self, until: int) -> bool:
        """Load up to ``until``, and further if reading ahead is allowed. Return False if a candle before ``until`` is missing."""
        while self._hi < until:
            needed = min(until - self._hi, BLOCK)
            count = needed if self._ahead is None else max(needed, min(self._ahead - self._hi, BLOCK))
            since = self._grid.opens(self._hi)
            rows = self._from_stretch(count)
            if rows is None:
                rows = self._load(since, count)
            if rows is None and count > needed:
                # The stored candles end (or have a gap) before the run ends: from here on read only what is needed.
                self._ahead = None
                rows = self._load(since, needed)
            if rows is None:
                return False
            self._rows = self._form.joined(self._rows, rows)
            self._hi += len(rows)
        spare = len(self._rows) - self._keep
        if spare > 2 * BLOCK:
            self._rows = self._rows[spare - BLOCK :]
            self._lo = self._hi - len(self._rows)
            self._begins = False
        return True

    def _from_stretch(self, needed: int) -> Rows | None:
        """Return ``needed`` candles from ``hi`` on out of a longer stretch in memory; None if the caller must load them."""
        if self._load_stretch is None or self._ahead is None:
            return None
        first = self._hi - self._stretch_from
        if self._stretch is None or not 0 <= first <= len(self._stretch) - needed:
            count = min(self._ahead - self._hi, STRETCH)
            if count <= needed:
                return None
            self._stretch = self._load_stretch(self._grid.opens(self._hi), count)
            if self._stretch is None:
                self._load_stretch = None  # the stretch has a gap, or runs past the last stored candle
                return None
            self._stretch_from, first = self._hi, 0
        return self._form.of_columns(self._stretch[first : first + needed])

    def _grow_back(self, since: int) -> None:
        """Load the block before ``lo``; if it has a gap, only the candles after the gap."""
        count = min(self._lo - since, BLOCK)
        rows = self._load(self._grid.opens(self._lo - count), count)
        if rows is None:
            self._begins = True
            # "The last n candles are all stored" is monotone in n, so bisect for the largest such n.
            stored, rows = 0, self._form.none
            while count - stored > 1:
                middle = (stored + count) // 2
                candles = self._load(self._grid.opens(self._lo - middle), middle)
                if candles is None:
                    count = middle
                else:
                    stored, rows = middle, candles
        self._rows = self._form.joined(rows, self._rows)
        self._lo -= len(rows)
