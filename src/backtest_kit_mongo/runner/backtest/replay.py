"""Backtests side by side: one clock for all of them, so that they share what is read, and a risk limit counts the positions of all."""

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

    What goes wrong with the strategy, or with its candles, is ``failure`` and ends this run alone.
    """

    def __init__(self, engine: Engine, history: CandleHistory) -> None:
        self.engine = engine
        self.start, self.end = engine.context.start_ms, engine.context.end_ms
        self.reached = self.start
        self.failure: BacktestKitError | None = None
        self.over = False
        """Whether nothing more happens in this run."""
        self.history = history
        self._open = ExitStack()
        self._candles: list[Candle] = []
        self._first = 0  # the time (ms) at which the first of them has closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        """How many minutes have been replayed."""
        return (self.reached - self.start) // MINUTE_MS

    def enter(self) -> None:
        """Let what follows be code of this run."""
        current_run.set(self.engine.running)
        current_history.set(self.history)

    def guarded(self, step: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Do a step of this run, unless it is over; an error of its own ends it."""
        if self.over:
            return
        try:
            step(*arguments, **options)
        except (StrategyError, InvalidValueError) as error:
            if pending_write_error(error) is not None:  # perhaps of what another run had to write
                raise
            self.failure = error
            self.over = True
            self._open.__exit__(type(error), error, error.__traceback__)

    def begin(self, before: Callable[[Engine], object]) -> None:
        """Write that the run begins, after ``before``."""
        self.enter()
        NOW.set(self.start)
        self._open.enter_context(_at_work(self.engine))
        before(self.engine)
        self.engine.journal.begin(self.start)

    def load(self, since: int, until: int) -> None:
        """Take the candles of ``[since, until)``, as far as they belong to the window, and some before them for the price."""
        since, until = max(since, self.start), min(until, self.end)
        symbol = self.engine.context.symbol
        self._candles = self.history.unbroken(symbol, since, until, before=VWAP_CANDLES - 1) if since < until else []
        if self._candles:
            self._first = int(self._candles[0]["timestamp"]) + MINUTE_MS

    def minutes(self, stop: threading.Event | None) -> None:
        """All minutes of the block, one after the other, until ``stop`` is set."""
        engine, candles, end = self.engine, self._candles, self.end
        step = engine.strategy.interval_ms
        for index in range((self.reached + MINUTE_MS - self._first) // MINUTE_MS, len(candles)):
            when = candles[index]["timestamp"] + MINUTE_MS
            # At the very end nothing could come of a signal any more.
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
        """The minute that ends at ``when`` (ms), if it is one of this run's; other runs have theirs before and after it."""
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
        """Write how it has ended. What is still open counts for no other run any more."""
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
    """Let every minute happen in all of ``runs`` before the next one, in their order, until ``stop`` is set.

    ``before`` is called for each run, at its start. ``progress`` is called with (minutes replayed, all minutes) of all runs together.
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
    """Let the code inside the block be that of the run of ``engine``, at the time ``start`` (ms)."""
    with _in_context(engine, history, start), _at_work(engine):
        yield


@contextmanager
def _in_context(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Begin with this run and time, which may change inside the block; after it all is as it was before."""
    tokens = current_history.set(history), current_run.set(engine.running)
    try:
        with simulated_time(start):
            yield
    finally:
        current_history.reset(tokens[0])
        current_run.reset(tokens[1])


@contextmanager
def _at_work(engine: Engine) -> Iterator[None]:
    """Let others find the run, and see that what waits is written if an error ends it."""
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
