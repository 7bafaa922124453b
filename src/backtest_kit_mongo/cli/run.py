"""``run``: run a strategy file as a backtest, on paper, or live."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from .. import Report, profile, wait_for_init
from ..config import Config
from ..contracts.default_registry import default_registry
from ..domains import DOMAINS
from ..errors import BacktestKitError, InvalidValueError, StorageError
from ..output_files import check_target
from ..prometheus import start_metrics
from ..runner import BacktestResult, RunOptions, load_strategy_file, run_backtests
from ..runner.backtest.kept_runs import keep_run
from ..runner.engine.user_code import OnError
from ..runner.live.interrupts import stopping
from ..runner.loading.config_files import load_config_files
from ..runner.loading.parameters import Scalar, check_parameters, given_parameters
from ..runner.report.html import check_html, write_html
from ..runner.report.statistics import profile_json, result_json, write_file
from ..runner.strategy import find_strategy
from .command import ServerOptions, error_text, pairs
from .live import prepare_broker, run_live
from .market import Costs, Market, prepare_candles, prepare_exchange, read_market
from .output import errors, facts, program, progress, say, say_error, server_addresses
from .records import recording, save_last_run
from .results import show_results

__all__ = ["run"]

_MODE, _OUTPUT = "Mode", "Output"
_INTERRUPTED: Final = 130
_SERVERS: Final = ("mongo", "redis_host", "redis_port", "embedded", "embedded_dir")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where results go."""

    trades: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="How many of the last trades to print; the totals count all.", rich_help_panel=_OUTPUT),
    ] = 20
    json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            show_default=False,
            help="Write trades and totals as JSON; equal runs produce equal bytes. An existing file is replaced.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Print the reads, writes, hit ratios and times of each domain, and write them as JSON; - only prints them.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            show_default=False,
            help="Write an HTML page: profit beside buy and hold, charts, months, drawdowns, trades to sort and filter (extra: report).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None

    def checked(self, *inputs: str | None) -> Target:
        """Return the target with absolute paths: a strategy may change the working directory. Call this before anything runs.

        Raises InvalidValueError or StorageError for a file that cannot be written, or that would replace another file of the target or
        one of ``inputs``.
        """
        used = {Path(file).resolve() for file in inputs if file is not None}
        resolved: dict[str, str] = {}
        for name in ("json", "profile", "report"):
            file = getattr(self, name)
            if file is None or (name == "profile" and file == "-"):
                continue
            path = (check_html if name == "report" else check_target)(file).resolve()
            if path in used:
                raise InvalidValueError(f"--{name} {file} would replace another file of this command")
            used.add(path)
            resolved[name] = str(path)
        return msgspec.structs.replace(self, **resolved)

    def write(self, results: Sequence[BacktestResult], failed: Sequence[BacktestKitError], report: Report) -> None:
        """Write the requested files, also for runs that ended early."""
        if self.json is not None:
            write_file(self.json, result_json(results, failed))
            say(f"written: {self.json}")
        if self.profile not in (None, "-"):
            write_file(self.profile, profile_json(report, results))
            say(f"written: {self.profile}")
        if self.report is not None:
            with errors.status("Drawing the report"):
                write_html(self.report, results, profile=report, failed=failed)
            say(f"written: {self.report}")


