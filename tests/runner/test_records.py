"""What a run writes through the contracts: shapes that the TypeScript framework reads, in an order that survives a crash."""

from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest
from hand_market import MINUTE, START, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from paths import EXAMPLE
from recorder import Recorder

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.runner import (
    BadSignalError,
    StrategyError,
    add_strategy,
    import_candles,
    load_strategy_file,
    run_backtest,
    synthetic_market,
)
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.engine.rows import RunContext, derive_id

pytestmark = pytest.mark.once

CONTEXT = ("BTCUSDT", "hand", "binance")
LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60, "note": "because"}


def eventful():
    """Entry at 100 (minute 10), up to 103, down to 98, and the target in candle 40."""
    market = flat(120)
    for column in ("open", "high", "low", "close"):
        market[column][12:20] = 103.0
        market[column][25:32] = 98.0
    market["high"][40] = 111.0
    return market


def once_at(minute, signal, **options):
    when_ms = START + minute * MINUTE
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: signal if when.timestamp() * 1000 == when_ms else None, **options)


def run(market, **options):
    import_candles(market, "BTCUSDT")
    return run_backtest("BTCUSDT", **options)


# ---------------------------------------------------------------- the whole life of a position


def test_signal_row_while_open_and_null_after(monkeypatch):
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    result = run(eventful())
    (opened, closed) = recorder.of("signal")
    assert closed == [None, *CONTEXT]
    assert opened[1:] == list(CONTEXT)
    row = msgspec.convert(opened[0], payloads.SignalRow)
    assert row.id == result.trades[0].id
    assert (row.symbol, row.strategy_name, row.exchange_name, row.frame_name) == (*CONTEXT, "backtest")
    assert (row.position, row.price_open, row.price_take_profit, row.price_stop_loss) == ("long", 100.0, 110.0, 95.0)
    assert (row.minute_estimated_time, row.cost, row.note, row.is_scheduled) == (60, 100.0, "because", False)
    assert row.scheduled_at == row.pending_at == row.timestamp == START + 10 * MINUTE
    assert (row.peak.price, row.fall.price, row.peak.timestamp) == (100.0, 100.0, START + 10 * MINUTE)
    assert [(entry.price, entry.cost, entry.timestamp) for entry in row.entry] == [(100.0, 100.0, START + 10 * MINUTE)]
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) is None


def test_one_row_per_open_and_one_null_per_close_in_turns(monkeypatch):
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: {**LONG, "minuteEstimatedTime": 3})
    recorder = Recorder(monkeypatch)
    result = run(flat(100))
    rows = [arguments[0] for arguments in recorder.of("signal")]
    assert [row and row["id"] for row in rows] == [item for trade in result.trades for item in (trade.id, None)]
    assert len(result.trades) > 5


def test_infinity_survives_in_signal_and_risk():
    once_at(10, {**LONG, "minuteEstimatedTime": float("inf")})
    run(flat(60))
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT)["minuteEstimatedTime"] == float("inf")
    ((_, held),) = kit.PersistRiskAdapter.read_position_data("hand", "binance", START)
    assert held["minuteEstimatedTime"] == float("inf")


def test_risk_holds_the_position_while_it_is_open(monkeypatch):
    once_at(10, LONG, risk_name="all")
    recorder = Recorder(monkeypatch)
    run(eventful())
    (opened, closed) = recorder.of("risk")
    assert opened[1:] == ["all", "binance", START + 10 * MINUTE]
    assert closed == [[], "all", "binance", START + 41 * MINUTE]
    ((key, held),) = msgspec.convert(opened[0], payloads.RiskData)
    assert key == "hand_binance_BTCUSDT"
    assert (held.strategy_name, held.exchange_name, held.frame_name, held.symbol) == ("hand", "binance", "backtest", "BTCUSDT")
    assert (held.position, held.price_open, held.price_stop_loss, held.price_take_profit) == ("long", 100.0, 95.0, 110.0)
    assert (held.minute_estimated_time, held.open_timestamp) == (60, START + 10 * MINUTE)


