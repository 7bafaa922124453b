"""Backtests side by side on one clock, so that they share what is read, and a risk limit counts the positions of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from types import TracebackType
from typing import Any, Final, Self

from ...errors import BacktestKitError, InvalidValueError
from ...simulation import SCOPE, entered
from ..clock import MINUTE_MS
from ..engine.actions import enlisted
from ..engine.buy_and_hold import BuyAndHold, Holding
from ..engine.engine import Engine
from ..engine.event_loop import event_loop
from ..engine.user_code import PERSISTENCE_ERRORS
from ..engine.write_behind import PendingWrites, pending_write_error
from ..market.average_price import VWAP_CANDLES
from ..market.candle_history import BLOCK, Candle, CandleHistory
from ..market.holes import Holes
from ..strategy import StrategyError

__all__ = ["Replay", "replay", "simulating"]


_OWN_ERRORS: Final = (StrategyError, InvalidValueError)
"""Errors that end only the run in which they were raised."""


class Replay:
    """One strategy on one symbol: the minutes of its window, one block of candles at a time.

    An error of the strategy, or in its candles, is stored as ``failure`` and ends only this run.
    """

    def __init__(self, engine: Engine, history: CandleHistory, filled: Holes) -> None:
        self.engine = engine
        self.filled = filled
        self.start: int = engine.context.start_ms
        self.end: int = engine.context.end_ms
        self.reached: int = self.start
        self.failure: BacktestKitError | None = None
        self.over: bool = False
        """Whether this run has ended."""
        self.history: CandleHistory = history
        engine.scope.history = history
        self._open = ExitStack()
        self._candles: list[Candle] = []
        self._first = 0  # when the first of them closes (ms)
        self._held = self.start  # up to where buy and hold has followed (ms)
        self._holding = Holding(engine.context.costs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        """How many minutes were replayed."""
        return (self.reached - self.start) // MINUTE_MS

    def enter(self) -> None:
        """Make this the current run of the code that follows."""
        SCOPE.set(self.engine.scope)

    def guarded(self, step: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Do a step of this run, unless it has ended. An error of its own ends it."""
        if self.over:
            return
        try:
            step(*arguments, **options)
        except _OWN_ERRORS as error:
            self._fail(error)

    def _fail(self, error: BacktestKitError) -> None:
        if pending_write_error(error) is not None:  # it may come from a write of another run
            raise error
        self.failure = error
        self.over = True
        self._open.__exit__(type(error), error, error.__traceback__)

    def begin(self, before: Callable[[Engine], object]) -> None:
        """Call ``before``, then write that the run begins."""
        self.enter()
        self.engine.scope.now = self.start
        self._open.enter_context(_at_work(self.engine))
        before(self.engine)
        self.engine.journal.begin(self.start)

    def load(self, since: int, until: int) -> None:
        """Load the candles of ``[since, until)`` that are in the window, and a few before them for the price."""
        self._hold()
        since, until = max(since, self.start), min(until, self.end)
        symbol = self.engine.context.symbol
        self._candles = self.history.unbroken(symbol, since, until, before=VWAP_CANDLES - 1) if since < until else []
        if self._candles:
            self._first = int(self._candles[0]["timestamp"]) + MINUTE_MS

    def buy_and_hold(self) -> BuyAndHold | None:
        """Return what buy and hold would have earned up to the minute that this run has reached; None before the first minute."""
        self._hold()
        return self._holding.sold()

    def _hold(self) -> None:
        """Let buy and hold follow the candles that were replayed since the last call."""
        first, last = ((when - self._first) // MINUTE_MS + 1 for when in (self._held, self.reached))
        self._holding.follow(self._candles[first:last])
        self._held = self.reached

    def minutes(self, since: int, until: int, *, alone: bool) -> Iterator[None]:
        """Process the minutes of the block that begins at ``since`` (ms), one per item. Unless ``alone``, other runs run in between."""
        engine, candles, first, end = self.engine, self._candles, self._first, self.end
        scope, step = engine.scope, engine.strategy.interval_ms
        for when in range(since + MINUTE_MS, until + MINUTE_MS, MINUTE_MS):
            if candles and self.reached < when <= end and not self.over:
                # At the very end it is too late for a signal to have any effect.
                ask = when % step == 0 and when < end
                if ask or not engine.idle:
                    if not alone:
                        SCOPE.set(scope)
                    try:
                        engine.tick(candles, (when - first) // MINUTE_MS, when, ask=ask)
                    except _OWN_ERRORS as error:
                        self._fail(error)
                        return
                self.reached = when
                if when == end:
                    self.guarded(self.finish)
            yield

    def finish(self) -> None:
        """Write how the run ended. Its open position no longer counts for other runs."""
        engine = self.engine
        self.enter()
        engine.journal.finished(self.reached, engine.summary(), "finished" if self.reached == self.end else "stopped")
        engine.journal.risk.leave()
        self.over = True


def replay(
    runs: Sequence[Replay],
    *,
    pending: PendingWrites | None,
    before: Callable[[Engine], object],
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Process each minute in all ``runs``, in their order, before the next minute, until ``stop`` is set.

    ``before`` is called for each run when it starts. ``progress`` is called with (minutes replayed, all minutes) of all runs together.
    """
    first, last = min(run.start for run in runs), max(run.end for run in runs)
    total = sum((run.end - run.start) // MINUTE_MS for run in runs)

    def stopped() -> bool:
        return stop is not None and stop.is_set()

    with ExitStack() as stack:
        stack.enter_context(entered(runs[0].engine.scope))
        stack.enter_context(event_loop())
        for run in runs:
            stack.enter_context(run)
            run.guarded(run.begin, before)
        for since in range(first, last, BLOCK * MINUTE_MS):
            until = min(since + BLOCK * MINUTE_MS, last)
            for run in runs:
                run.guarded(run.load, since, until)
            for _ in zip_longest(*(run.minutes(since, until, alone=len(runs) == 1) for run in runs)):
                if stop is not None and stop.is_set():
                    break
            if pending is not None:
                pending.flush_when_due()
            if progress is not None:
                progress(sum(run.done for run in runs), total)
            if stopped() or all(run.over for run in runs):
                break
        for run in runs:
            run.guarded(run.finish)
        if pending is not None:
            pending.flush()


@contextmanager
def simulating(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Run the code inside the block as part of the run of ``engine``, at the simulation time ``start`` (ms)."""
    engine.scope.history, engine.scope.now = history, start
    with entered(engine.scope), event_loop(), _at_work(engine):
        yield


@contextmanager
def _at_work(engine: Engine) -> Iterator[None]:
    """List the run as active inside the block, and flush its pending writes if an error ends it."""
    try:
        with enlisted(engine):
            try:
                yield
            except Exception as error:
                if not isinstance(error, PERSISTENCE_ERRORS):
                    engine.journal.save(error)
                raise
    finally:
        engine.journal.leave()
