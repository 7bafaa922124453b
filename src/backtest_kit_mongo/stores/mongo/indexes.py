"""The indexes that the contracts rely on: create them before the first write, and report conflicts with the command that repairs each."""

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
    """Something in the database that conflicts with the unique key of a domain, and the mongosh command that repairs it."""

    text: str
    cure: str


def wanted_indexes(domain: Domain) -> list[Index]:
    """Return the indexes of a domain, the unique one first."""
    return [domain.unique_index, *domain.indexes]


def index_name(index: Index) -> str:
    """Return MongoDB's default name of an index."""
    return "_".join(f"{field}_{direction}" for field, direction in index)


def ensure_indexes(collection: Collection[dict[str, Any]], domain: Domain) -> None:
    """Create the indexes of a domain and return when they are ready. Raises IndexConflictError if something conflicts with them.

    The command is sent even if all indexes are listed already: another process may still be building a listed one, and the
    command waits for it.
    """
    conflicts = _contradicting(collection, domain)
    if not conflicts:
        # An equivalent index with another name is good enough; the command must then use that name.
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
                raise  # somebody has just repaired it: raise the error of the server
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
    """Return one error for all conflicts, given by collection."""
    error = IndexConflictError(
        "\n".join(f"collection {name!r}: " + "; ".join(conflict.text for conflict in group) for name, group in conflicts.items()),
        hint="check and back up the data, then run in mongosh: "
        + "; ".join(conflict.cure for group in conflicts.values() for conflict in group),
    )
    error.conflicts = dict(conflicts)
    return error


def find_conflicts(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Return everything that conflicts with the unique key of a domain. Changes nothing."""
    conflicts = _contradicting(collection, domain) + _differing(collection, domain)
    return conflicts if _has_unique(collection, domain) else conflicts + find_duplicates(collection, domain)


def missing_indexes(collection: Collection[dict[str, Any]], domain: Domain) -> list[str]:
    """Return the names of the indexes of a domain that do not exist."""
    present = [_keys(info) for info in collection.list_indexes()]
    return [index_name(index) for index in wanted_indexes(domain) if index not in present]


def _keys(info: Mapping[str, Any]) -> Index:
    return tuple((field, int(direction) if isinstance(direction, float) else direction) for field, direction in info["key"].items())


def _serves(info: Mapping[str, Any], domain: Domain) -> bool:
    """Return whether an index covers every document by its exact values, and is unique if it is the index on the key."""
    partial = any(info.get(option) for option in ("sparse", "collation", "partialFilterExpression"))
    return not partial and (bool(info.get("unique")) or _keys(info) != domain.unique_index)


def _has_unique(collection: Collection[dict[str, Any]], domain: Domain) -> bool:
    return any(_keys(info) == domain.unique_index and _serves(info, domain) for info in collection.list_indexes())


def _drop(collection: Collection[dict[str, Any]], name: str) -> str:
    return f'db.getCollection("{collection.name}").dropIndex("{name}")'


def _contradicting(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Return unique indexes that lack a key field: two records that differ only in that field would collide."""
    conflicts = []
    for info in collection.list_indexes():
        fields = {field for field, _ in _keys(info)}
        if info.get("unique") and info["name"] != "_id_" and not fields >= set(domain.key):
            missing = ", ".join(field for field in domain.key if field not in fields)
            text = f"the unique index {info['name']!r} of an older version lacks {missing}: records that differ only in that would collide"
            conflicts.append(Conflict(text, _drop(collection, info["name"])))
    return conflicts


def _differing(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Return indexes with the name or the keys of one of ours, but with other keys or options (most often: not unique)."""
    conflicts = []
    present = list(collection.list_indexes())
    served = {_keys(info) for info in present if _serves(info, domain)}
    for info in present:
        for index in wanted_indexes(domain):
            if info["name"] != index_name(index) and (_keys(info) != index or index in served):
                continue
            if _keys(info) != index or not _serves(info, domain):
                kind = "unique index" if index == domain.unique_index else "index"
                text = f"the index {info['name']!r} does not match the {kind} {index_name(index)}: its keys or options differ"
                conflicts.append(Conflict(text, _drop(collection, info["name"])))
    return conflicts


def find_duplicates(collection: Collection[dict[str, Any]], domain: Domain) -> list[Conflict]:
    """Return keys with more than one document. The repair keeps the one written last, in insert-once domains the one written first."""
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
    duplicates = list(groups)
    for group in duplicates[:_SHOWN]:
        key = ", ".join(f"{name}={group['_id'].get(name)!r}" for name in domain.key)
        surplus = ", ".join(f'ObjectId("{value}")' if isinstance(value, ObjectId) else repr(value) for value in group["ids"][1:])
        text = f"{group['count']} documents with the same key ({key}) prevent the unique index"
        conflicts.append(Conflict(text, f'db.getCollection("{collection.name}").deleteMany({{_id: {{$in: [{surplus}]}}}})'))
    if len(duplicates) > _SHOWN:
        conflicts.append(Conflict("there are more such keys", "// then check again: there are more"))
    return conflicts
