"""Texts of a person, on any terminal: brackets, letters that it lacks, and an output that cannot be written."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import rhm
from made_up_runs import made_up_run
from study_helpers import fake_study, p_star, sigmoid_curve

from experiments.report.page import Page
from experiments.run.tables import print_replicas, probe_table
from experiments.study.folder import StudyFolder
from experiments.study.grid import expand
from experiments.study.job import Job
from experiments.study.launcher import Launcher
from experiments.study.launchers import watch
from experiments.study.study import Rule, Sizes, Study
from experiments.study.sweep import _Sweep
from experiments.study.tidy import complexities, gather
from experiments.terminal import PlainConsole, wide_console
from rhm import Task

ROOT = Path(__file__).parents[2]
BRACKETS = ["rep[/a]", "rep[v2]", "[red]x", "a:smile:b"]


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets_of_paths_and_rules_are_printed_as_they_are(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Page, "figure", lambda *_: None)
    study = Study([Rule("backprop", name=name)], [{"L": 3}], Sizes([64, 512]), seeds=[0])
    fake_study(tmp_path / name, study, sigmoid_curve(p_star))
    rhm("report", str(tmp_path / name))
    assert f"{tmp_path}/{name}/report/index.html" in capsys.readouterr().out
    rhm("curves", f"--run_dirs={json.dumps([made_up_run(tmp_path / name / 'b', rule=name)])}", f"--out={tmp_path}/{name}.png")
    out = capsys.readouterr().out
    assert f"{tmp_path}/{name}.png" in out and f"{name} (labels)" in out
    (tmp_path / name / "g").mkdir()
    rhm("describe", f"--json={tmp_path}/{name}/g/g.json")
    assert f"{tmp_path}/{name}/g/g.json" in capsys.readouterr().out


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets_of_runs_are_shown_in_the_bar_of_a_sweep(name, tmp_path, capsys):
    class Workers:
        def done(self) -> bool:
            return True

    (tmp_path / f"{name.replace('/', '--')}.taken").touch()
    watch([Job(name, print, ())], tmp_path, Workers(), name)
    assert capsys.readouterr().out.count(name) == 2


def ascii_output(monkeypatch) -> io.TextIOWrapper:
    """Standard output becomes a terminal without any but plain letters."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def test_a_terminal_of_plain_letters_shows_others_in_its_own(tmp_path, monkeypatch):
    stream = ascii_output(monkeypatch)
    run, out = made_up_run(tmp_path / "ä"), tmp_path / "größe-日本.png"
    rhm("curves", f"--run_dirs={json.dumps([run])}", f"--out={out}")
    rhm("describe", "--L=2")
    (tmp_path / "one.yaml").write_text("model: Backprop\n", encoding="utf-8")
    monkeypatch.setattr("experiments.rules.RULE_FILES", tmp_path)
    rhm("rules")
    stream.seek(0)
    shown = stream.read()
    assert "0.500 +- 0.000" in shown and f"{tmp_path}/gr\\xf6\\xdfe-\\u65e5\\u672c.png" in shown
    rows = [line for line in shown.split("Backprop (labels)")[1].splitlines() if line.startswith(("|", "+"))][:6]
    assert len({len(row) for row in rows}) == 1


def test_a_console_measures_the_letters_that_it_shows():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    console = PlainConsole(80)
    console.file = stream
    console.print("0.5 ± 0.1 – …")
    stream.seek(0)
    assert stream.read() == "0.5 +- 0.1 - ...\n"


def started(*args: str, to: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.cli", *args]
    with open(to, "w") as stdout:
        env = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")
@pytest.mark.parametrize(
    "args", [["--help"], *(pytest.param(["describe", own], marks=pytest.mark.chaos) for own in ("--help", "--L=2"))]
)
def test_a_full_output_is_said_of_the_output(args):
    done = started(*args, to="/dev/full")
    assert done.returncode == 2 and done.stderr.startswith("rhm: standard output: got No space left on device, allowed: ")
    assert done.stderr.count("\n") == 1


# -------------------------------------------------------------------- narrow terminals

NUMBER = r"\d\.\d{3} ± \d\.\d{3}"


@pytest.fixture(params=[80, 60])
def narrow(request, monkeypatch, capsys):
    """A terminal of so many columns, and what has been written to it."""
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("FORCE_COLOR", "1")

    def shown() -> str:
        text = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).split("rhm report")[0]
        assert text and max(map(len, text.splitlines())) <= request.param and "…" not in text, text
        return text

    return shown


LONG = "sibling_contrastive_with_a_name_that_is_longer_than_any_terminal_of_forty_columns"


def test_a_run_shows_each_number_in_one_line_however_narrow_the_terminal(narrow):
    sizes = [{"train_size": p, "label_size": q, "seed": s} for p in (1200, 12000) for q in (100, 1000) for s in range(12)]
    replicas = [{**replica, "test_accuracy": 0.1 * replica["seed"], "chance": 0.125} for replica in sizes]
    results = {"rule": LONG, "supervision": {"rule": "labels", "pairs": None}, "replicas": replicas}
    print_replicas(wide_console(), results)
    shown = narrow()
    assert shown.count("0.550 ± 0.361") == 4 and shown.count("0.125") == 4
    assert LONG in "".join(shown.split())
    accuracy_KLR = torch.rand(6, 7, 3)
    wide_console().print_table(probe_table(accuracy_KLR, accuracy_KLR, Task(8, 8, 4, 2, 6), "ridge probes"))
    shown = narrow()
    assert len(re.findall(NUMBER, shown)) == 7 * 7 and shown.count("±") == 7 * 7
    assert shown.count("ridge probes") == 1 and len(re.findall("│ +6 │", shown)) == shown.count("commonest") > 1


def test_a_study_shows_each_number_in_one_line(narrow, tmp_path):
    study = Study([Rule("backprop", name=LONG), Rule("dfa")], [{"L": [3, 4]}], Sizes([64, 512, 40000]), seeds=[0, 1, 2])
    fake_study(tmp_path, study, sigmoid_curve(p_star))
    combinations, _ = expand(study)
    state = _Sweep(study, StudyFolder(tmp_path), combinations, [], Launcher("debug"), False, wide_console(), {})
    state.planned = [c.run("grid", c.sizes, study.seeds, {}) for c in combinations]
    state._say()
    shown = narrow()
    for found in complexities(gather(tmp_path / "runs", state.planned).table, 0.1).values():
        assert f" {found.shown(found.value)} " in shown and f" {found.interval} " in shown


@pytest.mark.chaos  # of 80 columns: test_rules.py
@pytest.mark.parametrize("narrow", [60], indirect=True)
def test_all_rules_are_listed_with_each_name_in_one_line(narrow):
    rhm("rules")
    shown = narrow()
    assert all(name in shown for name in ["DirectFeedbackAlignment", "LayerwiseContrastive"])


def test_a_description_shows_each_name_in_one_line(narrow):
    rhm("describe", "--L=9")
    shown = narrow()
    assert all(name in shown for name in ["n m ln 10", "unlabelled signal"])
