"""Key fields, Redis keys and Redis commands of the compiled core, compared with the plain reference."""

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
from backtest_kit_mongo._core import bson, candles, counters, ids, keys, writer
from backtest_kit_mongo.domains import DOMAINS

pytestmark = pytest.mark.once

# The same examples in every run: a failure is reproducible for everybody.
steady = settings(derandomize=True, deadline=None, max_examples=400)

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # with NUL and lone surrogates
CLEAN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["", ":", "a:b", "BTCUSDT", "börse", "🚀", "\0"])
NAMES = ("symbol", "strategyName", "exchangeName", "backtest", "timestamp", "bucket")


class Text(str):
    """A subclass of str."""


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
    """Return the result of a call, or the kind of its error and the first word of the message."""
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return kind, str(error).split(" ")[0]


@pytest.mark.parametrize("module", [bson, candles, counters, ids, keys, writer])
def test_the_core_in_use_is_compiled(module):
    """The modules under test are extension modules next to their sources, not Python files that shadow them."""
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
    """Valid fields pass; otherwise the first invalid one is named, TypeError for a wrong type and ValueError for a wrong text."""
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
    """The message can be shown to a user: field, reason, and the invalid value in ASCII."""
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
    """Too few or too many fields, or names and kinds of different lengths, is a TypeError; nothing is read past an end."""
    with pytest.raises(TypeError, match=r"^expected \d key fields"):
        keys.check_fields(fields, names, kinds)


@pytest.mark.parametrize("arguments", [(["x"], ("a",), (str,)), (None, ("a",), (str,)), (("x",), None, (str,)), (("x",), ("a",), None)])
def test_check_fields_takes_tuples_only(arguments):
    """Anything but tuples is a TypeError, None included."""
    with pytest.raises(TypeError):
        keys.check_fields(*arguments)


# --- KeyBuilder ------------------------------------------------------------------------------------------------------

ID = st.binary(min_size=12, max_size=12)
FIELD = TEXT | INT64 | st.booleans() | st.integers() | st.builds(Text, CLEAN) | st.sampled_from([*Exchange, *Number])


@st.composite
def builders(draw, shortest=0):
    """Draw a prefix, an order of the fields in the Redis key, and a strategy for keys with that many fields."""
    order = tuple(draw(st.permutations(range(draw(st.integers(shortest, 5))))))
    prefix = draw(st.sampled_from([b"", b"c", b"signal_cache", b"x" * 300]))
    return prefix, order, st.tuples(*[FIELD] * len(order))


def plain_key(prefix, order, key):
    """Return what KeyBuilder.key must return."""
    return reference.redis_key(prefix, [key[position] for position in order])


def built(function, *arguments):
    """Return the result of a call, or UnicodeEncodeError if it rejected a lone surrogate."""
    try:
        return function(*arguments)
    except UnicodeEncodeError:
        return UnicodeEncodeError


@pytest.mark.slow
@steady
@given(st.data())
def test_every_command_is_the_reference_command(data):
    """Keys, single commands and batches match byte for byte; a lone surrogate in any of them is rejected."""
    prefix, order, key = data.draw(builders())
    pairs = data.draw(st.lists(st.tuples(key, ID), min_size=1, max_size=5))
    batch = [key for key, _ in pairs]
    builder = keys.KeyBuilder(prefix, order)
    (first, value), *_ = pairs
    command = reference.redis_command

    def plain(key):
        return plain_key(prefix, order, key)

    def digits(value):
        return value.hex().encode()

    assert built(builder.key, first) == built(plain, first)
    assert built(builder.get, first) == built(lambda: command(b"GET", plain(first)))
    assert built(builder.set, first, value) == built(lambda: command(b"SET", plain(first), digits(value)))
    assert built(builder.mget, batch) == built(lambda: command(b"MGET", *map(plain, batch)))
    assert built(builder.delete, batch) == built(lambda: command(b"DEL", *map(plain, batch)))
    flat = built(lambda: [part for key, value in pairs for part in (plain(key), digits(value))])
    assert built(builder.mset, pairs) == (flat if flat is UnicodeEncodeError else command(b"MSET", *flat))


@pytest.mark.slow
@steady
@given(st.data())
def test_a_grid_is_the_batch_of_its_keys(data):
    """mset_grid equals mset of the series with each of the last fields."""
    prefix, order, key = data.draw(builders(shortest=1))
    order = (*(position for position in order if position != len(order) - 1), len(order) - 1)
    series = data.draw(key)[:-1]
    pairs = data.draw(st.lists(st.tuples(FIELD, ID), min_size=1, max_size=5))
    builder = keys.KeyBuilder(prefix, order)
    assert built(builder.mset_grid, series, pairs) == built(builder.mset, [((*series, last), value) for last, value in pairs])


