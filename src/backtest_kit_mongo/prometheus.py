"""Metrics of a process for Prometheus: what each domain did since the process began, and whether both servers answer."""

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
from .contracts.default_registry import default_registry
from .contracts.registry import Registry
from .domains import DOMAINS
from .errors import BacktestKitError, InvalidValueError
from .metrics import LAYERS
from .stores.mongo.store import MongoStore

__all__ = ["MetricsServer", "StatsCollector", "start_metrics"]

_PREFIX: Final = "backtest_kit_mongo"
_PING_SECONDS: Final = 1.0

_COUNTERS: Final = {
    "reads": ("reads", "Records, rows and candle windows requested."),
    "misses": ("misses", "Reads by key without a correct id in any cache, and incomplete candle windows."),
    "stale": ("stale_ids", "Cached ids of documents that were gone or belonged to another key."),
    "backfills": ("backfilled_ids", "Ids that reads put into the caches."),
    "writes": ("writes", "Records and rows sent, and new candles."),
    "removes": ("removes", "Records removed."),
    "errors": ("errors", "Calls that failed after their arguments were accepted."),
    "redis_errors": ("redis_errors", "Cache operations that failed without failing a call."),
    "future_reads": ("future_reads", "Reads that met data of a later simulation time."),
    "bytes_read": ("received_bytes", "Bytes of BSON received from MongoDB."),
    "bytes_written": ("sent_bytes", "Bytes of BSON sent to MongoDB."),
}
_QUANTILES: Final = {"p50": "0.5", "p90": "0.9", "p99": "0.99"}


class StatsCollector:
    """A collector for ``prometheus_client``, which serves the counters of ``stats``.

    The counts are those since the process began: ``reset_stats()`` does not reset them. Each scrape pings both servers and waits at most
    a second for each.

    Args:
        registry: the registry to watch

    Examples:
        >>> from prometheus_client import CollectorRegistry
        >>> from backtest_kit_mongo.prometheus import StatsCollector
        >>> collectors = CollectorRegistry()
        >>> collectors.register(StatsCollector())
        >>> collectors.get_sample_value("backtest_kit_mongo_errors_total", {"domain": "signal"})
        0
    """

    def __init__(self, registry: Registry = default_registry) -> None:
        self._registry = registry
        self._zero = {name: Counters() for name in DOMAINS}

    def collect(self) -> Iterator[Any]:
        """Yield the metric families; ``prometheus_client`` calls this at each scrape."""
        core = library("prometheus_client.core", "metrics")
        rows = self._registry.metrics.snapshot(self._zero)
        for count, (name, help_text) in _COUNTERS.items():
            family = core.CounterMetricFamily(f"{_PREFIX}_{name}", help_text, labels=["domain"])
            for domain, row in rows.items():
                family.add_metric([domain], row[count])
            yield family
        hits = core.CounterMetricFamily(f"{_PREFIX}_hits", "Reads answered by a cache, by layer.", labels=["domain", "layer"])
        calls = core.SummaryMetricFamily(
            f"{_PREFIX}_call_seconds", "Duration of successful calls in seconds.", labels=["domain", "operation"]
        )
        for domain, row in rows.items():
            for layer in LAYERS:
                hits.add_metric([domain, layer], row[f"hits_{layer}"])
            for operation, timing in row["operations"].items():
                labels = {"domain": domain, "operation": operation}
                for label, quantile in _QUANTILES.items():
                    calls.add_sample(calls.name, {**labels, "quantile": quantile}, timing[label] / 1e6)
                calls.add_sample(f"{calls.name}_count", labels, timing["count"])
        yield hits
        yield calls
        answers = core.GaugeMetricFamily(
            f"{_PREFIX}_up", "1 if the server answers, 0 if it does not; absent if it is not used.", labels=["server"]
        )
        for server, answer in self._answers():
            answers.add_metric([server], answer)
        yield answers
        yield core.InfoMetricFamily(_PREFIX, "Version of the library.", value={"version": __version__})

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
    """The HTTP server that ``start_metrics`` returns, over a ``server`` and its ``thread``. It is a context manager, which closes it."""

    def __init__(self, server: Any, thread: Any) -> None:
        self._server, self._thread = server, thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stop the server; idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def start_metrics(port: int = 9464, address: str = "127.0.0.1", *, registry: Registry = default_registry) -> MetricsServer:
    """Serve the metrics of this process at ``http://address:port/metrics``, from a thread, until ``close()``.

    There is no authentication, so bind only to an ``address`` in a network that may read the metrics.

    Args:
        port: the TCP port; 0 picks a free one
        address: the address to listen at
        registry: the registry to watch

    Returns:
        the server; its ``port`` is where it listens

    Raises:
        InvalidValueError: the port cannot be used
        MissingDependencyError: prometheus-client is not installed

    Examples:
        >>> from urllib.request import urlopen
        >>> from backtest_kit_mongo.prometheus import start_metrics
        >>> with start_metrics(port=0) as server:
        ...     urlopen(f"http://127.0.0.1:{server.port}/metrics").status
        200
    """
    client = library("prometheus_client", "metrics")
    collectors = client.CollectorRegistry()
    collectors.register(StatsCollector(registry))
    client.ProcessCollector(registry=collectors)
    try:
        return MetricsServer(*client.start_http_server(port, address, collectors))
    except (OSError, OverflowError) as error:
        raise InvalidValueError(
            f"cannot serve metrics at {address}:{port}: {error}", hint="choose another port, or 0 for a free one"
        ) from error
