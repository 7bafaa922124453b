"""The current price of a symbol: the volume-weighted average of its last candles (VWAP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["VWAP_CANDLES", "vwap"]

VWAP_CANDLES: Final = 5
"""Closed 1m candles that the current price is made of."""


def vwap(candles: Sequence[Mapping[str, Any]]) -> float:
    """The volume-weighted mean of the typical prices (high + low + close) / 3 of ``candles``.

    Without any volume there is nothing to weigh by; then it is the plain mean of their closes, as in backtest-kit.
    """
    weighted = volume = 0.0
    for candle in candles:
        weighted += (candle["high"] + candle["low"] + candle["close"]) / 3 * candle["volume"]
        volume += candle["volume"]
    if volume == 0:
        return float(sum(candle["close"] for candle in candles) / len(candles))
    return weighted / volume
