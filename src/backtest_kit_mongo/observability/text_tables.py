"""Plain text for people: sizes, aligned columns, and the two tables of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..metrics import PERCENTILES

__all__ = ["LEGEND", "Table", "domain_tables", "headline", "size"]

LEGEND: Final = "L1, Redis: correct ids from this process or from Redis; block: candle windows from memory; us: microseconds."

_BYTES: Final = ("bytes_read", "bytes_written")
_ALWAYS: Final = ("reads", "misses", "writes")
_HEADS: Final = {
    "reads": "reads", "hits_process": "L1", "hits_redis": "Redis", "hits_block": "block", "misses": "misses", "stale": "stale",
    "backfills": "backfills", "writes": "writes", "removes": "removes", "errors": "errors", "redis_errors": "Redis errors",
    "bytes_read": "received", "bytes_written": "sent", "future_reads": "future",
}  # fmt: skip


class Table(NamedTuple):
    """A table of text cells. Columns named in ``left`` are aligned to the left, the others to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[str] = ()

    def lines(self, width: int = 80) -> list[str]:
        """Return the header and the rows as text, with gaps of two spaces, or of one if the table is wider than ``width``."""
        cells = [self.columns, *self.rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        gap = "  " if sum(widths) + 2 * len(widths) <= width else " "
        return [
            gap.join(
                cell.ljust(width) if column in self.left else cell.rjust(width)
                for cell, width, column in zip(row, widths, self.columns, strict=True)
            ).rstrip()
            for row in cells
        ]


def headline(report: Mapping[str, Any]) -> str:
    """Return one line of text on what all domains of a ``Report.to_dict()`` did together; ``seconds`` may be missing."""
    rows = report["domains"].values()
    reads, writes, received, sent = (sum(row[count] for row in rows) for count in ("reads", "writes", "bytes_read", "bytes_written"))
    span = f"{report['seconds']:,.3f} s: " if "seconds" in report else ""
    return f"{span}{reads:,} read ({size(received)}), {writes:,} written ({size(sent)})"


def domain_tables(domains: Mapping[str, Mapping[str, Any]]) -> Iterable[Table]:
    """Yield the tables of a report: the counts of each domain (most columns that are all zero left out), and how long calls took."""
    shown = [name for name in _HEADS if name in _ALWAYS or any(row[name] for row in domains.values())]
    yield Table(
        ("domain", *(_HEADS[name] for name in shown), "hit ratio"),
        [(domain, *(_count(name, row[name]) for name in shown), _percent(row["hit_ratio"])) for domain, row in domains.items()],
        left=("domain",),
    )
    calls = [(domain, operation, stats) for domain, row in domains.items() for operation, stats in row["operations"].items()]
    labels = [(label, f"{label} us") for label, _ in PERCENTILES]
    if not calls or "per_second" in calls[0][2]:  # a report knows the time that it covers
        labels.insert(0, ("per_second", "per s"))
    yield Table(
        ("domain", "operation", "calls", *(head for _, head in labels)),
        [(domain, operation, f"{stats['count']:,}", *(_number(stats[label]) for label, _ in labels)) for domain, operation, stats in calls],
        left=("domain", "operation"),
    )


def size(count: float) -> str:
    """Format a number of bytes for people, in B, kB, MB or GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _count(name: str, value: int) -> str:
    return size(value) if name in _BYTES else f"{value:,}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio * 100:.1f} %"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
