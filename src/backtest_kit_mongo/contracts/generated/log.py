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
    """The log contract, with its context given once.

    The log entries of strategies. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError (MongoDB
    rejected the command) and, with the domain on files, StorageError.
    """

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

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistLogInstance
            >>> log = PersistLogInstance()
            >>> log.write_log_data([{"id": "e1", "topic": "start"}])
            >>> log.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        return self._rows((), limit, type)

    def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistLogInstance
            >>> log = PersistLogInstance()
            >>> log.write_log_data([{"id": "e1", "topic": "start"}])
            >>> log.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        self._put_rows(entries, ())


class PersistLogUtils(AdapterBase):
    """The log contract, with its context in every call.

    The log entries of strategies. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError (MongoDB
    rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

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

        Returns:
            the rows as dicts, or as ``type`` if given

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.write_log_data([{"id": "e1", "topic": "start"}])
            >>> PersistLogAdapter.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "rows", (), "read_log_data", (), limit=limit, type=type)
        return self._rows((), limit, type)

    def write_log_data(self, entries: Iterable[Any]) -> None:
        """Write rows by their id with one command; the first write of an id wins. Other stored rows stay.

        Args:
            entries: the entries, each a dict, dataclass or Struct with an "id"

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.write_log_data([{"id": "e1", "topic": "start"}])
            >>> PersistLogAdapter.read_log_data()
            [{'id': 'e1', 'topic': 'start'}]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_rows", (), "write_log_data", (entries,))
        self._put_rows(entries, ())

    def use_persist_log_adapter(self, cls: type[Any]) -> None:
        """Serve the log contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistLogInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistLogInstance
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> class Mine(PersistLogInstance): ...  # override what you want to see or change
            >>> PersistLogAdapter.use_persist_log_adapter(Mine)
        """
        self._use_class(cls)

    def use_jsonl(self) -> None:
        """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``.

        Examples:
            >>> from backtest_kit_mongo import PersistLogAdapter
            >>> PersistLogAdapter.use_jsonl()
        """
        self._use_jsonl()
