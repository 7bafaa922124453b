"""The entries and partial closes of a position: what is left of it, its average price, and its profit by cost basis.

The formulas are those of backtest-kit (getEffectivePriceOpen, getTotalClosed, toProfitLossDto), so that both sides report the same
profit for the same row. An entry of ``cost`` USD at a price buys cost / price coins. A partial close of p percent closes that share of
what is left, at the average price of what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

__all__ = ["Costs", "Entry", "Leg", "PartialClose", "Side", "average_price", "legs_of", "pnl_percentage", "profit_of_legs"]

Side = Literal["long", "short"]


class Costs(msgspec.Struct, frozen=True, rename="camel"):
    """Trading costs of a run."""

    fee_percent: float = 0.1
    """Fee in percent (0.1 is 0.1 percent) per side."""
    slippage_percent: float = 0.1
    """Slippage in percent per side."""
    stake_usd: float = 100.0
    """What the first entry of every position costs, in USD."""


class Entry(msgspec.Struct, frozen=True):
    """An entry of a position: price, cost in USD, time in ms. ``change_id`` is that of the request that added it."""

    price: float
    cost: float
    when_ms: int
    change_id: str | None = None

    @property
    def coins(self) -> float:
        """How much of the base asset it bought, or sold short."""
        return self.cost / self.price


class PartialClose(msgspec.Struct, frozen=True):
    """A partial close: ``percent`` of what was left then, the price and the time (ms).

    ``cost_basis`` is the cost (USD) of what was left before, and ``entry_count`` the number of entries then. ``profit`` says whether
    the price was better than the average entry.
    """

    percent: float
    price: float
    cost_basis: float
    entry_count: int
    when_ms: int
    profit: bool
    change_id: str | None = None

    @property
    def cost(self) -> float:
        """The cost (USD) of the part that it closed."""
        return self.percent / 100 * self.cost_basis


class Leg(msgspec.Struct, frozen=True):
    """A part of a position: its cost (USD), its average entry price, and the price at which it was closed (None: it is open)."""

    cost: float
    entry_price: float
    price: float | None

    @property
    def coins(self) -> float:
        """How much of the base asset it has."""
        return self.cost / self.entry_price


def legs_of(entries: Sequence[Entry], partials: Sequence[PartialClose]) -> Iterator[Leg]:
    """Yield the parts of a position that were closed, in order, and at last what is left of it."""
    counted, basis, coins = 0, 0.0, 0.0
    price = entries[0].price
    for partial in partials:
        for entry in entries[counted : partial.entry_count]:
            basis, coins = basis + entry.cost, coins + entry.coins
        counted = max(counted, partial.entry_count)
        if coins:
            price = basis / coins
        yield Leg(partial.cost, price, partial.price)
        basis = partial.cost_basis - partial.cost
        coins = basis / price
    for entry in entries[counted:]:
        basis, coins = basis + entry.cost, coins + entry.coins
    # With one entry there is nothing to average, and the division could change the last digit of its price.
    yield Leg(basis, entries[0].price if len(entries) == 1 or not coins else basis / coins, None)


def average_price(entries: Sequence[Entry], partials: Sequence[PartialClose]) -> float:
    """Return the average entry price of what is left of a position, weighted by coins (getEffectivePriceOpen)."""
    *_, left = legs_of(entries, partials)
    return left.entry_price


def profit_of_legs(side: Side, entries: Sequence[Entry], partials: Sequence[PartialClose], price: float, costs: Costs) -> float:
    """Return the profit in percent of the cost of all entries, if what is left is closed at ``price`` (toProfitLossDto).

    It is the mean of ``pnl_percentage`` over the parts, weighted by their cost.
    """
    invested = sum(entry.cost for entry in entries)
    return sum(
        leg.cost / invested * pnl_percentage(side, leg.entry_price, price if leg.price is None else leg.price, costs)
        for leg in legs_of(entries, partials)
    )


def pnl_percentage(side: Side, price_open: float, price_close: float, costs: Costs) -> float:
    """Return the profit in percent of the stake, after fee and slippage on both sides, as backtest-kit does (toProfitLossDto).

    Slippage moves each price against the trader: with s = slippage_percent / 100, a long buys at o = price_open * (1 + s) and
    sells at c = price_close * (1 - s); a short sells at o = price_open * (1 - s) and buys back at c = price_close * (1 + s).
    The move is (c - o) / o for a long and (o - c) / o for a short. The fee is charged on the value traded: fee_percent once at
    the entry and fee_percent * c / o at the exit. The result is move * 100 - fee_percent * (1 + c / o).
    """
    slip = costs.slippage_percent / 100
    if side == "long":
        entry, leave = price_open * (1 + slip), price_close * (1 - slip)
        move = (leave - entry) / entry
    else:
        entry, leave = price_open * (1 - slip), price_close * (1 + slip)
        move = (entry - leave) / entry
    return move * 100 - costs.fee_percent * (1 + leave / entry)
