"""Encode any text of a key as a file or folder name, and sort names as the TypeScript package does.

A name that is safe is used unchanged, as in the TypeScript package (``:``, blanks and Unicode too). Names that would leave the folder, be
hidden, or equal another name on some file system are percent-encoded; names that are too long after that become a hash. Two names never
share a file, except names that differ only in case on a case-insensitive file system.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["encode_name", "hash_of", "is_hashed", "natural", "plain_name"]

# In bytes. A file system allows 255; the rest is for the suffixes of files and the prefix of temporary files.
_LONGEST: Final = 200

# No percent-encoded name contains "%-", so it cannot look like a hashed one.
_HASHED: Final = re.compile(r"%-[0-9a-f]{64}")


def encode_name(name: str, *, folder: bool = False) -> str:
    """Return ``name`` as one path component, without the suffix of a file.

    It encodes ``/``, the backslash, ``%``, NUL, a leading dot, all non-ASCII characters of a name that is not in NFC (macOS treats such
    names and their NFC forms as equal), the empty name, and in the name of a ``folder`` a final ``.json`` (a file of that name may exist
    beside it).
    """
    text = re.sub(r"[/\\%\0]", _percent, name)
    if text.startswith("."):
        text = "%2E" + text[1:]
    if folder and text.endswith(".json"):
        text = text[:-5] + "%2Ejson"
    if not unicodedata.is_normalized("NFC", text):
        text = re.sub(r"[^\x00-\x7f]", _percent, text)
    return f"%-{hash_of(name)}" if len(text.encode()) > _LONGEST else text or "%"


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def hash_of(name: str) -> str:
    """Return the hash that replaces a name that is too long."""
    return hashlib.sha256(name.encode()).hexdigest()


def is_hashed(component: str) -> bool:
    """Return whether a component is a hash, with the full name in a file beside it."""
    return _HASHED.fullmatch(component) is not None


def plain_name(component: str, *, folder: bool = False) -> str:
    """Decode a path component that is not hashed; one that ``encode_name`` did not produce is returned unchanged."""
    if "%" not in component:
        return component
    try:
        name = "" if component == "%" else unquote_to_bytes(component).decode()
    except UnicodeDecodeError:
        return component
    return name if encode_name(name, folder=folder) == component else component


# --- order ---

# The order of Unicode collation: these marks first, then digits, then letters. No rank is the code of a digit, of _NUMBER or of a letter.
_RANKS: Final = {ord(mark): rank for rank, mark in enumerate("\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$")}
_NUMBER: Final = "@"
_DIGITS: Final = re.compile("([0-9]+)")


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Return a sort key that compares runs of digits as numbers and ignores case and accents; ties sort by code point.

    It matches JavaScript's ``localeCompare`` with ``numeric: true`` and ``sensitivity: "base"`` for the ids that occur in practice.
    """
    text = (
        name if name.isascii() else "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    )
    pieces: list[str | tuple[int, str]] = []
    for index, piece in enumerate(_DIGITS.split(text.casefold().translate(_RANKS))):
        if index % 2:
            digits = piece.lstrip("0")
            pieces[-1] = f"{pieces[-1]}{_NUMBER}"
            pieces.append((len(digits), digits))
        else:
            pieces.append(piece)
    return pieces, name
