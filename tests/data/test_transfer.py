"""Copy records between stores and export them to files: real MongoDB, real files, and the commands as a user runs them."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import signal
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow.parquet as pq
import pymongo
import pytest
from bson import Binary, Int64, Regex
from command import Cli

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import PRICES
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.data.export import Selection, declared_fields, export_domain
from backtest_kit_mongo.data.store_addresses import check_apart, open_store
from backtest_kit_mongo.data.transfer import check_domain, copy_domain, same_records
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import read_klines, synthetic_market
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.files.jsonl import JsonlStore
from backtest_kit_mongo.stores.files.store import FileStore
from backtest_kit_mongo.stores.memory import MemoryStore

pytestmark = [pytest.mark.once, pytest.mark.server]

START = 1_677_628_800_000
NOON = datetime(2023, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
MINUTE = 60_000
SECRET = "s3cr3t-hunter2"

# Names that are not valid folder names, or that collide when joined.
NAMES = ("BTC", "a:b", "x/y", "..", "é", "a_b")


def body_of(name, n):
    if DOMAINS[name].empty is list:
        return [[f"k{n}", {"symbol": "BTC", "minuteEstimatedTime": math.inf, "openTimestamp": START}]]
    body = {"id": f"{n}", "n": n, "x": n / 2, "deep": {"day": NOON, "list": [1, None, "é"]}, "none": None, "far": math.inf}
    if DOMAINS[name].infinite:
        body["minuteEstimatedTime"] = math.inf
    return body


def key_of(domain, n):
    texts = iter((NAMES[n] if n < len(NAMES) else f"{NAMES[n % len(NAMES)]}{n}", f"s{n}", "e", "f", "g"))
    if domain.name == "log":
        return (f"{n}",)
    return tuple(n % 2 == 0 if kind is bool else next(texts) for kind in domain.kinds)


def records_of(domain, count):
    for n in range(count):
        when = START + n if domain.when else None
        removed = domain.soft_delete and n % 5 == 4
        body = body_of(domain.name, n)
        if domain.soft_delete:
            body = body | {"removed": removed}
        yield Record(key_of(domain, n), body, when, removed)


def fill(store, count=30):
    """Write some records of every domain, and two series of candles, one with gaps."""
    for domain in DOMAINS.values():
        if domain.name != "candle":
            store.write(domain, list(records_of(domain, count)))
    candles = synthetic_market(3, 300, START)
    store.write_candles("BTC", "1m", "binance", candles)
    store.write_candles("a:b", "1m", "x/y", candles[np.arange(300) % 7 != 0])


@pytest.fixture
def places(settings, tmp_path):
    """A function that returns the address of a new, empty store of a kind."""
    uri = settings["CC_MONGO_CONNECTION_STRING"]
    numbers = itertools.count()
    start, question, options = uri.partition("?")

    def place(kind):
        number = next(numbers)
        return f"{start}-{number}{question}{options}" if kind == "mongo" else f"{kind}:{tmp_path}/{kind}-{number}"

    yield place
    with pymongo.MongoClient(uri) as client:
        for name in client.list_database_names():
            if name.startswith(f"{client.get_default_database().name}-"):
                client.drop_database(name)


def at(address, existing=False):
    return open_store(address, load_config(), existing=existing)


def copy_all(source, target, names=tuple(DOMAINS), **options):
    same = same_records(as_json=source.as_json or target.as_json)
    return {name: copy_domain(DOMAINS[name], source.store, target.store, same, **options) for name in names}


def check_all(source, target, outcomes):
    same = same_records(as_json=source.as_json or target.as_json)
    for name, outcome in outcomes.items():
        check_domain(DOMAINS[name], source.store, target.store, same, outcome)
    return outcomes


# --- the engine ---


@pytest.mark.parametrize("kinds", [("mongo", "file"), ("file", "mongo"), ("mongo", "mongo"), ("file", "file")], ids="-".join)
def test_a_copy_holds_all_of_it_and_a_second_one_writes_nothing(places, kinds):
    one, other = map(places, kinds)
    with at(one) as source, at(other) as target:
        fill(source.store)
        first = copy_all(source, target)
        for name, outcome in first.items():
            assert outcome.new == outcome.records == (300 + 257 if name == "candle" else 30), name
            assert (outcome.equal, outcome.changed, outcome.refused) == (0, 0, 0)
    with at(one) as source, at(other) as target:  # as in another process
        second = check_all(source, target, copy_all(source, target))
    for name, outcome in second.items():
        assert outcome.equal == outcome.records == first[name].records
        assert (outcome.new, outcome.changed, outcome.missing, outcome.different, outcome.extra) == (0, 0, 0, 0, 0), name
        assert outcome.good
        assert outcome.examples == {}
    with at(one) as source, at(other) as target:
        same = same_records(as_json="file" in kinds)
        for domain in DOMAINS.values():
            if domain.name != "candle":
                mine, theirs = ({record.key: record for record in place.store.records(domain)} for place in (source, target))
                assert mine.keys() == theirs.keys()
                for key, record in mine.items():
                    assert (record.when, record.removed) == (theirs[key].when, theirs[key].removed)
                    assert same(domain, record, theirs[key])
        for series in source.store.candle_series():
            mine, theirs = (np.concatenate(list(place.store.stored_candles(series))) for place in (source, target))
            assert (mine == theirs).all()


def test_between_two_mongodbs_values_keep_their_types(places):
    domain = DOMAINS["interval"]
    body = {"id": "k", "data": {"inf": math.inf, "nan": math.nan, "bytes": b"\x00\xff"}, "removed": False, "when": NOON}
    with at(places("mongo")) as source, at(places("mongo")) as target:
        source.store.write(domain, [Record(("b", "k"), body, START)])
        copy_all(source, target, ["interval"])
        (copied,) = target.store.records(domain)
        assert math.isnan(copied.body["data"].pop("nan"))
        body["data"].pop("nan")
        assert copied == Record(("b", "k"), body, START)
        # Between stores with dates, the text of a date differs from the date.
        target.store.write(domain, [Record(("b", "k"), body | {"when": "2023-03-01T12:00:00.123Z"}, START)])
        assert copy_all(source, target, ["interval"])["interval"].changed == 1


def test_what_differs_is_written_over_and_extra_records_stay(places):
    state, measure = DOMAINS["state"], DOMAINS["measure"]
    with at(places("file")) as source, at(places("mongo")) as target:
        source.store.write(state, [Record((f"s{n}", "b"), {"n": n, "when": START}, START) for n in range(6)])
        source.store.write(measure, [Record(("b", "gone"), {"data": 1, "removed": True}, None, True)])
        target.store.write(state, [Record(("s0", "b"), {"n": 0, "when": float(START)}, START)])  # equal: JavaScript's ints may be doubles
        target.store.write(state, [Record(("s1", "b"), {"n": 1.0, "when": START}, START)])  # not 1
        target.store.write(state, [Record(("s2", "b"), {"n": 2, "when": START}, START + 1)])  # another simulation time
        target.store.write(state, [Record(("s3", "b"), {"n": 3, "m": None, "when": START}, START)])
        target.store.write(state, [Record((f"x{n}", "b"), {"n": n}, START) for n in range(7)])
        target.store.write(measure, [Record(("b", "gone"), {"data": 1, "removed": False})])
        outcomes = check_all(source, target, copy_all(source, target, ["state", "measure"], dry_run=True))
        state_outcome = outcomes["state"]
        assert (state_outcome.records, state_outcome.equal, state_outcome.new, state_outcome.changed) == (6, 1, 2, 3)
        assert (state_outcome.missing, state_outcome.different, state_outcome.extra) == (2, 3, 7)
        assert state_outcome.examples["missing"] == ["s4, b", "s5, b"]
        assert len(state_outcome.examples["extra"]) == 5
        assert not state_outcome.good
        assert outcomes["measure"].different == 1

        outcomes = check_all(source, target, copy_all(source, target, ["state", "measure"]))
        state_outcome = outcomes["state"]
        assert (state_outcome.new, state_outcome.changed, state_outcome.missing, state_outcome.different, state_outcome.extra) == (
            2,
            3,
            0,
            0,
            7,
        )
        assert state_outcome.good
        assert len(list(target.store.records(state))) == 13
        assert [record.removed for record in target.store.records(measure)] == [True]


def test_a_file_of_the_original_without_a_time_is_no_difference(places, tmp_path):
    risk, positions = DOMAINS["risk"], [["k", {"symbol": "BTC", "minuteEstimatedTime": None}]]
    folder = tmp_path / "dump" / "data" / "risk"
    for name in ("limits_binance", "other_binance"):
        (folder / name).mkdir(parents=True)
        (folder / name / "positions.json").write_text(json.dumps(positions))
    with at(f"file:{tmp_path}/dump") as source, at(places("mongo")) as target:
        target.store.write(risk, [Record(("limits", "binance"), [["k", {"symbol": "BTC", "minuteEstimatedTime": math.inf}]], START)])
        for new, equal in ((1, 1), (0, 2)):
            outcome = copy_all(source, target, ["risk"])["risk"]
            assert (outcome.new, outcome.equal, outcome.changed) == (new, equal, 0)
        assert {record.key[0]: record.when for record in target.store.records(risk)} == {"limits": START, "other": None}


def test_what_never_changes_is_a_conflict_and_stays(places):
    log = DOMAINS["log"]
    candles = synthetic_market(3, 10, START)
    with at(places("mongo")) as source, at(places("file")) as target:
        source.store.write(log, [Record((f"{n}",), {"id": f"{n}", "topic": "new"}) for n in range(3)])
        target.store.write(log, [Record(("1",), {"id": "1", "topic": "old"})])
        source.store.write_candles("BTC", "1m", "binance", candles)
        other = candles[2:5].copy()
        other["close"] += 1
        target.store.write_candles("BTC", "1m", "binance", other)
        outcomes = check_all(source, target, copy_all(source, target, ["log", "candle"]))
        assert (outcomes["log"].new, outcomes["log"].changed, outcomes["log"].conflicts, outcomes["log"].different) == (2, 0, 1, 1)
        assert outcomes["log"].examples["conflicts"] == ["1"]
        assert (outcomes["candle"].new, outcomes["candle"].conflicts, outcomes["candle"].different) == (7, 3, 3)
        assert outcomes["candle"].examples["conflicts"][0] == f"binance, BTC, 1m, {START + 2 * MINUTE}"
        assert not outcomes["log"].good
        assert next(record.body for record in target.store.read(log, [("1",)]))["topic"] == "old"
        (stored,) = target.store.stored_candles(("binance", "BTC", "1m"))
        assert (stored[2:5] == other).all()


def test_extra_candles_are_counted(places):
    candles = synthetic_market(3, 40_000, START)
    with at(places("mongo")) as source, at(places("mongo")) as target:
        source.store.write_candles("BTC", "1m", "binance", candles[5:39_000])
        target.store.write_candles("BTC", "1m", "binance", candles[:25_000])
        target.store.write_candles("ETH", "1m", "binance", candles[:3])
        moves = []
        outcome = copy_all(source, target, ["candle"], moved=moves.append)["candle"]
        assert (outcome.records, outcome.equal, outcome.new) == (38_995, 24_995, 14_000)
        assert sum(moves) == 38_995
        check_all(source, target, {"candle": outcome})
        assert (outcome.missing, outcome.different, outcome.extra) == (0, 0, 8)
        assert outcome.examples["extra"][0] == f"binance, BTC, 1m, {START}"


def test_what_cannot_be_stored_is_named_and_the_rest_is_copied(places):
    with at(places("mongo")) as source, at(places("file")) as target:
        database = source.store.connection.database
        source.store.write(DOMAINS["log"], [Record((f"{n}",), {"id": f"{n}"}) for n in range(3)])
        database["log-items"].insert_one({"entryId": None, "payload": {"topic": "x"}})  # as the TypeScript package does without an id
        state = [{"signalId": f"s{n}", "bucketName": "b", "payload": {"n": n}, "when": Int64(START)} for n in range(3)]
        database["state-items"].insert_many([*state, {"signalId": 7, "bucketName": "b", "payload": {}}])
        candle = {"exchangeName": "e", "symbol": "S", "timestamp": float(START), **dict.fromkeys(PRICES, 1)}
        database["candle-items"].insert_many([candle | {"interval": "7m"}, candle | {"interval": "1m", "_id": 1}])
        for _ in range(2):
            outcomes = check_all(source, target, copy_all(source, target, ["log", "state", "candle"]))
        assert (outcomes["log"].records, outcomes["log"].equal, outcomes["log"].refused, outcomes["log"].missing) == (4, 3, 1, 1)
        assert outcomes["log"].examples["refused"] == ["None: log: entryId must be a str, got NoneType"]
        assert (outcomes["state"].records, outcomes["state"].equal, outcomes["state"].refused) == (4, 3, 1)
        assert (outcomes["candle"].equal, outcomes["candle"].refused) == (1, 1)
        assert outcomes["candle"].examples["refused"][0].startswith("e, S, 7m: unknown interval '7m'")
        assert not any(outcome.good for outcome in outcomes.values())


def test_a_value_that_the_target_cannot_hold_does_not_stop_the_others(places):
    log = DOMAINS["log"]
    with at(places("mongo")) as source, at(places("jsonl")) as target:
        entries = source.store.connection.database["log-items"]
        entries.insert_many([{"entryId": f"{n}", "payload": {"id": "other" if n == 1 else f"{n}", "args": [Regex("x")]}} for n in range(3)])
        for new, equal in ((2, 0), (0, 2)):
            outcomes = copy_all(source, target, ["log"])
            assert (outcomes["log"].new, outcomes["log"].equal, outcomes["log"].refused) == (new, equal, 1)
        assert outcomes["log"].examples["refused"] == ["1: log '1': the entry must be a dict with this 'id'"]
        assert [record.body for record in target.store.records(log)] == [{"id": name, "args": [Regex("x")]} for name in "02"]
        assert check_all(source, target, outcomes)["log"].missing == 1


def test_an_interrupted_copy_is_continued(places):
    class Breaking(MemoryStore):
        left = 2

        def write(self, domain, records):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            super().write(domain, records)

    state, same = DOMAINS["state"], same_records(as_json=False)
    source, target = MemoryStore(), Breaking()
    source.write(state, [Record((f"s{n}", "b"), {"n": n}, START) for n in range(4_500)])
    with pytest.raises(KeyboardInterrupt):
        copy_domain(state, source, target, same)
    assert len(list(target.records(state))) == 2_000
    target.left = -1
    outcome = copy_domain(state, source, target, same)
    assert (outcome.equal, outcome.new) == (2_000, 2_500)
    check_domain(state, source, target, same, outcome)
    assert outcome.good


def test_what_the_source_cannot_hand_out_is_counted_and_stays_as_it_is(places, tmp_path):
    """A copy only reads its source: unreadable records are counted and left in place."""
    folder = tmp_path / "broken"
    store = FileStore(folder)
    store.write(DOMAINS["memory"], [Record(("s", "b", name), {"n": name}, START) for name in ("a", "b")])
    store.write_candles("BTC", "1m", "e", synthetic_market(3, 3, START))
    (folder / "memory/s/b/a.json").write_bytes(b"{")
    (folder / f"data/candle/e/BTC/1m/{START}.json").write_bytes(b"{")
    (folder / "data/signal/X_a_b_c").mkdir(parents=True)
    (folder / "data/signal/X_a_b_c/X.json").write_bytes(b"{}")
    before = sorted(folder.rglob("*"))
    with at(f"file:{folder}") as source, at(places("mongo")) as target:
        for options in ({"dry_run": True}, {}, {}):
            outcomes = copy_all(source, target, ("memory", "candle", "signal"), **options)
            assert [outcomes[name].refused for name in ("memory", "candle", "signal")] == [1, 1, 1]
            assert [outcomes[name].records for name in ("memory", "candle", "signal")] == [2, 3, 1]
            assert not any(outcome.good for outcome in outcomes.values())
        check_all(source, target, outcomes)
        assert [outcome.missing for outcome in outcomes.values()] == [0, 0, 0]
        assert target.store.read(DOMAINS["memory"], [("s", "b", "b")])[0].body == {"n": "b"}
    assert sorted(folder.rglob("*")) == before


def test_lines_that_are_no_entries_are_counted(tmp_path):
    path = tmp_path / "in/log/log.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"id":"a"}\nrubbish\n{"id":"b"}\n{"id":')
    for _ in range(2):
        outcome = copy_domain(DOMAINS["log"], JsonlStore(tmp_path / "in"), FileStore(tmp_path / "out"), same_records(as_json=True))
        assert (outcome.records, outcome.refused, outcome.good) == (3, 1, False)


def test_the_order_of_lists_is_kept(places):
    log = DOMAINS["log"]
    with at(places("jsonl")) as source, at(places("mongo")) as target:
        source.store.write(log, [Record((f"{(7 * n) % 2500}",), {"id": f"{(7 * n) % 2500}"}) for n in range(2500)])
        copy_all(source, target, ["log"])
        assert [record.key for record in target.store.records(log)] == [record.key for record in source.store.records(log)]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, False),
        (1, True, False),
        (0, False, False),
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, None, False),
        (NOON, NOON, True),
        (NOON, "2023-03-01T12:00:00.123Z", False),
        (Decimal("1.0"), 1.0, False),
        (Decimal("1.0"), Decimal("1.00"), False),
        (Decimal("1.0"), "1.0", False),
        (Decimal("sNaN"), Decimal("sNaN"), True),
        (b"a", "YQ==", False),
        (b"a", Binary(b"a", 5), False),
        (Regex("a", "i"), Regex("a"), False),
        ({"$date": 1}, {"$date": 1}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": None}, {}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ([], {}, False),
        (None, {}, False),
        ("1", 1, False),
        (2**53 + 1, 2**53, False),
    ],
    ids=repr,
)
def test_what_is_the_same(one, other, equal):
    for as_json in (True, False):
        same = same_records(as_json=as_json)
        for pair in ((one, other), (other, one)):
            for body in (lambda value: {"data": value}, lambda value: {"mine": [{"deep": value}]}):
                left, right = (Record(("s", "b"), body(value), START) for value in pair)
                assert same(DOMAINS["state"], left, right) is equal


@pytest.mark.parametrize(
    ("name", "one", "other", "equal", "in_files"),
    [
        ("state", {"when": START}, {"when": float(START)}, True, True),
        ("signal", {"pnl": 1, "priceOpen": 1}, {"pnl": 1, "priceOpen": 1.0}, True, True),
        ("signal", {"_entry": [{"price": 2}]}, {"_entry": [{"price": 2.0}]}, True, True),
        ("signal", {"priceOpen": 1}, {"priceOpen": True}, False, False),
        ("signal", {"priceOpen": Decimal(1)}, {"priceOpen": 1}, False, False),
        ("partial", {"s": {"profitLevels": [10]}}, {"s": {"profitLevels": [10.0]}}, True, True),
        ("log", {"priority": 1, "args": [1]}, {"priority": 1.0, "args": [1]}, True, True),
        ("log", {"priority": 1, "args": [1]}, {"priority": 1, "args": [1.0]}, False, False),
        ("notification", {"error": {"code": 1}}, {"error": {"code": 1.0}}, False, False),
        ("signal", {"minuteEstimatedTime": None}, {"minuteEstimatedTime": math.inf}, False, True),
        ("strategy", {"createdSignal": {"minuteEstimatedTime": None}}, {"createdSignal": {"minuteEstimatedTime": math.inf}}, False, False),
        ("interval", {"when": NOON}, {"when": "2023-03-01T12:00:00.123Z"}, False, True),
        ("log", {"executionContext": {"when": NOON}}, {"executionContext": {"when": "2023-03-01T12:00:00.123Z"}}, False, True),
        ("measure", {"when": NOON}, {"when": "2023-03-01T12:00:00.123Z"}, False, False),
    ],
)
def test_what_is_the_same_in_fields_of_the_framework(name, one, other, equal, in_files):
    domain = DOMAINS[name]
    key = key_of(domain, 1)
    for pair in ((one, other), (other, one)):
        left, right = (Record(key, body, START if domain.when else None) for body in pair)
        assert same_records(as_json=False)(domain, left, right) is equal
        assert same_records(as_json=True)(domain, left, right) is in_files


# --- addresses ---


@pytest.mark.parametrize("address", ["./dump", "dump", "file:", "ftp://x", f"mongo://u:{SECRET}@h/d", f"u:{SECRET}@h", "memory:", ""])
def test_what_is_no_address(address):
    with pytest.raises(kit.InvalidValueError, match="is not the address of a store") as caught, at(address):
        pass
    assert "file:FOLDER" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_source_must_be_there(tmp_path):
    (tmp_path / "file").write_text("x")
    for address in (f"file:{tmp_path}/none", f"jsonl:{tmp_path}/none"):
        with pytest.raises(kit.InvalidValueError, match="there is no such folder"), at(address, existing=True):
            pass
        with at(address):
            pass
    with pytest.raises(kit.InvalidValueError, match="is not a folder"), at(f"file:{tmp_path}/file"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_a_mongodb_must_answer(settings):
    with pytest.raises(kit.ServerUnavailableError), open_store("mongodb://127.0.0.1:1/x", load_config(), existing=False, timeout=0.5):
        pass
    with pytest.raises(kit.ConfigError) as caught, at(f"mongodb://u:{SECRET}@h:x/d"):
        pass
    assert SECRET not in str(caught.value)


def test_one_place_under_two_names(places, tmp_path):
    uri = places("mongo")
    (tmp_path / "dump").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "dump")
    same = [
        (uri, f"{uri}{'&' if '?' in uri else '?'}appname=other"),
        (f"file:{tmp_path}/dump", f"file:{tmp_path}/link"),
        (f"jsonl:{tmp_path}", f"jsonl:{tmp_path}/."),
    ]
    inside = [(f"file:{tmp_path}/dump", f"file:{tmp_path}/link/x"), (f"file:{tmp_path}", f"file:{tmp_path}/dump")]
    database, _, options = uri.partition("?")
    apart = [
        (uri, f"{database}-2?{options}"),
        (f"file:{tmp_path}/dump", f"jsonl:{tmp_path}/dump"),
        (f"file:{tmp_path}/a", f"file:{tmp_path}/b"),
    ]
    for pairs, error in ((same, "same store"), (inside, "inside the other"), (apart, None)):
        for one, other in pairs:
            with at(one) as source, at(other) as target:
                if error is None:
                    check_apart(source, target)
                    continue
                with pytest.raises(kit.InvalidValueError, match=error):
                    check_apart(source, target)


def test_sizes_are_about_right(places):
    for kind in ("mongo", "file"):
        with at(places(kind)) as place:
            fill(place.store, 5)
            assert place.count(["state", "memory", "session"]) == 15
            assert place.count(["candle"]) == 557


# --- the command copy ---


@pytest.fixture
def cli(tmp_path, settings):
    """The command, with no Redis running."""
    return Cli(tmp_path, CC_REDIS_HOST="/nowhere.sock", CC_MONGO_CONNECTION_STRING=settings["CC_MONGO_CONNECTION_STRING"])


def test_a_folder_goes_into_mongodb_and_back(cli, tmp_path, settings):
    fill(FileStore(tmp_path / "dump"))
    shown = cli("copy", "--from", "file:./dump", "--to", "mongo:", "--check").out
    assert re.search(r"^state +30 +0 +30 +0 +0 +0 +0$", shown, re.MULTILINE)
    assert re.search(r"^candle +557 +0 +557", shown, re.MULTILINE)
    assert "1,037 written, from file:dump to mongodb://" in shown
    assert "The target has all records." in shown
    again = cli("copy", "--from", "mongo:", "--to", "file:./back", "--json", "--check")
    parsed = json.loads(again.out)
    assert parsed["ok"]
    assert parsed["domains"]["session"] == {
        "records": 30, "equal": 0, "new": 30, "changed": 0, "conflicts": 0, "refused": 0, "missing": 0, "different": 0, "extra": 0,
        "examples": {},
    }  # fmt: skip
    assert cli("copy", "--from", "file:./dump", "--to", "file:./back", "--dry-run").out.count("0 would be written") == 1
    # The contracts read what was in the files.
    kit.setup(settings)
    read = kit.PersistSignalAdapter.read_signal_data("BTC", "s0", "e")
    assert (read["n"], read["minuteEstimatedTime"]) == (0, math.inf)


def test_a_dry_run_touches_nothing(cli, tmp_path, settings):
    fill(FileStore(tmp_path / "dump"), 3)
    shown = cli("copy", "--from", "file:./dump", "--to", settings["CC_MONGO_CONNECTION_STRING"], "--dry-run").out
    assert "605 would be written" in shown
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        assert client.get_default_database().list_collection_names() == []
    cli("copy", "--from", "file:./dump", "--to", "file:./other", "--dry-run", "--check", code=1)
    cli("copy", "--from", "file:./dump", "--to", "jsonl:./other", "--domains", "log", "--dry-run")
    assert sorted(os.listdir(tmp_path)) == ["dump"]


def test_domains_are_left_out(cli, tmp_path):
    fill(FileStore(tmp_path / "dump"), 2)
    every = json.loads(cli.out("copy", "--from", "file:./dump", "--to", "file:./all", "--dry-run", "--json"))["domains"]
    some = json.loads(cli.out("copy", "--from", "file:./dump", "--to", "file:./some", "--except", "candle,log", "--json"))["domains"]
    assert set(every) - set(some) == {"candle", "log"}
    assert some["state"] == every["state"]
    assert "there is no domain 'candel'" in cli.err("copy", "--from", "file:./dump", "--to", "file:./x", "--except", "candel", code=1)
    both = cli.err("copy", "--from", "file:./dump", "--to", "file:./x", "--except", "candle", "--domains", "state", code=2)
    assert "exclude each other" in both
    # What is left out need not fit the target.
    rest = ",".join(name for name in every if name != "log")
    assert list(json.loads(cli.out("copy", "--from", "file:./dump", "--to", "jsonl:./l", "--except", rest, "--json"))["domains"]) == ["log"]


def test_a_check_fails_for_what_is_missing_or_different_alone(cli, tmp_path):
    state = DOMAINS["state"]
    one, other = FileStore(tmp_path / "one"), FileStore(tmp_path / "other")
    for store in (one, other):
        store.write(state, [Record((f"s{n}", "b"), {"n": n}, START) for n in range(3)])
    other.write(state, [Record(("more", "b"), {}, START)])
    arguments = ("copy", "--from", "file:one", "--to", "file:other", "--domains", "state", "--dry-run", "--check")
    shown = cli(*arguments).out
    assert "state: 1 record only on the target:\n  more, b" in shown
    one.write(state, [Record(("new", "b"), {}, START)])
    other.write(state, [Record(("s1", "b"), {"n": 9}, START)])
    shown = cli(*arguments, code=1).out
    assert "state: 1 record not on the target:\n  new, b" in shown
    assert "state: 1 record different on the target:\n  s1, b" in shown
    assert "does not have all records" in shown
    cli(*arguments[:-2], "--check")
    cli(*arguments)


def test_the_log_goes_into_json_lines_and_back(cli, tmp_path):
    log = DOMAINS["log"]
    FileStore(tmp_path / "dump").write(log, list(records_of(log, 20)))
    said = cli("copy", "--from", "file:dump", "--to", "jsonl:dump", code=1).err
    assert "jsonl:dump cannot hold" in said
    assert "--domains log" in said
    cli("copy", "--from", "file:dump", "--to", "jsonl:dump", "--domains", "log", "--check")
    assert len((tmp_path / "dump" / "log" / "log.jsonl").read_text().splitlines()) == 20
    assert json.loads(cli("copy", "--from", "jsonl:dump", "--to", "mongo:", "--check", "--json").out)["domains"].keys() == {"log"}
    assert "20 would" not in cli("copy", "--from", "mongo:", "--to", "jsonl:dump", "--domains", "log", "--dry-run").out


def plant(folder, path, body):
    """Write a file as the TypeScript package does."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(json.dumps(body, separators=(",", ":")))


