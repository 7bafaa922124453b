"""Partial closes, further entries, stops and targets that move: in backtests, on paper, live, and after a kill at every step."""

from __future__ import annotations

import random

import msgspec
import pytest
from account import Account
from hand_market import MINUTE, START, clear_registered, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from live_market import (
    LONG,
    SHORT,
    Book,
    Crashing,
    Killed,
    Market,
    broker,
    down,
    lost,
    notifications,
    once_at,
    rejected,
    row,
    signal_row,
    snapshot,
    store,
    strategy_row,
)

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, ServerUnavailableError, payloads
from backtest_kit_mongo.runner import (
    Fill,
    OrderFailedError,
    OutsideRunError,
    add_broker,
    add_strategy,
    average_buy,
    close_partial,
    close_pending,
    import_candles,
    run_backtest,
    synthetic_market,
    trailing_stop,
    trailing_take,
)

pytestmark = pytest.mark.once

LONG_FOR_HOURS = {**LONG, "minuteEstimatedTime": 300}


def managed(script, signal=LONG, opens_at=10, **callbacks):
    """Register "hand", which opens ``signal``, and calls the functions of ``script`` by minute while the position is open."""
    answers = []

    def ping(event):
        for act in script.get((int(event.when.timestamp() * 1000) - START) // MINUTE, ()):
            answers.append(act(event))

    once_at(opens_at, signal, on_active_ping=ping, **callbacks)
    return answers


def steps(*prices):
    """Return candles that stand at a price for ten minutes each, so that from the fifth on the price of the run is exactly that."""
    market = flat(10 * len(prices))
    for number, price in enumerate(prices):
        for column in ("open", "high", "low", "close"):
            market[column][10 * number : 10 * number + 10] = price
    return market


def replay(market, **options):
    import_candles(market, "BTCUSDT")
    return run_backtest("BTCUSDT", fee_percent=0, slippage_percent=0, **options)


def told(kind, *, backtest=False):
    return [note for note in kit.PersistNotificationAdapter.read_notification_data(backtest) if note["type"] == kind]


# ---------------------------------------------------------------- by hand, in a backtest


def test_half_is_closed_on_the_way():
    answers = managed({25: [lambda event: close_partial(50)]})
    (trade,) = replay(steps(100, 100, 104, 110)).trades
    assert answers == [True]
    assert (trade.close_reason, trade.entries, trade.partials, trade.stakes) == ("take_profit", 1, 1, 1.0)
    assert trade.pnl_percentage == pytest.approx(0.5 * 4 + 0.5 * 10)
    (note,) = told("partial_profit.commit", backtest=True)
    assert (note["percentToClose"], note["currentPrice"], note["timestamp"]) == (50.0, 104.0, START + 25 * MINUTE)


def test_a_second_entry_lowers_the_average():
    managed({26: [lambda event: average_buy()]})
    result = replay(steps(100, 100, 96, 100))
    assert result.open_trade is not None or result.trades
    trade = result.open_trade or result.trades[0]
    average = 200 / (100 / 100 + 100 / 96)
    assert trade.price_open == pytest.approx(average)
    assert (trade.entries, trade.stakes) == (2, 2.0)
    assert trade.pnl_percentage == pytest.approx((100 - average) / average * 100)
    (note,) = told("average_buy.commit", backtest=True)
    assert (note["effectivePriceOpen"], note["totalEntries"]) == (pytest.approx(average), 2)


def test_totals_count_money_and_not_percent():
    """A loss of 4 percent on three stakes weighs three times as much as a gain of 4 percent on one."""
    managed({26: [lambda event: average_buy(200.0)], 30: [lambda event: close_pending()]}, LONG_FOR_HOURS)
    result = replay(steps(100, 100, 96, 94.9999))
    (trade,) = result.trades
    assert trade.stakes == 3.0
    assert result.totals.pnl_percentage == pytest.approx(3 * trade.pnl_percentage)
    assert result.totals.max_drawdown_percentage == pytest.approx(-3 * trade.pnl_percentage)


def test_a_trailing_stop_only_moves_towards_the_market():
    script = {
        25: [lambda event: trailing_stop(103.0), lambda event: trailing_stop(102.0), lambda event: trailing_stop(104.0)],
        26: [lambda event: trailing_stop(103.0), lambda event: trailing_stop(94.0)],
    }
    answers = managed(script)
    market = steps(100, 100, 104, 104)
    market["low"][35], market["volume"][35] = 102.9, 0.0
    (trade,) = replay(market).trades
    # In the minute in which it was asked to go from 95 to 103, 102 still was better than 95; it is worse when its turn comes.
    assert answers == [True, True, False, False, False]
    assert (trade.close_reason, trade.price_close) == ("stop_loss", 103.0)
    (note,) = told("trailing_stop.commit", backtest=True)
    # 103 is 3 percent above the entry, and 95 was 5 percent below it.
    assert note["percentShift"] == pytest.approx(-8.0)
    assert (note["priceStopLoss"], note["originalPriceStopLoss"]) == (103.0, 95.0)


def test_a_target_moves_both_ways():
    answers = managed(
        {15: [lambda event: trailing_take(120.0)], 25: [lambda event: trailing_take(106.0), lambda event: trailing_take(103.0)]}
    )
    market = steps(100, 100, 104, 106)
    (trade,) = replay(market).trades
    assert answers == [True, True, False]
    assert (trade.close_reason, trade.price_close) == ("take_profit", 106.0)
    assert [note["percentShift"] for note in told("trailing_take.commit", backtest=True)] == pytest.approx([10.0, -4.0])


def test_a_short_is_managed_the_same_way():
    script = {
        25: [lambda event: close_partial(40), lambda event: average_buy(50.0), lambda event: trailing_stop(99.0)],
        26: [lambda event: trailing_stop(100.0), lambda event: trailing_take(97.5)],
    }
    answers = managed(script, SHORT)
    (trade,) = replay(steps(100, 100, 96, 100)).trades
    assert answers == [True, True, True, False, False]
    account = Account("short", msgspec.structs.replace(kit.runner.RunOptions(fee_percent=0, slippage_percent=0).costs))
    account.enter(100.0, 100.0)
    account.leave(96.0, 40)
    account.enter(96.0, 50.0)
    account.leave(99.0, 100)
    assert (trade.close_reason, trade.price_close) == ("stop_loss", 99.0)
    assert trade.pnl_percentage == pytest.approx(account.profit / account.invested * 100)


def test_hundred_percent_close_the_position():
    managed({25: [lambda event: close_partial(100)]})
    (trade,) = replay(steps(100, 100, 104)).trades
    assert (trade.close_reason, trade.price_close, trade.partials) == ("closed", 104.0, 0)


def test_what_waits_when_a_position_closes_is_dropped():
    answers = managed({25: [lambda event: close_partial(50), lambda event: close_pending(), lambda event: average_buy()]})
    (trade,) = replay(steps(100, 100, 104)).trades
    assert answers == [True, True, False]
    assert (trade.close_reason, trade.partials, trade.entries) == ("closed", 0, 1)
    assert "_changes" not in (kit.PersistStrategyAdapter.read_strategy_data("BTCUSDT", "hand", "binance") or {})


def test_levels_are_counted_from_the_new_average():
    managed({26: [lambda event: average_buy()]}, LONG_FOR_HOURS)
    replay(steps(100, 100, 96, 98.5, 99.5))
    average = 200 / (1 + 100 / 96)
    levels = [note["level"] for note in told("partial_profit.available", backtest=True)]
    assert levels == [level for level in (10, 20, 30) if average + (110 - average) * level / 100 <= 99.5]
    assert levels


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: close_partial(0), InvalidValueError, "percent is 0.0; it must be a finite number above 0"),
        (lambda: close_partial(100.5), InvalidValueError, "percent is 100.5; it must be above 0, up to 100"),
        (lambda: close_partial(float("nan")), InvalidValueError, "percent is nan"),
        (lambda: close_partial("half"), InvalidTypeError, "percent must be a number, got str"),
        (lambda: average_buy(-1), InvalidValueError, "cost is -1.0"),
        (lambda: average_buy(float("inf")), InvalidValueError, "cost is inf"),
        (lambda: trailing_stop(None), InvalidTypeError, "price must be a number"),
        (lambda: trailing_take(True), InvalidTypeError, "price must be a number"),
        (lambda: trailing_stop(0), InvalidValueError, "price is 0.0"),
        (lambda: close_partial(50), OutsideRunError, "close_partial.*: no matching run"),
        (lambda: average_buy(), OutsideRunError, "average_buy.*: no matching run"),
        (lambda: trailing_stop(1.0), OutsideRunError, "trailing_stop.*: no matching run"),
        (lambda: trailing_take(1.0), OutsideRunError, "trailing_take.*: no matching run"),
    ],
)
def test_wrong_arguments_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_without_a_position_nothing_changes():
    answers = []
    calls = (lambda: close_partial(50), average_buy, lambda: trailing_stop(99.0), lambda: trailing_take(120.0))

    def tick(event):
        answers.extend(call() for call in calls)

    add_strategy("hand", get_signal=lambda symbol, when: None, on_tick=tick)
    replay(flat(30))
    assert set(answers) == {False}


