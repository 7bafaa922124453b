"""The Candle contract: windows that are complete or missing, candles that never change, and rows that are checked before a write."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import bson
import msgspec
import numpy as np
import pytest
from bson import Decimal128, Int64, ObjectId
from served_stores import serving

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.candles import CANDLE_DTYPE, align, closed_candles, to_columns, to_dicts
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.stores.mongo import candle_documents, candle_writes

MINUTE = 60_000
STEPS = {
    "1m": 1, "3m": 3, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "2h": 120, "4h": 240, "6h": 360, "8h": 480, "1d": 1440,
}  # fmt: skip
SINCE = 1_699_920_000_000  # 2023-11-14 00:00 UTC, on the grid of every interval
NAMES = ("timestamp", "open", "high", "low", "close", "volume")


@pytest.fixture(params=["mongo", "archive", "file", "memory"])
def store(request, monkeypatch):
    """Run the test on each store in turn; ``archive`` is MongoDB with CC_CANDLE_FORMAT=packed, and packs however few candles."""
    if request.param == "archive":
        monkeypatch.setattr(candle_writes, "SMALLEST_ARCHIVED", 1)
        kit.setup({**request.getfixturevalue("settings"), "CC_CANDLE_FORMAT": "packed"})
        yield "archive"
        return
    with serving(request.param, request) as name:
        yield name


def candle(index, *, step=MINUTE, since=SINCE, **more):
    price = 100 + index / 8
    return {
        "timestamp": since + index * step, "open": price, "high": price + 2.5, "low": price - 1.25, "close": price + 0.5,
        "volume": 10.0 + index, **more,
    }  # fmt: skip


def candles(count, **more):
    return [candle(index, **more) for index in range(count)]


def read(limit, since=SINCE, *, symbol="BTCUSDT", interval="1m", exchange="binance", **kwargs):
    until = since + limit * MINUTE if isinstance(limit, int) and isinstance(since, int) else 0
    return kit.PersistCandleAdapter.read_candles_data(symbol, interval, exchange, limit, since, until, **kwargs)


def write(rows, *, symbol="BTCUSDT", interval="1m", exchange="binance"):
    kit.PersistCandleAdapter.write_candles_data(rows, symbol, interval, exchange)


def collection():
    return kit.get_mongo()["candle-items"]


def key_fields(**more):
    return {"exchangeName": "binance", "symbol": "BTCUSDT", "interval": "1m", **more}


# --- the cases of the TypeScript package's tests ---------------------------------------------------------------------


def test_c1_empty_store_reads_as_nothing(store):
    assert read(5) is None
    assert read(1) is None


def test_c2_what_was_written_is_read(store):
    write(candles(5))
    assert len(read(5)) == 5


def test_c3_holes_make_a_miss(store):
    rows = candles(5)
    write(rows[::2])
    assert read(5) is None
    assert read(1) == rows[:1]


def test_c4_values_and_times_come_back_in_ascending_order(store):
    rows = candles(50)
    write(rows[::-1])
    assert read(50) == rows
    first = read(50)[0]
    assert tuple(first) == NAMES
    assert [type(first[name]) for name in NAMES] == [int, float, float, float, float, float]


def test_c5_writing_twice_leaves_each_candle_once(store):
    write(candles(5))
    write(candles(5))
    assert read(5) == candles(5)
    assert read(6) is None
    if store == "mongo":
        assert collection().count_documents({}) == 5


def test_c6_symbols_do_not_mix(store):
    write(candles(3), symbol="BTCUSDT")
    assert read(3, symbol="ETHUSDT") is None
    write(candles(3, volume=1.0), symbol="ETHUSDT")
    assert [row["volume"] for row in read(3, symbol="ETHUSDT")] == [1.0] * 3
    assert read(3, symbol="BTCUSDT") == candles(3)


def test_c7_intervals_do_not_mix(store):
    write(candles(5), interval="1m")
    write(candles(5, step=5 * MINUTE, volume=5.0), interval="5m")
    assert read(2, interval="1m")[1]["timestamp"] == SINCE + MINUTE
    assert read(2, interval="5m")[1]["timestamp"] == SINCE + 5 * MINUTE
    assert read(5, interval="1m") == candles(5)
    assert read(5, interval="5m") == candles(5, step=5 * MINUTE, volume=5.0)


def test_c8_exchanges_do_not_mix(store):
    write(candles(3), exchange="binance")
    write(candles(3, volume=1.0), exchange="okx")
    assert read(3, exchange="binance") == candles(3)
    assert read(3, exchange="okx") == candles(3, volume=1.0)
    assert read(3, exchange="kraken") is None


def test_c9_five_of_three_is_a_miss(store):
    write(candles(3))
    assert read(5) is None


def test_c10_another_since_is_a_miss(store):
    write(candles(5))
    assert read(5, SINCE + MINUTE) is None
    assert read(5, SINCE - MINUTE) is None
    assert read(5, SINCE + 24 * 60 * MINUTE) is None


@pytest.mark.parametrize("interval", STEPS)
def test_c11_every_interval_is_read_with_its_own_step(store, interval):
    """The TypeScript package tests 15m only; this holds for all eleven intervals."""
    step = STEPS[interval] * MINUTE
    rows = candles(4, step=step)
    write(rows, interval=interval)
    assert read(4, interval=interval) == rows
    assert read(2, SINCE + 2 * step, interval=interval) == rows[2:]


def test_c12_one_candle_round_trips(store):
    write(candles(1))
    assert read(1) == candles(1)


def test_c13_dummy_reads_nothing_after_a_write(store):
    kit.PersistCandleAdapter.use_dummy()
    write(candles(3))
    assert read(3) is None
    assert read(0) == []


# --- windows ---------------------------------------------------------------------------------------------------------


def test_window_of_none_is_empty_and_no_miss(store):
    assert read(0) == []
    write(candles(3))
    assert read(0) == []
    assert read(0, SINCE + 1) == []


@pytest.mark.parametrize("offset", [1, -1, 30_000, 59_999, MINUTE // 2])
def test_since_off_the_grid_is_a_miss(store, offset):
    """Keys are exact; nothing is rounded."""
    write(candles(5))
    assert read(2, SINCE + offset) is None


def test_until_is_not_used(store):
    """The end follows from since and limit, as in every implementation of the TypeScript package."""
    write(candles(5))
    for until in (0, SINCE, SINCE + 2 * MINUTE, 2**62, -5):
        assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 3, SINCE, until) == candles(3)


def test_windows_inside_a_long_series(store):
    rows = candles(5000)
    write(rows)
    assert read(5000) == rows
    assert read(1, SINCE + 4999 * MINUTE) == rows[4999:]
    assert read(1000, SINCE + 1234 * MINUTE) == rows[1234:2234]
    assert read(2, SINCE + 4999 * MINUTE) is None
    assert read(5001) is None
    assert read(5000, SINCE - MINUTE) is None


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 999, 1000, 1001, 5000])
def test_one_missing_candle_anywhere_makes_a_miss(store, limit):
    """A gap at the start, middle or end is a miss; the window next to it is complete."""
    rows = candles(limit + 2)
    for number, gap in enumerate(sorted({0, limit // 2, limit - 1})):
        symbol = f"gap {number}"
        write(rows[:gap] + rows[gap + 1 :], symbol=symbol)
        assert read(limit, symbol=symbol) is None
        if gap:
            assert read(gap, symbol=symbol) == rows[:gap]
        rest = limit + 1 - gap
        assert read(rest, rows[gap + 1]["timestamp"], symbol=symbol) == rows[gap + 1 :]


def test_gap_can_be_filled(store):
    rows = candles(10)
    write(rows[:4] + rows[5:])
    assert read(10) is None
    write(rows)
    assert read(10) == rows


def test_times_before_the_epoch_and_at_it(store):
    early = candles(5, since=-2 * MINUTE)
    write(early)
    assert read(5, -2 * MINUTE) == early
    assert read(1, 0) == early[2:3]


def test_returned_candles_never_alias_stored_ones(store):
    write(candles(2))
    read(2)[0]["close"] = 1.0
    assert read(2) == candles(2)


# --- written once ----------------------------------------------------------------------------------------------------


def test_first_write_of_a_candle_wins(store):
    write(candles(3))
    write(candles(5, close=1.0))
    assert read(5) == candles(3) + candles(5, close=1.0)[3:]


def test_first_of_two_candles_in_one_write_wins(store):
    write([candle(0), candle(1), candle(0, close=1.0), candle(1, close=2.0), candle(2)])
    assert read(3) == candles(3)


def test_rewriting_changes_nothing_at_all(mongo):
    """Not even ``updatedDate``, which the TypeScript package updates, changes."""
    write(candles(5))
    before = list(collection().find(sort=[("timestamp", 1)]))
    time.sleep(0.005)
    write(candles(5, close=1.0))
    write(candles(7)[2:])
    after = list(collection().find(sort=[("timestamp", 1)]))
    assert after[:5] == before
    assert len(after) == 7


def test_scattered_candles_of_a_long_span(store):
    """A write covers a few candles far apart, some of them already stored."""
    rows = candles(2000)
    write(rows[500:1500])
    write(rows[::100], symbol="BTCUSDT")
    for index in range(0, 2000, 100):
        assert read(1, rows[index]["timestamp"]) == [rows[index]]
    write(rows)
    assert read(2000) == rows


def test_empty_write(store):
    assert kit.PersistCandleAdapter.write_candles_data([], "BTCUSDT", "1m", "binance") is None
    write(iter(()))
    write(np.empty(0, CANDLE_DTYPE))
    assert read(1) is None


# --- not yet closed --------------------------------------------------------------------------------------------------


def test_open_candle_is_not_stored(store):
    """A candle that still changes would be frozen forever."""
    now = align(time.time_ns() // 1_000_000, MINUTE)
    while time.time_ns() // 1_000_000 > now + 45_000:  # far enough from the minute that it does not close during the test
        time.sleep(1)
        now = align(time.time_ns() // 1_000_000, MINUTE)
    rows = candles(5, since=now - 2 * MINUTE)  # two closed ones, the open one, two in the future
    write(rows)
    assert read(2, rows[0]["timestamp"]) == rows[:2]
    assert read(1, now) is None
    assert read(1, now + MINUTE) is None
    if store == "mongo":
        assert collection().count_documents({}) == 2


def test_candle_that_closes_exactly_now_has_closed():
    columns = to_columns(candles(3), "1m")
    closing = SINCE + 2 * MINUTE  # when the second candle closes
    assert closed_candles(columns, "1m", now=closing)["timestamp"].tolist() == [SINCE, SINCE + MINUTE]
    assert closed_candles(columns, "1m", now=closing - 1)["timestamp"].tolist() == [SINCE]
    assert closed_candles(columns, "1m", now=SINCE).size == 0


# --- forms of input and output ---------------------------------------------------------------------------------------


def test_array_goes_in(store):
    rows = candles(200)
    columns = to_columns(rows, "1m")
    assert columns.dtype.itemsize == 48
    write(columns[::2])  # not contiguous
    write(columns[::-1])
    assert read(200) == rows
    assert columns["close"][0] == rows[0]["close"]


@dataclass
class Row:
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def test_dataclasses_structs_and_generators_go_in(store):
    rows = candles(9)
    write([Row(**row) for row in rows[:3]])
    write([msgspec.convert(row, payloads.Candle) for row in rows[3:6]])
    write(row for row in rows[6:])
    assert read(9) == rows
    assert read(9, type=payloads.Candle) == [msgspec.convert(row, payloads.Candle) for row in rows]
    assert [asdict(row) for row in read(9, type=Row)] == rows


def test_numbers_of_all_kinds_go_in(store):
    """ints, NumPy scalars and Decimals are numbers; extra fields of a row are ignored."""
    write(
        [
            candle(0, open=100, high=np.float32(102.5), low=Decimal("98.75"), close=np.int64(101), volume=np.float64(0)),
            candle(1, timestamp=float(SINCE + MINUTE), extra="ignored"),
            candle(2, timestamp=np.int64(SINCE + 2 * MINUTE)),
            candle(3, open=Int64(100), high=1e308, low=5e-324, close=-0.0, volume=2**53),
        ]
    )
    stored = read(4)
    assert stored[0] == {"timestamp": SINCE, "open": 100.0, "high": 102.5, "low": 98.75, "close": 101.0, "volume": 0.0}
    assert stored[1:3] == candles(3)[1:]
    assert [stored[3][name] for name in NAMES[1:]] == [100.0, 1e308, 5e-324, 0.0, 2.0**53]


def test_instance_has_the_same_methods_without_its_context(store):
    bound = kit.PersistCandleInstance("BTCUSDT", "1m", "binance")
    assert bound.read_candles_data(2, SINCE, SINCE + 2 * MINUTE) is None
    assert bound.write_candles_data(candles(2)) is None
    assert bound.read_candles_data(2, SINCE, SINCE + 2 * MINUTE) == candles(2)
    assert read(2) == candles(2)
    assert kit.PersistCandleInstance("BTCUSDT", "1m", "okx").read_candles_data(2, SINCE, 0) is None


def test_class_of_ones_own(store):
    calls = []

    class Mine(kit.PersistCandleInstance):
        def write_candles_data(self, candles):
            calls.append((self.symbol, self.interval, self.exchange_name))
            super().write_candles_data(candles)

    kit.PersistCandleAdapter.use_persist_candle_adapter(Mine)
    write(candles(2))
    assert calls == [("BTCUSDT", "1m", "binance")]
    assert read(2) == candles(2)
    assert read(2, type=payloads.Candle) == [msgspec.convert(row, payloads.Candle) for row in candles(2)]


@pytest.mark.parametrize("value", ["", "a:b", "a_b", "a/b", "é", "e\u0301", "日本", "🚀", "BTC/USDT:USDT"])
def test_names_isolate(store, value):
    write(candles(2))
    write(candles(2, volume=1.0), symbol=value)
    write(candles(2, volume=2.0), exchange=value)
    assert read(2, symbol=value) == candles(2, volume=1.0)
    assert read(2, exchange=value) == candles(2, volume=2.0)
    assert read(2) == candles(2)


# --- rejected input --------------------------------------------------------------------------------------------------

BAD_FIELDS: list[tuple[str, Any, type[Exception]]] = [
    *((name, None, ValueError) for name in NAMES),
    *((name, bad, ValueError) for name in NAMES for bad in (math.nan, math.inf, -math.inf)),
    *((name, bad, TypeError) for name in NAMES for bad in ("1", True, b"1", [1], datetime(2024, 1, 1, tzinfo=UTC))),
    ("timestamp", SINCE + MINUTE + 1, ValueError),
    ("timestamp", SINCE + 0.5, ValueError),
    ("timestamp", 2**53 // MINUTE * MINUTE + MINUTE, ValueError),
    ("timestamp", -(10**400) * MINUTE, ValueError),
    ("close", Decimal("NaN"), ValueError),
    ("close", 10**400, ValueError),
    ("close", np.array([1.0, 2.0]), TypeError),
]


@pytest.mark.parametrize(("name", "bad", "kind"), BAD_FIELDS, ids=lambda value: None if isinstance(value, type) else f"{value!r:.24}")
def test_bad_field_names_the_row_and_nothing_is_written(store, name, bad, kind):
    rows = [candle(0), candle(1), candle(2, **{name: bad}), candle(3)]
    with pytest.raises(kind, match=r"candle 2\b") as caught:
        write(rows)
    assert isinstance(caught.value, kit.BacktestKitError)
    assert read(1) is None
    if store == "mongo":
        assert collection().count_documents({}) == 0


@pytest.mark.parametrize("name", NAMES)
def test_missing_field_names_the_row_and_nothing_is_written(store, name):
    rows = candles(3)
    del rows[1][name]
    with pytest.raises(kit.InvalidValueError, match=rf"candle 1\b.*{name} is missing"):
        write(rows)
    assert read(1) is None


def test_row_that_is_no_candle_is_named(store):
    for bad in (5, None, "text", [1, 2, 3, 4, 5, 6], Row):
        with pytest.raises(kit.InvalidTypeError, match=r"candle 1\b"):
            write([candle(0), bad])
    for bad in (5, None, "text", b"bytes", candle(0)):
        with pytest.raises(kit.InvalidTypeError):
            write(bad)
    assert read(1) is None


def test_array_is_checked_like_a_list(store):
    columns = to_columns(candles(4), "1m")
    for name, bad in (("close", math.nan), ("volume", math.inf), ("timestamp", SINCE + 1)):
        spoilt = columns.copy()
        spoilt[name][2] = bad
        with pytest.raises(kit.InvalidValueError, match=r"candle 2\b"):
            write(spoilt)
    for wrong in (columns.reshape(2, 2), np.zeros((4, 6)), np.array(candles(4)), columns.astype(CANDLE_DTYPE.newbyteorder(">"))):
        with pytest.raises(kit.InvalidTypeError, match="array"):
            write(wrong)
    assert read(1) is None


def test_time_in_an_array_that_no_double_holds_is_refused(store):
    """The limit is that of a list: the TypeScript package stores doubles and could not represent such a candle."""
    columns = to_columns(candles(4), "1m")
    columns["timestamp"][2] = -(2**60) // MINUTE * MINUTE
    with pytest.raises(kit.InvalidValueError, match=r"candle 2\b"):
        write(columns)
    assert read(1) is None


@pytest.mark.parametrize("interval", ["7m", "", "1mo", "1W", "60", " 1m", "1m ", "01m"])
def test_unknown_interval_is_named_on_write_and_read(store, interval):
    with pytest.raises(kit.InvalidValueError, match=f"interval '{interval}'"):
        write(candles(2), interval=interval)
    with pytest.raises(kit.InvalidValueError, match=f"interval '{interval}'"):
        read(2, interval=interval)
    with pytest.raises(kit.InvalidValueError, match=f"interval '{interval}'"):
        write([], interval=interval)
    if store == "mongo":
        assert collection().count_documents({}) == 0


def test_key_fields_of_the_wrong_type_are_refused(store):
    for wrong in (None, 5, b"BTCUSDT", True, ["BTCUSDT"]):
        for argument in ("symbol", "interval", "exchange"):
            with pytest.raises(kit.InvalidTypeError):
                write(candles(1), **{argument: wrong})
            with pytest.raises(kit.InvalidTypeError):
                read(1, **{argument: wrong})
    for argument in ("symbol", "exchange"):
        for wrong in ("a\0b", "\ud800"):
            with pytest.raises(kit.InvalidValueError):
                write(candles(1), **{argument: wrong})
    assert read(1) is None


@pytest.mark.parametrize("limit", [None, "5", 5.0, True, [5], b"5", math.nan])
def test_limit_of_the_wrong_type_is_refused(limit):
    kit.close()
    with pytest.raises(kit.InvalidTypeError, match="limit"):  # before any I/O: there is no connection here
        read(limit)


@pytest.mark.parametrize("limit", [-1, -1000, 2**31, 2**63, 10**30])
def test_limit_that_is_no_window_is_refused(limit):
    kit.close()
    with pytest.raises(kit.InvalidValueError, match="limit"):
        read(limit)


@pytest.mark.parametrize("since", [None, "5", 5.0, float(SINCE), True, WHEN := datetime(2024, 1, 1, tzinfo=UTC)])
def test_since_of_the_wrong_type_is_refused(since):
    kit.close()
    with pytest.raises(kit.InvalidTypeError, match="since_timestamp"):
        read(1, since)
    with pytest.raises(kit.InvalidTypeError, match="until_timestamp"):
        kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 1, SINCE, "x" if since is None else since)


@pytest.mark.parametrize("since", [2**63, -(2**63), 10**30, 2**53])
def test_since_that_is_no_time_is_refused(since):
    kit.close()
    with pytest.raises(kit.InvalidValueError, match="since_timestamp"):
        read(1, since)


def test_numpy_integers_are_limits_and_times(store):
    write(candles(3))
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", np.int32(3), np.int64(SINCE), np.int64(0)) == candles(3)


def test_huge_window_of_a_small_series_is_a_miss_at_once(store):
    write(candles(3))
    started = time.monotonic()
    assert read(10_000_000) is None
    assert time.monotonic() - started < 20


# --- documents of other writers --------------------------------------------------------------------------------------


def foreign(index, **more):
    """A candle as the TypeScript package stores it: an integer that fits 32 bits as int32, any other number as double."""
    row = candle(index)
    return {**key_fields(timestamp=float(row["timestamp"])), **{name: row[name] for name in NAMES[1:]}, "__v": 0, **more}


def test_stored_numbers_of_every_kind_are_read(mongo):
    prices: list[dict[str, Any]] = [
        {"open": 95_000, "high": 95_001, "low": 94_000, "close": 95_000, "volume": 0},  # int32
        {"open": Int64(95_000), "high": Int64(2**53), "low": Int64(1), "close": Int64(95_000), "volume": Int64(0)},
        dict(zip(NAMES[1:], map(Decimal128, ("1.5", "1E+3", "-0.25", "95000", "0")), strict=True)),
        {"open": 1.5, "high": 1000.0, "low": -0.25, "close": 95_000.0, "volume": 0.0},
    ]
    stamps: list[Any] = [float(SINCE), Int64(SINCE + MINUTE), SINCE + 2 * MINUTE, float(SINCE + 3 * MINUTE)]
    collection().insert_many([{**foreign(0), **row, "timestamp": stamp} for row, stamp in zip(prices, stamps, strict=True)])
    stored = read(4)
    assert [row["timestamp"] for row in stored] == [SINCE + index * MINUTE for index in range(4)]
    assert [stored[0][name] for name in NAMES[1:]] == [95_000.0, 95_001.0, 94_000.0, 95_000.0, 0.0]
    assert [stored[1][name] for name in NAMES[1:]] == [95_000.0, 2.0**53, 1.0, 95_000.0, 0.0]
    assert [stored[2][name] for name in NAMES[1:]] == [stored[3][name] for name in NAMES[1:]] == [1.5, 1000.0, -0.25, 95_000.0, 0.0]
    assert all(type(row["timestamp"]) is int and type(row["close"]) is float for row in stored)


def test_candles_of_the_original_are_not_written_again(mongo):
    collection().insert_many([foreign(index, volume=7) for index in (0, 2)])
    write(candles(4))
    assert collection().count_documents({}) == 4
    assert [row["volume"] for row in read(4)] == [7.0, 11.0, 7.0, 13.0]


def test_documents_off_the_grid_are_passed_over(mongo):
    """Other writers' documents inside the window are ignored: off the grid, or with a timestamp that is not a number."""
    odd: list[Any] = [SINCE + 1, float(SINCE + 2 * MINUTE - 1), Decimal128(str(SINCE + MINUTE + 7)), "text", None]
    collection().insert_many([{**foreign(0), "timestamp": stamp, "close": 1.0} for stamp in odd])
    collection().insert_one({**foreign(0), "timestamp": datetime.fromtimestamp(SINCE / 1000, UTC)})
    assert read(1) is None
    write(candles(4))
    assert read(4) == candles(4)
    assert read(2, SINCE + 2 * MINUTE) == candles(4)[2:]


