"""Costs of the other stores and of stronger durability, compared with MongoDB and writes acknowledged in its memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from interleaved import Side

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS

WHEN = 1_700_000_000_000
BODY = {"id": "signal_indicators", "data": {"fast": 101.25, "slow": 99.5, "crossed": True, "bars": list(range(20))}, "when": WHEN}
SIDES = {
    "ours": ("mongo", "memory"),
    "MongoDB, in its journal": ("mongo", "journal"),
    "files": ("file", "journal"),
    "files, in the system's cache": ("file", "memory"),
    "this process": ("memory", "memory"),
}


@pytest.fixture
def runs(placement, settings, tmp_path) -> Iterator[dict[str, kit.Registry]]:
    """A registry for each side."""
    registries = {}
    for name, (kind, durability) in SIDES.items():
        registries[name] = kit.Registry()
        registries[name].setup(settings, stores=dict.fromkeys(DOMAINS, kind), CC_DURABILITY=durability, CC_DUMP_DIR=tmp_path / "dump")
        registries[name].wait_for_init()
        registries[name].PersistStateAdapter.write_state_data(BODY, "signal", "indicators", WHEN)
        assert registries[name].PersistStateAdapter.read_state_data("signal", "indicators") == BODY
    yield registries
    for run in registries.values():
        run.close()


def test_write(interleaved, runs):
    def writing(run):
        return Side(lambda: run.PersistStateAdapter.write_state_data(BODY, "signal", "indicators", WHEN))

    interleaved("a State write", {name: writing(run) for name, run in runs.items()})


def test_read(interleaved, runs):
    def reading(run):
        return Side(lambda: run.PersistStateAdapter.read_state_data("signal", "indicators"))

    interleaved("a State read", {name: reading(run) for name, run in runs.items()})


def test_batch(interleaved, runs):
    items = [(BODY, f"signal-{index}", "indicators", WHEN) for index in range(1000)]

    def writing(run):
        return Side(lambda: run.PersistStateAdapter.write_many(items), 1)

    interleaved("1,000 State writes in a batch", {name: writing(run) for name, run in runs.items()}, share=0.1)
