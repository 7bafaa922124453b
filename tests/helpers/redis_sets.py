"""Sets of Redis servers on TCP ports: a cluster of three, and a primary with a replica and three Sentinels."""

from __future__ import annotations

import contextlib

import redis
from ports import free_port
from redis.exceptions import RedisError, ResponseError
from waiting import wait_for

from backtest_kit_mongo.servers import RedisServer


class Node(RedisServer):
    """A Redis with more settings that listens on a TCP port as well."""

    __test__ = False

    def __init__(self, folder, password=None, **settings):
        super().__init__(folder, port=free_port(beside=10_000), password=password)  # port + 10,000 is the cluster bus
        self.settings = settings

    def _input(self):
        return super()._input() + "".join(f"{name.replace('_', '-')} {value}\n" for name, value in self.settings.items()).encode()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def client(self):
        """Return a new client."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=60)


class Sentinel(Node):
    """A Sentinel, which keeps its state in its configuration file."""

    __test__ = False

    def _arguments(self):
        path = self.data_dir / "sentinel.conf"
        if not path.exists():
            self.data_dir.mkdir(exist_ok=True)
            path.write_text(f"port {self.port}\nbind 127.0.0.1\nunixsocket {self.socket}\n" + self.settings["text"])
        return [str(path), "--sentinel"]

    def _input(self):
        return b""


class Cluster:
    """A Redis cluster of three primaries."""

    def __init__(self, folder):
        self.nodes = [
            Node(folder / str(number), cluster_enabled="yes", cluster_config_file="nodes.conf", cluster_node_timeout=2000)
            for number in range(3)
        ]

    def __enter__(self):
        for node in self.nodes:
            node.start()
        clients = [node.client() for node in self.nodes]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 5462, min(number * 5462 + 5461, 16383))
            for other in self.nodes[:number]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
        for client in clients:
            assert wait_for(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok")
            assert wait_for(lambda client=client: len(client.execute_command("CLUSTER SHARDS")) == 3)
            client.close()
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.stop()

    def contents(self):
        """Return the keys of each node."""
        collected = []
        for node in self.nodes:
            with node.client() as client:
                collected.append(set(client.keys("*")))
        return collected


PATIENCE = 240.0
"""Seconds that Sentinels are given. One that was held up for two seconds does nothing for thirty (its TILT mode), and then once more."""


class Watched:
    """A primary, its replica, and three Sentinels that promote the replica when the primary is down for two seconds."""

    def __init__(self, folder):
        self.primary, self.replica = Node(folder / "0"), Node(folder / "1")
        text = f"""sentinel monitor ids 127.0.0.1 {self.primary.port} 2
sentinel down-after-milliseconds ids 2000
sentinel failover-timeout ids 5000
"""
        self.sentinels = [Sentinel(folder / f"sentinel-{number}", text=text) for number in range(3)]

    @property
    def setting(self):
        return f"{','.join(sentinel.address for sentinel in self.sentinels)}/ids"

    def __enter__(self):
        for server in (self.primary, self.replica):
            server.start()
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", self.primary.port)
            assert wait_for(lambda: client.info("replication")["master_link_status"] == "up", PATIENCE)
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            with sentinel.client() as client:

                def settled(client=client):
                    (known,) = client.sentinel_masters().values()
                    return (known["num-slaves"], known["num-other-sentinels"]) == (1, 2)

                assert wait_for(settled, PATIENCE)
        return self

    def __exit__(self, *_):
        for server in (*self.sentinels, self.replica, self.primary):
            server.stop()

    def is_primary(self, server):
        try:
            with server.client() as client:
                return client.info("replication")["role"] == "master"
        except RedisError:
            return False

    def is_named(self, server):
        """Return whether every Sentinel names `server` as the primary.

        This happens later than the change of the server's own role. In between, a Sentinel that was held up may abort the failover. If the
        former primary is back by then, it stays the primary.
        """
        return all(self._named_by(sentinel) == server.port for sentinel in self.sentinels)

    def fail_over(self):
        """Fail over to the replica, unless that has happened; try again if the Sentinels abort, or go back because a server was held up."""

        def handed_over():
            if self._named_by(self.sentinels[0]) == self.primary.port:
                with self.sentinels[0].client() as client, contextlib.suppress(ResponseError):  # a failover is already in progress
                    client.sentinel_failover("ids")
            return self.is_named(self.replica) and not self.is_primary(self.primary)

        assert wait_for(handed_over, PATIENCE)

    def _named_by(self, sentinel):
        with sentinel.client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "ids")
        return int(port)
