"""Closed candles of a run: read in blocks through the Candle contract, kept in memory, never from the future."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from .. import PersistCandleAdapter, simulated_time
from ..candles import align, interval_ms
from ..errors import InvalidTypeError, InvalidValueError
from .clock import MINUTE_MS, OutsideRunError, current_time_ms, iso_time

__all__ = ["BLOCK", "Candle", "CandleHistory", "current_history", "get_candles"]

Candle = dict[str, Any]
Load = Callable[[int, int], list[Candle] | None]

BLOCK: Final = 1_000
"""Candles of one read through the contract."""

current_history: ContextVar[CandleHistory] = ContextVar("backtest_kit_mongo_candle_history")


def get_candles(symbol: str, interval: str, limit: int) -> list[Candle]:
    """The last ``limit`` candles of ``interval`` that have closed by the run's simulation time, oldest first.

    Each is a dict of ``timestamp`` (open time, ms), ``open``, ``high``, ``low``, ``close`` (prices) and ``volume`` (base asset);
    the list and the dicts are the caller's own. The last one closes at or before the simulation time, whatever is stored.

    The list is shorter, down to empty, where the stored history begins (or has its last hole) less than ``limit`` candles ago:
    it is always one unbroken run of candles up to now. If the newest closed candle itself is not stored, that is an
    InvalidValueError, as it means that nothing was imported for this symbol or time. An interval that is not stored is
    aggregated from 1m candles, on the same grid (UTC, counted from 1970) and only from complete ones.
    """
    now = current_time_ms("get_candles")
    history = current_history.get(None)
    if history is None:
        raise OutsideRunError("get_candles was called outside a run, so there is no exchange to read candles of")
    if not isinstance(symbol, str):
        raise InvalidTypeError(f"get_candles: symbol must be a str, got {type(symbol).__name__}")
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise InvalidTypeError(f"get_candles: limit must be an int, got {type(limit).__name__}")
    if limit < 1:
        raise InvalidValueError(f"get_candles: limit is {limit}; it must be at least 1")
    return [dict(candle) for candle in history.closed(symbol, interval, limit, now)]


class CandleHistory:
    """All series that one run reads, of one exchange. ``end_ms`` (ms) is where the run ends, so where reading ahead ends."""

    def __init__(self, exchange_name: str, end_ms: int) -> None:
        self._exchange_name = exchange_name
        self._end_ms = end_ms
        self._series: dict[tuple[str, str], _Series] = {}

    def minutes(self, symbol: str, since_ms: int, until_ms: int) -> list[Candle]:
        """The 1m candles of ``[since_ms, until_ms)``, or only the last of them, back to the first hole. Not to be changed."""
        return self._stored(symbol, "1m").window(since_ms, until_ms)

    def first_missing(self, symbol: str, since_ms: int, until_ms: int) -> int:
        """The open time (ms) of the first 1m candle of ``[since_ms, until_ms)`` that is not stored, knowing that one is not."""
        load = self._load(symbol, "1m")
        there, count = 0, (until_ms - since_ms) // MINUTE_MS
        while count - there > 1:  # that the first n candles are all there is monotone in n
            middle = (there + count) // 2
            if load(since_ms, middle) is None:
                count = middle
            else:
                there = middle
        return since_ms + there * MINUTE_MS

    def closed(self, symbol: str, interval: str, limit: int, now_ms: int) -> list[Candle]:
        """At most ``limit`` candles of ``interval`` that have closed by ``now_ms``, as ``get_candles`` promises them."""
        step = interval_ms(interval)
        until = align(now_ms, step)
        candles = self._choose(symbol, interval, until).window(until - limit * step, until)
        if not candles:
            newest = align(now_ms, MINUTE_MS)
            # For an aggregated interval an empty answer is right while the first window is still incomplete.
            if interval == "1m" or not self.minutes(symbol, newest - MINUTE_MS, newest):
                raise InvalidValueError(
                    f"no {interval} candle of {symbol} on {self._exchange_name} that closes at {iso_time(until)} is stored",
                    hint="import the candles of this symbol first, for the whole window of the run",
                )
        return candles

    def _choose(self, symbol: str, interval: str, until_ms: int) -> _Series:
        """The series of an interval: the stored one if its newest candle is there at the first question, else aggregated."""
        if interval == "1m":
            return self._stored(symbol, interval)
        known = self._series.get((symbol, interval))
        if known is not None:
            return known
        step = interval_ms(interval)
        stored = _Series(self._load(symbol, interval), step, self._end_ms)
        if stored.window(until_ms - step, until_ms):
            self._series[symbol, interval] = stored
            return stored
        # Aggregation never looks ahead of what is asked for: it reads minutes that the run keeps in memory anyway.
        aggregated = _Series(_aggregate(self._stored(symbol, "1m"), step), step, None)
        if aggregated.window(until_ms - step, until_ms):
            self._series[symbol, interval] = aggregated
        return aggregated

    def _stored(self, symbol: str, interval: str) -> _Series:
        series = self._series.get((symbol, interval))
        if series is None:
            series = self._series[symbol, interval] = _Series(self._load(symbol, interval), interval_ms(interval), self._end_ms)
        return series

    def _load(self, symbol: str, interval: str) -> Load:
        step = interval_ms(interval)
        exchange_name = self._exchange_name

        def load(since: int, count: int) -> list[Candle] | None:
            with simulated_time(None):  # read in blocks, ahead of the time; what a strategy may see of them is decided here
                candles: list[Candle] | None = PersistCandleAdapter.read_candles_data(
                    symbol, interval, exchange_name, count, since, since + count * step
                )
            return candles

        return load


def _aggregate(minutes: _Series, step: int) -> Load:
    """A source of candles of ``step`` ms, each from all of its 1m candles."""

    def load(since: int, count: int) -> list[Candle] | None:
        until = since + count * step
        parts = minutes.window(since, until)
        width = step // MINUTE_MS
        if len(parts) != count * width:
            return None
        return [_merge(parts[first : first + width]) for first in range(0, len(parts), width)]

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
    """An unbroken stretch ``[lo, hi)`` of one series, grown in blocks in both directions as it is asked for.

    ``load(since, count)`` gives all of ``count`` candles or None, as the Candle contract does. ``ahead`` (ms) is how far it may
    be read before it is asked for; None: not at all.
    """

    def __init__(self, load: Load, step: int, ahead: int | None) -> None:
        self._load = load
        self._step = step
        self._ahead = ahead
        self._rows: list[Candle] = []
        self._lo = self._hi = 0
        self._begins = False  # nothing is stored right before lo
        self._keep = 0  # the longest window that was asked for, in candles

    def window(self, since: int, until: int) -> list[Candle]:
        """The candles of ``[since, until)``, or as many of the last of them as are there without a hole."""
        since = max(since, 0)
        self._keep = max(self._keep, (until - since) // self._step)
        if until < self._lo or not self._rows or (until > self._hi and not self._grow_to(until)):
            self._rows, self._lo, self._hi, self._begins = [], until, until, False
        while since < self._lo and not self._begins:
            self._grow_back(since)
        first = (max(since, self._lo) - self._lo) // self._step
        return self._rows[first : (until - self._lo) // self._step]

    def _grow_to(self, until: int) -> bool:
        """Load up to ``until``, and further if that costs nothing; False if a candle before ``until`` is missing."""
        while self._hi < until:
            needed = min((until - self._hi) // self._step, BLOCK)
            wanted = needed if self._ahead is None else max(needed, min((self._ahead - self._hi) // self._step, BLOCK))
            rows = self._load(self._hi, wanted)
            if rows is None and wanted > needed:
                # The stored candles end (or have a hole) before the run does: from here on only what is needed is read.
                self._ahead = None
                rows = self._load(self._hi, needed)
            if rows is None:
                return False
            self._rows.extend(rows)
            self._hi += len(rows) * self._step
        spare = len(self._rows) - self._keep
        if spare > 2 * BLOCK:
            del self._rows[: spare - BLOCK]
            self._lo = self._hi - len(self._rows) * self._step
            self._begins = False
        return True

    def _grow_back(self, since: int) -> None:
        """Load the block before ``lo``; where it has a hole, what lies after the hole."""
        count = min((self._lo - since) // self._step, BLOCK)
        rows = self._load(self._lo - count * self._step, count)
        if rows is None:
            self._begins = True
            # Whether the last n candles are all there is monotone in n, so halving finds the longest such n.
            there, rows = 0, []
            while count - there > 1:
                middle = (there + count) // 2
                found = self._load(self._lo - middle * self._step, middle)
                if found is None:
                    count = middle
                else:
                    there, rows = middle, found
        self._rows[:0] = rows
        self._lo -= len(rows) * self._step
