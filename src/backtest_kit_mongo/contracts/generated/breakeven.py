# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The breakeven contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When

__all__ = ["PersistBreakevenInstance", "PersistBreakevenUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["breakeven"]


class PersistBreakevenInstance(InstanceBase):
    """The breakeven contract, with its context given once.

    Whether a signal has reached the price at which its stop may move to the entry, by signal id. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
    """

    _domain = _DOMAIN

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        super().__init__()
        self.symbol: str = symbol
        self.strategy_name: str = strategy_name
        self.exchange_name: str = exchange_name

    @overload
    def read_breakeven_data(self, signal_id: str, when: When, *, type: None = None) -> Row: ...
    @overload
    def read_breakeven_data(self, signal_id: str, when: When, *, type: type[T]) -> T: ...
    def read_breakeven_data(self, signal_id: str, when: When, *, type: Any = None) -> Any:
        """Read a record; return {} if nothing is stored.

        With look_ahead="hide" or "raise", a record that was written later than when is hidden or raises LookAheadError.

        Args:
            signal_id: the id of the signal
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; an empty dict if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenInstance
            >>> breakeven = PersistBreakevenInstance("BTCUSDT", "sma", "binance")
            >>> breakeven.write_breakeven_data({"s1": {"reached": True}}, "s1", 1704067200000)
            >>> breakeven.read_breakeven_data("s1", 1704067200000)
            {'s1': {'reached': True}}
        """
        return self._read((self.symbol, self.strategy_name, self.exchange_name, signal_id), when, type)

    def write_breakeven_data(self, data: Any, signal_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenInstance
            >>> breakeven = PersistBreakevenInstance("BTCUSDT", "sma", "binance")
            >>> breakeven.write_breakeven_data({"s1": {"reached": True}}, "s1", 1704067200000)
            >>> breakeven.read_breakeven_data("s1", 1704067200000)
            {'s1': {'reached': True}}
        """
        self._write(data, (self.symbol, self.strategy_name, self.exchange_name, signal_id), when)


class PersistBreakevenUtils(KeyedAdapterBase):
    """The breakeven contract, with its context in every call.

    Whether a signal has reached the price at which its stop may move to the entry, by signal id. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 3, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 4, 3)

    @overload
    def read_breakeven_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: None = None
    ) -> Row: ...
    @overload
    def read_breakeven_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: type[T]
    ) -> T: ...
    def read_breakeven_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: Any = None
    ) -> Any:
        """Read a record; return {} if nothing is stored.

        With look_ahead="hide" or "raise", a record that was written later than when is hidden or raises LookAheadError.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            signal_id: the id of the signal
            exchange_name: the name of the exchange
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; an empty dict if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenAdapter
            >>> PersistBreakevenAdapter.write_breakeven_data({"s1": {"reached": True}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'reached': True}}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding, "read", (symbol, strategy_name, exchange_name), "read_breakeven_data", (signal_id, when), type=type
            )
        return self._read((symbol, strategy_name, exchange_name, signal_id), when, type)

    def write_breakeven_data(self, data: Any, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            signal_id: the id of the signal
            exchange_name: the name of the exchange
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenAdapter
            >>> PersistBreakevenAdapter.write_breakeven_data({"s1": {"reached": True}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'reached': True}}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (symbol, strategy_name, exchange_name), "write_breakeven_data", (data, signal_id, when))
        self._write(data, (symbol, strategy_name, exchange_name, signal_id), when)

    def use_persist_breakeven_adapter(self, cls: type[Any]) -> None:
        """Serve the breakeven contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistBreakevenInstance``, created with the same arguments; usually a subclass of
                it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenInstance
            >>> from backtest_kit_mongo import PersistBreakevenAdapter
            >>> class Mine(PersistBreakevenInstance): ...  # override what you want to see or change
            >>> PersistBreakevenAdapter.use_persist_breakeven_adapter(Mine)
        """
        self._use_class(cls)
