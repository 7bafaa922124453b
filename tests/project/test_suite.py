"""The suite itself: what must not be lost without a word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from paths import ROOT

pytestmark = pytest.mark.once


def test_a_file_that_cannot_be_imported_fails_a_run_of_several_workers(tmp_path):
    (tmp_path / "conftest.py").write_bytes((ROOT / "conftest.py").read_bytes())
    (tmp_path / "test_good.py").write_text("def test_one():\n    pass\n")
    (tmp_path / "test_broken.py").write_text("def test_two():\n    assert 1 ==\n")
    path = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests" / "helpers")))
    options = [
        "-q",
        "-n",
        "2",
        "--import-mode=importlib",
        "-p",
        "no:benchmark",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        "--confcutdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 passed, 1 error" in done.stdout
