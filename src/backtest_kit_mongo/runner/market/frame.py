"""Frames: named windows of time that backtests replay."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime

import numpy as np

from ...arguments import is_missing, kind_of
from ...errors import InvalidTypeError, InvalidValueError
from ...simulation import milliseconds
from ..clock import MINUTE_MS, check_ms, iso_time
from ..registrations import Registered, Registrations, call_site, check_name

__all__ = ["Frame", "Moment", "add_frame", "clear_frames", "find_frame", "list_frames", "moment_ms", "restore_frames"]

Moment = datetime | date | np.datetime64 | str | int
"""A time: ``"2024-01-01"``, ``"2024-01-01T12:00"``, a datetime, a date, a NumPy time, or ms since 1970."""


class Frame(Registered, frozen=True, kw_only=True):
    """A named window of time; see ``add_frame``."""

    start_ms: int
    """The start of the window, in ms."""
    end_ms: int
    """The end of the window in ms, which is not part of it."""


_frames: Registrations[Frame] = Registrations("frame", "add_frame")


def add_frame(name: str, start: Moment, end: Moment) -> None:
    """Register a window of time for backtests.

    Text and datetimes without a time zone are UTC. Text without a time means the start of that day.

    Args:
        name: the name of the frame
        start: the start of the window, a whole minute: a datetime, date, ISO text or ms since 1970
        end: the end of the window, which is not part of it, likewise

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: a time is not a whole minute, the window is empty, or the name is registered already

    Examples:
        >>> from backtest_kit_mongo.runner import add_frame, find_frame
        >>> add_frame("january", "2024-01-01", "2024-02-01")
        >>> find_frame("january").start_ms
        1704067200000
    """
    name = check_name("the name of a frame", name)
    start_ms, end_ms = moment_ms("start", start), moment_ms("end", end)
    if end_ms <= start_ms:
        raise InvalidValueError(f"frame {name!r} is empty: it starts {iso_time(start_ms)} and ends {iso_time(end_ms)}")
    _frames.add(Frame(name=name, start_ms=start_ms, end_ms=end_ms, **call_site()._asdict()))


def moment_ms(name: str, value: Moment, *, step_ms: int = MINUTE_MS) -> int:
    """Return a time in ms. Text, dates and datetimes without a time zone are UTC; a date is the start of that day.

    Raises InvalidTypeError or InvalidValueError, which mentions ``name``, if it is not a multiple of ``step_ms``.
    """
    if is_missing(value):
        raise InvalidTypeError(f"{name} must be a datetime, ISO text or ms since 1970, got {kind_of(value)}")
    if isinstance(value, np.datetime64):
        return check_ms(name, int(value.astype("datetime64[ms]").astype(np.int64)), step_ms=step_ms)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidValueError(f"{name} is {value!r}, which is not an ISO time", hint="write 2023-03-01 or 2023-03-01T12:00") from None
    if isinstance(value, date):
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        if step_ms == MINUTE_MS and (value.second or value.microsecond):
            raise InvalidValueError(f"{name} is {value.isoformat()}, which is not a whole minute")
        value = milliseconds(name, value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InvalidTypeError(f"{name} must be a datetime, ISO text or ms since 1970, got {kind_of(value)}")
    return check_ms(name, value, step_ms=step_ms)


def find_frame(name: str | None) -> Frame:
    """Return a registered frame.

    Args:
        name: its name; None is the only one

    Raises:
        InvalidValueError: there is no such frame, or not exactly one; the message lists the names

    Examples:
        >>> from backtest_kit_mongo.runner import add_frame, find_frame
        >>> add_frame("january", "2024-01-01", "2024-02-01")
        >>> find_frame(None).name
        'january'
    """
    return _frames.find(name)


def list_frames() -> tuple[Frame, ...]:
    """Return all registered frames, in order of registration.

    Examples:
        >>> from backtest_kit_mongo.runner import list_frames
        >>> list_frames()
        ()
    """
    return _frames.list()


def clear_frames() -> None:
    """Remove all registered frames.

    Examples:
        >>> from backtest_kit_mongo.runner import clear_frames
        >>> clear_frames()
    """
    _frames.restore(())


def restore_frames(frames: Iterable[Frame]) -> None:
    """Replace the registered frames by ``frames``."""
    _frames.restore(frames)
