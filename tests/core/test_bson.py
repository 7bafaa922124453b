"""BSON of the compiled core: encoding compared with pymongo, decoding with pymongo and the plain reference, and hostile input."""

import collections
import copy
import enum
import gc
import itertools
import math
import os
import random
import re
import struct
import sys
import threading
import tracemalloc
import uuid
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, Inexact

import bson
import numpy as np
import pytest
import reference
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from bson.son import SON
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from backtest_kit_mongo._core import bson as core
from backtest_kit_mongo._core import writer
from backtest_kit_mongo._core.candles import decode_candles, numbers

pytestmark = pytest.mark.once

# The same examples in every run: a failure is reproducible for everybody.
steady = settings(derandomize=True, deadline=None, max_examples=300)

AWARE: CodecOptions = CodecOptions(tz_aware=True)
MAX_DEPTH = 96
MUTATIONS = int(os.environ.get("BTKM_FUZZ", "20000"))  # make sanitize asks for more
SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20231114"))


class Foreign:
    """A type that BSON does not have; the fallback replaces it by ``value``."""

    def __init__(self, value=None):
        self.value = value


def refuse(value):
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def unwrap(value):
    if isinstance(value, Foreign):
        return value.value
    return refuse(value)


# ======================================================================================================================
# Writing: plain values
# ======================================================================================================================

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
OFFSETS = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)) | st.sampled_from(
    [timedelta(0), timedelta(hours=5, minutes=30), timedelta(hours=-12), timedelta(hours=14)]
)
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)).flatmap(
    lambda moment: OFFSETS.map(lambda offset: moment.replace(tzinfo=timezone(offset)))
)
OBJECT_IDS = st.binary(min_size=12, max_size=12).map(ObjectId)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 0, -0.0, math.inf, -math.inf, math.nan, 5e-324]),
    st.floats(),
    TEXT,
    st.binary(max_size=12),
    MOMENTS,
    OBJECT_IDS,
)
OF_PYMONGO = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.builds(Binary, st.binary(max_size=9), st.sampled_from([0, 1, 2, 3, 4, 5, 6, 128, 255])),
    st.builds(Code, TEXT),
    st.builds(Code, TEXT, st.dictionaries(NAME, st.integers(0, 9), max_size=2)),
    st.decimals(allow_nan=True, places=4, min_value=-(10**20), max_value=10**20).map(Decimal128),
    st.builds(Regex, NAME, st.sampled_from(["", "i", "imx"])),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(-62135596800000, 253402300799999).map(DatetimeMS),  # the years 1 to 9999
    st.builds(DBRef, NAME, OBJECT_IDS),
    st.dictionaries(NAME, st.integers(), max_size=2).map(lambda fields: RawBSONDocument(bson.encode({"n": 1} | dict.fromkeys(fields, 2)))),
    st.sampled_from([MinKey(), MaxKey()]),
)


def nested(leaves):
    """Build documents, arrays and tuples around ``leaves``."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(NAME, inner, max_size=4),
        max_leaves=20,
    )


@steady
@given(nested(SCALARS))
@example({})
@example([])
@example(())
@example([[], {}, [[]], ""])
@example({"": {"": ""}, "ö": "🚀", "a.b": 1, "$set": {"x": 1}, "_id": 1})
@example(list(range(120)))
@example([None, True, False, 1, 1.0, "1", b"1"])
@example("a\0b")
@example(bytes(range(256)) * 5)
def test_plain_values_are_written_as_pymongo_writes_them(value):
    """The bytes match pymongo's, at any depth and while buffers grow."""
    assert writer.encode({"payload": value}, refuse) == bson.encode({"payload": value})


@pytest.mark.slow
@steady
@given(nested(SCALARS | OF_PYMONGO))
@example([Int64(5), Int64(-1), Int64(2**40)])
@example([Binary(b"ab", 4), Binary(b"abc", 2), Binary(b"", 0), Binary.from_uuid(uuid.UUID(int=7))])
@example([Code("x"), Code("", {"a": {"b": 1}}), Regex("a|b", "i"), Decimal128("1.50"), Timestamp(1, 2)])
@example([DBRef("c", 1, "db", extra=[1]), SON([("b", 1), ("a", 2)]), MinKey(), MaxKey(), DatetimeMS(-1)])
def test_types_of_pymongo_keep_their_type(value):
    """Int64 stays 64 bits wide, Binary keeps its subtype, Code is not a text: encoded as by pymongo, without the fallback."""
    assert writer.encode({"payload": value}, refuse) == bson.encode({"payload": value})


@pytest.mark.parametrize("ms", [-62135596800001, 253402300800000, 2**62])
@pytest.mark.parametrize("wrap", [lambda date: date, lambda date: Code("x", {"d": date}), lambda date: [DBRef("c", date)]])
def test_dates_that_could_not_be_read_back_are_refused(ms, wrap):
    with pytest.raises(ValueError, match=r"payload.*outside the years 1 to 9999"):
        writer.encode({"payload": wrap(DatetimeMS(ms))}, refuse)


class Expression(Regex):
    """A subclass of one of pymongo's types."""


class Blob(Binary):
    """A subclass of one of pymongo's types that is also bytes."""


@pytest.mark.parametrize("value", [Expression("a"), Blob(b"x", 9), type("Wide", (Int64,), {})(3)])
def test_subclasses_of_types_of_pymongo_are_theirs_too(value):
    """An instance of a subclass is encoded as pymongo's type."""
    base = type(value).__mro__[1]
    plain = base(value.pattern) if base is Regex else base(value, value.subtype) if base is Binary else base(value)
    assert writer.encode({"a": value}, refuse) == bson.encode({"a": plain})


class Colour(enum.StrEnum):
    RED = "red"
    WIDE = "größe"


class Side(enum.IntEnum):
    LONG = 1
    HUGE = 2**40


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Text(str):
    """A str with misleading methods; only its characters count."""

    def __str__(self):
        return "lie"

    def encode(self, *_):
        return b"lie"

    def __len__(self):
        return 99


class Whole(int):
    """An int with misleading methods."""

    def __int__(self):
        return 99

    def __index__(self):
        return 99


class Real(float):
    """A float with a misleading method."""

    def __float__(self):
        return 99.0


class Moment(datetime):
    """A subclass of datetime."""


Point = collections.namedtuple("Point", "x y")
UTC_NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Colour.WIDE, "größe"),
        (Text("truth"), "truth"),
        (np.str_("ö"), "ö"),
        (Side.LONG, 1),
        (Side.HUGE, 2**40),
        (Flags.A | Flags.B, 3),
        (Whole(7), 7),
        (Real(1.5), 1.5),
        (np.float64(2.5), 2.5),
        (bytearray(b"ab"), b"ab"),
        (bytearray(), b""),
        (type("Bytes", (bytes,), {})(b"x"), b"x"),
        (type("Array", (bytearray,), {})(b"x"), b"x"),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (SON([("z", 1), ("a", 2)]), {"z": 1, "a": 2}),
        (type("Dict", (dict,), {})(a=1), {"a": 1}),
        (type("List", (list,), {})([1, [2]]), [1, [2]]),
        (type("Tuple", (tuple,), {})((1,)), [1]),
        (Point(1, (2, Point(3, 4))), [1, [2, [3, 4]]]),
        (Moment(2024, 2, 29, 12, tzinfo=UTC), UTC_NOON),
        ({Colour.WIDE: 1, Text("k"): 2}, {"größe": 1, "k": 2}),
    ],
)
def test_subclasses_are_written_as_what_they_are(value, plain):
    """An instance of a subclass of a core type is encoded as that type, whatever its methods return, without the fallback."""
    assert writer.encode({"a": [value]}, refuse) == bson.encode({"a": [plain]})


def test_a_bool_is_no_int_and_a_float_no_int():
    """True, 1, 1.0 and Int64(1) are encoded as four BSON types."""
    raw = writer.encode({"a": [True, 1, 1.0, Int64(1), False, 0]}, refuse)
    (_, _, array), *_ = reference.elements(raw)
    assert [kind for _, kind, _ in reference.elements(array)] == [0x08, 0x10, 0x01, 0x12, 0x08, 0x10]


@steady
@given(nested(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXT | st.binary() | OBJECT_IDS))
def test_what_is_written_comes_back(value):
    """pymongo reads back the same values with the same types (a tuple as a list), and encodes them to the same bytes."""

    def listed(value):
        if isinstance(value, dict):
            return {name: listed(member) for name, member in value.items()}
        return [listed(member) for member in value] if isinstance(value, (list, tuple)) else value

    raw = writer.encode({"payload": value}, refuse)
    decoded = bson.decode(raw, AWARE)
    assert decoded == {"payload": listed(value)}
    assert bson.encode(decoded) == raw


def test_the_order_of_keys_is_kept():
    """A document keeps the insertion order of the dict; ``_id`` does not move to the front."""
    names = [f"k{index}" for index in range(200)] + ["_id", "a"]
    random.Random(3).shuffle(names)
    assert list(bson.decode(writer.encode(dict.fromkeys(names, 1), refuse))) == names


