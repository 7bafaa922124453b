"""The rivals, on the same documents, indexes, servers and durability as the library, each written as its users would."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import mongoengine
import pymongo
import redis
from bson import ObjectId
from mongoengine import fields
from sample_data import filter_of, redis_key

from backtest_kit_mongo.contracts.default_registry import default_registry

with warnings.catch_warnings():
    # pymongoarrow was built against an older patch release of pyarrow with smaller objects. Cython warns of that; it is harmless.
    warnings.filterwarnings("ignore", "pyarrow.*size changed", RuntimeWarning)
    import pymongoarrow.api as arrow

__all__ = ["Arrow", "Direct", "Engine", "Plain"]

PRICES = ("timestamp", "open", "high", "low", "close", "volume")


def window(symbol: str, interval: str, exchange: str, since: int, until: int) -> dict[str, Any]:
    """Return the filter of a range of candles, from ``since`` up to but not including ``until`` (ms)."""
    return {"exchangeName": exchange, "symbol": symbol, "interval": interval, "timestamp": {"$gte": since, "$lt": until}}


class Plain:
    """redis-py and pymongo: the id from Redis, then the document by id; writes with find_one_and_update, then SET."""

    def __init__(self, uri: str, redis_socket: str) -> None:
        self.mongo: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.redis = redis.Redis(unix_socket_path=redis_socket)
        self.database = self.mongo.get_default_database()
        self.signals = self.database["signal-items"]
        self.candles = self.database["candle-items"]

    def close(self) -> None:
        self.mongo.close()
        self.redis.close()

    def _read(self, collection: Any, cache_key: str, key: dict[str, Any]) -> Any:
        identity = self.redis.get(cache_key)
        if identity is not None:
            row = collection.find_one({"_id": ObjectId(identity.decode())})
            if row is not None:
                return row
        row = collection.find_one(key)
        if row is not None:
            self.redis.set(cache_key, str(row["_id"]))
        return row

    def read_signal(self, *context: str) -> Any:
        row = self._read(self.signals, redis_key(context), filter_of(context))
        return None if row is None else row["payload"]

    def write_signal(self, payload: Any, *context: str) -> None:
        now = datetime.now(UTC)
        row = self.signals.find_one_and_update(
            filter_of(context),
            {"$set": {"payload": payload, "updatedDate": now}, "$setOnInsert": {"createDate": now, "__v": 0}},
            upsert=True,
            return_document=pymongo.ReturnDocument.AFTER,
        )
        self.redis.set(redis_key(context), str(row["_id"]))

    def read_candle(self, symbol: str, interval: str, exchange: str, timestamp: int) -> dict[str, Any] | None:
        """Read one candle by its id in Redis, as the TypeScript package does for each candle of a window."""
        key = {"exchangeName": exchange, "symbol": symbol, "interval": interval, "timestamp": timestamp}
        row = self._read(self.candles, f"candle_cache:{exchange}:{symbol}:{interval}:{timestamp}", key)
        return None if row is None else {name: row[name] for name in PRICES}


class Direct:
    """pymongo without a cache: signals by the compound key, candles by a range."""

    def __init__(self, plain: Plain) -> None:
        self._signals, self._candles = plain.signals, plain.candles

    def read_signal(self, *context: str) -> Any:
        row = self._signals.find_one(filter_of(context))
        return None if row is None else row["payload"]

    def read_window(self, *args: Any) -> list[dict[str, Any]]:
        """Return the candles as the contract does, with a projection to the fields it needs."""
        fields = {"_id": False, **dict.fromkeys(PRICES, True)}
        return list(self._candles.find(window(*args), fields).sort("timestamp", 1))

    def read_documents(self, *args: Any) -> list[dict[str, Any]]:
        """Return the stored documents; slower than ``read_window``, since there is more to decode."""
        return list(self._candles.find(window(*args)).sort("timestamp", 1))


class Arrow:
    """pymongoarrow: a range of candles as NumPy columns."""

    _schema = arrow.Schema({"timestamp": int, **dict.fromkeys(PRICES[1:], float)})

    def __init__(self, plain: Plain) -> None:
        self._candles = plain.candles

    def read_columns(self, *args: Any) -> dict[str, Any]:
        return arrow.find_numpy_all(self._candles, window(*args), schema=self._schema, sort=[("timestamp", 1)])


class WithoutBlocks:
    """Run a call on the candle documents alone, as before there were packed blocks."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __call__(self) -> object:
        packed, archive = default_registry.mongo.candles.packed, default_registry.mongo.candles.archive
        packed._readable = packed._writable = archive._readable = archive._may_register = False
        try:
            return self._call()
        finally:
            packed._readable = packed._writable = archive._readable = archive._may_register = True


class SignalDocument(mongoengine.Document):
    """A signal as an ORM document."""

    symbol = fields.StringField()
    strategyName = fields.StringField()
    exchangeName = fields.StringField()
    payload = fields.DictField()
    createDate = fields.DateTimeField()
    updatedDate = fields.DateTimeField()
    v = fields.IntField(db_field="__v")
    meta = {"collection": "signal-items", "db_alias": "bench", "auto_create_index": False}  # noqa: RUF012


class CandleDocument(mongoengine.Document):
    """A candle as an ORM document."""

    exchangeName = fields.StringField()
    symbol = fields.StringField()
    interval = fields.StringField()
    timestamp = fields.LongField()
    open = fields.FloatField()
    high = fields.FloatField()
    low = fields.FloatField()
    close = fields.FloatField()
    volume = fields.FloatField()
    createDate = fields.DateTimeField()
    updatedDate = fields.DateTimeField()
    v = fields.IntField(db_field="__v")
    meta = {"collection": "candle-items", "db_alias": "bench", "auto_create_index": False}  # noqa: RUF012


class Engine:
    """mongoengine, an ORM."""

    def __init__(self, uri: str) -> None:
        mongoengine.connect(host=uri, alias="bench", uuidRepresentation="standard")

    def close(self) -> None:
        mongoengine.disconnect("bench")

    def read_signal(self, *context: str) -> Any:
        document = SignalDocument.objects(**filter_of(context)).first()
        return None if document is None else document.payload

    def write_signal(self, payload: Any, *context: str) -> None:
        now = datetime.now(UTC)
        SignalDocument.objects(**filter_of(context)).modify(
            upsert=True, new=True, set__payload=payload, set__updatedDate=now, set_on_insert__createDate=now, set_on_insert__v=0
        )

    def read_window(self, symbol: str, interval: str, exchange: str, since: int, until: int) -> list[dict[str, Any]]:
        documents = CandleDocument.objects(
            exchangeName=exchange, symbol=symbol, interval=interval, timestamp__gte=since, timestamp__lt=until
        )
        return [{name: row[name] for name in PRICES} for row in documents.order_by("timestamp")]
