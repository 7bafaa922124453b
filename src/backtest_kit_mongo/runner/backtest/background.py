"""Runs in background threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final

from ...logs import log
from ..engine.result import BacktestResult

__all__ = ["RunHandle", "background_runs", "in_background", "stop_background_runs"]

_running: Final[set[RunHandle]] = set()


class RunHandle:
    """A run in the background, as ``Backtest.background`` and ``Live.background`` return it; they pass ``stop`` and ``outcome``."""

    def __init__(self, stop: threading.Event, outcome: Future[BacktestResult]) -> None:
        self._stop, self._outcome = stop, outcome

    def stop(self) -> None:
        """Ask the run to finish its current minute and end; return at once."""
        self._stop.set()

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self._outcome.done()

    def result(self, timeout: float | None = None) -> BacktestResult:
        """Wait at most ``timeout`` seconds (None: for ever) for the run to end, and return its result or raise its error.

        Raises TimeoutError if the run has not ended then.
        """
        return self._outcome.result(timeout)


def in_background(name: str, run: Callable[[threading.Event], BacktestResult]) -> RunHandle:
    """Start ``run(stop)`` in a daemon thread. An error is logged, and raised by ``result()``."""
    stop = threading.Event()
    outcome: Future[BacktestResult] = Future()

    def body() -> None:
        try:
            result = run(stop)
        except BaseException as error:  # noqa: BLE001 - result() raises it again
            log("error", f"{name} ended with an error: {error}")
            _running.discard(handle)
            outcome.set_exception(error)
        else:
            _running.discard(handle)
            outcome.set_result(result)

    handle = RunHandle(stop, outcome)
    _running.add(handle)
    threading.Thread(target=body, name=name, daemon=True).start()
    return handle


def background_runs() -> list[RunHandle]:
    """Return the runs in the background that have not ended."""
    return list(_running)


def stop_background_runs(timeout: float) -> int:
    """Stop all runs in the background, wait up to ``timeout`` seconds for them to end, and return how many have not."""
    handles = background_runs()
    for handle in handles:
        handle.stop()
    return len(wait([handle._outcome for handle in handles], timeout).not_done)
