"""The result of a sweep: one row for each run, as JSON, CSV or DataFrame."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...candles import library
from ...errors import InvalidValueError
from ..engine.result import Totals
from ..loading.parameters import Scalar
from ..report.notebook import draw_sweep, sweep_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ...table_types import PandasFrame

__all__ = ["METRICS", "SweepResult", "SweepRun"]

METRICS: Final = tuple(field.encode_name for field in msgspec.structs.fields(Totals))
"""What runs can be sorted by: the columns of ``Totals``."""

_OTHERS: Final = ("symbol", "signalsIgnored", "frameName", "error")
_LESS_IS_BETTER: Final = ("losses", "maxDrawdownPercentage", "stopLosses")


class SweepRun(msgspec.Struct, frozen=True, rename="camel"):
    """One run of a sweep: its totals, or the text of the error that ended it."""

    symbol: str
    """The traded pair."""
    parameters: dict[str, Scalar]
    """The values of the parameters."""
    frame_name: str
    """The frame of its records."""
    start_timestamp: int
    """The start of the window, in ms."""
    end_timestamp: int
    """The end of the window in ms, which is not part of it."""
    totals: Totals | None = None
    """The totals; None if the run failed."""
    error: str | None = None
    """The text of the error that ended the run; None if it did not fail."""
    signals_ignored: int = 0
    """How many signals had a stop and target that did not fit the price."""


class SweepResult(msgspec.Struct, frozen=True, rename="camel"):
    """The runs of a sweep, in the order of symbols and grid. It holds no wall-clock times, so two sweeps compare byte for byte."""

    strategy_name: str
    """The strategy of the runs."""
    exchange_name: str
    """The exchange of their candles."""
    runs: tuple[SweepRun, ...]
    """The runs."""

    def sorted_by(self, metric: str = "pnlPercentage") -> tuple[SweepRun, ...]:
        """Return the runs sorted by a ``metric``, best first. Ties keep their order; failed runs come last.

        Metrics are the fields of Totals in camelCase, such as "winRate".

        Raises:
            InvalidValueError: there is no such metric
        """
        if metric not in METRICS:
            raise InvalidValueError(f"runs cannot be sorted by {metric!r}", hint=f"choose one of {', '.join(METRICS)}")
        sign = 1 if metric in _LESS_IS_BETTER else -1

        def rank(run: SweepRun) -> tuple[bool, float]:
            return run.totals is None, 0.0 if run.totals is None else sign * _flat(run)[metric]

        return tuple(sorted(self.runs, key=rank))

    def rows(self, metric: str | None = None) -> list[dict[str, Any]]:
        """Return a flat row per run: symbol, parameters, totals (None if the run failed), frame name, error. ``metric`` sorts them.

        Raises:
            InvalidValueError: there is no such metric
        """
        runs = self.runs if metric is None else self.sorted_by(metric)
        return [_flat(run) for run in runs]

    def to_json(self) -> bytes:
        """Return JSON with camelCase names."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def to_csv(self, metric: str | None = None) -> str:
        """Return ``rows`` as CSV with a header; ``metric`` sorts them."""
        text = io.StringIO()
        rows = self.rows(metric)
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def plot(self, metric: str = "pnlPercentage") -> Figure:
        """Draw a ``metric`` of the best runs (at most 40) as a matplotlib figure that pyplot does not manage.

        Raises:
            InvalidValueError: there is no such metric
            MissingDependencyError: matplotlib is not installed
        """
        return draw_sweep(self, metric)

    def _repr_html_(self) -> str:
        return sweep_html(self)

    def to_dataframe(self, metric: str | None = None) -> PandasFrame:
        """Return ``rows`` as a pandas DataFrame; ``metric`` sorts them.

        Raises:
            InvalidValueError: there is no such metric
            MissingDependencyError: pandas is not installed
        """
        frame: PandasFrame = library("pandas", "pandas").DataFrame(self.rows(metric))
        return frame


def _flat(run: SweepRun) -> dict[str, Any]:
    totals: Mapping[str, Any] = dict.fromkeys(METRICS) if run.totals is None else msgspec.to_builtins(run.totals)
    # A parameter may have the same name as a total; the rows need both.
    parameters = {f"parameter {name}" if name in _OTHERS + METRICS else name: value for name, value in run.parameters.items()}
    counts = {"signalsIgnored": run.signals_ignored}
    return {"symbol": run.symbol, **parameters, **totals, **counts, "frameName": run.frame_name, "error": run.error}
