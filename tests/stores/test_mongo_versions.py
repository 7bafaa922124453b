"""Versions of records in MongoDB: reads as of any time, with several writers and with faults."""

from __future__ import annotations

import itertools
import json

import pymongo
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prepared import Prepared
from proxy import LOST, STALL, Proxy, cut
from pymongo import common

from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import BacktestKitError
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.mongo import versions as mongo_history
from backtest_kit_mongo.stores.mongo.store import MongoStore

pytestmark = pytest.mark.once

STATE, MEMORY = DOMAINS["state"], DOMAINS["memory"]
KEY = ("signal", "bucket")
DAY = 86_400_000
KEPT = History(frozenset({"state", "memory"}))


@pytest.fixture(params=[True, False], ids=["wire", "pymongo"])
def make(settings, request):
    """``make(history)`` creates a store as another process would; all use one database."""
    stores = []

    def made(history=KEPT, **others):
        stores.append(MongoStore(load_config({**settings, "CC_WIRE_LANE": request.param, **others}), Metrics(), history))
        return stores[-1]

    yield made
    for store in stores:
        store.close()


@pytest.fixture
def database(settings):
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        yield client.get_default_database()


def put(store, when, value=None, key=KEY, domain=STATE):
    store.write(domain, [Record(key, {"v": when if value is None else value}, when)])


def at(store, moment, key=KEY, domain=STATE):
    [record] = store.read_at(domain, [key], moment)
    assert record is None or record.key == key
    return None if record is None else (record.when, record.body["v"])


class Model:
    """The expected versions of one key: value by time."""

    def __init__(self):
        self.versions = {}

    def write(self, when, value):
        self.versions = {moment: known for moment, known in self.versions.items() if moment < when}
        self.versions[when] = value

    def discard(self, since):
        self.versions = {moment: known for moment, known in self.versions.items() if moment < since}

    def at(self, moment):
        times = [when for when in self.versions if when <= moment]
        return (max(times), self.versions[max(times)]) if times else None


