"""Versions of records in MongoDB, so that a record can be read as of a time.

A write puts its version into the record's own document, into the list ``versions`` (the original looks at none but its own fields): one
command writes both or neither, and costs little more than one without. When the list has become long it is moved to a collection
of its own, ``<name>-versions``, a document each: its ``_id`` is the key and the time, so the index that every collection has finds the
last one before a moment. While it is being moved a version may stand in both places, which are equal.

The record is its own last version: those that are later are void, be it that a write back in time ended before it could delete them,
or that another writer, who knows of no versions, went back. What others wrote has none: whoever writes a key for the first time
in a process first keeps the record that is there.
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

# Members are copied as they are, whatever their writer put there.
RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument, tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)

LIST, LIST_BYTES = 32, 16_384
"""Versions, and bytes of them, that one process leaves in the document of a record; every read of the record has to carry them."""

KNOWN = 50_000
"""Keys of a domain whose last write this process remembers; beyond, it forgets all and looks again."""

ALWAYS = Int64(-(2**63))
"""As the time of a version that has none, or something else in its place: another program wrote it, before there was history."""

Span = tuple[Any, Any]
"""Times (ms) later than the first and not later than the second."""


class Change(NamedTuple):
    """What is written of one key: the updates that last, by time (ms, ascending), and the earliest time of all."""

    key: Key
    updates: dict[int, Document]
    since: int

    @property
    def update(self) -> Document:
        """The update of the record with its versions."""
        versions = [update["$set"] for update in self.updates.values()]
        last = self.updates[max(self.updates)]
        return {**last, "$push": {"versions": versions[0] if len(versions) == 1 else {"$each": versions}}}


class _Known(NamedTuple):
    """The last write of a key: its simulation time (ms), what stands in its document since, and versions since the last pruning."""

    when: int
    listed: int = 0
    size: int = 0
    fresh: int = 0

    def wrote(self, updates: Mapping[int, Document]) -> _Known:
        size = sum(len(update["$set"].raw) for update in updates.values())
        return _Known(max(updates), self.listed + len(updates), self.size + size, self.fresh + len(updates))


class _Versions(Domain):
    """The versions of a domain's records."""

    @cached_property
    def collection(self) -> str:
        """MongoDB collection."""
        return f"{self.name}-versions"


