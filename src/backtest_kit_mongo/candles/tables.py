"""Candles as tables of other libraries: DataFrames of pandas and polars, Arrow tables."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from .cells import BadCellError, Cells, Spelling
from .columns import CANDLE_DTYPE, PRICES, CandleArray
from .layout import LayoutError, header_layout, shortened
from .rows import Batch, candle_columns, choose_volume, same_name

if TYPE_CHECKING:
    from ..table_types import ArrowTable, PandasFrame, PolarsFrame

__all__ = ["is_table", "library", "table_batch", "table_candles", "to_arrow", "to_pandas", "to_polars"]


def to_pandas(candles: CandleArray) -> PandasFrame:
    """Convert a candle array to a pandas DataFrame, with one copy of each column.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, as ``read_candles_array`` returns it

    Returns:
        n rows indexed by open time (``timestamp``, datetime64[ms, UTC]), with float64 columns ``open``, ``high``, ``low``, ``close`` (quote
            currency) and ``volume`` (base asset)

    Raises:
        InvalidTypeError: ``candles`` is not such an array
        MissingDependencyError: pandas is not installed

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> frame = kit.to_pandas(synthetic_market(7, 60, 1704067200000))
        >>> frame.shape, str(frame.index[0])
        ((60, 5), '2024-01-01 00:00:00+00:00')
    """
    pandas = library("pandas", "pandas")
    times = pandas.DatetimeIndex(_times(candles), name="timestamp").tz_localize("UTC")
    frame: PandasFrame = pandas.DataFrame({name: _column(candles, name) for name in PRICES}, index=times, copy=False)
    return frame


def to_polars(candles: CandleArray) -> PolarsFrame:
    """Convert a candle array to a polars DataFrame, with one copy of each column.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, as ``read_candles_array`` returns it

    Returns:
        n rows of ``timestamp`` (open time, Datetime in ms, UTC) and float64 ``open``, ``high``, ``low``, ``close`` (quote currency) and
            ``volume`` (base asset)

    Raises:
        InvalidTypeError: ``candles`` is not such an array
        MissingDependencyError: polars is not installed

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> kit.to_polars(synthetic_market(7, 60, 1704067200000)).shape
        (60, 6)
    """
    polars = library("polars", "polars")
    # Cast from integers, which works for any timestamp: polars panics if it attaches a time zone to a date in the far future.
    times = polars.Series("timestamp", _column(candles, "timestamp")).cast(polars.Datetime("ms", "UTC"))
    frame: PolarsFrame = polars.DataFrame([times, *(polars.Series(name, _column(candles, name)) for name in PRICES)])
    return frame


def to_arrow(candles: CandleArray) -> ArrowTable:
    """Convert a candle array to a pyarrow Table, with one copy of each column.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, as ``read_candles_array`` returns it

    Returns:
        n rows of ``timestamp`` (open time, timestamp[ms, tz=UTC]) and float64 ``open``, ``high``, ``low``, ``close`` (quote currency) and
            ``volume`` (base asset)

    Raises:
        InvalidTypeError: ``candles`` is not such an array
        MissingDependencyError: pyarrow is not installed

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> kit.to_arrow(synthetic_market(7, 60, 1704067200000)).shape
        (60, 6)
    """
    arrow = library("pyarrow", "arrow")
    times = arrow.array(_times(candles), type=arrow.timestamp("ms", tz="UTC"))
    table: ArrowTable = arrow.table({"timestamp": times, **{name: arrow.array(_column(candles, name)) for name in PRICES}})
    return table


def library(name: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        name: the module, such as "pandas"
        extra: the extra of this package that installs it

    Raises:
        MissingDependencyError: it is not installed; the hint names the extra

    Examples:
        >>> from backtest_kit_mongo.candles import library
        >>> library("nowhere", "pandas")
        Traceback (most recent call last):
        backtest_kit_mongo.errors.MissingDependencyError: nowhere is not installed
          hint: pip install "backtest-kit-mongo[pandas]"
    """
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


