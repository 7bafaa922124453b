"""List, count, remove, pack, unpack and verify the candles stored in the Candle contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from ...arguments import whole_number
from ...candles import GRIDS, CandleInterval, grid_of
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...domains import DOMAINS
from ...errors import InvalidValueError
from ...stores.base import Key, Store
from ...stores.mongo.block_collection import BlockGroup
from ...stores.mongo.candle_upkeep import pack_series, unpack_series, verify_series
from ...stores.mongo.store import MongoStore
from .gaps import Gap, find_gaps_between
from .stored_candles import StoredCandles

__all__ = [
    "CandleSeries",
    "PackedSeries",
    "candle_store",
    "count_candles",
    "list_candles",
    "pack_candles",
    "remove_candles",
    "unpack_candles",
    "verify_candles",
]


class CandleSeries(msgspec.Struct, frozen=True, rename="camel"):
    """A stored series of candles."""

    exchange_name: str
    """The exchange of the series."""
    symbol: str
    """Its symbol."""
    interval: CandleInterval
    """Its interval."""
    candles: int
    """How many candles are stored."""
    since_ms: int
    """The open time of the first one, in ms."""
    until_ms: int
    """The time at which the last one closes, in ms."""
    gaps: tuple[Gap, ...]
    """The gaps between the first and the last one."""

    @property
    def missing(self) -> int:
        """How many candles are missing in the gaps."""
        return grid_of(self.interval).count(self.since_ms, self.until_ms) - self.candles


def list_candles(
    *, symbol: str | None = None, interval: CandleInterval | None = None, exchange_name: str | None = None, registry: Registry | None = None
) -> Iterator[CandleSeries]:
    """Yield every stored series that matches the arguments, sorted by exchange, symbol and interval.

    This reads all timestamps of a series. A series with an unknown interval (another program may have written it) is left out.

    Args:
        symbol: only series of this symbol; None means all
        interval: only series of this interval; None means all
        exchange_name: only series of this exchange; None means all
        registry: the registry whose Candle contract to use; None is the default one

    Raises:
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import import_candles, list_candles, synthetic_market
        >>> report = import_candles(synthetic_market(7, 60, 1704067200000), "BTCUSDT")
        >>> [(series.symbol, series.interval, series.candles) for series in list_candles()]
        [('BTCUSDT', '1m', 60)]
    """
    store = candle_store(registry)
    for exchange, name, length in _matching(store.candle_series(), symbol, interval, exchange_name):
        batches = [batch["timestamp"].copy() for batch in store.stored_candles((exchange, name, length))]
        if not batches:
            continue
        stamps = np.concatenate(batches)
        yield CandleSeries(
            exchange_name=exchange,
            symbol=name,
            interval=length,
            candles=len(stamps),
            since_ms=int(stamps[0]),
            until_ms=grid_of(length).after(int(stamps[-1])),
            gaps=find_gaps_between(stamps, length),
        )


def count_candles(
    symbol: str,
    interval: CandleInterval,
    exchange_name: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    registry: Registry | None = None,
) -> int:
    """Return how many candles of a series are stored in ``[since_ms, until_ms)`` (ms; None: from the first, to the last)."""
    store = candle_store(registry)
    series = StoredCandles(symbol, interval, exchange_name, registry)
    since_ms, until_ms = _window(since_ms, until_ms)
    return sum(len(batch) for batch in store.stored_candles(series.series, since_ms, until_ms))


def remove_candles(
    symbol: str,
    interval: CandleInterval,
    exchange_name: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    registry: Registry | None = None,
) -> int:
    """Delete the candles of a series in a window, and return their number.

    Other processes may use candles that they keep in memory for another minute, and a run that has begun until it ends.

    Args:
        symbol: the symbol of the series
        interval: its interval
        exchange_name: its exchange
        since_ms: the start of the window in ms; None is the first candle
        until_ms: the end of the window in ms, which is not part of it; None is the end of the series
        registry: the registry whose Candle contract to use; None is the default one

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: there is no such interval, or the window is empty
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import import_candles, remove_candles, synthetic_market
        >>> report = import_candles(synthetic_market(7, 60, 1704067200000), "BTCUSDT")
        >>> remove_candles("BTCUSDT", "1m", "binance", since_ms=1704067200000 + 50 * 60_000)
        10
    """
    since_ms, until_ms = _window(since_ms, until_ms)
    if since_ms is not None and until_ms is not None and until_ms <= since_ms:
        raise InvalidValueError("the window to remove is empty: it ends before it begins")
    candle_store(registry)
    far = 2**53
    stored = StoredCandles(symbol, interval, exchange_name, registry)
    return stored.remove(-far if since_ms is None else since_ms, far if until_ms is None else until_ms)


def _window(since_ms: int | None, until_ms: int | None) -> tuple[int | None, int | None]:
    return (
        None if since_ms is None else whole_number("since_ms", since_ms),
        None if until_ms is None else whole_number("until_ms", until_ms),
    )


class PackedSeries(msgspec.Struct, frozen=True, rename="camel"):
    """What ``pack_candles``, ``unpack_candles`` or ``verify_candles`` did to a series."""

    exchange_name: str
    """The exchange of the series."""
    symbol: str
    """Its symbol."""
    interval: CandleInterval
    """Its interval."""
    blocks: int
    """How many blocks were packed, unpacked or compared."""
    problems: dict[int, str]
    """What was wrong with packed blocks, by number of the block."""


def pack_candles(
    *,
    symbol: str | None = None,
    interval: CandleInterval | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Pack the closed blocks of every stored series that matches the arguments; yield the outcome of each series.

    With ``CC_CANDLE_FORMAT=items`` blocks are copied. A write packs the blocks that it completes at once, and a cold read of a long
    window those that it finds complete. So this is only needed for candles that others stored: an older version of this library, or the
    TypeScript package. With ``CC_CANDLE_FORMAT=packed`` blocks of at least 256 candles are moved to the archive, and what an
    interrupted move left behind is deleted. You can interrupt it and run it again, beside programs that read and write.

    Args:
        symbol: only series of this symbol; None means all
        interval: only series of this interval; None means all
        exchange_name: only series of this exchange; None means all
        dry_run: True to count the blocks only
        progress: called with (candles passed, all candles) of a series
        registry: the registry whose Candle contract to use; None is the default one

    Raises:
        InvalidValueError: the candles are not in MongoDB
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import pack_candles
        >>> for series in pack_candles(symbol="BTCUSDT", dry_run=True):
        ...     print(series.interval, series.blocks)
        Traceback (most recent call last):
        backtest_kit_mongo.errors.InvalidValueError: ...
    """
    store = _mongo_store(registry)
    for series in _matching(store.candle_series(), symbol, interval, exchange_name):
        yield _outcome(series, pack_series(store.candles, series, dry_run=dry_run), progress)


