"""A run's folder: what may start in it, and what keeps runs apart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from command_line import RUN, refused, rhm
from run_processes import assert_same_run, fit, results

from experiments.cli import main
from experiments.run.folder import RunFolder
from experiments.run.load import load_run
from rhm import InvalidInput


def test_a_finished_run_is_never_overwritten_and_an_unfinished_one_not_with_other_settings(capsys, tmp_path):
    run = ["fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}"]
    rhm(*run)
    kept = (tmp_path / "a/results.json").read_text()
    capsys.readouterr()
    assert "finished" in refused(capsys, *run)
    assert (tmp_path / "a/results.json").read_text() == kept
    (tmp_path / "a/results.json").unlink()
    line = refused(capsys, *run, "--data.seeds=[7]")
    assert "data.init_args.seeds=[7]" in line and "data.init_args.seeds=[0]" in line
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("dear")
    assert "new, empty" in refused(capsys, "fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'b'}")
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


def test_a_finished_run_goes_on_for_more_steps_as_if_it_had_been_so_long_from_its_start(whole_and_stopped, tmp_path, capsys):
    whole = results(whole_and_stopped / "whole")
    main(fit(tmp_path / "a", trainer__max_steps=25))
    for fewer in 25, 24:
        assert "more than its trainer.max_steps=25" in refused(capsys, *fit(tmp_path / "a", trainer__max_steps=fewer))
    main(fit(tmp_path / "a"))
    said = capsys.readouterr().err
    assert f"the run in {tmp_path / 'a'} gets {whole['steps']} steps instead of 25" in said and "going on from" in said
    assert_same_run(whole_and_stopped / "whole", tmp_path / "a")
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["trainer"]["max_steps"] == whole["steps"]
    assert "nothing is overwritten" in refused(capsys, *fit(tmp_path / "a"))


def test_a_run_whose_rates_fall_to_its_end_is_not_made_longer(tmp_path, capsys):
    decay = "--trainer.callbacks=CosineDecay"
    main(fit(tmp_path / "a", decay, trainer__max_steps=4))
    line = refused(capsys, *fit(tmp_path / "a", decay, trainer__max_steps=8))
    assert "trainer.max_steps: got 8" in line and "CosineDecay" in line


EARLY = ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=test/accuracy", "--trainer.callbacks.mode=max"]


def test_a_run_that_ends_itself_is_finished_and_one_whose_time_is_over_is_not(tmp_path, capsys):
    """An accuracy never grows by two, so that the second validation is the last."""
    early = [*EARLY, "--trainer.callbacks.min_delta=2", "--trainer.callbacks.patience=1"]
    main(fit(tmp_path / "a", *early, trainer__val_check_interval=5))
    assert results(tmp_path / "a")["status"] == "finished" and results(tmp_path / "a")["steps"] == 10
    assert "without a finished run" in refused(capsys, *fit(tmp_path / "a", *early, trainer__val_check_interval=5))
    main(fit(tmp_path / "b", "--trainer.max_time=00:00:00:00"))
    assert results(tmp_path / "b")["status"] == "stopped" and results(tmp_path / "b")["steps"] < 50
    main(fit(tmp_path / "b"))
    assert results(tmp_path / "b")["status"] == "finished"


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
            line = refused(capsys, command, *fit(run)[1:])
            assert "run_dir" in line and "process 17 on somewhere" in line
        live.kill()
    assert os.listdir(run) == [".lock"]
    main(fit(run))
    assert results(run)["status"] == "finished" and f"process {os.getpid()} on" in (run / ".lock").read_text()


def test_callbacks_that_look_may_differ_when_a_run_goes_on_and_one_that_learns_may_not(tmp_path):
    folder, decay = RunFolder(tmp_path), {"class_path": "callbacks.cosine_decay.CosineDecay", "init_args": {"floor": 0.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [decay]}}))
    looks = {"class_path": "callbacks.SynonymicSensitivity"}
    folder.check_settings({"trainer": {"callbacks": [decay, looks]}})
    for other in None, [looks], [{**decay, "init_args": {"floor": 0.1}}]:
        with pytest.raises(InvalidInput, match="CosineDecay.*the same settings"):
            folder.check_settings({"trainer": {"callbacks": other}})


def test_settings_that_are_written_in_another_form_go_on(tmp_path, capsys):
    typed = ["--trainer.devices=1", "--trainer.precision=32", "--model.optimizer.lr=1", "--data.train_size=[64]"]
    rhm("fit", "--model=Backprop", *RUN, *typed, f"--run_dir={tmp_path / 'a'}")
    (tmp_path / "a/results.json").unlink()
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1.0}}
    written = {"trainer": {"devices": 1, "precision": "32-true"}, "model": {"init_args": {"optimizer": optimizer}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(written))
    more = [f"-c={tmp_path / 's.yaml'}", "--data.train_size=[64]", f"--run_dir={tmp_path / 'a'}"]
    rhm("check", "--model=Backprop", *RUN, *more)
    rhm("check", "--model=Backprop", *RUN, *typed[:1], "--trainer.precision=null", *typed[2:], more[-1])
    capsys.readouterr()
    line = refused(capsys, "check", "--model=Backprop", *RUN, *more, "--trainer.precision=64")
    assert "trainer.precision=64-true" in line and "trainer.precision=32-true" in line


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"trainer": {"devices": "1"}}, {"trainer": {"devices": 1}}),
        ({"model": {"betas": [0.9, 0.999]}}, {"model": {"betas": (0.9, 0.999)}}),
        ({"trainer": {"deterministic": True}}, {"trainer": {"deterministic": "true"}}),
        ({"trainer": None, "data": {"seeds": ["0", 1.0]}}, {"data": {"seeds": [0, 1]}}),
        ({"data": {"init_args": {"train_size": [64], "seeds": 0}}}, {"data": {"init_args": {"train_size": 64, "seeds": [0]}}}),
    ],
)
def test_settings_of_another_type_are_the_same_settings(old, new, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    RunFolder(tmp_path).check_settings(new)


def without(tree: dict, *keys: str) -> None:
    for key in keys[:-1]:
        tree = tree[key]
    del tree[keys[-1]]


def test_settings_of_an_earlier_version_take_todays_defaults_and_unknown_ones_are_named(
    whole_and_stopped, tmp_path, capsys, monkeypatch
):
    """Loaded, measured and gone on with: all in the same way."""
    shutil.copytree(whole_and_stopped, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "a/config.yaml"
    kept = yaml.safe_load(config.read_text())
    for branch in ["model", "init_args", "clip"], ["data", "init_args", "eval_batch_size"], ["matmul_precision"]:
        without(kept, *branch)
    without(kept, "trainer", "accumulate_grad_batches")
    without(kept, "model", "init_args", "network", "init_args", "activation")
    config.write_text(yaml.safe_dump(kept))
    capsys.readouterr()
    for measure in lambda: load_run(str(tmp_path / "a")), lambda: main(["validate", f"--run_dir={tmp_path / 'a'}"]):
        monkeypatch.setattr("experiments.run.earlier._told", set())
        measure()
        said = capsys.readouterr().err
        for part in "data.eval_batch_size=512", "matmul_precision=highest", "model.network.activation=relu":
            assert part in said, part
    with pytest.raises(SystemExit, match="2"):
        main(fit(tmp_path / "a", "--model.network.activation=tanh"))
    assert "activation=tanh" in capsys.readouterr().err.splitlines()[-1]
    main(fit(tmp_path / "a"))
    assert results(tmp_path / "a")["status"] == "finished"
    assert "does not say" not in capsys.readouterr().err, "told again"

    kept["model"]["init_args"]["network"]["init_args"]["girth"] = 3
    config.write_text(yaml.safe_dump(kept))
    with pytest.raises(InvalidInput, match="model.network.girth: unknown key"):
        load_run(str(tmp_path / "a"))
    assert "model.network.girth: unknown key" in refused(capsys, "test", f"--run_dir={tmp_path / 'a'}")


def test_a_run_does_not_start_in_a_link_that_leads_nowhere(tmp_path, capsys):
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    line = refused(capsys, "check", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}")
    assert (
        f"run_dir: got {tmp_path / 'a'}, allowed: a folder; this is a link to {tmp_path / 'gone'}, which is not there" in line
    )
