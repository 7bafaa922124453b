"""The options that ``run`` and ``sweep`` share: what to trade, where its candles come from, and which window to replay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
import typer

from ..candles import CandleArray
from ..candles.files import series_of
from ..errors import InvalidValueError
from ..runner import RunOptions, find_frame, imported_spans, list_exchanges, list_frames, synthetic_market
from ..runner.clock import MINUTE_MS
from ..runner.engine.options import CostKeywords, OnHole
from ..runner.market.exchange import fetch_missing
from ..runner.market.frame import moment_ms
from .candles import FileOptions, report_text, show_files, store_candles
from .output import counted, progress, say_note, time_text

__all__ = ["Costs", "Market", "Window", "prepare_candles", "prepare_exchange", "read_market"]

_PANEL: Final = "Candles"
_DAY_MS: Final = 1440 * MINUTE_MS
CSV_EXCHANGE: Final = "csv"
"""The exchange name of the candles that `run --csv` imports."""
_SYNTHETIC_START_MS: Final = 1_677_628_800_000  # 2023-03-01T00:00Z


class Market(FileOptions, frozen=True, kw_only=True):
    """The options for candles."""

    symbol: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default="BTCUSDT, or the symbol in the file's name",
            help="Symbol to trade. May be repeated.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="FROM:TO",
            show_default=False,
            help="Window to replay: two UTC days, both included (2023-03-01:2023-03-21), two ISO times, or the name of a frame "
            "that the file registers. Default: its only frame, or else all imported candles.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    exchange: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Exchange: one that the file registers, or any that ccxt knows. Default: the only registered one, or else binance. "
            "With --csv: the name under which the candles are stored, by default csv.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    exchange_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", show_default=False, help="Address of the exchange's REST API, if not the usual one.", rich_help_panel=_PANEL
        ),
    ] = None
    csv: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Candle file to import and replay (1m; CSV, JSON, Parquet, .zip, or a folder of them); no exchange is asked. The symbol "
            "comes from the file name (BTCUSDT.csv, BTCUSDT-1m.csv.gz) or from --symbol.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    holes: Annotated[
        Literal["stop", "fill"],
        typer.Option(
            help="What a hole between the candles does to a backtest: stop refuses it, fill replays flat candles at the last close, "
            "with volume 0, which are counted and never stored.",
            rich_help_panel=_PANEL,
        ),
    ] = "stop"
    warm_up: Annotated[
        int,
        typer.Option(
            metavar="MINUTES",
            min=0,
            help="How many minutes before the window to fetch as well, for indicators.",
            rich_help_panel=_PANEL,
        ),
    ] = 1440
    synthetic_days: Annotated[
        int | None,
        typer.Option(
            metavar="DAYS",
            show_default=False,
            min=1,
            max=3650,
            help="Replay this many days of made-up 1m candles instead. They are stored under their own exchange name, "
            "apart from real ones.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of the made-up candles.", rich_help_panel=_PANEL)] = 42

    @property
    def symbols(self) -> list[str]:
        """The symbols to trade, without duplicates. The symbol of a file comes from --symbol or from the file name."""
        if self.symbol:
            return list(dict.fromkeys(self.symbol))
        if self.csv is None:
            return ["BTCUSDT"]
        named = series_of(Path(self.csv))
        if named is None:
            raise InvalidValueError(
                f"the symbol of the candles in {self.csv} is unknown", hint="pass --symbol NAME, or name the file like BTCUSDT-1m.csv.gz"
            )
        return [named[0]]

    @property
    def offline(self) -> bool:
        """Whether no exchange is asked for candles."""
        return self.csv is not None or self.synthetic_days is not None

    def check(self) -> None:
        """Raise BadParameter or InvalidValueError for options that contradict each other and for a file that does not exist."""
        if self.synthetic_days is not None and (self.csv or self.exchange or self.exchange_url):
            raise typer.BadParameter("made-up candles need neither a file nor an exchange", param_hint="--synthetic-days")
        if self.csv is not None and self.symbol and len(self.symbols) > 1:
            raise typer.BadParameter("a file holds the candles of one symbol; `candles import` imports more files", param_hint="--csv")
        if self.csv is not None and not Path(self.csv).exists():
            raise InvalidValueError(f"the file {self.csv} does not exist")
        if self.csv is not None and self.exchange_url is not None:
            raise typer.BadParameter("candles from a file need no exchange", param_hint="--exchange-url")
        if self.csv is not None:
            named = series_of(Path(self.csv))
            if named is not None and named[1] not in (None, "1m"):
                raise InvalidValueError(
                    f"a run replays 1m candles, but the name of {self.csv} says {named[1]}", hint="`candles import` stores other intervals"
                )

    def exchange_name(self) -> str:
        """Return the exchange name under which the candles are stored; call it after loading the strategy file."""
        if self.synthetic_days is not None:
            # Made-up candles differ by seed and length, and a stored candle never changes, so each market has its own name.
            return f"synthetic-{self.seed}-{self.synthetic_days}d"
        if self.csv is not None:  # so that a file and an exchange never share a series by accident
            return self.exchange or CSV_EXCHANGE
        registered = list_exchanges()
        return self.exchange or (registered[0].name if len(registered) == 1 else "binance")

    def remarks(self, exchange: str) -> list[str]:
        """Return what a user should know about the candles of a file before they are stored under ``exchange``."""
        if self.csv is None:
            return []
        notes = []
        (symbol,) = self.symbols
        if self.exchange is None and not imported_spans(symbol, "1m", exchange) and imported_spans(symbol, "1m", "binance"):
            notes.append(
                f"candles of {symbol} that were imported under the exchange name binance stay there; this file is stored under "
                f"{exchange!r} (--exchange binance compares it with them, and replays them)"
            )
        return notes

    def text(self, exchange: str, *, live: bool) -> str:
        """Return a description of the candles for people."""
        if live:
            address = "" if self.exchange_url is None else f" at {self.exchange_url}"
            return f"{', '.join(self.symbols)} 1m of {exchange}{address}, as they close"
        if self.synthetic_days is not None:
            return f"made up: {self.synthetic_days} days of a random walk with seed {self.seed}; results say nothing about a strategy"
        source = f"from {self.csv}" if self.csv is not None else "imported before" if self.frame is None else f"of {self.frame}"
        return f"{', '.join(self.symbols)} 1m on {exchange}, {source}"


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """The options for trading costs."""

    fee: Annotated[
        float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Fee, percent per side.", rich_help_panel="Execution")
    ] = 0.1
    slippage: Annotated[
        float, typer.Option(metavar="PERCENT", min=0.0, max=99.0, help="Slippage, percent per side.", rich_help_panel="Execution")
    ] = 0.1
    stake: Annotated[
        float, typer.Option(metavar="USD", min=0.01, help="Value of a position when it opens.", rich_help_panel="Execution")
    ] = 100.0

    @property
    def keywords(self) -> CostKeywords:
        """The costs as keyword arguments of a run."""
        return {"fee_percent": self.fee, "slippage_percent": self.slippage, "stake_usd": self.stake}


class Window(NamedTuple):
    """The window to replay: the frame's name and ``[start_ms, end_ms)`` (ms; None where the imported candles decide)."""

    frame_name: str = "backtest"
    start_ms: int | None = None
    end_ms: int | None = None

    def options(self, exchange: str, costs: Costs, holes: OnHole) -> RunOptions:
        """Return the options of a run that replays this window."""
        return RunOptions(
            exchange_name=exchange,
            frame_name=self.frame_name,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            holes=holes,
            **costs.keywords,
        )


