"""Candles that are stored with values other than given ones."""

from __future__ import annotations

import shlex
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...candles import PRICES, CandleArray, matches
from ...errors import InvalidValueError
from ..clock import iso_time
from .stored_candles import StoredCandles

__all__ = ["CandleConflict", "CandleConflictError", "Differences", "check_equal", "difference_lines", "find_differences"]

_SHOWN: Final = 3


class CandleConflict(NamedTuple):
    """A candle that is stored with values other than given ones."""

    timestamp: int
    """Its open time, in ms."""
    stored: dict[str, float]
    """The stored values that differ, by name."""
    given: dict[str, float]
    """The given values that differ, by name."""


class CandleConflictError(InvalidValueError):
    """Candles are stored with values other than those to import; nothing was written.

    ``import_candles(..., replace=True)`` replaces them.
    """

    conflicts: tuple[CandleConflict, ...] = ()
    """The first few candles that differ."""


class Differences(NamedTuple):
    """Given candles compared with the stored ones: two masks over them, and the first few conflicts."""

    stored: npt.NDArray[np.bool_]
    different: npt.NDArray[np.bool_]
    conflicts: tuple[CandleConflict, ...]


def find_differences(stored: StoredCandles, candles: CandleArray) -> Differences:
    """Compare ``candles`` (ascending, not empty) with what is stored at their times."""
    stamps = candles["timestamp"]
    is_stored, different = np.zeros(len(candles), np.bool_), np.zeros(len(candles), np.bool_)
    conflicts: list[CandleConflict] = []
    for batch in stored.batches(int(stamps[0]), stored.grid.after(int(stamps[-1]))):
        present, equal = matches(batch, [candles])
        rows = np.searchsorted(stamps, batch["timestamp"][present])
        is_stored[rows], different[rows] = True, ~equal[present]
        for row in batch[present & ~equal][: _SHOWN - len(conflicts)]:
            conflicts.append(_conflict(row, candles[np.searchsorted(stamps, row["timestamp"])]))
    return Differences(is_stored, different, tuple(conflicts))


def check_equal(stored: StoredCandles, candles: CandleArray, differences: Differences | None = None) -> None:
    """Raise CandleConflictError if one of ``candles`` (ascending, not empty) is stored with other values."""
    differences = find_differences(stored, candles) if differences is None else differences
    count = int(differences.different.sum())
    if not count:
        return
    symbol, interval, exchange_name = stored.context
    series = f"{shlex.quote(symbol)} --interval {interval} --exchange {shlex.quote(exchange_name)}"
    error = CandleConflictError(
        f"{count:,} of {len(candles):,} candles of {symbol} {interval} are stored on {exchange_name!r} with other values:\n  "
        + "\n  ".join(difference_lines(differences.conflicts, count)),
        hint="nothing was written, because a stored candle never changes by itself. Import these candles under another exchange name "
        "(--exchange NAME), or replace the stored ones (candles import --replace, or import_candles with replace=True), or remove them "
        f"first: backtest-kit-mongo candles remove {series}",
    )
    error.conflicts = differences.conflicts
    raise error


def difference_lines(conflicts: tuple[CandleConflict, ...], count: int) -> list[str]:
    """Return lines of text about the first of ``count`` candles that differ."""
    lines = [f"{iso_time(conflict.timestamp)} stored: {_values(conflict.stored)}; new: {_values(conflict.given)}" for conflict in conflicts]
    return lines + ([f"and {count - len(conflicts):,} more"] if count > len(conflicts) else [])


def _conflict(stored: Any, given: Any) -> CandleConflict:
    names = [name for name in PRICES if stored[name] != given[name]]
    return CandleConflict(
        int(stored["timestamp"]), {name: float(stored[name]) for name in names}, {name: float(given[name]) for name in names}
    )


def _values(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.10g}" for name, value in values.items())
