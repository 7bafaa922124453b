"""The seventeen domains, one declared row each.

This table defines collections, indexes, Redis keys, empty values, list rules, and the names and argument order of the public
methods. It follows the storage format (FORMAT) and the contracts of the TypeScript package. To add a domain, add a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from . import payloads
from .contract_names import DomainName

__all__ = ["CANDLE_ARCHIVE", "DOMAINS", "PACKED_CANDLES", "Call", "Domain", "DomainName", "ListRule", "field_name"]

Operation = Literal["read", "write", "remove", "has", "keys", "records", "rows", "put_rows", "candles", "array", "put_candles"]
Index = tuple[tuple[str, int], ...]

# The key fields that are not text. All others are str.
_KINDS: Final = MappingProxyType({"backtest": bool, "timestamp": int})


def field_name(argument: str) -> str:
    """Return the stored (camelCase) name of a public argument: ``strategyName`` for ``strategy_name``, ``entryKey`` for ``key``."""
    if argument == "key":
        return "entryKey"
    first, *rest = argument.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _argument_name(field: str) -> str:
    """Return the public argument for a stored name: ``signal_id`` for ``signalId``."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field)


class InfiniteField(NamedTuple):
    """A field of rows in which null means +Infinity: JSON has no Infinity, so a row that went through JSON holds null."""

    name: str
    unless_below: str  # in a row below this name the field is optional, and null means the default


_LIFETIME: Final = InfiniteField("minuteEstimatedTime", unless_below="createdSignal")


@dataclass(frozen=True)
class Call:
    """One public method: what it does, its name, and its arguments in the order of the TypeScript package."""

    operation: Operation
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class ListRule:
    """How to list a domain: newest first by the date ``order``, at most ``limit`` records unless the caller passes another limit."""

    order: Literal["createDate", "updatedDate"]
    limit: int | None = None
    oldest_first: bool = False  # the newest ``limit`` records, but returned oldest first


