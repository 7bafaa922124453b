"""``export``: write a domain of any store to a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.export import Selection, check_export, export_domain
from ..data.store_addresses import CONFIGURED, FORMS, open_store
from ..domains import DOMAINS
from .command import ServerOptions, parse_time
from .copy import domain_names, settings_for, steps
from .output import counted, progress, say

__all__ = ["export"]


def export(
    server_options: ServerOptions,
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Domain to export, such as candle or signal.", show_default=False)],
    file: Annotated[str, typer.Argument(metavar="OUT", help="File to write, .parquet or .csv.", show_default=False)],
    source: Annotated[str, typer.Option("--from", metavar="ADDRESS", help=f"Store to read: {FORMS}.")] = CONFIGURED,
    symbol: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only records of this symbol.")] = None,
    interval: Annotated[str | None, typer.Option(metavar="1m|5m|...", show_default=False, help="Only candles of this length.")] = None,
    exchange: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only records of this exchange.")] = None,
    since: Annotated[
        int | None,
        typer.Option(
            parser=parse_time, metavar="TIME", show_default=False, help="Only from this time on (open time of candles, `when` of others)."
        ),
    ] = None,
    until: Annotated[int | None, typer.Option(parser=parse_time, metavar="TIME", show_default=False, help="Only before this time.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Export a domain to a Parquet or CSV file.

    Candles have the columns exchangeName, symbol and interval (without those that an option selects), timestamp, open, high, low,
    close and volume. Other domains have their key fields, when (simulation time), removed, a column payload.NAME for each field
    that their payload declares (nested ones as JSON), and payload with everything else as JSON.

    Times are UTC: timestamps in Parquet, ISO text in CSV. TIME is ISO text (UTC if it has no time zone) or milliseconds since 1970.
    The file gets its name only when it is complete.

    Examples:

        $ backtest-kit-mongo export candle btc.parquet \\
            --symbol BTCUSDT --interval 1m --exchange binance

        $ backtest-kit-mongo export signal signals.csv --from file:./dump
    """
    (name,) = domain_names(domain)
    given = {"symbol": symbol, "interval": interval, "exchangeName": exchange}
    selection = Selection({field: value for field, value in given.items() if value is not None}, since, until)
    path = Path(file)
    check_export(DOMAINS[name], path, selection, force=force)
    config = settings_for(server_options, source)
    with open_store(source, config, existing=True, timeout=server_options.timeout) as opened, progress("Exporting", "records") as moved:
        step = steps(moved, opened.count([name]))
        rows = export_domain(opened.store, DOMAINS[name], path, selection, force=force, moved=step)
    say(f"{counted(rows, 'row')} of {name} from {opened.shown} written to {path}")
