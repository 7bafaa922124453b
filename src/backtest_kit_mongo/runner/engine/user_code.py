"""Call user functions: what they receive, and how their errors are handled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from ...errors import BacktestKitError, DatabaseError, ServerUnavailableError, StorageError
from ...logs import log
from ..clock import as_datetime, iso_time
from ..error_text import USER_ERRORS, describe, where
from ..market.exchange import ExchangeError
from ..registrations import check_awaited
from ..strategy import BadSignalError, Callback, Event, Strategy, StrategyError
from . import rows
from .event_loop import synchronous
from .journal import Journal
from .position import Position
from .rows import RunContext
from .write_behind import pending_write_error

__all__ = ["PERSISTENCE_ERRORS", "OnError", "UserCode"]

PERSISTENCE_ERRORS: Final = (ServerUnavailableError, DatabaseError, StorageError)
"""Errors that are not the fault of a strategy, and that could not be recorded either."""


OnError = Literal["stop", "skip"]


class UserCode:
    """The functions of a strategy in a run. Their errors are recorded, and end the run or, with ``on_error="skip"``, only the call."""

    def __init__(self, context: RunContext, strategy: Strategy, journal: Journal, on_error: OnError = "stop") -> None:
        self._context, self._strategy, self._journal, self._on_error = context, strategy, journal, on_error
        self._get_signal = synchronous(strategy.get_signal)
        callbacks: dict[str, Any] = {**strategy.callbacks}
        self._callbacks: dict[str, Callback] = {name: synchronous(function) for name, function in callbacks.items()}
        self._known: set[tuple[type[BaseException], str]] = set()
        self.skipped: int = 0
        """How many errors were skipped."""

    def get_signal(self, when: int) -> Any:
        """Return what the strategy returns at ``when`` (ms)."""
        symbol = self._context.symbol
        again = PERSISTENCE_ERRORS if self._context.backtest else (*PERSISTENCE_ERRORS, ExchangeError)
        return self.guarded(lambda: self._get_signal(symbol, as_datetime(when)), when, again=again)

    def tell(self, name: str, when: int, price: float, position: Position | None = None, reason: str | None = None) -> None:
        """Call the callback ``name`` if the strategy has one. ``when`` is in ms."""
        function = self._callbacks.get(name)
        if function is None:
            return
        context = self._context
        event = Event(
            symbol=context.symbol,
            strategy_name=context.strategy_name,
            exchange_name=context.exchange_name,
            when=as_datetime(when),
            price=price,
            signal=None if position is None else rows.public_row(context, position, price),
            reason=reason,
        )

        def call() -> None:
            answer = function(event)
            if answer is not None:
                check_awaited(f"{name} of strategy {context.strategy_name!r}", answer)

        self.guarded(call, when)

    def guarded(self, call: Callable[[], Any], when: int, again: tuple[type[Exception], ...] = PERSISTENCE_ERRORS) -> Any:
        """Return what ``call`` returns, or None after an error that is skipped. Errors in ``again`` are raised unchanged."""
        self._journal.flush_when_due()
        try:
            return call()
        except again:
            raise
        except USER_ERRORS as error:  # a strategy that calls sys.exit() has failed too
            write_error = pending_write_error(error)
            if write_error is not None:  # not an error of the user code, which only wanted to read
                raise write_error from None
            fatal = self._on_error == "stop"
            failure = error if isinstance(error, BadSignalError) else StrategyError(self._raised(error, when))
            try:
                self._journal.failed(when, type(error).__name__, str(failure), fatal=fatal)
                self._journal.flush()
            except BacktestKitError as second:
                failure.add_note(f"this could not be written to Log and Notification: {second}")
            if not fatal:
                self.skipped += 1
                kind = type(error), where(error, self._strategy.file)
                if kind not in self._known or not self._context.backtest:  # a backtest would repeat it thousands of times
                    self._known.add(kind)
                    log("error", str(failure))
                return None
            if failure is error:
                raise
            raise failure from error

    def named(self, when: int) -> str:
        """Return the strategy, its symbol and the time, for messages."""
        return f"strategy {self._strategy.name!r} on {self._context.symbol} at {iso_time(when)}"

    def _raised(self, error: BaseException, when: int) -> str:
        return f"{self.named(when)} raised {describe(error)} ({where(error, self._strategy.file)})"
