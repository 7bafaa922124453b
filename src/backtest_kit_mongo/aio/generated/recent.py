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
    """The recent contract for one context (symbol, strategy_name, exchange_name, frame_name, backtest), awaitable."""

    __slots__ = ()

    sync: _sync.PersistRecentInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True).read_recent_data()
        """
        return await self._data(self.sync.read_recent_data, type=type)

    async def write_recent_data(self, row: Any | None, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistRecentInstance("BTCUSDT", "sma", "binance", "march", True).write_recent_data({"id": "s1", "priceOpen": 42000.0}, 1704067200000)
        """
        return await self._data(self.sync.write_recent_data, row, when)


class PersistRecentUtils(AsyncKeyedAdapter):
    """The recent contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistRecentUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistRecentAdapter.read_recent_data("BTCUSDT", "sma", "binance", "march", True)
        """
        return await self._data(self.sync.read_recent_data, symbol, strategy_name, exchange_name, frame_name, backtest, type=type)

    async def write_recent_data(
        self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str, frame_name: str, backtest: bool, when: When
    ) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange
            frame_name: the name of the frame; "" in live mode
            backtest: True for the records of backtests, False for live and paper runs
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistRecentAdapter.write_recent_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance", "march", True, 1704067200000)
        """
        return await self._data(self.sync.write_recent_data, row, symbol, strategy_name, exchange_name, frame_name, backtest, when)

    async def use_persist_recent_adapter(self, cls: type[Any]) -> None:
        """Serve the recent contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_recent_adapter, cls)
