"""On a real replica set of three, acknowledged writes survive any fault of the primary, and a retried write undoes no later one."""

from __future__ import annotations

import itertools
import logging
import time

import pymongo
import pytest
from fail_over import FAULTS, Load, candles
from proxy import Fault, Proxy
from pymongo.errors import NotPrimaryError
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import ServerTimeoutError
from backtest_kit_mongo.servers import MongoServer
from backtest_kit_mongo.servers.replica_set import ReplicaSet

pytestmark = [pytest.mark.once, pytest.mark.server, pytest.mark.slow]

WHEN = 1_700_000_000_000
STATE, MEMORY, CANDLE, LOG = (
    kit.PersistStateAdapter,
    kit.PersistMemoryAdapter,
    kit.PersistCandleAdapter,
    kit.PersistLogAdapter,
)
PATIENT = {"serverSelectionTimeoutMS": 60_000}  # a busy machine is not an outage
_names = itertools.count()


@pytest.fixture(params=["1", "0"], ids=["wire-on", "wire-off"])
def wire(request, monkeypatch):
    """The wire protocol, or only pymongo's public methods."""
    monkeypatch.setenv("CC_WIRE_LANE", request.param)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    with ReplicaSet(tmp_path_factory.mktemp("replicas"), election_timeout=3) as running:
        yield running


@pytest.fixture
def begin(replicas, settings):
    """A function that sets the library up on a new database of the replica set, with more URI options and settings."""

    def begin(options=(), **others):
        kit.close()
        uri = replicas.uri(f"t{next(_names)}", **{**PATIENT, **dict(options)})
        kit.setup({**settings, "CC_DURABILITY": "journal", "CC_MONGO_CONNECTION_STRING": uri, **others})
        kit.wait_for_init()

    yield begin
    kit.close()
    replicas.restart_replication()
    replicas.start()


# --- what a write waits for ---


def test_a_majority_has_what_was_acknowledged(begin, replicas):
    begin()
    asked = kit.get_config()
    assert asked.topology == f"replica set {replicas.name}"
    assert asked.write_concern == {"w": "majority", "j": True, "wtimeout": asked.write_concern["wtimeout"]}
    assert asked.read_concern == {}
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    name = kit.get_mongo().name
    having = 0
    for member in replicas.members:
        with member.admin() as admin:
            items = admin.client[name].get_collection("state-items", read_preference=pymongo.ReadPreference.NEAREST)
            having += items.count_documents({}) == 1
    assert having >= 2


def test_a_write_that_no_other_member_gets_is_not_acknowledged(begin, replicas, wire):
    """It raises the specific error before the socket times out."""
    begin({"wtimeoutMS": 1500})
    calls = {
        "one": lambda: STATE.write_state_data({"n": 1}, "s", "b", WHEN),
        "many": lambda: STATE.write_many([({"n": 1}, "s", f"{number}", WHEN) for number in range(300)]),
        "candles": lambda: CANDLE.write_candles_data(candles(0, 10), "S", "1m", "e"),
        "log": lambda: LOG.write_log_data([{"id": "1", "type": "info", "message": "m", "timestamp": 1}]),
    }
    STATE.write_state_data({"n": 0}, "s", "b", WHEN)
    for call in calls.values():
        call()  # collections and indexes
    replicas.stop_replication()
    for name, call in calls.items():
        if name == "candles":
            call = lambda: CANDLE.write_candles_data(candles(10, 10), "S", "1m", "e")  # noqa: E731 - new candles
        started = time.monotonic()
        with pytest.raises(ServerTimeoutError, match="did not confirm a write") as caught:
            call()
        assert "kept or rolled back" in str(caught.value), name
        assert time.monotonic() - started < 11, name  # a single attempt, without waiting for the socket time-out
    replicas.restart_replication()
    for call in calls.values():
        assert wait_for(lambda call=call: _acknowledged(call))


def _acknowledged(call):
    try:
        call()
    except ServerTimeoutError:
        return False
    return True


