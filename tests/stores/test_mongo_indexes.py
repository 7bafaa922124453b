"""Indexes on a real MongoDB: created before they are needed, used by their queries, and conflicts reported with the fix."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pymongo
import pytest
from bson import ObjectId

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import BacktestKitError, IndexConflictError
from backtest_kit_mongo.stores.mongo.indexes import ensure_indexes, find_conflicts, missing_indexes

WHEN = 1_700_000_000_000
MINUTE = 60_000
BEFORE = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(settings):
    """A plain client on the database, which acts as another tool."""
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        yield client.get_default_database()


def write_one(domain, tag="x"):
    """Write one record through the public API."""
    match domain.name:
        case "candle":
            row = {"timestamp": 0, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
            kit.PersistCandleAdapter.write_candles_data([row], tag, "1m", tag)
        case "storage":
            kit.PersistStorageAdapter.write_storage_data([{"id": tag}], True)
        case "notification":
            kit.PersistNotificationAdapter.write_notification_data([{"id": tag}], True)
        case "log":
            kit.PersistLogAdapter.write_log_data([{"id": tag}])
        case _:
            call = next(call for call in domain.calls if call.operation == "write")
            values = {"when": WHEN, "backtest": True}
            body = [] if domain.name == "risk" else {}
            adapter_of(domain).write_many([(body, *(values.get(name, tag) for name in call.arguments[1:]))])


def key_of(domain, tag="x"):
    values = {"backtest": True, "timestamp": 0, "interval": "1m"}
    return {name: values.get(name, tag) for name in domain.key}


def follow(database, text):
    """Run every command that an error or a conflict names, through pymongo; return how many there were."""
    commands = re.findall(r'db\.getCollection\("([^"]+)"\)\.(dropIndex|deleteMany)\((.*?)\)(?=;|$)', text, re.MULTILINE)
    for name, what, argument in commands:
        if what == "dropIndex":
            database[name].drop_index(argument.strip('"'))
        else:
            ids = [ObjectId(value) for value in re.findall(r'ObjectId\("([0-9a-f]{24})"\)', argument)]
            assert argument == f"{{_id: {{$in: [{', '.join(f'ObjectId({chr(34)}{value}{chr(34)})' for value in ids)}]}}}}"
            assert database[name].delete_many({"_id": {"$in": ids}}).deleted_count == len(ids)
    return len(commands)


# --- creation ---


def test_gate_makes_exactly_the_indexes_of_the_table(settings, database):
    """After the gate every collection has ``_id_``, its unique index under MongoDB's default name, its other indexes, and no more."""
    kit.setup(settings)
    kit.wait_for_init()
    for domain in DOMAINS.values():
        existing = database[domain.collection].index_information()
        unique = "_".join(f"{name}_1" for name in domain.key)
        others = {"_".join(f"{name}_{direction}" for name, direction in index): index for index in domain.indexes}
        assert set(existing) == {"_id_", unique, *others}
        assert existing[unique]["unique"] is True
        assert existing[unique]["key"] == [(name, 1) for name in domain.key]
        for name, index in others.items():
            assert existing[name]["key"] == list(index)
            assert not existing[name].get("unique")
        assert missing_indexes(database[domain.collection], domain) == []
        assert find_conflicts(database[domain.collection], domain) == []


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_first_write_makes_the_indexes_of_its_domain_only(settings, database, domain):
    """Without the gate the first write creates them, before its document; no other collection is created."""
    kit.setup(settings)
    write_one(domain)
    beside = ["candle-archive"] if domain.name == "candle" else []  # where its block is registered
    assert sorted(database.list_collection_names()) == sorted([domain.collection, *beside])
    assert missing_indexes(database[domain.collection], domain) == []
    assert database[domain.collection].count_documents(key_of(domain)) == 1


def test_reads_make_nothing(settings, database):
    """Reads of an empty database leave it empty."""
    kit.setup(settings)
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") is None
    assert kit.PersistLogAdapter.read_log_data() == []
    assert kit.PersistCandleAdapter.read_candles_data("S", "1m", "e", 5, 0, 0) is None
    assert list(kit.PersistMemoryAdapter.list_memory_data("s", "b")) == []
    assert database.list_collection_names() == []


