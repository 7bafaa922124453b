"""Candle documents, as the TypeScript package writes them: from arrays of candles, many at a time, and back."""

from __future__ import annotations

import os
import time
from datetime import datetime
from typing import Any

import bson
import numpy as np
import numpy.typing as npt
from bson import ObjectId

from ..._core import bson as core
from ..._core.candles import decode_candles, numbers
from ...candles import CANDLE_DTYPE, PRICES, CandleArray, Grid
from ...candles.columns import TIME_LIMIT
from ...domains import Domain
from ..base import Key
from .database import MongoDatabase
from .documents import Document
from .errors import reading

__all__ = ["by_size", "candle_documents", "new_ids", "on_grid", "series_fields", "stored_series"]

# Matches any string; a key field of another type is not one of ours.
_TEXT: Document = {"$gte": ""}


def series_fields(series: Key) -> Document:
    """Return the fields of a series (exchangeName, symbol, interval) as a filter."""
    exchange_name, symbol, interval = series
    return {"exchangeName": exchange_name, "interval": interval, "symbol": symbol}


def stored_series(connection: MongoDatabase, domain: Domain) -> list[Key]:
    """Return the series of a collection, sorted. One query per series finds the next one in the unique index."""
    names = domain.key[:3]
    query: Document = {
        "filter": dict.fromkeys(names, _TEXT),
        "sort": dict.fromkeys(domain.key, 1),
        "limit": 1,
        "projection": {"_id": False, **dict.fromkeys(names, True)},
    }
    series: list[Key] = []
    while document := b"".join(connection.fetch(domain, [query])):
        with reading(domain):
            row = core.decode(document)
            series.append(tuple(row[name] for name in names))
        exchange_name, symbol, interval = series[-1]
        next_keys: list[tuple[Any, ...]] = [
            (exchange_name, symbol, {"$gt": interval}),
            (exchange_name, {"$gt": symbol}, _TEXT),
            ({"$gt": exchange_name}, _TEXT, _TEXT),
        ]
        query["filter"] = {"$or": [dict(zip(names, condition, strict=True)) for condition in next_keys]}
    return sorted(series)


def on_grid(documents: list[bytes], grid: Grid) -> tuple[CandleArray, float]:
    """Return the candles of documents sorted by timestamp (ms), without those off the grid, and the last timestamp."""
    timestamps = np.array(numbers(documents, "timestamp"), np.float64)
    if len(timestamps) < len(documents):  # a range query also matches another writer's array of numbers
        documents = [document for document in documents if numbers([document], "timestamp")]
    # A page whose query was interrupted and repeated may contain a document twice.
    _, first = np.unique(timestamps, return_index=True)
    positions = first[_are_on(grid, timestamps[first])]
    candles = np.empty(len(positions), CANDLE_DTYPE)
    memory, size = candles.view(np.int8), CANDLE_DTYPE.itemsize
    step = 1 if grid.step is None else grid.step  # candles of different lengths are decoded one by one
    ends = [*(np.flatnonzero(np.diff(timestamps[positions]) != step) + 1).tolist(), len(positions)]
    start = 0
    for end in ends if len(positions) else ():
        run = b"".join(documents[position] for position in positions[start:end].tolist())
        filled = decode_candles([run], memory[start * size : end * size], int(timestamps[positions[start]]), step, end - start)
        if filled != end - start:
            raise ValueError(f"a candle after {int(timestamps[positions[start]])} has two timestamps")
        start = end
    candles.flags.writeable = False
    return candles, float(timestamps[-1]) if len(timestamps) else 0.0


def _are_on(grid: Grid, stamps: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which times (ms) are on the grid. A time of another program may be infinite or have a fraction."""
    if grid.is_plain:
        return np.equal(stamps % grid.longest, 0)
    whole = np.abs(stamps) <= TIME_LIMIT
    rounded = np.where(whole, stamps, 0).astype(np.int64)
    return whole & np.equal(rounded, stamps) & np.equal(grid.past(rounded), 0)


def new_ids(count: int) -> npt.NDArray[np.uint8]:
    """Return new ObjectIds as rows of 12 bytes: seconds, 5 random bytes (new in each call, so that no fork repeats them), a counter."""
    ids = np.empty((count, 12), np.uint8)
    ids[:, :4] = np.frombuffer(int(time.time()).to_bytes(4, "big"), np.uint8)
    ids[:, 4:9] = np.frombuffer(os.urandom(5), np.uint8)
    ids[:, 9:] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)[:, 1:]
    return ids


def by_size(candles: CandleArray) -> list[CandleArray]:
    """Split candles so that the documents of each part have one size; no part is empty.

    Like pymongo, documents hold a timestamp in 32 bits if it fits, which concerns only candles within 25 days of 1970.
    """
    small = np.abs(candles["timestamp"]) < 2**31
    return [part for part in (candles[small], candles[~small]) if len(part)] if small.any() else [candles] if len(candles) else []


def candle_documents(series: Key, candles: CandleArray, ids: npt.NDArray[np.uint8], now: datetime) -> bytes:
    """Return the documents of candles, concatenated: encode one, repeat it, and write the values of each candle over the copies."""
    document = _document(ObjectId(), series, candles[0].item(), now)
    raw = bson.encode(document)
    # The offset of each value: encode the document up to that field; the value is right before the end.
    prefix: Document = {}
    fields: dict[str, tuple[str, int]] = {}
    for name, value in document.items():
        prefix[name] = value
        kind = "12u1" if name == "_id" else "<f8" if name in PRICES else "<i4" if abs(document["timestamp"]) < 2**31 else "<i8"
        if name in ("_id", "timestamp", *PRICES):
            fields[name] = (kind, len(bson.encode(prefix)) - 1 - np.dtype(kind).itemsize)
    kinds, offsets = zip(*fields.values(), strict=True)
    memory = bytearray(raw) * len(candles)
    rows = np.frombuffer(memory, {"names": list(fields), "formats": kinds, "offsets": offsets, "itemsize": len(raw)})
    rows["_id"] = ids
    for name in ("timestamp", *PRICES):
        rows[name] = candles[name]
    return bytes(memory)


def _document(identity: ObjectId, series: Key, row: tuple[float, ...], now: datetime) -> Document:
    timestamp, *prices = row
    values = dict(zip(PRICES, prices, strict=True))
    # The order of the fields in documents of the TypeScript package: key fields, then the others, each sorted by name.
    return {
        "_id": identity, **series_fields(series), "timestamp": timestamp, "__v": 0, "close": values["close"], "createDate": now,
        "high": values["high"], "low": values["low"], "open": values["open"], "updatedDate": now, "volume": values["volume"],
    }  # fmt: skip
