"""Exchanges made of files: every format, recognized by the file name or by arguments."""

from __future__ import annotations

import gzip
import os
import sys
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import to_arrow
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from backtest_kit_mongo.runner import CandleConflictError, add_strategy, clear_strategies, imported_spans, run_backtest, synthetic_market
from backtest_kit_mongo.runner.market.exchange import clear_exchanges, fetch_missing, find_exchange
from backtest_kit_mongo.runner.market.file_exchange import add_file_exchange

pytestmark = pytest.mark.once

MARKET = synthetic_market(2, 1500, START)
END = START + 1500 * MINUTE


@pytest.fixture(autouse=True)
def nothing_registered():
    clear_exchanges()
    yield
    clear_exchanges()


def text(market, header="timestamp,open,high,low,close,volume\n"):
    return header + "".join(f"{stamp},{','.join(map(repr, values))}\n" for stamp, *values in market.tolist())


def write_csv(path, market=MARKET):
    path.write_text(text(market))


def write_binance(path, market=MARKET):
    path.write_text(text(market, header="").replace("\n", ",0,0,0,0,0,0\n"))


def write_gzip(path, market=MARKET):
    path.write_bytes(gzip.compress(text(market).encode()))


def write_parquet(path, market=MARKET):
    pyarrow.parquet.write_table(to_arrow(market), path)


def write_whole_numbers(path, market=MARKET):
    table = {"open_time": market["timestamp"], **{name.title(): market[name] for name in market.dtype.names[1:]}}
    pyarrow.parquet.write_table(pyarrow.table({name: np.ascontiguousarray(column) for name, column in table.items()}), path)


def write_nanoseconds(path, market=MARKET):
    times = pyarrow.array(market["timestamp"] * 1_000_000, pyarrow.timestamp("ns"))
    pyarrow.parquet.write_table(to_arrow(market).set_column(0, "timestamp", times), path)


