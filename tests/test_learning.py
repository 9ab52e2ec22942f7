"""Figures that the documents quote; minutes each, run by ``make test-learning``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
pytestmark = pytest.mark.learning


def fit(tmp_path: Path, *args: str) -> list[dict]:
    main(["fit", *args, f"--run_dir={tmp_path / 'run'}", "--tables=false"])
    return json.loads((tmp_path / "run" / "results.json").read_text())["replicas"]


@pytest.mark.parametrize(("depth", "enough"), [(4, 5), (6, 4)])
def test_siblings_find_the_hierarchy_from_2048_strings_without_a_label(tmp_path, depth, enough):
    replicas = fit(tmp_path, f"-c={CONFIGS / 'quickstart.yaml'}", f"--data.L={depth}")
    assert sum(replica["test_accuracy"] >= 0.99 for replica in replicas) >= enough
    for replica in replicas:
        if replica["test_accuracy"] >= 0.99:
            assert all(replica["probe"][f"layer{k}"][f"level{k}"] >= 0.98 for k in range(1, depth))


def test_at_full_use_of_all_tuples_strings_carry_no_signal_and_siblings_fail(tmp_path):
    # seeds and steps of the quickstart; at m = v**(s-1) and n = v every string is equally likely
    replicas = fit(tmp_path, f"-c={CONFIGS / 'quickstart.yaml'}", "--data.m=8", "--data.L=3", "--data.train_size=8192")
    assert all(replica["test_accuracy"] < 0.25 for replica in replicas)
    assert all(replica["probe"]["layer2"]["level2"] < 0.5 for replica in replicas)


@pytest.mark.parametrize(("rule", "least"), [("backprop", 0.99), ("class_contrastive", 0.95)])
def test_supervised_rules_solve_four_levels_from_16384_strings(tmp_path, rule, least):
    task = f"-c={CONFIGS / 'tasks' / 'learning_curve.yaml'}"
    replicas = fit(tmp_path, task, f"-c={CONFIGS / 'rules' / rule}.yaml", "--data.train_size=16384")
    assert all(replica["test_accuracy"] >= least for replica in replicas)
