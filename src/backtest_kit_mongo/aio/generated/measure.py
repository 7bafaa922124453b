# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The measure contract, awaitable."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistMeasureInstance as _Instance
from ...contracts.generated import measure as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistMeasureInstance", "PersistMeasureUtils"]

T = TypeVar("T")


class PersistMeasureInstance(AsyncInstance):
    """The measure contract for one context (bucket), awaitable."""

    __slots__ = ()

    sync: _sync.PersistMeasureInstance
    _sync_class = _Instance

    bucket: str

    def __init__(self, bucket: str) -> None:
        self.sync = self._sync_class(bucket)

    @overload
    async def read_measure_data(self, key: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_measure_data(self, key: str, *, type: type[T]) -> T | None: ...
    async def read_measure_data(self, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            key: the key of the entry in its bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistMeasureInstance("trend").read_measure_data("2024-01-01")
        """
        return await self._data(self.sync.read_measure_data, key, type=type)

    async def write_measure_data(self, data: Any, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistMeasureInstance("trend").write_measure_data({"n": 1}, "2024-01-01", 1704067200000)
        """
        return await self._data(self.sync.write_measure_data, data, key, when)

    async def remove_measure_data(self, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistMeasureInstance("trend").remove_measure_data("2024-01-01")
        """
        return await self._data(self.sync.remove_measure_data, key)

    def list_measure_data(self) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            async for item in PersistMeasureInstance("trend").list_measure_data(): ...
        """
        return self._pages(self.sync.list_measure_data)


class PersistMeasureUtils(AsyncKeyedAdapter):
    """The measure contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistMeasureUtils

    def __init__(self, sync: _sync.PersistMeasureUtils) -> None:
        self.sync = sync

    @overload
    async def read_measure_data(self, bucket: str, key: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_measure_data(self, bucket: str, key: str, *, type: type[T]) -> T | None: ...
    async def read_measure_data(self, bucket: str, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistMeasureAdapter.read_measure_data("trend", "2024-01-01")
        """
        return await self._data(self.sync.read_measure_data, bucket, key, type=type)

    async def write_measure_data(self, data: Any, bucket: str, key: str, when: When) -> None:
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
            await PersistMeasureAdapter.write_measure_data({"n": 1}, "trend", "2024-01-01", 1704067200000)
        """
        return await self._data(self.sync.write_measure_data, data, bucket, key, when)

    async def remove_measure_data(self, bucket: str, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistMeasureAdapter.remove_measure_data("trend", "2024-01-01")
        """
        return await self._data(self.sync.remove_measure_data, bucket, key)

    def list_measure_data(self, bucket: str) -> AsyncGenerator[str, None]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Args:
            bucket: the name of the bucket

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            async for item in PersistMeasureAdapter.list_measure_data("trend"): ...
        """
        return self._pages(self.sync.list_measure_data, bucket)

    async def use_persist_measure_adapter(self, cls: type[Any]) -> None:
        """Serve the measure contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_measure_adapter, cls)
