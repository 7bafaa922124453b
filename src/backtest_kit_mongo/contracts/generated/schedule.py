# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.
"""The schedule contract."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, TypeVar, overload

from ...domains import DOMAINS
from ..adapter_base import InstanceBase, KeyedAdapterBase, Row
from ..contract import NO_TIME

__all__ = ["PersistScheduleInstance", "PersistScheduleUtils"]

T = TypeVar("T")
_DOMAIN = DOMAINS["schedule"]


class PersistScheduleInstance(InstanceBase):
    """The schedule contract for one context (symbol, strategy_name, exchange_name)."""

    _domain = _DOMAIN

    def __init__(self, symbol: str, strategy_name: str, exchange_name: str) -> None:
        super().__init__()
        self.symbol = symbol
        self.strategy_name = strategy_name
        self.exchange_name = exchange_name

    @overload
    def read_schedule_data(self, *, type: None = None) -> Row | None: ...
    @overload
    def read_schedule_data(self, *, type: type[T]) -> T | None: ...
    def read_schedule_data(self, *, type: Any = None) -> Any:
        """Read a record; return None if nothing is stored.

        Args:
            type: a msgspec type to decode into instead of a dict, see payloads

        Raises:
            InvalidTypeError or InvalidValueError if an argument is not valid
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistScheduleInstance("BTCUSDT", "sma", "binance").read_schedule_data()
        """
        return self._read((self.symbol, self.strategy_name, self.exchange_name), NO_TIME, type)

    def write_schedule_data(self, row: Any | None) -> None:
        """Write a record. When this returns, it is acknowledged, and every reader sees it.

        Args:
            row: the row: a dict, dataclass or Struct

        Raises:
            InvalidTypeError or InvalidValueError if an argument or the value cannot be stored; nothing is written then
            ServerUnavailableError or ServerTimeoutError if no server answers in time

        Example:
            PersistScheduleInstance("BTCUSDT", "sma", "binance").write_schedule_data({"id": "s1", "priceOpen": 42000.0})
        """
        self._write(row, (self.symbol, self.strategy_name, self.exchange_name), NO_TIME)


class PersistScheduleUtils(KeyedAdapterBase):
    """The schedule contract, with its context in every call."""

    _domain = _DOMAIN
    _read_call = _DOMAIN.call("read")
    _read_order = itemgetter(0, 1, 2)
    _write_call = _DOMAIN.call("write")
    _write_order = itemgetter(1, 2, 3)

    @overload
    def read_schedule_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: None = None) -> Row | None: ...
    @overload
    def read_schedule_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: type[T]) -> T | None: ...
    def read_schedule_data(self, symbol: str, strategy_name: str, exchange_name: str, *, type: Any = None) -> Any:
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
            PersistScheduleAdapter.read_schedule_data("BTCUSDT", "sma", "binance")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "read", (symbol, strategy_name, exchange_name), "read_schedule_data", (), type=type)
        return self._read((symbol, strategy_name, exchange_name), NO_TIME, type)

    def write_schedule_data(self, row: Any | None, symbol: str, strategy_name: str, exchange_name: str) -> None:
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
            PersistScheduleAdapter.write_schedule_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
        """
        binding = self._slot.binding
        if binding.custom is not None:
            return self._custom(binding, "write", (symbol, strategy_name, exchange_name), "write_schedule_data", (row,))
        self._write(row, (symbol, strategy_name, exchange_name), NO_TIME)

    def use_persist_schedule_adapter(self, cls: type[Any]) -> None:
        """Serve the schedule contract through ``cls``: one instance per context, created with the arguments of
        ``PersistScheduleInstance``.

        Raises:
            InvalidTypeError if ``cls`` is not a class, or lacks a method of the contract
        """
        self._use_class(cls)
