"""README and manual: every sample and every command runs, names exist, and the manual builds without a warning or a network."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from command import Cli, forked
from manual import PAGES, blocks, page_name
from paths import ROOT

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import synthetic_market
from backtest_kit_mongo.servers.embedded import EmbeddedServers
from backtest_kit_mongo.testing.library import left_as_it_was

pytestmark = pytest.mark.once

START = 1_677_628_800_000
KINDS = {"python", "py", "console", "sh", "text", "ini", "yaml", "json", "typescript", "javascript", "toml", "dockerfile", ""}
MAKEFILE = (ROOT / "Makefile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


def commands(page):
    return [command for block in blocks(page) if block.kind == "console" for command in block.commands]


def runnable(page):
    return [block for block in blocks(page) if block.kind in ("python", "console")]


@pytest.fixture
def folder(tmp_path):
    """A working folder with the examples, and a CSV of 3,000 made-up minutes."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    with gzip.open(tmp_path / "BTCUSDT-1m.csv.gz", "wt") as file:
        file.write("open_time,open,high,low,close,volume\n")
        for row in synthetic_market(7, 3000, START).tolist():
            file.write(",".join(map(str, row)) + "\n")
    return tmp_path


@pytest.mark.server
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=page_name)
def test_what_a_page_shows_runs(page, folder, monkeypatch):
    """All blocks of a page run one after the other, as a reader would paste them, on embedded servers of the page."""
    settings = {
        "CC_EMBEDDED": "1",
        "CC_EMBEDDED_DIR": str(folder / "servers"),
        "XDG_DATA_HOME": str(folder / "data"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    cli = Cli(folder, **settings)
    scope: dict[str, object] = {"__name__": "manual"}
    with EmbeddedServers(folder / "servers"), left_as_it_was(60):  # the servers are shared by all that the page starts
        for block in runnable(page):
            where = f"{page_name(page)}:{block.line}"
            if block.kind == "python":
                _run_python(block, where, scope, folder)
                continue
            for command in block.commands:
                _run_command(command, where, cli, folder)


def _run_python(block, where, scope, folder):
    named = re.match(r"# (\w+\.py)\n", block.text)
    if named:
        (folder / named[1]).write_text(block.text)
        return
    try:
        # The lines of a traceback are those of the page.
        exec(compile("\n" * (block.line - 1) + block.text, where.partition(":")[0], "exec"), scope)
    except BaseException as error:
        error.add_note(f"in the block at {where}")
        raise


def _run_command(command, where, cli, folder):
    program, *arguments = command.split()
    if program == "backtest-kit-mongo":
        ended = cli(*arguments, code=None)
        assert ended.returncode == 0, f"{where}: {command}\n{ended.out}\n{ended.err}"
        assert ended.out.strip(), f"{where}: {command} prints nothing"
    elif program == "python":
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=cli.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: {command}\n{done.stdout}\n{done.stderr}"


def test_the_first_sample_of_the_readme_runs_where_nothing_runs(tmp_path):
    """It runs alone, in a process without any setting, as a reader would paste it."""
    first = next(block.text for block in blocks(ROOT / "README.md") if block.kind == "python")
    assert "setup(embedded=True)" in first
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")}
    environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    subprocess.run([sys.executable, "-c", first], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert (tmp_path / "data" / "backtest-kit-mongo" / "mongo").is_dir()


def test_the_two_commands_come_first():
    assert commands(ROOT / "README.md")[:2] == ["make demo", "make test"]


def test_figures_of_the_readme_are_those_of_the_manual():
    table = (ROOT / "README.md").read_text().partition("## How fast")[2].partition("## ")[0]
    figures = re.findall(r"[\d.,]+ (?:us|ms|s)\b", table)
    assert len(figures) >= 10
    manual = (ROOT / "docs" / "explanation" / "performance.md").read_text()
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}\b", manual), figure


# --- what is only shown ---


@each_page
def test_blocks_have_a_language_and_parse(page):
    for block in blocks(page):
        where = f"{page_name(page)}:{block.line}"
        assert block.kind in KINDS, where
        if block.kind == "py":
            compile(block.text, where, "exec")
        elif block.kind == "json":
            json.loads(block.text)
        elif block.kind == "yaml":
            yaml.safe_load(block.text)


@each_page
def test_commands_are_programs_of_ours_targets_or_extras(page):
    for command in commands(page):
        if command.startswith(("backtest-kit-mongo ", "python ")):
            continue
        if target := re.match(r"(?:\w+=\S+ )*make (\S+)", command):
            assert re.search(rf"^[\w -]*\b{re.escape(target[1])}\b[\w -]*:", MAKEFILE, re.MULTILINE), command
            continue
        installed = re.fullmatch(r'pip install (?:--upgrade )?"?backtest-kit-mongo(?:\[([\w,]+)\])?"?', command)
        assert installed or command.startswith(("git clone ", "cd ", "docker compose ")), f"{page_name(page)}: {command}"
        if installed and installed[1]:
            assert set(installed[1].split(",")) <= set(EXTRAS), command


@each_page
def test_commands_that_are_not_run_have_options_that_exist(page):
    for block in blocks(page):
        if block.kind != "sh":
            continue
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        for command in block.commands:
            words = [word for word in command.split() if "=" not in word or word.startswith("-")]
            if words[:1] == ["backtest-kit-mongo"]:
                _check_options(words[1:], f"{page_name(page)}:{block.line}: {command}")


def _check_options(words, where):
    from typer.main import get_command

    from backtest_kit_mongo.cli.app import app

    command = get_command(app)
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, where


@each_page
def test_nothing_is_left_to_fill_in(page):
    assert not re.search(r"\b[A-Z]+_(SECTION|TABLE)\b|TODO|TBD|FIXME", page.read_text())


@each_page
def test_settings_exist(page):
    """Every ``CC_*`` that a page names is a setting, or another variable that the commands read."""
    others = {"CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET", "CC_EXCHANGE_PASSWORD", "CC_EXCHANGE_MAX_WAIT_SECONDS", "CC_DURABILTY"}
    named = set(re.findall(r"\bCC_[A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= {*kit.get_config().__struct_fields__, *others}


@each_page
def test_paths_in_the_repository_exist(page):
    for path in re.findall(r"`((?:src|tests|bench|tools|docs|examples|docker)/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page_name(page)}: {path}"


@each_page
def test_links_of_a_page_that_github_shows_exist(page):
    """The manual's own links are checked by its strict build; this is what GitHub makes of README."""
    if page.name != "README.md":
        return
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not link.startswith("https://"):
            assert (ROOT / link).exists(), link


# --- the generated reference ---


def reference():
    spec = importlib.util.spec_from_file_location("manual_reference", ROOT / "tools" / "manual_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_on_one_page_of_the_api():
    module = reference()
    named = [name for _, _, _, names in module.API.values() for name in names.split()]
    assert len(named) == len(set(named))
    contracts = {name for name in kit.__all__ if name.startswith("Persist")}
    errors = {name for name in kit.__all__ if name.endswith("Error")}
    from backtest_kit_mongo import runner, servers

    assert {*kit.__all__, *runner.__all__, *servers.__all__} == {*named, *contracts, *errors}


def test_every_setting_and_field_is_described():
    module = reference()
    for part in module.PARTS.values():
        for line in part().splitlines():
            if line.startswith("| `"):
                assert not line.rstrip(" |").endswith("required"), line  # a field without a meaning
                assert not line.endswith("|  |") or "-items`" in line or line.count("|") > 6, line


def test_the_fields_of_a_signal_are_those_that_a_run_takes():
    from backtest_kit_mongo.runner.engine.position import _KNOWN, _REQUIRED

    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (required|optional) \|", reference().signal(), re.MULTILINE)
    assert {name for name, _ in rows} == set(_KNOWN)
    assert {name for name, how in rows if how == "required"} == set(_REQUIRED)


def test_the_manual_builds_without_warning_or_network(tmp_path):
    """MkDocs is strict, and no page loads anything from elsewhere."""
    site = tmp_path / "manual"
    ended = forked(
        "offline_build:build",
        ["build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", site],
        {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true", "NO_COLOR": "1"},
        ROOT,
        seconds=600,
    )
    assert ended.returncode == 0, ended.out + ended.err
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)="?(https?:)?//(?P<host>[^/" >]+)')
    for page in pages:
        for match in loads.finditer(page.read_text()):
            assert 'rel="canonical"' in match[0], f"{page.relative_to(site)}: {match[0]}"
    assert Path(site, "search", "search_index.json").stat().st_size > 100_000
