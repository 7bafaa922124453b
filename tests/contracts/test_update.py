"""Compare-and-set: a write succeeds only if the record is still as it was read, whoever else writes it."""

from __future__ import annotations

import pytest
from children import WHEN, in_threads
from test_concurrency import run

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts import contract as contracts
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import DatabaseError, InvalidTypeError
from backtest_kit_mongo.stores.base import Record

STATE, MEMORY, RISK = kit.PersistStateAdapter, kit.PersistMemoryAdapter, kit.PersistRiskAdapter
KEY = ("s", "b")
BODIES = [
    {"n": 1},
    None,
    {},
    {"b": 1, "a": {"$gt": 0, "$x": [1, 2.5, None, True]}},
    {"big": 2**62, "nan": float("nan"), "infinite": float("inf"), "text": "\0 ü"},
    {"n": 1.0},
]


def store_of(name="state"):
    return default_registry.store(DOMAINS[name])


def record(body, key=KEY, when=WHEN):
    return Record(key, body, when)


def read_back(key=KEY):
    return store_of().read(DOMAINS["state"], [key])[0]


@pytest.mark.parametrize("body", BODIES, ids=repr)
def test_what_a_read_gave_is_swapped_and_nothing_else(store, body):
    state = DOMAINS["state"]
    swap = store_of().swap
    assert not swap(state, record({"n": 9}), record(body))  # nothing is stored yet
    assert swap(state, record(body), None)
    assert not swap(state, record({"n": 9}), None)
    stored = read_back()
    assert not swap(state, record({"n": 9}), stored._replace(body={"other": 1}))
    assert not swap(state, record({"n": 9}), stored._replace(when=WHEN + 1))
    assert repr(read_back()) == repr(stored)
    assert swap(state, record({"n": 9}, when=WHEN + 5), stored)
    assert read_back() == record({"n": 9}, when=WHEN + 5)
    assert STATE.read_state_data(*KEY) == {"n": 9}


def test_the_fields_of_a_body_are_compared_in_their_order(mongo):
    """MongoDB compares documents this way, and the TypeScript package writes them this way."""
    STATE.write_state_data({"a": 1, "b": 2}, *KEY, WHEN)
    assert not store_of().swap(DOMAINS["state"], record({}), record({"b": 2, "a": 1}))
    assert store_of().swap(DOMAINS["state"], record({}), record({"a": 1, "b": 2}))


def test_an_update_that_changes_nothing_writes_nothing(store, monkeypatch):
    STATE.update(KEY, lambda state: {"n": 1} if state is None else state, WHEN)
    monkeypatch.setattr(store_of(), "swap", None)
    STATE.update(KEY, lambda state: state, WHEN + 1)
    STATE.update(KEY, dict, WHEN + 1)
    assert read_back() == record({"n": 1})


def test_an_update_is_done_again_when_somebody_was_faster(store):
    seen = []

    def change(state):
        seen.append(state)
        if len(seen) < 3:
            STATE.write_state_data({"n": len(seen)}, *KEY, WHEN)
        return {"n": 10 + (state or {"n": 0})["n"]}

    STATE.update(KEY, change, WHEN)
    assert seen == [None, {"n": 1}, {"n": 2}]
    assert STATE.read_state_data(*KEY) == {"n": 12}


def test_what_a_change_does_to_its_argument_is_seen(store):
    STATE.write_state_data({"n": 1}, *KEY, WHEN)

    def change(state):
        state["n"] += 1
        return state

    STATE.update(KEY, change, WHEN)
    assert STATE.read_state_data(*KEY) == {"n": 2}


def test_an_update_that_never_gets_through_ends(store, monkeypatch):
    monkeypatch.setattr(contracts, "_ATTEMPTS", 3)
    STATE.write_state_data({"n": 0}, *KEY, WHEN)

    def change(state):
        STATE.write_state_data({"n": state["n"] + 1}, *KEY, WHEN)
        return {"n": -1}

    with pytest.raises(DatabaseError, match="state 's', 'b': another writer was faster 3 times in a row"):
        STATE.update(KEY, change, WHEN)
    assert STATE.read_state_data(*KEY) == {"n": 3}


def test_a_row_with_an_infinite_lifetime_can_be_changed(mongo):
    """The TypeScript package stores null for it and a read returns infinity; the comparison uses the stored value."""
    RISK.write_position_data([["k", {"minuteEstimatedTime": None, "openTimestamp": 1}]], "r", "e", WHEN)
    RISK.update(("r", "e"), lambda pairs: [*pairs, ["other", {}]], WHEN)
    assert RISK.read_position_data("r", "e", WHEN) == [
        ["k", {"minuteEstimatedTime": float("inf"), "openTimestamp": 1}],
        ["other", {}],
    ]