def unpack_candles(
    *,
    symbol: str | None = None,
    interval: CandleInterval | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Move the candles of every series that matches the arguments from the archive to one document per candle; yield the outcomes.

    Afterwards the TypeScript package can read them. Set ``CC_CANDLE_FORMAT=items`` first: programs with ``packed`` move candles to the
    archive again. You can interrupt it and run it again, beside programs that read and write.

    Args:
        symbol: only series of this symbol; None means all
        interval: only series of this interval; None means all
        exchange_name: only series of this exchange; None means all
        dry_run: True to count the blocks only
        progress: called with (candles passed, all candles) of a series
        registry: the registry whose Candle contract to use; None is the default one

    Raises:
        InvalidValueError: the candles are not in MongoDB
        DatabaseError: candles are being removed, or a block is damaged
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import unpack_candles
        >>> for series in unpack_candles(symbol="BTCUSDT"):
        ...     print(series.interval, series.blocks)
        Traceback (most recent call last):
        backtest_kit_mongo.errors.InvalidValueError: ...
    """
    store = _mongo_store(registry)
    for series in _matching(store.candles.archive.series(), symbol, interval, exchange_name):
        yield _outcome(series, unpack_series(store.candles, series, dry_run=dry_run), progress)


def verify_candles(
    *,
    symbol: str | None = None,
    interval: CandleInterval | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Compare the packed blocks of every series that matches the arguments with the stored candles, and drop copies that differ.

    Run it after something other than ``remove_candles`` changed or deleted candles in the database. Blocks of the archive are decoded,
    and compared with documents of the same times; nothing of them is dropped. It yields the outcome of each series.

    Args:
        symbol: only series of this symbol; None means all
        interval: only series of this interval; None means all
        exchange_name: only series of this exchange; None means all
        dry_run: True to drop nothing
        progress: called with (candles passed, all candles) of a series
        registry: the registry whose Candle contract to use; None is the default one

    Raises:
        InvalidValueError: the candles are not in MongoDB
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo.runner import verify_candles
        >>> for series in verify_candles(symbol="BTCUSDT"):
        ...     print(series.interval, series.problems)
        Traceback (most recent call last):
        backtest_kit_mongo.errors.InvalidValueError: ...
    """
    store = _mongo_store(registry)
    every = {*store.candle_series(), *store.candles.packed_series()}  # also series whose candles were all deleted
    for series in _matching(sorted(every), symbol, interval, exchange_name):
        yield _outcome(series, verify_series(store.candles, series, dry_run=dry_run), progress)


def _outcome(
    series: tuple[str, str, CandleInterval], groups: Iterable[BlockGroup], progress: Callable[[int, int], None] | None
) -> PackedSeries:
    blocks = candles = 0
    problems: dict[int, str] = {}
    for group in groups:
        blocks, candles = blocks + group.blocks, candles + group.candles
        problems |= group.problems
        if progress is not None:
            progress(candles, group.total)
    exchange_name, symbol, interval = series
    return PackedSeries(exchange_name=exchange_name, symbol=symbol, interval=interval, blocks=blocks, problems=problems)


def _matching(
    stored: Iterable[Key], symbol: str | None, interval: CandleInterval | None, exchange_name: str | None
) -> Iterator[tuple[str, str, CandleInterval]]:
    """Yield the series that match, except those with an unknown interval (another program may have written them)."""
    for series in stored:
        exchange, name, length = (str(part) for part in series)
        conditions = ((symbol, name), (interval, length), (exchange_name, exchange))
        if length in GRIDS and all(required in (None, actual) for required, actual in conditions):
            yield exchange, name, GRIDS[length].interval


def _mongo_store(registry: Registry | None) -> MongoStore:
    store = candle_store(registry)
    if not isinstance(store, MongoStore):
        raise InvalidValueError("candles are packed only in MongoDB", hint="the Candle contract is on another store in this mode")
    return store


def candle_store(registry: Registry | None) -> Store:
    """Return the store of the Candle contract. Raises InvalidValueError for a custom class, which may keep the candles elsewhere."""
    registry = default_registry if registry is None else registry
    if registry.binding("candle").custom is not None:
        raise InvalidValueError(
            "a class of your own serves the Candle contract; list, replace and remove candles where that class keeps them"
        )
    return registry.store(DOMAINS["candle"])
