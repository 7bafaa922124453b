"""What the async face costs over the synchronous calls behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from duel import Side
from material import MANY, ROW

from backtest_kit_mongo import PersistCandleAdapter, PersistMeasureAdapter, PersistSignalAdapter, aio

CALLS = range(100)
READ = aio.PersistSignalAdapter.read_signal_data


@pytest.fixture
def awaited():
    """``awaited(function)``: run a coroutine function in one loop that lives through all bursts."""
    with asyncio.Runner() as runner:
        yield lambda function: lambda: runner.run(function())


@pytest.fixture
def stored_signals(library):
    library()
    PersistSignalAdapter.write_many([(ROW, *context) for context in MANY])
    assert PersistSignalAdapter.read_many(MANY) == [ROW] * len(MANY)


def test_one_after_the_other(duel, stored_signals, awaited):
    async def ours():
        return [await READ(*MANY[number]) for number in CALLS]

    def sync():
        return [PersistSignalAdapter.read_signal_data(*MANY[number]) for number in CALLS]

    assert awaited(ours)() == sync() == [ROW] * 100
    duel("100 awaited hits, one after the other", {"ours": Side(awaited(ours), 1), "sync": Side(sync, 1)})


def test_gathered(duel, stored_signals, awaited):
    async def ours():
        return await asyncio.gather(*(READ(*context) for context in MANY))

    async def many():
        return await aio.PersistSignalAdapter.read_many(MANY)

    def sync():
        return [PersistSignalAdapter.read_signal_data(*context) for context in MANY]

    assert awaited(ours)() == awaited(many)() == sync() == [ROW] * 1000
    sides = {"ours": Side(awaited(ours), 1), "sync loop": Side(sync, 1), "read_many": Side(awaited(many), 1)}
    duel("1,000 hits gathered", sides, share=0.25)


def test_listed(duel, library, awaited):
    library()
    PersistMeasureAdapter.write_many([(ROW, "bucket", str(number), datetime.now(UTC)) for number in range(1000)])

    async def ours():
        return [key async for key in aio.PersistMeasureAdapter.list_measure_data("bucket")]

    def sync():
        return list(PersistMeasureAdapter.list_measure_data("bucket"))

    assert awaited(ours)() == sync()
    duel("1,000 keys listed by async for", {"ours": Side(awaited(ours), 1), "sync": Side(sync, 1)}, share=0.5)


def test_candles(duel, stored, awaited):
    window = (stored.symbol, stored.interval, stored.exchange, 50, stored.since)
    PersistCandleAdapter.read_candles_array(*window)

    async def ours():
        for _ in CALLS:
            await aio.PersistCandleAdapter.read_candles_array(*window)

    def sync():
        for _ in CALLS:
            PersistCandleAdapter.read_candles_array(*window)

    duel("100 awaited windows of 50 candles, blocks warm", {"ours": Side(awaited(ours), 1), "sync": Side(sync, 1)})
