"""``candles import``: a file of candles into the Candle contract."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import stats, wait_for_init
from ..candles import CandleArray
from ..runner import ImportReport, import_candles, read_klines
from .command import Link
from .output import counted, progress, say, time_text

__all__ = ["import_file", "read_file", "report_text", "store_candles"]

_SHOWN_GAPS = 5


def import_file(
    link: Link,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Binance kline file: CSV, plain or gzipped.", show_default=False)],
    symbol: Annotated[str, typer.Option(metavar="NAME", help="Whose candles they are, such as BTCUSDT.", show_default=False)],
    interval: Annotated[str, typer.Option(metavar="1m|5m|1h|...", help="How long one candle lasts.")] = "1m",
    exchange: Annotated[str, typer.Option(metavar="NAME", help="The exchange name under which strategies read them.")] = "binance",
) -> None:
    """Import candles from a Binance kline file (CSV, plain or .gz).

    The columns are open_time, open, high, low, close, volume, found by their names in a header or else by this order; more
    columns are ignored. The open time is ISO text (UTC if it names no zone) or milliseconds since 1970.

    A stored candle never changes: what is there already stays as it is, so an import can be repeated, and continued after it
    was interrupted. Candles that have not closed yet are left out, and holes in the file are named.

    Example:

        $ backtest-kit-mongo candles import BTCUSDT-1m.csv.gz --symbol BTCUSDT
    """
    candles = read_file(file, interval)
    link.connect()
    wait_for_init(link.timeout)
    report, new = store_candles(candles, symbol, interval, exchange)
    for line in report_text(report, new):
        say(line)


def read_file(file: str, interval: str) -> CandleArray:
    """The candles of a file, with a progress bar."""
    with progress("Reading the file", "bytes") as moved:
        return read_klines(file, interval=interval, progress=moved)


def store_candles(candles: CandleArray, symbol: str, interval: str, exchange: str) -> tuple[ImportReport, int]:
    """Import ``candles``, with a progress bar; the report, and how many were new."""
    before = stats()["candle"]["writes"]
    with progress("Importing candles", "candles") as moved:
        report = import_candles(candles, symbol, interval, exchange, progress=moved)
    return report, stats()["candle"]["writes"] - before


def report_text(report: ImportReport, new: int) -> list[str]:
    """What an import did, in lines."""
    known = report.candles - new
    series = f"{report.symbol} {report.interval} on {report.exchange_name}"
    window = f"{time_text(report.since_ms)} to {time_text(report.until_ms)} UTC"
    lines = [f"{counted(report.candles, 'candle')} of {series}, {window}: {new:,} new, {known:,} stored before"]
    if report.unclosed:
        lines.append(f"left out: {report.unclosed:,} at the end of the file that have not closed yet")
    lines += [f"hole: {gap}" for gap in report.gaps[:_SHOWN_GAPS]]
    if len(report.gaps) > _SHOWN_GAPS:
        lines.append(f"and {counted(len(report.gaps) - _SHOWN_GAPS, 'more hole')}")
    return lines