@pytest.mark.parametrize(
    ("file", "write"),
    [
        ("BTCUSDT-1m.csv", write_csv),
        ("BTCUSDT-1m-2023-03.csv", write_binance),
        ("BTCUSDT-1m.CSV.gz", write_gzip),
        ("BTCUSDT-1m.parquet", write_parquet),
        ("BTCUSDT-1m.parquet", write_whole_numbers),
        ("BTCUSDT-1m.parquet", write_nanoseconds),
    ],
)
def test_a_file_and_a_folder_give_what_was_written(mongo, tmp_path, file, write):
    write(tmp_path / file)
    (tmp_path / "readme.txt").write_text("no candles")
    add_file_exchange("file", tmp_path / file)
    add_file_exchange("folder", str(tmp_path))
    assert find_exchange("file").registered_at.startswith(f"{__file__}:")
    for name in ("file", "folder"):
        assert fetch_missing("BTCUSDT", "1m", name, START, END) == 1500
        assert (kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", name, 1500, START) == MARKET).all()


def test_a_folder_of_many_series_and_months(mongo, tmp_path):
    hours = synthetic_market(9, 24, START)
    hours["timestamp"] = START + 60 * MINUTE * np.arange(24)
    write_csv(tmp_path / "BTCUSDT-1m-2023-04.csv", MARKET[700:])
    write_parquet(tmp_path / "BTCUSDT-1m-2023-03.parquet", MARKET[:690])
    write_gzip(tmp_path / "ETH-PERP-1h.csv.gz", hours)
    add_file_exchange("x", tmp_path)
    assert fetch_missing("BTCUSDT", "1m", "x", START - 10 * MINUTE, END + 10 * MINUTE) == 1490
    assert imported_spans("BTCUSDT", "1m", "x") == ((START, START + 690 * MINUTE), (START + 700 * MINUTE, END))
    assert fetch_missing("ETH-PERP", "1h", "x", START, START + 24 * 60 * MINUTE) == 24
    with pytest.raises(InvalidValueError, match=r"exchange 'x' has no 1h candles of BTCUSDT\n.*its files hold BTCUSDT 1m, ETH-PERP 1h"):
        fetch_missing("BTCUSDT", "1h", "x", START, START + 24 * 60 * MINUTE)


def test_a_file_without_a_telling_name(mongo, tmp_path):
    write_csv(tmp_path / "candles.csv")
    with pytest.raises(InvalidValueError, match=r"cannot tell which symbol .*candles\.csv is for"):
        add_file_exchange("x", tmp_path / "candles.csv")
    add_file_exchange("x", tmp_path / "candles.csv", "BTCUSDT")
    assert fetch_missing("BTCUSDT", "1m", "x", START, END) == 1500
    write_csv(tmp_path / "hours.csv", synthetic_market(9, 1, START))
    add_file_exchange("y", tmp_path / "hours.csv", symbol="BTCUSDT", interval="1h")
    assert fetch_missing("BTCUSDT", "1h", "y", START, START + 60 * MINUTE) == 1


def test_months_are_not_minutes(mongo, tmp_path):
    write_csv(tmp_path / "BTCUSDT-1M.csv")
    add_file_exchange("x", tmp_path)
    with pytest.raises(InvalidValueError, match=r"open_time .* is not on the 1M grid: it must be the first of a month, 00:00 UTC"):
        fetch_missing("BTCUSDT", "1M", "x", 1_675_209_600_000, 1_682_899_200_000)
    with pytest.raises(InvalidValueError, match="exchange 'x' has no 1m candles of BTCUSDT"):
        fetch_missing("BTCUSDT", "1m", "x", START, END)


def test_a_candle_that_was_open_when_the_file_was_written_is_left_out(mongo, tmp_path):
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    market = synthetic_market(2, 10, now - 100 * MINUTE)
    file = tmp_path / "BTCUSDT-1m.csv"
    write_csv(file, market)
    written = (now - 91 * MINUTE) / 1000 + 30  # in the middle of the last candle
    os.utime(file, (written, written))
    add_file_exchange("x", file)
    assert fetch_missing("BTCUSDT", "1m", "x", now - 100 * MINUTE, now - 80 * MINUTE) == 9


def test_what_cannot_be_registered(tmp_path):
    with pytest.raises(InvalidValueError, match="does not exist"):
        add_file_exchange("x", tmp_path / "absent.csv")
    with pytest.raises(InvalidTypeError, match="path must be a str or a path"):
        add_file_exchange("x", 3)
    write_csv(tmp_path / "BTCUSDT-1m.csv")
    with pytest.raises(InvalidValueError, match="the files of a folder have them in their names"):
        add_file_exchange("x", tmp_path, "BTCUSDT")
    with pytest.raises(InvalidValueError, match="unknown interval '7m'"):
        add_file_exchange("x", tmp_path / "BTCUSDT-1m.csv", interval="7m")


def spoilt(column, row, value):
    market = MARKET[:10].copy()
    market[column][row] = value
    return market


@pytest.mark.parametrize(
    ("name", "write", "market", "words"),
    [
        ("csv", write_csv, spoilt("timestamp", 3, START), "line 5: open_time .* appears twice with different values"),
        ("parquet", write_parquet, spoilt("timestamp", 3, START), "row 3: open_time .* appears twice with different values"),
        ("parquet", write_parquet, spoilt("close", 3, np.nan), "close is nan, not a finite number"),
        ("parquet", write_parquet, spoilt("timestamp", 3, START + 1), "row 3: open_time .* is not a multiple of the interval, 1m"),
        ("parquet", write_parquet, MARKET[:0], "holds no candles"),
        (
            "parquet",
            write_whole_numbers,
            spoilt("timestamp", slice(None), 1000),
            "open_time 1000 is neither a date",
        ),
        (
            "parquet",
            lambda path, market: pyarrow.parquet.write_table(to_arrow(market).drop(["low"]), path),
            MARKET,
            "column low is missing",
        ),
        (
            "parquet",
            lambda path, market: pyarrow.parquet.write_table(to_arrow(market).drop(["timestamp"]), path),
            MARKET,
            "column open_time is missing",
        ),
        ("parquet", lambda path, market: path.write_bytes(b"PAR1 and no more"), MARKET, "cannot be read"),
    ],
)
def test_a_bad_file_is_named(mongo, tmp_path, name, write, market, words):
    file = tmp_path / f"BTCUSDT-1m.{name}"
    write(file, market)
    add_file_exchange("x", file)
    with pytest.raises(InvalidValueError, match=rf"BTCUSDT-1m\.{name}.*{words}"):
        fetch_missing("BTCUSDT", "1m", "x", START, END)


def test_two_files_with_the_same_candle(mongo, tmp_path):
    write_csv(tmp_path / "BTCUSDT-1m-a.csv", MARKET[:100])
    write_csv(tmp_path / "BTCUSDT-1m-b.csv", MARKET[90:])
    add_file_exchange("x", tmp_path)
    assert fetch_missing("BTCUSDT", "1m", "x", START, END) == len(MARKET)  # equal candles are read once
    other = MARKET[90:].copy()
    other["close"][9] = other["open"][9]
    write_csv(tmp_path / "BTCUSDT-1m-b.csv", other)
    add_file_exchange("y", tmp_path)
    words = r"different candles of 2023-03-01T01:39:00Z: .*1m-a\.csv, line 101 and .*1m-b\.csv, line 11"
    with pytest.raises(InvalidValueError, match=words):
        fetch_missing("BTCUSDT", "1m", "y", START, END)


def test_without_pyarrow_the_error_says_what_to_install(mongo, tmp_path, monkeypatch):
    write_parquet(tmp_path / "BTCUSDT-1m.parquet")
    add_file_exchange("x", tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "backtest-kit-mongo\[arrow\]"'):
        fetch_missing("BTCUSDT", "1m", "x", START, END)


def test_a_backtest_does_not_run_on_other_candles_than_those_of_the_file(mongo, tmp_path):
    """The file was replaced after its candles had been stored."""
    write_csv(tmp_path / "BTCUSDT-1m.csv")
    add_file_exchange("files", tmp_path / "BTCUSDT-1m.csv")
    fetch_missing("BTCUSDT", "1m", "files", START, END)
    add_strategy("quiet", interval="5m", get_signal=lambda symbol, when: None)
    try:
        assert run_backtest("BTCUSDT", exchange_name="files").minutes == 1500
        clear_exchanges()
        other = MARKET.copy()
        other["volume"][700] += 1
        write_csv(tmp_path / "BTCUSDT-1m.csv", other)
        add_file_exchange("files", tmp_path / "BTCUSDT-1m.csv")
        with pytest.raises(CandleConflictError, match="1 of 1,500 candles of BTCUSDT 1m are stored on 'files' with other values"):
            run_backtest("BTCUSDT", exchange_name="files")
        assert run_backtest("BTCUSDT", exchange_name="files", start_ms=START, end_ms=START + 700 * MINUTE).minutes == 700
    finally:
        clear_strategies()
