"""Live and paper runs: the same trades as a backtest, each order once, errors that do not end the run."""

import itertools
import threading
import time

import msgspec
import pytest
from hand_market import MINUTE, START, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from live_market import CONTEXT, LONG, Killed, Market, broker, down, lost, notifications, once_at, rejected, signal_row, strategy_row
from recorder import Recorder

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, payloads
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    Interval,
    Live,
    Measure,
    Memory,
    OrderFailedError,
    Session,
    State,
    TakenOverError,
    add_exchange,
    add_risk,
    add_strategy,
    cancel_scheduled,
    close_pending,
    fetch_missing,
    get_candles,
    get_raw_candles,
    imported_spans,
    run_backtest,
    stop,
    synthetic_market,
)

pytestmark = pytest.mark.once

LIMIT = {**LONG, "priceOpen": 98.0}


def shape(trade):
    """Return a trade without its id, which the frame is part of."""
    return msgspec.structs.astuple(trade)[1:]


# ---------------------------------------------------------------- the same machine


def swing(symbol, when):
    price = get_candles(symbol, "1m", 1)[-1]["close"]
    side = 1 if when.hour % 2 else -1
    return {
        "position": "long" if side == 1 else "short",
        "priceTakeProfit": price * (1 + side * 0.02),
        "priceStopLoss": price * (1 - side * 0.02),
        "minuteEstimatedTime": 37,
        **({"priceOpen": price * (1 - side * 0.002)} if when.minute % 10 == 0 else {}),
    }


def market_swing(symbol, when):
    """The same without limits: a limit that is touched in a minute in which nothing could be written is not filled later."""
    return {key: value for key, value in swing(symbol, when).items() if key != "priceOpen"}


@pytest.mark.parametrize("broker_name", [None, "book"])
def test_live_and_paper_trade_as_a_backtest_does(broker_name):
    candles = synthetic_market(4, 900, START)
    book = broker()
    add_strategy("hand", interval="5m", get_signal=swing)
    live = Market(candles).live(899, broker_name=broker_name)
    use_memory()
    kit.PersistCandleAdapter.write_candles_data(candles, "BTCUSDT", "1m", "binance")
    test = run_backtest("BTCUSDT", start_ms=START + 5 * MINUTE, end_ms=START + 900 * MINUTE, fee_percent=0, slippage_percent=0)
    assert len(test.trades) > 10
    expected = [trade for trade in test.trades if trade.open_timestamp >= START + 10 * MINUTE]
    assert [shape(trade) for trade in live.trades] == [shape(trade) for trade in expected][: len(live.trades)]
    assert len(live.trades) >= len(expected) - 1
    assert len(book.orders) == (0 if broker_name is None else len(book.asked))


def test_rows_of_a_live_run_have_no_frame_and_are_no_backtest(monkeypatch):
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)
    recorder = Recorder(monkeypatch)
    result = market.live(30)
    (trade,) = result.trades
    assert (trade.close_reason, trade.close_timestamp, result.frame_name) == ("take_profit", START + 21 * MINUTE, "")
    opened = msgspec.convert(recorder.of("signal")[0][0], payloads.SignalRow)
    assert (opened.frame_name, opened.id) == ("", trade.id)
    assert kit.PersistStorageAdapter.read_storage_data(True) == []
    assert [row["status"] for row in kit.PersistStorageAdapter.read_storage_data(False)] == ["closed"]
    assert kit.PersistRecentAdapter.read_recent_data(*CONTEXT, "", False)["id"] == trade.id
    session = kit.PersistSessionAdapter.read_session_data("hand", "binance", "", "BTCUSDT", False)
    assert session["id"] == "BTCUSDT:hand:binance:live"
    assert (session["data"]["status"], session["data"]["trades"]) == ("stopped", 1)
    assert {note["backtest"] for note in notifications()} == {False}
    msgspec.convert(strategy_row(), payloads.StrategyData)


