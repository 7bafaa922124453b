"""Convert bodies to the JSON text that the files of the TypeScript package hold, and back."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from bson import ObjectId

from ...errors import InvalidTypeError, InvalidValueError

__all__ = ["as_json", "json_of", "text_of", "value_of"]

# A number that may not fit into 64 bits: JavaScript writes doubles below 1e21 with all their digits.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def json_of(body: Any) -> bytes:
    """Return a value decoded from BSON as compact JSON in UTF-8. Raises InvalidTypeError for a type that only BSON has."""
    return text_of(as_json(body))


def text_of(value: Any) -> bytes:
    """Encode a result of ``as_json`` as compact JSON. Bytes become base64, decimals text, NaN and infinities null, as in JavaScript."""
    with _depth():
        return msgspec.json.encode(value, enc_hook=_only_bson)


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


def as_json(value: Any) -> Any:
    """Return a value decoded from BSON with its dates as ISO text (ms and ``Z``) and its ids as text."""
    with _depth():
        return _as_json(value)


def _as_json(value: Any) -> Any:
    # Loops, here and below: a comprehension would add a second frame per level, and MongoDB accepts hundreds of levels.
    kind = type(value)
    if kind is dict:
        members = {}
        for name, member in value.items():
            members[name] = _as_json(member)
        return members
    if kind is list:
        items = []
        for member in value:
            items.append(_as_json(member))
        return items
    if kind is datetime:
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return str(value) if kind is ObjectId else value


@contextmanager
def _depth() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise InvalidValueError("the value is nested too deep for JSON") from None


def _only_bson(value: Any) -> Any:
    if isinstance(value, bytes):  # a Binary: bytes with a subtype
        return bytes(value)
    raise InvalidTypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored as JSON")


def _integer(digits: str) -> int | float:
    """Parse an integer; a long one becomes a double as in JavaScript, since Python rejects integers of thousands of digits."""
    return int(digits) if len(digits) < 20 else float(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _mended(value: Any) -> Any:
    """Replace what cannot be stored again: integers beyond 64 bits become floats (doubles, as in JavaScript), lone surrogates U+FFFD."""
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
