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
    """The candles that ``synthetic_market`` stored: those of ``symbol`` on ``exchange_name`` in ``[start_ms, end_ms)`` (ms)."""

    symbol: str
    exchange_name: str
    start_ms: int
    end_ms: int
    candles: CandleArray
    """The 1m candles, as an array of CANDLE_DTYPE."""


class MakeMarket(Protocol):
    """The type of the fixture ``synthetic_market``."""

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
    """Store ``days`` or ``minutes`` (a day by default) of made-up 1m candles in the Candle contract, and return them.

    Equal arguments make equal candles. ``start`` is a whole minute: a datetime, ISO text (UTC) or ms; the first candle opens then, at
    ``price``. Raises InvalidValueError or InvalidTypeError for a wrong argument, and CandleConflictError if other candles of these times
    are stored already.
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
