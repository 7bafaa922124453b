"""The pytest plugin, as a user's project has it: every inner run is a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib

import pymongo
import pytest
import redis
from paths import ROOT

from backtest_kit_mongo.errors import ConfigError, ServerTimeoutError
from backtest_kit_mongo.testing.servers import NAME, KitServers, on_database

pytestmark = pytest.mark.once

# By module: with an installation pytest finds it by itself, but also the plugins of all other packages, which take a second to load.
PLUGIN = ("-p", "backtest_kit_mongo.testing.plugin", "-p", "no:cacheprovider")

STRATEGY = """
from backtest_kit_mongo.runner import add_strategy, get_average_price

@add_strategy("always_long", interval="15m")
def get_signal(symbol, when):
    price = get_average_price(symbol)
    return {"position": "long", "priceTakeProfit": price * 1.01, "priceStopLoss": price * 0.99, "minuteEstimatedTime": 240}
"""

# Each test begins with nothing stored and ends with something; so they pass in no order if anything is left behind.
TESTS = """
import logging, os, subprocess, sys
import pytest
import backtest_kit_mongo as kit
from backtest_kit_mongo import Registry
from backtest_kit_mongo.runner import *
from backtest_kit_mongo.logs import current_logger
from backtest_kit_mongo.runner.backtest.background import background_runs
import strategy

@pytest.fixture
def unchanged():
    assert {name: value for name, value in os.environ.items() if name.startswith("CC_")} == {
        "CC_MONGO_CONNECTION_STRING": "mongodb://localhost:1/live", "CC_REDIS_PORT": "1", "CC_MODE": "live", "CC_EXCHANGE_KEY": "mine",
    }

@pytest.fixture(autouse=True)
def fresh(unchanged, backtest_kit):
    assert backtest_kit is kit
    assert "CC_EXCHANGE_KEY" not in os.environ
    assert kit.PersistStorageAdapter.read_storage_data(True) == [] and kit.PersistSignalAdapter.read_signal_data("B", "s", "e") is None
    assert list(list_candles()) == []
    assert [strategy.name for strategy in list_strategies()] == ["always_long"]
    assert list_exchanges() == list_frames() == list_risks() == list_brokers() == ()
    assert kit.stats()["signal"]["writes"] == 0 and current_logger() is logging.getLogger("backtest_kit_mongo")
    assert background_runs() == []
    kit.PersistSignalAdapter.write_signal_data({"id": "left"}, "B", "s", "e")
    kit.PersistStorageAdapter.write_storage_data([{"id": "left"}], True)

def test_strategy(synthetic_market):
    market = synthetic_market("BTCUSDT", days=2, seed=3)
    result = Backtest.run("BTCUSDT", strategy_name="always_long")
    assert result.totals.trades > 0 and (result.start_ms, result.end_ms) == (market.start_ms, market.end_ms)
    assert len(market.candles) == 2880

@pytest.mark.xfail(strict=True, raises=ZeroDivisionError)
def test_that_fails_midway(synthetic_market):
    synthetic_market("BTCUSDT", minutes=600)
    add_strategy("left", interval="1m")(lambda symbol, when: None)
    add_frame("left", "2023-03-01", "2023-03-02")
    add_exchange("left")(lambda symbol, interval, since, limit: [])
    kit.set_logger(logging.getLogger("left"))
    kit.PersistSignalAdapter.use_dummy()
    os.environ["CC_HISTORY"] = "state"
    own = Registry()
    own.setup(stores={"log": "memory"})
    own.PersistSignalAdapter.write_signal_data({"id": "left"}, "B", "s", "e")
    run = Live.background("BTCUSDT", strategy_name="always_long", exchange_name="left")
    assert [run] == background_runs() and not run.done
    1 / 0

def test_what_the_program_calls_itself_meets_the_same_database(tmp_path):
    assert kit.get_mongo().name.startswith("backtest-kit-test-")
    for again in (lambda: kit.setup(), lambda: kit.setup(mode="live"), lambda: kit.setup(mode="backtest", stores={"storage": "mongo"})):
        again()
        assert kit.PersistSignalAdapter.read_signal_data("B", "s", "e") == {"id": "left"}
        assert kit.get_config().CC_DUMP_DIR.startswith(str(tmp_path))
    code = "import backtest_kit_mongo as kit; kit.setup(); print(kit.PersistSignalAdapter.read_signal_data('B', 's', 'e')['id'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == "left\\n"
    kit.setup(mode="paper")
    kit.PersistSignalAdapter.write_signal_data({"id": "paper"}, "B", "s", "e")
    kit.close()

