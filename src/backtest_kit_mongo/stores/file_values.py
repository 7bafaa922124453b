"""A record as the content of its file: the payload as JSON, and behind it, unseen by a JSON parser, the simulation time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from bson import ObjectId

from .._core import bson
from ..domains import Domain
from ..simulation import milliseconds
from .base import Key, Record, encode

__all__ = ["open_content", "pack_record", "parse"]

# The 64 bits of a time, a blank for 0 and a tab for 1, behind the value on a line of their own.
_TIME: Final = re.compile(rb"\n([ \t]{64})\Z")
_TO_BLANKS: Final = str.maketrans("01", " \t")
_FROM_BLANKS: Final = bytes.maketrans(b" \t", b"01")

# A number that may not fit into 64 bits: JavaScript writes doubles below 1e21 in full.
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def pack_record(domain: Domain, record: Record) -> bytes:
    """What the file of a record holds; InvalidTypeError or InvalidValueError for what cannot be stored."""
    body = record.body
    if record.removed and (body is None or body.get("removed") is not True):
        body = {**(body or {}), "removed": True}
    # Through BSON, so that every store takes and refuses the same values.
    body = _as_json(bson.decode(encode(domain, record.key, {"payload": body}))["payload"])
    content = msgspec.json.encode(body)
    if record.when is None or not domain.when or record.when == _time_of(domain, body):
        return content
    bits = f"{record.when & (1 << 64) - 1:064b}".translate(_TO_BLANKS)
    return b"%b\n%b" % (content, bits.encode())


def _as_json(value: Any) -> Any:
    """A value out of BSON as JSON has it: dates and ids as text (msgspec turns bytes to base64, decimals to text, NaN to null)."""
    kind = type(value)
    if kind is dict:
        return {name: _as_json(member) for name, member in value.items()}
    if kind is list:
        return [_as_json(member) for member in value]
    if kind is datetime:
        moment = value.astimezone(UTC)
        return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    return str(value) if kind is ObjectId else value


def open_content(domain: Domain, key: Key, content: bytes) -> Record:
    """The record in the content of a file; ValueError if it holds no such thing."""
    body = parse(content)
    if body is not None and not isinstance(body, list if domain.empty is list else dict):
        raise ValueError(f"a JSON {type(body).__name__} is no {domain.name}")
    when = None
    if domain.when:
        bits = _TIME.search(content, max(0, len(content) - 65))
        if bits is None:
            when = _time_of(domain, body)
        else:
            when = int(bits[1].translate(_FROM_BLANKS), 2)
            when -= (when >> 63) << 64
    return Record(key, body, when, domain.soft_delete and body is not None and body.get("removed") is True)


def _time_of(domain: Domain, body: Any) -> int | None:
    """The simulation time that a body itself says, where the original puts it: as ms or, in an interval, as ISO text."""
    if not isinstance(body, dict):
        return None
    said = body.get("timestamp" if domain.name == "recent" else "when")
    try:
        if isinstance(said, str):
            return milliseconds("when", datetime.fromisoformat(said))
        if isinstance(said, (int, float)) and not isinstance(said, bool):
            return milliseconds("when", int(said)) if said == int(said) else None
    except (ValueError, OverflowError):
        pass  # it is a value of the user's that has nothing to do with time
    return None


def parse(content: bytes) -> Any:
    """The value in a JSON text; ValueError if it is none."""
    try:
        try:
            value = msgspec.json.decode(content)
        except msgspec.DecodeError:
            # JavaScript writes half a surrogate pair, as it is left where a text was cut, as an escape.
            return _mended(json.loads(content.decode(), parse_constant=_refuse))
        return _mended(value) if _LONG_NUMBER.search(content) else value
    except (RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _mended(value: Any) -> Any:
    """The value without what cannot be stored again: integers beyond 64 bits (doubles, in JavaScript) and halves of characters."""
    mend = _MENDERS.get(type(value))
    return value if mend is None else mend(value)


_MENDERS: Final[dict[type, Callable[[Any], Any]]] = {
    dict: lambda value: {_mended(name): _mended(member) for name, member in value.items()},
    list: lambda value: [_mended(member) for member in value],
    int: lambda value: value if -(2**63) <= value < 2**63 else float(value),
    str: lambda value: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
}
