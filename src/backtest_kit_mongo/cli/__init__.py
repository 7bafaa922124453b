"""The command ``backtest-kit-mongo``. Its packages are optional; the library imports nothing from here."""

from __future__ import annotations

import os
import sys

from ..errors import MissingDependencyError
from .completion import VARIABLE, answer

__all__ = ["main"]

_OURS_ALONE = ("typer", "rich", "click")


def main() -> None:
    """Run the command with the arguments of this process, then exit."""
    if shell := os.environ.get(VARIABLE):
        answer(shell, sys.argv[1:])
        return
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OURS_ALONE:
            raise
        missing = MissingDependencyError(
            f"the command line needs the package {error.name!r}, which is not installed", hint='pip install "backtest-kit-mongo[cli]"'
        )
        sys.exit(f"error: {missing}")
    try:
        app(prog_name="backtest-kit-mongo")
    except KeyboardInterrupt:  # outside a command, or a second Ctrl-C while the first one is being handled
        sys.exit(130)
