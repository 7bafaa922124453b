"""Names of the domains and of their public classes, apart from the table of domains so that the package stays cheap to import."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["PLAIN", "PUBLIC", "DomainName"]

DomainName = Literal[
    "candle", "signal", "schedule", "strategy", "risk", "partial", "breakeven", "storage", "notification", "log", "measure", "interval",
    "memory", "recent", "state", "session", "dictionary",
]  # fmt: skip
"""Names of the domains in the table of ``domains``, for type checkers."""

PUBLIC: Final = sorted(f"Persist{name.capitalize()}{kind}" for name in get_args(DomainName) for kind in ("Adapter", "Instance"))
"""The public names of the contracts; ``contracts.adapters`` creates the classes."""

PLAIN: Final = frozenset(
    {"get_config", "profile", "reset_stats", "set_logger", "simulated_time", "stats", "to_arrow", "to_pandas", "to_polars"}
)
"""Functions of the package that only look at this process, and so are not awaitable in ``aio``."""