def test_p7_p11_p12_the_writes_of_a_life(monkeypatch):
    """The opened row comes first, one null follows each close, and every domain that the engine owns is written."""
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: LIMIT if when.minute == 10 else LONG if when.minute == 30 else None)
    market = Market().shape("low", 97.0, 12).shape("high", 110.0, 20, 40)
    recorder = Recorder(monkeypatch)
    assert len(market.live(50).trades) == 2
    ids = [arguments[0] and arguments[0]["id"] for arguments in recorder.of("signal")]
    rows = [signal_id for signal_id in ids if signal_id is not None]
    assert ids[0] is not None
    assert ids.count(None) == len(set(rows)) == 2
    assert set(recorder.order) == {
        "signal", "schedule", "strategy", "risk", "partial", "breakeven", "storage", "recent", "state", "notification", "session", "log",
    }  # fmt: skip


def test_p12_one_life_with_the_facades_touches_every_contract(monkeypatch):
    """All but Dictionary, which is not one of the sixteen and has no facade in the framework either."""
    pings, notes = State("pings", 0), Memory("notes")

    @Measure.cached("1h", bucket="opinions")
    def opinion(symbol):
        return {"up": True}

    @Interval.once("1h")
    def hourly(symbol):
        return opinion(symbol)

    def ping(event):
        pings.update(lambda count: count + 1)
        notes.write("ping", {"price": event.price}, "a quiet minute")
        Session.update(lambda data: {"pings": (data or {"pings": 0})["pings"] + 1})

    def get_signal(symbol, when):
        return LIMIT if when.minute == 10 and hourly(symbol) else None

    add_strategy("hand", interval="5m", get_signal=get_signal, on_active_ping=ping)
    recorder = Recorder(monkeypatch)
    (trade,) = Market().shape("low", 97.0, 12).shape("high", 110.0, 20).live(30).trades
    assert trade.close_reason == "take_profit"
    assert set(recorder.order) | {"candle", "measure"} == set(DOMAINS) - {"dictionary"}
    assert len(list(kit.PersistMeasureAdapter.list_measure_data("opinions"))) == 1
    assert kit.PersistCandleAdapter.read_candles_data("BTCUSDT", "1m", "binance", 5, START + 5 * MINUTE, START + 10 * MINUTE)


def test_a_decision_is_written_before_its_order_and_the_position_after_it(monkeypatch):
    book = broker()
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    submit = book.submit
    monkeypatch.setattr(book, "submit", lambda order: recorder.writes.append((order.action, b"")) or submit(order))
    market = Market().shape("high", 110.0, 10)
    (trade,) = market.live(11, broker_name="book").trades
    assert recorder.order == [
        "strategy", "session", "log",
        "risk", "strategy", "open", "signal", "storage", "recent", "state", "notification", "log", "strategy",
        "strategy", "close", "storage", "recent", "state", "risk", "signal", "notification", "session", "log", "strategy",
        "session", "log",
    ]  # fmt: skip
    _, armed, opened, closing, done = recorder.of("strategy")
    assert (armed[0]["retryOpenSignal"]["id"], armed[0]["retryOpenCount"], armed[0]["lastPendingId"]) == (trade.id, 1, trade.id)
    assert (opened[0]["retryOpenSignal"], opened[0]["pendingSignalId"]) == (None, trade.id)
    assert (closing[0]["takeProfitSignal"]["id"], closing[0]["retryCloseCount"]) == (trade.id, 1)
    assert (done[0]["takeProfitSignal"], done[0]["pendingSignalId"], done[0]["lastPendingId"]) == (None, None, trade.id)


def test_orders_say_what_to_trade():
    book = broker(price=100.5)
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)
    result = market.live(30, broker_name="book", stake_usd=250.0)
    opened, closed = book.orders.values()
    assert (opened.action, opened.position, opened.symbol, opened.price, opened.quantity) == ("open", "long", "BTCUSDT", 100.0, 2.5)
    assert (closed.action, closed.price, closed.quantity, closed.percent) == ("close", 110.0, 2.5, 100.0)
    assert (opened.strategy_name, opened.exchange_name, opened.signal_id) == ("hand", "binance", result.trades[0].id)
    assert opened.client_id != closed.client_id
    assert all(len(order.client_id) == 32 for order in (opened, closed))
    # The price of the fill counts.
    assert (result.trades[0].price_open, result.trades[0].price_close) == (100.5, 100.5)


