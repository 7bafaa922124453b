"""MongoDB and Redis persistence for trading strategies: the contracts of backtest-kit with a compiled core.

Importing the package alone is cheap: the first name that needs them loads NumPy, the drivers and the compiled core.
"""

import sys
from typing import TYPE_CHECKING

from .errors import *
from .errors import __all__ as _errors
from .names import PUBLIC as _contracts

if TYPE_CHECKING:
    from .adapters import *
    from .adapters import Registry
    from .candles import to_arrow, to_pandas, to_polars
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

    __version__: str

__all__ = [
    *_contracts,
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

if not TYPE_CHECKING:  # a type checker would take __getattr__ for leave to use any name
    _HOMES = {
        **dict.fromkeys((*_contracts, "Registry"), "adapters"),
        **dict.fromkeys(("to_arrow", "to_pandas", "to_polars"), "candles"),
        **dict.fromkeys(("Report", "profile"), "profiling"),
        "records": "query",
        "set_logger": "logs",
        "simulated_time": "simulation",
    }
    _HOMES |= {name: "registry" for name in __all__ if name not in _HOMES and name not in _errors}

    def __getattr__(name: str) -> object:
        """A name at its first use; from then on it is a plain global."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("backtest-kit-mongo")
        elif name in _HOMES:
            from importlib import import_module

            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        else:
            from importlib import import_module
            from importlib.util import find_spec

            if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:  # a module that was not imported yet
                return import_module(f".{name}", __name__)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
