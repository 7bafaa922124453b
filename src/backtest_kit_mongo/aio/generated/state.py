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
    """The state contract, with its context given once, awaitable.

    A value that a strategy keeps for a signal, by bucket. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        signal_id: the id of the signal
        bucket_name: the name of the bucket
    """

    __slots__ = ()

    sync: _sync.PersistStateInstance
    """The synchronous object that does the work."""
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

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStateInstance
            >>> state = PersistStateInstance("s1", "levels")
            >>> await state.write_state_data({"id": "s1_levels", "data": 3}, 1704067200000)
            >>> await state.read_state_data()
            {'id': 's1_levels', 'data': 3}
        """
        return await self._data(self.sync.read_state_data, type=type)

    async def write_state_data(self, data: Any, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStateInstance
            >>> state = PersistStateInstance("s1", "levels")
            >>> await state.write_state_data({"id": "s1_levels", "data": 3}, 1704067200000)
            >>> await state.read_state_data()
            {'id': 's1_levels', 'data': 3}
        """
        return await self._data(self.sync.write_state_data, data, when)


class PersistStateUtils(AsyncKeyedAdapter):
    """The state contract, with its context in every call, awaitable.

    A value that a strategy keeps for a signal, by bucket. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistStateUtils
    """The synchronous object that does the work."""

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

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStateAdapter
            >>> await PersistStateAdapter.write_state_data({"id": "s1_levels", "data": 3}, "s1", "levels", 1704067200000)
            >>> await PersistStateAdapter.read_state_data("s1", "levels")
            {'id': 's1_levels', 'data': 3}
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
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStateAdapter
            >>> await PersistStateAdapter.write_state_data({"id": "s1_levels", "data": 3}, "s1", "levels", 1704067200000)
            >>> await PersistStateAdapter.read_state_data("s1", "levels")
            {'id': 's1_levels', 'data': 3}
        """
        return await self._data(self.sync.write_state_data, data, signal_id, bucket_name, when)

    async def use_persist_state_adapter(self, cls: type[Any]) -> None:
        """Serve the state contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistStateInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistStateInstance
            >>> from backtest_kit_mongo.aio import PersistStateAdapter
            >>> class Mine(PersistStateInstance): ...  # override what you want to see or change
            >>> await PersistStateAdapter.use_persist_state_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_state_adapter, cls)
