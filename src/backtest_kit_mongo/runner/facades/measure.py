"""Measure: expensive answers (of a language model, of an API), asked for once and kept in the Measure contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from ...candles import CandleInterval, Grid, grid_of
from ...contracts.contract import typed
from ...errors import InvalidTypeError, InvalidValueError
from ..current_run import CurrentRun
from .argument_key import bucket_of, key_function, name_of
from .run_scope import derive_key, this_run
from .single_flight import SINGLE_FLIGHT

__all__ = ["CachedFunction", "Measure"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _Missing:
    """Stands for an answer that is not stored. A class is the same object in a decorated function that went through a pickle."""


class CachedFunction(Protocol[P, R]):
    """A function with kept answers."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the kept answer, or ask for a new one."""

    def clear(self) -> int:
        """Forget all answers for this symbol, strategy and exchange, of all times. Return how many there were."""


class Measure:
    """Ask once and keep the answer, in the Measure contract."""

    @staticmethod
    def cached(
        interval: CandleInterval | None = None, *, bucket: str | None = None, key: Callable[..., Any] | None = None, type: Any = None
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Keep the answers of a function (``def`` or ``async def``): ``@Measure.cached("1h")``.

        A second call with the same arguments reads the stored answer, also in another process, after a restart and in the next run. The
        symbol, strategy and exchange of the run, the interval and all arguments identify an answer. An answer comes back as it was stored
        (tuples as lists, Structs as dicts), even from the first call. An exception is not kept. Within a process, calls with the same key
        wait for the first one.

        With ``interval``, an answer of a later minute of the interval is hidden from a run that has not reached that minute: the run asks
        again, and both answers are kept.

        A call raises InvalidTypeError or InvalidValueError for an answer that cannot be stored, and for arguments that cannot be part of a
        key, and NestedCallError if it asks for its own answer.

        Args:
            interval: one answer per interval (on the grid of its candles, UTC), such as "1h"; None keeps an answer for ever, so it must not
                depend on time
            bucket: where the answers are stored; None is ``file.function_interval``. Pass one for functions made in a loop, and
                for a function that may be renamed
            key: a function of the same arguments; its value identifies an answer instead of them
            type: a msgspec type to return answers as

        Returns:
            a decorator

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: there is no such interval, or the bucket is empty

        Examples:
            >>> from backtest_kit_mongo import runner
            >>> report = runner.import_candles(runner.synthetic_market(7, 120, 1704067200000), "BTCUSDT")
            >>> @runner.Measure.cached("1h", bucket="sentiment")
            ... def sentiment(symbol):
            ...     print("asked")  # a model, once per hour
            ...     return 0.7
            >>> signals = runner.add_strategy("moods", "15m", get_signal=lambda symbol, when: print(sentiment(symbol)))
            >>> result = runner.run_backtest("BTCUSDT", end_ms=1704067200000 + 50 * 60_000)
            asked
            0.7
            0.7
            0.7
        """
        grid = None if interval is None else grid_of(interval)

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            name = name_of("Measure.cached", function)
            answers = _Answers(name, bucket_of("Measure.cached", function, interval, bucket), grid, type)
            identify = key_function(name, function, key)
            wrapper: Any
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def ask_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    slot = answers.slot(identify(*args, **kwargs))
                    if (answer := answers.read(slot)) is not _Missing:
                        return answer
                    async with SINGLE_FLIGHT.one_async(answers.flight(slot)):
                        if (answer := answers.read(slot)) is not _Missing:
                            return answer
                        return answers.keep(slot, await function(*args, **kwargs))

                wrapper = ask_async
            else:

                @wraps(function)
                def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
                    slot = answers.slot(identify(*args, **kwargs))
                    if (answer := answers.read(slot)) is not _Missing:
                        return answer
                    with SINGLE_FLIGHT.one(answers.flight(slot)):
                        if (answer := answers.read(slot)) is not _Missing:
                            return answer
                        return answers.keep(slot, function(*args, **kwargs))

                wrapper = ask
            wrapper.clear = answers.clear
            return cast(CachedFunction[P, R], wrapper)

        return decorate


class _AnswerSlot(NamedTuple):
    """Where the answer to a call is stored; ``now`` is the simulation time of the call (ms)."""

    run: CurrentRun
    key: str
    now: int


class _Answers:
    """The answers of one function, in the registry of the run that calls it."""

    def __init__(self, name: str, bucket: str, grid: Grid | None, type: Any) -> None:
        self._name, self._bucket, self._grid, self._type = name, bucket, grid, type

    def slot(self, call: Any) -> _AnswerSlot:
        run, now = this_run(self._name)
        which, length = ("always", None) if self._grid is None else (str(self._grid.align(now)), self._grid.step or self._grid.interval)
        return _AnswerSlot(run, f"{_owner(run)}{which}_{derive_key(length, call)}", now)

    def flight(self, slot: _AnswerSlot) -> Hashable:
        return id(slot.run.registry), self._bucket, slot.key

    def read(self, slot: _AnswerSlot) -> Any:
        for version in self._versions(slot):
            if self._grid is None or _time(version) <= slot.now:
                data = version["data"]
                return data if self._type is None or data is None else typed("measure", data, self._type)
        return _Missing

    def keep(self, slot: _AnswerSlot, answer: Any) -> Any:
        """Store an answer and return it as the next call will read it."""
        newest, *earlier = sorted([{"data": answer, "when": slot.now}, *self._versions(slot)], key=_time, reverse=True)
        row = {"id": slot.key, "removed": False, **newest, **({"earlier": earlier} if earlier else {})}
        try:
            slot.run.registry.PersistMeasureAdapter.write_measure_data(row, self._bucket, slot.key, slot.now)
        except (InvalidTypeError, InvalidValueError) as error:
            raise error.__class__(
                f"{self._name}: the answer of the function cannot be stored: {error}", hint="return text, numbers, lists and dicts of them"
            ) from error
        stored = self.read(slot)
        return answer if stored is _Missing else stored  # a dummy store keeps nothing

    def _versions(self, slot: _AnswerSlot) -> list[dict[str, Any]]:
        """Return the answers of one interval, each with its simulation time (ms), the latest first."""
        row = slot.run.registry.PersistMeasureAdapter.read_measure_data(self._bucket, slot.key)
        return [] if row is None else [{"data": row["data"], "when": row.get("when", 0)}, *row.get("earlier", ())]

    def clear(self) -> int:
        run, _ = this_run(f"{self._name}.clear")
        adapter = run.registry.PersistMeasureAdapter
        keys = [key for key in adapter.list_measure_data(self._bucket) if key.startswith(_owner(run))]
        for key in keys:
            adapter.remove_measure_data(self._bucket, key)
        return len(keys)


def _owner(run: CurrentRun) -> str:
    """Return the prefix of all keys of a symbol, strategy and exchange."""
    return f"{run.symbol}_{derive_key(run.symbol, run.strategy_name, run.exchange_name)}_"


def _time(version: dict[str, Any]) -> int:
    return int(version["when"])
