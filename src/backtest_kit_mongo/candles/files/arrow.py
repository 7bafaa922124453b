"""Candles in Parquet and Feather files."""

from __future__ import annotations

from typing import IO, Any

from ...errors import InvalidValueError
from ..layout import LayoutError
from ..rows import CandleRows, Part, Wanted
from ..tables import library, table_batch

__all__ = ["read_feather", "read_parquet"]


def read_parquet(source: str, stream: IO[bytes], wanted: Wanted) -> Part:
    """Read a Parquet file."""
    return _part(source, "Parquet", library("pyarrow.parquet", "arrow").read_table, stream, wanted)


def read_feather(source: str, stream: IO[bytes], wanted: Wanted) -> Part:
    """Read a Feather file, or Arrow's file format, which is the same."""
    return _part(source, "Feather", library("pyarrow.feather", "arrow").read_table, stream, wanted)


def _part(source: str, container: str, read_table: Any, stream: IO[bytes], wanted: Wanted) -> Part:
    arrow = library("pyarrow", "arrow")
    rows = CandleRows(source, "row", wanted)
    try:
        table = read_table(stream)
    except (arrow.ArrowException, OSError) as error:
        raise InvalidValueError(f"{source} cannot be read: {error}") from error
    try:
        batch = table_batch(table, symbol=wanted.symbol, no_volume=wanted.no_volume)
    except LayoutError as error:
        raise InvalidValueError(f"{source}: {error.message}", hint=error.hint) from None
    if list(table.column_names) == ["date", "open", "high", "low", "close", "volume"]:
        batch = batch._replace(layout=batch.layout._replace(form="columns as freqtrade writes them"))
    rows.add(batch)
    return rows.part(container)
