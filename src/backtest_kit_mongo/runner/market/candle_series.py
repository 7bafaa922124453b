"""List, count, remove, pack, unpack and verify the candles stored in the Candle contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from ...arguments import whole_number
from ...candles import GRIDS, grid_of
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
        return grid_of(self.interval).count(self.since_ms, self.until_ms) - self.candles


def list_candles(
    *, symbol: str | None = None, interval: str | None = None, exchange_name: str | None = None, registry: Registry | None = None
) -> Iterator[CandleSeries]:
    """Yield every stored series that matches the arguments, sorted by exchange, symbol and interval.

    This reads all timestamps of a series. A series with an unknown interval (another program may have written it) is left out.
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
    interval: str,
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
    interval: str,
    exchange_name: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    *,
    registry: Registry | None = None,
) -> int:
    """Delete the candles of a series in ``[since_ms, until_ms)`` (ms; None: from the first, to the last), and return their number.

    Other processes may use candles that they keep in memory for another minute, and a run that has begun until it ends. Raises
    InvalidValueError if the window is empty.
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
    symbol: str
    interval: str
    blocks: int  # how many were packed, unpacked or compared
    problems: dict[int, str]  # what was wrong with packed blocks, by number


def pack_candles(
    *,
    symbol: str | None = None,
    interval: str | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Pack the closed blocks of every stored series that matches the arguments; yield the outcome of each series.

    With ``CC_CANDLE_FORMAT=items`` blocks are copied. A write packs the blocks that it completes at once, and a cold read of a long
    window those that it finds complete. So this is only needed for candles that others stored: an older version of this library, or the
    TypeScript package. With ``CC_CANDLE_FORMAT=packed`` blocks of at least 256 candles are moved to the archive, and what an
    interrupted move left behind is deleted.

    You can interrupt it and run it again, beside programs that read and write. With ``dry_run`` it only counts the blocks. ``progress``
    is called with (candles passed, all candles) of a series. Raises InvalidValueError if the candles are not in MongoDB.
    """
    store = _mongo_store(registry)
    for series in _matching(store.candle_series(), symbol, interval, exchange_name):
        yield _outcome(series, pack_series(store.candles, series, dry_run=dry_run), progress)


def unpack_candles(
    *,
    symbol: str | None = None,
    interval: str | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Move the candles of every series that matches the arguments from the archive to one document per candle; yield the outcomes.

    Afterwards the TypeScript package can read them. Set ``CC_CANDLE_FORMAT=items`` first: programs with ``packed`` move candles to the
    archive again. You can interrupt it and run it again, beside programs that read and write. With ``dry_run`` it only counts the
    blocks. ``progress`` is called with (candles passed, all candles) of a series. Raises InvalidValueError if the candles are not in
    MongoDB, and DatabaseError if candles are being removed or a block is damaged.
    """
    store = _mongo_store(registry)
    for series in _matching(store.candles.archive.series(), symbol, interval, exchange_name):
        yield _outcome(series, unpack_series(store.candles, series, dry_run=dry_run), progress)


def verify_candles(
    *,
    symbol: str | None = None,
    interval: str | None = None,
    exchange_name: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Iterator[PackedSeries]:
    """Compare the packed blocks of every series that matches the arguments with the stored candles, and drop copies that differ.

    Run it after something other than ``remove_candles`` changed or deleted candles in the database. Blocks of the archive are decoded,
    and compared with documents of the same times; nothing of them is dropped. With ``dry_run`` nothing at all is dropped. It yields the
    outcome of each series. ``progress`` is called with (candles passed, all candles) of a series. Raises InvalidValueError if the
    candles are not in MongoDB.
    """
    store = _mongo_store(registry)
    every = {*store.candle_series(), *store.candles.packed_series()}  # also series whose candles were all deleted
    for series in _matching(sorted(every), symbol, interval, exchange_name):
        yield _outcome(series, verify_series(store.candles, series, dry_run=dry_run), progress)


def _outcome(series: tuple[str, str, str], groups: Iterable[BlockGroup], progress: Callable[[int, int], None] | None) -> PackedSeries:
    blocks = candles = 0
    problems: dict[int, str] = {}
    for group in groups:
        blocks, candles = blocks + group.blocks, candles + group.candles
        problems |= group.problems
        if progress is not None:
            progress(candles, group.total)
    exchange_name, symbol, interval = series
    return PackedSeries(exchange_name=exchange_name, symbol=symbol, interval=interval, blocks=blocks, problems=problems)


def _matching(stored: Iterable[Key], symbol: str | None, interval: str | None, exchange_name: str | None) -> Iterator[tuple[str, str, str]]:
    """Yield the series that match, except those with an unknown interval (another program may have written them)."""
    for series in stored:
        exchange, name, length = (str(part) for part in series)
        conditions = ((symbol, name), (interval, length), (exchange_name, exchange))
        if length in GRIDS and all(required in (None, actual) for required, actual in conditions):
            yield exchange, name, length


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
