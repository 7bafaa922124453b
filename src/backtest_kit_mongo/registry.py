"""Which store serves which domain. A registry is an object that a run owns; one default stands behind the public names."""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import redis
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from ._core.blocks import CandleBlocks
from ._core.hits import Hits
from .config import DEFAULT_DATABASE, Config, load_config
from .domains import DOMAINS, Domain
from .embedded import EmbeddedServers, default_data_dir
from .errors import ConfigError, InvalidTypeError, InvalidValueError, NotConfiguredError
from .metrics import Metrics
from .stores.base import Store
from .stores.forks import renew_after_fork
from .stores.mongo import MongoStore

__all__ = [
    "Binding", "Registry", "close", "default_registry", "get_config", "get_mongo", "get_redis", "install", "reset_stats", "set_config",
    "setup", "stats", "wait_for_init",
]  # fmt: skip


class Binding:
    """What serves one domain: a store, and in front of it, if somebody asked for it, a class of their own."""

    __slots__ = ("_name", "_registry", "blocks", "custom", "hits", "instances", "store")

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry, self._name = registry, name
        self.store: Store | None = None
        self.hits: Hits | None = None
        self.blocks: CandleBlocks | None = None
        self.custom: type[Any] | None = None
        self.instances: dict[tuple[Any, ...], Any] = {}

    def use(self, store: Store | None, custom: type[Any] | None = None) -> None:
        """Serve the domain from ``store`` (None: the registry's MongoDB), through ``custom`` if given."""
        self.store, self.custom, self.instances = store, custom, {}
        self.refresh()

    def refresh(self) -> None:
        """Note the shortcuts of the store in force."""
        store = self.store or self._registry.mongo_or_none
        self.hits = None if store is None or store.hits is None else store.hits[self._name]
        self.blocks = None if store is None else store.blocks


