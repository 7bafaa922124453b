"""What a live run must survive: clocks that jump, markets without candles, brokers and users at the wrong moment, full disks."""

import asyncio
import threading
from decimal import Decimal

import numpy as np
import pytest
from hand_market import MINUTE, START, clear_registered, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from live_market import (
    CONTEXT,
    LONG,
    Book,
    Market,
    broker,
    down,
    lost,
    notifications,
    once_at,
    rejected,
    row,
    schedule_row,
    scheduled,
    signal_row,
    snapshot,
    store,
    strategy_row,
)
from recorder import Recorder
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo import ConfigError, InvalidTypeError, InvalidValueError, StorageError, runner
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    ExchangeUnavailableError,
    Fill,
    Live,
    OrderFailedError,
    add_broker,
    add_exchange,
    add_risk,
    add_strategy,
    close_pending,
    create_signal,
    fetch_missing,
    get_candles,
    import_candles,
    run_backtest,
)
from backtest_kit_mongo.runner.engine.journal import TakenOverError
from backtest_kit_mongo.runner.error_text import describe

pytestmark = pytest.mark.once

LIMIT = {**LONG, "priceOpen": 98.0}
LONG_FOR_HOURS = {**LONG, "minuteEstimatedTime": 600}


def idle(**options):
    """Register "hand", which returns no signal."""
    once_at(-1, None, **options)


def at_minute(number, act):
    """Return a ``get_signal`` that calls ``act`` at one minute after START only."""
    return lambda symbol, when: act() if when.timestamp() * 1000 == START + number * MINUTE else None


def in_a_thread(act):
    """Call ``act`` in another thread, as a user interface does, and wait for it, but not forever."""
    given = []
    thread = threading.Thread(target=lambda: given.append(act()))
    thread.start()
    thread.join(0.3)
    return given


def statuses(*, backtest=False):
    return [item["status"] for item in kit.PersistStorageAdapter.read_storage_data(backtest)]


