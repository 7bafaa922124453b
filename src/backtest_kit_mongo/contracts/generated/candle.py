# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The candle contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ...candles import CandleInterval
from ...domains import DOMAINS
from ..adapter_base import AdapterBase, InstanceBase, Row

__all__ = ["PersistCandleInstance", "PersistCandleUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["candle"]


class PersistCandleInstance(InstanceBase):
    """The candle contract, with its context given once.

    The closed candles of a symbol, written once and never changed. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        symbol: the traded pair, such as "BTCUSDT"
        interval: the length of a candle, such as "1m" or "4h"
        exchange_name: the name of the exchange
    """

    _domain = _DOMAIN

    def __init__(self, symbol: str, interval: CandleInterval, exchange_name: str) -> None:
        super().__init__()
        self.symbol: str = symbol
        self.interval: CandleInterval = interval
        self.exchange_name: str = exchange_name

    @overload
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: None = None) -> list[Row] | None: ...
    @overload
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: type[T]) -> list[T] | None: ...
    def read_candles_data(self, limit: int, since_timestamp: int, until_timestamp: int, *, type: Any = None) -> Any:
        """Read consecutive candles as dicts; return None if one is missing.

        Args:
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms since 1970 (UTC), on the grid of the interval
            until_timestamp: not used: the end follows from since_timestamp and limit
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            ``limit`` dicts {timestamp, open, high, low, close, volume} in order of time, or None if one of them is not stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a candle closes after the simulation time, with look_ahead="raise"
            DamagedCandlesError: an archived block of candles cannot be read
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleInstance
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> candle = PersistCandleInstance("BTCUSDT", "1m", "binance")
            >>> candle.write_candles_data(synthetic_market(7, 60, 1704067200000))
            >>> rows = candle.read_candles_data(60, 1704067200000, 1704070800000)
            >>> len(rows), rows[0]['timestamp']
            (60, 1704067200000)
        """
        return self._candles((self.exchange_name, self.symbol, self.interval), limit, since_timestamp, until_timestamp, type)

    def read_candles_array(self, limit: int, since_timestamp: int) -> npt.NDArray[np.void] | None:
        """Read consecutive candles as a structured array; return None if one is missing.

        Args:
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms since 1970 (UTC), on the grid of the interval

        Returns:
            a read-only array of shape (limit,) and CANDLE_DTYPE in order of time: timestamp (int64, ms), open, high, low, close,
                volume (float64); None if a candle is not stored. It may be a view of cached candles. See to_pandas, to_polars and
                to_arrow

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a candle closes after the simulation time, with look_ahead="raise"
            DamagedCandlesError: an archived block of candles cannot be read
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleInstance
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> candle = PersistCandleInstance("BTCUSDT", "1m", "binance")
            >>> candle.write_candles_data(synthetic_market(7, 60, 1704067200000))
            >>> array = candle.read_candles_array(60, 1704067200000)
            >>> array.shape, array['timestamp'][0].item()
            ((60,), 1704067200000)
        """
        return self._array((self.exchange_name, self.symbol, self.interval), limit, since_timestamp)

    def write_candles_data(self, candles: Iterable[Any] | npt.NDArray[np.void]) -> None:
        """Store those candles that have closed and are not stored yet. Stored candles never change.

        Args:
            candles: the candles in any order: dicts, dataclasses, Structs, or an array (n,) of CANDLE_DTYPE; open times in ms,
                prices in the quote currency, volume in the base asset

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleInstance
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> candle = PersistCandleInstance("BTCUSDT", "1m", "binance")
            >>> candle.write_candles_data(synthetic_market(7, 60, 1704067200000))
            >>> rows = candle.read_candles_data(60, 1704067200000, 1704070800000)
            >>> len(rows), rows[0]['timestamp']
            (60, 1704067200000)
        """
        self._put_candles(candles, (self.exchange_name, self.symbol, self.interval))


