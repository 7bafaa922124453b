"""The id caches: ids in this process, and in Redis for all processes. They never hold a body; MongoDB is the truth.

A Redis entry is a plain string without expiry, as the TypeScript package writes it: ``prefix:fields`` -> 24 hexadecimal digits.
No read or write fails because of Redis: an outage is counted, logged once, and reads and writes go on without Redis.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..._core import keys as core
from ..._core.ids import IdTable
from ...config import Config
from ...domains import DOMAINS, Domain
from ...errors import OWN_SERVERS, BacktestKitError, DatabaseError, InvalidTypeError, ServerTimeoutError, ServerUnavailableError
from ...logs import log
from ...metrics import REDIS_ERRORS, Metrics
from ...redis_address import RedisAddress, redis_address
from ..base import Key, check_key
from ..fork_safety import renew_after_fork
from .redis_client import make_client
from .redis_connections import CircuitBreaker, DriverConnection, PostedError, WireConnection, reason

__all__ = ["GARBAGE", "DomainIds", "ProcessIds", "RedisIds"]

GARBAGE: Final = b""
"""Represents a Redis value that is not an id (wrong type or format), so the entry must be repaired."""

SCAN_COUNT: Final = 1000
_WHERE: Final = f"is it running? CC_REDIS_HOST and CC_REDIS_PORT, or CC_REDIS_URL, set its address; {OWN_SERVERS}"
_LONGEST_ATTEMPT: Final = 8.0  # seconds
_CERTIFICATE: Final = (
    "CC_REDIS_URL=rediss://...?ssl_ca_certs=FILE trusts the authority in FILE; the host name must be one that the certificate is for"
)
_RIGHTS: Final = (
    "allow GET, MGET, SET, MSET and DEL on the keys {prefix}*_cache:*, and for flush-cache and id_cache SCAN, UNLINK and EXISTS"
)


class ProcessIds:
    """The ids that this process has seen, at most ``limit`` per domain. Two keys may share an entry, so every hit must be verified."""

    def __init__(self, limit: int) -> None:
        self._ids = {name: IdTable(limit) for name in DOMAINS}

    def of(self, domain: Domain) -> IdTable:
        """Return the ids of one domain."""
        return self._ids[domain.name]

    def get(self, domain: Domain, key: Key) -> bytes | None:
        """Return the id (12 bytes) of a key; None if it is not cached."""
        return self._ids[domain.name].get(key)

    def get_many(self, domain: Domain, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the id (12 bytes) of each key; None if it is not cached."""
        return self._ids[domain.name].get_many(keys)

    def put(self, domain: Domain, key: Key, value: bytes) -> None:
        """Remember an id."""
        self._ids[domain.name].put(key, value)

    def drop(self, domain: Domain, key: Key) -> None:
        """Forget an id."""
        self._ids[domain.name].drop(key)

    def clear(self, domain: Domain | None = None) -> None:
        """Forget the ids of one domain, or of all."""
        for name in DOMAINS if domain is None else (domain.name,):
            self._ids[name].clear()


