"""Profiles: what each domain did in a span of time, as a table, as JSON and as a plot."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from ..contracts.default_registry import default_registry
from ..contracts.registry import Registry
from ..errors import InvalidValueError, MissingDependencyError
from ..metrics import COUNTS, PERCENTILES, Stats
from .text_tables import LEGEND, domain_tables, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Report", "profile"]

_Operation = msgspec.defstruct("_Operation", [("count", int), ("per_second", float), *((label, float) for label, _ in PERCENTILES)])
_Row = msgspec.defstruct(
    "_Row",
    [
        *((count, int) for count in COUNTS),
        ("hit_ratio", float | None),
        ("hit_ratios", dict[str, float | None]),
        ("operations", dict[str, _Operation]),  # type: ignore[valid-type]
    ],
)
_Saved = msgspec.defstruct("_Saved", [("seconds", float), ("domains", dict[str, _Row])])  # type: ignore[valid-type]

# Where reads were answered: key in _answers, label, and a colour of the Okabe-Ito palette, which colour-blind readers can tell apart.
_ANSWERS: Final = (
    ("process", "process (L1)", "#009e73"),
    ("redis", "Redis", "#56b4e9"),
    ("block", "block", "#f0e442"),
    ("misses", "miss", "#d55e00"),
    ("rest", "lists, windows", "#bbbbbb"),
)
_MARKERS: Final = ("o", "s", "D", "|")


class Report:
    """What the domains did during a ``profile()`` block; inside the block, what they did so far.

    Domains that did nothing are left out. ``str(report)`` is ``report.table()``.
    """

    def __init__(self, measure: Callable[[], dict[str, Any]]) -> None:
        self._measure = measure

    @classmethod
    def from_dict(cls, saved: Any) -> Self:
        """Rebuild a report from the result of ``to_dict`` or the decoded ``to_json``. Raises InvalidValueError for anything else."""
        try:
            # Converting there and back makes a copy with the declared fields only.
            checked = msgspec.to_builtins(msgspec.convert(saved, _Saved))
        except msgspec.ValidationError as error:
            raise InvalidValueError(f"not a saved report: {error}") from None
        return cls(lambda: checked)

    def finish(self) -> None:
        """Freeze the report: keep the figures of this moment."""
        final = self._measure()
        self._measure = lambda: final

    @property
    def seconds(self) -> float:
        """Wall time in seconds."""
        return float(self._measure()["seconds"])

    @property
    def domains(self) -> Stats:
        """What each domain did, in the form of ``stats()``: counts, hit ratios and ``operations``, each with ``per_second`` added."""
        stats: Stats = self._measure()["domains"]
        return stats

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"seconds": ..., "domains": {...}}`` in plain types."""
        return self._measure()

    def to_json(self) -> str:
        """Return ``to_dict()`` as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self._measure()), indent=2).decode()

    def table(self, width: int = 80) -> str:
        """Return the report as text for a terminal of ``width`` columns. Narrow widths shrink the gaps; cells are never cut."""
        figures = self._measure()
        tables = ("\n".join(table.lines(width)) for table in domain_tables(figures["domains"]))
        return "\n\n".join([headline(figures), *tables, LEGEND] if figures["domains"] else [headline(figures)])

    def __str__(self) -> str:
        return self.table()

    def plot(self) -> Figure:
        """Draw where reads were answered, by domain, and how long calls took, as a matplotlib figure that pyplot does not manage.

        Raises MissingDependencyError (an ImportError) if matplotlib is not installed.
        """
        figure_type = load_matplotlib()
        figures = self._measure()
        domains = figures["domains"]
        calls = [(f"{name} {operation}", timing) for name, row in domains.items() for operation, timing in row["operations"].items()]
        figure = figure_type(figsize=(13, max(3.0, 1.8 + 0.3 * max(len(domains), len(calls)))), dpi=120, layout="constrained")
        figure.suptitle(headline(figures))
        answers, latencies = figure.subplots(1, 2)
        _draw_answers(answers, {name: row for name, row in domains.items() if row["reads"]})
        _draw_latencies(latencies, calls)
        return figure

    def save_png(self, path: str | os.PathLike[str]) -> None:
        """Write ``plot()`` as a PNG file. Raises InvalidValueError if ``path`` cannot be written, MissingDependencyError as ``plot``."""
        image = io.BytesIO()
        self.plot().savefig(image, format="png")
        try:
            Path(path).write_bytes(image.getvalue())
        except OSError as error:
            raise InvalidValueError(f"the picture cannot be written to {os.fspath(path)}: {error.strerror}") from error


@contextmanager
def profile(registry: Registry | None = None) -> Iterator[Report]:
    """Report what the domains of a registry (the default one if None) do during the ``with`` block, in all threads.

        with profile() as report:
            run_backtest("BTCUSDT")
        print(report)

    Blocks can be nested and can overlap; they do not affect each other, nor ``stats()``, and ``reset_stats()`` does not affect them.
    The figures are final when the block ends, also if it ends with an exception.
    """
    metrics = (default_registry if registry is None else registry).metrics
    before, begin = metrics.mark(), time.perf_counter()
    report = Report(lambda: figures(time.perf_counter() - begin, metrics.snapshot(before)))
    try:
        yield report
    finally:
        report.finish()


def figures(seconds: float, stats: Stats) -> dict[str, Any]:
    """Return the content of a report: the domains of ``stats`` that did something, with rates over ``seconds``."""
    domains = {}
    for name, row in stats.items():
        if any(row[count] for count in COUNTS) or row["operations"]:
            calls = {
                operation: {**timing, "per_second": round(timing["count"] / max(seconds, 1e-9), 3)}
                for operation, timing in row["operations"].items()
            }
            domains[name] = {**row, "operations": calls}
    return {"seconds": round(seconds, 6), "domains": domains}


def load_matplotlib() -> type[Figure]:
    """Import and return matplotlib's Figure. Raises MissingDependencyError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingDependencyError(
            "a plot needs matplotlib, which is not installed", hint='pip install "backtest-kit-mongo[plot]"'
        ) from None
    return Figure


