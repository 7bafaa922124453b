"""Session: a value that a strategy keeps independently of any signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ...contracts.contract import typed
from ..current_run import CurrentRun
from .run_scope import changed, is_known, stamp, this_run
from .single_flight import SINGLE_FLIGHT

__all__ = ["Session"]

T = TypeVar("T")


class Session:
    """One value per symbol, strategy, exchange, frame and mode, in the Session contract.

    A backtest does not see what an earlier one stored; a live run continues with its value after a restart. Every method raises
    OutsideRunError without a run.

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 180, 1704067200000), "BTCUSDT")
        >>> @runner.add_strategy("counts", "1h")
        ... def counts(symbol, when):
        ...     print(runner.Session.update(lambda value: (value or 0) + 1))
        >>> result = runner.run_backtest("BTCUSDT")
        1
        2
    """

    @overload
    @staticmethod
    def get(type: None = None) -> Any: ...
    @overload
    @staticmethod
    def get(type: type[T]) -> T | None: ...
    @staticmethod
    def get(type: Any = None) -> Any:
        """Return the value as of the simulation time, as ``type`` if given (a msgspec type); None if there is none."""
        run, now = this_run("Session.get")
        data = _read(run, now)
        return data if type is None or data is None else typed("session", data, type)

    @staticmethod
    def set(data: Any) -> None:
        """Store a value.

        Args:
            data: the value; None clears it

        Raises:
            InvalidTypeError: it has a type that cannot be stored; nothing is written then
            InvalidValueError: it has a value that cannot be stored; nothing is written then
        """
        run, now = this_run("Session.set")
        _write(run, now, data)

    @staticmethod
    def update(change: Callable[[Any], Any]) -> Any:
        """Store what a function returns for the value, and return it. No other ``update`` of this process can come in between.

        Args:
            change: a function from the value (None at first) to the new one

        Raises:
            InvalidTypeError: the new value has a type that cannot be stored; nothing is written then
            InvalidValueError: the new value has a value that cannot be stored; nothing is written then
        """
        run, now = this_run("Session.update")
        with SINGLE_FLIGHT.one((id(run.registry), "session", _names(run))):
            data = changed("Session.update", change, _read(run, now))
            _write(run, now, data)
        return data


def _names(run: CurrentRun) -> tuple[str, ...]:
    """Return the names that the framework's reader expects in the id of a session; a live session has no frame."""
    frame = [run.frame_name] if run.frame_name else []
    return (run.symbol, run.strategy_name, run.exchange_name, *frame, "backtest" if run.backtest else "live")


def _read(run: CurrentRun, now: int) -> Any:
    row = run.registry.PersistSessionAdapter.read_session_data(
        run.strategy_name, run.exchange_name, run.frame_name, run.symbol, run.backtest
    )
    # Until the strategy stores a value, the run keeps its own status here, which is not the strategy's value.
    return row.get("data") if row is not None and not row.get("_run") and is_known(row, "when", run, now) else None


def _write(run: CurrentRun, now: int, data: Any) -> None:
    row = {"id": ":".join(_names(run)), "data": data, "when": now, **stamp(run)}
    run.registry.PersistSessionAdapter.write_session_data(
        row, run.strategy_name, run.exchange_name, run.frame_name, now, run.symbol, run.backtest
    )
