"""A process dies at each command of an import, a read, ``candles pack``, ``candles unpack`` and a removal: nothing wrong is ever read."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pymongo
import pytest
from killed_candles import BLOCK, candles, read
from prepared import forked

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import verify_candles
from backtest_kit_mongo.servers import MongoServer

pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture(autouse=True)
def short_history(servers):
    """Let a replica set forget deletions at once. It keeps them for five minutes, and inserts of the same keys look through them."""
    parameter = "minSnapshotHistoryWindowInSeconds"
    with pymongo.MongoClient(servers.mongo.uri("admin")) as client:
        before = client.admin.command("getParameter", 1, **{parameter: 1})[parameter]
        client.admin.command("setParameter", 1, **{parameter: 0})
        yield
        client.admin.command("setParameter", 1, **{parameter: before})


@pytest.fixture
def every(long):
    """Of the moments at which a process can die, one in this many is tried."""
    return 8 if long else 24


def run(settings, moment, victim=None):
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    return forked("killed_candles:main", [moment, *([] if victim is None else [victim])], environment, Path.cwd(), seconds=600)


def check():
    """What is read is what the documents hold, and packed blocks agree with them."""
    stored = {row["timestamp"]: row["close"] for row in kit.get_mongo()["candle-items"].find({"symbol": "BTCUSDT"})}
    expected = candles(0, 3 * BLOCK)
    for row in expected:
        assert stored.get(int(row["timestamp"]), row["close"]) == row["close"]
    present = np.array([stamp in stored for stamp in expected["timestamp"].tolist()])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(int)))
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        assert read(start, end).tobytes() == expected[start:end].tobytes()
        assert read(start, end + 1) is None
    for start in np.flatnonzero(~present)[::500].tolist():
        assert read(start, start + 1) is None
    assert all(outcome.problems == {} for outcome in verify_candles())


def test_killed_at_each_command(mongo, every):
    """A run dies at one moment after the other; then a run to the end stores everything, from whatever the dead ones left.

    The first moment is another one each time, so that in time each is tried.
    """
    moment, killed = random.randrange(every), 0
    while (ended := run(mongo, moment)).returncode == -signal.SIGKILL:
        check()
        killed += 1
        moment += every
    assert ended.returncode == 0, ended.err
    assert killed >= 120 // every
    assert read(0, 3 * BLOCK).tobytes() == candles(0, 3 * BLOCK).tobytes()
    check()


def test_killed_in_the_middle_of_a_removal(mongo, every):
    """What the dead one has removed is gone for every reader, and the rest is as it was."""
    middle = int(run(mongo, -1).out.split()[-1]) // 2
    moment = middle + random.randrange(every)
    while True:
        for name in ("candle-items", "candle-blocks", "candle-archive"):
            kit.get_mongo()[name].delete_many({})
        ended = run(mongo, moment)
        if ended.returncode != -signal.SIGKILL:
            break
        check()
        moment += every
    assert ended.returncode == 0, ended.err
    assert moment >= middle + 60  # not at every run the last event has the same number


# --- with CC_CANDLE_FORMAT=packed ---


def forget_marks():
    """Delete the marks of removals and of moves that died, which are ignored after an hour."""
    for name in ("candle-blocks", "candle-archive"):
        kit.get_mongo()[name].update_many({}, {"$unset": {"removing": "", "unpacking": ""}})


class Acknowledged:
    """Which candles must be there, by what the processes printed before they died."""

    def __init__(self):
        self.stored = np.zeros(3 * BLOCK, bool)

    def note(self, output):
        for line in output.splitlines():
            done, *edges = line.split()
            if done in ("stored", "removing"):
                self.stored[slice(*map(int, edges))] = done == "stored"

    def check(self):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self.stored, [False]]).astype(int)))
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            assert read(start, end).tobytes() == candles(start, end).tobytes()
        for start in range(0, 3 * BLOCK, 512):  # the others, as far as they are there
            assert (stored := read(start, start + 512)) is None or stored.tobytes() == candles(start, start + 512).tobytes()
        assert all(outcome.problems == {} for outcome in verify_candles())


def test_killed_at_each_command_with_an_archive(settings, every):
    """At all times each acknowledged candle is in one of the two places; a run to the end leaves each in one place alone."""
    settings = {**settings, "CC_CANDLE_FORMAT": "packed"}
    kit.setup(settings)
    acknowledged = Acknowledged()
    moment, killed = random.randrange(every), 0
    while True:
        ended = run(settings, moment)
        forget_marks()
        acknowledged.note(ended.out)
        if ended.returncode != -signal.SIGKILL:
            break
        acknowledged.check()
        killed += 1
        moment += every + moment // 20
    assert ended.returncode == 0, ended.err
    assert killed >= {8: 18, 24: 7}[every]
    assert acknowledged.stored.all()
    acknowledged.check()
    assert kit.get_mongo()["candle-items"].count_documents({}) == 0
    assert kit.get_mongo()["candle-archive"].count_documents({"codec": {"$exists": True}}) == 3


def test_a_server_that_is_killed_loses_nothing(settings, tmp_path, long):
    """mongod dies during each part of the same work, and starts again with what it has acknowledged, on its disk."""
    with MongoServer(tmp_path / "mongo") as server:
        settings = {**settings, "CC_CANDLE_FORMAT": "packed", "CC_DURABILITY": "journal"}
        string = server.uri("killed")
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": f"{string}?serverSelectionTimeoutMS=60000"})
        # The processes whose server dies need not wait long for another.
        settings["CC_MONGO_CONNECTION_STRING"] = f"{string}?serverSelectionTimeoutMS=2000"
        acknowledged = Acknowledged()
        moment, killed, step = 20, 0, 60 if long else 120
        while True:
            ended = run(settings, moment, server.pid)
            acknowledged.note(ended.out)
            if ended.returncode == 0:
                break
            assert "Unavailable" in ended.err or "Timeout" in ended.err, ended.err
            server.kill()
            server.start()
            forget_marks()
            acknowledged.check()
            killed += 1
            moment += step
        assert killed >= 240 // step
        assert acknowledged.stored.all()
        acknowledged.check()
        kit.close()
