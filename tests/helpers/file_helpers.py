"""Helpers shared by the file store tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record

T0 = 1_700_000_000_000
MINUTE = 60_000
START = T0 // MINUTE * MINUTE
TRIPLE = ("BTCUSDT", "sma", "binance")


class Lines(list):
    """A logger that keeps its messages as (level, message)."""

    def __getattr__(self, level):
        return lambda message: self.append((level, message))


def put(store, name, key, body, when=None, removed=False):
    store.write(DOMAINS[name], [Record(key, body, when, removed)])


def get(store, name, key):
    return store.read(DOMAINS[name], [key])[0]


def keys(store, name, prefix=(), **options):
    return [record.key for record in store.scan(DOMAINS[name], prefix, **options)]


def all_keys(store, name):
    return [record.key for record in store.records(DOMAINS[name])]


def plant(folder, path, content):
    """Write a file as another program would leave it."""
    target = Path(folder) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return target


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def candles(count, start=START, step=MINUTE, price=100.5):
    rows = np.zeros(count, CANDLE_DTYPE)
    rows["timestamp"] = start + np.arange(count) * step
    rows["open"] = rows["high"] = rows["low"] = rows["close"] = price
    return rows


def in_child(work):
    """Run ``work`` in a forked child; return the error it raised as text, or "-" without one."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(writer, b"-")
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text
