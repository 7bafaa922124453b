"""Changes of an open position that a user has asked for: partial closes, further entries, a stop or target that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from .cost_basis import legs_of
from .position import Position

__all__ = ["Change", "ChangeKind", "Commit", "average_commit", "changes_of_queue", "commit_of", "partial_commit"]

ChangeKind = Literal["partial", "average-buy", "trailing-stop", "trailing-take"]


class Change(msgspec.Struct, rename="camel"):
    """A change to be made.

    ``value`` is what a partial close closes (percent of what is left), what a further entry costs (USD), or the new price of the stop
    or target. ``when_ms`` is the time of the request. ``quantity`` (base asset) is set when the first order is sent, and ``attempts``
    counts the orders. ``recorded``: the row of the position contains the change, with ``price``, and only the order and the notification
    are missing, since the TypeScript package stores a change before it tells the broker.
    """

    id: str
    kind: ChangeKind
    value: float
    when_ms: int
    quantity: float = 0.0
    attempts: int = 0
    recorded: bool = False
    price: float = 0.0

    @property
    def has_order(self) -> bool:
        """Whether a broker carries it out."""
        return self.kind in ("partial", "average-buy")

    @property
    def started(self) -> bool:
        """Whether it must be finished before the position may be closed: what is held depends on it."""
        return self.recorded or self.attempts > 0

    def row(self) -> dict[str, Any]:
        """Return what a snapshot stores."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class Commit(msgspec.Struct, frozen=True):
    """What is reported of a change that was made: the type of the notification, the price, and what that type adds."""

    kind: str
    price: float
    more: dict[str, float]


def commit_of(position: Position, change_id: str) -> Commit | None:
    """Return what is to be reported of a change that ``position`` contains; None if it does not contain it."""
    for partial in position.partials:
        if partial.change_id == change_id:
            return partial_commit(partial.profit, partial.price, partial.percent)
    for entry in position.entries:
        if entry.change_id == change_id:
            return average_commit(position, entry.price)
    return None


def partial_commit(profit: bool, price: float, percent: float) -> Commit:
    """Return what is to be reported of a partial close."""
    return Commit(f"partial_{'profit' if profit else 'loss'}.commit", price, {"percentToClose": percent})


def average_commit(position: Position, price: float) -> Commit:
    """Return what is to be reported of a further entry."""
    return Commit("average_buy.commit", price, {"effectivePriceOpen": position.entry_price})


_ACTIONS: Final[Mapping[str, tuple[ChangeKind, str]]] = {
    "partial-profit": ("partial", "percentToClose"),
    "partial-loss": ("partial", "percentToClose"),
    "average-buy": ("average-buy", "cost"),
}
"""Actions of the TypeScript package (ICommitRow) that need an order: the kind, and the field with the value."""


def changes_of_queue(queue: Sequence[Mapping[str, Any]], position: Position) -> list[Change]:
    """Return the orders that the TypeScript package still owes a broker for ``position``, from its queue of commits.

    That package stores a change in the row of the position first, and the broker learns of it from the queue. So the last changes of
    the row are those of the queue. Other actions (a moved stop) need no order, and are in the row already.
    """
    actions = [commit for commit in queue if commit.get("action") in _ACTIONS]
    *closed, _ = legs_of(position.entries, position.partials)
    quantities = {"partial": [leg.coins for leg in closed], "average-buy": [entry.coins for entry in position.entries[1:]]}
    found = []
    for number, commit in enumerate(reversed(actions)):
        kind, field = _ACTIONS[commit["action"]]
        if not quantities[kind]:
            continue  # the row does not have it, so nothing was sold or bought for it
        quantity = quantities[kind].pop()
        found.append(
            Change(
                # The same in every restart, so that a repeated order has the same client id.
                id=f"{position.id} commit {commit['action']} {len(actions) - number} {quantity!r}",
                kind=kind,
                value=float(commit[field]),
                when_ms=position.opened_ms,
                quantity=quantity,
                recorded=True,
                price=float(commit["currentPrice"]),
            )
        )
    return found[::-1]
