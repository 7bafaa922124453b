"""Tell the keys of records in a folder whose joined name can be split in more than one way, for lists and copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from ...domains import Domain
from ...logs import log
from ..base import Key
from ..skipped_records import report_note, report_skipped
from .folders import Found
from .layout import Fields, layout_of
from .ownership import contradictions, describe, marked_key, narrowed
from .tree_names import TreeNames

__all__ = ["Splitter"]

_MOST_SHOWN = 4  # keys that a message lists


class Splitter:
    """The records of one folder. The evidence, in this order: the file's name, its mark, its rows, the folder's note, the tree."""

    def __init__(self, domain: Domain, folder: Found, owner: Callable[[], Fields | None], names: Callable[[], TreeNames]) -> None:
        self._domain, self._folder, self._names = domain, folder, names
        self._layout = layout_of(domain)
        self._owner = cache(owner)
        self._derived: dict[str, int] = {}
        self._contradicted: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def key_of(self, name: str, text: str, body: Any, mark: str | None) -> Key | None:
        """Return the key of a record; None if it cannot be told, and then report that the record is skipped."""
        possible = list(self._layout.keys(None, self._folder.name, text))
        key = marked_key(self._layout, possible, mark)
        if key is not None:
            return key
        remaining = narrowed(self._domain, possible, body)
        if len(remaining) > 1:
            remaining = [key for key in remaining if self._layout.folder_fields(key) == self._owner()] or remaining
        if len(remaining) > 1 and (chosen := self._names().choose(self._domain, remaining)) is not None:
            remaining = [chosen[0]]
            _count(self._derived, f"{describe(self._layout, chosen[0])}: {chosen[1]}")
        if len(remaining) == 1:
            if said := contradictions(self._domain, remaining[0], body):
                _count(self._contradicted, f"{describe(self._layout, remaining[0])}, although a row says {', '.join(said)}")
            return remaining[0]
        shown = " or ".join(f"({describe(self._layout, key)})" for key in remaining[:_MOST_SHOWN])
        more = f" or {len(remaining) - _MOST_SHOWN} others" if len(remaining) > _MOST_SHOWN else ""
        reason = f"it can be {shown}{more}" if remaining else "no key is known for this folder and file name"
        report_skipped(f"{self._folder.path}/{name}: the folder name is ambiguous: cannot tell which key it belongs to: {reason}")
        _count(self._refused, reason)
        return None

    def report(self, root: str) -> None:
        """Report what was assumed, contradicted and refused, in a line for each."""
        shown = os.path.relpath(self._folder.path, root)
        for text, count in self._derived.items():
            report_note(f"{shown}: {_records(count)} read as {text}")
        for text, count in self._contradicted.items():
            line = f"{shown}: the folder's name decides: {_records(count)} read as {text}"
            if not report_note(line):
                log("warning", line)
        for text, count in self._refused.items():
            report_note(f"{shown}: {_records(count)} refused: {text}; name it with --strategy or --exchange")
        if self._refused:
            log(
                "warning",
                f"{sum(self._refused.values())} records of {self._folder.path} are skipped in a list: the folder name is ambiguous: cannot "
                f"tell where one of {', '.join(self._layout.folders[-1].fields)} ends and the next begins; you can read each record by its "
                "key, and a write stores which key the folder belongs to",
            )


def _count(texts: dict[str, int], text: str) -> None:
    texts[text] = texts.get(text, 0) + 1


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"
