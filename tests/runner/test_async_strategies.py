"""Async functions of strategies: awaited by the run, wherever it was started, with the same effects as plain ones."""

import asyncio
import functools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import msgspec
import pytest
from hand_market import MINUTE, START, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from live_market import Market

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, LookAheadError, aio
from backtest_kit_mongo.runner import (
    BadSignalError,
    Interval,
    Measure,
    StrategyError,
    add_exchange,
    add_risk,
    add_strategy,
    clear_strategies,
    close_pending,
    get_average_price,
    get_candles,
    get_raw_candles,
    import_candles,
    run_backtest,
    run_backtests,
    synthetic_market,
)
from backtest_kit_mongo.runner.current_run import current_run
from backtest_kit_mongo.runner.engine import event_loop

pytestmark = pytest.mark.once


def signal_of(symbol, side):
    price = get_average_price(symbol)
    return {
        "position": "long" if side == 1 else "short",
        "priceTakeProfit": price * (1 + side * 0.01),
        "priceStopLoss": price * (1 - side * 0.01),
        "minuteEstimatedTime": 45,
    }


def plain(symbol, when):
    return signal_of(symbol, 1 if when.hour % 2 else -1)


async def awaiting(symbol, when):
    await asyncio.sleep(0)
    return signal_of(symbol, 1 if when.hour % 2 else -1)


def trades(result):
    return [msgspec.structs.astuple(trade)[1:] for trade in result.trades]


@pytest.fixture
def market():
    candles = synthetic_market(3, 1440, START)
    import_candles(candles, "BTCUSDT")
    return candles


def in_a_loop(call):
    """Call a function inside a running event loop, as a notebook does."""

    async def main():
        return call()

    return asyncio.run(main())


def in_a_thread(call):
    results = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


# ---------------------------------------------------------------- wherever the run is started


@pytest.mark.parametrize("start", [lambda call: call(), in_a_loop, in_a_thread], ids=["no loop", "running loop", "thread"])
def test_an_async_strategy_trades_as_a_plain_one(market, start):
    add_strategy("s", get_signal=plain)
    expected = run_backtest("BTCUSDT")
    assert len(expected.trades) > 10
    clear_strategies()
    add_strategy("s", get_signal=awaiting)
    result = start(lambda: run_backtest("BTCUSDT"))
    assert trades(result) == trades(expected)
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


class Callable_:
    async def __call__(self, symbol, when):
        return await awaiting(symbol, when)

    async def method(self, symbol, when):
        return await awaiting(symbol, when)


@pytest.mark.parametrize(
    "function", [functools.partial(awaiting), Callable_(), Callable_().method, functools.partial(lambda f, s, w: plain(s, w), 1)]
)
def test_partials_objects_and_methods(market, function):
    add_strategy("s", get_signal=function)
    assert len(run_backtest("BTCUSDT").trades) > 10


def test_side_by_side_runs_share_a_loop_and_keep_their_names_and_times():
    """A client of an API is bound to one loop: all functions of runs on one clock must find the same."""
    seen, loops = [], set()
    for symbol in ("AAA", "BBB"):
        import_candles(flat(30), symbol)

    async def get_signal(symbol, when):
        await asyncio.sleep(0)
        run = current_run()
        seen.append(
            (symbol, run.symbol, run.strategy_name, get_candles(symbol, "1m", 1)[0]["timestamp"] + MINUTE == when.timestamp() * 1000)
        )
        loops.add(asyncio.get_running_loop())

    for name in ("one", "two"):
        add_strategy(name, get_signal=get_signal)
    for call in (
        lambda: run_backtests(["AAA", "BBB"], ["one", "two"]),
        lambda: in_a_loop(lambda: run_backtests(["AAA", "BBB"], ["one", "two"])),
    ):
        seen.clear(), loops.clear()
        _, failed = call()
        assert not failed, failed
        assert len(seen) == 4 * 5
        assert {(name, strategy) for _, name, strategy, _ in seen} == {(s, n) for s in ("AAA", "BBB") for n in ("one", "two")}
        assert all(symbol == name and closed for symbol, name, _, closed in seen)
        (loop,) = loops
        assert loop.is_closed()


def test_a_run_inside_an_async_function_of_a_run(market):
    add_strategy("inner", get_signal=awaiting)
    inner = []

    async def outer(symbol, when):
        if not inner:
            inner.append(run_backtest("BTCUSDT", "inner", start_ms=START, end_ms=START + 200 * MINUTE))
            assert current_run().strategy_name == "outer"

    add_strategy("outer", get_signal=outer)
    run_backtest("BTCUSDT", "outer")
    assert inner[0].trades


