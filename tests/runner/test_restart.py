"""Restarts of live and paper runs: the rows of SPEC 6.3 (P) and 6.4 (X) by their numbers, and a kill at every single step."""

import math
import random

import msgspec
import pytest
from hand_market import MINUTE, START, clear_registered, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from live_market import (
    CONTEXT,
    LONG,
    SHORT,
    Crashing,
    Killed,
    Market,
    broker,
    down,
    lost,
    notifications,
    once_at,
    row,
    schedule_row,
    scheduled,
    signal_row,
    snapshot,
    store,
    strategy_row,
)
from recorder import Recorder

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.runner import (
    activate_scheduled,
    add_broker,
    add_risk,
    add_strategy,
    cancel_scheduled,
    close_pending,
    create_signal,
    pause,
    stop,
)
from backtest_kit_mongo.runner.clock import OutsideRunError
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.engine.rows import RunContext, derive_id
from backtest_kit_mongo.simulation import iso_time

pytestmark = pytest.mark.once

LIMIT = {**LONG, "priceOpen": 98.0}


def idle(**options):
    """Register "hand", which returns no signal."""
    once_at(-1, None, **options)


def restart(until=90, minute=70, market=None, **options):
    """Run from ``minute`` on, an hour after the stored position was opened."""
    market = market or Market()
    market.minute = minute
    return market.live(until, **options)


def told():
    """Return the types of the notifications of signals."""
    return [note["type"] for note in notifications() if note["type"].startswith("signal.")]


def risk_keys(name="hand"):
    return [key for key, _ in kit.PersistRiskAdapter.read_position_data(name, "binance", START)]


def slot(key, minutes=60, minute=10, **changes):
    symbol, strategy = key
    held = {"strategyName": strategy, "exchangeName": "binance", "frameName": "", "symbol": symbol, "position": "long",
            "priceOpen": 100.0, "priceStopLoss": 95.0, "priceTakeProfit": 110.0, "minuteEstimatedTime": minutes,
            "openTimestamp": START + minute * MINUTE}  # fmt: skip
    return [f"{strategy}_binance_{symbol}", {**held, **changes}]


# ---------------------------------------------------------------- positions that were open


def test_p1_a_long_is_watched_after_a_start_and_closes_at_its_target():
    idle()
    store(signal=row(minuteEstimatedTime=600))
    (trade,) = restart(market=Market().shape("high", 110.0, 80)).trades
    assert (trade.id, trade.close_reason, trade.price_close, trade.close_timestamp) == ("left", "take_profit", 110.0, START + 81 * MINUTE)
    assert signal_row() is None


def test_p2_a_short_closes_at_its_stop_after_a_restart():
    idle()
    store(signal=row(**{**SHORT, "minuteEstimatedTime": 600}))
    (trade,) = restart(market=Market().shape("high", 105.0, 75)).trades
    assert (trade.position, trade.close_reason, trade.price_close) == ("short", "stop_loss", 105.0)


def test_p3_a_position_whose_time_ended_while_nothing_ran_closes_as_time_expired():
    idle()
    store(signal=row(minuteEstimatedTime=60))
    (trade,) = restart(minute=200, until=201).trades
    assert (trade.close_reason, trade.close_timestamp) == ("time_expired", START + 70 * MINUTE)


def test_p4_a_short_whose_target_was_passed_while_nothing_ran_closes_at_it():
    idle()
    store(signal=row(**{**SHORT, "minuteEstimatedTime": 600}))
    (trade,) = restart(minute=300, until=301, market=Market().shape("low", 89.0, 120)).trades
    assert (trade.close_reason, trade.price_close, trade.close_timestamp) == ("take_profit", 90.0, START + 121 * MINUTE)


def test_a_downtime_of_days_is_caught_up_with():
    idle()
    store(signal=row(minuteEstimatedTime=None))
    (trade,) = restart(minute=4000, until=4001, market=Market(flat(4100)).shape("low", 94.0, 3333)).trades
    assert (trade.close_reason, trade.close_timestamp) == ("stop_loss", START + 3334 * MINUTE)


def test_a_restart_in_the_minute_of_the_entry_does_not_look_at_the_candle_before_it():
    once_at(10, LONG)
    market = Market().shape("low", 94.0, 9)
    assert market.live(10).open_trade is not None
    market.minute = 10
    result = market.live(12)
    assert (result.trades, result.open_trade.open_timestamp) == ((), START + 10 * MINUTE)


