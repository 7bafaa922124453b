"""Candles in MongoDB: read a window, keep it in memory and read ahead. ``candle_writes`` stores and removes candles."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._core import bson as core
from ..._core.blocks import CandleBlocks
from ..._core.candles import decode_candles, numbers
from ...candles import CANDLE_DTYPE, CandleArray, Grid, closed_candles, grid_of, interval_ms
from ...candles.packing import BLOCK
from ...config import Config
from ...domains import DOMAINS
from ...metrics import HITS_BLOCK, READ, READS, Metrics
from ..base import Key
from ..fork_safety import renew_after_fork
from .block_collection import Basis, BlockCollection, Span, ranges
from .candle_archive import CandleArchive, moved_too_often
from .candle_documents import on_grid, series_fields, stored_series
from .client import committed
from .database import MongoDatabase
from .documents import Document
from .errors import reading, translates
from .packed_candles import SMALLEST, PackedCandles
from .second_thread import beside

__all__ = ["FAR", "SKEW", "MongoCandles", "consecutive", "uncovered"]

FAR = 2**53
"""Later times (ms) are not exact as doubles."""

RANGE = 4_000
"""Candles per query of a long window: one range is decoded while the server reads the next."""

SHARED = 8_000
"""A window of at least this many candles is read over two connections, so that two cores of the server work on it."""

PAGE = 20_000
"""Candles per query when a whole series is read."""

GROUP = 16
"""Blocks of the archive that are read at a time when a whole series is read."""

AHEAD, FARTHEST = 1_000, 32_768
"""How many candles to read ahead of a small window: at first, and at most. It doubles while the caller walks forward."""

SKEW = 600_000
"""By how many ms the clock of another process may be ahead: it may have archived a block that has not closed yet by this one's."""

KEPT = 60.0
"""Seconds for which a candle in memory is used: then it is read again, as another process may have replaced or removed it."""

# How often a read begins again because another process moved candles.
_ATTEMPTS = 100


