"""The life of a position: scheduled signals, user actions, callbacks, frames, runs side by side."""

import threading
from datetime import UTC, datetime

import msgspec
import pytest
from hand_market import MINUTE, START, clear_registered, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from recorder import Recorder

import backtest_kit_mongo as kit
from backtest_kit_mongo import ConfigError, InvalidTypeError, InvalidValueError, LookAheadError, payloads
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    Backtest,
    OutsideRunError,
    StrategyError,
    activate_scheduled,
    add_frame,
    add_strategy,
    cancel_scheduled,
    close_pending,
    create_signal,
    get_candles,
    get_raw_candles,
    import_candles,
    list_frames,
    load_strategy_file,
    pause,
    resume,
    run_backtest,
    stop,
    synthetic_market,
)
from backtest_kit_mongo.runner.current_run import current_run

pytestmark = pytest.mark.once

CONTEXT = ("BTCUSDT", "hand", "binance")
LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60}
LIMIT = {**LONG, "priceOpen": 98.0}
SHORT_LIMIT = {"position": "short", "priceTakeProfit": 90.0, "priceStopLoss": 105.0, "minuteEstimatedTime": 60, "priceOpen": 102.0}


def minute_of(event):
    return (round(event.when.timestamp() * 1000) - START) // MINUTE


def once_at(minute, signal, **options):
    """Register "hand", which returns ``signal`` at one minute after START."""
    when_ms = START + minute * MINUTE
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: signal if when.timestamp() * 1000 == when_ms else None, **options)


def run(market, **options):
    import_candles(market, "BTCUSDT")
    return run_backtest("BTCUSDT", fee_percent=0, slippage_percent=0, **options)


def notified():
    return kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)


# ---------------------------------------------------------------- scheduled signals


@pytest.mark.parametrize(("signal", "column", "touch"), [(LIMIT, "low", 97.9), (SHORT_LIMIT, "high", 102.1)])
def test_a_limit_opens_at_its_price_in_the_candle_that_touches_it(signal, column, touch):
    market = flat(200)
    market[column][30] = touch
    once_at(10, signal)
    (trade,) = run(market).trades
    assert (trade.price_open, trade.open_timestamp) == (signal["priceOpen"], START + 31 * MINUTE)
    # Its time counts from the opening.
    assert (trade.close_reason, trade.close_timestamp) == ("time_expired", START + 91 * MINUTE)


def test_a_scheduled_signal_is_only_in_schedule_until_it_opens(monkeypatch):
    """P6, P9."""
    market = flat(200)
    market["low"][30], market["volume"][30] = 97.0, 0.0
    once_at(10, LIMIT)
    recorder = Recorder(monkeypatch)
    (trade,) = run(market).trades
    assert recorder.order == [
        "session", "log",
        "schedule", "storage", "notification", "log",
        "risk", "signal", "schedule", "storage", "recent", "state", "notification", "log",
        "partial", "breakeven", "notification",
        "storage", "recent", "state", "partial", "breakeven", "risk", "signal", "notification", "session", "log",
        "session", "log",
    ]  # fmt: skip
    (written, erased) = recorder.of("schedule")
    row = msgspec.convert(written[0], payloads.ScheduledSignalRow)
    assert erased == [None, *CONTEXT]
    assert (row.id, row.price_open, row.is_scheduled) == (trade.id, 98.0, True)
    assert row.scheduled_at == row.pending_at == START + 10 * MINUTE
    opened, closed = recorder.of("signal")
    assert closed[0] is None
    row = msgspec.convert(opened[0], payloads.SignalRow)
    assert (row.is_scheduled, row.scheduled_at, row.pending_at) == (False, START + 10 * MINUTE, START + 31 * MINUTE)
    assert [note.type for note in notified()][:2] == ["signal.scheduled", "signal.opened"]


