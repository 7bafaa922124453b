"""A process dies at each command of an import, a cold read, ``candles pack`` and a removal: nothing wrong is ever read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import killed_candles
import numpy as np
import pytest
from killed_candles import BLOCK, candles, read

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import verify_candles

pytestmark = [pytest.mark.slow, pytest.mark.once]


def run(settings, moment):
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    command = [sys.executable, killed_candles.__file__, str(moment)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


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


def test_killed_at_each_command(mongo):
    """Every fourth moment of a run is tried; then a run to the end stores everything, from whatever the dead ones left."""
    moment, killed = 0, 0
    while (ended := run(mongo, moment)).returncode == -signal.SIGKILL:
        check()
        killed += 1
        moment += 4
    assert ended.returncode == 0, ended.stderr
    assert killed >= 15
    assert read(0, 3 * BLOCK).tobytes() == candles(0, 3 * BLOCK).tobytes()
    check()


def test_killed_in_the_middle_of_a_removal(mongo):
    """What the dead one has removed is gone for every reader, and the rest is as it was."""
    total = int(run(mongo, -1).stdout)
    for moment in range(total // 2, total, 4):
        kit.get_mongo()["candle-items"].delete_many({})
        kit.get_mongo()["candle-blocks"].delete_many({})
        ended = run(mongo, moment)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        check()
