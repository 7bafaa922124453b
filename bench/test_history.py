"""What history costs a write: single writes of one key whose time rises, and batches of a thousand keys."""

from __future__ import annotations

import itertools

import pytest
from duel import Duel, Side

from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.mongo import MongoStore

STATE = DOMAINS["state"]
BODY = {"position": "long", "priceOpen": 23144.78, "levels": [1.0, 2.0, 3.0], "note": "sma 9 above sma 21"}
KEYS = [(f"7f0c2a4e-6f0e-4d1e-9c58-{number:012}", "main") for number in range(1000)]


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "pymongo"])
@pytest.mark.parametrize(("count", "calls", "share"), [(1, 64, 1.0), (1000, 1, 0.3)], ids=["one", "thousand"])
def test_write_with_history(benchmark, request, placement, settings, servers, lane, count, calls, share):
    """64 calls a burst: as many as let each burst pay for its share of moving versions out of the documents."""
    bursts = request.config.getoption("--bursts")
    times = itertools.count(1)

    def side(name, history):
        given = {**settings, "CC_MONGO_CONNECTION_STRING": servers.mongo.uri(f"history-{name}"), "CC_WIRE_LANE": lane}
        store = MongoStore(load_config(given), Metrics(), history)

        def write():
            when = next(times)
            store.write(STATE, [Record(key, BODY, when) for key in KEYS[:count]])

        return store, Side(write, 1 if bursts == 1 else calls)

    made = {"without": side("without", History()), "with": side("with", History(frozenset({"state"})))}
    try:
        contest = Duel({name: one for name, (_, one) in made.items()})
        contest.round()
        contest.forget()
        benchmark.pedantic(contest.round, rounds=max(1, round(bursts * share)), iterations=1)
        benchmark.extra_info.update(
            placement=placement[0], values=contest.microseconds(), ratio=contest.over("with", "without"), records=count, lane=lane
        )
        print(f"\n{placement[0]}, {count} records, lane {lane}: {contest.microseconds()} us, {contest.over('with', 'without'):.2f} times")
    finally:
        for name, (store, _) in made.items():
            store.connection.client.drop_database(f"history-{name}")
            store.close()