@pytest.mark.parametrize("slot_name", ["cancelledSignal", "activatedSignal", "retryOpenSignal"])
def test_work_on_a_signal_that_is_open_already_is_done(slot_name):
    idle()
    store(signal=row("one", minuteEstimatedTime=600), strategy=snapshot(**{slot_name: scheduled("one")}))
    assert restart().open_trade.id == "one"
    assert strategy_row()[slot_name] is None


def test_p5_the_open_position_is_read_once(monkeypatch):
    idle()
    store(signal=row(minuteEstimatedTime=600))
    reads = []
    read = kit.PersistSignalAdapter.read_signal_data
    monkeypatch.setattr(kit.PersistSignalAdapter, "read_signal_data", lambda *arguments: reads.append(arguments) or read(*arguments))
    result = restart()
    assert reads == [CONTEXT]
    assert result.open_trade.id == "left"


def test_p6_p9_a_scheduled_signal_never_reaches_signal(monkeypatch):
    once_at(10, LIMIT)
    recorder = Recorder(monkeypatch)
    market = Market().shape("low", 94.0, 20)
    assert market.live(30).trades == ()
    assert recorder.of("signal") == []
    assert [arguments[0] is None for arguments in recorder.of("schedule")] == [False, True]


def test_p8_the_written_row_has_all_its_fields():
    once_at(10, LONG)
    Market().live(12)
    stored = msgspec.convert(signal_row(), payloads.SignalRow)
    assert (stored.position, stored.price_open, stored.price_take_profit, stored.price_stop_loss) == ("long", 100.0, 110.0, 95.0)
    assert (stored.symbol, stored.strategy_name, stored.exchange_name, stored.minute_estimated_time) == (*CONTEXT, 60)
    assert stored.scheduled_at == stored.pending_at == START + 10 * MINUTE


def test_p10_the_null_write_comes_after_the_close_callback():
    seen = []
    once_at(10, LONG, on_close=lambda event: seen.append((event.reason, signal_row() is not None)))
    Market().shape("high", 110.0, 20).live(30)
    assert seen == [("take_profit", True)]
    assert signal_row() is None


def test_p13_a_restored_position_is_told_with_its_data():
    told = []
    idle(on_active=lambda event: told.append(event.signal))
    store(signal=row(minuteEstimatedTime=600, note="why"))
    restart()
    (signal,) = told
    kept = ("id", "position", "priceOpen", "priceTakeProfit", "priceStopLoss", "minuteEstimatedTime", "note", "scheduledAt", "pendingAt")
    assert {key: signal[key] for key in kept} == {key: row(minuteEstimatedTime=600, note="why")[key] for key in kept}


def test_p14_a_restored_scheduled_signal_is_told_and_opens():
    told = []
    idle(on_schedule=lambda event: told.append(event.signal["id"]))
    store(schedule=scheduled(minute=60))
    result = restart(market=Market().shape("low", 97.0, 75))
    assert told == ["waits"]
    assert (result.open_trade.id, result.open_trade.price_open, schedule_row()) == ("waits", 98.0, None)


@pytest.mark.parametrize("field", ["exchangeName", "strategyName"])
def test_p15_p16_x16_a_foreign_row_is_ignored_and_left_untouched(field):
    told = []
    idle(on_active=lambda event: told.append(event))
    foreign = row(**{field: "other"}, minuteEstimatedTime=600)
    store(signal=foreign, schedule=scheduled(**{field: "other"}))
    result = restart(market=Market().shape("high", 110.0, 80))
    assert (result.trades, result.open_trade, told) == ((), None, [])
    assert (signal_row(), schedule_row()) == (foreign, scheduled(**{field: "other"}))


def test_what_a_backtest_left_is_not_traded():
    idle()
    left = row(frameName="march", minuteEstimatedTime=600)
    store(signal=left, strategy=snapshot(_mode="backtest", closedSignal=left))
    result = restart(market=Market().shape("high", 110.0, 80))
    assert (result.trades, result.open_trade) == ((), None)
    assert signal_row() == left


def test_p17_null_from_the_store_starts_cleanly():
    once_at(75, LONG)
    store()
    for write in (kit.PersistSignalAdapter.write_signal_data, kit.PersistScheduleAdapter.write_schedule_data,
                  kit.PersistStrategyAdapter.write_strategy_data):  # fmt: skip
        write(None, *CONTEXT)
    assert restart().open_trade.open_timestamp == START + 75 * MINUTE


