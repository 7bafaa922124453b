"""Build the commands of a collection as OP_MSG bytes, with their constant parts encoded once, and read the replies to upserts."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from ..._core import op_msg, writer
from ..._core.bson import decode
from ..base import plain
from .documents import Document
from .sessions import TransactionNumber

__all__ = ["STATEMENTS", "WHOLE", "Messages", "chunks", "concern", "id_after", "id_before", "joined", "message", "size_of"]

WHOLE = 2**31 - 1
"""A batch size that no reply reaches, for queries read as a whole. The server ends each batch at 16 MiB anyway."""

STATEMENTS = 250
"""Writes per message of the wire protocol: enough that the round trip does not count, and few enough that the server is busy while the
next message is being encoded. MongoDB allows 48 MB and 100,000 statements."""
_MESSAGE_BYTES = 8 * 1024 * 1024

_BODY = struct.pack("<iB", 0, 0)
"""The flags of an OP_MSG (none), and the kind of its first section (body)."""


_AFTER: Document = {"new": True, "fields": {"_id": True}}
_BEFORE: Document = {"new": False, "fields": {"_id": True, "when": True}}
"""What findAndModify should return: fields of the document after the update, or before it."""


def message(command: Document) -> bytes:
    """Encode a command (which includes ``$db``) as the body of an OP_MSG."""
    return _BODY + writer.encode(command, plain)


def concern(collection: Collection[Any]) -> Document:
    """Return the read concern of the connection string as a field of a command; empty if it sets none."""
    return {"readConcern": collection.read_concern.document} if collection.read_concern.document else {}


def _sequence(command: bytes, name: bytes, documents: bytes) -> tuple[bytes, bytes]:
    """Append the list ``name``, as concatenated documents, in a section of its own (kind 1); return the message in two pieces."""
    return command + struct.pack("<Bi", 1, 4 + len(name) + 1 + len(documents)) + name + b"\0", documents


def joined(changes: Sequence[tuple[Document, Document]]) -> Iterator[tuple[int, bytes]]:
    """Yield the documents that upserts of (filter, {"$set": encoded members}) would create, in chunks.

    Each chunk is (number of pairs, concatenated BSON documents).
    """
    for chunk in chunks(changes):
        documents = [writer.encode(fields, plain)[4:-1] + update["$set"].raw[4:] for fields, update in chunk]
        yield len(chunk), b"".join(struct.pack("<i", len(document) + 4) + document for document in documents)


class Messages:
    """The messages of one collection. Each is one or more pieces of bytes."""

    def __init__(self, collection: Collection[Any]) -> None:
        self._find: Document = {"find": collection.name}
        self._end: Document = {**concern(collection), "$db": collection.database.name}
        write: Document = {"writeConcern": collection.write_concern.document, **self._end}
        write.pop("readConcern", None)
        self._write = write
        self._name = collection.name
        self._head = writer.encode(self._find, plain)[4:-1]
        self._tail = writer.encode({"batchSize": WHOLE, **self._end}, plain)[4:-1]
        self.upsert_head: bytes = writer.encode({"findAndModify": self._name}, plain)[4:-1]
        self.upsert_tail: bytes = writer.encode({"upsert": True, **_AFTER, **write}, plain)[4:-1]
        """The elements before and after the query and the update of ``upsert_command``."""
        placeholder = ObjectId()
        by_id = message({**self._find, "filter": {"_id": placeholder}, "limit": 1, "singleBatch": True, **self._end})
        self.by_id_head: bytes
        self.by_id_tail: bytes
        self.by_id_head, _, self.by_id_tail = by_id.partition(placeholder.binary)

    def find_one(self, query: Document) -> bytes:
        """Return the message that finds one document."""
        return message({**self._find, "filter": query, "limit": 1, "singleBatch": True, **self._end})

    def find(self, query: Document) -> bytes:
        """Return the message that finds all documents of a query, in one batch if they fit into 16 MiB."""
        return message({**self._find, **query, "batchSize": WHOLE, **self._end})

    def find_ids(self, values: list[bytes]) -> bytes:
        """Return the message that finds the documents of some ids (12 bytes each)."""
        return op_msg.find_by_ids(self._head, values, self._tail)

    def more(self, answer: tuple[bytes, int]) -> bytes | None:
        """Return the message that requests the rest of a reply (documents, cursor id), or None if it is complete."""
        cursor = answer[1]
        return message({"getMore": cursor, "collection": self._name, "batchSize": WHOLE, "$db": self._end["$db"]}) if cursor else None

    def count(self, query: Document) -> bytes:
        """Return the message that counts the documents of a filter."""
        return message({"count": self._name, "query": query, **self._end})

    def upsert_command(self, query: Document, update: Document, *, before: bool = False) -> Document:
        """Return the command that upserts one document and returns its id; with ``before``, its id and ``when`` from before the update."""
        answer = _BEFORE if before else _AFTER
        return {"findAndModify": self._name, "query": query, "update": update, "upsert": True, **answer}

    def write(self, command: Document, number: TransactionNumber | None) -> bytes:
        """Return the message of a command that writes."""
        return message({**command, **self._write, **(number.members if number else {})})

    def update_command(self, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool) -> Document:
        """Return the command that applies (filter, update) pairs; with ``upsert`` it inserts missing documents."""
        statements = [{"q": query, "u": update, "upsert": upsert} for query, update in changes]
        return {"update": self._name, "ordered": ordered, "updates": statements}

    def update(
        self, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool, number: TransactionNumber | None
    ) -> tuple[bytes, bytes]:
        """Return the message of ``update_command``, in two pieces."""
        command = self.update_command(changes, ordered=ordered, upsert=upsert)
        statements = writer.encode_many(command.pop("updates"), plain)
        return _sequence(self.write(command, number), b"updates", statements)

    def insert_command(self, documents: Sequence[Any]) -> Document:
        """Return the command that inserts documents."""
        return {"insert": self._name, "ordered": False, "documents": documents}

    def insert(self, documents: bytes, number: TransactionNumber | None) -> tuple[bytes, bytes]:
        """Return the message of ``insert_command``, in two pieces, for concatenated BSON documents."""
        command = self.insert_command(())
        del command["documents"]
        return _sequence(self.write(command, number), b"documents", documents)


def chunks(changes: Sequence[tuple[Document, Document]], most: int = STATEMENTS) -> Iterator[Sequence[tuple[Document, Document]]]:
    """Yield the (filter, update) pairs of one message at a time, at most ``most`` pairs each.

    Pairs are divided before they are encoded, so that only one message at a time is in memory.
    """
    first = size = 0
    for index, change in enumerate(changes):
        length = size_of(change)
        if index > first and (index - first == most or size + length > _MESSAGE_BYTES):
            yield changes[first:index]
            first, size = index, 0
        size += length
    if first < len(changes):
        yield changes[first:]


def size_of(change: tuple[Document, Document]) -> int:
    """Return the size of the encoded parts of an update, in bytes."""
    update = change[1]
    return sum(len(part.raw) for part in update.values() if isinstance(part, RawBSONDocument)) if isinstance(update, dict) else 0


def id_after(answer: bytes) -> tuple[bytes | None, bool]:
    """Return the id of the document from the reply to findAndModify, and whether the document is new."""
    reply = decode(answer)
    return _id_bytes(reply["value"]["_id"]), not reply["lastErrorObject"]["updatedExisting"]


def id_before(answer: bytes) -> tuple[bytes | None, Document | None]:
    """Return the id of the document from the reply to findAndModify, and the document from before; None if it is new."""
    reply = decode(answer)
    before = reply["value"]
    return _id_bytes(reply["lastErrorObject"]["upserted"] if before is None else before["_id"]), before


def _id_bytes(value: Any) -> bytes | None:
    """Return the 12 bytes of an ObjectId; None for an id of another type, which another writer may have set."""
    return value.binary if isinstance(value, ObjectId) else None
