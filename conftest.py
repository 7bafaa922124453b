"""Fixtures shared by tests and benchmarks: real servers, started here, and a new database for each test.

A server that already listens on a default port is never used: it could hold somebody's live data.
"""

from __future__ import annotations

import fcntl
import gc
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bson
import hypothesis
import pytest
import redis
from connection_strings import with_options
from served_stores import serving

import backtest_kit_mongo as kit
from backtest_kit_mongo.servers import MongoServer, RedisServer
from backtest_kit_mongo.testing.library import reset

pytest_plugins = ["pytester"]

_numbers = itertools.count()
# `make test-replicaset`: the mongod is the only member of a replica set, which numbers writes and confirms them by majority.
_REPLICA_SET = os.environ.get("KIT_TEST_REPLICA_SET") or None
# Timeout tests set their own; a busy machine must not look like an outage.
_PATIENT = "&".join(f"{name}=60000" for name in ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"))
_ROOM = 4 << 30  # bytes; three workers with their servers need about one GB


class Servers(NamedTuple):
    """The two servers of a test session."""

    mongo: MongoServer
    redis: RedisServer

    def settings(self, database: str, **others: Any) -> dict[str, Any]:
        """Return settings for ``setup`` that reach both servers."""
        return {
            "CC_MONGO_CONNECTION_STRING": with_options({"CC_MONGO_CONNECTION_STRING": self.mongo.uri(database)}, _PATIENT),
            "CC_REDIS_HOST": self.redis.socket,
            # Durability tests set their own. On a replica set, ``memory`` causes a warning.
            "CC_DURABILITY": "memory" if _REPLICA_SET is None else "journal",
            "CC_REDIS_TIMEOUT_MS": 60_000,
            **others,
        }


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Start a mongod and a redis-server for the whole session; a test that stops or breaks a server starts its own."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with MongoServer(folder / "mongo", replica_set=_REPLICA_SET) as mongo, RedisServer(folder / "redis") as cache:
        yield Servers(mongo, cache)


class Sweeper:
    """Empties the servers between tests.

    Connecting for each test would cost more than the emptying. A long-lived ``MongoClient`` has threads, which the memory tests would
    measure as well.
    """

    def __init__(self, servers: Servers) -> None:
        self._redis = redis.Redis(unix_socket_path=servers.redis.socket)
        self._mongo = socket.socket(socket.AF_UNIX)
        self._mongo.connect(servers.mongo.socket)

    def flush_redis(self) -> None:
        """Drop all keys."""
        self._redis.flushall()

    def drop_database(self, name: str) -> None:
        """Drop a database with one raw message."""
        body = bytes(5) + bson.encode({"dropDatabase": 1, "$db": name})  # no flags, and one section of kind 0
        self._mongo.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        size = self._mongo.recv(4, socket.MSG_WAITALL)
        reply = self._mongo.recv(int.from_bytes(size, "little") - 4, socket.MSG_WAITALL)
        assert bson.decode(reply[17:])["ok"] == 1

    def close(self) -> None:
        """Close both connections."""
        self._redis.close()
        self._mongo.close()


@pytest.fixture(scope="session")
def sweeper(servers: Servers) -> Iterator[Sweeper]:
    """The ``Sweeper`` that empties the servers between tests."""
    found = Sweeper(servers)
    yield found
    found.close()


@pytest.fixture
def settings(servers: Servers, sweeper: Sweeper) -> Iterator[dict[str, Any]]:
    """Settings for a new, empty database and an empty Redis; afterwards, close the library and drop the database."""
    name = f"test-{next(_numbers)}"
    sweeper.flush_redis()
    yield servers.settings(name)
    reset()
    kit.set_logger(None)
    sweeper.drop_database(name)


@pytest.fixture
def mongo(settings: dict[str, Any]) -> dict[str, Any]:
    """Set up the library on a new database; return the settings."""
    kit.setup(settings)
    return settings


@pytest.fixture(params=["mongo", "file", "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with every domain on each store in turn; tests that use this fixture are the contract suite."""
    with serving(request.param, request) as name:
        yield name


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that other users can enter. (Each pytest that starts takes that right from the folder with all ``tmp_path``.)"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def pytest_configure() -> None:
    """Make a run behave the same wherever it is started.

    Test files are in memory if there is room: a file system that is slow with small files doubles the duration of a run. A process that a
    shell starts in the background ignores Ctrl+C; restore the default for our children. No example of Hypothesis has to finish within
    200 ms.
    """
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


_ONCE = re.compile(r"^pytestmark = .*\bonce\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without the wire protocol, leave out the files that are marked as ``once`` as a whole: most of them, and each worker reads each."""
    if os.environ.get("CC_WIRE_LANE") != "0" or not collection_path.match("test_*.py"):
        return None
    return bool(_ONCE.search(collection_path.read_text())) or None


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need a server, and tests that need only one run; without the wire protocol, deselect the latter."""
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


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Let one worker at a time collect a test file: the first one compiles it, with its assertions rewritten, for all others."""
    if not isinstance(collector, pytest.Module) or "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with open(collector.path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return (yield)


def pytest_collection_finish() -> None:
    """Keep what the collection made out of later garbage collections: tests of memory cause hundreds, each of which would visit it all."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for the number of kills; the claims in the manual were tested with 300 crashes and 200 kills of a live run."""
    parser.addoption("--crashes", type=int, default=60, help="kills of a writer on each store")
    parser.addoption("--kills", type=int, default=10, help="kills of a live run that trades; what the manual promises was seen with 200")
    parser.addoption("--long", action="store_true", help="try more moments of a kill and more rounds of random work")


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the test tries more moments and rounds than in other runs (``make test-long``)."""
    return bool(request.config.getoption("--long"))
