"""The state machine of a run: what each minute does to one strategy on one symbol. Backtest, paper and live runs share it.

Execution. The price at the time ``when`` is the volume-weighted typical price of the last five closed 1m candles. While no position
is open, the strategy is asked at every multiple of its interval. Its signal opens at that price at once, or waits for a price of its
own. From the next 1m candle on, a touch of the stop closes the position at the stop, a touch of the target at the target; if one
candle touches both, the stop counts. When the position's time is over, it closes at the close of the candle in which the time ends.
The time of every exit is the close of its candle. There is one position at a time, and the strategy is asked again at the first
multiple of its interval after the exit. A scheduled signal opens at its price in the first candle that touches that price. It is
cancelled by a candle that touches its stop, or after it has waited too long.

Paper and live runs have a broker, and store every decision that needs it in the Strategy contract first. Interrupted work is
resumed after a restart: a repeated order has the same id, so it is filled once.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from ...candles import align
from ...contracts.registry import Registry
from ...errors import InvalidTypeError, InvalidValueError
from ...logs import log
from ...simulation import iso_time
from ..clock import MINUTE_MS
from ..current_run import CurrentRun, RunScope
from ..market.average_price import VWAP_CANDLES, vwap
from ..market.candle_history import Candle
from ..strategy import BadSignalError, Strategy
from . import rows
from .broker import Broker
from .deferred import Closing, Deferred, Mode
from .journal import Journal
from .orders import cost_of, make_order
from .position import (
    CloseReason,
    Position,
    SignalPriceError,
    find_entry,
    find_exit,
    last_change_ms,
    note_price,
    nothing_left,
    observe,
    open_position,
    profit_of,
    read_signal,
)
from .position_changes import PositionChanges, held_quantity
from .result import OpenTrade, Trade
from .risk import Books
from .rows import Row, RunContext, derive_id
from .user_code import PERSISTENCE_ERRORS, OnError, UserCode
from .write_behind import PendingWrites

__all__ = ["Engine"]


class Engine(PositionChanges):
    """The state of a run between two candles. ``broker`` is None in a backtest."""

    def __init__(
        self,
        context: RunContext,
        strategy: Strategy,
        registry: Registry,
        mode: Mode = "backtest",
        *,
        broker: Broker | None = None,
        attempts: int = 10,
        wait_minutes: float = 120,
        clock: Callable[[], int] = lambda: 0,
        books: Books | None = None,
        pending: PendingWrites | None = None,
        on_error: OnError = "skip",
    ) -> None:
        self.context = context
        self.strategy = strategy
        self.journal: Journal = Journal(context, registry, mode, books, pending)
        self._user = UserCode(context, strategy, self.journal, on_error)
        self.run: CurrentRun = CurrentRun(
            registry=registry,
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            exchange_name=context.exchange_name,
            frame_name=context.frame_name,
            backtest=context.backtest,
            run_id=self.journal.run_id,
        )
        self.scope: RunScope = RunScope(self.run, flush=None if pending is None else pending.flush)
        """The scope of the code of this run. Whoever drives the run sets its candles, and enters it."""
        self.trades: list[Trade] = []
        self.asked: int = 0
        self.ignored: Counter[str] = Counter()
        """Signals that did not fit the price, by kind."""
        self.first_trade: float | None = None
        """When the first trade was closed, on the clock of ``time.perf_counter``."""
        self.position: Position | None = None
        self.waiting: Position | None = None
        self.deferred: Deferred = Deferred()
        self.stopped = False
        self.ready: bool = broker is None
        """Whether user functions may change the work. Before a restart has read the stored work, they would overwrite it."""
        self.now: int = 0
        """The time (ms) of the tick. A candle that was missed while the run was down has an earlier ``when``."""
        self._broker = broker
        self._clock = clock
        self._attempts = attempts
        self._wait_ms = wait_minutes * MINUTE_MS
        self._price = self._last_close = math.nan
        self._guessed = False  # the price is that of the entry, since no candle has been seen after a restart
        self._leaving: Position | None = None  # while its close is being reported
        self._requests = 0
        self._changed = False  # the deferred work must be stored, even in a backtest
        self._lock = threading.RLock()  # guards what other threads may change: the deferred work, and whether it applies

    # --- time ---

    @property
    def finished(self) -> bool:
        """Whether the run was stopped and has nothing left to do."""
        return self.stopped and self.position is None and self.waiting is None and not self.deferred.due

    @property
    def idle(self) -> bool:
        """Whether a minute in which the strategy is not asked has no effect."""
        return self.position is None and self.waiting is None and not self.deferred.due and "on_tick" not in self.strategy.callbacks

    def tick(self, candles: list[Candle], index: int, when: int, *, ask: bool, catching_up: bool = False) -> None:
        """Process the minute that ends at ``when`` (ms) with ``candles[index]``. The candles up to that one make the price.

        ``ask``: the strategy may be asked. ``catching_up``: the minute is long past, so nothing can open any more.
        """
        self.scope.now = when
        self.now = max(self.now, when)
        has_price = index + 1 >= VWAP_CANDLES
        before, self._price = self._price, vwap(candles[index + 1 - VWAP_CANDLES : index + 1]) if has_price else self._price
        self._last_close, self._guessed = candles[index]["close"], self._guessed and not has_price
        work = self.deferred
        if work.due and (catching_up or self.drain(when)):
            pass
        elif self.position is not None:
            if not self._leave(self.position, candles[index], when, before):
                self._hold(self.position, when, catching_up=catching_up)
        elif self.waiting is not None:
            self._await(self.waiting, candles[index], when, catching_up=catching_up)
        elif ask and has_price and not (self.stopped or work.paused):
            self._ask(when)
        if not catching_up:
            self._user.tell("on_tick", when, self._price)

    def reopen(self, when: int) -> None:
        """Submit the order of an interrupted opening again. Call it before the candles: the position may be open since an earlier one."""
        self.now = when  # moves back if the clock was ahead
        if self.deferred.opening is not None:
            self._submit_open(self.deferred.opening, when)

    def pass_without_candle(self, when: int) -> None:
        """Process a minute without trades, or without data from the exchange: do deferred work, close an expired position."""
        self.now = max(self.now, when)
        self.drain(when)
        position = self.position
        if position is not None and self.deferred.changes and self.deferred.closing is None and not self._guessed:
            self._make_changes(position, when, moves=False)
        if position is not None and self.deferred.closing is None and when >= position.expires_ms:
            self._close(position, "time_expired", self._price, when)

    def drain(self, when: int) -> bool:
        """Do the deferred work. Return False if the minute continues as if the work had been done in the minute before."""
        work = self.deferred
        if work.closing is not None:
            before = work.closing.when_ms < when
            self._submit_close(work.closing, when)
            return work.closing is not None or not before
        if work.opening is None and work.cancelled is not None:
            self._cancel(work.cancelled, work.cancel_reason, when)
        elif work.opening is None and work.activated is not None:
            self._activate(work.activated, when)
        elif work.created is not None and work.opening is None:
            if self.position is not None or self.waiting is not None:  # the strategy returned a signal in the same minute, and was first
                with self._lock:
                    work.created, self._changed = None, True
                    self._store_deferred()
                return False
            if not (self.stopped or work.paused or math.isnan(self._price)):
                self._take_created(work.created, when)
        return True

    # --- entries ---

    def _ask(self, when: int) -> None:
        self.asked += 1
        raw = self._user.get_signal(when)
        work = self.deferred
        if raw is not None and not (self.stopped or work.paused or work.created is not None):  # checked again: get_signal took time
            # The id is that of the start of the interval, so a restarted run that asks again gets the same signal.
            self._take(derive_id(self.context, align(when, self.strategy.interval_ms)), raw, when)

    def _take_created(self, created: Row, when: int) -> None:
        with self._lock:
            self.deferred.created, self._changed = None, True
        self._take(created["id"], {key: value for key, value in created.items() if key != "id"}, when)
        self._store_deferred()

    def _take(self, signal_id: str, raw: object, when: int) -> None:
        """Take a signal, once: open it now, let it wait for its price, or refuse it."""
        work, price = self.deferred, self._price
        if signal_id == work.last_id:
            return

        def read() -> Any:
            try:
                return read_signal(raw, price)
            except SignalPriceError:
                raise
            except (InvalidTypeError, InvalidValueError) as error:
                raise BadSignalError(f"{self._user.named(when)} returned an invalid signal: {error}") from error

        try:
            signal = self._user.guarded(read, when, again=(SignalPriceError, *PERSISTENCE_ERRORS))
        except SignalPriceError as error:
            self._ignore(error, when)
            return
        if signal is None:
            return
        waits = signal.price_open is not None
        entry_price = signal.price_open if signal.price_open is not None else price
        position = open_position(signal_id, signal, entry_price, when, self.context.costs.stake_usd, waits=waits)
        work.last_id = signal_id
        if not self._reserve(position, when, ask=waits):
            self._store_deferred()
        elif waits:  # only open positions count; the risk limit is checked again when this one opens
            self.journal.scheduled(position, price, when)
            self.waiting = position
            self.run.signal_id = signal_id
            self._store_deferred()
            self._user.tell("on_schedule", when, self._price, position)
        else:
            self._enter(position, when)

    def _ignore(self, error: SignalPriceError, when: int) -> None:
        """Count and report a signal that does not fit the price. The run goes on: the market may have moved since the signal was made."""
        first = error.kind not in self.ignored
        self.ignored[error.kind] += 1
        self.journal.ignored(when, error, first=first)
        if first:
            log("warning", f"{self._user.named(when)}: signal ignored: {error}")

    def _reserve(self, position: Position, when: int, *, ask: bool = False) -> bool:
        refusal = self.journal.risk.reserve(position, self._price, when, ask=ask)
        if refusal is None:
            return True
        note, active = refusal
        self.journal.notify(rows.rejection_row(self.context, position, self._price, when, note, active))
        self.journal.log("info", when, "risk.rejection", {"signalId": position.id, "note": note})
        return False

    def _await(self, waiting: Position, candle: Candle, when: int, *, catching_up: bool) -> None:
        entry = find_entry(waiting, candle)
        if entry == "passed":
            self._cancel(waiting, "price_reject", when)
        elif entry == "touched" and not catching_up:  # an entry that was missed while the run was down is not made up for
            self._activate(waiting, when)
        elif when >= waiting.scheduled_ms + self._wait_ms:
            self._cancel(waiting, "timeout", when)

    def _activate(self, waiting: Position, when: int) -> None:
        signal = msgspec.structs.replace(waiting.signal, price_open=None)
        cost = waiting.entries[0].cost
        position = open_position(waiting.id, signal, waiting.price_open, when, cost, scheduled_ms=waiting.scheduled_ms)
        if self._reserve(position, when):
            self._enter(position, when)
        else:
            self._cancel(waiting, "risk_reject", when)

    def _cancel(self, waiting: Position, reason: str, when: int) -> None:
        with self._lock:
            work = self.deferred
            if self._broker is not None and work.cancelled is None:
                work.cancelled, work.cancel_reason = waiting, reason
                self.journal.deferred(work)
        self.journal.cancelling(waiting, self._price, when)
        self._user.tell("on_cancel", when, self._price, waiting, reason)
        self.journal.cancelled(waiting, self._price, when, reason)
        with self._lock:
            self._changed |= work.cancelled is not None or work.activated is not None
            self.waiting = work.cancelled = work.activated = None
            self.run.signal_id = None
            self._store_deferred()

    def _enter(self, position: Position, when: int) -> None:
        if self._broker is None:
            self._opened(position, when)
            return
        self.journal.write_risk(position, when)  # before the order: after a crash, a run that restarts first must not take the slot
        with self._lock:
            work = self.deferred
            cancelled = work.cancelled is not None and self.waiting is not None
            if not cancelled:
                work.opening, work.open_attempts, work.activated = position, 1, None
                self.journal.deferred(work)
        if cancelled and self.waiting is not None:  # by a user, after its price was touched
            self.journal.write_risk(None, when)
            self._cancel(self.waiting, work.cancel_reason, when)
            return
        self._submit_open(position, when, first=True)

    def _submit_open(self, position: Position, when: int, *, first: bool = False) -> None:
        entry = position.entries[0]
        order = make_order(self.context, "open", position, position.price_open, entry.coins)
        fill = self._submit(order, position, when, first=first)
        if fill is None:
            return
        opened, cost = self._moment(fill, position.opened_ms), cost_of(fill, entry.cost)
        placed = open_position(position.id, position.signal, fill.price, opened, cost, scheduled_ms=position.scheduled_ms)
        placed.quantity = fill.quantity
        self._opened(placed, when)

    def _opened(self, position: Position, when: int) -> None:
        work = self.deferred
        self.journal.opening(position, when, waited=self.waiting is not None)
        self.journal.opened(position, when)
        with self._lock:
            self._changed |= work.activated is not None or work.cancelled is not None
            self.position, self.waiting = position, None
            work.opening, work.open_attempts = None, 0
            work.activated = work.cancelled = None  # too late to cancel: the position is open
            work.pending_id = self.run.signal_id = position.id
            self._store_deferred()
        self._price = position.price_open if math.isnan(self._price) else self._price
        self._user.tell("on_open", when, self._price, position)

    # --- an open position ---

    def _leave(self, position: Position, candle: Candle, when: int, before: float) -> bool:
        if candle["timestamp"] < position.opened_ms and self._broker is not None:
            return False  # the order took its time; candles before its fill do not affect the position
        if candle["timestamp"] < position.moved_ms:
            return False  # a restart looks at it again: it did not touch the stop and the target of its time
        reason_and_price = find_exit(position, candle)
        if reason_and_price is None:
            return False
        self._price = before  # the exit is inside the candle: what is reported must not know a price from after it
        self._close(position, *reason_and_price, when)
        return True

    def _hold(self, position: Position, when: int, *, catching_up: bool) -> None:
        peak, fall = position.peak, position.fall
        # The minutes before a change were observed before it; a restart sees them again.
        passed = None if position.changed and when <= last_change_ms(position) else observe(position, self._price, when, self.context.costs)
        if passed is not None:
            self.journal.progressed(position, self._price, when, passed)
        if catching_up:
            return
        if self._broker is not None:
            extreme = position.peak is not peak or position.fall is not fall
            self.journal.watched(position, self._price, when, extreme=extreme)
        if self.deferred.changes and self.deferred.closing is None:
            self._make_changes(position, when)  # before the strategy looks at the position
        self._user.tell("on_active_ping", when, self._price, position)
        if self.deferred.changes and self.deferred.closing is None:
            self._make_changes(position, when)
        if self.deferred.closing is not None:
            self._submit_close(self.deferred.closing, when, first=True)

    def _close(self, position: Position, reason: CloseReason, price: float, when: int) -> None:
        if self._broker is None:
            self._closed(position, reason, price, when)
            return
        with self._lock:
            work = self.deferred
            if work.closing is None:
                work.closing = Closing(position, reason, price, when)
            work.close_attempts = 1
            self.journal.deferred(work)
        self._submit_close(work.closing, when, first=True)

    def _submit_close(self, closing: Closing, when: int, *, first: bool = False) -> None:
        position = closing.position
        price = self._price if closing.reason == "closed" and not math.isnan(self._price) else closing.price
        if self.deferred.changes and not self._finish_changes(position, when):
            return
        if self._broker is None or nothing_left(position):
            self._closed(position, closing.reason, price, when)
            return
        order = make_order(self.context, "close", position, price, held_quantity(position))
        fill = self._submit(order, position, when, first=first)
        if fill is not None:
            self._note_unsold(order, fill, when)
            self._closed(position, closing.reason, fill.price, self._moment(fill, closing.when_ms or when))

    def _closed(self, position: Position, reason: CloseReason, price: float, when: int) -> None:
        context, work = self.context, self.deferred
        note_price(position, price, when)
        trade = Trade(
            id=position.id,
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            position=position.signal.side,
            price_open=position.entry_price,
            price_close=price,
            open_timestamp=position.opened_ms,
            close_timestamp=when,
            close_reason=reason,
            pnl_percentage=profit_of(position, price, context.costs),
            **self._size(position),
        )
        alone = self.position is None or self.position.id == position.id
        self.journal.closing(position, price, when, reason, alone=alone)
        self._leaving = position
        self._user.tell("on_close", when, price, position, reason)
        self.journal.closed(position, price, when, reason, rows.summary_row([*self.trades, trade]), alone=alone)
        with self._lock:
            self._changed |= work.closing is not None or bool(work.changes)
            work.closing, work.close_attempts = None, 0
            work.changes = [change for change in work.changes if change.position_id != position.id]
            if alone:
                self.position = work.pending_id = self.run.signal_id = None
            self._store_deferred()
            self._leaving = None
            self.first_trade = self.first_trade or time.perf_counter()
            self.trades.append(trade)  # last: if the write fails, all of this is done again

    # --- restarts and results ---

    def restore(self, when: int) -> None:
        """Resume where an earlier run was cut off, or where this one lost a server."""
        previous = self.position or self.waiting
        if self.ready:
            self.journal.check_owner()
        with self._lock:  # a request that a user makes meanwhile must not be overwritten with an older state
            self.deferred, self.position, self.waiting = self.journal.restore(when)
            restored = self.position or self.waiting
            self.run.signal_id = None if restored is None else restored.id
            self._changed = False
            self.ready = True
        if restored is None or (previous is not None and previous.id == restored.id):
            return
        if math.isnan(self._price):
            self._price = self._last_close = restored.price_open
            self._guessed = True
        side, stop, target = restored.signal.side, restored.price_stop_loss, restored.price_take_profit
        state = f"waits for {restored.price_open}" if restored is self.waiting else f"opened {iso_time(restored.opened_ms)}"
        log("info", f"{self._user.named(when)}: resumed a {side}, {state}, stop {stop}, target {target}")
        self._user.tell("on_schedule" if restored is self.waiting else "on_active", when, self._price, restored)

    @property
    def errors_skipped(self) -> int:
        """How many errors of the strategy's functions were skipped so far."""
        return self._user.skipped

    def open_trade(self) -> OpenTrade | None:
        """Return the open position, valued at the last price; None if there is none."""
        position = self.position
        if position is None:
            return None
        return OpenTrade(
            id=position.id,
            symbol=self.context.symbol,
            strategy_name=self.context.strategy_name,
            position=position.signal.side,
            price_open=position.entry_price,
            open_timestamp=position.opened_ms,
            current_price=self._price,
            pnl_percentage=profit_of(position, self._price, self.context.costs),
            **self._size(position),
        )

    def _size(self, position: Position) -> dict[str, Any]:
        stake = self.context.costs.stake_usd
        stakes = position.invested / stake if stake else 1.0
        return {"entries": len(position.entries), "partials": len(position.partials), "stakes": stakes}

    def summary(self) -> Row:
        """Return what the session records about the run so far."""
        return rows.summary_row(self.trades)
