"""A backtest whose writes may be late: nobody in this process sees that, and others not for long."""

import threading
import time
from datetime import UTC, datetime

import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, Registry, ServerUnavailableError, aio
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.registry import default_registry
from backtest_kit_mongo.runner import add_risk, add_strategy, import_candles, run_backtest, run_backtests
from backtest_kit_mongo.runner.write_behind import WriteBehind

LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 20}
SLOT = "BTCUSDT", "hand", "binance"


@pytest.fixture(autouse=True)
def late(memory, monkeypatch):  # noqa: F811
    """Backtests write late; the time that a write waits is not over in a test unless it says so."""
    monkeypatch.setenv("CC_DURABILITY", "memory")
    monkeypatch.setattr("backtest_kit_mongo.runner.write_behind.LATENESS", 3600.0)


def at(minute):
    return datetime.fromtimestamp((START + minute * MINUTE) / 1000, UTC)


def hand(look=None, **callbacks):
    """One position at minute 10; ``look`` is called at every other time that the strategy is asked."""

    def get_signal(symbol, when):
        if when == at(10):
            return LONG
        return look(when) if look is not None else None

    add_strategy("hand", interval="5m", get_signal=get_signal, **callbacks)
    import_candles(flat(200), "BTCUSDT")


def writes():
    return {name: counts["writes"] for name, counts in kit.stats().items() if counts["writes"] and name != "candle"}


def test_a_position_that_came_and_went_is_never_written_as_open():
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None)
    import_candles(flat(200), "BTCUSDT")
    kit.reset_stats()
    assert len(run_backtest("BTCUSDT").trades) == 2
    found = writes()
    assert found["signal"] == 2  # the first position, as a first write is never late, and that there is none
    assert found["recent"] == 1
    assert found["state"] == 2  # of each position, as it stands in the end
    assert kit.PersistSignalAdapter.read_signal_data(*SLOT) is None
    rows = kit.PersistStorageAdapter.read_storage_data(True)
    assert [row["status"] for row in rows] == ["closed", "closed"]


READS = {
    "adapter": lambda: kit.PersistSignalAdapter.read_signal_data(*SLOT),
    "instance": lambda: kit.PersistSignalInstance(*SLOT).read_signal_data(),
    "read_many": lambda: kit.PersistSignalAdapter.read_many([SLOT])[0],
    "records": lambda: next(iter(kit.records("signal")), None),
    "rows": lambda: [row for row in kit.PersistStorageAdapter.read_storage_data(True) if row["status"] == "opened"] or None,
    "state": lambda: len(list(kit.records("state"))) or None,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("where", ["here", "thread"])
def test_whoever_reads_finds_what_was_written(read, where):
    """In a callback while the position is open: the second position, as the first write of a run is never late."""
    seen = []

    def look(event):
        if where == "here":
            seen.append(READS[read]())
            return
        reader = threading.Thread(target=lambda: seen.append(READS[read]()))
        reader.start()
        reader.join(30)

    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None, on_active_ping=look)
    import_candles(flat(200), "BTCUSDT")
    run_backtest("BTCUSDT")
    assert len(seen) == 38
    assert None not in seen


def test_an_awaited_read_finds_it_too():
    import asyncio

    seen = []
    hand(on_active_ping=lambda event: seen.append(asyncio.run(aio.PersistSignalAdapter.read_signal_data(*SLOT))))
    run_backtest("BTCUSDT")
    assert seen
    assert None not in seen


def test_a_class_of_the_users_finds_it_too():
    rows = {}

    class Kept:
        """A store of the user's."""

        def __init__(self, *context):
            self.context = context

        def read_recent_data(self):
            return rows.get(self.context)

        def write_recent_data(self, data, when):
            rows[self.context] = data

    default_registry.PersistRecentAdapter.use_persist_recent_adapter(Kept)
    context = (*SLOT, "backtest", True)
    seen = []
    add_strategy(
        "hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None,
        on_open=lambda event: seen.append((kit.PersistRecentAdapter.read_recent_data(*context)["id"], event.signal["id"])),
    )  # fmt: skip
    import_candles(flat(200), "BTCUSDT")
    run_backtest("BTCUSDT")
    assert len(seen) == 2
    assert all(stored == told for stored, told in seen)


def test_runs_side_by_side_find_what_the_others_wrote():
    found = {}

    @add_strategy("writer", interval="5m")
    def writer(symbol, when):
        return LONG if when in (at(10), at(100)) else None

    @add_strategy("reader", interval="1m")
    def reader(symbol, when):
        found[when] = kit.PersistSignalAdapter.read_signal_data(symbol, "writer", "binance")

    import_candles(flat(200), "BTCUSDT")
    run_backtests(["BTCUSDT"], ["writer", "reader"])
    assert {when for when, row in found.items() if row is not None} == {
        at(minute) for first in (10, 100) for minute in range(first, first + 20)
    }


