"""ccxt against a local exchange that speaks Binance's protocol: candles and orders, with every kind of network fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from exchange_server import BODY_FAULTS, FEE, OPEN, STEP, Exchange, ExchangeServer
from hand_market import MINUTE, START
from live_market import Market, once_at, signal_row
from paths import HELPERS
from prepared import Prepared

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import GRIDS
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import ConfigError, InvalidTypeError, InvalidValueError, MissingDependencyError
from backtest_kit_mongo.runner import (
    add_broker,
    average_buy,
    clear_brokers,
    clear_strategies,
    close_partial,
    imported_spans,
    synthetic_market,
)
from backtest_kit_mongo.runner.engine.broker import Order, OrderRejected
from backtest_kit_mongo.runner.live.ccxt_broker import CcxtBroker, short_id
from backtest_kit_mongo.runner.market import ccxt_exchange
from backtest_kit_mongo.runner.market.ccxt_exchange import add_ccxt_exchange
from backtest_kit_mongo.runner.market.exchange import ExchangeError, ExchangeUnavailableError, clear_exchanges, fetch_missing, find_exchange

pytestmark = [pytest.mark.once, pytest.mark.slow]  # a local exchange delays responses on purpose

SERVER = HELPERS / "exchange_server.py"
WEEK = START + 5 * 1440 * MINUTE
MARKET = synthetic_market(5, 3000, START)
NOW = START + 2000 * MINUTE + 30_000
KLINES = "/api/v3/klines"


@pytest.fixture
def exchange():
    return Exchange({"BTCUSDT": MARKET, "ETHUSDT": synthetic_market(6, 3000, START, price=1500.0)}, NOW)


@pytest.fixture
def server(exchange, monkeypatch):
    monkeypatch.setattr(ccxt_exchange, "_FIRST_WAIT", 0.01)
    clear_exchanges()
    with ExchangeServer(exchange) as running:
        yield running
    for clear in (clear_exchanges, clear_brokers, clear_strategies):
        clear()


def patience(fault):
    """Return ccxt's timeout (ms): short only if no response comes, since a busy machine may delay any other."""
    return 1_500 if fault == "timeout" else 30_000


@pytest.fixture
def binance(request, server, mongo):
    fault = request.node.callspec.params.get("fault") if hasattr(request.node, "callspec") else None
    add_ccxt_exchange(url=server.url, options={"timeout": patience(fault), "rateLimit": 1})
    return server.exchange


def broker(server, *, fault=None, **options):
    given = {"api_key": "key", "secret": "secret", "recv_window": 1.0, "fill_timeout": 30.0, **options}
    return CcxtBroker("binance", server.url, options={"timeout": patience(fault), "rateLimit": 1}, **given)


def minutes(first, last):
    return START + first * MINUTE, START + last * MINUTE


def stored(first, last, symbol="BTCUSDT"):
    return kit.PersistCandleAdapter.read_candles_array(symbol, "1m", "binance", last - first, START + first * MINUTE)


def nothing_stored():
    return default_registry.store(DOMAINS["candle"]).candle_series() == [] and imported_spans("BTCUSDT") == ()


def asked(exchange, path=KLINES, method="GET"):
    return [query for how, where, query in exchange.requests if (how, where) == (method, path)]


# ---------------------------------------------------------------- candles


def test_candles_come_as_they_are_and_only_those_that_are_missing(binance):
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(100, 1900), now_ms=NOW) == 1800
    assert (stored(100, 1900) == MARKET[100:1900]).all()
    assert [(int(query["startTime"]), query["limit"]) for query in asked(binance)] == [
        (minutes(100, 0)[0], "1000"),
        (minutes(1100, 0)[0], "801"),
    ]
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(100, 1900), now_ms=NOW) == 0
    assert len(asked(binance)) == 2
    assert default_registry.store(DOMAINS["candle"]).candle_series() == [("binance", "BTCUSDT", "1m")]  # the plain symbol


def test_other_intervals_and_the_symbol_in_ccxts_spelling(binance):
    assert fetch_missing("ETHUSDT", "1h", "binance", START, START + 33 * 60 * MINUTE, now_ms=NOW) == 33
    assert fetch_missing("ETH/USDT", "15m", "binance", *minutes(0, 60), now_ms=NOW) == 4
    assert {query["symbol"] for query in asked(binance)} == {"ETHUSDT"}


