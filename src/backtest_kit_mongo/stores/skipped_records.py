"""A report_skipped of a store: what is there and cannot be handed out is left as it lies, and told to whoever reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["collecting_skipped", "report_skipped"]

T = TypeVar("T")

_found: ContextVar[list[str] | None] = ContextVar("backtest_kit_mongo_survey", default=None)


def report_skipped(text: str) -> bool:
    """Tell a report_skipped what is left out, and why; False if there is none, so that a store may set a corrupt file aside."""
    found = _found.get()
    if found is not None:
        found.append(text)
    return found is not None


def collecting_skipped(items: Iterable[T], found: list[str]) -> Iterator[T]:
    """``items`` out of a store; what it leaves out goes into ``found``. Only the reading of them is a report_skipped."""
    iterator, end = iter(items), object()
    while True:
        token = _found.set(found)
        try:
            item = next(iterator, end)
        finally:
            _found.reset(token)
        if item is end:
            return
        yield item  # type: ignore[misc]
