"""The run that the current code belongs to: its names, its time, its candles and its pending writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import msgspec

from ..contracts.registry import Registry
from ..simulation import SCOPE, Scope
from .clock import OutsideRunError

if TYPE_CHECKING:
    from .market.candle_history import CandleHistory

__all__ = ["CurrentRun", "RunScope", "asker", "current_run", "require_run", "run_scope"]


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


class RunScope(Scope):
    """The scope of the code of a run."""

    __slots__ = ("history", "run")

    def __init__(
        self, run: CurrentRun, history: CandleHistory | None = None, now: int | None = None, flush: Callable[[], None] | None = None
    ) -> None:
        super().__init__(now, flush)
        self.run: CurrentRun = run
        self.history: CandleHistory | None = history
        """The candles that the run may read."""

    def replaced(self, now: int | None, flush: Callable[[], None] | None) -> Self:
        """Return a copy with another time and another ``flush``."""
        return type(self)(self.run, self.history, now, flush)


def run_scope() -> RunScope | None:
    """Return the scope of the run that this thread is in, None outside a run."""
    scope = SCOPE.get()
    return scope if isinstance(scope, RunScope) else None


def current_run() -> CurrentRun | None:
    """Return the run that this thread is in, None outside a run."""
    scope = run_scope()
    return None if scope is None else scope.run


def asker() -> str:
    """Return who is asking, for messages: the strategy of the current run, or "the caller" outside a run."""
    run = current_run()
    return "the caller" if run is None else f"strategy {run.strategy_name!r} on {run.symbol}"


def require_run(caller: str) -> CurrentRun:
    """Return the run that this thread is in. Raises OutsideRunError, naming ``caller``, outside a run."""
    run = current_run()
    if run is None:
        raise OutsideRunError(
            f"{caller} was called outside a run",
            hint="call it from a function that is registered for a run, in the thread on which the run calls that function",
        )
    return run