@pytest.mark.parametrize(("interval", "count", "first"), [("12h", 190, START), ("3d", 31, START), ("1w", 12, WEEK), ("1M", 3, START)])
def test_days_weeks_and_months_are_spelled_as_ccxt_spells_them(binance, interval, count, first):
    """95 days from 2023-03-01 on have 31 whole pieces of three days, and the first three months; the first Monday is 2023-03-06."""
    now = START + 95 * 1440 * MINUTE
    binance.markets["BTCUSDT"], binance.now_ms = synthetic_market(5, 96 * 1440, START), now
    assert fetch_missing("BTCUSDT", interval, "binance", first, GRIDS[interval].align(now), now_ms=now) == count
    assert {query["interval"] for query in asked(binance)} == {interval}
    candles = kit.PersistCandleAdapter.read_candles_array("BTCUSDT", interval, "binance", count, first)
    minutes = binance.markets["BTCUSDT"]
    edges = np.searchsorted(minutes["timestamp"], GRIDS[interval].stamps(first, GRIDS[interval].after(first, count + 1)))
    assert candles["close"].tolist() == minutes["close"][edges[1:] - 1].tolist()


def test_a_candle_that_is_not_closed_by_the_exchanges_clock_is_left_out(binance):
    """Our clock is ahead and says that the minute is over, while the exchange still returns its prices so far."""
    ahead = NOW + 45_000
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(1990, 2010), now_ms=ahead) == 10
    assert stored(2000, 2001) is None
    binance.now_ms = START + 2001 * MINUTE
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(1990, 2010), now_ms=ahead) == 1
    assert (stored(1990, 2001) == MARKET[1990:2001]).all()


def test_prices_that_are_older_than_the_answer_that_brings_them(binance):
    """The minute ends while the response is in transit: its date is in the next minute, its prices are not final."""
    fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 1), now_ms=NOW)  # the first request takes longer
    binance.now_ms, binance.speed = START + 2001 * MINUTE - 1500, 1.0
    binance.fail("slow", KLINES, seconds=1.7)
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(1990, 2001), now_ms=NOW + MINUTE) == 11
    assert (stored(1990, 2001) == MARKET[1990:2001]).all()
    assert len(asked(binance)) >= 3


def test_never_anything_unclosed_while_time_goes_on(server, mongo):
    """While a run fetches and minutes end, every stored candle has its final prices."""
    exchange = server.exchange
    add_ccxt_exchange(url=server.url, options={"rateLimit": 1})
    exchange.speed = 600.0  # ten minutes per second
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(1990, 3000), now_ms=exchange.now_ms + 20_000)
    ((since, until),) = imported_spans("BTCUSDT")
    last = (until - START) // MINUTE
    assert since == minutes(1990, 0)[0]
    assert last > 2002
    assert (stored(1990, last) == MARKET[1990:last]).all()


@pytest.mark.parametrize("fault", [429, 500, 503, "reset", "timeout", "drop", "empty", "html"])
@pytest.mark.parametrize("path", [KLINES, "/api/v3/exchangeInfo"])
def test_a_passing_fault_is_survived(binance, fault, path):
    binance.fail(fault, path, times=2, seconds=2.0 if fault == "timeout" else 0)
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 1500), now_ms=NOW) == 1500
    assert (stored(0, 1500) == MARKET[:1500]).all()
    assert len(asked(binance, path)) == 2 + (2 if path == KLINES else 1)


@pytest.mark.parametrize("fault", [429, 500, "reset", "empty", "html", "drop"])
def test_a_lasting_fault_is_an_error_that_names_everything(binance, fault):
    binance.fail(fault, KLINES, times=99, seconds=0)
    with pytest.raises(ExchangeUnavailableError, match="binance, 100 candles of BTCUSDT 1m: "):
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 100), now_ms=NOW)
    assert len(asked(binance)) == 5
    assert nothing_stored()


def test_the_exchange_says_how_long_to_wait(binance):
    binance.fail(429, KLINES, seconds=1.0)
    begin = time.monotonic()
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 10), now_ms=NOW) == 10
    assert time.monotonic() - begin >= 1.0
    binance.fail(418, KLINES, times=2, seconds=120)  # banned for two minutes: asking again makes it worse
    before = len(asked(binance))
    with pytest.raises(ExchangeUnavailableError, match="418"):
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 20), now_ms=NOW)
    assert len(asked(binance)) == before + 1


