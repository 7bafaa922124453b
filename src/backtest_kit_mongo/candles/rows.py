"""From the rows of a file or table to checked candles, with the line of each for errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidValueError
from ..simulation import iso_time
from .cells import BadCellError, Cells, Spelling, UndecidedError
from .columns import CANDLE_DTYPE, PRICES, CandleArray, impossible_candles
from .intervals import OffGrid, grid_of
from .layout import METATRADER, VOLUME_AFTER_VWAP, WITHOUT_HEADER, Layout, LayoutError, shortened

__all__ = ["Batch", "CandleRows", "Part", "Wanted", "candle_columns", "choose_volume", "plain_name", "same_name"]

_AHEAD_MS: Final = 2 * 86_400_000  # clocks and time zones differ


class Batch(NamedTuple):
    """Some rows of a table: the layout of its columns, the cells of each column, and the number of each row in the file."""

    layout: Layout
    columns: Sequence[Cells]
    rows: npt.NDArray[np.int64]


class Wanted(NamedTuple):
    """What to take from a file, and how."""

    interval: str = "1m"
    symbol: str | None = None
    exchange: str | None = None
    off_grid: OffGrid = "refuse"
    no_volume: bool = False


class Part(NamedTuple):
    """The candles of one file, ascending, with the row of each."""

    source: str
    unit: str
    form: str
    candles: CandleArray
    rows: npt.NDArray[np.int64]
    notes: tuple[str, ...]

    def place(self, index: int) -> str:
        """Return where a candle stands: ``btc.csv, line 7``."""
        return f"{self.source}, {self.unit} {self.rows[index]}"


def same_name(one: str, other: str) -> bool:
    """Return whether two names mean one symbol: ``BTC/USDT``, ``BTC_USDT`` and ``btcusdt`` do."""
    return plain_name(one) == plain_name(other)


def plain_name(name: str) -> str:
    """Return the letters and digits of a name, in capitals."""
    return "".join(letter for letter in name.upper() if letter.isalnum())


def candle_columns(
    batch: Batch, spelling: Spelling, *, no_volume: bool, no_volume_hint: str = "--no-volume (no_volume=True) stores 0"
) -> tuple[CandleArray, npt.NDArray[np.bool_] | None, list[Any]]:
    """Return the candles of a batch in their order, which times are not whole ms (None: all are), and each possible column of volume.

    Raises BadCellError for a cell that cannot be read, and for a table without a volume.
    """
    layout, columns = batch.layout, batch.columns
    cells: Cells = columns[layout.time[0]]
    if len(layout.time) == 2:
        cells = [f"{day} {clock}" for day, clock in zip(cells, columns[layout.time[1]], strict=True)]
    stamps, inexact = spelling.times("open_time", cells)
    candles = np.empty(len(stamps), CANDLE_DTYPE)
    candles["timestamp"] = stamps
    numbers = [columns[position] for position in (*layout.prices, *(position for _, position in layout.volumes))]
    spelling.learn(numbers)
    names = ("open", "high", "low", "close", *("volume" for _ in layout.volumes))
    read = [spelling.floats(name, cells) for name, cells in zip(names, numbers, strict=True)]
    for name, values in zip(names[:4], read, strict=False):
        candles[name] = values
    volumes = read[4:]
    if not volumes and not no_volume:
        raise BadCellError(0, "column volume is missing", f"the columns are {shortened(layout.names)}; {no_volume_hint}")
    candles["volume"] = volumes[0] if volumes else 0.0
    return candles, inexact, volumes


def choose_volume(layout: Layout, candles: CandleArray, volumes: Sequence[npt.NDArray[np.float64]]) -> str | None:
    """Choose between two columns that may hold the volume, by what is in them; return a note. Raises LayoutError if that does not tell."""
    if len(volumes) < 2:
        return None
    (first_name, _), (name, _) = layout.volumes[:2]
    first, second = volumes[:2]
    if name != VOLUME_AFTER_VWAP:
        if first.any() or not second.any():
            return None
        candles["volume"] = second
        return f"volume from {name}, the number of price changes, because {first_name} is 0"
    if (second >= candles["timestamp"]).all():  # the time of the close, as in the rows of MEXC
        return None
    traded = second > 0
    if traded.any() and ((first >= candles["low"]) & (first <= candles["high"]))[traded].all():
        candles["volume"] = second
        return "volume from the seventh column, because the sixth is an average price, as Kraken writes it"
    raise LayoutError(
        "of 8 columns without a header the sixth or the seventh may be the volume", "add a header with the names of the columns"
    )


class CandleRows:
    """Collects the batches of one file, and makes checked candles of them."""

    def __init__(self, source: str, unit: str, wanted: Wanted, *, delimiter: str | None = None) -> None:
        self._source, self._unit, self._wanted = source, unit, wanted
        self._spelling = Spelling(delimiter=delimiter)
        self._batches: list[_Read] = []
        self._waiting: list[Batch] = []  # their dates or decimal commas may mean two things, as far as is known
        self._undecided: InvalidValueError | None = None

    def error(self, row: Any, message: str, hint: str | None = None) -> InvalidValueError:
        """Return an error that names the file and the row."""
        return InvalidValueError(f"{self._source}, {self._unit} {row}: {message}", hint=hint)

    def add(self, batch: Batch) -> None:
        """Read the cells of a batch. Raises InvalidValueError, which names the row."""
        if not len(batch.rows):
            return
        self._waiting.append(batch)
        try:
            read = [self._read(waiting) for waiting in (batch, *self._waiting[:-1])]
        except UndecidedError:
            return  # later rows may tell what these mean
        self._waiting.clear()
        self._batches += [*read[1:], read[0]]

    def _read(self, batch: Batch) -> _Read:
        try:
            candles, inexact, volumes = candle_columns(batch, self._spelling, no_volume=self._wanted.no_volume)
        except UndecidedError as error:
            self._undecided = self._undecided or self.error(batch.rows[error.index], error.message, error.hint)
            raise
        except BadCellError as error:
            raise self.error(batch.rows[error.index], error.message, error.hint) from None
        series = {
            kind: np.array([sys.intern(str(value).strip()) for value in batch.columns[position]], object)
            for kind, position in batch.layout.series
        }
        inexact = np.zeros(len(candles), bool) if inexact is None else inexact
        return _Read(batch.layout, candles, batch.rows, inexact, volumes, series)

    def part(self, container: str) -> Part:
        """Return the candles in order. ``container`` is the kind of file, such as CSV. Raises InvalidValueError if there are none."""
        if self._waiting and self._undecided is not None:
            raise self._undecided
        if not self._batches:
            raise InvalidValueError(f"{self._source} holds no candles")
        notes: list[str] = []
        try:
            read = _joined(self._batches)
            self._batches.clear()
            read = self._of_the_series(read, notes)
            if (note := choose_volume(read.layout, read.candles, read.volumes)) is not None:
                notes.append(note)
        except LayoutError as error:
            raise InvalidValueError(f"{self._source}: {error.message}", hint=error.hint) from None
        self._check_times(read)
        read = self._on_the_grid(read, notes)
        self._check_prices(read)
        candles, rows = self._in_order(read, notes)
        if self._spelling.units - {"milliseconds"}:
            notes.append(f"times in {' and '.join(sorted(self._spelling.units))}")
        if METATRADER in read.layout.form:
            notes.append("times without a zone are taken as UTC, but MetaTrader writes those of the broker")
        if self._wanted.no_volume:
            notes.append("volume 0, because of --no-volume")
        return Part(self._source, self._unit, f"{container}, {read.layout.form}", candles, rows, tuple(notes))

    def _of_the_series(self, read: _Read, notes: list[str]) -> _Read:
        """Return the candles of the wanted series. Raises InvalidValueError if the file has others, or does not tell which are meant."""
        keep = np.ones(len(read.rows), bool)
        expected = {"symbol": self._wanted.symbol, "interval": self._wanted.interval, "exchange": self._wanted.exchange}
        for kind, names in read.series.items():
            distinct, name = set(names.tolist()), expected[kind]
            alike = {value for value in distinct if name is not None and (same_name(value, name) if kind == "symbol" else value == name)}
            if alike:
                keep &= np.array([value in alike for value in names.tolist()], bool)
            elif len(distinct) > 1 or kind == "interval":
                raise InvalidValueError(
                    f"{self._source} holds candles of {kind} {shortened(sorted(distinct))}" + (f", not of {name}" if name else ""),
                    hint=f"choose with --{kind} ({kind}= of read_candle_files) which to read",
                )
            elif kind == "symbol" and name is not None:
                notes.append(f"its symbol is {shortened(list(distinct))}, stored as {name}")
        if not keep.any():
            listed = "; ".join(f"{kind} {shortened(sorted(set(names.tolist())))}" for kind, names in read.series.items())
            raise InvalidValueError(f"{self._source} holds no candles of the wanted series", hint=f"it holds {listed}")
        return read.where(keep)

    def _on_the_grid(self, read: _Read, notes: list[str]) -> _Read:
        """Return the candles on the grid of the interval; refuse, leave out or move back those that are off it."""
        stamps, interval = read.candles["timestamp"], self._wanted.interval
        past = grid_of(interval).past(stamps)
        off = (past != 0) | read.inexact
        if not off.any():
            return read
        count, first = int(off.sum()), int(np.flatnonzero(off)[0])
        if self._wanted.off_grid == "refuse":
            what = "is not a whole number of milliseconds" if read.inexact[first] else _off_grid(interval)
            many = f" ({count:,} of {len(off):,} candles are off the grid)" if count > 1 else ""
            raise self.error(
                read.rows[first],
                f"open_time {iso_time(int(stamps[first]))} {what}{many}",
                "--off-grid skip leaves such candles out, --off-grid snap moves them back to the grid (off_grid= of read_candle_files)",
            )
        if self._wanted.off_grid == "snap":
            read.candles["timestamp"] -= past
            notes.append(f"{count:,} off the {interval} grid, moved back to it")
            return read
        if 2 * count > len(off):
            raise InvalidValueError(
                f"{count:,} of {len(off):,} candles of {self._source} are off the {interval} grid, too many to leave them out",
                hint="is their interval another one? --interval (interval=) says which",
            )
        notes.append(f"{count:,} off the {interval} grid, left out")
        return read.where(~off)

    def _check_times(self, read: _Read) -> None:
        """Raise InvalidValueError for a time that no candle has; its unit may be another than it seems."""
        stamps = read.candles["timestamp"]
        latest = time.time_ns() // 1_000_000 + _AHEAD_MS
        bad = np.flatnonzero((stamps < 0) | (stamps > latest))
        if bad.size:
            when = "before 1970" if stamps[bad[0]] < 0 else "in the future"
            raise self.error(
                read.rows[bad[0]], f"open_time {iso_time(int(stamps[bad[0]]))} is {when}", "are its digits those of another unit?"
            )

    def _check_prices(self, read: _Read) -> None:
        bad = impossible_candles(read.candles)
        if not bad.size:
            return
        candle = read.candles[bad[0]]
        if candle["volume"] < 0:
            raise self.error(read.rows[bad[0]], f"volume is {candle['volume']}; it must not be negative")
        raise self.error(
            read.rows[bad[0]],
            f"impossible candle: {', '.join(f'{name} {candle[name]}' for name in PRICES[:4])}; "
            "open and close must be between low and high, and all prices above 0",
            f"the columns were read as {', '.join(read.layout.names)}; add a header if their order is another"
            if read.layout.form.endswith(WITHOUT_HEADER)
            else None,
        )

    def _in_order(self, read: _Read, notes: list[str]) -> tuple[CandleArray, npt.NDArray[np.int64]]:
        """Return the candles oldest first, each once. Raises InvalidValueError for two that differ, and for one in the wrong place."""
        candles, rows = read.candles, read.rows
        if len(candles) > 2 and (np.diff(candles["timestamp"]) <= 0).all():
            notes.append("newest first")
            candles, rows = candles[::-1].copy(), rows[::-1].copy()
        if (np.diff(candles["timestamp"]) > 0).all():
            return candles, rows
        order = np.argsort(candles["timestamp"], kind="stable")
        ordered = candles[order]
        repeats = np.flatnonzero(ordered["timestamp"][1:] == ordered["timestamp"][:-1]) + 1
        differing = repeats[ordered[repeats] != ordered[repeats - 1]]
        if differing.size:
            row = differing[0]
            raise self.error(
                rows[order[row]],
                f"open_time {iso_time(int(ordered['timestamp'][row]))} appears twice with different values (before: {self._unit} "
                f"{rows[order[row - 1]]})",
            )
        first_of_each = np.ones(len(candles), bool)
        first_of_each[order[repeats]] = False  # the sort is stable: the first of equal candles stays
        candles, rows = candles[first_of_each], rows[first_of_each]
        back = np.flatnonzero(np.diff(candles["timestamp"]) < 0)
        if back.size:
            after = int(back[0]) + 1
            raise self.error(
                rows[after],
                f"open_time {iso_time(int(candles['timestamp'][after]))} comes after {iso_time(int(candles['timestamp'][after - 1]))}; "
                "candles must be in ascending order",
                "sort the rows by time; months in files of their own may come in any order",
            )
        notes.append(f"{len(repeats):,} repeated with the same values, read once")
        return candles, rows


def _off_grid(interval: str) -> str:
    grid = grid_of(interval)
    return f"is not a multiple of the interval, {interval}" if grid.is_plain else f"is not on the {interval} grid: it must be {grid.rule}"


class _Read(NamedTuple):
    """The rows of a file whose cells have been read: candles, the row of each, and what later checks need of it."""

    layout: Layout
    candles: CandleArray
    rows: npt.NDArray[np.int64]
    inexact: npt.NDArray[np.bool_]
    volumes: list[npt.NDArray[np.float64]]
    series: dict[str, npt.NDArray[np.object_]]

    def where(self, keep: npt.NDArray[np.bool_]) -> _Read:
        """Return the rows that a mask keeps."""
        if keep.all():
            return self
        volumes = [volume[keep] for volume in self.volumes]
        series = {kind: names[keep] for kind, names in self.series.items()}
        return _Read(self.layout, self.candles[keep], self.rows[keep], self.inexact[keep], volumes, series)


def _joined(batches: list[_Read]) -> _Read:
    """Join the batches of a file. Headers in its middle may have changed the layout."""
    first = batches[0]
    layouts = dict.fromkeys(batch.layout for batch in batches)
    form = " and ".join(dict.fromkeys(layout.form for layout in layouts))
    candidates = min(len(batch.volumes) for batch in batches)
    if len({tuple(batch.series) for batch in batches}) > 1:
        raise LayoutError("only some of its headers have a symbol, an interval or an exchange", "split the file where the header changes")
    return _Read(
        first.layout._replace(form=form),
        np.concatenate([batch.candles for batch in batches]),
        np.concatenate([batch.rows for batch in batches]),
        np.concatenate([batch.inexact for batch in batches]),
        [np.concatenate([batch.volumes[position] for batch in batches]) for position in range(candidates)],
        {kind: np.concatenate([batch.series[kind] for batch in batches]) for kind in first.series},
    )
