"""Check whether a history of reads and writes could come from one register per key that runs one operation at a time.

Every value is written once, which makes the check easy (Gibbons and Korach, "Testing Shared Memories", SIAM J. Comput. 26, 1997):
the write and the reads of one value form a cluster. If each of them began before the first one ended, the value need not have existed
for longer than a moment. Otherwise it existed at least from the first end to the last begin (its zone is then "forward").
A history is linearizable if and only if no read returns a value before its write, no two forward zones of a key overlap, and no zone
of the other kind lies within a forward one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["NEVER", "NOTHING", "OPERATION", "Violation", "violations"]

OPERATION: Final = np.dtype([("key", "i4"), ("writes", "?"), ("value", "i8"), ("start", "i8"), ("end", "i8")])
"""One operation: what it wrote or read, and when it was called and had returned (ns, of one clock for all processes)."""
NEVER: Final = 2**63 - 1
"""As the end of a write that failed: it may have been done, and may yet be done."""
NOTHING: Final = 0
"""The value of a key before the first write."""

History = npt.NDArray[np.void]


class Violation(NamedTuple):
    """The few operations on one key that show a contradiction, ordered by the start of their calls."""

    key: int
    text: str
    operations: tuple[tuple[bool, int, int, int], ...]

    def __str__(self) -> str:
        first = min(start for _, _, start, _ in self.operations)
        lines = [f"key {self.key}: {self.text}"]
        for writes, value, start, end in self.operations:
            until = "never" if end == NEVER else f"{(end - first) / 1e6:.3f} ms"
            lines.append(f"    {'write' if writes else 'read '} {value:>20}   from {(start - first) / 1e6:.3f} ms to {until}")
        return "\n".join(lines)


class _Zone(NamedTuple):
    start: int  # the first end of an operation on the value or the last begin, whichever is earlier
    end: int
    forward: bool
    cause: tuple[Any, Any]


def violations(history: History) -> Iterator[Violation]:
    """Yield all contradictions of a history, key by key; a history without any is linearizable."""
    ordered = history[np.argsort(history["key"], kind="stable")]
    borders = np.flatnonzero(np.diff(ordered["key"])) + 1
    for operations in np.split(ordered, borders):
        if len(operations):
            yield from _of_key(int(operations["key"][0]), operations)


def _of_key(key: int, operations: History) -> Iterator[Violation]:
    read = set(operations["value"][~operations["writes"]].tolist())
    forward: list[_Zone] = []
    others: list[_Zone] = []
    ordered = operations[np.argsort(operations["value"], kind="stable")]
    for cluster in np.split(ordered, np.flatnonzero(np.diff(ordered["value"])) + 1):
        value = int(cluster["value"][0])
        writes = cluster[cluster["writes"]]
        if len(writes) > 1:
            raise ValueError(f"key {key}: {value} was written twice; such a history cannot be checked")
        reads = cluster[~cluster["writes"]]
        if len(writes) and int(writes["end"][0]) == NEVER and value not in read:
            continue  # nobody read the value, so it does not matter whether the write was done
        if not len(writes) and value != NOTHING:
            yield _violation(key, f"{value} was read, and nobody wrote it", reads[:1])
            continue
        if len(writes) and len(reads) and int(reads["end"].min()) < int(writes["start"][0]):
            early = reads[np.argmin(reads["end"])]
            yield _violation(key, f"{value} was read before it was written", [early, writes[0]])
            continue
        zone = _zone(cluster, initial=value == NOTHING)
        (forward if zone.forward else others).append(zone)
    forward.sort(key=lambda zone: zone.start)
    for one, two in pairwise(forward):
        if two.start < one.end:
            yield _violation(key, "two values take turns", [*one.cause, *two.cause])
    starts = np.array([zone.start for zone in forward], dtype="i8")
    for zone in others:
        index = int(np.searchsorted(starts, zone.start)) - 1
        if index >= 0 and zone.end < forward[index].end:
            yield _violation(key, "a value comes between two operations on another one", [*forward[index].cause, *zone.cause])


def _zone(cluster: History, *, initial: bool) -> _Zone:
    ends, starts = cluster["end"], cluster["start"]
    first, last = int(np.argmin(ends)), int(np.argmax(starts))
    end, start = int(ends[first]), int(starts[last])
    if initial:  # written before every recorded operation
        return _Zone(-1, start, True, (cluster[first], cluster[last]))
    return _Zone(min(end, start), max(end, start), end < start, (cluster[first], cluster[last]))


def _violation(key: int, text: str, operations: Any) -> Violation:
    rows = {(bool(row["writes"]), int(row["value"]), int(row["start"]), int(row["end"])) for row in operations}
    return Violation(key, text, tuple(sorted(rows, key=lambda row: row[2])))
