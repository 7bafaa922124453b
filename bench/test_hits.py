"""Single hits: warm, from Redis, their CPU time, and from many threads; and where the Redis hop pays."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cpu_affinity import on_cores
from floor import MongoWire, TlsWire, find
from hits import RawHits, reading
from interleaved import Side
from proxy import delayed
from rivals import Direct, Plain
from sample_data import CONTEXT, ROW
from tls import Authority, TlsMongo

import backtest_kit_mongo as kit
from backtest_kit_mongo import PersistSignalAdapter
from backtest_kit_mongo.servers import mongo_uri

OURS = PersistSignalAdapter.read_signal_data


def sides(**readers):
    """Return sides that read the stored row, after checking that each reader returns it."""
    for reader in readers.values():
        assert reader(*CONTEXT) == ROW
    return {name: reading(reader, [CONTEXT]) for name, reader in readers.items()}


def raw_hits(plain, mongo, redis):
    row = plain.signals.find_one()
    return RawHits(mongo, redis, plain.database.name, [CONTEXT], [row["_id"]])


@pytest.fixture
def start(library):
    """Set the library up with some settings and store the row."""

    def started(**settings):
        library(**settings)
        PersistSignalAdapter.write_signal_data(ROW, *CONTEXT)

    return started


def test_warm(interleaved, start, plain, direct, engine, wires):
    start()
    raw = raw_hits(plain, wires.mongo, wires.redis)
    others = sides(ours=OURS, plain=plain.read_signal, direct=direct.read_signal, mongoengine=engine.read_signal)
    interleaved("single hit, L1 warm", {**others, "floor": raw.by_id})


def test_warm_over_tls(interleaved, placement, settings, tmp_path_factory):
    """A hosted MongoDB is reached over TLS; the floor is an ssl.SSLSocket."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(TlsMongo(folder / "mongo", authority))
        stack.callback(kit.close)
        stack.enter_context(on_cores(placement[0], [server.pid]))
        uri = server.tls_uri("hits")
        kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": uri})
        PersistSignalAdapter.write_signal_data(ROW, *CONTEXT)
        plain = stack.enter_context(contextlib.closing(Plain(uri, settings["CC_REDIS_HOST"])))
        wire = stack.enter_context(contextlib.closing(TlsWire(("localhost", server.port), authority.file)))
        message = find("hits", "signal-items", {"_id": plain.signals.find_one()["_id"]})
        others = sides(ours=OURS, plain=plain.read_signal, direct=Direct(plain).read_signal)
        interleaved("single hit over TLS, L1 warm", {**others, "floor": Side(lambda: wire.exchange(message))})


def test_cold(interleaved, start, plain, direct, wires):
    start(CC_PROCESS_IDS=0)  # a setting, since clearing the ids before each read would take time of its own
    raw = raw_hits(plain, wires.mongo, wires.redis)
    others = sides(ours=OURS, plain=plain.read_signal, direct=direct.read_signal)
    interleaved("single hit, L1 cold, Redis warm", {**others, "floor": raw.redis_then_id})


def test_client_cpu(interleaved, start, plain, direct, engine):
    """Measure CPU time instead of wall time: what the client takes from a strategy that runs next to it."""
    start()
    others = sides(ours=OURS, plain=plain.read_signal, direct=direct.read_signal, mongoengine=engine.read_signal)
    interleaved("client CPU of a single hit", others, clock=time.process_time)


def test_threads(interleaved, start, plain, servers, wires):
    """Eight threads live through all bursts; a burst ends when each has made its 25 reads. The floor has a socket per thread."""
    start()
    count = 8
    gate = threading.Barrier(count)
    message = find(wires.database, "signal-items", {"_id": plain.signals.find_one()["_id"]})
    own = threading.local()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(count) as pool:

        def floor():
            if not hasattr(own, "wire"):
                own.wire = stack.enter_context(contextlib.closing(MongoWire(servers.mongo.socket)))
            own.wire.exchange(message)

        def together(side):
            def work(_):
                gate.wait()  # so that no thread takes two shares
                for _ in range(side.calls):
                    side.call()

            return Side(lambda: list(pool.map(work, range(count))), 1)

        readers = {"ours": lambda: OURS(*CONTEXT), "plain": lambda: plain.read_signal(*CONTEXT), "floor": floor}
        interleaved("8 threads of 25 single hits each", {name: together(Side(reader)) for name, reader in readers.items()}, share=0.5)


@pytest.mark.parametrize(("work", "delay"), [("cold hit, MongoDB near", 0), ("cold hit, MongoDB 1 ms away", 0.001)])
def test_where_redis_pays(interleaved, start, settings, servers, wires, tmp_path_factory, work, delay):
    """In a process without cached ids, compare Redis plus MongoDB by id with MongoDB by the compound key alone."""
    with contextlib.ExitStack() as stack:
        path = servers.mongo.socket
        if delay:
            path = stack.enter_context(delayed(path, str(tmp_path_factory.mktemp("far") / "m.sock"), delay))
        uri = mongo_uri(path, wires.database)
        start(CC_PROCESS_IDS=0, CC_MONGO_CONNECTION_STRING=uri)
        plain = stack.enter_context(contextlib.closing(Plain(uri, settings["CC_REDIS_HOST"])))
        mongo = stack.enter_context(contextlib.closing(MongoWire(path)))
        raw = raw_hits(plain, mongo, wires.redis)
        others = sides(ours=OURS, plain=plain.read_signal, direct=Direct(plain).read_signal)
        interleaved(work, {**others, "floor, Redis then id": raw.redis_then_id, "floor, by key": raw.by_key}, share=0.5)
