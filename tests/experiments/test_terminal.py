"""Texts of a person, on any terminal: brackets, letters that it lacks, and an output that cannot be written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import rhm
from made_up_runs import made_up_run
from study_helpers import fake_study, p_star, sigmoid_curve

from experiments.report.page import Page
from experiments.study.job import Job
from experiments.study.launchers import watch
from experiments.study.study import Rule, Sizes, Study
from experiments.terminal import PlainConsole

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
@pytest.mark.parametrize("args", [["--help"], ["describe", "--help"], ["describe", "--L=2"]])
def test_a_full_output_is_said_of_the_output(args):
    done = started(*args, to="/dev/full")
    assert done.returncode == 2 and done.stderr.startswith("rhm: standard output: got No space left on device, allowed: ")
    assert done.stderr.count("\n") == 1
