"""The id cache on real servers: whatever Redis or this process remembers, reads return the right record and repair the cache."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import pymongo
import pymongo.monitoring
import pytest
import redis
from bson import ObjectId

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import DatabaseError, InvalidTypeError, InvalidValueError
from backtest_kit_mongo.stores.mongo import candle_writes, index_checks

KEYED = [domain for domain in DOMAINS.values() if domain.keyed]
WHEN = 1_700_000_000_000
MINUTE = 60_000


class Commands(pymongo.monitoring.CommandListener):
    """Record what pymongo sends inside ``sent``."""

    def __init__(self):
        self.events = None

    def started(self, event):
        if self.events is not None:
            self.events.append(event)

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass

    @contextlib.contextmanager
    def sent(self):
        """Collect the commands of the block, in order."""
        self.events = events = []
        try:
            yield events
        finally:
            self.events = None


@pytest.fixture(scope="module")
def commands():
    """A listener on every client of this module, silent unless used. (A leftover would keep later tests off the wire protocol.)"""
    listener = Commands()
    pymongo.monitoring.register(listener)
    yield listener
    pymongo.monitoring._LISTENERS.command_listeners.remove(listener)


@pytest.fixture
def listening(commands, settings, monkeypatch):
    """Set the library up on a new database with the listener registered, indexes created and connections open."""
    for name in ("SEEN", "CHECKED"):  # on a busy machine the indexes would be checked again during the test
        monkeypatch.setattr(index_checks, name, 600.0)

    def start(**others):
        kit.setup({**settings, **others})
        kit.wait_for_init()
        kit.PersistSignalAdapter.read_signal_data("warm", "warm", "warm")
        return commands

    return start


@pytest.fixture
def cache(servers, settings):
    """A plain client on the tests' Redis."""
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        yield client


@pytest.fixture
def database(servers, settings):
    """A plain client on the test's database, which acts as another writer."""
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        yield client.get_default_database()


@contextlib.contextmanager
def redis_calls(cache):
    """Collect how many commands the server counted in the block, by name."""
    ours = ("info", "config|resetstat", "config")
    cache.config_resetstat()
    calls = {}
    yield calls
    for name, row in cache.info("commandstats").items():
        if name.removeprefix("cmdstat_") not in ours:
            calls[name.removeprefix("cmdstat_")] = row["calls"]


def context_of(domain, tag):
    """Return the arguments that select one record of a domain."""
    return tuple(True if name == "backtest" else f"{name}-{tag}" for name in domain.key_arguments)


def item_of(domain, tag, value):
    """Return the ``write_many`` item of that record."""
    context = dict(zip(domain.key_arguments, context_of(domain, tag), strict=True)) | {"when": WHEN}
    call = next(call for call in domain.calls if call.operation == "write")
    return (body_of(domain, value), *(context[name] for name in call.arguments[1:]))


def body_of(domain, value):
    return [["position", {"value": value}]] if domain.name == "risk" else {"value": value}


def redis_key_of(domain, tag):
    values = dict(zip(domain.key, domain.key_of(context_of(domain, tag)), strict=True))
    return ":".join([domain.prefix, *("backtest" if values[name] is True else values[name] for name in domain.cache)])


def query_of(domain, tag):
    return dict(zip(domain.key, domain.key_of(context_of(domain, tag)), strict=True))


def write(domain, tag, value):
    adapter_of(domain).write_many([item_of(domain, tag, value)])


def read(domain, *tags):
    return adapter_of(domain).read_many([context_of(domain, tag) for tag in tags])


def counts(domain):
    row = kit.stats()[domain.name]
    return {name: row[name] for name in ("hits_process", "hits_redis", "misses", "stale", "backfills") if row[name]}


def signals(n):
    return [(f"S{index}", "strategy", "exchange") for index in range(n)]


# --- a wrong Redis ---


def poison(cache, kind, key, own, other):
    """Store something wrong instead of an id; ``own`` is the right id and ``other`` that of another record."""
    values = {
        "stale": str(ObjectId()),
        "another record's": other,
        "another collection's": None,
        "empty": "",
        "too short": own[:23],
        "too long": own + "0",
        "no hexadecimal": "z" * 24,
        "garbage bytes": bytes(range(128, 152)),
        "a number": "17",
    }
    cache.delete(key)
    match kind:
        case "gone":
            pass
        case "list":
            cache.rpush(key, own)
        case "hash":
            cache.hset(key, "id", own)
        case "set":
            cache.sadd(key, own)
        case "stream":
            cache.xadd(key, {"id": own})
        case _:
            cache.set(key, values[kind])


POISONS = [
    "gone", "stale", "another record's", "empty", "too short", "too long", "no hexadecimal", "garbage bytes", "a number", "list", "hash",
    "set", "stream",
]  # fmt: skip


