"""Candles in memory have a lifetime, which counts from before they were read."""

from __future__ import annotations

import time

import numpy as np
import pytest
from waiting import wait_for

from backtest_kit_mongo._core.blocks import CandleBlocks
from backtest_kit_mongo._core.counters import Counters
from backtest_kit_mongo.candles import CANDLE_DTYPE

pytestmark = pytest.mark.once

MINUTE = 60_000
SERIES = ("binance", "BTCUSDT", "1m")
HOUR = 3600.0


def columns(first, count, close=0.0):
    rows = np.zeros(count, CANDLE_DTYPE)
    rows["timestamp"] = np.arange(first, first + count) * MINUTE
    rows["close"] = close
    return rows


def memory():
    return CandleBlocks(1 << 20, Counters(), (0, 1, 2), HOUR)


def ago(seconds):
    return time.monotonic_ns() - int(seconds * 1e9)


def keep(kept, first, count, close=0.0, seconds=0.0):
    kept.keep(SERIES, MINUTE, columns(first, count, close), -1, ago(seconds))


def closes(kept, first, count):
    candles_read = kept.array(SERIES, count, first * MINUTE)
    return None if candles_read is None else candles_read["close"].tolist()


def test_a_candle_is_used_until_its_time_is_over():
    for seconds, is_there in ((0, True), (HOUR - 60, True), (HOUR, False), (2 * HOUR, False)):
        kept = memory()
        keep(kept, 0, 10, seconds=seconds)
        assert (kept.array(SERIES, 5, 0) is not None) == is_there
        assert (kept.rows(SERIES, 5, 0, None) is not None) == is_there
        assert (kept.head(SERIES, 20, 0) is not None) == is_there


def test_merged_candles_are_as_old_as_the_oldest():
    kept = memory()
    earliest = time.monotonic() + 3
    keep(kept, 0, 10, seconds=HOUR - 3)
    latest = time.monotonic() + 3
    keep(kept, 10, 10)
    if closes(kept, 0, 20) is None:  # on a machine that was busy for seconds
        assert time.monotonic() >= earliest
    assert wait_for(lambda: time.monotonic() > latest)
    assert closes(kept, 0, 20) is closes(kept, 15, 5) is None


def test_what_has_expired_gives_way_to_what_is_read_again():
    """It is not merged, which would make the new candles old, and never wins over them."""
    kept = memory()
    keep(kept, 0, 100, close=1.0, seconds=2 * HOUR)
    keep(kept, 20, 10, close=2.0)
    assert closes(kept, 20, 10) == [2.0] * 10
    assert closes(kept, 19, 1) is closes(kept, 30, 1) is None
    keep(kept, 30, 10, close=3.0)
    assert closes(kept, 20, 20) == [2.0] * 10 + [3.0] * 10
    assert kept.nbytes == 20 * 48 + 1024


def test_a_part_that_another_block_cuts_off_keeps_its_age():
    """Blocks too large to merge lose the overlap; what is left of them does not live longer."""
    kept = CandleBlocks(64 << 20, Counters(), (0, 1, 2), HOUR)
    long = 1 << 18
    keep(kept, 0, long, close=1.0, seconds=HOUR - 3)
    latest = time.monotonic() + 3
    keep(kept, long - 10, 20, close=2.0)
    assert closes(kept, long, 1) == [2.0]
    assert wait_for(lambda: time.monotonic() > latest)
    assert closes(kept, 0, 10) is None
    assert closes(kept, long - 10, 20) == [2.0] * 20


def test_without_a_lifetime_nothing_expires():
    kept = CandleBlocks(1 << 20, Counters(), (0, 1, 2))
    kept.keep(SERIES, MINUTE, columns(0, 10), -1, 1)
    assert closes(kept, 0, 10) == [0.0] * 10
