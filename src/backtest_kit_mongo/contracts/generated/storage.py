# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The storage contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import AdapterBase, InstanceBase, Row
from ..contract import DEFAULT_LIMIT

__all__ = ["PersistStorageInstance", "PersistStorageUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["storage"]


class PersistStorageInstance(InstanceBase):
    """The storage contract, with its context given once.

    The signals of backtests or of live runs, opened, scheduled, closed and cancelled. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        backtest: True for the records of backtests, False for live and paper runs
    """

    _domain = _DOMAIN

    def __init__(self, backtest: bool) -> None:
        super().__init__()
        self.backtest: bool = backtest

    @overload
    def read_storage_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_storage_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_storage_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistStorageInstance
            >>> storage = PersistStorageInstance(True)
            >>> storage.write_storage_data([{"id": "s1", "status": "opened"}])
            >>> storage.read_storage_data()
            [{'id': 's1', 'status': 'opened'}]
        """
        return self._rows((self.backtest,), limit, type)

    def write_storage_data(self, rows: Iterable[Any]) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStorageInstance
            >>> storage = PersistStorageInstance(True)
            >>> storage.write_storage_data([{"id": "s1", "status": "opened"}])
            >>> storage.read_storage_data()
            [{'id': 's1', 'status': 'opened'}]
        """
        self._put_rows(rows, (self.backtest,))


class PersistStorageUtils(AdapterBase):
    """The storage contract, with its context in every call.

    The signals of backtests or of live runs, opened, scheduled, closed and cancelled. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN

    @overload
    def read_storage_data(self, backtest: bool, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_storage_data(self, backtest: bool, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_storage_data(self, backtest: bool, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistStorageAdapter
            >>> PersistStorageAdapter.write_storage_data([{"id": "s1", "status": "opened"}], True)
            >>> PersistStorageAdapter.read_storage_data(True)
            [{'id': 's1', 'status': 'opened'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "rows", (backtest,), "read_storage_data", (), limit=limit, type=type)
        return self._rows((backtest,), limit, type)

    def write_storage_data(self, rows: Iterable[Any], backtest: bool) -> None:
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
            >>> from backtest_kit_mongo import PersistStorageAdapter
            >>> PersistStorageAdapter.write_storage_data([{"id": "s1", "status": "opened"}], True)
            >>> PersistStorageAdapter.read_storage_data(True)
            [{'id': 's1', 'status': 'opened'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_rows", (backtest,), "write_storage_data", (rows,))
        self._put_rows(rows, (backtest,))

    def use_persist_storage_adapter(self, cls: type[Any]) -> None:
        """Serve the storage contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistStorageInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistStorageInstance
            >>> from backtest_kit_mongo import PersistStorageAdapter
            >>> class Mine(PersistStorageInstance): ...  # override what you want to see or change
            >>> PersistStorageAdapter.use_persist_storage_adapter(Mine)
        """
        self._use_class(cls)
