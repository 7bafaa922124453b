"""What a killed writer leaves behind, on each store."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import crash
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.servers import MongoServer, RedisServer


@pytest.fixture
def kills(request):
    """How often; the promise is made for 300 (``pytest --crashes 300``)."""
    return request.config.getoption("--crashes", 60)


def killed(setup, names, kills, seed=1):
    """A run whose writers are killed so often, looked at in the end by another process and by this one."""
    with crash.Crashes(setup, names, seed) as run:
        for _ in range(kills):
            run.crash()
        run.check()
    kit.setup(setup)
    assert crash.check(run.model, everything=True)[0] == []
    figures = {
        "kills": run.kills,
        "steps": run.model.done,
        "found as before": sum(outcome.old for outcome in run.outcomes),
        "found as after": sum(outcome.new for outcome in run.outcomes),
    }
    print(figures)
    assert run.model.done > 3 * kills
    assert run.kills == kills
    # Kills in the middle of a call: what it was to write is there already, though nobody was told, or not yet.
    assert figures["found as before"] > kills / 20
    assert figures["found as after"] > 0


@pytest.mark.parametrize("store", ["mongo", "file", "jsonl"])
def test_killed_writers_lose_nothing_that_was_acknowledged(settings, tmp_path, kills, store):
    names = ["log"] if store == "jsonl" else list(DOMAINS)
    setup = {**settings, "CC_DUMP_DIR": str(tmp_path / "dump"), "CC_STORES": dict.fromkeys(names, store)}
    killed(setup, names, kills)
