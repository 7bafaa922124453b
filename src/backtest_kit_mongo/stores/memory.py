"""Stores without a server: one that keeps records in this process, and one that keeps nothing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._core import bson
from ..candles import CANDLE_DTYPE, CandleArray, interval_ms
from ..domains import Domain
from .base import Key, Record, encode
from .forks import renew_after_fork

__all__ = ["DummyStore", "MemoryStore"]


class _Kept:
    """One kept record: its body as BSON, so that it comes back as from MongoDB and shares nothing with the caller."""

    __slots__ = ("body", "created", "record", "updated")

    def __init__(self, record: Record, body: bytes, created: int, updated: int) -> None:
        self.record = record._replace(body=None)
        self.body = body
        self.created = created
        self.updated = updated

    def open(self) -> Record:
        return self.record._replace(body=bson.decode(self.body)["payload"])


class MemoryStore:
    """Records in this process, gone with it."""

    blocks = None
    hits = None

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)
        self._records: dict[str, dict[Key, _Kept]] = {}
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

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store."""
        with self._lock:
            for record in self.read(domain, keys):
                if record is not None:
                    self.write(domain, [record._replace(removed=True, body={**(record.body or {}), "removed": True})])

    def scan(self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True) -> Iterator[Record]:
        """See Store."""
        by_creation = domain.listing is not None and domain.listing.order == "createDate"
        with self._lock:
            kept = [
                kept for key, kept in self._records.get(domain.name, {}).items() if key[: len(prefix)] == prefix and not kept.record.removed
            ]
        kept.sort(key=lambda one: one.created if by_creation else one.updated, reverse=True)
        for one in kept[:limit]:
            yield one.open() if bodies else one.record

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

    def drop_cache(self) -> int:
        """See Store; there is no cache."""
        return 0

    def close(self) -> None:
        """See Store; the records go with the object."""


class DummyStore:
    """Takes everything and keeps nothing."""

    blocks = None
    hits = None

    def wait_for_init(self, timeout: float) -> None:
        """See Store; always ready."""

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store; nothing is ever there."""
        return [None] * len(keys)

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store; what is written vanishes."""

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store; there is nothing to remove."""

    def scan(self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True) -> Iterator[Record]:
        """See Store; nothing is ever there."""
        return iter(())

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store; nothing is ever there."""
        return None

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store; what is written vanishes."""
        return 0

    def drop_cache(self) -> int:
        """See Store; there is no cache."""
        return 0

    def close(self) -> None:
        """See Store."""
