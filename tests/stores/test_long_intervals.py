"""Candles of 12h, 3d, 1w and 1M on every store: their own grids, across the ends of months and years."""

from __future__ import annotations

import json
import time
from datetime import datetime

import numpy as np
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE, GRIDS, grid_of, to_dicts
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.data.export import export_domain
from backtest_kit_mongo.data.query import records
from backtest_kit_mongo.data.transfer import copy_domain, same_records
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    find_gaps,
    import_candles,
    imported_spans,
    list_candles,
    pack_candles,
    read_candle_files,
    remove_candles,
    unpack_candles,
    verify_candles,
)
from backtest_kit_mongo.stores.memory import MemoryStore

LONG = ("12h", "3d", "1w", "1M")
FORMS = {
    "memory": None,
    "file": None,
    "items": {},
    "driver": {"CC_WIRE_LANE": False},
    "ids": {"CC_REDIS_IDS": "all"},
    "packed": {"CC_CANDLE_FORMAT": "packed"},
    "packed, driver": {"CC_CANDLE_FORMAT": "packed", "CC_WIRE_LANE": False},
}


def ms(text):
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def set_up(form, request, **more):
    options = FORMS[form]
    if options is None:
        kit.setup(stores=dict.fromkeys(DOMAINS, form), CC_DUMP_DIR=request.getfixturevalue("tmp_path") / "dump", **more)
    else:
        kit.setup({**request.getfixturevalue("settings"), **options}, **more)


@pytest.fixture(params=FORMS)
def form(request):
    """Serve the contracts from one kind of store, or from MongoDB in one way; return its name."""
    set_up(request.param, request)
    yield request.param
    kit.close()


def candles(interval, first, count):
    """Return ``count`` candles from the one that contains ``first``, each with values of its own."""
    rows = np.zeros(count, CANDLE_DTYPE)
    rows["timestamp"] = [*grid_of(interval).window(ms(first), count)]
    rows["open"] = rows["close"] = 100 + np.arange(count)
    rows["high"], rows["low"], rows["volume"] = rows["open"] + 2, rows["open"] - 2, 1 + np.arange(count)
    return rows


def write(rows, interval):
    kit.PersistCandleAdapter.write_candles_data(rows, "BTCUSDT", interval, "binance")


def read(interval, first, count):
    """Return a window as a new process would read it, without candles in memory."""
    kit.PersistCandleAdapter.clear()
    since = first if isinstance(first, int) else ms(first)
    return kit.PersistCandleAdapter.read_candles_array("BTCUSDT", interval, "binance", count, since)


@pytest.mark.parametrize("interval", LONG)
def test_what_was_written_is_read(form, interval):
    rows = candles(interval, "2023-11-01", 30)
    first = int(rows["timestamp"][0])
    write(rows, interval)
    write(rows, interval)  # a second time: nothing is new
    assert read(interval, first, 30).tobytes() == rows.tobytes()
    assert read(interval, int(rows["timestamp"][7]), 9).tobytes() == rows[7:16].tobytes()
    assert read(interval, int(rows["timestamp"][29]), 1).tobytes() == rows[29:].tobytes()
    assert read(interval, int(rows["timestamp"][29]), 2) is None
    assert read(interval, grid_of(interval).after(first, -1), 2) is None
    assert read(interval, first + 1, 1) is None
    until = grid_of(interval).after(first, 30)
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", interval, "binance", 30, first, until) == to_dicts(rows)
    others = [name for name in GRIDS if name != interval]
    assert all(kit.PersistCandleAdapter.read_candles_array("BTCUSDT", name, "binance", 1, first) is None for name in others)


def test_months_across_a_leap_day_and_years(form):
    rows = candles("1M", "2023-12-01", 15)
    write(rows, "1M")
    assert [row["timestamp"] for row in to_dicts(read("1M", "2023-12-01", 4))] == [
        ms("2023-12-01"),
        ms("2024-01-01"),
        ms("2024-02-01"),
        ms("2024-03-01"),
    ]
    assert read("1M", "2024-12-01", 3)["close"].tolist() == [112.0, 113.0, 114.0]


