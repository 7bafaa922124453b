"""Interleaved measurement: every round is a burst of each side in turn, so that all of them meet the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["Interleaved", "Side"]


class Side(NamedTuple):
    """One contestant: ``calls`` of ``call`` make a burst; ``before`` runs ahead of each burst and is not timed."""

    call: Callable[[], object]
    calls: int = 25
    before: Callable[[], object] | None = None


class Interleaved:
    """Sides by name and their seconds per call, one number a round. ``clock`` gives seconds."""

    def __init__(self, sides: Mapping[str, Side], clock: Callable[[], float] = time.perf_counter) -> None:
        self.sides = sides
        self.seconds: dict[str, list[float]] = {name: [] for name in sides}
        self._clock = clock
        self._rounds = 0

    def round(self) -> None:
        """One burst of each side; another one begins each time, since whoever comes first warms the servers for the others."""
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
        """What was timed until now was the warm-up."""
        for seconds in self.seconds.values():
            seconds.clear()

    def microseconds(self) -> dict[str, float]:
        """The median of each side."""
        return {name: statistics.median(seconds) * 1e6 for name, seconds in self.seconds.items()}

    def over(self, name: str, other: str) -> float:
        """How many times ``other`` a call of ``name`` takes: the median over the rounds, each of which met one speed of the machine."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True))

    def ratios(self, at_most: Mapping[str, Any]) -> dict[str, float]:
        """How many times faster ``ours`` is than each other side; against a floor, or what ``at_most`` names, the share it takes."""
        return {
            name: self.over("ours", name) if name in at_most or name.startswith("floor") else self.over(name, "ours")
            for name in self.sides
            if name != "ours"
        }
