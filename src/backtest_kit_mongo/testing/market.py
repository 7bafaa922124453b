"""Made-up candles for tests of strategies, the same in every run."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Protocol

import msgspec

from ..arguments import number, whole_number
from ..candles import CandleArray
from ..errors import InvalidValueError
from ..runner import import_candles, synthetic_market
from ..runner.clock import MINUTE_MS
from ..runner.market.frame import moment_ms

__all__ = ["MakeMarket", "SyntheticMarket", "make_market"]

_DAY: Final = 1440  # minutes


class SyntheticMarket(msgspec.Struct, frozen=True, eq=False):
    """The candles that the fixture ``synthetic_market`` stored."""

    symbol: str
    """The symbol that they are stored under."""
    exchange_name: str
    """The exchange that they are stored under."""
    start_ms: int
    """The open time of the first candle, in ms."""
    end_ms: int
    """The time at which the last candle closes, in ms."""
    candles: CandleArray
    """The 1m candles: an array (n,) of CANDLE_DTYPE."""


class MakeMarket(Protocol):
    """The type of the fixture ``synthetic_market``: a function like ``make_market``."""

    def __call__(
        self,
        symbol: str = "BTCUSDT",
        *,
        days: float | None = None,
        minutes: int | None = None,
        seed: int = 0,
        start: datetime | str | int = "2023-03-01",
        price: float = 25_000.0,
        exchange_name: str = "binance",
    ) -> SyntheticMarket:
        """See ``make_market``."""


def make_market(
    symbol: str = "BTCUSDT",
    *,
    days: float | None = None,
    minutes: int | None = None,
    seed: int = 0,
    start: datetime | str | int = "2023-03-01",
    price: float = 25_000.0,
    exchange_name: str = "binance",
) -> SyntheticMarket:
    """Store made-up 1m candles in the Candle contract, and return them. Equal arguments make equal candles.

    Args:
        symbol: the symbol to store them under
        days: how many days of candles; one if neither this nor ``minutes`` is given
        minutes: how many candles, instead of ``days``
        seed: the seed of the random walk
        start: the open time of the first candle, a whole minute: a datetime, ISO text (UTC) or ms
        price: the open price of the first candle, in the quote currency
        exchange_name: the exchange to store them under

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: both ``days`` and ``minutes`` are given, or a value is not valid
        CandleConflictError: other candles of these times are stored already

    Examples:
        >>> from backtest_kit_mongo.testing.market import make_market
        >>> market = make_market("BTCUSDT", minutes=90, seed=7, start="2024-01-01")
        >>> market.candles.shape, market.end_ms - market.start_ms
        ((90,), 5400000)
    """
    if days is not None and minutes is not None:
        raise InvalidValueError("pass days or minutes, not both")
    if minutes is None:
        length = number("days", 1 if days is None else days) * _DAY
        if not 1 <= length < 2**31 or abs(length - round(length)) > 1e-6:  # 0.35 days are 503.99999999999994 minutes
            raise InvalidValueError(f"days is {days!r}, which is not a whole number of minutes, at least one")
        minutes = round(length)
    start_ms = moment_ms("start", start)
    candles = synthetic_market(seed, whole_number("minutes", minutes, least=1), start_ms, price)
    import_candles(candles, symbol, exchange_name=exchange_name)
    return SyntheticMarket(symbol, exchange_name, start_ms, start_ms + len(candles) * MINUTE_MS, candles)