@pytest.mark.parametrize("interval", LONG)
def test_a_window_with_a_missing_candle_is_none(form, interval):
    rows = candles(interval, "2023-11-01", 12)
    write(np.delete(rows, 5), interval)
    assert read(interval, int(rows["timestamp"][0]), 12) is None
    assert read(interval, int(rows["timestamp"][5]), 1) is None
    assert read(interval, int(rows["timestamp"][0]), 5).tobytes() == rows[:5].tobytes()
    assert read(interval, int(rows["timestamp"][6]), 6).tobytes() == rows[6:].tobytes()
    write(rows, interval)  # only the missing one is new
    assert read(interval, int(rows["timestamp"][0]), 12).tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("interval", "wrong", "rule"),
    [
        ("12h", "2024-01-01T06:00", "a multiple of 43200000 ms since 1970"),
        ("3d", "2024-01-02T00:00", "00:00 UTC of 1970-01-02 or a multiple of 3 days later"),
        ("1w", "2024-01-04T00:00", "a Monday, 00:00 UTC"),
        ("1M", "2024-02-02T00:00", "the first of a month, 00:00 UTC"),
    ],
)
def test_a_candle_off_the_grid_is_refused(form, interval, wrong, rule):
    rows = candles(interval, "2023-11-01", 3)
    rows["timestamp"][1] = ms(wrong)
    with pytest.raises(kit.InvalidValueError, match=f"candle 1: timestamp {ms(wrong)} is off the {interval} grid") as error:
        write(rows, interval)
    assert rule in str(error.value)
    assert read(interval, int(rows["timestamp"][0]), 1) is None


@pytest.mark.parametrize("interval", LONG)
def test_the_current_candle_has_not_closed(form, interval):
    now = time.time_ns() // 1_000_000
    current = grid_of(interval).align(now)
    rows = candles(interval, "2023-11-01", 3)
    rows["timestamp"] = [*grid_of(interval).window(grid_of(interval).after(current, -2), 3)]
    write(rows, interval)
    assert read(interval, int(rows["timestamp"][0]), 2).tobytes() == rows[:2].tobytes()
    assert read(interval, current, 1) is None


@pytest.mark.parametrize("look_ahead", ["hide", "raise"])
def test_a_month_is_seen_only_after_its_end(form, look_ahead, request):
    kit.close()
    set_up(form, request, look_ahead=look_ahead)
    write(candles("1M", "2024-01-01", 3), "1M")
    with kit.simulated_time(ms("2024-03-01")):
        assert len(read("1M", "2024-01-01", 2)) == 2
    with kit.simulated_time(ms("2024-03-01") - 1):
        assert len(read("1M", "2024-01-01", 1)) == 1
        if look_ahead == "hide":
            assert read("1M", "2024-01-01", 2) is None
        else:
            with pytest.raises(kit.LookAheadError, match=f"the last closed candle opens at {ms('2024-01-01')} ms"):
                read("1M", "2024-01-01", 2)
    for moment, count in ((ms("2024-03-01"), 2), (ms("2024-03-01") - 1, 1), (ms("2024-04-01"), 3)):
        with kit.simulated_time(moment):
            if look_ahead == "hide":
                assert len(records("candle", {"interval": "1M"})) == count
            elif count < 3:
                with pytest.raises(kit.LookAheadError):
                    records("candle", {"interval": "1M"})


@pytest.mark.parametrize("interval", LONG)
def test_import_gaps_list_and_remove(form, interval):
    grid, rows = grid_of(interval), candles(interval, "2023-11-01", 20)
    stamps = rows["timestamp"].tolist()
    report = import_candles(np.delete(rows, [4, 5, 9]), "BTCUSDT", interval)
    gaps = [(gap.since_ms, gap.until_ms, gap.missing) for gap in report.gaps]
    assert gaps == [(stamps[4], stamps[6], 2), (stamps[9], stamps[10], 1)]
    end = grid.after(stamps[19])
    assert (report.candles, report.since_ms, report.until_ms) == (17, stamps[0], end)
    assert imported_spans("BTCUSDT", interval) == ((stamps[0], stamps[4]), (stamps[6], stamps[9]), (stamps[10], end))
    [series] = list_candles()
    assert (series.interval, series.candles, series.missing, series.until_ms, series.gaps) == (interval, 17, 3, end, report.gaps)
    assert remove_candles("BTCUSDT", interval, "binance", stamps[11], stamps[13] + 1) == 3
    assert read(interval, stamps[11], 1) is None
    assert read(interval, stamps[10], 1).tobytes() == rows[10:11].tobytes()
    assert read(interval, stamps[14], 6).tobytes() == rows[14:].tobytes()
    assert imported_spans("BTCUSDT", interval)[2:] == ((stamps[10], stamps[11]), (stamps[14], end))
    assert remove_candles("BTCUSDT", interval, "binance") == 14
    assert list(list_candles()) == []
    assert imported_spans("BTCUSDT", interval) == ()


def test_an_import_snaps_to_the_first_of_the_month(form):
    rows = candles("1M", "2024-01-01", 3)
    rows["timestamp"] += 3_600_000
    with pytest.raises(kit.InvalidValueError, match="is off the 1M grid, as are 2 more"):
        import_candles(rows, "BTCUSDT", "1M")
    assert import_candles(rows, "BTCUSDT", "1M", off_grid="snap").off_grid == 3
    assert read("1M", "2024-01-01", 3)["timestamp"].tolist() == [ms("2024-01-01"), ms("2024-02-01"), ms("2024-03-01")]


