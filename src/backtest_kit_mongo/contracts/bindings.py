"""Which store serves which domain of a run, with which settings; what a ``Registry`` is made of."""

from __future__ import annotations

import atexit
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import redis
from pymongo.database import Database
from pymongo.uri_parser import parse_uri

from .._core.blocks import CandleBlocks
from .._core.hit_reader import HitReader
from .._core.upsert_writer import UpsertWriter
from ..config import DEFAULT_DATABASE, Config, ConfigInForce, in_force, load_config
from ..domains import DOMAINS, Domain, DomainName
from ..errors import ConfigError, InvalidTypeError, InvalidValueError, NotConfiguredError
from ..metrics import Metrics, Stats
from ..mode_defaults import Kind, LookAhead, Mode
from ..servers.embedded import EmbeddedServers, default_data_dir
from ..simulation import milliseconds
from ..stores.base import NO_HISTORY, History, Store
from ..stores.files.jsonl import JsonlStore
from ..stores.files.store import FileStore
from ..stores.fork_safety import renew_after_fork
from ..stores.memory import DummyStore, MemoryStore
from ..stores.mongo.store import MongoStore

__all__ = ["Binding", "Bindings"]


LATE: Final[ContextVar[Callable[[], None] | None]] = ContextVar("backtest_kit_mongo_late_writes", default=None)
"""Writes what the runs of this context have still to write."""


def flush_pending() -> None:
    """Write what the runs of this context have still to write."""
    flush = LATE.get()
    if flush is not None:
        flush()


class Binding:
    """What serves one domain: a store, and in front of it, if somebody asked for it, a class of their own."""

    __slots__ = (
        "_bindings",
        "_name",
        "blocks",
        "custom",
        "flush_pending",
        "history",
        "hits",
        "instances",
        "look_ahead",
        "store",
        "upserts",
        "watches",
    )

    def __init__(self, bindings: Bindings, name: str) -> None:
        self._bindings, self._name = bindings, name
        self.look_ahead: LookAhead = "off"
        self.history = False
        self.watches = False
        """Whether a read looks at the simulation time."""
        self.store: Store | None = None
        self.hits: HitReader | None = None
        self.upserts: UpsertWriter | None = None
        self.blocks: CandleBlocks | None = None
        self.custom: type[Any] | None = None
        self.instances: dict[tuple[Any, ...], Any] = {}
        self.flush_pending: Callable[[], None] | None = None
        """Writes what waits to be written; called before every use of the store while there may be something."""

    def use(self, store: Store | None, custom: type[Any] | None = None) -> None:
        """Serve the domain from ``store`` (None: the MongoDB of the settings), through ``custom`` if given."""
        flush_pending()
        self.store, self.custom, self.instances = store, custom, {}
        self.refresh()

    def refresh(self) -> None:
        """Note the shortcuts of the store in force, and what the settings say of simulation time."""
        store = self.store or self._bindings.mongo_or_none
        self.hits = None if store is None or store.hits is None else store.hits[self._name]
        self.upserts = None if store is None or store.upserts is None else store.upserts.get(self._name)
        self.blocks = None if store is None else store.blocks
        timed = DOMAINS[self._name].when or self._name == "candle"
        self.look_ahead = self._bindings.look_ahead if timed else "off"
        self.history = self._name in self._bindings.history.domains
        self.watches = self.history or self.look_ahead != "off"


_OF_THE_MODE: Final = (
    "CC_MODE", "CC_STORES", "CC_DURABILITY", "CC_LOOK_AHEAD", "CC_HISTORY", "CC_HISTORY_LIMIT", "CC_HISTORY_DAYS",
)  # fmt: skip

_all: weakref.WeakSet[Bindings] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for bindings in list(_all):
        bindings.close()


