"""The cost of the async API over the synchronous calls behind it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from interleaved import Side
from sample_data import MANY, ROW

from backtest_kit_mongo import PersistCandleAdapter, PersistMeasureAdapter, PersistSignalAdapter, aio

CALLS = range(100)
READ = aio.PersistSignalAdapter.read_signal_data


@pytest.fixture
def awaited():
    """``awaited(function)``: run a coroutine function in one event loop that lives through all bursts."""
    with asyncio.Runner() as runner:
        yield lambda function: lambda: runner.run(function())


@pytest.fixture
def stored_signals(library):
    library()
    PersistSignalAdapter.write_many([(ROW, *context) for context in MANY])
    assert PersistSignalAdapter.read_many(MANY) == [ROW] * len(MANY)


def test_one_after_the_other(interleaved, stored_signals, awaited):
    async def theirs():
        return [await READ(*MANY[number]) for number in CALLS]

    def sync():
        return [PersistSignalAdapter.read_signal_data(*MANY[number]) for number in CALLS]

    assert awaited(theirs)() == sync() == [ROW] * 100
    interleaved("100 hits, one after the other", {"ours": Side(sync, 1), "awaited": Side(awaited(theirs), 1)})


def test_gathered(interleaved, stored_signals, awaited):
    async def theirs():
        return await asyncio.gather(*(READ(*context) for context in MANY))

    async def many():
        return await aio.PersistSignalAdapter.read_many(MANY)

    def sync():
        return [PersistSignalAdapter.read_signal_data(*context) for context in MANY]

    assert awaited(theirs)() == awaited(many)() == sync() == [ROW] * 1000
    sides = {"ours": Side(sync, 1), "awaited, gathered": Side(awaited(theirs), 1), "awaited, one read_many": Side(awaited(many), 1)}
    interleaved("1,000 hits", sides, share=0.25)


def test_listed(interleaved, library, awaited):
    library()
    PersistMeasureAdapter.write_many([(ROW, "bucket", str(number), datetime.now(UTC)) for number in range(1000)])

    async def theirs():
        return [key async for key in aio.PersistMeasureAdapter.list_measure_data("bucket")]

    def sync():
        return list(PersistMeasureAdapter.list_measure_data("bucket"))

    assert awaited(theirs)() == sync()
    interleaved("1,000 keys listed", {"ours": Side(sync, 1), "async for": Side(awaited(theirs), 1)}, share=0.5)


def test_candles(interleaved, stored, awaited):
    window = (stored.symbol, stored.interval, stored.exchange, 50, stored.since)
    PersistCandleAdapter.read_candles_array(*window)

    async def theirs():
        for _ in CALLS:
            await aio.PersistCandleAdapter.read_candles_array(*window)

    def sync():
        for _ in CALLS:
            PersistCandleAdapter.read_candles_array(*window)

    interleaved("100 windows of 50 candles, blocks warm", {"ours": Side(sync, 1), "awaited": Side(awaited(theirs), 1)})
