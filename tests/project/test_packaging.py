"""The distributions: the source distribution can be built, and the wheel built from it works without a compiler."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from paths import ROOT
from shared_folder import made_once

pytestmark = [pytest.mark.once, pytest.mark.slow]


def copy_of_the_tree(folder: Path) -> Path:
    shutil.copytree(
        ROOT, folder, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__", "results"), symlinks=True
    )
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with the output of ``make dist``."""

    def make(folder):
        tree = copy_of_the_tree(folder / "tree")
        command = [sys.executable, tree / "tools" / "make_dist.py", "--folder", folder / "dist"]
        unoptimised = {**os.environ, "CFLAGS": "-O0"}  # these tests do not depend on optimization
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=unoptimised)
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once(tmp_path_factory, "packaging", make) / "dist"


@pytest.fixture(scope="session")
def wheel(made):
    (file,) = made.glob("*.whl")
    return file


@pytest.mark.timeout(900)  # compiles the whole core
def test_source_distribution_holds_the_sources_of_the_core(made):
    (archive,) = made.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
        example = next(name for name in tar.getnames() if name.endswith("/examples/sma_cross.py"))
        assert b"add_strategy" in tar.extractfile(example).read()  # readable even if it is a link
    expected = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".typed", ".jinja", ".css", ".js")
    ]
    assert len(expected) > 40
    assert set(expected) <= packed


def test_no_build_without_the_core(tmp_path):
    """A tree without its Cython sources fails to build instead of producing a package that cannot be imported."""
    tree = copy_of_the_tree(tmp_path / "tree")
    for source in (tree / "src").rglob("*.pyx"):
        source.unlink()
    result = subprocess.run([sys.executable, "setup.py", "-q", "build"], cwd=tree, check=False, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "compiled core" in result.stderr


@pytest.mark.timeout(900)
def test_wheel_is_small_and_whole(wheel):
    """The wheel is stripped, has no C or Cython sources, and has everything else of the package."""
    assert wheel.stat().st_size < 1_500_000
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert not [name for name in packed if name.endswith((".c", ".pyx", ".pxd"))]
    assert not [name for name in packed if not name.startswith(("backtest_kit_mongo/", "backtest_kit_mongo-"))]
    core = [path.stem for path in (ROOT / "src").rglob("*.pyx")]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert {f"backtest_kit_mongo/_core/{name}{suffix}" for name in core} <= packed
    kinds = (".py", ".pyi", ".typed", ".jinja", ".css", ".js")
    others = [path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.suffix in kinds]
    assert {path.as_posix() for path in others} <= packed


@pytest.mark.timeout(900)
def test_wheel_says_where_it_runs_and_whose_it_is(wheel):
    if sys.platform == "linux":
        assert "manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(metadata))
        (points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "[pytest11]\nbacktest_kit_mongo.testing.plugin = backtest_kit_mongo.testing.plugin\n" in archive.read(points).decode()
    assert said["Author"] == "backtest-kit-mongo contributors"
    assert said.get_all("Project-URL") == ["TypeScript framework, https://www.npmjs.com/package/backtest-kit"]
    assert said["License-Expression"] == "MIT"


@pytest.mark.timeout(900)
def test_wheel_works_in_an_environment_of_its_own(wheel, tmp_path):
    """A strategy is written and run with the package from the wheel alone and its dependencies from the tests' environment."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))

    def run(*command):
        cleared = {name: value for name, value in os.environ.items() if not name.startswith(("CC_", "XDG_", "PYTHON"))}
        done = subprocess.run(
            [environment / "bin" / command[0], *command[1:]],
            cwd=tmp_path,
            env={**cleared, "HOME": str(tmp_path), "COLUMNS": "120"},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(packages) in run("python", "-c", "import backtest_kit_mongo._core.bson as core; print(core.__file__)")
    assert "run mine.py --backtest" in run("backtest-kit-mongo", "new-strategy", "mine.py")
    backtest = ("run", "mine.py", "--backtest", "--entry", "--embedded", "--synthetic-days", "1", "--report", "run.html")
    assert "Totals" in run("backtest-kit-mongo", *backtest)
    assert (tmp_path / "run.html").stat().st_size > 100_000
