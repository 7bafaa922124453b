"""Records from one store to another, and whether two stores hold the same. Knows stores by their protocol alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ..candles import CandleArray, interval_ms, matches
from ..domains import DOMAINS, Domain
from ..errors import InvalidTypeError, InvalidValueError
from ..stores.base import Key, Record, Store, check_key
from ..stores.files.json_text import json_of, value_of
from ..stores.skipped_records import collecting_skipped

__all__ = ["BATCH", "Outcome", "check_domain", "copy_domain", "json_form", "same_records"]

BATCH: Final = 1_000
"""Records that are read, compared and written at once."""
CANDLE_BATCH: Final = 10_000

_SHOWN: Final = 5

Same = Callable[[Domain, Record, Record], bool]
Refusal = tuple[Key, str]
"""The key of a record that cannot be stored, and why."""


class Outcome(msgspec.Struct, kw_only=True):
    """What became of the records of one domain (for ``candle`` each candle is one)."""

    records: int = 0
    """In the source."""
    equal: int = 0
    new: int = 0
    """Were not on the target: written, or to be written."""
    changed: int = 0
    """Were different on the target: written over, or to be."""
    conflicts: int = 0
    """Are different on the target, in a domain where what is stored never changes: left as they are."""
    refused: int = 0
    """Cannot be copied: what the source cannot hand out (a corrupt file, say), a key that is none, a value that the target cannot hold."""
    missing: int | None = None
    """Are not on the target. None, as the next two, without a check."""
    different: int | None = None
    extra: int | None = None
    """Are on the target alone."""
    examples: dict[str, list[str]] = {}
    """The first keys of conflicts, refused (with the reason), missing, different and extra."""

    @property
    def good(self) -> bool:
        """Whether nothing was refused, and nothing was found missing or different."""
        return not (self.refused or self.missing or self.different)

    def note(self, what: Literal["conflicts", "refused", "missing", "different", "extra"], keys: Iterable[Key | str]) -> None:
        """Count ``keys``, and keep the first of them as text."""
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
    """Some records of the source, by what the target has of them."""

    size: int
    keys: list[Key]
    """Of those that can be stored; of candles none, since each side can be asked for a stretch."""
    missing: list[Key]
    different: list[Key]
    refused: list[Refusal]
    write: Callable[[], list[Refusal]]
    """Store what is missing and what may be overwritten; those that the target refused."""


# --- what "the same" means ---


def same_records(*, as_json: bool) -> Same:
    """How a record of the source is compared with the target's of the same key: by body, ``when`` and ``removed``.

    Numbers are compared by value (1 is 1.0, True is not), members of a dict without their order, NaN equals NaN. ``as_json``, where one
    of the two stores keeps JSON, compares the ``json_form`` of both bodies, and a source without a ``when`` is not different for it.
    """

    def same(domain: Domain, one: Record, other: Record) -> bool:
        timeless = not domain.when or (as_json and one.when is None)
        if not (timeless or one.when == other.when) or (domain.soft_delete and one.removed != other.removed):
            return False
        try:
            return _equal(json_form(one.body), json_form(other.body)) if as_json else _equal(one.body, other.body)
        except InvalidTypeError:  # a type that only BSON has
            return False
        except RecursionError:
            return bool(one.body == other.body)  # goes deeper

    return same


def json_form(value: Any) -> Any:
    """What JSON leaves of a body: dates as UTC text in ms (``2023-03-01T00:00:00.000Z``), null for NaN and the infinities.

    So the null of a ``minuteEstimatedTime`` equals its Infinity. Ids and decimals are text, bytes base64. InvalidTypeError for a type
    that only BSON has.
    """
    return value_of(json_of(value))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_equal(member, other[name]) for name, member in one.items())
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other) or (one != one and other != other)


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
) -> Outcome:
    """Write to ``target`` the records of ``source`` that are missing or different there, the removed ones too.

    Repeated, or continued after it was interrupted, it writes what is left to write. In insert-once domains a different record on the
    target is a conflict, and stays. A record that cannot be stored is counted, and the others are stored. Versions that a store keeps
    for history stay behind. ``dry_run`` only counts. ``batch`` records are compared and written at once; ``moved`` is told how many were.
    """
    outcome = Outcome()
    left_out: list[str] = []
    for part in _batches(domain, source, target, same, batch, left_out):
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
    """Read both sides, and note in ``outcome`` what is missing or different on the target, and what only the target has."""
    outcome.missing = outcome.different = outcome.extra = 0
    known: set[Key] = set()
    for part in _batches(domain, source, target, same, batch, []):  # what the source cannot hand out is refused already
        outcome.note("missing", part.missing)
        outcome.note("missing", (key for key, _ in part.refused))
        outcome.note("different", part.different)
        known.update(part.keys)
        moved(part.size)
    for extra, size in _extra_candles(source, target) if domain.name == "candle" else _extra_records(domain, target, known):
        outcome.note("extra", extra)
        moved(size)


def _batches(domain: Domain, source: Store, target: Store, same: Same, size: int, left_out: list[str]) -> Iterator[_Batch]:
    """All that the source hands out; what it cannot stays as it lies there, and is told to ``left_out``."""
    if domain.name == "candle":
        return _candle_batches(source, target, left_out)
    return _record_batches(domain, collecting_skipped(source.records(domain), left_out), target, same, size)


# --- records ---


def _record_batches(domain: Domain, found: Iterator[Record], target: Store, same: Same, size: int) -> Iterator[_Batch]:
    while some := list(islice(found, size)):
        refused = [(record.key, reason) for record in some if (reason := _refusal(domain, record.key))]
        records = [record for record in some if not _refusal(domain, record.key)] if refused else some
        there = target.read(domain, [record.key for record in records])
        missing = [record for record, other in zip(records, there, strict=True) if other is None]
        different = [record for record, other in zip(records, there, strict=True) if other is not None and not same(domain, record, other)]
        chosen = missing if domain.write == "insert_once" else missing + different
        yield _Batch(len(some), _keys(records), _keys(missing), _keys(different), refused, partial(_write, target, domain, chosen))


def _keys(records: Iterable[Record]) -> list[Key]:
    return [record.key for record in records]


def _refusal(domain: Domain, key: Key) -> str | None:
    """Why nothing can be stored under ``key``: other writers leave fields out, or put in what is no text."""
    try:
        check_key(domain, key)
    except (InvalidTypeError, InvalidValueError) as error:
        return str(error)
    return None


def _write(target: Store, domain: Domain, records: Sequence[Record]) -> list[Refusal]:
    """Write ``records``; those that the target refuses are left out."""
    if not records:
        return []
    try:
        target.write(domain, records)
    except (InvalidTypeError, InvalidValueError) as error:  # and then none was written
        if len(records) == 1:
            return [(records[0].key, str(error))]
        return [refused for record in records for refused in _write(target, domain, [record])]
    return []


def _extra_records(domain: Domain, target: Store, known: set[Key]) -> Iterator[tuple[list[Key], int]]:
    found = target.records(domain)
    while some := _keys(islice(found, BATCH)):
        yield [key for key in some if _refusal(domain, key) or key not in known], len(some)


# --- candles ---


def _candle_batches(source: Store, target: Store, left_out: list[str]) -> Iterator[_Batch]:
    for series in source.candle_series():
        if reason := _series_refusal(series):
            yield _Batch(1, [], [], [], [(series, reason)], list)
            continue
        exchange_name, symbol, interval = series
        for candles in _in_batches(collecting_skipped(source.stored_candles(series), left_out)):
            there, equal = _compare(series, candles, target)
            missing = candles[~there]
            different = candles[there & ~equal]
            write = partial(_write_candles, target, symbol, interval, exchange_name, missing)
            yield _Batch(len(candles), [], _candle_keys(series, missing), _candle_keys(series, different), [], write)


def _series_refusal(series: Key) -> str | None:
    """Why no candles can be stored for ``series``: other writers take any interval."""
    try:
        interval_ms(series[2])
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
    """The same candles, ``CANDLE_BATCH`` at once: a store may hand them out one by one."""
    held: list[CandleArray] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count >= CANDLE_BATCH:
            together = np.concatenate(held)
            whole = count - count % CANDLE_BATCH
            yield from (together[start : start + CANDLE_BATCH] for start in range(0, whole, CANDLE_BATCH))
            held, count = [together[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def _compare(series: Key, candles: CandleArray, store: Store) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of ``candles`` (ascending) are in ``store``, and which of them with the same values."""
    stamps = candles["timestamp"]
    return matches(candles, store.stored_candles(series, int(stamps[0]), int(stamps[-1]) + interval_ms(series[2])))


def _extra_candles(source: Store, target: Store) -> Iterator[tuple[list[Key], int]]:
    for series in target.candle_series():
        if _series_refusal(series):
            yield [series], 1
            continue
        for candles in _in_batches(target.stored_candles(series)):
            there, _ = _compare(series, candles, source)
            yield _candle_keys(series, candles[~there]), len(candles)
