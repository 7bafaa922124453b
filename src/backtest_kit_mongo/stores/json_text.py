"""A payload as the JSON text that the original's files hold, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from bson import ObjectId

from ..errors import InvalidTypeError

__all__ = ["as_json", "json_of", "text_of", "value_of"]

# A number that may not fit into 64 bits: JavaScript writes doubles below 1e21 in full.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def json_of(body: Any) -> bytes:
    """A value as it comes out of BSON as compact JSON in UTF-8. InvalidTypeError for what only BSON has."""
    return text_of(as_json(body))


def text_of(value: Any) -> bytes:
    """What ``as_json`` gave as compact JSON: bytes become base64, decimals text, NaN and infinities null, as in JavaScript."""
    return msgspec.json.encode(value, enc_hook=_only_bson)


def value_of(content: bytes) -> Any:
    """The value of a JSON text, such that it can be stored again; ValueError if it is none."""
    try:
        try:
            value = msgspec.json.decode(content)
        except msgspec.DecodeError:
            # JavaScript writes half a surrogate pair, as it is left where a text was cut, as an escape.
            return _mended(json.loads(content.decode(), parse_constant=_refuse))
        return _mended(value) if _LONG_NUMBER.search(content) else value
    except RecursionError:
        raise ValueError("nested too deep") from None


def as_json(value: Any) -> Any:
    """A value out of BSON with its dates as ISO text (ms and ``Z``) and its ids as text."""
    kind = type(value)
    if kind is dict:
        return {name: as_json(member) for name, member in value.items()}
    if kind is list:
        return [as_json(member) for member in value]
    if kind is datetime:
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return str(value) if kind is ObjectId else value


def _only_bson(value: Any) -> Any:
    if isinstance(value, bytes):  # a Binary, which has a subtype too
        return bytes(value)
    raise InvalidTypeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be stored as JSON")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _mended(value: Any) -> Any:
    """The value without what cannot be stored again: integers beyond 64 bits (doubles, in JavaScript) and halves of characters."""
    mend = _MENDERS.get(type(value))
    return value if mend is None else mend(value)


_MENDERS: Final[dict[type, Callable[[Any], Any]]] = {
    dict: lambda value: {_mended(name): _mended(member) for name, member in value.items()},
    list: lambda value: [_mended(member) for member in value],
    int: lambda value: value if -(2**63) <= value < 2**63 else float(str(value)),
    str: lambda value: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
}
