"""Runs that are stopped by a signal and go on."""

from __future__ import annotations

import os
import signal

import pytest
from command_line import refused
from run_processes import (
    SIGNAL,
    TWO,
    Ranks,
    assert_same_run,
    checkpoint,
    equal,
    fake_scontrol,
    fit,
    results,
    steps,
)

from experiments.cli import main


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.chaos), 20, pytest.param(37, marks=pytest.mark.chaos)])
def test_a_job_asked_to_make_room_is_requeued_and_ends_as_an_undisturbed_one(step, tmp_path, job, capsys):
    whole, stopped, other = tmp_path / "whole", tmp_path / "stopped", tmp_path / "other"
    main(fit(whole))
    main(fit(other, trainer__max_steps=20))
    before = {path: path.stat().st_mtime_ns for path in other.rglob("*")}
    with pytest.raises(SystemExit) as stop:
        main(fit(stopped, SIGNAL, trainer__callbacks__step=step, trainer__callbacks__signum=int(signal.SIGUSR1)))
    number = os.environ["SLURM_JOB_ID"]
    assert stop.value.code == 0 and (job / "calls").read_text() == f"requeue {number}\n"
    assert f"stopped by SIGUSR1 at step {step}; job {number} is back in the queue" in capsys.readouterr().err
    assert steps(stopped)[-1] == step and results(stopped)["status"] == "stopped"
    main(fit(stopped, SIGNAL, trainer__callbacks__step=step, trainer__callbacks__signum=int(signal.SIGUSR1)))
    assert f"going on from {stopped / 'checkpoints' / f'step={step}.ckpt'}" in capsys.readouterr().err
    assert_same_run(whole, stopped)
    assert (job / "calls").read_text().count("\n") == 1 and not list(tmp_path.rglob("hpc_ckpt*"))
    assert {path: path.stat().st_mtime_ns for path in other.rglob("*")} == before


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_job_that_is_cancelled_saves_a_checkpoint_and_is_not_requeued(signum, code, tmp_path, job, capsys):
    with pytest.raises(SystemExit) as stop:
        main(fit(tmp_path / "a", SIGNAL, trainer__callbacks__step=7, trainer__callbacks__signum=int(signum)))
    assert stop.value.code == code and not (job / "calls").exists()
    assert f"stopped by {signum.name} at step 7; the same command goes on" in capsys.readouterr().err
    assert steps(tmp_path / "a") == [7]


def test_a_long_validation_is_stopped_at_its_next_batch_and_the_run_goes_on_exactly(tmp_path, whole_and_stopped, job, capsys):
    """The signal comes with the first of many batches; the run does not get to another step."""
    arguments = {"trainer__callbacks__signum": int(signal.SIGTERM), "trainer__callbacks__validation": True}
    arguments |= {"trainer__callbacks__step": 20, "trainer__val_check_interval": 20, "data__eval_batch_size": 1}
    with pytest.raises(SystemExit) as stop:
        main(fit(tmp_path / "a", SIGNAL, **arguments))
    assert stop.value.code == 143 and steps(tmp_path / "a")[-1] == 20
    assert "stopped by SIGTERM at step 20" in capsys.readouterr().err
    main(fit(tmp_path / "a", SIGNAL, **arguments))
    whole, ended = checkpoint(whole_and_stopped / "whole"), checkpoint(tmp_path / "a")
    for part in ("global_step", "state_dict", "optimizer_states"):
        assert equal(whole[part], ended[part]), part


def test_a_job_that_slurm_does_not_requeue_says_so(tmp_path, monkeypatch, capsys, job):
    monkeypatch.setenv("PATH", f"{fake_scontrol(tmp_path / 'bad', code=1)}:{os.environ['PATH']}")
    arguments = {"trainer__callbacks__step": 7, "trainer__callbacks__signum": int(signal.SIGUSR1)}
    assert "no such job" in refused(capsys, *fit(tmp_path / "a", SIGNAL, **arguments))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "scontrol" in refused(capsys, *fit(tmp_path / "b", SIGNAL, **arguments))
    assert steps(tmp_path / "a") == steps(tmp_path / "b") == [7]


@pytest.mark.chaos
def test_two_tasks_stop_at_the_same_step_when_one_is_signalled_and_go_on_exactly(tmp_path):
    folder, arguments = fake_scontrol(tmp_path / "bin"), {**TWO, "trainer__precision": "64-true", "trainer__max_steps": 100}
    whole = Ranks("self-launched", fit(tmp_path / "whole", **arguments)).wait()
    assert whole == [(0, "", "")]
    arguments |= {
        "trainer__callbacks__step": 30,
        "trainer__callbacks__signum": int(signal.SIGUSR1),
        "trainer__callbacks__rank": 1,
    }
    path = f"{folder}:{os.environ['PATH']}"
    first, second = Ranks("srun", fit(tmp_path / "a", SIGNAL, **arguments), PATH=path).wait()
    assert (first[0], second) == (0, (0, "", "")) and first[2].count("\n") == 1, (first, second)
    assert "stopped by SIGUSR1 at step 48" in first[2] and (folder / "calls").read_text().startswith("requeue ")
    assert steps(tmp_path / "a") == [40, 48]
    first, second = Ranks("srun", fit(tmp_path / "a", SIGNAL, **arguments), PATH=path).wait()
    assert (first[0], second) == (0, (0, "", "")) and "going on from" in first[2], (first, second)
    assert_same_run(tmp_path / "whole", tmp_path / "a")
