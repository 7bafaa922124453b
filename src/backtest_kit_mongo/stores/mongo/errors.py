"""Errors of MongoDB: retry calls that are safe to repeat, and translate pymongo's errors into our own."""

from __future__ import annotations

import functools
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

__all__ = [
    "is_unresolved",
    "lost_alone",
    "lost_races",
    "reading",
    "retried",
    "together",
    "translated",
    "translated_items",
    "translates",
    "unconfirmed",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

# How often the first upsert of a key may lose a race with other writers before its error is raised. Each rival costs one retry.
_RACES = 5

_WRITE_CONCERN_FAILED = 64
# What to do about a server that does not answer, by what the error says.
_UNANSWERED = (
    (
        "certificate verify failed",
        "tlsCAFile=FILE in CC_MONGO_CONNECTION_STRING trusts the authority in FILE; the host name must be one that the certificate is for",
    ),
    ("tlsv1 alert internal error", "Atlas ends the handshake of an address that is not in the IP access list of the project"),
    ("", f"is it running? CC_MONGO_CONNECTION_STRING sets its address; {OWN_SERVERS}"),
)
_RANDOM = random.SystemRandom()  # not the generator that a strategy may have seeded
# Error codes of a server that is no longer the primary, or is shutting down ("retryable" in MongoDB's specification of retryable writes).
_PRIMARY_GONE = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})


def retried(domain: Domain, operation: Callable[[], R], patience: float) -> R:
    """Call ``operation``, which must be safe to repeat, and return its result.

    Call it again if the connection breaks, for up to ``patience`` seconds, or if the first upsert of a key loses a race with another one.
    Each call already waits for a server by itself. But pymongo notices that a server has gone only when its monitor does, and electing
    another primary takes seconds. A write is safe to repeat if it carries a transaction number (see ``sessions``).
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
            time.sleep(_RANDOM.uniform(0, pause))  # spread out the retries of several clients
            pause = min(0.2, pause + 0.02)
        except BacktestKitError:
            raise
        except (LookupError, ValueError) as error:  # pymongo raises these for a reply that lacks a field
            raise DatabaseError(f"a reply from MongoDB cannot be read: {_first_line(error)}") from error


def unconfirmed(failure: Mapping[str, Any]) -> PyMongoError:
    """Return the error for a ``writeConcernError``: an AutoReconnect if the write must be sent again to the next primary."""
    message = failure.get("errmsg", "write concern error")
    if failure.get("code") in _PRIMARY_GONE:
        return NotPrimaryError(message, dict(failure))
    kind = WTimeoutError if failure.get("code") == _WRITE_CONCERN_FAILED else WriteConcernError
    return kind(message, failure.get("code"), dict(failure))


def lost_races(domain: Domain, error: DuplicateKeyError | BulkWriteError) -> bool:
    """Return whether every failure is a duplicate of the domain's key or of ``_id``.

    Then another writer was first, or this one was, before a reconnect.
    """
    details = error.details or {}
    failures = details.get("writeErrors", []) if isinstance(error, BulkWriteError) else [details]
    if isinstance(error, BulkWriteError) and details.get("writeConcernErrors"):
        return False
    return bool(failures) and all(
        failure.get("code") == 11000 and list(failure.get("keyPattern") or ()) in (list(domain.key), ["_id"]) for failure in failures
    )


def together(errors: Sequence[BulkWriteError]) -> BulkWriteError:
    """Merge the errors of several messages into one."""
    names = ("writeErrors", "writeConcernErrors")
    return BulkWriteError({name: [failure for error in errors for failure in error.details[name]] for name in names})


def lost_alone(domain: Domain, reply: bytes) -> bool:
    """Return whether the reply to an insert reports nothing but keys that already exist.

    Raises an unconfirmed write concern that does not call for sending the write again. Any other problem returns False.
    """
    try:
        outcome = decode(reply)
        failures = outcome.get("writeErrors", [])
        if outcome.get("ok") != 1 or (failures and not lost_races(domain, BulkWriteError(outcome))):
            return False
        if "writeConcernError" in outcome:
            error = unconfirmed(outcome["writeConcernError"])
            if not isinstance(error, AutoReconnect):
                raise error
            return False
    except (LookupError, ValueError, TypeError):
        return False
    return True


def translated(error: PyMongoError) -> BacktestKitError:
    """Return our error for one of pymongo's. The message keeps the text of the server, which never contains secrets."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = details.get("writeErrors") or details.get("writeConcernErrors") or [{}]
        if any(failure.get("code") == _WRITE_CONCERN_FAILED for failure in details.get("writeConcernErrors", [])):
            return _not_replicated("")
        return _refused(f"{len(failures)} of the writes failed, the first with: {failures[0].get('errmsg')}", failures[0].get("code"))
    if isinstance(error, WTimeoutError):
        return _not_replicated(f": {_first_line(error)}")
    if isinstance(error, (ServerSelectionTimeoutError, NetworkTimeout, ExecutionTimeout)) or error.timeout:
        text = _first_line(error)
        return ServerTimeoutError(f"MongoDB did not answer in time: {text}", hint=next(hint for said, hint in _UNANSWERED if said in text))
    if isinstance(error, AutoReconnect):
        return ServerUnavailableError(f"lost the connection to MongoDB: {_first_line(error)}")
    if isinstance(error, DocumentTooLarge):
        return InvalidValueError(f"MongoDB limits a document to 16 MiB: {_first_line(error)}")
    if isinstance(error, OperationFailure):
        return _refused(_first_line(error), error.code)
    if isinstance(error, InvalidOperation) or type(error).__name__ == "_PoolClosedError":  # not in a public module
        return ServerUnavailableError(f"the client was closed while in use: {_first_line(error)}")
    if is_unresolved(error):
        return ServerUnavailableError(
            f"the host of CC_MONGO_CONNECTION_STRING cannot be resolved: {_first_line(error)}",
            hint="mongodb+srv:// looks up the SRV records of the host in DNS; check the host name and the network",
        )
    return DatabaseError(f"MongoDB: {type(error).__name__}: {_first_line(error)}")


