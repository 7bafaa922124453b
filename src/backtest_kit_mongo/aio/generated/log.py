# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The log contract, awaitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistLogInstance as _Instance
from ...contracts.contract import DEFAULT_LIMIT
from ...contracts.generated import log as _sync
from ..base import AsyncAdapter, AsyncInstance

__all__ = ["PersistLogInstance", "PersistLogUtils"]

T = TypeVar("T")


class PersistLogInstance(AsyncInstance):
    """The log contract, with its context given once, awaitable.

    The log entries of strategies. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError (MongoDB
    rejected the command) and, with the domain on files, StorageError.
    """

    __slots__ = ()

    sync: _sync.PersistLogInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    def __init__(self) -> None:
        self.sync = self._sync_class()

    @overload
    async def read_log_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_log_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_log_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

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
            >>> from backtest_kit_mongo.aio import PersistLogInstance
            >>> log = PersistLogInstance()
            >>> await log.write_log_data([{"id": "e1", "topic": "start"}])
            >>> await log.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        return await self._data(self.sync.read_log_data, limit=limit, type=type)

    async def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistLogInstance
            >>> log = PersistLogInstance()
            >>> await log.write_log_data([{"id": "e1", "topic": "start"}])
            >>> await log.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        return await self._data(self.sync.write_log_data, entries)


class PersistLogUtils(AsyncAdapter):
    """The log contract, with its context in every call, awaitable.

    The log entries of strategies. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError (MongoDB
    rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistLogUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistLogUtils) -> None:
        self.sync = sync

    @overload
    async def read_log_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_log_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_log_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

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
            >>> from backtest_kit_mongo.aio import PersistLogAdapter
            >>> await PersistLogAdapter.write_log_data([{"id": "e1", "topic": "start"}])
            >>> await PersistLogAdapter.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        return await self._data(self.sync.read_log_data, limit=limit, type=type)

    async def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistLogAdapter
            >>> await PersistLogAdapter.write_log_data([{"id": "e1", "topic": "start"}])
            >>> await PersistLogAdapter.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        return await self._data(self.sync.write_log_data, entries)

    async def use_persist_log_adapter(self, cls: type[Any]) -> None:
        """Serve the log contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistLogInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistLogInstance
            >>> from backtest_kit_mongo.aio import PersistLogAdapter
            >>> class Mine(PersistLogInstance): ...  # override what you want to see or change
            >>> await PersistLogAdapter.use_persist_log_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_log_adapter, cls)

    async def use_jsonl(self) -> None:
        """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``.

        Examples:
            >>> from backtest_kit_mongo.aio import PersistLogAdapter
            >>> await PersistLogAdapter.use_jsonl()
        """
        await self._wait(self.sync.use_jsonl)
