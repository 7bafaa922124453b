"""What is stored of a series of candles: which are there, and the notes of the spans that have no hole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise, zip_longest
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ...candles import CandleArray, interval_ms
from ...contracts.adapters import Registry, default_registry
from ...domains import DOMAINS
from ...simulation import simulated_time

__all__ = ["Span", "StoredCandles", "joined", "runs"]

Span = tuple[int, int]
"""``[since, until)`` in ms."""

_CANDLE: Final = DOMAINS["candle"]
_BLOCK: Final = 1_000
"""Candles of one look; so many may follow a noted span before they get a note of their own."""


class StoredCandles:
    """One series of a registry, seen outside of simulation time: what is stored does not depend on the time of a run."""

    def __init__(self, symbol: str, interval: str, exchange_name: str, registry: Registry | None = None) -> None:
        self._registry = default_registry if registry is None else registry
        self.context = symbol, interval, exchange_name
        self.step = interval_ms(interval)
        # JSON, because names may hold any separator.
        self._bucket = f"candle_imports {msgspec.json.encode([exchange_name, symbol, interval]).decode()}"

    @property
    def _candles(self) -> Any:
        return self._registry.adapter("candle")

    @property
    def _notes(self) -> Any:
        return self._registry.adapter("measure")

    def write(self, candles: CandleArray) -> None:
        """Store candles that have closed and are not there yet."""
        self._candles.write_candles_data(candles, *self.context)

    def all_there(self, since: int, until: int) -> bool:
        """Whether every candle of ``[since, until)`` is stored."""
        with simulated_time(None):
            return self._candles.read_candles_array(*self.context, (until - since) // self.step, since) is not None

    def missing(self, since: int, until: int) -> npt.NDArray[np.int64]:
        """The open times of the candles of ``[since, until)`` that are not stored, ascending."""
        wanted = np.arange(since, until, self.step, dtype=np.int64)
        if self.all_there(since, until):
            return wanted[:0]
        if self._registry.bindings["candle"].custom is None:
            symbol, interval, exchange_name = self.context
            batches = self._registry.store(_CANDLE).stored_candles((exchange_name, symbol, interval), since, until)
            there = np.concatenate([wanted[:0], *(batch["timestamp"] for batch in batches)])
            return np.setdiff1d(wanted, there, assume_unique=True)
        if len(wanted) == 1:  # a class of the user's only says whether all are there
            return wanted
        middle = int(wanted[len(wanted) // 2])
        return np.concatenate([self.missing(since, middle), self.missing(middle, until)])

    def batches(self, since: int, until: int) -> Iterator[CandleArray]:
        """The stored candles of ``[since, until)`` in batches, ascending, without the holes."""
        if self._registry.bindings["candle"].custom is None:
            symbol, interval, exchange_name = self.context
            yield from self._registry.store(_CANDLE).stored_candles((exchange_name, symbol, interval), since, until)
            return
        count = (until - since) // self.step
        with simulated_time(None):  # a class of the user's answers with a whole window or with nothing
            candles = self._candles.read_candles_array(*self.context, count, since)
        if candles is not None:
            yield candles
        elif count > 1:
            middle = since + count // 2 * self.step
            yield from self.batches(since, middle)
            yield from self.batches(middle, until)

    def digest(self, since: int, until: int) -> str:
        """A hash of the stored candles of ``[since, until)``, equal for equal candles."""
        found = hashlib.sha256()
        for batch in self.batches(since, until):
            found.update(np.ascontiguousarray(batch).view(np.int8).data)
        return found.hexdigest()

    def remove(self, since: int, until: int) -> int:
        """Delete the candles that open in ``[since, until)``, and the notes that they are stored; how many there were."""
        since, until = (-(-edge // self.step) * self.step for edge in (since, until))  # the notes are of whole candles
        symbol, interval, exchange_name = self.context
        rests: list[Span] = []
        for start, end in self._noted():  # the notes first: one without its candles would promise a window that is not there
            if start < until and since < end:
                self._notes.remove_measure_data(self._bucket, f"{start}:{end}")
                rests += [span for span in ((start, min(since, end)), (max(until, start), end)) if span[0] < span[1]]
        self._write_notes(rests)
        return self._registry.store(_CANDLE).remove_candles((exchange_name, symbol, interval), since, until)

    def spans(self) -> list[Span]:
        """The noted spans, and what follows each of them without a hole, in order of time."""
        return self._extended(self._noted())

    def note(self, spans: Iterable[Span]) -> None:
        """Note that ``spans`` are stored without a hole.

        A record of its own for each span: writers side by side cannot undo each other's notes. What a live run adds to the end of
        a noted span gets one only every so often, else there would be one for each minute.
        """
        noted = self._noted()
        known = self._extended(noted)
        fresh: list[Span] = []
        for since, until in spans:
            around = next((span for span in known if span[0] <= since and until <= span[1]), None)
            if around is None:
                fresh.append((since, until))
                continue
            last = max(end for start, end in noted if around[0] <= start and end <= around[1])
            if around[1] - last >= _BLOCK * self.step:
                fresh.append((last, around[1]))
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
        known = joined(noted)
        ends = [since for since, _ in known[1:]]
        return joined((since, self._reach(until, end)) for (since, until), end in zip_longest(known, ends))

    def _reach(self, since: int, end: int | None) -> int:
        """Where the unbroken stretch of stored candles ends that goes on from ``since``, or ``end`` (ms) if it gets there."""
        step, reached = self.step, since
        if end == since or not self.all_there(since, since + step):
            return since
        while end is None or reached < end:
            block = reached + _BLOCK * step if end is None else min(reached + _BLOCK * step, end)
            missing = self.missing(reached, block)
            if len(missing):
                return int(missing[0])
            reached = block
        return reached


def runs(since: int, until: int, step: int, missing: npt.NDArray[np.int64]) -> list[Span]:
    """The stretches of ``[since, until)`` without a hole; ``missing`` are the open times (ms, ascending) of what is not there."""
    edges = np.concatenate([[since - step], missing, [until]])
    return [(int(before) + step, int(after)) for before, after in pairwise(edges) if after - before > step]


def joined(spans: Iterable[Span]) -> list[Span]:
    """``spans``, which are in order of time, with those made one that touch or overlap."""
    found: list[Span] = []
    for since, until in spans:
        if found and since <= found[-1][1]:
            found[-1] = found[-1][0], max(until, found[-1][1])
        else:
            found.append((since, until))
    return found
