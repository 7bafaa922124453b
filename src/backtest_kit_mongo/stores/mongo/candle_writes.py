"""Storing, replacing and removing candles in MongoDB: on import, only the candles that are missing are sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from bson import ObjectId
from bson.errors import BSONError
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from ..._core import bson as core
from ..._core.candles import numbers
from ...candles import PRICES, CandleArray, grid_of, interval_ms
from ...candles.packing import BLOCK
from ...config import Config
from ...domains import DOMAINS, PACKED_CANDLES
from ...errors import BacktestKitError, DatabaseError
from ...logs import log
from ..base import Key
from .block_collection import Basis, Span, ranges
from .candle_archive import SMALLEST_ARCHIVED, Parts, moved_too_often
from .candle_documents import by_size, candle_documents, new_ids, series_fields
from .candle_moves import archive_block, delete_at
from .candles import FAR, SKEW, MongoCandles, consecutive, uncovered
from .documents import Document
from .errors import reading
from .packed_candles import SMALLEST
from .redis_ids import RedisIds
from .second_thread import beside

__all__ = ["CandleWriter"]

BATCH = 10_000
"""Candles per insert command."""

REMOVED = 256
"""Blocks whose candles are removed at a time: the marks that keep other processes away must not last long."""

REPLACED = 16
"""Blocks whose candles are replaced at a time, for the same reason: each document takes an update of its own."""

COUNTED = 100_000
"""A window of at least this many candles is counted over two connections."""

LOOKED = 1.0
"""Seconds for which a block that has no archived candles is not looked up again by writes with the other format.

