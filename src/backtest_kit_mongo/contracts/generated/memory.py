# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The memory contract."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistMemoryInstance", "PersistMemoryUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["memory"]


class PersistMemoryInstance(InstanceBase):
    """The memory contract for one context (signal_id, bucket_name)."""

    _domain = _DOMAIN

    def __init__(self, signal_id: str, bucket_name: str) -> None:
        super().__init__()
        self.signal_id = signal_id
        self.bucket_name = bucket_name

    @overload
    def read_memory_data(self, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_memory_data(self, memory_id: str, *, type: type[T]) -> T | None: ...
    def read_memory_data(self, memory_id: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            memory_id: the id of the memory
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryInstance("s1", "levels").read_memory_data("m1")
        """
        return self._read((self.signal_id, self.bucket_name, memory_id), NO_TIME, type)

    def has_memory_data(self, memory_id: str) -> bool:
        """Return whether a record exists and is not removed.

        Args:
            memory_id: the id of the memory

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryInstance("s1", "levels").has_memory_data("m1")
        """
        return self._has((self.signal_id, self.bucket_name, memory_id))

    def write_memory_data(self, data: Any, memory_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            memory_id: the id of the memory
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryInstance("s1", "levels").write_memory_data({"n": 1}, "m1", 1704067200000)
        """
        self._write(data, (self.signal_id, self.bucket_name, memory_id), when)

    def remove_memory_data(self, memory_id: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            memory_id: the id of the memory

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryInstance("s1", "levels").remove_memory_data("m1")
        """
        self._remove((self.signal_id, self.bucket_name, memory_id))

    @overload
    def list_memory_data(self, *, type: None = None) -> Iterator[Row]: ...
    @overload
    def list_memory_data(self, *, type: type[T]) -> Iterator[Row]: ...
    def list_memory_data(self, *, type: Any = None) -> Any:
        """Iterate over the memories that are not removed, as {memoryId, data}, newest write first.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryInstance("s1", "levels").list_memory_data()
        """
        return self._records((self.signal_id, self.bucket_name), type)


class PersistMemoryUtils(KeyedAdapterBase):
    """The memory contract, with its context in every call."""

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3)

    @overload
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: type[T]) -> T | None: ...
    def read_memory_data(self, signal_id: str, bucket_name: str, memory_id: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryAdapter.read_memory_data("s1", "levels", "m1")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (signal_id, bucket_name), "read_memory_data", (memory_id,), type=type)
        return self._read((signal_id, bucket_name, memory_id), NO_TIME, type)

    def has_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> bool:
        """Return whether a record exists and is not removed.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryAdapter.has_memory_data("s1", "levels", "m1")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "has", (signal_id, bucket_name), "has_memory_data", (memory_id,))
        return self._has((signal_id, bucket_name, memory_id))

    def write_memory_data(self, data: Any, signal_id: str, bucket_name: str, memory_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryAdapter.write_memory_data({"n": 1}, "s1", "levels", "m1", 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (signal_id, bucket_name), "write_memory_data", (data, memory_id, when))
        self._write(data, (signal_id, bucket_name, memory_id), when)

    def remove_memory_data(self, signal_id: str, bucket_name: str, memory_id: str) -> None:
        """Remove a record softly; do nothing if there is none. A later write restores it.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            memory_id: the id of the memory

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryAdapter.remove_memory_data("s1", "levels", "m1")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "remove", (signal_id, bucket_name), "remove_memory_data", (memory_id,))
        self._remove((signal_id, bucket_name, memory_id))

    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: None = None) -> Iterator[Row]: ...
    @overload
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: type[T]) -> Iterator[Row]: ...
    def list_memory_data(self, signal_id: str, bucket_name: str, *, type: Any = None) -> Any:
        """Iterate over the memories that are not removed, as {memoryId, data}, newest write first.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistMemoryAdapter.list_memory_data("s1", "levels")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "records", (signal_id, bucket_name), "list_memory_data", (), type=type)
        return self._records((signal_id, bucket_name), type)

    def use_persist_memory_adapter(self, cls: type[Any]) -> None:
        """Serve the memory contract through ``cls``: one instance per context, created with the arguments of
        ``PersistMemoryInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
