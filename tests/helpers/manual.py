"""The pages of README and manual, and the blocks of code on them."""

from __future__ import annotations

import re
from typing import NamedTuple

from paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    """A fenced block: its language, its text, and the number of its first line."""

    kind: str
    text: str
    line: int

    @property
    def commands(self):
        """The lines of a console block, without comments; a backslash continues a line."""
        joined = self.text.replace("\\\n", " ")
        return [" ".join(line.partition("  #")[0].split()) for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def page_name(page):
    """The name of a page in the name of a test."""
    return str(page.relative_to(ROOT))


def blocks(page):
    """Return the fenced blocks of a page, also those that are indented (in a list, a tab or a note)."""
    collected = []
    kind = indent = None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"^( *)```(\w*)", line)
        if kind is None and fence:
            indent, kind = fence.groups()
            start, lines = number + 1, []
        elif kind is not None and line == f"{indent}```":
            collected.append(Block(kind, "".join(f"{text}\n" for text in lines), start))
            kind = None
        elif kind is not None:
            lines.append(line.removeprefix(indent))
    assert kind is None, f"{page_name(page)}: a block is not closed"
    return collected
