"""Time this tree beside another commit, call by call in turn, on one pair of servers.

A committed baseline of another machine cannot tell what the machine changed from what the code changed. Here each side is a process with
the library of its own tree and a database of its own. The third side is this tree once more: how far its ratio is from 1 is how far two
equal sides are apart on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
from interleaved import Interleaved, Side
from rich.console import Console
from rich.progress import track
from sample_data import MANY, MINUTE, ROW, candles

from backtest_kit_mongo.servers import MongoServer, RedisServer

ROOT: Final = Path(__file__).parents[1]
WORKS: Final = (
    "hit", "write", "read_many", "write_many", "import", "re-import", "array, blocks warm", "dicts, blocks warm", "idle minute",
)  # fmt: skip

# Uses the public names alone, as another commit may have no others; prints an empty line when a work is done.
_SIDE: Final = """
import itertools, json, sys
import numpy as np
import pymongo
import backtest_kit_mongo as kit

uri, redis, folder, source = sys.argv[1:]
assert kit.__file__.startswith(source), kit.__file__
kit.setup(CC_MONGO_CONNECTION_STRING=uri, CC_REDIS_HOST=redis, CC_DURABILITY="memory")
signals, prices = kit.PersistSignalAdapter, kit.PersistCandleAdapter
row, contexts = json.load(open(folder + "/signals.json"))
candles = np.load(folder + "/candles.npy")
first, series = int(candles["timestamp"][0]), ("BTCUSDT", "1m", "binance")
minutes = itertools.cycle(range(1440))
database = pymongo.MongoClient(uri).get_default_database()

def start_import():
    for name in ("candle-items", "candle-blocks", "candle-archive"):
        database.drop_collection(name)
    prices.clear()
    kit.wait_for_init()

def write_candles():
    prices.write_candles_data(candles, *series)

def idle_minute():
    since = first + next(minutes) * 60_000
    for _ in range(3):
        prices.read_candles_data(*series, 5, since, since + 5 * 60_000)

start_import()
write_candles()
signals.write_many([(row, *context) for context in contexts])
assert len(prices.read_candles_array(*series, len(candles), first)) == len(candles)
works = {
    "start import": (1, start_import),
    "hit": (200, lambda: signals.read_signal_data(*contexts[0])),
    "write": (100, lambda: signals.write_signal_data(row, *contexts[0])),
    "read_many": (3, lambda: signals.read_many(contexts)),
    "write_many": (1, lambda: signals.write_many([(row, *context) for context in contexts])),
    "import": (1, write_candles),
    "re-import": (3, write_candles),
    "array, blocks warm": (20_000, lambda: prices.read_candles_array(*series, len(candles), first)),
    "dicts, blocks warm": (20, lambda: prices.read_candles_data(*series, 1000, first, first + 1000 * 60_000)),
    "idle minute": (1440, idle_minute),
}
print(flush=True)
for line in sys.stdin:
    times, call = works[line.rstrip()]
    for _ in range(times):
        call()
    print(flush=True)
database.client.close()
kit.close()
"""


class Process:
    """A side: a process that does a work when it is told to."""

    def __init__(self, stack: ExitStack, tree: Path, uri: str, redis: str, folder: Path) -> None:
        source = str(tree / "src")
        command = [sys.executable, "-c", _SIDE, uri, redis, str(folder), source]
        # Nothing that the shell sets for the library: another commit may understand it otherwise.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")} | {"PYTHONPATH": source}
        self._process = stack.enter_context(
            subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(self._process.kill)
        self._wait()

    def do(self, work: str) -> None:
        assert self._process.stdin is not None
        print(work, file=self._process.stdin, flush=True)
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "\n":
            raise SystemExit("one side has ended; what it printed is above")


def built(commit: str, folder: Path) -> Path:
    """Check out ``commit`` in ``folder`` and build its core; return its tree."""
    tree = folder / "tree"
    print(f"building {commit}", file=sys.stderr)
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, tree], check=True)
    subprocess.run(["git", "checkout", "--quiet", commit], cwd=tree, check=True)
    if subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=tree, check=False, stdout=sys.stderr
    ).returncode:
        raise SystemExit(f"the core of {commit} cannot be built here; the output is above")
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the commit to compare with; it needs a clone with that history")
    parser.add_argument("--rounds", type=int, default=25, help="rounds of each work (default: 25)")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=WORKS, metavar="WORK", help=f"of: {', '.join(WORKS)} (default: all)")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}; it must be at least 1")
    commit = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", f"{given.commit}^{{commit}}"], cwd=ROOT, check=False, capture_output=True, text=True
    ).stdout.strip()
    if not commit:
        parser.error(f"{given.commit!r} is no commit of this repository")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "signals.json").write_text(json.dumps([ROW, MANY]))
        series, source = candles()
        assert int(series["timestamp"][1] - series["timestamp"][0]) == MINUTE
        np.save(folder / "candles.npy", series)
        other = built(commit, folder)
        mongo = stack.enter_context(MongoServer(folder / "mongo"))
        redis = stack.enter_context(RedisServer(folder / "redis"))
        trees = {"this tree": ROOT, "commit": other, "this tree again": ROOT}
        sides = {name: Process(stack, tree, mongo.uri(name.replace(" ", "-")), redis.socket, folder) for name, tree in trees.items()}
        print(f"{commit[:10]} and this tree, {given.rounds} rounds each; {source}; {time.strftime('%Y-%m-%d')}")
        print(f"{'work':20}{'commit, ms':>12}{'this tree, ms':>15}{'this / commit':>15}{'equal sides':>13}")
        for work in given.only:
            contest = Interleaved({name: _side(process, work) for name, process in sides.items()})
            for _ in range(2):
                contest.round()
            contest.forget()
            for _ in track(range(given.rounds), work, console=Console(stderr=True), transient=True):
                contest.round()
            medians = contest.microseconds()
            ratios = f"{contest.over('this tree', 'commit'):>15.3f}{contest.over('this tree again', 'this tree'):>13.3f}"
            print(f"{work:20}{medians['commit'] / 1000:>12.2f}{medians['this tree'] / 1000:>15.2f}{ratios}", flush=True)


def _side(process: Process, work: str) -> Side:
    return Side(lambda: process.do(work), 1, (lambda: process.do("start import")) if work == "import" else None)


if __name__ == "__main__":
    main()
