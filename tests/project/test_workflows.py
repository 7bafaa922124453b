"""The workflows, issue forms and hooks: they name only what exists, and agree with pyproject.toml."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from paths import ROOT

pytestmark = pytest.mark.once

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
PROGRAMS = Path(sys.executable).parent


def loaded(path):
    # YAML reads the key `on` as True; GitHub reads it as text.
    return {"on" if name is True else name: value for name, value in yaml.safe_load(path.read_text()).items()}


def jobs():
    return [pytest.param(job, id=f"{path.stem}-{name}") for path in WORKFLOWS for name, job in loaded(path)["jobs"].items()]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def pythons(job):
    """Return the versions of Python that a job names."""
    matrix = job.get("strategy", {}).get("matrix", {})
    listed = [*matrix.get("python", []), *(more["python"] for more in matrix.get("include", []) if "python" in more)]
    steps = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
    return listed + [version for version in steps if not version.startswith("${{")]


def program(name):
    path = shutil.which(name, path=str(PROGRAMS)) or shutil.which(name)
    assert path, f"{name} is missing: make lint installs it"
    return path


def test_the_workflows_are_found():
    assert [path.stem for path in WORKFLOWS] == ["release", "scheduled", "test"]
    assert [path.stem for path in FORMS] == ["bug", "config", "feature", "performance"]


@pytest.mark.parametrize("path", [*WORKFLOWS, *FORMS, ROOT / ".github" / "dependabot.yml"], ids=lambda path: path.name)
def test_files_of_github_are_valid(path):
    kinds = {"workflows": "github-workflows", "ISSUE_TEMPLATE": "github-issue-forms", ".github": "dependabot"}
    kind = "github-issue-config" if path.name == "config.yml" else kinds[path.parent.name]
    command = [program("check-jsonschema"), "--builtin-schema", f"vendor.{kind}", path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("job", jobs())
def test_a_job_names_what_exists(job):
    for script in commands(job):
        for line in script.splitlines():
            words = shlex.split(line)
            if words[0] == "make":
                assert words[1] in TARGETS, line
            for word in words:
                if re.fullmatch(r"[\w./-]+\.(py|sh|toml|md)", word):
                    assert (ROOT / word).exists(), line


@pytest.mark.parametrize("job", jobs())
def test_the_scripts_of_a_job_are_clean(job):
    for script in commands(job):
        done = subprocess.run([program("shellcheck"), "--shell=bash", "-"], input=script, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_little(path):
    workflow = loaded(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "concurrency" in workflow
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 120
        assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@(v\d+(\.\d+){0,2}|release/v\d+)", step["uses"])
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_only_a_tag_publishes():
    workflow = loaded(ROOT / ".github" / "workflows" / "release.yml")
    version, publish = workflow["jobs"]["version"], workflow["jobs"]["publish"]
    assert version["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert set(publish["needs"]) == {"sdist", "wheels", "version"}  # a job that is skipped lets none that needs it run
    assert publish["environment"] == "pypi"
    assert "if" not in publish  # always() would run it all the same


@pytest.mark.parametrize("ref", ["v{}", "v9.9.9"])
def test_a_tag_that_is_not_the_version_is_refused(ref):
    environment = {"GITHUB_REF_NAME": ref.format(PYPROJECT["project"]["version"]), "PATH": "/usr/bin:/bin"}
    scripts = commands(loaded(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["version"])
    codes = [subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=environment, check=False).returncode for script in scripts]
    assert [code == 0 for code in codes] == [ref == "v{}"] * 2


def test_python_versions_agree():
    named = {match[1] for match in re.finditer(r'Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())}
    tested = loaded(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["linux"]
    assert set(pythons(tested)) == named
    assert {f"{build[2]}.{build[3:-2]}" for build in PYPROJECT["tool"]["cibuildwheel"]["build"]} == named
    assert f">={min(named, key=lambda version: int(version[2:]))}" == PYPROJECT["project"]["requires-python"]
    for path in WORKFLOWS:
        for job in loaded(path)["jobs"].values():
            assert set(pythons(job)) <= named


def test_oldest_drivers_are_the_lower_bounds():
    bounds = dict(re.findall(r'^    "(\w+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert dict(re.findall(r'"(pymongo|redis)==([\d.]+)"', MAKEFILE)) == {name: bounds[name] for name in ("pymongo", "redis")}


def test_built_wheels_are_tested_with_extras_that_exist():
    settings = PYPROJECT["tool"]["cibuildwheel"]
    assert set(settings["test-extras"]) <= set(PYPROJECT["project"]["optional-dependencies"])
    words = shlex.split(settings["test-command"])
    assert words[words.index("-m", 3) + 1] == "not server"
    for word in words:
        if word.startswith("{project}/"):
            assert (ROOT / word.removeprefix("{project}/")).exists()


# --- hooks ---


def hooks():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"  # nothing is downloaded
    return [pytest.param(hook, id=hook["id"]) for hook in local["hooks"]]


@pytest.mark.parametrize("hook", hooks())
def test_a_hook_is_a_program_of_the_environment(hook):
    wrapper, name, *_ = hook["entry"].split()
    assert (wrapper, hook["language"]) == ("tools/with_venv.sh", "system")
    program(name)


def test_the_wrapper_prefers_the_environment(tmp_path):
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "uname").write_text('#!/bin/sh\necho "ours: $*"\n')
    (bin_folder / "uname").chmod(0o755)
    done = subprocess.run([ROOT / "tools" / "with_venv.sh", "uname", "a b"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "ours: a b\n"
    assert subprocess.run([ROOT / "tools" / "with_venv.sh", "false"], cwd=tmp_path, check=False).returncode == 1


def test_cython_lint_is_clean_and_finds_something(tmp_path):
    lint, path = program("cython-lint"), f"{PROGRAMS}:/usr/bin:/bin"
    sources = sorted((ROOT / "src").rglob("*.p[yx][xd]"))
    assert len(sources) > 15
    clean = subprocess.run([lint, *sources], cwd=ROOT, env={"PATH": path}, check=False, capture_output=True, text=True)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (tmp_path / "bad.pyx").write_text("from libc.string cimport memcpy\n")
    assert subprocess.run([lint, tmp_path / "bad.pyx"], env={"PATH": path}, check=False, capture_output=True).returncode == 1
