"""Runs without a launcher's words, in a Slurm job, and stopped before their end."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from run_processes import SIGNAL, fake_scontrol, fit, slurm, slurm_rank, steps

from experiments.cli import main


def forget_launchers(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("RHM_", "SLURM_", "MASTER_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    forget_launchers(monkeypatch)


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A Slurm job of one task, and a folder with what ``scontrol`` was asked."""
    folder = fake_scontrol(tmp_path / "bin")
    for name, value in {**slurm(tasks=1), **slurm_rank(0), "PATH": f"{folder}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    return folder


STOPPED_AT_47 = {"trainer__callbacks__step": 47, "trainer__callbacks__signum": int(signal.SIGTERM)}


@pytest.fixture(scope="session")
def whole_and_stopped(tmp_path_factory):
    """A finished run, ``whole``, and one that was stopped at step 47, ``a``, with checkpoints of steps 40 and 47."""
    made = tmp_path_factory.mktemp("whole_and_stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        forget_launchers(monkeypatch)
        main(fit(made / "whole"))
        with pytest.raises(SystemExit):
            main(fit(made / "a", SIGNAL, **STOPPED_AT_47))
    assert steps(made / "a") == [40, 47]
    return made


@pytest.fixture
def unfinished(whole_and_stopped, tmp_path):
    """Copies of both in the test's own folder; the command that goes on with the stopped one."""
    shutil.copytree(whole_and_stopped, tmp_path, dirs_exist_ok=True)
    return fit(tmp_path / "a", SIGNAL, **STOPPED_AT_47)
