"""Lists and candles of the file store, and the folders that it lists."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from file_helpers import MINUTE, START, TRIPLE, all_keys, candles, get, keys, plant, put

from backtest_kit_mongo.candles import to_dicts
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.files.names import natural
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once


# --- lists -----------------------------------------------------------------------------------------------------------


def test_natural_order_is_that_of_the_original():
    """The expected order is that of ``localeCompare`` with ``numeric: true`` and ``sensitivity: "base"`` in node 20."""
    expected = [
        "", " ", " x", "_1", "_a", "-1", "-a", ",", ";b", ":a", "!", "?", ".a", "(a", "@", "*", "/", "#", "%", "+", "~a", "$a", "0",
        "01", "1", "1_a", "1-2", "1.5", "1a", "02", "2", "10", "100000000000000000000", "A", "a", "Ä", "á", "a b", "a_b", "a-b", "a:b",
        "a.b", "a1", "a2",
        "A02", "a10", "ab", "B", "b",
        "x1y2", "x1y10", "z", "日本",
    ]  # fmt: skip
    shuffled = sorted(expected, key=lambda name: name[::-1])
    assert shuffled != expected
    ranks = [natural(name)[0] for name in expected]
    assert ranks == sorted(ranks)


def test_lists_come_in_natural_order_and_a_limit_takes_the_last(store):
    names = ["m10", "m2", "M1", "m9"]
    for name in names:
        put(store, "memory", ("s", "b", name), {"removed": False})
        put(store, "storage", (True, name), {"id": name})
        put(store, "log", (name,), {"id": name})
    ordered = ["M1", "m2", "m9", "m10"]
    assert [key[-1] for key in keys(store, "memory", ("s", "b"))] == ordered
    assert [key[-1] for key in keys(store, "memory", ("s", "b"), limit=2)] == ["m9", "m10"]
    assert [key[-1] for key in keys(store, "storage", (True,), limit=3)] == ["m2", "m9", "m10"]
    # The log is scanned newest first; the contract reverses it.
    assert [key[-1] for key in keys(store, "log")] == ordered[::-1]
    assert [key[-1] for key in keys(store, "log", limit=2)] == ["m10", "m9"]
    assert keys(store, "log", limit=0) == []
    assert [key[-1] for key in all_keys(store, "log")] == ordered
    assert [record.body for record in store.scan(DOMAINS["log"], (), limit=1, bodies=False)] == [None]


@pytest.mark.parametrize("name", ["log", "storage", "notification"])
def test_rows_that_stay_the_same_are_not_written_again(store, folder, name):
    """A write of a whole list writes only the rows that changed."""
    head = () if name == "log" else (True,)
    rows = [Record((*head, f"r{number}"), {"id": f"r{number}"}) for number in range(5)]
    store.write(DOMAINS[name], rows)
    before = {path: path.stat().st_ino for path in folder.rglob("*.json")}
    store.write(DOMAINS[name], [*rows[:3], rows[3]._replace(body={"id": "r3", "n": 2}), *rows[4:], Record((*head, "r5"), {"id": "r5"})])
    changed = {path.stem for path in folder.rglob("*.json") if before.get(path) != path.stat().st_ino}
    assert changed == ({"r5"} if name == "log" else {"r3", "r5"})
    assert len(all_keys(store, name)) == 6
    store.write(DOMAINS[name], [rows[1]._replace(body={"id": "r1", "n": 1}), rows[1]])
    assert get(store, name, rows[1].key) == rows[1]


@pytest.mark.parametrize(("prefix", "wanted"), [
    ((), [("a", "x", "1"), ("a", "y", "1"), ("a", "y", "2"), ("b", "x", "1")]),
    (("a",), [("a", "x", "1"), ("a", "y", "1"), ("a", "y", "2")]),
    (("a", "y"), [("a", "y", "1"), ("a", "y", "2")]), (("a", "y", "2"), [("a", "y", "2")]), (("c",), []), (("a", "z"), []),
])  # fmt: skip
def test_any_beginning_of_a_key_can_be_listed(store, prefix, wanted):
    for key in [("a", "x", "1"), ("a", "y", "1"), ("a", "y", "2"), ("b", "x", "1")]:
        put(store, "memory", key, {})
        put(store, "signal", key, {})
    assert keys(store, "memory", prefix) == wanted
    assert keys(store, "signal", prefix) == wanted


def test_sessions_with_and_without_a_frame_lie_in_one_another(store):
    expected = [("s", "e", "", "BTC", True), ("s", "e", "BTC_backtest.json", "BTC", True), ("s", "e", "f", "BTC", True)]
    for key in expected:
        put(store, "session", key, {"frame": key[2]})
    assert keys(store, "session", ("s",)) == expected
    assert keys(store, "session", ("s", "e", "")) == expected[:1]
    assert keys(store, "session", ("s", "e", "f")) == expected[2:]
    assert [record.body["frame"] for record in store.read(DOMAINS["session"], expected)] == ["", "BTC_backtest.json", "f"]


# --- candles ---------------------------------------------------------------------------------------------------------


def test_candles_are_files_of_their_own_and_the_first_write_wins(store, folder):
    assert store.write_candles("BTC/USDT", "1m", "binance", candles(3)) == 3
    assert store.write_candles("BTC/USDT", "1m", "binance", candles(5, price=7.0)) == 2
    path = folder / f"data/candle/binance/BTC%2FUSDT/1m/{START}.json"
    assert json.loads(path.read_bytes()) == {"timestamp": START, "open": 100.5, "high": 100.5, "low": 100.5, "close": 100.5, "volume": 0}
    window = store.read_candles("BTC/USDT", "1m", "binance", START, 5)
    assert window["open"].tolist() == [100.5, 100.5, 100.5, 7.0, 7.0]
    assert not window.flags.writeable
    assert store.read_candles("BTC/USDT", "1m", "binance", START, 6) is None
    assert store.read_candles("BTC/USDT", "1m", "binance", START - MINUTE, 2) is None
    assert store.read_candles("other", "1m", "binance", START, 1) is None
    assert store.write_candles("BTC/USDT", "1m", "binance", np.concatenate([candles(1, START + 10 * MINUTE)] * 2)) == 1


def test_series_and_their_candles(store, folder):
    assert store.candle_series() == []
    store.write_candles("ETH", "1m", "binance", candles(3))
    store.write_candles("BTC", "15m", "okx", candles(3, START // 900_000 * 900_000, 900_000))
    store.write_candles("ETH", "1m", "binance", candles(2, START + 5 * MINUTE))
    (folder / "data/candle/binance/EMPTY/1m").mkdir(parents=True)
    (folder / "data/candle/binance/ETH/7m").mkdir(parents=True)
    plant(folder, "data/candle/binance/ETH/7m/0.json", {})
    assert store.candle_series() == [("binance", "ETH", "1m"), ("okx", "BTC", "15m")]
    series = ("binance", "ETH", "1m")
    (batch,) = store.stored_candles(series)
    assert ((batch["timestamp"] - START) // MINUTE).tolist() == [0, 1, 2, 5, 6]
    (batch,) = store.stored_candles(series, START + MINUTE, START + 6 * MINUTE)
    assert ((batch["timestamp"] - START) // MINUTE).tolist() == [1, 2, 5]
    assert list(store.stored_candles(series, START + 7 * MINUTE)) == []
    assert list(store.stored_candles(("x", "y", "1m"))) == []


@pytest.mark.parametrize("content", [
    b"", b"{", b"null", b"[]", b"\xff", b'{"timestamp":%d,"open":1,"high":1,"low":1,"close":1}' % START, b"[" * 100_000,
    b'{"timestamp":%d,"open":1,"high":1,"low":1,"close":null,"volume":1}' % START,
    b'{"timestamp":%d,"open":1,"high":1,"low":1,"close":1,"volume":1}' % (START + MINUTE),
], ids=lambda content: content[:8] + content[-12:])  # fmt: skip
def test_corrupt_candle_counts_as_missing_and_can_be_written_again(store, folder, warnings, content):
    store.write_candles("BTC", "1m", "binance", candles(3))
    path = plant(folder, f"data/candle/binance/BTC/1m/{START}.json", content)
    assert store.read_candles("BTC", "1m", "binance", START, 3) is None
    assert (folder / f"data/candle/binance/BTC/1m/{START}.json.corrupt-1").read_bytes() == content
    assert not path.exists()
    assert str(path) in warnings[0][1]
    assert store.write_candles("BTC", "1m", "binance", candles(3)) == 1
    assert to_dicts(store.read_candles("BTC", "1m", "binance", START, 3)) == to_dicts(candles(3))


def test_candle_on_top_of_a_corrupt_file_is_stored(store, folder, warnings):
    plant(folder, f"data/candle/binance/BTC/1m/{START}.json", b"")
    assert store.write_candles("BTC", "1m", "binance", candles(3)) == 3
    assert len(store.read_candles("BTC", "1m", "binance", START, 3)) == 3


# --- folders that are listed -----------------------------------------------------------------------------------------

_listings: list[str] = []
_watched: list[str] = []


@sys.addaudithook
def _note_listings(event, args):
    if _watched and event in ("os.listdir", "os.scandir") and str(args[0]).startswith(_watched[-1]):
        _listings.append(str(args[0]))


@pytest.fixture
def listings(folder):
    """The folders below the store's own that are listed during the test."""
    _watched.append(str(folder))
    _listings.clear()
    yield _listings
    _watched.clear()