def test_document_between_two_ms_does_not_hide_a_candle_from_a_write(mongo):
    collection().insert_one({**foreign(0), "timestamp": SINCE + MINUTE + 0.5})
    write(candles(3))
    assert read(3) == candles(3)


def test_broken_document_off_the_grid_spoils_no_window(mongo):
    """No window contains it; the TypeScript package, which queries each timestamp on its own, never sees it either."""
    write(candles(4))
    collection().insert_one(key_fields(timestamp=SINCE + 2 * MINUTE + 1))
    assert read(4) == candles(4)


def test_fields_of_other_writers_do_not_matter(mongo):
    """Order, extra and absent fields do not matter: only the key and the six numbers count."""
    for index in range(3):
        document = foreign(index, zzz={"deep": [1, {"close": "no price"}]}, aaa="x\0y", close_time=1)
        del document["__v"]
        collection().insert_one(dict(reversed(document.items())))
    assert read(3) == candles(3)


@pytest.mark.parametrize("bad", [{"close": None}, {"close": "1.5"}, {"volume": True}, {"open": []}, {"low": {}}, "absent"], ids=str)
def test_stored_candle_without_a_number_is_a_clear_error(mongo, bad):
    """The TypeScript package stores such rows unchecked; a silent NaN or a miss would hide the damage."""
    rows = [foreign(index) for index in range(3)]
    if bad == "absent":
        del rows[1]["close"]
    else:
        rows[1] |= bad
    collection().insert_many(rows)
    field = "close" if bad == "absent" else next(iter(bad))
    with pytest.raises(kit.DatabaseError, match=rf"binance BTCUSDT 1m.*\n*.*{field}"):
        read(3)
    assert read(1) == candles(1)
    assert read(1, SINCE + 2 * MINUTE) == candles(3)[2:]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_stored_price_that_is_no_finite_number_is_handed_out_as_it_is(mongo, bad):
    """It is a number and it is stored: the caller decides what to do with it."""
    collection().insert_one({**foreign(0), "close": bad})
    assert str(read(1)[0]["close"]) == str(bad)


