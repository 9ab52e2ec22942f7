"""The ranks of a run: how many, who starts them, where they meet."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess

import pytest
from command_line import refused
from run_processes import (
    ROOT,
    TWO,
    Ranks,
    fit,
    results,
    slurm,
    slurm_rank,
)

from experiments.cli import main
from experiments.run.ranks import default_run_dir


@pytest.mark.chaos
def test_torchrun_trains_in_bf16_and_one_rank_writes(tmp_path):
    done = Ranks("torchrun", fit(tmp_path / "a", **TWO, trainer__precision="bf16-mixed", matmul_precision="high")).wait()
    assert done[0][:2] == (0, ""), done
    assert results(tmp_path / "a")["status"] == "finished"
    assert len(list((tmp_path / "a").glob("events*"))) == 2  # of training and of the test at its end
    assert not list((tmp_path / "a").rglob("*.part"))


@pytest.mark.chaos
def test_ranks_that_srun_has_started_are_refused_together(tmp_path):
    run = tmp_path / "a"
    run.mkdir()
    with open(run / ".lock", "w") as live:
        live.write("process 5 on elsewhere")
        live.flush()
        fcntl.flock(live, fcntl.LOCK_EX)
        first, second = Ranks("srun", fit(run, **TWO)).wait()
    assert (first[0], second) == (2, (2, "", "")), (first, second)
    assert first[2].count("\n") == 1 and "process 5 on elsewhere" in first[2]
    assert os.listdir(run) == [".lock"]


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "GROUP_WORLD_SIZE": "1"}


STARTED = {
    "torchrun and one device": (TORCHRUN, {}, "torchrun"),
    "torchrun and three devices": (TORCHRUN, {**TWO, "trainer.devices": 3, "data.batch_size": 15}, "torchrun"),
    "srun and one device": ({**slurm(2), **slurm_rank(0)}, {}, "srun"),
    "Slurm without srun": (
        {k: v for k, v in {**slurm(2), **slurm_rank(0)}.items() if "STEP" not in k},
        TWO,
        "srun rhm fit",
    ),
}


@pytest.mark.parametrize("case", STARTED)
def test_another_number_of_ranks_than_were_started_is_refused(case, tmp_path, monkeypatch, capsys):
    environment, settings, word = STARTED[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = refused(capsys, *fit(tmp_path / "a", **settings))
    assert line.startswith("rhm: trainer.devices: got ") and word in line and not list(tmp_path.iterdir())


def test_tasks_that_lightning_takes_for_runs_of_their_own_are_refused(tmp_path, monkeypatch, capsys):
    shell = {"SLURM_JOB_NAME": "interactive", "SLURM_TASK_PID": str(os.getpid())}
    for name, value in {**slurm(2), **slurm_rank(0), **shell}.items():
        monkeypatch.setenv(name, value)
    line = refused(capsys, *fit(tmp_path / "a", **TWO))
    assert "SLURM_JOB_NAME: got interactive" in line and "SLURM_JOB_NAME=rhm srun --ntasks=2" in line


def test_one_task_of_slurm_may_start_ranks_itself(tmp_path, job, capsys):
    main(["check", *fit(tmp_path / "a", **TWO)[1:]])
    assert capsys.readouterr() == ("", "")


def test_a_port_in_use_is_named_before_any_rank_is_started(tmp_path, monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        line = refused(capsys, *fit(tmp_path / "a", **TWO))
    assert f"MASTER_PORT: got {port} (in use)" in line and "MASTER_PORT=NUMBER" in line and not list(tmp_path.iterdir())


def test_ranks_agree_on_the_folder_that_a_run_gets_by_default(monkeypatch):
    assert default_run_dir("Backprop").startswith("runs/Backprop-2")
    for name, value in slurm(tasks=2).items():
        monkeypatch.setenv(name, value)
    assert default_run_dir("Backprop") == f"runs/Backprop-job-{os.environ['SLURM_JOB_ID']}"
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert default_run_dir("Backprop") == f"runs/Backprop-torchrun-{os.getppid()}"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="run_dir: got nothing"):
        default_run_dir("Backprop")


def test_the_slurm_script_starts_what_its_job_has(tmp_path, monkeypatch):
    """With a ``srun`` that writes down what it is to start; `rhm check` then takes it."""
    script = ROOT / "configs/cluster/slurm.sbatch"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/asked"\n')
    (tmp_path / "bin/srun").chmod(0o755)
    job = {**slurm(tasks=2), "SLURM_CPUS_PER_TASK": "3"}
    environment = {**os.environ, **job, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    one_device = "-c", str(ROOT / "configs/quickstart.yaml")  # the job's number of ranks counts, not the file's
    subprocess.run([script, *one_device, *fit(tmp_path / "a")[1:]], env=environment, check=True, cwd=tmp_path)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:4] == ["--kill-on-bad-exit=1", "--cpus-per-task=3", "rhm", "fit"]
    for name, value in {**job, **slurm_rank(0)}.items():
        monkeypatch.setenv(name, value)
    main(["check", *asked[4:]])
    header = script.read_text()
    assert all(f"#SBATCH --{option}\n" in header for option in ("signal=USR1@120", "requeue", "open-mode=append"))