class Bindings:
    """Stores by domain, the settings and the counters of one run."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.bindings = {name: Binding(self, name) for name in DOMAINS}
        self._given: Config | None = None
        self._config: Config | None = None  # the same, with the places of embedded servers
        self._mongo: MongoStore | None = None
        self._made: dict[tuple[Kind, str], Store] = {}  # the other stores that the settings ask for
        self._late = 0  # how many runs write late
        self.history = NO_HISTORY
        self.look_ahead: LookAhead = "off"
        self.renew()
        renew_after_fork(self)
        _all.add(self)

    def renew(self) -> None:
        """Start with a free lock; see ``stores.forks``."""
        self._lock = threading.RLock()
        self.updating = threading.RLock()
        """Held while a record of a user's class is compared and written."""
        self._late_guard = threading.Lock()
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
        binding = self.bindings[domain.name]
        flush_pending = binding.flush_pending
        if flush_pending is not None:
            flush_pending()
        return self.mongo if binding.store is None else binding.store

    def write_late(self, late: bool) -> None:
        """Begin, or end again, to have written first what waits (``LATE``) before any contract but that of the candles is used."""
        with self._late_guard:
            self._late += 1 if late else -1
            for name, binding in self.bindings.items():
                if name != "candle":  # read in every run, and never written late
                    binding.flush_pending = flush_pending if self._late else None

    def configure(self, config: Config) -> None:
        """Take settings; connections of other settings are closed. No server is contacted, but for starting embedded ones."""
        flush_pending()
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
            self.history = _history(config)
            self.look_ahead = config.CC_LOOK_AHEAD
            before, self._mongo = self._mongo, MongoStore(effective, self.metrics, self.history)
            self._given, self._config = config, effective
            self._refresh()
        if before is not None:
            before.close()

    def _refresh(self) -> None:
        for binding in self.bindings.values():
            binding.refresh()

    def setup(
        self,
        config: Mapping[str, Any] | None = None,
        /,
        *,
        mode: Mode | None = None,
        stores: Mapping[DomainName, Kind] | None = None,
        look_ahead: LookAhead | None = None,
        history: Iterable[DomainName] | None = None,
        embedded: bool | None = None,
        **settings: Any,
    ) -> None:
        """Take the settings and serve every domain from the store that they give it: MongoDB and Redis, unless they say otherwise.

        Connects at the first use, or in ``wait_for_init``. ``config`` and keyword arguments have the names of the environment
        variables (``CC_REDIS_HOST``); they win over the environment unless empty or zero. ``mode`` ("backtest", "paper", "live";
        ``CC_MODE``) decides stores, durability and look-ahead where they are not given. ``stores`` (``CC_STORES``) puts single domains
        on "mongo", "file", "memory", "jsonl" (log only) or "dummy". ``look_ahead`` (``CC_LOOK_AHEAD``) is "off", "hide" or "raise".
        ``history`` (``CC_HISTORY``) names the domains that keep versions. ``embedded=True`` (``CC_EMBEDDED=1``) starts a mongod and a
        redis-server of our own, whose data outlives the process. Raises ConfigError for an unknown name or a value it cannot have.
        """
        given = _merged(config, settings)
        named = {"CC_MODE": mode, "CC_STORES": stores, "CC_LOOK_AHEAD": look_ahead, "CC_HISTORY": history, "CC_EMBEDDED": embedded}
        before = self._config
        self.configure(load_config(given | {name: value for name, value in named.items() if value is not None}))
        if self._config != before:
            self._made = {}
        self._bind()

    def set_config(self, config: Mapping[str, Any] | None = None, /, **settings: Any) -> None:
        """Take the settings, as ``setup`` does, without changing which store serves which domain.

        The mode, and what it decides, stays as it is unless it is given. ConfigError for another history where a store that keeps
        versions by itself is in use.
        """
        given, before = _merged(config, settings), self._given
        if before is not None and not given.get("CC_MODE"):
            given = {name: getattr(before, name) for name in _OF_THE_MODE} | given
        wanted = load_config(given)
        if _history(wanted) != self.history and any(binding.store is not None for binding in self.bindings.values()):
            raise ConfigError("the history of stores that are in use cannot be changed", hint="setup(history=[...]) begins with new ones")
        self.configure(wanted)

    def install(self) -> None:
        """Serve every domain from the store of the settings: those of ``set_config``, or else of the environment."""
        self.configure(self.config)
        self._bind()

    def _bind(self) -> None:
        for name, binding in self.bindings.items():
            binding.use(self.make(self.config.CC_STORES[name], name))

    def make(self, kind: Kind, name: str, *, anew: bool = False) -> Store | None:
        """A store of a kind for a domain (None: the MongoDB of the settings); the one that was made before, unless ``anew``.

        All domains on files share one store; each domain in memory has its own.
        """
        if kind == "mongo":
            return None
        place = (kind, "" if kind == "file" else name)
        store: Store | None = None if anew else self._made.get(place)
        if store is None:
            config, folder = self.config, Path(self.config.CC_DUMP_DIR).expanduser()
            match kind:
                case "file":
                    store = FileStore(folder, self.history, durable=config.CC_DURABILITY == "journal")
                case "jsonl":
                    store = JsonlStore(folder, config.CC_LOG_ROTATE_MB * 1024 * 1024, durable=config.CC_DURABILITY == "journal")
                case "memory":
                    store = MemoryStore(self.history)
                case "dummy":
                    store = DummyStore()
            if not anew:
                self._made[place] = store
        return store

    def wait_for_init(self, timeout: float = 15.0) -> None:
        """Return when every store in use is ready, as MongoDB and Redis that answer and all indexes; for a clear error at the start.

        Raises ServerTimeoutError (a ConnectionError and a TimeoutError), which names the silent server, within ``timeout`` seconds;
        IndexConflictError for an index, or for documents, that contradict a unique key; StorageError for a folder that cannot be used.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise InvalidTypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
        if not 0 <= timeout < math.inf:
            raise InvalidValueError(f"timeout must be a number of seconds from 0 on, got {timeout}")
        deadline = time.monotonic() + timeout
        for store in {id(store): store for store in (binding.store or self.mongo for binding in self.bindings.values())}.values():
            store.wait_for_init(max(0.0, deadline - time.monotonic()))

    def discard_versions(self, name: DomainName, since: datetime | int, **fields: Any) -> int:
        """Let a run begin anew: discard what was written at ``since`` (an aware datetime or ms) or later in a domain with ``history``.

        ``fields`` choose the records: key fields by their stored names (``strategyName="sma"``), each with a value or a collection of
        values. Each record is again what it was before ``since``, or is gone if it was not there. How many records were chosen.
        """
        domain = DOMAINS.get(name) if isinstance(name, str) else None
        if domain is None or name not in self.history.domains:
            kept = ", ".join(sorted(self.history.domains)) or "none"
            raise InvalidValueError(f"{name!r} keeps no versions", hint=f"setup(history=[...]) names the domains that do; now: {kept}")
        unknown = [field for field in fields if field not in domain.key]
        if unknown:
            raise InvalidValueError(f"{name} has no key field {unknown[0]}", hint=f"its key fields: {', '.join(domain.key)}")
        moment = milliseconds("since", since)
        wanted = {domain.key.index(field): _chosen(name, field, value) for field, value in fields.items()}
        store = self.store(domain)
        found = (record.key for record in store.records(domain))
        keys = [key for key in found if all(key[index] in values for index, values in wanted.items())]
        for start in range(0, len(keys), 1000):
            store.discard_versions(domain, keys[start : start + 1000], moment)
        return len(keys)

    def stats(self) -> Stats:
        """What each domain did since the start or ``reset_stats``: counts, ``hit_ratio``, and count, p50, p99 (us) per operation."""
        return self.metrics.snapshot()

    def reset_stats(self) -> None:
        """Set the counters of ``stats`` to zero."""
        self.metrics.reset()

    def get_config(self) -> ConfigInForce:
        """The settings in force, a frozen Struct whose attributes are the CC_* names; and ``topology``, ``write_concern`` and
        ``read_concern`` of MongoDB, once it has been used."""
        mongo = self._mongo
        return in_force(self.config, **({} if mongo is None else mongo.connection.in_force()))

    def get_mongo(self) -> Database[dict[str, Any]]:
        """The pymongo database that the records are in (its ``client`` is the MongoClient).

        In a backtest it is asked for anew before each look: that is when late writes (``runner.write_behind``) are written.
        """
        flush_pending()
        return self.mongo.connection.database

    def get_redis(self) -> redis.Redis:
        """The redis-py client of the id cache."""
        flush_pending()
        return self.mongo.redis_ids.client

    def close(self) -> None:
        """Close connections and stop embedded servers that this process started; idempotent. A later call needs ``setup()`` again."""
        flush_pending()
        with self._lock:
            mongo, self._mongo = self._mongo, None
            servers, self._servers = self._servers, None
            self._given = self._config = None
            made, self._made = self._made, {}
            self.history, self.look_ahead = NO_HISTORY, "off"
            for binding in self.bindings.values():
                if any(binding.store is store for store in made.values()):
                    binding.use(None)
            self._refresh()
        if mongo is not None:
            mongo.close()
        if servers is not None:
            servers.stop()


def _history(config: Config) -> History:
    return History(frozenset(config.CC_HISTORY), config.CC_HISTORY_LIMIT, config.CC_HISTORY_DAYS)


def _chosen(name: str, field: str, value: Any) -> frozenset[Any]:
    """The values of a key field that were asked for, each of its type."""
    domain = DOMAINS[name]
    kind = domain.kinds[domain.key.index(field)]
    values = [value] if isinstance(value, (kind, bytes)) or not isinstance(value, Iterable) else list(value)
    for one in values:
        if not isinstance(one, kind):
            raise InvalidTypeError(f"{name}: {field} must be a {kind.__name__}, or a collection of them, got {type(one).__name__}")
    return frozenset(values)


def _merged(config: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"settings must be a mapping of CC_* names, got {type(config).__name__}")
    return {**(config or {}), **settings}


def _at(servers: EmbeddedServers, config: Config) -> Config:
    """The settings with the places of embedded servers."""
    return msgspec.structs.replace(
        config,
        CC_MONGO_CONNECTION_STRING=_relocated(config.CC_MONGO_CONNECTION_STRING, servers.mongo_uri),
        CC_REDIS_HOST=str(servers.redis_socket),
        CC_REDIS_USER="",
        CC_REDIS_PASSWORD="",
        CC_REDIS_URL="",
        CC_REDIS_DB=0,
        CC_REDIS_TLS=False,
        CC_REDIS_SENTINEL="",
        CC_REDIS_CLUSTER=False,
    )


def _relocated(uri: str, place: str) -> str:
    """The database and the options of ``uri``, at the server of ``place``."""
    name = parse_uri(uri, warn=False)["database"] or DEFAULT_DATABASE
    _, question, options = uri.partition("?")
    return f"{place.rpartition('/')[0]}/{quote(name, safe='')}{question}{options}"
