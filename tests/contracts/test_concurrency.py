"""Many threads, processes and forks on one database: reads return what was written, unique keys stay unique, nothing hangs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import struct
import threading
import time

import pymongo
import pytest
import redis
from prepared import Prepared
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError, NotConfiguredError, ServerUnavailableError
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = pytest.mark.server

WHEN = 1_700_000_000_000
MINUTE = 60_000


@contextlib.contextmanager
def processes(settings, task, count=4, **arguments):
    """Start processes that are set up and wait; ``go`` lets them start together."""
    running = [Prepared("children:main") for _ in range(count)]
    try:
        for number, process in enumerate(running):
            order = {"settings": settings, "task": task, "number": number, "arguments": arguments}
            print(json.dumps(order), file=process.stdin, flush=True)
        for process in running:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield running
    finally:
        for process in running:
            process.kill()
            process.close()


def go(running):
    for process in running:
        print("go", file=process.stdin, flush=True)


def answers(running):
    """Return the answer of each process; one that wrote to stderr or failed fails the test."""
    collected = []
    for process in running:
        line = process.stdout.readline()
        process.stdin.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")
        collected.append(json.loads(line))
    return collected


def run(settings, task, count=4, **arguments):
    with processes(settings, task, count, **arguments) as running:
        go(running)
        return answers(running)


@pytest.fixture
def database(settings):
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        yield client.get_default_database()


def in_threads(works):
    """Run all ``works`` at once; return the errors."""
    errors = []

    def guarded(work):
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the test wants to see every kind of error
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# --- read after write ---


@pytest.mark.parametrize("process_ids", [0, 100_000])
def test_threads_read_what_was_written(settings, servers, process_ids):
    """After a write returned, none of eight threads reads an older value, while Redis is flushed and documents are replaced."""
    kit.setup({**settings, "CC_PROCESS_IDS": process_ids})
    count, problems, stop = 8, [], time.monotonic() + 2
    published = [0] * count
    database = kit.get_mongo()

    def work(number):
        draw, step, least = random.Random(number), 0, [0] * count
        while time.monotonic() < stop:
            step += 1
            if step % 7 == 0:  # like another client: the document gets another _id
                database["state-items"].delete_one({"signalId": "s", "bucketName": f"t{number}"})
                published[number] = 0
            kit.PersistStateAdapter.write_state_data({"n": step}, "s", f"t{number}", WHEN)
            published[number] = step
            own = kit.PersistStateAdapter.read_state_data("s", f"t{number}")
            if own != {"n": step}:
                problems.append((number, step, own))
            other = draw.randrange(count)
            floor = published[other]
            row = kit.PersistStateAdapter.read_state_data("s", f"t{other}")
            # Between its removal and its next write the other's record is absent; a record that exists is never older than published.
            if row is not None and row["n"] < max(floor, least[other]):
                problems.append((number, other, floor, row))
            least[other] = max(least[other], row["n"] if row else 0)

    def flush():
        with redis.Redis(unix_socket_path=servers.redis.socket) as client:
            while time.monotonic() < stop:
                client.flushall()
                time.sleep(0.02)

    assert in_threads([lambda number=number: work(number) for number in range(count)] + [flush]) == []
    assert problems == []
    assert kit.stats()["state"]["writes"] > count
    assert kit.stats()["state"]["errors"] == 0


def test_processes_read_what_was_written(settings, tmp_path):
    """Once one of four processes has published a write, all others read it, in single reads and in batches."""
    board = tmp_path / "board"
    board.write_bytes(struct.pack("<4q", 0, 0, 0, 0))
    reports = run(settings, "published", path=str(board), of=4, seconds=1.5)
    assert [answer["errors"] for answer in reports] == [[]] * 4
    assert all(answer["writes"] > 20 for answer in reports)
    assert sum(answer["stats"]["hits_process"] for answer in reports) > 0


def test_token_goes_round_four_processes(settings):
    """Four processes write one record in turn: each reads exactly what its predecessor wrote."""
    with processes(settings, "ring", rounds=50) as running:
        go(running)
        token = 0
        for _ in range(50):
            for process in running:
                print(token, file=process.stdin, flush=True)
                token = int(process.stdout.readline())
        assert answers(running) == [{"errors": []}] * 4
    assert token == 200


# --- uniqueness ---


def test_two_hundred_first_upserts(settings, database):
    """Four processes with fifty threads each upsert one new key on a new database: one document, no error."""
    reports = run(settings, "first_upserts", threads=50, keys=4)
    assert reports == [{"errors": []}] * 4
    assert database["signal-items"].count_documents({}) == 4
    assert database["signal-items"].index_information()["symbol_1_strategyName_1_exchangeName_1"]["unique"]


def test_two_hundred_first_upserts_from_threads(mongo):
    """The same holds for 200 threads of one process, with single and batch writes of one set of keys."""
    barrier = threading.Barrier(200)

    def work(number):
        barrier.wait()
        if number % 4:
            kit.PersistStateAdapter.write_state_data({"by": number}, "s", "0", WHEN)
        else:
            kit.PersistStateAdapter.write_many([({"by": number}, "s", f"{index}", WHEN) for index in range(10)])

    assert in_threads([lambda number=number: work(number) for number in range(200)]) == []
    assert kit.get_mongo()["state-items"].count_documents({}) == 10
    assert kit.stats()["state"]["errors"] == 0


def test_indexes_stand_before_the_first_write_returns(settings, database):
    """Four processes start at once on an empty database: the unique index exists right after the first write of each."""
    domains = ["signal", "memory", "state", "log", "storage", "measure", "candle"]
    reports = run(settings, "first_write", domains=domains)
    assert reports == [{"missing": []}] * 4
    counts = {name: database[f"{name}-items"].count_documents({}) for name in domains}
    assert counts == {"signal": 1, "memory": 4, "state": 20, "log": 5, "storage": 1, "measure": 0, "candle": 1}


def test_four_gates_at_once(settings, database):
    """Four threads, each with its own store, pass the gate of an empty database together."""
    from backtest_kit_mongo.config import load_config
    from backtest_kit_mongo.metrics import Metrics
    from backtest_kit_mongo.stores.mongo.store import MongoStore

    stores = [MongoStore(load_config(settings, {}), Metrics()) for _ in range(4)]
    try:
        assert in_threads([lambda store=store: store.wait_for_init(15) for store in stores]) == []
    finally:
        for store in stores:
            store.close()
    assert len(database.list_collection_names()) == 17


def test_overlapping_candles(settings, database):
    """Four processes write overlapping windows: each candle exists once, complete, from one of them, and without errors."""
    reports = run(settings, "overlapping_candles", rounds=8, total=1200, width=400)
    assert reports == [{"errors": []}] * 4
    documents = list(database["candle-items"].find())
    assert len(documents) == len({document["timestamp"] for document in documents})
    for document in documents:
        assert document["open"] == document["high"] == document["low"] == document["close"]
        assert document["open"] in {100.0, 101.0, 102.0, 103.0}
        assert document["volume"] == document["timestamp"] / MINUTE
    assert len({document["open"] for document in documents}) > 1, "the processes did not meet"


def test_overlapping_rows(mongo):
    """Eight threads write overlapping lists: one document per id, every payload complete, log rows as first written."""

    def work(number):
        rows = [{"id": f"row{index}", "by": number, "again": number} for index in range(100)]
        random.Random(number).shuffle(rows)
        for _ in range(3):
            kit.PersistStorageAdapter.write_storage_data(rows, True)
            kit.PersistLogAdapter.write_log_data(rows)

    assert in_threads([lambda number=number: work(number) for number in range(8)]) == []
    for rows in (kit.PersistStorageAdapter.read_storage_data(True), kit.PersistLogAdapter.read_log_data()):
        assert sorted(row["id"] for row in rows) == sorted(f"row{index}" for index in range(100))
        assert all(row["by"] == row["again"] for row in rows)


# --- forks ---


def test_fork_after_use(settings):
    """A forked child reads and writes on its own connections while the parent continues on its own."""
    (answer,) = run(settings, "fork_after_use", count=1)
    child = answer["child"]
    assert answer["errors"] == []
    assert (child["wrong"], child["before"], child["many"]) == ([], {"of": "parent"}, True)
    assert child["new sockets"] >= 2
    before, after = answer["parent"]
    assert before[1] == after[1], "the parent's connection to Redis is another one now"
    assert set(map(tuple, enumerate(child["identity"]))).isdisjoint(enumerate(before))
    assert answer["after"] == {"n": 99}


def test_fork_and_close(settings):
    """Neither ``close`` in a child nor the end of a child changes the parent's connections."""
    (answer,) = run(settings, "fork_and_close", count=1)
    assert answer["answers"] == [{}, {}, {}]
    assert answer["read"] == {"n": 1}
    assert answer["parent"][0] == answer["parent"][1]


