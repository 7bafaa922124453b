"""Create redis-py's client for an address: a single server, or the primary that Sentinels name. No I/O here."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...redis_address import RedisAddress

__all__ = ["login", "make_client"]


def make_client(place: RedisAddress, seconds: float) -> redis.Redis:
    """Return a client with a timeout of ``seconds`` and no retries: the id cache reconnects once itself, then goes without Redis."""
    options = {**login(place, seconds), "db": place.db}
    if place.sentinels:
        user, password = place.sentinel_user, place.sentinel_password
        sentinel_options = {**options, "username": user or None, "password": password or None, "db": 0}
        sentinel: Any = Sentinel
        client: redis.Redis = sentinel(list(place.sentinels), sentinel_kwargs=sentinel_options, **options).master_for(place.service)
        return client
    target: dict[str, Any] = {"unix_socket_path": place.path} if place.path else dict(zip(("host", "port"), place.address, strict=True))
    return redis.Redis(**target, **options)


def login(place: RedisAddress, seconds: float) -> dict[str, Any]:
    """Return the login, timeouts (``seconds``) and TLS options, as keyword arguments for redis-py."""
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    tls = {"ssl": True, "ssl_check_hostname": True, **place.tls_options} if place.tls else {}
    return {"username": place.user or None, "password": place.password or None, **limits, **tls}
