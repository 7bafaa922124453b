"""``candles pack`` and ``candles verify``: the packed blocks from which a new process reads candles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from .. import wait_for_init
from ..runner import PackedSeries, pack_candles, verify_candles
from .command import ServerOptions
from .output import counted, progress, say

__all__ = ["pack_series", "verify_series"]

Symbol = Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this symbol.")]
Interval = Annotated[str | None, typer.Option(metavar="1m|5m|...", show_default=False, help="Only candles of this length.")]
Exchange = Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="Only this exchange name.")]


def pack_series(server_options: ServerOptions, symbol: Symbol = None, interval: Interval = None, exchange: Exchange = None) -> None:
    """Pack stored candles into blocks, from which a new process reads them about 20 times faster.

    Imports and the first read of a long window do this by themselves. Use this command for candles that an older version or the
    TypeScript package stored. The candles themselves stay as they are. You can interrupt the command and run it again, also while
    other programs read and write.

    Example:

        $ backtest-kit-mongo candles pack --symbol BTCUSDT --embedded
    """
    server_options.connect()
    wait_for_init(server_options.timeout)

    outcomes = _run("Packing candles", pack_candles, symbol, interval, exchange)
    blocks = sum(outcome.blocks for outcome in outcomes)
    say(f"{counted(blocks, 'block')} packed in {len(outcomes):,} series" if outcomes else _nothing(symbol, interval, exchange))


def verify_series(server_options: ServerOptions, symbol: Symbol = None, interval: Interval = None, exchange: Exchange = None) -> None:
    """Compare packed blocks with the stored candles, and drop the blocks that differ.

    Run this after you changed or deleted candles in the database with other tools: until then, readers get them as they were. It exits
    with 1 if a block was wrong. Programs that run keep candles in memory: restart them.

    Example:

        $ backtest-kit-mongo candles verify --embedded
    """
    server_options.connect()
    wait_for_init(server_options.timeout)

    outcomes = _run("Verifying candles", verify_candles, symbol, interval, exchange)
    if not outcomes:
        say(_nothing(symbol, interval, exchange))
        return
    wrong = 0
    for outcome in outcomes:
        for number, problem in sorted(outcome.problems.items()):
            say(f"block {number} of {outcome.symbol} {outcome.interval} on {outcome.exchange_name}: {problem}")
        wrong += len(outcome.problems)
    blocks = sum(outcome.blocks for outcome in outcomes)
    say(f"{counted(blocks, 'block')} compared in {len(outcomes):,} series, {wrong:,} wrong")
    if wrong:
        raise typer.Exit(1)


def _run(
    label: str, work: Callable[..., Iterator[PackedSeries]], symbol: str | None, interval: str | None, exchange: str | None
) -> list[PackedSeries]:
    with progress(label, "candles") as moved:
        return list(work(symbol=symbol, interval=interval, exchange_name=exchange, progress=moved))


def _nothing(symbol: str | None, interval: str | None, exchange: str | None) -> str:
    return "no candles are stored" + (" that match the options" if symbol or interval or exchange else "")
