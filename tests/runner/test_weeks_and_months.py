"""Runs with candles of 12h, 3d, 1w and 1M: what a strategy sees of them, and where such intervals have no place."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import numpy as np
import pytest
from facade_runs import a_run, at
from hand_market import MINUTE, memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE, grid_of, to_dicts
from backtest_kit_mongo.errors import InvalidValueError
from backtest_kit_mongo.runner import (
    StrategyError,
    add_file_exchange,
    add_strategy,
    clear_strategies,
    get_candles,
    get_raw_candles,
    import_candles,
    imported_spans,
    read_candle_files,
    run_backtest,
    synthetic_market,
)
from backtest_kit_mongo.runner.facades import Interval, Measure
from backtest_kit_mongo.runner.market.exchange import ExchangeError, add_exchange, fetch_missing

pytestmark = pytest.mark.once

DAY = 1440 * MINUTE


def ms(text):
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


FIRST = ms("2024-01-29")  # a Monday
MARKET = synthetic_market(7, 36 * 1440, FIRST)  # to 2024-03-05


def months(first, count):
    rows = np.zeros(count, CANDLE_DTYPE)
    rows["timestamp"] = [*grid_of("1M").window(ms(first), count)]
    for name in ("open", "high", "low", "close", "volume"):
        rows[name] = 100 + np.arange(count)
    return rows


def seen_at(time, ask):
    """Return what ``ask()`` returns to a strategy at a time."""
    answers = []

    def get_signal(symbol, when):
        if when.timestamp() * 1000 == ms(time):
            answers.append(ask())

    clear_strategies()
    add_strategy("ask", interval="1m", get_signal=get_signal)
    run_backtest("BTCUSDT", start_ms=ms(time) - 10 * MINUTE, end_ms=ms(time) + MINUTE)
    return answers[0]


def merged(interval, first, count):
    """Return candles made from MARKET in the plainest way."""
    edges = [*grid_of(interval).window(ms(first), count + 1)]
    result = []
    for since, until in pairwise(edges):
        rows = MARKET[(MARKET["timestamp"] >= since) & (MARKET["timestamp"] < until)]
        assert len(rows) == (until - since) // MINUTE
        result.append(
            {
                "timestamp": since,
                "open": rows["open"][0],
                "high": rows["high"].max(),
                "low": rows["low"].min(),
                "close": rows["close"][-1],
                "volume": sum(rows["volume"].tolist()),
            }
        )
    return result


@pytest.mark.parametrize(
    ("interval", "time", "first", "count"),
    [
        ("12h", "2024-03-04T11:59", "2024-03-03T00:00", 2),
        ("12h", "2024-03-04T12:00", "2024-03-03T12:00", 2),
        ("3d", "2024-03-03T23:59", "2024-02-27T00:00", 1),
        ("3d", "2024-03-04T00:00", "2024-02-27T00:00", 2),
        ("1w", "2024-03-03T23:59", "2024-02-05T00:00", 3),
        ("1w", "2024-03-04T00:00", "2024-01-29T00:00", 5),
        ("1M", "2024-03-01T00:00", "2024-02-01T00:00", 1),
        ("1M", "2024-03-04T00:00", "2024-02-01T00:00", 1),
    ],
)
def test_what_is_not_stored_is_joined_from_minutes(interval, time, first, count):
    kit.PersistCandleAdapter.write_candles_data(MARKET, "BTCUSDT", "1m", "binance")
    expected = merged(interval, first, count)
    assert seen_at(time, lambda: get_candles("BTCUSDT", interval, count)) == expected
    assert seen_at(time, lambda: get_raw_candles("BTCUSDT", interval, count)) == expected
    assert to_dicts(seen_at(time, lambda: get_candles("BTCUSDT", interval, count, as_array=True))) == expected


def test_the_current_month_has_not_closed():
    kit.PersistCandleAdapter.write_candles_data(MARKET, "BTCUSDT", "1m", "binance")
    assert seen_at("2024-02-29T23:59", lambda: get_candles("BTCUSDT", "1M", 3)) == []
    kit.PersistCandleAdapter.write_candles_data(months("2023-11-01", 6), "BTCUSDT", "1M", "binance")
    for time, closes in (("2024-02-29T23:59", [100.0, 101.0, 102.0]), ("2024-03-01T00:00", [101.0, 102.0, 103.0])):
        assert [candle["close"] for candle in seen_at(time, lambda: get_candles("BTCUSDT", "1M", 3))] == closes
        assert len(seen_at(time, lambda: get_candles("BTCUSDT", "1M", 12))) == 3 + (time >= "2024-03")


def test_a_window_of_months():
    kit.PersistCandleAdapter.write_candles_data(MARKET, "BTCUSDT", "1m", "binance")
    kit.PersistCandleAdapter.write_candles_data(np.delete(months("2023-09-01", 6), 1), "BTCUSDT", "1M", "binance")

    def window(**given):
        return seen_at("2024-03-02T00:00", lambda: [candle["close"] for candle in get_raw_candles("BTCUSDT", "1M", **given)])

    assert window(limit=2, end=ms("2024-02-15")) == [103.0, 104.0]
    assert window(start=ms("2023-12-31T23:59"), end=ms("2024-03-01")) == [103.0, 104.0, 105.0]
    assert window(start=ms("2023-11-30"), limit=2) == [102.0, 103.0]
    with pytest.raises(StrategyError, match=r"LookAheadError: .* ends at 2024-04-01T00:00:00Z"):
        window(start=ms("2024-01-01"), limit=3)
    with pytest.raises(StrategyError, match="the 1M candle of BTCUSDT on binance at 2023-10-01T00:00:00Z is not stored"):
        window(start=ms("2023-09-01"), limit=4)
    assert seen_at("2024-03-02T00:00", lambda: len(get_candles("BTCUSDT", "1M", 12))) == 4  # from the gap on


# --- exchanges and files ---


class Source:
    """An exchange over an array."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def __call__(self, symbol, interval, since, limit):
        self.asked.append((interval, since, limit))
        first = int(np.searchsorted(self.rows["timestamp"], since))
        return self.rows[first : first + limit]


