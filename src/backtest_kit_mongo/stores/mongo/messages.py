"""The commands of one collection as bytes of the wire, what is the same in every call encoded once; and what their replies say."""

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
"""As batch size: more documents than any answer that is taken whole. The server ends a batch at 16 MiB anyway."""

STATEMENTS = 250
"""How many writes go into one message of the lane: enough to make the round trip nothing, and little enough that the server has work while
the next one is being encoded. MongoDB takes 48 MB and 100,000 statements."""
_MESSAGE_BYTES = 8 * 1024 * 1024

_BODY = struct.pack("<iB", 0, 0)
"""Flags of an OP_MSG (none), and the kind of its first section (the body)."""


_AFTER: Document = {"new": True, "fields": {"_id": True}}
_BEFORE: Document = {"new": False, "fields": {"_id": True, "when": True}}
"""What findAndModify is to give: of the document as it is then, or as it was before."""


def message(command: Document) -> bytes:
    """A command (with its ``$db``) as the body of an OP_MSG."""
    return _BODY + writer.encode(command, plain)


def concern(collection: Collection[Any]) -> Document:
    """The read concern of the connection string, as a member of a command."""
    return {"readConcern": collection.read_concern.document} if collection.read_concern.document else {}


def _sequence(command: bytes, name: bytes, documents: bytes) -> tuple[bytes, bytes]:
    """A message whose list ``name`` stands in a section of its own (kind 1): documents end to end."""
    return command + struct.pack("<Bi", 1, 4 + len(name) + 1 + len(documents)) + name + b"\0", documents


def joined(changes: Sequence[tuple[Document, Document]]) -> Iterator[tuple[int, bytes]]:
    """The documents that upserts of (filter, {"$set": encoded members}) would make, end to end; (how many of the pairs, documents)."""
    for chunk in chunks(changes):
        documents = [writer.encode(wanted, plain)[4:-1] + update["$set"].raw[4:] for wanted, update in chunk]
        yield len(chunk), b"".join(struct.pack("<i", len(document) + 4) + document for document in documents)


class Messages:
    """The messages of one collection, in one or more pieces each."""

    def __init__(self, collection: Collection[Any]) -> None:
        self._find: Document = {"find": collection.name}
        self._end: Document = {**concern(collection), "$db": collection.database.name}
        write: Document = {"writeConcern": collection.write_concern.document, **self._end}
        write.pop("readConcern", None)
        self._write = write
        self._name = collection.name
        self._head = writer.encode(self._find, plain)[4:-1]
        self._tail = writer.encode({"batchSize": WHOLE, **self._end}, plain)[4:-1]
        self.upsert_head = writer.encode({"findAndModify": self._name}, plain)[4:-1]
        self.upsert_tail = writer.encode({"upsert": True, **_AFTER, **write}, plain)[4:-1]
        """What stands before and behind the query and the update of ``upsert_command``."""
        mark = ObjectId()
        by_id = message({**self._find, "filter": {"_id": mark}, "limit": 1, "singleBatch": True, **self._end})
        self.by_id_head, _, self.by_id_tail = by_id.partition(mark.binary)

    def find_one(self, wanted: Document) -> bytes:
        """Find one document."""
        return message({**self._find, "filter": wanted, "limit": 1, "singleBatch": True, **self._end})

    def find(self, query: Document) -> bytes:
        """Find all documents of a query, in one batch if they fit into 16 MiB."""
        return message({**self._find, **query, "batchSize": WHOLE, **self._end})

    def find_ids(self, values: list[bytes]) -> bytes:
        """Find the documents of some ids."""
        return op_msg.find_by_ids(self._head, values, self._tail)

    def more(self, answer: tuple[bytes, int]) -> bytes | None:
        """Ask for the rest of an answer, if there is any."""
        cursor = answer[1]
        return message({"getMore": cursor, "collection": self._name, "batchSize": WHOLE, "$db": self._end["$db"]}) if cursor else None

    def count(self, wanted: Document) -> bytes:
        """Count the documents of a filter."""
        return message({"count": self._name, "query": wanted, **self._end})

    def upsert_command(self, wanted: Document, update: Document, *, before: bool = False) -> Document:
        """Upsert one document and give its id; ``before``: id and ``when`` as they were before."""
        answer = _BEFORE if before else _AFTER
        return {"findAndModify": self._name, "query": wanted, "update": update, "upsert": True, **answer}

    def write(self, command: Document, number: TransactionNumber | None) -> bytes:
        """A command that writes."""
        return message({**command, **self._write, **(number.members if number else {})})

    def update_command(self, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool) -> Document:
        """Update by (filter, update) pairs, or upsert."""
        statements = [{"q": wanted, "u": update, "upsert": upsert} for wanted, update in changes]
        return {"update": self._name, "ordered": ordered, "updates": statements}

    def update(
        self, changes: Sequence[tuple[Document, Document]], *, ordered: bool, upsert: bool, number: TransactionNumber | None
    ) -> tuple[bytes, bytes]:
        """The message of ``update_command``."""
        command = self.update_command(changes, ordered=ordered, upsert=upsert)
        statements = writer.encode_many(command.pop("updates"), plain)
        return _sequence(self.write(command, number), b"updates", statements)

    def insert_command(self, documents: Sequence[Any]) -> Document:
        """Insert documents."""
        return {"insert": self._name, "ordered": False, "documents": documents}

    def insert(self, documents: bytes, number: TransactionNumber | None) -> tuple[bytes, bytes]:
        """The message of ``insert_command``, for documents that stand end to end."""
        command = self.insert_command(())
        del command["documents"]
        return _sequence(self.write(command, number), b"documents", documents)


def chunks(changes: Sequence[tuple[Document, Document]], most: int = STATEMENTS) -> Iterator[Sequence[tuple[Document, Document]]]:
    """(filter, update) pairs for one message each, at most so many.

    They are cut before they are encoded, so that no more than a message is in memory.
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
    """How many bytes the encoded parts of an update have."""
    update = change[1]
    return sum(len(part.raw) for part in update.values() if isinstance(part, RawBSONDocument)) if isinstance(update, dict) else 0


def id_after(answer: bytes) -> tuple[bytes | None, bool]:
    """From the reply of findAndModify: the id of the document, and whether it is new."""
    reply = decode(answer)
    return _id_bytes(reply["value"]["_id"]), not reply["lastErrorObject"]["updatedExisting"]


def id_before(answer: bytes) -> tuple[bytes | None, Document | None]:
    """From the reply of findAndModify: the id of the document, and what was there before."""
    reply = decode(answer)
    before = reply["value"]
    return _id_bytes(reply["lastErrorObject"]["upserted"] if before is None else before["_id"]), before


def _id_bytes(value: Any) -> bytes | None:
    """The 12 bytes of an ObjectId; None for an id of another type, which another writer may have given."""
    return value.binary if isinstance(value, ObjectId) else None
