"""The operations of a contract, once for all domains: argument checks, empty values, simulation time, list rules.

They do no I/O themselves and know no database: they call a Store. ``adapters`` binds them to the public names and argument
orders of each domain.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_origin

import msgspec
import numpy as np

from .._core.hit_reader import EMPTY, FALLBACK, bodies, restore_infinity
from .._core.keys import first_illegal
from ..arguments import plain_scalar, whole_number
from ..candles import CANDLE_DTYPE, GRIDS, CandleArray, closed_candles, grid_of, to_columns, to_dicts
from ..domains import Domain
from ..errors import BacktestKitError, DatabaseError, InvalidTypeError, InvalidValueError, LookAheadError
from ..metrics import ERRORS, FUTURE_READS, LIST, MISSES, READ, READ_MANY, READS, REMOVE, REMOVES, WRITE, WRITE_MANY, WRITES, Metrics
from ..simulation import SCOPE, current_time, flush_pending, milliseconds
from ..stores.base import Key, Record, Store, check_key, plain
from .binding import Binding, Slot, opened

__all__ = ["DEFAULT_LIMIT", "NO_TIME", "Contract", "typed"]

R = TypeVar("R")

DEFAULT_LIMIT: Final[Any] = object()
"""Means the limit of the domain's list rule. None means all rows."""

# Length in ms that no candle of an interval exceeds.
_LONGEST: Final = {name: grid.longest for name, grid in GRIDS.items()}
# This many candles are 95 years of minutes. A longer window is a mistake, so reject it before memory is allocated.
_MAX_WINDOW: Final = 50_000_000
_VERSIONS: Final = 1000  # records of a list for which versions are read together
_ATTEMPTS: Final = 200  # to change a record that others change too; about five seconds with the pauses
_RANDOM: Final = random.SystemRandom()  # not the generator that a strategy may have seeded


def _is_row(value: Any) -> bool:
    return (
        value.__class__ is dict
        or isinstance(value, (Mapping, msgspec.Struct))
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    )


