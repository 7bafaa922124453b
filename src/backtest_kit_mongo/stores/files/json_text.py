"""Read and write JSON text. It may come from this library, from JavaScript or from an editor."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from ...errors import InvalidValueError

__all__ = ["depth_checked", "text_of", "value_of"]

# A number that may not fit into 64 bits: JavaScript writes doubles below 1e21 with all their digits.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def text_of(value: Any) -> bytes:
    """Encode a value of JSON's own types (and msgspec.Raw) as compact JSON in UTF-8. Raises InvalidValueError if it is nested too deep."""
    with depth_checked():
        return msgspec.json.encode(value)


def value_of(content: bytes) -> Any:
    """Decode a JSON text to a value that can be stored again. Raises ValueError if the text is not JSON."""
    content = content.removeprefix(codecs.BOM_UTF8)  # some editors add it
    try:
        try:
            value = msgspec.json.decode(content)
        except msgspec.DecodeError:
            # JavaScript escapes half a surrogate pair (left where a text was cut); msgspec rejects that.
            return _mended(json.loads(content.decode(), parse_constant=_refuse, parse_int=_integer))
        return _mended(value) if _LONG_NUMBER.search(content) else value
    except RecursionError:
        raise ValueError("nested too deep") from None


@contextmanager
def depth_checked() -> Iterator[None]:
    """Turn a RecursionError into InvalidValueError."""
    try:
        yield
    except RecursionError:
        raise InvalidValueError("the value is nested too deep for JSON") from None


def _integer(digits: str) -> int | float:
    """Parse an integer; a long one becomes a double as in JavaScript, since Python rejects integers of thousands of digits."""
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _mended(value: Any) -> Any:
    """Replace what cannot be stored again: integers beyond 64 bits become floats (doubles, as in JavaScript), lone surrogates U+FFFD."""
    # Loops: a comprehension would add a second frame per level, and MongoDB accepts hundreds of levels.
    kind = type(value)
    if kind is dict:
        members = {}
        for name, member in value.items():
            members[_mended(name)] = _mended(member)
        return members
    if kind is list:
        items = []
        for member in value:
            items.append(_mended(member))
        return items
    if kind is int:
        return value if -(2**63) <= value < 2**63 else float(str(value))
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if kind is str else value