def test_p18_a_foreign_position_does_not_keep_a_scheduled_signal_from_being_restored():
    idle()
    store(signal=row(exchangeName="other"), schedule=scheduled(minute=60))
    assert restart(market=Market().shape("low", 97.0, 75)).open_trade.id == "waits"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"signal": row()}, "resumed a long, opened {}, stop 95.0, target 110.0"),
        ({"schedule": scheduled("waits", priceOpen=97.0, priceStopLoss=93.0)}, "resumed a long, waits for 97.0, stop 93.0, target 110.0"),
        ({}, None),
    ],
)
def test_a_restart_says_what_it_resumes(what, said, caplog):
    idle()
    store(**what)
    with caplog.at_level("INFO", "backtest_kit_mongo"):
        restart()
    lines = [record.getMessage() for record in caplog.records if "resumed" in record.getMessage()]
    if said is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("strategy 'hand' on ")
        assert line.endswith(said.format(iso_time(START + 10 * MINUTE)))


def test_p20_a_lifetime_without_end_that_json_made_null_does_not_expire():
    idle()
    store(signal=row(minuteEstimatedTime=None))
    result = restart(minute=300, until=310)
    assert result.trades == ()
    assert result.open_trade.id == "left"


@pytest.mark.parametrize("stored", [None, snapshot()])
def test_p21_the_signal_of_recent_is_not_opened_again(stored):
    once_at(70, LONG)
    context = RunContext(*CONTEXT, "", "hand", START, START, Costs(), backtest=False)
    again = row(derive_id(context, START + 70 * MINUTE), 70)
    kit.PersistRecentAdapter.write_recent_data(again, *CONTEXT, "", False, START + 70 * MINUTE)
    store(strategy=stored)
    result = restart()
    assert (result.signals_asked, result.open_trade, result.trades) == (5, None, ())


def test_p22_a_change_of_the_interval_loses_no_position():
    once_at(10, LONG, interval="1m")
    market = Market()
    market.live(30)
    clear_registered()
    idle(interval="15m")
    (trade,) = restart(minute=31, until=75, market=market).trades
    assert (trade.open_timestamp, trade.close_reason) == (START + 10 * MINUTE, "time_expired")


# ---------------------------------------------------------------- deferred work


@pytest.mark.parametrize(("act", "signal"), [(close_pending, LONG), (cancel_scheduled, LIMIT), (activate_scheduled, LIMIT), (stop, LIMIT)])
def test_x1_x2_x31_what_a_user_asked_for_survives_a_crash(act, signal):
    """The process dies right after the call; x1: the cancel of stop(), x2: an activation, x31: a close."""
    told = []

    def tick(event):
        if event.when.minute == 15:
            act()
            raise Killed

    book = broker()
    once_at(10, signal, on_tick=tick)
    market = Market()
    with pytest.raises(Killed):
        market.live(30, broker_name="book")
    clear_registered()
    add_broker("book", book)
    idle(**{name: lambda event, name=name: told.append((name, event.reason)) for name in ("on_open", "on_close", "on_cancel")})
    result = restart(minute=17, until=20, market=market, broker_name="book")
    if act is close_pending:
        assert told == [("on_close", "closed")]
        assert (result.trades[0].close_reason, book.sides) == ("closed", ["open", "close"])
    elif act is activate_scheduled:
        assert told == [("on_open", None)]
        assert result.open_trade.price_open == 98.0
    else:
        assert told == [("on_cancel", "user")]
        assert (schedule_row(), result.open_trade) == (None, None)
    assert not any(strategy_row()[name] for name in ("closedSignal", "cancelledSignal", "activatedSignal", "createdSignal"))


@pytest.mark.parametrize(
    ("slot_name", "reason", "price"), [("takeProfitSignal", "take_profit", 110.0), ("stopLossSignal", "stop_loss", 95.0)]
)
def test_x3_a_deferred_fill_survives_and_closes_at_its_price(slot_name, reason, price):
    idle()
    store(strategy=snapshot(**{slot_name: row()}))
    (trade,) = restart().trades
    assert (trade.id, trade.close_reason, trade.price_close) == ("left", reason, price)
    assert strategy_row()[slot_name] is None


