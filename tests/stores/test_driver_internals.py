"""If private parts of pymongo or redis-py change, the wire protocol is abandoned with one INFO and calls go through the drivers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.stores.mongo import redis_ids as idcache
from backtest_kit_mongo.stores.mongo.redis_connections import DriverConnection

pytestmark = [pytest.mark.once, pytest.mark.server]

WHEN = 1_700_000_000_000
STATE = kit.PersistStateAdapter


def use():
    for number in range(3):
        STATE.write_state_data({"n": number}, "s", "b", WHEN)
        default_registry.mongo.process_ids.clear()
        assert STATE.read_state_data("s", "b") == {"n": number}
        assert STATE.read_many([("s", "b"), ("s", "none")]) == [{"n": number}, None]


def test_redis_py_without_a_socket_to_borrow(settings, monkeypatch, caplog):
    caplog.set_level("INFO", "backtest_kit_mongo")
    monkeypatch.setattr(idcache, "hasattr", lambda *_: False, raising=False)
    kit.setup(settings)
    use()
    assert isinstance(default_registry.mongo.redis_ids._take_connection(), DriverConnection)
    said = [record.getMessage() for record in caplog.records if "wire protocol" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the wire protocol cannot be used with redis-py")
    assert kit.stats()["state"]["redis_errors"] == 0


@pytest.mark.parametrize("name", ["_topology", "_event_listeners"])
def test_a_client_of_pymongo_with_other_members(settings, monkeypatch, caplog, name):
    """pymongo still finds the members, but the library does not."""
    caplog.set_level("INFO", "backtest_kit_mongo")
    kit.setup(settings)
    connection = default_registry.mongo.connection
    client = connection.client

    class Changed:
        def __getattr__(self, wanted):
            if wanted == name:
                raise AttributeError(name)
            return getattr(client, wanted)

        def __getitem__(self, database):
            return client[database]

    monkeypatch.setattr(connection, "_client", Changed())
    use()
    assert not connection._wire.usable
    said = [record.getMessage() for record in caplog.records if "wire protocol" in record.getMessage()]
    assert len(said) == 1
    assert f"({name})" in said[0]
    monkeypatch.undo()


def test_pymongo_without_its_deadlines(settings):
    """The module is looked up once, when the core is imported."""
    code = f"""
import importlib.util, logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
import pymongo
import pymongo._csot
TIMEOUT = pymongo._csot.TIMEOUT
del pymongo._csot.TIMEOUT
import backtest_kit_mongo._core.op_msg as op_msg
pymongo._csot.TIMEOUT = TIMEOUT
assert not op_msg.KNOWS_DEADLINES
import backtest_kit_mongo as kit
kit.setup({settings!r})
kit.PersistStateAdapter.write_state_data({{"n": 1}}, "s", "b", {WHEN})
assert kit.PersistStateAdapter.read_state_data("s", "b") == {{"n": 1}}
assert kit.PersistStateAdapter.read_many([("s", "b")]) == [{{"n": 1}}]
kit.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the wire protocol cannot be used with pymongo") == 1
