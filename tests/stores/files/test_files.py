"""The file store: paths of records, accepted names and values, owners of folders, and folders of the TypeScript package."""

from __future__ import annotations

import itertools
import json
import os
import threading
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from file_helpers import START, T0, TRIPLE, all_keys, files_in, get, keys, plant, put

from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.files.names import encode_name, plain_name
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once


# --- the layout of the TypeScript package ----------------------------------------------------------------------------

PLACES = [
    ("signal", TRIPLE, "data/signal/BTCUSDT_sma_binance/BTCUSDT.json"),
    ("schedule", TRIPLE, "data/schedule/BTCUSDT_sma_binance/BTCUSDT.json"),
    ("strategy", TRIPLE, "data/strategy/BTCUSDT_sma_binance/strategy.json"),
    ("risk", ("main", "binance"), "data/risk/main_binance/positions.json"),
    ("partial", (*TRIPLE, "id1"), "data/partial/BTCUSDT_sma_binance/id1.json"),
    ("breakeven", (*TRIPLE, "id1"), "data/breakeven/BTCUSDT_sma_binance/id1.json"),
    ("storage", (True, "id1"), "data/storage/backtest/id1.json"),
    ("notification", (False, "id1"), "data/notification/live/id1.json"),
    ("log", ("id1",), "data/log/log/id1.json"),
    ("measure", ("fn_1m_0", "BTC_1"), "data/measure/fn_1m_0/BTC_1.json"),
    ("interval", ("fn_1m_0", "BTC_1"), "data/interval/fn_1m_0/BTC_1.json"),
    ("memory", ("sig", "notes", "m1"), "memory/sig/notes/m1.json"),
    ("recent", (*TRIPLE, "f1", True), "data/recent/BTCUSDT_sma_binance_f1_backtest/BTCUSDT.json"),
    ("recent", (*TRIPLE, "", False), "data/recent/BTCUSDT_sma_binance_live/BTCUSDT.json"),
    ("state", ("sig", "b"), "state/sig/b/b.json"),
    ("session", ("sma", "binance", "f1", "BTC_USD", True), "session/sma/binance/f1/BTC_USD_backtest.json"),
    ("session", ("sma", "binance", "", "BTCUSDT", False), "session/sma/binance/BTCUSDT_live.json"),
    ("dictionary", ("sig", "levels"), "data/dictionary/sig/levels.json"),
    ("candle", ("binance", "BTCUSDT", "1m", START), f"data/candle/binance/BTCUSDT/1m/{START}.json"),
]  # fmt: skip


def body_of(name):
    """Return a body; a recent signal names its strategy and exchange, which its folder with a frame does not."""
    said = {"strategyName": "sma", "exchangeName": "binance"} if name == "recent" else {}
    return [["k", {"n": 1.5}]] if name == "risk" else {"id": "é: \u2028", "n": 1.5, "none": None, **said}


def test_every_domain_has_a_place():
    assert {name for name, _, _ in PLACES} == set(DOMAINS)


@pytest.mark.parametrize(("name", "key", "path"), PLACES)
def test_record_lies_where_the_original_has_it(store, folder, name, key, path):
    """The file is compact UTF-8 JSON of the payload alone; the TypeScript package ignores other files there."""
    put(store, name, key, body_of(name))
    assert json.loads((folder / path).read_bytes()) == body_of(name)
    assert (folder / path).read_bytes() == json.dumps(body_of(name), separators=(",", ":"), ensure_ascii=False).encode()
    assert [other for other in files_in(folder) if other.endswith(".json") or "/.tmp-" in other] == [path]


@pytest.mark.parametrize(("name", "key", "path"), PLACES)
def test_folder_of_the_original_opens_as_it_is(store, folder, name, key, path, warnings):
    plant(folder, path, body_of(name))
    assert get(store, name, key) == Record(key, body_of(name))
    assert all_keys(store, name) == [key]
    assert files_in(folder) == [path]  # reading leaves no files
    put(store, name, key, {} if name != "risk" else [])  # a candle and a log entry do not change
    assert get(store, name, key).body == (body_of(name) if name in ("candle", "log") else {} if name != "risk" else [])
    assert warnings == []


