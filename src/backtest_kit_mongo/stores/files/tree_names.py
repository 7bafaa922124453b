"""What a tree says about the names of its strategies and exchanges: evidence where the name of a folder alone is ambiguous."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ...domains import Domain
from ..base import Key
from .ownership import rows_in

__all__ = ["GivenNames", "TreeNames"]

_CONTEXT: Final = ("symbol", "strategyName", "exchangeName")
_NAMES: Final = ("exchangeName", "symbol", "strategyName", "riskName")

# The last hint. These names are ids of ccxt.
_EXCHANGES: Final = frozenset(
    {
        "binance", "binancecoinm", "binanceus", "binanceusdm", "bingx", "bitfinex", "bitget", "bitmart", "bitmex", "bitstamp", "bybit",
        "coinbase", "coinbaseexchange", "cryptocom", "deribit", "gate", "gateio", "gemini", "htx", "huobi", "hyperliquid", "kraken",
        "krakenfutures", "kucoin", "kucoinfutures", "mexc", "okx", "phemex", "poloniex", "upbit",
    }
)  # fmt: skip


class GivenNames(NamedTuple):
    """Names that the user states, because a tree does not tell them."""

    strategies: frozenset[str] = frozenset()
    exchanges: frozenset[str] = frozenset()


class TreeNames:
    """The names that certainly occur in a tree, each with the first path that has it."""

    def __init__(self, given: GivenNames) -> None:
        self._given = MappingProxyType({"exchangeName": (given.exchanges, "--exchange"), "strategyName": (given.strategies, "--strategy")})
        self._contexts: dict[Key, str] = {}
        self._names: dict[str, dict[str, str]] = {name: {} for name in _NAMES}

    def uses(self, domain: Domain) -> bool:
        """Return whether the paths or the bodies of a domain say names."""
        return "exchangeName" in domain.key or domain.name in ("storage", "notification")

    def add_fields(self, fields: Mapping[str, Any], path: str) -> None:
        """Add what the fields of a folder say."""
        for name in self._names.keys() & fields.keys():
            self._names[name].setdefault(fields[name], path)

    def add_keys(self, domain: Domain, keys: Sequence[Key], path: str) -> None:
        """Add what the key of a record says, or if it may be one of several, what they have in common."""
        for position, name in enumerate(domain.key):
            values = {key[position] for key in keys}
            if name in self._names and len(values) == 1:
                self._names[name].setdefault(values.pop(), path)
        if len(keys) == 1 and set(_CONTEXT) <= set(domain.key):
            self._contexts.setdefault(_values(domain, keys[0], _CONTEXT), path)

    def add_rows(self, body: Any, path: str) -> None:
        """Add what the rows in a body say."""
        for row in rows_in(body):
            for name, values in self._names.items():
                if isinstance(row.get(name), str):
                    values.setdefault(row[name], path)
            context = tuple(row.get(name) for name in _CONTEXT)
            if all(isinstance(value, str) for value in context):
                self._contexts.setdefault(context, path)

    def choose(self, domain: Domain, keys: Sequence[Key]) -> tuple[Key, str] | None:
        """Return which of several possible keys a record has, and why; None if that cannot be told for certain."""
        keys = list(keys)
        reasons = []
        for name, (names, option) in self._given.items():
            if fitting := [key for key in keys if name in domain.key and _values(domain, key, (name,))[0] in names]:
                reasons += [option] if len(fitting) < len(keys) else []
                keys = fitting
        if len(keys) == 1:
            return keys[0], f"by {' and '.join(reasons)}"
        if set(_CONTEXT) <= set(domain.key):
            contexts = {context: key for key in keys if (context := _values(domain, key, _CONTEXT)) in self._contexts}
            if contexts:
                (context, key), *others = contexts.items()
                return None if others else (key, f"these occur in {self._contexts[context]}")
        on_known = self._with_known(domain, keys, "exchangeName")
        if on_known:  # an exchange that occurs elsewhere ends the name
            for name in _NAMES:
                on_known = self._with_known(domain, on_known, name) or on_known
            return self._because(domain, on_known, "exchangeName")
        for name in ("strategyName", "riskName"):
            # A name with an underscore tells the split; that ``sma`` occurs says nothing about ``sma_cross``.
            fitting = [key for key in self._with_known(domain, keys, name) if "_" in _values(domain, key, (name,))[0]]
            if fitting:
                return self._because(domain, fitting, name)
        fitting = [key for key in keys if _values(domain, key, ("exchangeName",))[0] in _EXCHANGES]
        return (fitting[0], "by the name of a well-known exchange") if len(fitting) == 1 else None

    def _with_known(self, domain: Domain, keys: Iterable[Key], name: str) -> list[Key]:
        return [key for key in keys if name in domain.key and _values(domain, key, (name,))[0] in self._names[name]]

    def _because(self, domain: Domain, keys: Sequence[Key], name: str) -> tuple[Key, str] | None:
        if len(keys) != 1:
            return None
        (value,) = _values(domain, keys[0], (name,))
        return keys[0], f"{name} {value} occurs in {self._names[name][value]}"


def _values(domain: Domain, key: Key, names: Iterable[str]) -> Key:
    return tuple(key[domain.key.index(name)] for name in names)