class SlowMarket(Market):
    """Time advances by the seconds that the run sleeps. ``off(minute)`` is the error of the run's clock, in minutes."""

    def watch(self, until, *, off=lambda minute: 0, seen=None, **options):
        """Run up to minute ``until``, without its tick; ``seen(minute)`` is called after each sleep."""
        stop, at = threading.Event(), [self.minute * 60.0]

        def sleep(seconds):
            at[0] += seconds
            self.minute = int(at[0] // 60)
            if seen is not None:
                seen(self.minute)
            if self.minute >= until:
                stop.set()

        def true_ms():
            return START + int(at[0] * 1000)

        def fetch(*arguments, now_ms, **others):
            return self.fetch(*arguments, now_ms=true_ms(), **others)

        return Live.run(
            "BTCUSDT", exchange_name="binance", fee_percent=0, slippage_percent=0, stop=stop, sleep=sleep, fetch=fetch,
            clock=lambda: true_ms() + off(self.minute) * MINUTE, **options,
        )  # fmt: skip

    def without(self, *minutes):
        """Remove candles: on many exchanges, minutes without trades have none."""
        self.candles = self.candles[~np.isin(self.candles["timestamp"], START + MINUTE * np.array(minutes))]
        return self


# ---------------------------------------------------------------- simultaneous signals


@pytest.mark.parametrize("faults", [(), (lost(), down())], ids=["filled at once", "filled later"])
@pytest.mark.parametrize("signal", [LONG, LIMIT], ids=["market", "limit"])
@pytest.mark.parametrize("place", ["get_signal", "another thread", "validate"])
def test_a_created_signal_never_replaces_what_is_open_or_under_way(place, signal, faults):
    book, created = broker(*faults), []

    def create():
        if not created:
            created.append(create_signal(LONG, "BTCUSDT"))

    def get_signal():
        if place == "get_signal":
            create()
        elif place == "another thread":
            in_a_thread(create)
        return signal

    add_risk("hand", validate=lambda request: create() if place == "validate" else None)
    add_strategy("hand", get_signal=at_minute(10, get_signal))
    result = Market().shape("low", 97.9, *range(12, 16)).shape("high", 110.0, 20).live(40, broker_name="book")
    assert created == [True]
    assert book.sides == ["open", "close"]
    assert ([trade.close_reason for trade in result.trades], result.open_trade) == (["take_profit"], None)
    assert statuses() == ["closed"]
    assert (signal_row(), schedule_row(), strategy_row()["createdSignal"]) == (None, None, None)


def test_a_backtest_leaves_no_second_signal_open():
    def get_signal():
        assert create_signal(LONG)
        return LONG

    add_strategy("hand", get_signal=at_minute(10, get_signal))
    import_candles(Market().shape("high", 110.0, 20).candles[:60], "BTCUSDT")
    assert len(run_backtest("BTCUSDT").trades) == 1
    assert statuses(backtest=True) == ["closed"]


@pytest.mark.parametrize("action", ["stop", "pause"])
def test_a_strategy_that_stops_itself_opens_nothing(action):
    book = broker()

    def get_signal():
        assert getattr(runner, action)()
        return LONG

    add_strategy("hand", get_signal=at_minute(10, get_signal))
    result = Market().live(20, broker_name="book")
    assert (book.asked, result.open_trade, result.trades, signal_row()) == ([], None, (), None)
    assert strategy_row()["isPaused"] is (action == "pause")


# ---------------------------------------------------------------- responses of a broker


class Filling(Book):
    """A book with fills made by ``make(fill)``."""

    def __init__(self, make):
        super().__init__()
        self.make = make
        add_broker("book", self)

    def submit(self, order):
        return self.make(super().submit(order))


@pytest.mark.parametrize(
    "number", [lambda value: Decimal(str(value)), np.float32, np.float64, int, str], ids=["Decimal", "float32", "float64", "int", "str"]
)
def test_numbers_of_a_fill_may_be_of_any_kind(number):
    book = Filling(lambda fill: Fill(order_id=7, price=number(fill.price), quantity=number(fill.quantity), when_ms=number(START + MINUTE)))
    once_at(10, LONG_FOR_HOURS)
    (trade,) = Market().shape("low", 90.0, 20).live(30, broker_name="book").trades
    assert (trade.close_reason, book.sides, len(book.asked), signal_row()) == ("stop_loss", ["open", "close"], 2, None)
    assert type(trade.price_open) is float
    assert type(trade.open_timestamp) is int


@pytest.mark.parametrize("when_ms", [None, float("nan"), "soon"])
def test_a_fill_without_a_time_is_no_answer_and_its_order_is_kept(when_ms):
    book = Filling(lambda fill: Fill(order_id="x", price=fill.price, quantity=fill.quantity, when_ms=when_ms))
    once_at(10, LONG)
    with pytest.raises(OrderFailedError, match=r"failed .attempt 3.: (Type|Value)Error"):
        Market().live(30, broker_name="book", order_attempts=3)
    assert (book.sides, len(book.asked)) == (["open"], 3)
    assert strategy_row()["retryOpenSignal"] is not None
    assert signal_row() is None


@pytest.mark.parametrize(("low", "reason"), [(11, None), (12, None), (13, "stop_loss")])
@pytest.mark.parametrize("slow", ["strategy", "broker"])
def test_candles_before_the_fill_do_not_close_the_position(slow, low, reason):
    market = Market().shape("low", 94.0, low)

    def take_three_minutes():
        if market.minute == 10:
            market.minute = 13

    def make(fill):
        if slow == "broker":
            take_three_minutes()
        return Fill(order_id="x", price=fill.price, quantity=fill.quantity, when_ms=market.now + 30_000)

    def get_signal():
        if slow == "strategy":
            take_three_minutes()
        return LONG_FOR_HOURS

    book = Filling(make)
    add_strategy("hand", get_signal=at_minute(10, get_signal))
    result = market.live(30, broker_name="book")
    assert [trade.close_reason for trade in result.trades] == ([] if reason is None else [reason])
    assert (result.open_trade or result.trades[0]).open_timestamp == START + 13 * MINUTE
    assert book.sides == (["open"] if reason is None else ["open", "close"])


USER_EXITS = pytest.mark.parametrize("error", [SystemExit(0), asyncio.CancelledError("the call was cancelled")], ids=repr)


@USER_EXITS
@pytest.mark.parametrize("placed", [False, True])
def test_a_broker_that_exits_is_asked_again(error, placed):
    book = broker((None, error) if placed else (error, None))
    once_at(10, LONG)
    (trade,) = Market().shape("high", 110.0, 20).live(30, broker_name="book").trades
    assert (trade.close_reason, book.sides, len(book.asked)) == ("take_profit", ["open", "close"], 3)


@USER_EXITS
def test_a_risk_check_that_exits_refuses_the_position(error):
    def validate(request):
        raise error

    add_risk("hand", validate=validate)
    once_at(10, LONG)
    result = Market().live(20)
    assert (result.open_trade, result.trades, result.minutes) == (None, (), 10)
    assert [note["rejectionNote"] for note in notifications("risk.rejection")] == [f"risk 'hand' raised {describe(error)}"]


@USER_EXITS
def test_a_strategy_that_exits_is_asked_again(error):
    asked = []

    def get_signal(symbol, when):
        asked.append(when.minute)
        if len(asked) == 1:
            raise error
        return LONG

    add_strategy("hand", interval="5m", get_signal=get_signal)
    assert Market().live(20).open_trade.open_timestamp == START + 15 * MINUTE
    assert asked == [10, 15]


@USER_EXITS
def test_an_exchange_that_exits_is_asked_again(error):
    market = Market().shape("high", 110.0, 20)

    def get_candles(symbol, interval, since, limit):
        if 15 <= market.minute < 25:
            raise error
        return market.candles[market.candles["timestamp"] >= since][:limit] if interval == "1m" else []

    add_exchange("local", get_candles=get_candles)
    once_at(10, LONG)
    market.fetch = fetch_missing
    (trade,) = market.live(30, exchange_name="local").trades
    assert (trade.close_reason, trade.close_timestamp) == ("take_profit", START + 21 * MINUTE)


# ---------------------------------------------------------------- clocks and candles


@pytest.mark.parametrize("length", [1, 5])
def test_a_clock_that_jumps_ahead_and_comes_back_misses_no_exit(length):
    book = broker()
    once_at(10, LONG)
    market = SlowMarket().shape("low", 94.0, 30)
    result = market.watch(40, off=lambda minute: 1440 if 15 <= minute < 15 + length else 0, broker_name="book")
    assert [(trade.close_reason, trade.close_timestamp) for trade in result.trades] == [("stop_loss", START + 31 * MINUTE)]
    assert (book.sides, result.open_trade) == (["open", "close"], None)


def test_what_a_user_asks_for_after_such_a_jump_has_the_true_time():
    book = broker()
    once_at(10, LONG)
    result = SlowMarket().watch(
        30,
        off=lambda minute: 1440 if minute == 15 else 0,
        seen=lambda minute: minute == 20 and close_pending("BTCUSDT"),
        broker_name="book",
    )
    (trade,) = result.trades
    assert (trade.close_reason, book.sides) == ("closed", ["open", "close"])
    assert START + 19 * MINUTE <= trade.close_timestamp <= START + 20 * MINUTE


def test_a_clock_that_goes_back_for_a_while_misses_no_exit():
    once_at(10, LONG)
    result = SlowMarket().shape("low", 94.0, 16).watch(40, off=lambda minute: -5 if 15 <= minute < 20 else 0)
    assert [(trade.close_reason, trade.close_timestamp) for trade in result.trades] == [("stop_loss", START + 17 * MINUTE)]


@pytest.mark.parametrize("hole", [(19,), (21,), (25, 26, 27), (38,)])
def test_an_exit_is_found_across_holes_in_the_candles_of_a_downtime(hole):
    once_at(10, LONG_FOR_HOURS)
    market = SlowMarket().shape("low", 94.0, 20).without(*hole)
    market.live(15)
    market.minute = 40
    (trade,) = market.live(41).trades
    assert (trade.close_reason, trade.close_timestamp) == ("stop_loss", START + 21 * MINUTE)


def test_a_strategy_is_asked_in_a_market_that_often_has_no_candle():
    asked = []
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: asked.append(when.minute))
    SlowMarket().without(12, 13, 17, 22, 27, 28, 33, 38, 43, 48, 53).watch(60)
    assert asked == [10, 15, 20, 25, 30, 35, 40, 45, 50, 55]