@pytest.mark.parametrize(("name", "key", "path"), PLACES)
def test_every_record_is_found_again_with_its_key(folder, name, key, path):
    """This holds for any text in the key fields, and in a process that did not write the record."""
    texts = [index for index, kind in enumerate(DOMAINS[name].kinds) if kind is str and DOMAINS[name].key[index] != "interval"]
    odd = ("a_b", "a", "b_c", "", "a/b", "..", ".", "%", "%2F", "a%", "x.json", ".tmp-1-x", "é", "e\u0301", "日" * 90, "CON", "live", "\n")
    expected = set()
    for index, text in itertools.product(texts, odd):
        expected.add((*key[:index], text, *key[index + 1 :]))
    for one, two in itertools.permutations(texts, 2):
        for first, second in (("a_b", "c"), ("a", "b_c"), ("", "a_"), ("_a", ""), ("x" * 120, "y" * 120)):
            changed = list(key)
            changed[one], changed[two] = first, second
            expected.add(tuple(changed))
    body = [] if name == "risk" else {}
    FileStore(folder).write(DOMAINS[name], [Record(one, body) for one in expected])
    listed = all_keys(FileStore(folder), name)
    assert len(listed) == len(expected)
    assert set(listed) == expected
    assert all(FileStore(folder).read(DOMAINS[name], sorted(expected)))


def test_folder_is_fixed_when_the_store_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FileStore(Path("dump"))
    monkeypatch.chdir("/")
    put(store, "state", ("s", "b"), {})
    assert (tmp_path / "dump/state/s/b/b.json").exists()


