"""``candles import``, ``refresh``, ``list`` and ``remove``: the candles in the Candle contract."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import typer

from .. import wait_for_init
from ..candles import CandleArray, CandleInterval, grid_of
from ..errors import DamagedCandlesError, InvalidValueError
from ..runner import (
    CandleFiles,
    ImportReport,
    import_candles,
    list_candles,
    list_exchanges,
    read_candle_files,
    refresh_candles,
    remove_candles,
)
from ..runner.market.candle_differences import difference_lines
from ..runner.market.candle_series import count_candles
from .command import ServerOptions, parse_time
from .output import counted, errors, progress, say, say_note, table, time_text

__all__ = ["FileOptions", "import_file", "refresh_series", "remove_series", "report_text", "show_files", "show_series", "store_candles"]

_SHOWN_GAPS = 5
_SHOWN_FILES = 5


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options for reading candle files."""

    off_grid: Annotated[
        Literal["refuse", "skip", "snap"],
        typer.Option(
            help="What to do with candles that do not open on the grid of their interval: refuse the file, skip them, or snap them back "
            "to the grid.",
            rich_help_panel="Candle files",
        ),
    ] = "refuse"
    no_volume: Annotated[
        bool, typer.Option("--no-volume", help="Store volume 0, for files without a volume.", rich_help_panel="Candle files")
    ] = False

    def read(self, paths: Sequence[str], *, symbol: str | None, interval: CandleInterval | None, exchange: str | None) -> CandleFiles:
        """Read candle files and show a progress bar."""
        with progress("Reading", "bytes") as moved:
            return read_candle_files(
                paths,
                symbol=symbol,
                interval=interval,
                exchange=exchange,
                off_grid=self.off_grid,
                no_volume=self.no_volume,
                progress=moved,
            )


def import_file(
    server_options: ServerOptions,
    file_options: FileOptions,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Candle files, or folders of them.", show_default=False)],
    symbol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Symbol of the candles, such as BTCUSDT. Default: from the file's name.", show_default=False),
    ] = None,
    interval: Annotated[
        CandleInterval | None,
        typer.Option(metavar="1m|5m|1h|...", help="Length of a candle.", show_default="from the file's name, or else 1m"),
    ] = None,
    exchange: Annotated[str, typer.Option(metavar="NAME", help="Exchange name under which strategies read the candles.")] = "binance",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace stored candles that have other values. Without --yes the command only shows them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do what --replace shows.")] = False,
) -> None:
    """Import candles from files.

    A file is CSV, JSON, Parquet or Feather, plain, compressed or in a .zip; several files, or the files of a folder, are joined. Files
    of Binance, Kraken, CryptoDataDownload, MetaTrader, freqtrade, pandas and of `export` are read as they are. Other files need a header
    with an open time, open, high, low, close and volume, or these columns in this order. Times are ISO text (UTC if it has no time
    zone), or numbers since 1970, whose size tells their unit.

    A stored candle never changes by itself. Equal candles stay as they are, so you can repeat an import, and resume one that was
    interrupted. If a candle is already stored with other values, nothing is imported, and the command shows the first differences.
    Candles that have not closed yet are left out, and gaps are reported.

    With --replace, stored candles with other values are counted and shown, and nothing is written. With --replace --yes they are
    replaced, and new ones are added. Nothing else of the series is touched. Other programs may use the old values that they have in
    memory for another minute, and runs that have begun until they end. Results of earlier runs stay as they are, and so do answers of
    Measure.cached that were computed from the old values.

    Examples:

        $ backtest-kit-mongo candles import BTCUSDT-1m.csv.gz

        $ backtest-kit-mongo candles import months/ --symbol BTCUSDT

        $ backtest-kit-mongo candles import BTCUSDT-1m.csv.gz --replace --yes
    """
    if yes and not replace:
        raise typer.BadParameter("belongs to --replace", param_hint="--yes")
    read = file_options.read(files, symbol=symbol, interval=interval, exchange=exchange)
    if read.symbol is None:
        raise InvalidValueError("the symbol of the candles is unknown", hint="pass --symbol NAME, or name the file like BTCUSDT-1m.csv.gz")
    server_options.connect()
    wait_for_init(server_options.timeout)
    show_files(read)
    report = store_candles(read.candles, read.symbol, read.interval, exchange, replace=replace, dry_run=replace and not yes)
    if replace:
        _show_changes(report, yes)
        return
    for line in report_text(report):
        say(line)