def test_a_tree_of_the_typescript_package_is_copied_whole(cli, tmp_path, settings):
    """Also where a row contradicts the name of its folder, and where the name alone does not tell the strategy."""
    dump = tmp_path / "dump"
    plant(dump, "data/signal/ETHUSDT_alpha_myex/ETHUSDT.json", {"id": "1", "symbol": "BTCUSDT"})
    for symbol in ("ETHUSDT", "BTCUSDT"):
        plant(dump, f"data/signal/{symbol}_sma_cross_myex/{symbol}.json", None)
        plant(dump, f"data/strategy/{symbol}_sma_cross_myex/strategy.json", {})
    for number in range(3):
        plant(dump, f"data/partial/ETHUSDT_sma_cross_myex/id{number}.json", {})
    plant(dump, "data/recent/ETHUSDT_sma_cross_myex_f_backtest/ETHUSDT.json", {"strategyName": "sma_cross", "exchangeName": "myex"})
    shown = cli("copy", "--from", "file:dump", "--to", "mongo:", "--check").out
    assert "The target has all records." in shown
    decided = "data/signal/ETHUSDT_alpha_myex: the folder's name decides: 1 record read as symbol ETHUSDT, strategyName alpha"
    assert f"{decided}, exchangeName myex, although a row says symbol BTCUSDT" in shown
    assert "data/partial/ETHUSDT_sma_cross_myex: 3 records read as symbol ETHUSDT, strategyName sma_cross, exchangeName myex: " in shown
    assert shown.count("these occur in data/recent/ETHUSDT_sma_cross_myex_f_backtest/ETHUSDT.json") == 3
    assert "data/recent/ETHUSDT_sma_cross_myex_f_backtest:" not in shown  # its row tells
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        database = client.get_default_database()
        names = [(row["symbol"], row["strategyName"], row["exchangeName"]) for row in database["signal-items"].find().sort("strategyName")]
        assert sorted(names) == [("BTCUSDT", "sma_cross", "myex"), ("ETHUSDT", "alpha", "myex"), ("ETHUSDT", "sma_cross", "myex")]
        assert database["partial-items"].count_documents({"strategyName": "sma_cross", "exchangeName": "myex", "symbol": "ETHUSDT"}) == 3
    assert not list(dump.rglob(".key"))
    back = json.loads(cli("copy", "--from", "mongo:", "--to", "file:back", "--json", "--check").out)
    assert (back["ok"], back["notes"]) == (True, [])
    assert {path.relative_to(dump) for path in dump.rglob("*.json")} == {
        path.relative_to(tmp_path / "back") for path in (tmp_path / "back").rglob("*.json")
    }


