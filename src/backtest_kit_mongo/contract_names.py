"""The names of the domains and of what serves them, without the table behind them: the package knows its own names at no cost."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["PUBLIC", "DomainName"]

DomainName = Literal[
    "candle", "signal", "schedule", "strategy", "risk", "partial", "breakeven", "storage", "notification", "log", "measure", "interval",
    "memory", "recent", "state", "session", "dictionary",
]  # fmt: skip
"""Those of the table in ``domains``, for type checkers."""

PUBLIC: Final = sorted(f"Persist{name.capitalize()}{kind}" for name in get_args(DomainName) for kind in ("Adapter", "Instance"))
"""The public names of the contracts; ``adapters`` makes what they stand for."""
