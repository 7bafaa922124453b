"""Exchanges: named sources of candles. Candles that the Candle contract lacks are fetched from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, overload

import numpy as np

from ...candles import CANDLE_DTYPE, PRICES, CandleArray, CandleInterval, Grid, grid_of, impossible_candles, to_columns
from ...contracts.registry import Registry
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ...logs import log
from ..clock import MINUTE_MS, check_ms, iso_time
from ..error_text import USER_ERRORS
from ..registrations import CallSite, Registered, Registrations, call_site, check_function, check_name
from .stored_candles import Span, StoredCandles, joined, runs

__all__ = [
    "Exchange",
    "ExchangeError",
    "ExchangeRefusedError",
    "ExchangeUnavailableError",
    "Fetch",
    "GetCandles",
    "add_exchange",
    "check_window",
    "clear_exchanges",
    "default_exchange_name",
    "fetch_missing",
    "find_exchange",
    "list_exchanges",
    "restore_exchanges",
]

GetCandles = Callable[[str, CandleInterval, int, int], Any]
"""``get_candles(symbol, interval, since, limit)``: up to ``limit`` candles from ``since`` (ms) on, oldest first; see ``add_exchange``."""

AllCandles = Callable[[str, str], CandleArray | None]

F = TypeVar("F", bound=GetCandles)

REQUEST_LIMIT: Final = 1_000
"""Most candles per request."""

_LOOK: Final = 10_000
"""Candles looked up in the store at a time: a week of minutes."""

# As in the TypeScript package: a price this far below the others of its answer comes from an incomplete candle.
_LOWEST_SHARE: Final = 1 / 1000
_MEDIAN_FROM: Final = 5


class ExchangeError(BacktestKitError, RuntimeError):
    """An exchange failed or returned invalid candles; ``__cause__`` is what it raised. Nothing of a bad answer is stored."""


class ExchangeUnavailableError(ExchangeError, ConnectionError):
    """An exchange cannot be reached or does not answer properly. The same call may succeed later."""


class ExchangeRefusedError(ExchangeError, PermissionError):
    """An exchange does not serve the address of this machine (HTTP 451 or 403). The same call will fail again: use another exchange."""


class Exchange(Registered, frozen=True, kw_only=True):
    """A registered exchange; see ``add_exchange``."""

    get_candles: GetCandles
    """The function that returns candles."""
    all_candles: AllCandles | None = None
    """Returns a whole series for a symbol and an interval, or None if the exchange does not have it.

    Only a file exchange has this function: before a backtest, what is stored under the exchange's name is compared with it.
    """


_exchanges: Registrations[Exchange] = Registrations("exchange", "add_exchange")


@overload
def add_exchange(name: str) -> Callable[[F], F]: ...
@overload
def add_exchange(name: str, *, get_candles: F) -> F: ...
def add_exchange(name: str, *, get_candles: Any = None) -> Any:
    """Register an exchange: call ``add_exchange("x", get_candles=f)`` or decorate ``f`` with ``@add_exchange("x")``.

    ``f(symbol, interval, since, limit)`` returns at most ``limit`` candles (up to 1,000) that open at ``since`` (ms, on the grid of the
    interval) or later, oldest first. They are dicts of ``timestamp`` (open time, ms), ``open``, ``high``, ``low``, ``close`` and
    ``volume``, rows of these six values as in ccxt, or an array of CANDLE_DTYPE. ``f`` leaves out what the exchange does not have: the
    first candle it returns is taken as the first that exists. An empty answer means that there is none in the ``limit`` intervals
    from ``since`` on.

    Args:
        name: the name of the exchange
        get_candles: the function ``f``

    Returns:
        ``f``, or without ``get_candles`` a decorator that returns it

    Raises:
        InvalidTypeError: an argument has the wrong type, or ``f`` does not take these arguments
        InvalidValueError: the name is empty, or registered already

    Examples:
        >>> from backtest_kit_mongo.runner import add_exchange, synthetic_market
        >>> @add_exchange("made-up")
        ... def get_candles(symbol, interval, since, limit):
        ...     return synthetic_market(7, limit, since)
    """
    registered = call_site()

    def register(function: F) -> F:
        register_exchange(name, function, registered)
        return function

    return register if get_candles is None else register(get_candles)


def register_exchange(name: str, get_candles: GetCandles, registered: CallSite, all_candles: AllCandles | None = None) -> None:
    """Register an exchange as ``add_exchange`` does, on behalf of the code at ``registered``."""
    name = check_name("the name of an exchange", name)
    check_function(f"get_candles of exchange {name!r}", get_candles, ("symbol", "interval", "since", "limit"))
    _exchanges.add(Exchange(name=name, get_candles=get_candles, all_candles=all_candles, **registered._asdict()))


def list_exchanges() -> tuple[Exchange, ...]:
    """Return all registered exchanges, in order of registration.

    Examples:
        >>> from backtest_kit_mongo.runner import list_exchanges
        >>> list_exchanges()
        ()
    """
    return _exchanges.list()


def find_exchange(name: str | None = None) -> Exchange:
    """Return a registered exchange.

    Args:
        name: its name; None is the only one

    Raises:
        InvalidValueError: there is no such exchange, or not exactly one; the message lists the names

    Examples:
        >>> from backtest_kit_mongo.runner import add_exchange, find_exchange
        >>> f = add_exchange("made-up", get_candles=lambda symbol, interval, since, limit: [])
        >>> find_exchange().name
        'made-up'
    """
    return _exchanges.find(name)


def clear_exchanges() -> None:
    """Remove all registered exchanges.

    Examples:
        >>> from backtest_kit_mongo.runner import clear_exchanges
        >>> clear_exchanges()
    """
    _exchanges.restore(())


def restore_exchanges(exchanges: Iterable[Exchange]) -> None:
    """Replace the registered exchanges by ``exchanges``."""
    _exchanges.restore(exchanges)


def fetch_missing(
    symbol: str,
    interval: CandleInterval,
    exchange_name: str,
    since_ms: int,
    until_ms: int,
    *,
    registry: Registry | None = None,
    progress: Callable[[int, int], None] | None = None,
    now_ms: int | None = None,
) -> int:
    """Fetch the candles of a window that the Candle contract lacks, and return how many were stored.

    Only candles that have closed are requested and stored. An answer is checked before any of it is stored. Candles that the exchange
    does not have stay missing, which is not an error.

    Args:
        symbol: the traded pair
        interval: the length of the candles, such as "1m"
        exchange_name: a registered exchange
        since_ms: the start of the window in ms, on the grid of the interval
        until_ms: its end in ms, which is not part of it
        registry: the registry whose Candle contract to use; None is the default one
        progress: called with (candles of the window done, all candles of the window)
        now_ms: the time in ms; None is the wall clock

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or the exchange is not registered
        ExchangeError: the exchange failed or returned invalid candles; the message names exchange, symbol and interval

    Examples:
        >>> from backtest_kit_mongo.runner import add_exchange, fetch_missing, synthetic_market
        >>> f = add_exchange("made-up", get_candles=lambda symbol, interval, since, limit: synthetic_market(7, limit, since))
        >>> fetch_missing("BTCUSDT", "1m", "made-up", 1704067200000, 1704070800000)
        60
        >>> fetch_missing("BTCUSDT", "1m", "made-up", 1704067200000, 1704070800000)
        0
    """
    symbol = check_name("symbol", symbol)
    exchange = find_exchange(exchange_name)
    since_ms, until_ms, grid = check_window(interval, since_ms, until_ms)
    clock = time.time_ns() // 1_000_000
    now = clock if now_ms is None else min(check_ms("now_ms", now_ms, step_ms=1), clock)
    until = min(until_ms, grid.align(now))
    stored = StoredCandles(symbol, interval, exchange_name, registry)
    fetch = Fetch(exchange, symbol, interval, stored, now)
    spans: list[Span] = []

    def moved(reached: int) -> None:
        if progress is not None:
            progress(grid.count(since_ms, reached), grid.count(since_ms, until))

    for done in range(0, grid.count(since_ms, until), _LOOK):
        since = grid.after(since_ms, done)
        end = min(grid.after(since, _LOOK), until)
        spans += runs(since, end, grid, fetch.fill(since, end, moved))
        moved(end)
    stored.note(joined(spans))
    fetch.say_where_history_begins(since_ms)
    return fetch.new


def _edge(name: str, value: int, grid: Grid) -> int:
    """Return the start or end of a window (ms). Raises InvalidTypeError or InvalidValueError, naming it, unless it is on the grid."""
    stamp = check_ms(name, value, step_ms=1)
    if not grid.is_on(stamp):
        raise InvalidValueError(f"{name} is {stamp} ({iso_time(stamp)}), which is not {grid.rule}")
    return stamp


def check_window(interval: str, since_ms: int, until_ms: int) -> tuple[int, int, Grid]:
    """Return the bounds of a window (ms) and the grid of its candles. Raises InvalidValueError if it is empty or off the grid."""
    grid = grid_of(interval)
    since_ms, until_ms = _edge("since_ms", since_ms, grid), _edge("until_ms", until_ms, grid)
    if until_ms <= since_ms:
        raise InvalidValueError(f"the window is empty: it starts {iso_time(since_ms)} and ends {iso_time(until_ms)}")
    return since_ms, until_ms, grid


class Fetch:
    """The requests of one call of ``fetch_missing`` or ``refresh_candles``; ``new`` counts the candles stored."""

    def __init__(self, exchange: Exchange, symbol: str, interval: CandleInterval, stored: StoredCandles, now: int) -> None:
        self._exchange, self._symbol, self._interval, self._stored, self._now = exchange, symbol, interval, stored, now
        self._empty_until = 0  # the exchange has no candles between the last request and this time
        self._begins: int | None = None  # the first candle that the exchange has after the first time that it was asked for
        self._asked_from: int | None = None
        self.new: int = 0

    def fill(self, since: int, until: int, moved: Callable[[int], None]) -> Any:
        """Fetch what is missing of ``[since, until)``, and return the open times of the candles that are still missing."""
        grid = self._stored.grid
        missing = self._stored.missing(since, until)
        position = max(since, self._empty_until)
        while (rest := missing[missing >= position]).size:
            first = int(rest[0])
            moved(first)
            last = int(rest[rest < grid.after(first, REQUEST_LIMIT)][-1])
            count = grid.count(first, last) + 1
            candles, beyond = self._ask(first, count)
            if self._asked_from is None:
                self._asked_from = first
            if self._begins is None:
                self._begins = int(candles["timestamp"][0]) if len(candles) else beyond
            fresh = candles[np.isin(candles["timestamp"], rest)]
            if len(fresh):
                self._stored.write(fresh)
                self.new += len(fresh)
                missing = np.setdiff1d(missing, fresh["timestamp"], assume_unique=True)
            if beyond is not None:  # the exchange has nothing between the answer and this first later candle
                position = self._empty_until = beyond
            elif len(candles):
                position = grid.after(int(candles["timestamp"][-1]))
            else:
                position = grid.after(last)
        return missing

    def say_where_history_begins(self, since: int) -> None:
        """Warn if the exchange has no candles at the beginning of the window: some only have the newest ones, 720 for example.

        Where older candles are stored, it only has a hole there.
        """
        begins, asked = self._begins, self._asked_from
        if begins is None or asked is None or begins <= asked:
            return
        if any(len(batch) for batch in self._stored.batches(max(self._stored.grid.after(since, -_LOOK), 0), begins)):
            return
        log(
            "warning",
            f"exchange {self._exchange.name!r} has no {self._interval} candles of {self._symbol} before {iso_time(begins)} "
            f"(asked from {iso_time(asked)}): its history begins there",
        )

    def window(self, since: int, until: int, moved: Callable[[int], None]) -> CandleArray:
        """Return the candles that the exchange has of ``[since, until)``, whether they are stored or not. Nothing is stored."""
        grid = self._stored.grid
        parts: list[CandleArray] = []
        position = since
        while position < until:
            count = min(REQUEST_LIMIT, grid.count(position, until))
            candles, beyond = self._ask(position, count)
            parts.append(candles)
            position = beyond or grid.after(int(candles["timestamp"][-1]) if len(candles) else position, 1 if len(candles) else count)
            moved(position)
        return np.concatenate(parts)

    def _ask(self, since: int, count: int) -> tuple[CandleArray, int | None]:
        """Return the checked candles of ``count`` intervals from ``since`` on, and the open time of the first later one, if any."""
        until = self._stored.grid.after(since, count)
        try:
            answer = self._exchange.get_candles(self._symbol, self._interval, since, count)
        except BacktestKitError:
            raise
        except USER_ERRORS as error:
            raise ExchangeError(f"{self._what(since, count)}: {type(error).__name__}: {error}") from error
        try:
            columns = to_columns(_rows(answer), self._interval)
        except (InvalidTypeError, InvalidValueError) as error:
            raise ExchangeError(f"{self._what(since, count)}: {error}") from error
        problem = _problem(columns, since, self._now)
        if problem is not None:
            raise ExchangeError(f"{self._what(since, count)}: {problem}", hint="nothing of this answer was stored")
        stamps = columns["timestamp"]
        after = stamps[stamps >= until]
        inside = columns[stamps < until]
        return inside, int(after[0]) if len(after) else None

    def _what(self, since: int, count: int) -> str:
        return (
            f"exchange {self._exchange.name!r}, {self._symbol} {self._interval}, "
            f"{count} candles from {iso_time(since)} to {iso_time(self._stored.grid.after(since, count))}"
        )


def _rows(answer: Any) -> Any:
    """Return an answer in the form that ``to_columns`` takes: rows of six values, as in ccxt, become dicts."""
    if isinstance(answer, (np.ndarray, str, bytes)) or not isinstance(answer, Iterable):
        return answer
    names = CANDLE_DTYPE.names or ()
    rows = []
    for index, row in enumerate(answer):
        if isinstance(row, (list, tuple)):
            if len(row) != len(names):
                raise InvalidValueError(f"candle {index} has {len(row)} columns", hint=f"expected {', '.join(names)}")
            row = dict(zip(names, row, strict=True))
        rows.append(row)
    return rows


def _problem(columns: CandleArray, since: int, now: int) -> str | None:
    """Return what is wrong with the candles of an answer, beyond the checks of ``to_columns``; None if nothing is."""
    stamps = columns["timestamp"]
    unordered = np.flatnonzero(np.diff(stamps) <= 0)
    if unordered.size:
        row = int(unordered[0]) + 1
        mistake = "appears twice" if stamps[row] == stamps[row - 1] else f"comes after {iso_time(int(stamps[row - 1]))}"
        return f"the candle of {iso_time(int(stamps[row]))} {mistake}; candles must be in ascending order, without duplicates"
    if len(stamps) and stamps[0] < since:
        return f"the candle of {iso_time(int(stamps[0]))} is before the requested time"
    if len(stamps) and stamps[-1] > now + MINUTE_MS:  # clocks differ a little
        return f"the candle of {iso_time(int(stamps[-1]))} is in the future: the time is {iso_time(now)}"
    bad = impossible_candles(columns)
    if bad.size:
        row = int(bad[0])
        values = ", ".join(f"{name} {columns[name][row]:g}" for name in PRICES)
        return f"the candle of {iso_time(int(stamps[row]))} has impossible values: {values}"
    return None


def default_exchange_name(name: str | None) -> str:
    """Return ``name``, or the name of the only registered exchange, or "binance" if none is registered."""
    if name is not None:
        return name
    return find_exchange(None).name if list_exchanges() else "binance"