def test_x4_a_queued_signal_survives_and_opens_after_a_restart():
    def tick(event):
        if event.when.minute == 12:
            create_signal(LONG)
            raise Killed

    idle(on_tick=tick)
    with pytest.raises(Killed):
        Market().live(30)
    queued = msgspec.convert(strategy_row()["createdSignal"], payloads.SignalDto)
    clear_registered()
    idle()
    result = restart(minute=70)
    assert result.open_trade.id == queued.id
    assert (strategy_row()["createdSignal"], strategy_row()["lastPendingId"]) == (None, queued.id)


@pytest.mark.parametrize("slot_name", ["closedSignal", "takeProfitSignal", "stopLossSignal"])
def test_x8_a_position_that_is_being_closed_is_wiped_and_not_resurrected(slot_name):
    told = []
    idle(on_active=lambda event: told.append(event))
    store(signal=row(), strategy=snapshot(**{slot_name: row()}, pendingSignalId="left"))
    (trade,) = restart().trades
    assert (trade.id, told, signal_row()) == ("left", [], None)


@pytest.mark.parametrize("slot_name", ["cancelledSignal", "activatedSignal"])
def test_x9_a_scheduled_signal_that_is_dealt_with_is_wiped(slot_name, monkeypatch):
    told = []
    idle(on_schedule=lambda event: told.append(event))
    store(schedule=scheduled(), strategy=snapshot(**{slot_name: scheduled()}))
    recorder = Recorder(monkeypatch)
    result = restart()
    assert recorder.order[0] == "schedule"
    assert recorder.of("schedule")[0][0] is None
    assert told == []
    assert (result.open_trade is None) is (slot_name == "cancelledSignal")


def test_x10_a_position_with_another_id_is_restored():
    idle()
    store(signal=row("mine", minuteEstimatedTime=600), strategy=snapshot(closedSignal=row("other")))
    result = restart()
    assert [trade.id for trade in result.trades] == ["other"]
    assert result.open_trade.id == signal_row()["id"] == "mine"
    assert risk_keys() == ["hand_binance_BTCUSDT"]


def test_x11_of_a_position_and_a_scheduled_signal_with_one_id_the_position_stays(monkeypatch):
    idle()
    store(signal=row("one", minuteEstimatedTime=600), schedule=scheduled("one"))
    result = restart()
    assert (result.open_trade.id, schedule_row()) == ("one", None)


def test_x12_two_crashes_in_a_row():
    """The first restart wipes the record and dies before it can close; the second one closes."""
    idle(on_tick=lambda event: None)
    store(signal=row(), strategy=snapshot(closedSignal=row(), pendingSignalId="left"))
    market = Market()
    market.fetch = lambda *arguments, **options: (_ for _ in ()).throw(Killed())
    with pytest.raises(Killed):
        restart(market=market)
    assert signal_row() is None
    assert strategy_row()["closedSignal"]["id"] == "left"
    (trade,) = restart(minute=72).trades
    assert (trade.id, trade.close_reason) == ("left", "closed")


def test_x13_a_trailing_stop_survives_and_closes_at_the_tightened_level():
    idle()
    store(signal=row(minuteEstimatedTime=600, _trailingPriceStopLoss=99.0))
    (trade,) = restart(market=Market().shape("low", 98.5, 80)).trades
    assert (trade.close_reason, trade.price_close) == ("stop_loss", 99.0)


def test_x14_entries_peak_and_fall_survive():
    once_at(10, LONG, on_tick=lambda event: None)
    market = Market()
    for column in ("open", "high", "low", "close"):
        market.candles[column][12:20] = 103.0
        market.candles[column][20:40] = 98.0

    def kill(minute):
        if minute == 30:
            raise Killed

    with pytest.raises(Killed):
        market.live(50, kill=kill)
    result = restart(minute=31, until=32, market=market)
    stored = msgspec.convert(signal_row(), payloads.SignalRow)
    assert (stored.peak.price, stored.fall.price) == (103.0, 98.0)
    assert [(entry.price, entry.cost) for entry in stored.entry] == [(100.0, 100.0)]
    assert result.open_trade.price_open == 100.0
    # Levels notified before the crash are not notified again, although the minutes since the opening are processed again.
    levels = [(note["type"], note["level"]) for note in notifications() if note["type"].startswith("partial")]
    up, down = "partial_profit.available", "partial_loss.available"
    assert levels == [(up, 10), (up, 20), (up, 30), (down, 10), (down, 20), (down, 30), (down, 40)]


