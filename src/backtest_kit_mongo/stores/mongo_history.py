"""Versions of records in MongoDB, so that a record can be read as of a time: one document each in ``<name>-versions``.

The ``_id`` of a version is its key fields and its time, so the index that every collection has finds the last one before a moment.
A record is its own last version: those that are later than the record are void, be it that a write back in time or a process ended
before it could delete them. The record is written first, then its version. What ended between the two was not acknowledged, and
whoever writes the key next finds a record without a version and keeps it as one; so it does with what others wrote.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from bson import Decimal128, MaxKey, MinKey
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, DeleteOne, UpdateOne

from .._core import bson
from ..domains import DOMAINS, Domain
from .base import History, Key, Record
from .connection import RAW, Document, MongoConnection
from .failures import reading, retried
from .forks import renew_after_fork
from .posted import Posted

__all__ = ["Change", "MongoHistory"]

DAY = 86_400_000

KNOWN = 50_000
"""Keys of a domain whose last write this process remembers; beyond, it forgets all and looks again."""

Span = tuple[Any, Any]
"""Times (ms) later than the first and not later than the second."""


class Change(NamedTuple):
    """What is written of one key: the updates that last, by time (ms, ascending), and the earliest time of all."""

    key: Key
    updates: dict[int, Document]
    since: int


class _Known(NamedTuple):
    """The last write of a key: its simulation time (ms), and how many versions were written since the oldest were last deleted."""

    when: int
    fresh: int


class _Begun(NamedTuple):
    """What is known of a key before a write: its last time (ms), what the write discards, and how many versions are fresh already."""

    last: int | None
    discard: Span | None = None
    fresh: int = 0


class _Versions(Domain):
    """The versions of a domain's records."""

    @cached_property
    def collection(self) -> str:
        """MongoDB collection."""
        return f"{self.name}-versions"


