"""State: a value that a strategy keeps with its signal."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from ...contracts.contract import typed
from ...errors import InvalidValueError
from ..current_run import CurrentRun
from ..engine.journal import BUCKET
from ..registrations import check_name
from .run_scope import changed, is_known, signal_of, stamp, this_run
from .single_flight import SINGLE_FLIGHT

__all__ = ["State"]

T = TypeVar("T")


class State(Generic[T]):
    """A value of the current signal (open position or scheduled signal), in the State contract: ``levels = State("levels", [])``.

    A backtest does not see what an earlier one stored. Every method raises OutsideRunError without a run and, without ``signal_id``,
    NoSignalError without a position or scheduled signal.

    Args:
        bucket: the name of the bucket
        initial: what ``get`` returns if nothing is stored. If it is a Struct or a dataclass, values come back as one
        signal_id: another signal; None is the current one

    Raises:
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 90, 1704067200000), "BTCUSDT")
        >>> minutes = runner.State("minutes", 0)
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 3}
        >>> asked = runner.add_strategy(
        ...     "buys", "1h", get_signal=lambda *_: signal, on_active_ping=lambda event: print(minutes.update(lambda value: value + 1))
        ... )
        >>> result = runner.run_backtest("BTCUSDT")
        1
        2
    """

    def __init__(self, bucket: str, initial: T, *, signal_id: str | None = None) -> None:
        bucket = check_name("bucket", bucket)
        if bucket == BUCKET:
            raise InvalidValueError(f"the bucket {BUCKET!r} is reserved for the run itself", hint="choose another name")
        self._bucket = bucket
        self._initial = initial
        self._signal_id = signal_id
        kind = type(initial)
        self._type: Any = kind if isinstance(initial, msgspec.Struct) or dataclasses.is_dataclass(kind) else None

    def get(self) -> T:
        """Return the value as of the simulation time, as a copy that you may change."""
        run, now = this_run("State.get")
        return self._read(run, signal_of("State.get", run, self._signal_id), now)

    def set(self, value: T) -> None:
        """Store a value.

        Args:
            value: the value

        Raises:
            InvalidTypeError: it has a type that cannot be stored; nothing is written then
            InvalidValueError: it has a value that cannot be stored; nothing is written then
        """
        run, now = this_run("State.set")
        self._write(run, signal_of("State.set", run, self._signal_id), now, value)

    def update(self, change: Callable[[T], T]) -> T:
        """Store what a function returns for the value, and return it.

        No other ``update`` of this process can come in between; one of another process can.

        Args:
            change: a function from the value to the new one

        Raises:
            InvalidTypeError: the new value has a type that cannot be stored; nothing is written then
            InvalidValueError: the new value has a value that cannot be stored; nothing is written then
        """
        run, now = this_run("State.update")
        signal_id = signal_of("State.update", run, self._signal_id)
        with SINGLE_FLIGHT.one((id(run.registry), "state", signal_id, self._bucket)):
            value: T = changed("State.update", change, self._read(run, signal_id, now))
            self._write(run, signal_id, now, value)
        return value

    def _read(self, run: CurrentRun, signal_id: str, now: int) -> T:
        row = run.registry.PersistStateAdapter.read_state_data(signal_id, self._bucket)
        if row is None or not is_known(row, "when", run, now):
            return copy.deepcopy(self._initial)
        data = row["data"]
        return cast(T, data if self._type is None else typed("state", data, self._type))

    def _write(self, run: CurrentRun, signal_id: str, now: int, value: T) -> None:
        row = {"id": f"{signal_id}_{self._bucket}", "data": value, "when": now, **stamp(run)}
        run.registry.PersistStateAdapter.write_state_data(row, signal_id, self._bucket, now)
