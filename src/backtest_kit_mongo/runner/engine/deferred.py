"""What a run has decided and not finished: the snapshot in the Strategy contract, from which a restart goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ...mode_defaults import Mode
from .position import CloseReason, Position
from .rows import Row, RunContext, position_of, signal_row

__all__ = ["Closing", "Deferred", "Mode"]

_SLOTS: Final[Mapping[str, CloseReason]] = {"closedSignal": "closed", "takeProfitSignal": "take_profit", "stopLossSignal": "stop_loss"}


class Closing(msgspec.Struct):
    """A position that is to be closed: why, and the price (of the market, or the target or stop) and time (ms) of that decision."""

    position: Position
    reason: CloseReason
    price: float
    when_ms: int


class Deferred(msgspec.Struct):
    """The work that is still to be done. It is written before it is begun, and written again when it is done.

    ``last_id`` is the last signal that was taken up: it is not taken up again. ``opening`` is sent to the broker and has no answer
    yet. The attempts count orders that were sent, the present one among them.
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

    @property
    def due(self) -> bool:
        """Whether the next tick has something to do."""
        # Asked in each minute of a backtest, so without a loop.
        nothing = self.closing is None and self.opening is None and self.cancelled is None and self.activated is None
        return not (nothing and self.created is None)

    def row(self, context: RunContext, mode: Mode) -> Row:
        """The row of the Strategy contract (IStrategyData). ``_mode`` is ours: whose work it is, as the key does not say it."""
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

        return {
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


def deferred_of(row: Mapping[str, Any]) -> Deferred:
    """``Deferred.row`` backwards; fields that older snapshots lack have their defaults. An attempt counts only with its signal."""
    closing = None
    for slot, reason in _SLOTS.items():
        held = row.get(slot)
        if held is not None and closing is None:
            position = position_of(held)
            prices = {"take_profit": position.signal.price_take_profit, "stop_loss": position.signal.price_stop_loss}
            decided = held.get("_closeReason") or reason
            price = held.get("_closePrice") or prices.get(decided) or position.price_open
            closing = Closing(position, decided, float(price), int(held.get("_closeWhen") or 0))

    def signal(name: str) -> Position | None:
        held = row.get(name)
        return None if held is None else position_of(held)

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
    )


def has_order(row: Mapping[str, Any]) -> bool:
    """Whether a row says that an order is under way. Its positions are not read: they may be such as only another run understands."""
    return any(row.get(slot) is not None for slot in ("retryOpenSignal", *_SLOTS))
