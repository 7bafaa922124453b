"""Report records that a store skips, and what it has assumed about others. A skipped record stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

__all__ = ["collecting_skipped", "report_note", "report_skipped"]

T = TypeVar("T")


class _Reports(NamedTuple):
    skipped: list[str]
    notes: list[str] | None


_reports: ContextVar[_Reports | None] = ContextVar("backtest_kit_mongo_survey", default=None)


def report_skipped(text: str) -> bool:
    """Report a skipped record and the reason to the enclosing ``collecting_skipped``.

    Returns False outside of one; the store may then set a corrupt file aside.
    """
    reports = _reports.get()
    if reports is not None:
        reports.skipped.append(text)
    return reports is not None


def report_note(text: str) -> bool:
    """Report how records were read whose path did not tell their key. Returns False if no ``collecting_skipped`` collects notes."""
    reports = _reports.get()
    if reports is None or reports.notes is None:
        return False
    reports.notes.append(text)
    return True


def collecting_skipped(items: Iterable[T], skipped: list[str], notes: list[str] | None = None) -> Iterator[T]:
    """Yield ``items`` of a store, append a text for each record that it skips to ``skipped``, and its notes to ``notes``.

    They are collected only while the next item is being read, not while the caller works with it.
    """
    reports = _Reports(skipped, notes)
    iterator, end = iter(items), object()
    while True:
        token = _reports.set(reports)
        try:
            item = next(iterator, end)
        finally:
            _reports.reset(token)
        if item is end:
            return
        yield item  # type: ignore[misc]
