"""What ``stats()`` returns: a dict of counters, which a notebook shows as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..candles import library
from ..errors import InvalidValueError
from ..metrics import COUNTS
from .charts import draw_counters
from .html_tables import html_tables
from .text_tables import LEGEND, domain_tables, headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..contract_names import DomainName
    from ..table_types import PandasFrame

__all__ = ["DomainStats", "Of", "OperationStats", "StatsDict", "active", "counters_frame"]

Domains = Mapping[str, Mapping[str, Any]]
Of = Literal["domains", "operations"]


class OperationStats(TypedDict):
    """How often an operation was called, and how long the calls took (us)."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class DomainStats(TypedDict):
    """What a domain did; ``Metrics.snapshot`` says what each count means."""

    reads: int
    hits_process: int
    hits_redis: int
    misses: int
    stale: int
    backfills: int
    writes: int
    removes: int
    errors: int
    redis_errors: int
    hits_block: int
    bytes_read: int
    bytes_written: int
    future_reads: int
    hit_ratio: float | None
    hit_ratios: dict[Literal["process", "redis", "block"], float | None]
    operations: dict[Literal["read", "write", "remove", "list", "read_many", "write_many"], OperationStats]


class StatsDict(dict[str, dict[str, Any]]):
    """A dict: domain -> counts, ``hit_ratio``, ``hit_ratios`` and ``operations``; see ``stats``. It can also show itself."""

    if TYPE_CHECKING:  # finds a misspelt name; a dict of these types could not be passed on as a plain dict

        def __getitem__(self, domain: DomainName, /) -> DomainStats: ...  # type: ignore[override]

    def to_dataframe(self, of: Of = "domains") -> PandasFrame:
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


def counters_frame(domains: Domains, of: Of) -> PandasFrame:
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
        frame: PandasFrame = pandas.DataFrame(rows)
        return frame.astype(dict.fromkeys(ratios, float)).set_index("domain") if rows else frame
    if of == "operations":
        calls = [
            {"domain": name, "operation": operation, **timing}
            for name, row in domains.items()
            for operation, timing in row["operations"].items()
        ]
        frame = pandas.DataFrame(calls)
        return frame.set_index(["domain", "operation"]) if calls else frame
    raise InvalidValueError(f"of is {of!r}; it must be 'domains' or 'operations'")