@pytest.mark.parametrize("fault", BODY_FAULTS)
def test_candles_that_cannot_be_are_never_stored(binance, fault):
    """ccxt repairs the order; for everything else, nothing wrong is stored, and the next fetch repairs it."""
    binance.fail(fault, KLINES)
    if fault in ("unordered", "before"):  # ccxt sorts, and cuts at the requested time
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(10, 100), now_ms=NOW)
    else:
        with pytest.raises(ExchangeError, match=r"exchange 'binance', BTCUSDT 1m, 90 candles from .*: "):
            fetch_missing("BTCUSDT", "1m", "binance", *minutes(10, 100), now_ms=NOW)
        assert nothing_stored()
    fetch_missing("BTCUSDT", "1m", "binance", *minutes(10, 100), now_ms=NOW)
    assert (stored(10, 100) == MARKET[10:100]).all()


def test_what_came_before_a_fault_is_kept(binance):
    fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 1000), now_ms=NOW)
    binance.fail("drop", KLINES, times=5)
    with pytest.raises(ExchangeUnavailableError):
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 1500), now_ms=NOW)
    assert fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 1500), now_ms=NOW) == 500
    assert imported_spans("BTCUSDT") == (minutes(0, 1500),)


def test_names_that_there_are_not(server, mongo):
    add_ccxt_exchange(url=server.url)
    with pytest.raises(InvalidValueError, match=r"binance has no symbol 'BTCUSD'\n.*did you mean BTCUSDT"):
        fetch_missing("BTCUSD", "1m", "binance", *minutes(0, 10), now_ms=NOW)
    with pytest.raises(InvalidValueError, match="none of the 2 names is similar"):
        fetch_missing("QQQQ", "1m", "binance", *minutes(0, 10), now_ms=NOW)
    add_ccxt_exchange("typo", exchange_id="binanse", url=server.url)
    with pytest.raises(InvalidValueError, match=r"ccxt has no exchange 'binanse'\n.*did you mean binance"):
        fetch_missing("BTCUSDT", "1m", "typo", *minutes(0, 10), now_ms=NOW)
    for bad in ("localhost:80", "ftp://x", ""):
        with pytest.raises(InvalidValueError, match="it must be like http"):
            add_ccxt_exchange("other", url=bad)
    with pytest.raises(InvalidTypeError, match="options must be a mapping"):
        add_ccxt_exchange("other", options=[1])
    assert find_exchange("typo").registered_at.startswith(f"{__file__}:")


def test_an_interval_that_the_exchange_does_not_have(server, mongo):
    add_ccxt_exchange("coinbase", exchange_id="coinbase", url=server.url)
    connection = ccxt_exchange.CcxtConnection("coinbase", server.url, None)
    connection._names = {"BTCUSDT": {"symbol": "BTC/USDT"}}
    with pytest.raises(InvalidValueError, match=r"coinbase has no 8h candles\n.*it has 1m, 5m"):
        connection.get_candles("BTCUSDT", "8h", START, 10)


@pytest.mark.parametrize("exchange_id", ["binance", "kraken", "okx", "bybit", "coinbase"])
def test_every_address_moves(server, exchange_id):
    api = ccxt_exchange.CcxtConnection(exchange_id, server.url, None).api

    def addresses(urls):
        return [urls] if isinstance(urls, str) else [one for value in urls.values() for one in addresses(value)]

    assert addresses(api.urls["api"])
    assert all(address.startswith(server.url) for address in addresses(api.urls["api"]))


def test_without_ccxt_the_error_says_what_to_install(server, mongo, monkeypatch):
    add_ccxt_exchange(url=server.url)  # not an error yet: stored candles need no exchange
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(MissingDependencyError, match=r'ccxt is not installed\n.*pip install "backtest-kit-mongo\[exchange\]"'):
        fetch_missing("BTCUSDT", "1m", "binance", *minutes(0, 10), now_ms=NOW)
    with pytest.raises(MissingDependencyError, match="ccxt is not installed"):
        broker(server)


# ---------------------------------------------------------------- orders


def order(client_id="a1", action="open", position="long", quantity=0.01, price=25_000.0, symbol="BTCUSDT", percent=100.0):
    return Order(
        client_id=client_id, signal_id="s", strategy_name="x", exchange_name="binance", symbol=symbol, action=action, position=position,
        quantity=quantity, price=price, percent=percent,
    )  # fmt: skip


