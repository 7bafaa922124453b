"""Which column of a table of candles is what: by the names in its header, or by the conventions for rows without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .cells import is_clock, looks_like_time

__all__ = [
    "METATRADER", "VOLUME_AFTER_VWAP", "WITHOUT_HEADER", "Layout", "LayoutError", "header_layout", "is_header",
    "plain_layout", "shortened",
]  # fmt: skip

TIME_NAMES: Final = (
    "open_time", "opentime", "time_period_start", "timeopen", "time_open", "timestamp", "unix", "unix_timestamp", "time", "datetime",
    "date_time", "date", "gmt_time", "utc_time", "local_time", "ts", "t",
)  # fmt: skip
"""Names of the column of open times; the first of them in a header wins, so ``open_time`` beats a ``date`` that somebody added."""
_INDEX_NAMES: Final = ("", "unnamed:_0", "__index_level_0__", "index")
"""What pandas calls the column of an index without a name."""
_PRICES: Final = tuple((name, name[0], f"{name}_price", f"price_{name}") for name in ("open", "high", "low", "close"))
_VOLUMES: Final = (
    ("volume", "base_volume", "volume_base", "volume_traded"),
    ("real_volume", "vol", "v"),
    ("tickvol", "tick_volume"),
)
_SERIES: Final = {
    "symbol": ("symbol", "pair", "ticker", "instrument"),
    "interval": ("interval", "timeframe"),
    "exchange": ("exchangename",),
}
METATRADER: Final = "an export of MetaTrader"
WITHOUT_HEADER: Final = "without a header"
VOLUME_AFTER_VWAP: Final = "volume after vwap"
_SHOWN: Final = 200


class LayoutError(ValueError):
    """A table whose columns cannot be told apart: what is wrong, and a hint."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message: str = message
        self.hint: str | None = hint


class Layout(NamedTuple):
    """The positions of the columns of a candle."""

    form: str
    """What the table looks like, for reports."""
    time: tuple[int, ...]
    """The column of open times, or those of the date and of the time of day."""
    prices: tuple[int, ...]
    """The columns of open, high, low and close."""
    volumes: tuple[tuple[str, int], ...]
    """The columns that may hold the volume, with their names, the best first."""
    series: tuple[tuple[str, int], ...]
    """The columns ``symbol``, ``interval`` and ``exchange``, if the table has them."""
    names: tuple[str, ...]
    """The names of the first columns, for errors."""

    @property
    def width(self) -> int:
        """How many columns a row must have."""
        volumes = [position for _, position in self.volumes]
        return max((*self.time, *self.prices, *volumes, *(position for _, position in self.series))) + 1

    def name_of(self, position: int) -> str:
        """Return what a candle has in the column at ``position``, for errors."""
        columns = dict.fromkeys(self.time, "open_time") | dict(zip(self.prices, ("open", "high", "low", "close"), strict=True))
        columns |= {column: "volume" for _, column in self.volumes} | {column: kind for kind, column in self.series}
        return columns.get(position, next((columns[column] for column in sorted(columns) if column >= position), str(position)))


def shortened(names: Sequence[Any]) -> str:
    """Return a list of names for a hint, at most 200 characters of it."""
    text = ", ".join(map(str, names))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _normal(name: Any) -> str:
    return str(name).strip().lstrip("\ufeff").lower().strip("<>").replace(" ", "_")


def is_header(cells: Sequence[str], *, first: bool) -> bool:
    """Return whether a row of text holds the names of columns. Only the ``first`` row of a file may hold names that nobody knows."""
    price_columns = sum(_normal(cell) in names for names in _PRICES for cell in cells)
    if price_columns >= 2:
        return True
    return first and bool(cells[0].strip()) and not looks_like_time(cells[0])


def header_layout(
    names: Sequence[Any], row: Sequence[Any], index: int | None = None, *, symbol: str | None = None, no_volume: bool = False
) -> Layout:
    """Return the layout of a table with a header.

    ``row`` is its first row, ``index`` the position of the index of a DataFrame, and ``symbol`` the wanted one: it tells the volume of
    the base asset from others. With ``no_volume``, no column of volume is looked for. Raises LayoutError if a column is missing, appears
    twice, or is one of several that could be meant.
    """
    normal = [_normal(name) for name in names]
    time, form = _time_columns(normal, row, index)
    prices = tuple(_position(normal, aliases, aliases[0]) for aliases in _PRICES)
    series = {kind: position for kind, aliases in _SERIES.items() if (position := _find(normal, aliases)) is not None}
    if symbol is None and "symbol" in series and len(row) > series["symbol"]:
        symbol = str(row[series["symbol"]])
    if "exchangename" in normal:
        form = "an export of backtest-kit-mongo"
    elif "close_time" in normal and "open_time" in normal:
        form = "Binance klines"
    elif any(str(name).startswith("<") for name in names):
        form = METATRADER
    volumes = () if no_volume else _volume_columns(normal, names, symbol)
    return Layout(form, time, prices, volumes, tuple(series.items()), tuple(map(str, names)))


