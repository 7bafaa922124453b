"""Where an ``_id`` is remembered: in this process, and in Redis for all processes. Never a payload, never the truth.

A Redis entry is a plain string: ``prefix:fields`` -> 24 hexadecimal digits, without expiry, as the TypeScript package
writes it. Whatever Redis does, no read or write fails for it: an outage is counted, logged once, and sat out.
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
from ...redis_address import redis_address
from ..base import Key, check_key
from ..fork_safety import renew_after_fork
from .redis_client import make_client
from .redis_connections import CircuitBreaker, DriverConnection, PostedError, WireConnection, reason

__all__ = ["GARBAGE", "DomainIds", "ProcessIds", "RedisIds"]

GARBAGE: Final = b""
"""Stands for a Redis value that is no id (wrong type or form): the entry must be repaired."""

SCAN_COUNT: Final = 1000
_WHERE: Final = f"is it running? CC_REDIS_HOST and CC_REDIS_PORT, or CC_REDIS_URL, say where; {OWN_SERVERS}"
_RIGHTS: Final = (
    "needed are GET, MGET, SET, MSET and DEL on the keys {prefix}*_cache:*, for flush-cache and id_cache SCAN, UNLINK and EXISTS"
)


class ProcessIds:
    """The ids that this process has seen, at most ``limit`` of each domain. Two keys may share an entry: every hit must be verified."""

    def __init__(self, limit: int) -> None:
        self._ids = {name: IdTable(limit) for name in DOMAINS}

    def of(self, domain: Domain) -> IdTable:
        """The ids of one domain."""
        return self._ids[domain.name]

    def get(self, domain: Domain, key: Key) -> bytes | None:
        """The id, if this process knows it."""
        return self._ids[domain.name].get(key)

    def get_many(self, domain: Domain, keys: Iterable[Key]) -> list[bytes | None]:
        """The id of each key."""
        return self._ids[domain.name].get_many(keys)

    def put(self, domain: Domain, key: Key, value: bytes) -> None:
        """Remember an id."""
        self._ids[domain.name].put(key, value)

    def drop(self, domain: Domain, key: Key) -> None:
        """Forget an id."""
        self._ids[domain.name].drop(key)

    def clear(self, domain: Domain | None = None) -> None:
        """Forget the ids of one domain, or all."""
        for name in DOMAINS if domain is None else (domain.name,):
            self._ids[name].clear()


class RedisIds:
    """The shared cache. Every method but the explicit ones (ping, scan, clear) survives an outage by doing nothing."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._seconds = config.CC_REDIS_TIMEOUT_MS / 1000
        self.place = redis_address(config)
        self.prefix = config.CC_REDIS_PREFIX
        self._metrics = metrics
        # The keys and commands of each domain.
        self.builders: Mapping[str, core.KeyBuilder] = {
            name: core.KeyBuilder(f"{self.prefix}{domain.prefix}".encode(), domain.cache_order) for name, domain in DOMAINS.items()
        }
        self.commands: Mapping[str, Any] = self.builders
        self._connect(on_lane=config.CC_WIRE_LANE)
        self._reach = CircuitBreaker("Redis is not usable ({}); reads and writes go on with MongoDB alone", "Redis is back")
        self._taking = CircuitBreaker("Redis takes no ids ({}); reads and writes go on with MongoDB", "Redis takes ids again")
        self._closed = False
        self.renew()
        renew_after_fork(self)

    def _connect(self, *, on_lane: bool) -> None:
        """Make the client. No I/O."""
        self.client: redis.Redis = make_client(self.place, self._seconds)
        self._pool = self.client.connection_pool
        self._lane = on_lane

    def redis_key(self, domain: Domain, key: Key) -> bytes:
        """The Redis key of a record."""
        found: bytes = self.builders[domain.name].key(key)
        return found

    def renew(self) -> None:
        """Start without connections; see ``forks``. (redis-py's own pool does the same by itself.)"""
        self._reach.renew()
        self._taking.renew()
        self._lock = threading.RLock()
        self._local = threading.local()
        self._lines: weakref.WeakSet[DriverConnection | WireConnection] = weakref.WeakSet()

    # --- one command and back ---

    def _take_connection(self) -> DriverConnection | WireConnection:
        """This thread's own connection: going through the pool costs as much as the round trip of a GET.

        It is out of reach until it is given back: what runs inside of an exchange (a signal handler, a finalizer) gets another.
        """
        line: DriverConnection | WireConnection | None = getattr(self._local, "line", None)
        if line is not None:
            self._local.line = None
            return line
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        if self._lane and not hasattr(connection, "_sock"):
            self._lane = False
            log(
                "info",
                f"the wire lane cannot be used with redis-py {redis.__version__} (no _sock); all commands go through redis-py itself",
            )
        line = WireConnection(connection, self._seconds) if self._lane else DriverConnection(connection)
        with self._lock:
            self._lines.add(line)
        return line

    def take_connection_in_order(self, *, writes: bool = False) -> WireConnection | None:
        """This thread's connection if it stands and nothing is known to be wrong with Redis, to be given back."""
        if self._closed or self._reach.on or (writes and self._taking.on):
            return None
        line = getattr(self._local, "line", None)
        if not isinstance(line, WireConnection) or line.link is None:
            return None
        self._local.line = None
        return line

    def give_back(self, line: DriverConnection | WireConnection) -> None:
        """After an exchange, good or bad."""
        if self._closed:
            line.close()
        else:
            self._local.line = line

    def _send(self, command: Any, posted: bool) -> Any:
        line = self._take_connection()
        act = line.post if posted else line.call
        last, line.broke = line.broke, False
        try:
            return act(command)
        except RedisTimeoutError:
            raise
        except RedisConnectionError:
            if self._closed or last:
                raise
            # The connection may have died with an earlier server; a fresh one decides.
            return act(command)
        finally:
            self.give_back(line)

    def _guarded(self, domain: Domain, command: Any, *, writes: bool = False, posted: bool = False) -> Any:
        """The reply, GARBAGE for a value of the wrong type, or None while Redis cannot be used.

        ``posted``: the reply is read by this thread's next command, unless there is an outage whose end it may show.
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
            # Full, a replica, no right, a full disk: reads may go on.
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
        """A straight command, which began at ``started`` (time.monotonic), had no reply in time."""
        self._metrics.domains[domain.name].add(REDIS_ERRORS)
        self._reach.begin(error, started)

    # --- ids ---

    def get(self, domain: Domain, key: Key) -> bytes | None:
        """The value as Redis holds it (GARBAGE if it is no string), or None."""
        value: bytes | None = self._guarded(domain, self.commands[domain.name].get(key))
        return value

    def get_many(self, domain: Domain, keys: Sequence[Key]) -> list[bytes | None]:
        """The values of many keys with one MGET, or of one with GET."""
        if len(keys) == 1:
            return [self.get(domain, keys[0])]
        reply = self._guarded(domain, self.commands[domain.name].mget(keys))
        if isinstance(reply, list) and len(reply) == len(keys):
            return reply
        if reply is not None:
            self._take_connection().close()  # the reply of another command: this connection is out of step, and is not given back
        return [None] * len(keys)

    def put(self, domain: Domain, key: Key, value: bytes) -> None:
        """Write one id."""
        self._guarded(domain, self.commands[domain.name].set(key, value), writes=True, posted=True)

    def put_many(self, domain: Domain, ids: Iterable[tuple[Key, bytes]]) -> None:
        """Write many ids, a thousand per MSET; one alone as ``put`` does."""
        pairs = iter(ids)
        while chunk := list(islice(pairs, SCAN_COUNT)):
            if len(chunk) == 1:
                self.put(domain, *chunk[0])
                continue
            self._guarded(domain, self.commands[domain.name].mset(chunk), writes=True)

    def put_series(self, domain: Domain, series: Key, ids: Iterable[tuple[int, bytes]]) -> None:
        """Write the ids of keys that differ in their last field alone, a thousand per MSET."""
        pairs = iter(ids)
        while chunk := list(islice(pairs, SCAN_COUNT)):
            self._guarded(domain, self.commands[domain.name].mset_grid(series, chunk), writes=True)

    def drop(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Delete entries."""
        if keys:
            self._guarded(domain, self.commands[domain.name].delete(keys), writes=True)

    # --- explicit ---

    def ping(self, deadline: float, given_up: threading.Event | None = None) -> None:
        """Return when Redis answers, or when ``given_up`` is set; ServerTimeoutError when it does not by ``deadline`` (time.monotonic)."""
        given_up = given_up or threading.Event()
        while not given_up.is_set():
            started = time.monotonic()
            left = max(0.001, min(1.0, deadline - time.monotonic()))
            limits = {"socket_timeout": left, "socket_connect_timeout": left}
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
        """Read an id that nobody has, on a connection of its own: the command that a cache needs, where PING may be forbidden."""
        connection = self._pool.connection_class(**{**self._pool.connection_kwargs, **limits})
        try:
            DriverConnection(connection).call(self.builders["signal"].get(("", "", "")))
        finally:
            connection.disconnect()

    def _refusal(self, error: Exception) -> DatabaseError | None:
        """Our error where the user has no right to a command, or cannot log in; None if ``error`` is something else."""
        if isinstance(error, NoPermissionError) or "NOPERM" in str(error):
            return DatabaseError(f"Redis refuses a command ({reason(error)})", hint=_RIGHTS.format(prefix=self.prefix))
        if isinstance(error, AuthenticationError) or str(error).startswith(("NOAUTH", "WRONGPASS")):
            return DatabaseError(f"Redis refuses the login ({reason(error)})", hint="CC_REDIS_USER, CC_REDIS_PASSWORD")
        return None

    def scan(self, prefixes: Sequence[str]) -> Iterator[bytes]:
        """The keys under ``prefixes``, in batches of SCAN; ServerUnavailableError if Redis is away."""
        own = re.sub(r"([*?\[\]\\^])", r"\\\1", self.prefix)
        pattern = f"{own}{prefixes[0]}:*" if len(prefixes) == 1 else f"{own}*_cache:*"
        wanted = tuple(f"{self.prefix}{prefix}:".encode() for prefix in prefixes)
        with self.explicit():
            for key in self.client.scan_iter(match=pattern, count=SCAN_COUNT):
                if key.startswith(wanted):
                    yield key

    def clear(self, prefixes: Sequence[str]) -> int:
        """Delete the keys under ``prefixes`` with UNLINK; how many went. Nothing else in this Redis is touched."""
        removed = 0
        found = self.scan(prefixes)
        with self.explicit():
            while chunk := list(islice(found, SCAN_COUNT)):
                removed += self._unlink(chunk)
        return removed

    def server_info(self, *sections: str) -> list[dict[str, Any]]:
        """What INFO says, of each server that holds ids."""
        with self.explicit():
            return [self.client.info(*sections)]

    def _unlink(self, keys: Sequence[bytes]) -> int:
        return int(self.client.unlink(*keys))

    @contextmanager
    def explicit(self) -> Iterator[None]:
        """Redis calls that a person asked for do fail, with our errors."""
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
                raise DatabaseError(f"Redis refuses the command ({reason(error)})") from None
            raise ServerUnavailableError(f"Redis cannot be reached ({reason(error)})", hint=_WHERE) from None

    def close(self) -> None:
        """Close the connections; none is made again."""
        self._closed = True
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.close()
        self._local = threading.local()  # the last references to idle ones
        self.client.close()
        self._pool.disconnect()


