"""read_candles: windows as an analyst asks for them, joined from shorter candles, and holes by name."""

import pickle
import time
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from hand_market import MINUTE, memory, use_memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, LookAheadError, PersistCandleAdapter, Registry, simulated_time
from backtest_kit_mongo.candles import CANDLE_DTYPE, GRIDS, PRICES, grid_of, join_whole
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    CandleGapError,
    StrategyError,
    add_strategy,
    get_candles,
    import_candles,
    read_candles,
    run_backtest,
    synthetic_market,
)

pytestmark = pytest.mark.once

DAY = 1440 * MINUTE
FIRST = 1_706_486_400_000  # 2024-01-29, a Monday
MARKET = synthetic_market(7, 36 * 1440, FIRST)  # to 2024-03-05
SHORT = MARKET[: 6 * 1440]  # to 2024-02-04


def store(candles, interval="1m", symbol="BTCUSDT", exchange="binance"):
    PersistCandleAdapter.write_candles_data(candles, symbol, interval, exchange)


def made(interval, since, until):
    """Return the candles of a window, made in the plainest way."""
    rows = []
    grid = grid_of(interval)
    for opens in grid.stamps(since, until).tolist():
        part = MARKET[(opens - FIRST) // MINUTE : (grid.after(opens) - FIRST) // MINUTE]
        prices = part["open"][0], part["high"].max(), part["low"].min(), part["close"][-1]
        rows.append((opens, *prices, sum(part["volume"].tolist())))
    return rows


def as_rows(array):
    return [tuple(row) for row in array.tolist()]


# ---------------------------------------------------------------- times


TIMES = [
    (FIRST + DAY, FIRST + 2 * DAY),
    ("2024-01-30", "2024-01-31"),
    ("2024-01-30T00:00Z", "2024-01-31T01:00+01:00"),
    (datetime(2024, 1, 30), datetime(2024, 1, 31)),
    (date(2024, 1, 30), date(2024, 1, 31)),
    (datetime(2024, 1, 30, tzinfo=UTC), datetime(2024, 1, 30, 19, tzinfo=timezone(timedelta(hours=-5)))),
    (pandas.Timestamp("2024-01-30"), pandas.Timestamp("2024-01-31", tz="UTC")),
    (np.datetime64("2024-01-30"), np.datetime64("2024-01-31T00:00:00.000000000")),
    (np.int64(FIRST + DAY), FIRST + 2 * DAY),
]


@pytest.mark.parametrize(("start", "end"), TIMES)
def test_times_are_of_any_kind_and_utc_without_a_zone(start, end):
    store(SHORT)
    frame = read_candles("BTCUSDT", "1h", start, end)
    assert list(frame.columns) == list(PRICES)
    assert (frame.index[0], frame.index[-1], len(frame)) == (
        pandas.Timestamp("2024-01-30", tz="UTC"),
        pandas.Timestamp("2024-01-30T23:00", tz="UTC"),
        24,
    )


def test_only_candles_that_lie_in_the_window_as_a_whole():
    store(SHORT)
    frame = read_candles("BTCUSDT", "1h", "2024-01-30T10:00:00.001", "2024-01-30T13:59:59.999")
    assert [str(stamp.time()) for stamp in frame.index] == ["11:00:00", "12:00:00"]


@pytest.mark.parametrize(
    ("start", "end", "error", "message"),
    [
        (None, "2024-02-01", InvalidTypeError, "start must be a datetime, ISO text or ms since 1970, got NoneType"),
        (pandas.NaT, "2024-02-01", InvalidTypeError, "start must be .* got NaT"),
        (True, "2024-02-01", InvalidTypeError, "start must be .* got bool"),
        (1.5, "2024-02-01", InvalidTypeError, "start must be .* got float"),
        ("2024-13-01", "2024-02-01", InvalidValueError, "start is '2024-13-01', which is not an ISO time"),
        ("2024-02-01", "2024-02-01", InvalidValueError, "the window is empty: it starts 2024-02-01T00:00:00Z and ends 2024-02-01"),
        ("2024-02-01T10:01", "2024-02-01T10:59", InvalidValueError, r"no 1h candle opens and closes between 2024-02-01T10:01:00Z"),
        (np.datetime64("20000-01-01"), "2024-02-01", InvalidValueError, "the window is empty"),
        (-MINUTE, "2024-02-01", InvalidValueError, "start is -60000"),
    ],
)
def test_bad_windows_are_named(start, end, error, message):
    store(SHORT)
    with pytest.raises(error, match=message):
        read_candles("BTCUSDT", "1h", start, end)


def test_other_bad_arguments_are_named():
    store(SHORT)
    window = ("2024-01-30", "2024-01-31")
    for arguments, options, error, message in (
        ((5, "1h", *window), {}, InvalidTypeError, "symbol must be a str"),
        (("BTCUSDT", "7m", *window), {}, InvalidValueError, "unknown interval '7m'"),
        (("BTCUSDT", "1h", *window), {"to": "excel"}, InvalidValueError, "to is 'excel'; it must be one of 'pandas', 'numpy'"),
        (("BTCUSDT", "1h", *window), {"holes": "ignore"}, InvalidValueError, "holes is 'ignore'; it must be one of 'stop', 'skip', 'fill'"),
        (("BTCUSDT", "1h", *window), {"exchange": 5}, InvalidTypeError, "exchange must be a str"),
    ):
        with pytest.raises(error, match=message):
            read_candles(*arguments, **options)


def test_what_has_not_closed_is_not_expected():
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    store(synthetic_market(1, 90, now - 90 * MINUTE))
    since = now - 60 * MINUTE
    array = read_candles("BTCUSDT", "1m", since, now + DAY, to="numpy", holes="skip")
    assert array["timestamp"][0] == since
    assert 60 <= len(array) <= 61
    with pytest.raises(InvalidValueError, match=r"the 1m candle that opens at .* has not closed yet"):
        read_candles("BTCUSDT", "1m", now + DAY, now + 2 * DAY)


# ---------------------------------------------------------------- tables


def test_every_kind_of_table_holds_the_same():
    store(SHORT)
    window = ("BTCUSDT", "1d", "2024-01-30", "2024-02-03")
    array = read_candles(*window, to="numpy")
    assert array.dtype == CANDLE_DTYPE
    assert as_rows(array) == made("1d", FIRST + DAY, FIRST + 5 * DAY)
    for table, kind in (("pandas", pandas.DataFrame), ("polars", polars.DataFrame), ("arrow", pyarrow.Table)):
        frame = read_candles(*window, to=table)
        assert isinstance(frame, kind)
        assert list(np.asarray(frame["close"])) == array["close"].tolist()
    array["close"] = -1  # yours
    assert read_candles(*window, to="numpy")["close"].min() > 0


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("interval", ["1m", "3m", "15m", "1h", "8h", "12h", "1d", "3d", "1w", "1M"])
def test_an_interval_that_is_not_stored_is_joined_from_minutes(interval):
    days = 36 if interval in ("3d", "1w", "1M") else 2
    store(MARKET[: days * 1440])
    grid = grid_of(interval)
    since, until = grid.ceil(FIRST), grid.align(FIRST + days * DAY)
    array = read_candles("BTCUSDT", interval, FIRST, FIRST + days * DAY, to="numpy")
    assert as_rows(array) == made(interval, since, until)


def marked(interval, value):
    """Return candles of the whole market with one value, to tell where an answer comes from."""
    rows = np.zeros(grid_of(interval).count(FIRST, FIRST + 36 * DAY), CANDLE_DTYPE)
    rows["timestamp"] = grid_of(interval).stamps(FIRST, FIRST + 36 * DAY)
    for name in PRICES:
        rows[name] = value
    return rows


def test_the_longest_stored_interval_that_divides_it_is_joined():
    for number, interval in enumerate(("1m", "5m", "8h", "12h", "1d", "3d", "1w")):
        store(marked(interval, 1.0 + number), interval)
    expected = {"1M": 5.0, "1w": 7.0, "3d": 6.0, "1d": 5.0, "12h": 4.0, "8h": 3.0, "6h": 2.0, "4h": 2.0, "15m": 2.0, "3m": 1.0}
    for interval, value in expected.items():
        assert set(read_candles("BTCUSDT", interval, FIRST, FIRST + 34 * DAY, to="numpy")["close"]) == {value}, interval


def test_a_shorter_interval_serves_where_the_wanted_one_has_a_hole():
    store(SHORT)
    store(np.delete(marked("1h", 7.0), 5), "1h")
    assert set(read_candles("BTCUSDT", "1h", FIRST, FIRST + DAY // 6, to="numpy")["close"]) == {7.0}
    array = read_candles("BTCUSDT", "1h", FIRST, FIRST + DAY, to="numpy")
    assert as_rows(array) == made("1h", FIRST, FIRST + DAY)


def test_which_intervals_divide_which():
    shorter = {name: [other for other, grid in GRIDS.items() if grid.divides(GRIDS[name])] for name in GRIDS}
    assert shorter["1M"] == ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1M"]
    assert shorter["1w"][:-1] == shorter["3d"][:-1] == shorter["1M"][:-1]
    assert shorter["12h"] == ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h"]
    assert shorter["5m"] == ["1m", "5m"]


def test_candles_with_a_part_missing_are_left_out_by_the_join():
    candles = np.delete(MARKET[: 4 * 1440], [0, 1500, 1501, 4 * 1440 - 1])
    assert join_whole(candles, grid_of("1m"), grid_of("1d"))["timestamp"].tolist() == [FIRST + 2 * DAY]
    assert len(join_whole(candles[:0], grid_of("1m"), grid_of("1M"))) == 0


def test_what_cannot_be_made_is_an_error_that_says_what_is_stored():
    store(marked("1d", 1.0), "1d")
    with pytest.raises(
        InvalidValueError, match=r"no candles of BTCUSDT on binance are stored of which 1h candles could be made, only 1d\n"
    ):
        read_candles("BTCUSDT", "1h", FIRST, FIRST + DAY)


# ---------------------------------------------------------------- exchanges


def test_the_exchange_may_be_left_out_if_only_one_has_the_symbol():
    store(SHORT, exchange="kraken")
    store(SHORT, symbol="ETHUSDT")
    assert len(read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31")) == 24
    store(SHORT)
    with pytest.raises(InvalidValueError, match=r"2 exchanges have candles of BTCUSDT; name one of them: 'binance', 'kraken'"):
        read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31")
    assert len(read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31", exchange="kraken")) == 24
    with pytest.raises(InvalidValueError, match=r"no candles of BTCUSD are stored; stored symbols: BTCUSDT, ETHUSDT\n"):
        read_candles("BTCUSD", "1h", "2024-01-30", "2024-01-31")
    with pytest.raises(InvalidValueError, match=r"no candles of BTCUSDT on csv are stored(.|\n)*candles import"):
        read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31", exchange="csv")


def test_a_class_of_your_own_needs_the_name_of_the_exchange():
    store(SHORT)
    PersistCandleAdapter.use_persist_candle_adapter(type("Own", (kit.PersistCandleInstance,), {}))
    with pytest.raises(InvalidValueError, match="name the exchange"):
        read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31")
    assert len(read_candles("BTCUSDT", "1h", "2024-01-30", "2024-01-31", exchange="binance")) == 24
    with pytest.raises(CandleGapError, match="60 candles are missing from 2024-02-04T00:00:00Z to 2024-02-04T01:00:00Z"):
        read_candles("BTCUSDT", "1h", "2024-02-03", "2024-02-04T01:00", exchange="binance")


# ---------------------------------------------------------------- holes


HOLED = np.delete(SHORT, [*range(90, 93), 1500])


def test_a_hole_is_an_error_that_names_its_times():
    store(HOLED)
    with pytest.raises(CandleGapError) as caught:
        read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY)
    error = caught.value
    assert isinstance(error, ValueError)
    assert str(error) == (
        "1m candles of BTCUSDT on binance, of which its 1h candles are made, are not all stored: "
        "3 candles are missing from 2024-01-29T01:30:00Z to 2024-01-29T01:33:00Z; "
        "1 candle is missing from 2024-01-30T01:00:00Z to 2024-01-30T01:01:00Z\n"
        '  hint: import them (candles import, or fetch_missing from an exchange); or pass holes="skip" to leave them out, '
        'or holes="fill" for flat candles at the last close'
    )
    assert (error.symbol, error.exchange_name, error.interval) == ("BTCUSDT", "binance", "1m")
    assert [(gap.since_ms, gap.until_ms, gap.missing) for gap in error.gaps] == [
        (FIRST + 90 * MINUTE, FIRST + 93 * MINUTE, 3),
        (FIRST + 1500 * MINUTE, FIRST + 1501 * MINUTE, 1),
    ]
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.gaps) == (str(error), error.gaps)


def test_the_ends_of_the_window_are_gaps_too_and_a_long_list_is_cut():
    store(np.delete(MARKET[100:200], np.arange(0, 100, 10)))
    with pytest.raises(CandleGapError, match="and 6 more gaps") as caught:
        read_candles("BTCUSDT", "1m", FIRST, FIRST + 210 * MINUTE)
    gaps = caught.value.gaps
    assert len(gaps) == 11
    assert (gaps[0].since_ms, gaps[0].missing) == (FIRST, 101)
    assert (gaps[-1].since_ms, gaps[-1].until_ms) == (FIRST + 200 * MINUTE, FIRST + 210 * MINUTE)


def test_skip_leaves_out_every_candle_with_a_part_missing():
    store(HOLED)
    array = read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY, to="numpy", holes="skip")
    assert as_rows(array) == [row for index, row in enumerate(made("1h", FIRST, FIRST + 2 * DAY)) if index not in (1, 25)]


def test_fill_puts_flat_candles_between_stored_ones_only():
    store(HOLED)
    array = read_candles("BTCUSDT", "1m", FIRST + 85 * MINUTE, FIRST + 95 * MINUTE, to="numpy", holes="fill")
    close = float(MARKET["close"][89])
    assert as_rows(array)[5:8] == [(FIRST + minute * MINUTE, close, close, close, close, 0.0) for minute in (90, 91, 92)]
    assert (array[:5] == MARKET[85:90]).all()
    hours = read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY, to="numpy", holes="fill")
    assert len(hours) == 48
    assert hours["volume"][1] == sum(np.delete(MARKET[60:120]["volume"], [30, 31, 32]).tolist())
    with pytest.raises(CandleGapError, match=r"nothing is filled"):
        read_candles("BTCUSDT", "1m", FIRST - MINUTE, FIRST + MINUTE, holes="fill")


def test_a_window_that_was_never_stored_is_refused_quickly():
    """A start in seconds instead of ms, or 1970: the answer does not take memory for every minute since then."""
    store(MARKET[:100])
    begin = time.perf_counter()
    with pytest.raises(CandleGapError, match="missing from 1970-01-01T00:00:00Z") as caught:
        read_candles("BTCUSDT", "1m", 0, FIRST + 100 * MINUTE)
    assert caught.value.gaps[0].missing == FIRST // MINUTE
    assert time.perf_counter() - begin < 20


# ---------------------------------------------------------------- in a run


def test_a_strategy_cannot_read_the_future_and_reads_its_own_exchange():
    store(SHORT)
    store(marked("1m", 5.0), exchange="kraken")
    seen = []

    def get_signal(symbol, when):
        seen.append(read_candles(symbol, "1h", when - timedelta(hours=3), when, to="numpy"))
        assert as_rows(seen[-1]) == as_rows(get_candles(symbol, "1h", 3, as_array=True))
        with pytest.raises(LookAheadError, match=r"strategy 's' on BTCUSDT asked for the future: read_candles\('BTCUSDT', '1h'\) ends at"):
            read_candles(symbol, "1h", when - timedelta(hours=3), when + timedelta(milliseconds=1))

    add_strategy("s", "1h", get_signal=get_signal)
    run_backtest("BTCUSDT", start_ms=FIRST + DAY, end_ms=FIRST + DAY + 200 * MINUTE)
    assert len(seen) == 3
    add_strategy("late", "1h", get_signal=lambda symbol, when: read_candles(symbol, "1h", when, when + timedelta(hours=1)))
    with pytest.raises(StrategyError, match="LookAheadError"):
        run_backtest("BTCUSDT", "late", start_ms=FIRST + DAY, end_ms=FIRST + DAY + 200 * MINUTE)


def test_simulated_time_counts_outside_a_run_as_well():
    store(SHORT)
    with simulated_time(FIRST + DAY):
        assert len(read_candles("BTCUSDT", "1h", FIRST, FIRST + DAY)) == 24
        with pytest.raises(LookAheadError, match="the caller asked for the future"):
            read_candles("BTCUSDT", "1h", FIRST, FIRST + DAY + 1)


# ---------------------------------------------------------------- on every store


@pytest.mark.parametrize("where", ["items", "packed", "file"])
def test_on_every_store(where, request, tmp_path):
    registry = Registry()
    if where == "file":
        registry.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=tmp_path)
    else:
        registry.setup(request.getfixturevalue("settings"), CC_CANDLE_FORMAT=where)
    import_candles(HOLED, "BTCUSDT", registry=registry)
    try:
        for options in ({}, {"exchange": "binance"}):
            array = read_candles("BTCUSDT", "4h", FIRST + 2 * DAY, FIRST + 6 * DAY, to="numpy", registry=registry, **options)
            assert as_rows(array) == made("4h", FIRST + 2 * DAY, FIRST + 6 * DAY)
        with pytest.raises(CandleGapError, match="3 candles are missing from 2024-01-29T01:30:00Z") as caught:
            read_candles("BTCUSDT", "1w", FIRST - 9 * DAY, FIRST + 7 * DAY, registry=registry)
        assert [gap.missing for gap in caught.value.gaps] == [7 * 1440, 3, 1, 1440]
        with pytest.raises(CandleGapError, match="missing from 1970-01-01"):
            read_candles("BTCUSDT", "1m", 0, FIRST + 6 * DAY, registry=registry)
    finally:
        registry.close()


