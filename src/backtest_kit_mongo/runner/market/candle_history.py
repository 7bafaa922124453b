"""Closed candles of a run: read in blocks through the Candle contract, held in memory, never from the future."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, cast, overload

import numpy as np

from ...arguments import text, whole_number
from ...candles import CANDLE_DTYPE, CandleArray, CandleInterval, Grid, align, grid_of
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...errors import InvalidValueError, LookAheadError
from ...simulation import milliseconds, outside_runs
from ..clock import MINUTE_MS, OutsideRunError, current_time_ms, iso_time
from ..current_run import asker, run_scope
from .average_price import VWAP_CANDLES, vwap
from .contiguous_series import ARRAYS, BLOCK, DICTS, Candle, ContiguousSeries, Form, Load, Rows
from .holes import FilledHoles

__all__ = ["BLOCK", "Candle", "CandleDict", "CandleHistory", "Fill", "get_average_price", "get_candles", "get_raw_candles"]

Fill = Callable[[str, CandleInterval, int, int], object]
"""A function that fetches and stores the missing candles of (symbol, interval) in ``[since_ms, until_ms)``."""


class CandleDict(TypedDict):
    """A candle of ``get_candles``."""

    timestamp: int
    """Its open time, in ms."""
    open: float
    """The first price, in the quote currency."""
    high: float
    """The highest price."""
    low: float
    """The lowest price."""
    close: float
    """The last price."""
    volume: float
    """What was traded, in the base asset."""


@overload
def get_candles(symbol: str, interval: CandleInterval, limit: int, *, as_array: Literal[False] = False) -> list[CandleDict]: ...
@overload
def get_candles(symbol: str, interval: CandleInterval, limit: int, *, as_array: Literal[True]) -> CandleArray: ...
@overload
def get_candles(symbol: str, interval: CandleInterval, limit: int, *, as_array: bool) -> list[CandleDict] | CandleArray: ...
def get_candles(symbol: str, interval: CandleInterval, limit: int, *, as_array: bool = False) -> list[CandleDict] | CandleArray:
    """Return the last candles that have closed by the simulation time, oldest first. For strategies.

    The candles are always contiguous up to now, and the last one closes at or before the simulation time, whatever is stored. They are
    fewer than ``limit``, or even none, if the stored history begins (or has its last gap) fewer than ``limit`` candles ago. An interval
    that is not stored is aggregated from 1m candles, on the same grid (UTC: weeks from Monday, months of the calendar, others counted
    from 1970) and only if all of them are stored.

    Args:
        symbol: the traded pair
        interval: the length of the candles, such as "1h"
        limit: how many candles
        as_array: True for an array instead of dicts, which is faster

    Returns:
        dicts of ``timestamp`` (open time, ms), ``open``, ``high``, ``low``, ``close`` (quote currency) and ``volume`` (base asset), or an
            array (n,) of CANDLE_DTYPE with these fields (``array["close"]``), which ``to_pandas`` takes. You own it

    Raises:
        OutsideRunError: there is no run
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or the newest closed candle is not stored: nothing was imported for this symbol or time

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 120, 1704067200000), "BTCUSDT")
        >>> @runner.add_strategy("looks", "1h")
        ... def looks(symbol, when):
        ...     print(when.hour, len(runner.get_candles(symbol, "5m", 4)))
        >>> result = runner.run_backtest("BTCUSDT")
        1 4
    """
    history, now = _here("get_candles", symbol)
    limit = _check_limit("get_candles", limit)
    if as_array:
        candles = history.closed_array(symbol, interval, limit, now)
        return np.ndarray(len(candles), CANDLE_DTYPE, bytearray(candles.tobytes()))  # copy() goes field by field, five times slower
    return _copies(history.closed(symbol, interval, limit, now))


def get_average_price(symbol: str) -> float:
    """Return the price of a symbol at the simulation time, at which a signal without ``priceOpen`` opens. For strategies.

    It is the volume-weighted mean of the typical prices of the last five closed 1m candles, like ``getAveragePrice`` of backtest-kit.
    A target and a stop on the right sides of it are valid.

    Args:
        symbol: the traded pair

    Returns:
        the price, in the quote currency

    Raises:
        OutsideRunError: there is no run
        InvalidValueError: fewer than five candles are stored

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 90, 1704067200000), "BTCUSDT")
        >>> @runner.add_strategy("around", "1h")
        ... def around(symbol, when):
        ...     price = runner.get_average_price(symbol)
        ...     return {"position": "long", "priceTakeProfit": price * 1.02, "priceStopLoss": price * 0.98, "minuteEstimatedTime": 15}
        >>> runner.run_backtest("BTCUSDT").totals.trades
        1
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
    interval: CandleInterval,
    limit: int | None = None,
    start: datetime | int | None = None,
    end: datetime | int | None = None,
) -> list[CandleDict]:
    """Return the candles of a window that you choose, oldest first, in the form of ``get_candles``. For strategies.

    There are five forms: ``limit`` (the last candles up to now), ``start`` and ``end``, ``end`` and ``limit`` (the last ones before
    ``end``), ``start`` and ``limit`` (the first ones from ``start`` on), and all three (the same, if the window ends by ``end``).

    Args:
        symbol: the traded pair
        interval: the length of the candles, such as "1h"
        limit: how many candles
        start: the start of the window: an aware datetime or ms, rounded down to the grid of ``interval``
        end: the end of the window, which is not part of it, likewise

    Returns:
        the whole window, as dicts

    Raises:
        OutsideRunError: there is no run
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or a candle of the window is not stored
        LookAheadError: the window ends after the simulation time or, with all three arguments, after ``end``

    Examples:
        >>> from datetime import timedelta
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 90, 1704067200000), "BTCUSDT")
        >>> @runner.add_strategy("looks", "1h")
        ... def looks(symbol, when):
        ...     print(len(runner.get_raw_candles(symbol, "5m", start=when - timedelta(hours=1), end=when)))
        >>> result = runner.run_backtest("BTCUSDT")
        12
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
            f"{asker()} asked for the future: get_raw_candles({call}) ends at {iso_time(max(until, last or 0))}; "
            f"the simulation time is {iso_time(now)}" + ("" if until <= allowed or last is None else f", and end is {iso_time(last)}")
        )
    return _copies(history.window(symbol, interval, since, until))


def _copies(candles: list[Candle]) -> list[CandleDict]:
    return cast("list[CandleDict]", [dict(candle) for candle in candles])


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
        self._dicts = _Held(DICTS, {})
        self._arrays = _Held(ARRAYS, {})
        self._is_aggregated: dict[tuple[str, str], bool] = {}

    def beside(self) -> CandleHistory:
        """Return the history of another run on the same clock: it shares what was read, but not which intervals are aggregated."""
        other = copy.copy(self)
        other._dicts, other._arrays = _Held(DICTS, self._dicts.stored), _Held(ARRAYS, self._arrays.stored)
        other._is_aggregated = {}
        return other

    def minutes(self, symbol: str, since_ms: int, until_ms: int) -> list[Candle]:
        """Return the 1m candles of ``[since_ms, until_ms)``, or only those after the last gap in it. Do not modify them."""
        return self._of_store(self._dicts, symbol, "1m").window(since_ms, until_ms)

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
        load = self._load(DICTS, symbol, "1m")
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
        return self._closed(self._dicts, symbol, interval, limit, now_ms)

    def closed_array(self, symbol: str, interval: str, limit: int, now_ms: int) -> CandleArray:
        """Return the candles of ``closed`` as an array of CANDLE_DTYPE. It may be a view of what the run holds: do not modify it."""
        return self._closed(self._arrays, symbol, interval, limit, now_ms)

    def _closed(self, held: _Held[Rows], symbol: str, interval: str, limit: int, now_ms: int) -> Rows:
        grid = grid_of(interval)
        until = grid.align(now_ms)
        candles = self._choose(held, symbol, interval, until).window(grid.after(until, -limit), until)
        if not len(candles):
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
        candles = self._choose(self._dicts, symbol, interval, until_ms).window(since_ms, until_ms)
        if len(candles) < grid.count(since_ms, until_ms):
            missing = grid.after(until_ms, -len(candles) - 1)
            raise InvalidValueError(
                f"the {interval} candle of {symbol} on {self._exchange_name} at {iso_time(missing)} is not stored",
                hint="import the candles of this symbol first, for the whole requested window",
            )
        return candles

    def _choose(self, held: _Held[Rows], symbol: str, interval: str, until_ms: int) -> ContiguousSeries[Rows]:
        """Return the series of an interval: the stored one if its newest candle is stored at the first call, else an aggregated one."""
        stored = self._of_store(held, symbol, interval)
        if interval == "1m":
            return stored
        key = symbol, interval
        is_aggregated = self._is_aggregated.get(key)
        if is_aggregated is False:
            return stored
        grid = grid_of(interval)
        newest = grid.after(until_ms, -1)
        if is_aggregated is None and len(stored.window(newest, until_ms)):
            self._is_aggregated[key] = False
            return stored
        aggregated = held.aggregated.get(key)
        if aggregated is None:
            # Aggregation never reads ahead of the request: it reads minutes that the run keeps in memory anyway.
            aggregated = ContiguousSeries(held.form, _aggregate(held.form, self._of_store(held, symbol, "1m"), grid), grid, None)
            held.aggregated[key] = aggregated
        if is_aggregated is None and len(aggregated.window(newest, until_ms)):
            self._is_aggregated[key] = True
        return aggregated

    def _of_store(self, held: _Held[Rows], symbol: str, interval: str) -> ContiguousSeries[Rows]:
        series = held.stored.get((symbol, interval))
        if series is None:
            stretch = self._load(ARRAYS, symbol, interval, as_stored=True) if self._candles.gives_arrays else None
            series = ContiguousSeries(held.form, self._load(held.form, symbol, interval), grid_of(interval), self._end_ms, stretch)
            held.stored[symbol, interval] = series
        return series

    def _load(self, form: Form[Rows], symbol: str, interval: str, *, as_stored: bool = False) -> Load[Rows]:
        """Return a loader of a series; ``as_stored``: of nothing but what is stored already."""
        grid = grid_of(interval)
        names = symbol, interval, self._exchange_name

        def read(since: int, count: int) -> Rows | None:
            with outside_runs():  # blocks reach past the simulation time; this class decides what a strategy sees of them
                return form.read(self._candles, names, since, count)

        def load(since: int, count: int) -> Rows | None:
            candles = read(since, count)
            if candles is None and self._fill is not None:
                self._fill(symbol, grid.interval, since, grid.after(since, count))
                candles = read(since, count)
            if candles is None and self._filled is not None:
                filled = self._filled.window(symbol, interval, since, count)
                candles = None if filled is None else form.of_columns(filled)
            return candles

        return read if as_stored else load


class _Held(Generic[Rows]):
    """The series that a run holds in one form."""

    def __init__(self, form: Form[Rows], stored: dict[tuple[str, str], ContiguousSeries[Rows]]) -> None:
        self.form: Form[Rows] = form
        self.stored: dict[tuple[str, str], ContiguousSeries[Rows]] = stored
        self.aggregated: dict[tuple[str, str], ContiguousSeries[Rows]] = {}


def _aggregate(form: Form[Rows], minutes: ContiguousSeries[Rows], grid: Grid) -> Load[Rows]:
    """Return a loader of the candles of a grid, each merged from all of its 1m candles."""

    def load(since: int, count: int) -> Rows | None:
        edges = [(edge - since) // MINUTE_MS for edge in grid.window(since, count + 1)]
        parts = minutes.window(since, since + edges[-1] * MINUTE_MS)
        return form.merged(parts, edges) if len(parts) == edges[-1] else None

    return load
