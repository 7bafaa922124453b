"""Create pymongo's client, with defaults for what the connection string leaves open: timeouts, monitoring, write concern."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import parse_qsl

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from ...config import DEFAULT_TIMEOUT_MS
from ...errors import ConfigError
from ...logs import log
from .errors import is_unresolved, translated

__all__ = ["is_sharded", "make_client", "primary", "topology", "warn_of_lost_writes", "write_concern"]

HEARTBEAT_MS = 2_000
"""How often pymongo's monitor checks a server, in ms, if nothing changes."""


def make_client(uri: str) -> MongoClient[dict[str, Any]]:
    """Return a client that has not connected yet. Raises ConfigError if pymongo cannot use the connection string."""
    given = {name.lower(): value for name, value in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    defaults: dict[str, Any] = {"appname": "backtest-kit-mongo", "connect": False}
    if "retryreads" not in given:
        # ``errors.retried`` retries instead: pymongo would wait three times for a server that does not answer.
        defaults["retryReads"] = False
    if "heartbeatfrequencyms" not in given:
        # The monitor learns at once of a server that goes away and of a new primary, but of anything else only at its next heartbeat:
        # after a failed login, each call waits for one.
        defaults["heartbeatFrequencyMS"] = HEARTBEAT_MS
    if "timeoutms" not in given:
        defaults |= _time_outs(given)
    try:
        return MongoClient(uri, **defaults)
    except (PyMongoError, ValueError, OSError) as error:  # OSError: a certificate file that is unreadable or invalid
        if isinstance(error, PyMongoError) and uri.startswith("mongodb+srv://") and is_unresolved(error):
            raise translated(error) from None
        # The text of these errors may contain parts of the connection string, and so of the password.
        raise ConfigError(f"CC_MONGO_CONNECTION_STRING cannot be used ({type(error).__name__})") from None


def _time_outs(given: Mapping[str, str]) -> dict[str, int]:
    """Return the timeouts (ms) that the options of a connection string do not set: 15 s without a reply.

    The socket timeout is longer than ``wtimeoutMS``, so that the server can still report a write that was not confirmed in time.
    """
    timeouts = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), DEFAULT_TIMEOUT_MS)
    with suppress(ValueError):  # pymongo itself reports an invalid number
        timeouts["socketTimeoutMS"] = max(DEFAULT_TIMEOUT_MS, int(given.get("wtimeoutms", 0)) * 4 // 3)
    return {name: value for name, value in timeouts.items() if name.lower() not in given}


def is_sharded(client: MongoClient[Any]) -> bool | None:
    """Return whether pymongo is connected to a mongos; None until it has reached a server."""
    kind = client.topology_description.topology_type_name
    return None if kind == "Unknown" else kind == "Sharded"


def primary(client: MongoClient[Any]) -> object:
    """Return what identifies the server that pymongo writes to, its election and its process.

    None until pymongo has reached one, and for a mongos, whose shards have primaries of their own.
    """
    for server in client.topology_description.server_descriptions().values():
        if server.is_writable and server.server_type_name != "Mongos":
            process = (server.topology_version or {}).get("processId")  # a standalone server has no elections
            return server.address, server.election_id, process
    return None


def topology(client: MongoClient[Any]) -> str | None:
    """Return "standalone", "replica set NAME" or "sharded cluster"; None until pymongo has reached a server."""
    description = client.topology_description
    if description.topology_type_name == "Unknown":
        return None
    if description.topology_type_name == "Sharded":
        return "sharded cluster"
    servers = [server for server in description.server_descriptions().values() if server.is_server_type_known]
    names = [name for name in (description.replica_set_name, *(server.replica_set_name for server in servers)) if name]
    return f"replica set {names[0]}" if names else "standalone" if servers else None


def warn_of_lost_writes(durability: str) -> None:
    """Warn that writes to a replica set can be lost if they wait only for its primary."""
    setting = "CC_DURABILITY=memory" if durability == "memory" else "w=1 in CC_MONGO_CONNECTION_STRING"
    log(
        "warning",
        f"{setting} on a replica set: a write is acknowledged before another member has it, so a failover may lose it; "
        "to wait for a majority, set CC_DURABILITY=journal and leave w out of the connection string",
    )


def committed(collection: Collection[dict[str, Any]]) -> Collection[dict[str, Any]]:
    """Return a collection whose reads and writes no election undoes, whatever the connection string and CC_DURABILITY say."""
    client: MongoClient[dict[str, Any]] = collection.database.client
    concern = write_concern(client, "journal").document
    majority = WriteConcern(**{**_wtimeout(client), **concern, "w": "majority", "j": True})
    return collection.with_options(read_concern=ReadConcern("majority"), write_concern=majority)


def write_concern(client: MongoClient[Any], durability: Literal["journal", "memory"]) -> WriteConcern:
    """Return the write concern of the connection string, completed as ``durability`` requires. Raises ConfigError for w=0."""
    document = dict(client.write_concern.document)
    if document.get("w") == 0:
        raise ConfigError("CC_MONGO_CONNECTION_STRING sets w=0: unacknowledged writes cannot be read back reliably")
    # Without w, the server takes {j: true} or {wtimeout: ...} for w: 1, which is weaker than its default without any write concern.
    document = {"w": "majority", "j": True, **document} if durability == "journal" else {"w": 1, **document}
    return WriteConcern(**document if document["w"] == 1 else {**_wtimeout(client), **document})


def _wtimeout(client: MongoClient[Any]) -> dict[str, int]:
    """Return the timeout of a write concern (ms): shorter than that of the socket, so that the server can report it."""
    if client.options.timeout is not None:
        return {}
    seconds = client.options.pool_options.socket_timeout
    return {"wtimeout": int(seconds * 750) if seconds else DEFAULT_TIMEOUT_MS}