# ---------------------------------------------------------------- beside a plain simulator


def simulated(candles, signal, script, opens_at):
    """Return (reason, exit price, minute, profit percent, entries, partials) of a position, worked out candle by candle."""
    up = signal["position"] == "long"

    def price_at(minute):
        last = candles[minute - 5 : minute]
        typical = [(float(c["high"]) + float(c["low"]) + float(c["close"])) / 3 for c in last]
        weights = [float(c["volume"]) for c in last]
        return sum(p * w for p, w in zip(typical, weights, strict=True)) / sum(weights)

    costs = kit.runner.RunOptions(fee_percent=0, slippage_percent=0).costs
    account, entries, partials = Account(signal["position"], costs), 1, 0
    account.enter(price_at(opens_at), 100.0)
    stop, target = signal["priceStopLoss"], signal["priceTakeProfit"]
    for minute in range(opens_at, len(candles)):
        candle = candles[minute]
        low, high = float(candle["low"]), float(candle["high"])
        leaves = None
        if (low <= stop) if up else (high >= stop):
            leaves = "stop_loss", stop
        elif (high >= target) if up else (low <= target):
            leaves = "take_profit", target
        elif minute + 1 >= opens_at + signal["minuteEstimatedTime"]:
            leaves = "time_expired", float(candle["close"])
        if leaves is not None:
            account.leave(leaves[1], 100)
            return *leaves, minute + 1, account.profit / account.invested * 100, entries, partials
        price = price_at(minute + 1)
        for what, size in script.get(minute + 1, ()):
            if what == "partial":
                account.leave(price, size)
                partials += 1
            elif what == "buy":
                account.enter(price, size)
                entries += 1
            elif what == "stop":
                to, close = price * (1 - size if up else 1 + size), float(candle["close"])
                if (to < close) if up else (to > close):
                    stop = max(stop, to) if up else min(stop, to)
            else:
                to, close = price * (1 + size if up else 1 - size), float(candle["close"])
                if (to > close) if up else (to < close):
                    target = to
    raise AssertionError("the market is too short")