class MongoHistory:
    """The versions of the domains that ``history`` names."""

    def __init__(self, history: History, connection: MongoConnection) -> None:
        self._connection = connection
        self._limit, self._age = history.limit, history.days * DAY
        # The oldest go when there are a tenth more than the limit, so that a write does not have to look for them.
        self._slack = max(1, history.limit // 10) if history.limit else 100
        names = [field.name for field in dataclasses.fields(Domain)]
        self._versions = {name: _Versions(**{field: getattr(DOMAINS[name], field) for field in names}) for name in history.domains}
        self._readers = {name: bson.RecordReader((), DOMAINS[name].body or "", Record) for name in history.domains}
        self._posted = Posted(self._again)
        self.renew()
        renew_after_fork(self)

    def __contains__(self, domain: Domain) -> bool:
        return domain.name in self._versions

    def renew(self) -> None:
        """Forget what was written here; see ``forks``."""
        self._known: dict[str, dict[Key, _Known]] = {name: {} for name in self._versions}

    def close(self) -> None:
        """Part with the connection on which versions are on their way."""
        self._posted.close()

    def _again(self, writes: dict[Hashable, Any]) -> None:
        """Write versions of which nobody knows whether they are there. Should that fail, the next write keeps the record as one."""
        by_name: dict[str, list[tuple[Document, Document]]] = {}
        for (name, key), version in writes.items():  # type: ignore[misc]
            self._known[name].pop(key, None)
            by_name.setdefault(name, []).append(version)
        for name, versions in by_name.items():
            self._connection.upsert_many(self._versions[name], versions, ordered=False)

    # --- writing ---

    def write(self, domain: Domain, key: Key, when: int, update: Document) -> tuple[bytes | None, bool]:
        """As ``upsert`` of the connection, with the version."""
        known = self._known[domain.name].pop(key, None)  # until it is known what became of this write
        if known is None or when < known.when:
            changes = [Change(key, {when: update}, when)]
            begun = self.begin(domain, changes)
            outcome = self._connection.upsert(domain, _fields(domain, key), update)
            self.end(domain, changes, begun)
            return outcome
        version, wanted = _version(domain, key, when, update), _fields(domain, key)
        later = self._may_wait(domain)
        if later:
            identity, before = self._connection.upsert_noting(domain, wanted, update, self._posted, (domain.name, key))
        else:
            identity, before = self._connection.upsert_both(domain, (wanted, update), self._versions[domain.name], version)
        last = None if before is None else _time(before.get("when"))
        if before is None:  # the record was deleted, and so its versions are void
            self._delete(domain, {key: (MinKey(), when)}, {key: [when]})
        elif last is not None and last != known.when:  # another writer's: what lies between is void, or discarded by this write
            self._delete(domain, {key: (min(last, when), max(last, when))}, {key: [when]})
        written = {key: _Known(when, known.fresh + 1)}
        self._put(domain, [version] if later else [], written, later=later, new=last == known.when < when)
        return identity, before is None

    def _may_wait(self, domain: Domain) -> bool:
        """Whether the reply to a version may be read later. Where the journal is waited for, it is the same wait as the record's."""
        return not self._connection.collection(domain).write_concern.document.get("j")

    def _put(
        self, domain: Domain, versions: Sequence[tuple[Document, Document]], written: Mapping[Key, _Known], *, later: bool, new: bool
    ) -> None:
        """Write versions and remember the writes. ``later``: each is that of its record, which is kept should it get lost."""
        known, target = self._known[domain.name], self._versions[domain.name]
        if len(known) + len(written) > KNOWN:
            known.clear()
        known.update(written)  # before the replies, which may take some out again
        writes: dict[Hashable, tuple[Document, Document]] = {}
        if later:
            writes.update(((domain.name, key), version) for key, version in zip(written, versions, strict=True))
        if versions and not (later and self._connection.write_later(target, self._posted, writes, new=new)):
            for key in written:
                known.pop(key, None)
            self._connection.upsert_many(target, versions, ordered=False)
            known.update(written)
        due = {key: one.when for key, one in written.items() if one.fresh >= self._slack} if self._limit or self._age else {}
        if due:
            self._posted.settle()
            self._prune(domain, due)
            known.update((key, _Known(when, 0)) for key, when in due.items() if key in known)

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

    def begin(self, domain: Domain, changes: Sequence[Change]) -> dict[Key, _Begun]:
        """Before the records are written: those that this process does not know are kept as versions, void versions deleted."""
        self._posted.settle()
        known = self._known[domain.name]
        begun: dict[Key, _Begun] = {}
        unsure: dict[Key, Change] = {}
        for change in changes:
            last = known.pop(change.key, None)
            if last is None or change.since < last.when:
                unsure[change.key] = change
            else:
                begun[change.key] = _Begun(last.when, fresh=last.fresh)
        if not unsure:
            return begun
        # Versions are looked at first: what another writer has at work then has its record already.
        newest = self._newest(domain, dict.fromkeys(unsure, MaxKey()), projection={"_id": True})
        records = self._documents(domain, list(unsure))
        void: dict[Key, Span] = {}
        kept = []
        for key, change in unsure.items():
            end = newest[key]["_id"]["when"] if key in newest else None
            last_time = _time(records[key].get("when")) if key in records else None
            discard = None
            if last_time is not None:
                if last_time < change.since:
                    kept.append((key, last_time, records[key]))
                elif last_time > change.since:
                    discard = (change.since, last_time)
                if end is not None and last_time < end:
                    void[key] = (last_time, end)
            elif end is not None and key not in records:
                void[key] = (MinKey(), end)
            begun[key] = _Begun(last_time, discard, 0 if end is None else self._slack)
        self._delete(domain, void)
        self._keep(domain, kept)
        return begun

    def end(self, domain: Domain, changes: Sequence[Change], begun: Mapping[Key, _Begun]) -> None:
        """After the records were written: their versions, and what is to be discarded."""
        versions = [_version(domain, change.key, when, update) for change in changes for when, update in change.updates.items()]
        spans = {key: one.discard for key, one in begun.items() if one.discard is not None}
        alone = len(versions) == len(changes)
        if spans:
            self._delete(domain, spans, {change.key: list(change.updates) for change in changes})
        written = {key: _Known(max(updates), begun[key].fresh + len(updates)) for key, updates, _ in changes}
        new = all((last := begun[change.key].last) is None or change.since > last for change in changes)
        self._put(domain, versions, written, later=alone and self._may_wait(domain), new=alone and new)

    def keep(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Records that were changed at their own time: they are versions as they are now."""
        self._posted.settle()
        records = self._documents(domain, keys)
        times = {key: _time(record.get("when")) for key, record in records.items()}
        self._keep(domain, [(key, when, records[key]) for key, when in times.items() if when is not None])

    def _keep(self, domain: Domain, records: Sequence[tuple[Key, int, Document]]) -> None:
        """Write documents of records (and the times of them) as versions."""
        names = (domain.body, "updatedDate", "removed")
        changes: list[tuple[Document, Document]] = [
            ({"_id": _identity(domain, key, when)}, {"$set": {"when": when, **{name: row[name] for name in names if name in row}}})
            for key, when, row in records
        ]
        if changes:
            self._connection.upsert_many(self._versions[domain.name], changes, ordered=False)

    def _prune(self, domain: Domain, keys: Mapping[Key, int]) -> None:
        """Delete the versions beyond the limit or the age of keys, given with their newest times."""
        oldest = {key: when - self._age for key, when in keys.items()} if self._age else {}
        if self._limit:
            found = self._newest(domain, dict.fromkeys(keys, MaxKey()), skip=self._limit - 1, projection={"_id": True})
            for key, version in found.items():
                oldest[key] = max(oldest.get(key, version["_id"]["when"]), version["_id"]["when"])
        self._delete(domain, {key: (MinKey(), when - 1) for key, when in oldest.items()})

    # --- reading, and going back ---

    def read_at(self, domain: Domain, moments: Mapping[Key, int], current: Mapping[Key, int]) -> dict[Key, Record]:
        """The last versions of keys at moments before the times of the current records (ms)."""
        found: dict[Key, Record] = {}
        for key, version in self._newest(domain, moments).items():
            with reading(self._versions[domain.name]):
                record = self._readers[domain.name].open(version.raw)[1]
            if record.when is not None and (not self._age or record.when >= current[key] - self._age):
                found[key] = record._replace(key=key)
        return found

    def discard(self, domain: Domain, records: Mapping[Key, int | None], since: int) -> list[Key]:
        """Discard what is of ``since`` (ms) or later, of keys given with the times of their records; keys that are gone then."""
        self._posted.settle()
        known = self._known[domain.name]
        for key in records:
            known.pop(key, None)
        late = [key for key, when in records.items() if when is not None and when >= since]
        earlier = self._newest(domain, dict.fromkeys(late, since - 1))
        # Records first: versions that are later than their record are void, whatever comes in between.
        operations: list[Any] = []
        for key in late:
            wanted = {**_fields(domain, key), "when": {"$gte": since}}
            version = earlier.get(key)
            if version is None:
                operations.append(DeleteOne(wanted))
            else:
                base: Document = {"removed": False} if domain.soft_delete else {}
                operations.append(UpdateOne(wanted, {"$set": {**base, **{name: version[name] for name in version if name != "_id"}}}))
        if operations:
            retried(domain, lambda: self._connection.collection(domain).bulk_write(operations, ordered=False))
        self._delete(domain, dict.fromkeys(records, (since - 1, MaxKey())))
        return [key for key in late if key not in earlier]

    def _newest(self, domain: Domain, moments: Mapping[Key, Any], **options: Any) -> dict[Key, RawBSONDocument]:
        """The last versions of keys, each not later than its moment."""
        queries = [
            {
                "filter": {"_id": {"$gte": _identity(domain, key, MinKey()), "$lte": _identity(domain, key, moment)}},
                "sort": {"_id": -1},
                "limit": 1,
                **options,
            }
            for key, moment in moments.items()
        ]
        versions = self._versions[domain.name]
        batches = self._connection.fetch(versions, queries) if queries else ()
        found = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row["_id"][name] for name in domain.key): row for row in found}

    def _documents(self, domain: Domain, keys: Sequence[Key]) -> dict[Key, Document]:
        """The documents of records as they are now."""
        batches = self._connection.fetch(domain, [{"filter": {"$or": [_fields(domain, key) for key in keys]}}])
        found: list[Any] = [RawBSONDocument(row, RAW) for batch in batches for row in bson.split(batch)]
        return {tuple(row[name] for name in domain.key): row for row in found}

    def _delete(self, domain: Domain, spans: Mapping[Key, Span], kept: Mapping[Key, Sequence[int]] | None = None) -> None:
        """Delete the versions of keys in spans of time, but for those of some times."""
        operations = []
        for key, (start, end) in spans.items():
            spared = [_identity(domain, key, when) for when in (kept or {}).get(key, ())]
            ends = {"$gt": _identity(domain, key, start), "$lte": _identity(domain, key, end)}
            operations.append(DeleteMany({"_id": {**ends, "$nin": spared}}))
        if operations:
            versions = self._versions[domain.name]
            retried(versions, lambda: self._connection.collection(versions).bulk_write(operations, ordered=False))


def _fields(domain: Domain, key: Key) -> Document:
    return dict(zip(domain.key, key, strict=True))


def _identity(domain: Domain, key: Key, when: Any) -> Document:
    """The ``_id`` of a version; documents compare field by field, so those of a key stand in the order of their times."""
    return {**_fields(domain, key), "when": when}


def _version(domain: Domain, key: Key, when: int, update: Document) -> tuple[Document, Document]:
    """The upsert of a version (filter, update), from that of its record."""
    return {"_id": _identity(domain, key, when)}, {"$set": update["$set"]}


def _time(value: Any) -> int | None:
    """The time of a record (ms); None if another writer left something there that is none."""
    if isinstance(value, Decimal128):
        value = float(value.to_decimal())
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
