"""Candles in a file each, as the original keeps them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from ...candles import CANDLE_DTYPE, CandleArray, to_dicts
from .atomic_files import NotARegularFileError, PendingFile, pass_over, publish_new, read_bytes, set_aside

__all__ = ["as_window", "read_rows", "read_window", "write_window"]

_MOST_BYTES: Final = 1024  # of a candle; one with more in it than that makes no sense


class _Candle(msgspec.Struct):
    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


_decode: Final = msgspec.json.Decoder(_Candle).decode


def read_window(folder: str, times: Sequence[int]) -> CandleArray | None:
    """The candles of exactly these open times (ms); None if one is missing. The folder is not listed."""
    rows = read_rows(folder, times, whole=True)
    return None if rows is None else as_window(rows)


def as_window(rows: Sequence[tuple[float, ...]]) -> CandleArray:
    """Rows of a candle's fields as an array that nobody can change."""
    window = np.array(rows, CANDLE_DTYPE)
    window.flags.writeable = False
    return window


def read_rows(folder: str, times: Sequence[int], *, whole: bool) -> list[tuple[float, ...]] | None:
    """The fields of candles in the order of ``times``; missing ones are left out, or (``whole``) make it None."""
    rows: list[tuple[float, ...]] = []
    # One descriptor for the folder, so that the path is walked once; the rest is one open, read and close a candle.
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
            except (ValueError, RecursionError, OSError):  # the second look says what of the file system is wrong
                found = _second_look(f"{folder}/{name}", time, whole=whole)
                if found is None:
                    if whole:
                        return None
                    continue
                candle = found
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
        raise ValueError(f"it is the candle of {candle.timestamp}")
    return candle


def _second_look(path: str, time: int, *, whole: bool) -> _Candle | None:
    """The candle in a file that made no sense, if by now it does; else it is set aside, or passed over if it is no file (not ``whole``)."""
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
    """Write those candles that are not there yet into an existing folder; how many were new."""
    rows = to_dicts(candles)
    files = [PendingFile(folder, f"{candle['timestamp']}.json", msgspec.json.encode(candle)) for candle in rows]
    times = {file.path: candle["timestamp"] for file, candle in zip(files, rows, strict=True)}
    return publish_new(files, lambda path: _second_look(path, times[path], whole=True) is not None, durable=durable)