@pytest.mark.parametrize("domain", KEYED, ids=lambda domain: domain.name)
def test_poisoned_redis_costs_time_never_truth(settings, cache, database, domain):
    """Whatever Redis holds under a record's key, a single read returns the record and stores the right id without expiry."""
    kit.setup({**settings, "CC_PROCESS_IDS": 0})
    write(domain, "a", 1)
    write(domain, "b", 2)
    key = redis_key_of(domain, "a")
    own, other = cache.get(key).decode(), cache.get(redis_key_of(domain, "b")).decode()
    assert own == str(database[domain.collection].find_one(query_of(domain, "a"))["_id"])
    for kind in POISONS:
        poison(cache, kind, key, own, other)
        assert read(domain, "a") == [body_of(domain, 1)], kind
        assert (cache.get(key), cache.ttl(key)) == (own.encode(), -1), kind
        assert read(domain, "a") == [body_of(domain, 1)], kind
    kit.reset_stats()
    assert read(domain, "a") == [body_of(domain, 1)]
    assert counts(domain) == {"hits_redis": 1}


@pytest.mark.parametrize("domain", KEYED, ids=lambda domain: domain.name)
def test_poisoned_redis_in_a_batch(settings, cache, domain):
    """The same holds for ``read_many`` with every kind of wrong value, between right ones and keys that are not stored."""
    kit.setup({**settings, "CC_PROCESS_IDS": 0})
    tags = [str(number) for number in range(2 * len(POISONS))]
    adapter_of(domain).write_many([item_of(domain, tag, number) for number, tag in enumerate(tags)])
    keys = [redis_key_of(domain, tag) for tag in tags]
    ids = [value.decode() for value in cache.mget(keys)]
    for number, kind in enumerate(POISONS):
        poison(cache, kind, keys[2 * number], ids[2 * number], ids[1])
    poison(cache, "stale", redis_key_of(domain, "absent"), ids[0], ids[1])
    expected = [body_of(domain, number) for number in range(len(tags))]
    kit.reset_stats()
    assert read(domain, *tags, "absent", "never") == [*expected, domain.empty(), domain.empty()]
    assert [value.decode() for value in cache.mget(keys)] == ids
    assert not cache.exists(redis_key_of(domain, "absent"))
    # MGET cannot tell a list from a missing key: only the nine strings and the absent record's id count as stale.
    assert counts(domain) == {
        "hits_redis": len(POISONS),
        "misses": len(POISONS) + 2,
        "stale": len(POISONS) - 5 + 1,
        "backfills": len(POISONS),
    }
    kit.reset_stats()
    assert read(domain, *tags) == expected
    assert counts(domain) == {"hits_redis": len(tags)}


def test_id_of_another_collection(settings, cache):
    """An id of a document in another domain counts as stale."""
    kit.setup({**settings, "CC_PROCESS_IDS": 0})
    signal, schedule = DOMAINS["signal"], DOMAINS["schedule"]
    write(signal, "a", "signal")
    write(schedule, "a", "schedule")
    right = cache.get(redis_key_of(signal, "a"))
    cache.set(redis_key_of(signal, "a"), cache.get(redis_key_of(schedule, "a")))
    kit.reset_stats()
    assert read(signal, "a") == [{"value": "signal"}]
    assert counts(signal) == {"stale": 1, "misses": 1, "backfills": 1}
    assert cache.get(redis_key_of(signal, "a")) == right


def test_two_keys_that_hold_one_id(settings, cache):
    """If Redis holds one id for two requested keys, each returns its own record, in either order."""
    kit.setup({**settings, "CC_PROCESS_IDS": 0})
    domain = DOMAINS["state"]
    for order in (("a", "b"), ("b", "a")):
        write(domain, "a", "A")
        write(domain, "b", "B")
        ids = {tag: cache.get(redis_key_of(domain, tag)) for tag in "ab"}
        cache.set(redis_key_of(domain, "a"), ids["b"])
        assert read(domain, *order) == [{"value": tag.upper()} for tag in order]
        assert {tag: cache.get(redis_key_of(domain, tag)) for tag in "ab"} == ids


@pytest.mark.parametrize("process_ids", [0, 100_000])
def test_uppercase_id_is_an_id(settings, cache, process_ids):
    """Hexadecimal digits may be upper case: it is the same id, and a hit."""
    kit.setup({**settings, "CC_PROCESS_IDS": process_ids})
    domain = DOMAINS["signal"]
    write(domain, "a", 1)
    write(domain, "b", 2)
    for tag in "ab":
        cache.set(redis_key_of(domain, tag), cache.get(redis_key_of(domain, tag)).upper())
    default_registry.mongo.process_ids.clear()
    kit.reset_stats()
    assert read(domain, "a") == [{"value": 1}]
    assert read(domain, "a", "b") == [{"value": 1}, {"value": 2}]
    assert counts(domain)["hits_redis"] + counts(domain).get("hits_process", 0) == 3
    assert "stale" not in counts(domain)


def test_redis_emptied_between_write_and_read(mongo, cache):
    """A flushed Redis loses nothing, for single reads, batches, memories and lists; reads fill it again."""
    domain = DOMAINS["memory"]
    adapter = kit.PersistMemoryAdapter
    adapter.write_many([({"n": number}, "signal", "bucket", f"m{number}", WHEN) for number in range(5)])
    for cold in (False, True):
        cache.flushall()
        if cold:
            default_registry.mongo.process_ids.clear()
        assert adapter.read_memory_data("signal", "bucket", "m0") == {"n": 0}
        assert adapter.has_memory_data("signal", "bucket", "m1")
        assert adapter.read_many([("signal", "bucket", f"m{number}") for number in range(5)]) == [{"n": number} for number in range(5)]
        assert {row["memoryId"] for row in adapter.list_memory_data("signal", "bucket")} == {f"m{number}" for number in range(5)}
    assert set(cache.keys("*")) == {f"{domain.prefix}:signal:bucket:m{number}".encode() for number in range(5)}


