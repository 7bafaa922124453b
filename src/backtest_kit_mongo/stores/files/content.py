"""Convert records to the content of their files and back: the body as JSON, then the simulation time, invisible to a JSON parser."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from ..._core import bson
from ...domains import Domain
from ...errors import InvalidTypeError
from ...simulation import milliseconds
from ..base import Key, Record, encode
from .extended_json import json_value, opened
from .json_text import text_of

__all__ = ["open_content", "pack_record"]

# The 64 bits of a time (ms), a blank for 0 and a tab for 1, on a line of their own after the value.
_TIME: Final = re.compile(rb"\n([ \t]{64})\Z")
_TO_BLANKS: Final = str.maketrans("01", " \t")
_FROM_BLANKS: Final = bytes.maketrans(b" \t", b"01")


def pack_record(domain: Domain, record: Record) -> bytes:
    """Return the content of a record's file. Raises InvalidTypeError or InvalidValueError if the record cannot be stored."""
    # Encode to BSON first, so that every store accepts and rejects the same values.
    raw = encode(domain, record.key, {"payload": record.body})
    body = bson.decode(raw)["payload"]
    if record.removed and domain.soft_delete and (body is None or body.get("removed") is not True):
        body = {**(body or {}), "removed": True}
    if not _is_body(domain, body):
        raise InvalidTypeError(
            f"{domain.name} {', '.join(map(repr, record.key))}: a {type(body).__name__} is not a valid {domain.name} body"
        )
    value, mark = json_value(domain, body, raw)
    content = mark + text_of(value)
    if record.when is None or not domain.when or record.when == _time_of(domain, value):
        return content
    bits = f"{record.when & (1 << 64) - 1:064b}".translate(_TO_BLANKS)
    return b"%b\n%b" % (content, bits.encode())


def open_content(domain: Domain, key: Key, content: bytes) -> Record:
    """Return the record in the content of a file. Raises ValueError if the content is not a record of the domain."""
    value, body = opened(domain, content)
    if not _is_body(domain, body):
        raise ValueError(f"a JSON {type(body).__name__} is not a valid {domain.name} body")
    when = None
    if domain.when:
        bits = _TIME.search(content, max(0, len(content) - 65))
        if bits is None:
            when = _time_of(domain, value)
        else:
            when = int(bits[1].translate(_FROM_BLANKS), 2)
            when -= (when >> 63) << 64
    return Record(key, body, when, domain.soft_delete and isinstance(body, dict) and body.get("removed") is True)


def _is_body(domain: Domain, body: Any) -> bool:
    return body is None or isinstance(body, list if domain.empty is list else dict)


def _time_of(domain: Domain, value: Any) -> int | None:
    """Return the simulation time (ms) in the JSON of a body, where the TypeScript package puts it: ms or, in an interval, a date."""
    if not isinstance(value, dict):
        return None
    time = value.get("timestamp" if domain.name == "recent" else "when")
    try:
        if isinstance(time, (str, datetime)):
            return milliseconds("when", datetime.fromisoformat(time) if isinstance(time, str) else time)
        if isinstance(time, (int, float)) and not isinstance(time, bool):
            return milliseconds("when", int(time)) if time == int(time) else None
    except (ValueError, OverflowError):
        pass  # a user's own value, unrelated to time
    return None
