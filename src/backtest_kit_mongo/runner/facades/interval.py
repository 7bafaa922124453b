"""Interval: run a function once per hour, day, ..., with a marker in the Interval contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast, overload

from ...candles import CandleInterval, Grid, grid_of
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
    """A decorator after which a function returns its result or None."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R | None]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R | None]: ...


class Interval:
    """Run functions once per interval."""

    @staticmethod
    def once(interval: CandleInterval, *, bucket: str | None = None, key: Callable[..., Any] | None = None) -> OnceDecorator:
        """Run a function (``def`` or ``async def``) once per interval: ``@Interval.once("1h")``.

        Intervals start when candles open (UTC: at the multiples since 1970, a week on Monday, a month on its first day). The first call in
        one returns the result of the function, every later call returns None, whatever its arguments. Each combination of symbol, strategy,
        exchange, frame and mode counts on its own.

        The marker is written before the function runs, so that after a crash a live run does not call it a second time. If the function
        raises, the marker is removed and the next call tries again. A live run respects any marker. A backtest respects only the
        markers of its own run, so that it does the same when you repeat it over the same database.

        Args:
            interval: the length of the interval, such as "1h"
            bucket: where the markers are stored; None is ``file.function_interval``
            key: a function of the same arguments, each value of which counts on its own

        Returns:
            a decorator

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: there is no such interval, or the bucket is empty

        Examples:
            >>> from backtest_kit_mongo import runner
            >>> report = runner.import_candles(runner.synthetic_market(7, 120, 1704067200000), "BTCUSDT")
            >>> @runner.Interval.once("1h", bucket="hourly")
            ... def hello(when):
            ...     print("hour", when.hour)
            >>> asked = runner.add_strategy("greets", "15m", get_signal=lambda symbol, when: hello(when))
            >>> result = runner.run_backtest("BTCUSDT")
            hour 0
            hour 1
        """
        grid = grid_of(interval)

        def decorate(function: Callable[P, Any]) -> Callable[P, Any]:
            name = name_of("Interval.once", function)
            records = bucket_of("Interval.once", function, interval, bucket)
            identify = _nothing if key is None else key_function(name, function, key)

            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    marker = _marker(name, records, grid, identify(*args, **kwargs))
                    async with SINGLE_FLIGHT.one_async(marker.flight):
                        if marker.is_there():
                            return None
                        with marker.firing() as fired:
                            fired.append(await function(*args, **kwargs))
                        return fired[0]

                return call_async

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> Any:
                marker = _marker(name, records, grid, identify(*args, **kwargs))
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


def _marker(name: str, bucket: str, grid: Grid, call: Any) -> _Marker:
    run, now = this_run(name)
    begin = grid.align(now)
    owner = (run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest)
    return _Marker(run, bucket, f"{run.symbol}_{begin}_{derive_key(owner, grid.step or grid.interval, call)}", now)


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
        """Return whether the function has already run in this interval, as far as this run is concerned."""
        with simulated_time(None):  # no look-ahead guard: a marker of a later time is from another run
            row = self.run.registry.PersistIntervalAdapter.read_interval_data(self.bucket, self.key)
        return row is not None and (not self.run.backtest or row.get("runId") == self.run.run_id)

    @contextmanager
    def firing(self) -> Iterator[list[Any]]:
        """Mark the interval, and remove the marker if the block raises. The block appends its result to the list; the marker stores it."""
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