def refresh_series(
    server_options: ServerOptions,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Symbol of the candles, such as BTCUSDT.", show_default=False)],
    exchange: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Exchange that is asked, any that ccxt knows, and name of the stored candles.", show_default=False
        ),
    ],
    since: Annotated[
        int, typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Candles from this time on; ISO text (UTC) or ms.")
    ],
    interval: Annotated[CandleInterval, typer.Option(metavar="1m|5m|...", help="Length of a candle.")] = "1m",
    until: Annotated[
        int | None, typer.Option(parser=parse_time, metavar="TIME", show_default="now", help="Candles that open before this time.")
    ] = None,
    exchange_url: Annotated[
        str | None, typer.Option(metavar="URL", show_default=False, help="Address of the exchange's REST API, if not the usual one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write. Without --yes the command only shows what differs.")] = False,
) -> None:
    """Ask an exchange again for a window of candles: some exchanges revise a candle after its close.

    Stored candles that differ are counted and shown. With --yes they are replaced, and missing ones are added; candles that the exchange
    no longer has stay. What other programs see is as with `import --replace`. An exchange of your own is asked by refresh_candles in
    Python.

    Example:

        $ backtest-kit-mongo candles refresh BTCUSDT --exchange binance --since 2023-03-01 --until 2023-03-02
    """
    until = grid_of(interval).align(time.time_ns() // 1_000_000) if until is None else until
    server_options.connect()
    wait_for_init(server_options.timeout)
    if exchange not in (registered.name for registered in list_exchanges()):
        from ..runner.market.ccxt_exchange import add_ccxt_exchange

        add_ccxt_exchange(exchange, exchange_id=exchange, url=exchange_url)
    with progress(f"Asking {exchange}", "candles") as moved:
        report = refresh_candles(symbol, interval, exchange, since, until, dry_run=not yes, progress=moved)
    _show_changes(report, yes)


def _show_changes(report: ImportReport, yes: bool) -> None:
    """Print what differs and, unless it was done, what would be done."""
    for line in difference_lines(report.conflicts, report.replaced):
        say(line)
    for line in report_text(report):
        say(line)
    if not yes and report.new + report.replaced:
        say(f"nothing was written: --yes replaces {counted(report.replaced, 'candle')} and adds {report.new:,}")


def show_series(
    server_options: ServerOptions,
    symbol: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this symbol.")] = None,
    interval: Annotated[
        CandleInterval | None, typer.Option(metavar="1m|5m|...", show_default=False, help="Only candles of this length.")
    ] = None,
    exchange: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this exchange name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the series as JSON, with every gap.")] = False,
) -> None:
    """List the stored candles: each series with its first and last candle, their number, and the gaps between them.

    Times are UTC. The column gaps counts the gaps; the column missing counts the candles that are missing in them.

    Example:

        $ backtest-kit-mongo candles list --embedded
    """
    server_options.connect()
    wait_for_init(server_options.timeout)
    with errors.status("Reading timestamps"):
        stored = list(list_candles(symbol=symbol, interval=interval, exchange_name=exchange))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(stored), indent=2).decode())
        return
    if not stored:
        say("no candles are stored" + (" that match the options" if symbol or interval or exchange else ""))
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
        for series in stored
    ]
    names = ("exchange", "symbol", "interval", "from (UTC)", "to (UTC)")
    table((*names, "candles", "gaps", "missing"), rows, left=names)