def run(
    server_options: ServerOptions,
    strategy_file: Annotated[
        str, typer.Argument(metavar="STRATEGY.py", help="Python file that registers strategies with add_strategy.", show_default=False)
    ],
    market: Market,
    costs: Costs,
    target: Target,
    backtest: Annotated[bool, typer.Option("--backtest", help="Replay a window of candles.", rich_help_panel=_MODE)] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="Live candles, no orders, in a separate database (<name>-paper).", rich_help_panel=_MODE)
    ] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Live candles, and orders through a broker (--broker).", rich_help_panel=_MODE)
    ] = False,
    entry: Annotated[
        bool, typer.Option("--entry", help="Actually run. Without it the command only says what it would do.", rich_help_panel=_MODE)
    ] = False,
    broker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Broker for the orders of --live: one that the file registers, or ccxt (CC_EXCHANGE_KEY, CC_EXCHANGE_SECRET).",
            rich_help_panel=_MODE,
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Strategy to run; required if the file registers more than one. May be repeated."
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", show_default=False, help='Value for a parameter("NAME", ...) of the file. May be repeated.'),
    ] = None,
    on_error: Annotated[
        OnError | None,
        typer.Option(
            metavar="stop|skip",
            show_default="stop",
            help="What an error in the strategy's functions does to a backtest: stop ends it, skip notes the error and continues. "
            "Paper and live runs always continue.",
        ),
    ] = None,
    stores: Annotated[
        str | None,
        typer.Option(
            metavar="mongo|DOMAIN=STORE,...",
            show_default=False,
            help="Stores of the contracts, instead of those of the mode: one for all, or some by domain. Default: CC_STORES.",
        ),
    ] = None,
    metrics_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve the metrics on; 0.0.0.0 is every network of this machine.")
    ] = "127.0.0.1",
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            show_default=False,
            help="Serve Prometheus metrics over HTTP during the run (extra: metrics).",
        ),
    ] = None,
) -> None:
    r"""Run a strategy file: on past candles, on live candles without orders, or live.

    A run writes everything that happens through the contracts before it acts on it. If a paper or live run was killed, start it
    again: it resumes where it was. Ctrl-C lets it finish the current minute; a second Ctrl-C stops it at once. A run that ends early
    still prints and writes what it has. The results of a backtest are kept: use `runs list` and `runs show` to see them.

    The mode decides where the contracts keep their records (setup(mode=...); "Settings" in the manual), unless CC_STORES, --stores, or a
    config/setup.py in the working directory says otherwise.

    Examples, after new-strategy my_strategy.py; the first with made-up candles and no servers of your own:

        $ backtest-kit-mongo run my_strategy.py --backtest --entry \
            --embedded --synthetic-days 7

        $ backtest-kit-mongo run my_strategy.py --backtest --entry \
            --frame 2023-03-01:2023-03-21 --report report.html

        $ backtest-kit-mongo run my_strategy.py --paper --entry
    """
    started = time.perf_counter()
    modes = [name for name, chosen in (("backtest", backtest), ("paper", paper), ("live", live)) if chosen]
    if len(modes) != 1:
        raise typer.BadParameter("choose one mode: --backtest, --paper or --live", param_hint="--backtest")
    (mode,) = modes
    _check(mode, market, broker, on_error)
    if not Path(strategy_file).is_file():
        raise InvalidValueError(
            f"the file {strategy_file} does not exist" if not Path(strategy_file).exists() else f"{strategy_file} is not a file"
        )
    target = target.checked(strategy_file, market.csv)
    settings = {"CC_MODE": mode, "CC_STORES": _stores(stores)}
    announced = server_options.config(**settings)  # reports wrong settings before anything is loaded
    if not entry:
        _announce(announced, mode, strategy_file, strategy, market)
        return

    if mode == "paper":
        os.environ.setdefault("CC_MODE", mode)  # config/setup.py decides the rest, but a paper run must not see the records of live runs
    files = load_config_files()
    if files.setup is not None and (given := [f"--{name.replace('_', '-')}" for name in _SERVERS if getattr(server_options, name)]):
        raise typer.BadParameter(f"{files.setup} decides the servers and stores", param_hint=given[0])
    parameters = pairs(param or [], "--param", "NAME=VALUE")
    stop = threading.Event()
    with ExitStack() as stack:
        declared = stack.enter_context(given_parameters(parameters))
        load_strategy_file(strategy_file)
        chosen = check_parameters(parameters, declared)
        in_force = {**declared, **chosen}
        names = [find_strategy(name).name for name in dict.fromkeys(strategy or ())] or [find_strategy(None).name]
        exchange = market.exchange_name()
        if mode != "backtest":
            prepare_exchange(market, exchange)
            prepare_broker(broker, exchange, market.exchange_url)
        candles = read_market(market)
        facts_of_run = {"strategy": ", ".join(names), "symbol": ", ".join(market.symbols), "exchange": exchange}
        report = stack.enter_context(profile())
        moved = stack.enter_context(recording(facts_of_run, report))
        if files.setup is None:
            server_options.connect(**settings)
        with errors.status("Waiting for MongoDB and Redis"):
            wait_for_init(server_options.timeout)
        if metrics_port is not None:
            stack.enter_context(closing(start_metrics(metrics_port, metrics_address)))
        config = default_registry.config
        rows = {
            "mode": mode + ("" if files.setup is None else f", with the settings of {files.setup}"),
            "strategy": f"{', '.join(names)} of {strategy_file}",
            "candles": market.text(exchange, live=mode != "backtest"),
            **server_addresses(config),
            "stores": _stores_text(config),
            "durability": config.CC_DURABILITY,
        }
        if not {"file", "jsonl"}.isdisjoint(config.CC_STORES.values()):
            rows["files"] = config.CC_DUMP_DIR
        facts(rows)
        if mode == "backtest":
            window, lines = prepare_candles(market, exchange, candles)
            for line in lines:
                say(line)
        stack.enter_context(stopping(stop))  # only now: an interrupted import has no minute to finish
        if mode == "backtest":
            run_options = window.options(exchange, costs, market.holes).replaced(on_error=on_error or "stop")
            results, failed = _replay(market.symbols, names, run_options, stop, moved, started)
        else:
            results, failed = run_live(market.symbols, names, exchange, broker, costs, stop)
    for error in failed:
        say_error(error_text(error))
    if results:
        show_results(results, report, shown=target.trades, costs=costs, live=mode != "backtest", tables=target.profile is not None)
    if mode == "backtest":
        frame = {"frame": window.frame_name} if window.start_ms is not None else {}
        options = {"symbol": ", ".join(market.symbols), "exchange": exchange, **frame, **msgspec.structs.asdict(costs)}
        options |= {"onError": on_error or "stop", "holes": market.holes, "stores": _stores_text(config)}
        _keep(results, failed, report, strategy_file, in_force, options)
    if results or failed:
        target.write(results, failed, report)
    if failed:
        raise typer.Exit(1)
    if stop.is_set() and mode == "backtest":
        say_error("interrupted; stored records are kept")
        raise typer.Exit(_INTERRUPTED)
    save_last_run({**facts_of_run, **_summary(results)}, report)


