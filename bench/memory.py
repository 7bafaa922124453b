"""Print by how many bytes this process grows when it reads stored signals through the library, or puts their ids into a dict."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bson import ObjectId
from sample_data import numbered

import backtest_kit_mongo as kit

CHUNK = 1000


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="The servers are those of the CC_* variables.")
    parser.add_argument("count", type=int, help="how many signals; thousands that are stored")
    parser.add_argument("--keep", type=int, default=0, help="CC_PROCESS_IDS: how many ids the process may remember (default: 0)")
    parser.add_argument("--dict", action="store_true", help="no reads: a dict from context to ObjectId instead")
    given = parser.parse_args()
    starts = range(0, given.count, CHUNK)
    if given.dict:
        before = resident()
        ids = {context: ObjectId() for start in starts for context in numbered(start, start + CHUNK)}
        print(resident() - before)
        assert len(ids) == given.count
        return
    kit.setup(CC_PROCESS_IDS=given.keep)
    before = resident()
    for start in starts:
        assert None not in kit.PersistSignalAdapter.read_many(numbered(start, start + CHUNK))
    print(resident() - before)


if __name__ == "__main__":
    main()
