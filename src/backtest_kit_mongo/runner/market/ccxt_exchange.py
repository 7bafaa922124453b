"""Exchanges through ccxt: candles, with the rate limits of the library, retries, and symbols as they are stored (BTCUSDT)."""

from __future__ import annotations

import difflib
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from ...candles import interval_ms, library
from ...errors import InvalidTypeError, InvalidValueError
from ..clock import MINUTE_MS
from ..registrations import calling_place
from .exchange import REQUEST_LIMIT, ExchangeError, ExchangeUnavailableError, register_exchange

__all__ = ["CcxtConnection", "add_ccxt_exchange"]

_TIMEOUT_MS: Final = 10_000
_ATTEMPTS: Final = 5
_FIRST_WAIT: Final = 0.5
"""Seconds before the second attempt, at most; then twice as long each time."""
_LONGEST_WAIT: Final = 60.0
"""Seconds. An exchange that wants to be left alone for longer is not waited for."""

_PATIENCE: Final = 3.0
"""Seconds that a candle which is about to close is waited for."""

# Spot only, and nothing that needs a key: what an exchange has else takes more requests, and is not needed for candles and spot orders.
_OPTIONS: Final = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}


def add_ccxt_exchange(
    name: str = "binance", *, exchange_id: str = "binance", url: str | None = None, options: Mapping[str, Any] | None = None
) -> None:
    """Register an exchange of ccxt (``exchange_id``, as ``ccxt.exchanges`` lists them) under ``name``; ccxt is loaded at its first use.

    ``url`` is another server that speaks the same protocol: it replaces scheme, host and port of every address. ``options`` are settings
    of the ccxt object, such as ``{"timeout": 30000}`` (ms). Only candles that have closed by the clock of the exchange are given.
    """
    connection = CcxtConnection(exchange_id, url, options)
    register_exchange(name, connection.get_candles, calling_place())