def test_positions_of_others_in_the_same_risk_record_stay():
    once_at(10, LONG, risk_name="all")
    other = ["live_binance_ETHUSDT", {"strategyName": "live", "frameName": "", "symbol": "ETHUSDT"}]
    kit.PersistRiskAdapter.write_position_data([other], "all", "binance", START)
    run(flat(60))
    stored = kit.PersistRiskAdapter.read_position_data("all", "binance", START)
    assert [key for key, _ in stored] == ["live_binance_ETHUSDT", "hand_binance_BTCUSDT"]
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) is not None
    run_backtest("BTCUSDT", end_ms=START + 8 * MINUTE)  # trades nothing, and clears what the first run left open
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) is None
    assert kit.PersistRiskAdapter.read_position_data("all", "binance", START) == [other]


def test_levels_of_progress_and_breakeven(monkeypatch):
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    result = run(eventful())
    (trade,) = result.trades
    partial = recorder.of("partial")
    assert {tuple(arguments[1:5]) for arguments in partial} == {("BTCUSDT", "hand", trade.id, "binance")}
    levels = [msgspec.convert(arguments[0], payloads.PartialData) for arguments in partial]
    assert levels[-1] == {}
    assert all(list(level) == [trade.id] for level in levels[:-1])
    reached = [(level[trade.id].profit_levels, level[trade.id].loss_levels) for level in levels[:-1]]
    # The price moves by a fifth of the step with each candle: 6, 12, 18, 24, 30 % of the way to 110, then 8, 16, 24, 32, 40 % to 95.
    up = [10, 20, 30]
    assert reached == [([10], []), ([10, 20], []), (up, []), (up, [10]), (up, [10, 20]), (up, [10, 20, 30]), (up, [10, 20, 30, 40])]
    assert [arguments[5] for arguments in partial] == [START + minute * MINUTE for minute in (14, 16, 17, 27, 28, 29, 30, 41)]
    assert kit.PersistPartialAdapter.read_partial_data("BTCUSDT", "hand", trade.id, "binance", START) == {}

    reached, cleared = recorder.of("breakeven")
    assert msgspec.convert(reached[0], payloads.BreakevenData)[trade.id].reached is True
    assert cleared[0] == {}
    # The price is 100.6 after one candle of 103, above the 0.4 percent of costs.
    assert reached[1:] == ["BTCUSDT", "hand", trade.id, "binance", START + 13 * MINUTE]
    assert kit.PersistBreakevenAdapter.read_breakeven_data("BTCUSDT", "hand", trade.id, "binance", START) == {}


def test_storage_and_recent_hold_the_outcome():
    once_at(10, LONG)
    (trade,) = run(eventful()).trades
    (row,) = kit.PersistStorageAdapter.read_storage_data(True, type=payloads.StorageSignalRow)
    assert (row.id, row.status, row.close_reason) == (trade.id, "closed", "take_profit")
    assert (row.current_price, row.close_timestamp) == (110.0, START + 41 * MINUTE)
    assert (row.created_at, row.updated_at) == (START + 10 * MINUTE, START + 41 * MINUTE)
    assert row.priority > START
    assert (row.original_price_open, row.original_price_take_profit, row.original_price_stop_loss) == (100.0, 110.0, 95.0)
    assert (row.partial_executed, row.total_entries, row.total_partials) == (0, 1, 0)
    assert row.pnl.pnl_percentage == trade.pnl_percentage
    assert (row.pnl.price_open, row.pnl.price_close, row.pnl.pnl_entries) == (100.0, 110.0, 100.0)
    assert row.pnl.pnl_cost == pytest.approx(trade.pnl_percentage)
    assert (row.peak_profit.price_close, row.max_drawdown.price_close) == (110.0, 98.0)
    assert (row.peak.price, row.peak.timestamp) == (110.0, START + 41 * MINUTE)
    assert row.fall.price == 98.0
    recent = kit.PersistRecentAdapter.read_recent_data(*CONTEXT, "backtest", True, type=payloads.PublicSignalRow)
    assert recent.id == trade.id
    assert recent.pnl == row.pnl
    assert kit.PersistStorageAdapter.read_storage_data(False) == []


