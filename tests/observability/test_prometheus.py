"""Metrics as a Prometheus server sees them: scraped over HTTP, parsed with the official parser."""

import sys
import urllib.request

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import InvalidValueError, MissingDependencyError
from backtest_kit_mongo.prometheus import start_metrics
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = [pytest.mark.once, pytest.mark.server]

WHEN = 1_700_000_000_000
families = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families


def scraped(server):
    """Return the samples by name and labels, and the types of the families."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        stored = list(families(answer.read().decode()))
    samples = {(sample.name, *sorted(sample.labels.items())): sample.value for family in stored for sample in family.samples}
    return samples, {family.name: family.type for family in stored}


def value(samples, name, **labels):
    return samples[(f"backtest_kit_mongo_{name}", *sorted(labels.items()))]


def test_metrics_are_the_counts_of_the_process(mongo):
    with start_metrics(0) as server:
        before, _ = scraped(server)
        for number in range(5):
            kit.PersistSignalAdapter.write_signal_data({"n": number}, "S", "s", "e")
        kit.PersistSignalAdapter.read_signal_data("S", "s", "e")
        kit.PersistStateAdapter.write_state_data({}, "s", "b", WHEN)
        kit.reset_stats()  # a Prometheus counter never decreases
        after, kinds = scraped(server)

    def grown(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("writes_total", domain="signal") == 5
    assert grown("writes_total", domain="state") == 1
    assert grown("writes_total", domain="log") == 0
    assert grown("hits_total", domain="signal", layer="process") == 1
    assert grown("sent_bytes_total", domain="signal") > 100
    assert {labels[1] for name, *labels in after if name == "backtest_kit_mongo_errors_total" for labels in labels} == set(DOMAINS)
    assert value(after, "call_seconds_count", domain="signal", operation="write") >= 5
    quantiles = [value(after, "call_seconds", domain="signal", operation="write", quantile=which) for which in ("0.5", "0.9", "0.99")]
    assert 1e-6 < quantiles[0] <= quantiles[1] <= quantiles[2] < 10
    assert (value(after, "up", server="mongodb"), value(after, "up", server="redis")) == (1, 1)
    assert value(after, "info", version=kit.__version__) == 1
    ours = {name: kind for name, kind in kinds.items() if name.startswith("backtest_kit_mongo")}
    assert set(ours.values()) == {"counter", "summary", "gauge"}
    assert ours["backtest_kit_mongo_reads"] == "counter"
    assert ours["backtest_kit_mongo_call_seconds"] == "summary"
    assert ("process_open_fds",) in after


def test_a_server_that_is_gone_is_down(tmp_path):
    registry = kit.Registry()
    with MongoServer(tmp_path / "mongo") as mongo, RedisServer(tmp_path / "redis") as cache, start_metrics(0, registry=registry) as server:
        assert not any(name == "backtest_kit_mongo_up" for name, *_ in scraped(server)[0])
        registry.setup(CC_MONGO_CONNECTION_STRING=mongo.uri("m"), CC_REDIS_HOST=cache.socket)
        assert value(scraped(server)[0], "up", server="redis") == 1
        cache.stop()
        samples, _ = scraped(server)
        assert (value(samples, "up", server="mongodb"), value(samples, "up", server="redis")) == (1, 0)
        mongo.stop()
        assert value(scraped(server)[0], "up", server="mongodb") == 0
        registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))
        assert not any(name == "backtest_kit_mongo_up" for name, *_ in scraped(server)[0])
        registry.close()


def test_a_port_that_cannot_be_had():
    with start_metrics(0) as server:
        with pytest.raises(InvalidValueError, match=f"127.0.0.1:{server.port}"):
            start_metrics(server.port)
        with pytest.raises(InvalidValueError, match="70000"):
            start_metrics(70_000)
    with start_metrics(server.port) as again:
        assert again.port == server.port


def test_without_the_client_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingDependencyError, match=r"backtest-kit-mongo\[metrics\]"):
        start_metrics(0)