def test_a_user_closes_while_no_candle_comes():
    book = broker()
    once_at(10, LONG)
    market = SlowMarket().without(*range(15, 45))
    result = market.watch(25, seen=lambda minute: minute == 20 and close_pending("BTCUSDT"), broker_name="book")
    assert book.sides == ["open", "close"]
    assert [trade.close_reason for trade in result.trades] == ["closed"]


def test_an_order_without_an_answer_is_asked_for_once_a_minute():
    """It is not asked for every second while the run waits for the candle of the minute."""
    book = broker(*[down()] * 9)
    once_at(10, LONG)
    SlowMarket().without(*range(10, 20)).watch(16, broker_name="book")
    assert len(book.asked) == 6  # in minutes 10 to 15


def test_an_exchange_that_fails_inside_get_signal_costs_no_interval():
    market, asked = Market(), []

    def get_signal(symbol, when):
        asked.append(when.minute)
        get_candles("ETHUSDT", "1m", 3)
        return LONG

    fetch = market.fetch

    def failing(symbol, *arguments, **options):
        if symbol == "ETHUSDT" and market.minute == 60:
            raise ExchangeUnavailableError("no route to host")
        return fetch(symbol, *arguments, **options)

    market.minute, market.fetch = 60, failing
    add_strategy("hand", interval="1h", get_signal=get_signal)
    assert market.live(70).open_trade.open_timestamp == START + 61 * MINUTE
    assert asked == [0, 1]


