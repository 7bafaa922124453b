"""A reference implementation of the compiled core in plain, slow, obvious Python: the core must do what these functions do.

Nothing here is fast or clever, and nothing is imported from the package. If core and reference disagree, a test fails.
"""

import math
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from bson import DBRef, Decimal128, Int64, ObjectId

# --- keys ------------------------------------------------------------------------------------------------------------


def check_fields(fields, names, kinds):
    """Raise TypeError or ValueError that begins with the name of the first field that is not a legal key value of its kind."""
    if len(fields) != len(names) or len(kinds) != len(names):
        raise TypeError(f"expected {len(names)} key fields")
    for value, name, kind in zip(fields, names, kinds, strict=True):
        if kind is bool:
            if type(value) is not bool:
                raise TypeError(f"{name} must be a bool")
        elif kind is int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int")
        else:
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str")
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError(f"{name} holds a lone surrogate")
            if "\0" in value:
                raise ValueError(f"{name} holds a NUL character")


def redis_word(field):
    """Return one field as written in a Redis key."""
    if isinstance(field, bool):
        return "backtest" if field else "live"
    if isinstance(field, str):
        return "".join(field)
    if isinstance(field, int):
        return str(int(field))
    raise TypeError(f"a key field must be str, bool or int, got {type(field).__name__}")


def redis_key(prefix, fields):
    """Return ``prefix:field:field`` in UTF-8; raise UnicodeEncodeError (a ValueError) for a lone surrogate."""
    return ":".join([prefix.decode(), *map(redis_word, fields)]).encode()


def redis_command(*args):
    """Return an array of bulk strings (RESP)."""
    text = f"*{len(args)}\r\n".encode()
    for arg in args:
        text += f"${len(arg)}\r\n".encode() + arg + b"\r\n"
    return text


# --- BSON, writing ---------------------------------------------------------------------------------------------------


def milliseconds(moment: datetime) -> int:
    """Return the BSON date of an aware datetime: whole ms since 1970, rounded down; from the calendar, without datetime arithmetic."""
    days = moment.toordinal() - 719163  # 1970-01-01
    seconds = days * 86400 + moment.hour * 3600 + moment.minute * 60 + moment.second
    offset = moment.utcoffset()
    micros = seconds * 10**6 + moment.microsecond - ((offset.days * 86400 + offset.seconds) * 10**6 + offset.microseconds)
    return math.floor(Fraction(micros, 1000))


def without_foreign(value, fallback):
    """Return ``value`` with every value of a type outside BSON replaced, recursively, so that pymongo can encode it."""
    if isinstance(value, dict):
        return {name: without_foreign(member, fallback) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_foreign(member, fallback) for member in value]
    if value is None or isinstance(value, (bool, int, float, str, bytes, datetime)) or type(value).__module__.startswith("bson"):
        return value
    return without_foreign(fallback(value), fallback)


# --- BSON, reading ---------------------------------------------------------------------------------------------------

FIXED_SIZES = {0x01: 8, 0x06: 0, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16, 0x7F: 0, 0xFF: 0}


def take(data: bytes, at: int, size: int) -> bytes:
    """Return ``size`` bytes at ``at``; raise ValueError if the data ends before."""
    if size < 0 or at + size > len(data):
        raise ValueError("out of data")
    return data[at : at + size]


def int32(data: bytes, at: int) -> int:
    return struct.unpack("<i", take(data, at, 4))[0]


def c_string(data: bytes, at: int) -> bytes:
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("no end of a name")
    return data[at:end]


def value_size(data: bytes, at: int, kind: int) -> int:
    """Return the size of the value that begins at ``at``. Nested values are not checked."""
    if kind in FIXED_SIZES:
        return FIXED_SIZES[kind]
    if kind in (0x03, 0x04, 0x0F):  # document, array, code with scope: the length includes itself
        size = int32(data, at)
        if size < 5:
            raise ValueError("too short")
        return size
    if kind in (0x02, 0x0D, 0x0E, 0x0C):  # string, code, symbol; a DBPointer is a string and an ObjectId
        size = int32(data, at)
        if size < 1:
            raise ValueError("too short")
        return 4 + size + (12 if kind == 0x0C else 0)
    if kind == 0x05:
        size = int32(data, at)
        if size < 0:
            raise ValueError("negative")
        return 4 + 1 + size
    if kind == 0x0B:
        pattern = c_string(data, at)
        flags = c_string(data, at + len(pattern) + 1)
        return len(pattern) + 1 + len(flags) + 1
    raise ValueError("unknown type")