def test_markets(synthetic_market):
    one = synthetic_market("ETHUSDT", minutes=5, start=1_677_628_800_000, price=2.0, exchange_name="x")
    assert (one.symbol, one.exchange_name, one.end_ms - one.start_ms, one.candles["open"][0]) == ("ETHUSDT", "x", 300_000, 2.0)
    assert (synthetic_market(minutes=5, seed=1).candles == synthetic_market("OTHER", minutes=5, seed=1).candles).all()
    for wrong in ({"days": 1, "minutes": 1}, {"days": 0.0001}, {"days": float("nan")}, {"minutes": 0}, {"start": "soon"}, {"seed": -1}):
        with pytest.raises(ValueError):
            synthetic_market("WRONG", **wrong)
    with pytest.raises(CandleConflictError):
        synthetic_market(minutes=5, seed=2)
    assert {series.symbol for series in list_candles()} == {"ETHUSDT", "BTCUSDT", "OTHER"}
"""
COUNT = 4


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The environment names servers that no test may reach."""
    for name in [name for name in os.environ if name.startswith("CC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CC_MONGO_CONNECTION_STRING", "mongodb://localhost:1/live")
    monkeypatch.setenv("CC_REDIS_PORT", "1")
    monkeypatch.setenv("CC_MODE", "live")
    monkeypatch.setenv("CC_EXCHANGE_KEY", "mine")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester, *arguments):
    result = pytester.runpytest_subprocess(*PLUGIN, "-W", "error", *arguments, timeout=600)
    broken = [line for line in result.outlines if line.startswith("INTERNALERROR>")]
    # The end says what was raised; with all that pytest prints of itself before it, a log of CI would not show the end.
    assert not broken, "\n".join(broken[-40:])
    return result


@pytest.mark.server
def test_a_session_with_servers_of_its_own(pytester, monkeypatch):
    """The sample of the manual: the servers are started, and nothing is left of them, no process and no folder."""
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("tmp")))
    page = (ROOT / "docs" / "how-to" / "testing.md").read_text()
    files = dict(re.findall(r"^```python\n# (\w+)\.py\n(.*?)```", page, re.DOTALL | re.MULTILINE))
    pytester.makepyfile(**files)
    run(pytester, "test_my_strategy.py").assert_outcomes(passed=2)
    assert list((pytester.path / "tmp").iterdir()) == []
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"{pytester.path}/tmp" not in running


@pytest.fixture
def project(pytester):
    """A project with a strategy and its tests, which run backwards if asked to, as pytest-randomly might."""
    pytester.makepyfile(strategy=STRATEGY, test_strategy=TESTS)
    pytester.makeconftest(
        "import os\ndef pytest_collection_modifyitems(items):\n    if os.environ.get('BACKWARDS'):\n        items.reverse()\n"
    )
    return pytester


@pytest.mark.server
def test_parallel_sessions_on_one_server_by_address(project, servers, sweeper, monkeypatch):
    """Two sessions at once, one with two workers; each in databases of its own. What others stored is not touched."""
    uri, url = servers.mongo.uri("someone"), f"unix://{servers.redis.socket}"
    with pymongo.MongoClient(uri) as client, redis.Redis(unix_socket_path=servers.redis.socket) as cache:
        client["someone"]["signal-items"].insert_one({"_id": 1})
        client[f"{NAME}-00000000-1"]["signal-items"].insert_one({"_id": 1})
        cache.mset({"signal_cache:e:s:B": "mine", f"{NAME}-00000000-1:signal_cache:e:s:B": "mine", "other": "mine"})
        monkeypatch.setenv("BACKTEST_KIT_REDIS_URL", url)
        command = [sys.executable, "-m", "pytest", *PLUGIN, "--backtest-kit-mongo-uri", uri, "-q"]
        backwards = {**os.environ, "BACKWARDS": "1"}
        with subprocess.Popen(command, cwd=project.path, env=backwards, stdout=subprocess.PIPE, text=True) as beside:
            try:
                project.makeini(f"[pytest]\nbacktest_kit_mongo_uri = {uri}\n")
                run(project, "-p", "xdist", "-n", "2").assert_outcomes(passed=COUNT - 1, xfailed=1)
                shown, _ = beside.communicate(timeout=600)
            finally:
                beside.kill()
        assert f"{COUNT - 1} passed, 1 xfailed" in shown
        # Other databases on this server are those of the tests around this one.
        assert [name for name in client.list_database_names() if name.startswith(NAME)] == [f"{NAME}-00000000-1"]
        assert client["someone"]["signal-items"].count_documents({}) == 1
        earlier_keys = {b"signal_cache:e:s:B", f"{NAME}-00000000-1:signal_cache:e:s:B".encode(), b"other"}
        keys = set(cache.keys())
        assert earlier_keys <= keys
        assert {key for key in keys if NAME.encode() in key} <= earlier_keys
        client.drop_database("someone")
        client.drop_database(f"{NAME}-00000000-1")
    sweeper.flush_redis()