@pytest.mark.parametrize("size", [0, 1, 490, 491, 492, 500, 511, 512, 513, 1023, 1024, 1025, 65536, 20_000_000])
@pytest.mark.parametrize("piece", ["x", "ö", "🚀", b"\xff"])
def test_buffers_grow_to_any_size(size, piece):
    """Text and bytes are complete at every length around a growth of the buffer, and at twenty megabytes."""
    value = piece * (size // len(piece.encode() if isinstance(piece, str) else piece))
    assert writer.encode({"a": value, "b": 1}, refuse) == bson.encode({"a": value, "b": 1})


def test_sixty_thousand_members():
    """Wide documents and arrays are encoded like pymongo's; array indexes have one to five digits."""
    wide = {"list": list(range(60_000)), "dict": {str(index): index for index in range(60_000)}}
    assert writer.encode(wide, refuse) == bson.encode(wide)


# ======================================================================================================================
# Writing: dates
# ======================================================================================================================


def written_ms(moment):
    return struct.unpack("<q", writer.encode({"a": moment}, refuse)[7:15])[0]


@steady
@given(st.datetimes(), OFFSETS)
@example(datetime(1, 1, 1), timedelta(0))
@example(datetime(1, 1, 1), timedelta(hours=23, minutes=59))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999), timedelta(0))
@example(datetime(9999, 12, 31, 23, 59, 59, 999999), timedelta(hours=-23, minutes=-59))
@example(datetime(1970, 1, 1), timedelta(0))
@example(datetime(1969, 12, 31, 23, 59, 59, 999999), timedelta(0))
@example(datetime(1969, 12, 31, 23, 59, 59, 999000), timedelta(0))
@example(datetime(1970, 1, 1, 0, 0, 0, 999), timedelta(0))
@example(datetime(1970, 1, 1), timedelta(microseconds=1))
@example(datetime(1969, 7, 20, 20, 17, 40, 1), timedelta(seconds=-1, microseconds=999))
@example(datetime(2016, 12, 31, 23, 59, 59, 999999), timedelta(hours=5, minutes=45))
def test_dates_are_whole_milliseconds_rounded_down(moment, offset):
    """From year 1 to 9999, before 1970 too, and at every offset, a date is rounded down to milliseconds as in pymongo."""
    aware = moment.replace(tzinfo=timezone(offset))
    if not -62135596800000 <= reference.milliseconds(aware) <= 253402300799999:
        with pytest.raises(ValueError, match="outside the years 1 to 9999"):  # no Python reader could represent it
            writer.encode({"a": aware}, refuse)
        return
    assert written_ms(aware) == reference.milliseconds(aware)
    try:
        theirs = bson.encode({"a": aware})
    except OverflowError:  # pymongo moves to UTC first, where year 1 or 9999 can end
        assert moment.year in (1, 9999)
    else:
        assert writer.encode({"a": aware}, refuse) == theirs


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2024, 2, 29, 1, 2, 3, 4000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=2)), fold=1),
    ],
)
def test_dates_come_back(moment):
    """A date in whole milliseconds is the same instant after a round trip."""
    assert bson.decode(writer.encode({"a": moment}, refuse), AWARE) == {"a": moment}


class Zone(tzinfo):
    """A time zone with a configurable offset."""

    def __init__(self, answer):
        self.answer = answer

    def utcoffset(self, moment):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NotATime(datetime):
    """A datetime that supports nothing, like NaT in pandas."""

    def utcoffset(self):
        raise ValueError("NotATime does not support utcoffset")


class Odd(datetime):
    """A datetime with a subtraction that does not return a timedelta."""

    def __sub__(self, other):
        return "odd"


@pytest.mark.parametrize(
    ("moment", "kind", "text"),
    [
        (datetime(2024, 1, 1), ValueError, r"datetime.datetime\(2024, 1, 1, 0, 0\) is naive; give it a time zone"),
        (datetime(2024, 1, 1, tzinfo=Zone(None)), ValueError, "is naive; give it a time zone"),
        (NotATime(2024, 1, 1), ValueError, "NotATime does not support utcoffset"),
        (datetime(2024, 1, 1, tzinfo=Zone(ValueError("no offset"))), ValueError, "no offset"),
        (datetime(2024, 1, 1, tzinfo=Zone(5)), TypeError, "utcoffset"),
        (datetime(2024, 1, 1, tzinfo=Zone(timedelta(days=2))), ValueError, "offset"),
        (Odd(2024, 1, 1, tzinfo=UTC), TypeError, ""),
    ],
)
def test_dates_without_an_instant_are_refused(moment, kind, text):
    """A naive date, or one without a valid offset, is an error that names its path."""
    with pytest.raises(kind, match=r"^payload\.at\.0: .*" + text):
        writer.encode({"payload": {"at": [moment]}}, refuse)


