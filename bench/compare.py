"""Compare the ratios of two runs in their judged placements; name each ratio that got worse by more than a tolerance and exit with 1.

A baseline holds only ratios, since times of different machines cannot be compared; write one with --update.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from report import load
from targets import TARGETS

HERE = Path(__file__).parent
Ratios = dict[str, dict[str, float]]


def judged(path: Path) -> Ratios:
    """Return the ratios that have a target, by work and rival, from a results file or a baseline."""
    content = json.loads(path.read_text())
    if "benchmarks" not in content:
        return content
    ratios: Ratios = {}
    for row in load([path])[0]:
        target = TARGETS.get(row["work"])
        if target is not None and row["placement"] == target.placement:
            ratios[row["work"]] = {name: round(row["ratios"][name], 4) for name in target.checks()}
    return ratios


def worse(baseline: Ratios, latest: Ratios, tolerance: float) -> list[str]:
    """Describe each ratio that got worse by more than ``tolerance`` or is no longer measured."""
    problems = []
    for work, ratios in baseline.items():
        for name, before in ratios.items():
            after = latest.get(work, {}).get(name)
            if after is None:
                problems.append(f"{work}, against {name}: was {before:.4g}, not measured now")
                continue
            loss = 1 - after / before if name in TARGETS[work].at_least else after / before - 1
            if loss > tolerance:
                problems.append(f"{work}, against {name}: {before:.4g} became {after:.4g}, worse by {loss:.0%}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path, nargs="?", default=HERE / "baseline.json", help="default: bench/baseline.json")
    parser.add_argument("latest", type=Path, nargs="?", default=HERE / "results" / "latest.json", help="default: bench/results/latest.json")
    parser.add_argument("--tolerance", type=float, default=0.15, help="by which share a ratio may be worse (default: 0.15)")
    parser.add_argument("--update", action="store_true", help="write the ratios of the latest run as the baseline instead")
    given = parser.parse_args()
    for path in (given.latest, *([] if given.update else [given.baseline])):
        if not path.is_file():
            parser.error(f"{path} is not there: make bench writes results, --update makes them the baseline")
    latest = judged(given.latest)
    if given.update:
        given.baseline.write_text(json.dumps(latest, indent=2) + "\n")
        print(f"{given.baseline}: {len(latest)} rows")
        return 0
    baseline = judged(given.baseline)
    problems = worse(baseline, latest, given.tolerance)
    print("\n".join(problems) or f"no ratio is worse by more than {given.tolerance:.0%} ({sum(map(len, baseline.values()))} ratios)")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
