"""Servers that die, hang, reject commands or lose replies, and what the library guarantees. Each test starts its own servers."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from urllib.parse import quote

import pymongo
import pymongo.monitoring
import pytest
import redis
from connection_strings import with_options
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError, ConfigError, DatabaseError, ServerTimeoutError, ServerUnavailableError
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = pytest.mark.server

WHEN = 1_700_000_000_000
MINUTE = 60_000
SOON = 15
"""Seconds that are long for the busiest machine, and short against each time-out that a test does not expect: those are a minute."""
FAR = 60_000


class TestableMongo(MongoServer):
    """A mongod that accepts ``failCommand``."""

    __test__ = False

    def _arguments(self):
        return [*super()._arguments(), "--setParameter", "enableTestCommands=1"]


@pytest.fixture
def cache(tmp_path):
    """A redis-server that the test may break."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


@pytest.fixture
def base(tmp_path, settings):
    """A mongod that the test may break."""
    server = MongoServer(tmp_path / "mongo").start()
    yield server
    kit.close()
    server.stop()


@pytest.fixture(scope="module")
def testable(tmp_path_factory):
    """One mongod with fail points for all tests that use them."""
    with TestableMongo(tmp_path_factory.mktemp("testable")) as server:
        yield server


@pytest.fixture
def failing(testable, settings):
    """Set the library up on that mongod and yield a function that makes commands fail there."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": testable.uri("faults")})
    with pymongo.MongoClient(testable.uri()) as client:
        client.drop_database("faults")

        def fail(commands, times=1, **how):
            data = {"failCommands": commands, "appName": "backtest-kit-mongo", **(how or {"closeConnection": True})}
            mode = times if isinstance(times, str) else {"times": times}
            client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})

        yield fail
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
        kit.close()


@pytest.fixture
def lines(caplog):
    """Return what the library has logged: (level, text) each."""
    caplog.set_level(logging.INFO, "backtest_kit_mongo")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "backtest_kit_mongo"]


def levels(lines):
    return [level for level, _ in lines()]


@contextlib.contextmanager
def within(seconds=SOON):
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def uri(server, database, milliseconds, options="serverSelectionTimeoutMS={0}&connectTimeoutMS={1}&socketTimeoutMS={1}"):
    """Build a connection string with a time-out for a missing server and a longer one for a busy server."""
    return f"{server.uri(database)}{'&' if server.replica_set else '?'}{options.format(milliseconds, FAR)}"


def candles(n, price=100.0):
    return [
        {"timestamp": index * MINUTE, "open": price, "high": price + 1, "low": price - 1, "close": price, "volume": float(index)}
        for index in range(n)
    ]


def hits_from_redis(symbol="hit"):
    """Return whether ids come from Redis now: the second read without an id in the process must find it there."""
    for _ in range(2):
        default_registry.mongo.process_ids.clear()
        before = kit.stats()["signal"]["hits_redis"]
        assert kit.PersistSignalAdapter.read_signal_data(symbol, "s", "e") == {"of": symbol}
    return kit.stats()["signal"]["hits_redis"] > before


def everything_works(tag):
    """Make every kind of call and check the result."""
    kit.PersistSignalAdapter.write_signal_data({"of": "hit"}, "hit", "s", "e")
    kit.PersistSignalAdapter.write_signal_data({"of": tag}, tag, "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data(tag, "s", "e") == {"of": tag}
    default_registry.mongo.process_ids.clear()
    assert kit.PersistSignalAdapter.read_signal_data(tag, "s", "e") == {"of": tag}
    assert kit.PersistSignalAdapter.read_signal_data("none", "s", "e") is None
    rows = [({"n": number}, f"{tag}{number}", "bucket", WHEN) for number in range(20)]
    kit.PersistStateAdapter.write_many(rows)
    default_registry.mongo.process_ids.clear()
    assert kit.PersistStateAdapter.read_many([row[1:3] for row in rows]) == [row[0] for row in rows]
    kit.PersistMemoryAdapter.write_memory_data({"n": 1}, tag, "bucket", "m", WHEN)
    assert kit.PersistMemoryAdapter.has_memory_data(tag, "bucket", "m")
    kit.PersistMemoryAdapter.remove_memory_data(tag, "bucket", "m")
    assert not kit.PersistMemoryAdapter.has_memory_data(tag, "bucket", "m")
    kit.PersistMeasureAdapter.write_measure_data({"n": 1}, tag, "key", WHEN)
    assert list(kit.PersistMeasureAdapter.list_measure_data(tag)) == ["key"]
    kit.PersistLogAdapter.write_log_data([{"id": f"{tag}1"}, {"id": f"{tag}2"}])
    assert [row["id"] for row in kit.PersistLogAdapter.read_log_data(limit=2)] == [f"{tag}1", f"{tag}2"]
    kit.PersistCandleAdapter.write_candles_data(candles(50), tag, "1m", "e")
    assert len(kit.PersistCandleAdapter.read_candles_data(tag, "1m", "e", 50, 0, 0)) == 50


# --- Redis ---


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_redis_dies_mid_run(settings, cache, lines, end):
    """Reads and writes continue with one WARNING; when Redis is back, one INFO, and hits resume. A second outage is the same."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    kit.wait_for_init()
    everything_works("before")
    assert hits_from_redis()
    assert lines() == []
    for outage in (1, 2):
        getattr(cache, end)()
        with within():
            for number in range(6):
                everything_works(f"during{outage}{number}")
                time.sleep(0.05)  # so that some calls try Redis again while it is away
        assert levels(lines) == ["WARNING", "INFO"] * (outage - 1) + ["WARNING"]
        assert "Redis" in lines()[-1][1]
        cache.start()
        assert wait_for(hits_from_redis)
        everything_works(f"after{outage}")
        assert levels(lines) == ["WARNING", "INFO"] * outage
    assert kit.stats()["signal"]["redis_errors"] >= 2
    assert kit.stats()["signal"]["errors"] == 0


