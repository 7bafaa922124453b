"""The state machine of a run: what each minute does to one strategy on one symbol. Backtest, paper and live are the same machine.

Execution. At the time ``when`` the price is the volume-weighted typical price of the last five closed 1m candles. A strategy
without a position is asked at every multiple of its interval; a signal opens at that price, at once, or waits for its own. From the
next 1m candle on, a touch of the stop closes at the stop, a touch of the target at the target, the stop first where one candle
touches both; when the time of the position is over, it closes at the close of the candle in which that happens. Every exit is
stamped with the close of its candle. There is one position at a time, and the strategy is asked again at the first multiple of its
interval after the exit. A signal that waits opens at its price in the first candle that touches it; it is cancelled by a candle that
touches its stop, and when it has waited too long.

Paper and live runs have a broker, and every decision that needs it is written to the Strategy contract first. Whatever is cut off
after that is gone on with: an order has the same id each time, so it is filled once.
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
from ...contracts.adapters import Registry
from ...errors import InvalidTypeError, InvalidValueError
from ...logs import log
from ..clock import MINUTE_MS, advance_to
from ..current_run import CurrentRun
from ..error_text import describe
from ..market.average_price import VWAP_CANDLES, vwap
from ..market.candle_history import Candle
from ..strategy import BadSignalError, Strategy
from . import rows
from .broker import Broker, Fill, Order, OrderFailedError, OrderRejected
from .deferred import Closing, Deferred, Mode
from .journal import Journal
from .orders import make_order, submit
from .position import (
    CloseReason,
    Position,
    SignalPriceError,
    find_entry,
    find_exit,
    note_price,
    observe,
    open_position,
    pnl_percentage,
    read_signal,
)
from .result import OpenTrade, Trade
from .risk import Books
from .rows import Row, RunContext, derive_id
from .user_code import PERSISTENCE_ERRORS, OnError, UserCode
from .user_requests import UserRequests
from .write_behind import PendingWrites

__all__ = ["Engine"]


class Engine(UserRequests):
    """What a run holds between two candles. ``broker`` is None in a backtest."""

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
        late: PendingWrites | None = None,
        on_error: OnError = "skip",
    ) -> None:
        self.context = context
        self.strategy = strategy
        self.journal = Journal(context, registry, mode, books, late)
        self._user = UserCode(context, strategy, self.journal, on_error)
        self.running = CurrentRun(
            registry=registry,
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            exchange_name=context.exchange_name,
            frame_name=context.frame_name,
            backtest=context.backtest,
            run_id=self.journal.run_id,
        )
        self.trades: list[Trade] = []
        self.asked = 0
        self.ignored: Counter[str] = Counter()
        """Signals that did not fit the price, by kind."""
        self.first_trade: float | None = None
        """When the first trade was closed, on the clock of time.perf_counter."""
        self.position: Position | None = None
        self.waiting: Position | None = None
        self.deferred = Deferred()
        self.stopped = False
        self.ready = broker is None
        """Whether functions of users may change the work: before a restart has read it, they would overwrite it."""
        self.now = 0
        """The time (ms) of the tick; ``when`` of a candle that was missed while the run was down is earlier."""
        self._broker = broker
        self._clock = clock
        self._attempts = attempts
        self._wait_ms = wait_minutes * MINUTE_MS
        self._price = math.nan
        self._changed = False  # what is deferred has to be written, also in a backtest
        self._lock = threading.RLock()  # of what functions of other threads may change: the deferred work, and whether it applies

    # --- time ---

    @property
    def finished(self) -> bool:
        """Whether it was stopped, and nothing is left to do."""
        return self.stopped and self.position is None and self.waiting is None and not self.deferred.due

    @property
    def idle(self) -> bool:
        """Whether nothing happens in a minute in which the strategy is not asked."""
        return self.position is None and self.waiting is None and not self.deferred.due and "on_tick" not in self.strategy.callbacks

    def tick(self, candles: list[Candle], index: int, when: int, *, ask: bool, late: bool = False) -> None:
        """The minute that ends at ``when``, with ``candles[index]``; those before it make the price.

        ``ask``: the strategy may be asked. ``late``: it is long past, so that nothing can be opened in it any more.
        """
        advance_to(when)
        self.now = max(self.now, when)
        known = index + 1 >= VWAP_CANDLES
        before, self._price = self._price, vwap(candles[index + 1 - VWAP_CANDLES : index + 1]) if known else self._price
        work = self.deferred
        if work.due and (late or self.drain(when)):
            pass
        elif self.position is not None:
            if not self._leave(self.position, candles[index], when, before):
                self._hold(self.position, when, late=late)
        elif self.waiting is not None:
            self._await(self.waiting, candles[index], when, late=late)
        elif ask and known and not (self.stopped or work.paused):
            self._ask(when)
        if not late:
            self._user.tell("on_tick", when, self._price)

    def reopen(self, when: int) -> None:
        """Ask again for the order of a signal that was being opened; before the candles, as it may be open since earlier ones."""
        self.now = when  # earlier than before where the clock was ahead
        if self.deferred.opening is not None:
            self._submit_open(self.deferred.opening, when)

    def pass_without_candle(self, when: int) -> None:
        """A minute in which nothing was traded, or of which the exchange says nothing: what is decided and what is over goes on."""
        self.now = max(self.now, when)
        self.drain(when)
        position = self.position
        if position is not None and self.deferred.closing is None and when >= position.expires_ms:
            self._close(position, "time_expired", self._price, when)

    def drain(self, when: int) -> bool:
        """Go on with what was decided; False if the minute goes on as if that had been done in the one before."""
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
            if self.position is not None or self.waiting is not None:  # the strategy gave a signal in the same minute, and was first
                with self._lock:
                    work.created, self._changed = None, True
                    self._settle()
                return False
            if not (self.stopped or work.paused or math.isnan(self._price)):
                self._take_created(work.created, when)
        return True

    # --- entries ---

    def _ask(self, when: int) -> None:
        self.asked += 1
        raw = self._user.get_signal(when)
        work = self.deferred
        if raw is not None and not (self.stopped or work.paused or work.created is not None):  # it may have been asked for meanwhile
            # The start of the interval, so that it is the same signal when a restarted run asks again.
            self._take(derive_id(self.context, align(when, self.strategy.interval_ms)), raw, when)

    def _take_created(self, created: Row, when: int) -> None:
        with self._lock:
            self.deferred.created, self._changed = None, True
        self._take(created["id"], {key: value for key, value in created.items() if key != "id"}, when)
        self._settle()

    def _take(self, signal_id: str, raw: object, when: int) -> None:
        """A signal: it opens now, or waits for its price, or is refused. Each is taken once."""
        work, price = self.deferred, self._price
        if signal_id == work.last_id:
            return

        def read() -> Any:
            try:
                return read_signal(raw, price)
            except SignalPriceError:
                raise
            except (InvalidTypeError, InvalidValueError) as error:
                raise BadSignalError(f"{self._user.named(when)} returned no valid signal: {error}") from error

        try:
            signal = self._user.guarded(read, when, again=(SignalPriceError, *PERSISTENCE_ERRORS))
        except SignalPriceError as error:
            self._ignore(error, when)
            return
        if signal is None:
            return
        waits = signal.price_open is not None
        position = open_position(signal_id, signal, signal.price_open if waits else price, when, waits=waits)
        work.last_id = signal_id
        if not self._reserve(position, when, ask=waits):
            self._settle()
        elif waits:  # only an open position counts; the limit is asked again when it opens
            self.journal.scheduled(position, price, when)
            self.waiting = position
            self.running.signal_id = signal_id
            self._settle()
            self._user.tell("on_schedule", when, self._price, position)
        else:
            self._enter(position, when)

    def _ignore(self, error: SignalPriceError, when: int) -> None:
        """Count and report a signal that does not fit the price; the run goes on, as the market may have moved since it was made."""
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

    def _await(self, waiting: Position, candle: Candle, when: int, *, late: bool) -> None:
        found = find_entry(waiting, candle)
        if found == "passed":
            self._cancel(waiting, "price_reject", when)
        elif found == "touched" and not late:  # what was missed while the run was down is not bought after the event
            self._activate(waiting, when)
        elif when >= waiting.scheduled_ms + self._wait_ms:
            self._cancel(waiting, "timeout", when)

    def _activate(self, waiting: Position, when: int) -> None:
        signal = msgspec.structs.replace(waiting.signal, price_open=None)
        position = open_position(waiting.id, signal, waiting.price_open, when, scheduled_ms=waiting.scheduled_ms)
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
            self.running.signal_id = None
            self._settle()

    def _enter(self, position: Position, when: int) -> None:
        if self._broker is None:
            self._opened(position, when)
            return
        self.journal.write_risk(position, when)  # before its order: who restarts first after a crash must not take the place
        with self._lock:
            work = self.deferred
            cancelled = work.cancelled is not None and self.waiting is not None
            if not cancelled:
                work.opening, work.open_attempts, work.activated = position, 1, None
                self.journal.deferred(work)
        if cancelled and self.waiting is not None:  # by a user, since its price was touched
            self.journal.write_risk(None, when)
            self._cancel(self.waiting, work.cancel_reason, when)
            return
        self._submit_open(position, when, first=True)

    def _submit_open(self, position: Position, when: int, *, first: bool = False) -> None:
        fill = self._submit(make_order(self.context, "open", position, position.price_open), position, when, first=first)
        if fill is None:
            return
        opened = self._moment(fill, position.opened_ms)
        placed = open_position(position.id, position.signal, fill.price, opened, scheduled_ms=position.scheduled_ms)
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
            work.activated = work.cancelled = None  # a cancel that came while it was being opened is too late
            work.pending_id = self.running.signal_id = position.id
            self._settle()
        self._price = position.price_open if math.isnan(self._price) else self._price
        self._user.tell("on_open", when, self._price, position)

    # --- an open position ---

    def _leave(self, position: Position, candle: Candle, when: int, before: float) -> bool:
        if candle["timestamp"] < position.opened_ms and self._broker is not None:
            return False  # the order took its time: what was before its fill does not concern the position
        found = find_exit(position, candle)
        if found is None:
            return False
        self._price = before  # the exit is inside the candle: what is told of the position knows its price up to there
        self._close(position, *found, when)
        return True

    def _hold(self, position: Position, when: int, *, late: bool) -> None:
        peak, fall = position.peak, position.fall
        passed = observe(position, self._price, when, self.context.costs)
        if passed is not None:
            self.journal.progressed(position, self._price, when, passed)
        if late:
            return
        if self._broker is not None:
            extreme = position.peak is not peak or position.fall is not fall
            self.journal.watched(position, self._price, when, extreme=extreme)
        self._user.tell("on_active_ping", when, self._price, position)
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
        if self._broker is None:
            self._closed(position, closing.reason, price, when)
            return
        fill = self._submit(make_order(self.context, "close", position, price), position, when, first=first)
        if fill is not None:
            self._closed(position, closing.reason, fill.price, self._moment(fill, closing.when_ms or when))

    def _closed(self, position: Position, reason: CloseReason, price: float, when: int) -> None:
        context, work = self.context, self.deferred
        note_price(position, price, when)
        trade = Trade(
            id=position.id,
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            position=position.signal.side,
            price_open=position.price_open,
            price_close=price,
            open_timestamp=position.opened_ms,
            close_timestamp=when,
            close_reason=reason,
            pnl_percentage=pnl_percentage(position.signal.side, position.price_open, price, context.costs),
        )
        alone = self.position is None or self.position.id == position.id
        self.journal.closing(position, price, when, reason, alone=alone)
        self._user.tell("on_close", when, price, position, reason)
        self.journal.closed(position, price, when, reason, rows.summary_row([*self.trades, trade]), alone=alone)
        with self._lock:
            self._changed |= work.closing is not None
            work.closing, work.close_attempts = None, 0
            if alone:
                self.position = work.pending_id = self.running.signal_id = None
            self._settle()
            self.first_trade = self.first_trade or time.perf_counter()
            self.trades.append(trade)  # last: where that write fails, all of this is done again

    # --- orders ---

    def _moment(self, fill: Fill, earliest: int) -> int:
        """The minute of a fill, between that of its decision and the one that it is by the clock."""
        return min(max(align(fill.when_ms, MINUTE_MS), earliest), max(align(self._clock(), MINUTE_MS), self.now, earliest))

    def _submit(self, order: Order, position: Position, when: int, *, first: bool) -> Fill | None:
        """Send an order, having counted the attempt; None: it was not filled, and what follows from that is done."""
        assert self._broker is not None
        work, opens = self.deferred, order.action == "open"
        if not first:
            with self._lock:
                if opens:
                    work.open_attempts += 1
                else:
                    work.close_attempts += 1
                self.journal.deferred(work)
        answer = submit(self._broker, order)
        if isinstance(answer, BaseException):
            self._not_filled(order, position, when, work.open_attempts if opens else work.close_attempts, answer)
            return None
        return answer

    def _not_filled(self, order: Order, position: Position, when: int, attempt: int, error: BaseException) -> None:
        opens, rejected, exhausted = order.action == "open", isinstance(error, OrderRejected), attempt >= self._attempts
        what = f"the order to {order.action} {position.id} (client id {order.client_id})"
        text = f"{self._user.named(when)}: {what} failed (attempt {attempt}): {describe(error)}"
        log("warning", text)
        if rejected:
            closing = self.deferred.closing
            more = {} if opens or closing is None else {"closeReason": closing.reason}
            kind = f"order_reject.{order.action}"
            row = rows.notification_row(self.context, kind, position, order.price, when, attempt=attempt, message=str(error), **more)
            self.journal.notify(row)
        if opens and rejected:
            self._forget_opening(when)
        elif exhausted:  # the order may be there, and the position that is to be closed is: the next start begins to count anew
            with self._lock:
                self.deferred.open_attempts = self.deferred.close_attempts = 0
                self.journal.deferred(self.deferred)
        if exhausted and not (opens and rejected):
            self.journal.failed(when, type(error).__name__, text, fatal=True)
            raise OrderFailedError(text, hint="look at the exchange for this order, then start the run again") from error

    def _forget_opening(self, when: int) -> None:
        """A signal is not opened after all; it was taken up, so it is not asked of the broker again."""
        self.journal.write_risk(None, when)
        with self._lock:
            work = self.deferred
            work.opening, work.open_attempts = None, 0
            if self.waiting is None:
                self.journal.deferred(work)
        if self.waiting is not None:
            self._cancel(self.waiting, "order_reject", when)

    # --- a restart, and what is told at the end ---

    def restore(self, when: int) -> None:
        """Go on where an earlier run was cut off, or where this one met a server that is gone."""
        known = self.position or self.waiting
        if self.ready:
            self.journal.check_owner()
        with self._lock:  # what a user asks for meanwhile must not be overwritten with what was read before
            self.deferred, self.position, self.waiting = self.journal.restore(when)
            held = self.position or self.waiting
            self.running.signal_id = None if held is None else held.id
            self._changed = False
            self.ready = True
        if held is None or (known is not None and known.id == held.id):
            return
        self._price = held.price_open if math.isnan(self._price) else self._price
        self._user.tell("on_schedule" if held is self.waiting else "on_active", when, self._price, held)

    @property
    def errors_skipped(self) -> int:
        """How many errors of the strategy's functions were skipped."""
        return self._user.skipped

    def open_trade(self) -> OpenTrade | None:
        """What is still open, valued at the last price."""
        position = self.position
        if position is None:
            return None
        return OpenTrade(
            id=position.id,
            symbol=self.context.symbol,
            strategy_name=self.context.strategy_name,
            position=position.signal.side,
            price_open=position.price_open,
            open_timestamp=position.opened_ms,
            current_price=self._price,
            pnl_percentage=pnl_percentage(position.signal.side, position.price_open, self._price, self.context.costs),
        )

    def summary(self) -> Row:
        """What the session says about the run so far."""
        return rows.summary_row(self.trades)
