"""Run the command ``backtest-kit-mongo`` in its own process, with a clean environment."""

from __future__ import annotations

import os

from prepared import Prepared, forked


class Cli:
    """The command, run in the folder ``home`` with ``environment`` as its settings."""

    def __init__(self, home, **environment):
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CC_", "XDG_")) and name != "COLUMNS"}
        self.environment = {**kept, "HOME": str(home), "COLUMNS": "200", **environment}

    def start(self, *arguments, **environment):
        """Start the command, to observe it while it runs."""
        return Prepared("backtest_kit_mongo.cli:main", arguments, {**self.environment, **environment}, self.home)

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
