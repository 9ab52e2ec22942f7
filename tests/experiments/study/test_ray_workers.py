"""Runs on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sweeps import results, sweep, write

ROOT = Path(__file__).parents[3]


def test_a_ray_cluster_gives_the_results_of_this_process(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    search = {"trials": 1, "settings": {"model.optimizer.lr": [0.01]}}
    study = write(tmp_path / "s.yaml", search=search, steps={"least": 10, "most": 10})
    sweep(study, f"--run_dir={tmp_path / 'debug'}")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        sweep(study, f"--run_dir={tmp_path / 'ray'}", "--launcher=ray", "--jobs=1")
    finally:
        ray.shutdown()
    assert len(results(tmp_path / "ray")) == 2 and results(tmp_path / "ray") == results(tmp_path / "debug")


def test_hopeless_settings_are_stopped_early_within_their_own_group():
    pytest.importorskip("ray")

    from experiments.study.ray_workers import GroupASHA

    scheduler = GroupASHA()

    def report(trial, accuracy):
        return scheduler.on_trial_result(None, trial, {"accuracy": accuracy, "step": 20, "training_iteration": 1})

    def trials(group, count):
        made = [SimpleNamespace(trial_id=f"{group}{i}", config={"group": group, "steps": 100}) for i in range(count)]
        for trial in made:
            scheduler.on_trial_add(None, trial)
        return made

    good, bad = trials("good", 3), trials("bad", 3)
    assert [report(trial, accuracy) for trial, accuracy in zip(good, (0.9, 0.5, 0.95), strict=True)] == [
        "CONTINUE",
        "STOP",
        "CONTINUE",
    ]
    assert [report(trial, accuracy) for trial, accuracy in zip(bad, (0.2, 0.1, 0.3), strict=True)] == [
        "CONTINUE",
        "STOP",
        "CONTINUE",
    ]