# --- arrays ----------------------------------------------------------------------------------------------------------


def array(limit, since=SINCE, *, symbol="BTCUSDT", interval="1m", exchange="binance"):
    return kit.PersistCandleAdapter.read_candles_array(symbol, interval, exchange, limit, since)


def test_array_is_the_same_window(store):
    assert array(3) is None
    write(candles(5))
    for _ in range(2):  # the second time from memory, if there is any
        candles_read = array(5)
        assert candles_read.dtype == CANDLE_DTYPE
        assert to_dicts(candles_read) == candles(5)
        assert to_dicts(array(2, SINCE + 3 * MINUTE)) == candles(5)[3:]
        assert array(6) is None
        assert array(5, SINCE - MINUTE) is None
        assert array(1, SINCE + 1) is None
        assert array(0).shape == (0,)
    bound = kit.PersistCandleInstance("BTCUSDT", "1m", "binance")
    assert (bound.read_candles_array(5, SINCE) == candles_read).all()
    write(candles_read, symbol="COPY")
    assert read(5, symbol="COPY") == candles(5)


def test_array_cannot_be_written_to(store):
    write(candles(5))
    for window in (array(5), array(5), array(3), array(0)):
        with pytest.raises(ValueError, match="read-only"):
            window["close"] = 1.0
    assert read(5) == candles(5)


