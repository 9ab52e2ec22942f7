"""A study as its file gives it: sizes, and that the studies which come with the project can be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rule_helpers import every

from experiments.cli import main
from experiments.study.check import fitting
from experiments.study.grid import expand
from experiments.study.study import Sizes
from rhm import Task

ROOT = Path(__file__).parents[3]


STUDIES = sorted([*(ROOT / "configs/studies").glob("*.yaml"), *(ROOT / "configs/comparisons").glob("*.yaml")])


def test_sizes_follow_the_task():
    task = Task(8, 8, 4, 2, 3)
    assert Sizes([0.5, 1, 2]).of(task) == [1, 2]  # a half is rounded to 0, which is under one string
    assert Sizes([0.25, 1, 4], "n m^L").of(task) == [128, 512, 2048]
    assert Sizes([0.5, 2], "v m^3").of(Task(8, 8, 4, 2, 7)) == [256, 1024]
    assert Sizes([0.5, 2], "v m^2").of(Task(8, 8, 4, 2, 7)) == [64, 256]
    assert Sizes([1, 2], "n m").of(task) == [32, 64]
    assert Sizes([1, 2, 4, 8], "n m^L", least=600, most=2048).of(task) == [1024, 2048]


@pytest.mark.parametrize("quick", [pytest.param(False, marks=pytest.mark.chaos), True])
@pytest.mark.parametrize("path", every(8, STUDIES), ids=lambda p: p.stem)
def test_the_studies_that_are_shipped_can_be_run(path, quick, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("experiments.study.sweep_command.sweep", lambda study, *args: asked.append(study))
    main(["sweep", f"-c={path}", "--run_dir=nowhere", *(["--quick"] if quick else [])])
    (study,) = asked
    combinations, skipped = expand(study)
    dear = path.stem == "all_rules"  # the full study leaves some rules to the quick one
    assert all("strings" in reason or (dear and "leaves none" in reason) for reason in skipped), skipped
    small = [
        replace(c, cell={key: 4 if key.endswith("width") else value for key, value in c.cell.items()}) for c in combinations
    ]
    each = [c.rule.label for c in small], [str(c.cell) for c in small]
    if quick:  # each rule and each cell once
        found = {id(c): c for names in each for c in dict(zip(names[::-1], small[::-1], strict=True)).values()}
    else:
        found = dict(zip(zip(*each, strict=True), small, strict=True))
    reasons: list[str] = []
    fitting(list(found.values()), reasons)
    assert not reasons
    assert study.question and (study.search is None) == (path.stem in ("at_their_best", "near_the_floor"))
    assert study.search is None or not set(study.search.seeds) & set(study.seeds)
    budgets: dict[tuple[str, int], set[int]] = {}
    for c in combinations:  # of as many sizes: a task may have no room for all of a rule's
        key = str(c.task), len(c.search_sizes)
        budgets.setdefault(key, set()).add(sum(run.steps * run.replicas for run in c.search_runs()))
    assert all(len(each) == 1 for each in budgets.values()), budgets
