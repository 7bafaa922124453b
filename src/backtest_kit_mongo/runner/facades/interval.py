"""Interval: what is done once in an hour, a day, ..., with a marker in the Interval contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from ...candles import align, interval_ms
from ...simulation import simulated_time
from ..clock import as_datetime
from ..current_run import CurrentRun
from .argument_key import bucket_of, key_function, name_of
from .messages import as_stored
from .run_scope import derive_key, stamp, this_run
from .single_flight import SINGLE_FLIGHT

__all__ = ["Interval"]

P = ParamSpec("P")
R = TypeVar("R")


class OnceDecorator(Protocol):
    """Makes of a function one that gives what it gives, or None."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R | None]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R | None]: ...


class Interval:
    """Functions that run once in an interval."""

    @staticmethod
    def once(interval: str, *, bucket: str | None = None, key: Callable[..., Any] | None = None) -> OnceDecorator:
        """Call a function, ``def`` or ``async def``, once in each multiple of ``interval`` (UTC, from 1970 on): ``@Interval.once("1h")``.

        The first call gives what the function returned, every later one in the same interval None, whatever the arguments are, unless
        ``key``, a function of them, says what has an interval of its own. Symbol, strategy, exchange, frame and mode have theirs.
        ``bucket`` is where the markers are, by default ``file.function_interval``.

        The marker is written before the function runs: after a crash, a live run does not call it a second time. If it raises, the
        marker is removed and the next call tries again. A live run heeds whatever marker there is. A backtest heeds those of its own
        run only, so that it does the same when it is run again, with the markers of the first time in the database.
        """
        step = interval_ms(interval)

        def decorate(function: Callable[P, Any]) -> Callable[P, Any]:
            name = name_of("Interval.once", function)
            place = bucket_of("Interval.once", function, interval, bucket)
            identify = _nothing if key is None else key_function(name, function, key)

            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    marker = _marker(name, place, step, identify(*args, **kwargs))
                    async with SINGLE_FLIGHT.one_async(marker.flight):
                        if marker.is_there():
                            return None
                        with marker.firing() as fired:
                            fired.append(await function(*args, **kwargs))
                        return fired[0]

                return call_async

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> Any:
                marker = _marker(name, place, step, identify(*args, **kwargs))
                with SINGLE_FLIGHT.one(marker.flight):
                    if marker.is_there():
                        return None
                    with marker.firing() as fired:
                        fired.append(function(*args, **kwargs))
                    return fired[0]

            return call

        return cast(OnceDecorator, decorate)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _marker(name: str, bucket: str, step: int, call: Any) -> _Marker:
    run, now = this_run(name)
    begin = align(now, step)
    owner = (run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest)
    return _Marker(run, bucket, f"{run.symbol}_{begin}_{derive_key(owner, step, call)}", now)


class _Marker(NamedTuple):
    """The marker of one interval, at the simulation time ``now`` (ms)."""

    run: CurrentRun
    bucket: str
    key: str
    now: int

    @property
    def flight(self) -> Hashable:
        return id(self.run.registry), "interval", self.bucket, self.key

    def is_there(self) -> bool:
        """Whether the function has run in this interval, as far as this run is concerned."""
        with simulated_time(None):  # what an earlier run wrote at a later time is nothing to be shown or hidden, it is another run's
            row = self.run.registry.PersistIntervalAdapter.read_interval_data(self.bucket, self.key)
        return row is not None and (not self.run.backtest or row.get("runId") == self.run.run_id)

    @contextmanager
    def firing(self) -> Iterator[list[Any]]:
        """Mark the interval, and take the marker back if the block raises; what the block puts into the list goes into the marker."""
        self._write(None)
        fired: list[Any] = []
        try:
            yield fired
        except Exception:
            self.run.registry.PersistIntervalAdapter.remove_interval_data(self.bucket, self.key)
            raise
        if fired[0] is not None:
            self._write(as_stored(fired[0])[0])

    def _write(self, data: Any) -> None:
        row = {"id": self.key, "data": data, "removed": False, "when": as_datetime(self.now), **stamp(self.run)}
        self.run.registry.PersistIntervalAdapter.write_interval_data(row, self.bucket, self.key, self.now)
