"""Run backtests, paper and live trading on the contracts: registrations, runs and their results."""

from ..candles import CANDLE_DTYPE
from ..candles.files import CandleFiles, read_candle_files, read_klines
from .backtest.background import RunHandle
from .backtest.backtest import Backtest, run_backtest, run_backtests
from .backtest.cluster import cluster_executor
from .backtest.kept_runs import KeptRun, keep_run, list_runs, load_run
from .backtest.sweep import sweep
from .backtest.sweep_result import SweepResult, SweepRun
from .clock import OutsideRunError
from .engine.actions import (
    activate_scheduled,
    average_buy,
    cancel_scheduled,
    close_partial,
    close_pending,
    create_signal,
    pause,
    resume,
    stop,
    trailing_stop,
    trailing_take,
)
from .engine.broker import Broker, Fill, Order, OrderFailedError, OrderRejected, add_broker, clear_brokers, find_broker, list_brokers
from .engine.buy_and_hold import BuyAndHold
from .engine.cost_basis import Costs
from .engine.journal import TakenOverError
from .engine.options import RunOptions
from .engine.result import BacktestResult, OpenTrade, Totals, Trade
from .engine.risk import Risk, RiskRequest, add_risk, clear_risks, list_risks
from .facades.interval import Interval
from .facades.measure import Measure
from .facades.memory import Memory, Remembered
from .facades.messages import Log, Notification
from .facades.run_scope import NoSignalError
from .facades.session import Session
from .facades.signals import Recent, Storage
from .facades.single_flight import NestedCallError
from .facades.state import State
from .live.ccxt_broker import CcxtBroker
from .live.live import Live
from .loading.parameters import parameter
from .loading.strategy_file import load_strategy_file
from .market.candle_differences import CandleConflict, CandleConflictError
from .market.candle_history import CandleDict, get_average_price, get_candles, get_raw_candles
from .market.candle_import import ImportReport, import_candles, imported_spans
from .market.candle_reading import CandleGapError, read_candles
from .market.candle_refresh import refresh_candles
from .market.candle_series import CandleSeries, PackedSeries, list_candles, pack_candles, remove_candles, unpack_candles, verify_candles
from .market.ccxt_exchange import add_ccxt_exchange
from .market.exchange import (
    Exchange,
    ExchangeError,
    ExchangeRefusedError,
    ExchangeUnavailableError,
    add_exchange,
    clear_exchanges,
    fetch_missing,
    find_exchange,
    list_exchanges,
)
from .market.file_exchange import add_file_exchange
from .market.frame import Frame, add_frame, clear_frames, find_frame, list_frames
from .market.gaps import Gap, find_gaps, synthetic_market
from .report.html import write_html
from .report.statistics import profile_json, result_json, trades_frame
from .strategy import (
    BadSignalError,
    Callbacks,
    Event,
    SignalDict,
    Strategy,
    StrategyError,
    add_strategy,
    clear_strategies,
    find_strategy,
    list_strategies,
)

__all__ = [
    "CANDLE_DTYPE",
    "Backtest",
    "BacktestResult",
    "BadSignalError",
    "Broker",
    "BuyAndHold",
    "Callbacks",
    "CandleConflict",
    "CandleConflictError",
    "CandleDict",
    "CandleFiles",
    "CandleGapError",
    "CandleSeries",
    "CcxtBroker",
    "Costs",
    "Event",
    "Exchange",
    "ExchangeError",
    "ExchangeRefusedError",
    "ExchangeUnavailableError",
    "Fill",
    "Frame",
    "Gap",
    "ImportReport",
    "Interval",
    "KeptRun",
    "Live",
    "Log",
    "Measure",
    "Memory",
    "NestedCallError",
    "NoSignalError",
    "Notification",
    "OpenTrade",
    "Order",
    "OrderFailedError",
    "OrderRejected",
    "OutsideRunError",
    "PackedSeries",
    "Recent",
    "Remembered",
    "Risk",
    "RiskRequest",
    "RunHandle",
    "RunOptions",
    "Session",
    "SignalDict",
    "State",
    "Storage",
    "Strategy",
    "StrategyError",
    "SweepResult",
    "SweepRun",
    "TakenOverError",
    "Totals",
    "Trade",
    "activate_scheduled",
    "add_broker",
    "add_ccxt_exchange",
    "add_exchange",
    "add_file_exchange",
    "add_frame",
    "add_risk",
    "add_strategy",
    "average_buy",
    "cancel_scheduled",
    "clear_brokers",
    "clear_exchanges",
    "clear_frames",
    "clear_risks",
    "clear_strategies",
    "close_partial",
    "close_pending",
    "cluster_executor",
    "create_signal",
    "fetch_missing",
    "find_broker",
    "find_exchange",
    "find_frame",
    "find_gaps",
    "find_strategy",
    "get_average_price",
    "get_candles",
    "get_raw_candles",
    "import_candles",
    "imported_spans",
    "keep_run",
    "list_brokers",
    "list_candles",
    "list_exchanges",
    "list_frames",
    "list_risks",
    "list_runs",
    "list_strategies",
    "load_run",
    "load_strategy_file",
    "pack_candles",
    "parameter",
    "pause",
    "profile_json",
    "read_candle_files",
    "read_candles",
    "read_klines",
    "refresh_candles",
    "remove_candles",
    "result_json",
    "resume",
    "run_backtest",
    "run_backtests",
    "stop",
    "sweep",
    "synthetic_market",
    "trades_frame",
    "trailing_stop",
    "trailing_take",
    "unpack_candles",
    "verify_candles",
    "write_html",
]
