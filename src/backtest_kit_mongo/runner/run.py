"""The replay: 1m candles, minute by minute, through one strategy, with everything persisted through the contracts.

Execution. At the simulation time ``when`` the price is the volume-weighted typical price of the last five closed 1m candles. A
strategy without a position is asked at every multiple of its interval; a signal opens at that price, at once. From the next 1m
candle on, a touch of the stop closes at the stop, a touch of the target at the target, the stop first where one candle touches
both; when the time of the position is over, it closes at the close of the candle in which that happens. Every exit is stamped
with the close of its candle. There is one position at a time, and the strategy is asked again at the first multiple of its
interval after the exit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import discard_versions, get_config, simulated_time, stats
from ..domains import DOMAINS
from ..errors import BacktestKitError, DatabaseError, InvalidTypeError, InvalidValueError, ServerUnavailableError
from .candle_import import choose_window
from .clock import MINUTE_MS, advance_to, as_datetime, iso_time
from .history import BLOCK, Candle, CandleHistory, current_history
from .journal import Journal
from .position import (
    VWAP_CANDLES,
    CloseReason,
    Costs,
    Position,
    find_exit,
    note_price,
    observe,
    open_position,
    pnl_percentage,
    read_signal,
    vwap,
)
from .result import BacktestResult, OpenTrade, Trade, add_up
from .rows import Row, RunContext, derive_id
from .strategy import BadSignalError, Strategy, StrategyError, check_name, find_strategy
from .strategy_file import describe, where

__all__ = ["run_backtest"]


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
) -> BacktestResult:
    """Replay the stored 1m candles of ``[start_ms, end_ms)`` (ms, whole minutes) through a registered strategy.

    Without ``strategy_name`` it is the only registered one; without a window, or half of one, that of the imported candles. A
    window with a hole is refused before anything is written. Fee and slippage are percent per side, the stake is USD.
    ``progress`` is called with (minutes replayed, all minutes). How orders are executed is said at the top of this module.

    Everything that happens is written through the contracts before the run acts on it. The same run over the same candles gives
    the same trades, also in a database that holds the records of an earlier one. A strategy that raises, or returns no valid
    signal, ends the run with a StrategyError (BadSignalError), after that was written to Log and Notification.
    """
    for what, name in (("symbol", symbol), ("exchange_name", exchange_name), ("frame_name", frame_name)):
        check_name(what, name)
    strategy = find_strategy(strategy_name)
    costs = Costs(
        fee_percent=_setting("fee_percent", fee_percent, below=100),
        slippage_percent=_setting("slippage_percent", slippage_percent, below=100),
        stake_usd=_setting("stake_usd", stake_usd, below=math.inf),
    )
    begin = time.perf_counter()
    start, end, unbroken = choose_window(symbol, exchange_name, start_ms, end_ms)
    if not unbroken:
        _check_unbroken(symbol, exchange_name, start, end)
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
    history = CandleHistory(exchange_name, end)
    replay = _Replay(context, strategy)
    with _simulating(history, start):
        _discard_later(context, strategy.interval_ms)
        replay.journal.begin(start)
        for since, candles, fresh in _blocks(history, symbol, exchange_name, start, end):
            replay.block(candles, fresh)
            if progress is not None:
                progress((since - start) // MINUTE_MS + fresh, (end - start) // MINUTE_MS)
        replay.journal.finished(end, replay.summary())
    return BacktestResult(
        symbol=symbol,
        strategy_name=strategy.name,
        exchange_name=exchange_name,
        frame_name=frame_name,
        start_ms=start,
        end_ms=end,
        trades=tuple(replay.trades),
        open_trade=replay.open_trade(),
        totals=add_up(replay.trades),
        minutes=(end - start) // MINUTE_MS,
        signals_asked=replay.asked,
        wall_seconds=time.perf_counter() - begin,
        stats=stats(),
    )


class _Replay:
    """The state of a run between two candles."""

    def __init__(self, context: RunContext, strategy: Strategy) -> None:
        self.context = context
        self.strategy = strategy
        self.journal = Journal(context)
        self.trades: list[Trade] = []
        self.asked = 0
        self.position: Position | None = None
        self._price = math.nan

    def block(self, candles: list[Candle], fresh: int) -> None:
        """Replay the last ``fresh`` of ``candles``; those before are there for the price only."""
        step, end = self.strategy.interval_ms, self.context.end_ms
        for index in range(len(candles) - fresh, len(candles)):
            candle = candles[index]
            when = candle["timestamp"] + MINUTE_MS
            if self.position is not None:
                self._hold(self.position, candles, index, when)
            # At the very end nothing could come of a signal any more.
            elif when % step == 0 and when < end and index + 1 >= VWAP_CANDLES:
                self._ask(vwap(candles[index + 1 - VWAP_CANDLES : index + 1]), when)

    def _ask(self, price: float, when: int) -> None:
        context, strategy = self.context, self.strategy
        self.asked += 1
        advance_to(when)
        try:
            raw = strategy.get_signal(context.symbol, as_datetime(when))
            if raw is None:
                return
            try:
                signal = read_signal(raw, price)
            except (InvalidTypeError, InvalidValueError) as error:
                raise BadSignalError(f"{self._named(when)} returned no valid signal: {error}") from error
        except (ServerUnavailableError, DatabaseError):
            raise  # not the fault of the strategy, and nothing could be written now
        except (Exception, SystemExit) as error:  # a strategy that calls sys.exit() has failed as well
            failure = error if isinstance(error, BadSignalError) else StrategyError(self._raised(error, when))
            try:
                self.journal.failed(when, type(error).__name__, str(failure))
            except BacktestKitError as second:
                failure.add_note(f"this could not be written to Log and Notification: {second}")
            if failure is error:
                raise
            raise failure from error
        position = open_position(derive_id(context, when), signal, price, when)
        self.journal.opened(position, when)
        self.position = position
        self._price = price

    def _hold(self, position: Position, candles: list[Candle], index: int, when: int) -> None:
        closing = find_exit(position, candles[index])
        if closing is not None:
            self._close(position, *closing, when)
            return
        self._price = price = vwap(candles[index + 1 - VWAP_CANDLES : index + 1])
        passed = observe(position, price, when, self.context.costs)
        if passed is not None:
            advance_to(when)
            self.journal.progressed(position, price, when, passed)

    def _close(self, position: Position, reason: CloseReason, price: float, when: int) -> None:
        context = self.context
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
        advance_to(when)
        self.journal.closed(position, price, when, reason, _summary([*self.trades, trade]))
        self.trades.append(trade)
        self.position = None

    def open_trade(self) -> OpenTrade | None:
        """What is still open, valued at the last price."""
        position, context = self.position, self.context
        if position is None:
            return None
        return OpenTrade(
            id=position.id,
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            position=position.signal.side,
            price_open=position.price_open,
            open_timestamp=position.opened_ms,
            current_price=self._price,
            pnl_percentage=pnl_percentage(position.signal.side, position.price_open, self._price, context.costs),
        )

    def summary(self) -> Row:
        """What the session says about the run so far."""
        return _summary(self.trades)

    def _named(self, when: int) -> str:
        return f"strategy {self.strategy.name!r} on {self.context.symbol} at {iso_time(when)}"

    def _raised(self, error: BaseException, when: int) -> str:
        return f"{self._named(when)} raised {describe(error)} ({where(error, self.strategy.file)})"


def _summary(trades: list[Trade]) -> Row:
    profits = [trade.pnl_percentage for trade in trades]
    return {
        "trades": len(trades),
        "wins": sum(profit > 0 for profit in profits),
        "pnlPercentage": sum(profits),
        "lastCloseTimestamp": trades[-1].close_timestamp if trades else None,
    }


def _discard_later(context: RunContext, step_ms: int) -> None:
    """Where versions are kept: discard what an earlier run left of this run's own records, so that this one sees what that one saw."""
    own: dict[str, object] = {
        "symbol": context.symbol,
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "frameName": context.frame_name,
        "backtest": True,
    }
    ids: list[str] | None = None
    for name in get_config().CC_HISTORY:
        fields = {field: value for field, value in own.items() if field in DOMAINS[name].key}
        if "strategyName" not in fields:
            if "signalId" not in DOMAINS[name].key:
                continue  # Risk and Interval are shared with others
            if ids is None:
                first = -(-context.start_ms // step_ms) * step_ms
                ids = [derive_id(context, when) for when in range(first, context.end_ms, step_ms)]
            fields = {"signalId": ids}
        discard_versions(name, context.start_ms, **fields)


@contextmanager
def _simulating(history: CandleHistory, start: int) -> Iterator[None]:
    token = current_history.set(history)
    try:
        with simulated_time(start):
            yield
    finally:
        current_history.reset(token)


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


def _check_unbroken(symbol: str, exchange_name: str, start: int, end: int) -> None:
    """Read the window once, so that a hole is found before anything is written; only where no import vouches for it."""
    for _ in _blocks(CandleHistory(exchange_name, end), symbol, exchange_name, start, end):
        pass


def _setting(name: str, value: object, *, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name} must be a number, got {type(value).__name__}")
    if not 0 <= value < below:
        raise InvalidValueError(f"{name} is {value}; it must be a finite number from 0{'' if below == math.inf else f' to below {below}'}")
    return float(value)