def test_array_takes_the_same_arguments(store):
    write(candles(3))
    assert to_dicts(array(np.int32(3), np.int64(SINCE))) == candles(3)
    for limit, since in (("3", SINCE), (3.0, SINCE), (True, SINCE), (3, float(SINCE)), (3, None)):
        with pytest.raises(kit.InvalidTypeError):
            array(limit, since)
    for limit, since in ((-1, SINCE), (2**31, SINCE), (3, 2**63)):
        with pytest.raises(kit.InvalidValueError):
            array(limit, since)
    with pytest.raises(kit.InvalidValueError, match="interval"):
        array(3, interval="7m")


def test_dummy_gives_no_array():
    kit.PersistCandleAdapter.use_dummy()
    try:
        assert array(3) is None
        assert array(0).shape == (0,)
    finally:
        kit.PersistCandleAdapter.use_mongo()


def test_class_without_arrays_gives_them_of_its_dicts(store):
    """Both an older class, and one that inherits the array method but overrides the dict method, serve arrays from their dicts."""
    asked = []

    class Old:
        def __init__(self, symbol, interval, exchange_name):
            pass

        def wait_for_init(self, initial):
            pass

        def read_candles_data(self, limit, since_timestamp, until_timestamp):
            asked.append((limit, since_timestamp, until_timestamp))
            return candles(limit, since=since_timestamp) if limit < 10 else None

        def write_candles_data(self, candles):
            pass

    class Derived(kit.PersistCandleInstance):
        read_candles_data = Old.read_candles_data

    for cls in (Old, Derived):
        kit.PersistCandleAdapter.use_persist_candle_adapter(cls)
        assert to_dicts(array(3)) == candles(3)
        assert array(10) is None
        assert asked[-2:] == [(3, SINCE, SINCE + 3 * MINUTE), (10, SINCE, SINCE + 10 * MINUTE)]
        with pytest.raises(ValueError, match="read-only"):
            array(3)["close"] = 1.0
        with pytest.raises(kit.InvalidTypeError, match="limit"):
            array("3")