# ======================================================================================================================
# Writing: errors
# ======================================================================================================================


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (2**63, ValueError, "9223372036854775808 does not fit into 64 bits"),
        (-(2**63) - 1, ValueError, "-9223372036854775809 does not fit into 64 bits"),
        (10**5000, ValueError, "does not fit into 64 bits"),
        (Whole(2**64), ValueError, "does not fit into 64 bits"),
        ("\ud800", ValueError, "lone surrogate"),
        ("ok🚀" * 1000 + "\udfff", ValueError, "lone surrogate"),
        (Text("\udc00"), ValueError, "lone surrogate"),
        ({1: 2}, TypeError, r"keys must be str, got int \(1\)"),
        ({None: 2}, TypeError, r"keys must be str, got NoneType \(None\)"),
        ({b"k": 2}, TypeError, "keys must be str, got bytes"),
        ({("a", "b"): 2}, TypeError, "keys must be str, got tuple"),
        ({10**5000: 2}, TypeError, "keys must be str, got int"),
        ({"a\0b": 2}, ValueError, r"key 'a\\x00b' holds a NUL character"),
        ({"\0": 2}, ValueError, r"key '\\x00' holds a NUL character"),
        ({"\ud800": 2}, ValueError, r"key '\\ud800' holds a lone surrogate"),
        (Foreign, TypeError, "a type cannot be stored"),
        (object(), TypeError, "a object cannot be stored"),
        ({1, 2}, TypeError, "a set cannot be stored"),
        (1j, TypeError, "a complex cannot be stored"),
        (date(2024, 1, 1), TypeError, "a date cannot be stored"),
        (range(3), TypeError, "a range cannot be stored"),
        (memoryview(b"x"), TypeError, "a memoryview cannot be stored"),
        (np.int64(1), TypeError, "a int64 cannot be stored"),
        (uuid.UUID(int=1), TypeError, "a UUID cannot be stored"),
        (TypeRegistry(), TypeError, "a TypeRegistry cannot be stored"),
        (DBRef("c", object()), TypeError, "cannot encode object"),
        (Code("x", {"a": object()}), TypeError, "cannot encode object"),
        (DBRef("c", 2**64), ValueError, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_begin_with_the_place(value, kind, text):
    """The message begins with the path of the invalid value, through dicts, lists and tuples; the reason follows."""
    for document, path in (
        ({"payload": value}, "payload"),
        ({"first": 1, "payload": {"a": [0, 1, {"ok": 1, "b": value}], "z": 1}}, "payload.a.2.b"),
        ({"payload": ({"a": 1}, ([], value))}, "payload.1.1"),
        ({"": {"": value}}, "."),
        ({"größe🚀": [value]}, "größe🚀.0"),
        ({"a": Foreign({"b": Foreign([value])})}, "a.b.0"),
    ):
        with pytest.raises(kind, match="^" + re.escape(path) + ": .*" + text):
            writer.encode(document, unwrap)


@pytest.mark.parametrize(
    ("document", "kind", "text"),
    [
        ({1: 2}, TypeError, r"^document: keys must be str, got int \(1\)$"),
        ({"a\0": 2}, ValueError, r"^document: key 'a\\x00' holds a NUL character$"),
        ({"\udfff": 2}, ValueError, r"^document: key '\\udfff' holds a lone surrogate and cannot be stored as UTF-8$"),
    ],
)
def test_errors_in_the_outermost_keys_have_a_place_too(document, kind, text):
    """At the top level, where there is no path yet, the error names the document."""
    with pytest.raises(kind, match=text):
        writer.encode(document, refuse)


def test_a_failed_document_leaves_nothing_behind():
    """After an error the next document is encoded correctly."""
    good = {"payload": {"a": [1, "x"]}}
    for bad in ({"payload": [1, {"b": object()}]}, {"payload": {"\0": 1}}, {"payload": {"x": "y" * 5000, "z": 2**70}}):
        with pytest.raises((TypeError, ValueError)):
            writer.encode(bad, refuse)
        assert writer.encode(good, refuse) == bson.encode(good)


@pytest.mark.parametrize("arguments", [(None, refuse), ([], refuse), ("x", refuse), ({}, None), ({},), ()])
def test_encode_takes_a_dict_and_a_fallback(arguments):
    """Anything but a dict and a fallback is a TypeError."""
    with pytest.raises(TypeError):
        writer.encode(*arguments)


def test_a_fallback_that_cannot_be_called():
    """A fallback that is not callable is a TypeError with the path, raised only when the fallback is needed."""
    assert writer.encode({"a": 1}, 5) == bson.encode({"a": 1})
    with pytest.raises(TypeError, match=r"^a: "):
        writer.encode({"a": object()}, 5)


# ======================================================================================================================
# Writing: the fallback
# ======================================================================================================================


@pytest.mark.slow
@settings(steady, max_examples=75)
@given(st.data())
def test_the_fallback_is_called_once_for_each_foreign_value(data):
    """The fallback runs in document order, never for a type that BSON has, and its result replaces the value."""
    foreign = st.builds(Foreign, SCALARS | st.lists(SCALARS, max_size=2) | st.builds(Foreign, SCALARS | OF_PYMONGO))
    value = data.draw(nested(SCALARS | OF_PYMONGO | foreign))
    calls: list[Foreign] = []
    expected: list[Foreign] = []

    def noted(into):
        def fallback(value):
            into.append(value)
            return unwrap(value)

        return fallback

    plain = reference.without_foreign({"payload": value}, noted(expected))
    assert writer.encode({"payload": value}, noted(calls)) == bson.encode(plain)
    assert list(map(id, calls)) == list(map(id, expected))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (TypeError("no"), TypeError, r"^a\.1: no$"),
        (ValueError("too long"), ValueError, r"^a\.1: too long$"),
        (OverflowError("too wide"), ValueError, r"^a\.1: too wide$"),
        (Inexact("35 digits"), ValueError, r"^a\.1: 35 digits$"),
        (KeyError("k"), KeyError, "k"),
        (RuntimeError("mine"), RuntimeError, "^mine$"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
)
def test_errors_of_the_fallback(error, kind, text):
    """An error about the value has the path added; any other error propagates unchanged."""

    def fallback(value):
        raise error

    with pytest.raises(kind, match=text):
        writer.encode({"a": [1, Foreign()]}, fallback)


def test_decimals_beyond_34_digits_name_their_place():
    """The errors of the decimal module, as a real fallback raises them, have the path added."""
    with pytest.raises(ValueError, match=r"^payload\.price: "):
        writer.encode({"payload": {"price": Decimal("1." + "3" * 40)}}, Decimal128)


def test_a_fallback_may_write_documents_itself():
    """Nested calls of the writer both produce complete documents."""

    def fallback(value):
        return writer.encode({"inner": value.value}, fallback)

    raw = writer.encode({"a": Foreign(Foreign(1)), "b": 2}, fallback)
    assert raw == bson.encode({"a": bson.encode({"inner": bson.encode({"inner": 1})}), "b": 2})


# ======================================================================================================================
# Writing: depth and hostility
# ======================================================================================================================

WRAPPERS = {
    "dict": lambda inner: {"a": inner},
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "foreign": lambda inner: Foreign({"a": inner}),
    "foreign list": lambda inner: Foreign([inner]),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_depth_is_limited_by_levels_of_bson(wrap):
    """96 levels inside the document are accepted and 97 are rejected, whether a level is a dict, an array or a foreign object."""
    value = 1
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    raw = writer.encode({"a": value}, unwrap)
    assert raw == bson.encode(reference.without_foreign({"a": value}, unwrap))
    with pytest.raises(ValueError, match=r"^a\..*nested deeper than 96 levels, or it contains itself"):
        writer.encode({"a": wrap(value)}, unwrap)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_hundred_thousand_levels_do_not_crash(wrap):
    """The stack never overflows, and the message stays short."""
    value = 1
    for _ in range(100_000):
        value = wrap(value)
    with pytest.raises(ValueError, match="nested deeper") as caught:
        writer.encode({"a": value}, unwrap)
    assert len(str(caught.value)) < 200
    while not isinstance(value, int):  # unwrap it by hand: releasing it recursively would be another test
        value = value.value if isinstance(value, Foreign) else value
        value = value["a"] if isinstance(value, dict) else value[0]


def self_containing():
    document: dict = {"x": 1}
    document["me"] = document
    array: list = [1]
    array.append(array)
    through: list = []
    through.append({"again": (through,)})
    foreign = Foreign()
    foreign.value = [foreign]
    itself = Foreign()
    itself.value = itself
    ping, pong = Foreign(), Foreign()
    ping.value, pong.value = pong, ping
    return {"dict": document, "list": array, "mixed": through, "foreign": foreign, "itself": itself, "ping pong": ping}


@pytest.mark.parametrize("name", self_containing())
def test_what_contains_itself_is_refused(name):
    """A cycle is rejected, also through objects and when a fallback returns its argument."""
    with pytest.raises(ValueError, match=r"^payload.*nested deeper than 96 levels, or it contains itself"):
        writer.encode({"payload": self_containing()[name]}, unwrap)


def new_objects_for_ever(value):
    return Foreign()


def test_a_fallback_without_end_is_stopped():
    """A fallback that always returns another foreign object is an error."""
    with pytest.raises(ValueError, match=r"^a.*nested deeper"):
        writer.encode({"a": Foreign()}, new_objects_for_ever)


CHANGES = {
    "clear": lambda container: container.clear(),
    "pop": lambda container: container.pop(next(iter(container))) if isinstance(container, dict) else container.pop(),
    "grow": lambda container: (
        container.update({f"n{index}": index for index in range(1000)}) if isinstance(container, dict) else container.extend(range(1000))
    ),
    "swap": lambda container: (
        (container.pop("k1"), container.update(new="n" * 100)) if isinstance(container, dict) else container.__setitem__(slice(None), ["n"])
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("kind", [dict, list])
def test_containers_that_change_while_they_are_written(change, kind):
    """If a fallback changes the container that is being encoded, the result is a RuntimeError or a well-formed document, not a crash."""
    for position in range(4):
        members = [Foreign() if index == position else "x" * 50 + str(index) for index in range(4)]
        container = {f"k{index}": member for index, member in enumerate(members)} if kind is dict else members
        changed = []

        def fallback(value, container=container, changed=changed):
            if not changed:
                changed.append(True)
                change(container)
                gc.collect(0)
            return "fallback"

        try:
            raw = writer.encode({"a": container}, fallback)
        except RuntimeError as error:
            assert "changed" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert bson.decode(raw)["a"] is not None
        assert changed


@pytest.mark.parametrize("pretended", [dict, list, str, int, float, bool, bytes, datetime, ObjectId, Binary, Regex, Int64, Decimal128])
@pytest.mark.parametrize("attribute", ["property", "class attribute"])
def test_objects_that_pretend_to_be_something_else(pretended, attribute):
    """``__class__`` is not trusted: such an object goes to the fallback or is an error with its path; its memory is never misread."""

    class Pretender:
        binary = pattern = flags = subtype = None
        if attribute == "property":

            @property
            def __class__(self):
                return pretended
        else:
            __class__ = pretended  # type: ignore[assignment]

    try:
        raw = writer.encode({"a": [Pretender()]}, lambda value: "fallback")
    except (TypeError, ValueError) as error:
        assert str(error).startswith("a.0: ")  # noqa: PT017 - either outcome is right
    else:
        assert raw == bson.encode({"a": ["fallback"]})


@pytest.mark.parametrize("binary", [None, b"", b"short", b"thirteen byte", bytearray(12), "x" * 12, 5])
def test_an_object_id_that_is_none(binary):
    """An ObjectId of the wrong length or type is an error with its path; no byte beyond its end is ever written."""
    liar = type("Liar", (ObjectId,), {"binary": binary})()
    with pytest.raises((TypeError, ValueError), match=r"^a: "):
        writer.encode({"a": liar}, refuse)


@pytest.mark.parametrize("module", [5, None, "bson", "bson.son", ""])
def test_the_module_of_a_type_decides_nothing(module):
    """A foreign type goes to the fallback, whatever its ``__module__`` says."""
    stranger = type("Stranger", (), {"__module__": module})()
    assert writer.encode({"a": stranger}, lambda value: 1) == bson.encode({"a": 1})


class Unprintable:
    """A key with a failing repr."""

    def __repr__(self):
        raise RuntimeError("no repr")


def test_a_key_that_cannot_be_shown():
    """The error names the path even if the key has no repr."""
    with pytest.raises(TypeError, match=r"^a: keys must be str, got Unprintable"):
        writer.encode({"a": {Unprintable(): 1}}, refuse)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x05\0\0\0", b"\x06\0\0\0\0", b"\xff\xff\xff\x7f\0", b"\x05\0\0\0\x01"],
)
def test_raw_documents_that_lie_about_their_length(raw):
    """A broken RawBSONDocument is rejected by pymongo or is an error with its path; it is never written."""
    with pytest.raises((TypeError, ValueError, bson.errors.InvalidBSON)):
        writer.encode({"a": RawBSONDocument(raw)}, refuse)


def test_threads_write_the_same_document():
    """Writers share no state: eight threads that encode one document at once get the same bytes."""
    document = {"payload": {"a": [Foreign({"b": index}) for index in range(50)], "text": "ö" * 500}}
    expected = writer.encode(document, unwrap)
    wrong = []

    def work():
        wrong.extend(index for index in range(200) if writer.encode(document, unwrap) != expected)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ======================================================================================================================
# Reading candles
# ======================================================================================================================

MINUTE = 60_000
START = 1_677_628_800_000  # 2023-03-01T00:00:00Z
FIELDS = ("timestamp", "open", "high", "low", "close", "volume")
GUARD = b"\xa5" * 64


def element(name, value):
    """Return the bytes of one element."""
    return bson.encode({name: value})[4:-1]


def raw_element(kind, name, payload=b""):
    return bytes([kind]) + name.encode() + b"\0" + payload


def document(*parts):
    """Build a document from raw elements, which may repeat a name or contain what pymongo would not write."""
    body = b"".join(parts)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def plain_candle(index=0, **changes):
    """Encode the candle at ``START`` + ``index`` minutes; ``...`` leaves a field out."""
    fields = {"timestamp": START + index * MINUTE, "open": 100 + index, "high": 101.5, "low": 99.25, "close": Int64(100), "volume": 7.5}
    return bson.encode({name: value for name, value in (fields | changes).items() if value is not ...})


def decode(batches, since=START, step=MINUTE, limit=5):
    """Return the rows that the core decodes, after checking the memory on both sides of the target."""
    room = bytearray(GUARD + b"\xee" * (48 * limit) + GUARD)
    target = np.frombuffer(room, np.int8)[len(GUARD) : len(GUARD) + 48 * limit]
    try:
        filled = decode_candles(batches, target, since, step, limit)
    finally:
        assert room.startswith(GUARD)
        assert room.endswith(GUARD)
    assert 0 <= filled <= limit
    inside = room[len(GUARD) :]
    return [(struct.unpack_from("<q", inside, 48 * row)[0], bytes(inside[48 * row + 8 : 48 * row + 48])) for row in range(filled)]


def outcome(function, *arguments):
    try:
        return function(*arguments)
    except ValueError:
        return ValueError


# Every BSON type, including those that pymongo no longer writes, with and without content.
EVERY_TYPE = [
    element("x", value)
    for value in (
        1.5, "", "text", {}, {"open": 1, "timestamp": 2}, [], [1, [2]], b"", b"bytes", Binary(b"old", 2), ObjectId(b"x" * 12), True, False,
        UTC_NOON, None, Regex("", ""), Regex("a.*b", "i"), Code("code"), Code("code", {"close": 1}), 5, Int64(5), Timestamp(1, 2),
        Decimal128("1"), MinKey(), MaxKey(),
    )
] + [
    raw_element(0x06, "undefined"),
    raw_element(0x0C, "pointer", struct.pack("<i", 2) + b"c\0" + b"i" * 12),
    raw_element(0x0E, "symbol", struct.pack("<i", 4) + b"sym\0"),
    raw_element(0x0A, ""),
    raw_element(0x08, "open ", b"\1"),
    raw_element(0x0A, "ope"),
    raw_element(0x0A, "openn"),
    raw_element(0x0A, "Open"),
    raw_element(0x0A, "open.high"),
    raw_element(0x0A, "timestampp"),
    raw_element(0x0A, "größe🚀"),
]  # fmt: skip


def test_every_type_of_bson_is_among_the_samples():
    """The samples above cover each type that the reference knows."""
    assert {sample[0] for sample in EVERY_TYPE} == set(reference.FIXED_SIZES) | {0x02, 0x03, 0x04, 0x05, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F}


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(),
    st.decimals(allow_nan=False).map(lambda value: Decimal128(value.normalize(decimal128_context()))),
)


def decimal128_context():
    return bson.decimal128.create_decimal128_context()


def as_number(kind, value):
    """Return a whole number as one of the numeric types."""
    return {"int": int, "int64": Int64, "double": float, "decimal": lambda value: Decimal128(str(value))}[kind](value)


STRAYS = [
    math.nan, math.inf, -math.inf, 1e300, -1e300, -1.0, 0.5, -0.5, START + 0.5, -float(MINUTE), 9e15, 9.1e15, 2**63 - 1, -(2**63),
    Decimal128("NaN"), Decimal128("Infinity"), Decimal128("1E+6000"),
]  # fmt: skip


@st.composite
def candles(draw):
    """Draw a candle document near the grid: any numeric types, any field order, any other fields."""
    slot = draw(st.integers(-2, 8))
    off = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, 30_000]))
    kind = draw(st.sampled_from(["int", "int64", "double", "decimal"]))
    stamp = as_number(kind, START + slot * MINUTE + off)
    if draw(st.integers(0, 15)) == 0:
        stamp = draw(st.sampled_from(STRAYS))
    parts = [element("timestamp", stamp)] + [element(name, draw(NUMBERS)) for name in FIELDS[1:]]
    parts += draw(st.lists(st.sampled_from(EVERY_TYPE), max_size=5))
    parts = draw(st.permutations(parts))
    fault = draw(st.integers(0, 25))
    if fault == 0:
        parts = parts[1:]
    elif fault == 1:
        parts = [*parts, element(draw(st.sampled_from(FIELDS)), draw(st.sampled_from([None, "1", True, UTC_NOON, [1], {}])))]
    elif fault == 2:
        parts = [*parts, element(draw(st.sampled_from(FIELDS)), draw(NUMBERS))]
    return slot, document(*parts)


