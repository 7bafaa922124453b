# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The state contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistStateInstance as _Instance
from ...contracts.generated import state as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistStateInstance", "PersistStateUtils"]

T = TypeVar("T")


class PersistStateInstance(AsyncInstance):
    """The state contract for one context (signal_id, bucket_name), awaitable."""

    __slots__ = ()

    sync: _sync.PersistStateInstance
    _sync_class = _Instance

    signal_id: str
    bucket_name: str

    def __init__(self, signal_id: str, bucket_name: str) -> None:
        self.sync = self._sync_class(signal_id, bucket_name)

    @overload
    async def read_state_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_state_data(self, *, type: type[T]) -> T | None: ...
    async def read_state_data(self, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistStateInstance("s1", "levels").read_state_data()
        """
        return await self._data(self.sync.read_state_data, type=type)

    async def write_state_data(self, data: Any, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistStateInstance("s1", "levels").write_state_data({"n": 1}, 1704067200000)
        """
        return await self._data(self.sync.write_state_data, data, when)


class PersistStateUtils(AsyncKeyedAdapter):
    """The state contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistStateUtils

    def __init__(self, sync: _sync.PersistStateUtils) -> None:
        self.sync = sync

    @overload
    async def read_state_data(self, signal_id: str, bucket_name: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_state_data(self, signal_id: str, bucket_name: str, *, type: type[T]) -> T | None: ...
    async def read_state_data(self, signal_id: str, bucket_name: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistStateAdapter.read_state_data("s1", "levels")
        """
        return await self._data(self.sync.read_state_data, signal_id, bucket_name, type=type)

    async def write_state_data(self, data: Any, signal_id: str, bucket_name: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistStateAdapter.write_state_data({"n": 1}, "s1", "levels", 1704067200000)
        """
        return await self._data(self.sync.write_state_data, data, signal_id, bucket_name, when)

    async def use_persist_state_adapter(self, cls: type[Any]) -> None:
        """Serve the state contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_state_adapter, cls)
