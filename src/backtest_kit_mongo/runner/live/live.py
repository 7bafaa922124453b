"""Live and paper runs: once a minute the closed candles go through the state machine of ``engine``, and orders go to a broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, Unpack

from ...arguments import whole_number
from ...candles import CandleInterval, align
from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...errors import BacktestKitError
from ...logs import log
from ..backtest.background import RunHandle, in_background
from ..backtest.replay import simulating
from ..clock import MINUTE_MS, iso_time
from ..engine.broker import Broker, OrderFailedError, PaperBroker, find_broker
from ..engine.engine import Engine
from ..engine.journal import TakenOverError
from ..engine.options import CostKeywords, RunOptions
from ..engine.result import BacktestResult, add_up
from ..engine.rows import RunContext
from ..engine.user_code import PERSISTENCE_ERRORS
from ..error_text import describe
from ..loading.parameters import parameters_in_effect
from ..market.average_price import VWAP_CANDLES
from ..market.candle_history import BLOCK, Candle, CandleHistory
from ..market.exchange import default_exchange_name, fetch_missing, find_exchange
from ..market.pauses import WaitStoppedError, ended_by
from ..registrations import check_name
from ..strategy import find_strategy

__all__ = ["Clock", "Fetch", "Live", "wall_clock_ms"]

Clock = Callable[[], int]

_PATIENCE_MS: Final = 20_000
"""How long to wait for the candle of a minute."""


class Fetch(Protocol):
    """A function that stores the missing closed candles of ``[since_ms, until_ms)``: ``fetch_missing``, or a stand-in of a test."""

    def __call__(
        self, symbol: str, interval: CandleInterval, exchange_name: str, since_ms: int, until_ms: int, *, registry: Registry, now_ms: int
    ) -> object:
        """Fetch and store the candles. The return value is not used."""


def wall_clock_ms() -> int:
    """Return the current time in ms."""
    return time.time_ns() // 1_000_000


class LiveKeywords(CostKeywords, total=False):
    """What ``Live.run`` and ``Live.background`` take."""

    strategy_name: str | None
    exchange_name: str | None
    broker_name: str | None
    order_attempts: int
    registry: Registry | None
    clock: Clock
    sleep: Callable[[float], object] | None
    fetch: Fetch


class Live:
    """Runs on the current market: with a broker they trade, without one they are on paper."""

    @staticmethod
    def run(
        symbol: str,
        *,
        strategy_name: str | None = None,
        exchange_name: str | None = None,
        broker_name: str | None = None,
        order_attempts: int = 10,
        registry: Registry | None = None,
        stop: threading.Event | None = None,
        clock: Clock = wall_clock_ms,
        sleep: Callable[[float], object] | None = None,
        fetch: Fetch = fetch_missing,
        **costs: Unpack[CostKeywords],
    ) -> BacktestResult:
        """Run a registered strategy until ``stop`` is set, or until ``runner.stop`` was called and nothing is open any more.

        The run resumes what an earlier run of the same symbol, strategy and exchange left in the database, however that one ended. An
        error of the strategy, the exchange or a server is logged and, if possible, written to Notification; the run tries again at
        the next tick. ``CC_TICK_SECONDS`` is the time between two ticks.

        Args:
            symbol: the traded pair
            strategy_name: a registered strategy; None is the only one
            exchange_name: a registered exchange; None is the only one
            broker_name: a registered broker; None fills orders on paper, at their price
            order_attempts: how often to try an order that gets no clear answer
            registry: the registry whose contracts to use; None is the default one
            stop: set it to end the run after the current tick
            clock: returns the time in ms, for tests
            sleep: waits for seconds, for tests
            fetch: stores the missing candles, for tests
            **costs: ``fee_percent``, ``slippage_percent`` and ``stake_usd``, as in RunOptions

        Returns:
            the trades that this run closed, and their totals

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument is not valid, or a name is not registered
            OrderFailedError: an order had no clear answer ``order_attempts`` times
            TakenOverError: another process has started the same run

        Examples:
            >>> import threading
            >>> from backtest_kit_mongo import runner
            >>> asked = runner.add_strategy("idle", "1h", get_signal=lambda symbol, when: None)
            >>> served = runner.add_exchange("made-up", get_candles=lambda symbol, interval, since, limit: [])
            >>> stop = threading.Event()
            >>> stop.set()  # another thread would do this later
            >>> runner.Live.run("BTCUSDT", stop=stop).trades
            ()
        """
        registry = default_registry if registry is None else registry
        stop = threading.Event() if stop is None else stop
        sleep = stop.wait if sleep is None else sleep
        exchange_name = default_exchange_name(exchange_name)
        options = RunOptions(exchange_name=exchange_name, **costs)
        symbol = check_name("symbol", symbol)
        if fetch is fetch_missing:
            find_exchange(exchange_name)  # otherwise every minute would report a missing exchange
        strategy = find_strategy(strategy_name)
        order_attempts = whole_number("order_attempts", order_attempts, least=1)
        broker: Broker = PaperBroker() if broker_name is None else find_broker(broker_name)
        seconds = registry.get_config().CC_TICK_SECONDS
        start = align(clock(), MINUTE_MS)
        context = RunContext(
            symbol=symbol,
            strategy_name=strategy.name,
            exchange_name=exchange_name,
            frame_name="",
            risk_name=strategy.risk_name,
            start_ms=start,
            end_ms=start,
            costs=options.costs,
            backtest=False,
        )
        engine = Engine(
            context,
            strategy,
            registry,
            "paper" if broker_name is None else "live",
            broker=broker,
            attempts=order_attempts,
            wait_minutes=registry.get_config().CC_SCHEDULE_AWAIT_MINUTES,
            clock=clock,
        )
        begin = time.perf_counter()
        ticks = _Ticks(engine, registry, clock, fetch)
        with ended_by(stop), simulating(engine, ticks.history(start), start):
            ticks.restore(start)
            while not stop.is_set():
                try:
                    seen = ticks.tick()
                except (OrderFailedError, TakenOverError):
                    raise
                except WaitStoppedError:
                    break
                except Exception as error:  # noqa: BLE001 - positions must still be watched, whatever the error is
                    ticks.failed(error)
                    seen = True
                if engine.finished:
                    break
                sleep(_until_next(clock(), seconds) if seen else min(1.0, seconds / 10))
            engine.journal.finished(ticks.when, engine.summary(), "stopped")
        return BacktestResult(
            symbol=symbol,
            strategy_name=strategy.name,
            exchange_name=exchange_name,
            frame_name="",
            start_ms=start,
            end_ms=ticks.when,
            trades=tuple(engine.trades),
            open_trade=engine.open_trade(),
            totals=add_up(engine.trades),
            minutes=(ticks.when - start) // MINUTE_MS,
            signals_asked=engine.asked,
            wall_seconds=time.perf_counter() - begin,
            stats=registry.stats(),
            signals_ignored=dict(engine.ignored),
            errors_skipped=engine.errors_skipped,
            costs=options.costs,
            parameters=parameters_in_effect(),
        )

    @staticmethod
    def background(symbol: str, **keywords: Unpack[LiveKeywords]) -> RunHandle:
        """Call ``run`` in a background thread.

        Args:
            symbol: the traded pair
            **keywords: the keyword arguments of ``run`` apart from ``stop``

        Returns:
            a handle; its ``stop()`` ends the run, and ``result()`` waits for that

        Examples:
            >>> from backtest_kit_mongo import runner
            >>> asked = runner.add_strategy("idle", "1h", get_signal=lambda symbol, when: None)
            >>> served = runner.add_exchange("made-up", get_candles=lambda symbol, interval, since, limit: [])
            >>> run = runner.Live.background("BTCUSDT")
            >>> run.stop()
            >>> run.result(timeout=60).totals.trades
            0
        """
        return in_background(f"live {symbol}", lambda stop: Live.run(symbol, stop=stop, **keywords))


class _Ticks:
    """The minutes of a live run: which were processed, and which still have to be processed to catch up."""

    def __init__(self, engine: Engine, registry: Registry, clock: Clock, fetch: Fetch) -> None:
        self._engine, self._registry, self._clock, self._fetch = engine, registry, clock, fetch
        self._restored = False
        self.when = engine.context.start_ms
        self._seen = self._asked = self._reopened = self._passed = self._passed_at = self.when - MINUTE_MS
        self._before: list[Candle] = []  # the last candles processed: if minutes have no candle, the price is made of older ones

    def restore(self, when: int) -> None:
        """Resume from the database. The minutes since a position was opened are processed again: none of them closed it."""
        engine = self._engine
        engine.restore(when)
        active = engine.position or engine.waiting
        self._seen = when - MINUTE_MS if active is None else active.opened_ms
        self._restored = True

    def tick(self) -> bool:
        """Process the current minute, and those missed before it. Return False if the candle of the minute is not available yet."""
        engine = self._engine
        # Never before the last minute that was processed; a minute that only a wrong clock announced may be taken back.
        self.when = when = max(align(self._clock(), MINUTE_MS), self._asked)
        engine.scope.now = when
        if self._restored:
            engine.journal.check_owner()
        else:  # a write may have failed half-way: resume from what is stored, as after a crash
            self.restore(when)
        flat = engine.position is None
        if when != self._reopened:  # once per minute, not every second while waiting for its candle
            self._reopened = when
            engine.reopen(when)
        if flat and engine.position is not None:
            self._seen = min(self._seen, engine.position.opened_ms)
        if self._seen >= when:
            engine.drain(when)
            return True
        history = self.history(when)
        engine.scope.history = history
        symbol, before = engine.context.symbol, (VWAP_CANDLES - 1) * MINUTE_MS
        if not history.minutes(symbol, when - VWAP_CANDLES * MINUTE_MS, when):
            if self._clock() < when + _PATIENCE_MS:
                return False
            if when != self._passed_at:  # a jump of the clock counts as one minute until a candle confirms it
                self._passed_at, self._passed = when, min(when, max(self._passed, self._seen) + MINUTE_MS)
            engine.pass_without_candle(self._passed)
            return True
        ask = when // engine.strategy.interval_ms > self._asked // engine.strategy.interval_ms
        for since in range(self._seen, when, BLOCK * MINUTE_MS):
            loaded = history.across_holes(symbol, since - before, min(since + BLOCK * MINUTE_MS, when))
            candles = [*(candle for candle in self._before if candle["timestamp"] < since - before), *loaded]
            self._before = candles[1 - VWAP_CANDLES :]
            for index, candle in enumerate(candles):
                closed = candle["timestamp"] + MINUTE_MS
                if closed > self._seen:
                    engine.tick(candles, index, closed, ask=ask and closed == when, catching_up=closed < when)
                    self._seen = closed
        self._seen = self._asked = when
        return True

    def failed(self, error: Exception) -> None:
        """Log an ``error`` that ended a tick early, and write it to Log and Notification if possible. The next tick restores the run."""
        self._restored = False
        text = f"live run of {self._engine.strategy.name!r} on {self._engine.context.symbol} at {iso_time(self.when)}: {describe(error)}"
        log("error", text)
        if isinstance(error, PERSISTENCE_ERRORS):
            return  # nothing can be written now
        try:
            self._engine.journal.failed(self.when, type(error).__name__, text, fatal=False)
        except BacktestKitError as second:
            log("error", f"this could not be written to Log and Notification: {second}")

    def history(self, when: int) -> CandleHistory:
        """Return the candles up to ``when``; those that are not stored are fetched."""
        exchange_name, registry, now = self._engine.context.exchange_name, self._registry, self._clock()

        def fill(symbol: str, interval: CandleInterval, since: int, until: int) -> None:
            self._fetch(symbol, interval, exchange_name, since, until, registry=registry, now_ms=now)

        return CandleHistory(exchange_name, when, registry, fill)


def _until_next(now_ms: int, seconds: float) -> float:
    """Return how many seconds remain until the next multiple of ``seconds``."""
    return seconds - now_ms / 1000 % seconds
