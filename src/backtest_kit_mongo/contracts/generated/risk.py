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
    """The risk contract for one context (risk_name, exchange_name)."""

    _domain = _DOMAIN

    def __init__(self, risk_name: str, exchange_name: str) -> None:
        super().__init__()
        self.risk_name = risk_name
        self.exchange_name = exchange_name

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistRiskInstance("all", "binance").read_position_data(1704067200000)
        """
        return self._read((self.risk_name, self.exchange_name), when, type)

    def write_position_data(self, positions: Iterable[Any] | Mapping[str, Any], when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            positions: the open positions: [key, position] pairs, or a mapping
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistRiskInstance("all", "binance").write_position_data([], 1704067200000)
        """
        self._write(positions, (self.risk_name, self.exchange_name), when)


class PersistRiskUtils(KeyedAdapterBase):
    """The risk contract, with its context in every call."""

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

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistRiskAdapter.read_position_data("all", "binance", 1704067200000)
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
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistRiskAdapter.write_position_data([], "all", "binance", 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (risk_name, exchange_name), "write_position_data", (positions, when))
        self._write(positions, (risk_name, exchange_name), when)

    def use_persist_risk_adapter(self, cls: type[Any]) -> None:
        """Serve the risk contract through ``cls``: one instance per context, created with the arguments of
        ``PersistRiskInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
