"""Writes that may come a little later: of each record only what it is in the end, of each list all rows in one call."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from ...contracts.adapters import Registry
from ...contracts.bindings import LATE
from ...domains import DOMAINS
from ...simulation import NOW, simulated_time
from .rows import Row

__all__ = ["MAX_DELAY_SECONDS", "PendingWrites", "WriteBehind", "WriteThrough", "pending_write_error", "without_flush"]

MAX_DELAY_SECONDS: Final = 0.25
"""Seconds that a write may wait."""

_WRITES: Final[Mapping[str, str]] = {
    name: next(call.name for call in domain.calls if call.operation in ("write", "put_rows"))
    for name, domain in DOMAINS.items()
    if any(call.operation in ("write", "put_rows") for call in domain.calls)
}


def _write_of(contract: Any, name: str) -> Callable[..., object]:
    """The write of a domain's contract."""
    method: Callable[..., object] = getattr(contract, _WRITES[name])
    return method


_OF_A_LATE_WRITE: Final = "_of_a_late_write"


def pending_write_error(error: BaseException | None) -> BaseException | None:
    """The error of a late write that ``error`` is, or comes of: it came up in code that only wanted to read."""
    while error is not None and not hasattr(error, _OF_A_LATE_WRITE):
        error = error.__cause__ or error.__context__
    return error


class _Busy(threading.local):
    writing = False


_busy = _Busy()


@contextmanager
def without_flush() -> Iterator[None]:
    """Use the contracts inside the block without having written first what waits: whoever holds a lock must not wait for others."""
    before, _busy.writing = _busy.writing, True
    try:
        yield
    finally:
        _busy.writing = before


