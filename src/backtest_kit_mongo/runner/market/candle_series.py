"""Listing, counting and removing the candles stored in the Candle contract."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from ...candles import INTERVAL_MS, interval_ms
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...domains import DOMAINS
from ...errors import InvalidValueError
from ...stores.base import Store
from .gaps import Gap, find_gaps_between
from .stored_candles import StoredCandles

__all__ = ["CandleSeries", "count_candles", "list_candles", "remove_candles"]


class CandleSeries(msgspec.Struct, frozen=True, rename="camel"):
    """A stored series: the number of ``candles`` in ``[since_ms, until_ms)`` (ms), and the gaps between the first and the last one."""

    exchange_name: str
    symbol: str
    interval: str
    candles: int
    since_ms: int
    until_ms: int
    gaps: tuple[Gap, ...]

    @property
    def missing(self) -> int:
        """How many candles are missing in the gaps."""
        return (self.until_ms - self.since_ms) // interval_ms(self.interval) - self.candles


def list_candles(
    *, symbol: str | None = None, interval: str | None = None, exchange_name: str | None = None, registry: Registry | None = None
) -> Iterator[CandleSeries]:
    """Yield every stored series that matches the arguments, sorted by exchange, symbol and interval.

    This reads all timestamps of a series. A series with an unknown interval (another program may have written it) is left out.
    """
    store = _store(registry)
    for series in store.candle_series():
        exchange, name, length = (str(part) for part in series)
        if length not in INTERVAL_MS or any(
            required not in (None, actual) for required, actual in ((symbol, name), (interval, length), (exchange_name, exchange))
        ):
            continue
        batches = [batch["timestamp"].copy() for batch in store.stored_candles(series)]
        if not batches:
            continue
        stamps = np.concatenate(batches)
        yield CandleSeries(
            exchange_name=exchange,
            symbol=name,
            interval=length,
            candles=len(stamps),
            since_ms=int(stamps[0]),
            until_ms=int(stamps[-1]) + interval_ms(length),
            gaps=find_gaps_between(stamps, length),
        )


def count_candles(
    symbol: str,
    interval: str,
    exchange_name: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    registry: Registry | None = None,
) -> int:
    """Return how many candles of a series are stored in ``[since_ms, until_ms)`` (ms; None: from the first, to the last)."""
    interval_ms(interval)
    return sum(len(batch) for batch in _store(registry).stored_candles((exchange_name, symbol, interval), since_ms, until_ms))


def remove_candles(
    symbol: str,
    interval: str,
    exchange_name: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    registry: Registry | None = None,
) -> int:
    """Delete the candles of a series in ``[since_ms, until_ms)`` (ms; None: from the first, to the last), and return their number.

    This is the only way to change a stored candle: remove it, then import it again. Other processes may continue to use candles that
    they keep in memory. Raises InvalidValueError if the window is empty.
    """
    interval_ms(interval)
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise InvalidValueError("the window to remove is empty: it ends before it begins")
    _store(registry)
    far = 2**53
    stored = StoredCandles(symbol, interval, exchange_name, registry)
    return stored.remove(-far if since_ms is None else since_ms, far if until_ms is None else until_ms)


def _store(registry: Registry | None) -> Store:
    """Return the store of the Candle contract. Raises InvalidValueError for a custom class, which may keep the candles elsewhere."""
    registry = default_registry if registry is None else registry
    if registry.binding("candle").custom is not None:
        raise InvalidValueError("a class of your own serves the Candle contract; list and remove candles where that class keeps them")
    return registry.store(DOMAINS["candle"])
