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
    """Replay stored 1m candles through a registered strategy.

    Everything that happens is written through the contracts of ``registry`` before the run acts on it. The same run over the same
    candles returns the same trades, even in a database that holds the records of an earlier one. A signal with a stop and target
    that do not fit the price is ignored and counted. If the strategy raises, or returns something that is not a signal, the run ends
    with StrategyError (BadSignalError); its ``results`` hold what the run had reached. With ``on_error="skip"`` the run continues
    with the next minute. Either way the error is first written to Log and Notification. See the top of ``engine`` for how orders are
    executed.

    Args:
        symbol: the traded pair
        strategy_name: a registered strategy; None is the only one
        options: the options of the run
        progress: called with (minutes replayed, all minutes)
        registry: the registry whose contracts to use; None is the default one
        stop: set it to end the run after the current minute, with what it has up to then
        **keywords: fields of RunOptions, such as ``start_ms`` (ms) or ``fee_percent`` (percent per side), which win over ``options``

    Returns:
        trades, totals and what else the run has to tell

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or candles of the window are not stored; nothing is written then
        StrategyError: the strategy failed
        BadSignalError: the strategy returned something that is not a signal
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> result = runner.run_backtest("BTCUSDT", fee_percent=0.05, slippage_percent=0.0)
        >>> result.minutes, result.trades[0].close_reason
        (1440, 'time_expired')
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
    as it would alone; ``wall_seconds`` is its share of the time. A strategy that raises, or a window with a gap, ends only its own run:
    the ``results`` of its error hold what the run had reached, and the other runs continue.

    Args:
        symbols: the traded pairs
        strategy_names: registered strategies; None in it is the only one
        options: the options of the runs
        progress: called with (minutes replayed, all minutes)
        registry: the registry whose contracts to use; None is the default one
        stop: set it to end the runs after the current minute
        **keywords: fields of RunOptions, which win over ``options``

    Returns:
        the results, and the errors of the runs that failed

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> results, failed = runner.run_backtests(["BTCUSDT"], stake_usd=50.0)
        >>> len(results), failed
        (1, [])
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
    """Backtests by name: of a registered strategy, exchange and frame.

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> frame = runner.add_frame("morning", "2024-01-01", "2024-01-01T06:00")
        >>> runner.Backtest.run("BTCUSDT", fee_percent=0.05).frame_name
        'morning'
    """

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
        """Run a backtest over the window of a registered frame; see ``run_backtest``.

        Args:
            symbol: the traded pair
            strategy_name: a registered strategy; None is the only one
            exchange_name: a registered exchange; None is the only one, or "binance" if none is registered
            frame_name: a registered frame; None is the only one, or the window of the stored candles if none is registered
            progress: called with (minutes replayed, all minutes)
            registry: the registry whose contracts to use; None is the default one
            stop: set it to end the run after the current minute
            **keywords: ``fee_percent``, ``slippage_percent``, ``stake_usd``, ``on_error`` and ``holes``, as in RunOptions

        Returns:
            trades, totals and what else the run has to tell

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: an argument is not valid, a name is not registered, or candles of the window are not stored; nothing is
                written then
            StrategyError: the strategy failed; its ``results`` hold what the run had reached
            ServerUnavailableError: a server cannot be reached
            ServerTimeoutError: a server does not answer in time

        Examples:
            >>> from backtest_kit_mongo import runner
            >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
            >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
            >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
            >>> runner.Backtest.run("BTCUSDT", strategy_name="buys").complete
            True
        """
        options = RunOptions(exchange_name=default_exchange_name(exchange_name), **keywords)
        if frame_name is not None or list_frames():
            frame = find_frame(frame_name)
            options = options.replaced(frame_name=frame.name, start_ms=frame.start_ms, end_ms=frame.end_ms)
        return run_backtest(symbol, strategy_name, options=options, progress=progress, registry=registry, stop=stop)

    @staticmethod
    def background(symbol: str, **keywords: Unpack[StartKeywords]) -> RunHandle:
        """Call ``run`` in a background thread. Background runs do not stop each other: an error is raised by ``result()``.

        Args:
            symbol: the traded pair
            **keywords: the keyword arguments of ``run`` apart from ``stop``

        Returns:
            a handle to stop the run and to wait for its result

        Examples:
            >>> from backtest_kit_mongo import runner
            >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
            >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
            >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
            >>> runner.Backtest.background("BTCUSDT").result(timeout=60).complete
            True
        """
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