If one is archived meanwhile, at worst a document is stored beside it, which nobody reads.
"""

_ATTEMPTS = 20
_MOST_EMPTY = 10_000

Mask = npt.NDArray[np.bool_]
Stamps = npt.NDArray[np.int64]


class CandleWriter:
    """Writes the candle domain of a Mongo store. A series is (exchangeName, symbol, interval)."""

    def __init__(self, config: Config, candles: MongoCandles, redis_ids: RedisIds) -> None:
        self._with_ids = config.CC_REDIS_IDS == "all"
        self._candles = candles
        self._packed, self._archive, self._connection = candles.packed, candles.archive, candles.connection
        self._redis_ids = redis_ids
        self._empty: dict[tuple[Key, int], float] = {}  # blocks without archived candles, and when that was seen (time.monotonic)

    # --- writing ---

    def write(self, series: Key, candles: CandleArray) -> int:
        """Store those of the (already checked) candles that are not stored yet; return how many were new.

        If this process has seen or stored every candle of the window as a document before, one count finds out that nothing is new:
        candles can only have been deleted since, and then the count is lower. Otherwise a count proves nothing: another writer may have
        stored as many documents off the grid as candles are missing, and the server cannot tell them apart at the speed of a count ($mod
        truncates fractions of a ms).
        """
        stamps = np.ascontiguousarray(candles["timestamp"])
        if not (stamps[1:] > stamps[:-1]).all():
            stamps, first = np.unique(stamps, return_index=True)
            candles = candles[first]
        if not grid_of(series[2]).is_plain:  # never packed
            is_new = self._are_new(series, stamps, {"$gte": int(stamps[0]), "$lte": int(stamps[-1])})
            return len(self._insert(series, candles[is_new]))
        step = interval_ms(series[2])
        low, high = int(stamps[0]), int(stamps[-1]) + step
        seen = self._candles.seen.get(series)
        if _is_unbroken(stamps, step) and not self._with_ids and seen is not None and seen[0] <= low and high - step <= seen[1]:
            condition = {"$gte": low, "$lt": high}
            if self._connection.count(DOMAINS["candle"], {**series_fields(series), "timestamp": condition}) == len(stamps):
                return 0
        now = time.time_ns() // 1_000_000
        rest, archived = self._unarchived(series, candles, now, cached=True)
        new = 0
        if self._archive.in_use and len(rest):
            whole = self._insert_whole(series, rest, archived, now)
            if whole is not None:
                new, rest = whole
                rest, _ = self._unarchived(series, rest, now)  # some may have been inserted by another process first
        return new + self._write_documents(series, rest, now) if len(rest) else new

    def _unarchived(self, series: Key, candles: CandleArray, now: int, *, cached: bool = False) -> tuple[CandleArray, Basis | None]:
        """Return the candles that are not in the archive, and the state of the archive."""
        if not len(candles):
            return candles, None
        step = interval_ms(series[2])
        stamps = candles["timestamp"]
        blocks = Span(int(stamps[0]), int(stamps[-1]) + step, step).blocks(now + SKEW)
        if not blocks:
            return candles, None
        few = cached and len(blocks) == 1 and not self._archive.in_use
        if few and self._empty.get((series, blocks.start), -math.inf) > time.monotonic() - LOOKED:
            return candles, None
        archived = self._archive.look_up(series, blocks)
        if few and not archived.runs and not archived.damaged:
            if len(self._empty) > _MOST_EMPTY:
                self._empty.clear()
            self._empty[series, blocks.start] = time.monotonic()
        if archived.damaged:
            self._archive.check(series, archived, _by_block(candles, step))
        covered = archived.covered(step)
        if covered:
            starts, ends = np.array(covered).T
            positions = np.searchsorted(starts, stamps, "right") - 1
            candles = candles[(positions < 0) | (stamps >= ends[positions])]
        return candles, archived

    def _write_documents(self, series: Key, candles: CandleArray, now: int) -> int:
        """Store the candles that have no document yet as documents; return how many were new."""
        step = interval_ms(series[2])
        stamps = np.ascontiguousarray(candles["timestamp"])
        low, high = int(stamps[0]), int(stamps[-1])
        unbroken = _is_unbroken(stamps, step)
        blocks = Span(low, high + step, step).blocks(now) if len(stamps) >= SMALLEST else range(0)
        basis = self._packed.look_up(series, blocks) if blocks else None
        is_new = self._are_new_beside_packed(series, stamps, basis) if unbroken and basis is not None and basis.runs else None
        if is_new is None:
            condition: Document = {"$gte": low, "$lte": high}
            if high - low >= 4 * len(stamps) * step:  # scattered candles: a range query would also return everything in between
                condition = {"$in": stamps.tolist()}
            is_new = self._are_new(series, stamps, condition)
        candles = candles[is_new]
        if len(candles):
            closing = (now + SKEW) // (step * BLOCK)  # later blocks cannot be in the archive
            touched = [number for number in _by_block(candles, step) if number < closing]
            if self._archive.register(series, touched):
                candles, _ = self._unarchived(series, candles, now)
        inserted = self._insert(series, candles)
        if basis is not None and len(inserted) and not self._archive.in_use:
            # Another process may have archived others of the same times before these were inserted.
            inserted, archived = self._unarchived(series, inserted, now)
            if archived is None or not archived.left:
                for part in consecutive(inserted, step):
                    self._packed.pack(series, part, basis, now)
        if unbroken:
            seen = self._candles.seen.get(series)
            touching = seen is not None and seen[0] <= high + step and low <= seen[1] + step
            self._candles.seen[series] = (min(low, seen[0]), max(high, seen[1])) if seen is not None and touching else (low, high)
        if self._archive.in_use and len(inserted):
            self._archive_complete(series, inserted, now)
        return len(inserted)

    # --- the archive ---

    def _insert_whole(self, series: Key, candles: CandleArray, archived: Basis | None, now: int) -> tuple[int, CandleArray] | None:
        """Insert the closed blocks that nobody has begun, each at once; return how many candles they had, and the other candles.

        Returns None if there are no such blocks.
        """
        step = interval_ms(series[2])
        length = step * BLOCK
        parts = _by_block(candles, step)
        archived_versions = {} if archived is None else archived.versions
        free = [
            number
            for number, part in parts.items()
            if part.stop - part.start >= SMALLEST_ARCHIVED and (number + 1) * length <= now and number not in archived_versions
        ]
        for group in ranges(free):
            query: Document = {
                "filter": {**series_fields(series), "timestamp": {"$gte": group.start * length, "$lt": group.stop * length}},
                "projection": {"_id": False, "timestamp": True},
            }
            with reading(DOMAINS["candle"], " ".join(series)):
                begun = {int(stamp // length) for stamp in numbers(list(self._connection.fetch(DOMAINS["candle"], [query])), "timestamp")}
            free = [number for number in free if number not in begun]
        if not free:
            return None

        def blocks() -> Iterator[tuple[int, Parts]]:
            for number in free:
                runs = consecutive(candles[parts[number]], step)
                yield number, [(int(run["timestamp"][0]) // step - number * BLOCK, run) for run in runs]

        others = np.ones(len(candles), np.bool_)
        inserted = self._archive.insert(series, blocks())
        for number in inserted:
            others[parts[number]] = False
        self._packed.drop_numbers(series, inserted)  # of documents that somebody deleted with other tools
        return len(candles) - int(others.sum()), candles[others]

    def _archive_complete(self, series: Key, inserted: CandleArray, now: int) -> None:
        """Move the closed blocks to the archive that are complete now. A failure leaves their candles where they are."""
        step = interval_ms(series[2])
        length = step * BLOCK
        for number in _by_block(inserted, step):
            if (number + 1) * length > now:
                continue
            try:
                archived = self._archive.look_up(series, range(number, number + 1)).candles(number)
                if archived + self._count(series, number * length, (number + 1) * length, step) >= BLOCK:
                    archive_block(self._candles, series, number, BLOCK)
            except (PyMongoError, BSONError, BacktestKitError) as error:
                log(
                    "warning",
                    f"block {number} of {' '.join(series)} was not archived ({error}); its candles are stored as documents. "
                    "To try again, run: backtest-kit-mongo candles pack",
                )

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
        for start, end in uncovered(low, high, covered):
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
        archived = self._archive.look_up(series, range(min(basis.runs), max(basis.runs) + 1))
        for number, runs in basis.runs.items():
            if number in archived.runs:  # its candles were moved
                continue
            spans = [((number * BLOCK + run.first) * step, (number * BLOCK + run.first + run.length) * step) for run in runs]
            fewer = sum((end - start) // step - self._count(series, start, end, step) for start, end in spans)
            if fewer > 0 and self._packed.drop(series, number, basis):
                missing += fewer
        if missing:
            log(
                "warning",
                f"{missing:,} candles of {' '.join(series)} were deleted outside of this library, but are in packed blocks "
                f"({PACKED_CANDLES.collection}); those blocks are dropped. After such a change, run: backtest-kit-mongo candles verify",
            )
            self._candles.blocks.clear()

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
        chunks = [part[start : start + BATCH] for part in by_size(candles) for start in range(0, len(part), BATCH)]
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

    # --- replacing and removing ---

    def replace(self, series: Key, candles: CandleArray) -> int:
        """Give those of the (already checked, ascending) candles that are stored these values; return how many are.

        Each candle changes in one step, so a reader finds its old or its new values. If this process dies in between, some are new.
        """
        if not grid_of(series[2]).is_plain:  # never packed
            return self._update_documents(series, candles)
        parts = _by_block(candles, interval_ms(series[2]))
        numbers = list(parts)
        replaced = 0
        try:
            for start in range(0, len(numbers), REPLACED):
                group = numbers[start : start + REPLACED]
                chosen = candles[parts[group[0]].start : parts[group[-1]].stop]
                replaced += self._undisturbed(series, group, partial(self._replace, series, chosen))[-1]
        finally:
            self._candles.clear()
        return replaced

    def _replace(self, series: Key, candles: CandleArray) -> int:
        """Replace candles in the archive and in documents, without the copies, which are dropped; return how many there were."""
        step = interval_ms(series[2])
        parts = _by_block(candles, step)
        is_archived = np.zeros(len(candles), np.bool_)
        for blocks in ranges(list(parts)):
            archived = self._archive.look_up(series, blocks)
            for number in sorted({*archived.runs, *archived.damaged} & parts.keys()):
                is_archived[parts[number]] = self._archive.revise(series, number, candles[parts[number]])
        if is_archived.any():  # documents left over when their candles were moved would differ from them now
            delete_at(self._candles, series, candles["timestamp"][is_archived])
        return int(is_archived.sum()) + self._update_documents(series, candles[~is_archived])

    def _update_documents(self, series: Key, candles: CandleArray) -> int:
        """Give the documents of candles these values; return how many there were."""
        fields, now = series_fields(series), datetime.now(UTC)
        collection = self._connection.collection(DOMAINS["candle"])
        matched = 0
        for start in range(0, len(candles), BATCH):
            updates = [
                UpdateOne({**fields, "timestamp": stamp}, {"$set": {**dict(zip(PRICES, values, strict=True)), "updatedDate": now}})
                for stamp, *values in candles[start : start + BATCH].tolist()
            ]
            update = partial(collection.bulk_write, updates, ordered=False)
            matched += self._connection.retried(DOMAINS["candle"], update).matched_count
        return matched

    def remove(self, series: Key, since: int | None, until: int | None) -> int:
        """Delete the candles of a series in [since, until) (ms); return how many. Their ids in Redis are detected as stale when used."""
        low, high = -FAR if since is None else since, FAR if until is None else until
        if not grid_of(series[2]).is_plain:
            return self._delete(series, low, high)
        touched = self._candles.blocks_of(series, since, until)
        removed = 0
        try:
            for start in range(0, len(touched), REMOVED):
                group = touched[start : start + REMOVED]

                def remove(group: list[int] = group) -> int:
                    return sum(self._remove(series, blocks, low, high) for blocks in ranges(group))

                removed += sum(self._undisturbed(series, group, remove))
        finally:
            self._candles.clear()
        return removed

    def _undisturbed(self, series: Key, group: list[int], change: Callable[[], int]) -> list[int]:
        """Change candles of some blocks until nobody else has moved them meanwhile; return what each call of ``change`` returned."""
        counts: list[int] = []
        for _ in range(_ATTEMPTS):
            count, undisturbed = self._marked(series, group, change)
            counts.append(count)
            if undisturbed:
                return counts
        raise moved_too_often(series)

    def _marked(self, series: Key, group: list[int], change: Callable[[], int]) -> tuple[int, bool]:
        """Change candles of some blocks while nobody else can store packed ones or move them; their copies are dropped.

        Returns what ``change`` returned, and whether the marks that keep others away lasted to the end.
        """
        marks = [(source, source.new_token()) for source in (self._packed, self._archive)]
        try:
            for source, token in marks:
                source.begin_removal(series, group, token)
            if self._archive.is_unpacked(series, group):
                raise DatabaseError(
                    f"candles of {' '.join(series)} are being unpacked by another process",
                    hint="try again when it has ended; if it died, in an hour",
                )
            changed = change()
            lasted = [source.end_removal(series, group, token) for source, token in marks]
        except BaseException:
            for source, token in reversed(marks):
                with suppress(PyMongoError, BacktestKitError):  # if not even this succeeds, the blocks are free again in an hour
                    source.end_removal(series, group, token)
            raise
        return changed, all(lasted)

    def _remove(self, series: Key, blocks: range, low: int, high: int) -> int:
        """Delete the candles of some blocks in [low, high) (ms); return how many.

        Others may be added to other blocks meanwhile, and nobody would know that their candles go.
        """
        step = interval_ms(series[2])
        archived = self._archive.look_up(series, blocks)
        removed = 0
        for number in sorted({*archived.runs, *archived.damaged}):
            for run in archived.runs.get(number, ()):  # documents left over when their candles were moved: not counted
                stamps = (number * BLOCK + run.first + np.arange(run.length)) * step
                delete_at(self._candles, series, stamps[(low <= stamps) & (stamps < high)])
            first, last = (min(BLOCK, max(0, -(-edge // step) - number * BLOCK)) for edge in (low, high))
            removed += self._archive.cut(series, number, first, last)
        edges = max(low, blocks.start * BLOCK * step), min(high, blocks.stop * BLOCK * step)
        return removed + self._delete(series, *edges)

    def _delete(self, series: Key, low: int, high: int) -> int:
        """Delete the candle documents of a series in [low, high) (ms); return how many."""
        query = {**series_fields(series), "timestamp": {"$gte": low, "$lt": high}}
        delete = partial(self._connection.collection(DOMAINS["candle"]).delete_many, query)
        return self._connection.retried(DOMAINS["candle"], delete).deleted_count


def _is_unbroken(stamps: Stamps, step: int) -> bool:
    return (int(stamps[-1]) - int(stamps[0])) // step + 1 == len(stamps)


def _by_block(candles: CandleArray, step: int) -> dict[int, slice]:
    """Return where the candles of each block are in a sorted array, by number."""
    of_block = candles["timestamp"] // (step * BLOCK)
    edges = [0, *(np.flatnonzero(np.diff(of_block)) + 1).tolist(), len(candles)]
    return {int(of_block[start]): slice(start, end) for start, end in pairwise(edges) if start < end}
