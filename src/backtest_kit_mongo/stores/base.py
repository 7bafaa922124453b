"""The Store protocol, the records that it reads and writes, and the BSON encoding that the stores share."""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from bson import Decimal128

from .._core import keys, writer
from .._core.blocks import CandleBlocks
from .._core.hit_reader import HitReader
from .._core.upsert_writer import UpsertWriter
from ..arguments import is_missing, none_for_missing, plain_scalar
from ..candles import CandleArray
from ..domains import Domain
from ..errors import InvalidTypeError, InvalidValueError
from .durations import iso_duration

__all__ = ["LARGEST_BODY", "MAX_DOCUMENT", "NO_HISTORY", "History", "Key", "Record", "Store", "check_key", "encode", "has_fields", "plain"]

Key = tuple[Any, ...]
"""The values of the key fields, in the order of the domain's ``key``."""

MAX_DOCUMENT = 16 * 1024 * 1024
"""MongoDB's limit for the size of a document, in bytes."""

LARGEST_BODY = MAX_DOCUMENT - 4096
"""The limit for the encoded content of a record, in bytes; the rest is reserved for key fields, dates and the command around them."""


class Record(NamedTuple):
    """One stored record: its key, its body, the simulation time of the write (ms), and whether it is softly deleted."""

    key: Key
    body: Any
    when: int | None = None
    removed: bool = False


class History(NamedTuple):
    """Which domains keep versions of their records, so that a read can return a record as of an earlier time."""

    domains: frozenset[str] = frozenset()
    limit: int = 1000
    """How many versions of a key are kept, including the current one; the oldest are deleted first. 0 keeps all."""
    days: int = 0
    """How far back from the newest version of a key versions are kept, in days of simulation time. 0 keeps all."""


NO_HISTORY: Final = History()


class Store(Protocol):
    """Where records live. Reads and writes take batches; every method is safe to call from several threads."""

    @property
    def blocks(self) -> CandleBlocks | None:
        """Closed candles in the memory of this process, to try before ``read_candles``; None for stores that would gain nothing."""

    @property
    def hits(self) -> Mapping[str, HitReader] | None:
        """The fast path of single reads, by domain name, to try before ``read``; None for stores that would gain nothing."""

    @property
    def upserts(self) -> Mapping[str, UpsertWriter] | None:
        """The fast path of single writes, by domain name, to try before ``write``; None for stores without one."""

    def wait_for_init(self, timeout: float) -> None:
        """Wait until the store is ready. Raises ServerTimeoutError if it is not ready within ``timeout`` seconds."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """Return the records of ``keys``, in their order; None for a key without a stored record."""

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """Store ``records``; all are acknowledged on return. The last record of a key wins, in insert-once domains the first."""

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """Store ``record`` only if its key still holds ``before``, the result of a read (None: no record); return whether it was stored.

        For keyed domains. The comparison and the write are one atomic step across threads, processes and machines.
        """

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Delete records softly, in domains with ``soft_delete``. Keys without a record are ignored."""

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """Yield the records with keys that begin with ``prefix``, newest first by the domain's list rule.

        Removed records are included only with ``removed``.
        """

    def records(self, domain: Domain) -> Iterator[Record]:
        """Yield every record of a domain once, including removed ones; list domains in the order of their first write."""

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """Return the keys of all records, removed ones too, whose key fields each have one of the values in ``fields``."""

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """Return ``limit`` (at least 1) candles from ``since`` (ms, on the grid), read-only; None if any of them is missing."""

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """Store those of the (already checked) candles that are not stored yet; return how many were new."""

    def candle_series(self) -> list[Key]:
        """Return the series that have stored candles, as sorted (exchangeName, symbol, interval) tuples."""

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """Yield the stored candles of a series that open in [since, until), in ascending batches. Times are ms; None means no bound.

        Gaps are skipped. The simulation time is ignored.
        """

    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """Give those of the (already checked, ascending) candles that are stored these values; return how many are. No other is stored.

        Each candle changes in one step: readers find its old or its new values. Memory: see ``remove_candles``.
        """

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """Delete the candles of a series that open in [since, until) (ms; None means no bound); return how many were deleted.

        This process forgets what it holds in memory; other processes may use candles that they read before for another minute.
        """

    # The next two methods are for domains with history. Each write stores a version. It replaces the version of its key with the same
    # time, and discards the versions of its key with later times.

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """Return the last version of each key written at or before ``moment`` (simulation time, ms); None for a key without one."""

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """Discard versions written at or after ``since`` (simulation time, ms); each record reverts to the version before or is deleted."""

    def drop_cache(self) -> int:
        """Forget cached ids here and in shared caches; return how many shared ones were deleted. Never touches data."""

    def close(self) -> None:
        """Close all connections. Idempotent."""


