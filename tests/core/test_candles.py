"""Candles in the compiled core: the remembered layout of documents, windows in several calls, rows to dicts and back."""

from __future__ import annotations

import math
import os
import random
import struct
from collections import OrderedDict
from decimal import Decimal

import bson
import numpy as np
import pytest
import reference
from bson import Decimal128, Int64, ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_kit_mongo._core.candles import are_sound, decode_candles, pack_rows, to_dicts
from backtest_kit_mongo.candles import CANDLE_DTYPE, to_columns
from backtest_kit_mongo.errors import BacktestKitError

pytestmark = pytest.mark.once

MINUTE = 60_000
START = 1_677_628_800_000
FIELDS = CANDLE_DTYPE.names
SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20231114"))


def stored(index, **changes):
    """Encode a candle document with all fields of a stored one; a change to None leaves the field out."""
    price = 100 + index / 8
    fields = {
        "_id": ObjectId(), "exchangeName": "binance", "interval": "1m", "symbol": "BTCUSDT", "timestamp": START + index * MINUTE, "__v": 0,
        "close": price + 0.5, "high": price + 2.5, "low": price - 1.25, "open": price, "volume": 10.0 + index,
    }  # fmt: skip
    return bson.encode({name: value for name, value in (fields | changes).items() if value is not None})


def decoded(batches, limit, filled=0, rows=None):
    """Return how many slots are filled, and the rows so far."""
    rows = np.zeros(limit, CANDLE_DTYPE) if rows is None else rows
    filled = decode_candles(batches, rows.view(np.int8), START, MINUTE, limit, filled)
    return filled, rows


def outcome(call):
    """Return the result of a call, or ValueError if it raised one."""
    try:
        return call()
    except ValueError:
        return ValueError


def as_reference(rows, filled):
    return [(row[0], struct.pack("<5d", *row[1:])) for row in rows[:filled].tolist()]


def same_as_reference(batches, limit):
    ours = outcome(lambda: as_reference(*reversed(decoded(batches, limit))))
    expected = outcome(lambda: reference.decode_candles(batches, START, MINUTE, limit))
    assert ours == expected, (SEED, [batch.hex() for batch in batches])


# --- layouts ---------------------------------------------------------------------------------------------------------

CHANGES = [
    {}, {}, {}, {"close": 7}, {"close": Int64(7)}, {"volume": Decimal128("1.5")}, {"low": None}, {"extra": "text"}, {"symbol": "BTCUSDX"},
    {"symbol": "ETH"}, {"_id": "no ObjectId"}, {"__v": True}, {"__v": "four"}, {"open": "12345678"[:3]}, {"high": math.nan},
]  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(range(len(CHANGES))), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_documents_of_changing_layout_are_read_like_the_reference(kinds, limit, cut):
    documents = [stored(index, **CHANGES[kind]) for index, kind in enumerate(kinds)]
    same_as_reference([b"".join(documents[:cut]), b"".join(documents[cut:])], limit)


def test_fields_that_move_within_one_size_are_found():
    """Two fields that swap positions leave the length unchanged but not the names."""
    first = bson.decode(stored(0))
    items = list(bson.decode(stored(1)).items())
    items[-1], items[-2] = items[-2], items[-1]
    items[6], items[8] = items[8], items[6]
    batch = bson.encode(first) + bson.encode(dict(items)) + stored(2)
    filled, rows = decoded([batch], 3)
    assert filled == 3
    assert rows.tolist() == [tuple(bson.decode(stored(index))[name] for name in FIELDS) for index in range(3)]


