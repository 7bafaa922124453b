"""The current price of a symbol: the volume-weighted average of its last candles (VWAP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["VWAP_CANDLES", "vwap"]

VWAP_CANDLES: Final = 5
"""How many closed 1m candles the current price averages."""


def vwap(candles: Sequence[Mapping[str, Any]]) -> float:
    """Return the volume-weighted mean of the typical prices, (high + low + close) / 3, of ``candles``.

    If there is no volume to weigh by, return the plain mean of the closes, as backtest-kit does.
    """
    weighted = volume = 0.0
    for candle in candles:
        weighted += (candle["high"] + candle["low"] + candle["close"]) / 3 * candle["volume"]
        volume += candle["volume"]
    if volume == 0:
        return float(sum(candle["close"] for candle in candles) / len(candles))
    return weighted / volume