def test_missing_months_are_fetched_and_nothing_else():
    rows = months("2019-01-01", 63)
    source = Source(np.delete(rows, 30))  # the exchange has no candle of 2021-07
    add_exchange("x", get_candles=source)
    import_candles(rows[10:20], "BTCUSDT", "1M", "x")
    done = []
    window = ms("2019-01-01"), ms("2024-04-01")
    assert fetch_missing("BTCUSDT", "1M", "x", *window, now_ms=ms("2024-03-15"), progress=lambda *at: done.append(at)) == 62 - 1 - 10
    assert source.asked[0] == ("1M", ms("2019-01-01"), 62)  # one request; the current month is not asked for
    assert done[-1] == (62, 62)
    assert imported_spans("BTCUSDT", "1M", "x") == ((ms("2019-01-01"), ms("2021-07-01")), (ms("2021-08-01"), ms("2024-03-01")))
    assert fetch_missing("BTCUSDT", "1M", "x", *window, now_ms=ms("2024-03-15")) == 0
    with pytest.raises(InvalidValueError, match=r"since_ms is \d+ \(2024-01-02T00:00:00Z\), which is not the first of a month, 00:00 UTC"):
        fetch_missing("BTCUSDT", "1M", "x", ms("2024-01-02"), ms("2024-03-01"))
    with pytest.raises(InvalidValueError, match=r"until_ms is .*, which is not a Monday, 00:00 UTC"):
        fetch_missing("BTCUSDT", "1w", "x", ms("2024-01-01"), ms("2024-01-04"))


def test_an_exchange_whose_weeks_begin_on_another_day_is_refused():
    rows = months("2024-01-01", 3)
    rows["timestamp"] = ms("2024-01-04") + 7 * DAY * np.arange(3)  # Thursdays, as multiples of a week since 1970 are
    add_exchange("x", get_candles=lambda symbol, interval, since, limit: rows)
    with pytest.raises(ExchangeError, match="is off the 1w grid"):
        fetch_missing("BTCUSDT", "1w", "x", ms("2024-01-01"), ms("2024-02-05"))


def write_file(path, rows):
    lines = [",".join(map(str, row)) for row in rows.tolist()]
    path.write_text("\n".join(["open_time,open,high,low,close,volume", *lines]) + "\n")