# ---------------------------------------------------------------- inside the coroutine


def test_nothing_of_the_future_can_be_read(market):
    async def get_signal(symbol, when):
        await asyncio.sleep(0)
        now = round(when.timestamp() * 1000)
        assert get_candles(symbol, "1m", 3)[-1]["timestamp"] == now - MINUTE
        with pytest.raises(LookAheadError, match="strategy 's' on BTCUSDT asked for the future"):
            get_raw_candles(symbol, "1m", start=now, end=now + MINUTE)
        asked.append(now)

    asked = []
    add_strategy("s", get_signal=get_signal)
    run_backtest("BTCUSDT")
    assert len(asked) > 100


def test_the_awaitable_contracts_are_those_of_the_run(mongo):
    """Pending writes of the run are flushed first; gathered calls and the look-ahead guard work."""
    kit.setup(mongo, CC_DURABILITY="memory", look_ahead="hide")
    import_candles(flat(60), "BTCUSDT")
    rows = []

    async def get_signal(symbol, when):
        await aio.PersistStateAdapter.write_state_data({"id": "n", "data": {"at": when}, "when": when}, "sig", "n", when)
        answers = await asyncio.gather(*(aio.PersistStateAdapter.read_state_data("sig", "n") for _ in range(4)))
        assert all(answer == answers[0] for answer in answers)
        rows.append(answers[0]["data"]["at"] == when)
        return {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 7}

    async def on_open(event):
        recent = await aio.PersistRecentAdapter.read_recent_data("BTCUSDT", "s", "binance", "backtest", True)
        rows.append(recent["id"] == event.signal["id"])

    add_strategy("s", get_signal=get_signal, on_open=on_open)
    result = in_a_loop(lambda: run_backtest("BTCUSDT"))
    assert len(result.trades) == 5
    assert all(rows)
    assert len(rows) >= 10


def test_measure_and_interval_of_async_functions(market):
    asked = []

    @Measure.cached("1h")
    async def opinion(symbol):
        await asyncio.sleep(0)
        asked.append(symbol)
        return {"n": len(asked)}

    @Interval.once("4h")
    async def rarely():
        await asyncio.sleep(0)
        return "now"

    fired = []

    async def get_signal(symbol, when):
        await opinion(symbol)
        fired.append(await rarely())

    add_strategy("s", get_signal=get_signal)
    run_backtest("BTCUSDT")
    assert len(asked) == 24
    assert fired.count("now") == 6


def test_variables_of_the_caller_are_visible():
    color = ContextVar("color", default="none")
    import_candles(flat(30), "BTCUSDT")
    seen = set()

    async def get_signal(symbol, when):
        seen.add(color.get())

    add_strategy("s", get_signal=get_signal)
    color.set("red")
    run_backtest("BTCUSDT")
    in_a_loop(lambda: run_backtest("BTCUSDT"))
    assert seen == {"red"}


def test_callbacks_may_be_async_too(market):
    events = []

    def recorded(name):
        async def callback(event):
            await asyncio.sleep(0)
            events.append(name)
            if name == "on_active_ping" and event.when.minute == 30:
                assert close_pending()

        return callback

    names = ("on_open", "on_close", "on_active_ping", "on_tick")
    add_strategy("s", get_signal=awaiting, **{name: recorded(name) for name in names})
    result = run_backtest("BTCUSDT")
    assert result.totals.user_closes > 5
    assert events.count("on_close") == len(result.trades)
    assert events.count("on_open") == len(result.trades) + (result.open_trade is not None)
    assert events.count("on_tick") == result.minutes
    assert events.count("on_active_ping") > 100


def test_a_live_run_awaits_too():
    candles = synthetic_market(5, 600, START)
    add_strategy("hand", interval="5m", get_signal=plain)
    expected = trades(Market(candles).live(500))
    assert expected
    use_memory()
    clear_strategies()
    add_strategy("hand", interval="5m", get_signal=awaiting)
    assert trades(in_a_loop(lambda: Market(candles).live(500))) == expected


# ---------------------------------------------------------------- errors


async def raising(symbol, when):
    await asyncio.sleep(0)
    raise LookupError("no opinion")


async def exiting(symbol, when):
    await asyncio.sleep(0)
    raise SystemExit(3)


async def cancelling(symbol, when):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


async def stopping(symbol, when):
    raise StopIteration


ERRORS = [(raising, "LookupError: no opinion"), (exiting, "SystemExit: 3"), (cancelling, "CancelledError"), (stopping, "RuntimeError")]