def plain_layout(row: Sequence[Any]) -> Layout:
    """Return the layout of rows without a header, of which ``row`` is the first. Raises LayoutError if it is too short."""
    dated = len(row) > 1 and is_clock(row[1])
    time = (0, 1) if dated else (0,)
    names = ("date", "time", "open", "high", "low", "close", "volume") if dated else ("open_time", "open", "high", "low", "close", "volume")
    if len(row) < len(names) - 1:
        raise LayoutError(
            f"column {names[len(row)]} is missing: the line has {len(row)} columns",
            "separate the columns by commas, semicolons or tabs" if len(row) == 1 else None,
        )
    form = METATRADER if dated else "Binance klines" if len(row) == 12 else f"{len(row)} columns {WITHOUT_HEADER}"
    after = time[-1] + 1
    volumes = [("volume", after + 4)] if len(row) > after + 4 else []
    if len(row) == 8 and not dated:  # Kraken's REST API: time, open, high, low, close, vwap, volume, count
        volumes = [("volume", 5), (VOLUME_AFTER_VWAP, 6)]
    return Layout(form, time, tuple(range(after, after + 4)), tuple(volumes), (), names)


def _find(names: Sequence[str], aliases: Sequence[str]) -> int | None:
    for alias in aliases:
        if names.count(alias) > 1:
            raise LayoutError(f"column {alias} appears {names.count(alias)} times")
        if alias in names:
            return names.index(alias)
    return None


def _position(names: Sequence[str], aliases: Sequence[str], called: str) -> int:
    position = _find(names, aliases)
    if position is None:
        raise LayoutError(f"column {called} is missing", f"the header has {shortened(names)}")
    return position


def _time_columns(names: Sequence[str], row: Sequence[Any], index: int | None) -> tuple[tuple[int, ...], str]:
    time = _find(names, TIME_NAMES)
    if time is not None and "date" in names and "time" in names and names[time] in ("date", "time"):
        date, clock = names.index("date"), names.index("time")
        if len(row) > clock and is_clock(row[clock]):
            return (date, clock), "a header with date and time"
    unnamed = 0 if names and names[0] in _INDEX_NAMES else _find(names, _INDEX_NAMES[2:3])
    if time is not None:
        return (time,), "a header" if unnamed is None else "a header by pandas, with row numbers"
    if index is not None:
        if "close" in names[index]:
            raise LayoutError(f"the index {shortened([names[index]])} holds close times", "candles are stored by their open time")
        return (index,), "an index of times"
    if unnamed is not None:
        return (unnamed,), "a header by pandas, times in the index"
    raise LayoutError("column open_time is missing", f"the header has {shortened(names)}")


def _volume_columns(names: Sequence[str], originals: Sequence[Any], symbol: str | None) -> tuple[tuple[str, int], ...]:
    positions = [position for aliases in _VOLUMES if (position := _find(names, aliases)) is not None]
    if positions and names[positions[0]] in _VOLUMES[0]:
        del positions[1:]
    elif positions and names[positions[0]] in ("vol", "v"):
        others = [name for name in names if name == "amount" or (name.startswith("vol") and name != "vol")]
        if others:  # HTX calls the volume of the quote asset vol, OKX that in contracts
            raise _ambiguous([originals[positions[0]], *others])
    if not positions:
        # "Volume BTC" and "Volume USDT": the symbol tells which is the base asset.
        named = [position for position, name in enumerate(names) if name.startswith(("volume_", "volume("))]
        pair = "" if symbol is None else "".join(letter for letter in symbol.lower() if letter.isalnum())
        of_base = [position for position in named if pair.startswith(asset := _asset(names[position])) and pair != asset]
        if named and (not pair or len(of_base) > 1):
            raise _ambiguous([originals[position] for position in named])
        positions = of_base
    return tuple((str(originals[position]), position) for position in positions)


def _asset(name: str) -> str:
    return name.removeprefix("volume").strip("_()")


def _ambiguous(columns: Sequence[Any]) -> LayoutError:
    return LayoutError(
        f"the volume may be that of the base or of the quote asset: {shortened(columns)}",
        "rename the column of the base asset to volume, or pass the symbol (--symbol), whose beginning tells it",
    )
