"""What the name of a candle file says: its symbol and interval."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..intervals import INTERVAL_MS

__all__ = ["SUFFIX_HINT", "has_candle_suffix", "series_of"]

_SUFFIX: Final = r"(?i:\.(?:csv|txt|tsv|json|jsonl|parquet|feather|arrow)(?:\.(?:gz|bz2|xz|zip))?|\.zip)"
_NAME: Final = re.compile(rf"(.+?)-({'|'.join(INTERVAL_MS)})(?:-.*)?{_SUFFIX}")
"""``BTCUSDT-1m.csv.gz``, also ``BTCUSDT-1m-2023-03.zip`` as Binance publishes them, and ``BTC_USDT-5m.feather`` of freqtrade."""

_TICKER: Final = re.compile(rf"(?=[A-Z0-9]*[A-Z])([A-Z0-9]{{5,20}}){_SUFFIX}")
"""``BTCUSDT.csv.gz``: only capitals and digits."""

SUFFIX_HINT: Final = "their names end in .csv, .json, .parquet, .feather or .zip"

_ANY: Final = re.compile(rf".+{_SUFFIX}")


def series_of(file: Path) -> tuple[str, str | None] | None:
    """Return the symbol and interval in a file's name; (symbol, None) if it has only a symbol, None if it has neither."""
    if (match := _NAME.fullmatch(file.name)) is not None:
        return match.group(1), match.group(2)
    return (match.group(1), None) if (match := _TICKER.fullmatch(file.name)) is not None else None


def has_candle_suffix(name: str) -> bool:
    """Return whether a name ends as those of candle files do, such as .csv.gz and .parquet."""
    return not name.startswith(".") and _ANY.fullmatch(name) is not None
