"""A backtest on real servers: what it stores, and that it trades as in memory."""

from __future__ import annotations

import pytest
from paths import EXAMPLE

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    add_strategy,
    clear_strategies,
    get_candles,
    import_candles,
    load_strategy_file,
    run_backtest,
    synthetic_market,
)

pytestmark = pytest.mark.once

START = 1_677_628_800_000
WRITTEN = ("candle", "signal", "risk", "partial", "breakeven", "storage", "notification", "log", "recent", "state", "session")


@pytest.fixture(autouse=True)
def example():
    clear_strategies()
    load_strategy_file(EXAMPLE)
    yield
    clear_strategies()


def backtest():
    import_candles(synthetic_market(7, 3 * 1440, START), "BTCUSDT", exchange_name="synthetic")
    return run_backtest("BTCUSDT", "sma_cross", exchange_name="synthetic")


def test_whole_state_is_persisted(mongo):
    """Every domain that a run uses has documents, and a second run over the first one's records makes the same trades."""
    first = backtest()
    assert len(first.trades) > 5
    database = kit.get_mongo()
    assert {name for name in DOMAINS if database[DOMAINS[name].collection].estimated_document_count()} >= set(WRITTEN)
    assert kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma_cross", "synthetic") is None or first.open_trade
    rows = kit.PersistStorageAdapter.read_storage_data(True, limit=None)
    assert {row["id"] for row in rows if row["status"] == "closed"} == {trade.id for trade in first.trades}
    assert run_backtest("BTCUSDT", "sma_cross", exchange_name="synthetic").trades == first.trades


def test_trades_do_not_depend_on_the_store(mongo):
    on_servers = backtest()
    for domain in DOMAINS.values():
        adapter_of(domain).use_memory()
    assert backtest().trades == on_servers.trades


def test_another_process_reads_what_the_run_left(mongo, servers):
    """After a restart this process has nothing cached, but the records are stored."""
    result = backtest()
    kit.close()
    kit.setup(mongo)
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) >= len(result.trades)
    assert kit.PersistLogAdapter.read_log_data()
    assert len(kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "synthetic", 4320, START, START + 4320 * 60_000)) == 4320


@pytest.mark.parametrize("stores", [{}, {"session": "mongo", "state": "mongo"}], ids=["profile", "mongo"])
def test_a_second_run_sees_what_the_first_saw(settings, tmp_path, stores):
    """With versions, a strategy that looks at its own session and at the states of its signals decides the same in each run."""
    kit.setup(settings, mode="backtest", stores=stores, history=["session", "state", "recent"], CC_DUMP_DIR=tmp_path / "dump")
    clear_strategies()
    seen = []

    @add_strategy("watcher", interval="15m")
    def watcher(symbol, when):
        session = kit.PersistSessionAdapter.read_session_data("watcher", "synthetic", "backtest", symbol, True)
        recent = kit.PersistRecentAdapter.read_recent_data(symbol, "watcher", "synthetic", "backtest", True)
        state = None if recent is None else kit.PersistStateAdapter.read_state_data(recent["id"], "position")
        if recent is not None:
            assert recent.pop("runId")  # differs; no decision depends on it
        seen.append((when, session, recent, state))
        price = get_candles(symbol, "1m", 1)[-1]["close"]
        return {"position": "long", "priceTakeProfit": price * 1.002, "priceStopLoss": price * 0.998, "minuteEstimatedTime": 60}

    import_candles(synthetic_market(7, 1440, START), "BTCUSDT", exchange_name="synthetic")
    runs = []
    for _ in range(3):
        seen.clear()
        result = run_backtest("BTCUSDT", "watcher", exchange_name="synthetic")
        runs.append((result.trades, list(seen)))
    assert len(runs[0][0]) > 3
    assert runs[1] == runs[0]
    assert runs[2] == runs[0]
    assert seen[-1][3] is not None


def test_a_strategy_finds_at_once_what_its_run_wrote(mongo, monkeypatch):
    """Even if the write is pending, and the id of an older record is cached, so that a read goes straight to MongoDB."""
    monkeypatch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", 3600.0)
    slot = "BTCUSDT", "looking", "synthetic"
    seen = []

    def look(event):
        if len(seen) % 2:
            row = kit.get_mongo()["signal-items"].find_one({"strategyName": "looking"})["payload"]
        else:
            row = kit.PersistSignalAdapter.read_signal_data(*slot)
        seen.append((row["id"], event.signal["id"]))

    @add_strategy("looking", interval="5m", on_open=look)
    def looking(symbol, when):
        price = get_candles(symbol, "1m", 1)[0]["close"]
        return {"position": "long", "priceTakeProfit": price * 1.5, "priceStopLoss": price / 1.5, "minuteEstimatedTime": 20}

    import_candles(synthetic_market(7, 300, START), "BTCUSDT", exchange_name="synthetic")
    run_backtest("BTCUSDT", "looking", exchange_name="synthetic")
    assert len({told for _, told in seen}) > 5
    assert all(stored == told for stored, told in seen)