def prepare_exchange(market: Market, name: str) -> None:
    """Register the exchange ``name`` of ccxt, unless the strategy file has registered it."""
    if market.offline or name in (exchange.name for exchange in list_exchanges()):
        if market.exchange_url is not None:
            raise typer.BadParameter(f"the strategy file registers {name} and decides its address", param_hint="--exchange-url")
        return
    from ..runner.market.ccxt_exchange import add_ccxt_exchange

    add_ccxt_exchange(name, exchange_id=name, url=market.exchange_url)


def read_market(market: Market) -> CandleArray | None:
    """Return the candles of the command's file, or made-up ones; None if the command has neither."""
    if market.csv is not None:
        read = market.read([market.csv], symbol=market.symbols[0], interval="1m", exchange=market.exchange)
        show_files(read)
        return read.candles
    if market.synthetic_days is not None:
        return synthetic_market(market.seed, market.synthetic_days * 1440, _SYNTHETIC_START_MS)
    return None


def prepare_candles(market: Market, exchange: str, candles: CandleArray | None) -> tuple[Window, list[str]]:
    """Store ``candles``, or fetch what is missing in the window. Return the window, and lines of text about what was done."""
    window = _window(market.frame)
    lines = []
    if candles is not None:
        for remark in market.remarks(exchange):
            say_note(remark)
        for symbol in market.symbols:
            stored = store_candles(candles, symbol, "1m", exchange)
            lines += report_text(stored)
            if window.start_ms is None:
                window = Window(window.frame_name, stored.since_ms, stored.until_ms)
    elif window.start_ms is None or window.end_ms is None:
        for symbol in market.symbols:
            _check_imported(symbol, exchange, across_holes=market.holes == "fill")
    else:
        for symbol in market.symbols:
            if any(since <= window.start_ms and window.end_ms <= until for since, until in imported_spans(symbol, "1m", exchange)):
                continue
            prepare_exchange(market, exchange)  # only now: stored candles need neither ccxt nor a network
            since = max(window.start_ms - market.warm_up * MINUTE_MS, 0)
            with progress(f"Fetching {symbol}", "candles") as moved:
                new = fetch_missing(symbol, "1m", exchange, since, window.end_ms, progress=moved)
            lines.append(f"{counted(new, 'candle')} of {symbol} 1m fetched from {exchange}")
    return window, lines