# ---------------------------------------------------------------- orders that fail


@pytest.mark.parametrize("fault", [lost, down])
def test_an_unknown_outcome_is_asked_for_again_with_the_same_id(fault):
    book = broker(fault(), fault(), (None, None), fault())
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)
    (trade,) = market.live(30, broker_name="book").trades
    assert book.sides == ["open", "close"]
    assert [order.action for order in book.asked] == ["open", "open", "open", "close", "close"]
    assert len({order.client_id for order in book.asked}) == 2
    assert (trade.open_timestamp, trade.close_timestamp) == (START + 10 * MINUTE, START + 21 * MINUTE)


def test_a_rejected_signal_is_not_asked_for_again():
    book = broker(rejected())
    once_at(10, LONG)
    market = Market()
    result = market.live(20, broker_name="book")
    assert (result.trades, result.open_trade, signal_row()) == ((), None, None)
    assert len(book.asked) == 1
    (note,) = notifications("order_reject.open")
    assert msgspec.convert(note, payloads.NotificationModel).message == "no funds"
    assert kit.PersistRiskAdapter.read_position_data("hand", "binance", START) == []


def test_x26_exhaustion_of_an_open_is_persisted_before_the_run_ends(monkeypatch):
    book = broker(*[down()] * 9)
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    market = Market()
    with pytest.raises(
        OrderFailedError, match=r"order to open .* failed .attempt 3.: ConnectionError: the exchange is down(.|\n)*look for this order"
    ):
        market.live(30, broker_name="book", order_attempts=3)
    assert len(book.asked) == 3
    # Unlike in the TypeScript package it stays: an order without a response may have been filled.
    assert strategy_row()["retryOpenSignal"] is not None
    order = recorder.order
    last = len(order) - 1 - order[::-1].index("strategy")
    assert "notification" in order[last:]
    assert "error.critical" in {note["type"] for note in notifications()}
    assert [arguments[0]["retryOpenCount"] for arguments in recorder.of("strategy")] == [0, 1, 2, 3, 0]


def test_x26_exhaustion_of_a_close_keeps_the_position(monkeypatch):
    book = broker((None, None), down(), rejected(), down())
    once_at(10, LONG)
    recorder = Recorder(monkeypatch)
    market = Market().shape("high", 110.0, 20)
    with pytest.raises(OrderFailedError, match="order to close"):
        market.live(30, broker_name="book", order_attempts=3)
    assert [arguments[0]["retryCloseCount"] for arguments in recorder.of("strategy")][-4:] == [1, 2, 3, 0]
    assert strategy_row()["takeProfitSignal"] is not None
    assert signal_row() is not None
    assert len(notifications("order_reject.close")) == 1
    (trade,) = market.live(40, broker_name="book").trades
    assert (book.sides, trade.close_reason) == (["open", "close"], "take_profit")


def test_a_broker_that_fills_nonsense_is_not_believed():
    broker(price=float("nan"))
    once_at(10, LONG)
    with pytest.raises(OrderFailedError, match=r"the broker reported a fill of 1.0 at nan"):
        Market().live(30, broker_name="book", order_attempts=2)
    assert signal_row() is None


# ---------------------------------------------------------------- errors that a run survives


def test_a_strategy_that_raises_is_told_and_asked_again():
    asked = []

    def get_signal(symbol, when):
        asked.append(when.minute)
        if when.minute < 20:
            raise RuntimeError("not now")
        return LONG if when.minute == 20 else None

    add_strategy("hand", interval="5m", get_signal=get_signal, on_open=lambda event: 1 // 0)
    result = Market().live(30)
    assert asked == [10, 15, 20]
    assert result.open_trade.open_timestamp == START + 20 * MINUTE
    messages = [note["message"] for note in notifications("error.info")]
    assert ["RuntimeError: not now" in message for message in messages] == [True, True, False]
    assert "ZeroDivisionError" in messages[-1]


def test_an_exchange_that_fails_is_asked_again(monkeypatch):
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)
    fetch, failures = market.fetch, {19, 20, 21, 22}

    def failing(*arguments, **options):
        if market.minute in failures:
            raise ConnectionError("no route to host")
        return fetch(*arguments, **options)

    market.fetch = failing
    (trade,) = market.live(30).trades
    # The run catches up: the target was met in minute 20.
    assert (trade.close_reason, trade.close_timestamp) == ("take_profit", START + 21 * MINUTE)
    assert len(notifications("error.info")) == 4