class MongoCandles:
    """The candle domain of a Mongo store. A series is (exchangeName, symbol, interval)."""

    def __init__(self, config: Config, connection: MongoDatabase, metrics: Metrics) -> None:
        self._counters = metrics.domains["candle"]
        budget = config.CC_CANDLE_MEMORY_MB * 1024 * 1024
        self.blocks: CandleBlocks = CandleBlocks(budget, self._counters, (READS, HITS_BLOCK, READ), KEPT)
        renew_after_fork(self.blocks)
        self.connection: MongoDatabase = connection
        self._ahead: dict[Key, tuple[int, int]] = {}  # end of the last read (ms), and how many candles it read ahead
        self.seen: dict[Key, tuple[int, int]] = {}  # first and last open time (ms) of a window of documents without gaps
        self.packed: PackedCandles = PackedCandles(connection)
        self.archive: CandleArchive = CandleArchive(connection, in_use=config.CC_CANDLE_FORMAT == "packed")

    # --- reading ---

    def read(self, series: Key, since: int, limit: int) -> CandleArray | None:
        """Return ``limit`` candles from ``since`` (ms, on the grid), read-only; None if any of them is missing."""
        grid = grid_of(series[2])
        if not grid.is_plain:
            return self._read_unpacked(series, grid, since, limit)
        step = grid.longest
        head = self.blocks.head(series, limit, since)
        cached = 0 if head is None else len(head)
        if head is not None and cached == limit:  # the window spans several blocks
            self._counters.add(HITS_BLOCK)
            return head
        if limit >= SHARED and 8 * cached < limit:  # to join a few candles with many would hold the many twice
            head, cached = None, 0
        generation, asked = self.blocks.generation, time.monotonic_ns()
        start, missing = since + cached * step, limit - cached
        ahead = self._how_far(series, start, missing)
        now = time.time_ns() // 1_000_000  # before the query: a candle that closes meanwhile may still be open in the result
        span = Span(start, start + (missing + ahead) * step, step)
        rows = self._read_archived(series, span, missing, now) if self.archive.in_use else self._read_copied(series, span, missing, now)
        first = (start - int(rows["timestamp"][0])) // step if len(rows) else 0  # a packed block may begin before the window
        count = len(rows) - first
        # After an incomplete window, read nothing ahead next time; after the end of the stored candles, start small again.
        end = start + count * step
        self._ahead[series] = (end, 0 if count < missing else max(ahead, AHEAD // 2) if count >= missing + ahead else AHEAD // 2)
        rows.flags.writeable = False
        if count < missing:
            return None
        if int(rows["timestamp"][-1]) + step <= now:
            self.blocks.keep(series, step, rows, generation, asked)
        elif len(closed := closed_candles(rows, series[2], now)):
            self.blocks.keep(series, step, closed, generation, asked)
        window = rows[first : first + missing]
        if head is not None:
            window = np.concatenate([head, window])
            window.flags.writeable = False
        return window

    def _read_unpacked(self, series: Key, grid: Grid, since: int, limit: int) -> CandleArray | None:
        """Read a window of an interval whose candles are not packed: a block of them would span decades."""
        rows = np.concatenate([*self.documents(series, since, grid.after(since, limit))])
        if len(rows) < limit:
            return None
        rows.flags.writeable = False
        return rows

    def _read_copied(self, series: Key, span: Span, needed: int, now: int) -> CandleArray:
        """Read a span from copies of blocks, and the rest from documents; return the candles up to the first gap.

        The candles may begin before the span, and end after it: a block is decoded as a whole. What documents were read for is packed.
        """
        blocks = self.packed.unless_absent(series, span.blocks(now))
        if blocks or span.until - span.since < SMALLEST * span.step:
            rows, basis, rest = self._read_blocks(self.packed, series, blocks, span, needed)
            self.packed.note_absent(series, (number for number in blocks if number not in basis.runs))
            if not rest:
                return rows
        else:
            basis = self.packed.look_up(series, span.blocks(now))
            rows = self._read_documents(series, span, needed)
            rest = [(span.since, min(span.until, span.since + (len(rows) + 1) * span.step))]
        # Somebody may have moved some of these candles to the archive.
        touched = Span(rest[0][0], rest[-1][1], span.step).blocks(now + SKEW)
        if touched:
            archived = self.archive.look_up(series, touched)
            if archived.runs or archived.damaged or archived.left:
                return self._read_archived(series, span, needed, now)
        self.packed.pack(series, rows, basis, now)
        return rows

    def _read_archived(self, series: Key, span: Span, needed: int, now: int) -> CandleArray:
        """Read a span from the archive, and the rest from documents; return the candles up to the first gap, as ``_read_copied`` does.

        If somebody moves candles in between, begin again.
        """
        blocks = span.blocks(now + SKEW)
        length = span.step * BLOCK
        for _ in range(_ATTEMPTS):
            rows, basis, rest = self._read_blocks(self.archive, series, blocks, span, needed)
            if basis.damaged:
                edge = min(basis.damaged) * length
                if edge < span.since + needed * span.step:
                    self.archive.check(series, basis)
                return self._read_archived(series, span._replace(until=edge), needed, now)
            if not rest or not blocks:
                return rows
            # Later blocks do not matter after a gap.
            touched = range(max(blocks.start, rest[0][0] // length), min(blocks.stop, -(-rest[-1][1] // length)))
            again = self.archive.look_up(series, touched).versions
            if again == {number: version for number, version in basis.versions.items() if number in touched}:
                return rows
        raise moved_too_often(series)

    def _read_blocks(
        self, source: BlockCollection, series: Key, blocks: range, span: Span, needed: int
    ) -> tuple[CandleArray, Basis, list[tuple[int, int]]]:
        """Read a span from the blocks of a collection, and the rest from documents.

        Returns the candles up to the first gap, the state of the blocks, and the intervals (ms) that documents were read for, up to there.
        """
        step = span.step
        length = step * BLOCK
        low, high = (min(span.since, blocks.start * length), max(span.until, blocks.stop * length)) if blocks else span[:2]
        rows = np.empty((high - low) // step, CANDLE_DTYPE)
        basis = source.read(series, blocks, rows, low, step)
        if not basis.runs:
            rows = self._read_documents(series, span, needed)
            return rows, basis, [(span.since, min(span.until, span.since + (len(rows) + 1) * step))]
        covered = basis.covered(step)
        first = min((start for start, end in covered if start <= span.since <= end), default=span.since)
        last = max((end for start, end in covered if start <= span.until <= end), default=span.until)
        rest: list[tuple[int, int]] = []
        for start, end in uncovered(first, last, covered):
            part = rows[(start - low) // step : (end - low) // step]
            filled = self._fetch(series, start, part, max(0, needed - (start - span.since) // step))
            rest.append((start, min(end, start + (filled + 1) * step)))
            if start + filled * step < end:
                last = start + filled * step
                break
        usable = rows[(first - low) // step : (last - low) // step]
        return rows if len(usable) == len(rows) else usable, basis, rest

    def _read_documents(self, series: Key, span: Span, needed: int) -> CandleArray:
        """Read a span from the candle documents; return the candles up to the first gap."""
        rows = np.empty((span.until - span.since) // span.step, CANDLE_DTYPE)
        small = len(rows) > needed or needed < SHARED
        filled = self._fetch(series, span.since, rows, needed) if small else self._fetch_in_halves(series, span.since, rows)
        return rows if filled == len(rows) else rows[:filled].copy()

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
        for batch in self.connection.fetch(domain, queries):
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
        """Return the stored series, sorted. The archive is asked before and after, as candles move in both directions."""
        before = self.archive.series()
        return sorted({*before, *stored_series(self.connection, DOMAINS["candle"]), *self.archive.series()})

    def stored(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """Yield the stored candles of a series in [since, until) (ms) in batches, skipping gaps and documents off the grid.

        Each page is a separate query, so that no cursor stays open while the caller works.
        """
        low, high = -FAR if since is None else since, FAR if until is None else until
        if not grid_of(series[2]).is_plain:
            for page in self.documents(series, low, high):
                yield from _filled(page)
            return
        length = interval_ms(series[2]) * BLOCK
        while low < high:
            page, end = self._page(series, low, high)
            start = low
            # After the documents, which may have been moved there meanwhile.
            archived = [number for number in self.archive.numbers(series) if number * length < end and low < (number + 1) * length]
            states = [self.archive.look_up(series, group) for group in ranges(archived)]
            elsewhere = sorted({number for state in states for number in (*state.runs, *state.damaged, *state.left)})
            for group in ranges(elsewhere, GROUP):
                since, until = max(low, group.start * length), min(end, group.stop * length)
                yield from _filled(_within(page, start, since))
                rows, mask, _ = self.gather(series, group)
                yield from _filled(_within(rows[mask], since, until))
                start = until
            yield from _filled(_within(page, start, end))
            low = end

    def documents(self, series: Key, since: int, until: int, *, to_move: bool = False) -> Iterator[CandleArray]:
        """Yield the candle documents of [since, until) (ms) on the grid, in batches; see ``gather``."""
        while since < until:
            page, since = self._page(series, since, until, to_move=to_move)
            yield page

    def _page(self, series: Key, since: int, until: int, *, to_move: bool = False) -> tuple[CandleArray, int]:
        """Return the first candle documents of [since, until) (ms) on the grid, and the time up to which there are no others."""
        query: Document = {
            "filter": {**series_fields(series), "timestamp": {"$gte": since, "$lt": until}}, "sort": {"timestamp": 1}, "limit": PAGE,
        }  # fmt: skip
        domain = DOMAINS["candle"]
        if to_move:
            find: Any = partial(committed(self.connection.collection(domain)).find_raw_batches, query["filter"])
            batches: list[bytes] = self.connection.retried(domain, lambda: list(find(sort=[("timestamp", 1)], limit=PAGE)))
        else:
            batches = list(self.connection.fetch(domain, [query]))
        with reading(domain, " ".join(series)):
            documents = [row for batch in batches for row in core.split(batch)]
            candles, last = on_grid(documents, grid_of(series[2]))
        return candles, until if len(documents) < PAGE else max(math.floor(last), since) + 1

    def gather(self, series: Key, blocks: range, *, to_move: bool = False) -> tuple[CandleArray, npt.NDArray[np.bool_], Basis]:
        """Return all rows of some blocks, which of them are stored, in the archive or as documents, and the state of the archive.

        With ``to_move``, documents that an election may undo are left out.
        """
        step = interval_ms(series[2])
        low, high = blocks.start * BLOCK * step, blocks.stop * BLOCK * step
        for _ in range(_ATTEMPTS):
            rows = np.empty(len(blocks) * BLOCK, CANDLE_DTYPE)
            basis = self.archive.read(series, blocks, rows, low, step)
            self.archive.check(series, basis)
            mask = np.zeros(len(rows), np.bool_)
            for since, until in basis.covered(step):
                mask[(since - low) // step : (until - low) // step] = True
            for page in self.documents(series, low, high, to_move=to_move):
                positions = (page["timestamp"] - low) // step
                others = ~mask[positions]
                rows[positions[others]], mask[positions[others]] = page[others], True
            if self.archive.look_up(series, blocks).versions == basis.versions:
                return rows, mask, basis
        raise moved_too_often(series)

    def blocks_of(self, series: Key, since: int | None = None, until: int | None = None) -> list[int]:
        """Return the sorted numbers of the blocks with candles or packed candles of a series in [since, until) (ms)."""
        length = interval_ms(series[2]) * BLOCK
        low, high = -FAR if since is None else since, FAR if until is None else until
        found: set[int] = set()
        start = low
        while start < high:  # one query per block finds the next candle in the unique index
            stamp = {"$gte": start, "$lt": high, "$not": {"$type": "array"}}
            query: Document = {
                "filter": {**series_fields(series), "timestamp": stamp}, "sort": {"timestamp": 1}, "limit": 1,
                "projection": {"_id": False, "timestamp": True},
            }  # fmt: skip
            with reading(DOMAINS["candle"], " ".join(series)):
                stamps = numbers(list(self.connection.fetch(DOMAINS["candle"], [query])), "timestamp")
            if not stamps or not math.isfinite(stamps[0]):
                break
            number = math.floor(stamps[0] / length)
            found.add(number)
            start = max(start + 1, (number + 1) * length)
        # After the documents, which may be moved to the archive meanwhile; documents of blocks stay there.
        blocks = {*self.packed.numbers(series), *self.archive.numbers(series)}
        return sorted(found | {number for number in blocks if number * length < high and low < (number + 1) * length})

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
        self.seen.clear()
        self.packed.forget()


def uncovered(since: int, until: int, covered: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
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


def _within(candles: CandleArray, since: int, until: int) -> CandleArray:
    return candles[np.searchsorted(candles["timestamp"], since) : np.searchsorted(candles["timestamp"], until)]


def _filled(candles: CandleArray) -> Iterator[CandleArray]:
    """Yield the candles, read-only, if there are any."""
    if len(candles):
        candles.flags.writeable = False
        yield candles