def test_missing_indexes_are_named(database):
    """Each missing index is named, and the gate creates a dropped one again."""
    domain = DOMAINS["log"]
    collection = database[domain.collection]
    assert missing_indexes(collection, domain) == ["entryId_1", "createDate_-1__id_-1"]
    ensure_indexes(collection, domain)
    assert missing_indexes(collection, domain) == []
    collection.drop_index("createDate_-1__id_-1")
    assert missing_indexes(collection, domain) == ["createDate_-1__id_-1"]
    ensure_indexes(collection, domain)
    assert missing_indexes(collection, domain) == []


# --- the indexes of the TypeScript package ---

ORIGINAL = {
    "candle": ["timestamp"],
    "notification": ["backtest_1_createDate_-1"],
    "log": ["createDate_-1"],
    "measure": ["removed", "bucket_1_removed_1"],
    "interval": ["removed", "when", "bucket_1_removed_1"],
    "memory": ["removed", "when", "signalId_1_bucketName_1_removed_1"],
    **{name: ["when"] for name in ("risk", "partial", "breakeven", "recent", "state", "session", "dictionary")},
}


def make_original(database, domain):
    """Create the indexes of the TypeScript package: one for each filter field, the unique one, and the compound ones."""
    collection = database[domain.collection]
    for name in dict.fromkeys([*domain.key, *ORIGINAL.get(domain.name, [])]):
        if "_" in name:
            keys = [(field, int(direction)) for field, direction in re.findall(r"([A-Za-z]+)_(-?1)", name)]
            collection.create_index(keys, background=True)
        elif domain.name != "log" or name != "entryId":
            collection.create_index(name, background=True)
    collection.create_index([(name, 1) for name in domain.key], unique=True, background=True)


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_indexes_of_the_original_do_not_disturb(settings, database, domain):
    """On such a database the gate and writes succeed, no index is dropped, and only this library's missing ones are created."""
    make_original(database, domain)
    before = database[domain.collection].index_information()
    assert find_conflicts(database[domain.collection], domain) == []
    kit.setup(settings)
    kit.wait_for_init()
    write_one(domain)
    after = database[domain.collection].index_information()
    assert {name: after[name] for name in before} == before
    ours = {"_".join(f"{name}_{direction}" for name, direction in index) for index in domain.indexes}
    assert set(after) - set(before) == ours - set(before)


# --- conflicts ---


def gate():
    kit.wait_for_init(timeout=60)


def conflict(domain, how):
    """Return the error of the gate, or of the first write."""
    with pytest.raises(IndexConflictError) as caught:
        gate() if how == "gate" else write_one(domain, "new")
    assert isinstance(caught.value, BacktestKitError)
    return str(caught.value)


@pytest.mark.parametrize("how", ["gate", "first write"])
@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_duplicates_are_reported_and_mended(settings, database, domain, how):
    """With duplicate keys nothing runs without the index: the error has the key and the command that repairs them."""
    collection = database[domain.collection]
    ids = [
        collection.insert_one({**key_of(domain), "updatedDate": BEFORE + timedelta(minutes=number), "payload": {"n": number}}).inserted_id
        for number in (1, 0, 3, 2)
    ]
    other = collection.insert_one({**key_of(domain, "y"), **({"timestamp": MINUTE} if domain.name == "candle" else {})}).inserted_id
    kit.setup(settings)
    text = conflict(domain, how)
    assert domain.collection in text
    assert "4 documents" in text
    for name, value in key_of(domain).items():
        assert f"{name}={value!r}" in text
    assert collection.count_documents({}) == 5, "something was written without the index"
    assert missing_indexes(collection, domain)[0] == "_".join(f"{name}_1" for name in domain.key)
    assert [conflict.text for conflict in find_conflicts(collection, domain)] == [text.partition(": ")[2].partition("\n")[0]]
    assert conflict(domain, how) == text, "the second try says the same"
    assert follow(database, text) == 1
    # The document written last stays; in an insert-once domain the first one.
    kept = ids[1] if domain.write == "insert_once" else ids[2]
    assert {document["_id"] for document in collection.find()} == {kept, other}
    gate()
    write_one(domain, "new")
    assert missing_indexes(collection, domain) == []


