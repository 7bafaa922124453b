"""Bind the domains of a run to stores, under its settings. ``Registry`` adds the contracts."""

from __future__ import annotations

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, Unpack
from uuid import uuid4

import msgspec
import redis
from pymongo.database import Database

from ..arguments import number
from ..config import Config, ConfigInForce, in_force, load_config
from ..domains import DOMAINS, Domain, DomainName
from ..errors import ConfigError, InvalidTypeError, InvalidValueError
from ..metrics import Metrics
from ..mode_defaults import Kind, LookAhead, Mode
from ..observability.stats import StatsDict
from ..servers.embedded import EmbeddedServers, default_data_dir
from ..setting_types import Settings
from ..simulation import flush_pending, milliseconds
from ..stores.base import NO_HISTORY, History, Store
from ..stores.files.jsonl import JsonlStore
from ..stores.files.store import FileStore
from ..stores.fork_safety import renew_after_fork
from ..stores.memory import DummyStore, MemoryStore
from ..stores.mongo.store import MongoStore
from ..untyped import Untyped
from .binding import Binding, Slot, not_configured, opened
from .given_settings import at_servers, history_of, merged
from .pickles import PickledSettings, Served, alive, kind_of, restored, with_passwords, without_passwords

__all__ = ["Bindings", "alive_registries"]

_OF_THE_MODE: Final = (
    "CC_MODE", "CC_STORES", "CC_DURABILITY", "CC_LOOK_AHEAD", "CC_HISTORY", "CC_HISTORY_LIMIT", "CC_HISTORY_DAYS",
)  # fmt: skip

_all: weakref.WeakSet[Bindings] = weakref.WeakSet()


def alive_registries() -> list[Bindings]:
    """Return the registries of this process that are still referenced."""
    return list(_all)


@atexit.register
def _close_all() -> None:
    for bindings in alive_registries():
        bindings.close()


