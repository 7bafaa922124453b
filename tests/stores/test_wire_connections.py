"""Borrowed connections: what pymongo does with them (passwords, TLS, pools, listeners) also applies on the wire protocol.

Every test runs with and without the wire protocol, on servers of its own where it breaks or configures one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from urllib.parse import quote

import children
import pymongo
import pymongo.monitoring
import pytest
from argument_mongo import ArgumentMongo
from connection_strings import with_options
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError
from test_concurrency import run
from tls import Authority, TlsMongo, TlsProxy
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError, DatabaseError, NotConfiguredError, ServerTimeoutError, ServerUnavailableError
from backtest_kit_mongo.servers import MongoServer
from backtest_kit_mongo.stores.mongo.errors import translated

pytestmark = [pytest.mark.once, pytest.mark.server]

WHEN = 1_700_000_000_000
MINUTE = 60_000


@pytest.fixture(params=["1", "0"], ids=["wire-on", "wire-off"], autouse=True)
def wire(request, monkeypatch):
    """Whether the wire protocol is used, or only the public methods of pymongo and redis-py."""
    monkeypatch.setenv("CC_WIRE_LANE", request.param)
    return request.param == "1"


def begin(settings, uri, **others):
    kit.close()
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri, **others})
    kit.wait_for_init()


def step(tag, number):
    """Make each kind of call that reaches the server by its own path, and check the result."""
    kit.PersistStateAdapter.write_state_data({"n": number}, tag, "one", WHEN)
    assert kit.PersistStateAdapter.read_state_data(tag, "one") == {"n": number}
    default_registry.mongo.process_ids.clear()
    assert kit.PersistStateAdapter.read_state_data(tag, "one") == {"n": number}
    rows = [({"n": number, "i": index}, tag, f"many{index}", WHEN) for index in range(3)]
    kit.PersistStateAdapter.write_many(rows)
    assert kit.PersistStateAdapter.read_many([row[1:3] for row in rows]) == [row[0] for row in rows]


def candles_step(tag):
    rows = [
        {"timestamp": index * MINUTE, "open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": float(index)} for index in range(50)
    ]
    kit.PersistCandleAdapter.write_candles_data(rows, tag, "1m", "e")
    candles_read = kit.PersistCandleAdapter.read_candles_data(tag, "1m", "e", 50, 0, 0)
    assert [row["volume"] for row in candles_read] == [row["volume"] for row in rows]


@contextlib.contextmanager
def threads(count, work):
    """Run ``work(number, stop)`` in threads while the block runs; an error in a thread fails the block."""
    stop, problems = threading.Event(), []

    def guarded(number):
        try:
            work(number, stop)
        except BaseException as error:  # noqa: BLE001 - the test reports every kind of error
            problems.append(repr(error))

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join(60)
    assert not any(thread.is_alive() for thread in running), "a thread hangs"
    assert problems == []


def stepping(number, stop):
    for count in itertools.count(1):  # once at least, however late the thread is scheduled
        step(f"t{number}", count)
        if stop.is_set():
            return


# --- authentication, TLS, compression, replica set ---


def test_authentication(tmp_path, settings):
    """A user with a password works; after a right is revoked the next call fails, and after it is granted again calls work."""
    with ArgumentMongo(tmp_path / "mongo", "--auth") as server:
        root = f"mongodb://root:pw@{quote(server.socket, safe='')}/admin"
        with pymongo.MongoClient(server.uri()) as client:  # a local client may create the first user without a password
            client.admin.command("createUser", "root", pwd="pw", roles=["root"])
        with pymongo.MongoClient(root) as client:
            role = {"role": "readWrite", "db": "locked"}
            client.admin.command("createUser", "user", pwd="p:@ss", roles=[role])
            address = f"@{quote(server.socket, safe='')}/locked?authSource=admin"
            begin(settings, f"mongodb://user:p%3A%40ss{address}")
            step("S", 1)
            candles_step("S")
            with threads(4, stepping):
                time.sleep(0.3)
            client.admin.command("revokeRolesFromUser", "user", roles=[role])
            for call in (lambda: kit.PersistStateAdapter.read_state_data("S", "one"), lambda: step("S", 2)):
                with pytest.raises(DatabaseError, match="readWrite"):
                    call()
            client.admin.command("grantRolesToUser", "user", roles=[role])
            step("S", 3)
            kit.close()
            kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": f"mongodb://user:wrong{address}"})
            for _ in range(2):
                with pytest.raises(DatabaseError, match="authSource"):
                    kit.PersistStateAdapter.read_state_data("S", "one")
        kit.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_mongo(authority, tmp_path_factory):
    with TlsMongo(tmp_path_factory.mktemp("tls"), authority) as server:
        yield server


def test_tls(tls_mongo, settings, wire):
    """Encrypted TCP with a verified certificate works, on the wire protocol too."""
    begin(settings, tls_mongo.tls_uri("tls"))
    assert sum(kit.get_mongo().client.admin.command("serverStatus")["transportSecurity"].values()) > 0
    step("S", 1)
    candles_step("S")
    assert bool(default_registry.mongo.connection._wire.idle) == wire
    text = random.Random(1).randbytes(300_000).hex()  # more than one TLS record, and more than a socket buffer
    kit.PersistStateAdapter.write_state_data({"text": text}, "S", "long", WHEN)
    assert kit.PersistStateAdapter.read_state_data("S", "long") == {"text": text}
    rows = [({"text": text[: index * 1000]}, "S", f"{index}", WHEN) for index in range(500)]  # 125 MB in many messages
    kit.PersistStateAdapter.write_many(rows)
    stored = kit.PersistStateAdapter.read_many([row[1:3] for row in rows])
    assert [len(row["text"]) for row in stored] == [index * 1000 for index in range(500)]
    with threads(8, stepping):
        time.sleep(1)
    with pymongo.MongoClient(tls_mongo.uri()) as client:
        client.drop_database("tls")


def test_tls_after_a_restart(tmp_path, authority, settings):
    with TlsMongo(tmp_path / "mongo", authority) as server:
        begin(settings, server.tls_uri("t"))
        step("S", 1)
        server.restart()
        with contextlib.suppress(ServerUnavailableError):
            step("S", 2)
        step("S", 3)
        kit.close()


def test_a_certificate_that_is_not_known_or_of_another_host_is_refused(tls_mongo, settings):
    trusted = tls_mongo.tls_uri("t", "&serverSelectionTimeoutMS=2000")
    for uri in (
        f"mongodb://localhost:{tls_mongo.port}/t?tls=true&serverSelectionTimeoutMS=2000",
        trusted.replace("localhost", "127.0.0.1"),
    ):
        kit.close()
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri})
        with pytest.raises(ServerTimeoutError, match=r"certificate verify failed.*\n  hint: tlsCAFile=FILE"):
            kit.PersistStateAdapter.read_state_data("S", "one")


def test_an_address_that_atlas_does_not_let_in_is_told_of_the_list():
    refused = ServerSelectionTimeoutError(
        "SSL handshake failed: a.mongodb.net:27017: [SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error"
    )
    assert "IP access list" in str(translated(refused))


@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_tls_that_breaks(tls_mongo, authority, settings, fault):
    """A broken connection is replaced and the call sent again; a silent one times out, and its delayed reply reaches no later call."""
    with TlsProxy(tls_mongo.socket, authority) as proxy:
        begin(settings, tls_mongo.tls_uri("broken", "&socketTimeoutMS=2000", port=proxy.port))
        step("S", 1)
        for number in range(3):
            if fault == "cut":
                proxy.cut()
            else:
                proxy.hold()
                with pytest.raises(ServerTimeoutError):
                    kit.PersistStateAdapter.read_state_data("S", "one")
                proxy.release()
            step("S", number)
            assert kit.PersistStateAdapter.read_state_data("S", "none") is None
        kit.close()


def test_compression(settings):
    """Messages are compressed if the connection string asks for it."""
    begin(settings, with_options(settings, "compressors=zlib"))
    status = kit.get_mongo().client.admin.command("serverStatus")["network"]["compression"]["zlib"]
    text = "compressible " * 10_000
    kit.PersistStateAdapter.write_state_data({"text": text}, "S", "long", WHEN)
    assert kit.PersistStateAdapter.read_state_data("S", "long") == {"text": text}
    after = kit.get_mongo().client.admin.command("serverStatus")["network"]["compression"]["zlib"]
    assert after["decompressor"]["bytesOut"] - status["decompressor"]["bytesOut"] > len(text), "the write was not compressed"
    assert after["compressor"]["bytesIn"] - status["compressor"]["bytesIn"] > len(text), "the answer was not compressed"
    step("S", 1)
    candles_step("S")
    with threads(8, stepping):
        time.sleep(0.3)


def test_step_down(tmp_path, settings):
    """If the primary steps down and comes back under four threads, no call fails, no write is lost and no result is wrong."""
    with MongoServer(tmp_path / "mongo", replica_set="rs0") as server:
        begin(settings, server.uri("t") + "&serverSelectionTimeoutMS=60000", CC_DURABILITY="journal")
        seen, done = [], [0] * 4

        def work(number, stop):
            count, possible = 0, {None}
            while not stop.is_set():
                count += 1
                try:
                    kit.PersistStateAdapter.write_state_data({"n": count}, "s", f"{number}", WHEN)
                    possible = {count}
                    done[number] += 1
                except BacktestKitError as error:
                    possible.add(count)
                    seen.append(error)
                    time.sleep(0.02)
                try:
                    row = kit.PersistStateAdapter.read_state_data("s", f"{number}")
                except BacktestKitError as error:
                    seen.append(error)
                    continue
                assert (row and row["n"]) in possible, (row, possible)

        with threads(4, work):
            time.sleep(0.3)
            with pymongo.MongoClient(server.uri("admin")) as client:
                elected = client.admin.command("hello")["electionId"]
                with contextlib.suppress(AutoReconnect):
                    client.admin.command({"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": True})

                def elected_anew():
                    hello = client.admin.command("hello")
                    return hello["isWritablePrimary"] and hello["electionId"] != elected

                assert wait_for(elected_anew, 60)
            after = list(done)
            assert wait_for(lambda: all(now > before + 5 for now, before in zip(done, after, strict=True)), 60)
        assert not seen
        assert all(isinstance(error, (ServerUnavailableError, DatabaseError)) for error in seen), seen
        step("S", 1)
        candles_step("S")
        kit.close()


# --- the pool ---


@pytest.mark.parametrize("size", [1, 2, 5])
def test_small_pools(settings, size):
    """Eight threads and the application's own use of the client share a few connections, and all make progress."""
    begin(settings, with_options(settings, f"maxPoolSize={size}&waitQueueTimeoutMS=30000"))
    turns = [0] * 8
    wire = default_registry.mongo.connection._wire
    lent = []

    def work(number, stop):
        items = kit.get_mongo()["mine"]
        items.insert_many([{"of": number, "i": index} for index in range(10)])
        while not stop.is_set():
            turns[number] += 1
            step(f"t{number}", turns[number])
            cursor = items.find({"of": number}, batch_size=3)
            for index, row in enumerate(cursor):
                assert row["i"] == index
                assert kit.PersistStateAdapter.read_state_data(f"t{number}", "one") == {"n": turns[number]}

    with threads(8, work):
        deadline = time.monotonic() + 60
        while len(lent) < 200 or (min(turns) < 2 and time.monotonic() < deadline):
            lent.append(wire._out)
            time.sleep(0.005)
    assert min(turns) > 1, turns
    assert 0 <= max(lent) <= size // 2


