"""``flush-cache``: drop the ids in Redis."""

from __future__ import annotations

import time

from ..contracts.default_registry import default_registry
from .command import ServerOptions
from .output import counted, say, server_addresses

__all__ = ["flush_cache"]


def flush_cache(server_options: ServerOptions) -> None:
    """Drop the ids that this library keeps in Redis. Always safe.

    Redis is only a cache that maps the key of a record to its id in MongoDB. Nothing is lost without it: the next read of each
    record queries MongoDB and stores the id in Redis again. The command removes only keys with the prefixes of this library
    (signal_cache:, candle_cache: and so on), with SCAN and UNLINK. Other keys in the same Redis stay. MongoDB is not contacted.

    Example:

        $ backtest-kit-mongo flush-cache --redis-host 127.0.0.1
    """
    server_options.connect()
    default_registry.mongo.redis_ids.ping(time.monotonic() + server_options.timeout)
    dropped = default_registry.mongo.drop_cache()
    say(f"{counted(dropped, 'id')} dropped from Redis at {server_addresses(default_registry.mongo.config)['Redis']}")
