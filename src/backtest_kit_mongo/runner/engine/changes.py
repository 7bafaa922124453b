"""Changes of an open position that a user has asked for: partial closes, further entries, a stop or target that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from .position import Position

__all__ = ["Change", "ChangeKind", "Commit", "commit_of", "queued_commits"]

ChangeKind = Literal["partial", "average-buy", "trailing-stop", "trailing-take"]


class Change(msgspec.Struct, rename="camel"):
    """A change to be made to a position.

    ``value`` is what a partial close closes (percent of what is left), what a further entry costs (USD), or the new price of the stop
    or target. ``when_ms`` is the time of the request. ``quantity`` (base asset) is set when the first order is sent, and ``attempts``
    counts the orders.
    """

    id: str
    position_id: str
    kind: ChangeKind
    value: float
    when_ms: int
    quantity: float = 0.0
    attempts: int = 0

    @property
    def has_order(self) -> bool:
        """Whether a broker carries it out."""
        return self.kind in ("partial", "average-buy")

    @property
    def started(self) -> bool:
        """Whether it must be finished before the position may be closed: what is held depends on it."""
        return self.attempts > 0

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
            return Commit(f"partial_{'profit' if partial.profit else 'loss'}.commit", partial.price, {"percentToClose": partial.percent})
    for entry in position.entries:
        if entry.change_id == change_id:
            return Commit("average_buy.commit", entry.price, {"effectivePriceOpen": position.entry_price})
    return None


_FIELDS: Final = {
    "partial-profit": "percentToClose", "partial-loss": "percentToClose", "average-buy": "", "trailing-stop": "percentShift",
    "trailing-take": "percentShift", "breakeven": "",
}  # fmt: skip
"""Actions in the queue of the TypeScript package (ICommitRow), and the field that their notification has."""


def queued_commits(queue: Sequence[Mapping[str, Any]], position: Position) -> list[Commit]:
    """Return what the TypeScript package has not reported yet.

    It asks the broker first, then changes the row of the position, and puts the event into the queue. So nothing is left to be done
    but to report it.
    """
    commits = []
    for queued in queue:
        if (action := queued.get("action")) not in _FIELDS:
            continue  # such as an activated signal: the position says so itself
        field = _FIELDS[action]
        more = {"effectivePriceOpen": position.entry_price} if action == "average-buy" else {field: float(queued[field])} if field else {}
        commits.append(Commit(f"{action.replace('-', '_')}.commit", float(queued["currentPrice"]), more))
    return commits
