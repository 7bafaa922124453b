"""Write-behind of a backtest: this process always reads what was written, and other processes read it soon."""

import os
import threading
import time
from contextvars import copy_context
from datetime import UTC, datetime

import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, Registry, ServerUnavailableError, aio
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import add_risk, add_strategy, import_candles, run_backtest, run_backtests
from backtest_kit_mongo.runner.engine.write_behind import PendingWrites, WriteBehind
from backtest_kit_mongo.simulation import SCOPE

pytestmark = pytest.mark.once

LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 20}
SLOT = "BTCUSDT", "hand", "binance"


@pytest.fixture(autouse=True)
def late(memory, monkeypatch):  # noqa: F811
    """Backtests use write-behind; the maximum delay does not pass in a test unless the test sets it."""
    monkeypatch.setenv("CC_DURABILITY", "memory")
    monkeypatch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", 3600.0)


def at(minute):
    return datetime.fromtimestamp((START + minute * MINUTE) / 1000, UTC)


def hand(look=None, **callbacks):
    """Register a strategy with one position at minute 10; ``look`` is called whenever it is asked at another time."""

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
    written = writes()
    assert written["signal"] == 2  # the first position, as a first write is never delayed, and null after the last one
    assert written["recent"] == 1
    assert written["state"] == 2  # the final state of each position
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
    """Callbacks read while a position is open: the second position, as the first write of a run is never delayed."""
    seen = []

    def look(event):
        if where == "here":
            seen.append(READS[read]())
            return
        context = copy_context()
        reader = threading.Thread(target=lambda: seen.append(context.run(READS[read])))
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
        """A user's store."""

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


def test_what_a_class_of_the_users_keeps_is_written_at_once():
    """A user's class may read or lock in ways that nobody else knows."""
    written = []

    class Kept:
        """A user's store."""

        def __init__(self, *context):
            pass

        def read_recent_data(self):
            return None

        def write_recent_data(self, data, when):
            written.append(when)

    default_registry.PersistRecentAdapter.use_persist_recent_adapter(Kept)
    seen = []
    hand(on_open=lambda event: seen.append(len(written)), on_close=lambda event: seen.append(len(written)))
    run_backtest("BTCUSDT")
    assert seen == [1, 2]


def test_runs_side_by_side_find_what_the_others_wrote():
    collected = {}

    @add_strategy("writer", interval="5m")
    def writer(symbol, when):
        return LONG if when in (at(10), at(100)) else None

    @add_strategy("reader", interval="1m")
    def reader(symbol, when):
        collected[when] = kit.PersistSignalAdapter.read_signal_data(symbol, "writer", "binance")

    import_candles(flat(200), "BTCUSDT")
    run_backtests(["BTCUSDT"], ["writer", "reader"])
    assert {when for when, row in collected.items() if row is not None} == {
        at(minute) for first in (10, 100) for minute in range(first, first + 20)
    }


def test_what_nobody_reads_is_there_soon(monkeypatch, tmp_path):
    """Another process, here a second registry on the same files, sees it soon."""
    monkeypatch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", 0.1)
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
    assert first["id"] != last["id"]  # the second position was stored before it ended
    assert two.PersistSignalAdapter.read_signal_data(*SLOT) is None
    for registry in (one, two):
        registry.close()


def test_a_run_inside_of_a_run_finds_what_the_outer_one_wrote():
    """A strategy may try something out before it decides."""
    seen = []

    @add_strategy("inner", interval="5m")
    def inner(symbol, when):
        seen.append(kit.PersistSignalAdapter.read_signal_data(*SLOT)["id"])

    def look(event):
        run_backtest("BTCUSDT", "inner", end_ms=START + 10 * MINUTE)
        assert set(seen) == {event.signal["id"]}
        seen.clear()

    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None, on_open=look)
    import_candles(flat(200), "BTCUSDT")
    assert len(run_backtest("BTCUSDT", "hand").trades) == 2


def test_other_threads_do_not_write_for_the_run():
    """Otherwise they would get its errors and wait for its locks."""
    seen = []

    def look(event):
        reader = threading.Thread(target=lambda: seen.append(kit.PersistSignalAdapter.read_signal_data(*SLOT)))
        reader.start()
        reader.join(30)

    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None, on_active_ping=look)
    import_candles(flat(200), "BTCUSDT")
    run_backtest("BTCUSDT")
    assert len({row["id"] for row in seen}) == 1  # the first one, which is never delayed


def files(folder):
    """Return a registry on the files in ``folder``."""
    registry = Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "file"), CC_DUMP_DIR=folder)
    return registry


