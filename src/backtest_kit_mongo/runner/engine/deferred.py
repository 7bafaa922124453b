"""Work that a run has decided on and not finished: the snapshot in the Strategy contract, from which a restart resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...mode_defaults import Mode
from .changes import Change
from .position import CloseReason, Position
from .rows import Row, RunContext, position_of, signal_row

__all__ = ["Closing", "Deferred", "Mode"]

_SLOTS: Final[Mapping[str, CloseReason]] = {"closedSignal": "closed", "takeProfitSignal": "take_profit", "stopLossSignal": "stop_loss"}


class Closing(msgspec.Struct):
    """A position to be closed: the reason, and the price (market, target or stop) and time (ms) of that decision."""

    position: Position
    reason: CloseReason
    price: float
    when_ms: int


class Deferred(msgspec.Struct):
    """The work that is still to be done. It is stored before the run starts it, and again when it is done.

    ``last_id`` is the id of the last signal that was taken, so that it is not taken again. ``changes`` are those of the open position,
    in order. ``opening`` was sent to the broker and has no answer yet. ``open_attempts`` and ``close_attempts`` count the orders sent,
    including the current one.
    """

    last_id: str | None = None
    pending_id: str | None = None
    created: Row | None = None
    closing: Closing | None = None
    cancelled: Position | None = None
    cancel_reason: str = "user"
    activated: Position | None = None
    opening: Position | None = None
    open_attempts: int = 0
    close_attempts: int = 0
    paused: bool = False
    changes: list[Change] = msgspec.field(default_factory=list)

    @property
    def due(self) -> bool:
        """Whether the next tick has work to do."""
        # No loop: this is checked in every minute of a backtest.
        nothing = self.closing is None and self.opening is None and self.cancelled is None and self.activated is None
        return not (nothing and self.created is None)

    def row(self, context: RunContext, mode: Mode) -> Row:
        """Return the row of the Strategy contract (IStrategyData). ``_mode`` is our own field: the key does not contain the mode."""
        closing = self.closing
        slots: Row = dict.fromkeys(_SLOTS)
        if closing is not None:
            slot = next((slot for slot, reason in _SLOTS.items() if reason == closing.reason), "closedSignal")
            slots[slot] = {
                **signal_row(context, closing.position),
                "_closeReason": closing.reason,
                "_closePrice": closing.price,
                "_closeWhen": closing.when_ms,
            }

        def row_of(position: Position | None) -> Row | None:
            return None if position is None else signal_row(context, position)

        row = {
            "pendingSignalId": self.pending_id,
            "lastPendingId": self.last_id,
            "createdSignal": self.created,
            "commitQueue": [],
            **slots,
            "cancelledSignal": None
            if self.cancelled is None
            else {**signal_row(context, self.cancelled), "_cancelReason": self.cancel_reason},
            "activatedSignal": row_of(self.activated),
            "retryOpenSignal": row_of(self.opening),
            "retryOpenCount": self.open_attempts,
            "retryCloseCount": self.close_attempts,
            "isPaused": self.paused,
            "_mode": mode,
        }
        # Not in commitQueue: the TypeScript package puts changes there that are in the row of the position already.
        return {**row, "_changes": [change.row() for change in self.changes]} if self.changes else row


def deferred_of(row: Mapping[str, Any]) -> Deferred:
    """Read back what ``Deferred.row`` returned. Fields missing in older snapshots get defaults; attempts count only with their signal."""
    closing = None
    for slot, reason in _SLOTS.items():
        stored = row.get(slot)
        if stored is not None and closing is None:
            position = position_of(stored)
            prices = {"take_profit": position.price_take_profit, "stop_loss": position.price_stop_loss}
            decided = stored.get("_closeReason") or reason
            price = stored.get("_closePrice") or prices.get(decided) or position.price_open
            closing = Closing(position, decided, float(price), int(stored.get("_closeWhen") or 0))

    def signal(name: str) -> Position | None:
        stored_signal = row.get(name)
        return None if stored_signal is None else position_of(stored_signal)

    opening = signal("retryOpenSignal")
    counted = closing is not None and row.get("pendingSignalId") == closing.position.id
    return Deferred(
        last_id=row.get("lastPendingId"),
        pending_id=row.get("pendingSignalId"),
        created=row.get("createdSignal"),
        closing=closing,
        cancelled=signal("cancelledSignal"),
        cancel_reason=(row.get("cancelledSignal") or {}).get("_cancelReason") or "user",
        activated=signal("activatedSignal"),
        opening=opening,
        open_attempts=0 if opening is None else max(1, int(row.get("retryOpenCount") or 0)),
        close_attempts=0 if closing is None else max(1, int(row.get("retryCloseCount") or 0) if counted else 0),
        paused=bool(row.get("isPaused")),
        changes=msgspec.convert(row.get("_changes") or [], list[Change]),
    )


def has_order(row: Mapping[str, Any]) -> bool:
    """Whether a row has an order in progress. This does not read its positions, which only the run that wrote them may understand."""
    return any(row.get(slot) is not None for slot in ("retryOpenSignal", *_SLOTS)) or bool(row.get("_changes"))