def test_fork_while_threads_are_in_the_middle_of_calls(settings):
    """Twenty forks while four threads work: every child writes and reads, and none hangs on an inherited lock."""
    (answer,) = run(settings, "fork_while_in_use", count=1, forks=20, threads=4)
    assert answer["answers"] == [True] * 20
    assert answer["errors"] == []


def test_fork_during_an_index_build(settings, tmp_path):
    """After a fork while another thread creates indexes on a slow MongoDB, the child's first write does not wait for that thread."""
    marker = tmp_path / "forked"
    with MongoServer(tmp_path / "mongo") as server:
        given = {**settings, "CC_MONGO_CONNECTION_STRING": server.uri("t")}
        with processes(given, "fork_during_the_index_build", count=1, marker=str(marker)) as running:
            go(running)
            assert running[0].stdout.readline() == "frozen?\n"
            server.pause()
            print("yes", file=running[0].stdin, flush=True)
            assert wait_for(marker.exists, 60)
            server.resume()
            assert answers(running) == [{"answer": [["p", {}]]}]


# --- close, short-lived threads, restarts ---


def test_close_while_threads_work(settings):
    """After ``close`` in one thread, the others finish or get errors of this library."""
    for _ in range(5):
        kit.setup(settings)
        kit.PersistStateAdapter.write_state_data({}, "s", "warm", WHEN)
        seen, surprises = [], []
        barrier = threading.Barrier(9)

        def work(number, seen=seen, surprises=surprises, barrier=barrier):
            barrier.wait()
            step = 0
            while True:
                step += 1
                try:
                    kit.PersistStateAdapter.write_state_data({"n": step}, "s", f"{number}", WHEN)
                    default_registry.mongo.process_ids.clear()
                    row = kit.PersistStateAdapter.read_state_data("s", f"{number}")
                    list(kit.PersistMeasureAdapter.list_measure_data("bucket"))
                    if row != {"n": step}:
                        surprises.append((number, step, row))
                except NotConfiguredError:
                    return
                except BacktestKitError as problem:
                    seen.append(problem)
                except Exception as problem:  # noqa: BLE001 - must not occur
                    surprises.append(problem)
                    return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        barrier.wait()
        time.sleep(0.15)
        kit.close()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert surprises == []
        assert all(isinstance(error, ServerUnavailableError) for error in seen), seen


