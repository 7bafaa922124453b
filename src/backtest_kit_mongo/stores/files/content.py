"""A record as the content of its file: the payload as JSON, and behind it, unseen by a JSON parser, the simulation time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from ..._core import bson
from ...domains import Domain
from ...errors import InvalidTypeError
from ...simulation import milliseconds
from ..base import Key, Record, encode
from .json_text import as_json, text_of, value_of

__all__ = ["open_content", "pack_record"]

# The 64 bits of a time, a blank for 0 and a tab for 1, behind the value on a line of their own.
_TIME: Final = re.compile(rb"\n([ \t]{64})\Z")
_TO_BLANKS: Final = str.maketrans("01", " \t")
_FROM_BLANKS: Final = bytes.maketrans(b" \t", b"01")


def pack_record(domain: Domain, record: Record) -> bytes:
    """What the file of a record holds; InvalidTypeError or InvalidValueError for what cannot be stored."""
    # Through BSON, so that every store takes and refuses the same values.
    body = as_json(bson.decode(encode(domain, record.key, {"payload": record.body}))["payload"])
    if record.removed and domain.soft_delete and (body is None or body.get("removed") is not True):
        body = {**(body or {}), "removed": True}
    if not _is_body(domain, body):
        raise InvalidTypeError(f"{domain.name} {', '.join(map(repr, record.key))}: a {type(body).__name__} is no {domain.name}")
    content = text_of(body)
    if record.when is None or not domain.when or record.when == _time_of(domain, body):
        return content
    bits = f"{record.when & (1 << 64) - 1:064b}".translate(_TO_BLANKS)
    return b"%b\n%b" % (content, bits.encode())


def open_content(domain: Domain, key: Key, content: bytes) -> Record:
    """The record in the content of a file; ValueError if it holds no such thing."""
    body = value_of(content)
    if not _is_body(domain, body):
        raise ValueError(f"a JSON {type(body).__name__} is no {domain.name}")
    when = None
    if domain.when:
        bits = _TIME.search(content, max(0, len(content) - 65))
        if bits is None:
            when = _time_of(domain, body)
        else:
            when = int(bits[1].translate(_FROM_BLANKS), 2)
            when -= (when >> 63) << 64
    return Record(key, body, when, domain.soft_delete and isinstance(body, dict) and body.get("removed") is True)


def _is_body(domain: Domain, body: Any) -> bool:
    return body is None or isinstance(body, list if domain.empty is list else dict)


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