def test_poisoned_redis_and_a_soft_remove(settings, cache):
    """``has`` and ``remove`` find the record by its key, whatever Redis holds; a stale id of a deleted document is not a memory."""
    kit.setup({**settings, "CC_PROCESS_IDS": 0})
    adapter, domain = kit.PersistMemoryAdapter, DOMAINS["memory"]
    adapter.write_memory_data({"n": 1}, "s", "b", "one", WHEN)
    adapter.write_memory_data({"n": 2}, "s", "b", "two", WHEN)
    one, two = "memory_cache:s:b:one", "memory_cache:s:b:two"
    cache.set(one, cache.get(two))
    adapter.remove_memory_data("s", "b", "one")
    assert not adapter.has_memory_data("s", "b", "one")
    assert adapter.read_memory_data("s", "b", "one") is None
    assert adapter.read_memory_data("s", "b", "two") == {"n": 2}
    kit.get_mongo()[domain.collection].delete_one({"memoryId": "two"})
    assert not adapter.has_memory_data("s", "b", "two")
    assert not cache.exists(two)


# --- a wrong process cache ---


def test_process_id_of_a_deleted_document(mongo, cache, database):
    """If another client deletes the document, single and batch reads return nothing, and both caches drop the id."""
    domain = DOMAINS["state"]
    for batch in (("a",), ("a", "b", "c")):
        for tag in batch:
            write(domain, tag, tag)
        read(domain, *batch)
        database[domain.collection].delete_one(query_of(domain, "a"))
        kit.reset_stats()
        assert read(domain, *batch) == [None, *({"value": tag} for tag in batch[1:])]
        assert counts(domain) == {"stale": 1, "misses": 1} | ({"hits_process": 2} if len(batch) > 1 else {})
        assert not cache.exists(redis_key_of(domain, "a"))
        kit.reset_stats()
        assert read(domain, "a") == [None]
        assert counts(domain) == {"misses": 1}


def test_process_id_of_a_recreated_document(mongo, cache, database):
    """If another client deletes the document and creates a new one, reads return the new one at once and both caches follow."""
    domain = DOMAINS["signal"]
    collection = database[domain.collection]
    for batch in (("a",), ("a", "b", "c")):
        for tag in batch:
            write(domain, tag, tag)
        for redis_follows in (False, True):
            collection.delete_one(query_of(domain, "a"))
            new = collection.insert_one({**query_of(domain, "a"), "payload": {"value": "new"}}).inserted_id
            if redis_follows:  # as it does when the other client is this library too
                cache.set(redis_key_of(domain, "a"), str(new))
            kit.reset_stats()
            assert read(domain, *batch)[0] == {"value": "new"}
            assert counts(domain)["stale"] == 1
            assert cache.get(redis_key_of(domain, "a")) == str(new).encode()
            kit.reset_stats()
            assert read(domain, *batch)[0] == {"value": "new"}
            assert counts(domain) == {"hits_process": len(batch)}


def test_process_id_that_now_belongs_to_another_key(mongo, database):
    """If another client changes the key of the document, the id still exists but no longer matches, and the read detects it."""
    domain = DOMAINS["dictionary"]
    for tag in "abc":
        write(domain, tag, tag)
    database[domain.collection].delete_one(query_of(domain, "b"))
    database[domain.collection].update_one(query_of(domain, "a"), {"$set": query_of(domain, "b")})
    assert read(domain, "a") == [None]
    assert read(domain, "a", "b", "c") == [None, {"value": "a"}, {"value": "c"}]


def test_two_keys_with_one_process_id(mongo, cache, database):
    """The document belongs to one of them; for the other both caches drop the id, and it is not tried again."""
    domain = DOMAINS["dictionary"]
    for tag in "ab":
        write(domain, tag, tag)
    read(domain, "a", "b")
    database[domain.collection].delete_one(query_of(domain, "a"))
    default_registry.mongo.process_ids.put(
        domain, context_of(domain, "a"), default_registry.mongo.process_ids.get(domain, context_of(domain, "b"))
    )
    kit.reset_stats()
    assert read(domain, "a", "b") == [None, {"value": "b"}]
    assert counts(domain) == {"hits_process": 1, "stale": 1, "misses": 1}
    assert default_registry.mongo.process_ids.get(domain, context_of(domain, "a")) is None
    assert not cache.exists(redis_key_of(domain, "a"))


@pytest.mark.parametrize("batch", ["a", "ab"])
def test_a_wrong_entry_for_a_record_with_a_foreign_id_goes(mongo, cache, database, batch):
    """Such a record stays uncached, and a wrong id is tried at most once."""
    domain = DOMAINS["state"]
    write(domain, "b", "b")
    database[domain.collection].insert_one({"_id": "foreign", **query_of(domain, "a"), "payload": {"value": "a"}})
    cache.set(redis_key_of(domain, "a"), str(ObjectId()))
    for stale in (1, None):
        kit.reset_stats()
        assert read(domain, *batch)[0] == {"value": "a"}
        assert counts(domain).get("stale") == stale
    assert not cache.exists(redis_key_of(domain, "a"))