def test_x15_a_consumed_signal_is_not_taken_again_after_a_refusal_and_a_crash():
    add_risk("hand", validate=lambda request: "no")
    asked = []

    def tick(event):
        asked.append(event.when.minute)
        if event.when.minute == 12:
            create_signal(LONG)
        if event.when.minute == 13:
            raise Killed

    idle(on_tick=tick)
    with pytest.raises(Killed):
        Market().live(30)
    assert strategy_row()["createdSignal"] is None
    clear_registered()
    idle()
    result = restart()
    assert (result.open_trade, result.trades) == (None, ())
    assert len(notifications("risk.rejection")) == 1


# ---------------------------------------------------------------- risk


def test_x19_a_restored_position_gets_its_missing_slot_again():
    idle()
    store(signal=row(minuteEstimatedTime=600))
    restart()
    assert risk_keys() == ["hand_binance_BTCUSDT"]


def test_x20_an_expired_slot_is_pruned_and_a_live_one_kept():
    idle(risk_name="all")
    slots = [slot(("A", "x")), slot(("B", "x"), minutes=600), slot(("C", "x"), minutes=None), slot(("D", "x"), frameName="march")]
    kit.PersistRiskAdapter.write_position_data(slots, "all", "binance", START)
    restart()
    assert risk_keys("all") == ["x_binance_B", "x_binance_C", "x_binance_D"]


def test_an_expired_slot_of_a_position_that_its_run_has_not_closed_yet_is_kept():
    idle(risk_name="all")
    slots = [slot((symbol, "x")) for symbol in "ABCD"]
    kit.PersistRiskAdapter.write_position_data(slots, "all", "binance", START)
    kit.PersistSignalAdapter.write_signal_data(row(), "A", "x", "binance")
    kit.PersistStrategyAdapter.write_strategy_data(snapshot(retryOpenSignal=row()), "B", "x", "binance")
    kit.PersistStrategyAdapter.write_strategy_data(snapshot(closedSignal=row()), "C", "x", "binance")
    restart()
    assert risk_keys("all") == ["x_binance_A", "x_binance_B", "x_binance_C"]


def test_the_slot_of_an_order_that_was_sent_is_held(monkeypatch):
    """It is also held over a restart, so that no other run takes it before the order is found again."""
    book = broker(down(), down(), down())
    once_at(10, LONG)
    Market().live(11, broker_name="book")
    assert (len(book.asked), signal_row(), risk_keys()) == (2, None, ["hand_binance_BTCUSDT"])
    seen = []
    submit = book.submit
    monkeypatch.setattr(book, "submit", lambda order: seen.append(risk_keys()) or submit(order))
    market = Market()
    market.minute = 12
    market.live(14, broker_name="book")
    assert (seen, risk_keys()) == ([["hand_binance_BTCUSDT"]] * 2, ["hand_binance_BTCUSDT"])


def test_a_slot_of_ours_without_a_position_is_released():
    idle()
    kit.PersistRiskAdapter.write_position_data([slot(("BTCUSDT", "hand"), minutes=None)], "hand", "binance", START)
    restart()
    assert risk_keys() == []


def test_x22_the_slot_is_released_before_the_flag_is_cleared(monkeypatch):
    idle()
    store(signal=row(), strategy=snapshot(closedSignal=row(), pendingSignalId="left"))
    kit.PersistRiskAdapter.write_position_data([slot(("BTCUSDT", "hand"))], "hand", "binance", START)
    recorder = Recorder(monkeypatch)
    restart()
    released = next(index for index, (name, _) in enumerate(recorder.writes) if name == "risk")
    places = [index for index, (name, _) in enumerate(recorder.writes) if name == "strategy"]
    cleared = next(index for index, arguments in zip(places, recorder.of("strategy"), strict=True) if arguments[0]["closedSignal"] is None)
    assert recorder.of("risk")[0][0] == []
    assert released < cleared


# ---------------------------------------------------------------- orders


def test_x23_stop_voids_a_queued_signal_also_across_a_restart():
    def tick(event):
        if event.when.minute == 12:
            create_signal(LONG)
            stop()
            raise Killed

    idle(on_tick=tick)
    with pytest.raises(Killed):
        Market().live(30)
    clear_registered()
    asked = []
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: asked.append(when))
    assert restart().open_trade is None
    assert asked  # x30: the stop itself does not survive