def test_storage_of_an_open_position():
    once_at(10, LONG)
    run(flat(60))
    (row,) = kit.PersistStorageAdapter.read_storage_data(True, type=payloads.StorageSignalRow)
    assert (row.status, row.current_price, row.close_reason) == ("opened", 100.0, msgspec.UNSET)


def test_notifications_tell_the_story_in_order():
    once_at(10, LONG)
    (trade,) = run(eventful()).trades
    told = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    kinds = [note.type for note in told]
    assert kinds[0] == "signal.opened"
    assert kinds[-1] == "signal.closed"
    assert kinds.count("breakeven.available") == 1
    assert [note.level for note in told if note.type == "partial_profit.available"] == [10, 20, 30]
    assert [note.level for note in told if note.type == "partial_loss.available"] == [10, 20, 30, 40]
    assert len({note.id for note in told}) == len(told) == 10
    assert all(before.timestamp <= after.timestamp for before, after in pairwise(told))
    assert {(note.signal_id, note.symbol, note.strategy_name, note.exchange_name, note.backtest) for note in told} == {
        (trade.id, *CONTEXT, True)
    }
    closed = told[-1]
    assert (closed.price_close, closed.close_reason, closed.duration, closed.note) == (110.0, "take_profit", 31.0, "because")
    assert (closed.pnl_percentage, closed.peak_profit_price_close, closed.max_drawdown_price_close) == (trade.pnl_percentage, 110.0, 98.0)
    assert (closed.pending_at, closed.scheduled_at, closed.created_at) == (START + 10 * MINUTE, START + 10 * MINUTE, START + 41 * MINUTE)


def test_log_state_and_session():
    once_at(10, LONG)
    result = run(eventful())
    (trade,) = result.trades
    log = kit.PersistLogAdapter.read_log_data(type=payloads.LogEntry)
    assert [entry.topic for entry in log] == ["run.started", "signal.opened", "signal.closed", "run.finished"]
    assert [entry.timestamp for entry in log] == [START + minute * MINUTE for minute in (0, 10, 41, 120)]
    entry = log[1]
    assert (entry.type, entry.created_at) == ("info", "2023-03-01T00:10:00Z")
    assert (entry.method_context.strategy_name, entry.method_context.exchange_name, entry.method_context.frame_name) == (
        "hand",
        "binance",
        "backtest",
    )
    assert entry.execution_context == payloads.ExecutionContext(
        symbol="BTCUSDT", when=datetime(2023, 3, 1, 0, 10, tzinfo=UTC), backtest=True
    )

    state = kit.PersistStateAdapter.read_state_data(trade.id, "position", type=payloads.StateData)
    assert (state.id, state.when) == (f"{trade.id}_position", START + 41 * MINUTE)
    assert (state.data["status"], state.data["peakPrice"], state.data["fallPrice"]) == ("closed", 110.0, 98.0)
    assert (state.data["profitLevels"], state.data["lossLevels"], state.data["breakeven"]) == ([10, 20, 30], [10, 20, 30, 40], True)

    session = kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True, type=payloads.SessionData)
    assert (session.id, session.when) == ("BTCUSDT:hand:binance:backtest:backtest", START + 120 * MINUTE)
    assert (session.data["status"], session.data["trades"], session.data["wins"]) == ("finished", 1, 1)
    assert session.data["pnlPercentage"] == trade.pnl_percentage
    assert (session.data["startTimestamp"], session.data["endTimestamp"]) == (START, START + 120 * MINUTE)


