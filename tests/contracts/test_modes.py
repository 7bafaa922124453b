"""Which store serves which domain: the profiles of the modes, domains that are set individually, and two runs in one process."""

from __future__ import annotations

import json
import threading
import time

import msgspec
import pymongo
import pytest
import redis

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import ConfigError, InvalidTypeError, LookAheadError, NotConfiguredError

T0 = 1_700_000_000_000

# The table of the TypeScript package's docker project, typed by hand.
BACKTEST = {
    "session": "file", "memory": "file", "state": "file", "storage": "memory", "recent": "memory", "notification": "memory", "log": "jsonl",
}  # fmt: skip


def stores_in_use():
    return {name: type(default_registry.store(domain)).__name__ for name, domain in DOMAINS.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CC_DUMP_DIR", str(tmp_path / "dump"))
    return tmp_path / "dump"


@pytest.fixture
def registry():
    """A registry beside the default one."""
    fresh = kit.Registry()
    yield fresh
    fresh.close()


def test_paper_and_live_do_not_meet_unless_asked_to(settings, registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key, row = ("BTCUSDT", "sma", "binance"), {"id": "log"}
    paper, asked = registry, kit.Registry()
    kit.setup(settings, mode="live")
    paper.setup(settings, mode="paper")
    asked.setup(settings, mode="paper", CC_PAPER_DATABASE=kit.get_mongo().name)
    try:
        assert paper.get_mongo().name == f"{kit.get_mongo().name}-paper"
        kit.PersistSignalAdapter.write_signal_data({"id": "live"}, *key)
        assert asked.PersistSignalAdapter.read_signal_data(*key)["id"] == "live"
        assert paper.PersistSignalAdapter.read_signal_data(*key) is None
        paper.PersistSignalAdapter.write_signal_data({"id": "paper"}, *key)
        for one, expected in ((kit, "live"), (paper, "paper"), (kit, "live")):  # they share one Redis
            (default_registry if one is kit else one).mongo.drop_cache()
            assert one.PersistSignalAdapter.read_signal_data(*key)["id"] == expected
        paper.PersistLogAdapter.write_log_data([row])
        assert kit.PersistLogAdapter.read_log_data() == []
        assert (tmp_path / "dump-paper/log/log.jsonl").exists()
        assert asked.get_config().CC_DUMP_DIR == "./dump-paper"
    finally:
        asked.close()
        with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
            client.drop_database(f"{client.get_default_database().name}-paper")


@pytest.mark.parametrize("name", ["a/b", "a b", "a.b", "$a", 'a"', "a\0b", "x" * 64])
def test_paper_database_that_is_no_name(settings, name):
    with pytest.raises(ConfigError, match="CC_PAPER_DATABASE"):
        load_config({"CC_PAPER_DATABASE": name})


@pytest.mark.parametrize(
    ("mode", "stores", "durability", "look_ahead"),
    [
        (None, {}, "journal", "off"),
        ("backtest", BACKTEST, "memory", "hide"),
        ("paper", {"log": "jsonl"}, "journal", "off"),
        ("live", {"log": "jsonl"}, "journal", "off"),
    ],
)
def test_profiles(settings, folder, mode, stores, durability, look_ahead):
    given = {name: value for name, value in settings.items() if name != "CC_DURABILITY"}
    kit.setup(given, mode=mode)
    expected = {name: stores.get(name, "mongo") for name in DOMAINS}
    config = kit.get_config()
    assert (expected, durability, look_ahead) == (config.CC_STORES, config.CC_DURABILITY, config.CC_LOOK_AHEAD)
    classes = {"mongo": "MongoStore", "file": "FileStore", "memory": "MemoryStore", "jsonl": "JsonlStore"}
    assert stores_in_use() == {name: classes[kind] for name, kind in expected.items()}
    kit.wait_for_init()
    assert not folder.exists() or mode is not None
    concern = default_registry.mongo.connection.collection(DOMAINS["signal"]).write_concern.document
    assert concern.get("j") == (True if durability == "journal" else None)


def test_every_domain_of_a_profile_works(settings, folder):
    kit.setup(settings, mode="backtest")
    kit.PersistStateAdapter.write_state_data({"n": 1}, "sig", "one", T0)
    kit.PersistLogAdapter.write_log_data([{"id": "1", "topic": "start"}])
    kit.PersistStorageAdapter.write_storage_data([{"id": "1"}], True)
    kit.PersistSignalAdapter.write_signal_data({"id": "1"}, "S", "s", "e")
    assert kit.PersistStateAdapter.read_state_data("sig", "one") == {"n": 1}
    assert kit.PersistLogAdapter.read_log_data() == [{"id": "1", "topic": "start"}]
    assert kit.PersistStorageAdapter.read_storage_data(True) == [{"id": "1"}]
    assert json.loads((folder / "state/sig/one/one.json").read_text()) == {"n": 1}
    assert json.loads((folder / "log/log.jsonl").read_text()) == {"id": "1", "topic": "start"}
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        database = client.get_default_database()
        assert database["signal-items"].count_documents({}) == 1
        assert not [name for name in ("state-items", "log-items", "storage-items") if database[name].count_documents({})]


def test_single_domains(settings, folder, monkeypatch):
    monkeypatch.setenv("CC_STORES", " risk = memory, partial=dummy ")
    kit.setup(settings, mode="backtest", stores={"log": "mongo", "risk": "file"}, look_ahead="raise")
    expected = dict.fromkeys(DOMAINS, "mongo") | BACKTEST | {"log": "mongo", "risk": "file", "partial": "dummy"}
    assert expected == kit.get_config().CC_STORES
    kit.PersistStateAdapter.write_state_data({"n": 1}, "sig", "one", T0)
    with kit.simulated_time(T0 - 1), pytest.raises(LookAheadError):
        kit.PersistStateAdapter.read_state_data("sig", "one")


def test_without_a_domain_on_mongodb_no_server_is_contacted(tmp_path):
    kit.close()
    nowhere = {"CC_MONGO_CONNECTION_STRING": "mongodb://127.0.0.1:1/x", "CC_REDIS_HOST": str(tmp_path / "none.sock")}
    kit.setup(nowhere, stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=tmp_path / "dump")
    kit.wait_for_init(0.5)
    kit.PersistSignalAdapter.write_signal_data({"id": "1"}, "S", "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"id": "1"}
    assert default_registry.mongo.connection._client is None
    kit.close()
    for domain in DOMAINS.values():
        default_registry.adapter(domain.name).use_mongo()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"CC_STORES": {"signals": "file"}}, "CC_STORES: unknown domain 'signals'\n  hint: did you mean signal"),
        ({"CC_STORES": {"signal": "disk"}}, "CC_STORES: the store of signal must be one of mongo, file, memory, jsonl, dummy, not 'disk'"),
        ({"CC_STORES": {"signal": "jsonl"}}, "jsonl stores only log, not signal\n  hint: signal=file"),
        ({"CC_STORES": "signal"}, "signal must be one of"),
        ({"CC_STORES": 5}, "CC_STORES must be a mapping"),
        ({"CC_STORES": {5: "file"}}, "unknown domain 5"),
        ({"CC_MODE": "walker"}, "CC_MODE is 'walker'; it must be 'backtest', 'live' or 'paper'"),
        ({"CC_MODE": "bactest"}, "CC_MODE is 'bactest'; it must be 'backtest', 'live' or 'paper'\n  hint: did you mean 'backtest'?"),
        ({"CC_LOOK_AHEAD": "warn"}, "CC_LOOK_AHEAD is 'warn'; it must be 'off', 'hide' or 'raise'"),
        ({"CC_HISTORY": "state,sessions"}, "CC_HISTORY: unknown domain 'sessions'\n  hint: did you mean session"),
        ({"CC_HISTORY": [["state"]]}, "CC_HISTORY: unknown domain ['state']"),
        ({"CC_STORES": {"log": ["file"]}}, "log must be one of"),
        ({"CC_DUMP_DIR": "a\0b"}, "CC_DUMP_DIR contains a character"),
        ({"CC_DUMP_DIR": "\ud800"}, "CC_DUMP_DIR contains a character"),
        ({"CC_HISTORY": ["signal"]}, "signal stores no simulation time, so it cannot keep versions\n  hint: domains that can: risk, "),
        ({"CC_HISTORY": {"state": 1}}, "CC_HISTORY must be a list of domains"),
        ({"CC_HISTORY_LIMIT": -1}, "CC_HISTORY_LIMIT must not be negative"),
        ({"CC_LOG_ROTATE_MB": 0}, "CC_LOG_ROTATE_MB must not be less than 1"),
    ],
)
def test_settings_that_cannot_be(settings, text):
    with pytest.raises(ConfigError) as caught:
        load_config(settings, {})
    assert text in str(caught.value)