def test_a_name_that_nothing_tells_is_refused_until_an_option_does(cli, tmp_path, settings):
    dump = tmp_path / "dump"
    plant(dump, "data/signal/ETHUSDT_sma_cross_myex/ETHUSDT.json", None)
    plant(dump, "data/state/s/b/b.json", {})
    command = ("copy", "--from", "file:dump", "--to", "mongo:", "--check")
    shown = " ".join(cli(*command, code=1).out.split())
    readings = [f"symbol ETHUSDT, strategyName {pair}" for pair in ("sma, exchangeName cross_myex", "sma_cross, exchangeName myex")]
    message = f"it can be ({readings[0]}) or ({readings[1]})"
    assert f"data/signal/ETHUSDT_sma_cross_myex: 1 record refused: {message}; name it with --strategy or --exchange" in shown
    assert f"ETHUSDT.json: the folder name is ambiguous: cannot tell which key it belongs to: {message}" in shown
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        assert client.get_default_database()["signal-items"].count_documents({}) == 0
    cli(*command, "--strategy", "sma", "--strategy", "sma_cross", code=1)
    for options, reason in (
        (("--strategy", "other", "--strategy", "sma_cross"), "by --strategy"),
        (("--exchange", "myex"), "by --exchange"),
    ):
        assert f"1 record read as {readings[1]}: {reason}" in " ".join(cli(*command, *options).out.split())
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        (row,) = client.get_default_database()["signal-items"].find()
        assert (row["symbol"], row["strategyName"], row["exchangeName"]) == ("ETHUSDT", "sma_cross", "myex")


