"""Charts of counters: where reads were answered, and how long calls took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import MissingDependencyError
from ..metrics import PERCENTILES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .figure import NotebookFigure

__all__ = ["draw_counters", "load_matplotlib"]

Domains = Mapping[str, Mapping[str, Any]]

# Where reads were answered: key in _answers, label, and a colour of the Okabe-Ito palette, which colour-blind readers can tell apart.
_ANSWERS: Final = (
    ("process", "process (L1)", "#009e73"),
    ("redis", "Redis", "#56b4e9"),
    ("block", "block", "#f0e442"),
    ("misses", "miss", "#d55e00"),
    ("rest", "lists, windows", "#bbbbbb"),
)
_MARKERS: Final = ("o", "s", "D", "|")


def load_matplotlib() -> type[NotebookFigure]:
    """Import matplotlib and return a class of figures. Raises MissingDependencyError if matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise MissingDependencyError(
            "a plot needs matplotlib, which is not installed", hint='pip install "backtest-kit-mongo[plot]"'
        ) from None
    from .figure import NotebookFigure

    return NotebookFigure


def draw_counters(title: str, domains: Domains) -> NotebookFigure:
    """Draw where reads were answered, by domain, and how long calls took."""
    figure_type = load_matplotlib()
    calls = [(f"{name} {operation}", timing) for name, row in domains.items() for operation, timing in row["operations"].items()]
    figure = figure_type(figsize=(13, max(3.0, 1.8 + 0.3 * max(len(domains), len(calls)))), dpi=120, layout="constrained")
    figure.suptitle(title)
    answers, latencies = figure.subplots(1, 2)
    _draw_answers(answers, {name: row for name, row in domains.items() if row["reads"]})
    _draw_latencies(latencies, calls)
    return figure


def _draw_answers(axes: Axes, domains: Domains) -> None:
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
