"""Folders whose name joins several key fields, shared with the TypeScript package, which finds and keeps its records by that name alone."""

from __future__ import annotations

import json
import threading

import pytest
from file_helpers import TRIPLE, all_keys, files_in, get, plant, put

from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.files.store import FileStore
from backtest_kit_mongo.stores.files.tree_names import GivenNames

pytestmark = pytest.mark.once

OURS, THEIRS = ("A", "B_C", "x"), ("A_B", "C", "x")  # one folder name: A_B_C_x


def theirs(folder, name, key):
    """Read a record as the TypeScript package does."""
    path = {"signal": f"{key[0]}.json", "strategy": "strategy.json", "partial": f"{key[-1]}.json"}[name]
    return json.loads((folder / "data" / name / "_".join(key[:3]) / path).read_bytes())


# --- both packages in one folder -------------------------------------------------------------------------------------


def test_each_side_reads_what_the_other_stored_in_the_same_folder(store, folder):
    """Each field of the file names tells the contexts apart."""
    put(store, "signal", OURS, {"n": 1})
    plant(folder, "data/signal/A_B_C_x/A_B.json", {"n": 2})
    put(store, "partial", (*OURS, "id1"), {"n": 1})
    plant(folder, "data/partial/A_B_C_x/id2.json", {"n": 2})
    for one in (store, FileStore(folder)):
        assert get(one, "signal", OURS).body == {"n": 1}
        assert get(one, "signal", THEIRS).body == {"n": 2}
        assert get(one, "partial", (*OURS, "id1")).body == {"n": 1}
        assert get(one, "partial", (*THEIRS, "id2")).body == {"n": 2}
        assert get(one, "partial", (*THEIRS, "id1")) is None  # the first record is ours, and marked so
    put(store, "signal", THEIRS, {"n": 3})
    put(store, "partial", (*THEIRS, "id3"), {"n": 3})
    assert (theirs(folder, "signal", THEIRS), theirs(folder, "signal", OURS)) == ({"n": 3}, {"n": 1})
    assert theirs(folder, "partial", (*THEIRS, "id3")) == {"n": 3}
    assert get(FileStore(folder), "partial", (*OURS, "id3")) is None
    assert sorted(all_keys(store, "signal")) == [OURS, THEIRS]


def test_the_typescript_package_replaces_a_record_of_the_same_file(store, folder):
    """It cannot keep both. Whoever asks reads the later one; it is nobody's in particular."""
    put(store, "strategy", OURS, {"n": 1})
    assert get(store, "strategy", THEIRS) is None
    plant(folder, "data/strategy/A_B_C_x/strategy.json", {"n": 2})
    assert get(store, "strategy", THEIRS).body == get(store, "strategy", OURS).body == {"n": 2}
    put(store, "strategy", THEIRS, {"n": 3})  # not over a record that may be of the key that claimed the folder
    assert get(store, "strategy", THEIRS).body == {"n": 3}
    assert get(store, "strategy", OURS).body == theirs(folder, "strategy", OURS) == {"n": 2}
    put(store, "strategy", OURS, {"n": 4})
    assert theirs(folder, "strategy", OURS) == {"n": 4}
    assert [get(FileStore(folder), "strategy", key).body["n"] for key in (OURS, THEIRS)] == [4, 3]


def test_a_row_tells_which_context_has_replaced_a_record(store, folder):
    put(store, "strategy", OURS, {"n": 1})
    row = {"symbol": "A_B", "strategyName": "C", "exchangeName": "x"}
    plant(folder, "data/strategy/A_B_C_x/strategy.json", {"closedSignal": row})
    assert get(store, "strategy", THEIRS).body == {"closedSignal": row}
    assert get(store, "strategy", OURS) is None
    put(store, "strategy", OURS, {"n": 2})
    assert theirs(folder, "strategy", THEIRS) == {"closedSignal": row}
    put(store, "strategy", THEIRS, {"n": 3})
    assert theirs(folder, "strategy", THEIRS) == {"n": 3}
    assert [get(FileStore(folder), "strategy", key).body["n"] for key in (OURS, THEIRS)] == [2, 3]


def test_a_record_of_the_typescript_package_comes_first(store, folder):
    plant(folder, "data/partial/A_B_C_x/id1.json", {"n": 1})
    assert get(store, "partial", (*OURS, "id1")).body == get(store, "partial", (*THEIRS, "id1")).body == {"n": 1}
    put(store, "partial", (*THEIRS, "id1"), {"n": 2}, 5)
    assert theirs(folder, "partial", (*THEIRS, "id1")) == {"n": 2}
    assert get(store, "partial", (*OURS, "id1")) is None
    assert get(FileStore(folder), "partial", (*THEIRS, "id1")) == Record((*THEIRS, "id1"), {"n": 2}, 5)


# --- notes and marks -------------------------------------------------------------------------------------------------