def is_unresolved(error: Exception) -> bool:
    """Return whether DNS could not resolve the host of a connection string. (Older versions of pymongo look it up on creating a client.)"""
    reason = error.__cause__ or error.__context__
    # An SSLError, for a certificate that cannot be loaded, is an OSError too.
    return isinstance(error, ConfigurationError) and isinstance(reason, (DNSException, OSError)) and not isinstance(reason, ssl.SSLError)


def _not_replicated(said: str) -> ServerTimeoutError:
    return ServerTimeoutError(
        f"MongoDB did not confirm a write within the timeout of its write concern{said}",
        hint="the write is on the primary and will be kept or rolled back with it; you can repeat it. Check that a majority of the "
        "replica set's members is running; wtimeoutMS in CC_MONGO_CONNECTION_STRING sets how long to wait",
    )


def _refused(text: str, code: int | None) -> BacktestKitError:
    if code in (10334, 17419, 17420):
        return InvalidValueError(f"MongoDB limits a document to 16 MiB: {text}")
    hints = {
        13: "give the user of CC_MONGO_CONNECTION_STRING the role readWrite on the database (for a paper run, CC_PAPER_DATABASE)",
        18: "check the user, the password and authSource in CC_MONGO_CONNECTION_STRING",
    }
    return DatabaseError(f"MongoDB rejected the command: {text}", hint=hints.get(code or 0))


def _first_line(error: Exception) -> str:
    """Return the first line of an error, without the topology or the whole reply that pymongo appends."""
    text = (str(error).splitlines() or [""])[0]
    return re.split(r" \(configured timeouts:|, Timeout: |, full error: ", text)[0][:500]


def translates(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Decorate a method so that it raises our errors in place of pymongo's."""

    @functools.wraps(method)
    def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except PyMongoError as error:
            raise translated(error) from error
        except BSONError as error:
            raise DatabaseError(f"a document cannot be read: {_first_line(error)}") from error

    return wrapper


def translated_items(items: Iterator[T]) -> Iterator[T]:
    """Yield ``items``, and raise our errors in place of pymongo's."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except PyMongoError as error:
            raise translated(error) from error
        except BSONError as error:
            raise DatabaseError(f"a document cannot be read: {_first_line(error)}") from error
        yield item


class reading:
    """Turn a ValueError of the block, from a document that cannot be read, into a DatabaseError that names its collection."""

    __slots__ = ("domain", "what")

    def __init__(self, domain: Domain, what: str = "") -> None:
        self.domain: Domain = domain
        self.what: str = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError):
            where = f" ({self.what})" if self.what else ""
            raise DatabaseError(
                f"a document of {self.domain.collection!r}{where} cannot be read: {error}", hint="delete or repair it"
            ) from None
