"""``candles import``, ``list`` and ``remove``: what is in the Candle contract, and how it gets there."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from .. import stats, wait_for_init
from ..candles import CandleArray
from ..errors import InvalidValueError
from ..runner import ImportReport, import_candles, list_candles, read_klines, remove_candles
from ..runner.market.candle_series import count_candles
from .command import ServerOptions, parse_time
from .output import counted, errors, progress, say, table, time_text

__all__ = ["import_file", "read_file", "remove_series", "report_text", "show_series", "store_candles"]

_SHOWN_GAPS = 5


def import_file(
    link: ServerOptions,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Binance kline file: CSV, plain or gzipped.", show_default=False)],
    symbol: Annotated[str, typer.Option(metavar="NAME", help="Whose candles they are, such as BTCUSDT.", show_default=False)],
    interval: Annotated[str, typer.Option(metavar="1m|5m|1h|...", help="How long one candle lasts.")] = "1m",
    exchange: Annotated[str, typer.Option(metavar="NAME", help="The exchange name under which strategies read them.")] = "binance",
) -> None:
    """Import candles from a Binance kline file (CSV, plain or .gz).

    The columns are open_time, open, high, low, close, volume, found by their names in a header or else by this order; more
    columns are ignored. The open time is ISO text (UTC if it names no zone) or milliseconds since 1970.

    A stored candle never changes. Equal candles stay as they are, so you can repeat an import, and resume one that was interrupted.
    If one is stored with other values, nothing is imported, and the command shows the first differences. Candles that have not
    closed yet are left out, and holes in the file are named.

    Example:

        $ backtest-kit-mongo candles import BTCUSDT-1m.csv.gz --symbol BTCUSDT
    """
    candles = read_file(file, interval)
    link.connect()
    wait_for_init(link.timeout)
    report, new = store_candles(candles, symbol, interval, exchange)
    for line in report_text(report, new):
        say(line)


def show_series(
    link: ServerOptions,
    symbol: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this symbol.")] = None,
    interval: Annotated[str | None, typer.Option(metavar="1m|5m|...", show_default=False, help="Only candles of this length.")] = None,
    exchange: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this exchange name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the series as JSON, with every hole.")] = False,
) -> None:
    """List the stored candles: each series with its first and last candle, how many there are, and the holes between them.

    Times are UTC. The last column but one counts the holes, the last one the candles that they lack.

    Example:

        $ backtest-kit-mongo candles list --embedded
    """
    link.connect()
    wait_for_init(link.timeout)
    with errors.status("Reading time stamps"):
        found = list(list_candles(symbol=symbol, interval=interval, exchange_name=exchange))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    if not found:
        say("no candles are stored" + (" that match" if symbol or interval or exchange else ""))
        return
    rows = [
        (
            series.exchange_name,
            series.symbol,
            series.interval,
            time_text(series.since_ms),
            time_text(series.until_ms),
            f"{series.candles:,}",
            f"{len(series.gaps):,}",
            f"{series.missing:,}",
        )
        for series in found
    ]
    names = ("exchange", "symbol", "interval", "from (UTC)", "to (UTC)")
    table((*names, "candles", "holes", "missing"), rows, left=names)


def remove_series(
    link: ServerOptions,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Whose candles to remove, such as BTCUSDT.", show_default=False)],
    exchange: Annotated[str, typer.Option(metavar="NAME", help="The exchange name under which they are stored.", show_default=False)],
    interval: Annotated[str, typer.Option(metavar="1m|5m|...", help="How long one candle lasts.")] = "1m",
    since: Annotated[
        int | None, typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Only from here on; ISO text (UTC) or ms.")
    ] = None,
    until: Annotated[
        int | None, typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Only candles that open before this.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really remove them. Without it the command only counts them.")] = False,
) -> None:
    """Remove stored candles of one series, for example after an import of the wrong file.

    Without --yes nothing is removed: the command counts what would go. Results of earlier runs stay as they are, and so do answers of
    Measure.cached that were made from these candles. Stop programs that read these candles first, as they may keep them in memory.

    Example:

        $ backtest-kit-mongo candles remove BTCUSDT --exchange csv --yes
    """
    link.connect()
    wait_for_init(link.timeout)
    series = f"{symbol} {interval} on {exchange}"
    with errors.status("Counting candles"):
        count = count_candles(symbol, interval, exchange, since, until)
        known = [] if count else list(list_candles())
    if not count:
        there = ", ".join(f"{one.symbol} {one.interval} on {one.exchange_name}" for one in known[:_SHOWN_GAPS])
        raise InvalidValueError(
            f"no candles of {series} are stored" + (" in this window" if since is not None or until is not None else ""),
            hint=f"stored are {there}" if there else "no candles are stored at all",
        )
    if not yes:
        say(f"{counted(count, 'candle')} of {series} would be removed; --yes removes them")
        return
    with errors.status("Removing candles"):
        removed = remove_candles(symbol, interval, exchange, since, until)
    say(f"{counted(removed, 'candle')} of {series} removed")


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
