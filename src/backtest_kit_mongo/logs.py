"""Where the library logs to: the logger ``backtest_kit_mongo``, or whatever the user put in its place."""

from __future__ import annotations

import logging
from typing import Literal, Protocol

from .errors import InvalidTypeError

__all__ = ["Logger", "log", "set_logger"]


class Logger(Protocol):
    """What ``set_logger`` takes: a ``logging.Logger`` is one."""

    def debug(self, message: str, /) -> object:
        """Details."""

    def info(self, message: str, /) -> object:
        """Something came back to normal."""

    def warning(self, message: str, /) -> object:
        """Something is wrong, and the library goes on."""

    def error(self, message: str, /) -> object:
        """Something is lost or has ended."""


_standard = logging.getLogger("backtest_kit_mongo")
_standard.addHandler(logging.NullHandler())
_current: Logger = _standard


def set_logger(logger: Logger | None) -> None:
    """Send the library's log lines to ``logger`` (anything with debug, info, warning and error); None: the standard logger."""
    global _current
    if logger is not None:
        missing = [name for name in ("debug", "info", "warning", "error") if not callable(getattr(logger, name, None))]
        if missing:
            raise InvalidTypeError(f"a logger needs the methods debug, info, warning and error; {', '.join(missing)} missing")
    _current = _standard if logger is None else logger


def log(level: Literal["debug", "info", "warning", "error"], message: str) -> None:
    """Write one line. A logger that raises is reported to the standard one, and does not fail the read or write with its news."""
    try:
        getattr(_current, level)(message)
    except Exception:  # noqa: BLE001 - it is not ours, and may raise anything
        _standard.exception("the logger given to set_logger failed on this line: %s", message)