def test_a_candle_that_is_late_is_waited_for():
    once_at(10, LONG)
    market = Market()
    naps = []
    fetch = market.fetch
    market.fetch = lambda *arguments, now_ms, **options: fetch(*arguments, now_ms=now_ms - (0 if len(naps) > 3 else MINUTE), **options)
    stopping = threading.Event()

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 6:
            stopping.set()

    result = Live.run("BTCUSDT", exchange_name="binance", stop=stopping, clock=lambda: market.now, sleep=sleep, fetch=market.fetch)
    assert naps[:4] == [1.0] * 4
    assert naps[4] == 60.0
    assert result.open_trade.open_timestamp == START + 10 * MINUTE


@pytest.mark.parametrize(
    "domain", ["strategy", "risk", "signal", "storage", "recent", "state", "notification", "session", "log", "partial"]
)
@pytest.mark.parametrize("broker_name", [None, "book"])
def test_a_server_that_is_gone_for_one_write_changes_no_trade(monkeypatch, domain, broker_name):
    """Each write of each domain fails once, in turn; afterwards the run continues with the stored records."""

    def play(fail_at):
        use_memory()
        market = Market(synthetic_market(4, 120, START))
        with monkeypatch.context() as patch:
            recorder = Recorder(patch, fail_at)
            result = market.live(110, broker_name=broker_name)
        return result, recorder.order.count(domain)

    book = broker()
    add_strategy("hand", interval="5m", get_signal=market_swing)
    clean, count = play(None)
    orders = dict(book.orders)
    assert len(clean.trades) >= 2
    start_up = {"strategy": 1, "session": 1, "log": 1}.get(domain, 0)  # a run that cannot start says so
    for number in sorted({start_up, start_up + 1, start_up + 2, count // 2, count - 3} & set(range(start_up, count - 1))):
        book.orders.clear()
        result, _ = play((domain, number))
        assert {trade.id for trade in result.trades} == {trade.id for trade in clean.trades}
        assert set(book.orders) == set(orders)
        stored = {row["id"]: row["status"] for row in kit.PersistStorageAdapter.read_storage_data(False)}
        assert all(stored[trade.id] == "closed" for trade in clean.trades)


# ---------------------------------------------------------------- a registered exchange


def test_candles_come_from_the_registered_exchange():
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 20)

    @add_exchange("local")
    def get_candles(symbol, interval, since, limit):
        return market.candles[market.candles["timestamp"] >= since][:limit] if interval == "1m" else []

    market.fetch = fetch_missing
    (trade,) = market.live(30, exchange_name=None).trades
    assert (trade.close_reason, trade.close_timestamp) == ("take_profit", START + 21 * MINUTE)
    # Only candles that had closed at the time of the run were requested and stored.
    assert imported_spans("BTCUSDT", "1m", "local")[-1][1] == START + 30 * MINUTE


def test_an_unknown_exchange_or_broker_is_named_at_the_start():
    once_at(10, LONG)
    with pytest.raises(InvalidValueError, match="no exchange 'nowhere' is registered"):
        Live.run("BTCUSDT", exchange_name="nowhere")
    with pytest.raises(InvalidValueError, match=r"no broker 'mine' is registered(.|\n)*add_broker"):
        Market().live(20, broker_name="mine")


# ---------------------------------------------------------------- what a live run offers


def test_stop_lets_the_position_go_on_to_its_exit():
    add_strategy(
        "hand", interval="5m", get_signal=lambda symbol, when: LONG, on_tick=lambda event: stop() if event.when.minute == 12 else None
    )
    market = Market().shape("high", 110.0, 20)
    result = market.live(50)
    assert len(result.trades) == 1
    assert result.end_ms == START + 21 * MINUTE  # it ends by itself


def test_a_user_closes_from_a_ping_and_the_broker_is_asked():
    book = broker()
    once_at(10, LONG, on_active_ping=lambda event: close_pending() if event.when.minute == 15 else None)
    (trade,) = Market().live(20, broker_name="book").trades
    assert (trade.close_reason, trade.close_timestamp, book.sides) == ("closed", START + 15 * MINUTE, ["open", "close"])


def test_a_cancel_that_comes_before_the_order_is_sent_is_in_time(monkeypatch):
    book = broker()
    once_at(10, LIMIT, risk_name="all")
    # The risk check is user code, called after it is decided that the signal opens.
    asked = []
    add_risk("all", validate=lambda request: asked.append(len(asked) == 1 and cancel_scheduled()))
    market = Market().shape("low", 97.0, 12).shape("high", 110.0, 20)
    assert market.live(30, broker_name="book").trades == ()
    assert (asked, book.sides) == ([False, True], [])
    assert len(notifications("signal.cancelled")) == 1
    assert (signal_row(), strategy_row()["cancelledSignal"]) == (None, None)


def test_a_cancel_that_comes_while_the_order_is_on_its_way_is_too_late():
    book = broker()
    once_at(10, LIMIT)
    submit = book.submit

    def cancelled(order):
        assert not cancel_scheduled("BTCUSDT")
        return submit(order)

    book.submit = cancelled
    (trade,) = Market().shape("low", 97.0, 12).shape("high", 110.0, 20).live(30, broker_name="book").trades
    assert (trade.close_reason, book.sides) == ("take_profit", ["open", "close"])
    assert notifications("signal.cancelled") == []


def test_an_order_without_an_answer_is_asked_for_by_the_next_run():
    """It may have been filled: an order that may be on the exchange is never forgotten."""
    book = broker(*[down()] * 3)
    once_at(10, LONG)
    market = Market().shape("high", 110.0, 30)
    with pytest.raises(OrderFailedError):
        market.live(20, broker_name="book", order_attempts=3)
    (trade,) = market.live(40, broker_name="book").trades
    assert len({order.client_id for order in book.asked if order.action == "open"}) == 1
    assert (trade.close_reason, book.sides) == ("take_profit", ["open", "close"])


def test_a_second_run_takes_over_and_the_first_one_ends():
    broker()
    once_at(10, LONG)
    market = Market()

    def second(minute):
        if minute == 15:
            strategy = kit.PersistStrategyAdapter.read_strategy_data("BTCUSDT", "hand", "binance")
            kit.PersistStrategyAdapter.write_strategy_data(strategy | {"_owner": "another"}, "BTCUSDT", "hand", "binance")

    with pytest.raises(TakenOverError, match="another run of 'hand' on BTCUSDT of binance has taken over"):
        market.live(30, broker_name="book", kill=second)
    assert strategy_row()["_owner"] == "another"
    assert signal_row() is not None


def test_a_signal_is_only_asked_for_once_in_its_interval():
    asked = []
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: asked.append(when.minute))
    market = Market()
    market.minute = 8
    market.live(14)
    assert asked == [10]
    # A delayed tick still asks, once.
    market.minute = 14
    jumps = iter([17, 18, 22, 24])

    def kill(minute):
        market.minute = next(jumps) - 1

    market.live(22, kill=kill)
    assert asked == [10, 17, 22]


