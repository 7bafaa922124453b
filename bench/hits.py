"""Sides that read stored signals one at a time, shared by the single-hit benchmarks and the long run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bson import ObjectId
from floor import MongoWire, RedisWire, find, redis_command
from interleaved import Side
from rivals import Plain
from sample_data import Context, document, filter_of, redis_key

__all__ = ["RawHits", "endless", "fill", "reading"]

_ID_REPLY = len(b"$24\r\n") + 24 + len(b"\r\n")


def fill(plain: Plain, contexts: Sequence[Context], payload: Callable[[], dict[str, Any]]) -> list[ObjectId]:
    """Store a signal for each context, and its id in Redis, as fast as possible; return the ids."""
    rows = [{"_id": ObjectId(), **document(context, payload())} for context in contexts]
    plain.signals.insert_many(rows, ordered=False)
    ids = [row["_id"] for row in rows]
    plain.redis.mset({redis_key(context): str(value) for context, value in zip(contexts, ids, strict=True)})
    return ids


def endless(items: Sequence[Any]) -> Iterator[Any]:
    """Yield all items over and over in a random order, so that no side finds the server warmed by another side's reads."""
    items = random.sample(items, len(items))
    while True:
        yield from items


def reading(read: Callable[..., Any], contexts: Sequence[Context]) -> Side:
    """Return a side that reads one context after the other with ``read(symbol, strategy, exchange)``."""
    order = endless(contexts)
    return Side(lambda: read(*next(order)))


class RawHits:
    """The same reads as prebuilt bytes. ``ids`` belong to ``contexts``; every context must be stored and in Redis."""

    def __init__(self, mongo: MongoWire, redis: RedisWire, database: str, contexts: Sequence[Context], ids: Sequence[ObjectId]) -> None:
        by_id = [find(database, "signal-items", {"_id": value}) for value in ids]
        by_key = [find(database, "signal-items", filter_of(context)) for context in contexts]
        gets = [redis_command("GET", redis_key(context)) for context in contexts]
        for message in (by_id[0], by_key[0]):
            assert mongo.ask(message)["cursor"]["firstBatch"][0]["_id"] == ids[0]
        assert redis.ask(gets[0], _ID_REPLY) == b"$24\r\n" + str(ids[0]).encode() + b"\r\n"
        one, two, key = endless(by_id), endless(list(zip(gets, by_id, strict=True))), endless(by_key)

        def redis_then_id() -> None:
            get, message = next(two)
            redis.exchange(get, _ID_REPLY)
            mongo.exchange(message)

        self.by_id = Side(lambda: mongo.exchange(next(one)))
        self.by_key = Side(lambda: mongo.exchange(next(key)))
        self.redis_then_id = Side(redis_then_id)
