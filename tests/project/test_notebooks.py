"""The notebooks of examples/: each runs in a real Jupyter kernel, and shows what is committed.

``python tools/run_notebooks.py`` stores what they show.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket

import pytest
from paths import ROOT

pytestmark = [pytest.mark.once, pytest.mark.server]

MACHINE_PATH = re.compile(r"(?<![\w.:/<~-])/(?:[\w.-]+/)+[\w.-]+")
"""An absolute path of two names or more, but not the address of a page or the end of an HTML element."""


def tool():
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "tools" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = tool()
of_each = pytest.mark.parametrize("path", TOOL.NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook):
    """Return the outputs of each code cell without pictures, of a cell whose outputs vary only their kinds."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        varies = TOOL.VARIES in cell.metadata.get("tags", [])
        cell_outputs = []
        for output in cell.outputs:
            text = output.get("text", "")
            forms = {name: "" if varies or name.startswith("image/") else value for name, value in output.get("data", {}).items()}
            cell_outputs.append((output.output_type, "" if varies else text, forms))
        shown.append((cell.source, cell_outputs))
    return shown


def test_there_are_three():
    assert [path.stem for path in TOOL.NOTEBOOKS] == ["candles-with-pandas", "first-backtest", "profiling-the-cache"]


@of_each
def test_a_new_run_shows_what_is_committed(path, tmp_path):
    committed = TOOL.read(path)
    executed = TOOL.execute(committed, tmp_path)
    assert outputs(executed) == outputs(committed)
    assert sum("assert " in source for source, _ in outputs(executed)) >= 5


@of_each
def test_committed_outputs_are_whole_and_tell_nothing_of_a_machine(path):
    notebook = TOOL.read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    committed = [output for cell in cells for output in cell.outputs]
    assert not [output for output in committed if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("text/html" in output.get("data", {}) for output in committed)
    assert any("image/png" in output.get("data", {}) for output in committed)
    assert notebook == TOOL.cleaned(TOOL.read(path))
    for output in committed:
        output.get("data", {}).pop("image/png", None)
    text = json.dumps(notebook, ensure_ascii=False)
    assert not MACHINE_PATH.findall(text.replace("\\n", "\n"))
    assert socket.gethostname() not in text
    assert path.stat().st_size < 200_000


def test_a_path_of_a_machine_is_seen():
    """The check of the committed outputs can fail."""
    assert MACHINE_PATH.findall("File /home/me/strategy.py, '/var/lib/data'") == ["/home/me/strategy.py", "/var/lib/data"]
    assert not MACHINE_PATH.findall("https://example.org/a/b <b>x</b></td> 12/48 ./dump/log/log.jsonl +1/2/3")


def test_a_cell_that_fails_is_seen(tmp_path):
    notebook = TOOL.read(TOOL.NOTEBOOKS[0])
    notebook.cells = notebook.cells[:2]
    notebook.cells[1].cell_type, notebook.cells[1].source = "code", "assert 1 == 2"
    with pytest.raises(TOOL.CellExecutionError, match="assert 1 == 2"):
        TOOL.execute(notebook, tmp_path)
