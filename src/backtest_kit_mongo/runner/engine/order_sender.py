"""Sends the orders of a live run: each attempt is counted and stored before it is made, and what fails is reported and tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ...candles import align
from ...logs import log
from ..clock import MINUTE_MS
from ..error_text import describe
from . import rows
from .broker import Broker, Fill, Order, OrderFailedError, OrderRejected
from .changes import Change
from .orders import submit
from .position import Position
from .user_code import UserCode
from .user_requests import UserRequests

__all__ = ["OrderSender"]

_UNSOLD: Final = 0.01
"""The share that may be left of a close without a word: exchanges round quantities down to their steps."""


class OrderSender(UserRequests):
    """The part of a run that deals with its broker. ``broker`` is None in a backtest."""

    _broker: Broker | None
    _clock: Callable[[], int]
    _attempts: int
    _user: UserCode
    _cancel: Callable[[Position, str, int], None]

    def _moment(self, fill: Fill, earliest: int) -> int:
        """Return the minute (ms) of a fill: not before ``earliest``, the decision, and not after the current minute of the clock."""
        return min(max(align(fill.when_ms, MINUTE_MS), earliest), max(align(self._clock(), MINUTE_MS), self.now, earliest))

    def _submit(self, order: Order, position: Position, when: int, *, first: bool = False, change: Change | None = None) -> Fill | None:
        """Count and store the attempt, unless it is the ``first``, then send the order. Return None after handling a failed order.

        ``change`` is the change that the order carries out, None if it opens or closes the position.
        """
        assert self._broker is not None
        work, opens = self.deferred, order.action == "open"
        if not first:
            with self._lock:
                if change is not None:
                    change.attempts += 1
                elif opens:
                    work.open_attempts += 1
                else:
                    work.close_attempts += 1
                self.journal.deferred(work)
        answer = submit(self._broker, order)
        if isinstance(answer, BaseException):
            attempt = change.attempts if change is not None else work.open_attempts if opens else work.close_attempts
            self._not_filled(order, position, when, attempt, answer, change)
            return None
        return answer

    def _not_filled(self, order: Order, position: Position, when: int, attempt: int, error: BaseException, change: Change | None) -> None:
        opens, rejected, exhausted = order.action == "open", isinstance(error, OrderRejected), attempt >= self._attempts
        dropped = rejected and (opens or change is not None)  # but a position must be closed
        purpose = f"to {order.action}" if change is None else f"({change.kind}) of"
        text = f"{self._user.named(when)}: the order {purpose} {position.id} (client id {order.client_id}) failed (attempt {attempt})"
        text = f"{text}: {describe(error)}"
        log("warning", text)
        if rejected:
            closing = self.deferred.closing
            extra = {} if opens or closing is None else {"closeReason": closing.reason}
            kind, key = f"order_reject.{order.action}", None if change is None else f"{change.id} {attempt}"
            row = rows.notification_row(
                self.context, kind, position, order.price, when, change_id=key, attempt=attempt, message=str(error), **extra
            )
            self.journal.notify(row)
        if dropped and change is not None:
            self._forget_change(change)
        elif dropped:
            self._forget_opening(when)
        elif exhausted:  # the order may exist, and a position to be closed does: the next start counts its attempts from the beginning
            with self._lock:
                self.deferred.open_attempts = self.deferred.close_attempts = 0
                if change is not None:
                    change.attempts = 1  # not 0: the order was sent
                self.journal.deferred(self.deferred)
        if exhausted and not dropped:
            self.journal.failed(when, type(error).__name__, text, fatal=True)
            raise OrderFailedError(text, hint="look for this order on the exchange, then start the run again") from error

    def _note_unsold(self, order: Order, fill: Fill, when: int) -> None:
        """Report what a broker left of a close: the position counts as closed, and a person has to deal with the rest."""
        if fill.quantity >= order.quantity * (1 - _UNSOLD):
            return
        sold = f"{fill.quantity} of {order.quantity} of {order.signal_id}"
        log("warning", f"{self._user.named(when)}: the broker closed {sold}; the rest is still there")
        self.journal.log("warn", when, "order.unsold", {"signalId": order.signal_id, "filled": fill.quantity, "ordered": order.quantity})

    def _forget_opening(self, when: int) -> None:
        """Drop a signal that does not open after all. It counts as taken, so its order is not sent again."""
        self.journal.write_risk(None, when)
        with self._lock:
            work = self.deferred
            work.opening, work.open_attempts = None, 0
            if self.waiting is None:
                self.journal.deferred(work)
        if self.waiting is not None:
            self._cancel(self.waiting, "order_reject", when)

    def _forget_change(self, change: Change) -> None:
        """Drop a change that is done, or will not be."""
        with self._lock:
            self.deferred.changes = [other for other in self.deferred.changes if other is not change]
            self._changed = True
            self._store_deferred()
