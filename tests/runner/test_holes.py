"""Holes between stored candles: refused, or filled with flat candles that exist for the run only."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo.errors import InvalidValueError
from backtest_kit_mongo.runner import (
    RunOptions,
    add_strategy,
    clear_strategies,
    get_average_price,
    get_candles,
    import_candles,
    imported_spans,
    result_json,
    run_backtest,
    run_backtests,
    synthetic_market,
)
from backtest_kit_mongo.runner.market.holes import FilledHoles, Holes

pytestmark = pytest.mark.once

MARKET = synthetic_market(5, 12_000, START)
END = START + 12_000 * MINUTE
GONE = [*range(100, 103), 4000, *range(7000, 9000)]  # three holes; the last is wider than a block
HOLED = np.delete(MARKET, GONE)


@pytest.fixture(autouse=True)
def nothing_registered():
    yield
    clear_strategies()


def filled_market(holed):
    """Fill the holes one candle at a time."""
    rows = []
    by_time = {row[0]: row for row in holed.tolist()}
    for stamp in range(START, int(holed["timestamp"][-1]) + MINUTE, MINUTE):
        close = rows[-1][4] if rows else None
        rows.append(by_time.get(stamp) or (stamp, close, close, close, close, 0.0))
    return rows


@pytest.mark.parametrize("where", ["mongo", "file", "memory", "archive"])
def test_a_run_across_holes_sees_flat_candles_that_are_not_stored(where, mongo, tmp_path):
    if where == "archive":
        kit.setup(mongo, CC_CANDLE_FORMAT="packed")
    else:
        kit.setup(mongo, CC_DUMP_DIR=str(tmp_path), stores={"candle": where})
    holed = HOLED[:1200] if where == "file" else HOLED  # a folder has a file for each candle
    import_candles(holed, "BTCUSDT")
    expected = filled_market(holed)
    end = START + len(expected) * MINUTE
    seen = {}

    @add_strategy("s", "5m")
    def signal(symbol, when):
        now = int(when.timestamp() * 1000)
        seen[now] = [tuple(row.values()) for row in get_candles(symbol, "1m", 6)]
        assert get_average_price(symbol) > 0
        assert get_candles(symbol, "1m", 6, as_array=True).tolist() == seen[now]
        assert get_candles(symbol, "15m", 2, as_array=True).tolist() == [tuple(row.values()) for row in get_candles(symbol, "15m", 2)]
        for row in get_candles(symbol, "15m", 2):
            assert row["low"] <= row["close"] <= row["high"]

    with pytest.raises(InvalidValueError, match=r"have gaps .* cannot skip one(.|\n)*holes=\"fill\" \(--holes fill\)"):
        run_backtest("BTCUSDT", "s")
    with pytest.raises(InvalidValueError, match=r"2023-03-01T01:40:00Z is not stored(.|\n)*--holes fill"):
        run_backtest("BTCUSDT", "s", start_ms=START, end_ms=end)
    result = run_backtest("BTCUSDT", "s", holes="fill")
    assert (result.start_ms, result.end_ms, result.minutes) == (START, end, len(expected))
    holes = Holes(1, 3) if where == "file" else Holes(3, len(GONE))
    assert (result.holes, result.filled_candles) == holes
    for now, rows in seen.items():
        position = (now - START) // MINUTE
        assert rows == expected[max(position - 6, 0) : position]
    assert len(seen) == (len(expected) - 1) // 5
    stored = imported_spans("BTCUSDT")
    assert sum(until - since for since, until in stored) == len(holed) * MINUTE
    assert FilledHoles("binance").count("BTCUSDT", START, end) == holes


def test_holes_are_filled_only_between_candles(mongo):
    """Before the first and after the last stored candle nothing is made up."""
    import_candles(HOLED[1000:5000], "BTCUSDT")
    first, last = int(HOLED["timestamp"][1000]), int(HOLED["timestamp"][4999])
    add_strategy("s", "5m", get_signal=lambda symbol, when: None)
    for start, end, missing in ((first - 10 * MINUTE, last, first - 10 * MINUTE), (first, last + 10 * MINUTE, last + MINUTE)):
        with pytest.raises(InvalidValueError, match="is not stored") as caught:
            run_backtest("BTCUSDT", "s", start_ms=start, end_ms=end, holes="fill")
        assert f"{np.datetime64(missing, 'ms').astype('datetime64[s]')}Z" in str(caught.value)
    # A window in the middle of a hole takes the close before it.
    begin, prices = int(MARKET["timestamp"][7500]) - int(MARKET["timestamp"][0]) + START, []
    import_candles(HOLED[5000:], "BTCUSDT")
    clear_strategies()
    add_strategy("s", "1m", get_signal=lambda symbol, when: prices.append(get_average_price(symbol)))
    result = run_backtest("BTCUSDT", "s", start_ms=begin, end_ms=begin + 60 * MINUTE, holes="fill")
    assert set(prices) == {float(MARKET["close"][6999])}
    assert (result.holes, result.filled_candles) == (1, 60)


def test_side_by_side_and_as_json(mongo):
    import_candles(HOLED[:1000], "A")
    import_candles(MARKET[:1000], "B")
    add_strategy("s", "5m", get_signal=lambda symbol, when: None)
    results, failed = run_backtests(["A", "B"], holes="fill")
    assert not failed
    assert [(run.holes, run.filled_candles) for run in results] == [(1, 3), (0, 0)]
    assert [(run["holes"], run["filledCandles"]) for run in json.loads(result_json(results))["runs"]] == [(1, 3), (0, 0)]
    with pytest.raises(InvalidValueError, match="holes is 'skip'; it must be 'stop' or 'fill'"):
        RunOptions(holes="skip")
