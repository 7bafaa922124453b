"""Reading candle files: one, several, or a folder of them, joined into one series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from ...errors import InvalidTypeError, InvalidValueError
from ...simulation import iso_time
from ..columns import CandleArray
from ..intervals import OffGrid, check_off_grid, interval_ms
from ..layout import shortened
from ..rows import Part, Wanted, same_name
from .names import SUFFIX_HINT, has_candle_suffix, series_of
from .opening import read_parts

__all__ = ["CandleFiles", "join_parts", "read_candle_files", "read_klines"]

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]

_DEFAULT_INTERVAL: Final = "1m"
_CHOOSE: Final = "choose one with --{0} ({0}= of read_candle_files)"


class CandleFiles(msgspec.Struct, frozen=True):
    """What ``read_candle_files`` read: the candles of one series, and what a user should know of its files."""

    candles: CandleArray
    """An array of CANDLE_DTYPE, ascending."""
    symbol: str | None
    interval: str
    files: tuple[tuple[str, str], ...]
    """The name of each file, and what it was recognised as."""
    notes: tuple[str, ...]
    """What was done with the candles: repeated ones, those off the grid, other units of time. Empty for a plain file."""


def read_klines(path: str | PathLike[str], *, interval: str = "1m", progress: Callable[[int, int], None] | None = None) -> CandleArray:
    """Read a candle file (see ``read_candle_files``) and return an array of CANDLE_DTYPE.

    Gaps between candles are allowed (``find_gaps`` lists them). ``progress`` is called with (bytes read, bytes of the file).
    """
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    if Path(path).is_dir():
        raise InvalidValueError(f"{path} cannot be read: Is a directory", hint="read_candle_files reads the files of a folder")
    return read_candle_files(path, interval=interval, progress=progress).candles


def read_candle_files(
    paths: Paths,
    *,
    symbol: str | None = None,
    interval: str | None = None,
    exchange: str | None = None,
    off_grid: OffGrid = "refuse",
    no_volume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CandleFiles:
    """Read candle files and return their candles as one series.

    ``paths`` is a file, a folder, or several of either. A file is CSV (also with semicolons or tabs), JSON, Parquet or Feather, plain,
    compressed (.gz, .bz2, .xz) or in a .zip; its content tells what it is, not its name. Files of Binance, Kraken, CryptoDataDownload,
    MetaTrader, freqtrade, pandas and of ``export`` are read as they are. With a header (also in the middle, where files were joined),
    columns are found by name; without one they are time, open, high, low, close and volume. Times are ISO text (UTC without a zone), or
    numbers whose size says whether they count seconds, ms, us or ns.

    ``symbol`` and ``interval`` default to those in the file's name, such as BTCUSDT-1m.csv.gz, and the interval else to 1m; in a folder or
    a table of several series they choose one (``exchange`` too). ``off_grid`` says what to do with candles that do not open on the grid
    of the interval: "refuse", "skip" (leave out) or "snap" (move back to it). ``no_volume=True`` stores volume 0 and reads none.

    Candles that appear twice with the same values, in one file or in two, are read once. Raises InvalidValueError, which names file and
    line: for rows that are not candles, for two different candles of one time, and for whatever may mean two things. ``progress`` is
    called with (bytes read, bytes of all files).
    """
    if interval is not None:
        interval_ms(interval)
    check_off_grid(off_grid)
    files, symbol, interval, notes = _chosen(_as_paths(paths), symbol, interval)
    wanted = Wanted(interval, symbol, exchange, off_grid, no_volume)
    try:
        sizes = [file.stat().st_size for file in files]
    except OSError as error:
        raise InvalidValueError(f"{error.filename} cannot be read: {error.strerror}") from error
    total, before = sum(sizes), 0
    parts: list[Part] = []
    for file, size in zip(files, sizes, strict=True):

        def moved(position: int, before: int = before, size: int = size) -> None:
            if progress is not None:
                progress(before + min(position, size), total)

        parts += read_parts(file, wanted, moved)
        before += size
    if progress is not None:
        progress(total, total)
    candles, repeated = join_parts(parts)
    if repeated:
        notes.append(f"{repeated:,} candles are in two files with the same values, read once")
    for part in parts:
        notes += [note if len(parts) == 1 else f"{part.source}: {note}" for note in part.notes]
    return CandleFiles(candles, symbol, interval, tuple((part.source, part.form) for part in parts), tuple(notes))


def _as_paths(paths: Any) -> list[Path]:
    listed = [paths] if isinstance(paths, (str, PathLike)) else list(paths) if isinstance(paths, Iterable) else [paths]
    for path in listed:
        if not isinstance(path, (str, PathLike)):
            raise InvalidTypeError(f"paths must be a str, a path or several of them, got {type(path).__name__}")
    if not listed:
        raise InvalidValueError("paths is empty")
    return [Path(path) for path in listed]


def _chosen(paths: Sequence[Path], symbol: str | None, interval: str | None) -> tuple[list[Path], str | None, str, list[str]]:
    """Return the files of the wanted series, its symbol and interval, and notes. Files of other series in folders are left out."""
    files: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.is_file() and has_candle_suffix(file.name))
            if not found:
                raise InvalidValueError(f"the folder {path} holds no candle files", hint=SUFFIX_HINT)
            mine = [file for file in found if _is_of_series(file, symbol, interval)]
            if not mine:
                raise InvalidValueError(
                    f"the folder {path} holds no files of {symbol or 'the'} {interval or 'series'}".replace("the series", "that series"),
                    hint=f"it holds {shortened([file.name for file in found])}",
                )
            files += mine
            others += [file for file in found if file not in mine]
        else:
            files.append(path)
    named = [series for file in files if (series := series_of(file)) is not None]
    symbols = sorted({name for name, _ in named})
    intervals = sorted({length for _, length in named if length is not None})
    if symbol is None and len({name.upper() for name in symbols}) > 1:
        raise InvalidValueError(f"the files are of several symbols: {shortened(symbols)}", hint=_CHOOSE.format("symbol"))
    if interval is None and len(intervals) > 1:
        raise InvalidValueError(
            f"the files are of several intervals: {shortened(intervals)}", hint="choose one with --interval (interval=)"
        )
    if interval is not None and intervals and intervals != [interval]:
        wrong = next(file for file in files if (series := series_of(file)) is not None and series[1] not in (None, interval))
        raise InvalidValueError(f"the name of {wrong} says {series_of(wrong)[1]}, not {interval}", hint="pass the interval of its candles")  # type: ignore[index]
    notes = [f"{len(others):,} files of other series in the folder, left out"] if others else []
    return files, symbol or (symbols[0] if symbols else None), interval or (intervals[0] if intervals else _DEFAULT_INTERVAL), notes


def _is_of_series(file: Path, symbol: str | None, interval: str | None) -> bool:
    series = series_of(file)
    if series is None:
        return True
    return (symbol is None or same_name(series[0], symbol)) and (interval is None or series[1] in (None, interval))


def join_parts(parts: Sequence[Part]) -> tuple[CandleArray, int]:
    """Join the candles of several files; return them and how many were in two. Raises InvalidValueError for two that differ."""
    if len(parts) == 1:
        return parts[0].candles, 0
    candles = np.concatenate([part.candles for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part.candles) for part in parts])
    offset = np.concatenate([np.arange(len(part.candles)) for part in parts])
    order = np.argsort(candles["timestamp"], kind="stable")
    candles, owner, offset = candles[order], owner[order], offset[order]
    repeats = np.flatnonzero(candles["timestamp"][1:] == candles["timestamp"][:-1]) + 1
    differing = repeats[candles[repeats] != candles[repeats - 1]]
    if differing.size:
        row = int(differing[0])
        places = [parts[owner[index]].place(int(offset[index])) for index in (row - 1, row)]
        raise InvalidValueError(
            f"two files have different candles of {iso_time(int(candles['timestamp'][row]))}: {places[0]} and {places[1]}"
            + (f" ({len(differing):,} candles differ)" if len(differing) > 1 else ""),
            hint="pass only one of them",
        )
    return np.delete(candles, repeats), len(repeats)