def _replay(
    symbols: Sequence[str],
    names: Sequence[str],
    run_options: RunOptions,
    stop: threading.Event,
    moved: Callable[[int, int], None],
    started: float,
) -> tuple[list[BacktestResult], list[BacktestKitError]]:
    """Run every strategy on every symbol. Return the results, also of runs that an error ended early, and the errors.

    The time to the first trade counts from ``started`` (perf_counter), the start of the command.
    """
    before = time.perf_counter() - started
    with progress("Replaying", "minutes") as drawn:

        def replayed(done: int, total: int) -> None:
            drawn(done, total)
            moved(done, total)

        try:
            results, failed = run_backtests(symbols, names, options=run_options, progress=replayed, stop=stop)
        except BacktestKitError as error:
            if not error.results:
                raise
            results, failed = [], [error]
    every = [*results, *(result for error in failed for result in error.results)]
    return [
        msgspec.structs.replace(result, seconds_to_first_trade=result.seconds_to_first_trade + before)
        if result.seconds_to_first_trade is not None
        else result
        for result in every
    ], failed


def _keep(
    results: Sequence[BacktestResult],
    failed: Sequence[BacktestKitError],
    report: Report,
    strategy_file: str,
    parameters: Mapping[str, Scalar],
    settings: Mapping[str, Any],
) -> None:
    """Keep the results. If the folder is not writable, print that to stderr; it does not fail the run."""
    if not results:
        return
    try:
        run = keep_run(
            results,
            strategy_file=str(Path(strategy_file).resolve()),
            parameters=parameters,
            settings=settings,
            failed=failed,
            profile=report,
        )
    except (StorageError, ValueError) as error:  # ValueError: a path that is not text
        say_error(f"the results of this run are not kept: {error}")
    else:
        say(f"kept as run {run.id}: {program()} runs show {run.id}")


