"""If private parts of pymongo or redis-py change, the wire protocol is abandoned with one INFO and calls go through the drivers."""

from __future__ import annotations

import socket
import subprocess
import sys

import dns.rrset
import pytest
from dns.resolver import NoAnswer
from ports import free_port

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.servers import MongoServer
from backtest_kit_mongo.stores.mongo import redis_ids as idcache
from backtest_kit_mongo.stores.mongo.redis_connections import DriverConnection

try:
    from pymongo.synchronous import srv_resolver
except ImportError:  # pymongo 4.9
    from pymongo import srv_resolver

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


@pytest.mark.parametrize("name", ["_get_topology", "_event_listeners"])
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


def test_hosts_from_dns_are_looked_up_before_a_socket_is_borrowed(settings, tmp_path, monkeypatch):
    """With ``mongodb+srv://`` pymongo has no topology before its first call, which need not be ours."""

    def answer(name, kind, **options):
        if kind != "SRV":
            raise NoAnswer
        return dns.rrset.from_text(f"{name}.", 60, "IN", "SRV", f"0 0 {server.port} localhost.cluster.test.")

    def address(host, *options, **more):
        return getaddrinfo("127.0.0.1" if host == "localhost.cluster.test" else host, *options, **more)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(srv_resolver, "_resolve", answer)
    monkeypatch.setattr(socket, "getaddrinfo", address)
    with MongoServer(tmp_path / "mongo", port=free_port()) as server:
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": "mongodb+srv://db.cluster.test/srv?tls=false"})
        assert STATE.read_state_data("s", "b") is None
        use()
        assert default_registry.mongo.connection._wire.usable
        kit.close()
