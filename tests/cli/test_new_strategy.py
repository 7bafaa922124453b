"""``new-strategy``: a copy of the package's example as the user's own file."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from command import Cli
from paths import ROOT
from typer.testing import CliRunner

from backtest_kit_mongo.cli.app import app

pytestmark = [pytest.mark.once, pytest.mark.server]

EXAMPLE = ROOT / "src" / "backtest_kit_mongo" / "examples" / "sma_cross.py"


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


def commands(shown):
    """Return the printed command lines that the user can try next."""
    return [shlex.split(line)[1:] for line in shown.splitlines() if " --embedded " in line]


def test_the_file_is_the_example(cli):
    shown = cli.out("new-strategy", "mine.py")
    example = EXAMPLE.read_text()
    assert example == (ROOT / "examples" / "sma_cross.py").read_text()
    assert (cli.home / "mine.py").read_text() == example.replace("examples/sma_cross.py", "mine.py") != example
    assert [command[:2] for command in commands(shown)] == [["run", "mine.py"], ["sweep", "mine.py"]]


def test_the_printed_commands_run(cli):
    """They also run for a file name that a shell would split."""
    run, sweep = commands(cli.out("new-strategy", "my strategy.py"))
    folder = ("--embedded-dir", "servers")
    shown = cli.out(*run[:-1], "1", *folder)
    assert "sma_cross of my strategy.py" in shown
    assert "FAST" in cli.out(*sweep[:-1], "1", *folder)


def test_a_file_that_is_there_stays_unless_forced(cli):
    file = cli.home / "mine.py"
    file.write_text("precious")
    said = cli.err("new-strategy", "mine.py", code=1)
    assert "mine.py already exists" in said
    assert "--force" in said
    assert file.read_text() == "precious"
    cli("new-strategy", "mine.py", "--force")
    assert file.read_text() == EXAMPLE.read_text().replace("examples/sma_cross.py", "mine.py")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nowhere/mine.py", "there is no folder nowhere"),
        ("mine", "must end in .py, got mine"),
        ("mine.txt", "must end in .py, got mine.txt"),
        (".py", "must end in .py, got .py"),
    ],
)
def test_what_cannot_be_a_strategy_file_is_refused(cli, file, words):
    assert words in cli.err("new-strategy", file, code=1)
    assert list(cli.home.iterdir()) == []


def test_a_folder_of_that_name_is_refused_also_with_force(cli):
    (cli.home / "mine.py").mkdir()
    assert "it is a folder" in cli.err("new-strategy", "mine.py", "--force", code=1)


def test_it_has_no_options_of_servers():
    shown = CliRunner().invoke(app, ["new-strategy", "--help"], env={"COLUMNS": "120"}).output
    assert "--debug" in shown
    for option in ("--mongo", "--redis-host", "--embedded", "--timeout", "Servers"):
        assert option not in shown


def test_the_library_does_not_import_the_example():
    code = "import sys, backtest_kit_mongo.cli.app; assert 'backtest_kit_mongo.examples' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
