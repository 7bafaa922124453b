"""pymongo's client, and what is asked of it where the connection string leaves it open: time-outs, monitoring, write concern."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import parse_qsl

from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.write_concern import WriteConcern

from ...config import DEFAULT_TIMEOUT_MS
from ...errors import ConfigError
from ...logs import log
from .errors import is_unresolved, translated

__all__ = ["is_sharded", "make_client", "topology", "warn_of_lost_writes", "write_concern"]

HEARTBEAT_MS = 2_000
"""How often pymongo's monitor asks a server that has nothing new to say."""


def make_client(uri: str) -> MongoClient[dict[str, Any]]:
    """A client that has not connected yet; ConfigError if pymongo cannot use the connection string."""
    given = {name.lower(): value for name, value in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    defaults: dict[str, Any] = {"appname": "backtest-kit-mongo", "connect": False}
    if "retryreads" not in given:
        # Done by failures.retried: pymongo would wait for a silent server three times over.
        defaults["retryReads"] = False
    if "heartbeatfrequencyms" not in given:
        # The monitor hears at once of a server that goes and of a new primary, but of nothing else before its next heartbeat:
        # after a failed login each call waits for one.
        defaults["heartbeatFrequencyMS"] = HEARTBEAT_MS
    if "timeoutms" not in given:
        defaults |= _time_outs(given)
    try:
        return MongoClient(uri, **defaults)
    except (PyMongoError, ValueError, OSError) as error:  # OSError: a file of certificates that cannot be read or makes no sense
        if isinstance(error, PyMongoError) and uri.startswith("mongodb+srv://") and is_unresolved(error):
            raise translated(error) from None
        # The text of these errors can hold parts of the string, and so of the password.
        raise ConfigError(f"CC_MONGO_CONNECTION_STRING cannot be used ({type(error).__name__})") from None


def _time_outs(given: Mapping[str, str]) -> dict[str, int]:
    """Time-outs (ms) that the options of a connection string leave open: a server may be silent for 15 s.

    A write that is not confirmed in its time (``wtimeout``) must be heard of, and so that time ends before the socket's does.
    """
    found = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), DEFAULT_TIMEOUT_MS)
    with suppress(ValueError):  # which pymongo makes an error of
        found["socketTimeoutMS"] = max(DEFAULT_TIMEOUT_MS, int(given.get("wtimeoutms", 0)) * 4 // 3)
    return {name: value for name, value in found.items() if name.lower() not in given}


def is_sharded(client: MongoClient[Any]) -> bool | None:
    """Whether pymongo speaks to a mongos; None until it has met a server."""
    kind = client.topology_description.topology_type_name
    return None if kind == "Unknown" else kind == "Sharded"


def topology(client: MongoClient[Any]) -> str | None:
    """One of "standalone", "replica set NAME" or "sharded cluster", as far as pymongo has met a server."""
    found = client.topology_description
    if found.topology_type_name == "Unknown":
        return None
    if found.topology_type_name == "Sharded":
        return "sharded cluster"
    servers = [server for server in found.server_descriptions().values() if server.is_server_type_known]
    names = [name for name in (found.replica_set_name, *(server.replica_set_name for server in servers)) if name]
    return f"replica set {names[0]}" if names else "standalone" if servers else None


def warn_of_lost_writes(durability: str) -> None:
    """Say once what it costs that writes to a replica set wait for its primary alone."""
    asked = "CC_DURABILITY=memory" if durability == "memory" else "w=1 in CC_MONGO_CONNECTION_STRING"
    log(
        "warning",
        f"{asked} on a replica set: a write is acknowledged before another member has it, so a fail-over may lose it; "
        "CC_DURABILITY=journal without w in the connection string waits for a majority",
    )


def write_concern(client: MongoClient[Any], durability: Literal["journal", "memory"]) -> WriteConcern:
    """What the connection string says, and of the rest what durability asks for. ConfigError for w=0."""
    wanted = dict(client.write_concern.document)
    if wanted.get("w") == 0:
        raise ConfigError("w=0 in CC_MONGO_CONNECTION_STRING: writes without acknowledgement cannot be read back reliably")
    # Without w the server takes {j: true}, and also {wtimeout: ...}, for w: 1, which is less than it does when it is told nothing.
    wanted = {"w": "majority", "j": True, **wanted} if durability == "journal" else {"w": 1, **wanted}
    if wanted["w"] != 1 and client.options.timeout is None:
        seconds = client.options.pool_options.socket_timeout
        wanted = {"wtimeout": int(seconds * 750) if seconds else DEFAULT_TIMEOUT_MS, **wanted}
    return WriteConcern(**wanted)
