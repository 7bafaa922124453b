"""Candle files as they come: CSV, JSON, Parquet and Feather in many forms, compressed, in archives and in folders."""

from ..rows import Part, Wanted
from .names import series_of
from .opening import read_parts
from .reading import CandleFiles, join_parts, read_candle_files, read_klines

__all__ = ["CandleFiles", "Part", "Wanted", "join_parts", "read_candle_files", "read_klines", "read_parts", "series_of"]
