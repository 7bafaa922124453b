"""The results of a run: trades, totals, statistics of the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .buy_and_hold import BuyAndHold
from .cost_basis import Costs, Side
from .position import CloseReason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BacktestResult", "OpenTrade", "Totals", "Trade", "add_up"]


class Trade(msgspec.Struct, frozen=True, rename="camel"):
    """A closed trade: prices, times in ms, profit in percent of what was invested, after all costs. Encoded with camelCase names.

    ``price_open`` is the average price of what was left at the last exit, ``price_close`` the price of that exit. ``stakes`` is what
    all ``entries`` together cost, in stakes of the run: 1 for a position with a single entry.
    """

    id: str
    symbol: str
    strategy_name: str
    position: Side
    price_open: float
    price_close: float
    open_timestamp: int
    close_timestamp: int
    close_reason: CloseReason
    pnl_percentage: float
    entries: int = 1
    partials: int = 0
    stakes: float = 1.0

    @property
    def stake_percentage(self) -> float:
        """The profit in percent of one stake."""
        return self.pnl_percentage * self.stakes


class OpenTrade(msgspec.Struct, frozen=True, rename="camel"):
    """A position that was still open when the window ended. The profit (percent) is what closing at ``current_price`` would yield.

    The other fields are those of Trade.
    """

    id: str
    symbol: str
    strategy_name: str
    position: Side
    price_open: float
    open_timestamp: int
    current_price: float
    pnl_percentage: float
    entries: int = 1
    partials: int = 0
    stakes: float = 1.0

    @property
    def stake_percentage(self) -> float:
        """The profit in percent of one stake."""
        return self.pnl_percentage * self.stakes


class Totals(msgspec.Struct, frozen=True, rename="camel"):
    """Sums over the closed trades.

    Every position is opened with the same stake and nothing is reinvested, so profits in percent of one stake add up. ``win_rate`` is in
    percent, 0 without trades; a win is a profit above 0. ``max_drawdown_percentage`` is the deepest fall of the running sum of profits,
    trade by trade, below its highest point so far (which starts at 0), in percent of one stake.
    """

    trades: int
    wins: int
    losses: int
    win_rate: float
    pnl_percentage: float
    average_pnl_percentage: float
    best_pnl_percentage: float
    worst_pnl_percentage: float
    max_drawdown_percentage: float
    take_profits: int
    stop_losses: int
    time_exits: int
    user_closes: int


class BacktestResult(msgspec.Struct, frozen=True, rename="camel"):
    """The result of a backtest, or of a live run since it was started.

    ``complete`` is False for a backtest that did not reach the end of its window. ``end_ms`` is then how far it came, and ``error``
    the text of the error that ended it (None if it was interrupted). ``signals_ignored`` counts, by kind, the signals with a stop or
    target that did not fit the price, and ``errors_skipped`` the errors of the strategy's functions that did not end the run.
    ``holes`` counts the holes in the window that were filled with ``filled_candles`` flat candles.
    ``seconds_to_first_trade`` is the wall-clock time from the start of the run to its first closed trade.

    ``costs`` are fee, slippage and stake of the run, ``parameters`` the values of ``parameter(...)`` in effect, ``window_end_ms`` is the
    end of the window that a backtest was to replay (ms), and ``buy_and_hold`` what holding the symbol would have earned up to ``end_ms``
    (None for a live run, or before the first candle).

    ``trades``, ``totals`` and ``open_trade`` are the same in every run over the same candles and settings. ``minutes`` counts the
    replayed 1m candles of ``[start_ms, end_ms)`` (ms), ``signals_asked`` how often the strategy was asked. ``wall_seconds`` is the
    duration of the run, and ``stats`` is ``backtest_kit_mongo.stats()`` at its end: counters per domain since the process started or
    since ``reset_stats()``.
    """

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    start_ms: int
    end_ms: int
    trades: tuple[Trade, ...]
    open_trade: OpenTrade | None
    totals: Totals
    minutes: int
    signals_asked: int
    wall_seconds: float
    stats: dict[str, Any]
    signals_ignored: dict[str, int] = {}
    errors_skipped: int = 0
    complete: bool = True
    error: str | None = None
    seconds_to_first_trade: float | None = None
    holes: int = 0
    filled_candles: int = 0
    costs: Costs | None = None
    parameters: dict[str, bool | int | float | str] = {}
    window_end_ms: int | None = None
    buy_and_hold: BuyAndHold | None = None

    # The methods import late: what shows results imports them.

    def to_dataframe(self) -> Any:
        """Return the closed trades as a pandas DataFrame; see ``trades_frame``."""
        from ..report.statistics import trades_frame

        return trades_frame(self)

    def plot(self) -> Figure:
        """Draw the running sum of the profits, and the drawdown, as a matplotlib figure that pyplot does not manage.

        Raises MissingDependencyError (an ImportError) if matplotlib is not installed.
        """
        from ..report.notebook import draw_result

        return draw_result(self)

    def _repr_html_(self) -> str:
        from ..report.notebook import result_html

        return result_html(self)


def add_up(trades: Sequence[Trade]) -> Totals:
    """Return the totals of ``trades``, in their order."""
    profits = [trade.stake_percentage for trade in trades]
    running = highest = deepest = 0.0
    for profit in profits:
        running += profit
        highest = max(highest, running)
        deepest = max(deepest, highest - running)
    wins = sum(profit > 0 for profit in profits)
    reasons = [trade.close_reason for trade in trades]
    return Totals(
        trades=len(profits),
        wins=wins,
        losses=len(profits) - wins,
        win_rate=wins / len(profits) * 100 if profits else 0.0,
        pnl_percentage=running,
        average_pnl_percentage=running / len(profits) if profits else 0.0,
        best_pnl_percentage=max(profits, default=0.0),
        worst_pnl_percentage=min(profits, default=0.0),
        max_drawdown_percentage=deepest,
        take_profits=reasons.count("take_profit"),
        stop_losses=reasons.count("stop_loss"),
        time_exits=reasons.count("time_expired"),
        user_closes=reasons.count("closed"),
    )
