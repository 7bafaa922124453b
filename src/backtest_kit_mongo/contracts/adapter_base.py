"""The base classes of the generated contract classes: what all domains share, and the choice of what serves a domain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar, Self, TypeVar, overload

from ..candles import grid_of, to_columns
from ..domains import Call, Domain, Operation
from ..errors import InvalidTypeError
from ..mode_defaults import Kind
from ..simulation import current_time, flush_pending
from ..stores.mongo.redis_ids import DomainIds
from ..stores.mongo.store import MongoStore
from .binding import Binding, opened
from .bindings import Bindings
from .contract import DEFAULT_LIMIT, NO_TIME, Contract, typed

__all__ = ["AdapterBase", "InstanceBase", "KeyedAdapterBase", "Row", "When"]

T = TypeVar("T")
Row = dict[str, Any]
When = datetime | int
"""A simulation time: an aware datetime, or ms since 1970 (UTC)."""

# The last ms that a datetime can represent: a read with this ``when`` sees everything.
_LAST = 253_402_300_799_999


class InstanceBase(Contract):
    """A contract with its context given once. The registry of its class decides which store serves the domain."""

    _registry: ClassVar[Bindings]

    def __init__(self) -> None:
        self._metrics = self._registry.metrics
        self._slot = self._registry.slots[self._domain.name]

    def wait_for_init(self, initial: bool = True) -> None:
        """Wait until the store is ready; return at once if not ``initial``. Raises ServerTimeoutError after 15 s."""
        if initial:
            opened(self._current()).wait_for_init(15.0)

    def __repr__(self) -> str:
        context = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._domain.context)
        return f"{type(self).__name__}({context})"

    def __reduce__(self) -> tuple[Any, ...]:
        name = f"Persist{self._domain.name.capitalize()}Instance"
        if type(self) is getattr(self._registry, name):  # not a class of the user, so only its registry knows it
            return _new_of_registry, (self._registry, name), self.__getstate__()
        return _new, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_metrics", "_slot")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        InstanceBase.__init__(self)


def _new(cls: type[InstanceBase]) -> InstanceBase:
    """Return an instance whose context a pickle adds."""
    return cls.__new__(cls)


def _new_of_registry(registry: Bindings, name: str) -> InstanceBase:
    return _new(getattr(registry, name))


class AdapterBase(Contract):
    """A contract with its context in every call. Its ``use_*`` methods choose what serves the domain."""

    def __init__(self, registry: Bindings) -> None:
        self._registry = registry
        self._slot = registry.slots[self._domain.name]
        self._metrics = registry.metrics

    def __repr__(self) -> str:
        binding = self._slot.binding
        bound = binding.custom or (MongoStore if binding.store is None else type(binding.store))
        return f"<Persist{self._domain.name.capitalize()}Adapter over {bound.__name__}>"

    def __copy__(self) -> Self:
        return self  # what serves the domain belongs to the registry

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._registry, f"Persist{self._domain.name.capitalize()}Adapter")

    # --- what serves the domain ---

    def _use_class(self, cls: type[Any]) -> None:
        """Serve the domain through ``cls``: one instance per context, created with the arguments of the ``Persist*Instance``.

        Raises InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract.
        """
        if not isinstance(cls, type):
            raise InvalidTypeError(f"{self._domain.name}: expected a class, got {type(cls).__name__}")
        required = [call.name for call in self._domain.calls if call.operation != "array"]  # an array can be built from the dicts
        missing = [name for name in required if not callable(getattr(cls, name, None))]
        if missing:
            raise InvalidTypeError(f"{self._domain.name}: {cls.__name__} lacks {', '.join(missing)}")
        self._registry.use(self._domain.name, self._slot.binding.chosen, cls)

    def use_mongo(self) -> None:
        """Serve the domain from MongoDB and Redis, under the settings of ``setup``.

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.use_mongo()
            >>> PersistLogAdapter
            <PersistLogAdapter over MongoStore>
        """
        self._registry.use(self._domain.name, None)

    def use_json(self) -> None:
        """Serve the domain from JSON files below ``CC_DUMP_DIR``, in the layout of the TypeScript package.

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.use_json()
            >>> PersistLogAdapter
            <PersistLogAdapter over FileStore>
        """
        self._use("file")

    def use_memory(self) -> None:
        """Serve the domain from a new, empty store in this process.

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.use_memory()
            >>> PersistLogAdapter.read_log_data()
            []
        """
        self._use("memory", fresh=True)

    def use_dummy(self) -> None:
        """Serve the domain from a store that keeps nothing.

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.use_dummy()
            >>> PersistLogAdapter.write_log_data([{"id": "e1"}])
            >>> PersistLogAdapter.read_log_data()
            []
        """
        self._use("dummy")

    def _use_jsonl(self) -> None:
        """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``."""
        self._use("jsonl")

    def _use(self, kind: Kind, *, fresh: bool = False) -> None:
        self._registry.use(self._domain.name, self._registry.make(kind, self._domain.name, fresh=fresh))

    def clear(self) -> None:
        """Drop the instances of a class of yours, and the ids (or candles) cached in this process. Later calls create or load them again.

        No stored data is touched. Call this after deleting stored candles by hand: the cache assumes that stored candles never change.

        Examples:
            >>> from backtest_kit_mongo import PersistCandleAdapter
            >>> PersistCandleAdapter.clear()
        """
        binding = self._slot.binding
        self._registry.use(self._domain.name, binding.chosen, binding.custom)
        store = binding.store
        if isinstance(store, MongoStore):
            store.process_ids.clear(self._domain)
            if self._domain.name == "candle":
                store.candles.clear()

    @property
    def id_cache(self) -> DomainIds:
        """The id cache of this domain, in Redis and in this process: get, has, delete, keys, size, clear.

        Raises InvalidTypeError if the domain is not on MongoDB, NotConfiguredError before ``setup``.
        """
        store = opened(self._current())
        if not isinstance(store, MongoStore):
            raise InvalidTypeError(f"{self._domain.name}: only the Mongo store has an id cache")
        return store.ids(self._domain)

    # --- a custom class ---

    @property
    def gives_arrays(self) -> bool:
        """Whether candle arrays are read directly, not built from the dicts that a class of the user returns."""
        custom = self._slot.binding.custom
        return custom is None or _has_own_array(custom)

    def _instance(self, binding: Binding, context: tuple[Any, ...]) -> Any:
        instance = binding.instances.get(context)
        initial = instance is None
        if initial:
            assert binding.custom is not None
            instance = binding.instances.setdefault(context, binding.custom(*context))
        gate = getattr(instance, "wait_for_init", None)
        if gate is not None and not (isinstance(instance, InstanceBase) and not initial):
            gate(initial)
        return instance

    def _custom(
        self,
        binding: Binding,
        operation: Operation,
        context: tuple[Any, ...],
        name: str,
        arguments: tuple[Any, ...],
        type: Any = None,
        **options: Any,
    ) -> Any:
        """Call the user's method ``name``. ``options`` are passed on if the caller gave them; ``type`` is applied to the result."""
        flush_pending()
        self._check_context(context)
        if options.get("limit") is DEFAULT_LIMIT:
            del options["limit"]
        instance = self._instance(binding, context)
        if operation == "array" and not _has_own_array(instance.__class__):
            return self._array_of_dicts(instance, context, *arguments)
        value = getattr(instance, name)(*arguments, **options)
        if type is None or value is None:
            return value
        decode = partial(typed, self._domain.name, type=type)
        match operation:
            case "rows" | "candles":
                return [decode(row) for row in value]
            case "records":
                return ({**record, "data": decode(record["data"])} for record in value)
            case _:
                return decode(value)

    def _array_of_dicts(self, instance: Any, context: tuple[Any, ...], limit: Any, since: Any) -> Any:
        """Return the result of ``read_candles_data`` as an array."""
        symbol, interval, exchange_name = context
        count, start = self._extent((exchange_name, symbol, interval), limit, since)
        rows = instance.read_candles_data(count, start, grid_of(interval).after(start, count))
        if rows is None:
            return None
        window = to_columns(rows, interval)[:]
        window.flags.writeable = False
        return window

    def _check_context(self, context: tuple[Any, ...]) -> None:
        for name, value in zip(self._domain.context, context, strict=True):
            kind = bool if name == "backtest" else str
            if not isinstance(value, kind):
                raise InvalidTypeError(f"{self._domain.name}: {name} must be a {kind.__name__}, got {type(value).__name__}")