def test_documents_that_the_query_takes_for_the_key(mongo, database):
    """A single read returns a document with a list of keys, as MongoDB finds it; a batch skips it; it is never cached."""
    domain = DOMAINS["state"]
    write(domain, "b", "b")
    query = query_of(domain, "a")
    name = next(iter(query))
    database[domain.collection].insert_one({**query, name: [query[name], "other"], "payload": {"value": "a"}})
    for _ in range(2):
        assert read(domain, "a") == [{"value": "a"}]
        assert read(domain, "a", "b", "c") == [None, {"value": "b"}, None]
        assert default_registry.mongo.process_ids.get(domain, context_of(domain, "a")) is None


def test_write_over_a_stale_process_id(mongo, cache, database):
    """A write goes by key, never by a cached id, and changes the document that exists now."""
    domain = DOMAINS["signal"]
    collection = database[domain.collection]
    for many in (False, True):
        write(domain, "a", "old")
        collection.delete_one(query_of(domain, "a"))
        new = collection.insert_one({**query_of(domain, "a"), "payload": None}).inserted_id
        if many:
            adapter_of(domain).write_many([item_of(domain, tag, "written") for tag in "abc"])
        else:
            write(domain, "a", "written")
        document = collection.find_one(query_of(domain, "a"))
        assert (document["_id"], document["payload"]) == (new, {"value": "written"})
        assert read(domain, "a") == [{"value": "written"}]
        assert cache.get(redis_key_of(domain, "a")) == str(new).encode()


def test_id_of_another_type_is_read_and_never_cached(mongo, cache, database):
    """A document with an ``_id`` of another type (from another tool) is read and written by key and never cached."""
    domain = DOMAINS["state"]
    database[domain.collection].insert_one({"_id": "text", **query_of(domain, "a"), "payload": {"value": 1}})
    assert read(domain, "a") == [{"value": 1}]
    assert read(domain, "a", "b") == [{"value": 1}, None]
    write(domain, "a", 2)
    assert read(domain, "a") == [{"value": 2}]
    assert not cache.exists(redis_key_of(domain, "a"))
    assert database[domain.collection].count_documents({}) == 1


# --- contexts that share a Redis key ---


COLLISIONS = [
    (kit.PersistSignalAdapter, "write_signal_data", "read_signal_data", ("sym", "a:b", "c"), ("sym", "b", "c:a")),
    (kit.PersistSignalAdapter, "write_signal_data", "read_signal_data", ("b:s", "a", "x"), ("s", "a:b", "x")),
    (kit.PersistMemoryAdapter, "write_memory_data", "read_memory_data", ("a:b", "c", "m"), ("a", "b:c", "m")),
    (kit.PersistMemoryAdapter, "write_memory_data", "read_memory_data", ("a", "b", "c:d"), ("a", "b:c", "d")),
    (kit.PersistRiskAdapter, "write_position_data", "read_position_data", ("a:b", "c"), ("b", "c:a")),
    (kit.PersistStateAdapter, "write_state_data", "read_state_data", ("a:b", "c"), ("a", "b:c")),
]


@pytest.mark.parametrize("process_ids", [0, 100_000])
@pytest.mark.parametrize(("adapter", "writer", "reader", "one", "two"), COLLISIONS)
def test_colliding_contexts(settings, cache, adapter, writer, reader, one, two, process_ids):
    """Two contexts with one Redis key are two records, in every order of reads, writes and cold caches."""
    kit.setup({**settings, "CC_PROCESS_IDS": process_ids})
    risk = adapter is kit.PersistRiskAdapter
    bodies = {one: [["p", {"of": "one"}]] if risk else {"of": "one"}, two: [["p", {"of": "two"}]] if risk else {"of": "two"}}
    when = () if adapter is kit.PersistSignalAdapter else (WHEN,)
    for context, body in bodies.items():
        getattr(adapter, writer)(body, *context, *when)
    assert len(cache.keys("*")) == 1, "these contexts do not collide"
    for context in (one, two, two, one, one):
        assert getattr(adapter, reader)(*context, *(when if risk else ())) == bodies[context]
    for pair in itertools.permutations((one, two)):
        for cold in (False, True):
            if cold:
                default_registry.mongo.process_ids.clear()
            assert adapter.read_many(list(pair)) == [bodies[context] for context in pair]
    assert cache.get(cache.keys("*")[0]).decode() in {str(row["_id"]) for row in kit.get_mongo()[adapter._domain.collection].find()}


