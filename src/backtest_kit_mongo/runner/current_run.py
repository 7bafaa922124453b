"""The run that the current code belongs to. The facades use it to address their records."""

from __future__ import annotations

import uuid
from contextvars import ContextVar

import msgspec

from ..contracts.registry import Registry
from .clock import OutsideRunError

__all__ = ["CurrentRun", "current_run", "require_run"]


class CurrentRun(msgspec.Struct):
    """A run as its strategy sees it. ``frame_name`` is empty in live and paper runs."""

    registry: Registry
    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    backtest: bool
    signal_id: str | None = None
    """The id of the open position or the scheduled signal; None if there is neither."""
    run_id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    """Distinguishes this run from earlier ones with the same names. No trading decision may depend on its value."""


current_run: ContextVar[CurrentRun] = ContextVar("backtest_kit_mongo_run")


def require_run(caller: str) -> CurrentRun:
    """Return the run that this thread is in. Raises OutsideRunError, naming ``caller``, outside a run."""
    run = current_run.get(None)
    if run is None:
        raise OutsideRunError(
            f"{caller} was called outside a run",
            hint="call it from a function that is registered for a run, in the thread on which the run calls that function",
        )
    return run