def test_redis_restarts_between_two_calls(settings, cache, lines):
    """A broken connection is replaced without a log message: the next call gets its hit or fills the cache."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    everything_works("before")
    for _ in range(3):
        cache.restart()
        assert hits_from_redis()
    assert lines() == []
    assert kit.stats()["signal"]["redis_errors"] == 0


def test_redis_hangs(settings, cache, lines):
    """A frozen Redis costs a call at most one time-out; a delayed reply is never taken for that of a later call."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": 200})
    everything_works("before")
    cache.pause()
    outages, calls, started = 0, 0, time.monotonic()
    while (took := time.monotonic() - started) < 2 or outages < 3:
        assert took < SOON
        tag = f"S{calls % 7}"
        kit.PersistSignalAdapter.write_signal_data({"of": tag, "n": calls}, tag, "s", "e")
        default_registry.mongo.process_ids.clear()
        assert kit.PersistSignalAdapter.read_signal_data(tag, "s", "e") == {"of": tag, "n": calls}
        before, outages = outages, kit.stats()["signal"]["redis_errors"]
        assert outages - before <= 1
        calls += 1
    assert outages * 0.2 < 0.6 * took + 0.2, "at least half of the time goes into work"
    assert levels(lines) == ["WARNING"]
    cache.resume()
    assert wait_for(hits_from_redis)
    for number in range(7):
        default_registry.mongo.process_ids.clear()
        assert kit.PersistSignalAdapter.read_signal_data(f"S{number}", "s", "e")["of"] == f"S{number}"
    assert levels(lines) == ["WARNING", "INFO"]


