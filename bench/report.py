"""Show results: the table of ratios against their targets, as text or Markdown, and a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from targets import COSTS, PAYS, TARGETS, shortfall

__all__ = ["load"]

Row = dict[str, Any]
MARKS = ("<!-- figures: python bench/report.py --into docs/explanation/performance.md bench/results/*.json -->", "<!-- end of figures -->")


def load(paths: Iterable[Path]) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of result files, and the machine of the first file."""
    files = [json.loads(path.read_text()) for path in paths]
    return [entry["extra_info"] for file in files for entry in file["benchmarks"] if "work" in entry["extra_info"]], files[0][
        "machine_info"
    ]


def number(value: float) -> str:
    """Format a number with three significant digits, or with separated thousands."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """Format a median with its unit."""
    return f"{number(value / 1000)} ms" if unit == "us" and value >= 1000 else f"{number(value)} {unit}"


def verdict(direction: str, target: float, value: float) -> str:
    """Say that a target is met, or by how many percent it is missed."""
    missed = shortfall(direction, target, value)
    return "met" if missed <= 0 else f"missed by {missed:.1%}" if missed < 0.1 else f"missed by {missed:.0%}"


def find(rows: Iterable[Row], work: str, placement: str) -> Row | None:
    """Return the row of a work in a placement, or None if it was not run."""
    return next((row for row in rows if row["work"] == work and row["placement"] == placement), None)


def target_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return one line per comparison of a work: its judged placement first, then the ratio in the other one."""
    lines = [["work", "ours", "against", "theirs", "target", "ratio", "verdict", "judged on", "elsewhere"]]
    for work, target in TARGETS.items():
        judged = find(rows, work, target.placement)
        if judged is None:
            continue
        other = find(rows, work, "apart" if target.placement == "same" else "same")
        checks = target.checks()
        head = [work, amount(judged["values"]["ours"], judged["unit"])]
        for name in [*checks, *(name for name in judged["ratios"] if name not in checks)]:
            ratio = judged["ratios"][name]
            theirs = amount(judged["values"][name], judged["unit"]) if name in judged["values"] else ""
            elsewhere = "" if other is None else number(other["ratios"][name])
            target_text, said = "", ""
            if name in checks:
                direction, goal = checks[name]
                target_text, said = f"{direction} {number(goal)}", verdict(direction, goal, ratio)
                if direction == ">=" and "floor" in judged["values"]:
                    possible = judged["values"][name] / judged["values"]["floor"]
                    if possible < goal:
                        said += f"; the floor is {number(possible)}"
            lines.append([*head, name, theirs, target_text, number(ratio), said, CORES[target.placement], elsewhere])
            head = ["", ""]
    return lines


CORES = {"same": "one core", "apart": "two cores"}


def pays_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the cost of a read without a cached id, by access path."""
    sides = ["ours", "plain", "direct", "floor, Redis then id", "floor, by key"]
    titles = ["ours: Redis, then id", "plain: Redis, then id", "direct: by key", "floor: Redis, then id", "floor: by key"]
    lines = [["work", "cores", *titles]]
    for work in PAYS:
        for placement in ("same", "apart"):
            row = find(rows, work, placement)
            if row is not None:
                lines.append([work, CORES[placement], *(amount(row["values"][side], row["unit"]) for side in sides)])
    return lines


def costs_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Return the costs of a call with other stores, durability or the async API."""
    lines = [["work", "how", "takes", "times"]]
    for work in COSTS:
        row = find(rows, work, "apart")
        if row is not None:
            lines.append([work, "MongoDB, in its memory, synchronous", amount(row["values"]["ours"], row["unit"]), ""])
            lines += [["", name, amount(row["values"][name], row["unit"]), number(ratio)] for name, ratio in row["ratios"].items()]
    return lines


def text(lines: Sequence[Sequence[str]]) -> str:
    """Format lines as columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Format lines as a Markdown table."""
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(lines[0]), *rest])


def heading(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """Describe what was measured and on which machine."""
    cpu = machine.get("cpu", {})
    places = sorted({f"{CORES[row['placement']]}: {row['where']}" for row in rows if row["where"] != "any core"})
    candle_sources = sorted({row["candles"] for row in rows if "candles" in row})
    facts = [
        f"{cpu.get('brand_raw', machine.get('machine'))}, {cpu.get('count')} cores, Python {machine.get('python_version')}",
        *places,
        *candle_sources,
        "Unix sockets, durability memory; medians of interleaved bursts",
        "a ratio is how many times faster ours is; where the target says <=, and against a floor, the share or amount that ours takes",
    ]
    return "\n".join(facts)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw bars of how much of each target is reached: 1 is the target, and further right is better."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for work, target in TARGETS.items():
        row = find(rows, work, target.placement)
        for name, (direction, goal) in target.checks().items():
            if row is not None:
                value = row["ratios"][name]
                reached = value / goal if direction == ">=" else goal / value
                bars.append((f"{work}\n{name} {direction} {number(goal)}", reached, number(value)))
    bars.reverse()
    figure, axes = plt.subplots(figsize=(10, 1 + 0.45 * len(bars)))
    drawn = axes.barh([bar[0] for bar in bars], [bar[1] for bar in bars], color=["tab:green" if bar[1] >= 1 else "tab:red" for bar in bars])
    axes.bar_label(drawn, [bar[2] for bar in bars], padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("share of the target that is reached (the ratio itself at the bar's end)")
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.15, y=0.01)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def replace(path: Path, tables: str) -> None:
    """Replace the text between the two marks of a Markdown file with the tables."""
    before, begin, rest = path.read_text().partition(MARKS[0] + "\n")
    _, end, after = rest.partition(MARKS[1] + "\n")
    if not end:
        raise SystemExit(f"{path} has no lines {MARKS[0]} and {MARKS[1]}")
    path.write_text(f"{before}{begin}{tables}\n{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="JSON of make bench, and of make bench-scale")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help=f"put the Markdown between {MARKS[0]} and {MARKS[1]} of this file instead"
    )
    parser.add_argument("--plot", type=Path, help="draw the ratios against their targets into this PNG")
    given = parser.parse_args()
    rows, machine = load(given.results)
    as_markdown = given.markdown or given.into is not None
    table = markdown if as_markdown else text
    parts = [heading(rows, machine).replace("\n", "; " if as_markdown else "\n"), table(target_lines(rows))]
    pays = pays_lines(rows)
    if len(pays) > 1:
        parts += ["Redis: where it pays (a read in a process that knows no id)" + ":" * as_markdown, table(pays)]
    costs = costs_lines(rows)
    if len(costs) > 1:
        parts += ["What other stores, durability and the async API cost, two cores" + ":" * as_markdown, table(costs)]
    tables = "\n\n".join(parts)
    if given.into is not None:
        replace(given.into, tables)
    else:
        print(tables)
    if given.plot is not None:
        plot(rows, given.plot)
        print(f"\nplot: {given.plot}")


if __name__ == "__main__":
    main()