# --- bounds of the process cache ---


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_bound_of_the_process_cache(settings, limit):
    """At most CC_PROCESS_IDS ids of a domain are cached, and results do not depend on it."""
    kit.setup({**settings, "CC_PROCESS_IDS": limit})
    domain = DOMAINS["state"]
    tags = list("abcdefghij")
    for tag in tags:
        write(domain, tag, tag)
    default_registry.mongo.drop_cache()
    for tag in tags:
        assert read(domain, tag) == [{"value": tag}]
    assert read(domain, *tags) == [{"value": tag} for tag in tags]
    for tag in tags:
        assert read(domain, tag) == [{"value": tag}]
    kit.reset_stats()
    for tag in reversed(tags):
        assert read(domain, tag) == [{"value": tag}]
    seen = counts(domain)
    assert sum(seen.values()) == len(tags)
    assert set(seen) <= {"hits_process", "hits_redis"}
    assert seen.get("hits_process", 0) <= limit
    assert len(default_registry.mongo.process_ids.of(domain)) == limit
    read(domain, "a")
    read(domain, "a")
    assert counts(domain).get("hits_process", 0) > seen.get("hits_process", 0) or not limit


def test_bound_holds_under_threads(settings):
    """Eight threads that fill a small process cache get right results, no error, and no growth beyond the bound."""
    kit.setup({**settings, "CC_PROCESS_IDS": 5})
    domain = DOMAINS["state"]
    problems = []

    def work(number):
        try:
            for step in range(40):
                write(domain, f"{number}-{step}", step)
                if read(domain, f"{number}-{step}") != [{"value": step}]:
                    problems.append((number, step))
        except Exception as error:  # noqa: BLE001 - the test reports every kind of error
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    write(domain, "last", 0)
    kit.reset_stats()
    read(domain, *(f"{number}-{step}" for number in range(8) for step in range(40)))
    assert counts(domain).get("hits_process", 0) <= 5 + 8


# --- costs of a call ---


def names(events):
    return [event.command_name for event in events]


def test_warm_hit_of_the_process(listening, cache):
    """An id in the process cache costs one find and no Redis command."""
    commands = listening()
    kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    kit.reset_stats()
    with redis_calls(cache) as calls, commands.sent() as sent:
        assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    assert names(sent) == ["find"]
    assert calls == {}
    assert counts(DOMAINS["signal"]) == {"hits_process": 1}


def test_warm_hit_of_redis(listening, cache):
    """An id in Redis only costs one GET and one find; after that the process has it too."""
    commands = listening()
    kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    default_registry.mongo.process_ids.clear()
    kit.reset_stats()
    with redis_calls(cache) as calls, commands.sent() as sent:
        assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    assert names(sent) == ["find"]
    assert calls == {"get": 1}
    assert counts(DOMAINS["signal"]) == {"hits_redis": 1}
    with redis_calls(cache) as calls, commands.sent() as sent:
        kit.PersistSignalAdapter.read_signal_data("S", "s", "e")
    assert (names(sent), calls) == (["find"], {})


def test_miss(listening, cache):
    """A cold record costs GET, one find and SET; one that is not stored costs GET and one find."""
    commands = listening()
    kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    default_registry.mongo.drop_cache()
    kit.reset_stats()
    with redis_calls(cache) as calls, commands.sent() as sent:
        assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    assert (names(sent), calls) == (["find"], {"get": 1, "set": 1})
    assert counts(DOMAINS["signal"]) == {"misses": 1, "backfills": 1}
    with redis_calls(cache) as calls, commands.sent() as sent:
        assert kit.PersistSignalAdapter.read_signal_data("none", "s", "e") is None
    assert (names(sent), calls) == (["find"], {"get": 1})
    assert counts(DOMAINS["signal"]) == {"misses": 2, "backfills": 1}


def test_single_write(listening, cache):
    """A write, first or repeated, is one findAndModify and one SET."""
    commands = listening()
    for number in range(3):
        with redis_calls(cache) as calls, commands.sent() as sent:
            kit.PersistSignalAdapter.write_signal_data({"n": number}, "S", "s", "e")
        assert (names(sent), calls) == (["findAndModify"], {"set": 1})


def test_remove_is_one_command(listening, cache):
    """A soft remove is one update and needs no id."""
    commands = listening()
    kit.PersistMeasureAdapter.write_measure_data({"n": 1}, "bucket", "key", WHEN)
    with redis_calls(cache) as calls, commands.sent() as sent:
        kit.PersistMeasureAdapter.remove_measure_data("bucket", "key")
    assert (names(sent), calls) == (["update"], {})


@pytest.mark.parametrize("warm", ["redis", "process", "nothing"])
def test_read_many_of_a_thousand(listening, cache, warm):
    """A batch takes at most one MGET and one find, without getMore: from Redis, from the process, and (with one MSET) from cold."""
    commands = listening()
    contexts = signals(1000)
    # A wide payload: a reply of many megabytes could make the server split it into batches.
    kit.PersistSignalAdapter.write_many([({"n": number, "note": "x" * 500}, *context) for number, context in enumerate(contexts)])
    if warm == "redis":
        default_registry.mongo.process_ids.clear()
    elif warm == "nothing":
        default_registry.mongo.drop_cache()
    kit.reset_stats()
    with redis_calls(cache) as calls, commands.sent() as sent:
        stored = kit.PersistSignalAdapter.read_many(contexts)
    assert [row["n"] for row in stored] == list(range(1000))
    assert names(sent) == ["find"]
    assert calls == {"redis": {"mget": 1}, "process": {}, "nothing": {"mget": 1, "mset": 1}}[warm]
    assert (
        counts(DOMAINS["signal"])
        == {
            "redis": {"hits_redis": 1000},
            "process": {"hits_process": 1000},
            "nothing": {"misses": 1000, "backfills": 1000},
        }[warm]
    )


