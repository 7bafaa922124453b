"""The Store protocol, the record that passes through it, and the encoding that every store shares."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from bson import Decimal128

from .._core import keys, writer
from .._core.blocks import CandleBlocks
from .._core.hit_reader import HitReader
from .._core.upsert_writer import UpsertWriter
from ..candles import CandleArray
from ..domains import Domain
from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["LARGEST_BODY", "MAX_DOCUMENT", "NO_HISTORY", "History", "Key", "Record", "Store", "check_key", "encode", "plain"]

Key = tuple[Any, ...]
"""Key fields in the order of the domain's ``key``."""

MAX_DOCUMENT = 16 * 1024 * 1024
"""MongoDB's limit for one document, in bytes."""

LARGEST_BODY = MAX_DOCUMENT - 4096
"""The same for what a record stores; the rest is for key fields, dates and the command around them."""


class Record(NamedTuple):
    """One stored thing: its key, its body, the simulation time of the write (ms), and whether it is softly deleted."""

    key: Key
    body: Any
    when: int | None = None
    removed: bool = False


class History(NamedTuple):
    """Which domains keep the versions of their records, so that a read can ask for one as of a time."""

    domains: frozenset[str] = frozenset()
    limit: int = 1000
    """Versions of one key that are kept, the current one among them; the oldest go first. 0: all."""
    days: int = 0
    """How long before the newest version of its key one is kept, in days of simulation time. 0: without end."""


NO_HISTORY: Final = History()


class Store(Protocol):
    """Where records live. Batches first; every method is safe to call from many threads."""

    @property
    def blocks(self) -> CandleBlocks | None:
        """Closed candles in the memory of this process, to be looked at before ``read_candles``; None where it would save nothing."""

    @property
    def hits(self) -> Mapping[str, HitReader] | None:
        """By domain name the straight path to a body, to be tried before ``read``; None where it would save nothing."""

    @property
    def upserts(self) -> Mapping[str, UpsertWriter] | None:
        """By domain name the straight path of a single write, to be tried before ``write``; None where there is none."""

    def wait_for_init(self, timeout: float) -> None:
        """Return when the store is ready; raise ServerTimeoutError within ``timeout`` seconds if not."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """The records of ``keys``, in their order; None where nothing is stored."""

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """Store all ``records`` (the last one of a key wins; for insert-once domains the first); all acknowledged on return."""

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """Store ``record`` of a keyed domain if its key still has what a read gave as ``before`` (None: nothing); whether it had.

        No write of another thread, process or machine comes in between.
        """

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Delete softly, where the domain says so; a key that is not there is passed over."""

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """Records whose key begins with ``prefix``, newest first by the domain's list rule; the removed ones only if asked for."""

    def records(self, domain: Domain) -> Iterator[Record]:
        """All records of a domain, the removed ones too, each once; those of lists in the order in which they were first written."""

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """The ``limit`` candles from ``since`` (ms, on the grid) on, at least one, read-only; None if one of them is missing."""

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """Store those checked candles that are not there yet; how many were new."""

    def candle_series(self) -> list[Key]:
        """The series of which candles are stored, as (exchangeName, symbol, interval), sorted."""

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """The stored candles of a series that open in [since, until) (ms; None: from the first, to the last), in batches, ascending.

        Holes are left out, and no simulation time is looked at.
        """

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """Delete the candles of a series that open in [since, until) (ms; None: from the first, to the last); how many there were.

        Other processes may keep candles in memory that they have read before.
        """

    # For the domains of which the store keeps history. A version is what a write stored; one of equal time replaces it, and a
    # write discards the versions of its key that are of a later time.

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """The last versions of ``keys`` that were written at ``moment`` (ms of simulation time) or before; None where there is none."""

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """Discard versions of ``since`` (ms of simulation time) or later: each record is again what it was before, or not there."""

    def drop_cache(self) -> int:
        """Forget cached ids, in this process and in shared caches; how many shared ones went. Never touches data."""

    def close(self) -> None:
        """Give back connections; idempotent."""


def check_key(domain: Domain, key: Key) -> Key:
    """``key`` (or its first fields) if every field is legal; InvalidTypeError or InvalidValueError that names the field if not."""
    try:
        keys.check_fields(key, domain.key[: len(key)], domain.kinds[: len(key)])
    except TypeError as error:
        raise InvalidTypeError(f"{domain.name}: {error}") from None
    except ValueError as error:
        raise InvalidValueError(f"{domain.name}: {error}") from None
    return key


def plain(value: Any) -> Any:
    """A value of a type outside BSON as one inside; TypeError for what cannot be stored."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.kind in "mM":
            raise ValueError("NumPy times are naive; use aware datetimes, or int milliseconds")
        return value.tolist()
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, Decimal):
        return Decimal128(value)  # ValueError beyond 34 digits
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        raise TypeError("a set has no order that could be stored; make it a sorted list")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # Shallow on purpose: members keep their types and are encoded one by one, with their path in an error.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, msgspec.Struct):
        return _members(value)
    try:
        return msgspec.to_builtins(value, builtin_types=_KEPT)
    except (TypeError, ValueError):
        raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored") from None


def _members(value: msgspec.Struct) -> Any:
    """A Struct as msgspec would encode it, one level deep, for the same reason as a dataclass."""
    config = value.__struct_config__
    members: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in msgspec.structs.fields(value):
        member = getattr(value, field.name)
        if member is msgspec.UNSET:
            continue
        if config.omit_defaults:
            default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            if default is not msgspec.NODEFAULT and type(member) is type(default) and member == default:
                continue
        members[field.encode_name] = member
    return list(members.values()) if config.array_like else members


# Types that BSON has and msgspec would otherwise turn into text.
_KEPT = (datetime, bytes, bytearray, Decimal)


def encode(domain: Domain, key: Key, document: dict[str, Any]) -> bytes:
    """The BSON of a document; InvalidTypeError or InvalidValueError, with the record's name, for what cannot be stored."""
    try:
        raw = writer.encode(document, plain)
    except TypeError as error:
        raise InvalidTypeError(f"{_named(domain, key)}: {error}") from None
    except (ValueError, ArithmeticError) as error:
        raise InvalidValueError(f"{_named(domain, key)}: {error}") from None
    except (RuntimeError, AttributeError) as error:  # changed by another thread meanwhile, or a member that is not set
        raise InvalidValueError(f"{_named(domain, key)}: {error}") from error
    if len(raw) > LARGEST_BODY:
        raise InvalidValueError(f"{_named(domain, key)}: {len(raw)} bytes; MongoDB takes at most {MAX_DOCUMENT} bytes for one document")
    return raw


def _named(domain: Domain, key: Key) -> str:
    return f"{domain.name} {', '.join(map(repr, key))}"
