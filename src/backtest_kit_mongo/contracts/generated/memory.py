# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The memory contract."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistMemoryInstance", "PersistMemoryUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["memory"]


class PersistMemoryInstance(InstanceBase):
    """The memory contract, with its context given once.

    What a strategy remembers about a signal, by bucket and id. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        signal_id: the id of the signal
        bucket_name: the name of the bucket
    """

    _domain = _DOMAIN

    def __init__(self, signal_id: str, bucket_name: str) -> None:
        super().__init__()
        self.signal_id: str = signal_id
        self.bucket_name: str = bucket_name

    @overload
    def read_memory_data(self, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_memory_data(self, memory_id: str, *, type: type[T]) -> T | None: ...
    def read_memory_data(self, memory_id: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            memory_id: the id of the memory
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> memory.read_memory_data("m1")
            {'index': 'support', 'data': 41800.0}
        """
        return self._read((self.signal_id, self.bucket_name, memory_id), NO_TIME, type)

    def has_memory_data(self, memory_id: str) -> bool:
        """Return whether a record exists and is not removed.

        Args:
            memory_id: the id of the memory

        Returns:
            True if a read would find the record

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> memory.has_memory_data("m1")
            True
        """
        return self._has((self.signal_id, self.bucket_name, memory_id))

    def write_memory_data(self, data: Any, memory_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            memory_id: the id of the memory
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> memory.read_memory_data("m1")
            {'index': 'support', 'data': 41800.0}
        """
        self._write(data, (self.signal_id, self.bucket_name, memory_id), when)

    def remove_memory_data(self, memory_id: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            memory_id: the id of the memory

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> memory.remove_memory_data("m1")
            >>> memory.read_memory_data("m1") is None
            True
        """
        self._remove((self.signal_id, self.bucket_name, memory_id))

    @overload
    def list_memory_data(self, *, type: None = None) -> Iterator[Row]: ...
    @overload
    def list_memory_data(self, *, type: type[T]) -> Iterator[Row]: ...
    def list_memory_data(self, *, type: Any = None) -> Any:
        """Iterate over the memories that are not removed, newest write first.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            an iterator of dicts {memoryId, data}, which reads them page by page; data is a ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> list(memory.list_memory_data())
            [{'memoryId': 'm1', 'data': {'index': 'support', 'data': 41800.0}}]
        """
        return self._records((self.signal_id, self.bucket_name), type)


class PersistMemoryUtils(KeyedAdapterBase):
    """The memory contract, with its context in every call.

    What a strategy remembers about a signal, by bucket and id. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3)

    @overload
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: type[T]) -> T | None: ...
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> PersistMemoryAdapter.read_memory_data("s1", "levels", "m1")
            {'index': 'support', 'data': 41800.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (signal_id, bucket_name), "read_memory_data", (memory_id,), type=type)
        return self._read((signal_id, bucket_name, memory_id), NO_TIME, type)

    def has_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> bool:
        """Return whether a record exists and is not removed.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory

        Returns:
            True if a read would find the record

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> PersistMemoryAdapter.has_memory_data("s1", "levels", "m1")
            True
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "has", (signal_id, bucket_name), "has_memory_data", (memory_id,))
        return self._has((signal_id, bucket_name, memory_id))

    def write_memory_data(self, data: Any, signal_id: str, bucket_name: str, memory_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> PersistMemoryAdapter.read_memory_data("s1", "levels", "m1")
            {'index': 'support', 'data': 41800.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (signal_id, bucket_name), "write_memory_data", (data, memory_id, when))
        self._write(data, (signal_id, bucket_name, memory_id), when)

    def remove_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> PersistMemoryAdapter.remove_memory_data("s1", "levels", "m1")
            >>> PersistMemoryAdapter.read_memory_data("s1", "levels", "m1") is None
            True
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "remove", (signal_id, bucket_name), "remove_memory_data", (memory_id,))
        self._remove((signal_id, bucket_name, memory_id))

    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: None = None) -> Iterator[Row]: ...
    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: type[T]) -> Iterator[Row]: ...
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: Any = None) -> Any:
        """Iterate over the memories that are not removed, newest write first.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            an iterator of dicts {memoryId, data}, which reads them page by page; data is a ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> list(PersistMemoryAdapter.list_memory_data("s1", "levels"))
            [{'memoryId': 'm1', 'data': {'index': 'support', 'data': 41800.0}}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "records", (signal_id, bucket_name), "list_memory_data", (), type=type)
        return self._records((signal_id, bucket_name), type)

    def use_persist_memory_adapter(self, cls: type[Any]) -> None:
        """Serve the memory contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistMemoryInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> from backtest_kit_mongo import PersistMemoryAdapter
            >>> class Mine(PersistMemoryInstance): ...  # override what you want to see or change
            >>> PersistMemoryAdapter.use_persist_memory_adapter(Mine)
        """
        self._use_class(cls)
