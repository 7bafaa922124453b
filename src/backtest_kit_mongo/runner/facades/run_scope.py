"""The run that a facade is called in, and the records that this run may see."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ..clock import current_time_ms
from ..current_run import CurrentRun, require_run

__all__ = ["NoSignalError", "changed", "derive_key", "is_known", "is_own", "signal_of", "stamp", "this_run", "wall_ms"]

Row = dict[str, Any]


class NoSignalError(BacktestKitError, LookupError):
    """A record of the current signal was requested, but there is neither an open position nor a scheduled signal. Pass a ``signal_id``."""


def this_run(caller: str) -> tuple[CurrentRun, int]:
    """Return the run of this thread and its simulation time (ms). Raises OutsideRunError, which names ``caller``, outside a run."""
    return require_run(caller), current_time_ms(caller)


def signal_of(caller: str, run: CurrentRun, signal_id: str | None) -> str:
    """Return ``signal_id``, or by default the id of the run's signal. Raises NoSignalError if it has none."""
    chosen = run.signal_id if signal_id is None else signal_id
    if chosen is None:
        raise NoSignalError(
            f"{caller}: {run.strategy_name!r} has no open position and no scheduled signal in {run.symbol}",
            hint="Session keeps values without a signal; signal_id= selects an earlier signal, such as Recent.latest()['id']",
        )
    return chosen


def stamp(run: CurrentRun) -> Row:
    """Return the fields that mark a row of a backtest with its run. A row of a live run gets none, as it outlives the process."""
    return {"runId": run.run_id} if run.backtest else {}


def is_known(row: Mapping[str, Any], field: str, run: CurrentRun, now: int) -> bool:
    """Return whether the run may see a row: none of a later time and, in a backtest, none of another run.

    ``field`` names the field with the row's time (ms). The look-ahead guard of the store is not enough: it lets through what an earlier
    run wrote at this very minute. So a backtest sees a row that does not name its run only from the next minute on.
    """
    value = row.get(field)
    written_ms = value if isinstance(value, (int, float)) else 0
    if not run.backtest:
        return written_ms <= now
    return written_ms <= now and row["runId"] == run.run_id if "runId" in row else written_ms < now


def is_own(row: Mapping[str, Any], run: CurrentRun) -> bool:
    """Return whether a row of a list that all runs of a mode share has the names of this run. Some kinds of rows lack ``frameName``."""
    return (
        row.get("symbol") == run.symbol
        and row.get("strategyName") == run.strategy_name
        and row.get("exchangeName") == run.exchange_name
        and row.get("frameName", run.frame_name) == run.frame_name
    )


def derive_key(*parts: Any) -> str:
    """Return 32 hex digits, the same in every process for the same parts (text, bytes, numbers, None, and tuples of them)."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def changed(caller: str, change: Callable[[Any], Any], value: Any) -> Any:
    """Return ``change(value)``. Raises InvalidValueError if that is None, as from a function that changes its argument in place."""
    if not callable(change):
        raise InvalidTypeError(f"{caller} takes a function of the current value, got {type(change).__name__}")
    result = change(value)
    if result is None:
        raise InvalidValueError(f"{caller}: the function returned None; nothing was written", hint="it must return the new value")
    return result


def wall_ms() -> int:
    """Return the wall-clock time in ms; the framework sorts some lists by it."""
    return time.time_ns() // 1_000_000
