# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The signal contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row
from ..contract import NO_TIME

__all__ = ["PersistSignalInstance", "PersistSignalUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["signal"]


class PersistSignalInstance(InstanceBase):
    """The signal contract, with its context given once.

    The open position of a strategy on a symbol; None if there is none. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

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
    def read_signal_data(self, *, type: None = None) -> Row | None: ...
    @overload
    def read_signal_data(self, *, type: type[T]) -> T | None: ...
    def read_signal_data(self, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalInstance
            >>> signal = PersistSignalInstance("BTCUSDT", "sma", "binance")
            >>> signal.write_signal_data({"id": "s1", "priceOpen": 42000.0})
            >>> signal.read_signal_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return self._read((self.symbol, self.strategy_name, self.exchange_name), NO_TIME, type)

    def write_signal_data(self, row: Any | None) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalInstance
            >>> signal = PersistSignalInstance("BTCUSDT", "sma", "binance")
            >>> signal.write_signal_data({"id": "s1", "priceOpen": 42000.0})
            >>> signal.read_signal_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        self._write(row, (self.symbol, self.strategy_name, self.exchange_name), NO_TIME)


class PersistSignalUtils(KeyedAdapterBase):
    """The signal contract, with its context in every call.

    The open position of a strategy on a symbol; None if there is none. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3)

    @overload
    def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: type[T]) -> T | None: ...
    def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the body as a dict, or as a ``type`` if given; None if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalAdapter
            >>> PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
            >>> PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            {'id': 's1', 'priceOpen': 42000.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (symbol, strategy_name, exchange_name), "read_signal_data", (), type=type)
        return self._read((symbol, strategy_name, exchange_name), NO_TIME, type)

    def write_signal_data(self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSignalAdapter
            >>> PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
            >>> PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            {'id': 's1', 'priceOpen': 42000.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (symbol, strategy_name, exchange_name), "write_signal_data", (row,))
        self._write(row, (symbol, strategy_name, exchange_name), NO_TIME)

    def use_persist_signal_adapter(self, cls: type[Any]) -> None:
        """Serve the signal contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistSignalInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistSignalInstance
            >>> from backtest_kit_mongo import PersistSignalAdapter
            >>> class Mine(PersistSignalInstance): ...  # override what you want to see or change
            >>> PersistSignalAdapter.use_persist_signal_adapter(Mine)
        """
        self._use_class(cls)
