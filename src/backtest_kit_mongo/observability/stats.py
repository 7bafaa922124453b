"""What ``stats()`` returns: a dict of counters, which a notebook shows as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..candles import library
from ..errors import InvalidValueError
from ..metrics import COUNTS
from .charts import draw_counters
from .html_tables import html_tables
from .text_tables import LEGEND, domain_tables, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Of", "StatsDict", "active", "counters_frame"]

Domains = Mapping[str, Mapping[str, Any]]
Of = Literal["domains", "operations"]


class StatsDict(dict[str, dict[str, Any]]):
    """A dict: domain -> counts, ``hit_ratio``, ``hit_ratios`` and ``operations``; see ``stats``. It can also show itself."""

    def to_dataframe(self, of: Of = "domains") -> Any:
        """Return a pandas DataFrame of the counters.

        Args:
            of: "domains" for a row per domain, "operations" for a row per domain and operation (durations in us)

        Raises:
            MissingDependencyError: pandas is not installed
            InvalidValueError: ``of`` is something else
        """
        return counters_frame(self, of)

    def plot(self) -> Figure:
        """Draw where reads were answered, and how long calls took, as a matplotlib figure that pyplot does not manage.

        Raises:
            MissingDependencyError: matplotlib is not installed
        """
        domains = active(self)
        return draw_counters(headline({"domains": domains}), domains)

    def _repr_html_(self) -> str:
        domains = active(self)
        return html_tables(headline({"domains": domains}), domain_tables(domains), LEGEND if domains else "")


def active(domains: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the domains that did something."""
    return {name: row for name, row in domains.items() if any(row[count] for count in COUNTS) or row["operations"]}


def counters_frame(domains: Domains, of: Of) -> Any:
    """Return counters as a pandas DataFrame: by domain, with the hit ratio of each layer, or by domain and operation."""
    pandas = library("pandas", "pandas")
    if of == "domains":
        rows = [
            {
                "domain": name,
                **{count: row[count] for count in COUNTS},
                "hit_ratio": row["hit_ratio"],
                **{f"hit_ratio_{layer}": ratio for layer, ratio in row["hit_ratios"].items()},
            }
            for name, row in domains.items()
        ]
        ratios = [name for name in rows[0] if name.startswith("hit_ratio")] if rows else []
        return pandas.DataFrame(rows).astype(dict.fromkeys(ratios, float)).set_index("domain") if rows else pandas.DataFrame()
    if of == "operations":
        calls = [
            {"domain": name, "operation": operation, **timing}
            for name, row in domains.items()
            for operation, timing in row["operations"].items()
        ]
        return pandas.DataFrame(calls).set_index(["domain", "operation"]) if calls else pandas.DataFrame()
    raise InvalidValueError(f"of is {of!r}; it must be 'domains' or 'operations'")
