"""Exchanges that refuse to answer: regions that they do not serve, bans with an end, and candles without a volume."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest
from exchange_server import Exchange, ExchangeServer
from hand_market import MINUTE, START
from paths import EXAMPLE
from prepared import Prepared

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import ConfigError, InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import ExchangeRefusedError, Live, add_strategy, clear_strategies, imported_spans, synthetic_market
from backtest_kit_mongo.runner.engine.broker import Order
from backtest_kit_mongo.runner.live.ccxt_broker import CcxtBroker
from backtest_kit_mongo.runner.market import ccxt_exchange
from backtest_kit_mongo.runner.market.ccxt_exchange import CcxtConnection, add_ccxt_exchange
from backtest_kit_mongo.runner.market.exchange import ExchangeError, ExchangeUnavailableError, clear_exchanges, fetch_missing
from backtest_kit_mongo.runner.market.pauses import WaitStoppedError, ended_by

pytestmark = [pytest.mark.once, pytest.mark.slow]

MARKET = synthetic_market(5, 3000, START)
NOW = START + 2000 * MINUTE + 30_000
KLINES = "/api/v3/klines"
OPTIONS = {"timeout": 30_000, "rateLimit": 1}
SETTING = "CC_EXCHANGE_MAX_WAIT_SECONDS"

# What Binance answers.
RESTRICTED = {
    "code": 0,
    "msg": "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms.",
}
FIREWALL = "<html><head><title>403 Forbidden</title></head><body><center><h1>403 Forbidden</h1></center></body></html>"


def banned(until_ms):
    return {"code": -1003, "msg": f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."}


@pytest.fixture
def exchange():
    return Exchange({"BTCUSDT": MARKET}, NOW)


@pytest.fixture
def server(exchange, monkeypatch):
    monkeypatch.setattr(ccxt_exchange, "_FIRST_WAIT", 0.01)
    monkeypatch.delenv(SETTING, raising=False)
    clear_exchanges()
    with ExchangeServer(exchange) as running:
        yield running
    clear_exchanges()


@pytest.fixture
def messages():
    """The messages of the library."""
    collected = []

    class Collector:
        def warning(self, message):
            collected.append(message)

        debug = info = error = warning

    kit.set_logger(Collector())
    yield collected
    kit.set_logger(None)


def asked(exchange, path=KLINES):
    return [query for _, where, query in exchange.requests if path in where]


def fetch(last=10):
    return fetch_missing("BTCUSDT", "1m", "binance", START, START + last * MINUTE, now_ms=NOW)


def nothing_stored():
    return default_registry.store(DOMAINS["candle"]).candle_series() == [] and imported_spans("BTCUSDT") == ()


# ---------------------------------------------------------------- 451 and 403


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [(451, RESTRICTED, "does not serve the region of this address"), (403, FIREWALL, "rejects requests from this address")],
)
@pytest.mark.parametrize("path", [KLINES, "/api/v3/exchangeInfo"])
def test_an_exchange_that_does_not_serve_this_address(server, mongo, path, status, body, words):
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    server.exchange.fail(status, path, times=99, body=body)
    with pytest.raises(ExchangeRefusedError, match=rf"binance {words}.* \(HTTP {status}\): ") as caught:
        fetch()
    assert isinstance(caught.value, ExchangeError)
    assert isinstance(caught.value, PermissionError)
    assert not isinstance(caught.value, ExchangeUnavailableError)  # that one may be tried again
    for way_out in ("binanceus", "--exchange-url", "stored candles and files need no exchange"):
        assert way_out in caught.value.hint
    assert len(asked(server.exchange, path)) == 1
    assert nothing_stored()


@pytest.mark.parametrize("status", [451, 403])
@pytest.mark.parametrize("exchange_id", ["binanceus", "kraken", "okx", "bybit", "kucoin", "gate", "bitstamp", "coinbase"])
def test_other_exchanges_are_asked_once_too(server, exchange_id, status):
    server.exchange.fail(status, times=99, body=FIREWALL)
    connection = CcxtConnection(exchange_id, server.url, {"rateLimit": 1})
    with pytest.raises(ExchangeRefusedError, match=rf"{exchange_id} .* \(HTTP {status}\)"):
        connection.market("BTCUSDT")
    assert len(server.exchange.requests) == 1


@pytest.mark.parametrize("body", [{"result": "error", "reason": "MissingRole", "message": "the key lacks a role"}, FIREWALL])
def test_a_403_that_is_about_the_key_is_left_as_it_is(server, body):
    """Gemini documents 403 as a key without a right, and ccxt knows that."""
    server.exchange.fail(403, times=99, body=body)
    with pytest.raises(ExchangeError, match=r"the key lacks a role|PermissionDenied") as caught:
        CcxtConnection("gemini", server.url, {"rateLimit": 1}).ask("symbols", "public_get_v1_symbols")
    assert not isinstance(caught.value, ExchangeRefusedError)
    assert len(server.exchange.requests) == 1


def test_the_command_ends_at_once(server, tmp_path):
    server.exchange.fail(451, times=99, body=RESTRICTED)
    command = [sys.executable, "-m", "backtest_kit_mongo", "run", str(EXAMPLE), "--backtest", "--entry", "--embedded"]
    command += ["--embedded-dir", str(tmp_path / "data"), "--exchange-url", server.url, "--frame", "2023-03-01:2023-03-02"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    text = " ".join(ended.stderr.split())
    assert ended.returncode == 1, ended.stderr
    assert "does not serve the region of this address (HTTP 451)" in text
    assert "Traceback" not in text
    assert len(server.exchange.requests) == 1


def test_an_order_to_an_exchange_that_refuses(server):
    """The order was not placed, the position is not lost: the lookup says why it failed."""
    trader = CcxtBroker("binance", server.url, api_key="key", secret="secret", recv_window=1.0, options=OPTIONS)
    server.exchange.fail(403, "/api/v3/order", times=99, body=FIREWALL)
    order = Order(
        client_id="a1", signal_id="s", strategy_name="x", exchange_name="binance", symbol="BTCUSDT", action="open", position="long",
        quantity=0.01, price=25_000.0,
    )  # fmt: skip
    with pytest.raises(ExchangeRefusedError) as caught:
        trader.submit(order)
    assert "signature" not in str(caught.value)
    assert server.exchange.orders == []


# ---------------------------------------------------------------- bans


def in_seconds(seconds):
    return int((time.time() + seconds) * 1000)


@pytest.mark.parametrize("said", ["header", "date", "text"])
def test_a_ban_within_the_limit_is_waited_out(server, mongo, messages, said):
    """The exchange may say it in seconds, as a date, or in the text of the answer. The user is told once."""
    add_ccxt_exchange(url=server.url, options=OPTIONS, max_wait=20.0)
    server.exchange.now_ms, server.exchange.speed = int(time.time() * 1000), 1.0  # the date of the answers
    body = banned(in_seconds(12)) if said == "text" else None
    seconds = {"header": 6, "date": formatdate(time.time() + 12.5, usegmt=True), "text": None}[said]
    server.exchange.fail(418, KLINES, seconds=seconds, body=body)
    begin = time.monotonic()
    assert fetch() == 10
    assert time.monotonic() - begin >= 5.0
    assert len(asked(server.exchange)) == 2
    (message,) = [text for text in messages if "accepts no requests before" in text]
    assert "binance accepts no requests before 20" in message
    assert "Z; waiting " in message


def test_threads_wait_for_the_same_ban_and_one_message_is_logged(server, mongo, messages):
    add_ccxt_exchange(url=server.url, options=OPTIONS, max_wait=20.0)
    fetch(1)
    server.exchange.fail(418, KLINES, seconds=6)
    errors = []

    def run(last):
        try:
            fetch(last)
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(last,)) for last in (100, 200, 300)]
    before = len(asked(server.exchange))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(asked(server.exchange)) - before <= 6  # at most one each before the ban, and one each after it
    assert len([text for text in messages if "accepts no requests before" in text]) == 1


def test_a_longer_ban_is_an_error_that_says_how_long_and_nothing_more_is_sent(server, mongo):
    add_ccxt_exchange(url=server.url, options=OPTIONS, max_wait=299.0)
    server.exchange.fail(418, KLINES, seconds=300)
    begin = time.monotonic()
    with pytest.raises(
        ExchangeUnavailableError, match=r"binance accepts no requests before 20\S+Z, in 300 s; it answered: .*418"
    ) as caught:
        fetch()
    assert f"at most 299 s in all; {SETTING} or max_wait= sets another limit" in caught.value.hint
    with pytest.raises(ExchangeUnavailableError, match=r"in (300|299) s; no request was sent"):
        fetch()
    assert time.monotonic() - begin < 60
    assert len(asked(server.exchange)) == 1
    assert nothing_stored()


def test_the_end_of_a_ban_in_the_text_alone(server, mongo):
    server.exchange.now_ms, server.exchange.speed = int(time.time() * 1000), 1.0
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    until = in_seconds(3600)
    server.exchange.fail(418, KLINES, seconds=None, body=banned(until))
    with pytest.raises(ExchangeUnavailableError, match=r"in 3(59\d|60\d) s; .*IP banned until") as caught:
        fetch()
    assert "at most 60 s in all" in caught.value.hint  # the default


def test_bans_one_after_the_other_count_together(server, mongo):
    add_ccxt_exchange(url=server.url, options=OPTIONS, max_wait=5.0)
    server.exchange.fail(418, KLINES, times=9, seconds=2)
    with pytest.raises(ExchangeUnavailableError, match="accepts no requests before"):
        fetch()
    assert len(asked(server.exchange)) == 3  # after 2 and 4 seconds; a third pause would exceed the limit


@pytest.mark.parametrize("said", ["soon", "-5", "inf", "1e9", "99999999999"])
def test_a_pause_that_cannot_be_read_counts_as_none(server, mongo, said):
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    server.exchange.fail(418, KLINES, times=2, seconds=said)
    assert fetch() == 10
    assert len(asked(server.exchange)) == 3


def test_the_limit_comes_from_the_environment(server, mongo, monkeypatch):
    monkeypatch.setenv(SETTING, "1.5")
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    server.exchange.fail(429, KLINES, seconds=2)
    with pytest.raises(ExchangeUnavailableError, match="accepts no requests before") as caught:
        fetch()
    assert "at most 1.5 s in all" in caught.value.hint
    for wrong in ("soon", "-1", "nan", "1e9"):
        monkeypatch.setenv(SETTING, wrong)
        with pytest.raises(ConfigError, match=f"{SETTING} is '{wrong}'; it must be a number of seconds from 0 to 86400"):
            add_ccxt_exchange(url=server.url)
        add_ccxt_exchange(f"given {wrong}", url=server.url, max_wait=0)  # takes precedence


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 86_401])
def test_limits_that_cannot_be(wrong):
    with pytest.raises(InvalidValueError, match="max_wait is "):
        add_ccxt_exchange("other", max_wait=wrong)
    for not_a_number in ("60", True):
        with pytest.raises(InvalidTypeError, match=f"max_wait must be a number, got {type(not_a_number).__name__}"):
            add_ccxt_exchange("other", max_wait=not_a_number)


# ---------------------------------------------------------------- stopping while it waits

CHILD = """
import sys, time
import backtest_kit_mongo as kit
from backtest_kit_mongo.runner.market.ccxt_exchange import CcxtConnection
from exchange_server import Exchange, ExchangeServer
from backtest_kit_mongo.runner import synthetic_market

