"""Single writes with their cache fill, acknowledged in MongoDB's memory."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import floor
import pytest
from duel import Side
from material import CONTEXT, ROW, filter_of

from backtest_kit_mongo import PersistSignalAdapter

CALLS = 25


@pytest.mark.parametrize("work", ["insert", "update"])
def test_single_write(duel, library, plain, engine, wires, work):
    library()
    numbers = itertools.count()

    def context():
        return ("BTCUSDT", f"sma_cross_{next(numbers)}", "binance") if work == "insert" else CONTEXT

    def message():
        now = datetime.now(UTC)  # a date that changes: without one the server would find nothing to do
        update = {"$set": {"payload": ROW, "updatedDate": now}, "$setOnInsert": {"createDate": now, "__v": 0}}
        body = {"findAndModify": "signal-items", "query": filter_of(context()), "update": update, "upsert": True, "new": True}
        return floor.command({**body, "fields": {"_id": True}, "$db": wires.database})

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
    duel(f"single write, {work}", sides)
