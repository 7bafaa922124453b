"""Export a domain to a Parquet or CSV file, in batches.

Candles have the columns ``exchangeName``, ``symbol``, ``interval`` (without those that the selection fixes), ``timestamp``, ``open``,
``high``, ``low``, ``close`` and ``volume``. Other domains have their key fields, ``when`` and ``removed`` if the domain has them, a column
``payload.NAME`` for each field that the type of its payload declares (``payloads``), and ``payload``: the rest of the payload as JSON, so
that nothing is lost. It is ``{}`` if there is no rest, null for a null payload, and the whole payload if that is not an object.

Times are in UTC with milliseconds. ``payload.NAME`` columns have the declared type: number, text or bool; nested values are JSON, in
which a value that JSON does not have is MongoDB Extended JSON.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from msgspec import inspect

from .._core.hit_reader import restore_infinity
from ..candles import PRICES, library
from ..domains import Domain
from ..errors import InvalidValueError
from ..output_files import check_target, replacing
from ..simulation import milliseconds
from ..stores.base import Record, Store
from ..stores.files.extended_json import extended, plain_form
from ..stores.files.json_text import text_of

__all__ = ["Selection", "check_export", "export_domain"]

BATCH: Final = 10_000

Kind = Literal["text", "float", "int", "bool", "time", "json"]
Columns = dict[str, Kind]


class Selection(NamedTuple):
    """Which records of a domain to export: values of key fields, and a time span."""

    fields: Mapping[str, str] = {}
    """Values of key fields by their stored names, such as ``{"symbol": "BTCUSDT"}``."""
    since: int | None = None
    """The first time of the span, in ms: the open time of candles, the simulation time (``when``) of other records. None is no limit."""
    until: int | None = None
    """The end of the span in ms, which is not part of it. None is no limit."""

    def takes(self, domain: Domain, record: Record) -> bool:
        """Return whether a ``record`` of a ``domain`` is selected."""
        if any(record.key[domain.key.index(name)] != value for name, value in self.fields.items()):
            return False
        if self.since is None and self.until is None:
            return True
        when = record.when
        return when is not None and (self.since is None or self.since <= when) and (self.until is None or when < self.until)


EVERYTHING: Final = Selection()


def check_export(domain: Domain, path: Path, selection: Selection, *, force: bool) -> None:
    """Check the arguments of an export before anything is read.

    Args:
        domain: a row of ``DOMAINS``
        path: the file to write, ``.parquet`` or ``.csv``
        selection: which records to export
        force: True to overwrite a file

    Raises:
        InvalidValueError: the domain has no such key field or no times, the suffix is unknown, or the file exists (without ``force``) or
            cannot be written
        MissingDependencyError: Parquet without pyarrow
        StorageError: the path cannot be checked

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.data.export import Selection, check_export
        >>> from backtest_kit_mongo.domains import DOMAINS
        >>> check_export(DOMAINS["signal"], Path("signals.csv"), Selection({"symbol": "BTCUSDT"}), force=False)
    """
    for name in selection.fields:
        if name not in domain.key:
            raise InvalidValueError(f"{domain.name} has no key field {name}", hint=f"its key fields: {', '.join(domain.key)}")
    if not (domain.when or domain.body is None) and (selection.since, selection.until) != (None, None):
        raise InvalidValueError(f"{domain.name} stores no simulation time, so its records cannot be selected by time")
    if path.suffix not in _WRITERS:
        raise InvalidValueError(f"{path} must end in {' or '.join(_WRITERS)}")
    if path.suffix == ".parquet":
        library("pyarrow", "arrow")
    check_target(path)
    if path.exists() and not force:
        raise InvalidValueError(f"{path} already exists", hint="use --force to overwrite it")


def export_domain(
    store: Store,
    domain: Domain,
    path: Path,
    selection: Selection = EVERYTHING,
    *,
    force: bool = False,
    moved: Callable[[int], None] = lambda count: None,
) -> int:
    """Write a domain to a Parquet or CSV file, including removed records, and return the number of rows.

    The file is written beside ``path`` and renamed at the end, so it is never incomplete. The columns are described at the top of this
    module.

    Args:
        store: the store that has the records
        domain: a row of ``DOMAINS``
        path: the file to write, ``.parquet`` or ``.csv``
        selection: which records to export
        force: True to overwrite a file
        moved: called with the number of records of each batch that was read

    Raises:
        InvalidValueError: an argument is not valid, see ``check_export``
        MissingDependencyError: Parquet without pyarrow
        StorageError: the file cannot be written

    Examples:
        >>> from pathlib import Path
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo.data.export import export_domain
        >>> from backtest_kit_mongo.domains import DOMAINS
        >>> registry = kit.Registry()
        >>> registry.setup(stores={"signal": "memory"})
        >>> registry.PersistSignalAdapter.write_signal_data({"id": "s1"}, "BTCUSDT", "sma", "binance")
        >>> export_domain(registry.store(DOMAINS["signal"]), DOMAINS["signal"], Path("signals.csv"))
        1
    """
    check_export(domain, path, selection, force=force)
    columns, batches = _candle_rows(store, domain, selection) if domain.body is None else _record_rows(store, domain, selection)
    count = 0
    with replacing(path) as file, closing(_WRITERS[path.suffix](file, columns)) as writer:
        for read, batch in batches:
            if len(batch[0]):
                writer.write(batch)
                count += len(batch[0])
            moved(read)
    return count


# --- rows ---

Batches = Iterator[tuple[int, Sequence[Any]]]
"""Per batch: how many records were read, and a sequence of values for each column."""


def _candle_rows(store: Store, domain: Domain, selection: Selection) -> tuple[Columns, Batches]:
    names = [name for name in domain.key[:-1] if name not in selection.fields]
    prices: Columns = dict.fromkeys(PRICES, "float")
    texts: Columns = dict.fromkeys(names, "text")
    columns: Columns = texts | {"timestamp": "time"} | prices

    def batches() -> Batches:
        for series in store.candle_series():
            fields = dict(zip(domain.key, series, strict=False))
            if any(fields[name] != value for name, value in selection.fields.items()):
                continue
            for candles in store.stored_candles(series, selection.since, selection.until):
                fixed = [[fields[name]] * len(candles) for name in names]
                yield len(candles), [*fixed, *(candles[name] for name in ("timestamp", *PRICES))]

    return columns, batches()


def _record_rows(store: Store, domain: Domain, selection: Selection) -> tuple[Columns, Batches]:
    declared = declared_fields(domain.payload)
    keys: Columns = {name: "bool" if kind is bool else "text" for name, kind in zip(domain.key, domain.kinds, strict=True)}
    times: Columns = {"when": "time"} if domain.when else {}
    flags: Columns = {"removed": "bool"} if domain.soft_delete else {}
    columns: Columns = keys | times | flags | {f"payload.{name}": kind for name, kind in declared.items()} | {"payload": "json"}

    def batches() -> Batches:
        records = store.records(domain)
        while batch := list(islice(records, BATCH)):
            if domain.infinite:
                for record in batch:
                    restore_infinity(record.body, *domain.infinite)
            rows = [
                (*record.key, *[record.when] * domain.when, *[record.removed] * domain.soft_delete, *_flat(domain, record.body, declared))
                for record in batch
                if selection.takes(domain, record)
            ]
            yield len(batch), list(zip(*rows, strict=True)) or [()] * len(columns)

    return columns, batches()


def _flat(domain: Domain, body: Any, declared: Columns) -> list[Any]:
    """Return a value for each declared field, None where the body has none of that type, and the rest as JSON."""
    plain = plain_form(domain, body)
    if not isinstance(body, dict):
        return [None] * len(declared) + [None if body is None else _json(plain)]
    values = {name: _fitting((plain if kind == "json" else body).get(name), kind) for name, kind in declared.items()}
    rest = {name: value for name, value in plain.items() if name not in values or (values[name] is None and value is not None)}
    return [*values.values(), _json(rest)]


def _json(value: Any) -> str:
    """Return JSON, or Extended JSON if the value holds what JSON does not have."""
    return text_of(extended(value)[0]).decode()


def _fitting(value: Any, kind: Kind) -> Any:
    """Return a value as its column holds it, or None if the column cannot hold it exactly."""
    if value is None:
        return None
    if kind == "json":
        return _json(value)
    if kind == "time":
        try:
            return milliseconds("time", msgspec.convert(value, datetime))
        except (msgspec.ValidationError, InvalidValueError):  # not a time, or one without a time zone
            return None
    if kind in ("text", "bool"):
        return value if isinstance(value, str if kind == "text" else bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == "float":
        return float(value) if isinstance(value, float) or abs(value) <= 2**53 else None
    return int(value) if value % 1 == 0 and -(2**63) <= value < 2**63 else None


def declared_fields(payload: Any) -> Columns:
    """Return the fields of a payload type by their stored names; for a union, the fields of all its members."""
    return _fields_of(inspect.type_info(payload))


def _fields_of(kind: inspect.Type) -> Columns:
    fields: Columns = {}
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            for name, member_kind in _fields_of(member).items():
                fields[name] = member_kind if fields.get(name, member_kind) == member_kind else "json"
    elif isinstance(kind, inspect.StructType):
        if kind.tag_field is not None:
            fields[kind.tag_field] = "text"
        fields |= {field.encode_name: _kind(field.type) for field in kind.fields}
    return fields


def _kind(type: inspect.Type) -> Kind:
    kinds: set[Kind] = set()
    for member in type.types if isinstance(type, inspect.UnionType) else (type,):
        match member:
            case inspect.NoneType():
                pass
            case inspect.BoolType():
                kinds.add("bool")
            case inspect.IntType() | inspect.FloatType(multiple_of=1):  # JavaScript stores integers as whole doubles
                kinds.add("int")
            case inspect.FloatType():
                kinds.add("float")
            case inspect.DateTimeType():
                kinds.add("time")
            case inspect.StrType() | inspect.LiteralType():
                kinds.add("text")
            case _:
                kinds.add("json")
    return kinds.pop() if len(kinds) == 1 else "json"


# --- files ---


class _Writer(Protocol):
    def __init__(self, file: IO[bytes], columns: Columns) -> None: ...

    def write(self, values: Sequence[Any]) -> None:
        """Write a batch: the values of each column, times in ms."""

    def close(self) -> None: ...


def _times(values: Any) -> Any:
    """Convert times in ms (None: no time) to datetime64."""
    return np.array(values, "datetime64[ms]")


class _Csv:
    """Writes values as Python formats them, times in ISO 8601. An empty cell is null or empty text."""

    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="")
        self._kinds = columns.values()
        self._writer = csv.writer(self._text)
        self._writer.writerow(columns)

    def write(self, values: Sequence[Any]) -> None:
        self._writer.writerows(zip(*map(self._cells, values, self._kinds), strict=True))

    @staticmethod
    def _cells(values: Any, kind: Kind) -> Any:
        if kind == "time":
            texts = np.datetime_as_string(_times(values), timezone="UTC").tolist()
            return ["" if text == "NaT" else text for text in texts]
        if kind == "bool":
            return ["" if value is None else "true" if value else "false" for value in values]
        return values.tolist() if isinstance(values, np.ndarray) else values

    def close(self) -> None:
        self._text.detach()


class _Parquet:
    def __init__(self, file: IO[bytes], columns: Columns) -> None:
        self._arrow = arrow = importlib.import_module("pyarrow")
        types: dict[Kind, Any] = {
            "text": arrow.string(), "json": arrow.string(), "float": arrow.float64(), "int": arrow.int64(), "bool": arrow.bool_(),
            "time": arrow.timestamp("ms", tz="UTC"),
        }  # fmt: skip
        self._kinds = list(columns.values())
        self._schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = importlib.import_module("pyarrow.parquet").ParquetWriter(file, self._schema)

    def write(self, values: Sequence[Any]) -> None:
        arrays = [
            self._arrow.array(_times(column) if kind == "time" else column, field.type)
            for column, kind, field in zip(values, self._kinds, self._schema, strict=True)
        ]
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


_WRITERS: Final[Mapping[str, type[_Writer]]] = {".csv": _Csv, ".parquet": _Parquet}
