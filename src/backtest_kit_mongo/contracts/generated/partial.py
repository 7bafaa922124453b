# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The partial contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row, When

__all__ = ["PersistPartialInstance", "PersistPartialUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["partial"]


class PersistPartialInstance(InstanceBase):
    """The partial contract for one context (symbol, strategy_name, exchange_name)."""

    _domain = _DOMAIN

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.strategy_name = strategy_name
        self.exchange_name = exchange_name

    @overload
    def read_partial_data(self, signal_id: str, when: When, *, type: None = None) -> Row: ...
    @overload
    def read_partial_data(self, signal_id: str, when: When, *, type: type[T]) -> T: ...
    def read_partial_data(self, signal_id: str, when: When, *, type: Any = None) -> Any:
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
            PersistPartialInstance("BTCUSDT", "sma", "binance").read_partial_data("s1", 1704067200000)
        """
        return self._read((self.symbol, self.strategy_name, self.exchange_name, signal_id), when, type)

    def write_partial_data(self, data: Any, signal_id: str, when: When) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            data: the value: a dict, dataclass or Struct
            signal_id: the id of the signal
            when: the simulation time: an aware datetime, or ms since 1970 (UTC)

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistPartialInstance("BTCUSDT", "sma", "binance").write_partial_data({"n": 1}, "s1", 1704067200000)
        """
        self._write(data, (self.symbol, self.strategy_name, self.exchange_name, signal_id), when)


class PersistPartialUtils(KeyedAdapterBase):
    """The partial contract, with its context in every call."""

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 3, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 4, 3)

    @overload
    def read_partial_data(
        self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: None = None
    ) -> Row: ...
    @overload
    def read_partial_data(self, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When, *, type: type[T]) -> T: ...
    def read_partial_data(
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
            PersistPartialAdapter.read_partial_data("BTCUSDT", "sma", "s1", "binance", 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (symbol, strategy_name, exchange_name), "read_partial_data", (signal_id, when), type=type)
        return self._read((symbol, strategy_name, exchange_name, signal_id), when, type)

    def write_partial_data(self, data: Any, symbol: str, strategy_name: str, signal_id: str, exchange_name: str, when: When) -> None:
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
            PersistPartialAdapter.write_partial_data({"n": 1}, "BTCUSDT", "sma", "s1", "binance", 1704067200000)
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (symbol, strategy_name, exchange_name), "write_partial_data", (data, signal_id, when))
        self._write(data, (symbol, strategy_name, exchange_name, signal_id), when)

    def use_persist_partial_adapter(self, cls: type[Any]) -> None:
        """Serve the partial contract through ``cls``: one instance per context, created with the arguments of
        ``PersistPartialInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
