"""Backtests: the stored 1m candles of a window, minute by minute, through the state machine of ``engine``."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..adapters import Registry, default_registry
from ..domains import DOMAINS
from ..errors import InvalidTypeError, InvalidValueError
from ..simulation import simulated_time
from .actions import enlisted
from .background import RunHandle, in_background
from .candle_import import choose_window
from .clock import MINUTE_MS, iso_time, schedule_minutes
from .engine import Engine
from .exchange import find_exchange, list_exchanges
from .frame import find_frame, list_frames
from .history import BLOCK, Candle, CandleHistory, current_history
from .position import VWAP_CANDLES, Costs
from .result import BacktestResult, add_up
from .rows import RunContext, derive_id
from .running import current_run
from .strategy import check_name, find_strategy

__all__ = ["Backtest", "default_exchange_name", "read_costs", "run_backtest"]


def run_backtest(
    symbol: str,
    strategy_name: str | None = None,
    *,
    exchange_name: str = "binance",
    frame_name: str = "backtest",
    start_ms: int | None = None,
    end_ms: int | None = None,
    fee_percent: float = 0.1,
    slippage_percent: float = 0.1,
    stake_usd: float = 100.0,
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
    stop: threading.Event | None = None,
) -> BacktestResult:
    """Replay the stored 1m candles of ``[start_ms, end_ms)`` (ms, whole minutes) through a registered strategy.

    Without ``strategy_name`` it is the only registered one; without a window, or half of one, that of the imported candles. A
    window with a hole is refused before anything is written. Fee and slippage are percent per side, the stake is USD.
    ``progress`` is called with (minutes replayed, all minutes). How orders are executed is said at the top of ``engine``. Once
    ``stop`` is set, the run ends after the minute that it is in, with what there is up to then.

    Everything that happens is written through the contracts of ``registry`` before the run acts on it. The same run over the same
    candles gives the same trades, also in a database that holds the records of an earlier one. A strategy that raises, or returns no
    valid signal, ends the run with a StrategyError (BadSignalError), after that was written to Log and Notification.
    """
    for what, name in (("symbol", symbol), ("exchange_name", exchange_name), ("frame_name", frame_name)):
        check_name(what, name)
    registry = default_registry if registry is None else registry
    strategy = find_strategy(strategy_name)
    costs = read_costs(fee_percent, slippage_percent, stake_usd)
    wait_minutes = schedule_minutes()
    begin = time.perf_counter()
    start, end, unbroken = choose_window(symbol, exchange_name, start_ms, end_ms, registry=registry)
    if not unbroken:
        _check_unbroken(registry, symbol, exchange_name, start, end)
    context = RunContext(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange_name,
        frame_name=frame_name,
        risk_name=strategy.risk_name,
        start_ms=start,
        end_ms=end,
        costs=costs,
    )
    history = CandleHistory(exchange_name, end, registry)
    engine = Engine(context, strategy, registry, wait_minutes=wait_minutes)
    reached = start
    with simulating(engine, history, start):
        _discard_later(registry, context, strategy.interval_ms)
        engine.journal.begin(start)
        for _, candles, fresh in _blocks(history, symbol, exchange_name, start, end):
            reached = _replay(engine, candles, fresh, stop)
            engine.journal.flush()
            if progress is not None:
                progress((reached - start) // MINUTE_MS, (end - start) // MINUTE_MS)
            if stop is not None and stop.is_set():
                break
        engine.journal.finished(reached, engine.summary(), "finished" if reached == end else "stopped")
        engine.journal.flush()
    return BacktestResult(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange_name,
        frame_name=frame_name,
        start_ms=start,
        end_ms=reached,
        trades=tuple(engine.trades),
        open_trade=engine.open_trade(),
        totals=add_up(engine.trades),
        minutes=(reached - start) // MINUTE_MS,
        signals_asked=engine.asked,
        wall_seconds=time.perf_counter() - begin,
        stats=registry.stats(),
    )


class Backtest:
    """Backtests by the names of what is registered: strategy, exchange and frame."""

    @staticmethod
    def run(
        symbol: str,
        *,
        strategy_name: str | None = None,
        exchange_name: str | None = None,
        frame_name: str | None = None,
        fee_percent: float = 0.1,
        slippage_percent: float = 0.1,
        stake_usd: float = 100.0,
        progress: Callable[[int, int], None] | None = None,
        registry: Registry | None = None,
        stop: threading.Event | None = None,
    ) -> BacktestResult:
        """``run_backtest`` over the window of a registered frame.

        A name that is left out is that of the only one that is registered; where no exchange is, it is "binance", and where no frame
        is, the window is that of the stored candles.
        """
        frame = find_frame(frame_name) if frame_name is not None or list_frames() else None
        return run_backtest(
            symbol,
            strategy_name,
            exchange_name=default_exchange_name(exchange_name),
            frame_name="backtest" if frame is None else frame.name,
            start_ms=None if frame is None else frame.start_ms,
            end_ms=None if frame is None else frame.end_ms,
            fee_percent=fee_percent,
            slippage_percent=slippage_percent,
            stake_usd=stake_usd,
            progress=progress,
            registry=registry,
            stop=stop,
        )

    @staticmethod
    def background(
        symbol: str,
        *,
        strategy_name: str | None = None,
        exchange_name: str | None = None,
        frame_name: str | None = None,
        fee_percent: float = 0.1,
        slippage_percent: float = 0.1,
        stake_usd: float = 100.0,
        progress: Callable[[int, int], None] | None = None,
        registry: Registry | None = None,
    ) -> RunHandle:
        """``run`` in a thread of its own. Runs in the background do not stop each other: an error is that of ``result()``."""
        return in_background(
            f"backtest {symbol}",
            lambda stop: Backtest.run(
                symbol,
                strategy_name=strategy_name,
                exchange_name=exchange_name,
                frame_name=frame_name,
                fee_percent=fee_percent,
                slippage_percent=slippage_percent,
                stake_usd=stake_usd,
                progress=progress,
                registry=registry,
                stop=stop,
            ),
        )


def _replay(engine: Engine, candles: list[Candle], fresh: int, stop: threading.Event | None) -> int:
    """Let the last ``fresh`` of ``candles`` happen; those before are there for the price only. The time (ms) that was reached."""
    step, end = engine.strategy.interval_ms, engine.context.end_ms
    for index in range(len(candles) - fresh, len(candles)):
        when = candles[index]["timestamp"] + MINUTE_MS
        # At the very end nothing could come of a signal any more.
        ask = when % step == 0 and when < end
        if ask or not engine.idle:
            engine.tick(candles, index, when, ask=ask)
            if stop is not None and stop.is_set():
                return int(when)
    return int(candles[-1]["timestamp"]) + MINUTE_MS


def _discard_later(registry: Registry, context: RunContext, step_ms: int) -> None:
    """Where versions are kept: discard what an earlier run left of this run's own records, so that this one sees what that one saw."""
    own: dict[str, object] = {
        "symbol": context.symbol,
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "frameName": context.frame_name,
        "backtest": True,
    }
    ids: list[str] | None = None
    for name in registry.get_config().CC_HISTORY:
        fields = {field: value for field, value in own.items() if field in DOMAINS[name].key}
        if "strategyName" not in fields:
            if "signalId" not in DOMAINS[name].key:
                continue  # Risk and Interval are shared with others
            if ids is None:
                first = -(-context.start_ms // step_ms) * step_ms
                ids = [derive_id(context, when) for when in range(first, context.end_ms, step_ms)]
            fields = {"signalId": ids}
        registry.discard_versions(name, context.start_ms, **fields)


@contextmanager
def simulating(engine: Engine, history: CandleHistory, start: int) -> Iterator[None]:
    """Let the code inside the block be that of the run of ``engine``, at the time ``start`` (ms)."""
    tokens = current_history.set(history), current_run.set(engine.running)
    try:
        with simulated_time(start), enlisted(engine):
            yield
    finally:
        current_history.reset(tokens[0])
        current_run.reset(tokens[1])
        engine.journal.risk.leave()


def _blocks(history: CandleHistory, symbol: str, exchange_name: str, start: int, end: int) -> Iterator[tuple[int, list[Candle], int]]:
    """``(since, candles, fresh)`` for each block of the window: ``fresh`` new candles, after up to four older ones for the price."""
    before = (VWAP_CANDLES - 1) * MINUTE_MS
    for since in range(start, end, BLOCK * MINUTE_MS):
        until = min(since + BLOCK * MINUTE_MS, end)
        candles = history.minutes(symbol, since - before, until)
        fresh = (until - since) // MINUTE_MS
        if len(candles) < fresh:
            missing = history.first_missing(symbol, since, until)
            raise InvalidValueError(
                f"the 1m candle of {symbol} on {exchange_name} at {iso_time(missing)} is not stored, and a run cannot step over a hole",
                hint="import candles for the whole window, or choose start_ms and end_ms beside the hole",
            )
        yield since, candles, fresh


def _check_unbroken(registry: Registry, symbol: str, exchange_name: str, start: int, end: int) -> None:
    """Read the window once, so that a hole is found before anything is written; only where no import vouches for it."""
    for _ in _blocks(CandleHistory(exchange_name, end, registry), symbol, exchange_name, start, end):
        pass


def read_costs(fee_percent: float, slippage_percent: float, stake_usd: float) -> Costs:
    """Checked costs; InvalidTypeError or InvalidValueError names the one that is wrong."""
    return Costs(
        fee_percent=_setting("fee_percent", fee_percent, below=100),
        slippage_percent=_setting("slippage_percent", slippage_percent, below=100),
        stake_usd=_setting("stake_usd", stake_usd, below=math.inf),
    )


def default_exchange_name(name: str | None) -> str:
    """``name``, or that of the only registered exchange, or "binance" where none is."""
    if name is not None:
        return name
    return find_exchange(None).name if list_exchanges() else "binance"


def _setting(name: str, value: object, *, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 <= value < below:
        raise InvalidValueError(f"{name} is {value}; it must be a finite number from 0{'' if below == math.inf else f' to below {below}'}")
    return float(value)
