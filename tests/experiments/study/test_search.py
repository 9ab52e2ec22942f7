"""``rhm search``: trials, the best, what goes on and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import refused, rhm
from made_up_runs import MadeUpRuns, in_this_process, task_file, written

ROOT = Path(__file__).parents[3]


def test_search_tries_settings_of_a_grid_and_writes_the_best(tmp_path, capsys, monkeypatch):
    in_this_process(monkeypatch)
    task, grid = tmp_path / "task.yaml", tmp_path / "grid.yaml"
    small = {"v": 4, "n": 4, "m": 2, "L": 2, "train_size": 16, "test_size": 8, "probe_size": 8, "batch_size": 4, "seeds": [0]}
    data = {"class_path": "RHMDataModule", "init_args": small}
    task.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 2, "accelerator": "cpu"}}))
    grid.write_text(
        yaml.safe_dump(
            {
                "model.optimizer.lr": [0.001, 0.01],
                "model.block": [{"head": 2}, {"head": None, "separate_heads": False}, {"head": 0}],
            }
        )
    )
    command = ["search", "--rule=vicreg", f"--task={task}", f"--grid={grid}"]
    command += [f"--run_dir={tmp_path / 'run'}", "--trials=6", "--jobs=1", "--seeds=[5]"]
    rhm(*command)
    rows = json.loads((tmp_path / "run/search.json").read_text())
    assert len(rows) == 6 and len({json.dumps(row["settings"]) for row in rows}) == 6
    assert [row["accuracy"] is None for row in rows] == [False] * 4 + [True] * 2
    assert rows[0]["accuracy"] == max(row["accuracy"] for row in rows[:4])
    best = yaml.safe_load((tmp_path / "run/best.yaml").read_text())
    assert best["model"]["init_args"]["block"]["head"] == rows[0]["settings"]["model.block"]["head"]
    rhm("check", f"-c={tmp_path / 'run/best.yaml'}", "--data.L=3", f"--run_dir={tmp_path / 'x'}")
    capsys.readouterr()
    assert "seeds" in refused(capsys, *command[:-1], "--seeds=[0]")


def test_a_search_goes_on_with_more_trials_and_is_refused_in_the_folder_of_another(tmp_path, capsys, monkeypatch):
    runs = MadeUpRuns(monkeypatch)
    values = {"model.optimizer.lr": [0.1, 0.2], "model.clip": [1.0, 2.0]}
    task, grid = task_file(tmp_path / "task.yaml"), written(tmp_path / "grid.yaml", values)
    command = ["search", "--rule=backprop", f"--task={task}", f"--grid={grid}", f"--run_dir={tmp_path / 'run'}", "--trials=2"]
    rhm(*command)
    task.write_text(f"# the same\n{task.read_text()}")
    rhm(*command, "--trials=3", "--jobs=1", f"--rule={ROOT / 'configs/rules/backprop.yaml'}")
    assert runs.made == [f"trial-{i}" for i in (0, 1, 0, 1, 2)]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other_task, other_grid = (
        task_file(tmp_path / "b.yaml", L=3),
        written(tmp_path / "c.yaml", {**values, "model.clip": [1.0, 3.0]}),
    )
    other_order = written(tmp_path / "d.yaml", dict(reversed(values.items())))  # and so others of the trials are first
    for other, words in (
        ("--rule=dfa", ["rule.model.class_path=DirectFeedbackAlignment", "rule.model.class_path=Backprop"]),
        (f"--task={other_task}", ["task.data.init_args.L=3", "task.data.init_args.L=2"]),
        (f"--grid={other_grid}", ["grid=", "3.0"]),
        (f"--grid={other_order}", ["grid="]),
        ("--seeds=[7]", ["seeds=[7]", "seeds=[100, 101]"]),
    ):
        capsys.readouterr()
        line = refused(capsys, *command, other)
        assert all(word in line for word in ["rhm: run_dir: got ", "which holds a search", "or another folder", *words]), line
    assert len(runs.made) == 5 and all(path.read_bytes() == content for path, content in before.items())
    (tmp_path / "run/asked.yaml").unlink()
    assert "holds this search" in refused(capsys, *command)


def test_a_search_of_which_nothing_can_be_trained_is_refused_and_one_of_which_all_fails_is_a_failure(
    tmp_path, capsys, monkeypatch
):
    runs = MadeUpRuns(monkeypatch)
    task, grid = task_file(tmp_path / "task.yaml"), written(tmp_path / "grid.yaml", {"model.optimizer.lr": [0.1, 0.2]})
    wrong = written(tmp_path / "wrong.yaml", {"model.optimizer.lrr": [0.1, 0.2]})
    command = ["search", "--rule=backprop", f"--task={task}", f"--grid={grid}", f"--run_dir={tmp_path / 'run'}"]
    line = refused(capsys, *command, f"--grid={wrong}")
    assert all(word in line for word in ["rhm: rule, task and grid: got ", "model.optimizer.lrr: unknown key"]), line
    line = refused(capsys, *command, f"--task={task_file(tmp_path / 'b.yaml', mm=3)}")
    assert "data.mm: unknown key" in line, line
    assert not runs.made and not (tmp_path / "run").exists()
    runs.fails = ("trial-0", "trial-1")
    with pytest.raises(SystemExit) as stop:
        rhm(*command)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and err.startswith("rhm: none of 2 settings has finished") and out.count("no memory") == 2
    assert not (tmp_path / "run/best.yaml").exists()
    runs.fails = ("trial-0",)
    rhm(*command, "--rule=dfa")  # no run was begun that could be taken for one of this rule
    assert (tmp_path / "run/best.yaml").exists() and runs.made[2:] == ["trial-0", "trial-1"]
