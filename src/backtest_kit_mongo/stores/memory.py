"""Stores without a server: one that keeps records in this process, and one that keeps nothing."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._core import bson
from ..candles import CANDLE_DTYPE, CandleArray, interval_ms
from ..domains import Domain
from .base import NO_HISTORY, History, Key, Record, encode
from .fork_safety import renew_after_fork

__all__ = ["DummyStore", "MemoryStore"]


class _Kept:
    """One kept record: its body as BSON, so that it comes back as from MongoDB and shares nothing with the caller."""

    __slots__ = ("body", "created", "record", "updated")

    def __init__(self, record: Record, body: bytes, created: int, updated: int) -> None:
        self.record = record._replace(body=None)
        self.body = body
        self.created = created
        self.updated = updated

    @property
    def when(self) -> float:
        """The simulation time of the write, in ms; before all others where it is not known."""
        return -math.inf if self.record.when is None else self.record.when

    def open(self) -> Record:
        return self.record._replace(body=bson.decode(self.body)["payload"])


class MemoryStore:
    """Records in this process, gone with it."""

    blocks = None
    hits = upserts = None

    def __init__(self, history: History = NO_HISTORY) -> None:
        self.renew()
        renew_after_fork(self)
        self._history = history
        self._records: dict[str, dict[Key, _Kept]] = {}
        self._versions: dict[tuple[str, Key], list[_Kept]] = {}  # those before the current one, oldest first
        self._candles: dict[Key, dict[int, Any]] = {}
        self._clock = itertools.count()

    def renew(self) -> None:
        """Start with a free lock; see ``forks``."""
        self._lock = threading.RLock()

    def wait_for_init(self, timeout: float) -> None:
        """See Store; always ready."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store."""
        with self._lock:
            records = self._records.get(domain.name, {})
            found = [records.get(key) for key in keys]
        return [None if kept is None else kept.open() for kept in found]

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store."""
        encoded = [(record, encode(domain, record.key, {"payload": record.body})) for record in records]
        with self._lock:
            kept = self._records.setdefault(domain.name, {})
            for record, body in encoded:
                before = kept.get(record.key)
                if before is not None and domain.write == "insert_once":
                    continue
                now = next(self._clock)
                kept[record.key] = _Kept(record, body, now if before is None else before.created, now)
                if domain.name in self._history.domains:
                    self._keep_version(domain, record, before)

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store."""
        with self._lock:
            kept = self._records.get(domain.name, {}).get(record.key)
            if kept is None or before is None:
                same = kept is None and before is None
            else:
                body = encode(domain, before.key, {"payload": before.body})
                same = (kept.body, kept.record) == (body, before._replace(body=None))
            if same:
                self.write(domain, [record])
            return same

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
        kept.sort(key=lambda one: one.created if by_creation else one.updated, reverse=True)
        for one in kept[:limit]:
            yield one.open() if bodies else one.record

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store."""
        with self._lock:
            kept = list(self._records.get(domain.name, {}).values())
        for one in sorted(kept, key=lambda one: one.created):
            yield one.open()

    # --- versions ---

    def _keep_version(self, domain: Domain, record: Record, before: _Kept | None) -> None:
        """Put the version that a record replaces away; later ones, and those of its own time, go."""
        assert record.when is not None
        place = (domain.name, record.key)
        versions = [*self._versions.get(place, ()), *([] if before is None else [before])]
        versions = [version for version in versions if version.when < record.when]
        if self._history.days:
            oldest = record.when - self._history.days * 86_400_000
            versions = [version for version in versions if version.when >= oldest]
        if self._history.limit:  # the current one counts
            versions = versions[max(0, len(versions) + 1 - self._history.limit) :]
        self._versions[place] = versions

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store."""
        with self._lock:
            found = [self._version_at(domain, key, moment) for key in keys]
        return [None if kept is None else kept.open() for kept in found]

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
                place = (domain.name, key)
                versions = [version for version in self._versions.pop(place, ()) if version.when < since]
                if versions:
                    records[key] = versions.pop()
                    self._versions[place] = versions
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
        found = [row for stamp, row in candles if (since is None or stamp >= since) and (until is None or stamp < until)]
        if found:
            yield np.array(found, CANDLE_DTYPE)

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store."""
        step = interval_ms(interval)
        with self._lock:
            series = self._candles.get((exchange_name, symbol, interval), {})
            if limit > len(series):
                return None
            found = [series.get(since + index * step) for index in range(limit)]
        if any(candle is None for candle in found):
            return None
        window = np.array(found, CANDLE_DTYPE)
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

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store."""
        with self._lock:
            candles = self._candles.get(series, {})
            gone = [stamp for stamp in candles if (since is None or stamp >= since) and (until is None or stamp < until)]
            for stamp in gone:
                del candles[stamp]
            if not candles:
                self._candles.pop(series, None)
            return len(gone)

    def drop_cache(self) -> int:
        """See Store; there is no cache."""
        return 0

    def close(self) -> None:
        """See Store; the records go with the object."""


class DummyStore:
    """Takes everything and keeps nothing."""

    blocks = None
    hits = upserts = None

    def wait_for_init(self, timeout: float) -> None:
        """See Store; always ready."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store; nothing is ever there."""
        return [None] * len(keys)

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store; what is written vanishes."""

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store; what is written vanishes."""
        return before is None

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store; there is nothing to remove."""

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store; nothing is ever there."""
        return iter(())

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store; nothing is ever there."""
        return iter(())

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store; nothing was ever there."""
        return [None] * len(keys)

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store; there is nothing to discard."""

    def candle_series(self) -> list[Key]:
        """See Store; nothing is ever there."""
        return []

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store; nothing is ever there."""
        return iter(())

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store; nothing is ever there."""
        return None

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store; what is written vanishes."""
        return 0

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store; nothing is ever there."""
        return 0

    def drop_cache(self) -> int:
        """See Store; there is no cache."""
        return 0

    def close(self) -> None:
        """See Store."""