class CcxtConnection:
    """One exchange of ccxt, for threads to share; it asks for nothing before it is used."""

    def __init__(self, exchange_id: str, url: str | None, options: Mapping[str, Any] | None) -> None:
        if not isinstance(exchange_id, str):
            raise InvalidTypeError(f"exchange_id must be a str, got {type(exchange_id).__name__}")
        if options is not None and not isinstance(options, Mapping):
            raise InvalidTypeError(f"options must be a mapping, got {type(options).__name__}")
        self.exchange_id = exchange_id
        self._url = None if url is None else _checked_url(url)
        self._options = dict(options or {})
        self._api: Any = None
        self._names: dict[str, Any] = {}
        self._lock = threading.RLock()

    @property
    def api(self) -> Any:
        """The ccxt object; MissingDependencyError if ccxt is not installed, InvalidValueError if it has no such exchange."""
        with self._lock:
            if self._api is None:
                ccxt = library("ccxt", "exchange")
                if self.exchange_id not in ccxt.exchanges:
                    raise InvalidValueError(f"ccxt has no exchange {self.exchange_id!r}", hint=_near(self.exchange_id, ccxt.exchanges))
                settings = {"enableRateLimit": True, "timeout": _TIMEOUT_MS, **self._options}
                settings["options"] = {**_OPTIONS, **self._options.get("options", {})}
                api = getattr(ccxt, self.exchange_id)(settings)
                if self._url is not None:
                    api.urls = {**api.urls, "api": _moved(api.urls["api"], self._url)}
                self._api = api
            return self._api

    # --- requests ---

    def ask(self, what: str, method: str, *arguments: Any) -> Any:
        """The answer to a question, which may be asked more than once. ExchangeUnavailableError if none came, ExchangeError for a no."""
        ccxt, tenacity = library("ccxt", "exchange"), library("tenacity", "exchange")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ccxt.OperationFailed),
            stop=lambda state: (
                state.attempt_number >= _ATTEMPTS
                or state.seconds_since_start >= _LONGEST_WAIT
                or self._wanted_wait(state.outcome.exception()) > _LONGEST_WAIT
            ),
            wait=self._wait(tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=10.0)),
            before_sleep=lambda state: self.renew_clock(state.outcome.exception()),
            reraise=True,
        )
        try:
            return retrying(self.once, method, *arguments)
        except ccxt.OrderNotFound:
            raise
        except ccxt.BaseError as error:
            raise self.failure(what, error) from error

    def once(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ccxt object, once; an exception of ccxt if it fails."""
        ccxt = library("ccxt", "exchange")
        with self._lock:
            api = self.api
            try:
                answer = getattr(api, method)(*arguments)
            except ccxt.BaseError:
                raise
            except Exception as error:  # ccxt stumbles over answers of a form that it does not expect
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: {type(error).__name__}: {error}") from error
            text = api.last_http_response
            if isinstance(text, str) and not api.is_json_encoded_object(text):  # of which ccxt makes an empty answer
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: the answer is no JSON but {text[:60]!r}")
            return answer

    def failure(self, what: str, error: Exception) -> ExchangeError:
        """An exception of ccxt as one of ours."""
        kind = ExchangeUnavailableError if isinstance(error, library("ccxt", "exchange").OperationFailed) else ExchangeError
        text = re.sub(r"\?\S+", "", str(error))  # what follows an address is long, and of orders it is signed
        return kind(f"{what}: {type(error).__name__}: {text}")

    def _wanted_wait(self, error: BaseException) -> float:
        """How many seconds the exchange wants to be left alone after ``error``; 0 if it did not say."""
        if not isinstance(error, (library("ccxt", "exchange").DDoSProtection, library("ccxt", "exchange").RateLimitExceeded)):
            return 0.0
        try:
            return float((self.api.last_response_headers or {}).get("Retry-After", 0))
        except ValueError:  # a date, which no exchange that is known sends
            return 0.0

    def _wait(self, usual: Callable[[Any], float]) -> Callable[[Any], float]:
        return lambda state: max(usual(state), self._wanted_wait(state.outcome.exception()))

    def renew_clock(self, error: BaseException) -> None:
        """Look at the clock of the exchange again where it has refused a request for its time."""
        ccxt = library("ccxt", "exchange")
        if isinstance(error, ccxt.InvalidNonce) and self.api.has["fetchTime"]:
            try:
                self.once("load_time_difference")
            except ccxt.BaseError:  # the next attempt will say it
                return

    # --- symbols and candles ---

    def market(self, symbol: str) -> Any:
        """The ccxt market of a symbol, ``BTCUSDT`` or ``BTC/USDT``; InvalidValueError, with names like it, if there is none."""
        with self._lock:
            if not self._names:
                markets = self.ask(f"{self.exchange_id}, its markets", "load_markets")
                for market in sorted(markets.values(), key=lambda market: not market["spot"]):  # spot wins where names are shared
                    for name in (market["symbol"], f"{market['base']}{market['quote']}", market["id"]):
                        self._names.setdefault(name, market)
            if symbol not in self._names:
                plain = [name for name in self._names if "/" not in name]
                raise InvalidValueError(f"{self.exchange_id} has no symbol {symbol!r}", hint=_near(symbol, plain))
            return self._names[symbol]

    def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> list[list[Any]]:
        """The first ``limit`` candles from ``since`` (ms) on that have closed, as ccxt's rows.

        All but the last of an answer have closed, since the next has begun; of the last one the exchange's clock must say so. If it is
        about to close, it is waited for: the date of an answer is in whole seconds, and its prices may be as old as the question.
        """
        step = interval_ms(interval)
        market, frames = self.market(symbol), self.api.timeframes or {}
        if interval not in frames:
            raise InvalidValueError(f"{self.exchange_id} has no {interval} candles", hint=f"it has {', '.join(frames)}")
        what = f"{self.exchange_id}, {limit} candles of {symbol} {interval}"
        until, patience = since + limit * step, time.monotonic() + _PATIENCE
        while True:
            begin = time.monotonic()
            with self._lock:  # the time is that of this answer
                # One more than is asked for, to see the next one begin.
                rows = self.ask(what, "fetch_ohlcv", market["symbol"], interval, since, min(limit + 1, REQUEST_LIMIT))
                answered = self._time_of_answer()
            now = time.monotonic()
            missing = (rows[-1][0] + step - answered) / 1000 + now - begin if rows else 0.0  # seconds
            if missing <= 0:
                return rows[:limit]  # type: ignore[no-any-return]
            if rows[-1][0] > answered + MINUTE_MS:  # of the future: that proves nothing, and who stores candles refuses them all
                return rows  # type: ignore[no-any-return]
            if rows[-1][0] >= until or now + missing > patience:
                return rows[:-1]  # type: ignore[no-any-return]
            time.sleep(missing)

    def _time_of_answer(self) -> float:
        """The exchange's time (ms) of the last answer: its clock decides whether a candle has closed, ours may go ahead of it."""
        date = (self.api.last_response_headers or {}).get("Date")
        return time.time() * 1000 if date is None else parsedate_to_datetime(date).timestamp() * 1000


def _checked_url(url: str) -> str:
    if not isinstance(url, str):
        raise InvalidTypeError(f"url must be a str, got {type(url).__name__}")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidValueError(f"url is {url!r}; it must be like http://127.0.0.1:8080")
    return url.rstrip("/")


def _moved(urls: Any, url: str) -> Any:
    """Addresses, as ccxt holds them, on another server."""
    if isinstance(urls, Mapping):
        return {name: _moved(value, url) for name, value in urls.items()}
    return url + urlsplit(urls).path


def _near(name: str, names: Any) -> str:
    known = {one.casefold(): one for one in names}
    found = ", ".join(known[one] for one in difflib.get_close_matches(name.casefold(), known, n=5))
    return f"did you mean {found}?" if found else f"none of the {len(known):,} that there are is like it"
