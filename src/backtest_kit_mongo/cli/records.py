"""Files that runs on this machine leave for ``stats``: one for the last finished run, and one for each active run.

The counters of a run live in its process. An active run writes them to running-<pid>.json once a second and removes the file when
it ends; ``stats --watch`` reads these files. A file that is no longer updated was left behind by a killed run.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..errors import InvalidValueError
from ..observability.profile import Report
from .output import counted, errors

__all__ = ["Record", "last_run_file", "load_last_run", "load_running", "plain", "recording", "run_text", "save_last_run"]

_EVERY = 1.0  # seconds between two writes of a running record
_FORGOTTEN_AFTER = 15.0  # seconds without a write

Record = dict[str, Any]


class _Run(msgspec.Struct):
    strategy: str
    symbol: str
    exchange: str
    pid: int
    minutes: int = 0
    allMinutes: int = 0
    trades: int = 0


class _Record(msgspec.Struct):
    saved: str
    run: _Run
    report: dict[str, Any]


def last_run_file() -> Path:
    """Return the path of the report of the last run."""
    home = os.environ.get("XDG_STATE_HOME", "")  # the XDG specification says to ignore a relative path
    return (Path(home) if os.path.isabs(home) else Path("~/.local/state").expanduser()) / "backtest-kit-mongo" / "last-run.json"


def save_last_run(run: Record, report: Report) -> None:
    """Save what a run did. If the folder is not writable, print that to stderr; it does not fail the run."""
    try:
        _write(last_run_file(), run, report)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        errors.print(f"the counters of this run are not kept for `stats`: {error}", soft_wrap=True, markup=False)


@contextmanager
def recording(run: Record, report: Report) -> Iterator[Callable[[int, int], None]]:
    """Let ``stats --watch`` see this run. Yields the function ``(minutes done, total)`` that reports its progress."""
    ended = threading.Event()
    written: list[Path] = []

    def keep() -> None:
        try:
            file = last_run_file().with_name(f"running-{os.getpid()}.json")
            for other in file.parent.glob("running-*.json"):
                if _forgotten(other):
                    other.unlink(missing_ok=True)
            while not ended.wait(_EVERY):
                _write(file, run, report)
                written[:] = [file]
        except (OSError, RuntimeError) as error:
            errors.print(f"`stats --watch` cannot see this run: {error}", soft_wrap=True, markup=False)

    def moved(done: int, total: int) -> None:
        run.update(minutes=done, allMinutes=total)

    # A thread, since no progress is reported during a long block of candles.
    thread = threading.Thread(target=keep, name="running-record", daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        ended.set()
        thread.join()
        for file in written:
            file.unlink(missing_ok=True)


def load_last_run() -> Record | None:
    """Return what ``save_last_run`` saved (``saved``, ``run``, and a Report as ``report``), or None if there is nothing readable."""
    try:
        return _read(last_run_file())
    except RuntimeError:  # no home folder
        return None


def load_running() -> list[Record]:
    """Return the latest records of the active runs."""
    try:
        files = sorted(last_run_file().parent.glob("running-*.json"))
        records = [_read(file) for file in files if not _forgotten(file)]
    except (OSError, RuntimeError):  # the folder cannot be read, or there is no home folder
        return []
    return [record for record in records if record is not None]


def plain(record: Record) -> Record:
    """Return a record for JSON."""
    return {**record, "report": record["report"].to_dict()}


def run_text(record: Record) -> str:
    """Return what a run is about, and how far it is."""
    run = record["run"]
    text = f"{run['strategy']} on {run['symbol']} {run['exchange']}, {counted(run.get('minutes', 0), 'minute')}"
    if "trades" in run:
        return f"{text}, {counted(run['trades'], 'trade')}"
    return f"{text} of {run.get('allMinutes', 0):,}, process {run['pid']}"


def _forgotten(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime > _FORGOTTEN_AFTER
    except FileNotFoundError:  # its run has just ended
        return True


def _read(file: Path) -> Record | None:
    try:
        record = msgspec.json.decode(file.read_bytes())
        msgspec.convert(record, _Record)  # another version may have written it
        return {**record, "report": Report.from_dict(record["report"])}
    except (OSError, msgspec.MsgspecError, InvalidValueError):
        return None


def _write(path: Path, run: Record, report: Report) -> None:
    record = {"saved": datetime.now(UTC).isoformat(timespec="seconds"), "run": {**run, "pid": os.getpid()}, "report": report.to_dict()}
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix="writing-", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
