"""What users ask of a run, from any thread: it is written before the function returns, and done at the next minute."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from . import rows
from .deferred import Closing, Deferred
from .journal import Journal
from .position import Position, check_signal
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
    _changed: bool
    _broker: Any
    _lock: threading.RLock

    def user_close(self) -> bool:
        """Close the open position, at the price of the market; False if there is none."""
        with self._lock:
            if self.position is None or self.deferred.closing is not None:
                return False
            self.deferred.closing, self.deferred.close_attempts = Closing(self.position, "closed", self._price, self.now), 1
            return self._note_work()

    def user_cancel(self) -> bool:
        """Cancel the scheduled signal; False if there is none."""
        with self._lock:
            if self.waiting is None or self.deferred.activated is not None or self.deferred.opening is not None:
                return False
            self.deferred.cancelled, self.deferred.cancel_reason = self.waiting, "user"
            return self._note_work()

    def user_activate(self) -> bool:
        """Open the scheduled signal at its price without waiting; False if there is none."""
        with self._lock:
            if self.waiting is None or self.deferred.cancelled is not None or self.deferred.opening is not None:
                return False
            self.deferred.activated = self.waiting
            return self._note_work()

    def user_create(self, raw: Mapping[str, Any]) -> bool:
        """Take up a signal at the next minute; False if there is a position, a scheduled signal, or one that was created before."""
        check_signal(raw)
        with self._lock:
            work = self.deferred
            if self.position is not None or self.waiting is not None or work.due or self.stopped:
                return False
            work.created = {**raw, "id": derive_id(self.context, "created", self.now, work.last_id)}
            return self._note_work()

    def user_pause(self, paused: bool) -> bool:
        """Ask the strategy for no more signals, or again; also after a restart. False if it is so already."""
        with self._lock:
            if self.deferred.paused is paused:
                return False
            self.deferred.paused = paused
            self._note_work()
        self.journal.notify(rows.pause_row(self.context, self.now, paused))
        return True

    def user_stop(self) -> bool:
        """Open nothing more in this run: an open position goes on to its exit, a scheduled signal is cancelled."""
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

    def _settle(self) -> None:
        """Write what is left to do: in a live run after each step, in a backtest only after what a user has asked for."""
        with self._lock:
            if self._broker is not None or self._changed:
                self._note_work()
