"""Moving candles between documents and the archive, block by block, beside running readers and writers.

At every moment each candle is in at least one of the two places. What is in both counts as archived, so its document can go. But another
process may have moved the candles back in the meantime. So a document is deleted by its ``_id``, which was read while the archive held the
candle, and moving back always inserts new documents.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from ..._core import bson as core
from ...candle_packing import BLOCK
from ...candles import CANDLE_DTYPE, CandleArray, interval_ms
from ...domains import DOMAINS
from ...errors import DatabaseError
from ..base import Key
from .candle_archive import parts_of
from .candle_documents import candle_documents, new_ids, series_fields
from .candles import MongoCandles, moved_too_often
from .errors import reading

__all__ = ["archive_block", "delete_at", "delete_left_over", "unarchive_block"]

_ATTEMPTS = 20


def archive_block(candles: MongoCandles, series: Key, number: int, smallest: int, *, dry_run: bool = False) -> bool:
    """Move the documents of a closed block to the archive, if it has at least ``smallest`` candles or is there in part.

    Returns whether the archive has got candles. If another process changes the block at the same time, nothing is moved.
    """
    if not dry_run:
        candles.archive.register(series, [number])
    block = range(number, number + 1)
    rows, stored, basis = candles.gather(series, block)
    archived = basis.candles(number)
    grown = int(stored.sum()) > archived
    if not archived and stored.sum() < smallest:
        return False
    if dry_run:
        return grown
    if grown and not candles.archive.replace(series, number, parts_of(rows, stored), basis.versions.get(number)):
        return False
    delete_left_over(candles, series, number)
    candles.packed.drop_numbers(series, block)
    return grown


def delete_left_over(candles: MongoCandles, series: Key, number: int) -> int:
    """Delete the documents of candles that are in the archive too; return how many."""
    archive, block = candles.archive, range(number, number + 1)
    rows = np.empty(BLOCK, CANDLE_DTYPE)
    step = interval_ms(series[2])
    opens = number * BLOCK * step
    basis = archive.read(series, block, rows, opens, step)
    if number not in basis.runs:
        return 0
    identities = _documents_at(candles, series, basis.covered(step))
    if not identities:
        return 0
    if number in basis.unpacking:  # these may be new documents of a process that moves the candles back: let it begin again
        parts = [(run.first, rows[run.first : run.first + run.length]) for run in basis.runs[number]]
        archive.replace(series, number, parts, basis.versions.get(number))
        return 0
    if archive.version(series, number) != basis.versions.get(number):
        return 0
    collection = candles.connection.collection(DOMAINS["candle"])
    delete = partial(collection.delete_many, {"_id": {"$in": identities}})
    return candles.connection.retried(DOMAINS["candle"], delete).deleted_count


def _documents_at(candles: MongoCandles, series: Key, intervals: list[tuple[int, int]]) -> list[object]:
    """Return the ``_id`` of the documents on the grid in sorted intervals (ms)."""
    step = interval_ms(series[2])
    queries = [
        {
            "filter": {**series_fields(series), "timestamp": {"$gte": since, "$lt": until}},
            "projection": {"_id": True, "timestamp": True},
        }
        for since, until in intervals
    ]
    found = []
    for batch in candles.connection.fetch(DOMAINS["candle"], queries):
        with reading(DOMAINS["candle"], " ".join(series)):
            rows = [core.decode(raw) for raw in core.split(batch)]
        found += [row["_id"] for row in rows if isinstance(row["timestamp"], (int, float)) and row["timestamp"] % step == 0]
    return found


def delete_at(candles: MongoCandles, series: Key, stamps: npt.NDArray[np.int64]) -> None:
    """Delete the documents of candles that open at ``stamps`` (ms)."""
    collection = candles.connection.collection(DOMAINS["candle"])
    delete = partial(collection.delete_many, {**series_fields(series), "timestamp": {"$in": stamps.tolist()}})
    candles.connection.retried(DOMAINS["candle"], delete)


def unarchive_block(candles: MongoCandles, series: Key, number: int) -> bool:
    """Move the candles of a block from the archive to documents; return whether it had any.

    Raises DatabaseError if candles of the block are being removed.
    """
    archive = candles.archive
    step = interval_ms(series[2])
    for _ in range(_ATTEMPTS):
        rows = np.empty(BLOCK, CANDLE_DTYPE)
        basis = archive.read(series, range(number, number + 1), rows, number * BLOCK * step, step)
        archive.check(series, basis)
        if number not in basis.runs:
            return False
        before = basis.versions.get(number)
        version = archive.begin_unpacking(series, number, before)
        if version is None:
            if archive.version(series, number) == before:
                raise DatabaseError(
                    f"candles of {' '.join(series)} are being removed by another process",
                    hint="try again when it has ended; if it died, in an hour",
                )
            continue
        missing = np.concatenate([rows[run.first : run.first + run.length] for run in basis.runs[number]])
        while len(missing):  # a document of another writer, of the same time, was never read
            delete_at(candles, series, missing["timestamp"])
            missing = _insert(candles, series, missing)
        if archive.replace(series, number, (), version, leave=True):
            return True
    raise moved_too_often(series)


def _insert(candles: MongoCandles, series: Key, rows: CandleArray) -> CandleArray:
    """Insert documents of candles; return those that another document prevents."""
    small = np.abs(rows["timestamp"]) < 2**31  # encoded in 32 bits, so that its documents are shorter
    parts = [part for part in (rows[small], rows[~small]) if len(part)]
    now = datetime.now(UTC)
    batches = (candle_documents(series, part, new_ids(len(part)), now) for part in parts)
    outcomes = candles.connection.insert_new(DOMAINS["candle"], batches)
    return np.concatenate([part[sorted(lost)] for part, lost in zip(parts, outcomes, strict=True)])
