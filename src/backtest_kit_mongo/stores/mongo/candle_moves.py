"""Moving candles between documents and the archive, block by block, beside running readers and writers.

At every moment each candle is in at least one of the two places, also after an election (``committed``). What is in both counts as
archived, so its document can go. But another process may have moved the candles back in the meantime. So a document is deleted by its
``_id``, which was read before the archive was seen to hold the candle still (``confirm``), and moving back always inserts new documents.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import numpy as np
import numpy.typing as npt
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import AutoReconnect, BulkWriteError, PyMongoError

from ..._core import bson as core
from ...candles import CANDLE_DTYPE, CandleArray, interval_ms
from ...candles.packing import BLOCK
from ...domains import DOMAINS
from ...errors import BacktestKitError, DatabaseError
from ...logs import log
from ..base import Key
from .candle_archive import moved_too_often, parts_of
from .candle_documents import by_size, candle_documents, new_ids, series_fields
from .candles import MongoCandles
from .client import committed
from .errors import lost_races, reading

__all__ = ["archive_block", "delete_at", "unarchive_block"]

_CANDLE = DOMAINS["candle"]
_ATTEMPTS = 20
_RANDOM = random.SystemRandom()  # not the generator that a strategy may have seeded


def archive_block(candles: MongoCandles, series: Key, number: int, smallest: int, *, dry_run: bool = False) -> bool:
    """Move the documents of a closed block to the archive, if it has at least ``smallest`` candles or is there in part.

    Returns whether the archive has got candles. If another process changes the block at the same time, or a value is not finite (as
    another program may store), nothing is moved.
    """
    if not dry_run:
        candles.archive.register(series, [number])
        # Documents are read as of the majority, which may be before a removal: not before this is confirmed.
        version = candles.archive.confirm(series, number, candles.archive.version(series, number))
        if version is None:
            return False
    rows, stored, basis = candles.gather(series, range(number, number + 1), to_move=True)
    if not dry_run and basis.versions.get(number) != version:
        return False
    archived = basis.candles(number)
    grown = int(stored.sum()) > archived
    if not archived and stored.sum() < smallest:
        return False
    if dry_run:
        return grown
    if grown:
        try:
            if not candles.archive.replace(series, number, parts_of(rows, stored), basis.versions.get(number)):
                return False
        except ValueError as error:
            log("warning", f"block {number} of {' '.join(series)} stays as documents: {error}")
            return False
    _delete_left_over(candles, series, number)
    candles.packed.drop_numbers(series, [number])
    return grown


def _delete_left_over(candles: MongoCandles, series: Key, number: int) -> None:
    """Delete the documents of candles that are in the archive too. A process that is moving them back begins again."""
    step = interval_ms(series[2])
    basis = candles.archive.look_up(series, range(number, number + 1))
    if number not in basis.runs:
        return
    stamps = np.concatenate([np.arange(start, end, step) for start, end in basis.covered(step)])
    identities = _documents_at(candles, series, stamps)
    if identities and candles.archive.confirm(series, number, basis.versions[number]) is not None:
        _delete(candles, identities)


def _documents_at(candles: MongoCandles, series: Key, stamps: npt.NDArray[np.int64]) -> list[ObjectId]:
    """Return the ``_id`` of the documents of a block that open at ``stamps`` (ms, ascending)."""
    query = {
        "filter": {**series_fields(series), "timestamp": {"$gte": int(stamps[0]), "$lte": int(stamps[-1])}},
        "projection": {"_id": True, "timestamp": True},
    }
    chosen = set(stamps.tolist())
    with reading(_CANDLE, " ".join(series)):
        rows = [core.decode(raw) for batch in candles.connection.fetch(_CANDLE, [query]) for raw in core.split(batch)]
    return [row["_id"] for row in rows if isinstance(row["timestamp"], (int, float, Decimal)) and row["timestamp"] in chosen]


def _delete(candles: MongoCandles, identities: Sequence[ObjectId]) -> None:
    delete = partial(candles.connection.collection(_CANDLE).delete_many, {"_id": {"$in": list(identities)}})
    candles.connection.retried(_CANDLE, delete)


def delete_at(candles: MongoCandles, series: Key, stamps: npt.NDArray[np.int64]) -> None:
    """Delete the documents of candles that open at ``stamps`` (ms), while a removal keeps others from moving candles."""
    delete = partial(candles.connection.collection(_CANDLE).delete_many, {**series_fields(series), "timestamp": {"$in": stamps.tolist()}})
    candles.connection.retried(_CANDLE, delete)


def unarchive_block(candles: MongoCandles, series: Key, number: int) -> bool:
    """Move the candles of a block from the archive to documents; return whether it had any.

    Raises DatabaseError if candles of the block are being removed.
    """
    archive = candles.archive
    step = interval_ms(series[2])
    token = archive.new_token()
    ended = True
    try:
        for attempt in range(_ATTEMPTS):
            time.sleep(_RANDOM.uniform(0, attempt / 40))  # another process may do the same, or remove candles
            rows = np.empty(BLOCK, CANDLE_DTYPE)
            basis = archive.read(series, range(number, number + 1), rows, number * BLOCK * step, step)
            archive.check(series, basis)
            if number not in basis.runs:
                return False
            before = basis.versions.get(number)
            ended = False
            version = archive.begin_unpacking(series, number, before, token)
            if version is None:
                continue
            inserted: list[ObjectId] = []
            with suppress(AutoReconnect):
                version = _insert(candles, series, number, _rows_of(rows, basis.runs[number]), version, inserted)
                if version is not None and archive.end_unpacking(series, number, version, token):
                    ended = True
                    return True
                # Somebody has changed the block: what the archive has is inserted again, if it has something.
                _delete(candles, inserted)
        if archive.is_removed(series, number):
            raise DatabaseError(
                f"candles of {' '.join(series)} are being removed by another process",
                hint="try again when it has ended; if it died, in an hour",
            )
        raise moved_too_often(series)
    finally:
        if not ended:
            with suppress(PyMongoError, BacktestKitError):  # if not even this succeeds, the mark is ignored in an hour
                archive.forget_unpacking(series, number, token)


def _rows_of(rows: CandleArray, runs: Sequence[tuple[int, int]]) -> CandleArray:
    return np.concatenate([rows[first : first + length] for first, length in runs])


def _insert(
    candles: MongoCandles, series: Key, number: int, rows: CandleArray, version: int | None, inserted: list[ObjectId]
) -> int | None:
    """Insert documents of archived candles in place of others, which nobody has read; return the version of the block, None if it changed.

    The ``_id`` of what was inserted is appended to ``inserted``.
    """
    collection = committed(candles.connection.collection(_CANDLE))
    for _ in range(_ATTEMPTS):
        if not len(rows):
            return version
        others = _documents_at(candles, series, rows["timestamp"])
        if others:
            version = candles.archive.confirm(series, number, version)
            if version is None:
                return None
            _delete(candles, others)
        lost: list[CandleArray] = []
        for part in by_size(rows):
            ids = new_ids(len(part))
            inserted += [ObjectId(value.tobytes()) for value in ids]
            documents = [RawBSONDocument(raw) for raw in core.split(candle_documents(series, part, ids, datetime.now(UTC)))]
            try:
                # Not sent again if the connection breaks: a document that was inserted would look like another's. The caller begins again.
                collection.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if not lost_races(_CANDLE, error):
                    raise
                lost.append(part[sorted(failure["index"] for failure in error.details["writeErrors"])])
        rows = np.concatenate(lost) if lost else rows[:0]
    raise DatabaseError(
        f"a document of another program prevents that of the candle of {' '.join(series)} at {int(rows['timestamp'][0])} ms",
        hint=f"delete what {_CANDLE.collection} has at this time, and unpack again",
    )
