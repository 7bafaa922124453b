"""Risk limits, and the record of open positions that strategies of one risk name share on an exchange."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from ..adapters import Registry
from ..errors import InvalidTypeError, InvalidValueError
from ..simulation import LATEST
from . import rows
from .clock import MINUTE_MS
from .deferred import has_order
from .failure import USER_ERRORS, describe
from .named import Named, calling_place, check_function
from .position import Position
from .rows import Row, RunContext
from .strategy import check_name
from .write_behind import as_it_is, late_failure

__all__ = ["Books", "Risk", "RiskBook", "RiskRequest", "add_risk", "clear_risks", "list_risks", "restore_risks"]


class RiskRequest(msgspec.Struct, frozen=True):
    """What a ``validate`` function is asked about: a position as the Risk record has it, and those that are open (``active``)."""

    position: Row
    active: tuple[Row, ...]
    price: float
    when_ms: int


Validate = Callable[[RiskRequest], object]
F = TypeVar("F", bound=Callable[..., Any])


class Risk(msgspec.Struct):
    """A registered limit; ``place`` is ``file:line`` of its registration."""

    name: str
    max_positions: int | None
    validate: Validate | None
    file: str
    place: str


_risks: Named[Risk] = Named("risk", "add_risk")


def add_risk(name: str, *, max_positions: int | None = None, validate: Validate | None = None) -> Callable[[F], F]:
    """Limit the positions of all strategies with ``risk_name=name``, on each exchange for itself.

    At most ``max_positions`` are open at a time. ``validate(request)`` is asked with a RiskRequest before a position is opened; it
    refuses by returning a text (the reason) or False, or by raising. It can also be given by a decorator: ``@add_risk("x")``.
    """
    check_name("the name of a risk", name)
    if max_positions is not None:
        if isinstance(max_positions, bool) or not isinstance(max_positions, int):
            raise InvalidTypeError(f"max_positions must be an int, got {type(max_positions).__name__}")
        if max_positions < 1:
            raise InvalidValueError(f"max_positions is {max_positions}; it must be at least 1")
    file, place = calling_place()
    risk = Risk(name=name, max_positions=max_positions, validate=None, file=file, place=place)

    def check(function: F) -> F:
        check_function(f"validate of risk {name!r}", function, ("request",))
        risk.validate = function
        return function

    if validate is not None:
        check(validate)
    _risks.add(risk)
    return check


def list_risks() -> tuple[Risk, ...]:
    """All registered risks, in the order of their registration."""
    return _risks.list()


def clear_risks() -> None:
    """Forget all registered risks."""
    _risks.restore(())


def restore_risks(risks: Iterable[Risk]) -> None:
    """Make ``risks`` the registered ones."""
    _risks.restore(risks)


_lock = threading.RLock()
# A Risk record is one list for all symbols and strategies of its name: it is read, changed and written as a whole.
_record_lock = threading.Lock()
_Slots = dict[str, Row]
Books = dict[tuple[str, str, str], tuple[_Slots, _Slots]]
"""By risk name, exchange and frame: the slots that are reserved, and those that are held."""

_live: weakref.WeakKeyDictionary[Registry, Books] = weakref.WeakKeyDictionary()


class RiskBook:
    """The part that one run has in a Risk record. Between ``reserve`` and ``hold`` its slot is taken in this process only.

    A backtest counts the positions of those that share its ``books``, which are at the same minute: what another run left in the
    record is not part of its world. A live run counts what the record says.
    """

    def __init__(self, context: RunContext, registry: Registry, books: Books | None = None) -> None:
        self._context = context
        self._adapter: Any = registry.adapter("risk")
        self._registry = registry
        self._limit = next((risk for risk in list_risks() if risk.name == context.risk_name), None)
        place = context.risk_name, context.exchange_name, context.frame_name
        self._lock = threading.RLock() if context.backtest else _lock
        with _lock:
            if not context.backtest:
                books = _live.setdefault(registry, {})
            self._reserved, self._held = ({} if books is None else books).setdefault(place, ({}, {}))

    def reserve(self, position: Position, price: float, when_ms: int) -> tuple[str, int] | None:
        """Take a slot for ``position``, or say why not, and how many are open."""
        limit, key = self._limit, self._context.risk_key
        if limit is None:
            return None
        wanted = rows.risk_row(self._context, position)
        with self._lock:
            open_now = self._held if self._context.backtest else self._stored_live(when_ms)
            active = [row for other, row in (open_now | self._reserved).items() if other != key]
            note = _refusal(limit, RiskRequest(position=wanted, active=tuple(active), price=price, when_ms=when_ms))
            if note is not None:
                return note, len(active)
            self._reserved[key] = wanted
        return None

    def cancel(self) -> None:
        """Give a reserved slot back."""
        with self._lock:
            self._reserved.pop(self._context.risk_key, None)

    def hold(self, position: Position | None) -> None:
        """Be counted with ``position``, or without any; the record says so after ``store``."""
        with self._lock:
            self.cancel()
            if position is None:
                self._held.pop(self._context.risk_key, None)
            else:
                self._held[self._context.risk_key] = rows.risk_row(self._context, position)

    def store(self, position: Position | None, when_ms: int) -> None:
        """Write the slot of ``position``, or that this run has none."""
        key = self._context.risk_key
        with as_it_is(), _record_lock:
            stored = self._read(when_ms)
            others = [pair for pair in stored if pair[0] != key]
            if position is None and len(others) == len(stored):
                return
            self._guard(stored)
            self._write(others if position is None else [*others, (key, rows.risk_row(self._context, position))], when_ms)

    def leave(self) -> None:
        """Be counted no longer by other runs of this process."""
        self.hold(None)

    def restore(self, mine: Position | None, when_ms: int) -> None:
        """After a restart: remove expired slots that no run needs, and have the one of the restored position, or none."""
        key = self._context.risk_key
        self.hold(mine)
        with as_it_is(), _record_lock:
            stored = self._read(when_ms)
            kept = [pair for pair in stored if pair[0] != key and (pair[1].get("frameName") or not self._abandoned(pair[1], when_ms))]
            if mine is not None:
                known = next((pair for pair in stored if pair[0] == key and not pair[1].get("frameName")), None)
                kept.append(known or (key, rows.risk_row(self._context, mine)))
            if sorted(pair[0] for pair in kept) != sorted(pair[0] for pair in stored):
                self._write(kept, when_ms)

    def _abandoned(self, held: Row, when_ms: int) -> bool:
        """Whether a slot has expired, and is not that of a position which its run, down or slow, is still to open or close."""
        if not _expired(held, when_ms):
            return False
        place = held.get("symbol"), held.get("strategyName"), held.get("exchangeName")
        if None in place:
            return True
        signal: Any = self._registry.adapter("signal")
        strategy: Any = self._registry.adapter("strategy")
        return signal.read_signal_data(*place) is None and not has_order(strategy.read_strategy_data(*place) or {})

    def _guard(self, stored: Sequence[tuple[str, Row]]) -> None:
        context = self._context
        if context.backtest and any(key == context.risk_key and not held.get("frameName") for key, held in stored):
            raise InvalidValueError(
                f"risk {context.risk_name!r} on {context.exchange_name} holds an open live position {context.risk_key!r} in this "
                "database; a backtest would overwrite it",
                hint="run the backtest on another database",
            )

    def _stored_live(self, when_ms: int) -> _Slots:
        return {key: held for key, held in self._read(when_ms) if not held.get("frameName")}

    def _read(self, when_ms: int) -> list[tuple[str, Row]]:
        # Of all times: a backtest that did not see what a live run wrote "later" would erase it.
        stored = self._adapter.read_position_data(self._context.risk_name, self._context.exchange_name, LATEST)
        return [(key, held) for key, held in stored]

    def _write(self, pairs: Sequence[tuple[str, Row]], when_ms: int) -> None:
        context = self._context
        self._adapter.write_position_data([list(pair) for pair in pairs], context.risk_name, context.exchange_name, when_ms)


def _refusal(limit: Risk, request: RiskRequest) -> str | None:
    if limit.max_positions is not None and len(request.active) >= limit.max_positions:
        return f"risk {limit.name!r} allows {limit.max_positions} open positions, and {len(request.active)} are open"
    if limit.validate is None:
        return None
    try:
        answer = limit.validate(request)
    except USER_ERRORS as error:  # a check that fails must not let a position through
        late = late_failure(error)
        if late is not None:
            raise late from None
        return f"risk {limit.name!r} raised {describe(error)}"
    if isinstance(answer, str):
        return answer
    return f"risk {limit.name!r} refused the position" if answer is False else None


def _expired(held: Row, when_ms: int) -> bool:
    minutes = held.get("minuteEstimatedTime")
    return minutes is not None and when_ms >= held.get("openTimestamp", when_ms) + minutes * MINUTE_MS
