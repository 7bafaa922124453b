"""Which run the code that is going on belongs to: what the facades need to know to find their records."""

from __future__ import annotations

import uuid
from contextvars import ContextVar

import msgspec

from ..contracts.adapters import Registry
from .clock import OutsideRunError

__all__ = ["CurrentRun", "current_run", "require_run"]


class CurrentRun(msgspec.Struct):
    """A run, as its strategy sees it. A live or a paper run has an empty ``frame_name``."""

    registry: Registry
    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    backtest: bool
    signal_id: str | None = None
    """Of the position that is open, or of the scheduled signal; None: there is neither."""
    run_id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    """Tells this run from an earlier one over the same names. Nothing that decides about a trade may depend on its value."""


current_run: ContextVar[CurrentRun] = ContextVar("backtest_kit_mongo_run")


def require_run(caller: str) -> CurrentRun:
    """The run that this thread is in; OutsideRunError, which names ``caller``, where none is going on."""
    run = current_run.get(None)
    if run is None:
        raise OutsideRunError(
            f"{caller} was called outside a run",
            hint="call it in a function that is registered for a run, in the thread in which the run calls that function",
        )
    return run