@pytest.mark.slow
@settings(steady, max_examples=120)
@given(st.lists(candles(), max_size=9), st.integers(0, 6), st.integers(1, 4), st.booleans())
def test_candles_are_read_like_the_reference(found, limit, batches, ordered):
    """Types, order, extra fields, gaps, strays and faults lead to the same rows bit for bit, or to a ValueError in both."""
    if ordered:
        found = sorted(found, key=lambda item: item[0])
    documents = [raw for _, raw in found]
    split = [b"".join(documents[part::batches]) for part in range(batches)]
    if ordered:
        split = [b"".join(documents[:2]), b"", b"".join(documents[2:])]
    assert outcome(decode, split, START, MINUTE, limit) == outcome(reference.decode_candles, split, START, MINUTE, limit)


@pytest.mark.parametrize("kinds", list(itertools.product(["int", "int64", "double", "decimal"], repeat=2)), ids="-".join)
def test_any_numeric_type_gives_the_same_candle(kinds):
    """A candle is the same whether its timestamp and its prices are int32, int64, double or Decimal128."""
    stamp, price = kinds
    since = 1_800_000  # fits into 32 bits
    raw = bson.encode({"timestamp": as_number(stamp, since)} | {name: as_number(price, index) for index, name in enumerate(FIELDS[1:])})
    assert decode([raw], since, MINUTE, 1) == [(since, struct.pack("<5d", 0, 1, 2, 3, 4))]


def test_the_order_of_fields_means_nothing():
    """All 720 orders of the six fields produce the same row."""
    fields = {name: START if name == "timestamp" else index for index, name in enumerate(FIELDS)}
    expected = [(START, struct.pack("<5d", 1, 2, 3, 4, 5))]
    for order in itertools.permutations(FIELDS):
        assert decode([bson.encode({name: fields[name] for name in order})], limit=1) == expected


@pytest.mark.parametrize("extra", EVERY_TYPE, ids=lambda raw: f"{raw[0]:02x}-{raw[1:].partition(bytes(1))[0].decode()}")
def test_extra_fields_of_every_type_are_stepped_over(extra):
    """Extra fields may be before, between and after the six fields."""
    parts = [element(name, START if name == "timestamp" else 2.5) for name in FIELDS]
    expected = [(START, struct.pack("<5d", *[2.5] * 5))]
    for position in range(len(parts) + 1):
        assert decode([document(*parts[:position], extra, *parts[position:])], limit=1) == expected
    assert decode([document(*[piece for part in parts for piece in (extra, part)], extra)], limit=1) == expected


SERIES = [plain_candle(index) for index in range(5)]


@pytest.mark.parametrize(
    ("present", "limit", "filled"),
    [
        ("01234", 5, 5),
        ("1234", 5, 0),
        ("0134", 5, 2),
        ("0234", 5, 1),
        ("0123", 5, 4),
        ("", 5, 0),
        ("4", 5, 0),
        ("01234", 3, 3),
        ("01234", 0, 0),
        ("0011223344", 5, 5),
        ("000", 5, 1),
        ("43210", 5, 0),
        ("0142", 5, 2),
    ],
)
def test_a_window_is_filled_up_to_its_first_hole(present, limit, filled):
    """Gaps at the start, middle and end, more candles than slots, and duplicates: the same rows from one batch or many."""
    documents = [SERIES[int(digit)] for digit in present]
    whole = [(START + index * MINUTE, struct.pack("<5d", 100 + index, 101.5, 99.25, 100, 7.5)) for index in range(5)]
    for batches in ([b"".join(documents)], documents, [b"", *documents, b""], [b"".join(documents[:2]), b"".join(documents[2:])]):
        assert decode(batches, limit=limit) == whole[:filled]


def test_thirty_thousand_candles():
    """Three weeks of candles in batches of unequal size are decoded correctly."""
    rng = random.Random(7)
    prices = [tuple(rng.uniform(1, 1e5) for _ in range(5)) for _ in range(30_240)]
    documents = [bson.encode(dict(zip(FIELDS, (START + index * MINUTE, *row), strict=True))) for index, row in enumerate(prices)]
    batches = [b"".join(documents[:101]), b"".join(documents[101:16_000]), b"".join(documents[16_000:])]
    target = np.empty(len(prices), [("timestamp", "i8")] + [(name, "f8") for name in FIELDS[1:]])
    assert decode_candles(batches, target.view(np.int8), START, MINUTE, len(prices)) == len(prices)
    assert target["timestamp"].tolist() == [START + index * MINUTE for index in range(len(prices))]
    assert [row[1:] for row in target.tolist()] == prices


def test_off_grid_candles_are_passed_over():
    """Strays before, between and after the candles are ignored, whatever the numeric type of their timestamp."""
    for stray in (START - MINUTE, START - 1, START + 1, START + 59_999, START + 5 * MINUTE, *STRAYS):
        other = plain_candle(timestamp=stray)
        for position in range(6):
            assert len(decode([*SERIES[:position], other, *SERIES[position:]])) == 5


