"""The dates (``createDate``, ``updatedDate``) of records that are written together: increasing, in the order of the write.

The TypeScript package lists by one of these dates alone, newest first and up to a limit, and it writes row by row. Rows with equal dates
would come in any order there, and the limit could leave out the newest ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from ...domains import Domain
from ..base import Key

__all__ = ["WriteDates"]

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MOST_AHEAD_MS: Final = 1_000
_MOST_ROWS: Final = 10_000  # of the last write of a list that are remembered


class _Written(NamedTuple):
    """The last write of a list."""

    keys: Sequence[Key]
    last: int  # date (ms) of the last row; the others are up to a ms apart
    first: int  # no row has an earlier date


class WriteDates:
    """Chooses the dates of the records that this process writes together.

    Rows of a list are a millisecond apart (BSON dates have no finer resolution), and the last one has the current time. Rows of the write
    before that are not written again stay older. If rows come faster than one per millisecond, the dates run ahead by up to a
    second, and after that the first rows of a write share one date.
    """

    def __init__(self) -> None:
        # Without a lock: the lists of two threads that write at the same time have no order.
        self._written: dict[Key, _Written] = {}
        self.to_come: int = 0
        """How many more rows a copy has to write: the current ones are dated back, so that the last of all has the current time."""

    def take(self, domain: Domain, keys: Sequence[Key]) -> list[datetime]:
        """Return the dates of records of ``keys``, in their order. They are equal in a domain that is not written as lists."""
        now = time.time_ns() // 1_000_000
        if domain.keyed:
            return [_date(now)] * len(keys)
        lists: dict[Key, list[int]] = {}
        for index, key in enumerate(keys):
            lists.setdefault((domain.name, *key[:-1]), []).append(index)
        dates = [_EPOCH] * len(keys)
        for name, indexes in lists.items():
            for index, stamp in zip(indexes, self._stamps(name, [keys[index] for index in indexes], now - self.to_come), strict=True):
                dates[index] = _date(stamp)
        return dates

    def _stamps(self, name: Key, keys: Sequence[Key], now: int) -> list[int]:
        """Return the dates (ms) of the rows of one list."""
        count, floor, last = len(keys), 0, now
        before = self._written.get(name)
        if before is not None:
            floor = _newest_left(before, set(keys))
            # Without a row that is left, this is the same list again. It takes the same dates or later ones.
            last = max(now, min(floor + count, now + _MOST_AHEAD_MS) if floor else before.last)
        floor = max(floor, last - count + 1)
        self._written[name] = _Written(tuple(keys[-_MOST_ROWS:]), last, floor)
        return [max(floor, last - count + 1 + index) for index in range(count)]


def _newest_left(before: _Written, keys: set[Key]) -> int:
    """Return the date (ms) of the newest row of the last write that is not among ``keys``; 0 if there is none."""
    for age, key in enumerate(reversed(before.keys)):
        if key not in keys:
            return max(before.first, before.last - age)
    return 0


def _date(stamp: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=stamp)
