"""Say in JSON what JSON has no words for: the framework's own fields in their plain form, a user's values in MongoDB Extended JSON.

The plain form is what the TypeScript package writes: ISO text for its dates, null for a lifetime without end. Everything else that JSON
cannot say is Extended JSON as ``bson.json_util`` writes it, such as ``{"$numberDecimal": "1.10"}``.

Tabs before a text, which no JSON parser minds, tell what is not as usual: 1 tab that it holds Extended JSON, 2 that a user stored text in
place of the framework's date, 3 both. Without Extended JSON, an object that looks like it is just an object: another program wrote it, an
earlier version, or a user who stored just that. Beside Extended JSON, such an object has one more ``$`` before its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
from bson import Code, Decimal128, Int64, json_util
from bson.errors import BSONError

from ..._core.hit_reader import restore_infinity
from ..._core.json_types import is_plain
from ...domains import Domain
from .json_text import depth_checked, value_of

__all__ = ["extended", "json_value", "opened", "plain_form", "restored"]

_EXTENDED: Final = 1
_TEXT_FOR_DATE: Final = 2

# Every object of Extended JSON has one member with such a name, except code with a scope.
_NAME: Final = re.compile(
    r"(\$+)(?:oid|date|numberInt|numberLong|numberDouble|numberDecimal|binary|uuid|regularExpression|timestamp|minKey|maxKey|code|symbol"
    r"|dbPointer|undefined)"
)
_CODE: Final = re.compile(r"(\$+)code")

# A date as JavaScript writes it.
_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Numbers of JSON that Python and JavaScript parse as infinities.
_INFINITE: Final = msgspec.Raw(b"1e999")
_MINUS_INFINITE: Final = msgspec.Raw(b"-1e999")


# --- texts of bodies ---


def json_value(domain: Domain, body: Any, raw: bytes) -> tuple[Any, bytes]:
    """Return a body as ``text_of`` takes it, and what its text must begin with. ``raw`` is the BSON that the body was decoded from.

    Raises InvalidValueError if the body is nested too deep.
    """
    tabs = _TEXT_FOR_DATE if domain.dates and any(_date_in(body, path) for path in domain.dates) else 0
    if not is_plain(raw):
        body, typed = extended(plain_form(domain, body), rows=domain.infinite is not None)
        tabs += _EXTENDED if typed else 0
    return body, b"\t" * tabs


def opened(domain: Domain, content: bytes) -> tuple[Any, Any]:
    """Return the JSON value of a text (with the framework's own fields restored), and the body that it means.

    Raises ValueError if the text is neither JSON nor Extended JSON.
    """
    value = body = value_of(content)
    tabs = 3 - len(content[:3].lstrip(b"\t")) if content.startswith(b"\t") else 0
    if tabs & _EXTENDED:
        try:
            body = restored(value)
        except RecursionError:
            raise ValueError("nested too deep") from None
    if domain.infinite is not None:
        restore_infinity(body, *domain.infinite)  # as the TypeScript package does when it reads a file
    if not tabs & _TEXT_FOR_DATE:
        for path in domain.dates:
            if (found := _date_in(body, path)) is not None:
                holder, moment = found
                holder[path[-1]] = moment
    return value, body


# --- the framework's own fields ---


def plain_form(domain: Domain, body: Any) -> Any:
    """Return a body with the framework's own dates as ISO text, and its infinite lifetimes as null. The rest is shared."""
    for path in domain.dates:
        body = _changed(body, path, _iso)
    if domain.infinite is None:
        return body
    name, optional_below = domain.infinite
    if isinstance(body, list):
        return [[pair[0], _finite(pair[1], name)] if isinstance(pair, list) and len(pair) == 2 else pair for pair in body]
    if isinstance(body, dict):
        return {member: row if member == optional_below else _finite(row, name) for member, row in _finite(body, name).items()}
    return body


def _changed(body: Any, path: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """Return a body with another member at ``path``, if it has one there."""
    name, *rest = path
    if not isinstance(body, dict) or name not in body:
        return body
    return {**body, name: _changed(body[name], rest, change) if rest else change(body[name])}


def _iso(value: Any) -> Any:
    """Return a datetime in UTC as JavaScript writes it, and any other value unchanged."""
    return f"{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z" if isinstance(value, datetime) else value


def _date_in(body: Any, path: Sequence[str]) -> tuple[dict[str, Any], datetime] | None:
    """Return the dict at the end of a path and the date that it holds as text there; None for anything but text that JavaScript writes."""
    for name in path[:-1]:
        body = body.get(name) if isinstance(body, dict) else None
    text = body.get(path[-1]) if isinstance(body, dict) else None
    if isinstance(text, str) and _ISO.fullmatch(text):
        try:
            return body, datetime.fromisoformat(text)
        except ValueError:  # no such day
            pass
    return None


def _finite(row: Any, name: str) -> Any:
    lifetime = row.get(name) if isinstance(row, dict) else None
    return {**row, name: None} if isinstance(lifetime, float) and lifetime == math.inf else row  # Decimal("Infinity") equals it too


# --- everything else ---


def extended(value: Any, *, rows: bool = False) -> tuple[Any, bool]:
    """Return a value decoded from BSON as values of JSON, and whether they hold Extended JSON; if not, they are the same as before.

    In ``rows`` of the framework, whose fields are numbers, an infinity is the number 1e999. Raises InvalidValueError if the value is
    nested too deep.
    """
    with depth_checked():
        encoder = _Encoder(rows)
        result = encoder.encoded(value)
        if encoder.typed and encoder.alike:
            encoder.escapes = True
            result = encoder.encoded(value)
    return result, encoder.typed


def restored(value: Any) -> Any:
    """Return the value that ``extended`` was given. Raises ValueError if an object of Extended JSON is malformed."""
    # Loops, here and below: a comprehension would add a second frame per level, and MongoDB accepts hundreds of levels.
    kind = type(value)
    if kind is list:
        items = []
        for member in value:
            items.append(restored(member))
        return items
    if kind is not dict:
        return value
    members = {}
    for name, member in value.items():
        members[name] = restored(member)
    signs = _signs(members)
    if signs > 1:
        return {name[1:]: member for name, member in members.items()}
    return _decoded(members) if signs else members


class _Encoder:
    """Converts a value, and notes what is in it."""

    def __init__(self, rows: bool) -> None:
        self.rows = rows
        self.escapes = False
        self.typed = False
        """Whether there was a value that JSON does not have."""
        self.alike = False
        """Whether there was a dict that looks like Extended JSON."""

    def encoded(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is int or kind is bool or value is None:
            return value
        if kind is dict:
            members = {}
            for name, member in value.items():
                members[name] = self.encoded(member)
            if _signs(members):
                self.alike = True
                if self.escapes:
                    return {f"${name}": member for name, member in members.items()}
            return members
        if kind is list:
            items = []
            for member in value:
                items.append(self.encoded(member))
            return items
        if kind is float:
            if math.isfinite(value):
                return value
            if self.rows and not math.isnan(value):
                return _INFINITE if value > 0 else _MINUS_INFINITE
        self.typed = True
        if kind is Code and value.scope is not None:
            return {"$code": str(value), "$scope": self.encoded(dict(value.scope))}
        if kind is Decimal:
            return {"$numberDecimal": str(value)}  # json_util drops the sign of a NaN, and whether it signals
        return json_util.default(value, json_util.RELAXED_JSON_OPTIONS)


def _signs(members: dict[str, Any]) -> int:
    """Return the number of ``$`` before the name of an object of Extended JSON, 0 for any other object."""
    if len(members) == 1:
        (name,) = members
        match = _NAME.fullmatch(name) if name.startswith("$") else None
    elif len(members) == 2:
        name, other = sorted(members)
        match = _CODE.fullmatch(name) if name.startswith("$") and other == f"{name.removesuffix('code')}scope" else None
    else:
        match = None
    return 0 if match is None else len(match[1])


def _decoded(members: dict[str, Any]) -> Any:
    try:
        if "$date" in members:
            return _moment(members["$date"])
        value = json_util.object_hook(members, json_util.RELAXED_JSON_OPTIONS)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, BSONError) as error:
        raise ValueError(f"{members!r:.80} is not Extended JSON: {error}") from None
    if isinstance(value, Decimal128):
        return value.to_decimal()
    return int(value) if isinstance(value, Int64) else value


def _moment(date: Any) -> datetime:
    """Return the date in ISO text or ms. (json_util parses the fraction of a second as a double, and so loses a millisecond at times.)"""
    if not isinstance(date, str):
        return _EPOCH + timedelta(milliseconds=date)
    moment = datetime.fromisoformat(date)
    if moment.tzinfo is None:
        raise ValueError("the date has no time zone")
    return moment.astimezone(UTC)
