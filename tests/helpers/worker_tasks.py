"""Functions that the tests of pickles call in other processes."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from pathlib import Path

from prepared import forked


def called_elsewhere(function, *arguments, environ=None, folder=None):
    """Return ``function(*arguments)`` of another process, or raise its error. ``environ`` replaces the CC_* variables."""
    import cloudpickle

    environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")} | (environ or {})
    with tempfile.TemporaryDirectory() as files:
        call, answer = Path(files, "call"), Path(files, "answer")
        call.write_bytes(cloudpickle.dumps((function, arguments)))
        ended = forked("worker_tasks:main", [call, answer], environment, folder or Path.cwd())
        assert ended.returncode == 0, ended.err
        result, error = pickle.loads(answer.read_bytes())
    if error is not None:
        raise error
    return result


class Sevens:
    """A user's class that serves Signal."""

    number = 7

    def __init__(self, *context):
        pass

    def read_signal_data(self):
        """Return the same for every context."""
        return {"n": self.number}

    def write_signal_data(self, row):
        """Keep nothing."""


def settings_of(adapter):
    """Return the settings of an adapter's registry."""
    config = adapter._registry.get_config()
    return {name: getattr(config, name) for name in config.__struct_fields__}


def write_then_read(adapter, number):
    """Write a signal through an adapter and return the pid and what is stored."""
    context = (f"S{number}", "s", "e")
    adapter.write_signal_data({"n": number}, *context)
    return os.getpid(), adapter.read_signal_data(*context)


def write_then_read_instance(instance):
    """Write a signal through an instance and return its repr and what is stored."""
    instance.write_signal_data({"n": 1})
    return repr(instance), instance.read_signal_data()


def read(adapter, number):
    """Read what ``write_then_read`` wrote."""
    return adapter.read_signal_data(f"S{number}", "s", "e")


def clients_of(pickles):
    """Load pickles of adapters one after the other, read through each; return how many MongoDB clients that took and what was read."""
    clients, rows = set(), []
    for content in pickles:
        adapter = pickle.loads(content)
        rows.append(read(adapter, 0))
        clients.add(id(adapter._registry.get_mongo().client))
        del adapter  # nothing but the library keeps the registry
    return len(clients), rows


def main():
    result, error = None, None
    try:
        function, arguments = pickle.loads(Path(sys.argv[1]).read_bytes())
        result = function(*arguments)
    except Exception as raised:  # noqa: BLE001 - the caller raises it again
        error = raised
    Path(sys.argv[2]).write_bytes(pickle.dumps((result, error)))
