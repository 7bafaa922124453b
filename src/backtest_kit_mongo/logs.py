"""Logging: the library logs to the logger ``backtest_kit_mongo``, or to the one passed to ``set_logger``."""

from __future__ import annotations

import logging
from typing import Literal, Protocol

from .errors import InvalidTypeError

__all__ = ["Logger", "current_logger", "log", "set_logger"]


class Logger(Protocol):
    """The methods that ``set_logger`` requires; a ``logging.Logger`` has them."""

    def debug(self, message: str, /) -> object:
        """Log details."""

    def info(self, message: str, /) -> object:
        """Log that something is back to normal."""

    def warning(self, message: str, /) -> object:
        """Log a problem; the library carries on."""

    def error(self, message: str, /) -> object:
        """Log that something was lost or has ended."""


_standard = logging.getLogger("backtest_kit_mongo")
_standard.addHandler(logging.NullHandler())
_current: Logger = _standard


def set_logger(logger: Logger | None) -> None:
    """Send the library's messages to a logger of yours.

    Args:
        logger: any object with methods debug, info, warning and error; None is the standard logger ``backtest_kit_mongo``

    Raises:
        InvalidTypeError: a method is missing

    Examples:
        >>> import logging
        >>> import backtest_kit_mongo as kit
        >>> kit.set_logger(logging.getLogger("my.bot"))
    """
    global _current
    if logger is not None:
        missing = [name for name in ("debug", "info", "warning", "error") if not callable(getattr(logger, name, None))]
        if missing:
            raise InvalidTypeError(f"a logger must have the methods debug, info, warning and error; missing: {', '.join(missing)}")
    _current = _standard if logger is None else logger


def current_logger() -> Logger:
    """Return the logger that messages go to now."""
    return _current


def log(level: Literal["debug", "info", "warning", "error"], message: str) -> None:
    """Log a message. An error in the user's logger goes to the standard logger and never fails the read or write that logs."""
    try:
        getattr(_current, level)(message)
    except Exception:  # noqa: BLE001 - the user's logger may raise anything
        _standard.exception("the logger passed to set_logger failed on this message: %s", message)