def test_a_text_that_looks_like_a_field_is_no_field():
    """Bytes inside a text are not read as a price, even at the offset where the previous document had one."""
    plain = bson.encode({"note": "x" * 30, "timestamp": START, "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0})
    position = plain.index(b"\x01open\0")
    # The text extends over "open" and the fields after it, so this document has no price of that name.
    spoilt = bytearray(plain.replace(struct.pack("<q", START), struct.pack("<q", START + MINUTE)))
    struct.pack_into("<i", spoilt, spoilt.index(b"\x02note\0") + 6, 31 + 18 + 15)
    assert spoilt[position : position + 6] == b"\x01open\0"
    same_as_reference([plain + bytes(spoilt)], 2)
    assert outcome(lambda: decoded([plain + bytes(spoilt)], 2)) is ValueError


def test_mutated_documents_are_read_like_the_reference():
    """Change each byte of a document between two sound ones, in memory of its exact size (for AddressSanitizer)."""
    rng = random.Random(SEED)
    sound = [stored(index) for index in range(4)]
    for position in range(len(sound[1])):
        for value in {0, 1, 0x7F, 0xFF, rng.randrange(256)}:
            spoilt = bytearray(sound[1])
            spoilt[position] = value
            same_as_reference([sound[0] + bytes(spoilt) + sound[2]], 3)


def test_truncated_batches_are_read_like_the_reference():
    whole = b"".join(stored(index) for index in range(3))
    for end in range(len(whole)):
        same_as_reference([whole[:end]], 3)


def test_random_cuts_and_splices_are_read_like_the_reference():
    rng = random.Random(SEED)
    for _ in range(1500):
        parts = [bytearray(stored(index, **rng.choice(CHANGES))) for index in range(rng.randrange(1, 5))]
        for part in parts:
            if rng.random() < 0.5:
                first, size = rng.randrange(len(part)), rng.randrange(20)
                part[first : first + size] = rng.randbytes(rng.choice([size, size, rng.randrange(20)]))
        same_as_reference([b"".join(map(bytes, parts))], rng.randrange(5))


@pytest.mark.parametrize("fields", [22, 23, 24, 25, 60])
def test_documents_with_any_number_of_fields(fields):
    """A document may have more values of fixed size than a layout remembers."""
    more = {f"extra{number}": float(number) for number in range(fields)}
    filled, rows = decoded([b"".join(stored(index, **more) for index in range(5))], 5)
    assert filled == 5
    assert rows["open"].tolist() == [100 + index / 8 for index in range(5)]


# --- windows in several calls ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(1, 20), st.sets(st.integers(0, 19)))
def test_a_window_in_several_calls_is_the_window_in_one(sizes, limit, missing):
    documents = [stored(index) for index in range(20) if index not in missing]
    batches = []
    for size in sizes:
        batches.append(b"".join(documents[:size]))
        del documents[:size]
    expected, whole = decoded(batches, limit)
    filled, rows = 0, np.zeros(limit, CANDLE_DTYPE)
    for batch in batches:
        filled, rows = decoded([batch], limit, filled, rows)
    assert filled == expected
    assert (rows[:filled] == whole[:filled]).all()


@pytest.mark.parametrize("filled", [-1, 4, 2**62, -(2**62)])
def test_more_or_less_than_the_window_cannot_be_filled(filled):
    with pytest.raises(ValueError, match="target"):
        decoded([stored(0)], 3, filled)


# --- rows and dicts --------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.tuples(st.integers(-(2**53), 2**53), *[st.floats()] * 5), max_size=20)


@given(rows)
def test_dicts_are_the_rows(values):
    columns = np.array(values, CANDLE_DTYPE)
    dicts = to_dicts(columns.view(np.int8))
    assert repr(dicts) == repr([dict(zip(FIELDS, row, strict=True)) for row in columns.tolist()])
    for row in dicts:
        assert [type(value) for value in row.values()] == [int, *[float] * 5]
        row["more"] = row.pop("open")  # an ordinary dict, independent of the others
    assert repr(to_dicts(columns.view(np.int8))) == repr([dict(zip(FIELDS, row, strict=True)) for row in columns.tolist()])


def test_bytes_that_are_no_rows_are_refused():
    for size in (1, 47, 49):
        with pytest.raises(ValueError, match="48"):
            to_dicts(np.zeros(size, np.int8))
        with pytest.raises(ValueError, match="48"):
            are_sound(np.zeros(size, np.int8), MINUTE)
        with pytest.raises(ValueError, match="48"):
            pack_rows(({},), np.zeros(size, np.int8), lambda index, row: (0,) * 6)
    with pytest.raises(ValueError, match="grid"):
        are_sound(np.zeros(48, np.int8), 0)
    assert to_dicts(np.zeros(0, np.int8)) == []
    assert are_sound(np.zeros(0, np.int8), MINUTE)


ODD = [None, True, "1.5", 7, -(2**53), 2**53 + 1, 10**400, math.inf, math.nan, Decimal("1.5"), np.float64(2.5), np.int64(3), [], 1.0]
candle = st.fixed_dictionaries({"timestamp": st.integers(-10, 10).map(lambda minute: minute * MINUTE), **dict.fromkeys(FIELDS[1:], finite)})
odd_candle = st.builds(lambda row, name, value: {**row, name: value}, candle, st.sampled_from(FIELDS), st.sampled_from(ODD))
other_candle = st.one_of(
    candle.map(OrderedDict), candle.map(lambda row: {**row, "more": 1}), st.just({}), st.just(5), candle.map(lambda row: [*row])
)


def plainly(candles):
    """Convert candles to columns, one value at a time."""
    from backtest_kit_mongo.candles import grid_of
    from backtest_kit_mongo.candles.columns import refuse
    from backtest_kit_mongo.candles.conversion import row_values

    columns = np.array([row_values(index, row) for index, row in enumerate(candles)], CANDLE_DTYPE)
    refuse(columns, grid_of("1m"))
    return columns


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(candle, candle, odd_candle, other_candle), max_size=8), st.sampled_from([list, tuple, iter]))
def test_columns_of_dicts_are_those_of_the_plain_reference(candles, form):
    """Values, coercions and the text of the first error are those of the reference."""

    def result(call):
        try:
            return call().tobytes()
        except BacktestKitError as error:
            return type(error), str(error)

    assert result(lambda: to_columns(form(candles), "1m")) == result(lambda: plainly(candles))


def test_a_row_that_changes_while_it_is_looked_at():
    """A key comparison that empties the dict leads to an error or a value, never to freed memory."""

    class Key:
        def __init__(self, row):
            self.row = row

        def __hash__(self):
            return hash("open")

        def __eq__(self, other):
            self.row.clear()
            return False

    row = {"timestamp": START}
    row[Key(row)] = 1.0
    row |= dict.fromkeys(FIELDS[1:], 1.5)
    with pytest.raises((BacktestKitError, RuntimeError)):
        to_columns([row], "1m")


@pytest.mark.parametrize(
    "bad", [("close", math.nan), ("volume", -math.inf), ("timestamp", 1), ("timestamp", 2**53 // MINUTE * MINUTE + MINUTE)]
)
def test_soundness(bad):
    columns = np.zeros(3, CANDLE_DTYPE)
    assert are_sound(columns.view(np.int8), MINUTE)
    columns[bad[0]][2] = bad[1]
    assert not are_sound(columns.view(np.int8), MINUTE)


def test_errors_of_an_unusual_row_pass_through():
    def refuse(index, row):
        raise KeyError(index)

    with pytest.raises(KeyError, match="1"):
        pack_rows(({**dict.fromkeys(FIELDS, 1.5), "timestamp": 0}, {}), np.zeros(96, np.int8), refuse)
    for wrong in ((1, 2), (1, 2, 3, 4, 5, "x"), None):
        with pytest.raises((TypeError, ValueError)):
            pack_rows(({},), np.zeros(48, np.int8), lambda index, row, wrong=wrong: wrong)
