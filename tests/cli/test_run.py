"""``run`` in its modes, as a user runs it: fetched frames, paper and live runs against a local exchange, results in files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pymongo
import pytest
from command import Cli
from paths import EXAMPLE, HELPERS

from backtest_kit_mongo.observability.profile import Report

pytestmark = pytest.mark.once

DAY = 1440 * 60_000
RUN = ("run", str(EXAMPLE), "--backtest", "--entry")

OPENER = """
from backtest_kit_mongo.runner import Session, add_strategy, get_candles

@add_strategy("opener", interval="1m")
def get_signal(symbol, when):
    Session.update(lambda data: {"asked": (data or {"asked": 0})["asked"] + 1})
    price = get_candles(symbol, "1m", 1)[-1]["close"]
    return {"position": "long", "priceTakeProfit": price * 1.5, "priceStopLoss": price * 0.5, "minuteEstimatedTime": 600}
"""

SLOW = """
import time
from pathlib import Path
from backtest_kit_mongo.runner import add_strategy

@add_strategy("slow", interval="1m")
def get_signal(symbol, when):
    Path("asked").touch()
    time.sleep(0.5)
"""

WANDERER = """
import os, tempfile
from backtest_kit_mongo.runner import add_strategy

@add_strategy("wanderer", interval="1h")
def get_signal(symbol, when):
    os.chdir(tempfile.gettempdir())
"""

BOTH = """
from backtest_kit_mongo.runner import add_strategy

@add_strategy("good", interval="1h")
def good(symbol, when):
    return None

@add_strategy("bad", interval="1h")
def bad(symbol, when):
    raise ValueError("no idea")
"""


@pytest.fixture
def cli(tmp_path, settings):
    """The command on the session's servers with a new database; drops the database of its paper runs afterwards."""
    yield Cli(tmp_path, **{name: str(value) for name, value in settings.items()}, CC_EXCHANGE_KEY="key", CC_EXCHANGE_SECRET="secret")
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        client.drop_database(f"{client.get_default_database().name}-paper")