# ---------------------------------------------------------------- parts of several intervals


def test_candles_of_several_intervals_are_put_together():
    """The hours of the first day are stored, and the minutes of the second one."""
    expected = [*made("1h", FIRST, FIRST + 2 * DAY)]
    hours = np.array(expected[:24], CANDLE_DTYPE)
    store(hours, "1h")
    store(MARKET[1440:2880])
    for holes in ("stop", "skip", "fill"):
        assert as_rows(read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY, to="numpy", holes=holes)) == expected
    without = np.delete(MARKET[1440:2880], 70)
    PersistCandleAdapter.clear()
    use_memory()
    store(hours, "1h")
    store(without)
    candles_read = read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY, to="numpy", holes="skip")
    assert as_rows(candles_read) == [*expected[:25], *expected[26:]]


def test_the_series_with_most_candles_is_filled():
    """A minute of each hour is missing, and only the first and last hours are stored as such."""
    present = np.array([number % 60 != 30 for number in range(2 * 1440)])
    store(MARKET[: 2 * 1440][present])
    hours = np.array(made("1h", FIRST, FIRST + 2 * DAY), CANDLE_DTYPE)
    store(hours[[0, 1, 46, 47]], "1h")
    candles_read = read_candles("BTCUSDT", "1h", FIRST, FIRST + 2 * DAY, to="numpy", holes="fill")
    assert len(candles_read) == 48
    assert (candles_read["volume"] > 0).all()
    assert (candles_read["open"] == hours["open"]).all()


def test_a_candle_that_has_not_closed_is_called_so():
    store(SHORT)
    now = time.time_ns() // 1_000_000
    today = now - now % DAY
    with pytest.raises(InvalidValueError, match=r"the 1d candle that opens at .* has not closed yet"):
        read_candles("BTCUSDT", "1d", today, today + DAY)
