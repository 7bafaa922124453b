"""The manual's list of folders: a folder imports only from those above it in the list."""

from __future__ import annotations

import ast
import re

import pytest
from paths import ROOT

pytestmark = pytest.mark.once

PACKAGE = ROOT / "src" / "backtest_kit_mongo"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
ROWS = re.findall(r"^\| (`_core/`|`errors\.py`.*?|`[a-z]+/`) \| ", PAGE[PAGE.index("| in `src/backtest_kit_mongo/` |") :], re.MULTILINE)
ROOMS = [name.strip("`/") if name.endswith("/`") and " " not in name else "values" for name in ROWS]


def imported(path):
    """Yield the first name below the package of each import that a module makes when it is loaded."""
    here = ("backtest_kit_mongo", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*here[: len(here) - node.level], *(node.module or "").split("."))
            names = [name for name in base[1:] if name]
            yield from names[:1] or [alias.name for alias in node.names]


def test_the_list_is_found():
    assert ROOMS[0] == "_core"
    assert set(ROOMS) == {
        "values",
        *(path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("__pycache__", "examples")),
    } - {"payloads"}


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "values"])
def test_a_room_imports_only_from_those_above_it(room):
    below = ROOMS[ROOMS.index(room) + 1 :]
    for path in (PACKAGE / room).rglob("*.py"):
        assert not set(imported(path)) & set(below), path