def elements(document: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (name, type, bytes of the value) of each element of a document; raise ValueError on reaching malformed data."""
    if len(document) < 5 or int32(document, 0) != len(document):
        raise ValueError("length and end disagree")
    inside = document[:-1]
    at = 4
    while at < len(inside):
        kind = inside[at]
        name = c_string(inside, at + 1)
        at += 1 + len(name) + 1
        size = value_size(inside, at, kind)
        yield name, kind, take(inside, at, size)
        at += size
    if document[-1] != 0:
        raise ValueError("no end")


def is_well_formed(document: bytes) -> bool:
    """Return whether all lengths and terminators fit, at every depth; pymongo may read beyond the end of malformed data (seen in 4.20)."""
    try:
        for _, kind, raw in elements(document):
            inner = raw
            if kind == 0x0F:
                text = value_size(raw, 4, 0x02)
                take(raw, 4, text)
                inner = raw[4 + text :]
            if kind in (0x03, 0x04, 0x0F) and not is_well_formed(inner):
                return False
    except ValueError:
        return False
    return True


def documents(batch: bytes) -> Iterator[bytes]:
    """Yield the documents of a batch."""
    at = 0
    while at < len(batch):
        size = int32(batch, at)
        if size < 5:
            raise ValueError("too short")
        yield take(batch, at, size)
        at += size


def number(kind: int, raw: bytes) -> float:
    """Return a double, int32, int64 or Decimal128 as a float."""
    if kind == 0x01:
        return struct.unpack("<d", raw)[0]
    if kind == 0x10:
        return float(struct.unpack("<i", raw)[0])
    if kind == 0x12:
        return float(struct.unpack("<q", raw)[0])
    if kind == 0x13:
        return float(Decimal128.from_bid(raw).to_decimal())  # ValueError for a signalling NaN
    raise ValueError("not a number")


PRICES = (b"open", b"high", b"low", b"close", b"volume")
NUMERIC = (0x01, 0x10, 0x12, 0x13)


def decode_candles(batches, since: int, step: int, limit: int) -> list[tuple[int, bytes]]:
    """Return (timestamp, five packed doubles) of the candles that fill the window from its start without a gap.

    Of duplicate names the last one counts, as in a dict. Every document needs a timestamp; one on the grid and not before the window needs
    the other five fields as well. Decoding stops at the first gap, or when the window is full: malformed data after that goes unnoticed.
    """
    rows: list[tuple[int, bytes]] = []
    if limit == 0:
        return rows
    for batch in batches:
        for document in documents(bytes(batch)):
            fields = {name: (kind, raw) for name, kind, raw in elements(document)}
            if b"timestamp" not in fields:
                raise ValueError("timestamp is missing")
            stamp = number(*fields[b"timestamp"])
            if not math.isfinite(stamp) or abs(stamp) > 9e15 or stamp != int(stamp):
                continue
            slot, rest = divmod(int(stamp) - since, step)
            if rest or slot < 0:
                continue
            missing = [name for name in PRICES if name not in fields]
            if missing:
                raise ValueError(f"{missing} is missing")
            prices = [number(*fields[name]) for name in PRICES]
            if not len(rows) <= slot < limit:
                continue  # after the window, or a duplicate
            if slot != len(rows):
                return rows
            rows.append((int(stamp), struct.pack("<5d", *prices)))
            if len(rows) == limit:
                return rows
    return rows


def numbers(batches, name: str) -> list[float]:
    """Return the first field called ``name`` of each document, if it is a number; fields after it are not checked."""
    collected = []
    for batch in batches:
        for document in documents(bytes(batch)):
            first = next(((kind, raw) for each, kind, raw in elements(document) if each == name.encode()), None)
            if first is not None and first[0] in NUMERIC:
                collected.append(number(*first))
    return collected


def plain(value):
    """Convert what pymongo decodes to what we return: plain ints, Decimals, dates in UTC, lists and dicts (a DBRef becomes a dict)."""
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    if isinstance(value, DBRef):
        return plain(dict(value.as_doc()))
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, Decimal128):
        return value.to_decimal()
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    return value


def record(document: dict, names, body: str):
    """Return (id, (key, body, when, removed)) of a document decoded by pymongo."""
    when = plain(document.get("when"))
    if type(when) not in (int, float, Decimal) or (type(when) is Decimal and when.is_snan()) or not math.isfinite(float(when)):
        when = None
    identity = document.get("_id")
    key = tuple(plain(document.get(name)) for name in names)
    removed = document.get("removed") is True
    return (
        identity.binary if isinstance(identity, ObjectId) else None,
        (key, plain(document.get(body)), None if when is None else int(float(when)), removed),
    )


# --- counters --------------------------------------------------------------------------------------------------------


def percentile(durations, percent) -> int:
    """Return the smallest duration that at least ``percent`` of all do not exceed (nearest rank)."""
    rank = max(1, math.ceil(Fraction(percent) * len(durations) / 100))
    return sorted(durations)[rank - 1]