def _window(text: str | None) -> Window:
    if text is None:
        frames = list_frames()
        return Window(frames[0].name, frames[0].start_ms, frames[0].end_ms) if len(frames) == 1 else Window()
    if text in (frame.name for frame in list_frames()) or not re.match(r"[0-9]{4}-", text):
        frame = find_frame(text)
        return Window(frame.name, frame.start_ms, frame.end_ms)
    # ISO times contain colons too: the separator is the one with a time on both sides.
    for colon in re.finditer(":", text):
        first, last = text[: colon.start()], text[colon.end() :]
        try:
            start, end = moment_ms("--frame", first), moment_ms("--frame", last)
        except InvalidValueError:
            continue
        end += _DAY_MS if len(last) == len("2023-03-01") else 0
        if end <= start:
            raise InvalidValueError(f"the window {text} is empty: it ends at {time_text(end)}, not after its start")
        return Window(text.replace(":", "_"), start, end)
    raise InvalidValueError(
        f"--frame {text} is not a window", hint="2023-03-01:2023-03-21 (UTC days, both included), two ISO times, or the name of a frame"
    )


def _check_imported(symbol: str, exchange: str, *, across_holes: bool) -> None:
    """Raise InvalidValueError unless there is an import, with gaps only if they are filled: a run without a window replays it."""
    spans = imported_spans(symbol, "1m", exchange)
    if not spans:
        raise InvalidValueError(
            f"no 1m candles of {symbol} on {exchange} were imported into this database",
            hint=("--exchange csv replays those that were imported with --csv; " if imported_spans(symbol, "1m", CSV_EXCHANGE) else "")
            + "--frame 2023-03-01:2023-03-21 fetches them, --csv FILE imports and replays them, --synthetic-days 7 makes some up",
        )
    if len(spans) > 1 and not across_holes:
        listed = "; ".join(f"{time_text(since)} to {time_text(until)}" for since, until in spans)
        raise InvalidValueError(
            f"the imported 1m candles of {symbol} on {exchange} have gaps between {listed} (UTC), and a run cannot skip a gap",
            hint="--frame FROM:TO selects a window and fetches what is missing in it; --csv FILE selects the window of the file; "
            "--holes fill replays flat candles in the gaps",
        )
