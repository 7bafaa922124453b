"""The live run that ``live_kills`` kills, and the exchange it trades on, each in its own process.

    python tests/helpers/killed_live_run.py exchange    # ``exchange_server`` with fast market time; prints its address
    python tests/helpers/killed_live_run.py runs        # loads the library and forks a run for each line that it reads

A run trades three symbols under one risk limit through ccxt, with limits, market orders, and every request a user can make. It reports
what it does (orders and their signals, callbacks) on its output, so that the report outlives it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import zlib
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

from exchange_server import Exchange, ExchangeServer
from hand_market import MINUTE, START

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import (
    Live,
    activate_scheduled,
    add_broker,
    add_risk,
    add_strategy,
    cancel_scheduled,
    close_pending,
    create_signal,
    get_candles,
    stop,
    synthetic_market,
)
from backtest_kit_mongo.runner.clock import OutsideRunError
from backtest_kit_mongo.runner.live.ccxt_broker import CcxtBroker
from backtest_kit_mongo.runner.market import ccxt_exchange
from backtest_kit_mongo.runner.market.ccxt_exchange import add_ccxt_exchange

SYMBOLS = ("BTCUSDT", "ETHUSDT", "LTCUSDT")
STRATEGY, EXCHANGE, RISK, LIMIT = "busy", "binance", "shared", 2
SPEEDS = (500.0, 500.0, 500.0, 100.0)  # market seconds per second: a minute is 0.12 s, or 0.6 s, which is longer than a restart
RECEIVE = 0.35  # seconds after which the exchange rejects an order; the broker waits a little longer
FIRST = 100  # minutes of the market that have passed at the start

CLOSINGS = ("closedSignal", "takeProfitSignal", "stopLossSignal")
DEFERRED = {"retryOpenSignal": "opening", "cancelledSignal": "cancelling", "activatedSignal": "activating", "createdSignal": "creating"}
DEFERRED |= dict.fromkeys(CLOSINGS, "closing")
HOOKS = {
    **{f"{work}, written": 6 for work in ("opening", "closing")},
    **{f"{work}, {when}": 2 for work in ("creating", "cancelling", "activating", "nothing deferred") for when in ("to write", "written")},
    **{f"{name}, {when}": 5 for name in ("signal", "schedule") for when in ("to write", "written")},
    **{f"{name}, {when}": 2 for name in ("risk", "notification", "storage") for when in ("to write", "written")},
    **{f"{name}, to write": 1 for name in ("opening", "closing", "recent", "state", "session", "partial", "candle", "log")},
    "POST order, to send": 5, "POST order, answered": 6, "GET order, to send": 3, "GET order, answered": 3, "GET klines, answered": 1,
}  # fmt: skip
"""Places at which a run can be killed, and how likely each is."""


class Plan(NamedTuple):
    """How a run ends: killed ``wait`` seconds after it reaches ``hook``, having passed it ``skip`` times; or it finishes by itself."""

    hook: str | None = None
    skip: int = 0
    wait: float = 0.0
    finish: str | None = None  # "stop": soon; "flat": when nothing is open
    speed: float = SPEEDS[0]


def _say(*words: object) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())


class _Hooks:
    """Tracks where the run is, so that it can be killed there."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._left, self._lock = plan, plan.skip, threading.Lock()

    def reach(self, place: str) -> None:
        if place != self._plan.hook:
            return
        with self._lock:
            self._left -= 1
            if self._left != -1:
                return
        _say("reached", place)
        if self._plan.wait == 0:
            self._kill()
        threading.Timer(self._plan.wait, self._kill).start()

    @staticmethod
    def _kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def around(self, name: str, before: str, after: str, call: Any) -> Any:
        self.reach(f"{name}, {before}")
        result = call()
        self.reach(f"{name}, {after}")
        return result

    def install(self) -> None:
        """Hook every write of a contract and every request to the exchange."""
        for domain in DOMAINS.values():
            for call in domain.calls:
                if call.operation in ("write", "put_rows", "put_candles"):
                    self._write(adapter_of(domain), domain.name, call.name)
        import ccxt

        send = ccxt.Exchange.fetch

        def fetch(api: Any, url: str, method: str = "GET", *arguments: Any, **named: Any) -> Any:
            name = f"{method} {urlsplit(url).path.rsplit('/')[-1]}"
            return self.around(name, "to send", "answered", lambda: send(api, url, method, *arguments, **named))

        ccxt.Exchange.fetch = fetch

    def _write(self, adapter: Any, domain: str, method: str) -> None:
        write = getattr(adapter, method)

        def hooked(*arguments: Any) -> Any:
            name = domain
            if domain == "strategy":
                name = next((work for slot, work in DEFERRED.items() if arguments[0][slot] is not None), "nothing deferred")
            return self.around(name, "to write", "written", lambda: write(*arguments))

        setattr(adapter, method, hooked)


class _Told(CcxtBroker):
    """Reports which signal an order belongs to, whatever its client id is, before it is sent."""

    def submit(self, order: Any) -> Any:
        _say("asked", order.client_id, order.signal_id, order.action, order.symbol, order.position)
        return super().submit(order)


def _draw(*of: object) -> int:
    return zlib.crc32(repr(of).encode())


