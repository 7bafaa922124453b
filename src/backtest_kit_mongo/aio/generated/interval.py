# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The interval contract, awaitable."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistIntervalInstance as _Instance
from ...contracts.generated import interval as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistIntervalInstance", "PersistIntervalUtils"]

T = TypeVar("T")


class PersistIntervalInstance(AsyncInstance):
    """The interval contract, with its context given once, awaitable.

    Markers of what was done once per interval, by bucket and key. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        bucket: the name of the bucket
    """

    __slots__ = ()

    sync: _sync.PersistIntervalInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    bucket: str

    def __init__(self, bucket: str) -> None:
        self.sync = self._sync_class(bucket)

    @overload
    async def read_interval_data(self, key: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_interval_data(self, key: str, *, type: type[T]) -> T | None: ...
    async def read_interval_data(self, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            key: the key of the entry in its bucket
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
            >>> from backtest_kit_mongo.aio import PersistIntervalInstance
            >>> interval = PersistIntervalInstance("trend")
            >>> await interval.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "2024-01-01", 1704067200000)
            >>> await interval.read_interval_data("2024-01-01")
            {'id': '2024-01-01', 'data': 1, 'removed': False}
        """
        return await self._data(self.sync.read_interval_data, key, type=type)

    async def write_interval_data(self, data: Any, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalInstance
            >>> interval = PersistIntervalInstance("trend")
            >>> await interval.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "2024-01-01", 1704067200000)
            >>> await interval.read_interval_data("2024-01-01")
            {'id': '2024-01-01', 'data': 1, 'removed': False}
        """
        return await self._data(self.sync.write_interval_data, data, key, when)

    async def remove_interval_data(self, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalInstance
            >>> interval = PersistIntervalInstance("trend")
            >>> await interval.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "2024-01-01", 1704067200000)
            >>> await interval.remove_interval_data("2024-01-01")
            >>> await interval.read_interval_data("2024-01-01") is None
            True
        """
        return await self._data(self.sync.remove_interval_data, key)

    def list_interval_data(self) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Returns:
            an iterator of keys, which reads them page by page

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalInstance
            >>> interval = PersistIntervalInstance("trend")
            >>> await interval.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "2024-01-01", 1704067200000)
            >>> [item async for item in interval.list_interval_data()]
            ['2024-01-01']
        """
        return self._pages(self.sync.list_interval_data)


class PersistIntervalUtils(AsyncKeyedAdapter):
    """The interval contract, with its context in every call, awaitable.

    Markers of what was done once per interval, by bucket and key. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistIntervalUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistIntervalUtils) -> None:
        self.sync = sync

    @overload
    async def read_interval_data(self, bucket: str, key: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_interval_data(self, bucket: str, key: str, *, type: type[T]) -> T | None: ...
    async def read_interval_data(self, bucket: str, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket
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
            >>> from backtest_kit_mongo.aio import PersistIntervalAdapter
            >>> await PersistIntervalAdapter.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> await PersistIntervalAdapter.read_interval_data("trend", "2024-01-01")
            {'id': '2024-01-01', 'data': 1, 'removed': False}
        """
        return await self._data(self.sync.read_interval_data, bucket, key, type=type)

    async def write_interval_data(self, data: Any, bucket: str, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            bucket: the name of the bucket
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalAdapter
            >>> await PersistIntervalAdapter.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> await PersistIntervalAdapter.read_interval_data("trend", "2024-01-01")
            {'id': '2024-01-01', 'data': 1, 'removed': False}
        """
        return await self._data(self.sync.write_interval_data, data, bucket, key, when)

    async def remove_interval_data(self, bucket: str, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalAdapter
            >>> await PersistIntervalAdapter.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> await PersistIntervalAdapter.remove_interval_data("trend", "2024-01-01")
            >>> await PersistIntervalAdapter.read_interval_data("trend", "2024-01-01") is None
            True
        """
        return await self._data(self.sync.remove_interval_data, bucket, key)

    def list_interval_data(self, bucket: str) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Args:
            bucket: the name of the bucket

        Returns:
            an iterator of keys, which reads them page by page

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistIntervalAdapter
            >>> await PersistIntervalAdapter.write_interval_data({"id": "2024-01-01", "data": 1, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> [item async for item in PersistIntervalAdapter.list_interval_data("trend")]
            ['2024-01-01']
        """
        return self._pages(self.sync.list_interval_data, bucket)

    async def use_persist_interval_adapter(self, cls: type[Any]) -> None:
        """Serve the interval contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistIntervalInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistIntervalInstance
            >>> from backtest_kit_mongo.aio import PersistIntervalAdapter
            >>> class Mine(PersistIntervalInstance): ...  # override what you want to see or change
            >>> await PersistIntervalAdapter.use_persist_interval_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_interval_adapter, cls)
