"""Pickles of adapters, instances and registries: what they refer to, and that no password is in them."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from urllib.parse import quote

import cloudpickle
import pytest
from worker_tasks import Sevens, called_elsewhere, read, settings_of, write_then_read

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistSignalAdapter, PersistSignalInstance, Registry, aio
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS

pytestmark = pytest.mark.once

SECRET = "S3cret/:@%ü'"
FORMS = [form for secret in (SECRET, "S3cret") for form in (secret.encode(), quote(secret, safe="").encode())]
MONGO = f"mongodb://trader:{quote(SECRET, safe='')}@db.example.invalid/market?authSource=admin"
SHOWN = "mongodb://trader:***@db.example.invalid/market?authSource=admin"
CERTIFICATE = f"&tls=true&tlsCertificateKeyFilePassword={quote(SECRET, safe='')}"

DUMPS = [
    *(pytest.param(lambda thing, protocol=protocol: pickle.dumps(thing, protocol), id=f"pickle-{protocol}") for protocol in range(6)),
    pytest.param(cloudpickle.dumps, id="cloudpickle"),
]


@pytest.fixture(params=DUMPS)
def through(request):
    """Return a function that sends an object through a pickle."""
    return lambda thing: pickle.loads(request.param(thing))


@pytest.fixture
def registry():
    made = Registry()
    made.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    yield made
    made.close()


def context_of(domain):
    return tuple(name == "backtest" if name == "backtest" else f"the {name}" for name in domain.context)


# --- what a pickle refers to ---


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_every_contract(domain, registry):
    title = f"Persist{domain.name.capitalize()}"
    for owner, adapter in ((kit, adapter_of(domain)), (registry, registry.adapter(domain.name))):
        assert pickle.loads(pickle.dumps(adapter)) is adapter
        instance = getattr(owner, f"{title}Instance")(*context_of(domain))
        again = pickle.loads(pickle.dumps(instance))
        assert type(again) is type(instance)
        assert repr(again) == repr(instance)
    assert pickle.loads(pickle.dumps(getattr(kit, f"{title}Instance"))) is getattr(kit, f"{title}Instance")


def test_the_default_registry_is_a_name(through):
    assert through(default_registry) is default_registry
    assert through(PersistSignalAdapter) is PersistSignalAdapter
    assert through(PersistSignalInstance) is PersistSignalInstance
    assert through(kit.setup) == kit.setup


def test_a_registry_that_is_alive_is_itself(through, registry):
    assert through(registry) is registry
    assert through([registry.PersistSignalAdapter] * 2) == [registry.PersistSignalAdapter] * 2
    registry.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    again = through(registry.PersistSignalInstance("S", "s", "e"))
    assert type(again) is registry.PersistSignalInstance
    assert again.read_signal_data() == {"n": 1}  # even from the memory of this process


def test_two_registries_with_the_same_settings_stay_two(registry):
    other = Registry()
    other.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    assert pickle.loads(pickle.dumps((registry, other))) == (registry, other)
    other.close()


def test_a_pickle_keeps_the_settings_of_its_time(registry, tmp_path):
    """A registry that was closed or set up differently since is not what was pickled; then all such pickles share another one."""
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR=str(tmp_path / "first"))
    registry.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    before = [pickle.dumps(registry), pickle.dumps(registry.PersistSignalAdapter)]
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR=str(tmp_path / "second"))
    loaded, adapter = map(pickle.loads, before)
    assert loaded is not registry
    assert loaded.PersistSignalAdapter is adapter
    assert adapter.read_signal_data("S", "s", "e") == {"n": 1}
    assert registry.PersistSignalAdapter.read_signal_data("S", "s", "e") is None
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR=str(tmp_path / "first"))
    assert pickle.loads(before[0]) is registry  # the same settings again
    loaded.close()


def test_a_closed_one_opens_again(tmp_path):
    registry = Registry()
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR=str(tmp_path))
    content = pickle.dumps(registry)
    registry.close()
    first = pickle.loads(content)
    first.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e")
    first.close()
    second = pickle.loads(content)
    assert second.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    second.setup(stores={"signal": "memory"})  # by the user; not what the pickle says
    assert pickle.loads(content).PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    second.close()
    pickle.loads(content).close()


def test_threads_that_load_the_same_pickle_share_one_registry(tmp_path):
    registry = Registry()
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR=str(tmp_path))
    content = pickle.dumps(registry)
    registry.close()
    barrier, registries = threading.Barrier(8), []

    def load():
        barrier.wait()
        registries.append(pickle.loads(content))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registries) == 8
    assert len(set(map(id, registries))) == 1
    registries[0].close()


def test_copies(registry):
    for clone in (copy.copy, copy.deepcopy):
        assert clone(registry) is registry
        assert clone(default_registry) is default_registry
        assert clone(registry.PersistSignalAdapter) is registry.PersistSignalAdapter
        instance = registry.PersistSignalInstance("S", "s", "e")
        twin = clone(instance)
        assert twin is not instance
        twin.symbol = "T"
        twin.write_signal_data({"n": 1})
        assert registry.PersistSignalAdapter.read_signal_data("T", "s", "e") == {"n": 1}
        assert instance.read_signal_data() is None


# --- what a registry without setup, or a user's own class, becomes ---


def test_without_setup_the_error_is_todays():
    assert_not_configured = pytest.raises(kit.NotConfiguredError, match=r"setup\(\) has not been called")
    with assert_not_configured:
        called_elsewhere(read, PersistSignalAdapter, 0)
    with assert_not_configured:
        called_elsewhere(read, Registry().PersistSignalAdapter, 0)
    with assert_not_configured:
        called_elsewhere(PersistSignalInstance("S", "s", "e").read_signal_data)


def test_memory_starts_empty_elsewhere(registry):
    write_then_read(registry.PersistSignalAdapter, 0)
    assert called_elsewhere(read, registry.PersistSignalAdapter, 0) is None
    pid, row = called_elsewhere(write_then_read, registry.PersistSignalAdapter, 1)
    assert pid != os.getpid()
    assert row == {"n": 1}
    assert read(registry.PersistSignalAdapter, 1) is None


def test_memory_without_setup_needs_none_elsewhere_either():
    registry = Registry()
    registry.PersistSignalAdapter.use_memory()
    assert called_elsewhere(write_then_read, registry.PersistSignalAdapter, 1)[1] == {"n": 1}


def test_files_are_in_the_same_folder_whatever_the_working_directory_is(registry, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    registry.setup(stores={"signal": "file"}, CC_DUMP_DIR="./dump")
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(registry)) is registry
    assert called_elsewhere(write_then_read, registry.PersistSignalAdapter, 1, folder=tmp_path / "elsewhere")[1] == {"n": 1}
    assert read(registry.PersistSignalAdapter, 1) == {"n": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "here"]


class Doubling(PersistSignalInstance):
    """A class of a user, with an attribute of its own."""

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str, factor: int = 2) -> None:
        super().__init__(symbol, strategy_name, exchange_name)
        self.factor = factor

    def read_signal_data(self, *, type=None):
        return {"n": self.factor}

    def write_signal_data(self, row):
        pass


def test_a_class_of_the_user_serves_there_too(registry):
    class Eights(Sevens):  # not importable, so by value
        number = 8

    for cls in (Sevens, Eights):
        registry.PersistSignalAdapter.use_persist_signal_adapter(cls)
        assert called_elsewhere(read, registry.PersistSignalAdapter, 1) == {"n": cls.number}


def test_instances_of_a_class_of_the_user(through):
    again = through(Doubling("S", "s", "e", factor=3))
    assert type(again) is Doubling
    assert (again.symbol, again.factor) == ("S", 3)
    assert again.read_signal_data() == {"n": 3}
    with pytest.raises(kit.NotConfiguredError):
        PersistSignalInstance.read_signal_data(again)


def test_a_store_that_is_not_one_of_the_settings_is_refused(registry):
    class Own(type(registry.binding("signal").store)):
        pass

    registry.use("signal", Own())
    with pytest.raises(kit.InvalidTypeError, match="signal is served by a Own, which cannot be pickled"):
        pickle.dumps(registry.PersistSignalAdapter)


# --- aio ---


def test_awaitable_contracts(through, registry):
    assert through(aio.PersistSignalAdapter).sync is PersistSignalAdapter
    assert type(through(aio.PersistSignalInstance("S", "s", "e"))) is aio.PersistSignalInstance
    face = aio.face(registry)
    assert through(face).sync is registry
    assert through(face.PersistSignalAdapter).sync is registry.PersistSignalAdapter
    assert through(face.PersistSignalInstance("S", "s", "e")).symbol == "S"
    assert copy.deepcopy(face.PersistSignalAdapter).sync is registry.PersistSignalAdapter


def test_awaitable_functions_in_a_cloud_pickle(tmp_path):
    async def main(setup, adapter, folder):
        await setup(stores={"signal": "file"}, CC_DUMP_DIR=folder)
        await adapter.write_signal_data({"n": 1}, "S", "s", "e")
        return await adapter.read_signal_data("S", "s", "e")

    def task(setup, adapter, folder):
        import asyncio

        return asyncio.run(main(setup, adapter, folder))

    assert called_elsewhere(task, aio.setup, aio.PersistSignalAdapter, str(tmp_path)) == {"n": 1}


# --- passwords ---

WITH_PASSWORDS = {
    "mongo": {"CC_MONGO_CONNECTION_STRING": MONGO},
    "certificate": {"CC_MONGO_CONNECTION_STRING": "mongodb://db.example.invalid/market?tls=true" + CERTIFICATE.replace("&tls=true", "")},
    "redis": {"CC_REDIS_PASSWORD": SECRET},
    "redis url": {"CC_REDIS_URL": f"rediss://bot:{quote(SECRET, safe='')}@cache.example.invalid/0"},
    "redis url without a user": {"CC_REDIS_URL": f"redis://:{quote(SECRET, safe='')}@cache.example.invalid"},
    "sentinel": {"CC_REDIS_SENTINEL": f"bot:{quote(SECRET, safe='')}@a.example.invalid:1/ids", "CC_REDIS_PASSWORD": SECRET},
}


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize("settings", WITH_PASSWORDS.values(), ids=WITH_PASSWORDS)
def test_no_password_is_in_a_pickle(settings, dumps):
    registry = Registry()
    registry.setup(settings)
    assert any(form in str(settings).encode() or form.decode() in str(settings) for form in FORMS)
    for thing in (registry, registry.PersistSignalAdapter, registry.PersistSignalInstance("S", "s", "e"), aio.face(registry)):
        content = dumps(thing)
        assert not [form for form in FORMS if form in content]
        assert SECRET.encode("utf-16-le") not in content
    function = cloudpickle.dumps(lambda: registry.PersistSignalAdapter)
    assert not [form for form in FORMS if form in function]
    registry.close()


@pytest.mark.parametrize("settings", [WITH_PASSWORDS[name] for name in ("mongo", "redis", "redis url", "sentinel")])
def test_a_worker_takes_passwords_from_its_environment(settings):
    """The other settings are those of the first process, even where the environment of the worker differs."""
    registry = Registry()
    registry.setup(settings, CC_PROCESS_IDS=7, CC_REDIS_PREFIX="mine:")
    in_worker = called_elsewhere(settings_of, registry.PersistSignalAdapter, environ={**settings, "CC_PROCESS_IDS": "8"})
    assert in_worker | {"CC_DUMP_DIR": ""} == settings_of(registry.PersistSignalAdapter) | {"CC_DUMP_DIR": ""}
    registry.close()


def test_a_worker_without_the_password_says_what_to_set():
    registry = Registry()
    registry.setup(CC_MONGO_CONNECTION_STRING=MONGO, CC_REDIS_PASSWORD=SECRET)
    call = (read, registry.PersistSignalAdapter, 0)
    with pytest.raises(kit.NotConfiguredError, match="comes from another process") as caught:
        called_elsewhere(*call)
    assert "CC_MONGO_CONNECTION_STRING is not set here" in str(caught.value)
    assert f"set CC_MONGO_CONNECTION_STRING in the environment of this process to {SHOWN}, with" in caught.value.hint
    with pytest.raises(kit.NotConfiguredError, match="CC_REDIS_PASSWORD is not set here"):
        called_elsewhere(*call, environ={"CC_MONGO_CONNECTION_STRING": MONGO})
    with pytest.raises(kit.NotConfiguredError, match="comes from another process"):
        called_elsewhere(registry.wait_for_init)
    registry.close()


@pytest.mark.parametrize("other", [("db.example", "db2.example"), ("/market", "/live"), ("trader", "admin"), ("=admin", "=other")])
def test_a_worker_with_another_database_is_refused(other):
    registry = Registry()
    registry.setup(CC_MONGO_CONNECTION_STRING=MONGO)
    with pytest.raises(kit.NotConfiguredError) as caught:
        called_elsewhere(read, registry.PersistSignalAdapter, 0, environ={"CC_MONGO_CONNECTION_STRING": MONGO.replace(*other)})
    assert f"is {SHOWN.replace(*other)} here, but was {SHOWN}" in str(caught.value)
    assert "S3cret" not in str(caught.value)
    registry.close()


def test_a_password_that_is_set_later_is_found(monkeypatch):
    registry = Registry()
    registry.setup(CC_MONGO_CONNECTION_STRING=MONGO)
    content = pickle.dumps(registry)
    registry.close()
    monkeypatch.delenv("CC_MONGO_CONNECTION_STRING", raising=False)
    loaded = pickle.loads(content)
    with pytest.raises(kit.NotConfiguredError, match="comes from another process"):
        loaded.get_mongo()
    monkeypatch.setenv("CC_MONGO_CONNECTION_STRING", MONGO)
    assert pickle.loads(content) is loaded
    assert loaded.get_config().CC_MONGO_CONNECTION_STRING == MONGO
    loaded.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    loaded.close()
    with pytest.raises(kit.NotConfiguredError, match=r"setup\(\) has not been called"):
        loaded.get_mongo()


def test_an_address_without_a_password_needs_nothing_there(monkeypatch):
    registry = Registry()
    registry.setup(CC_MONGO_CONNECTION_STRING="mongodb://trader@db.example.invalid/market?tls=true&authMechanism=MONGODB-X509")
    in_worker = called_elsewhere(settings_of, registry.PersistSignalAdapter)
    assert in_worker["CC_MONGO_CONNECTION_STRING"] == registry.get_config().CC_MONGO_CONNECTION_STRING
    registry.close()
