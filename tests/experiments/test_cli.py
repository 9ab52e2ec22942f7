"""The commands: their help, and what each refuses in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from command_line import refused, rhm

from experiments.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def test_help_lists_the_commands(capsys):
    rhm("--help")
    out = capsys.readouterr().out
    assert all(
        f"rhm {name}" in out
        for name in (
            "fit",
            "sweep",
            "report",
            "validate",
            "test",
            "check",
            "rules",
            "describe",
            "curves",
            "demo",
        )
    )


@pytest.mark.parametrize("args", [[], ["--version"]], ids=["help", "version"])
def test_help_and_version_wait_for_no_library(args):
    script = f"import sys; from experiments.cli import main; main({args}); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("installed", [True, False])
def test_the_version_is_that_of_the_project_installed_or_not(installed, capsys, monkeypatch):
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    def found(name: str) -> str:
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return said

    monkeypatch.setattr(metadata, "version", found)
    rhm("--version")
    assert capsys.readouterr().out == f"rhm {said}\n"


def test_an_interrupt_before_anything_has_begun_is_one_line(monkeypatch, capsys):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    with pytest.raises(SystemExit) as stop:
        rhm("fit")
    assert stop.value.code == 130 and capsys.readouterr().err == "rhm: interrupted\n"


def test_the_help_of_the_task_says_what_each_letter_is(capsys):
    with pytest.raises(SystemExit):
        rhm("fit", "--data.help")
    out = " ".join(capsys.readouterr().out.split())
    for letter, words in {
        "v": "vocabulary",
        "n": "number of classes",
        "m": "synonyms",
        "s": "tuple size",
        "L": "depth",
    }.items():
        assert words in out.split(f"--data.{letter} {letter.upper()}")[2].split("(type")[0]


@pytest.mark.parametrize("command", [*COMMANDS])
def test_the_help_of_a_command_says_what_the_command_does(command, capsys):
    with pytest.raises(SystemExit) as stop:
        rhm(command, "--help")
    out = " ".join(capsys.readouterr().out.split())
    assert stop.value.code in (0, None) and COMMANDS[command].text in out and "Lightning" not in out.split("options:")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fitt"], ["command", "fitt", "'fit'"]),
        (["fit"], ["model", "nothing"]),
        (["test", "--run_dir=nowhere"], ["run_dir", "nowhere"]),
        (["describe", "--v=2", "--m=9"], ["m", "9", "m <= 2"]),
        (["describe", "--depth=9"], ["depth", "unknown key"]),
        (["demo", "--run_dir=tests"], ["run_dir", "tests", "overwritten"]),
        (["demo", "--run_dir=README.md"], ["run_dir", "README.md"]),
        (["demo", "--max_steps=0"], ["max_steps", "0", "at least 1"]),
        (["describe", "--json=nowhere/g.json"], ["json", "nowhere/g.json", "folder"]),
        (["describe", "--string=-1"], ["string", "-1"]),
        (["curves", "--run_dirs=[]", "--out=a.png"], ["run_dirs", "[]"]),
        (["curves", "--run_dirs=[configs]", "--out=a.png"], ["run_dirs", "configs", "results.json"]),
        (["curves", "--run_dirs=[configs]", "--out=a.txt"], ["out", "a.txt", ".png or .svg"]),
        (["curves"], ["run_dirs", "nothing"]),
        (["test", "--run_dir"], ["run_dir", "nothing"]),
        (["test", "--run_dir="], ["run_dir", "nothing"]),
        (["fit", "--model=Backprop", "--run_dir=README.md"], ["run_dir", "README.md", "file"]),
        (["fit", "--model=Backprop", "--run_dir=/dev/null/x"], ["run_dir", "/dev/null/x"]),
        (
            ["fit", "--model=Backprop", "--run_dir=runs/x", "--trainer.devices=3", "--trainer.accelerator=cpu"],
            ["batch_size", "3"],
        ),
    ],
)
def test_other_commands_refuse_in_one_line_too(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = refused(capsys, *arguments)
    assert all(word in line for word in words), line