@pytest.mark.parametrize("since", [0, -MINUTE, -(10**15), 10**15, 9 * 10**15 - MINUTE])
def test_windows_before_1970_and_far_away(since):
    """The grid extends below zero, and as far as a double represents whole milliseconds."""
    for kind in ("int64", "double", "decimal"):
        stamps = [since, since + MINUTE]
        rows = decode([plain_candle(timestamp=as_number(kind, stamp)) for stamp in stamps], since, MINUTE, 2)
        assert [stamp for stamp, _ in rows] == stamps


@pytest.mark.parametrize(
    ("since", "step", "limit"),
    [
        (-(2**63), 1, 1),
        (-(2**63), MINUTE, 3),
        (-(2**63), 2**63 - 1, 3),
        (-(2**63), 2**62, 1),
        (-(2**63), 2**62, 3),
        (-(2**63), 2**61, 9),
        (-(2**63), 2**63 - 1, 1),
        (2**63 - 1, 1, 2),
        (2**63 - 1, 2**63 - 1, 2),
        (-1, 2**63 - 1, 2),
        (0, 1, 3),
    ],
)
def test_windows_at_the_ends_of_64_bits(since, step, limit):
    """No distance between a candle and a window overflows."""
    batches = [plain_candle(timestamp=stamp) for stamp in (Int64(-(10**15)), Int64(0), 0.0, Int64(9 * 10**15))]
    assert decode(batches, since, step, limit) == reference.decode_candles(batches, since, step, limit)


def test_of_a_name_that_stands_twice_the_last_counts():
    """The last value of a duplicate field counts, as in a dict and in pymongo."""
    raw = document(
        *[element(name, START + MINUTE if name == "timestamp" else 1) for name in FIELDS], element("timestamp", START), element("low", 9)
    )
    assert decode([raw], limit=1) == [(START, struct.pack("<5d", 1, 1, 9, 1, 1))]


BROKEN_VALUES = [
    (..., "the candle at {stamp} has no {name}"),
    (None, "the candle at {stamp}: {name} is not a number (BSON type 0x0a)"),
    ("1", "the candle at {stamp}: {name} is not a number (BSON type 0x02)"),
    (True, "the candle at {stamp}: {name} is not a number (BSON type 0x08)"),
    (UTC_NOON, "the candle at {stamp}: {name} is not a number (BSON type 0x09)"),
    ({"n": 1}, "the candle at {stamp}: {name} is not a number (BSON type 0x03)"),
    (Decimal128("sNaN"), "the candle at {stamp}: "),
]


@pytest.mark.parametrize("name", FIELDS[1:])
@pytest.mark.parametrize(("value", "text"), BROKEN_VALUES)
def test_a_candle_with_a_broken_field_is_refused(name, value, text):
    """In the window or after it, the error says which candle, which field, and why."""
    for index in (2, 4, 9):
        with pytest.raises(ValueError, match=re.escape(text.format(name=name, stamp=START + index * MINUTE))):
            decode([SERIES[0], SERIES[1] + plain_candle(index, **{name: value})], limit=5 if index != 4 else 3)


@pytest.mark.parametrize(("value", "text"), BROKEN_VALUES)
def test_a_candle_without_a_time_stamp_is_refused(value, text):
    """The error names the field, though it cannot name the candle."""
    expected = "timestamp is missing" if value is ... else text.removeprefix("the candle at {stamp}: ").format(name="timestamp")
    with pytest.raises(ValueError, match="^" + re.escape(expected)):
        decode([SERIES[0], SERIES[1] + plain_candle(2, timestamp=value)])


def test_prices_off_the_grid_are_nobodys_business():
    """A stray without prices, or one before the window, is ignored like any other stray."""
    for stamp in (START + 1, START - MINUTE, math.nan):
        strays = [bson.encode({"timestamp": stamp}), plain_candle(timestamp=stamp, close="x", volume=None)]
        assert len(decode([*strays, *SERIES])) == 5


@pytest.mark.parametrize(
    "bits", [0, 1, 2**113 - 1, 2**127 - 1, 2**128 - 1, (3 << 125) | 12345, (2**113 - 1) | (12287 << 113), (10**34) | (6176 << 113)]
)
def test_any_sixteen_bytes_may_be_a_decimal(bits):
    """Unusual decimals (too many digits, both forms of the exponent, NaN) are read as the reference reads them."""
    raw = bits.to_bytes(16, "little")
    for name in FIELDS:
        batch = document(*[element(other, START) if other != name else raw_element(0x13, name, raw) for other in FIELDS])
        assert outcome(decode, [batch]) == outcome(reference.decode_candles, [batch], START, MINUTE, 5)


@pytest.mark.parametrize(
    ("size", "step", "limit"),
    [
        (47, MINUTE, 1),
        (49, MINUTE, 1),
        (48, MINUTE, 2),
        (0, MINUTE, 1),
        (48, MINUTE, 0),
        (48, 0, 1),
        (48, -MINUTE, 1),
        (48, MINUTE, -1),
        (0, MINUTE, -1),
        (0, MINUTE, 2**60),
        (48, MINUTE, 2**60 + 1),
        (0, MINUTE, 2**63 - 1),
        (0, MINUTE, -(2**63)),
        (0, MINUTE, -(2**60)),
    ],
)
def test_a_target_of_another_size_is_refused(size, step, limit):
    """A target that does not hold exactly ``limit`` rows is never written to, even where ``48 * limit`` would overflow."""
    target = np.zeros(size, np.int8)
    with pytest.raises(ValueError, match="target does not hold limit rows of 48 bytes"):
        decode_candles([plain_candle()], target, START, step, limit)
    assert not target.any()


def test_a_target_must_be_writable_and_in_one_piece():
    """Read-only memory, non-contiguous memory and other objects are rejected before a byte is read."""
    with pytest.raises(BufferError):
        decode_candles(SERIES, bytes(48), START, MINUTE, 1)
    with pytest.raises(ValueError, match="contiguous"):
        decode_candles(SERIES, np.zeros(96, np.int8)[::2], START, MINUTE, 1)
    for target in (None, "x", 5):
        with pytest.raises((TypeError, ValueError)):
            decode_candles(SERIES, target, START, MINUTE, 1)


@pytest.mark.parametrize("batch", ["text", 5, object(), np.zeros(4, np.int64), [b""]])
def test_a_batch_is_bytes(batch):
    """Anything but a buffer of bytes is rejected."""
    with pytest.raises((TypeError, ValueError)):
        decode([batch])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda raw: np.frombuffer(raw, np.uint8)])
def test_batches_may_be_any_bytes(kind):
    """bytes, bytearray, memoryview and arrays of bytes are read alike."""
    assert len(decode([kind(b"".join(SERIES))])) == 5


def test_batches_are_a_list():
    """None or a single batch is a TypeError."""
    for batches in (None, b"".join(SERIES), tuple(SERIES)):
        with pytest.raises(TypeError):
            decode_candles(batches, np.zeros(48, np.int8), START, MINUTE, 1)


# ======================================================================================================================
# Reading: malformed batches
# ======================================================================================================================

SMALL = (0, 1, 2, 3, 4, 5, 6, 12, 127, 128, 255, 256, 65535)
LENGTHS = (*SMALL, 2**31 - 1, 2**31 - 5, 2**31 - 16, -1, -2, -4, -5, -12, -(2**31), -(2**31) + 4)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x05", "BSON ends inside a length"),
        (b"\x05\0\0\0", "BSON ends inside a length"),
        (struct.pack("<i", 4) + b"\0", "reaches beyond its batch"),
        (struct.pack("<i", 0) + b"\0", "reaches beyond its batch"),
        (struct.pack("<i", -1) + b"\0", "reaches beyond its batch"),
        (struct.pack("<i", 2**31 - 1) + b"\0", "reaches beyond its batch"),
        (struct.pack("<i", 6) + b"\0", "reaches beyond its batch"),
        (struct.pack("<i", 5) + b"\1", "does not end where its length says"),
        (struct.pack("<i", 6) + b"\x10\0", "BSON ends inside a field name"),
        (document(b"\x10name"), "BSON ends inside a field name"),
        (document(raw_element(0x10, "n", b"\1\0\0")), "BSON value reaches beyond its document"),
        (document(raw_element(0x14, "n")), "BSON type 0x14 is unknown"),
        (document(raw_element(0x00, "n")), "BSON type 0x00 is unknown"),
        (document(raw_element(0x02, "n", b"\1\0\0")), "BSON ends inside a length"),
        (document(raw_element(0x02, "n", struct.pack("<i", 0))), "BSON length is negative"),
        (document(raw_element(0x05, "n", struct.pack("<i", -1) + b"\0")), "BSON length is negative"),
        (document(raw_element(0x03, "n", struct.pack("<i", 4) + b"\0")), "BSON length is too small"),
        (document(raw_element(0x0B, "n", b"no end")), "BSON ends inside a regular expression"),
        (document(raw_element(0x0B, "n", b"one\0end")), "BSON ends inside a regular expression"),
        (document(), "timestamp is missing"),
    ],
)
def test_malformed_documents_are_named(raw, text):
    """Each kind of damage has its own message."""
    with pytest.raises(ValueError, match=text):
        decode([raw])


