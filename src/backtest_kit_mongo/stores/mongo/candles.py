"""Candles in MongoDB: read a window with one query, keep it in memory and read ahead; on import, send only the candles that are missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import bson
import numpy as np
import numpy.typing as npt
from bson import ObjectId

from ..._core import bson as core
from ..._core.blocks import CandleBlocks
from ..._core.candles import decode_candles, numbers
from ...candles import CANDLE_DTYPE, PRICES, CandleArray, closed_candles, interval_ms
from ...config import Config
from ...domains import DOMAINS
from ...metrics import HITS_BLOCK, READ, READS, Metrics
from ..base import Key
from ..fork_safety import renew_after_fork
from .database import MongoDatabase
from .documents import Document
from .errors import reading
from .redis_ids import RedisIds

__all__ = ["MongoCandles"]

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

    # --- reading ---

    def read(self, series: Key, since: int, limit: int) -> CandleArray | None:
        """Return ``limit`` candles from ``since`` (ms, on the grid), read-only; None if any of them is missing."""
        step = interval_ms(series[2])
        head = self.blocks.head(series, limit, since)
        cached = 0 if head is None else len(head)
        if head is not None and cached == limit:  # the window spans several blocks
            self._counters.add(HITS_BLOCK)
            return head
        start, missing = since + cached * step, limit - cached
        ahead = self._how_far(series, start, missing)
        now = time.time_ns() // 1_000_000  # before the query: a candle that closes meanwhile may still be open in the result
        rows = np.empty(missing + ahead, CANDLE_DTYPE)
        filled = self._fetch(series, start, rows, missing) if ahead or missing < SHARED else self._fetch_in_halves(series, start, rows)
        if filled < len(rows):
            rows = rows[:filled].copy()
        end = start + len(rows) * step
        # After an incomplete window, read nothing ahead next time; after the end of the stored candles, start small again.
        self._ahead[series] = (end, 0 if len(rows) < missing else max(ahead, AHEAD // 2) if len(rows) == missing + ahead else AHEAD // 2)
        if len(rows) < missing:
            return None
        rows.flags.writeable = False
        closed = closed_candles(rows, series[2], now)
        if len(closed):
            self.blocks.keep(series, step, closed)
        if head is None:
            return rows[:missing]
        window = np.concatenate([head, rows[:missing]])
        window.flags.writeable = False
        return window

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
        with ThreadPoolExecutor(1) as executor:
            try:
                later = executor.submit(copy_context().run, self._fetch, series, middle, target[half:], len(target) - half)
            except RuntimeError:  # no more threads, or the interpreter is about to end
                return self._fetch(series, since, target, len(target))
            filled = self._fetch(series, since, target[:half], half)
            return filled + (later.result() if filled == half else 0)

    def _fetch(self, series: Key, since: int, target: CandleArray, needed: int) -> int:
        """Read the candles from ``since`` (ms) into ``target``, up to the first gap; return how many were read.

        A document that cannot be read raises DatabaseError only if it is among the first ``needed`` candles.
        """
        domain = DOMAINS["candle"]
        step, limit = interval_ms(series[2]), len(target)
        length = max(RANGE, -(-limit // 256))  # keeps the number of queries small, even for a window of a hundred years
        bounds = [since + index * step for index in (*range(0, limit, length), limit)]
        fields = _fields(series)
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
            query: Document = {"filter": {**_fields(series), "timestamp": stamp}, "sort": {"timestamp": 1}, "limit": PAGE}
            with reading(domain, " ".join(series)):
                documents = [row for batch in self._connection.fetch(domain, [query]) for row in core.split(batch)]
                candles, last = _on_grid(documents, step)
            if len(candles):
                yield candles
            if len(documents) < PAGE:
                return
            after = {"$gt": last}

    def remove(self, series: Key, since: int | None, until: int | None) -> int:
        """Delete the candles of a series in [since, until) (ms); return how many. Their ids in Redis are detected as stale when used."""
        domain = DOMAINS["candle"]
        query = {**_fields(series), "timestamp": {"$gte": -_FAR if since is None else since, "$lt": _FAR if until is None else until}}
        removed = self._connection.retried(domain, lambda: self._connection.collection(domain).delete_many(query)).deleted_count
        self.clear()
        return removed

    def clear(self) -> None:
        """Forget everything cached about stored candles."""
        self.blocks.clear()
        self._seen.clear()

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
        if is_known and self._connection.count(DOMAINS["candle"], {**_fields(series), "timestamp": condition}) == span:
            return 0
        if span > 4 * len(stamps):  # scattered candles: a range query would also return everything in between
            condition = {"$in": stamps.tolist()}
        candles = candles[self._are_new(series, stamps, condition)]
        self._insert(series, candles)
        if unbroken:
            touching = seen is not None and seen[0] <= high + step and low <= seen[1] + step
            self._seen[series] = (min(low, seen[0]), max(high, seen[1])) if seen is not None and touching else (low, high)
        return len(candles)

    def _are_new(self, series: Key, stamps: npt.NDArray[np.int64], window: Document) -> npt.NDArray[np.bool_]:
        """Return a mask of ``stamps`` (ms) that are not stored yet. ``window`` is the condition on the timestamp."""
        domain = DOMAINS["candle"]
        fields = {"_id": self._with_ids, "timestamp": True}
        query = {"filter": {**_fields(series), "timestamp": window}, "projection": fields}
        batches = list(self._connection.fetch(domain, [query]))
        with reading(domain):
            stored = np.array(numbers(batches, "timestamp"), np.float64)
            if self._with_ids:
                documents = (core.decode(row) for batch in batches for row in core.split(batch))
                ids = ((int(row["timestamp"]), row["_id"]) for row in documents)
                self._share_ids(series, ((stamp, value.binary) for stamp, value in ids if isinstance(value, ObjectId)))
        # Only equal timestamps count: another writer may have stored documents between two points of the grid.
        return ~np.isin(stamps, stored)

    def _insert(self, series: Key, candles: CandleArray) -> None:
        """Insert candles, except those that another writer inserts first."""
        # Like pymongo, encode an int in 32 bits if it fits. (That concerns only candles within 25 days of 1970.)
        small = np.abs(candles["timestamp"]) < 2**31
        parts = [part for part in (candles[small], candles[~small]) if len(part)] if small.any() else [candles]
        chunks = [part[start : start + BATCH] for part in parts for start in range(0, len(part), BATCH)]
        identities = [_identities(len(chunk)) for chunk in chunks]
        now = datetime.now(UTC)
        batches = (_documents(series, chunk, ids, now) for chunk, ids in zip(chunks, identities, strict=True))
        outcomes = self._connection.insert_new(DOMAINS["candle"], batches)
        for chunk, ids, lost in zip(chunks, identities, outcomes, strict=True):
            if self._with_ids:
                rows = enumerate(zip(chunk["timestamp"].tolist(), ids, strict=True))
                self._share_ids(series, ((stamp, value.tobytes()) for index, (stamp, value) in rows if index not in lost))

    def _share_ids(self, series: Key, ids: Iterator[tuple[int, bytes]]) -> None:
        """Write the ids of candles to Redis, given as (timestamp, id)."""
        self._redis_ids.put_series(DOMAINS["candle"], series, ids)


def _on_grid(documents: list[bytes], step: int) -> tuple[CandleArray, float]:
    """Return the candles of documents sorted by timestamp (ms), without those off the grid of ``step`` ms, and the last timestamp."""
    timestamps = np.array(numbers(documents, "timestamp"), np.float64)
    if len(timestamps) < len(documents):  # a range query also matches another writer's array of numbers
        documents = [document for document in documents if numbers([document], "timestamp")]
    # A page whose query was interrupted and repeated may contain a document twice.
    _, first = np.unique(timestamps, return_index=True)
    positions = first[timestamps[first] % step == 0]
    candles = np.empty(len(positions), CANDLE_DTYPE)
    memory, size = candles.view(np.int8), CANDLE_DTYPE.itemsize
    ends = [*(np.flatnonzero(np.diff(timestamps[positions]) != step) + 1).tolist(), len(positions)]
    start = 0
    for end in ends if len(positions) else ():
        run = b"".join(documents[position] for position in positions[start:end].tolist())
        filled = decode_candles([run], memory[start * size : end * size], int(timestamps[positions[start]]), step, end - start)
        if filled != end - start:
            raise ValueError(f"a candle after {int(timestamps[positions[start]])} has two timestamps")
        start = end
    candles.flags.writeable = False
    return candles, float(timestamps[-1]) if len(timestamps) else 0.0


def _fields(series: Key) -> Document:
    exchange_name, symbol, interval = series
    return {"exchangeName": exchange_name, "interval": interval, "symbol": symbol}


def _identities(count: int) -> npt.NDArray[np.uint8]:
    """Return new ObjectIds as rows of 12 bytes: seconds, 5 random bytes (new in each call, so that no fork repeats them), a counter."""
    ids = np.empty((count, 12), np.uint8)
    ids[:, :4] = np.frombuffer(int(time.time()).to_bytes(4, "big"), np.uint8)
    ids[:, 4:9] = np.frombuffer(os.urandom(5), np.uint8)
    ids[:, 9:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)[:, 1:]
    return ids


def _documents(series: Key, candles: CandleArray, identities: npt.NDArray[np.uint8], now: datetime) -> bytes:
    """Return the documents of candles, concatenated: encode one, repeat it, and write the values of each candle over the copies."""
    document = _document(ObjectId(), series, candles[0].item(), now)
    raw = bson.encode(document)
    # The offset of each value: encode the document up to that field; the value is right before the end.
    prefix: Document = {}
    fields: dict[str, tuple[str, int]] = {}
    for name, value in document.items():
        prefix[name] = value
        kind = "12u1" if name == "_id" else "<f8" if name in PRICES else "<i4" if abs(document["timestamp"]) < 2**31 else "<i8"
        if name in ("_id", "timestamp", *PRICES):
            fields[name] = (kind, len(bson.encode(prefix)) - 1 - np.dtype(kind).itemsize)
    kinds, offsets = zip(*fields.values(), strict=True)
    memory = bytearray(raw) * len(candles)
    rows = np.frombuffer(memory, {"names": list(fields), "formats": kinds, "offsets": offsets, "itemsize": len(raw)})
    rows["_id"] = identities
    for name in ("timestamp", *PRICES):
        rows[name] = candles[name]
    return bytes(memory)


def _document(identity: ObjectId, series: Key, row: tuple[float, ...], now: datetime) -> Document:
    timestamp, *prices = row
    values = dict(zip(PRICES, prices, strict=True))
    # The order of the fields in documents of the TypeScript package: key fields, then the others, each sorted by name.
    return {
        "_id": identity, **_fields(series), "timestamp": timestamp, "__v": 0, "close": values["close"], "createDate": now,
        "high": values["high"], "low": values["low"], "open": values["open"], "updatedDate": now, "volume": values["volume"],
    }  # fmt: skip