def test_many_folders_are_counted(cli, tmp_path):
    for number in range(30):
        plant(tmp_path / "dump", f"data/signal/S{number}_sma_cross_binance/S{number}.json", None)
    shown = cli("copy", "--from", "file:dump", "--to", "file:other").out
    assert shown.count("by the name of a well-known exchange") == 20
    assert "and 10 more (--json lists all)" in shown
    assert len(json.loads(cli("copy", "--from", "file:dump", "--to", "file:other", "--json").out)["notes"]) == 30


def test_rows_of_a_long_list_are_dated_in_its_order(cli, tmp_path, settings):
    """Also by a copy that was interrupted and repeated; none has a date in the future."""
    for number in range(3_500):
        plant(tmp_path / "dump", f"data/storage/live/r{number}.json", {"id": f"r{number}"})
    command = ("copy", "--from", "file:dump", "--to", "mongo:")
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        rows = client.get_default_database()["storage-items"]
        for _ in range(2):
            cli(*command)
            stored = list(rows.find().sort("updatedDate", 1))
            assert [row["signalId"] for row in stored] == [f"r{number}" for number in range(3_500)]
            assert len({row["updatedDate"] for row in stored}) == 3_500
            assert stored[-1]["updatedDate"] <= datetime.now(UTC)
            rows.delete_many({"signalId": {"$in": [f"r{number}" for number in range(1_700, 3_500)]}})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "file:none", "--to", "mongo:"), "there is no such folder"),
        (("--from", "mongo:", "--to", "nowhere"), "nowhere is not the address of a store"),
        (("--from", "mongo:", "--to", "mongo:"), "are the same store"),
        (("--from", "mongo:", "--to", "file:x", "--domains", "signal,stat"), "there is no domain 'stat'"),
        (("--from", "mongo:", "--to", "jsonl:x", "--domains", "state"), "jsonl:x cannot hold state"),
        (("--from", "file:.", "--to", f"mongodb://me:{SECRET}@127.0.0.1:1/d", "--timeout", "0.5"), "127.0.0.1:1"),
        (("--from", "file:.", "--to", f"mongo://me:{SECRET}@h"), "mongo://me:***@h is not the address"),
        (("--from", "file:.", "--to", f"mongodb://me:{SECRET}@h:port/d"), "cannot be resolved"),
    ],
    ids=lambda value: " ".join(value).replace(SECRET, "...") if isinstance(value, tuple) else "",
)
def test_wrong_arguments_are_said_before_anything_is_written(cli, tmp_path, arguments, said):
    done = cli("copy", *arguments, code=1)
    assert said in done.err
    assert SECRET not in done.out + done.err
    assert os.listdir(tmp_path) == []