def test_every_hostile_length_in_every_place():
    """Overwrite a document of all types with each of 23 lengths at every offset: an error, or what the reference reads."""
    raw = document(*[element(name, START if name == "timestamp" else 1) for name in FIELDS], *EVERY_TYPE)
    for at in range(len(raw) - 3):
        for length in LENGTHS:
            changed = raw[:at] + struct.pack("<i", length) + raw[at + 4 :]
            assert read_everywhere(changed) == outcome(reference.decode_candles, [changed], START, MINUTE, 5)


def test_truncation_at_every_byte():
    """A truncated batch is an error unless it ends between two documents."""
    raw = b"".join(SERIES) + document(*[element(name, START + 5 * MINUTE if name == "timestamp" else 1) for name in FIELDS], *EVERY_TYPE)
    ends = {sum(map(len, SERIES[:count])) for count in range(6)}
    for end in range(len(raw)):
        result = read_everywhere(raw[:end], limit=6)
        assert (result is ValueError) == (end not in ends)
        assert result == outcome(reference.decode_candles, [raw[:end]], START, MINUTE, 6)


def read_everywhere(raw, limit=5):
    """Return the outcome of one batch, read from its own memory (where a sanitizer sees every overrun) and from the middle of
    two kinds of other memory: a reader that looked beyond the end would return something else."""
    alone = np.frombuffer(raw, np.uint8).copy()
    result = outcome(decode, [alone], START, MINUTE, limit)
    for around in (SERIES[1], b"\0" * 64):
        memory = bytearray(around + raw + around)
        inside = memoryview(memory)[len(around) : len(around) + len(raw)]
        assert outcome(decode, [inside], START, MINUTE, limit) == result
    return result


def mutated(rng, raw):
    """Return ``raw`` with a few random corruptions."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not data:
            break
        at = rng.randrange(len(data))
        accident = rng.randrange(9)
        if accident <= 1:
            data[at] ^= 1 << rng.randrange(8)
        elif accident == 2:
            data[at] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 127, 128, 255))
        elif accident == 3:
            data[at : at + 4] = struct.pack("<i", rng.choice(LENGTHS))
        elif accident == 4:
            length = struct.unpack("<i", data[at : at + 4])[0] if at + 4 <= len(data) else 0
            data[at : at + 4] = struct.pack("<i", max(-(2**31), min(2**31 - 1, length + rng.randint(-9, 9))))
        elif accident == 5:
            del data[at:]
        elif accident == 6:
            del data[at : at + rng.randint(1, 20)]
        elif accident == 7:
            data[at:at] = rng.randbytes(rng.randint(1, 12))
        else:
            other = rng.randrange(len(data))
            data[at:at] = data[other : other + rng.randint(1, 40)]
    return bytes(data)


def test_mutated_batches():
    """Thousands of damaged batches: a ValueError or the rows of the reference, never a crash or a read out of bounds."""
    rng = random.Random(SEED)
    mixed = []
    for index in range(3):
        parts = [element(name, START + index * MINUTE) for name in FIELDS] + rng.sample(EVERY_TYPE, 6)
        mixed.append(document(*rng.sample(parts, len(parts))))
    bases = [b"".join(SERIES[:2]), SERIES[0], b"".join(mixed), mixed[0], document(*EVERY_TYPE), plain_candle(volume=Decimal128("1.5"))]
    outcomes = collections.Counter()
    for number in range(MUTATIONS):
        raw = mutated(rng, bases[number % len(bases)])
        result = read_everywhere(raw)
        assert result == outcome(reference.decode_candles, [raw], START, MINUTE, 5), f"seed {SEED}, mutation {number}: {raw.hex()}"
        outcomes["error" if result is ValueError else f"{len(result)} rows"] += 1
    # The damage must be neither always fatal nor always harmless, or the test would prove nothing.
    assert outcomes["error"] > MUTATIONS // 4
    assert outcomes["1 rows"] > MUTATIONS // 100
    assert outcomes["2 rows"] > MUTATIONS // 200


@settings(steady, max_examples=500)
@given(st.binary(max_size=80))
def test_any_bytes_at_all(raw):
    """Arbitrary bytes are an error or an empty result, as in the reference."""
    assert read_everywhere(raw) == outcome(reference.decode_candles, [raw], START, MINUTE, 5)


@pytest.mark.slow
@steady
@given(nested(SCALARS | OF_PYMONGO))
def test_any_document_between_candles(value):
    """Whatever value another writer stores next to the fields is skipped exactly, as encoded by pymongo."""
    assume(len(str(value)) < 5000)
    raw = document(element("extra", value), *[element(name, START) for name in FIELDS], element("", value))
    assert decode([raw], limit=1) == [(START, struct.pack("<5d", *[START] * 5))]


# ======================================================================================================================
# Reading documents and records
# ======================================================================================================================

KEY = ("symbol", "bucket", "backtest")


def same(left, right):
    """Compare values and types at every depth; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, datetime):
        return left == right and left.utcoffset() == right.utcoffset()
    return left == right


def as_dicts(value):
    """Replace DBRefs by dicts: pymongo returns a DBRef for such a document, the core a dict; for the old DBPointer both return a DBRef."""
    if isinstance(value, dict):
        return {name: as_dicts(member) for name, member in value.items()}
    return list(map(as_dicts, value)) if isinstance(value, list) else reference.plain(value) if isinstance(value, DBRef) else value


def read_one(function, raw, *arguments):
    """Return the outcome for bytes in their own memory, and check that it is the same between other documents."""
    result = outcome(function, np.frombuffer(raw, np.uint8).copy(), *arguments)
    for around in (SERIES[1], b"\0" * 64):
        inside = memoryview(bytearray(around + raw + around))[len(around) : len(around) + len(raw)]
        assert same(outcome(function, inside, *arguments), result)
    return result


@pytest.mark.slow
@steady
@given(nested(SCALARS | OF_PYMONGO))
@example([True, 1, 2**31, Int64(1), 1.0, Decimal128("1.50"), Decimal128("sNaN"), None, "", b"", Binary(b"x", 4), UTC_NOON])
@example({"ö🚀": "a\0b", "": {}, "list": list(range(25)), "0": [[]]})
@example([DBRef("c", 1), Code("x", {"a": 1}), Regex("a", "i"), Timestamp(1, 2), MinKey(), MaxKey()])
def test_documents_are_read_as_pymongo_reads_them(value):
    """Values are equal at every depth; whole numbers are plain ints, Decimal128 a Decimal, dates aware in UTC."""
    assume(not any(type(each) is DatetimeMS for each in walk(value)))
    raw = bson.encode({"payload": value})
    assert same(as_dicts(read_one(core.decode, raw)), reference.plain(bson.decode(raw, AWARE)))


def walk(value):
    yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from walk(member)


@pytest.mark.parametrize("extra", EVERY_TYPE, ids=lambda raw: f"{raw[0]:02x}-{raw[1:].partition(bytes(1))[0].decode()}")
def test_documents_of_every_type(extra):
    """The types that pymongo no longer writes are read too; JavaScript's undefined is None."""
    raw = document(extra)
    assert same(as_dicts(read_one(core.decode, raw)), reference.plain(bson.decode(raw, AWARE)))


@pytest.mark.slow
@steady
@given(nested(SCALARS))
def test_what_the_core_writes_the_core_reads(value):
    """Encoding a decoded document returns the same bytes."""
    raw = writer.encode({"payload": value}, refuse)
    assert writer.encode(core.decode(raw), refuse) == raw


def test_of_a_key_that_stands_twice_the_last_value_counts():
    """The last value of a duplicate key counts, as in pymongo."""
    raw = document(element("a", 1), element("b", 2), element("a", 3))
    assert core.decode(raw) == bson.decode(raw) == {"a": 3, "b": 2}


@pytest.mark.parametrize("ms", [-62135596800000, -1, 0, 1, 253402300799999])
def test_dates_of_all_years_are_read(ms):
    """Dates are read from the first millisecond of year 1 to the last of 9999."""
    moment = core.decode(document(element("a", DatetimeMS(ms))))["a"]
    assert moment == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    assert moment.utcoffset() == timedelta(0)


BAD_UTF8 = struct.pack("<i", 3) + b"\xff\xfe\0"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "BSON document length does not match its"),
        (b"\5\0\0\0", "BSON document length does not match its"),
        (document() + b"\0", "BSON document length does not match its"),
        (document()[:-1], "BSON document length does not match its"),
        (struct.pack("<i", 5) + b"\1", "does not end where its length says"),
        (struct.pack("<i", -5) + b"\0", "BSON document length does not match its"),
        (document(element("a", DatetimeMS(253402300800000))), "outside the years 1 to 9999"),
        (document(element("a", DatetimeMS(-62135596800001))), "outside the years 1 to 9999"),
        (document(element("a", DatetimeMS(2**63 - 1))), "outside the years 1 to 9999"),
        (document(element("a", DatetimeMS(-(2**63)))), "outside the years 1 to 9999"),
        (document(raw_element(0x08, "a", b"\2")), "neither true nor false"),
        (document(raw_element(0x02, "a", struct.pack("<i", 2) + b"xy")), "BSON text does not end with NUL"),
        (document(raw_element(0x02, "a", BAD_UTF8)), "utf-8"),
        (document(b"\x0a\xff\0"), "utf-8"),
        (document(raw_element(0x03, "a", struct.pack("<i", 6) + b"\0\1")), "BSON"),
        (document(raw_element(0x04, "a", struct.pack("<i", 9) + b"\x10a\0\0\0")), ""),
        (document(raw_element(0x0D, "a", BAD_UTF8)), ""),
        (document(raw_element(0x0E, "a", BAD_UTF8)), ""),
        (document(raw_element(0x0B, "a", b"\xff\0\0")), ""),
        (document(raw_element(0x0C, "a", BAD_UTF8 + b"i" * 12)), ""),
        (document(raw_element(0x0F, "a", struct.pack("<ii", 9, 1) + b"\0")), ""),
        (document(raw_element(0x0F, "a", struct.pack("<i", 5) + b"\0")), ""),
        (document(raw_element(0x05, "a", struct.pack("<i", 2) + b"\2ab")), ""),
    ],
)
def test_malformed_documents_are_a_value_error(raw, text):
    """Every malformed document is a ValueError, also for the types that pymongo decodes for the core."""
    with pytest.raises(ValueError, match=text or "."):
        core.decode(raw)