class Bindings:
    """Stores by domain, the settings and the counters of one run."""

    def __init__(self) -> None:
        self.metrics: Metrics = Metrics()
        self.slots: dict[str, Slot] = {name: Slot(Binding(store=None)) for name in DOMAINS}
        self._given: Config | None = None
        self._config: Config | None = None  # the same, with the addresses of embedded servers
        self._mongo: MongoStore | None = None
        self._folder = ""  # the absolute path of CC_DUMP_DIR, since the working directory may change
        self._lacking: ConfigError | None = None  # what this process lacks, if the registry comes from another one
        self._made: dict[tuple[Kind, str], Store] = {}  # the stores other than MongoDB that the settings ask for
        self.history: History = NO_HISTORY
        self.look_ahead: LookAhead = "off"
        self.renew()
        renew_after_fork(self)
        _all.add(self)
        self.take_token(uuid4().hex)

    def renew(self) -> None:
        """Start with new locks and without servers; see ``stores.fork_safety``."""
        self._lock = threading.RLock()
        self.updating: threading.RLock = threading.RLock()
        """Held while ``update`` compares and writes a record that a user's class serves."""
        self._servers: EmbeddedServers | None = None

    @property
    def config(self) -> Config:
        """The settings in force; before ``setup``, those of the environment."""
        return load_config() if self._config is None else self._config

    @property
    def mongo(self) -> MongoStore:
        """The Mongo store. Raises NotConfiguredError before ``setup`` and after ``close``."""
        if self._mongo is None:
            raise not_configured(self._lacking)
        return self._mongo

    @property
    def mongo_or_none(self) -> MongoStore | None:
        """The Mongo store, or None before ``setup`` and after ``close``."""
        return self._mongo

    def store(self, domain: Domain) -> Store:
        """Return the store that serves ``domain`` (a row of ``DOMAINS``), after flushing pending writes."""
        flush_pending()
        return opened(self.binding(domain.name))

    def binding(self, name: str) -> Binding:
        """Return what serves the domain ``name`` now."""
        return self.slots[name].binding

    def use(self, name: str, store: Store | None, custom: type[Any] | None = None) -> None:
        """Serve the domain ``name`` from ``store`` (None: the MongoDB of the settings), or through the class ``custom`` if given."""
        flush_pending()
        with self._lock:
            self.slots[name].binding = self._make_binding(name, Binding(store=None, chosen=store, custom=custom))

    def _make_binding(self, name: str, before: Binding) -> Binding:
        """Return a binding with the chosen store and class of ``before``, under the current settings."""
        store = before.chosen or self._mongo
        timed = DOMAINS[name].when or name == "candle"
        look_ahead: LookAhead = self.look_ahead if timed else "off"
        history = name in self.history.domains
        return msgspec.structs.replace(
            before,
            store=store,
            lacking=self._lacking,
            hits=None if store is None or store.hits is None else store.hits[name],
            upserts=None if store is None or store.upserts is None else store.upserts.get(name),
            blocks=None if store is None else store.blocks,
            look_ahead=look_ahead,
            history=history,
            watches=history or look_ahead != "off",
        )

    def configure(self, config: Config) -> None:
        """Apply the settings ``config``, and close the connections of earlier, different ones. Contacts no server but embedded ones."""
        flush_pending()
        with self._lock:
            if config in (self._given, self._config):
                if self._servers is None:
                    return
                self._servers.start()  # again, if one died or if the process that owned them ended
                if self._given is None or self._config == at_servers(self._servers, self._given):
                    return
                config = self._given
            elif self._servers is not None or config.CC_EMBEDDED:
                self.close()  # first, since a folder cannot have two owners
            if config.CC_EMBEDDED and self._servers is None:
                folder = Path(config.CC_EMBEDDED_DIR).expanduser() if config.CC_EMBEDDED_DIR else default_data_dir()
                self._servers = EmbeddedServers(folder).start()
            effective = config if self._servers is None else at_servers(self._servers, config)
            self.history = history_of(config)
            self.look_ahead = config.CC_LOOK_AHEAD
            before, self._mongo = self._mongo, MongoStore(effective, self.metrics, self.history)
            self._given, self._config = config, effective
            self._folder = os.path.abspath(Path(config.CC_DUMP_DIR).expanduser())
            self._lacking = None
            self._refresh()
        if before is not None:
            before.close()

    def _refresh(self) -> None:
        for name, slot in self.slots.items():
            slot.binding = self._make_binding(name, slot.binding)

    def setup(
        self,
        config: Settings | Untyped | None = None,
        /,
        *,
        mode: Mode | None = None,
        stores: Mapping[DomainName, Kind] | None = None,
        look_ahead: LookAhead | None = None,
        history: Iterable[DomainName] | None = None,
        embedded: bool | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        """Apply the settings, and serve every domain from its store in them: MongoDB and Redis by default.

        Servers are connected at the first use or in ``wait_for_init``. Settings come from the defaults, then from those of the mode, then
        from the environment, then from the arguments; later ones override earlier ones. Empty text and a zero port count as not given.

        Args:
            config: settings by the names of their environment variables, such as ``{"CC_REDIS_HOST": "redis"}``
            mode: "backtest", "paper" or "live" (``CC_MODE``): the defaults of stores, durability and look-ahead
            stores: domains that are not served by the store of their mode (``CC_STORES``), each with "mongo", "file", "memory", "jsonl"
                (log only) or "dummy"
            look_ahead: how reads treat records of a later simulation time (``CC_LOOK_AHEAD``): "off", "hide" or "raise"
            history: the domains that keep versions (``CC_HISTORY``)
            embedded: True to start an embedded mongod and redis-server (``CC_EMBEDDED``); their data survives the process
            **settings: further settings, as in ``config``

        Raises:
            ConfigError: a name is unknown, or a value is not valid
            ServerStartError: an embedded server does not start
            MissingDependencyError: there is no embedded server to start

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.setup(mode="backtest", stores={"signal": "memory", "candle": "memory"}, CC_REDIS_HOST="redis")
            >>> kit.get_config().CC_LOOK_AHEAD
            'hide'
        """
        given = merged(config, settings)
        named = {"CC_MODE": mode, "CC_STORES": stores, "CC_LOOK_AHEAD": look_ahead, "CC_HISTORY": history, "CC_EMBEDDED": embedded}
        before = self._config
        self.configure(load_config(given | {name: value for name, value in named.items() if value is not None}))
        if self._config != before:
            self._made = {}
        self._bind()

    def set_config(self, config: Settings | Untyped | None = None, /, **settings: Unpack[Settings]) -> None:
        """Apply the settings as ``setup`` does, without changing which store serves which domain.

        The mode and the settings that it decides stay unless you pass a mode.

        Args:
            config: settings by the names of their environment variables
            **settings: further settings, as in ``config``

        Raises:
            ConfigError: a name is unknown, a value is not valid, or the history would change while a domain is served by a store other than
                MongoDB, because such a store keeps its own versions

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.set_config(CC_CANDLE_MEMORY_MB=64)
            >>> kit.get_config().CC_CANDLE_MEMORY_MB
            64
        """
        given, before = merged(config, settings), self._given
        if before is not None and not given.get("CC_MODE"):
            given = {name: getattr(before, name) for name in _OF_THE_MODE} | given
        loaded = load_config(given)
        if history_of(loaded) != self.history and any(slot.binding.chosen is not None for slot in self.slots.values()):
            raise ConfigError("the history of stores in use cannot be changed", hint="setup(history=[...]) creates new stores")
        self.configure(loaded)

    def install(self) -> None:
        """Serve every domain from its store in the settings: those of ``set_config`` if it was called, else those of the environment.

        Raises:
            ConfigError: a setting in the environment is not valid
            ServerStartError: an embedded server does not start

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.set_config(CC_REDIS_HOST="redis")
            >>> kit.install()
            >>> kit.PersistCandleAdapter
            <PersistCandleAdapter over MemoryStore>
        """
        self.configure(self.config)
        self._bind()

    def _bind(self) -> None:
        for name in self.slots:
            self.use(name, self.make(self.config.CC_STORES[name], name))

    def make(self, kind: Kind, name: str, *, fresh: bool = False) -> Store | None:
        """Return a store of a ``kind`` for the domain ``name`` (None: the MongoDB of the settings); a new one if ``fresh``.

        All domains on files share one store; each domain in memory has its own.
        """
        if kind == "mongo":
            return None
        identity = (kind, "" if kind == "file" else name)
        store: Store | None = None if fresh else self._made.get(identity)
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
            if not fresh:
                self._made[identity] = store
        return store

    def wait_for_init(self, timeout: float = 15.0) -> None:
        """Wait until every store in use is ready: MongoDB and Redis answer, and all indexes exist. Call it at startup to fail early.

        Args:
            timeout: how long to wait, in seconds; 0 checks once

        Raises:
            InvalidTypeError: ``timeout`` is not a number
            InvalidValueError: ``timeout`` is negative or not finite
            ServerTimeoutError: a server did not answer in time; the message names it
            IndexConflictError: an index or documents contradict a unique key
            StorageError: a folder is not usable
            NotConfiguredError: ``setup`` was not called

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.wait_for_init(timeout=15)
        """
        timeout = number("timeout", timeout)
        if not 0 <= timeout < math.inf:
            raise InvalidValueError(f"timeout must be a finite number of seconds, 0 or more, got {timeout}")
        deadline = time.monotonic() + timeout
        for store in {id(store): store for store in (opened(slot.binding) for slot in self.slots.values())}.values():
            store.wait_for_init(max(0.0, deadline - time.monotonic()))

    def discard_versions(self, name: DomainName, since: datetime | int, **fields: Any) -> int:
        """Discard what was written at a simulation time or later in a domain with ``history``, to repeat a run.

        Each selected record becomes what it was before that time, or disappears if it did not exist.

        Args:
            name: the name of the domain
            since: the simulation time: an aware datetime, or ms since 1970 (UTC)
            **fields: which records: key fields by their stored names (``strategyName="sma"``), each with a value or a collection of values

        Returns:
            how many records were selected

        Raises:
            InvalidTypeError: a value has the wrong type
            InvalidValueError: the domain keeps no versions, or has no such key field

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.setup(stores={"state": "memory"}, history=["state"])
            >>> for when, value in ((1000, "old"), (2000, "new")):
            ...     kit.PersistStateAdapter.write_state_data({"data": value}, "s1", "levels", when)
            >>> kit.discard_versions("state", since=2000, signalId="s1")
            1
            >>> kit.PersistStateAdapter.read_state_data("s1", "levels")
            {'data': 'old'}
        """
        domain = DOMAINS.get(name) if isinstance(name, str) else None
        if domain is None or name not in self.history.domains:
            versioned = ", ".join(sorted(self.history.domains)) or "none"
            raise InvalidValueError(f"{name!r} keeps no versions", hint=f"setup(history=[...]) names the domains that do; now: {versioned}")
        unknown = [field for field in fields if field not in domain.key]
        if unknown:
            raise InvalidValueError(f"{name} has no key field {unknown[0]}", hint=f"its key fields: {', '.join(domain.key)}")
        moment = milliseconds("since", since)
        store = self.store(domain)
        keys = store.keys_with(domain, {field: _chosen(name, field, value) for field, value in fields.items()})
        store.discard_versions(domain, keys, moment)
        return len(keys)

    def stats(self) -> StatsDict:
        """Return the counters of every domain since the start or ``reset_stats``.

        Returns:
            a dict domain -> counts, ``hit_ratio`` (a fraction from 0 to 1; None without reads), ``hit_ratios`` by layer, and
                ``operations`` with count, p50, p90 and p99 (us) of each. It has ``to_dataframe()`` and ``plot()``, and a notebook shows
                it as tables

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            >>> kit.stats()["signal"]["reads"], kit.stats()["signal"]["operations"]["read"]["count"]
            (1, 1)
        """
        return StatsDict(self.metrics.snapshot())

    def reset_stats(self) -> None:
        """Reset the counters of ``stats`` to zero.

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.reset_stats()
            >>> kit.stats()["signal"]["reads"]
            0
        """
        self.metrics.reset()

    def get_config(self) -> ConfigInForce:
        """Return the settings in force, without connecting to a server.

        Returns:
            a frozen Struct with the CC_* names as attributes, and with the properties ``topology``, ``write_concern`` and
                ``read_concern`` of MongoDB, which are None until it is used. Its repr hides passwords

        Raises:
            ConfigError: before ``setup``, if a setting in the environment is not valid

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.get_config().CC_REDIS_TIMEOUT_MS
            1000
        """
        mongo = self._mongo
        return in_force(self.config, **({} if mongo is None else mongo.connection.in_force()))

    def get_mongo(self) -> Database[dict[str, Any]]:
        """Return the pymongo database that stores the records; its ``client`` is the MongoClient.

        In a backtest, call this again before each query: the call flushes pending writes (``runner.engine.write_behind``).

        Raises:
            NotConfiguredError: before ``setup`` and after ``close``

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.get_mongo()["signal-items"].name
            'signal-items'
        """
        flush_pending()
        return self.mongo.connection.database

    def get_redis(self) -> redis.Redis:
        """Return the redis-py client of the id cache, after flushing pending writes.

        Raises:
            NotConfiguredError: before ``setup`` and after ``close``

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> type(kit.get_redis()).__name__
            'Redis'
        """
        flush_pending()
        return self.mongo.redis_ids.client

    def close(self) -> None:
        """Close connections and stop embedded servers that this process started. Idempotent. Later calls need ``setup()`` first.

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.close()
            >>> kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            Traceback (most recent call last):
            backtest_kit_mongo.errors.NotConfiguredError: ...
        """
        flush_pending()
        with self._lock:
            mongo, self._mongo = self._mongo, None
            servers, self._servers = self._servers, None
            self._given = self._config = self._lacking = None
            made, self._made = self._made, {}
            self.history, self.look_ahead = NO_HISTORY, "off"
            for name, slot in self.slots.items():
                if any(slot.binding.chosen is store for store in made.values()):
                    self.use(name, None)
            self._refresh()
        if mongo is not None:
            mongo.close()
        if servers is not None:
            servers.stop()

    # --- pickles and copies ---

    def __copy__(self) -> Self:
        return self  # it owns connections

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        served: Served = {name: (kind_of(name, slot.binding.chosen), slot.binding.custom) for name, slot in self.slots.items()}
        return restored, (type(self), self._token, self.pickled_settings(), served)

    def take_token(self, token: str) -> None:
        """Make this the registry that pickles with ``token`` refer to, unless another one is. For pickles."""
        self._token = token if alive.setdefault(token, self) is self else uuid4().hex

    def pickled_settings(self) -> PickledSettings | None:
        """Return the settings in force without passwords; None before ``configure`` and after ``close``. For pickles."""
        config = self._config
        return None if config is None else without_passwords(config, self._folder)

    def restore(self, settings: PickledSettings | None, served: Served) -> None:
        """Apply the ``settings`` of a pickle and bind the domains to what ``served`` them.

        If this process lacks a password, later calls raise a NotConfiguredError that says so.
        """
        if settings is not None:
            try:
                config = with_passwords(settings)
            except ConfigError as error:
                with self._lock:
                    self._lacking = error.with_traceback(None)
                    self._refresh()
                return
            self.configure(config)
        for name, (kind, custom) in served.items():
            self.use(name, self.make(kind, name), custom)


def _chosen(name: str, field: str, value: Any) -> frozenset[Any]:
    """Return the values that select a key field. Raises InvalidTypeError for one of another type than the field."""
    domain = DOMAINS[name]
    kind = domain.kinds[domain.key.index(field)]
    values = [value] if isinstance(value, (kind, bytes)) or not isinstance(value, Iterable) else list(value)
    for member in values:
        if not isinstance(member, kind):
            raise InvalidTypeError(f"{name}: {field} must be a {kind.__name__}, or a collection of them, got {type(member).__name__}")
    return frozenset(values)
