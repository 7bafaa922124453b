"""Candles as tables of other libraries: DataFrames of pandas and polars, Arrow tables."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from .cells import BadCellError, Cells, Spelling
from .columns import CANDLE_DTYPE, PRICES, CandleArray
from .layout import LayoutError, header_layout, shortened
from .rows import Batch, candle_columns

__all__ = ["is_table", "library", "table_batch", "table_candles", "to_arrow", "to_pandas", "to_polars"]


def to_pandas(candles: CandleArray) -> Any:
    """Return a pandas DataFrame of prices and volume, indexed by open time: ``timestamp`` (datetime64[ms, UTC])."""
    pandas = library("pandas", "pandas")
    times = pandas.DatetimeIndex(_times(candles), name="timestamp").tz_localize("UTC")
    return pandas.DataFrame({name: _column(candles, name) for name in PRICES}, index=times, copy=False)


def to_polars(candles: CandleArray) -> Any:
    """Return a polars DataFrame of ``timestamp`` (Datetime in ms, UTC), prices and volume."""
    polars = library("polars", "polars")
    # Cast from integers, which works for any timestamp: polars panics if it attaches a time zone to a date in the far future.
    times = polars.Series("timestamp", _column(candles, "timestamp")).cast(polars.Datetime("ms", "UTC"))
    return polars.DataFrame([times, *(polars.Series(name, _column(candles, name)) for name in PRICES)])


def to_arrow(candles: CandleArray) -> Any:
    """Return a pyarrow Table of ``timestamp`` (timestamp[ms, tz=UTC]), prices and volume."""
    arrow = library("pyarrow", "arrow")
    times = arrow.array(_times(candles), type=arrow.timestamp("ms", tz="UTC"))
    return arrow.table({"timestamp": times, **{name: arrow.array(_column(candles, name)) for name in PRICES}})


def library(name: str, extra: str) -> Any:
    """Import an optional library. Raises MissingDependencyError, which names the extra that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        hint = f'pip install "backtest-kit-mongo[{extra}]"'
        raise MissingDependencyError(f"{name} is not installed", hint=hint) from None


def _column(candles: CandleArray, name: str) -> npt.NDArray[np.float64]:
    if not isinstance(candles, np.ndarray) or candles.dtype != CANDLE_DTYPE or candles.ndim != 1:
        raise InvalidTypeError(f"expected a one-dimensional array of {CANDLE_DTYPE}, as read_candles_array returns it")
    return candles[name].copy()


def _times(candles: CandleArray) -> npt.NDArray[np.datetime64]:
    return _column(candles, "timestamp").view("datetime64[ms]")


# --- from other libraries ---


def is_table(value: object) -> bool:
    """Return whether ``value`` is a DataFrame or an Arrow table. What exports Arrow streams, as DuckDB's results do, is one."""
    return not isinstance(value, np.ndarray) and (_is_pandas(value) or hasattr(value, "__arrow_c_stream__"))


def table_candles(table: Any) -> CandleArray:
    """Return the candles of a DataFrame (pandas, polars) or an Arrow table as an array of CANDLE_DTYPE, in their order.

    The columns are found by name, as in the header of a candle file: an open time (``timestamp``, ``open_time``, ``date``, ..., or the
    index of pandas), ``open``, ``high``, ``low``, ``close`` and ``volume``. Times are datetimes (UTC without a zone), or numbers whose
    size says whether they count seconds, ms, us or ns. Raises InvalidValueError naming the column or the row (from 0).
    """
    try:
        batch = table_batch(table)
        for kind, position in batch.layout.series:
            names = sorted(set(map(str, batch.columns[position])))
            if len(names) > 1:
                raise LayoutError(f"the table holds candles of {kind} {shortened(names)}", "pass those of one series")
        candles, inexact, _ = candle_columns(batch, Spelling(), no_volume=False)
        if inexact is not None:
            raise BadCellError(int(np.flatnonzero(inexact)[0]), "its open time is not a whole number of milliseconds")
    except LayoutError as error:
        raise InvalidValueError(error.message, hint=error.hint) from None
    except BadCellError as error:
        raise InvalidValueError(f"candle {error.index}: {error.message}", hint=error.hint) from None
    return candles


def table_batch(table: Any) -> Batch:
    """Return the columns of a table. Raises LayoutError if they are not those of candles."""
    index = None
    if _is_pandas(table):
        names, columns, index = _of_pandas(table)
    else:
        if not _is_of(table, "polars", "pyarrow"):
            table = library("pyarrow", "arrow").table(table)
        names = list(getattr(table, "column_names", None) or table.columns)
        columns = [_array(table[name]) for name in names] if len(set(names)) == len(names) else []
    length = len(table)
    row = [column[0] for column in columns] if length else ()
    layout = header_layout(names, row, index)
    if index is not None and layout.time != (index,) and length:
        times = Spelling().times("open_time", columns[layout.time[0]])[0]
        if len(layout.time) == 1 and (times != Spelling().times("index", columns[index])[0]).any():
            column = layout.names[layout.time[0]]
            raise LayoutError(f"the index of times and the column {column} differ", "drop the one that is not the open time")
    return Batch(layout, columns, np.arange(length))


def _is_of(value: object, *libraries: str) -> bool:
    return type(value).__module__.partition(".")[0] in libraries


def _is_pandas(value: object) -> bool:
    return _is_of(value, "pandas") and hasattr(value, "columns")


def _array(column: Any) -> Cells:
    """Return a column of polars or Arrow as an array. Times are converted to UTC; nulls become NaT, NaN or None."""
    if _is_of(column, "polars"):
        return _cells(column.to_numpy())
    return _cells(column.to_numpy(zero_copy_only=False) if hasattr(column, "buffers") else column.to_numpy())


def _of_pandas(frame: Any) -> tuple[list[str], list[Cells], int | None]:
    """Return names and columns of a pandas DataFrame, its index last, and the position of the index if that holds times."""
    pandas = library("pandas", "pandas")
    for level in reversed(range(frame.columns.nlevels)):  # yfinance: ("Close", "BTC-USD")
        if frame.columns.nlevels > 1 and len(frame.columns.unique(level)) == 1:
            frame = frame.set_axis(frame.columns.droplevel(level), axis=1)
    if frame.columns.nlevels > 1:
        raise LayoutError("the table has several columns under one name", "select the columns of one symbol")
    if frame.index.nlevels > 1:
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    columns = [_of_series(pandas, frame.iloc[:, position]) for position in range(len(names))]
    position = None
    labels = frame.index
    if isinstance(labels, pandas.PeriodIndex):
        labels = labels.to_timestamp()
    if not isinstance(labels, pandas.RangeIndex) and (labels.name is not None or isinstance(labels, pandas.DatetimeIndex)):
        position = len(names) if isinstance(labels, pandas.DatetimeIndex) else None
        names.append("index" if labels.name is None else str(labels.name))
        columns.append(_of_series(pandas, labels))
    return names, columns, position


def _of_series(pandas: Any, series: Any) -> Cells:
    if isinstance(series.dtype, pandas.DatetimeTZDtype):
        series = pandas.DatetimeIndex(series).tz_convert("UTC").tz_localize(None)
    return _cells(series.to_numpy())


def _cells(values: npt.NDArray[Any]) -> Cells:
    return values if values.dtype.kind in "fiuM" else values.tolist()
