"""Exchanges through ccxt: candles, with ccxt's rate limits, retries, and symbols in their stored form (BTCUSDT)."""

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
from ..registrations import call_site
from .exchange import REQUEST_LIMIT, ExchangeError, ExchangeUnavailableError, register_exchange

__all__ = ["CcxtConnection", "add_ccxt_exchange"]

_TIMEOUT_MS: Final = 10_000
_ATTEMPTS: Final = 5
_FIRST_WAIT: Final = 0.5
"""At most this many seconds before the second attempt; the bound doubles with each further attempt."""
_LONGEST_WAIT: Final = 60.0
"""Seconds. If an exchange asks for a longer pause, the call fails instead of waiting."""

_PATIENCE: Final = 3.0
"""Seconds to wait for a candle that is about to close."""

# Spot only, and nothing that needs a key: everything else takes more requests, and neither candles nor spot orders need it.
_OPTIONS: Final = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}


def add_ccxt_exchange(
    name: str = "binance", *, exchange_id: str = "binance", url: str | None = None, options: Mapping[str, Any] | None = None
) -> None:
    """Register a ccxt exchange (an ``exchange_id`` from ``ccxt.exchanges``) under ``name``. ccxt is imported on first use.

    ``url`` is another server that speaks the same protocol: it replaces scheme, host and port of every address. ``options`` are settings
    of the ccxt object, such as ``{"timeout": 30000}`` (ms). Only candles that have closed by the clock of the exchange are returned.
    """
    connection = CcxtConnection(exchange_id, url, options)
    register_exchange(name, connection.get_candles, call_site())


class CcxtConnection:
    """A ccxt exchange that threads can share. It sends no request before it is first used."""

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
        """The ccxt object. Raises MissingDependencyError if ccxt is not installed, InvalidValueError if it has no such exchange."""
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
        """Call a method of the ccxt object that is safe to retry, and return its answer.

        Raises ExchangeUnavailableError if no answer came, ExchangeError if the exchange rejected the request.
        """
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
        """Call a method of the ccxt object once. Raises an exception of ccxt if it fails."""
        ccxt = library("ccxt", "exchange")
        with self._lock:
            api = self.api
            try:
                answer = getattr(api, method)(*arguments)
            except ccxt.BaseError:
                raise
            except Exception as error:  # ccxt fails in arbitrary ways on answers of an unexpected form
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: {type(error).__name__}: {error}") from error
            text = api.last_http_response
            if isinstance(text, str) and not api.is_json_encoded_object(text):  # ccxt turns it into an empty answer
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: expected JSON, got {text[:60]!r}")
            return answer

    def failure(self, what: str, error: Exception) -> ExchangeError:
        """Return an exception of ccxt as an exception of this library."""
        kind = ExchangeUnavailableError if isinstance(error, library("ccxt", "exchange").OperationFailed) else ExchangeError
        text = re.sub(r"\?\S+", "", str(error))  # query strings are long, and those of orders are signed
        return kind(f"{what}: {type(error).__name__}: {text}")

    def _wanted_wait(self, error: BaseException) -> float:
        """Return how many seconds the exchange asks us to wait after ``error``; 0 if it did not say."""
        if not isinstance(error, (library("ccxt", "exchange").DDoSProtection, library("ccxt", "exchange").RateLimitExceeded)):
            return 0.0
        try:
            return float((self.api.last_response_headers or {}).get("Retry-After", 0))
        except ValueError:  # a date; no known exchange sends one
            return 0.0

    def _wait(self, usual: Callable[[Any], float]) -> Callable[[Any], float]:
        return lambda state: max(usual(state), self._wanted_wait(state.outcome.exception()))

    def renew_clock(self, error: BaseException) -> None:
        """Read the clock of the exchange again if it rejected a request because of its timestamp."""
        ccxt = library("ccxt", "exchange")
        if isinstance(error, ccxt.InvalidNonce) and self.api.has["fetchTime"]:
            try:
                self.once("load_time_difference")
            except ccxt.BaseError:  # the next attempt reports it
                return

    # --- symbols and candles ---

    def market(self, symbol: str) -> Any:
        """Return the ccxt market of ``BTCUSDT`` or ``BTC/USDT``. Raises InvalidValueError, with similar names, if there is none."""
        with self._lock:
            if not self._names:
                markets = self.ask(f"{self.exchange_id}, list of markets", "load_markets")
                for market in sorted(markets.values(), key=lambda market: not market["spot"]):  # spot wins if markets share a name
                    for name in (market["symbol"], f"{market['base']}{market['quote']}", market["id"]):
                        self._names.setdefault(name, market)
            if symbol not in self._names:
                plain = [name for name in self._names if "/" not in name]
                raise InvalidValueError(f"{self.exchange_id} has no symbol {symbol!r}", hint=_near(symbol, plain))
            return self._names[symbol]

    def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> list[list[Any]]:
        """Return the first ``limit`` closed candles from ``since`` (ms) on, as rows of ccxt.

        All candles of an answer but the last have closed, because the next one has begun. Whether the last one has closed is up to the
        exchange's clock. If it is about to close, wait for it: the date of an answer is in whole seconds, and its prices may be as
        old as the request.
        """
        step = interval_ms(interval)
        market, frames = self.market(symbol), self.api.timeframes or {}
        if interval not in frames:
            raise InvalidValueError(f"{self.exchange_id} has no {interval} candles", hint=f"it has {', '.join(frames)}")
        request = f"{self.exchange_id}, {limit} candles of {symbol} {interval}"
        until, patience = since + limit * step, time.monotonic() + _PATIENCE
        while True:
            begin = time.monotonic()
            with self._lock:  # the time must be that of this answer
                # Request one more than needed, to see the next candle begin.
                rows = self.ask(request, "fetch_ohlcv", market["symbol"], interval, since, min(limit + 1, REQUEST_LIMIT))
                answered = self._time_of_answer()
            now = time.monotonic()
            missing = (rows[-1][0] + step - answered) / 1000 + now - begin if rows else 0.0  # seconds
            if missing <= 0:
                return rows[:limit]  # type: ignore[no-any-return]
            if rows[-1][0] > answered + MINUTE_MS:  # in the future: it proves nothing, and the caller rejects the answer
                return rows  # type: ignore[no-any-return]
            if rows[-1][0] >= until or now + missing > patience:
                return rows[:-1]  # type: ignore[no-any-return]
            time.sleep(missing)

    def _time_of_answer(self) -> float:
        """Return the exchange's time (ms) of the last answer. Its clock decides whether a candle has closed; ours may be ahead of it."""
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
    """Return addresses, in the nested form that ccxt uses, moved to another server."""
    if isinstance(urls, Mapping):
        return {name: _moved(value, url) for name, value in urls.items()}
    return url + urlsplit(urls).path


def _near(name: str, names: Any) -> str:
    by_folded = {spelling.casefold(): spelling for spelling in names}
    similar = ", ".join(by_folded[folded] for folded in difflib.get_close_matches(name.casefold(), by_folded, n=5))
    return f"did you mean {similar}?" if similar else f"none of the {len(by_folded):,} names is similar"