def test_notes_and_marks_are_only_where_a_name_is_ambiguous(store, folder):
    put(store, "signal", TRIPLE, {"n": 1})
    put(store, "signal", ("BTC_USD", "sma", "binance"), {"n": 2})  # the file's name tells the symbol
    put(store, "risk", ("main", "binance"), [])
    row = {"symbol": "BTCUSDT", "strategyName": "sma_cross", "exchangeName": "binance"}
    put(store, "recent", ("BTCUSDT", "sma_cross", "binance", "f", True), row)
    assert [path for path in files_in(folder) if not path.endswith(".json")] == ["data/recent/BTCUSDT_sma_cross_binance_f_backtest/.key"]
    for path in folder.rglob("*.json"):
        assert path.read_bytes() == json.dumps(json.loads(path.read_bytes()), separators=(",", ":")).encode()
    put(store, "signal", ("BTCUSDT", "sma_cross", "binance"), {"n": 3})
    assert json.loads((folder / "data/signal/BTCUSDT_sma_cross_binance/.key").read_bytes()) == row
    content = (folder / "data/signal/BTCUSDT_sma_cross_binance/BTCUSDT.json").read_bytes()
    assert content.startswith(b'{"n":3}\r')
    assert json.loads(content) == {"n": 3}
    assert content.split(b"\r")[1].strip(b" \t") == b""


@pytest.mark.parametrize("when", [None, 0, -1, 1_700_000_000_000])
def test_mark_and_time_of_a_record_stand_together(store, folder, when):
    for n, key in enumerate((OURS, THEIRS, ("A_B_C", "", "x"))):
        put(store, "partial", (*key, "id"), {"n": n}, when)
    fresh = FileStore(folder)
    for n, key in enumerate((OURS, THEIRS, ("A_B_C", "", "x"))):
        assert get(fresh, "partial", (*key, "id")) == Record((*key, "id"), {"n": n}, when)


def test_three_keys_of_one_file_in_a_batch_race_with_other_processes(folder):
    """Every acknowledged record is read again under its own key."""
    keys = [("a_b", "c_d", "e"), ("a", "b_c_d", "e"), ("a_b_c", "d", "e")]
    stores, barrier = [FileStore(folder) for _ in keys], threading.Barrier(3)

    def run(number):
        barrier.wait(60)
        for round in range(30):
            key = keys[number]
            stores[number].write(DOMAINS["strategy"], [Record(key, {"n": [number, round, part]}, None) for part in range(2)])
            assert get(stores[number], "strategy", key).body == {"n": [number, round, 1]}

    failures = []

    def guarded(number):
        try:
            run(number)
        except BaseException as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {record.key: record.body["n"][0] for record in FileStore(folder).records(DOMAINS["strategy"])} == dict(
        zip(keys, range(3), strict=True)
    )


def test_a_change_compares_with_the_record_of_its_own_key(store, folder):
    put(store, "strategy", OURS, {"n": 1})
    for before, swapped in ((Record(THEIRS, {"n": 1}), False), (None, True), (None, False), (Record(THEIRS, {"n": 2}), True)):
        assert store.swap(DOMAINS["strategy"], Record(THEIRS, {"n": 2}), before) is swapped
    assert [get(FileStore(folder), "strategy", key).body["n"] for key in (OURS, THEIRS)] == [1, 2]


def test_a_name_with_more_splits_than_can_be_tried(store, folder):
    """Such a folder belongs to one key, which its note names."""
    first = ("_" * 60, "_" * 60, "_" * 60)
    second = ("_" * 61, "_" * 59, "_" * 60)
    for n, key in enumerate((first, second)):
        put(store, "partial", (*key, "id"), {"n": n})
        put(store, "partial", (*key, f"id{n}"), {"n": n})
    fresh = FileStore(folder)
    for n, key in enumerate((first, second)):
        assert get(fresh, "partial", (*key, "id")).body == get(fresh, "partial", (*key, f"id{n}")).body == {"n": n}
    assert get(fresh, "partial", (*first, "id1")) is None
    assert sorted(all_keys(fresh, "partial")) == sorted((*key, name) for n, key in enumerate((first, second)) for name in ("id", f"id{n}"))


def test_long_names_of_records_in_a_spare_folder_are_kept(store, folder):
    long = "i" * 300
    put(store, "partial", (*OURS, long), {"n": 1})
    put(store, "partial", (*THEIRS, long), {"n": 2})
    fresh = FileStore(folder)
    assert [get(fresh, "partial", (*key, long)).body["n"] for key in (OURS, THEIRS)] == [1, 2]
    assert sorted(all_keys(fresh, "partial")) == [(*OURS, long), (*THEIRS, long)]


def test_versions_of_one_file_are_told_apart(folder):
    """The earlier version of another key is hidden, also after its record was deleted."""
    store = FileStore(folder, History(frozenset({"partial"})))
    put(store, "partial", (*OURS, "id"), {"n": 1}, 10)
    put(store, "partial", (*OURS, "id"), {"n": 2}, 20)
    (folder / "data/partial/A_B_C_x/id.json").unlink()
    put(store, "partial", (*THEIRS, "id"), {"n": 3}, 30)
    fresh = FileStore(folder, History(frozenset({"partial"})))
    assert fresh.read_at(DOMAINS["partial"], [(*THEIRS, "id")] * 2, 15) == [None, None]
    assert fresh.read_at(DOMAINS["partial"], [(*THEIRS, "id")], 30)[0].body == {"n": 3}


