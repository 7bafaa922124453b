"""Fixtures of the benchmarks: every row of ``targets`` is a test that runs once per placement and records its medians and ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from cpu_affinity import on_cores
from floor import MongoWire, RedisWire
from interleaved import Interleaved, Side
from rivals import Arrow, Direct, Engine, Plain
from sample_data import CANDLES, candles
from targets import DATA

import backtest_kit_mongo as kit
from backtest_kit_mongo.candles import CandleArray


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bursts", type=int, default=60, help="rounds of a cheap benchmark, dear ones take fewer; 1 only shows that all run")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "placement" in metafunc.fixturenames:
        names = ["same"] if metafunc.config.getoption("--bursts") == 1 else ["same", "apart"]
        metafunc.parametrize("placement", names, indirect=True)


@pytest.fixture
def placement(request: pytest.FixtureRequest, servers: Any) -> Iterator[tuple[str, str]]:
    """Client and servers on one core, or on one each: the name and the words of the placement."""
    with on_cores(request.param, [servers.mongo.pid, servers.redis.pid]) as words:
        yield request.param, words


@pytest.fixture
def library(placement: tuple[str, str], settings: dict[str, Any]) -> Callable[..., None]:
    """``library(CC_PROCESS_IDS=0)``: set the library up on the new database, with other settings than the tests'."""

    def start(**others: Any) -> None:
        kit.setup({**settings, **others})
        kit.wait_for_init()

    return start


@pytest.fixture
def plain(settings: dict[str, Any]) -> Iterator[Plain]:
    client = Plain(settings["CC_MONGO_CONNECTION_STRING"], settings["CC_REDIS_HOST"])
    yield client
    client.close()


@pytest.fixture
def direct(plain: Plain) -> Direct:
    return Direct(plain)


@pytest.fixture
def arrow(plain: Plain) -> Arrow:
    return Arrow(plain)


@pytest.fixture
def engine(settings: dict[str, Any]) -> Iterator[Engine]:
    client = Engine(settings["CC_MONGO_CONNECTION_STRING"])
    yield client
    client.close()


class Wires(NamedTuple):
    """Raw connections, and the database of the library."""

    mongo: MongoWire
    redis: RedisWire
    database: str


@pytest.fixture
def wires(servers: Any, plain: Plain) -> Iterator[Wires]:
    wires = Wires(MongoWire(servers.mongo.socket, 1 << 24), RedisWire(servers.redis.socket), plain.database.name)
    yield wires
    wires.mongo.close()
    wires.redis.close()


class Series(NamedTuple):
    """The stored candles as an array, and the arguments of a read of all; ``until`` is the end of the last one."""

    columns: CandleArray
    symbol: str
    interval: str
    exchange: str
    since: int
    until: int

    @property
    def window(self) -> tuple[str, str, str, int, int]:
        return self[1:]


@pytest.fixture
def series() -> Series:
    """The candles, not yet stored."""
    columns, _ = candles()
    return Series(columns, "BTCUSDT", "1m", "binance", int(columns["timestamp"][0]), int(columns["timestamp"][0]) + CANDLES * 60_000)


@pytest.fixture
def stored(library: Callable[..., None], series: Series) -> Series:
    """The candles, stored through the library."""
    library()
    kit.PersistCandleAdapter.write_candles_data(series.columns, series.symbol, series.interval, series.exchange)
    return series


@pytest.fixture
def interleaved(benchmark: Any, request: pytest.FixtureRequest, placement: tuple[str, str]) -> Callable[..., None]:
    """``interleaved(work, {"ours": Side(...), rival: Side(...)})``: run the sides in turn, and record medians and ratios for the row.

    Use ``share`` of the rounds for slow work, and ``clock`` to measure another time than wall time.
    """
    bursts = request.config.getoption("--bursts")

    def run(work: str, sides: dict[str, Side], *, share: float = 1.0, clock: Callable[[], float] = time.perf_counter) -> None:
        target = DATA[work]
        if bursts == 1:
            sides = {name: side._replace(calls=1) for name, side in sides.items()}
        contest = Interleaved(sides, clock)
        if bursts > 1:
            contest.round()
            contest.forget()
        rounds = 1 if bursts == 1 else max(3, round(bursts * share * (1 if placement[0] == target.placement else 0.5)))
        benchmark.pedantic(contest.round, rounds=rounds, iterations=1)
        benchmark.extra_info.update(
            work=work,
            placement=placement[0],
            where=placement[1],
            unit="us",
            rounds=rounds,
            values=contest.microseconds(),
            ratios=contest.ratios(target.at_most),
            candles=candles()[1],
        )

    return run
