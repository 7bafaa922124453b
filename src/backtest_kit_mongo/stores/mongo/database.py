"""The connection to MongoDB: one client per process, with timeouts, durability and retries. Calls use the wire protocol, else pymongo."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import pymongo
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect, BulkWriteError, ConfigurationError
from pymongo.read_preferences import ReadPreference

from ..._core.bson import RecordReader, decode, split
from ..._core.hit_reader import HitReader
from ..._core.op_msg import NOT_TAKEN, MongoSocket, upserted_ids
from ..._core.upsert_writer import UpsertWriter
from ...config import DEFAULT_DATABASE, Config
from ...domains import Domain
from ...errors import NotConfiguredError
from ...metrics import BYTES_READ, BYTES_WRITTEN, Metrics
from ..base import Key
from ..fork_safety import renew_after_fork
from .availability import check_listening
from .client import is_sharded, make_client, topology, warn_of_lost_writes, write_concern
from .documents import Document, key_fields
from .errors import lost_alone, lost_races, retried, together, unconfirmed
from .messages import STATEMENTS, WHOLE, Messages, chunks, concern, id_after, id_before, joined, size_of
from .sessions import Sessions, TransactionNumber
from .wire import WirePool

__all__ = ["MongoDatabase"]

# The compiled core decodes documents; pymongo passes them on as raw bytes.
RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
R = TypeVar("R")
T = TypeVar("T", bound=tuple[Any, ...])

# Clients inherited through fork: never used, and kept so that nothing closes them, which would end sessions of the parent.
_inherited: list[Any] = []

_IDS = 250
"""Ids per find: the server looks up the next ones while this process reads these documents. (A smaller first batch did not help.)"""


class _Part(NamedTuple):
    """The part of a bulk write that is sent in one message: its positions [start, end) and its transaction number."""

    start: int
    end: int
    number: TransactionNumber | None


class MongoDatabase:
    """The configured database. Its client is created on demand; there is no I/O before the first use."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self.config = config
        self._metrics = metrics
        self._closed = False
        self._client: MongoClient[Document] | None = None
        self._straight: list[HitReader | UpsertWriter] = []
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without a client; see ``fork_safety``."""
        for path in self._straight:
            path.disconnect()
        if self._client is not None:
            _inherited.append((self._client, self._sessions))
        self._lock = threading.RLock()
        self._client = None
        self._wire_or_none: WirePool | None = None
        self._sessions: Sessions | None = None
        self._looked_at = False  # whether ``look_at_server`` has run
        self._is_sharded: bool | None = None
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
                        "this connection was closed while in use, by close() or by setup() with other settings",
                        hint="call setup() once, before any other call",
                    )
                if self._client is None:
                    self._client = make_client(self.config.CC_MONGO_CONNECTION_STRING)
                client = self._client
        return client

    @property
    def database(self) -> Database[Document]:
        """The database in the connection string, by default ``backtest-kit``; for paper runs CC_PAPER_DATABASE, or NAME-paper."""
        database = self.client.get_default_database(default=DEFAULT_DATABASE)
        if self.config.CC_MODE != "paper":
            return database
        return self.client[self.config.CC_PAPER_DATABASE or f"{database.name}-paper"]

    def collection(self, domain: Domain) -> Collection[Document]:
        """Return the collection of a domain. Reads go to the primary, to see every write; the write concern follows CC_DURABILITY."""
        collection = self._collections.get(domain.collection)
        if collection is None:
            client = self.client
            if not self._collections:
                check_listening(self.config.CC_MONGO_CONNECTION_STRING)
            collection = self.database.get_collection(
                domain.collection, read_preference=ReadPreference.PRIMARY, write_concern=write_concern(client, self.config.CC_DURABILITY)
            )
            self._collections[domain.collection] = collection
        return collection

    def in_force(self) -> Document:
        """Return the topology, and the write and read concern in effect; empty before the first use."""
        client = self._client
        if client is None:
            return {}
        configured = client.write_concern  # may be w=0, which makes every write fail and is only shown here
        concern_of_writes = write_concern(client, self.config.CC_DURABILITY) if configured.acknowledged else configured
        return {"topology": topology(client), "write_concern": concern_of_writes.document, "read_concern": client.read_concern.document}

    def retried(self, domain: Domain, operation: Callable[[], R]) -> R:
        """Call ``errors.retried``, with the time that pymongo waits for a server as its ``patience``."""
        return retried(domain, operation, self.client.options.server_selection_timeout)

    def _take_number(self, domain: Domain) -> TransactionNumber | None:
        """Take a transaction number, to give back after the write; None if the server does not support them."""
        if not self._looked_at:
            self.retried(domain, self.look_at_server)
        sessions = self._sessions
        return None if sessions is None else sessions.take()

    def _give_back_number(self, number: TransactionNumber | None) -> None:
        sessions = self._sessions
        if number is not None and sessions is not None:
            sessions.give_back(number)

    def look_at_server(self) -> None:
        """Ask the primary whether it supports transaction numbers. The first call also warns if acknowledged writes can be lost."""
        client = self.client
        hello = client.admin.command("hello")
        replicated = "setName" in hello or hello.get("msg") == "isdbgrid"
        with self._lock:
            if self._looked_at:
                return
            if replicated and hello.get("logicalSessionTimeoutMinutes") and client.options.retry_writes:
                self._sessions = Sessions(client)
            self._looked_at = True
        if replicated and self.config.CC_MODE != "backtest" and write_concern(client, self.config.CC_DURABILITY).document["w"] == 1:
            warn_of_lost_writes(self.config.CC_DURABILITY)

    def _messages_of(self, domain: Domain) -> Messages:
        messages = self._messages.get(domain.collection)
        if messages is None:
            messages = self._messages[domain.collection] = Messages(self.collection(domain))
        return messages

    @property
    def _sharded(self) -> bool | None:
        if self._is_sharded is None:
            self._is_sharded = is_sharded(self.client)
        return self._is_sharded

    @property
    def _wire(self) -> WirePool:
        pool = self._wire_or_none
        if pool is None:
            client = self.client
            with self._lock:
                if self._wire_or_none is None:
                    self._wire_or_none = WirePool(client, on=self.config.CC_WIRE_LANE)
                pool = self._wire_or_none
        return pool

    def connect(self, domain: Domain, path: HitReader | UpsertWriter) -> None:
        """Let a fast path use this connection until it is closed or the process forks. Not with a mongos: see ``match``."""
        messages, pool = self._messages_of(domain), self._wire
        if not pool.usable or self._closed or self._sharded is not False:
            return
        if isinstance(path, HitReader):
            path.connect(pool, messages.by_id_head, messages.by_id_tail)
        elif self._looked_at:
            path.connect(pool, messages.upsert_head, messages.upsert_tail, self._sessions)
        if path not in self._straight:
            self._straight.append(path)

    # Each call first tries the wire protocol, and falls back to pymongo if that cannot take the call or fails.

    def _count(self, domain: Domain, which: int, size: int) -> None:
        self._metrics.domains[domain.name].add(which, size)

    # --- reading ---

    def find_one(self, domain: Domain, query: Document) -> bytes | None:
        """Return the first document that matches a filter, as BSON, or None."""
        document = self._wire.read(MongoSocket.find_one, self._messages_of(domain).find_one(query), b"", b"")
        if document is NOT_TAKEN:
            document = self._find_one(domain, query)
        if document is not None:
            self._count(domain, BYTES_READ, len(document))
        return document

    def match(self, domain: Domain, value: bytes, reader: RecordReader[T], key: Key) -> T | None:
        """Read the document of an id (12 bytes) with ``reader``; return None if it does not exist or belongs to another key.

        A mongos gets the key too: an id alone would go to every shard.
        """
        if self._sharded:
            document = self.find_one(domain, {"_id": ObjectId(value), **key_fields(domain, key)})
            return None if document is None else reader.match(document, key)
        messages = self._messages_of(domain)
        counters = self._metrics.domains[domain.name]
        answer = self._wire.match(messages.by_id_head, value, messages.by_id_tail, reader, key, counters, BYTES_READ)
        if answer is not NOT_TAKEN:
            return answer
        document = self._find_one(domain, {"_id": ObjectId(value)})
        if document is None:
            return None
        counters.add(BYTES_READ, len(document))
        return reader.match(document, key)

    def _find_one(self, domain: Domain, query: Document) -> bytes | None:
        """Find one document with the plain command: pymongo's cursor around it would cost a tenth of the call."""
        collection = self.collection(domain)
        command: Document = {"find": collection.name, "filter": query, "limit": 1, "singleBatch": True, **concern(collection)}
        batch = self.retried(domain, lambda: collection.database.command(command, codec_options=RAW)["cursor"]["firstBatch"])
        return batch[0].raw if batch else None

    def find(self, domain: Domain, query: Document, **options: Any) -> Iterator[bytes]:
        """Yield the documents of a query in batches of BSON, with a cursor of pymongo, so that a result of any size fits in memory.

        The query is repeated if the connection breaks before the first batch.
        """
        collection = self.collection(domain)

        def begin() -> tuple[Any, Any]:
            cursor = collection.find_raw_batches(query, **options)
            return cursor, next(cursor, None)

        cursor, batch = self.retried(domain, begin)
        with cursor:
            while batch is not None:
                self._count(domain, BYTES_READ, len(batch))
                yield batch
                batch = next(cursor, None)

    def fetch(self, domain: Domain, queries: Sequence[Document]) -> Iterator[bytes]:
        """Yield all documents of some queries, one query after the other, in batches of BSON. For results that are read as a whole.

        A query is a dict with ``filter`` and optionally ``sort`` (field -> direction), ``projection``, ``skip`` and ``limit``, as in find.
        If the connection breaks, documents of one query may come twice.
        """
        messages = self._messages_of(domain)
        done = 0
        for batch, cursor in self._wire.pipeline(((messages.find(query),) for query in queries), MongoSocket.find_documents, messages.more):
            done += not cursor
            self._count(domain, BYTES_READ, len(batch))
            yield batch
        for query in queries[done:]:
            options = {name: value for name, value in query.items() if name not in ("filter", "sort")}
            sort = list(query.get("sort", {}).items()) or None
            yield from self.find(domain, query["filter"], sort=sort, batch_size=WHOLE, **options)

    def fetch_by_ids(self, domain: Domain, ids: Mapping[bytes, int], keys: Sequence[Key]) -> Iterator[bytes]:
        """Yield the documents of ids in batches of BSON, in any order. ``ids`` maps each id (12 bytes) to its position in ``keys``."""
        values = list(ids)
        if self._sharded:
            filters = [{"_id": ObjectId(value), **key_fields(domain, keys[position])} for value, position in ids.items()]
            yield from self.fetch(domain, [{"filter": {"$or": filters}}])
            return
        messages = self._messages_of(domain)
        chunks = [values[start : start + _IDS] for start in range(0, len(values), _IDS)]
        done = 0
        finds = ((messages.find_ids(chunk),) for chunk in chunks)
        for batch, cursor in self._wire.pipeline(finds, MongoSocket.find_documents, messages.more):
            done += not cursor
            self._count(domain, BYTES_READ, len(batch))
            yield batch
        if done < len(chunks):
            yield from self.find(domain, {"_id": {"$in": [ObjectId(value) for value in values[done * _IDS :]]}}, batch_size=WHOLE)

    def count(self, domain: Domain, query: Document) -> int:
        """Return how many documents match a filter."""
        reply = self._wire.read(MongoSocket.command, self._messages_of(domain).count(query))
        if reply is not NOT_TAKEN:
            return int(decode(reply)["n"])
        collection = self.collection(domain)
        command: Document = {"count": collection.name, "query": query, **concern(collection)}
        return int(self.retried(domain, lambda: collection.database.command(command))["n"])

    # --- writing ---

    def upsert(self, domain: Domain, query: Document, update: Document) -> tuple[bytes | None, bool]:
        """Update or insert the document of a key; return its ``_id`` (None if it is not an ObjectId), and whether it is new."""
        return self._upsert(domain, self._messages_of(domain).upsert_command(query, update), MongoSocket.upserted, id_after)

    def upsert_by_driver(
        self, domain: Domain, query: Document, update: Document, number: TransactionNumber | None
    ) -> tuple[bytes | None, bool]:
        """Repeat through pymongo, under the same number, an ``upsert`` that did not succeed over the wire protocol."""
        return self._write(domain, self._messages_of(domain).upsert_command(query, update), number, id_after)

    def upsert_noting(self, domain: Domain, query: Document, update: Document) -> tuple[bytes | None, Document | None]:
        """Like ``upsert``; return the ``_id``, and the ``_id`` and ``when`` of the document from before, or None if it is new."""
        command = self._messages_of(domain).upsert_command(query, update, before=True)
        return self._upsert(domain, command, lambda mongo_socket, message: id_before(mongo_socket.command(message)), id_before)

    def _upsert(self, domain: Domain, command: Document, send: Callable[[MongoSocket, bytes], R], take: Callable[[bytes], R]) -> R:
        """Send a findAndModify over the wire protocol with ``send``, else through pymongo; ``take`` then reads the reply the same way."""
        number = self._take_number(domain)
        try:
            message = self._messages_of(domain).write(command, number)
            self._count(domain, BYTES_WRITTEN, len(message))
            outcome = self._wire.write(send, message)
            return outcome if outcome is not NOT_TAKEN else self._write(domain, command, number, take)
        finally:
            self._give_back_number(number)

    def _write(
        self, domain: Domain, command: Document, number: TransactionNumber | None, take: Callable[[bytes], R], *, lost: bool = False
    ) -> R:
        """Send a write command through pymongo; return ``take(reply)``. With ``lost``, keys of inserts may exist already."""
        collection = self.collection(domain)
        full_command = {**command, "writeConcern": collection.write_concern.document, **({"txnNumber": number.value} if number else {})}
        session = number.session if number else None

        def run() -> R:
            try:
                answer: bytes = collection.database.command(full_command, session=session, codec_options=RAW).raw
            except ConfigurationError as error:
                # A connection that was opened while its server was neither primary nor secondary never supports sessions.
                if session is None:
                    raise
                self._wire.renew_connections(error)
                raise AutoReconnect(str(error)) from error
            reply = decode(answer)
            failures, failure = reply.get("writeErrors", []), reply.get("writeConcernError")
            if failures and not (lost and lost_races(domain, BulkWriteError(reply))):
                raise BulkWriteError({"writeErrors": failures, "writeConcernErrors": [failure] if failure else []})
            if failure:
                raise unconfirmed(failure)
            return take(answer)

        return self.retried(domain, run)

    def insert_members(self, domain: Domain, changes: Sequence[tuple[Document, Document]]) -> set[int]:
        """Insert what upserts of (filter, {"$set": encoded members}) would create; return the positions with an existing ``_id``."""
        sizes, batches = zip(*joined(changes), strict=True)
        existing: set[int] = set()
        start = 0
        for size, lost in zip(sizes, self.insert_new(domain, batches), strict=True):
            existing |= {start + index for index in lost}
            start += size
        return existing

    def upsert_many(self, domain: Domain, changes: Sequence[tuple[Document, Document]], *, ordered: bool) -> dict[int, bytes | None]:
        """Upsert (filter, update) pairs; return the ids of the new documents by position.

        With ``ordered`` they are applied one after the other, so that new documents get their ids in the order of ``changes``.
        """
        return self._update_many(domain, changes, ordered=ordered, upsert=True)[0]

    def update_many(self, domain: Domain, changes: Sequence[tuple[Document, Document]]) -> int:
        """Apply (filter, update) pairs to existing documents; return how many matched."""
        return self._update_many(domain, changes, ordered=False, upsert=False)[1]

    def _update_many(
        self, domain: Domain, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool
    ) -> tuple[dict[int, bytes | None], int]:
        messages = self._messages_of(domain)
        inserted: dict[int, bytes | None] = {}
        matched = 0

        def encoded(part: _Part) -> tuple[bytes, bytes]:
            return messages.update(changes[part.start : part.end], ordered=ordered, upsert=upsert, number=part.number)

        def command(part: _Part) -> tuple[Document, int]:
            chosen = changes[part.start : part.end]
            return messages.update_command(chosen, ordered=ordered, upsert=upsert), sum(map(size_of, chosen))

        sizes = (len(chunk) for chunk in chunks(changes, STATEMENTS if self._wire.usable else len(changes)))
        # Ordered: one message at a time, since the server executes the next one even if the one before failed.
        for part, reply in self._write_all(domain, sizes, encoded, command, ahead=1 if ordered else 2):
            if upsert:
                inserted |= {part.start + index: value for index, value in upserted_ids(reply).items()}
            else:
                matched += int(decode(reply)["n"])
        return inserted, matched

    def insert_new(self, domain: Domain, batches: Iterable[bytes]) -> Iterator[set[int]]:
        """Insert documents that have their ids, in batches of BSON; yield for each batch the positions with an existing key."""
        messages = self._messages_of(domain)
        in_flight: dict[int, bytes] = {}

        def sizes() -> Iterator[int]:
            for position, batch in enumerate(batches):
                in_flight[position] = batch
                yield 1

        def encoded(part: _Part) -> tuple[bytes, bytes]:
            return messages.insert(in_flight[part.start], part.number)

        def command(part: _Part) -> tuple[Document, int]:
            batch = in_flight[part.start]
            return messages.insert_command([RawBSONDocument(document) for document in split(batch)]), len(batch)

        for part, reply in self._write_all(domain, sizes(), encoded, command, lost=True):
            del in_flight[part.start]
            yield {failure["index"] for failure in decode(reply).get("writeErrors", [])}

    def _write_all(
        self,
        domain: Domain,
        sizes: Iterator[int],
        encoded: Callable[[_Part], tuple[bytes, bytes]],
        command: Callable[[_Part], tuple[Document, int]],
        *,
        ahead: int = 2,
        lost: bool = False,
    ) -> Iterator[tuple[_Part, bytes]]:
        """Send a bulk of writes in messages of ``sizes`` writes each, over the wire protocol as far as possible; yield parts and replies.

        ``encoded`` returns the message of a part; ``command`` returns its command for pymongo and size in bytes. ``lost``: see ``_write``.
        """
        unanswered: deque[_Part] = deque()
        lengths: deque[int] = deque()
        end = 0

        def parts() -> Iterator[_Part]:
            nonlocal end
            for size in sizes:
                part = _Part(end, end + size, self._take_number(domain))
                end = part.end
                unanswered.append(part)
                yield part

        def messages() -> Iterator[tuple[bytes, bytes]]:
            for part in parts():
                pieces = encoded(part)
                lengths.append(sum(map(len, pieces)))
                yield pieces

        def answered(length: int) -> _Part:
            self._count(domain, BYTES_WRITTEN, length)
            part = unanswered.popleft()
            self._give_back_number(part.number)
            return part

        try:
            for reply in self._wire.pipeline(messages(), MongoSocket.reply if lost else MongoSocket.success, ahead=ahead, reads=False):
                if lost and not lost_alone(domain, reply):
                    break  # sent again below, where pymongo turns it into an error
                yield answered(lengths.popleft()), reply
            failures: list[BulkWriteError] = []
            for part in chain(list(unanswered), parts()):
                part_command, length = command(part)
                try:
                    reply = self._write(domain, part_command, part.number, bytes, lost=lost)
                except BulkWriteError as error:
                    if ahead == 1:
                        raise
                    failures.append(error)  # write the other parts all the same, since they do not depend on it
                    answered(length)
                else:
                    yield answered(length), reply
            if failures:
                raise together(failures)
        finally:
            for part in unanswered:
                self._give_back_number(part.number)

    def close(self) -> None:
        """Close the client. No new one is created."""
        with self._lock:
            self._closed = True
            sessions, self._sessions = self._sessions, None
            client, self._client = self._client, None
            pool, self._wire_or_none = self._wire_or_none, None
            self._collections, self._messages = {}, {}
        for path in self._straight:
            path.disconnect()
        if pool is not None:
            pool.close()
        if client is not None:
            if sessions is not None:
                sessions.close()
            with pymongo.timeout(0.5):  # do not wait long to say goodbye to a server that may be dead
                client.close()
