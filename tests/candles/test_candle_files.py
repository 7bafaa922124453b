"""Candle files as people have them: each form with its values, and what is refused because it may mean two things."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from datetime import UTC, datetime

import numpy as np
import pandas
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hand_market import MINUTE, START

from backtest_kit_mongo.candles import to_arrow, to_pandas
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import read_candle_files, read_klines, synthetic_market

pytestmark = pytest.mark.once

MARKET = synthetic_market(3, 60, START)
ROWS = MARKET.tolist()
HEADER = "timestamp,open,high,low,close,volume\n"
FRAME = to_pandas(MARKET)


def lines(rows=ROWS, *, time=str, separator=",", form="{time}{s}{o}{s}{h}{s}{l}{s}{c}{s}{v}", start=0):
    """Return rows of text; ``time`` spells an open time in ms, ``form`` orders the columns."""
    return "".join(
        form.format(n=start + index, time=time(stamp), s=separator, o=o, h=h, l=low, c=c, v=v) + "\n"
        for index, (stamp, o, h, low, c, v) in enumerate(rows)
    )


def moment(stamp):
    return datetime.fromtimestamp(stamp / 1000, UTC)


def iso(stamp):
    return f"{moment(stamp):%Y-%m-%d %H:%M:%S}"


def by_format(form):
    return lambda stamp: moment(stamp).strftime(form)


BINANCE = "{time},{o},{h},{l},{c},{v},0,0,0,0,0,0"

TEXTS = {
    "pandas with times in the index": (FRAME.rename_axis(None).to_csv(), "a header by pandas, times in the index"),
    "pandas with row numbers": (FRAME.reset_index().to_csv(), "a header by pandas, with row numbers"),
    "pandas with a named index": (FRAME.to_csv(), "a header"),
    "pandas without time zone": (FRAME.tz_localize(None).to_csv(), "a header"),
    "Binance": (lines(form=BINANCE), "Binance klines"),
    "Binance since 2025, in microseconds": (lines(form=BINANCE, time=lambda stamp: stamp * 1000), "Binance klines"),
    "Binance with a header in the middle": (
        lines(ROWS[:30], form=BINANCE) + "open_time,open,high,low,close,volume,close_time,a,b,c,d,e\n" + lines(ROWS[30:], form=BINANCE),
        "Binance klines",
    ),
    "months joined, the header repeated": (HEADER + lines(ROWS[:30]) + HEADER + lines(ROWS[30:]), "a header"),
    "months joined, microseconds after milliseconds": (lines(ROWS[:30]) + lines(ROWS[30:], time=lambda stamp: stamp * 1000), "6 columns"),
    "months joined, columns in another order after a second header": (
        HEADER + lines(ROWS[:30]) + "close,low,high,open,volume,time\n" + lines(ROWS[30:], form="{c},{l},{h},{o},{v},{time}", time=iso),
        "a header",
    ),
    "months joined that overlap": (HEADER + lines(ROWS[:35]) + HEADER + lines(ROWS[25:]), "a header"),
    "the last minute of a month again": (HEADER + lines(ROWS[:31]) + lines(ROWS[30:]), "a header"),
    "semicolons": (HEADER.replace(",", ";") + lines(separator=";"), "a header"),
    "semicolons and decimal commas": (
        HEADER.replace(",", ";") + lines(separator=";", time=iso).replace(".", ","),
        "a header",
    ),
    "tabs": (HEADER.replace(",", "\t") + lines(separator="\t", time=iso), "a header"),
    "bars": (lines(separator="|"), "6 columns"),
    "CryptoDataDownload": (
        "https://www.CryptoDataDownload.com\nunix,date,symbol,open,high,low,close,Volume BTC,Volume USDT,tradecount\n"
        + "".join(reversed(lines(form="{time}.0,x,BTC/USDT,{o},{h},{l},{c},{v},7.5,3").splitlines(keepends=True))),
        "an export of CryptoDataDownload",
    ),
    "CryptoDataDownload with the quote asset first": (
        "# https://www.cryptodatadownload.com\nUnix,Date,Symbol,Open,High,Low,Close,Volume USDT,Volume BTC\n"
        + lines(form="{time},x,BTCUSDT,{o},{h},{l},{c},7.5,{v}", time=lambda stamp: stamp // 1000),
        "an export of CryptoDataDownload",
    ),
    "CryptoDataDownload of 2020": (
        "Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD\n"
        + lines(form="{time},BTCUSD,{o},{h},{l},{c},{v},7.5", time=by_format("%Y-%m-%d %I:%M-%p")),
        "a header",
    ),
    "MetaTrader 5": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        + lines(form="{time}\t{o}\t{h}\t{l}\t{c}\t9\t{v}\t12", time=by_format("%Y.%m.%d\t%H:%M:%S")),
        "an export of MetaTrader",
    ),
    "MetaTrader 5 without real volume": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
        + lines(form="{time}\t{o}\t{h}\t{l}\t{c}\t{v}\t0\t12", time=by_format("%Y.%m.%d\t%H:%M:%S")),
        "an export of MetaTrader",
    ),
    "MetaTrader 4": (lines(time=by_format("%Y.%m.%d,%H:%M")), "an export of MetaTrader"),
    "date and time in a header": ("Date,Time,Open,High,Low,Close,Volume\n" + lines(time=by_format("%Y-%m-%d,%H:%M")), "a header with date"),
    "Kraken": (lines(form="{time},{o},{h},{l},{c},{v},17", time=lambda stamp: stamp // 1000), "7 columns"),
    "Kraken's REST API": (lines(form="{time},{o},{h},{l},{c},{o},{v},17", time=lambda stamp: stamp // 1000), "8 columns"),
    "seconds with a fraction": (lines(time=lambda stamp: f"{stamp // 1000}.000"), "6 columns"),
    "nanoseconds": (HEADER + lines(time=lambda stamp: stamp * 1_000_000), "a header"),
    "Dukascopy": ("Gmt time,Open,High,Low,Close,Volume\n" + lines(time=by_format("%d.%m.%Y %H:%M:%S.000")), "a header"),
    "digits of a date": (lines(separator=";", time=by_format("%Y%m%d %H%M%S")), "6 columns"),
    "digits of date and minute": (lines(time=by_format("%Y%m%d%H%M")), "6 columns"),
    "other names": ("Time,O,H,L,C,V\n" + lines(time=iso), "a header"),
    "the open time after the prices": ("open,high,low,close,volume,open time\n" + lines(form="{o},{h},{l},{c},{v},{time}"), "a header"),
    "comments and empty lines": ("# exported today\n\nsep=,\n" + HEADER + "\n" + lines() + "\n\n", "a header"),
    "an export": (
        "exchangeName,symbol,interval,timestamp,open,high,low,close,volume\n"
        + lines(form="binance,BTCUSDT,1m,{time},{o},{h},{l},{c},{v}", time=lambda stamp: iso(stamp).replace(" ", "T") + ".000Z"),
        "an export of backtest-kit-mongo",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_of_every_form_gives_the_candles(tmp_path, name):
    text, form = TEXTS[name]
    path = tmp_path / "candles"
    path.write_text(text)
    read = read_candle_files(path, symbol="BTCUSDT")
    assert read.candles.tolist() == ROWS
    assert read.interval == "1m"
    assert read.files[0][0] == str(path)
    assert read.files[0][1].startswith(f"CSV, {form}")


def test_the_report_says_what_was_done(tmp_path):
    expected = {
        "months joined that overlap": "10 repeated with the same values, read once",
        "the last minute of a month again": "1 repeated with the same values, read once",
        "CryptoDataDownload": "newest first",
        "Kraken": "times in seconds",
        "Binance since 2025, in microseconds": "times in microseconds",
        "months joined, microseconds after milliseconds": "times in microseconds and milliseconds",
        "MetaTrader 4": "MetaTrader writes those of the broker",
        "MetaTrader 5 without real volume": "volume from <TICKVOL>",
        "Kraken's REST API": "the sixth is an average price",
    }
    for name, words in expected.items():
        path = tmp_path / "candles"
        path.write_text(TEXTS[name][0])
        assert any(words in note for note in read_candle_files(path).notes), name
    path.write_text(TEXTS["pandas with a named index"][0])
    assert read_candle_files(path).notes == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_other_encodings_with_a_mark(tmp_path, encoding):
    path = tmp_path / "k.csv"
    path.write_bytes(TEXTS["MetaTrader 5"][0].encode(encoding))
    assert read_candle_files(path).candles.tolist() == ROWS


OBJECTS = [dict(zip(("timestamp", "open", "high", "low", "close", "volume"), row, strict=True)) for row in ROWS]

JSONS = {
    "freqtrade and ccxt": (json.dumps([list(row) for row in ROWS]), "rows as freqtrade and ccxt write them"),
    "Binance's REST API": (json.dumps([[row[0], *map(str, row[1:]), 0, "0", 0, "0", "0", "0"] for row in ROWS]), "Binance klines"),
    "Kraken's REST API": (
        json.dumps(
            {
                "error": [],
                "result": {
                    "XXBTZUSD": [[t // 1000, *map(str, (o, h, low, c, o, v)), 5] for t, o, h, low, c, v in ROWS],
                    "last": ROWS[-1][0] // 1000,
                },
            }
        ),
        "8 columns",
    ),
    "objects": (json.dumps(OBJECTS), "objects"),
    "objects, one a line": ("\n".join(map(json.dumps, OBJECTS)), "objects"),
    "columns": (json.dumps({name: [row[name] for row in OBJECTS] for name in OBJECTS[0]}), "columns"),
    "pandas": (FRAME.to_json(date_format="iso"), "a header by pandas, times in the index"),
    "pandas before 3": (
        json.dumps({name: {str(row["timestamp"]): row[name] for row in OBJECTS} for name in FRAME.columns}),
        "a header by pandas, times in the index",
    ),
    "pandas, split": (
        json.dumps({"columns": list(FRAME.columns), "index": [row[0] for row in ROWS], "data": [list(row[1:]) for row in ROWS]}),
        "a header by pandas, times in the index",
    ),
    "pandas, records": (FRAME.reset_index().to_json(orient="records", date_format="iso"), "objects"),
    "a byte order mark": ("\ufeff" + json.dumps([list(row) for row in ROWS]), "rows as freqtrade"),
}


@pytest.mark.parametrize("name", JSONS)
def test_json_of_every_form_gives_the_candles(tmp_path, name):
    text, form = JSONS[name]
    path = tmp_path / "BTC_USDT-1m.json"
    path.write_text(text)
    read = read_candle_files(path)
    assert read.candles["timestamp"].tolist() == MARKET["timestamp"].tolist()
    for column in ("open", "high", "low", "close", "volume"):
        assert read.candles[column].tolist() == pytest.approx(MARKET[column].tolist(), rel=1e-9)  # pandas writes ten digits
    assert read.symbol == "BTC_USDT"
    assert form in read.files[0][1]


def table(unit, zone="UTC"):
    times = pyarrow.array(MARKET["timestamp"], pyarrow.timestamp("ms")).cast(pyarrow.timestamp(unit, zone))
    return to_arrow(MARKET).set_column(0, "timestamp", times)


ARROWS = {
    "seconds": lambda path: pyarrow.parquet.write_table(table("s"), path),
    "microseconds": lambda path: pyarrow.parquet.write_table(table("us"), path),
    "nanoseconds in Tokyo": lambda path: pyarrow.parquet.write_table(table("ns", "Asia/Tokyo"), path),
    "no time zone": lambda path: pyarrow.parquet.write_table(table("us", None), path),
    "whole microseconds": lambda path: pyarrow.parquet.write_table(
        table("us").set_column(0, "open_time", pyarrow.array(MARKET["timestamp"] * 1000)), path
    ),
    "seconds as floats": lambda path: pyarrow.parquet.write_table(
        table("us").set_column(0, "time", pyarrow.array(MARKET["timestamp"] / 1000)), path
    ),
    "text": lambda path: pyarrow.parquet.write_table(pyarrow.table({n: list(map(str, c)) for n, c in FRAME.reset_index().items()}), path),
    "pandas": lambda path: FRAME.to_parquet(path),
    "pandas, index without a name": lambda path: FRAME.rename_axis(None).to_parquet(path),
    "pandas, row numbers": lambda path: FRAME.reset_index().to_parquet(path),
    "Feather of freqtrade": lambda path: pyarrow.feather.write_feather(
        FRAME.reset_index().rename(columns={"timestamp": "date"}), str(path)
    ),
    "Feather, version 1": lambda path: pyarrow.feather.write_feather(FRAME.reset_index(), str(path), version=1),
    "Arrow": lambda path: pyarrow.feather.write_feather(table("us"), str(path), compression="uncompressed"),
}


@pytest.mark.filterwarnings("ignore:.*Feather V1.*:DeprecationWarning")
@pytest.mark.parametrize("name", ARROWS)
def test_parquet_and_feather_of_every_form_give_the_candles(tmp_path, name):
    path = tmp_path / "candles"
    ARROWS[name](path)
    read = read_candle_files(path)
    assert read.candles.tolist() == ROWS
    assert read.files[0][1].startswith(("Parquet, ", "Feather, "))
    assert ("freqtrade" in read.files[0][1]) == ("freqtrade" in name)


def test_an_export_to_parquet_is_read_back(tmp_path):
    whole = to_arrow(MARKET)
    for name, value in (("interval", "1m"), ("symbol", "BTCUSDT"), ("exchangeName", "binance")):
        whole = whole.add_column(0, name, pyarrow.array([value] * len(MARKET)))
    pyarrow.parquet.write_table(whole, tmp_path / "all.parquet")
    read = read_candle_files(tmp_path / "all.parquet", symbol="BTCUSDT", exchange="binance")
    assert (read.candles == MARKET).all()
    assert read.files[0][1] == "Parquet, an export of backtest-kit-mongo"


# ---------------------------------------------------------------- containers


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


MONTHS = {f"BTCUSDT-1m-2023-{month:02}.csv": lines(ROWS[20 * month - 20 : 20 * month], form=BINANCE) for month in (1, 2, 3)}


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        bz2.compress,
        lzma.compress,
        lambda content: zipped({"BTCUSDT-1m.csv": content}),
        lambda content: zipped({"a/BTCUSDT-1m.csv.gz": gzip.compress(content), "__MACOSX/._x.csv": b"\0", "readme.txt.CHECKSUM": b"x"}),
        lambda content: zipped({"inner.zip": zipped({"BTCUSDT-1m.csv": content})}),
        lambda content: gzip.compress(zipped({"BTCUSDT-1m.csv": content})),
    ],
    ids=["gzip", "bzip2", "xz", "zip", "gzip in zip", "zip in zip", "zip in gzip"],
)
@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_compressed_files_and_archives(tmp_path, pack, kind):
    if kind == "parquet":
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table("us"), buffer)
        content = buffer.getvalue()
    else:
        content = (TEXTS["Binance"] if kind == "csv" else JSONS["freqtrade and ccxt"])[0].encode()
    path = tmp_path / "packed"
    path.write_bytes(pack(content))
    assert read_candle_files(path).candles.tolist() == ROWS


def test_a_folder_of_months_as_binance_hands_them_out(tmp_path):
    for name, content in MONTHS.items():
        (tmp_path / name.replace(".csv", ".zip")).write_bytes(zipped({name: content}))
        (tmp_path / name.replace(".csv", ".zip.CHECKSUM")).write_text("0000  file\n")
    (tmp_path / "ETHUSDT-1m-2023-01.zip").write_bytes(zipped({"ETHUSDT-1m-2023-01.csv": "not candles"}))
    (tmp_path / "BTCUSDT-5m-2023-01.csv").write_text("not candles")
    read = read_candle_files(tmp_path, symbol="BTCUSDT", interval="1m")
    assert read.candles.tolist() == ROWS
    assert [name.rpartition(":")[2] for name, _ in read.files] == list(MONTHS)
    assert "2 files of other series in the folder, left out" in read.notes
    with pytest.raises(InvalidValueError, match=r"holds several symbols: BTCUSDT, ETHUSDT(.|\n)*--symbol"):
        read_candle_files(tmp_path)
    with pytest.raises(InvalidValueError, match=r"holds several intervals: 1m, 5m(.|\n)*--interval"):
        read_candle_files(tmp_path, symbol="BTCUSDT")
    with pytest.raises(InvalidValueError, match="holds no candles of XRPUSDT"):
        read_candle_files(tmp_path, symbol="XRPUSDT")


def test_files_in_any_order_that_overlap(tmp_path):
    paths = []
    for number, part in enumerate((ROWS[40:], ROWS[:25], ROWS[20:45])):
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_text(HEADER + lines(part))
    read = read_candle_files(paths)
    assert read.candles.tolist() == ROWS
    assert "10 candles are in two files with the same values, read once" in read.notes
    seen = []
    read_candle_files(paths, progress=lambda *call: seen.append(call))
    assert seen[-1] == (sum(path.stat().st_size for path in paths),) * 2
    other = [(*ROWS[24][:5], 99.0)]
    (tmp_path / "other.csv").write_text(HEADER + lines(other))
    with pytest.raises(InvalidValueError, match=r"different candles of 2023-03-01T00:24:00Z: .*1\.csv, line 26 and .*other\.csv, line 2"):
        read_candle_files([paths[1], tmp_path / "other.csv"])


# ---------------------------------------------------------------- the interval and the series


def test_the_interval_comes_from_the_name_and_must_be_that_of_the_candles(tmp_path):
    hours = MARKET.copy()
    hours["timestamp"] = START + 60 * MINUTE * np.arange(len(hours))
    path = tmp_path / "BTCUSDT-1h.csv"
    path.write_text(HEADER + lines(hours.tolist()))
    assert read_candle_files(path).interval == "1h"
    with pytest.raises(InvalidValueError, match=r"the name of .*BTCUSDT-1h\.csv says 1h, not 1m"):
        read_candle_files(path, interval="1m")
    path.rename(tmp_path / "hours.csv")
    with pytest.raises(InvalidValueError, match=r"no two candles are closer than 1h(.|\n)*--interval 1h"):
        read_candle_files(tmp_path / "hours.csv")
    assert (read_klines(tmp_path / "hours.csv", interval="1h") == hours).all()


def test_one_series_of_a_table_of_several(tmp_path):
    both = "symbol,timestamp,open,high,low,close,volume\n"
    for row in ROWS:
        both += lines([row], form="BTC/USDT,{time},{o},{h},{l},{c},{v}") + lines([row], form="ETH/USDT,{time},{c},{h},{l},{o},1")
    path = tmp_path / "both.csv"
    path.write_text(both)
    assert read_candle_files(path, symbol="BTCUSDT").candles.tolist() == ROWS
    assert read_candle_files(path, symbol="ETH_USDT").candles["volume"].tolist() == [1.0] * len(ROWS)
    for symbol in (None, "XRPUSDT"):
        with pytest.raises(InvalidValueError, match=r"both\.csv holds candles of symbol BTC/USDT, ETH/USDT"):
            read_candle_files(path, symbol=symbol)
    one = tmp_path / "one.csv"
    one.write_text("symbol,timestamp,open,high,low,close,volume\n" + lines(form="XBTUSD,{time},{o},{h},{l},{c},{v}"))
    read = read_candle_files(one, symbol="BTCUSD")
    assert read.candles.tolist() == ROWS
    assert read.notes == ("its symbol is XBTUSD, stored as BTCUSD",)


# ---------------------------------------------------------------- off the grid, no volume


def test_candles_that_open_late(tmp_path):
    late = [(stamp + (14_800 if 10 <= index < 20 else 0), *values) for index, (stamp, *values) in enumerate(ROWS)]
    path = tmp_path / "late.csv"
    path.write_text(HEADER + lines(late))
    with pytest.raises(InvalidValueError, match=r"line 12: open_time 2023-03-01T00:10:14.800Z is not .* \(10 of 60 .*\)(.|\n)*--off-grid"):
        read_candle_files(path)
    snapped = read_candle_files(path, off_grid="snap")
    assert snapped.candles.tolist() == ROWS
    assert snapped.notes == ("10 off the 1m grid, moved back to it",)
    skipped = read_candle_files(path, off_grid="skip")
    assert skipped.candles.tolist() == ROWS[:10] + ROWS[20:]
    assert skipped.notes == ("10 off the 1m grid, left out",)
    path.write_text(HEADER + lines(ROWS[:1]) + lines([(ROWS[0][0] + 14_800, *ROWS[1][1:])]))
    with pytest.raises(InvalidValueError, match=r"line 3: .* appears twice with different values"):
        read_candle_files(path, off_grid="snap")
    path.write_text(HEADER + lines([(ROWS[0][0] + 1, *ROWS[0][1:])]))
    with pytest.raises(InvalidValueError, match=r"1 of 1 candles of .* are off the 1m grid, too many"):
        read_candle_files(path, off_grid="skip")
    with pytest.raises(InvalidValueError, match="off_grid is 'round'"):
        read_candle_files(path, off_grid="round")


@pytest.mark.parametrize(
    "text",
    ["timestamp,open,high,low,close\n" + lines(form="{time},{o},{h},{l},{c}"), lines(form="{time},{o},{h},{l},{c}")],
)
def test_files_without_a_volume(tmp_path, text):
    path = tmp_path / "k.csv"
    path.write_text(text)
    with pytest.raises(InvalidValueError, match=r"column volume is missing(.|\n)*--no-volume"):
        read_candle_files(path)
    read = read_candle_files(path, no_volume=True)
    assert [row[:5] for row in read.candles.tolist()] == [row[:5] for row in ROWS]
    assert not read.candles["volume"].any()
    assert read.notes == ("volume 0, because of --no-volume",)


# ---------------------------------------------------------------- what may mean two things

REFUSED = {
    "a day or a month": (lines(time=by_format("%m/%d/%Y %H:%M")), r"line 1: open_time '03/01/2023 00:00': the day or the month may come"),
    "thousands": (
        lines([(START, "23,140", "23,150", "23,100", "23,140", "1")], separator=";"),
        r"line 1: open is '23,140': the comma or the point may separate",
    ),
    "points and commas": (
        lines([(START, "23140.5", "23150,5", "23100,5", "23140,5", "1")], separator=";"),
        r"line 1: high is '23150,5': the comma or the point may separate",
    ),
    "one volume of an unknown asset": (
        "time,open,high,low,close,Volume USDT\n" + lines(),
        r"line 1: the volume may be that of the base or of the quote asset: Volume USDT",
    ),
    "columns of another order without a header": (
        lines(form="{time},{o},{c},{h},{l},{v}"),
        r"impossible candle(.|\n)*the columns were read as",
    ),
    "columns separated by spaces": (lines(separator=" "), r"line 1: column open is missing(.|\n)*separate the columns by commas"),
    "times out of order": (
        HEADER + lines(ROWS[20:40]) + lines(ROWS[:10]),
        r"line 22: open_time 2023-03-01T00:00:00Z comes after 2023-03-01T00:39:00Z(.|\n)*any order",
    ),
    "a year of two digits": (lines(time=by_format("%d.%m.%y %H:%M")), "has a year of two digits"),
    "a header with a name twice": ("time,open,high,low,close,close,volume\n", "column close appears 2 times"),
    "a long header": ("x" * 3000 + ",time,high,low,close,volume\n" + lines(), r"column open is missing\n.{0,260}$"),
    "a JSON document": (json.dumps({"x" * 3000: 1}), r"holds no rows of candles\n.{0,260}$"),
    "JSON that is cut": (json.dumps(OBJECTS)[:-20], "is not JSON"),
    "JSON of other objects": (json.dumps([*OBJECTS[:3], {"timestamp": 1}]), "record 4: expected an object with timestamp, open"),
    "JSON of ragged rows": (json.dumps([list(ROWS[0]), [1, 2]]), "record 2: expected a row of 6 values"),
    "JSON with null": (json.dumps([[*ROWS[0][:4], None, 1.0]]), "record 1: close is missing, not a number"),
    "JSON with text in a price": (json.dumps([[*ROWS[0][:4], "cheap", 1.0]]), "record 1: close is 'cheap', not a number"),
    "JSON with true": (json.dumps([[*ROWS[0][:4], True, 1.0]]), "record 1: close is True, not a number"),
    "HDF5": (b"\x89HDF\r\n", "is an HDF5 file"),
    "a spreadsheet": (zipped({"[Content_Types].xml": "", "a.csv": ""}), "is a spreadsheet(.|\n)*CSV"),
    "an empty archive": (zipped({}), "holds no candle files"),
    "an archive of text": (zipped({"readme.md": "x"}), "holds no candle files"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + b"\0" * 9, "is compressed with Zstandard"),
    "cut gzip": (gzip.compress(lines().encode())[:-9], "cannot be read"),
    "cut Parquet": (b"PAR1" + b"\0" * 40, "cannot be read"),
    "nested archives": (gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"x"))))), "too many archives"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_file_and_reason(tmp_path, name):
    content, words = REFUSED[name]
    path = tmp_path / "k"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidValueError, match=words) as caught:
        read_candle_files(path)
    assert str(path) in str(caught.value)


def test_day_or_month_is_told_by_the_other_dates(tmp_path):
    days = MARKET.copy()
    days["timestamp"] = START + 1440 * MINUTE * np.arange(len(days))
    for form in ("%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y %I:%M:%S %p"):
        path = tmp_path / "BTCUSDT-1d.csv"
        path.write_text(lines(days.tolist(), time=by_format(form)))
        assert read_candle_files(path).candles.tolist() == days.tolist()


def test_paths_of_other_kinds(tmp_path):
    with pytest.raises(InvalidTypeError, match="paths must be a str, a path or several of them, got int"):
        read_candle_files(3)
    with pytest.raises(InvalidValueError, match="paths is empty"):
        read_candle_files([])
    with pytest.raises(InvalidValueError, match="holds no candle files"):
        read_candle_files(tmp_path)
    with pytest.raises(InvalidValueError, match=r"none\.csv cannot be read: No such file"):
        read_candle_files(tmp_path / "none.csv")


def test_pandas_is_what_pandas_reads(tmp_path):
    """A file that pandas has written and read again is the same to both."""
    path = tmp_path / "k.csv"
    FRAME.to_csv(path)
    again = pandas.read_csv(path, index_col=0, parse_dates=True)
    assert (to_pandas(read_klines(path)).to_numpy() == again.to_numpy()).all()
