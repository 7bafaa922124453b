"""What a killed writer leaves in each store."""

from __future__ import annotations

from contextlib import ExitStack

import crash
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = [pytest.mark.once, pytest.mark.server]


@pytest.fixture
def kills(request):
    """The number of kills; 300 of them must pass (``pytest --crashes 300``)."""
    return request.config.getoption("--crashes", 60)


def killed(setup, names, kills, seed=1):
    """Run writers that are killed so many times, then check the records in another process and in this one."""
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
    # Kills in the middle of a call: its write is stored without being acknowledged, or not stored yet.
    assert figures["found as before"]
    assert figures["found as after"] or kills < 60
    return run.model


@pytest.mark.parametrize("store", ["mongo", "file", "jsonl"])
def test_killed_writers_lose_nothing_that_was_acknowledged(settings, tmp_path, kills, store):
    names = ["log"] if store == "jsonl" else list(DOMAINS)
    setup = {**settings, "CC_DUMP_DIR": str(tmp_path / "dump"), "CC_STORES": dict.fromkeys(names, store)}
    killed(setup, names, kills)


@pytest.mark.parametrize("store", ["mongo", "file"])
def test_killed_writers_leave_every_version(settings, tmp_path, kills, store):
    names = [name for name, domain in DOMAINS.items() if domain.when]
    setup = {**settings, "CC_DUMP_DIR": str(tmp_path / "dump"), "CC_STORES": dict.fromkeys(DOMAINS, store), "CC_HISTORY": ",".join(names)}
    assert crash.check_versions(killed(setup, names, kills // 3)) == []


def test_a_killed_mongod_has_what_it_acknowledged(tmp_path, kills):
    """With CC_DURABILITY=journal, the server is killed while the writer uses it, and then the writer."""
    with ExitStack() as stack:
        server = stack.enter_context(MongoServer(tmp_path / "mongo"))
        cache = stack.enter_context(RedisServer(tmp_path / "redis"))
        setup = {"CC_MONGO_CONNECTION_STRING": server.uri("crash"), "CC_REDIS_HOST": cache.socket, "CC_DURABILITY": "journal"}
        run = stack.enter_context(crash.Crashes(setup, DOMAINS, 2))
        for _ in range(max(4, kills // 15)):
            run.crash(before=server.kill)
            server.start()
        run.check()
        print(run.kills, run.model.done)
        assert run.model.done > run.kills


# --- the harness itself ---


def test_what_is_lost_is_found_out(tmp_path):
    """The harness detects a store that keeps nothing."""
    setup = {"CC_STORES": dict.fromkeys(DOMAINS, "memory"), "CC_DUMP_DIR": str(tmp_path)}
    with crash.Crashes(setup, DOMAINS, 3) as run:
        while run.model.done < 3:
            run.crash()
        with pytest.raises(AssertionError, match=r"wrong .*is there, acknowledged was"):
            run.check()


@pytest.mark.parametrize("name", list(DOMAINS))
def test_what_is_missing_or_strange_is_found_out(settings, tmp_path, name):
    kit.setup({**settings, "CC_DUMP_DIR": str(tmp_path), "CC_STORES": dict.fromkeys(DOMAINS, "memory")})
    model = crash.Model([name], 4)

    def wrong():
        return crash.check(model, everything=True)[0]

    def plain(number):
        return not model.step(number).removes and model.step(number).keys != model.step(number + 1).keys

    last = next(number for number in range(9, 99) if plain(number) and plain(number + 2))
    for number in range(1, last):
        crash.do(model, number)
    model.advance(last - 2)
    assert wrong() == []  # one write is in progress
    model.advance(last - 1)
    assert wrong() == []
    model.advance(last)
    assert len(wrong()) == len(model.step(last).keys), "acknowledged, and not there"
    crash.do(model, last)
    assert wrong() == []
    if name != "candle":  # candles that were never written are not read
        crash.do(model, last + 2)
        assert wrong(), "there, and nobody can have written it yet"