def test_no_server_is_a_failure_that_says_why(pytester):
    pytester.makepyfile("def test_one(backtest_kit): pass\ndef test_two(backtest_kit): pass")
    pytester.makeconftest(
        "from backtest_kit_mongo.servers import MongoServer\nMongoServer._binaries = ('none',)\nMongoServer._wheel = ('none', 'none')"
    )
    result = run(pytester)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["no servers for tests: no none found, neither on PATH nor in an installed wheel", "  hint: pip install *"])
    result.stdout.no_fnmatch_line("*During handling*")


def test_a_wrong_address_is_a_failure_that_says_which(pytester):
    pytester.makepyfile("def test_one(backtest_kit): pass")
    result = run(pytester, "--showlocals", "--backtest-kit-redis-url=http://:secret@localhost")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "no servers for tests: CC_REDIS_URL is not a valid Redis URL (scheme)",
            "  hint: the address is that of --backtest-kit-redis-url, *",
        ]
    )
    assert "secret" not in result.stdout.str()


def test_an_address_without_a_server():
    """The error comes at the start of the session, in time, and without the password."""
    begin = time.monotonic()
    servers = KitServers("mongodb://bot:secret@localhost:1/a?serverSelectionTimeoutMS=100", "redis://:secret@localhost:1")
    with pytest.raises(ServerTimeoutError, match="MongoDB did not answer in time") as caught:
        servers.start(timeout=1)
    with pytest.raises(ConfigError, match="CC_MONGO_CONNECTION_STRING") as wrong:
        KitServers("mongodb://bot:secret@localhost:x/a").start()
    assert time.monotonic() - begin < 10
    assert "secret" not in f"{servers} {caught.value} {wrong.value}"


def test_a_project_that_does_not_use_the_fixtures_pays_nothing(pytester):
    """Nothing is imported, and no warning appears."""
    pytester.makepyfile(
        "import sys\ndef test_one():\n    loaded = set(sys.modules)\n"
        "    assert not loaded & {'numpy', 'pymongo', 'redis', 'msgspec', 'backtest_kit_mongo.servers', 'backtest_kit_mongo.config'}"
    )
    run(pytester).assert_outcomes(passed=1)


def test_an_installation_finds_the_plugin_and_can_turn_it_off(pytester, monkeypatch):
    """tests/project/test_packaging.py checks that the wheel has this entry point."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = pytester.mkdir("installed-1.dist-info")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[pytest11]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()))
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    pytester.makepyfile(
        """
        def test_one(request):
            turned_off = "no:backtest_kit_mongo.testing.plugin" in request.config.invocation_params.args
            assert request.config.pluginmanager.has_plugin("backtest_kit_mongo.testing.plugin") is not turned_off
        """
    )
    for arguments in ((), ("-p", "backtest_kit_mongo.testing.plugin"), ("-p", "no:backtest_kit_mongo.testing.plugin")):
        pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=600).assert_outcomes(passed=1)


def test_the_user_of_an_address_stays_the_same():
    """MongoDB looks for a user in the database of the connection string, unless it names another one."""
    assert on_database("mongodb://localhost", "t") == "mongodb://localhost/t"
    assert on_database("mongodb://%2Ftmp%2Fm.sock/a?w=1", "t") == "mongodb://%2Ftmp%2Fm.sock/t?w=1"
    assert on_database("mongodb://u:p%40@h1:1,h2:2/a?w=1", "t") == "mongodb://u:p%40@h1:1,h2:2/t?w=1&authSource=a"
    assert on_database("mongodb+srv://u:p@h", "t") == "mongodb+srv://u:p@h/t?authSource=admin"
    assert on_database("mongodb://u:p@h/?authSource=x", "t") == "mongodb://u:p@h/t?authSource=x"
    assert on_database("mongodb://u@h/?authMechanism=MONGODB-X509", "t") == "mongodb://u@h/t?authMechanism=MONGODB-X509"
