# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The partial contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistPartialInstance as _Instance
from ...contracts.generated import partial as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistPartialInstance", "PersistPartialUtils"]

T = TypeVar("T")


class PersistPartialInstance(AsyncInstance):
    """The partial contract, with its context given once, awaitable.

    The levels of profit and loss that a signal has reached, by signal id. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
    """

    __slots__ = ()

    sync: _sync.PersistPartialInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    symbol: str
    strategy_name: str
    exchange_name: str

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        self.sync = self._sync_class(symbol, strategy_name, exchange_name)

    @overload
    async def read_partial_data(self, signal_id: str, when: When, *, type: None = None) -> Row: ...
    @overload
    async def read_partial_data(self, signal_id: str, when: When, *, type: type[T]) -> T: ...
    async def read_partial_data(self, signal_id: str, when: When, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistPartialInstance
            >>> partial = PersistPartialInstance("BTCUSDT", "sma", "binance")
            >>> await partial.write_partial_data({"s1": {"profitLevels": [10, 20], "lossLevels": []}}, "s1", 1704067200000)
            >>> await partial.read_partial_data("s1", 1704067200000)
            {'s1': {'profitLevels': [10, 20], 'lossLevels': []}}
        """
        return await self._data(self.sync.read_partial_data, signal_id, when, type=type)

    async def write_partial_data(self, data: Any, signal_id: str, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistPartialInstance
            >>> partial = PersistPartialInstance("BTCUSDT", "sma", "binance")
            >>> await partial.write_partial_data({"s1": {"profitLevels": [10, 20], "lossLevels": []}}, "s1", 1704067200000)
            >>> await partial.read_partial_data("s1", 1704067200000)
            {'s1': {'profitLevels': [10, 20], 'lossLevels': []}}
        """
        return await self._data(self.sync.write_partial_data, data, signal_id, when)


class PersistPartialUtils(AsyncKeyedAdapter):
    """The partial contract, with its context in every call, awaitable.

    The levels of profit and loss that a signal has reached, by signal id. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistPartialUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistPartialUtils) -> None:
        self.sync = sync

    @overload
    async def read_partial_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: None = None
    ) -> Row: ...
    @overload
    async def read_partial_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: type[T]
    ) -> T: ...
    async def read_partial_data(
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
            >>> from backtest_kit_mongo.aio import PersistPartialAdapter
            >>> await PersistPartialAdapter.write_partial_data({"s1": {"profitLevels": [10, 20], "lossLevels": []}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> await PersistPartialAdapter.read_partial_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'profitLevels': [10, 20], 'lossLevels': []}}
        """
        return await self._data(self.sync.read_partial_data, symbol, strategy_name, signal_id, exchange_name, when, type=type)

    async def write_partial_data(self, data: Any, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistPartialAdapter
            >>> await PersistPartialAdapter.write_partial_data({"s1": {"profitLevels": [10, 20], "lossLevels": []}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> await PersistPartialAdapter.read_partial_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'profitLevels': [10, 20], 'lossLevels': []}}
        """
        return await self._data(self.sync.write_partial_data, data, symbol, strategy_name, signal_id, exchange_name, when)

    async def use_persist_partial_adapter(self, cls: type[Any]) -> None:
        """Serve the partial contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistPartialInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistPartialInstance
            >>> from backtest_kit_mongo.aio import PersistPartialAdapter
            >>> class Mine(PersistPartialInstance): ...  # override what you want to see or change
            >>> await PersistPartialAdapter.use_persist_partial_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_partial_adapter, cls)
