"""Backtests side by side on one clock, so that they share what is read, and a risk limit counts the positions of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import TracebackType
from typing import Any, Self

from ...errors import BacktestKitError, InvalidValueError
from ...simulation import NOW, simulated_time
from ..clock import MINUTE_MS
from ..current_run import current_run
from ..engine.actions import enlisted
from ..engine.engine import Engine
from ..engine.user_code import PERSISTENCE_ERRORS
from ..engine.write_behind import PendingWrites, pending_write_error
from ..market.average_price import VWAP_CANDLES
from ..market.candle_history import BLOCK, Candle, CandleHistory, current_history
from ..strategy import StrategyError

__all__ = ["Replay", "replay", "simulating"]


class Replay:
    """One strategy on one symbol: the minutes of its window, one block of candles at a time.

    An error of the strategy, or in its candles, is stored as ``failure`` and ends only this run.
    """

    def __init__(self, engine: Engine, history: CandleHistory) -> None:
        self.engine = engine
        self.start, self.end = engine.context.start_ms, engine.context.end_ms
        self.reached = self.start
        self.failure: BacktestKitError | None = None
        self.over = False
        """Whether this run has ended."""
        self.history = history
        self._open = ExitStack()
        self._candles: list[Candle] = []
        self._first = 0  # when the first of them closes (ms)

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
        current_run.set(self.engine.running)
        current_history.set(self.history)

    def guarded(self, step: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Do a step of this run, unless it has ended. An error of its own ends it."""
        if self.over:
            return
        try:
            step(*arguments, **options)
        except (StrategyError, InvalidValueError) as error:
            if pending_write_error(error) is not None:  # it may come from a write of another run
                raise
            self.failure = error
            self.over = True
            self._open.__exit__(type(error), error, error.__traceback__)

    def begin(self, before: Callable[[Engine], object]) -> None:
        """Call ``before``, then write that the run begins."""
        self.enter()
        NOW.set(self.start)
        self._open.enter_context(_at_work(self.engine))
        before(self.engine)
        self.engine.journal.begin(self.start)

    def load(self, since: int, until: int) -> None:
        """Load the candles of ``[since, until)`` that are in the window, and a few before them for the price."""
        since, until = max(since, self.start), min(until, self.end)
        symbol = self.engine.context.symbol
        self._candles = self.history.unbroken(symbol, since, until, before=VWAP_CANDLES - 1) if since < until else []
        if self._candles:
            self._first = int(self._candles[0]["timestamp"]) + MINUTE_MS

    def minutes(self, stop: threading.Event | None) -> None:
        """Process the minutes of the block in order, until ``stop`` is set."""
        engine, candles, end = self.engine, self._candles, self.end
        step = engine.strategy.interval_ms
        for index in range((self.reached + MINUTE_MS - self._first) // MINUTE_MS, len(candles)):
            when = candles[index]["timestamp"] + MINUTE_MS
            # At the very end it is too late for a signal to have any effect.
            ask = when % step == 0 and when < end
            if ask or not engine.idle:
                try:
                    engine.tick(candles, index, when, ask=ask)
                except BaseException:
                    self.reached = int(candles[index]["timestamp"])  # this minute was not finished
                    raise
                if stop is not None and stop.is_set():
                    self.reached = int(when)
                    return
        if candles:
            self.reached = int(candles[-1]["timestamp"]) + MINUTE_MS

    def minute(self, when: int) -> None:
        """Process the minute that ends at ``when`` (ms), if it belongs to this run. Other runs are processed before and after this call."""
        if self.over or not self.reached < when <= self.end or not self._candles:
            return
        engine = self.engine
        ask = when % engine.strategy.interval_ms == 0 and when < self.end
        if ask or not engine.idle:
            self.enter()
            self.guarded(engine.tick, self._candles, (when - self._first) // MINUTE_MS, when, ask=ask)
        if self.failure is None:
            self.reached = when

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
    late: PendingWrites | None,
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

    with ExitStack() as entered:
        entered.enter_context(_in_context(runs[0].engine, runs[0].history, first))
        entered.enter_context(late.open() if late is not None else nullcontext())
        for run in runs:
            entered.enter_context(run)
            run.guarded(run.begin, before)
        for since in range(first, last, BLOCK * MINUTE_MS):
            until = min(since + BLOCK * MINUTE_MS, last)
            for run in runs:
                run.guarded(run.load, since, until)
            if len(runs) == 1:
                runs[0].guarded(runs[0].minutes, stop)
            else:
                for when in range(since + MINUTE_MS, until + MINUTE_MS, MINUTE_MS):
                    for run in runs:
                        run.minute(when)
                        if run.reached == run.end:
                            run.guarded(run.finish)
                    if stopped():
                        break
            if late is not None:
                late.flush_when_due()
            if progress is not None:
                progress(sum(run.done for run in runs), total)
            if stopped() or all(run.over for run in runs):
                break
        for run in runs:
            run.guarded(run.finish)
        if late is not None:
            late.flush()


@contextmanager
def simulating(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Run the code inside the block as part of the run of ``engine``, at the simulation time ``start`` (ms)."""
    with _in_context(engine, history, start), _at_work(engine):
        yield


@contextmanager
def _in_context(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Set the current run and simulation time, which may change inside the block, and restore the previous ones after it."""
    tokens = current_history.set(history), current_run.set(engine.running)
    try:
        with simulated_time(start):
            yield
    finally:
        current_history.reset(tokens[0])
        current_run.reset(tokens[1])


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