def test_a_scheduled_signal_is_told_once_however_often_the_exchange_fails():
    told, market = [], Market()
    once_at(10, LIMIT, on_schedule=lambda event: told.append(event.when.minute))
    fetch = market.fetch

    def failing(*arguments, **options):
        if 15 <= market.minute < 20:
            raise ConnectionError("no route to host")
        return fetch(*arguments, **options)

    market.fetch = failing
    market.live(25)
    assert told == [10]


# ---------------------------------------------------------------- servers and disks


def test_a_disk_that_is_full_for_the_log_does_not_stop_a_live_run(tmp_path):
    kit.setup(stores={**dict.fromkeys(DOMAINS, "memory"), "log": "jsonl"}, CC_DUMP_DIR=tmp_path)
    try:
        book = broker()
        once_at(15, LONG)

        def fill_disk(minute):
            if minute == 12:
                (file,) = tmp_path.glob("log/*.jsonl")
                file.unlink()
                file.symlink_to("/dev/full")

        (trade,) = Market().shape("low", 90.0, 20).live(30, broker_name="book", kill=fill_disk).trades
        assert (trade.close_reason, trade.close_timestamp, book.sides) == ("stop_loss", START + 21 * MINUTE, ["open", "close"])
        assert len(book.asked) == 2
    finally:
        kit.close()


def test_notifications_that_cannot_be_written_do_not_stop_a_live_run(monkeypatch):
    book = broker()
    once_at(10, LONG)

    def full(*arguments):
        raise StorageError("no space left on device")

    monkeypatch.setattr(kit.PersistNotificationAdapter, "write_notification_data", full)
    (trade,) = Market().shape("high", 110.0, 20).live(30, broker_name="book").trades
    assert (trade.close_reason, trade.close_timestamp, book.sides) == ("take_profit", START + 21 * MINUTE, ["open", "close"])
    assert len(book.asked) == 2


