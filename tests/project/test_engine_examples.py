"""The examples for engines of others: each runs from end to end, and what it stored is read back."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pandas
import pytest
from paths import ROOT

import backtest_kit_mongo as kit

pytestmark = pytest.mark.once

START, END = 1_677_628_800_000, 1_677_628_800_000 + 3 * 86_400_000
RUN = "sma 12/48 BTCUSDT"
FIRST, LAST = datetime.fromtimestamp(START / 1000, UTC), datetime.fromtimestamp(END / 1000, UTC)


@pytest.fixture(autouse=True)
def environment(settings, monkeypatch):
    """The examples use the servers of the environment."""
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))


def example(name):
    return str(ROOT / "examples" / f"{name}.py")


def figures(engine):
    return kit.PersistMeasureAdapter.read_measure_data(engine, RUN)["data"]


def check_loop():
    """What the loop stored is consistent with the candles and in itself; return its trades."""
    trades, stored = kit.read_trades("plain loop", RUN), figures("plain loop")
    closes = {
        candle["timestamp"] + 60_000: candle["close"]
        for candle in kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "synthetic", 3 * 1440, START, END)
    }
    assert len(trades) == stored["trades"] > 20
    assert stored["pnlPercentage"] == sum(trade["pnlPercentage"] for trade in trades)
    for trade in trades:
        assert (closes[trade["openTimestamp"]], closes[trade["closeTimestamp"]]) == (trade["priceOpen"], trade["priceClose"])
    longest = max(trade["closeTimestamp"] - trade["openTimestamp"] for trade in trades)
    assert msgspec.convert(stored["longest"], timedelta) == timedelta(milliseconds=longest)
    position = kit.PersistStateAdapter.read_state_data(RUN, "plain loop")["data"]["position"]
    assert position is None or position["openTimestamp"] > trades[-1]["closeTimestamp"]
    return trades


def test_examples_are_short():
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert {"plain_loop", "with_backtesting", "with_vectorbt"} <= names
    for name in names:
        assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 60


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of backtesting.py, with pandas 3
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_plain_loop_and_backtesting_py_beside_each_other(capsys):
    """Their rows are in one Storage, and each engine's are read alone. Repeated, both store the same."""
    for _ in range(2):
        for name in ("plain_loop", "with_backtesting"):
            runpy.run_path(example(name), run_name="__main__")
    loop, other, stored = check_loop(), kit.read_trades("backtesting.py", RUN), figures("backtesting.py")
    assert capsys.readouterr().out.count(f"{len(other)} trades, {stored['Return [%]']:.3f} %") == 2
    assert len(other) == stored["# Trades"] > 20
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) == len(loop) + len(other)
    assert all(FIRST <= trade["EntryTime"] < trade["ExitTime"] < LAST for trade in other)
    assert max(pandas.Timedelta(trade["Duration"]) for trade in other) == pandas.Timedelta(stored["Max. Trade Duration"])
    assert (stored["Start"], stored["Duration"]) == (FIRST, "P2DT86340S")
    assert len(kit.records("storage", {"payload.engine": "backtesting.py", "payload.PnL": {"$gt": 0}})) == round(
        stored["Win Rate [%]"] / 100 * len(other)
    )


@pytest.mark.skipif(importlib.util.find_spec("vectorbt") is None, reason="vectorbt is not installed; make test-engines runs this")
def test_vectorbt_trades_like_the_loop():
    """In a process of its own, since the import has effects. Without numba's compiler, which would take more than a minute."""
    runpy.run_path(example("plain_loop"), run_name="__main__")
    command = [sys.executable, "-W", "ignore", example("with_vectorbt")]
    shown = subprocess.run(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, check=True, capture_output=True, text=True).stdout
    loop, other, stored = check_loop(), kit.read_trades("vectorbt", RUN), figures("vectorbt")
    assert shown.startswith(f"{len(other)} trades, {stored['Total Return [%]']:.3f} %, winners held ")
    closed = [trade for trade in other if trade["Status"] == "Closed"]
    assert len(closed) == stored["Total Closed Trades"] == len(loop)
    assert [trade["Return"] * 100 for trade in closed] == pytest.approx([trade["pnlPercentage"] for trade in loop])
    assert closed[0]["Entry Timestamp"] == datetime.fromtimestamp(loop[0]["openTimestamp"] / 1000 - 60, UTC)  # of the candle's open
    assert stored["Period"] == "P3D"
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) == len(loop) + len(other)