def somewhere_dead(tmp_path, servers, cache):
    """Return settings with which no Redis answers, by name."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    return {
        "no socket": {"CC_REDIS_HOST": str(tmp_path / "nobody.sock")},
        "refused": {"CC_REDIS_HOST": "127.0.0.1", "CC_REDIS_PORT": port},
        "silent": {"CC_REDIS_HOST": cache.socket},
        "another server": {"CC_REDIS_HOST": servers.mongo.socket},
        "no host name": {"CC_REDIS_HOST": "redis..internal"},
    }


@pytest.mark.parametrize("where", ["no socket", "refused", "silent", "another server", "no host name"])
def test_redis_dead_from_the_start(settings, servers, cache, tmp_path, lines, where):
    """Without the gate everything works on MongoDB alone, with one WARNING; the gate raises in time and names Redis only."""
    cache.pause()
    kit.setup({**settings, **somewhere_dead(tmp_path, servers, cache)[where], "CC_REDIS_TIMEOUT_MS": 100})
    for number in range(3):
        everything_works(f"dead{number}")
    assert levels(lines) == ["WARNING"]
    with within(), pytest.raises(ServerTimeoutError, match="Redis") as caught:
        kit.wait_for_init(timeout=3)
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, TimeoutError)
    assert "MongoDB does not" not in str(caught.value)
    assert "MongoDB did not" not in str(caught.value)
    everything_works("after")
    # After two of its three seconds the gate logs what it waits for; nothing else is repeated.
    assert [text for _, text in lines()[1:] if "waiting" not in text.lower()] == []
    assert len(lines()) <= 2


def test_gate_keeps_its_time_with_a_long_redis_time_out(settings, cache):
    """The timeout of ``wait_for_init`` holds even if a single cache operation may wait longer."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    cache.pause()
    with within(), pytest.raises(ServerTimeoutError, match="Redis"):
        kit.wait_for_init(timeout=0.5)


def test_gate_waits_for_a_redis_that_comes(settings, tmp_path):
    """The gate waits for a Redis that starts before the timeout."""
    server = RedisServer(tmp_path / "late")
    kit.setup({**settings, "CC_REDIS_HOST": server.socket})
    starter = threading.Timer(0.4, server.start)
    starter.start()
    try:
        with within():
            kit.wait_for_init(timeout=60)
        everything_works("late")
    finally:
        starter.join()
        kit.close()
        server.stop()


