"""Kline files, the synthetic market and the import: what is read, what is rejected, and how errors name file and line."""

import gzip
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from backtest_kit_mongo import (
    InvalidTypeError,
    InvalidValueError,
    PersistCandleAdapter,
    PersistMeasureAdapter,
)
from backtest_kit_mongo.runner import (
    CANDLE_DTYPE,
    Gap,
    find_gaps,
    import_candles,
    imported_spans,
    read_klines,
    synthetic_market,
)

pytestmark = pytest.mark.once

START = 1677628800000  # 2023-03-01T00:00:00Z
MINUTE = 60_000
HEADER = "open_time,open,high,low,close,volume\n"
ROW = "{},100.5,102,99.25,101,7.5\n"
EXPECTED = (100.5, 102.0, 99.25, 101.0, 7.5)


@pytest.fixture(autouse=True)
def memory():
    adapters = (PersistCandleAdapter, PersistMeasureAdapter)
    for adapter in adapters:
        adapter.use_memory()
    yield
    for adapter in adapters:
        adapter.use_mongo()


@pytest.fixture
def klines(tmp_path):
    def write(text, name="k.csv", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_klines(path, **options)

    return write


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    "stamp",
    [
        "2023-03-01 00:00:00+00:00",
        "2023-03-01T00:00:00+00:00",
        "2023-03-01T00:00:00Z",
        "2023-03-01 00:00:00",  # naive is UTC
        "2023-03-01 02:00:00+02:00",
        "2023-03-01T00:00:00.000Z",
        "1677628800000",
        "1677628800000.0",
        "1677628800000000",  # microseconds
        " 1677628800000 ",
    ],
)
def test_every_spelling_of_a_time_is_the_same_millisecond(klines, stamp):
    candles = klines(HEADER + ROW.format(stamp))
    assert candles.dtype == CANDLE_DTYPE
    assert candles.tolist() == [(START, *EXPECTED)]


