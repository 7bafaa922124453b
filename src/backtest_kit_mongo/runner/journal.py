"""What a run writes through the contracts, and in which order: a step is persisted before the run acts on it."""

from __future__ import annotations

import threading
from typing import Any, Final

from .. import (
    PersistBreakevenAdapter,
    PersistLogAdapter,
    PersistNotificationAdapter,
    PersistPartialAdapter,
    PersistRecentAdapter,
    PersistRiskAdapter,
    PersistSessionAdapter,
    PersistSignalAdapter,
    PersistStateAdapter,
    PersistStorageAdapter,
)
from ..errors import InvalidValueError
from . import rows
from .position import CloseReason, Position, Progress
from .rows import Row, RunContext

__all__ = ["BUCKET", "Journal"]

BUCKET: Final = "position"
"""The bucket of the State contract in which a run notes how a position stands."""

# A Risk record is one list for all symbols and strategies of its name: it is read, changed and written as a whole.
_risk_lock = threading.Lock()


class Journal:
    """The records of one backtest. Times are simulation time in ms, prices those of the market."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def begin(self, when_ms: int) -> None:
        """Make room: end what an earlier run over the same names left open.

        Signal and Risk have no mode in their keys, so a backtest would overwrite the open position of a live run. Live rows
        have an empty ``frameName``; where one is found nothing is written and InvalidValueError says so.
        """
        context = self._context
        left = PersistSignalAdapter.read_signal_data(context.symbol, context.strategy_name, context.exchange_name)
        if left is not None and not left.get("frameName"):
            raise InvalidValueError(
                f"strategy {context.strategy_name!r} has an open live position in {context.symbol} on {context.exchange_name} "
                f"in this database (signal {left.get('id')}); a backtest of it would overwrite that record",
                hint="run the backtest on another database",
            )
        self._write_risk(None, when_ms)
        if left is not None:
            self._write_signal(None)
        self._write_session(when_ms, status="running")
        self._log("info", when_ms, "run.started", {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms})

    def opened(self, position: Position, when_ms: int) -> None:
        """A position is about to be opened: after this it is one, also for whoever reads the database."""
        context, price = self._context, position.price_open
        # The slot first: a position without its risk slot would let another one through, a slot without position does not.
        self._write_risk(position, when_ms)
        self._write_signal(rows.signal_row(context, position))
        self._write_public(position, price, when_ms, None)
        self._notify(rows.notification_row(context, "signal.opened", position, price, when_ms))
        self._log("info", when_ms, "signal.opened", {"signalId": position.id, "position": position.signal.side, "priceOpen": price})

    def progressed(self, position: Position, price: float, when_ms: int, progress: Progress) -> None:
        """An open position has passed levels, or covered its costs."""
        context = self._context
        if progress.profit_levels or progress.loss_levels:
            self._write_partial(
                {position.id: {"profitLevels": list(position.profit_levels), "lossLevels": list(position.loss_levels)}}, position, when_ms
            )
        if progress.breakeven:
            self._write_breakeven({position.id: {"reached": True}}, position, when_ms)
        news = [("partial_profit.available", {"level": level}) for level in progress.profit_levels]
        news += [("partial_loss.available", {"level": level}) for level in progress.loss_levels]
        news += [("breakeven.available", {})] if progress.breakeven else []
        self._notify(*(rows.notification_row(context, kind, position, price, when_ms, **more) for kind, more in news))

    def closed(self, position: Position, price: float, when_ms: int, reason: CloseReason, session: Row) -> None:
        """A position has met its exit. The outcome is stored first, the open record goes last."""
        context = self._context
        self._write_public(position, price, when_ms, reason)
        if position.profit_levels or position.loss_levels:
            self._write_partial({}, position, when_ms)
        if position.breakeven:
            self._write_breakeven({}, position, when_ms)
        self._write_risk(None, when_ms)
        self._write_signal(None)
        duration = rows.minutes_between(position.opened_ms, when_ms)
        self._notify(
            rows.notification_row(
                context, "signal.closed", position, price, when_ms, priceClose=price, closeReason=reason, duration=duration
            )
        )
        self._write_session(when_ms, status="running", **session)
        self._log("info", when_ms, "signal.closed", {"signalId": position.id, "closeReason": reason, "priceClose": price})

    def failed(self, when_ms: int, name: str, message: str) -> None:
        """The strategy has failed, and the run ends here."""
        self._log("warn", when_ms, "run.failed", {"error": name, "message": message})
        self._notify(rows.error_row(self._context, when_ms, name, message))
        self._write_session(when_ms, status="failed", message=message)

    def finished(self, when_ms: int, session: Row) -> None:
        """The window is over."""
        self._write_session(when_ms, status="finished", **session)
        self._log("info", when_ms, "run.finished", session)

    def _write_signal(self, row: Row | None) -> None:
        context = self._context
        PersistSignalAdapter.write_signal_data(row, context.symbol, context.strategy_name, context.exchange_name)

    def _write_risk(self, position: Position | None, when_ms: int) -> None:
        context = self._context
        with _risk_lock:
            stored = PersistRiskAdapter.read_position_data(context.risk_name, context.exchange_name, when_ms)
            mine = [held for key, held in stored if key == context.risk_key]
            if any(not held.get("frameName") for held in mine):
                raise InvalidValueError(
                    f"risk {context.risk_name!r} on {context.exchange_name} holds an open live position {context.risk_key!r} in this "
                    "database; a backtest would overwrite it",
                    hint="run the backtest on another database",
                )
            if position is None and not mine:
                return
            others = [(key, held) for key, held in stored if key != context.risk_key]
            pairs = others if position is None else [*others, (context.risk_key, rows.risk_row(context, position))]
            PersistRiskAdapter.write_position_data([list(pair) for pair in pairs], context.risk_name, context.exchange_name, when_ms)

    def _write_public(self, position: Position, price: float, when_ms: int, reason: CloseReason | None) -> None:
        context = self._context
        PersistStorageAdapter.write_storage_data([rows.storage_row(context, position, price, when_ms, reason)], True)
        # The time of a Recent row is that of its signal, as in the framework.
        PersistRecentAdapter.write_recent_data(
            rows.public_row(context, position, price),
            context.symbol,
            context.strategy_name,
            context.exchange_name,
            context.frame_name,
            True,
            position.opened_ms,
        )
        state = rows.state_row(position, BUCKET, price, when_ms, "opened" if reason is None else "closed")
        PersistStateAdapter.write_state_data(state, position.id, BUCKET, when_ms)

    def _write_partial(self, data: Row, position: Position, when_ms: int) -> None:
        context = self._context
        PersistPartialAdapter.write_partial_data(data, context.symbol, context.strategy_name, position.id, context.exchange_name, when_ms)

    def _write_breakeven(self, data: Row, position: Position, when_ms: int) -> None:
        context = self._context
        PersistBreakevenAdapter.write_breakeven_data(
            data, context.symbol, context.strategy_name, position.id, context.exchange_name, when_ms
        )

    def _write_session(self, when_ms: int, **data: Any) -> None:
        context = self._context
        row = rows.session_row(context, when_ms, {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms, **data})
        PersistSessionAdapter.write_session_data(
            row, context.strategy_name, context.exchange_name, context.frame_name, when_ms, context.symbol, True
        )

    def _notify(self, *notifications: Row) -> None:
        PersistNotificationAdapter.write_notification_data(list(notifications), True)

    def _log(self, kind: str, when_ms: int, topic: str, *args: Any) -> None:
        PersistLogAdapter.write_log_data([rows.log_row(self._context, kind, when_ms, topic, *args)])
