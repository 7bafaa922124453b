"""What a run writes through the contracts, and in which order: a step is persisted before the run acts on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ...contracts.adapters import Registry
from ...errors import BacktestKitError, InvalidValueError
from ...logs import log
from ..error_text import describe
from . import rows
from .deferred import Deferred, Mode, deferred_of
from .position import CloseReason, Position, Progress
from .risk import Books, RiskBook
from .rows import Row, RunContext, Status
from .write_behind import PendingWrites, WriteBehind, WriteThrough, pending_write_error

__all__ = ["BUCKET", "Journal", "TakenOverError"]

T = TypeVar("T")


class TakenOverError(BacktestKitError, RuntimeError):
    """Another live run of the same strategy on the same symbol and exchange has begun, on the same records: this one ends."""


BUCKET: Final = "position"
"""The bucket of the State contract in which a run notes how a position stands."""


class Journal:
    """The records of one run. Times are ms (of the simulation, in a backtest), prices those of the market.

    Each is written at once, or, if there are ``PendingWrites``, before code of the run looks, and soon.
    """

    def __init__(
        self, context: RunContext, registry: Registry, mode: Mode, books: Books | None = None, late: PendingWrites | None = None
    ) -> None:
        self._context = context
        self._mode: Mode = mode
        self.run_id = uuid.uuid4().hex
        self._owns = False  # whether the Strategy record says so
        # Rows of an earlier backtest over the same names stay where this one writes none: the facades tell them apart by this.
        self._stamp: Row = {"runId": self.run_id} if context.backtest else {}
        self._contract: dict[str, Any] = {
            name: registry.adapter(name)
            for name in (
                "signal", "schedule", "strategy", "partial", "breakeven", "storage", "recent", "state", "notification", "session", "log",
            )
        }  # fmt: skip
        self._slot = context.symbol, context.strategy_name, context.exchange_name
        self.risk = RiskBook(context, registry, books)
        self._out = WriteThrough(self._contract) if late is None else WriteBehind(self._contract, late, self.run_id)

    def begin(self, when_ms: int) -> None:
        """Make room for a backtest: end what an earlier run over the same names left open.

        Signal, Schedule, Strategy and Risk have no mode in their keys, so a backtest would overwrite the open position of a live
        run. Live rows have an empty ``frameName``; where one is found nothing is written and InvalidValueError says so.
        """
        context = self._context
        left = {"signal": self._read_signal(), "schedule": self._read_schedule()}
        work = self._read_strategy()
        for what, row in (("position", left["signal"]), ("scheduled signal", left["schedule"])):
            if row is not None and not row.get("frameName"):
                self._refuse(f"an open live {what}", f" (signal {row.get('id')})")
        if work is not None and work.get("_mode") != "backtest" and (deferred_of(work).due or work.get("isPaused")):
            self._refuse("unfinished live work", "")
        self.risk.store(None, when_ms)
        if left["signal"] is not None:
            self._contract["signal"].write_signal_data(None, *self._slot)
        if left["schedule"] is not None:
            self._contract["schedule"].write_schedule_data(None, *self._slot)
        if work is not None and deferred_of(work).due:
            self.deferred(Deferred())
        self._write_session(when_ms, anew=True, status="running")
        self.log("info", when_ms, "run.started", {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms})

    def deferred(self, deferred: Deferred) -> None:
        """What is decided and not finished."""
        if self._context.backtest:
            self._check_not_live("strategy", self._read_strategy)
        elif self._owns:
            self.check_owner()
        self._owns = True
        self._out.put("strategy", "", {**deferred.row(self._context, self._mode), "_owner": self.run_id}, *self._slot)

    def check_owner(self) -> None:
        """TakenOverError if another live run goes on with these records since this one began: each would undo what the other writes."""
        row = self._read_strategy()
        if row is not None and row.get("_owner") not in (None, self.run_id):
            context = self._context
            raise TakenOverError(
                f"another run of {context.strategy_name!r} on {context.symbol} of {context.exchange_name} has taken over",
                hint="run a strategy on a symbol in one process only",
            )

    def scheduled(self, position: Position, price: float, when_ms: int) -> None:
        """A signal is about to wait for its price."""
        self._write_schedule(rows.signal_row(self._context, position))
        self._tell_scheduled(position, price, when_ms)

    def _tell_scheduled(self, position: Position, price: float, when_ms: int) -> None:
        self._write_storage(position, price, when_ms, "scheduled")
        self.notify(rows.notification_row(self._context, "signal.scheduled", position, price, when_ms))
        self.log("info", when_ms, "signal.scheduled", {"signalId": position.id, "priceOpen": position.price_open})

    def cancelling(self, position: Position, price: float, when_ms: int) -> None:
        """A scheduled signal will not open; its record goes in ``cancelled``."""
        self._write_storage(position, price, when_ms, "cancelled")

    def cancelled(self, position: Position, price: float, when_ms: int, reason: str) -> None:
        """A scheduled signal is gone."""
        self._write_schedule(None)
        duration = rows.minutes_between(position.scheduled_ms, when_ms)
        self.notify(
            rows.notification_row(self._context, "signal.cancelled", position, price, when_ms, cancelReason=reason, duration=duration)
        )
        self.log("info", when_ms, "signal.cancelled", {"signalId": position.id, "reason": reason})

    def opening(self, position: Position, when_ms: int, *, waited: bool) -> None:
        """A position is about to be opened: after this it is one, also for whoever reads the database."""
        # The slot first: a position without its risk slot would let another one through, a slot without position does not.
        self.write_risk(position, when_ms)
        self._write_signal(rows.signal_row(self._context, position))
        if waited:
            self._write_schedule(None)

    def opened(self, position: Position, when_ms: int) -> None:
        """A position is open."""
        price = position.price_open
        self._write_public(position, price, when_ms, None)
        self.notify(rows.notification_row(self._context, "signal.opened", position, price, when_ms))
        self.log("info", when_ms, "signal.opened", {"signalId": position.id, "position": position.signal.side, "priceOpen": price})

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
        self.notify(*(rows.notification_row(context, kind, position, price, when_ms, **more) for kind, more in news))

    def watched(self, position: Position, price: float, when_ms: int, *, extreme: bool) -> None:
        """A minute of a live position: its best or worst price, if it is a new one, and how it stands."""
        if extreme:
            self._write_signal(rows.signal_row(self._context, position))
        self._write_public(position, price, when_ms, None)

    def closing(self, position: Position, price: float, when_ms: int, reason: CloseReason, *, alone: bool = True) -> None:
        """A position has met its exit. The outcome is stored first; the open record goes last, in ``closed``.

        ``alone`` is False where risk slot and open record are those of another position, which stay.
        """
        self._write_public(position, price, when_ms, reason)
        if position.profit_levels or position.loss_levels:
            self._write_partial({}, position, when_ms)
        if position.breakeven:
            self._write_breakeven({}, position, when_ms)
        if alone:
            self.write_risk(None, when_ms)

    def closed(self, position: Position, price: float, when_ms: int, reason: CloseReason, session: Row, *, alone: bool = True) -> None:
        """A position is closed."""
        if alone:
            self._write_signal(None)
        duration = rows.minutes_between(position.opened_ms, when_ms)
        self.notify(
            rows.notification_row(
                self._context, "signal.closed", position, price, when_ms, priceClose=price, closeReason=reason, duration=duration
            )
        )
        self._write_session(when_ms, status="running", **session)
        self.log("info", when_ms, "signal.closed", {"signalId": position.id, "closeReason": reason, "priceClose": price})

    def failed(self, when_ms: int, name: str, message: str, *, fatal: bool) -> None:
        """User code has failed; a ``fatal`` failure ends the run."""
        self.log("warn", when_ms, "run.failed" if fatal else "run.error", {"error": name, "message": message})
        self.notify(rows.error_row(self._context, when_ms, name, message, "error.critical" if fatal else "error.info"))
        if fatal:
            self._write_session(when_ms, status="failed", message=message)

    def ignored(self, when_ms: int, error: BacktestKitError, *, first: bool) -> None:
        """A signal is not taken; the ``first`` of its kind is logged."""
        message, name = str(error), type(error).__name__
        if first:
            self.log("warn", when_ms, "signal.ignored", {"error": name, "message": message})
        self.notify(rows.error_row(self._context, when_ms, name, message, "error.validation"))

    def finished(self, when_ms: int, session: Row, status: str = "finished") -> None:
        """The window is over, or the run was stopped."""
        self._write_session(when_ms, status=status, **session)
        self.log("info", when_ms, f"run.{status}", session)

    def notify(self, *notifications: Row) -> None:
        """Write notifications."""
        self._tell("notification", [row | self._stamp for row in notifications], self._context.backtest)

    def log(self, kind: str, when_ms: int, topic: str, *args: Any) -> None:
        """Write a line of the Log contract."""
        self._tell("log", [rows.log_row(self._context, kind, when_ms, topic, *args)])

    def _tell(self, name: str, told: list[Row], *rest: Any) -> None:
        """Write what people read. In a live run a failure of that (a disk that is full) does not keep a position from being watched."""
        try:
            self._out.put_rows(name, told, *rest)
        except BacktestKitError as error:
            if self._context.backtest:
                raise
            log("error", f"{name}: {told[-1].get('topic') or told[-1].get('type')} could not be written: {error}")

    def flush(self) -> None:
        """Write what waits to be written."""
        self._out.flush()

    def flush_when_due(self) -> None:
        """Write what has waited for long."""
        self._out.flush_when_due()

    def save(self, error: Exception) -> None:
        """Write what waits when ``error`` ends the run, or add to it that this failed as well."""
        if pending_write_error(error) is not None:
            return
        try:
            self.flush()
        except BacktestKitError as second:
            error.add_note(f"the last records before this could not be written: {second}")

    def leave(self) -> None:
        """The run is over, or was cut off: be counted no more, and write nothing more."""
        self.risk.leave()
        self._out.forget()

    def write_risk(self, position: Position | None, when_ms: int) -> None:
        """Hold the slot of ``position``, or none."""
        self._out.call("risk", lambda: self.risk.store(position, when_ms), erases=position is None)
        self.risk.hold(position)

    # --- a restart ---

    def restore(self, when_ms: int) -> tuple[Deferred, Position | None, Position | None]:
        """What an earlier live run left: its work, its open position, its scheduled signal.

        Rows of another strategy, exchange or symbol, or of a backtest, are not ours, and stay as they are. What is finished but for
        its last write (a position that is being closed, a signal that is being opened) is erased here and goes on as work.
        InvalidValueError where the work belongs to a run of another mode.
        """
        row, signal, schedule = self._read_strategy(), self._read_signal(), self._read_schedule()
        recent = self._contract["recent"].read_recent_data(*self._slot, "", False)
        mode = None if row is None else row.get("_mode")
        position = self._mine(signal)
        waiting = self._mine(schedule)
        work = Deferred() if row is None or mode == "backtest" else _understood(deferred_of, row)
        if mode not in (None, "backtest", self._mode):  # also one that is flat: it may be running now, and open a position later
            context = self._context
            raise InvalidValueError(
                f"strategy {context.strategy_name!r} on {context.symbol} of {context.exchange_name} has the records of a {mode} run "
                f"in this database; a {self._mode} run would take them over",
                hint="give each mode a database of its own",
            )
        if work.last_id is None and recent is not None:
            work.last_id = recent["id"]
        if position is not None and work.closing is not None and work.closing.position.id == position.id:
            work.closing.position = position  # it may have seen more since the decision
            self._write_signal(None)
            position = None
        begun = [held.id for held in (position, work.cancelled, work.activated, work.opening) if held is not None]
        if waiting is not None and waiting.id in begun:
            self._write_schedule(None)
            waiting = None
        if waiting is not None:
            if work.last_id != waiting.id:  # cut off before the work was written, so what comes between may be missing
                self._tell_scheduled(waiting, waiting.price_open, when_ms)
            work.last_id = waiting.id
        if position is not None:
            work.pending_id = work.last_id = position.id
            if work.opening is not None and work.opening.id == position.id:
                work.opening, work.open_attempts = None, 0
                self.opened(position, when_ms)  # cut off before the work was written, so what comes between may be missing
            if work.activated is not None and work.activated.id == position.id:
                work.activated = None
            if work.cancelled is not None and work.cancelled.id == position.id:
                work.cancelled = None
            self._read_levels(position, when_ms)
        if work.created is not None and work.created.get("id") in (work.last_id, None if recent is None else recent["id"]):
            work.created = None
        self.risk.restore(position or (work.closing.position if work.closing else work.opening), when_ms)
        self.deferred(work)
        self._write_session(when_ms, status="running")
        self.log("info", when_ms, "run.started", {"signalId": None if position is None else position.id})
        return work, position, waiting

    def _mine(self, row: Row | None) -> Position | None:
        if row is None or row.get("frameName"):
            return None
        own = (row.get("symbol"), row.get("strategyName"), row.get("exchangeName")) == self._slot
        return _understood(rows.position_of, row) if own else None

    def _read_levels(self, position: Position, when_ms: int) -> None:
        symbol, strategy_name, exchange_name = self._slot
        key = symbol, strategy_name, position.id, exchange_name, when_ms
        levels = self._contract["partial"].read_partial_data(*key).get(position.id)
        if levels is not None:
            position.profit_levels, position.loss_levels = list(levels["profitLevels"]), list(levels["lossLevels"])
        reached = self._contract["breakeven"].read_breakeven_data(*key).get(position.id)
        position.breakeven = reached is not None and bool(reached["reached"])

    def _refuse(self, what: str, more: str) -> None:
        context = self._context
        raise InvalidValueError(
            f"strategy {context.strategy_name!r} has {what} in {context.symbol} on {context.exchange_name} "
            f"in this database{more}; a backtest of it would overwrite that record",
            hint="run the backtest on another database",
        )

    # --- single records ---

    def _read_signal(self) -> Row | None:
        row: Row | None = self._contract["signal"].read_signal_data(*self._slot)
        return row

    def _read_schedule(self) -> Row | None:
        row: Row | None = self._contract["schedule"].read_schedule_data(*self._slot)
        return row

    def _read_strategy(self) -> Row | None:
        row: Row | None = self._contract["strategy"].read_strategy_data(*self._slot)
        return row

    def _write_signal(self, row: Row | None) -> None:
        def write() -> None:
            self._check_not_live("signal", self._read_signal)
            self._contract["signal"].write_signal_data(row, *self._slot)

        self._out.call("signal", write, erases=row is None)

    def _write_schedule(self, row: Row | None) -> None:
        def write() -> None:
            self._check_not_live("schedule", self._read_schedule)
            self._contract["schedule"].write_schedule_data(row, *self._slot)

        self._out.call("schedule", write, erases=row is None)

    def _check_not_live(self, name: str, read: Callable[[], Row | None]) -> None:
        """A live run may have begun beside this backtest; its records are not overwritten."""
        row = read() if self._context.backtest else None
        if row is None:
            return
        if (row.get("_mode") != "backtest" and deferred_of(row).due) if name == "strategy" else not row.get("frameName"):
            self._refuse(f"a live record in {name}", "")

    def _write_storage(self, position: Position, price: float, when_ms: int, status: Status, reason: CloseReason | None = None) -> None:
        row = rows.storage_row(self._context, position, price, when_ms, status, reason)
        self._out.put_rows("storage", [row | self._stamp], self._context.backtest)

    def _write_public(self, position: Position, price: float, when_ms: int, reason: CloseReason | None) -> None:
        context = self._context
        self._write_storage(position, price, when_ms, "opened" if reason is None else "closed", reason)
        # The time of a Recent row is that of its signal, as in the framework.
        public = rows.public_row(context, position, price) | self._stamp
        self._out.put("recent", "", public, *self._slot, context.frame_name, context.backtest, position.opened_ms)
        state = rows.state_row(position, BUCKET, price, when_ms, "opened" if reason is None else "closed")
        self._out.put("state", position.id, state, position.id, BUCKET, when_ms)

    def _write_partial(self, data: Row, position: Position, when_ms: int) -> None:
        symbol, strategy_name, exchange_name = self._slot
        self._out.put("partial", position.id, data, symbol, strategy_name, position.id, exchange_name, when_ms)

    def _write_breakeven(self, data: Row, position: Position, when_ms: int) -> None:
        symbol, strategy_name, exchange_name = self._slot
        self._out.put("breakeven", position.id, data, symbol, strategy_name, position.id, exchange_name, when_ms)

    def _write_session(self, when_ms: int, *, anew: bool = False, **data: Any) -> None:
        context = self._context
        window = {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms} if context.backtest else {}
        row = rows.session_row(context, when_ms, {**window, **data})
        key = context.strategy_name, context.exchange_name, context.frame_name

        def write() -> None:
            contract = self._contract["session"]
            there = None if anew else contract.read_session_data(*key, context.symbol, context.backtest)
            if there is None or there.get("_run"):  # else it is what the strategy keeps for itself
                contract.write_session_data(row, *key, when_ms, context.symbol, context.backtest)

        self._out.call("session", write, erases=False)


def _understood(read: Callable[[Row], T], row: Row) -> T:
    """What ``read`` makes of a stored row; InvalidValueError for a row that is none of ours or of the framework's."""
    try:
        return read(row)
    except (KeyError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        if isinstance(error, BacktestKitError):
            raise
        raise InvalidValueError(
            f"a stored record of {row.get('strategyName') or 'the strategy'} cannot be read ({describe(error)}): {str(row)[:200]}",
            hint="look at it in the database, and mend or delete it",
        ) from error
