"""MongoDB and Redis persistence for trading strategies: the contracts of backtest-kit with a compiled core.

Importing the package is cheap: NumPy, the drivers and the compiled core are loaded by the first use of a name that needs them.
"""

import sys
from typing import TYPE_CHECKING

from .contract_names import PUBLIC as _contracts
from .errors import *
from .errors import __all__ as _errors

if TYPE_CHECKING:
    from .candles import to_arrow, to_pandas, to_polars
    from .contracts.adapters import *
    from .contracts.default_registry import (
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
    from .contracts.profiling import profile
    from .contracts.registry import Registry
    from .data.query import records
    from .data.trades import read_trades, write_trades
    from .logs import set_logger
    from .observability.profile import Report
    from .setting_types import Settings
    from .simulation import simulated_time

    __version__: str

__all__ = [
    *_contracts,
    *_errors,
    "Registry",
    "Report",
    "Settings",
    "close",
    "discard_versions",
    "get_config",
    "get_mongo",
    "get_redis",
    "install",
    "profile",
    "read_trades",
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
    "write_trades",
]

if not TYPE_CHECKING:  # a type checker that sees __getattr__ would accept any name
    _HOMES = {
        **dict.fromkeys(_contracts, "contracts.adapters"),
        "Registry": "contracts.registry",
        **dict.fromkeys(("to_arrow", "to_pandas", "to_polars"), "candles"),
        "Report": "observability.profile",
        "profile": "contracts.profiling",
        "records": "data.query",
        **dict.fromkeys(("read_trades", "write_trades"), "data.trades"),
        "Settings": "setting_types",
        "set_logger": "logs",
        "simulated_time": "simulation",
    }
    _HOMES |= {name: "contracts.default_registry" for name in __all__ if name not in _HOMES and name not in _errors}

    def __getattr__(name: str) -> object:
        """Import a name at its first use and keep it as a plain global."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("backtest-kit-mongo")
        elif name in _HOMES:
            from importlib import import_module

            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        else:
            from importlib import import_module
            from importlib.util import find_spec

            if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:  # a module that is not imported yet
                return import_module(f".{name}", __name__)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
