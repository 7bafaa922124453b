"""Names of files and folders for whatever text stands in a key, and the order in which the original lists them.

A name that can stand as it is does so, as in the original (``:``, blanks and unicode too). What would leave the folder, be hidden, or fall
together with another name on some file system is percent-encoded, and what is too long then becomes a hash. Two names never share a
file, but for names that differ in case alone on a file system that does not tell cases apart.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["encode_name", "hash_of", "is_hashed", "natural", "plain_name"]

# A file system takes 255 bytes; the rest is for the endings of files and for what stands before a temporary's name.
_LONGEST: Final = 200

# No percent-encoded name holds "%-", so a hashed one is none.
_HASHED: Final = re.compile(r"%-[0-9a-f]{64}")


def encode_name(name: str, *, folder: bool = False) -> str:
    """``name`` as one component of a path, without the ending of a file.

    Encoded are ``/``, a backslash, ``%``, NUL, a leading dot, letters in a form that is not NFC (a Mac takes them for the NFC ones), in a
    ``folder`` an ending ``.json`` (there may be a file of that name beside it), and the empty name.
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
    """What stands for a name that is too long."""
    return hashlib.sha256(name.encode()).hexdigest()


def is_hashed(component: str) -> bool:
    """Whether the name itself is in a file beside."""
    return _HASHED.fullmatch(component) is not None


def plain_name(component: str, *, folder: bool = False) -> str:
    """The name of which ``component`` is the encoding; itself, if somebody else made it. Not for hashed ones."""
    if "%" not in component:
        return component
    try:
        name = "" if component == "%" else unquote_to_bytes(component).decode()
    except UnicodeDecodeError:
        return component
    return name if encode_name(name, folder=folder) == component else component


# --- order ---

# As Unicode collation has them: these first, then digits, then letters. No rank is that of a digit, of _NUMBER or of a letter.
_RANKS: Final = {ord(mark): rank for rank, mark in enumerate("\t\n\v\f\r _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$")}
_NUMBER: Final = "@"
_DIGITS: Final = re.compile("([0-9]+)")


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """A key to sort by: runs of digits as numbers, without regard to case and accents; equal ones by code point.

    It is ``localeCompare`` with ``numeric: true`` and ``sensitivity: "base"`` of JavaScript, for ids as they occur.
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