@pytest.mark.parametrize("what", ["keeper", "halves"])
def test_no_more_threads(settings, monkeypatch, what):
    """If no thread can be started any more, as at interpreter exit, calls work without one."""
    uri = settings["CC_MONGO_CONNECTION_STRING"]
    begin(settings, uri)
    start, candles = WHEN // MINUTE * MINUTE, kit.PersistCandleAdapter
    prices = {"open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0}
    window = [{"timestamp": start + index * MINUTE, **prices} for index in range(9_000 if what == "halves" else 0)]
    candles.write_candles_data(window, "BTCUSDT", "1m", "binance")
    begin(settings, uri)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if what == "halves":
        assert candles.read_candles_data("BTCUSDT", "1m", "binance", len(window), start, start + len(window) * MINUTE) == window
    for number in range(3):
        kit.PersistStateAdapter.write_state_data({"n": number}, "a", "b", WHEN)
        assert kit.PersistStateAdapter.read_state_data("a", "b") == {"n": number}
    monkeypatch.undo()


def test_an_idle_thread_holds_no_connection(settings):
    """With one connection, a thread that is idle after a read does not keep the others from it."""
    begin(settings, with_options(settings, "maxPoolSize=1&waitQueueTimeoutMS=30000"))
    rested = threading.Event()

    def work(number, stop):
        step("idle", number)
        rested.set()
        stop.wait(60)
        step("idle", number + 1)

    with threads(1, work):
        assert rested.wait(60)
        started = time.monotonic()
        assert kit.get_mongo().command("ping")["ok"] == 1
        step("S", 1)
        assert kit.get_mongo()["state-items"].count_documents({}) == 8
        assert time.monotonic() - started < 15


def test_a_busy_thread_shares_the_connection(settings):
    """With one connection, threads that read with short pauses leave it to the application's own use during the pauses."""
    begin(settings, with_options(settings, "maxPoolSize=1&waitQueueTimeoutMS=30000"))
    step("S", 1)

    def work(number, stop):
        while not stop.is_set():
            for _ in range(20):
                assert kit.PersistStateAdapter.read_state_data("S", "one") == {"n": 1}
            time.sleep(0.005)  # without it pymongo's own pool, which has no queue, starves the others

    with threads(2, work):
        for _ in range(20):
            assert kit.get_mongo().command("ping")["ok"] == 1
            assert kit.PersistStateAdapter.read_state_data("S", "many1") == {"n": 1, "i": 1}


def test_no_connection_in_time(settings):
    """If the application holds the only connection, a call raises after waitQueueTimeoutMS, and works again afterwards."""
    begin(settings, with_options(settings, "maxPoolSize=1&waitQueueTimeoutMS=200"))
    step("S", 1)

    def slow(number, stop):
        with pytest.raises(OperationFailure, match="interrupted"):
            list(kit.get_mongo()["state-items"].find({"$where": "sleep(60000) || true"}))

    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:

        def held():
            running = client.admin.aggregate([{"$currentOp": {}}, {"$match": {"command.filter.$where": {"$exists": True}}}])
            return [operation["opid"] for operation in running]

        with threads(1, slow):
            assert wait_for(held)
            with pytest.raises(ServerUnavailableError):
                kit.PersistStateAdapter.read_state_data("S", "one")
            (operation,) = held()
            client.admin.command("killOp", op=operation)
    step("S", 2)


def test_idle_connections_are_given_back(tmp_path, settings):
    """The connections of eight threads close after maxIdleTimeMS although the threads live on; then all threads work again."""
    with MongoServer(tmp_path / "mongo") as server, pymongo.MongoClient(server.uri()) as client:

        def connections():
            return client.admin.command("serverStatus")["connections"]["current"]

        begin(settings, f"{server.uri('t')}?maxIdleTimeMS=3000")
        barrier, rested = threading.Barrier(8), threading.Barrier(9)

        def work(number, stop):
            for _ in range(20):
                barrier.wait(60)
                step(f"t{number}", 1)
            rested.wait(60)
            stop.wait(120)
            step(f"t{number}", 2)

        with threads(8, work):
            rested.wait(60)
            busy = connections()
            assert busy >= 4
            assert wait_for(lambda: connections() <= busy - 3, 60), (busy, connections())
        kit.close()


def test_restarts_under_threads(tmp_path, settings):
    """If MongoDB restarts or crashes under eight threads, calls raise the library's errors, then succeed; an idle thread sees no error."""
    with MongoServer(tmp_path / "mongo") as server:
        begin(settings, server.uri("t") + "?serverSelectionTimeoutMS=60000", CC_DURABILITY="journal")
        for number in range(2):  # while idle: all connections are dead, and nobody has noticed
            step("S", number)
            server.restart()
            step("S", number + 10)
        done = [0] * 8

        def work(number, stop):
            count = 0
            while not stop.is_set():
                count += 1
                try:
                    step(f"t{number}", count)
                    done[number] += 1
                except BacktestKitError:
                    time.sleep(0.02)

        with threads(8, work):
            for end in (server.kill, server.stop):
                time.sleep(0.2)
                end()
                server.start()
                before = list(done)
                assert wait_for(lambda before=before: all(now > then for now, then in zip(done, before, strict=True)), 60)
        kit.close()


# --- listeners ---


class Commands(pymongo.monitoring.CommandListener):
    """Record what a monitoring tool of the application sees."""

    def __init__(self):
        self.seen = []

    def started(self, event):
        self.seen.append(("started", event.command_name, event.request_id, event.database_name))

    def succeeded(self, event):
        assert event.reply["ok"] == 1
        self.seen.append(("succeeded", event.command_name, event.request_id, event.database_name))

    def failed(self, event):
        self.seen.append(("failed", event.command_name, event.request_id, event.database_name))


@pytest.fixture
def commands():
    listener = Commands()
    pymongo.monitoring.register(listener)
    yield listener
    pymongo.monitoring._LISTENERS.command_listeners.remove(listener)


def test_listeners_see_our_commands(settings, commands):
    """Command listeners see each command of the library once, as a pair of events."""
    begin(settings, settings["CC_MONGO_CONNECTION_STRING"])
    step("S", 1)
    candles_step("S")
    commands.seen.clear()
    kit.PersistStateAdapter.write_state_data({"n": 2}, "S", "one", WHEN)
    assert kit.PersistStateAdapter.read_state_data("S", "one") == {"n": 2}
    default_registry.mongo.process_ids.clear()
    kit.get_redis().flushall()
    assert kit.PersistStateAdapter.read_state_data("S", "one") == {"n": 2}
    kit.PersistStateAdapter.write_many([({"n": 3}, "S", f"many{index}", WHEN) for index in range(3)])
    assert kit.PersistStateAdapter.read_many([("S", f"many{index}") for index in range(3)]) == [{"n": 3}] * 3
    names = [name for kind, name, *_ in commands.seen if kind == "started" and name not in ("listIndexes", "createIndexes")]
    assert names[:4] == ["findAndModify", "find", "find", "update"]
    assert set(names[4:]) == {"find"}
    begun = [(name, number) for kind, name, number, _ in commands.seen if kind == "started"]
    ended = [(name, number) for kind, name, number, _ in commands.seen if kind == "succeeded"]
    assert begun == ended
    assert len(set(begun)) == len(begun)
    assert {database for *_, database in commands.seen} == {settings["CC_MONGO_CONNECTION_STRING"].rpartition("/")[2].partition("?")[0]}


# --- fork ---


@pytest.mark.parametrize(
    ("task", "arguments"), [("fork_after_use", {}), ("fork_and_close", {}), ("fork_while_in_use", {"forks": 6, "threads": 4})]
)
def test_forks(settings, task, arguments):
    """Parent and child continue after a fork, each on its own connections; see children.py."""
    (answer,) = run(settings, task, count=1, **arguments)
    assert not answer.get("errors")
    if task == "fork_after_use":
        assert (answer["child"]["wrong"], answer["child"]["many"]) == ([], True)
        assert set(map(tuple, enumerate(answer["child"]["identity"]))).isdisjoint(enumerate(answer["parent"][0]))
        assert answer["parent"][0][1] == answer["parent"][1][1]
    elif task == "fork_and_close":
        assert (answer["read"], answer["answers"]) == ({"n": 1}, [{}, {}, {}])
        assert answer["parent"][0] == answer["parent"][1]
    else:
        assert answer["answers"] == [True] * 6


def test_a_child_uses_no_socket_of_its_parent(settings):
    """A child with unusable inherited sockets gets right results without a broken connection; its own sockets are new."""
    begin(settings, settings["CC_MONGO_CONNECTION_STRING"])
    with threads(4, stepping):
        time.sleep(0.2)
        step("S", 1)
        inherited = children._sockets()
        assert len(inherited) >= 2

        def child():
            nowhere = os.open("/dev/null", os.O_RDWR)
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}") in inherited:
                        os.dup2(nowhere, int(name))
            kit.reset_stats()
            for number in range(50):
                step("child", number)
            sockets = children._sockets()
            return {"shared": sorted(sockets & inherited), "mine": len(sockets), "stats": kit.stats()["state"]}

        answer = children._in_child(child)
    assert "error" not in answer, answer
    assert answer["shared"] == []
    assert answer["mine"] >= 2
    assert (answer["stats"]["errors"], answer["stats"]["redis_errors"]) == (0, 0)
    step("S", 2)


