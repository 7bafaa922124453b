# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The breakeven contract, awaitable."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from ...contracts.adapter_base import Row, When
from ...contracts.adapters import PersistBreakevenInstance as _Instance
from ...contracts.generated import breakeven as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistBreakevenInstance", "PersistBreakevenUtils"]

T = TypeVar("T")


class PersistBreakevenInstance(AsyncInstance):
    """The breakeven contract, with its context given once, awaitable.

    Whether a signal has reached the price at which its stop may move to the entry, by signal id. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        strategy_name: the name of the strategy
        exchange_name: the name of the exchange
    """

    __slots__ = ()

    sync: _sync.PersistBreakevenInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    symbol: str
    strategy_name: str
    exchange_name: str

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        self.sync = self._sync_class(symbol, strategy_name, exchange_name)

    @overload
    async def read_breakeven_data(self, signal_id: str, when: When, *, type: None = None) -> Row: ...
    @overload
    async def read_breakeven_data(self, signal_id: str, when: When, *, type: type[T]) -> T: ...
    async def read_breakeven_data(self, signal_id: str, when: When, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo.aio import PersistBreakevenInstance
            >>> breakeven = PersistBreakevenInstance("BTCUSDT", "sma", "binance")
            >>> await breakeven.write_breakeven_data({"s1": {"reached": True}}, "s1", 1704067200000)
            >>> await breakeven.read_breakeven_data("s1", 1704067200000)
            {'s1': {'reached': True}}
        """
        return await self._data(self.sync.read_breakeven_data, signal_id, when, type=type)

    async def write_breakeven_data(self, data: Any, signal_id: str, when: When) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistBreakevenInstance
            >>> breakeven = PersistBreakevenInstance("BTCUSDT", "sma", "binance")
            >>> await breakeven.write_breakeven_data({"s1": {"reached": True}}, "s1", 1704067200000)
            >>> await breakeven.read_breakeven_data("s1", 1704067200000)
            {'s1': {'reached': True}}
        """
        return await self._data(self.sync.write_breakeven_data, data, signal_id, when)


class PersistBreakevenUtils(AsyncKeyedAdapter):
    """The breakeven contract, with its context in every call, awaitable.

    Whether a signal has reached the price at which its stop may move to the entry, by signal id. Every method can also raise
    NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files,
    StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistBreakevenUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistBreakevenUtils) -> None:
        self.sync = sync

    @overload
    async def read_breakeven_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: None = None
    ) -> Row: ...
    @overload
    async def read_breakeven_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: type[T]
    ) -> T: ...
    async def read_breakeven_data(
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
            >>> from backtest_kit_mongo.aio import PersistBreakevenAdapter
            >>> await PersistBreakevenAdapter.write_breakeven_data({"s1": {"reached": True}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> await PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'reached': True}}
        """
        return await self._data(self.sync.read_breakeven_data, symbol, strategy_name, signal_id, exchange_name, when, type=type)

    async def write_breakeven_data(
        self, data: Any, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When
    ) -> None:
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
            >>> from backtest_kit_mongo.aio import PersistBreakevenAdapter
            >>> await PersistBreakevenAdapter.write_breakeven_data({"s1": {"reached": True}}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
            >>> await PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
            {'s1': {'reached': True}}
        """
        return await self._data(self.sync.write_breakeven_data, data, symbol, strategy_name, signal_id, exchange_name, when)

    async def use_persist_breakeven_adapter(self, cls: type[Any]) -> None:
        """Serve the breakeven contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistBreakevenInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistBreakevenInstance
            >>> from backtest_kit_mongo.aio import PersistBreakevenAdapter
            >>> class Mine(PersistBreakevenInstance): ...  # override what you want to see or change
            >>> await PersistBreakevenAdapter.use_persist_breakeven_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_breakeven_adapter, cls)
