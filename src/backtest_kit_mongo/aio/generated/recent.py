# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The recent contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistRecentInstance as _Instance
from ...contracts.generated import recent as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistRecentInstance", "PersistRecentUtils"]

T = TypeVar("T")


class PersistRecentInstance(AsyncInstance):
    """The recent contract, with its context given once, awaitable.

    The last signal of a strategy on a symbol. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError
    (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
        frame_name: the name of the frame; "" in live mode
        backtest: True for the records of backtests, False for live and paper runs
    """

    __slots__ = ()

    sync: _sync.PersistRecentInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    backtest: bool

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool) -> None:
        self.sync = self._sync_class(symbol, strategy_name, exchange_name, frame_name, backtest)

    @overload
    async def read_recent_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_recent_data(self, *, type: type[T]) -> T | None: ...
    async def read_recent_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistRecentInstance
            >>> recent = PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True)
            >>> await recent.write_recent_data({"id": "s1", "priceOpen": 42000.0}, 1704067200000)
            >>> await recent.read_recent_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.read_recent_data, type=type)

    async def write_recent_data(self, row: Any | None, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistRecentInstance
            >>> recent = PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True)
            >>> await recent.write_recent_data({"id": "s1", "priceOpen": 42000.0}, 1704067200000)
            >>> await recent.read_recent_data()
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.write_recent_data, row, when)


class PersistRecentUtils(AsyncKeyedAdapter):
    """The recent contract, with its context in every call, awaitable.

    The last signal of a strategy on a symbol. Every method can also raise NotConfiguredError (before ``setup``), DatabaseError
    (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistRecentUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistRecentUtils) -> None:
        self.sync = sync

    @overload
    async def read_recent_data(
        self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, *, type: None = None
    ) -> Row | None: ...
    @overload
    async def read_recent_data(
        self, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, *, type: type[T]
    ) -> T | None: ...
    async def read_recent_data(
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
            >>> from backtest_kit_mongo.aio import PersistRecentAdapter
            >>> await PersistRecentAdapter.write_recent_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance", "march", True, 1704067200000)
            >>> await PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "march", True)
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.read_recent_data, symbol, strategy_name, exchange_name, frame_name, backtest, type=type)

    async def write_recent_data(
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
            >>> from backtest_kit_mongo.aio import PersistRecentAdapter
            >>> await PersistRecentAdapter.write_recent_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance", "march", True, 1704067200000)
            >>> await PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "march", True)
            {'id': 's1', 'priceOpen': 42000.0}
        """
        return await self._data(self.sync.write_recent_data, row, symbol, strategy_name, exchange_name, frame_name, backtest, when)

    async def use_persist_recent_adapter(self, cls: type[Any]) -> None:
        """Serve the recent contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistRecentInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistRecentInstance
            >>> from backtest_kit_mongo.aio import PersistRecentAdapter
            >>> class Mine(PersistRecentInstance): ...  # override what you want to see or change
            >>> await PersistRecentAdapter.use_persist_recent_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_recent_adapter, cls)