def test_read_many_goes_by_thousands(listening, cache):
    """2,500 keys take three MGETs and three finds, and results follow the order of the keys, including repeated ones."""
    commands = listening(CC_PROCESS_IDS=0)
    contexts = signals(2500)
    kit.PersistSignalAdapter.write_many([({"n": number}, *context) for number, context in enumerate(contexts)])
    with redis_calls(cache) as calls, commands.sent() as sent:
        stored = kit.PersistSignalAdapter.read_many(contexts[::-1])
    assert [row["n"] for row in stored] == list(range(2499, -1, -1))
    assert (names(sent), calls) == (["find"] * 3, {"mget": 3})
    one, two, three = kit.PersistSignalAdapter.read_many([contexts[7], contexts[8], contexts[7]])
    assert (one, two, three) == ({"n": 7}, {"n": 8}, {"n": 7})
    assert one is not three


def test_write_many_of_a_thousand(listening, cache):
    """New records take one update command and one MSET; existing ones take one update command and at most one MSET."""
    commands = listening()
    contexts = signals(1000)
    for value in range(2):
        with redis_calls(cache) as calls, commands.sent() as sent:
            kit.PersistSignalAdapter.write_many([({"n": value}, *context) for context in contexts])
        assert names(sent) == ["update"]
        assert calls == {"mset": 1} or (value and calls == {})
    ids = {row["symbol"]: str(row["_id"]) for row in kit.get_mongo()["signal-items"].find()}
    assert [value.decode() for value in cache.mget([f"signal_cache:exchange:strategy:S{number}" for number in range(1000)])] == [
        ids[f"S{number}"] for number in range(1000)
    ]


def test_write_many_spoils_no_entry_of_redis(settings, cache, database):
    """If this process holds a stale id and Redis the right one, a batch write leaves the right one in Redis."""
    kit.setup(settings)
    domain = DOMAINS["signal"]
    adapter_of(domain).write_many([item_of(domain, tag, "old") for tag in "ab"])
    database[domain.collection].delete_one(query_of(domain, "a"))
    new = database[domain.collection].insert_one({**query_of(domain, "a"), "payload": None}).inserted_id
    cache.set(redis_key_of(domain, "a"), str(new))
    adapter_of(domain).write_many([item_of(domain, tag, "new") for tag in "ab"])
    assert cache.get(redis_key_of(domain, "a")) == str(new).encode()


LISTS = [
    ("storage", lambda rows: kit.PersistStorageAdapter.write_storage_data(rows, True)),
    ("notification", lambda rows: kit.PersistNotificationAdapter.write_notification_data(rows, True)),
    ("log", lambda rows: kit.PersistLogAdapter.write_log_data(rows)),
]


@pytest.mark.parametrize(("name", "put"), LISTS, ids=[name for name, _ in LISTS])
def test_list_write_of_a_thousand_rows(listening, cache, name, put):
    """A list write, first or repeated, is one update command and no Redis command."""
    commands = listening()
    rows = [{"id": f"row{number}", "n": number} for number in range(1000)]
    for _ in range(2):
        with redis_calls(cache) as calls, commands.sent() as sent:
            put(rows)
        assert (names(sent), calls) == (["update"], {})
        assert len(sent[0].command["updates"]) == 1000
    assert kit.get_mongo()[DOMAINS[name].collection].count_documents({}) == 1000


def test_list_read_is_one_find(listening, cache):
    """A list of a thousand rows is read with one find, without getMore and without Redis."""
    commands = listening()
    kit.PersistStorageAdapter.write_storage_data([{"id": f"row{number}"} for number in range(1000)], False)
    with redis_calls(cache) as calls, commands.sent() as sent:
        assert len(kit.PersistStorageAdapter.read_storage_data(False)) == 1000
    assert (names(sent), calls) == (["find"], {})


def candles(n, first=0, price=100.0):
    return [
        {"timestamp": (first + index) * MINUTE, "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": float(index)}
        for index in range(n)
    ]


def test_candle_window_of_a_thousand(listening, cache, monkeypatch):
    """A window takes one find, one for the archive, and now and then one for its packed block; a write one query and at most one insert.

    The first write to a block looks into the archive and registers it.
    """
    monkeypatch.setattr(candle_writes, "LOOKED", 600.0)
    commands = listening()
    with redis_calls(cache) as calls, commands.sent() as sent:
        kit.PersistCandleAdapter.write_candles_data(candles(1000), "BTCUSDT", "1m", "binance")
    assert (names(sent), calls) == (["find", "find", "listIndexes", "listIndexes", "createIndexes", "update", "insert"], {})
    with redis_calls(cache) as calls, commands.sent() as sent:
        kit.PersistCandleAdapter.write_candles_data(candles(1000), "BTCUSDT", "1m", "binance")
    assert (names(sent), calls) == (["count"], {})
    for limit, complete in ((1000, True), (1001, False)):
        with redis_calls(cache) as calls, commands.sent() as sent:
            candles_read = kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", limit, 0, limit * MINUTE)
        assert (candles_read is not None) is complete
        assert (names(sent), calls) == (["find", "find", "find"] if complete else ["find", "find"], {})
    with redis_calls(cache) as calls, commands.sent() as sent:
        kit.PersistCandleAdapter.write_candles_data(candles(1000, first=2000), "BTCUSDT", "1m", "binance")
    assert (names(sent), calls) == (["find", "insert"], {})


