"""README: every code sample and every command runs, and its tables match the code."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT
from shared_folder import made_once

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.runner import clear_strategies, list_strategies, synthetic_market

pytestmark = [pytest.mark.once, pytest.mark.server]

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("  #")[0].strip() for kind, block in BLOCKS if kind == "console" for line in block.splitlines() if line.strip()]
START = 1_677_628_800_000


def tables():
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "tools" / "readme_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_is_left_to_fill_in():
    assert not re.search(r"\b[A-Z]+_(SECTION|TABLE)\b|TODO|TBD", README)


def test_tables_are_what_the_code_says():
    """``python tools/readme_tables.py`` prints the tables that README must contain."""
    assert tables().contracts() in README
    assert tables().settings() in README
    assert len(DOMAINS) == 17


def test_python_samples_run(monkeypatch, tmp_path):
    """All samples run one after the other, as a reader would paste them without any server running."""
    monkeypatch.setenv("CC_EMBEDDED", "1")  # also for samples that call setup() without arguments
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    samples = [block for kind, block in BLOCKS if kind == "python"]
    assert len(samples) >= 5
    scope: dict[str, object] = {"__name__": "readme"}
    try:
        for sample in samples:
            exec(compile(sample, "README.md", "exec"), scope)
        assert [strategy.name for strategy in list_strategies()] == ["three_up"]
    finally:
        clear_strategies()
        kit.close()
        kit.reset_stats()


def test_the_first_sample_runs_where_nothing_runs(tmp_path):
    """The first sample runs alone, in a process without any setting."""
    first = next(block for kind, block in BLOCKS if kind == "python")
    assert "setup(embedded=True)" in first
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")}
    environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    subprocess.run([sys.executable, "-c", first], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert (tmp_path / "data" / "backtest-kit-mongo" / "mongo").is_dir()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the example, a CSV under the name that README uses, and what later commands read."""

    def make(folder):
        shutil.copytree(ROOT / "examples", folder / "examples")
        with gzip.open(folder / "BTCUSDT-1m.csv.gz", "wt") as file:
            file.write("open_time,open,high,low,close,volume\n")
            for row in synthetic_market(7, 3000, START).tolist():
                file.write(",".join(map(str, row)) + "\n")
        imported = next(command for command in COMMANDS if " candles import " in command)
        copied = next(command for command in COMMANDS if "--to file:./dump" in command)
        for first in (f"{RUN} --csv BTCUSDT-1m.csv.gz", imported, copied):
            done = shell(first, folder)
            assert done.returncode == 0, done.stdout + done.stderr

    # The workers of a run write to the folder, so each gets a copy.
    return shutil.copytree(made_once(tmp_path_factory, "readme", make), tmp_path_factory.mktemp("readme") / "folder")


RUN = "backtest-kit-mongo run examples/sma_cross.py --backtest --entry --embedded"


def shell(command, folder):
    """Run a command with embedded servers in a folder of the test."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")}
    environment |= {"CC_EMBEDDED_DIR": str(folder / "servers"), "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "120"}
    environment["XDG_DATA_HOME"] = str(folder / "data")
    program = str(Path(sys.executable).with_name("backtest-kit-mongo"))
    return subprocess.run(
        [program, *command.split()[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def of_ours():
    return [command for command in COMMANDS if command.startswith("backtest-kit-mongo ")]


@pytest.mark.parametrize("command", of_ours())
def test_command_runs(command, folder):
    result = shell(command, folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip()


def test_commands_are_there_to_be_tested():
    verbs = {command.split()[1] for command in of_ours()}
    assert verbs == {"demo", "runs", "run", "candles", "doctor", "stats", "flush-cache", "copy", "export", "sweep"}


def test_other_commands_are_make_targets_or_the_installation():
    """Continuous integration runs ``make demo`` and ``make test``; here they only have to exist."""
    makefile = (ROOT / "Makefile").read_text()
    others = [command for command in COMMANDS if not command.startswith("backtest-kit-mongo ")]
    targets = [command.split()[1] for command in others if command.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert [command for command in others if not command.startswith("make ")] == ['pip install "backtest-kit-mongo[embedded,cli]"']