def refuse_writes(client, how):
    """Make a healthy Redis reject every SET, and return a function that undoes it."""
    if how == "out of memory":
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        return lambda: client.config_set("maxmemory", 0)
    if how == "read-only replica":
        client.config_set("repl-timeout", 1)
        client.replicaof("127.0.0.1", 1)
        return lambda: client.replicaof("NO", "ONE")
    client.execute_command("ACL", "SETUSER", "default", "-set", "-mset")
    return lambda: client.execute_command("ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize("how", ["out of memory", "read-only replica", "no permission"])
def test_redis_refuses_writes(settings, cache, lines, how):
    """A Redis that reads but cannot write (OOM, READONLY, NOPERM) fails no call: it logs one WARNING, and one INFO at the end."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    everything_works("before")
    with redis.Redis(unix_socket_path=cache.socket) as client:
        undo = refuse_writes(client, how)
        for number in range(4):
            everything_works(f"during{number}")
            time.sleep(0.15)  # a rejection costs nothing, so Redis is tried again soon, by a GET, which succeeds
            default_registry.mongo.process_ids.clear()
            assert kit.PersistSignalAdapter.read_signal_data("hit", "s", "e") == {"of": "hit"}
        assert levels(lines) == ["WARNING"]
        undo()
        client.flushall()
    assert wait_for(hits_from_redis)
    everything_works("after")
    assert levels(lines) == ["WARNING", "INFO"]


def test_redis_password(settings, tmp_path, lines):
    """The right password works; a wrong or missing one logs one WARNING, and the gate names the settings at once."""
    with RedisServer(tmp_path / "locked", password="right one") as server:
        kit.setup({**settings, "CC_REDIS_HOST": server.socket, "CC_REDIS_PASSWORD": "right one", "CC_REDIS_TIMEOUT_MS": FAR})
        kit.wait_for_init(timeout=30)
        everything_works("right")
        assert hits_from_redis()
        assert lines() == []
        for number, given in enumerate(({"CC_REDIS_PASSWORD": "wrong"}, {}, {"CC_REDIS_USER": "nobody", "CC_REDIS_PASSWORD": "right one"})):
            kit.setup({**settings, "CC_REDIS_HOST": server.socket, **given})
            everything_works(f"wrong{number}")
            assert levels(lines) == ["WARNING"] * (number + 1)
            with within(), pytest.raises(DatabaseError, match=r"(?s)Redis rejected the login.*CC_REDIS_PASSWORD"):
                kit.wait_for_init(timeout=60)
        kit.close()


def test_looking_into_the_id_cache_of_a_dead_redis(settings, cache):
    """Direct use of the id cache raises the library's error while Redis is away."""
    kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    kit.PersistSignalAdapter.write_signal_data({}, "S", "s", "e")
    ids = kit.PersistSignalAdapter.id_cache
    assert ids.size() == 1
    cache.kill()
    calls = [
        lambda: ids.get("S", "s", "e"),
        lambda: ids.has("S", "s", "e"),
        lambda: ids.delete("S", "s", "e"),
        lambda: list(ids.keys()),
        ids.size,
        ids.clear,
        default_registry.mongo.drop_cache,
    ]
    for call in calls:
        with within(), pytest.raises(ServerUnavailableError, match="Redis"):
            call()
    cache.start()
    assert [call() for call in calls] == [None, False, False, [], 0, 0, 0]


# --- MongoDB ---


def operations():
    """Return every public kind of call on MongoDB, by name."""
    return {
        "write": lambda: kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e"),
        "write_many": lambda: kit.PersistStateAdapter.write_many([({"n": number}, f"{number}", "b", WHEN) for number in range(50)]),
        "put rows": lambda: kit.PersistStorageAdapter.write_storage_data([{"id": f"{number}"} for number in range(50)], True),
        "put log": lambda: kit.PersistLogAdapter.write_log_data([{"id": f"{number}"} for number in range(50)]),
        "put candles": lambda: kit.PersistCandleAdapter.write_candles_data(candles(50), "S", "1m", "e"),
        "write memory": lambda: kit.PersistMemoryAdapter.write_memory_data({"n": 1}, "s", "b", "m", WHEN),
        "remove": lambda: kit.PersistMemoryAdapter.remove_memory_data("s", "b", "m"),
        "read": lambda: kit.PersistSignalAdapter.read_signal_data("S", "s", "e"),
        "has": lambda: kit.PersistMemoryAdapter.has_memory_data("s", "b", "m"),
        "read_many": lambda: kit.PersistStateAdapter.read_many([(f"{number}", "b") for number in range(50)]),
        "rows": lambda: len(kit.PersistStorageAdapter.read_storage_data(True)),
        "log": lambda: [row["id"] for row in kit.PersistLogAdapter.read_log_data()],
        "candles": lambda: len(kit.PersistCandleAdapter.read_candles_data("S", "1m", "e", 50, 0, 0)),
        "memories": lambda: list(kit.PersistMemoryAdapter.list_memory_data("s", "b")),
    }


ANSWERS = {
    "read": {"n": 1},
    "has": False,
    "read_many": [{"n": number} for number in range(50)],
    "rows": 50,
    "log": [f"{number}" for number in range(50)],
    "candles": 50,
    "memories": [],
}


def all_succeed():
    """Make all calls in order, check each result, and check that the database holds exactly their documents."""
    for name, call in operations().items():
        assert call() == ANSWERS.get(name), name
    counts = {name: kit.get_mongo()[name].count_documents({}) for name in kit.get_mongo().list_collection_names()}
    assert {name: n for name, n in counts.items() if n} == {
        "signal-items": 1, "state-items": 50, "storage-items": 50, "log-items": 50, "candle-items": 50, "candle-archive": 1,
        "memory-items": 1,
    }  # fmt: skip


def test_mongo_killed(settings, base):
    """Every call raises a clear error within the configured time, and succeeds on the same objects when MongoDB is back."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", 200)})
    kit.wait_for_init(timeout=30)
    all_succeed()
    base.kill()
    for name in ("write", "write_many", "put candles", "remove", "read", "read_many", "memories"):
        with within(), pytest.raises(ServerUnavailableError) as caught:
            operations()[name]()
        assert isinstance(caught.value, ConnectionError), name
        assert "MongoDB" in str(caught.value)
        assert len(str(caught.value)) < 1000
    assert kit.stats()["signal"]["errors"] == 2
    base.start()
    kit.wait_for_init(timeout=30)
    all_succeed()


def test_mongo_comes_without_a_gate(settings, base):
    """After failed calls the same context works as soon as MongoDB is up, without a gate or a new setup."""
    base.kill()
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", 200)})
    instance = kit.PersistSignalInstance("S", "s", "e")
    for call in (lambda: instance.write_signal_data({"n": 1}), instance.read_signal_data) * 2:
        with within(), pytest.raises(ServerTimeoutError):
            call()
    base.start()
    kit.set_config({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", 200)})  # the same settings: nothing changes
    assert wait_for(lambda: _succeeds(lambda: instance.write_signal_data({"n": 2})))
    assert instance.read_signal_data() == {"n": 2}


def _succeeds(call):
    try:
        call()
    except ServerUnavailableError:
        return False
    return True


@pytest.mark.parametrize("timeout", [0, 0.3, 5])
def test_gate_with_dead_servers(settings, base, cache, tmp_path, timeout):
    """The gate raises in time, whatever the connection string allows, and names the missing server, or both."""
    nobody = str(tmp_path / "nobody.sock")
    base.kill()
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", FAR), "CC_REDIS_HOST": cache.socket})
    with within(), pytest.raises(ServerTimeoutError, match="MongoDB") as caught:
        kit.wait_for_init(timeout=timeout)
    if timeout >= 5:  # a busy Redis may need some time to answer
        assert "Redis" not in str(caught.value)
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", FAR), "CC_REDIS_HOST": nobody})
    with within(), pytest.raises(ServerTimeoutError, match=r"(?s)MongoDB.*Redis"):
        kit.wait_for_init(timeout=timeout)


def test_gate_with_frozen_servers(settings, base, cache):
    """Servers that accept connections but never answer are named within the timeout of the gate too."""
    for server in (base, cache):
        server.pause()
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", FAR), "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": FAR})
    with within(), pytest.raises(ServerTimeoutError, match=r"(?s)MongoDB.*Redis"):
        kit.wait_for_init(timeout=0.6)


@pytest.mark.parametrize(
    "options",
    # Without timeoutMS, pymongo itself tries three times to open a connection to a server that it believes to be up.
    ["serverSelectionTimeoutMS={0}&connectTimeoutMS={0}&socketTimeoutMS={0}", "timeoutMS={0}"],
    ids=["three time-outs", "timeoutMS"],
)
def test_mongo_hangs(settings, base, options):
    """With MongoDB frozen, the running call ends in the configured time and later ones in bounded time; after a resume all succeed."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": base.uri("t")})
    all_succeed()  # creates the indexes, which may take a busy server longer than the time-out
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", 1500, options)})
    assert wait_for(lambda: _succeeds(all_succeed))
    base.pause()
    with within(), pytest.raises(ServerTimeoutError):
        operations()["write"]()
    for name in ("put candles", "read"):
        with within(), pytest.raises(ServerUnavailableError):
            operations()[name]()
    base.resume()
    assert wait_for(lambda: _succeeds(all_succeed))