@pytest.mark.parametrize(
    ("shape", "minutes", "reason", "when"),
    [
        ({20: {"low": 94.0}}, None, "price_reject", 21),  # the candle that touches the price passes the stop as well
        ({}, None, "timeout", 130),
        ({}, "20", "timeout", 30),
    ],
)
def test_a_scheduled_signal_is_cancelled(monkeypatch, shape, minutes, reason, when):
    market = flat(200)
    for minute, columns in shape.items():
        for column, value in columns.items():
            market[column][minute] = value
    if minutes is not None:
        monkeypatch.setenv("CC_SCHEDULE_AWAIT_MINUTES", minutes)
    seen = []
    once_at(10, LIMIT, on_cancel=lambda event: seen.append((minute_of(event), event.reason)))
    recorder = Recorder(monkeypatch)
    result = run(market)
    assert (result.trades, result.open_trade) == ((), None)
    assert seen == [(when, reason)]
    assert recorder.of("signal") == recorder.of("risk") == []
    assert recorder.of("schedule")[-1][0] is None
    (_, cancelled) = notified()
    assert (cancelled.type, cancelled.cancel_reason, cancelled.duration) == ("signal.cancelled", reason, when - 10)
    (row,) = kit.PersistStorageAdapter.read_storage_data(True)
    assert row["status"] == "cancelled"