def test_a_naive_time_is_utc_wherever_the_machine_stands(klines, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert klines(HEADER + ROW.format("2023-03-01 00:00:00"))["timestamp"][0] == START
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_milliseconds_and_microseconds_may_follow_each_other(klines):
    text = ROW.format(START) + ROW.format((START + MINUTE) * 1000)
    assert klines(text)["timestamp"].tolist() == [START, START + MINUTE]


def test_binance_file_without_header_and_with_all_its_columns(klines):
    line = f"{START},100.5,102,99.25,101,7.5,{START + 59999},750.1,12,3.1,310.2,0\n"
    assert klines(line).tolist() == [(START, *EXPECTED)]


def test_columns_are_found_by_name_in_any_order_and_case(klines):
    text = f"Volume,Close,Low,High,Open,Open time,Ignore\n7.5,101,99.25,102,100.5,{START},x\n"
    assert klines(text).tolist() == [(START, *EXPECTED)]


@pytest.mark.parametrize("name", ["timestamp", "time", "date", "datetime", "OpenTime"])
def test_other_names_of_the_time_column(klines, name):
    assert klines(f"{name},open,high,low,close,volume\n" + ROW.format(START))["timestamp"][0] == START


def test_gzip_is_told_by_content_not_by_name(klines):
    packed = gzip.compress((HEADER + ROW.format(START)).encode())
    assert klines(packed, "k.csv.gz").tolist() == klines(packed, "k.csv").tolist() == [(START, *EXPECTED)]


def test_byte_order_mark_windows_lines_blank_lines_and_quotes(klines):
    text = "\ufeff" + HEADER.replace("\n", "\r\n") + "\r\n" + f'"{START}","100.5","102","99.25","101","7.5"\r\n' + "\r\n"
    assert klines(text).tolist() == [(START, *EXPECTED)]


def test_higher_intervals_lie_on_their_own_grid(klines):
    text = HEADER + ROW.format(START) + ROW.format(START + 5 * MINUTE)
    assert klines(text, interval="5m")["timestamp"].tolist() == [START, START + 5 * MINUTE]
    with pytest.raises(InvalidValueError, match=r"line 3: open_time .* is not a multiple of the interval, 15m"):
        klines(text, interval="15m")


def test_a_hole_is_read_and_named(klines):
    candles = klines("".join(ROW.format(START + minute * MINUTE) for minute in (0, 1, 4, 5, 7)))
    assert len(candles) == 5
    gaps = find_gaps(candles)
    assert gaps == (
        Gap(since_ms=START + 2 * MINUTE, until_ms=START + 4 * MINUTE, missing=2),
        Gap(since_ms=START + 6 * MINUTE, until_ms=START + 7 * MINUTE, missing=1),
    )
    assert str(gaps[0]) == "2 candles are missing from 2023-03-01T00:02:00Z to 2023-03-01T00:04:00Z"
    assert str(gaps[1]) == "1 candle is missing from 2023-03-01T00:06:00Z to 2023-03-01T00:07:00Z"


def test_progress_grows_to_the_size_of_the_file(klines, tmp_path):
    seen = []
    klines("".join(ROW.format(START + minute * MINUTE) for minute in range(25_000)), progress=lambda *call: seen.append(call))
    size = (tmp_path / "k.csv").stat().st_size
    assert len(seen) == 4  # each 256 KiB, and the end
    assert seen[-1] == (size, size)
    assert all(before[0] <= after[0] for before, after in pairwise(seen))
    assert 0 < seen[0][0] < size


# ---------------------------------------------------------------- what is rejected, with file and line


GOOD = HEADER + ROW.format(START)


HOSTILE = [
    ("", r"k\.csv holds no candles"),
    (HEADER, r"k\.csv holds no candles"),
    ("open_time,open,high,low,volume\n", r"k\.csv, line 1: column close is missing"),
    ("when,open,high,low,close,volume\n", r"k\.csv, line 1: column open_time is missing"),
    ("open_time,open,open,high,low,close,volume\n", r"k\.csv, line 1: column open appears 2 times"),
    (f"{START},1,1,1,1\n", r"k\.csv, line 1: column volume is missing(.|\n)*--no-volume"),
    (GOOD + f"{START + MINUTE},1,1\n", r"k\.csv, line 3: column low is missing"),
    (GOOD + f"{START + MINUTE},1,1,1,abc,1\n", r"k\.csv, line 3: close is 'abc', not a number"),
    (GOOD + f"{START + MINUTE},1,1,1,,1\n", r"k\.csv, line 3: close is '', not a number"),
    (GOOD + f"{START + MINUTE},1_0,1,1,1,1\n", r"k\.csv, line 3: open is '1_0', not a number"),
    (GOOD + f"{START + MINUTE},1,nan,1,1,1\n", r"k\.csv, line 3: high is 'nan', not a finite number"),
    (GOOD + f"{START + MINUTE},1,inf,1,1,1\n", r"k\.csv, line 3: high is 'inf', not a finite number"),
    (GOOD + f"{START + MINUTE},1,1,1,1,-1\n", r"k\.csv, line 3: volume is -1\.0; it must not be negative"),
    (GOOD + f"{START + MINUTE},0,1,0,1,1\n", r"k\.csv, line 3: impossible candle: open 0\.0"),
    (GOOD + f"{START + MINUTE},2,1,3,2,1\n", r"k\.csv, line 3: impossible candle: open 2\.0, high 1\.0, low 3\.0"),
    (GOOD + f"{START + MINUTE},2,3,1,4,1\n", r"k\.csv, line 3: impossible candle: .* close 4\.0"),
    (
        GOOD + ROW.format(START + 1000),
        r"k\.csv, line 3: open_time 2023-03-01T00:00:01Z is not a multiple(.|\n)*--off-grid",
    ),
    (GOOD + ROW.format("2023-03-01 00:00:30"), r"k\.csv, line 3: open_time .* is not a multiple of the interval"),
    (GOOD + f"{START},1,2,1,2,4\n", r"k\.csv, line 3: open_time 2023-03-01T00:00:00Z appears twice with different values .*line 2"),
    (GOOD + ROW.format(START - MINUTE), r"k\.csv, line 3: open_time 2023-02-28T23:59:00Z comes after 2023-03-01T00:00:00Z"),
    (HEADER + ROW.format(START // 1_000_000), r"k\.csv, line 2: open_time '1677628' is neither a date nor a number of seconds"),
    (HEADER + ROW.format(START * 10**9), r"k\.csv, line 2: open_time '1677628800000000000000' is neither"),
    (HEADER + ROW.format(START * 1000 + 1), r"k\.csv, line 2: .* is not a whole number of milliseconds"),
    (HEADER + ROW.format("yesterday"), r"k\.csv, line 2: open_time 'yesterday' is not a time"),
    (HEADER + ROW.format("1.67763E+12"), r"k\.csv, line 2: open_time '1\.67763E\+12' (.|\n)*scientific notation has lost"),
    (HEADER + ROW.format("01/03/2023 00:00"), r"k\.csv, line 2: open_time '01/03/2023 00:00': the day or the month may come first"),
    (HEADER + ROW.format("2023-02-30 00:00:00"), r"k\.csv, line 2: open_time '2023-02-30 00:00:00' is neither"),
    (GOOD + '"unclosed\n', r"k\.csv, line 3: "),
    (b"PK\x03\x04rest", r"k\.csv cannot be read: File is not a zip file"),
    (b"\x1f\x8bnot really", r"k\.csv cannot be read"),
    (gzip.compress(GOOD.encode())[:-12], r"k\.csv cannot be read"),
    (b"\xff\xfe\x00bad", r"k\.csv is not UTF-8 text"),
]


@pytest.mark.parametrize(("text", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_file_is_refused_by_name_and_line(klines, text, message):
    with pytest.raises(InvalidValueError, match=message):
        klines(text)


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(InvalidValueError, match=r"none\.csv cannot be read: No such file"):
        read_klines(tmp_path / "none.csv")
    with pytest.raises(InvalidValueError, match="cannot be read: Is a directory"):
        read_klines(tmp_path)


def test_unknown_intervals_and_paths_of_other_types(tmp_path):
    with pytest.raises(InvalidValueError, match="unknown interval '7m'"):
        read_klines(tmp_path / "k.csv", interval="7m")
    with pytest.raises(InvalidTypeError, match="path must be a str or a path, got int"):
        read_klines(3)


# ---------------------------------------------------------------- the synthetic market


def test_the_same_seed_gives_the_same_market_and_another_one_another():
    market = synthetic_market(7, 5000, START)
    assert market.tobytes() == synthetic_market(7, 5000, START).tobytes()
    assert market.tobytes() != synthetic_market(8, 5000, START).tobytes()
    # Known values: a release of NumPy that changed them would change every documented figure.
    assert market[0].tolist() == (START, 25000.0, 25002.84, 24969.15, 24994.22, 0.471976)
    assert market[-1].tolist() == (START + 4999 * MINUTE, 23584.22, 23587.24, 23576.71, 23586.78, 0.695658)


@pytest.mark.parametrize("price", [0.00002, 1.0, 25_000.0, 3e9])
def test_synthetic_candles_are_sound(price):
    market = synthetic_market(1, 3000, START, price)
    assert (np.diff(market["timestamp"]) == MINUTE).all()
    assert market["timestamp"][0] == START
    assert market["open"][0] == pytest.approx(price)
    assert (market["open"][1:] == market["close"][:-1]).all()
    assert (market["low"] > 0).all()
    assert (market["low"] <= np.minimum(market["open"], market["close"])).all()
    assert (market["high"] >= np.maximum(market["open"], market["close"])).all()
    assert (market["volume"] > 0).all()
    assert len(np.unique(market["close"])) > 1000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0, 10, START), InvalidTypeError, "seed must be an int"),
        ((-1, 10, START), InvalidValueError, "seed is -1"),
        ((1, 0, START), InvalidValueError, "minutes is 0"),
        ((1, 10, START + 1), InvalidValueError, "start_ms is 1677628800001 .* not a multiple of 60000 ms"),
        ((1, 10, datetime(2023, 3, 1, tzinfo=UTC)), InvalidTypeError, "start_ms must be an int"),
        ((1, 10, START, 0), InvalidValueError, "price is 0"),
        ((1, 10, START, float("nan")), InvalidValueError, "price is nan"),
    ],
)
def test_bad_markets_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        synthetic_market(*arguments)


# ---------------------------------------------------------------- import


def test_import_stores_every_candle_and_says_what_it_did():
    market = synthetic_market(3, 12_000, START)
    seen = []
    report = import_candles(market, "BTCUSDT", progress=lambda *call: seen.append(call))
    assert (report.candles, report.unclosed, report.gaps) == (12_000, 0, ())
    assert (report.since_ms, report.until_ms) == (START, START + 12_000 * MINUTE)
    assert seen == [(7008, 12_000), (12_000, 12_000)]  # the first chunk ends with a packed block
    stored = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 12_000, START, START + 12_000 * MINUTE)
    assert [tuple(candle.values()) for candle in stored] == market.tolist()
    assert imported_spans("BTCUSDT") == ((START, START + 12_000 * MINUTE),)


