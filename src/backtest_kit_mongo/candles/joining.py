"""Join candles into longer ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .columns import CANDLE_DTYPE, CandleArray
from .intervals import Grid, Stamps

__all__ = ["join_candles", "join_whole"]


def join_candles(candles: CandleArray, opens: Stamps) -> CandleArray:
    """Join neighbouring candles into longer ones.

    A joined candle has the first open, the highest high, the lowest low, the last close and the sum of the volumes.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, ascending
        opens: an array (n,) of int64: the open time (ms) of the joined candle that each candle becomes part of

    Returns:
        an array of CANDLE_DTYPE, one candle for each run of equal ``opens``

    Examples:
        >>> from backtest_kit_mongo.candles import join_candles
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> candles = synthetic_market(7, 10, 1704067200000)
        >>> join_candles(candles, candles["timestamp"] // 300_000 * 300_000)["timestamp"].tolist()
        [1704067200000, 1704067500000]
    """
    if not len(candles):
        return candles[:0]
    first = np.flatnonzero(np.diff(opens, prepend=opens[0] - 1))
    joined = np.empty(len(first), CANDLE_DTYPE)
    joined["timestamp"] = opens[first]
    joined["open"], joined["close"] = candles["open"][first], candles["close"][np.append(first[1:], len(candles)) - 1]
    joined["high"] = np.maximum.reduceat(candles["high"], first)
    joined["low"] = np.minimum.reduceat(candles["low"], first)
    volumes = candles["volume"].tolist()
    # Not np.add.reduceat, which rounds otherwise: candles joined from dicts have the same volume to the last bit.
    joined["volume"] = [sum(volumes[since:until]) for since, until in pairwise([*first.tolist(), len(volumes)])]
    return joined


def join_whole(candles: CandleArray, shorter: Grid, longer: Grid) -> CandleArray:
    """Join candles of one grid into those of a longer one, leaving out every one with a part missing.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, ascending, on ``shorter``
        shorter: the grid of ``candles``; it must divide ``longer``, see ``Grid.divides``
        longer: the grid of the result

    Returns:
        an array of CANDLE_DTYPE on ``longer``

    Examples:
        >>> from backtest_kit_mongo.candles import GRIDS, join_whole
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> join_whole(synthetic_market(7, 12, 1704067200000), GRIDS["1m"], GRIDS["5m"]).shape
        (2,)
    """
    positions = longer.positions(candles["timestamp"])
    numbers, counts = np.unique(positions, return_counts=True)
    opens = longer.stamps_of(numbers)
    expected = shorter.positions(longer.stamps_of(numbers + 1)) - shorter.positions(opens)
    whole = np.repeat(counts == expected, counts)
    return join_candles(candles[whole], np.repeat(opens, counts)[whole])
