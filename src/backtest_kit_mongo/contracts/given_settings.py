"""The arguments of ``setup`` as settings, and the settings of embedded servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from pymongo.uri_parser import parse_uri

from ..config import DEFAULT_DATABASE, Config
from ..errors import ConfigError
from ..servers.embedded import EmbeddedServers
from ..stores.base import History

__all__ = ["at_servers", "history_of", "merged"]


def history_of(config: Config) -> History:
    """Return which domains keep versions, and how many."""
    return History(frozenset(config.CC_HISTORY), config.CC_HISTORY_LIMIT, config.CC_HISTORY_DAYS)


def merged(config: object, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return both as one dict. Raises ConfigError if ``config`` is not a mapping."""
    if config is not None and not isinstance(config, Mapping):
        raise ConfigError(f"settings must be a mapping of CC_* names, got {type(config).__name__}")
    return {**(config or {}), **settings}


def at_servers(servers: EmbeddedServers, config: Config) -> Config:
    """Return the settings with the addresses of embedded servers."""
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


def _relocated(uri: str, server_uri: str) -> str:
    """Return a connection string with the server of ``server_uri``, and the database and options of ``uri``."""
    name = parse_uri(uri, warn=False)["database"] or DEFAULT_DATABASE
    _, question, options = uri.partition("?")
    return f"{server_uri.rpartition('/')[0]}/{quote(name, safe='')}{question}{options}"
