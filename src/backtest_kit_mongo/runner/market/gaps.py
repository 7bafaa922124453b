"""Candle columns as a market: finding gaps, and making a seeded synthetic market."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from ...arguments import number, whole_number
from ...candles import CANDLE_DTYPE, CandleArray, CandleInterval, grid_of
from ...errors import InvalidValueError
from ..clock import MINUTE_MS, check_ms, iso_time

__all__ = ["Gap", "find_gaps", "find_gaps_between", "synthetic_market"]


class Gap(msgspec.Struct, frozen=True):
    """A gap in a series of candles."""

    since_ms: int
    """The open time of the first missing candle, in ms."""
    until_ms: int
    """The open time of the next candle that is there, in ms."""
    missing: int
    """How many candles are missing."""

    def __str__(self) -> str:
        noun = "candle is" if self.missing == 1 else "candles are"
        return f"{self.missing} {noun} missing from {iso_time(self.since_ms)} to {iso_time(self.until_ms)}"


def find_gaps(candles: CandleArray, interval: CandleInterval = "1m") -> tuple[Gap, ...]:
    """Return the gaps between candles, first to last.

    Args:
        candles: an array (n,) of CANDLE_DTYPE, ascending
        interval: the length of the candles

    Raises:
        InvalidTypeError: ``interval`` is not a str
        InvalidValueError: there is no such interval

    Examples:
        >>> import numpy as np
        >>> from backtest_kit_mongo.runner import find_gaps, synthetic_market
        >>> find_gaps(np.delete(synthetic_market(7, 10, 1704067200000), [3, 4]))
        (Gap(since_ms=1704067380000, until_ms=1704067500000, missing=2),)
    """
    return find_gaps_between(candles["timestamp"], interval)


def find_gaps_between(stamps: npt.NDArray[np.int64], interval: str) -> tuple[Gap, ...]:
    """Return the gaps between candles of ``interval`` that open at ``stamps`` (ms, ascending), first to last."""
    grid = grid_of(interval)
    distances = np.diff(grid.positions(stamps))
    return tuple(
        Gap(since_ms=grid.after(int(stamps[i])), until_ms=int(stamps[i + 1]), missing=int(distances[i]) - 1)
        for i in np.flatnonzero(distances != 1)
    )


def synthetic_market(seed: int, minutes: int, start_ms: int, price: float = 25_000.0) -> CandleArray:
    """Return made-up 1m candles. Equal arguments make equal candles.

    The price is a random walk in regimes of 4 to 24 hours, each with its own drift and volatility, so that trends exist and trend
    followers trade. Every candle opens where the previous one closed; volume grows with the size of the move. The market looks
    plausible and means nothing: it tells you nothing about how good a strategy is.

    Args:
        seed: the seed of the random walk
        minutes: how many candles
        start_ms: the open time of the first one in ms, a whole minute
        price: the open price of the first one, in the quote currency

    Returns:
        an array (minutes,) of CANDLE_DTYPE, ascending

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid

    Examples:
        >>> from backtest_kit_mongo.runner import synthetic_market
        >>> candles = synthetic_market(7, 1440, 1704067200000)
        >>> candles.shape, candles["open"][0].item()
        ((1440,), 25000.0)
    """
    seed, minutes, start_ms = whole_number("seed", seed), whole_number("minutes", minutes), check_ms("start_ms", start_ms)
    price = number("price", price)
    if not 0 <= seed < 2**32:
        raise InvalidValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    if minutes < 1:
        raise InvalidValueError(f"minutes is {minutes}; it must be at least 1")
    if not (math.isfinite(price) and price > 0):
        raise InvalidValueError(f"price is {price!r}; it must be a finite number above 0")

    # RandomState, because NumPy promises that its streams never change; those of default_rng may change with a release.
    random = np.random.RandomState(seed)
    drift = np.empty(minutes)
    volatility = np.empty(minutes)
    position = 0
    while position < minutes:
        length = int(random.randint(4 * 60, 24 * 60))
        drift[position : position + length] = random.choice((-1.0, 0.0, 1.0)) * random.uniform(0.00001, 0.00006)
        volatility[position : position + length] = random.uniform(0.0003, 0.0011)
        position += length
    steps = drift + volatility * random.standard_normal(minutes)
    # Prices are rounded as on an exchange. Rounding also hides last-digit differences between processors.
    digits = max(2, 6 - math.floor(math.log10(price)))
    tick = 10.0**-digits
    close = np.maximum(np.round(price * np.exp(np.cumsum(steps)), digits), tick)
    opened = np.concatenate(([max(round(price, digits), tick)], close[:-1]))
    reach = volatility * np.abs(random.standard_normal((2, minutes)))
    candles = np.empty(minutes, CANDLE_DTYPE)
    candles["timestamp"] = start_ms + MINUTE_MS * np.arange(minutes, dtype=np.int64)
    candles["open"] = opened
    candles["close"] = close
    candles["high"] = np.maximum(np.round(np.maximum(opened, close) * (1 + reach[0]), digits), np.maximum(opened, close))
    low = np.round(np.minimum(opened, close) * (1 - reach[1]), digits)
    candles["low"] = np.maximum(np.minimum(low, np.minimum(opened, close)), tick)
    candles["volume"] = np.round(random.lognormal(0.0, 0.8, minutes) * (1 + np.abs(steps) / volatility), 6)
    return candles