def test_all_ids_in_redis_on_demand(settings, cache):
    """With CC_REDIS_IDS=all, the ids of candles and list rows are in Redis too, right after first and repeated writes."""
    kit.setup({**settings, "CC_REDIS_IDS": "all"})
    rows = [{"id": f"row{number}", "n": number} for number in range(30)]

    def expect(domain, field, keys):
        ids = {document[field]: str(document["_id"]) for document in kit.get_mongo()[DOMAINS[domain].collection].find()}
        assert {key: cache.get(key.format(name)).decode() for name, key in zip(ids, keys(ids), strict=True)} == {
            key: ids[name] for name, key in zip(ids, keys(ids), strict=True)
        }
        assert len(cache.keys(f"{domain}_cache:*")) == len(ids)

    for cold in (False, True):
        if cold:
            cache.flushall()
        for _, put in LISTS:
            put(rows[:10])
            put(rows)
        expect("storage", "signalId", lambda ids: [f"storage_cache:backtest:{name}" for name in ids])
        expect("notification", "notificationId", lambda ids: [f"notification_cache:backtest:{name}" for name in ids])
        expect("log", "entryId", lambda ids: [f"log_cache:{name}" for name in ids])
    cache.flushall()
    kit.PersistCandleAdapter.write_candles_data(candles(10), "S", "1m", "e")
    kit.PersistCandleAdapter.write_candles_data(candles(30), "S", "1m", "e")
    expect("candle", "timestamp", lambda ids: [f"candle_cache:e:S:1m:{int(stamp)}" for stamp in ids])
    kit.reset_stats()
    assert len(kit.PersistCandleAdapter.read_candles_data("S", "1m", "e", 30, 0, 0)) == 30


# --- direct use ---


def test_id_cache_by_hand(mongo, cache):
    """get, has, delete, keys, size and clear work on the ids of one domain and touch nothing else."""
    ids = kit.PersistSignalAdapter.id_cache
    for symbol in ("A", "B", "C"):
        kit.PersistSignalAdapter.write_signal_data({"of": symbol}, symbol, "s", "e")
    kit.PersistScheduleAdapter.write_schedule_data({}, "A", "s", "e")
    cache.set("signal_cache_of_somebody_else", "x")
    cache.set("other:signal_cache:e:s:A", "x")
    document = kit.get_mongo()["signal-items"].find_one({"symbol": "A"})
    assert ids.get("A", "s", "e") == str(document["_id"])
    assert ids.has("A", "s", "e")
    assert not ids.has("Z", "s", "e")
    assert ids.get("Z", "s", "e") is None
    assert sorted(ids.keys()) == ["signal_cache:e:s:A", "signal_cache:e:s:B", "signal_cache:e:s:C"]
    assert ids.size() == 3
    assert ids.delete("A", "s", "e")
    assert not ids.delete("A", "s", "e")
    assert not ids.has("A", "s", "e")
    kit.reset_stats()
    assert kit.PersistSignalAdapter.read_signal_data("A", "s", "e") == {"of": "A"}
    assert counts(DOMAINS["signal"]) == {"misses": 1, "backfills": 1}
    assert ids.clear() == 3
    assert (ids.size(), list(ids.keys())) == (0, [])
    assert kit.PersistScheduleAdapter.id_cache.size() == 1
    assert cache.exists("signal_cache_of_somebody_else", "other:signal_cache:e:s:A") == 2
    kit.reset_stats()
    assert kit.PersistSignalAdapter.read_many([(symbol, "s", "e") for symbol in "ABC"]) == [{"of": symbol} for symbol in "ABC"]
    assert counts(DOMAINS["signal"]) == {"misses": 3, "backfills": 3}


@pytest.mark.parametrize("domain", KEYED, ids=lambda domain: domain.name)
def test_id_cache_takes_the_arguments_of_the_read(mongo, cache, domain):
    """In every domain the id cache takes the arguments of the single read; a wrong number or type is rejected."""
    write(domain, "a", 1)
    ids = adapter_of(domain).id_cache
    context = context_of(domain, "a")
    assert ids.get(*context) == str(kit.get_mongo()[domain.collection].find_one()["_id"])
    assert list(ids.keys()) == [redis_key_of(domain, "a")]
    with pytest.raises(InvalidTypeError, match=domain.name):
        ids.get(*context, "one more")
    with pytest.raises(InvalidTypeError, match=domain.name):
        ids.delete(*context[:-1], 17)
    with pytest.raises(InvalidValueError, match="NUL"):
        ids.has(*("nul\0" if isinstance(value, str) else value for value in context))
    assert ids.delete(*context)


def test_id_cache_on_a_value_of_the_wrong_type(mongo, cache):
    """If Redis holds a list, ``get`` raises DatabaseError and ``delete`` repairs it."""
    cache.rpush("signal_cache:e:s:A", "x")
    ids = kit.PersistSignalAdapter.id_cache
    assert ids.has("A", "s", "e")
    with pytest.raises(DatabaseError, match="WRONGTYPE"):
        ids.get("A", "s", "e")
    assert ids.delete("A", "s", "e")
    assert ids.get("A", "s", "e") is None