def test_the_strategy_is_not_asked_while_a_signal_waits():
    asked = []

    def get_signal(symbol, when):
        asked.append((round(when.timestamp() * 1000) - START) // MINUTE)
        return LIMIT if asked[-1] == 10 else None

    add_strategy("hand", interval="5m", get_signal=get_signal)
    market = flat(60)
    market["low"][22] = 94.0
    run(market)
    assert asked == [5, 10, 25, 30, 35, 40, 45, 50, 55]


def test_the_waiting_time_must_be_a_number(monkeypatch):
    monkeypatch.setenv("CC_SCHEDULE_AWAIT_MINUTES", "soon")
    once_at(10, LIMIT)
    with pytest.raises(ConfigError, match="CC_SCHEDULE_AWAIT_MINUTES is 'soon'; it must be a number"):
        run(flat(60))


def test_a_backtest_clears_the_scheduled_signal_that_an_earlier_one_left():
    once_at(10, LIMIT)
    run(flat(60))
    assert kit.PersistScheduleAdapter.read_schedule_data(*CONTEXT)["priceOpen"] == 98.0
    clear_registered()
    once_at(-1, None)
    run_backtest("BTCUSDT")
    assert kit.PersistScheduleAdapter.read_schedule_data(*CONTEXT) is None


def test_live_work_is_never_overwritten():
    once_at(10, LIMIT)
    live = {"id": "live-1", "frameName": "", "symbol": "BTCUSDT"}
    kit.PersistScheduleAdapter.write_schedule_data(live, *CONTEXT)
    with pytest.raises(InvalidValueError, match=r"open live scheduled signal(.|\n)*another database"):
        run(flat(60))
    kit.PersistScheduleAdapter.write_schedule_data(None, *CONTEXT)
    kit.PersistStrategyAdapter.write_strategy_data({"_mode": "live", "isPaused": True}, *CONTEXT)
    with pytest.raises(InvalidValueError, match=r"unfinished live work(.|\n)*another database"):
        run(flat(60))
    assert kit.PersistLogAdapter.read_log_data() == []


# ---------------------------------------------------------------- user actions


def test_a_ping_may_close_the_position(monkeypatch):
    market = flat(60)
    for column in ("open", "high", "low", "close"):
        market[column][15:] = 101.0

    def ping(event):
        if event.price == 101.0:
            assert close_pending() is True
            assert close_pending() is False  # it is being closed already

    once_at(10, LONG, on_active_ping=ping)
    recorder = Recorder(monkeypatch)
    (trade,) = run(market).trades
    # The price is 101 once all of the last five candles are.
    assert (trade.close_reason, trade.price_close, trade.close_timestamp) == ("closed", 101.0, START + 20 * MINUTE)
    assert trade.pnl_percentage == pytest.approx(1)
    queued, cleared = recorder.of("strategy")
    assert queued[0]["closedSignal"]["id"] == trade.id
    assert cleared[0]["closedSignal"] is None
    # X22: the risk slot is released before the flag is cleared.
    assert recorder.order[len(recorder.order) - 1 - recorder.order[::-1].index("strategy") :].count("risk") == 0
    assert [note.close_reason for note in notified() if note.type == "signal.closed"] == ["closed"]
    assert run_backtest("BTCUSDT").totals.trades == 1  # totals count it


def test_user_actions_on_a_scheduled_signal():
    def tick(event):
        if minute_of(event) == 20:
            assert activate_scheduled() is True
            assert cancel_scheduled() is False

    once_at(10, LIMIT, on_tick=tick)
    (trade,) = run(flat(120)).trades
    # Requested at the end of minute 20, done in the next one, at its own price.
    assert (trade.price_open, trade.open_timestamp) == (98.0, START + 21 * MINUTE)


def test_a_scheduled_signal_cancelled_by_its_user():
    seen = []
    once_at(
        10,
        LIMIT,
        on_tick=lambda event: cancel_scheduled() if minute_of(event) == 20 else None,
        on_cancel=lambda event: seen.append((minute_of(event), event.reason)),
    )
    market = flat(120)
    market["low"][20] = 97.0
    assert run(market).trades == ()
    assert seen == [(21, "user")]
    assert kit.PersistStrategyAdapter.read_strategy_data(*CONTEXT)["cancelledSignal"] is None


def test_created_signals_and_pause_and_stop():
    events = []

    def tick(event):
        minute = minute_of(event)
        if minute == 12:
            assert create_signal(LONG) is True
            assert create_signal(LONG) is False
        if minute == 80:
            assert pause() is True
            assert pause() is False
        if minute == 90:
            assert resume() is True
        if minute == 100:
            stop()
        events.append(minute)

    asked = []

    def get_signal(symbol, when):
        asked.append((round(when.timestamp() * 1000) - START) // MINUTE)

    add_strategy("hand", interval="5m", get_signal=get_signal, on_tick=tick)
    (trade,) = run(flat(130)).trades
    assert (trade.open_timestamp, trade.close_timestamp) == (START + 13 * MINUTE, START + 73 * MINUTE)
    assert asked == [5, 10, 75, 80, 95, 100]
    assert events[0] == 1
    assert [note.paused for note in notified() if note.type == "strategy.pause"] == [True, False]


def test_actions_are_checked_before_anything_is_written():
    once_at(-1, None, on_tick=lambda event: create_signal({"position": "long"}))
    with pytest.raises(StrategyError, match="priceTakeProfit is missing"):
        run(flat(60))
    assert kit.PersistStrategyAdapter.read_strategy_data(*CONTEXT) is None
    with pytest.raises(OutsideRunError, match=r"close_pending.symbol='BTCUSDT'.: no matching run"):
        close_pending("BTCUSDT")


# ---------------------------------------------------------------- callbacks


def test_callbacks_tell_the_life_of_a_position():
    told = []

    def note(name):
        return lambda event: told.append((name, minute_of(event), event.price, event.reason, event.signal and event.signal["priceOpen"]))

    names = ("on_schedule", "on_open", "on_close", "on_active_ping", "on_cancel", "on_active")
    once_at(10, {**LIMIT, "minuteEstimatedTime": 2}, **{name: note(name) for name in names})
    market = flat(60)
    market["low"][20], market["volume"][20] = 97.0, 0.0
    run(market)
    assert told == [
        ("on_schedule", 10, 100.0, None, 98.0),
        ("on_open", 21, 100.0, None, 98.0),
        ("on_active_ping", 22, 100.0, None, 98.0),
        ("on_close", 23, 100.0, "time_expired", 98.0),
    ]


def test_the_null_write_comes_after_the_close_callback(monkeypatch):
    """P10."""
    seen = []
    once_at(10, LONG, on_close=lambda event: seen.append(kit.PersistSignalAdapter.read_signal_data(*CONTEXT)["id"]))
    (trade,) = run(flat(120)).trades
    assert seen == [trade.id]
    assert kit.PersistSignalAdapter.read_signal_data(*CONTEXT) is None


def test_a_callback_that_raises_ends_a_backtest_with_its_name_and_line():
    def broken(event):
        raise RuntimeError("no")

    once_at(10, LONG, on_open=broken)
    with pytest.raises(StrategyError, match=r"strategy 'hand' on BTCUSDT at 2023-03-01T00:10:00Z raised RuntimeError: no .*test_engine.py"):
        run(flat(60))


def test_bad_callbacks_are_refused():
    with pytest.raises(InvalidTypeError, match=r"no argument 'on_opne'(.|\n)*did you mean 'on_open'"):
        add_strategy("x", get_signal=lambda symbol, when: None, on_opne=print)
    with pytest.raises(InvalidTypeError, match=r"on_open of strategy 'x' must take \(event\)"):
        add_strategy("x", get_signal=lambda symbol, when: None, on_open=lambda: None)


def test_user_code_knows_its_run_and_signal():
    seen = []

    def look(name):
        def callback(*arguments):
            run = current_run()
            seen.append((name, run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest, run.signal_id))

        return callback

    market = flat(80)
    market["low"][12] = 97.0
    once_at(10, {**LIMIT, "minuteEstimatedTime": 1}, on_schedule=look("schedule"), on_open=look("open"), on_close=look("close"))
    (trade,) = run(market).trades
    assert seen == [(name, *CONTEXT, "backtest", True, trade.id) for name in ("schedule", "open", "close")]
    assert current_run() is None


def test_what_a_strategy_keeps_in_its_session_is_not_overwritten():
    key = ("hand", "binance", "backtest", "BTCUSDT", True)
    session_row = {"id": "BTCUSDT:hand:binance:backtest:backtest", "data": {"mood": "good"}, "when": START}

    def keep(event):
        kit.PersistSessionAdapter.write_session_data(session_row, *key[:3], START, *key[3:])

    once_at(10, LONG, on_open=keep)
    run(flat(120))
    assert kit.PersistSessionAdapter.read_session_data(*key) == session_row
    clear_registered()
    once_at(-1, None)
    run_backtest("BTCUSDT")  # the next run starts fresh
    assert kit.PersistSessionAdapter.read_session_data(*key)["data"]["status"] == "finished"


# ---------------------------------------------------------------- frames


def test_frames_are_windows_by_name():
    add_frame("text", "2023-03-01", "2023-03-01T01:00")
    add_frame("ms", START, START + 60 * MINUTE)
    add_frame("dates", datetime(2023, 3, 1), datetime(2023, 3, 1, 1, tzinfo=UTC))
    assert [(frame.start_ms, frame.end_ms) for frame in list_frames()] == [(START, START + 60 * MINUTE)] * 3
    once_at(10, LONG)
    import_candles(flat(200), "BTCUSDT")
    result = Backtest.run("BTCUSDT", exchange_name="binance", frame_name="text")
    assert (result.frame_name, result.minutes) == ("text", 60)
    with pytest.raises(InvalidValueError, match=r"no frame 'none' is registered(.|\n)*'text', 'ms', 'dates'"):
        Backtest.run("BTCUSDT", frame_name="none")
    with pytest.raises(InvalidValueError, match="3 frames are registered"):
        Backtest.run("BTCUSDT")
    clear_registered()
    once_at(10, LONG)
    assert Backtest.run("BTCUSDT").minutes == 200


@pytest.mark.parametrize(
    ("start", "end", "error", "message"),
    [
        ("2023-03-02", "2023-03-01", InvalidValueError, "frame 'x' is empty"),
        ("yesterday", "2023-03-01", InvalidValueError, "start is 'yesterday', which is not an ISO time"),
        (START, START + 1, InvalidValueError, "end is 1677628800001"),
        (START, datetime(2023, 3, 1, 1, 0, 1), InvalidValueError, "not a whole minute"),
        (START, 1.5, InvalidTypeError, "end must be a datetime, ISO text or ms"),
    ],
)
def test_bad_frames_are_refused(start, end, error, message):
    with pytest.raises(error, match=message):
        add_frame("x", start, end)
    assert list_frames() == ()


def test_a_file_that_is_loaded_again_replaces_all_that_it_registered(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from backtest_kit_mongo.runner import *\n"
        "add_frame('march', '2023-03-01', '2023-03-02')\nadd_risk('one', max_positions=1)\n"
        "add_strategy('x', get_signal=lambda symbol, when: None)\n"
    )
    for _ in range(2):
        assert [strategy.name for strategy in load_strategy_file(file)] == ["x"]
        assert [frame.name for frame in list_frames()] == ["march"]
    file.write_text("from backtest_kit_mongo.runner import *\nadd_frame('april', '2023-04-01', '2023-04-02')\n1 // 0\n")
    with pytest.raises(StrategyError):
        load_strategy_file(file)
    assert [frame.name for frame in list_frames()] == ["march"]


# ---------------------------------------------------------------- windows of candles


def at_minute(minute, ask):
    """Return what ``ask()`` returns to a strategy at ``minute``."""
    answers = []
    when_ms = START + minute * MINUTE
    add_strategy(
        "ask", interval="1m", get_signal=lambda symbol, when: answers.append(ask()) if when.timestamp() * 1000 == when_ms else None
    )
    run_backtest("BTCUSDT", start_ms=START, end_ms=START + (minute + 1) * MINUTE)
    return answers[0]


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        ({"limit": 3}, 47, 49),
        ({"start": START + 10 * MINUTE, "end": START + 13 * MINUTE}, 10, 12),
        ({"end": START + 13 * MINUTE, "limit": 4}, 9, 12),
        ({"start": START + 10 * MINUTE, "limit": 4}, 10, 13),
        ({"start": START + 46 * MINUTE, "limit": 4}, 46, 49),
        ({"start": START + 10 * MINUTE + 59_999, "end": START + 20 * MINUTE, "limit": 4}, 10, 13),
        ({"start": datetime(2023, 3, 1, 0, 10, tzinfo=UTC), "end": datetime(2023, 3, 1, 0, 50, tzinfo=UTC)}, 10, 49),
    ],
)
def test_the_forms_of_a_window(arguments, first, last):
    import_candles(synthetic_market(3, 100, START), "BTCUSDT")
    candles = at_minute(50, lambda: get_raw_candles("BTCUSDT", "1m", **arguments))
    assert [(candle["timestamp"] - START) // MINUTE for candle in candles] == list(range(first, last + 1))


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": START + 45 * MINUTE, "end": START + 51 * MINUTE},
        {"end": START + 50 * MINUTE + 1, "limit": 1},
        {"start": START + 47 * MINUTE, "limit": 4},
        {"start": START + 10 * MINUTE, "end": START + 12 * MINUTE, "limit": 3},
        {"start": START + 48 * MINUTE, "end": START + 60 * MINUTE, "limit": 1},
    ],
)
def test_a_window_in_the_future_is_an_error_that_names_strategy_and_call(arguments):
    import_candles(synthetic_market(3, 100, START), "BTCUSDT")
    with pytest.raises(StrategyError) as caught:
        at_minute(50, lambda: get_raw_candles("BTCUSDT", "1m", **arguments))
    error = caught.value.__cause__
    assert isinstance(error, LookAheadError)
    assert "strategy 'ask' on BTCUSDT asked for the future: get_raw_candles('BTCUSDT', '1m', " in str(error)
    assert "the simulation time is 2023-03-01T00:50:00Z" in str(error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "defines no window"),
        ({"start": START}, "defines no window"),
        ({"limit": 0}, "limit is 0"),
        ({"start": START + 9 * MINUTE, "end": START + 9 * MINUTE}, "start must be before end"),
        ({"end": START, "limit": 1}, "at 2023-02-28T23:59:00Z is not stored"),
    ],
)
def test_bad_windows_are_named(arguments, message):
    import_candles(synthetic_market(3, 100, START), "BTCUSDT")
    with pytest.raises(StrategyError, match=message):
        at_minute(50, lambda: get_raw_candles("BTCUSDT", "1m", **arguments))