def scripts(seed):
    """Return a market, a signal and what is done while it is open."""
    draw = random.Random(seed)
    market = synthetic_market(seed, 400, START, price=100.0)
    opens_at = 20
    near = float(market["close"][opens_at])
    sign = draw.choice((1, -1))
    signal = {
        "position": "long" if sign == 1 else "short",
        "priceTakeProfit": near * (1 + sign * draw.uniform(0.008, 0.03)),
        "priceStopLoss": near * (1 - sign * draw.uniform(0.008, 0.03)),
        "minuteEstimatedTime": 300,
    }
    script = {}
    for minute in range(opens_at + 1, 330):
        if draw.random() < 0.15:
            what = draw.choice(("partial", "buy", "stop", "take"))
            size = {"partial": draw.uniform(1, 60), "buy": draw.uniform(10, 300)}.get(what, draw.uniform(0.002, 0.02))
            script.setdefault(minute, []).append((what, size))
    return market, signal, script, opens_at


def acting(script, signal):
    """Return the script as calls."""
    sign = 1 if signal["position"] == "long" else -1
    calls = {
        "partial": lambda size: lambda event: close_partial(size),
        "buy": lambda size: lambda event: average_buy(size),
        "stop": lambda size: lambda event: trailing_stop(event.price * (1 - sign * size)),
        "take": lambda size: lambda event: trailing_take(event.price * (1 + sign * size)),
    }
    return {minute: [calls[what](size) for what, size in acts] for minute, acts in script.items()}


@pytest.mark.parametrize("seed", range(12))
def test_a_backtest_and_a_live_run_give_what_the_simulator_gives(seed):
    market, signal, script, opens_at = scripts(seed)
    expected = simulated(market, signal, script, opens_at)
    assert expected[4] + expected[5] > 1, "nothing happens in this case"

    def shape(trade):
        minute = (trade.close_timestamp - START) // MINUTE
        return trade.close_reason, trade.price_close, minute, pytest.approx(trade.pnl_percentage, rel=1e-9), trade.entries, trade.partials

    managed(acting(script, signal), signal, opens_at)
    (trade,) = replay(market).trades
    assert shape(trade) == expected
    clear_registered()
    use_memory()
    book = broker()
    managed(acting(script, signal), signal, opens_at)
    live = Market(market)
    live.minute = opens_at
    (trade,) = live.live(395, broker_name="book" if seed % 2 else None).trades
    assert shape(trade) == expected
    if seed % 2:
        assert net(book) == pytest.approx(0.0, abs=1e-9)


# ---------------------------------------------------------------- live


def net(book):
    """Return how much of the base asset is left on the exchange."""
    return sum(order.quantity if order.action == "open" else -order.quantity for order in book.orders.values())


SCRIPT = {
    13: [lambda event: average_buy(50.0)],
    16: [lambda event: close_partial(40), lambda event: trailing_stop(97.0)],
    18: [lambda event: trailing_take(109.0)],
}