def test_a_forked_child_writes_nothing_of_the_run(tmp_path):
    one, two = files(tmp_path), files(tmp_path)
    children = []

    def fork(event):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(read, 1)  # until the run is over
            one.PersistMeasureAdapter.read_measure_data("b", "k")
            os._exit(0)
        children.append((child, write))

    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if when in (at(10), at(100)) else None, on_open=fork)
    import_candles(flat(200), "BTCUSDT", registry=one)
    run_backtest("BTCUSDT", registry=one)
    for child, write in children:
        os.write(write, b"x")
        assert os.waitpid(child, 0)[1] == 0
        os.close(write)
    assert two.PersistSignalAdapter.read_signal_data(*SLOT) is None
    assert [row["status"] for row in two.PersistStorageAdapter.read_storage_data(True)] == ["closed", "closed"]
    for registry in (one, two):
        registry.close()


def test_what_waits_goes_to_the_store_in_which_the_run_was(tmp_path):
    """A callback moves Storage to another store: earlier writes reach the first one."""
    one, two = files(tmp_path), files(tmp_path)
    add_strategy(
        "hand", interval="5m", get_signal=lambda symbol, when: LONG if when == at(10) else None,
        on_close=lambda event: one.PersistStorageAdapter.use_memory(),
    )  # fmt: skip
    import_candles(flat(200), "BTCUSDT", registry=one)
    run_backtest("BTCUSDT", registry=one)
    assert [row["status"] for row in two.PersistStorageAdapter.read_storage_data(True)] == ["closed"]
    for registry in (one, two):
        registry.close()


def test_domains_with_history_get_every_version():
    def versions(durability):
        registry = Registry()
        registry.setup(stores=dict.fromkeys(DOMAINS, "memory"), history=["risk", "session"], CC_DURABILITY=durability)
        import_candles(flat(400), "BTCUSDT", registry=registry)
        trades = run_backtest("BTCUSDT", registry=registry).trades
        collected = []
        for minute in range(0, 400, 5):
            with kit.simulated_time(START + minute * MINUTE):
                risk = registry.PersistRiskAdapter.read_position_data("hand", "binance", START + minute * MINUTE)
                session = registry.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True)
            collected.append(([key for key, _ in risk], None if session is None else session["data"]))
        registry.close()
        return len(trades), collected

    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG)
    journal, late_ones = versions("journal"), versions("memory")
    assert late_ones == journal
    assert journal[0] > 10
    assert len({str(session) for _, session in journal[1]}) > 10


