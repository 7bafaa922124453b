"""Join candles into longer ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .columns import CANDLE_DTYPE, CandleArray
from .intervals import Grid, Stamps

__all__ = ["join_candles", "join_whole"]


def join_candles(candles: CandleArray, opens: Stamps) -> CandleArray:
    """Join neighbouring candles (ascending) with the same time in ``opens``, which becomes their open time (ms).

    A joined candle has the first open, the highest high, the lowest low, the last close and the sum of the volumes.
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
    """Join candles (ascending) of ``shorter`` into those of ``longer``, leaving out every one with a part missing.

    ``shorter`` must divide ``longer``; see ``Grid.divides``.
    """
    positions = longer.positions(candles["timestamp"])
    numbers, counts = np.unique(positions, return_counts=True)
    opens = longer.stamps_of(numbers)
    expected = shorter.positions(longer.stamps_of(numbers + 1)) - shorter.positions(opens)
    whole = np.repeat(counts == expected, counts)
    return join_candles(candles[whole], np.repeat(opens, counts)[whole])
