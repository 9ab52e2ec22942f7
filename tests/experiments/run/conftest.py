"""Runs without a launcher's words, in a Slurm job, and stopped before their end."""

from __future__ import annotations

import os
import signal

import pytest
from run_processes import SIGNAL, fake_scontrol, fit, slurm, slurm_rank, steps

from experiments.cli import main


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("RHM_", "SLURM_", "MASTER_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A Slurm job of one task, and a folder with what ``scontrol`` was asked."""
    folder = fake_scontrol(tmp_path / "bin")
    for name, value in {**slurm(tasks=1), **slurm_rank(0), "PATH": f"{folder}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """A finished run, and one that was stopped at step 47 with checkpoints of steps 40 and 47."""
    main(fit(tmp_path / "whole"))
    callback = {"trainer__callbacks__step": 47, "trainer__callbacks__signum": int(signal.SIGTERM)}
    with pytest.raises(SystemExit):
        main(fit(tmp_path / "a", SIGNAL, **callback))
    assert steps(tmp_path / "a") == [40, 47]
    return fit(tmp_path / "a", SIGNAL, **callback)
