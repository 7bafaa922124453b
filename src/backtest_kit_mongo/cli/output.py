"""How commands write: results on stdout, progress and errors on stderr, both fit for 80 columns and for a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..config import Config, redacted

__all__ = [
    "counted",
    "domain_table",
    "errors",
    "facts",
    "heading",
    "output",
    "places",
    "progress",
    "say",
    "say_error",
    "size",
    "table",
    "time_text",
]

output = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def counted(count: int, noun: str) -> str:
    """``1 id``, ``2,000 ids``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def say(text: str) -> None:
    """A line on stdout, unbroken, so that a command in it can be copied."""
    output.print(text, soft_wrap=True, markup=False)


def say_error(text: str) -> None:
    """An error on stderr."""
    errors.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)


def heading(text: str) -> None:
    """A heading on stdout, after an empty line."""
    output.print(Text.assemble("\n", (text, "bold")))


def facts(rows: Mapping[str, str]) -> None:
    """Names and values in two columns; values are wrapped between words, so that addresses stay in one piece."""
    indent = max(map(len, rows)) + 4
    for name, value in rows.items():
        for number, line in enumerate(value.splitlines()):
            wrapped = textwrap.wrap(line, max(40, output.width - indent), break_long_words=False, break_on_hyphens=False)
            text = ("\n" + " " * indent).join(wrapped)
            output.print(Text.assemble((f"  {'' if number else name}".ljust(indent), "cyan"), text), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str] = ()) -> None:
    """A plain table; all columns but those in ``left`` are aligned to the right. A narrow terminal gets narrow gaps."""
    lines = [columns, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    gap = "  " if sum(widths) + 2 * len(widths) <= output.width else " "
    for number, line in enumerate(lines):
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width) for cell, width, column in zip(line, widths, columns, strict=True)
        )
        output.print(Text(gap.join(cells).rstrip(), style="" if number else "cyan"), soft_wrap=True)


@contextmanager
def progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; the value is the function ``(done, all)`` that moves it."""
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
            bar.update(task, visible=False)  # an error follows, and a bar that stands still says nothing more
            raise


def domain_table(stats: Mapping[str, Mapping[str, Any]]) -> None:
    """What each domain that was used did: counts, and the duration of a call, which half of them and 99 % of them did not exceed."""
    rows = []
    for name, row in stats.items():
        if not any(row[count] for count in ("reads", "writes", "removes", "errors")):
            continue
        counts = (row["reads"], row["hits_process"] + row["hits_redis"], row["misses"], row["stale"], row["writes"])
        ratio = "-" if row["hit_ratio"] is None else f"{row['hit_ratio'] * 100:.1f} %"
        durations = (_durations(row["operations"], kinds) for kinds in (("read", "list", "read_many"), ("write", "write_many")))
        rows.append((name, *(f"{count:,}" for count in counts), ratio, *durations))
    table(("domain", "reads", "hits", "misses", "stale", "writes", "hit ratio", "read us", "write us"), rows, left=("domain",))
    say("hits: the id was known in this process or in Redis, and right. us: p50/p99 of one call in microseconds.")


def _durations(operations: Mapping[str, Mapping[str, Any]], kinds: Sequence[str]) -> str:
    """Of the operations of ``kinds`` the one that was called most."""
    found = max((operations[kind] for kind in kinds if kind in operations), key=lambda row: int(row["count"]), default=None)
    return "-" if found is None else f"{found['p50']:.0f}/{found['p99']:.0f}"


def places(config: Config) -> dict[str, str]:
    """Where the two servers of ``config`` are, without secrets."""
    host = config.CC_REDIS_HOST
    return {
        "MongoDB": redacted(config.CC_MONGO_CONNECTION_STRING),
        "Redis": host if host.startswith("/") else f"{host}:{config.CC_REDIS_PORT}",
    }


def time_text(ms: int) -> str:
    """A time in ms as ``2023-03-01 00:05`` (UTC)."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
