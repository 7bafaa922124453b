"""What the names of candle files say: symbol and interval, and which files of a folder or an archive are one series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final, NamedTuple

from ...errors import InvalidValueError
from ..layout import shortened
from ..rows import plain_name, same_name

__all__ = ["CHOOSE", "Choice", "choose_files", "has_candle_suffix", "series_of"]

_SUFFIX: Final = r"(?i:\.(?:csv|txt|tsv|json|jsonl|parquet|feather|arrow)(?:\.(?:gz|bz2|xz|zip))?|\.zip)"
_NAME: Final = re.compile(rf"(.+?)-(\d+(?:mo|[smhdwMy]))(?:-(.*?))?{_SUFFIX}")
"""``BTCUSDT-1m.csv.gz``, also ``BTCUSDT-1m-2023-03.zip`` as Binance publishes them, and ``BTC_USDT-5m.feather`` of freqtrade."""

_TICKER: Final = re.compile(rf"(?=[A-Z0-9]*[A-Z])([A-Z0-9]{{5,20}}){_SUFFIX}")
"""``BTCUSDT.csv.gz``: only capitals and digits."""

_ANY: Final = re.compile(rf"(.+?){_SUFFIX}")
_TEXT: Final = re.compile(r"(?i:.+\.(?:txt|json))")
"""Suffixes that other files have as well: a folder of CSV files may have a readme.txt and a config.json."""

CHOOSE: Final = "choose one with --{0} ({0}= of read_candle_files)"
_BINANCE: Final = {"1mo": "1M"}
"""How Binance spells months in the names of its files, because file systems may ignore case."""


def series_of(file: PurePath) -> tuple[str, str | None] | None:
    """Return the symbol and interval in a file's name; (symbol, None) if it has only a symbol, None if it has neither.

    The interval may be one that cannot be stored.
    """
    if (match := _NAME.fullmatch(file.name)) is not None:
        interval = match.group(2)
        return match.group(1), _BINANCE.get(interval, interval)
    return (match.group(1), None) if (match := _TICKER.fullmatch(file.name)) is not None else None


def has_candle_suffix(name: str) -> bool:
    """Return whether a name ends as those of candle files do, such as .csv.gz and .parquet."""
    return not name.startswith(".") and _ANY.fullmatch(name) is not None


class Choice(NamedTuple):
    """The names of one series in a folder or an archive, and how many others there are."""

    names: list[str]
    others: int


def choose_files(place: str, names: Sequence[str], symbol: str | None, interval: str | None) -> Choice:
    """Return which of the files ``names`` in ``place`` hold the candles of one series.

    Names that tell another symbol or interval are left out, and, beside names that tell them, those that tell nothing. Raises
    InvalidValueError if there are several series, or files that may be of several.
    """
    candidates = [name for name in names if has_candle_suffix(PurePath(name).name)]
    data = [name for name in candidates if not _TEXT.fullmatch(name)] or candidates
    if not data:
        raise InvalidValueError(
            f"{place} holds no candle files",
            hint="their names end in .csv, .json, .parquet, .feather or .zip" + (f"; it has {shortened(names)}" if names else ""),
        )
    series = {name: found for name in data if (found := series_of(PurePath(name))) is not None}
    chosen = list(series) or data
    if symbol is not None and series:
        chosen = [name for name in chosen if same_name(series[name][0], symbol)]
    elif symbol is not None:
        # BTC-USD.csv, Binance_BTCUSDT_2023_minute.csv
        chosen = [name for name in data if plain_name(symbol) in plain_name(PurePath(name).name)] or data
    if interval is not None:
        chosen = [name for name in chosen if name not in series or series[name][1] in (None, interval)]
    if not chosen:
        raise InvalidValueError(
            f"{place} holds no candles of {' '.join(filter(None, (symbol, interval)))}", hint=f"it has {shortened(sorted(data))}"
        )
    symbols = {plain_name(series[name][0]): series[name][0] for name in chosen if name in series}
    intervals = {series[name][1] for name in chosen if name in series} - {None}
    if len(symbols) > 1:
        raise InvalidValueError(f"{place} holds several symbols: {shortened(sorted(symbols.values()))}", hint=CHOOSE.format("symbol"))
    if len(intervals) > 1:
        raise InvalidValueError(
            f"{place} holds several intervals: {shortened(sorted(map(str, intervals)))}", hint=CHOOSE.format("interval")
        )
    kinds = {_words(name) for name in chosen}
    if len(kinds) > 1:
        raise InvalidValueError(
            f"{place} holds files that may be of several series: {shortened(sorted(PurePath(name).name for name in chosen))}",
            hint="pass those of one series by their names",
        )
    return Choice(sorted(chosen), len(data) - len(chosen))


def _words(name: str) -> tuple[str, ...]:
    """Return the words in a file's name that are no dates or numbers: equal in the parts of a series, as in ``BTC-USD-2023-01.csv``."""
    match = _NAME.fullmatch(PurePath(name).name)
    if match is not None:
        text = match.group(3) or ""
    else:
        match = _ANY.fullmatch(PurePath(name).name)
        text = match.group(1) if match is not None else name
    return tuple(word.lower() for word in re.findall(r"[^\W\d_]+", text) if len(word) > 2)
