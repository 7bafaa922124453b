"""The source distribution can be built from: a wheel made of it must hold the compiled core."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


def copy_of_the_tree(folder: Path) -> Path:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__", "results"))
    return folder


@pytest.mark.slow
def test_source_distribution_holds_the_sources_of_the_core(tmp_path):
    tree = copy_of_the_tree(tmp_path / "tree")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path], cwd=tree, check=True, capture_output=True, timeout=120
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    wanted = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".typed", ".jinja")
    ]
    assert len(wanted) > 40
    assert set(wanted) <= packed


def test_no_build_without_the_core(tmp_path):
    """A tree that lost its Cython sources fails to build, instead of giving a package that cannot be imported."""
    tree = copy_of_the_tree(tmp_path / "tree")
    for source in (tree / "src").rglob("*.pyx"):
        source.unlink()
    result = subprocess.run([sys.executable, "setup.py", "-q", "build"], cwd=tree, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "compiled core" in result.stderr
