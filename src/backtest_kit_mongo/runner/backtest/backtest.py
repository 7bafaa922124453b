"""Backtests: replay the stored 1m candles of a window, minute by minute, through the state machine of ``engine``."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Unpack

from ...contracts.default_registry import default_registry
from ...contracts.registry import Registry
from ...domains import DOMAINS
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ..clock import MINUTE_MS
from ..engine.engine import Engine
from ..engine.options import ExecutionKeywords, Progress, RunKeywords, RunOptions, StartKeywords
from ..engine.result import BacktestResult, add_up
from ..engine.risk import Books
from ..engine.rows import RunContext, derive_id
from ..engine.write_behind import PendingWrites
from ..loading.parameters import parameters_in_effect
from ..market.candle_history import CandleHistory
from ..market.candle_import import check_source, choose_window
from ..market.exchange import default_exchange_name
from ..market.frame import find_frame, list_frames
from ..market.holes import FilledHoles, Holes
from ..registrations import check_name
from ..strategy import Strategy, find_strategy
from .background import RunHandle, in_background
from .replay import Replay, replay

__all__ = ["Backtest", "run_backtest", "run_backtests"]


def run_backtest(
    symbol: str,
    strategy_name: str | None = None,
    *,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
    stop: threading.Event | None = None,
    **keywords: Unpack[RunKeywords],
) -> BacktestResult:
    """Replay the stored 1m candles of ``[start_ms, end_ms)`` (ms, whole minutes) through a registered strategy.

    ``strategy_name`` defaults to the only registered strategy. Pass the options as a RunOptions, as keyword arguments with the names of
    its fields (``fee_percent=0.05``), or both: a keyword argument wins. A window with a gap is rejected before anything is written.
    ``progress`` is called with (minutes replayed, all minutes). See the top of ``engine`` for how orders are executed. Once
    ``stop`` is set, the run ends after the current minute and returns what it has up to then.

    Everything that happens is written through the contracts of ``registry`` before the run acts on it. The same run over the same
    candles returns the same trades, even in a database that holds the records of an earlier one. A signal with a stop and target
    that do not fit the price is ignored and counted. If the strategy raises, or returns something that is not a signal, the run ends
    with StrategyError (BadSignalError); its ``results`` hold what the run had reached. With ``on_error="skip"`` the run continues
    with the next minute. Either way the error is first written to Log and Notification.
    """
    results, failed = run_backtests([symbol], [strategy_name], options=options, progress=progress, registry=registry, stop=stop, **keywords)
    if failed:
        raise failed[0]
    return results[0]


def run_backtests(
    symbols: Sequence[str],
    strategy_names: Sequence[str | None] = (None,),
    *,
    options: RunOptions | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
    stop: threading.Event | None = None,
    **keywords: Unpack[RunKeywords],
) -> tuple[list[BacktestResult], list[BacktestKitError]]:
    """Run ``run_backtest`` for every strategy on every symbol, side by side: each minute is processed in all runs before the next one.

    So a risk limit counts the positions of all runs, as it does live, and a candle that several strategies use is read once. Within a
    minute the order is that of ``symbols``, and for each symbol that of ``strategy_names``. Otherwise a run does and returns the same
    as it would alone; ``wall_seconds`` is its share of the time. Returns the results, and the errors of the runs that failed. A
    strategy that raises, or a window with a gap, ends only its own run: the ``results`` of its error hold what the run had reached,
    and the other runs continue.
    """
    options = (RunOptions() if options is None else options).replaced(**keywords)
    for argument, value in (("symbols", symbols), ("strategy_names", strategy_names)):
        if isinstance(value, str):
            raise InvalidTypeError(f"{argument} must be a list of names, got {value!r}", hint=f"pass [{value!r}]")
    symbols = [check_name("symbol", symbol) for symbol in symbols]
    registry = default_registry if registry is None else registry
    strategies = [find_strategy(name) for name in strategy_names]
    config = registry.get_config()
    pairs = list(dict.fromkeys((symbol, strategy.name) for symbol in symbols for strategy in strategies))
    if not pairs:
        raise InvalidValueError("there is nothing to run", hint="name at least one symbol and one strategy")
    begin = time.perf_counter()
    windows: dict[str, _Window | BacktestKitError] = {}
    for symbol, _ in pairs:
        if symbol not in windows:
            windows[symbol] = _window(symbol, options, registry)
    books: Books = {}
    # After a crash a backtest is run again from its start, so it does not need a record of every step.
    pending = PendingWrites(registry) if config.CC_DURABILITY == "memory" else None
    by_name = {strategy.name: strategy for strategy in strategies}

    end_of_all = max((window.end_ms for window in windows.values() if isinstance(window, _Window)), default=0)
    history = _history(options, end_of_all, registry)

    def prepare(symbol: str, strategy: Strategy, window: _Window) -> Replay:
        context = RunContext(
            symbol=symbol,
            strategy_name=strategy.name,
            exchange_name=options.exchange_name,
            frame_name=options.frame_name,
            risk_name=strategy.risk_name,
            start_ms=window.start_ms,
            end_ms=window.end_ms,
            costs=options.costs,
        )
        engine = Engine(
            context,
            strategy,
            registry,
            wait_minutes=config.CC_SCHEDULE_AWAIT_MINUTES,
            books=books,
            pending=pending,
            on_error=options.on_error,
        )
        return Replay(engine, history.beside(), window.filled)

    runs: dict[tuple[str, str], Replay | BacktestKitError] = {}
    for symbol, name in pairs:
        window = windows[symbol]
        runs[symbol, name] = window if isinstance(window, BacktestKitError) else prepare(symbol, by_name[name], window)
    active = [run for run in runs.values() if isinstance(run, Replay)]
    if active:
        try:
            replay(active, pending=pending, before=lambda engine: _discard_later(registry, engine), progress=progress, stop=stop)
        except BacktestKitError as error:  # for example a lost server: what the runs reached is still useful
            error.results = tuple(_result(run, begin, len(pairs), registry, run.failure or (None if run.over else error)) for run in active)
            for (symbol, name), run in runs.items():
                earlier = run if isinstance(run, BacktestKitError) else run.failure
                if earlier is not None:
                    error.add_note(f"{name} on {symbol} had already failed: {earlier}")
            raise
    results: list[BacktestResult] = []
    failed: list[BacktestKitError] = []
    for run in runs.values():
        if isinstance(run, BacktestKitError):
            failed.append(run)
        elif run.failure is not None:
            run.failure.results = (_result(run, begin, len(pairs), registry, run.failure),)
            failed.append(run.failure)
        else:
            results.append(_result(run, begin, len(pairs), registry))
    return results, failed


class Backtest:
    """Backtests by name: of a registered strategy, exchange and frame."""

    @staticmethod
    def run(
        symbol: str,
        *,
        strategy_name: str | None = None,
        exchange_name: str | None = None,
        frame_name: str | None = None,
        progress: Progress | None = None,
        registry: Registry | None = None,
        stop: threading.Event | None = None,
        **keywords: Unpack[ExecutionKeywords],
    ) -> BacktestResult:
        """Call ``run_backtest`` with the window of a registered frame.

        A name that you leave out is that of the only registered strategy, exchange or frame. If no exchange is registered, it is
        "binance"; if no frame is registered, the window is that of the stored candles. Costs and ``on_error`` are those of RunOptions.
        """
        options = RunOptions(exchange_name=default_exchange_name(exchange_name), **keywords)
        if frame_name is not None or list_frames():
            frame = find_frame(frame_name)
            options = options.replaced(frame_name=frame.name, start_ms=frame.start_ms, end_ms=frame.end_ms)
        return run_backtest(symbol, strategy_name, options=options, progress=progress, registry=registry, stop=stop)

    @staticmethod
    def background(symbol: str, **keywords: Unpack[StartKeywords]) -> RunHandle:
        """Call ``run`` in a background thread. Background runs do not stop each other: an error is raised by ``result()``."""
        return in_background(f"backtest {symbol}", lambda stop: Backtest.run(symbol, stop=stop, **keywords))


class _Window(NamedTuple):
    """What a run replays: ``[start_ms, end_ms)`` (ms), and the holes in it that are filled."""

    start_ms: int
    end_ms: int
    filled: Holes


def _history(options: RunOptions, end_ms: int, registry: Registry) -> CandleHistory:
    filled = FilledHoles(options.exchange_name, registry) if options.holes == "fill" else None
    return CandleHistory(options.exchange_name, end_ms, registry, filled=filled)


def _window(symbol: str, options: RunOptions, registry: Registry) -> _Window | InvalidValueError:
    """Return the window of a symbol, or the error that says why it cannot be replayed."""
    exchange_name, filled = options.exchange_name, Holes()
    try:
        start, end, unbroken = choose_window(
            symbol, exchange_name, options.start_ms, options.end_ms, across_holes=options.holes == "fill", registry=registry
        )
        if not unbroken:  # otherwise an import guarantees it
            _history(options, end, registry).check_unbroken(symbol, start, end)
            if options.holes == "fill":
                filled = FilledHoles(exchange_name, registry).count(symbol, start, end)
        check_source(symbol, exchange_name, end, registry=registry)
    except InvalidValueError as error:
        return error
    return _Window(start, end, filled)


def _result(run: Replay, begin: float, shares: int, registry: Registry, error: BacktestKitError | None = None) -> BacktestResult:
    """Return the result of one of ``shares`` runs on a clock, begun at ``begin`` (perf_counter); ``error`` is what ended it early."""
    engine, context = run.engine, run.engine.context
    return BacktestResult(
        symbol=context.symbol,
        strategy_name=context.strategy_name,
        exchange_name=context.exchange_name,
        frame_name=context.frame_name,
        start_ms=run.start,
        end_ms=run.reached,
        trades=tuple(engine.trades),
        open_trade=engine.open_trade(),
        totals=add_up(engine.trades),
        minutes=(run.reached - run.start) // MINUTE_MS,
        signals_asked=engine.asked,
        wall_seconds=(time.perf_counter() - begin) / shares,
        stats=registry.stats(),
        signals_ignored=dict(engine.ignored),
        errors_skipped=engine.errors_skipped,
        complete=error is None and run.reached == run.end,
        error=None if error is None else str(error),
        holes=run.filled.holes,
        filled_candles=run.filled.candles,
        seconds_to_first_trade=None if engine.first_trade is None else engine.first_trade - begin,
        costs=context.costs,
        parameters=parameters_in_effect(),
        window_end_ms=run.end,
        buy_and_hold=run.buy_and_hold(),
    )


def _discard_later(registry: Registry, engine: Engine) -> None:
    """In domains that keep versions, discard what an earlier run left in this run's own records, so that both see the same."""
    context, step_ms = engine.context, engine.strategy.interval_ms
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
                continue  # Risk and Interval are shared with other runs
            if ids is None:
                first = -(-context.start_ms // step_ms) * step_ms
                ids = [derive_id(context, when) for when in range(first, context.end_ms, step_ms)]
            fields = {"signalId": ids}
        registry.discard_versions(name, context.start_ms, **fields)
