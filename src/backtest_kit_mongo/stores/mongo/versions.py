"""Versions of records in MongoDB, so that a record can be read as of an earlier time.

A write appends its version to the list ``versions`` in the record's own document (the TypeScript package ignores fields other than its
own). One command writes the record and its version, or neither, and costs little more than a write without history. When the list has
become long, its versions move to a separate collection, ``<name>-versions``, one document each. The ``_id`` is the key and the time, so
the index that every collection has finds the last version before a moment. During the move a version may exist in both, which are equal.

The record itself is its last version. Later versions are void: a write back in time may have ended before it could delete them, or
another writer that does not know of versions may have gone back in time. Such a writer stores no versions, so the first write of a key
in a process first keeps the existing record as a version.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from bson import Decimal128, Int64, MaxKey, MinKey, encode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, DeleteOne, UpdateOne

from ..._core import bson
from ...domains import DOMAINS, Domain
from ..base import History, Key, Record
from ..fork_safety import renew_after_fork
from .database import MongoDatabase
from .documents import Document, key_fields
from .errors import reading

__all__ = ["Change", "MongoVersions"]

DAY = 86_400_000

# Fields are copied as they are, whatever their writer stored in them.
RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)

LIST, LIST_BYTES = 32, 16_384
"""How many versions, and bytes of them, one process leaves in the document of a record: every read of the record transfers them."""

KNOWN = 50_000
"""For how many keys of a domain this process remembers the last write. Beyond that it forgets all and queries again."""

ALWAYS = Int64(-(2**63))
"""The time of a version without a valid time, which another program wrote before there was history."""

Span = tuple[Any, Any]
"""A half-open interval of times (ms): after the first, up to and including the second."""


class Change(NamedTuple):
    """The writes of one key: the updates that remain, by time (ms, ascending), and the earliest time of all its writes."""

    key: Key
    updates: dict[int, Document]
    since: int

    @property
    def update(self) -> Document:
        """The update that stores the record with its versions."""
        versions = [update["$set"] for update in self.updates.values()]
        last = self.updates[max(self.updates)]
        return {**last, "$push": {"versions": versions[0] if len(versions) == 1 else {"$each": versions}}}


class _Known(NamedTuple):
    """The last write of a key: its simulation time (ms), versions and their bytes in its document, versions since the last pruning."""

    when: int
    listed: int = 0
    size: int = 0
    fresh: int = 0

    def wrote(self, updates: Mapping[int, Document]) -> _Known:
        size = sum(len(update["$set"].raw) for update in updates.values())
        return _Known(max(updates), self.listed + len(updates), self.size + size, self.fresh + len(updates))


class _Versions(Domain):
    """The domain that holds the versions of another domain's records."""

    @cached_property
    def collection(self) -> str:
        """MongoDB collection."""
        return f"{self.name}-versions"