def test_start_and_reads_list_nothing(folder, listings):
    """This holds for any number of records. A scan lists its own folder, and so does the first write to a folder."""
    writer = FileStore(folder)
    writer.write_candles("BTC", "1m", "binance", candles(2000))
    writer.write(DOMAINS["memory"], [Record(("s", "b", f"m{number}"), {"removed": False}) for number in range(500)])
    writer.write(DOMAINS["partial"], [Record((*TRIPLE, f"i{number}"), {}) for number in range(5)])
    assert listings
    listings.clear()
    store = FileStore(folder)
    store.wait_for_init(1)
    assert len(store.read_candles("BTC", "1m", "binance", START + 1000 * MINUTE, 5)) == 5
    assert store.read_candles("BTC", "1m", "binance", START + 5000 * MINUTE, 5) is None
    assert get(store, "memory", ("s", "b", "m77")) is not None
    assert get(store, "memory", ("s", "b", "none")) is None
    assert get(store, "partial", (*TRIPLE, "i3")) is not None
    assert listings == []
    assert len(keys(store, "memory", ("s", "b"))) == 500
    assert listings == [f"{folder}/memory/s/b"]
    listings.clear()
    for number in range(5):
        store.write_candles("BTC", "1m", "binance", candles(5, START + (3000 + number) * MINUTE))
    assert listings == [f"{folder}/data/candle/binance/BTC/1m"]
