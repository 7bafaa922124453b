# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The storage contract, awaitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistStorageInstance as _Instance
from ...contracts.contract import DEFAULT_LIMIT
from ...contracts.generated import storage as _sync
from ..base import AsyncAdapter, AsyncInstance

__all__ = ["PersistStorageInstance", "PersistStorageUtils"]

T = TypeVar("T")


class PersistStorageInstance(AsyncInstance):
    """The storage contract, with its context given once, awaitable.

    The signals of backtests or of live runs, opened, scheduled, closed and cancelled. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        backtest: True for the records of backtests, False for live and paper runs
    """

    __slots__ = ()

    sync: _sync.PersistStorageInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    backtest: bool

    def __init__(self, backtest: bool) -> None:
        self.sync = self._sync_class(backtest)

    @overload
    async def read_storage_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_storage_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_storage_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, newest first.

        Args:
            limit: the most rows to read, 1000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStorageInstance
            >>> storage = PersistStorageInstance(True)
            >>> await storage.write_storage_data([{"id": "s1", "status": "opened"}])
            >>> await storage.read_storage_data()
            [{'id': 's1', 'status': 'opened'}]
        """
        return await self._data(self.sync.read_storage_data, limit=limit, type=type)

    async def write_storage_data(self, rows: Iterable[Any]) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStorageInstance
            >>> storage = PersistStorageInstance(True)
            >>> await storage.write_storage_data([{"id": "s1", "status": "opened"}])
            >>> await storage.read_storage_data()
            [{'id': 's1', 'status': 'opened'}]
        """
        return await self._data(self.sync.write_storage_data, rows)


class PersistStorageUtils(AsyncAdapter):
    """The storage contract, with its context in every call, awaitable.

    The signals of backtests or of live runs, opened, scheduled, closed and cancelled. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistStorageUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistStorageUtils) -> None:
        self.sync = sync

    @overload
    async def read_storage_data(self, backtest: bool, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_storage_data(self, backtest: bool, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_storage_data(self, backtest: bool, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, newest first.

        Args:
            backtest: True for the records of backtests, False for live and paper runs
            limit: the most rows to read, 1000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStorageAdapter
            >>> await PersistStorageAdapter.write_storage_data([{"id": "s1", "status": "opened"}], True)
            >>> await PersistStorageAdapter.read_storage_data(True)
            [{'id': 's1', 'status': 'opened'}]
        """
        return await self._data(self.sync.read_storage_data, backtest, limit=limit, type=type)

    async def write_storage_data(self, rows: Iterable[Any], backtest: bool) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each a dict, dataclass or Struct with an "id"
            backtest: True for the records of backtests, False for live and paper runs

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStorageAdapter
            >>> await PersistStorageAdapter.write_storage_data([{"id": "s1", "status": "opened"}], True)
            >>> await PersistStorageAdapter.read_storage_data(True)
            [{'id': 's1', 'status': 'opened'}]
        """
        return await self._data(self.sync.write_storage_data, rows, backtest)

    async def use_persist_storage_adapter(self, cls: type[Any]) -> None:
        """Serve the storage contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistStorageInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistStorageInstance
            >>> from backtest_kit_mongo.aio import PersistStorageAdapter
            >>> class Mine(PersistStorageInstance): ...  # override what you want to see or change
            >>> await PersistStorageAdapter.use_persist_storage_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_storage_adapter, cls)
