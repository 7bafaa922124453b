"""Exchanges through ccxt: candles, with ccxt's rate limits, retries, and symbols in their stored form (BTCUSDT)."""

from __future__ import annotations

import difflib
import math
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from ...candles import grid_of, library
from ...errors import InvalidTypeError, InvalidValueError
from ...logs import log
from ..clock import MINUTE_MS, iso_time
from ..registrations import call_site
from .ccxt_refusals import MAX_WAIT, HttpAnswer, as_error, is_worth_a_retry, max_wait_of, pause_of
from .exchange import REQUEST_LIMIT, ExchangeError, ExchangeUnavailableError, register_exchange
from .pauses import LONG_PAUSE, pause

__all__ = ["CcxtConnection", "add_ccxt_exchange"]

T = TypeVar("T")

_TIMEOUT_MS: Final = 10_000
_ATTEMPTS: Final = 5
_FIRST_WAIT: Final = 0.5
"""At most this many seconds before the second attempt; the bound doubles with each further attempt."""
_LONGEST_RETRYING: Final = 60.0
"""Seconds after which a failed request is not repeated, apart from pauses that the exchange asked for."""

_PATIENCE: Final = 3.0
"""Seconds to wait for a candle that is about to close."""

# Spot only, and nothing that needs a key: everything else takes more requests, and neither candles nor spot orders need it.
_OPTIONS: Final = {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False, "fetchMargins": False}


def add_ccxt_exchange(
    name: str = "binance",
    *,
    exchange_id: str = "binance",
    url: str | None = None,
    options: Mapping[str, Any] | None = None,
    max_wait: float | None = None,
    missing_volume: Literal["error", "zero"] = "error",
) -> None:
    """Register a ccxt exchange. ccxt is imported on first use. Only candles that have closed by the clock of the exchange are returned.

    Failed requests are repeated. If the exchange says when to ask again (``Retry-After``, "banned until"), a request waits that long,
    in all at most ``max_wait`` seconds. Otherwise it raises ExchangeUnavailableError, and nothing more is sent before that time. An
    exchange that does not serve this address (HTTP 451 or 403) raises ExchangeRefusedError at once.

    Args:
        name: the name to register it under
        exchange_id: a name from ``ccxt.exchanges``
        url: another server that speaks the same protocol: it replaces scheme, host and port of every address
        options: settings of the ccxt object, such as ``{"timeout": 30000}`` (ms)
        max_wait: how long to wait in all if the exchange says when to ask again, in seconds; None is ``CC_EXCHANGE_MAX_WAIT_SECONDS`` of
            the environment, or 60
        missing_volume: "zero" to store a volume of 0 for candles without one, if the documentation of the exchange says that they had no
            trades. Such candles are an error by default; a candle without a price always is

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or the name is registered already
        ConfigError: ``CC_EXCHANGE_MAX_WAIT_SECONDS`` is not valid

    Examples:
        >>> from backtest_kit_mongo.runner import add_ccxt_exchange, list_exchanges
        >>> add_ccxt_exchange("kraken", exchange_id="kraken")
        >>> [exchange.name for exchange in list_exchanges()]
        ['kraken']
    """
    if missing_volume not in ("error", "zero"):
        raise InvalidValueError(f'missing_volume is {missing_volume!r}; it must be "error" or "zero"')
    connection = CcxtConnection(exchange_id, url, options, max_wait=max_wait, missing_volume=missing_volume)
    register_exchange(name, connection.get_candles, call_site())


