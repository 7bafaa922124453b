"""Candles in text with one row a line: CSV of exchanges, of pandas, MetaTrader, CryptoDataDownload, spreadsheets."""

from __future__ import annotations

import csv
import io
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import InvalidValueError
from ..layout import Layout, LayoutError, header_layout, is_header, plain_layout
from ..rows import Batch, CandleRows, Part, Wanted

__all__ = ["read_text"]

_BATCH: Final = 5_000
_COMMENTS: Final = ("#", "//", "http://", "https://", "sep=")
_DELIMITERS: Final = ("\t", ";", "|", ",")
_OF_YFINANCE: Final = ("Ticker", "Date", "Datetime")
_LONGEST_LINE: Final = 1 << 20
_DIGITS: Final = frozenset("0123456789")


def read_text(source: str, stream: IO[bytes], wanted: Wanted) -> Part:
    """Read a CSV file. Columns may be separated by commas, semicolons, tabs or bars; a header may come again in the middle."""
    magic = stream.read(4)
    stream.seek(0)
    # Spreadsheets and MetaTrader write UTF-16. The second byte of its first character is 0 in a file that begins with ASCII.
    encoding = "utf-16" if (magic[:2] == b"\xff\xfe" and magic[3:] == b"\0") or magic[:3] == b"\xfe\xff\0" else "utf-8-sig"
    text = io.TextIOWrapper(stream, encoding=encoding, newline="")
    try:
        return _read(source, text, wanted)
    finally:
        text.detach()


def _read(source: str, text: IO[str], wanted: Wanted) -> Part:
    comments, first = 0, ""
    by_download = False
    lines_of_text = _limited(source, text)
    for first in lines_of_text:
        if first.strip() and not _is_comment(first):
            break
        comments += 1
        by_download = by_download or "cryptodatadownload" in first.lower()
        first = ""
    delimiter = next((mark for mark in _DELIMITERS if mark in first), ",")
    reader = csv.reader(itertools.chain([first], lines_of_text), delimiter=delimiter, strict=True)
    rows = CandleRows(source, "line", wanted, delimiter=delimiter)
    expected: int | None = None
    try:
        for stretch in _stretches(reader):
            lines = stretch.lines + comments
            row: Sequence[str] = stretch.cells[0] if stretch.cells else ()
            try:
                layout = (
                    plain_layout(row)
                    if stretch.header is None
                    else header_layout(stretch.header, row, symbol=wanted.symbol, no_volume=wanted.no_volume)
                )
            except LayoutError as error:
                raise rows.error(stretch.first_line + comments, error.message, error.hint) from None
            if stretch.header is not None:
                expected = len(stretch.header)
            elif expected is None:
                expected = len(row)
            if not stretch.cells:
                continue
            _check_widths(rows, layout, stretch.cells, lines, expected)
            if by_download:
                layout = layout._replace(form="an export of CryptoDataDownload")
            rows.add(Batch(layout, list(zip(*stretch.cells, strict=False)), lines))
    except csv.Error as error:
        raise rows.error(reader.line_num + comments, str(error)) from error
    return rows.part("CSV")


def _limited(source: str, text: IO[str]) -> Iterator[str]:
    """Yield the lines of a file, and refuse one that no candle needs before it fills the memory."""
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InvalidValueError(f"{source} has a line of more than {_LONGEST_LINE:,} characters", hint="is it a file of candles?")
        yield line


def _is_comment(line: str) -> bool:
    return line.lstrip().lower().startswith(_COMMENTS)


def _check_widths(rows: CandleRows, layout: Layout, cells: list[list[str]], lines: npt.NDArray[np.int64], expected: int) -> None:
    """Raise InvalidValueError for a row with more or fewer cells than the others: joined lines, decimal commas, a file that was cut."""
    widths = set(map(len, cells))
    if widths == {expected}:
        return
    for line, row in zip(lines, cells, strict=True):
        if len(row) < layout.width:
            raise rows.error(line, f"column {layout.name_of(len(row))} is missing: the line has {len(row)} columns")
        if len(row) < expected or any(cell.strip() for cell in row[expected:]):
            raise rows.error(line, f"the line has {len(row)} columns, not {expected} as the lines before it")


class _Stretch(NamedTuple):
    """Some rows under one header."""

    header: Sequence[str] | None
    first_line: int
    lines: npt.NDArray[np.int64]
    cells: list[list[str]]


def _stretches(reader: Any) -> Iterator[_Stretch]:
    """Yield the rows of a csv reader. A header starts a stretch, at the top and in the middle, where files were joined."""
    header: Sequence[str] | None = None
    first_line, lines, cells = 1, array("q"), list[list[str]]()
    at_the_top = True
    for row in reader:
        if not row or not (row[0] or any(row)) or (len(row) == 1 and (not row[0].strip() or _is_comment(row[0]))):
            continue
        if row[0][:1] == "\ufeff":  # the mark at the beginning of a file that was joined
            row[0] = row[0][1:]
        if row[0] in _OF_YFINANCE and header is not None and not cells:
            header = ["date", *header[1:]]  # the first of its three header lines calls the column of times Price
            continue
        if row[0][:1] not in _DIGITS and is_header(row, first=at_the_top):
            if header is not None or cells:
                yield _Stretch(header, first_line, np.array(lines, np.int64), cells)
            header, first_line, lines, cells = row, reader.line_num, array("q"), []
        else:
            lines.append(reader.line_num)
            cells.append(row)
        at_the_top = False
        if len(cells) == _BATCH:
            yield _Stretch(header, first_line, np.array(lines, np.int64), cells)
            first_line, lines, cells = reader.line_num, array("q"), []
    if cells or header is not None:
        yield _Stretch(header, first_line if header is not None or not lines else lines[0], np.array(lines, np.int64), cells)
