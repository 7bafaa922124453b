"""Copy records from one store to another, and check whether two stores hold the same. Uses only the Store protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..candles import CandleArray, grid_of, matches
from ..domains import DOMAINS, Domain
from ..errors import InvalidTypeError, InvalidValueError
from ..stores.base import Key, Record, Store, check_key
from ..stores.skipped_records import collecting_skipped
from .comparison import Same, same_records

__all__ = ["BATCH", "Outcome", "check_domain", "copy_domain", "same_records"]

BATCH: Final = 1_000
"""How many records are read, compared and written at once."""
CANDLE_BATCH: Final = 10_000

_SHOWN: Final = 5

Refusal = tuple[Key, str]
"""The key of a record that cannot be stored, and why."""


class Outcome(msgspec.Struct, kw_only=True):
    """The counts of a copy and a check of one domain; for ``candle``, each candle counts as a record."""

    records: int = 0
    """Records in the source."""
    equal: int = 0
    """Records that are the same on the target."""
    new: int = 0
    """Records that were missing on the target and are written (``dry_run``: would be)."""
    changed: int = 0
    """Records that differed on the target and are overwritten (``dry_run``: would be)."""
    conflicts: int = 0
    """Records that differ on the target in an insert-once domain; they stay as they are."""
    refused: int = 0
    """Records that cannot be copied: unreadable in the source (a corrupt file), an invalid key, or a value that the target cannot hold."""
    missing: int | None = None
    """Records that the check did not find on the target. Without a check, this and the next two are None."""
    different: int | None = None
    """Records that differ on the target."""
    extra: int | None = None
    """Records that only the target has."""
    examples: dict[str, list[str]] = {}
    """The first keys of conflicts, refused (with the reason), missing, different and extra."""

    @property
    def good(self) -> bool:
        """Whether no record was refused, missing or different."""
        return not (self.refused or self.missing or self.different)

    def note(self, what: Literal["conflicts", "refused", "missing", "different", "extra"], keys: Iterable[Key | str]) -> None:
        """Add ``keys`` to the count ``what``, and keep the first ones as examples."""
        texts = self.examples.setdefault(what, [])
        count = getattr(self, what) or 0
        for key in keys:
            count += 1
            if len(texts) < _SHOWN:
                texts.append(key if isinstance(key, str) else _text(key))
        setattr(self, what, count)
        if not texts:
            del self.examples[what]


def _text(key: Key) -> str:
    return ", ".join(map(str, key))


class _Batch(NamedTuple):
    """A batch of source records, compared with the target."""

    size: int
    keys: list[Key]
    """Keys of the records that can be stored. Empty for candles: the check compares their windows on both sides instead."""
    missing: list[Key]
    different: list[Key]
    refused: list[Refusal]
    write: Callable[[], list[Refusal]]
    """Store what is missing and what may be overwritten; return what the target refused."""


# --- copy and check ---


def copy_domain(
    domain: Domain,
    source: Store,
    target: Store,
    same: Same,
    *,
    dry_run: bool = False,
    batch: int = BATCH,
    moved: Callable[[int], None] = lambda count: None,
    notes: list[str] | None = None,
) -> Outcome:
    """Write to a store the records of another one that are missing or different there, including removed ones; return the counts.

    You can repeat it, or run it again after an interruption: it writes what is left. In insert-once domains a different record on the
    target is a conflict and stays. A record that cannot be stored is counted as refused, and the others are stored. Earlier versions
    (history) are not copied.

    Args:
        domain: a row of ``DOMAINS``
        source: the store to read
        target: the store to write
        same: compares a record of both stores: ``same_records(as_json=...)``, True if one of them holds JSON files
        dry_run: True to count and write nothing
        batch: how many records are compared and written at once
        moved: called with the size of each batch
        notes: gets a line for each folder of files whose name did not tell the keys of its records

    Raises:
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time
        StorageError: a folder cannot be read or written

    Examples:
        >>> from backtest_kit_mongo.data.transfer import copy_domain, same_records
        >>> from backtest_kit_mongo.domains import DOMAINS
        >>> from backtest_kit_mongo.stores.base import Record
        >>> from backtest_kit_mongo.stores.memory import MemoryStore
        >>> signal, source, target = DOMAINS["signal"], MemoryStore(), MemoryStore()
        >>> source.write(signal, [Record(("BTCUSDT", "sma", "binance"), {"id": "s1"})])
        >>> copy_domain(signal, source, target, same_records(as_json=False)).new
        1
    """
    outcome = Outcome()
    left_out: list[str] = []
    for part in _batches(domain, source, target, same, batch, left_out, notes):
        refused = part.refused + ([] if dry_run else part.write())
        outcome.note("refused", (f"{_text(key)}: {reason}" for key, reason in refused))
        failed = {key for key, _ in refused[len(part.refused) :]}
        outcome.records += part.size
        outcome.equal += part.size - len(part.missing) - len(part.different) - len(part.refused)
        outcome.new += sum(key not in failed for key in part.missing)
        if domain.write == "insert_once":
            outcome.note("conflicts", part.different)
        else:
            outcome.changed += sum(key not in failed for key in part.different)
        moved(part.size)
    outcome.records += len(left_out)
    outcome.note("refused", left_out)
    return outcome


def check_domain(
    domain: Domain,
    source: Store,
    target: Store,
    same: Same,
    outcome: Outcome,
    *,
    batch: int = BATCH,
    moved: Callable[[int], None] = lambda count: None,
) -> None:
    """Compare two stores, and count what is missing or different on the target and what only the target has.

    Args:
        domain: a row of ``DOMAINS``
        source: the store that was copied
        target: the store that was written
        same: compares a record of both stores: ``same_records(as_json=...)``, True if one of them holds JSON files
        outcome: gets the counts, as ``missing``, ``different`` and ``extra``
        batch: how many records are compared at once
        moved: called with the size of each batch

    Raises:
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time
        StorageError: a folder cannot be read

    Examples:
        >>> from backtest_kit_mongo.data.transfer import Outcome, check_domain, same_records
        >>> from backtest_kit_mongo.domains import DOMAINS
        >>> from backtest_kit_mongo.stores.memory import MemoryStore
        >>> source, target, outcome = MemoryStore(), MemoryStore(), Outcome()
        >>> check_domain(DOMAINS["signal"], source, target, same_records(as_json=False), outcome)
        >>> outcome.good
        True
    """
    outcome.missing = outcome.different = outcome.extra = 0
    source_keys: set[Key] = set()
    for part in _batches(domain, source, target, same, batch, [], []):  # copy_domain has reported what is skipped or unclear
        outcome.note("missing", part.missing)
        outcome.note("missing", (key for key, _ in part.refused))
        outcome.note("different", part.different)
        source_keys.update(part.keys)
        moved(part.size)
    for extra, size in _extra_candles(source, target) if domain.name == "candle" else _extra_records(domain, target, source_keys):
        outcome.note("extra", extra)
        moved(size)


def _batches(
    domain: Domain, source: Store, target: Store, same: Same, size: int, left_out: list[str], notes: list[str] | None = None
) -> Iterator[_Batch]:
    """Return the batches of all readable source records; records that the source skips are added to ``left_out``."""
    if domain.name == "candle":
        return _candle_batches(source, target, left_out)
    return _record_batches(domain, collecting_skipped(source.records(domain), left_out, notes), target, same, size)


# --- records ---


def _record_batches(domain: Domain, source: Iterator[Record], target: Store, same: Same, size: int) -> Iterator[_Batch]:
    while batch := list(islice(source, size)):
        refused = [(record.key, reason) for record in batch if (reason := _refusal(domain, record.key))]
        records = [record for record in batch if not _refusal(domain, record.key)] if refused else batch
        stored = target.read(domain, [record.key for record in records])
        missing = [record for record, other in zip(records, stored, strict=True) if other is None]
        different = [record for record, other in zip(records, stored, strict=True) if other is not None and not same(domain, record, other)]
        to_write = missing if domain.write == "insert_once" else missing + different
        yield _Batch(len(batch), _keys(records), _keys(missing), _keys(different), refused, partial(_write, target, domain, to_write))


def _keys(records: Iterable[Record]) -> list[Key]:
    return [record.key for record in records]


def _refusal(domain: Domain, key: Key) -> str | None:
    """Return why no record can be stored under ``key``, or None if it can: other writers omit fields or store values that are not text."""
    try:
        check_key(domain, key)
    except (InvalidTypeError, InvalidValueError) as error:
        return str(error)
    return None


def _write(target: Store, domain: Domain, records: Sequence[Record]) -> list[Refusal]:
    """Write ``records``; skip and return those that the target refuses."""
    if not records:
        return []
    try:
        target.write(domain, records)
    except (InvalidTypeError, InvalidValueError) as error:  # no record of the batch was written
        if len(records) == 1:
            return [(records[0].key, str(error))]
        return [refusal for record in records for refusal in _write(target, domain, [record])]
    return []


def _extra_records(domain: Domain, target: Store, source_keys: set[Key]) -> Iterator[tuple[list[Key], int]]:
    records = target.records(domain)
    while keys := _keys(islice(records, BATCH)):
        yield [key for key in keys if _refusal(domain, key) or key not in source_keys], len(keys)


# --- candles ---


def _candle_batches(source: Store, target: Store, left_out: list[str]) -> Iterator[_Batch]:
    for series in source.candle_series():
        if reason := _series_refusal(series):
            yield _Batch(1, [], [], [], [(series, reason)], list)
            continue
        exchange_name, symbol, interval = series
        for candles in _in_batches(collecting_skipped(source.stored_candles(series), left_out)):
            stored, equal = _compare(series, candles, target)
            missing = candles[~stored]
            different = candles[stored & ~equal]
            write = partial(_write_candles, target, symbol, interval, exchange_name, missing)
            yield _Batch(len(candles), [], _candle_keys(series, missing), _candle_keys(series, different), [], write)


def _series_refusal(series: Key) -> str | None:
    """Return why no candles can be stored for ``series``, or None if they can: other writers accept any interval."""
    try:
        grid_of(series[2])
    except (InvalidTypeError, InvalidValueError) as error:
        return str(error)
    return _refusal(DOMAINS["candle"], series)


def _write_candles(target: Store, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> list[Refusal]:
    if len(candles):
        target.write_candles(symbol, interval, exchange_name, candles)
    return []


def _candle_keys(series: Key, candles: CandleArray) -> list[Key]:
    return [(*series, stamp) for stamp in candles["timestamp"].tolist()]


def _in_batches(parts: Iterable[CandleArray]) -> Iterator[CandleArray]:
    """Yield the same candles in batches of ``CANDLE_BATCH``: a store may return them one by one."""
    buffered: list[CandleArray] = []
    count = 0
    for part in parts:
        buffered.append(part)
        count += len(part)
        if count >= CANDLE_BATCH:
            candles = np.concatenate(buffered)
            whole = count - count % CANDLE_BATCH
            yield from (candles[start : start + CANDLE_BATCH] for start in range(0, whole, CANDLE_BATCH))
            buffered, count = [candles[whole:]], count - whole
    if count:
        yield np.concatenate(buffered)


def _compare(series: Key, candles: CandleArray, store: Store) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return two masks: which of ``candles`` (ascending) are in ``store``, and which are there with the same values."""
    stamps = candles["timestamp"]
    return matches(candles, store.stored_candles(series, int(stamps[0]), int(stamps[-1]) + 1))


def _extra_candles(source: Store, target: Store) -> Iterator[tuple[list[Key], int]]:
    for series in target.candle_series():
        if _series_refusal(series):
            yield [series], 1
            continue
        for candles in _in_batches(target.stored_candles(series)):
            stored, _ = _compare(series, candles, source)
            yield _candle_keys(series, candles[~stored]), len(candles)