class Contract:
    """The operations of one domain, on the store that it is bound to."""

    _domain: Domain
    _metrics: Metrics
    _slot: Slot

    def _current(self) -> Binding:
        """Flush pending writes and return what serves the domain now. An operation does this once, and uses nothing else."""
        flush_pending()
        return self._slot.binding

    # --- arguments ---

    def _check(self, key: Key) -> Key:
        return check_key(self._domain, key)

    def _record(self, body: Any, key: Key, when: Any) -> Record:
        """Return the record to write. Raises InvalidTypeError or InvalidValueError if an argument is not valid."""
        domain = self._domain
        key = self._check(key)
        stamp = None if when is NO_TIME else milliseconds("when", when)
        if body is None:
            if not domain.nullable:
                raise InvalidTypeError(f"{domain.name}: the data must not be None")
            return Record(key, None, stamp)
        if domain.empty is list:
            return Record(key, self._pairs(body), stamp)
        if not _is_row(body):
            raise InvalidTypeError(f"{domain.name}: expected a dict, dataclass or Struct, got {type(body).__name__}")
        if not domain.soft_delete:
            return Record(key, body, stamp)
        if not isinstance(body, Mapping):
            body = plain(body)
        return Record(key, body, stamp, body.get("removed") is True)

    def _pairs(self, positions: Any) -> list[Any]:
        """Return risk positions, pairs or a mapping, as [key, position] pairs in the same order."""
        if isinstance(positions, Mapping):
            positions = positions.items()
        if isinstance(positions, (str, bytes)) or not isinstance(positions, Iterable) or _is_row(positions):
            raise InvalidTypeError(
                f"{self._domain.name}: positions must be a list of [key, position] pairs, got {type(positions).__name__}"
            )
        pairs = []
        for index, pair in enumerate(positions):
            if isinstance(pair, (str, bytes)) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise InvalidTypeError(f"{self._domain.name}: position {index} must be a [key, position] pair, got {type(pair).__name__}")
            if not isinstance(pair[0], str):
                raise InvalidTypeError(f"{self._domain.name}: the key of position {index} must be a str, got {type(pair[0]).__name__}")
            pairs.append([pair[0], pair[1]])
        return pairs

    # --- simulation time ---

    def _visible(self, binding: Binding, records: Sequence[Record | None], keys: Sequence[Key], moment: int) -> list[Record | None]:
        """Return what a read at ``moment`` (ms) may see of ``records`` (those of ``keys``)."""
        visible = list(records)
        later = [index for index, record in enumerate(records) if record is not None and record.when is not None and record.when > moment]
        if not later:
            return visible
        self._count(FUTURE_READS, len(later))
        if binding.history:
            versions: Sequence[Record | None] = opened(binding).read_at(self._domain, [keys[index] for index in later], moment)
        elif binding.look_ahead == "raise":
            raise self._from_the_future(keys[later[0]], records[later[0]].when, moment)  # type: ignore[union-attr]
        else:
            versions = [None] * len(later)
        for index, version in zip(later, versions, strict=True):
            visible[index] = version
        return visible

    def _visible_of(self, binding: Binding, records: Iterator[Record], moment: int) -> Iterator[Record]:
        """Yield what a read at ``moment`` may see of a list, in its order, without removed records."""
        while batch := list(itertools.islice(records, _VERSIONS)):
            for record in self._visible(binding, batch, [record.key for record in batch], moment):
                if record is not None and not record.removed:
                    yield record

    def _from_the_future(self, key: Key, when: Any, moment: int) -> LookAheadError:
        return LookAheadError(
            f"{self._domain.name} {', '.join(map(repr, key))}: written at {when} ms, but the simulation time is {moment} ms",
            hint='a read must not see later writes; look_ahead="hide" returns the empty value instead',
        )

    # --- values ---

    def _value(self, record: Record | None, type: Any) -> Any:
        """Return the body of a record, or the domain's empty value."""
        domain = self._domain
        if record is None or record.removed or record.body is None:
            return domain.empty()
        if domain.infinite:
            restore_infinity(record.body, *domain.infinite)
        return record.body if type is None else typed(domain.name, record.body, type)

    def _timed(self, binding: Binding, operation: int, call: Callable[[Store], R]) -> R:
        counters = self._metrics.domains[self._domain.name]
        store = opened(binding)
        started = time.perf_counter_ns()
        try:
            result = call(store)
        except BacktestKitError:
            counters.add(ERRORS)
            raise
        counters.observe(operation, time.perf_counter_ns() - started)
        return result

    def _count(self, which: int, n: int = 1) -> None:
        self._metrics.domains[self._domain.name].add(which, n)

    # --- one record per key ---

    def _read(self, key: Key, when: Any, type: Any = None) -> Any:
        scope = SCOPE.get()
        if scope.flush is not None:
            scope.flush()
        binding = self._slot.binding
        moment: int | None = None if when is NO_TIME else milliseconds("when", when)
        if not binding.watches:
            moment = None
        elif when is NO_TIME:
            moment = scope.now
        hits = binding.hits
        if hits is not None:
            body = hits(key) if moment is None else hits(key, moment)
            if body is EMPTY:
                return self._domain.empty()
            if body is not FALLBACK:
                return body if type is None else typed(self._domain.name, body, type)
        key = self._check(key)
        self._count(READS)
        record = self._timed(binding, READ, lambda store: store.read(self._domain, (key,)))[0]
        return self._value(record if moment is None else self._visible(binding, [record], (key,), moment)[0], type)

    def _has(self, key: Key) -> bool:
        key = self._check(key)
        self._count(READS)
        binding = self._current()
        record = self._timed(binding, READ, lambda store: store.read(self._domain, (key,)))[0]
        moment = time_of_read(binding)
        if moment is not None:
            record = self._visible(binding, [record], (key,), moment)[0]
        return record is not None and not record.removed

    def _write(self, body: Any, key: Key, when: Any) -> None:
        binding = self._current()
        upserts = binding.upserts
        if upserts is not None:
            try:
                stamp = None if when is NO_TIME else milliseconds("when", when)
            except (InvalidTypeError, InvalidValueError):
                pass  # _record raises it below, after checking the arguments that come first
            else:
                if upserts(key, body, stamp):
                    return
        record = self._record(body, key, when)
        self._timed(binding, WRITE, lambda store: store.write(self._domain, (record,)))
        self._count(WRITES)

    def _update(self, key: Key, change: Callable[[Any], Any], when: Any) -> None:
        """Write what ``change`` returns for the record's body. Start again if another writer was faster."""
        domain = self._domain
        key = self._check(key)
        for _ in self._attempts(key):
            binding = self._current()
            self._count(READS)
            record = self._timed(binding, READ, lambda store: store.read(domain, (key,)))[0]
            before = self._value(copy.deepcopy(record), None)
            body = change(copy.deepcopy(before))
            if body == before:
                return
            new = self._record(body, key, when)
            if self._timed(binding, WRITE, lambda store, new=new, record=record: store.swap(domain, new, record)):  # type: ignore[misc]
                self._count(WRITES)
                return

    def _attempts(self, key: Key) -> Iterator[int]:
        """Number the attempts to change a record that others change too, with growing pauses. Raises DatabaseError after the last."""
        for number in range(_ATTEMPTS):
            yield number
            time.sleep(_RANDOM.uniform(0, min(0.05, 0.001 * number)))
        raise DatabaseError(
            f"{self._domain.name} {', '.join(map(repr, key))}: another writer was faster {_ATTEMPTS} times in a row",
            hint="nothing was written; do several processes keep writing this record without a pause?",
        )

    def _remove(self, key: Key) -> None:
        key = self._check(key)
        binding = self._current()
        moment = time_of_read(binding) if binding.history else None
        self._timed(binding, REMOVE, lambda store: self._remove_from(store, key, moment))
        self._count(REMOVES)

    def _remove_from(self, store: Store, key: Key, moment: int | None) -> None:
        """Remove a record. With history, remove it as of ``moment`` (ms): at earlier times it still exists."""
        if moment is None:
            store.remove(self._domain, (key,))
            return
        for _ in self._attempts(key):
            current = version = store.read(self._domain, (key,))[0]
            if current is not None and current.when is not None and current.when > moment:
                version = store.read_at(self._domain, (key,), moment)[0]
            if version is None:
                return
            removed = version._replace(body={**(version.body or {}), "removed": True}, when=moment, removed=True)
            if store.swap(self._domain, removed, current):
                return

    def _read_many(self, keys: Sequence[Key], type: Any = None) -> list[Any]:
        domain = self._domain
        index = first_illegal(keys, domain.key, domain.kinds)
        if index >= 0:
            plain_keys = list(keys[:index])
            for position in range(index, len(keys)):
                try:
                    plain_keys.append(self._check(keys[position]))
                except (InvalidTypeError, InvalidValueError) as error:
                    raise _about_item(position, error) from None
            keys = plain_keys
        if not keys:
            return []
        self._count(READS, len(keys))
        binding = self._current()
        records = self._timed(binding, READ_MANY, lambda store: store.read(domain, keys))
        moment = time_of_read(binding)
        if moment is not None:
            records = self._visible(binding, records, keys, moment)
        if type is None:
            return bodies(records, domain.empty, domain.infinite)
        return [self._value(record, type) for record in records]

    def _write_many(self, items: Sequence[tuple[Any, Key, Any]]) -> None:
        records: list[Record] = []
        try:
            for item in items:
                records.append(self._record(*item))
        except (InvalidTypeError, InvalidValueError) as error:
            raise _about_item(len(records), error) from None
        if records:
            self._timed(self._current(), WRITE_MANY, lambda store: store.write(self._domain, records))
            self._count(WRITES, len(records))

    # --- lists ---

    def _scan(self, prefix: Key, limit: int | None = None, *, bodies: bool = True) -> Iterator[Record]:
        """Iterate over records as of the current simulation time. The metrics measure the time until the first one."""
        binding = self._current()
        moment = time_of_read(binding)
        past = moment is not None and binding.history  # a record removed since may have existed at that time
        records = opened(binding).scan(self._domain, prefix, limit=limit, bodies=bodies, removed=past)
        return self._measured(records if moment is None else self._visible_of(binding, records, moment))

    def _measured(self, records: Iterator[Record]) -> Iterator[Record]:
        counters = self._metrics.domains[self._domain.name]
        started = time.perf_counter_ns()
        try:
            first = next(records, None)
            counters.observe(LIST, time.perf_counter_ns() - started)
            if first is not None:
                counters.add(READS)
                yield first
            for record in records:
                counters.add(READS)
                yield record
        except BacktestKitError:
            counters.add(ERRORS)
            raise

    def _keys(self, prefix: Key) -> Iterator[str]:
        prefix = self._check(prefix)
        records = self._scan(prefix, bodies=False)  # raises NotConfiguredError here, not at the first item
        return (record.key[-1] for record in records)

    def _records(self, prefix: Key, type: Any = None) -> Iterator[dict[str, Any]]:
        prefix = self._check(prefix)
        name, records = self._domain.key[-1], self._scan(prefix)
        return ({name: record.key[-1], "data": self._value(record, type)} for record in records)

    def _rows(self, prefix: Key, limit: int | None, type: Any = None) -> list[Any]:
        rule = self._domain.listing
        assert rule is not None
        if limit is DEFAULT_LIMIT:
            limit = rule.limit
        elif limit is not None:
            limit = plain_scalar(limit)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit < 2**31):
            raise InvalidValueError(f"{self._domain.name}: limit must be an int of 0 or more, or None for all rows, got {limit!r}")
        prefix = self._check(prefix)
        rows = [self._value(record, type) for record in self._scan(prefix, limit)]
        if rule.oldest_first:
            rows.reverse()
        return rows

    def _put_rows(self, rows: Any, prefix: Key) -> None:
        domain = self._domain
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise InvalidTypeError(f"{domain.name}: expected a list of rows, got {type(rows).__name__}")
        records = []
        for index, row in enumerate(rows):
            if not _is_row(row):
                raise InvalidTypeError(f"{domain.name}: row {index} must be a dict, dataclass or Struct, got {type(row).__name__}")
            name = row.get("id") if isinstance(row, Mapping) else getattr(row, "id", None)
            if not isinstance(name, str):
                if name is None:
                    raise InvalidValueError(f"{domain.name}: row {index} has no id; nothing was written")
                raise InvalidTypeError(f"{domain.name}: id of row {index} must be a str, got {type(name).__name__}; nothing was written")
            records.append(self._record(row, (*prefix, name), NO_TIME))
        prefix = self._check(prefix)
        if records:
            self._timed(self._current(), WRITE_MANY, lambda store: store.write(domain, records))
            self._count(WRITES, len(records))

    # --- candles ---

    def _extent(self, key: Key, limit: Any, since: Any, until: Any = None) -> tuple[int, int]:
        """Return the length and the start (ms) of a window after checking every argument. ``key`` is in the order of the unique index."""
        longest = grid_of(key[2]).longest
        key = self._check(key)
        numbers = []
        for name, value in (("limit", limit), ("since_timestamp", since), ("until_timestamp", 0 if until is None else until)):
            numbers.append(whole_number(f"candle: {name}", value))
        count, start, _ = numbers
        if not 0 <= count <= _MAX_WINDOW:
            raise InvalidValueError(f"candle: limit must be from 0 to {_MAX_WINDOW}, got {count}")
        if not -(2**53) <= start <= 2**53 - count * longest:
            raise InvalidValueError(f"candle: since_timestamp {start} is not a timestamp in milliseconds")
        return count, start

    def _window(self, key: Key, limit: Any, since: Any, until: Any = None) -> CandleArray | None:
        """Read a window from the store; return None if a candle is missing."""
        exchange_name, symbol, interval = key
        count, start = self._extent(key, limit, since, until)
        self._count(READS)
        if count == 0:
            empty = np.empty(0, CANDLE_DTYPE)
            empty.flags.writeable = False
            return empty
        window = None
        if grid_of(interval).is_on(start):  # stored candles are on the grid, so any other start is a miss
            window = self._timed(self._current(), READ, lambda store: store.read_candles(symbol, interval, exchange_name, start, count))
        if window is None:
            self._count(MISSES)
        return window

    # Blocks in memory were read with checked arguments, so a window from a block needs no check.

    def _is_ahead(self, binding: Binding, key: Key, limit: Any, since: Any) -> bool:
        """Return whether a window has candles that close after the simulation time. Raises LookAheadError then if look-ahead is "raise"."""
        moment = current_time()
        if moment is None:
            return False
        interval = key[2]
        plain = limit.__class__ is int and since.__class__ is int and interval.__class__ is str
        if plain and since + limit * _LONGEST.get(interval, 0) <= moment:
            return False  # the usual case; the other argument checks come later
        count, start = self._extent(key, limit, since)
        grid = grid_of(interval)
        end = grid.closes(start, count)
        if not count or end <= moment:
            return False
        self._count(FUTURE_READS)
        if binding.look_ahead == "raise":
            raise LookAheadError(
                f"candle {', '.join(map(repr, key))}: the window closes at {end} ms, but the simulation time is {moment} ms",
                hint=f"the last closed candle opens at {grid.after(moment, -1)} ms",
            )
        return True

    def _candles(self, key: Key, limit: int, since: int, until: int, type: Any = None) -> Any:
        binding = self._slot.binding
        if binding.watches and self._is_ahead(binding, key, limit, since):
            return None
        blocks = binding.blocks
        rows = None if blocks is None else blocks.rows(key, limit, since, until)
        if rows is None:
            window = self._window(key, limit, since, until)
            if window is None:
                return None
            rows = to_dicts(window)
        return rows if type is None else [typed("candle", row, type) for row in rows]

    def _array(self, key: Key, limit: int, since: int) -> CandleArray | None:
        binding = self._slot.binding
        if binding.watches and self._is_ahead(binding, key, limit, since):
            return None
        blocks = binding.blocks
        window = None if blocks is None else blocks.array(key, limit, since)
        return self._window(key, limit, since) if window is None else window

    def _put_candles(self, candles: Any, key: Key) -> None:
        exchange_name, symbol, interval = key
        columns = to_columns(candles, interval, symbol)
        key = self._check(key)
        columns = closed_candles(columns, interval)
        if len(columns):
            self._count(
                WRITES,
                self._timed(self._current(), WRITE_MANY, lambda store: store.write_candles(symbol, interval, exchange_name, columns)),
            )