def test_many_duplicates_are_mended_step_by_step(settings, database):
    """With more keys and copies than one message can list, following the messages ends, and nothing else is deleted."""
    domain = DOMAINS["state"]
    collection = database[domain.collection]
    collection.insert_many({"signalId": f"s{key}", "bucketName": "b", "n": copy} for key in range(25) for copy in range(2 + key % 3))
    collection.insert_many({"signalId": "many", "bucketName": "b", "n": copy} for copy in range(250))
    collection.insert_many({"signalId": f"single{key}", "bucketName": "b"} for key in range(5))
    kit.setup(settings)
    steps = 0
    while find_conflicts(collection, domain):
        steps += 1
        assert steps < 10
        text = conflict(domain, "gate")
        assert len(text) < 20_000
        assert follow(database, text) > 0
    gate()
    assert collection.count_documents({}) == 25 + 1 + 5
    assert len(collection.distinct("signalId")) == 31


def test_duplicates_with_an_id_that_is_no_object_id(settings, database):
    """Copies that another tool stored under text or numeric ids are named too."""
    domain = DOMAINS["signal"]
    database[domain.collection].insert_many([{"_id": name, **key_of(domain)} for name in ("one", 2, 3.5)])
    kit.setup(settings)
    text = conflict(domain, "gate")
    assert "3 documents" in text
    assert sum(shown in text for shown in ("'one'", "2", "3.5")) >= 2


LEGACY = [("candle", ["symbol", "interval", "timestamp"]), ("session", ["strategyName", "exchangeName", "frameName"])]


@pytest.mark.parametrize("how", ["gate", "first write"])
@pytest.mark.parametrize(("name", "fields"), LEGACY, ids=[name for name, _ in LEGACY])
def test_legacy_unique_index(settings, database, name, fields, how):
    """An older unique index that lacks key fields is reported with its dropIndex, before the first collision."""
    domain = DOMAINS[name]
    collection = database[domain.collection]
    legacy = collection.create_index([(field, 1) for field in fields], unique=True)
    kit.setup(settings)
    text = conflict(domain, how)
    assert repr(legacy) in text
    for field in set(domain.key) - set(fields):
        assert field in text
    assert f'db.getCollection("{domain.collection}").dropIndex("{legacy}")' in text
    assert collection.count_documents({}) == 0
    assert legacy in collection.index_information(), "nothing of theirs is dropped without being told"
    assert follow(database, text) == 1
    gate()
    write_one(domain, "one")
    write_one(domain, "two")
    assert missing_indexes(collection, domain) == []


def test_legacy_index_beside_the_right_one(settings, database):
    """The same holds if the library's unique index exists: two exchanges would still collide in the old one."""
    domain = DOMAINS["candle"]
    ensure_indexes(database[domain.collection], domain)
    database[domain.collection].create_index([("symbol", 1), ("interval", 1), ("timestamp", 1)], unique=True)
    kit.setup(settings)
    assert follow(database, conflict(domain, "first write")) == 1
    gate()


DIFFERING = {
    "not unique": {},
    "partial": {"unique": True, "partialFilterExpression": {"payload": {"$exists": True}}},
    "sparse": {"unique": True, "sparse": True},
    "case-insensitive": {"unique": True, "collation": {"locale": "en", "strength": 2}},
}


@pytest.mark.parametrize("how", ["gate", "first write"])
@pytest.mark.parametrize("kind", DIFFERING)
def test_index_that_stands_in_the_place_of_ours(settings, database, kind, how):
    """An index on the key fields with other options is reported with the dropIndex that makes room."""
    domain = DOMAINS["signal"]
    collection = database[domain.collection]
    name = collection.create_index([(field, 1) for field in domain.key], **DIFFERING[kind])
    kit.setup(settings)
    text = conflict(domain, how)
    assert repr(name) in text
    assert find_conflicts(collection, domain) != []
    assert follow(database, text) == 1
    gate()
    assert collection.index_information()["symbol_1_strategyName_1_exchangeName_1"]["unique"]
    write_one(domain)


def test_index_on_our_keys_under_another_name(settings, database):
    """Such an index does no harm: the unique one is created next to it, and no error says to drop it."""
    domain = DOMAINS["signal"]
    collection = database[domain.collection]
    collection.create_index([(field, 1) for field in domain.key], name="by_context")
    kit.setup(settings)
    gate()
    write_one(domain)
    assert collection.index_information()["symbol_1_strategyName_1_exchangeName_1"]["unique"]
    assert find_conflicts(collection, domain) == []


