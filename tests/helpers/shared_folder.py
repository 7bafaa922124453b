"""A folder that is made once and serves all workers of a run."""

from __future__ import annotations

import fcntl
import os


def made_once(tmp_path_factory, name, make):
    """The folder ``name``, which the first worker that asks lets ``make(folder)`` fill while the others wait."""
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