def sent(exchange):
    return [(placed["clientOrderId"], placed["side"], float(placed["origQty"])) for placed in exchange.orders]


def test_a_position_is_bought_and_sold_to_the_last_coin_that_can_be_sold(server):
    """The fee of the purchase is taken in coins, so less can be sold than was bought."""
    exchange = server.exchange
    exchange.balances = {"USDT": 1000.0, "BTC": 0.0}
    trader, price = broker(server), exchange.price("BTCUSDT")
    bought = trader.submit(order(quantity=0.0123456))
    assert (bought.order_id, bought.price) == ("1", pytest.approx(price))
    assert bought.quantity == pytest.approx(0.01234 * 0.999)
    assert bought.when_ms == pytest.approx(time.time() * 1000, abs=10_000)
    sold = trader.submit(order("a2", "close", quantity=bought.quantity))
    assert sold.quantity == pytest.approx(0.01232)
    assert sent(exchange) == [("a1", "BUY", 0.01234), ("a2", "SELL", 0.01232)]


@pytest.mark.parametrize(("action", "position", "side"), [("open", "short", "SELL"), ("close", "short", "BUY"), ("close", "long", "SELL")])
def test_sides(server, action, position, side):
    broker(server).submit(order(action=action, position=position, percent=50.0))
    assert sent(server.exchange) == [("a1", side, 0.005)]


def test_the_same_client_id_is_never_ordered_twice(server):
    trader = broker(server)
    first = trader.submit(order())
    assert trader.submit(order()) == first  # again in the same process: the exchange would accept the id of a filled order again
    assert broker(server).submit(order()) == first  # and in another process
    assert broker(server).submit(order(quantity=5.0)) == first
    assert len(server.exchange.orders) == 1


@pytest.mark.parametrize("fault", ["lost", "reset", "timeout", "drop", "empty", "html", 500, 503, 429, 418])
@pytest.mark.parametrize("fill_after", [0, 2])
def test_an_order_is_placed_once_whatever_happens_to_its_answer(server, fault, fill_after):
    exchange = server.exchange
    exchange.fill_after = fill_after
    exchange.fail(fault, "/api/v3/order", method="POST", seconds=2.0 if fault == "timeout" else 0)
    trader = broker(server, fault=fault)
    fill = None
    for _ in range(3):  # like the engine, which asks again after an unknown outcome
        try:
            fill = trader.submit(order())
            break
        except ExchangeUnavailableError:
            continue
    assert fill.quantity == pytest.approx(0.00999)
    assert sent(exchange) == [("a1", "BUY", 0.01)]


@pytest.mark.parametrize("fault", ["reset", "timeout", "drop", "empty", "html", 500, 429])
def test_faults_of_the_look_before_the_order(server, fault):
    exchange = server.exchange
    exchange.fail(fault, "/api/v3/order", method="GET", times=2, seconds=2.0 if fault == "timeout" else 0)
    broker(server, fault=fault).submit(order())
    assert sent(exchange) == [("a1", "BUY", 0.01)]
    exchange.fail(fault, "/api/v3/order", method="GET", times=99, seconds=0)
    with pytest.raises(ExchangeUnavailableError, match="binance, open long BTCUSDT, order a2: "):
        broker(server).submit(order("a2"))
    assert len(exchange.orders) == 1  # nothing is sent before it is certain that the order does not exist


def test_retries_that_ccxt_is_told_to_make_are_not_made_for_orders(server):
    server.exchange.fail("lost", "/api/v3/order", method="POST", times=2)
    trader = broker(server)
    trader._connection.api.options["maxRetriesOnFailure"] = 3
    trader.submit(order())
    assert len(server.exchange.orders) == 1


def test_an_order_that_is_seen_late_is_not_sent_again(server):
    """The response is lost, and the exchange does not show the order for a while."""
    exchange = server.exchange
    exchange.visible_after = 0.2
    exchange.fail("lost", "/api/v3/order", method="POST")
    broker(server).submit(order())
    assert len(exchange.orders) == 1