class MongoVersions:
    """The versions of the domains that ``history`` names."""

    def __init__(self, history: History, connection: MongoDatabase) -> None:
        self._connection = connection
        self._limit, self._age = history.limit, history.days * DAY
        # The oldest go when there are a tenth more than the limit, so that not every write has to look for them.
        self._slack = max(1, history.limit // 10) if history.limit else 100
        names = [field.name for field in dataclasses.fields(Domain)]
        self._versions = {name: _Versions(**{field: getattr(DOMAINS[name], field) for field in names}) for name in history.domains}
        self._readers = {name: bson.RecordReader((), DOMAINS[name].body or "", Record) for name in history.domains}
        self.renew()
        renew_after_fork(self)

    def __contains__(self, domain: Domain) -> bool:
        return domain.name in self._versions

    def renew(self) -> None:
        """Forget what was written here; see ``forks``."""
        self._known: dict[str, dict[Key, _Known]] = {name: {} for name in self._versions}

    # --- writing ---

    def write(self, domain: Domain, key: Key, when: int, update: Document) -> tuple[bytes | None, bool]:
        """As ``upsert`` of the connection, with the version."""
        table = self._known[domain.name]
        change = Change(key, {when: update}, when)
        known, discard = table.pop(key, None), None  # nothing, until it is known what became of this write
        sure = known is not None and when >= known.when
        if not sure:
            known, discard = self.begin(domain, [change])[key]
        identity, before = self._connection.upsert_noting(domain, key_fields(domain, key), change.update)
        last = None if before is None else _time(before.get("when"))
        if known is not None:
            if before is None:  # there was no record any more, so what there is of versions is void
                discard = (MinKey(), when)
            elif last is not None and last != known.when:  # another writer's: what lies between is void, or discarded by this write
                discard = (min(last, when), max(last, when))
            one = known.wrote(change.updates)
            if discard is None and len(table) < KNOWN and not self._is_full(one) and not self._is_due(one):
                table[key] = one
                return identity, False
        self.end(domain, [change], {key: (known, discard)})
        return identity, before is None

    def _is_full(self, one: _Known) -> bool:
        return one.listed >= min(LIST, self._slack) or one.size >= LIST_BYTES

    def _is_due(self, one: _Known) -> bool:
        return one.fresh >= self._slack and bool(self._limit or self._age)

    def changes(self, updates: Iterable[tuple[Key, int, Document]]) -> list[Change]:
        """What lasts of (key, time, update) that are written one after the other."""
        found: dict[Key, Change] = {}
        for key, when, update in updates:
            before = found.get(key)
            if before is None:
                found[key] = Change(key, {when: update}, when)
            else:
                kept = {moment: earlier for moment, earlier in before.updates.items() if moment < when}
                found[key] = Change(key, {**kept, when: update}, min(before.since, when))
        return list(found.values())

    def begin(self, domain: Domain, changes: Sequence[Change]) -> dict[Key, tuple[_Known | None, Span | None]]:
        """Before records are written: what is known of each key, and what the write discards.

        Records whose last write was not this process's are kept as versions, and void versions deleted.
        """
        known = self._known[domain.name]
        begun: dict[Key, tuple[_Known | None, Span | None]] = {}
        unsure: dict[Key, Change] = {}
        for change in changes:
            last = known.pop(change.key, None)  # until it is known what became of this write
            if last is None or change.since < last.when:
                unsure[change.key] = change
            begun[change.key] = (last, None)
        if not unsure:
            return begun
        # Versions are looked at first: what another writer is moving there meanwhile is not later than its record.
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
        """Write those records that are still what this process wrote last; the others, for which ``begun`` is brought up to date."""
        sure = [(change, last) for change in changes if (last := begun[change.key][0]) is not None]
        wanted = [({**key_fields(domain, change.key), "when": last.when}, change.update) for change, last in sure]
        if wanted and self._connection.update_many(domain, wanted) < len(wanted):
            # Another process has written, or removed, one of them. Which one is not said, so all are written as if nothing was known.
            begun |= self.begin(domain, [change for change, _ in sure])
        return [change for change in changes if begun[change.key][0] is None]

    def end(self, domain: Domain, changes: Sequence[Change], begun: Mapping[Key, tuple[_Known | None, Span | None]]) -> None:
        """After records were written: discard what ``begin`` said, and move and prune versions where it is time to."""
        spans = {key: discard for key, (_, discard) in begun.items() if discard is not None}
        if spans:
            self._delete(domain, spans, {change.key: list(change.updates) for change in changes})
        first = _Known(0, fresh=self._slack)  # nobody knows how many there are
        written = {change.key: (begun[change.key][0] or first).wrote(change.updates) for change in changes}
        full = {key: one for key, one in written.items() if self._is_full(one)}
        if full:
            self._move(domain, self._documents(domain, list(full)), only_listed=True)
            written.update((key, one._replace(listed=0, size=0)) for key, one in full.items())
        due = {key: one for key, one in written.items() if self._is_due(one)}
        if due:
            self._prune(domain, {key: one.when for key, one in due.items()})
            written.update((key, written[key]._replace(fresh=0)) for key in due)
        known = self._known[domain.name]
        if len(known) + len(written) > KNOWN:
            known.clear()
        known.update(written)

    def forget(self, domain: Domain, keys: Iterable[Key]) -> None:
        """Records were changed at their own time: the next write of each keeps it as it is then."""
        for key in keys:
            self._known[domain.name].pop(key, None)

    def _move(self, domain: Domain, records: Mapping[Key, RawBSONDocument], *, only_listed: bool = False) -> None:
        """Move the versions in documents of records to the other collection, and (a copy of) the record, which is the last of them."""
        versions: dict[tuple[Key, int], RawBSONDocument] = {}
        moved: list[tuple[Document, Document]] = []
        names = (domain.body or "", "updatedDate", "removed", "when")
        for key, record in records.items():
            last = _time(record.get("when"))
            listed = _listed(record)
            for entry in listed:
                when = _time(entry.get("when"))
                if when is not None and (last is None or when <= last):
                    versions[key, when] = entry
            if not only_listed:
                members = {name: record[name] for name in names if name in record}
                if last is not None:
                    members["when"] = last
                versions[key, ALWAYS if last is None else last] = RawBSONDocument(encode(members, codec_options=RAW))
            if listed:
                moved.append((key_fields(domain, key), {"$pullAll": {"versions": listed}}))
        target = self._versions[domain.name]
        rows = [({"_id": _identity(domain, key, when)}, {"$set": version}) for (key, when), version in versions.items()]
        there = self._connection.insert_members(target, rows) if rows else set()
        if there:
            self._connection.upsert_many(target, [rows[index] for index in there], ordered=False)
        if moved:
            self._connection.update_many(domain, moved)

    def _prune(self, domain: Domain, keys: Mapping[Key, int]) -> None:
        """Delete the versions beyond the limit or the age of keys, given with their newest times."""
        oldest = {key: when - self._age for key, when in keys.items()} if self._age else {}
        if self._limit:
            found = self._newest(domain, dict.fromkeys(keys, MaxKey()), skip=self._limit - 1, projection={"_id": True})
            for key, version in found.items():
                oldest[key] = max(oldest.get(key, version["_id"]["when"]), version["_id"]["when"])
        self._delete(domain, {key: (MinKey(), when - 1) for key, when in oldest.items()})

    # --- reading, and going back ---

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> dict[Key, Record]:
        """The records of keys as of a moment (ms)."""
        found: dict[Key, Record] = {}
        # Documents first: what is being moved meanwhile is found in the other place.
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
                found[key] = opened._replace(key=key)
        return found

    def discard(self, domain: Domain, keys: Sequence[Key], since: int) -> list[Key]:
        """Discard what is of ``since`` (ms) or later; keys that are gone then."""
        self.forget(domain, keys)
        records = self._documents(domain, keys)
        times = {key: _time(record.get("when")) for key, record in records.items()}
        late = [key for key, when in times.items() if when is not None and when >= since]
        moved = self._newest(domain, dict.fromkeys(late, since - 1))
        # Records first: versions that are later than their record are void, whatever comes in between.
        operations: list[Any] = []
        gone = []
        for key in late:
            wanted = {**key_fields(domain, key), "when": {"$gte": since}}
            version = _last(records[key], since - 1, moved.get(key))
            if version is None:
                operations.append(DeleteOne(wanted))
                gone.append(key)
            else:
                base: Document = {"removed": False} if domain.soft_delete else {}
                members = {**base, **{name: version[name] for name in version if name != "_id"}}
                operations.append(UpdateOne(wanted, {"$set": members, **({} if "when" in members else {"$unset": {"when": True}})}))
        if operations:
            self._connection.retried(domain, lambda: self._connection.collection(domain).bulk_write(operations, ordered=False))
        self._delete(domain, dict.fromkeys(keys, (since - 1, MaxKey())))
        return gone

    def _newest(self, domain: Domain, moments: Mapping[Key, Any], **options: Any) -> dict[Key, RawBSONDocument]:
        """The last versions of keys in their own collection, each not later than its moment."""
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
        found = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row["_id"][name] for name in domain.key): row for row in found}

    def _documents(self, domain: Domain, keys: Sequence[Key]) -> dict[Key, RawBSONDocument]:
        """The documents of records as they are now."""
        batches = self._connection.fetch(domain, [{"filter": {"$or": [key_fields(domain, key) for key in keys]}}])
        found = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row[name] for name in domain.key): row for row in found}

    def _delete(self, domain: Domain, spans: Mapping[Key, Span], kept: Mapping[Key, Sequence[int]] | None = None) -> None:
        """Delete the versions of keys in spans of time, but for those of some times."""
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
    """The ``_id`` of a version; documents compare field by field, so those of a key stand in the order of their times."""
    return {**key_fields(domain, key), "when": when}


def _time(value: Any) -> int | None:
    """The time of a record (ms); None if another writer left something there that is none."""
    if isinstance(value, Decimal128):
        value = float(value.to_decimal())
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _listed(record: RawBSONDocument) -> list[RawBSONDocument]:
    """The versions in the document of a record, in the order in which they were written."""
    found = record.get("versions")
    entries = found if isinstance(found, list) else []
    return [RawBSONDocument(bytes(entry.raw), RAW) for entry in entries if isinstance(entry, RawBSONDocument)]


def _last(record: RawBSONDocument, moment: int, moved: RawBSONDocument | None) -> RawBSONDocument | None:
    """The last version that is not later than a moment, of those in the document of a record and the last one elsewhere."""
    best, latest = moved, None if moved is None else moved["_id"]["when"]
    for entry in _listed(record):
        when = _time(entry.get("when"))
        if when is not None and when <= moment and (latest is None or when >= latest):
            best, latest = entry, when
    return best
