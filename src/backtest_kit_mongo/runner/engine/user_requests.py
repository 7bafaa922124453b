"""Requests of users to a run, from any thread: stored before the function returns, carried out in the next minute."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from . import rows
from .changes import Change, ChangeKind
from .deferred import Closing, Deferred
from .journal import Journal
from .position import Position, can_move, check_signal
from .rows import RunContext, derive_id

__all__ = ["UserRequests"]


class UserRequests:
    """The part of a run that other threads may change: the deferred work, and whether it applies."""

    context: RunContext
    journal: Journal
    deferred: Deferred
    position: Position | None
    waiting: Position | None
    stopped: bool
    now: int
    _price: float
    _last_close: float
    _leaving: Position | None
    _changed: bool
    _requests: int
    _broker: Any
    _lock: threading.RLock

    def user_close(self) -> bool:
        """Close the open position at the market price. Return False if there is none, or if it is closing already."""
        with self._lock:
            if self.position is None or self.deferred.closing is not None or self.position is self._leaving:
                return False
            self.deferred.closing, self.deferred.close_attempts = Closing(self.position, "closed", self._price, self.now), 1
            return self._note_work()

    def user_cancel(self) -> bool:
        """Cancel the scheduled signal. Return False if there is none, or if it is opening already."""
        with self._lock:
            if self.waiting is None or self.deferred.activated is not None or self.deferred.opening is not None:
                return False
            self.deferred.cancelled, self.deferred.cancel_reason = self.waiting, "user"
            return self._note_work()

    def user_activate(self) -> bool:
        """Open the scheduled signal at its price without waiting. Return False if there is none, or if it is opening or cancelled."""
        with self._lock:
            if self.waiting is None or self.deferred.cancelled is not None or self.deferred.opening is not None:
                return False
            self.deferred.activated = self.waiting
            return self._note_work()

    def user_create(self, raw: Any) -> bool:
        """Take a signal in the next minute. Return False if there is a position, a scheduled signal or other work, or after a stop."""
        check_signal(raw)
        with self._lock:
            work = self.deferred
            if self.position is not None or self.waiting is not None or work.due or self.stopped:
                return False
            work.created = {**raw, "id": derive_id(self.context, "created", self.now, work.last_id)}
            return self._note_work()

    def user_change(self, kind: ChangeKind, value: float) -> bool:
        """Change the open position.

        Return False if there is none, if it is closing, if a stop or target does not fit the price, or if an order of an earlier change
        has no answer yet.
        """
        with self._lock:
            position, work = self.position, self.deferred
            if position is None or work.closing is not None or position is self._leaving:
                return False
            if kind in ("trailing-stop", "trailing-take"):
                if not can_move(position, kind, value, (self._price, self._last_close)):
                    return False
            elif any(change.started and change.has_order for change in work.changes):
                return False  # the strategy does not see that change yet, and would request it again
            self._requests += 1
            # A live run may be started again and again: its own id keeps the number apart from those of other starts.
            parts = (self._requests,) if self.context.backtest else (self._requests, self.journal.run_id)
            change_id = derive_id(self.context, position.id, kind, *parts)
            changes = [*work.changes, Change(id=change_id, position_id=position.id, kind=kind, value=value, when_ms=self.now)]
            # Stored before the run knows of it: after an error, the caller can safely repeat the request.
            self.journal.deferred(msgspec.structs.replace(work, changes=changes))
            work.changes, self._changed = changes, False
            return True

    def user_pause(self, paused: bool) -> bool:
        """Stop asking the strategy for signals, or start again; this outlasts a restart. Return False if nothing changes."""
        with self._lock:
            if self.deferred.paused is paused:
                return False
            self.deferred.paused = paused
            self._note_work()
        self.journal.notify(rows.pause_row(self.context, self.now, paused))
        return True

    def user_stop(self) -> bool:
        """Open no more positions in this run: an open position runs to its exit, a scheduled signal is cancelled."""
        with self._lock:
            self.stopped = True
            self.deferred.created = None
            if not self.user_cancel():
                self._note_work()
        return True

    def _note_work(self) -> bool:
        self.journal.deferred(self.deferred)
        self._changed = False
        return True

    def _store_deferred(self) -> None:
        """Store the work that is left: after each step of a live run, in a backtest only after a request of a user."""
        with self._lock:
            if self._broker is not None or self._changed:
                self._note_work()
