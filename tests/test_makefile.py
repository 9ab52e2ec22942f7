"""The set-up: which Python makes ``.venv``, tried with programs that only say which Python they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
case "$*" in
  *version_info\\ \\<*|*"version_info <"*) [ {minor} -ge 11 ];;
  *print*) echo "(3, {minor})";;
  *venv*) for last; do :; done; mkdir -p $last/bin; cp "$0" $last/bin/python; printf '#!/bin/sh\\n' > $last/bin/pip
          chmod +x $last/bin/pip; echo "$*" >> made;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Run ``make install`` in a folder with the project's Makefile; its exit code, errors, and how ``.venv`` was made."""
    for name in "Makefile", "pyproject.toml", "constraints.txt":
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for minor in 10, 11, 12:
        path = tmp_path / f"bin/python3.{minor}"
        path.write_text(PYTHON.format(minor=minor))
        path.chmod(0o755)
    shutil.copy(tmp_path / "bin/python3.11", tmp_path / "bin/python3")
    kept = {k: v for k, v in os.environ.items() if k != "PYTHON" and not k.startswith("MAKE")}

    def run(*args: str) -> tuple[int, str, list[str]]:
        environment = {**kept, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(["make", "install", *args], cwd=tmp_path, env=environment, capture_output=True, text=True)
        made = tmp_path / "made"
        return done.returncode, done.stderr, made.read_text().splitlines() if made.exists() else []

    return run


def test_an_old_python_is_refused_in_one_line_and_makes_nothing(make, tmp_path):
    code, err, made = make("PYTHON=python3.10")
    assert code == 2 and not made and not (tmp_path / ".venv").exists()
    assert err.splitlines()[0].startswith("Python 3.11 or newer is needed: make install PYTHON=python3.12")


def test_a_python_that_is_asked_for_takes_the_place_of_another_and_stays(make):
    assert make()[2] == ["-m venv --clear .venv"]
    assert len(make()[2]) == len(make("PYTHON=python3.11")[2]) == 1, "made again"
    assert make("PYTHON=python3.12")[2][1:] == ["-m venv --clear .venv"]
    assert len(make()[2]) == 2, "the one that was asked for gave way to the default"


def test_the_oldest_versions_are_those_that_the_project_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = {}
    for needed in project["dependencies"] + project["optional-dependencies"]["dev"]:
        found = re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", needed)
        lowest |= {found[1].lower(): found[2]} if found else {}
    pinned = dict(line.lower().split("==") for line in (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").split())
    del pinned["pyparsing"]  # not asked for by us: newer ones warn of the oldest matplotlib
    assert pinned.keys() == lowest.keys() - {"ruff", "mypy"}  # tools, which run with the newest set
    for name, version in pinned.items():
        assert re.fullmatch(rf"{re.escape(lowest[name])}(\.0)*", version), (name, version, lowest[name])