def test_class_with_arrays_of_its_own(store):
    class Mine(kit.PersistCandleInstance):
        def read_candles_array(self, limit, since_timestamp):
            return "mine"

    class Plain(kit.PersistCandleInstance):
        pass

    kit.PersistCandleAdapter.use_persist_candle_adapter(Mine)
    assert array(3) == "mine"
    kit.PersistCandleAdapter.use_persist_candle_adapter(Plain)
    write(candles(3))
    assert to_dicts(array(3)) == candles(3)


# --- for other libraries ---------------------------------------------------------------------------------------------


def test_pandas():
    pandas = pytest.importorskip("pandas")
    columns = to_columns(candles(50), "1m")
    frame = kit.to_pandas(columns)
    assert list(frame.columns) == list(NAMES[1:])
    assert frame.index.name == "timestamp"
    assert str(frame.index.dtype) == "datetime64[ms, UTC]"
    assert frame.index[1] == pandas.Timestamp(SINCE + MINUTE, unit="ms", tz="UTC")
    assert all((frame[name].to_numpy() == columns[name]).all() for name in NAMES[1:])
    frame.loc[frame.index[0], "close"] = -1.0  # a copy of the caller's own
    assert columns["close"][0] == 100.5


def test_polars():
    polars = pytest.importorskip("polars")
    columns = to_columns(candles(50), "1m")
    frame = kit.to_polars(columns)
    assert frame.schema == {"timestamp": polars.Datetime("ms", "UTC"), **dict.fromkeys(NAMES[1:], polars.Float64)}
    assert frame["timestamp"].dt.epoch("ms").to_list() == columns["timestamp"].tolist()
    assert all((frame[name].to_numpy() == columns[name]).all() for name in NAMES[1:])


