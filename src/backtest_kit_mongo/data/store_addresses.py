"""Stores by address, for commands that take any: a folder of files, a MongoDB, a file of JSON lines."""

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
from ..stores.mongo.errors import translated
from ..stores.mongo.store import MongoStore
from .transfer import BATCH

__all__ = ["CONFIGURED", "FORMS", "OpenStore", "check_apart", "open_store"]

CONFIGURED: Final = "mongo:"
"""The address of the MongoDB that the settings name, so that a password need not be typed."""
FORMS: Final = f"file:FOLDER, jsonl:FOLDER (the log in FOLDER/log), mongodb://..., or {CONFIGURED} for the MongoDB of the settings"


class OpenStore(NamedTuple):
    """A store that an address led to."""

    shown: str
    """The address, without secrets."""
    store: Store
    domains: frozenset[str]
    """The domains that it can hold."""
    as_json: bool
    """Whether it keeps JSON, and so gives back other values than it took: dates as text, no infinities."""
    identity: Any
    """Equal for two addresses that lead to one place; of a folder of records its path."""
    count: Callable[[Iterable[str]], int]
    """About how many records the named domains have."""
    batch: int = BATCH
    """How many records to read at once by their keys."""


@contextmanager
def open_store(address: str, config: Config, *, existing: bool, timeout: float = 15.0) -> Iterator[OpenStore]:
    """The store at ``address``, closed at the end. Nothing is written to find it.

    ``config``: where ``mongo:`` is, and the rest of the settings. ``existing``: a folder that is not there is an error. A MongoDB must
    answer within ``timeout`` seconds; its Redis is neither asked nor written. Raises InvalidValueError for an address of no known form
    and for a place that is not there, ConfigError for a wrong connection string, ServerUnavailableError.
    """
    kind, _, rest = address.partition(":")
    if address == CONFIGURED:
        place = _mongo(config, timeout)
    elif kind in ("mongodb", "mongodb+srv"):
        place = _mongo(load_config({"CC_MONGO_CONNECTION_STRING": address}), timeout)
    elif kind in ("file", "jsonl") and rest:
        place = _folder(kind, Path(rest).expanduser(), existing, config)
    else:
        shown = redacted(address) if "://" in address or "@" in address else address
        raise InvalidValueError(f"{shown} is no address of a store", hint=f"an address is {FORMS}")
    with closing(place.store):
        yield place


def check_apart(source: OpenStore, target: OpenStore) -> None:
    """InvalidValueError if both are one place, or if one folder lies in the other."""
    one, other = source.identity, target.identity
    if one == other:
        raise InvalidValueError(f"{source.shown} and {target.shown} are the same place")
    if isinstance(one, Path) and isinstance(other, Path) and (one in other.parents or other in one.parents):
        raise InvalidValueError(f"one of {source.shown} and {target.shown} lies inside the other")


def _history(config: Config) -> History:
    return History(frozenset(config.CC_HISTORY), config.CC_HISTORY_LIMIT, config.CC_HISTORY_DAYS)


def _mongo(config: Config, timeout: float) -> OpenStore:
    store = MongoStore(config, Metrics(), _history(config))
    store.redis_ids.close()  # from here on it does nothing: which Redis belongs to an address is not known
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

    # One server has many names, but one number for its process (since MongoDB 4.4).
    server = hello.get("topologyVersion", {}).get("processId", shown)
    return OpenStore(shown, store, frozenset(DOMAINS), False, (server, database.name), count)


def _folder(kind: str, path: Path, existing: bool, config: Config) -> OpenStore:
    shown = f"{kind}:{path}"
    if existing and not path.exists():
        raise InvalidValueError(f"{shown}: there is no such folder")
    if path.exists() and not path.is_dir():
        raise InvalidValueError(f"{shown}: that is no folder")
    if kind == "file":
        return OpenStore(shown, FileStore(path, _history(config)), frozenset(DOMAINS), True, path.resolve(), partial(_count_files, path))
    store = JsonlStore(path, config.CC_LOG_ROTATE_MB * 1024 * 1024)

    def count(names: Iterable[str]) -> int:
        return sum(1 for _ in store.records(DOMAINS["log"]))

    # It finds entries by reading all of them, so many are asked for at once.
    return OpenStore(shown, store, frozenset({"log"}), True, ("log", path.resolve()), count, batch=50_000)


def _count_files(folder: Path, names: Iterable[str]) -> int:
    places = [place for name in names for place in (folder / "data" / name, folder / name)]  # a domain is in one of these
    return sum(name.endswith(".json") for place in places for _, _, files in os.walk(place) for name in files)