def test_only_files_of_the_own_domains_are_touched(store, folder):
    strange = ["report/a.md", "data/other/x/y.json", "data/signal/readme.txt", "data/storage/live/notes.txt", "data/log/log/.hidden.json"]
    for path in strange:
        plant(folder, path, b"not ours")
    for name in DOMAINS:
        assert all_keys(store, name) == []
    store.wait_for_init(1)
    assert files_in(folder) == sorted(strange)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a:b", "a b", "日本", "🚀", "$x*?[", "a.b", "x.json", "CON", "-", "_", "\n", "é"])
def test_plain_names_stay_as_they_are(name):
    assert encode_name(name) == plain_name(name) == name


@pytest.mark.parametrize(("name", "wanted"), [
    ("a/b", "a%2Fb"), ("..", "%2E."), (".x", "%2Ex"), ("a\\b", "a%5Cb"), ("50%", "50%25"), ("", "%"), ("a\0b", "a%00b"),
    ("e\u0301", "e%CC%81"), (".tmp-1-x", "%2Etmp-1-x"),
])  # fmt: skip
def test_other_names_are_encoded(name, wanted):
    assert encode_name(name) == wanted
    assert plain_name(wanted) == name


def test_long_names_become_a_hash(store, folder):
    names = ["x" * 200, "x" * 201, "x" * 202, "日" * 67, "/" * 67, "x" * 5000]
    for name in names:
        put(store, "state", (name, name), {"is": name[:3] + str(len(name))})
    assert max(len(os.fsencode(part)) for path in folder.rglob("*") for part in path.parts[-2:]) <= 255
    assert {record.key for record in FileStore(folder).records(DOMAINS["state"])} == {(name, name) for name in names}
    for name in names:
        assert get(FileStore(folder), "state", (name, name)).body == {"is": name[:3] + str(len(name))}


def test_no_name_leaves_the_folder(tmp_path):
    folder = tmp_path / "a" / "dump"
    store = FileStore(folder)
    for name in ("..", "../..", "/etc/passwd", "../../x", "a/../../../b", "\\..\\x", "..%2F..", "."):
        put(store, "state", (name, name), {"name": name})
        put(store, "session", (name, name, name, name, True), {"name": name})
        put(store, "signal", (name, name, name), {"name": name})
        assert get(store, "state", (name, name)).body == get(store, "signal", (name, name, name)).body == {"name": name}
    assert {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()} == {("a", "dump")}


def test_names_never_collide():
    names = ["", "%", "%25", "a", "a/b", "a%2Fb", "a%252Fb", ".a", "%2Ea", "é", "e\u0301", "e%CC%81", "x.json", "x%2Ejson", "%-" + "0" * 64]
    for folder in (False, True):
        encoded = [encode_name(name, folder=folder) for name in names]
        assert len({unicodedata.normalize("NFC", one) for one in encoded}) == len(names)
        assert [plain_name(one, folder=folder) for one in encoded[:-1]] == names[:-1]


def test_names_that_the_original_leaves_plain_are_found_and_kept_there(store, folder):
    """The TypeScript package leaves ``50%`` and a backslash unencoded; this store encodes them unless such a file exists."""
    for name in ("50%", "a\\b", "%2", "y" * 230):
        plant(folder, f"data/measure/fn/{name}.json", {"id": name, "data": 1, "removed": False})
    expected = {("fn", name) for name in ("50%", "a\\b", "%2", "y" * 230)}
    assert set(all_keys(store, "measure")) == expected
    put(store, "measure", ("fn", "50%"), {"id": "50%", "data": 2, "removed": False})
    assert json.loads((folder / "data/measure/fn/50%.json").read_bytes())["data"] == 2
    assert get(store, "measure", ("fn", "50%")).body["data"] == 2
    assert set(all_keys(store, "measure")) == expected
    plant(folder, "state/50%/b/b.json", {"n": 1})
    assert get(store, "state", ("50%", "b")).body == {"n": 1}
    assert all_keys(store, "state") == [("50%", "b")]


# --- owners of joined folders ----------------------------------------------------------------------------------------


def test_plain_folder_belongs_to_the_first_key(store, folder):
    first, second = ("a_b", "c", "e"), ("a", "b_c", "e")
    put(store, "strategy", first, {"n": 1})
    put(store, "strategy", second, {"n": 2})
    assert json.loads((folder / "data/strategy/a_b_c_e/strategy.json").read_bytes()) == {"n": 1}
    for fresh in (store, FileStore(folder)):
        assert get(fresh, "strategy", first).body == {"n": 1}
        assert get(fresh, "strategy", second).body == {"n": 2}
        assert get(fresh, "strategy", ("a_b_c", "", "e")) is None
        assert sorted(all_keys(fresh, "strategy")) == sorted([first, second])


def test_key_in_a_folder_of_its_own_keeps_it_when_the_first_one_goes(store, folder):
    put(store, "strategy", ("a_b", "c", "e"), {"n": 1})
    put(store, "strategy", ("a", "b_c", "e"), {"n": 2})
    for path in (folder / "data/strategy/a_b_c_e").iterdir():
        path.unlink()
    (folder / "data/strategy/a_b_c_e").rmdir()
    fresh = FileStore(folder)
    assert get(fresh, "strategy", ("a", "b_c", "e")).body == {"n": 2}
    put(fresh, "strategy", ("a", "b_c", "e"), {"n": 3})
    put(fresh, "strategy", ("a_b", "c", "e"), {"n": 4})
    assert {record.key: record.body["n"] for record in fresh.records(DOMAINS["strategy"])} == {("a", "b_c", "e"): 3, ("a_b", "c", "e"): 4}


def test_record_of_the_original_in_an_ambiguous_folder_is_given_to_its_own_key(store, folder):
    """The payload names its key; a write of another key leaves the record alone."""
    row = {"symbol": "BTC", "strategyName": "a", "exchangeName": "b_c"}
    plant(folder, "data/strategy/BTC_a_b_c/strategy.json", {"closedSignal": row})
    assert get(store, "strategy", ("BTC", "a_b", "c")) is None
    assert get(store, "strategy", ("BTC", "a", "b_c")).body == {"closedSignal": row}
    assert all_keys(store, "strategy") == [("BTC", "a", "b_c")]
    put(store, "strategy", ("BTC", "a_b", "c"), {"n": 1})
    assert get(store, "strategy", ("BTC", "a", "b_c")).body == {"closedSignal": row}
    put(store, "strategy", ("BTC", "a", "b_c"), {"n": 2})
    assert json.loads((folder / "data/strategy/BTC_a_b_c/strategy.json").read_bytes()) == {"n": 2}
    assert sorted(all_keys(store, "strategy")) == [("BTC", "a", "b_c"), ("BTC", "a_b", "c")]


def test_record_whose_key_cannot_be_told_is_left_out_with_a_warning(store, folder, warnings):
    plant(folder, "data/partial/BTC_a_b_c/id1.json", {"id1": {"profitLevels": [], "lossLevels": []}})
    plant(folder, "data/partial/BTC_a_b/id1.json", {})
    assert all_keys(store, "partial") == [("BTC", "a", "b", "id1")]
    assert [level for level, _ in warnings] == ["warning"]
    assert "data/partial/BTC_a_b_c" in warnings[0][1]
    assert get(store, "partial", ("BTC", "a_b", "c", "id1")).body == {"id1": {"profitLevels": [], "lossLevels": []}}
    put(store, "partial", ("BTC", "a_b", "c", "id2"), {})
    assert all_keys(store, "partial")[1:] == [("BTC", "a_b", "c", "id1"), ("BTC", "a_b", "c", "id2")]
    assert len(warnings) == 1


def test_key_is_told_by_other_records_of_the_folder(store, folder, warnings):
    """Signals tell where a strategy's name ends; levels and empty records in a folder of that name then belong to it too."""
    plant(folder, "data/partial/BTC_a_b_c/id1.json", {"id1": {"profitLevels": [], "lossLevels": []}})
    plant(folder, "data/schedule/BTC_a_b_c/BTC.json", b"null")
    plant(folder, "data/risk/main_b_c/positions.json", [])
    plant(folder, "data/storage/live/x.json", {"id": "x", "symbol": "BTC", "strategyName": "a", "exchangeName": "b_c"})
    assert all_keys(store, "partial") == [("BTC", "a", "b_c", "id1")]
    assert all_keys(store, "schedule") == [("BTC", "a", "b_c")]
    assert all_keys(store, "risk") == [("main", "b_c")]
    assert warnings == []
    plant(folder, "data/storage/live/y.json", {"id": "y", "symbol": "BTC", "strategyName": "a_b", "exchangeName": "c"})
    assert all_keys(store, "partial") == all_keys(store, "risk") == []
    assert len(warnings) == 2


def test_foreign_row_is_still_given_to_whoever_asks(store, folder):
    """The engine itself ignores a row of another exchange; no other key fits the folder."""
    plant(folder, "data/signal/BTC_sma_binance/BTC.json", {"symbol": "BTC", "exchangeName": "okx"})
    assert get(store, "signal", ("BTC", "sma", "binance")).body["exchangeName"] == "okx"


def test_racing_claims_of_one_folder_have_one_winner(folder):
    pairs = [("a_b", "c", "e"), ("a", "b_c", "e")]
    for _ in range(20):
        stores, barrier = [FileStore(folder) for _ in pairs], threading.Barrier(2)

        def run(store, key, barrier=barrier):
            barrier.wait()
            put(store, "strategy", key, {"key": list(key)})

        threads = [threading.Thread(target=run, args=pair) for pair in zip(stores, pairs, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for key in pairs:
            assert get(FileStore(folder), "strategy", key).body == {"key": list(key)}
        for path in sorted((folder / "data/strategy").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()


# --- values and times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0, -1, T0, 2**63 - 1, -(2**63), None])
@pytest.mark.parametrize("body", [{"n": 1}, {"n": 1, "when": T0 + 1}, {"when": "no time"}, {"when": None}, {"when": True}, None])
def test_time_of_a_write_comes_back(store, folder, when, body):
    """The time is stored after the JSON, where no parser sees it; a time in the body counts for a write without one."""
    put(store, "state", ("s", "b"), body, when)
    said = body.get("when") if body else None
    expected = when if when is not None else T0 + 1 if said == T0 + 1 else None
    assert get(FileStore(folder), "state", ("s", "b")) == Record(("s", "b"), body, expected)
    assert json.loads((folder / "state/s/b/b.json").read_bytes()) == body


@pytest.mark.parametrize(("name", "key", "body"), [
    ("state", ("s", "b"), {"when": T0}), ("state", ("s", "b"), {"when": float(T0)}), ("recent", (*TRIPLE, "", False), {"timestamp": T0}),
    ("interval", ("b", "k"), {"when": "2023-11-14T22:13:20.000Z", "removed": False}),
    ("interval", ("b", "k"), {"when": datetime.fromtimestamp(T0 // 1000, UTC), "removed": False}),
])  # fmt: skip
def test_time_that_the_payload_says_is_not_written_twice(store, folder, name, key, body):
    put(store, name, key, body, T0)
    assert get(store, name, key).when == T0
    (path,) = folder.rglob("*.json")
    assert b"\n" not in path.read_bytes()


def test_time_of_domains_without_one_is_not_kept(store):
    put(store, "measure", ("b", "k"), {"removed": False, "when": T0}, T0)
    assert get(store, "measure", ("b", "k")).when is None


def test_removed_follows_the_payload(store, folder):
    put(store, "memory", ("s", "b", "m"), {"data": 1, "removed": False}, T0)
    store.remove(DOMAINS["memory"], [("s", "b", "m"), ("s", "b", "nothing")])
    assert get(store, "memory", ("s", "b", "m")) == Record(("s", "b", "m"), {"data": 1, "removed": True}, T0, removed=True)
    put(store, "memory", ("s", "b", "copied"), {"data": 2}, T0, removed=True)
    assert keys(store, "memory", ("s", "b")) == []
    assert keys(store, "memory", ("s", "b"), removed=True) == [("s", "b", "copied"), ("s", "b", "m")]
    assert all_keys(store, "memory") == [("s", "b", "copied"), ("s", "b", "m")]
    assert json.loads((folder / "memory/s/b/m.json").read_bytes())["removed"] is True


def test_what_javascript_writes_is_read(store, folder):
    """Half a surrogate pair from a truncated text, integers of any length, and exponents are read."""
    text = r'{"cut":"a\ud83d","pair":"\ud83d\ude80","big":120000000000000000000,"neg":-9223372036854775809,"e":1e+21,"i":9007199254740993}'
    plant(folder, "state/s/b/b.json", text.encode())
    body = get(store, "state", ("s", "b")).body
    assert body == {"cut": "a\ufffd", "pair": "🚀", "big": 1.2e20, "neg": -9223372036854775809.0, "e": 1e21, "i": 9007199254740993}
    put(store, "state", ("s", "b"), body)  # and can be stored again
    assert get(store, "state", ("s", "b")).body == body