def test_orders_of_changes_say_what_to_trade():
    book = broker()
    answers = managed(SCRIPT)
    (trade,) = Market().shape("high", 109.0, 30).live(40, broker_name="book").trades
    assert answers == [True] * 4
    assert [(order.action, order.position, order.quantity) for order in book.orders.values()] == [
        ("open", "long", 1.0), ("open", "long", 0.5), ("close", "long", pytest.approx(0.6)), ("close", "long", pytest.approx(0.9)),
    ]  # fmt: skip
    assert (trade.entries, trade.partials, trade.stakes, trade.price_close) == (2, 1, 1.5, 109.0)
    assert (signal_row(), "_changes" in strategy_row()) == (None, False)


def test_the_row_has_the_shape_that_the_framework_reads():
    broker()
    managed(SCRIPT)
    Market().live(25, broker_name="book")
    stored = msgspec.convert(signal_row(), payloads.SignalRow)
    assert [(entry.price, entry.cost, entry.timestamp) for entry in stored.entry] == [
        (100.0, 100.0, START + 10 * MINUTE), (100.0, 50.0, START + 13 * MINUTE),
    ]  # fmt: skip
    (partial,) = stored.partial
    assert (partial.type, partial.percent, partial.current_price, partial.cost_basis_at_close) == ("loss", 40.0, 100.0, 150.0)
    assert (partial.entry_count_at_close, partial.timestamp) == (2, START + 16 * MINUTE)
    assert (signal_row()["_trailingPriceStopLoss"], signal_row()["_trailingPriceTakeProfit"]) == (97.0, 109.0)
    assert (stored.price_stop_loss, stored.price_take_profit, stored.cost) == (95.0, 110.0, 100.0)
    (public,) = kit.PersistStorageAdapter.read_storage_data(False)
    assert (public["priceStopLoss"], public["priceTakeProfit"], public["originalPriceStopLoss"]) == (97.0, 109.0, 95.0)
    assert (public["totalEntries"], public["totalPartials"], public["partialExecuted"]) == (2, 1, pytest.approx(40.0))
    assert public["pnl"]["pnlEntries"] == 150.0


class Sparing(Book):
    """A broker that fills only a part of each order."""

    def __init__(self, share, **options):
        super().__init__(**options)
        self.share = share

    def submit(self, order):
        fill = super().submit(order)
        return Fill(fill.order_id, fill.price, fill.quantity * self.share, fill.when_ms)


def test_what_a_broker_fills_is_what_counts():
    book = Sparing(0.5, price=100.0)
    add_broker("book", book)
    managed(SCRIPT)
    Market().live(25, broker_name="book")
    stored = signal_row()
    assert [entry["cost"] for entry in stored["_entry"]] == [50.0, 25.0]
    # 40 percent of 0.75 were asked for, 20 percent were closed.
    assert stored["_partial"][0]["percent"] == pytest.approx(20.0)
    assert stored["_quantity"] == pytest.approx(0.6)
    (note,) = notifications("partial_loss.commit")
    assert note["percentToClose"] == pytest.approx(20.0)


def test_a_fee_that_was_kept_from_the_coins_is_not_money_that_was_not_paid():
    class Charging(Book):
        def submit(self, order):
            fill = super().submit(order)
            return Fill(fill.order_id, fill.price, fill.quantity * 0.999, fill.when_ms, cost=fill.price * fill.quantity)

    add_broker("book", Charging())
    managed(SCRIPT)
    Market().live(14, broker_name="book")
    stored = signal_row()
    assert ([entry["cost"] for entry in stored["_entry"]], stored["_quantity"]) == ([100.0, 50.0], pytest.approx(1.4985))


@pytest.mark.parametrize("cost", [0.0, -5.0, float("nan"), "much"])
def test_a_fill_with_a_cost_of_no_sense_is_no_answer(cost):
    class Wrong(Book):
        def submit(self, order):
            fill = super().submit(order)
            return Fill(fill.order_id, fill.price, fill.quantity, fill.when_ms, cost=cost)

    add_broker("book", Wrong())
    once_at(10, LONG)
    with pytest.raises(OrderFailedError):
        Market().live(40, broker_name="book", order_attempts=2)
    assert signal_row() is None


def test_a_broker_that_leaves_much_of_a_close_is_reported(caplog):
    book = Sparing(0.5)
    add_broker("book", book)
    once_at(10, LONG)
    Market().shape("high", 110.0, 20).live(30, broker_name="book")
    (entry,) = [entry for entry in kit.PersistLogAdapter.read_log_data() if entry["topic"] == "order.unsold"]
    assert entry["args"] == [{"signalId": entry["args"][0]["signalId"], "filled": 0.25, "ordered": 0.5}]


