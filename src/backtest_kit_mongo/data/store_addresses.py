"""Open a store by its address: a folder of files, a MongoDB, or a log of JSON lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pymongo
from pymongo.errors import PyMongoError

from ..config import Config, load_config, redacted
from ..domains import DOMAINS
from ..errors import InvalidValueError
from ..metrics import Metrics
from ..stores.base import History, Store
from ..stores.files.jsonl import JsonlStore
from ..stores.files.store import FileStore
from ..stores.files.tree_names import GivenNames
from ..stores.mongo.errors import translated
from ..stores.mongo.store import MongoStore
from .transfer import BATCH

__all__ = ["CONFIGURED", "FORMS", "OpenStore", "check_apart", "open_store"]

CONFIGURED: Final = "mongo:"
"""The address of the MongoDB in the settings, so that nobody needs to type a password."""
FORMS: Final = f"file:FOLDER, jsonl:FOLDER (the log in FOLDER/log), mongodb://..., or {CONFIGURED} for the MongoDB of the settings"


class OpenStore(NamedTuple):
    """A store opened by its address."""

    shown: str
    """The address, without secrets."""
    store: Store
    domains: frozenset[str]
    """The domains that it can hold."""
    as_json: bool
    """Whether it stores JSON, in which some fields of the framework have another form: dates are text, infinite lifetimes null."""
    identity: Any
    """Equal for two addresses of the same store; the path for a folder of records."""
    count: Callable[[Iterable[str]], int]
    """Return the approximate number of records of the named domains."""
    batch: int = BATCH
    """How many records to read by key at once."""
    expect: Callable[[int], None] = lambda rows: None
    """Say how many rows of lists are still to be written, before a batch is written: those get later dates."""


@contextmanager
def open_store(
    address: str,
    config: Config,
    *,
    existing: bool,
    timeout: float = 15.0,
    given: GivenNames = GivenNames(),  # noqa: B008
) -> Iterator[OpenStore]:
    """Open the store at ``address`` and close it at the end. Opening writes nothing.

    ``config`` holds the address of ``mongo:`` and the other settings. With ``existing``, a folder that does not exist is an error. A
    MongoDB must answer within ``timeout`` seconds; its Redis is neither read nor written. ``given`` are names that occur in a folder of
    files. Raises InvalidValueError for an unknown form of address or a missing folder, ConfigError for an invalid connection string, and
    ServerUnavailableError if MongoDB does not answer.
    """
    kind, _, rest = address.partition(":")
    if address == CONFIGURED:
        opened = _mongo(config, timeout)
    elif kind in ("mongodb", "mongodb+srv"):
        opened = _mongo(load_config({"CC_MONGO_CONNECTION_STRING": address}), timeout)
    elif kind in ("file", "jsonl") and rest:
        opened = _folder(kind, Path(rest).expanduser(), existing, config, given)
    else:
        shown = redacted(address) if "://" in address or "@" in address else address
        raise InvalidValueError(f"{shown} is not the address of a store", hint=f"use {FORMS}")
    with closing(opened.store):
        yield opened


def check_apart(source: OpenStore, target: OpenStore) -> None:
    """Raise InvalidValueError if both are the same store, or if one folder is inside the other."""
    one, other = source.identity, target.identity
    if one == other:
        raise InvalidValueError(f"{source.shown} and {target.shown} are the same store")
    if isinstance(one, Path) and isinstance(other, Path) and (one in other.parents or other in one.parents):
        raise InvalidValueError(f"one of {source.shown} and {target.shown} is inside the other")


def _history(config: Config) -> History:
    return History(frozenset(config.CC_HISTORY), config.CC_HISTORY_LIMIT, config.CC_HISTORY_DAYS)


def _mongo(config: Config, timeout: float) -> OpenStore:
    store = MongoStore(config, Metrics(), _history(config))
    store.redis_ids.close()  # turns it off: the address does not tell which Redis belongs to the MongoDB
    try:
        with pymongo.timeout(timeout):
            hello = store.connection.client.admin.command("hello")
    except PyMongoError as error:
        store.close()
        raise translated(error) from error
    shown = redacted(config.CC_MONGO_CONNECTION_STRING)
    database = store.connection.database

    def count(names: Iterable[str]) -> int:
        try:
            return sum(database[DOMAINS[name].collection].estimated_document_count() for name in names)
        except PyMongoError as error:
            raise translated(error) from error

    # A server can have many names, but its process has one id (since MongoDB 4.4).
    server = hello.get("topologyVersion", {}).get("processId", shown)
    expect = partial(setattr, store.write_dates, "to_come")
    return OpenStore(shown, store, frozenset(DOMAINS), False, (server, database.name), count, expect=expect)


def _folder(kind: str, path: Path, existing: bool, config: Config, given: GivenNames) -> OpenStore:
    shown = f"{kind}:{path}"
    if existing and not path.exists():
        raise InvalidValueError(f"{shown}: there is no such folder")
    if path.exists() and not path.is_dir():
        raise InvalidValueError(f"{shown}: that is not a folder")
    if kind == "file":
        files = FileStore(path, _history(config), given=given)
        return OpenStore(shown, files, frozenset(DOMAINS), True, path.resolve(), partial(_count_files, path))
    store = JsonlStore(path, config.CC_LOG_ROTATE_MB * 1024 * 1024)

    def count(names: Iterable[str]) -> int:
        return sum(1 for _ in store.records(DOMAINS["log"]))

    # The log looks up entries by reading all of them, so read many at once.
    return OpenStore(shown, store, frozenset({"log"}), True, ("log", path.resolve()), count, batch=50_000)


def _count_files(folder: Path, names: Iterable[str]) -> int:
    roots = [root for name in names for root in (folder / "data" / name, folder / name)]  # a domain is in one of these
    return sum(name.endswith(".json") for root in roots for _, _, files in os.walk(root) for name in files)