NO_TIME: Final = object()
"""The ``when`` of a call that takes none."""


def time_of_read(binding: Binding) -> int | None:
    """Return the simulation time (ms) that limits a read; None if there is none or reads do not depend on it."""
    return current_time() if binding.watches else None


def _about_item(index: int, error: BacktestKitError) -> BacktestKitError:
    """Return the error with the index of the item that it is about."""
    return error.__class__(f"item {index}: {error}")


@lru_cache(256)
def _held(type: Any) -> Any:
    """Return a Struct around a union. msgspec prepares a Struct once, but a union in each call: ten times as long as the rest."""
    return msgspec.defstruct("Held", [("value", type)])


def typed(name: str, body: Any, type: Any) -> Any:
    """Return a record's body as ``type``.

    Raises InvalidValueError if the body does not fit the type, InvalidTypeError if msgspec cannot decode into the type.
    """
    if not isinstance(type, msgspec.StructMeta) and get_origin(type) in (Union, UnionType):
        with suppress(msgspec.ValidationError, TypeError, NameError):  # the call below raises the error
            return msgspec.convert({"value": body}, _held(type)).value
    try:
        return msgspec.convert(body, type)
    except msgspec.ValidationError as error:
        expected = getattr(type, "__name__", "record of the requested type")
        raise InvalidValueError(f"{name}: the stored record is not a valid {expected}: {error}") from None
    except TypeError as error:
        raise InvalidTypeError(f"{name}: {error}") from None
