"""The archive: packed blocks of candles that are stored nowhere else, as ``CC_CANDLE_FORMAT=packed`` writes them.

What is in the archive takes precedence over candle documents of the same times: a candle is inserted here only if it was not stored, or
moved here from its document, which is deleted afterwards. A reader of documents must therefore look into the archive last.

The unique index decides between two writers that insert the same block. A writer that inserts candle documents instead first creates the
block's document here (``register``), so that from then on nobody inserts that block as a whole.

It is not the collection of the copies, so that older versions of this library, which drop copies freely, cannot drop these.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from bson import ObjectId, encode
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, OperationFailure

from ..._core import bson as core
from ...candles import CANDLE_DTYPE, CandleArray, interval_ms
from ...candles.packing import BLOCK, Run, pack
from ...domains import CANDLE_ARCHIVE
from ...errors import DamagedCandlesError, ServerUnavailableError
from ...logs import log
from ..base import Key
from .block_collection import CONTENT, FORBIDDEN, LONG_AGO, Basis, BlockCollection, new_version, of_blocks
from .candle_documents import series_fields, stored_series
from .client import committed, primary
from .database import MongoDatabase
from .documents import Document
from .errors import lost_races, reading
from .indexes import ensure_indexes

__all__ = ["SMALLEST_ARCHIVED", "CandleArchive", "Parts", "moved_too_often", "parts_of"]

WRITE = 64
"""Blocks per write command: about 3 MB."""

# Seconds after which the unique index is checked again: without it, a block could be stored twice.
_CHECKED, _SEEN = 60.0, 1.0

SMALLEST_ARCHIVED = 256
"""An incomplete block is stored here if it has at least so many candles: fewer are as well off as documents."""

_MOST_REGISTERED = 100_000
_ATTEMPTS = 100

_NOT_REMOVING: Document = {"removing.0": {"$exists": False}}

Parts = Sequence[tuple[int, CandleArray]]
"""The candles of a block: (first position, consecutive candles)."""


def parts_of(rows: CandleArray, present: npt.NDArray[np.bool_]) -> Parts:
    """Return the parts of a block whose rows are all given, those that are not ``present`` included."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [(start, rows[start:end]) for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]


