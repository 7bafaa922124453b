"""Checks of the benchmarks themselves: a comparison that can fail, cores that are bound and released, ratios the right way round."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import compare
import pytest
import report
from cpu_affinity import on_cores, threads
from interleaved import Interleaved, Side
from paths import ROOT
from targets import TARGETS

WORK = "single hit, L1 warm"
BASELINE = {WORK: {"plain": 5.0, "floor": 1.2}}


@pytest.mark.parametrize(
    ("latest", "named"),
    [
        ({WORK: {"plain": 4.4, "floor": 1.35}}, []),
        ({WORK: {"plain": 9.0, "floor": 1.0}}, []),
        ({WORK: {"plain": 4.2, "floor": 1.2}}, ["against plain: 5 became 4.2, worse by 16%"]),
        ({WORK: {"plain": 5.0, "floor": 1.4}}, ["against floor: 1.2 became 1.4, worse by 17%"]),
        ({}, ["against plain: was 5, not measured now", "against floor: was 1.2, not measured now"]),
    ],
)
def test_a_worse_ratio_fails_the_comparison(tmp_path, latest, named):
    row = {"work": WORK, "placement": TARGETS[WORK].placement, "ratios": latest.get(WORK)}
    elsewhere = {"work": WORK, "placement": "apart", "ratios": {"plain": 0.1, "floor": 10.0}}  # not the judged placement
    entries = [{"extra_info": elsewhere}, *([{"extra_info": row}] if latest else [])]
    files = {"baseline.json": BASELINE, "latest.json": {"machine_info": {}, "benchmarks": entries}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    command = [sys.executable, compare.__file__, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == bool(named), done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if WORK in line] == [f"{WORK}, {text}" for text in named]


def test_what_update_writes_is_what_is_compared_with(tmp_path):
    row = {"work": WORK, "placement": "same", "ratios": {"plain": 5.123456, "floor": 1.2, "direct": 3.0}}
    latest, baseline = tmp_path / "latest.json", tmp_path / "baseline.json"
    latest.write_text(json.dumps({"machine_info": {}, "benchmarks": [{"extra_info": row}]}))
    subprocess.run([sys.executable, compare.__file__, str(baseline), str(latest), "--update"], check=True, stdout=subprocess.PIPE)
    assert json.loads(baseline.read_text()) == {WORK: {"plain": 5.1235, "floor": 1.2}}
    assert compare.worse(compare.judged(baseline), compare.judged(latest), 0.0) == []


def test_without_results_there_is_nothing_to_compare(tmp_path):
    done = subprocess.run([sys.executable, compare.__file__, *map(str, [tmp_path / "baseline.json"] * 2)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "baseline.json is not there" in done.stderr


def test_figures_go_between_the_marks_of_the_manual(tmp_path):
    page = ROOT / "docs" / "explanation" / "performance.md"
    assert str(page.relative_to(ROOT)) in report.MARKS[0]
    copy = tmp_path / page.name
    copy.write_text(page.read_text())
    report.replace(copy, "NEW FIGURES")
    before, after = page.read_text(), copy.read_text()
    assert f"{report.MARKS[0]}\nNEW FIGURES\n{report.MARKS[1]}\n" in after
    assert "| single hit, L1 warm |" in before
    assert "| single hit, L1 warm |" not in after
    assert before.partition(report.MARKS[0])[0] == after.partition(report.MARKS[0])[0]
    assert before.partition(report.MARKS[1])[2] == after.partition(report.MARKS[1])[2]


def test_all_threads_are_bound_and_given_back(servers):
    pids = [os.getpid(), servers.mongo.pid, servers.redis.pid]
    cores = sorted(os.sched_getaffinity(0))

    def bound():
        return [{frozenset(os.sched_getaffinity(thread)) for thread in threads(pid)} for pid in pids]

    before = bound()
    assert len(threads(servers.mongo.pid)) > 5
    with on_cores("same", pids[1:]):
        assert bound() == [{frozenset(cores[:1])}] * 3
    with on_cores("apart", pids[1:]) as words:
        assert bound() == [{frozenset([cores[min(1, len(cores) - 1)]])}, *[{frozenset(cores[:1])}] * 2]
        assert ("there is no other" in words) == (len(cores) == 1)
    assert bound() == before


def test_ratios_and_verdicts():
    ticks = iter([0, 100, 100, 500, 500, 550] * 2)  # a clock on which ours takes 100, plain 400 and floor 50 seconds for 100 calls
    sides = dict.fromkeys(("ours", "plain", "floor"), Side(lambda: None, 100))
    interleaved = Interleaved(sides, lambda: next(ticks))
    interleaved.round()
    assert interleaved.microseconds() == {"ours": 1e6, "plain": 4e6, "floor": 0.5e6}
    assert interleaved.ratios({}) == {"plain": 4, "floor": 2}
    assert interleaved.ratios({"plain": 0.2}) == {"plain": 0.25, "floor": 2}
    assert report.verdict(">=", 5, 5) == report.verdict("<=", 1.25, 1.25) == "met"
    assert report.verdict(">=", 5, 4) == "missed by 20%"
    assert report.verdict("<=", 1.25, 1.5) == "missed by 20%"