def _draw_answers(axes: Axes, domains: Stats) -> None:
    axes.set_title("Where reads were answered", pad=28)
    names = list(domains)
    left = [0.0] * len(names)
    for key, label, colour in _ANSWERS:
        shares = [_answers(row)[key] / row["reads"] * 100 for row in domains.values()]
        if any(shares):
            axes.barh(names, shares, left=left, label=label, color=colour)
            left = [before + share for before, share in zip(left, shares, strict=True)]
    for position, (row, end) in enumerate(zip(domains.values(), left, strict=True)):
        axes.text(max(end, 100.0) + 1, position, f"{row['reads']:,}", va="center")
    axes.set_xlabel("percent of reads (number of reads on the right)")
    axes.set_xlim(0, 115)
    axes.invert_yaxis()
    if names:
        _legend(axes)


def _answers(row: Mapping[str, Any]) -> dict[str, int]:
    answered = {"process": row["hits_process"], "redis": row["hits_redis"], "block": row["hits_block"], "misses": row["misses"]}
    # The sum may exceed the reads: another thread may have counted a hit and not yet the end of its call.
    return {**answered, "rest": max(0, row["reads"] - sum(answered.values()))}


def _draw_latencies(axes: Axes, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    axes.set_title("How long a call took", pad=28)
    axes.set_xscale("log")
    positions = range(len(calls))
    # A logarithmic axis cannot show zero.
    columns = {label: [max(timing[label], 0.001) for _, timing in calls] for label, _ in PERCENTILES}
    axes.hlines(positions, columns["p50"], columns["max"], color="#bbbbbb", zorder=1)
    for (label, values), marker in zip(columns.items(), _MARKERS, strict=True):
        axes.scatter(values, positions, marker=marker, label=label, zorder=2)
    axes.set_yticks(positions, [name for name, _ in calls])
    axes.set_xlabel("us")
    axes.grid(axis="x", alpha=0.3)
    axes.invert_yaxis()
    if calls:
        _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)
