"""Recent and Storage: the signals that the run has had. The run writes them, a strategy reads them."""

from __future__ import annotations

from typing import Any

from ..clock import MINUTE_MS
from ..current_run import CurrentRun
from .run_scope import is_known, is_own, this_run

__all__ = ["Recent", "Storage", "latest_row"]

Row = dict[str, Any]


def latest_row(run: CurrentRun, now: int) -> Row | None:
    """The row of the Recent contract as of ``now`` (ms)."""
    row = run.registry.PersistRecentAdapter.read_recent_data(run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest)
    return row if row is not None and is_known(row, "timestamp", run, now) else None


class Recent:
    """The newest signal of this symbol, strategy, exchange, frame and mode."""

    @staticmethod
    def latest() -> Row | None:
        """The signal as it was last seen (``payloads.PublicSignalRow`` as a dict); None: there has not been one."""
        return latest_row(*this_run("Recent.latest"))

    @staticmethod
    def minutes_since() -> float | None:
        """Minutes since the newest signal was made; None: there has not been one."""
        run, now = this_run("Recent.minutes_since")
        row = latest_row(run, now)
        return None if row is None else (now - row["timestamp"]) / MINUTE_MS


class Storage:
    """The history of signals of this symbol, strategy, exchange, frame and mode."""

    @staticmethod
    def list() -> list[Row]:
        """All signals, newest first (``payloads.StorageSignalRow`` as dicts), as they stand at the simulation time."""
        return _own_signals(*this_run("Storage.list"))

    @staticmethod
    def find(signal_id: str) -> Row | None:
        """One signal by its id; None where this run has none of that id."""
        return next((row for row in _own_signals(*this_run("Storage.find")) if row["id"] == signal_id), None)


def _own_signals(run: CurrentRun, now: int) -> list[Row]:
    rows = run.registry.PersistStorageAdapter.read_storage_data(run.backtest, limit=None)
    # What an earlier run knew of a signal at a later time says how it ends, so until then the signal is not there.
    found = [row for row in rows if is_own(row, run) and is_known(row, "updatedAt", run, now)]
    return sorted(found, key=lambda row: (row.get("createdAt", 0), row["id"]), reverse=True)
