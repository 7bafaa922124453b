"""Create redis-py's client for an address: a single server, or the primary that Sentinels name. No I/O here."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...redis_address import RedisAddress

__all__ = ["login", "make_client"]


def make_client(address: RedisAddress, seconds: float) -> redis.Redis:
    """Return a client with a timeout of ``seconds`` and no retries: the id cache reconnects once itself, then goes without Redis."""
    options = {**login(address, seconds), "db": address.db}
    if address.sentinels:
        user, password = address.sentinel_user, address.sentinel_password
        sentinel_options = {**options, "username": user or None, "password": password or None, "db": 0}
        sentinel: Any = Sentinel
        client: redis.Redis = sentinel(list(address.sentinels), sentinel_kwargs=sentinel_options, **options).master_for(address.service)
        return client
    if address.path:
        return redis.Redis(unix_socket_path=address.path, **options)
    host, port = address.address
    return redis.Redis(host=host, port=port, **options)


def login(address: RedisAddress, seconds: float) -> dict[str, Any]:
    """Return the login, timeouts (``seconds``) and TLS options, as keyword arguments for redis-py."""
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    tls = {"ssl": True, "ssl_check_hostname": True, **address.tls_options} if address.tls else {}
    return {"username": address.user or None, "password": address.password or None, **limits, **tls}