def test_our_name_over_other_keys(settings, database):
    """An index with the name of the unique one but other keys is reported with its dropIndex."""
    domain = DOMAINS["signal"]
    database[domain.collection].create_index([("payload", 1)], name="symbol_1_strategyName_1_exchangeName_1")
    kit.setup(settings)
    assert follow(database, conflict(domain, "gate")) == 1
    gate()


def test_not_unique_and_duplicates(settings, database):
    """With an index that is not unique and duplicate documents, following the messages step by step repairs both."""
    domain = DOMAINS["signal"]
    collection = database[domain.collection]
    collection.create_index([(field, 1) for field in domain.key])
    collection.insert_many([key_of(domain), key_of(domain)])
    assert len(find_conflicts(collection, domain)) == 2
    kit.setup(settings)
    for _ in range(2):
        assert follow(database, conflict(domain, "first write")) >= 1
        if collection.count_documents({}) == 1:
            break
    gate()


def test_unique_index_with_the_same_fields_in_another_order(settings, database):
    """Such an index causes no conflict, so it stays."""
    domain = DOMAINS["signal"]
    name = database[domain.collection].create_index([("exchangeName", 1), ("symbol", 1), ("strategyName", 1)], unique=True)
    kit.setup(settings)
    gate()
    write_one(domain)
    assert name in database[domain.collection].index_information()


def test_one_bad_collection_does_not_stop_the_others(settings, database):
    """Without the gate, a conflict in one domain affects only that domain."""
    database["signal-items"].insert_many([key_of(DOMAINS["signal"]), key_of(DOMAINS["signal"])])
    kit.setup(settings)
    conflict(DOMAINS["signal"], "first write")
    write_one(DOMAINS["schedule"])
    assert kit.PersistScheduleAdapter.read_schedule_data("x", "x", "x") == {}


# --- use ---


def fill(database):
    """Write enough records that the query planner prefers an index."""
    kit.PersistSignalAdapter.write_many([({"n": number}, f"S{number}", "s", "e") for number in range(300)])
    kit.PersistMemoryAdapter.write_many([({"n": number}, f"s{number % 10}", "b", f"m{number}", WHEN) for number in range(300)])
    kit.PersistMeasureAdapter.write_many([({"n": number}, f"b{number % 10}", f"k{number}", WHEN) for number in range(300)])
    kit.PersistIntervalAdapter.write_many([({"n": number}, f"b{number % 10}", f"k{number}", WHEN) for number in range(300)])
    for backtest in (True, False):
        kit.PersistStorageAdapter.write_storage_data([{"id": f"{number}"} for number in range(150)], backtest)
        kit.PersistNotificationAdapter.write_notification_data([{"id": f"{number}"} for number in range(150)], backtest)
    kit.PersistLogAdapter.write_log_data([{"id": f"{number}"} for number in range(300)])
    for symbol in ("A", "B"):
        kit.PersistCandleAdapter.write_candles_data(
            [{"timestamp": number * MINUTE, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1} for number in range(300)],
            symbol,
            "1m",
            "e",
        )


QUERIES = {
    "signal": (lambda: kit.PersistSignalAdapter.read_signal_data("S7", "s", "e"), 1),
    "signal, many": (lambda: kit.PersistSignalAdapter.read_many([(f"S{number}", "s", "e") for number in range(20)]), 20),
    "memory, list": (lambda: list(kit.PersistMemoryAdapter.list_memory_data("s3", "b")), 30),
    "measure, list": (lambda: list(kit.PersistMeasureAdapter.list_measure_data("b3")), 30),
    "interval, list": (lambda: list(kit.PersistIntervalAdapter.list_interval_data("b3")), 30),
    "storage, list": (lambda: kit.PersistStorageAdapter.read_storage_data(True), 150),
    "notification, list": (lambda: kit.PersistNotificationAdapter.read_notification_data(True), 150),
    "notification, some": (lambda: kit.PersistNotificationAdapter.read_notification_data(False, limit=10), 10),
    "log, list": (lambda: kit.PersistLogAdapter.read_log_data(), 300),
    "log, some": (lambda: kit.PersistLogAdapter.read_log_data(limit=10), 10),
    "candle, window": (lambda: kit.PersistCandleAdapter.read_candles_data("B", "1m", "e", 50, 100 * MINUTE, 0), 50),
    "candle, hole": (lambda: kit.PersistCandleAdapter.read_candles_data("B", "1m", "e", 50, 280 * MINUTE, 0), 20),
    "signal, write": (lambda: kit.PersistSignalAdapter.write_signal_data({}, "S7", "s", "e"), 1),
    "memory, remove": (lambda: kit.PersistMemoryAdapter.remove_memory_data("s3", "b", "m3"), 1),
}
UNSORTED = {"notification, list", "notification, some", "log, list", "log, some", "candle, window", "candle, hole"}
EXPECTED = {
    "notification, some": "backtest: 1, createDate: -1, _id: -1",
    "log, some": "createDate: -1, _id: -1",
    "memory, list": "signalId: 1, bucketName: 1",
    "measure, list": "bucket: 1",
    "interval, list": "bucket: 1",
}