class CcxtConnection:
    """A ccxt exchange that threads can share. It sends no request before it is first used."""

    def __init__(
        self,
        exchange_id: str,
        url: str | None,
        options: Mapping[str, Any] | None,
        *,
        max_wait: float | None = None,
        missing_volume: Literal["error", "zero"] = "error",
    ) -> None:
        if not isinstance(exchange_id, str):
            raise InvalidTypeError(f"exchange_id must be a str, got {type(exchange_id).__name__}")
        if options is not None and not isinstance(options, Mapping):
            raise InvalidTypeError(f"options must be a mapping, got {type(options).__name__}")
        self.exchange_id = exchange_id
        self._url = None if url is None else _checked_url(url)
        self._options = dict(options or {})
        self._max_wait = max_wait_of(max_wait)
        self._missing_volume = missing_volume
        self._api: Any = None
        self._answer: HttpAnswer | None = None
        self._closed_until = 0.0  # the exchange accepts no requests before this time (monotonic seconds)
        self._told_until = 0.0
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
                api.on_rest_response = self._note(api.on_rest_response)
                self._api = api
            return self._api

    # --- requests ---

    def ask(self, what: str, method: str, *arguments: Any) -> Any:
        """Call a method of the ccxt object that is safe to retry, and return its answer.

        Raises ExchangeUnavailableError if no answer came, ExchangeError if the exchange rejected the request.
        """
        return self._repeated(what, partial(self.once, method, *arguments))

    def _repeated(self, what: str, call: Callable[[], T]) -> T:
        ccxt, tenacity = library("ccxt", "exchange"), library("tenacity", "exchange")
        self._wait_until_open(what)
        asked = 0.0  # seconds that this request has waited because the exchange asked for it

        def is_over(state: Any) -> bool:
            requested = pause_of(state.outcome.exception())
            return bool(
                state.attempt_number >= _ATTEMPTS
                or state.seconds_since_start - asked >= _LONGEST_RETRYING
                or asked + requested > self._max_wait
            )

        def before_sleep(state: Any) -> None:
            nonlocal asked
            asked += pause_of(state.outcome.exception())
            self._tell(pause_of(state.outcome.exception()))
            self.renew_clock(state.outcome.exception())

        usual = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT, max=10.0)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_worth_a_retry),
            stop=is_over,
            wait=lambda state: max(usual(state), pause_of(state.outcome.exception())),
            before_sleep=before_sleep,
            sleep=pause,
            reraise=True,
        )
        try:
            return retrying(call)  # type: ignore[no-any-return]
        except ccxt.OrderNotFound:
            raise
        except ccxt.BaseError as error:
            raise self.failure(what, error) from error

    def once(self, method: str, *arguments: Any) -> Any:
        """Call a method of the ccxt object once. Raises an exception of ccxt if it fails."""
        ccxt = library("ccxt", "exchange")
        with self._lock:
            api = self.api
            self._answer = None
            try:
                answer = getattr(api, method)(*arguments)
            except ccxt.BaseError as error:
                error.answer = self._answer
                self._closed_until = max(self._closed_until, time.monotonic() + pause_of(error))
                raise
            except Exception as error:  # ccxt fails in arbitrary ways on answers of an unexpected form
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: {type(error).__name__}: {error}") from error
            text = api.last_http_response
            if isinstance(text, str) and not api.is_json_encoded_object(text):  # ccxt turns it into an empty answer
                raise ccxt.BadResponse(f"{self.exchange_id} {method}: expected JSON, got {text[:60]!r}")
            return answer

    def _note(self, on_rest_response: Callable[..., Any]) -> Callable[..., Any]:
        """Return ccxt's hook for HTTP answers, which notes the answer first: exceptions of ccxt do not contain status and headers."""

        def noted(status: int, reason: str, url: str, method: str, headers: Any, body: str, *request: Any) -> Any:
            self._answer = HttpAnswer(status, headers, body)
            return on_rest_response(status, reason, url, method, headers, body, *request)

        return noted

    def failure(self, what: str, error: Exception) -> ExchangeError:
        """Return an exception of ccxt as an exception of this library."""
        requested = pause_of(error)
        return as_error(what, self.exchange_id, error) if requested == 0 else self._closed(what, requested, error)

    # --- an exchange that accepts no requests for a while ---

    def _wait_until_open(self, what: str) -> None:
        """Wait until the exchange accepts requests. A request in a ban only prolongs it."""
        left = self._closed_until - time.monotonic()
        if left > self._max_wait:
            raise self._closed(what, left)
        if left > 0:
            self._tell(left)
            pause(left)

    def _closed(self, what: str, seconds: float, error: Exception | None = None) -> ExchangeUnavailableError:
        text = "no request was sent" if error is None else as_error("it answered", self.exchange_id, error)
        return ExchangeUnavailableError(
            f"{what}: {self.exchange_id} accepts no requests before {_wall_time(seconds)}, in {math.ceil(seconds)} s; {text}",
            hint=f"a request waits at most {self._max_wait:g} s in all; {MAX_WAIT} or max_wait= sets another limit",
        )

    def _tell(self, seconds: float) -> None:
        """Log a long pause, once for all requests that wait for the same time."""
        until = time.monotonic() + seconds
        if seconds >= LONG_PAUSE and until > self._told_until + 1.0:
            self._told_until = until
            log("warning", f"{self.exchange_id} accepts no requests before {_wall_time(seconds)}; waiting {math.ceil(seconds)} s")

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
        if not self._names:  # no lock, since this may wait; ccxt loads the markets only once
            markets = self.ask(f"{self.exchange_id}, list of markets", "load_markets")
            names: dict[str, Any] = {}
            for market in sorted(markets.values(), key=lambda market: not market["spot"]):  # spot wins if markets share a name
                for name in (market["symbol"], f"{market['base']}{market['quote']}", market["id"]):
                    names.setdefault(name, market)
            self._names = names
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
        grid = grid_of(interval)
        market, frames = self.market(symbol), self.api.timeframes or {}
        if interval not in frames:
            raise InvalidValueError(f"{self.exchange_id} has no {interval} candles", hint=f"it has {', '.join(frames)}")
        request = f"{self.exchange_id}, {limit} candles of {symbol} {interval}"
        until, patience = grid.after(since, limit), time.monotonic() + _PATIENCE
        while True:
            # Request one more than needed, to see the next candle begin.
            fetch = partial(self._fetch, market["symbol"], interval, since, min(limit + 1, REQUEST_LIMIT))
            rows, answered, begin = self._repeated(request, fetch)
            now = time.monotonic()
            missing = (grid.closes(rows[-1][0]) - answered) / 1000 + now - begin if rows else 0.0  # seconds
            if missing <= 0:
                return self._with_volume(request, rows[:limit])
            if rows[-1][0] > answered + MINUTE_MS:  # in the future: it proves nothing, and the caller rejects the answer
                return self._with_volume(request, rows)
            if rows[-1][0] >= until or now + missing > patience:
                return self._with_volume(request, rows[:-1])
            time.sleep(missing)

    def _fetch(self, *arguments: Any) -> tuple[list[list[Any]], float, float]:
        """Return candles, the exchange's time (ms) of the answer, and when it was asked (monotonic seconds).

        The clock of the exchange decides whether a candle has closed; ours may be ahead of it.
        """
        with self._lock:  # the time must be that of this answer
            begin = time.monotonic()
            rows = self.once("fetch_ohlcv", *arguments)
            answered = time.time() * 1000 if self._answer is None else self._answer.time_ms
        return rows, answered, begin

    def _with_volume(self, request: str, rows: list[list[Any]]) -> list[list[Any]]:
        """Return candles in which a missing volume is 0, or raise ExchangeError if it must not be missing."""
        for row in rows:
            if row[5] is None:
                if self._missing_volume == "error":
                    raise ExchangeError(
                        f"{request}: the candle of {iso_time(row[0])} has no volume",
                        hint=f'if the documentation of {self.exchange_id} says that such candles had no trades, missing_volume="zero" '
                        "of add_ccxt_exchange stores them with a volume of 0",
                    )
                row[5] = 0.0
        return rows


def _wall_time(seconds: float) -> str:
    """Return the time in so many seconds, for messages."""
    return iso_time(math.ceil(time.time() + seconds) * 1000)


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
