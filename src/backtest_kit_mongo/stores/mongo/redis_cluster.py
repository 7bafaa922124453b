"""The id cache on a Redis cluster: its keys lie in slots, each on one of the nodes, and what is on several nodes is asked in parallel.

Through redis-py's cluster client, which follows slots that move. Batches are grouped by slot and sent in pipelines, one to a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

# Clients inherited through fork are kept, so that no destructor closes what the parent uses.
_inherited: list[Any] = []

Ask = Callable[[RedisCluster], Any]


def redis_ids(config: Config, metrics: Metrics) -> RedisIds:
    """The shared cache that the settings name."""
    return ClusterIds(config, metrics) if config.CC_REDIS_CLUSTER else RedisIds(config, metrics)


class _Commands:
    """The commands of one domain, as calls of the client; the counterpart of a KeyBuilder's bytes."""

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
        return self.mset(((*series, last), value) for last, value in pairs)

    def delete(self, keys: Iterable[Key]) -> Ask:
        return partial(_each, "DEL", [self._builder.key(key) for key in keys])


def _each(command: str, keys: Sequence[bytes], client: RedisCluster) -> int:
    """A command for each key, in one pipeline; the sum of what they say."""
    pipe: Any = client.pipeline()  # type: ignore[no-untyped-call]
    for key in keys:
        pipe.execute_command(command, key)
    return sum(pipe.execute())


class ClusterIds(RedisIds):
    """The shared cache on a cluster. A client is made at the first use, and asks the first node for the others."""

    def _connect(self, *, on_lane: bool) -> None:
        self._cluster: RedisCluster | None = None
        self.commands = {name: _Commands(builder) for name, builder in self.builders.items()}

    def renew(self) -> None:
        """Start without connections; see ``forks``."""
        super().renew()
        if self._cluster is not None:
            _inherited.append(self._cluster)
        self._cluster = None

    @property
    def client(self) -> Any:  # type: ignore[override]
        """The client of this process. Made outside of the lock: it asks the first node, which may be silent, for the others."""
        found = self._cluster
        if found is not None:
            return found
        made = self._made({})
        with self._lock:
            if self._cluster is None and not self._closed:
                self._cluster = made
            found = self._cluster
        if found is not made:
            made.close()
        if found is None:
            raise RedisConnectionError("the id cache was closed")
        return found

    def _made(self, limits: dict[str, float]) -> RedisCluster:
        host, port = self.place.address
        return RedisCluster(host=host, port=port, **{**login(self.place, self._seconds), **limits})

    def _send(self, command: Ask, posted: bool) -> Any:
        return command(self.client)

    def take_connection_in_order(self, *, writes: bool = False) -> None:
        """Always None, as no connection belongs to a thread."""

    def _ask(self, limits: dict[str, float]) -> None:
        client = self._made(limits)
        try:
            self.commands["signal"].get(("", "", ""))(client)
        finally:
            client.close()

    def server_info(self, *sections: str) -> list[dict[str, Any]]:
        """What INFO says, of each primary."""
        with self.explicit():
            return list(self.client.info(*sections, target_nodes=RedisCluster.PRIMARIES).values())

    def _unlink(self, keys: Sequence[bytes]) -> int:
        return _each("UNLINK", keys, self.client)

    def close(self) -> None:
        """Close the connections; none is made again."""
        self._closed = True
        with self._lock:
            cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()