_keys = itertools.count()
TIMES = st.integers(0, 12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 1), TIMES),
        st.tuples(st.just("on"), st.integers(0, 1), st.integers(0, 3)),
        st.tuples(st.just("batch"), st.integers(0, 1), st.lists(st.tuples(st.integers(0, 1), TIMES), min_size=2, max_size=6)),
        st.tuples(st.just("discard"), st.integers(0, 1), TIMES),
        st.tuples(st.just("restart"), st.integers(0, 1), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("most", [1, 3, 32])
def test_reads_as_of_any_time_are_those_of_a_model(make, monkeypatch, most, long):
    """Two processes take turns writing two keys, forward and back in time."""
    monkeypatch.setattr(mongo_history, "LIST", most)
    stores = [make(), make()]
    reader = make()

    @hypothesis_settings(max_examples=25 if long else 10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(steps=STEPS)
    def check(steps):
        number = next(_keys)
        keys = [(f"{number}", f"k{index}") for index in range(2)]
        models = [Model(), Model()]
        for value, (what, who, argument) in enumerate(steps):
            store = stores[who]
            if what == "write":
                put(store, argument, value, keys[0])
                models[0].write(argument, value)
            elif what == "on":
                when = max(models[0].versions, default=0) + argument
                put(store, when, value, keys[0])
                models[0].write(when, value)
            elif what == "batch":
                store.write(STATE, [Record(keys[index], {"v": [value, place]}, when) for place, (index, when) in enumerate(argument)])
                for place, (index, when) in enumerate(argument):
                    models[index].write(when, [value, place])
            elif what == "discard":
                store.discard_versions(STATE, keys, argument)
                for model in models:
                    model.discard(argument)
            else:
                store.history.renew()
        for moment in range(-1, 30):
            assert [at(reader, moment, key) for key in keys] == [model.at(moment) for model in models], moment
        for key, model in zip(keys, models, strict=True):
            [record] = reader.read(STATE, [key])
            assert (None if record is None else (record.when, record.body["v"])) == model.at(1000)

    check()


@pytest.mark.parametrize("most", [1, 3, 32])
def test_a_batch_notices_what_another_process_wrote_or_removed_since(make, monkeypatch, most):
    monkeypatch.setattr(mongo_history, "LIST", most)
    store, other = make(), make()
    keys = [(f"{next(_keys)}", "k") for _ in range(4)]
    store.write(STATE, [Record(key, {"v": "first"}, 0) for key in keys])
    put(other, 1, "other", keys[0])  # later than what follows, which discards it
    put(other, 3, "other", keys[1])
    other.discard_versions(STATE, [keys[2]], 0)
    store.write(STATE, [Record(key, {"v": [place, when]}, when) for place, key in enumerate(keys) for when in (0, 2)])
    for place, key in enumerate(keys):
        assert [at(other, moment, key) for moment in range(-1, 5)] == [None, *[(0, [place, 0])] * 2, *[(2, [place, 2])] * 3]


def test_a_long_run_leaves_few_versions_in_the_document(make, database):
    store = make()
    for when in range(100):
        put(store, when)
    assert [at(store, moment) for moment in range(-1, 101)] == [None, *((when, when) for when in range(100)), (99, 99)]
    [document] = database["state-items"].find()
    assert len(document["versions"]) < mongo_history.LIST
    assert document["payload"] == {"v": 99}
    assert set(document) == {"_id", "signalId", "bucketName", "__v", "createDate", "payload", "updatedDate", "when", "versions"}
    assert database["state-versions"].count_documents({}) + len(document["versions"]) == 100
    assert store.read_at(STATE, [("x", "y"), KEY, KEY], 50) == [None, *[Record(KEY, {"v": 50}, 50)] * 2]
    assert [record.when for record in store.records(STATE)] == [99]


def test_big_versions_leave_the_document_at_once(make, database):
    store = make()
    for when in range(4):
        store.write(STATE, [Record(KEY, {"v": when, "text": "x" * 20_000}, when)])
        [document] = database["state-items"].find()
        assert document["versions"] == []
    make().write(STATE, [Record(KEY, {"v": 4}, 4)])
    assert [at(store, moment) for moment in range(5)] == [(when, when) for when in range(5)]


def test_domains_without_history_are_left_alone(make, database):
    store = make(History(frozenset({"memory"})))
    put(store, 1)
    [document] = database["state-items"].find()
    assert "versions" not in document
    assert {name for name in database.list_collection_names() if name.endswith("versions")} == set()


def test_what_others_wrote_is_the_record_until_it_is_replaced_and_then_a_version(make, database):
    plain = make(History())
    put(plain, 5)
    store = make()
    assert (at(store, 4), at(store, 5), at(store, 9)) == (None, (5, 5), (5, 5))
    put(store, 10)
    assert (at(store, 4), at(store, 5), at(store, 9), at(store, 10)) == (None, (5, 5), (5, 5), (10, 10))

    def foreign(when):  # as the TypeScript package writes: without versions
        database["state-items"].update_one({"signalId": KEY[0]}, {"$set": {"payload": {"v": "foreign"}, "when": float(when)}})

    foreign(20)
    assert (at(store, 19), at(store, 20)) == ((10, 10), (20, "foreign"))
    fresh = make()
    put(fresh, 30)
    assert (at(store, 19), at(store, 29), at(store, 30)) == ((10, 10), (20, "foreign"), (30, 30))
    foreign(7)  # back in time: later versions are void and stay void
    assert (at(store, 6), at(store, 7), at(store, 25)) == ((5, 5), (7, "foreign"), (7, "foreign"))
    put(fresh, 40)
    assert (at(store, 6), at(store, 25), at(store, 40)) == ((5, 5), (5, 5), (40, 40)), (
        "what fresh did not see is gone, but nothing void is back"
    )
    foreign(12)
    put(make(), 50)
    assert (at(store, 11), at(store, 49), at(store, 50)) == ((5, 5), (12, "foreign"), (50, 50))
    database["state-items"].delete_many({})
    assert at(store, 50) is None
    put(fresh, 60)
    assert (at(store, 59), at(store, 60)) == (None, (60, 60))


def test_limit_and_days(make, database):
    few = make(History(frozenset({"state"}), limit=3))
    for when in range(10):
        put(few, when)
    assert [at(few, moment) for moment in range(10)] == [None] * 7 + [(when, when) for when in (7, 8, 9)]
    assert database["state-versions"].count_documents({}) == 3
    more = make(History(frozenset({"state"}), limit=40))
    for when in range(200):
        put(more, when, key=("more", "b"))
        [document] = database["state-items"].find({"signalId": "more"})
        assert database["state-versions"].count_documents({"_id.signalId": "more"}) + len(document["versions"]) <= 48
    assert at(more, 160, ("more", "b")) == (160, 160)
    days = make(History(frozenset({"state"}), limit=0, days=2))
    for hour in range(24 * 10):
        put(days, hour * DAY // 24, hour, ("days", "b"))
    newest = 24 * 10 - 1
    assert [at(days, hour * DAY // 24, ("days", "b")) for hour in (0, newest - 49, newest - 48)] == [
        None,
        None,
        ((newest - 48) * DAY // 24, newest - 48),
    ]
    assert database["state-versions"].count_documents({"_id.signalId": "days"}) < 160


def test_softly_removed_ones_are_versions(make):
    store = make()
    key = ("signal", "bucket", "memory")
    put(store, 1, key=key, domain=MEMORY)
    put(store, 5, key=key, domain=MEMORY)
    store.remove(MEMORY, [key])
    put(store, 9, key=key, domain=MEMORY)
    assert [record.removed for moment in (1, 4, 5, 8, 9) for record in store.read_at(MEMORY, [key], moment)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    store.discard_versions(MEMORY, [key], 9)
    [record] = store.read(MEMORY, [key])
    assert record == Record(key, {"v": 5, "removed": True}, 5, True)
    store.discard_versions(MEMORY, [key], 5)
    assert store.read(MEMORY, [key]) == [Record(key, {"v": 1}, 1, False)]


def test_discarding_keeps_the_id_and_the_first_date(make, database):
    store, other = make(), make()
    for when in (1, 5, 9):
        put(store, when)
    put(store, 5, key=("late", "b"))
    before = {name: database["state-items"].find_one({"signalId": KEY[0]})[name] for name in ("_id", "createDate")}
    store.discard_versions(STATE, [KEY, ("late", "b"), ("nobody", "b")], 5)
    after = database["state-items"].find_one({"signalId": KEY[0]})
    assert {name: after[name] for name in before} == before
    assert (after["payload"], after["when"]) == ({"v": 1}, 1)
    assert other.read(STATE, [KEY, ("late", "b")]) == store.read(STATE, [KEY, ("late", "b")]) == [Record(KEY, {"v": 1}, 1), None]
    put(store, 7)
    assert [at(other, moment) for moment in (0, 1, 6, 7, 9)] == [None, (1, 1), (1, 1), (7, 7), (7, 7)]


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("findandmodify", LOST),
        ("findandmodify", cut(0)),
        ("findandmodify", STALL),
        ("insert", LOST),
        ("insert", cut(20)),
        ("update", LOST),
        ("update", cut(0)),
        ("find", cut(0)),
        ("delete", LOST),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_whatever_breaks_nothing_acknowledged_is_lost(make, servers, tmp_path, monkeypatch, command, fault):
    """If a write forward or back in time fails, earlier versions remain, and a retry repairs the record."""
    monkeypatch.setattr(mongo_history, "LIST", 2)
    monkeypatch.setattr(common, "MIN_HEARTBEAT_INTERVAL", 0.01)  # after an error pymongo waits this long before it checks the server again
    socket_path = str(tmp_path / "mongo.sock")
    reader = make()
    name = reader.connection.database.name
    options = f"directConnection=true&socketTimeoutMS={1000 if fault is STALL else 60_000}"
    options += "&serverSelectionTimeoutMS=30000&heartbeatFrequencyMS=500"
    uri = f"mongodb://{socket_path.replace('/', '%2F')}/{name}?{options}"
    with Proxy(servers.mongo.socket, socket_path, "mongo") as proxy:
        put(reader, 0)  # creates the indexes, without a time-out
        store = make(CC_MONGO_CONNECTION_STRING=uri)
        put(store, 0)
        model = Model()
        model.write(0, 0)
        failed = 0
        for when in (1, 2, 3, 2, 4):
            proxy.arm(command, fault, 3)
            earlier = [moment for moment in model.versions if moment < when]
            try:
                put(store, when)
            except BacktestKitError:
                failed += 1
                proxy.calm()
                for moment in earlier:
                    assert at(reader, moment) == model.at(moment)
                put(store, when)
            proxy.calm()
            model.write(when, when)
            assert [at(reader, moment) for moment in range(8)] == [model.at(moment) for moment in range(8)]
        assert proxy.met[command]
        assert bool(failed) == (fault is STALL)  # a broken call is sent again; a silent server uses up the time-out
        store.close()


def test_a_process_killed_at_any_moment_leaves_what_it_acknowledged(make, settings, database):
    """The child prints each time that was acknowledged; the next child continues with the same keys."""
    child = """
import json, sys
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.mongo.store import MongoStore
settings, start = json.loads(sys.argv[1]), int(sys.argv[2])
store = MongoStore(load_config(settings), Metrics(), History(frozenset({"state"})))
for when in range(start, start + 100_000):
    store.write(DOMAINS["state"], [Record(("signal", "bucket"), {"v": when}, when)])
    print(when, flush=True)
"""

    reader = make()
    last = 0
    given_settings = json.dumps({**settings, "CC_WIRE_LANE": reader.config.CC_WIRE_LANE})
    for round_ in range(4):
        with Prepared("prepared:run_code", [child, given_settings, last + 1]) as process:
            for _ in range(37 + 11 * round_):
                last = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split()
            last = max([last, *map(int, rest)])
        for moment in range(1, last + 1):
            assert at(reader, moment) == (moment, moment)
        [document] = database["state-items"].find()
        last = max(last, int(document["when"]))


def test_a_batch_of_many_keys(make, long):
    store = make()
    keys = [(f"s{index}", "b") for index in range(2500 if long else 1200)]  # more than a batch
    for when in (1, 2, 3):
        store.write(STATE, [Record(key, {"v": when}, when) for key in keys])
    assert store.read_at(STATE, keys, 2) == [Record(key, {"v": 2}, 2) for key in keys]
    store.discard_versions(STATE, keys, 2)
    assert store.read_at(STATE, keys, 9) == store.read(STATE, keys) == [Record(key, {"v": 1}, 1) for key in keys]


def test_a_process_that_has_forgotten_looks_again(make):
    store = make()
    put(store, 1)
    store.history.renew()
    put(make(), 5)
    put(store, 3)
    assert [at(store, moment) for moment in (1, 2, 3, 9)] == [(1, 1), (1, 1), (3, 3), (3, 3)]
