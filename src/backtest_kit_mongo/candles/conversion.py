"""Candles as callers pass them - rows, arrays, DataFrames - in columns."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from .._core import candles as core
from ..errors import InvalidTypeError, InvalidValueError
from .columns import CANDLE_DTYPE, TIME_LIMIT, CandleArray, check_columns
from .intervals import grid_of
from .tables import is_table, table_candles

__all__ = ["as_columns", "row_values", "to_columns"]


def to_columns(candles: Iterable[Any], interval: str, symbol: str | None = None) -> CandleArray:
    """Check candles and return them as an array of CANDLE_DTYPE, in their order.

    Args:
        candles: dicts, dataclasses or Structs with ``timestamp`` (open time, ms), ``open``, ``high``, ``low``, ``close`` and ``volume``; a
            DataFrame or Arrow table; or already an array (n,) of CANDLE_DTYPE
        interval: the length of the candles, such as "1m"
        symbol: the symbol that a column of symbols in a table must have; None checks nothing

    Returns:
        an array (n,) of CANDLE_DTYPE

    Raises:
        InvalidTypeError: ``candles`` or a value in it has the wrong type; the message names the row
        InvalidValueError: a field is missing, a value is not a finite number, a time is off the grid, or the table is of another symbol

    Examples:
        >>> from backtest_kit_mongo.candles import to_columns
        >>> row = {"timestamp": 1704067200000, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0}
        >>> to_columns([row], "1m")["close"].tolist()
        [1.5]
    """
    grid_of(interval)
    columns = as_columns(candles, interval, symbol)
    check_columns(columns, interval)
    return columns


def as_columns(candles: Iterable[Any], interval: str | None = None, symbol: str | None = None) -> CandleArray:
    """Return candles as an array of CANDLE_DTYPE, like ``to_columns`` but without checking values and grid.

    Args:
        candles: candles as ``to_columns`` takes them
        interval: the interval that a column of intervals in a table must have; None checks nothing
        symbol: the symbol that a column of symbols in a table must have; None checks nothing

    Returns:
        an array (n,) of CANDLE_DTYPE; ``candles`` itself if it is one

    Raises:
        InvalidTypeError: ``candles`` or a value in it has the wrong type; the message names the row
        InvalidValueError: a field is missing, a time is not a whole number of ms, or a price is too large for a double

    Examples:
        >>> from backtest_kit_mongo.candles import as_columns
        >>> as_columns([{"timestamp": 5, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 0}])["timestamp"].tolist()
        [5]
    """
    if isinstance(candles, np.ndarray):
        if candles.dtype != CANDLE_DTYPE or candles.ndim != 1:
            raise InvalidTypeError(f"an array of candles must be one-dimensional and have dtype {CANDLE_DTYPE}, got {candles.dtype}")
        return candles
    if is_table(candles):
        return table_candles(candles, interval, symbol)
    if isinstance(candles, (str, bytes, Mapping)) or not isinstance(candles, Iterable):
        raise InvalidTypeError(f"candles must be a list of candles, got {type(candles).__name__}")
    rows = tuple(candles)
    columns = np.empty(len(rows), CANDLE_DTYPE)
    core.pack_rows(rows, columns.view(np.int8), row_values)
    return columns


def row_values(index: int, candle: Any) -> tuple[Any, ...]:
    """Return the values of a dict, dataclass or Struct in the order of CANDLE_DTYPE. ``index`` is its place in the list, for errors."""
    if not isinstance(candle, Mapping):
        if not isinstance(candle, msgspec.Struct) and (not is_dataclass(candle) or isinstance(candle, type)):
            raise InvalidTypeError(f"candle {index} must be a dict, dataclass or Struct, got {type(candle).__name__}")
        candle = msgspec.to_builtins(candle)
    values = []
    for name in CANDLE_DTYPE.names or ():
        value = candle.get(name)
        if value is None:
            raise InvalidValueError(f"candle {index} (timestamp {candle.get('timestamp')}): {name} is missing")
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, Decimal)):
            raise InvalidTypeError(f"candle {index} (timestamp {candle.get('timestamp')}): {name} must be a number, got {value!r:.40}")
        values.append(value)
    stamp: Any = values[0]
    if stamp != stamp or stamp in (float("inf"), float("-inf")) or int(stamp) != stamp or abs(int(stamp)) > TIME_LIMIT:
        raise InvalidValueError(f"candle {index}: timestamp {stamp!r} is not a whole number of ms")
    try:
        return (int(stamp), *map(float, values[1:]))
    except OverflowError:
        raise InvalidValueError(f"candle {index} (timestamp {stamp}): a price is too large for a double") from None
