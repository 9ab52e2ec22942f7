"""Checkpoints that cannot be read or written."""

from __future__ import annotations

import errno
import io
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from command_line import refused
from rule_helpers import every
from run_processes import (
    ROOT,
    SIGNAL,
    SMALL,
    assert_same_run,
    checkpoint,
    fit,
    results,
    steps,
)

from experiments import files
from experiments.cli import main


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", every(3, [cut, alter, empty]))
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
    line = refused(capsys, *other)
    assert line.startswith("rhm: checkpoint: got ") and all(word in line for word in words), line
    assert "checkpoint: got " in refused(capsys, "test", f"--run_dir={tmp_path / 'b'}")


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused_by_its_shapes(unfinished, tmp_path, capsys):
    newest = tmp_path / "a/checkpoints/step=47.ckpt"
    content = torch.load(newest, weights_only=True)
    del content["run"]
    torch.save(content, newest)
    content["state_dict"] = {k: v[..., :1] for k, v in content["state_dict"].items()}
    other = tmp_path / "a/checkpoints/step=50.ckpt"
    torch.save(content, other)
    capsys.readouterr()
    assert "shape" in refused(capsys, *unfinished)
    other.unlink()
    main(unfinished)
    assert_same_run(tmp_path / "whole", tmp_path / "a")


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

    monkeypatch.setattr(files, "open", opened, raising=False)
    line = refused(capsys, *fit(tmp_path / "a"))
    assert "run_dir" in line and "step=40.ckpt" in line and "No space left on device" in line
    assert steps(tmp_path / "a") == [20] and not list(tmp_path.rglob("*.part"))
    monkeypatch.undo()
    main(fit(tmp_path / "a"))
    main(fit(tmp_path / "whole"))
    assert_same_run(tmp_path / "whole", tmp_path / "a")


@pytest.mark.chaos
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
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"},
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
    assert "No space left on device" in refused(capsys, *fit(tmp_path / "a"))
    monkeypatch.undo()
    monkeypatch.setattr("experiments.run.results.write_json", full)
    line = refused(capsys, *fit(tmp_path / "a"))
    assert "No space left on device" in line and "step" not in line
    monkeypatch.undo()
    main(fit(tmp_path / "a"))
    assert (
        results(tmp_path / "a")["status"] == "finished"
        and checkpoint(tmp_path / "a")["global_step"] == SMALL["trainer.max_steps"]
    )
