"""Replace stored candles, in a process that is killed at a given command to MongoDB; run as a script.

Arguments: the number of the event at which the process dies (see ``killed_candles``), or -1. It prints the number of events if it lives.
"""

from __future__ import annotations

import os
import sys

from killed_candles import BLOCK, SERIES, Killer, candles
from pymongo import monitoring

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import import_candles

COUNT = 2 * BLOCK + 300


def main():
    killer = Killer(int(sys.argv[1]), os.getpid())
    monitoring.register(killer)
    kit.setup()
    import_candles(candles(0, COUNT, shift=1), *SERIES, replace=True)
    print("events", killer.events)


if __name__ == "__main__":
    main()
