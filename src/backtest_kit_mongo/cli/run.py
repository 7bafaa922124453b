"""``run``: a strategy file over candles, with a report at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import Report, profile, wait_for_init
from ..config import Config
from ..errors import InvalidValueError
from ..registry import default_registry
from ..runner import BacktestResult, OpenTrade, Totals, Trade, imported_spans, load_strategy_file, run_backtest, synthetic_market
from ..runner.strategy import find_strategy
from .cache import drop_ids
from .candles import read_file, report_text, store_candles
from .command import Link
from .output import counted, errors, facts, heading, output, places, progress, say, table, time_text
from .records import recording, save_last_run

__all__ = ["run"]

_MARKET, _COSTS = "Candles", "Execution"
_SYNTHETIC_START_MS = 1_677_628_800_000  # 2023-03-01T00:00Z
_MINUTES_PER_DAY = 1440


def run(
    link: Link,
    strategy_file: Annotated[
        str, typer.Argument(metavar="STRATEGY.py", help="Python file that registers strategies with add_strategy.", show_default=False)
    ],
    backtest: Annotated[bool, typer.Option("--backtest", help="Replay stored candles; the only mode there is so far.")] = False,
    entry: Annotated[bool, typer.Option("--entry", help="Really run. Without it the command only says what it would do.")] = False,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Which strategy of the file; needed if it registers more than one."),
    ] = None,
    symbol: Annotated[str, typer.Option(metavar="NAME", help="What is traded.", rich_help_panel=_MARKET)] = "BTCUSDT",
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Binance kline file of 1m candles (CSV, plain or .gz) to import first and to replay. Default: replay what was "
            "imported before.",
            rich_help_panel=_MARKET,
        ),
    ] = None,
    exchange: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Exchange name of the candles. Default: binance.", rich_help_panel=_MARKET),
    ] = None,
    synthetic_days: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS",
            show_default=False,
            min=1,
            max=3650,
            help="Replay this many days of made-up 1m candles instead. They are stored under an exchange name of their own, "
            "apart from real ones.",
            rich_help_panel=_MARKET,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of the made-up candles.", rich_help_panel=_MARKET)
    ] = 42,
    fee: Annotated[float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Fee, percent per side.", rich_help_panel=_COSTS)] = 0.1,
    slippage: Annotated[
        float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Slippage, percent per side.", rich_help_panel=_COSTS)
    ] = 0.1,
    trades: Annotated[int, typer.Option(metavar="N", min=0, help="How many trades to print, the last ones; the totals count all.")] = 20,
) -> None:
    r"""Run a strategy of a Python file over candles, minute by minute, and keep every step in MongoDB.

    The command imports the candles, waits until both servers answer, drops the ids cached in Redis (only those of this library),
    and replays the candles. At the end it prints trades, totals, and what was read and written for each domain.

    Unless CC_DURABILITY is set, a backtest uses memory: faster, and a crash of the MongoDB server may lose its last 100 ms.

    Examples, the first on made-up candles and without any server of your own:

        $ backtest-kit-mongo run examples/sma_cross.py --backtest --entry \
            --embedded --synthetic-days 7

        $ backtest-kit-mongo run examples/sma_cross.py --backtest --entry \
            --csv BTCUSDT-1m.csv.gz
    """
    if not backtest:
        raise typer.BadParameter("no mode was chosen, and so far there is only one: backtests. Add --backtest.", param_hint="--backtest")
    if synthetic_days is not None and (csv is not None or exchange is not None):
        raise typer.BadParameter("made-up candles need neither --csv nor --exchange", param_hint="--synthetic-days")
    for file in (strategy_file, *(() if csv is None else (csv,))):
        if not Path(file).is_file():
            raise InvalidValueError(f"the file {file} does not exist" if not Path(file).exists() else f"{file} is not a file")
    # Made-up candles of other seeds and lengths differ, and a stored candle never changes: each market has its own name.
    exchange = exchange or ("binance" if synthetic_days is None else f"synthetic-{seed}-{synthetic_days}d")
    durability = {} if os.environ.get("CC_DURABILITY") else {"CC_DURABILITY": "memory"}
    config = link.config(**durability)
    market = _market_text(csv, synthetic_days, seed, symbol, exchange)
    if not entry:
        _announce(config, strategy_file, strategy, market)
        return

    load_strategy_file(strategy_file)
    chosen = find_strategy(strategy)
    candles = None if csv is None else read_file(csv, "1m")
    if synthetic_days is not None:
        candles = synthetic_market(seed, synthetic_days * _MINUTES_PER_DAY, _SYNTHETIC_START_MS)

    facts_of_run = {"strategy": chosen.name, "symbol": symbol, "exchange": exchange}
    with profile() as report, recording(facts_of_run, report) as moved:
        link.connect(**durability)
        with errors.status("Waiting for MongoDB and Redis"):
            wait_for_init(link.timeout)
        imported: list[str] = []
        start = end = None
        if candles is not None:
            stored, new = store_candles(candles, symbol, "1m", exchange)
            imported = report_text(stored, new)
            start, end = stored.since_ms, stored.until_ms
        else:
            _check_imported(symbol, exchange)
        dropped = drop_ids()
        effective = default_registry.mongo.config
        rows = {
            "strategy": f"{chosen.name} of {strategy_file}, asked every {chosen.interval}",
            "candles": "\n".join([market, *imported]),
            **places(effective),
            "durability": effective.CC_DURABILITY + (" (CC_DURABILITY is not set)" if durability else ""),
            "id cache": f"{counted(dropped, 'id')} dropped from Redis",
        }
        facts(rows)
        with progress("Replaying", "minutes") as drawn:

            def replayed(done: int, total: int) -> None:
                drawn(done, total)
                moved(done, total)

            result = run_backtest(
                symbol,
                chosen.name,
                exchange_name=exchange,
                fee_percent=fee,
                slippage_percent=slippage,
                start_ms=start,
                end_ms=end,
                progress=replayed,
            )
    _show(result, report, trades, fee, slippage)
    save_last_run(
        {
            **facts_of_run,
            "startTimestamp": result.start_ms,
            "endTimestamp": result.end_ms,
            "minutes": result.minutes,
            "trades": result.totals.trades,
            "wallSeconds": round(result.wall_seconds, 3),
        },
        report,
    )


def _market_text(csv: str | None, synthetic_days: int | None, seed: int, symbol: str, exchange: str) -> str:
    if synthetic_days is not None:
        return f"made up: {synthetic_days} days of a random walk with seed {seed}; they say nothing about a strategy"
    return f"{symbol} 1m on {exchange}, " + (f"from {csv}" if csv is not None else "as imported before")


def _check_imported(symbol: str, exchange: str) -> None:
    """Without a file, there must be one unbroken import to replay."""
    spans = imported_spans(symbol, "1m", exchange)
    if not spans:
        raise InvalidValueError(
            f"no 1m candles of {symbol} on {exchange} were imported into this database",
            hint="--csv FILE imports and replays them, `candles import` imports them, --synthetic-days 7 makes some up",
        )
    if len(spans) > 1:
        listed = "; ".join(f"{time_text(since)} to {time_text(until)}" for since, until in spans)
        raise InvalidValueError(
            f"the imported 1m candles of {symbol} on {exchange} have holes between {listed} (UTC), and a run cannot step over one",
            hint="--csv FILE chooses the window of that file",
        )


def _announce(config: Config, strategy_file: str, strategy: str | None, market: str) -> None:
    """What would happen with --entry."""
    say("Nothing was run, because --entry is missing. With it, this would be a backtest of")
    where = {"MongoDB": "embedded", "Redis": "embedded"} if config.CC_EMBEDDED else places(config)
    name = "the strategy" if strategy is None else f"the strategy {strategy}"
    facts({"strategy": f"{name} that {strategy_file} registers", "candles": market, **where, "durability": config.CC_DURABILITY})


def _show(result: BacktestResult, report: Report, shown: int, fee: float, slippage: float) -> None:
    count = len(result.trades)
    if count and shown:
        heading("Trades" if shown >= count else f"Trades (the last {shown:,} of {count:,}; --trades {count} shows all)")
        _show_trades(result.trades[-shown:])
    heading("Totals")
    facts(_totals(result, result.totals, fee, slippage))
    heading("Domains")
    say(report.table(output.width))


def _show_trades(trades: Sequence[Trade]) -> None:
    columns = ("opened (UTC)", "held", "side", "opened at", "closed at", "by", "profit")
    rows = [
        (
            time_text(trade.open_timestamp),
            _duration((trade.close_timestamp - trade.open_timestamp) // 60_000),
            trade.position,
            f"{trade.price_open:.8g}",
            f"{trade.price_close:.8g}",
            trade.close_reason.replace("_", " "),
            f"{trade.pnl_percentage:+.3f} %",
        )
        for trade in trades
    ]
    table(columns, rows, left=("opened (UTC)", "side", "by"))


def _totals(result: BacktestResult, totals: Totals, fee: float, slippage: float) -> dict[str, str]:
    rows: dict[str, Any] = {
        "trades": f"{totals.trades:,}: {totals.wins:,} won, {totals.losses:,} lost ({totals.win_rate:.1f} % won)",
        "closed by": f"{totals.take_profits:,} take profit, {totals.stop_losses:,} stop loss, {totals.time_exits:,} time",
        "profit": f"{totals.pnl_percentage:+.3f} % of the stake, after {fee:g} % fee and {slippage:g} % slippage per side",
        "per trade": f"{totals.average_pnl_percentage:+.3f} % on average, {totals.best_pnl_percentage:+.3f} % at best, "
        f"{totals.worst_pnl_percentage:+.3f} % at worst",
        "max drawdown": f"{totals.max_drawdown_percentage:.3f} % of the stake",
        "still open": _open_text(result.open_trade),
        "window": f"{time_text(result.start_ms)} to {time_text(result.end_ms)} UTC, {result.minutes:,} minutes",
        "took": f"{result.wall_seconds:.2f} s, {result.minutes / max(result.wall_seconds, 1e-9):,.0f} minutes a second; "
        f"the strategy was asked {result.signals_asked:,} times",
    }
    if not totals.trades:
        rows = {"trades": "none", **{name: rows[name] for name in ("still open", "window", "took")}}
    return rows


def _open_text(trade: OpenTrade | None) -> str:
    if trade is None:
        return "nothing"
    return f"{trade.position} from {trade.price_open:.8g}, now {trade.current_price:.8g}: {trade.pnl_percentage:+.3f} %"


def _duration(minutes: int) -> str:
    days, rest = divmod(minutes, _MINUTES_PER_DAY)
    return (f"{days}d" if days else "") + f"{rest // 60}h{rest % 60:02d}"