@pytest.mark.parametrize("name", ["BTCUSDT-1M.csv", "BTCUSDT-1mo-2023-11.csv"])
def test_the_name_of_a_file_says_months(tmp_path, name):
    write_file(tmp_path / name, months("2023-11-01", 5))
    write_file(tmp_path / "BTCUSDT-1m.csv", MARKET[:5])
    read = read_candle_files(tmp_path / name)
    assert (read.symbol, read.interval, len(read.candles)) == ("BTCUSDT", "1M", 5)
    add_file_exchange("x", tmp_path)
    assert fetch_missing("BTCUSDT", "1M", "x", ms("2023-11-01"), ms("2024-04-01")) == 5
    assert fetch_missing("BTCUSDT", "1m", "x", FIRST, FIRST + 5 * MINUTE) == 5


@pytest.mark.parametrize("interval", ["12h", "3d", "1w", "1M"])
def test_candles_of_a_longer_interval_are_not_taken_for_days_or_minutes(tmp_path, interval):
    rows = months("2023-01-01", 12)
    rows["timestamp"] = [*grid_of(interval).window(ms("2023-01-01"), 12)]
    write_file(tmp_path / "candles.csv", rows)
    with pytest.raises(InvalidValueError, match=f"no two candles are closer than {interval}, so their interval is probably not 1m"):
        read_candle_files(tmp_path / "candles.csv")
    assert f"no two candles are closer than {interval}" in read_candle_files(tmp_path / "candles.csv", interval="1m").notes[0]
    assert read_candle_files(tmp_path / "candles.csv", interval=interval).candles.tobytes() == rows.tobytes()
    rows["timestamp"] += 1000
    write_file(tmp_path / "candles.csv", rows)
    assert len(read_candle_files(tmp_path / "candles.csv", interval=interval, off_grid="snap").candles) == 12


# --- functions by interval ---

TIMES = ["2024-01-31T23:59", "2024-02-01T00:00", "2024-02-04T23:59", "2024-02-05T00:00", "2024-02-29T23:59", "2024-03-01T00:00"]


@pytest.mark.parametrize(("interval", "fresh"), [("1M", [0, 1, 5]), ("1w", [0, 3, 4]), ("3d", [0, 2, 4, 5]), ("12h", [0, 1, 2, 3, 4, 5])])
def test_once_and_kept_answers_follow_the_calendar(interval, fresh):
    """2024-01-29 and 2024-02-26 are Mondays; candles of three days open on 2024-01-31, 02-03, 02-27 and 03-01."""
    calls = []
    once = Interval.once(interval, bucket="once")(lambda: True)
    ask = Measure.cached(interval, bucket="kept")(lambda: calls.append(time) or time)
    fired = []
    for index, time in enumerate(TIMES):
        with at(a_run(), ms(time)):
            if once():
                fired.append(index)
            ask()
    assert fired == fresh
    assert calls == [TIMES[index] for index in fresh]


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_no_strategy_is_asked_by_weeks_or_months(interval):
    with pytest.raises(InvalidValueError, match=f"interval '{interval}' cannot be used here") as error:
        add_strategy("x", interval=interval, get_signal=lambda symbol, when: None)
    assert "1d" in str(error.value)


def test_a_strategy_is_asked_twice_a_day():
    kit.PersistCandleAdapter.write_candles_data(MARKET, "BTCUSDT", "1m", "binance")
    asked = []
    add_strategy("x", interval="12h", get_signal=lambda symbol, when: asked.append(int(when.timestamp() * 1000)))
    run_backtest("BTCUSDT", start_ms=ms("2024-02-01T00:01"), end_ms=ms("2024-02-02T00:01"))
    assert asked == [ms("2024-02-01T12:00"), ms("2024-02-02T00:00")]


@pytest.mark.parametrize("where", ["mongo", "archive", "memory"])
def test_months_that_were_wrong_are_replaced(mongo, tmp_path, where):
    kit.setup(mongo, **({"CC_CANDLE_FORMAT": "packed"} if where == "archive" else {}), stores={"candle": where.replace("archive", "mongo")})
    wrong, right = months("2023-01-01", 14), months("2023-01-01", 14)
    wrong["close"][3] += 0.5
    wrong["high"][3] += 0.5
    import_candles(wrong, "BTCUSDT", "1M")
    report = import_candles(right, "BTCUSDT", "1M", replace=True, dry_run=True)
    assert (report.new, report.replaced) == (0, 1)
    assert report.conflicts[0].stored == {"high": 103.5, "close": 103.5}
    assert import_candles(right, "BTCUSDT", "1M", replace=True).replaced == 1
    stored = kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1M", "binance", 14, ms("2023-01-01"))
    assert (stored == right).all()
    assert import_candles(right, "BTCUSDT", "1M", replace=True).replaced == 0