def _summary(results: Sequence[BacktestResult]) -> dict[str, Any]:
    """Return what ``stats`` shows about the last run."""
    return {
        "startTimestamp": min(result.start_ms for result in results),
        "endTimestamp": max(result.end_ms for result in results),
        "minutes": sum(result.minutes for result in results),
        "trades": sum(result.totals.trades for result in results),
        "wallSeconds": round(sum(result.wall_seconds for result in results), 3),
    }


def _stores_text(config: Config) -> str:
    """Return which contracts are in which store, the most common store last."""
    by_store: dict[str, list[str]] = {}
    for name, store in config.CC_STORES.items():
        by_store.setdefault(store, []).append(name)
    (usual, _), *others = sorted(by_store.items(), key=lambda item: -len(item[1]))
    parts = [f"{', '.join(names)}: {store}" for store, names in others]
    return "; ".join([*parts, f"{'all others' if parts else 'all'}: {usual}"])


def _check(mode: str, market: Market, broker: str | None, on_error: OnError | None) -> None:
    """Raise BadParameter for options that do not fit the mode."""
    market.check()
    if mode != "backtest" and on_error == "stop":
        raise typer.BadParameter(f"a {mode} run always continues after an error of the strategy", param_hint="--on-error")
    if mode == "backtest":
        if broker is not None:
            raise typer.BadParameter("a backtest sends no orders", param_hint="--broker")
        return
    if market.offline:
        raise typer.BadParameter(f"a {mode} run needs the candles of an exchange", param_hint="--csv" if market.csv else "--synthetic-days")
    if market.frame is not None:
        raise typer.BadParameter(f"a {mode} run has no window", param_hint="--frame")
    if market.holes != "stop":
        raise typer.BadParameter(f"a {mode} run leaves out minutes without a candle", param_hint="--holes")
    if mode == "paper" and broker is not None:
        raise typer.BadParameter("a paper run sends no orders", param_hint="--broker")
    if mode == "live" and broker is None:
        raise typer.BadParameter(
            "a live run needs a broker: --broker ccxt trades on the exchange itself, with the keys in CC_EXCHANGE_KEY and "
            "CC_EXCHANGE_SECRET; or register one in the strategy file with add_broker(NAME, broker) and pass its name. "
            "--paper runs without orders",
            param_hint="--broker",
        )


def _stores(text: str | None) -> str | None:
    """Return ``CC_STORES`` for the option; the name of a store alone means this store for all domains."""
    if text is None or "=" in text:
        return text
    return ",".join(f"{name}={text.strip()}" for name in DOMAINS)


def _announce(config: Config, mode: str, strategy_file: str, strategies: Sequence[str] | None, market: Market) -> None:
    """Print what would happen with --entry."""
    kind = {"backtest": "a backtest of", "paper": "a paper run of", "live": "a live run of"}[mode]
    say(f"Nothing was run, because --entry is missing. With it, this would be {kind}")
    where = {"MongoDB": "embedded", "Redis": "embedded"} if config.CC_EMBEDDED else server_addresses(config)
    name = "the strategy" if strategies is None else f"the strategy {', '.join(strategies)}"
    exchange = market.exchange or ("binance, or the one that the file registers" if not market.offline else market.exchange_name())
    facts(
        {
            "strategy": f"{name} that {strategy_file} registers",
            "candles": market.text(exchange, live=mode != "backtest"),
            **where,
            "stores": _stores_text(config),
            "durability": config.CC_DURABILITY,
        }
    )