class DomainIds:
    """The id cache of one domain, to look into and to repair by hand; unlike reads and writes, these calls raise while Redis is away.

    A record is named by the arguments of its single read, without ``when``: ``get("BTCUSDT", "sma_cross", "binance")``.
    """

    def __init__(self, domain: Domain, process: ProcessIds, shared: RedisIds) -> None:
        self._domain, self._process, self._shared = domain, process, shared

    def _key(self, arguments: tuple[Any, ...]) -> Key:
        domain = self._domain
        if len(arguments) != len(domain.key_arguments):
            raise InvalidTypeError(f"{domain.name}: an id is named by {', '.join(domain.key_arguments)}, got {len(arguments)} arguments")
        return check_key(domain, domain.key_of(arguments))

    def get(self, *context: Any) -> str | None:
        """The id as Redis holds it (24 hexadecimal digits), or None."""
        key = self._shared.redis_key(self._domain, self._key(context))
        with self._shared.explicit():
            value: Any = self._shared.client.get(key)
        return None if value is None else bytes(value).decode("utf-8", "replace")

    def has(self, *context: Any) -> bool:
        """Whether Redis holds an id."""
        key = self._shared.redis_key(self._domain, self._key(context))
        with self._shared.explicit():
            return bool(self._shared.client.exists(key))

    def delete(self, *context: Any) -> bool:
        """Forget an id, in this process and in Redis; whether Redis held one."""
        key = self._key(context)
        self._process.drop(self._domain, key)
        with self._shared.explicit():
            return bool(self._shared.client.unlink(self._shared.redis_key(self._domain, key)))

    def keys(self) -> Iterator[str]:
        """The Redis keys of the domain, by SCAN (one that moves meanwhile may come twice)."""
        return (key.decode("utf-8", "replace") for key in self._shared.scan([self._domain.prefix]))

    def size(self) -> int:
        """How many ids Redis holds."""
        return len(set(self._shared.scan([self._domain.prefix])))

    def clear(self) -> int:
        """Forget all ids of the domain, in this process and in Redis; how many Redis held. No data is touched."""
        self._process.clear(self._domain)
        return self._shared.clear([self._domain.prefix])