def remove_series(
    server_options: ServerOptions,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Symbol of the candles to remove, such as BTCUSDT.", show_default=False)],
    exchange: Annotated[str, typer.Option(metavar="NAME", help="Exchange name under which they are stored.", show_default=False)],
    interval: Annotated[CandleInterval, typer.Option(metavar="1m|5m|...", help="Length of a candle.")] = "1m",
    since: Annotated[
        int | None,
        typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Only candles from this time on; ISO text (UTC) or ms."),
    ] = None,
    until: Annotated[
        int | None, typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Only candles that open before this time.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove the candles. Without --yes the command only counts them.")] = False,
) -> None:
    """Remove stored candles of one series, for example after you imported the wrong file.

    Without --yes nothing is removed: the command only counts the candles. Results of earlier runs stay as they are, and so do
    answers of Measure.cached that were computed from these candles. Other programs may use what they have in memory for another
    minute, and runs that have begun until they end.

    Example:

        $ backtest-kit-mongo candles remove BTCUSDT --exchange csv --yes
    """
    server_options.connect()
    wait_for_init(server_options.timeout)
    series = f"{symbol} {interval} on {exchange}"
    try:
        with errors.status("Counting candles"):
            count = count_candles(symbol, interval, exchange, since, until)
            stored = [] if count else list(list_candles())
    except DamagedCandlesError as error:
        say(f"{str(error).partition(chr(10))[0]}\nThe candles of a damaged block cannot be counted, and only all of them can be removed.")
        _remove(symbol, interval, exchange, since, until, "the candles", yes)
        return
    if not count:
        listed = ", ".join(f"{other.symbol} {other.interval} on {other.exchange_name}" for other in stored[:_SHOWN_GAPS])
        raise InvalidValueError(
            f"no candles of {series} are stored" + (" in this window" if since is not None or until is not None else ""),
            hint=f"stored series: {listed}" if listed else "no candles are stored at all",
        )
    _remove(symbol, interval, exchange, since, until, counted(count, "candle"), yes)


def _remove(symbol: str, interval: CandleInterval, exchange: str, since: int | None, until: int | None, what: str, yes: bool) -> None:
    series = f"{symbol} {interval} on {exchange}"
    if not yes:
        say(f"{what} of {series} would be removed; --yes removes them")
        return
    with errors.status("Removing candles"):
        removed = remove_candles(symbol, interval, exchange, since, until)
    say(f"{counted(removed, 'candle')} of {series} removed")


def show_files(read: CandleFiles) -> None:
    """Print what each file was recognised as, and what a user should know of its candles."""
    for name, form in read.files[:_SHOWN_FILES]:
        say(f"read: {name} ({form})")
    if len(read.files) > _SHOWN_FILES:
        say(f"and {counted(len(read.files) - _SHOWN_FILES, 'more file')}")
    for note in read.notes[:_SHOWN_FILES]:
        say_note(note)
    if len(read.notes) > _SHOWN_FILES:
        say_note(f"and {counted(len(read.notes) - _SHOWN_FILES, 'more note')}")


def store_candles(
    candles: CandleArray, symbol: str, interval: CandleInterval, exchange: str, *, replace: bool = False, dry_run: bool = False
) -> ImportReport:
    """Import ``candles`` and show a progress bar."""
    with progress("Importing candles", "candles") as moved:
        return import_candles(candles, symbol, interval, exchange, progress=moved, replace=replace, dry_run=dry_run)


def report_text(report: ImportReport) -> list[str]:
    """Return lines of text that say what an import did."""
    stored = report.candles - report.new - report.replaced
    series = f"{report.symbol} {report.interval} on {report.exchange_name}"
    window = f"{time_text(report.since_ms)} to {time_text(report.until_ms)} UTC"
    lines = [f"{counted(report.candles, 'candle')} of {series}, {window}: {report.new:,} new, {stored:,} stored before"]
    if report.replaced:
        lines[0] += f", {report.replaced:,} stored with other values"
    if report.unclosed:
        lines.append(f"left out: {report.unclosed:,} at the end of the file, which have not closed yet")
    lines += [f"gap: {gap}" for gap in report.gaps[:_SHOWN_GAPS]]
    if len(report.gaps) > _SHOWN_GAPS:
        lines.append(f"and {counted(len(report.gaps) - _SHOWN_GAPS, 'more gap')}")
    return lines
