"""The compiled fast paths of the Mongo store, by domain.

``HitReader`` reads records whose id is cached; ``UpsertWriter`` writes single records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from ..._core.bson import RecordReader
from ..._core.hit_reader import HitReader
from ..._core.upsert_writer import UpsertWriter
from ...domains import DOMAINS, Domain
from ...metrics import BYTES_READ, BYTES_WRITTEN, ERRORS, HITS_PROCESS, HITS_REDIS, READ, READS, WRITE, WRITES, Metrics
from ..base import LARGEST_BODY, plain
from .errors import translated
from .redis_ids import ProcessIds, RedisIds

__all__ = ["make_hit_readers", "make_upsert_writers"]


def make_hit_readers(
    readers: Mapping[str, RecordReader[Any]], ids: ProcessIds, redis_ids: RedisIds, metrics: Metrics
) -> dict[str, HitReader]:
    """Return a HitReader for each domain, by name. Each one reads nothing until ``MongoDatabase.connect``."""
    counts = (READS, HITS_PROCESS, HITS_REDIS, BYTES_READ, ERRORS, READ)
    return {
        name: HitReader(
            domain,
            ids.of(domain),
            readers[name],
            metrics.domains[name],
            counts,
            redis_ids.builders[name].get,
            redis_ids.take_connection_in_order,
            redis_ids.give_back,
            partial(redis_ids.timed_out, domain),
            translated,
        )
        for name, domain in DOMAINS.items()
    }


def make_upsert_writers(
    domains: Iterable[Domain],
    ids: ProcessIds,
    redis_ids: RedisIds,
    metrics: Metrics,
    was_new: Callable[[Domain], None],
    by_driver: Callable[..., tuple[bytes | None, bool]],
) -> dict[str, UpsertWriter]:
    """Return an UpsertWriter, by name, for each of ``domains`` that has one record per key and stores its body as passed in.

    Each one writes nothing until ``MongoDatabase.connect``.
    """
    counts = (WRITES, BYTES_WRITTEN, ERRORS, WRITE)
    return {
        domain.name: UpsertWriter(
            domain,
            ids.of(domain),
            metrics.domains[domain.name],
            counts,
            LARGEST_BODY,
            plain,
            partial(was_new, domain),
            partial(by_driver, domain),
            translated,
            redis_ids.builders[domain.name].set,
            partial(redis_ids.take_connection_in_order, writes=True),
            redis_ids.give_back,
            partial(redis_ids.timed_out, domain),
            partial(redis_ids.put, domain),
        )
        for domain in domains
        if domain.keyed and domain.empty is not list
    }