@pytest.mark.parametrize(("count", "next_attempt"), [(4, 5), (0, 2), (-3, 2)])
def test_x24_an_order_to_open_and_its_counter_survive(monkeypatch, count, next_attempt):
    book = broker()
    idle()
    store(strategy=snapshot(retryOpenSignal=row("retry"), retryOpenCount=count, _mode="live"))
    recorder = Recorder(monkeypatch)
    result = restart(broker_name="book")
    counts = [arguments[0]["retryOpenCount"] for arguments in recorder.of("strategy")]
    assert counts[:3] == [max(count, 1), next_attempt, 0]
    assert (result.trades[0].id, [order.action for order in book.asked]) == ("retry", ["open", "close"])


@pytest.mark.parametrize(("pending", "count", "next_attempt"), [("left", 4, 5), ("left", 0, 2), ("other", 4, 2)])
def test_x25_the_counter_of_a_close_survives_with_its_own_signal(monkeypatch, pending, count, next_attempt):
    broker()
    idle()
    store(strategy=snapshot(closedSignal=row(), pendingSignalId=pending, retryCloseCount=count, _mode="live"))
    recorder = Recorder(monkeypatch)
    restart(broker_name="book")
    assert [arguments[0]["retryCloseCount"] for arguments in recorder.of("strategy")][1] == next_attempt
    assert strategy_row()["retryCloseCount"] == 0


def test_x27_a_consumed_id_survives_and_a_restored_position_heals_a_stale_one():
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)
    (trade,) = market.live(30).trades
    restart(minute=40, until=41, market=market)
    assert strategy_row()["lastPendingId"] == trade.id
    clear_registered()
    use_memory()
    idle()
    store(signal=row(minuteEstimatedTime=600), strategy=snapshot(lastPendingId="stale"))
    restart()
    assert (strategy_row()["lastPendingId"], strategy_row()["pendingSignalId"]) == ("left", "left")


@pytest.mark.parametrize("action", ["open", "close"])
def test_x28_a_lost_answer_and_a_crash_submit_the_same_order_again(action):
    faults = [lost()] if action == "open" else [(None, None), lost()]
    book = broker(*faults)
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)

    def kill(minute):
        if book.faults == []:
            raise Killed

    with pytest.raises(Killed):
        market.live(40, broker_name="book", kill=kill)
    sent = [order.client_id for order in book.asked]
    result = restart(minute=market.minute + 3, until=40, market=market, broker_name="book")
    assert [order.client_id for order in book.asked][len(sent) - 1 : len(sent) + 1] == [sent[-1]] * 2
    assert book.sides == ["open", "close"]
    assert result.trades[0].close_timestamp == START + 21 * MINUTE


def test_x29_a_pause_survives_a_restart():
    asked = []
    add_strategy(
        "hand",
        interval="5m",
        get_signal=lambda symbol, when: asked.append(when.minute),
        on_tick=lambda event: event.when.minute == 12 and pause(),
    )
    market = Market()
    market.live(20)
    market.live(40)
    assert asked == [10]
    assert strategy_row()["isPaused"] is True


# ---------------------------------------------------------------- a kill at every step


@pytest.mark.slow
@pytest.mark.parametrize("broker_name", [None, "book"])
@pytest.mark.parametrize("signal", [LONG, LIMIT])
def test_a_kill_at_any_step_loses_no_position_doubles_no_order_and_repeats_no_signal(monkeypatch, broker_name, signal, long):
    def play(at, downtime=1):
        clear_registered()
        use_memory()
        book = broker()
        opened, closed = [], []
        once_at(
            10, signal, on_open=lambda event: opened.append(event.signal["id"]), on_close=lambda event: closed.append(event.signal["id"])
        )  # fmt: skip
        # The limit is touched for a while, so that a minute of downtime does not miss it.
        market = Market().shape("low", 97.9, *range(15, 25)).shape("high", 110.0, 30)
        trades = []
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, book, at)
            while True:
                try:
                    trades += market.live(40, broker_name=broker_name).trades
                    break
                except Killed:
                    market.minute += downtime
        return crashing.steps, trades, book, set(opened), set(closed)

    steps, (clean,), book, _, _ = play(None)
    orders = set(book.orders)
    assert steps > 80
    every = (1 if broker_name else 3) * (1 if long else 3)  # what happens without a broker happens with one too
    for at in range(random.randrange(every), steps, every):
        print(f"killed at step {at}")
        _, trades, book, opened, closed = play(at)
        stored = kit.PersistStorageAdapter.read_storage_data(False)
        if not stored:  # killed before the signal was written at all, and its interval was over after the restart
            assert (trades, book.orders, signal_row(), schedule_row()) == ([], {}, None, None)
            continue
        assert [(item["id"], item["status"], item["closeReason"]) for item in stored] == [(clean.id, "closed", "take_profit")]
        assert stored[0]["currentPrice"] == 110.0
        assert sorted(told()) == ["signal.closed", "signal.opened", *(["signal.scheduled"] if signal is LIMIT else [])]
        assert {trade.id for trade in trades} <= {clean.id}
        assert opened | closed <= {clean.id}
        assert set(book.orders) == orders
        assert (signal_row(), schedule_row(), risk_keys()) == (None, None, [])
        left = strategy_row()
        assert not any(left[name] for name in ("takeProfitSignal", "closedSignal", "retryOpenSignal", "cancelledSignal", "pendingSignalId"))
        assert left["lastPendingId"] == clean.id


