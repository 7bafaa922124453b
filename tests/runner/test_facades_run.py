"""The facades in whole runs: a strategy that decides by its own records trades the same, whatever the database held before."""

from __future__ import annotations

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import (
    Interval,
    Log,
    Measure,
    Memory,
    NoSignalError,
    Notification,
    Recent,
    Session,
    State,
    Storage,
    add_strategy,
    clear_strategies,
    get_candles,
    import_candles,
    run_backtest,
    synthetic_market,
)

pytestmark = pytest.mark.once

START = 1_677_628_800_000
HOUR = 3_600_000

pings = State("pings", 0)
lessons = Memory("lessons")


@pytest.fixture(autouse=True)
def no_strategies():
    clear_strategies()
    yield
    clear_strategies()


@Measure.cached("4h")
def trend(symbol):
    candles = get_candles(symbol, "1m", 60)  # fewer at the beginning
    return {"up": candles[-1]["close"] >= candles[0]["close"]}


@Interval.once("1h")
def hourly(symbol):
    Log.info("hourly", symbol)
    return trend(symbol)


def add_keeper(name, seen, minutes=60):
    """Add a strategy that makes every decision, and sees everything, through the facades."""

    def note(what, *more):
        seen.append((what, Session.get(), Recent.minutes_since(), [row["id"] for row in Storage.list()], len(Notification.list()), *more))

    def on_open(event):
        note("open", pings.get(), lessons.list())
        pings.set(0)
        lessons.write("opened", {"price": event.price}, f"opened at {event.when:%H:%M}")

    def on_active_ping(event):
        if pings.update(lambda count: count + 1) == 5:
            Notification.add("five minutes")

    def on_close(event):
        Session.update(lambda data: {"closed": (data or {"closed": 0})["closed"] + 1})
        note("close", pings.get(), [one.content for one in lessons.search("opened", min_score=0)])

    @add_strategy(name, interval="15m", on_open=on_open, on_active_ping=on_active_ping, on_close=on_close)
    def keeper(symbol, when):
        with pytest.raises(NoSignalError):
            pings.get()
        note("asked")
        result = hourly(symbol)
        if result is None or (Recent.minutes_since() or 90) < 90:
            return None
        sign = 1 if result["up"] else -1
        price = get_candles(symbol, "1m", 1)[-1]["close"]
        return {
            "position": "long" if result["up"] else "short",
            "priceTakeProfit": price * (1 + sign * 0.002),
            "priceStopLoss": price * (1 - sign * 0.002),
            "minuteEstimatedTime": minutes,
        }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stores": {"session": "mongo", "log": "mongo", "state": "mongo", "memory": "mongo"}},
        {"history": ["session", "state", "recent"]},
    ],
    ids=["profile", "mongo", "history"],
)
def test_a_backtest_does_not_depend_on_those_before(settings, tmp_path, options):
    """Repeat a run; then one of another length, with its records left behind; one that begins later; and the first one again."""
    seen = []
    kit.setup(settings, mode="backtest", CC_DUMP_DIR=tmp_path / "dump", **options)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        import_candles(synthetic_market(7, 960, START), symbol, exchange_name="synthetic")

    def story(name="keeper", symbol="BTCUSDT", start_ms=START, minutes=60):
        clear_strategies()
        add_keeper(name, seen, minutes)
        seen.clear()
        return run_backtest(symbol, name, exchange_name="synthetic", start_ms=start_ms).trades, list(seen)

    first = story()
    assert len(first[0]) > 5
    assert {entry[0] for entry in first[1]} == {"asked", "open", "close"}
    assert first[1][-1][1] == {"closed": len(first[0])}
    assert story() == first
    assert story(minutes=3)[0] != first[0]
    assert story(start_ms=START + 3 * HOUR)[0] != first[0]
    assert story() == first
    for other in (story(symbol="ETHUSDT"), story(name="other")):
        assert [(trade.open_timestamp, trade.pnl_percentage) for trade in other[0]] == [
            (trade.open_timestamp, trade.pnl_percentage) for trade in first[0]
        ]
        assert [(what, session, minutes, len(ids)) for what, session, minutes, ids, *_ in other[1]] == [
            (what, session, minutes, len(ids)) for what, session, minutes, ids, *_ in first[1]
        ]