def test_close_does_not_wait_for_a_dead_mongo(settings, base):
    """``close``, and so the exit of the process, does not wait for a MongoDB that is gone."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", FAR)})
    all_succeed()
    base.kill()
    with within():
        kit.close()


def test_no_acknowledged_write_is_lost(settings, base):
    """With CC_DURABILITY=journal, no acknowledged write of any kind is lost in 20 SIGKILLs of mongod, each right after a write."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": base.uri("t"), "CC_DURABILITY": "journal"})
    kit.wait_for_init()
    writes = [
        lambda n: kit.PersistSignalAdapter.write_signal_data({"n": n}, f"S{n}", "s", "e"),
        lambda n: kit.PersistStateAdapter.write_many([({"n": n}, f"S{n}", f"{index}", WHEN) for index in range(20)]),
        lambda n: kit.PersistLogAdapter.write_log_data([{"id": f"{n}-{index}"} for index in range(20)]),
        lambda n: kit.PersistCandleAdapter.write_candles_data(candles(20), f"S{n}", "1m", "e"),
        lambda n: kit.PersistMeasureAdapter.remove_measure_data("bucket", f"{n}"),
    ]
    for number in range(20):
        kit.PersistMeasureAdapter.write_measure_data({"n": number}, "bucket", f"{number}", WHEN)
    for number in range(20):
        writes[number % 5](number)
        base.kill()
        base.start()
    lost = []
    for number in range(20):
        match number % 5:
            case 0:
                kept = kit.PersistSignalAdapter.read_signal_data(f"S{number}", "s", "e") == {"n": number}
            case 1:
                kept = kit.PersistStateAdapter.read_many([(f"S{number}", f"{index}") for index in range(20)]) == [{"n": number}] * 20
            case 2:
                kept = {f"{number}-{index}" for index in range(20)} <= {row["id"] for row in kit.PersistLogAdapter.read_log_data()}
            case 3:
                kept = kit.PersistCandleAdapter.read_candles_data(f"S{number}", "1m", "e", 20, 0, 0) is not None
            case _:
                kept = kit.PersistMeasureAdapter.read_measure_data("bucket", f"{number}") is None
        if not kept:
            lost.append(number)
    assert lost == []


