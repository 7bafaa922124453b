"""Importing candles into the Candle contract, and finding the spans that were imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np

from ...candles import (
    GRIDS,
    PRICES,
    CandleArray,
    CandleInterval,
    Grid,
    OffGrid,
    as_columns,
    check_columns,
    check_off_grid,
    closed_candles,
    grid_of,
    impossible_candles,
)
from ...candles.packing import BLOCK
from ...candles.tables import is_table
from ...contracts.registry import Registry
from ...errors import InvalidValueError
from ..clock import check_ms, iso_time
from .candle_differences import CandleConflict, check_equal, find_differences
from .candle_series import candle_store
from .exchange import list_exchanges
from .gaps import Gap, find_gaps
from .stored_candles import Span, StoredCandles

__all__ = ["ImportReport", "check_source", "choose_window", "import_candles", "imported_spans"]

_CHUNK: Final = 5_000


class ImportReport(msgspec.Struct, frozen=True):
    """What ``import_candles`` or ``refresh_candles`` stored, or with ``dry_run`` would."""

    symbol: str
    """The symbol of the series."""
    interval: CandleInterval
    """Its interval."""
    exchange_name: str
    """Its exchange."""
    candles: int
    """How many candles there are in the window."""
    unclosed: int
    """How many candles at the end of the input were left out because they had not closed yet."""
    since_ms: int
    """The open time of the first candle, in ms."""
    until_ms: int
    """The end of the window in ms, which is not part of it."""
    gaps: tuple[Gap, ...]
    """The gaps in the window."""
    off_grid: int = 0
    """How many candles did not open on the grid, and were left out or moved back to it."""
    new: int = 0
    """How many candles were not stored before."""
    replaced: int = 0
    """How many candles were stored with other values."""
    conflicts: tuple[CandleConflict, ...] = ()
    """The first few of those, with the values before and after."""


def _chunk_ends(candles: CandleArray, grid: Grid) -> Iterator[int]:
    """Yield where to split candles into chunks of at least _CHUNK: between two packed blocks, so that each is stored in one write."""
    edges = np.flatnonzero(np.diff(grid.positions(candles["timestamp"]) // BLOCK)) + 1
    end = 0
    while end < len(candles):
        after = np.searchsorted(edges, end + _CHUNK)
        end = int(edges[after]) if after < len(edges) else len(candles)
        yield end


def import_candles(
    candles: CandleArray | Iterable[Any],
    symbol: str,
    interval: CandleInterval = "1m",
    exchange_name: str = "binance",
    progress: Callable[[int, int], None] | None = None,
    *,
    off_grid: OffGrid = "refuse",
    replace: bool = False,
    dry_run: bool = False,
    registry: Registry | None = None,
) -> ImportReport:
    """Store candles in the Candle contract, and note which spans are stored.

    A stored candle never changes by itself: if one is stored with other values, this raises CandleConflictError before anything is
    written; an equal one is left alone. Unclosed candles are left out. Gaps are allowed and listed in the report. The spans are noted in
    the Measure contract, so that a later run, in this or another process, finds its window.

    With ``replace``, stored candles that differ are replaced, and nothing else of the series is touched. A reader finds the old or the
    new values of each; if the process dies in between, repeat the call. This process sees the new values at once. Other processes may
    use what they have in memory for another minute, and a run that has begun may use what it has read until it ends. Answers of
    Measure.cached that were computed from the old values stay.

    Args:
        candles: candles in order of time: a DataFrame (pandas, polars), an Arrow table, an array (n,) of CANDLE_DTYPE, dicts or
            dataclasses
        symbol: the symbol of the series
        interval: the length of the candles
        exchange_name: the exchange of the series
        progress: called with (candles written, all candles)
        off_grid: what to do with candles that do not open on the grid of ``interval``: "refuse" all, "skip" (leave out) or "snap" (move
            back to the grid)
        replace: True to replace stored candles that differ
        dry_run: True to write nothing; the report says what would be written
        registry: the registry whose Candle contract to use; None is the default one

    Returns:
        what was stored

    Raises:
        InvalidTypeError: a candle or an argument has the wrong type
        InvalidValueError: a candle or an argument is not valid, or with ``replace`` a class of yours serves the Candle contract
        CandleConflictError: a candle is stored with other values
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import import_candles, synthetic_market
        >>> report = import_candles(synthetic_market(7, 60, 1704067200000), "BTCUSDT", exchange_name="made-up")
        >>> report.new, report.gaps
        (60, ())
    """
    grid = grid_of(interval)
    check_off_grid(off_grid)
    columns, moved = _onto_grid(as_columns(candles, interval, symbol), interval, off_grid)
    check_columns(columns, interval)
    impossible = impossible_candles(columns)
    if impossible.size and is_table(candles):  # the rows that a program makes itself are stored as they are
        candle = columns[impossible[0]]
        raise InvalidValueError(
            f"candle {int(impossible[0])} ({iso_time(int(candle['timestamp']))}) cannot be: "
            + ", ".join(f"{name} {candle[name]:g}" for name in PRICES)
        )
    order = np.flatnonzero(np.diff(columns["timestamp"]) <= 0)
    if order.size:
        stamp = int(columns["timestamp"][order[0] + 1])
        raise InvalidValueError(f"candle {int(order[0]) + 1} ({iso_time(stamp)}) is not later than the one before it")
    closed = closed_candles(columns, interval)
    if not len(closed):
        raise InvalidValueError(f"there is no closed candle to import for {symbol} {interval}")
    stored = StoredCandles(symbol, interval, exchange_name, registry)
    if replace:
        candle_store(registry)
    differences = find_differences(stored, closed)
    if not replace:
        check_equal(stored, closed, differences)
    replaced, done = int(differences.different.sum()) if dry_run else 0, 0
    for end in () if dry_run else _chunk_ends(closed, grid):
        chunk, unchanged = closed[done:end], differences.stored[done:end] & ~differences.different[done:end]
        stored.write(chunk)
        if replace and not unchanged.all():  # look again: another process may have been first with other values
            replaced += stored.replace(chunk[find_differences(stored, chunk).different])
        done = end
        if progress is not None:
            progress(done, len(closed))
    since, until = int(closed["timestamp"][0]), grid.after(int(closed["timestamp"][-1]))
    gaps = find_gaps(closed, interval)
    edges = [since, *(edge for gap in gaps for edge in (gap.since_ms, gap.until_ms)), until]
    if not dry_run:
        stored.note(zip(edges[::2], edges[1::2], strict=True))
    return ImportReport(
        symbol=symbol,
        interval=interval,
        exchange_name=exchange_name,
        candles=len(closed),
        unclosed=len(columns) - len(closed),
        off_grid=moved,
        new=int(len(closed) - differences.stored.sum()),
        replaced=replaced,
        conflicts=differences.conflicts,
        since_ms=since,
        until_ms=until,
        gaps=gaps,
    )


def _onto_grid(columns: CandleArray, interval: str, off_grid: OffGrid) -> tuple[CandleArray, int]:
    """Return the candles on the grid, and how many were left out or moved back to it. Raises InvalidValueError to refuse them."""
    past = grid_of(interval).past(columns["timestamp"])
    count = int(np.count_nonzero(past))
    if not count:
        return columns, 0
    if off_grid == "refuse":
        first = int(np.flatnonzero(past)[0])
        raise InvalidValueError(
            f"candle {first} ({iso_time(int(columns['timestamp'][first]))}) is off the {interval} grid"
            + (f", as are {count - 1:,} more" if count > 1 else ""),
            hint='off_grid="skip" leaves such candles out, off_grid="snap" moves them back to the grid',
        )
    if off_grid == "skip":
        return columns[past == 0], count
    columns = columns.copy()
    columns["timestamp"] -= past
    return columns, count


def imported_spans(
    symbol: str, interval: CandleInterval = "1m", exchange_name: str = "binance", *, registry: Registry | None = None
) -> tuple[Span, ...]:
    """Return the spans without a gap that were imported or fetched, in order of time.

    Args:
        symbol: the symbol of the series
        interval: the length of the candles
        exchange_name: the exchange of the series
        registry: the registry whose contracts to use; None is the default one

    Returns:
        pairs (since_ms, until_ms) in ms, without ``until_ms``; empty if there are none

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: there is no such interval

    Examples:
        >>> from backtest_kit_mongo.runner import import_candles, imported_spans, synthetic_market
        >>> report = import_candles(synthetic_market(7, 60, 1704067200000), "BTCUSDT")
        >>> imported_spans("BTCUSDT")
        ((1704067200000, 1704070800000),)
    """
    return tuple(StoredCandles(symbol, interval, exchange_name, registry).spans())


def check_source(symbol: str, exchange_name: str, end_ms: int, *, registry: Registry | None = None) -> None:
    """Raise CandleConflictError if ``exchange_name`` reads files that differ from the stored candles of ``symbol`` before ``end_ms``."""
    exchange = next((candidate for candidate in list_exchanges() if candidate.name == exchange_name), None)
    if exchange is None or exchange.all_candles is None:
        return
    for interval in GRIDS:
        candles = exchange.all_candles(symbol, interval)
        if candles is not None and (count := int(np.searchsorted(candles["timestamp"], end_ms))):
            check_equal(StoredCandles(symbol, interval, exchange_name, registry), candles[:count])


def choose_window(
    symbol: str,
    exchange_name: str,
    start_ms: int | None,
    end_ms: int | None,
    *,
    across_holes: bool = False,
    registry: Registry | None = None,
) -> tuple[int, int, bool]:
    """Return the window ``[start, end)`` of a run (ms), and whether it is known to have no gap.

    A bound that is None comes from the imported spans: from the one that holds the other bound, or ``across_holes`` from all of them.
    Raises InvalidValueError if they do not determine it: nothing was imported, or both bounds are None and the spans have a gap, or the
    given bound is outside of them. An empty window is an error as well.
    """
    start_ms = None if start_ms is None else check_ms("start_ms", start_ms)
    end_ms = None if end_ms is None else check_ms("end_ms", end_ms)
    series = f"{symbol} 1m on {exchange_name}"
    candidates = spans = imported_spans(symbol, "1m", exchange_name, registry=registry)
    if start_ms is None or end_ms is None:
        if not spans:
            raise InvalidValueError(
                f"no candles of {series} have been imported, so the run's window is unknown",
                hint="import candles first (import_candles, or the command candles import), or pass start_ms and end_ms",
            )
        if across_holes:
            candidates = ((spans[0][0], spans[-1][1]),)
        known_ms = start_ms if start_ms is not None else end_ms if end_ms is None else end_ms - 1
        if known_ms is None and len(candidates) > 1:
            gaps = ", ".join(f"{iso_time(before[1])} to {iso_time(after[0])}" for before, after in pairwise(spans))
            raise InvalidValueError(
                f"the imported candles of {series} have gaps ({gaps}), and a run cannot skip one",
                hint=f"choose start_ms and end_ms inside one of: {_listed(spans)}; or let the run go on across them with flat candles: "
                'holes="fill" (--holes fill)',
            )
        span = candidates[0] if known_ms is None else next((span for span in candidates if span[0] <= known_ms < span[1]), None)
        if span is None:
            raise InvalidValueError(f"the run's window is outside the imported candles of {series}", hint=f"imported: {_listed(spans)}")
        start_ms = span[0] if start_ms is None else start_ms
        end_ms = span[1] if end_ms is None else end_ms
    if end_ms <= start_ms:
        raise InvalidValueError(f"the run's window is empty: it starts {iso_time(start_ms)} and ends {iso_time(end_ms)}")
    return start_ms, end_ms, any(since <= start_ms and end_ms <= until for since, until in spans)


def _listed(spans: Iterable[Span]) -> str:
    return ", ".join(f"{iso_time(since)} to {iso_time(until)}" for since, until in spans)
