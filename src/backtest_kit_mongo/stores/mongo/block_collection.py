"""A collection of packed candles: one document per block of a series (exchangeName, symbol, interval).

Each document has a ``version``, a random number that every change renews. Whoever changes a block notes the version before the candles are
read, and the change is made only if the document still has it. A removal or replacement of candles changes the versions before and after,
and in between nobody else can store a block, so that no block holds candles that are gone or have other values by now. (Do not drop the
whole collection while programs run: a document that is gone looks like one that never was.)
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice, pairwise
from typing import ClassVar, NamedTuple

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from ..._core import bson as core
from ...candles import CandleArray, grid_of, interval_ms
from ...candles.packing import BLOCK, DamagedBlockError, Run, runs_of, unpack
from ...domains import Domain
from ...logs import log
from ..base import Key
from .candle_documents import series_fields
from .client import primary
from .database import MongoDatabase
from .documents import Document
from .errors import reading
from .indexes import ensure_indexes
from .second_thread import beside

__all__ = ["CONTENT", "FORBIDDEN", "LONG_AGO", "Basis", "BlockCollection", "BlockGroup", "Span", "new_version", "of_blocks", "ranges"]

QUERY = 32
"""Blocks per query: the server reads the next ones while these are decoded."""

AHEAD = 4
"""Queries whose blocks are read before they are decoded. (Decoding while the next ones are read takes longer.)"""

SHARED = 16
"""At least this many blocks are decoded by two threads."""

CONTENT: Document = dict.fromkeys(("format", "codec", "runs", "checksum", "data"), "")
"""What a document loses when it loses its candles; the key and the version stay."""

FORBIDDEN = (13, 8000)
"""Codes of "Unauthorized", on any server and on Atlas."""

_FIELDS = dict.fromkeys(("_id", "block", "version", "left", "format", "codec", "runs", "checksum", "data"), True)
_OVERVIEW = {"_id": False, **dict.fromkeys(("block", "version", "left", "format", "codec", "runs"), True)}

LONG_AGO = 3600
"""Seconds after which a process that has not ended what it began is taken for dead."""

MOVED = 300
"""Seconds for which a reader has to expect that candles were moved to documents after it looked for those."""

ASKED = 600.0
"""Seconds after which the server is asked for its time again."""

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
    """The state of some blocks at one time."""

    runs: dict[int, tuple[Run, ...]]  # of the blocks with candles, by number
    versions: dict[int, int | None]  # the version of each document, also of those without candles
    damaged: dict[int, str]  # what is wrong with blocks that cannot be used
    left: set[int]  # blocks whose candles were moved to documents, not long ago
    primary: object  # the server, and its election

    def covered(self, step: int) -> list[tuple[int, int]]:
        """Return the sorted intervals (ms) of the candles that are in blocks; adjacent ones are joined."""
        intervals: list[tuple[int, int]] = []
        for number in sorted(self.runs):
            for run in self.runs[number]:
                since, until = ((number * BLOCK + position) * step for position in (run.first, run.first + run.length))
                if intervals and intervals[-1][1] == since:
                    since = intervals.pop()[0]
                intervals.append((since, until))
        return intervals

    def candles(self, number: int) -> int:
        """Return how many candles a block has."""
        return sum(run.length for run in self.runs.get(number, ()))


class BlockGroup(NamedTuple):
    """What was done to a few blocks of a series that is packed, unpacked or verified."""

    blocks: int  # how many were stored, moved or compared
    problems: dict[int, str]  # what was wrong with blocks, by number
    candles: int  # how many candles they can hold
    total: int  # the same of all blocks of the series


class BlockCollection:
    """Blocks of candles in one collection, of copies or of candles that are stored nowhere else."""

    truth: ClassVar[bool] = False
    """Whether the candles are stored nowhere else."""

    def __init__(self, connection: MongoDatabase, domain: Domain) -> None:
        self._connection = connection
        self.domain: Domain = domain
        self._readable = True
        self._ahead, self._asked = 0.0, -math.inf  # the server's clock less time.monotonic, and when it was asked

    # --- reading ---

    def read(self, series: Key, blocks: range, target: CandleArray, since: int, step: int) -> Basis:
        """Decode blocks into ``target``, whose first row opens at ``since`` (ms), and return which candles they had.

        All other rows are undefined.
        """
        basis = self._empty_basis()
        batches = self._batches(series, blocks, _FIELDS)
        while documents := list(chain.from_iterable(islice(batches, AHEAD))):
            packed = self._note(basis, documents)
            runs, damaged = _unpack(series, packed, step, target, since)
            basis.runs.update(runs)
            basis.damaged.update(damaged)
            for fields in packed:
                if fields["block"] in damaged:
                    self._report(series, fields, damaged[fields["block"]])
        return basis

    def look_up(self, series: Key, blocks: range) -> Basis:
        """Return which candles are in blocks, without reading them."""
        basis = self._empty_basis()
        for fields in self._note(basis, list(chain.from_iterable(self._batches(series, blocks, _OVERVIEW)))):
            try:
                basis.runs[fields["block"]] = runs_of(fields)
            except DamagedBlockError as error:
                basis.damaged[fields["block"]] = str(error)
        return basis

    def _empty_basis(self) -> Basis:
        return Basis({}, {}, {}, set(), primary(self._connection.client))

    def _note(self, basis: Basis, documents: list[Document]) -> list[Document]:
        """Add the versions of documents to ``basis``; return the documents with candles. A repeated query may return a block twice."""
        fresh = {fields["block"]: fields for fields in documents if fields["block"] not in basis.versions}
        basis.versions.update((number, fields["version"]) for number, fields in fresh.items())
        for number, fields in fresh.items():
            if isinstance(left := fields.get("left"), ObjectId) and left > self._token_before(MOVED):
                basis.left.add(number)
        return [fields for fields in fresh.values() if not fields.keys().isdisjoint(("codec", "runs"))]

    def _report(self, series: Key, fields: Document, problem: str) -> None:
        """Tell the user about a damaged block that was read."""

    def _batches(self, series: Key, blocks: range, projection: Document) -> Iterator[list[Document]]:
        """Yield the documents of blocks, some at a time."""
        if not blocks or not self._readable:
            return
        length = max(QUERY, len(blocks) // 256)
        bounds = [*range(blocks.start, blocks.stop, length), blocks.stop]
        queries: list[Document] = [
            {"projection": projection, "filter": {**series_fields(series), "block": {"$gte": first, "$lt": end}}, "sort": {"block": 1}}
            for first, end in pairwise(bounds)
        ]
        try:
            for batch in self._connection.fetch(self.domain, queries):
                yield [fields for document in core.split(batch) if (fields := self._decoded(document)) is not None]
        except OperationFailure as error:
            self._cannot_read(error)

    def _decoded(self, document: bytes) -> Document | None:
        """Return a document of the collection, or None if it is not one of ours."""
        try:
            fields = core.decode(document)
        except ValueError as error:
            log("debug", f"a document of {self.domain.collection} cannot be read: {error}")
            return None
        return fields if type(fields.get("block")) is type(fields.get("version")) is int else None

    def _number(self, block: object) -> int | None:
        """Return the number of the block that a document is about; None if it is not one of ours."""
        return block if type(block) is int else None

    def _cannot_read(self, error: OperationFailure) -> None:
        """Take note of a user without rights. Raises any other error of the server."""
        if error.code not in FORBIDDEN:
            raise error
        self._readable = False
        log("info", f"packed candles are not used: this user may not read the collection {self.domain.collection}")

    def numbers(self, series: Key) -> list[int]:
        """Return the sorted numbers of the blocks of a series that have a document."""
        if not grid_of(series[2]).is_plain:
            return []
        far = 2**53 // (interval_ms(series[2]) * BLOCK)  # later times are not exact as doubles
        query: Document = {
            "filter": {**series_fields(series), "block": {"$gte": -far, "$lte": far}},
            "sort": {"block": 1},
            "projection": {"_id": False, "block": True},
        }
        found: set[int] = set()
        if self._readable:
            try:
                for batch in self._connection.fetch(self.domain, [query]):
                    with reading(self.domain, " ".join(series)):
                        numbers = [self._number(core.decode(raw)["block"]) for raw in core.split(batch)]
                    found.update(number for number in numbers if number is not None)
            except OperationFailure as error:
                self._cannot_read(error)
        return sorted(found)

    def by_series(self) -> dict[Key, tuple[int, int]]:
        """Return the series that have blocks with candles: series -> (blocks, candles in them)."""
        names = self.domain.key[:3]
        length = {"$cond": [{"$isArray": "$$this"}, {"$arrayElemAt": ["$$this", 1]}, 0]}
        lengths = {"$map": {"input": {"$cond": [{"$isArray": "$runs"}, "$runs", []]}, "in": length}}
        group = {"_id": [f"${name}" for name in names], "blocks": {"$sum": 1}, "candles": {"$sum": {"$sum": lengths}}}
        stages: list[Document] = [{"$match": {"codec": {"$exists": True}}}, {"$group": group}]
        collection = self._connection.collection(self.domain)
        rows = self._connection.retried(self.domain, lambda: list(collection.aggregate(stages)))
        return {
            tuple(row["_id"]): (int(row["blocks"]), int(row["candles"]))
            for row in rows
            if [type(name) for name in row["_id"]] == [str] * len(names)
        }

    # --- time: that of the server, as clocks of clients may differ by more than LONG_AGO ---

    def new_token(self) -> ObjectId:
        """Return a mark for documents: the time of the server in seconds, and random bytes."""
        return ObjectId(self._now().to_bytes(4, "big") + os.urandom(8))

    def _token_before(self, seconds: int) -> ObjectId:
        """Return the smallest token of a time in the past."""
        return ObjectId((self._now() - seconds).to_bytes(4, "big") + bytes(8))

    def _now(self) -> int:
        """Return the time of the server in seconds."""
        now = time.monotonic()
        if now - self._asked > ASKED:
            admin = self._connection.client.admin
            local: datetime = self._connection.retried(self.domain, lambda: admin.command("hello"))["localTime"]
            self._ahead, self._asked = local.replace(tzinfo=UTC).timestamp() - now, now
        return int(now + self._ahead)

    # --- removal of candles ---

    def begin_removal(self, series: Key, numbers: Sequence[int], token: ObjectId) -> None:
        """Keep anybody from storing blocks whose candles are about to be removed, until ``end_removal``."""
        self._connection.retried(self.domain, lambda: ensure_indexes(self._connection.collection(self.domain), self.domain))
        self.forget_removals(series, numbers)
        strange = {"removing": {"$exists": True, "$not": {"$type": "array"}}}
        self._change(of_blocks(series, numbers) | strange, {"$unset": {"removing": ""}})

        def begin() -> None:
            change = self._dropped({"$addToSet": {"removing": token}})
            updates = [UpdateOne({**series_fields(series), "block": number}, change, upsert=True) for number in numbers]
            self._written().bulk_write(updates, ordered=False)

        if numbers:
            self._connection.retried(self.domain, begin)

    def end_removal(self, series: Key, numbers: Sequence[int], token: ObjectId) -> bool:
        """Allow blocks to be stored again; return whether nobody had done so before: ``forget_removals``, after a long time.

        Copies are dropped first, in case that ``begin_removal`` was lost or forgotten.
        """
        query = {**of_blocks(series, numbers), "removing": token}
        kept = self._connection.retried(self.domain, lambda: self._written().count_documents(query))
        self._change(of_blocks(series, numbers), {"$pull": {"removing": token}}, drop=True)
        return kept == len(numbers)

    def forget_removals(self, series: Key, numbers: Sequence[int]) -> None:
        """Allow blocks to be stored again whose removal began long ago: the process that removed their candles has probably died."""
        before = self._token_before(LONG_AGO)
        query = {**of_blocks(series, numbers), "removing": {"$lt": before}}
        self._change(query, {"$pull": {"removing": {"$lt": before}}}, drop=True)

    def _change(self, query: Document, change: Document, *, drop: bool = False) -> int:
        """Apply a change, and a new version, to all documents of a query; return how many. Each attempt has a version of its own."""

        def update() -> int:
            full = self._dropped(change) if drop else {**change, "$set": {"version": new_version()}}
            return self._written().update_many(query, full).modified_count

        return self._connection.retried(self.domain, update)

    def _written(self) -> Collection[Document]:
        """Return the collection, with the write concern of changes."""
        return self._connection.collection(self.domain)

    def _dropped(self, change: Document) -> Document:
        """Return a change with a new version, and without the candles if they are copies."""
        return {**change, "$set": {"version": new_version()}, **({} if self.truth else {"$unset": CONTENT})}


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


def new_version() -> int:
    """Return a version that no document has had: a counter would begin again if the document was dropped."""
    return _RANDOM.getrandbits(62)


def of_blocks(series: Key, numbers: Sequence[int]) -> Document:
    """Return the filter for some blocks of a series."""
    return {**series_fields(series), "block": {"$in": list(numbers)}}
