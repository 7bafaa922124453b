"""Orders of a live run through ccxt, each of them once."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from ...candles import library
from ...errors import ConfigError, InvalidValueError
from ..engine.broker import Fill, Order, OrderRejected
from ..market.ccxt_exchange import CcxtConnection
from ..market.exchange import ExchangeUnavailableError

__all__ = ["CcxtBroker"]

_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
"""What every exchange takes; Binance takes 36 characters."""
_SIDES: Final = {("open", "long"): "buy", ("open", "short"): "sell", ("close", "long"): "sell", ("close", "short"): "buy"}
_OVER: Final = ("closed", "canceled", "expired", "rejected")
_POLL: Final = 0.2


class CcxtBroker:
    """Market orders on the spot market of an exchange of ccxt. Key and secret are those of CC_EXCHANGE_KEY and CC_EXCHANGE_SECRET.

    Each order carries a client id, and is looked for by it before it is sent. A request that was on its way when its answer was lost
    (or the process killed) arrives within ``recv_window`` seconds or is refused by the exchange as too late; for so long nothing is
    sent again, and nothing at all in the first ``recv_window`` seconds of this object. ``fill_timeout`` is how long (seconds) a fill is
    waited for. ``url`` and ``options`` are those of ``add_ccxt_exchange``.
    """

    def __init__(
        self,
        exchange_id: str = "binance",
        url: str | None = None,
        *,
        api_key: str | None = None,
        secret: str | None = None,
        options: Mapping[str, Any] | None = None,
        recv_window: float = 5.0,
        fill_timeout: float = 10.0,
    ) -> None:
        for name, value in (("recv_window", recv_window), ("fill_timeout", fill_timeout)):
            if not 0 < value <= 60:
                raise InvalidValueError(f"{name} is {value}; it must be a number of seconds above 0, up to 60")
        keys = api_key or os.environ.get("CC_EXCHANGE_KEY"), secret or os.environ.get("CC_EXCHANGE_SECRET")
        if not all(keys):
            raise ConfigError(
                f"orders on {exchange_id} need a key and a secret", hint="set CC_EXCHANGE_KEY and CC_EXCHANGE_SECRET in the environment"
            )
        given = dict(options or {})
        timing = {"adjustForTimeDifference": True, "recvWindow": int(recv_window * 800)}  # the rest is for clocks that differ
        given["options"] = {**timing, **given.get("options", {})}
        self._connection = CcxtConnection(exchange_id, url, {**given, "apiKey": keys[0], "secret": keys[1]})
        if not (self._connection.api.has["fetchOrder"] and self._connection.api.has["fetchOrderTrades"]):
            raise InvalidValueError(f"{exchange_id} cannot look up an order and its trades, so a lost answer could double it")
        self._recv_window, self._fill_timeout = recv_window, fill_timeout
        self._began = time.monotonic()
        self._sent: dict[str, float] = {}  # when an order without an answer was sent
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"CcxtBroker({self._connection.exchange_id!r})"

    def submit(self, order: Order) -> Fill:
        """Fill ``order``, once; see ``Broker``. Of a buy whose fee is taken in the base asset, ``quantity`` is what is left to sell.

        What an exchange leaves of a close is sent again, each time under a client id of its own that follows from the first.
        """
        market = self._connection.market(order.symbol)
        if not market["spot"]:
            raise OrderRejected(f"{order.symbol} is no spot market of {self._connection.exchange_id}")
        left = order.quantity * (order.percent / 100)  # in this order 100 percent of 0.39941 are not 0.3994099
        fills: list[Fill] = []
        for number in itertools.count():
            client_id = short_id(f"{order.client_id} {number}" if number else order.client_id)
            what = f"{self._connection.exchange_id}, {order.action} {order.position} {order.symbol}, order {client_id}"
            placed = self._look_until_settled(what, client_id, market)
            fresh = placed is None
            if fresh:
                placed = self._place(what, order, self._amount(what, order, market, left), client_id, market)
            placed = self._wait(what, placed, client_id, market)
            if placed["filled"]:
                fills.append(self._fill(what, placed, market))
                left -= placed["filled"]
            if order.action == "open" or (fills and not self._is_sellable(what, order, market, left)):
                break
            if fresh and not placed["filled"]:
                raise ExchangeUnavailableError(f"{what} is {placed['status']}, and nothing of it was filled; what is left is sent again")
        if not fills:
            raise OrderRejected(f"{what} is {placed['status']}, and nothing of it was filled")
        quantity = sum(fill.quantity for fill in fills)
        price = sum(fill.quantity * fill.price for fill in fills) / quantity
        return Fill(order_id=fills[-1].order_id, price=price, quantity=quantity, when_ms=max(fill.when_ms for fill in fills))

    # --- one order ---

    def _find(self, what: str, client_id: str, market: Any) -> Any:
        """The order of a client id, or None."""
        try:
            return self._connection.ask(what, "fetch_order", "", market["symbol"], {"clientOrderId": client_id})
        except library("ccxt", "exchange").OrderNotFound:
            return None

    def _look_until_settled(self, what: str, client_id: str, market: Any) -> Any:
        """The order of a client id; None once it is certain that there is none and that none is on its way."""
        while True:
            with self._lock:
                settled = max(self._began, self._sent.get(client_id, 0.0)) + self._recv_window
            certain = time.monotonic() >= settled
            found = self._find(what, client_id, market)
            if found is not None or certain:
                self._forget(client_id)
                return found
            time.sleep(min(_POLL, max(0.0, settled - time.monotonic())))

    def _place(self, what: str, order: Order, amount: float, client_id: str, market: Any) -> Any:
        """Send the order. Where the answer does not say what became of it, it is looked for."""
        ccxt = library("ccxt", "exchange")
        side = _SIDES[order.action, order.position]
        # Whatever the options say: a repetition by ccxt would be a second order.
        arguments = (market["symbol"], "market", side, amount, None, {"clientOrderId": client_id, "maxRetriesOnFailure": 0})
        with self._lock:
            self._sent[client_id] = time.monotonic()
        try:
            placed = self._connection.once("create_order", *arguments)
            if placed.get("id"):
                self._forget(client_id)
                return placed
            error: Exception = ccxt.BadResponse("the answer has no order id")
        except (ccxt.DDoSProtection, ccxt.RateLimitExceeded, ccxt.InvalidNonce, ccxt.AuthenticationError) as refused:
            self._forget(client_id)
            self._connection.renew_clock(refused)
            raise self._connection.failure(what, refused) from refused
        except (ccxt.InsufficientFunds, ccxt.InvalidOrder, ccxt.BadRequest, ccxt.OperationRejected) as refused:
            if "duplicate" not in f"{type(refused).__name__} {refused}".lower():
                self._forget(client_id)
                raise OrderRejected(f"{what} was refused: {refused}") from refused
            error = refused  # it is there already: an earlier request has arrived in the meantime
        except ccxt.BaseError as unknown:
            error = unknown
        found = self._look_until_settled(what, client_id, market)
        if found is None:
            raise self._connection.failure(f"{what}, did not arrive", error) from error
        return found

    def _forget(self, client_id: str) -> None:
        with self._lock:
            self._sent.pop(client_id, None)

    def _is_sellable(self, what: str, order: Order, market: Any, quantity: float) -> bool:
        """Whether the market takes so little."""
        try:
            self._amount(what, order, market, quantity)
        except OrderRejected:
            return False
        return True

    def _amount(self, what: str, order: Order, market: Any, quantity: float) -> float:
        """``quantity`` in steps of the market, rounded down; OrderRejected if the market does not take so little or so much."""
        ccxt = library("ccxt", "exchange")
        try:
            amount = float(self._connection.api.amount_to_precision(market["symbol"], quantity))
        except ccxt.InvalidOrder as error:
            raise OrderRejected(f"{what}: {error}") from error
        limits = market["limits"]
        for name, value, unit in (("amount", amount, market["base"]), ("cost", amount * order.price, market["quote"])):
            least, most = limits[name]["min"] or 0, limits[name]["max"] or float("inf")
            if not least <= value <= most:
                bound = f"at least {least:g}" if value < least else f"at most {most:g}"
                raise OrderRejected(f"{what}: {name} is {value:g} {unit}, but the market takes {bound}")
        return amount

    def _wait(self, what: str, placed: Any, client_id: str, market: Any) -> Any:
        """The order when nothing more will happen to it."""
        deadline = time.monotonic() + self._fill_timeout
        # Most exchanges answer with an id alone: without a status, what became of the order is still to be asked for.
        while placed["status"] not in _OVER or (placed["status"] == "closed" and placed["average"] is None):
            if time.monotonic() >= deadline:
                raise ExchangeUnavailableError(f"{what} is not filled yet: {placed['filled']} of {placed['amount']}")
            time.sleep(_POLL)
            placed = self._find(what, client_id, market) or placed
        return placed

    def _fill(self, what: str, placed: Any, market: Any) -> Fill:
        """What an order that is over has become, some of it at least."""
        quantity = placed["filled"]
        if placed["side"] == "buy":
            quantity -= self._fee(what, placed, market)
        when = placed["lastTradeTimestamp"] or placed["lastUpdateTimestamp"] or placed["timestamp"] or self._connection.api.milliseconds()
        return Fill(order_id=str(placed["id"]), price=float(placed["average"]), quantity=float(quantity), when_ms=int(when))

    def _fee(self, what: str, placed: Any, market: Any) -> float:
        """What the exchange has kept of the base asset."""
        trades = placed["trades"] or self._connection.ask(what, "fetch_order_trades", placed["id"], market["symbol"])
        if sum(trade["amount"] for trade in trades) < placed["filled"] * 0.999_999:
            raise ExchangeUnavailableError(f"{what} is filled, but the exchange does not show all of its trades yet")
        return float(sum(trade["fee"]["cost"] for trade in trades if trade["fee"] and trade["fee"]["currency"] == market["base"]))


def short_id(client_id: str) -> str:
    """A client id as exchanges take it: the same one for the same argument."""
    return client_id if _CLIENT_ID.fullmatch(client_id) else hashlib.sha256(client_id.encode()).hexdigest()[:32]
