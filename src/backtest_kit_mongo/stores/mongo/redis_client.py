"""The client of redis-py for a place: one server, over TLS or not, the primary that Sentinels know, or a cluster. No I/O here."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...redis_address import RedisAddress

__all__ = ["login", "make_client"]


def make_client(place: RedisAddress, seconds: float) -> redis.Redis:
    """A client that waits ``seconds`` at most, and tries nothing again: one reconnect is ours, the rest is for the cache to sit out."""
    options = {**login(place, seconds), "db": place.db}
    if place.sentinels:
        user, password = place.sentinel_user, place.sentinel_password
        known = {**options, "username": user or None, "password": password or None, "db": 0}
        sentinel: Any = Sentinel
        found: redis.Redis = sentinel(list(place.sentinels), sentinel_kwargs=known, **options).master_for(place.service)
        return found
    where: dict[str, Any] = {"unix_socket_path": place.path} if place.path else dict(zip(("host", "port"), place.address, strict=True))
    return redis.Redis(**where, **options)


def login(place: RedisAddress, seconds: float) -> dict[str, Any]:
    """What redis-py wants to know beside the address."""
    limits = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    tls = {"ssl": True, "ssl_check_hostname": True, **place.tls_options} if place.tls else {}
    return {"username": place.user or None, "password": place.password or None, **limits, **tls}