def test_a_lifetime_without_end_survives_every_restart():
    once_at(10, {**LONG, "minuteEstimatedTime": math.inf})
    market = Market()
    for until in (20, 40, 60):
        assert market.live(until).open_trade.open_timestamp == START + 10 * MINUTE
    assert signal_row()["minuteEstimatedTime"] == math.inf


@pytest.mark.parametrize("signal", [LONG, LIMIT])
def test_on_real_servers_a_process_goes_on_where_another_was_cut_off(mongo, signal):
    """Everything is on MongoDB, and this process keeps nothing between two minutes."""
    book = broker()
    once_at(10, signal)
    market = Market().shape("low", 97.9, 15).shape("high", 110.0, 20)
    trades = []
    while market.minute < 24:
        trades += market.live(market.minute + 1, broker_name="book").trades
        market.minute += 1
        kit.close()
        kit.setup(mongo)
    (trade,) = trades
    assert (trade.close_reason, trade.close_timestamp) == ("take_profit", START + 21 * MINUTE)
    assert book.sides == ["open", "close"]
    assert (signal_row(), schedule_row(), risk_keys()) == (None, None, [])
    assert [row["status"] for row in kit.PersistStorageAdapter.read_storage_data(False)] == ["closed"]


@pytest.mark.parametrize("downtime", [1, 7])
def test_a_kill_at_any_step_of_a_cancellation_tells_it_once(monkeypatch, downtime):
    def play(at):
        clear_registered()
        use_memory()
        book, cancelled = broker(), []
        once_at(10, LIMIT, on_cancel=lambda event: cancelled.append(event.reason))
        market = Market().shape("low", 94.0, 20)
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, book, at)
            while True:
                try:
                    market.live(60, broker_name="book")
                    return crashing.steps, cancelled
                except Killed:
                    market.minute += downtime

    steps, cancelled = play(None)
    assert (cancelled, sorted(told())) == (["price_reject"], ["signal.cancelled", "signal.scheduled"])
    for at in range(steps):
        _, cancelled = play(at)
        stored = kit.PersistStorageAdapter.read_storage_data(False)
        assert set(cancelled) == ({"price_reject"} if stored else set())
        assert [item["status"] for item in stored] == ["cancelled"] * len(stored)
        assert sorted(told()) == (["signal.cancelled", "signal.scheduled"] if stored else [])
        assert (signal_row(), schedule_row(), risk_keys(), strategy_row()["cancelledSignal"]) == (None, None, [], None)


def test_nothing_can_be_asked_of_a_run_that_has_not_read_yet_what_was_left(monkeypatch):
    """A request would overwrite those records."""
    once_at(10, LONG)
    store(signal=row(), strategy=snapshot(closedSignal=row(), pendingSignalId="left"))
    read, early = kit.PersistStrategyAdapter.read_strategy_data, []

    def reading(*context):
        monkeypatch.setattr(kit.PersistStrategyAdapter, "read_strategy_data", read)  # from the first read on, the run is known
        with pytest.raises(OutsideRunError, match=r"stop\(symbol='BTCUSDT'\): no matching run"):
            early.append(stop("BTCUSDT"))
        return read(*context)

    monkeypatch.setattr(kit.PersistStrategyAdapter, "read_strategy_data", reading)
    (trade,) = Market().live(15, broker_name=None).trades
    assert (trade.id, trade.close_reason, early) == ("left", "closed", [])