@pytest.mark.parametrize("start", [lambda call: call(), in_a_loop], ids=["no loop", "running loop"])
@pytest.mark.parametrize(("function", "text"), ERRORS)
def test_an_error_ends_the_run_or_is_skipped(function, text, start):
    import_candles(flat(60), "BTCUSDT")
    add_strategy("s", get_signal=function)
    with pytest.raises(StrategyError, match=rf"raised {text}(.|\n)*test_async_strategies\.py(:\d+)?\)") as caught:
        start(lambda: run_backtest("BTCUSDT"))
    assert caught.value.__cause__ is not None
    assert not caught.value.results[0].complete
    result = start(lambda: run_backtest("BTCUSDT", on_error="skip"))
    assert (result.complete, result.errors_skipped) == (True, 11)


def test_a_plain_function_that_returns_an_awaitable_is_an_error_that_says_so():
    import_candles(flat(60), "BTCUSDT")
    add_strategy("s", get_signal=lambda symbol, when: awaiting(symbol, when))
    with pytest.raises(BadSignalError, match=r"get_signal returned an awaitable \(coroutine\), but is a plain function\n(.|\n)*async def"):
        run_backtest("BTCUSDT")
    clear_strategies()
    add_strategy("s", get_signal=lambda symbol, when: None, on_tick=lambda event: awaiting("BTCUSDT", event.when))
    with pytest.raises(StrategyError, match="on_tick of strategy 's' returned an awaitable"):
        run_backtest("BTCUSDT")


def test_a_task_that_is_left_behind_is_cancelled_at_the_end():
    import_candles(flat(30), "BTCUSDT")
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(current_run().strategy_name)

    tasks = []

    async def get_signal(symbol, when):
        if not tasks:
            tasks.append(asyncio.create_task(forever()))
            await asyncio.sleep(0)

    add_strategy("s", get_signal=get_signal)
    for start in (lambda call: call(), in_a_loop):
        tasks.clear()
        start(lambda: run_backtest("BTCUSDT"))
        assert tasks[0].cancelled()
    assert ended == ["s", "s"]


def in_the_loop_of_a_notebook(call):
    """Unlike ``asyncio.run``, a notebook leaves Ctrl-C to the code of the cell."""

    async def main():
        return call()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("start", [lambda call: call(), in_the_loop_of_a_notebook], ids=["no loop", "running loop"])
def test_ctrl_c_ends_an_await_that_never_ends(start):
    import_candles(flat(30), "BTCUSDT")
    ended = []

    async def get_signal(symbol, when):
        asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(when)

    add_strategy("s", get_signal=get_signal)
    with pytest.raises(KeyboardInterrupt):
        start(lambda: run_backtest("BTCUSDT"))
    assert len(ended) == 1


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_before_the_thread_has_taken_the_call(begun, monkeypatch, caplog):
    """Ctrl-C interrupts ``submit`` itself, before or after the coroutine began: it ends, without a warning, and so does its thread."""
    import_candles(flat(30), "BTCUSDT")
    running, ended = threading.Event(), []

    async def get_signal(symbol, when):
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(when)

    class Interrupted(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            if not arguments:
                return super().submit(function)
            let_go = threading.Event()
            if not begun:
                super().submit(let_go.wait)
            super().submit(function, *arguments)
            if begun:
                assert running.wait(60)
            threading.Timer(0.2, let_go.set).start()
            raise KeyboardInterrupt

    monkeypatch.setattr(event_loop, "ThreadPoolExecutor", Interrupted)
    add_strategy("s", get_signal=get_signal)
    with pytest.raises(KeyboardInterrupt):
        in_the_loop_of_a_notebook(lambda: run_backtest("BTCUSDT"))
    assert len(ended) <= 1
    assert bool(ended) or not begun
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("backtest-kit-mongo-strategy")]
    assert "not awaited" not in caplog.text


def test_what_is_not_awaited_is_refused_when_it_is_registered():
    async def coroutine(*arguments):
        return None

    async def generator(symbol, when):
        yield None

    with pytest.raises(InvalidTypeError, match="get_candles of exchange 'x' must be a plain function, not an async function"):
        add_exchange("x", get_candles=coroutine)
    with pytest.raises(InvalidTypeError, match="validate of risk 'x' must be a plain function"):
        add_risk("x", validate=coroutine)
    for function in (generator, functools.partial(generator)):
        with pytest.raises(InvalidTypeError, match="must be a function that returns, not a generator"):
            add_strategy("x", get_signal=function)
