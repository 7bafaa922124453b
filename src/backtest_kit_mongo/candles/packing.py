"""Packed blocks: many candles as one document, with their values as bit-packed decimal integers.

A block is BLOCK consecutive positions of a series' grid: block ``n`` of an interval of ``step`` ms opens at ``n * BLOCK * step`` ms. It
need not have all of its candles: ``runs`` lists which positions it has. Every value comes back bit for bit; ``_core/packed.pyx``
describes the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import xxhash

from .._core import packed
from .columns import CANDLE_DTYPE, CandleArray

__all__ = ["BLOCK", "DamagedBlockError", "Run", "pack", "runs_of", "unpack"]

BLOCK: Final = 4096
"""Candles per block. Larger blocks are neither smaller nor faster per candle, and a short window would decode more that nobody needs."""

FORMAT: Final = 1
"""Version of the fields of a block."""

CODEC: Final = "decimal"
"""Name of the encoding of ``data``."""

_ROW: Final = CANDLE_DTYPE.itemsize

Series = tuple[Any, ...]


class Run(NamedTuple):
    """Consecutive candles of a block: their first position, 0 to BLOCK - 1, and how many they are."""

    first: int
    length: int


class DamagedBlockError(ValueError):
    """A packed block cannot be decoded, or does not match its checksum."""


def pack(series: Series, number: int, parts: Sequence[tuple[int, CandleArray]], step: int) -> dict[str, Any]:
    """Return the stored fields of block ``number`` with the candles of ``parts``, each given as (first position, consecutive candles).

    ``step`` is the length of a candle in ms. Raises ValueError for a value that is not finite, as another program may store.
    """
    opens = number * BLOCK * step
    if len(parts) == 1:
        ((first, rows),) = parts
    else:  # as if the candles were consecutive: the runs say where they are
        first, rows = parts[0][0], np.concatenate([rows for _, rows in parts])
        positions = np.concatenate([position + np.arange(len(part)) for position, part in parts])
        if not np.array_equal(rows["timestamp"], opens + positions * step):
            raise ValueError("candles are not where their block expects them")
        rows["timestamp"] = opens + (first + np.arange(len(rows))) * step
    data = packed.pack(np.ascontiguousarray(rows).view(np.int8), opens + first * step, step)
    runs = [[position, len(part)] for position, part in parts]
    return {"format": FORMAT, "codec": CODEC, "runs": runs, "checksum": _checksum(series, number, runs, data), "data": data}


def runs_of(fields: Mapping[str, Any]) -> tuple[Run, ...]:
    """Return the runs of a stored block, in order of time. Raises DamagedBlockError."""
    if (fields.get("format"), fields.get("codec")) != (FORMAT, CODEC):
        kind = f"format {fields.get('format')!r:.40} and codec {fields.get('codec')!r:.40}"
        raise DamagedBlockError(f"it has {kind}; this version reads format {FORMAT} and codec {CODEC!r}")
    stored: Any = fields.get("runs")
    try:
        runs = tuple(Run(first, length) for first, length in stored)
        ordered = all(before.first + before.length <= run.first for before, run in pairwise(runs))
        is_valid = ordered and all(type(run.first) is type(run.length) is int and run.length > 0 for run in runs)
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid or not runs or runs[0].first < 0 or runs[-1].first + runs[-1].length > BLOCK:
        raise DamagedBlockError(f"its runs are {stored!r:.80}")
    return runs


def unpack(
    series: Series, documents: Iterable[Mapping[str, Any]], step: int, target: CandleArray, since: int
) -> tuple[dict[int, tuple[Run, ...]], dict[int, str]]:
    """Write the candles of stored blocks into ``target``, whose first row opens at ``since`` (ms), as far as they belong there.

    Returns the runs of each block by number, and what is wrong with each damaged one, whose rows in ``target`` are undefined.
    """
    runs: dict[int, tuple[Run, ...]] = {}
    damaged: dict[int, str] = {}
    parts: list[tuple[bytes, int, int, int, int]] = []
    numbers: list[int] = []  # of the block of each part
    for fields in documents:
        number = fields["block"]
        try:
            data, runs[number] = _data(series, fields)
        except DamagedBlockError as error:
            damaged[number] = str(error)
            continue
        opens = number * BLOCK - since // step  # the row of the block's first position
        before = 0
        for first, length in runs[number]:
            start, end = max(opens + first, 0), min(opens + first + length, len(target))
            # Also a run outside of ``target``, so that it is checked.
            parts.append((data, before + max(0, start - opens - first), max(0, end - start), min(start, len(target)), since + start * step))
            numbers.append(number)
            before += length
    for number, problem in zip(numbers, packed.unpack(parts, target.view(np.int8), step), strict=True):
        if problem is not None:
            damaged[number] = problem
    return {number: block_runs for number, block_runs in runs.items() if number not in damaged}, damaged


def _data(series: Series, fields: Mapping[str, Any]) -> tuple[bytes, tuple[Run, ...]]:
    """Return the packed candles and the runs of a block, after all checks that do not unpack it."""
    runs, data = runs_of(fields), fields.get("data")
    if type(data) is not bytes:  # nor a Binary of another subtype
        raise DamagedBlockError("its data is missing")
    if fields.get("checksum") != _checksum(series, fields["block"], runs, data):
        raise DamagedBlockError("the checksum does not match")
    return data, runs


def _checksum(series: Series, number: int, runs: Sequence[Sequence[int]], data: bytes) -> int:
    """Return a signed 64-bit checksum (XXH3) of what identifies a block, and of its data."""
    identity = [FORMAT, CODEC, BLOCK, *map(str, series), number, *map(list, runs)]
    digest = xxhash.xxh3_64(msgspec.json.encode(identity))
    digest.update(data)
    return digest.intdigest() - 2**63