@pytest.mark.parametrize("durability", ["journal", "memory"])
def test_w_1_beside_a_replica_set_is_warned_of_once(begin, caplog, durability):
    caplog.set_level(logging.WARNING, "backtest_kit_mongo")
    begin({"w": 1} if durability == "journal" else (), CC_DURABILITY=durability)
    for number in range(3):
        STATE.write_state_data({"n": number}, "s", "b", WHEN)
    (said,) = [record.getMessage() for record in caplog.records if "failover" in record.getMessage()]
    assert said.startswith("CC_DURABILITY=memory" if durability == "memory" else "w=1 in CC_MONGO_CONNECTION_STRING")
    begin({"w": "majority"}, CC_DURABILITY=durability)
    caplog.clear()
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    assert not caplog.records


def test_what_replication_had_not_taken_is_acknowledged_by_w_1_alone(begin, replicas, wire):
    """The loss that ``journal`` rules out is real: with w=1 the same write is acknowledged, and lost with the primary."""
    begin({"w": 1})
    STATE.write_state_data({"n": 0}, "s", "b", WHEN)
    replicas.await_settled()
    assert wait_for(lambda: {_number_on(member) for member in replicas.members} == {0})
    replicas.stop_replication()
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    former = replicas.kill_primary()
    replicas.restart_replication()
    replicas.await_primary(other_than=former)
    assert STATE.read_state_data("s", "b") == {"n": 0}


def _number_on(member):
    with member.admin() as admin:
        items = admin.client[kit.get_mongo().name].get_collection("state-items", read_preference=pymongo.ReadPreference.NEAREST)
        try:
            stored = items.find_one({})
        except NotPrimaryError:  # the member is catching up
            return None
        return stored and stored["payload"]["n"]


def test_the_read_concern_of_the_connection_string_holds_on_every_path(begin, replicas, wire):
    """With ``majority``, a write that no other member has yet is not read on any path."""
    begin({"w": 1, "readConcernLevel": "majority"})
    STATE.write_state_data({"n": 0}, "s", "b", WHEN)
    MEMORY.write_memory_data({"n": 0}, "s", "b", "m", WHEN)
    assert wait_for(lambda: (STATE.read_state_data("s", "b"), MEMORY.read_memory_data("s", "b", "m")) == ({"n": 0}, {"n": 0}))
    replicas.stop_replication()
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    MEMORY.write_memory_data({"n": 1}, "s", "b", "m", WHEN)
    for cached in (True, False):
        if not cached:
            default_registry.mongo.drop_cache()
        assert STATE.read_state_data("s", "b") == {"n": 0}
        assert STATE.read_many([("s", "b"), ("s", "c")]) == [{"n": 0}, None]
        assert [row["data"] for row in MEMORY.list_memory_data("s", "b")] == [{"n": 0}]


# --- under a load ---


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_under_load_no_call_fails_nothing_is_lost_and_no_read_is_old(begin, replicas, wire, fault, long):
    begin({"socketTimeoutMS": 60_000, "wtimeoutMS": 40_000})
    with Load(pause=0.01 if long else 0.05) as load:
        load.goes_on()
        FAULTS[fault](replicas, load)  # make bench-fail-over runs many rounds of it
        replicas.await_settled()
        load.goes_on()
    assert load.failed == []
    assert load.wrong == []
    assert load.lost() == []


def test_a_call_does_not_wait_for_a_former_primary(begin, replicas):
    """Over the wire protocol, a call that waits for an unresponsive server continues as soon as another member is primary."""
    begin({"socketTimeoutMS": 600_000})
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    former = replicas.primary
    former.pause()
    try:
        assert STATE.read_state_data("s", "b") == {"n": 1}
        STATE.write_state_data({"n": 2}, "s", "b", WHEN)
        assert STATE.read_state_data("s", "b") == {"n": 2}
    finally:
        former.resume()


# --- retries ---


