"""The Mongo store: MongoDB is the truth. Ids cached in the process and in Redis make reads faster, and are always verified."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pymongo
from bson.errors import BSONError
from pymongo.errors import PyMongoError

from ..._core import bson
from ..._core.blocks import CandleBlocks
from ..._core.hit_reader import UNASKED, HitReader, parse_id
from ..._core.upsert_writer import UpsertWriter
from ...candles import CandleArray
from ...config import Config
from ...domains import DOMAINS, Domain
from ...errors import (
    OWN_SERVERS,
    BacktestKitError,
    DatabaseError,
    IndexConflictError,
    NotConfiguredError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from ...metrics import BACKFILLS, ERRORS, HITS_PROCESS, HITS_REDIS, MISSES, STALE, Metrics
from ..base import NO_HISTORY, History, Key, Record
from .availability import saying_what_is_waited_for
from .candle_writes import CandleWriter
from .candles import MongoCandles
from .database import MongoDatabase
from .documents import Document, in_order, insert_of, key_fields, unchanged, update_of
from .errors import reading, translated, translated_items, translates
from .fast_paths import make_hit_readers, make_upsert_writers
from .index_checks import IndexChecks
from .indexes import conflict_error
from .redis_cluster import redis_ids
from .redis_ids import DomainIds, ProcessIds, RedisIds
from .sessions import TransactionNumber
from .versions import MongoVersions
from .write_dates import WriteDates

__all__ = ["MongoStore"]

CHUNK = 1000
"""Records per command of a batch."""


class MongoStore:
    """Keeps records in MongoDB, and their ids in this process and in Redis. Safe for threads and for forked children."""

    def __init__(self, config: Config, metrics: Metrics, history: History = NO_HISTORY) -> None:
        self.config: Config = config
        self._metrics = metrics
        self.connection: MongoDatabase = MongoDatabase(config, metrics)
        self._indexes = IndexChecks(self.connection)
        self.history: MongoVersions = MongoVersions(history, self.connection)
        self.process_ids: ProcessIds = ProcessIds(config.CC_PROCESS_IDS)
        self.redis_ids: RedisIds = redis_ids(config, metrics)
        self.candles: MongoCandles = MongoCandles(config, self.connection, metrics)
        self._candle_writer = CandleWriter(config, self.candles, self.redis_ids)
        self.blocks: CandleBlocks = self.candles.blocks
        self._readers = {name: bson.RecordReader(domain.key, domain.body or "", Record) for name, domain in DOMAINS.items()}
        self.hits: dict[str, HitReader] = make_hit_readers(self._readers, self.process_ids, self.redis_ids, metrics)
        written = [domain for domain in DOMAINS.values() if domain not in self.history]
        self.upserts: dict[str, UpsertWriter] = make_upsert_writers(
            written, self.process_ids, self.redis_ids, metrics, self._indexes.look_again, self._write_by_driver
        )
        self._indexes.upserts = self.upserts
        self.write_dates: WriteDates = WriteDates()

    def ids(self, domain: Domain) -> DomainIds:
        """Return the id cache of a domain, to inspect and repair it."""
        return DomainIds(domain, self.process_ids, self.redis_ids)

    # --- readiness ---

    def wait_for_init(self, timeout: float) -> None:
        """Wait until MongoDB and Redis answer and all indexes exist.

        Raises ServerTimeoutError, naming each server that does not answer within ``timeout`` seconds; DatabaseError or
        ServerUnavailableError if waiting cannot help (login, certificate); IndexConflictError if an index or documents conflict with a
        unique key.
        """
        timeout = max(timeout, 0.001)  # to pymongo, 0 means no limit
        deadline = time.monotonic() + timeout
        given_up = threading.Event()
        with ThreadPoolExecutor(1, "wait_for_init") as executor, saying_what_is_waited_for(self.config, timeout) as addresses:
            redis_answer = executor.submit(self.redis_ids.ping, deadline, given_up)
            redis_answer.add_done_callback(lambda _: addresses.pop("Redis"))
            problems: list[BacktestKitError] = []
            try:
                with pymongo.timeout(timeout):
                    self.connection.look_at_server()
                addresses.pop("MongoDB")
            except PyMongoError as error:
                problems.append(translated(error))
                if not isinstance(problems[0], ServerTimeoutError):
                    given_up.set()  # waiting does not help
            try:
                redis_answer.result()
            except (ServerUnavailableError, DatabaseError) as error:
                problems.append(error)
        if len(problems) > 1 and all(isinstance(problem, ServerTimeoutError) for problem in problems):
            message = "\n".join(str(problem).partition("\n  hint: ")[0] for problem in problems)
            raise ServerTimeoutError(
                message,
                hint=f"are they running? CC_MONGO_CONNECTION_STRING and CC_REDIS_HOST, or CC_REDIS_URL, set their addresses; {OWN_SERVERS}",
            )
        if problems:
            raise problems[0]
        try:
            with pymongo.timeout(max(0.001, deadline - time.monotonic())):
                conflicts: dict[str, Any] = {}
                for domain in DOMAINS.values():
                    try:
                        self._indexes.ensure(domain, seen_within=0)
                        if domain.name == "candle":
                            self.candles.archive.prepare()
                    except IndexConflictError as error:
                        conflicts.update(error.conflicts)
        except PyMongoError as error:
            raise translated(error) from error
        if conflicts:
            raise conflict_error(conflicts)

    # --- reading ---

    @translates
    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store. Takes one command to MongoDB if all ids are cached, and none to Redis if this process has them."""
        distinct = keys if len(keys) == 1 else list(dict.fromkeys(keys))
        records: list[Record | None] = []
        for start in range(0, len(distinct), CHUNK):
            records += self._read_chunk(domain, distinct[start : start + CHUNK])
        return records if len(keys) == len(distinct) else in_order(keys, dict(zip(distinct, records, strict=True)))

    def _read_chunk(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """Read up to a thousand distinct keys: one command for all that have an id in this process or in Redis, another for the others.

        Sets and maps here refer to a key by its position in ``keys``.
        """
        counters = self._metrics.domains[domain.name]
        records: list[Record | None] = [None] * len(keys)
        stale, value = self.hits[domain.name].take_learned(keys[0]) if len(keys) == 1 else (None, UNASKED)
        cached = self.process_ids.get_many(domain, keys) if stale is None and value is UNASKED else [None]
        outdated = set() if stale is None else {0}  # positions with a stale id
        from_redis: set[int] = set()
        ids = {identity: position for position, identity in enumerate(cached) if identity is not None}
        if len(ids) < len(keys):
            outdated |= {position for position, identity in enumerate(cached) if identity is not None and ids[identity] != position}
            uncached = [position for position, identity in enumerate(cached) if identity is None and position not in outdated]
            if value is not UNASKED:
                values = [value]
            else:
                values = self.redis_ids.get_many(domain, [keys[position] for position in uncached]) if uncached else []
            for position, redis_value in zip(uncached, values, strict=True):
                identity = parse_id(redis_value)
                if identity is not None and identity not in ids and value is UNASKED:
                    ids[identity] = position
                    from_redis.add(position)
                elif redis_value is not None:
                    outdated.add(position)
        if ids:
            hits = self._find_by_ids(domain, ids, keys, records)
            shared = (
                [(position, identity) for identity, position in ids.items() if position in from_redis and records[position]]
                if from_redis
                else []
            )
            for position, identity in shared:
                self.process_ids.put(domain, keys[position], identity)
            counters.add(HITS_REDIS, len(shared))
            counters.add(HITS_PROCESS, hits - len(shared))
            if hits == len(keys):
                return records
            outdated.update(position for position in ids.values() if records[position] is None)
        for position in outdated:
            self.process_ids.drop(domain, keys[position])
        counters.add(STALE, len(outdated))
        missing = {keys[position]: position for position, record in enumerate(records) if record is None}
        counters.add(MISSES, len(missing))
        filled: dict[Key, bytes] = {}
        for identity, record in self._find_by_keys(domain, list(missing)):
            key = record.key
            # The query may match another writer's document with a key that is not equal: a list that contains it, for example.
            if _hashable(key) and key in missing:
                records[missing[key]] = record
                if identity is not None:  # do not cache an id of another type, which another writer set
                    self.process_ids.put(domain, key, identity)
                    filled[key] = identity
            elif len(missing) == 1:
                (position,) = missing.values()
                records[position] = record
        counters.add(BACKFILLS, len(filled))
        self.redis_ids.put_many(domain, filled.items())
        self.redis_ids.drop(domain, [keys[position] for position in outdated if keys[position] not in filled])
        return records

    def _find_by_ids(self, domain: Domain, ids: dict[bytes, int], keys: Sequence[Key], records: list[Record | None]) -> int:
        """Read documents by id into ``records``, at the positions of their keys; skip those of other keys. Return how many matched."""
        hits, reader = self.hits[domain.name], self._readers[domain.name]
        if not hits.connected:
            self.connection.connect(domain, hits)
        if len(ids) == 1:
            ((identity, position),) = ids.items()
            with reading(domain):
                records[position] = self.connection.match(domain, identity, reader, keys[position])
            return records[position] is not None
        count = 0
        for batch in self.connection.fetch_by_ids(domain, ids, keys):
            with reading(domain):
                count += reader.match_ids(batch, ids, keys, records)
        return count

    def _find_by_keys(self, domain: Domain, keys: Sequence[Key]) -> Iterator[tuple[bytes | None, Record]]:
        """Yield the records of keys, each with its id."""
        if len(keys) > 1:
            return self._records(domain, self.connection.fetch(domain, [{"filter": {"$or": [key_fields(domain, key) for key in keys]}}]))
        documents = (self.connection.find_one(domain, key_fields(domain, key)) for key in keys)
        return self._records(domain, (document for document in documents if document is not None))

    def _records(self, domain: Domain, batches: Iterable[bytes]) -> Iterator[tuple[bytes | None, Record]]:
        """Yield the records in batches of BSON, each with its id."""
        for batch in batches:
            with reading(domain):
                decoded = self._readers[domain.name].open_all(batch)
            yield from decoded

    def _remember(self, domain: Domain, key: Key, value: bytes) -> None:
        self.process_ids.put(domain, key, value)
        self.redis_ids.put(domain, key, value)

    # --- writing ---

    @translates
    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store. Sends one findAndModify for one record, or a bulk per thousand records, then updates the caches."""
        if not records:
            return
        if len(records) == 1 and domain.keyed:
            record = records[0]
            update = update_of(domain, record, datetime.now(UTC))
            self._indexes.ensure(domain)
            if domain in self.history:
                value, inserted = self.history.write(domain, record.key, record.when or 0, update)
            else:
                value, inserted = self.connection.upsert(domain, key_fields(domain, record.key), update)
            if inserted:
                self._indexes.look_again(domain)
            # Do not cache an id of another type, which another writer set. An id that this process has cached was written to Redis then.
            if value is not None and not (domain in self.history and value == self.process_ids.get(domain, record.key)):
                self._remember(domain, record.key, value)
            upserts = self.upserts.get(domain.name)
            if upserts is not None and not upserts.connected:
                with suppress(NotConfiguredError):  # another thread has closed the store meanwhile; the record is stored
                    self.connection.connect(domain, upserts)
            return
        if domain in self.history:
            self._write_versions(domain, records, datetime.now(UTC))
            return
        chosen: dict[Key, Record] = {}
        for record in records:
            if domain.write == "upsert" or record.key not in chosen:
                chosen[record.key] = record
        # Encode everything, and so check it, before sending the first byte.
        dates = self.write_dates.take(domain, list(chosen))
        updates = [(key, update_of(domain, record, date)) for (key, record), date in zip(chosen.items(), dates, strict=True)]
        self._indexes.ensure(domain)
        for start in range(0, len(updates), CHUNK):
            self._write_chunk(domain, updates[start : start + CHUNK])

    @translates
    def _write_by_driver(
        self, domain: Domain, key: Key, body: Any, when: int | None, removed: bool, number: TransactionNumber | None
    ) -> Any:
        try:
            update = update_of(domain, Record(key, body, when, removed), datetime.now(UTC))
            return self.connection.upsert_by_driver(domain, key_fields(domain, key), update, number)
        except (BacktestKitError, PyMongoError, BSONError):
            self._metrics.domains[domain.name].add(ERRORS)
            raise

    def _write_versions(self, domain: Domain, records: Sequence[Record], now: datetime) -> None:
        changes = self.history.changes((record.key, record.when or 0, update_of(domain, record, now)) for record in records)
        self._indexes.ensure(domain)
        for start in range(0, len(changes), CHUNK):
            chunk = changes[start : start + CHUNK]
            begun = self.history.begin(domain, chunk)
            rest = self.history.write_known(domain, chunk, begun)
            if rest:
                self._write_chunk(domain, [(change.key, change.update) for change in rest])
            self.history.end(domain, chunk, begun)

    def _write_chunk(self, domain: Domain, updates: Sequence[tuple[Key, Document]]) -> None:
        changes = [(key_fields(domain, key), update) for key, update in updates]
        # Lists are ordered: their documents get ids in the order of the list, and ids decide the order of equal dates.
        inserted = self.connection.upsert_many(domain, changes, ordered=not domain.keyed)
        ids = {updates[index][0]: value for index, value in inserted.items()}
        if ids:
            self._indexes.look_again(domain)
        if domain.keyed:
            # Do not write the ids of existing records to Redis: ids cached in this process are not verified here, and whoever cached one
            # has written it to Redis.
            for key, value in ids.items():
                if value is not None:
                    self.process_ids.put(domain, key, value)
        elif self.config.CC_REDIS_IDS != "all":
            return
        else:
            missing = [key[-1] for key, _ in updates if key not in ids]
            if missing:
                prefix = updates[0][0][:-1]
                query = {**key_fields(domain, prefix), domain.row_id: {"$in": missing}}
                fields = dict.fromkeys(domain.key, True)
                for identity, record in self._records(domain, self.connection.fetch(domain, [{"filter": query, "projection": fields}])):
                    ids[record.key] = identity
        self.redis_ids.put_many(domain, ((key, value) for key, value in ids.items() if value is not None))

    @translates
    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store. Sends one conditional insert or update, with history also its versions."""
        update = update_of(domain, record, datetime.now(UTC))
        self._indexes.ensure(domain)
        changes = begun = None
        if domain in self.history:
            self.history.forget(domain, [record.key])
            changes = self.history.changes([(record.key, record.when or 0, update)])
            begun = self.history.begin(domain, changes)
            update = changes[0].update
        if before is None:
            identity, change = insert_of(domain, record.key, update)
            swapped = not self.connection.insert_members(domain, [change])
            if swapped:
                self._indexes.look_again(domain)
                self._remember(domain, record.key, identity)
        else:
            swapped = self.connection.update_many(domain, [(unchanged(domain, before), update)]) == 1
        if swapped and changes and begun:
            self.history.end(domain, changes, begun)
        return swapped

    @translates
    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store."""
        self._indexes.ensure(domain)
        # An aggregation pipeline, because payload.removed cannot be set directly if payload is null.
        change: Any = [
            {"$set": {"removed": True, "payload": {"$mergeObjects": ["$payload", {"removed": True}]}, "updatedDate": datetime.now(UTC)}}
        ]
        self.connection.update_many(domain, [(key_fields(domain, key), change) for key in keys])
        if domain in self.history:
            self.history.forget(domain, keys)

    # --- lists ---

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store."""
        if limit == 0:  # to MongoDB, 0 means no limit
            return iter(())
        rule = domain.listing
        assert rule is not None
        query: Document = key_fields(domain, prefix)
        if domain.soft_delete and not removed:
            query["removed"] = {"$in": [False, None]}
        fields = dict.fromkeys((*domain.key, *["when"] * domain.when, *["removed"] * domain.soft_delete), True)
        return self._stream(domain, query, [(rule.order, -1), ("_id", -1)], projection=None if bodies else fields, limit=limit or 0)

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store. Domains that are not lists are sorted by id."""
        # For Log, this sort reads its index backwards.
        return self._stream(domain, {}, [("_id", 1)] if domain.keyed else [("createDate", 1), ("_id", 1)])

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """See Store."""
        query: Document = {name: {"$in": list(values)} for name, values in fields.items()}
        longest = max(fields, key=lambda name: len(fields[name]), default="")
        values = list(fields.get(longest, ()))
        keys: list[Key] = []
        for start in range(0, len(values) or 1, CHUNK):
            part = query | ({longest: {"$in": values[start : start + CHUNK]}} if longest else {})
            keys += [record.key for record in self._stream(domain, part, [("_id", 1)], projection=dict.fromkeys(domain.key, True))]
        return keys

    def _stream(self, domain: Domain, query: Document, sort: list[tuple[str, int]], *, limit: int = 0, **options: Any) -> Iterator[Record]:
        """Yield the records of a query of any size."""
        try:
            size = min(limit or 10_000, 10_000) + 1  # after a batch of exactly the limit, pymongo would request another one
            batches = self.connection.find(domain, query, sort=sort, limit=limit, batch_size=size, allow_disk_use=True, **options)
            for _, record in self._records(domain, batches):
                yield record
        except PyMongoError as error:
            raise translated(error) from error
        except BSONError as error:
            raise DatabaseError(f"a reply from MongoDB cannot be read: {error}") from error

    # --- candles ---

    @translates
    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store."""
        return self.candles.read((exchange_name, symbol, interval), since, limit)

    @translates
    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store."""
        if not len(candles):
            return 0
        self._indexes.ensure_just_now(DOMAINS["candle"])
        return self._candle_writer.write((exchange_name, symbol, interval), candles)

    @translates
    def candle_series(self) -> list[Key]:
        """See Store."""
        return self.candles.series()

    @translates
    def archived_series(self) -> list[Key]:
        """Return the series that have candles in the archive, which MongoDB cannot search."""
        return self.candles.archive.series()

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store."""
        return translated_items(self.candles.stored(series, since, until))

    @translates
    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """See Store."""
        return self._candle_writer.replace(series, candles)

    @translates
    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store."""
        return self._candle_writer.remove(series, since, until)

    # --- history ---

    @translates
    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store. Looks up versions only for records later than ``moment``."""
        records = {key: record for key, record in zip(keys, self.read(domain, keys), strict=True) if record is not None}
        later = [key for key, record in records.items() if record.when is not None and record.when > moment]
        for start in range(0, len(later), CHUNK):
            chunk = later[start : start + CHUNK]
            versions = self.history.read_at(domain, chunk, moment)
            for key in chunk:
                records.pop(key)
            records.update(versions)
        return in_order(keys, records)

    @translates
    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store."""
        for start in range(0, len(keys), CHUNK):
            deleted = self.history.discard(domain, keys[start : start + CHUNK], since)
            for key in deleted:
                self.process_ids.drop(domain, key)
            self.redis_ids.drop(domain, deleted)

    # --- caches and connections ---

    def drop_cache(self) -> int:
        """See Store. Uses SCAN and UNLINK with our own prefixes; no other keys in Redis are touched."""
        self.process_ids.clear()
        self.candles.clear()
        self.history.renew()
        return self.redis_ids.clear([domain.prefix for domain in DOMAINS.values()])

    def close(self) -> None:
        """See Store."""
        self.connection.close()
        self.redis_ids.close()


def _hashable(key: Key) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True