def test_an_order_that_travels_for_too_long_is_refused_by_the_exchange(server):
    """It arrives after its time window, so after waiting that long it can safely be sent again."""
    exchange = server.exchange
    exchange.fail("late", "/api/v3/order", method="POST", seconds=1.5)
    trader = broker(server)
    trader._connection.api.timeout = 100
    with pytest.raises(ExchangeUnavailableError, match="did not arrive") as failed:
        trader.submit(order())
    assert "signature" not in str(failed.value)
    trader._connection.api.timeout = 30_000
    trader.submit(order())
    time.sleep(1.0)
    assert len(exchange.orders) == 1
    assert len(asked(exchange, "/api/v3/order", "POST")) == 2


def test_a_broker_that_has_just_started_waits_for_what_the_one_before_may_have_sent(server):
    exchange = server.exchange
    exchange.fail("late", "/api/v3/order", method="POST", seconds=0.5)
    before, after = broker(server, recv_window=5.0), broker(server, recv_window=5.0)
    for trader in (before, after):
        trader._connection.market("BTCUSDT")
    before._began -= 5.0  # it started long ago
    thread = threading.Thread(target=before.submit, args=(order(),))
    thread.start()
    while not asked(exchange, "/api/v3/order", "POST"):
        time.sleep(0.01)
    after._began = time.monotonic()  # the order is in transit, as when a process is killed and restarted
    assert after.submit(order()).order_id == "1"
    thread.join()
    assert len(exchange.orders) == 1


def test_a_slow_fill_is_waited_for_but_not_for_ever(server):
    exchange = server.exchange
    exchange.fill_after = 3
    assert broker(server).submit(order()).quantity == pytest.approx(0.00999)
    exchange.fill_after = 10**6
    with pytest.raises(ExchangeUnavailableError, match=r"order a2 is not filled yet: 0.005 of 0.01"):
        broker(server, fill_timeout=0.5).submit(order("a2"))
    exchange.fill_after = 0
    assert broker(server).submit(order("a2")).quantity == pytest.approx(0.00999)
    assert len(exchange.orders) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": 0.000001}, "must be greater than minimum amount precision"),
        ({"quantity": 0.0001}, "cost is 2.5 USDT, but the market accepts at least 5"),
        ({"quantity": 10_000.0}, "amount is 10000 BTC, but the market accepts at most 9000"),
        ({"quantity": 100.0}, "insufficient balance"),
    ],
)
def test_what_the_market_does_not_take_is_rejected(server, change, words):
    server.exchange.balances = {"USDT": 1000.0, "BTC": 0.0}
    with pytest.raises(OrderRejected, match=words):
        broker(server).submit(order(**change))
    assert server.exchange.orders == []


def test_an_order_that_somebody_canceled_is_rejected(server):
    exchange = server.exchange
    exchange.fill_after = 10**6
    with pytest.raises(ExchangeUnavailableError):
        broker(server, fill_timeout=0.1).submit(order(quantity=0.00001 * 30))
    exchange.orders[0] |= {"executedQty": "0.00000000", "status": "CANCELED"}
    with pytest.raises(OrderRejected, match="is canceled, and nothing was filled"):
        broker(server).submit(order(quantity=0.0003))


def test_an_answer_that_only_says_that_the_order_has_arrived(server):
    """OKX, Bybit, Kraken and KuCoin respond like this: the outcome is then queried."""
    options = {"rateLimit": 1, "options": {"newOrderRespType": {"market": "ACK"}}}
    trader = CcxtBroker("binance", server.url, api_key="k", secret="s", recv_window=1.0, options=options)
    bought = trader.submit(order(quantity=0.01))
    assert (bought.quantity, bought.price) == (pytest.approx(0.00999), pytest.approx(server.exchange.price("BTCUSDT")))
    assert sent(server.exchange) == [("a1", "BUY", 0.01)]
    assert asked(server.exchange, "/api/v3/order", "POST")[0]["newOrderRespType"] == "ACK"


@pytest.mark.parametrize(
    ("exchange_id", "answer"),
    [
        ("okx", {"ordId": "1", "clOrdId": "a1", "sCode": "0", "sMsg": "", "tag": ""}),
        ("bybit", {"orderId": "1", "orderLinkId": "a1"}),
        ("kucoin", {"orderId": "1", "clientOid": "a1"}),
        ("kraken", {"descr": {"order": "buy 0.01 XBTUSDT @ market"}, "txid": ["1"]}),
    ],
)
def test_answers_of_other_exchanges_have_no_status_either(server, monkeypatch, exchange_id, answer):
    """Their own responses, parsed by ccxt; the order itself is on the local exchange."""
    trader = broker(server)
    other = ccxt_exchange.CcxtConnection(exchange_id, server.url, None).api
    spot = other.safe_market_structure(
        {"symbol": "BTC/USDT", "id": "BTCUSDT", "spot": True, "base": "BTC", "quote": "USDT", "type": "spot"}
    )
    once = trader._connection.once

    def translated(method, *arguments):
        result = once(method, *arguments)
        return other.parse_order(answer, spot) if method == "create_order" else result

    monkeypatch.setattr(trader._connection, "once", translated)
    assert other.parse_order(answer, spot)["status"] is None
    assert trader.submit(order()).quantity == pytest.approx(0.00999)
    assert len(server.exchange.orders) == 1


