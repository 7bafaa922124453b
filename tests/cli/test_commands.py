"""The command ``backtest-kit-mongo`` as a user runs it: its own process, real servers, its output and exit code."""

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pymongo
import pytest
import redis
import typer.main
from command import Cli
from exchange_server import Exchange, ExchangeServer
from paths import EXAMPLE
from typer.testing import CliRunner

from backtest_kit_mongo import Report
from backtest_kit_mongo.cli.app import app
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import synthetic_market
from backtest_kit_mongo.servers import RedisServer

pytestmark = [pytest.mark.once, pytest.mark.server]

BACKTEST = ("run", str(EXAMPLE), "--backtest", "--entry")
NOWHERE = {"CC_MONGO_CONNECTION_STRING": "mongodb://127.0.0.1:1/nothing", "CC_REDIS_HOST": "127.0.0.1", "CC_REDIS_PORT": "1"}
SECRET = "s3cr3t-hunter2"


@pytest.fixture
def cli(tmp_path, settings):
    """The command on the session's servers and a new database."""
    return Cli(tmp_path, **{name: str(value) for name, value in settings.items()})


@pytest.fixture
def lonely(tmp_path):
    """The command where no server answers."""
    return Cli(tmp_path, **NOWHERE)


@pytest.fixture
def database(settings):
    with pymongo.MongoClient(settings["CC_MONGO_CONNECTION_STRING"]) as client:
        yield client.get_default_database()


@pytest.fixture
def cache(settings):
    with redis.Redis(unix_socket_path=settings["CC_REDIS_HOST"]) as client:
        yield client


def klines(path, minutes, *, without=()):
    """Write a kline file with ISO times, gzipped if the suffix is .gz."""
    lines = ["open_time,open,high,low,close,volume"]
    for number, (stamp, *values) in enumerate(synthetic_market(3, max(minutes, 2_000), 1_677_628_800_000)[:minutes].tolist()):
        if number not in without:
            lines.append(f"{datetime.fromtimestamp(stamp / 1000, UTC).isoformat()},{','.join(map(str, values))}")
    text = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


def answers(path):
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(str(path))
        except OSError:
            return False
        return True


# --- help and usage ---

GROUP = typer.main.get_command(app)
COMMANDS = {
    **{(name,): command for name, command in GROUP.commands.items()},
    **{(name, below): inner for name, command in GROUP.commands.items() for below, inner in getattr(command, "commands", {}).items()},
}


def test_the_commands_are_those_of_the_issue():
    names = ("demo", "run", "sweep", "new-strategy", "doctor", "flush-cache", "candles", "runs", "stats", "copy", "export", "completion")
    below = (
        *(("candles", name) for name in ("import", "refresh", "list", "remove", "pack", "unpack", "verify")),
        ("runs", "list"),
        ("runs", "show"),
    )
    assert set(COMMANDS) == {*((name,) for name in names), *below}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("path", [(), *COMMANDS], ids=lambda path: " ".join(path) or "all")
def test_help_says_what_a_command_does_and_names_every_option(path, columns):
    command = COMMANDS.get(path, GROUP)
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": str(columns)}, prog_name="backtest-kit-mongo")
    assert shown.exit_code == 0
    assert command.help.split("\n\n")[0] in " ".join(shown.output.split())
    for parameter in command.params:
        for name in parameter.opts:
            if name.startswith("--"):
                assert name in shown.output
                assert getattr(parameter, "help", None), f"{name} has no help"
    if not hasattr(command, "commands") or not path:
        assert "$ backtest-kit-mongo" in shown.output, "no example"
    assert max(map(len, shown.output.splitlines())) <= columns


def test_version_and_no_arguments(lonely):
    assert re.fullmatch(r"backtest-kit-mongo \d+\.\d+\.\d+\n", lonely.out("--version"))
    assert "Usage" in lonely(code=None).out
    assert "No such command" in lonely.err("fly", code=2)


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_packages_the_command_says_how_to_get_them(package):
    code = f"import sys; sys.modules[{package!r}] = None; from backtest_kit_mongo.cli import main; main()"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 1
    assert 'pip install "backtest-kit-mongo[cli]"' in completed.stderr
    assert package in completed.stderr
    assert "Traceback" not in completed.stderr


def test_the_library_does_not_import_them():
    code = "import sys, backtest_kit_mongo, backtest_kit_mongo.runner; assert not {'typer', 'rich', 'click'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", str(EXAMPLE), "--entry"),
        ("run", "--backtest", "--entry"),
        (*BACKTEST, "--synthetic-days", "1", "--csv", "x.csv"),
        (*BACKTEST, "--synthetic-days", "1", "--exchange", "binance"),
        (*BACKTEST, "--fee", "100"),
        (*BACKTEST, "--embedded", "--mongo", "mongodb://localhost"),
        ("candles", "import"),
        ("doctor", "--samples", "0"),
    ],
    ids=lambda arguments: " ".join(arguments[-3:]).replace(str(EXAMPLE), "FILE"),
)
def test_wrong_usage_is_exit_code_2(lonely, arguments):
    assert "Usage" in lonely.err(*arguments, code=2)


@pytest.mark.parametrize("modes", [(), ("--backtest", "--live"), ("--paper", "--live")])
def test_one_mode_must_be_chosen(lonely, modes):
    assert "choose one mode: --backtest, --paper or --live" in lonely.err("run", str(EXAMPLE), *modes, code=2)


# --- run ---


def test_without_entry_nothing_runs(cli, database, cache):
    trap = cli.home / "trap.py"
    trap.write_text("raise SystemExit('this file was loaded')")
    shown = cli.out("run", str(trap), "--backtest", "--synthetic-days", "1")
    assert "--entry" in shown
    assert str(trap) in shown
    assert database.list_collection_names() == []
    assert cache.dbsize() == 0
    assert not cli.last_run.exists()


def test_without_entry_no_server_is_needed(lonely):
    assert "embedded" in lonely.out("run", str(EXAMPLE), "--backtest", "--embedded-dir", "servers")
    assert not (lonely.home / "servers").exists()


