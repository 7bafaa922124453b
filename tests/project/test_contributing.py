"""CONTRIBUTING, SECURITY, the policy of versions and the changes: what they name exists, and what they say is so."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
from paths import ROOT

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import SETTINGS

pytestmark = pytest.mark.once

PAGES = ("CONTRIBUTING.md", "SECURITY.md", "docs/project/versioning.md", "changelog.d/README.md", ".github/pull_request_template.md")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGES = (ROOT / "CHANGELOG.md").read_text()
MADE = ("build/", "dist/", ".venv/")  # what a command makes


def text(page):
    return (ROOT / page).read_text()


def code(page):
    """Return the inline code and the lines of command blocks of a page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    named = [span for span in code(page) if re.fullmatch(r"\w[\w.*-]*(/[\w.*-]+)+/?|[\w-]+/|\w+\.(md|py|toml|pyx)", span)]
    for path in named:
        if "/" not in path and path.endswith(".pyx"):
            path = f"src/backtest_kit_mongo/_core/{path}"
        if not path.startswith(MADE) and "SUBJECT" not in path:
            assert list(ROOT.glob(path.rstrip("/"))), f"{page}: {path}"
    assert named or page == "changelog.d/README.md"


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_make_exist(page):
    commands = [match[1] for span in code(page) if (match := re.search(r"\bmake( [\w-]+)", span))]
    targets = re.search(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE)[1].split()
    assert {command.strip() for command in commands} <= set(targets)
    if page == "CONTRIBUTING.md":
        assert len(set(commands)) > 12


@pytest.mark.parametrize("target", ["quicktest", "lint", "coverage", "changelog", "hooks", "dist"])
def test_make_can_run_a_target(target):
    """A dry run: make knows how to make everything that the target needs."""
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    program = {"lint": "pre-commit run", "hooks": "pre-commit install", "changelog": "towncrier build", "dist": "twine check --strict"}
    assert program.get(target, "pytest") in done.stdout


def test_names_in_the_text_exist():
    assert {"CC_MONGO_CONNECTION_STRING", "CC_CANDLE_FORMAT"} <= {*SETTINGS}
    for page in PAGES:
        settings = set(re.findall(r"\bCC_[A-Z_]+[A-Z]\b", text(page))) - {"CC_EXCHANGE_KEY", "CC_EXCHANGE_SECRET"}
        assert settings <= {*SETTINGS}, page


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("tests/contracts/test_contracts.py", ("KEYED", "LISTS", "ARGUMENTS", "WIRE", "TYPES", "NULLABLE", "REMOVABLE")),
        ("tests/contracts/test_format.py", ("FORMAT",)),
        ("tests/contracts/test_payloads.py", ("SAMPLES",)),
        ("tests/contracts/test_look_ahead.py", ("CALLS",)),
        ("tests/stores/files/test_files.py", ("PLACES",)),
        ("tools/generate_contracts.py", ("TYPES",)),
        ("tools/contract_docs.py", ("CONTENTS", "BODIES", "ARGUMENTS", "VALUES")),
        ("src/backtest_kit_mongo/config.py", ("_SECRETS",)),
        ("src/backtest_kit_mongo/contract_names.py", ("DomainName",)),
        ("src/backtest_kit_mongo/mode_defaults.py", ("Kind",)),
    ],
)
def test_tables_that_a_new_domain_or_setting_touches_exist(file, names):
    for name in names:
        assert re.search(rf"^{name}\b.* = ", text(file), re.MULTILINE), f"{file}: {name}"
        assert f"`{name}`" in text("CONTRIBUTING.md")


def test_no_address_is_invented():
    """Reports go to GitHub's private reporting, which exists with the repository."""
    assert "private vulnerability reporting" in text("SECURITY.md")
    for page in PAGES:
        assert not re.search(r"[\w.]+@[\w-]+\.\w+", text(page)), page


def test_deprecated_names_are_those_that_warn():
    warned = set()
    for path in (ROOT / "src").rglob("*.py"):
        warned |= set(re.findall(r'warnings\.warn\("(.*?)", DeprecationWarning', path.read_text()))
    assert warned == {"import ReplicaSet from backtest_kit_mongo.servers", "use registered_at instead of place"}
    for page in ("docs/project/versioning.md", "CHANGELOG.md"):
        assert "`backtest_kit_mongo.replica_set`" in text(page)
        assert "`registered_at`" in text(page)


def test_modules_of_the_core_are_judged_for_free_threading():
    """Each module of the core is in the list; none declares what was not tried."""
    sources = sorted((ROOT / "src" / "backtest_kit_mongo" / "_core").glob("*.pyx"))
    listed = text("docs/project/versioning.md").partition("## Free threading")[2]
    assert {source.name for source in sources} == set(re.findall(r"`(\w+\.pyx)`", listed))
    assert not [source for source in sources if "freethreading_compatible" in source.read_text()]
    assert "freethreading_compatible" not in text("setup.py")


# --- versions and changes ---


def test_the_version_is_written_once():
    version = PYPROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").glob("*.*"), *(ROOT / "docker").glob("*.*"), ROOT / "setup.py"]
    assert not [path for path in [*sources, ROOT / "Makefile"] if f'"{version}"' in path.read_text()]
    assert kit.__version__


def test_the_changes_begin_with_this_version():
    headings = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", CHANGES, re.MULTILINE)
    assert headings[0][0] == PYPROJECT["project"]["version"]
    assert headings == sorted(headings, key=lambda heading: [int(part) for part in heading[0].split(".")], reverse=True)
    assert CHANGES.index(PYPROJECT["tool"]["towncrier"]["start_string"]) < CHANGES.index("\n## ")


def test_fragments_have_a_kind_and_a_sentence():
    kinds = {kind["directory"] for kind in PYPROJECT["tool"]["towncrier"]["type"]}
    for fragment in (ROOT / "changelog.d").iterdir():
        if fragment.name != "README.md":
            assert re.fullmatch(rf"(\d+|\+[\w-]+)(\.\d+)?\.({'|'.join(kinds)})\.md", fragment.name), fragment.name
            assert fragment.read_text().rstrip().endswith((".", "!", "`", ")"))
    for kind in kinds:
        assert f"`{kind}`" in text("CONTRIBUTING.md")


def test_a_fragment_becomes_a_section(tmp_path):
    """As in a release: the new section is above the last one."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        (tmp_path / name).write_text(text(name))
    fragments = tmp_path / "changelog.d"
    fragments.mkdir()
    (fragments / "17.added.md").write_text("A manual.\n")
    (fragments / "+keys.fixed.md").write_text("Keys with a colon.\n")
    command = [sys.executable, "-m", "towncrier", "build", "--keep", "--dir", tmp_path, "--version", "99.0.0", "--date", "2030-01-02"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    changes = (tmp_path / "CHANGELOG.md").read_text()
    assert "\n## 99.0.0 (2030-01-02)\n\n### Added\n\n- A manual. (#17)\n\n### Fixed\n\n- Keys with a colon.\n" in changes
    assert changes.index("## 99.0.0") < changes.index(f"## {PYPROJECT['project']['version']}")
