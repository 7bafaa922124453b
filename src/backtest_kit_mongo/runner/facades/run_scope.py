"""The run that a facade is called in, and what its records must be to concern it."""

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
    """A record of the current signal was asked for, and there is neither an open position nor a scheduled signal."""


def this_run(caller: str) -> tuple[CurrentRun, int]:
    """The run that this thread is in, and its simulation time (ms); OutsideRunError, which names ``caller``, where there is none."""
    return require_run(caller), current_time_ms(caller)


def signal_of(caller: str, run: CurrentRun, signal_id: str | None) -> str:
    """``signal_id``, or that of the run; NoSignalError if it has none."""
    found = run.signal_id if signal_id is None else signal_id
    if found is None:
        raise NoSignalError(
            f"{caller}: {run.strategy_name!r} has no open position and no scheduled signal in {run.symbol}",
            hint="Session keeps what belongs to no signal; signal_id= names one that is over, such as Recent.latest()['id']",
        )
    return found


def stamp(run: CurrentRun) -> Row:
    """What a row of a backtest says of its run besides the fields of the framework; rows of a live run outlive the process."""
    return {"runId": run.run_id} if run.backtest else {}


def is_known(row: Mapping[str, Any], field: str, run: CurrentRun, now: int) -> bool:
    """Whether a row, of which ``field`` says the time (ms), is nothing of a later time, and in a backtest nothing of another run.

    A guard in front of the store is not enough: it lets through what an earlier run wrote at this very minute. So of the rows that do
    not say of which run they are, a backtest knows those of the minutes before.
    """
    said = row.get(field)
    time = said if isinstance(said, (int, float)) else 0
    if not run.backtest:
        return time <= now
    return time <= now and row["runId"] == run.run_id if "runId" in row else time < now


def is_own(row: Mapping[str, Any], run: CurrentRun) -> bool:
    """Whether a row of a list, which all runs of a mode share, is of this run's names. Some kinds of rows have no ``frameName``."""
    return (
        row.get("symbol") == run.symbol
        and row.get("strategyName") == run.strategy_name
        and row.get("exchangeName") == run.exchange_name
        and row.get("frameName", run.frame_name) == run.frame_name
    )


def derive_key(*parts: Any) -> str:
    """32 hex digits that are the same in every process for the same parts (text, bytes, numbers, None, and tuples of them)."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def changed(caller: str, change: Callable[[Any], Any], value: Any) -> Any:
    """What ``change`` makes of ``value``; InvalidValueError for None, which a function gives that changes its argument in place."""
    if not callable(change):
        raise InvalidTypeError(f"{caller} takes a function of the current value, got {type(change).__name__}")
    result = change(value)
    if result is None:
        raise InvalidValueError(f"{caller}: the function returned None; nothing was written", hint="it must return the new value")
    return result


def wall_ms() -> int:
    """The time of the wall clock in ms; the framework sorts some lists by it."""
    return time.time_ns() // 1_000_000