def test_setup_again_keeps_what_is_in_memory(settings, folder):
    for _ in range(2):
        kit.setup(settings, mode="backtest")
        kit.PersistRecentAdapter.write_recent_data({"n": 1}, "S", "s", "e", "f", True, T0)
    kit.setup(settings, mode="backtest")
    assert kit.PersistRecentAdapter.read_recent_data("S", "s", "e", "f", True) == {"n": 1}
    kit.setup(settings, mode="backtest", look_ahead="off")  # other settings start empty
    assert kit.PersistRecentAdapter.read_recent_data("S", "s", "e", "f", True) is None


def test_adapters_choose_alone(settings, folder):
    kit.setup(settings)
    state, log = kit.PersistStateAdapter, kit.PersistLogAdapter
    state.use_json()
    log.use_jsonl()
    state.write_state_data({"n": 1}, "sig", "one", T0)
    log.write_log_data([{"id": "1"}])
    assert (folder / "state/sig/one/one.json").exists()
    assert (folder / "log/log.jsonl").exists()
    assert "FileStore" in repr(state)
    assert not hasattr(state, "use_jsonl")
    state.use_mongo()
    assert state.read_state_data("sig", "one") is None


def test_set_config_keeps_the_mode(settings, folder):
    kit.setup(settings, mode="backtest", history=["state"])
    before = kit.get_config()
    kit.PersistStateAdapter.write_state_data({"n": 1}, "sig", "one", T0)
    kit.set_config(settings, CC_LOG_ROTATE_MB=32)
    after = kit.get_config()
    assert after.CC_LOG_ROTATE_MB == 32
    for name in ("CC_MODE", "CC_STORES", "CC_DURABILITY", "CC_LOOK_AHEAD", "CC_HISTORY"):
        assert getattr(after, name) == getattr(before, name), name
    with kit.simulated_time(T0 - 1):
        assert kit.PersistStateAdapter.read_state_data("sig", "one") is None
    with pytest.raises(ConfigError, match="the history of stores in use cannot be changed"):
        kit.set_config(settings, CC_HISTORY="session")
    kit.set_config(settings, CC_MODE="live", CC_HISTORY="state")
    assert kit.get_config().CC_LOOK_AHEAD == "off"


