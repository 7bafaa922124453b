"""Recent and Storage: the signals of the run so far. The run writes them, a strategy reads them."""

from __future__ import annotations

from typing import Any

from ..clock import MINUTE_MS
from ..current_run import CurrentRun
from .run_scope import is_known, is_own, this_run

__all__ = ["Recent", "Storage", "latest_row"]

Row = dict[str, Any]


def latest_row(run: CurrentRun, now: int) -> Row | None:
    """Return the row of the Recent contract as of ``now`` (ms), or None."""
    row = run.registry.PersistRecentAdapter.read_recent_data(run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest)
    return row if row is not None and is_known(row, "timestamp", run, now) else None


class Recent:
    """The newest signal of this symbol, strategy, exchange, frame and mode."""

    @staticmethod
    def latest() -> Row | None:
        """Return the last recorded state of the signal (``payloads.PublicSignalRow`` as a dict); None if there has been no signal."""
        return latest_row(*this_run("Recent.latest"))

    @staticmethod
    def minutes_since() -> float | None:
        """Return the minutes (float) since the newest signal was made; None if there has been no signal."""
        run, now = this_run("Recent.minutes_since")
        row = latest_row(run, now)
        return None if row is None else (now - row["timestamp"]) / MINUTE_MS


class Storage:
    """The history of signals of this symbol, strategy, exchange, frame and mode."""

    @staticmethod
    def list() -> list[Row]:
        """Return all signals as of the simulation time, newest first (``payloads.StorageSignalRow`` as dicts)."""
        return _own_signals(*this_run("Storage.list"))

    @staticmethod
    def find(signal_id: str) -> Row | None:
        """Return the signal ``signal_id``; None if this run has no such signal."""
        return next((row for row in _own_signals(*this_run("Storage.find")) if row["id"] == signal_id), None)


def _own_signals(run: CurrentRun, now: int) -> list[Row]:
    rows = run.registry.PersistStorageAdapter.read_storage_data(run.backtest, limit=None)
    # A row that an earlier run updated at a later time reveals how the signal ends, so the signal is hidden until then.
    own = [row for row in rows if is_own(row, run) and is_known(row, "updatedAt", run, now)]
    return sorted(own, key=lambda row: (row.get("createdAt", 0), row["id"]), reverse=True)
