"""``flush-cache``: forget the ids in Redis."""

from __future__ import annotations

import time

from ..contracts.default_registry import default_registry
from .command import ServerOptions
from .output import counted, places, say

__all__ = ["flush_cache"]


def flush_cache(link: ServerOptions) -> None:
    """Drop the ids that this library keeps in Redis. Always safe.

    Redis holds only shortcuts, from the name of a record to its id in MongoDB. Without them nothing is lost: the next read of
    each record goes to MongoDB and puts its shortcut back. Only keys with our prefixes (signal_cache:, candle_cache: and so on)
    are removed, by SCAN and UNLINK; other keys of the same Redis are left alone, and MongoDB is not contacted.

    Example:

        $ backtest-kit-mongo flush-cache --redis-host 127.0.0.1
    """
    link.connect()
    default_registry.mongo.redis_ids.ping(time.monotonic() + link.timeout)
    dropped = default_registry.mongo.drop_cache()
    say(f"{counted(dropped, 'id')} dropped from Redis at {places(default_registry.mongo.config)['Redis']}")