def test_arrow():
    arrow = pytest.importorskip("pyarrow")
    columns = to_columns(candles(50), "1m")
    table = kit.to_arrow(columns)
    assert table.schema.field("timestamp").type == arrow.timestamp("ms", tz="UTC")
    assert table["timestamp"].cast(arrow.int64()).to_pylist() == columns["timestamp"].tolist()
    assert all((table[name].to_numpy() == columns[name]).all() for name in NAMES[1:])


CONVERSIONS = [(kit.to_pandas, "pandas", "pandas"), (kit.to_polars, "polars", "polars"), (kit.to_arrow, "pyarrow", "arrow")]


@pytest.mark.parametrize(("convert", "library", "extra"), CONVERSIONS)
def test_library_that_is_not_there_is_named_with_its_extra(convert, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"(?s){library} is not installed.*backtest-kit-mongo\[{extra}\]") as caught:
        convert(to_columns(candles(1), "1m"))
    assert isinstance(caught.value, kit.MissingDependencyError)


@pytest.mark.parametrize(("convert", "library", "extra"), CONVERSIONS)
def test_only_arrays_of_candles_are_converted(convert, library, extra):
    pytest.importorskip(library)
    for wrong in (candles(2), None, np.zeros(3), to_columns(candles(4), "1m").reshape(2, 2)):
        with pytest.raises(kit.InvalidTypeError, match="array"):
            convert(wrong)
    assert len(convert(np.empty(0, CANDLE_DTYPE))) == 0


