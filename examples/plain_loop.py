"""A moving-average crossover in a plain loop: stored candles in, State while it trades, trades into Storage, figures into Measure.

    pip install "backtest-kit-mongo[embedded]"
    CC_EMBEDDED=1 python examples/plain_loop.py

An example of how to connect a loop of your own, not of a strategy that earns money.
"""

from datetime import timedelta

import numpy as np

from backtest_kit_mongo import PersistCandleAdapter, PersistMeasureAdapter, PersistStateAdapter, read_trades, setup, write_trades
from backtest_kit_mongo.runner import import_candles, synthetic_market

SYMBOL, EXCHANGE, START, MINUTES = "BTCUSDT", "synthetic", 1_677_628_800_000, 3 * 1440
FAST, SLOW, FEE = 12, 48, 0.1  # minutes; percent a side
ENGINE, RUN = "plain loop", f"sma {FAST}/{SLOW} {SYMBOL}"


def state(when: int, position: dict | None) -> None:
    """Keep the open position as of ``when`` (ms), for whoever resumes or watches the loop."""
    PersistStateAdapter.write_state_data({"id": f"{RUN}_{ENGINE}", "data": {"position": position}, "when": when}, RUN, ENGINE, when)


setup()
import_candles(synthetic_market(seed=7, minutes=MINUTES, start_ms=START), SYMBOL, exchange_name=EXCHANGE)
candles = PersistCandleAdapter.read_candles_array(SYMBOL, "1m", EXCHANGE, MINUTES, START)

total = np.concatenate(([0.0], np.cumsum(candles["close"])))
trades, position = [], None
for now in range(SLOW, MINUTES + 1):  # the first ``now`` candles have closed
    fast, slow = ((total[now] - total[now - length]) / length for length in (FAST, SLOW))
    when, price = int(candles["timestamp"][now - 1]) + 60_000, float(candles["close"][now - 1])
    if fast > slow and position is None:
        position = {"priceOpen": price, "openTimestamp": when}
        state(when, position)
    elif fast < slow and position is not None:
        profit = (price / position["priceOpen"] - 1) * 100 - FEE * (1 + price / position["priceOpen"])
        trades.append({"symbol": SYMBOL, **position, "priceClose": price, "closeTimestamp": when, "pnlPercentage": profit})
        position = None
        state(when, position)

write_trades(trades, ENGINE, RUN)
longest = max(timedelta(milliseconds=trade["closeTimestamp"] - trade["openTimestamp"]) for trade in trades)
figures = {"trades": len(trades), "pnlPercentage": sum(trade["pnlPercentage"] for trade in trades), "longest": longest}
PersistMeasureAdapter.write_measure_data({"id": RUN, "data": figures, "removed": False}, ENGINE, RUN, START + MINUTES * 60_000)

stored = PersistMeasureAdapter.read_measure_data(ENGINE, RUN)["data"]
open_position = PersistStateAdapter.read_state_data(RUN, ENGINE)["data"]["position"]
print(f"{len(read_trades(ENGINE, RUN))} trades, {stored['pnlPercentage']:.3f} %, the longest {stored['longest']}, open: {open_position}")
