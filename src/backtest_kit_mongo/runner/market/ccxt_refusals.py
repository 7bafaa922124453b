"""What the HTTP answer behind an exception of ccxt says: whether to ask again, and when."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from ...arguments import number
from ...candles import library
from ...errors import ConfigError, InvalidValueError
from .exchange import ExchangeError, ExchangeRefusedError, ExchangeUnavailableError

__all__ = ["MAX_WAIT", "HttpAnswer", "as_error", "is_worth_a_retry", "max_wait_of", "pause_of"]

MAX_WAIT: Final = "CC_EXCHANGE_MAX_WAIT_SECONDS"
_DEFAULT_MAX_WAIT: Final = 60.0
_DAY: Final = 86_400.0

# ccxt takes both for an exchange that is away, but the same request will be rejected again.
_FORBIDDEN, _UNAVAILABLE_FOR_LEGAL_REASONS = 403, 451
_BANNED, _TOO_MANY_REQUESTS = 418, 429
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})\b")  # Binance, in ms
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d+)?")


class HttpAnswer(NamedTuple):
    """The last HTTP answer that ccxt received."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def time_ms(self) -> float:
        """The exchange's time; ours if the answer has no date. A date is in whole seconds, so the time is up to a second later."""
        date = _moment_ms(self.headers.get("Date"))
        return time.time() * 1000 if date is None else date


def max_wait_of(given: float | None) -> float:
    """Return the seconds that one request may wait because an exchange asks for it: ``given``, else from the environment, else 60."""
    if given is not None:
        given = number("max_wait", given)
        if not 0 <= given <= _DAY:
            raise InvalidValueError(f"max_wait is {given}; it must be a number of seconds from 0 to {_DAY:.0f}")
        return given
    text = os.environ.get(MAX_WAIT)
    if not text:
        return _DEFAULT_MAX_WAIT
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _DAY:
        raise ConfigError(f"{MAX_WAIT} is {text!r}; it must be a number of seconds from 0 to {_DAY:.0f}")
    return seconds


def is_worth_a_retry(error: BaseException) -> bool:
    """Return whether the same request may succeed soon."""
    return isinstance(error, library("ccxt", "exchange").OperationFailed) and not _is_refusal(error)


def pause_of(error: BaseException) -> float:
    """Return how many seconds the exchange asks us to wait after ``error``; 0 if it did not say."""
    ccxt, answer = library("ccxt", "exchange"), _answer(error)
    limited = isinstance(error, (ccxt.DDoSProtection, ccxt.RateLimitExceeded))
    if answer is None or not (limited or answer.status in (_BANNED, _TOO_MANY_REQUESTS)):
        return 0.0
    pauses = [0.0]
    after = answer.headers.get("Retry-After")
    if after is not None and _SECONDS.fullmatch(after.strip()):
        pauses.append(float(after))
    elif (moment := _moment_ms(after)) is not None:
        pauses.append((moment - answer.time_ms) / 1000)
    if until := _BANNED_UNTIL.search(answer.body):
        pauses.append((int(until[1]) - answer.time_ms) / 1000)
    return max(pauses)


def as_error(what: str, exchange_id: str, error: BaseException) -> ExchangeError:
    """Return an exception of ccxt as an exception of this library."""
    text = re.sub(r"\?\S+", "", str(error))  # query strings are long, and those of orders are signed
    answer = _answer(error)
    if answer is not None and _is_refusal(error):
        reason = "does not serve the region of this address"
        if answer.status == _FORBIDDEN:
            reason = "rejects requests from this address, as a firewall does: for its region, its network, or after too many requests"
        example = ", such as binanceus instead of binance" if exchange_id == "binance" else ""
        return ExchangeRefusedError(
            f"{what}: {exchange_id} {reason} (HTTP {answer.status}): {text[:300]}",
            hint=f"asking again does not help; use an exchange that serves it{example} (exchange_id=, --exchange), or another address of "
            "its API (url=, --exchange-url); stored candles and files need no exchange",
        )
    kind = ExchangeUnavailableError if isinstance(error, library("ccxt", "exchange").OperationFailed) else ExchangeError
    return kind(f"{what}: {type(error).__name__}: {text}")


def _answer(error: BaseException) -> HttpAnswer | None:
    """Return the answer that ``CcxtConnection`` has noted with the exception."""
    return getattr(error, "answer", None)


def _is_refusal(error: BaseException) -> bool:
    """Return whether the exchange refuses this address. A 403 that ccxt can explain is about the request or its key."""
    answer = _answer(error)
    if answer is None:
        return False
    if answer.status == _FORBIDDEN:
        return isinstance(error, library("ccxt", "exchange").OperationFailed) and pause_of(error) == 0
    return answer.status == _UNAVAILABLE_FOR_LEGAL_REASONS


def _moment_ms(date: Any) -> float | None:
    """Return an HTTP date in ms; None if it is not one."""
    try:
        return None if date is None else parsedate_to_datetime(date).timestamp() * 1000
    except ValueError:
        return None
