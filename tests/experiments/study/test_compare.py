"""``rhm compare``: tunes, trains and tabulates; what goes on and what is refused."""

from __future__ import annotations

import json

import pytest
import yaml
from command_line import refused, rhm
from made_up_runs import MadeUpRuns, in_this_process, task_file, written


def test_compare_tunes_trains_and_tabulates_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    task, out = task_file(tmp_path / "small.yaml"), tmp_path / "rules.md"
    out.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    command = ["compare", f"--tasks=[{task}]", "--rules=[backprop,frozen]", "--rates=[0.01,0.1]", "--jobs=1", f"--out={out}"]
    command += ["--args=[--model.network.width=8,--checkpoint_every=1]", f"--run_dir={tmp_path / 'run'}"]
    rhm(*command)
    text = out.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    rows = json.loads((tmp_path / "run/compare.json").read_text())["small"]
    assert set(rows) == {"backprop", "frozen"} and rows["backprop"]["rate"] in (0.01, 0.1)
    assert {size: len(values) for size, values in rows["frozen"]["accuracy"].items()} == {"8": 2, "16": 2}
    assert "| frozen | none |" in text and "P = 16" in text
    before = (tmp_path / "run/small/frozen/final/results.json").stat().st_mtime_ns
    rhm(*command)
    assert (tmp_path / "run/small/frozen/final/results.json").stat().st_mtime_ns == before


def test_a_comparison_goes_on_with_other_rules_and_tasks_and_never_takes_runs_of_other_settings(tmp_path, capsys, monkeypatch):
    runs, task = MadeUpRuns(monkeypatch), task_file(tmp_path / "a.yaml")
    command = ["compare", f"--tasks=[{task}]", "--rules=[dfa]", "--rates=[0.1]", f"--run_dir={tmp_path / 'run'}"]
    rhm(*command)
    second = task_file(tmp_path / "b.yaml", L=3)
    rhm(*command, "--rules=[frozen,dfa]", f"--tasks=[{second},{task}]", "--jobs=1")
    assert runs.made == ["a/dfa", "b/frozen", "b/dfa", "a/frozen"]
    (tmp_path / "c").mkdir()
    other_task = task_file(tmp_path / "c/a.yaml", m=3)
    for other, words in (
        ("--rates=[0.2]", ["rates=[0.2]", "rates=[0.1]"]),
        ("--seed=7", ["seed=7", "seed=100"]),
        ("--args=[--model.network.width=8]", ["args=['--model.network.width=8']", "args=[]"]),
        (f"--tasks=[{other_task}]", ["task.data.init_args.m=3", "task.data.init_args.m=2"]),
    ):
        capsys.readouterr()
        line = refused(capsys, *command, "--rules=[gim,dfa]", other)
        where = f"in {tmp_path / 'run/a/dfa'}, which holds a comparison"
        assert all(word in line for word in ["rhm: run_dir: got ", where, "or another folder", *words]), line
    assert "of different names" in refused(capsys, *command, f"--tasks=[{task},{other_task}]")
    kept = tmp_path / "run/a/dfa/asked.yaml"
    content = yaml.safe_load(kept.read_text())
    content["rule"]["model"]["class_path"] = "Backprop"
    written(kept, content)
    assert "rule.model.class_path=Backprop" in refused(capsys, *command)
    assert len(runs.made) == 4 and not (tmp_path / "run/a/gim").exists()


def test_rules_that_fail_are_missing_in_the_table_and_the_exit_code_says_so(tmp_path, capsys, monkeypatch):
    runs, out = MadeUpRuns(monkeypatch), tmp_path / "rules.md"
    command = [
        "compare",
        f"--tasks=[{task_file(tmp_path / 'a.yaml')}]",
        "--rules=[dfa,frozen]",
        "--rates=[0.01,0.1]",
        f"--run_dir={tmp_path / 'run'}",
    ]
    old = "<!-- table: begin -->\nold\n<!-- table: end -->\n"
    out.write_text(old)
    two, one = "rhm: 2 of 2 rows are missing", "rhm: 1 of 2 rows are missing"
    for fails, closing in (("a/dfa/search-0.1", "a/frozen"), two), (("a/dfa", "a/frozen"), two), (("a/dfa",), one):
        runs.fails = fails
        with pytest.raises(SystemExit) as stop:
            rhm(*command, f"--out={out}")
        said = capsys.readouterr()
        assert stop.value.code == 1 and said.err.startswith(closing) and "failed: a/dfa: no memory" in said.out
        assert (out.read_text() == old) == (len(fails) == 2)
    assert "| frozen |" in out.read_text() and "| dfa |" not in out.read_text()


def test_what_would_share_a_folder_or_cannot_be_written_is_refused_before_hours_of_training(tmp_path, capsys):
    command = ["compare", f"--tasks=[{task_file(tmp_path / 'a.yaml')}]", f"--run_dir={tmp_path / 'run'}"]
    assert "rhm: rules: got ['dfa', 'dfa']" in refused(capsys, *command, "--rules=[dfa,dfa]")
    assert "rhm: rates: got [0.01, 0.01000000001]" in refused(capsys, *command, "--rates=[0.01,0.01000000001]")
    (tmp_path / "b.md").write_bytes(b"\xff")
    for out in tmp_path / "b.md", tmp_path / "none.md", tmp_path:
        assert f"rhm: out: got {out} " in refused(capsys, *command, f"--out={out}")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert "which is not there" in refused(capsys, *command[:-1], f"--run_dir={tmp_path / 'link'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("final/results.json", '{"status": "finished"}'),
        ("final/results.json", '{"status": "stopped", "replicas": [{"test_accuracy": null}]}'),
        ("chosen.json", "[]"),
        ("chosen.json", '{"rate": "fast", "step_time_ratio": 1}'),
        ("search-0.1/results.json", "[1]"),
        ("search-0.1/results.json", '{"status": "finished", "replicas": [{"test_accuracy": 1e400}]}'),
        ("final/results.json", {"status": "stopped"}),
        ("final/results.json", {"test_accuracy": 1.5}),
        ("final/results.json", {"test_accuracy": "0.5"}),
        ("chosen.json", {"step_time_ratio": "fast"}),
        ("chosen.json", {"rate": None}),
    ],
)
def test_a_rule_whose_results_cannot_be_read_is_named_and_left_out(file, text, tmp_path, capsys, monkeypatch):
    MadeUpRuns(monkeypatch)
    task = task_file(tmp_path / "a.yaml")
    command = ["compare", f"--tasks=[{task}]", "--rules=[dfa,frozen]", "--rates=[0.1]", f"--run_dir={tmp_path / 'run'}"]
    rhm(*command)
    path = tmp_path / "run/a/dfa" / file
    if isinstance(text, dict):  # what is there, but for this
        content = json.loads(path.read_text(encoding="utf-8"))
        content |= text
        for replica in content.get("replicas", []):
            replica |= {key: value for key, value in text.items() if key in replica}
        text = json.dumps(content)
    path.write_text(text, encoding="utf-8")
    if file.startswith("search"):
        (tmp_path / "run/a/dfa/chosen.json").unlink()  # else nothing is searched again
    monkeypatch.setattr("experiments.study.compare.launch", lambda jobs, *_: {})
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        rhm(*command)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and err.startswith("rhm: 1 of 2 rows are missing") and "a/dfa" in out and "| frozen |" in out
    assert "| dfa |" not in out and list(json.loads((tmp_path / "run/compare.json").read_text())["a"]) == ["frozen"]