def test_a_run_persists_its_whole_state_and_says_what_happened(cli, database, cache):
    cache.set("foreign", "1")
    cache.set("signal_cache:left:by:another", "1")
    first = cli(*BACKTEST, "--synthetic-days", "2", "--stores", "mongo", "--profile", "-")
    written = ("signal", "risk", "recent", "storage", "notification", "log", "state", "session", "partial", "breakeven", "candle")
    for name in written:
        assert database[f"{name}-items"].count_documents({}) > 0, name
    assert database["candle-items"].count_documents({}) == 2 * 1440
    assert database["candle-items"].distinct("exchangeName") == ["synthetic-42-2d"]
    assert cache.get("foreign") == b"1"
    assert cache.get("signal_cache:left:by:another") == b"1"  # ids are verified, so a start drops none
    assert cache.keys("signal_cache:*")
    for text in (
        "made up",
        "seed 42",
        "2,880 new",
        "Trades",
        "Totals",
        "hit ratio",
        "p99 us",
        "take profit",
        cli.environment["CC_DURABILITY"],
    ):
        assert text in first.out
    assert "Importing candles" in first.err
    assert "Replaying" in first.err

    second = cli.out(*BACKTEST, "--synthetic-days", "2", "--stores", "mongo")
    assert "0 new, 2,880 stored before" in second
    assert trades(second) == trades(first.out)
    assert len(trades(second)) > 1
    assert trades(cli.out(*BACKTEST, "--synthetic-days", "2", "--fee", "0")) != trades(second)


def trades(shown):
    return re.findall(r"^2023-.* %$", shown, re.MULTILINE)


def test_a_run_on_a_file(cli, database):
    file = klines(cli.home / "market.csv.gz", 900)
    shown = cli.out(*BACKTEST, "--csv", file, "--symbol", "ETHUSDT", "--exchange", "elsewhere", "--trades", "1")
    assert "900 new" in shown
    assert "900 minutes" in shown
    assert len(trades(shown)) == 1
    assert "the last 1 of" in shown
    series = database["candle-items"].find_one({}, {"_id": 0, "symbol": 1, "interval": 1, "exchangeName": 1})
    assert series == {"symbol": "ETHUSDT", "interval": "1m", "exchangeName": "elsewhere"}
    # Without a file, the imported candles are replayed.
    again = cli.out(*BACKTEST, "--symbol", "ETHUSDT", "--exchange", "elsewhere", "--trades", "1")
    assert trades(again) == trades(shown)


def test_the_file_chooses_the_window(cli):
    cli("candles", "import", klines(cli.home / "long.csv", 800), "--symbol", "BTCUSDT")
    assert "300 minutes" in cli.out(*BACKTEST, "--csv", klines(cli.home / "BTCUSDT.csv", 300), "--exchange", "binance")


def test_a_file_needs_a_symbol_and_says_it_in_its_name(cli, database):
    output = cli.err(*BACKTEST, "--csv", klines(cli.home / "prices.csv", 60), code=1)
    assert "the symbol of the candles" in output
    assert "--symbol" in output
    cli(*BACKTEST, "--csv", klines(cli.home / "ETHUSDT-1m-2023-03.csv", 60))
    cli(*BACKTEST, "--csv", klines(cli.home / "SOLUSDT.csv.gz", 60))
    assert database["candle-items"].distinct("symbol") == ["ETHUSDT", "SOLUSDT"]
    assert database["candle-items"].distinct("exchangeName") == ["csv"]
    named = cli.err(*BACKTEST, "--csv", str(cli.home / "SOLUSDT.csv.gz"), "--symbol", "ADAUSDT", code=0)
    assert "note: the file is named after SOLUSDT; its candles are stored as ADAUSDT" in named
    assert "says 5m" in cli.err(*BACKTEST, "--csv", klines(cli.home / "ETHUSDT-5m.csv", 60), code=1)


def test_a_file_that_contradicts_what_is_stored_does_not_run(cli, database):
    file = cli.home / "BTCUSDT.csv"
    cli(*BACKTEST, "--csv", klines(file, 60))
    before = database["candle-items"].count_documents({})
    file.write_text(file.read_text().replace("00:59:00+00:00,", "00:59:00+00:00,2"))  # as from another market
    lines = file.read_text().splitlines()
    opened, _, low, close, volume = lines[-1].split(",")[1:]
    file.write_text("\n".join([*lines[:-1], ",".join([lines[-1].split(",")[0], opened, opened, low, close, volume])]))
    output = cli.err(*BACKTEST, "--csv", str(file), code=1)
    assert "1 of 60 candles of BTCUSDT 1m are stored on 'csv' with other values" in output
    assert "2023-03-01T00:59:00Z stored: open" in output
    assert "candles remove BTCUSDT --interval 1m --exchange csv" in output
    assert database["candle-items"].count_documents({}) == before
    assert "60 candles of BTCUSDT 1m on csv would be removed" in cli.out("candles", "remove", "BTCUSDT", "--exchange", "csv")
    assert database["candle-items"].count_documents({}) == before
    assert "60 candles of BTCUSDT 1m on csv removed" in cli.out("candles", "remove", "BTCUSDT", "--exchange", "csv", "--yes")
    assert "60 new" in cli.out(*BACKTEST, "--csv", str(file))
    assert re.search(r"^csv +BTCUSDT +1m .* 60 +0 +0$", cli.out("candles", "list"), re.MULTILINE)
    assert json.loads(cli.out("candles", "list", "--json", "--symbol", "BTCUSDT"))[0]["candles"] == 60
    assert "stored series: BTCUSDT 1m on csv" in cli.err("candles", "remove", "X", "--exchange", "csv", code=1)


def test_candles_of_months_are_imported_listed_and_removed(cli):
    file = cli.home / "BTCUSDT-1mo-2023-12.csv"
    months = ("2023-12-01", "2024-01-01", "2024-02-01", "2024-04-01")
    file.write_text("\n".join(["open_time,open,high,low,close,volume", *(f"{month}T00:00:00Z,2,3,1,2,5" for month in months)]))
    assert "BTCUSDT 1M on binance" in cli.out("candles", "import", str(file))
    [series] = json.loads(cli.out("candles", "list", "--json"))
    assert (series["interval"], series["candles"], series["untilMs"] - series["gaps"][0]["until_ms"]) == ("1M", 4, 30 * 86_400_000)
    assert re.search(r"^binance +BTCUSDT +1M .* 4 +1 +1$", cli.out("candles", "list"), re.MULTILINE)
    assert "'1mo' is not one of '1m'" in cli.err("candles", "remove", "BTCUSDT", "--interval", "1mo", "--exchange", "binance", code=2)
    months_2024 = ("--interval", "1M", "--exchange", "binance", "--since", "2024-01-01", "--yes")
    assert "3 candles of BTCUSDT 1M on binance removed" in cli.out("candles", "remove", "BTCUSDT", *months_2024)
    assert json.loads(cli.out("candles", "list", "--json"))[0]["candles"] == 1