@pytest.mark.parametrize("interval", LONG)
def test_a_copy_and_an_export_hold_all_candles(form, interval, tmp_path):
    rows = candles(interval, "2023-11-01", 30)
    write(rows, interval)
    source, target = default_registry.store(DOMAINS["candle"]), MemoryStore()
    outcome = copy_domain(DOMAINS["candle"], source, target, same_records(as_json=False))
    assert (outcome.new, outcome.changed, outcome.refused) == (30, 0, 0)
    assert target.read_candles("BTCUSDT", interval, "binance", int(rows["timestamp"][0]), 30).tobytes() == rows.tobytes()
    path = tmp_path / "candles.csv"
    assert export_domain(source, DOMAINS["candle"], path) == 30
    assert read_candle_files(path, interval=interval).candles.tobytes() == rows.tobytes()


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
def test_candles_longer_than_a_day_stay_documents(settings, interval):
    """A block of 4,096 of them would span decades."""
    kit.setup({**settings, "CC_CANDLE_FORMAT": "packed"})
    rows = candles(interval, "1850-01-01", 1800)
    write(rows, interval)
    assert [outcome.blocks for outcome in pack_candles()] == [0]
    assert [(outcome.blocks, outcome.problems) for outcome in verify_candles()] == [(0, {})]
    assert list(unpack_candles()) == []
    database = kit.get_mongo()
    assert database["candle-items"].count_documents({"interval": interval}) == 1800
    assert database["candle-archive"].count_documents({}) == database["candle-blocks"].count_documents({}) == 0
    assert read(interval, int(rows["timestamp"][0]), 1800).tobytes() == rows.tobytes()
    assert remove_candles("BTCUSDT", interval, "binance", 0) == int((rows["timestamp"] >= 0).sum())


def test_candles_of_half_a_day_are_packed(settings):
    kit.setup({**settings, "CC_CANDLE_FORMAT": "packed"})
    rows = candles("12h", "2009-01-01", 9000)
    write(rows, "12h")
    assert kit.get_mongo()["candle-archive"].count_documents({"codec": {"$exists": True}}) == 3
    assert read("12h", int(rows["timestamp"][0]), 9000).tobytes() == rows.tobytes()
    assert sum(outcome.blocks for outcome in unpack_candles()) == 3
    assert read("12h", int(rows["timestamp"][0]), 9000).tobytes() == rows.tobytes()


@pytest.mark.parametrize("wire", [True, False])
@pytest.mark.parametrize("stamp", [float("inf"), float("nan"), 1e300, ms("2024-01-15"), ms("2024-02-01") + 0.5, ms("2024-01-01") + 1])
def test_documents_of_others_off_the_grid_are_passed_over(settings, stamp, wire):
    kit.setup({**settings, "CC_WIRE_LANE": wire})
    rows = candles("1M", "2024-01-01", 3)
    write(rows, "1M")
    collection = kit.get_mongo()["candle-items"]
    document = collection.find_one({"timestamp": ms("2024-01-01")})
    collection.insert_one({**{name: value for name, value in document.items() if name != "_id"}, "timestamp": stamp})
    assert read("1M", "2024-01-01", 3).tobytes() == rows.tobytes()
    [series] = list_candles()
    assert (series.candles, series.gaps) == (3, ())


def test_a_damaged_month_is_named(settings):
    kit.setup(settings)
    write(candles("1M", "2024-01-01", 3), "1M")
    kit.get_mongo()["candle-items"].update_one({"timestamp": ms("2024-02-01")}, {"$unset": {"close": ""}})
    with pytest.raises(kit.DatabaseError, match=f"the candle at {ms('2024-02-01')} has no close"):
        read("1M", "2024-01-01", 3)
    assert len(read("1M", "2024-03-01", 1)) == 1


def test_months_and_minutes_need_folders_of_their_own(tmp_path):
    """Where a file system ignores case, 1M and 1m are one folder; here a link makes them one."""
    kit.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=tmp_path / "dump")
    write(candles("1m", "2024-01-01", 1), "1m")
    [minutes] = tmp_path.rglob("1m")
    minutes.with_name("1M").symlink_to(minutes)
    for use in (lambda: write(candles("1M", "2024-01-01", 1), "1M"), lambda: read("1M", "2024-01-01", 1)):
        with pytest.raises(kit.InvalidValueError, match="candles of 1M cannot be kept in files here"):
            use()
    assert [json.loads(file.read_text())["timestamp"] for file in minutes.iterdir()] == [ms("2024-01-01")]
    kit.close()


def test_gaps_between_months():
    rows = candles("1M", "2023-11-01", 8)
    [gap] = find_gaps(np.delete(rows, [2, 3]), "1M")
    assert (gap.since_ms, gap.until_ms, gap.missing) == (ms("2024-01-01"), ms("2024-03-01"), 2)