class KeyedAdapterBase(AdapterBase):
    """An adapter of a domain with one record per key: adds batches and compare-and-set."""

    _read_order: ClassVar[itemgetter[Any]]  # picks the key out of the arguments of the single read
    _write_order: ClassVar[itemgetter[Any]]
    _read_call: ClassVar[Call]
    _write_call: ClassVar[Call]

    @overload
    def read_many(self, contexts: Iterable[Sequence[Any]], *, type: None = None) -> list[Any]: ...
    @overload
    def read_many(self, contexts: Iterable[Sequence[Any]], *, type: type[T]) -> list[T | None]: ...
    def read_many(self, contexts: Iterable[Sequence[Any]], *, type: Any = None) -> Any:
        """Read many records with few commands: at most one MGET per thousand records and one find per 250 if the ids are cached.

        Args:
            contexts: one tuple per record: the arguments of the single read without ``when``
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the bodies in the order of ``contexts``; for those not stored, what the single read returns then

        Raises:
            InvalidTypeError: an item is not such a tuple, or msgspec cannot decode into ``type``; the message names the item
            InvalidValueError: an item has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalAdapter
            >>> PersistSignalAdapter.write_signal_data({"id": "s1"}, "BTCUSDT", "sma", "binance")
            >>> PersistSignalAdapter.read_many([("BTCUSDT", "sma", "binance"), ("ETHUSDT", "sma", "binance")])
            [{'id': 's1'}, None]
        """
        arguments = [name for name in self._read_call.arguments if name != "when"]
        rows = _rows(self._domain, contexts, arguments)
        if self._slot.binding.custom is None:
            return self._read_many(list(map(self._read_order, rows)), type)
        single = getattr(self, self._read_call.name)
        moment = current_time()
        now = (_LAST if moment is None else moment,) if "when" in self._read_call.arguments else ()
        return [single(*row, *now, type=type) for row in rows]

    def write_many(self, items: Iterable[Sequence[Any]]) -> None:
        """Write many records with one bulk command per 250 and one MSET per thousand. When this returns, all are acknowledged.

        Args:
            items: one tuple per record: the arguments of the single write

        Raises:
            InvalidTypeError: an item is not such a tuple, or has a type that cannot be stored; nothing is written then
            InvalidValueError: an item has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalAdapter
            >>> PersistSignalAdapter.write_many([({"id": symbol}, symbol, "sma", "binance") for symbol in ("BTCUSDT", "ETHUSDT")])
            >>> PersistSignalAdapter.read_signal_data("ETHUSDT", "sma", "binance")
            {'id': 'ETHUSDT'}
        """
        arguments = self._write_call.arguments
        rows = _rows(self._domain, items, arguments)
        if self._slot.binding.custom is not None:
            single = getattr(self, self._write_call.name)
            for row in rows:
                single(*row)
            return
        time = arguments.index("when") if "when" in arguments else None
        self._write_many([(row[0], self._write_order(row), NO_TIME if time is None else row[time]) for row in rows])

    def update(self, context: Sequence[Any], change: Callable[[Any], Any], when: When | None = None) -> None:
        """Read a record, write what a function returns for it, and retry if another thread or process wrote it in between.

        A class of yours has no compare-and-set: there this guards only against other updates in this process. On a standalone server,
        where writes have no transaction numbers, a change is applied twice if its reply is lost with the connection.

        Args:
            context: which record: a tuple of the single read's arguments without ``when``
            change: takes what the read returns and returns the new value, or an equal one to write nothing. It may be called more than
                once, and no lock is held meanwhile
            when: the simulation time of the write, for a domain that has one: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: ``context`` is not such a tuple, the new value cannot be stored, or ``when`` is missing or not used
            InvalidValueError: an argument or the new value has a value that cannot be stored
            DatabaseError: other writers were faster many times in a row
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStateAdapter
            >>> for _ in range(2):
            ...     PersistStateAdapter.update(("s1", "levels"), lambda row: {"data": (row or {"data": 0})["data"] + 1}, 1704067200000)
            >>> PersistStateAdapter.read_state_data("s1", "levels")
            {'data': 2}
        """
        names = [name for name in self._read_call.arguments if name != "when"]
        (row,) = _rows(self._domain, [context], names)
        with_time = "when" in self._write_call.arguments
        if with_time == (when is None):
            raise InvalidTypeError(f"{self._domain.name}: update() {'needs when' if with_time else 'takes no when'}")
        if self._slot.binding.custom is None:
            self._update(self._read_order(row), change, when if with_time else NO_TIME)
            return
        read, write = getattr(self, self._read_call.name), getattr(self, self._write_call.name)
        now = (_LAST,) if "when" in self._read_call.arguments else ()
        named = dict(zip(names, row, strict=True))
        rest = [when if name == "when" else named[name] for name in self._write_call.arguments[1:]]
        for _ in self._attempts(tuple(row)):
            before = read(*row, *now)
            value = change(copy.deepcopy(before))
            with self._registry.updating:
                if read(*row, *now) == before:
                    if value != before:
                        write(value, *rest)
                    return


def _has_own_array(cls: type[Any]) -> bool:
    """Return whether a class reads arrays itself. An array method inherited from above its ``read_candles_data`` would bypass that."""
    names = ("read_candles_array", "read_candles_data")
    first = next((base for base in cls.__mro__ if any(name in vars(base) for name in names)), cls)
    return callable(getattr(cls, names[0], None)) and names[0] in vars(first)


def _rows(domain: Domain, rows: Any, arguments: Sequence[str]) -> list[Sequence[Any]]:
    """Return the items of a batch as a list. Raises InvalidTypeError unless each has one member per argument."""
    if isinstance(rows, (str, bytes)) or not isinstance(rows, Iterable):
        raise InvalidTypeError(f"{domain.name}: expected a list of tuples ({', '.join(arguments)}), got {type(rows).__name__}")
    checked = list(rows)
    if set(map(type, checked)) == {tuple} and set(map(len, checked)) == {len(arguments)}:
        return checked
    for index, row in enumerate(checked):
        if isinstance(row, (str, bytes)) or not isinstance(row, Sequence) or len(row) != len(arguments):
            raise InvalidTypeError(f"{domain.name}: item {index} must be a tuple ({', '.join(arguments)})")
    return checked
