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
    """The session contract for one context (strategy_name, exchange_name, frame_name, symbol, backtest), awaitable."""

    __slots__ = ()

    sync: _sync.PersistSessionInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True).read_session_data()
        """
        return await self._data(self.sync.read_session_data, type=type)

    async def write_session_data(self, data: Any, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSessionInstance("sma", "binance", "march", "BTCUSDT", True).write_session_data({"n": 1}, 1704067200000)
        """
        return await self._data(self.sync.write_session_data, data, when)


class PersistSessionUtils(AsyncKeyedAdapter):
    """The session contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistSessionUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSessionAdapter.read_session_data("sma", "binance", "march", "BTCUSDT", True)
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
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSessionAdapter.write_session_data({"n": 1}, "sma", "binance", "march", 1704067200000, "BTCUSDT", True)
        """
        return await self._data(self.sync.write_session_data, data, strategy_name, exchange_name, frame_name, when, symbol, backtest)

    async def use_persist_session_adapter(self, cls: type[Any]) -> None:
        """Serve the session contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_session_adapter, cls)
