"""Reading candle files: one, several, or a folder of them, joined into one series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from ...arguments import text
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError
from ...logs import log
from ...simulation import iso_time
from ..columns import CandleArray
from ..intervals import GRIDS, CandleInterval, OffGrid, check_off_grid, grid_of
from ..layout import shortened
from ..rows import Part, Wanted, plain_name, same_name
from .names import CHOOSE, choose_files, series_of
from .opening import read_parts

__all__ = ["CandleFiles", "join_parts", "read_candle_files", "read_klines"]

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]

_USUAL_INTERVAL: Final[CandleInterval] = "1m"
_MANY: Final = 10
_SHOWN: Final = 200


class CandleFiles(msgspec.Struct, frozen=True):
    """What ``read_candle_files`` read: the candles of one series, and what a user should know of its files."""

    candles: CandleArray
    """An array (n,) of CANDLE_DTYPE, ascending."""
    symbol: str | None
    """The symbol of the series; None if neither file nor name tells it."""
    interval: CandleInterval
    """Its interval."""
    files: tuple[tuple[str, str], ...]
    """The name of each file, and what it was recognised as."""
    notes: tuple[str, ...]
    """What was done with the candles: repeated ones, those off the grid, other units of time. Empty for a plain file."""


def read_klines(
    path: str | PathLike[str], *, interval: CandleInterval = "1m", progress: Callable[[int, int], None] | None = None
) -> CandleArray:
    """Read a candle file (see ``read_candle_files``) and return its candles. Gaps are allowed; ``find_gaps`` lists them.

    Args:
        path: the file
        interval: the length of the candles
        progress: called with (bytes read, bytes of the file)

    Returns:
        an array (n,) of CANDLE_DTYPE, ascending

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: the file cannot be read; the message names the line
        MissingDependencyError: Parquet or Feather without pyarrow

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.runner import read_klines
        >>> size = Path("candles.csv").write_text("1704067200,1,2,0.5,1.5,10")
        >>> read_klines("candles.csv")["timestamp"].tolist()
        [1704067200000]
    """
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    if Path(path).is_dir():
        raise InvalidValueError(f"{path} cannot be read: Is a directory", hint="read_candle_files reads the files of a folder")
    read = read_candle_files(path, interval=interval, progress=progress)
    for note in read.notes:
        log("info", f"{path}: {note}")
    return read.candles


def read_candle_files(
    paths: Paths,
    *,
    symbol: str | None = None,
    interval: CandleInterval | None = None,
    exchange: str | None = None,
    off_grid: OffGrid = "refuse",
    no_volume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> CandleFiles:
    """Read candle files and return their candles as one series.

    A file is CSV (also with semicolons or tabs), JSON, Parquet or Feather, plain, compressed (.gz, .bz2, .xz) or in a .zip; its content
    tells what it is, not its name. Files of Binance, Kraken, CryptoDataDownload, MetaTrader, freqtrade, pandas and of ``export`` are read
    as they are. With a header (also in the middle, where files were joined), columns are found by name; without one they are time, open,
    high, low, close and volume. Times are ISO text (UTC without a zone), or numbers whose size says whether they count seconds, ms, us or
    ns. Candles that appear twice with the same values, in one file or in two, are read once.

    Args:
        paths: a file, a folder, or several of either
        symbol: the symbol to read from a folder or a table of several series; None is that of the file's name, such as BTCUSDT-1m.csv.gz
        interval: the interval, likewise; None is that of the file's name, or else "1m"
        exchange: the exchange to read from a table of several series
        off_grid: what to do with candles that do not open on the grid of the interval: "refuse", "skip" (leave out) or "snap" (move back)
        no_volume: True to store volume 0 and read none
        progress: called with (bytes read, bytes of all files)

    Returns:
        the candles, and notes on the files

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: a row is not a candle, two candles of one time differ, or something may mean two things; the message names file
            and line
        MissingDependencyError: Parquet or Feather without pyarrow

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.runner import read_candle_files
        >>> size = Path("BTCUSDT-1h.csv").write_text("1704067200,1,2,0.5,1.5,10")
        >>> read = read_candle_files("BTCUSDT-1h.csv")
        >>> read.symbol, read.interval, read.candles.shape
        ('BTCUSDT', '1h', (1,))
    """
    symbol = None if symbol is None else text("symbol", symbol)
    exchange = None if exchange is None else text("exchange", exchange)
    if interval is not None:
        grid_of(interval)
    check_off_grid(off_grid)
    try:
        chosen = _chosen(_as_paths(paths), symbol, interval)
        sizes = [file.stat().st_size for file in chosen.files]
    except OSError as error:
        raise InvalidValueError(f"{str(error.filename)[:_SHOWN]} cannot be read: {error.strerror}") from error
    except (ValueError, UnicodeError) as error:
        if isinstance(error, BacktestKitError):
            raise
        raise InvalidValueError(f"a path cannot be used: {error}") from error
    notes = chosen.notes
    wanted = Wanted(chosen.interval, chosen.symbol, exchange, off_grid, no_volume)
    total, before = sum(sizes), 0
    parts: list[Part] = []
    for file, size in zip(chosen.files, sizes, strict=True):

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
    _check_interval(parts[0].source, candles, chosen.interval, chosen.guessed, notes)
    files = tuple((part.source, part.form) for part in parts)
    return CandleFiles(candles, chosen.symbol, chosen.interval, files, tuple(notes))


def _as_paths(paths: Any) -> list[Path]:
    listed = [paths] if isinstance(paths, (str, PathLike)) else list(paths) if isinstance(paths, Iterable) else [paths]
    for path in listed:
        if not isinstance(path, (str, PathLike)):
            raise InvalidTypeError(f"paths must be a str, a path or several of them, got {type(path).__name__}")
        if not fspath(path):
            raise InvalidValueError("a path is empty")
    if not listed:
        raise InvalidValueError("paths is empty")
    return [Path(path) for path in listed]


class _Chosen(NamedTuple):
    """What to read: files, the series that their names or the arguments tell, and whether the interval is only the usual one."""

    files: list[Path]
    symbol: str | None
    interval: CandleInterval
    guessed: bool
    notes: list[str]


def _chosen(paths: Sequence[Path], symbol: str | None, interval: str | None) -> _Chosen:
    """Return the files of the wanted series. Those of other series in folders are left out."""
    files: list[Path] = []
    others = 0
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        choice = choose_files(f"the folder {path}", names, symbol, interval)
        files += [path / name for name in choice.names]
        others += choice.others
    series = [found for file in files if (found := series_of(file)) is not None]
    symbols = {plain_name(name): name for name, _ in series}
    intervals = sorted({length for _, length in series if length is not None})
    notes = [f"{others:,} files of other series in the folder, left out"] if others else []
    if len(symbols) > 1:
        raise InvalidValueError(
            f"the files are of several symbols: {shortened(sorted(symbols.values()))}", hint="pass the files of one symbol"
        )
    if interval is None and len(intervals) > 1:
        raise InvalidValueError(f"the files are of several intervals: {shortened(intervals)}", hint=CHOOSE.format("interval"))
    for file, (name, length) in [(file, found) for file in files if (found := series_of(file)) is not None]:
        if interval is not None and length not in (None, interval):
            raise InvalidValueError(f"the name of {file} says {length}, not {interval}", hint="pass the interval of its candles")
        if symbol is not None and not same_name(name, symbol):
            notes.append(f"the file is named after {name}; its candles are stored as {symbol}")
    told = interval or (intervals[0] if intervals else None)
    length = _USUAL_INTERVAL if told is None else grid_of(told).interval
    return _Chosen(files, symbol or next(iter(symbols.values()), None), length, told is None, list(dict.fromkeys(notes)))


def _check_interval(source: str, candles: CandleArray, interval: str, guessed: bool, notes: list[str]) -> None:
    """Say if all candles are further apart than the interval says; refuse them if nothing but the usual interval says it."""
    if len(candles) < 2:
        return
    stamps = candles["timestamp"]
    distance, longest = int(np.gcd.reduce(np.diff(stamps))), grid_of(interval).longest
    fitting = [
        name
        for name, grid in GRIDS.items()
        if grid.longest > longest and (not grid.past(stamps).any() if grid.step is None else distance % grid.step == 0)
    ]
    if not fitting:
        return
    closest = fitting[-1]
    if guessed:
        raise InvalidValueError(
            f"{source}: no two candles are closer than {closest}, so their interval is probably not {interval}",
            hint=f"say which it is: --interval {closest}, or --interval {interval} (interval=)",
        )
    if len(candles) >= _MANY:
        notes.append(f"no two candles are closer than {closest}, although their interval is {interval}")


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
