"""How commands print: results to stdout, progress and errors to stderr, both readable in 80 columns and in a pipe."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..config import Config, redacted
from ..observability.text_tables import Table
from ..redis_address import redis_address

__all__ = [
    "counted",
    "errors",
    "facts",
    "heading",
    "output",
    "program",
    "progress",
    "say",
    "say_error",
    "say_note",
    "server_addresses",
    "table",
    "time_text",
]

output: Final = Console(highlight=False)
errors: Final = Console(stderr=True, highlight=False)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 id``, ``2,000 ids``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def program() -> str:
    """Return how to call this command from here: its name if it is on PATH, else its path."""
    name = "backtest-kit-mongo"
    if shutil.which(name) is not None:
        return name
    file = Path(sys.executable).with_name(name)
    if not file.exists():
        return f"{shlex.quote(sys.executable)} -m backtest_kit_mongo"
    return shlex.quote(min(str(file), os.path.relpath(file), key=len))


def say(text: str) -> None:
    """Print a line to stdout without wrapping it, so that a command in it can be copied."""
    output.print(text, soft_wrap=True, markup=False)


def say_error(text: str) -> None:
    """Print an error to stderr."""
    errors.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def say_note(text: str) -> None:
    """Print a note to stderr that a user should read before continuing."""
    errors.print(Text.assemble(("note: ", "bold yellow"), text), soft_wrap=True)


def heading(text: str) -> None:
    """Print a heading to stdout, after an empty line."""
    output.print(Text.assemble("\n", (text, "bold")))


def facts(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns. Values wrap only between words, so that addresses stay in one piece."""
    indent = max(map(len, rows)) + 4
    for name, value in rows.items():
        for number, line in enumerate(value.splitlines()):
            wrapped = textwrap.wrap(line, max(40, output.width - indent), break_long_words=False, break_on_hyphens=False)
            text = ("\n" + " " * indent).join(wrapped)
            output.print(Text.assemble((f"  {'' if number else name}".ljust(indent), "cyan"), text), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()) -> None:
    """Print a plain table. Columns in ``left`` are left-aligned, all others right-aligned. A narrow terminal gets narrow spacing."""
    for number, line in enumerate(Table(columns, rows, left).lines(output.width)):
        output.print(Text(line, style="" if number else "cyan"), soft_wrap=True)


@contextmanager
def progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr. Yields the function ``(done, total)`` that moves it."""
    columns = (
        TextColumn(f"{label:<18}"),
        BarColumn(24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.completed:,.0f} " + unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bar:
        task = bar.add_task("", total=None)
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        except BaseException:
            bar.update(task, visible=False)  # an error message follows, and a stopped bar adds nothing
            raise


def server_addresses(config: Config) -> dict[str, str]:
    """Return the addresses of the two servers of ``config``, without secrets."""
    paper = f", database {config.CC_PAPER_DATABASE or 'of that name with -paper appended'}" if config.CC_MODE == "paper" else ""
    return {
        "MongoDB": redacted(config.CC_MONGO_CONNECTION_STRING) + paper,
        "Redis": str(redis_address(config)),
    }


def time_text(ms: int) -> str:
    """Return a time in ms as ``2023-03-01 00:05`` (UTC)."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