def test_the_settings_in_force_say_what_they_came_to(settings):
    assert kit.get_config().write_concern is None
    kit.setup(settings, CC_DURABILITY="journal", mode="live")
    assert (kit.get_config().topology, kit.get_config().write_concern) == (None, None)
    kit.wait_for_init()
    config = kit.get_config()
    assert config.topology == ("replica set rs0" if "directConnection" in config.CC_MONGO_CONNECTION_STRING else "standalone")
    assert (config.write_concern["w"], config.write_concern["j"], config.read_concern) == ("majority", True, {})
    assert f"topology={config.topology!r}" in repr(config)
    kit.setup(msgspec.structs.asdict(config))
    assert kit.get_config() == config


def test_close_ends_the_settings(settings, folder):
    """What the closed settings hid is no longer hidden."""
    kit.setup(settings, stores={"session": "memory"}, look_ahead="hide")
    kit.PersistStateAdapter.use_memory()
    kit.PersistStateAdapter.write_state_data({"n": 1}, "sig", "one", T0)
    kit.close()
    with pytest.raises(NotConfiguredError):  # a store that the settings created ends with them, one chosen by hand does not
        kit.PersistSessionAdapter.read_session_data("s", "e", "f", "S", True)
    with kit.simulated_time(T0 - 1):
        assert kit.PersistStateAdapter.read_state_data("sig", "one") == {"n": 1}


# --- two runs in one process ---