@pytest.mark.parametrize(
    ("adapter", "context", "when", "message"),
    [
        (STATE, KEY, None, "needs when"),
        (kit.PersistSignalAdapter, ("S", "s", "e"), WHEN, "takes no when"),
        (STATE, ("s",), WHEN, "must be a tuple"),
        (STATE, "sb", WHEN, "must be a tuple"),
    ],
)
def test_bad_arguments(store, adapter, context, when, message):
    with pytest.raises(InvalidTypeError, match=message):
        adapter.update(context, lambda body: {"n": 1}, when)


def test_a_value_that_cannot_be_stored(store):
    with pytest.raises(InvalidTypeError):
        STATE.update(KEY, lambda state: 7, WHEN)
    assert STATE.read_state_data(*KEY) is None


def test_what_a_change_raises_comes_through(store):
    with pytest.raises(ZeroDivisionError):
        STATE.update(KEY, lambda state: 1 // 0, WHEN)


def test_slots_without_a_time(store):
    kit.PersistSignalAdapter.update(("S", "s", "e"), lambda row: {"id": "x"}, None)
    kit.PersistSignalAdapter.update(("S", "s", "e"), lambda row: None if row["id"] == "x" else row)
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") is None


def count_in_threads():
    def work(number):
        for _ in range(50):
            STATE.update(KEY, lambda state: {"n": (state or {"n": 0})["n"] + 1}, WHEN)

    assert in_threads(4, work) == []


def test_threads_lose_no_update(store):
    count_in_threads()
    assert STATE.read_state_data(*KEY) == {"n": 200}


def test_a_class_of_the_users_is_kept_from_threads_of_this_process(mongo):
    values = {}

    class Own:
        def __init__(self, signal_id, bucket_name):
            self.place = signal_id, bucket_name

        def wait_for_init(self, initial):
            pass

        def read_state_data(self):
            return values.get(self.place)

        def write_state_data(self, data, when):
            values[self.place] = data

    STATE.use_persist_state_adapter(Own)
    try:
        count_in_threads()
    finally:
        STATE.use_mongo()
    assert values == {KEY: {"n": 200}}


@pytest.mark.parametrize("kind", ["mongo", "file"])
@pytest.mark.parametrize("history", ["", "state,risk"], ids=["plain", "history"])
def test_processes_lose_no_update_and_hold_no_slot_together(settings, tmp_path, kind, history):
    more = {"CC_HISTORY": history} if history else {}
    if kind == "file":
        more |= {"CC_STORES": "state=file,risk=file", "CC_DUMP_DIR": str(tmp_path / "dump")}
    asked = {**settings, **more}
    run(asked, "count_up", 3, rounds=25)
    for answer in run(asked, "one_holder", 2, rounds=25, marker=str(tmp_path / "marker")):
        assert (answer["held"], answer["together"], answer["lost"]) == (25, 0, 0)
    kit.setup(asked)
    assert STATE.read_state_data("count", "b") == {"n": 75}
    assert RISK.read_position_data("one", "e", WHEN) == []


def test_a_remove_with_history_does_not_take_back_another_write(settings, store, monkeypatch):
    """A remove reads and then writes; a write by another client in between is what gets removed."""
    if store == "mongo":
        kit.setup({**settings, "CC_HISTORY": "memory"})
    else:
        kit.close()
        kit.setup(stores=dict.fromkeys(DOMAINS, store), CC_HISTORY="memory", CC_DUMP_DIR=kit.get_config().CC_DUMP_DIR)
    key = ("s", "b", "m")
    MEMORY.write_memory_data({"n": 1}, *key, WHEN)
    memory_store = store_of("memory")
    read, calls = memory_store.read, []

    def slow(domain, keys):
        answer = read(domain, keys)
        if domain.name == "memory" and not calls:
            calls.append(1)
            MEMORY.write_memory_data({"n": 2}, *key, WHEN + 10)
        return answer

    monkeypatch.setattr(memory_store, "read", slow)
    with kit.simulated_time(WHEN + 20):
        MEMORY.remove_memory_data(*key)
    monkeypatch.undo()
    assert MEMORY.read_memory_data(*key) is None
    for moment, expected in ((WHEN + 5, {"n": 1}), (WHEN + 15, {"n": 2}), (WHEN + 25, None)):
        with kit.simulated_time(moment):
            assert MEMORY.read_memory_data(*key) == expected
    removed = read(DOMAINS["memory"], [key])[0]
    assert removed.removed
    assert removed.body == {"n": 2, "removed": True}
