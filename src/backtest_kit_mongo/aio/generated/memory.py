# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The memory contract, awaitable."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistMemoryInstance as _Instance
from ...contracts.generated import memory as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistMemoryInstance", "PersistMemoryUtils"]

T = TypeVar("T")


class PersistMemoryInstance(AsyncInstance):
    """The memory contract, with its context given once, awaitable.

    What a strategy remembers about a signal, by bucket and id. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        signal_id: the id of the signal
        bucket_name: the name of the bucket
    """

    __slots__ = ()

    sync: _sync.PersistMemoryInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    signal_id: str
    bucket_name: str

    def __init__(self, signal_id: str, bucket_name: str) -> None:
        self.sync = self._sync_class(signal_id, bucket_name)

    @overload
    async def read_memory_data(self, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_memory_data(self, memory_id: str, *, type: type[T]) -> T | None: ...
    async def read_memory_data(self, memory_id: str, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> await memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> await memory.read_memory_data("m1")
            {'index': 'support', 'data': 41800.0}
        """
        return await self._data(self.sync.read_memory_data, memory_id, type=type)

    async def has_memory_data(self, memory_id: str) -> bool:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> await memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> await memory.has_memory_data("m1")
            True
        """
        return await self._data(self.sync.has_memory_data, memory_id)

    async def write_memory_data(self, data: Any, memory_id: str, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> await memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> await memory.read_memory_data("m1")
            {'index': 'support', 'data': 41800.0}
        """
        return await self._data(self.sync.write_memory_data, data, memory_id, when)

    async def remove_memory_data(self, memory_id: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            memory_id: the id of the memory

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> await memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> await memory.remove_memory_data("m1")
            >>> await memory.read_memory_data("m1") is None
            True
        """
        return await self._data(self.sync.remove_memory_data, memory_id)

    @overload
    def list_memory_data(self, *, type: None = None) -> AsyncGenerator[Row, None]: ...
    @overload
    def list_memory_data(self, *, type: type[T]) -> AsyncGenerator[Row, None]: ...
    def list_memory_data(self, *, type: Any = None) -> AsyncGenerator[Row, None]:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryInstance
            >>> memory = PersistMemoryInstance("s1", "levels")
            >>> await memory.write_memory_data({"index": "support", "data": 41800.0}, "m1", 1704067200000)
            >>> [item async for item in memory.list_memory_data()]
            [{'memoryId': 'm1', 'data': {'index': 'support', 'data': 41800.0}}]
        """
        return self._pages(self.sync.list_memory_data, type=type)


class PersistMemoryUtils(AsyncKeyedAdapter):
    """The memory contract, with its context in every call, awaitable.

    What a strategy remembers about a signal, by bucket and id. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistMemoryUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistMemoryUtils) -> None:
        self.sync = sync

    @overload
    async def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: type[T]) -> T | None: ...
    async def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> await PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> await PersistMemoryAdapter.read_memory_data("s1", "levels", "m1")
            {'index': 'support', 'data': 41800.0}
        """
        return await self._data(self.sync.read_memory_data, signal_id, bucket_name, memory_id, type=type)

    async def has_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> bool:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> await PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> await PersistMemoryAdapter.has_memory_data("s1", "levels", "m1")
            True
        """
        return await self._data(self.sync.has_memory_data, signal_id, bucket_name, memory_id)

    async def write_memory_data(self, data: Any, signal_id: str, bucket_name: str, memory_id: str, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> await PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> await PersistMemoryAdapter.read_memory_data("s1", "levels", "m1")
            {'index': 'support', 'data': 41800.0}
        """
        return await self._data(self.sync.write_memory_data, data, signal_id, bucket_name, memory_id, when)

    async def remove_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> await PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> await PersistMemoryAdapter.remove_memory_data("s1", "levels", "m1")
            >>> await PersistMemoryAdapter.read_memory_data("s1", "levels", "m1") is None
            True
        """
        return await self._data(self.sync.remove_memory_data, signal_id, bucket_name, memory_id)

    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: None = None) -> AsyncGenerator[Row, None]: ...
    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: type[T]) -> AsyncGenerator[Row, None]: ...
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: Any = None) -> AsyncGenerator[Row, None]:
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
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> await PersistMemoryAdapter.write_memory_data({"index": "support", "data": 41800.0}, "s1", "levels", "m1", 1704067200000)
            >>> [item async for item in PersistMemoryAdapter.list_memory_data("s1", "levels")]
            [{'memoryId': 'm1', 'data': {'index': 'support', 'data': 41800.0}}]
        """
        return self._pages(self.sync.list_memory_data, signal_id, bucket_name, type=type)

    async def use_persist_memory_adapter(self, cls: type[Any]) -> None:
        """Serve the memory contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistMemoryInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistMemoryInstance
            >>> from backtest_kit_mongo.aio import PersistMemoryAdapter
            >>> class Mine(PersistMemoryInstance): ...  # override what you want to see or change
            >>> await PersistMemoryAdapter.use_persist_memory_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_memory_adapter, cls)
