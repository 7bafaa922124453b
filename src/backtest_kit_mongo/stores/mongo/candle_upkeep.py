"""Upkeep of packed candles: pack what others stored, compare blocks with the candle documents, and drop them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from ...candle_packing import BLOCK
from ...candles import CANDLE_DTYPE, interval_ms, matches
from ...domains import PACKED_CANDLES
from ..base import Key
from .candles import MongoCandles, consecutive
from .errors import translated_items
from .packed_candles import BlockGroup, ranges

__all__ = ["pack_series", "verify_series"]

GROUP = 16
"""Blocks that are worked on at a time: 65,536 candles, 3 MB."""


def pack_series(candles: MongoCandles, series: Key) -> Iterator[BlockGroup]:
    """Pack the closed blocks of a series, some at a time."""
    return translated_items(_pack_series(candles, series))


def verify_series(candles: MongoCandles, series: Key) -> Iterator[BlockGroup]:
    """Compare the packed blocks of a series with its candle documents, some at a time, and drop those that differ."""
    return translated_items(_verify_series(candles, series))


def _pack_series(candles: MongoCandles, series: Key) -> Iterator[BlockGroup]:
    step = interval_ms(series[2])
    candles.packed.forget_removals(series)
    numbers = candles.blocks_of(series)
    for group in ranges(numbers, GROUP):
        now = time.time_ns() // 1_000_000
        basis = candles.packed.look_up(series, group)
        stored = 0
        if any(sum(run.length for run in basis.runs.get(number, ())) < BLOCK for number in group):
            batches = list(candles.stored(series, group.start * BLOCK * step, group.stop * BLOCK * step))
            for part in consecutive(np.concatenate(batches), step) if batches else ():
                stored += candles.pack(series, part, basis, now)
        yield BlockGroup(stored, {}, len(group) * BLOCK, len(numbers) * BLOCK)


def _verify_series(candles: MongoCandles, series: Key) -> Iterator[BlockGroup]:
    step = interval_ms(series[2])
    numbers = candles.packed.numbers(series)
    for group in ranges(numbers, GROUP):
        rows = np.empty(len(group) * BLOCK, CANDLE_DTYPE)
        damaged: dict[int, str] = {}
        basis = candles.packed.read(series, group, rows, group.start * BLOCK * step, step, damaged)
        problems = {number: f"{problem}; dropped" for number, problem in damaged.items()}
        for number, runs in basis.runs.items():
            lost = changed = 0
            for run in runs:
                position = (number - group.start) * BLOCK + run.first
                packed = rows[position : position + run.length]
                opens = int(packed["timestamp"][0])
                present, equal = matches(packed, candles.stored(series, opens, opens + run.length * step))
                lost, changed = lost + int((~present).sum()), changed + int((present & ~equal).sum())
            if lost or changed:
                problem = f"{lost:,} of its candles are no longer stored, {changed:,} have other values"
                if candles.packed.drop(series, number, basis):
                    problems[number] = f"{problem}; dropped"
                elif candles.packed.look_up(series, range(number, number + 1)).versions.get(number) == basis.versions[number]:
                    problems[number] = f"{problem}; it could not be dropped (may this user write to {PACKED_CANDLES.collection}?)"
                # Else another process has removed its candles meanwhile, or has dropped it.
        if problems:
            candles.clear()
        yield BlockGroup(len(basis.runs), problems, len(group) * BLOCK, len(numbers) * BLOCK)
