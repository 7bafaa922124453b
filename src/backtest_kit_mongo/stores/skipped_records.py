"""Report records that a store skips: a record that cannot be read stays as it is, and the reader is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["collecting_skipped", "report_skipped"]

T = TypeVar("T")

_skipped: ContextVar[list[str] | None] = ContextVar("backtest_kit_mongo_survey", default=None)


def report_skipped(text: str) -> bool:
    """Report a skipped record and the reason to the enclosing ``collecting_skipped``.

    Returns False outside of one; the store may then set a corrupt file aside.
    """
    reports = _skipped.get()
    if reports is not None:
        reports.append(text)
    return reports is not None


def collecting_skipped(items: Iterable[T], skipped: list[str]) -> Iterator[T]:
    """Yield ``items`` of a store and append a text for each record that it skips to ``skipped``.

    Skipped records are collected only while the next item is being read, not while the caller works with it.
    """
    iterator, end = iter(items), object()
    while True:
        token = _skipped.set(skipped)
        try:
            item = next(iterator, end)
        finally:
            _skipped.reset(token)
        if item is end:
            return
        yield item  # type: ignore[misc]