@pytest.mark.parametrize("number", [0, 9, 10, -1, -10, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**4000, Number.SEVEN])
def test_integers_of_any_size_stand_in_decimal(number):
    """Integers at the limits of 64 bits and beyond them are written in decimal."""
    assert keys.KeyBuilder(b"p", (0,)).key((number,)) == b"p:" + str(int(number)).encode()


def test_an_integer_that_python_does_not_print_is_a_value_error():
    """Python does not convert integers of more than 4,300 digits."""
    with pytest.raises(ValueError, match="digits"):
        keys.KeyBuilder(b"p", (0,)).key((10**5000,))


@pytest.mark.parametrize("size", [0, 1, 9, 10, 99, 100, 255, 256, 257, 999, 1000, 100_000, 3_000_000])
def test_fields_of_any_length(size):
    """Cover every digit count of an argument length, and the sizes where the buffer grows."""
    field = "x" * size
    text = b"p:" + field.encode()
    builder = keys.KeyBuilder(b"p", (0,))
    assert builder.key((field,)) == text
    assert builder.get((field,)) == reference.redis_command(b"GET", text)
    assert builder.mget([(field,), ("",), (field,)]) == reference.redis_command(b"MGET", text, b"p:", text)


def test_a_batch_is_any_iterable():
    """A list, a tuple and an iterator produce the same command, preceded by the number of arguments."""
    pairs = [((f"S{index}", True), bytes([index] * 12)) for index in range(100)]
    batch = [key for key, _ in pairs]
    builder = keys.KeyBuilder(b"p", (1, 0))
    for given_as in (list, tuple, iter):
        assert builder.mget(given_as(batch)) == reference.redis_command(b"MGET", *map(builder.key, batch))
        assert builder.delete(given_as(batch)) == reference.redis_command(b"DEL", *map(builder.key, batch))
        assert builder.mset(given_as(pairs)) == builder.mset(pairs)
    assert builder.mset(pairs).startswith(b"*201\r\n$4\r\nMSET\r\n$13\r\np:backtest:S0\r\n$24\r\n" + b"00" * 12 + b"\r\n")


def test_a_batch_that_changes_under_the_builder():
    """The argument count in front matches the keys that follow, even if the iterable grows meanwhile."""
    batch = [("a",), ("b",)]

    def growing():
        for key in batch:
            if len(batch) < 50:
                batch.append((str(len(batch)),))
            yield key

    command = keys.KeyBuilder(b"p", (0,)).mget(growing())
    reader = hiredis.Reader()
    reader.feed(command)
    assert len(reader.gets()) == 51
    assert reader.gets() is False


@pytest.mark.parametrize("call", ["mget", "delete", "mset"])
@pytest.mark.parametrize("nothing", [[], (), iter([])])
def test_a_batch_of_nothing_is_refused(call, nothing):
    """Redis accepts no such command without keys, so an empty batch is a ValueError."""
    with pytest.raises(ValueError, match="at least one key"):
        getattr(keys.KeyBuilder(b"p", (0,)), call)(nothing)
    with pytest.raises(ValueError, match="at least one key"):
        keys.KeyBuilder(b"p", (0,)).mset_grid((), nothing)


@pytest.mark.parametrize("field", [None, 1.5, 1.0, float("nan"), b"x", ["x"], object(), np.float64(2.5), np.int64(1), np.bool_(True)])
def test_a_field_of_another_type_is_refused(field):
    """A float is never truncated to the key of an integer, and no value is written as its repr."""
    builder = keys.KeyBuilder(b"p", (0, 1))
    for call in (lambda: builder.key(("a", field)), lambda: builder.mget([("a", "b"), (field, "a")])):
        with pytest.raises(TypeError, match=r"^a key field must be str, bool or int, got "):
            call()
    with pytest.raises(TypeError, match=r"^a key field must be str, bool or int, got "):
        builder.mset_grid(("a",), [(field, b"x" * 12)])


@pytest.mark.parametrize("key", [(), ("a",), ("a", "b", "c"), ["a", "b"], "ab", None, 5, {"a": 1, "b": 2}])
def test_a_key_of_another_shape_is_refused(key):
    """Only a tuple with all fields is a key; nothing is read past its end."""
    builder = keys.KeyBuilder(b"p", (1, 0))
    value = b"x" * 12
    for call in (builder.key, builder.get, lambda key: builder.set(key, value), lambda key: builder.mget([key])):
        with pytest.raises(TypeError):
            call(key)
    for call in (lambda key: builder.delete([("a", "b"), key]), lambda key: builder.mset([(key, value)])):
        with pytest.raises(TypeError):
            call(key)


@pytest.mark.parametrize("series", [("a",), ("a", "b", "c"), ["a", "b"], None])
def test_a_series_of_another_shape_is_refused(series):
    """A series is the key without its last field."""
    with pytest.raises(TypeError):
        keys.KeyBuilder(b"p", (0, 1, 2)).mset_grid(series, [(1, b"x" * 12)])


