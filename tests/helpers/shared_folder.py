"""A folder that is created once and shared by all workers of a run."""

from __future__ import annotations

import fcntl
import os


def made_once(tmp_path_factory, name, make):
    """Return the folder ``name``; the first worker to ask fills it with ``make(folder)`` while the others wait."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / name
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = shared / f"{name}.unfinished"
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
