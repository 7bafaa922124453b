"""Read candles again and again out of the memory of a process, until another one has replaced them.

Argument: for how many seconds candles in memory are used. It prints ``old`` once it has the old candles in memory. In the end it prints
when (``time.monotonic``) it began the last read that returned an old candle, and how many reads came from memory.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from killed_candles import SERIES, at, candles

import backtest_kit_mongo as kit
from backtest_kit_mongo.stores.mongo import candles as candles_module

COUNT = 1_000


def main():
    candles_module.KEPT = float(sys.argv[1])
    kit.setup()
    base, last_old, news = candles(0, COUNT)["close"], 0.0, 0
    end = time.monotonic() + 120
    while news < 1_000:
        began = time.monotonic()
        assert began < end, "the new candles were never seen"
        shifts = np.unique(kit.PersistCandleAdapter.read_candles_array(*SERIES, COUNT, at(0))["close"] - base).tolist()
        assert set(shifts) <= {0.0, 1.0}, shifts
        if 0.0 in shifts:
            assert not news, "an old candle after the new ones"
            if not last_old:
                print("old", flush=True)
            last_old = began
        news += shifts == [1.0]
    print(last_old, kit.stats()["candle"]["hits_block"], flush=True)
    kit.close()
