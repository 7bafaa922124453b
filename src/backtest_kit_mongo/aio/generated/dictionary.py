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
    """The dictionary contract for one context (signal_id, dictionary_name), awaitable."""

    __slots__ = ()

    sync: _sync.PersistDictionaryInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistDictionaryInstance("s1", "words").read_dictionary_data()
        """
        return await self._data(self.sync.read_dictionary_data, type=type)

    async def write_dictionary_data(self, data: Any, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistDictionaryInstance("s1", "words").write_dictionary_data({"n": 1}, 1704067200000)
        """
        return await self._data(self.sync.write_dictionary_data, data, when)


class PersistDictionaryUtils(AsyncKeyedAdapter):
    """The dictionary contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistDictionaryUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistDictionaryAdapter.read_dictionary_data("s1", "words")
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
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistDictionaryAdapter.write_dictionary_data({"n": 1}, "s1", "words", 1704067200000)
        """
        return await self._data(self.sync.write_dictionary_data, data, signal_id, dictionary_name, when)

    async def use_persist_dictionary_adapter(self, cls: type[Any]) -> None:
        """Serve the dictionary contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_dictionary_adapter, cls)
