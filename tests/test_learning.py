"""Figures that the documents quote; minutes each, run by ``make test-learning``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("rule", ["backprop", "class_contrastive"])
def test_supervised_rules_solve_four_levels_from_9600_strings(tmp_path, rule):
    task, width = f"-c={CONFIGS / 'tasks' / 'compare_L4.yaml'}", "--model.network.width=64"
    file, rate = f"-c={CONFIGS / 'rules' / rule}.yaml", "--model.optimizer.lr=1e-2"
    replicas = fit(tmp_path, task, file, width, rate, "--data.train_size=9600")
    assert all(replica["test_accuracy"] >= 0.99 for replica in replicas)


@pytest.mark.parametrize("expansion", ["random", "local"])
@pytest.mark.parametrize(("depth", "enough"), [(4, 5), (6, 4)])
def test_siblings_find_the_hierarchy_with_no_gradient_through_a_second_matrix(tmp_path, expansion, depth, enough):
    block = [f"--model.block.expansion={expansion}", "--trainer.max_steps=1000", f"--data.L={depth}"]
    replicas = fit(tmp_path, f"-c={CONFIGS / 'quickstart.yaml'}", *block)
    assert sum(replica["test_accuracy"] >= 0.99 for replica in replicas) >= enough


@pytest.mark.parametrize("rule", ["barlow_twins", "vicreg", "sfa", "lpl"])
def test_rules_without_negatives_find_the_hierarchy(tmp_path, rule):
    task = f"-c={CONFIGS / 'tasks' / 'search_L4.yaml'}"
    steps = ["--trainer.max_steps=3000", "--trainer.callbacks+=CosineDecay"] if rule == "lpl" else ["--trainer.max_steps=1500"]
    replicas = fit(tmp_path, task, f"-c={CONFIGS / 'rules' / rule}.yaml", *steps)
    assert all(replica["test_accuracy"] >= 0.985 for replica in replicas)


DO_NOT_LEARN = {"frozen", "frozen_below_top", "softhebb", "sign_dfa", "simsiam"}  # within these steps
LEARNERS = sorted({path.stem for path in (CONFIGS / "rules").glob("*.yaml")} - DO_NOT_LEARN)
BASE: dict[str, list[float]] = {}


def accuracies(tmp_path: Path, rule: str) -> list[float]:
    small = ["--data.L=2", "--data.train_size=300", "--data.test_size=128", "--data.probe_size=64", "--data.seeds=[0,1,2,3,4]"]
    steps = ["--model.network.width=64", "--trainer.max_steps=600", "--trainer.val_check_interval=600"]
    return [r["test_accuracy"] for r in fit(tmp_path, f"-c={CONFIGS / 'rules' / rule}.yaml", *small, *steps)]


@pytest.mark.parametrize("rule", LEARNERS)
def test_a_rule_that_claims_to_learn_beats_frozen_features(tmp_path, rule):
    """By two standard errors of the difference over five seeds. P_max is 512 here, so 300 strings train and 128 test."""
    if not BASE:
        BASE["frozen"] = accuracies(tmp_path / "base", "frozen")
    ours, base = torch.tensor(accuracies(tmp_path / "rule", rule)), torch.tensor(BASE["frozen"])
    error = (ours.var() / 5 + base.var() / 5).sqrt()
    assert ours.mean() - base.mean() > 2 * error, (ours, base)


def test_backpropagation_finds_symbols_among_silent_positions_and_forgets_where_they_stood(tmp_path):
    """Three levels need n m^L (S0 + 1)^2 = 2,048 strings times a constant (Tomasini, Wyart 2024); L = 2 has too few strings."""
    task = ["--data.silent=1", "--data.L=3", "--data.train_size=[2048,8192]", "--data.seeds=[0,1]", "--data.test_size=1024"]
    run = ["--model.network.width=64", "--trainer.max_steps=1500", "--trainer.callbacks+=SynonymicSensitivity"]
    replicas = fit(tmp_path, f"-c={CONFIGS / 'rules/backprop.yaml'}", *task, *run)
    few, enough = ([r for r in range(4) if replicas[r]["train_size"] == size] for size in (2048, 8192))
    assert all(replicas[r]["test_accuracy"] < 0.35 for r in few) and all(replicas[r]["test_accuracy"] > 0.98 for r in enough)
    found = json.loads((tmp_path / "run" / "results.json").read_text())["diagnostics"]["SynonymicSensitivity"]
    for changed in found, found["moved"]:
        assert all(changed["level1"]["layer3"][r] > 0.3 for r in few)
        assert all(changed["level1"]["layer3"][r] < 0.1 for r in enough)
