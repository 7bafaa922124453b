"""Backtests side by side: one clock for all of them, so that they share what is read, and a risk limit counts the positions of all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

from ..errors import BacktestKitError, InvalidValueError
from ..simulation import simulated_time
from .actions import enlisted
from .clock import MINUTE_MS
from .engine import Engine
from .history import BLOCK, Candle, CandleHistory, current_history
from .position import VWAP_CANDLES
from .running import current_run
from .strategy import StrategyError
from .user_code import PERSISTENCE_ERRORS

__all__ = ["Replay", "replay", "simulating"]


class Replay:
    """One strategy on one symbol: the minutes of its window, one block of candles at a time.

    What goes wrong with the strategy, or with its candles, is ``failure`` and ends this run alone.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.start, self.end = engine.context.start_ms, engine.context.end_ms
        self.reached = self.start
        self.failure: BacktestKitError | None = None
        self._open = ExitStack()
        self._candles: list[Candle] = []
        self._first = 0  # the time (ms) at which the first of them has closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        """How many minutes are dealt with; of a run that has failed, all."""
        return ((self.end if self.failure else self.reached) - self.start) // MINUTE_MS

    def guarded(self, step: Callable[..., object], *arguments: Any, **options: Any) -> None:
        """Do a step of this run; an error of its own ends it."""
        try:
            step(*arguments, **options)
        except (StrategyError, InvalidValueError) as error:
            self.failure = error
            self._open.__exit__(type(error), error, error.__traceback__)

    def begin(self, history: CandleHistory, before: Callable[[Engine], object]) -> None:
        """Write that the run begins, after ``before``."""
        self._open.enter_context(simulating(self.engine, history, self.start))
        before(self.engine)
        self.engine.journal.begin(self.start)

    def load(self, history: CandleHistory, since: int, until: int) -> None:
        """Take the candles of ``[since, until)``, as far as they belong to the window, and some before them for the price."""
        context = self.engine.context
        since, until = max(since, self.start), min(until, self.end)
        self._candles = history.unbroken(context.symbol, since, until, before=VWAP_CANDLES - 1) if since < until else []
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
                engine.tick(candles, index, when, ask=ask)
                if stop is not None and stop.is_set():
                    self.reached = int(when)
                    return
        if candles:
            self.reached = int(candles[-1]["timestamp"]) + MINUTE_MS

    def minute(self, when: int) -> None:
        """The minute that ends at ``when`` (ms), if it is one of this run's; other runs have theirs before and after it."""
        if not self.reached < when <= self.end or self.failure is not None or not self._candles:
            return
        engine = self.engine
        ask = when % engine.strategy.interval_ms == 0 and when < self.end
        if ask or not engine.idle:
            current_run.set(engine.running)
            self.guarded(engine.tick, self._candles, (when - self._first) // MINUTE_MS, when, ask=ask)
        self.reached = when

    def finish(self) -> None:
        """Write how it has ended."""
        engine = self.engine
        engine.journal.finished(self.reached, engine.summary(), "finished" if self.reached == self.end else "stopped")
        engine.journal.flush()


def replay(
    runs: Sequence[Replay],
    history: CandleHistory,
    *,
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
        for run in runs:
            entered.enter_context(run)
            run.guarded(run.begin, history, before)
        for since in range(first, last, BLOCK * MINUTE_MS):
            until = min(since + BLOCK * MINUTE_MS, last)
            for run in _going(runs):
                run.guarded(run.load, history, since, until)
            if len(runs) == 1:
                runs[0].guarded(runs[0].minutes, stop)
            else:
                for when in range(since + MINUTE_MS, until + MINUTE_MS, MINUTE_MS):
                    for run in runs:
                        run.minute(when)
                    if stopped():
                        break
            for run in _going(runs):
                run.engine.journal.flush_when_due()
            if progress is not None:
                progress(sum(run.done for run in runs), total)
            if stopped():
                break
        for run in _going(runs):
            run.guarded(run.finish)


def _going(runs: Sequence[Replay]) -> list[Replay]:
    return [run for run in runs if run.failure is None]


@contextmanager
def simulating(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Let the code inside the block be that of the run of ``engine``, at the time ``start`` (ms)."""
    tokens = current_history.set(history), current_run.set(engine.running)
    try:
        with simulated_time(start), enlisted(engine):
            try:
                yield
            except Exception as error:
                if not isinstance(error, PERSISTENCE_ERRORS):
                    engine.journal.save(error)
                raise
    finally:
        current_history.reset(tokens[0])
        current_run.reset(tokens[1])
        engine.journal.leave()
