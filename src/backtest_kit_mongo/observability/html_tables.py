"""Tables as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .text_tables import Table

__all__ = ["html_tables"]


def html_tables(title: str, tables: Iterable[Table], *notes: str) -> str:
    """Return a title, tables and notes as HTML. All of them are plain text."""
    parts = [f"<p><b>{escape(title)}</b></p>", *(_table(table) for table in tables if table.rows)]
    return "\n".join(["<div>", *parts, *(f"<p>{escape(note)}</p>" for note in notes if note), "</div>"])


def _table(table: Table) -> str:
    sides = ["left" if column in table.left else "right" for column in table.columns]
    rows = [_row("td", row, sides) for row in table.rows]
    return "\n".join(["<table>", "<thead>", _row("th", table.columns, sides), "</thead>", "<tbody>", *rows, "</tbody>", "</table>"])


def _row(tag: str, cells: Iterable[str], sides: Iterable[str]) -> str:
    pairs = zip(cells, sides, strict=True)
    return "<tr>" + "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for cell, side in pairs) + "</tr>"