def test_rows_stand_in_the_order_in_which_they_came():
    """Rows of runs side by side keep their order, however long they are pending."""
    seen = {}
    for lateness in (3600.0, 0.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", lateness)
            registry = Registry()
            registry.setup(stores=dict.fromkeys(DOMAINS, "memory"), CC_DURABILITY="memory")
            for symbol in ("AAA", "BBB"):
                import_candles(flat(400), symbol, registry=registry)
            add_strategy(f"hand{lateness}", interval="5m", get_signal=lambda symbol, when: LONG)
            run_backtests(["AAA", "BBB"], [f"hand{lateness}"], registry=registry)
            rows = registry.PersistNotificationAdapter.read_notification_data(True, limit=20)
            seen[lateness] = [(row["type"], row["symbol"], row["timestamp"]) for row in rows]
            registry.close()
    first, second = seen.values()
    assert first == second
    assert len({symbol for _, symbol, _ in first[:4]}) == 2


def test_a_run_beside_a_slow_one_does_not_wait_for_it(monkeypatch, tmp_path):
    """Nothing in its own run follows the end of the position: a minute of the other run writes it."""
    monkeypatch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", 0.1)
    one, two = files(tmp_path), files(tmp_path)
    seen = []

    @add_strategy("slow", interval="1m")
    def slow(symbol, when):
        time.sleep(0.01)
        seen.append(two.PersistSignalAdapter.read_signal_data(*SLOT) is not None)

    add_strategy("hand", interval="1h", get_signal=lambda symbol, when: LONG if when == at(60) else None)
    import_candles(flat(119), "BTCUSDT", registry=one)
    run_backtests(["BTCUSDT"], ["hand", "slow"], registry=one)
    assert True in seen[60:80]
    assert seen[-10:] == [False] * 10  # it ended at minute 80, 0.4 seconds ago
    for registry in (one, two):
        registry.close()


def test_a_registry_without_a_run_has_nothing_to_write_first():
    hand(lambda when: kit.PersistSignalAdapter.read_signal_data(*SLOT) and None)
    run_backtest("BTCUSDT")
    assert SCOPE.get().flush is None


def test_a_run_that_is_cut_off_leaves_nothing_to_write():
    def look(when):
        if when == at(60):
            raise KeyboardInterrupt

    hand(look)
    with pytest.raises(KeyboardInterrupt):
        run_backtest("BTCUSDT")
    assert SCOPE.get().flush is None


def broken(monkeypatch, error, name="storage"):
    """Make a contract reject every write from now on."""

    def refuse(*arguments):
        raise error

    monkeypatch.setattr(default_registry.adapter(name), f"write_{name}_data", refuse, raising=False)


@pytest.mark.parametrize("error", [ServerUnavailableError("storage: gone"), InvalidValueError("storage: a live record")])
def test_what_cannot_be_written_is_not_blamed_on_the_strategy(monkeypatch, error):
    """The strategy reads the database and pending writes fail: the run ends with that error, not with a StrategyError."""

    def look(when):
        if when == at(60):
            broken(monkeypatch, error)
            kit.PersistSignalAdapter.read_signal_data(*SLOT)

    hand(look)
    with pytest.raises(type(error)) as caught:
        run_backtest("BTCUSDT")
    assert caught.value is error
    assert SCOPE.get().flush is None


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


def test_a_failed_write_is_not_the_error_of_a_risk_check():
    error = ServerUnavailableError("storage: gone")

    def check(request):
        if request.when_ms >= START + 60 * MINUTE:
            with pytest.MonkeyPatch.context() as patch:  # for a moment
                broken(patch, error)
                kit.PersistSignalAdapter.read_signal_data(*SLOT)

    add_risk("all", validate=check)
    add_strategy("hand", interval="5m", risk_name="all", get_signal=lambda symbol, when: LONG)
    import_candles(flat(200), "BTCUSDT")
    with pytest.raises(ServerUnavailableError) as caught:
        run_backtest("BTCUSDT")
    assert caught.value is error


def test_a_failed_write_is_no_error_of_the_run_beside(monkeypatch):
    """It is unclear which run the record belongs to, so the error ends them all."""
    error = InvalidValueError("storage: a live record")

    @add_strategy("reader", interval="5m")
    def reader(symbol, when):
        if when == at(60):
            broken(monkeypatch, error)
            try:
                kit.PersistMeasureAdapter.read_measure_data("b", "k")
            except InvalidValueError as first:
                raise RuntimeError("no measure") from first

    hand()
    with pytest.raises(InvalidValueError) as caught:
        run_backtests(["BTCUSDT"], ["reader", "hand"])
    assert caught.value is error
    assert SCOPE.get().flush is None


@pytest.mark.parametrize("name", ["signal", "state", "storage"])
def test_what_could_not_be_written_is_written_later(name):
    """The strategy reads while the server is down for a moment, and ignores the error."""
    error = ServerUnavailableError("storage: gone")
    missed = []

    def look(when):
        if when == at(60):
            with pytest.MonkeyPatch.context() as patch:
                broken(patch, error, name)
                with pytest.raises(ServerUnavailableError):
                    kit.PersistSignalAdapter.read_signal_data(*SLOT)
            missed.append([row["status"] for row in kit.PersistStorageAdapter.read_storage_data(True)])

    hand(look)
    run_backtest("BTCUSDT")
    assert missed == [["closed"]]
    assert len(list(kit.records("state"))) == 1
    types = [row["type"] for row in kit.PersistNotificationAdapter.read_notification_data(True)]
    assert sorted(types) == sorted(set(types))
    assert {"signal.opened", "signal.closed"} <= set(types)


def test_a_check_of_a_risk_may_read_while_another_run_writes():
    """Two runs in threads, with checks that read what the other one writes, never deadlock."""
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
    monkeypatch.setattr("backtest_kit_mongo.runner.engine.write_behind.MAX_DELAY_SECONDS", 2.0)
    registry = Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    out = WriteBehind({"state": registry.adapter("state")}, PendingWrites(registry), "run")
    out.put("state", "s", {"id": "s_b", "data": 1, "when": START}, "s", "b", START)
    store = registry.binding("state").store

    def stored():
        return store.read(DOMAINS["state"], [("s", "b")])[0]

    out.flush_when_due()
    assert stored() is None
    time.sleep(2.05)
    assert stored() is None  # the run itself writes, at its next check
    out.flush_when_due()
    assert stored() is not None
    registry.close()
