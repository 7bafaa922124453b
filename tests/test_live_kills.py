"""What a killed live run leaves behind: no position is lost, no order doubled, no signal taken twice."""

from __future__ import annotations

import pytest
from live_kills import Kills

pytestmark = pytest.mark.once


@pytest.fixture
def kills(request):
    """How often; the promise is made for 200 (``pytest --kills 200``)."""
    return request.config.getoption("--kills", 25)


def killed(setup, kills, seed):
    """A run that is killed so often, then ends with what is open, then closes it."""
    with Kills(setup, seed) as run:
        for _ in range(kills):
            run.kill()
        run.finish("stop")
        run.finish("flat")
        figures = run.figures()
    print(figures)
    return figures


def test_killed_live_runs(settings, kills):
    figures = killed({**settings, "CC_STORES": {"log": "mongo"}}, kills, 1)
    assert figures["kills"] == kills
    assert figures["trades"] > kills // 4
    # Kills in the middle of an order: sent already, or not yet, with nobody who was told.
    assert any(phase.startswith("opening, order") for phase in figures["found"])
    assert any(phase.startswith("closing, order") for phase in figures["found"])


def test_killed_live_runs_with_journal(settings, kills):
    """With the durability of a live run by default."""
    killed({**settings, "CC_STORES": {"log": "mongo"}, "CC_DURABILITY": "journal"}, max(5, kills // 4), 2)
