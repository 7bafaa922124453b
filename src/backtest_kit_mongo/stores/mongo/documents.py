"""What a record is to MongoDB: the update that stores it, the insert that makes it, and the filter that finds it unchanged."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from ...domains import Domain
from ..base import Key, Record, encode

__all__ = ["Document", "insert_of", "key_fields", "unchanged", "update_of"]

Document = dict[str, Any]


def key_fields(domain: Domain, key: Key) -> Document:
    """The fields of a key, or of its first members."""
    return dict(zip(domain.key, key, strict=False))


def update_of(domain: Domain, record: Record, now: datetime) -> Document:
    """The update of an upsert, the stored part of it encoded and checked."""
    fields: Document = {domain.body or "": record.body, "updatedDate": now}
    if domain.when:
        fields["when"] = record.when
    if domain.soft_delete:
        fields["removed"] = record.removed
    born: Document = {"__v": 0, "createDate": now}
    if domain.write == "insert_once":
        return {"$setOnInsert": RawBSONDocument(encode(domain, record.key, fields | born))}
    return {"$set": RawBSONDocument(encode(domain, record.key, fields)), "$setOnInsert": born}


def insert_of(domain: Domain, key: Key, update: Document) -> tuple[bytes, tuple[Document, Document]]:
    """The document that an upsert with ``update`` would make, as ``insert_members`` takes it, and its id."""
    identity = ObjectId()
    pushed = {name: [value] for name, value in update.get("$push", {}).items()}
    return identity.binary, ({"_id": identity, **key_fields(domain, key), **update["$setOnInsert"], **pushed}, {"$set": update["$set"]})


def unchanged(domain: Domain, record: Record) -> Document:
    """The filter for the document of a record as a read gave it. Members are compared in their order, numbers by their values."""
    wanted = {**key_fields(domain, record.key), domain.body or "": {"$eq": record.body}}
    if record.when is not None:
        wanted["when"] = record.when
    if domain.soft_delete:
        wanted["removed"] = True if record.removed else {"$in": [False, None]}
    return wanted
