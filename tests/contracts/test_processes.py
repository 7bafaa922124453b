"""Adapters, instances and registries in other processes, on real servers: spawned processes, joblib, a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from urllib.parse import quote

import joblib
import pymongo
import pytest
from argument_mongo import ArgumentMongo
from dask_cluster import local_cluster
from joblib.externals import loky
from worker_tasks import called_elsewhere, clients_of, read, write_then_read, write_then_read_instance

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistSignalAdapter, PersistSignalInstance, Registry
from backtest_kit_mongo.runner import Measure
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = [pytest.mark.once, pytest.mark.server]

WHEN = 1_700_000_000_000
PASSWORD = "S3cret/:@%ü"


@pytest.fixture
def registry(settings):
    """A registry on the servers of the tests; the default one has not been set up."""
    made = Registry()
    made.setup(settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster():
    with local_cluster() as local:
        yield local


@pytest.fixture
def client(cluster):
    """A client of the cluster, with workers that have not called ``setup``."""
    import distributed

    with distributed.Client(cluster, set_as_default=False) as connected:
        connected.run(kit.close)
        yield connected


def assert_written(results, registry):
    """Check the results of ``write_then_read`` for 0, 1, 2, ...: from other processes, and stored for this one to read."""
    for number, (pid, row) in enumerate(results):
        assert pid != os.getpid()
        assert row == {"n": number}
        assert read(registry.PersistSignalAdapter, number) == row


def test_spawned_processes(registry):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        tasks = [(registry.PersistSignalAdapter, number) for number in range(6)]
        assert_written(pool.starmap(write_then_read, tasks), registry)
        shown, row = pool.apply(write_then_read_instance, (registry.PersistSignalInstance("T", "s", "e"),))
        assert shown == "PersistSignalInstance(symbol='T', strategy_name='s', exchange_name='e')"
        assert registry.PersistSignalAdapter.read_signal_data("T", "s", "e") == row == {"n": 1}
        with pytest.raises(kit.NotConfiguredError, match=r"setup\(\) has not been called"):
            pool.apply(write_then_read, (PersistSignalAdapter, 0))


def test_joblib(registry, settings):

    def task(number):  # refers to the registry, so joblib pickles it by value
        return write_then_read(registry.PersistSignalAdapter, number)

    def of_the_default_registry(number, settings=settings):
        kit.setup(settings)  # does nothing from the second call of a process on
        return write_then_read(PersistSignalAdapter, number)

    with joblib.Parallel(n_jobs=2) as parallel:
        assert_written(parallel(joblib.delayed(task)(number) for number in range(6)), registry)
        with pytest.raises(kit.NotConfiguredError, match=r"setup\(\) has not been called"):
            parallel([joblib.delayed(write_then_read)(PersistSignalAdapter, 0)])
        assert_written(parallel(joblib.delayed(of_the_default_registry)(number) for number in range(6)), registry)
    loky.get_reusable_executor().shutdown()  # joblib would keep the processes


def test_dask(client, registry, settings):
    notes, slot = registry.PersistMemoryAdapter, registry.PersistSignalInstance("T", "s", "e")

    def task(number):
        notes.write_memory_data({"n": number}, "signal", "notes", f"m{number}", WHEN)
        return write_then_read(registry.PersistSignalAdapter, number)

    assert_written(client.gather(client.map(task, range(50), pure=False)), registry)
    assert sorted(memory["data"]["n"] for memory in notes.list_memory_data("signal", "notes")) == list(range(50))
    assert client.submit(write_then_read_instance, slot).result()[1] == slot.read_signal_data() == {"n": 1}
    returned = client.submit(lambda: (registry, slot)).result()
    assert returned[0] is registry  # there and back
    assert returned[1].read_signal_data() == {"n": 1}


def test_dask_with_the_default_registry(client, settings):
    """It pickles by name: a worker uses its own, and without ``setup`` there it raises what it raises here."""
    slot = PersistSignalInstance("T", "s", "e")
    for task in (lambda: write_then_read(PersistSignalAdapter, 0), lambda: slot.read_signal_data()):
        with pytest.raises(kit.NotConfiguredError, match=r"setup\(\) has not been called, or the registry is closed\n  hint: call"):
            client.submit(task, pure=False).result()
    client.run(kit.setup, settings)
    kit.setup(settings)
    assert client.submit(lambda: write_then_read(PersistSignalAdapter, 0), pure=False).result()[1] == {"n": 0}
    assert read(PersistSignalAdapter, 0) == {"n": 0}


def test_a_thousand_tasks_share_one_client(registry, settings):
    """Also when they come from different registries with the same settings."""
    write_then_read(registry.PersistSignalAdapter, 0)
    twin = Registry()
    twin.setup(settings)
    contents = [pickle.dumps(registry.PersistSignalAdapter), pickle.dumps(twin.PersistSignalAdapter)] * 500
    twin.close()
    assert called_elsewhere(clients_of, contents) == (1, [{"n": 0}] * 1000)


def test_a_decorated_function_in_a_pickle(settings):
    """Its lock is that of the other process, and what it takes for a missing answer is still that after a pickle by value."""

    @Measure.cached(bucket="opinions")
    def opinion(number):
        return {"n": number}

    def task():
        from backtest_kit_mongo.runner import add_strategy, import_candles, run_backtest, synthetic_market

        answers = []
        kit.setup(settings)

        @add_strategy("asks", interval="15m")
        def get_signal(symbol, when):
            answers.append(opinion(len(answers) % 2))

        import_candles(synthetic_market(seed=1, minutes=60, start_ms=1_677_628_800_000), "MADEUP")
        run_backtest("MADEUP", "asks")
        kit.close()
        return answers

    answers = called_elsewhere(task)
    assert len(answers) >= 3
    assert answers == [{"n": index % 2} for index in range(len(answers))]


def test_passwords_come_from_the_environment_of_the_worker(tmp_path):
    with MongoServer(tmp_path / "mongo") as server, pymongo.MongoClient(server.uri()) as client:
        client.admin.command("createUser", "trader", pwd=PASSWORD, roles=["readWriteAnyDatabase"])
    with ArgumentMongo(tmp_path / "mongo", "--auth") as mongo, RedisServer(tmp_path / "redis", password=PASSWORD) as cache:
        uri = f"mongodb://trader:{quote(PASSWORD, safe='')}@{quote(mongo.socket, safe='')}/secrets?authSource=admin"
        passwords = {"CC_MONGO_CONNECTION_STRING": uri, "CC_REDIS_PASSWORD": PASSWORD}
        registry = Registry()
        registry.setup(passwords, CC_REDIS_HOST=cache.socket, CC_REDIS_TIMEOUT_MS=60_000)
        registry.wait_for_init(60)
        assert called_elsewhere(write_then_read, registry.PersistSignalAdapter, 1, environ=passwords)[1] == {"n": 1}
        assert read(registry.PersistSignalAdapter, 1) == {"n": 1}
        assert registry.PersistSignalAdapter.id_cache.size() == 1  # the worker logged in to Redis too
        with pytest.raises(kit.NotConfiguredError, match="CC_REDIS_PASSWORD is not set here"):
            called_elsewhere(read, registry.PersistSignalAdapter, 1, environ={"CC_MONGO_CONNECTION_STRING": uri})
        registry.close()


def test_embedded_servers_are_those_of_the_first_process(tmp_path):
    registry = Registry()
    registry.setup(embedded=True, CC_EMBEDDED_DIR=str(tmp_path / "data"))
    assert pickle.loads(pickle.dumps(registry)) is registry
    assert called_elsewhere(write_then_read, registry.PersistSignalAdapter, 1)[1] == {"n": 1}
    assert read(registry.PersistSignalAdapter, 1) == {"n": 1}
    adapter = pickle.dumps(registry.PersistStateAdapter)
    registry.close()
    with pytest.raises(kit.ServerUnavailableError):
        called_elsewhere(lambda content: pickle.loads(content).read_state_data("s", "b"), adapter)
