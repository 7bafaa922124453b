# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The dictionary contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistDictionaryInstance as _Instance
from ...contracts.generated import dictionary as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistDictionaryInstance", "PersistDictionaryUtils"]

T = TypeVar("T")


class PersistDictionaryInstance(AsyncInstance):
    """The dictionary contract, with its context given once, awaitable.

    A dictionary that a strategy keeps for a signal, by name. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        signal_id: the id of the signal
        dictionary_name: the name of the dictionary
    """

    __slots__ = ()

    sync: _sync.PersistDictionaryInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    signal_id: str
    dictionary_name: str

    def __init__(self, signal_id: str, dictionary_name: str) -> None:
        self.sync = self._sync_class(signal_id, dictionary_name)

    @overload
    async def read_dictionary_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_dictionary_data(self, *, type: type[T]) -> T | None: ...
    async def read_dictionary_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistDictionaryInstance
            >>> dictionary = PersistDictionaryInstance("s1", "words")
            >>> await dictionary.write_dictionary_data({"id": "words", "data": {"trend": "up"}}, 1704067200000)
            >>> await dictionary.read_dictionary_data()
            {'id': 'words', 'data': {'trend': 'up'}}
        """
        return await self._data(self.sync.read_dictionary_data, type=type)

    async def write_dictionary_data(self, data: Any, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistDictionaryInstance
            >>> dictionary = PersistDictionaryInstance("s1", "words")
            >>> await dictionary.write_dictionary_data({"id": "words", "data": {"trend": "up"}}, 1704067200000)
            >>> await dictionary.read_dictionary_data()
            {'id': 'words', 'data': {'trend': 'up'}}
        """
        return await self._data(self.sync.write_dictionary_data, data, when)


class PersistDictionaryUtils(AsyncKeyedAdapter):
    """The dictionary contract, with its context in every call, awaitable.

    A dictionary that a strategy keeps for a signal, by name. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistDictionaryUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistDictionaryUtils) -> None:
        self.sync = sync

    @overload
    async def read_dictionary_data(self, signal_id: str, dictionary_name: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_dictionary_data(self, signal_id: str, dictionary_name: str, *, type: type[T]) -> T | None: ...
    async def read_dictionary_data(self, signal_id: str, dictionary_name: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            signal_id: the id of the signal
            dictionary_name: the name of the dictionary
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
            >>> from backtest_kit_mongo.aio import PersistDictionaryAdapter
            >>> await PersistDictionaryAdapter.write_dictionary_data({"id": "words", "data": {"trend": "up"}}, "s1", "words", 1704067200000)
            >>> await PersistDictionaryAdapter.read_dictionary_data("s1", "words")
            {'id': 'words', 'data': {'trend': 'up'}}
        """
        return await self._data(self.sync.read_dictionary_data, signal_id, dictionary_name, type=type)

    async def write_dictionary_data(self, data: Any, signal_id: str, dictionary_name: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            dictionary_name: the name of the dictionary
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistDictionaryAdapter
            >>> await PersistDictionaryAdapter.write_dictionary_data({"id": "words", "data": {"trend": "up"}}, "s1", "words", 1704067200000)
            >>> await PersistDictionaryAdapter.read_dictionary_data("s1", "words")
            {'id': 'words', 'data': {'trend': 'up'}}
        """
        return await self._data(self.sync.write_dictionary_data, data, signal_id, dictionary_name, when)

    async def use_persist_dictionary_adapter(self, cls: type[Any]) -> None:
        """Serve the dictionary contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistDictionaryInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistDictionaryInstance
            >>> from backtest_kit_mongo.aio import PersistDictionaryAdapter
            >>> class Mine(PersistDictionaryInstance): ...  # override what you want to see or change
            >>> await PersistDictionaryAdapter.use_persist_dictionary_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_dictionary_adapter, cls)
