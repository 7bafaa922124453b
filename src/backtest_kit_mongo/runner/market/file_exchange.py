"""File exchanges: candles from CSV and Parquet files, for runs without a network."""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...candles import CANDLE_DTYPE, INTERVAL_MS, PRICES, CandleArray, closed_candles, interval_ms, library, to_columns
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ..clock import iso_time
from ..registrations import call_site, check_name
from .exchange import register_exchange
from .klines import SMALLEST_MS, SMALLEST_US, TIME_NAMES, read_klines

__all__ = ["add_file_exchange"]

_NAME: Final = re.compile(rf"(.+?)-({'|'.join(INTERVAL_MS)})(?:-.*)?(?i:\.csv|\.csv\.gz|\.parquet)")
"""``BTCUSDT-1m.csv.gz``, also ``BTCUSDT-1m-2023-03.csv`` as Binance publishes them."""

_TICKER: Final = re.compile(r"(?=[A-Z0-9]*[A-Z])([A-Z0-9]{5,20})(?i:\.csv|\.csv\.gz|\.parquet)")
"""``BTCUSDT.csv.gz``: only capitals and digits."""

Series = tuple[str, str]


def series_of(file: Path) -> tuple[str, str | None] | None:
    """Return the symbol and interval in a file's name; (symbol, None) if it has only a symbol, None if it has neither."""
    if (match := _NAME.fullmatch(file.name)) is not None:
        return match.group(1), match.group(2)
    return (match.group(1), None) if (match := _TICKER.fullmatch(file.name)) is not None else None


def add_file_exchange(name: str, path: str | PathLike[str], symbol: str | None = None, interval: str | None = None) -> None:
    """Register an exchange that reads a file, or the files ``SYMBOL-INTERVAL.csv`` (``.csv.gz``, ``.parquet``) of a folder.

    CSV is what ``read_klines`` takes: Binance's files, or a header ``timestamp,open,high,low,close,volume``. Parquet has columns with
    these names (extra ``arrow``). A file name may continue after the interval: all files of a series, one per month for example, are
    joined. Pass ``symbol`` and ``interval`` (default: 1m) if the name of a single file does not contain them. A file is read once, on
    first use; a candle at its end that had not closed when the file was written is left out. A backtest compares the file with what
    is stored under the name of the exchange, and refuses to run if the candles differ.
    """
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    location = Path(path)
    if location.is_dir():
        if symbol is not None or interval is not None:
            raise InvalidValueError("symbol and interval are for a single file; the files of a folder have them in their names")
        sources = [(match.group(1), match.group(2), file) for file in sorted(location.iterdir()) if (match := _NAME.fullmatch(file.name))]
        if not sources:
            raise InvalidValueError(f"the folder {location} holds no candles", hint="name its files like BTCUSDT-1m.csv.gz")
    elif location.is_file():
        match = _NAME.fullmatch(location.name)
        symbol = symbol or (match and match.group(1))
        if symbol is None:
            raise InvalidValueError(
                f"cannot tell which symbol {location} is for", hint="pass symbol, or name the file like BTCUSDT-1m.csv.gz"
            )
        check_name("symbol", symbol)
        sources = [(symbol, interval or (match.group(2) if match else "1m"), location)]
        interval_ms(sources[0][1])
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
        self._read: dict[Series, CandleArray] = {}
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
        """Return the whole series, or None if no file holds it."""
        series = symbol, interval
        if series not in self._files:
            return None
        with self._lock:
            candles = self._read.get(series)
            if candles is None:
                candles = self._read[series] = _read_all(self._files[series], interval)
        return candles


def _read_all(files: list[Path], interval: str) -> CandleArray:
    """Return the joined candles of the files of a series. Raises InvalidValueError if two files overlap."""
    parts = sorted(((_read_once(file, interval), file) for file in files), key=lambda part: int(part[0]["timestamp"][0]))
    for (before, file_before), (after, file_after) in pairwise(parts):
        if after["timestamp"][0] <= before["timestamp"][-1]:
            raise InvalidValueError(f"{file_before} and {file_after} both have the candle of {iso_time(int(after['timestamp'][0]))}")
    candles = np.concatenate([part for part, _ in parts])
    return closed_candles(candles, interval, int(parts[-1][1].stat().st_mtime * 1000))


def _read_once(file: Path, interval: str) -> CandleArray:
    """Return the candles of a file, cached while the file does not change: each run of a sweep registers its exchange again."""
    try:
        status = file.stat()
    except OSError as error:
        raise InvalidValueError(f"{file} cannot be read: {error.strerror}") from error
    return _read_at(file, interval, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read_at(file: Path, interval: str, modified: int, size: int) -> CandleArray:
    candles = _read(file, interval)
    candles.flags.writeable = False
    return candles


def _read(file: Path, interval: str) -> CandleArray:
    return _read_parquet(file, interval) if file.suffix.lower() == ".parquet" else read_klines(file, interval=interval)


def _read_parquet(file: Path, interval: str) -> CandleArray:
    arrow, parquet = library("pyarrow", "arrow"), library("pyarrow.parquet", "arrow")
    try:
        table = parquet.read_table(file)
        names = {name.strip().lower().replace(" ", "_"): name for name in table.column_names}
        time = next((names[name] for name in TIME_NAMES if name in names), None)
        absent = ["timestamp"] if time is None else [name for name in PRICES if name not in names]
        if absent:
            raise InvalidValueError(f"{file}: column {absent[0]} is missing", hint=f"it has {', '.join(table.column_names)}")
        candles = np.empty(len(table), CANDLE_DTYPE)
        candles["timestamp"] = _milliseconds(table[time], arrow)
        for name in PRICES:
            candles[name] = table[names[name]].cast("double").to_numpy()
        to_columns(candles, interval)
    except (OSError, arrow.ArrowException) as error:
        raise InvalidValueError(f"{file} cannot be read: {error}") from error
    except BacktestKitError as error:
        if str(file) in str(error):
            raise
        raise InvalidValueError(f"{file}: {error}") from error
    if not len(candles):
        raise InvalidValueError(f"{file} holds no candles")
    unordered = np.flatnonzero(np.diff(candles["timestamp"]) <= 0)
    if unordered.size:
        raise InvalidValueError(f"{file}: candle {int(unordered[0]) + 1} is not later than the one before it")
    return candles


def _milliseconds(column: Any, arrow: Any) -> Any:
    """Return open times in ms: integers are in ms already, timestamps are converted from their unit."""
    if arrow.types.is_timestamp(column.type):
        return column.cast(arrow.timestamp("ms", tz=column.type.tz)).cast("int64").to_numpy()
    stamps = column.cast("int64").to_numpy()
    if len(stamps) and not (stamps.min() >= SMALLEST_MS and stamps.max() < SMALLEST_US):
        raise InvalidValueError("its open times are not milliseconds since 1970", hint="seconds and microseconds are not guessed")
    return stamps
