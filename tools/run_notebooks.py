"""Run the notebooks of examples/notebooks and store what they show, without anything that tells on which machine they ran.

    python tools/run_notebooks.py [NOTEBOOK...]

Run it after a change to a notebook, or after one to the library that changes what they show. Each notebook runs in a new kernel with
embedded servers, in a temporary folder. A cell with the tag ``varies`` shows times or latencies, which differ in each run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

__all__ = ["NOTEBOOKS", "VARIES", "CellExecutionError", "cleaned", "execute", "read"]

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
VARIES = "varies"
SECONDS = 300
"""After which a cell counts as hanging."""


def read(path: Path) -> Any:
    """Return a notebook. Raises ValidationError if it is not a valid one."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a kernel that keeps everything it writes in ``folder``, and asks no servers but its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CC_")}
    homes = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "MPLCONFIGDIR")
    own |= {name: str(folder / name.lower()) for name in homes}
    return own | {"CC_EMBEDDED": "1", "CC_EMBEDDED_DIR": str(folder / "servers"), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


def execute(notebook: Any, folder: Path) -> Any:
    """Return a notebook with the outputs of a new run in ``folder``. Raises CellExecutionError if a cell fails."""
    executed = nbformat.from_dict(notebook)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    working = folder / "working"
    working.mkdir()
    with tempfile.TemporaryDirectory() as sockets:  # the path of a socket must be short
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(executed, kernel, timeout=SECONDS, resources={"metadata": {"path": str(working)}})
        client.execute(env=environment(folder), cleanup_kc=True)
    return cleaned(executed)


def cleaned(notebook: Any) -> Any:
    """Return a notebook with its cells, tags and outputs, without times, versions and other metadata of the run."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        for output in cell.get("outputs", ()):
            if "data" in output:
                output.metadata, output.data = {}, shown(output.data)
    return notebook


def shown(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the forms of an output that a page shows: the text only of what has no picture and no table."""
    rich = {name: value for name, value in data.items() if name in ("text/html", "image/png")}
    return rich or dict(data)


def main() -> None:
    for path in [Path(name) for name in sys.argv[1:]] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(read(path), Path(folder))
        nbformat.write(executed, path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