def check_key(domain: Domain, key: Key) -> Key:
    """Return ``key`` (all fields or the first ones) if it is valid, with scalars of NumPy as plain ones.

    Raises InvalidTypeError or InvalidValueError, naming the field.
    """
    if not all(type(value) in (str, bool, int) for value in key):  # else the same tuple: readers recognise it by its identity
        key = tuple(map(plain_scalar, key))
    try:
        keys.check_fields(key, domain.key[: len(key)], domain.kinds[: len(key)])
    except TypeError as error:
        raise InvalidTypeError(f"{domain.name}: {error}") from None
    except ValueError as error:
        raise InvalidValueError(f"{domain.name}: {error}") from None
    return key


def has_fields(domain: Domain, key: Key, fields: Mapping[str, Collection[Any]]) -> bool:
    """Return whether each key field that ``fields`` names has one of its values."""
    return all(key[domain.key.index(name)] in values for name, values in fields.items())


def plain(value: Any) -> Any:
    """Convert a value of a type that BSON lacks. Raises TypeError, ValueError or ArithmeticError if it cannot be stored."""
    if isinstance(value, (timedelta, np.timedelta64)):
        return iso_duration(value)
    if isinstance(value, (np.ndarray, np.generic)):
        if isinstance(value, np.ndarray) and value.dtype.kind == "m":
            return [plain(member) for member in value]
        if value.dtype.kind == "M":
            raise ValueError("NumPy times are naive; say which zone they are in, as in pandas.Timestamp(time, tz='UTC'), or use int ms")
        return value.tolist()
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        return Decimal128(value)  # raises decimal.Inexact beyond 34 digits
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        raise TypeError("a set has no order and cannot be stored; use a sorted list")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Shallow on purpose: members keep their types and are encoded one by one, so an error can name their path.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return _members(value)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, (pandas.Series, pandas.DataFrame)):
        return _labelled(value)
    if is_missing(value):  # NA of pandas
        raise TypeError(f"{value} is not a value; use None where there is none")
    try:
        return msgspec.to_builtins(value, builtin_types=_KEPT)
    except (TypeError, ValueError):
        raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored") from None


def _labelled(series: Any) -> dict[Any, Any]:
    """Return the members of a pandas Series by their labels; NaT and NA, which say that there is none, as None.

    Raises TypeError for a DataFrame and for labels that are not text, ValueError for a label that occurs twice.
    """
    if series.ndim != 1:
        raise TypeError("a DataFrame cannot be stored in a record; store its rows, as in frame.to_dict('records')")
    members: dict[Any, Any] = {}
    for label, member in series.items():
        if not isinstance(label, str):
            raise TypeError(f"a Series is stored by its labels, and {label!r:.40} is not text; store series.tolist() instead")
        if label in members:
            raise ValueError(f"a Series is stored by its labels, and has {label!r:.40} twice")
        members[label] = none_for_missing(member)
    return members


_fields = functools.lru_cache(256)(msgspec.structs.fields)  # which evaluates every annotation each time


def _members(value: msgspec.Struct) -> Any:
    """Return the members of a Struct as msgspec would encode them. One level deep, for the same reason as a dataclass."""
    config = value.__struct_config__
    members: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in _fields(type(value)):
        member = getattr(value, field.name)
        if member is msgspec.UNSET:
            continue
        if config.omit_defaults:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            if default is not msgspec.NODEFAULT and type(member) is type(default) and member == default:
                continue
        members[field.encode_name] = member
    return list(members.values()) if config.array_like else members


# Types that BSON supports and msgspec would otherwise turn into text.
_KEPT = (datetime, bytes, bytearray, Decimal)


def encode(domain: Domain, key: Key, document: dict[str, Any]) -> bytes:
    """Encode a document as BSON. Raises InvalidTypeError or InvalidValueError, naming the record, if it cannot be stored."""
    try:
        raw = writer.encode(document, plain)
    except TypeError as error:
        raise InvalidTypeError(f"{_named(domain, key)}: {error}") from None
    except (ValueError, ArithmeticError) as error:
        raise InvalidValueError(f"{_named(domain, key)}: {error}") from None
    except (RuntimeError, AttributeError) as error:  # another thread changed the document meanwhile, or a member is not set
        raise InvalidValueError(f"{_named(domain, key)}: {error}") from error
    if len(raw) > LARGEST_BODY:
        raise InvalidValueError(f"{_named(domain, key)}: {len(raw)} bytes; MongoDB limits a document to {MAX_DOCUMENT} bytes")
    return raw


def _named(domain: Domain, key: Key) -> str:
    return f"{domain.name} {', '.join(map(repr, key))}"
