"""Orders of a live run through ccxt, each placed once."""

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
"""What every exchange accepts; Binance accepts 36 characters."""
_SIDES: Final = {("open", "long"): "buy", ("open", "short"): "sell", ("close", "long"): "sell", ("close", "short"): "buy"}
_OVER: Final = ("closed", "canceled", "expired", "rejected")
_POLL: Final = 0.2


class CcxtBroker:
    """Market orders on the spot market of a ccxt exchange.

    Each order carries a client id, and is looked up by it before it is sent. If the answer to a request was lost (or the process
    killed), the request arrives within ``recv_window`` seconds, or the exchange rejects it as too old. For that long the order is not
    sent again, and in the first ``recv_window`` seconds of this object no order is sent at all.

    Args:
        exchange_id: a name from ``ccxt.exchanges``
        url: another server that speaks the same protocol, as in ``add_ccxt_exchange``
        api_key: the key of the exchange; None is CC_EXCHANGE_KEY of the environment
        secret: its secret; None is CC_EXCHANGE_SECRET of the environment
        options: settings of the ccxt object, such as ``{"timeout": 30000}`` (ms)
        max_wait: how long to wait in all if the exchange says when to ask again, in seconds; None as in ``add_ccxt_exchange``
        recv_window: how long a request is valid, in seconds, up to 60
        fill_timeout: how long to wait for a fill, in seconds, up to 60

    Raises:
        ConfigError: there is no key or no secret
        InvalidValueError: an argument is not valid, or the exchange cannot look up orders
        MissingDependencyError: ccxt is not installed

    Examples:
        >>> from backtest_kit_mongo.runner import CcxtBroker, add_broker
        >>> add_broker("binance", CcxtBroker("binance", api_key="...", secret="..."))
        CcxtBroker('binance')
    """

    def __init__(
        self,
        exchange_id: str = "binance",
        url: str | None = None,
        *,
        api_key: str | None = None,
        secret: str | None = None,
        options: Mapping[str, Any] | None = None,
        max_wait: float | None = None,
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
        settings = dict(options or {})
        timing = {"adjustForTimeDifference": True, "recvWindow": int(recv_window * 800)}  # the rest allows for clocks that differ
        settings["options"] = {**timing, **settings.get("options", {})}
        self._connection = CcxtConnection(exchange_id, url, {**settings, "apiKey": keys[0], "secret": keys[1]}, max_wait=max_wait)
        if not (self._connection.api.has["fetchOrder"] and self._connection.api.has["fetchOrderTrades"]):
            raise InvalidValueError(f"{exchange_id} cannot look up an order and its trades, so a lost answer could place it twice")
        self._recv_window, self._fill_timeout = recv_window, fill_timeout
        self._began = time.monotonic()
        self._sent: dict[str, float] = {}  # client id -> when an order without an answer was sent (monotonic seconds)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"CcxtBroker({self._connection.exchange_id!r})"

    def submit(self, order: Order) -> Fill:
        """Fill ``order`` once; see ``Broker``. If a buy pays its fee in the base asset, ``quantity`` is what is left to sell.

        What an exchange leaves unfilled of a close is sent again, each time under its own client id, derived from the first one.

        Raises:
            OrderRejected: the exchange refused the order; nothing was filled
            ExchangeUnavailableError: there is no clear answer; submit the same order again
            ExchangeError: the exchange failed
        """
        market = self._connection.market(order.symbol)
        if not market["spot"]:
            raise OrderRejected(f"{order.symbol} is not a spot market of {self._connection.exchange_id}")
        left = order.quantity * (order.percent / 100)  # computed in this order, 100 percent of 0.39941 is not 0.3994099
        fills: list[Fill] = []
        for number in itertools.count():
            client_id = short_id(f"{order.client_id} {number}" if number else order.client_id)
            label = f"{self._connection.exchange_id}, {order.action} {order.position} {order.symbol}, order {client_id}"
            placed = self._look_until_settled(label, client_id, market)
            fresh = placed is None
            if fresh:
                placed = self._place(label, order, self._amount(label, order, market, left), client_id, market)
            placed = self._wait(label, placed, client_id, market)
            if placed["filled"]:
                fills.append(self._fill(label, placed, market))
                left -= placed["filled"]
            if order.action == "open" or (fills and not self._is_sellable(label, order, market, left)):
                break
            if fresh and not placed["filled"]:
                raise ExchangeUnavailableError(f"{label} is {placed['status']}, and nothing was filled; the rest will be sent again")
        if not fills:
            raise OrderRejected(f"{label} is {placed['status']}, and nothing was filled")
        quantity = sum(fill.quantity for fill in fills)
        price = sum(fill.quantity * fill.price for fill in fills) / quantity
        cost = sum(fill.cost or 0.0 for fill in fills)
        return Fill(order_id=fills[-1].order_id, price=price, quantity=quantity, when_ms=max(fill.when_ms for fill in fills), cost=cost)

    # --- one order ---

    def _find(self, what: str, client_id: str, market: Any) -> Any:
        """Return the order with a client id, or None."""
        try:
            return self._connection.ask(what, "fetch_order", "", market["symbol"], {"clientOrderId": client_id})
        except library("ccxt", "exchange").OrderNotFound:
            return None

    def _look_until_settled(self, what: str, client_id: str, market: Any) -> Any:
        """Return the order with a client id; None once it is certain that it neither exists nor is on its way."""
        while True:
            with self._lock:
                certain_from = max(self._began, self._sent.get(client_id, 0.0)) + self._recv_window
            certain = time.monotonic() >= certain_from
            placed = self._find(what, client_id, market)
            if placed is not None or certain:
                self._forget(client_id)
                return placed
            time.sleep(min(_POLL, max(0.0, certain_from - time.monotonic())))

    def _place(self, what: str, order: Order, amount: float, client_id: str, market: Any) -> Any:
        """Send the order. If the answer does not say what became of it, look it up."""
        ccxt = library("ccxt", "exchange")
        side = _SIDES[order.action, order.position]
        # Overrides the options: a retry by ccxt would be a second order.
        arguments = (market["symbol"], "market", side, amount, None, {"clientOrderId": client_id, "maxRetriesOnFailure": 0})
        with self._lock:
            self._sent[client_id] = time.monotonic()
        try:
            placed = self._connection.once("create_order", *arguments)
            if placed.get("id"):
                self._forget(client_id)
                return placed
            error: Exception = ccxt.BadResponse("the answer has no order id")
        except (ccxt.DDoSProtection, ccxt.RateLimitExceeded, ccxt.InvalidNonce, ccxt.AuthenticationError) as rejection:
            self._forget(client_id)
            self._connection.renew_clock(rejection)
            raise self._connection.failure(what, rejection) from rejection
        except (ccxt.InsufficientFunds, ccxt.InvalidOrder, ccxt.BadRequest, ccxt.OperationRejected) as rejection:
            if "duplicate" not in f"{type(rejection).__name__} {rejection}".lower():
                self._forget(client_id)
                raise OrderRejected(f"{what} was rejected: {rejection}") from rejection
            error = rejection  # the order exists already: an earlier request has arrived in the meantime
        except ccxt.BaseError as unclear:
            error = unclear
        existing = self._look_until_settled(what, client_id, market)
        if existing is None:
            raise self._connection.failure(f"{what} did not arrive", error) from error
        return existing

    def _forget(self, client_id: str) -> None:
        with self._lock:
            self._sent.pop(client_id, None)

    def _is_sellable(self, what: str, order: Order, market: Any, quantity: float) -> bool:
        """Return whether the market accepts an order this small."""
        try:
            self._amount(what, order, market, quantity)
        except OrderRejected:
            return False
        return True

    def _amount(self, what: str, order: Order, market: Any, quantity: float) -> float:
        """Return ``quantity`` rounded down to the steps of the market. Raises OrderRejected if it is too small or too large for it."""
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
                raise OrderRejected(f"{what}: {name} is {value:g} {unit}, but the market accepts {bound}")
        return amount

    def _wait(self, what: str, placed: Any, client_id: str, market: Any) -> Any:
        """Wait until nothing more will happen to the order, and return it."""
        deadline = time.monotonic() + self._fill_timeout
        # Most exchanges answer with only an id: without a status, ask what became of the order.
        while placed["status"] not in _OVER or (placed["status"] == "closed" and placed["average"] is None):
            if time.monotonic() >= deadline:
                raise ExchangeUnavailableError(f"{what} is not filled yet: {placed['filled']} of {placed['amount']}")
            time.sleep(_POLL)
            placed = self._find(what, client_id, market) or placed
        return placed

    def _fill(self, what: str, placed: Any, market: Any) -> Fill:
        """Return the fill of an order that is over and at least partly filled."""
        quantity, price = float(placed["filled"]), float(placed["average"])
        left = quantity - self._fee(what, placed, market) if placed["side"] == "buy" else quantity
        when = placed["lastTradeTimestamp"] or placed["lastUpdateTimestamp"] or placed["timestamp"] or self._connection.api.milliseconds()
        return Fill(order_id=str(placed["id"]), price=price, quantity=left, when_ms=int(when), cost=price * quantity)

    def _fee(self, what: str, placed: Any, market: Any) -> float:
        """Return how much of the base asset the exchange kept as a fee."""
        trades = placed["trades"] or self._connection.ask(what, "fetch_order_trades", placed["id"], market["symbol"])
        if sum(trade["amount"] for trade in trades) < placed["filled"] * 0.999_999:
            raise ExchangeUnavailableError(f"{what} is filled, but the exchange does not show all of its trades yet")
        return float(sum(trade["fee"]["cost"] for trade in trades if trade["fee"] and trade["fee"]["currency"] == market["base"]))


def short_id(client_id: str) -> str:
    """Return a client id that every exchange accepts, always the same for the same argument."""
    return client_id if _CLIENT_ID.fullmatch(client_id) else hashlib.sha256(client_id.encode()).hexdigest()[:32]
