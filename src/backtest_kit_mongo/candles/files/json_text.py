"""Candles in JSON: rows of freqtrade, of ccxt and of exchanges, objects, and what pandas writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from ...errors import InvalidValueError
from ..layout import WITHOUT_HEADER, LayoutError, header_layout, plain_layout, shortened
from ..rows import Batch, CandleRows, Part, Wanted

__all__ = ["read_json"]

_LISTS: Final = ("data", "candles", "result", "klines", "ohlcv")
"""Under which names the answers of exchanges hold their rows."""


def read_json(source: str, content: bytes, wanted: Wanted) -> Part:
    """Read a JSON file: a list of rows or objects, one of either a line, or an object of columns as pandas writes it."""
    rows = CandleRows(source, "record", wanted)
    try:
        try:
            document = msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            try:
                document = msgspec.json.Decoder().decode_lines(content)
            except msgspec.DecodeError:
                raise InvalidValueError(f"{source} is not JSON: {error}") from None
    except RecursionError:
        raise InvalidValueError(f"{source} is JSON that is nested too deep") from None
    names, records = _records(source, document)
    if not records:
        return rows.part("JSON")
    if not isinstance(records[0], (list, tuple, dict)):
        raise rows.error(1, f"expected a row or an object, not {type(records[0]).__name__}")
    form: str | None = None
    if names is None and isinstance(records[0], dict):
        names, form = tuple(records[0]), "objects"
        for number, record in enumerate(records, start=1):
            if not isinstance(record, dict) or record.keys() != records[0].keys():
                raise rows.error(number, f"expected an object with {shortened(names)}")
        records = [tuple(record.values()) if tuple(record) == names else tuple(map(record.__getitem__, names)) for record in records]
    width = len(names if names is not None else records[0])
    for number, record in enumerate(records, start=1):
        if not isinstance(record, (list, tuple)) or len(record) != width:
            raise rows.error(number, f"expected a row of {width} values")
    try:
        layout = (
            plain_layout(records[0])
            if names is None
            else header_layout(names, records[0], symbol=wanted.symbol, no_volume=wanted.no_volume)
        )
    except LayoutError as error:
        raise rows.error(1, error.message.replace("the line has", "the row has"), error.hint) from None
    if layout.form == "a header":
        layout = layout._replace(form=form or "columns")
    elif layout.form == f"6 columns {WITHOUT_HEADER}":
        layout = layout._replace(form="rows as freqtrade and ccxt write them, " + WITHOUT_HEADER)
    rows.add(Batch(layout, list(zip(*records, strict=True)), np.arange(1, len(records) + 1)))
    return rows.part("JSON")


def _records(source: str, document: Any) -> tuple[tuple[str, ...] | None, Sequence[Any]]:
    """Return the names of the columns, None if the rows have none or are objects, and the rows."""
    if isinstance(document, list):
        return None, document
    if not isinstance(document, dict):
        raise InvalidValueError(f"{source} holds no rows of candles, but {type(document).__name__}")
    if isinstance(document.get("columns"), list) and isinstance(document.get("data"), list):  # pandas, orient="split"
        names, records, index = tuple(map(str, document["columns"])), document["data"], document.get("index")
        if isinstance(index, list) and len(index) == len(records) and all(isinstance(record, list) for record in records):
            return ("index", *names), [[moment, *record] for moment, record in zip(index, records, strict=True)]
        return names, records
    columns: list[Any] = list(document.values())
    if len(columns) > 4 and all(isinstance(column, dict) for column in columns) and len({tuple(column) for column in columns}) == 1:
        # pandas, orient="columns": the keys of each column are the index
        return ("index", *document), list(zip(columns[0], *(column.values() for column in columns), strict=True))
    if len(columns) > 4 and all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        return tuple(document), list(zip(*columns, strict=True))
    for name in _LISTS:
        inner = document.get(name)
        if isinstance(inner, Mapping):  # Kraken: {"result": {"XXBTZUSD": rows, "last": time}}
            lists = [value for value in inner.values() if isinstance(value, list)]
            inner = lists[0] if len(lists) == 1 else None
        if isinstance(inner, list):
            return None, inner
    raise InvalidValueError(f"{source} holds no rows of candles", hint=f"its top level has {shortened(list(document))}")
