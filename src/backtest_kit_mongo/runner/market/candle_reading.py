"""Candles for analysis: a window of stored candles as a table, joined from shorter ones where an interval is not stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, overload

import numpy as np

from ...arguments import text
from ...candles import CANDLE_DTYPE, GRIDS, CandleArray, CandleInterval, Grid, grid_of, join_whole, to_arrow, to_pandas, to_polars
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...errors import InvalidValueError, LookAheadError
from ...simulation import current_time, outside_runs
from ..clock import iso_time
from ..current_run import asker, current_run
from .candle_series import candle_store
from .frame import Moment, moment_ms
from .gaps import Gap, find_gaps_between
from .holes import FilledHoles
from .stored_candles import StoredCandles

if TYPE_CHECKING:
    from ...table_types import ArrowTable, PandasFrame, PolarsFrame

__all__ = ["CandleGapError", "read_candles"]

Holes = Literal["stop", "skip", "fill"]
Table = Literal["pandas", "numpy", "polars", "arrow"]

_TABLES: Final[dict[str, Callable[[CandleArray], Any]]] = {
    "pandas": to_pandas, "numpy": np.array, "polars": to_polars, "arrow": to_arrow
}  # fmt: skip
_LISTED: Final = 5
"""Gaps or symbols in a message; an error has all gaps as ``gaps``."""


class CandleGapError(InvalidValueError):
    """Candles of a window are not stored. Import or fetch them, or let ``holes`` say what to do."""

    symbol: str = ""
    """The symbol of the series."""
    exchange_name: str = ""
    """Its exchange."""
    interval: str = ""
    """Its interval."""
    gaps: tuple[Gap, ...] = ()
    """The times at which candles are missing, first to last."""


@overload
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Literal["pandas"] = "pandas",
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> PandasFrame: ...
@overload
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Literal["numpy"],
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> CandleArray: ...
@overload
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Literal["polars"],
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> PolarsFrame: ...
@overload
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Literal["arrow"],
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> ArrowTable: ...
@overload
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Table,
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> PandasFrame | CandleArray | PolarsFrame | ArrowTable: ...
def read_candles(
    symbol: str,
    interval: CandleInterval,
    start: Moment,
    end: Moment,
    *,
    exchange: str | None = None,
    to: Table = "pandas",
    holes: Holes = "stop",
    registry: Registry | None = None,
) -> Any:
    """Return the stored candles of a window as a table, for notebooks and other engines.

    The candles are those that lie in the window as a whole: they open at ``start`` or later, and close by ``end``. Candles that have not
    closed yet are not expected. If the interval is not stored for the whole window, the candles are joined from those of the longest
    stored interval that divides it (weeks and months from days) and is: the first open, the highest high, the lowest low, the last
    close, the sum of the volumes.

    Args:
        symbol: the traded pair
        interval: the length of the candles, such as "1h"
        start: the start of the window: a datetime, date, ISO text or ms since 1970; without a time zone it is UTC
        end: the end of the window, likewise
        exchange: the exchange of the series; None is that of the current run, or the only one that has candles of the symbol
        to: "pandas", "polars", "arrow", or "numpy" for an array (n,) of CANDLE_DTYPE, which you own
        holes: what missing candles do: "stop" raises CandleGapError, "skip" leaves out every candle with a part missing, and "fill" puts
            flat candles at the last close, with volume 0, between the stored ones (before joining)
        registry: the registry whose Candle contract to use; None is the default one

    Returns:
        prices (quote currency) and volume (base asset) by open time (UTC), as ``to_pandas``, ``to_polars`` or ``to_arrow`` returns them

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or nothing is stored that the candles could be made of
        CandleGapError: candles are missing; ``gaps`` has their times
        LookAheadError: inside a run or ``simulated_time``, the window ends after the simulation time
        MissingDependencyError: the library of ``to`` is not installed

    Examples:
        >>> from backtest_kit_mongo.runner import import_candles, read_candles, synthetic_market
        >>> report = import_candles(synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> read_candles("BTCUSDT", "1h", "2024-01-01", "2024-01-02").shape
        (24, 5)
    """
    symbol, grid = text("symbol", symbol), grid_of(interval)
    for name, value, allowed in (("to", to, tuple(_TABLES)), ("holes", holes, get_args(Holes))):
        if value not in allowed:
            raise InvalidValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")
    since, until = _window(symbol, grid, start, end)
    run = current_run()
    if run is not None:
        registry, exchange = registry or run.registry, exchange or run.exchange_name
    return _TABLES[to](_Source(symbol, grid, exchange, registry).read(since, until, holes))


def _window(symbol: str, grid: Grid, start: Moment, end: Moment) -> tuple[int, int]:
    """Return the open time of the first candle and the close of the last one (ms)."""
    first, last, now = moment_ms("start", start, step_ms=1), moment_ms("end", end, step_ms=1), current_time()
    if first >= last:
        raise InvalidValueError(f"the window is empty: it starts {iso_time(first)} and ends {iso_time(last)}")
    if now is not None and last > now:
        raise LookAheadError(
            f"{asker()} asked for the future: read_candles({symbol!r}, {grid.interval!r}) ends at {iso_time(last)}; "
            f"the simulation time is {iso_time(now)}"
        )
    since, until = grid.ceil(first), grid.align(min(last, time.time_ns() // 1_000_000))
    if since < grid.align(last) and since >= until:
        raise InvalidValueError(f"the {grid.interval} candle that opens at {iso_time(since)} has not closed yet")
    if since >= until:
        raise InvalidValueError(
            f"no {grid.interval} candle opens and closes between {iso_time(first)} and {iso_time(last)}",
            hint=f"a {grid.interval} candle opens at {grid.rule}",
        )
    return since, until


class _Source:
    """The stored series that can serve an interval of a symbol, the longest interval first."""

    def __init__(self, symbol: str, grid: Grid, exchange: str | None, registry: Registry | None) -> None:
        self._grid = grid
        self._registry = default_registry if registry is None else registry
        stored = _stored_intervals(symbol, self._registry)
        if exchange is None:
            exchange = _only_exchange(symbol, stored, self._registry)
        self._exchange = text("exchange", exchange)
        self._symbol = symbol
        intervals = GRIDS if stored is None else stored.get(exchange, ())
        dividing = [name for name, shorter in GRIDS.items() if name in intervals and shorter.divides(grid)]
        if not dividing:
            others = f", only {', '.join(name for name in GRIDS if name in intervals)}" if intervals else ""
            raise InvalidValueError(
                f"no candles of {symbol} on {exchange} are stored of which {grid.interval} candles could be made{others}",
                hint=f"import them: candles import FILE --symbol {symbol} --exchange {exchange}; candles list shows what is stored",
            )
        self._series = [StoredCandles(symbol, name, exchange, self._registry) for name in reversed(dividing)]

    def read(self, since: int, until: int, holes: Holes) -> CandleArray:
        """Return the candles of ``[since, until)`` (ms, on the grid)."""
        for series in self._series:
            if (whole := self._whole(series, since, until)) is not None:
                return self._joined(series, whole)
        parts = [np.concatenate([np.empty(0, CANDLE_DTYPE), *series.batches(since, until)]) for series in self._series]
        merged = np.empty(0, CANDLE_DTYPE)
        for series, part in zip(self._series, parts, strict=True):  # of each candle the one of the longest interval
            made = self._joined(series, part)
            merged = np.concatenate([merged, made[~np.isin(made["timestamp"], merged["timestamp"])]])
        merged.sort(order="timestamp")
        if holes == "skip" or len(merged) == self._grid.count(since, until):
            return merged
        # The series with the largest stored share is the one to be filled, or completed.
        order = sorted(range(len(parts)), key=lambda index: -len(parts[index]) / self._series[index].grid.count(since, until))
        for series in (self._series[index] for index in order) if holes == "fill" else ():
            symbol, interval, exchange_name = series.context
            filled = FilledHoles(exchange_name, self._registry).window(symbol, interval, since, series.grid.count(since, until))
            if filled is not None:
                return self._joined(series, filled)
        raise self._error(self._series[order[0]], parts[order[0]], since, until, holes)

    def _whole(self, series: StoredCandles, since: int, until: int) -> CandleArray | None:
        contract: Any = self._registry.adapter("candle")
        grid = series.grid
        last = grid.after(until, -1)
        if not (series.all_there(since, grid.after(since)) and series.all_there(last, until)):
            return None  # cheap, and most of the windows that are not stored fail here
        with outside_runs():  # the window ends before the simulation time
            candles: CandleArray | None = contract.read_candles_array(*series.context, grid.count(since, until), since)
        return candles

    def _joined(self, series: StoredCandles, candles: CandleArray) -> CandleArray:
        return candles if series.grid is self._grid else join_whole(candles, series.grid, self._grid)

    def _error(self, series: StoredCandles, present: CandleArray, since: int, until: int, holes: Holes) -> CandleGapError:
        interval = series.grid.interval
        gaps = find_gaps_between(np.array([series.grid.after(since, -1), *present["timestamp"], until]), interval)
        made = "" if series.grid is self._grid else f", of which its {self._grid.interval} candles are made,"
        more = f", and {len(gaps) - _LISTED} more gaps" if len(gaps) > _LISTED else ""
        listed = "; ".join(map(str, gaps[:_LISTED])) + more
        ways = 'or pass holes="skip" to leave them out, or holes="fill" for flat candles at the last close'
        if holes == "fill":
            ways = "before the first stored candle and after the last one nothing is filled"
        error = CandleGapError(
            f"{interval} candles of {self._symbol} on {self._exchange}{made} are not all stored: {listed}",
            hint=f"import them (candles import, or fetch_missing from an exchange); {ways}",
        )
        error.symbol, error.exchange_name, error.interval, error.gaps = self._symbol, self._exchange, interval, gaps
        return error


def _stored_intervals(symbol: str, registry: Registry) -> dict[str, list[str]] | None:
    """Return the stored intervals of a symbol by exchange; None if a class of the user has the candles, and cannot say."""
    if registry.binding("candle").custom is not None:
        return None
    stored: dict[str, list[str]] = {}
    for exchange, name, interval in candle_store(registry).candle_series():
        if name == symbol:
            stored.setdefault(str(exchange), []).append(str(interval))
    return stored


def _only_exchange(symbol: str, stored: dict[str, list[str]] | None, registry: Registry) -> str:
    if stored is None:
        raise InvalidValueError("name the exchange: a class of your own serves the Candle contract, and does not say which it has")
    if len(stored) == 1:
        return next(iter(stored))
    if stored:
        raise InvalidValueError(
            f"{len(stored)} exchanges have candles of {symbol}; name one of them: {', '.join(map(repr, stored))}",
            hint=f"exchange={next(iter(stored))!r}",
        )
    symbols = sorted({str(name) for _, name, _ in candle_store(registry).candle_series()})
    raise InvalidValueError(
        f"no candles of {symbol} are stored; stored symbols: {_some(symbol, symbols)}",
        hint=f"import them: candles import FILE --symbol {symbol}",
    )


def _some(symbol: str, symbols: Sequence[str]) -> str:
    """Return some of ``symbols`` as text, those that resemble ``symbol`` first."""
    near = get_close_matches(symbol, symbols, n=_LISTED)
    listed = [*near, *(name for name in symbols if name not in near)]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return (", ".join(listed[:_LISTED]) or "none") + more
