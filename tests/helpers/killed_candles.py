"""Import, read, pack, unpack, remove and re-import candles, in a process that is killed at a given command to MongoDB; run as a script.

Arguments: the number of the event (a command that is about to be sent, or whose reply has just come) at which the process dies, or -1;
optionally the number of another process (mongod) that dies instead. It prints what it has stored, what it is about to remove, and the
number of events if it lives.
"""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
from pymongo import monitoring

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.candles.packing import BLOCK
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import pack_candles, remove_candles, unpack_candles

MINUTE = 60_000
FIRST = 1_677_628_800_000 // (BLOCK * MINUTE)
SERIES = ("BTCUSDT", "1m", "binance")


class Killer(monitoring.CommandListener):
    """Count the events of commands about candles, and kill a process at one of them. (A listener also turns the wire protocol off.)"""

    def __init__(self, moment, victim):
        self.moment, self.victim, self.events = moment, victim, 0

    def _event(self, event):
        if event.command_name in ("hello", "isMaster", "ping", "endSessions"):
            return
        if self.events == self.moment:
            os.kill(self.victim, signal.SIGKILL)
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


def write(start, end):
    kit.PersistCandleAdapter.write_candles_data(candles(start, end), *SERIES)
    print("stored", start, end, flush=True)


def remove(start, end):
    print("removing", start, end, flush=True)
    remove_candles(*SERIES, at(start), at(end))
    print("removed", start, end, flush=True)


def work():
    """Each candle is stored with one value only, so that a repetition after a kill cannot be told from the first time."""
    write(100, 2 * BLOCK + 2500)
    read(100, 2 * BLOCK + 2500)
    default_registry.mongo.candles.drop_packed()
    read(100, 2 * BLOCK + 2500)
    default_registry.mongo.candles.drop_packed()
    list(pack_candles())
    remove(1000, BLOCK + 1000)
    read(100, 1000)
    write(0, 3 * BLOCK)
    list(pack_candles())


def work_on_archive():
    """The same with CC_CANDLE_FORMAT=packed: a block that is completed, candles that are moved to and fro, and holes that are filled."""
    write(100, 2 * BLOCK + 2500)
    write(2 * BLOCK + 2500, 3 * BLOCK)
    list(unpack_candles())
    read(100, 3 * BLOCK)
    list(pack_candles())
    remove(1000, BLOCK + 1000)
    write(0, 3 * BLOCK)
    list(unpack_candles())
    list(pack_candles())


def main():
    killer = Killer(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else os.getpid())
    monitoring.register(killer)
    kit.setup()
    if kit.get_config().CC_CANDLE_FORMAT == "packed":
        work_on_archive()
    else:
        work()
    print("events", killer.events)


if __name__ == "__main__":
    main()
