"""A local exchange: Binance's REST endpoints for candles and spot orders over HTTP, with faults; in a test, or a process of its own.

    python tests/helpers/exchange_server.py --port 0 --state orders.json    # prints its port; then: GET and POST /control

Market time (``now_ms``) determines which candles exist and their prices. It can be set, and is frozen or runs. Order time is the wall
clock, as signatures need it. Signatures are not verified, but an API key is required.
"""

from __future__ import annotations

import argparse
import email.utils
import json
import os
import signal
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from backtest_kit_mongo.candles import CANDLE_DTYPE, GRIDS
from backtest_kit_mongo.runner import synthetic_market

MINUTE = 60_000
STEP, TICK, MIN_NOTIONAL, MIN_QUANTITY, FEE = 0.00001, 0.01, 5.0, 0.00001, 0.001
OPEN = ("NEW", "PARTIALLY_FILLED")

BODY_FAULTS = ("unordered", "duplicate", "misaligned", "nan", "no price", "future", "before")
"""Candles that no exchange may give, with status 200."""


class Refused(Exception):
    """An error response of Binance: status, code, message."""


class Exchange:
    """Markets and orders. An order is filled after ``fill_after`` queries, and can be found after ``visible_after`` seconds."""

    def __init__(self, markets, now_ms, *, state=None, speed=0.0, fill_after=0, visible_after=0.0):
        self.markets = {symbol: np.array(candles) for symbol, candles in markets.items()}
        self.speed, self.fill_after, self.visible_after = speed, fill_after, visible_after
        self.balances = {"USDT": 1e9, **{symbol.removesuffix("USDT"): 1e6 for symbol in markets}}
        self.state = None if state is None else Path(state)
        self.orders = json.loads(self.state.read_text()) if self.state is not None and self.state.exists() else []
        self.faults, self.requests = [], []
        self.lock = threading.RLock()
        self.skew_ms = 0
        self.now_ms = now_ms

    # --- time ---

    @property
    def now_ms(self):
        return int(self._base + (time.monotonic() - self._since) * 1000 * self.speed)

    @now_ms.setter
    def now_ms(self, value):
        self._base, self._since = value, time.monotonic()

    def time_ms(self):
        return int(time.time() * 1000) + self.skew_ms

    # --- faults ---

    def fail(self, kind, path="", times=1, method=None, seconds=1.0, body=None):
        """Make the next ``times`` requests of a path fail.

        ``kind`` is an HTTP status, a name of BODY_FAULTS, or no volume (of one candle), reset (mid-body), timeout, empty, html, drop,
        lost, late, slow.
        ``drop`` loses the request, ``lost`` its response. ``late`` delivers the request after ``seconds``, and the response never. With
        ``slow`` the response is that much older than its date. A status of 418 or 429 has ``seconds`` as Retry-After (None: no such
        header). ``body`` replaces the body of a status.
        """
        with self.lock:
            self.faults.append({"kind": kind, "path": path, "times": times, "method": method, "seconds": seconds, "body": body})

    def take_fault(self, method, path):
        with self.lock:
            for fault in self.faults:
                if fault["path"] in path and fault["method"] in (None, method) and fault["times"]:
                    fault["times"] -= 1
                    return fault
        return {"kind": None}

    # --- candles ---

    def candles(self, symbol, interval):
        """Return all candles that have begun; the last one has its prices so far, as on the real exchange."""
        market, now = self._market(symbol), self.now_ms
        minutes = market[market["timestamp"] <= now].copy()
        if len(minutes) and minutes["timestamp"][-1] + MINUTE > now:
            for column in ("high", "low", "close"):
                minutes[column][-1] = minutes["open"][-1]
            minutes["volume"][-1] /= 2
        starts = minutes["timestamp"] - GRIDS[interval].past(minutes["timestamp"])
        collected, first = np.unique(starts, return_index=True)
        rows = np.empty(len(collected), CANDLE_DTYPE)
        if len(collected):
            rows["timestamp"] = collected
            rows["open"] = minutes["open"][first]
            rows["close"] = minutes["close"][np.append(first[1:], len(minutes)) - 1]
            rows["high"] = np.maximum.reduceat(minutes["high"], first)
            rows["low"] = np.minimum.reduceat(minutes["low"], first)
            rows["volume"] = np.add.reduceat(minutes["volume"], first)
        return rows

    def klines(self, query, spoil=None):
        if query.get("interval") not in GRIDS:
            raise Refused(400, -1120, "Invalid interval.")
        grid = GRIDS[query["interval"]]
        rows = self.candles(query.get("symbol"), query["interval"])
        limit = min(int(query.get("limit", 500)), 1000)
        rows = rows[rows["timestamp"] <= int(query.get("endTime", 2**62))]
        rows = rows[rows["timestamp"] >= int(query["startTime"])][:limit] if "startTime" in query else rows[-limit:]
        texts = [
            [stamp, *(f"{value:.8f}" for value in values), grid.after(stamp) - 1, "0", 1, "0", "0", "0"] for stamp, *values in rows.tolist()
        ]
        middle = len(texts) // 2
        match spoil:
            case "unordered":
                texts.reverse()
            case "duplicate":
                texts.insert(middle, texts[middle])
            case "misaligned":
                texts[middle][0] += 1
            case "nan":
                texts[middle][4] = "NaN"
            case "no price":
                texts[middle][2] = None
            case "no volume":
                texts[middle][5] = None
            case "future":
                texts[-1][0] = grid.after(self.time_ms(), 100)
            case "before":
                texts.insert(0, [grid.after(texts[0][0], -1), *texts[0][1:]])
        return texts

    def price(self, symbol):
        return float(self.candles(symbol, "1m")["close"][-1])

    def _market(self, symbol):
        try:
            return self.markets[symbol]
        except KeyError:
            raise Refused(400, -1121, "Invalid symbol.") from None

    def info(self):
        return {
            "timezone": "UTC",
            "serverTime": self.time_ms(),
            "rateLimits": [],
            "exchangeFilters": [],
            "symbols": list(map(_symbol, self.markets)),
        }

    # --- orders ---

    def account(self):
        return {"balances": [{"asset": asset, "free": f"{free:.8f}", "locked": "0"} for asset, free in self.balances.items()]}

    def place(self, query):
        symbol = query.get("symbol")
        base = symbol.removesuffix("USDT") if symbol in self.markets else ""
        price, quantity = self.price(symbol), float(query["quantity"])
        if query["type"] != "MARKET":
            raise Refused(400, -1116, "Invalid orderType.")
        if quantity < MIN_QUANTITY or abs(quantity / STEP - round(quantity / STEP)) > 1e-6:
            raise Refused(400, -1013, "Filter failure: LOT_SIZE")
        if quantity * price < MIN_NOTIONAL:
            raise Refused(400, -1013, "Filter failure: NOTIONAL")
        with self.lock:
            client_id = query["newClientOrderId"]
            if any(order["clientOrderId"] == client_id and order["status"] in OPEN for order in self.orders):
                raise Refused(400, -2010, "Duplicate order sent.")
            pays, gets = ("USDT", base) if query["side"] == "BUY" else (base, "USDT")
            cost = {"USDT": quantity * price, base: quantity}
            if self.balances[pays] < cost[pays]:
                raise Refused(400, -2010, "Account has insufficient balance for requested action.")
            self.balances[pays] -= cost[pays]
            self.balances[gets] += cost[gets] * (1 - FEE)
            order = {
                "symbol": symbol, "orderId": len(self.orders) + 1, "clientOrderId": client_id, "side": query["side"], "type": "MARKET",
                "timeInForce": "GTC", "price": "0.00000000", "origQty": query["quantity"], "executedQty": "0.00000000",
                "cummulativeQuoteQty": "0.00000000", "status": "NEW", "time": self.time_ms(), "updateTime": self.time_ms(),
                "fillPrice": price, "feeAsset": gets, "looks": 0, "seen": time.time() + self.visible_after,
            }  # fmt: skip
            self.orders.append(order)
            shown = self._look(order)
            if query.get("newOrderRespType") == "ACK":  # many other exchanges return no more than this
                return {name: shown[name] for name in ("symbol", "orderId", "clientOrderId")} | {"transactTime": shown["time"]}
            return shown | {"fills": self._trades(order)} if shown["status"] == "FILLED" else shown

    def find(self, query):
        with self.lock:
            for order in reversed(self.orders):
                named = order["clientOrderId"] == query.get("origClientOrderId") or str(order["orderId"]) == query.get("orderId")
                if named and order["symbol"] == query.get("symbol") and time.time() >= order["seen"]:
                    return self._look(order)
        raise Refused(400, -2013, "Order does not exist.")

    def cancel(self, query):
        with self.lock:
            order = next((order for order in self.orders if order["clientOrderId"] == query.get("origClientOrderId")), None)
            if order is None or order["status"] not in OPEN:
                raise Refused(400, -2011, "Unknown order sent.")
            order["status"] = "CANCELED"
            return self._shown(order)

    def trades(self, query):
        with self.lock:
            return [trade for order in self.orders if str(order["orderId"]) == query.get("orderId") for trade in self._trades(order)]

    def _trades(self, order):
        quantity, cost = float(order["executedQty"]), float(order["cummulativeQuoteQty"])
        fee = FEE * (cost if order["feeAsset"] == "USDT" else quantity)
        return [{
            "symbol": order["symbol"], "id": order["orderId"], "tradeId": order["orderId"], "orderId": order["orderId"],
            "price": f"{order['fillPrice']:.8f}", "qty": order["executedQty"], "quoteQty": order["cummulativeQuoteQty"],
            "commission": f"{fee:.8f}", "commissionAsset": order["feeAsset"], "time": order["updateTime"],
            "isBuyer": order["side"] == "BUY", "isMaker": False,
        }]  # fmt: skip

    def _look(self, order):
        """Return the order; each query brings it closer to being filled, half of it first."""
        if order["status"] in OPEN:
            done = order["looks"] >= self.fill_after
            share = 1.0 if done else 0.5 if order["looks"] else 0.0
            filled = round(round(float(order["origQty"]) * share / STEP) * STEP, 8)
            order["status"] = "FILLED" if done else "PARTIALLY_FILLED" if filled else "NEW"
            order |= {
                "executedQty": f"{filled:.8f}",
                "cummulativeQuoteQty": f"{filled * order['fillPrice']:.8f}",
                "updateTime": self.time_ms(),
            }
            order["looks"] += 1
        return self._shown(order)

    def _shown(self, order):
        if self.state is not None:
            part = self.state.with_suffix(".part")
            part.write_text(json.dumps(self.orders))
            os.replace(part, self.state)
        return {name: value for name, value in order.items() if name not in ("fillPrice", "feeAsset", "looks", "seen")}

    # --- control ---

    def control(self, change):
        """Apply the given ``now_ms``, ``speed``, ``fill_after``, ``visible_after`` and ``faults``; return the current state."""
        with self.lock:
            for name in ("speed", "now_ms", "fill_after", "visible_after"):
                if name in change:
                    setattr(self, name, change[name])
            for fault in change.get("faults", ()):
                self.fail(**fault)
            return {"now_ms": self.now_ms, "orders": self.orders, "requests": self.requests, "balances": self.balances}


