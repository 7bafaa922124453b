"""What a killed live run leaves behind: no position is lost, no order is duplicated, no signal is taken twice."""

from __future__ import annotations

import pytest
from live_kills import Kills

pytestmark = pytest.mark.once


@pytest.fixture
def kills(request):
    """The number of kills; the claim of the manual was tested with 200 (``pytest --kills 200``)."""
    return request.config.getoption("--kills", 10)


def killed(setup, kills, seed, enough=lambda figures: True):
    """Kill a run ``kills`` times, and (on a slow machine) until it has done enough; then stop it with open positions, then close them."""
    with Kills(setup, seed) as run:
        for number in range(8 * kills):
            if number >= kills and enough(run.figures()):
                break
            run.kill()
        run.finish("stop")
        run.finish("flat")
        figures = run.figures()
    print(figures)
    return figures


def test_killed_live_runs(settings, kills):
    # Kills in the middle of an order, sent already or not yet, with its outcome still unreported.
    def enough(figures):
        seen = [any(phase.startswith(f"{what}, order") for phase in figures["found"]) for what in ("opening", "closing")]
        return figures["trades"] > kills // 4 and all(seen)

    figures = killed({**settings, "CC_STORES": {"log": "mongo"}}, kills, 1, enough)
    assert figures["kills"] >= kills
    assert enough(figures), figures


def test_killed_live_runs_with_journal(settings, kills):
    """The same holds with the default durability of a live run."""
    killed({**settings, "CC_STORES": {"log": "mongo"}, "CC_DURABILITY": "journal"}, max(5, kills // 4), 2)
