"""How runs start, stop, go on, and what keeps them apart: ranks, signals, locks, checkpoints that cannot be read or written."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import resource
import signal
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from launch import ROOT, SMALL, TWO, Ranks, assert_same_run, checkpoint, fake_scontrol, fit, results, slurm, slurm_rank

from experiments import checkpoints
from experiments.cli import main
from experiments.ranks import default_run_dir
from experiments.run_folder import RunFolder
from rhm import InvalidInput

SIGNAL = "--trainer.callbacks=signal_at.SignalAt"


def refused(capsys, args: list[str]) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(SystemExit) as stop:
        main(args)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()


def steps(run_dir) -> list[int]:
    return [checkpoints.step_of(path) for path in checkpoints.checkpoints(run_dir / "checkpoints")]


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


# -------------------------------------------------------------------- signals


@pytest.mark.parametrize("step", [1, 20, 37])
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


def test_a_job_that_slurm_does_not_requeue_says_so(tmp_path, monkeypatch, capsys, job):
    monkeypatch.setenv("PATH", f"{fake_scontrol(tmp_path / 'bad', code=1)}:{os.environ['PATH']}")
    arguments = {"trainer__callbacks__step": 7, "trainer__callbacks__signum": int(signal.SIGUSR1)}
    assert "no such job" in refused(capsys, fit(tmp_path / "a", SIGNAL, **arguments))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "scontrol" in refused(capsys, fit(tmp_path / "b", SIGNAL, **arguments))
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


# -------------------------------------------------------------------- ranks


@pytest.mark.chaos
def test_torchrun_trains_in_bf16_and_one_rank_writes(tmp_path):
    done = Ranks("torchrun", fit(tmp_path / "a", **TWO, trainer__precision="bf16-mixed", matmul_precision="high")).wait()
    assert done[0][:2] == (0, ""), done
    assert results(tmp_path / "a")["status"] == "finished"
    assert len(list((tmp_path / "a").glob("events*"))) == 2  # of training and of the test at its end
    assert not list((tmp_path / "a").rglob("*.part"))


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
    line = refused(capsys, fit(tmp_path / "a", **settings))
    assert line.startswith("rhm: trainer.devices: got ") and word in line and not list(tmp_path.iterdir())


def test_one_task_of_slurm_may_start_ranks_itself(tmp_path, job, capsys):
    main(["check", *fit(tmp_path / "a", **TWO)[1:]])
    assert capsys.readouterr() == ("", "")


def test_a_port_in_use_is_named_before_any_rank_is_started(tmp_path, monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        line = refused(capsys, fit(tmp_path / "a", **TWO))
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


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_matrix_products_is_a_setting(precision, tmp_path):
    before = torch.get_float32_matmul_precision()
    main(["check", *fit(tmp_path / "a", matmul_precision=precision)[1:]])
    assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision(before)


def test_an_unknown_precision_of_matrix_products_is_refused(tmp_path, capsys):
    line = refused(capsys, fit(tmp_path / "a", matmul_precision="tf32"))
    assert "matmul_precision: got tf32, allowed: one of highest, high, medium" in line


# -------------------------------------------------------------------- locks


def test_a_folder_with_a_live_run_is_refused_and_one_with_a_left_lock_is_not(tmp_path, capsys):
    run = tmp_path / "a"
    run.mkdir()
    holder = "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as live:
        assert live.stdout.readline() == "held\n"
        (run / ".lock").write_text("process 17 on somewhere")
        for command in "fit", "check":
            line = refused(capsys, [command, *fit(run)[1:]])
            assert "run_dir" in line and "process 17 on somewhere" in line
        live.kill()
    assert os.listdir(run) == [".lock"]
    main(fit(run))
    assert results(run)["status"] == "finished" and f"process {os.getpid()} on" in (run / ".lock").read_text()


# -------------------------------------------------------------------- checkpoints that cannot be read


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """A finished run, and one that was stopped at step 47 with checkpoints of steps 40 and 47."""
    main(fit(tmp_path / "whole"))
    callback = {"trainer__callbacks__step": 47, "trainer__callbacks__signum": int(signal.SIGTERM)}
    with pytest.raises(SystemExit):
        main(fit(tmp_path / "a", SIGNAL, **callback))
    assert steps(tmp_path / "a") == [40, 47]
    return fit(tmp_path / "a", SIGNAL, **callback)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, alter, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on_to_the_same_weights(damage, unfinished, tmp_path, capsys):
    newest = tmp_path / "a/checkpoints/step=47.ckpt"
    damage(newest)
    capsys.readouterr()
    with pytest.raises(SystemExit):  # stopped again at step 47, which replaces the damaged file
        main(unfinished)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 3 and f"warning: {newest} cannot be read" in err[0] and "step=40.ckpt" in err[1]
    main(unfinished)
    assert_same_run(tmp_path / "whole", tmp_path / "a")


def test_without_a_checkpoint_that_can_be_read_a_run_is_refused_and_all_is_kept(unfinished, tmp_path, capsys):
    files = sorted((tmp_path / "a/checkpoints").iterdir())
    for path in files:
        cut(path)
    kept = [path.read_bytes() for path in files]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(unfinished)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(lines) == 3 and "nothing was deleted" in lines[-1]
    assert sorted((tmp_path / "a/checkpoints").iterdir()) == files and [path.read_bytes() for path in files] == kept


OTHERS = {
    "rule": (["--model=FrozenFeatures"], ["rule Backprop", "rule FrozenFeatures"]),
    "task": (["--model=Backprop", "--data.m=3"], ["task", "m=2", "m=3"]),
    "network": (["--model=Backprop", "--model.network.activation=tanh"], ["activation=relu", "activation=tanh"]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_checkpoint_of_another_rule_task_or_network_is_refused(case, unfinished, tmp_path, capsys):
    """Also where somebody has changed the settings that lie beside it."""
    arguments, words = OTHERS[case]
    other = [*fit(tmp_path / "b", trainer__max_steps=20), *arguments]
    main(other)
    (tmp_path / "b/results.json").unlink()
    source = tmp_path / "a/checkpoints/step=47.ckpt"
    for old in (tmp_path / "b/checkpoints").iterdir():
        old.unlink()
    (tmp_path / "b/checkpoints/step=47.ckpt").write_bytes(source.read_bytes())
    capsys.readouterr()
    line = refused(capsys, other)
    assert line.startswith("rhm: checkpoint: got ") and all(word in line for word in words), line
    assert "checkpoint: got " in refused(capsys, ["test", f"--run_dir={tmp_path / 'b'}"])


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused_by_its_shapes(unfinished, tmp_path, capsys):
    newest = tmp_path / "a/checkpoints/step=47.ckpt"
    content = torch.load(newest, weights_only=True)
    del content["run"]
    torch.save(content, newest)
    content["state_dict"] = {k: v[..., :1] for k, v in content["state_dict"].items()}
    other = tmp_path / "a/checkpoints/step=50.ckpt"
    torch.save(content, other)
    capsys.readouterr()
    assert "shape" in refused(capsys, unfinished)
    other.unlink()
    main(unfinished)
    assert_same_run(tmp_path / "whole", tmp_path / "a")


# -------------------------------------------------------------------- a full disk


def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch, capsys):
    """The second checkpoint gets half its bytes; all later writes fail."""
    real, full = open, []

    class Full(io.FileIO):
        def write(self, content):
            super().write(bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path, *args, **kwargs):
        full.extend([1] * ("step=40" in str(path)))
        return Full(path, "wb") if full else real(path, *args, **kwargs)

    monkeypatch.setattr(checkpoints, "open", opened, raising=False)
    line = refused(capsys, fit(tmp_path / "a"))
    assert "run_dir" in line and "step=40.ckpt" in line and "No space left on device" in line
    assert steps(tmp_path / "a") == [20] and not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    main(fit(tmp_path / "a"))
    main(fit(tmp_path / "whole"))
    assert_same_run(tmp_path / "whole", tmp_path / "a")


def test_a_limit_on_file_sizes_stops_a_run_with_one_line_and_a_larger_one_lets_it_go_on(tmp_path):
    run, small = tmp_path / "a", ["--trainer.logger=false"]
    main(fit(tmp_path / "whole", *small))
    size = (tmp_path / "whole/checkpoints/step=60.ckpt").stat().st_size
    with pytest.raises(SystemExit):
        main(fit(run, *small, SIGNAL, trainer__callbacks__step=30, trainer__callbacks__signum=int(signal.SIGTERM)))
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    command = fit(run, *small, SIGNAL, trainer__callbacks__step=30, trainer__callbacks__signum=int(signal.SIGTERM))
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and len(lines) == 2 and "File too large" in lines[1] and done.stdout == "", done
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    main(command)
    assert_same_run(tmp_path / "whole", run)


def test_full_disk_at_results_or_events_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("callbacks.step_log.StepLog.on_train_batch_end", full)
    assert "No space left on device" in refused(capsys, fit(tmp_path / "a"))
    monkeypatch.undo()
    monkeypatch.setattr("experiments.run_folder.write_atomically", full)
    line = refused(capsys, fit(tmp_path / "a"))
    assert "No space left on device" in line and "step" not in line
    monkeypatch.undo()
    main(fit(tmp_path / "a"))
    assert (
        results(tmp_path / "a")["status"] == "finished"
        and checkpoint(tmp_path / "a")["global_step"] == SMALL["trainer.max_steps"]
    )


def test_callbacks_that_look_may_differ_when_a_run_goes_on_and_one_that_learns_may_not(tmp_path):
    folder, decay = RunFolder(tmp_path), {"class_path": "callbacks.cosine_decay.CosineDecay", "init_args": {"floor": 0.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [decay]}}))
    looks = {"class_path": "callbacks.SynonymicSensitivity"}
    folder.check_settings({"trainer": {"callbacks": [decay, looks]}})
    for other in None, [looks], [{**decay, "init_args": {"floor": 0.1}}]:
        with pytest.raises(InvalidInput, match="CosineDecay.*the same settings"):
            folder.check_settings({"trainer": {"callbacks": other}})
