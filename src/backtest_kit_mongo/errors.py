"""The exceptions of this library: all derive from BacktestKitError, most also from the builtin exception that you would expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "BacktestKitError",
    "ConfigError",
    "DamagedCandlesError",
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
    """Base class of all errors of this library. The message says what happened, and what to do if that is known.

    Args:
        message: what happened
        hint: what to do; the text of the error includes it

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> try:
        ...     kit.setup(CC_REDIS_HOTS="redis")
        ... except kit.BacktestKitError as error:
        ...     print(error.hint.partition("?")[0])
        did you mean CC_REDIS_HOST
    """

    hint: str | None
    """What to do; None if the library has no advice."""

    results: Sequence[Any] = ()
    """A ``BacktestResult`` per backtest that this error affects, not ``complete`` if the error ended it. Empty for other errors."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.hint = hint


class ConfigError(BacktestKitError, ValueError):
    """A setting is unknown, or its value is not allowed. The hint names the nearest known name or value."""


class NotConfiguredError(BacktestKitError, RuntimeError):
    """A contract was called before ``setup()``, or after ``close()``. Call ``setup()`` first."""


class InvalidTypeError(BacktestKitError, TypeError):
    """An argument or a body has a type that cannot be stored. Nothing was written. The message names the argument or the field."""


class InvalidValueError(BacktestKitError, ValueError):
    """An argument or a body has a value that cannot be stored. Nothing was written. The message names the argument or the field."""


class LookAheadError(BacktestKitError, ValueError):
    """A read asked for data of a later simulation time: a record written then (with ``look_ahead="raise"``), or candles that close then.

    Ask for what was known at that time, or set ``look_ahead="hide"`` to read such data as absent.
    """


class StorageError(BacktestKitError, OSError):
    """A file cannot be read or written: missing permissions, a full disk. No acknowledged write is lost.

    ``errno`` and ``filename`` are those of the operating system's error, which is the ``__cause__``.
    """

    def __str__(self) -> str:
        return str(self.args[0])  # an OSError with a filename would show errno and filename instead of the message


class ServerUnavailableError(BacktestKitError, ConnectionError):
    """A server cannot be reached, or it closed the connection. The same call may succeed later."""


OWN_SERVERS: Final = "no server of your own? setup(embedded=True) starts both (CC_EMBEDDED=1, or --embedded on the command line)"
"""Part of the hint of every error about a server that does not answer."""


class ServerTimeoutError(ServerUnavailableError, TimeoutError):
    """A server did not answer within the configured timeout. A write may or may not be stored: read, or write again."""


class ServerStartError(BacktestKitError, RuntimeError):
    """An embedded server could not be started. The message includes the end of its log."""


class IndexConflictError(BacktestKitError, RuntimeError):
    """An index or duplicate documents in the database contradict a unique key. The message says how to repair it."""

    conflicts: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType({})
    """What is wrong, by collection: pairs of a description and the mongosh command that repairs it."""


class DatabaseError(BacktestKitError, RuntimeError):
    """A server answered, but rejected the command: missing permissions, failed validation, a full disk. The message has its reason."""


class DamagedCandlesError(DatabaseError):
    """A block of archived candles cannot be read, and its candles are stored nowhere else. Restore the block that the message names."""


class MissingDependencyError(BacktestKitError, ImportError):
    """An optional package is not installed. The message says which ``pip install`` installs it."""


def with_notes(error: BaseException) -> str:
    """Return the message of an exception, then each of its notes on a line of its own."""
    return "\n  ".join([str(error), *getattr(error, "__notes__", ())])