def test_live_candles_are_fetched_when_a_strategy_asks():
    candles = []

    def get_signal(symbol, when):
        candles.append((get_candles(symbol, "1m", 30), get_raw_candles("ETHUSDT", "1m", limit=3)))

    add_strategy("hand", interval="5m", get_signal=get_signal)
    market = Market()
    market.minute = 100
    market.live(101)
    assert notifications("error.info") == []
    ((mine, other),) = candles
    assert [len(mine), len(other)] == [30, 3]
    assert mine[-1]["timestamp"] == other[-1]["timestamp"] == START + 99 * MINUTE


def test_risk_limits_count_what_other_live_runs_have_stored():
    add_risk("all", max_positions=1)
    kit.PersistRiskAdapter.write_position_data(
        [["other_binance_X", {"strategyName": "other", "frameName": "", "minuteEstimatedTime": None, "openTimestamp": START}]],
        "all", "binance", START,
    )  # fmt: skip
    once_at(10, LONG, risk_name="all")
    result = Market().live(20)
    assert (result.trades, result.open_trade) == ((), None)
    assert len(notifications("risk.rejection")) == 1


def test_paper_does_not_take_over_what_is_live():
    broker()
    once_at(10, LONG)
    market = Market()
    market.live(15, broker_name="book")
    before = signal_row(), strategy_row()
    with pytest.raises(InvalidValueError, match=r"'hand' on BTCUSDT of binance has the records of a live run(.|\n)*a separate database"):
        market.live(20)
    assert (signal_row(), strategy_row()) == before