class ThinBook(Exchange):
    """Fills a share of each order, in turn; the rest expires, as on Binance when nobody buys more."""

    shares = ()

    def _look(self, order):
        if order["status"] in OPEN and self.shares:
            share, *self.shares = self.shares
            filled = round(float(order["origQty"]) * share, 5)
            cost = filled * order["fillPrice"]
            order |= {"status": "EXPIRED", "executedQty": f"{filled:.8f}", "cummulativeQuoteQty": f"{cost:.8f}"}
            return self._shown(order)
        return super()._look(order)


@pytest.mark.parametrize(
    ("shares", "amounts"),
    [
        ([0.5], [0.01, 0.005]),
        ([0.5, 0.5], [0.01, 0.005, 0.0025]),
        ([0.0], [0.01, 0.01]),
        ([0.5, 0.0, 0.0], [0.01, 0.005, 0.005, 0.005]),
        ([0.99], [0.01]),  # the rest is less than the market accepts
    ],
)
def test_what_an_exchange_leaves_of_a_close_is_sent_again_under_another_id(server, shares, amounts):
    exchange = ThinBook({"BTCUSDT": MARKET}, NOW)
    exchange.shares = shares
    server.exchange = exchange
    for _ in range(shares.count(0.0)):  # each time in a new process
        with pytest.raises(ExchangeUnavailableError, match="nothing was filled; the rest will be sent again"):
            broker(server).submit(order(action="close"))
    fill = broker(server).submit(order(action="close"))
    assert [amount for _, _, amount in sent(exchange)] == pytest.approx(amounts)
    assert len({name for name, _, _ in sent(exchange)}) == len(amounts)
    filled = sum(float(placed["executedQty"]) for placed in exchange.orders)
    assert fill.quantity == pytest.approx(filled)
    assert broker(server).submit(order(action="close")) == fill  # asked again after a restart, nothing more is sold
    assert len(exchange.orders) == len(amounts)


def test_what_an_exchange_leaves_of_an_open_is_not_bought(server):
    exchange = ThinBook({"BTCUSDT": MARKET}, NOW)
    exchange.shares = [0.5, 0.0]
    server.exchange = exchange
    assert broker(server).submit(order()).quantity == pytest.approx(0.005 * 0.999)
    with pytest.raises(OrderRejected, match="is expired, and nothing was filled"):
        broker(server).submit(order("a2"))
    assert len(exchange.orders) == 2


