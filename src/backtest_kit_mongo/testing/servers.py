"""The servers of a test session: started for it, or somebody's own. Either way each test has a database and Redis keys of its own."""

from __future__ import annotations

import itertools
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from pymongo.errors import PyMongoError

from ..config import load_config, redacted
from ..contracts.registry import Registry
from ..servers import MongoServer, RedisServer
from ..servers import mongo_uri as socket_uri
from ..stores.mongo.errors import translated

__all__ = ["NAME", "KitServers"]

NAME = "backtest-kit-test"
"""Databases of tests, and the prefixes of their Redis keys, begin with this name."""

_PATIENT = "serverSelectionTimeoutMS=30000&connectTimeoutMS=30000&socketTimeoutMS=60000"  # a busy machine is not an outage


class KitServers:
    """MongoDB and Redis of a test session. A server without an address is started, and ends with the session.

    ``mongo_uri`` is a connection string, ``redis_url`` as in ``CC_REDIS_URL``. On servers given by address only databases and Redis keys
    with names that this object has made up are written and dropped: ``backtest-kit-test-``, eight random hexadecimal digits, the worker of
    pytest-xdist, and a number.
    """

    def __init__(self, mongo_uri: str | None = None, redis_url: str | None = None, *, worker: str = "") -> None:
        self._mongo_uri, self._redis_url = mongo_uri or None, redis_url or None
        self._name = "-".join(part for part in (NAME, secrets.token_hex(4), worker) if part)
        self._numbers = itertools.count(1)
        self._owned = ExitStack()
        self._mongo_socket = self._redis_socket = ""

    def start(self, timeout: float = 30) -> Self:
        """Start the servers that have no address, and check that the others can be used, each within ``timeout`` seconds.

        Raises ServerStartError, MissingDependencyError, ServerTimeoutError, or another error of this library that says what is wrong.
        """
        self._check_addresses()
        try:
            if self._mongo_uri is None or self._redis_url is None:
                folder = Path(self._owned.enter_context(tempfile.TemporaryDirectory(prefix=f"{NAME}-", ignore_cleanup_errors=True)))
                if self._mongo_uri is None:
                    mongo = MongoServer(folder / "mongo")
                    self._owned.callback(mongo.stop)
                    self._mongo_socket = mongo.start(timeout).socket
                if self._redis_url is None:
                    cache = RedisServer(folder / "redis")
                    self._owned.callback(cache.stop)
                    self._redis_socket = cache.start(timeout).socket
            if self._mongo_uri is not None or self._redis_url is not None:
                self._check_rights(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the servers that ``start`` started."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        shown = [redacted(address) if address else "own" for address in (self._mongo_uri, self._redis_url)]
        return f"<KitServers MongoDB: {shown[0]}, Redis: {shown[1]}>"

    def mongo_uri(self, database: str) -> str:
        """Return the connection string of a database on the MongoDB of the session."""
        if self._mongo_uri is None:
            return f"{socket_uri(self._mongo_socket, database)}?{_PATIENT}"
        return on_database(self._mongo_uri, database)

    @contextmanager
    def database(self) -> Iterator[dict[str, str]]:
        """Return settings, as environment variables, for a new and empty database and no Redis keys. Both are dropped after the block."""
        name, settings = self._new_database()
        try:
            yield settings
        finally:
            self._drop(name, settings)

    def _new_database(self) -> tuple[str, dict[str, str]]:
        name = f"{self._name}-{next(self._numbers)}"
        settings = {"CC_MONGO_CONNECTION_STRING": self.mongo_uri(name), "CC_REDIS_PREFIX": f"{name}:"}
        if self._mongo_uri is None:
            settings["CC_DURABILITY"] = "memory"
        if self._redis_url is None:
            settings |= {"CC_REDIS_HOST": self._redis_socket, "CC_REDIS_TIMEOUT_MS": "60000"}
        else:
            settings["CC_REDIS_URL"] = self._redis_url
        return name, settings

    def _drop(self, name: str, settings: dict[str, str]) -> None:
        registry = Registry()  # not the default one: the test may have closed it, or set it up otherwise
        with closing(registry):
            registry.configure(load_config(settings, {}))
            client = registry.get_mongo().client
            try:
                for database in (name, f"{name}-paper"):
                    client.drop_database(database)
            except PyMongoError as error:
                raise translated(error) from error
            registry.mongo.drop_cache()

    def _check_addresses(self) -> None:
        given = {"CC_MONGO_CONNECTION_STRING": self._mongo_uri, "CC_REDIS_URL": self._redis_url}
        load_config({name: address for name, address in given.items() if address is not None}, {})

    def _check_rights(self, timeout: float) -> None:
        """Raise an error of this library if a server does not answer, or if its user may not create and drop databases."""
        name, settings = self._new_database()
        registry = Registry()
        with closing(registry):
            registry.configure(load_config(settings, {}))
            registry.wait_for_init(timeout)
        self._drop(name, settings)


def on_database(uri: str, database: str) -> str:
    """Return a connection string with another database, for the same user of the same servers."""
    scheme, _, rest = uri.partition("://")
    address, _, options = rest.partition("?")
    servers, _, before = address.partition("/")
    external = "authmechanism=mongodb-" in options.lower()  # X.509, AWS, OIDC: users that no database has
    if "@" in servers and "authsource" not in options.lower() and not external:  # else MongoDB would look for the user in the new database
        options = "&".join(filter(None, (options, f"authSource={before or 'admin'}")))
    return f"{scheme}://{servers}/{quote(database, safe='')}" + (f"?{options}" if options else "")
