"""Closed candles of a run: read in blocks through the Candle contract, held in memory, never from the future."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from ...arguments import text, whole_number
from ...candles import CandleArray, Grid, align, grid_of, to_dicts
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...errors import InvalidValueError, LookAheadError
from ...simulation import milliseconds, outside_runs
from ..clock import MINUTE_MS, OutsideRunError, current_time_ms, iso_time
from ..current_run import current_run, run_scope
from .average_price import VWAP_CANDLES, vwap
from .holes import FilledHoles

__all__ = ["BLOCK", "Candle", "CandleHistory", "Fill", "get_average_price", "get_candles", "get_raw_candles"]

Candle = dict[str, Any]
Load = Callable[[int, int], list[Candle] | None]
LoadStretch = Callable[[int, int], CandleArray | None]
Fill = Callable[[str, str, int, int], object]
"""A function that fetches and stores the missing candles of (symbol, interval) in ``[since_ms, until_ms)``."""

BLOCK: Final = 1_000
"""Candles per read."""

STRETCH: Final = 32_000
"""Candles per read while a run moves forward: one long read takes half the time of many short ones."""


def get_candles(symbol: str, interval: str, limit: int) -> list[Candle]:
    """Return the last ``limit`` candles of ``interval`` that have closed by the simulation time, oldest first.

    Each candle is a dict of ``timestamp`` (open time, ms), ``open``, ``high``, ``low``, ``close`` (prices) and ``volume`` (base
    asset). You own the list and the dicts. The last candle closes at or before the simulation time, whatever is stored.

    The list is always contiguous up to now. It is shorter than ``limit``, or even empty, if the stored history begins (or has its
    last gap) fewer than ``limit`` candles ago. Raises InvalidValueError if the newest closed candle is not stored, because then
    nothing was imported for this symbol or time. An interval that is not stored is aggregated from 1m candles, on the same grid
    (UTC: weeks from Monday, months of the calendar, others counted from 1970) and only if all of them are stored.
    """
    history, now = _here("get_candles", symbol)
    return [dict(candle) for candle in history.closed(symbol, interval, _check_limit("get_candles", limit), now)]


def get_average_price(symbol: str) -> float:
    """Return the price of ``symbol`` at the simulation time, at which a signal without ``priceOpen`` opens.

    It is the volume-weighted mean of the typical prices of the last five closed 1m candles, like ``getAveragePrice`` of backtest-kit.
    A target and a stop on the right sides of it are valid. Raises InvalidValueError if fewer than five candles are stored.
    """
    history, now = _here("get_average_price", symbol)
    candles = history.closed(symbol, "1m", VWAP_CANDLES, now)
    if len(candles) < VWAP_CANDLES:
        raise InvalidValueError(
            f"get_average_price({symbol!r}) needs {VWAP_CANDLES} closed 1m candles, but only {len(candles)} are stored at {iso_time(now)}"
        )
    return vwap(candles)


def get_raw_candles(
    symbol: str,
    interval: str,
    limit: int | None = None,
    start: datetime | int | None = None,
    end: datetime | int | None = None,
) -> list[Candle]:
    """Return the candles of a window that you choose, oldest first, in the form of ``get_candles``.

    ``start`` and ``end`` are aware datetimes or ms, rounded down to the grid of ``interval``. The window holds the candles that open
    in ``[start, end)``. There are five forms: ``limit`` (the last candles up to now), ``start`` and ``end``, ``end`` and ``limit``
    (the last ones before ``end``), ``start`` and ``limit`` (the first ones from ``start`` on), and all three (the same, if the window
    ends by ``end``).

    Raises LookAheadError if the window ends after the simulation time or, with all three arguments, after ``end``. Unlike
    ``get_candles``, this returns the whole window or raises InvalidValueError if a candle of it is not stored.
    """
    history, now = _here("get_raw_candles", symbol)
    grid = grid_of(interval)
    window = {"limit": limit, "start": start, "end": end}
    call = ", ".join([repr(symbol), repr(interval), *(f"{name}={value}" for name, value in window.items() if value is not None)])
    count = None if limit is None else _check_limit("get_raw_candles", limit)
    first, last = (None if value is None else milliseconds(name, value) for name, value in (("start", start), ("end", end)))
    if count is None and (first is None or last is None):
        raise InvalidValueError(
            f"get_raw_candles({call}) defines no window", hint="pass limit, start and end, end and limit, start and limit, or all three"
        )
    allowed = now if last is None else last
    since, until = None if first is None else grid.align(first), grid.align(allowed)
    if first is not None and last is not None and first >= last:
        raise InvalidValueError(f"get_raw_candles({call}): start must be before end")
    if count is not None:
        if since is None:
            since = grid.after(until, -count)
        else:
            until, allowed = grid.after(since, count), grid.align(allowed)
    assert since is not None
    if max(until, 0 if last is None else last) > now or until > allowed:
        raise LookAheadError(
            f"{_caller()} asked for the future: get_raw_candles({call}) ends at {iso_time(max(until, last or 0))}; "
            f"the simulation time is {iso_time(now)}" + ("" if until <= allowed or last is None else f", and end is {iso_time(last)}")
        )
    return [dict(candle) for candle in history.window(symbol, interval, since, until)]


def _here(caller: str, symbol: object) -> tuple[CandleHistory, int]:
    now = current_time_ms(caller)
    scope = run_scope()
    history = None if scope is None else scope.history
    if history is None:
        raise OutsideRunError(f"{caller} was called outside a run, so there is no exchange to read candles from")
    text(f"{caller}: symbol", symbol)
    return history, now


def _check_limit(caller: str, limit: object) -> int:
    return whole_number(f"{caller}: limit", limit, least=1)


def _caller() -> str:
    run = current_run()
    return "the caller" if run is None else f"strategy {run.strategy_name!r} on {run.symbol}"


class CandleHistory:
    """All series that one run reads, of one exchange. ``end_ms`` is the end of the run (ms); nothing is read ahead beyond it.

    A live run passes ``fill``, which is called for candles that are not stored. A backtest that is to go on across holes passes
    ``filled``, which returns flat candles for them.
    """

    def __init__(
        self,
        exchange_name: str,
        end_ms: int,
        registry: Registry | None = None,
        fill: Fill | None = None,
        filled: FilledHoles | None = None,
    ) -> None:
        self._candles: Any = (default_registry if registry is None else registry).adapter("candle")
        self._fill = fill
        self._filled = filled
        self._exchange_name = exchange_name
        self._end_ms = end_ms
        self._stored: dict[tuple[str, str], _Series] = {}
        self._chosen: dict[tuple[str, str], _Series] = {}

    def beside(self) -> CandleHistory:
        """Return the history of another run on the same clock: it shares what was read, but not which intervals are aggregated."""
        other = copy.copy(self)
        other._chosen = {}
        return other

    def minutes(self, symbol: str, since_ms: int, until_ms: int) -> list[Candle]:
        """Return the 1m candles of ``[since_ms, until_ms)``, or only those after the last gap in it. Do not modify them."""
        return self._of_store(symbol, "1m").window(since_ms, until_ms)

    def unbroken(self, symbol: str, since_ms: int, until_ms: int, *, before: int = 0) -> list[Candle]:
        """Return all 1m candles of ``[since_ms, until_ms)``, preceded by up to ``before`` older ones.

        Raises InvalidValueError, which names the first missing candle, if there is a gap.
        """
        candles = self.minutes(symbol, since_ms - before * MINUTE_MS, until_ms)
        if len(candles) < (until_ms - since_ms) // MINUTE_MS:
            missing = self.first_missing(symbol, since_ms, until_ms)
            raise InvalidValueError(
                f"the 1m candle of {symbol} on {self._exchange_name} at {iso_time(missing)} is not stored, and a run cannot skip a gap",
                hint="import candles for the whole window, choose start_ms and end_ms on one side of the gap, or replay flat candles "
                'at the last close: holes="fill" (--holes fill)',
            )
        return candles

    def across_holes(self, symbol: str, since_ms: int, until_ms: int) -> list[Candle]:
        """Return the stored 1m candles of ``[since_ms, until_ms)``: on many exchanges a minute without a trade has no candle."""
        collected: list[Candle] = []
        while until_ms > since_ms:
            candles = self.minutes(symbol, since_ms, until_ms)
            collected[:0] = candles
            until_ms = candles[0]["timestamp"] if candles else until_ms - MINUTE_MS
        return collected

    def check_unbroken(self, symbol: str, since_ms: int, until_ms: int) -> None:
        """Read all 1m candles of ``[since_ms, until_ms)`` once, so that a gap is detected before anything is written."""
        for since in range(since_ms, until_ms, BLOCK * MINUTE_MS):
            self.unbroken(symbol, since, min(since + BLOCK * MINUTE_MS, until_ms))

    def first_missing(self, symbol: str, since_ms: int, until_ms: int) -> int:
        """Return the open time (ms) of the first 1m candle of ``[since_ms, until_ms)`` that is not stored; at least one must be missing."""
        load = self._load(symbol, "1m")
        stored, count = 0, (until_ms - since_ms) // MINUTE_MS
        while count - stored > 1:  # "the first n candles are all stored" is monotone in n, so bisect
            middle = (stored + count) // 2
            if load(since_ms, middle) is None:
                count = middle
            else:
                stored = middle
        return since_ms + stored * MINUTE_MS

    def closed(self, symbol: str, interval: str, limit: int, now_ms: int) -> list[Candle]:
        """Return at most ``limit`` candles of ``interval`` that have closed by ``now_ms``, as ``get_candles`` specifies."""
        grid = grid_of(interval)
        until = grid.align(now_ms)
        candles = self._choose(symbol, interval, until).window(grid.after(until, -limit), until)
        if not candles:
            newest = align(now_ms, MINUTE_MS)
            # An aggregated interval may be empty while the minutes of its first candle are still incomplete.
            if interval == "1m" or not self.minutes(symbol, newest - MINUTE_MS, newest):
                raise InvalidValueError(
                    f"the {interval} candle of {symbol} on {self._exchange_name} that closes at {iso_time(until)} is not stored",
                    hint="import the candles of this symbol first, for the whole window of the run",
                )
        return candles

    def window(self, symbol: str, interval: str, since_ms: int, until_ms: int) -> list[Candle]:
        """Return all candles of ``[since_ms, until_ms)``, a past window on the grid. Raises InvalidValueError if one is missing."""
        grid = grid_of(interval)
        candles = self._choose(symbol, interval, until_ms).window(since_ms, until_ms)
        if len(candles) < grid.count(since_ms, until_ms):
            missing = grid.after(until_ms, -len(candles) - 1)
            raise InvalidValueError(
                f"the {interval} candle of {symbol} on {self._exchange_name} at {iso_time(missing)} is not stored",
                hint="import the candles of this symbol first, for the whole requested window",
            )
        return candles

    def _choose(self, symbol: str, interval: str, until_ms: int) -> _Series:
        """Return the series of an interval: the stored one if its newest candle is stored at the first call, else an aggregated one."""
        if interval == "1m":
            return self._of_store(symbol, interval)
        chosen = self._chosen.get((symbol, interval))
        if chosen is not None:
            return chosen
        grid = grid_of(interval)
        newest = grid.after(until_ms, -1)
        stored = self._of_store(symbol, interval)
        if stored.window(newest, until_ms):
            self._chosen[symbol, interval] = stored
            return stored
        # Aggregation never reads ahead of the request: it reads minutes that the run keeps in memory anyway.
        aggregated = _Series(_aggregate(self._of_store(symbol, "1m"), grid), grid, None)
        if aggregated.window(newest, until_ms):
            self._chosen[symbol, interval] = aggregated
        return aggregated

    def _of_store(self, symbol: str, interval: str) -> _Series:
        series = self._stored.get((symbol, interval))
        if series is None:
            stretch = self._load_stretch(symbol, interval) if self._candles.gives_arrays else None
            series = _Series(self._load(symbol, interval), grid_of(interval), self._end_ms, stretch)
            self._stored[symbol, interval] = series
        return series

    def _load_stretch(self, symbol: str, interval: str) -> LoadStretch:
        exchange_name = self._exchange_name

        def load(since: int, count: int) -> CandleArray | None:
            with outside_runs():
                candles: CandleArray | None = self._candles.read_candles_array(symbol, interval, exchange_name, count, since)
            return candles

        return load

    def _load(self, symbol: str, interval: str) -> Load:
        grid = grid_of(interval)
        exchange_name = self._exchange_name

        def read(since: int, count: int) -> list[Candle] | None:
            with outside_runs():  # blocks reach past the simulation time; this class decides what a strategy sees of them
                candles: list[Candle] | None = self._candles.read_candles_data(
                    symbol, interval, exchange_name, count, since, grid.after(since, count)
                )
            return candles

        def load(since: int, count: int) -> list[Candle] | None:
            candles = read(since, count)
            if candles is None and self._fill is not None:
                self._fill(symbol, interval, since, grid.after(since, count))
                candles = read(since, count)
            if candles is None and self._filled is not None:
                candles = self._filled.window(symbol, interval, since, count)
            return candles

        return load


def _aggregate(minutes: _Series, grid: Grid) -> Load:
    """Return a loader of the candles of a grid, each merged from all of its 1m candles."""

    def load(since: int, count: int) -> list[Candle] | None:
        edges = [(edge - since) // MINUTE_MS for edge in grid.window(since, count + 1)]
        parts = minutes.window(since, since + edges[-1] * MINUTE_MS)
        if len(parts) != edges[-1]:
            return None
        return [_merge(parts[first:last]) for first, last in pairwise(edges)]

    return load


def _merge(parts: list[Candle]) -> Candle:
    return {
        "timestamp": parts[0]["timestamp"],
        "open": parts[0]["open"],
        "high": max(part["high"] for part in parts),
        "low": min(part["low"] for part in parts),
        "close": parts[-1]["close"],
        "volume": sum(part["volume"] for part in parts),
    }


class _Series:
    """A contiguous stretch of one series, which grows in blocks in both directions on demand.

    It holds the positions ``[lo, hi)`` of the grid. ``load(since, count)`` returns all ``count`` candles or None, as the Candle contract
    does. ``ahead`` is the time (ms) up to which the series may be read in advance; None: never read ahead. ``load_stretch`` is for reading
    far ahead.
    """

    def __init__(self, load: Load, grid: Grid, ahead: int | None, load_stretch: LoadStretch | None = None) -> None:
        self._load = load
        self._load_stretch = load_stretch
        self._stretch: CandleArray | None = None
        self._stretch_from = 0
        self._grid = grid
        self._ahead = None if ahead is None else grid.position(ahead)
        self._rows: list[Candle] = []
        self._lo = self._hi = 0
        self._begins = False  # no candle is stored right before lo
        self._keep = 0  # the longest window requested so far, in candles

    def window(self, since_ms: int, until_ms: int) -> list[Candle]:
        """Return the candles of ``[since_ms, until_ms)``, or only those after the last gap in it."""
        since, until = max(self._grid.position(since_ms), 0), self._grid.position(until_ms)
        self._keep = max(self._keep, until - since)
        if until < self._lo or not self._rows or (until > self._hi and not self._grow_to(until)):
            self._rows, self._lo, self._hi, self._begins = [], until, until, False
        while since < self._lo and not self._begins:
            self._grow_back(since)
        return self._rows[max(since, self._lo) - self._lo : until - self._lo]

    def _grow_to(self, until: int) -> bool:
        """Load up to ``until``, and further if reading ahead is allowed. Return False if a candle before ``until`` is missing."""
        while self._hi < until:
            needed = min(until - self._hi, BLOCK)
            count = needed if self._ahead is None else max(needed, min(self._ahead - self._hi, BLOCK))
            since = self._grid.opens(self._hi)
            rows = self._from_stretch(count) or self._load(since, count)
            if rows is None and count > needed:
                # The stored candles end (or have a gap) before the run ends: from here on read only what is needed.
                self._ahead = None
                rows = self._load(since, needed)
            if rows is None:
                return False
            self._rows.extend(rows)
            self._hi += len(rows)
        spare = len(self._rows) - self._keep
        if spare > 2 * BLOCK:
            del self._rows[: spare - BLOCK]
            self._lo = self._hi - len(self._rows)
            self._begins = False
        return True

    def _from_stretch(self, needed: int) -> list[Candle] | None:
        """Return ``needed`` candles from ``hi`` on out of a longer stretch in memory; None if the caller must load them."""
        if self._load_stretch is None or self._ahead is None:
            return None
        first = self._hi - self._stretch_from
        if self._stretch is None or not 0 <= first <= len(self._stretch) - needed:
            count = min(self._ahead - self._hi, STRETCH)
            if count <= needed:
                return None
            self._stretch = self._load_stretch(self._grid.opens(self._hi), count)
            if self._stretch is None:
                self._load_stretch = None  # the stretch has a gap, or runs past the last stored candle
                return None
            self._stretch_from, first = self._hi, 0
        return to_dicts(self._stretch[first : first + needed])

    def _grow_back(self, since: int) -> None:
        """Load the block before ``lo``; if it has a gap, only the candles after the gap."""
        count = min(self._lo - since, BLOCK)
        rows = self._load(self._grid.opens(self._lo - count), count)
        if rows is None:
            self._begins = True
            # "The last n candles are all stored" is monotone in n, so bisect for the largest such n.
            stored, rows = 0, []
            while count - stored > 1:
                middle = (stored + count) // 2
                candles = self._load(self._grid.opens(self._lo - middle), middle)
                if candles is None:
                    count = middle
                else:
                    stored, rows = middle, candles
        self._rows[:0] = rows
        self._lo -= len(rows)
