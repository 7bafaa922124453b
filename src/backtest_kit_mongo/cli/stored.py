"""What is stored, and what the two servers report about themselves. Everything here is read-only."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from .. import get_mongo
from ..contracts.default_registry import default_registry
from ..domains import CANDLE_ARCHIVE, DOMAINS, PACKED_CANDLES
from ..errors import DatabaseError
from ..stores.mongo.block_collection import FORBIDDEN, BlockCollection
from ..stores.mongo.errors import translated

__all__ = ["candle_series", "documents", "mongodb_work", "redis_ids", "redis_work"]

_NAMESPACE_NOT_FOUND = 26


def documents(timeout: float) -> dict[str, dict[str, int]]:
    """Return the number of documents in MongoDB and their bytes, by domain."""
    counts = {}
    try:
        with pymongo.timeout(timeout):
            for name, domain in {**DOMAINS, "packed candles": PACKED_CANDLES, "candle archive": CANDLE_ARCHIVE}.items():
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
    """Return each stored series with its candle documents, and the blocks, candles and bytes of its copies and of its archive."""
    names = DOMAINS["candle"].key[:3]
    rows = []
    candles = default_registry.mongo.candles
    try:
        with pymongo.timeout(timeout):
            documents = get_mongo()[DOMAINS["candle"].collection]
            average = _collection_size(documents.name).get("avgObjSize", 0)
            copies, archived = _by_series(candles.packed), _by_series(candles.archive)
            for series in default_registry.mongo.candle_series():
                count = documents.count_documents(dict(zip(names, series, strict=True)))
                row = {**dict(zip(names, series, strict=True)), "documents": count, "documentBytes": int(count * average)}
                for kind, found in (("packed", copies), ("archived", archived)):
                    blocks, stored, size = found.get(series, (0, 0, 0))
                    row |= {f"{kind}Blocks": blocks, f"{kind}Candles": stored, f"{kind}Bytes": size}
                rows.append(row)
    except PyMongoError as error:
        raise translated(error) from error
    return rows


def _by_series(source: BlockCollection) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    """Return the blocks of a collection by series: how many, the candles in them, and about how many bytes."""
    try:
        by_series = source.by_series()
    except OperationFailure as error:
        if error.code in FORBIDDEN:  # the library works without it
            return {}
        raise
    # The few documents without candles are small.
    block_size = _collection_size(source.domain.collection).get("size", 0) / max(1, sum(blocks for blocks, _ in by_series.values()))
    return {series: (blocks, candles, int(blocks * block_size)) for series, (blocks, candles) in by_series.items()}


def redis_ids(timeout: float) -> dict[str, int]:
    """Return the number of ids in Redis, by domain. Scans every key there."""
    shared = default_registry.mongo.redis_ids
    shared.ping(time.monotonic() + timeout)
    names = {domain.prefix.encode(): domain.name for domain in DOMAINS.values()}
    keys = set(shared.scan([domain.prefix for domain in DOMAINS.values()]))  # SCAN may return a key twice
    counts: Counter[str] = Counter(names[key[len(shared.prefix) :].partition(b":")[0]] for key in keys)
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
        if name in (PACKED_CANDLES.collection, CANDLE_ARCHIVE.collection) and error.code in FORBIDDEN:  # the library works without it
            return {}
        raise