def test_a_short_is_told_as_a_short():
    once_at(10, {"position": "short", "priceTakeProfit": 98.0, "priceStopLoss": 104.0, "minuteEstimatedTime": 60})
    (trade,) = run(eventful()).trades
    (row,) = kit.PersistStorageAdapter.read_storage_data(True, type=payloads.StorageSignalRow)
    assert (trade.close_reason, trade.close_timestamp) == ("take_profit", START + 26 * MINUTE)
    assert (row.position, row.fall.price, row.peak.price) == ("short", 103.0, 98.0)
    assert row.max_drawdown.pnl_percentage < -3
    assert row.peak_profit == row.pnl
    assert row.note is msgspec.UNSET


# ---------------------------------------------------------------- order, crash, restart


def test_a_step_is_persisted_before_it_is_told_and_the_open_record_goes_last(monkeypatch):
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    market = flat(60)
    market["high"][20] = 110.0
    run(market)
    assert recorder.order == [
        "session", "log",
        "risk", "signal", "storage", "recent", "state", "notification", "log",
        "storage", "recent", "state", "risk", "signal", "notification", "session", "log",
        "session", "log",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fail_at",
    [("risk", 0), ("signal", 0), ("storage", 0), ("recent", 3), ("state", 2), ("partial", 1), ("breakeven", 0), ("storage", 5), ("risk", 3),
     ("signal", 1), ("signal", 4), ("notification", 6), ("session", 2), ("log", 7)],
)  # fmt: skip
def test_after_a_crash_at_any_write_the_same_run_gives_the_same_trades(monkeypatch, fail_at):
    load_strategy_file(EXAMPLE)
    market = synthetic_market(7, 4000, START)
    clean = run(market)
    assert len(clean.trades) >= 5
    use_memory()
    with monkeypatch.context() as patch:
        Recorder(patch, fail_at)
        with pytest.raises(kit.ServerUnavailableError, match=f"{fail_at[0]} is gone"):
            run(market)
    again = run_backtest("BTCUSDT")
    assert again.trades == clean.trades
    assert again.open_trade == clean.open_trade
    stored = {row["id"]: row for row in kit.PersistStorageAdapter.read_storage_data(True)}
    assert {trade.id for trade in clean.trades} <= set(stored)
    assert all(stored[trade.id]["status"] == "closed" for trade in clean.trades)
    assert [row["frameName"] for _, row in kit.PersistRiskAdapter.read_position_data("sma_cross", "binance", START)] == (
        ["backtest"] if clean.open_trade else []
    )


def test_nothing_is_open_if_it_could_not_be_persisted(monkeypatch):
    once_at(10, LONG)
    recorder = Recorder(monkeypatch, ("risk", 0))
    with pytest.raises(kit.ServerUnavailableError):
        run(eventful())
    assert recorder.order == ["session", "log"]


def test_rows_of_two_runs_of_the_same_are_the_same_rows():
    once_at(10, LONG)
    run(eventful())
    before = [row["id"] for row in kit.PersistNotificationAdapter.read_notification_data(True)]
    lines = kit.PersistLogAdapter.read_log_data()
    run_backtest("BTCUSDT")
    assert [row["id"] for row in kit.PersistNotificationAdapter.read_notification_data(True)] == before
    assert kit.PersistLogAdapter.read_log_data() == lines
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) == 1


def test_ids_of_names_that_hold_separators_differ():
    contexts = [
        RunContext(symbol, strategy, exchange, frame, "risk", START, START + MINUTE, Costs())
        for symbol, strategy, exchange, frame in [
            ("a", "b:c", "d", "e"),
            ("a", "b", "c:d", "e"),
            ("a", "b", "d", "e"),
            ("b", "a", "d", "e"),
            ("a:b", "c", "d", "e"),
        ]
    ]
    ids = [derive_id(context, part) for context in contexts for part in (START, str(START), START + MINUTE)]
    assert len(set(ids)) == 15
    assert ids == [derive_id(context, part) for context in contexts for part in (START, str(START), START + MINUTE)]


