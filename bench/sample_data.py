"""The data of the benchmarks: one signal row, many contexts, and 30,240 candles (three weeks of minutes)."""

from __future__ import annotations

import functools
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from backtest_kit_mongo.candles import CandleArray
from backtest_kit_mongo.runner import read_klines
from backtest_kit_mongo.runner.market.gaps import synthetic_market

__all__ = ["CANDLES", "CONTEXT", "MANY", "MINUTE", "ROW", "Context", "candles", "document", "filter_of", "numbered", "redis_key"]

Context = tuple[str, str, str]
"""Symbol, strategy, exchange."""

MINUTE: Final = 60_000
CANDLES: Final = 30_240
CONTEXT: Final[Context] = ("BTCUSDT", "sma_cross", "binance")
MANY: Final[list[Context]] = [("BTCUSDT", f"sma_cross_{number}", "binance") for number in range(1000)]
ROW: Final[dict[str, Any]] = {
    "id": "7f0c2a4e-6f0e-4d1e-9c58-0d8f3a1b2c3d",
    "position": "long",
    "priceOpen": 23144.78,
    "priceTakeProfit": 23500.0,
    "priceStopLoss": 22900.0,
    "minuteEstimatedTime": 240,
    "cost": 100,
    "exchangeName": "binance",
    "strategyName": "sma_cross",
    "frameName": "",
    "scheduledAt": 1677628800000,
    "pendingAt": 1677628800000,
    "symbol": "BTCUSDT",
    "timestamp": 1677628800000,
    "_isScheduled": False,
    "_peak": {"price": 23152.49, "timestamp": 1677628860000},
    "_fall": {"price": 23115.12, "timestamp": 1677628920000},
    "note": "sma 9 above sma 21",
}


def filter_of(context: tuple[str, ...]) -> dict[str, Any]:
    """Return the compound key of a signal."""
    return dict(zip(("symbol", "strategyName", "exchangeName"), context, strict=True))


def redis_key(context: tuple[str, ...]) -> str:
    """Return the Redis key of a signal's id."""
    symbol, strategy, exchange = context
    return f"signal_cache:{exchange}:{strategy}:{symbol}"


def numbered(start: int, stop: int) -> list[Context]:
    """Return contexts by number, for collections of any size; every process gets the same ones."""
    return [("BTCUSDT", f"strategy_{number:07}", "binance") for number in range(start, stop)]


def document(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """Return a signal as it is stored, without its id."""
    now = datetime.now(UTC)
    return {**filter_of(context), "__v": 0, "createDate": now, "payload": payload, "updatedDate": now}


@functools.cache
def candles() -> tuple[CandleArray, str]:
    """Return the candles and a description: real ones if BTKM_CANDLES or the shared data next to the repository has them."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "BTCUSDT.csv.gz"
    path = Path(os.environ.get("BTKM_CANDLES") or beside)
    if path.is_file():
        klines = read_klines(path)[:CANDLES]
        assert len(klines) == CANDLES
        assert klines["timestamp"][-1] == klines["timestamp"][0] + (CANDLES - 1) * MINUTE, "there are holes"
        return klines, f"real candles of {path.name}"
    return synthetic_market(42, CANDLES, 1_677_628_800_000), "synthetic candles, seed 42"
