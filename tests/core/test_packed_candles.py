"""The packed form of candles: every value comes back bit for bit, and malformed bytes are an error that touches nothing else."""

from __future__ import annotations

import os
import random
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest_kit_mongo._core import packed
from backtest_kit_mongo.candles import CANDLE_DTYPE, PRICES

pytestmark = pytest.mark.once

STEP = 60_000
SEED = int(os.environ.get("BTKM_FUZZ_SEED", "20261129"))


def candles(*rows, since=0):
    """Return an array of candles from rows of open, high, low, close, volume."""
    columns = np.zeros(len(rows), CANDLE_DTYPE)
    columns["timestamp"] = since + np.arange(len(rows)) * STEP
    for name, values in zip(PRICES, zip(*rows, strict=True), strict=True):
        columns[name] = values
    return columns


def market(count, seed=1, digits=2):
    """Return a random walk whose prices have ``digits`` decimals."""
    rng = np.random.default_rng(seed)
    close = np.round(20_000 + np.cumsum(rng.normal(0, 5, count)), digits)
    open_ = np.round(np.concatenate([[20_000.0], close[:-1]]), digits)
    high = np.round(np.maximum(open_, close) + rng.exponential(3, count), digits)
    low = np.round(np.minimum(open_, close) - rng.exponential(3, count), digits)
    return candles(*zip(open_, high, low, close, np.round(rng.exponential(9, count), 6), strict=True))


def packed_bytes(columns):
    return packed.pack(columns.view(np.int8), int(columns["timestamp"][0]), STEP)


def unpacked(data, count, first=0):
    """Return the candles of ``data``; raise ValueError with what is wrong with it."""
    target = np.full(count, -1, CANDLE_DTYPE)
    (problem,) = packed.unpack([(data, first, count, 0, first * STEP)], target.view(np.int8), STEP)
    if problem is not None:
        raise ValueError(problem)
    return target


def assert_same(columns):
    assert unpacked(packed_bytes(columns), len(columns)).tobytes() == columns.tobytes()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 65_536])
def test_any_number_of_candles(count):
    assert_same(market(count))


@pytest.mark.parametrize("digits", range(13))
def test_prices_with_any_number_of_decimals(digits):
    assert_same(market(300, digits=digits))


DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
DECIMALS = st.decimals(-(10**9), 10**9, places=8).map(float) | st.integers(-(2**53), 2**53).map(float)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(*[DOUBLES | DECIMALS] * 5), min_size=1, max_size=130))
def test_any_doubles(rows):
    """Decimal or not, huge, subnormal or minus zero: the bits are the same."""
    assert_same(candles(*rows))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[DECIMALS] * 5), min_size=1, max_size=130))
def test_any_decimals(rows):
    """A high below the low, and jumps over the whole range, are packed as they are."""
    assert_same(candles(*rows))


@pytest.mark.parametrize(
    "value", [-0.0, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 2.0**51, 2.0**53 + 2, -1e15, 1e-15, 123456789.123456789]
)
@pytest.mark.parametrize("column", range(5))
def test_one_unusual_value(value, column):
    """It changes how its column is stored, and nothing else."""
    columns = market(200)
    columns[PRICES[column]][77] = value
    assert_same(columns)


@pytest.mark.parametrize("digits", range(16))
def test_values_of_both_signs_and_any_size(digits):
    """The differences between prices, too, must fit: a high above and a low below zero, at the limit of exact integers."""
    rng = np.random.default_rng(digits)
    for scale in (2.0**49, 2.0**50, 2.0**51, 2.0**52):
        values = np.round(rng.uniform(-scale, scale, (200, 5)) / 10.0**digits, digits)
        values[::7] = -values[1::7][: len(values[::7])]
        assert_same(candles(*values))


