"""Writes that may come a little later: of each record only what it is in the end, of each list all rows in one call."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from ..bindings import Bindings
from ..domains import DOMAINS
from ..simulation import NOW, simulated_time
from .rows import Row

__all__ = ["LATENESS", "WriteBehind", "WriteThrough", "as_it_is"]

LATENESS: Final = 0.25
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


class _Busy(threading.local):
    flushing = False


_busy = _Busy()


@contextmanager
def as_it_is() -> Iterator[None]:
    """Use the contracts inside the block without having written first what waits: whoever holds a lock must not wait for others."""
    before, _busy.flushing = _busy.flushing, True
    try:
        yield
    finally:
        _busy.flushing = before


class WriteThrough:
    """Every write at once, in the order in which it is asked for."""

    failure: BaseException | None = None
    """What the last writing of what was waiting has raised."""

    def __init__(self, contracts: Mapping[str, Any]) -> None:
        self._contracts = contracts

    def put(self, name: str, key: str, body: Any, *rest: Any) -> None:
        """Write one record; ``key`` tells it from others of this run, ``rest`` are the arguments after the body."""
        _write_of(self._contracts[name], name)(body, *rest)

    def put_rows(self, name: str, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list."""
        _write_of(self._contracts[name], name)(rows, *rest)

    def call(self, key: str, write: Callable[[], object], *, erases: bool) -> None:
        """Write by a function of the caller's; ``erases`` if it leaves nothing behind."""
        write()

    def flush(self) -> None:
        """Nothing is waiting."""

    flush_when_due = forget = flush


class WriteBehind(WriteThrough):
    """Writes that wait, one for each record: a position that was opened and closed in between is not written as open.

    In this process nobody sees that they wait: whoever uses a contract of the registry, in any thread, has them written first.
    Others see them after ``LATENESS`` seconds, or when the function of a user that takes longer has returned. Domains that keep
    versions (``versioned``) get every write, as each is a version.
    """

    def __init__(self, registry: Bindings, contracts: Mapping[str, Any], versioned: Collection[str]) -> None:
        super().__init__(contracts)
        self._registry = registry
        self._versioned = versioned
        self._lock = threading.RLock()
        self._waiting = False
        self._flushed = time.monotonic()
        self._now: int | None = None  # simulation time of the last write
        self._count = itertools.count()
        self._records: dict[tuple[str, str, int], tuple[Any, ...]] = {}
        self._rows: dict[str, tuple[list[Row], tuple[Any, ...]]] = {}
        self._calls: dict[str, tuple[Callable[[], object], bool]] = {}
        self._known: dict[str, bool] = {}  # what calls have written, and whether they have erased it
        self.failure: BaseException | None = None

    def put(self, name: str, key: str, body: Any, *rest: Any) -> None:
        """Write one record later."""
        with self._lock:
            place = (name, key, next(self._count) if name in self._versioned else 0)
            self._records.pop(place, None)
            self._records[place] = (body, *rest)
            self._wait()

    def put_rows(self, name: str, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list later."""
        with self._lock:
            self._rows.setdefault(name, ([], rest))[0].extend(rows)
            self._wait()

    def call(self, key: str, write: Callable[[], object], *, erases: bool) -> None:
        """Call a function later; of one ``key`` only the last one, and not to erase what is erased. The first one is called at once."""
        with self._lock:
            if key in self._known:
                self._calls[key] = write, erases
                self._wait()
            else:
                with as_it_is():
                    write()
                self._known[key] = erases

    def flush(self) -> None:
        """Write what waits. What cannot be written goes on waiting, and is tried again by the next flush."""
        if _busy.flushing:
            return
        with self._lock:
            if not self._waiting:
                return
            try:
                # Perhaps in another thread, which has a time of its own.
                with as_it_is(), simulated_time(self._now):
                    self._write()
            except BaseException as error:
                self.failure = error
                raise
            self._rest()

    def flush_when_due(self) -> None:
        """Write what waits if that was not done lately."""
        if self._waiting and time.monotonic() - self._flushed >= LATENESS:
            self.flush()

    def forget(self) -> None:
        """Write nothing more."""
        with self._lock:
            self._calls, self._records, self._rows = {}, {}, {}
            self._rest()

    def _wait(self) -> None:
        self._now = NOW.get()
        if not self._waiting:
            self._waiting = True
            self._registry.write_late(self.flush, late=True)

    def _rest(self) -> None:
        if self._waiting:
            self._waiting = False
            self._registry.write_late(self.flush, late=False)
        self._flushed = time.monotonic()

    def _write(self) -> None:
        for key, (write, erases) in self._calls.items():
            if not (erases and self._known[key]):
                write()
                self._known[key] = erases
        self._calls = {}
        for name in dict.fromkeys(name for name, *_ in self._records):
            records = [arguments for place, arguments in self._records.items() if place[0] == name]
            contract = self._contracts[name]
            if len(records) == 1 or name in self._versioned:
                for arguments in records:
                    _write_of(contract, name)(*arguments)
            else:
                contract.write_many(records)
        self._records = {}
        for name, (listed, rest) in self._rows.items():
            latest = {row["id"]: row for row in listed}
            _write_of(self._contracts[name], name)(list(latest.values()), *rest)
        self._rows = {}
