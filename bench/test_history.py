"""The cost of history for a write: single writes of one key at increasing times, and batches of a thousand keys."""

from __future__ import annotations

import itertools

import pytest
from interleaved import Side

import backtest_kit_mongo as kit

BODY = {"position": "long", "priceOpen": 23144.78, "levels": [1.0, 2.0, 3.0], "note": "sma 9 above sma 21"}
KEYS = [(f"7f0c2a4e-6f0e-4d1e-9c58-{number:012}", "main") for number in range(1000)]


@pytest.fixture
def runs(placement, settings):
    """A registry with history and one without, each on its own database."""
    made = {"ours": kit.Registry(), "without": kit.Registry()}
    for name, run in made.items():
        address, _, options = settings["CC_MONGO_CONNECTION_STRING"].partition("?")
        uri = f"{address}-{name}?{options}"
        run.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri}, history=["state"] if name == "ours" else [])
        run.wait_for_init()
    yield made
    for run in made.values():
        run.get_mongo().client.drop_database(run.get_mongo().name)
        run.close()


def test_single(interleaved, runs):
    """A burst has enough calls that each pays its share of moving versions out of the record."""
    times = itertools.count(1)

    def writing(run):
        return Side(lambda: [run.PersistStateAdapter.write_state_data(BODY, *KEYS[0], next(times)) for _ in range(64)], 1)

    interleaved("64 State writes with history", {name: writing(run) for name, run in runs.items()})


def test_batch(interleaved, runs):
    times = itertools.count(1)

    def writing(run):
        def write():
            when = next(times)
            run.PersistStateAdapter.write_many([(BODY, *key, when) for key in KEYS])

        return Side(write, 1)

    sides = {"ours": writing(runs["without"]), "with history": writing(runs["ours"])}
    interleaved("1,000 State writes in a batch, history", sides, share=0.2)
