# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The session contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistSessionInstance as _Instance
from ...contracts.generated import session as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistSessionInstance", "PersistSessionUtils"]

T = TypeVar("T")


class PersistSessionInstance(AsyncInstance):
    """The session contract, with its context given once, awaitable.

    A value that a strategy keeps for a run on a symbol. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
        frame_name: the name of the frame; "" in live mode
        symbol: the traded pair, such as "BTCUSDT"
        backtest: True for the records of backtests, False for live and paper runs
    """

    __slots__ = ()

    sync: _sync.PersistSessionInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    strategy_name: str
    exchange_name: str
    frame_name: str
    symbol: str
    backtest: bool

    def __init__(self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool) -> None:
        self.sync = self._sync_class(strategy_name, exchange_name, frame_name, symbol, backtest)

    @overload
    async def read_session_data(self, *, type: None = None) -> Row | None: ...
    @overload
    async def read_session_data(self, *, type: type[T]) -> T | None: ...
    async def read_session_data(self, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistSessionInstance
            >>> session = PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True)
            >>> await session.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, 1704067200000)
            >>> await session.read_session_data()
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        return await self._data(self.sync.read_session_data, type=type)

    async def write_session_data(self, data: Any, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistSessionInstance
            >>> session = PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True)
            >>> await session.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, 1704067200000)
            >>> await session.read_session_data()
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        return await self._data(self.sync.write_session_data, data, when)


class PersistSessionUtils(AsyncKeyedAdapter):
    """The session contract, with its context in every call, awaitable.

    A value that a strategy keeps for a run on a symbol. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistSessionUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistSessionUtils) -> None:
        self.sync = sync

    @overload
    async def read_session_data(
        self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool, *, type: None = None
    ) -> Row | None: ...
    @overload
    async def read_session_data(
        self, strategy_name: str, exchange_name: str, frame_name: str, symbol: str, backtest: bool, *, type: type[T]
    ) -> T | None: ...
    async def read_session_data(
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
            >>> from backtest_kit_mongo.aio import PersistSessionAdapter
            >>> await PersistSessionAdapter.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, "sma", "binance", "march", 1704067200000, "BTCUSDT", True)
            >>> await PersistSessionAdapter.read_session_data("sma", "binance", "march", "BTCUSDT", True)
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        return await self._data(self.sync.read_session_data, strategy_name, exchange_name, frame_name, symbol, backtest, type=type)

    async def write_session_data(
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
            >>> from backtest_kit_mongo.aio import PersistSessionAdapter
            >>> await PersistSessionAdapter.write_session_data({"id": "BTCUSDT:sma:binance:march:backtest", "data": 3}, "sma", "binance", "march", 1704067200000, "BTCUSDT", True)
            >>> await PersistSessionAdapter.read_session_data("sma", "binance", "march", "BTCUSDT", True)
            {'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}
        """
        return await self._data(self.sync.write_session_data, data, strategy_name, exchange_name, frame_name, when, symbol, backtest)

    async def use_persist_session_adapter(self, cls: type[Any]) -> None:
        """Serve the session contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistSessionInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistSessionInstance
            >>> from backtest_kit_mongo.aio import PersistSessionAdapter
            >>> class Mine(PersistSessionInstance): ...  # override what you want to see or change
            >>> await PersistSessionAdapter.use_persist_session_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_session_adapter, cls)
