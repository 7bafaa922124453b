# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The state contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistStateInstance", "PersistStateUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["state"]


class PersistStateInstance(InstanceBase):
    """The state contract, with its context given once.

    A value that a strategy keeps for a signal, by bucket. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        signal_id: the id of the signal
        bucket_name: the name of the bucket
    """

    _domain = _DOMAIN

    def __init__(self, signal_id: str, bucket_name: str) -> None:
        super().__init__()
        self.signal_id: str = signal_id
        self.bucket_name: str = bucket_name

    @overload
    def read_state_data(self, *, type: None = None) -> Row | None: ...
    @overload
    def read_state_data(self, *, type: type[T]) -> T | None: ...
    def read_state_data(self, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStateInstance
            >>> state = PersistStateInstance("s1", "levels")
            >>> state.write_state_data({"id": "s1_levels", "data": 3}, 1704067200000)
            >>> state.read_state_data()
            {'id': 's1_levels', 'data': 3}
        """
        return self._read((self.signal_id, self.bucket_name), NO_TIME, type)

    def write_state_data(self, data: Any, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStateInstance
            >>> state = PersistStateInstance("s1", "levels")
            >>> state.write_state_data({"id": "s1_levels", "data": 3}, 1704067200000)
            >>> state.read_state_data()
            {'id': 's1_levels', 'data': 3}
        """
        self._write(data, (self.signal_id, self.bucket_name), when)


class PersistStateUtils(KeyedAdapterBase):
    """The state contract, with its context in every call.

    A value that a strategy keeps for a signal, by bucket. Every method can also raise NotConfiguredError (before ``setup``),
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
    def read_state_data(self, signal_id: str, bucket_name: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_state_data(self, signal_id: str, bucket_name: str, *, type: type[T]) -> T | None: ...
    def read_state_data(self, signal_id: str, bucket_name: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStateAdapter
            >>> PersistStateAdapter.write_state_data({"id": "s1_levels", "data": 3}, "s1", "levels", 1704067200000)
            >>> PersistStateAdapter.read_state_data("s1", "levels")
            {'id': 's1_levels', 'data': 3}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (signal_id, bucket_name), "read_state_data", (), type=type)
        return self._read((signal_id, bucket_name), NO_TIME, type)

    def write_state_data(self, data: Any, signal_id: str, bucket_name: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            bucket_name: the name of the bucket
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistStateAdapter
            >>> PersistStateAdapter.write_state_data({"id": "s1_levels", "data": 3}, "s1", "levels", 1704067200000)
            >>> PersistStateAdapter.read_state_data("s1", "levels")
            {'id': 's1_levels', 'data': 3}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (signal_id, bucket_name), "write_state_data", (data, when))
        self._write(data, (signal_id, bucket_name), when)

    def use_persist_state_adapter(self, cls: type[Any]) -> None:
        """Serve the state contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistStateInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistStateInstance
            >>> from backtest_kit_mongo import PersistStateAdapter
            >>> class Mine(PersistStateInstance): ...  # override what you want to see or change
            >>> PersistStateAdapter.use_persist_state_adapter(Mine)
        """
        self._use_class(cls)
