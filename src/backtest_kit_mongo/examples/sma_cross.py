"""Moving-average crossover: long when the fast average crosses above the slow one, short when it crosses below.

    backtest-kit-mongo run examples/sma_cross.py --backtest --entry --csv BTCUSDT-1m.csv.gz
    backtest-kit-mongo sweep examples/sma_cross.py --grid FAST=6,12,24 --grid SLOW=48,96

An example of how a strategy is written, not of one that earns money.
"""

from datetime import datetime

from backtest_kit_mongo.runner import SignalDict, add_strategy, get_average_price, get_candles, parameter

FAST, SLOW = parameter("FAST", 12), parameter("SLOW", 48)  # 5m candles: one hour and four hours
TAKE_PROFIT, STOP_LOSS = parameter("TAKE_PROFIT", 1.2), parameter("STOP_LOSS", 0.8)  # percent of the price
LIFETIME = 8 * 60  # minutes


def sma(closes: list[float], length: int) -> float:
    """Return the simple moving average of the last ``length`` closes."""
    return sum(closes[-length:]) / length


@add_strategy("sma_cross", interval="5m")
def get_signal(symbol: str, when: datetime) -> SignalDict | None:
    """Open a position where the fast average crosses the slow one."""
    closes = [candle["close"] for candle in get_candles(symbol, "5m", SLOW + 1)]
    if len(closes) <= SLOW:
        return None  # not enough history yet
    was_above = sma(closes[:-1], FAST) > sma(closes[:-1], SLOW)
    is_above = sma(closes, FAST) > sma(closes, SLOW)
    if was_above == is_above:
        return None
    price, side = get_average_price(symbol), 1 if is_above else -1  # the price at which the signal opens
    return {
        "position": "long" if is_above else "short",
        "priceTakeProfit": price * (1 + side * TAKE_PROFIT / 100),
        "priceStopLoss": price * (1 - side * STOP_LOSS / 100),
        "minuteEstimatedTime": LIFETIME,
        "note": f"SMA {FAST}/{SLOW} crossed {'up' if is_above else 'down'} at {when:%Y-%m-%d %H:%M}",
    }
