"""Single writes on the compiled fast path: the documents, errors and counters are those of the fallback."""

from __future__ import annotations

import msgspec
import pytest
from test_values import CONVERTED, INF, REFUSED, SAME, T0

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import BacktestKitError, InvalidTypeError, InvalidValueError
from backtest_kit_mongo.stores.mongo.database import MongoDatabase
from backtest_kit_mongo.stores.mongo.store import MongoStore

pytestmark = pytest.mark.once

STATE = kit.PersistStateAdapter
MEMORY = kit.PersistMemoryAdapter


class Point(msgspec.Struct):
    """A body that is not a dict."""

    x: int


@pytest.fixture
def mongo(settings):
    """The library on MongoDB, with the fast path connected."""
    kit.setup(settings, CC_WIRE_LANE=True)
    STATE.write_state_data({}, "warm", "up", T0)
    MEMORY.write_memory_data({}, "warm", "up", "m", T0)
    assert default_registry.mongo.upserts["state"].connected
    yield default_registry.mongo
    kit.close()


@pytest.fixture
def straight(mongo, monkeypatch):
    """A store on which the fallback of a write fails the test."""

    def write(*_):
        raise AssertionError("this write took the long way")

    monkeypatch.setattr(MongoStore, "write", write)
    return mongo


def stored(domain, **key):
    """Return the fields of a document in order, without its id and the dates of the write."""
    (document,) = kit.get_mongo()[DOMAINS[domain].collection].find(key)
    dates = [document.pop("_id"), document.pop("createDate"), document.pop("updatedDate")]
    assert all(dates)
    return list(document.items())


VALUES = [*SAME, *(given for _, given, _ in CONVERTED), -0.0, INF, {"removed": True}]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value!a:.40}")
def test_the_document_is_that_of_the_long_way(mongo, monkeypatch, value):
    STATE.write_many([({"value": value}, "k", "long", T0)])
    monkeypatch.setattr(MongoStore, "write", None)
    STATE.write_state_data({"value": value}, "k", "straight", T0)
    long, straight = stored("state", bucketName="long"), stored("state", bucketName="straight")
    assert dict(long).pop("bucketName") == "long"
    assert [(name, repr(member)) for name, member in straight if name != "bucketName"] == [
        (name, repr(member)) for name, member in long if name != "bucketName"
    ]
    assert STATE.read_state_data("k", "straight") == STATE.read_many([("k", "long")])[0]


@pytest.mark.parametrize(
    "value", [case[1] for case in REFUSED if case[0] != "generator"], ids=[c[0] for c in REFUSED if c[0] != "generator"]
)
def test_what_is_refused_is_refused_in_the_same_words(mongo, value):
    said = []
    for write in (STATE.write_state_data, lambda *arguments: STATE.write_many([arguments])):
        with pytest.raises((InvalidTypeError, InvalidValueError)) as caught:
            write({"value": value}, "k", "b", T0)
        said.append(str(caught.value).removeprefix("item 0: "))
    assert said[0] == said[1]
    assert STATE.read_state_data("k", "b") is None


@pytest.mark.parametrize("arguments", [(1, "b", T0), ("s", None, T0), ("s\0", "b", T0), ("s", "b", "now"), ("s", "b", 2**63)])
def test_bad_keys_and_times_are_refused(straight, arguments):
    with pytest.raises(BacktestKitError):
        STATE.write_state_data({"n": 1}, *arguments)


def test_a_document_that_is_too_large_is_refused(mongo):
    STATE.write_state_data({"text": "x" * (16 * 1024 * 1024 - 16_384)}, "s", "b", T0)
    with pytest.raises(InvalidValueError, match="16777216 bytes"):
        STATE.write_state_data({"text": "x" * 16 * 1024 * 1024}, "s", "b", T0)
    assert len(STATE.read_state_data("s", "b")["text"]) == 16 * 1024 * 1024 - 16_384


def test_removal_and_dates(straight):
    MEMORY.write_memory_data({"data": 1, "removed": False}, "s", "b", "m", T0)
    first = kit.get_mongo()["memory-items"].find_one({"memoryId": "m", "signalId": "s"})
    assert (first["removed"], first["when"], first["__v"], first["createDate"]) == (False, T0, 0, first["updatedDate"])
    MEMORY.write_memory_data({"data": 1, "removed": True}, "s", "b", "m", T0 + 1)
    then = kit.get_mongo()["memory-items"].find_one({"memoryId": "m", "signalId": "s"})
    assert (then["removed"], then["when"], then["_id"], then["createDate"]) == (True, T0 + 1, first["_id"], first["createDate"])
    assert then["updatedDate"] >= first["updatedDate"]
    assert not MEMORY.has_memory_data("s", "b", "m")


def test_what_is_counted(straight):
    kit.reset_stats()
    for number in range(10):
        STATE.write_state_data({"n": number}, "s", "b", T0)
    row = kit.stats()["state"]
    assert (row["writes"], row["operations"]["write"]["count"], row["errors"]) == (10, 10, 0)
    assert 10 * 100 < row["bytes_written"] < 10 * 2000
    assert kit.get_redis().get("state_cache:s:b")


def test_other_bodies_take_the_long_way(mongo):
    kit.PersistSignalAdapter.write_signal_data(Point(1), "S", "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"x": 1}
    kit.PersistSignalAdapter.write_signal_data(None, "S", "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") is None
    kit.PersistRiskAdapter.write_position_data({"a": {"n": 1}}, "r", "e", T0)
    assert kit.PersistRiskAdapter.read_position_data("r", "e", T0) == [["a", {"n": 1}]]


def test_history_takes_the_long_way(settings):
    kit.setup(settings, history=["state"])
    assert "state" not in default_registry.mongo.upserts
    for number in range(3):
        STATE.write_state_data({"n": number}, "s", "b", T0 + number)
    with kit.simulated_time(T0 + 1):
        assert STATE.read_state_data("s", "b") == {"n": 1}
    kit.close()


def test_a_changed_body_is_an_error_or_whole(straight):
    """Code that runs during the encoding changes the body."""

    class Growing(dict):
        def items(self):
            yield "a", 1
            body["late"] = 1
            yield "b", 2

    body = {"first": Growing(a=1), "second": 2}
    with pytest.raises((BacktestKitError, AssertionError)):  # AssertionError: the fast path fell back to the store
        STATE.write_state_data(body, "s", "changed", T0)
    assert STATE.read_state_data("s", "changed") is None


def test_what_is_stored_is_no_error_where_another_thread_closes(settings, monkeypatch):
    """The fast path connects only after a record is stored."""

    def connect(*_):
        raise kit.NotConfiguredError("closed")

    kit.setup(settings)
    monkeypatch.setattr(MongoDatabase, "connect", connect)
    STATE.write_state_data({"n": 1}, "s", "b", T0)
    assert kit.get_mongo()["state-items"].count_documents({}) == 1
    kit.close()