# --- imports ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(mongo, monkeypatch):
    """The queries and inserts that an import makes."""
    made = []
    connection = default_registry.mongo.connection
    for name in ("count", "fetch", "insert_new"):
        original = getattr(connection, name)

        def call(domain, argument, name=name, original=original):
            if name != "insert_new":
                made.append(name)
                return original(domain, argument)

            def sent():
                for batch in argument:
                    made.append(name)
                    yield batch

            return original(domain, sent())

        monkeypatch.setattr(connection, name, call)
    return made


def test_fresh_import_asks_once_and_sends_batches(calls):
    write(candles(25_000))
    # The archive, the copies, the time stamps; then the archive again, before copies are made.
    assert calls == ["fetch", "fetch", "fetch", "insert_new", "insert_new", "insert_new", "fetch"]
    assert collection().count_documents({}) == 25_000
    assert kit.stats()["candle"]["writes"] == 25_000


def test_import_of_what_is_there_asks_once_and_sends_nothing(calls):
    write(candles(100))
    del calls[:]
    write(candles(100))
    write(candles(100)[20:70])
    assert calls == ["count", "count"]
    assert kit.stats()["candle"]["writes"] == 100


def test_import_of_what_another_process_stored_asks_for_times(calls):
    write(candles(100))
    kit.PersistCandleAdapter.clear()
    del calls[:]
    write(candles(100))
    assert calls == ["fetch", "fetch"]  # the archive, then the time stamps
    del calls[:]
    write(candles(100))
    assert calls == ["count"]


