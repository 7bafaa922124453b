"""What each domain did: counts and latency histograms, kept in C and summed up only on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._core.counters import Counters
from .domains import DOMAINS

__all__ = ["COUNTS", "OPERATIONS", "PERCENTILES", "Mark", "Metrics", "Stats"]

# The stores count by number: the position of a name in these tuples.
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
        """Return the current state, for a later ``snapshot(since=...)``."""
        return {name: counters.copy() for name, counters in self.domains.items()}

    def reset(self) -> None:
        """Make ``snapshot()`` start from zero. The counters keep counting, so existing marks stay valid."""
        self._zero = self.mark()

    def snapshot(self, since: Mark | None = None) -> Stats:
        """Return what happened since a mark (None: since ``reset``): domain -> counts, ``hit_ratio``, ``hit_ratios``, ``operations``.

        The counts are:

        - ``reads``: records requested by key, rows and keys returned by lists, and candle windows
        - ``hits_process``, ``hits_redis``: records requested by key with a correct id from this process or from Redis
        - ``hits_block``: candle windows served from the memory of this process
        - ``misses``: records requested by key without a correct id in any cache, stored or not; for candles, incomplete windows
        - ``stale``: cached ids of documents that were gone or belonged to another key
        - ``backfills``: ids that reads put into the caches
        - ``writes``: records and rows sent, and new candles
        - ``removes``: records removed
        - ``errors``: calls that failed after their arguments were accepted
        - ``redis_errors``: cache operations that failed without failing a call
        - ``bytes_read``, ``bytes_written``: bytes of BSON from and to MongoDB
        - ``future_reads``: reads that met data of a later simulation time (see ``look_ahead``)

        ``hit_ratios`` maps each layer (``process``, ``redis``, ``block``) to the share of requests that it answered, 0 to 1: of the
        records requested by key, or of the candle windows. It is None if the layer does not serve the domain or nothing was requested.
        ``hit_ratio`` is the sum over the layers.

        ``operations`` maps each operation that was called to ``count``, ``p50``, ``p90``, ``p99`` and ``max`` (us) of its successful
        calls. They come from a histogram with steps of 1/16 of a power of two: a duration may be too long by one step, never too short.
        """
        before = self._zero if since is None else since
        return {name: _row(name, counters.since(before[name])) for name, counters in self.domains.items()}


def _row(name: str, counters: Counters) -> dict[str, Any]:
    row: dict[str, Any] = {count: counters.count(index) for index, count in enumerate(COUNTS)}
    asked, hits = 0, {"process": row["hits_process"], "redis": row["hits_redis"]}
    if DOMAINS[name].keyed:  # lists do not use ids
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