class Market:
    """The local exchange in its own process, on wall clock time."""

    def __init__(self, folder):
        start = int(time.time() // 86_400 - 3) * DAY
        self.second = time.strftime("%Y-%m-%d", time.gmtime((start + DAY) / 1000))
        self._process = subprocess.Popen(
            [sys.executable, str(HELPERS / "exchange_server.py"), "--port", "0", "--state", str(folder / "orders"),
             "--minutes", str(5 * 1440), "--start-ms", str(start), "--seed", "5", "--speed", "1"],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def seen(self):
        with urllib.request.urlopen(f"{self.url}/control") as answer:
            return json.load(answer)

    def close(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def market(tmp_path):
    simulated_market = Market(tmp_path)
    yield simulated_market
    simulated_market.close()


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


# --- backtests ---


def test_a_frame_is_fetched_once_and_replayed(cli, market):
    arguments = (*RUN, "--frame", f"{market.second}:{market.second}", "--exchange-url", market.url, "--warm-up", "60")
    first = cli(*arguments)
    assert "1,500 candles of BTCUSDT 1m fetched from binance" in first.out
    assert "Fetching BTCUSDT" in first.err
    assert "1,440 minutes" in first.out
    requests = len(market.seen()["requests"])
    again = cli.out(*arguments)
    assert "fetched from" not in again
    assert len(market.seen()["requests"]) == requests
    assert re.findall(r"^\d{4}-.* %$", again, re.MULTILINE) == re.findall(r"^\d{4}-.* %$", first.out, re.MULTILINE)


def test_two_runs_write_the_same_result_byte_for_byte(cli):
    arguments = (*RUN, "--synthetic-days", "3", "--symbol", "BTCUSDT", "--symbol", "ETHUSDT", "--profile", "profile.json")
    cli(*arguments, "--json", "one.json", "--report", "report.html")
    cli(*arguments, "--json", "two.json")
    one = (cli.home / "one.json").read_bytes()
    assert one == (cli.home / "two.json").read_bytes()
    result = json.loads(one)
    assert len(result["trades"]) == result["totals"]["trades"] > 4
    assert {trade["symbol"] for trade in result["trades"]} == {"BTCUSDT", "ETHUSDT"}
    assert {"id", "symbol", "strategyName", "position", "priceOpen", "priceClose", "openTimestamp", "closeTimestamp", "closeReason",
            "pnlPercentage"} <= set(result["trades"][0])  # fmt: skip
    assert {trade["closeReason"] for trade in result["trades"]} <= {"take_profit", "stop_loss", "time_expired", "closed"}
    profile = json.loads((cli.home / "profile.json").read_bytes())
    assert Report.from_dict(profile.get("report", profile)).domains["signal"]["writes"] > 0
    assert "plotly" in (cli.home / "report.html").read_text()


def test_a_strategy_that_raises_does_not_stop_the_others(cli):
    file = cli.home / "both.py"
    file.write_text(BOTH)
    run = cli("run", str(file), "--backtest", "--entry", "--synthetic-days", "1", "--strategy", "bad", "--strategy", "good", code=1)
    assert re.search(r"error: strategy 'bad' on BTCUSDT at 2023-03-01T\S+ raised ValueError: no idea", run.err)
    assert "bad on BTCUSDT ended early" in run.out
    [line] = [
        json.loads(line)
        for line in next(cli.home.glob(".local/share/backtest-kit-mongo/dump/*/log/log.jsonl")).read_text().splitlines()
        if "run.failed" in line
    ]
    assert line["args"][0]["error"] == "ValueError"


def test_parameters_reach_the_file(cli):
    few = cli.out(*RUN, "--synthetic-days", "2", "--param", "FAST=40", "--json", "few.json")
    many = cli.out(*RUN, "--synthetic-days", "2", "--param", "FAST=3", "--json", "many.json")
    assert "Totals" in few + many
    trades = [json.loads((cli.home / name).read_bytes())["trades"] for name in ("few.json", "many.json")]
    assert trades[0] != trades[1]
    assert "did you mean FAST" in cli.err(*RUN, "--synthetic-days", "2", "--param", "FASTT=3", code=1)


def test_a_setup_file_decides_the_settings(cli):
    (cli.home / "config").mkdir()
    (cli.home / "config/setup.py").write_text("from backtest_kit_mongo import setup\nsetup(stores={'log': 'memory'})\n")
    shown = cli.out(*RUN, "--synthetic-days", "1")
    assert "setup.py" in shown
    assert "log: memory; all others: mongo" in shown
    assert not (cli.home / "dump").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backtest", "--frame", "2023-03-05:2023-03-01"), "is empty"),
        (("--backtest", "--frame", "2023-03-01"), "is not a window"),
        (("--backtest", "--frame", "spring"), "no frame 'spring' is registered"),
        (("--backtest", "--frame", "2023-03-01:2023-03-02", "--exchange", "no-such-place"), "no-such-place"),
        (("--backtest", "--json", "nowhere/out.json", "--synthetic-days", "1"), "nowhere"),
        (("--backtest", "--report", "nowhere/out.html", "--synthetic-days", "1"), "nowhere"),
        (("--backtest", "--broker", "ccxt"), "a backtest sends no orders"),
        (("--live",), "a live run needs a broker"),
        (("--live", "--broker", "nobody"), "no broker 'nobody'"),
        (("--paper", "--broker", "ccxt"), "a paper run sends no orders"),
        (("--paper", "--synthetic-days", "1"), "needs the candles of an exchange"),
        (("--paper", "--frame", "2023-03-01:2023-03-02"), "has no window"),
        (("--backtest", "--param", "FAST"), "is not NAME=VALUE"),
        (("--backtest", "--stores", "floppy", "--synthetic-days", "1"), "must be one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_run_is_said_before_anything_is_written(cli, arguments, said):
    run = cli("run", str(EXAMPLE), "--entry", *arguments, code=None)
    assert run.returncode in (1, 2)
    assert said in re.sub(r"[│╭╮╰╯─\s]+", " ", run.err)
    assert not list(cli.home.glob(".local/share/backtest-kit-mongo/dump/*/log/log.jsonl"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "out.json", "--profile", "out.json"),
        ("--json", "out.json", "--profile", "./folder/../out.json"),
        ("--profile", "linked.json", "--json", "out.json"),
        ("--json", "both.py"),
        ("--profile", "./folder/../both.py"),
        ("--json", "BTCUSDT.csv", "--csv", "BTCUSDT.csv"),
    ],
    ids=" ".join,
)
def test_a_result_never_replaces_another_file_of_the_command(cli, arguments):
    files = {"both.py": BOTH, "BTCUSDT.csv": "timestamp,open,high,low,close,volume\n"}
    for name, text in files.items():
        (cli.home / name).write_text(text)
    (cli.home / "folder").mkdir()
    (cli.home / "linked.json").symlink_to("out.json")
    window = () if "--csv" in arguments else ("--synthetic-days", "1")
    said = cli.err("run", "both.py", "--backtest", "--entry", "--strategy", "good", *window, *arguments, code=1)
    assert "would replace another file of this command" in said
    assert {name: (cli.home / name).read_text() for name in files} == files
    assert not (cli.home / "out.json").exists()


def test_results_are_where_they_were_asked_for_though_the_strategy_wanders(cli):
    (cli.home / "wanderer.py").write_text(WANDERER)
    arguments = ("--json", "out.json", "--profile", "profile.json")
    cli("run", "wanderer.py", "--backtest", "--entry", "--synthetic-days", "1", *arguments)
    assert json.loads((cli.home / "out.json").read_bytes())["trades"] == []
    assert (cli.home / "profile.json").exists()


def test_an_interrupted_backtest_ends_with_its_minute(cli):
    (cli.home / "slow.py").write_text(SLOW)
    process = cli.start("run", "slow.py", "--backtest", "--entry", "--synthetic-days", "1")  # takes twelve minutes
    try:
        until((cli.home / "asked").exists)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.rstrip().endswith("error: interrupted; stored records are kept")
    assert "Traceback" not in out + err


# --- paper and live ---


def test_a_symbol_that_the_exchange_does_not_know_ends_a_paper_run_at_once(cli, market):
    (cli.home / "opener.py").write_text(OPENER)
    arguments = ("--symbol", "BTCUSDT", "--symbol", "BTCUSD", "--exchange-url", market.url)
    assert "binance has no symbol 'BTCUSD'" in cli.err("run", "opener.py", "--paper", "--entry", *arguments, code=1)


def test_a_paper_run_beside_a_setup_file_has_a_database_of_its_own(cli, market, settings):
    (cli.home / "opener.py").write_text(OPENER)
    (cli.home / "config").mkdir()
    (cli.home / "config/setup.py").write_text("from backtest_kit_mongo import setup\nsetup(stores={'log': 'memory'})\n")
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        live = client.get_default_database()
        paper = client[f"{live.name}-paper"]
        process = cli.start("run", "opener.py", "--paper", "--entry", "--exchange-url", market.url, CC_TICK_SECONDS="1")
        try:
            until(lambda: paper["signal-items"].find_one({"strategyName": "opener"}) is not None)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=90)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert {row["payload"]["_mode"] for row in paper["strategy-items"].find()} == {"paper"}
        assert live.list_collection_names() == []


@pytest.mark.parametrize("mode", ["paper", "live"])
def test_a_run_that_is_killed_goes_on_where_it_was(cli, market, settings, mode):
    file = cli.home / "opener.py"
    file.write_text(OPENER)
    arguments = ("run", str(file), f"--{mode}", "--entry", "--exchange-url", market.url, *(("--broker", "ccxt") if mode == "live" else ()))
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"], tz_aware=True) as client:
        live = client.get_default_database()
        database, other = (live, client[f"{live.name}-paper"]) if mode == "live" else (client[f"{live.name}-paper"], live)

        def position():
            row = database["signal-items"].find_one({"strategyName": "opener"})
            return None if row is None else row["payload"]

        process = cli.start(*arguments, CC_TICK_SECONDS="1")
        try:
            until(lambda: position() is not None)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=120)
            first = position()
            process = cli.start(*arguments, CC_TICK_SECONDS="1")
            while "running opener on BTCUSDT" not in process.stdout.readline():
                assert process.poll() is None
            asked = len(market.seen()["requests"])
            until(lambda: len(market.seen()["requests"]) > asked)  # its first minute has begun
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=90)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert "finishing the minute" in err
        assert re.search("still open +long from", out)
        assert position()["id"] == first["id"]
        assert database["session-items"].find_one({})["payload"]["data"] == {"asked": 1}
        orders = market.seen()["orders"]
        assert len(orders) == (1 if mode == "live" else 0)
        assert "signal-items" not in other.list_collection_names()