# ---------------------------------------------------------------- live positions are never overwritten


def test_an_open_live_signal_is_never_overwritten():
    live = {"id": "live-1", "frameName": "", "symbol": "BTCUSDT", "minuteEstimatedTime": 5}
    kit.PersistSignalAdapter.write_signal_data(live, *CONTEXT)
    once_at(10, LONG)
    with pytest.raises(kit.InvalidValueError, match=r"'hand' has an open live position in BTCUSDT .*live-1(.|\n)*another database"):
        run(eventful())
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) == live
    assert kit.PersistLogAdapter.read_log_data() == []


def test_an_open_live_risk_slot_is_never_overwritten():
    live = [["hand_binance_BTCUSDT", {"strategyName": "hand", "frameName": "", "minuteEstimatedTime": 5}]]
    kit.PersistRiskAdapter.write_position_data(live, "hand", "binance", START)
    once_at(10, LONG)
    with pytest.raises(kit.InvalidValueError, match=r"risk 'hand' on binance holds an open live position(.|\n)*another database"):
        run(eventful())
    assert kit.PersistRiskAdapter.read_position_data("hand", "binance", START) == live
    assert kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True) is None


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("get_signal", "error", "name", "message"),
    [
        (lambda symbol, when: 1 // 0, StrategyError, "ZeroDivisionError", "raised ZeroDivisionError"),
        (
            lambda symbol, when: {"position": "long"},
            BadSignalError,
            "BadSignalError",
            "returned an invalid signal: the signal's priceTakeProfit is missing",
        ),
    ],
)
def test_a_failing_strategy_is_written_to_log_notification_and_session(get_signal, error, name, message):
    add_strategy("hand", interval="5m", get_signal=get_signal)
    with pytest.raises(error):
        run(flat(60))
    (told,) = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    assert told.type == "error.critical"
    assert message in told.message
    assert told.error["name"] == name
    assert told.timestamp == START + 5 * MINUTE
    line = kit.PersistLogAdapter.read_log_data()[-1]
    assert (line["type"], line["topic"], line["timestamp"]) == ("warn", "run.failed", START + 5 * MINUTE)
    assert message in line["args"][0]["message"]
    assert kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True)["data"]["status"] == "failed"
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) is None


def test_an_error_that_cannot_be_written_is_still_the_error(monkeypatch):
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: 1 // 0)
    Recorder(monkeypatch, ("log", 1))
    with pytest.raises(StrategyError, match="ZeroDivisionError") as caught:
        run(flat(60))
    assert caught.value.__notes__ == ["this could not be written to Log and Notification: log is gone"]


def test_contexts_do_not_mix():
    """Two symbols, two strategies, two exchanges and two frames in one store."""
    for name in ("one", "two"):
        add_strategy(name, get_signal=lambda symbol, when: LONG if when.timestamp() * 1000 == START + 10 * MINUTE else None)
    market = eventful()
    contexts = [(symbol, exchange) for symbol in ("BTCUSDT", "ETHUSDT") for exchange in ("binance", "kraken")]
    trades = {}
    for symbol, exchange in contexts:
        import_candles(market, symbol, exchange_name=exchange)
        for name in ("one", "two"):
            for frame in ("a", "b"):
                result = run_backtest(symbol, name, exchange_name=exchange, frame_name=frame)
                trades[symbol, name, exchange, frame] = result.trades[0].id
    assert len(set(trades.values())) == 16
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) == 16
    for (symbol, name, exchange, frame), signal_id in trades.items():
        assert kit.PersistRecentAdapter.read_recent_data(symbol, name, exchange, frame, True)["id"] == signal_id
        session = kit.PersistSessionAdapter.read_session_data(name, exchange, frame, symbol, True)
        assert session["id"] == f"{symbol}:{name}:{exchange}:{frame}:backtest"