def test_options_for_servers_go_with_the_address_of_the_settings(cli, tmp_path):
    assert "mongo:" in cli("copy", "--from", "file:.", "--to", "file:x", "--mongo", "mongodb://h/d", code=2).err
    fill(FileStore(tmp_path / "dump"), 2)
    assert "589 written" in cli("copy", "--from", "file:dump", "--to", "mongo:", "--embedded-dir", "servers").out
    assert "2 rows of state" in cli("export", "state", "state.csv", "--embedded-dir", "servers").out


def test_ctrl_c_leaves_what_a_second_copy_completes(cli, tmp_path, settings):
    state, count = DOMAINS["state"], 5_000
    with at(settings["CC_MONGO_CONNECTION_STRING"]) as place:
        place.store.write(state, [Record((f"s{n}", "b"), {"n": n}, START) for n in range(count)])
    process = cli.start("copy", "--from", "mongo:", "--to", "file:./dump")
    target = FileStore(tmp_path / "dump")
    try:
        deadline = time.monotonic() + 120
        while sum(1 for _ in (tmp_path / "dump").rglob("*.json")) < 1_100:
            assert process.poll() is None
            assert time.monotonic() < deadline
            process.send_signal(signal.SIGCONT)  # the process is stopped while its files are counted
            time.sleep(0.02)
            process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    before = len(list(target.records(state)))
    assert 1_000 <= before < count
    cli("copy", "--from", "mongo:", "--to", "file:./dump", "--domains", "state", "--check")