def test_imports_of_other_symbols_intervals_and_exchanges_stay_apart():
    import_candles(synthetic_market(3, 10, START), "a", "1m", "b")
    assert imported_spans("a", "1m", "b") == ((START, START + 10 * MINUTE),)
    assert imported_spans("b", "1m", "a") == imported_spans("a", "5m", "b") == imported_spans("a:1m", "1m", "b") == ()


def test_a_hole_is_stored_as_a_hole_and_closed_by_a_later_import():
    market = synthetic_market(3, 30, START)
    holed = np.delete(market, slice(10, 20))
    report = import_candles(holed, "BTCUSDT")
    assert report.candles == 20
    assert report.gaps == (Gap(since_ms=START + 10 * MINUTE, until_ms=START + 20 * MINUTE, missing=10),)
    assert imported_spans("BTCUSDT") == ((START, START + 10 * MINUTE), (START + 20 * MINUTE, START + 30 * MINUTE))
    assert PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 11, START, START + 11 * MINUTE) is None
    import_candles(market[8:21], "BTCUSDT")
    assert imported_spans("BTCUSDT") == ((START, START + 30 * MINUTE),)


def test_imports_that_follow_each_other_become_one_span():
    market = synthetic_market(3, 30, START)
    for part in (market[20:], market[:10], market[10:20]):
        import_candles(part, "BTCUSDT")
    assert imported_spans("BTCUSDT") == ((START, START + 30 * MINUTE),)


