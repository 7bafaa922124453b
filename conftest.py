"""Fixtures that tests and benchmarks share: real servers that we start ourselves, and a database of its own for each test.

No server is ever adopted from a default port: it could be somebody's live book.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
import pytest
import redis

import backtest_kit_mongo as kit
from backtest_kit_mongo.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.servers import MongoServer, RedisServer

_numbers = itertools.count()


class Servers(NamedTuple):
    """The two servers of a test session."""

    mongo: MongoServer
    redis: RedisServer

    def settings(self, database: str, **others: Any) -> dict[str, Any]:
        """What ``setup`` needs to reach them."""
        return {
            "CC_MONGO_CONNECTION_STRING": self.mongo.uri(database),
            "CC_REDIS_HOST": self.redis.socket,
            "CC_DURABILITY": "memory",  # tests of durability say so themselves
            **others,
        }


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A mongod and a redis-server for the whole session; a test that stops or breaks one starts its own."""
    folder: Path = tmp_path_factory.mktemp("servers")
    with MongoServer(folder / "mongo") as mongo, RedisServer(folder / "redis") as cache:
        yield Servers(mongo, cache)


@pytest.fixture
def settings(servers: Servers) -> Iterator[dict[str, Any]]:
    """Settings of a new, empty database and an empty Redis; the library is closed and the database dropped afterwards."""
    name = f"test-{next(_numbers)}"
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        client.flushall()
    yield servers.settings(name)
    kit.close()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    kit.reset_stats()
    kit.set_logger(None)
    with pymongo.MongoClient(servers.mongo.uri()) as client:
        client.drop_database(name)


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


@pytest.hookimpl(tryfirst=True)  # before pytest itself chooses by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a server, and what is not worth a second run; without the wire lane, leave the latter out."""
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
