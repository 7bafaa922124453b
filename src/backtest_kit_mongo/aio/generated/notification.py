# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The notification contract, awaitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistNotificationInstance as _Instance
from ...contracts.contract import DEFAULT_LIMIT
from ...contracts.generated import notification as _sync
from ..base import AsyncAdapter, AsyncInstance

__all__ = ["PersistNotificationInstance", "PersistNotificationUtils"]

T = TypeVar("T")


class PersistNotificationInstance(AsyncInstance):
    """The notification contract for one context (backtest), awaitable."""

    __slots__ = ()

    sync: _sync.PersistNotificationInstance
    _sync_class = _Instance

    backtest: bool

    def __init__(self, backtest: bool) -> None:
        self.sync = self._sync_class(backtest)

    @overload
    async def read_notification_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_notification_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_notification_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            limit: the most rows to read, 5000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistNotificationInstance(True).read_notification_data()
        """
        return await self._data(self.sync.read_notification_data, limit=limit, type=type)

    async def write_notification_data(self, rows: Iterable[Any]) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistNotificationInstance(True).write_notification_data([{"id": "s1"}])
        """
        return await self._data(self.sync.write_notification_data, rows)


class PersistNotificationUtils(AsyncAdapter):
    """The notification contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistNotificationUtils

    def __init__(self, sync: _sync.PersistNotificationUtils) -> None:
        self.sync = sync

    @overload
    async def read_notification_data(self, backtest: bool, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    async def read_notification_data(self, backtest: bool, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    async def read_notification_data(self, backtest: bool, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            backtest: True for the records of backtests, False for live and paper runs
            limit: the most rows to read, 5000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistNotificationAdapter.read_notification_data(True)
        """
        return await self._data(self.sync.read_notification_data, backtest, limit=limit, type=type)

    async def write_notification_data(self, rows: Iterable[Any], backtest: bool) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each with an "id"
            backtest: True for the records of backtests, False for live and paper runs

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistNotificationAdapter.write_notification_data([{"id": "s1"}], True)
        """
        return await self._data(self.sync.write_notification_data, rows, backtest)

    async def use_persist_notification_adapter(self, cls: type[Any]) -> None:
        """Serve the notification contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_notification_adapter, cls)
