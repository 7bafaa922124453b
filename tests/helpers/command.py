"""Run the command ``backtest-kit-mongo`` in its own process, with a clean environment."""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

from backtest_kit_mongo.cli.output import errors, output

_HERE = Path(__file__)
# A process that has imported what every command imports, and forks for each: most commands would spend their time on imports.
# typer and numpy import much with their first use. What this version of a package lacks is skipped.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["backtest_kit_mongo.cli.app", "typer._adapters", "typer.rich_utils", "numpy.random"])


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    out: str
    err: str


class Cli:
    """The command, run in the folder ``home`` with ``environment`` as its settings."""

    def __init__(self, home, **environment):
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CC_", "XDG_")) and name != "COLUMNS"}
        self.environment = {**kept, "HOME": str(home), "COLUMNS": "200", **environment}

    def start(self, *arguments, **environment):
        """Start a process as a user would, to observe it while it runs."""
        return subprocess.Popen(
            [sys.executable, "-m", "backtest_kit_mongo", *map(str, arguments)],
            env={**self.environment, **environment},
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments, code=0, **environment):
        """Run the command to its end; the exit code must be ``code`` (None: any). Without ``--debug`` it must never print a traceback."""
        ended = forked("backtest_kit_mongo.cli:main", arguments, {**self.environment, **environment}, self.home)
        assert code in (None, ended.returncode), f"exit code {ended.returncode}\n{ended.out}\n{ended.err}"
        if "--debug" not in arguments:
            assert "Traceback" not in ended.out + ended.err
        return ended

    def out(self, *arguments, **options):
        """Run the command and return its standard output."""
        return self(*arguments, **options).out

    def err(self, *arguments, **options):
        """Run the command and return its standard error."""
        return self(*arguments, **options).err

    @property
    def last_run(self):
        """Path of the profile of the last run."""
        return self.home / ".local" / "state" / "backtest-kit-mongo" / "last-run.json"


def forked(function, arguments, environment, folder, seconds=120):
    """Call a function without arguments ("module:name") in a process of its own, with ``arguments`` as its command line; return its end.

    It can be one of the library or of the helpers.
    """
    with tempfile.TemporaryDirectory() as outputs:
        out, err = Path(outputs, "out"), Path(outputs, "err")
        process = _processes.Process(target=_run, args=(function, folder, environment, [*map(str, arguments)], out, err))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        return Ended(process.exitcode, out.read_text(), err.read_text())


def _run(function, folder, environment, arguments, out, err):
    """In the child, set up what ``python -m`` would find, and call the function."""
    # Processes that the command starts must have its environment, not that of the process that forks for us.
    vars(forkserver._forkserver).update(vars(forkserver.ForkServer()))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115 - for the rest of the process
    for console in (output, errors):  # they have read the variable when they were imported
        console.width = int(os.environ.get("COLUMNS", 80))
    sys.argv = ["backtest-kit-mongo", *arguments]
    module, name = function.split(":")
    helpers = [str(_HERE.parent)] if (_HERE.parent / f"{module}.py").exists() else []
    sys.path[:] = [str(folder), *helpers, *(path for path in sys.path if Path(path) != _HERE.parent)]

    try:
        getattr(importlib.import_module(module), name)()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()  # a forked multiprocessing process exits without running them
