"""Without running servers, calls fail soon and the errors name the embedded servers."""

from __future__ import annotations

import socket
import threading
import time

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.servers import MongoServer, RedisServer
from backtest_kit_mongo.stores.mongo import availability as listening
from backtest_kit_mongo.stores.mongo.availability import PATIENCE

pytestmark = [pytest.mark.once, pytest.mark.server]

NAMED = ("setup(embedded=True)", "CC_EMBEDDED=1", "--embedded")


@pytest.fixture
def port():
    """A port that refuses connections: bound, so that nobody else takes it, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def nowhere(port):
    yield {"CC_MONGO_CONNECTION_STRING": f"mongodb://localhost:{port}/db", "CC_REDIS_HOST": "127.0.0.1", "CC_REDIS_PORT": port}
    kit.close()
    kit.set_logger(None)


class Lines:
    """A logger that records its warnings."""

    def __init__(self):
        self.warnings = []

    def warning(self, message):
        self.warnings.append(message)

    debug = info = error = lambda self, message: None


@pytest.mark.parametrize(
    "call",
    [
        lambda: kit.PersistSignalAdapter.read_signal_data("B", "s", "e"),
        lambda: kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e"),
        lambda: kit.PersistLogAdapter.read_log_data(),
        lambda: kit.PersistCandleAdapter.read_candles_data("B", "1m", "e", 1, 0, 60_000),
        lambda: list(kit.PersistMemoryAdapter.list_memory_data("s", "b")),
    ],
    ids=["read", "write", "rows", "candles", "list"],
)
def test_the_first_call_does_not_wait_for_a_port_that_refuses(nowhere, call):
    """The call does not wait for pymongo's 15 s; the error says what to do and which call does wait."""
    kit.setup(nowhere)
    start = time.monotonic()
    with pytest.raises(kit.ServerUnavailableError, match="nothing is listening on localhost") as caught:
        call()
    assert time.monotonic() - start < PATIENCE + 8
    assert "wait_for_init() waits" in caught.value.hint
    assert all(name in caught.value.hint for name in NAMED)


def test_a_time_out_of_the_connection_string_is_obeyed(nowhere):
    kit.setup({**nowhere, "CC_MONGO_CONNECTION_STRING": nowhere["CC_MONGO_CONNECTION_STRING"] + "?serverSelectionTimeoutMS=100"})
    with pytest.raises(kit.ServerTimeoutError, match="MongoDB did not answer in time") as caught:
        kit.PersistSignalAdapter.read_signal_data("B", "s", "e")
    assert all(name in caught.value.hint for name in NAMED)


def test_wait_for_init_names_both_servers_and_the_hint_once(nowhere):
    kit.setup(nowhere)
    with pytest.raises(kit.ServerTimeoutError) as caught:
        kit.wait_for_init(0.5)
    text = str(caught.value)
    assert "MongoDB did not answer in time" in text
    assert "Redis does not answer" in text
    assert text.count("hint: ") == 1
    assert all(text.count(name) == 1 for name in NAMED)


def test_redis_alone_names_them_too(settings, port):
    kit.setup({**settings, "CC_REDIS_HOST": "127.0.0.1", "CC_REDIS_PORT": port})
    with pytest.raises(kit.ServerTimeoutError, match="Redis does not answer") as caught:
        kit.wait_for_init(0.5)
    assert all(name in caught.value.hint for name in NAMED)
    with pytest.raises(kit.ServerUnavailableError) as caught:
        kit.PersistSignalAdapter.id_cache.size()
    assert all(name in caught.value.hint for name in NAMED)


def test_a_long_wait_says_what_it_waits_for_and_goes_on(tmp_path, monkeypatch):
    """The gate waits for servers that are just being started; meanwhile one warning names both, without a password."""
    monkeypatch.setattr(listening, "PATIENCE", 0.1)
    lines = Lines()
    kit.set_logger(lines)
    server, cache = MongoServer(tmp_path / "mongo"), RedisServer(tmp_path / "redis")
    said = threading.Event()
    lines.warning = lambda message: (lines.warnings.append(message), said.set())

    def start():
        said.wait(30)
        server.start()
        cache.start()

    starting = threading.Thread(target=start)
    starting.start()
    try:
        kit.setup(CC_MONGO_CONNECTION_STRING=server.uri("db"), CC_REDIS_HOST=str(cache.socket))
        kit.wait_for_init(60)
    finally:
        starting.join()
        kit.close()
        kit.set_logger(None)
        server.stop()
        cache.stop()
    line = next(line for line in lines.warnings if line.startswith("waiting up to 60 s for MongoDB at mongodb://"))
    assert f"Redis at {cache.socket}" in line
    assert all(name in line for name in NAMED)


def test_a_quick_answer_says_nothing(settings, monkeypatch):
    monkeypatch.setattr(listening, "PATIENCE", 20.0)
    lines = Lines()
    kit.set_logger(lines)
    kit.setup(settings)
    kit.wait_for_init(30)
    kit.set_logger(None)
    assert lines.warnings == []
