# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The risk contract, awaitable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

from ...contracts.adapter_base import When
from ...contracts.adapters import PersistRiskInstance as _Instance
from ...contracts.generated import risk as _sync
from ..base import AsyncInstance, AsyncKeyedAdapter

__all__ = ["PersistRiskInstance", "PersistRiskUtils"]

T = TypeVar("T")


class PersistRiskInstance(AsyncInstance):
    """The risk contract, with its context given once, awaitable.

    The positions that a risk profile counts as open. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        risk_name: the name of the risk profile
        exchange_name: the name of the exchange
    """

    __slots__ = ()

    sync: _sync.PersistRiskInstance
    """The synchronous object that does the work."""
    _sync_class = _Instance

    risk_name: str
    exchange_name: str

    def __init__(self, risk_name: str, exchange_name: str) -> None:
        self.sync = self._sync_class(risk_name, exchange_name)

    @overload
    async def read_position_data(self, when: When, *, type: None = None) -> list[list[Any]]: ...
    @overload
    async def read_position_data(self, when: When, *, type: type[T]) -> T: ...
    async def read_position_data(self, when: When, *, type: Any = None) -> Any:
        """Read a record; return [] if nothing is stored.

        With look_ahead="hide" or "raise", a record that was written later than when is hidden or raises LookAheadError.

        Args:
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the [key, position] pairs, or an empty list if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistRiskInstance
            >>> risk = PersistRiskInstance("all", "binance")
            >>> await risk.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], 1704067200000)
            >>> await risk.read_position_data(1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        return await self._data(self.sync.read_position_data, when, type=type)

    async def write_position_data(self, positions: Iterable[Any] | Mapping[str, Any], when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            positions: the open positions: [key, position] pairs, or a mapping
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistRiskInstance
            >>> risk = PersistRiskInstance("all", "binance")
            >>> await risk.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], 1704067200000)
            >>> await risk.read_position_data(1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        return await self._data(self.sync.write_position_data, positions, when)


class PersistRiskUtils(AsyncKeyedAdapter):
    """The risk contract, with its context in every call, awaitable.

    The positions that a risk profile counts as open. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        sync: the synchronous adapter
    """

    __slots__ = ()

    sync: _sync.PersistRiskUtils
    """The synchronous object that does the work."""

    def __init__(self, sync: _sync.PersistRiskUtils) -> None:
        self.sync = sync

    @overload
    async def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: None = None) -> list[list[Any]]: ...
    @overload
    async def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: type[T]) -> T: ...
    async def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: Any = None) -> Any:
        """Read a record; return [] if nothing is stored.

        With look_ahead="hide" or "raise", a record that was written later than when is hidden or raises LookAheadError.

        Args:
            risk_name: the name of the risk profile
            exchange_name: the name of the exchange
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)
            type: a msgspec type to decode into instead of a dict, see payloads

        Returns:
            the [key, position] pairs, or an empty list if nothing is stored

        Raises:
            InvalidTypeError: an argument has the wrong type, or msgspec cannot decode into ``type``
            InvalidValueError: an argument has a value that is not allowed, or a record does not fit ``type``
            LookAheadError: a record was written later than the simulation time, with look_ahead="raise"
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistRiskAdapter
            >>> await PersistRiskAdapter.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], "all", "binance", 1704067200000)
            >>> await PersistRiskAdapter.read_position_data("all", "binance", 1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        return await self._data(self.sync.read_position_data, risk_name, exchange_name, when, type=type)

    async def write_position_data(
        self, positions: Iterable[Any] | Mapping[str, Any], risk_name: str, exchange_name: str, when: When
    ) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            positions: the open positions: [key, position] pairs, or a mapping
            risk_name: the name of the risk profile
            exchange_name: the name of the exchange
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError: an argument or the value has a type that cannot be stored; nothing is written then
            InvalidValueError: an argument or the value has a value that cannot be stored; nothing is written then
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo.aio import PersistRiskAdapter
            >>> await PersistRiskAdapter.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], "all", "binance", 1704067200000)
            >>> await PersistRiskAdapter.read_position_data("all", "binance", 1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        return await self._data(self.sync.write_position_data, positions, risk_name, exchange_name, when)

    async def use_persist_risk_adapter(self, cls: type[Any]) -> None:
        """Serve the risk contract through a class of yours: one instance per context.

        Args:
            cls: a class with the synchronous methods of ``PersistRiskInstance``, created with the same arguments; usually a
                subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistRiskInstance
            >>> from backtest_kit_mongo.aio import PersistRiskAdapter
            >>> class Mine(PersistRiskInstance): ...  # override what you want to see or change
            >>> await PersistRiskAdapter.use_persist_risk_adapter(Mine)
        """
        await self._wait(self.sync.use_persist_risk_adapter, cls)
