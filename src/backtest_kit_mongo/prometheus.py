"""The counters of a process for Prometheus: what each domain did since the process began, and whether both servers answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

import pymongo
from pymongo.errors import PyMongoError

from . import __version__
from ._core.counters import Counters
from .candles import library
from .contracts.adapters import Registry, default_registry
from .domains import DOMAINS
from .errors import BacktestKitError, InvalidValueError
from .metrics import LAYERS
from .stores.mongo.store import MongoStore

__all__ = ["MetricsServer", "StatsCollector", "start_metrics"]

_PREFIX: Final = "backtest_kit_mongo"
_PING_SECONDS: Final = 1.0

_COUNTERS: Final = {
    "reads": ("reads", "Records, rows and candle windows that were asked for."),
    "misses": ("misses", "Reads by key whose id was in no cache, and candle windows that were not whole."),
    "stale": ("stale_ids", "Cached ids that led nowhere or elsewhere."),
    "backfills": ("backfilled_ids", "Ids that were cached by reads."),
    "writes": ("writes", "Records and rows that were sent, and candles that were new."),
    "removes": ("removes", "Records that were removed."),
    "errors": ("errors", "Calls that failed after their arguments were accepted."),
    "redis_errors": ("redis_errors", "Cache operations that failed, and failed no call."),
    "future_reads": ("future_reads", "Reads that met what was written at a later simulation time."),
    "bytes_read": ("received_bytes", "BSON from MongoDB."),
    "bytes_written": ("sent_bytes", "BSON to MongoDB."),
}
_QUANTILES: Final = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}


class StatsCollector:
    """A collector for ``prometheus_client``: ``CollectorRegistry().register(StatsCollector())``.

    Counts are those of ``stats()`` since the process began: ``reset_stats()`` does not set them back. Each scrape asks both
    servers for a sign of life, for at most a second each.
    """

    def __init__(self, registry: Registry = default_registry) -> None:
        self._registry = registry
        self._zero = {name: Counters() for name in DOMAINS}

    def collect(self) -> Iterator[Any]:
        """What ``prometheus_client`` calls at each scrape."""
        core = library("prometheus_client.core", "metrics")
        rows = self._registry.metrics.snapshot(self._zero)
        for count, (name, help_text) in _COUNTERS.items():
            family = core.CounterMetricFamily(f"{_PREFIX}_{name}", help_text, labels=["domain"])
            for domain, row in rows.items():
                family.add_metric([domain], row[count])
            yield family
        hits = core.CounterMetricFamily(f"{_PREFIX}_hits", "Reads that a cache answered, by its layer.", labels=["domain", "layer"])
        calls = core.SummaryMetricFamily(f"{_PREFIX}_call_seconds", "How long calls that succeeded took.", labels=["domain", "operation"])
        for domain, row in rows.items():
            for layer in LAYERS:
                hits.add_metric([domain, layer], row[f"hits_{layer}"])
            for operation, taken in row["operations"].items():
                labels = {"domain": domain, "operation": operation}
                for label, quantile in _QUANTILES.items():
                    calls.add_sample(calls.name, {**labels, "quantile": quantile}, taken[label] / 1e6)
                calls.add_sample(f"{calls.name}_count", labels, taken["count"])
        yield hits
        yield calls
        answers = core.GaugeMetricFamily(
            f"{_PREFIX}_up", "1 if the server answers, 0 if not; absent where none is used.", labels=["server"]
        )
        for server, answer in self._answers():
            answers.add_metric([server], answer)
        yield answers
        yield core.InfoMetricFamily(_PREFIX, "The library.", value={"version": __version__})

    def _answers(self) -> Iterator[tuple[str, bool]]:
        mongo = self._registry.mongo_or_none
        if mongo is None or not any(isinstance(self._registry.store(domain), MongoStore) for domain in DOMAINS.values()):
            return
        try:
            with pymongo.timeout(_PING_SECONDS):
                mongo.connection.client.admin.command("ping")
            yield "mongodb", True
        except (PyMongoError, BacktestKitError):
            yield "mongodb", False
        try:
            mongo.redis_ids.ping(time.monotonic() + _PING_SECONDS)
            yield "redis", True
        except BacktestKitError:
            yield "redis", False


class MetricsServer:
    """The HTTP server of ``start_metrics``: where it listens, and its end."""

    def __init__(self, server: Any, thread: Any) -> None:
        self._server, self._thread = server, thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def start_metrics(port: int = 9464, address: str = "127.0.0.1", *, registry: Registry = default_registry) -> MetricsServer:
    """Serve the metrics of this process over HTTP at ``http://address:port/metrics``, from a thread, until ``close()``.

    Port 0 takes a free one. There is no login, so an ``address`` that others can reach is for networks that may read it.
    InvalidValueError where the port cannot be had, MissingDependencyError without prometheus-client.
    """
    client = library("prometheus_client", "metrics")
    collectors = client.CollectorRegistry()
    collectors.register(StatsCollector(registry))
    client.ProcessCollector(registry=collectors)
    try:
        return MetricsServer(*client.start_http_server(port, address, collectors))
    except (OSError, OverflowError) as error:
        raise InvalidValueError(
            f"metrics cannot be served at {address}:{port}: {error}", hint="another port, or 0 for a free one"
        ) from error
