"""Read and write candles, one file each, as the TypeScript package does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec
import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, to_dicts
from ...errors import InvalidValueError
from .atomic_files import NotARegularFileError, PendingFile, pass_over, publish, publish_new, read_bytes, set_aside

__all__ = ["as_window", "check_not_minutes", "read_rows", "read_window", "replace_window", "write_window"]

_MOST_BYTES: Final = 1024  # of a candle's file; a longer file is corrupt


class _Candle(msgspec.Struct):
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


_decode: Final = msgspec.json.Decoder(_Candle).decode


def check_not_minutes(folder: str) -> None:
    """Raise InvalidValueError if a folder of months, ``1M``, is also that of minutes, ``1m``: some file systems ignore case."""
    minutes = f"{os.path.dirname(folder)}/1m"
    with suppress(FileNotFoundError):
        if os.path.samefile(folder, minutes):
            raise InvalidValueError(
                f"candles of 1M cannot be kept in files here: {folder} and {minutes} are the same folder",
                hint="use a file system that tells upper from lower case, or another store",
            )


def read_window(folder: str, times: Iterable[int]) -> CandleArray | None:
    """Return the candles of exactly these open times (ms), or None if one is missing. The folder is not listed."""
    rows = read_rows(folder, times, whole=True)
    return None if rows is None else as_window(rows)


def as_window(rows: Sequence[tuple[float, ...]]) -> CandleArray:
    """Convert rows of candle fields to a read-only array."""
    window = np.array(rows, CANDLE_DTYPE)
    window.flags.writeable = False
    return window


def read_rows(folder: str, times: Iterable[int], *, whole: bool) -> list[tuple[float, ...]] | None:
    """Return the fields of candles in the order of ``times`` (ms), without missing ones; None if ``whole`` and one is missing."""
    rows: list[tuple[float, ...]] = []
    # With one descriptor for the folder, the kernel walks its path only once; each candle then costs one open, read and close.
    open_file, read, close = os.open, os.read, os.close
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = open_file(folder, flags | os.O_DIRECTORY)
    except FileNotFoundError:
        return None if whole else []
    try:
        for time in times:
            name = f"{time}.json"
            try:
                file = open_file(name, flags, dir_fd=descriptor)
                try:
                    content = read(file, _MOST_BYTES)
                finally:
                    close(file)
                candle = _checked(content, time)
            except FileNotFoundError:
                if whole:
                    return None
                continue
            except (ValueError, RecursionError, OSError):  # the second look raises the file system's error with its full path
                repeated = _second_look(f"{folder}/{name}", time, whole=whole)
                if repeated is None:
                    if whole:
                        return None
                    continue
                candle = repeated
            rows.append((time, candle.open, candle.high, candle.low, candle.close, candle.volume))
    except OSError as error:
        if error.filename is not None and "/" not in os.fspath(error.filename):
            error.filename = f"{folder}/{error.filename}"
        raise
    finally:
        close(descriptor)
    return rows


def _checked(content: bytes, time: int) -> _Candle:
    candle = _decode(content)
    if candle.timestamp != time:
        raise ValueError(f"it holds the candle of {candle.timestamp}")
    return candle


def _second_look(path: str, time: int, *, whole: bool) -> _Candle | None:
    """Read a file again that looked corrupt, and return its candle.

    If it is still corrupt, set it aside and return None. Something that is not a regular file is skipped and reported (None), or with
    ``whole`` raises NotARegularFileError.
    """
    while True:
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            return None
        except NotARegularFileError as error:
            if whole:
                raise
            pass_over(path, str(error.strerror))
            return None
        try:
            return _checked(content, time)
        except (ValueError, RecursionError) as error:
            if set_aside(path, content, str(error)):
                return None


def write_window(folder: str, candles: CandleArray, *, durable: bool) -> int:
    """Write the candles that are not stored yet into an existing folder; return how many were new."""
    files = _files(folder, candles)
    times = {file.path: time for file, time in zip(files, candles["timestamp"].tolist(), strict=True)}
    return publish_new(files, lambda path: _second_look(path, times[path], whole=True) is not None, durable=durable)


def replace_window(folder: str, candles: CandleArray, *, durable: bool) -> int:
    """Write those of the (ascending) candles that are stored over their files; return how many are."""
    stored = [row[0] for row in read_rows(folder, candles["timestamp"].tolist(), whole=False) or ()]

    def put(temporary: str, file: PendingFile) -> bool:
        if not os.path.lexists(file.path):  # another process has just removed it
            os.unlink(temporary)
            return False
        os.rename(temporary, file.path)
        return True

    return publish(_files(folder, candles[np.isin(candles["timestamp"], stored)]), put, durable=durable)


def _files(folder: str, candles: CandleArray) -> list[PendingFile]:
    return [PendingFile(folder, f"{candle['timestamp']}.json", msgspec.json.encode(candle)) for candle in to_dicts(candles)]