# --- lists of ambiguous names ----------------------------------------------------------------------------------------


def test_the_name_decides_and_a_contradiction_is_said(store, folder, warnings):
    plant(folder, "data/signal/ETHUSDT_alpha_binance/ETHUSDT.json", {"symbol": "BTCUSDT"})
    assert all_keys(store, "signal") == [("ETHUSDT", "alpha", "binance")]
    assert get(store, "signal", ("ETHUSDT", "alpha", "binance")).body == {"symbol": "BTCUSDT"}
    ((level, line),) = warnings
    assert level == "warning"
    assert "data/signal/ETHUSDT_alpha_binance: the folder's name decides" in line
    assert "although a row says symbol BTCUSDT" in line


def test_a_row_that_contradicts_one_field_still_tells_the_others(store, folder, warnings):
    row = {"symbol": "BTCUSDT", "strategyName": "sma_cross", "exchangeName": "binance"}
    plant(folder, "data/signal/ETHUSDT_sma_cross_binance/ETHUSDT.json", row)
    assert all_keys(store, "signal") == [("ETHUSDT", "sma_cross", "binance")]
    assert len(warnings) == 1


SPLIT = "data/signal/ETHUSDT_sma_cross_myex/ETHUSDT.json"
RIGHT, WRONG = ("ETHUSDT", "sma_cross", "myex"), ("ETHUSDT", "sma", "cross_myex")


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("data/schedule/BTCUSDT_alpha_myex/BTCUSDT.json", None, RIGHT),  # a folder with one split
        ("data/risk/main_myex/positions.json", [], RIGHT),
        ("data/candle/myex/BTCUSDT/1m/1.json", {}, RIGHT),
        ("session/alpha/myex/BTCUSDT_live.json", {}, RIGHT),
        ("session/alpha/cross_myex/BTCUSDT_live.json", {}, WRONG),
        ("data/storage/live/1.json", {"symbol": "X", "strategyName": "alpha", "exchangeName": "myex"}, RIGHT),
        ("data/notification/live/1.json", {"exchangeName": "cross_myex"}, WRONG),
        ("data/notification/live/1.json", {"strategyName": "sma_cross"}, RIGHT),
        ("data/notification/live/1.json", {"strategyName": "sma"}, None),  # the beginning of both
        ("data/schedule/BTCUSDT_sma_other/BTCUSDT.json", None, None),
        ("data/schedule/BTCUSDT_alpha_beta_myex/BTCUSDT.json", {"exchangeName": "myex"}, RIGHT),
        ("data/schedule/BTCUSDT_alpha_beta_myex/BTCUSDT.json", None, None),  # as ambiguous itself
    ],
)
def test_the_tree_tells_how_a_name_is_split(store, folder, path, body, key):
    plant(folder, SPLIT, None)
    assert all_keys(store, "signal") == []
    plant(folder, path, body)
    assert all_keys(store, "signal") == ([key] if key else [])


def test_evidence_for_two_splits_tells_nothing(store, folder, warnings):
    plant(folder, SPLIT, None)
    plant(folder, "data/candle/myex/BTCUSDT/1m/1.json", {})
    plant(folder, "data/candle/cross_myex/BTCUSDT/1m/1.json", {})
    assert all_keys(store, "signal") == []
    assert "cannot tell" in warnings[0][1]


def test_symbols_of_the_tree_tell_where_the_file_has_none(store, folder):
    plant(folder, "data/partial/ETHUSDT_sma_cross_binance/id1.json", {})
    assert all_keys(store, "partial") == []
    plant(folder, "data/candle/binance/ETHUSDT/1m/1.json", {})
    assert all_keys(store, "partial") == [("ETHUSDT", "sma_cross", "binance", "id1")]


def test_an_exchange_that_everybody_knows_is_the_last_hint(store, folder):
    plant(folder, "data/signal/ETHUSDT_sma_cross_binance/ETHUSDT.json", None)
    assert all_keys(store, "signal") == [("ETHUSDT", "sma_cross", "binance")]
    plant(folder, "data/candle/cross_binance/BTCUSDT/1m/1.json", {})
    assert all_keys(store, "signal") == [("ETHUSDT", "sma", "cross_binance")]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (GivenNames(frozenset({"sma_cross"})), RIGHT),
        (GivenNames(frozenset({"other", "sma"})), WRONG),
        (GivenNames(exchanges=frozenset({"cross_myex"})), WRONG),
        (GivenNames(frozenset({"sma", "sma_cross"})), None),
        (GivenNames(frozenset({"sma", "sma_cross"}), frozenset({"myex"})), RIGHT),
        (GivenNames(frozenset({"nobody"}), frozenset({"nowhere"})), None),
    ],
)
def test_names_that_are_given(folder, given, key):
    plant(folder, SPLIT, None)
    assert all_keys(FileStore(folder, given=given), "signal") == ([key] if key else [])
