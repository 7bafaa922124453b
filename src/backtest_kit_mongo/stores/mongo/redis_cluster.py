"""The id cache on a Redis cluster, where each key belongs to a slot and each slot to one of the nodes.

It uses redis-py's cluster client, which follows slots that move. A batch is grouped by slot and sent to the nodes in parallel, in one
pipeline per node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from ..._core.keys import KeyBuilder
from ...config import Config
from ...metrics import Metrics
from ..base import Key
from .redis_client import login
from .redis_ids import RedisIds

__all__ = ["ClusterIds", "redis_ids"]

# Clients inherited through fork. They are kept so that no destructor closes connections that the parent still uses.
_inherited: list[Any] = []

Ask = Callable[[RedisCluster], Any]


def redis_ids(config: Config, metrics: Metrics) -> RedisIds:
    """Return the id cache in Redis for the settings: on a cluster or on one server."""
    return ClusterIds(config, metrics) if config.CC_REDIS_CLUSTER else RedisIds(config, metrics)


class _Commands:
    """The commands of one domain as calls of the cluster client; a KeyBuilder builds the same commands as bytes."""

    def __init__(self, builder: KeyBuilder) -> None:
        self._builder = builder

    def get(self, key: Key) -> Ask:
        name = self._builder.key(key)
        return lambda client: client.get(name)

    def mget(self, keys: Iterable[Key]) -> Ask:
        names = [self._builder.key(key) for key in keys]
        return lambda client: client.mget_nonatomic(names)

    def set(self, key: Key, value: bytes) -> Ask:
        name, text = self._builder.key(key), value.hex()
        return lambda client: client.set(name, text)

    def mset(self, pairs: Iterable[tuple[Key, bytes]]) -> Ask:
        values = {self._builder.key(key): value.hex() for key, value in pairs}
        return lambda client: client.mset_nonatomic(values)

    def mset_grid(self, series: Key, pairs: Iterable[tuple[int, bytes]]) -> Ask:
        return self.mset(((*series, timestamp), value) for timestamp, value in pairs)

    def delete(self, keys: Iterable[Key]) -> Ask:
        return partial(_each, "DEL", [self._builder.key(key) for key in keys])


def _each(command: str, keys: Sequence[bytes], client: RedisCluster) -> int:
    """Send a command for each key in one pipeline; return the sum of the replies."""
    pipe: Any = client.pipeline()  # type: ignore[no-untyped-call]
    for key in keys:
        pipe.execute_command(command, key)
    return sum(pipe.execute())


class ClusterIds(RedisIds):
    """The id cache on a cluster. The client is created at its first use, and asks the configured node for the others."""

    def _connect(self, *, over_wire: bool) -> None:
        self._cluster: RedisCluster | None = None
        self.commands: Mapping[str, Any] = {name: _Commands(builder) for name, builder in self.builders.items()}

    def renew(self) -> None:
        """Start without connections; see ``fork_safety``."""
        super().renew()
        if self._cluster is not None:
            _inherited.append(self._cluster)
        self._cluster = None

    @property
    def client(self) -> Any:  # type: ignore[override]
        """The client of this process. It is created outside the lock, since it connects to a node that may not answer."""
        client = self._cluster
        if client is not None:
            return client
        created = self._made({})
        with self._lock:
            if self._cluster is None and not self._closed:
                self._cluster = created
            client = self._cluster
        if client is not created:
            created.close()
        if client is None:
            raise RedisConnectionError("the id cache was closed")
        return client

    def _made(self, limits: dict[str, float]) -> RedisCluster:
        host, port = self.address.address
        return RedisCluster(host=host, port=port, **{**login(self.address, self._seconds), **limits})

    def _send(self, command: Ask, posted: bool) -> Any:
        return command(self.client)

    def take_connection_in_order(self, *, writes: bool = False) -> None:
        """Return None: on a cluster, no connection belongs to a thread."""

    def _ask(self, limits: dict[str, float]) -> None:
        client = self._made(limits)
        try:
            self.commands["signal"].get(("", "", ""))(client)
        finally:
            client.close()

    def server_info(self, *sections: str) -> list[dict[str, Any]]:
        """Return the reply to INFO of each primary."""
        with self.explicit():
            return list(self.client.info(*sections, target_nodes=RedisCluster.PRIMARIES).values())

    def _unlink(self, keys: Sequence[bytes]) -> int:
        return _each("UNLINK", keys, self.client)

    def close(self) -> None:
        """Close the connections. The cache opens no new ones."""
        self._closed = True
        with self._lock:
            cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()
