"""The page of a report as a test reads it: elements, texts, tables, and what its script is given as JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from plotly.offline import get_plotlyjs


class Page(HTMLParser):
    """Elements, texts by element, rows of tables by their class, facts by name, long tables and figures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.figures, self.long_tables, self.texts = [], [], [], [], []
        self.tables, self.facts, self.bars = {}, [], []
        self.feed(text.replace(get_plotlyjs(), ""))  # five megabytes that take a second
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "br"):
            self.open.append(self.elements[-1])
        if tag == "table":
            self.rows = self.tables.setdefault(attributes["class"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "dt":
            self.facts.append([])
        if tag in ("dt", "dd"):
            self.facts[-1].append("")
        if tag == "div" and attributes.get("class") == "bars sizes":
            self.bars.append([])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            if attributes.get("type") == "application/json":
                inside = self.open[-2][1]["class"]
                (self.figures if inside == "chart" else self.long_tables).append(json.loads(data))
            return
        if tag != "style":
            self.texts.append(data)
        if tag in ("td", "th"):
            self.rows[-1][-1] += data
        elif tag in ("dt", "dd"):
            self.facts[-1][-1] += data
        elif tag == "span" and self.open[-2][1].get("class") == "bars sizes":
            self.bars[-1].append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def fact(self, name):
        """Return the value and the explanation of the first fact of this name."""
        return next((value, about) for shown, value, about in (fact for fact in self.facts if len(fact) == 3) if shown == name)


def texts_of(long_table):
    """Return the rows of a long table as texts."""
    return [[cell[0] if isinstance(cell, list) else cell for cell in row] for row in long_table["rows"]]
