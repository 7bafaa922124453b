"""Runs in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from ...logs import log
from ..engine.result import BacktestResult

__all__ = ["RunHandle", "in_background"]


class RunHandle:
    """A run that goes on in the background."""

    def __init__(self, stop: threading.Event, outcome: Future[BacktestResult]) -> None:
        self._stop, self._outcome = stop, outcome

    def stop(self) -> None:
        """Let the run finish what it is at and end; returns at once."""
        self._stop.set()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._outcome.done()

    def result(self, timeout: float | None = None) -> BacktestResult:
        """What the run gives, once it has ended, or the error that ended it; TimeoutError after ``timeout`` seconds."""
        return self._outcome.result(timeout)


def in_background(name: str, run: Callable[[threading.Event], BacktestResult]) -> RunHandle:
    """Start ``run(stop)`` in a thread. An error is logged, and kept for ``result()``."""
    stop = threading.Event()
    outcome: Future[BacktestResult] = Future()

    def body() -> None:
        try:
            outcome.set_result(run(stop))
        except BaseException as error:  # noqa: BLE001 - it is for whoever asks for the result
            log("error", f"{name} has ended: {error}")
            outcome.set_exception(error)

    threading.Thread(target=body, name=name, daemon=True).start()
    return RunHandle(stop, outcome)
