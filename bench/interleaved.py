"""Interleaved measurement: each round is a burst of every side in turn, so that all sides meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Interleaved", "Side"]


class Side(NamedTuple):
    """One contestant: a burst is ``calls`` calls of ``call``; ``before`` runs before each burst and is not timed."""

    call: Callable[[], object]
    calls: int = 25
    before: Callable[[], object] | None = None


class Interleaved:
    """Sides by name, and their seconds per call for each round. ``clock`` returns seconds."""

    def __init__(self, sides: Mapping[str, Side], clock: Callable[[], float] = time.perf_counter) -> None:
        self.sides = sides
        self.seconds: dict[str, list[float]] = {name: [] for name in sides}
        self._clock = clock
        self._rounds = 0

    def round(self) -> None:
        """Run one burst of each side. Another side begins each time, since the first one warms the servers for the others."""
        names = list(self.sides)
        first = self._rounds % len(names)
        self._rounds += 1
        for name in names[first:] + names[:first]:
            call, calls, before = self.sides[name]
            if before is not None:
                before()
            started = self._clock()
            for _ in range(calls):
                call()
            self.seconds[name].append((self._clock() - started) / calls)

    def forget(self) -> None:
        """Drop the times measured so far: they were the warm-up."""
        for seconds in self.seconds.values():
            seconds.clear()

    def microseconds(self) -> dict[str, float]:
        """Return the median of each side in microseconds."""
        return {name: statistics.median(seconds) * 1e6 for name, seconds in self.seconds.items()}

    def over(self, name: str, other: str) -> float:
        """Return how many times as long ``name`` takes as ``other``: the median of the rounds' ratios, as speed varies between rounds."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True))

    def ratios(self, at_most: Mapping[str, Any]) -> dict[str, float]:
        """Return how many times faster ``ours`` is than each other side; for a floor or a name in ``at_most``, ours over theirs."""
        return {
            name: self.over("ours", name) if name in at_most or name.startswith("floor") else self.over(name, "ours")
            for name in self.sides
            if name != "ours"
        }
