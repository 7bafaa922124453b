"""Fixtures that tests and benchmarks share: real servers that we start ourselves, and a database of its own for each test.

No server is ever adopted from a default port: it could be somebody's live book.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bson
import hypothesis
import pytest
import redis

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.servers import MongoServer, RedisServer

_numbers = itertools.count()
# `make test-replicaset`: the mongod of the tests is the one member of a replica set, which numbers writes and confirms them by majority.
_REPLICA_SET = os.environ.get("KIT_TEST_REPLICA_SET") or None
_ROOM = 4 << 30  # bytes; three workers with their servers need about one GB


class Servers(NamedTuple):
    """The two servers of a test session."""

    mongo: MongoServer
    redis: RedisServer

    def settings(self, database: str, **others: Any) -> dict[str, Any]:
        """What ``setup`` needs to reach them."""
        return {
            "CC_MONGO_CONNECTION_STRING": self.mongo.uri(database),
            "CC_REDIS_HOST": self.redis.socket,
            # Tests of durability say so themselves. On a replica set ``memory`` is warned of.
            "CC_DURABILITY": "memory" if _REPLICA_SET is None else "journal",
            "CC_REDIS_TIMEOUT_MS": 10_000,  # and so do those of time-outs: a busy machine is no outage
            **others,
        }


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A mongod and a redis-server for the whole session; a test that stops or breaks one starts its own."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with MongoServer(folder / "mongo", replica_set=_REPLICA_SET) as mongo, RedisServer(folder / "redis") as cache:
        yield Servers(mongo, cache)


class Sweeper:
    """Empties the servers between the tests.

    To connect anew for each of them would cost more than the emptying, and a ``MongoClient`` that stays has threads: the tests that
    measure memory would measure theirs.
    """

    def __init__(self, servers: Servers) -> None:
        self._redis = redis.Redis(unix_socket_path=servers.redis.socket)
        self._mongo = socket.socket(socket.AF_UNIX)
        self._mongo.connect(servers.mongo.socket)

    def flush_redis(self) -> None:
        """Drop all keys."""
        self._redis.flushall()

    def drop_database(self, name: str) -> None:
        """Drop a database, by one message of the wire protocol."""
        body = bytes(5) + bson.encode({"dropDatabase": 1, "$db": name})  # no flags, and one section of kind 0
        self._mongo.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        size = self._mongo.recv(4, socket.MSG_WAITALL)
        reply = self._mongo.recv(int.from_bytes(size, "little") - 4, socket.MSG_WAITALL)
        assert bson.decode(reply[17:])["ok"] == 1

    def close(self) -> None:
        """Leave both servers."""
        self._redis.close()
        self._mongo.close()


@pytest.fixture(scope="session")
def sweeper(servers: Servers) -> Iterator[Sweeper]:
    """What empties the servers between the tests."""
    found = Sweeper(servers)
    yield found
    found.close()


@pytest.fixture
def settings(servers: Servers, sweeper: Sweeper) -> Iterator[dict[str, Any]]:
    """Settings of a new, empty database and an empty Redis; the library is closed and the database dropped afterwards."""
    name = f"test-{next(_numbers)}"
    sweeper.flush_redis()
    yield servers.settings(name)
    kit.close()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    kit.reset_stats()
    kit.set_logger(None)
    sweeper.drop_database(name)


@pytest.fixture
def mongo(settings: dict[str, Any]) -> dict[str, Any]:
    """The library, set up on a new database; gives the settings."""
    kit.setup(settings)
    return settings


@pytest.fixture(params=["mongo", "file", "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every domain on each store in turn; what is written against this fixture is the contract suite."""
    with serving(request.param, request) as name:
        yield name


@contextmanager
def serving(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Every domain on one kind of store, new and empty."""
    if kind == "mongo":
        request.getfixturevalue("mongo")
        yield kind
        return
    kit.close()
    kit.setup(stores=dict.fromkeys(DOMAINS, kind), CC_DUMP_DIR=request.getfixturevalue("tmp_path") / "dump")
    yield kind
    kit.close()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    kit.reset_stats()


def pytest_configure() -> None:
    """The same run wherever it is started.

    The files of the tests are in memory where there is room: a file system that is slow at small files doubles the time of a run.
    What a shell starts in the background inherits that Ctrl+C is ignored; our children shall not. And no example of Hypothesis has to
    be done within its 200 ms.
    """
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.hookimpl(tryfirst=True)  # before pytest itself chooses by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a server, and what is not worth a second run; without the wire protocol, leave the latter out."""
    for item in items:
        store = item.callspec.params.get("store", "mongo") if hasattr(item, "callspec") else "mongo"
        fixtures = getattr(item, "fixturenames", ())
        if "servers" in fixtures or ("store" in fixtures and store == "mongo"):
            item.add_marker("server")
        if store != "mongo":
            item.add_marker("once")
    if os.environ.get("CC_WIRE_LANE") == "0":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("once")])
        items[:] = [item for item in items if not item.get_closest_marker("once")]


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often the crash tests kill a writer; what README promises was seen with 300."""
    parser.addoption("--crashes", type=int, default=60, help="kills of a writer on each store")
    parser.addoption("--kills", type=int, default=25, help="kills of a live run that trades; what README promises was seen with 200")
