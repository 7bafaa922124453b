"""Interleaved duels: each round of a benchmark is a burst of the rival and a burst of ours, so that both meet the same machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from plain import PlainClient

import backtest_kit_mongo as kit

_results: list[dict[str, Any]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bursts", type=int, default=60, help="pairs of bursts per benchmark (default: 60)")


@pytest.fixture
def plain(mongo: dict[str, Any]) -> Any:
    """The plain client on the database that the library is set up on."""
    database = kit.get_mongo().name
    client = PlainClient(mongo["CC_MONGO_CONNECTION_STRING"], mongo["CC_REDIS_HOST"], database)
    yield client
    client.close()


@pytest.fixture
def duel(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., float]:
    """``duel(name, ours, rival, calls)``: run both in turn, note the medians per call, and give how many times faster ours is."""
    bursts = request.config.getoption("--bursts")

    def run(name: str, ours: Callable[[], object], rival: Callable[[], object], *, calls: int = 25, target: float = 1.0) -> float:
        times: dict[str, list[float]] = {"ours": [], "rival": []}

        def burst(which: str, call: Callable[[], object]) -> None:
            started = time.perf_counter()
            for _ in range(calls):
                call()
            times[which].append((time.perf_counter() - started) / calls)

        def pair() -> None:
            burst("rival", rival)
            burst("ours", ours)

        benchmark.pedantic(pair, rounds=bursts, iterations=1, warmup_rounds=1)
        for which in times:
            del times[which][0]  # the warm-up
        # The median of the pairwise ratios: a drift of the machine's speed touches both sides of a pair alike.
        ratio = statistics.median(slow / fast for slow, fast in zip(times["rival"], times["ours"], strict=True))
        result = {
            "name": name,
            "ours_us": statistics.median(times["ours"]) * 1e6,
            "rival_us": statistics.median(times["rival"]) * 1e6,
            "ratio": ratio,
            "target": target,
            "placement": f"client may use cores {sorted(os.sched_getaffinity(0))}, as may the servers",
        }
        benchmark.extra_info.update(result)
        _results.append(result)
        return ratio

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _results:
        return
    write = terminalreporter.write_line
    terminalreporter.section("ours against the plain client, interleaved bursts, durability memory")
    write(_results[0]["placement"])
    write(f"{'work':44} {'plain us':>10} {'ours us':>10} {'times faster':>13}")
    for row in _results:
        write(f"{row['name']:44} {row['rival_us']:10.1f} {row['ours_us']:10.1f} {row['ratio']:13.2f}")