def _signal(symbol: str, minute: int) -> dict[str, Any]:
    """Return a signal near the current price that resolves within a few minutes."""
    price = get_candles(symbol, "1m", 1)[-1]["close"]
    draw = _draw(symbol, minute, "signal")
    sign = 1 if draw % 2 else -1
    raw = {
        "position": "long" if sign == 1 else "short",
        "priceTakeProfit": price * (1 + sign * 0.003),
        "priceStopLoss": price * (1 - sign * 0.003),
        "minuteEstimatedTime": 1 + draw // 2 % 4,
    }
    return {**raw, "priceOpen": price * (1 - sign * 0.001)} if draw // 8 % 2 else raw


def _get_signal(symbol: str, when: Any) -> dict[str, Any] | None:
    minute = int(when.timestamp()) // 60
    return _signal(symbol, minute) if _draw(symbol, minute) % 4 else None


def _on_tick(event: Any) -> None:
    minute = int(event.when.timestamp()) // 60
    match _draw(event.symbol, minute, "tick") % 12:
        case 0:
            cancel_scheduled()
        case 1 | 2:
            activate_scheduled()
        case 3 | 4 if event.price == event.price:
            create_signal(_signal(event.symbol, minute))


def _on_active_ping(event: Any) -> None:
    if _draw(event.symbol, event.when, "ping") % 5 == 0:
        close_pending()


class _Noted:
    """A logger that reports warnings and errors."""

    def __getattr__(self, name: str) -> Any:
        return self._note if name in ("warn", "warning", "error") else lambda *_: None

    @staticmethod
    def _note(*texts: object) -> None:
        _say("noted", " ".join(map(str, texts)))


def control(url: str, change: dict[str, Any] | None = None) -> Any:
    with urlopen(f"{url}/control", data=json.dumps(change or {}).encode(), timeout=30.0) as answer:
        return json.load(answer)


def _run(setup: dict[str, Any], url: str, plan: Plan) -> None:
    _say("pid", os.getpid())
    os.environ["CC_SCHEDULE_AWAIT_MINUTES"] = "6"
    kit.setup(setup, mode="live")
    kit.set_logger(_Noted())
    ccxt_exchange._FIRST_WAIT = 0.02
    options = {"timeout": 1000, "rateLimit": 1}
    add_ccxt_exchange(EXCHANGE, url=url, options=options)
    options = {**options, "options": {"recvWindow": int(RECEIVE * 1000)}}
    add_broker("ccxt", _Told(url=url, api_key="key", secret="secret", options=options, recv_window=RECEIVE + 0.1, fill_timeout=1.0))
    add_risk(RISK, max_positions=LIMIT)
    add_strategy(
        STRATEGY, interval="1m", get_signal=_get_signal, risk_name=RISK, on_tick=_on_tick, on_active_ping=_on_active_ping,
        on_schedule=lambda event: _say("scheduled", event.signal["id"]),
        on_open=lambda event: _say("opened", event.signal["id"]), on_close=lambda event: _say("closed", event.signal["id"]),
    )  # fmt: skip
    _Hooks(plan).install()
    now = control(url, {"orders": False})["now_ms"]
    since = time.monotonic()  # after the response, so that this clock never runs ahead of the exchange's

    def clock() -> int:
        return int(now + (time.monotonic() - since) * 1000 * plan.speed)

    runs = {
        symbol: Live.background(
            symbol, broker_name="ccxt", order_attempts=1000, clock=clock, sleep=lambda seconds: time.sleep(seconds / plan.speed)
        )
        for symbol in SYMBOLS
    }
    if plan.finish == "stop":
        time.sleep(1.5)
        for run in runs.values():
            run.stop()
    for symbol, run in runs.items() if plan.finish == "flat" else ():
        while not run.done:
            with suppress(OutsideRunError):
                stop(symbol)
                break
            time.sleep(0.01)
    while not all(run.done for run in runs.values()):
        time.sleep(0.01)
        for run in runs.values():
            if run.done and plan.finish is None:
                run.result()
                raise AssertionError("a run has ended by itself")
    _say("trades", sum(len(run.result().trades) for run in runs.values()))


def _fork_runs() -> None:
    import ccxt  # noqa: F401 - loaded once, for all runs
    import tenacity  # noqa: F401

    for line in sys.stdin:
        message = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _run(message["setup"], message["url"], Plan(*message["plan"]))
                status = 0
            except BaseException as error:  # noqa: BLE001 - everything is reported
                _say("error", repr(error))
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        _say("end", os.waitstatus_to_exitcode(status))


# --- the exchange ---


class _MarketTime(Exchange):
    """Orders are filled at market time, and requests are not kept."""

    def _shown(self, order: dict[str, Any]) -> dict[str, Any]:
        order["filled"] = order.get("filled") or (self.now_ms if order["status"] == "FILLED" else 0)
        order["time"] = order["updateTime"] = order["filled"] or self.now_ms
        return super()._shown(order)

    def control(self, change: dict[str, Any]) -> dict[str, Any]:
        self.requests.clear()
        answer = super().control(change)
        return answer if change.get("orders", True) else {"now_ms": answer["now_ms"]}


def _serve() -> None:
    markets = {symbol: synthetic_market(index, 20_000, START, price=25_000 / 10**index) for index, symbol in enumerate(SYMBOLS)}
    with ExchangeServer(_MarketTime(markets, START + FIRST * MINUTE, speed=SPEEDS[0])) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"exchange": _serve, "runs": _fork_runs}[sys.argv[1]]()
