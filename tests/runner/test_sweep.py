"""Sweeps: many runs in processes on real servers. Their rows never mix, and their results depend only on their parameters."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from command import Cli
from dask_cluster import local_cluster
from prepared import processes

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError, NotConfiguredError, ServerUnavailableError
from backtest_kit_mongo.runner import (
    StrategyError,
    SweepResult,
    SweepRun,
    add_strategy,
    clear_strategies,
    import_candles,
    list_strategies,
    load_strategy_file,
    parameter,
    run_backtest,
    sweep,
    synthetic_market,
)
from backtest_kit_mongo.runner.backtest import sweep as sweep_module
from backtest_kit_mongo.runner.backtest.cluster import cluster_executor
from backtest_kit_mongo.runner.backtest.sweep import SLOTS
from backtest_kit_mongo.runner.engine.result import Totals, add_up
from backtest_kit_mongo.runner.loading.parameters import check_parameters, given_parameters
from backtest_kit_mongo.runner.loading.strategy_file import nothing_registered

pytestmark = [pytest.mark.once, pytest.mark.slow]

START = 1_677_628_800_000
MINUTES = 1440
GRID = {"EVERY": [3, 5], "SIDE": ["long", "short"]}

STRATEGY = """
import math, os, pathlib, sys, time
import beside
from backtest_kit_mongo.runner import add_strategy, get_candles, parameter

EVERY = parameter("EVERY", 5)
SIDE = parameter("SIDE", "long")
TROUBLE = parameter("TROUBLE", "none")
PAUSE = parameter("PAUSE", 0.0)

if TROUBLE == "load":
    raise ValueError("this file does not load")

