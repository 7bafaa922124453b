"""What can go wrong with MongoDB: what is tried again, and our errors for pymongo's."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WTimeoutError,
)

from ..domains import Domain
from ..errors import OWN_SERVERS, BacktestKitError, DatabaseError, InvalidValueError, ServerTimeoutError, ServerUnavailableError

__all__ = ["lost_races", "reading", "retried", "translated", "translates"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# How often a first upsert may lose the race for its key before its error is shown. One retry is enough for one rival.
_RACES = 5


def retried(domain: Domain, operation: Callable[[], R]) -> R:
    """Run an idempotent write; once more if the connection broke, and again while a first upsert loses the race for its key.

    MongoDB retries neither on a standalone server (retryable writes need a replica set) nor, before 4.2, the race.
    """
    races = 0
    reconnected = False
    while True:
        try:
            return operation()
        except (ServerSelectionTimeoutError, NetworkTimeout):
            raise  # the configured time has passed
        except AutoReconnect:
            if reconnected:
                raise
            reconnected = True
        except (DuplicateKeyError, BulkWriteError) as error:
            races += 1
            if races > _RACES or not lost_races(domain, error):
                raise
        except BacktestKitError:
            raise
        except (LookupError, ValueError) as error:  # pymongo's own words for a reply that lacks a field
            raise DatabaseError(f"a reply of MongoDB cannot be read: {_first_line(error)}") from error


def lost_races(domain: Domain, error: DuplicateKeyError | BulkWriteError) -> bool:
    """Whether all that went wrong is that our own unique keys were inserted first: by others, or by us before a reconnect (``_id``)."""
    details = error.details or {}
    failures = details.get("writeErrors", []) if isinstance(error, BulkWriteError) else [details]
    if isinstance(error, BulkWriteError) and details.get("writeConcernErrors"):
        return False
    return bool(failures) and all(
        failure.get("code") == 11000 and list(failure.get("keyPattern") or ()) in (list(domain.key), ["_id"]) for failure in failures
    )


def translated(error: PyMongoError) -> BacktestKitError:
    """Our error for one of pymongo's; what the server said stays in the text, secrets never were in it."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        if any(failure.get("code") == 64 for failure in details.get("writeConcernErrors", [])):
            return ServerTimeoutError("MongoDB did not acknowledge a write within its write concern's time")
        return _refused(f"{len(failures)} of the writes failed, the first with: {failures[0].get('errmsg')}", failures[0].get("code"))
    if isinstance(error, (ServerSelectionTimeoutError, NetworkTimeout, ExecutionTimeout, WTimeoutError)) or error.timeout:
        return ServerTimeoutError(
            f"MongoDB did not answer in time: {_first_line(error)}",
            hint=f"is it running? CC_MONGO_CONNECTION_STRING says where; {OWN_SERVERS}",
        )
    if isinstance(error, AutoReconnect):
        return ServerUnavailableError(f"the connection to MongoDB broke: {_first_line(error)}")
    if isinstance(error, DocumentTooLarge):
        return InvalidValueError(f"MongoDB takes at most 16 MiB for one document: {_first_line(error)}")
    if isinstance(error, OperationFailure):
        return _refused(_first_line(error), error.code)
    if isinstance(error, InvalidOperation) or type(error).__name__ == "_PoolClosedError":  # it is in no public module
        return ServerUnavailableError(f"the client was closed while it was in use: {_first_line(error)}")
    return DatabaseError(f"MongoDB: {type(error).__name__}: {_first_line(error)}")


def _refused(text: str, code: int | None) -> BacktestKitError:
    if code in (10334, 17419, 17420):
        return InvalidValueError(f"MongoDB takes at most 16 MiB for one document: {text}")
    hints = {
        13: "the user of CC_MONGO_CONNECTION_STRING needs readWrite on the database",
        18: "user, password or authSource of CC_MONGO_CONNECTION_STRING are wrong",
    }
    return DatabaseError(f"MongoDB refuses: {text}", hint=hints.get(code or 0))


def _first_line(error: Exception) -> str:
    """What went wrong, without pymongo's description of the whole topology behind it."""
    text = (str(error).splitlines() or [""])[0]
    return re.split(r" \(configured timeouts:|, Timeout: ", text)[0][:500]


def translates(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Let a method raise our errors for pymongo's."""

    @functools.wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except PyMongoError as error:
            raise translated(error) from error
        except BSONError as error:
            raise DatabaseError(f"a document cannot be read: {_first_line(error)}") from error

    return wrapper


class reading:
    """A document that cannot be read is an error that says which collection to look into."""

    __slots__ = ("domain", "what")

    def __init__(self, domain: Domain, what: str = "") -> None:
        self.domain = domain
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError):
            where = f" ({self.what})" if self.what else ""
            raise DatabaseError(
                f"a document of {self.domain.collection!r}{where} cannot be read: {error}", hint="delete or mend it"
            ) from None
