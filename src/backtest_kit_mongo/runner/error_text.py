"""Describe exceptions that user code raised."""

from __future__ import annotations

import traceback
from asyncio import CancelledError
from typing import Final

__all__ = ["USER_ERRORS", "describe", "where"]

USER_ERRORS: Final = (Exception, SystemExit, CancelledError)
"""What user code may raise and end only its own call. SystemExit and CancelledError do not derive from Exception."""


def where(error: BaseException, file: str) -> str:
    """Return ``file:line`` of the innermost frame of ``error`` in ``file``; for a syntax error, the position of the mistake."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else file


def describe(error: BaseException) -> str:
    """Return the type and message of an exception as one text."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
