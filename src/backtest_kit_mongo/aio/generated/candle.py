# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The candle contract, awaitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ...contracts.adapter_base import Row
from ...contracts.adapters import PersistCandleInstance as _Instance
from ...contracts.generated import candle as _sync
from ..base import AsyncAdapter, AsyncInstance

__all__ = ["PersistCandleInstance", "PersistCandleUtils"]

T = TypeVar("T")


class PersistCandleInstance(AsyncInstance):
    """The candle contract for one context (symbol, interval, exchange_name), awaitable."""

    __slots__ = ()

    sync: _sync.PersistCandleInstance
    _sync_class = _Instance

    symbol: str
    interval: str
    exchange_name: str

    def __init__(self, symbol: str, interval: str, exchange_name: str) -> None:
        self.sync = self._sync_class(symbol, interval, exchange_name)

    @overload
    async def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: None = None) -> list[Row] | None: ...
    @overload
    async def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: type[T]) -> list[T] | None: ...
    async def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: Any = None) -> Any:
        """Read candles, each a dict; return None if one is missing.

        Args:
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms, on the grid of the interval
            until_timestamp: not used: the end follows from since_timestamp and limit
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleInstance("BTCUSDT", "1m", "binance").read_candles_data(60, 1704067200000, 1704070800000)
        """
        return await self._candles("read_candles_data", limit, since_timestamp, until_timestamp, type=type)

    async def read_candles_array(self, limit: int, since_timestamp: int) -> npt.NDArray[np.void] | None:
        """Read candles as a read-only structured array of CANDLE_DTYPE; return None if one is missing.

        The fields are timestamp (int64, ms), open, high, low, close, volume (float64). The array may be a view of cached candles.
        See to_pandas, to_polars and to_arrow.

        Args:
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms, on the grid of the interval

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleInstance("BTCUSDT", "1m", "binance").read_candles_array(60, 1704067200000)
        """
        return await self._candles("read_candles_array", limit, since_timestamp)

    async def write_candles_data(self, candles: Iterable[Any] | npt.NDArray[np.void]) -> None:
        """Store those candles that have closed and are not stored yet. Stored candles never change.

        Args:
            candles: the candles: dicts, dataclasses, Structs, or an array of CANDLE_DTYPE; ms, prices, volume of the base asset

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleInstance("BTCUSDT", "1m", "binance").write_candles_data(candles)
        """
        return await self._data(self.sync.write_candles_data, candles)


class PersistCandleUtils(AsyncAdapter):
    """The candle contract, with its context in every call, awaitable."""

    __slots__ = ()

    sync: _sync.PersistCandleUtils

    def __init__(self, sync: _sync.PersistCandleUtils) -> None:
        self.sync = sync

    @overload
    async def read_candles_data(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int, until_timestamp: int, *, type: None = None
    ) -> list[Row] | None: ...
    @overload
    async def read_candles_data(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int, until_timestamp: int, *, type: type[T]
    ) -> list[T] | None: ...
    async def read_candles_data(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int, until_timestamp: int, *, type: Any = None
    ) -> Any:
        """Read candles, each a dict; return None if one is missing.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms, on the grid of the interval
            until_timestamp: not used: the end follows from since_timestamp and limit
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 60, 1704067200000, 1704070800000)
        """
        return await self._candles("read_candles_data", symbol, interval, exchange_name, limit, since_timestamp, until_timestamp, type=type)

    async def read_candles_array(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int
    ) -> npt.NDArray[np.void] | None:
        """Read candles as a read-only structured array of CANDLE_DTYPE; return None if one is missing.

        The fields are timestamp (int64, ms), open, high, low, close, volume (float64). The array may be a view of cached candles.
        See to_pandas, to_polars and to_arrow.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms, on the grid of the interval

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 60, 1704067200000)
        """
        return await self._candles("read_candles_array", symbol, interval, exchange_name, limit, since_timestamp)

    async def write_candles_data(
        self, candles: Iterable[Any] | npt.NDArray[np.void], symbol: str, interval: str, exchange_name: str
    ) -> None:
        """Store those candles that have closed and are not stored yet. Stored candles never change.

        Args:
            candles: the candles: dicts, dataclasses, Structs, or an array of CANDLE_DTYPE; ms, prices, volume of the base asset
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            await PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance")
        """
        return await self._data(self.sync.write_candles_data, candles, symbol, interval, exchange_name)

    async def use_persist_candle_adapter(self, cls: type[Any]) -> None:
        """Serve the candle contract through ``cls``, a synchronous class; see the synchronous method."""
        await self._wait(self.sync.use_persist_candle_adapter, cls)
