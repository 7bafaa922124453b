"""Shell completion, in real shells."""

from __future__ import annotations

import importlib.util
import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from paths import EXAMPLE, ROOT

from backtest_kit_mongo.cli.completion import FILES, VARIABLE, complete
from backtest_kit_mongo.cli.completion_scripts import SCRIPTS
from backtest_kit_mongo.contract_names import DomainName

pytestmark = pytest.mark.once

HEAVY = ("_core", "numpy", "pymongo", "redis", "msgspec", "typer", "rich", "click", "pandas", "ccxt")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with the command on PATH, and no server that answers."""
    command = tmp_path / "bin" / "backtest-kit-mongo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m backtest_kit_mongo "$@"\n')
    command.chmod(0o755)
    (tmp_path / "work").mkdir()
    for name, value in {
        "HOME": tmp_path,
        "XDG_DATA_HOME": tmp_path / "data",
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": ROOT / "src",
        "CC_MONGO_CONNECTION_STRING": "mongodb://127.0.0.1:1/nothing",
        "CC_REDIS_PORT": "1",
        "TERM": "dumb",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def offered(*words):
    return [value for value, _ in complete(words)]


def test_what_is_offered_is_what_the_commands_take():
    """``make generate`` updates the file after a change of a command."""
    spec = importlib.util.spec_from_file_location("generate_completion", ROOT / "tools" / "generate_completion.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert generator.TARGET.read_text() == generator.source()


def test_commands_and_options():
    assert offered("ru") == ["run", "runs"]
    assert offered("runs", "") == ["list", "show"]
    assert offered("nothing", "") == []
    assert "--stores" in offered("run", "--")
    assert "--backtest" not in offered("run", "--backtest", "--")
    assert "--param" in offered("run", "--param", "A=1", "--")
    assert offered("--ver") == ["--version"]
    assert offered("candles", "list", "--interval", "1") == ["1m", "15m", "1h", "12h", "1d", "1w", "1M"]
    assert offered("run", "--on-error=s") == ["--on-error=stop", "--on-error=skip"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]


def test_domains_and_stores():
    assert offered("export", "ca") == ["candle"]
    assert offered("copy", "--domains", "signal,s") == [
        "signal,schedule",
        "signal,strategy",
        "signal,storage",
        "signal,state",
        "signal,session",
    ]
    assert offered("run", "--stores", "m") == ["mongo", "memory", "measure=", "memory="]
    assert offered("run", "--stores", "state=memory,lo") == ["state=memory,log="]
    assert offered("run", "--stores", "log=j") == ["log=jsonl"]
    assert offered("run", "--stores", "state=j") == []
    assert len(offered("export", "")) == len(DomainName.__args__)


def test_names_in_a_strategy_file(home):
    assert offered("run", str(EXAMPLE), "--param", "S") == ["SLOW=", "STOP_LOSS="]
    assert offered("sweep", str(EXAMPLE), "--grid", "FA") == ["FAST="]
    assert offered("run", str(EXAMPLE), "--strategy", "") == ["sma_cross"]
    assert offered("run", str(EXAMPLE), "--live", "--broker", "") == ["ccxt"]
    assert offered("run", "--", str(EXAMPLE), "") == []
    assert offered("run", "") == [f"{FILES} .py"]


def test_the_kept_runs(home):
    folder = home / "data" / "backtest-kit-mongo" / "runs"
    folder.mkdir(parents=True)
    for name in ("20240101-000000-000001", "20240102-000000-000001", "notes"):
        (folder / f"{name}.json").write_text("{}")
    assert offered("runs", "show", "2024") == ["20240102-000000-000001", "20240101-000000-000001"]


def asked(shell, *arguments):
    return subprocess.run(
        ["backtest-kit-mongo", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, VARIABLE: shell}
    )


def test_a_strategy_file_is_not_run_and_an_error_is_silent(home):
    ran = home / "ran"
    file = home / "work" / "strategy.py"
    file.write_text(f"open({str(ran)!r}, 'w')\nFAST = parameter('FAST', 12)\n")
    assert asked("fish", "run", "strategy.py", "--param", "").stdout == "FAST=\tdefault 12\n"
    assert not ran.exists()
    file.write_text("def broken(:")
    for arguments in (("run", "strategy.py", "--param", ""), ("run", "missing.py", "--param", ""), ("nothing", ""), ()):
        run = asked("fish", *arguments)
        assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)
    assert sorted(path.name for path in home.iterdir()) == ["bin", "work"]


def test_nothing_heavy_is_imported(home):
    """The whole command takes a second to import; a person waits for this at every press of Tab."""
    code = "import sys; from backtest_kit_mongo.cli import main; main(); print(*sys.modules)"
    environment = {**os.environ, VARIABLE: "fish"}
    arguments = [sys.executable, "-c", code, "run", str(EXAMPLE), "--param", ""]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment, check=True)
    *items, modules = run.stdout.splitlines()
    assert items[0].startswith("FAST=")
    loaded = {part for name in modules.split() for part in name.split(".")}
    assert loaded.isdisjoint(HEAVY)


def typed(command, text, awaited):
    """Type ``text`` into a shell on a terminal of its own, and return what it shows once ``awaited`` is there, or after half a minute."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(command[0], command)
    shown = ""
    try:
        for part in text:
            os.write(terminal, part.encode())
            deadline = time.monotonic() + 30
            awaits = awaited if part is text[-1] else "READY"
            while awaits not in shown and time.monotonic() < deadline:
                if select.select([terminal], [], [], 0.1)[0]:
                    shown += os.read(terminal, 65536).decode(errors="replace")
            if part is not text[-1]:
                shown = ""
    finally:
        os.close(terminal)
        os.kill(process, 9)
        os.waitpid(process, 0)
    return shown


