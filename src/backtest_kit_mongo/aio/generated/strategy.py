# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The strategy contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistStrategyInstance as _Instance
from ...contracts.generated import strategy as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistStrategyInstance", "PersistStrategyUtils"]

T = TypeVar("T")


class PersistStrategyInstance(AsyncInstance):
    """The strategy contract, with its context given once, awaitable.

    The deferred work of a strategy: queued closes, partial closes, moves of stop and target. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
    """

    __slots__ = ()

    sync: _sync.PersistStrategyInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    symbol: str
    strategy_name: str
    exchange_name: str

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        self.sync = self._sync_class(symbol, strategy_name, exchange_name)

    @overload
    async def read_strategy_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_strategy_data(self, *, type: type[T]) -> T | None: ...
    async def read_strategy_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistStrategyInstance
            >>> strategy = PersistStrategyInstance("BTCUSDT", "sma", "binance")
            >>> await strategy.write_strategy_data({"pendingSignalId": "s1", "commitQueue": []})
            >>> await strategy.read_strategy_data()
            {'pendingSignalId': 's1', 'commitQueue': []}
        """
        return await self._data(self.sync.read_strategy_data, type=type)

    async def write_strategy_data(self, row: Any | None) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct; None removes it

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistStrategyInstance
            >>> strategy = PersistStrategyInstance("BTCUSDT", "sma", "binance")
            >>> await strategy.write_strategy_data({"pendingSignalId": "s1", "commitQueue": []})
            >>> await strategy.read_strategy_data()
            {'pendingSignalId': 's1', 'commitQueue': []}
        """
        return await self._data(self.sync.write_strategy_data, row)


class PersistStrategyUtils(AsyncKeyedAdapter):
    """The strategy contract, with its context in every call, awaitable.

    The deferred work of a strategy: queued closes, partial closes, moves of stop and target. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistStrategyUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistStrategyUtils) -> None:
        self.sync = sync

    @overload
    async def read_strategy_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: None = None) -> Row | None: ...
    @overload
    async def read_strategy_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: type[T]) -> T | None: ...
    async def read_strategy_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistStrategyAdapter
            >>> await PersistStrategyAdapter.write_strategy_data({"pendingSignalId": "s1", "commitQueue": []}, "BTCUSDT", "sma", "binance")
            >>> await PersistStrategyAdapter.read_strategy_data("BTCUSDT", "sma", "binance")
            {'pendingSignalId': 's1', 'commitQueue': []}
        """
        return await self._data(self.sync.read_strategy_data, symbol, strategy_name, exchange_name, type=type)

    async def write_strategy_data(self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistStrategyAdapter
            >>> await PersistStrategyAdapter.write_strategy_data({"pendingSignalId": "s1", "commitQueue": []}, "BTCUSDT", "sma", "binance")
            >>> await PersistStrategyAdapter.read_strategy_data("BTCUSDT", "sma", "binance")
            {'pendingSignalId': 's1', 'commitQueue': []}
        """
        return await self._data(self.sync.write_strategy_data, row, symbol, strategy_name, exchange_name)

    async def use_persist_strategy_adapter(self, cls: type[Any]) -> None:
        """Serve the strategy contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistStrategyInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistStrategyInstance
            >>> from backtest_kit_mongo.aio import PersistStrategyAdapter
            >>> class Mine(PersistStrategyInstance): ...  # override what you want to see or change
            >>> await PersistStrategyAdapter.use_persist_strategy_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_strategy_adapter, cls)
