"""What is said of an exception that user code has raised."""

from __future__ import annotations

import traceback
from asyncio import CancelledError
from typing import Final

__all__ = ["USER_ERRORS", "describe", "where"]

USER_ERRORS: Final = (Exception, SystemExit, CancelledError)
"""What code of a user may raise without ending more than its own call: some of it is no Exception."""


def where(error: BaseException, file: str) -> str:
    """``file:line`` of the innermost place in ``file`` that ``error`` passed; for a syntax error the place of the mistake."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else file


def describe(error: BaseException) -> str:
    """Type and message of an exception in one piece."""
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
