"""Import, read, pack, remove and re-import candles, in a process that kills itself at a given command to MongoDB; run as a script.

Arguments: the number of the event (a command that is about to be sent, or whose reply has just come) at which the process dies, or -1.
It prints the number of events if it lives.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from pymongo import monitoring

import backtest_kit_mongo as kit
from backtest_kit_mongo.candle_packing import BLOCK
from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import pack_candles, remove_candles

MINUTE = 60_000
FIRST = 1_677_628_800_000 // (BLOCK * MINUTE)
SERIES = ("BTCUSDT", "1m", "binance")


class Killer(monitoring.CommandListener):
    """Count the events of commands about candles, and kill this process at one of them. (A listener also turns the wire protocol off.)"""

    def __init__(self, moment):
        self.moment, self.events = moment, 0

    def _event(self, event):
        if event.command_name in ("hello", "isMaster", "ping", "endSessions"):
            return
        if self.events == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)
        self.events += 1

    started = succeeded = failed = _event


def candles(start, end, shift=0.0):
    """Return the candles of the positions [start, end), counted from the beginning of block FIRST."""
    positions = np.arange(start, end)
    rows = np.empty(len(positions), CANDLE_DTYPE)
    rows["timestamp"] = (FIRST * BLOCK + positions) * MINUTE
    for name, move in (("open", 0.0), ("high", 3.25), ("low", -2.5), ("close", 1.75)):
        rows[name] = 100 + positions % 977 / 4 + move + shift
    rows["volume"] = positions % 101 / 8
    return rows


def read(start, end):
    """Return candles as a new process would; None if one is missing."""
    kit.PersistCandleAdapter.clear()
    return kit.PersistCandleAdapter.read_candles_array(*SERIES, end - start, (FIRST * BLOCK + start) * MINUTE)


def at(position):
    return (FIRST * BLOCK + position) * MINUTE


def work():
    """Each candle is stored with one value only, so that a repetition after a kill cannot be told from the first time."""
    kit.PersistCandleAdapter.write_candles_data(candles(100, 2 * BLOCK + 2500), *SERIES)
    read(100, 2 * BLOCK + 2500)
    default_registry.mongo.candles.drop_packed()
    read(100, 2 * BLOCK + 2500)
    default_registry.mongo.candles.drop_packed()
    list(pack_candles())
    remove_candles(*SERIES, at(1000), at(BLOCK + 1000))
    read(100, 1000)
    kit.PersistCandleAdapter.write_candles_data(candles(0, 3 * BLOCK), *SERIES)
    list(pack_candles())


def main():
    killer = Killer(int(sys.argv[1]))
    monitoring.register(killer)
    kit.setup()
    work()
    print(killer.events)


if __name__ == "__main__":
    main()
