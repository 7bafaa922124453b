"""Helpers shared by the live run tests: a clock that jumps from minute to minute, handmade candles, a broker with an order book."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from hand_market import MINUTE, START, flat

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import Fill, Live, OrderRejected, add_broker, add_strategy

CONTEXT = ("BTCUSDT", "hand", "binance")
LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60}
SHORT = {"position": "short", "priceTakeProfit": 90.0, "priceStopLoss": 105.0, "minuteEstimatedTime": 60}


class Killed(BaseException):
    """The process is gone: nothing in its memory is used any more."""


class Market:
    """A market of 1m candles with a clock that the run itself moves: each sleep ends a minute."""

    def __init__(self, candles: Any = None) -> None:
        self.candles = flat(400) if candles is None else candles
        self.minute = 10

    @property
    def now(self) -> int:
        return START + self.minute * MINUTE

    def fetch(self, symbol, interval, exchange_name, since_ms, until_ms, *, registry, now_ms):
        stamps = self.candles["timestamp"]
        rows = self.candles[(stamps >= since_ms) & (stamps < until_ms) & (stamps + MINUTE <= now_ms)]
        if interval == "1m" and len(rows):
            registry.adapter("candle").write_candles_data(rows, symbol, interval, exchange_name)
        return len(rows)

    def shape(self, column: str, value: float, *minutes: int) -> Market:
        """Set a column in some minutes; without volume they do not move the price."""
        for minute in minutes:
            self.candles[column][minute] = value
            self.candles["volume"][minute] = 0.0
        return self

    def live(self, until: int, *, symbol="BTCUSDT", kill=None, **options):
        """Run up to and including the tick of minute ``until``; ``kill(minute)`` may raise between two ticks."""
        stop = threading.Event()

        def sleep(seconds):
            if kill is not None:
                kill(self.minute)
            if self.minute >= until:
                stop.set()
            else:
                self.minute += 1

        options.setdefault("exchange_name", "binance")
        return Live.run(
            symbol, fee_percent=0, slippage_percent=0, stop=stop, clock=lambda: self.now, sleep=sleep, fetch=self.fetch, **options
        )


class Book:
    """A broker with an order book: orders by client id. ``faults`` are raised in turn, before or after the order is placed."""

    def __init__(self, *faults, price=None) -> None:
        self.orders: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.faults = list(faults)
        self.price = price

    def submit(self, order):
        self.asked.append(order)
        before, after = self.faults.pop(0) if self.faults else (None, None)
        if before is not None:
            raise before
        earlier = self.orders.setdefault(order.client_id, order)
        if after is not None:
            raise after
        price = earlier.price if self.price is None else self.price
        return Fill(order_id=f"order-{earlier.client_id}", price=price, quantity=earlier.quantity, when_ms=0)

    @property
    def sides(self):
        return [order.action for order in self.orders.values()]


def lost(text="the answer was lost"):
    """The order is placed, but the response never arrives."""
    return None, ConnectionError(text)


def down(text="the exchange is down"):
    """The order is not placed, but nobody can know that."""
    return ConnectionError(text), None


def rejected(text="no funds"):
    """The order is rejected."""
    return OrderRejected(text), None


class Crashing:
    """Kills the run at the n-th step, before or after one of its writes or orders. Written records stay.

    With another ``error`` it does not kill the run: that one step fails.
    """

    def __init__(self, monkeypatch, book, at=None, error=Killed):
        self.at, self.steps, self.error = at, 0, error
        for name, domain in DOMAINS.items():
            if name in ("candle", "measure"):
                continue
            for call in domain.calls:
                if call.name.startswith("write"):
                    adapter = adapter_of(domain)
                    monkeypatch.setattr(adapter, call.name, self._wrap(getattr(adapter, call.name)))
        monkeypatch.setattr(book, "submit", self._wrap(book.submit))

    def _wrap(self, function):
        def stepped(*arguments):
            self._step()
            result = function(*arguments)
            self._step()
            return result

        return stepped

    def _step(self):
        if self.steps == self.at:
            self.steps += 1
            raise self.error
        self.steps += 1


def broker(*faults, price=None):
    """Register "book"."""
    book = Book(*faults, price=price)
    add_broker("book", book)
    return book


def once_at(minute, signal, **options):
    """Register "hand", which returns ``signal`` at one minute after START."""
    when_ms = START + minute * MINUTE
    options.setdefault("interval", "5m")
    add_strategy("hand", get_signal=lambda symbol, when: signal if when.timestamp() * 1000 == when_ms else None, **options)


def row(signal_id="left", minute=10, **changes):
    """Return a stored open position as an earlier run left it."""
    opened = START + minute * MINUTE
    extreme = {
        "price": 100.0,
        "timestamp": opened,
        "pnlPercentage": 0,
        "priceOpen": 100.0,
        "priceClose": 100.0,
        "pnlCost": 0,
        "pnlEntries": 100,
    }
    return {
        "id": signal_id, "symbol": "BTCUSDT", "strategyName": "hand", "exchangeName": "binance", "frameName": "", "position": "long",
        "priceOpen": 100.0, "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60, "cost": 100.0,
        "scheduledAt": opened, "pendingAt": opened, "timestamp": opened, "_isScheduled": False, "_peak": extreme, "_fall": extreme,
        **changes,
    }  # fmt: skip


def scheduled(signal_id="waits", minute=10, **changes):
    """Return a stored scheduled signal."""
    return row(signal_id, minute, **{"priceOpen": 98.0, "_isScheduled": True, **changes})


def snapshot(**changes):
    """Return a stored row of the Strategy contract."""
    empty = dict.fromkeys(
        ("pendingSignalId", "lastPendingId", "createdSignal", "closedSignal", "takeProfitSignal", "stopLossSignal", "cancelledSignal",
         "activatedSignal", "retryOpenSignal")
    )  # fmt: skip
    return {**empty, "commitQueue": [], "retryOpenCount": 0, "retryCloseCount": 0, "isPaused": False, **changes}


def store(*, signal=None, schedule=None, strategy=None, context=CONTEXT):
    """Store rows where a run looks for its own."""
    if signal is not None:
        kit.PersistSignalAdapter.write_signal_data(signal, *context)
    if schedule is not None:
        kit.PersistScheduleAdapter.write_schedule_data(schedule, *context)
    if strategy is not None:
        kit.PersistStrategyAdapter.write_strategy_data(strategy, *context)


def signal_row():
    return kit.PersistSignalAdapter.read_signal_data(*CONTEXT)


def schedule_row():
    return kit.PersistScheduleAdapter.read_schedule_data(*CONTEXT)


def strategy_row():
    return kit.PersistStrategyAdapter.read_strategy_data(*CONTEXT)


def notifications(kind=None):
    rows = kit.PersistNotificationAdapter.read_notification_data(False)
    return [note for note in rows if kind is None or note["type"] == kind]


def quantized(candles):
    """Round prices as an exchange does."""
    for column in ("open", "high", "low", "close"):
        candles[column] = np.round(candles[column], 2)
    return candles