LINES = [
    ("backtest-kit-mongo ca\t", "candles "),
    ("backtest-kit-mongo candles rem\t", "remove "),
    ("backtest-kit-mongo run my\t", "my_strategy.py "),
    ("backtest-kit-mongo run my_strategy.py --par\tFA\t", "FAST="),
    ("backtest-kit-mongo run my_strategy.py --stores state=memory,log=js\t", "log=jsonl "),
    ("backtest-kit-mongo run my_strategy.py --on-error=sk\t", "--on-error=skip "),
    ("backtest-kit-mongo candles list --interval 12\t", "12h "),
    ("backtest-kit-mongo candles import my_n\t", "my_notes.txt "),
]


@pytest.fixture
def strategies(home):
    for name in ("my_strategy.py", "my_notes.txt"):
        (home / "work" / name).write_text("FAST = parameter('FAST', 12)\n")
    return home


@pytest.mark.parametrize(("line", "completed"), LINES)
def test_bash(strategies, line, completed):
    (strategies / "script").write_text(SCRIPTS["bash"])
    start = "PS1=; bind 'set bell-style none'; source ../script; echo REA''DY\n"
    assert completed in typed(["bash", "--norc", "--noprofile", "-i"], (start, line), completed)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
@pytest.mark.parametrize(("line", "completed"), LINES)
def test_zsh(strategies, line, completed):
    (strategies / "script").write_text(SCRIPTS["zsh"])
    start = "PS1=; unsetopt zle_bracketed_paste beep; autoload -U compinit; compinit -u -D; source ../script; echo REA''DY\n"
    assert completed in typed(["zsh", "-f", "-i"], (start, line), completed)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(strategies):
    """fish says what it would offer, so that it needs no terminal."""
    (strategies / "script").write_text(SCRIPTS["fish"])
    lines = {
        "ca": ["candles"],
        "candles rem": ["remove"],
        "run my": ["my_strategy.py", "my_notes.txt"],  # fish puts the others last
        "run my_strategy.py --param FA": ["FAST="],
        "run my_strategy.py --stores state=memory,log=js": ["state=memory,log=jsonl"],
        "run my_strategy.py --on-error=sk": ["--on-error=skip"],
        "candles list --interval 12": ["12h"],
    }
    asked = "; ".join(f"complete -C 'backtest-kit-mongo {line}'; echo" for line in lines)
    run = subprocess.run(
        ["fish", "--no-config", "-c", f"source ../script; {asked}"], capture_output=True, text=True, timeout=60, check=True
    )
    answers = [[item.partition("\t")[0] for item in answer.splitlines()] for answer in run.stdout.split("\n\n")]
    assert (dict(zip(lines, answers, strict=False)), run.stderr) == (lines, "")


def test_the_command_prints_the_script(home):
    for arguments, shell in ((("zsh",), "/bin/bash"), ((), "/usr/bin/zsh")):
        run = subprocess.run(
            ["backtest-kit-mongo", "completion", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, "SHELL": shell}
        )
        assert (run.stdout, run.stderr, run.returncode) == (SCRIPTS["zsh"], "", 0)
    run = subprocess.run(
        ["backtest-kit-mongo", "completion"], capture_output=True, text=True, timeout=60, env={**os.environ, "SHELL": "/bin/ksh"}
    )
    assert run.returncode == 1
    assert "pass one of bash, zsh, fish" in run.stderr
