"""Versions in the file store: reads as of a time, versions that a write discards, and what is kept for how long."""

from __future__ import annotations

import errno
import json
import os
import random

import pytest
from file_helpers import T0, TRIPLE, Lines, all_keys, files_in, get, plant, put

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once

STATE = DOMAINS["state"]
KEY = ("s", "b")
DAY = 86_400_000


def open_store(folder, **options):
    return FileStore(folder, History(frozenset({"state", "memory", "recent", "partial"}), **options))


def at(store, moment, key=KEY, name="state"):
    record = store.read_at(DOMAINS[name], [key], moment)[0]
    return None if record is None else record.body["n"]


def write(store, when, n=None, key=KEY, name="state"):
    put(store, name, key, {"n": when if n is None else n}, when)


def timeline(store, moments):
    return [at(store, moment) for moment in moments]


def test_read_gives_the_value_as_of_a_time(folder):
    store = open_store(folder)
    assert at(store, T0) is None
    for when in (10, 20, 30):
        write(store, when)
    for fresh in (store, open_store(folder)):
        assert timeline(fresh, [9, 10, 19, 20, 29, 30, 10**15]) == [None, 10, 10, 20, 20, 30, 30]
        assert fresh.read_at(STATE, [KEY, ("s", "other"), KEY], 25) == [Record(KEY, {"n": 20}, 20), None, Record(KEY, {"n": 20}, 20)]
        assert get(fresh, "state", KEY) == Record(KEY, {"n": 30}, 30)
    assert all_keys(store, "state") == [KEY]
    assert [path for path in files_in(folder) if path.endswith(".json")] == ["state/s/b/b.json"]


def test_write_discards_later_versions_and_replaces_one_of_its_time(folder):
    store = open_store(folder)
    for when in (10, 20, 30, 40):
        write(store, when)
    write(store, 25)
    assert timeline(store, [10, 20, 24, 25, 30, 100]) == [10, 20, 20, 25, 25, 25]
    write(store, 25, n="again")
    write(store, 20, n="earlier")
    for fresh in (store, open_store(folder)):
        assert timeline(fresh, [10, 19, 20, 25, 100]) == [10, 10, "earlier", "earlier", "earlier"]
    write(store, -5)
    assert timeline(store, [-6, -5, 100]) == [None, -5, -5]


def test_versions_of_one_batch(folder):
    store = open_store(folder)
    store.write(STATE, [Record(KEY, {"n": when}, when) for when in (10, 20, 30, 15)])
    assert timeline(store, [9, 10, 14, 15, 30]) == [None, 10, 10, 15, 15]


@pytest.mark.parametrize(
    ("since", "wanted"), [(31, [10, 20, 30]), (30, [10, 20, 20]), (25, [10, 20, 20]), (20, [10, 10, 10]), (5, [None] * 3)]
)
def test_discarding_versions(folder, since, wanted):
    store = open_store(folder)
    for when in (10, 20, 30):
        write(store, when)
    store.discard_versions(STATE, [KEY, ("s", "never")], since)
    for fresh in (store, open_store(folder)):
        assert timeline(fresh, [10, 20, 30]) == wanted
        record = get(fresh, "state", KEY)
        assert (record and record.body["n"]) == wanted[-1]
    write(store, 40)
    assert timeline(store, [10, 20, 30, 40]) == [*wanted, 40]


def test_bounds(folder):
    store = open_store(folder, limit=3)
    for when in range(10):
        write(store, when)
    assert timeline(store, range(10)) == [None] * 7 + [7, 8, 9]
    assert len(files_in(folder)) == 3
    days = open_store(folder / "days", days=2)
    for day in range(10):
        write(days, day * DAY)
    assert timeline(days, [day * DAY for day in range(10)]) == [None] * 7 + [7 * DAY, 8 * DAY, 9 * DAY]
    endless = open_store(folder / "endless", limit=0)
    for when in range(1200):
        write(endless, when)
    assert timeline(endless, [0, 600]) == [0, 600]


def test_other_domains_keep_none(folder):
    store = open_store(folder)
    write(store, 10, key=("s", "d"), name="dictionary")
    write(store, 20, key=("s", "d"), name="dictionary")
    assert files_in(folder) == ["data/dictionary/s/d.json"]


