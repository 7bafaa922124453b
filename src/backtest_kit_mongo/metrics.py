"""What each domain did: plain counts and latency histograms, kept in C and summed up only when somebody asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._core.counters import Counters
from .domains import DOMAINS

__all__ = ["COUNTS", "OPERATIONS", "PERCENTILES", "Mark", "Metrics", "Stats"]

# The positions in these tuples are the numbers under which the stores count.
COUNTS: Final = (
    "reads", "hits_process", "hits_redis", "misses", "stale", "backfills", "writes", "removes", "errors", "redis_errors",
    "hits_block", "bytes_read", "bytes_written", "future_reads",
)  # fmt: skip
(
    READS, HITS_PROCESS, HITS_REDIS, MISSES, STALE, BACKFILLS, WRITES, REMOVES, ERRORS, REDIS_ERRORS,
    HITS_BLOCK, BYTES_READ, BYTES_WRITTEN, FUTURE_READS,
) = range(len(COUNTS))  # fmt: skip

OPERATIONS: Final = ("read", "write", "remove", "list", "read_many", "write_many")
READ, WRITE, REMOVE, LIST, READ_MANY, WRITE_MANY = range(len(OPERATIONS))

PERCENTILES: Final = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0))

LAYERS: Final = ("process", "redis", "block")

Stats = dict[str, dict[str, Any]]
Mark = Mapping[str, Counters]


class Metrics:
    """The counters of one registry, by domain name."""

    def __init__(self) -> None:
        self.domains: dict[str, Counters] = {name: Counters() for name in DOMAINS}
        self.reset()

    def mark(self) -> Mark:
        """The state at this moment, for a later ``snapshot(since=...)``."""
        return {name: counters.copy() for name, counters in self.domains.items()}

    def reset(self) -> None:
        """Let ``snapshot()`` begin at zero. The counters go on, so whoever holds a mark is not disturbed."""
        self._zero = self.mark()

    def snapshot(self, since: Mark | None = None) -> Stats:
        """What happened since a mark (None: since ``reset``): domain -> counts, hit ratios and ``operations``.

        ``reads`` counts records asked for by key, rows and keys that lists gave, and candle windows; ``writes`` records and rows
        sent, and candles that were new. ``hits_process``, ``hits_redis`` and ``misses`` say where the id of a record asked for by
        key came from (a miss was found, or not, by its key; for candles: a window that was not whole), ``stale`` which cached ids
        led nowhere or elsewhere, ``backfills`` which ids were cached by reads. ``hits_block`` counts candle windows served from the
        memory of this process, ``bytes_read`` and ``bytes_written`` BSON from and to MongoDB, ``future_reads`` reads that met what was
        written at a later simulation time (see ``look_ahead``). ``errors`` counts calls that failed
        after their arguments were accepted, ``redis_errors`` cache operations that failed and failed no call.

        ``hit_ratios`` has for each layer (``process``, ``redis``, ``block``) the share of what was asked for that it answered, 0 to
        1: of the records asked for by key, or of the candle windows. It is None where a layer has no part, or nothing was asked.
        ``hit_ratio`` is their sum.

        ``operations`` has for each that was called ``count``, ``p50``, ``p90``, ``p99`` and ``max`` in us, of calls that succeeded.
        They are read from a histogram whose steps are 1/16 of a power of two wide: at most so much too long, never too short.
        """
        before = self._zero if since is None else since
        return {name: _row(name, counters.since(before[name])) for name, counters in self.domains.items()}


def _row(name: str, counters: Counters) -> dict[str, Any]:
    row: dict[str, Any] = {count: counters.count(index) for index, count in enumerate(COUNTS)}
    asked, hits = 0, {"process": row["hits_process"], "redis": row["hits_redis"]}
    if DOMAINS[name].keyed:  # lists do not go by ids
        asked = row["misses"] + sum(hits.values())
    elif name == "candle":
        asked, hits = row["reads"], {"block": row["hits_block"]}
    row["hit_ratio"] = sum(hits.values()) / asked if asked else None
    row["hit_ratios"] = {layer: hits[layer] / asked if asked and layer in hits else None for layer in LAYERS}
    row["operations"] = {
        operation: {
            "count": counters.observed(index),
            **{label: _microseconds(counters.percentile(index, percent)) for label, percent in PERCENTILES},
        }
        for index, operation in enumerate(OPERATIONS)
        if counters.observed(index)
    }
    return row


def _microseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1000, 3)
