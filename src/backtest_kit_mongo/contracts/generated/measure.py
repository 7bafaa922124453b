# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The measure contract."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistMeasureInstance", "PersistMeasureUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["measure"]


class PersistMeasureInstance(InstanceBase):
    """The measure contract, with its context given once.

    Results that a strategy caches, by bucket and key. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        bucket: the name of the bucket
    """

    _domain = _DOMAIN

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self.bucket: str = bucket

    @overload
    def read_measure_data(self, key: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_measure_data(self, key: str, *, type: type[T]) -> T | None: ...
    def read_measure_data(self, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            key: the key of the entry in its bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureInstance
            >>> measure = PersistMeasureInstance("trend")
            >>> measure.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "2024-01-01", 1704067200000)
            >>> measure.read_measure_data("2024-01-01")
            {'id': '2024-01-01', 'data': 0.7, 'removed': False}
        """
        return self._read((self.bucket, key), NO_TIME, type)

    def write_measure_data(self, data: Any, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureInstance
            >>> measure = PersistMeasureInstance("trend")
            >>> measure.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "2024-01-01", 1704067200000)
            >>> measure.read_measure_data("2024-01-01")
            {'id': '2024-01-01', 'data': 0.7, 'removed': False}
        """
        self._write(data, (self.bucket, key), when)

    def remove_measure_data(self, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureInstance
            >>> measure = PersistMeasureInstance("trend")
            >>> measure.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "2024-01-01", 1704067200000)
            >>> measure.remove_measure_data("2024-01-01")
            >>> measure.read_measure_data("2024-01-01") is None
            True
        """
        self._remove((self.bucket, key))

    def list_measure_data(self) -> Iterator[str]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Returns:
            an iterator of keys, which reads them page by page

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureInstance
            >>> measure = PersistMeasureInstance("trend")
            >>> measure.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "2024-01-01", 1704067200000)
            >>> list(measure.list_measure_data())
            ['2024-01-01']
        """
        return self._keys((self.bucket,))


class PersistMeasureUtils(KeyedAdapterBase):
    """The measure contract, with its context in every call.

    Results that a strategy caches, by bucket and key. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2)

    @overload
    def read_measure_data(self, bucket: str, key: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_measure_data(self, bucket: str, key: str, *, type: type[T]) -> T | None: ...
    def read_measure_data(self, bucket: str, key: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureAdapter
            >>> PersistMeasureAdapter.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> PersistMeasureAdapter.read_measure_data("trend", "2024-01-01")
            {'id': '2024-01-01', 'data': 0.7, 'removed': False}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (bucket,), "read_measure_data", (key,), type=type)
        return self._read((bucket, key), NO_TIME, type)

    def write_measure_data(self, data: Any, bucket: str, key: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            bucket: the name of the bucket
            key: the key of the entry in its bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureAdapter
            >>> PersistMeasureAdapter.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> PersistMeasureAdapter.read_measure_data("trend", "2024-01-01")
            {'id': '2024-01-01', 'data': 0.7, 'removed': False}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (bucket,), "write_measure_data", (data, key, when))
        self._write(data, (bucket, key), when)

    def remove_measure_data(self, bucket: str, key: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            bucket: the name of the bucket
            key: the key of the entry in its bucket

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureAdapter
            >>> PersistMeasureAdapter.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> PersistMeasureAdapter.remove_measure_data("trend", "2024-01-01")
            >>> PersistMeasureAdapter.read_measure_data("trend", "2024-01-01") is None
            True
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "remove", (bucket,), "remove_measure_data", (key,))
        self._remove((bucket, key))

    def list_measure_data(self, bucket: str) -> Iterator[str]:
        """Iterate over the keys of the bucket that are not removed, newest write first.

        Args:
            bucket: the name of the bucket

        Returns:
            an iterator of keys, which reads them page by page

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureAdapter
            >>> PersistMeasureAdapter.write_measure_data({"id": "2024-01-01", "data": 0.7, "removed": False}, "trend", "2024-01-01", 1704067200000)
            >>> list(PersistMeasureAdapter.list_measure_data("trend"))
            ['2024-01-01']
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "keys", (bucket,), "list_measure_data", ())
        return self._keys((bucket,))

    def use_persist_measure_adapter(self, cls: type[Any]) -> None:
        """Serve the measure contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistMeasureInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistMeasureInstance
            >>> from backtest_kit_mongo import PersistMeasureAdapter
            >>> class Mine(PersistMeasureInstance): ...  # override what you want to see or change
            >>> PersistMeasureAdapter.use_persist_measure_adapter(Mine)
        """
        self._use_class(cls)
