"""Threads and processes that share one folder of files."""

from __future__ import annotations

import os
import shutil
import signal
import threading

import pytest
from file_helpers import START, all_keys, candles, files_in, get, in_child, plant, put
from prepared import Prepared

from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once

STATE = DOMAINS["state"]
KEY = ("s", "b")


def test_readers_never_see_half_a_record(store, folder):
    """Other threads replace the record during the reads."""
    sizes = [10, 100_000, 3000]
    put(store, "state", KEY, {"size": 10, "text": "x" * 10})
    stop, errors = threading.Event(), []

    def write(number):
        own = FileStore(folder)
        for round in range(60):
            size = sizes[(number + round) % 3]
            put(own, "state", KEY, {"size": size, "text": "x" * size})

    def read():
        while not stop.is_set():
            body = get(store, "state", KEY).body
            if len(body["text"]) != body["size"]:
                errors.append(body["size"])

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert files_in(folder) == ["state/s/b/b.json"]


CHILD = """
import sys
from pathlib import Path
import numpy as np
from file_helpers import candles, put
from backtest_kit_mongo.stores.files.store import FileStore
folder, number = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
store = FileStore(folder)
key = [("a_b", "c", "e"), ("a", "b_c", "e"), ("a_b_c", "", "e")][number % 3]
put(store, "strategy", key, {"key": list(key)})
for row in range(30):
    put(store, "log", (f"l{row}",), {"by": number})
    put(store, "storage", (True, f"{number}-{row}"), {"id": f"{number}-{row}"})
print(store.write_candles("BTC", "1m", "binance", candles(200, price=number + 1.0)))
"""


@pytest.mark.slow
def test_processes_share_a_folder(folder):
    """Keys that join to one name each get their own folder, first writes win where they should, and nothing is lost."""
    children = [Prepared("prepared:run_code", [CHILD, folder, number]) for number in range(6)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    new = [int(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0] * 6
    assert sum(new) == 200
    store = FileStore(folder)
    for key in (("a_b", "c", "e"), ("a", "b_c", "e"), ("a_b_c", "", "e")):
        assert get(store, "strategy", key).body == {"key": list(key)}
    assert len(all_keys(store, "log")) == 30
    assert len(all_keys(store, "storage")) == 180
    assert len(store.read_candles("BTC", "1m", "binance", START, 200)) == 200
    assert not [path for path in files_in(folder) if ".tmp-" in path or "corrupt" in path]


def test_child_of_a_fork_goes_on(store):
    """It does not wait for a lock that another thread of the parent held."""
    put(store, "memory", ("s", "n", "m"), {"n": 1})
    held, done = threading.Event(), threading.Event()

    def hold():
        with store._lock:
            held.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)

    def work():
        signal.alarm(10)
        put(store, "memory", ("s", "n", "m"), {"n": 2})
        store.remove(DOMAINS["memory"], [("s", "n", "m")])

    answer = in_child(work)
    done.set()
    thread.join()
    assert answer == "-"
    assert get(store, "memory", ("s", "n", "m")).removed


def test_folder_that_was_deleted_may_be_another_keys_by_now(store, folder):
    """Both keys have the same joined name."""
    key, other = ("X", "a_b", "c"), ("X", "a", "b_c")
    put(store, "signal", key, {"id": "mine"})
    assert get(store, "signal", key).body == {"id": "mine"}
    shutil.rmtree(folder / "data/signal")
    put(FileStore(folder), "signal", other, {"id": "other"})
    assert get(store, "signal", key) is None
    put(store, "signal", key, {"id": "again"})
    for one in (store, FileStore(folder)):
        assert get(one, "signal", key).body == {"id": "again"}
        assert get(one, "signal", other).body == {"id": "other"}


def test_no_file_stays_open(store, folder):
    before = len(os.listdir("/proc/self/fd"))
    plant(folder, "state/s/bad/bad.json", b"{")
    for number in range(20):
        put(store, "state", ("s", f"b{number}"), {})
        get(store, "state", ("s", "bad"))
    store.write_candles("BTC", "1m", "binance", candles(50))
    store.read_candles("BTC", "1m", "binance", START, 51)
    next(store.scan(STATE, ()))
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before
