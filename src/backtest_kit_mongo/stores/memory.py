"""Stores without a server: MemoryStore keeps records in this process, DummyStore keeps nothing."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._core import bson
from ..candles import CANDLE_DTYPE, CandleArray, grid_of
from ..domains import Domain
from .base import NO_HISTORY, History, Key, Record, encode, has_fields
from .fork_safety import renew_after_fork

__all__ = ["DummyStore", "MemoryStore"]


class _Kept:
    """A stored record. Its body is kept as BSON, so it reads back as it would from MongoDB and shares nothing with the caller."""

    __slots__ = ("body", "created", "record", "updated")

    def __init__(self, record: Record, body: bytes, created: int, updated: int) -> None:
        self.record = record._replace(body=None)
        self.body = body
        self.created = created
        self.updated = updated

    @property
    def when(self) -> float:
        """The simulation time of the write (ms); minus infinity if the record has none."""
        return -math.inf if self.record.when is None else self.record.when

    def open(self) -> Record:
        return self.record._replace(body=bson.decode(self.body)["payload"])


class MemoryStore:
    """Keeps records in the memory of this process; they are lost when it ends."""

    blocks = None
    hits = upserts = None

    def __init__(self, history: History = NO_HISTORY) -> None:
        self.renew()
        renew_after_fork(self)
        self._history = history
        self._records: dict[str, dict[Key, _Kept]] = {}
        self._versions: dict[tuple[str, Key], list[_Kept]] = {}  # earlier than the current one, oldest first
        self._candles: dict[Key, dict[int, Any]] = {}
        self._clock = itertools.count()

    def renew(self) -> None:
        """Start with an unlocked lock; see ``fork_safety``."""
        self._lock = threading.RLock()

    def wait_for_init(self, timeout: float) -> None:
        """See Store. Always ready."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store."""
        with self._lock:
            records = self._records.get(domain.name, {})
            entries = [records.get(key) for key in keys]
        return [None if entry is None else entry.open() for entry in entries]

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store."""
        encoded = [(record, encode(domain, record.key, {"payload": record.body})) for record in records]
        with self._lock:
            entries = self._records.setdefault(domain.name, {})
            for record, body in encoded:
                before = entries.get(record.key)
                if before is not None and domain.write == "insert_once":
                    continue
                now = next(self._clock)
                entries[record.key] = _Kept(record, body, now if before is None else before.created, now)
                if domain.name in self._history.domains:
                    self._keep_version(domain, record, before)

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store."""
        with self._lock:
            entry = self._records.get(domain.name, {}).get(record.key)
            if entry is None or before is None:
                unchanged = entry is None and before is None
            else:
                body = encode(domain, before.key, {"payload": before.body})
                unchanged = (entry.body, entry.record) == (body, before._replace(body=None))
            if unchanged:
                self.write(domain, [record])
            return unchanged

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store."""
        with self._lock:
            for record in self.read(domain, keys):
                if record is not None:
                    self.write(domain, [record._replace(removed=True, body={**(record.body or {}), "removed": True})])

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store."""
        by_creation = domain.listing is not None and domain.listing.order == "createDate"
        with self._lock:
            records = self._records.get(domain.name, {}).items()
            kept = [kept for key, kept in records if key[: len(prefix)] == prefix and (removed or not kept.record.removed)]
        kept.sort(key=lambda entry: entry.created if by_creation else entry.updated, reverse=True)
        for entry in kept[:limit]:
            yield entry.open() if bodies else entry.record

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store."""
        with self._lock:
            entries = list(self._records.get(domain.name, {}).values())
        for entry in sorted(entries, key=lambda entry: entry.created):
            yield entry.open()

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """See Store."""
        with self._lock:
            return [key for key in self._records.get(domain.name, {}) if has_fields(domain, key, fields)]

    # --- versions ---

    def _keep_version(self, domain: Domain, record: Record, before: _Kept | None) -> None:
        """Add the version that a record replaces to the list, and drop the versions with its own or a later time."""
        assert record.when is not None
        version_key = (domain.name, record.key)
        versions = [*self._versions.get(version_key, ()), *([] if before is None else [before])]
        versions = [version for version in versions if version.when < record.when]
        if self._history.days:
            oldest = record.when - self._history.days * 86_400_000
            versions = [version for version in versions if version.when >= oldest]
        if self._history.limit:  # which includes the current one
            versions = versions[max(0, len(versions) + 1 - self._history.limit) :]
        self._versions[version_key] = versions

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store."""
        with self._lock:
            entries = [self._version_at(domain, key, moment) for key in keys]
        return [None if entry is None else entry.open() for entry in entries]

    def _version_at(self, domain: Domain, key: Key, moment: int) -> _Kept | None:
        current = self._records.get(domain.name, {}).get(key)
        versions = [*self._versions.get((domain.name, key), ()), *([] if current is None else [current])]
        return next((version for version in reversed(versions) if version.when <= moment), None)

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store."""
        with self._lock:
            records = self._records.get(domain.name, {})
            for key in keys:
                current = records.get(key)
                if current is None or current.when < since:
                    continue
                version_key = (domain.name, key)
                versions = [version for version in self._versions.pop(version_key, ()) if version.when < since]
                if versions:
                    records[key] = versions.pop()
                    self._versions[version_key] = versions
                else:
                    del records[key]

    # --- candles ---

    def candle_series(self) -> list[Key]:
        """See Store."""
        with self._lock:
            return sorted(self._candles)

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store."""
        with self._lock:
            candles = sorted(self._candles.get(series, {}).items())
        rows = [row for stamp, row in candles if (since is None or stamp >= since) and (until is None or stamp < until)]
        if rows:
            yield np.array(rows, CANDLE_DTYPE)

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store."""
        with self._lock:
            series = self._candles.get((exchange_name, symbol, interval), {})
            if limit > len(series):
                return None
            rows = [series.get(stamp) for stamp in grid_of(interval).window(since, limit)]
        if any(row is None for row in rows):
            return None
        window = np.array(rows, CANDLE_DTYPE)
        window.flags.writeable = False
        return window

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store."""
        with self._lock:
            series = self._candles.setdefault((exchange_name, symbol, interval), {})
            before = len(series)
            for candle in candles.tolist():
                series.setdefault(candle[0], candle)
            return len(series) - before

    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """See Store."""
        with self._lock:
            stored = self._candles.get(series, {})
            given = [candle for candle in candles.tolist() if candle[0] in stored]
            stored.update((candle[0], candle) for candle in given)
            return len(given)

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store."""
        with self._lock:
            candles = self._candles.get(series, {})
            deleted = [stamp for stamp in candles if (since is None or stamp >= since) and (until is None or stamp < until)]
            for stamp in deleted:
                del candles[stamp]
            if not candles:
                self._candles.pop(series, None)
            return len(deleted)

    def drop_cache(self) -> int:
        """See Store. There is no cache."""
        return 0

    def close(self) -> None:
        """See Store. The records remain until the object is deleted."""


class DummyStore:
    """Accepts every write and keeps nothing."""

    blocks = None
    hits = upserts = None

    def wait_for_init(self, timeout: float) -> None:
        """See Store. Always ready."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store. Always empty."""
        return [None] * len(keys)

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store. Stores nothing."""

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store. Stores nothing."""
        return before is None

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store. There is nothing to remove."""

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store. Always empty."""
        return iter(())

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store. Always empty."""
        return iter(())

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """See Store. Always empty."""
        return []

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store. Always empty."""
        return [None] * len(keys)

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store. There is nothing to discard."""

    def candle_series(self) -> list[Key]:
        """See Store. Always empty."""
        return []

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store. Always empty."""
        return iter(())

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store. Always empty."""
        return None

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store. Stores nothing."""
        return 0

    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """See Store. There is nothing to replace."""
        return 0

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store. Always empty."""
        return 0

    def drop_cache(self) -> int:
        """See Store. There is no cache."""
        return 0

    def close(self) -> None:
        """See Store."""
