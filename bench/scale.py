"""The long run: hit latency against the size of the collection, and where the Redis hop pays when MongoDB's memory is too small."""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from cpu_affinity import on_cores
from floor import MongoWire, RedisWire
from hits import RawHits, fill, reading
from interleaved import Interleaved
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from report import amount, pays_lines, target_lines, text
from rich.progress import Progress
from rivals import Direct, Plain
from sample_data import ROW, Context, numbered

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistSignalAdapter
from backtest_kit_mongo.servers import MongoServer, RedisServer

CHUNK = 10_000
SAMPLE = 50_000
"""Contexts that are drawn of a collection: more than are read, so that no side meets what another one has just read."""
READS = 10_000
"""Timed reads of each side, at each size and in each placement."""
SMALL_GB = 0.25
Row = dict[str, Any]


def noise() -> dict[str, Any]:
    """Return a payload of 1.3 kB that does not compress."""
    return {"noise": base64.b64encode(os.urandom(960)).decode()}


class Run:
    """A mongod with a cache of ``cache_gb``, a Redis, the rivals, and a growing collection."""

    def __init__(self, stack: ExitStack, folder: Path, cache_gb: float, progress: Progress) -> None:
        self.mongo = stack.enter_context(MongoServer(folder / "mongo", cache_gb=cache_gb))
        self.redis = stack.enter_context(RedisServer(folder / "redis"))
        self.progress = progress
        self.settings = {
            "CC_MONGO_CONNECTION_STRING": self.mongo.uri("scale"),
            "CC_REDIS_HOST": self.redis.socket,
            "CC_DURABILITY": "memory",
        }
        kit.setup(self.settings)
        stack.callback(kit.close)
        kit.wait_for_init()
        self.plain = stack.enter_context(closing(Plain(self.settings["CC_MONGO_CONNECTION_STRING"], self.redis.socket)))
        self.wires = MongoWire(self.mongo.socket), RedisWire(self.redis.socket)
        for wire in self.wires:
            stack.callback(wire.close)
        self.ids: list[Any] = []

    def grow(self, size: int, payload: Callable[[], dict[str, Any]]) -> None:
        """Store signals until the collection has ``size`` of them."""
        task = self.progress.add_task(f"fill to {size:,}", total=size, completed=len(self.ids))
        while len(self.ids) < size:
            until = min(len(self.ids) + CHUNK, size)
            self.ids += fill(self.plain, numbered(len(self.ids), until), payload)
            self.progress.update(task, completed=until)

    def sample(self) -> tuple[list[Context], RawHits]:
        """Draw contexts evenly from the whole collection; return them and their prebuilt reads."""
        chosen = random.sample(range(len(self.ids)), min(SAMPLE, len(self.ids)))
        contexts = [numbered(number, number + 1)[0] for number in chosen]
        return contexts, RawHits(*self.wires, self.plain.database.name, contexts, [self.ids[number] for number in chosen])

    def contest(self, sides: dict[str, Any], rounds: int, placement: str, what: str) -> tuple[Interleaved, str]:
        """Run the sides in turn in a placement; return them and the placement in words."""
        interleaved = Interleaved(sides)
        pids = [pid for server in (self.mongo, self.redis) if (pid := server.pid) is not None]
        with on_cores(placement, pids) as words:
            for turn in self.progress.track(range(rounds + rounds // 10), description=f"{what}, {placement}"):
                if turn == rounds // 10:
                    interleaved.forget()
                interleaved.round()
        return interleaved, words


def growth(run: Run, sizes: Sequence[int], rounds: int) -> tuple[list[Row], list[dict[str, Any]]]:
    """Measure hits at each size; return a row of results per placement, and all medians for the plot."""
    points = []
    shares: dict[str, list[float]] = {"same": [], "apart": []}
    words: dict[str, str] = {}
    for size in sizes:
        run.grow(size, lambda: ROW)
        kit.setup({**run.settings, "CC_PROCESS_IDS": size})
        for start in run.progress.track(range(0, size, 1000), description=f"learn {size:,} ids"):
            assert None not in PersistSignalAdapter.read_many(numbered(start, min(start + 1000, size)))
        contexts, raw = run.sample()
        sides = {
            "ours": reading(PersistSignalAdapter.read_signal_data, contexts),
            "direct": reading(Direct(run.plain).read_signal, contexts),
            "floor": raw.by_id,
        }
        for placement in shares:
            interleaved, words[placement] = run.contest(sides, rounds, placement, f"hits of {size:,}")
            shares[placement].append(interleaved.over("ours", "floor"))
            points.append({"size": size, "placement": placement, **interleaved.microseconds()})
    rows = []
    for placement, share in shares.items():
        first, last = (next(p for p in points if p["size"] == size and p["placement"] == placement) for size in (sizes[0], sizes[-1]))
        values = {side: last[side] / first[side] for side in ("ours", "direct", "floor")}
        ratios = {"floor": share[-1] / share[0], "direct": values["direct"] / values["ours"]}
        work = "growth of hit p50, 10^3 to 10^6 documents"
        rows.append({"work": work, "placement": placement, "where": words[placement], "unit": "times", "values": values, "ratios": ratios})
    return rows, points


def beyond_memory(run: Run, size: int, rounds: int) -> list[Row]:
    """Measure reads without cached ids over a collection larger than MongoDB's own memory (the kernel may cache its files)."""
    run.grow(size, noise)
    stored = run.plain.database.command("collstats", "signal-items")["size"]
    print(f"{size:,} documents, {stored / 2**30:.2f} GiB, over {SMALL_GB} GiB of MongoDB's own memory")
    kit.setup({**run.settings, "CC_PROCESS_IDS": 0})
    contexts, raw = run.sample()
    sides = {
        "ours": reading(PersistSignalAdapter.read_signal_data, contexts),
        "plain": reading(run.plain.read_signal, contexts),
        "direct": reading(Direct(run.plain).read_signal, contexts),
        "floor, Redis then id": raw.redis_then_id,
        "floor, by key": raw.by_key,
    }
    rows = []
    for placement in ("same", "apart"):
        interleaved, words = run.contest(sides, rounds, placement, "larger than memory")
        row: Row = {"work": "cold hit, collection larger than MongoDB's memory", "placement": placement, "where": words, "unit": "us"}
        rows.append({**row, "values": interleaved.microseconds(), "ratios": interleaved.ratios({})})
    return rows


def plot(points: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot median hit latency against the number of documents, by placement."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for pane, placement, title in zip(panes, ("same", "apart"), ("client and servers on one core", "on a core each"), strict=True):
        chosen = [point for point in points if point["placement"] == placement]
        for side, label in (("ours", "ours"), ("direct", "direct: pymongo by the compound key"), ("floor", "floor: raw find by _id")):
            pane.plot([point["size"] for point in chosen], [point[side] for point in chosen], marker="o", label=label)
        pane.set(xscale="log", xlabel="documents", title=title)
        pane.grid(alpha=0.3)
    panes[0].set_ylim(bottom=0)  # of both
    panes[0].set_ylabel("median of a hit, us")
    panes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small collections and few reads: shows that it runs, measures nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", help="folder of scale.json and scale.png")
    given = parser.parse_args()
    sizes = [100, 1000] if given.quick else [10**3, 10**4, 10**5, 10**6]
    rounds = 3 if given.quick else READS // 25
    with tempfile.TemporaryDirectory() as folder, Progress(refresh_per_second=2) as progress:
        with ExitStack() as stack:
            rows, points = growth(Run(stack, Path(folder, "growth"), 4, progress), sizes, rounds)
        with ExitStack() as stack:
            rows += beyond_memory(Run(stack, Path(folder, "small"), SMALL_GB, progress), sizes[-1], rounds)
    given.output.mkdir(parents=True, exist_ok=True)
    results = {"machine_info": pytest_benchmark_generate_machine_info(), "benchmarks": [{"extra_info": row} for row in rows]}
    (given.output / "scale.json").write_text(json.dumps({**results, "points": points}, indent=1, default=str))
    plot(points, given.output / "scale.png")
    lines = [["documents", "placement", "ours", "direct", "floor"]]
    for point in points:
        lines.append([f"{point['size']:,}", point["placement"], *(amount(point[side], "us") for side in lines[0][2:])])
    print("\n\n".join(map(text, (lines, target_lines(rows), pays_lines(rows)))))


if __name__ == "__main__":
    main()
