"""``records``: query what is stored, as rows for notebooks.

MongoDB filters and sorts by itself. For other stores this module compares plain values on dotted paths, with the same results: a path
descends into lists, a value matches a list that contains it, only values of the same type are equal, and null matches a missing field.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, overload

import numpy as np
from bson import ObjectId
from bson import encode as bson_encode
from bson.errors import BSONError
from pymongo.errors import PyMongoError

from .._core import bson
from .._core.hit_reader import restore_infinity
from ..arguments import plain_scalar
from ..candles import GRIDS, PRICES, library, to_dicts
from ..contracts.bindings import Bindings
from ..contracts.default_registry import default_registry
from ..domains import DOMAINS, Domain, DomainName
from ..errors import InvalidTypeError, InvalidValueError, LookAheadError
from ..simulation import current_time
from ..stores.base import Record, Store
from ..stores.mongo.errors import reading, translated
from ..stores.mongo.store import MongoStore

if TYPE_CHECKING:
    from ..table_types import PandasFrame

__all__ = ["records"]

Row = dict[str, Any]

_SERVER_BATCH: Final = 10_000


@overload
def records(
    domain: DomainName,
    filter: Mapping[str, Any] | None = None,
    sort: Mapping[str, int] | None = None,
    limit: int | None = None,
    offset: int = 0,
    *,
    removed: bool = False,
    as_frame: Literal[False] = False,
    registry: Bindings | None = None,
) -> list[Row]: ...
@overload
def records(
    domain: DomainName,
    filter: Mapping[str, Any] | None = None,
    sort: Mapping[str, int] | None = None,
    limit: int | None = None,
    offset: int = 0,
    *,
    removed: bool = False,
    as_frame: Literal[True],
    registry: Bindings | None = None,
) -> PandasFrame: ...
@overload
def records(
    domain: DomainName,
    filter: Mapping[str, Any] | None = None,
    sort: Mapping[str, int] | None = None,
    limit: int | None = None,
    offset: int = 0,
    *,
    removed: bool = False,
    as_frame: bool,
    registry: Bindings | None = None,
) -> list[Row] | PandasFrame: ...
def records(
    domain: DomainName,
    filter: Mapping[str, Any] | None = None,
    sort: Mapping[str, int] | None = None,
    limit: int | None = None,
    offset: int = 0,
    *,
    removed: bool = False,
    as_frame: bool = False,
    registry: Bindings | None = None,
) -> list[Row] | PandasFrame:
    """Return the records of a domain, filtered and sorted, as a list of dicts or as a pandas DataFrame.

    A row has the key fields by their stored names (``strategyName``) and ``payload``; a DataFrame has a column ``payload.name`` for each
    member of the payload. Rows also have ``when`` (simulation time of the write in ms) if the domain carries it, and ``removed`` if the
    domain removes softly. Rows of ``candle`` are candles: ``exchangeName``, ``symbol``, ``interval``, ``timestamp`` (ms), ``open``,
    ``high``, ``low``, ``close`` and ``volume``. In a DataFrame ``when`` and ``timestamp`` are times in UTC.

    If reads of the domain respect the simulation time (``look_ahead``, ``history``) and there is one (``simulated_time``), rows of a
    later time are left out, or with ``look_ahead="raise"`` raise LookAheadError. Their earlier versions are not searched. Otherwise you
    get what is stored, whatever its time.

    Args:
        domain: the name of the domain, such as "signal"
        filter: a MongoDB query over these names, such as ``{"symbol": "BTCUSDT", "payload.priceOpen": {"$gt": 100}}``. If the domain is
            not on MongoDB, or candles are in the archive (``CC_CANDLE_FORMAT=packed``), it can only compare names with plain values, also
            by ``$eq``, ``$ne``, ``$gt``, ``$gte``, ``$lt``, ``$lte``, ``$in`` and ``$nin``
        sort: names and directions (1 or -1), as in ``{"when": -1}``; rows that compare equal come in order of their keys, and so do all
            rows without ``sort``
        limit: the most rows to return, counted after sorting; None means all
        offset: how many rows to skip, counted after sorting
        removed: True to include rows that were removed softly
        as_frame: True for a pandas DataFrame
        registry: the registry whose stores to query; None is the default one

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: there is no such domain, or an argument is not valid or uses an operator that the store does not have
        LookAheadError: a row is of a later simulation time, with look_ahead="raise"
        MissingDependencyError: ``as_frame`` without pandas
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> kit.PersistSignalAdapter.write_signal_data({"priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
        >>> rows = kit.records("signal", {"symbol": "BTCUSDT", "payload.priceOpen": {"$gt": 100}}, sort={"strategyName": 1})
        >>> [(row["strategyName"], row["payload"]) for row in rows]
        [('sma', {'priceOpen': 42000.0})]
    """
    row = DOMAINS.get(domain) if isinstance(domain, str) else None
    if row is None:
        raise InvalidValueError(f"there is no domain {domain!r}", hint=f"the domains are {', '.join(DOMAINS)}")
    try:
        query, order = _stored(row, {} if filter is None else filter), _order(row, {} if sort is None else sort)
        bson_encode(query)
    except (BSONError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise InvalidValueError(f"the filter cannot be encoded as BSON: {str(error) or 'nested too deep'}") from None
    limit = plain_scalar(limit)
    offset = plain_scalar(offset)
    for name, value in (("limit", limit), ("offset", offset)):
        if not (value is None and name == "limit") and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidTypeError(f"{name} must be an int, got {type(value).__name__}")
        if value is not None and not 0 <= value < 2**31:
            raise InvalidValueError(f"{name} must be at least 0 and below 2**31, got {value}")
    if as_frame:
        library("pandas", "pandas")  # fail before querying if pandas is missing
    include_removed = removed or not row.soft_delete
    registry = default_registry if registry is None else registry
    binding, store = registry.binding(domain), registry.store(row)
    moment = current_time() if binding.watches else None
    strict = binding.look_ahead == "raise"
    if limit == 0:
        rows: list[Row] = []
    elif isinstance(store, MongoStore) and not (row.body is None and store.archived_series()):
        conditions = [query] if include_removed else [query, {"removed": {"$in": [False, None]}}]
        if moment is not None:
            later = _later(row, moment)
            if strict:
                for document in _from_mongo(store, row, {"$and": [*conditions, later]}, order, 1, 0):
                    raise _from_the_future(row, document, moment)
            conditions.append({"$nor": [later]})
        rows = list(_from_mongo(store, row, {"$and": conditions}, order, limit or 0, offset))
    else:
        documents = (document for document in _documents(store, row, query) if include_removed or not document["removed"])
        rows = _sorted(documents if moment is None else _until(row, documents, moment, strict), order)[offset:][:limit]
    if row.body not in (None, "payload"):
        rows = [{"payload" if name == row.body else name: value for name, value in document.items()} for document in rows]
    if row.infinite:
        for record in rows:
            restore_infinity(record["payload"], *row.infinite)
    return _frame(row, rows) if as_frame else rows


# --- arguments ---


def _stored(domain: Domain, filter: Mapping[str, Any]) -> Row:
    """Return a filter with stored field names. Raises InvalidTypeError if it is not a dict, InvalidValueError for an unknown name."""
    if not isinstance(filter, Mapping):
        raise InvalidTypeError(f"filter must be a dict, got {type(filter).__name__}")
    query: Row = {}
    for name, condition in filter.items():
        if isinstance(name, str) and name.startswith("$"):
            nested = name in ("$and", "$or", "$nor") and isinstance(condition, list)
            query[name] = [_stored(domain, part) for part in condition] if nested else condition
        else:
            query[_stored_name(domain, name)] = condition
    return query


def _fields(domain: Domain) -> list[str]:
    """Return the names of the fields of a row."""
    if domain.body is None:
        return [*domain.key, *PRICES]
    return [*domain.key, *["when"] * domain.when, *["removed"] * domain.soft_delete, "payload"]


def _stored_name(domain: Domain, name: Any) -> str:
    fields = _fields(domain)
    head, dot, rest = name.partition(".") if isinstance(name, str) else (name, "", "")
    if head not in fields or (dot and head != "payload"):
        raise InvalidValueError(f"{domain.name} has no field {name!r}", hint=f"fields: {', '.join(fields)}; for a member use payload.NAME")
    return f"{domain.body}{dot}{rest}" if head == "payload" else head


def _order(domain: Domain, sort: Mapping[str, int]) -> dict[str, int]:
    """Return stored names and directions, with the key fields appended so that the order is total."""
    if not isinstance(sort, Mapping):
        raise InvalidTypeError(f'sort must be a dict such as {{"when": -1}}, got {type(sort).__name__}')
    for name, direction in sort.items():
        if type(direction) is not int or direction not in (1, -1):
            raise InvalidValueError(f"sort: the direction of {name} must be 1 or -1, got {direction!r}")
    order = {_stored_name(domain, name): direction for name, direction in sort.items()}
    return order | {name: 1 for name in domain.key if name not in order}


# --- simulation time ---


def _later(domain: Domain, moment: int) -> Row:
    """Return a query for what is later than ``moment`` (ms): records written after it, candles that close after it."""
    if domain.body is None:
        return {"$or": [{"interval": name, "timestamp": {"$gt": grid.closed_until(moment)}} for name, grid in GRIDS.items()]}
    return {"when": {"$gt": moment}}


def _until(domain: Domain, documents: Iterator[Row], moment: int, strict: bool) -> Iterator[Row]:
    """Yield the documents that are not later than ``moment`` (ms); with ``strict`` a later one raises LookAheadError."""
    for document in documents:
        time = GRIDS[document["interval"]].closes(document["timestamp"]) if domain.body is None else document["when"]
        if time is None or time <= moment:
            yield document
        elif strict:
            raise _from_the_future(domain, document, moment)


def _from_the_future(domain: Domain, document: Row, moment: int) -> LookAheadError:
    key = ", ".join(repr(document[name]) for name in domain.key)
    return LookAheadError(f"{domain.name} {key} is later than the simulation time, {moment} ms", hint='look_ahead="hide" omits such rows')


# --- MongoDB ---


def _from_mongo(store: MongoStore, domain: Domain, query: Row, order: dict[str, int], limit: int, offset: int) -> Iterator[Row]:
    reader = bson.RecordReader(domain.key, domain.body or "", Record)
    try:
        batches = store.connection.find(
            domain, query, sort=list(order.items()), limit=limit, skip=offset, batch_size=_SERVER_BATCH, allow_disk_use=True
        )
        for batch in batches:
            with reading(domain):
                if domain.body is None:
                    yield from (_candle(domain, bson.decode(raw)) for raw in bson.split(batch))
                else:
                    yield from (_document(domain, record) for _, record in reader.open_all(batch))
    except PyMongoError as error:
        raise translated(error) from error
    except (BSONError, OverflowError) as error:
        raise InvalidValueError(f"the filter cannot be sent to MongoDB: {error}") from error


def _candle(domain: Domain, document: Row) -> Row:
    row = {name: document.get(name) for name in domain.key}
    for name in ("timestamp", *PRICES):
        value = document.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise ValueError(f"{name} is not a number")
        row[name] = int(value) if name == "timestamp" else float(value)
    return row


# --- other stores ---


def _document(domain: Domain, record: Record) -> Row:
    """Return a record as the document that MongoDB stores."""
    document: Row = dict(zip(domain.key, record.key, strict=True))
    if domain.when:
        document["when"] = record.when
    if domain.soft_delete:
        document["removed"] = record.removed
    document[domain.body or ""] = record.body
    return document


def _documents(store: Store, domain: Domain, query: Row) -> Iterator[Row]:
    """Return the documents of a store that match."""
    conditions = {path: _condition(path, value) for path, value in query.items()}
    if domain.body is None:
        documents = _candles(store, query, conditions)
    else:
        documents = (_document(domain, record) for record in store.records(domain))
    matching = [(path.split("."), condition) for path, condition in conditions.items()]
    return (row for row in documents if all(condition(list(_values(row, path))) for path, condition in matching))


def _candles(store: Store, query: Row, conditions: Mapping[str, _Condition]) -> Iterator[Row]:
    """Yield the candles of the series that match, of the times that may match."""
    names = DOMAINS["candle"].key[:-1]
    since, until = _times(query.get("timestamp"))
    for series in store.candle_series():
        fields = dict(zip(names, series, strict=True))
        if all(conditions[name]([fields[name]]) for name in names if name in conditions):
            for candles in store.stored_candles(series, since, until):
                yield from ({**fields, **candle} for candle in to_dicts(candles))


def _times(condition: Any) -> tuple[int | None, int | None]:
    """Return the first and the last time (ms), exclusive, that can meet a condition; None: no bound."""
    bounds = condition if isinstance(condition, dict) else {"$eq": condition}
    bounds = {name: value for name, value in bounds.items() if isinstance(value, (int, float)) and abs(value) < 2**53}
    lowest = [math.floor(bounds[name]) for name in ("$eq", "$gte", "$gt") if name in bounds]
    highest = [math.floor(bounds[name]) + 1 for name in ("$eq", "$lte", "$lt") if name in bounds]
    return max(lowest, default=None), min(highest, default=None)


_MISSING: Final = object()


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    """Yield what MongoDB compares at a path: the value and, if it is a list, its members. Lists along the path are searched too."""
    if not path:
        yield value
        if isinstance(value, list):
            yield from value
        return
    head, *rest = path
    if isinstance(value, dict):
        yield from _values(value[head], rest) if head in value else [_MISSING]
    elif isinstance(value, list):
        for member in value[int(head) :][:1] if head.isascii() and head.isdecimal() and len(head) < 10 else ():
            if not rest:
                yield member  # not its members, even if it is a list too
            elif isinstance(member, (dict, list)):
                yield from _values(member, rest)
        for member in value:
            if isinstance(member, dict):
                yield from _values(member, path)
    else:
        yield _MISSING


def _only_mongodb(what: str) -> InvalidValueError:
    return InvalidValueError(
        f"only MongoDB supports {what}",
        hint="this store (or the archive of candles) compares with null, bool, numbers, str and datetime, and knows "
        f"{', '.join(_OPERATORS)}; as_frame=True returns a DataFrame to filter further",
    )


def _plain(path: str, value: Any) -> Any:
    """Return a value that this module can compare. Raises InvalidValueError for any other, and for an operator."""
    if path.startswith("$"):
        raise _only_mongodb(path)
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value.replace(microsecond=value.microsecond // 1000 * 1000)  # BSON has millisecond precision
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and not math.isnan(value)):
        return value
    raise _only_mongodb(f"{path}: {value!r:.40}")


def _equal(stored: Any, value: Any) -> bool:
    return _rank(stored) == _rank(value) and (value is None or bool(stored == value))


_Condition = Callable[[list[Any]], bool]
"""Whether the values at a path of a document match."""

_ORDERS: Final = {"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le}
_OPERATORS: Final = ("$eq", "$ne", "$in", "$nin", *_ORDERS)


def _condition(path: str, value: Any) -> _Condition:
    """Return a condition of a filter. Raises InvalidValueError for what only MongoDB supports."""
    if not isinstance(value, dict):
        return _operation(path, "$eq", value)
    if not value or not value.keys() <= set(_OPERATORS):
        raise _only_mongodb(f"{path}: {value!r:.40}")
    operations = [_operation(path, name, operand) for name, operand in value.items()]
    return lambda stored: all(operation(stored) for operation in operations)


def _operation(path: str, name: str, operand: Any) -> _Condition:
    if name in _ORDERS:
        bound, compare = _plain(path, operand), _ORDERS[name]
        if bound is None or isinstance(bound, bool):
            raise _only_mongodb(f"{path}: {{{name!r}: {operand!r}}}")
        return lambda stored: any(_rank(value) == _rank(bound) and compare(value, bound) for value in stored)
    if name in ("$in", "$nin"):
        if not isinstance(operand, list):
            raise InvalidValueError(f"{path}: {name} needs a list, got {operand!r:.40}")
        choices = [_plain(path, choice) for choice in operand]
    else:
        choices = [_plain(path, operand)]
    negated = name in ("$ne", "$nin")
    return lambda stored: negated != any(_equal(value, choice) for value in stored for choice in choices)


# MongoDB's order of types. A list sorts by its members, an empty one first.
_KINDS: Final = ((bool, 8), ((int, float, Decimal), 2), (str, 3), (dict, 4), (list, 5), (bytes, 6), (ObjectId, 7), (datetime, 9))


def _rank(value: Any) -> int:
    if value is None or value is _MISSING:
        return 1
    return next((rank for kind, rank in _KINDS if isinstance(value, kind)), 10)


def _sorted(documents: Iterator[Row], order: dict[str, int]) -> list[Row]:
    rows = list(documents)
    for name, direction in reversed(order.items()):
        path, best = name.split("."), min if direction > 0 else max
        rows.sort(key=lambda row: best(_sort_keys(row, path, name)), reverse=direction < 0)
    return rows


def _sort_keys(row: Row, path: list[str], name: str) -> list[tuple[Any, ...]]:
    values = [value for value in _values(row, path) if not isinstance(value, list)]
    if not values:
        return [(0,)]
    keys = []
    for value in values:
        rank = _rank(value)
        if rank in (4, 10):
            raise _only_mongodb(f"sorting by {name} if it is {value!r:.40}")
        nan = isinstance(value, float) and math.isnan(value)
        keys.append((rank,) if rank == 1 else (rank, not nan, 0 if nan else value))
    return keys


# --- DataFrame ---


def _frame(domain: Domain, rows: list[Row]) -> PandasFrame:
    pandas = library("pandas", "pandas")
    frame: PandasFrame = pandas.json_normalize(rows, max_level=1) if rows else pandas.DataFrame(columns=_fields(domain))
    for name in ("when", "timestamp"):
        if name in frame.columns:
            try:
                times = np.array([row[name] for row in rows], "datetime64[ms]")  # None is NaT
            except (OverflowError, ValueError) as error:
                raise InvalidValueError(
                    f"{domain.name}: a stored {name} is not a timestamp in milliseconds: {error}",
                    hint="as_frame=False returns it unchanged",
                ) from None
            frame[name] = pandas.DatetimeIndex(times).tz_localize("UTC")
    return frame
