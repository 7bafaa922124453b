"""Backtests on the contracts: strategies, candle import, the replay and its result."""

from ..candles import CANDLE_DTYPE
from .candle_import import ImportReport, import_candles, imported_spans
from .clock import OutsideRunError
from .history import get_candles
from .klines import read_klines
from .market import Gap, find_gaps, synthetic_market
from .parameters import parameter
from .result import BacktestResult, OpenTrade, Totals, Trade
from .run import run_backtest
from .strategy import BadSignalError, Strategy, StrategyError, add_strategy, clear_strategies, list_strategies
from .strategy_file import load_strategy_file
from .sweep import sweep
from .sweep_result import SweepResult, SweepRun

__all__ = [
    "CANDLE_DTYPE",
    "BacktestResult",
    "BadSignalError",
    "Gap",
    "ImportReport",
    "OpenTrade",
    "OutsideRunError",
    "Strategy",
    "StrategyError",
    "SweepResult",
    "SweepRun",
    "Totals",
    "Trade",
    "add_strategy",
    "clear_strategies",
    "find_gaps",
    "get_candles",
    "import_candles",
    "imported_spans",
    "list_strategies",
    "load_strategy_file",
    "parameter",
    "read_klines",
    "run_backtest",
    "sweep",
    "synthetic_market",
]
