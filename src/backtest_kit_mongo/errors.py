"""Everything this library raises: one base, and the builtin that a caller would catch anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "BacktestKitError",
    "ConfigError",
    "DatabaseError",
    "IndexConflictError",
    "InvalidTypeError",
    "InvalidValueError",
    "LookAheadError",
    "MissingDependencyError",
    "NotConfiguredError",
    "ServerStartError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "StorageError",
]


class BacktestKitError(Exception):
    """Base of every error of this library.

    The message says what happened; ``hint``, where there is one, says what to do and is part of the text.
    """

    hint: str | None

    results: Sequence[Any] = ()
    """What the backtests that this error ended had reached: each a ``BacktestResult`` that is not ``complete``. Else empty."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.hint = hint


class ConfigError(BacktestKitError, ValueError):
    """A setting is unknown or has a value it cannot have."""


class NotConfiguredError(BacktestKitError, RuntimeError):
    """A contract was called before ``setup()``, or after ``close()``."""


class InvalidTypeError(BacktestKitError, TypeError):
    """An argument or a payload holds a type that cannot be stored; nothing was written."""


class InvalidValueError(BacktestKitError, ValueError):
    """An argument or a payload holds a value that cannot be stored; nothing was written."""


class LookAheadError(BacktestKitError, ValueError):
    """What a read asked for lies in the future: written at a later simulation time (``look_ahead`` is "raise"), or candles of later."""


class StorageError(BacktestKitError, OSError):
    """A file cannot be read or written: missing rights, a full disk; nothing that was acknowledged is lost.

    ``errno`` and ``filename`` are those of the system's error, which is the cause.
    """

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError with a file name would show that name in place of the message


class ServerUnavailableError(BacktestKitError, ConnectionError):
    """A server cannot be reached, or broke the connection; the same call may succeed later."""


OWN_SERVERS: Final = "no server of your own? setup(embedded=True) starts both (CC_EMBEDDED=1, or --embedded on the command line)"
"""For the hint of every error that says that a server does not answer."""


class ServerTimeoutError(ServerUnavailableError, TimeoutError):
    """A server did not answer within the configured time."""


class ServerStartError(BacktestKitError, RuntimeError):
    """An embedded server could not be started; the message holds the tail of its log."""


class IndexConflictError(BacktestKitError, RuntimeError):
    """The database holds an index or duplicate documents that contradict a unique key; the message holds the cure.

    ``conflicts`` has the same by collection: pairs of what was found and the mongosh command that mends it.
    """

    conflicts: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({})


class DatabaseError(BacktestKitError, RuntimeError):
    """A server answered, and refused: missing rights, a failed validation, a full disk."""


class MissingDependencyError(BacktestKitError, ImportError):
    """An optional package is needed; the message says how to install it."""


def with_notes(error: BaseException) -> str:
    """The message of an exception and its notes, a line each."""
    return "\n  ".join([str(error), *getattr(error, "__notes__", ())])