# --- export ---


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stamp(ms):
    return datetime.fromtimestamp(ms / 1000, UTC)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_candles_as_columns(cli, tmp_path, suffix):
    candles = synthetic_market(3, 300, START)
    fill(FileStore(tmp_path / "dump"), 1)
    path = tmp_path / f"out.{suffix}"
    one = ("--symbol", "BTC", "--interval", "1m", "--exchange", "binance")
    shown = cli("export", "candle", path, "--from", "file:dump", *one, "--since", "2023-03-01T00:10", "--until", START + 20 * MINUTE).out
    assert "10 rows of candle from file:dump" in shown
    rows = rows_of(path)
    assert list(rows[0]) == ["timestamp", *PRICES]
    for row, candle in zip(rows, candles[10:20].tolist(), strict=True):
        time = row["timestamp"] if suffix == "parquet" else datetime.fromisoformat(row["timestamp"])
        assert time == stamp(candle[0])
        assert tuple(float(row[name]) for name in PRICES) == candle[1:]
    cli("export", "candle", path, "--from", "file:dump", "--force")
    rows = rows_of(path)
    assert list(rows[0]) == ["exchangeName", "symbol", "interval", "timestamp", *PRICES]
    assert [row["symbol"] for row in rows].count("a:b") == 257
    assert sorted(os.listdir(tmp_path)) == ["dump", path.name]


