# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The notification contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import AdapterBase, InstanceBase, Row
from ..contract import DEFAULT_LIMIT

__all__ = ["PersistNotificationInstance", "PersistNotificationUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["notification"]


class PersistNotificationInstance(InstanceBase):
    """The notification contract, with its context given once.

    The notifications of backtests or of live runs. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        backtest: True for the records of backtests, False for live and paper runs
    """

    _domain = _DOMAIN

    def __init__(self, backtest: bool) -> None:
        super().__init__()
        self.backtest: bool = backtest

    @overload
    def read_notification_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_notification_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_notification_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            limit: the most rows to read, 5000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistNotificationInstance
            >>> notification = PersistNotificationInstance(True)
            >>> notification.write_notification_data([{"id": "n1", "type": "signal.opened"}])
            >>> notification.read_notification_data()
            [{'id': 'n1', 'type': 'signal.opened'}]
        """
        return self._rows((self.backtest,), limit, type)

    def write_notification_data(self, rows: Iterable[Any]) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistNotificationInstance
            >>> notification = PersistNotificationInstance(True)
            >>> notification.write_notification_data([{"id": "n1", "type": "signal.opened"}])
            >>> notification.read_notification_data()
            [{'id': 'n1', 'type': 'signal.opened'}]
        """
        self._put_rows(rows, (self.backtest,))


class PersistNotificationUtils(AdapterBase):
    """The notification contract, with its context in every call.

    The notifications of backtests or of live runs. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN

    @overload
    def read_notification_data(self, backtest: bool, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_notification_data(self, backtest: bool, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_notification_data(self, backtest: bool, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            backtest: True for the records of backtests, False for live and paper runs
            limit: the most rows to read, 5000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistNotificationAdapter
            >>> PersistNotificationAdapter.write_notification_data([{"id": "n1", "type": "signal.opened"}], True)
            >>> PersistNotificationAdapter.read_notification_data(True)
            [{'id': 'n1', 'type': 'signal.opened'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "rows", (backtest,), "read_notification_data", (), limit=limit, type=type)
        return self._rows((backtest,), limit, type)

    def write_notification_data(self, rows: Iterable[Any], backtest: bool) -> None:
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
            >>> from backtest_kit_mongo import PersistNotificationAdapter
            >>> PersistNotificationAdapter.write_notification_data([{"id": "n1", "type": "signal.opened"}], True)
            >>> PersistNotificationAdapter.read_notification_data(True)
            [{'id': 'n1', 'type': 'signal.opened'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_rows", (backtest,), "write_notification_data", (rows,))
        self._put_rows(rows, (backtest,))

    def use_persist_notification_adapter(self, cls: type[Any]) -> None:
        """Serve the notification contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistNotificationInstance``, created with the same arguments; usually a subclass
                of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistNotificationInstance
            >>> from backtest_kit_mongo import PersistNotificationAdapter
            >>> class Mine(PersistNotificationInstance): ...  # override what you want to see or change
            >>> PersistNotificationAdapter.use_persist_notification_adapter(Mine)
        """
        self._use_class(cls)
