"""Writes that may come a little later: of each record only what it is in the end, of each list all rows in one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ..domains import DOMAINS
from .rows import Row

__all__ = ["WriteBehind", "WriteThrough"]

_WRITES: Final[Mapping[str, str]] = {
    name: next(call.name for call in domain.calls if call.operation in ("write", "put_rows"))
    for name, domain in DOMAINS.items()
    if any(call.operation in ("write", "put_rows") for call in domain.calls)
}


def _write_of(contract: Any, name: str) -> Callable[..., object]:
    """The write of a domain's contract."""
    method: Callable[..., object] = getattr(contract, _WRITES[name])
    return method


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

    def call(self, key: str, write: Callable[[], object], *, erases: bool) -> None:
        """Write by a function of the caller's; ``erases`` if it leaves nothing behind."""
        write()

    def flush(self) -> None:
        """Nothing is waiting."""


class WriteBehind(WriteThrough):
    """Writes wait until ``flush``, one for each record: a position that was opened and closed in between is not written as open.

    Domains that keep versions (``versioned``) get every write, as each is a version.
    """

    def __init__(self, contracts: Mapping[str, Any], versioned: Collection[str]) -> None:
        super().__init__(contracts)
        self._versioned = versioned
        self._records: dict[tuple[str, str, int], tuple[Any, ...]] = {}
        self._rows: dict[str, tuple[list[Row], tuple[Any, ...]]] = {}
        self._calls: dict[str, tuple[Callable[[], object], bool]] = {}
        self._known: dict[str, bool] = {}  # what calls have written, and whether they have erased it

    def put(self, name: str, key: str, body: Any, *rest: Any) -> None:
        """Write one record later."""
        place = (name, key, len(self._records) if name in self._versioned else 0)
        self._records.pop(place, None)
        self._records[place] = (body, *rest)

    def put_rows(self, name: str, rows: list[Row], *rest: Any) -> None:
        """Write rows of a list later."""
        self._rows.setdefault(name, ([], rest))[0].extend(rows)

    def call(self, key: str, write: Callable[[], object], *, erases: bool) -> None:
        """Call a function later; of one ``key`` only the last one, and not to erase what is erased. The first one is called at once."""
        if key in self._known:
            self._calls[key] = write, erases
        else:
            self._note(key, write, erases)

    def flush(self) -> None:
        """Write what waits."""
        if not (self._records or self._rows or self._calls):
            return
        calls, self._calls = self._calls, {}
        for key, (write, erases) in calls.items():
            if not (erases and self._known[key]):
                self._note(key, write, erases)
        records, self._records = self._records, {}
        for (name, _, _), arguments in records.items():
            _write_of(self._contracts[name], name)(*arguments)
        rows, self._rows = self._rows, {}
        for name, (listed, rest) in rows.items():
            latest = {row["id"]: row for row in listed}
            _write_of(self._contracts[name], name)(list(latest.values()), *rest)

    def _note(self, key: str, write: Callable[[], object], erases: bool) -> None:
        write()
        self._known[key] = erases
