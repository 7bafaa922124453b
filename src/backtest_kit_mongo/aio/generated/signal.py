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
    """The signal contract for one context (symbol, strategy_name, exchange_name), awaitable."""

    __slots__ = ()

    sync: _sync.PersistSignalInstance
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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSignalInstance("BTCUSDT", "sma", "binance").read_signal_data()
        """
        return await self._data(self.sync.read_signal_data, type=type)

    async def write_signal_data(self, row: Any | None) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSignalInstance("BTCUSDT", "sma", "binance").write_signal_data({"id": "s1", "priceOpen": 42000.0})
        """
        return await self._data(self.sync.write_signal_data, row)


class PersistSignalUtils(AsyncKeyedAdapter):
    """The signal contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistSignalUtils

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
        """
        return await self._data(self.sync.read_signal_data, symbol, strategy_name, exchange_name, type=type)

    async def write_signal_data(self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct
            symbol: the traded pair, such as "BTCUSDT"
            strategy_name: the name of the strategy
            exchange_name: the name of the exchange

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
        """
        return await self._data(self.sync.write_signal_data, row, symbol, strategy_name, exchange_name)

    async def use_persist_signal_adapter(self, cls: type[Any]) -> None:
        """Serve the signal contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_signal_adapter, cls)
