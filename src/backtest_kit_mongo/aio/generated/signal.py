# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The signal contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistSignalInstance as _Instance
from ...contracts.generated import signal as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistSignalInstance", "PersistSignalUtils"]

T = TypeVar("T")


class PersistSignalInstance(AsyncInstance):
    """The signal contract, with its context given once, awaitable.

    The open position of a strategy on a symbol; None if there is none. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
    """

    __slots__ = ()

    sync: _sync.PersistSignalInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    symbol: str
    strategy_name: str
    exchange_name: str

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        self.sync = self._sync_class(symbol, strategy_name, exchange_name)

    @overload
    async def read_signal_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_signal_data(self, *, type: type[T]) -> T | None: ...
    async def read_signal_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistSignalInstance
            >>> signal = PersistSignalInstance("BTCUSDT", "sma", "binance")
            >>> await signal.write_signal_data({"id": "s1", "priceOpen": 42000.0})
            >>> await signal.read_signal_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.read_signal_data, type=type)

    async def write_signal_data(self, row: Any | None) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistSignalInstance
            >>> signal = PersistSignalInstance("BTCUSDT", "sma", "binance")
            >>> await signal.write_signal_data({"id": "s1", "priceOpen": 42000.0})
            >>> await signal.read_signal_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.write_signal_data, row)


class PersistSignalUtils(AsyncKeyedAdapter):
    """The signal contract, with its context in every call, awaitable.

    The open position of a strategy on a symbol; None if there is none. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistSignalUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistSignalUtils) -> None:
        self.sync = sync

    @overload
    async def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: type[T]) -> T | None: ...
    async def read_signal_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistSignalAdapter
            >>> await PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
            >>> await PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.read_signal_data, symbol, strategy_name, exchange_name, type=type)

    async def write_signal_data(self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistSignalAdapter
            >>> await PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
            >>> await PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.write_signal_data, row, symbol, strategy_name, exchange_name)

    async def use_persist_signal_adapter(self, cls: type[Any]) -> None:
        """Serve the signal contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistSignalInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistSignalInstance
            >>> from backtest_kit_mongo.aio import PersistSignalAdapter
            >>> class Mine(PersistSignalInstance): ...  # override what you want to see or change
            >>> await PersistSignalAdapter.use_persist_signal_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_signal_adapter, cls)