def test_a_million_candles_are_streamed(places, tmp_path):
    """Only a few batches are in memory at any time."""
    asked = []

    class Endless(MemoryStore):
        def candle_series(self):
            return [("e", "S", "1m")]

        def stored_candles(self, series, since=None, until=None):
            for n in range(50):
                asked.append(n)
                yield synthetic_market(1, 20_000, START + n * 20_000 * MINUTE)

    path = tmp_path / "out.parquet"
    export_domain(Endless(), DOMAINS["candle"], tmp_path / "warm.parquet")
    tracemalloc.start()
    assert export_domain(Endless(), DOMAINS["candle"], path) == 1_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(asked) == 100
    assert peak < 20_000_000
    assert pq.read_metadata(path).num_rows == 1_000_000


@pytest.mark.parametrize("name", [name for name in DOMAINS if name != "candle"])
def test_the_schema_of_a_domain_is_the_same_with_and_without_records(tmp_path, name):
    domain, store = DOMAINS[name], MemoryStore()
    empty, full = tmp_path / "empty.parquet", tmp_path / "full.parquet"
    assert export_domain(store, domain, empty) == 0
    store.write(domain, list(records_of(domain, 10)))
    assert export_domain(store, domain, full) == 10
    assert pq.read_schema(empty) == pq.read_schema(full)
    names = pq.read_schema(empty).names
    assert names[: len(domain.key)] == list(domain.key)
    assert ("when" in names, "removed" in names) == (domain.when, domain.soft_delete)
    assert names[-1] == "payload"
    export_domain(store, domain, tmp_path / "full.csv")
    assert list(rows_of(tmp_path / "full.csv")[0]) == names


def test_nothing_of_a_payload_is_left_out(tmp_path):
    signal_, store = DOMAINS["signal"], MemoryStore()
    body = {
        "id": "1", "priceOpen": 100, "position": "long", "minuteEstimatedTime": None, "timestamp": float(START), "note": None,
        "priceStopLoss": "cheap", "scheduledAt": 1.5, "mine": {"day": NOON, "x": [1]}, "_entry": [{"price": 1.5}],
    }  # fmt: skip
    store.write(signal_, [Record(("BTC", "sma", "e"), body), Record(("ETH", "sma", "e"), None), Record(("XRP", "sma", "e"), {})])
    export_domain(store, signal_, tmp_path / "s.parquet")
    one, null, empty = rows_of(tmp_path / "s.parquet")
    assert (one["symbol"], one["payload.id"], one["payload.priceOpen"], one["payload.timestamp"]) == ("BTC", "1", 100.0, START)
    assert one["payload.minuteEstimatedTime"] == math.inf
    assert one["payload.priceStopLoss"] is None
    assert json.loads(one["payload"]) == {
        "priceStopLoss": "cheap", "scheduledAt": 1.5, "mine": {"day": {"$date": "2023-03-01T12:00:00.123Z"}, "x": [1]},
        **({} if "_entry" in declared_fields(signal_.payload) else {"_entry": [{"price": 1.5}]}),
    }  # fmt: skip
    assert (null["payload"], empty["payload"]) == (None, "{}")


