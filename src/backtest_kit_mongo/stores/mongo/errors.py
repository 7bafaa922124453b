"""What can go wrong with MongoDB: what is tried again, and our errors for pymongo's."""

from __future__ import annotations

import functools
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from bson.errors import BSONError
from dns.exception import DNSException
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from ..._core.bson import decode
from ...domains import Domain
from ...errors import OWN_SERVERS, BacktestKitError, DatabaseError, InvalidValueError, ServerTimeoutError, ServerUnavailableError

__all__ = ["is_unresolved", "lost_alone", "lost_races", "reading", "retried", "together", "translated", "translates", "unconfirmed"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# How often a first upsert may lose the race for its key before its error is shown. One retry is enough for one rival.
_RACES = 5

_WRITE_CONCERN_FAILED = 64
# Codes of a server that is no longer the primary, or about to go (the "retryable" ones of MongoDB's specification of retryable writes).
_PRIMARY_GONE = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})


def retried(domain: Domain, operation: Callable[[], R], patience: float) -> R:
    """Run what may be run twice; again while the connection breaks, for ``patience`` seconds, or a first upsert loses the race for its key.

    Each run waits for a server by itself. But a server that has just gone is only known to be gone when pymongo's monitor has seen it,
    and another is elected after seconds. A write is safe to repeat where it carries a number (see ``sessions``).
    """
    races = 0
    until = pause = 0.0
    while True:
        try:
            return operation()
        except (ServerSelectionTimeoutError, NetworkTimeout):
            raise  # the configured time has passed
        except (DuplicateKeyError, BulkWriteError) as error:
            races += 1
            if races > _RACES or not lost_races(domain, error):
                raise
        except (AutoReconnect, OperationFailure) as error:
            if isinstance(error, OperationFailure) and error.code not in _PRIMARY_GONE:
                raise
            now = time.monotonic()
            until = until or now + patience
            if error.timeout or now >= until:
                raise
            time.sleep(random.uniform(0, pause))  # not all at once on a server that has just come back
            pause = min(0.2, pause + 0.02)
        except BacktestKitError:
            raise
        except (LookupError, ValueError) as error:  # pymongo's own words for a reply that lacks a field
            raise DatabaseError(f"a reply of MongoDB cannot be read: {_first_line(error)}") from error


def unconfirmed(failure: Mapping[str, Any]) -> PyMongoError:
    """The error for a ``writeConcernError``: an AutoReconnect where the write is to be sent again to the next primary."""
    said = failure.get("errmsg", "write concern error")
    if failure.get("code") in _PRIMARY_GONE:
        return NotPrimaryError(said, dict(failure))
    kind = WTimeoutError if failure.get("code") == _WRITE_CONCERN_FAILED else WriteConcernError
    return kind(said, failure.get("code"), dict(failure))


def lost_races(domain: Domain, error: DuplicateKeyError | BulkWriteError) -> bool:
    """Whether all that went wrong is that our own unique keys were inserted first: by others, or by us before a reconnect (``_id``)."""
    details = error.details or {}
    failures = details.get("writeErrors", []) if isinstance(error, BulkWriteError) else [details]
    if isinstance(error, BulkWriteError) and details.get("writeConcernErrors"):
        return False
    return bool(failures) and all(
        failure.get("code") == 11000 and list(failure.get("keyPattern") or ()) in (list(domain.key), ["_id"]) for failure in failures
    )


def together(errors: Sequence[BulkWriteError]) -> BulkWriteError:
    """The refusals of several messages as those of one."""
    names = ("writeErrors", "writeConcernErrors")
    return BulkWriteError({name: [failure for error in errors for failure in error.details[name]] for name in names})


def lost_alone(domain: Domain, reply: bytes) -> bool:
    """Whether all that an insert complains of is that keys were there before; an error that pymongo need not ask about again is raised."""
    try:
        found = decode(reply)
        failures = found.get("writeErrors", [])
        if found.get("ok") != 1 or (failures and not lost_races(domain, BulkWriteError(found))):
            return False
        if "writeConcernError" in found:
            error = unconfirmed(found["writeConcernError"])
            if not isinstance(error, AutoReconnect):
                raise error
            return False
    except (LookupError, ValueError, TypeError):
        return False
    return True


def translated(error: PyMongoError) -> BacktestKitError:
    """Our error for one of pymongo's; what the server said stays in the text, secrets never were in it."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        if any(failure.get("code") == _WRITE_CONCERN_FAILED for failure in details.get("writeConcernErrors", [])):
            return _not_replicated("")
        return _refused(f"{len(failures)} of the writes failed, the first with: {failures[0].get('errmsg')}", failures[0].get("code"))
    if isinstance(error, WTimeoutError):
        return _not_replicated(f": {_first_line(error)}")
    if isinstance(error, (ServerSelectionTimeoutError, NetworkTimeout, ExecutionTimeout)) or error.timeout:
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
    if is_unresolved(error):
        return ServerUnavailableError(
            f"the host of CC_MONGO_CONNECTION_STRING cannot be resolved: {_first_line(error)}",
            hint="mongodb+srv:// asks the DNS for the SRV records of the host: is the name right, and is there a network?",
        )
    return DatabaseError(f"MongoDB: {type(error).__name__}: {_first_line(error)}")


def is_unresolved(error: Exception) -> bool:
    """Whether the DNS does not know the host of a connection string. (Older versions of pymongo ask it as soon as a client is made.)"""
    reason = error.__cause__ or error.__context__
    # A certificate that cannot be loaded is an OSError as well.
    return isinstance(error, ConfigurationError) and isinstance(reason, (DNSException, OSError)) and not isinstance(reason, ssl.SSLError)


def _not_replicated(said: str) -> ServerTimeoutError:
    return ServerTimeoutError(
        f"MongoDB did not confirm a write within the time of its write concern{said}",
        hint="the write stands on the primary, and is kept or rolled back with what becomes of that; it can be repeated. "
        "Do a majority of the replica set's members run? wtimeoutMS in CC_MONGO_CONNECTION_STRING says how long to wait",
    )


def _refused(text: str, code: int | None) -> BacktestKitError:
    if code in (10334, 17419, 17420):
        return InvalidValueError(f"MongoDB takes at most 16 MiB for one document: {text}")
    hints = {
        13: "the user of CC_MONGO_CONNECTION_STRING needs readWrite on the database; that of a paper run is CC_PAPER_DATABASE",
        18: "user, password or authSource of CC_MONGO_CONNECTION_STRING are wrong",
    }
    return DatabaseError(f"MongoDB refuses: {text}", hint=hints.get(code or 0))


def _first_line(error: Exception) -> str:
    """What went wrong, without pymongo's description of the whole topology or reply behind it."""
    text = (str(error).splitlines() or [""])[0]
    return re.split(r" \(configured timeouts:|, Timeout: |, full error: ", text)[0][:500]


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