def scope(*parts, code=b"f", extra=0):
    """Build an element of type code with scope; ``extra`` is added to the length of its text."""
    text = struct.pack("<i", len(code) + 1 + extra) + code + b"\0"
    inner = document(*parts)
    return raw_element(0x0F, "c", struct.pack("<i", 4 + len(text) + len(inner)) + text + inner)


def test_code_brings_its_scope():
    """Code is read with its scope, and the scope like any document, with plain values."""
    raw = document(scope(element("a", [1, {"b": Int64(2)}]), code="größe".encode()))
    code = core.decode(raw)["c"]
    assert same(code, bson.decode(raw)["c"])
    assert same(code.scope, {"a": [1, {"b": 2}]})


@pytest.mark.parametrize(
    "bad",
    [
        scope(extra=1),
        scope(extra=-1),
        scope(extra=5),
        scope(extra=2**31 - 9),
        scope(extra=-(2**31)),
        scope(raw_element(0x04, "a", struct.pack("<i", 7) + b"\x10\0\0")),
        # An array with a last value that claims bytes beyond the end of everything: pymongo would read them.
        scope(raw_element(0x04, "a", document(element("0", "x" * 40), raw_element(0x0C, "1", struct.pack("<i", 50) + b"\0")))),
        scope(raw_element(0x04, "a", document(element("0", "x" * 40), raw_element(0x02, "1", struct.pack("<i", 40) + b"\0")))),
        scope(raw_element(0x04, "a", document(element("0", "x" * 90), raw_element(0x13, "1", b"")))),
    ],
)
def test_a_hostile_scope_is_refused(bad):
    """Lengths inside a scope are checked like any others, also in its arrays."""
    with pytest.raises(ValueError, match="BSON"):
        core.decode(document(bad))


@pytest.mark.parametrize("kind", [0x03, 0x04])
def test_documents_nested_without_end_are_refused(kind):
    """The deepest document that the writer accepts can be read; 5,000 more levels are a ValueError, not a stack overflow."""
    raw = document()
    for _ in range(MAX_DEPTH):
        raw = document(raw_element(kind, "0", raw))
    assert same(core.decode(raw), bson.decode(raw))
    for _ in range(5000):
        raw = document(raw_element(kind, "0", raw))
    with pytest.raises(ValueError, match="nested too deeply"):
        core.decode(raw)


@steady
@given(
    st.lists(
        st.lists(st.sampled_from(EVERY_TYPE + [element("n", value) for value in (1, 2.5, Int64(3), Decimal128("4"), "5")]), max_size=6)
    )
)
def test_batches_are_split_into_their_documents(contents):
    """``split`` returns each document unchanged; ``numbers`` returns the first field of that name in each document, if it is a number."""
    documents = [document(*parts) for parts in contents]
    assert core.split(b"".join(documents)) == documents
    for name in ("n", "x", "größe🚀", ""):
        assert numbers([b"".join(documents[:2]), b"".join(documents[2:])], name) == reference.numbers([b"".join(documents)], name)


@pytest.mark.parametrize(
    "raw", [b"\5", b"\5\0\0\0", b"\4\0\0\0\0", b"\0\0\0\0\0", b"\xff\xff\xff\xff\0", b"\xff\xff\xff\x7f\0", SERIES[0] + SERIES[1][:-1]]
)
def test_batches_that_end_early(raw):
    """A batch that ends inside a document is a ValueError."""
    with pytest.raises(ValueError, match="BSON"):
        core.split(raw)
    with pytest.raises(ValueError, match="BSON"):
        numbers([raw], "n")


VALUES = st.sampled_from(
    ["BTCUSDT", "", "börse🚀", "a\0b", "BTCUSD", "BTCUSDTT", True, False, 1, 0, 1.0, 5, Int64(5), None, UTC_NOON, [1], {"a": 1}]
)
WHENS = st.sampled_from(
    [..., 0, START, Int64(START), float(START), 1.9, -1.5, 1e300, math.nan, math.inf, None, "x", True, UTC_NOON, {}]
) | st.sampled_from(
    [Decimal128("17"), Decimal128("1.5"), Decimal128("NaN"), Decimal128("sNaN"), Decimal128("-Infinity"), Decimal128("1E+6000")]
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "_id": OBJECT_IDS | st.sampled_from(["text", 5, None, b"x" * 12]),
        "symbol": VALUES,
        "bucket": VALUES,
        "backtest": VALUES,
        "payload": nested(SCALARS),
        "when": WHENS.filter(lambda when: when is not ...),
        "removed": st.sampled_from([True, False, None, 0, 1, "true", 1.0]),
        "other": nested(SCALARS),
        "payloa": st.none(),
        "_i": st.none(),
        "symbols": st.none(),
    },
)


@pytest.mark.slow
@settings(steady, max_examples=250)
@given(RECORDS, st.randoms(use_true_random=False), st.tuples(VALUES, VALUES, VALUES))
def test_records_are_taken_apart_like_the_reference(fields, rng, other_key):
    """Key, id, body, simulation time and removal match the reference, whatever the field order and the types of the values."""
    names = list(fields)
    rng.shuffle(names)
    raw = document(*[element(name, fields[name]) for name in names])
    expected = reference.record(bson.decode(raw, AWARE), KEY, "payload")
    reader = core.RecordReader(KEY, "payload")
    assert same(read_one(reader.open, raw), expected)
    key = expected[1][0]
    if None not in key:
        assert same(read_one(reader.match, raw, key), expected[1])
    if other_key != key or None in key:
        assert reader.match(raw, other_key) is None


@pytest.mark.parametrize(
    ("stored", "wanted", "is_it"),
    [
        ("BTCUSDT", "BTCUSDT", True),
        ("BTCUSDT", "BTCUSD", False),
        ("BTCUSD", "BTCUSDT", False),
        ("BTCUSDT", "btcusdt", False),
        ("", "", True),
        ("", "\0", False),
        ("a\0b", "a\0b", True),
        ("a\0b", "a", False),
        ("é", "e\u0301", False),
        ("größe", Colour.WIDE, True),
        ("x", 5, False),
        (5, "5", False),
        (5, 5, True),
        (5.0, 5, True),
        (Int64(5), 5, True),
        (True, True, True),
        (True, False, False),
        (None, "x", False),
        (..., "x", False),
        ([], "x", False),
    ],
)
def test_a_record_is_verified_by_its_key(stored, wanted, is_it):
    """A document with another key field, or without it, is not the record: text is compared byte by byte, numbers by value."""
    reader = core.RecordReader(("symbol",), "payload")
    raw = document(*([] if stored is ... else [element("symbol", stored)]), element("payload", {"a": 1}))
    assert reader.match(raw, (wanted,)) == (((wanted,), {"a": 1}, None, False) if is_it else None)


@pytest.mark.parametrize("names", [(), tuple("abcdefgh")])
def test_records_with_up_to_eight_key_fields(names):
    """Zero and eight key fields are accepted; nine are rejected, and so is a key of another length."""
    reader = core.RecordReader(names, "body")
    raw = bson.encode({name: name for name in names} | {"body": 1})
    assert reader.match(raw, names) == (names, 1, None, False)
    assert reader.open(raw) == (None, (names, 1, None, False))
    for wrong in ((*names, "x"), names[:-1] if names else ("x",)):
        with pytest.raises(ValueError, match=r"expected a key of \d fields, got"):
            reader.match(raw, wrong)
    with pytest.raises(ValueError, match="too many key fields"):
        core.RecordReader((*"abcdefgh", "i"), "body")


@pytest.mark.parametrize("name", ["decode", "split", "match", "open", "numbers"])
def test_readers_take_bytes(name):
    """Readers take bytes of any kind and reject None, text and other objects."""
    reader = core.RecordReader(("a",), "b")
    functions = {
        "decode": core.decode, "split": core.split, "numbers": lambda raw: numbers([raw], "b"), "open": reader.open,
        "match": lambda raw: reader.match(raw, ("x",)),
    }  # fmt: skip
    raw = bson.encode({"a": "x", "b": 5})
    answers = [functions[name](kind(raw)) for kind in (bytes, bytearray, memoryview)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] != []
    for wrong in ("text", 5, object(), [raw], *([] if name == "numbers" else [None])):
        with pytest.raises((TypeError, ValueError)):
            functions[name](wrong)