class Told:
    def warning(self, message):
        print(message, flush=True)
    debug = info = error = warning

kit.set_logger(Told())
exchange = Exchange({"BTCUSDT": synthetic_market(5, 100, 1677628800000)}, 1677628800000 + 3_000_000)
exchange.fail(418, "klines", seconds=3000)
with ExchangeServer(exchange) as server:
    try:
        CcxtConnection("binance", server.url, {"rateLimit": 1}, max_wait=3600).get_candles("BTCUSDT", "1m", 1677628800000, 10)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_ends_the_wait():
    process = Prepared("prepared:run_code", [CHILD])
    try:
        assert "accepts no requests before" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"
    finally:
        process.kill()
        process.communicate()


def test_a_live_run_that_is_stopped_does_not_sit_out_the_ban(server, mongo, messages):
    waiting = threading.Event()

    class Watch:
        def warning(self, message):
            messages.append(message)
            if "accepts no requests before" in message:
                waiting.set()

        debug = info = error = warning

    kit.set_logger(Watch())
    server.exchange.now_ms = int(time.time() * 1000)
    server.exchange.fail(418, KLINES, times=99, seconds=3000)
    add_ccxt_exchange(url=server.url, options=OPTIONS, max_wait=3600)
    add_strategy("waits", interval="1m", get_signal=lambda symbol, when: None)
    try:
        run = Live.background("BTCUSDT", strategy_name="waits", exchange_name="binance")
        assert waiting.wait(60)
        run.stop()
        result = run.result(60)
    finally:
        clear_strategies()
    assert result.trades == ()
    assert not [text for text in messages if "live run of" in text]  # it is no error
    assert len(asked(server.exchange)) == 1