def test_windows_of_other_intervals_are_whole_too():
    import_candles(synthetic_market(3, 100, START), "BTCUSDT")
    wide = at_minute(50, lambda: (get_raw_candles("BTCUSDT", "15m", 3), get_candles("BTCUSDT", "15m", 3)))
    assert wide[0] == wide[1]
    assert len(wide[0]) == 3


# ---------------------------------------------------------------- side by side


def new_registry():
    registry = Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
    return registry


@pytest.mark.slow
def test_runs_in_threads_never_see_each_others_rows():
    """Two symbols, three strategies and two exchanges in one process; one of the strategies fails."""

    def get_signal(symbol, when):
        price = get_candles(symbol, "1m", 1)[-1]["close"]
        return {"position": "long", "priceTakeProfit": price * 1.02, "priceStopLoss": price * 0.98, "minuteEstimatedTime": 60}

    add_strategy("one", interval="5m", get_signal=get_signal)
    add_strategy("two", interval="15m", get_signal=get_signal)
    add_strategy("broken", interval="1m", get_signal=lambda symbol, when: None if when.minute < 30 else 1 // 0)
    contexts = [(symbol, exchange) for symbol in ("BTCUSDT", "ETHUSDT") for exchange in ("binance", "kraken")]

    def import_all():
        for number, (symbol, exchange) in enumerate(contexts):
            import_candles(synthetic_market(number, 3000, START), symbol, exchange_name=exchange)

    import_all()
    handles = {
        (symbol, name, exchange): Backtest.background(symbol, strategy_name=name, exchange_name=exchange)
        for symbol, exchange in contexts
        for name in ("one", "two", "broken")
    }
    together = {}
    for (symbol, name, exchange), handle in handles.items():
        if name == "broken":
            with pytest.raises(StrategyError, match="ZeroDivisionError"):
                handle.result(60)
        else:
            together[symbol, name, exchange] = handle.result(60)
        assert handle.done
    assert len({trade.id for result in together.values() for trade in result.trades}) == sum(
        len(result.trades) for result in together.values()
    )
    use_memory()
    import_all()
    for (symbol, name, exchange), result in together.items():
        alone = run_backtest(symbol, name, exchange_name=exchange)
        assert len(alone.trades) > 5
        assert msgspec.json.encode(alone.trades) == msgspec.json.encode(result.trades)
        assert alone.open_trade == result.open_trade


def test_runs_of_two_registries_share_nothing():
    once_at(10, LONG)
    registries = [new_registry(), new_registry()]
    for registry in registries:
        import_candles(flat(200), "BTCUSDT", registry=registry)
    results = [Backtest.background("BTCUSDT", registry=registry).result(60) for registry in registries[:1]]
    assert len(results[0].trades) == 1
    assert len(registries[0].PersistStorageAdapter.read_storage_data(True)) == 1
    assert registries[1].PersistStorageAdapter.read_storage_data(True) == []
    assert kit.PersistStorageAdapter.read_storage_data(True) == []
    for registry in registries:
        registry.close()


def test_a_background_run_can_be_stopped():
    reached = threading.Event()
    go_on = threading.Event()

    def progress(done, total):
        reached.set()
        go_on.wait(60)

    once_at(10, LONG)
    import_candles(flat(5000), "BTCUSDT")
    handle = Backtest.background("BTCUSDT", exchange_name="binance", progress=progress)
    assert reached.wait(60)
    assert not handle.done
    with pytest.raises(TimeoutError):
        handle.result(0.01)
    handle.stop()
    go_on.set()
    result = handle.result(30)
    assert (result.minutes, result.end_ms, len(result.trades)) == (1000, START + 1000 * MINUTE, 1)
    assert kit.PersistSessionAdapter.read_session_data("hand", "binance", "backtest", "BTCUSDT", True)["data"]["status"] == "stopped"