@pytest.mark.parametrize("fault", [lost, down])
def test_a_change_without_an_answer_is_asked_for_again_with_the_same_id(fault):
    book = broker((None, None), fault(), fault())
    managed({13: SCRIPT[13]})
    Market().live(25, broker_name="book")
    assert len({order.client_id for order in book.asked[1:]}) == 1
    assert (len(book.asked), net(book), len(signal_row()["_entry"])) == (4, 1.5, 2)


def test_a_rejected_change_is_given_up():
    book = broker((None, None), rejected("too small"))
    managed(SCRIPT)
    Market().live(25, broker_name="book")
    stored = signal_row()
    assert (len(stored["_entry"]), len(stored["_partial"]), net(book)) == (1, 1, pytest.approx(0.6))
    assert [note["message"] for note in notifications("order_reject.open")] == ["too small"]
    assert "_changes" not in strategy_row()


def test_a_change_that_never_gets_an_answer_ends_the_run_and_is_kept():
    broker((None, None), *[down()] * 3)
    managed({13: SCRIPT[13]})
    with pytest.raises(OrderFailedError, match="average-buy"):
        Market().live(40, broker_name="book", order_attempts=3)
    (change,) = strategy_row()["_changes"]
    assert (change["kind"], change["value"], change["attempts"]) == ("average-buy", 50.0, 1)
    clear_registered()
    book = broker()
    once_at(-1, None)
    market = Market()
    market.minute = 30
    market.live(35, broker_name="book")
    assert ([order.action for order in book.asked], len(signal_row()["_entry"])) == (["open"], 2)


def test_an_exit_waits_until_it_is_known_how_much_is_held():
    """The stop is touched while a partial close has no answer: first that answer, then a close of what is left."""
    book = broker((None, None), lost(), lost(), lost())
    managed({16: [lambda event: close_partial(40)]})
    (trade,) = Market().shape("low", 94.0, 17).live(40, broker_name="book").trades
    assert [(order.action, order.quantity) for order in book.orders.values()] == [
        ("open", 1.0), ("close", pytest.approx(0.4)), ("close", pytest.approx(0.6)),
    ]  # fmt: skip
    assert (trade.close_reason, trade.price_close, trade.partials) == ("stop_loss", 95.0, 1)


# ---------------------------------------------------------------- restarts


ENTRY, LOWER = {"price": 100.0, "cost": 100.0, "timestamp": START}, {"price": 80.0, "cost": 100.0, "timestamp": START}
PARTIAL = {"type": "profit", "percent": 50, "currentPrice": 120.0, "costBasisAtClose": 100.0, "entryCountAtClose": 1, "timestamp": START}
CHANGED = {"_entry": [ENTRY, LOWER], "_partial": [PARTIAL], "minuteEstimatedTime": 600}


def resume(until=90, minute=70, market=None, **options):
    once_at(-1, None)
    market = market or Market()
    market.minute = minute
    return market.live(until, **options)


def test_a_row_of_the_framework_that_was_averaged_and_partly_closed_goes_on():
    store(signal=row(**CHANGED))
    book = broker()
    (trade,) = resume(market=Market().shape("high", 110.0, 80), broker_name="book").trades
    # 50 USD at 100 and 100 USD at 80: 1.75 coins.
    assert [(order.action, order.quantity) for order in book.asked] == [("close", pytest.approx(1.75))]
    assert trade.price_open == pytest.approx(150 / 1.75)
    assert trade.pnl_percentage == pytest.approx((10 + (1.75 * 110 - 150)) / 200 * 100)
    assert (trade.entries, trade.partials, trade.stakes) == (2, 1, 2.0)


def test_a_row_with_another_cost_closes_what_it_bought():
    store(signal=row(cost=250.0, minuteEstimatedTime=600))
    book = broker()
    (trade,) = resume(market=Market().shape("high", 110.0, 80), broker_name="book").trades
    assert ([order.quantity for order in book.asked], trade.stakes) == ([2.5], 2.5)


def test_the_row_stays_as_it_is_when_it_is_restored():
    store(signal=row(**CHANGED, _trailingPriceStopLoss=97.0))
    resume(until=72)
    stored = signal_row()
    assert {name: stored[name] for name in ("_entry", "_partial", "_trailingPriceStopLoss")} == {
        "_entry": [ENTRY, LOWER], "_partial": [PARTIAL], "_trailingPriceStopLoss": 97.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_partial": [{"percent": 50}]}, "cannot be read .KeyError: 'currentPrice'"),
        ({"_entry": [{"price": 100.0}]}, "cannot be read .KeyError: 'cost'"),
        ({"_entry": [{"price": 0.0, "cost": 100.0}]}, "cannot be read .ZeroDivisionError"),
        (
            {"_partial": [{**PARTIAL, "percent": 80}, {**PARTIAL, "percent": 80}]},
            "position left .* has partial closes of more than it cost",
        ),
    ],
)
def test_a_row_that_cannot_be_right_is_not_traded_on(changes, words):
    left = row(**changes)
    store(signal=left)
    with pytest.raises(InvalidValueError, match=words):
        resume()
    assert signal_row() == left


