"""Write-behind: coalesce and batch the writes of a run. Of each record only its last state is written, of each list all rows at once."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from ...contracts.registry import Registry
from ...domains import DOMAINS, DomainName
from ...simulation import SCOPE, current_time, entered, without_flush
from .rows import Row

__all__ = ["MAX_DELAY_SECONDS", "PendingWrites", "WriteBehind", "WriteThrough", "pending_write_error"]

MAX_DELAY_SECONDS: Final = 0.25
"""How long a write may stay pending, in seconds."""

_WRITES: Final[Mapping[str, str]] = {
    name: next(call.name for call in domain.calls if call.operation in ("write", "put_rows"))
    for name, domain in DOMAINS.items()
    if any(call.operation in ("write", "put_rows") for call in domain.calls)
}


def _write_of(contract: Any, name: DomainName) -> Callable[..., object]:
    """Return the write method of a domain's contract."""
    method: Callable[..., object] = getattr(contract, _WRITES[name])
    return method


_OF_A_LATE_WRITE: Final = "_of_a_late_write"


def pending_write_error(error: BaseException | None) -> BaseException | None:
    """Return the pending write error that ``error`` is or comes from, or None. It surfaces in code that only wanted to read."""
    while error is not None and not hasattr(error, _OF_A_LATE_WRITE):
        error = error.__cause__ or error.__context__
    return error