def test_id_cache_of_thousands(mongo, cache):
    """Keys are listed with SCAN and deleted with UNLINK in batches: never KEYS, FLUSHDB or one command per key."""
    kit.PersistSignalAdapter.write_many([({}, *context) for context in signals(5000)])
    ids = kit.PersistSignalAdapter.id_cache
    assert ids.size() == 5000  # the connection is open from here on
    with redis_calls(cache) as calls:
        assert ids.size() == 5000
        assert len(set(ids.keys())) == 5000
        assert ids.clear() == 5000
    assert set(calls) == {"scan", "unlink"}
    assert calls["unlink"] <= 6
    assert calls["scan"] <= 40


def test_drop_cache_touches_only_our_prefixes(mongo, cache):
    """All ids of the library go, other keys stay, and FLUSHDB is not used."""
    for domain in KEYED:
        write(domain, "a", domain.name)
    others = ["signal", "signal_cache", "signal_cachex:1", "xsignal_cache:1", "my_cache:1", "session:1", "SIGNAL_CACHE:1"]
    for key in others:
        cache.set(key, "theirs")
    kit.get_redis().ping()  # the connection is open from here on
    with redis_calls(cache) as calls:
        assert default_registry.mongo.drop_cache() == len(KEYED)
    assert set(calls) == {"scan", "unlink"}
    assert sorted(key.decode() for key in cache.keys("*")) == sorted(others)
    kit.reset_stats()
    for domain in KEYED:
        assert read(domain, "a") == [body_of(domain, domain.name)]
        assert counts(domain) == {"misses": 1, "backfills": 1}


# --- a race, step by step ---


def test_reader_that_backfills_an_old_id(mongo, cache, database):
    """A slow reader may backfill the id of a replaced document: the next reader still gets the new document."""
    domain = DOMAINS["state"]
    write(domain, "a", "old")
    old = cache.get(redis_key_of(domain, "a"))
    database[domain.collection].delete_one(query_of(domain, "a"))
    write(domain, "a", "new")
    cache.set(redis_key_of(domain, "a"), old)
    default_registry.mongo.process_ids.clear()
    assert read(domain, "a") == [{"value": "new"}]
    assert cache.get(redis_key_of(domain, "a")) != old


def test_counts_and_ratio(mongo):
    """Counters in ``stats`` add up: reads are hits plus misses, and the hit ratio is hits divided by reads."""
    domain = DOMAINS["signal"]
    for tag in "abcd":
        write(domain, tag, tag)
    started = time.monotonic()
    read(domain, "a")
    read(domain, *"abcd")
    default_registry.mongo.process_ids.clear()
    read(domain, *"ab")
    read(domain, "none")
    row = kit.stats()["signal"]
    assert (row["reads"], row["hits_process"], row["hits_redis"], row["misses"], row["writes"]) == (8, 5, 2, 1, 4)
    assert row["hit_ratio"] == pytest.approx(7 / 8)
    assert row["operations"]["read_many"]["count"] == 4
    assert 0 < row["operations"]["read_many"]["p50"] < (time.monotonic() - started) * 1e6


# --- no server is queried twice ---


@pytest.mark.once
@pytest.mark.parametrize("wire", ["1", "0"], ids=["wire-on", "wire-off"])
@pytest.mark.parametrize(
    ("where", "finds", "gets"), [("process", 2, 0), ("redis", 2, 1), ("garbage", 1, 1), ("nowhere", 1, 1), ("process alone", 2, 0)]
)
def test_a_wrong_id_costs_each_server_one_question(settings, servers, cache, monkeypatch, wire, where, finds, gets):
    """A wrong id costs one find by id, one find by key, and one GET if the process had no id, on the fast path and the fallback."""
    monkeypatch.setenv("CC_WIRE_LANE", wire)
    kit.setup(settings)
    state = kit.PersistStateAdapter
    state.write_state_data({"n": 1}, "s", "warm", WHEN)
    state.read_state_data("s", "warm")
    kit.get_mongo()["state-items"].insert_one({"signalId": "s", "bucketName": "b", "payload": {"n": 2}, "when": WHEN})
    wrong = ObjectId()
    if where in ("process", "process alone"):
        default_registry.mongo.process_ids.put(DOMAINS["state"], ("s", "b"), wrong.binary)
    if where in ("process", "redis"):
        cache.set("state_cache:s:b", str(wrong))
    if where == "garbage":
        cache.set("state_cache:s:b", "garbage")
    with pymongo.MongoClient(servers.mongo.uri()) as client:
        before = client.admin.command("serverStatus")["opcounters"]["query"]
        with redis_calls(cache) as calls:
            assert state.read_state_data("s", "b") == {"n": 2}
        assert client.admin.command("serverStatus")["opcounters"]["query"] - before == finds
    assert calls.pop("get", 0) == gets
    stale = 0 if where == "nowhere" else 1
    assert counts(DOMAINS["state"]).get("stale", 0) == stale
    assert state.read_state_data("s", "b") == {"n": 2}
    assert cache.get("state_cache:s:b") not in (str(wrong).encode(), b"garbage", None)
