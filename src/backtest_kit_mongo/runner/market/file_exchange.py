"""File exchanges: candles from CSV and Parquet files, for runs without a network."""

from __future__ import annotations

import threading
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np

from ...candles import GRIDS, CandleArray, CandleInterval, closed_candles, grid_of
from ...candles.files import Part, Wanted, join_parts, read_parts, series_of
from ...errors import InvalidTypeError, InvalidValueError
from ...logs import log
from ..registrations import call_site, check_name
from .exchange import register_exchange

__all__ = ["add_file_exchange"]

Series = tuple[str, str]


def add_file_exchange(name: str, path: str | PathLike[str], symbol: str | None = None, interval: CandleInterval | None = None) -> None:
    """Register an exchange that reads a file, or the files ``SYMBOL-INTERVAL.csv`` (``.csv.gz``, ``.zip``, ``.parquet``, ...) of a folder.

    A file name may continue after the interval: all files of a series, one per month for example, are joined. A file is read once, on
    first use; a candle at its end that had not closed when the file was written is left out. A backtest compares the file with what is
    stored under the name of the exchange, and refuses to run if the candles differ.

    Args:
        name: the name to register it under
        path: the file or the folder; a file is anything that ``read_candle_files`` takes
        symbol: the symbol of a single file whose name does not contain it
        interval: the interval of a single file whose name does not contain it; None is "1m"

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, there is no such file, or the name is registered already

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.runner import add_file_exchange, fetch_missing
        >>> size = Path("BTCUSDT-1m.csv").write_text('''timestamp,open,high,low,close,volume
        ... 1704067200000,1,2,0.5,1.5,10
        ... 1704067260000,1.5,2,1,1.25,10
        ... ''')
        >>> add_file_exchange("files", "BTCUSDT-1m.csv")
        >>> fetch_missing("BTCUSDT", "1m", "files", 1704067200000, 1704067320000)
        2
    """
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    location = Path(path)
    if location.is_dir():
        if symbol is not None or interval is not None:
            raise InvalidValueError("symbol and interval are for a single file; the files of a folder have them in their names")
        named = [(series_of(file), file) for file in sorted(location.iterdir())]
        sources = [(series[0], str(series[1]), file) for series, file in named if series is not None and series[1] in GRIDS]
        if not sources:
            raise InvalidValueError(f"the folder {location} holds no candles", hint="name its files like BTCUSDT-1m.csv.gz")
    elif location.is_file():
        series = series_of(location)
        symbol = symbol or (series and series[1] and series[0])
        if symbol is None:
            raise InvalidValueError(
                f"cannot tell which symbol {location} is for", hint="pass symbol, or name the file like BTCUSDT-1m.csv.gz"
            )
        symbol = check_name("symbol", symbol)
        sources = [(symbol, interval or (series and series[1]) or "1m", location)]
        grid_of(sources[0][1])
    else:
        raise InvalidValueError(f"{location} does not exist")
    files: dict[Series, list[Path]] = {}
    for file_symbol, file_interval, file in sources:
        files.setdefault((file_symbol, file_interval), []).append(file)
    source = _Files(name, files)
    register_exchange(name, source.get_candles, call_site(), source.all_candles)


class _Files:
    """The candles of a file exchange, by symbol and interval."""

    def __init__(self, name: str, files: dict[Series, list[Path]]) -> None:
        self._name, self._files = name, files
        self._read: dict[Series, tuple[list[tuple[int, int]], CandleArray]] = {}
        self._lock = threading.Lock()

    def get_candles(self, symbol: str, interval: str, since: int, limit: int) -> CandleArray:
        """Return the first ``limit`` candles from ``since`` (ms) on."""
        candles = self.all_candles(symbol, interval)
        if candles is None:
            available = ", ".join(f"{file_symbol} {file_interval}" for file_symbol, file_interval in self._files)
            raise InvalidValueError(f"exchange {self._name!r} has no {interval} candles of {symbol}", hint=f"its files hold {available}")
        first = int(np.searchsorted(candles["timestamp"], since))
        return candles[first : first + limit]

    def all_candles(self, symbol: str, interval: str) -> CandleArray | None:
        """Return the whole series, or None if no file holds it. Files that have changed are read again."""
        series = symbol, interval
        if series not in self._files:
            return None
        with self._lock:
            state = [_state(file) for file in self._files[series]]
            before, candles = self._read.get(series, (None, None))
            if candles is None or state != before:
                candles = _read_all(self._files[series], symbol, interval)
                self._read[series] = state, candles
        return candles


def _read_all(files: list[Path], symbol: str, interval: str) -> CandleArray:
    """Return the joined candles of the files of a series. Raises InvalidValueError if two files have different candles of one time."""
    parts = [part for file in files for part in _read_once(file, Wanted(interval, symbol))]
    candles, _ = join_parts(parts)
    newest = max(files, key=lambda file: max(int(part.candles["timestamp"][-1]) for part in _read_once(file, Wanted(interval, symbol))))
    return closed_candles(candles, interval, int(newest.stat().st_mtime * 1000))


def _read_once(file: Path, wanted: Wanted) -> tuple[Part, ...]:
    """Return the candles of a file, cached while the file does not change: each run of a sweep registers its exchange again."""
    return _read_at(file, wanted, *_state(file))


def _state(file: Path) -> tuple[int, int]:
    """Return when a file was changed (ns), and its size."""
    try:
        status = file.stat()
    except OSError as error:
        raise InvalidValueError(f"{file} cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def _read_at(file: Path, wanted: Wanted, modified: int, size: int) -> tuple[Part, ...]:
    parts = tuple(read_parts(file, wanted))
    for part in parts:
        part.candles.flags.writeable = False
        for note in part.notes:
            log("info", f"{part.source}: {note}")
    return parts
