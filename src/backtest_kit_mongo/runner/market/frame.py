"""Frames: named windows of time that backtests replay."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from ...errors import InvalidTypeError, InvalidValueError
from ..clock import check_ms, iso_time
from ..registrations import Registrations, calling_place, check_name

__all__ = ["Frame", "add_frame", "clear_frames", "find_frame", "list_frames", "moment_ms", "restore_frames"]


class Frame(msgspec.Struct, frozen=True):
    """A window ``[start_ms, end_ms)`` in ms under a name; ``place`` is ``file:line`` of its registration."""

    name: str
    start_ms: int
    end_ms: int
    file: str
    place: str


_frames: Registrations[Frame] = Registrations("frame", "add_frame")


def add_frame(name: str, start: datetime | str | int, end: datetime | str | int) -> None:
    """Register the window from ``start`` up to, but without, ``end``: whole minutes, as datetime, ISO text or ms since 1970.

    Text and datetimes without a time zone are UTC; text without a time is the start of that day.
    """
    check_name("the name of a frame", name)
    start_ms, end_ms = moment_ms("start", start), moment_ms("end", end)
    if end_ms <= start_ms:
        raise InvalidValueError(f"frame {name!r} is empty: it starts {iso_time(start_ms)} and ends {iso_time(end_ms)}")
    file, place = calling_place()
    _frames.add(Frame(name=name, start_ms=start_ms, end_ms=end_ms, file=file, place=place))


def moment_ms(name: str, value: datetime | str | int) -> int:
    """A whole minute in ms; InvalidTypeError or InvalidValueError, which names ``name``, for anything that is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidValueError(f"{name} is {value!r}, which is no ISO time", hint="2023-03-01 or 2023-03-01T12:00") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        if value.second or value.microsecond:
            raise InvalidValueError(f"{name} is {value.isoformat()}, which is no whole minute")
        value = round(value.timestamp()) * 1000
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name} must be a datetime, ISO text or ms since 1970, got {type(value).__name__}")
    return check_ms(name, value)


def find_frame(name: str | None) -> Frame:
    """The frame of that name, or the only one for None; InvalidValueError, with the names that there are, otherwise."""
    return _frames.find(name)


def list_frames() -> tuple[Frame, ...]:
    """All registered frames, in the order of their registration."""
    return _frames.list()


def clear_frames() -> None:
    """Forget all registered frames."""
    _frames.restore(())


def restore_frames(frames: Iterable[Frame]) -> None:
    """Make ``frames`` the registered ones."""
    _frames.restore(frames)
