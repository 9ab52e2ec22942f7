"""Our folders have common names: they are found first, whatever else is called so."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from wheels import PACKAGES

from experiments.study.workers import Worker
from rhm.names import NAMES, LastFolder, OwnFolders, look_in, looked_in

ROOT = Path(__file__).parents[2]
WHERE = "import experiments; from importlib.util import find_spec; print(*(find_spec(name).origin for name in {names}))"


def said(folder: Path, *arguments: str) -> str:
    """What Python prints that finds a folder before the project."""
    env = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=env, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names_are_those_of_all_packages_but_rhm():
    assert {*NAMES, "rhm"} == {*PACKAGES}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_beside_rhm(name):
    spec = OwnFolders.find_spec(name)
    assert spec is not None and spec.origin == str(ROOT / name / "__init__.py")


@pytest.mark.parametrize("name", ["torch", "rhm", "rules.base", "my_networks"])
def test_any_other_name_is_nothing_to_it(name):
    assert OwnFolders.find_spec(name) is None


def test_ours_come_before_modules_of_the_same_name(tmp_path):
    names = [name for name in NAMES if name != "experiments"]
    for name in names:
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "experiments").mkdir()  # of data: a folder without modules
    assert said(tmp_path, "-c", WHERE.format(names=names)).split() == [str(ROOT / name / "__init__.py") for name in names]


def test_the_command_line_does_not_take_another_experiments(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/__init__.py").write_text("raise SystemExit('not ours')", encoding="utf-8")
    for arguments in (["-m", "rhm", "--version"], ["-c", "from rhm.__main__ import main; main()"]):
        assert said(tmp_path, *arguments).startswith("rhm")


def test_what_a_command_starts_does_not_look_into_the_current_folder(tmp_path):
    script = "import subprocess, sys; from rhm.__main__ import main; main(); subprocess.run([sys.executable, '-m', 'mine'], check=True)"
    (tmp_path / "mine.py").touch()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, check=False)
    assert done.returncode == 1 and b"No module named mine" in done.stderr


def test_a_pickled_worker_asks_for_rhm_first():
    found = []

    class Watched(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.append((module, name))
            return super().find_class(module, name)

    assert isinstance(Watched(io.BytesIO(pickle.dumps(Worker()))).load(), Worker)
    assert found == [("rhm.names", "made")]


# -------------------------------------------------------------------- a folder that is looked into last


@pytest.fixture
def folder(tmp_path):
    """A folder that is looked into last, and only here."""
    before = list(sys.meta_path)
    look_in(str(tmp_path))
    yield tmp_path
    sys.meta_path[:] = before


def test_a_module_a_package_and_a_folder_with_modules_are_found_and_logs_are_not(folder):
    (folder / "own_module.py").touch()
    for name, file in {"own_package": "__init__.py", "own_folder": "rules.py", "own_logs": "a.log"}.items():
        (folder / name).mkdir()
        (folder / name / file).touch()
    found = [find_spec(f"own_{name}") is not None for name in ("module", "package", "folder", "logs")]
    assert found == [True, True, True, False] and find_spec("own_folder.rules") is not None


def test_what_lies_anywhere_else_comes_first(folder):
    (folder / "yaml.py").touch()
    assert LastFolder(str(folder)).find_spec("yaml") is not None
    assert Path(sys.meta_path[-1].folder) == folder and not Path(find_spec("yaml").origin).is_relative_to(folder)


def test_a_worker_looks_where_its_sweep_did(folder):
    content = pickle.dumps(Worker())
    look_in("/")
    pickle.loads(content)
    assert looked_in() == str(folder) and sum(isinstance(finder, LastFolder) for finder in sys.meta_path) == 1