def test_a_position_is_managed_through_ccxt(server, mongo):
    """What the exchange has filled, and what it has kept as a fee, is in the row; at the end, nothing is left that could be sold."""
    near = float(MARKET["close"][100])
    signal = {"position": "long", "priceTakeProfit": near * 1.5, "priceStopLoss": near * 0.5, "minuteEstimatedTime": 10}
    calls = {102: lambda: average_buy(50.0), 104: lambda: close_partial(40)}

    def ping(event):
        calls.pop((int(event.when.timestamp() * 1000) - START) // MINUTE, lambda: None)()

    once_at(100, signal, on_active_ping=ping)
    add_broker("ccxt", broker(server))
    market = Market(MARKET)
    market.minute = 100
    market.live(105, broker_name="ccxt")
    orders = server.exchange.orders
    bought, paid = (sum(float(placed[name]) for placed in orders[:2]) for name in ("executedQty", "cummulativeQuoteQty"))
    stored = signal_row()
    assert [placed["side"] for placed in orders] == ["BUY", "BUY", "SELL"]
    assert sum(entry["cost"] for entry in stored["_entry"]) == pytest.approx(paid)
    assert stored["_quantity"] == pytest.approx(bought * (1 - FEE) - float(orders[2]["executedQty"]))
    assert stored["_partial"][0]["percent"] == pytest.approx(40.0, abs=0.2)
    market.minute = 106
    (trade,) = market.live(115, broker_name="ccxt").trades
    sold = sum(float(placed["executedQty"]) for placed in orders[2:])
    assert (trade.close_reason, trade.entries, trade.partials, len(orders)) == ("time_expired", 2, 1, 4)
    assert 0 <= bought * (1 - FEE) - sold < STEP


def test_clocks_that_differ(server):
    """Requests carry the exchange's time, and are stamped again when it jumps."""
    exchange = server.exchange
    exchange.skew_ms = 3_600_000
    trader = broker(server)
    trader.submit(order())
    exchange.skew_ms = -3_600_000
    trader.submit(order("a2"))
    assert len(exchange.orders) == 2


def test_without_a_key(server, monkeypatch):
    for name in ("CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="CC_EXCHANGE_KEY and CC_EXCHANGE_SECRET"):
        CcxtBroker(url=server.url)
    monkeypatch.setenv("CC_EXCHANGE_KEY", "key-1")
    monkeypatch.setenv("CC_EXCHANGE_SECRET", "secret-1")
    assert repr(CcxtBroker(url=server.url)) == "CcxtBroker('binance')"
    with pytest.raises(InvalidValueError, match="recv_window is 0"):
        CcxtBroker(url=server.url, recv_window=0)


def test_client_ids_fit_and_stay_the_same():
    assert short_id("0123456789abcdef0123456789abcdef") == "0123456789abcdef0123456789abcdef"
    long = "strategy:BTCUSDT:2023-03-01T00:00:00Z:open"
    assert short_id(long) == short_id(long) != short_id(long + "x")
    assert len(short_id(long)) == 32


ORDERS = 40
CHILD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from test_ccxt import CcxtBroker, ExchangeUnavailableError, order
trader = CcxtBroker(url=sys.argv[1], api_key="k", secret="s", recv_window=1.0, options={"rateLimit": 1})
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    fill = None
    while fill is None:
        try:
            fill = trader.submit(order(f"step{number}"))
        except ExchangeUnavailableError:
            pass
    print(number, fill.order_id, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_anywhere_orders_each_step_once(server):
    """It is restarted again and again, and begins with its first step each time, as if it had recorded nothing."""
    exchange, random = server.exchange, np.random.default_rng(1)
    kills, done = 0, False
    while not done:
        for kind in ("lost", "drop"):
            exchange.fail(kind, "/api/v3/order", method="POST", times=1)
        with Prepared("prepared:run_code", [CHILD, Path(__file__).parent, server.url, ORDERS]) as child:
            assert child.stdout.readline() == "ready\n"
            before = len(exchange.orders)
            if kills < 5:
                while child.poll() is None and len(exchange.orders) < before + int(random.integers(1, 4)):
                    time.sleep(0.001)
                time.sleep(float(random.uniform(0, 0.02)))
                kills += child.poll() is None
                child.kill()
            output, errors = child.communicate(timeout=60)
            done = child.returncode == 0
            assert done or child.returncode == -signal.SIGKILL, errors
    assert kills == 5
    assert [name for name, _, _ in sent(exchange)] == [f"step{number}" for number in range(ORDERS)]
    assert output.splitlines()[-1] == f"{ORDERS - 1} {ORDERS}"


# ---------------------------------------------------------------- the server as a process


@pytest.mark.slow
def test_orders_survive_a_kill_of_the_server(tmp_path):
    state = tmp_path / "orders.json"

    def start():
        process = subprocess.Popen(
            [sys.executable, SERVER, "--state", str(state), "--minutes", "600"], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        return process, f"http://127.0.0.1:{process.stdout.readline().strip()}"

    process, url = start()
    try:
        trader = CcxtBroker(url=url, api_key="k", secret="s", recv_window=1.0)
        first = trader.submit(order())
        process.kill()
        process.wait()
        process.stdout.close()
        process, url = start()
        assert CcxtBroker(url=url, api_key="k", secret="s", recv_window=1.0).submit(order()) == first
        change = urllib.request.Request(url + "/control", json.dumps({"speed": 0, "now_ms": 1}).encode(), method="POST")
        with urllib.request.urlopen(change) as answer:
            orders = json.load(answer)
        assert orders["now_ms"] == 1
        assert [placed["clientOrderId"] for placed in orders["orders"]] == ["a1"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()