def test_candles_of_a_file_that_were_stored_as_binance_are_mentioned(cli):
    file = klines(cli.home / "BTCUSDT.csv", 60)
    cli("candles", "import", file, "--symbol", "BTCUSDT")
    output = cli.err(*BACKTEST, "--csv", file)
    assert "imported under the exchange name binance stay there" in output
    assert "note:" not in cli.err(*BACKTEST, "--csv", file)
    assert "0 new, 60 stored before" in cli.out(*BACKTEST, "--csv", file, "--exchange", "binance")
    assert "--exchange csv replays those" in cli.err(*BACKTEST, "--symbol", "NOPE", "--csv", file, code=0) + cli.err(
        *BACKTEST, "--symbol", "NOPE", code=1
    )


BREAKS = """
from backtest_kit_mongo.runner import add_strategy

@add_strategy("breaks", interval="5m")
def get_signal(symbol, when):
    if when.hour >= 1:
        raise KeyError("price")
    return {"position": "long", "priceTakeProfit": 1e9, "priceStopLoss": 1.0 if when.minute % 10 else 2e9, "minuteEstimatedTime": 2}
"""


def test_a_run_that_ends_early_prints_writes_and_keeps_what_it_had(cli):
    (cli.home / "breaks.py").write_text(BREAKS)
    run = ("run", "breaks.py", "--backtest", "--entry", "--synthetic-days", "1", "--json", "out.json", "--report", "out.html")
    output = cli(*run, code=1)
    assert "raised KeyError: 'price'" in output.err
    assert "breaks on BTCUSDT ended early, at 2023-03-01 00:59 UTC" in " ".join(output.out.split())
    assert "(5 long, priceStopLoss above price)" in output.out
    content = json.loads((cli.home / "out.json").read_text())
    assert len(content["trades"]) == 6
    assert content["totals"]["signalsIgnored"] == 5
    assert (content["runs"][0]["complete"], len(content["failed"])) == (False, 1)
    assert "Incomplete: this run ended early" in (cli.home / "out.html").read_text()
    assert re.search(r"breaks .* no$", cli.out("runs", "list"), re.MULTILINE)

    skipped = cli.out(*run, "--on-error", "skip")
    assert "276 errors of the strategy skipped" in skipped
    assert "ended early" not in skipped
    assert "--on-error" in cli.err("run", "breaks.py", "--paper", "--on-error", "stop", code=2)


def test_results_are_kept_and_shown_again(cli):
    first = cli.out(*BACKTEST, "--synthetic-days", "2", "--param", "FAST=6")
    run_id = re.search(r"kept as run (\S+):", first)[1]
    assert sorted(path.name for path in cli.home.iterdir()) == [".local"]  # nothing in the working directory
    assert run_id in cli.out("runs", "list")
    assert json.loads(cli.out("runs", "list", "--json"))[0]["parameters"]["FAST"] == 6
    shown = cli.out("runs", "show", run_id, "--report", "page.html", "--json", "again.json")
    assert trades(shown) == trades(first)
    assert "FAST=6" in shown
    assert "profit factor" in shown
    assert (cli.home / "page.html").read_text().startswith("<!DOCTYPE html>")
    cli(*BACKTEST, "--synthetic-days", "2", "--param", "FAST=6", "--json", "first.json")
    assert (cli.home / "again.json").read_bytes() == (cli.home / "first.json").read_bytes()
    assert "no kept run 'nope'" in cli.err("runs", "show", "nope", code=1)


def test_a_data_folder_that_cannot_be_written_to_is_no_failure(cli):
    (cli.home / ".local").mkdir()
    (cli.home / ".local/share").write_text("a file")
    output = cli(*BACKTEST, "--synthetic-days", "1", "--stores", "mongo")
    assert "the results of this run are not kept" in output.err


def test_the_demo_shows_what_the_second_process_need_not_do(cli):
    """The demo uses its own servers: those of the environment hold somebody's data."""
    shown = cli.out("demo", CC_MONGO_CONNECTION_STRING="mongodb://127.0.0.1:1/x", CC_MODE="nonsense")
    assert re.search(r"^candles imported +20,160 +0$", shown, re.MULTILINE)
    assert re.search(r"^trends computed +\d+ +0$", shown, re.MULTILINE)
    assert re.search(r"^ids from Redis +0 of 0 +(\d+) of \1 \(100%\)$", shown, re.MULTILINE)
    assert "The same trades in both." in shown
    page = Path(re.search(r"^Report: (.*)$", shown, re.MULTILINE)[1])
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert page.is_relative_to(cli.home / ".local/share/backtest-kit-mongo/demo")
    assert sorted(path.name for path in cli.home.iterdir()) == [".local"]
    assert "does not exist" in cli.err("demo", "--csv", "nowhere.csv", code=1)


@pytest.mark.parametrize(("given", "used"), [(None, "memory"), ("", "memory"), ("journal", "journal")])
def test_a_backtest_uses_memory_unless_told_otherwise(cli, given, used):
    del cli.environment["CC_DURABILITY"]
    environment = {} if given is None else {"CC_DURABILITY": given}
    shown = cli.out("run", str(EXAMPLE), "--backtest", **environment)
    assert re.search(rf"durability +{used}", shown)
    assert re.search(rf"durability +{used}", cli.out(*BACKTEST, "--csv", klines(cli.home / "BTCUSDT.csv", 60), **environment))


def test_one_of_two_strategies_must_be_chosen(cli):
    file = cli.home / "two.py"
    file.write_text(
        "from backtest_kit_mongo.runner import add_strategy\n"
        "for name in ('one', 'two'):\n"
        "    add_strategy(name, interval='5m', get_signal=lambda symbol, when: None)\n"
    )
    run = ("run", str(file), "--backtest", "--entry", "--csv", klines(cli.home / "BTCUSDT.csv", 60))
    assert "'one', 'two'" in cli.err(*run, code=1)
    shown = cli.out(*run, "--strategy", "two")
    assert "two of" in shown
    assert re.search(r"trades +none", shown)


