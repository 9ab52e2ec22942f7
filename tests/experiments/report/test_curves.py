"""``rhm curves``."""

from __future__ import annotations

import json

import pytest
from command_line import RUN, refused, rhm
from made_up_runs import made_up_run

from experiments.report import curves as module
from experiments.report.figures import learning_curves


def test_curves_draws_the_results_of_runs_and_refuses_what_does_not_fit(tmp_path, capsys):
    rhm("fit", "--model=Backprop", *RUN, "--data.train_size=[32,64]", f"--run_dir={tmp_path / 'a'}", "--tables=false")
    rhm("curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "Backprop" in capsys.readouterr().out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "overwritten" in refused(capsys, "curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "nowhere" in refused(capsys, "curves", "--run_dirs=[nowhere]", f"--out={tmp_path / 'b.png'}")


def test_runs_with_the_same_last_folder_name_and_rule_have_a_line_each(tmp_path, monkeypatch, capsys):
    folders = [made_up_run(tmp_path / place / "run") for place in ("a/1", "b/1", "b/2")]
    folders += [made_up_run(tmp_path / "alone", rule="BackpropOther"), made_up_run(tmp_path / "dfa", rule="DFA")]
    drawn = []
    monkeypatch.setattr(
        module, "learning_curves", lambda panels, *args, **more: drawn.append(panels) or learning_curves(panels, *args, **more)
    )
    rhm("curves", f"--run_dirs={json.dumps(folders)}", f"--out={tmp_path / 'c.png'}")
    names = ["Backprop (a/1/run)", "Backprop (b/1/run)", "Backprop (2/run)", "BackpropOther", "DFA"]
    assert list(drawn[0][""]) == names
    capsys.readouterr()
    same = json.dumps([folders[0], folders[0] + "/."])
    assert "different folders" in refused(capsys, "curves", f"--run_dirs={same}", f"--out={tmp_path / 'd.png'}")


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": [{"seed": 0, "train_size": 32, "test_accuracy": float("inf"), "chance": 0.25}]},
        {"replicas": [{"seed": 0, "train_size": 32, "test_accuracy": None, "chance": 0.25}]},
        {"replicas": [{"seed": 0, "train_size": 32, "chance": 0.25}]},
        {"replicas": [{"seed": 0, "train_size": None, "test_accuracy": 0.5, "chance": 0.25}]},
        {"replicas": []},
        {"status": "stopped"},
        {"replicas": [{"seed": 0, "train_size": 32, "test_accuracy": 0.5, "chance": 0.25}] * 2},
        {"replicas": [{"seed": 0, "train_size": 32, "test_accuracy": 0.5, "chance": 0.5}]},
        {"replicas": [{"seed": 0, "train_size": "32", "test_accuracy": 0.5, "chance": 0.25}]},
        {"task": [4, 4, 2, 2, 3]},
        {"rule": ["Backprop"]},
        {"supervision": None},
    ],
)
def test_results_that_are_no_numbers_or_not_finished_are_refused_by_folder(changes, tmp_path, capsys):
    folders = [made_up_run(tmp_path / "a"), made_up_run(tmp_path / "b", **changes)]
    line = refused(capsys, "curves", f"--run_dirs={json.dumps(folders)}", f"--out={tmp_path / 'c.png'}")
    assert line.startswith(f"rhm: error: run_dirs: got {tmp_path / 'b'}") or str(tmp_path / "b") in line
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("out", ["/proc/x.png", "{}/link.png", "{}/nowhere/x.png", "{}/" + "x" * 300 + ".png"])
def test_a_picture_that_cannot_be_written_is_said_in_a_line(out, tmp_path, capsys):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere/x.png")
    run = made_up_run(tmp_path / "a")
    out = out.format(tmp_path)
    with pytest.raises(SystemExit) as stop:
        rhm("curves", f"--run_dirs={json.dumps([run])}", f"--out={out}")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f"rhm: out: got {out}") and err.count("\n") == 1


def test_laws_are_those_of_the_task_and_runs_of_other_statistics_are_refused(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(
        module, "learning_curves", lambda *args, **more: drawn.append(more["laws"]) or learning_curves(*args, **more)
    )
    plain, zipf = made_up_run(tmp_path / "a"), made_up_run(tmp_path / "b", origin={"zipf": 1.0})
    for run, picture in ((plain, "a.png"), (zipf, "b.png")):
        rhm("curves", f"--run_dirs={json.dumps([run])}", f"--out={tmp_path / picture}")
    assert set(drawn[0][""]) == {"n m ln 10", "v m^3", "n m^L"} and drawn[1] == {"": {}}
    capsys.readouterr()
    for runs in [plain, zipf], [zipf, plain]:
        line = refused(capsys, "curves", f"--run_dirs={json.dumps(runs)}", f"--out={tmp_path / 'c.png'}")
        assert line.startswith("rhm: run_dirs: got ") and "runs of the same statistics" in line