def test_a_short_pause_belongs_to_the_minute_that_a_stopped_run_finishes(server, mongo):
    stop = threading.Event()
    stop.set()
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    server.exchange.fail(429, KLINES, seconds=1)
    with ended_by(stop):
        assert fetch() == 10
        server.exchange.fail(429, KLINES, seconds=30)
        with pytest.raises(WaitStoppedError):
            fetch(20)
    assert imported_spans("BTCUSDT") == ((START, START + 10 * MINUTE),)


# ---------------------------------------------------------------- candles without a volume


def test_a_missing_volume_is_zero_only_if_the_user_says_so(server, mongo):
    add_ccxt_exchange(url=server.url, options=OPTIONS)
    server.exchange.fail("no volume", KLINES)
    with pytest.raises(
        ExchangeError, match=r"binance, 100 candles of BTCUSDT 1m: the candle of 2023-03-01T00:50:00Z has no volume"
    ) as caught:
        fetch(100)
    assert 'missing_volume="zero"' in caught.value.hint
    assert nothing_stored()
    clear_exchanges()
    add_ccxt_exchange(url=server.url, options=OPTIONS, missing_volume="zero")
    server.exchange.fail("no volume", KLINES)
    assert fetch(100) == 100
    window = kit.PersistCandleAdapter.read_candles_array("BTCUSDT", "1m", "binance", 100, START)
    expected = MARKET[:100].copy()
    expected["volume"][50] = 0.0
    assert (window == expected).all()


def test_a_missing_price_is_an_error_that_names_the_candle(server, mongo):
    add_ccxt_exchange(url=server.url, options=OPTIONS, missing_volume="zero")
    server.exchange.fail("no price", KLINES)
    with pytest.raises(ExchangeError, match=rf"BTCUSDT 1m, 100 candles .*: candle 50 \(timestamp {START + 50 * MINUTE}\): high is missing"):
        fetch(100)
    assert nothing_stored()


def test_what_a_missing_volume_may_mean():
    for wrong in ("0", 0, None):
        with pytest.raises(InvalidValueError, match=r'missing_volume is .*; it must be "error" or "zero"'):
            add_ccxt_exchange("other", missing_volume=wrong)
