# Generated from config.py by tools/generate_contracts.py (make generate). Do not edit.
"""The settings as ``setup`` and ``set_config`` take them, for type checkers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Literal, TypedDict

from .contract_names import DomainName
from .mode_defaults import Kind, LookAhead

__all__ = ["Settings"]


class Settings(TypedDict, total=False):
    """Settings by name, for ``setup`` and ``set_config``."""

    CC_MONGO_CONNECTION_STRING: str | PathLike[str] | None
    """MongoDB connection string: servers, database, credentials, TLS and timeouts (15 s for those it does not set)."""
    CC_REDIS_HOST: str | PathLike[str] | None
    """Redis host name, or the path of a Unix socket."""
    CC_REDIS_PORT: int | str | None
    """Redis TCP port."""
    CC_REDIS_USER: str | PathLike[str] | None
    """Redis user; empty for the default user."""
    CC_REDIS_PASSWORD: str | PathLike[str] | None
    """Redis password; empty for none."""
    CC_REDIS_URL: str | PathLike[str] | None
    """Redis URL, instead of host and port: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database."""
    CC_REDIS_DB: int | str | None
    """Redis database number."""
    CC_REDIS_TLS: bool | Literal[0, 1] | str | None
    """Connect to Redis over TLS and verify its certificate. ``CC_REDIS_URL`` takes further TLS options."""
    CC_REDIS_SENTINEL: str | PathLike[str] | None
    """Sentinels to ask for the primary: ``host:port,host:port/name``, preceded by ``user:password@`` if they require a login."""
    CC_REDIS_CLUSTER: bool | Literal[0, 1] | str | None
    """Host and port are one node of a Redis cluster; the client learns the other nodes from it."""
    CC_REDIS_PREFIX: str | PathLike[str] | None
    """Prefix of all Redis keys, for two MongoDB databases that share one Redis; empty as in the TypeScript package."""
    CC_REDIS_TIMEOUT_MS: int | str | None
    """Timeout in ms of one cache operation; after it the store continues without Redis."""
    CC_REDIS_IDS: Literal["keyed", "all"] | Literal[""] | None
    """Which ids Redis caches: ``keyed`` those of domains that are read by key, ``all`` those of all domains (unbounded: one per candle)."""
    CC_MODE: Literal["", "backtest", "live", "paper"] | Literal[""] | None
    """Kind of run. It sets the defaults of stores, durability and look-ahead below."""
    CC_PAPER_DATABASE: str | PathLike[str] | None
    """Database of a paper run; empty for the database of the connection string with ``-paper`` appended."""
    CC_STORES: Mapping[DomainName, Kind] | str | None
    """Store of each domain: mongo, file, memory, jsonl (log only) or dummy. As text: ``log=jsonl,memory=file``."""
    CC_DURABILITY: Literal["journal", "memory"] | Literal[""] | None
    """When a write returns: ``journal`` once on disk (of a majority or the one server), ``memory`` once in memory (primary or OS)."""
    CC_LOOK_AHEAD: LookAhead | Literal[""] | None
    """How reads treat records of a later simulation time: ``off`` returns them, ``hide`` hides them, ``raise`` raises LookAheadError."""
    CC_HISTORY: Iterable[DomainName] | str | None
    """Domains that keep versions, so that a read returns the value as of its simulation time. As text: ``state,session``."""
    CC_HISTORY_LIMIT: int | str | None
    """Maximum number of versions per record, including the current one; 0 for no limit."""
    CC_HISTORY_DAYS: int | str | None
    """Maximum age of a version, in days of simulation time before the newest version; 0 for no limit."""
    CC_DUMP_DIR: str | PathLike[str] | None
    """Folder of the file store and of the JSON lines of the log; the default of a paper run is ``./dump-paper``."""
    CC_LOG_ROTATE_MB: int | str | None
    """Size in MiB at which a file of JSON lines is rotated."""
    CC_PROCESS_IDS: int | str | None
    """Maximum number of ids per domain in the cache of this process; 0 disables that cache."""
    CC_CANDLE_MEMORY_MB: int | str | None
    """Maximum memory in MiB in which this process caches candles that it has read; 0 disables that cache."""
    CC_CANDLE_FORMAT: Literal["items", "packed"] | Literal[""] | None
    """How candles are stored: ``items`` one per document, as the TypeScript package does, or ``packed`` 4,096, which it cannot read."""
    CC_WIRE_LANE: bool | Literal[0, 1] | str | None
    """Send prebuilt messages over the connections of pymongo and redis-py; 0 makes every call through their public methods."""
    CC_TICK_SECONDS: float | str | None
    """How often a live or paper run polls the market, in seconds; at most 60."""
    CC_SCHEDULE_AWAIT_MINUTES: float | str | None
    """How many minutes a signal waits for its price."""
    CC_EMBEDDED: bool | Literal[0, 1] | str | None
    """Start an embedded mongod and redis-server instead of connecting to other servers."""
    CC_EMBEDDED_DIR: str | PathLike[str] | None
    """Data folder of the embedded servers; empty for ``backtest-kit-mongo`` in the user's data home."""
