"""What each domain did: plain counts and latency histograms, kept in C and summed up only when somebody asks."""

from __future__ import annotations

from typing import Any, Final

from ._core.counters import Counters
from .domains import DOMAINS

__all__ = ["COUNTS", "OPERATIONS", "Metrics"]

# The positions in these tuples are the numbers under which the stores count.
COUNTS: Final = (
    "reads", "hits_process", "hits_redis", "misses", "stale", "backfills", "writes", "removes", "errors", "redis_errors",
    "hits_block", "bytes_read", "bytes_written",
)  # fmt: skip
(
    READS, HITS_PROCESS, HITS_REDIS, MISSES, STALE, BACKFILLS, WRITES, REMOVES, ERRORS, REDIS_ERRORS,
    HITS_BLOCK, BYTES_READ, BYTES_WRITTEN,
) = range(len(COUNTS))  # fmt: skip

OPERATIONS: Final = ("read", "write", "remove", "list", "read_many", "write_many")
READ, WRITE, REMOVE, LIST, READ_MANY, WRITE_MANY = range(len(OPERATIONS))


class Metrics:
    """The counters of one registry, by domain name."""

    def __init__(self) -> None:
        self.domains: dict[str, Counters] = {name: Counters() for name in DOMAINS}

    def reset(self) -> None:
        """Set every count and histogram to zero."""
        for counters in self.domains.values():
            counters.reset()

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """A plain dict: domain -> counts, ``hit_ratio`` (0 to 1, or None) and ``operations`` with count, p50 and p99 in us.

        ``reads`` counts records asked for by key, rows and keys that lists gave, and candle windows; ``writes`` records and rows
        sent, and candles that were new. ``hits_process``, ``hits_redis`` and ``misses`` say where the id of a record asked for by
        key came from (a miss was found, or not, by its key; for candles: a window that was not whole), ``stale`` which cached ids
        led nowhere or elsewhere, ``backfills`` which ids were cached by reads. ``hits_block`` counts candle windows served from the
        memory of this process, ``bytes_read`` and ``bytes_written`` BSON from and to MongoDB. ``errors`` counts calls that failed after their
        arguments were accepted, ``redis_errors`` cache operations that failed and failed no call. Only calls that succeeded are in
        the latencies.

        A percentile is read from a histogram whose steps are 1/16 of a power of two wide.
        """
        result: dict[str, dict[str, Any]] = {}
        for name, counters in self.domains.items():
            row: dict[str, Any] = {count: counters.count(index) for index, count in enumerate(COUNTS)}
            hits = row["hits_process"] + row["hits_redis"]
            looked_up = hits + row["misses"]
            # Windows and lists do not go by ids: their misses are candles that were not there.
            row["hit_ratio"] = hits / looked_up if looked_up and DOMAINS[name].keyed else None
            row["operations"] = {
                operation: {
                    "count": counters.observed(index),
                    "p50": _microseconds(counters.percentile(index, 50)),
                    "p99": _microseconds(counters.percentile(index, 99)),
                }
                for index, operation in enumerate(OPERATIONS)
                if counters.observed(index)
            }
            result[name] = row
        return result


def _microseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1000, 3)
