"""A study's folder: one study, one sweep at a time."""

from __future__ import annotations

import fcntl
import json
import os

import pytest
import yaml
from sweeps import TINY, MadeUp, refused, sweep, write


def test_a_study_that_was_killed_in_its_first_moment_goes_on(tmp_path, monkeypatch):
    MadeUp(monkeypatch)
    (tmp_path / "a").mkdir()
    for name in ".study.yaml.77.part", ".lock":
        (tmp_path / "a" / name).touch()
    sweep(write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}")
    assert not list((tmp_path / "a").glob("*.part"))


def test_a_study_that_begins_in_the_folder_just_before_it_is_locked_is_not_overwritten(tmp_path, capsys, monkeypatch):
    MadeUp(monkeypatch)
    other = tmp_path / "a/study.yaml"
    monkeypatch.setattr("experiments.study.folder.fcntl.flock", lambda *args: other.write_text("seeds: [5]"))
    line = refused(capsys, write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}", "--launcher=debug")
    assert "which holds a study" in line and other.read_text() == "seeds: [5]"


@pytest.mark.chaos
def test_two_studies_in_one_folder_two_sweeps_at_once_and_foreign_folders_are_refused(tmp_path, capsys):
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    sweep(study, run_dir)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock"}
    capsys.readouterr()
    line = refused(capsys, study, run_dir, "--seeds=[5]", "--launcher=debug")
    assert "seeds=[5]" in line and "seeds=[0, 1]" in line
    many = json.dumps([{"rule": "backprop", "name": "other"}, *({"rule": "dfa", "name": f"rule {i}"} for i in range(20))])
    assert len(refused(capsys, study, run_dir, f"--rules={many}", "--launcher=debug")) < 400
    with (tmp_path / "a/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "no other sweep" in refused(capsys, study, run_dir, "--launcher=debug")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("dear")
    assert "new, empty" in refused(capsys, study, f"--run_dir={tmp_path / 'b'}", "--launcher=debug")
    assert "file" in refused(capsys, study, f"--run_dir={tmp_path / 's.yaml'}", "--launcher=debug")
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


def test_what_is_asked_is_compared_without_its_types_and_a_study_with_another_search_is_refused(tmp_path, capsys, monkeypatch):
    MadeUp(monkeypatch)
    rates, run_dir = {"model.optimizer.lr": {"low": 0.1, "high": 1, "log": True}}, f"--run_dir={tmp_path / 'a'}"
    search = {"trials": 2, "settings": rates}
    sweep(write(tmp_path / "s.yaml", search=search), run_dir)
    rates["model.optimizer.lr"]["high"] = 1.0
    sweep(write(tmp_path / "s.yaml", search=search), run_dir)
    before = {
        path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name not in (".lock", "s.yaml")
    }
    for change, words in (
        ({"trials": 3}, ["search.trials=3", "search.trials=2"]),
        ({"settings": {"model.optimizer.lr": {"low": 0.1, "high": 2.0, "log": True}}}, ["high=2.0", "high=1"]),
        ({"seeds": [7]}, ["search.seeds=[7]", "search.seeds=[100, 101]"]),
        ({"rungs": 2}, ["search.rungs=2", "search.rungs=1"]),
    ):
        line = refused(capsys, write(tmp_path / "s.yaml", search={**search, **change}), run_dir, "--launcher=debug")
        assert all(word in line for word in ["rhm: run_dir: got ", "which holds a study", "or another folder", *words]), line
    assert {path: path.read_bytes() for path in before} == before


def test_a_study_goes_on_with_more_rules_and_not_with_other_ones(tmp_path, capsys, monkeypatch):
    made = MadeUp(monkeypatch)
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    sweep(study, run_dir)
    before = len(made.made)
    sweep(study, run_dir, "--rules=[dfa, backprop]")
    assert len(made.made) == 2 * before and all("dfa" in name for name in made.made[before:])
    for rules in ["[dfa]", "[backprop, {rule: dfa, settings: {model.network.width: 9}}]"]:
        assert "which holds a study with rules=" in refused(capsys, study, run_dir, f"--rules={rules}", "--launcher=debug")


def test_a_study_of_before_a_setting_of_rules_was_there_goes_on(tmp_path, capsys, monkeypatch):
    MadeUp(monkeypatch)
    study, run_dir, file = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}", tmp_path / "a/study.yaml"
    sweep(study, run_dir)
    written = yaml.safe_load(file.read_text())
    assert written["rules"][0].pop("steps") is None
    file.write_text(yaml.safe_dump(written))
    sweep(study, run_dir)
    assert yaml.safe_load(file.read_text())["rules"][0]["steps"] is None
    file.write_text(yaml.safe_dump(written))
    other = write(tmp_path / "t.yaml", rules=[{"rule": "backprop", "steps": {"least": 2, "most": 2}}])
    assert "holds a study with rules=" in refused(capsys, other, run_dir, "--launcher=debug")


def test_a_study_goes_on_with_more_tasks_and_not_with_other_ones(tmp_path, capsys, monkeypatch):
    made = MadeUp(monkeypatch)
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    task = TINY["tasks"][0]
    sweep(study, run_dir)
    before = list(made.made)
    sweep(study, run_dir, f"--tasks={json.dumps([task, task | {'L': 4}])}")
    more = made.made[len(before) :]
    assert more and all("L4" in name for name in more) and not any("L4" in name for name in before)
    for tasks in [[task | {"L": 4}, task], [task | {"L": 4}], [task | {"m": 3}, task | {"L": 4}]]:
        line = refused(capsys, study, run_dir, f"--tasks={json.dumps(tasks)}", "--launcher=debug")
        assert "which holds a study with tasks=" in line
