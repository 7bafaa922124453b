"""Single writes with their cache fill, acknowledged in MongoDB's memory."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import floor
import pytest
from interleaved import Side
from sample_data import CONTEXT, ROW, filter_of, redis_key

from backtest_kit_mongo import PersistSignalAdapter

CALLS = 25


def upsert(database, context):
    now = datetime.now(UTC)  # the date changes, since otherwise the server would have nothing to update
    update = {"$set": {"payload": ROW, "updatedDate": now}, "$setOnInsert": {"createDate": now, "__v": 0}}
    body = {"findAndModify": "signal-items", "query": filter_of(context), "update": update, "upsert": True, "new": True}
    return floor.command({**body, "fields": {"_id": True}, "$db": database})


@pytest.mark.parametrize("work", ["insert", "update"])
def test_single_write(interleaved, library, plain, engine, wires, work):
    library()
    numbers = itertools.count()

    def context():
        return ("BTCUSDT", f"sma_cross_{next(numbers)}", "binance") if work == "insert" else CONTEXT

    def message():
        return upsert(wires.database, context())

    messages = []

    def prebuild():
        messages[:] = [message() for _ in range(CALLS)]

    writers = {"ours": PersistSignalAdapter.write_signal_data, "plain": plain.write_signal, "mongoengine": engine.write_signal}
    sides = {name: Side(lambda write=write: write(ROW, *context()), CALLS) for name, write in writers.items()}
    for side in sides.values():
        side.call()
    assert wires.mongo.ask(message())["value"] is not None
    assert all(row["payload"] == ROW for row in plain.signals.find())
    assert plain.signals.count_documents({}) == (len(sides) + 1 if work == "insert" else 1)
    sides["floor"] = Side(lambda: wires.mongo.exchange(messages.pop()), CALLS, prebuild)
    interleaved(f"single write, {work}", sides)


@pytest.mark.parametrize("work", ["insert", "update"])
def test_single_write_and_posted_id(interleaved, library, plain, wires, work):
    """The floor sends both messages of a first write: the findAndModify, and the SET without waiting for its reply."""
    library()
    numbers = itertools.count()

    def context():
        return ("BTCUSDT", f"sma_cross_{next(numbers)}", "binance") if work == "insert" else CONTEXT

    messages = []

    def prebuild():
        messages[:] = []
        for _ in range(CALLS):
            chosen = context()
            messages.append((upsert(wires.database, chosen), floor.redis_command("SET", redis_key(chosen), "0" * 24)))

    def raw():
        write, note = messages.pop()
        wires.mongo.exchange(write)
        wires.redis.post(note, len(b"+OK\r\n"))

    prebuild()
    assert wires.mongo.ask(messages[0][0])["value"] is not None
    assert wires.redis.ask(messages[0][1], len(b"+OK\r\n")) == b"+OK\r\n"
    plain.redis.flushall()
    sides = {"ours": Side(lambda: PersistSignalAdapter.write_signal_data(ROW, *context()), CALLS), "floor": Side(raw, CALLS, prebuild)}
    interleaved(f"single write and its id, {work}", sides)