def test_nothing_is_half_written(settings, base):
    """With mongod killed during writes, every document is whole, acknowledged ones exist, and the library works after a restart."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri(base, "t", 500), "CC_DURABILITY": "journal"})
    kit.wait_for_init()
    blob = "x" * 20_000
    acknowledged, failed = {}, []

    def write(thread):
        number = 0
        while True:
            number += 1
            try:
                if thread % 2:
                    rows = [{"id": f"{thread}-{index}", "a": number, "blob": blob, "b": number} for index in range(30)]
                    kit.PersistStorageAdapter.write_storage_data(rows, True)
                else:
                    kit.PersistStateAdapter.write_state_data({"a": number, "blob": blob, "b": number}, f"{thread}", "b", WHEN + number)
            except BacktestKitError as error:
                failed.append((thread, number, error))
                return
            acknowledged[thread] = number

    for _ in range(2):
        acknowledged.clear()
        failed.clear()
        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        writing = wait_for(lambda: len(acknowledged) == 4, 60)
        base.kill()
        for thread in threads:
            thread.join()
        assert writing
        assert len(failed) == 4
        assert all(isinstance(error, ConnectionError) for _, _, error in failed)
        base.start()
        kit.wait_for_init(timeout=30)
        for thread, number, _ in failed:
            assert number == acknowledged[thread] + 1
            documents = list(
                kit.get_mongo()["storage-items"].find({"signalId": {"$regex": f"^{thread}-"}})
                if thread % 2
                else kit.get_mongo()["state-items"].find({"signalId": f"{thread}"})
            )
            assert len(documents) == (30 if thread % 2 else 1)
            for document in documents:
                payload = document["payload"]
                assert payload["a"] == payload["b"]
                assert payload["blob"] == blob
                assert payload["a"] in (number - 1, number)
                assert thread % 2 or document["when"] == WHEN + payload["a"]


# --- write concern ---


class Commands(pymongo.monitoring.CommandListener):
    """Record the write commands that pymongo sends, with their write concern."""

    def __init__(self):
        self.concerns = {}

    def started(self, event):
        if event.command.get("update") == "candle-archive":
            return  # the document that comes before those of candles need not be confirmed, since those are
        if event.command_name in ("findAndModify", "update", "insert", "delete"):
            self.concerns.setdefault(event.command_name, []).append(event.command.get("writeConcern"))

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass


@pytest.fixture(scope="module")
def commands():
    listener = Commands()
    pymongo.monitoring.register(listener)
    yield listener
    # There is no public way to unregister, and with a listener no later test of this process would use the wire protocol.
    for kind in pymongo.monitoring._LISTENERS:
        if listener in kind:
            kind.remove(listener)


@pytest.mark.parametrize(
    ("durability", "options", "expected"),
    [
        ("journal", "", {"w": "majority", "j": True, "wtimeout": 11_250}),
        ("journal", "wtimeoutMS=5000", {"w": "majority", "j": True, "wtimeout": 5000}),
        ("journal", "socketTimeoutMS=40000", {"w": "majority", "j": True, "wtimeout": 30_000}),
        ("journal", "w=1&wtimeoutMS=5000", {"w": 1, "wtimeout": 5000, "j": True}),
        ("journal", "w=1&journal=false", {"w": 1, "j": False}),
        ("memory", "", {"w": 1}),
        ("memory", "wtimeoutMS=5000", {"w": 1, "wtimeout": 5000}),
        ("memory", "journal=true", {"w": 1, "j": True}),
        ("memory", "w=majority", {"w": "majority", "wtimeout": 11_250}),
    ],
)
def test_write_concern_of_every_write(settings, servers, commands, durability, options, expected):
    """Every write waits for a majority and the journal, or with ``memory`` for neither; the connection string takes precedence."""
    string = with_options({"CC_MONGO_CONNECTION_STRING": servers.mongo.uri("concerns")}, options)
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": string, "CC_DURABILITY": durability})
    kit.wait_for_init()
    commands.concerns.clear()
    all_succeed()
    assert set(commands.concerns) == {"findAndModify", "update", "insert"}
    for name, concerns in commands.concerns.items():
        assert all(concern == expected for concern in concerns), (name, concerns)
    kit.get_mongo().client.drop_database("concerns")


@pytest.mark.parametrize("durability", ["journal", "memory"])
def test_unacknowledged_writes_are_refused(settings, durability):
    """w=0 cannot guarantee that a write is readable: a ConfigError, before anything is written."""
    string = with_options(settings, "w=0")
    with pytest.raises(ConfigError, match="w=0"):  # noqa: PT012 - at setup or at the first call, as long as nothing is written
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": string, "CC_DURABILITY": durability})
        kit.PersistSignalAdapter.write_signal_data({}, "S", "s", "e")
    with pytest.raises((ConfigError, kit.NotConfiguredError)):
        kit.wait_for_init(timeout=2)
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        assert client.get_default_database().list_collection_names() == []


# --- cut connections ---

COMMANDS = {
    "write": "findAndModify",
    "write_many": "update",
    "put rows": "update",
    "put log": "update",
    "put candles": "insert",
    "write memory": "findAndModify",
    "remove": "update",
    "read": "find",
    "has": "find",
    "read_many": "find",
    "rows": "find",
    "log": "find",
    "candles": "find",
    "memories": "find",
}


def ready(name):
    """Delete what would keep the call from sending its command."""
    if name == "put candles":
        kit.get_mongo()["candle-items"].delete_many({})


def test_a_broken_call_is_sent_again(failing):
    """The caller never notices a connection that breaks during a call (on a standalone server drivers do not retry writes)."""
    all_succeed()
    for name, call in operations().items():
        ready(name)
        failing([COMMANDS[name]])
        assert call() == ANSWERS.get(name), name
    all_succeed()
    assert {row["errors"] for row in kit.stats().values()} == {0}


def test_call_that_breaks_again_and_again(failing, settings, testable):
    """If the connection keeps breaking, the caller gets a clear ConnectionError in time; afterwards the same call succeeds."""
    kit.close()
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": testable.uri("faults") + "?serverSelectionTimeoutMS=2000"})
    all_succeed()
    for name in ("write", "write_many", "put candles", "read", "memories"):
        ready(name)
        failing([COMMANDS[name]], "alwaysOn")
        with within(), pytest.raises(ServerUnavailableError, match="MongoDB"):
            operations()[name]()
        failing([], "off")
        assert operations()[name]() == ANSWERS.get(name), name
    all_succeed()


@pytest.mark.parametrize("name", ["write", "write_many", "put rows", "put candles", "remove"])
def test_refusals_are_not_retried(failing, name):
    """A rejection by the server raises at once: missing rights with a hint, a time limit as a time-out, a write concern as such.

    A call rejected over the wire protocol is repeated once through pymongo, which can interpret the error; there is no third attempt.
    """
    all_succeed()
    times = 2 if kit.get_config().CC_WIRE_LANE else 1
    expected = [
        ({"errorCode": 13}, DatabaseError, "readWrite"),
        ({"errorCode": 50}, ServerTimeoutError, "MongoDB"),
        ({"errorCode": 121}, DatabaseError, "MongoDB"),
        ({"writeConcernError": {"code": 64, "errmsg": "timed out", "errInfo": {"wtimeout": True}}}, ServerTimeoutError, "MongoDB"),
        ({"writeConcernError": {"code": 100, "errmsg": "not enough data-bearing nodes"}}, DatabaseError, "not enough"),
    ]
    for how, error, text in expected:
        ready(name)
        failing([COMMANDS[name]], times, **how)
        with pytest.raises(error, match=text):
            operations()[name]()
        failing([], "off")
    all_succeed()


class ReplyThief:
    """A Unix socket in front of mongod that, once armed, forwards one command of a given name and closes instead of replying."""

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.stolen = 0
        self._wanted = None
        self._sockets = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(20)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def steal(self, command):
        self._wanted = b"\x02" + command.encode() + b"\0"

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.target)
                self._sockets += (client, server)
                thread = threading.Thread(target=self._serve, args=(client, server))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client, server):
        """Forward one command at a time and its reply (a streaming hello sends unrequested replies: they are forwarded too)."""
        with client, server, contextlib.suppress(OSError):
            while message := _message(client):
                thief = self._wanted is not None and self._wanted in message[:64]
                if thief:
                    self._wanted = None
                server.sendall(message)
                while True:
                    reply = _message(server)
                    if thief:
                        self.stolen += 1
                        return
                    client.sendall(reply)
                    if not int.from_bytes(reply[16:20], "little") & 2:  # moreToCome
                        break

    def close(self):
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()


def _message(stream):
    """Read one message of the MongoDB wire protocol; return nothing at the end of the stream."""
    head = stream.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return b""
    return head + stream.recv(int.from_bytes(head, "little") - 4, socket.MSG_WAITALL)


def test_lost_replies(settings, servers, tmp_path):
    """If the server stored a write and its reply was lost, the repeated write changes nothing and raises no duplicate key error."""
    thief = ReplyThief(str(tmp_path / "proxy.sock"), servers.mongo.socket)
    try:
        direct = settings["CC_MONGO_CONNECTION_STRING"]
        database = direct.rpartition("/")[2]
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": f"mongodb://{quote(thief.path, safe='')}/{database}", "CC_REDIS_IDS": "all"})
        kit.wait_for_init()
        for expected, name in enumerate(("write", "write_many", "put rows", "put log", "put candles", "write memory", "remove"), 1):
            thief.steal(COMMANDS[name])
            operations()[name]()
            assert thief.stolen == expected
        with redis.Redis(unix_socket_path=servers.redis.socket) as client:
            ids = {key: client.get(key).decode() for key in client.keys("*")}
        stored = {
            str(document["_id"])
            for name in ("signal", "state", "storage", "log", "candle", "memory")
            for document in kit.get_mongo()[f"{name}-items"].find({}, {"_id": True})
        }
        assert set(ids.values()) <= stored
        all_succeed()
        assert {row["errors"] for row in kit.stats().values()} == {0}
    finally:
        kit.close()
        thief.close()


@pytest.mark.once
def test_a_certificate_that_cannot_be_loaded_is_no_unknown_host(settings, tmp_path):
    file = tmp_path / "authority.pem"
    file.write_text("no certificate")
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": f"mongodb://127.0.0.1:1/db?tls=true&tlsCAFile={file}"})
    with pytest.raises(kit.ConfigError, match="cannot be used"):
        kit.PersistStateAdapter.read_state_data("s", "b")


@pytest.mark.once
def test_a_host_that_the_dns_does_not_know_is_a_connection_error(settings):
    string = "mongodb+srv://trader:hunter2@nowhere.example.invalid/db?connectTimeoutMS=5000"
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": string})
    with pytest.raises(ConnectionError, match="cannot be resolved") as caught:
        kit.PersistStateAdapter.read_state_data("s", "b")
    assert isinstance(caught.value, ServerUnavailableError)
    assert "hunter2" not in f"{caught.value!r}"
