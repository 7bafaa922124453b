"""Backtests, paper and live runs on the contracts: what is registered, the runs, and their results."""

from ..candles import CANDLE_DTYPE
from .actions import activate_scheduled, cancel_scheduled, close_pending, create_signal, pause, resume, stop
from .background import RunHandle
from .broker import Broker, Fill, Order, OrderFailedError, OrderRejected, add_broker, clear_brokers, find_broker, list_brokers
from .candle_import import ImportReport, import_candles, imported_spans
from .clock import OutsideRunError
from .exchange import Exchange, add_exchange, clear_exchanges, fetch_missing, find_exchange, list_exchanges
from .frame import Frame, add_frame, clear_frames, find_frame, list_frames
from .history import get_candles, get_raw_candles
from .klines import read_klines
from .live import Live
from .market import Gap, find_gaps, synthetic_market
from .parameters import parameter
from .result import BacktestResult, OpenTrade, Totals, Trade
from .risk import Risk, RiskRequest, add_risk, clear_risks, list_risks
from .run import Backtest, run_backtest
from .strategy import BadSignalError, Callbacks, Event, Strategy, StrategyError, add_strategy, clear_strategies, list_strategies
from .strategy_file import load_strategy_file
from .sweep import sweep
from .sweep_result import SweepResult, SweepRun

__all__ = [
    "CANDLE_DTYPE",
    "Backtest",
    "BacktestResult",
    "BadSignalError",
    "Broker",
    "Callbacks",
    "Event",
    "Exchange",
    "Fill",
    "Frame",
    "Gap",
    "ImportReport",
    "Live",
    "OpenTrade",
    "Order",
    "OrderFailedError",
    "OrderRejected",
    "OutsideRunError",
    "Risk",
    "RiskRequest",
    "RunHandle",
    "Strategy",
    "StrategyError",
    "SweepResult",
    "SweepRun",
    "Totals",
    "Trade",
    "activate_scheduled",
    "add_broker",
    "add_exchange",
    "add_frame",
    "add_risk",
    "add_strategy",
    "cancel_scheduled",
    "clear_brokers",
    "clear_exchanges",
    "clear_frames",
    "clear_risks",
    "clear_strategies",
    "close_pending",
    "create_signal",
    "fetch_missing",
    "find_broker",
    "find_exchange",
    "find_frame",
    "find_gaps",
    "get_candles",
    "get_raw_candles",
    "import_candles",
    "imported_spans",
    "list_brokers",
    "list_exchanges",
    "list_frames",
    "list_risks",
    "list_strategies",
    "load_strategy_file",
    "parameter",
    "pause",
    "read_klines",
    "resume",
    "run_backtest",
    "stop",
    "sweep",
    "synthetic_market",
]
