"""The stored candles of a series: which are missing, and notes of the spans that have no gap."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise, zip_longest
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ...arguments import text
from ...candles import CandleArray, Grid, grid_of
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...domains import DOMAINS
from ...simulation import outside_runs, simulated_time

__all__ = ["Span", "StoredCandles", "joined", "runs"]

Span = tuple[int, int]
"""``[since, until)`` in ms."""

_CANDLE: Final = DOMAINS["candle"]
_BLOCK: Final = 1_000
"""Candles per lookup; also how many may follow a noted span before they get a note of their own."""


class StoredCandles:
    """A series of a registry, read outside of simulation time: what is stored does not depend on the time of a run."""

    def __init__(self, symbol: str, interval: str, exchange_name: str, registry: Registry | None = None) -> None:
        self._registry = default_registry if registry is None else registry
        symbol, exchange_name = text("symbol", symbol), text("exchange_name", exchange_name)
        interval = text("interval", interval)
        self.context: tuple[str, str, str] = symbol, interval, exchange_name
        self.grid: Grid = grid_of(interval)
        # JSON, because names may contain any separator.
        self._bucket = f"candle_imports {msgspec.json.encode([exchange_name, symbol, interval]).decode()}"

    @property
    def series(self) -> tuple[str, str, str]:
        """The series as stores name it: exchange, symbol and interval."""
        symbol, interval, exchange_name = self.context
        return exchange_name, symbol, interval

    @property
    def _candles(self) -> Any:
        return self._registry.adapter("candle")

    @property
    def _notes(self) -> Any:
        return self._registry.adapter("measure")

    def write(self, candles: CandleArray) -> None:
        """Store candles that have closed and are not stored yet."""
        self._candles.write_candles_data(candles, *self.context)

    def all_there(self, since: int, until: int) -> bool:
        """Return whether every candle of ``[since, until)`` is stored."""
        with outside_runs():
            return self._candles.read_candles_array(*self.context, self.grid.count(since, until), since) is not None

    def missing(self, since: int, until: int) -> npt.NDArray[np.int64]:
        """Return the open times (ms, ascending) of the candles of ``[since, until)`` that are not stored."""
        expected = self.grid.stamps(since, until)
        if self.all_there(since, until):
            return expected[:0]
        if self._registry.binding("candle").custom is None:
            batches = self._registry.store(_CANDLE).stored_candles(self.series, since, until)
            present = np.concatenate([expected[:0], *(batch["timestamp"] for batch in batches)])
            return np.setdiff1d(expected, present, assume_unique=True)
        if len(expected) == 1:  # a custom class only says whether all candles are stored
            return expected
        middle = int(expected[len(expected) // 2])
        return np.concatenate([self.missing(since, middle), self.missing(middle, until)])

    def batches(self, since: int, until: int) -> Iterator[CandleArray]:
        """Yield the stored candles of ``[since, until)`` in batches, ascending; gaps are left out."""
        if self._registry.binding("candle").custom is None:
            yield from self._registry.store(_CANDLE).stored_candles(self.series, since, until)
            return
        count = self.grid.count(since, until)
        with outside_runs():  # a custom class returns a whole window or nothing
            candles = self._candles.read_candles_array(*self.context, count, since)
        if candles is not None:
            yield candles
        elif count > 1:
            middle = self.grid.after(since, count // 2)
            yield from self.batches(since, middle)
            yield from self.batches(middle, until)

    def digest(self, since: int, until: int) -> str:
        """Return a hash of the stored candles of ``[since, until)``, equal for equal candles."""
        sha256 = hashlib.sha256()
        for batch in self.batches(since, until):
            sha256.update(np.ascontiguousarray(batch).view(np.int8).data)
        return sha256.hexdigest()

    def replace(self, candles: CandleArray) -> int:
        """Give those of ``candles`` (ascending, closed) that are stored these values, and return how many are. Notes stay."""
        return self._registry.store(_CANDLE).replace_candles(self.series, candles) if len(candles) else 0

    def remove(self, since: int, until: int) -> int:
        """Delete the candles that open in ``[since, until)`` and their notes, and return how many candles there were."""
        since, until = (self.grid.ceil(edge) for edge in (since, until))  # notes cover whole candles
        remainders: list[Span] = []
        for start, end in self._noted():  # notes first: a note without its candles would promise a window that is not stored
            if start < until and since < end:
                self._notes.remove_measure_data(self._bucket, f"{start}:{end}")
                remainders += [span for span in ((start, min(since, end)), (max(until, start), end)) if span[0] < span[1]]
        self._write_notes(remainders)
        return self._registry.store(_CANDLE).remove_candles(self.series, since, until)

    def spans(self) -> list[Span]:
        """Return the noted spans in order of time, each extended by the candles that follow it without a gap."""
        return self._extended(self._noted())

    def note(self, spans: Iterable[Span]) -> None:
        """Note that ``spans`` are stored without a gap.

        Each span has a record of its own, so concurrent writers cannot undo each other's notes. What a live run appends to a noted
        span gets a note only once in ``_BLOCK`` candles; otherwise there would be one for each minute.
        """
        noted = self._noted()
        extended = self._extended(noted)
        fresh: list[Span] = []
        for since, until in spans:
            enclosing = next((span for span in extended if span[0] <= since and until <= span[1]), None)
            if enclosing is None:
                fresh.append((since, until))
                continue
            last = max(end for start, end in noted if enclosing[0] <= start and end <= enclosing[1])
            if self.grid.count(last, enclosing[1]) >= _BLOCK:
                fresh.append((last, enclosing[1]))
        self._write_notes(fresh)

    def _write_notes(self, spans: Iterable[Span]) -> None:
        symbol, interval, exchange_name = self.context
        notes = []
        for since, until in dict.fromkeys(spans):
            key = f"{since}:{until}"
            data = {"symbol": symbol, "interval": interval, "exchangeName": exchange_name, "since": since, "until": until}
            notes.append(({"id": key, "data": data, "removed": False}, self._bucket, key, until))
        self._notes.write_many(notes)

    def _noted(self) -> list[Span]:
        with simulated_time(None):
            keys = list(self._notes.list_measure_data(self._bucket))
        return sorted((int(since), int(until)) for since, until in (key.split(":") for key in keys))

    def _extended(self, noted: list[Span]) -> list[Span]:
        merged = joined(noted)
        ends = [since for since, _ in merged[1:]]
        return joined((since, self._reach(until, end)) for (since, until), end in zip_longest(merged, ends))

    def _reach(self, since: int, end: int | None) -> int:
        """Return where the contiguous stored candles from ``since`` on end (ms), or ``end`` if they reach it."""
        grid, reached = self.grid, since
        if end == since or not self.all_there(since, grid.after(since)):
            return since
        while end is None or reached < end:
            block = grid.after(reached, _BLOCK) if end is None else min(grid.after(reached, _BLOCK), end)
            missing = self.missing(reached, block)
            if len(missing):
                return int(missing[0])
            reached = block
        return reached


def runs(since: int, until: int, grid: Grid, missing: npt.NDArray[np.int64]) -> list[Span]:
    """Return the spans of ``[since, until)`` without a gap; ``missing`` holds the open times (ms, ascending) that are not stored."""
    edges = [grid.after(since, -1), *missing.tolist(), until]
    return [(grid.after(before), after) for before, after in pairwise(edges) if grid.count(before, after) > 1]


def joined(spans: Iterable[Span]) -> list[Span]:
    """Merge spans that touch or overlap; ``spans`` must be in order of time."""
    merged: list[Span] = []
    for since, until in spans:
        if merged and since <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(until, merged[-1][1])
        else:
            merged.append((since, until))
    return merged
