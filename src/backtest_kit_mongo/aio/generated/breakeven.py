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
    """The breakeven contract for one context (symbol, strategy_name, exchange_name), awaitable."""

    __slots__ = ()

    sync: _sync.PersistBreakevenInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistBreakevenInstance("BTCUSDT", "sma", "binance").read_breakeven_data("s1", 1704067200000)
        """
        return await self._data(self.sync.read_breakeven_data, signal_id, when, type=type)

    async def write_breakeven_data(self, data: Any, signal_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistBreakevenInstance("BTCUSDT", "sma", "binance").write_breakeven_data({"n": 1}, "s1", 1704067200000)
        """
        return await self._data(self.sync.write_breakeven_data, data, signal_id, when)


class PersistBreakevenUtils(AsyncKeyedAdapter):
    """The breakeven contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistBreakevenUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
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
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistBreakevenAdapter.write_breakeven_data({"n": 1}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
        """
        return await self._data(self.sync.write_breakeven_data, data, symbol, strategy_name, signal_id, exchange_name, when)

    async def use_persist_breakeven_adapter(self, cls: type[Any]) -> None:
        """Serve the breakeven contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_breakeven_adapter, cls)