@pytest.mark.parametrize("how", ["one", "many", "removed", "with history", "without numbers"])
def test_a_write_that_is_sent_again_does_not_undo_a_later_one(replicas, settings, tmp_path, wire, how):
    """The reply to a write is lost with its connection, and another client writes before the retry.

    Without transaction numbers, as on a standalone server, the retry undoes the later write, as the manual says.
    """
    database = f"t{next(_names)}"
    socket_path = str(tmp_path / "mongo.sock")
    uri = f"mongodb://{socket_path.replace('/', '%2F')}/{database}?directConnection=true&serverSelectionTimeoutMS=60000"
    uri += "&retryWrites=false" if how == "without numbers" else ""
    history = {"CC_HISTORY": "state"} if how == "with history" else {}
    with Proxy(replicas.primary.socket, socket_path, "mongo") as proxy, pymongo.MongoClient(replicas.uri(database, w="majority")) as client:
        kit.setup({**settings, "CC_DURABILITY": "journal", "CC_MONGO_CONNECTION_STRING": uri, **history})
        collection = client[database]["memory-items" if how == "removed" else "state-items"]

        def write(number):
            if how == "many":
                STATE.write_many([({"n": number}, "s", f"{row}", WHEN) for row in range(5)])
            elif how == "removed":
                if number == 1:
                    MEMORY.write_memory_data({"n": 1}, "s", "b", "m", WHEN)
                else:
                    MEMORY.remove_memory_data("s", "b", "m")
            else:
                STATE.write_state_data({"n": number}, "s", "b", WHEN + number)

        def another_writes(reply, earlier):
            collection.update_many({}, {"$set": {"payload": {"n": 3}, "removed": False}})
            return (None,)

        write(1)
        command = "update" if how in ("many", "removed") else "findandmodify"
        proxy.arm(command, Fault(another_writes))
        write(2)
        assert {row["payload"]["n"] for row in collection.find()} == {2 if how == "without numbers" else 3}
        assert proxy.met[command] == 1
        kit.close()


@pytest.mark.parametrize("numbered", [True, False])
def test_a_change_whose_reply_is_lost_is_made_once_where_writes_are_numbered(replicas, settings, tmp_path, wire, numbered):
    """Without transaction numbers, as on a standalone server, the change is made twice, as the docstring of ``update`` says."""
    socket_path = str(tmp_path / "mongo.sock")
    uri = f"mongodb://{socket_path.replace('/', '%2F')}/t{next(_names)}?directConnection=true&serverSelectionTimeoutMS=60000"
    uri += "" if numbered else "&retryWrites=false"
    with Proxy(replicas.primary.socket, socket_path, "mongo") as proxy:
        kit.setup({**settings, "CC_DURABILITY": "journal", "CC_MONGO_CONNECTION_STRING": uri})
        STATE.write_state_data({"n": 1}, "s", "b", WHEN)
        proxy.arm("update", Fault(lambda reply, earlier: (None,)))
        STATE.update(("s", "b"), lambda state: {"n": state["n"] + 1}, WHEN)
        assert proxy.met["update"] == 1
        assert STATE.read_state_data("s", "b") == {"n": 2 if numbered else 3}
        kit.close()


def test_a_standalone_server_and_retry_writes_off_number_nothing(begin, settings, tmp_path):
    with MongoServer(tmp_path) as standalone:
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": standalone.uri()})
        STATE.write_state_data({"n": 1}, "s", "b", WHEN)
        assert default_registry.mongo.connection._sessions is None
        kit.close()
    begin({"retryWrites": "false"})
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    assert default_registry.mongo.connection._sessions is None
    begin()
    STATE.write_state_data({"n": 1}, "s", "b", WHEN)
    assert default_registry.mongo.connection._sessions is not None


def test_writes_of_the_users_with_the_same_client_do_not_count_as_ours(begin, wire):
    """pymongo numbers them too, in sessions that it reuses."""
    begin()
    other = kit.get_mongo()["other"]
    for number in range(1, 6):
        for _ in range(number):
            other.insert_one({})
        STATE.write_state_data({"n": number}, "s", "b", WHEN)
        STATE.write_many([({"n": number}, "s", f"many{row}", WHEN) for row in range(3)])
        other.insert_one({})
        default_registry.mongo.drop_cache()
        assert STATE.read_state_data("s", "b") == {"n": number}
        assert STATE.read_many([("s", f"many{row}") for row in range(3)]) == [{"n": number}] * 3
    assert other.count_documents({}) == 20


def test_as_many_sessions_as_writes_at_once(begin, long):
    begin()
    for number in range(30 if long else 10):
        STATE.write_state_data({"n": number}, "s", "b", WHEN)
        STATE.write_many([({"n": number}, "s", f"{row}", WHEN) for row in range(600)])
    assert len(default_registry.mongo.connection._sessions._idle) <= 4
