"""Upkeep of packed candles: pack what others stored, move the archive to documents, and compare blocks with the candle documents."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ...candles import CANDLE_DTYPE, grid_of, interval_ms, matches
from ...candles.packing import BLOCK
from ...domains import DOMAINS, PACKED_CANDLES
from ..base import Key
from .block_collection import BlockGroup, ranges
from .candle_archive import SMALLEST_ARCHIVED
from .candle_documents import series_fields
from .candle_moves import archive_block, unarchive_block
from .candles import MongoCandles, consecutive
from .errors import translated_items

__all__ = ["pack_series", "unpack_series", "verify_series"]

GROUP = 16
"""Blocks that are worked on at a time: 65,536 candles, 3 MB."""


def pack_series(candles: MongoCandles, series: Key, *, dry_run: bool = False) -> Iterator[BlockGroup]:
    """Pack the closed blocks of a series, some at a time: copy them, or with ``CC_CANDLE_FORMAT=packed`` move them to the archive."""
    if not grid_of(series[2]).is_plain:  # its candles are never packed
        return iter(())
    return translated_items((_archive_series if candles.archive.in_use else _copy_series)(candles, series, dry_run))


def unpack_series(candles: MongoCandles, series: Key, *, dry_run: bool = False) -> Iterator[BlockGroup]:
    """Move the candles of a series from the archive to documents, some blocks at a time."""
    return translated_items(_unpack_series(candles, series, dry_run))


def verify_series(candles: MongoCandles, series: Key, *, dry_run: bool = False) -> Iterator[BlockGroup]:
    """Compare the packed blocks of a series with its candle documents, some at a time, and drop copies that differ."""
    return translated_items(_verify_series(candles, series, dry_run))


def _copy_series(candles: MongoCandles, series: Key, dry_run: bool) -> Iterator[BlockGroup]:
    step = interval_ms(series[2])
    numbers = candles.blocks_of(series)
    if not dry_run:
        candles.packed.forget_removals(series, numbers)
    for group in ranges(numbers, GROUP):
        now = time.time_ns() // 1_000_000
        basis = candles.packed.look_up(series, group)
        stored = 0
        if any(basis.candles(number) < BLOCK for number in group):
            rows = np.concatenate([*candles.documents(series, group.start * BLOCK * step, group.stop * BLOCK * step)])
            archived = candles.archive.look_up(series, group)  # after the documents, which may be moved there meanwhile
            # What is in the archive is read from there as fast as from a copy.
            elsewhere = [*archived.runs, *archived.damaged, *archived.left]
            for part in consecutive(rows[~np.isin(rows["timestamp"] // (BLOCK * step), elsewhere)], step):
                stored += candles.packed.pack(series, part, basis, now, dry_run=dry_run)
        yield BlockGroup(stored, {}, len(group) * BLOCK, len(numbers) * BLOCK)


def _archive_series(candles: MongoCandles, series: Key, dry_run: bool) -> Iterator[BlockGroup]:
    step = interval_ms(series[2])
    length = step * BLOCK
    numbers = candles.blocks_of(series)
    if not dry_run:
        candles.archive.forget_removals(series, numbers)
    for group in ranges(numbers, GROUP):
        candles.archive.check(series, candles.archive.look_up(series, group))
        moved = 0
        for number in group:
            if (number + 1) * length > time.time_ns() // 1_000_000:
                continue
            window = {"$gte": number * length, "$lt": (number + 1) * length}
            if candles.connection.count(DOMAINS["candle"], {**series_fields(series), "timestamp": window}):
                moved += archive_block(candles, series, number, SMALLEST_ARCHIVED, dry_run=dry_run)
        yield BlockGroup(moved, {}, len(group) * BLOCK, len(numbers) * BLOCK)


def _unpack_series(candles: MongoCandles, series: Key, dry_run: bool) -> Iterator[BlockGroup]:
    numbers = candles.archive.numbers(series)
    if not dry_run:
        candles.archive.forget_removals(series, numbers)
    for group in ranges(numbers, GROUP):
        if dry_run:
            moved = len(candles.archive.look_up(series, group).runs)
        else:
            moved = sum(unarchive_block(candles, series, number) for number in group)
        yield BlockGroup(moved, {}, len(group) * BLOCK, len(numbers) * BLOCK)


def _verify_series(candles: MongoCandles, series: Key, dry_run: bool) -> Iterator[BlockGroup]:
    numbers, archived = candles.packed.numbers(series), candles.archive.numbers(series)
    total = (len(numbers) + len(archived)) * BLOCK
    for group in ranges(archived, GROUP):
        yield _verify_archived(candles, series, group)._replace(total=total)
    for group in ranges(numbers, GROUP):
        yield _verify_copies(candles, series, group, dry_run)._replace(total=total)


def _verify_copies(candles: MongoCandles, series: Key, group: range, dry_run: bool) -> BlockGroup:
    """Compare copies with the stored candles, and drop those that differ."""
    step = interval_ms(series[2])
    rows = np.empty(len(group) * BLOCK, CANDLE_DTYPE)
    basis = candles.packed.read(series, group, rows, group.start * BLOCK * step, step)
    problems = {number: f"{problem}; dropped" for number, problem in basis.damaged.items()}
    for number, runs in basis.runs.items():
        lost = changed = 0
        for run in runs:
            position = (number - group.start) * BLOCK + run.first
            packed = rows[position : position + run.length]
            opens = int(packed["timestamp"][0])
            present, equal = matches(packed, candles.stored(series, opens, opens + run.length * step))
            lost, changed = lost + int((~present).sum()), changed + int((present & ~equal).sum())
        if not lost and not changed:
            continue
        problem = f"{lost:,} of its candles are no longer stored, {changed:,} have other values"
        if dry_run:
            problems[number] = problem
        elif candles.packed.drop(series, number, basis):
            problems[number] = f"{problem}; dropped"
        elif candles.packed.look_up(series, range(number, number + 1)).versions.get(number) == basis.versions[number]:
            problems[number] = f"{problem}; it could not be dropped (may this user write to {PACKED_CANDLES.collection}?)"
        # Else another process has removed its candles meanwhile, or has dropped it.
    if problems:
        candles.clear()
    return BlockGroup(len(basis.runs), problems, len(group) * BLOCK, 0)


def _verify_archived(candles: MongoCandles, series: Key, group: range) -> BlockGroup:
    """Decode blocks of the archive, and find documents of the same times that have other values: nobody reads those."""
    step = interval_ms(series[2])
    low = group.start * BLOCK * step
    rows = np.empty(len(group) * BLOCK, CANDLE_DTYPE)
    basis = candles.archive.read(series, group, rows, low, step)
    problems = {
        number: f"archived, but damaged: {problem}; its candles are stored nowhere else" for number, problem in basis.damaged.items()
    }
    for number, runs in basis.runs.items():
        differing = 0
        for run in runs:
            start = (number - group.start) * BLOCK + run.first
            archived = rows[start : start + run.length]
            beside = candles.documents(series, int(archived["timestamp"][0]), int(archived["timestamp"][-1]) + step)
            stored, equal = matches(archived, beside)
            differing += int((stored & ~equal).sum())
        if differing:
            documents = f"{differing:,} document{'s' * (differing != 1)} of its times have other values, which nobody reads"
            problems[number] = f"{documents}; `candles pack` with CC_CANDLE_FORMAT=packed deletes them"
    return BlockGroup(len(basis.runs), problems, len(group) * BLOCK, 0)