class MongoVersions:
    """The versions of the domains that ``history`` names."""

    def __init__(self, history: History, connection: MongoDatabase) -> None:
        self._connection = connection
        self._limit, self._age = history.limit, history.days * DAY
        # The oldest are deleted when there are a tenth more than the limit, so that not every write has to search for them.
        self._slack = max(1, history.limit // 10) if history.limit else 100
        names = [field.name for field in dataclasses.fields(Domain)]
        self._versions = {name: _Versions(**{field: getattr(DOMAINS[name], field) for field in names}) for name in history.domains}
        self._readers = {name: bson.RecordReader((), DOMAINS[name].body or "", Record) for name in history.domains}
        self.renew()
        renew_after_fork(self)

    def __contains__(self, domain: Domain) -> bool:
        return domain.name in self._versions

    def renew(self) -> None:
        """Forget the last writes of this process; see ``fork_safety``."""
        self._known: dict[str, dict[Key, _Known]] = {name: {} for name in self._versions}

    # --- writing ---

    def write(self, domain: Domain, key: Key, when: int, update: Document) -> tuple[bytes | None, bool]:
        """Upsert a record and its version; return its id and whether it is new, like ``MongoDatabase.upsert``."""
        table = self._known[domain.name]
        change = Change(key, {when: update}, when)
        last_write, discard = table.pop(key, None), None  # forgotten until the outcome of this write is known
        in_order = last_write is not None and when >= last_write.when
        if not in_order:
            last_write, discard = self.begin(domain, [change])[key]
        identity, before = self._connection.upsert_noting(domain, key_fields(domain, key), change.update)
        last = None if before is None else _time(before.get("when"))
        if last_write is not None:
            if before is None:  # the record had been deleted, so all of its versions are void
                discard = (MinKey(), when)
            elif last is not None and last != last_write.when:  # another process wrote: versions in between are void, or discarded now
                discard = (min(last, when), max(last, when))
            current = last_write.wrote(change.updates)
            if discard is None and len(table) < KNOWN and not self._is_full(current) and not self._is_due(current):
                table[key] = current
                return identity, False
        self.end(domain, [change], {key: (last_write, discard)})
        return identity, before is None

    def _is_full(self, one: _Known) -> bool:
        return one.listed >= min(LIST, self._slack) or one.size >= LIST_BYTES

    def _is_due(self, one: _Known) -> bool:
        return one.fresh >= self._slack and bool(self._limit or self._age)

    def changes(self, updates: Iterable[tuple[Key, int, Document]]) -> list[Change]:
        """Return the changes that remain when (key, time, update) are written in this order, one per key."""
        changes: dict[Key, Change] = {}
        for key, when, update in updates:
            before = changes.get(key)
            if before is None:
                changes[key] = Change(key, {when: update}, when)
            else:
                earlier_updates = {moment: remaining for moment, remaining in before.updates.items() if moment < when}
                changes[key] = Change(key, {**earlier_updates, when: update}, min(before.since, when))
        return list(changes.values())

    def begin(self, domain: Domain, changes: Sequence[Change]) -> dict[Key, tuple[_Known | None, Span | None]]:
        """Prepare a write; return for each key its last write, if known, and the times of the versions that the write discards.

        If the last write of a record was not by this process, keep the record as a version and delete void versions.
        """
        last_writes = self._known[domain.name]
        begun: dict[Key, tuple[_Known | None, Span | None]] = {}
        unsure: dict[Key, Change] = {}
        for change in changes:
            last = last_writes.pop(change.key, None)  # forgotten until the outcome of this write is known
            if last is None or change.since < last.when:
                unsure[change.key] = change
            begun[change.key] = (last, None)
        if not unsure:
            return begun
        # Query versions first: what another process moves there meanwhile is not later than its record.
        newest = self._newest(domain, dict.fromkeys(unsure, MaxKey()), projection={"_id": True})
        records = self._documents(domain, list(unsure))
        void: dict[Key, Span] = {}
        for key, change in unsure.items():
            record = records.get(key)
            end = newest[key]["_id"]["when"] if key in newest else None
            last_time = None if record is None else _time(record.get("when"))
            begun[key] = (None, (change.since, last_time) if last_time is not None and last_time > change.since else None)
            if end is not None and (record is None or (last_time is not None and last_time < end)):
                void[key] = (MinKey() if last_time is None else last_time, end)
        self._delete(domain, void)
        self._move(domain, records)
        return begun

    def write_known(self, domain: Domain, changes: Sequence[Change], begun: dict[Key, tuple[_Known | None, Span | None]]) -> list[Change]:
        """Write the records that are still as this process last wrote them.

        Returns the changes that are still to be written; their entries in ``begun`` are updated.
        """
        own = [(change, last) for change in changes if (last := begun[change.key][0]) is not None]
        pairs = [({**key_fields(domain, change.key), "when": last.when}, change.update) for change, last in own]
        if pairs and self._connection.update_many(domain, pairs) < len(pairs):
            # Another process has written or removed one of them. The reply does not say which, so write all as if none were known.
            begun |= self.begin(domain, [change for change, _ in own])
        return [change for change in changes if begun[change.key][0] is None]

    def end(self, domain: Domain, changes: Sequence[Change], begun: Mapping[Key, tuple[_Known | None, Span | None]]) -> None:
        """Finish a write: discard versions as ``begin`` determined, and move and prune versions if they are due."""
        spans = {key: discard for key, (_, discard) in begun.items() if discard is not None}
        if spans:
            self._delete(domain, spans, {change.key: list(change.updates) for change in changes})
        unknown = _Known(0, fresh=self._slack)  # the number of versions is unknown
        written = {change.key: (begun[change.key][0] or unknown).wrote(change.updates) for change in changes}
        full = {key: last for key, last in written.items() if self._is_full(last)}
        if full:
            self._move(domain, self._documents(domain, list(full)), only_listed=True)
            written.update((key, last._replace(listed=0, size=0)) for key, last in full.items())
        due = {key: last for key, last in written.items() if self._is_due(last)}
        if due:
            self._prune(domain, {key: last.when for key, last in due.items()})
            written.update((key, written[key]._replace(fresh=0)) for key in due)
        last_writes = self._known[domain.name]
        if len(last_writes) + len(written) > KNOWN:
            last_writes.clear()
        last_writes.update(written)

    def forget(self, domain: Domain, keys: Iterable[Key]) -> None:
        """Forget the last writes of records that were changed without a new time; the next write keeps each record as a version."""
        for key in keys:
            self._known[domain.name].pop(key, None)

    def _move(self, domain: Domain, records: Mapping[Key, RawBSONDocument], *, only_listed: bool = False) -> None:
        """Move the versions in the documents of records to the versions collection.

        Also copy each record there, as its last version, unless ``only_listed``.
        """
        versions: dict[tuple[Key, int], RawBSONDocument] = {}
        moved: list[tuple[Document, Document]] = []
        copied_fields = (domain.body or "", "updatedDate", "removed", "when")
        for key, record in records.items():
            last = _time(record.get("when"))
            listed = _listed(record)
            for entry in listed:
                when = _time(entry.get("when"))
                if when is not None and (last is None or when <= last):
                    versions[key, when] = entry
            if not only_listed:
                members = {name: record[name] for name in copied_fields if name in record}
                if last is not None:
                    members["when"] = last
                versions[key, ALWAYS if last is None else last] = RawBSONDocument(encode(members, codec_options=RAW))
            if listed:
                moved.append((key_fields(domain, key), {"$pullAll": {"versions": listed}}))
        target = self._versions[domain.name]
        rows = [({"_id": _identity(domain, key, when)}, {"$set": version}) for (key, when), version in versions.items()]
        existing = self._connection.insert_members(target, rows) if rows else set()
        if existing:
            self._connection.upsert_many(target, [rows[index] for index in existing], ordered=False)
        if moved:
            self._connection.update_many(domain, moved)

    def _prune(self, domain: Domain, keys: Mapping[Key, int]) -> None:
        """Delete the versions that exceed the limit or the age. ``keys`` maps each key to the time of its newest version."""
        oldest = {key: when - self._age for key, when in keys.items()} if self._age else {}
        if self._limit:
            versions = self._newest(domain, dict.fromkeys(keys, MaxKey()), skip=self._limit - 1, projection={"_id": True})
            for key, version in versions.items():
                oldest[key] = max(oldest.get(key, version["_id"]["when"]), version["_id"]["when"])
        self._delete(domain, {key: (MinKey(), when - 1) for key, when in oldest.items()})

    # --- reading, and going back ---

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> dict[Key, Record]:
        """Return the records of keys as of ``moment`` (ms)."""
        answer: dict[Key, Record] = {}
        # Query documents first: a version that is moved meanwhile is then found in the other collection.
        records = self._documents(domain, keys)
        moved = self._newest(domain, dict.fromkeys(records, moment))
        for key, record in records.items():
            now = _time(record.get("when"))
            version: Any = record if now is None or now <= moment else _last(record, moment, moved.get(key))
            if version is None:
                continue
            with reading(domain):
                opened = self._readers[domain.name].open(version.raw)[1]
            when = opened.when
            if now is None or not self._age or (when is not None and when >= now - self._age):
                answer[key] = opened._replace(key=key)
        return answer

    def discard(self, domain: Domain, keys: Sequence[Key], since: int) -> list[Key]:
        """Discard versions at or after ``since`` (ms); return the keys that have no record left."""
        self.forget(domain, keys)
        records = self._documents(domain, keys)
        times = {key: _time(record.get("when")) for key, record in records.items()}
        affected = [key for key, when in times.items() if when is not None and when >= since]
        moved = self._newest(domain, dict.fromkeys(affected, since - 1))
        # Update the records first: versions later than their record are void, whatever happens in between.
        operations: list[Any] = []
        deleted = []
        for key in affected:
            query = {**key_fields(domain, key), "when": {"$gte": since}}
            version = _last(records[key], since - 1, moved.get(key))
            if version is None:
                operations.append(DeleteOne(query))
                deleted.append(key)
            else:
                base: Document = {"removed": False} if domain.soft_delete else {}
                members = {**base, **{name: version[name] for name in version if name != "_id"}}
                operations.append(UpdateOne(query, {"$set": members, **({} if "when" in members else {"$unset": {"when": True}})}))
        if operations:
            self._connection.retried(domain, lambda: self._connection.collection(domain).bulk_write(operations, ordered=False))
        self._delete(domain, dict.fromkeys(keys, (since - 1, MaxKey())))
        return deleted

    def _newest(self, domain: Domain, moments: Mapping[Key, Any], **options: Any) -> dict[Key, RawBSONDocument]:
        """Return the last version of each key in the versions collection that is not later than its moment (ms)."""
        queries = [
            {
                "filter": {"_id": {"$gte": _identity(domain, key, MinKey()), "$lte": _identity(domain, key, moment)}},
                "sort": {"_id": -1},
                "limit": 1,
                **options,
            }
            for key, moment in moments.items()
        ]
        batches = self._connection.fetch(self._versions[domain.name], queries) if queries else ()
        documents = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row["_id"][name] for name in domain.key): row for row in documents}

    def _documents(self, domain: Domain, keys: Sequence[Key]) -> dict[Key, RawBSONDocument]:
        """Return the current documents of records."""
        batches = self._connection.fetch(domain, [{"filter": {"$or": [key_fields(domain, key) for key in keys]}}])
        documents = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row[name] for name in domain.key): row for row in documents}

    def _delete(self, domain: Domain, spans: Mapping[Key, Span], kept: Mapping[Key, Sequence[int]] | None = None) -> None:
        """Delete the versions of keys within spans, except those with the times in ``kept``."""
        moved: list[Any] = []
        listed: list[tuple[Document, Document]] = []
        for key, (start, end) in spans.items():
            spared = (kept or {}).get(key, ())
            ends = {"$gt": _identity(domain, key, start), "$lte": _identity(domain, key, end)}
            moved.append(DeleteMany({"_id": {**ends, "$nin": [_identity(domain, key, when) for when in spared]}}))
            listed.append((key_fields(domain, key), {"$pull": {"versions": {"when": {"$gt": start, "$lte": end, "$nin": [*spared]}}}}))
        if moved:
            versions = self._versions[domain.name]
            self._connection.retried(versions, lambda: self._connection.collection(versions).bulk_write(moved, ordered=False))
            self._connection.update_many(domain, listed)


def _identity(domain: Domain, key: Key, when: Any) -> Document:
    """Return the ``_id`` of a version. Documents compare field by field, so the versions of a key sort by time."""
    return {**key_fields(domain, key), "when": when}


def _time(value: Any) -> int | None:
    """Return the time of a record (ms); None if another writer stored something that is not a time."""
    if isinstance(value, Decimal128):
        value = float(value.to_decimal())
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _listed(record: RawBSONDocument) -> list[RawBSONDocument]:
    """Return the versions in the document of a record, in the order of their writes."""
    versions = record.get("versions")
    entries = versions if isinstance(versions, list) else []
    return [RawBSONDocument(bytes(entry.raw), RAW) for entry in entries if isinstance(entry, RawBSONDocument)]


def _last(record: RawBSONDocument, moment: int, moved: RawBSONDocument | None) -> RawBSONDocument | None:
    """Return the last version not later than ``moment`` (ms), from the document of a record or ``moved``, the last one moved out of it."""
    best, latest = moved, None if moved is None else moved["_id"]["when"]
    for entry in _listed(record):
        when = _time(entry.get("when"))
        if when is not None and when <= moment and (latest is None or when >= latest):
            best, latest = entry, when
    return best