class WriteThrough:
    """Writes everything at once, in the order of the calls."""

    def __init__(self, contracts: Mapping[str, Any]) -> None:
        self._contracts = contracts

    def put(self, name: DomainName, key: str, body: Any, *rest: Any) -> None:
        """Write one record. ``key`` distinguishes it from others of this run; ``rest`` holds the arguments after the body."""
        _write_of(self._contracts[name], name)(body, *rest)

    def put_rows(self, name: DomainName, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list."""
        _write_of(self._contracts[name], name)(rows, *rest)

    def call(self, name: DomainName, write: Callable[[], object], *, erases: bool) -> None:
        """Write the record of a domain by calling ``write``. ``erases`` says that it leaves no record behind."""
        write()

    def flush(self) -> None:
        """Do nothing: there are no pending writes."""

    def flush_when_due(self) -> None:
        """Do nothing: there are no pending writes."""

    def forget(self) -> None:
        """Do nothing: there are no pending writes."""


class PendingWrites:
    """Pending writes of the runs that share a clock: the latest state of each record.

    Code inside the runs always reads its own writes: using a contract there (or ``aio``) flushes first. Other threads and processes
    see a write after ``MAX_DELAY_SECONDS`` seconds, or when a user function that takes longer returns. Domains that keep versions, and
    domains served by a user's class, are written at once.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._versioned = frozenset(registry.get_config().CC_HISTORY)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._flushed = time.monotonic()
        self._now: int | None = None  # simulation time of the last write
        self._calls: dict[tuple[str, DomainName], tuple[Callable[[], object], bool]] = {}
        self._records: dict[tuple[str, DomainName, str], tuple[Any, ...]] = {}
        self._rows: dict[DomainName, list[tuple[str, Row, tuple[Any, ...]]]] = {}
        self._known: dict[tuple[str, DomainName], bool] = {}  # records written by calls, and whether the last call erased them

    def at_once(self, name: DomainName) -> bool:
        """Whether a domain is written at once, without write-behind."""
        return name in self._versioned or self._registry.binding(name).custom is not None

    def put(self, owner: str, name: DomainName, key: str, arguments: tuple[Any, ...]) -> None:
        """Queue the write of one record."""
        with self._lock:
            self._note_time()
            self._records[owner, name, key] = arguments

    def put_rows(self, owner: str, name: DomainName, rows: list[Row], rest: tuple[Any, ...]) -> None:
        """Queue the write of rows of a list."""
        with self._lock:
            self._note_time()
            self._rows.setdefault(name, []).extend((owner, row, rest) for row in rows)

    def call(self, owner: str, name: DomainName, write: Callable[[], object], *, erases: bool) -> None:
        """Queue a call. Per domain only the last one is made, and none that erases what is erased. The first one is made at once."""
        with self._lock:
            self._note_time()
            if (owner, name) in self._known:
                self._calls[owner, name] = write, erases
            else:
                with without_flush():
                    write()
                self._known[owner, name] = erases

    def flush(self) -> None:
        """Write all pending writes. Those that fail stay pending, and the next flush tries them again."""
        if os.getpid() != self._process:  # pending writes in a forked child belong to the parent
            return
        with self._lock:
            if not self._waits:
                return
            try:
                # This may be a thread with another simulation time, or with none.
                with entered(SCOPE.get().replaced(self._now, None)):
                    self._write()
                self._flushed = time.monotonic()
            except BaseException as error:
                self._flushed = -math.inf
                setattr(error, _OF_A_LATE_WRITE, True)
                raise

    def flush_when_due(self) -> None:
        """Write all pending writes unless the last flush is less than ``MAX_DELAY_SECONDS`` ago."""
        if self._waits and time.monotonic() - self._flushed >= MAX_DELAY_SECONDS:
            self.flush()

    def forget(self, owner: str) -> None:
        """Drop the pending writes of one run."""
        with self._lock:
            self._calls = {key: call for key, call in self._calls.items() if key[0] != owner}
            self._records = {key: record for key, record in self._records.items() if key[0] != owner}
            self._rows = {name: [row for row in rows if row[0] != owner] for name, rows in self._rows.items()}

    @property
    def _waits(self) -> bool:
        return bool(self._calls or self._records or self._rows)

    def _note_time(self) -> None:
        now = current_time()
        if now is not None:  # None: another thread makes a request to the run
            self._now = now

    def _write(self) -> None:
        # Set aside first: a write may queue another one.
        calls, records, rows = self._calls, self._records, self._rows
        self._calls, self._records, self._rows = {}, {}, {}
        try:
            for owned, (write, erases) in list(calls.items()):
                if not (erases and self._known[owned]):
                    write()
                    self._known[owned] = erases
                del calls[owned]
            for name in dict.fromkeys(name for _, name, _ in records):
                keys = [key for key in records if key[1] == name]
                contract = self._registry.adapter(name)
                if len(keys) == 1:
                    _write_of(contract, name)(*records[keys[0]])
                else:
                    contract.write_many([records[key] for key in keys])  # type: ignore[attr-defined]
                for key in keys:
                    del records[key]
            for name, queued in list(rows.items()):
                latest = {row["id"]: row for _, row, _ in queued}
                if latest:
                    _write_of(self._registry.adapter(name), name)(list(latest.values()), *queued[0][2])
                del rows[name]
        except BaseException:
            self._calls, self._records = calls | self._calls, records | self._records
            for name, queued in self._rows.items():
                rows.setdefault(name, []).extend(queued)
            self._rows = rows
            raise


class WriteBehind(WriteThrough):
    """Writes of one run (``owner``) that go through write-behind where the domain allows it."""

    def __init__(self, contracts: Mapping[str, Any], pending: PendingWrites, owner: str) -> None:
        super().__init__(contracts)
        self._pending, self._owner = pending, owner

    def put(self, name: DomainName, key: str, body: Any, *rest: Any) -> None:
        """Write one record, or queue it."""
        if self._pending.at_once(name):
            super().put(name, key, body, *rest)
        else:
            self._pending.put(self._owner, name, key, (body, *rest))

    def put_rows(self, name: DomainName, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list, or queue them."""
        if self._pending.at_once(name):
            super().put_rows(name, rows, *rest)
        else:
            self._pending.put_rows(self._owner, name, rows, rest)

    def call(self, name: DomainName, write: Callable[[], object], *, erases: bool) -> None:
        """Call ``write``, or queue the call."""
        if self._pending.at_once(name):
            write()
        else:
            self._pending.call(self._owner, name, write, erases=erases)

    def flush(self) -> None:
        """Write all pending writes, of all runs."""
        self._pending.flush()

    def flush_when_due(self) -> None:
        """Write all pending writes, of all runs, if they are due."""
        self._pending.flush_when_due()

    def forget(self) -> None:
        """Drop the pending writes of this run."""
        self._pending.forget(self._owner)
