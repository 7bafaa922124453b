"""Keep earlier versions of a record beside its file, each named by the simulation time of its write.

The record's file is always the last version. Earlier ones are files named by their time (ms) in a folder ``.<name>.was``. They are hard
links to the record's earlier files, so that keeping one copies no data. The TypeScript package ignores the folder.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from ..base import History
from .atomic_files import keep_link, sync_folder

__all__ = ["ALWAYS", "FileVersions"]

ALWAYS: Final = -(2**63)
"""The time (ms) of a record without one: before all others."""

_DAY_MS: Final = 86_400_000
_MOST_KEYS: Final = 10_000  # keys with cached versions; a full cache is cleared

Identity = tuple[int, int, int]


class _Times(NamedTuple):
    """The time of a record's file and of the earlier versions, ascending; valid while the file has this identity."""

    identity: Identity | None
    when: int | None  # None: no file
    times: list[int]


class FileVersions:
    """The versions of records, by the paths of their files. Not thread-safe: callers hold a lock."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.forget()

    def forget(self) -> None:
        """Clear the cache, so that the next call looks at the file system again."""
        self._cached: dict[str, _Times] = {}

    def _look(self, path: str, time_of: Callable[[str], int | None]) -> _Times:
        """Return the current versions of a record, from the cache unless another process has written since."""
        identity = _identity(path)
        cached = self._cached.get(path)
        if cached is not None and identity is not None and cached.identity == identity:
            return cached
        when = None if identity is None else time_of(path)
        times = []
        with suppress(FileNotFoundError):
            times = sorted(int(name) for name in os.listdir(_folder(path)) if re.fullmatch(r"-?[0-9]+", name, re.ASCII))
        return _Times(identity, when, times)

    def _note(self, path: str, times: _Times) -> None:
        if len(self._cached) >= _MOST_KEYS:
            self._cached.clear()
        self._cached[path] = times

    def replace(self, temporary: str, path: str, when: int, time_of: Callable[[str], int | None]) -> None:
        """Rename ``temporary`` to ``path`` as the version of ``when`` (ms). Keep the current version if it is older, drop later versions.

        ``time_of`` returns the time (ms) of the record in a file, or None if the file holds no record.
        """
        current = self._look(path, time_of)
        self._cached.pop(path, None)  # a failure half way must not leave a stale entry
        folder = _folder(path)
        older = current.when is not None and current.when < when
        if older:
            # The link is not synced by itself: the names in both folders reach the disk together when the record's does.
            keep_link(path, f"{folder}/{current.when}")
        identity = _identity(temporary)
        os.rename(temporary, path)
        times = current.times
        # Versions not older than the current one are left over: a write was killed, or the TypeScript package overwrote the record.
        end = bisect_left(times, when if current.when is None else min(when, current.when))
        obsolete, times[end:] = times[end:], [current.when] if older and current.when is not None else []
        first = self._first(times, when)
        obsolete, times[:first] = [time for time in obsolete if time != current.when] + times[:first], []
        for time in obsolete:
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{time}")
        self._note(path, _Times(identity, when, times))

    def _first(self, times: list[int], when: int) -> int:
        """Return the index in ``times`` of the first version to keep beside the one of ``when``."""
        limit, days, first = self._history.limit, self._history.days, 0
        if limit:
            first = max(first, len(times) - (limit - 1))
        if days:
            first = max(first, bisect_left(times, when - days * _DAY_MS))
        return first

    def before(self, path: str, moment: int, time_of: Callable[[str], int | None]) -> str | None:
        """Return the path of the last version at ``moment`` (ms) or before, or None if there is none."""
        current = self._look(path, time_of)
        if current.when is not None and current.when <= moment:
            return path
        times = current.times if current.when is None else current.times[: bisect_left(current.times, current.when)]
        index = bisect_right(times, moment)
        self._note(path, current)
        return f"{_folder(path)}/{times[index - 1]}" if index else None

    def discard(self, path: str, since: int, time_of: Callable[[str], int | None]) -> None:
        """Restore the record to its last version before ``since`` (ms), or delete it if it has none."""
        current = self._look(path, time_of)
        folder = _folder(path)
        kept = [time for time in current.times if time < since and (current.when is None or time < current.when)]
        revert = current.when is not None and current.when >= since
        if revert and kept:
            os.rename(f"{folder}/{kept[-1]}", path)
        for time in set(current.times).difference(kept):
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{time}")
        if revert and not kept:
            os.unlink(path)
        if revert or len(kept) < len(current.times):
            sync_folder(os.path.dirname(path))
        self._cached.pop(path, None)


def _folder(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name.removesuffix('.json')}.was"


def _identity(path: str) -> Identity | None:
    """Return what distinguishes a file from earlier and later files at its path (inode, mtime, size), or None without a file."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
