"""Reading Binance kline files (CSV, plain or gzipped) into candle columns."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from math import isfinite
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, interval_ms
from ...errors import InvalidTypeError, InvalidValueError
from ..clock import MINUTE_MS, iso_time

__all__ = ["read_klines"]

_COLUMNS: Final = ("open_time", "open", "high", "low", "close", "volume")
TIME_NAMES: Final = ("open_time", "opentime", "timestamp", "time", "datetime", "date")

# The size of an integer tells its unit. 10**11 ms is March 1973; as seconds it is the year 5138. 10**14 us is March 1973 as well.
SMALLEST_MS: Final = 10**11
SMALLEST_US: Final = 10**14
_LARGEST_US: Final = 10**17
_PROGRESS_ROWS: Final = 10_000


def read_klines(path: str | PathLike[str], *, interval: str = "1m", progress: Callable[[int, int], None] | None = None) -> CandleArray:
    """Read a Binance kline file and return an array of CANDLE_DTYPE (open time in ms, prices, volume of the base asset).

    The file is CSV, plain or gzipped (detected by its first bytes, not by its name). With a header, columns are found by name
    (``open_time``, ``open``, ``high``, ``low``, ``close``, ``volume``, in any order and case); without one they are the first
    six, in Binance's order. All further columns are ignored. The open time is ISO text (``2023-03-01 00:00:00+00:00``, also with
    ``T`` or ``Z``; UTC if it has no offset, as in Binance's files), whole milliseconds, or whole microseconds as in Binance's files
    since 2025. Seconds are rejected, not guessed.

    Rows must be in order, one per candle, on the grid of ``interval``. Gaps between them are allowed here (``find_gaps`` lists
    them). Raises InvalidValueError, which names file and line, for anything else. ``progress`` is called with (bytes read, bytes of
    the file), compressed bytes for a gzipped one.
    """
    step = interval_ms(interval)
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    name = fspath(path)
    columns: tuple[array[Any], ...] = tuple(array(code) for code in "qddddd")
    try:
        total = Path(name).stat().st_size
        with ExitStack() as files:
            raw = files.enter_context(open(name, "rb"))
            text = _open_text(name, raw, files)
            for count, row in enumerate(_rows(name, csv.reader(text, strict=True), step), start=1):
                for column, value in zip(columns, row, strict=True):
                    column.append(value)
                if progress is not None and count % _PROGRESS_ROWS == 0:
                    progress(min(raw.tell(), total), total)
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise InvalidValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{name} is not UTF-8 text (byte {error.start} of a block: {error.reason})") from error
    if not columns[0]:
        raise InvalidValueError(f"{name} holds no candles")
    if progress is not None:
        progress(total, total)
    candles = np.empty(len(columns[0]), CANDLE_DTYPE)
    for field, column in zip(CANDLE_DTYPE.names or (), columns, strict=True):
        candles[field] = column
    return candles


def _open_text(name: str, raw: IO[bytes], files: ExitStack) -> IO[str]:
    magic = raw.read(4)
    raw.seek(0)
    if magic == b"PK\x03\x04":
        raise InvalidValueError(f"{name} is a zip archive", hint=f"unzip it first: unzip {name}")
    packed = cast("IO[bytes]", files.enter_context(gzip.GzipFile(fileobj=raw))) if magic[:2] == b"\x1f\x8b" else raw
    return files.enter_context(io.TextIOWrapper(packed, encoding="utf-8-sig", newline=""))


def _rows(name: str, lines: Iterator[list[str]], step: int) -> Iterator[tuple[int, float, float, float, float, float]]:
    """Yield the checked rows in file order. ``lines`` is a csv reader; errors name its ``line_num``."""
    positions: tuple[int, ...] | None = None
    width = 0
    previous: int | None = None
    reader = _Located(name, lines)
    for fields in reader:
        if not fields or (len(fields) == 1 and not fields[0].strip()):
            continue
        if positions is None:
            header = _looks_like_header(fields[0])
            positions = _places(reader, fields) if header else tuple(range(len(_COLUMNS)))
            width = max(positions) + 1
            if header:
                continue
        if len(fields) < width:
            missing = _COLUMNS[next(index for index, position in enumerate(positions) if position >= len(fields))]
            raise reader.error(f"column {missing} is missing: the line has {len(fields)} columns")
        stamp = _open_time(reader, fields[positions[0]])
        if stamp % step:
            raise reader.error(f"open_time {fields[positions[0]]!r} is not a multiple of the interval, {step // MINUTE_MS} min")
        if previous is not None and stamp <= previous:
            mistake = "appears twice" if stamp == previous else f"comes after {iso_time(previous)}"
            raise reader.error(f"open_time {iso_time(stamp)} {mistake}; candles must be in ascending order, without duplicates")
        previous = stamp
        opened, high, low, close, volume = (
            _number(reader, column, fields[position]) for column, position in zip(_COLUMNS[1:], positions[1:], strict=True)
        )
        if not (0 < low <= opened <= high and low <= close <= high):
            raise reader.error(
                f"impossible candle: open {opened}, high {high}, low {low}, close {close}; open and close must be between low and high, "
                "and all prices above 0"
            )
        if volume < 0:
            raise reader.error(f"volume is {volume}; it must not be negative")
        yield stamp, opened, high, low, close, volume


class _Located:
    """A csv reader that makes errors with the file name and the current line."""

    def __init__(self, name: str, reader: Iterator[list[str]]) -> None:
        self._name = name
        self._reader = reader

    def __iter__(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise self.error(str(error)) from error

    def error(self, message: str, *, hint: str | None = None) -> InvalidValueError:
        return InvalidValueError(f"{self._name}, line {getattr(self._reader, 'line_num', '?')}: {message}", hint=hint)


def _looks_like_header(first: str) -> bool:
    text = first.strip()
    return bool(text) and not text[0].isdigit() and text[0] not in "+-."


def _places(reader: _Located, header: Iterable[str]) -> tuple[int, ...]:
    names = [field.strip().lower().replace(" ", "_") for field in header]
    positions = []
    for column in _COLUMNS:
        accepted = TIME_NAMES if column == "open_time" else (column,)
        # The first accepted name in the header wins, so open_time beats a "date" column that somebody added.
        header_name = next((name for name in accepted if name in names), None)
        if header_name is None:
            raise reader.error(f"column {column} is missing", hint=f"the header has {', '.join(names)}")
        if names.count(header_name) > 1:
            raise reader.error(f"column {header_name} appears {names.count(header_name)} times")
        positions.append(names.index(header_name))
    return tuple(positions)


def _open_time(reader: _Located, field: str) -> int:
    text = field.strip()
    whole = text.removesuffix(".0")  # pandas writes it after integers if the column once had a missing value
    if whole.isascii() and whole.isdigit():
        number = int(whole[:20])  # more digits than any time has; int() rejects more than 4,300
        if SMALLEST_MS <= number < SMALLEST_US:
            return number
        if SMALLEST_US <= number < _LARGEST_US:
            if number % 1000:
                raise reader.error(f"open_time {text} is in microseconds, but not a whole number of milliseconds")
            return number // 1000
        raise reader.error(
            f"open_time {text[:40]} is neither milliseconds nor microseconds since 1970",
            hint="seconds are not guessed: multiply them by 1000" if number < SMALLEST_MS else None,
        )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise reader.error(f"open_time {field!r} is neither an ISO time nor a whole number of milliseconds") from None
    delta = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    if delta.days < 0:
        raise reader.error(f"open_time {field!r} is before 1970")
    if delta.microseconds % 1000:
        raise reader.error(f"open_time {field!r} is not a whole number of milliseconds")
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _number(reader: _Located, column: str, field: str) -> float:
    try:
        if "_" in field:  # Python's digit separator; no exchange writes it
            raise ValueError
        number = float(field)
    except ValueError:
        raise reader.error(f"{column} is {field!r}, not a number") from None
    if not isfinite(number):
        raise reader.error(f"{column} is {field!r}, not a finite number")
    return number
