"""Key fields, Redis keys and Redis commands of the compiled core, against the plain reference."""

import enum
import importlib.machinery
from pathlib import Path

import hiredis
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest_kit_mongo import _core
from backtest_kit_mongo._core import bson, candles, counters, keys, writer
from backtest_kit_mongo.domains import DOMAINS

# The same examples in every run: a red test is red for everybody.
steady = settings(derandomize=True, deadline=None, max_examples=400)

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # with NUL and lone surrogates
CLEAN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["", ":", "a:b", "BTCUSDT", "börse", "🚀", "\0"])
NAMES = ("symbol", "strategyName", "exchangeName", "backtest", "timestamp", "bucket")


class Text(str):
    """A str by another name."""


class Exchange(enum.StrEnum):
    PLAIN = "binance"
    WIDE = "börse"
    NUL = "a\0"


class Number(enum.IntEnum):
    SEVEN = 7


ANYTHING = st.one_of(
    TEXT,
    st.builds(Text, TEXT),
    st.sampled_from([*Exchange, *Number]),
    INT64,
    st.booleans(),
    st.none(),
    st.floats(),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([np.int64(1), np.float64(1), np.bool_(True), np.str_("x"), "\ud800", "a\0b", "\0", 10**5000, str, object()]),
)


def outcome(function, *arguments):
    """What a call gives, or the kind of error and the first word of its text."""
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return kind, str(error).split(" ")[0]


@pytest.mark.parametrize("module", [bson, candles, counters, keys, writer])
def test_the_core_in_use_is_compiled(module):
    """The modules under test are extension modules beside their sources, not Python files that shadow them."""
    file = Path(module.__file__)
    assert file.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    assert isinstance(module.__loader__, importlib.machinery.ExtensionFileLoader)
    assert file.parent == Path(_core.__file__).parent
    assert not file.with_name(f"{module.__name__.rpartition('.')[2]}.py").exists()


# --- check_fields ----------------------------------------------------------------------------------------------------


@steady
@given(st.lists(st.tuples(ANYTHING, st.sampled_from([str, bool, int])), max_size=6))
@example([(Exchange.WIDE, str)])
@example([(Exchange.NUL, str)])
@example([("x" * 100_000 + "\0", str)])
@example([("", str), (False, bool), (-(2**63), int)])
@example([(1, bool)])
@example([(True, int)])
@example([(np.bool_(True), bool)])
def test_check_fields_judges_like_the_reference(pairs):
    """Legal fields pass; of illegal ones the first is named, TypeError for a wrong type and ValueError for a wrong text."""
    fields, kinds = tuple(value for value, _ in pairs), tuple(kind for _, kind in pairs)
    names = NAMES[: len(pairs)]
    assert outcome(keys.check_fields, fields, names, kinds) == outcome(reference.check_fields, fields, names, kinds)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("a\0b", str, r"^symbol holds a NUL character: 'a\\x00b'$"),
        ("a\ud800", str, r"^symbol holds a lone surrogate and cannot be stored as UTF-8: 'a\\ud800'$"),
        (Text("ö\0"), str, r"^symbol holds a NUL character: '\\xf6\\x00'$"),
        (5, str, "^symbol must be a str, got int$"),
        (None, str, "^symbol must be a str, got NoneType$"),
        (0, bool, "^symbol must be a bool, got int$"),
        (False, int, r"^symbol must be an int \(milliseconds\), got bool$"),
        (1.0, int, r"^symbol must be an int \(milliseconds\), got float$"),
    ],
)
def test_check_fields_says_what_is_wrong(value, kind, text):
    """The text can be shown to a user: field, reason, and the offender in ASCII."""
    with pytest.raises((TypeError, ValueError), match=text):
        keys.check_fields((value,), ("symbol",), (kind,))


@pytest.mark.parametrize("value", [Exchange.PLAIN, Exchange.WIDE, Text("x"), Text("🚀"), np.str_("ö")])
def test_check_fields_takes_every_str(value):
    """A StrEnum or another subclass of str is a str, in ASCII and beyond."""
    keys.check_fields((value,), ("exchangeName",), (str,))


@pytest.mark.parametrize(
    ("fields", "names", "kinds"),
    [
        ((), ("a",), (str,)),
        (("x", "y"), ("a",), (str,)),
        (("x",), (), ()),
        (("x", "y" * 20), ("a", "b"), (str,)),
        (("x",), ("a",), ()),
        (("x",), ("a",), (str, str)),
    ],
)
def test_check_fields_refuses_a_wrong_number(fields, names, kinds):
    """Too few or too many fields, or a table whose names and kinds disagree, is a TypeError and never read past an end."""
    with pytest.raises(TypeError, match="key fields are needed"):
        keys.check_fields(fields, names, kinds)


@pytest.mark.parametrize("arguments", [(["x"], ("a",), (str,)), (None, ("a",), (str,)), (("x",), None, (str,)), (("x",), ("a",), None)])
def test_check_fields_takes_tuples_only(arguments):
    """Anything but tuples is a TypeError, None included."""
    with pytest.raises(TypeError):
        keys.check_fields(*arguments)


# --- redis_key -------------------------------------------------------------------------------------------------------


@steady
@given(st.sampled_from([b"", b"c", b"signal_cache"]), st.lists(TEXT | INT64 | st.booleans() | st.integers() | st.builds(Text, CLEAN)))
@example(b"signal_cache", [])
@example(b"signal_cache", ["", "", ""])
@example(b"", ["a:b", "c"])
@example(b"c", [0, -1, 2**63 - 1, -(2**63), 2**64, True, False, "🚀", "\0", Exchange.WIDE, Number.SEVEN])
@example(b"c", ["\udcff"])
def test_redis_key_is_the_reference_key(prefix, fields):
    """Prefix and fields joined by colons: text as it stands, integers in decimal, booleans as backtest and live."""

    def built(function):
        try:
            return function(prefix, fields)
        except UnicodeEncodeError:
            return UnicodeEncodeError

    assert built(keys.redis_key) == built(reference.redis_key)