COMMIT = {"symbol": "BTCUSDT", "backtest": False, "action": "partial-profit", "percentToClose": 50, "currentPrice": 120.0}


def test_x5_a_queued_commit_of_the_framework_is_reported_for_its_position():
    """Its broker has made it already: that package asks the broker first."""
    queue = [COMMIT, {"action": "breakeven", "currentPrice": 121.0}, {"action": "activate-scheduled", "signalId": "left"}]
    store(signal=row(**CHANGED), strategy=snapshot(pendingSignalId="left", commitQueue=queue))
    book = broker()
    resume(until=75, broker_name="book")
    assert (book.asked, signal_row()["_partial"]) == ([], [PARTIAL])
    assert [note["percentToClose"] for note in notifications("partial_profit.commit")] == [50.0]
    assert [note["currentPrice"] for note in notifications("breakeven.commit")] == [121.0]
    assert (strategy_row()["commitQueue"], "_changes" in strategy_row()) == ([], False)


def test_a_queue_is_not_reported_at_a_target_or_stop():
    """That package drops it there."""
    store(strategy=snapshot(takeProfitSignal=row(**CHANGED), commitQueue=[COMMIT]))
    book = broker()
    resume(until=75, broker_name="book")
    assert [(order.action, order.quantity) for order in book.asked] == [("close", pytest.approx(1.75))]
    assert notifications("partial_profit.commit") == []


@pytest.mark.parametrize("pending", ["gone", None])
def test_x6_an_orphaned_queue_is_not_replayed(pending):
    store(signal=row(**CHANGED), strategy=snapshot(pendingSignalId=pending, commitQueue=[COMMIT]))
    book = broker()
    resume(until=75, broker_name="book")
    assert (book.asked, notifications("partial_profit.commit")) == ([], [])
    assert "commits.dropped" in [entry["topic"] for entry in kit.PersistLogAdapter.read_log_data()]


def test_x7_x18_the_last_commit_of_a_full_close_is_reported():
    full = {**PARTIAL, "percent": 100}
    closed = row(_entry=[ENTRY], _partial=[full], minuteEstimatedTime=600)
    store(strategy=snapshot(closedSignal=closed, commitQueue=[{**COMMIT, "percentToClose": 100}]))
    book = broker()
    (trade,) = resume(until=75, broker_name="book").trades
    assert (book.asked, len(notifications("partial_profit.commit"))) == ([], 1)
    assert (trade.close_reason, trade.pnl_percentage) == ("closed", pytest.approx(20.0))
    assert strategy_row()["closedSignal"] is None


def test_x17_a_crash_between_the_two_writes_keeps_the_money_and_loses_no_event(monkeypatch):
    book = broker()
    managed({16: [lambda event: close_partial(40)]})
    write = kit.PersistStrategyAdapter.write_strategy_data

    def dies(data, *context):
        if signal_row() is not None and signal_row()["_partial"] and "_changes" not in data:
            raise Killed
        write(data, *context)

    with monkeypatch.context() as patch:
        patch.setattr(kit.PersistStrategyAdapter, "write_strategy_data", dies)
        with pytest.raises(Killed):
            Market().live(25, broker_name="book")
    clear_registered()
    add_broker("book", book)
    resume(minute=18, until=20, broker_name="book")
    assert (len(signal_row()["_partial"]), net(book), len(book.asked)) == (1, pytest.approx(0.6), 2)
    assert len(notifications("partial_loss.commit")) == 1
    assert "_changes" not in strategy_row()


def rising():
    """Return candles at 100 that stand at 104 from minute 20 on, with a high of 106 in minute 25."""
    candles = flat(400)
    for column in ("open", "high", "low", "close"):
        candles[column][20:] = 104.0
    return Market(candles).shape("high", 106.0, 25)


@pytest.mark.parametrize("move", [lambda event: trailing_stop(103.0), lambda event: trailing_take(105.0)])
def test_candles_before_a_move_do_not_touch_the_new_stop_or_target(move):
    """A restart looks at them again."""
    broker()
    managed({30: [move]}, LONG_FOR_HOURS)
    market = rising()
    market.live(40, broker_name="book")
    for start in (41, 45):
        market.minute = start
        result = market.live(start + 2, broker_name="book")
        assert (result.trades, result.open_trade is None) == ((), False)
    market.shape("low", 102.9, 60).shape("high", 105.1, 60)
    market.minute = 55
    (trade,) = market.live(65, broker_name="book").trades
    assert trade.price_close in (103.0, 105.0)


