"""Tell which key a record belongs to if several keys have the same path.

The TypeScript package joins key fields to one folder name: (A, B_C, x) and (A_B, C, x) share ``A_B_C_x``. A record in such a folder
belongs to the key that its rows name, or that this package has marked it with: blanks after the JSON, which no parser sees, and which
vanish when the TypeScript package replaces the file. A record with neither belongs to any key that asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ...domains import Domain
from ..base import Key
from .layout import Fields, Layout
from .names import hash_of

__all__ = ["belongs", "contradictions", "describe", "hash_of_fields", "mark_of", "marked", "marked_key", "narrowed", "rows_in", "sharers"]

# The 64 bits of a hash, a blank for 0 and a tab for 1, between the value and the simulation time (see ``content``).
_MARK: Final = re.compile(rb"\r([ \t]{64})(?:\n[ \t]{64})?\Z")
_TIME: Final = re.compile(rb"(?:\n[ \t]{64})?\Z")
_LONGEST: Final = 130  # bytes of both
_TO_BLANKS: Final = str.maketrans("01", " \t")
_FROM_BLANKS: Final = bytes.maketrans(b" \t", b"01")


def hash_of_fields(fields: Fields) -> str:
    """Return a hash of the fields of a joined name, as 16 hexadecimal digits."""
    return hash_of(msgspec.json.encode(fields).decode())[:16]


def marked(content: bytes, fields: Fields) -> bytes:
    """Return the content of a file, marked with the fields of its folder."""
    end = len(content) - len(_TIME.search(content, max(0, len(content) - 65))[0])  # type: ignore[index]  # it matches any content
    bits = f"{int(hash_of_fields(fields), 16):064b}".translate(_TO_BLANKS)
    return b"%b\r%b%b" % (content[:end], bits.encode(), content[end:])


def mark_of(content: bytes) -> str | None:
    """Return the hash of the fields that a file is marked with, None without a mark."""
    bits = _MARK.search(content, max(0, len(content) - _LONGEST))
    return None if bits is None else f"{int(bits[1].translate(_FROM_BLANKS), 2):016x}"


def sharers(layout: Layout, key: Key) -> list[Key]:
    """Return the keys with the same path as ``key``, itself included; none if its joined name splits in too many ways."""
    assert layout.joined is not None
    fields = layout.fields(key)
    return list(layout.keys(None, layout.joined.text(fields) or "", layout.file.text(fields) or ""))


def marked_key(layout: Layout, keys: Iterable[Key], mark: str | None) -> Key | None:
    """Return which of ``keys`` a file is marked with. A file of a renamed folder may have the mark of another."""
    if mark is None:
        return None
    return next((key for key in keys if hash_of_fields(layout.folder_fields(key)) == mark), None)


def belongs(layout: Layout, key: Key, body: Any, mark: str | None) -> bool | None:
    """Return whether a record at the path of ``key`` belongs to it; None if nothing tells."""
    if mark == hash_of_fields(layout.folder_fields(key)):
        return True
    keys = sharers(layout, key)
    if mark is not None and (not keys or marked_key(layout, keys, mark) is not None):
        return False
    remaining = narrowed(layout.domain, keys, body) or [key]
    if key not in remaining:
        return False
    return True if len(remaining) == 1 and keys else None


def rows_in(body: Any) -> list[Fields]:
    """Return the rows in a body that may have key fields: itself and what is one level below."""
    members = list(body.values()) if isinstance(body, dict) else [pair[-1] for pair in body or () if isinstance(pair, list) and pair]
    return [row for row in (body, *members) if isinstance(row, dict)]


def narrowed(domain: Domain, keys: Sequence[Key], body: Any) -> list[Key]:
    """Return which of ``keys`` agree best with the rows in a body. A field that contradicts all of them decides nothing."""
    remaining = list(keys)
    rows = rows_in(body) if len(keys) > 1 else ()
    for position, name in enumerate(domain.key):
        said = {row[name] for row in rows if isinstance(row.get(name), str)}
        remaining = [key for key in remaining if key[position] in said] or remaining
    return remaining


def contradictions(domain: Domain, key: Key, body: Any) -> list[str]:
    """Return the fields in the rows of a body that differ from ``key``, as text like ``symbol BTCUSDT``."""
    rows = rows_in(body)
    differing = {
        f"{name} {row[name]}"
        for row in rows
        for name, value in zip(domain.key, key, strict=True)
        if isinstance(value, str) and isinstance(row.get(name), str) and row[name] != value
    }
    return sorted(differing)


def describe(layout: Layout, key: Key) -> str:
    """Return the fields of a joined name as text: ``symbol ETHUSDT, strategyName sma_cross, exchangeName binance``."""
    return ", ".join(f"{name} {value}" for name, value in layout.folder_fields(key).items())
