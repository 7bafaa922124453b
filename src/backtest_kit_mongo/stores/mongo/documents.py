"""Convert a record for MongoDB: the update that stores it, the insert that creates it, and the filter that matches it unchanged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from bson.raw_bson import RawBSONDocument

from ...domains import Domain
from ..base import Key, Record, encode

__all__ = ["Document", "in_order", "insert_of", "key_fields", "unchanged", "update_of"]

Document = dict[str, Any]


def key_fields(domain: Domain, key: Key) -> Document:
    """Return the fields of a key (all or the first ones), as a filter."""
    return dict(zip(domain.key, key, strict=False))


def update_of(domain: Domain, record: Record, now: datetime) -> Document:
    """Return the update of an upsert, its content already encoded. Raises InvalidTypeError or InvalidValueError if it cannot be stored."""
    fields: Document = {domain.body or "": record.body, "updatedDate": now}
    if domain.when:
        fields["when"] = record.when
    if domain.soft_delete:
        fields["removed"] = record.removed
    on_insert: Document = {"__v": 0, "createDate": now}
    if domain.write == "insert_once":
        return {"$setOnInsert": RawBSONDocument(encode(domain, record.key, fields | on_insert))}
    return {"$set": RawBSONDocument(encode(domain, record.key, fields)), "$setOnInsert": on_insert}


def insert_of(domain: Domain, key: Key, update: Document) -> tuple[bytes, tuple[Document, Document]]:
    """Return the id (12 bytes) of the document that an upsert with ``update`` would create, and its change for ``insert_members``."""
    identity = ObjectId()
    pushed = {name: [value] for name, value in update.get("$push", {}).items()}
    return identity.binary, ({"_id": identity, **key_fields(domain, key), **update["$setOnInsert"], **pushed}, {"$set": update["$set"]})


def unchanged(domain: Domain, record: Record) -> Document:
    """Return the filter that matches a record as a read returned it. The order of members matters; numbers are compared by value."""
    body = RawBSONDocument(encode(domain, record.key, {"$eq": record.body}))  # pymongo does not encode a Decimal
    query = {**key_fields(domain, record.key), domain.body or "": body}
    if record.when is not None:
        query["when"] = record.when
    if domain.soft_delete:
        query["removed"] = True if record.removed else {"$in": [False, None]}
    return query


def in_order(keys: Sequence[Key], records: Mapping[Key, Record | None]) -> list[Record | None]:
    """Return the records of ``keys`` in their order. A key that occurs twice gets two separate bodies, as from two reads."""
    seen: set[Key] = set()
    answer: list[Record | None] = []
    for key in keys:
        record = records.get(key)
        answer.append(copy.deepcopy(record) if key in seen else record)
        seen.add(key)
    return answer
