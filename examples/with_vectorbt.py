"""A moving-average crossover in vectorbt: stored candles in, trades into Storage, figures into Measure.

    pip install "backtest-kit-mongo[embedded,engines]"
    CC_EMBEDDED=1 python examples/with_vectorbt.py

An example of how to connect the engine, not of a strategy that earns money. The first run compiles for a minute or more.
"""

import pandas as pd
import vectorbt as vbt

from backtest_kit_mongo import PersistCandleAdapter, PersistMeasureAdapter, read_trades, setup, to_pandas, write_trades
from backtest_kit_mongo.runner import import_candles, synthetic_market

SYMBOL, EXCHANGE, START, MINUTES = "BTCUSDT", "synthetic", 1_677_628_800_000, 3 * 1440
FAST, SLOW = 12, 48
ENGINE, RUN = "vectorbt", f"sma {FAST}/{SLOW} {SYMBOL}"

setup()
import_candles(synthetic_market(seed=7, minutes=MINUTES, start_ms=START), SYMBOL, exchange_name=EXCHANGE)
close = to_pandas(PersistCandleAdapter.read_candles_array(SYMBOL, "1m", EXCHANGE, MINUTES, START))["close"]

above = close.rolling(FAST).mean() > close.rolling(SLOW).mean()
before = above.shift(fill_value=False)
portfolio = vbt.Portfolio.from_signals(close, above & ~before, before & ~above, fees=0.001, freq="1min")

write_trades(portfolio.trades.records_readable, ENGINE, RUN)
figures = portfolio.stats()  # a Series of numbers, times and durations
PersistMeasureAdapter.write_measure_data({"id": RUN, "data": figures, "removed": False}, ENGINE, RUN, START + MINUTES * 60_000)

trades = read_trades(ENGINE, RUN)
stored = PersistMeasureAdapter.read_measure_data(ENGINE, RUN)["data"]
print(f"{len(trades)} trades, {stored['Total Return [%]']:.3f} %, winners held {pd.Timedelta(stored['Avg Winning Trade Duration'])}")