def test_a_trade_is_counted_once_whichever_write_of_it_fails(monkeypatch):
    def play(fail_at):
        clear_registered()
        use_memory()
        broker()
        add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LONG if 10 <= when.minute < 15 else None)
        with monkeypatch.context() as patch:
            recorder = Recorder(patch, fail_at)
            result = Market().shape("high", 110.0, 20).live(40, broker_name="book")
        return result, recorder

    result, recorder = play(None)
    for number in range(1, recorder.order.count("strategy")):
        again, _ = play(("strategy", number))
        assert [trade.id for trade in again.trades] == [trade.id for trade in result.trades]
        assert again.totals.trades == 1


@pytest.mark.parametrize("number", [0, 1], ids=["before", "amid"])
def test_a_close_that_a_user_asks_for_around_a_restore_is_not_lost(monkeypatch, number):
    book = broker()
    once_at(10, LONG)
    market, asked, reads = Market(), [], []
    read, fetch = kit.PersistStrategyAdapter.read_strategy_data, market.fetch

    def failing(*arguments, **options):
        if market.minute == 15:
            raise ConnectionError("no route to host")
        return fetch(*arguments, **options)

    def reading(*context):
        stored = read(*context)
        if market.minute == 16 and threading.current_thread() is threading.main_thread():
            reads.append(stored)
            if len(reads) == number + 1:  # 0: who owns the records, 1: what to resume
                asked.append(in_a_thread(lambda: close_pending("BTCUSDT")))
        return stored

    market.fetch = failing
    monkeypatch.setattr(kit.PersistStrategyAdapter, "read_strategy_data", reading)
    # Give the waiting thread its turn: minutes that take no real time would not.
    (trade,) = market.live(30, broker_name="book", kill=lambda minute: minute == 16 and wait_for(lambda: not asked or asked[0])).trades
    assert (trade.close_reason, book.sides) == ("closed", ["open", "close"])
    assert asked == [[True]]


# ---------------------------------------------------------------- several runs on one database


def test_of_two_processes_the_second_one_goes_on_and_no_order_is_doubled(settings):
    one, two = kit.Registry(), kit.Registry()
    for registry in (one, two):
        registry.setup(settings, stores={"log": "memory"})
    book, later = broker(), []
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)

    def second(minute):
        if minute == 15 and not later:
            other = Market(market.candles)
            other.minute = 15
            later.append(other.live(30, registry=two, broker_name="book"))

    with pytest.raises(TakenOverError):
        market.live(40, registry=one, broker_name="book", kill=second)
    assert [trade.close_reason for trade in later[0].trades] == ["take_profit"]
    assert book.sides == ["open", "close"]
    assert len(book.asked) == 2
    for registry in (one, two):
        registry.close()


@pytest.mark.parametrize(("first", "second"), [("live", "paper"), ("paper", "live")])
def test_paper_and_live_do_not_share_records_though_nothing_is_open(first, second):
    """The flat one may be running, and may open a position later."""
    broker()
    idle()
    names = {"live": "book", "paper": None}
    Market().live(15, broker_name=names[first])
    with pytest.raises(InvalidValueError, match=rf"has the records of a {first} run in this database; a {second} run would take them over"):
        Market().live(15, broker_name=names[second])


LIVE_AT = START + 10_000_000 * MINUTE
"""The time of a live run: long after the window of any backtest."""


def live_slot(symbol):
    held = {"strategyName": "hand", "exchangeName": "binance", "frameName": "", "symbol": symbol, "position": "long", "priceOpen": 100.0,
            "priceStopLoss": 95.0, "priceTakeProfit": 110.0, "minuteEstimatedTime": 600, "openTimestamp": LIVE_AT}  # fmt: skip
    return [f"hand_binance_{symbol}", held]


