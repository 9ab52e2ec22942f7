"""A folder with many runs: what it holds, and what was asked of it; the same goes on, and anything else is refused.

Finished runs are taken as they are, so a folder of another rule, task or search would give old results a new name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from experiments.files import (
    UNREADABLE,
    alike,
    check_folder,
    flatten,
    read_json,
    read_settings,
    write_atomically,
    write_json,
    writing,
)
from experiments.run.folder import LEFTOVERS
from experiments.study.file import study_yaml
from experiments.study.job import Failure
from experiments.study.study import Study
from rhm import InvalidInput

ASKED = "asked.yaml"
"""File of a search, and of a rule on a task in a comparison."""
FREE_PARTS = {"max_runs", "refine", "question"}
"""Parts of a study that may differ when it goes on."""


class StudyFolder:
    """One study, one folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.study, self.plan, self.failed = path / "study.yaml", path / "runs.json", path / "failed.json"
        self.runs, self.chosen = path / "runs", path / "chosen"

    def check(self, study: Study) -> None:
        """See that a study may start or go on here.

        Raises:
            InvalidInput: the folder holds another study or something else.
        """
        check_asked(self.study, yaml.safe_load(study_yaml(study)), "study", FREE_PARTS)

    def read_failed(self) -> dict[str, Failure]:
        """Runs that have failed, and why.

        Raises:
            OSError, ValueError: the file that says so cannot be read; the message names it.
        """
        try:
            return {str(name): Failure.of(entry) for name, entry in read_json(self.failed).items()}
        except FileNotFoundError:
            return {}
        except UNREADABLE as error:
            raise ValueError(f"{self.failed.name}: {type(error).__name__}: {error}") from error

    def write_failed(self, failed: Mapping[str, Failure]) -> None:
        """Write down which runs have failed, and why."""
        write_json(self.failed, {name: asdict(failure) for name, failure in failed.items()})


@contextmanager
def alone(folder: StudyFolder, study: Study) -> Iterator[StudyFolder]:
    """The study's folder, for one sweep at a time."""
    folder.check(study)
    with writing("run_dir", folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / ".lock").open("w", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidInput("run_dir", folder.path, "a folder in which no other sweep is running") from None
        folder.check(study)  # again: another sweep may have begun and ended here meanwhile
        for left in folder.path.glob(".*.part"):  # by a sweep that was killed
            left.unlink()
        write_atomically(folder.study, study_yaml(study))
        yield folder


def check_asked(file: Path, asked: dict[str, Any], kind: str, free: Collection[str] = ()) -> None:
    """See that runs may start or go on in a folder.

    Args:
        file: of the folder, with what was asked when it was begun; neither need exist.
        asked: now.
        kind: of what is asked, in a word.
        free: its parts that may differ.

    Raises:
        InvalidInput: the folder holds something else.
    """
    folder = file.parent
    check_folder("run_dir", folder)
    if not file.exists():
        if folder.exists() and any(not LEFTOVERS.fullmatch(found.name) for found in folder.iterdir()):
            raise InvalidInput("run_dir", folder, f"a folder that is new, empty, or holds this {kind}")
        return
    try:
        old = flatten(read_settings("run_dir", file))
    except InvalidInput as error:
        raise InvalidInput("run_dir", f"{folder} with an unreadable {file.name}", f"a readable one; {error}") from error
    new = flatten(asked)
    for key in sorted(old.keys() | new.keys()):
        if key.split(".")[0] not in free and not alike(old.get(key), new.get(key)):
            here, there = _difference(str(new.get(key)), str(old.get(key)))
            got = f"{key}={here} in {folder}, which holds a {kind} with {key}={there}"
            raise InvalidInput("run_dir", got, "the same settings to go on, or another folder")


def goes_on(folder: Path, asked: dict[str, Any], kind: str) -> bool:
    """Whether runs were begun in a folder, as ``FOLDER/NAME``; if so, for what is asked now.

    Raises:
        InvalidInput: they were begun for something else.
    """
    begun = any(folder.glob("*/config.yaml"))
    if begun:
        check_asked(folder / ASKED, asked, kind)
    return begun


def keep_asked(folder: Path, asked: dict[str, Any]) -> None:
    """Make a folder and write down what is asked of it.

    Raises:
        InvalidInput: it cannot be written.
    """
    with writing("run_dir", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ASKED, yaml.safe_dump(asked, sort_keys=False))


def _difference(one: str, other: str, length: int = 60) -> tuple[str, str]:
    """Two texts, the parts of long ones around where they begin to differ."""
    start = max(0, len(os.path.commonprefix([one, other])) - length // 2)

    def part(text: str) -> str:
        return f"{'…' if start else ''}{text[start : start + length]}{'…' if len(text) > start + length else ''}"

    return (one, other) if max(len(one), len(other)) <= length else (part(one), part(other))