class CandleArchive(BlockCollection):
    """The archive of a database. A series is (exchangeName, symbol, interval)."""

    truth: ClassVar[bool] = True

    def __init__(self, connection: MongoDatabase, *, in_use: bool) -> None:
        super().__init__(connection, CANDLE_ARCHIVE)
        self.in_use: bool = in_use
        """Whether this process stores candles here (``CC_CANDLE_FORMAT=packed``). All processes read from here."""
        self._checked = -math.inf  # when the unique index was last checked (time.monotonic)
        self._may_write = True
        self._registered: set[tuple[Key, int]] = set()
        self._registered_on: object = None  # the primary that has these documents

    # --- reading ---

    def series(self) -> list[Key]:
        """Return the series that have candles here, sorted."""
        if not self._readable:
            return []
        try:
            stored = stored_series(self._connection, CANDLE_ARCHIVE)
            return [series for series in stored if self._connection.find_one(CANDLE_ARCHIVE, _with_candles(series)) is not None]
        except OperationFailure as error:
            self._cannot_read(error)
            return []

    def check(self, series: Key, basis: Basis, numbers: Iterable[int] | None = None) -> None:
        """Raise DamagedCandlesError if one of the blocks ``numbers`` (None: any) is damaged."""
        bad = sorted(basis.damaged if numbers is None else set(numbers) & set(basis.damaged))
        if bad:
            exchange_name, symbol, interval = series
            length = interval_ms(interval) * BLOCK
            since, until = (_iso(number * length) for number in (bad[0], bad[0] + 1))
            raise DamagedCandlesError(
                f"archived block {bad[0]} of {symbol} {interval} on {exchange_name!r} ({CANDLE_ARCHIVE.collection}) is damaged: "
                f"{basis.damaged[bad[0]]}" + (f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""),
                hint=f"its candles, {since} to {until}, are stored nowhere else: restore the document from a backup, or remove them "
                "(remove_candles, or the command candles remove) and import them again",
            )

    def _note(self, basis: Basis, documents: list[Document]) -> list[Document]:
        packed = super()._note(basis, documents)
        for fields in packed:
            if type(fields["version"]) is not int:
                basis.damaged[fields["block"]] = f"its version is {fields['version']!r:.80}"
        return [fields for fields in packed if fields["block"] not in basis.damaged]

    def _decoded(self, document: bytes) -> Document | None:
        with reading(CANDLE_ARCHIVE):
            fields = core.decode(document)
        block = fields.get("block")
        if type(block) is int:
            return {"version": None, **fields}
        number = self._number(block)
        return None if number is None else {**fields, "block": number, "version": f"unusable, as its block is {block!r}"}

    def _number(self, block: object) -> int | None:
        """See BlockCollection. A double, as other tools write it, is a damaged block: its candles are nowhere else."""
        return math.floor(block) if isinstance(block, (int, float, Decimal)) else None

    def _cannot_read(self, error: OperationFailure) -> None:
        if self.in_use or error.code not in FORBIDDEN:
            raise error
        self._readable = False
        log(
            "warning",
            f"this user may not read the collection {CANDLE_ARCHIVE.collection}: candles that other processes store with "
            "CC_CANDLE_FORMAT=packed will look missing",
        )

    # --- writing ---

    def register(self, series: Key, numbers: Iterable[int]) -> bool:
        """Create the documents of blocks that get candle documents; return whether there was one already that this process did not know.

        Then that block may have been inserted as a whole meanwhile.
        """
        chosen = primary(self._connection.client)
        if chosen is None or chosen != self._registered_on or len(self._registered) > _MOST_REGISTERED:
            self._registered.clear()
            self._registered_on = chosen
        unknown = [number for number in numbers if (series, number) not in self._registered]
        if not unknown or not self._may_write:
            return False
        created = 0
        try:
            self._ensure_index(_CHECKED)
            collection = self._connection.collection(CANDLE_ARCHIVE)
            fields = series_fields(series)
            updates = [
                UpdateOne({**fields, "block": number}, {"$setOnInsert": {"version": new_version()}}, upsert=True) for number in unknown
            ]

            def create() -> None:
                nonlocal created
                try:
                    created = collection.bulk_write(updates, ordered=False).upserted_count
                except BulkWriteError as error:
                    if not lost_races(CANDLE_ARCHIVE, error):
                        raise

            self._connection.retried(CANDLE_ARCHIVE, create)
        except (OperationFailure, BulkWriteError) as error:
            self._cannot_write(error)
            return False
        if self._registered_on == chosen:
            self._registered.update((series, number) for number in unknown)
        return created < len(unknown)

    def _cannot_write(self, error: OperationFailure | BulkWriteError) -> None:
        """Take note of a user without rights. Raises any other error."""
        codes = {failure.get("code") for failure in (error.details or {}).get("writeErrors", [])} | {error.code}
        if self.in_use or not codes & set(FORBIDDEN):
            raise error
        self._may_write = False
        log(
            "info",
            f"this user may not write to the collection {CANDLE_ARCHIVE.collection}, so nobody else should use CC_CANDLE_FORMAT=packed",
        )

    def insert(self, series: Key, blocks: Iterable[tuple[int, Parts]]) -> list[int]:
        """Insert blocks that have no document yet, given as (number, parts); return the numbers of those that nobody else began."""
        self._ensure_index()
        step = interval_ms(series[2])
        fields = series_fields(series)
        identities: dict[int, ObjectId] = {}  # in the order in which the blocks are sent

        def documents() -> Iterator[bytes]:
            batch: list[bytes] = []
            for number, parts in blocks:
                identities[number] = ObjectId()
                content = pack(series, number, parts, step)
                batch.append(encode({"_id": identities[number], **fields, "block": number, "version": new_version(), **content}))
                if len(batch) == WRITE:
                    yield b"".join(batch)
                    batch = []
            if batch:
                yield b"".join(batch)

        lost: set[int] = set()
        for count, positions in enumerate(self._connection.insert_new(CANDLE_ARCHIVE, documents())):
            lost |= {count * WRITE + position for position in positions}
        # After a lost reply, this process may itself have been first.
        return [
            number
            for position, (number, identity) in enumerate(identities.items())
            if position not in lost or self._identity(series, number) == identity
        ]

    def replace(self, series: Key, number: int, parts: Parts, version: int | None, *, in_removal: bool = False) -> bool:
        """Store other candles in a block if its document still has ``version``; return whether it had. No parts: it holds none then.

        After a lost reply, False may be wrong.
        """
        change: Document = {"$set": pack(series, number, parts, interval_ms(series[2]))} if parts else {"$unset": CONTENT}
        return self._swap(series, number, version, change, {} if in_removal else _NOT_REMOVING) is not None

    def confirm(self, series: Key, number: int, version: int | None) -> int | None:
        """Make sure that a block still has ``version`` and that no election will undo it; return its new version, or None."""
        return self._swap(series, number, version, {}, {})

    def _swap(self, series: Key, number: int, version: int | None, change: Document, condition: Document) -> int | None:
        """Change the document of a block if it still has ``version`` and meets a condition; return its new version, or None."""
        if version is None:
            return None
        self._ensure_index()
        new = new_version()
        full = {**change, "$set": {**change.get("$set", {}), "version": new}}
        query = {**series_fields(series), "block": number, "version": version, **condition}
        matched = self._connection.retried(CANDLE_ARCHIVE, lambda: self._written().update_one(query, full).matched_count)
        # After a lost reply, the first attempt may have succeeded.
        return new if matched or self.version(series, number) == new else None

    def version(self, series: Key, number: int) -> int | None:
        """Return the version of a block's document; None if there is none."""
        return self.look_up(series, range(number, number + 1)).versions.get(number)

    def _written(self) -> Collection[Document]:
        return committed(self._connection.collection(CANDLE_ARCHIVE))

    # --- removal of candles ---

    def begin_removal(self, series: Key, numbers: Sequence[int], token: ObjectId) -> None:
        """See BlockCollection. A user without rights to the collection has no candles here."""
        try:
            super().begin_removal(series, numbers, token)
        except OperationFailure as error:
            self._cannot_write(error)

    def end_removal(self, series: Key, numbers: Sequence[int], token: ObjectId) -> bool:
        """See BlockCollection."""
        return not self._may_write or super().end_removal(series, numbers, token)

    def cut(self, series: Key, number: int, since: int, until: int) -> int:
        """Remove the candles at the positions [since, until) of a block; return how many there were."""
        step = interval_ms(series[2])
        for _ in range(_ATTEMPTS):
            rows = np.empty(BLOCK, CANDLE_DTYPE)
            basis = self.read(series, range(number, number + 1), rows, number * BLOCK * step, step)
            if number in basis.damaged:
                if since > 0 or until < BLOCK:
                    self.check(series, basis)
                log("warning", f"archived block {number} of {' '.join(series)}, which is damaged ({basis.damaged[number]}), is removed")
                self._change({**series_fields(series), "block": number}, {"$unset": CONTENT})
                return 0  # nobody knows how many
            before = present(basis.runs.get(number, ()))
            after = before.copy()
            after[since:until] = False
            count = int(before.sum() - after.sum())
            if not count or self.replace(series, number, parts_of(rows, after), basis.versions[number], in_removal=True):
                return count
        raise moved_too_often(series)

    def revise(self, series: Key, number: int, candles: CandleArray) -> npt.NDArray[np.bool_]:
        """Give those of ``candles`` that a block holds these values; return which it holds. Raises DamagedCandlesError."""
        step = interval_ms(series[2])
        positions = candles["timestamp"] // step - number * BLOCK
        for _ in range(_ATTEMPTS):
            rows = np.empty(BLOCK, CANDLE_DTYPE)
            basis = self.read(series, range(number, number + 1), rows, number * BLOCK * step, step)
            self.check(series, basis)
            stored = present(basis.runs.get(number, ()))
            held: npt.NDArray[np.bool_] = stored[positions]
            rows[positions[held]] = candles[held]
            if not held.any() or self.replace(series, number, parts_of(rows, stored), basis.versions[number], in_removal=True):
                return held
        raise moved_too_often(series)

    # --- unpacking ---

    def begin_unpacking(self, series: Key, number: int, version: int | None, token: ObjectId) -> int | None:
        """Let a removal know that candles of a block are about to be moved to documents; return the new version, or None if it changed."""
        return self._swap(series, number, version, {"$addToSet": {"unpacking": token}}, _NOT_REMOVING)

    def end_unpacking(self, series: Key, number: int, version: int | None, token: ObjectId) -> bool:
        """Drop the candles of a block, which are documents now, if it still has ``version``; return whether it had."""
        left = self.new_token()
        change: Document = {"$unset": CONTENT, "$set": {"left": left}, "$pull": {"unpacking": token}}
        if self._swap(series, number, version, change, _NOT_REMOVING) is not None:
            return True
        # Somebody may have changed the version again after a lost reply.
        document = self._connection.find_one(CANDLE_ARCHIVE, {**series_fields(series), "block": number})
        return document is not None and core.decode(document).get("left") == left

    def forget_unpacking(self, series: Key, number: int, token: ObjectId) -> None:
        """Let removals of a block begin again, after ``begin_unpacking`` without ``end_unpacking``."""
        self._change({**series_fields(series), "block": number, "unpacking": token}, {"$pull": {"unpacking": token}})

    def is_removed(self, series: Key, number: int) -> bool:
        """Return whether candles of a block are being removed."""
        query = {**series_fields(series), "block": number, "removing.0": {"$exists": True}}
        return self._connection.find_one(CANDLE_ARCHIVE, query) is not None

    def is_unpacked(self, series: Key, numbers: Sequence[int]) -> bool:
        """Return whether another process is about to move candles of these blocks to documents."""
        if not self._readable:
            return False
        query = {**of_blocks(series, numbers), "unpacking": {"$gt": self._token_before(LONG_AGO)}}
        return self._connection.find_one(CANDLE_ARCHIVE, query) is not None

    def _identity(self, series: Key, number: int) -> object:
        document = self._connection.find_one(CANDLE_ARCHIVE, {**series_fields(series), "block": number})
        return None if document is None else core.decode(document).get("_id")

    def prepare(self) -> None:
        """Create the index, if this process stores candles here. Raises IndexConflictError if documents conflict with it."""
        if self.in_use:
            self._ensure_index(0)

    def _ensure_index(self, seen_within: float = _SEEN) -> None:
        if time.monotonic() - self._checked > seen_within:
            collection = self._connection.collection(CANDLE_ARCHIVE)
            self._connection.retried(CANDLE_ARCHIVE, lambda: ensure_indexes(collection, CANDLE_ARCHIVE))
            self._checked = time.monotonic()


def present(runs: Iterable[Run]) -> npt.NDArray[np.bool_]:
    """Return a mask of the positions of a block that are in ``runs``."""
    mask = np.zeros(BLOCK, np.bool_)
    for run in runs:
        mask[run.first : run.first + run.length] = True
    return mask


def _with_candles(series: Key) -> Document:
    return {**series_fields(series), "codec": {"$exists": True}}


def _iso(milliseconds: int) -> str:
    return f"{np.datetime64(milliseconds, 'ms').astype('datetime64[m]')}Z"


def moved_too_often(series: Key) -> ServerUnavailableError:
    """Return the error of a work that began again many times."""
    return ServerUnavailableError(
        f"the candles of {' '.join(series)} are being moved by other processes all the time",
        hint="try again when candles pack or unpack ends",
    )