def test_live_beside_backtest(settings, servers, registry, tmp_path):
    """Each run has its own stores, durability, guard and counters, and does not see what the other does."""
    kit.setup(settings, mode="live", CC_DUMP_DIR=tmp_path / "live")
    other = {**settings, "CC_MONGO_CONNECTION_STRING": servers.mongo.uri("beside"), "CC_DUMP_DIR": tmp_path / "backtest"}
    registry.setup(other, mode="backtest")
    registry.wait_for_init()
    for mine, name in ((kit, "live"), (registry, "backtest")):
        mine.PersistSignalAdapter.write_signal_data({"of": name}, "S", "s", "e")
        mine.PersistStateAdapter.write_state_data({"of": name}, "sig", "one", T0)
        mine.PersistLogAdapter.write_log_data([{"id": "1", "of": name}])
        mine.PersistRecentAdapter.write_recent_data({"of": name}, "S", "s", "e", "f", True, T0)
    for mine, name in ((kit, "live"), (registry, "backtest")):
        assert mine.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"of": name}
        assert mine.PersistSignalInstance("S", "s", "e").read_signal_data() == {"of": name}
        assert mine.PersistStateAdapter.read_state_data("sig", "one") == {"of": name}
        assert mine.PersistLogAdapter.read_log_data() == [{"id": "1", "of": name}]
        assert mine.PersistRecentAdapter.read_recent_data("S", "s", "e", "f", True) == {"of": name}
        assert mine.stats()["signal"]["reads"] == 2
        assert name == mine.get_config().CC_MODE
    with kit.profile(registry) as report:
        registry.PersistSignalAdapter.read_signal_data("S", "s", "e")
        kit.PersistSignalAdapter.read_many([("S", "s", "e")] * 3)
    assert report.domains["signal"]["reads"] == 1
    with kit.simulated_time(T0 - 1):
        assert kit.PersistStateAdapter.read_state_data("sig", "one") == {"of": "live"}
        assert registry.PersistStateAdapter.read_state_data("sig", "one") is None
    registry.get_mongo().client.drop_database(registry.get_mongo().name)
    registry.close()
    with pytest.raises(NotConfiguredError):
        registry.PersistSignalAdapter.read_signal_data("S", "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"of": "live"}
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        client.flushall()


def test_custom_classes_are_of_their_registry(settings, registry):
    class Mine(registry.PersistStateInstance):
        """The registry's instance class, with a mark."""

        def read_state_data(self, *, type=None):
            return {"mine": super().read_state_data(type=type)}

    kit.setup(settings)
    registry.setup(settings, stores=dict.fromkeys(DOMAINS, "memory"))
    registry.PersistStateAdapter.use_persist_state_adapter(Mine)
    registry.PersistStateAdapter.write_state_data({"n": 1}, "sig", "one", T0)
    assert registry.PersistStateAdapter.read_state_data("sig", "one") == {"mine": {"n": 1}}
    assert kit.PersistStateAdapter.read_state_data("sig", "one") is None
    with pytest.raises(InvalidTypeError, match="only the Mongo store has an id cache"):
        registry.PersistStateAdapter.id_cache  # noqa: B018


def test_many_registries_in_threads(settings):
    """Registries are created, used and closed in parallel, on one database."""
    failures = []

    def work(number):
        own = kit.Registry()
        try:
            for turn in range(3):
                own.setup(settings, stores={"log": "memory"})
                own.PersistStateAdapter.write_state_data({"n": turn}, f"t{number}", "one", T0)
                if own.PersistStateAdapter.read_state_data(f"t{number}", "one") != {"n": turn}:
                    failures.append(number)
                own.close()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_registry_that_is_dropped_leaves_nothing(settings, registry):
    """``close`` ends its connections; another registry can start at once."""
    before = set(threading.enumerate())
    for _ in range(3):
        own = kit.Registry()
        own.setup(settings)
        own.PersistStateAdapter.write_state_data({"n": 1}, "a", "one", T0)
        own.close()
    deadline = time.monotonic() + 60  # pymongo's monitors and the wire protocol's keeper end when they wake up
    while (left := [thread for thread in threading.enumerate() if thread not in before]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_a_call_stays_with_the_store_that_it_began_with(registry, monkeypatch):
    """The store is swapped in the middle of a read: the rest of the read needs the versions of the first store."""
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"), history=["state"])
    states = registry.PersistStateAdapter
    for step in (0, 5):
        states.write_state_data({"n": step}, "s", "b", T0 + step)
    store = registry.binding("state").store
    read = store.read

    def swapped(*arguments):
        stored = read(*arguments)
        registry.use("state", registry.make("dummy", "state"))
        return stored

    monkeypatch.setattr(store, "read", swapped)
    with kit.simulated_time(T0 + 1):
        assert states.read_state_data("s", "b") == {"n": 0}
        assert states.read_state_data("s", "b") is None  # the next call uses the new store


def test_a_binding_never_changes(registry):
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    binding = registry.binding("state")
    with pytest.raises(AttributeError):
        binding.store = None
    registry.PersistStateAdapter.use_memory()
    assert registry.binding("state") is not binding
    assert registry.binding("state").store is not binding.store