def test_a_spread():
    """A body and a wick of opposite signs."""
    assert_same(candles(*[(-1.234567890123457, 1.234567890123456, -1.234567890123457, -1.234567890123457, 1.0)] * 64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("column", range(5))
def test_a_value_that_is_not_finite_is_not_packed(value, column):
    columns = market(100)
    columns[PRICES[column]][50] = value
    with pytest.raises(ValueError, match="not finite"):
        packed_bytes(columns)


def test_other_timestamps_are_not_packed():
    columns = market(100)
    columns["timestamp"][50] += 1
    with pytest.raises(ValueError, match="not consecutive"):
        packed_bytes(columns)


def test_decimal_prices_are_small():
    """A minute of a market with two decimals takes at most 12 bytes, and one with full doubles no more than 40 and the widths."""
    assert len(packed_bytes(market(4096))) < 12 * 4096
    rng = np.random.default_rng(2)
    full = candles(*rng.normal(size=(4096, 5)))
    assert 40 * 4096 <= len(packed_bytes(full)) <= 40 * 4096 + 400
    assert_same(full)


def test_any_part_of_the_candles():
    rng = random.Random(SEED)
    columns = market(1000)
    data = packed_bytes(columns)
    for _ in range(300):
        first = rng.randrange(1000)
        count = rng.randrange(1001 - first)
        assert unpacked(data, count, first).tobytes() == columns[first : first + count].tobytes()


def test_parts_go_to_their_rows_and_a_bad_one_leaves_the_others():
    columns = market(300)
    data = packed_bytes(columns)
    target = np.full(500, -1, CANDLE_DTYPE)
    before = target.copy()
    parts = [(data, 0, 100, 10, 0), (data[:-1], 0, 100, 200, 0), (data, 250, 50, 400, 250 * STEP), (data, 250, 51, 300, 0)]
    problems = packed.unpack(parts, target.view(np.int8), STEP)
    assert [problem is None for problem in problems] == [True, False, True, False]
    assert "groups need" in problems[1]
    assert problems[3] == "it has 300 candles, fewer than 250 + 51"
    assert (target[10:110] == columns[:100]).all()
    assert (target[400:450] == columns[250:]).all()
    for rows in (slice(0, 10), slice(110, 400), slice(450, 500)):
        assert (target[rows] == before[rows]).all()


@pytest.mark.parametrize(
    ("first", "count", "row"), [(0, 11, 0), (0, 10, 1), (-1, 5, 0), (0, -1, 0), (0, 1, -1), (0, 1, 2**63 - 1), (0, 2**63 - 1, 1)]
)
def test_rows_outside_of_the_target(first, count, row):
    data, target = packed_bytes(market(100)), np.zeros(10, CANDLE_DTYPE)
    with pytest.raises(ValueError, match="cannot write"):
        packed.unpack([(data, first, count, row, 0)], target.view(np.int8), STEP)


@pytest.mark.parametrize("bad", [b"", b"\0" * 23, b"\0" * 24, b"\xff" * 400])
def test_bytes_that_are_no_candles(bad):
    with pytest.raises(ValueError, match=r"too few|claims|unknown"):
        unpacked(bad, 1)


def test_a_value_that_is_not_finite():
    data = bytearray(packed_bytes(candles(*np.random.default_rng(3).normal(size=(64, 5)))))
    bits = struct.pack("<d", float("inf"))
    data[16 + 5 : 16 + 5 + 8] = bits  # the first close
    with pytest.raises(ValueError, match="not finite"):
        unpacked(bytes(data), 64)


def test_every_truncated_length():
    data = packed_bytes(market(130))
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"few|groups need"):
            unpacked(data[:size], 130)
    with pytest.raises(ValueError, match="groups need"):
        unpacked(data + b"\0", 130)


def test_hostile_bytes_never_write_outside():
    """Whatever is changed, the rows beside the part keep their values, and the values are finite or an error."""
    rng = random.Random(SEED)
    for digits in (2, 14):
        data = packed_bytes(market(130, digits=digits))
        for _ in range(3000):
            hostile = bytearray(data)
            for _ in range(rng.randrange(1, 6)):
                hostile[rng.randrange(min(len(data), rng.choice((40, len(data)))))] = rng.randrange(256)
            target = np.full(150, 7, CANDLE_DTYPE)
            (problem,) = packed.unpack([(bytes(hostile), 0, 130, 10, 0)], target.view(np.int8), STEP)
            assert (target[:10] == np.full(10, 7, CANDLE_DTYPE)).all()
            assert (target[140:] == np.full(10, 7, CANDLE_DTYPE)).all()
            if problem is None:
                assert all(np.isfinite(target[name]).all() for name in PRICES)


@pytest.mark.parametrize("rows", [b"", b"\0" * 47, b"\0" * 49])
def test_rows_that_are_no_rows(rows):
    with pytest.raises(ValueError, match="rows of 48 bytes"):
        packed.pack(np.frombuffer(rows, np.int8), 0, STEP)


@pytest.mark.parametrize("part", [(None, 0, 1, 0, 0), ("text", 0, 1, 0, 0), [b"", 0, 1, 0, 0], None])
def test_parts_of_other_types(part):
    with pytest.raises(TypeError):
        packed.unpack([part], np.zeros(10, CANDLE_DTYPE).view(np.int8), STEP)


def test_many_threads():
    """Packing and unpacking keep no state between calls."""
    blocks = [market(700, seed) for seed in range(4)]
    errors = []

    def work(columns):
        try:
            for _ in range(60):
                assert_same(columns)
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(columns,)) for columns in blocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
