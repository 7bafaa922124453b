"""The connection to MongoDB: one client per process (and per fork), its time-outs and durability, retries, our errors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl

import pymongo
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    PyMongoError,
    WriteConcernError,
    WTimeoutError,
)
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from .._core.bson import RecordReader, decode, split
from .._core.hits import Hits
from .._core.op_msg import NOT_TAKEN, MongoLink, upserted_ids
from ..config import DEFAULT_DATABASE, DEFAULT_TIMEOUT_MS, Config
from ..domains import Domain
from ..errors import (
    ConfigError,
    NotConfiguredError,
)
from ..metrics import BYTES_READ, BYTES_WRITTEN, Metrics
from .base import Key
from .failures import lost_races, retried
from .forks import renew_after_fork
from .lane import Lane
from .listening import check_listening
from .messages import WHOLE, Messages, concern, joined

__all__ = ["Document", "MongoConnection"]

Document = dict[str, Any]
# Documents are taken apart by the compiled core; pymongo hands them over as they came.
RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T", bound=tuple[Any, ...])

# Clients inherited through fork: never used, never closed (closing would end sessions that the parent still uses), and kept
# so that no destructor closes them either.
_inherited: list[Any] = []

# Ids per find: the server looks up the next ones while the documents of these are being read.
_IDS = 250


class MongoConnection:
    """A lazily made client on the configured database. No I/O before the first use."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.config = config
        self._metrics = metrics
        self._closed = False
        self._client: MongoClient[Document] | None = None
        self._straight: list[Hits] = []
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without a client; see ``forks``."""
        for hits in self._straight:
            hits.disconnect()
        if self._client is not None:
            _inherited.append(self._client)
        self._lock = threading.RLock()
        self._client = None
        self._lane_or_none: Lane | None = None
        self._collections: dict[str, Collection[Document]] = {}
        self._messages: dict[str, Messages] = {}

    @property
    def client(self) -> MongoClient[Document]:
        """The client of this process."""
        client = self._client
        if client is None:
            with self._lock:
                if self._closed:
                    raise NotConfiguredError(
                        "close(), or a setup() with other settings, has ended this connection while it was in use",
                        hint="call setup() once, before the work begins",
                    )
                if self._client is None:
                    self._client = self._make_client()
                client = self._client
        return client

    def _make_client(self) -> MongoClient[Document]:
        uri = self.config.CC_MONGO_CONNECTION_STRING
        given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
        defaults: dict[str, Any] = {"appname": "backtest-kit-mongo", "connect": False}
        if "retryreads" not in given:
            defaults["retryReads"] = False  # done here, see retried: pymongo would wait for a silent server three times over
        if "servermonitoringmode" not in given:
            # The streaming monitor hears of nothing between its heartbeats: after a failed login each call would wait 10 s for one.
            defaults["serverMonitoringMode"] = "poll"
        if "timeoutms" not in given:
            for name in ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"):
                if name.lower() not in given:
                    defaults[name] = DEFAULT_TIMEOUT_MS
        try:
            return MongoClient(uri, **defaults)
        except (ConfigurationError, PyMongoError, ValueError) as error:
            # The text of these errors can hold parts of the string, and so of the password.
            raise ConfigError(f"CC_MONGO_CONNECTION_STRING cannot be used ({type(error).__name__})") from None

    @property
    def database(self) -> Database[Document]:
        """The database that the connection string names (``backtest-kit`` where it names none); that of a paper run is one beside it."""
        database = self.client.get_default_database(default=DEFAULT_DATABASE)
        if self.config.CC_MODE != "paper":
            return database
        return self.client[self.config.CC_PAPER_DATABASE or f"{database.name}-paper"]

    def collection(self, domain: Domain) -> Collection[Document]:
        """The collection of a domain: read from the primary (else a write might not be seen), written as durability asks."""
        found = self._collections.get(domain.collection)
        if found is None:
            client = self.client
            if not self._collections:
                check_listening(self.config.CC_MONGO_CONNECTION_STRING)
            found = self.database.get_collection(
                domain.collection, read_preference=ReadPreference.PRIMARY, write_concern=self._write_concern(client)
            )
            self._collections[domain.collection] = found
        return found

    def _write_concern(self, client: MongoClient[Document]) -> WriteConcern:
        wanted = dict(client.write_concern.document)
        if wanted.get("w") == 0:
            raise ConfigError("w=0 in CC_MONGO_CONNECTION_STRING: writes without acknowledgement cannot be read back reliably")
        if self.config.CC_DURABILITY == "journal":
            wanted["j"] = True
        return WriteConcern(**wanted)

    def _messages_of(self, domain: Domain) -> Messages:
        found = self._messages.get(domain.collection)
        if found is None:
            found = self._messages[domain.collection] = Messages(self.collection(domain))
        return found

    @property
    def _lane(self) -> Lane:
        lane = self._lane_or_none
        if lane is None:
            client = self.client
            with self._lock:
                if self._lane_or_none is None:
                    self._lane_or_none = Lane(client, on=self.config.CC_WIRE_LANE)
                lane = self._lane_or_none
        return lane

    def connect(self, domain: Domain, hits: Hits) -> None:
        """Let ``hits`` read over this connection, until it is closed or the process forks."""
        messages, lane = self._messages_of(domain), self._lane
        if lane.usable and not self._closed:
            hits.connect(lane, messages.by_id_head, messages.by_id_tail)
            if hits not in self._straight:
                self._straight.append(hits)

    # Each call first takes the lane, and goes through pymongo where the lane does not take it, or did not get through with it.

    def _count(self, domain: Domain, which: int, size: int) -> None:
        self._metrics.domains[domain.name].add(which, size)

    # --- reading ---

    def find_one(self, domain: Domain, wanted: Document) -> bytes | None:
        """One document as BSON."""
        document = self._lane.call(MongoLink.find_one, self._messages_of(domain).find_one(wanted), b"", b"")
        if document is NOT_TAKEN:
            document = self._find_one(domain, wanted)
        if document is not None:
            self._count(domain, BYTES_READ, len(document))
        return document

    def match(self, domain: Domain, value: bytes, reader: RecordReader[T], key: Key) -> T | None:
        """What ``reader`` makes of the document of an id (12 bytes), or None if there is none or it is not the one of ``key``."""
        messages = self._messages_of(domain)
        counters = self._metrics.domains[domain.name]
        answer = self._lane.match(messages.by_id_head, value, messages.by_id_tail, reader, key, counters, BYTES_READ)
        if answer is not NOT_TAKEN:
            return answer
        document = self._find_one(domain, {"_id": ObjectId(value)})
        if document is None:
            return None
        counters.add(BYTES_READ, len(document))
        return reader.match(document, key)

    def _find_one(self, domain: Domain, wanted: Document) -> bytes | None:
        """The find command by itself: the cursor that pymongo puts around it costs a tenth of the call."""
        collection = self.collection(domain)
        command: Document = {"find": collection.name, "filter": wanted, "limit": 1, "singleBatch": True, **concern(collection)}
        batch = retried(domain, lambda: collection.database.command(command, codec_options=RAW)["cursor"]["firstBatch"])
        return batch[0].raw if batch else None

    def find(self, domain: Domain, wanted: Document, **options: Any) -> Iterator[bytes]:
        """The documents of a query, in batches of BSON, as they come; asked again if the connection breaks before the first one.

        For answers without end, which are not held in memory: a cursor of pymongo.
        """
        collection = self.collection(domain)

        def begin() -> tuple[Any, Any]:
            cursor = collection.find_raw_batches(wanted, **options)
            return cursor, next(cursor, None)

        cursor, batch = retried(domain, begin)
        with cursor:
            while batch is not None:
                self._count(domain, BYTES_READ, len(batch))
                yield batch
                batch = next(cursor, None)

    def fetch(self, domain: Domain, queries: Sequence[Document]) -> Iterator[bytes]:
        """All documents of some queries, one after the other, in batches of BSON. For answers that are taken whole.

        A query is a dict of ``filter`` and perhaps ``sort`` (field -> direction), ``projection``, ``skip`` and ``limit``, as in find.
        After a connection broke, documents of one query may come twice.
        """
        messages = self._messages_of(domain)
        done = 0
        for batch, cursor in self._lane.pipeline(((messages.find(query),) for query in queries), MongoLink.find_documents, messages.more):
            done += not cursor
            self._count(domain, BYTES_READ, len(batch))
            yield batch
        for query in queries[done:]:
            options = {name: value for name, value in query.items() if name not in ("filter", "sort")}
            sort = list(query.get("sort", {}).items()) or None
            yield from self.find(domain, query["filter"], sort=sort, batch_size=WHOLE, **options)

    def fetch_by_ids(self, domain: Domain, values: list[bytes]) -> Iterator[bytes]:
        """The documents of some ids (12 bytes each), in no order, in batches of BSON."""
        messages = self._messages_of(domain)
        chunks = [values[start : start + _IDS] for start in range(0, len(values), _IDS)]
        done = 0
        finds = ((messages.find_ids(chunk),) for chunk in chunks)
        for batch, cursor in self._lane.pipeline(finds, MongoLink.find_documents, messages.more):
            done += not cursor
            self._count(domain, BYTES_READ, len(batch))
            yield batch
        if done < len(chunks):
            yield from self.find(domain, {"_id": {"$in": [ObjectId(value) for value in values[done * _IDS :]]}}, batch_size=WHOLE)

    def count(self, domain: Domain, wanted: Document) -> int:
        """How many documents a filter has."""
        reply = self._lane.call(MongoLink.command, self._messages_of(domain).count(wanted))
        if reply is not NOT_TAKEN:
            return int(decode(reply)["n"])
        collection = self.collection(domain)
        command: Document = {"count": collection.name, "query": wanted, **concern(collection)}
        return int(retried(domain, lambda: collection.database.command(command))["n"])

    # --- writing ---

    def upsert(self, domain: Domain, wanted: Document, update: Document) -> tuple[bytes | None, bool]:
        """Update or insert the one document of a key; its ``_id`` (None if that is no ObjectId), and whether it is new."""
        command_bytes = self._messages_of(domain).upsert(wanted, update)
        self._count(domain, BYTES_WRITTEN, len(command_bytes))
        outcome = self._lane.call(MongoLink.upserted, command_bytes)
        if outcome is not NOT_TAKEN:
            return outcome

        def take(reply: Document) -> tuple[bytes | None, bool]:
            return _id_bytes(reply["value"]["_id"]), not reply["lastErrorObject"]["updatedExisting"]

        return self._find_and_modify(domain, self._messages_of(domain).upsert_command(wanted, update), take)

    def upsert_noting(self, domain: Domain, wanted: Document, update: Document) -> tuple[bytes | None, Document | None]:
        """As ``upsert``: the ``_id``, and the ``_id`` and ``when`` of the document as they were before; None if it is new."""
        messages = self._messages_of(domain)
        command = messages.upsert(wanted, update, before=True)
        self._count(domain, BYTES_WRITTEN, len(command))
        answer = self._lane.call(MongoLink.command, command)
        if answer is not NOT_TAKEN:
            return _id_before(decode(answer))
        return self._find_and_modify(domain, messages.upsert_command(wanted, update, before=True), _id_before)

    def _find_and_modify(self, domain: Domain, command: Document, take: Callable[[Document], R]) -> R:
        """What ``take`` makes of the reply to findAndModify."""
        collection = self.collection(domain)

        def run() -> R:
            reply = collection.database.command({**command, "writeConcern": collection.write_concern.document})
            failure = reply.get("writeConcernError")
            if failure is not None:
                error = WTimeoutError if failure.get("code") == 64 else WriteConcernError
                raise error(failure.get("errmsg", "write concern error"), failure.get("code"), failure)
            return take(reply)

        return retried(domain, run)

    def insert_members(self, domain: Domain, changes: Sequence[tuple[Document, Document]]) -> set[int]:
        """Insert what upserts of (filter, {"$set": encoded members}) would make; the positions of those whose ``_id`` was there."""
        sizes, batches = zip(*joined(changes), strict=True)
        there: set[int] = set()
        start = 0
        for size, lost in zip(sizes, self.insert_new(domain, batches), strict=True):
            there |= {start + index for index in lost}
            start += size
        return there

    def upsert_many(self, domain: Domain, changes: Sequence[tuple[Document, Document]], *, ordered: bool) -> dict[int, bytes | None]:
        """Upsert (filter, update) pairs; the ids of those that were new, by position.

        ``ordered``: each after the one before it, so that new documents get their ids in the order of ``changes``.
        """
        return self._update_many(domain, changes, ordered=ordered, upsert=True)[0]

    def update_many(self, domain: Domain, changes: Sequence[tuple[Document, Document]]) -> int:
        """Make (filter, update) changes to those documents that are there; how many were."""
        return self._update_many(domain, changes, ordered=False, upsert=False)[1]

    def _update_many(
        self, domain: Domain, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool
    ) -> tuple[dict[int, bytes | None], int]:
        inserted: dict[int, bytes | None] = {}
        sent: deque[tuple[int, int]] = deque()  # how many changes and bytes each message has

        def messages() -> Iterator[Sequence[bytes]]:
            for size, pieces in self._messages_of(domain).upserts(changes, ordered, upsert):
                sent.append((size, sum(map(len, pieces))))
                yield pieces

        done = matched = 0
        for reply in self._lane.pipeline(messages(), MongoLink.success, ahead=1 if ordered else 2):
            if upsert:
                inserted |= {done + index: value for index, value in upserted_ids(reply).items()}
            else:
                matched += int(decode(reply)["n"])
            size, length = sent.popleft()
            done += size
            self._count(domain, BYTES_WRITTEN, length)
        if done < len(changes):
            collection = self.collection(domain)
            requests: list[Any] = [UpdateOne(wanted, update, upsert=upsert) for wanted, update in changes[done:]]
            result = retried(domain, lambda: collection.bulk_write(requests, ordered=ordered))
            raw = (part.raw for _, update in changes[done:] for part in update.values() if isinstance(part, RawBSONDocument))
            self._count(domain, BYTES_WRITTEN, sum(map(len, raw)))
            inserted |= {done + index: _id_bytes(value) for index, value in (result.upserted_ids or {}).items()}
            matched += result.matched_count
        return inserted, matched

    def insert_new(self, domain: Domain, batches: Iterable[bytes]) -> Iterator[set[int]]:
        """Insert documents with their ids, given in batches of BSON; for each batch the positions of those whose key was there."""
        collection = self.collection(domain)
        coming = iter(batches)
        unanswered: deque[bytes] = deque()

        def messages() -> Iterator[Sequence[bytes]]:
            for batch in coming:
                unanswered.append(batch)
                yield self._messages_of(domain).insert(batch)

        for reply in self._lane.pipeline(messages(), MongoLink.reply):
            try:
                lost = _lost_inserts(domain, decode(reply))
            except (LookupError, ValueError):
                lost = None
            if lost is None:
                break  # sent again below, where pymongo makes an error of the refusal
            self._count(domain, BYTES_WRITTEN, len(unanswered.popleft()))
            yield lost
        for batch in chain(unanswered, coming):
            documents = [RawBSONDocument(document) for document in split(batch)]
            self._count(domain, BYTES_WRITTEN, len(batch))
            yield retried(domain, lambda documents=documents: _insert_new(collection, domain, documents))  # type: ignore[misc]

    def close(self) -> None:
        """Close the client; none is made again."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
            lane, self._lane_or_none = self._lane_or_none, None
            self._collections, self._messages = {}, {}
        for hits in self._straight:
            hits.disconnect()
        if lane is not None:
            lane.close()
        if client is not None:
            with pymongo.timeout(0.5):  # the farewell to the server, which may be dead, must not hold anybody up
                client.close()


def _insert_new(collection: Collection[Document], domain: Domain, documents: list[Any]) -> set[int]:
    """Insert documents; the positions of those whose key another writer had inserted first."""
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if not lost_races(domain, error):
            raise
        return {failure["index"] for failure in (error.details or {})["writeErrors"]}
    return set()


def _lost_inserts(domain: Domain, reply: Document) -> set[int] | None:
    """From the reply of an insert: the positions of documents whose key was there; None if anything else went wrong."""
    failures = reply.get("writeErrors", [])
    if reply.get("ok") != 1 or "writeConcernError" in reply or (failures and not lost_races(domain, BulkWriteError(reply))):
        return None
    return {failure["index"] for failure in failures}


def _id_before(reply: Document) -> tuple[bytes | None, Document | None]:
    """From the reply of findAndModify: the id of the document, and what was there before."""
    before = reply["value"]
    return _id_bytes(reply["lastErrorObject"]["upserted"] if before is None else before["_id"]), before


def _id_bytes(value: Any) -> bytes | None:
    """The 12 bytes of an ObjectId; None for an id of another type, which another writer may have given."""
    return value.binary if isinstance(value, ObjectId) else None