def _symbol(symbol):
    base = symbol.removesuffix("USDT")
    return {
        "symbol": symbol, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": "USDT", "quotePrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": f"{TICK:.8f}", "maxPrice": "1000000.00000000", "tickSize": f"{TICK:.8f}"},
            {"filterType": "LOT_SIZE", "minQty": f"{MIN_QUANTITY:.8f}", "maxQty": "9000.00000000", "stepSize": f"{STEP:.8f}"},
            {"filterType": "NOTIONAL", "minNotional": f"{MIN_NOTIONAL:.8f}", "applyMinToMarket": True, "maxNotional": "9000000.00000000"},
        ],
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_): ...

    def date_time_string(self, timestamp=None):
        return email.utils.formatdate(self.date_ms // 1000, usegmt=True)

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_DELETE(self):
        self._answer("DELETE")

    def _answer(self, method):
        exchange = self.server.exchange
        self.date_ms = exchange.now_ms  # before the response is built, so that fast market time does not falsify it
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        if len(body) < length:  # the client was killed; the signature of a partial body would be wrong
            return self._hang_up()
        if url.path == "/control":
            return self._send(200, exchange.control(json.loads(body or "{}")))
        query = dict(parse_qsl(url.query) + parse_qsl(body))
        exchange.requests.append([method, url.path, query])
        fault = exchange.take_fault(method, url.path)
        kind = fault["kind"]
        if kind == "timeout":
            time.sleep(fault["seconds"])
        if kind in ("timeout", "drop"):
            return self._hang_up()
        if kind == "late":
            time.sleep(fault["seconds"])
        if isinstance(kind, int):
            usual = {"code": -1003, "msg": "Way too many requests."} if kind < 500 else "<html>oops</html>"
            return self._send(kind, usual if fault["body"] is None else fault["body"], fault["seconds"])
        if kind in ("empty", "html"):
            return self._send(200, "" if kind == "empty" else "<html>maintenance</html>")
        try:
            answer = self._route(method, url.path, query, kind)
            status = 200
        except Refused as error:
            status, code, message = error.args
            answer = {"code": code, "msg": message}
        if kind in ("lost", "late"):
            return self._hang_up()
        if kind == "slow":
            time.sleep(fault["seconds"])
            self.date_ms = exchange.now_ms
        return self._send(status, answer, half=kind == "reset")

    def _route(self, method, path, query, kind):
        exchange = self.server.exchange
        match method, path:
            case "GET", "/api/v3/time":
                return {"serverTime": exchange.time_ms()}
            case "GET", "/api/v3/exchangeInfo":
                return exchange.info()
            case "GET", "/api/v3/klines":
                return exchange.klines(query, kind)
        if not self.headers.get("X-MBX-APIKEY"):
            raise Refused(401, -2014, "API-key format invalid.")
        age = exchange.time_ms() - int(query["timestamp"])
        if not -1000 <= age <= int(query.get("recvWindow", 5000)):
            raise Refused(400, -1021, "Timestamp for this request is outside of the recvWindow.")
        match method, path:
            case "GET", "/api/v3/account":
                return exchange.account()
            case "GET", "/api/v3/myTrades":
                return exchange.trades(query)
            case "POST", "/api/v3/order":
                return exchange.place(query)
            case "GET", "/api/v3/order":
                return exchange.find(query)
            case "DELETE", "/api/v3/order":
                return exchange.cancel(query)
        raise Refused(404, -1100, f"{method} {path} is not here")

    def _send(self, status, answer, retry_after=1.0, half=False):
        text = answer if isinstance(answer, str) else json.dumps(answer)
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) and answer else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status in (418, 429) and retry_after is not None:
            self.send_header("Retry-After", retry_after if isinstance(retry_after, str) else f"{retry_after:g}")
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self._hang_up()

    def _hang_up(self):
        """Reset the connection, so that the client notices at once."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = open(os.devnull, "wb")  # noqa: SIM115 - the base class writes to it and closes it


class ExchangeServer(ThreadingHTTPServer):
    """Serves ``exchange`` over HTTP at ``url`` inside a ``with`` block."""

    daemon_threads = True

    def __init__(self, exchange, port=0):
        self.exchange = exchange
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Ignore a client that hangs up; any other error is one of the test."""
        import sys

        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)

    def __enter__(self):
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", help="file that keeps the orders over restarts")
    parser.add_argument("--symbol", action="append", help="BTCUSDT; may be repeated")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--minutes", type=int, default=10 * 1440)
    parser.add_argument("--start-ms", type=int, help="first candle; default: half of the minutes before now")
    parser.add_argument("--now-ms", type=int, help="market time at the start; default: the wall clock")
    parser.add_argument("--speed", type=float, default=1.0, help="market seconds in a second; 0: time is set through /control")
    parser.add_argument("--fill-after", type=int, default=0)
    options = parser.parse_args()
    now = options.now_ms or int(time.time() * 1000)
    start = options.start_ms or (now // MINUTE - options.minutes // 2) * MINUTE
    markets = {
        symbol: synthetic_market(options.seed + index, options.minutes, start) for index, symbol in enumerate(options.symbol or ["BTCUSDT"])
    }
    exchange = Exchange(markets, now, state=options.state, speed=options.speed, fill_after=options.fill_after)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExchangeServer(exchange, options.port) as server:
        print(server.server_address[1], flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
