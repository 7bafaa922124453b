"""The intervals of candles, and the time grid that their open times lie on."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, Literal

from ..errors import InvalidTypeError, InvalidValueError

__all__ = ["INTERVAL_MS", "OFF_GRID", "OffGrid", "align", "check_off_grid", "interval_ms"]

INTERVAL_MS: Final = MappingProxyType(
    {
        name: minutes * 60_000
        for name, minutes in (
            ("1m", 1), ("3m", 3), ("5m", 5), ("15m", 15), ("30m", 30), ("1h", 60), ("2h", 120), ("4h", 240), ("6h", 360),
            ("8h", 480), ("1d", 1440),
        )
    }
)  # fmt: skip
"""Length of each candle interval in ms."""

OffGrid = Literal["refuse", "skip", "snap"]
OFF_GRID: Final = ("refuse", "skip", "snap")
"""What to do with candles that do not open on the grid: refuse them all, leave those out, or move them back to the grid."""


def check_off_grid(off_grid: Any) -> None:
    """Raise InvalidValueError unless ``off_grid`` is one of OFF_GRID."""
    if off_grid not in OFF_GRID:
        raise InvalidValueError(f"off_grid is {off_grid!r}", hint=f"use one of {', '.join(OFF_GRID)}")


def interval_ms(interval: Any) -> int:
    """Return the length of an interval in ms. Raises InvalidTypeError or InvalidValueError if it is not an interval."""
    if not isinstance(interval, str):
        raise InvalidTypeError(f"interval must be a str, got {type(interval).__name__}")
    try:
        return INTERVAL_MS[interval]
    except KeyError:
        raise InvalidValueError(f"unknown interval {interval!r}", hint=f"use one of {', '.join(INTERVAL_MS)}") from None


def align(timestamp: int, step: int) -> int:
    """Return the open time (ms) of the candle of ``step`` ms that contains ``timestamp`` (ms), counted from the epoch in UTC."""
    return timestamp // step * step