class Registry:
    """Stores by domain, the settings and the counters of one run."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.bindings = {name: Binding(self, name) for name in DOMAINS}
        self._given: Config | None = None
        self._config: Config | None = None  # the same, with the places of embedded servers
        self._mongo: MongoStore | None = None
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with a free lock; see ``stores.forks``."""
        self._lock = threading.RLock()
        self._servers: EmbeddedServers | None = None

    @property
    def config(self) -> Config:
        """The settings in force; before ``configure``, what the environment would give."""
        return load_config() if self._config is None else self._config

    @property
    def mongo(self) -> MongoStore:
        """The Mongo store; NotConfiguredError before ``configure`` and after ``close``."""
        if self._mongo is None:
            raise NotConfiguredError(
                "setup() has not been called, or close() has ended it", hint="call backtest_kit_mongo.setup() first, or use_memory()"
            )
        return self._mongo

    @property
    def mongo_or_none(self) -> MongoStore | None:
        """The Mongo store, if there is one."""
        return self._mongo

    def store(self, domain: Domain) -> Store:
        """The store that serves ``domain``."""
        return self.bindings[domain.name].store or self.mongo

    def configure(self, config: Config) -> None:
        """Take settings; connections of other settings are closed. No server is contacted, but for starting embedded ones."""
        with self._lock:
            if config in (self._given, self._config):
                if self._servers is None:
                    return
                self._servers.start()  # again, if one has died, or if the process that they were borrowed from has ended
                if self._given is None or self._config == _at(self._servers, self._given):
                    return
                config = self._given
            elif self._servers is not None or config.CC_EMBEDDED:
                self.close()  # first, since two owners of one folder cannot be
            if config.CC_EMBEDDED and self._servers is None:
                folder = Path(config.CC_EMBEDDED_DIR).expanduser() if config.CC_EMBEDDED_DIR else default_data_dir()
                self._servers = EmbeddedServers(folder).start()
            effective = config if self._servers is None else _at(self._servers, config)
            before, self._mongo = self._mongo, MongoStore(effective, self.metrics)
            self._refresh()
            self._given, self._config = config, effective
        if before is not None:
            before.close()

    def _refresh(self) -> None:
        for binding in self.bindings.values():
            binding.refresh()

    def install(self) -> None:
        """Serve every domain from MongoDB."""
        for binding in self.bindings.values():
            binding.use(None)

    def wait_for_init(self, timeout: float = 15.0) -> None:
        """Return when every store in use is ready; ServerTimeoutError within ``timeout`` seconds if one is not."""
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise InvalidTypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
        if not 0 <= timeout < math.inf:
            raise InvalidValueError(f"timeout must be a number of seconds from 0 on, got {timeout}")
        deadline = time.monotonic() + timeout
        for store in {id(store): store for store in (binding.store or self.mongo for binding in self.bindings.values())}.values():
            store.wait_for_init(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Close connections and stop embedded servers of our own; idempotent. What is stored stays."""
        with self._lock:
            mongo, self._mongo = self._mongo, None
            self._refresh()
            servers, self._servers = self._servers, None
            self._given = self._config = None
        if mongo is not None:
            mongo.close()
        if servers is not None:
            servers.stop()


def _at(servers: EmbeddedServers, config: Config) -> Config:
    """The settings with the places of embedded servers."""
    return msgspec.structs.replace(
        config,
        CC_MONGO_CONNECTION_STRING=_relocated(config.CC_MONGO_CONNECTION_STRING, servers.mongo_uri),
        CC_REDIS_HOST=str(servers.redis_socket),
        CC_REDIS_USER="",
        CC_REDIS_PASSWORD="",
    )


def _relocated(uri: str, place: str) -> str:
    """The database and the options of ``uri``, at the server of ``place``."""
    name = parse_uri(uri, warn=False)["database"] or DEFAULT_DATABASE
    _, question, options = uri.partition("?")
    return f"{place.rpartition('/')[0]}/{quote(name, safe='')}{question}{options}"


default_registry = Registry()
atexit.register(default_registry.close)


def setup(config: Mapping[str, Any] | None = None, /, *, embedded: bool | None = None, **settings: Any) -> None:
    """Take the settings and serve every domain from MongoDB and Redis. Connects at the first use, or in ``wait_for_init``.

    ``config`` and keyword arguments have the names of the environment variables (``CC_REDIS_HOST``); they win over the
    environment unless empty or zero. ``embedded=True`` (``CC_EMBEDDED=1``) starts a mongod and a redis-server of our own, whose
    data outlives the process. Raises ConfigError for an unknown name or a value it cannot have.
    """
    given = _merged(config, settings)
    if embedded is not None:
        given["CC_EMBEDDED"] = embedded
    default_registry.configure(load_config(given))
    default_registry.install()


def set_config(config: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
    """Take the settings, as ``setup`` does, without changing which store serves which domain."""
    default_registry.configure(load_config(_merged(config, settings)))


def install() -> None:
    """Serve every domain from MongoDB and Redis, with the settings of ``set_config`` or else of the environment."""
    default_registry.configure(default_registry.config)
    default_registry.install()


def _merged(config: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"settings must be a mapping of CC_* names, got {type(config).__name__}")
    return {**(config or {}), **settings}


def get_config() -> Config:
    """The settings in force: a frozen Struct whose attributes are the CC_* names."""
    return default_registry.config


def get_mongo() -> Database[dict[str, Any]]:
    """The pymongo database that the records are in (its ``client`` is the MongoClient)."""
    return default_registry.mongo.connection.database


def get_redis() -> redis.Redis:
    """The redis-py client of the id cache."""
    return default_registry.mongo.redis_ids.client


def wait_for_init(timeout: float = 15.0) -> None:
    """Return when MongoDB and Redis answer and all indexes stand; optional, for a clear error at the start.

    Raises ServerTimeoutError (a ConnectionError and a TimeoutError), which names the silent server, within ``timeout`` seconds;
    IndexConflictError for an index, or for documents, that contradict a unique key.
    """
    default_registry.wait_for_init(timeout)


def close() -> None:
    """Close connections and stop embedded servers that this process started. A later call needs ``setup()`` again."""
    default_registry.close()


def stats() -> dict[str, dict[str, Any]]:
    """What each domain did since the start or ``reset_stats``: counts, ``hit_ratio``, and count, p50, p99 (us) per operation."""
    return default_registry.metrics.snapshot()


def reset_stats() -> None:
    """Set the counters of ``stats`` to zero."""
    default_registry.metrics.reset()