def test_removed_and_joined_records_have_versions(folder):
    store = open_store(folder)
    put(store, "memory", ("s", "b", "m.json"), {"n": 1, "removed": False}, 10)
    put(store, "memory", ("s", "b", "m.json"), {"n": 2, "removed": True}, 20)
    assert [record.removed for record in store.read_at(DOMAINS["memory"], [("s", "b", "m.json")] * 2, 15)] == [False, False]
    assert store.read_at(DOMAINS["memory"], [("s", "b", "m.json")], 20)[0].removed
    assert [record.key for record in store.scan(DOMAINS["memory"], ("s", "b"), removed=True)] == [("s", "b", "m.json")]
    for key in (("a_b", "c", "e", "i"), ("a", "b_c", "e", "i")):
        for when in (10, 20):
            put(store, "partial", key, {"n": [key[0], when]}, when)
    assert at(open_store(folder), 15, ("a", "b_c", "e", "i"), "partial") == ["a", 10]
    assert at(open_store(folder), 15, ("a_b", "c", "e", "i"), "partial") == ["a_b", 10]


def test_record_of_the_original_is_the_first_version(folder):
    """The record states its time; without one it counts as having always existed."""
    plant(folder, "state/s/b/b.json", {"n": 1, "when": 10})
    plant(folder, "data/partial/BTCUSDT_sma_binance/i.json", {"n": 1})
    store = open_store(folder)
    assert timeline(store, [9, 10]) == [None, 1]
    write(store, 20)
    assert timeline(store, [9, 10, 20]) == [None, 1, 20]
    put(store, "partial", (*TRIPLE, "i"), {"n": 2}, 20)
    assert [at(store, moment, (*TRIPLE, "i"), "partial") for moment in (-(2**62), 19, 20)] == [1, 1, 2]


def test_two_stores_on_one_folder_see_each_others_versions(folder):
    one, other = open_store(folder), open_store(folder)
    model = {}
    rng = random.Random(7)
    for _ in range(300):
        store, when = rng.choice([one, other]), rng.randrange(50)
        if rng.random() < 0.1:
            store.discard_versions(STATE, [KEY], when)
            model = {time: n for time, n in model.items() if time < when}
        else:
            n = rng.random()
            write(store, when, n=n)
            model = {time: old for time, old in model.items() if time < when} | {when: n}
        moment = rng.randrange(50)
        expected = max((time for time in model if time <= moment), default=None)
        for reader in (one, other):
            assert at(reader, moment) == (None if expected is None else model[expected])


def test_version_that_a_killed_write_left_is_no_version(folder):
    """A write first keeps the old record, then replaces it, then deletes later versions; it may be killed in between."""
    store = open_store(folder)
    for when in (10, 20, 30):
        write(store, when)
    versions = folder / "state/s/b/.b.was"
    os.link(folder / "state/s/b/b.json", versions / "30")
    assert timeline(open_store(folder), [10, 20, 30]) == [10, 20, 30]
    (versions / "50").write_bytes(b'{"n": "later"}')
    assert timeline(open_store(folder), [20, 30, 60]) == [20, 30, 30]
    late = open_store(folder)
    write(late, 70)
    assert timeline(late, [20, 30, 60, 70]) == [20, 30, 30, 70]
    assert sorted(path.name for path in versions.iterdir()) == ["10", "20", "30"]


def test_history_without_hard_links(folder, monkeypatch):
    def refuse(source, target, **options):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported", source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(folder)
    for when in (10, 20, 30):
        write(store, when)
    assert timeline(open_store(folder), [10, 20, 30]) == [10, 20, 30]
    put(store, "log", ("l",), {"n": 1})
    put(store, "log", ("l",), {"n": 2})
    assert get(store, "log", ("l",)).body == {"n": 1}
    put(store, "strategy", ("a_b", "c", "e"), {"n": 1})
    put(store, "strategy", ("a", "b_c", "e"), {"n": 2})
    assert get(store, "strategy", ("a_b", "c", "e")).body == {"n": 1}
    assert not [path for path in files_in(folder) if ".tmp-" in path]


def test_a_corrupt_record_leaves_its_versions(folder):
    store = open_store(folder)
    for when in (10, 20):
        write(store, when)
    (folder / "state/s/b/b.json").write_bytes(b"{")
    lines = Lines()
    kit.set_logger(lines)
    try:
        assert timeline(open_store(folder), [10, 25]) == [10, 10]
        assert [level for level, _ in lines] == ["warning"]
        write(open_store(folder), 30)
        assert timeline(store, [10, 25, 30]) == [10, 10, 30]
        assert json.loads((folder / "state/s/b/b.json").read_bytes()) == {"n": 30}
    finally:
        kit.set_logger(None)