@add_strategy("every", interval="15m")
def get_signal(symbol, when):
    if TROUBLE == "raise":
        raise ValueError("this strategy raises")
    if TROUBLE == "die":
        os._exit(7)
    if PAUSE:
        pathlib.Path(__file__).with_name("begun").touch()
        time.sleep(PAUSE)
    if (when.hour * 4 + when.minute // 15) % EVERY or beside.EVERY != EVERY:
        return None
    price, way = get_candles(symbol, "1m", 1)[-1]["close"], 1 if SIDE == "long" else -1
    return {"position": SIDE, "priceTakeProfit": price * (1 + way * 0.004), "priceStopLoss": price * (1 - way * 0.003),
            "minuteEstimatedTime": 60 * beside.HOURS}
"""
BESIDE = """
from backtest_kit_mongo.runner import add_risk, parameter
add_risk("every", max_positions=1)
EVERY = parameter("EVERY", 5)
HOURS = parameter("HOURS", 2)
"""


@pytest.fixture
def file(tmp_path):
    """A strategy with parameters, and a module next to it that reads one of them as well."""
    (tmp_path / "beside.py").write_text(BESIDE)
    path = tmp_path / "strategy.py"
    path.write_text(STRATEGY)
    clear_strategies()
    yield path
    clear_strategies()
    sys.modules.pop("beside", None)
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


@pytest.fixture
def prepared(monkeypatch):
    """Processes of a sweep fork from one that has imported the library. Like new interpreters they share nothing with this one."""
    monkeypatch.setattr(sweep_module, "multiprocessing", SimpleNamespace(get_context=lambda method: processes))


@pytest.fixture
def market(mongo):
    """One day of candles of two symbols, on a new database."""
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        import_candles(synthetic_market(seed, MINUTES, START), symbol)


def frames():
    """Return the frame names of the runs that have left records."""
    return set(kit.get_mongo()["recent-items"].distinct("frameName"))


# --- parameters ---


def test_a_parameter_is_its_default_where_nobody_gives_another():
    assert (parameter("A", 12), parameter("A", 1.5), parameter("A", "text"), parameter("A", True)) == (12, 1.5, "text", True)


def test_a_parameter_has_the_type_of_its_default():
    with given_parameters({"I": "7", "F": 2, "B": "off", "S": "12", "E": "1e3"}) as registered:
        values = (parameter("I", 1), parameter("F", 1.0), parameter("B", True), parameter("S", "x"), parameter("E", 0.5))
        assert list(map(repr, values)) == ["7", "2.0", "False", "'12'", "1000.0"]
        assert registered == {"I": 1, "F": 1.0, "B": True, "S": "x", "E": 0.5}
    assert parameter("I", 1) == 1


@pytest.mark.parametrize(
    ("given", "default"),
    [("x", 1), ("1.5", 1), (1.5, 1), (True, 1), (1, True), ("maybe", True), ("nan", 1.0), (1e999, 1.0), (5, "x")],
)
def test_a_value_of_another_type_is_refused(given, default):
    with given_parameters({"A": given}), pytest.raises(InvalidValueError, match="parameter 'A' must be of type"):
        parameter("A", default)


def test_an_unknown_parameter_is_answered_with_the_known_ones():
    with pytest.raises(InvalidValueError, match=r"no parameter 'FSAT'\n.*did you mean FAST\? Known: FAST=12, SLOW=48"):
        check_parameters({"FSAT": 1}, {"FAST": 12, "SLOW": 48})
    with pytest.raises(InvalidValueError, match="none are declared"):
        check_parameters({"FAST": 1}, {})


def test_one_name_has_one_default():
    with given_parameters({}):
        parameter("A", 1)
        parameter("A", 1)
        with pytest.raises(InvalidValueError, match=r"'A' has the default True at .*test_sweep.py:\d+, but 1 at"):
            parameter("A", True)


@pytest.mark.parametrize("default", [None, [1], b"x"])
def test_a_parameter_is_a_number_or_text(default):
    with pytest.raises(InvalidTypeError, match="bool, int, float or str as its default"):
        parameter("A", default)


# --- results do not depend on how they are computed ---


def test_results_are_those_of_single_runs_whatever_the_number_of_workers(market, file):
    drawn = []
    one = sweep(file, GRID, symbols=["BTCUSDT", "ETHUSDT"], workers=1, progress=lambda *counts: drawn.append(counts))
    two = sweep(file, GRID, symbols=["BTCUSDT", "ETHUSDT"], workers=2)
    assert one.to_json() == two.to_json()
    assert drawn == [(done, 8) for done in range(9)]
    assert [(run.symbol, *run.parameters.values()) for run in one.runs] == [
        (symbol, every, side) for symbol in ("BTCUSDT", "ETHUSDT") for every in (3, 5) for side in ("long", "short")
    ]
    for run in one.runs:
        with nothing_registered(), given_parameters(run.parameters):
            sys.modules.pop("beside", None)
            load_strategy_file(file)
            assert run_backtest(run.symbol).totals == run.totals
        assert run.totals.trades > 3
    assert len({run.totals for run in one.runs}) == 8


def test_runs_have_records_of_their_own(market, file, prepared):
    result = sweep(file, GRID, workers=2, frame_name="march")
    names = {run.frame_name for run in result.runs}
    assert len(names) == 4
    assert all(name.startswith("march.") for name in names)
    assert frames() == names
    database = kit.get_mongo()
    for name in SLOTS:
        assert database[DOMAINS[name].collection].count_documents({}) == 0, name
    closed = database["storage-items"].count_documents({"payload.status": "closed"})
    assert closed == sum(run.totals.trades for run in result.runs)
    assert set(database["recent-items"].distinct("strategyName")) == {"every"}
    before = database["recent-items"].count_documents({})
    assert sweep(file, {"EVERY": [5, 3], "SIDE": ["short"]}, frame_name="march").runs[1].frame_name == result.runs[1].frame_name
    assert database["recent-items"].count_documents({}) == before


def test_a_sweep_with_the_stores_of_a_backtest(settings, file, tmp_path, prepared):
    """The processes share the file of the log, and each has its rows in memory."""
    results = []
    for mode in ("", "backtest"):
        kit.setup(settings, mode=mode, CC_DUMP_DIR=tmp_path / "dump")
        import_candles(synthetic_market(0, MINUTES, START), "BTCUSDT")
        results.append(sweep(file, GRID, workers=2))
    assert results[0] == results[1]
    lines = [line for path in (tmp_path / "dump").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert {json.loads(line)["methodContext"]["frameName"] for line in lines} == {run.frame_name for run in results[1].runs}


def test_nothing_of_the_file_stays_behind(market, file, prepared):
    @add_strategy("mine")
    def mine(symbol, when):
        return None

    sweep(file, {"EVERY": [3]}, workers=1)
    assert [strategy.name for strategy in list_strategies()] == ["mine"]
    assert "beside" not in sys.modules


# --- failures ---


def test_a_run_that_fails_is_a_row_and_the_others_go_on(market, file, prepared):
    runs = sweep(file, {"TROUBLE": ["raise", "none", "load", "die"], "EVERY": [3, 5]}, workers=2).runs
    texts = {"raise": "this strategy raises", "load": "this file does not load", "die": "the process of this run died"}
    for run in runs:
        trouble = run.parameters["TROUBLE"]
        if trouble == "none":
            assert run.error is None
            assert run.totals.trades > 3
        else:
            assert texts[trouble] in run.error
            assert run.totals is None
    assert [run.parameters["TROUBLE"] for run in runs[::2]] == ["raise", "none", "load", "die"]


@pytest.mark.parametrize(
    ("grid", "others", "error"),
    [
        ({"EVRY": [3]}, {}, "did you mean EVERY"),
        ({"EVERY": [3, "x"]}, {}, "must be of type int"),
        ({"EVERY": "35"}, {}, "must be a list"),
        ({"EVERY": []}, {}, "must be a list"),
        ({"EVERY": [3, 3]}, {}, "twice"),
        ({"EVERY": [3, "03"]}, {}, "twice"),
        ([3], {}, "must be a dict"),
        ({}, {"symbols": "BTCUSDT"}, "list of names"),
        ({}, {"symbols": ["BTCUSDT", "XRPUSDT"]}, "XRPUSDT"),
        ({}, {"workers": 0}, "at least 1"),
        ({}, {"frame_name": ""}, "frame_name"),
        ({}, {"strategy_name": "other"}, "no strategy 'other'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_swept_is_refused_before_the_first_run(market, file, grid, others, error, prepared):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=error):
        sweep(file, grid, **others)
    assert frames() == set()


def test_a_file_that_does_not_load_is_refused(market, file):
    file.write_text("1 / 0")
    with pytest.raises(StrategyError, match=r"strategy.py:1: ZeroDivisionError"):
        sweep(file, {})


def test_a_sweep_needs_settings_and_candles_that_others_can_see(file, settings):
    kit.close()
    with pytest.raises(NotConfiguredError):
        sweep(file, {})
    kit.setup(settings, stores={"candle": "memory"})
    with pytest.raises(InvalidValueError, match="cannot see candles in the memory"):
        sweep(file, {})


def test_an_executor_of_threads_is_refused(market, file):
    with ThreadPoolExecutor(1) as threads, pytest.raises(InvalidTypeError, match="executor of other processes"):
        sweep(file, {"EVERY": [3]}, executor=threads)


def test_a_program_without_its_guard_is_told(market, settings, file):
    program = file.with_name("program.py")
    text = f"import backtest_kit_mongo as kit\nfrom backtest_kit_mongo.runner import sweep\nkit.setup({settings!r})\n"
    program.write_text(text + f"sweep({str(file)!r}, {{'EVERY': [3, 5, 7]}})\n")
    completed = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 1
    assert "the processes of the sweep cannot be started" in completed.stderr
    assert 'below if __name__ == "__main__":' in completed.stderr


# --- resume ---


def test_resume_takes_what_is_finished(market, file, prepared):
    first = sweep(file, {"EVERY": [3, 5], "TROUBLE": ["none", "raise"]}, workers=2)
    counts = []
    again = sweep(file, {"EVERY": [3, 5, 7], "TROUBLE": ["none"]}, workers=1, resume=True, progress=lambda *each: counts.append(each))
    assert counts == [(2, 3), (3, 3)]
    assert again.runs[:2] == (first.runs[0], first.runs[2])
    file.write_text(STRATEGY + "\n# changed")
    sweep(file, {"EVERY": [3]}, workers=1, resume=True, progress=lambda *each: counts.append(each))
    assert counts == [(2, 3), (3, 3), (0, 1), (1, 1)]


def session(path, *arguments):
    """Start the command in a session of its own, so that its processes can be found."""
    return subprocess.Popen(
        [sys.executable, "-m", "backtest_kit_mongo", "sweep", str(path), *arguments],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(group, seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_no_process_outlives_the_command(market, settings, file, number):
    servers = ("--mongo", settings["CC_MONGO_CONNECTION_STRING"], "--redis-host", settings["CC_REDIS_HOST"])
    process = session(file, "--grid", "PAUSE=0.05", "--grid", "EVERY=3,4,5,6", "--workers", "2", *servers)
    deadline = time.monotonic() + 120
    while not file.with_name("begun").exists():
        assert time.monotonic() < deadline, process.communicate()
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # to all of them, as a terminal does
    else:
        process.kill()
    output, errors = process.communicate(timeout=120)
    assert gone(process.pid)
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert "Traceback" not in output + errors
    if number == signal.SIGINT:
        assert "interrupted" in errors


# --- other executors ---


def test_any_executor_of_processes_does(market, file, prepared):
    with ProcessPoolExecutor(2, mp_context=processes) as pool:
        assert sweep(file, GRID, executor=pool) == sweep(file, GRID, workers=1)


def test_a_dask_cluster_gives_the_same(cli, market, settings, file):
    """Runs on a scheduler and two workers, each with two threads, must not mix either."""
    with local_cluster() as cluster, cluster_executor(cluster.scheduler_address) as executor:
        result = sweep(file, GRID, workers=1)
        assert sweep(file, GRID, executor=executor) == result
        servers = ("--mongo", settings["CC_MONGO_CONNECTION_STRING"], "--redis-host", settings["CC_REDIS_HOST"])
        grid = [option for name, values in GRID.items() for option in ("--grid", f"{name}={','.join(map(str, values))}")]
        cli("sweep", file, *grid, *servers, "--cluster", cluster.scheduler_address, "--json", file.with_name("out.json"))
        assert file.with_name("out.json").read_bytes() == result.to_json()


def test_a_cluster_that_is_not_there():
    pytest.importorskip("distributed")
    with pytest.raises(ServerUnavailableError, match="no Dask scheduler answers"), cluster_executor("tcp://127.0.0.1:1", timeout=1):
        pass


# --- the result ---


def made(*profits):
    runs = []
    for number, profit in enumerate(profits):
        totals = None if profit is None else Totals(**{**vars_of(add_up([])), "trades": number, "pnl_percentage": profit})
        runs.append(SweepRun("S", {"A": number}, f"f{number}", 0, 60_000, totals, None if profit is not None else 'failed, "so"\nthere'))
    return SweepResult("s", "e", tuple(runs))


def vars_of(totals):
    return {name: getattr(totals, name) for name in totals.__struct_fields__}


def test_sorting():
    result = made(1.0, None, 3.0, -2.0, 3.0)
    assert [run.parameters["A"] for run in result.sorted_by()] == [2, 4, 0, 3, 1]
    assert [run.parameters["A"] for run in result.sorted_by("trades")] == [4, 3, 2, 0, 1]
    assert [run.parameters["A"] for run in result.sorted_by("losses")] == [0, 2, 3, 4, 1]
    with pytest.raises(InvalidValueError, match=r"cannot be sorted by 'pnl'\n.*pnlPercentage"):
        result.sorted_by("pnl")


def test_table_as_csv_json_and_dataframe():
    result = made(1.0, None)
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [(row["A"], row["pnlPercentage"], row["frameName"], row["error"]) for row in rows] == [
        ("0", "1.0", "f0", ""),
        ("1", "", "f1", 'failed, "so"\nthere'),
    ]
    written = json.loads(result.to_json())
    assert [run["parameters"] for run in written["runs"]] == [{"A": 0}, {"A": 1}]
    assert written["runs"][1]["totals"] is None
    frame = result.to_dataframe()
    assert list(frame["A"]) == [0, 1]
    assert frame["pnlPercentage"][0] == 1.0
    assert list(SweepResult("s", "e", (SweepRun("S", {"symbol": 1}, "f", 0, 1),)).rows()[0])[:2] == ["symbol", "parameter symbol"]


# --- the command ---


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


def test_the_command_prints_and_writes_one_table(cli, settings, file, tmp_path):
    servers = ("--mongo", settings["CC_MONGO_CONNECTION_STRING"], "--redis-host", settings["CC_REDIS_HOST"], "--synthetic-days", "1")
    grid = ("--grid", "EVERY=3,5", "--grid", "TROUBLE=none,raise")
    outputs = []
    for workers in ("1", "2"):
        out, table = tmp_path / f"{workers}.json", tmp_path / f"{workers}.csv"
        shown = cli("sweep", file, *grid, *servers, "--workers", workers, "--json", str(out), "--csv-out", str(table), "--top", "1")
        outputs.append((out.read_bytes(), table.read_bytes()))
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0][0])["runs"]) == 4
    for text in ("Importing candles", "Sweeping"):
        assert text in shown.err
    for text in ("0 new, 1,440 stored before", "The best 1 of 4 runs by pnlPercentage", "2 runs failed", "TROUBLE=raise: strategy 'every'"):
        assert text in shown.out
    cli("sweep", file, "--grid", "TROUBLE=raise", *servers, code=1)
    shown = cli("sweep", file, "--grid", "HOURS=1,2", *servers)  # a parameter of the other module only
    assert {line.split()[1] for line in shown.out.splitlines() if line.startswith("BTCUSDT ")} == {"1", "2"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--grid", "EVERY"), 2, "NAME=A,B"),
        (("--grid", "A=1", "--grid", "A=2"), 2, "given twice"),
        (("--grid", "A=1", "--synthetic-days", "1", "--exchange", "x"), 2, "made-up candles"),
        (("--grid", "A=1", "--csv", "x", "--symbol", "A", "--symbol", "B"), 2, "candles of one symbol"),
        (("--grid", "A=1", "--sort", "luck"), 1, "cannot be sorted by 'luck'"),
        (("--grid", "A=1", "--json", "/nowhere/x.json"), 1, "cannot be written"),
        ((), 2, "--grid"),
    ],
    ids=lambda value: " ".join(value)[-30:] if isinstance(value, tuple) else "",
)
def test_wrong_usage(cli, file, arguments, code, text):
    assert text in cli.err("sweep", str(file), *arguments, code=code)