LIVE_ROWS = {
    "signal": (lambda: store(signal=row("live-one")), lambda: signal_row()["id"], "live-one"),
    "schedule": (lambda: store(schedule=scheduled("live-one")), lambda: schedule_row()["id"], "live-one"),
    "strategy": (
        lambda: store(strategy=snapshot(retryOpenSignal=row("live-one"), retryOpenCount=1, _mode="live")),
        lambda: strategy_row()["retryOpenSignal"]["id"],
        "live-one",
    ),
    "risk": (
        lambda: kit.PersistRiskAdapter.write_position_data([live_slot("BTCUSDT")], "hand", "binance", LIVE_AT),
        lambda: kit.PersistRiskAdapter.read_position_data("hand", "binance", LIVE_AT),
        [live_slot("BTCUSDT")],
    ),
}


@pytest.mark.parametrize("look_ahead", ["off", "hide"])
@pytest.mark.parametrize("what", LIVE_ROWS)
def test_a_backtest_does_not_overwrite_what_a_live_run_writes_meanwhile(settings, what, look_ahead):
    kit.setup({**settings, "CC_LOOK_AHEAD": look_ahead}, stores={"log": "memory"})
    write, read, expected = LIVE_ROWS[what]

    def get_signal(symbol, when):
        if (when.hour, when.minute) == (0, 20):
            write()  # as a live run does in another process
        return (LIMIT if what == "schedule" else LONG) if when.minute == 30 else None

    add_strategy("hand", interval="5m", get_signal=get_signal, on_active_ping=lambda event: what == "strategy" and close_pending())
    import_candles(flat(150), "BTCUSDT")
    with pytest.raises(kit.BacktestKitError, match="another database"):
        run_backtest("BTCUSDT")
    assert read() == expected


@pytest.mark.parametrize("look_ahead", ["off", "hide"])
def test_a_backtest_leaves_the_slots_of_live_positions_that_share_its_risk(settings, look_ahead):
    kit.setup({**settings, "CC_LOOK_AHEAD": look_ahead}, stores={"log": "memory"})
    kit.PersistRiskAdapter.write_position_data([live_slot("ETHUSDT")], "all", "binance", LIVE_AT)
    once_at(10, LONG, risk_name="all")
    import_candles(flat(90), "BTCUSDT")
    assert len(run_backtest("BTCUSDT").trades) == 1
    assert kit.PersistRiskAdapter.read_position_data("all", "binance", LIVE_AT + MINUTE) == [live_slot("ETHUSDT")]


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("attempts", "error", "words"),
    [
        (0, InvalidValueError, "order_attempts is 0; it must be at least 1"),
        (-1, InvalidValueError, "order_attempts is -1; it must be at least 1"),
        ("3", InvalidTypeError, "order_attempts must be an int, got str"),
        (None, InvalidTypeError, "order_attempts must be an int, got NoneType"),
        (1.5, InvalidTypeError, "order_attempts must be an int, got float"),
        (True, InvalidTypeError, "order_attempts must be an int, got bool"),
    ],
)
def test_order_attempts_must_be_a_number_of_orders(attempts, error, words):
    once_at(10, LONG)
    with pytest.raises(error, match=words):
        Market().live(12, order_attempts=attempts)


@pytest.mark.parametrize("seconds", ["0", "-1", "61", "1e12", "inf", "nan", "often"])
def test_a_run_looks_at_the_market_at_least_once_a_minute(monkeypatch, seconds):
    monkeypatch.setenv("CC_TICK_SECONDS", seconds)
    once_at(10, LONG)
    with pytest.raises(ConfigError, match=r"CC_TICK_SECONDS (is 'often'; it must be a number|must be above 0 and at most 60, got)"):
        Market().live(12)
    assert strategy_row() is None


def test_a_rejected_order_after_unknown_ones_ends_the_signal():
    book = broker(down(), rejected())
    once_at(10, LONG)
    result = Market().live(20, broker_name="book")
    assert (result.open_trade, result.trades, book.sides, len(book.asked)) == (None, (), [], 2)
    assert kit.PersistStrategyAdapter.read_strategy_data(*CONTEXT)["retryOpenSignal"] is None
