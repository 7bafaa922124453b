"""DataFrames and Arrow tables as candles: every form that other libraries hand out, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas
import polars
import pytest
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import to_arrow, to_columns, to_pandas, to_polars
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import import_candles, imported_spans, synthetic_market

pytestmark = pytest.mark.once

MARKET = synthetic_market(4, 50, START)
FRAME = to_pandas(MARKET)
FLAT = FRAME.reset_index()


class OnlyArrow:
    """What a database such as DuckDB hands out: an Arrow stream and nothing else."""

    def __arrow_c_stream__(self, requested_schema=None):
        return to_arrow(MARKET).__arrow_c_stream__(requested_schema)


TABLES = {
    "pandas": FRAME,
    "an index without a name": FRAME.rename_axis(None),
    "an index of another name": FRAME.rename_axis("Kerze"),
    "row numbers": FLAT,
    "Tokyo": FRAME.tz_convert("Asia/Tokyo"),
    "no time zone": FRAME.tz_localize(None),
    "nanoseconds": FRAME.set_axis(FRAME.index.as_unit("ns")),
    "periods": FRAME.set_axis(FRAME.index.tz_localize(None).to_period("min")),
    "an index of numbers": FRAME.set_axis(pandas.Index(MARKET["timestamp"], name="timestamp")),
    "whole seconds": FLAT.assign(timestamp=MARKET["timestamp"] // 1000),
    "text": FLAT.astype({"timestamp": str}),
    "prices in text": FLAT.astype({"open": str, "close": str}),
    "Decimal": FLAT.assign(close=[Decimal(str(value)) for value in MARKET["close"].tolist()]),
    "nullable types": FRAME.convert_dtypes(),
    "Arrow types": FLAT.convert_dtypes(dtype_backend="pyarrow"),
    "capitals": FLAT.rename(columns=str.title),
    "more columns": FLAT.assign(close_time=1, quote="x"),
    "yfinance": pandas.concat({"BTC-USD": FRAME.rename(columns=str.title)}, axis=1).swaplevel(axis=1),
    "symbol and time in the index": FLAT.assign(symbol="BTCUSDT").set_index(["symbol", "timestamp"]),
    "index and an equal column": FRAME.assign(open_time=MARKET["timestamp"]),
    "polars": to_polars(MARKET),
    "polars in us": to_polars(MARKET).with_columns(polars.col("timestamp").dt.cast_time_unit("us")),
    "polars without time zone": to_polars(MARKET).with_columns(polars.col("timestamp").dt.replace_time_zone(None)),
    "polars in Tokyo": to_polars(MARKET).with_columns(polars.col("timestamp").dt.convert_time_zone("Asia/Tokyo")),
    "Arrow": to_arrow(MARKET),
    "Arrow, a batch": to_arrow(MARKET).combine_chunks().to_batches()[0],
    "an Arrow stream": OnlyArrow(),
    "a slice": to_pandas(np.repeat(MARKET, 2)).iloc[::2],
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_every_form_are_the_candles(name):
    assert to_columns(TABLES[name], "1m").tolist() == MARKET.tolist()


def test_numbers_of_less_than_64_bits():
    single = FLAT.astype({"open": "float32", "volume": "float32"})
    assert to_columns(single, "1m")["open"].tolist() == single["open"].astype("float64").tolist()
    whole = to_columns(FLAT.assign(volume=np.arange(50, dtype="int16")), "1m")
    assert whole["volume"].tolist() == list(range(50))


def test_an_empty_table_holds_no_candles():
    assert len(to_columns(FRAME.iloc[:0], "1m")) == len(to_columns(to_polars(MARKET[:0]), "1m")) == 0


def test_a_table_goes_straight_into_the_contract_and_into_an_import(mongo):
    end = START + 50 * MINUTE
    for number, table in enumerate((FRAME, to_polars(MARKET), to_arrow(MARKET))):
        report = import_candles(table, "BTCUSDT", exchange_name=f"import {number}")
        assert (report.candles, report.off_grid, report.gaps) == (50, 0, ())
        kit.PersistCandleAdapter.write_candles_data(table, "BTCUSDT", "1m", f"write {number}")
        for exchange in (f"import {number}", f"write {number}"):
            assert (kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", exchange, 50, START) == MARKET).all()
        assert imported_spans("BTCUSDT", "1m", f"import {number}") == ((START, end),)
    stored = to_pandas(kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "import 0", 50, START))
    pandas.testing.assert_frame_equal(stored, FRAME)


def test_an_import_of_late_candles(mongo):
    late = FRAME.set_axis(FRAME.index + pandas.to_timedelta([14.8] * 5 + [0] * 45, unit="s"))
    with pytest.raises(InvalidValueError, match=r"candle 0 .* is off the 1m grid, as are 4 more(.|\n)*off_grid="):
        import_candles(late, "BTCUSDT")
    assert imported_spans("BTCUSDT") == ()
    assert (import_candles(late, "BTCUSDT", exchange_name="skip", off_grid="skip").candles) == 45
    report = import_candles(late, "BTCUSDT", off_grid="snap")
    assert (report.candles, report.off_grid) == (50, 5)
    assert (kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 50, START) == MARKET).all()
    with pytest.raises(InvalidValueError, match="off_grid is None"):
        import_candles(late, "BTCUSDT", off_grid=None)


REFUSED = {
    "no close": (FRAME.drop(columns="close"), "column close is missing(.|\n)*the header has open, high"),
    "no time": (FLAT.drop(columns="timestamp"), "column open_time is missing"),
    "no volume": (FRAME.drop(columns="volume"), "candle 0: column volume is missing"),
    "NaT": (FRAME.set_axis([*FRAME.index[:3], pandas.NaT, *FRAME.index[4:]]), r"candle 3: open_time is missing \(NaT\)"),
    "NaN": (FRAME.assign(close=[*MARKET["close"][:7], np.nan, *MARKET["close"][8:]]), "candle 7: close is nan, not a finite number"),
    "NA": (FLAT.assign(close=pandas.array([1.0, pandas.NA] * 25)), "candle 1: close is nan|<NA>, not a"),
    "null": (to_polars(MARKET).with_columns(close=polars.Series([1.0, None] * 25)), "candle 1: close is nan, not a finite number"),
    "null time": (to_polars(MARKET).with_columns(timestamp=None), "candle 0: open_time (None|nan) is neither"),
    "text": (FLAT.assign(close="cheap"), "candle 0: close is 'cheap', not a number"),
    "bool": (FLAT.assign(close=True), "candle 0: close is True, not a number"),
    "off the grid": (FRAME.set_axis(FRAME.index + pandas.Timedelta("1s")), "candle 0: timestamp 1677628801000 is off the 1m grid"),
    "half a ms": (FRAME.set_axis(FRAME.index.as_unit("us") + pandas.Timedelta("500us")), "candle 0: .* not a whole number of milliseconds"),
    "two symbols": (FLAT.assign(symbol=["BTC", "ETH"] * 25), "holds candles of symbol BTC, ETH"),
    "index and another column": (
        FRAME.assign(open_time=MARKET["timestamp"] + MINUTE),
        "index of times and the column open_time differ",
    ),
    "two columns of a name": (pandas.concat([FLAT, FLAT["close"]], axis=1), "column close appears 2 times"),
    "several symbols in the columns": (pandas.concat({"A": FRAME, "B": FRAME}, axis=1), "several columns under one name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    table, words = REFUSED[name]
    with pytest.raises((InvalidValueError, InvalidTypeError), match=words):
        to_columns(table, "1m")
