# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The candle contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ...domains import DOMAINS
from ..adapter_base import AdapterBase, InstanceBase, Row

__all__ = ["PersistCandleInstance", "PersistCandleUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["candle"]


class PersistCandleInstance(InstanceBase):
    """The candle contract for one context (symbol, interval, exchange_name)."""

    _domain = _DOMAIN

    def __init__(self, symbol: str, interval: str, exchange_name: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.interval = interval
        self.exchange_name = exchange_name

    @overload
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: None = None) -> list[Row] | None: ...
    @overload
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: type[T]) -> list[T] | None: ...
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: Any = None) -> Any:
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
            PersistCandleInstance("BTCUSDT", "1m", "binance").read_candles_data(60, 1704067200000, 1704070800000)
        """
        return self._candles((self.exchange_name, self.symbol, self.interval), limit, since_timestamp, until_timestamp, type)

    def read_candles_array(self, limit: int, since_timestamp: int) -> npt.NDArray[np.void] | None:
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
            PersistCandleInstance("BTCUSDT", "1m", "binance").read_candles_array(60, 1704067200000)
        """
        return self._array((self.exchange_name, self.symbol, self.interval), limit, since_timestamp)

    def write_candles_data(self, candles: Iterable[Any] | npt.NDArray[np.void]) -> None:
        """Store those candles that have closed and are not stored yet. Stored candles never change.

        Args:
            candles: the candles: dicts, dataclasses, Structs, or an array of CANDLE_DTYPE; ms, prices, volume of the base asset

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistCandleInstance("BTCUSDT", "1m", "binance").write_candles_data(candles)
        """
        self._put_candles(candles, (self.exchange_name, self.symbol, self.interval))


class PersistCandleUtils(AdapterBase):
    """The candle contract, with its context in every call."""

    _domain = _DOMAIN

    @overload
    def read_candles_data(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int, until_timestamp: int, *, type: None = None
    ) -> list[Row] | None: ...
    @overload
    def read_candles_data(
        self, symbol: str, interval: str, exchange_name: str, limit: int, since_timestamp: int, until_timestamp: int, *, type: type[T]
    ) -> list[T] | None: ...
    def read_candles_data(
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
            PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 60, 1704067200000, 1704070800000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(
                binding,
                "candles",
                (symbol, interval, exchange_name),
                "read_candles_data",
                (limit, since_timestamp, until_timestamp),
                type=type,
            )
        return self._candles((exchange_name, symbol, interval), limit, since_timestamp, until_timestamp, type)

    def read_candles_array(
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
            PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 60, 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "array", (symbol, interval, exchange_name), "read_candles_array", (limit, since_timestamp))
        return self._array((exchange_name, symbol, interval), limit, since_timestamp)

    def write_candles_data(self, candles: Iterable[Any] | npt.NDArray[np.void], symbol: str, interval: str, exchange_name: str) -> None:
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
            PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_candles", (symbol, interval, exchange_name), "write_candles_data", (candles,))
        self._put_candles(candles, (exchange_name, symbol, interval))

    def use_persist_candle_adapter(self, cls: type[Any]) -> None:
        """Serve the candle contract through ``cls``: one instance per context, created with the arguments of
        ``PersistCandleInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
