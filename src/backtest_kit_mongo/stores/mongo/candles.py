"""Candles in MongoDB: read a window with one query, keep it in memory and read ahead; on import, send only the candles that are missing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from bson import ObjectId

from ..._core import bson as core
from ..._core.blocks import CandleBlocks
from ..._core.candles import decode_candles, numbers
from ...candle_packing import BLOCK
from ...candles import CANDLE_DTYPE, CandleArray, closed_candles, interval_ms
from ...config import Config
from ...domains import DOMAINS, PACKED_CANDLES
from ...logs import log
from ...metrics import HITS_BLOCK, READ, READS, Metrics
from ..base import Key
from ..fork_safety import renew_after_fork
from .candle_documents import candle_documents, new_ids, on_grid, series_fields
from .database import MongoDatabase
from .documents import Document
from .errors import reading, translates
from .packed_candles import Basis, PackedCandles, Span, ranges
from .redis_ids import RedisIds
from .second_thread import beside

__all__ = ["MongoCandles", "consecutive"]

# Matches any string; a key field of another type is not one of ours.
_TEXT: Document = {"$gte": ""}
# Later times (ms) are not exact as doubles.
_FAR = 2**53

BATCH = 10_000
"""Candles per insert command."""

RANGE = 4_000
"""Candles per query of a long window: one range is decoded while the server reads the next."""

SHARED = 8_000
"""A window of at least this many candles is read over two connections, so that two cores of the server work on it."""

PAGE = 20_000
"""Candles per query when a whole series is read."""

ASK_AGAIN = 60.0
"""Seconds until a block that was not packed is looked up again: another process may have packed it."""
_MOST_ABSENT = 100_000

COUNTED = 100_000
"""A window of at least this many candles is counted over two connections."""

SMALLEST, MORE = 2_048, 256
"""An incomplete block is packed if it has at least so many candles, and so many more than the packed one."""

AHEAD, FARTHEST = 1_000, 32_768
"""How many candles to read ahead of a small window: at first, and at most. It doubles while the caller walks forward."""


class MongoCandles:
    """The candle domain of a Mongo store. A series is (exchangeName, symbol, interval)."""

    def __init__(self, config: Config, connection: MongoDatabase, redis_ids: RedisIds, metrics: Metrics) -> None:
        self._counters = metrics.domains["candle"]
        self.blocks: CandleBlocks = CandleBlocks(config.CC_CANDLE_MEMORY_MB * 1024 * 1024, self._counters, (READS, HITS_BLOCK, READ))
        renew_after_fork(self.blocks)
        self._with_ids = config.CC_REDIS_IDS == "all"
        self._connection = connection
        self._redis_ids = redis_ids
        self._ahead: dict[Key, tuple[int, int]] = {}  # end of the last read (ms), and how many candles it read ahead
        self._seen: dict[Key, tuple[int, int]] = {}  # first and last open time (ms) of a window without gaps
        self.packed: PackedCandles = PackedCandles(connection)
        self._absent: dict[tuple[Key, int], float] = {}  # blocks that are not packed, and when that was seen (time.monotonic)

    # --- reading ---

    def read(self, series: Key, since: int, limit: int) -> CandleArray | None:
        """Return ``limit`` candles from ``since`` (ms, on the grid), read-only; None if any of them is missing."""
        step = interval_ms(series[2])
        head = self.blocks.head(series, limit, since)
        cached = 0 if head is None else len(head)
        if head is not None and cached == limit:  # the window spans several blocks
            self._counters.add(HITS_BLOCK)
            return head
        if limit >= SHARED and 8 * cached < limit:  # to join a few candles with many would hold the many twice
            head, cached = None, 0
        generation = self.blocks.generation
        start, missing = since + cached * step, limit - cached
        ahead = self._how_far(series, start, missing)
        now = time.time_ns() // 1_000_000  # before the query: a candle that closes meanwhile may still be open in the result
        span = Span(start, start + (missing + ahead) * step, step)
        rows, basis = self._read_packed(series, span, missing, now)
        if rows is None:
            if basis is None and missing + ahead >= SMALLEST:
                basis = self.packed.look_up(series, span.blocks(now))
            rows = self._read_items(series, span, missing)
        if basis is not None:
            self.pack(series, rows, basis, now)
        first = (start - int(rows["timestamp"][0])) // step if len(rows) else 0  # a packed block may begin before the window
        count = len(rows) - first
        # After an incomplete window, read nothing ahead next time; after the end of the stored candles, start small again.
        end = start + count * step
        self._ahead[series] = (end, 0 if count < missing else max(ahead, AHEAD // 2) if count >= missing + ahead else AHEAD // 2)
        rows.flags.writeable = False
        if count < missing:
            return None
        if int(rows["timestamp"][-1]) + step <= now:
            self.blocks.keep(series, step, rows, generation)
        elif len(closed := closed_candles(rows, series[2], now)):
            self.blocks.keep(series, step, closed, generation)
        window = rows[first : first + missing]
        if head is not None:
            window = np.concatenate([head, window])
            window.flags.writeable = False
        return window

    def _read_packed(self, series: Key, span: Span, needed: int, now: int) -> tuple[CandleArray | None, Basis | None]:
        """Read a span from packed blocks, and the rest from items.

        Returns the candles up to the first gap, or None if no block is stored, and what was learned about the blocks. The candles may
        begin before the span, and end after it: a block is decoded as a whole.
        """
        step = span.step
        blocks = self._unless_absent(series, span.blocks(now))
        if not blocks:
            return None, None
        length = step * BLOCK
        low, high = min(span.since, blocks.start * length), max(span.until, blocks.stop * length)
        rows = np.empty((high - low) // step, CANDLE_DTYPE)
        basis = self.packed.read(series, blocks, rows, low, step)
        self._note_absent(series, (number for number in blocks if number not in basis.runs))
        if not basis.runs:
            return None, basis
        covered = basis.covered(step)
        first = min((start for start, end in covered if start <= span.since <= end), default=span.since)
        last = max((end for start, end in covered if start <= span.until <= end), default=span.until)
        for start, end in _uncovered(first, last, covered):
            part = rows[(start - low) // step : (end - low) // step]
            filled = self._fetch(series, start, part, max(0, needed - (start - span.since) // step))
            if start + filled * step < end:
                last = start + filled * step
                break
        usable = rows[(first - low) // step : (last - low) // step]
        return rows if len(usable) == len(rows) else usable, basis

    def _read_items(self, series: Key, span: Span, needed: int) -> CandleArray:
        """Read a span from the candle documents; return the candles up to the first gap."""
        rows = np.empty((span.until - span.since) // span.step, CANDLE_DTYPE)
        small = len(rows) > needed or needed < SHARED
        filled = self._fetch(series, span.since, rows, needed) if small else self._fetch_in_halves(series, span.since, rows)
        return rows if filled == len(rows) else rows[:filled].copy()

    def pack(self, series: Key, rows: CandleArray, basis: Basis, now: int) -> int:
        """Pack the closed blocks of consecutive candles that hold more than what is packed; return how many were stored."""
        if not len(rows):
            return 0
        step = interval_ms(series[2])
        opens = int(rows["timestamp"][0]) // step
        blocks: list[tuple[int, int, CandleArray]] = []
        for number in Span(opens * step, (opens + len(rows)) * step, step).blocks(now):
            first = max(0, opens - number * BLOCK)
            count = min(BLOCK, opens + len(rows) - number * BLOCK) - first
            packed = basis.runs.get(number, ())
            before = sum(run.length for run in packed)
            has_all = all(first <= run.first and run.first + run.length <= first + count for run in packed)
            if has_all and count > before and (count == BLOCK or count >= max(SMALLEST, before + MORE)):
                at = number * BLOCK + first - opens
                blocks.append((number, first, rows[at : at + count]))
        for number, _, _ in blocks:
            self._absent.pop((series, number), None)
        return self.packed.put(series, blocks, basis) if blocks else 0

    def _unless_absent(self, series: Key, blocks: range) -> range:
        """Leave out, at both ends, blocks that were not packed when this process last asked, not long ago."""
        first, stop = blocks.start, blocks.stop
        if self._absent:
            before = time.monotonic() - ASK_AGAIN
            while first < stop and self._absent.get((series, first), -math.inf) > before:
                first += 1
            while first < stop and self._absent.get((series, stop - 1), -math.inf) > before:
                stop -= 1
        return range(first, stop)

    def _note_absent(self, series: Key, numbers: Iterable[int]) -> None:
        if len(self._absent) > _MOST_ABSENT:
            self._absent.clear()
        self._absent.update(dict.fromkeys(((series, number) for number in numbers), time.monotonic()))

    def _how_far(self, series: Key, start: int, needed: int) -> int:
        """Return how many candles to read ahead of a window, since the caller may want them next."""
        if needed >= AHEAD or not self.blocks.budget:
            return 0
        end, before = self._ahead.get(series, (start, AHEAD // 2))
        return min(2 * before, FARTHEST) if start == end else AHEAD if before else 0

    def _fetch_in_halves(self, series: Key, since: int, target: CandleArray) -> int:
        """Fetch all of ``target`` as ``_fetch`` does, its second half in another thread."""
        half = len(target) // 2
        middle = since + half * interval_ms(series[2])
        second = partial(self._fetch, series, middle, target[half:], len(target) - half)
        filled, later = beside(second, partial(self._fetch, series, since, target[:half], half))
        return filled + (later() if filled == half else 0)

    def _fetch(self, series: Key, since: int, target: CandleArray, needed: int) -> int:
        """Read the candles from ``since`` (ms) into ``target``, up to the first gap; return how many were read.

        A document that cannot be read raises DatabaseError only if it is among the first ``needed`` candles.
        """
        domain = DOMAINS["candle"]
        step, limit = interval_ms(series[2]), len(target)
        length = max(RANGE, -(-limit // 256))  # keeps the number of queries small, even for a window of a hundred years
        bounds = [since + index * step for index in (*range(0, limit, length), limit)]
        fields = series_fields(series)
        queries: list[Document] = [
            {"filter": {**fields, "timestamp": {"$gte": start, "$lt": end}}, "sort": {"timestamp": 1}} for start, end in pairwise(bounds)
        ]
        memory, filled = target.view(np.int8), 0
        broken: bytes | None = None
        for batch in self._connection.fetch(domain, queries):
            try:
                filled = decode_candles([batch], memory, since, step, limit, filled)
            except ValueError:
                broken = batch
                break
        if broken is not None and filled < needed:
            with reading(domain, " ".join(series)):
                filled = decode_candles([broken], memory[: needed * CANDLE_DTYPE.itemsize], since, step, needed, filled)
        return filled

    def series(self) -> list[Key]:
        """Return the stored series, sorted. One query per series finds the next one in the unique index."""
        domain = DOMAINS["candle"]
        names = domain.key[:3]
        query: Document = {
            "filter": dict.fromkeys(names, _TEXT),
            "sort": dict.fromkeys(domain.key, 1),
            "limit": 1,
            "projection": {"_id": False, **dict.fromkeys(names, True)},
        }
        series: list[Key] = []
        while document := b"".join(self._connection.fetch(domain, [query])):
            with reading(domain):
                row = core.decode(document)
                series.append(tuple(row[name] for name in names))
            exchange_name, symbol, interval = series[-1]
            next_keys: list[tuple[Any, ...]] = [
                (exchange_name, symbol, {"$gt": interval}),
                (exchange_name, {"$gt": symbol}, _TEXT),
                ({"$gt": exchange_name}, _TEXT, _TEXT),
            ]
            query["filter"] = {"$or": [dict(zip(names, condition, strict=True)) for condition in next_keys]}
        return sorted(series)

    def stored(self, series: Key, since: int | None, until: int | None) -> Iterator[CandleArray]:
        """Yield the stored candles of a series in [since, until) (ms) in batches, skipping gaps and documents off the grid.

        Each page is a separate query, so that no cursor stays open while the caller works.
        """
        domain = DOMAINS["candle"]
        step = interval_ms(series[2])
        after: Document = {"$gte": -_FAR if since is None else since}
        while True:
            stamp = {**after, "$lt": _FAR if until is None else until}
            query: Document = {"filter": {**series_fields(series), "timestamp": stamp}, "sort": {"timestamp": 1}, "limit": PAGE}
            with reading(domain, " ".join(series)):
                documents = [row for batch in self._connection.fetch(domain, [query]) for row in core.split(batch)]
                candles, last = on_grid(documents, step)
            if len(candles):
                yield candles
            if len(documents) < PAGE:
                return
            after = {"$gt": last}

    def remove(self, series: Key, since: int | None, until: int | None) -> int:
        """Delete the candles of a series in [since, until) (ms); return how many. Their ids in Redis are detected as stale when used."""
        domain = DOMAINS["candle"]
        length = interval_ms(series[2]) * BLOCK
        touched = self.blocks_of(series, since, until)
        removed = 0
        try:
            token = self.packed.begin_removal(series, touched)
            # Only what is in these blocks: another process may add others meanwhile, and nobody would know that their candles go.
            for blocks in ranges(touched):
                low = blocks.start * length if since is None else max(since, blocks.start * length)
                high = blocks.stop * length if until is None else min(until, blocks.stop * length)
                query = {**series_fields(series), "timestamp": {"$gte": low, "$lt": high}}
                delete = partial(self._connection.collection(domain).delete_many, query)
                removed += self._connection.retried(domain, delete).deleted_count
            self.packed.end_removal(series, touched, token)
        finally:
            self.clear()
        return removed

    def blocks_of(self, series: Key, since: int | None = None, until: int | None = None) -> list[int]:
        """Return the sorted numbers of the blocks with candles or packed candles of a series in [since, until) (ms)."""
        length = interval_ms(series[2]) * BLOCK
        low, high = -_FAR if since is None else since, _FAR if until is None else until
        found = {number for number in self.packed.numbers(series) if number * length < high and low < (number + 1) * length}
        while low < high:  # one query per block finds the next candle in the unique index
            stamp = {"$gte": low, "$lt": high, "$not": {"$type": "array"}}
            query: Document = {
                "filter": {**series_fields(series), "timestamp": stamp}, "sort": {"timestamp": 1}, "limit": 1,
                "projection": {"_id": False, "timestamp": True},
            }  # fmt: skip
            with reading(DOMAINS["candle"], " ".join(series)):
                stamps = numbers(list(self._connection.fetch(DOMAINS["candle"], [query])), "timestamp")
            if not stamps or not math.isfinite(stamps[0]):
                break
            number = math.floor(stamps[0] / length)
            found.add(number)
            low = max(low + 1, (number + 1) * length)
        return sorted(found)

    @translates
    def packed_series(self) -> dict[Key, tuple[int, int]]:
        """Return the series that have packed blocks: series -> (blocks, candles in them)."""
        return self.packed.by_series()

    @translates
    def drop_packed(self) -> int:
        """Drop all packed blocks, and return how many there were. Candle documents stay."""
        self.clear()
        return self.packed.drop_all()

    def clear(self) -> None:
        """Forget everything cached about stored candles."""
        self.blocks.clear()
        self._seen.clear()
        self._absent.clear()

    # --- writing ---

    def write(self, series: Key, candles: CandleArray) -> int:
        """Store those of the (already checked) candles that are not stored yet; return how many were new. One query finds out which.

        If this process has seen or stored every candle of the window before, that query is a count: candles can only have been deleted
        since, and then the count is lower. Otherwise a count proves nothing: another writer may have stored as many documents off the
        grid as candles are missing, and the server cannot tell them apart at the speed of a count ($mod truncates fractions of a ms).
        Then the query fetches the timestamps.
        """
        stamps = np.ascontiguousarray(candles["timestamp"])
        if not (stamps[1:] > stamps[:-1]).all():
            stamps, first = np.unique(stamps, return_index=True)
            candles = candles[first]
        step = interval_ms(series[2])
        low, high = int(stamps[0]), int(stamps[-1])
        span = (high - low) // step + 1
        unbroken = span == len(stamps)
        seen = self._seen.get(series)
        is_known = unbroken and not self._with_ids and seen is not None and seen[0] <= low and high <= seen[1]
        condition: Document = {"$gte": low, "$lte": high}
        if is_known and self._connection.count(DOMAINS["candle"], {**series_fields(series), "timestamp": condition}) == span:
            return 0
        now = time.time_ns() // 1_000_000
        blocks = Span(low, high + step, step).blocks(now) if len(stamps) >= SMALLEST else range(0)
        basis = self.packed.look_up(series, blocks) if blocks else None
        is_new = self._are_new_beside_packed(series, stamps, basis) if unbroken and basis is not None and basis.runs else None
        if is_new is None:
            if span > 4 * len(stamps):  # scattered candles: a range query would also return everything in between
                condition = {"$in": stamps.tolist()}
            is_new = self._are_new(series, stamps, condition)
        candles = candles[is_new]
        inserted = self._insert(series, candles)
        if basis is not None:
            for part in consecutive(inserted, step):
                self.pack(series, part, basis, now)
        if unbroken:
            touching = seen is not None and seen[0] <= high + step and low <= seen[1] + step
            self._seen[series] = (min(low, seen[0]), max(high, seen[1])) if seen is not None and touching else (low, high)
        return len(candles)

    def _are_new_beside_packed(self, series: Key, stamps: npt.NDArray[np.int64], basis: Basis) -> npt.NDArray[np.bool_] | None:
        """Return the same mask as ``_are_new`` for a window without gaps, from the packed blocks as far as they reach.

        A packed block says that all its candles were stored. They can only have been deleted since, and then fewer are counted: the blocks
        are dropped, and None is returned.
        """
        if self._with_ids:
            return None
        step = interval_ms(series[2])
        is_new = np.zeros(len(stamps), np.bool_)
        low, high = int(stamps[0]), int(stamps[-1]) + step
        covered = [(max(start, low), min(end, high)) for start, end in basis.covered(step) if start < high and low < end]
        for start, end in covered:
            count = self._count(series, start, end, step)
            if count < (end - start) // step:
                self._drop_stale(series, basis, step)
            if count != (end - start) // step:
                return None
        for start, end in _uncovered(low, high, covered):
            part = slice((start - low) // step, (end - low) // step)
            is_new[part] = self._are_new(series, stamps[part], {"$gte": start, "$lt": end})
        return is_new

    def _count(self, series: Key, since: int, until: int, step: int) -> int:
        """Return how many documents of a series are in [since, until) (ms); of a long window, both halves at once."""
        if (until - since) // step >= COUNTED:
            middle = since + (until - since) // step // 2 * step
            first, second = beside(partial(self._count, series, middle, until, step), partial(self._count, series, since, middle, step))
            return first + second()
        return self._connection.count(DOMAINS["candle"], {**series_fields(series), "timestamp": {"$gte": since, "$lt": until}})

    def _drop_stale(self, series: Key, basis: Basis, step: int) -> None:
        """Drop the blocks that have more candles than documents, unless they have changed: then another process has just removed some."""
        missing = 0
        for number, runs in basis.runs.items():
            spans = [((number * BLOCK + run.first) * step, (number * BLOCK + run.first + run.length) * step) for run in runs]
            fewer = sum((end - start) // step - self._count(series, start, end, step) for start, end in spans)
            if fewer > 0 and self.packed.drop(series, number, basis):
                missing += fewer
        if missing:
            log(
                "warning",
                f"{missing:,} candles of {' '.join(series)} were deleted outside of this library, but are in packed blocks "
                f"({PACKED_CANDLES.collection}); those blocks are dropped. After such a change, run: backtest-kit-mongo candles verify",
            )
            self.blocks.clear()

    def _are_new(self, series: Key, stamps: npt.NDArray[np.int64], window: Document) -> npt.NDArray[np.bool_]:
        """Return a mask of ``stamps`` (ms) that are not stored yet. ``window`` is the condition on the timestamp."""
        domain = DOMAINS["candle"]
        fields = {"_id": self._with_ids, "timestamp": True}
        query = {"filter": {**series_fields(series), "timestamp": window}, "projection": fields}
        batches = list(self._connection.fetch(domain, [query]))
        with reading(domain):
            stored = np.array(numbers(batches, "timestamp"), np.float64)
            if self._with_ids:
                documents = (core.decode(row) for batch in batches for row in core.split(batch))
                ids = ((int(row["timestamp"]), row["_id"]) for row in documents)
                self._share_ids(series, ((stamp, value.binary) for stamp, value in ids if isinstance(value, ObjectId)))
        # Only equal timestamps count: another writer may have stored documents between two points of the grid.
        return ~np.isin(stamps, stored)

    def _insert(self, series: Key, candles: CandleArray) -> CandleArray:
        """Insert candles, except those that another writer inserts first; return those that were inserted."""
        # Like pymongo, encode an int in 32 bits if it fits. (That concerns only candles within 25 days of 1970.)
        small = np.abs(candles["timestamp"]) < 2**31
        parts = [part for part in (candles[small], candles[~small]) if len(part)] if small.any() else [candles]
        chunks = [part[start : start + BATCH] for part in parts for start in range(0, len(part), BATCH)]
        identities = [new_ids(len(chunk)) for chunk in chunks]
        now = datetime.now(UTC)
        batches = (candle_documents(series, chunk, ids, now) for chunk, ids in zip(chunks, identities, strict=True))
        outcomes = self._connection.insert_new(DOMAINS["candle"], batches)
        lost_stamps: list[int] = []
        for chunk, ids, lost in zip(chunks, identities, outcomes, strict=True):
            lost_stamps += chunk["timestamp"][list(lost)].tolist() if lost else []
            if self._with_ids:
                rows = enumerate(zip(chunk["timestamp"].tolist(), ids, strict=True))
                self._share_ids(series, ((stamp, value.tobytes()) for index, (stamp, value) in rows if index not in lost))
        return candles[~np.isin(candles["timestamp"], lost_stamps)] if lost_stamps else candles

    def _share_ids(self, series: Key, ids: Iterator[tuple[int, bytes]]) -> None:
        """Write the ids of candles to Redis, given as (timestamp, id)."""
        self._redis_ids.put_series(DOMAINS["candle"], series, ids)


def _uncovered(since: int, until: int, covered: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of [since, until) (ms) that none of the sorted intervals covers."""
    for start, end in covered:
        if since < start:
            yield since, min(until, start)
        since = max(since, end)
        if since >= until:
            return
    yield since, until


def consecutive(candles: CandleArray, step: int) -> list[CandleArray]:
    """Split sorted candles at their gaps."""
    return np.split(candles, np.flatnonzero(np.diff(candles["timestamp"]) != step) + 1)