def test_the_same_run_twice_in_one_process_is_refused():
    once_at(10, LONG)
    market = Market()

    def kill(minute):
        with pytest.raises(InvalidValueError, match="a live run of 'hand' on BTCUSDT of binance is already running"):
            Market().live(20)
        raise Killed

    with pytest.raises(Killed):
        market.live(20, kill=kill)


def test_a_background_run_ends_with_its_minute(monkeypatch):
    monkeypatch.setenv("CC_TICK_SECONDS", "0.05")
    once_at(10, LONG)
    market = Market()
    handle = Live.background("BTCUSDT", exchange_name="binance", clock=lambda: market.now, fetch=market.fetch)
    deadline = time.monotonic() + 60
    while signal_row() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    handle.stop()
    assert handle.result(60).open_trade is not None
    assert signal_row() is not None


def test_two_symbols_strategies_and_exchanges_live_side_by_side():
    """All run in one process, on one database, in threads."""

    def get_signal(symbol, when):
        return {**LONG, "note": symbol} if when.minute == 10 else None

    add_strategy("one", interval="5m", get_signal=get_signal)
    add_strategy("two", interval="5m", get_signal=get_signal)
    markets, handles = {}, {}
    contexts = [(s, n, e) for s in ("BTCUSDT", "ETHUSDT") for n in ("one", "two") for e in ("binance", "kraken")]
    for context in contexts:
        symbol, name, exchange = context
        # Both strategies of a symbol and exchange see the same candles, whoever stores one first.
        market = markets[context] = Market(flat(100)).shape("high", 110.0, 20 + 2 * (symbol == "ETHUSDT") + (exchange == "kraken"))
        handles[context] = Live.background(
            symbol, strategy_name=name, exchange_name=exchange, clock=lambda market=market: market.now, fetch=market.fetch,
            sleep=lambda seconds, market=market: setattr(market, "minute", min(market.minute + 1, 60)),
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while any(market.minute < 60 for market in markets.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    for handle in handles.values():
        handle.stop()
    ids = set()
    for (symbol, name, exchange), handle in handles.items():
        (trade,) = handle.result(60).trades
        assert (trade.symbol, trade.strategy_name) == (symbol, name)
        recent = kit.PersistRecentAdapter.read_recent_data(symbol, name, exchange, "", False)
        assert (recent["id"], recent["note"]) == (trade.id, symbol)
        assert kit.PersistSignalAdapter.read_signal_data(symbol, name, exchange) is None
        ids.add(trade.id)
    assert len(ids) == 8


def test_a_position_whose_time_is_over_is_closed_though_no_candle_comes():
    book = broker()
    once_at(10, {**LONG, "minuteEstimatedTime": 20})
    market = Market()
    market.candles = market.candles[:15]  # nothing is traded from then on
    looks = itertools.count()
    (trade,) = Live.run(
        "BTCUSDT",
        exchange_name="binance",
        broker_name="book",
        fee_percent=0,
        slippage_percent=0,
        clock=lambda: START + 10 * MINUTE + next(looks) * 5_000,
        sleep=lambda seconds: stop("BTCUSDT") if book.sides == ["open", "close"] else None,
        fetch=market.fetch,
    ).trades
    assert (trade.close_reason, book.sides) == ("time_expired", ["open", "close"])
    assert trade.close_timestamp == START + 30 * MINUTE
