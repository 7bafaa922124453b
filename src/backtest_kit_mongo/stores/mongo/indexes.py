"""The indexes that the contracts stand on: made before the first write, and whatever contradicts them reported with its cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, OperationFailure

from ...domains import Domain, Index
from ...errors import IndexConflictError

__all__ = ["Conflict", "ensure_indexes", "find_conflicts", "missing_indexes"]

_SHOWN = 10
# IndexOptionsConflict and IndexKeySpecsConflict: the same name or keys with other options.
_OPTIONS_DIFFER = (85, 86)


class Conflict(NamedTuple):
    """Something in the database that contradicts the unique key of a domain, and the mongosh command that mends it."""

    text: str
    cure: str


def wanted_indexes(domain: Domain) -> list[Index]:
    """The unique index, then the others."""
    return [domain.unique_index, *domain.indexes]


def index_name(index: Index) -> str:
    """MongoDB's default name of an index."""
    return "_".join(f"{field}_{direction}" for field, direction in index)


def ensure_indexes(collection: Collection[dict[str, Any]], domain: Domain) -> None:
    """Make the indexes of a domain and return when they stand; IndexConflictError for what contradicts them.

    The command is sent even if an index is listed already: a listed one may still be building in another process, and the
    command waits for it.
    """
    conflicts = _contradicting(collection, domain)
    if not conflicts:
        # An equal index under another name serves as well, and is waited for under that name.
        names = {_keys(info): info["name"] for info in collection.list_indexes() if _serves(info, domain)}
        models = [
            IndexModel(list(index), unique=index == domain.unique_index, name=names.get(index, index_name(index)))
            for index in wanted_indexes(domain)
        ]
        try:
            collection.create_indexes(models)
        except DuplicateKeyError:
            conflicts = find_duplicates(collection, domain)
            if not conflicts:
                raise  # mended by somebody in this moment: the server's own words will do
        except OperationFailure as error:
            if error.code not in _OPTIONS_DIFFER:
                raise
            conflicts = _differing(collection, domain)
            if not conflicts:
                raise
        else:
            return
    raise conflict_error({domain.collection: conflicts})


def conflict_error(conflicts: Mapping[str, list[Conflict]]) -> IndexConflictError:
    """One error for all that contradicts the table, by collection."""
    error = IndexConflictError(
        "\n".join(f"collection {name!r}: " + "; ".join(conflict.text for conflict in found) for name, found in conflicts.items()),
        hint="look at it, back it up, then in mongosh: " + "; ".join(conflict.cure for found in conflicts.values() for conflict in found),
    )
    error.conflicts = dict(conflicts)
    return error


def find_conflicts(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """All that contradicts the unique key of a domain, without changing anything."""
    conflicts = _contradicting(collection, domain) + _differing(collection, domain)
    return conflicts if _has_unique(collection, domain) else conflicts + find_duplicates(collection, domain)


def missing_indexes(collection: Collection[dict[str, Any]], domain: Domain) -> list[str]:
    """Names of wanted indexes that are not there."""
    present = [_keys(info) for info in collection.list_indexes()]
    return [index_name(index) for index in wanted_indexes(domain) if index not in present]


def _keys(info: Mapping[str, Any]) -> Index:
    return tuple((field, int(direction) if isinstance(direction, float) else direction) for field, direction in info["key"].items())


def _serves(info: Mapping[str, Any], domain: Domain) -> bool:
    """Whether an index holds every document, and each by its exact values; the one on the key must be unique."""
    partial = any(info.get(option) for option in ("sparse", "collation", "partialFilterExpression"))
    return not partial and (bool(info.get("unique")) or _keys(info) != domain.unique_index)


def _has_unique(collection: Collection[dict[str, Any]], domain: Domain) -> bool:
    return any(_keys(info) == domain.unique_index and _serves(info, domain) for info in collection.list_indexes())


def _drop(collection: Collection[dict[str, Any]], name: str) -> str:
    return f'db.getCollection("{collection.name}").dropIndex("{name}")'


def _contradicting(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Unique indexes that do not hold every key field: two records that differ only in the others would collide."""
    conflicts = []
    for info in collection.list_indexes():
        fields = {field for field, _ in _keys(info)}
        if info.get("unique") and info["name"] != "_id_" and not fields >= set(domain.key):
            missing = ", ".join(field for field in domain.key if field not in fields)
            text = f"the unique index {info['name']!r} of an older version lacks {missing}, so records that differ there would collide"
            conflicts.append(Conflict(text, _drop(collection, info["name"])))
    return conflicts


def _differing(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Indexes with a wanted name or wanted keys, but other options (above all: not unique)."""
    conflicts = []
    present = list(collection.list_indexes())
    served = {_keys(info) for info in present if _serves(info, domain)}
    for info in present:
        for index in wanted_indexes(domain):
            if info["name"] != index_name(index) and (_keys(info) != index or index in served):
                continue
            if _keys(info) != index or not _serves(info, domain):
                kind = "unique index" if index == domain.unique_index else "index"
                text = f"the index {info['name']!r} stands where the {kind} on {index_name(index)} belongs"
                conflicts.append(Conflict(text, _drop(collection, info["name"])))
    return conflicts


def find_duplicates(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Keys with more than one document; the cure keeps the document that was written last (for insert-once domains: first)."""
    first_wins = domain.write == "insert_once"
    direction = 1 if first_wins else -1
    groups = collection.aggregate(
        [
            {"$sort": {"updatedDate": direction, "_id": direction}},
            {"$group": {"_id": {name: f"${name}" for name in domain.key}, "ids": {"$push": "$_id"}, "count": {"$sum": 1}}},
            {"$match": {"count": {"$gt": 1}}},
            {"$limit": _SHOWN + 1},
        ],
        allowDiskUse=True,
    )
    conflicts = []
    found = list(groups)
    for group in found[:_SHOWN]:
        key = ", ".join(f"{name}={group['_id'].get(name)!r}" for name in domain.key)
        surplus = ", ".join(f'ObjectId("{value}")' if isinstance(value, ObjectId) else repr(value) for value in group["ids"][1:])
        text = f"{group['count']} documents with one key ({key}) prevent the unique index"
        conflicts.append(Conflict(text, f'db.getCollection("{collection.name}").deleteMany({{_id: {{$in: [{surplus}]}}}})'))
    if len(found) > _SHOWN:
        conflicts.append(Conflict("there are more such keys", "// then look again: there are more"))
    return conflicts
