"""The pytest plugin: ``backtest_kit``, ``backtest_kit_servers`` and ``synthetic_market``.

pytest imports this module in every project that has the library installed. So it imports nothing else before a fixture is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .market import MakeMarket
    from .servers import KitServers

__all__ = ["backtest_kit", "backtest_kit_servers", "synthetic_market"]

_ADDRESSES: Final = {
    "backtest_kit_mongo_uri": "connection string of a MongoDB for tests, instead of starting one; each test has its own database there",
    "backtest_kit_redis_url": "URL of a Redis for tests, instead of starting one; each test has its own prefix of keys there",
}
"""Addresses of servers for tests: option of the command line, environment variable (in capitals) or line of the configuration file."""

_HINT: Final = "\n  hint: "


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the addresses of servers to use for tests."""
    group = parser.getgroup("backtest-kit-mongo")
    for name, text in _ADDRESSES.items():
        group.addoption(f"--{name.replace('_', '-')}", dest=name, metavar="ADDRESS", help=text)
        parser.addini(name, f"{text} (or {name.upper()} in the environment)", default="")


def _address(config: pytest.Config, name: str) -> str:
    return str(config.getoption(name) or os.environ.get(name.upper()) or config.getini(name) or "")


@pytest.fixture(scope="session")
def backtest_kit_servers(request: pytest.FixtureRequest) -> Iterator[KitServers]:
    """MongoDB and Redis of the session, started for it unless their addresses are given. Each worker of pytest-xdist has its own.

    Addresses: ``--backtest-kit-mongo-uri`` and ``--backtest-kit-redis-url``, the same names as environment variables
    (``BACKTEST_KIT_MONGO_URI``) or as lines of pytest's configuration file.
    """
    from ..errors import BacktestKitError
    from .servers import KitServers

    mongo_uri, redis_url = (_address(request.config, name) for name in _ADDRESSES)
    servers = KitServers(mongo_uri, redis_url, worker=os.environ.get("PYTEST_XDIST_WORKER", ""))
    problem = ""
    try:
        servers.start()
    except BacktestKitError as error:
        problem = str(error)
    if problem:
        given = [f"--{name.replace('_', '-')}" for name in _ADDRESSES if _address(request.config, name)]
        hint = f"\n  hint: the address is that of {' or '.join(given)}, its environment variable or its line in the configuration file"
        # Our own hint would name settings that the fixtures do not use.
        pytest.fail(f"no servers for tests: {problem.partition(_HINT)[0] + hint if given else problem}", pytrace=False)
    try:
        yield servers
    finally:
        servers.stop()


@pytest.fixture
def backtest_kit(backtest_kit_servers: KitServers, tmp_path: Path) -> Iterator[Any]:
    """The library (the module ``backtest_kit_mongo``), set up on a database and Redis keys of the test alone.

    The ``CC_*`` settings of the environment are those of the test too, so that ``setup(mode=...)``, a ``Registry`` or a child process of
    the test also use its servers, and never those that the shell names. Afterwards, registries are closed, background runs stopped,
    registrations and logger restored, and the database dropped.

    Examples:
        >>> def test_a_signal_is_stored(backtest_kit):
        ...     signals = backtest_kit.PersistSignalAdapter
        ...     signals.write_signal_data({"id": "s1"}, "BTCUSDT", "sma", "binance")
        ...     assert signals.read_signal_data("BTCUSDT", "sma", "binance") == {"id": "s1"}
    """
    import backtest_kit_mongo

    from ..config import OTHER_VARIABLES, SETTINGS
    from .library import left_as_it_was

    # The environment is restored last: until then, a background run may still be about to use it.
    with backtest_kit_servers.database() as addresses, pytest.MonkeyPatch.context() as environment, left_as_it_was():
        folders = {"CC_DUMP_DIR": str(tmp_path / "dump"), "CC_EMBEDDED_DIR": str(tmp_path / "embedded")}
        settings = addresses | folders
        for name in (*SETTINGS, *OTHER_VARIABLES):  # without the keys of an exchange, so that no test can trade
            environment.setenv(name, "")  # so that what the test may put there is removed too
            environment.delenv(name)
        for name, value in settings.items():
            environment.setenv(name, value)
        backtest_kit_mongo.setup()
        yield backtest_kit_mongo


@pytest.fixture
def synthetic_market(backtest_kit: Any) -> MakeMarket:
    """A function that stores made-up candles and returns them; ``testing.market.make_market`` has its arguments.

    Examples:
        >>> def test_candles(synthetic_market):
        ...     market = synthetic_market("BTCUSDT", days=2, seed=7)
        ...     assert len(market.candles) == 2880
    """
    from .market import make_market

    return make_market