class WriteThrough:
    """Every write at once, in the order in which it is asked for."""

    def __init__(self, contracts: Mapping[str, Any]) -> None:
        self._contracts = contracts

    def put(self, name: str, key: str, body: Any, *rest: Any) -> None:
        """Write one record; ``key`` tells it from others of this run, ``rest`` are the arguments after the body."""
        _write_of(self._contracts[name], name)(body, *rest)

    def put_rows(self, name: str, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list."""
        _write_of(self._contracts[name], name)(rows, *rest)

    def call(self, name: str, write: Callable[[], object], *, erases: bool) -> None:
        """Write the record of a domain by a function of the caller's; ``erases`` if it leaves nothing behind."""
        write()

    def flush(self) -> None:
        """Nothing is waiting."""

    flush_when_due = forget = flush


class PendingWrites:
    """Pending writes of the runs that share a clock: the latest state of each record.

    Code inside the runs never sees a pending write: using a contract there (or ``aio``) flushes first. Other threads and processes
    see it after ``MAX_DELAY_SECONDS`` seconds, or when a user function that takes longer returns. Domains that keep versions, and
    domains served by a user's class, are written at once.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._versioned = frozenset(registry.get_config().CC_HISTORY)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._flushed = time.monotonic()
        self._now: int | None = None  # simulation time of the last write
        self._calls: dict[tuple[str, str], tuple[Callable[[], object], bool]] = {}
        self._records: dict[tuple[str, str, str], tuple[Any, ...]] = {}
        self._rows: dict[str, list[tuple[str, Row, tuple[Any, ...]]]] = {}
        self._known: dict[tuple[str, str], bool] = {}  # what calls have written, and whether they have erased it

    @contextmanager
    def open(self) -> Iterator[None]:
        """Let whoever uses a contract inside the block have written first what waits."""
        token = LATE.set(self.flush)
        self._registry.write_late(True)
        try:
            yield
        finally:
            self._registry.write_late(False)
            LATE.reset(token)

    def at_once(self, name: str) -> bool:
        """Whether a domain is written without delay."""
        return name in self._versioned or self._registry.bindings[name].custom is not None

    def put(self, owner: str, name: str, key: str, arguments: tuple[Any, ...]) -> None:
        """Write one record later."""
        with self._lock:
            self._note_time()
            self._records[owner, name, key] = arguments

    def put_rows(self, owner: str, name: str, rows: list[Row], rest: tuple[Any, ...]) -> None:
        """Write rows of a list later."""
        with self._lock:
            self._note_time()
            self._rows.setdefault(name, []).extend((owner, row, rest) for row in rows)

    def call(self, owner: str, name: str, write: Callable[[], object], *, erases: bool) -> None:
        """Call a function later; of one domain only the last one, and not to erase what is erased. The first one is called at once."""
        with self._lock:
            self._note_time()
            if (owner, name) in self._known:
                self._calls[owner, name] = write, erases
            else:
                with without_flush():
                    write()
                self._known[owner, name] = erases

    def flush(self) -> None:
        """Write what waits. What cannot be written goes on waiting, and is tried again by the next flush."""
        if _busy.writing or os.getpid() != self._process:  # what waits in a forked child is the parent's to write
            return
        with self._lock:
            if not self._waits:
                return
            try:
                # Perhaps by a thread that has another time, or none.
                with without_flush(), simulated_time(self._now):
                    self._write()
                self._flushed = time.monotonic()
            except BaseException as error:
                self._flushed = -math.inf
                setattr(error, _OF_A_LATE_WRITE, True)
                raise

    def flush_when_due(self) -> None:
        """Write what waits if that was not done lately."""
        if self._waits and time.monotonic() - self._flushed >= MAX_DELAY_SECONDS:
            self.flush()

    def forget(self, owner: str) -> None:
        """Write nothing more of one run."""
        with self._lock:
            self._calls = {place: call for place, call in self._calls.items() if place[0] != owner}
            self._records = {place: record for place, record in self._records.items() if place[0] != owner}
            self._rows = {name: [row for row in rows if row[0] != owner] for name, rows in self._rows.items()}

    @property
    def _waits(self) -> bool:
        return bool(self._calls or self._records or self._rows)

    def _note_time(self) -> None:
        now = NOW.get()
        if now is not None:  # else it is another thread that asks the run for something
            self._now = now

    def _write(self) -> None:
        # Set aside, since a write may lead to another one.
        calls, records, rows = self._calls, self._records, self._rows
        self._calls, self._records, self._rows = {}, {}, {}
        try:
            for owned, (write, erases) in list(calls.items()):
                if not (erases and self._known[owned]):
                    write()
                    self._known[owned] = erases
                del calls[owned]
            for name in dict.fromkeys(name for _, name, _ in records):
                places = [place for place in records if place[1] == name]
                contract = self._registry.adapter(name)
                if len(places) == 1:
                    _write_of(contract, name)(*records[places[0]])
                else:
                    contract.write_many([records[place] for place in places])  # type: ignore[attr-defined]
                for place in places:
                    del records[place]
            for name, listed in list(rows.items()):
                latest = {row["id"]: row for _, row, _ in listed}
                if latest:
                    _write_of(self._registry.adapter(name), name)(list(latest.values()), *listed[0][2])
                del rows[name]
        except BaseException:
            self._calls, self._records = calls | self._calls, records | self._records
            for name, listed in self._rows.items():
                rows.setdefault(name, []).extend(listed)
            self._rows = rows
            raise


class WriteBehind(WriteThrough):
    """The writes of one run (``owner``), which may be late."""

    def __init__(self, contracts: Mapping[str, Any], late: PendingWrites, owner: str) -> None:
        super().__init__(contracts)
        self._late, self._owner = late, owner

    def put(self, name: str, key: str, body: Any, *rest: Any) -> None:
        """Write one record, perhaps later."""
        if self._late.at_once(name):
            super().put(name, key, body, *rest)
        else:
            self._late.put(self._owner, name, key, (body, *rest))

    def put_rows(self, name: str, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list, perhaps later."""
        if self._late.at_once(name):
            super().put_rows(name, rows, *rest)
        else:
            self._late.put_rows(self._owner, name, rows, rest)

    def call(self, name: str, write: Callable[[], object], *, erases: bool) -> None:
        """Call a function, perhaps later."""
        if self._late.at_once(name):
            write()
        else:
            self._late.call(self._owner, name, write, erases=erases)

    def flush(self) -> None:
        """Write what waits, of all runs."""
        self._late.flush()

    def flush_when_due(self) -> None:
        """Write what waits, of all runs, if that was not done lately."""
        self._late.flush_when_due()

    def forget(self) -> None:
        """Write nothing more."""
        self._late.forget(self._owner)
