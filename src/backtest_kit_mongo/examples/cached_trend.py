"""Breakouts in the direction of a daily trend; the trend is worked out once an hour and kept in the Measure contract.

    backtest-kit-mongo demo

A second run, in whatever process, reads these answers by their ids instead of working them out again. An example of how a
strategy is written, not of one that earns money.
"""

from datetime import datetime
from typing import Any

from backtest_kit_mongo.runner import Measure, SignalDict, add_strategy, get_average_price, get_candles

REACH = 0.6  # percent of the price, to the target and to the stop


@Measure.cached("1h")
def trend(symbol: str) -> dict[str, Any]:
    """Which way the last day went, from its 15m candles. A language model could be asked here instead."""
    closes = [candle["close"] for candle in get_candles(symbol, "15m", 96)]
    halves = closes[: len(closes) // 2], closes[len(closes) // 2 :]
    early, late = (sum(half) / max(len(half), 1) for half in halves)
    return {"known": len(closes) == 96, "up": late > early}


@add_strategy("cached_trend", interval="15m")
def get_signal(symbol: str, when: datetime) -> SignalDict | None:
    """A breakout of the last two hours in the direction of the trend."""
    answer = trend(symbol)
    closes = [candle["close"] for candle in get_candles(symbol, "15m", 9)]
    if not answer["known"] or len(closes) < 9:
        return None  # not enough history yet
    side = 1 if answer["up"] else -1
    if (closes[-1] - max(closes[:-1]) if answer["up"] else min(closes[:-1]) - closes[-1]) <= 0:
        return None  # no breakout of the last two hours
    price = get_average_price(symbol)
    return {
        "position": "long" if answer["up"] else "short",
        "priceTakeProfit": price * (1 + side * REACH / 100),
        "priceStopLoss": price * (1 - side * REACH / 100),
        "minuteEstimatedTime": 240,
    }
