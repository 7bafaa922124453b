"""The collection of packed candles: closed blocks of a series, so that a process that starts reads a year in milliseconds.

They are copies of the candle documents, which stay the truth: ``drop_all`` may drop them at any time, and a block that is damaged or
missing is read from the candle documents instead. A block holds only candles that were read from there, or inserted there by this process.

Each document has a ``version``, a random number. Whoever packs a block notes the version before the candles are read, and stores the block
only if the document still has it. A removal of candles drops the blocks and changes the versions before and after, and in between nobody
can store a block, so that no block holds candles that are gone. (Do not drop the whole collection while programs run: a document that is
gone looks like one that never was.)
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

from bson import ObjectId
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import OperationFailure, PyMongoError

from ..._core import bson as core
from ...candle_packing import BLOCK, DamagedBlockError, Run, pack, runs_of, unpack
from ...candles import CandleArray, interval_ms
from ...domains import PACKED_CANDLES
from ...errors import BacktestKitError
from ...logs import log
from ..base import Key
from .client import primary
from .database import MongoDatabase
from .documents import Document
from .indexes import ensure_indexes
from .second_thread import beside

__all__ = ["FORBIDDEN", "Basis", "BlockGroup", "PackedCandles", "Span", "ranges"]

QUERY = 32
"""Blocks per query: the server reads the next ones while these are decoded."""

AHEAD = 4
"""Queries whose blocks are read before they are decoded. (Decoding while the next ones are read takes longer.)"""

SHARED = 16
"""At least this many blocks are decoded by two threads."""

WRITE = 64
"""Blocks per write command: about 3 MB."""

# What a document loses when its block is dropped; the key and the version stay.
_CONTENT = dict.fromkeys(("format", "codec", "runs", "checksum", "data"), "")
_FIELDS = dict.fromkeys(("_id", "block", "version", "format", "codec", "runs", "checksum", "data"), True)
FORBIDDEN = (13, 8000)  # Unauthorized, and the same on Atlas
# Seconds after which the unique index is checked again before a write.
_CHECKED = 60.0
_LONG_AGO = timedelta(hours=1)
_RANDOM = random.SystemRandom()  # not the generator that a strategy may have seeded

Unpacked = tuple[dict[int, tuple[Run, ...]], dict[int, str]]


class Span(NamedTuple):
    """Consecutive positions of a series' grid: the candles, ``step`` ms apart, that open in [since, until) (ms)."""

    since: int
    until: int
    step: int

    def blocks(self, now: int) -> range:
        """Return the numbers of the blocks that overlap the span and have closed at ``now`` (ms)."""
        length = self.step * BLOCK
        return range(self.since // length, min((self.until - 1) // length + 1, now // length))


def ranges(numbers: Sequence[int], most: int = 2**62) -> Iterator[range]:
    """Yield the runs of consecutive numbers in a sorted sequence, at most ``most`` numbers each."""
    start = 0
    for position in range(1, len(numbers) + 1):
        if position == len(numbers) or numbers[position] != numbers[position - 1] + 1 or position - start == most:
            yield range(numbers[start], numbers[position - 1] + 1)
            start = position


class Basis(NamedTuple):
    """The state of the blocks before candles were read or inserted. A block is stored only if it has not changed since."""

    runs: dict[int, tuple[Run, ...]]  # of the stored blocks, by number
    versions: dict[int, int]  # the version of each document, also of those that hold no block
    primary: object  # the server, and its election

    def covered(self, step: int) -> list[tuple[int, int]]:
        """Return the sorted intervals (ms) of the candles that are in stored blocks; adjacent ones are joined."""
        intervals: list[tuple[int, int]] = []
        for number in sorted(self.runs):
            for run in self.runs[number]:
                since, until = ((number * BLOCK + position) * step for position in (run.first, run.first + run.length))
                if intervals and intervals[-1][1] == since:
                    since = intervals.pop()[0]
                intervals.append((since, until))
        return intervals


class BlockGroup(NamedTuple):
    """What was done to a few blocks of a series that is packed or verified."""

    blocks: int  # how many were stored, or compared
    problems: dict[int, str]  # what was wrong with blocks, by number
    candles: int  # how many candles they can hold
    total: int  # the same of all blocks of the series


class PackedCandles:
    """The packed blocks of a database. A series is (exchangeName, symbol, interval)."""

    def __init__(self, connection: MongoDatabase) -> None:
        self._connection = connection
        self._readable = self._writable = True
        self._checked = -math.inf  # when the unique index was last checked (time.monotonic)

    # --- reading ---

    def read(self, series: Key, blocks: range, target: CandleArray, since: int, step: int, damaged: dict[int, str] | None = None) -> Basis:
        """Decode blocks into ``target``, whose first row opens at ``since`` (ms), and return which candles they had.

        All other rows are undefined. A damaged block is reported, put out of use, and left out; ``damaged`` gets what is wrong with it.
        """
        runs: dict[int, tuple[Run, ...]] = {}
        versions: dict[int, int] = {}
        batches = self._batches(series, blocks)
        while documents := list(chain.from_iterable(islice(batches, AHEAD))):
            # A query that was repeated may return a block twice.
            fresh = {fields["block"]: fields for fields in documents if fields["block"] not in versions}
            versions.update((number, fields["version"]) for number, fields in fresh.items())
            packed = [fields for fields in fresh.values() if "codec" in fields]
            sound, problems = _unpack(series, packed, step, target, since)
            runs |= sound
            for number, problem in problems.items():
                self._drop_damaged(series, fresh[number], problem)
            if damaged is not None:
                damaged |= problems
        return Basis(runs, versions, primary(self._connection.client))

    def look_up(self, series: Key, blocks: range) -> Basis:
        """Return which candles are in blocks, without reading them."""
        runs: dict[int, tuple[Run, ...]] = {}
        versions: dict[int, int] = {}
        projection = {"_id": False, "block": True, "version": True, "runs": True}
        for fields in chain.from_iterable(self._batches(series, blocks, projection=projection)):
            versions[fields["block"]] = fields["version"]
            with suppress(DamagedBlockError):  # reported when it is read
                if stored := runs_of(fields):
                    runs[fields["block"]] = stored
        return Basis(runs, versions, primary(self._connection.client))

    def _batches(self, series: Key, blocks: range, **options: Any) -> Iterator[list[Document]]:
        """Yield the documents of blocks, some at a time."""
        if not blocks or not self._readable:
            return
        length = max(QUERY, len(blocks) // 256)
        bounds = [*range(blocks.start, blocks.stop, length), blocks.stop]
        options = {"projection": _FIELDS, **options}
        queries = [
            {**options, "filter": {**_fields(series), "block": {"$gte": first, "$lt": end}}, "sort": {"block": 1}}
            for first, end in pairwise(bounds)
        ]
        try:
            for batch in self._connection.fetch(PACKED_CANDLES, queries):
                yield [fields for document in core.split(batch) if (fields := _decoded(document)) is not None]
        except OperationFailure as error:
            if error.code in FORBIDDEN:
                self._readable = False
                log("info", f"packed candles are not used: this user may not read the collection {PACKED_CANDLES.collection}")
            else:
                log("warning", f"packed candles cannot be read, so candles are read from their documents: {error}")

    # --- writing ---

    def put(self, series: Key, blocks: Iterable[tuple[int, int, CandleArray]], basis: Basis) -> int:
        """Pack and store blocks, given as (number, first position, candles); return how many were stored.

        ``basis`` is from before the candles were read or inserted. A block is only a shortcut: one that was stored or removed meanwhile,
        or cannot be stored, is left out.
        """
        stored = 0
        statements: list[Document] = []
        for number, first, candles in blocks:
            if not self._writable:
                break
            try:
                content = pack(series, number, first, candles, interval_ms(series[2]))
            except ValueError as error:  # another program stored a value that is not finite
                log("debug", f"block {number} of {' '.join(series)} is not packed: {error}")
                continue
            statements.append(_statement(series, number, content, basis.versions.get(number)))
            if len(statements) == WRITE:
                stored += self._update(statements, basis.primary)
                statements = []
        return stored + (self._update(statements, basis.primary) if statements else 0)

    def _update(self, statements: Sequence[Document], chosen: object) -> int:
        """Apply statements to the primary that the candles came from; return how many documents changed. A failure changes none."""
        connection = self._connection
        try:
            collection = connection.collection(PACKED_CANDLES)
            if time.monotonic() - self._checked > _CHECKED:
                ensure_indexes(collection, PACKED_CANDLES)
                self._checked = time.monotonic()
            if chosen is None or primary(connection.client) != chosen:  # the candles may be ones that the new primary does not have
                return 0
            # A plain command: pymongo would send a write of its own again to the next primary.
            command = {"update": collection.name, "ordered": False, "updates": statements, "writeConcern": {"w": 1}}
            return int(collection.database.command(command)["n"])
        except (PyMongoError, BSONError, BacktestKitError, ValueError, LookupError, TypeError, RuntimeError) as error:
            if isinstance(error, OperationFailure) and error.code in FORBIDDEN:
                self._writable = False
                log("info", f"candles are not packed: this user may not write to the collection {PACKED_CANDLES.collection}")
            else:
                log("debug", f"packed candles were not stored: {error}")
            return 0

    def _drop_damaged(self, series: Key, fields: Document, problem: str) -> None:
        number = fields["block"]
        log(
            "warning",
            f"packed block {number} of {' '.join(series)} ({PACKED_CANDLES.collection}, _id {fields.get('_id')}) is damaged: {problem}; "
            "this block is no longer used, and its candles are read from their documents",
        )
        self._update([_drop(series, number, fields["version"])], primary(self._connection.client))

    def drop(self, series: Key, number: int, basis: Basis) -> bool:
        """Remove the content of a block; return whether it was still the block of ``basis``."""
        return bool(self._update([_drop(series, number, basis.versions[number])], primary(self._connection.client)))

    def drop_all(self) -> int:
        """Remove the content of all blocks; return how many there were."""
        return self._change({"codec": {"$exists": True}}, {"$unset": _CONTENT})

    def _change(self, query: Document, change: Document) -> int:
        """Apply a change, and a new version, to all documents of a query; return how many. Each attempt has a version of its own."""
        collection = self._connection.collection(PACKED_CANDLES)

        def update() -> int:
            return collection.update_many(query, {**change, "$set": {"version": _new_version()}}).modified_count

        return self._connection.retried(PACKED_CANDLES, update)

    # --- removal of candles ---

    def begin_removal(self, series: Key, numbers: Sequence[int]) -> ObjectId:
        """Drop blocks whose candles are about to be removed, and keep anybody from storing them until ``end_removal``; return its token."""
        token = ObjectId()
        collection = self._connection.collection(PACKED_CANDLES)
        ensure_indexes(collection, PACKED_CANDLES)
        self.forget_removals(series)
        for group in _groups(numbers):
            strange = {"removing": {"$exists": True, "$not": {"$type": "array"}}}
            self._change({**_fields(series), "block": {"$in": list(group)}, **strange}, {"$unset": {"removing": ""}})

            def begin(group: Sequence[int] = group) -> None:
                change = {"$unset": _CONTENT, "$set": {"version": _new_version()}, "$addToSet": {"removing": token}}
                updates = [UpdateOne({**_fields(series), "block": number}, change, upsert=True) for number in group]
                collection.bulk_write(updates, ordered=False)

            self._connection.retried(PACKED_CANDLES, begin)
        return token

    def end_removal(self, series: Key, numbers: Sequence[int], token: ObjectId) -> None:
        """Allow blocks to be stored again. Drops them first, in case that ``begin_removal`` was lost or forgotten."""
        for group in _groups(numbers):
            query = {**_fields(series), "block": {"$in": list(group)}}
            self._change(query, {"$unset": _CONTENT, "$pull": {"removing": token}})

    def forget_removals(self, series: Key) -> None:
        """Allow blocks to be stored again whose removal began long ago: the process that removed their candles has probably died.

        If it has not, ``end_removal`` drops what is stored meanwhile.
        """
        before = ObjectId.from_datetime(datetime.now(UTC) - _LONG_AGO)
        query = {**_fields(series), "removing": {"$lt": before}}
        change = {"$unset": _CONTENT, "$set": {"version": _new_version()}, "$pull": {"removing": {"$lt": before}}}
        self._update([{"q": query, "u": change, "multi": True}], primary(self._connection.client))

    def by_series(self) -> dict[Key, tuple[int, int]]:
        """Return the series that have packed blocks: series -> (blocks, candles in them)."""
        names = PACKED_CANDLES.key[:3]
        length = {"$cond": [{"$isArray": "$$this"}, {"$arrayElemAt": ["$$this", 1]}, 0]}
        lengths = {"$map": {"input": {"$cond": [{"$isArray": "$runs"}, "$runs", []]}, "in": length}}
        group = {"_id": [f"${name}" for name in names], "blocks": {"$sum": 1}, "candles": {"$sum": {"$sum": lengths}}}
        stages: list[Document] = [{"$match": {"codec": {"$exists": True}}}, {"$group": group}]
        collection = self._connection.collection(PACKED_CANDLES)
        rows = self._connection.retried(PACKED_CANDLES, lambda: list(collection.aggregate(stages)))
        return {
            tuple(row["_id"]): (int(row["blocks"]), int(row["candles"]))
            for row in rows
            if [type(name) for name in row["_id"]] == [str] * len(names)
        }

    def numbers(self, series: Key) -> list[int]:
        """Return the sorted numbers of the blocks of a series that have a document."""
        far = 2**53 // (interval_ms(series[2]) * BLOCK)  # later times are not exact as doubles
        query: Document = {
            "filter": {**_fields(series), "block": {"$gte": -far, "$lte": far}},
            "sort": {"block": 1},
            "projection": {"_id": False, "block": True},
        }
        found: set[int] = set()
        if self._readable:
            for batch in self._connection.fetch(PACKED_CANDLES, [query]):
                found.update(fields["block"] for document in core.split(batch) if type((fields := core.decode(document))["block"]) is int)
        return sorted(found)


def _unpack(series: Key, documents: list[Document], step: int, target: CandleArray, since: int) -> Unpacked:
    """Call ``unpack``, with one half of many documents in another thread."""
    if len(documents) < SHARED:
        return unpack(series, documents, step, target, since)
    middle = len(documents) // 2
    (runs, damaged), other = beside(
        partial(unpack, series, documents[:middle], step, target, since), partial(unpack, series, documents[middle:], step, target, since)
    )
    more_runs, more_damaged = other()
    return runs | more_runs, damaged | more_damaged


def _fields(series: Key) -> Document:
    return dict(zip(PACKED_CANDLES.key[:3], series, strict=True))


def _statement(series: Key, number: int, content: Document, version: int | None) -> Document:
    """Return the update that stores a block, if its document still has ``version`` (None: if there still is none)."""
    key = {**_fields(series), "block": number}
    if version is None:  # if there is a document by now, this is an insert with an existing key, which fails
        return {"q": {**key, "version": {"$exists": False}}, "u": {"$set": {**content, "version": _new_version()}}, "upsert": True}
    return {"q": {**key, "version": version, "removing.0": {"$exists": False}}, "u": {"$set": {**content, "version": _new_version()}}}


def _drop(series: Key, number: int, version: int) -> Document:
    change = {"$unset": _CONTENT, "$set": {"version": _new_version()}}
    return {"q": {**_fields(series), "block": number, "version": version}, "u": change}


def _new_version() -> int:
    """Return a version that no document has had: a counter would begin again if the document was dropped."""
    return _RANDOM.getrandbits(62)


def _groups(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    return (numbers[start : start + 1000] for start in range(0, len(numbers), 1000))


def _decoded(document: bytes) -> Document | None:
    """Return a document of the collection, or None if it is not one of ours."""
    try:
        fields = core.decode(document)
    except ValueError as error:
        log("debug", f"a document of {PACKED_CANDLES.collection} cannot be read: {error}")
        return None
    return fields if type(fields.get("block")) is type(fields.get("version")) is int else None
