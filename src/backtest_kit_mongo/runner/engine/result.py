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

    from ...table_types import PandasFrame

__all__ = ["BacktestResult", "OpenTrade", "Totals", "Trade", "add_up"]


class Trade(msgspec.Struct, frozen=True, rename="camel"):
    """A closed trade. Encoded with camelCase names."""

    id: str
    """The id of the signal."""
    symbol: str
    """The traded pair."""
    strategy_name: str
    """The strategy that made the signal."""
    position: Side
    """"long" or "short"."""
    price_open: float
    """The average price (quote currency) of what was left at the last exit."""
    price_close: float
    """The price (quote currency) of the last exit."""
    open_timestamp: int
    """When the position was opened, in ms."""
    close_timestamp: int
    """When it was closed, in ms."""
    close_reason: CloseReason
    """"take_profit", "stop_loss", "time_expired" or "closed" (by ``close_pending``)."""
    pnl_percentage: float
    """The profit in percent (1.5 is 1.5 percent) of what was invested, after fees and slippage."""
    entries: int = 1
    """How many entries the position had."""
    partials: int = 0
    """How many partial closes it had."""
    stakes: float = 1.0
    """What all entries together cost, in stakes of the run: 1 for a position with a single entry."""

    @property
    def stake_percentage(self) -> float:
        """The profit in percent of one stake."""
        return self.pnl_percentage * self.stakes


class OpenTrade(msgspec.Struct, frozen=True, rename="camel"):
    """A position that was still open when the window ended."""

    id: str
    """The id of the signal."""
    symbol: str
    """The traded pair."""
    strategy_name: str
    """The strategy that made the signal."""
    position: Side
    """"long" or "short"."""
    price_open: float
    """The average price (quote currency) of what is left."""
    open_timestamp: int
    """When the position was opened, in ms."""
    current_price: float
    """The last price, in the quote currency."""
    pnl_percentage: float
    """The profit in percent that closing at ``current_price`` would yield, after fees and slippage."""
    entries: int = 1
    """How many entries the position has."""
    partials: int = 0
    """How many partial closes it had."""
    stakes: float = 1.0
    """What all entries together cost, in stakes of the run."""

    @property
    def stake_percentage(self) -> float:
        """The profit in percent of one stake."""
        return self.pnl_percentage * self.stakes


class Totals(msgspec.Struct, frozen=True, rename="camel"):
    """Sums over the closed trades.

    Every position is opened with the same stake and nothing is reinvested, so profits in percent of one stake add up.
    """

    trades: int
    """How many trades were closed."""
    wins: int
    """How many had a profit above 0."""
    losses: int
    """How many had no profit."""
    win_rate: float
    """``wins`` in percent (0-100) of ``trades``; 0 without trades."""
    pnl_percentage: float
    """The sum of all profits, in percent of one stake."""
    average_pnl_percentage: float
    """The mean profit of a trade, in percent of one stake."""
    best_pnl_percentage: float
    """The highest profit of a trade, in percent of one stake."""
    worst_pnl_percentage: float
    """The lowest profit of a trade, in percent of one stake."""
    max_drawdown_percentage: float
    """The deepest fall of the running sum of profits, trade by trade, below its highest point so far (which starts at 0), in percent of
    one stake; 0 or more.
    """
    take_profits: int
    """How many trades closed at their target."""
    stop_losses: int
    """How many trades closed at their stop."""
    time_exits: int
    """How many trades closed at their time limit."""
    user_closes: int
    """How many trades ``close_pending`` closed."""


class BacktestResult(msgspec.Struct, frozen=True, rename="camel"):
    """The result of a backtest, or of a live run since it was started.

    ``trades``, ``totals`` and ``open_trade`` are the same in every run over the same candles and settings. A notebook shows a result as
    tables and a chart.

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> result = runner.run_backtest("BTCUSDT")
        >>> result.totals.trades == len(result.trades), round(result.costs.fee_percent, 3)
        (True, 0.1)
    """

    symbol: str
    """The traded pair."""
    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange of the candles."""
    frame_name: str
    """The frame in the keys of the records; "" for a live run."""
    start_ms: int
    """The start of the window, in ms."""
    end_ms: int
    """The end of the window in ms, which is not part of it; if the run is not ``complete``, how far it came."""
    trades: tuple[Trade, ...]
    """The closed trades, in order of closing."""
    open_trade: OpenTrade | None
    """The position that was still open at the end; None if there is none."""
    totals: Totals
    """Sums over ``trades``."""
    minutes: int
    """How many 1m candles were replayed."""
    signals_asked: int
    """How often the strategy was asked for a signal."""
    wall_seconds: float
    """The duration of the run, in seconds."""
    stats: dict[str, Any]
    """``backtest_kit_mongo.stats()`` at the end: counters per domain since the process started or since ``reset_stats()``."""
    signals_ignored: dict[str, int] = {}
    """How many signals had a stop or target that did not fit the price, by kind."""
    errors_skipped: int = 0
    """How many errors of the strategy's functions did not end the run."""
    complete: bool = True
    """False for a backtest that did not reach the end of its window."""
    error: str | None = None
    """The text of the error that ended a backtest early; None if none did, or if it was interrupted."""
    seconds_to_first_trade: float | None = None
    """The time in seconds from the start of the run to its first closed trade; None without one."""
    holes: int = 0
    """How many holes in the window were filled (``holes="fill"``)."""
    filled_candles: int = 0
    """With how many flat candles they were filled."""
    costs: Costs | None = None
    """Fee, slippage and stake of the run."""
    parameters: dict[str, bool | int | float | str] = {}
    """The values of ``parameter(...)`` in effect."""
    window_end_ms: int | None = None
    """The end of the window that a backtest was to replay, in ms; None for a live run."""
    buy_and_hold: BuyAndHold | None = None
    """What holding the symbol would have earned up to ``end_ms``; None for a live run, or before the first candle."""

    # The methods import late: what shows results imports them.

    def to_dataframe(self) -> PandasFrame:
        """Return the closed trades as a pandas DataFrame; see ``trades_frame``.

        Raises:
            MissingDependencyError: pandas is not installed
        """
        from ..report.statistics import trades_frame

        return trades_frame(self)

    def plot(self) -> Figure:
        """Draw the running sum of the profits, and the drawdown, as a matplotlib figure that pyplot does not manage.

        Raises:
            MissingDependencyError: matplotlib is not installed
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
