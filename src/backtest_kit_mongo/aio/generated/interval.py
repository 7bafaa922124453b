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
    """The interval contract for one context (bucket), awaitable."""

    __slots__ = ()

    sync: _sync.PersistIntervalInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalInstance("trend").read_interval_data("2024-01-01")
        """
        return await self._data(self.sync.read_interval_data, key, type=type)

    async def write_interval_data(self, data: Any, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalInstance("trend").write_interval_data({"n": 1}, "2024-01-01", 1704067200000)
        """
        return await self._data(self.sync.write_interval_data, data, key, when)

    async def remove_interval_data(self, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalInstance("trend").remove_interval_data("2024-01-01")
        """
        return await self._data(self.sync.remove_interval_data, key)

    def list_interval_data(self) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            async for item in PersistIntervalInstance("trend").list_interval_data(): ...
        """
        return self._pages(self.sync.list_interval_data)


class PersistIntervalUtils(AsyncKeyedAdapter):
    """The interval contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistIntervalUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalAdapter.read_interval_data("trend", "2024-01-01")
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
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalAdapter.write_interval_data({"n": 1}, "trend", "2024-01-01", 1704067200000)
        """
        return await self._data(self.sync.write_interval_data, data, bucket, key, when)

    async def remove_interval_data(self, bucket: str, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistIntervalAdapter.remove_interval_data("trend", "2024-01-01")
        """
        return await self._data(self.sync.remove_interval_data, bucket, key)

    def list_interval_data(self, bucket: str) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Args:
            bucket: the name of the bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            async for item in PersistIntervalAdapter.list_interval_data("trend"): ...
        """
        return self._pages(self.sync.list_interval_data, bucket)

    async def use_persist_interval_adapter(self, cls: type[Any]) -> None:
        """Serve the interval contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_interval_adapter, cls)
