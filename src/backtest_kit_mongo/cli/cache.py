"""``flush-cache``: drop the ids in Redis, and the packed candles."""

from __future__ import annotations

import time

import pymongo

from ..contracts.default_registry import default_registry
from .command import ServerOptions
from .output import counted, say, server_addresses

__all__ = ["flush_cache"]


def flush_cache(server_options: ServerOptions) -> None:
    """Drop the ids that this library keeps in Redis, and its packed blocks of candles in MongoDB. Safe at any time.

    Redis is only a cache that maps the key of a record to its id in MongoDB. Nothing is lost without it: the next read of each
    record queries MongoDB and stores the id in Redis again. The command removes only keys with the prefixes of this library
    (signal_cache:, candle_cache: and so on), with SCAN and UNLINK. Other keys in the same Redis stay.

    Packed blocks are copies of candles for fast reading (collection candle-blocks). The candles themselves stay, and the next long
    read packs them again. Do this after you changed candles in the database with other tools, or use `candles verify`.

    Example:

        $ backtest-kit-mongo flush-cache --redis-host 127.0.0.1
    """
    server_options.connect()
    default_registry.mongo.redis_ids.ping(time.monotonic() + server_options.timeout)
    dropped = default_registry.mongo.drop_cache()
    addresses = server_addresses(default_registry.mongo.config)
    say(f"{counted(dropped, 'id')} dropped from Redis at {addresses['Redis']}")
    with pymongo.timeout(server_options.timeout):
        blocks = default_registry.mongo.candles.drop_packed()
    say(f"{counted(blocks, 'packed block')} of candles dropped from MongoDB at {addresses['MongoDB']}")
