"""Durations, for which BSON and JSON have no type, as text: ISO 8601, such as ``P1DT2.5S``."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import numpy as np

__all__ = ["iso_duration"]

_SECOND: Final = 10**9
_DAY: Final = 86_400 * _SECOND
_UNITS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": _SECOND, "m": 60 * _SECOND, "h": 3600 * _SECOND, "D": _DAY, "W": 7 * _DAY}
_MICROSECOND: Final = timedelta(microseconds=1)


def iso_duration(value: timedelta | np.timedelta64) -> str:
    """Return a duration in days and seconds, exact to the nanosecond: the text that msgspec writes for a timedelta.

    ``msgspec.convert(text, timedelta)`` (and so ``type=``) reads it, to the microsecond, and ``pandas.Timedelta(text)`` exactly. Raises
    ValueError for NaT, and for a unit of NumPy without a fixed length (months, years) or below a nanosecond.
    """
    if not isinstance(value, np.timedelta64) and hasattr(value, "to_timedelta64"):  # pandas.Timedelta has nanoseconds
        value = value.to_timedelta64()
    if isinstance(value, np.timedelta64):
        if np.isnat(value):
            raise ValueError("NaT is not a duration; use None where there is none")
        unit, count = np.datetime_data(value.dtype)
        if unit not in _UNITS:
            raise ValueError(f"a numpy.timedelta64 of unit {unit!r} is not exact in ns; convert it, as in value.astype('timedelta64[ns]')")
        nanoseconds = int(value.astype(np.int64)) * count * _UNITS[unit]
    else:
        nanoseconds = value // _MICROSECOND * 1000
    days, rest = divmod(abs(nanoseconds), _DAY)
    seconds, fraction = divmod(rest, _SECOND)
    decimals = f".{fraction:09}".rstrip("0") if fraction else ""
    time = f"T{seconds}{decimals}S" if rest else ""
    return f"{'-' if nanoseconds < 0 else ''}P{f'{days}D' if days or not time else ''}{time}"
