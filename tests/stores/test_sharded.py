"""Behind a mongos, every command names the shard key. No mongos is needed: the tests check the commands that it would receive."""

from __future__ import annotations

import pytest
from bson import ObjectId

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.mongo import database as connection

pytestmark = [pytest.mark.once, pytest.mark.server]

WHEN = 1_700_000_000_000
STATE = kit.PersistStateAdapter
KEYS = [("s", f"{number}") for number in range(600)]


@pytest.fixture(params=["1", "0"], ids=["wire-on", "wire-off"])
def sent(request, settings, monkeypatch):
    """Make the library take its server for a mongos, and return the filters it has sent, from the server's profile."""
    monkeypatch.setenv("CC_WIRE_LANE", request.param)
    monkeypatch.setattr(connection, "is_sharded", lambda client: True)
    kit.setup(settings)
    STATE.write_state_data({"n": 1}, "s", "warm", WHEN)
    database = kit.get_mongo()
    database.command("profile", 2)

    def found():
        commands = [entry["command"] for entry in database["system.profile"].find({"ns": f"{database.name}.state-items"})]
        filters = [command.get("filter") or command.get("query") or command.get("q") for command in commands]
        return [expected for expected in filters if expected]

    yield found
    database.command("profile", 0)


def parts(wanted):
    """Return the alternatives of a filter."""
    return wanted.get("$or", [wanted])


def test_every_command_names_the_key(sent):
    STATE.write_state_data({"n": 1}, *KEYS[0], WHEN)
    STATE.write_many([({"n": number}, *key, WHEN) for number, key in enumerate(KEYS)])
    for _ in range(3):
        assert STATE.read_state_data(*KEYS[1]) == {"n": 1}
    default_registry.mongo.process_ids.put(DOMAINS["state"], KEYS[2], ObjectId().binary)
    assert STATE.read_state_data(*KEYS[2]) == {"n": 2}
    assert STATE.read_many(KEYS) == [{"n": number} for number in range(len(KEYS))]
    STATE.update(KEYS[3], lambda state: {"n": 30}, WHEN)
    seen = [part for expected in sent() for part in parts(expected)]
    assert len(seen) > len(KEYS)
    assert sum("_id" in part for part in seen) > len(KEYS)  # and still by id, so that hits are counted as such
    assert all({"signalId", "bucketName"} <= set(part) for part in seen), next(part for part in seen if "bucketName" not in part)
    assert kit.stats()["state"]["stale"] == 1
    assert kit.stats()["state"]["hits_process"] > len(KEYS)


def test_an_id_of_another_key_is_no_hit(sent):
    STATE.write_state_data({"n": 1}, *KEYS[0], WHEN)
    STATE.write_state_data({"n": 2}, *KEYS[1], WHEN)
    other = default_registry.mongo.process_ids.get(DOMAINS["state"], KEYS[1])
    default_registry.mongo.process_ids.put(DOMAINS["state"], KEYS[0], other)
    assert STATE.read_state_data(*KEYS[0]) == {"n": 1}
    assert STATE.read_many(KEYS[:2]) == [{"n": 1}, {"n": 2}]