class PersistCandleUtils(AdapterBase):
    """The candle contract, with its context in every call.

    The closed candles of a symbol, written once and never changed. Every method can also raise NotConfiguredError (before
    ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN

    @overload
    def read_candles_data(
        self,
        symbol: str,
        interval: CandleInterval,
        exchange_name: str,
        limit: int,
        since_timestamp: int,
        until_timestamp: int,
        *,
        type: None = None,
    ) -> list[Row] | None: ...
    @overload
    def read_candles_data(
        self,
        symbol: str,
        interval: CandleInterval,
        exchange_name: str,
        limit: int,
        since_timestamp: int,
        until_timestamp: int,
        *,
        type: type[T],
    ) -> list[T] | None: ...
    def read_candles_data(
        self,
        symbol: str,
        interval: CandleInterval,
        exchange_name: str,
        limit: int,
        since_timestamp: int,
        until_timestamp: int,
        *,
        type: Any = None,
    ) -> Any:
        """Read consecutive candles as dicts; return None if one is missing.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms since 1970 (UTC), on the grid of the interval
            until_timestamp: not used: the end follows from since_timestamp and limit
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            ``limit`` dicts {timestamp, open, high, low, close, volume} in order of time, or None if one of them is not stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a candle closes after the simulation time, with look_ahead="raise"
            DamagedCandlesError: an archived block of candles cannot be read
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleAdapter
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> PersistCandleAdapter.write_candles_data(synthetic_market(7, 60, 1704067200000), "BTCUSDT", "1m", "binance")
            >>> rows = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 60, 1704067200000, 1704070800000)
            >>> len(rows), rows[0]['timestamp']
            (60, 1704067200000)
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
        self, symbol: str, interval: CandleInterval, exchange_name: str, limit: int, since_timestamp: int
    ) -> npt.NDArray[np.void] | None:
        """Read consecutive candles as a structured array; return None if one is missing.

        Args:
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange
            limit: the number of candles
            since_timestamp: the open time of the first candle, in ms since 1970 (UTC), on the grid of the interval

        Returns:
            a read-only array of shape (limit,) and CANDLE_DTYPE in order of time: timestamp (int64, ms), open, high, low, close,
                volume (float64); None if a candle is not stored. It may be a view of cached candles. See to_pandas, to_polars and
                to_arrow

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument has a value that is not allowed
            LookAheadError: a candle closes after the simulation time, with look_ahead="raise"
            DamagedCandlesError: an archived block of candles cannot be read
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleAdapter
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> PersistCandleAdapter.write_candles_data(synthetic_market(7, 60, 1704067200000), "BTCUSDT", "1m", "binance")
            >>> array = PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 60, 1704067200000)
            >>> array.shape, array['timestamp'][0].item()
            ((60,), 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "array", (symbol, interval, exchange_name), "read_candles_array", (limit, since_timestamp))
        return self._array((exchange_name, symbol, interval), limit, since_timestamp)

    def write_candles_data(
        self, candles: Iterable[Any] | npt.NDArray[np.void], symbol: str, interval: CandleInterval, exchange_name: str
    ) -> None:
        """Store those candles that have closed and are not stored yet. Stored candles never change.

        Args:
            candles: the candles in any order: dicts, dataclasses, Structs, or an array (n,) of CANDLE_DTYPE; open times in ms,
                prices in the quote currency, volume in the base asset
            symbol: the traded pair, such as "BTCUSDT"
            interval: the length of a candle, such as "1m" or "4h"
            exchange_name: the name of the exchange

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import PersistCandleAdapter
            >>> from backtest_kit_mongo.runner import synthetic_market
            >>> PersistCandleAdapter.write_candles_data(synthetic_market(7, 60, 1704067200000), "BTCUSDT", "1m", "binance")
            >>> rows = PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 60, 1704067200000, 1704070800000)
            >>> len(rows), rows[0]['timestamp']
            (60, 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "put_candles", (symbol, interval, exchange_name), "write_candles_data", (candles,))
        self._put_candles(candles, (exchange_name, symbol, interval))

    def use_persist_candle_adapter(self, cls: type[Any]) -> None:
        """Serve the candle contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistCandleInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistCandleInstance
            >>> from backtest_kit_mongo import PersistCandleAdapter
            >>> class Mine(PersistCandleInstance): ...  # override what you want to see or change
            >>> PersistCandleAdapter.use_persist_candle_adapter(Mine)
        """
        self._use_class(cls)
