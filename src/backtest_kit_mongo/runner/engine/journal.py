"""What a run writes through the contracts, and in which order: each step is stored before the run acts on it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ...contracts.registry import Registry
from ...domains import DomainName
from ...errors import BacktestKitError, InvalidValueError
from ...logs import log
from ..error_text import describe
from . import rows
from .changes import Change, Commit, commit_of, queued_commits
from .deferred import Closing, Deferred, Mode, deferred_of
from .position import CloseReason, Position, Progress, nothing_left
from .risk import Books, RiskBook
from .rows import Row, RunContext, Status
from .write_behind import PendingWrites, WriteBehind, WriteThrough, pending_write_error

__all__ = ["BUCKET", "Journal", "TakenOverError"]

T = TypeVar("T")


class TakenOverError(BacktestKitError, RuntimeError):
    """Another live run of the same strategy, symbol and exchange has started on the same records. This run ends."""


BUCKET: Final = "position"
"""The bucket of the State contract in which a run records the state of a position."""


class Journal:
    """The records of one run. Times are in ms (simulation time in a backtest), prices are market prices.

    Each record is written at once. With ``PendingWrites`` it is written shortly after, and always before code of the run reads it.
    """

    def __init__(
        self, context: RunContext, registry: Registry, mode: Mode, books: Books | None = None, pending: PendingWrites | None = None
    ) -> None:
        self._context = context
        self._mode: Mode = mode
        self.run_id: str = uuid.uuid4().hex
        self._owns = False  # whether the Strategy record names this run as its owner
        # Rows of an earlier backtest with the same names stay unless this one overwrites them. The facades tell them apart by this id.
        self._stamp: Row = {"runId": self.run_id} if context.backtest else {}
        self._contract: dict[str, Any] = {
            name: registry.adapter(name)
            for name in (
                "signal", "schedule", "strategy", "partial", "breakeven", "storage", "recent", "state", "notification", "session", "log",
            )
        }  # fmt: skip
        self._slot = context.symbol, context.strategy_name, context.exchange_name
        self.risk: RiskBook = RiskBook(context, registry, books)
        self._out = WriteThrough(self._contract) if pending is None else WriteBehind(self._contract, pending, self.run_id)

    def begin(self, when_ms: int) -> None:
        """Prepare the records for a backtest: end what an earlier run with the same names left open.

        Signal, Schedule, Strategy and Risk have no mode in their keys, so a backtest would overwrite the open position of a live
        run. Live rows have an empty ``frameName``. Raises InvalidValueError, without writing anything, if there is one.
        """
        context = self._context
        leftovers = {"signal": self._read_signal(), "schedule": self._read_schedule()}
        work = self._read_strategy()
        for kind, row in (("position", leftovers["signal"]), ("scheduled signal", leftovers["schedule"])):
            if row is not None and not row.get("frameName"):
                self._refuse(f"an open live {kind}", f" (signal {row.get('id')})")
        if work is not None and work.get("_mode") != "backtest" and (deferred_of(work).due or work.get("isPaused")):
            self._refuse("unfinished live work", "")
        self.risk.store(None, when_ms)
        if leftovers["signal"] is not None:
            self._contract["signal"].write_signal_data(None, *self._slot)
        if leftovers["schedule"] is not None:
            self._contract["schedule"].write_schedule_data(None, *self._slot)
        if work is not None and deferred_of(work).due:
            self.deferred(Deferred())
        self._write_session(when_ms, new_run=True, status="running")
        self.log("info", when_ms, "run.started", {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms})

    def deferred(self, deferred: Deferred) -> None:
        """Store the work that is decided and not finished."""
        if self._context.backtest:
            self._check_not_live("strategy", self._read_strategy)
        elif self._owns:
            self.check_owner()
        self._owns = True
        self._out.put("strategy", "", {**deferred.row(self._context, self._mode), "_owner": self.run_id}, *self._slot)

    def check_owner(self) -> None:
        """Raise TakenOverError if another live run has taken over these records: each run would undo what the other writes."""
        row = self._read_strategy()
        if row is not None and row.get("_owner") not in (None, self.run_id):
            context = self._context
            raise TakenOverError(
                f"another run of {context.strategy_name!r} on {context.symbol} of {context.exchange_name} has taken over",
                hint="run a strategy on a symbol in one process only",
            )

    def scheduled(self, position: Position, price: float, when_ms: int) -> None:
        """Record a signal that is about to wait for its price."""
        self._write_schedule(rows.signal_row(self._context, position))
        self._tell_scheduled(position, price, when_ms)

    def _tell_scheduled(self, position: Position, price: float, when_ms: int) -> None:
        self._write_storage(position, price, when_ms, "scheduled")
        self.notify(rows.notification_row(self._context, "signal.scheduled", position, price, when_ms))
        self.log("info", when_ms, "signal.scheduled", {"signalId": position.id, "priceOpen": position.price_open})

    def cancelling(self, position: Position, price: float, when_ms: int) -> None:
        """Record that a scheduled signal will not open. ``cancelled`` removes its open record."""
        self._write_storage(position, price, when_ms, "cancelled")

    def cancelled(self, position: Position, price: float, when_ms: int, reason: str) -> None:
        """Remove the record of a cancelled signal and report it."""
        self._write_schedule(None)
        duration = rows.minutes_between(position.scheduled_ms, when_ms)
        self.notify(
            rows.notification_row(self._context, "signal.cancelled", position, price, when_ms, cancelReason=reason, duration=duration)
        )
        self.log("info", when_ms, "signal.cancelled", {"signalId": position.id, "reason": reason})

    def opening(self, position: Position, when_ms: int, *, waited: bool) -> None:
        """Record a position that is about to open. From then on it counts as open, for readers of the database too."""
        # The slot first: a position without its risk slot would let another one through, a slot without a position does not.
        self.write_risk(position, when_ms)
        self._write_signal(rows.signal_row(self._context, position))
        if waited:
            self._write_schedule(None)

    def opened(self, position: Position, when_ms: int) -> None:
        """Record and report an open position."""
        price = position.price_open
        self._write_public(position, price, when_ms, None)
        self.notify(rows.notification_row(self._context, "signal.opened", position, price, when_ms))
        self.log("info", when_ms, "signal.opened", {"signalId": position.id, "position": position.signal.side, "priceOpen": price})

    def progressed(self, position: Position, price: float, when_ms: int, progress: Progress) -> None:
        """Record and report that an open position has passed levels or covered its costs."""
        context = self._context
        if progress.profit_levels or progress.loss_levels:
            self._write_partial(
                {position.id: {"profitLevels": list(position.profit_levels), "lossLevels": list(position.loss_levels)}}, position, when_ms
            )
        if progress.breakeven:
            self._write_breakeven({position.id: {"reached": True}}, position, when_ms)
        events: list[tuple[str, dict[str, Any]]] = [("partial_profit.available", {"level": level}) for level in progress.profit_levels]
        events += [("partial_loss.available", {"level": level}) for level in progress.loss_levels]
        events += [("breakeven.available", {})] if progress.breakeven else []
        self.notify(*(rows.notification_row(context, kind, position, price, when_ms, **extra) for kind, extra in events))

    def watched(self, position: Position, price: float, when_ms: int, *, extreme: bool) -> None:
        """Record a minute of a live position: its state, and its best or worst price if that is new (``extreme``)."""
        if extreme:
            self._write_signal(rows.signal_row(self._context, position))
        self._write_public(position, price, when_ms, None)

    def changed(self, position: Position, when_ms: int, change_id: str, commit: Commit, *, is_open: bool = True) -> None:
        """Record and report a change of a position.

        ``is_open`` is False for a position that is being closed since before a restart: the deferred work has its only row.
        """
        if is_open:
            self._write_signal(rows.signal_row(self._context, position))
        self._report_change(position, when_ms, change_id, commit)

    def _report_change(self, position: Position, when_ms: int, change_id: str, commit: Commit) -> None:
        self._write_public(position, commit.price, when_ms, None)
        self.notify(rows.notification_row(self._context, commit.kind, position, commit.price, when_ms, change_id=change_id, **commit.more))
        self.log("info", when_ms, commit.kind, {"signalId": position.id, "currentPrice": commit.price, **commit.more})

    def closing(self, position: Position, price: float, when_ms: int, reason: CloseReason, *, alone: bool = True) -> None:
        """Record the outcome of a position that has reached its exit. ``closed`` removes the open record last.

        ``alone`` is False if the risk slot and the open record belong to another position, which keeps them.
        """
        self._write_public(position, price, when_ms, reason)
        if position.profit_levels or position.loss_levels:
            self._write_partial({}, position, when_ms)
        if position.breakeven:
            self._write_breakeven({}, position, when_ms)
        if alone:
            self.write_risk(None, when_ms)

    def closed(self, position: Position, price: float, when_ms: int, reason: CloseReason, session: Row, *, alone: bool = True) -> None:
        """Remove the open record of a closed position, if it is its own, and report the close."""
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
        """Record and report an error. A ``fatal`` error ends the run."""
        self.log("warn", when_ms, "run.failed" if fatal else "run.error", {"error": name, "message": message})
        self.notify(rows.error_row(self._context, when_ms, name, message, "error.critical" if fatal else "error.info"))
        if fatal:
            self._write_session(when_ms, status="failed", message=message)

    def ignored(self, when_ms: int, error: BacktestKitError, *, first: bool) -> None:
        """Report a signal that is not taken. Only the ``first`` of its kind is logged."""
        message, name = str(error), type(error).__name__
        if first:
            self.log("warn", when_ms, "signal.ignored", {"error": name, "message": message})
        self.notify(rows.error_row(self._context, when_ms, name, message, "error.validation"))

    def finished(self, when_ms: int, session: Row, status: str = "finished") -> None:
        """Record that the window is over or the run was stopped."""
        self._write_session(when_ms, status=status, **session)
        self.log("info", when_ms, f"run.{status}", session)

    def notify(self, *notifications: Row) -> None:
        """Write notifications."""
        self._tell("notification", [row | self._stamp for row in notifications], self._context.backtest)

    def log(self, kind: str, when_ms: int, topic: str, *args: Any) -> None:
        """Write an entry of the Log contract."""
        self._tell("log", [rows.log_row(self._context, kind, when_ms, topic, *args)])

    def _tell(self, name: DomainName, told: list[Row], *rest: Any) -> None:
        """Write what people read. In a live run, a failure here (such as a full disk) must not stop the run from watching a position."""
        try:
            self._out.put_rows(name, told, *rest)
        except BacktestKitError as error:
            if self._context.backtest:
                raise
            log("error", f"{name}: {told[-1].get('topic') or told[-1].get('type')} could not be written: {error}")

    def flush(self) -> None:
        """Write all pending writes."""
        self._out.flush()

    def flush_when_due(self) -> None:
        """Write all pending writes if they are due."""
        self._out.flush_when_due()

    def save(self, error: Exception) -> None:
        """Write all pending writes when ``error`` ends the run; add a note to ``error`` if that fails too."""
        if pending_write_error(error) is not None:
            return
        try:
            self.flush()
        except BacktestKitError as second:
            error.add_note(f"the last records before this could not be written: {second}")

    def leave(self) -> None:
        """Leave the books and drop pending writes, because the run is over or was cut off."""
        self.risk.leave()
        self._out.forget()

    def write_risk(self, position: Position | None, when_ms: int) -> None:
        """Hold the risk slot of ``position``; hold none if it is None."""
        self._out.call("risk", lambda: self.risk.store(position, when_ms), erases=position is None)
        self.risk.hold(position)

    # --- restarts ---

    def restore(self, when_ms: int) -> tuple[Deferred, Position | None, Position | None]:
        """Return what an earlier live run left: its work, its open position, its scheduled signal.

        Rows of another strategy, exchange or symbol, or of a backtest, are not ours and stay as they are. An open record that only
        lacks its last write (a position being closed, a signal being opened) is removed here and continues as deferred work.
        Raises InvalidValueError if the work belongs to a run of another mode.
        """
        row, signal, schedule = self._read_strategy(), self._read_signal(), self._read_schedule()
        recent = self._contract["recent"].read_recent_data(*self._slot, "", False)
        mode = None if row is None else row.get("_mode")
        position = self._mine(signal)
        waiting = self._mine(schedule)
        work = Deferred() if row is None or mode == "backtest" else _understood(deferred_of, row)
        if mode not in (None, "backtest", self._mode):  # even without a position: that run may be active now, and open one later
            context = self._context
            raise InvalidValueError(
                f"strategy {context.strategy_name!r} on {context.symbol} of {context.exchange_name} has the records of a {mode} run "
                f"in this database; a {self._mode} run would take them over",
                hint="use a separate database for each mode",
            )
        if work.last_id is None and recent is not None:
            work.last_id = recent["id"]
        if position is not None and position.moved and not position.moved_ms:
            position.moved_ms = when_ms  # by the TypeScript package, which does not say when: candles before must not touch its new stop
        if position is not None and work.closing is None and nothing_left(position):
            work.closing = Closing(position, "closed", position.partials[-1].price, when_ms)
            self.deferred(work)
        if position is not None and work.closing is not None and work.closing.position.id == position.id:
            work.closing.position = position  # its extremes may be newer than the decision
            self._write_signal(None)
            position = None
        begun = [started.id for started in (position, work.cancelled, work.activated, work.opening) if started is not None]
        if waiting is not None and waiting.id in begun:
            self._write_schedule(None)
            waiting = None
        if waiting is not None:
            if work.last_id != waiting.id:  # cut off before the work was stored, so the writes in between may be missing
                self._tell_scheduled(waiting, waiting.price_open, when_ms)
            work.last_id = waiting.id
        if position is not None:
            work.pending_id = work.last_id = position.id
            if work.opening is not None and work.opening.id == position.id:
                work.opening, work.open_attempts = None, 0
                self.opened(position, when_ms)  # cut off before the work was stored, so the writes in between may be missing
            if work.activated is not None and work.activated.id == position.id:
                work.activated = None
            if work.cancelled is not None and work.cancelled.id == position.id:
                work.cancelled = None
            self._read_levels(position, when_ms)
        work.changes = self._changes_left(work, row, position, when_ms)
        if work.created is not None and work.created.get("id") in (work.last_id, None if recent is None else recent["id"]):
            work.created = None
        self.risk.restore(position or (work.closing.position if work.closing else work.opening), when_ms)
        self.deferred(work)
        self._write_session(when_ms, status="running")
        self.log("info", when_ms, "run.started", {"signalId": None if position is None else position.id})
        return work, position, waiting

    def _changes_left(self, work: Deferred, row: Row | None, position: Position | None, when_ms: int) -> list[Change]:
        """Return the changes that are still to be made. What was made and not reported, by us or the TypeScript package, is reported."""
        target = position or (None if work.closing is None else work.closing.position)
        if target is None or row is None:
            return []
        left = []
        for change in work.changes:
            if change.position_id != target.id:
                continue
            commit = commit_of(target, change.id)
            if commit is None:
                left.append(change)
            else:  # cut off before the work was stored, so the writes in between may be missing
                self._report_change(target, when_ms, change.id, commit)
        queue = row.get("commitQueue") or []
        # After partial closes of 100 percent, no position is pending. If the target or the stop closes it, that package drops the queue.
        owners = {target.id, None} if work.closing is not None and work.closing.reason == "closed" else {target.id}
        if queue and row.get("pendingSignalId") not in owners:
            self.log("warn", when_ms, "commits.dropped", {"signalId": row.get("pendingSignalId"), "commits": len(queue)})
            queue = []
        for number, commit in enumerate(_understood(lambda stored: queued_commits(stored["commitQueue"], target), {"commitQueue": queue})):
            self._report_change(target, when_ms, f"{target.id} queued {number} {commit.kind} {commit.price}", commit)
        return left

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
        """Refuse to overwrite the record of a live run that started while this backtest runs."""
        row = read() if self._context.backtest else None
        if row is None:
            return
        if (row.get("_mode") != "backtest" and deferred_of(row).due) if name == "strategy" else not row.get("frameName"):
            self._refuse(f"a live {name} record", "")

    def _write_storage(self, position: Position, price: float, when_ms: int, status: Status, reason: CloseReason | None = None) -> None:
        row = rows.storage_row(self._context, position, price, when_ms, status, reason)
        self._out.put_rows("storage", [row | self._stamp], self._context.backtest)

    def _write_public(self, position: Position, price: float, when_ms: int, reason: CloseReason | None) -> None:
        context = self._context
        self._write_storage(position, price, when_ms, "opened" if reason is None else "closed", reason)
        # The time of a Recent row is that of its signal, as in the TypeScript package.
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

    def _write_session(self, when_ms: int, *, new_run: bool = False, **data: Any) -> None:
        context = self._context
        window = {"startTimestamp": context.start_ms, "endTimestamp": context.end_ms} if context.backtest else {}
        row = rows.session_row(context, when_ms, {**window, **data})
        key = context.strategy_name, context.exchange_name, context.frame_name

        def write() -> None:
            contract = self._contract["session"]
            stored = None if new_run else contract.read_session_data(*key, context.symbol, context.backtest)
            if stored is None or stored.get("_run"):  # otherwise the strategy keeps its own session there
                contract.write_session_data(row, *key, when_ms, context.symbol, context.backtest)

        self._out.call("session", write, erases=False)


def _understood(read: Callable[[Row], T], row: Row) -> T:
    """Return ``read(row)``. Raises InvalidValueError if neither we nor the TypeScript package wrote the stored row."""
    try:
        return read(row)
    except (KeyError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        if isinstance(error, BacktestKitError):
            raise
        raise InvalidValueError(
            f"a stored record of {row.get('strategyName') or 'the strategy'} cannot be read ({describe(error)}): {str(row)[:200]}",
            hint="repair or delete it in the database",
        ) from error