class RedisIds:
    """The id cache in Redis. During an outage its methods do nothing, except the explicit ones (ping, scan, clear), which raise."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._seconds = config.CC_REDIS_TIMEOUT_MS / 1000
        self.address: RedisAddress = redis_address(config)
        self.prefix: str = config.CC_REDIS_PREFIX
        self._metrics = metrics
        # The keys and commands of each domain.
        self.builders: Mapping[str, core.KeyBuilder] = {
            name: core.KeyBuilder(f"{self.prefix}{domain.prefix}".encode(), domain.cache_order) for name, domain in DOMAINS.items()
        }
        self.commands: Mapping[str, Any] = self.builders
        self._connect(over_wire=config.CC_WIRE_LANE)
        self._reach = CircuitBreaker(
            "Redis is not available ({}); reads and writes continue with MongoDB alone", "Redis is available again"
        )
        self._taking = CircuitBreaker(
            "Redis does not accept writes ({}); reads and writes continue with MongoDB", "Redis accepts writes again"
        )
        self._closed = False
        self.renew()
        renew_after_fork(self)

    def _connect(self, *, over_wire: bool) -> None:
        """Create the client. No I/O."""
        self.client: redis.Redis = make_client(self.address, self._seconds)
        self._pool = self.client.connection_pool
        self._wire = over_wire

    def redis_key(self, domain: Domain, key: Key) -> bytes:
        """Return the Redis key of a record."""
        name: bytes = self.builders[domain.name].key(key)
        return name

    def renew(self) -> None:
        """Start without connections; see ``fork_safety``. (redis-py's own pool does the same by itself.)"""
        self._reach.renew()
        self._taking.renew()
        self._lock = threading.RLock()
        self._local = threading.local()
        self._connections: weakref.WeakSet[DriverConnection | WireConnection] = weakref.WeakSet()

    # --- one command and its reply ---

    def _take_connection(self) -> DriverConnection | WireConnection:
        """Take this thread's own connection, opening one if needed: going through the pool costs as much as the round trip of a GET.

        Nothing else can take it until it is given back: code that runs during an exchange (a signal handler, a finalizer) gets another one.
        """
        connection: DriverConnection | WireConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            return connection
        driver_connection = self._pool.connection_class(**self._pool.connection_kwargs)
        if self._wire and not hasattr(driver_connection, "_sock"):
            self._wire = False
            log(
                "info",
                f"the wire protocol cannot be used with redis-py {redis.__version__} (no _sock); all commands go through redis-py itself",
            )
        connection = WireConnection(driver_connection, self._seconds) if self._wire else DriverConnection(driver_connection)
        with self._lock:
            self._connections.add(connection)
        return connection

    def take_connection_in_order(self, *, writes: bool = False) -> WireConnection | None:
        """Take this thread's connection if it is open and there is no outage, else return None. Give it back afterwards."""
        if self._closed or self._reach.on or (writes and self._taking.on):
            return None
        connection = getattr(self._local, "connection", None)
        if not isinstance(connection, WireConnection) or connection.socket is None:
            return None
        self._local.connection = None
        return connection

    def give_back(self, connection: DriverConnection | WireConnection) -> None:
        """Return a connection after an exchange, successful or not."""
        if self._closed:
            connection.close()
        else:
            self._local.connection = connection

    def _send(self, command: Any, posted: bool) -> Any:
        connection = self._take_connection()
        send = connection.post if posted else connection.call
        is_retry, connection.broke = connection.broke, False
        try:
            return send(command)
        except RedisTimeoutError:
            raise
        except RedisConnectionError:
            if self._closed or is_retry:
                raise
            # The connection may have broken when the server restarted; try once on a new one.
            return send(command)
        finally:
            self.give_back(connection)

    def _guarded(self, domain: Domain, command: Any, *, writes: bool = False, posted: bool = False) -> Any:
        """Send a command; return the reply, GARBAGE for a value of the wrong type, or None during an outage.

        With ``posted``, this thread's next command reads the reply; not during an outage, since the reply may show that it is over.
        """
        if self._closed or self._reach.blocks() or (writes and self._taking.blocks()):
            return None
        started = time.monotonic()
        try:
            reply = self._send(command, posted and not (self._reach.on or self._taking.on))
        except PostedError as error:
            self._metrics.domains[domain.name].add(REDIS_ERRORS)
            self._taking.begin(error, started)
            return error.answer
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return GARBAGE
            self._metrics.domains[domain.name].add(REDIS_ERRORS)
            # Out of memory, a replica, no permission, a full disk: reads may still work.
            (self._taking if writes else self._reach).begin(error, started)
            return None
        except (RedisError, RedisClusterException, OSError) as error:
            if not self._closed:
                self._metrics.domains[domain.name].add(REDIS_ERRORS)
                self._reach.begin(error, started)
            return None
        if self._reach.on:
            self._reach.end(started)
        if writes and self._taking.on:
            self._taking.end(started)
        return reply

    def timed_out(self, domain: Domain, error: Exception, started: float) -> None:
        """Note that a command of a fast path, sent at ``started`` (time.monotonic), had no reply in time."""
        self._metrics.domains[domain.name].add(REDIS_ERRORS)
        self._reach.begin(error, started)

    # --- ids ---

    def get(self, domain: Domain, key: Key) -> bytes | None:
        """Return the value that Redis holds, GARBAGE if it is not a string, or None."""
        value: bytes | None = self._guarded(domain, self.commands[domain.name].get(key))
        return value

    def get_many(self, domain: Domain, keys: Sequence[Key]) -> list[bytes | None]:
        """Return the values of keys, with one MGET, or GET for a single key."""
        if len(keys) == 1:
            return [self.get(domain, keys[0])]
        reply = self._guarded(domain, self.commands[domain.name].mget(keys))
        if isinstance(reply, list) and len(reply) == len(keys):
            return reply
        if reply is not None:
            self._take_connection().close()  # this is the reply to another command: drop the connection, which is out of step
        return [None] * len(keys)

    def put(self, domain: Domain, key: Key, value: bytes) -> None:
        """Write one id."""
        self._guarded(domain, self.commands[domain.name].set(key, value), writes=True, posted=True)

    def put_many(self, domain: Domain, ids: Iterable[tuple[Key, bytes]]) -> None:
        """Write ids, a thousand per MSET; a single one as ``put`` does."""
        pairs = iter(ids)
        while chunk := list(islice(pairs, SCAN_COUNT)):
            if len(chunk) == 1:
                self.put(domain, *chunk[0])
                continue
            self._guarded(domain, self.commands[domain.name].mset(chunk), writes=True)

    def put_series(self, domain: Domain, series: Key, ids: Iterable[tuple[int, bytes]]) -> None:
        """Write the ids of keys that differ only in their last field, a thousand per MSET."""
        pairs = iter(ids)
        while chunk := list(islice(pairs, SCAN_COUNT)):
            self._guarded(domain, self.commands[domain.name].mset_grid(series, chunk), writes=True)

    def drop(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Delete the entries of keys."""
        if keys:
            self._guarded(domain, self.commands[domain.name].delete(keys), writes=True)

    # --- explicit ---

    def ping(self, deadline: float, given_up: threading.Event | None = None) -> None:
        """Wait until Redis answers, or until ``given_up`` is set.

        Each attempt may take twice as long as the one before, for a slow network, but not long: a connection may hang that a new one would
        replace.

        Raises ServerTimeoutError if it does not answer by ``deadline`` (time.monotonic), DatabaseError if it rejects login or command,
        ServerUnavailableError if its certificate is not accepted.
        """
        given_up = given_up or threading.Event()
        patience = 1.0
        while not given_up.is_set():
            started = time.monotonic()
            seconds = max(0.001, min(patience, deadline - started))
            patience = min(2 * patience, _LONGEST_ATTEMPT)
            limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
            try:
                self._ask(limits)
            except (RedisError, RedisClusterException, OSError) as error:
                if (refusal := self._refusal(error)) is not None:
                    raise refusal from None
                if time.monotonic() + 0.1 >= deadline:
                    raise ServerTimeoutError(f"Redis does not answer ({reason(error)})", hint=_WHERE) from None
                given_up.wait(0.1)
            else:
                self._reach.end(started)
                return

    def _ask(self, limits: dict[str, float]) -> None:
        """Read the id of a key that nobody uses, on a new connection. Unlike PING, the cache needs this command to be permitted."""
        connection = self._pool.connection_class(**{**self._pool.connection_kwargs, **limits})
        try:
            DriverConnection(connection).call(self.builders["signal"].get(("", "", "")))
        finally:
            connection.disconnect()

    def _refusal(self, error: Exception) -> DatabaseError | ServerUnavailableError | None:
        """Return our error if no later attempt can succeed: certificate, login or a permission; None for any other ``error``."""
        if "certificate verify failed" in str(error):
            return ServerUnavailableError(f"Redis cannot be reached ({reason(error)})", hint=_CERTIFICATE)
        if isinstance(error, NoPermissionError) or "NOPERM" in str(error):
            return DatabaseError(f"Redis rejected a command ({reason(error)})", hint=_RIGHTS.format(prefix=self.prefix))
        if isinstance(error, AuthenticationError) or str(error).startswith(("NOAUTH", "WRONGPASS")):
            return DatabaseError(f"Redis rejected the login ({reason(error)})", hint="check CC_REDIS_USER and CC_REDIS_PASSWORD")
        return None

    def scan(self, prefixes: Sequence[str]) -> Iterator[bytes]:
        """Yield the Redis keys under ``prefixes``, found with SCAN. Raises ServerUnavailableError if Redis cannot be reached."""
        escaped = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix)
        pattern = f"{escaped}{prefixes[0]}:*" if len(prefixes) == 1 else f"{escaped}*_cache:*"
        starts = tuple(f"{self.prefix}{prefix}:".encode() for prefix in prefixes)
        with self.explicit():
            for key in self.client.scan_iter(match=pattern, count=SCAN_COUNT):
                if key.startswith(starts):
                    yield key

    def clear(self, prefixes: Sequence[str]) -> int:
        """Delete the keys under ``prefixes`` with UNLINK; return how many were deleted. Other keys are not touched."""
        removed = 0
        names = self.scan(prefixes)
        with self.explicit():
            while chunk := list(islice(names, SCAN_COUNT)):
                removed += self._unlink(chunk)
        return removed

    def server_info(self, *sections: str) -> list[dict[str, Any]]:
        """Return the reply to INFO of each server that holds ids."""
        with self.explicit():
            return [self.client.info(*sections)]

    def _unlink(self, keys: Sequence[bytes]) -> int:
        return int(self.client.unlink(*keys))

    @contextmanager
    def explicit(self) -> Iterator[None]:
        """Translate redis-py's errors in the block into ours: calls that the user makes explicitly do fail during an outage."""
        try:
            yield
        except BacktestKitError:
            raise
        except (RedisError, RedisClusterException, OSError, UnicodeError) as error:
            if (refusal := self._refusal(error)) is not None:
                raise refusal from None
            if isinstance(error, RedisTimeoutError):
                raise ServerTimeoutError(f"Redis does not answer ({reason(error)})", hint=_WHERE) from None
            if isinstance(error, ResponseError):
                raise DatabaseError(f"Redis rejected the command ({reason(error)})") from None
            raise ServerUnavailableError(f"Redis cannot be reached ({reason(error)})", hint=_WHERE) from None

    def close(self) -> None:
        """Close the connections. The cache opens no new ones."""
        self._closed = True
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()
        self._local = threading.local()  # drops the last references to idle connections
        self.client.close()
        self._pool.disconnect()


class DomainIds:
    """The id cache of one domain, to inspect and repair by hand. Unlike reads and writes, these calls raise an error during an outage.

    Name a record with the arguments of a single read, without ``when``: ``get("BTCUSDT", "sma_cross", "binance")``.
    """

    def __init__(self, domain: Domain, process: ProcessIds, shared: RedisIds) -> None:
        self._domain, self._process, self._shared = domain, process, shared

    def _key(self, arguments: tuple[Any, ...]) -> Key:
        domain = self._domain
        if len(arguments) != len(domain.key_arguments):
            raise InvalidTypeError(
                f"{domain.name}: expected the arguments {', '.join(domain.key_arguments)}, got {len(arguments)} arguments"
            )
        return check_key(domain, domain.key_of(arguments))

    def get(self, *context: Any) -> str | None:
        """Return the id of the record named by ``context`` as Redis holds it (24 hexadecimal digits), or None."""
        key = self._shared.redis_key(self._domain, self._key(context))
        with self._shared.explicit():
            value: Any = self._shared.client.get(key)
        return None if value is None else bytes(value).decode("utf-8", "replace")

    def has(self, *context: Any) -> bool:
        """Return whether Redis holds an id for the record named by ``context``."""
        key = self._shared.redis_key(self._domain, self._key(context))
        with self._shared.explicit():
            return bool(self._shared.client.exists(key))

    def delete(self, *context: Any) -> bool:
        """Drop the id of the record named by ``context``, in this process and in Redis; return whether Redis held one."""
        key = self._key(context)
        self._process.drop(self._domain, key)
        with self._shared.explicit():
            return bool(self._shared.client.unlink(self._shared.redis_key(self._domain, key)))

    def keys(self) -> Iterator[str]:
        """Return an iterator over the Redis keys of the domain. It uses SCAN, so a key may come twice."""
        return (key.decode("utf-8", "replace") for key in self._shared.scan([self._domain.prefix]))

    def size(self) -> int:
        """Return how many ids Redis holds."""
        return len(set(self._shared.scan([self._domain.prefix])))

    def clear(self) -> int:
        """Drop all ids of the domain, in this process and in Redis; return how many Redis held. No data is touched."""
        self._process.clear(self._domain)
        return self._shared.clear([self._domain.prefix])