@pytest.mark.parametrize("order", [(), (1, 0), (0, 2, 1)])
def test_a_grid_needs_its_last_field_last(order):
    """If the last key field is elsewhere in the Redis key, there is no series to share."""
    with pytest.raises(ValueError, match="last"):
        keys.KeyBuilder(b"p", order).mset_grid(("a",) * (len(order) - 1), [(1, b"x" * 12)])


@pytest.mark.parametrize("value", [b"", b"x" * 11, b"x" * 13, b"x" * 24])
def test_an_id_has_twelve_bytes(value):
    """An id of another length is a ValueError."""
    builder = keys.KeyBuilder(b"p", (0,))
    for call in (builder.set, lambda key, value: builder.mset([(key, value)]), lambda key, value: builder.mset_grid((), [(*key, value)])):
        with pytest.raises(ValueError, match="12 bytes"):
            call(("a",), value)


@pytest.mark.parametrize("value", [None, "x" * 12, bytearray(12), 5])
def test_an_id_is_bytes(value):
    """An id of another type is a TypeError."""
    with pytest.raises(TypeError, match="must be bytes"):
        keys.KeyBuilder(b"p", (0,)).set(("a",), value)


@pytest.mark.parametrize("pairs", [[5], [None], [("a",)], [(("a",), b"x" * 12, 1)], None])
def test_pairs_are_pairs(pairs):
    """Anything that does not unpack into a key and an id raises."""
    builder = keys.KeyBuilder(b"p", (0,))
    for call in (builder.mset, lambda pairs: builder.mset_grid((), pairs)):
        with pytest.raises((TypeError, ValueError)):
            call(pairs)


@pytest.mark.parametrize("order", [(1,), (0, 0), (0, 2), (-1, 0), (0, 256), (0, 2**70), ("a",)])
def test_an_order_names_each_position_once(order):
    """An order that would read outside a key is rejected."""
    with pytest.raises(ValueError, match="each position once"):
        keys.KeyBuilder(b"p", order)


@pytest.mark.parametrize("arguments", [(), (b"p",), (None, (0,)), ("p", (0,)), (b"p", None), (b"p", [0]), (b"p", (0, "a"))])
def test_a_builder_takes_bytes_and_a_tuple(arguments):
    """Wrong types are a TypeError."""
    with pytest.raises(TypeError):
        keys.KeyBuilder(*arguments)


def test_redis_keys_of_two_contexts_may_collide():
    """Fields are joined without escaping, as in the TypeScript package, so a reader must verify the record."""
    builder = keys.KeyBuilder(b"p", (0, 1))
    assert builder.key(("a:b", "c")) == builder.key(("a", "b:c"))


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
def test_redis_key_of_every_domain(domain):
    """For each row of the domain table the core and the reference build the same key, also when every text is empty."""
    samples = {str: ["", "BTC:USDT", "börse🚀"], bool: [True, False, True], int: [0, 1_700_000_000_000, -60_000]}
    builder = keys.KeyBuilder(domain.prefix.encode(), domain.cache_order)
    for index in range(3):
        key = tuple(samples[kind][index] for kind in domain.kinds)
        assert builder.key(key) == plain_key(domain.prefix.encode(), domain.cache_order, key)


def test_candles_are_a_grid():
    """The candle row of the table has its timestamp last, in both orders."""
    domain = DOMAINS["candle"]
    value = bytes(range(12))
    command = keys.KeyBuilder(domain.prefix.encode(), domain.cache_order).mset_grid(("binance", "BTCUSDT", "1m"), [(60_000, value)])
    assert command == reference.redis_command(b"MSET", b"candle_cache:binance:BTCUSDT:1m:60000", value.hex().encode())


# --- redis_command ---------------------------------------------------------------------------------------------------


@steady
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"", b"\r\n", b"$3\r\nGET\r\n", b"\0"]), max_size=8))
@example([])
@example([b"x" * 100_000])
def test_redis_command_is_what_a_server_reads(args):
    """The bytes are those of the reference, and a RESP parser reads back exactly the arguments: no argument can break out."""
    command = keys.redis_command(*args)
    assert command == reference.redis_command(*args)
    reader = hiredis.Reader()
    reader.feed(command + b"+end\r\n")
    assert reader.gets() == args
    assert reader.gets() == b"end"


@pytest.mark.parametrize("arg", [None, "GET", 1, bytearray(b"GET"), memoryview(b"GET"), [b"GET"]])
def test_redis_command_takes_bytes_only(arg):
    """Anything but bytes is a TypeError that says so, raised before its length is taken."""
    with pytest.raises(TypeError, match=r"(?i)expected bytes, got"):
        keys.redis_command(b"SET", arg)
