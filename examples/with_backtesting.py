"""A moving-average crossover in backtesting.py: stored candles in, trades into Storage, figures into Measure.

    pip install "backtest-kit-mongo[embedded,engines]"
    CC_EMBEDDED=1 python examples/with_backtesting.py

An example of how to connect the engine, not of a strategy that earns money.
"""

from typing import Any

import pandas as pd
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

from backtest_kit_mongo import PersistCandleAdapter, PersistMeasureAdapter, read_trades, setup, to_pandas, write_trades
from backtest_kit_mongo.runner import import_candles, synthetic_market

SYMBOL, EXCHANGE, START, MINUTES = "BTCUSDT", "synthetic", 1_677_628_800_000, 3 * 1440
FAST, SLOW = 12, 48
ENGINE, RUN = "backtesting.py", f"sma {FAST}/{SLOW} {SYMBOL}"


def sma(values: Any, length: int) -> pd.Series:
    """Return the simple moving average of the last ``length`` values."""
    return pd.Series(values).rolling(length).mean()


class Crossover(Strategy):
    """Long while the fast average is above the slow one."""

    def init(self) -> None:
        """Compute both averages once."""
        self.fast, self.slow = self.I(sma, self.data.Close, FAST), self.I(sma, self.data.Close, SLOW)

    def next(self) -> None:
        """Open and close at the crossings."""
        if crossover(self.fast, self.slow):
            self.buy(size=1)
        elif crossover(self.slow, self.fast):
            self.position.close()


setup()
import_candles(synthetic_market(seed=7, minutes=MINUTES, start_ms=START), SYMBOL, exchange_name=EXCHANGE)
candles = to_pandas(PersistCandleAdapter.read_candles_array(SYMBOL, "1m", EXCHANGE, MINUTES, START))

backtest = Backtest(candles.rename(columns=str.capitalize), Crossover, cash=1_000_000, commission=0.001, finalize_trades=True)
stats = backtest.run()  # a Series of numbers, times and durations; names with an underscore are objects
figures = stats[~stats.index.str.startswith("_")]

write_trades(stats["_trades"], ENGINE, RUN)
PersistMeasureAdapter.write_measure_data({"id": RUN, "data": figures, "removed": False}, ENGINE, RUN, START + MINUTES * 60_000)

trades = read_trades(ENGINE, RUN)
stored = PersistMeasureAdapter.read_measure_data(ENGINE, RUN)["data"]
print(f"{len(trades)} trades, {stored['Return [%]']:.3f} %, the longest {pd.Timedelta(stored['Max. Trade Duration'])}")
