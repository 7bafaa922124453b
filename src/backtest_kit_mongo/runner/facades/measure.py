"""Measure: answers that cost something (of a language model, of an API), kept in the Measure contract and asked for once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from ...candles import align, interval_ms
from ...contracts.contract import typed
from ...errors import InvalidTypeError, InvalidValueError
from ..current_run import CurrentRun
from .argument_key import bucket_of, key_function, name_of
from .run_scope import derive_key, this_run
from .single_flight import SINGLE_FLIGHT

__all__ = ["CachedFunction", "Measure"]

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

_MISSING: Final = object()


class CachedFunction(Protocol[P, R]):
    """A function of which the answers are kept."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The kept answer, or a new one."""

    def clear(self) -> int:
        """Forget all answers that this symbol, strategy and exchange have had, of all times; how many there were."""


class Measure:
    """Answers that are asked for once."""

    @staticmethod
    def cached(
        interval: str | None = None, *, bucket: str | None = None, key: Callable[..., Any] | None = None, type: Any = None
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Keep the answers of a function, ``def`` or ``async def``: ``@Measure.cached("1h")``.

        The second call with the same arguments reads what the first one stored, in another process, after a restart and in the next
        run as well. With an ``interval`` there is one answer for each of its multiples (UTC, from 1970 on). What a run asked for at a
        later minute of the interval is hidden from one that is not there yet: it asks for itself, and both answers are kept. Without an
        ``interval`` an answer is for ever, so it must not depend on time.

        Symbol, strategy and exchange of the run, the interval and all arguments tell answers apart; ``key``, a function of the same
        arguments, replaces the arguments. ``bucket`` is where they are, by default ``file.function_interval``: functions that are made
        in a loop, and a function that will get another name, need one of their own. An answer comes back as it was stored (tuples as
        lists, Structs as dicts), also the first time, or as ``type`` (a msgspec type).

        An exception is not kept. In one process, calls with the same key wait for the first one. InvalidTypeError or InvalidValueError
        for an answer that cannot be stored, and for arguments that have no lasting name.
        """
        step = None if interval is None else interval_ms(interval)

        def decorate(function: Callable[P, R]) -> CachedFunction[P, R]:
            name = name_of("Measure.cached", function)
            answers = _Answers(name, bucket_of("Measure.cached", function, interval, bucket), step, type)
            identify = key_function(name, function, key)
            wrapper: Any
            if inspect.iscoroutinefunction(function):

                @wraps(function)
                async def ask_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                    place = answers.place(identify(*args, **kwargs))
                    if (found := answers.read(place)) is not _MISSING:
                        return found
                    async with SINGLE_FLIGHT.one_async(answers.flight(place)):
                        if (found := answers.read(place)) is not _MISSING:
                            return found
                        return answers.keep(place, await function(*args, **kwargs))

                wrapper = ask_async
            else:

                @wraps(function)
                def ask(*args: P.args, **kwargs: P.kwargs) -> Any:
                    place = answers.place(identify(*args, **kwargs))
                    if (found := answers.read(place)) is not _MISSING:
                        return found
                    with SINGLE_FLIGHT.one(answers.flight(place)):
                        if (found := answers.read(place)) is not _MISSING:
                            return found
                        return answers.keep(place, function(*args, **kwargs))

                wrapper = ask
            wrapper.clear = answers.clear
            return cast(CachedFunction[P, R], wrapper)

        return decorate


class _AnswerSlot(NamedTuple):
    """Where the answer to a call at the simulation time ``now`` (ms) is."""

    run: CurrentRun
    key: str
    now: int


class _Answers:
    """The answers of one function in whatever registry the run of a call has."""

    def __init__(self, name: str, bucket: str, step: int | None, type: Any) -> None:
        self._name, self._bucket, self._step, self._type = name, bucket, step, type

    def place(self, call: Any) -> _AnswerSlot:
        run, now = this_run(self._name)
        which = "always" if self._step is None else str(align(now, self._step))
        return _AnswerSlot(run, f"{_owner(run)}{which}_{derive_key(self._step, call)}", now)

    def flight(self, place: _AnswerSlot) -> Hashable:
        return id(place.run.registry), self._bucket, place.key

    def read(self, place: _AnswerSlot) -> Any:
        for one in self._versions(place):
            if self._step is None or _time(one) <= place.now:
                data = one["data"]
                return data if self._type is None or data is None else typed("measure", data, self._type)
        return _MISSING

    def keep(self, place: _AnswerSlot, answer: Any) -> Any:
        """Store an answer, and give it as the next call will get it."""
        newest, *earlier = sorted([{"data": answer, "when": place.now}, *self._versions(place)], key=_time, reverse=True)
        row = {"id": place.key, "removed": False, **newest, **({"earlier": earlier} if earlier else {})}
        try:
            place.run.registry.PersistMeasureAdapter.write_measure_data(row, self._bucket, place.key, place.now)
        except (InvalidTypeError, InvalidValueError) as error:
            raise error.__class__(
                f"{self._name}: the answer of the function cannot be stored: {error}", hint="return text, numbers, lists and dicts of them"
            ) from error
        stored = self.read(place)
        return answer if stored is _MISSING else stored  # a dummy store keeps nothing

    def _versions(self, place: _AnswerSlot) -> list[dict[str, Any]]:
        """The answers of one interval, each with the simulation time (ms) at which it was given, the latest first."""
        row = place.run.registry.PersistMeasureAdapter.read_measure_data(self._bucket, place.key)
        return [] if row is None else [{"data": row["data"], "when": row.get("when", 0)}, *row.get("earlier", ())]

    def clear(self) -> int:
        run, _ = this_run(f"{self._name}.clear")
        adapter = run.registry.PersistMeasureAdapter
        keys = [key for key in adapter.list_measure_data(self._bucket) if key.startswith(_owner(run))]
        for key in keys:
            adapter.remove_measure_data(self._bucket, key)
        return len(keys)


def _owner(run: CurrentRun) -> str:
    """How all keys of a symbol, strategy and exchange begin."""
    return f"{run.symbol}_{derive_key(run.symbol, run.strategy_name, run.exchange_name)}_"


def _time(version: dict[str, Any]) -> int:
    return int(version["when"])
