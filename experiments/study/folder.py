"""The folder of a study: what it holds, and what was asked of it; the same goes on, and anything else is refused.

Finished runs are taken as they are, so a folder of another rule, task or search would give old results a new name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
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
from experiments.study.study import Rule, Study
from rhm import InvalidInput

FREE_PARTS = {"max_runs", "refine", "question"}
"""Parts of a study that may differ when it goes on. Rules may be added, and tasks at the end: none sees another's runs."""


class StudyFolder:
    """One study, one folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.study, self.plan, self.failed = path / "study.yaml", path / "runs.json", path / "failed.json"
        self.search, self.chosen, self.runs = path / "search.journal", path / "chosen.json", path / "runs"

    def check(self, study: Study) -> None:
        """See that a study may start or go on here.

        Raises:
            InvalidInput: the folder holds another study or something else.
        """
        check_folder("run_dir", self.path)
        if not self.study.exists():
            if self.path.exists() and any(not LEFTOVERS.fullmatch(found.name) for found in self.path.iterdir()):
                raise InvalidInput("run_dir", self.path, "a folder that is new, empty, or holds this study")
            return
        try:
            old = flatten(read_settings("run_dir", self.study))
        except InvalidInput as error:
            got = f"{self.path} with an unreadable {self.study.name}"
            raise InvalidInput("run_dir", got, f"a readable one; {error}") from error
        new = flatten(yaml.safe_load(study_yaml(study)))
        for key in sorted(old.keys() | new.keys()):
            if key == "rules" and isinstance(old.get(key), list) and _all_in(_whole(old[key]), new[key]):
                continue
            if key == "tasks" and isinstance(old.get(key), list) and alike(old[key], new[key][: len(old[key])]):
                continue
            if key.split(".")[0] not in FREE_PARTS and not alike(old.get(key), new.get(key)):
                here, there = _difference(str(new.get(key)), str(old.get(key)))
                got = f"{key}={here} in {self.path}, which holds a study with {key}={there}"
                raise InvalidInput("run_dir", got, "the same settings to go on, or another folder")

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


def _whole(rules: list[Any]) -> list[Any]:
    """Rules as they are written today: what an earlier version did not have is left to its default."""
    defaults = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(Rule)}
    return [{**defaults, **own} if isinstance(own, dict) else own for own in rules]


def _all_in(some: list[Any], rules: list[Any]) -> bool:
    """Whether each of some rules is among others as it is."""
    return all(any(alike(one, other) for other in rules) for one in some)


def _difference(one: str, other: str, length: int = 60) -> tuple[str, str]:
    """Two texts, the parts of long ones around where they begin to differ."""
    start = max(0, len(os.path.commonprefix([one, other])) - length // 2)

    def part(text: str) -> str:
        return f"{'…' if start else ''}{text[start : start + length]}{'…' if len(text) > start + length else ''}"

    return (one, other) if max(len(one), len(other)) <= length else (part(one), part(other))
