"""Profiles: what each domain did in a span of time, as a table, as JSON, as a DataFrame and as a plot."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..errors import InvalidValueError
from ..metrics import COUNTS, PERCENTILES, Stats
from .charts import draw_counters
from .html_tables import html_tables
from .stats import Of, active, counters_frame
from .text_tables import LEGEND, domain_tables, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..table_types import PandasFrame
    from .figure import NotebookFigure

__all__ = ["Report", "figures"]

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


class Report:
    """What the domains did during a ``profile()`` block; inside the block, what they did so far.

    Domains that did nothing are left out. ``str(report)`` is ``report.table()``.

    Args:
        measure: returns the figures in the form of ``to_dict``; ``profile`` and ``from_dict`` pass it

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> with kit.profile() as report:
        ...     kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
        >>> list(report.domains)
        ['signal']
    """

    def __init__(self, measure: Callable[[], dict[str, Any]]) -> None:
        self._measure = measure

    @classmethod
    def from_dict(cls, saved: Any) -> Self:
        """Rebuild a report from the result of ``to_dict`` or the decoded ``to_json``.

        Args:
            saved: such a dict

        Returns:
            a report with these figures

        Raises:
            InvalidValueError: ``saved`` is something else

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> kit.Report.from_dict({"seconds": 1.5, "domains": {}}).seconds
            1.5
        """
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
        """Return the report as ``{"seconds": ..., "domains": {...}}`` in plain types."""
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

    def to_dataframe(self, of: Of = "domains") -> PandasFrame:
        """Return a pandas DataFrame of the figures.

        Args:
            of: "domains" for a row per domain, "operations" for a row per domain and operation (durations in us)

        Raises:
            MissingDependencyError: pandas is not installed
            InvalidValueError: ``of`` is something else

        Examples:
            >>> import backtest_kit_mongo as kit
            >>> with kit.profile() as report:
            ...     kit.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
            >>> report.to_dataframe("operations").loc[("signal", "read"), "count"].item()
            1
        """
        return counters_frame(self.domains, of)

    def _repr_html_(self) -> str:
        figures = self._measure()
        return html_tables(headline(figures), domain_tables(figures["domains"]), LEGEND if figures["domains"] else "")

    def plot(self) -> Figure:
        """Draw where reads were answered, by domain, and how long calls took, as a matplotlib figure that pyplot does not manage.

        Raises:
            MissingDependencyError: matplotlib is not installed
        """
        return self._draw()

    def _draw(self) -> NotebookFigure:
        figures = self._measure()
        return draw_counters(headline(figures), figures["domains"])

    def save_png(self, path: str | os.PathLike[str]) -> None:
        """Write ``plot()`` as a PNG file to ``path``.

        Raises:
            InvalidValueError: the file cannot be written
            MissingDependencyError: matplotlib is not installed
        """
        image = self._draw().png()
        try:
            Path(path).write_bytes(image)
        except OSError as error:
            raise InvalidValueError(f"the picture cannot be written to {os.fspath(path)}: {error.strerror}") from error


def figures(seconds: float, stats: Stats) -> dict[str, Any]:
    """Return the content of a report: the domains of ``stats`` that did something, with rates over ``seconds``."""
    domains = {}
    for name, row in active(stats).items():
        calls = {
            operation: {**timing, "per_second": round(timing["count"] / max(seconds, 1e-9), 3)}
            for operation, timing in row["operations"].items()
        }
        domains[name] = {**row, "operations": calls}
    return {"seconds": round(seconds, 6), "domains": domains}