# --- close, memory ---


def test_close_under_readers(tmp_path, settings):
    """During ``close`` eight threads get a right result or a clear error, and no socket remains; three times over."""
    before = children._sockets()
    for _ in range(3):
        begin(settings, settings["CC_MONGO_CONNECTION_STRING"])
        kit.PersistStateAdapter.write_many([({"n": index}, "s", f"{index}", WHEN) for index in range(8)])

        def work(number, stop):
            while True:
                try:
                    row = kit.PersistStateAdapter.read_state_data("s", f"{number}")
                    many = kit.PersistStateAdapter.read_many([("s", f"{number}"), ("s", "never")])
                except NotConfiguredError:
                    return
                except ServerUnavailableError:
                    continue
                assert (row, many) == ({"n": number}, [{"n": number}, None])

        with threads(8, work):
            assert wait_for(lambda: len(children._sockets() - before) >= 9)
            kit.close()
        assert wait_for(lambda: not children._sockets() - before), children._sockets() - before


def resident():
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow(mongo, wire):
    """With writes and reads, with and without a cached id, memory and open files do not grow."""

    def work(rounds):
        for number in range(rounds):
            key = f"k{number % 100}"
            kit.PersistStateAdapter.write_state_data({"n": number}, "s", key, WHEN)
            assert kit.PersistStateAdapter.read_state_data("s", key) == {"n": number}
            if number % 10 == 0:
                default_registry.mongo.process_ids.clear()
                assert kit.PersistStateAdapter.read_state_data("s", key) == {"n": number}

    rounds = 10_000 if wire else 5_000
    work(2000)
    memory, files = resident(), len(os.listdir("/proc/self/fd"))
    work(rounds)
    assert resident() - memory < (1 if wire else 2) << 20
    assert len(os.listdir("/proc/self/fd")) <= files + 1  # an occasional check of the indexes takes a second connection