def table_candles(table: Any, interval: str | None = None, symbol: str | None = None) -> CandleArray:
    """Return the candles of a DataFrame (pandas, polars) or an Arrow table as an array of CANDLE_DTYPE, in their order.

    The columns are found by name, as in the header of a candle file: an open time (``timestamp``, ``open_time``, ``date``, ..., or the
    index of pandas), ``open``, ``high``, ``low``, ``close`` and ``volume``. Times are datetimes (UTC without a zone), or numbers whose
    size says whether they count seconds, ms, us or ns. A column of symbols or intervals must agree with ``symbol`` and ``interval``.
    Raises InvalidTypeError for another kind of table, InvalidValueError naming the column or the row (from 0).
    """
    try:
        batch = table_batch(table, symbol=symbol)
        for kind, position in batch.layout.series:
            names = sorted(set(map(str, batch.columns[position])))
            expected = {"symbol": symbol, "interval": interval}.get(kind)
            same = not names or expected is None or (same_name(names[0], expected) if kind == "symbol" else names[0] == expected)
            if len(names) > 1 or not same:
                raise LayoutError(
                    f"the table holds candles of {kind} {shortened(names)}" + (f", not of {expected}" if expected else ""),
                    f"pass those of one series, or drop the column {kind}",
                )
        candles, inexact, volumes = candle_columns(
            batch, Spelling(), no_volume=False, no_volume_hint="add a column of zeros if there is none"
        )
        choose_volume(batch.layout, candles, volumes)
        if inexact is not None:
            raise BadCellError(int(np.flatnonzero(inexact)[0]), "its open time is not a whole number of milliseconds")
    except LayoutError as error:
        raise InvalidValueError(error.message, hint=error.hint) from None
    except BadCellError as error:
        raise InvalidValueError(f"candle {error.index}: {error.message}", hint=error.hint) from None
    return candles


def table_batch(table: Any, *, symbol: str | None = None, no_volume: bool = False) -> Batch:
    """Return the columns of a table. Raises LayoutError for other columns than those of candles, InvalidTypeError for other objects."""
    index = None
    if _is_pandas(table):
        names, columns, index = _of_pandas(table)
    elif _is_of(table, "polars") and hasattr(table, "get_columns"):
        names, columns = list(table.columns), [_of_column(column) for column in table.get_columns()]
    else:
        arrow = library("pyarrow", "arrow")
        if not isinstance(table, (arrow.Table, arrow.RecordBatch)):
            try:
                table = arrow.table(table)
            except (TypeError, ValueError) as error:  # ArrowException is a ValueError
                raise InvalidTypeError(f"candles must be a table or a list of candles, got {type(table).__name__}: {error}") from None
        names, columns = list(table.column_names), [_of_column(column) for column in table.columns]
    length = len(table)
    row = [None if column is None else column[0] for column in columns] if length else ()
    layout = header_layout(names, row, index, symbol=symbol, no_volume=no_volume)
    for position in (*layout.time, *layout.prices, *(place for _, place in (*layout.volumes, *layout.series))):
        if columns[position] is None:
            raise LayoutError(f"column {shortened([names[position]])} has a type that holds neither times nor numbers")
    cells: list[Cells] = [() if column is None else column for column in columns]
    if index is not None and layout.time != (index,) and length:
        times = Spelling().times("open_time", cells[layout.time[0]])[0]
        if len(layout.time) == 1 and (times != Spelling().times("index", cells[index])[0]).any():
            column = layout.names[layout.time[0]]
            raise LayoutError(f"the index of times and the column {column} differ", "drop the one that is not the open time")
    return Batch(layout, cells, np.arange(length))


def _is_of(value: object, *libraries: str) -> bool:
    return type(value).__module__.partition(".")[0] in libraries


def _is_pandas(value: object) -> bool:
    return _is_of(value, "pandas") and hasattr(value, "columns")


def _of_column(column: Any) -> Cells | None:
    """Return a column of polars or Arrow as an array: times in UTC, nulls as NaT, NaN or None. None for a type that NumPy has not."""
    try:
        return _cells(column.to_numpy(zero_copy_only=False) if hasattr(column, "buffers") else column.to_numpy())
    except Exception:  # noqa: BLE001 - each library has its own errors; a column that is needed is refused by its name
        return None


def _of_pandas(frame: Any) -> tuple[list[str], list[Cells | None], int | None]:
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
    columns: list[Cells | None] = [_of_series(pandas, frame.iloc[:, position]) for position in range(len(names))]
    position = None
    labels = frame.index
    if isinstance(labels, pandas.PeriodIndex):
        labels = labels.to_timestamp()
    if not isinstance(labels, pandas.RangeIndex):
        position = len(names) if labels.name is None or isinstance(labels, pandas.DatetimeIndex) else None
        names.append("index" if labels.name is None else str(labels.name))
        columns.append(_of_series(pandas, labels))
    return names, columns, position


def _of_series(pandas: Any, series: Any) -> Cells:
    if isinstance(series.dtype, pandas.DatetimeTZDtype):
        series = pandas.DatetimeIndex(series).tz_convert("UTC").tz_localize(None)
    return _cells(series.to_numpy())


def _cells(values: npt.NDArray[Any]) -> Cells:
    return values if values.dtype.kind in "fiuM" else values.tolist()
