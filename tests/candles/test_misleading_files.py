"""Files that mean something else than they seem to: read right, or refused; never wrong without a word."""

from __future__ import annotations

import io
import json
import os
import zipfile

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hand_market import MINUTE, START

from backtest_kit_mongo.candles import to_columns, to_pandas
from backtest_kit_mongo.errors import BacktestKitError, InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import import_candles, read_candle_files, synthetic_market

pytestmark = pytest.mark.once

HEADER = "timestamp,open,high,low,close,volume\n"
DAY = 1440 * MINUTE


def row(time, volume="1", separator=","):
    return separator.join((str(time), "10", "12", "9", "11", volume)) + "\n"


def rows(count=10, step=MINUTE, start=START):
    return "".join(row(start + index * step) for index in range(count))


@pytest.fixture
def read(tmp_path):
    def read(content, name="k.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_candle_files(path, **options)

    return read


def minutes(result):
    return ((result.candles["timestamp"] - START) // MINUTE).tolist()


# ---------------------------------------------------------------- times


def test_offsets_of_some_times(read):
    for times in (("2023-03-01 00:00:00", "2023-03-01 02:01:00+02:00"), ("2023-03-01 00:00:00+00:00", "2023-03-01 00:01:00")):
        assert minutes(read(HEADER + "".join(map(row, times)))) == [0, 1]


def test_dates_of_another_kind_do_not_tell_where_the_day_stands(read):
    for first in ("2022-12-31", "31.12.2022"):
        text = HEADER + row(first) + "".join(row(f"1/{day}/2023") for day in range(1, 6))
        with pytest.raises(InvalidValueError, match="line 3: open_time '1/1/2023': the day or the month may come first"):
            read(text, interval="1d")


def test_later_rows_tell_where_the_day_stands(read):
    times = pandas.date_range("2023-03-01", periods=20 * 1440, freq="min")
    text = "".join(row(f"{time.month}/{time.day}/{time.year} {time:%H:%M}") for time in times)
    assert minutes(read(text)) == list(range(20 * 1440))
    text = "".join(row(f"{time.day}/{time.month}/{time.year} {time:%H:%M}") for time in times)
    assert minutes(read(text)) == list(range(20 * 1440))


def test_numbers_with_the_digits_of_a_date(read, tmp_path):
    for digits in ("20230301", "20230302", "20230303"), ("20230301000000", "20230302000000", "20230303000000"):
        expected = [0, 1440, 2880]
        assert minutes(read(HEADER + "".join(map(row, digits)), interval="1d")) == expected
        frame = pandas.DataFrame({"date": [int(text) for text in digits], "open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1})
        assert ((to_columns(frame, "1d")["timestamp"] - START) // MINUTE).tolist() == expected
        frame.to_parquet(tmp_path / "k.parquet")
        assert minutes(read_candle_files(tmp_path / "k.parquet", interval="1d", off_grid="snap")) == expected
    for digits in ("2023030100", "20230301000000000"):
        with pytest.raises(InvalidValueError, match=r"is in the future(.|\n)*another unit"):
            read(HEADER + row(digits), off_grid="snap")


def test_the_open_time_beats_a_local_date_and_time(read):
    header = "open_time,date,time,open,high,low,close,volume\n"
    assert minutes(read(header + f"{START},2023-03-01,05:00,10,12,9,11,1\n")) == [0]
    joined = header + f"{START},2023-03-01,05:00,10,12,9,11,1\n\ufeff" + header + f"{START + MINUTE},2023-03-01,05:01,10,12,9,11,1\n"
    assert minutes(read(joined)) == [0, 1]


def test_less_than_a_microsecond_and_far_dates(read):
    with pytest.raises(InvalidValueError, match="is not a whole number of milliseconds"):
        read(HEADER + row("2023-03-01T00:00:00.0000001"))
    with pytest.raises(InvalidValueError, match="before 1970"):
        read(HEADER + row("1969-12-31T23:59:00Z"))
    far = pandas.DataFrame({"open": [1.0], "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0})
    far["date"] = np.array([2**61], "datetime64[s]")
    with pytest.raises(InvalidValueError, match=r"candle 0: open_time .* is too far from 1970"):
        to_columns(far, "1m")


@pytest.mark.parametrize(
    ("header", "time"),
    [
        ("<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>", "20230301,000500"),
        ("time_period_start,time_open,open,high,low,close,volume", "2023-03-01T00:05:00.0000000Z,2023-03-01T00:05:14Z"),
        ("timeOpen,timeClose,timestamp,open,high,low,close,volume", "2023-03-01T00:05Z,2023-03-01T00:06Z,2023-03-01T00:06Z"),
        ("Local time,Open,High,Low,Close,Volume", "01.03.2023 01:05:00.000 GMT+0100"),
        ("t,o,h,l,c,v", str(START + 5 * MINUTE)),
        ("timestamp,open,high,low,close,volume,,", str(START + 5 * MINUTE)),
        ("Price,Open,High,Low,Close,Volume\nTicker,BTC-USD,BTC-USD,BTC-USD,BTC-USD,BTC-USD\nDatetime,,,,,", "2023-03-01 00:05:00+00:00"),
    ],
)
def test_other_headers(read, header, time):
    more = ",," if header.endswith(",,") and not header.startswith("Price") else ""
    assert minutes(read(f"{header}\n{time},10,12,9,11,1{more}\n,,,,,\n")) == [5]


# ---------------------------------------------------------------- numbers and columns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + row(START)[:-1] + row(START + MINUTE), "line 2: the line has 11 columns, not 6"),
        (HEADER + row(START) + f"{START + MINUTE},10,12,9,11,77,1.5\n", "line 3: the line has 7 columns, not 6"),
        (row(START) + f"{START + MINUTE},10,12,9,11,1,5\n", "line 2: the line has 7 columns, not 6"),
        (HEADER + f"{START},23,900,23,100,23,100\n", "line 2: the line has 7 columns, not 6"),
        (f"{START},10,12,9,11,1,0,0,0,0,0,0\n{START + MINUTE},10,12,9,11,1,0,0\n", "line 2: the line has 8 columns, not 12"),
    ],
)
def test_rows_that_are_longer_or_shorter_than_the_others(read, text, words):
    with pytest.raises(InvalidValueError, match=words):
        read(text)


def test_decimal_commas_and_points(read):
    header = "time;open;high;low;close;volume\n"
    with pytest.raises(InvalidValueError, match=r"line 2: open is '10,5': the comma or the point may separate"):
        read(header + "2023-03-01 00:00;10,5;12,5;9,5;11,5;1.234\n")
    many = "".join(f"{START + index * MINUTE};1,085;1,085;1,085;1,085;1,000\n" for index in range(6000))
    with pytest.raises(InvalidValueError, match="line 2: open is '1,085'"):
        read(header + many)
    read_all = read(header + many + f"{START + 6000 * MINUTE};1,085;1,1;1,085;1,085;0,5\n")  # a later row tells
    assert set(read_all.candles["open"].tolist()) == {1.085}
    with pytest.raises(InvalidValueError, match=r"line 5002: open is '1,085'"):
        read(header + many + f"{START + 6000 * MINUTE};1,085;1.1;1,085;1,085;0,5\n")


@pytest.mark.parametrize(
    ("header", "symbol", "volume"),
    [
        ("Volume USDT,Volume BTC", "BTCUSDT", "2"),
        ("Volume BTC,Volume USDT", "BTC/USDT", "1"),
        ("Volume USDT,Volume BTC", None, None),
        ("volume_quote,volume_base", None, "2"),
        ("Volume MA,Volume SMA 20", "BTCUSDT", None),
        ("volume_buy,volume_sell", "BTCUSDT", None),
        ("amount,vol", None, None),
        ("vol,vol_ccy", None, None),
        ("vol,tickvol", None, "1"),
    ],
)
def test_which_volume_it_is(read, header, symbol, volume):
    text = f"time,open,high,low,close,{header}\n{START},10,12,9,11,1,2\n"
    if volume is None:
        with pytest.raises(InvalidValueError, match=r"volume may be that of the base or|column volume is missing"):
            read(text, symbol=symbol)
        assert not read(text, symbol=symbol, no_volume=True).candles["volume"].any()
    else:
        assert read(text, symbol=symbol).candles["volume"].tolist() == [float(volume)]


def test_eight_columns_without_a_header(read):
    kraken = "".join(f"{START // 1000 + 60 * index},10,12,9,11,{10.5 + index / 10},{index},5\n" for index in range(3))
    assert read(kraken).candles["volume"].tolist() == [0.0, 1.0, 2.0]
    mexc = "".join(f"{START + MINUTE * index},10,12,9,11,10,{START + MINUTE * (index + 1) - 1},5\n" for index in range(3))
    assert read(mexc).candles["volume"].tolist() == [10.0] * 3
    with pytest.raises(InvalidValueError, match="the sixth or the seventh may be the volume"):
        read(kraken.replace(",10.6,", ",13,"))


# ---------------------------------------------------------------- which series


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for number, name in enumerate(names):
            packed.writestr(name, rows(3, start=START + number * 1000 * MINUTE) if name.endswith("csv") else "status: 0")
    return buffer.getvalue()


def test_an_archive_of_several_series(read):
    with pytest.raises(InvalidValueError, match="holds several symbols: BTCUSDT, ETHUSDT"):
        read(archive("BTCUSDT-1m-2023-03.csv", "ETHUSDT-1m-2023-04.csv"), "k.zip")
    assert minutes(read(archive("BTCUSDT-1m-2023-03.csv", "ETHUSDT-1m-2023-04.csv"), "k.zip", symbol="ETHUSDT")) == [1000, 1001, 1002]
    with pytest.raises(InvalidValueError, match=r"names say|holds no candles of 1h|holds no candles of BTCUSDT 1h"):
        read(archive("BTCUSDT-1m-2023-03.csv"), "k.zip", interval="1h")
    assert minutes(read(archive("BTCUSDT-1m-2023-03.csv", "BTCUSDT-1h-2023-03.csv"), "k.zip", interval="1m")) == [0, 1, 2]
    assert minutes(read(archive("DAT_ASCII_EURUSD_M1_2023.csv", "DAT_ASCII_EURUSD_M1_2023.txt"), "k.zip")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        (("BTC-USD.csv", "ETH-USD.csv"), {"symbol": "BTCUSD"}, [0, 1, 2]),
        (("BTC-USD.csv", "ETH-USD.csv"), {}, "may be of several series: BTC-USD.csv, ETH-USD.csv"),
        (("AAPL.csv", "MSFT.csv"), {"symbol": "MSFT"}, [1000, 1001, 1002]),
        (("2023-01.csv", "2023-02.csv", "config.json", "notes.txt"), {"symbol": "BTCUSDT"}, [0, 1, 2, 1000, 1001, 1002]),
        (
            ("BTCUSDT-1m-2023-01.csv", "BTCUSDT-1mo-2023-01.csv", "ETHUSDT-1w-2023-01.csv"),
            {"symbol": "BTCUSDT", "interval": "1m"},
            [0, 1, 2],
        ),
        (("BTC_USDT_USDT-1m-futures.csv", "BTC_USDT_USDT-1m-mark.csv"), {}, "may be of several series"),
        (("Binance_BTCUSDT_2023_minute.csv", "Binance_ETHUSDT_2023_minute.csv"), {"symbol": "ETHUSDT"}, [1000, 1001, 1002]),
        (("BTC_USDT-1m-2023-01.csv", "BTCUSDT-1m-2023-02.csv"), {}, [0, 1, 2, 1000, 1001, 1002]),
        (("BTCUSDT-7m.csv",), {}, "unknown interval '7m'"),
    ],
)
def test_a_folder_of_several_series(tmp_path, names, options, expected):
    for number, name in enumerate(names):
        (tmp_path / name).write_text(rows(3, start=START + number * 1000 * MINUTE) if name.endswith("csv") else "{}")
    if isinstance(expected, str):
        with pytest.raises(InvalidValueError, match=expected):
            read_candle_files(tmp_path, **options)
    else:
        assert minutes(read_candle_files(tmp_path, **options)) == expected


def test_files_of_another_symbol(read, tmp_path):
    (tmp_path / "BTCUSDT-1m-2023-03.csv").write_text(rows(3))
    (tmp_path / "ETHUSDT-1m-2023-04.csv").write_text(rows(3, start=START + DAY))
    paths = [tmp_path / "BTCUSDT-1m-2023-03.csv", tmp_path / "ETHUSDT-1m-2023-04.csv"]
    with pytest.raises(InvalidValueError, match="the files are of several symbols: BTCUSDT, ETHUSDT"):
        read_candle_files(paths, symbol="BTCUSDT")
    assert read_candle_files(paths[1], symbol="BTCUSDT").notes == ("the file is named after ETHUSDT; its candles are stored as BTCUSDT",)
    text = "symbol," + HEADER + f"BTC,{row(START)}" + f"ETH,{row(START)}" + HEADER + row(START + MINUTE)
    with pytest.raises(InvalidValueError, match="only some of its headers have a symbol"):
        read(text, symbol="BTC")


@pytest.mark.parametrize(("count", "step", "closest"), [(2, 5, "5m"), (9, 30, "30m"), (40, 1440, "1d"), (12, 720, "12h")])
def test_candles_that_are_further_apart_than_their_interval(read, tmp_path, count, step, closest):
    text = rows(count, step * MINUTE)
    with pytest.raises(InvalidValueError, match=f"no two candles are closer than {closest}, so their interval is probably not 1m"):
        read(text)
    noted = read(text, interval="1m")
    assert len(noted.candles) == count
    assert noted.notes == ((f"no two candles are closer than {closest}, although their interval is 1m",) if count >= 10 else ())
    for index in range(count):  # one candle a file
        (tmp_path / f"2023-{index:03}.csv").write_text(rows(1, start=START + index * step * MINUTE))
    (tmp_path / "k.csv").unlink()
    with pytest.raises(InvalidValueError, match="their interval is probably not 1m"):
        read_candle_files(tmp_path, symbol="X")
    with pytest.raises(InvalidValueError, match=r"590 of 600 candles .* are off the 1h grid, too many"):
        read(rows(600), interval="1h", off_grid="skip")


# ---------------------------------------------------------------- tables

MARKET = synthetic_market(4, 50, START)
FRAME = to_pandas(MARKET)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (FRAME.rename_axis("close_time"), "the index close_time holds close times"),
        (FRAME.assign(interval="1h"), "holds candles of interval 1h, not of 1m"),
        (FRAME.assign(symbol="ETHUSDT"), "holds candles of symbol ETHUSDT, not of BTCUSDT"),
        (FRAME.assign(high=FRAME["low"] - 1), "candle 0 .* cannot be: open"),
        (FRAME.assign(volume=-1.0), "candle 0 .* cannot be: .* volume -1"),
        (FRAME.assign(close=[b"1"] * 50), "candle 0: close is b'1', not a number"),
    ],
)
def test_tables_that_are_not_what_they_are_taken_for(mongo, table, words):
    with pytest.raises(InvalidValueError, match=words):
        import_candles(table, "BTCUSDT")


def test_tables_of_other_forms():
    ticks = FRAME.rename(columns={"volume": "tick_volume"}).assign(real_volume=0)
    assert (to_columns(ticks, "1m") == MARKET).all()
    numbered = FRAME.set_axis(pandas.Index(MARKET["timestamp"]))
    assert (to_columns(numbered, "1m") == MARKET).all()
    assert (to_columns(numbered.set_axis(FRAME.index.astype(str)), "1m") == MARKET).all()
    doubled = pyarrow.table([*pyarrow.Table.from_pandas(FRAME.reset_index()).columns, [1] * 50, [2] * 50], names=[*"tohlcv", "x", "x"])
    assert (to_columns(doubled, "1m") == MARKET).all()
    assert (to_columns(pyarrow.Table.from_pandas(FRAME.reset_index()).to_reader(), "1m") == MARKET).all()
    for other in (FRAME["close"], pyarrow.chunked_array([[1.0]])):
        # A Series of pandas 2 is no Arrow table, but a list of what it holds.
        with pytest.raises(InvalidTypeError, match=r"candles must be a table or a list of candles, got|candle 0 must be a dict.*got float"):
            to_columns(other, "1m")


# ---------------------------------------------------------------- only errors of the library


@pytest.mark.parametrize(
    "text", ["[1,2,3]", '{"data":[1,2]}', "[null]", "[1.5]", "[true]", "[]\n" + "[" * 100_000, "[" * 100_000, '{"a":', "[[]]", "{}", "[{}]"]
)
def test_json_of_other_things(read, text):
    with pytest.raises(BacktestKitError, match=r"k\.json"):
        read(text, "k.json")


def test_paths_of_other_kinds(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "is not a regular file"),
        ("a\0b.csv", "a path cannot be used"),
        ("x" * 5000 + ".csv", r"^.{0,260} cannot be read: File name too long"),
        ("", "a path is empty"),
        ("\ud800.csv", "cannot be"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            read_candle_files(path)
    with pytest.raises(InvalidTypeError, match="symbol must be a str, got int"):
        read_candle_files(tmp_path, symbol=5)


def test_a_line_without_an_end_and_a_tar_archive(read):
    with pytest.raises(InvalidValueError, match="a line of more than 1,048,576 characters"):
        read("1" * 3_000_000)
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        packed.addfile(tarfile.TarInfo("a.csv"))
    with pytest.raises(InvalidValueError, match="is a tar archive"):
        read(buffer.getvalue(), "k.tar.gz")
    with pytest.raises(InvalidValueError, match=r"^(.{0,350}\n?){1,2}$"):
        read("time,open,high,low,close,volume_" + "z" * 3000 + "\n" + row(START))
    assert json.dumps(minutes(read(row(START)))) == "[0]"
