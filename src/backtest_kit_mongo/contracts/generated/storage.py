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
    """The storage contract for one context (backtest)."""

    _domain = _DOMAIN

    def __init__(self, backtest: bool) -> None:
        super().__init__()
        self.backtest = backtest

    @overload
    def read_storage_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_storage_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_storage_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, newest first.

        Args:
            limit: the most rows to read, 1000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistStorageInstance(True).read_storage_data()
        """
        return self._rows((self.backtest,), limit, type)

    def write_storage_data(self, rows: Iterable[Any]) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistStorageInstance(True).write_storage_data([{"id": "s1"}])
        """
        self._put_rows(rows, (self.backtest,))


class PersistStorageUtils(AdapterBase):
    """The storage contract, with its context in every call."""

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistStorageAdapter.read_storage_data(True)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "rows", (backtest,), "read_storage_data", (), limit=limit, type=type)
        return self._rows((backtest,), limit, type)

    def write_storage_data(self, rows: Iterable[Any], backtest: bool) -> None:
        """Write rows by their id with one command; the last write of an id wins. Other stored rows stay.

        Args:
            rows: the rows, each with an "id"
            backtest: True for the records of backtests, False for live and paper runs

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistStorageAdapter.write_storage_data([{"id": "s1"}], True)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_rows", (backtest,), "write_storage_data", (rows,))
        self._put_rows(rows, (backtest,))

    def use_persist_storage_adapter(self, cls: type[Any]) -> None:
        """Serve the storage contract through ``cls``: one instance per context, created with the arguments of
        ``PersistStorageInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