def test_times_flags_and_what_is_no_object(tmp_path):
    store = MemoryStore()
    interval, risk, storage = DOMAINS["interval"], DOMAINS["risk"], DOMAINS["storage"]
    store.write(
        interval,
        [Record(("b", "1"), {"when": NOON, "data": "x", "removed": True}, START, True), Record(("b", "2"), {"when": "soon"}, None)],
    )
    store.write(risk, [Record(("r", "e"), [["k", {"priceOpen": 1}]], START)])
    store.write(storage, [Record((True, "1"), {"id": "1", "status": "open_store"})])
    for domain in (interval, risk, storage):
        for suffix in ("parquet", "csv"):
            export_domain(store, domain, tmp_path / f"{domain.name}.{suffix}")
    one, other = rows_of(tmp_path / "interval.parquet")
    assert (one["when"], one["removed"], one["payload.when"], one["payload.data"]) == (stamp(START), True, NOON, '"x"')
    assert (other["when"], other["payload.when"], other["payload"]) == (None, None, '{"when":"soon"}')
    one, other = rows_of(tmp_path / "interval.csv")
    assert (one["when"], one["removed"], one["payload.when"]) == ("2023-03-01T00:00:00.000Z", "true", "2023-03-01T12:00:00.123Z")
    assert (other["when"], other["removed"]) == ("", "false")
    assert json.loads(rows_of(tmp_path / "risk.parquet")[0]["payload"]) == [["k", {"priceOpen": 1}]]
    assert rows_of(tmp_path / "storage.parquet")[0]["backtest"] is True
    assert rows_of(tmp_path / "storage.csv")[0]["backtest"] == "true"


def test_every_union_of_payloads_has_one_column_a_field():
    fields = declared_fields(DOMAINS["notification"].payload)
    assert fields["type"] == "text"
    assert len(fields) > 60
    assert fields["timestamp"] == "int"


def test_only_what_was_selected(tmp_path):
    store = MemoryStore()
    recent = DOMAINS["recent"]
    store.write(recent, [Record((symbol, "s", exchange, "f", True), {}, START + n) for n, symbol in enumerate("ab") for exchange in "xy"])
    for selection, count in (
        (Selection({"symbol": "a"}), 2),
        (Selection({"symbol": "a", "exchangeName": "y"}), 1),
        (Selection(since=START + 1), 2),
        (Selection(until=START + 1), 2),
        (Selection(since=START, until=START), 0),
        (Selection({"symbol": "c"}), 0),
    ):
        assert export_domain(store, recent, tmp_path / "out.csv", selection, force=True) == count


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("state", "out.csv", "--symbol", "BTC"), 1, "state has no key field symbol"),
        (("signal", "out.csv", "--interval", "1m"), 1, "signal has no key field interval"),
        (("signal", "out.csv", "--since", "2023-03-01"), 1, "signal stores no simulation time"),
        (("state", "out.csv", "--since", "yesterday"), 2, "neither a time"),
        (("state", "out.txt"), 1, "must end in .csv or .parquet"),
        (("state", "none/out.csv"), 1, "there is no folder"),
        (("state", "folder.csv"), 1, "it is a folder"),
        (("state", "there.csv"), 1, "use --force to overwrite it"),
        (("states", "out.csv"), 1, "there is no domain 'states'"),
        (("state", "out.csv", "--from", "file:none"), 1, "there is no such folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_arguments_of_an_export(cli, tmp_path, arguments, code, said):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    assert said in " ".join(cli("export", *arguments, code=code).err.replace("│", "").split())
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "there.csv"]
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize(
    "error", [kit.ServerUnavailableError("away"), KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr
)
def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, suffix, error):
    class Failing(MemoryStore):
        def records(self, domain):
            yield Record(("s", "b"), {"id": "1"}, START)
            raise error

    path = tmp_path / f"out.{suffix}"
    path.write_text("old")
    expected = kit.StorageError if type(error) is OSError else type(error)
    with pytest.raises(expected, match="No space" if type(error) is OSError else None):
        export_domain(Failing(), DOMAINS["state"], path, force=True)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "old"


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(kit.MissingDependencyError, match=r"backtest-kit-mongo\[arrow\]"):
        export_domain(MemoryStore(), DOMAINS["state"], tmp_path / "out.parquet")
    assert export_domain(MemoryStore(), DOMAINS["state"], tmp_path / "out.csv") == 0


def test_a_type_that_only_bson_has_is_exported_as_mongodb_writes_it(mongo, tmp_path):
    kit.get_mongo()["state-items"].insert_one({"signalId": "s", "bucketName": "b", "payload": {"data": Regex("x")}, "when": START})
    export_domain(default_registry.mongo, DOMAINS["state"], tmp_path / "out.parquet")
    assert "$regularExpression" in rows_of(tmp_path / "out.parquet")[0]["payload.data"]


def test_exported_candles_can_be_imported(tmp_path):
    candles, store = synthetic_market(3, 50, START), MemoryStore()
    store.write_candles("BTC", "1m", "binance", candles)
    export_domain(store, DOMAINS["candle"], tmp_path / "out.csv")
    assert (read_klines(tmp_path / "out.csv") == candles).all()


def test_jsonl_is_found_where_the_log_is(tmp_path):
    store = JsonlStore(tmp_path)
    store.write(DOMAINS["log"], [Record(("1",), {"id": "1"})])
    with at(f"jsonl:{tmp_path}", existing=True) as place:
        assert place.count(["log"]) == 1
