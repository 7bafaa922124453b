"""FileVersions of a record beside its file: what was there before a write, under the time at which it was written.

The record itself is always the last version. Those before it are files named by their time (ms) in a folder ``.<name>.was``, hard links
to what the record was, so that keeping one costs no writing. The original passes the folder over.
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
"""The time (ms) of what says none: before all others."""

_DAY_MS: Final = 86_400_000
_MOST_KEYS: Final = 10_000  # whose versions are remembered; then it starts anew

Identity = tuple[int, int, int]


class _Known(NamedTuple):
    """What is known of a file, for as long as it is this very one: its time, and the times of the versions before it, ascending."""

    identity: Identity | None
    when: int | None  # None: there is no file
    times: list[int]


class FileVersions:
    """The versions of records, by the paths of their files. One thread at a time may change them."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.forget()

    def forget(self) -> None:
        """Look at the file system again."""
        self._known: dict[str, _Known] = {}

    def _look(self, path: str, time_of: Callable[[str], int | None]) -> _Known:
        """What there is; another process may have written since we did."""
        identity = _identity(path)
        known = self._known.get(path)
        if known is not None and identity is not None and known.identity == identity:
            return known
        when = None if identity is None else time_of(path)
        times = []
        with suppress(FileNotFoundError):
            times = sorted(int(name) for name in os.listdir(_folder(path)) if re.fullmatch(r"-?[0-9]+", name, re.ASCII))
        return _Known(identity, when, times)

    def _note(self, path: str, known: _Known) -> None:
        if len(self._known) >= _MOST_KEYS:
            self._known.clear()
        self._known[path] = known

    def replace(self, temporary: str, path: str, when: int, time_of: Callable[[str], int | None]) -> None:
        """Put a version of ``when`` at ``path``, and keep what was there if it is older; later ones go.

        ``time_of`` gives the time of a record's file, None if it is none.
        """
        known = self._look(path, time_of)
        self._known.pop(path, None)  # should this fail half way
        folder = _folder(path)
        older = known.when is not None and known.when < when
        if older:
            # Not told to the disk by itself: the names of both folders go there together when that of the record does.
            keep_link(path, f"{folder}/{known.when}")
        identity = _identity(temporary)
        os.rename(temporary, path)
        times = known.times
        # What is as late as the record that was there is left from a write that was killed, or written over by the original.
        end = bisect_left(times, when if known.when is None else min(when, known.when))
        gone, times[end:] = times[end:], [known.when] if older and known.when is not None else []
        first = self._first(times, when)
        gone, times[:first] = [time for time in gone if time != known.when] + times[:first], []
        for time in gone:
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{time}")
        self._note(path, _Known(identity, when, times))

    def _first(self, times: list[int], when: int) -> int:
        """The place in ``times`` of the first version that is kept beside one of ``when``."""
        limit, days, first = self._history.limit, self._history.days, 0
        if limit:
            first = max(first, len(times) - (limit - 1))
        if days:
            first = max(first, bisect_left(times, when - days * _DAY_MS))
        return first

    def before(self, path: str, moment: int, time_of: Callable[[str], int | None]) -> str | None:
        """The file of the last version at ``moment`` or before; None if there is none."""
        known = self._look(path, time_of)
        if known.when is not None and known.when <= moment:
            return path
        times = known.times if known.when is None else known.times[: bisect_left(known.times, known.when)]
        index = bisect_right(times, moment)
        self._note(path, known)
        return f"{_folder(path)}/{times[index - 1]}" if index else None

    def discard(self, path: str, since: int, time_of: Callable[[str], int | None]) -> None:
        """Let the record be what it was before ``since``, or not there."""
        known = self._look(path, time_of)
        folder = _folder(path)
        kept = [time for time in known.times if time < since and (known.when is None or time < known.when)]
        back = known.when is not None and known.when >= since
        if back and kept:
            os.rename(f"{folder}/{kept[-1]}", path)
        for time in set(known.times).difference(kept):
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{time}")
        if back and not kept:
            os.unlink(path)
        if back or len(kept) < len(known.times):
            sync_folder(os.path.dirname(path))
        self._known.pop(path, None)


def _folder(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name.removesuffix('.json')}.was"


def _identity(path: str) -> Identity | None:
    """What tells a file from any other that stood or will stand at a path."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
