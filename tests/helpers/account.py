"""A plain account of a position: the reference that profits by cost basis are compared with."""

from __future__ import annotations


class Account:
    """Money and coins, trade by trade: what a trader with a notebook would write down. It knows no formula of the library."""

    def __init__(self, side, costs):
        self.sign, self.costs = (1 if side == "long" else -1), costs
        self.coins = self.basis = self.invested = self.profit = 0.0

    def slipped(self, price, direction):
        return price * (1 + direction * self.sign * self.costs.slippage_percent / 100)

    def enter(self, price, cost):
        self.coins += cost / self.slipped(price, 1)
        self.basis += cost
        self.invested += cost
        self.profit -= cost * self.costs.fee_percent / 100

    def leave(self, price, percent):
        share = percent / 100
        value = share * self.coins * self.slipped(price, -1)
        self.profit += self.sign * (value - share * self.basis) - value * self.costs.fee_percent / 100
        self.coins *= 1 - share
        self.basis *= 1 - share