@pytest.mark.parametrize("original", [False, True], ids=["our indexes", "beside the original's"])
def test_every_query_uses_an_index(settings, database, original):
    """By the server's profiler: no collection scan, no needless document examined, no sort in memory for log and notification."""
    if original:
        for domain in DOMAINS.values():
            make_original(database, domain)
    kit.setup(settings, CC_CANDLE_MEMORY_MB=0)  # without reading ahead
    gate()
    fill(database)
    for name, (query, examined) in QUERIES.items():
        default_registry.mongo.drop_cache()
        database.command("profile", 2)
        query()
        database.command("profile", 0)
        expected = {"ns": {"$regex": "-items$"}, "op": {"$in": ["query", "command", "update", "getmore"]}}
        # The indexes are checked now and then, too.
        operations = list(database["system.profile"].find({**expected, "command.listIndexes": {"$exists": False}}))
        database["system.profile"].drop()
        assert len(operations) == 1, name
        seen = operations[0]
        plan = seen["planSummary"]
        assert "COLLSCAN" not in plan, name
        assert plan.startswith(("IXSCAN", "IDHACK")), (name, plan)
        assert seen["docsExamined"] <= examined, (name, plan)
        assert seen["keysExamined"] <= 3 * examined + 1, (name, plan)
        if name in UNSORTED:
            assert not seen.get("hasSortStage"), (name, plan)
        if not original and name in EXPECTED:
            assert EXPECTED[name] in plan, (name, plan)


def test_read_by_a_known_id_goes_by_id(settings, database):
    """With a cached id, the server fetches by ``_id`` only."""
    kit.setup(settings)
    kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    database.command("profile", 2)
    kit.PersistSignalAdapter.read_signal_data("S", "s", "e")
    database.command("profile", 0)
    (seen,) = database["system.profile"].find({"ns": {"$regex": "signal-items$"}})
    assert (seen["planSummary"], seen["docsExamined"]) == ("IDHACK", 1)


@pytest.mark.parametrize("domain", [domain for domain in DOMAINS.values() if domain.keyed], ids=lambda domain: domain.name)
def test_upsert_filter_is_the_unique_index(settings, database, domain):
    """The filter of an upsert has exactly the fields of the unique index, so the server can resolve a race by itself."""
    kit.setup(settings)
    write_one(domain)
    database.command("profile", 2)
    write_one(domain)
    database.command("profile", 0)
    (seen,) = database["system.profile"].find({"ns": {"$regex": "-items$"}})
    command = seen["command"]
    expected = command.get("query") or command["q"]
    assert list(expected) == list(domain.key)
    assert seen["planSummary"] == "IXSCAN { " + ", ".join(f"{name}: 1" for name in domain.key) + " }"


def test_indexes_come_back_after_the_database_was_dropped(mongo):
    """If the database is dropped under a running process, the unique indexes return with the gate or the next new record."""
    kit.wait_for_init()
    database = kit.get_mongo()

    def unique(name):
        return [index for index in database[name].list_indexes() if index.get("unique")]

    database.client.drop_database(database.name)
    kit.wait_for_init()
    assert unique("signal-items")
    database.client.drop_database(database.name)
    time.sleep(1.1)  # a check is made at most once a second
    for number in range(2):
        kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", f"s{number}", "e")
    kit.PersistCandleAdapter.write_candles_data([{"timestamp": 0, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 0}], "B", "1m", "e")
    assert unique("signal-items")
    assert unique("candle-items")
