"""MongoDB and Redis persistence for trading strategies: the contracts of backtest-kit with a compiled core."""

from importlib.metadata import version as _version

from .adapters import *
from .adapters import Registry
from .adapters import __all__ as _adapters
from .candles import to_arrow, to_pandas, to_polars
from .errors import *
from .errors import __all__ as _errors
from .logs import set_logger
from .profiling import Report, profile
from .query import records
from .registry import (
    close,
    discard_versions,
    get_config,
    get_mongo,
    get_redis,
    install,
    reset_stats,
    set_config,
    setup,
    stats,
    wait_for_init,
)
from .simulation import simulated_time

__version__ = _version("backtest-kit-mongo")

__all__ = [
    *_adapters,
    *_errors,
    "Registry",
    "Report",
    "close",
    "discard_versions",
    "get_config",
    "get_mongo",
    "get_redis",
    "install",
    "profile",
    "records",
    "reset_stats",
    "set_config",
    "set_logger",
    "setup",
    "simulated_time",
    "stats",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "wait_for_init",
]
