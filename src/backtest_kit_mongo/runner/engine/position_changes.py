"""Carries out the changes of an open position: partial closes, further entries, a stop or target that moves."""

from __future__ import annotations

from typing import Literal, cast

from ...logs import log
from .changes import Change, Commit, commit_of
from .cost_basis import Entry
from .deferred import Closing
from .order_sender import OrderSender
from .orders import cost_of, make_order
from .position import Position, add_entry, can_move, close_part, left_of, nothing_left

__all__ = ["PositionChanges", "held_quantity"]


class PositionChanges(OrderSender):
    """The part of a run that changes its open position, in the order of the requests.

    A change is stored before its order is sent, and leaves the store after the row of the position, which names it: a restart knows
    whether it was made.
    """

    def _make_changes(self, position: Position, when: int, *, moves: bool = True) -> bool:
        """Make the changes of ``position`` that are due. Return False if an order has no answer yet.

        ``moves`` is False in a minute without a candle: one that comes late must still meet the stop and the target of its time.
        """
        due = [change for change in self.deferred.changes if change.position_id == position.id]
        for change in due if moves else ():
            if not change.has_order:  # a stop does not wait for an order
                self._make_move(change, position, when)
        return all(self._trade(change, position, when) for change in due if change.has_order)

    def _finish_changes(self, position: Position, when: int) -> bool:
        """Finish what was started, and drop the rest: ``position`` is closing. Return False if an order has no answer yet."""
        with self._lock:
            kept = [change for change in self.deferred.changes if change.started or change.position_id != position.id]
            if len(kept) != len(self.deferred.changes):
                self.deferred.changes, self._changed = kept, True
        return self._make_changes(position, when)

    def _make_move(self, change: Change, position: Position, when: int) -> None:
        kind = cast("Literal['trailing-stop', 'trailing-take']", change.kind)
        if can_move(position, kind, change.value, (self._price, self._last_close)):
            self._move(change, position, when)
        else:
            log("info", f"{self._user.named(when)}: {change.kind} to {change.value} no longer fits the price {self._price}")
            self._forget_change(change)

    def _move(self, change: Change, position: Position, when: int) -> None:
        entry, sign = position.entry_price, position.sign
        position.changed, position.moved_ms = True, when
        if change.kind == "trailing-stop":
            position.price_stop_loss, original, away = change.value, position.signal.price_stop_loss, -sign
        else:
            position.price_take_profit, original, away = change.value, position.signal.price_take_profit, sign
        # percentShift: how much farther from the entry than the original price, in percent of the entry.
        shift = ((change.value - entry) * away - abs(original - entry)) / entry * 100
        kind = f"{change.kind.replace('-', '_')}.commit"
        self._record(change, position, when, Commit(kind, self._price, {"percentShift": shift}))

    def _trade(self, change: Change, position: Position, when: int) -> bool:
        """Close a part, or add an entry. Return False if the order has no answer yet."""
        closes, price, quantity, cost = change.kind == "partial", self._price, 0.0, change.value
        made_at, held = when, held_quantity(position)
        if self._broker is not None:
            if not change.started:
                change.quantity = held * change.value / 100 if closes else change.value / price
            order = make_order(self.context, "close" if closes else "open", position, price, change.quantity, change.id)
            fill = self._submit(order, position, when, change=change)
            if fill is None:
                return change not in self.deferred.changes
            price, quantity, cost = fill.price, fill.quantity, cost_of(fill, change.value)
            made_at = self._moment(fill, change.when_ms)
        if closes:
            percent = change.value if not quantity or quantity == change.quantity else min(quantity / held * 100, 100.0)
            close_part(position, percent, price, made_at, change.id)
            position.quantity = max(held - quantity, 0.0) if quantity else 0.0
        else:
            add_entry(position, Entry(price, cost, made_at, change.id))
            position.quantity = held + quantity if quantity else 0.0
        if nothing_left(position) and self.deferred.closing is None:
            self.deferred.closing, self.deferred.close_attempts = Closing(position, "closed", price, when), 1
        commit = commit_of(position, change.id)
        assert commit is not None
        self._record(change, position, when, commit)
        return True

    def _record(self, change: Change, position: Position, when: int, commit: Commit) -> None:
        self.journal.changed(position, when, change.id, commit, is_open=self.position is position)
        self._forget_change(change)


def held_quantity(position: Position) -> float:
    """Return how much of the base asset is left of ``position``: as the broker has filled it, or as its cost has bought it."""
    return position.quantity or left_of(position).coins
