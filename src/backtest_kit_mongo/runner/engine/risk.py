"""Risk limits, and the record of open positions that the strategies of one risk name share on an exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from ...arguments import whole_number
from ...contracts.registry import Registry
from ...errors import BacktestKitError, InvalidValueError
from ...simulation import without_flush
from ..clock import MINUTE_MS
from ..error_text import USER_ERRORS, describe
from ..registrations import Registered, Registrations, call_site, check_function, check_name
from . import rows
from .deferred import has_order
from .position import Position
from .rows import Row, RunContext
from .write_behind import pending_write_error

__all__ = ["Books", "Risk", "RiskBook", "RiskRequest", "add_risk", "clear_risks", "list_risks", "restore_risks"]


class RiskRequest(msgspec.Struct, frozen=True):
    """What a ``validate`` function receives."""

    position: Row
    """The position that is about to open, as in the Risk record (``payloads.RiskPosition`` as a dict)."""
    active: tuple[Row, ...]
    """The positions that are open, likewise."""
    price: float
    """The market price, in the quote currency."""
    when_ms: int
    """The simulation time, in ms."""


Validate = Callable[[RiskRequest], object]
F = TypeVar("F", bound=Callable[..., Any])


class Risk(Registered, frozen=True, kw_only=True):
    """A registered limit; see ``add_risk``."""

    max_positions: int | None
    """The most positions that are open at a time; None is no limit."""
    validate: Validate | None
    """The function that may refuse a position; None if there is none."""


_risks: Registrations[Risk] = Registrations("risk", "add_risk")


def add_risk(name: str, *, max_positions: int | None = None, validate: Validate | None = None) -> Callable[[F], F]:
    """Limit the positions of all strategies with a risk name, on each exchange separately.

    Args:
        name: the ``risk_name`` of the strategies
        max_positions: the most positions that are open at a time; None is no limit
        validate: called with a RiskRequest before a position is opened; it refuses the position by returning a text (the reason) or
            False, or by raising

    Returns:
        a decorator that sets ``validate``: ``@add_risk("x")``

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or the name is registered already

    Examples:
        >>> from backtest_kit_mongo.runner import add_risk
        >>> @add_risk("all", max_positions=2)
        ... def one_per_symbol(request):
        ...     if any(other["symbol"] == request.position["symbol"] for other in request.active):
        ...         return "the symbol has a position"
    """
    name = check_name("the name of a risk", name)
    if max_positions is not None:
        max_positions = whole_number("max_positions", max_positions, least=1)
    risk = Risk(name=name, max_positions=max_positions, validate=None, **call_site()._asdict())
    former = next((other for other in list_risks() if other.name == name), None)

    def check(function: F) -> F:
        try:
            check_function(f"validate of risk {name!r}", function, ("request",))
        except BacktestKitError:
            # A decorator runs after the registration, which may have replaced the limits of an earlier notebook cell.
            restored = [former if other is risk else other for other in list_risks()]
            restore_risks(other for other in restored if other is not None)
            raise
        msgspec.structs.force_setattr(risk, "validate", function)
        return function

    if validate is not None:
        check(validate)
    _risks.add(risk)
    return check


def list_risks() -> tuple[Risk, ...]:
    """Return all registered risks, in order of registration.

    Examples:
        >>> from backtest_kit_mongo.runner import add_risk, list_risks
        >>> decorate = add_risk("all", max_positions=2)
        >>> [(risk.name, risk.max_positions) for risk in list_risks()]
        [('all', 2)]
    """
    return _risks.list()


def clear_risks() -> None:
    """Remove all registered risks.

    Examples:
        >>> from backtest_kit_mongo.runner import clear_risks
        >>> clear_risks()
    """
    _risks.restore(())


def restore_risks(risks: Iterable[Risk]) -> None:
    """Replace the registered risks with ``risks``."""
    _risks.restore(risks)


Slots = dict[str, Row]
"""The open positions of one risk name on one exchange, by ``RunContext.risk_key``."""

Books = dict[tuple[str, str, str], Slots]
"""Slots by risk name, exchange and frame."""

_Pairs = list[list[Any]]
"""A Risk record: a list of [risk key, position] pairs, of all symbols, strategies and processes that use its name."""


class RiskBook:
    """The slot of one run in a Risk record. Changes use compare-and-set, because other processes change their slots too.

    A live run counts the positions in the record, and takes its slot there before it opens one. A backtest counts the positions of
    the backtests that share its ``books``, which are at the same minute, and ignores what other runs left in the record.
    """

    def __init__(self, context: RunContext, registry: Registry, books: Books | None = None) -> None:
        self._context = context
        self._adapter: Any = registry.adapter("risk")
        self._registry = registry
        self._limit = next((risk for risk in list_risks() if risk.name == context.risk_name), None)
        book_key = context.risk_name, context.exchange_name, context.frame_name
        self._open = ({} if books is None else books).setdefault(book_key, {})

    def reserve(self, position: Position, price: float, when_ms: int, *, ask: bool = False) -> tuple[str, int] | None:
        """Take a slot for ``position``; with ``ask``, only check for one. Return None, or the refusal and the number of open positions."""
        if self._limit is None:
            return None
        limit, key = self._limit, self._context.risk_key
        new_slot = rows.risk_row(self._context, position)
        refusal: tuple[str, int] | None = None

        def is_refused(active: list[Row]) -> bool:
            nonlocal refusal
            note = _refusal(limit, RiskRequest(position=new_slot, active=tuple(active), price=price, when_ms=when_ms))
            refusal = None if note is None else (note, len(active))
            return note is not None

        def taken(stored: _Pairs) -> _Pairs:
            others = [pair for pair in stored if pair[0] != key]
            refused = is_refused([slot for _, slot in others if not slot.get("frameName")])
            return stored if refused or ask else _with(stored, key, new_slot)

        if not self._context.backtest:
            self._change(taken, when_ms)
        elif not is_refused([row for other, row in self._open.items() if other != key]) and not ask:
            self._open[key] = new_slot
        return refusal

    def hold(self, position: Position | None) -> None:
        """Count with ``position``, or without any, in the books that backtests share. ``store`` changes the record."""
        if position is None:
            self._open.pop(self._context.risk_key, None)
        else:
            self._open[self._context.risk_key] = rows.risk_row(self._context, position)

    def store(self, position: Position | None, when_ms: int) -> None:
        """Write the slot of ``position`` to the record; remove this run's slot if it is None."""
        key = self._context.risk_key

        def changed(stored: _Pairs) -> _Pairs:
            others = [pair for pair in stored if pair[0] != key]
            if position is None and len(others) == len(stored):
                return stored
            self._guard(stored)
            return others if position is None else _with(stored, key, rows.risk_row(self._context, position))

        with without_flush():
            self._change(changed, when_ms)

    def leave(self) -> None:
        """Remove this run from the books that backtests share."""
        self.hold(None)

    def restore(self, position: Position | None, when_ms: int) -> None:
        """After a restart, remove expired slots that no run needs, and keep the slot of the restored position, or none."""
        key = self._context.risk_key

        def changed(stored: _Pairs) -> _Pairs:
            kept = [pair for pair in stored if pair[0] != key and (pair[1].get("frameName") or not self._abandoned(pair[1], when_ms))]
            if position is not None:
                own_pair = next((pair for pair in stored if pair[0] == key and not pair[1].get("frameName")), None)
                kept.append(own_pair or [key, rows.risk_row(self._context, position)])
            return kept if sorted(pair[0] for pair in kept) != sorted(pair[0] for pair in stored) else stored

        self.hold(position)
        with without_flush():
            self._change(changed, when_ms)

    def _abandoned(self, held: Row, when_ms: int) -> bool:
        """Whether a slot has expired and no run, down or slow, still has to open or close its position."""
        if not _expired(held, when_ms):
            return False
        signal_key = held.get("symbol"), held.get("strategyName"), held.get("exchangeName")
        if None in signal_key:
            return True
        signal: Any = self._registry.adapter("signal")
        strategy: Any = self._registry.adapter("strategy")
        return signal.read_signal_data(*signal_key) is None and not has_order(strategy.read_strategy_data(*signal_key) or {})

    def _guard(self, stored: _Pairs) -> None:
        context = self._context
        if context.backtest and any(key == context.risk_key and not slot.get("frameName") for key, slot in stored):
            raise InvalidValueError(
                f"risk {context.risk_name!r} on {context.exchange_name} holds an open live position {context.risk_key!r} in this "
                "database; a backtest would overwrite it",
                hint="run the backtest on another database",
            )

    def _change(self, change: Callable[[_Pairs], _Pairs], when_ms: int) -> None:
        self._adapter.update((self._context.risk_name, self._context.exchange_name), change, when_ms)


def _with(stored: _Pairs, key: str, row: Row) -> _Pairs:
    """Return the slots with that of ``key`` at the end, or unchanged if they contain it already."""
    return stored if [key, row] in stored else [*(pair for pair in stored if pair[0] != key), [key, row]]


def _refusal(limit: Risk, request: RiskRequest) -> str | None:
    if limit.max_positions is not None and len(request.active) >= limit.max_positions:
        return f"risk {limit.name!r} allows {limit.max_positions} open positions, and {len(request.active)} are open"
    if limit.validate is None:
        return None
    try:
        answer = limit.validate(request)
    except USER_ERRORS as error:  # a check that fails must not let a position through
        write_error = pending_write_error(error)
        if write_error is not None:
            raise write_error from None
        return f"risk {limit.name!r} raised {describe(error)}"
    if isinstance(answer, str):
        return answer
    return f"risk {limit.name!r} refused the position" if answer is False else None


def _expired(held: Row, when_ms: int) -> bool:
    minutes = held.get("minuteEstimatedTime")
    return minutes is not None and when_ms >= held.get("openTimestamp", when_ms) + minutes * MINUTE_MS
