"""The grids of intervals: which times they hold, against the calendar of the standard library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit_mongo.candles import GRIDS, INTERVAL_MS, grid_of, interval_ms
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError

pytestmark = pytest.mark.once

DAY = 86_400_000
FAR = 2**53


def ms(text):
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def test_the_intervals():
    assert list(GRIDS) == ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
    assert list(INTERVAL_MS) == list(GRIDS)[:12]
    assert (interval_ms("12h"), interval_ms("1d")) == (DAY // 2, DAY)


@pytest.mark.parametrize(
    ("interval", "time", "opens", "closes"),
    [
        ("12h", "2024-02-29T11:59", "2024-02-29T00:00", "2024-02-29T12:00"),
        ("3d", "2017-08-19T23:59", "2017-08-17T00:00", "2017-08-20T00:00"),  # the first candles of BTCUSDT on Binance
        ("3d", "2024-01-01T00:00", "2024-01-01T00:00", "2024-01-04T00:00"),
        ("3d", "2025-01-03T23:59", "2025-01-01T00:00", "2025-01-04T00:00"),
        ("1w", "2024-01-01T00:00", "2024-01-01T00:00", "2024-01-08T00:00"),  # a Monday
        ("1w", "2023-12-31T23:59", "2023-12-25T00:00", "2024-01-01T00:00"),
        ("1w", "1970-01-01T00:00", "1969-12-29T00:00", "1970-01-05T00:00"),
        ("1M", "2023-12-31T23:59", "2023-12-01T00:00", "2024-01-01T00:00"),
        ("1M", "2024-02-29T23:59", "2024-02-01T00:00", "2024-03-01T00:00"),  # a leap year
        ("1M", "2100-02-28T23:59", "2100-02-01T00:00", "2100-03-01T00:00"),  # none
        ("1M", "1969-12-31T23:59", "1969-12-01T00:00", "1970-01-01T00:00"),
    ],
)
def test_a_candle_opens_and_closes(interval, time, opens, closes):
    grid, stamp = grid_of(interval), ms(time)
    assert (grid.align(stamp), grid.after(stamp), grid.ceil(ms(opens)), grid.ceil(ms(opens) + 1)) == (
        ms(opens),
        ms(closes),
        ms(opens),
        ms(closes),
    )
    assert grid.closes(ms(opens)) == ms(closes)
    assert grid.closed_until(ms(closes)) >= ms(opens) > grid.closed_until(ms(closes) - 1)
    assert (grid.is_on(ms(opens)), grid.is_on(ms(opens) + 1), grid.is_on(ms(opens) - 1)) == (True, False, False)


def test_months_have_their_lengths():
    edges = [*grid_of("1M").window(ms("2023-12-15"), 5)]
    assert [(after - before) // DAY for before, after in pairwise(edges)] == [31, 31, 29, 31]
    assert grid_of("1M").count(ms("2020-01-01"), ms("2025-01-01")) == 60
    assert grid_of("1M").after(ms("2024-03-31"), -1) == ms("2024-02-01")


def test_months_against_the_calendar():
    grid, day = grid_of("1M"), datetime(1895, 1, 1, tzinfo=UTC)
    while day.year < 2110:
        stamp = int(day.timestamp()) * 1000
        assert grid.position(stamp) == grid.position(stamp + DAY - 1) == (day.year - 1970) * 12 + day.month - 1
        assert grid.align(stamp) == int(day.replace(day=1).timestamp()) * 1000
        day += timedelta(days=1)


@given(st.sampled_from(list(GRIDS)), st.lists(st.integers(-FAR, FAR), min_size=1), st.integers(-50, 50))
def test_one_time_and_many_have_the_same_grid(interval, times, count):
    grid, stamps = grid_of(interval), np.array(times, np.int64)
    assert grid.positions(stamps).tolist() == [grid.position(time) for time in times]
    assert (stamps - grid.past(stamps)).tolist() == [grid.align(time) for time in times]
    for time in times:
        opens = grid.align(time)
        assert opens <= time < grid.after(time) <= opens + grid.longest
        assert grid.opens(grid.position(opens)) == opens
        assert grid.count(time, grid.after(time, count)) == count
        assert grid.stamps(time, grid.after(time, abs(count))).tolist() == [*grid.window(time, abs(count))]


def test_what_is_not_an_interval():
    for wrong in ("1mo", "1W", "7m", "", "12H", "3D"):
        with pytest.raises(InvalidValueError, match=f"unknown interval '{wrong}'"):
            grid_of(wrong)
    with pytest.raises(InvalidTypeError, match="interval must be a str, got int"):
        grid_of(5)


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_no_length_is_given_for_candles_that_do_not_open_at_its_multiples(interval):
    with pytest.raises(InvalidValueError, match=f"interval '{interval}' cannot be used here"):
        interval_ms(interval)