@dataclass(frozen=True)
class Domain:
    """What one contract stores and where."""

    name: DomainName
    key: tuple[str, ...]  # the fields of the unique index, in index order
    cache: tuple[str, ...]  # the same fields, in the order of the Redis key
    context: tuple[str, ...]  # the constructor arguments of the instance
    calls: tuple[Call, ...]
    payload: Any  # the msgspec type of a body
    body: str | None = "payload"  # the field that holds the body; None: the fields of the body are fields of the document
    write: Literal["upsert", "insert_once"] = "upsert"
    when: bool = False  # a record has the simulation time of its write
    soft_delete: bool = False
    empty: Callable[[], Any] = field(default=lambda: None)  # what a read returns if nothing is stored
    listing: ListRule | None = None
    indexes: tuple[Index, ...] = ()  # besides the unique one; only those that our queries use
    infinite: InfiniteField | None = None
    dates: tuple[tuple[str, ...], ...] = ()  # paths to the framework's own dates in a body, which are ISO text in JSON
    nullable: bool = True  # you may write None
    stored_in: str | None = None  # the collection, if it does not have the name of the domain

    def call(self, operation: Operation) -> Call:
        """Return the public method of an operation. Raises StopIteration if the domain has none."""
        return next(call for call in self.calls if call.operation == operation)

    @cached_property
    def collection(self) -> str:
        """Name of the MongoDB collection."""
        return self.stored_in or f"{self.name}-items"

    @cached_property
    def prefix(self) -> str:
        """Prefix of the Redis keys."""
        return f"{self.name}_cache"

    @cached_property
    def kinds(self) -> tuple[type, ...]:
        """Python type of each key field."""
        return tuple(_KINDS.get(name, str) for name in self.key)

    @cached_property
    def cache_order(self) -> tuple[int, ...]:
        """Positions of the key fields in the Redis key."""
        return tuple(self.key.index(name) for name in self.cache)

    @cached_property
    def unique_index(self) -> Index:
        """The unique index in the form that pymongo expects."""
        return tuple((name, 1) for name in self.key)

    @cached_property
    def keyed(self) -> bool:
        """Whether records are read and written one by one, by key, so that caching their ids pays off."""
        return any(call.operation == "read" for call in self.calls)

    @cached_property
    def key_arguments(self) -> tuple[str, ...]:
        """The arguments that select one record: those of the read without ``when``; for lists and candles, context and last key field."""
        for call in self.calls:
            if call.operation == "read":
                return tuple(name for name in call.arguments if name != "when")
        return (*self.context, _argument_name(self.key[-1]))

    def key_of(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return the key for the values of ``key_arguments``."""
        names = [field_name(name) for name in self.key_arguments]
        return tuple(arguments[names.index(name)] for name in self.key)

    @cached_property
    def row_id(self) -> str:
        """The key field that each row of a list has as its ``id``. Only for domains that are written as lists."""
        return self.key[-1]


def _calls(**specs: str) -> tuple[Call, ...]:
    """Return the calls of specs such as ``read="read_x_data a b"``, which stands for the method ``read_x_data(a, b)``."""
    calls = []
    for operation, spec in specs.items():
        name, *arguments = spec.split()
        calls.append(Call(operation, name, tuple(arguments)))  # type: ignore[arg-type]
    return tuple(calls)


def _slot(name: DomainName, payload: Any) -> Domain:
    """Return a domain with one record per (symbol, strategy, exchange): Signal, Schedule, Strategy."""
    return Domain(
        name=name,
        key=("symbol", "strategyName", "exchangeName"),
        cache=("exchangeName", "strategyName", "symbol"),
        context=("symbol", "strategy_name", "exchange_name"),
        calls=_calls(
            read=f"read_{name}_data symbol strategy_name exchange_name",
            write=f"write_{name}_data row symbol strategy_name exchange_name",
        ),
        payload=payload,
        infinite=_LIFETIME,
    )


def _levels(name: DomainName, payload: Any) -> Domain:
    """Return a domain with one map of levels per signal: Partial, Breakeven."""
    return Domain(
        name=name,
        key=("symbol", "strategyName", "exchangeName", "signalId"),
        cache=("exchangeName", "strategyName", "symbol", "signalId"),
        context=("symbol", "strategy_name", "exchange_name"),
        calls=_calls(
            read=f"read_{name}_data symbol strategy_name signal_id exchange_name when",
            write=f"write_{name}_data data symbol strategy_name signal_id exchange_name when",
        ),
        payload=payload,
        when=True,
        empty=dict,
    )


def _bucket(name: DomainName, payload: Any, *, when: bool) -> Domain:
    """Return a domain with softly deleted entries in buckets: Measure, Interval."""
    return Domain(
        name=name,
        key=("bucket", "entryKey"),
        cache=("bucket", "entryKey"),
        context=("bucket",),
        calls=_calls(
            read=f"read_{name}_data bucket key",
            write=f"write_{name}_data data bucket key when",
            remove=f"remove_{name}_data bucket key",
            keys=f"list_{name}_data bucket",
        ),
        payload=payload,
        when=when,
        soft_delete=True,
        nullable=False,
        listing=ListRule("updatedDate"),
        indexes=((("bucket", 1), ("removed", 1)),),
        dates=(("when",),) if when else (),
    )


_ROWS: Final = (
    Domain(
        name="candle",
        key=("exchangeName", "symbol", "interval", "timestamp"),
        cache=("exchangeName", "symbol", "interval", "timestamp"),
        context=("symbol", "interval", "exchange_name"),
        calls=_calls(
            candles="read_candles_data symbol interval exchange_name limit since_timestamp until_timestamp",
            array="read_candles_array symbol interval exchange_name limit since_timestamp",
            put_candles="write_candles_data candles symbol interval exchange_name",
        ),
        payload=payloads.Candle,
        body=None,
        write="insert_once",
        nullable=False,
    ),
    _slot("signal", payloads.SignalRow),
    _slot("schedule", payloads.ScheduledSignalRow),
    _slot("strategy", payloads.StrategyData),
    Domain(
        name="risk",
        key=("riskName", "exchangeName"),
        cache=("exchangeName", "riskName"),
        context=("risk_name", "exchange_name"),
        calls=_calls(
            read="read_position_data risk_name exchange_name when",
            write="write_position_data positions risk_name exchange_name when",
        ),
        payload=payloads.RiskData,
        body="positions",
        when=True,
        empty=list,
        infinite=_LIFETIME,
    ),
    _levels("partial", payloads.PartialData),
    _levels("breakeven", payloads.BreakevenData),
    Domain(
        name="storage",
        key=("backtest", "signalId"),
        cache=("backtest", "signalId"),
        context=("backtest",),
        calls=_calls(rows="read_storage_data backtest", put_rows="write_storage_data rows backtest"),
        payload=payloads.StorageSignalRow,
        nullable=False,
        infinite=_LIFETIME,
        listing=ListRule("updatedDate", limit=1000),
    ),
    Domain(
        name="notification",
        key=("backtest", "notificationId"),
        cache=("backtest", "notificationId"),
        context=("backtest",),
        calls=_calls(rows="read_notification_data backtest", put_rows="write_notification_data rows backtest"),
        payload=payloads.NotificationModel,
        nullable=False,
        infinite=_LIFETIME,
        listing=ListRule("createDate", limit=5000, oldest_first=True),
        # The TypeScript package's backtest_1_createDate_-1 leaves equal dates unordered. With _id the index is a total order.
        indexes=((("backtest", 1), ("createDate", -1), ("_id", -1)),),
    ),
    Domain(
        name="log",
        key=("entryId",),
        cache=("entryId",),
        context=(),
        calls=_calls(rows="read_log_data", put_rows="write_log_data entries"),
        payload=payloads.LogEntry,
        write="insert_once",
        nullable=False,
        listing=ListRule("createDate", limit=1000, oldest_first=True),
        dates=(("executionContext", "when"),),
        indexes=((("createDate", -1), ("_id", -1)),),
    ),
    _bucket("measure", payloads.MeasureData, when=False),
    _bucket("interval", payloads.IntervalData, when=True),
    Domain(
        name="memory",
        key=("signalId", "bucketName", "memoryId"),
        cache=("signalId", "bucketName", "memoryId"),
        context=("signal_id", "bucket_name"),
        calls=_calls(
            read="read_memory_data signal_id bucket_name memory_id",
            has="has_memory_data signal_id bucket_name memory_id",
            write="write_memory_data data signal_id bucket_name memory_id when",
            remove="remove_memory_data signal_id bucket_name memory_id",
            records="list_memory_data signal_id bucket_name",
        ),
        payload=payloads.MemoryData,
        when=True,
        soft_delete=True,
        nullable=False,
        listing=ListRule("updatedDate"),
        indexes=((("signalId", 1), ("bucketName", 1), ("removed", 1)),),
    ),
    Domain(
        name="recent",
        key=("symbol", "strategyName", "exchangeName", "frameName", "backtest"),
        cache=("backtest", "exchangeName", "strategyName", "frameName", "symbol"),
        context=("symbol", "strategy_name", "exchange_name", "frame_name", "backtest"),
        calls=_calls(
            read="read_recent_data symbol strategy_name exchange_name frame_name backtest",
            write="write_recent_data row symbol strategy_name exchange_name frame_name backtest when",
        ),
        payload=payloads.PublicSignalRow,
        when=True,
        infinite=_LIFETIME,
    ),
    Domain(
        name="state",
        key=("signalId", "bucketName"),
        cache=("signalId", "bucketName"),
        context=("signal_id", "bucket_name"),
        calls=_calls(
            read="read_state_data signal_id bucket_name",
            write="write_state_data data signal_id bucket_name when",
        ),
        payload=payloads.StateData,
        when=True,
    ),
    Domain(
        name="session",
        key=("strategyName", "exchangeName", "frameName", "symbol", "backtest"),
        cache=("exchangeName", "strategyName", "frameName", "symbol", "backtest"),
        context=("strategy_name", "exchange_name", "frame_name", "symbol", "backtest"),
        calls=_calls(
            read="read_session_data strategy_name exchange_name frame_name symbol backtest",
            write="write_session_data data strategy_name exchange_name frame_name when symbol backtest",
        ),
        payload=payloads.SessionData,
        when=True,
    ),
    Domain(
        name="dictionary",
        key=("signalId", "dictionaryName"),
        cache=("signalId", "dictionaryName"),
        context=("signal_id", "dictionary_name"),
        calls=_calls(
            read="read_dictionary_data signal_id dictionary_name",
            write="write_dictionary_data data signal_id dictionary_name when",
        ),
        payload=payloads.DictionaryData,
        when=True,
    ),
)

DOMAINS: Final[Mapping[str, Domain]] = MappingProxyType({row.name: row for row in _ROWS})

PACKED_CANDLES: Final = replace(DOMAINS["candle"], stored_in="candle-blocks", key=("exchangeName", "symbol", "interval", "block"))
"""Packed copies of candles, a collection of this library alone; see ``stores.mongo.packed_candles``. Not a contract."""

CANDLE_ARCHIVE: Final = replace(PACKED_CANDLES, stored_in="candle-archive")
"""Packed candles that are stored nowhere else (``CC_CANDLE_FORMAT=packed``); see ``stores.mongo.candle_archive``. Not a contract."""
