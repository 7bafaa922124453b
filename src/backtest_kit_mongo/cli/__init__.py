"""The command ``backtest-kit-mongo``. Its packages are optional: nothing here is imported by the library."""

from __future__ import annotations

import sys

from ..errors import MissingDependencyError

__all__ = ["main"]

_OURS_ALONE = ("typer", "rich", "click")


def main() -> None:
    """Run the command with the arguments of this process, and end the process."""
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
    except KeyboardInterrupt:  # outside of a command, or a second one while the first is being obeyed
        sys.exit(130)
