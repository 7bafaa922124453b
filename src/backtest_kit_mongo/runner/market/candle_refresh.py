"""Asking an exchange again for candles that are stored: some exchanges revise a candle after its close."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...candles import CandleArray, CandleInterval
from ...contracts.registry import Registry
from ...errors import InvalidValueError
from ..clock import iso_time
from ..registrations import check_name
from .candle_import import ImportReport, import_candles
from .candle_series import candle_store
from .exchange import Fetch, check_window, find_exchange
from .stored_candles import StoredCandles

__all__ = ["refresh_candles"]


def refresh_candles(
    symbol: str,
    interval: CandleInterval,
    exchange_name: str,
    since_ms: int,
    until_ms: int,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> ImportReport:
    """Ask the exchange again for the candles of a window, and replace the stored ones that differ.

    Candles that are missing are stored; those that the exchange no longer has stay. Nothing is written before all answers are there and
    have been checked. See ``import_candles`` for what other processes see.

    Args:
        symbol: the symbol of the series
        interval: the length of the candles
        exchange_name: a registered exchange
        since_ms: the start of the window in ms, on the grid of the interval
        until_ms: its end in ms, which is not part of it
        dry_run: True to write nothing
        progress: called with (candles of the window asked for, all candles of the window)
        registry: the registry whose Candle contract to use; None is the default one

    Returns:
        how many candles the exchange has, and the first that differ

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, no candle of the window has closed yet, or a class of yours serves the Candle contract
        ExchangeError: the exchange failed

    Examples:
        >>> from backtest_kit_mongo.runner import add_exchange, refresh_candles, synthetic_market
        >>> f = add_exchange("made-up", get_candles=lambda symbol, interval, since, limit: synthetic_market(7, limit, since))
        >>> refresh_candles("BTCUSDT", "1m", "made-up", 1704067200000, 1704070800000).new
        60
    """
    symbol = check_name("symbol", symbol)
    candle_store(registry)
    exchange = find_exchange(exchange_name)
    since, until, grid = check_window(interval, since_ms, until_ms)
    now = time.time_ns() // 1_000_000
    until = min(until, grid.align(now))
    if until <= since:
        raise InvalidValueError(f"no candle of the window has closed yet: it starts {iso_time(since)}, and the time is {iso_time(now)}")
    fetch = Fetch(exchange, symbol, interval, StoredCandles(symbol, interval, exchange_name, registry), now)

    def moved(reached: int) -> None:
        if progress is not None:
            progress(grid.count(since, min(reached, until)), grid.count(since, until))

    candles: CandleArray = fetch.window(since, until, moved)
    if len(candles):
        report = import_candles(candles, symbol, interval, exchange_name, replace=True, dry_run=dry_run, registry=registry)
    else:
        report = ImportReport(symbol, interval, exchange_name, candles=0, unclosed=0, since_ms=since, until_ms=until, gaps=())
    return report
