"""Copies of candles, packed: closed blocks of a series, so that a process that starts reads a year in milliseconds.

The candle documents stay the truth: ``drop_all`` may drop the copies at any time, and a block that is damaged or missing is read from the
candle documents instead. A block holds only candles that were read from there, or inserted there by this process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from bson.errors import BSONError
from pymongo.errors import OperationFailure, PyMongoError

from ...candles import CandleArray, interval_ms
from ...candles.packing import BLOCK, pack
from ...domains import PACKED_CANDLES
from ...errors import BacktestKitError
from ...logs import log
from ..base import Key
from .block_collection import CONTENT, FORBIDDEN, Basis, BlockCollection, Span, new_version, of_blocks
from .candle_documents import series_fields
from .client import primary
from .database import MongoDatabase
from .documents import Document
from .indexes import ensure_indexes

__all__ = ["SMALLEST", "PackedCandles"]

WRITE = 64
"""Blocks per write command: about 3 MB."""

SMALLEST, MORE = 2_048, 256
"""An incomplete block is packed if it has at least so many candles, and so many more than the packed one."""

ASK_AGAIN = 60.0
"""Seconds until a block that was not packed is looked up again: another process may have packed it."""

_MOST_ABSENT = 100_000
# Seconds after which the unique index is checked again before a write.
_CHECKED = 60.0


class PackedCandles(BlockCollection):
    """The copies of a database. A series is (exchangeName, symbol, interval)."""

    def __init__(self, connection: MongoDatabase) -> None:
        super().__init__(connection, PACKED_CANDLES)
        self._writable = True
        self._checked = -math.inf  # when the unique index was last checked (time.monotonic)
        self._absent: dict[tuple[Key, int], float] = {}  # blocks that are not packed, and when that was seen (time.monotonic)

    # --- reading ---

    def unless_absent(self, series: Key, blocks: range) -> range:
        """Leave out, at both ends, blocks that were not packed when this process last asked, not long ago."""
        first, stop = blocks.start, blocks.stop
        if self._absent:
            before = time.monotonic() - ASK_AGAIN
            while first < stop and self._absent.get((series, first), -math.inf) > before:
                first += 1
            while first < stop and self._absent.get((series, stop - 1), -math.inf) > before:
                stop -= 1
        return range(first, stop)

    def note_absent(self, series: Key, numbers: Iterable[int]) -> None:
        """Note that blocks are not packed."""
        if len(self._absent) > _MOST_ABSENT:
            self._absent.clear()
        self._absent.update(dict.fromkeys(((series, number) for number in numbers), time.monotonic()))

    def forget(self) -> None:
        """Forget which blocks are not packed."""
        self._absent.clear()

    def _report(self, series: Key, fields: Document, problem: str) -> None:
        number = fields["block"]
        log(
            "warning",
            f"packed block {number} of {' '.join(series)} ({PACKED_CANDLES.collection}, _id {fields.get('_id')}) is damaged: {problem}; "
            "this block is no longer used, and its candles are read from their documents",
        )
        self._update([_drop(series, number, fields["version"])], primary(self._connection.client))

    def _cannot_read(self, error: OperationFailure) -> None:
        if error.code in FORBIDDEN:
            super()._cannot_read(error)
        else:
            log("warning", f"packed candles cannot be read, so candles are read from their documents: {error}")

    # --- writing ---

    def pack(self, series: Key, rows: CandleArray, basis: Basis, now: int, *, dry_run: bool = False) -> int:
        """Pack the closed blocks of consecutive candles that hold more than what is packed; return how many were stored.

        With ``dry_run`` return how many that would be.
        """
        if not len(rows):
            return 0
        step = interval_ms(series[2])
        opens = int(rows["timestamp"][0]) // step
        blocks: list[tuple[int, int, CandleArray]] = []
        for number in Span(opens * step, (opens + len(rows)) * step, step).blocks(now):
            first = max(0, opens - number * BLOCK)
            count = min(BLOCK, opens + len(rows) - number * BLOCK) - first
            before = basis.candles(number)
            has_all = all(first <= run.first and run.first + run.length <= first + count for run in basis.runs.get(number, ()))
            if has_all and count > before and (count == BLOCK or count >= max(SMALLEST, before + MORE)):
                at = number * BLOCK + first - opens
                blocks.append((number, first, rows[at : at + count]))
        if dry_run:
            return len(blocks)
        for number, _, _ in blocks:
            self._absent.pop((series, number), None)
        return self.put(series, blocks, basis) if blocks else 0

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
                content = pack(series, number, [(first, candles)], interval_ms(series[2]))
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

    def drop(self, series: Key, number: int, basis: Basis) -> bool:
        """Remove the content of a block; return whether it was still the block of ``basis``."""
        return bool(self._update([_drop(series, number, basis.versions[number])], primary(self._connection.client)))

    def drop_numbers(self, series: Key, numbers: Sequence[int]) -> None:
        """Remove the content of blocks, whatever it is, as far as this user may."""
        if not self._writable or not numbers:
            return
        try:
            self._change({**of_blocks(series, numbers), "codec": {"$exists": True}}, {"$unset": CONTENT})
        except OperationFailure as error:
            if error.code not in FORBIDDEN:
                raise
            self._writable = False

    def drop_all(self) -> int:
        """Remove the content of all blocks; return how many there were."""
        return self._change({"codec": {"$exists": True}}, {"$unset": CONTENT})


def _statement(series: Key, number: int, content: Document, version: int | None) -> Document:
    """Return the update that stores a block, if its document still has ``version`` (None: if there still is none)."""
    key = {**series_fields(series), "block": number}
    if version is None:  # if there is a document by now, this is an insert with an existing key, which fails
        return {"q": {**key, "version": {"$exists": False}}, "u": {"$set": {**content, "version": new_version()}}, "upsert": True}
    return {"q": {**key, "version": version, "removing.0": {"$exists": False}}, "u": {"$set": {**content, "version": new_version()}}}


def _drop(series: Key, number: int, version: int | None) -> Document:
    change = {"$unset": CONTENT, "$set": {"version": new_version()}}
    return {"q": {**series_fields(series), "block": number, "version": version}, "u": change}