def test_a_stop_that_was_touched_while_nothing_ran_closes_an_averaged_position():
    book = broker()
    managed({13: [lambda event: average_buy(50.0)]}, LONG_FOR_HOURS)
    market = Market().shape("low", 94.0, 30)
    market.live(20, broker_name="book")
    market.minute = 60
    (trade,) = market.live(61, broker_name="book").trades
    assert (trade.close_reason, trade.close_timestamp, net(book)) == ("stop_loss", START + 31 * MINUTE, pytest.approx(0.0))


def test_an_outage_after_a_move_closes_nothing(monkeypatch):
    broker()
    managed({30: [lambda event: trailing_stop(103.0)]}, LONG_FOR_HOURS)
    write, failed = kit.PersistStorageAdapter.write_storage_data, []

    def fails_once(rows, *context):
        if rising_market.minute == 36 and not failed:
            failed.append(True)
            raise ServerUnavailableError("gone")
        write(rows, *context)

    rising_market = rising()
    monkeypatch.setattr(kit.PersistStorageAdapter, "write_storage_data", fails_once)
    result = rising_market.live(45, broker_name="book")
    assert (failed, result.trades) == ([True], ())


def test_levels_before_a_further_entry_are_not_counted_from_the_new_average():
    broker()
    managed({26: [lambda event: average_buy(900.0)]}, LONG_FOR_HOURS)
    market = Market(steps(100, 100, 96, 96, 96, 96))
    market.live(40, broker_name="book")
    market.minute = 41
    market.live(45, broker_name="book")
    assert notifications("partial_profit.available") == notifications("breakeven.available") == []


@pytest.mark.parametrize("faults", [[down()] * 4, [lost()], [lost(), down(), lost()]])
def test_what_is_asked_for_while_an_order_has_no_answer_is_refused(faults):
    """A strategy sees a change only after its fill, so each minute it asks for the same again."""
    book = broker((None, None), *faults)

    def ping(event):
        if event.signal["totalEntries"] == 1:
            average_buy()

    once_at(10, LONG_FOR_HOURS, on_active_ping=ping)
    Market().live(30, broker_name="book")
    assert ([order.action for order in book.orders.values()], len(signal_row()["_entry"])) == (["open", "open"], 2)


def test_a_stop_does_not_wait_for_the_answer_to_an_order():
    broker((None, None), *[down()] * 8)
    managed({13: [lambda event: average_buy(50.0)], 15: [lambda event: trailing_stop(99.0)]})
    (trade,) = Market().shape("low", 98.0, 18).live(40, broker_name="book").trades
    assert (trade.close_reason, signal_row()) == ("stop_loss", None)
    assert trade.price_close == 99.0


def test_a_stop_stays_below_the_last_close():
    """The price of a run is an average of five minutes, which a fast market has left."""
    answers = managed({25: [lambda event: trailing_stop(event.price * 0.999)]}, LONG_FOR_HOURS)
    market = flat(40)
    for column in ("open", "high", "low", "close"):
        market[column][15:24], market[column][24:] = 104.0, 101.0
    result = replay(market)
    assert (answers, result.trades) == ([False], ())


def test_an_order_that_is_repeated_at_another_price_costs_what_it_was_filled_for():
    broker((None, None), lost(), price=100.0)
    managed({19: [lambda event: average_buy(100.0)]}, LONG_FOR_HOURS)
    Market(steps(100, 100, 104, 104)).live(30, broker_name="book")
    assert [entry["cost"] for entry in signal_row()["_entry"]] == [100.0, 100.0]


def test_a_request_that_failed_is_not_carried_out(monkeypatch):
    book = broker()
    write, answers = kit.PersistStrategyAdapter.write_strategy_data, []

    def fails(data, *context):
        if data.get("_changes") and not answers:
            raise ServerUnavailableError("gone")
        write(data, *context)

    def ask(event):
        if not answers:
            with pytest.raises(ServerUnavailableError):
                average_buy(50.0)
            answers.append("failed")

    monkeypatch.setattr(kit.PersistStrategyAdapter, "write_strategy_data", fails)
    once_at(10, LONG_FOR_HOURS, on_active_ping=ask)
    Market().live(20, broker_name="book")
    assert (answers, book.sides) == (["failed"], ["open"])


def test_a_change_after_a_restart_waits_for_a_price():
    """In a minute without a candle, nothing is known but the price of the entry."""
    change = {"id": "c", "positionId": "left", "kind": "average-buy", "value": 108.0, "whenMs": START + 60 * MINUTE}
    store(signal=row(minuteEstimatedTime=600), strategy=snapshot(pendingSignalId="left", _changes=[change]))
    book = broker()
    candles = flat(400, 108.0)
    candles = candles[(candles["timestamp"] < START + 60 * MINUTE) | (candles["timestamp"] >= START + 74 * MINUTE)]
    resume(until=80, market=Market(candles), broker_name="book")
    assert [(order.action, order.price, order.quantity) for order in book.asked] == [("open", 108.0, 1.0)]


