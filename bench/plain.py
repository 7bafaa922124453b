"""The rival: redis-py and pymongo as anyone would write it, over the same documents, indexes, servers and durability."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pymongo
import redis
from bson import ObjectId


class PlainClient:
    """Reads by the id in Redis, then by the key; writes with find_one_and_update, then SET."""

    def __init__(self, uri: str, redis_socket: str, database: str) -> None:
        self.mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.redis = redis.Redis(unix_socket_path=redis_socket)
        self.signals = self.mongo[database]["signal-items"]
        self.candles = self.mongo[database]["candle-items"]

    def close(self) -> None:
        self.mongo.close()
        self.redis.close()

    def read_signal(self, symbol: str, strategy: str, exchange: str) -> Any:
        key = f"signal_cache:{exchange}:{strategy}:{symbol}"
        known = self.redis.get(key)
        if known is not None:
            row = self.signals.find_one({"_id": ObjectId(known.decode())})
            if row is not None:
                return row["payload"]
        row = self.signals.find_one({"symbol": symbol, "strategyName": strategy, "exchangeName": exchange})
        if row is None:
            return None
        self.redis.set(key, str(row["_id"]))
        return row["payload"]

    def write_signal(self, payload: Any, symbol: str, strategy: str, exchange: str) -> None:
        now = datetime.now(UTC)
        row = self.signals.find_one_and_update(
            {"symbol": symbol, "strategyName": strategy, "exchangeName": exchange},
            {"$set": {"payload": payload, "updatedDate": now}, "$setOnInsert": {"createDate": now, "__v": 0}},
            upsert=True,
            return_document=pymongo.ReturnDocument.AFTER,
        )
        self.redis.set(f"signal_cache:{exchange}:{strategy}:{symbol}", str(row["_id"]))

    def read_window(self, symbol: str, interval: str, exchange: str, since: int, limit: int, step: int) -> list[dict[str, Any]] | None:
        """One range query, to the list of dicts that the contract gives."""
        rows = self.candles.find(
            {"exchangeName": exchange, "symbol": symbol, "interval": interval, "timestamp": {"$gte": since, "$lt": since + limit * step}}
        ).sort("timestamp", 1)
        candles = [{name: row[name] for name in ("timestamp", "open", "high", "low", "close", "volume")} for row in rows]
        whole = len(candles) == limit and all(candle["timestamp"] == since + index * step for index, candle in enumerate(candles))
        return candles if whole else None
