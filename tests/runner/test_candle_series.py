"""A run uses the candles of its file: imports that contradict stored candles, the list of stored series, and their removal."""

import numpy as np
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, PersistCandleAdapter, PersistCandleInstance
from backtest_kit_mongo.candles import matches
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import (
    CandleConflictError,
    import_candles,
    imported_spans,
    list_candles,
    remove_candles,
    synthetic_market,
)

MINUTE, START = 60_000, 1_677_628_800_000
END = START + 500 * MINUTE
SERIES = ("BTCUSDT", "1m", "csv")


def market(minutes=500):
    return synthetic_market(1, 2_000, START)[:minutes].copy()


def stored(since=START, until=END):
    count = (until - since) // MINUTE
    return PersistCandleAdapter.read_candles_array(*SERIES, count, since)


def test_equal_candles_can_be_imported_again(store):
    import_candles(market(), *SERIES)
    report = import_candles(market(700), *SERIES)
    assert report.candles == 700
    assert (stored(until=START + 700 * MINUTE) == market(700)).all()


def test_other_values_are_refused_before_anything_is_written(store):
    import_candles(market(), *SERIES)
    other = market(700)
    other["close"][[3, 40, 41, 499]] += 0.25
    other["high"][[3, 40, 41, 499]] += 0.25
    other["low"][[3, 40, 41, 499]] -= 0.25
    with pytest.raises(CandleConflictError) as caught:
        import_candles(other, *SERIES)
    error = caught.value
    assert isinstance(error, ValueError)
    assert isinstance(error, kit.BacktestKitError)
    assert str(error).startswith("4 of 700 candles of BTCUSDT 1m are stored on 'csv' with other values:")
    assert "2023-03-01T00:03:00Z stored: high" in str(error)
    assert "and 1 more" in str(error)
    assert "candles remove BTCUSDT --interval 1m --exchange csv" in str(error)
    first, second, third = error.conflicts
    assert [first.timestamp, second.timestamp, third.timestamp] == [START + minute * MINUTE for minute in (3, 40, 41)]
    assert set(first.stored) == {"high", "low", "close"}
    assert first.stored["close"] == market()["close"][3] == first.given["close"] - 0.25
    assert (stored() == market()).all()
    assert stored(END, END + MINUTE) is None  # the other candles of the file were not written either
    assert imported_spans(*SERIES) == ((START, END),)


@pytest.mark.parametrize("where", [0, 250, 499])
def test_a_single_difference_anywhere_is_found(store, where):
    import_candles(market(), *SERIES)
    other = market()
    other["volume"][where] = np.nextafter(other["volume"][where], np.inf)
    with pytest.raises(CandleConflictError, match="1 of 500 candles"):
        import_candles(other, *SERIES)


def test_files_of_different_series_never_meet(store):
    import_candles(market(), "BTCUSDT", "1m", "csv")
    other = market()
    other["volume"] += 1
    import_candles(other, "ETHUSDT", "1m", "csv")
    import_candles(other, "BTCUSDT", "1m", "binance")
    assert [(one.exchange_name, one.symbol) for one in list_candles()] == [("binance", "BTCUSDT"), ("csv", "BTCUSDT"), ("csv", "ETHUSDT")]


class Own(PersistCandleInstance):
    """A user's class, which returns whole windows or nothing."""


def test_an_import_through_a_class_of_the_user_is_compared_too(mongo):
    PersistCandleAdapter.use_persist_candle_adapter(Own)
    some = np.concatenate([market(100), market(300)[200:]])
    import_candles(some, *SERIES)
    other = market(300)
    other["volume"][250] += 1
    with pytest.raises(CandleConflictError, match="1 of 300"):
        import_candles(other, *SERIES)
    for ask in (lambda: remove_candles(*SERIES), lambda: list(list_candles())):
        with pytest.raises(InvalidValueError, match="a class of your own"):
            ask()
    import_candles(market(300), *SERIES)
    assert (stored(until=START + 300 * MINUTE) == market(300)).all()


def test_series_are_listed_with_their_holes(store):
    assert list(list_candles()) == []
    import_candles(np.concatenate([market(100), market(500)[103:]]), *SERIES)
    import_candles(market()[:1], "A", "1m", "z")
    first, second = list_candles()
    assert (first.exchange_name, first.symbol, first.interval, first.candles, first.missing) == ("csv", "BTCUSDT", "1m", 497, 3)
    assert (first.since_ms, first.until_ms) == (START, END)
    assert [(gap.since_ms, gap.missing) for gap in first.gaps] == [(START + 100 * MINUTE, 3)]
    assert (second.candles, second.gaps) == (1, ())
    assert [one.symbol for one in list_candles(exchange_name="z")] == ["A"]
    assert list(list_candles(symbol="A", interval="5m")) == []


@pytest.mark.parametrize(("since", "until", "left"), [(100, 200, [(0, 100), (200, 500)]), (None, 50, [(50, 500)]), (450, None, [(0, 450)])])
def test_a_part_is_removed_and_can_be_imported_again(store, since, until, left):
    import_candles(market(), *SERIES)
    assert (stored() == market()).all()  # also from the memory of the process
    times = (None if minute is None else START + minute * MINUTE for minute in (since, until))
    assert remove_candles(*SERIES, *times) == (until or 500) - (since or 0)
    assert stored() is None
    assert imported_spans(*SERIES) == tuple((START + first * MINUTE, START + last * MINUTE) for first, last in left)
    other = market()
    changed = slice(since, until)
    other["volume"][changed] += 1
    import_candles(other, *SERIES)
    assert (stored() == other).all()
    assert imported_spans(*SERIES) == ((START, END),)


def test_edges_between_two_candles_belong_to_the_later_one(store):
    """A recorded span of half a candle would be a window that no run can replay."""
    import_candles(market(), *SERIES)
    assert remove_candles(*SERIES, START + 30_000, START + 10 * MINUTE + 30_000) == 10
    assert imported_spans(*SERIES) == ((START, START + MINUTE), (START + 11 * MINUTE, END))


def test_all_of_a_series_is_removed_and_nothing_else(store):
    import_candles(market(), *SERIES)
    import_candles(market(), "ETHUSDT", "1m", "csv")
    assert remove_candles(*SERIES) == 500
    assert remove_candles(*SERIES) == 0
    assert [one.symbol for one in list_candles()] == ["ETHUSDT"]
    assert imported_spans(*SERIES) == ()
    assert imported_spans("ETHUSDT", "1m", "csv") == ((START, END),)
    with pytest.raises(InvalidValueError, match="window to remove is empty"):
        remove_candles(*SERIES, END, START)


def test_another_registry_has_other_candles(store):
    other = kit.Registry()
    other.setup(stores={"candle": "memory", "measure": "memory"})
    import_candles(market(), *SERIES)
    assert remove_candles(*SERIES, registry=other) == 0
    assert next(list_candles(registry=default_registry)).candles == 500
    other.close()


def test_matches_tells_present_from_equal():
    candles, other = market(10), market(20)[4:]
    other["close"][0] += 1
    present, equal = matches(candles, [other[:3], other[3:]])
    assert present.tolist() == [False] * 4 + [True] * 6
    assert equal.tolist() == [False] * 5 + [True] * 5
