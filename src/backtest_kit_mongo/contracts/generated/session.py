# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The session contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When
from ..contract import NO_TIME

__all__ = ["PersistSessionInstance", "PersistSessionUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["session"]


class PersistSessionInstance(InstanceBase):
    """The session contract, with its context given once.

    A value that a strategy keeps for a run on a symbol. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
        frame_name: the name of the frame; "" in live mode
        symbol: the traded pair, such as "BTCUSDT"
        backtest: True for the records of backtests, False for live and paper runs
    """

    _domain = _DOMAIN

    def __init__(self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool) -> None:
        super().__init__()
        self.strategy_name: str = strategy_name
        self.exchange_name: str = exchange_name
        self.frame_name: str = frame_name
        self.symbol: str = symbol
        self.backtest: bool = backtest

    @overload
    def read_session_data(self, *, type: None = None) -> Row | None: ...
    @overload
    def read_session_data(self, *, type: type[T]) -> T | None: ...
    def read_session_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistSessionInstance
            >>> session = PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True)
            >>> session.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, 1704067200000)
            >>> session.read_session_data()
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        return self._read((self.strategy_name, self.exchange_name, self.frame_name, self.symbol, self.backtest), NO_TIME, type)

    def write_session_data(self, data: Any, when: When) -> None:
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
            >>> from backtest_kit_mongo import PersistSessionInstance
            >>> session = PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True)
            >>> session.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, 1704067200000)
            >>> session.read_session_data()
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        self._write(data, (self.strategy_name, self.exchange_name, self.frame_name, self.symbol, self.backtest), when)


class PersistSessionUtils(KeyedAdapterBase):
    """The session contract, with its context in every call.

    A value that a strategy keeps for a run on a symbol. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2, 3, 4)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3, 5, 6)

    @overload
    def read_session_data(
        self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool, *, type: None = None
    ) -> Row | None: ...
    @overload
    def read_session_data(
        self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool, *, type: type[T]
    ) -> T | None: ...
    def read_session_data(
        self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool, *, type: Any = None
    ) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            frame_name: the name of the frame; "" in live mode
            symbol: the traded pair, such as "BTCUSDT"
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
            >>> from backtest_kit_mongo import PersistSessionAdapter
            >>> PersistSessionAdapter.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, "sma", "binance", "march", 1704067200000, "BTCUSDT", True)
            >>> PersistSessionAdapter.read_session_data("sma", "binance", "march", "BTCUSDT", True)
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding, "read", (strategy_name, exchange_name, frame_name, symbol, backtest), "read_session_data", (), type=type
            )
        return self._read((strategy_name, exchange_name, frame_name, symbol, backtest), NO_TIME, type)

    def write_session_data(
        self, data: Any, strategy_name: str, exchange_name: str, frame_name: str, when: When, symbol: str, backtest: bool
    ) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            frame_name: the name of the frame; "" in live mode
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)
            symbol: the traded pair, such as "BTCUSDT"
            backtest: True for the records of backtests, False for live and paper runs

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistSessionAdapter
            >>> PersistSessionAdapter.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, "sma", "binance", "march", 1704067200000, "BTCUSDT", True)
            >>> PersistSessionAdapter.read_session_data("sma", "binance", "march", "BTCUSDT", True)
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding, "write", (strategy_name, exchange_name, frame_name, symbol, backtest), "write_session_data", (data, when)
            )
        self._write(data, (strategy_name, exchange_name, frame_name, symbol, backtest), when)

    def use_persist_session_adapter(self, cls: type[Any]) -> None:
        """Serve the session contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistSessionInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistSessionInstance
            >>> from backtest_kit_mongo import PersistSessionAdapter
            >>> class Mine(PersistSessionInstance): ...  # override what you want to see or change
            >>> PersistSessionAdapter.use_persist_session_adapter(Mine)
        """
        self._use_class(cls)
