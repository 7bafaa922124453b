"""Session: what a strategy keeps for itself, beyond any signal."""

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

    A backtest knows nothing of what an earlier one stored; a live run goes on with it after a restart.
    """

    @overload
    @staticmethod
    def get(type: None = None) -> Any: ...
    @overload
    @staticmethod
    def get(type: type[T]) -> T | None: ...
    @staticmethod
    def get(type: Any = None) -> Any:
        """The value as of the simulation time, as ``type`` if given (a msgspec type); None where there is none."""
        run, now = this_run("Session.get")
        data = _read(run, now)
        return data if type is None or data is None else typed("session", data, type)

    @staticmethod
    def set(data: Any) -> None:
        """Store a value; None clears it. InvalidTypeError or InvalidValueError, and nothing is written, for what cannot be stored."""
        run, now = this_run("Session.set")
        _write(run, now, data)

    @staticmethod
    def update(change: Callable[[Any], Any]) -> Any:
        """Store what ``change`` makes of the value (None at first), and give it. No other ``update`` in this process comes between."""
        run, now = this_run("Session.update")
        with SINGLE_FLIGHT.one((id(run.registry), "session", _names(run))):
            data = changed("Session.update", change, _read(run, now))
            _write(run, now, data)
        return data


def _names(run: CurrentRun) -> tuple[str, ...]:
    """The names that the framework's reader asks for in the id of a session; a live one has no frame."""
    frame = [run.frame_name] if run.frame_name else []
    return (run.symbol, run.strategy_name, run.exchange_name, *frame, "backtest" if run.backtest else "live")


def _read(run: CurrentRun, now: int) -> Any:
    row = run.registry.PersistSessionAdapter.read_session_data(
        run.strategy_name, run.exchange_name, run.frame_name, run.symbol, run.backtest
    )
    # As long as a strategy keeps nothing here, the run notes how it stands: that is none of the strategy's.
    return row.get("data") if row is not None and not row.get("_run") and is_known(row, "when", run, now) else None


def _write(run: CurrentRun, now: int, data: Any) -> None:
    row = {"id": ":".join(_names(run)), "data": data, "when": now, **stamp(run)}
    run.registry.PersistSessionAdapter.write_session_data(
        row, run.strategy_name, run.exchange_name, run.frame_name, now, run.symbol, run.backtest
    )
