"""Exchanges by name, and fetching from them: only missing candles, nothing unclosed, nothing invalid."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE, to_dicts
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import add_strategy, clear_strategies, import_candles, imported_spans, run_backtest, synthetic_market
from backtest_kit_mongo.runner.market.exchange import (
    ExchangeError,
    add_exchange,
    clear_exchanges,
    fetch_missing,
    find_exchange,
    list_exchanges,
    restore_exchanges,
)

pytestmark = pytest.mark.once

MONTH = 31 * 1440
MARKET = synthetic_market(11, MONTH, START)
END = START + MONTH * MINUTE


@pytest.fixture(autouse=True)
def nothing_registered():
    clear_exchanges()
    yield
    clear_exchanges()


class Source:
    """An exchange over an array: it answers as Binance does, with the first ``limit`` candles that open at ``since`` or later."""

    def __init__(self, market=MARKET, most=1000):
        self.market, self.most = market, most
        self.asked = []

    def __call__(self, symbol, interval, since, limit):
        self.asked.append((since, limit))
        first = int(np.searchsorted(self.market["timestamp"], since))
        return self.market[first : first + min(limit, self.most)]


def minutes(first, last):
    return START + first * MINUTE, START + last * MINUTE


def stored(first, last, symbol="BTCUSDT", exchange="x"):
    return kit.PersistCandleAdapter.read_candles_array(symbol, "1m", exchange, last - first, START + first * MINUTE)


def missing_from(*holes, market=MARKET):
    keep = np.ones(len(market), bool)
    for first, last in holes:
        keep[first:last] = False
    return market[keep]


# ---------------------------------------------------------------- names


def test_both_forms_register_and_give_the_function_back():
    def get_candles(symbol, interval, since, limit): ...

    assert add_exchange("plain", get_candles=get_candles) is get_candles

    @add_exchange("decorated")
    def other(symbol, interval, since, limit): ...

    assert [(exchange.name, exchange.get_candles) for exchange in list_exchanges()] == [("plain", get_candles), ("decorated", other)]
    assert find_exchange("plain").registered_at.startswith(f"{__file__}:")
    assert find_exchange("plain").file == __file__
    with pytest.raises(InvalidValueError, match="2 exchanges are registered; name one of them: 'plain', 'decorated'"):
        find_exchange()
    kept = list_exchanges()[:1]
    restore_exchanges(kept)
    assert find_exchange() is kept[0]


def test_what_cannot_be_registered():
    add_exchange("x", get_candles=Source())
    with pytest.raises(
        InvalidValueError, match=r"exchange 'x' at .*test_exchange\.py:\d+ is already registered at .*test_exchange\.py:\d+"
    ):
        add_exchange("x", get_candles=Source())
    with pytest.raises(InvalidTypeError, match="the name of an exchange must be a str"):
        add_exchange(3, get_candles=Source())
    with pytest.raises(InvalidTypeError, match=r"get_candles of exchange 'y' must take \(symbol, interval, since, limit\)"):
        add_exchange("y", get_candles=lambda symbol: [])
    with pytest.raises(InvalidTypeError, match="get_candles of exchange 'y' must be a function, got list"):
        add_exchange("y", get_candles=[])

    async def later(symbol, interval, since, limit): ...

    with pytest.raises(InvalidTypeError, match="not an async function"):
        add_exchange("y", get_candles=later)
    assert len(list_exchanges()) == 1
    with pytest.raises(InvalidValueError, match=r"no exchange 'y' is registered\n.*register it with add_exchange; registered so far: 'x'"):
        fetch_missing("BTCUSDT", "1m", "y", *minutes(0, 10))


def test_windows_that_are_none(mongo):
    add_exchange("x", get_candles=Source())
    for since, until, words in ((START + 1, END, "since_ms"), (START, END + 1, "until_ms"), (START, START, "the window is empty")):
        with pytest.raises(InvalidValueError, match=words):
            fetch_missing("BTCUSDT", "1m", "x", since, until)
    with pytest.raises(InvalidValueError, match="unknown interval '7m'"):
        fetch_missing("BTCUSDT", "7m", "x", START, END)


# ---------------------------------------------------------------- what is requested


def test_a_month_is_fetched_once_and_is_there(mongo):
    source = Source()
    add_exchange("x", get_candles=source)
    seen = []
    assert fetch_missing("BTCUSDT", "1m", "x", START, END, progress=lambda *call: seen.append(call)) == MONTH
    assert len(source.asked) == 45
    assert max(limit for _, limit in source.asked) == 1000
    assert (stored(0, MONTH) == MARKET).all()
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == ((0, MONTH), (MONTH, MONTH))
    source.asked.clear()
    assert fetch_missing("BTCUSDT", "1m", "x", START, END) == 0
    assert source.asked == []
    assert imported_spans("BTCUSDT", "1m", "x") == ((START, END),)


def test_only_a_hole_is_asked_for(mongo):
    import_candles(missing_from((20_000, 20_100), (30_000, 32_500)), "BTCUSDT", "1m", "x")
    source = Source()
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", START, END) == 2600
    assert source.asked == [
        (minutes(first, 0)[0], limit) for first, limit in ((20_000, 100), (30_000, 1000), (31_000, 1000), (32_000, 500))
    ]
    assert (stored(0, MONTH) == MARKET).all()
    assert imported_spans("BTCUSDT", "1m", "x") == ((START, END),)


def test_islands_share_a_request_and_what_was_stored_stays(store):
    """A stored candle never changes, and it does not count as new."""
    island = MARKET[50:60].copy()
    for name in ("open", "high", "low", "close"):
        island[name] = 1.0
    import_candles(island, "BTCUSDT", "1m", "x")
    source = Source()
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 100)) == 90
    assert source.asked == [(START, 100)]
    assert (stored(50, 60) == island).all()
    assert (stored(0, 50) == MARKET[:50]).all()


def test_a_symbol_that_was_not_listed_before_some_day_costs_one_request(mongo):
    source = Source(MARKET[40_000:])
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", START, END) == MONTH - 40_000
    assert len(source.asked) == 1 + 5
    assert imported_spans("BTCUSDT", "1m", "x") == ((minutes(40_000, 0)[0], END),)


def test_what_the_exchange_does_not_have_stays_a_hole(mongo):
    source = Source(missing_from((500, 560), (2000, 2001)))
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 3000)) == 3000 - 61
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(0, 500), minutes(560, 2000), minutes(2001, 3000))
    source.asked.clear()
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 3000)) == 0
    assert len(source.asked) == 2


def test_an_exchange_that_answers_only_inside_the_window_and_knows_nothing(mongo):
    asked = []

    @add_exchange("x")
    def nothing(symbol, interval, since, limit):
        asked.append(since)
        return []

    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 2500)) == 0
    assert len(asked) == 3
    assert imported_spans("BTCUSDT", "1m", "x") == ()


def test_an_exchange_that_gives_fewer_than_asked_is_asked_again(mongo):
    source = Source(most=300)
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 2000)) == 2000
    assert len(source.asked) == 7
    assert (stored(0, 2000) == MARKET[:2000]).all()


@pytest.mark.parametrize("form", [to_dicts, lambda rows: [list(row) for row in rows.tolist()], lambda rows: iter(to_dicts(rows)), np.copy])
def test_every_form_of_an_answer(mongo, form):
    add_exchange("x", get_candles=lambda *asked: form(Source()(*asked)))
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 50)) == 50
    assert (stored(0, 50) == MARKET[:50]).all()


def test_intervals_symbols_exchanges_and_registries_stay_apart(mongo, tmp_path):
    other = Registry()
    other.setup(mode="backtest", stores=dict.fromkeys(("candle", "measure"), "file"), CC_DUMP_DIR=tmp_path / "other")
    hours = synthetic_market(3, 24, START)
    hours["timestamp"] = START + 60 * MINUTE * np.arange(24)
    add_exchange("x", get_candles=Source())
    add_exchange("y", get_candles=Source(hours))
    fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 10))
    fetch_missing("ETHUSDT", "1h", "y", START, START + 24 * 60 * MINUTE)
    fetch_missing("BTCUSDT", "1m", "x", *minutes(100, 110), registry=other)
    assert default_registry.store(DOMAINS["candle"]).candle_series() == [("x", "BTCUSDT", "1m"), ("y", "ETHUSDT", "1h")]
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(0, 10),)
    assert imported_spans("BTCUSDT", "1m", "x", registry=other) == (minutes(100, 110),)
    other.close()


def test_a_class_of_the_users_behind_the_contract(mongo):
    """Such a class only tells whether a window is complete; no candle is fetched twice because of that."""

    kept = {}

    class Own:
        def __init__(self, *context):
            self.rows = kept.setdefault(context, {})

        def wait_for_init(self, initial): ...

        def read_candles_data(self, limit, since, until):
            rows = [self.rows.get(stamp) for stamp in range(since, until, MINUTE)]
            return None if None in rows else rows

        def write_candles_data(self, candles):
            for candle in to_dicts(candles):
                self.rows.setdefault(candle["timestamp"], candle)

    kit.PersistCandleAdapter.use_persist_candle_adapter(Own)
    source = Source()
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(20, 40)) == 20
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 1500)) == 1480
    assert source.asked == [(minutes(20, 0)[0], 20), (START, 1000), (minutes(1000, 0)[0], 500)]
    assert sorted(kept["BTCUSDT", "1m", "x"]) == MARKET["timestamp"][:1500].tolist()


@pytest.mark.parametrize("empty_before", [False, True], ids=["the newest come anyway", "nothing comes"])
def test_an_exchange_that_only_has_the_newest_candles_says_where_they_begin(store, caplog, empty_before):
    newest = MARKET[-720:]

    def get_candles(symbol, interval, since, limit):
        if empty_before and since + limit * MINUTE <= newest["timestamp"][0]:
            return newest[:0]
        return Source(newest)(symbol, interval, since, limit)

    add_exchange("x", get_candles=get_candles)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(MONTH - 5000, MONTH)) == 720
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "exchange 'x' has no 1m candles of BTCUSDT before 2023-03-31T12:00:00Z (asked from 2023-03-28T12:40:00Z)" in record.message
    caplog.clear()
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(MONTH - 700, MONTH)) == 0
    assert not caplog.records


def test_a_minute_without_a_trade_is_not_where_history_begins(store, caplog):
    add_exchange("x", get_candles=Source(np.delete(MARKET, [50, 51])))
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 60)) == 58
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(50, 70)) == 10
    assert not caplog.records


def test_a_coin_that_falls_to_nothing_is_stored_by_a_fetch_and_by_an_import(store):
    """From 80 to 0.00005 within a day, as it has happened. Nothing says that such a candle cannot be."""
    crash = MARKET[:1440].copy()
    for name in ("open", "high", "low", "close"):
        crash[name] = 80.0 * (0.00005 / 80.0) ** (np.arange(1440) / 1439)
    crash["low"][700], crash["close"][700] = 0.00004, 0.00005
    crash["high"] = np.maximum(crash["open"], crash["close"])
    crash["low"] = np.minimum(crash["low"], np.minimum(crash["open"], crash["close"]))
    add_exchange("x", get_candles=Source(crash))
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 1440)) == 1440
    assert (stored(0, 1440) == crash).all()
    assert import_candles(crash, "BTCUSDT", exchange_name="file").candles == 1440


# ---------------------------------------------------------------- what has not closed


def test_an_unclosed_candle_is_neither_asked_for_nor_stored(store):
    source = Source()
    add_exchange("x", get_candles=source)
    now = minutes(100, 0)[0]
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(90, 200), now_ms=now + 59_999) == 10
    assert source.asked == [(minutes(90, 0)[0], 10)]
    assert stored(90, 101) is None
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(90, 200), now_ms=now + MINUTE) == 1
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(90, 101),)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(150, 200), now_ms=now) == 0


def test_now_is_never_later_than_the_wall_clock(mongo):
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    add_exchange("x", get_candles=Source(synthetic_market(1, 30, now - 10 * MINUTE)))
    new = fetch_missing("BTCUSDT", "1m", "x", now - 10 * MINUTE, now + 10 * MINUTE, now_ms=now + 10 * MINUTE)
    assert new in (10, 11)  # the minute may turn while this runs
    assert imported_spans("BTCUSDT", "1m", "x") == ((now - 10 * MINUTE, now - (10 - new) * MINUTE),)


# ---------------------------------------------------------------- a misbehaving exchange


def spoilt(change):
    def answer(symbol, interval, since, limit):
        return change(Source()(symbol, interval, since, limit).copy())

    return answer


def put(column, row, value):
    def change(rows):
        rows[column][row] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[::-1], "comes after"),
        (lambda rows: np.concatenate([rows[:5], rows[4:]]), "appears twice"),
        (put("timestamp", 3, START + 3 * MINUTE + 1), "off the 1m grid"),
        (put("timestamp", 0, START - MINUTE), "before the requested time"),
        (put("timestamp", -1, 4_000_000_020_000), "is in the future"),
        (put("close", 7, float("nan")), "close is nan, not a finite number"),
        (put("volume", 7, float("inf")), "volume is inf"),
        (put("volume", 7, -1.0), "has impossible values: .*volume -1"),
        (put("low", 7, 0.0), "has impossible values: .*low 0"),
        (put("high", 7, 1.0), "has impossible values: .*high 1"),
        (lambda rows: [{**row, "close": None} for row in to_dicts(rows)], "close is missing"),
        (lambda rows: [row[:5] for row in map(list, rows.tolist())], "candle 0 has 5 columns"),
        (lambda rows: [[str(value) for value in row] for row in rows.tolist()], "must be a number"),
        (lambda rows: None, "candles must be a list of candles, got NoneType"),
        (lambda rows: "<html>", "candles must be a list of candles, got str"),
        (lambda rows: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_bad_answer_is_named_and_nothing_of_it_is_stored(mongo, change, words):
    add_exchange("x", get_candles=spoilt(change))
    with pytest.raises(ExchangeError, match=rf"(?s)exchange 'x', BTCUSDT 1m, 100 candles from 2023-03-01T00:00:00Z to .*{words}"):
        fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 100))
    assert default_registry.store(DOMAINS["candle"]).candle_series() == []
    assert imported_spans("BTCUSDT", "1m", "x") == ()


def test_what_came_before_an_error_is_kept_and_found_by_the_next_call(mongo):
    source = Source()
    add_exchange("x", get_candles=lambda *asked: source(*asked) if len(source.asked) < 2 else 1 / 0)
    with pytest.raises(ExchangeError):
        fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 5000))
    assert (stored(0, 2000) == MARKET[:2000]).all()
    clear_exchanges()
    source.asked.clear()
    add_exchange("x", get_candles=source)
    assert fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 5000)) == 3000
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(0, 5000),)


# ---------------------------------------------------------------- notes of stored spans


def test_a_live_run_leaves_few_notes(mongo):
    """Minute by minute for three thousand minutes, the spans are exact at any time, with only a handful of notes."""
    add_exchange("x", get_candles=Source())
    bucket = 'candle_imports ["x","BTCUSDT","1m"]'
    for minute in range(5, 60):
        fetch_missing("BTCUSDT", "1m", "x", *minutes(minute - 5, minute))
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(0, 59),)
    assert len(list(kit.PersistMeasureAdapter.list_measure_data(bucket))) == 1
    for minute in range(100, 3100, 100):
        fetch_missing("BTCUSDT", "1m", "x", *minutes(minute - 105, minute) if minute > 100 else minutes(0, minute))
    assert imported_spans("BTCUSDT", "1m", "x") == (minutes(0, 3000),)
    assert len(list(kit.PersistMeasureAdapter.list_measure_data(bucket))) == 3


def test_a_run_finds_its_window_in_what_was_fetched(mongo):
    clear_strategies()
    add_exchange("x", get_candles=Source())
    add_strategy("quiet", get_signal=lambda symbol, when: None)
    fetch_missing("BTCUSDT", "1m", "x", *minutes(0, 300))
    result = run_backtest("BTCUSDT", "quiet", exchange_name="x")
    assert (result.start_ms, result.end_ms) == minutes(0, 300)
    clear_strategies()


def test_the_dtype_is_that_of_the_contract():
    assert Source()("BTCUSDT", "1m", START, 1).dtype == CANDLE_DTYPE
