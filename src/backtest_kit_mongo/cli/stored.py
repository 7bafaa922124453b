"""What is stored, and what the two servers report about themselves. Everything here is read-only."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from .. import get_mongo
from ..contracts.default_registry import default_registry
from ..domains import DOMAINS, PACKED_CANDLES
from ..errors import DatabaseError
from ..stores.mongo.block_collection import FORBIDDEN
from ..stores.mongo.errors import translated

__all__ = ["candle_series", "documents", "mongodb_work", "redis_ids", "redis_work"]

_NAMESPACE_NOT_FOUND = 26


def documents(timeout: float) -> dict[str, dict[str, int]]:
    """Return the number of documents in MongoDB and their bytes, by domain."""
    counts = {}
    try:
        with pymongo.timeout(timeout):
            for name, domain in {**DOMAINS, "packed candles": PACKED_CANDLES}.items():
                size = _collection_size(domain.collection)
                counts[name] = {
                    "documents": int(size.get("count", 0)),
                    "dataBytes": int(size.get("size", 0)),
                    "storageBytes": int(size.get("storageSize", 0)),
                    "indexBytes": int(size.get("totalIndexSize", 0)),
                }
    except PyMongoError as error:
        raise translated(error) from error
    return counts


def candle_series(timeout: float) -> list[dict[str, Any]]:
    """Return each stored series with its candle documents, packed blocks, the candles in those, and the bytes of both."""
    names = DOMAINS["candle"].key[:3]
    rows = []
    try:
        with pymongo.timeout(timeout):
            database = get_mongo()
            packed = _packed_series()
            documents, average = database[DOMAINS["candle"].collection], _collection_size(DOMAINS["candle"].collection).get("avgObjSize", 0)
            # The few documents without a block are small.
            block_size = _collection_size(PACKED_CANDLES.collection).get("size", 0) / max(1, sum(blocks for blocks, _ in packed.values()))
            for series in default_registry.mongo.candle_series():
                count, (blocks, candles) = documents.count_documents(dict(zip(names, series, strict=True))), packed.get(series, (0, 0))
                rows.append(
                    {
                        **dict(zip(names, series, strict=True)),
                        "documents": count,
                        "documentBytes": int(count * average),
                        "packedBlocks": blocks,
                        "packedCandles": candles,
                        "packedBytes": int(blocks * block_size),
                    }
                )
    except PyMongoError as error:
        raise translated(error) from error
    return rows


def _packed_series() -> dict[tuple[Any, ...], tuple[int, int]]:
    try:
        return default_registry.mongo.candles.packed.by_series()
    except OperationFailure as error:
        if error.code in FORBIDDEN:  # the library works without it
            return {}
        raise


def redis_ids(timeout: float) -> dict[str, int]:
    """Return the number of ids in Redis, by domain. Scans every key there."""
    shared = default_registry.mongo.redis_ids
    shared.ping(time.monotonic() + timeout)
    names = {domain.prefix.encode(): domain.name for domain in DOMAINS.values()}
    keys = set(shared.scan([domain.prefix for domain in DOMAINS.values()]))  # SCAN may return a key twice
    counts = Counter(names[key[len(shared.prefix) :].partition(b":")[0]] for key in keys)
    return {name: counts[name] for name in DOMAINS}


def mongodb_work(timeout: float) -> dict[str, int] | None:
    """Return what MongoDB has done for all clients since its start: counts and bytes. None if this user may not ask."""
    try:
        with pymongo.timeout(timeout):
            status = get_mongo().client.admin.command("serverStatus", metrics=0, wiredTiger=0, locks=0, repl=0)
    except OperationFailure:
        return None
    except PyMongoError as error:
        raise translated(error) from error
    operations, network = status.get("opcounters", {}), status.get("network", {})
    return {
        **{name: int(operations.get(name, 0)) for name in ("query", "getmore", "insert", "update", "delete", "command")},
        "bytesReceived": int(network.get("bytesIn", 0)),
        "bytesSent": int(network.get("bytesOut", 0)),
    }


def redis_work(timeout: float) -> dict[str, int] | None:
    """Return the same as ``mongodb_work`` for Redis: counts, and the keys and bytes that it holds now."""
    ids = default_registry.mongo.redis_ids
    ids.ping(time.monotonic() + timeout)
    try:
        servers = ids.server_info()
    except DatabaseError:
        return None
    counts = {
        "memoryBytes": "used_memory", "hits": "keyspace_hits", "misses": "keyspace_misses", "commands": "total_commands_processed",
    }  # fmt: skip
    keys = sum(info.get(f"db{ids.address.db}", {}).get("keys", 0) for info in servers)
    return {"keys": keys, **{name: sum(int(info[field]) for info in servers) for name, field in counts.items()}}


def _collection_size(name: str) -> dict[str, Any]:
    try:
        return get_mongo().command("collStats", name)
    except OperationFailure as error:
        if error.code == _NAMESPACE_NOT_FOUND:  # newer servers report this where older ones return zeros
            return {}
        if name == PACKED_CANDLES.collection and error.code in FORBIDDEN:  # the library works without it
            return {}
        raise