BAD = {
    "syntax": ("def f(:\n", "SyntaxError"),
    "raises": ("1 / 0\n", "ZeroDivisionError"),
    "exits": ("raise SystemExit(0)\n", "SystemExit"),
    "imports nothing": ("import there_is_no_such_module\n", "there_is_no_such_module"),
    "registers nothing": ("x = 1\n", "registers no strategy"),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_strategy_file_is_named_before_any_server_is_asked(lonely, text, said):
    file = lonely.home / "bad.py"
    file.write_text(text)
    output = lonely.err("run", str(file), "--backtest", "--entry", "--synthetic-days", "1", code=1)
    assert output.startswith("error: ")
    assert said in output
    assert str(file) in output


def test_debug_shows_the_traceback(lonely):
    file = lonely.home / "bad.py"
    file.write_text("def broken():\n    return 1 / 0\nbroken()\n")
    output = lonely.err("run", str(file), "--backtest", "--entry", "--synthetic-days", "1", "--debug", code=1)
    assert "Traceback" in output
    assert "in broken" in output
    assert f"error: the strategy file failed at {file}:2: ZeroDivisionError" in output


def test_a_strategy_that_raises_ends_the_run(cli, database):
    file = cli.home / "raises.py"
    file.write_text(
        "from backtest_kit_mongo.runner import add_strategy\n"
        "@add_strategy('raises', interval='5m')\n"
        "def get_signal(symbol, when):\n"
        "    return {}['price']\n"
    )
    output = cli.err("run", str(file), "--backtest", "--entry", "--synthetic-days", "1", code=1)
    assert "error: strategy 'raises' on BTCUSDT" in output
    assert f"{file}:4" in output
    assert not cli.last_run.exists()
    [line] = [
        json.loads(line)
        for line in next(cli.home.glob(".local/share/backtest-kit-mongo/dump/*/log/log.jsonl")).read_text().splitlines()
        if "run.failed" in line
    ]
    assert line["args"][0]["error"] == "KeyError"


@pytest.mark.parametrize("option", ["strategy", "csv"])
@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_none(lonely, option, kind):
    path = str(lonely.home) if kind == "folder" else "nowhere.file"
    arguments = ("run", path, "--backtest") if option == "strategy" else (*BACKTEST, "--csv", path)
    output = lonely.err(*arguments, code=1)
    if (option, kind) == ("csv", "folder"):  # a folder may hold candles
        assert output.startswith(f"error: the symbol of the candles in {path} is unknown\n")
        assert "holds no candle files" in lonely.err(*arguments, "--symbol", "BTCUSDT", code=1)
    else:
        assert output == f"error: {f'{path} is not a file' if kind == 'folder' else f'the file {path} does not exist'}\n"


@pytest.mark.parametrize(
    "command", [(*BACKTEST, "--symbol", "BTCUSDT", "--csv"), ("candles", "import", "--symbol", "BTCUSDT")], ids=["run", "import"]
)
def test_a_bad_csv_is_named_with_its_line(lonely, command):
    file = lonely.home / "bad.csv"
    file.write_text("open_time,open,high,low,close,volume\n2023-03-01T00:00Z,1,2,0.5,x,1\n")
    output = lonely.err(*command, str(file), code=1)
    assert f"error: {file}, line 2: close is 'x', not a number" in output


def test_nothing_to_replay(cli):
    output = cli.err(*BACKTEST, "--symbol", "NOPE", code=1)
    assert "no 1m candles of NOPE on binance" in output
    assert "--csv FILE" in output
    cli("candles", "import", klines(cli.home / "holes.csv", 600, without=range(200, 300)), "--symbol", "NOPE")
    output = cli.err(*BACKTEST, "--symbol", "NOPE", code=1)
    assert "2023-03-01 03:20" in output
    assert "--csv" in output


@pytest.mark.parametrize(
    "command", [(*BACKTEST, "--synthetic-days", "1"), ("candles", "import", "x.csv", "--symbol", "X"), ("stats",), ("flush-cache",)]
)
def test_an_unreachable_server_is_an_error_in_words(lonely, command):
    klines(lonely.home / "x.csv", 10)
    output = lonely.err(*command, "--timeout", "0.5", code=1)
    said = output[output.index("error: ") :]
    assert re.match("error: (MongoDB did not answer in time|Redis does not answer)", said)
    assert "hint: " in said


# --- stats ---


def test_stats_shows_what_is_stored_and_the_last_run(cli, cache):
    before = cli.out("stats")
    assert "none is recorded" in before
    cli(*BACKTEST, "--stores", "mongo", "--synthetic-days", "1")
    shown = json.loads(cli.out("stats", "--json"))
    stored = shown["stored"]["domains"]
    assert list(stored) == [*DOMAINS, "packed candles", "candle archive"]
    assert stored["candle"]["documents"] == 1440
    assert stored["candle"]["dataBytes"] > 1440 * 100
    assert stored["signal"]["redisIds"] == 1
    assert sum(row["redisIds"] for row in stored.values()) == cache.dbsize()
    last = shown["lastRun"]
    assert last["run"]["minutes"] == 1440
    report = Report.from_dict(last["report"])
    assert report.domains["candle"]["writes"] == 1440
    assert 0 < report.domains["risk"]["hit_ratio"] < 1
    assert report.domains["risk"]["operations"]["read"]["p99"] > 0
    text = cli.out("stats")
    assert "sma_cross on BTCUSDT synthetic-42-1d" in text
    assert report.table(200) in text
    assert text.count("\nnotification ") == 3


def test_stats_shows_the_last_run_without_servers(lonely):
    lonely.last_run.parent.mkdir(parents=True)
    lonely.last_run.write_text("no json")
    output = lonely("stats", "--timeout", "0.2", code=1)
    assert "none is recorded" in output.out
    assert "error: MongoDB" in output.err


@pytest.mark.parametrize("record", ["[]", "{}", '{"saved": "", "run": {}, "report": {}}', '{"saved": "x", "run": 1, "report": 2}'])
def test_a_record_that_is_none_is_no_record(lonely, record):
    lonely.last_run.parent.mkdir(parents=True)
    lonely.last_run.write_text(record)
    assert "none is recorded" in lonely("stats", "--timeout", "0.2", code=1).out


def test_stats_draws_the_last_run(cli):
    cli(*BACKTEST, "--synthetic-days", "1")
    cli("stats", "--png", "run.png")
    assert (cli.home / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    # An output path that cannot be written is an error before any server is asked.
    for path, said in (("nowhere/run.png", "no such folder"), (str(cli.home), "it is a folder")):
        output = cli("stats", "--png", path, code=1)
        assert f"error: cannot write a picture to {path}: {said}" in output.err
        assert not output.out
    assert "--png" in cli.err("stats", "--png", "run.png", "--watch", code=2)


def test_there_is_nothing_to_draw_before_the_first_run(lonely):
    assert "there is no last run to draw" in lonely.err("stats", "--png", "run.png", code=1)
    assert not (lonely.home / "run.png").exists()


# --- stats --watch ---


def until(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Watching:
    """``stats --watch`` in its own process, with its output in a file; ended like Ctrl-C does."""

    def __init__(self, cli, *arguments, **environment):
        self.file = cli.home / "watch.out"
        with open(self.file, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "backtest_kit_mongo", "stats", "--watch", "--interval", "0.2", *arguments],
                env={**cli.environment, **environment}, cwd=cli.home, stdout=output, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip

    @property
    def text(self):
        return self.file.read_text()

    def shows(self, text, times=1):
        until(lambda: self.text.count(text) >= times, f"{text!r} is not shown:\n{self.text[-3000:]}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.process.send_signal(signal.SIGINT)
        try:
            _, shown = self.process.communicate(timeout=120)
        finally:
            self.process.kill()
        if error is None:
            assert (self.process.returncode, shown) == (0, "")


def test_watch_shows_what_changes_until_it_is_interrupted(cli, database, cache):
    with Watching(cli) as watching:
        watching.shows("until Ctrl-C", 2)
        assert "No run is active" in watching.text
        assert "none is recorded" in watching.text
        database["signal-items"].insert_many([{"symbol": str(number)} for number in range(1234)])
        cache.mset({f"signal_cache:x:y:{number}": "1" for number in range(77)})
        watching.shows("1,234")
        watching.shows("Redis holds 77 keys")
        text = watching.text
        # Collections and keys are counted one after the other, so the first frame with one may lack the other.
        until(lambda: re.search(r"^signal +1,234 .* 77 ", watching.text, re.MULTILINE), "no line has both counts")
        assert re.search(r"^signal +1,234 +\+[\d,.]+ ", text, re.MULTILINE)
        assert re.search(r"MongoDB: query [\d,.]+, .*bytesSent [\d.]+ k?B", text)
        assert "\x1b" not in text


def test_watch_sees_a_run_at_work(cli):
    strategy = cli.home / "slow.py"
    strategy.write_text(
        "import time\n"
        "from backtest_kit_mongo.runner import add_strategy\n"
        "@add_strategy('slow', interval='5m')\n"
        "def get_signal(symbol, when):\n"
        "    time.sleep(0.02)\n"
    )
    run = cli.start("run", str(strategy), "--backtest", "--entry", "--synthetic-days", "60")
    try:
        with Watching(cli, "--json") as watching:
            looks = []

            def twice():
                looks[:] = [json.loads(line) for line in watching.text.splitlines(True) if line.endswith("\n")]
                looks[:] = [look for look in looks if look["running"] and look["running"][0]["run"].get("minutes", 0) > 0]
                return looks and looks[-1]["running"][0]["report"]["seconds"] > looks[0]["running"][0]["report"]["seconds"]

            until(twice, "the run is not seen")
            (first,), (last,) = looks[0]["running"], looks[-1]["running"]
            assert last["run"]["pid"] == run.pid
            assert last["run"]["strategy"] == "slow"
            assert last["report"]["domains"]["candle"]["reads"] >= first["report"]["domains"]["candle"]["reads"] > 0
            assert last["report"]["domains"]["candle"]["writes"] == 60 * 1440
        with Watching(cli) as watching:
            watching.shows(f"process {run.pid}")
            watching.shows("now: ")
        run.send_signal(signal.SIGINT)
        assert run.wait(120) == 130
    finally:
        run.kill()
        run.communicate()
    assert list(cli.last_run.parent.iterdir()) == []


def test_what_a_killed_run_left_behind_is_not_at_work(cli):
    left = cli.last_run.with_name("running-1.json")
    left.parent.mkdir(parents=True)
    report = {"seconds": 1.0, "domains": {}}
    run = {"strategy": "left", "symbol": "X", "exchange": "x", "pid": 1}
    left.write_text(json.dumps({"saved": "2023-03-01", "run": run, "report": report}))
    os.utime(left, (time.time() + 3600, time.time() + 3600))  # it must not expire before a busy machine has looked at it
    with Watching(cli) as watching:
        watching.shows("Running: left on X x")
        os.utime(left, (time.time() - 60, time.time() - 60))
        watching.shows("No run is active")
    cli(*BACKTEST, "--synthetic-days", "1")
    assert not left.exists()


def test_watch_goes_on_without_servers(lonely, tmp_path):
    with Watching(lonely) as watching:
        watching.shows("MongoDB did not answer in time", 2)
        watching.shows("Redis does not answer", 2)
        watching.shows("Redis: away", 2)
    with RedisServer(tmp_path / "redis") as server, Watching(lonely, CC_REDIS_HOST=server.socket) as watching:
        watching.shows("Redis holds 0 keys", 2)


def test_the_state_folder_is_that_of_the_user(cli):
    elsewhere = cli.home / "elsewhere"
    file = klines(cli.home / "BTCUSDT.csv", 60)
    cli(*BACKTEST, "--csv", file, XDG_STATE_HOME=str(elsewhere))
    assert [path.name for path in (elsewhere / "backtest-kit-mongo").iterdir()] == ["last-run.json"]
    output = cli.err(*BACKTEST, "--csv", file, XDG_STATE_HOME=file)  # not a folder
    assert "not kept for `stats`" in output
    assert not cli.last_run.exists()


# --- flush-cache ---


def test_flush_cache_drops_our_ids_alone(cli, cache, database):
    ours = {f"{domain.prefix}:a:b": "1" for domain in DOMAINS.values()}
    foreign = {"foreign": "1", "signal_cache": "1", "signal_cached:x": "1", "my_signal_cache:x": "1", "other_cache:x": "1"}
    cache.mset(ours | foreign)
    assert f"{len(ours)} ids dropped" in cli.out("flush-cache")
    assert {key.decode() for key in cache.keys("*")} == set(foreign)
    assert "0 ids dropped" in cli.out("flush-cache")
    assert database.list_collection_names() == []


def test_flush_cache_without_mongodb(cli):
    """It drops the ids, and then says that MongoDB could not be reached."""
    here = cli.environment["CC_REDIS_HOST"]
    ended = cli("flush-cache", "--mongo", NOWHERE["CC_MONGO_CONNECTION_STRING"], "--redis-host", here, code=1)
    assert "0 ids dropped" in ended.out
    assert "MongoDB" in ended.err


def test_flush_cache_drops_packed_candles(cli, database):
    cli("candles", "import", klines(cli.home / "a.csv", 8192), "--symbol", "BTCUSDT")
    assert "2 packed blocks of candles dropped" in cli.out("flush-cache")
    assert "0 packed blocks of candles dropped" in cli.out("flush-cache")
    assert database["candle-items"].count_documents({}) == 8192
    assert database["candle-blocks"].count_documents({"codec": {"$exists": True}}) == 0


# --- candles pack and verify ---


def test_pack_and_verify(cli, database):
    """Verify exits with 1 if a block was wrong, names it, and drops it."""
    assert "no candles are stored" in cli.out("candles", "pack")
    assert "no candles are stored that match the options" in cli.out("candles", "verify", "--symbol", "BTCUSDT")
    cli("candles", "import", klines(cli.home / "a.csv", 8192), "--symbol", "BTCUSDT")
    cli("flush-cache")
    packed = cli("candles", "pack")
    assert "2 blocks packed, of 1 series" in packed.out
    assert "Packing candles" in packed.err
    assert "0 blocks packed: there was nothing left to do" in cli.out(
        "candles", "pack", "--symbol", "BTCUSDT", "--interval", "1m", "--exchange", "binance"
    )
    assert ", 0 wrong" in cli.out("candles", "verify")
    middle = database["candle-blocks"].find_one({}, sort=[("block", -1)])["block"] * 4096 * 60_000
    assert database["candle-items"].update_one({"timestamp": middle}, {"$set": {"close": 1.0}}).modified_count == 1
    shown = cli.out("candles", "verify", code=1)
    assert "of BTCUSDT 1m on binance: 0 of its candles are no longer stored, 1 have other values; dropped" in shown
    assert ", 1 wrong" in shown
    assert ", 0 wrong" in cli.out("candles", "verify")


def test_the_archive(cli, database):
    """Pack to it, look at it, damage it, remove the damaged block, import again, and unpack."""
    packed = {"CC_CANDLE_FORMAT": "packed"}
    file = klines(cli.home / "a.csv", 8192)
    cli("candles", "import", file, "--symbol", "BTCUSDT")
    assert "no candles are in the archive" in cli.out("candles", "unpack")
    assert "blocks would be moved to the archive, of 1 series" in cli.out("candles", "pack", "--dry-run", **packed)
    assert database["candle-items"].count_documents({}) == 8192
    assert "3 blocks moved to the archive, of 1 series" in cli.out("candles", "pack", **packed)
    assert "0 packed blocks of candles dropped" in cli.out("flush-cache")
    assert database["candle-items"].count_documents({}) == 0
    stored = json.loads(cli.out("stats", "--json"))["stored"]
    assert stored["domains"]["candle archive"]["documents"] == 3
    assert [(row["documents"], row["archivedBlocks"], row["archivedCandles"]) for row in stored["candles"]] == [(0, 3, 8192)]
    assert "3 blocks with the only copies of candles" in cli.out("doctor")
    assert ", 0 wrong" in cli.out("candles", "verify")
    assert "8,192" in cli.out("candles", "list")
    block = database["candle-archive"].find_one({"codec": {"$exists": True}}, sort=[("block", 1)])
    database["candle-archive"].update_one({"_id": block["_id"]}, {"$set": {"checksum": 1}})
    assert "its candles are stored nowhere else" in cli.out("candles", "verify", code=1)
    assert "the checksum does not match" in cli.err("candles", "list", code=1)
    command = ("candles", "remove", "BTCUSDT", "--exchange", "binance", "--until", f"{(block['block'] + 1) * 4096 * 60_000}")
    assert "cannot be counted" in cli.out(*command)
    assert "removed" in cli.out(*command, "--yes")
    assert ", 0 wrong" in cli.out("candles", "verify")
    assert f"{block['runs'][0][1]:,} new" in cli.out("candles", "import", file, "--symbol", "BTCUSDT", **packed)
    assert "CC_CANDLE_FORMAT is still packed" in cli.out("candles", "unpack", **packed)
    assert database["candle-items"].count_documents({}) == 8192
    assert "CC_CANDLE_FORMAT" in cli.err("doctor", code=1, CC_CANDLE_FORMAT="1")


# --- candles import ---


def test_import_says_how_many_were_new(cli, database):
    command = ("candles", "import", klines(cli.home / "a.csv", 100), "--symbol", "BTCUSDT")
    first = cli(*command)
    assert "100 candles of BTCUSDT 1m on binance, 2023-03-01 00:00 to 2023-03-01 01:40 UTC: 100 new, 0 stored" in first.out
    assert "Importing candles" in first.err
    assert "0 new, 100 stored before" in cli.out(*command)
    more = ("candles", "import", klines(cli.home / "b.csv", 150, without=(120, 121)), "--symbol", "BTCUSDT")
    shown = cli.out(*more)
    assert "48 new, 100 stored before" in shown
    assert "gap: 2 candles are missing from 2023-03-01T02:00:00Z to 2023-03-01T02:02:00Z" in shown
    assert database["candle-items"].count_documents({}) == 148
    assert "'7m' is not one of '1m', '3m'" in cli.err(*command, "--interval", "7m", code=2)


def change_volumes(file, *lines):
    """Add 1 to the volume in lines of a file of candles."""
    rows = [line.split(",") for line in Path(file).read_text().splitlines()]
    for line in lines:
        rows[line][5] = str(float(rows[line][5]) + 1)
    Path(file).write_text("\n".join(map(",".join, rows)))


def test_import_replaces_what_differs(cli, database):
    cli("candles", "import", klines(cli.home / "a.csv", 100), "--symbol", "BTCUSDT")
    change_volumes(file := klines(cli.home / "b.csv", 120), 3, 50, 51, 99)
    command = ("candles", "import", file, "--symbol", "BTCUSDT")
    refused = cli.err(*command, code=1)
    assert "4 of 120 candles of BTCUSDT 1m are stored on 'binance' with other values" in refused
    assert "candles import --replace" in refused
    before = {row["timestamp"]: row["volume"] for row in database["candle-items"].find({})}
    shown = cli.out(*command, "--replace")
    assert "2023-03-01T00:02:00Z stored: volume" in shown
    assert "and 1 more" in shown
    assert "20 new, 96 stored before, 4 stored with other values" in shown
    assert "nothing was written: --yes replaces 4 candles and adds 20" in shown
    assert {row["timestamp"]: row["volume"] for row in database["candle-items"].find({})} == before
    done = cli.out(*command, "--replace", "--yes")
    assert "4 stored with other values" in done
    assert "nothing was written" not in done
    after = {row["timestamp"]: row["volume"] for row in database["candle-items"].find({})}
    assert len(after) == 120
    assert sum(after[stamp] == before[stamp] + 1 for stamp in before) == 4
    assert "0 new, 120 stored before" in cli.out(*command, "--replace", "--yes")
    assert "belongs to --replace" in cli.err(*command, "--yes", code=2)


def test_refresh_asks_the_exchange_again(cli, database):
    """The local exchange has candles of the real ones' form; two that are stored have other values, one is missing."""
    prices = synthetic_market(5, 400, 1_677_628_800_000)
    with ExchangeServer(Exchange({"BTCUSDT": prices}, now_ms=1_677_628_800_000 + 400 * 60_000)) as server:
        command = ("candles", "refresh", "BTCUSDT", "--exchange", "binance", "--since", "2023-03-01", "--exchange-url", server.url)
        assert "300 new" in cli.out(*command, "--until", "2023-03-01T05:00", "--yes")
        items = database["candle-items"]
        before = {row["timestamp"]: row["close"] for row in items.find({})}
        minute = 1_677_628_800_000 + 60_000 * 100
        items.update_many({"timestamp": {"$in": [minute, minute + 60_000]}}, {"$set": {"close": 1.5}})
        items.delete_one({"timestamp": minute + 120_000})
        shown = cli.out(*command, "--until", "2023-03-01T05:00")
        assert "2023-03-01T01:40:00Z stored: close 1.5; new: close" in shown
        assert "1 new, 297 stored before, 2 stored with other values" in shown
        assert "nothing was written: --yes replaces 2 candles and adds 1" in shown
        assert items.count_documents({"close": 1.5}) == 2
        cli("candles", "refresh", "BTCUSDT", "--exchange", "binance", "--since", "2023-03-01", "--until", "2023-03-01T01:00",
            "--exchange-url", server.url, "--yes")  # fmt: skip
        assert items.count_documents({"close": 1.5}) == 2  # outside the window
        cli(*command, "--until", "2023-03-01T05:00", "--yes")
        assert {row["timestamp"]: row["close"] for row in items.find({})} == before
        assert "0 new, 300 stored before" in cli.out(*command, "--until", "2023-03-01T05:00")
        server.exchange.now_ms = 1_677_628_800_000 + 32 * 1440 * 60_000
        assert "1 candle of BTCUSDT 1M on binance" in cli.out(*command, "--interval", "1M")  # until now, of any interval


def test_import_of_a_folder_of_late_candles_without_volume(cli, database):
    """Symbol and interval come from the names; what was done with the candles is said before anything is stored."""
    months = cli.home / "months"
    months.mkdir()
    rows = [line.split(",")[:5] for line in Path(klines(cli.home / "a.csv", 60)).read_text().splitlines()[1:]]
    rows[3][0] = rows[3][0].replace(":00+", ":14.8+")
    for name, part in (("2023-01", rows[:35]), ("2023-02", rows[25:])):
        (months / f"BTCUSDT-1m-{name}.csv").write_text("\n".join(map(",".join, part)))
    (months / "readme.md").write_text("no candles")
    command = ("candles", "import", str(months))
    assert "column volume is missing" in (output := cli.err(*command, code=1))
    assert "--no-volume" in output
    assert "BTCUSDT-1m-2023-01.csv, line 4: open_time 2023-03-01T00:03:14.800Z" in (output := cli.err(*command, "--no-volume", code=1))
    assert "--off-grid skip" in output
    assert database.list_collection_names() == []
    ended = cli(*command, "--no-volume", "--off-grid", "snap")
    shown = ended.out + ended.err
    assert f"read: {months}/BTCUSDT-1m-2023-01.csv (CSV, 5 columns without a header)" in shown
    assert "note: 10 candles are in two files with the same values, read once" in shown
    assert "2023-01.csv: 1 off the 1m grid, moved back to it" in shown
    assert "60 candles of BTCUSDT 1m on binance, 2023-03-01 00:00 to 2023-03-01 01:00 UTC: 60 new" in shown
    assert "'--off-grid'" in cli.err(*command, "--off-grid", "round", code=2)
    assert "0 new, 60 stored before" in cli.out(
        *BACKTEST, "--csv", str(months), "--symbol", "BTCUSDT", "--exchange", "binance", "--no-volume", "--off-grid", "snap"
    )


# --- doctor ---


def test_doctor_changes_nothing(cli, database, cache):
    cache.set("signal_cache:a", "garbage")
    shown = json.loads(cli.out("doctor", "--json"))
    assert shown["ok"]
    assert shown["mongodb"]["version"].startswith("6.")
    server = cache.info("server")
    assert shown["redis"]["server"] == ("Valkey" if "valkey_version" in server else "Redis")
    assert shown["redis"]["version"] == server.get("valkey_version", server["redis_version"])
    assert 0 < shown["redis"]["roundTripUs"] < 1e6
    assert shown["durability"]["setting"] == cli.environment["CC_DURABILITY"]
    assert set(shown["missingIndexes"]) == set(DOMAINS)
    text = cli.out("doctor")
    if "valkey_version" in server:
        assert f"ok: Valkey version {server['valkey_version']}, round trip" in text
    assert "complete in 0 of 17" in text
    assert "Everything is in order" in text
    assert database.list_collection_names() == []
    assert cache.keys("*") == [b"signal_cache:a"]


def test_doctor_is_content_after_a_run(cli):
    cli(*BACKTEST, "--csv", klines(cli.home / "BTCUSDT.csv", 60))
    assert json.loads(cli.out("doctor", "--json"))["missingIndexes"] == {}


def test_doctor_finds_a_legacy_index_and_the_command_that_mends_it(cli, database):
    database["session-items"].create_index([("strategyName", 1), ("exchangeName", 1), ("frameName", 1)], unique=True)
    text = cli.out("doctor", code=1)
    assert "Something is wrong" in text
    command = 'db.getCollection("session-items").dropIndex("strategyName_1_exchangeName_1_frameName_1")'
    assert command in text
    (problem,) = json.loads(cli.out("doctor", "--json", code=1))["problems"]
    assert problem["domain"] == "session"
    assert problem["command"] == command
    assert "symbol" in problem["problem"]
    # A run fails with the same command in its error.
    assert command in cli.err(*BACKTEST, "--synthetic-days", "1", code=1)
    database["session-items"].drop_index("strategyName_1_exchangeName_1_frameName_1")
    cli("doctor")


def test_doctor_finds_duplicates(cli, database):
    ids = database["state-items"].insert_many([{"signalId": "a", "bucketName": "b", "payload": {}} for _ in range(2)]).inserted_ids
    (problem,) = json.loads(cli.out("doctor", "--json", code=1))["problems"]
    assert "2 documents with the same key (signalId='a', bucketName='b')" in problem["problem"]
    assert sum(str(value) in problem["command"] for value in ids) == 1
    assert "deleteMany" in problem["command"]
    assert database["state-items"].count_documents({}) == 2


def test_doctor_names_both_silent_servers(lonely):
    text = lonely.out("doctor", "--timeout", "0.5", code=1)
    assert re.search(r"MongoDB +FAILED", text)
    assert re.search(r"Redis +FAILED", text)
    shown = json.loads(lonely.out("doctor", "--timeout", "0.5", "--json", code=1))
    assert (shown["ok"], shown["mongodb"]["ok"], shown["redis"]["ok"]) == (False, False, False)


# --- secrets ---


def test_passwords_are_not_printed(cli, tmp_path):
    with RedisServer(tmp_path / "guarded", password=SECRET) as server:
        right = {"CC_REDIS_HOST": server.socket, "CC_REDIS_PASSWORD": SECRET}
        wrong = {"CC_REDIS_HOST": server.socket, "CC_REDIS_PASSWORD": SECRET + "x"}
        uri = cli.environment["CC_MONGO_CONNECTION_STRING"]
        locked = {"CC_MONGO_CONNECTION_STRING": uri.replace("//", f"//somebody:{SECRET}@")}  # this mongod has no such user
        invalid = {"CC_MONGO_CONNECTION_STRING": f"mongodb://somebody:{SECRET}/@x"}
        runs = [
            cli("doctor", **right),
            cli("stats", "--json", **right),
            cli("run", str(EXAMPLE), "--backtest", **right, **locked),
            cli("doctor", "--debug", code=1, **wrong),
            cli("flush-cache", "--debug", code=1, **wrong),
            cli("doctor", "--debug", code=1, **locked),
            cli("stats", "--debug", code=1, **locked),
            cli(*BACKTEST, "--synthetic-days", "1", "--debug", code=1, **locked),
            cli("doctor", "--debug", "--mongo", invalid["CC_MONGO_CONNECTION_STRING"], code=1),
        ]
    for run in runs:
        assert SECRET not in run.out + run.err, run.args
    assert "somebody:***@" in runs[2].out
    assert "rejected the login" in runs[3].out


# --- embedded servers, and the end of a process ---


def test_embedded_servers_end_with_the_command_and_keep_the_data(lonely):
    folder = lonely.home / "servers"
    shown = lonely.out(*BACKTEST, "--synthetic-days", "1", "--embedded", "--embedded-dir", str(folder), XDG_STATE_HOME="")
    assert "1,440 new" in shown
    assert not answers(folder / "mongo" / "mongo.sock")
    assert not answers(folder / "redis" / "redis.sock")
    stored = json.loads(lonely.out("stats", "--json", CC_EMBEDDED="1", CC_EMBEDDED_DIR=str(folder)))
    assert stored["stored"]["domains"]["candle"]["documents"] == 1440


def test_doctor_tries_embedded_servers_without_leaving_a_folder(lonely):
    folder = lonely.home / "not-yet"
    shown = json.loads(lonely.out("doctor", "--json", "--embedded-dir", str(folder)))
    assert shown["ok"]
    assert shown["embedded"]
    assert "does not exist yet" in shown["note"]
    assert not folder.exists()
    assert not Path(shown["redis"]["address"]).parent.exists()


def test_named_servers_win_over_the_environments_embedded_ones(cli):
    environment = {"CC_EMBEDDED": "1", "CC_EMBEDDED_DIR": str(cli.home / "servers")}
    shown = json.loads(cli.out("doctor", "--json", "--mongo", cli.environment["CC_MONGO_CONNECTION_STRING"], **environment))
    assert not shown["embedded"]
    assert not (cli.home / "servers").exists()


def test_interrupted_in_the_middle_of_a_run(lonely):
    folder = lonely.home / "servers"
    process = lonely.start(*BACKTEST, "--synthetic-days", "400", "--embedded", "--embedded-dir", str(folder))
    try:
        deadline = time.monotonic() + 120
        while not answers(folder / "redis" / "redis.sock") or not (folder / "servers.json").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.rstrip().endswith("error: interrupted; stored records are kept")
    assert "Traceback" not in out + err
    assert not answers(folder / "mongo" / "mongo.sock")
    assert not answers(folder / "redis" / "redis.sock")