def test_a_row_that_the_framework_changed_sells_what_its_entries_say():
    """It keeps our fields, so the quantity is that of an earlier state."""
    broker()
    managed({})
    Market().live(20, broker_name="book")
    half = {**signal_row(), "_partial": [{**PARTIAL, "currentPrice": 104.0}], "minuteEstimatedTime": 600}
    assert half["_quantity"] == 1.0
    store(signal=half)
    clear_registered()
    book = broker()
    resume(market=Market().shape("high", 110.0, 80), broker_name="book")
    assert [(order.action, order.quantity) for order in book.asked] == [("close", pytest.approx(0.5))]


def test_a_row_with_nothing_left_is_closed_without_an_order():
    """The framework writes the last partial close first, and that the position is closed after it."""
    store(signal=row(_entry=[ENTRY], _partial=[{**PARTIAL, "percent": 100}], minuteEstimatedTime=600))
    book = broker()
    (trade,) = resume(until=75, broker_name="book").trades
    assert (book.asked, trade.close_reason, trade.pnl_percentage, signal_row()) == ([], "closed", pytest.approx(20.0), None)


def test_nothing_can_be_asked_of_a_position_that_is_closing():
    answers = []
    managed({}, on_close=lambda event: answers.extend([average_buy(), close_partial(50), close_pending()]))
    (trade,) = replay(steps(100, 100, 110)).trades
    assert (answers, trade.entries) == ([False] * 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "error"), [(LONG, Killed), (SHORT, ServerUnavailableError("gone"))])
def test_a_kill_or_an_outage_at_any_step_doubles_no_order_and_loses_no_money(monkeypatch, signal, error, long):
    """Whatever a crash makes of the changes: nothing is left on the exchange, and the stored profit is that of the orders."""
    ends = {"long": ("high", 110.0), "short": ("low", 90.0)}[signal["position"]]
    script = {
        11: [lambda event: average_buy(50.0)],
        12: [lambda event: close_partial(40)],
        13: [lambda event: trailing_stop(event.price * (0.97 if signal is LONG else 1.03)), lambda event: close_partial(25)],
    }

    def play(at):
        clear_registered()
        use_memory()
        book = broker()
        managed(script, signal)
        market = Market().shape(*ends, 16, 17, 18)
        with monkeypatch.context() as patch:
            crashing = Crashing(patch, book, at, error)
            while True:
                try:
                    market.live(19, broker_name="book")
                    return crashing.steps, book
                except (Killed, ServerUnavailableError):
                    market.minute += 1

    total, book = play(None)
    assert len(book.orders) == 5
    every = 1 if long else 3
    for at in range(random.randrange(every), total, every):
        print(f"killed at step {at}")
        _, book = play(at)
        stored = kit.PersistStorageAdapter.read_storage_data(False)
        if not stored:
            assert (book.orders, signal_row()) == ({}, None)
            continue
        assert [item["status"] for item in stored] == ["closed"]
        assert net(book) == pytest.approx(0.0, abs=1e-9)
        account, held = Account(signal["position"], kit.runner.RunOptions(fee_percent=0, slippage_percent=0).costs), 0.0
        for order in book.orders.values():
            if order.action == "open":
                account.enter(order.price, order.price * order.quantity)
                held += order.quantity
            else:
                account.leave(order.price, order.quantity / held * 100)
                held -= order.quantity
        assert stored[0]["pnl"]["pnlPercentage"] == pytest.approx(account.profit / account.invested * 100)
        assert (stored[0]["totalEntries"], stored[0]["totalPartials"]) == (
            sum(order.action == "open" for order in book.orders.values()),
            sum(order.action == "close" for order in book.orders.values()) - 1,
        )
        commits = [note["type"] for note in notifications() if note["type"].endswith(".commit") and note["type"] != "trailing_stop.commit"]
        if error is Killed:  # a notification that cannot be written is given up
            assert len(commits) == len(book.orders) - 2
        assert (signal_row(), "_changes" in strategy_row()) == (None, False)


def test_a_managed_position_goes_on_in_another_process_on_real_servers(mongo):
    """Everything is on MongoDB, and this process keeps nothing between two minutes."""
    book = broker()
    managed(SCRIPT)
    market = Market().shape("high", 109.0, 22)
    trades = []
    while market.minute < 24:
        trades += market.live(market.minute + 1, broker_name="book").trades
        market.minute += 1
        kit.close()
        kit.setup(mongo)
    (trade,) = trades
    assert (trade.close_reason, trade.price_close, trade.entries, trade.partials) == ("take_profit", 109.0, 2, 1)
    assert net(book) == pytest.approx(0.0, abs=1e-9)
