"""What results say of the source that made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from experiments.run import results
from experiments.run.results import git_commit


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *who, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_says_whether_files_were_edited_and_is_that_of_this_source_alone(tmp_path, monkeypatch):
    source = tmp_path / "experiments/run/results.py"
    source.parent.mkdir(parents=True)
    source.write_text("a")
    monkeypatch.setattr(results, "__file__", str(source))
    assert git_commit() is None
    git(tmp_path, "init", "-q")
    assert git_commit() is None  # nothing was committed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit() == commit
    source.write_text("b")
    assert git_commit() == f"{commit}-dirty"
    git(tmp_path, "commit", "-qam", "two")
    wheel = tmp_path / "site-packages/experiments/run/results.py"
    wheel.parent.mkdir(parents=True)
    monkeypatch.setattr(results, "__file__", str(wheel))
    assert git_commit() is None  # within somebody else's repository
