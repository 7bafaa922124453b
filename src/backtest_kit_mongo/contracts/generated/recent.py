# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The recent contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistRecentInstance", "PersistRecentUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["recent"]


class PersistRecentInstance(InstanceBase):
    """The recent contract, with its context given once.

    The last signal of a strategy on a symbol. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError
    (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
        frame_name: the name of the frame; "" in live mode
        backtest: True for the records of backtests, False for live and paper runs
    """

    _domain = _DOMAIN

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool) -> None:
        super().__init__()
        self.symbol: str = symbol
        self.strategy_name: str = strategy_name
        self.exchange_name: str = exchange_name
        self.frame_name: str = frame_name
        self.backtest: bool = backtest

    @overload
    def read_recent_data(self, *, type: None = None) -> Row | None: ...
    @overload
    def read_recent_data(self, *, type: type[T]) -> T | None: ...
    def read_recent_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistRecentInstance
            >>> recent = PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True)
            >>> recent.write_recent_data({"id": "s1", "priceOpen": 42000.0}, 1704067200000)
            >>> recent.read_recent_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return self._read((self.symbol, self.strategy_name, self.exchange_name, self.frame_name, self.backtest), NO_TIME, type)

    def write_recent_data(self, row: Any | None, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistRecentInstance
            >>> recent = PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True)
            >>> recent.write_recent_data({"id": "s1", "priceOpen": 42000.0}, 1704067200000)
            >>> recent.read_recent_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        self._write(row, (self.symbol, self.strategy_name, self.exchange_name, self.frame_name, self.backtest), when)


class PersistRecentUtils(KeyedAdapterBase):
    """The recent contract, with its context in every call.

    The last signal of a strategy on a symbol. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError
    (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2, 3, 4)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3, 4, 5)

    @overload
    def read_recent_data(
        self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, *, type: None = None
    ) -> Row | None: ...
    @overload
    def read_recent_data(
        self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, *, type: type[T]
    ) -> T | None: ...
    def read_recent_data(
        self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, *, type: Any = None
    ) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            frame_name: the name of the frame; "" in live mode
            backtest: True for the records of backtests, False for live and paper runs
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
            >>> from backtest_kit_mongo import PersistRecentAdapter
            >>> PersistRecentAdapter.write_recent_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance", "march", True, 1704067200000)
            >>> PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "march", True)
            {'id': 's1', 'priceOpen': 42000.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding, "read", (symbol, strategy_name, exchange_name, frame_name, backtest), "read_recent_data", (), type=type
            )
        return self._read((symbol, strategy_name, exchange_name, frame_name, backtest), NO_TIME, type)

    def write_recent_data(
        self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, when: When
    ) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            frame_name: the name of the frame; "" in live mode
            backtest: True for the records of backtests, False for live and paper runs
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistRecentAdapter
            >>> PersistRecentAdapter.write_recent_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance", "march", True, 1704067200000)
            >>> PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "march", True)
            {'id': 's1', 'priceOpen': 42000.0}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding, "write", (symbol, strategy_name, exchange_name, frame_name, backtest), "write_recent_data", (row, when)
            )
        self._write(row, (symbol, strategy_name, exchange_name, frame_name, backtest), when)

    def use_persist_recent_adapter(self, cls: type[Any]) -> None:
        """Serve the recent contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistRecentInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistRecentInstance
            >>> from backtest_kit_mongo import PersistRecentAdapter
            >>> class Mine(PersistRecentInstance): ...  # override what you want to see or change
            >>> PersistRecentAdapter.use_persist_recent_adapter(Mine)
        """
        self._use_class(cls)
