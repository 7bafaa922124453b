"""The commands, combined into one program."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from .. import __version__
from .cache import flush_cache
from .candles import import_file, refresh_series, remove_series, show_series
from .command import add, unwrapped
from .completion_scripts import print_completion
from .copy import copy
from .demo import show_demo
from .doctor import doctor
from .export import export
from .new_strategy import new_strategy
from .packed_candles import pack_series, unpack_series, verify_series
from .run import run
from .runs import show_run, show_runs
from .stats import show_stats
from .sweep import sweep_parameters

__all__ = ["app"]

# No tracebacks with local variables: they could show a password. The command `completion` prints shell scripts.
app: Final = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
candles: Final = typer.Typer(
    no_args_is_help=True, help="Stored candles: import files, list the series, replace or remove wrong candles, pack them."
)
runs: Final = typer.Typer(no_args_is_help=True, help="Results of earlier backtests: list them, or show one again.")

_HELP = """Run backtests that keep their whole state in MongoDB, with Redis as a cache of ids, and look after the two servers.

The addresses of the servers come from the CC_* environment variables (CC_MONGO_CONNECTION_STRING, CC_REDIS_HOST, CC_REDIS_PORT,
CC_REDIS_USER, CC_REDIS_PASSWORD) or from options. With --embedded the command starts both servers itself and stops them when it
ends.

Example with made-up candles and no servers of your own:

    $ backtest-kit-mongo new-strategy my_strategy.py

    $ backtest-kit-mongo run my_strategy.py --backtest --entry \\
        --embedded --synthetic-days 7
"""


def _version(show: bool) -> None:
    if show:
        typer.echo(f"backtest-kit-mongo {__version__}")
        raise typer.Exit


@app.callback(help=unwrapped(_HELP))
def _all(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)] = False,
) -> None:
    pass


add(app, "demo", show_demo)
add(app, "run", run)
add(app, "sweep", sweep_parameters)
add(runs, "list", show_runs)
add(runs, "show", show_run)
app.add_typer(runs, name="runs")
add(app, "new-strategy", new_strategy)
add(app, "doctor", doctor)
add(app, "flush-cache", flush_cache)
add(candles, "import", import_file)
add(candles, "refresh", refresh_series)
add(candles, "list", show_series)
add(candles, "remove", remove_series)
add(candles, "pack", pack_series)
add(candles, "unpack", unpack_series)
add(candles, "verify", verify_series)
app.add_typer(candles, name="candles")
add(app, "copy", copy)
add(app, "export", export)
add(app, "stats", show_stats)
add(app, "completion", print_completion)