def test_stretches_that_grow_are_known_as_one(calls):
    for first in (0, 20, 10, 40, 30):
        write(candles(50)[first : first + 10])
    write(candles(60)[50:])
    del calls[:]
    write(candles(60)[30:])
    assert calls == ["count"]


@pytest.mark.parametrize(
    "stray", [SINCE + 2 * MINUTE + 0.5, SINCE + 2 * MINUTE - 0.5, SINCE + 2 * MINUTE + 1, Decimal128(f"{SINCE}.5")], ids=str
)
def test_as_many_documents_as_candles_prove_nothing(mongo, stray):
    """A stray can make up for a missing candle, even a fraction of a millisecond off its time, which $mod would not notice."""
    collection().insert_many([foreign(index) for index in (0, 1, 3, 4)])
    collection().insert_one({**foreign(0), "timestamp": stray})
    write(candles(5))
    assert [row["timestamp"] for row in read(5)] == [row["timestamp"] for row in candles(5)]
    assert collection().count_documents({}) == 6


def test_candle_deleted_by_hand_is_written_again(mongo):
    write(candles(5))
    collection().delete_one({"timestamp": SINCE + 2 * MINUTE})
    write(candles(5))
    assert read(5) == candles(5)


def test_documents_are_those_of_pymongo(mongo):
    """Documents match pymongo's byte for byte, also with 32-bit ints and with names that contain bytes that look like a field."""
    now = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    for series in (("binance", "BTCUSDT", "1m"), ("é\x01open", "\x01low", "1m"), ("", "", "1m")):
        for since in (SINCE, 0, -600_000, 2**31 // MINUTE * MINUTE, -(2**40) // MINUTE * MINUTE):
            columns = to_columns([candle(index, since=since, open=-0.0, high=1e308) for index in range(3)], "1m")
            small = np.abs(columns["timestamp"]) < 2**31
            for part in (columns[small], columns[~small]):
                if len(part):
                    ids = candle_documents.new_ids(len(part))
                    plain = [
                        bson.encode(candle_documents._document(ObjectId(value.tobytes()), series, row, now))
                        for value, row in zip(ids, part.tolist(), strict=True)
                    ]
                    assert candle_documents.candle_documents(series, part, ids, now) == b"".join(plain)


def test_import_over_the_end_of_32_bits(mongo):
    """One import may contain ints of both widths, in any order."""
    around = candles(2000, since=2**31 // MINUTE * MINUTE - 1000 * MINUTE)
    write(around[::-1])
    assert read(2000, around[0]["timestamp"]) == around
    kinds = {type(row["timestamp"]) for row in collection().find()}
    assert kinds == {int, Int64}


def test_ids_are_new_and_say_when(mongo):
    before = int(time.time())
    write(candles(12_000))
    stored = [row["_id"] for row in collection().find({}, {"_id": True})]
    assert len(set(stored)) == 12_000
    assert all(isinstance(value, ObjectId) and before <= value.generation_time.timestamp() <= time.time() for value in stored)
