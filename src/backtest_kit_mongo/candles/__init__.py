"""Candles in columns: intervals, the checks that candles must pass before they are stored, and tables of other libraries."""

from .columns import CANDLE_DTYPE, PRICES, CandleArray, check_columns, closed_candles, impossible_candles, matches, to_dicts
from .conversion import as_columns, to_columns
from .intervals import GRIDS, INTERVAL_MS, CandleInterval, Grid, OffGrid, PlainInterval, align, check_off_grid, grid_of, interval_ms
from .joining import join_candles, join_whole
from .tables import library, to_arrow, to_pandas, to_polars

__all__ = [
    "CANDLE_DTYPE",
    "GRIDS",
    "INTERVAL_MS",
    "PRICES",
    "CandleArray",
    "CandleInterval",
    "Grid",
    "OffGrid",
    "PlainInterval",
    "align",
    "as_columns",
    "check_columns",
    "check_off_grid",
    "closed_candles",
    "grid_of",
    "impossible_candles",
    "interval_ms",
    "join_candles",
    "join_whole",
    "library",
    "matches",
    "to_arrow",
    "to_columns",
    "to_dicts",
    "to_pandas",
    "to_polars",
]  # fmt: skip
