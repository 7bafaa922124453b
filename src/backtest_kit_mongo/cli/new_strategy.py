"""``new-strategy``: write a strategy file to start from."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidValueError
from ..output_files import check_target, replacing
from .output import program, say

__all__ = ["new_strategy"]

_EXAMPLE = files("backtest_kit_mongo") / "examples" / "sma_cross.py"


def new_strategy(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write; its name must end in .py.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a strategy file to start from: a moving-average crossover that runs as it is.

    Needs no server. Prints two commands to try next; both run the strategy on made-up candles and start their own servers.

    Example:

        $ backtest-kit-mongo new-strategy my_strategy.py
    """
    if Path(file).suffix != ".py":
        raise InvalidValueError(f"the name of a strategy file must end in .py, got {file}")
    target = check_target(file)
    if target.exists() and not force:
        raise InvalidValueError(f"{file} already exists", hint="--force replaces it")
    with replacing(target) as written:
        written.write(_EXAMPLE.read_bytes().replace(b"examples/sma_cross.py", target.name.encode()))  # in its docstring
    shown = shlex.quote(file)
    say(f"Wrote {file}. Try it on made-up candles:")
    say(f"  {program()} run {shown} --backtest --entry --embedded --synthetic-days 7")
    say(f"  {program()} sweep {shown} --grid FAST=6,12 --grid SLOW=48,96 --embedded --synthetic-days 3")