def test_unclosed_candles_are_left_out_and_not_promised():
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    report = import_candles(synthetic_market(3, 20, now - 10 * MINUTE), "BTCUSDT")
    assert report.candles + report.unclosed == 20
    assert report.unclosed in (9, 10)  # the minute may turn while this runs
    assert report.until_ms == report.since_ms + report.candles * MINUTE
    assert imported_spans("BTCUSDT") == ((report.since_ms, report.until_ms),)
    with pytest.raises(InvalidValueError, match="no closed candle to import"):
        import_candles(synthetic_market(3, 20, now + 10 * MINUTE), "BTCUSDT")


def test_unordered_candles_are_refused_before_anything_is_written():
    market = synthetic_market(3, 10, START)
    for bad in (market[::-1], market[[0, 1, 1, 2]]):
        with pytest.raises(InvalidValueError, match="is not later than the one before it"):
            import_candles(bad, "BTCUSDT")
    assert PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 1, START, START + MINUTE) is None
    assert imported_spans("BTCUSDT") == ()


def test_imports_side_by_side_note_all_their_windows():
    """Eight threads import a window each; none of the notes is lost, and together they are one span."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda day: import_candles(synthetic_market(1, 100, START + day * 100 * MINUTE), "BTCUSDT"), range(8)))
    assert imported_spans("BTCUSDT") == ((START, START + 800 * MINUTE),)


@pytest.mark.parametrize(
    "moment", ["9" * 5000, "0001-01-01T00:00:00+05:00", "1969-12-31T23:59:00Z"], ids=["5,000 digits", "year 0", "before 1970"]
)
def test_time_that_no_candle_has_names_its_line(tmp_path, moment):
    path = tmp_path / "bad.csv"
    path.write_text(f"open_time,open,high,low,close,volume\n{moment},1,1,1,1,1\n")
    with pytest.raises(InvalidValueError, match=r"bad\.csv, line 2: open_time"):
        read_klines(path)
