"""Helpers shared by the runner tests: contracts in memory and handmade markets."""

from __future__ import annotations

import numpy as np
import pytest

from backtest_kit_mongo.candles import CANDLE_DTYPE
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import clear_brokers, clear_exchanges, clear_frames, clear_risks, clear_strategies

MINUTE = 60_000
START = 1677628800000  # 2023-03-01T00:00:00Z, a multiple of every interval


def clear_registered():
    """Forget everything that is registered under a name."""
    for clear in (clear_strategies, clear_exchanges, clear_frames, clear_risks, clear_brokers):
        clear()


def use_memory():
    """Serve every domain from a new, empty store."""
    for domain in DOMAINS.values():
        adapter_of(domain).use_memory()


@pytest.fixture(autouse=True)
def memory():
    """Start each test with empty stores and nothing registered, and return to MongoDB after it; active in modules that import it."""
    use_memory()
    clear_registered()
    yield
    clear_registered()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()


def flat(minutes, price=100.0):
    """Return candles that stay at ``price``, so that the price of the run is exactly that."""
    market = np.zeros(minutes, CANDLE_DTYPE)
    market["timestamp"] = START + MINUTE * np.arange(minutes)
    for column in ("open", "high", "low", "close"):
        market[column] = price
    market["volume"] = 1.0
    return market
