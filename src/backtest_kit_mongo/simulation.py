"""The scope of a call: the simulation time, and the writes of its run that are still pending."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Self

import numpy as np

from .arguments import is_missing, kind_of
from .errors import InvalidTypeError, InvalidValueError

__all__ = [
    "SCOPE", "Scope", "as_datetime", "current_time", "entered", "flush_pending", "iso_time", "milliseconds", "outside_runs",
    "simulated_time", "without_flush",
]  # fmt: skip

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

LATEST: Final = 8_640_000_000_000_000
"""The last time a JavaScript Date can hold, in ms; the first is as far before 1970. A double holds every ms in between exactly."""


class Scope:
    """What the contracts know of the code that calls them.

    Args:
        now: the simulation time in ms; None if there is none
        flush: writes the pending writes of the run; None if there are none
    """

    __slots__ = ("flush", "now")

    def __init__(self, now: int | None = None, flush: Callable[[], None] | None = None) -> None:
        self.now: int | None = now
        """The simulation time in ms, None if there is none."""
        self.flush: Callable[[], None] | None = flush
        """Writes the pending writes of the run. While not None, it is called before each use of a contract other than Candle."""

    def replaced(self, now: int | None, flush: Callable[[], None] | None) -> Self:
        """Return a copy with another time ``now`` (ms) and another ``flush``."""
        return type(self)(now, flush)


SCOPE: Final[ContextVar[Scope]] = ContextVar("backtest_kit_mongo_scope", default=Scope())  # noqa: B039 - nothing changes the default
"""The scope of the current code. A context variable, so that runs in different threads or tasks each have their own."""


def current_time() -> int | None:
    """Return the simulation time in ms, None if there is none.

    Examples:
        >>> from backtest_kit_mongo.simulation import current_time, simulated_time
        >>> with simulated_time(1704067200000):
        ...     current_time()
        1704067200000
    """
    return SCOPE.get().now


def flush_pending() -> None:
    """Write the pending writes of the current run. Do nothing outside of runs.

    Examples:
        >>> from backtest_kit_mongo.simulation import flush_pending
        >>> flush_pending()
    """
    flush = SCOPE.get().flush
    if flush is not None:
        flush()


@contextmanager
def entered(scope: Scope) -> Iterator[None]:
    """Make ``scope`` the current one inside the block.

    Examples:
        >>> from backtest_kit_mongo.simulation import Scope, current_time, entered
        >>> with entered(Scope(1704067200000)):
        ...     current_time()
        1704067200000
    """
    token = SCOPE.set(scope)
    try:
        yield
    finally:
        with suppress(ValueError):  # another task closed an async generator; the scope ended with the task that entered it
            SCOPE.reset(token)


def without_flush() -> AbstractContextManager[None]:
    """Use contracts inside the block without flushing pending writes first: the holder of a lock must not wait for other threads.

    Examples:
        >>> from backtest_kit_mongo.simulation import flush_pending, without_flush
        >>> with without_flush():
        ...     flush_pending()  # does nothing here
    """
    scope = SCOPE.get()
    return entered(scope.replaced(scope.now, None))


def outside_runs() -> AbstractContextManager[None]:
    """Make the code inside the block read as code outside of any run does: no simulation time, no pending writes. For market data.

    Examples:
        >>> from backtest_kit_mongo.simulation import current_time, outside_runs, simulated_time
        >>> with simulated_time(1704067200000), outside_runs():
        ...     current_time() is None
        True
    """
    return entered(Scope())


def milliseconds(name: str, value: Any) -> int:
    """Return a time as ms since 1970 (UTC).

    Args:
        name: the name of the argument, for errors
        value: an aware datetime, or an int in ms

    Raises:
        InvalidTypeError: it is something else
        InvalidValueError: it is a naive datetime, not a time, or beyond what a JavaScript Date can hold

    Examples:
        >>> from datetime import UTC, datetime
        >>> from backtest_kit_mongo.simulation import milliseconds
        >>> milliseconds("when", datetime(2024, 1, 1, tzinfo=UTC))
        1704067200000
    """
    if is_missing(value) and value is not None:
        raise InvalidValueError(f"{name} is {value}, not a time")
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InvalidValueError(f"{name} is a naive datetime", hint="give it a time zone, as in value.replace(tzinfo=timezone.utc)")
        delta = value - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
        else:
            if -LATEST <= number <= LATEST:
                return number
            raise InvalidValueError(
                f"{name} {number} is not a timestamp in milliseconds", hint="pass milliseconds since 1970, not micro- or nanoseconds"
            )
    raise InvalidTypeError(
        f"{name} must be an aware datetime or an int (ms since the epoch), got {kind_of(value)}",
        hint="NumPy times have no zone: pass a pandas.Timestamp with tz, or int ms" if isinstance(value, np.datetime64) else None,
    )


def as_datetime(ms: int) -> datetime:
    """Convert a time ``ms`` (since 1970, UTC) to an aware datetime in UTC.

    Examples:
        >>> from backtest_kit_mongo.simulation import as_datetime
        >>> as_datetime(1704067200000).isoformat()
        '2024-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(ms / 1000, UTC)


def iso_time(ms: int) -> str:
    """Format a time ``ms`` for messages: ``2023-03-01T00:05:00Z``, or the plain number of ms beyond the year 9999.

    Examples:
        >>> from backtest_kit_mongo.simulation import iso_time
        >>> iso_time(1704067200000)
        '2024-01-01T00:00:00Z'
    """
    try:
        moment = as_datetime(ms)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
    return moment.isoformat(timespec="milliseconds" if ms % 1000 else "seconds").replace("+00:00", "Z")


@contextmanager
def simulated_time(when: datetime | int | None) -> Iterator[None]:
    """Make reads inside the block use a time as the current one.

    The end of the block restores the previous time. Blocks nest; each thread and each task has its own time. With ``look_ahead`` set
    to "hide" or "raise", a read never returns what was written at a later time; with ``history``, it returns what was stored at ``when``.

    Args:
        when: an aware datetime, or ms since 1970 (UTC); None: reads have no simulation time

    Raises:
        InvalidTypeError: ``when`` is something else
        InvalidValueError: ``when`` is a naive datetime, or not a time

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> kit.setup(stores={"state": "memory"}, look_ahead="hide")
        >>> kit.PersistStateAdapter.write_state_data({"data": 1}, "s1", "levels", when=2000)
        >>> with kit.simulated_time(1000):
        ...     kit.PersistStateAdapter.read_state_data("s1", "levels") is None
        True
    """
    scope = SCOPE.get()
    with entered(scope.replaced(None if when is None else milliseconds("when", when), scope.flush)):
        yield
