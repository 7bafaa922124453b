"""Candles in MongoDB: windows by one query, imports that find out with one query what is missing and send only that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import bson
import numpy as np
from bson import ObjectId

from .._core import bson as core
from .._core.candles import decode_candles, numbers
from ..candles import CANDLE_DTYPE, PRICES, CandleArray, interval_ms
from ..config import Config
from ..domains import DOMAINS
from .base import Key
from .connection import Document, MongoConnection, reading
from .idcache import RedisIds

__all__ = ["MongoCandles"]

BATCH = 10_000
"""Candles per insert command."""


class MongoCandles:
    """The candle domain of a Mongo store. A series is (exchangeName, symbol, interval)."""

    def __init__(self, config: Config, connection: MongoConnection, redis_ids: RedisIds) -> None:
        self._with_ids = config.CC_REDIS_IDS == "all"
        self._connection = connection
        self._redis_ids = redis_ids

    def read(self, series: Key, since: int, limit: int) -> CandleArray | None:
        """The ``limit`` candles from ``since`` (ms) on, or None if one of them is missing."""
        domain = DOMAINS["candle"]
        step = interval_ms(series[2])
        wanted = {**_fields(series), "timestamp": {"$gte": since, "$lt": since + limit * step}}
        batches = list(self._connection.fetch(domain, [{"filter": wanted, "sort": {"timestamp": 1}}]))
        # A candle document takes more than 48 bytes: fewer bytes than that cannot hold the window, and need no memory for it.
        if sum(map(len, batches)) < limit * CANDLE_DTYPE.itemsize:
            return None
        columns = np.empty(limit, CANDLE_DTYPE)
        with reading(domain, " ".join(series)):
            filled = decode_candles(batches, columns.view(np.int8), since, step, limit)
        return columns if filled == limit else None

    def write(self, series: Key, candles: CandleArray) -> int:
        """Store those checked candles that are not there yet; how many were new. One query finds what is there."""
        domain = DOMAINS["candle"]
        stamps, first = np.unique(candles["timestamp"], return_index=True)
        span = (int(stamps[-1]) - int(stamps[0])) // interval_ms(series[2]) + 1
        wanted: Document = {"$gte": int(stamps[0]), "$lte": int(stamps[-1])}
        if span > 4 * len(stamps):  # a scattered set: asking for the range would answer with what lies between
            wanted = {"$in": stamps.tolist()}
        fields = {"_id": self._with_ids, "timestamp": True}
        query = {"filter": {**_fields(series), "timestamp": wanted}, "projection": fields}
        there = list(self._connection.fetch(domain, [query]))
        with reading(domain):
            present = np.array(numbers(there, "timestamp"), np.float64)
            if self._with_ids:
                found = (core.decode(row) for batch in there for row in core.split(batch))
                self._share_ids(series, ((int(row["timestamp"]), row["_id"]) for row in found))
        if present.size:
            # Another writer's document between two grid points is none of the grid's candles: only equal ones count.
            fresh = ~np.isin(stamps, present)
            stamps, first = stamps[fresh], first[fresh]
        now = datetime.now(UTC)
        ids: list[ObjectId] = []

        def batches() -> Iterator[bytes]:
            for start in range(0, len(stamps), BATCH):
                rows = candles[first[start : start + BATCH]].tolist()
                made = [ObjectId() for _ in rows]
                ids.extend(made)
                yield b"".join(bson.encode(_document(value, series, row, now)) for value, row in zip(made, rows, strict=True))

        for index, lost in enumerate(self._connection.insert_new(domain, batches())):
            if self._with_ids:
                start = index * BATCH
                mine = (position for position in range(start, min(start + BATCH, len(stamps))) if position - start not in lost)
                self._share_ids(series, ((int(stamps[position]), ids[position]) for position in mine))
        return len(stamps)

    def _share_ids(self, series: Key, ids: Iterator[tuple[int, object]]) -> None:
        """Write the ids of candles (time stamp, id) to Redis."""
        domain = DOMAINS["candle"]
        self._redis_ids.put_series(domain, series, ((stamp, value.binary) for stamp, value in ids if isinstance(value, ObjectId)))


def _fields(series: Key) -> Document:
    exchange_name, symbol, interval = series
    return {"exchangeName": exchange_name, "interval": interval, "symbol": symbol}


def _document(identity: ObjectId, series: Key, row: tuple[float, ...], now: datetime) -> Document:
    timestamp, *prices = row
    values = dict(zip(PRICES, prices, strict=True))
    # The order in which the original's documents stand: key fields, then the rest, each by name.
    return {
        "_id": identity, **_fields(series), "timestamp": timestamp, "__v": 0, "close": values["close"], "createDate": now,
        "high": values["high"], "low": values["low"], "open": values["open"], "updatedDate": now, "volume": values["volume"],
    }  # fmt: skip
