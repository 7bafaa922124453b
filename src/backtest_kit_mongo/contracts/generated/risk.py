# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The risk contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, When

__all__ = ["PersistRiskInstance", "PersistRiskUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["risk"]


class PersistRiskInstance(InstanceBase):
    """The risk contract, with its context given once.

    The positions that a risk profile counts as open. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        risk_name: the name of the risk profile
        exchange_name: the name of the exchange
    """

    _domain = _DOMAIN

    def __init__(self, risk_name: str, exchange_name: str) -> None:
        super().__init__()
        self.risk_name: str = risk_name
        self.exchange_name: str = exchange_name

    @overload
    def read_position_data(self, when: When, *, type: None = None) -> list[list[Any]]: ...
    @overload
    def read_position_data(self, when: When, *, type: type[T]) -> T: ...
    def read_position_data(self, when: When, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistRiskInstance
            >>> risk = PersistRiskInstance("all", "binance")
            >>> risk.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], 1704067200000)
            >>> risk.read_position_data(1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        return self._read((self.risk_name, self.exchange_name), when, type)

    def write_position_data(self, positions: Iterable[Any] | Mapping[str, Any], when: When) -> None:
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
            >>> from backtest_kit_mongo import PersistRiskInstance
            >>> risk = PersistRiskInstance("all", "binance")
            >>> risk.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], 1704067200000)
            >>> risk.read_position_data(1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        self._write(positions, (self.risk_name, self.exchange_name), when)


class PersistRiskUtils(KeyedAdapterBase):
    """The risk contract, with its context in every call.

    The positions that a risk profile counts as open. Every method can also raise NotConfiguredError (before ``setup``),
    DatabaseError (MongoDB rejected the command) and, with the domain on files, StorageError.

    Args:
        registry: the registry that creates the adapter and binds the domain to a store
    """

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2)

    @overload
    def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: None = None) -> list[list[Any]]: ...
    @overload
    def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: type[T]) -> T: ...
    def read_position_data(self, risk_name: str, exchange_name: str, when: When, *, type: Any = None) -> Any:
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
            >>> from backtest_kit_mongo import PersistRiskAdapter
            >>> PersistRiskAdapter.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], "all", "binance", 1704067200000)
            >>> PersistRiskAdapter.read_position_data("all", "binance", 1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (risk_name, exchange_name), "read_position_data", (when,), type=type)
        return self._read((risk_name, exchange_name), when, type)

    def write_position_data(self, positions: Iterable[Any] | Mapping[str, Any], risk_name: str, exchange_name: str, when: When) -> None:
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
            >>> from backtest_kit_mongo import PersistRiskAdapter
            >>> PersistRiskAdapter.write_position_data([["sma_binance_BTCUSDT", {"priceOpen": 42000.0}]], "all", "binance", 1704067200000)
            >>> PersistRiskAdapter.read_position_data("all", "binance", 1704067200000)
            [['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (risk_name, exchange_name), "write_position_data", (positions, when))
        self._write(positions, (risk_name, exchange_name), when)

    def use_persist_risk_adapter(self, cls: type[Any]) -> None:
        """Serve the risk contract through a class of yours: one instance per context.

        Args:
            cls: a class with the methods of ``PersistRiskInstance``, created with the same arguments; usually a subclass of it

        Raises:
            InvalidTypeError: ``cls`` is not a class, or lacks a method of the contract

        Examples:
            >>> from backtest_kit_mongo import PersistRiskInstance
            >>> from backtest_kit_mongo import PersistRiskAdapter
            >>> class Mine(PersistRiskInstance): ...  # override what you want to see or change
            >>> PersistRiskAdapter.use_persist_risk_adapter(Mine)
        """
        self._use_class(cls)
