"""Results of runs that never ran: handmade trades with everything around them."""

from __future__ import annotations

from hand_market import MINUTE, START

from backtest_kit_mongo.runner import Trade
from backtest_kit_mongo.runner.engine.buy_and_hold import BuyAndHold
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.engine.result import BacktestResult, add_up

DAY = 1440 * MINUTE
WAVES = [round(((number * 37) % 23 - 10.5) / 4, 3) for number in range(240)]
"""Profits that win and lose, some of them twice."""


def result(profits, days=90, **fields):
    """Return a result of trades with these profits, every 7 hours, that alternate between long and short in pairs."""
    trades = tuple(
        Trade(
            id=f"trade-{number}", symbol="BTCUSDT", strategy_name="hand", position="short" if number % 4 > 1 else "long",
            price_open=25_000.0 + number, price_close=25_010.5 + number, open_timestamp=START + number * 420 * MINUTE,
            close_timestamp=START + (number * 420 + 30 + number) * MINUTE, pnl_percentage=profit,
            close_reason="take_profit" if profit > 0 else "stop_loss",
        )
        for number, profit in enumerate(profits)
    )  # fmt: skip
    values = {
        "symbol": "BTCUSDT",
        "strategy_name": "hand",
        "exchange_name": "binance",
        "frame_name": "backtest",
        "start_ms": START,
        "end_ms": START + days * DAY,
        "trades": trades,
        "open_trade": None,
        "totals": add_up(trades),
        "minutes": days * 1440,
        "signals_asked": 0,
        "wall_seconds": 0.0,
        "stats": {},
        "costs": Costs(0.05, 0.02, 250.0),
        "parameters": {"FAST": 6, "MODE": "a<b"},
        "window_end_ms": START + days * DAY,
        "buy_and_hold": BuyAndHold(price_open=100.0, price_close=112.0, pnl_percentage=11.86, max_drawdown_percentage=20.5),
    }
    return BacktestResult(**{**values, **fields})