def test_redis_key_takes_any_iterable():
    """A tuple, a list and a generator give the same key."""
    fields = ("BTCUSDT", True, 5)
    for given_as in (tuple, list, iter):
        assert keys.redis_key(b"p", given_as(fields)) == b"p:BTCUSDT:backtest:5"


@pytest.mark.parametrize("field", [None, 1.5, 1.0, float("nan"), b"x", ["x"], object(), np.float64(2.5)])
def test_redis_key_refuses_other_types(field):
    """A float is never cut down to the key of an integer, and nothing is written as its repr."""
    with pytest.raises(TypeError):
        keys.redis_key(b"p", ["a", field])


@pytest.mark.parametrize(("prefix", "fields"), [(None, []), ("p", []), (b"p", None), (b"p", 5)])
def test_redis_key_refuses_other_arguments(prefix, fields):
    """The prefix is bytes and the fields are iterable."""
    with pytest.raises(TypeError):
        keys.redis_key(prefix, fields)


def test_redis_keys_of_two_contexts_may_collide():
    """Fields are joined without escaping, as the other side does: what a reader must verify is no accident."""
    assert keys.redis_key(b"p", ("a:b", "c")) == keys.redis_key(b"p", ("a", "b:c"))


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
def test_redis_key_of_every_domain(domain):
    """Each row of the domain table has a key that core and reference agree on, also when every field is empty."""
    samples = {str: ["", "BTC:USDT", "börse🚀"], bool: [True, False, True], int: [0, 1_700_000_000_000, -60_000]}
    for index in range(3):
        fields = [samples[domain.kinds[position]][index] for position in domain.cache_order]
        assert keys.redis_key(domain.prefix.encode(), fields) == reference.redis_key(domain.prefix.encode(), fields)


# --- grid_keys -------------------------------------------------------------------------------------------------------


@steady
@given(
    st.lists(CLEAN | INT64 | st.booleans(), max_size=3),
    INT64 | st.integers(0, 2 * 10**12),
    st.sampled_from([1, 60_000, 86_400_000]) | INT64,
    st.integers(-1, 40),
)
@example(["BTCUSDT", "1m", "binance"], 0, 60_000, 5)
@example([], -(2**63), 1, 1)
@example([], -(2**63), 1, 3)
@example([], 2**63 - 1, 1, 1)
@example([], 2**63 - 1, 1, 2)
@example([], 2**63 - 1, 2**63 - 1, 2)
@example([], -(2**63), 2**63 - 1, 3)
@example([], 0, -(2**63), 2)
@example([], 0, -(2**63), 3)
@example([], 5, -1, 12)
@example([], 2**63 - 1, 2**63 - 1, 0)
def test_grid_keys_are_the_reference_keys(fields, since, step, count):
    """One key per candle, down to the ends of 64 bits; a time stamp beyond them is an OverflowError, never another stamp."""

    def built(function):
        try:
            return function(b"candle_cache", fields, since, step, count)
        except OverflowError:
            return OverflowError

    assert built(keys.grid_keys) == built(reference.grid_keys)


def test_grid_keys_are_single_keys():
    """A grid is what redis_key gives for each of its time stamps."""
    fields = ("BTCUSDT", "1m", "binance")
    grid = keys.grid_keys(b"candle_cache", fields, 1_677_628_800_000, 60_000, 1000)
    assert grid == [keys.redis_key(b"candle_cache", (*fields, 1_677_628_800_000 + 60_000 * index)) for index in range(1000)]


@pytest.mark.parametrize("arguments", [("p", [], 0, 1, 1), (b"p", [], "0", 1, 1), (b"p", [None], 0, 1, 1), (b"p", None, 0, 1, 1)])
def test_grid_keys_refuse_other_types(arguments):
    """Wrong types are a TypeError."""
    with pytest.raises(TypeError):
        keys.grid_keys(*arguments)


@pytest.mark.parametrize(("since", "step"), [(2**63, 1), (-(2**63) - 1, 1), (0, 2**63)])
def test_grid_keys_refuse_more_than_64_bits(since, step):
    """A start or a step outside 64 bits is an OverflowError."""
    with pytest.raises(OverflowError):
        keys.grid_keys(b"p", [], since, step, 1)


# --- redis_command ---------------------------------------------------------------------------------------------------


@steady
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"", b"\r\n", b"$3\r\nGET\r\n", b"\0"]), max_size=8))
@example([])
@example([b"x" * 100_000])
def test_redis_command_is_what_a_server_reads(args):
    """The bytes are those of the reference, and a RESP parser reads back exactly the arguments: nothing can break out."""
    command = keys.redis_command(*args)
    assert command == reference.redis_command(*args)
    reader = hiredis.Reader()
    reader.feed(command + b"+end\r\n")
    assert reader.gets() == args
    assert reader.gets() == b"end"


@pytest.mark.parametrize("arg", [None, "GET", 1, bytearray(b"GET"), memoryview(b"GET"), [b"GET"]])
def test_redis_command_takes_bytes_only(arg):
    """Anything but bytes is a TypeError that says so, before it is measured."""
    with pytest.raises(TypeError, match=r"(?i)expected bytes, got"):
        keys.redis_command(b"SET", arg)