def test_what_nobody_reads_is_there_soon(monkeypatch, tmp_path):
    """As another process sees it: a second registry on the same files."""
    monkeypatch.setattr("backtest_kit_mongo.runner.write_behind.LATENESS", 0.1)
    one, two = Registry(), Registry()
    for registry in (one, two):
        registry.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=tmp_path)
    seen = []

    def ping(event):
        time.sleep(0.02)
        seen.append(two.PersistSignalAdapter.read_signal_data(*SLOT))

    add_strategy("hand", interval="5m", on_active_ping=ping, get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None)
    import_candles(flat(200), "BTCUSDT", registry=one)
    run_backtest("BTCUSDT", registry=one)
    first, last = seen[0], seen[-1]
    assert first["id"] != last["id"]  # the second position was there before it ended
    assert two.PersistSignalAdapter.read_signal_data(*SLOT) is None
    for registry in (one, two):
        registry.close()


def test_a_registry_without_a_run_has_nothing_to_write_first():
    hand(lambda when: kit.PersistSignalAdapter.read_signal_data(*SLOT) and None)
    run_backtest("BTCUSDT")
    assert default_registry._late == ()
    assert [binding.settle for binding in default_registry.bindings.values()] == [None] * len(DOMAINS)


def test_a_run_that_is_cut_off_leaves_nothing_to_write():
    def look(when):
        if when == at(60):
            raise KeyboardInterrupt

    hand(look)
    with pytest.raises(KeyboardInterrupt):
        run_backtest("BTCUSDT")
    assert default_registry._late == ()


def broken(monkeypatch, error):
    """Let the Storage contract refuse every write from now on."""

    def refuse(*arguments):
        raise error

    monkeypatch.setattr(default_registry.PersistStorageAdapter, "write_storage_data", refuse, raising=False)


@pytest.mark.parametrize("error", [ServerUnavailableError("storage: gone"), InvalidValueError("storage: a live record")])
def test_what_cannot_be_written_is_not_blamed_on_the_strategy(monkeypatch, error):
    """The strategy looks into the database, and what waits cannot be written: the run ends with that error, not with a StrategyError."""

    def look(when):
        if when == at(60):
            broken(monkeypatch, error)
            kit.PersistSignalAdapter.read_signal_data(*SLOT)

    hand(look)
    with pytest.raises(type(error)) as caught:
        run_backtest("BTCUSDT")
    assert caught.value is error
    assert default_registry._late == ()


def test_a_strategy_that_catches_that_error_does_not_hide_it(monkeypatch):
    error = ServerUnavailableError("storage: gone")

    def look(when):
        if when == at(60):
            broken(monkeypatch, error)
            with pytest.raises(ServerUnavailableError):
                kit.PersistSignalAdapter.read_signal_data(*SLOT)

    hand(look)
    with pytest.raises(ServerUnavailableError):
        run_backtest("BTCUSDT")


def test_a_check_of_a_risk_may_read_while_another_run_writes():
    """Two runs in threads, whose checks read what the other one writes: neither waits for the other for ever."""
    done = []

    def check(request):
        kit.PersistRiskAdapter.read_position_data("all", "binance", request.when_ms)
        time.sleep(0.001)

    add_risk("all", validate=check)
    names = ["one", "two"]
    for name in names:
        add_strategy(name, interval="5m", risk_name="all", get_signal=lambda symbol, when: LONG)
    import_candles(flat(3000), "BTCUSDT")
    threads = [threading.Thread(target=lambda name=name: done.append(run_backtest("BTCUSDT", name)), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [len(result.trades) for result in done] == [120, 120]
    assert kit.PersistRiskAdapter.read_position_data("all", "binance", START) == []


def test_the_time_that_a_write_waits(monkeypatch):
    monkeypatch.setattr("backtest_kit_mongo.runner.write_behind.LATENESS", 0.2)
    registry = Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    out = WriteBehind(registry, {"state": registry.adapter("state")}, ())
    out.put("state", "s", {"id": "s_b", "data": 1, "when": START}, "s", "b", START)
    store = registry.bindings["state"].store

    def stored():
        return store.read(DOMAINS["state"], [("s", "b")])[0]

    out.flush_when_due()
    assert stored() is None
    time.sleep(0.25)
    assert stored() is None  # it is the run that writes, when it comes by
    out.flush_when_due()
    assert stored() is not None
    registry.close()
