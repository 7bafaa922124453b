"""Buy and hold: what one stake would have earned by buying at the start of the window and selling at its end, with the same costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from .cost_basis import Costs, pnl_percentage

__all__ = ["BuyAndHold", "Holding", "held_percentages"]


class BuyAndHold(msgspec.Struct, frozen=True, rename="camel"):
    """A long position over the whole window, bought at the open of its first 1m candle and sold at the close of its last one."""

    price_open: float
    """The price that it was bought at, in the quote currency."""
    price_close: float
    """The price that it was sold at, in the quote currency."""
    pnl_percentage: float
    """The profit in percent of the stake, after the fee and slippage of the run on both sides."""
    max_drawdown_percentage: float
    """The deepest fall of the profit, if sold at the close of each 1m candle, below its highest point so far (which starts at 0), in
    percent of the stake; 0 or more.
    """


class Holding:
    """Buy and hold over candles that arrive in blocks, in order of time."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._bought: float | None = None
        self._price = self._highest = self._deepest = 0.0

    def follow(self, candles: Sequence[dict[str, Any]]) -> None:
        """Hold through the next 1m candles."""
        if not candles:
            return
        if self._bought is None:
            self._bought = float(candles[0]["open"])
        closes = np.array([candle["close"] for candle in candles], np.float64)
        profits = held_percentages(self._bought, closes, self._costs)
        highest = np.maximum.accumulate(np.maximum(profits, self._highest))
        self._deepest = max(self._deepest, float(np.max(highest - profits)))
        self._highest, self._price = float(highest[-1]), float(closes[-1])

    def sold(self) -> BuyAndHold | None:
        """Return the result of selling at the last close so far; None if there was no candle yet."""
        if self._bought is None:
            return None
        return BuyAndHold(
            price_open=self._bought,
            price_close=self._price,
            pnl_percentage=pnl_percentage("long", self._bought, self._price, self._costs),
            max_drawdown_percentage=self._deepest,
        )


def held_percentages(price_open: float, prices: npt.NDArray[np.float64], costs: Costs) -> npt.NDArray[np.float64]:
    """Return the profit (percent of the stake, after costs) of buying at ``price_open`` and selling at each of ``prices``."""
    return cast("npt.NDArray[np.float64]", pnl_percentage("long", price_open, cast("float", prices), costs))
