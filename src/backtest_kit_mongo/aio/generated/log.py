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
    """The log contract for one context (none), awaitable."""

    __slots__ = ()

    sync: _sync.PersistLogInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistLogInstance().read_log_data()
        """
        return await self._data(self.sync.read_log_data, limit=limit, type=type)

    async def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistLogInstance().write_log_data([{"id": "e1"}])
        """
        return await self._data(self.sync.write_log_data, entries)


class PersistLogUtils(AsyncAdapter):
    """The log contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistLogUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistLogAdapter.read_log_data()
        """
        return await self._data(self.sync.read_log_data, limit=limit, type=type)

    async def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistLogAdapter.write_log_data([{"id": "e1"}])
        """
        return await self._data(self.sync.write_log_data, entries)

    async def use_persist_log_adapter(self, cls: type[Any]) -> None:
        """Serve the log contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_log_adapter, cls)

    async def use_jsonl(self) -> None:
        """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``."""
        await self._wait(self.sync.use_jsonl)
