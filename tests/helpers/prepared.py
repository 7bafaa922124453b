"""Processes that fork from one that has imported the library: a new interpreter would spend most of its time on imports."""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver, reduction
from pathlib import Path
from typing import NamedTuple

from backtest_kit_mongo.cli.output import errors, output

_HERE = Path(__file__)
# typer and numpy import much with their first use. What this version of a package lacks is skipped.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["backtest_kit_mongo.cli.app", "typer._adapters", "typer.rich_utils", "numpy.random"])


class Ended(NamedTuple):
    """How a process ended, and what it printed."""

    returncode: int
    out: str
    err: str


class Prepared:
    """Call a function without arguments ("module:name") in a process of its own, with ``arguments`` as its command line.

    The function can be one of the library or of the helpers. What can be done with the process is as with ``subprocess.Popen`` with
    three pipes of text.
    """

    def __init__(self, function, arguments=(), environment=None, folder=None):
        (stdin, self.stdin), (self.stdout, stdout), (self.stderr, stderr) = (os.pipe() for _ in range(3))
        self._process = _start(function, arguments, environment, folder, stdin, stdout, stderr)
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)
        self.stdin, self.stdout, self.stderr = open(self.stdin, "w"), open(self.stdout), open(self.stderr)  # noqa: SIM115 - for its user
        self.pid = self._process.pid

    @property
    def returncode(self):
        """Exit code, the negative number of a signal, or None."""
        return self._process.exitcode

    def poll(self):
        """Return ``returncode``."""
        return self.returncode

    def wait(self, timeout=None):
        """Return the exit code once the process has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def send_signal(self, number):
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        """End the process if it has not ended."""
        self._process.kill()

    def communicate(self, timeout=None):
        """Return what is left of both outputs once the process has ended; later calls return nothing."""
        self.stdin.close()
        with ThreadPoolExecutor(2) as readers:
            outputs = [readers.submit(_rest, pipe) for pipe in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.close()
        return tuple(each.result() for each in outputs)

    def close(self):
        """Close the pipes, and wait for the process."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):  # of what it did not read
                pipe.close()
        self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _rest(pipe):
    return "" if pipe.closed else pipe.read()


def forked(function, arguments, environment, folder, seconds=600):
    """Call a function as ``Prepared`` does, until it ends; return its end."""
    with tempfile.TemporaryDirectory() as outputs:
        out, err = Path(outputs, "out"), Path(outputs, "err")
        with open(os.devnull) as nothing, open(out, "w") as stdout, open(err, "w") as stderr:
            process = _start(function, arguments, environment, folder, nothing.fileno(), stdout.fileno(), stderr.fileno())
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
        return Ended(process.exitcode, out.read_text(), err.read_text())


def run_code():
    """Run the first argument, as ``python -c`` does: ``Prepared("prepared:run_code", [code, ...])``."""
    exec(sys.argv.pop(1), {"__name__": "__main__"})


class _Descriptor:
    """An open file that a process that starts inherits, as a number."""

    def __init__(self, number):
        self._number = number

    def __reduce__(self):
        return _inherited, (reduction.DupFd(self._number),)


def _inherited(duplicate):
    return duplicate.detach()


def _start(function, arguments, environment, folder, *descriptors):
    environment = {**os.environ} if environment is None else environment
    given = (function, [*map(str, arguments)], environment, folder or Path.cwd(), [_Descriptor(number) for number in descriptors])
    process = processes.Process(target=_run, args=given)
    process.start()
    return process


def _run(function, arguments, environment, folder, descriptors):
    """In the child, set up what ``python -m`` would find, and call the function."""
    # Processes that the function starts must have its environment, not that of the process that forks for us.
    vars(forkserver._forkserver).update(vars(forkserver.ForkServer()))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (open(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww"))  # noqa: SIM115 - for the rest of the process
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