def test_close_leaves_no_connection(tmp_path, settings):
    """After ``close`` in the middle of work and the end of the threads, neither server has a connection left."""
    with MongoServer(tmp_path / "mongo") as server, RedisServer(tmp_path / "redis") as cache:
        given = {**settings, "CC_MONGO_CONNECTION_STRING": server.uri("t"), "CC_REDIS_HOST": cache.socket}
        with pymongo.MongoClient(server.uri()) as mongo, redis.Redis(unix_socket_path=cache.socket) as client:

            def connections():
                return mongo.admin.command("serverStatus")["connections"]["current"], client.info("clients")["connected_clients"]

            kit.setup(given)
            kit.PersistStateAdapter.write_state_data({}, "s", "warm", WHEN)
            kit.close()
            time.sleep(0.3)
            idle = connections()
            for _ in range(4):
                kit.setup(given)

                def work(number):
                    with contextlib.suppress(BacktestKitError):
                        while True:
                            kit.PersistStateAdapter.write_state_data({}, "s", f"{number}", WHEN)
                            default_registry.mongo.process_ids.clear()
                            kit.PersistStateAdapter.read_state_data("s", f"{number}")

                threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
                for thread in threads:
                    thread.start()
                time.sleep(0.1)
                kit.close()
                for thread in threads:
                    thread.join()
            assert wait_for(lambda: connections() <= idle), connections()


def test_threads_that_come_and_go(mongo, servers):
    """Three hundred short-lived threads leave no connections behind."""
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        before = client.info("clients")["connected_clients"]
        for batch in range(30):
            works = [
                lambda number=number, batch=batch: kit.PersistStateAdapter.write_state_data({"n": batch}, "s", f"{number}", WHEN)
                for number in range(10)
            ]
            assert in_threads(works) == []
        assert wait_for(lambda: client.info("clients")["connected_clients"] <= before + 12, 30), client.info("clients")
    assert kit.PersistStateAdapter.read_many([("s", f"{number}") for number in range(10)]) == [{"n": 29}] * 10


def test_redis_restarts_under_threads(settings, tmp_path, caplog):
    """Eight threads survive five restarts and crashes of Redis: only correct results, two log lines per outage, hits at the end."""
    caplog.set_level(logging.INFO, "backtest_kit_mongo")
    with RedisServer(tmp_path / "redis") as cache:
        kit.setup({**settings, "CC_REDIS_HOST": cache.socket, "CC_REDIS_TIMEOUT_MS": 60_000})
        stop, problems = threading.Event(), []

        def levels():
            return [record.levelname for record in caplog.records if record.name == "backtest_kit_mongo"]

        def work(number):
            step = 0
            while not stop.is_set():
                step += 1
                kit.PersistStateAdapter.write_state_data({"n": step}, "s", f"{number}", WHEN)
                default_registry.mongo.process_ids.clear()
                row = kit.PersistStateAdapter.read_state_data("s", f"{number}")
                rows = kit.PersistStateAdapter.read_many([("s", f"{number}"), ("s", "never")])
                if row != {"n": step} or rows != [{"n": step}, None]:
                    problems.append((number, step, row, rows))

        def guarded(number):
            problems.extend(in_threads([lambda: work(number)]))

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        try:
            for outage in range(5):
                time.sleep(0.2)
                (cache.kill if outage % 2 else cache.stop)()
                assert wait_for(lambda: levels()[-1:] == ["WARNING"], 60)
                time.sleep(0.2)
                cache.start()
                assert wait_for(lambda: levels()[-1:] == ["INFO"], 60)
            kit.reset_stats()
            assert wait_for(lambda: kit.stats()["state"]["hits_redis"], 60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert problems == []
        assert kit.stats()["state"]["redis_errors"] == 0
        assert levels() == ["WARNING", "INFO"] * 5
        kit.close()


def test_fork_while_another_thread_changes_the_settings():
    """A lock that another thread of the parent held at the fork does not block setup() and close() in the child."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with default_registry._lock:
            held.set()
            done.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        child = os.fork()
        if child == 0:
            os._exit(0 if default_registry._lock.acquire(timeout=60) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
