"""Candles in MongoDB: windows by one question, kept in memory and read ahead; imports that ask what is there and send only the rest."""

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

# Text of any kind; a key of another type is none of ours.
_TEXT: Document = {"$gte": ""}
# Times beyond (ms) do not fit a double exactly.
_FAR = 2**53

BATCH = 10_000
"""Candles per insert command."""

RANGE = 4_000
"""Candles per query of a long window: one range is decoded while the server works on the next."""

SHARED = 8_000
"""From so many candles on a window is read over two connections, so that two cores of the server work on it."""

PAGE = 20_000
"""Candles per query where all of a series are read."""

AHEAD, FARTHEST = 1_000, 32_768
"""How many candles are read behind a small window: at first, and at most, doubled while a caller walks forward."""


class MongoCandles:
    """The candle domain of a Mongo store. A series is (exchangeName, symbol, interval)."""

    def __init__(self, config: Config, connection: MongoDatabase, redis_ids: RedisIds, metrics: Metrics) -> None:
        self._counters = metrics.domains["candle"]
        self.blocks = CandleBlocks(config.CC_CANDLE_MEMORY_MB * 1024 * 1024, self._counters, (READS, HITS_BLOCK, READ))
        renew_after_fork(self.blocks)
        self._with_ids = config.CC_REDIS_IDS == "all"
        self._connection = connection
        self._redis_ids = redis_ids
        self._ahead: dict[Key, tuple[int, int]] = {}  # where the last reading ahead ended (ms), and how many candles it took
        self._seen: dict[Key, tuple[int, int]] = {}  # first and last of a stretch whose candles are all there (ms)

    # --- reading ---

    def read(self, series: Key, since: int, limit: int) -> CandleArray | None:
        """The ``limit`` candles from ``since`` (ms, on the grid) on, read-only; None if one of them is missing."""
        step = interval_ms(series[2])
        head = self.blocks.head(series, limit, since)
        known = 0 if head is None else len(head)
        if head is not None and known == limit:  # in more than one run
            self._counters.add(HITS_BLOCK)
            return head
        start, wanted = since + known * step, limit - known
        ahead = self._how_far(series, start, wanted)
        now = time.time_ns() // 1_000_000  # before the question: what closes meanwhile may still have been open in the answer
        found = np.empty(wanted + ahead, CANDLE_DTYPE)
        filled = self._fetch(series, start, found, wanted) if ahead or wanted < SHARED else self._fetch_in_halves(series, start, found)
        if filled < len(found):
            found = found[:filled].copy()
        end = start + len(found) * step
        # After a miss the next question is asked without more; after the end of the stored candles it begins small again.
        self._ahead[series] = (end, 0 if len(found) < wanted else max(ahead, AHEAD // 2) if len(found) == wanted + ahead else AHEAD // 2)
        if len(found) < wanted:
            return None
        found.flags.writeable = False
        closed = closed_candles(found, series[2], now)
        if len(closed):
            self.blocks.keep(series, step, closed)
        if head is None:
            return found[:wanted]
        window = np.concatenate([head, found[:wanted]])
        window.flags.writeable = False
        return window

    def _how_far(self, series: Key, start: int, wanted: int) -> int:
        """How many candles to read behind a window, which the caller may want next."""
        if wanted >= AHEAD or not self.blocks.budget:
            return 0
        end, before = self._ahead.get(series, (start, AHEAD // 2))
        return min(2 * before, FARTHEST) if start == end else AHEAD if before else 0

    def _fetch_in_halves(self, series: Key, since: int, target: CandleArray) -> int:
        """As ``_fetch``, the second half in another thread."""
        half = len(target) // 2
        middle = since + half * interval_ms(series[2])
        with ThreadPoolExecutor(1) as other:
            try:
                later = other.submit(copy_context().run, self._fetch, series, middle, target[half:], len(target) - half)
            except RuntimeError:  # no more threads, or the interpreter is about to end
                return self._fetch(series, since, target, len(target))
            filled = self._fetch(series, since, target[:half], half)
            return filled + (later.result() if filled == half else 0)

    def _fetch(self, series: Key, since: int, target: CandleArray, wanted: int) -> int:
        """Read the candles from ``since`` on into ``target``, up to the first hole; how many. Those beyond ``wanted`` never raise."""
        domain = DOMAINS["candle"]
        step, limit = interval_ms(series[2]), len(target)
        length = max(RANGE, -(-limit // 256))  # a window of a hundred years is not asked for in a hundred thousand questions
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
        if broken is not None and filled < wanted:
            with reading(domain, " ".join(series)):
                filled = decode_candles([broken], memory[: wanted * CANDLE_DTYPE.itemsize], since, step, wanted, filled)
        return filled

    def series(self) -> list[Key]:
        """The stored series, sorted: one question each, for the next one in the unique index behind the one before."""
        domain = DOMAINS["candle"]
        names = domain.key[:3]
        query: Document = {
            "filter": dict.fromkeys(names, _TEXT),
            "sort": dict.fromkeys(domain.key, 1),
            "limit": 1,
            "projection": {"_id": False, **dict.fromkeys(names, True)},
        }
        found: list[Key] = []
        while there := b"".join(self._connection.fetch(domain, [query])):
            with reading(domain):
                row = core.decode(there)
                found.append(tuple(row[name] for name in names))
            exchange_name, symbol, interval = found[-1]
            later: list[tuple[Any, ...]] = [
                (exchange_name, symbol, {"$gt": interval}),
                (exchange_name, {"$gt": symbol}, _TEXT),
                ({"$gt": exchange_name}, _TEXT, _TEXT),
            ]
            query["filter"] = {"$or": [dict(zip(names, wanted, strict=True)) for wanted in later]}
        return sorted(found)

    def stored(self, series: Key, since: int | None, until: int | None) -> Iterator[CandleArray]:
        """The stored candles of a series in [since, until), in batches, without the holes and what stands off the grid.

        Every page is a question of its own, so that no cursor has to live while the caller works.
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
        """Delete the candles of a series in [since, until); how many there were. Their ids in Redis are found stale when used."""
        domain = DOMAINS["candle"]
        query = {**_fields(series), "timestamp": {"$gte": -_FAR if since is None else since, "$lt": _FAR if until is None else until}}
        removed = self._connection.retried(domain, lambda: self._connection.collection(domain).delete_many(query)).deleted_count
        self.clear()
        return removed

    def clear(self) -> None:
        """Forget what is known of stored candles."""
        self.blocks.clear()
        self._seen.clear()

    # --- writing ---

    def write(self, series: Key, candles: CandleArray) -> int:
        """Store those checked candles that are not there yet; how many were new. One query finds out which.

        It is a count where this process has seen (or stored) every candle of the stretch before: they cannot have gone, unless
        somebody deleted some, and then there are less. Elsewhere a count proves nothing: another writer may have left as many
        documents off the grid as candles are missing, and the server cannot tell them apart at the speed of a count ($mod cuts
        fractions of a ms off). There the time stamps are fetched.
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
        known = unbroken and not self._with_ids and seen is not None and seen[0] <= low and high <= seen[1]
        wanted: Document = {"$gte": low, "$lte": high}
        if known and self._connection.count(DOMAINS["candle"], {**_fields(series), "timestamp": wanted}) == span:
            return 0
        if span > 4 * len(stamps):  # a scattered set: asking for the range would answer with what lies between
            wanted = {"$in": stamps.tolist()}
        candles = candles[self._are_new(series, stamps, wanted)]
        self._insert(series, candles)
        if unbroken:
            touching = seen is not None and seen[0] <= high + step and low <= seen[1] + step
            self._seen[series] = (min(low, seen[0]), max(high, seen[1])) if seen is not None and touching else (low, high)
        return len(candles)

    def _are_new(self, series: Key, stamps: npt.NDArray[np.int64], wanted: Document) -> npt.NDArray[np.bool_]:
        """Which of some candles are not there."""
        domain = DOMAINS["candle"]
        fields = {"_id": self._with_ids, "timestamp": True}
        query = {"filter": {**_fields(series), "timestamp": wanted}, "projection": fields}
        there = list(self._connection.fetch(domain, [query]))
        with reading(domain):
            present = np.array(numbers(there, "timestamp"), np.float64)
            if self._with_ids:
                found = (core.decode(row) for batch in there for row in core.split(batch))
                known = ((int(row["timestamp"]), row["_id"]) for row in found)
                self._share_ids(series, ((stamp, value.binary) for stamp, value in known if isinstance(value, ObjectId)))
        # Another writer's document between two grid points is none of the grid's candles: only equal ones count.
        return ~np.isin(stamps, present)

    def _insert(self, series: Key, candles: CandleArray) -> None:
        """Insert candles, but for those that another writer inserts first."""
        # As pymongo encodes an int: in 32 bits where that is enough. (These are the candles of 50 days around 1970.)
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
        """Write the ids of candles (time stamp, id) to Redis."""
        self._redis_ids.put_series(DOMAINS["candle"], series, ids)


def _on_grid(documents: list[bytes], step: int) -> tuple[CandleArray, float]:
    """The candles of documents in the order of their time stamps (ms), without those off the grid of ``step``; the last time stamp."""
    stamps = np.array(numbers(documents, "timestamp"), np.float64)
    if len(stamps) < len(documents):  # another writer's list of numbers is found by a range too
        documents = [document for document in documents if numbers([document], "timestamp")]
    # A page that broke off and was asked for again may hold a document twice.
    _, first = np.unique(stamps, return_index=True)
    places = first[stamps[first] % step == 0]
    candles = np.empty(len(places), CANDLE_DTYPE)
    memory, size = candles.view(np.int8), CANDLE_DTYPE.itemsize
    ends = [*(np.flatnonzero(np.diff(stamps[places]) != step) + 1).tolist(), len(places)]
    start = 0
    for end in ends if len(places) else ():
        run = b"".join(documents[place] for place in places[start:end].tolist())
        filled = decode_candles([run], memory[start * size : end * size], int(stamps[places[start]]), step, end - start)
        if filled != end - start:
            raise ValueError(f"a candle after {int(stamps[places[start]])} has two time stamps")
        start = end
    candles.flags.writeable = False
    return candles, float(stamps[-1]) if len(stamps) else 0.0


def _fields(series: Key) -> Document:
    exchange_name, symbol, interval = series
    return {"exchangeName": exchange_name, "interval": interval, "symbol": symbol}


def _identities(count: int) -> npt.NDArray[np.uint8]:
    """New ObjectIds, as rows of 12 bytes: seconds, 5 random bytes (of this call, so that no fork can repeat them), a counter."""
    ids = np.empty((count, 12), np.uint8)
    ids[:, :4] = np.frombuffer(int(time.time()).to_bytes(4, "big"), np.uint8)
    ids[:, 4:9] = np.frombuffer(os.urandom(5), np.uint8)
    ids[:, 9:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)[:, 1:]
    return ids


def _documents(series: Key, candles: CandleArray, identities: npt.NDArray[np.uint8], now: datetime) -> bytes:
    """The documents of candles, end to end: one of them, repeated, and the values of each put over it."""
    document = _document(ObjectId(), series, candles[0].item(), now)
    raw = bson.encode(document)
    # Where each value stands: right before the end of a document that ends with it.
    part: Document = {}
    places: dict[str, tuple[str, int]] = {}
    for name, value in document.items():
        part[name] = value
        kind = "12u1" if name == "_id" else "<f8" if name in PRICES else "<i4" if abs(document["timestamp"]) < 2**31 else "<i8"
        if name in ("_id", "timestamp", *PRICES):
            places[name] = (kind, len(bson.encode(part)) - 1 - np.dtype(kind).itemsize)
    kinds, offsets = zip(*places.values(), strict=True)
    memory = bytearray(raw) * len(candles)
    rows = np.frombuffer(memory, {"names": list(places), "formats": kinds, "offsets": offsets, "itemsize": len(raw)})
    rows["_id"] = identities
    for name in ("timestamp", *PRICES):
        rows[name] = candles[name]
    return bytes(memory)


def _document(identity: ObjectId, series: Key, row: tuple[float, ...], now: datetime) -> Document:
    timestamp, *prices = row
    values = dict(zip(PRICES, prices, strict=True))
    # The order in which the original's documents stand: key fields, then the rest, each by name.
    return {
        "_id": identity, **_fields(series), "timestamp": timestamp, "__v": 0, "close": values["close"], "createDate": now,
        "high": values["high"], "low": values["low"], "open": values["open"], "updatedDate": now, "volume": values["volume"],
    }  # fmt: skip