def test_a_reader_that_was_never_set_up():
    """A reader created without its constructor, or initialised twice, does not crash."""
    raw = bson.encode({"a": "x"})
    empty = core.RecordReader.__new__(core.RecordReader)
    for call in (lambda: empty.open(raw), lambda: empty.match(raw, ("x",))):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            call()
    reader = core.RecordReader(("a",), "b")
    reader.__init__(("c",), "a")
    assert reader.open(raw) == (None, ((None,), "x", None, False))


def test_mutated_documents():
    """From every reader, a damaged document is a ValueError or a value; what pymongo can still read, the core reads alike."""
    rng = random.Random(SEED + 1)
    rich = {"_id": ObjectId(b"x" * 12), "symbol": "BTCUSDT", "bucket": "ö", "backtest": True, "when": START, "removed": False, "n": 1.5}
    bases = [bson.encode(rich | {"payload": {"a": [1, "x", None, {"b": UTC_NOON}], "d": Decimal128("1.5")}})]
    bases += [document(*EVERY_TYPE), bson.encode({"payload": [[[[1]]], {"a": {"b": {"c": "text"}}}]}), bson.encode(rich)]
    reader = core.RecordReader(KEY, "payload")
    outcomes = collections.Counter()
    for number in range(MUTATIONS // 2):
        raw = mutated(rng, bases[number % len(bases)])
        if len(raw) >= 4 and rng.random() < 0.8:
            raw = struct.pack("<i", len(raw)) + raw[4:]  # otherwise nearly all would be rejected for their length
        result = read_one(core.decode, raw)
        for function, *arguments in ((reader.open,), (reader.match, ("BTCUSDT", "ö", True)), (core.split,)):
            read_one(function, raw, *arguments)
        assert same(outcome(numbers, [raw], "n"), outcome(reference.numbers, [raw], "n"))
        if not reference.is_well_formed(raw):
            assert result is ValueError
            outcomes["malformed"] += 1
            continue
        try:
            expected = bson.decode(raw, AWARE)
        except bson.errors.InvalidBSON:
            outcomes["refused by both" if result is ValueError else "refused by pymongo"] += 1
        else:
            same_as_pymongo = result is not ValueError and same(as_dicts(result), reference.plain(expected))
            assert same_as_pymongo, f"seed {SEED}, mutation {number}: {raw.hex()}"
            outcomes["read by both"] += 1
    assert outcomes["malformed"] > MUTATIONS // 8
    assert outcomes["refused by both"] > MUTATIONS // 1000
    assert outcomes["read by both"] > MUTATIONS // 50


# ======================================================================================================================
# Memory
# ======================================================================================================================

SIGNAL = {
    "payload": {
        "id": "6f0f", "position": "long", "note": "por qué", "priceOpen": 100.25, "minuteEstimatedTime": math.inf, "scheduledAt": START,
        "_isScheduled": False, "_peak": {"price": 101.5, "timestamp": START}, "_entry": [{"price": 100, "cost": 100}],
        "oid": ObjectId(b"x" * 12), "raw": b"xyz",
    }
}  # fmt: skip


def failing(call, *kinds):
    def attempt():
        try:
            call()
        except kinds:
            return
        raise AssertionError("no error")

    return attempt


ROWS = np.zeros(5 * 48, np.int8)
READER = core.RecordReader(("symbol",), "payload")
RAW = bson.encode(
    {"_id": ObjectId(b"x" * 12), "symbol": "ö", "when": START, "payload": [SIGNAL, Decimal128("1.5"), Regex("x"), b"x", None]}
)
CUT = struct.pack("<i", len(RAW) - 9) + RAW[4:-9]
BROKEN = [SERIES[0] + SERIES[1][:-9]]
PATHS = {
    "encode": lambda: writer.encode(SIGNAL, refuse),
    "encode, large": lambda: writer.encode({"payload": "x" * 3000, "list": [SIGNAL]}, refuse),
    "encode, types of pymongo": lambda: writer.encode({"a": [Int64(1), Binary(b"x", 4), Regex("x"), Decimal128("1")]}, refuse),
    "encode, fallback": lambda: writer.encode({"a": [Foreign({"b": Foreign(1)})]}, unwrap),
    "encode, foreign type": failing(lambda: writer.encode({"a": [SIGNAL, {"b": object()}]}, refuse), TypeError),
    "encode, key": failing(lambda: writer.encode({"a": [SIGNAL, {"b" * 2000: {1: 1}}]}, refuse), TypeError),
    "encode, NUL": failing(lambda: writer.encode({"a": [SIGNAL, {"b\0": 1}]}, refuse), ValueError),
    "encode, surrogate": failing(lambda: writer.encode({"a": ["\ud800"]}, refuse), ValueError),
    "encode, 64 bits": failing(lambda: writer.encode({"a": [2**64]}, refuse), ValueError),
    "encode, naive": failing(lambda: writer.encode({"a": [datetime(2024, 1, 1)]}, refuse), ValueError),
    "encode, itself": failing(lambda: writer.encode({"a": Foreign()}, new_objects_for_ever), ValueError),
    "encode, other error": failing(lambda: writer.encode({"a": [Foreign(), {}]}, lambda value: {}[0]), KeyError),
    "decode": lambda: decode_candles(SERIES, ROWS, START, MINUTE, 5),
    "decode, decimal": lambda: decode_candles([plain_candle(volume=Decimal128("1.5"))], ROWS, START, MINUTE, 5),
    "decode, hole": lambda: decode_candles([SERIES[0], SERIES[3]], ROWS, START, MINUTE, 5),
    "decode, malformed": failing(lambda: decode_candles(BROKEN, ROWS, START, MINUTE, 5), ValueError),
    "decode, missing": failing(lambda: decode_candles([plain_candle(low=...)], ROWS, START, MINUTE, 5), ValueError),
    "documents": lambda: core.decode(RAW),
    "documents, malformed": failing(lambda: core.decode(CUT), ValueError),
    "documents, utf-8": failing(lambda: core.decode(document(element("a", SIGNAL), raw_element(0x02, "b", BAD_UTF8))), ValueError),
    "documents, by pymongo": failing(lambda: core.decode(document(element("a", SIGNAL), raw_element(0x0D, "b", BAD_UTF8))), ValueError),
    "records": lambda: (READER.open(RAW), READER.match(RAW, ("ö",)), READER.match(RAW, ("x",))),
    "records, malformed": failing(lambda: READER.open(CUT), ValueError),
    "split": lambda: (core.split(RAW + RAW), numbers([RAW], "when")),
    "split, malformed": failing(lambda: core.split(RAW + CUT[:-1]), ValueError),
    "decode, target": failing(lambda: decode_candles(SERIES, ROWS, START, MINUTE, 4), ValueError),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", PATHS.values(), ids=list(PATHS))
def test_no_path_keeps_memory(call):
    """No call leaks memory: over a thousand calls traced memory grows by less than a byte per call.

    The interpreter's own caches may still fill up in one round of calls, but not in all four.
    """
    calls = 1000
    for _ in range(200):
        call()
    kept = []
    gc.collect()
    tracemalloc.start(1)
    try:
        while len(kept) < 4 and not any(each < calls for each in kept):
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(calls):
                call()
            gc.collect()
            kept.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert min(kept) < calls


@pytest.mark.slow
def test_a_hundred_thousand_calls_keep_no_block():
    """The blocks that Python holds do not increase over 10^5 documents written, rejected, read and found malformed.

    The allowance is for the date: the interpreter's method cache keeps up to 4,096 names of the time zone's method.
    """

    def round_of(count):
        for _ in range(count):
            writer.encode({"at": UTC_NOON, **SIGNAL}, refuse)
            PATHS["encode, foreign type"]()
            PATHS["decode"]()
            PATHS["decode, malformed"]()
        gc.collect()
        return sys.getallocatedblocks()

    round_of(1000)
    before = round_of(1000)
    assert round_of(25_000) - before < 5_000


def test_references_are_given_back():
    """Keys, values, fallbacks, batches and targets have as many references after a thousand calls as before."""
    key, value, member, batch, target = "key-" + "k" * 5, "v" * 9, Foreign("w" * 9), b"".join(SERIES), np.zeros(240, np.int8)

    def fallback(value):
        return value.value

    nested_document = {key: [value, member, {key: value}]}
    broken = {key: [value, {key: {key: 2**64}}]}
    watched = [key, value, member, member.value, batch, target, fallback, nested_document, broken, writer.encode, ObjectId]
    watched += [nested_document[key], *([None, True] if sys.version_info < (3, 12) else [])]

    def counts():
        gc.collect()
        return [sys.getrefcount(item) for item in watched]

    def calls():
        for _ in range(1000):
            writer.encode(nested_document, fallback)
            writer.encode({"a": None, "b": True}, fallback)
            decode_candles([batch], target, START, MINUTE, 5)
            with pytest.raises(ValueError, match="64 bits"):
                writer.encode(broken, fallback)
            with pytest.raises(ValueError, match="beyond"):
                decode_candles([batch[:-1]], target, START, MINUTE, 5)

    calls()
    before = counts()
    calls()
    assert all(abs(after - was) < 20 for after, was in zip(counts(), before, strict=True))


def test_arguments_are_not_changed():
    """Neither a document nor a batch is changed."""
    kept = copy.deepcopy(SIGNAL)
    writer.encode(SIGNAL, refuse)
    assert kept == SIGNAL
    batch = bytearray(b"".join(SERIES))
    decode([batch])
    assert batch == b"".join(SERIES)
