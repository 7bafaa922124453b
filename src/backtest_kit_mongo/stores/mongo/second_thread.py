"""Run one of two calls in another thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

__all__ = ["beside"]

A = TypeVar("A")
B = TypeVar("B")


def beside(other: Callable[[], B], here: Callable[[], A]) -> tuple[A, Callable[[], B]]:
    """Call ``other`` in a second thread and ``here`` in this one; return the result of ``here``, and a function that returns the other's.

    Where no thread can start, that function calls ``other``.
    """
    with ThreadPoolExecutor(1) as executor:
        try:
            later = executor.submit(copy_context().run, other)
        except RuntimeError:  # no more threads, or the interpreter is about to end
            return here(), other
        return here(), later.result
