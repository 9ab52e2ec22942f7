"""Runs on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

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
