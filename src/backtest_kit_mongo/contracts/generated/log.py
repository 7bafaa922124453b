# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The log contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import AdapterBase, InstanceBase, Row
from ..contract import DEFAULT_LIMIT

__all__ = ["PersistLogInstance", "PersistLogUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["log"]


class PersistLogInstance(InstanceBase):
    """The log contract for one context (none)."""

    _domain = _DOMAIN

    def __init__(self) -> None:
        super().__init__()

    @overload
    def read_log_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_log_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_log_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            limit: the most rows to read, 1000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistLogInstance().read_log_data()
        """
        return self._rows((), limit, type)

    def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistLogInstance().write_log_data([{"id": "e1"}])
        """
        self._put_rows(entries, ())


class PersistLogUtils(AdapterBase):
    """The log contract, with its context in every call."""

    _domain = _DOMAIN

    @overload
    def read_log_data(self, *, limit: int | None = ..., type: None = None) -> list[Row]: ...
    @overload
    def read_log_data(self, *, limit: int | None = ..., type: type[T]) -> list[T]: ...
    def read_log_data(self, *, limit: int | None = DEFAULT_LIMIT, type: Any = None) -> Any:
        """Read the newest rows, returned oldest first.

        Args:
            limit: the most rows to read, 1000 by default; None means all
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistLogAdapter.read_log_data()
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "rows", (), "read_log_data", (), limit=limit, type=type)
        return self._rows((), limit, type)

    def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each with an "id"

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistLogAdapter.write_log_data([{"id": "e1"}])
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_rows", (), "write_log_data", (entries,))
        self._put_rows(entries, ())

    def use_persist_log_adapter(self, cls: type[Any]) -> None:
        """Serve the log contract through ``cls``: one instance per context, created with the arguments of
        ``PersistLogInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)

    def use_jsonl(self) -> None:
        """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``."""
        self._use_jsonl()
